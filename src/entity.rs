//! Entities: actors addressed by key. One is loaded when it has mail and unloaded when it rests, so that millions of them cost
//! disk, not memory.
//!
//! # Invariants
//! - An entity's mailbox and state are those of an actor named by its region and key: the same turns, the same order.
//! - One worker at a time reads an entity: it is loaded again only when the old worker's task has ended.
//! - At most [`Bounds::loaded`] entities of a region are loaded.

mod keeper;
mod line;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use self::keeper::Keeper;
use crate::actor::{
    Actor, ActorRef, Address, Control, Crowd, Exit, Life, MailboxOptions, MapKey, Running, Runtime,
    check_shapes, decoder, mailbox, not_opened,
};
use crate::durable::{check_name, entity_name, key_of};
use crate::error::{AdminError, KeyTooLong, SpawnError};
use crate::store::{FIRST_ENTITY, StoreError};

/// The entities of one region; see [`System::entities`](crate::System::entities). Clones share it.
pub struct Entities<K, A: Actor> {
    region: Arc<Region<K, A>>,
    control: watch::Sender<Control>,
    life: watch::Receiver<Life>,
}

/// How much of a region may be loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) loaded: usize,
    /// Bytes of state, as it is stored.
    pub(crate) bytes: u64,
    /// How long an entity may rest.
    pub(crate) idle: Duration,
}

/// Makes the entity of a key.
pub(crate) type KeyedFactory<K, A> = Arc<dyn Fn(&K) -> A + Send + Sync>;

/// What a region is opened from.
pub(crate) struct Open<K, A: Actor> {
    pub(crate) name: String,
    pub(crate) factory: KeyedFactory<K, A>,
    pub(crate) options: MailboxOptions,
    pub(crate) bounds: Bounds,
}

/// What a region's handles and its keeper share.
struct Region<K, A: Actor> {
    runtime: Arc<Runtime>,
    name: Arc<str>,
    factory: KeyedFactory<K, A>,
    options: MailboxOptions,
    bounds: Bounds,
    crowd: Arc<Crowd>,
    loaded: AtomicUsize,
    _key: PhantomData<fn(K)>,
}

impl<K: MapKey + Send + Sync + 'static, A: Actor> Open<K, A> {
    /// Opens the region and begins to load what has mail.
    pub(crate) async fn open(self, runtime: &Arc<Runtime>) -> Result<(Entities<K, A>, Running), SpawnError> {
        let Open { name, factory, options, bounds } = self;
        if runtime.is_closing() {
            return Err(SpawnError::ShuttingDown);
        }
        check_name(&name)?;
        runtime.ledger.region(&name, A::NAME).await.map_err(not_opened)?;
        check_shapes(runtime, &*decoder::<A>(runtime)?, &options).await?;
        let region = Region {
            runtime: runtime.clone(),
            name: name.as_str().into(),
            factory,
            options,
            bounds,
            crowd: Arc::new(Crowd::new(bounds.bytes)),
            loaded: AtomicUsize::new(0),
            _key: PhantomData,
        };
        let region = Arc::new(region);
        let control = watch::Sender::new(Control::Run);
        let life = watch::Sender::new(Life::Running);
        let keeper = Keeper::open(region.clone(), control.subscribe(), life.clone());
        let keeper = keeper.ok_or(SpawnError::Running { mailbox: name })?;
        let task = tokio::spawn(keeper.run());
        let running = Running::new(region.name.clone(), &control, &life, task);
        Ok((Entities { region, control, life: life.subscribe() }, running))
    }
}

