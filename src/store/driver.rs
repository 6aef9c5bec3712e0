//! The two threads of a store, from opening it to closing it cleanly.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use super::checkpoint::Checkpointer;
use super::lock::Lock;
use super::recovery::{Place, Report};
use super::{Store, StoreConfig, StoreError};
use crate::observe::Observer;

/// A store with its threads. Dropping it without [`Driven::close`] is what a crash looks like to the next open.
pub(crate) struct Driven {
    store: Store,
    committer: Option<JoinHandle<()>>,
    checkpointer: Option<JoinHandle<Checkpointer>>,
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
        Self::open(Place::directory(path, config.engine)?, config, observer, Some(lock))
    }

    /// Opens or makes the store at a place. Blocks on the disk.
    pub(crate) fn open(
        place: Place,
        config: &StoreConfig,
        observer: Arc<dyn Observer>,
        lock: Option<Lock>,
    ) -> Result<(Self, Report), StoreError> {
        let root = place.root.clone();
        let (store, committer, checkpointer, report) = Store::open_undriven(place, config, observer)?;
        let no_thread = |source| StoreError::io(&root, "starting a thread", source);
        let committer = spawn("steadfast-commit", move || committer.run()).map_err(no_thread)?;
        let checkpointer = spawn("steadfast-checkpoint", move || checkpointer.run()).map_err(no_thread)?;
        let driven =
            Driven { store, committer: Some(committer), checkpointer: Some(checkpointer), _lock: lock };
        Ok((driven, report))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes everything admitted durable, checkpoints it, and leaves the seal by which the next open can tell any
    /// changed byte. Blocks on the disk.
    pub(crate) fn close(mut self) -> Result<(), StoreError> {
        let checkpointer = self.stop_threads();
        if let Some(error) = self.store.shared.failure() {
            return Err(error);
        }
        let closed = checkpointer.ok_or(StoreError::Closed)?.close();
        self.store.shared.failed.send_if_modified(|failed| failed.replace(StoreError::Closed).is_none());
        self.store.shared.wake_everybody();
        match &closed {
            Ok(()) => self.store.shared.end_life(),
            Err(_) => self.store.shared.fall_silent(),
        }
        closed
    }

    fn stop_threads(&mut self) -> Option<Checkpointer> {
        {
            // both under the lock: a committer that is told to end must not find later that something was still admitted,
            // and a thread about to sleep has looked
            let mut admission = self.store.shared.admission();
            admission.closed = true;
            self.store.shared.closing.store(true, Ordering::Release);
            self.store.shared.wake_everybody();
        }
        if let Some(committer) = self.committer.take() {
            let _ = committer.join();
        }
        self.checkpointer.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        if self.committer.is_some() {
            self.stop_threads();
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
