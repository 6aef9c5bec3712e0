//! A supervised child that reads topics.

use std::fmt;
use std::marker::PhantomData;

use super::Topic;
use crate::actor::{Actor, Contains, Filter, Message, Subscribes};
use crate::durable::StartFrom;
use crate::supervisor::ChildSpec;

/// The topics that an actor reads, for [`ChildSpec::subscriber`].
#[must_use = "nothing is read until it is given to a child"]
pub struct Reads<A: Actor> {
    subscribes: Vec<Subscribes>,
    filters: Vec<Filter>,
    _actor: PhantomData<fn(A)>,
}

impl<A: Actor> Reads<A> {
    /// No topics.
    pub fn new() -> Self {
        Reads { subscribes: Vec::new(), filters: Vec::new(), _actor: PhantomData }
    }

    /// As [`Spawn::subscribe`](crate::Spawn::subscribe).
    pub fn subscribe<E: Message, I>(mut self, topic: &Topic<E>, from: StartFrom) -> Self
    where
        A::Messages: Contains<E, I>,
    {
        self.subscribes.push(Subscribes::To(topic.log(), from));
        self
    }

    /// As [`Spawn::subscribe_matching`](crate::Spawn::subscribe_matching).
    pub fn subscribe_matching<E: Message, I>(mut self, pattern: impl Into<String>, from: StartFrom) -> Self
    where
        A::Messages: Contains<E, I>,
    {
        self.subscribes.push(Subscribes::Matching(pattern.into(), E::NAME, from));
        self
    }

    /// As [`Spawn::filter`](crate::Spawn::filter).
    pub fn filter<E: Message, I>(mut self, wants: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self
    where
        A::Messages: Contains<E, I>,
    {
        self.filters.push(Filter::event(wants));
        self
    }

    /// As [`Spawn::filter_header`](crate::Spawn::filter_header).
    pub fn filter_header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.filters.push(Filter::Header(key.into(), value.into()));
        self
    }
}

impl<A: Actor> Default for Reads<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Actor> fmt::Debug for Reads<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reads").field(&self.subscribes).field(&self.filters).finish()
    }
}

impl ChildSpec {
    /// As [`ChildSpec::actor`], of an actor that reads topics: durable subscriptions with the actor's name. Where one begins when it
    /// is new, `reads` says; whenever the child is started again, it goes on where it was.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// let additions = system.topic::<Add>("additions").await?;
    /// let reads = Reads::new().subscribe(&additions, StartFrom::Earliest);
    /// let child = ChildSpec::subscriber("counter-1", || Counter, reads);
    /// system.supervise(Supervisor::new("readers", Strategy::OneForOne).child(child)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// What the actor has no handler for it cannot read:
    ///
    /// ```compile_fail,E0277
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// let ends = system.topic::<Terminated>("ends").await?;
    /// let reads = Reads::<Counter>::new().subscribe(&ends, StartFrom::Earliest);
    /// # Ok(()) }
    /// ```
    pub fn subscriber<A, F>(name: impl Into<String>, factory: F, reads: Reads<A>) -> Self
    where
        A: Actor,
        F: Fn() -> A + Send + Sync + 'static,
    {
        ChildSpec::actor(name, factory).reads(reads.subscribes, reads.filters)
    }
}