impl<K: MapKey + 'static, A: Actor> Entities<K, A> {
    /// A handle on the entity of this key, loaded or not: what is sent with it loads the entity. Valid also when the entity is
    /// unloaded and loaded again. The entity exists from here on.
    ///
    /// # Errors
    /// The key is longer than 256 bytes, or the store failed.
    pub async fn get(&self, key: &K) -> Result<ActorRef<A>, SpawnError> {
        let name = self.name_of(key)?;
        let runtime = &self.region.runtime;
        let options = (!runtime.mailboxes.contains_key(&name)).then_some(&self.region.options);
        let mailbox = mailbox::<A>(runtime, &name, options).await?;
        Ok(ActorRef { runtime: runtime.clone(), mailbox })
    }

    /// The address of the entity of this key: what is sent to it, from a turn too, loads the entity.
    ///
    /// # Errors
    /// The key is longer than 256 bytes.
    pub fn address(&self, key: &K) -> Result<Address<A>, KeyTooLong> {
        Ok(Address::checked(self.name_of(key)?))
    }

    /// Up to `limit` keys of entities that exist, in the order of their bytes, after `after`. Those are on disk, synced.
    ///
    /// # Errors
    /// A key cannot be read as a `K`, `after` is too long, or the store failed.
    pub async fn keys(&self, after: Option<&K>, limit: usize) -> Result<Vec<K>, AdminError> {
        let region = &self.region.name;
        let unreadable = |what: String, why: &str| AdminError::Unreadable { what, why: why.into() };
        let after = after.map(|key| self.name_of(key)).transpose();
        let after = after.map_err(|why| unreadable("the key to go on after".into(), &why.to_string()))?;
        let ledger = &self.region.runtime.ledger;
        let names = ledger.entity_names(region, after.as_deref(), limit).await?;
        ledger.store().durable_now().await?;
        let read = |name: String| {
            let key = key_of(region, &name).and_then(|key| K::from_bytes(&key));
            key.ok_or_else(|| unreadable(name, "its key is not one of the region's key type"))
        };
        names.into_iter().map(read).collect()
    }

    /// Ends the region when its entities have handled all that waits, what is tried again later too. Returns when it has ended.
    ///
    /// # Errors
    /// The store failed.
    pub async fn drain(&self) -> Result<(), StoreError> {
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        while self.life.borrow().is_running() && self.has_mail().await? {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.stop().await;
        Ok(())
    }

    /// Whether something waits for one of the entities.
    async fn has_mail(&self) -> Result<bool, StoreError> {
        const PAGE: usize = 256;
        let ledger = &self.region.runtime.ledger;
        let mut from = Some(FIRST_ENTITY);
        while let Some(next) = from {
            let (waiting, next) = ledger.waiting_entities(&self.region.name, next, PAGE).await?;
            if !waiting.is_empty() {
                return Ok(true);
            }
            from = next;
        }
        Ok(false)
    }

    fn name_of(&self, key: &K) -> Result<String, KeyTooLong> {
        entity_name(&self.region.name, &key.to_bytes())
    }
}

impl<K, A: Actor> Entities<K, A> {
    /// The region's name.
    pub fn name(&self) -> &str {
        &self.region.name
    }

    /// How many entities are loaded.
    pub fn loaded(&self) -> usize {
        self.region.loaded.load(Ordering::Acquire)
    }

    /// Bytes of state of the entities that are loaded, as it is stored.
    pub fn loaded_bytes(&self) -> u64 {
        self.region.crowd.bytes()
    }

    /// Ends every entity after the turn that runs, and loads none any more. The mail stays and waits. Returns when they have
    /// ended.
    pub async fn stop(&self) {
        self.control.send_modify(|control| *control = (*control).max(Control::Stop));
        self.ended().await;
    }

    /// Waits until the region has ended, and tells why.
    pub async fn ended(&self) -> Exit {
        let mut life = self.life.clone();
        match life.wait_for(|life| !life.is_running()).await.as_deref() {
            Ok(Life::Ended(exit)) => exit.clone(),
            _ => Exit::Aborted,
        }
    }
}

impl<K, A: Actor> Clone for Entities<K, A> {
    fn clone(&self) -> Self {
        Entities { region: self.region.clone(), control: self.control.clone(), life: self.life.clone() }
    }
}

impl<K, A: Actor> fmt::Debug for Entities<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entities({}: {}, {} loaded)", self.region.name, A::NAME, self.loaded())
    }
}

/// Why an entity cannot be loaded.
#[derive(Debug, thiserror::Error)]
enum NotLoaded {
    #[error("mailbox {0} has no name; the store is damaged")]
    Nameless(u32),
    #[error("the key of {0} is not one of the region's key type")]
    Key(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}
