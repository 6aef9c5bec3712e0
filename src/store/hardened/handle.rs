//! An engine's own handle, and the only way to it: panics caught, open and close within a time limit.
//!
//! # Invariants
//! - `data` is a descriptor of our own, opened before the engine writes: an error of the device is reported once to each
//!   descriptor that was open when it happened, and to none opened later.
//! - Its lock is ours before the engine opens and after the engine has let go. In between it is ours, or the engine's.

use std::any::Any;
use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::dir::EngineDir;
use super::files;
use crate::store::engine::EngineError;

/// How long a lock may still be held by a child process that has not yet replaced our memory.
const FORK_PATIENCE: Duration = Duration::from_millis(100);

/// An open engine and the descriptor that locks and syncs its data file.
pub(in crate::store) struct Handle<T: Send + 'static> {
    /// `None` once released.
    engine: Option<T>,
    data: File,
    dir: EngineDir,
    time_limit: Duration,
}

impl<T: Send + 'static> Handle<T> {
    /// Opens the engine on a thread of its own: of 60 single bits flipped in sled's files 24 panicked there, and some damage
    /// loops.
    pub(in crate::store) fn open(
        dir: &EngineDir,
        data: File,
        time_limit: Duration,
        open: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
    ) -> Result<Self, EngineError> {
        let opened = within(time_limit, dir, "opening", open);
        let engine = opened.map_err(|error| or_failed_sync(&data, dir, error))?;
        Ok(Self { engine: Some(engine), data, dir: dir.clone(), time_limit })
    }

    pub(in crate::store) fn dir(&self) -> &EngineDir {
        &self.dir
    }

    /// Asks the engine; a panic becomes [`EngineError::Damaged`] with its text.
    pub(in crate::store) fn call<A>(
        &self,
        ask: impl FnOnce(&T) -> Result<A, EngineError>,
    ) -> Result<A, EngineError> {
        match &self.engine {
            Some(engine) => caught(&self.dir, || ask(engine)),
            None => {
                let source = io::Error::other("already closed");
                Err(EngineError::Io { path: self.dir.path.clone(), source })
            }
        }
    }

    /// Makes the data file durable. A failure is never [`EngineError::Full`]: what was to be synced is gone
    /// from the page cache, whatever the reason.
    pub(in crate::store) fn sync(&self) -> Result<(), EngineError> {
        self.data.sync_data().map_err(|source| files::sync_failed(&self.dir.data(), source))
    }

    pub(in crate::store) fn or_failed_sync(&self, error: EngineError) -> EngineError {
        or_failed_sync(&self.data, &self.dir, error)
    }

    /// Lets the engine go and waits until nothing of it writes any more; the data file is then locked by us.
    pub(in crate::store) fn release(
        &mut self,
        go: impl FnOnce(T) -> Result<(), EngineError> + Send + 'static,
    ) -> Result<(), EngineError> {
        let Some(engine) = self.engine.take() else { return Ok(()) };
        within(self.time_limit, &self.dir, "closing", move || go(engine))?;
        // sled's background threads write and truncate after the drop. Each keeps the locked descriptor open, so the lock is
        // free only when the last of them is done.
        lock(&self.data, &self.dir, self.time_limit).map_err(|error| self.stuck_if_held(error))
    }

    fn stuck_if_held(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Io { ref source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
                stuck(&self.dir, "closing", self.time_limit)
            }
            other => other,
        }
    }
}

impl<T: Send + 'static> Drop for Handle<T> {
    fn drop(&mut self) {
        let let_go = self.release(|engine| {
            drop(engine);
            Ok(())
        });
        if let Err(error) = let_go {
            tracing::warn!(%error, "the engine was let go uncleanly");
        }
    }
}

/// Opens the data file and takes its lock, so that nobody else has it open while files are compared, copied and swept.
pub(in crate::store) fn locked(dir: &EngineDir) -> Result<File, EngineError> {
    let data = files::open_for_writing(&dir.data())?;
    lock(&data, dir, FORK_PATIENCE)?;
    Ok(data)
}

/// Makes the directory and its data file, and takes the lock.
pub(in crate::store) fn locked_new(dir: &EngineDir) -> Result<File, EngineError> {
    let data = dir.create()?;
    lock(&data, dir, FORK_PATIENCE)?;
    Ok(data)
}

/// Takes the lock that sled takes too. It goes with the descriptor.
pub(in crate::store) fn lock(data: &File, dir: &EngineDir, patience: Duration) -> Result<(), EngineError> {
    let begun = Instant::now();
    loop {
        match data.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => return Err(files::failed(&dir.path, source)),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => return Err(held_elsewhere(dir)),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

pub(in crate::store) fn held_elsewhere(dir: &EngineDir) -> EngineError {
    let source = io::Error::new(io::ErrorKind::WouldBlock, "another handle has this engine open");
    EngineError::Io { path: dir.path.clone(), source }
}

fn caught<A>(dir: &EngineDir, ask: impl FnOnce() -> Result<A, EngineError>) -> Result<A, EngineError> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(answer) => answer,
        Err(panic) => {
            let what = format!("{} panicked: {}", dir.layout.engine, text(panic.as_ref()));
            Err(files::damaged(&dir.suspect(), &what))
        }
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

/// An engine may answer alike for a write that found no room, which broke nothing, and for a sync that found none, which
/// dropped what the page cache held. Our own descriptor was open before either, so its sync tells them apart.
fn or_failed_sync(data: &File, dir: &EngineDir, error: EngineError) -> EngineError {
    match error {
        EngineError::Full { .. } => match data.sync_data() {
            Ok(()) => error,
            Err(source) => files::sync_failed(&dir.data(), source),
        },
        other => other,
    }
}

/// Runs `work` on a thread of its own and gives up waiting after `limit`; the thread is then left to itself.
fn within<A: Send + 'static>(
    limit: Duration,
    dir: &EngineDir,
    doing: &'static str,
    work: impl FnOnce() -> Result<A, EngineError> + Send + 'static,
) -> Result<A, EngineError> {
    let (done, outcome) = mpsc::sync_channel(1);
    let there = dir.clone();
    thread::Builder::new()
        .name(format!("{}-{doing}", dir.layout.engine))
        // nobody may be waiting any more; what was opened is then closed again here
        .spawn(move || drop(done.send(caught(&there, work))))
        .map_err(|source| files::failed(&dir.path, source))?;
    match outcome.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(stuck(dir, doing, limit)),
        Err(RecvTimeoutError::Disconnected) => {
            Err(files::damaged(&dir.path, "the engine's thread ended without an answer"))
        }
    }
}

fn stuck(dir: &EngineDir, doing: &'static str, limit: Duration) -> EngineError {
    EngineError::Stuck { path: dir.path.clone(), doing, seconds: limit.as_secs() }
}
