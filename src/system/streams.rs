//! Running stages, and opening what items are read from.

use super::{Started, System};
use crate::actor::{Failure, Message, Subscribes, not_opened};
use crate::durable::StartFrom;
use crate::error::SpawnError;
use crate::stream::{Bus, BusHandler, Consume, Passing, Registration, Sources, Stage, StageRef};
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

    /// Opens an address of the event bus: [`send`](Bus::send) to one handler, [`publish`](Bus::publish) to all,
    /// [`request`](Bus::request) a reply. To be opened once, and cloned.
    ///
    /// # Errors
    /// See [`SpawnError`]. [`SpawnError::Running`]: it is open.
    pub async fn bus<M: Message>(&self, address: impl Into<String>) -> Result<Bus<M>, SpawnError> {
        let address = address.into();
        let name = format!("bus.{address}");
        let topic = self.topic::<M>(name.clone()).await.map_err(not_opened)?;
        let group = self.group::<BusHandler<M>>(name).await?;
        Ok(Bus::new(address, topic, group))
    }

    /// Adds a handler to an address. `name` is its durable identity: by it come messages that were published while it was away. When
    /// it is new, it begins with the next one.
    ///
    /// # Errors
    /// See [`SpawnError`].
    pub async fn bus_handler<M, F, Fut>(
        &self,
        bus: &Bus<M>,
        name: &str,
        handle: F,
    ) -> Result<Registration<M>, SpawnError>
    where
        M: Message,
        F: Fn(M, Passing) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<M::Reply, Failure>> + Send + 'static,
    {
        let factory = bus.factory(handle);
        let its_name = format!("{}.{name}", bus.group().actor().name());
        let subscriber =
            self.spawn(its_name, factory.clone()).subscribe(bus.topic(), StartFrom::Latest).await?;
        let member = bus.group().join(factory).name(name).await?;
        Ok(Registration { member, subscriber })
    }
}
