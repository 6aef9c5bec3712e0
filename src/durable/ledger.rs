//! The one way to read and to commit, for everything above the store: what may block on the disk runs off the async
//! workers, and refusals that only mean "look again" are dealt with here.
//!
//! # Invariants
//! - No call blocks an async worker on the disk.
//! - A commit that returns `Ok` was admitted once; one that returns an error was not admitted at all.

use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore};

use crate::clock::Clock;
use crate::error::Refused;
use crate::store::{
    Admitted, Batch, Letter, Letters, Limits, LogId, MailboxId, Origin, Peek, Refusal, Seen, Store,
    StoreError, Urgency,
};
use crate::sync::Bell;
use crate::sync::atomic::AtomicU8;

/// A commit was refused for a reason its maker must deal with.
#[derive(Debug)]
pub(crate) enum CommitRefused {
    /// The letter was settled by something else.
    Gone,
    /// A newer incarnation of the actor has started.
    Fenced,
    /// A key that had to be absent has a value, or the other way round.
    Key(Vec<u8>),
    /// The mailbox is at its limit.
    Full { waiting: u64, bytes: u64, limits: Limits, room: Arc<Bell> },
    /// Anything a sender is told.
    Refused(Refused),
}

/// A value and what to put into a condition about it.
pub(crate) type SeenValue = (Option<Arc<[u8]>>, Seen);

/// See the module's head; clones share the store.
#[derive(Clone)]
pub(crate) struct Ledger {
    store: Store,
    clock: Arc<dyn Clock>,
    /// Who may be at the disk at once: each is a thread with memory of its own.
    readers: Arc<Semaphore>,
    /// Held by whoever makes a topic or changes who reads what.
    pub(super) catalogue: Arc<Mutex<()>>,
}

/// The most threads that read for one ledger.
const READERS: usize = 8;

impl Ledger {
    pub(crate) fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Ledger { store, clock, readers: Arc::new(Semaphore::new(READERS)), catalogue: Arc::default() }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Runs something that may block on the disk.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        // never closed, so this is one of them
        let reader = self.readers.clone().acquire_owned().await;
        let read = move || {
            let _until_done = reader;
            read(&store)
        };
        self.store.drive().blocking(read).await.unwrap_or(Err(StoreError::Closed))
    }

    pub(crate) async fn get(&self, key: Vec<u8>) -> Result<Option<Arc<[u8]>>, StoreError> {
        match self.store.peek(&key) {
            Peek::Value(value) => Ok(Some(value)),
            Peek::Absent => Ok(None),
            Peek::AskEngine => self.blocking(move |store| store.get(&key)).await,
        }
    }

    pub(crate) async fn get_seen(&self, key: Vec<u8>) -> Result<SeenValue, StoreError> {
        self.blocking(move |store| store.get_seen(&key)).await
    }

    /// Pairs with `from <= key < to` in order, at most `limit`.
    pub(crate) async fn scan(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Arc<[u8]>)>, StoreError> {
        self.blocking(move |store| store.scan(&from, &to, limit)).await
    }

    /// Up to `count` waiting letters from a position on.
    pub(crate) async fn letters(
        &self,
        log: LogId,
        from: u64,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<Letter>, StoreError> {
        match self.store.peek_letters(log, from, count, bytes) {
            Letters::Here(letters) => Ok(letters),
            Letters::InEngine => {
                self.blocking(move |store| store.read_letters(log, from, count, bytes)).await
            }
        }
    }

    /// Loads the cursors of a mailbox, so that batches may name it.
    pub(crate) async fn load(&self, mailbox: MailboxId) -> Result<(), StoreError> {
        self.blocking(move |store| store.load_mailbox(mailbox, None)).await
    }

    /// Loads a mailbox and keeps it loaded as long as what this gives lives; see [`Store::hold_mailbox`].
    pub(crate) async fn hold(
        &self,
        mailbox: MailboxId,
        name: &str,
        limits: Option<Limits>,
    ) -> Result<(Arc<Bell>, Arc<AtomicU8>), StoreError> {
        if let Some(held) = self.store.held_mailbox(mailbox) {
            return Ok(held);
        }
        let name = name.to_owned();
        self.blocking(move |store| store.hold_mailbox(mailbox, &name, limits)).await
    }

    /// Commits without waiting, or says at once why not.
    pub(crate) fn try_commit(
        &self,
        batch: &Batch,
        origin: Origin,
        urgency: Urgency,
    ) -> Result<Admitted, Refusal> {
        self.store.admit(batch, origin, urgency)
    }

    /// Commits; waits as long as the disk does not keep up. `Ok` means admitted, not yet durable.
    pub(crate) async fn commit(
        &self,
        batch: &mut Batch,
        origin: Origin,
        urgency: Urgency,
    ) -> Result<Admitted, CommitRefused> {
        loop {
            let refusal = match self.store.admit(batch, origin, urgency) {
                Ok(admitted) => return Ok(admitted),
                Err(refusal) => refusal,
            };
            self.look_again(batch, refusal, origin).await?;
        }
    }

    /// Deals with a refusal after which the same batch may be admitted; any other is the answer.
    pub(crate) async fn look_again(
        &self,
        batch: &mut Batch,
        refusal: Refusal,
        origin: Origin,
    ) -> Result<(), CommitRefused> {
        match refusal {
            Refusal::Busy => self.store.eased().await,
            // a turn has no sender to refuse: its letter waits until there is room
            Refusal::NoRoom if origin == Origin::Inside => self.store.eased().await,
            Refusal::NotLoaded(mailbox) => self.load(mailbox).await.map_err(store_failed)?,
            Refusal::Stale => self.refresh(batch).await.map_err(store_failed)?,
            Refusal::Gone => return Err(CommitRefused::Gone),
            Refusal::Fenced => return Err(CommitRefused::Fenced),
            Refusal::Key(key) => return Err(CommitRefused::Key(key)),
            Refusal::MailboxFull { waiting, bytes, limits, room } => {
                return Err(CommitRefused::Full { waiting, bytes, limits, room });
            }
            Refusal::TooLarge { bytes, limit } => {
                return Err(CommitRefused::Refused(Refused::TooLarge { bytes, limit }));
            }
            Refusal::NoRoom => return Err(CommitRefused::Refused(Refused::NoRoom)),
            Refusal::Failed(error) => return Err(store_failed(error)),
        }
        Ok(())
    }

    /// Reads again what the batch's conditions on keys rest on.
    async fn refresh(&self, batch: &mut Batch) -> Result<(), StoreError> {
        for key in batch.keys_in_conditions() {
            let (_, seen) = self.get_seen(key.clone()).await?;
            batch.seen(&key, seen);
        }
        Ok(())
    }

    /// Waits until the commit is durable.
    pub(crate) async fn durable(&self, admitted: &Admitted) -> Result<(), StoreError> {
        self.store.durable(admitted).await
    }
}

fn store_failed(error: StoreError) -> CommitRefused {
    CommitRefused::Refused(Refused::Store(error))
}
