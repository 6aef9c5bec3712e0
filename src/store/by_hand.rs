//! The steps of a store in the hands of a test: nothing happens but what it lets happen, on its one thread, so that a seed
//! repeats.
//!
//! # Invariants
//! - A step is what a thread would have done, and the order of the steps is the holder's.
//! - What would have run on a thread of its own runs where it was called, after a pause that the holder chooses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::checkpoint::Checkpointer;
use super::committer::{Committer, Step};

/// Clones hold the same steps, of one life of a store.
#[derive(Clone)]
pub(crate) struct ByHand {
    held: Arc<Held>,
}

struct Held {
    committer: Mutex<Option<Committer>>,
    checkpointer: Mutex<Option<Checkpointer>>,
    work: Notify,
    chores: Notify,
    pause: Box<dyn Fn() -> u32 + Send + Sync>,
}

impl ByHand {
    /// `pause` says how often others come first before something runs that may block.
    pub(crate) fn new(pause: impl Fn() -> u32 + Send + Sync + 'static) -> Self {
        let held = Held {
            committer: Mutex::default(),
            checkpointer: Mutex::default(),
            work: Notify::new(),
            chores: Notify::new(),
            pause: Box::new(pause),
        };
        ByHand { held: Arc::new(held) }
    }

    /// Takes the committer's next step.
    pub(crate) fn commit(&self) -> Step {
        lock(&self.held.committer).as_mut().map_or(Step::Idle, Committer::step)
    }

    /// Takes the checkpointer's next step.
    pub(crate) fn checkpoint(&self) -> Step {
        lock(&self.held.checkpointer).as_mut().map_or(Step::Idle, Checkpointer::step)
    }

    /// What the checkpointer's next step is about.
    pub(crate) fn checkpoint_is_about(&self) -> &'static str {
        lock(&self.held.checkpointer).as_ref().map_or("nothing", Checkpointer::is_about)
    }

    /// Has a checkpoint begin, although nothing asks for one yet.
    pub(crate) fn ask_for_checkpoint(&self) {
        if let Some(checkpointer) = &*lock(&self.held.checkpointer) {
            checkpointer.ask();
        }
    }

    /// As the checkpointer's thread does it now and then.
    pub(crate) fn mark_high_water(&self) {
        if let Some(checkpointer) = &mut *lock(&self.held.checkpointer) {
            checkpointer.mark_or_fail();
        }
    }

    /// Waits until there may be something for the committer.
    pub(crate) async fn work(&self) {
        self.held.work.notified().await;
    }

    /// Waits until there may be something for the checkpointer.
    pub(crate) async fn chores(&self) {
        self.held.chores.notified().await;
    }

    pub(super) fn ring(&self) {
        self.held.work.notify_one();
        self.held.chores.notify_one();
    }

    pub(super) async fn run<T>(&self, run: impl FnOnce() -> T) -> T {
        for _ in 0..(self.held.pause)() {
            tokio::task::yield_now().await;
        }
        run()
    }

    pub(super) fn take_over(&self, committer: Committer, checkpointer: Checkpointer) {
        *lock(&self.held.committer) = Some(committer);
        *lock(&self.held.checkpointer) = Some(checkpointer);
        self.ring();
    }

    pub(super) fn end(&self) -> Option<Checkpointer> {
        let mut committer = lock(&self.held.committer).take()?;
        while committer.step() == Step::Worked {}
        lock(&self.held.checkpointer).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
