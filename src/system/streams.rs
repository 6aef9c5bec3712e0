//! Running stages, and opening what items are read from.

use super::{Started, System};
use crate::actor::{Message, Subscribes};
use crate::durable::StartFrom;
use crate::error::SpawnError;
use crate::stream::{Consume, Sources, Stage, StageRef};
use crate::topic::Topic;

impl System {
    /// Runs a stage; see [`Topic::stage`](crate::Topic::stage). It is an actor of the stage's name. `Ok` means that it takes its first
    /// event.
    ///
    /// # Errors
    /// See [`SpawnError`]. [`SpawnError::Hook`] when what was kept under this name was kept by other operators.
    pub async fn run_stage<S: Sources>(&self, stage: Stage<S>) -> Result<StageRef<S>, SpawnError> {
        let (actor, running) = stage.start().start(&self.inner.runtime).await?;
        self.runs(Started::Actor(running));
        Ok(StageRef::new(actor))
    }

    /// Reads a topic as a stream of items that are [acknowledged](crate::Delivery::ack): a durable subscription of this name, which goes
    /// on behind what was acknowledged, also after a crash.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// use futures_util::StreamExt;
    ///
    /// # let system = System::builder().open_in_memory().await?;
    /// let additions = system.topic::<Add>("additions").await?;
    /// additions.publish(Add { amount: 7 }).await?;
    /// let mut items = system.consume(&additions, "adder").await?;
    /// let item = items.next().await.ok_or("the source has ended")?;
    /// assert_eq!((item.item().amount, item.attempt()), (7, 1));
    /// item.ack().await?; // on disk: it does not come again
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Of awaiting it: see [`SpawnError`]. [`SpawnError::Running`] as long as another stream of this name is there, or has an item out.
    pub fn consume<M: Message>(&self, topic: &Topic<M>, name: impl Into<String>) -> Consume<'_, M> {
        let subscribes = vec![Subscribes::To(topic.log(), StartFrom::Earliest)];
        self.source(name.into(), subscribes)
    }

    /// Reads a mailbox of this name as a stream of messages that are acknowledged. It is sent to by
    /// [`Deliveries::source`](crate::Deliveries::source). Who asks is not answered.
    ///
    /// # Errors
    /// As [`System::consume`].
    pub fn receive<M: Message>(&self, name: impl Into<String>) -> Consume<'_, M> {
        self.source(name.into(), Vec::new())
    }

    fn source<M: Message>(&self, name: String, subscribes: Vec<Subscribes>) -> Consume<'_, M> {
        let runs = Box::new(|running| self.runs(Started::Actor(running)));
        Consume::new(name, subscribes, &self.inner.runtime, runs)
    }
}
