//! Who drives a store, from opening it to closing it cleanly: two threads, or in a simulation whoever holds the steps.
//!
//! # Invariants
//! - Only here is it decided where the steps are taken and where what blocks on the disk runs; what the steps do does not know.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::checkpoint::Checkpointer;
use super::committer::Committer;
use super::lock::Lock;
use super::recovery::{Place, Report};
use super::{Store, StoreConfig, StoreError};
use crate::observe::Observer;

/// Who takes the steps of a store, and where what may block on the disk runs.
#[derive(Clone)]
pub(crate) enum Drive {
    /// Two threads take the steps, and what blocks runs on others, beside the async workers.
    Threads,
    /// The test takes the steps, and all else runs where it is called.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    ByHand(super::by_hand::ByHand),
}

impl Drive {
    /// Runs something that may block on the disk; none when the runtime ends before.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match self {
            Drive::Threads => tokio::task::spawn_blocking(run).await.ok(),
            #[cfg(test)]
            #[cfg(not(steadfast_loom))]
            Drive::ByHand(hand) => Some(hand.run(run).await),
        }
    }

    /// Whether there may be threads.
    pub(crate) fn has_threads(&self) -> bool {
        matches!(self, Drive::Threads)
    }

    /// There is something to do. Threads hear it from what they sleep on.
    pub(super) fn ring(&self) {
        match self {
            Drive::Threads => {}
            #[cfg(test)]
            #[cfg(not(steadfast_loom))]
            Drive::ByHand(hand) => hand.ring(),
        }
    }
}

/// Those who take the steps.
enum Hands {
    Threads {
        committer: JoinHandle<()>,
        checkpointer: JoinHandle<Checkpointer>,
    },
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    ByHand(super::by_hand::ByHand),
}

impl Hands {
    fn begin(drive: &Drive, committer: Committer, checkpointer: Checkpointer) -> std::io::Result<Self> {
        match drive {
            Drive::Threads => {
                let committer = spawn("steadfast-commit", move || committer.run())?;
                let checkpointer = spawn("steadfast-checkpoint", move || checkpointer.run())?;
                Ok(Hands::Threads { committer, checkpointer })
            }
            #[cfg(test)]
            #[cfg(not(steadfast_loom))]
            Drive::ByHand(hand) => {
                hand.take_over(committer, checkpointer);
                Ok(Hands::ByHand(hand.clone()))
            }
        }
    }

    /// Once the store is told that it is closed: has what was admitted written, and gives back who closes the engine.
    fn end(self) -> Option<Checkpointer> {
        match self {
            Hands::Threads { committer, checkpointer } => {
                let _ = committer.join();
                checkpointer.join().ok()
            }
            #[cfg(test)]
            #[cfg(not(steadfast_loom))]
            Hands::ByHand(hand) => hand.end(),
        }
    }
}

/// A store that is driven. Dropping it without [`Driven::close`] is what a crash looks like to the next open.
pub(crate) struct Driven {
    store: Store,
    /// None once it was closed.
    hands: Option<Hands>,
    /// Released last.
    _lock: Option<Lock>,
}

impl Driven {
    /// Opens or makes the store in a directory. Blocks on the disk.
    pub(crate) fn open_directory(
        path: &Path,
        config: &StoreConfig,
        observer: Arc<dyn Observer>,
    ) -> Result<(Self, Report), StoreError> {
        let lock = Lock::take(path)?;
        Self::open(Place::directory(path), config, observer, Some(lock), Drive::Threads)
    }

    /// Opens or makes the store at a place. Blocks on the disk.
    pub(crate) fn open(
        place: Place,
        config: &StoreConfig,
        observer: Arc<dyn Observer>,
        lock: Option<Lock>,
        drive: Drive,
    ) -> Result<(Self, Report), StoreError> {
        let root = place.root.clone();
        let (store, committer, checkpointer, report) =
            Store::open_undriven(place, config, observer, drive.clone())?;
        let no_thread = |source| StoreError::io(&root, "starting a thread", source);
        let hands = Hands::begin(&drive, committer, checkpointer).map_err(no_thread)?;
        Ok((Driven { store, hands: Some(hands), _lock: lock }, report))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes everything admitted durable, checkpoints it, and leaves the seal by which the next open can tell any
    /// changed byte. Blocks on the disk.
    pub(crate) fn close(mut self) -> Result<(), StoreError> {
        let checkpointer = self.stop();
        if let Some(error) = self.store.shared.failure() {
            return Err(error);
        }
        let closed = checkpointer.ok_or(StoreError::Closed)?.close();
        self.store.shared.downfall.note(&StoreError::Closed);
        self.store.shared.wake_everybody();
        match &closed {
            Ok(()) => self.store.shared.end_life(),
            Err(_) => self.store.shared.fall_silent(),
        }
        closed
    }

    fn stop(&mut self) -> Option<Checkpointer> {
        self.store.shared.close();
        self.hands.take().and_then(Hands::end)
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        if self.hands.is_some() {
            self.stop();
            self.store.shared.fall_silent();
            if self.store.shared.failure().is_none() {
                self.store.shared.fail(StoreError::Closed);
            }
            // the next open of this process needs the engine's own lock
            drop(self.store.shared.engine.write().map(|mut engine| engine.take()));
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    thread::Builder::new().name(name.into()).spawn(run)
}
