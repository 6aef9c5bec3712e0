//! Opening a region of entities.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Started, System};
use crate::actor::{Actor, MailboxOptions, MapKey};
use crate::entity::{Bounds, Entities, KeyedFactory, Open};
use crate::error::SpawnError;
use crate::policy::RetryPolicy;

/// A region being opened; awaiting it opens it. See [`System::entities`].
#[must_use = "nothing is opened until it is awaited"]
pub struct OpenEntities<'a, K, A: Actor> {
    system: &'a System,
    name: String,
    factory: KeyedFactory<K, A>,
    options: MailboxOptions,
    bounds: Bounds,
}

impl System {
    /// Opens a region: the entities of one type, each an actor of its own, addressed by key. An entity is loaded when it has
    /// mail and unloaded when it rests: a million of them cost disk, not memory. `factory` makes the entity of a key at each
    /// load and after each failed turn; what is to outlive an unload is [state](crate::State).
    ///
    /// Each entity has the order and the guarantees of an actor; different entities run in parallel. Mail for the entities of a
    /// region that is not open waits. Stopping an entity by its handle unloads it.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// let counters = system.entities("counters", |_: &u64| Counter).max_loaded(1_000).await?;
    /// let seventh = counters.get(&7).await?;
    /// seventh.tell(Add { amount: 7 }).await?;
    /// assert_eq!(seventh.ask(Add { amount: 1 }).await?, 8);
    /// assert_eq!(counters.keys(None, 10).await?, [7]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`SpawnError`]: the region belongs to another type of actor, or is open already.
    pub fn entities<K, A, F>(&self, name: impl Into<String>, factory: F) -> OpenEntities<'_, K, A>
    where
        K: MapKey + Send + Sync + 'static,
        A: Actor,
        F: Fn(&K) -> A + Send + Sync + 'static,
    {
        let bounds = Bounds { loaded: 10_000, bytes: 64 << 20, idle: Duration::from_secs(60) };
        let (name, factory) = (name.into(), Arc::new(factory));
        OpenEntities { system: self, name, factory, options: A::mailbox(), bounds }
    }
}

impl<'a, K: MapKey + Send + Sync + 'static, A: Actor> OpenEntities<'a, K, A> {
    /// The most entities that are loaded at once, 10 000 unless it is said. Each costs some KiB beside its own. With 0 none is
    /// loaded and the mail waits: for tools that look at keys and state.
    pub fn max_loaded(mut self, entities: usize) -> Self {
        self.bounds.loaded = entities;
        self
    }

    /// The most bytes of state of all that are loaded, as it is stored; 64 MiB unless it is said. What an entity holds beside
    /// its state is not counted. One entity may always be loaded.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.bounds.bytes = bytes;
        self
    }

    /// How long an entity that has nothing to do stays loaded, 60 s unless it is said; up to a quarter longer.
    pub fn idle_after(mut self, time: Duration) -> Self {
        self.bounds.idle = time;
        self
    }

    /// Options of each entity's mailbox other than those of [`Actor::mailbox`].
    pub fn mailbox(mut self, options: MailboxOptions) -> Self {
        self.options = options;
        self
    }

    /// When and how often a failed message is tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options = self.options.retry(policy);
        self
    }

    async fn open(self) -> Result<Entities<K, A>, SpawnError> {
        let OpenEntities { system, name, factory, options, bounds } = self;
        let open = Open { name, factory, options, bounds };
        let (entities, running) = open.open(&system.inner.runtime).await?;
        system.runs(Started::Actor(running));
        Ok(entities)
    }
}

impl<'a, K: MapKey + Send + Sync + 'static, A: Actor> IntoFuture for OpenEntities<'a, K, A> {
    type Output = Result<Entities<K, A>, SpawnError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}
