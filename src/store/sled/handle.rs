//! sled's own handle, and the only way to it: panics caught, errors named, open and close within a time
//! limit.
//!
//! # Invariants
//! - `db` is a descriptor of our own, opened before sled writes: an error of the device is reported once to
//!   each descriptor that was open when it happened, and to none opened later.
//! - Its lock is ours before sled opens and after sled has let go, and sled's in between.

use std::any::Any;
use std::fs::{File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::files;
use crate::store::engine::EngineError;

/// An open sled and the descriptor that syncs its data file.
pub(super) struct Handle {
    /// `None` once released.
    sled: Option<::sled::Db>,
    db: File,
    dir: PathBuf,
    time_limit: Duration,
}

impl Handle {
    /// Opens sled on a thread of its own: of 60 single bits flipped 24 panicked there, and some damage loops.
    pub(super) fn open(
        config: ::sled::Config,
        dir: &Path,
        db: File,
        time_limit: Duration,
    ) -> Result<Self, EngineError> {
        let path = dir.to_path_buf();
        let open = move || caught(&path, || config.open());
        let opened = within(time_limit, dir, "opening", open);
        let sled = opened.map_err(|error| or_failed_sync(&db, dir, error))?;
        Ok(Self { sled: Some(sled), db, dir: dir.to_path_buf(), time_limit })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Asks sled; a panic becomes [`EngineError::Damaged`] with its text.
    pub(super) fn call<T>(
        &self,
        ask: impl FnOnce(&::sled::Db) -> ::sled::Result<T>,
    ) -> Result<T, EngineError> {
        match &self.sled {
            Some(sled) => caught(&self.dir, || ask(sled)),
            None => {
                Err(EngineError::Io { path: self.dir.clone(), source: io::Error::other("already closed") })
            }
        }
    }

    /// Makes the data file durable. A failure is never [`EngineError::Full`]: what was to be synced is gone
    /// from the page cache, whatever the reason.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.db.sync_data().map_err(|source| files::sync_failed(&self.dir.join(files::DB), source))
    }

    pub(super) fn or_failed_sync(&self, error: EngineError) -> EngineError {
        or_failed_sync(&self.db, &self.dir, error)
    }

    /// Drops sled and waits until nothing of it writes any more; the data file is then locked by us.
    pub(super) fn release(&mut self) -> Result<(), EngineError> {
        let Some(sled) = self.sled.take() else { return Ok(()) };
        let path = self.dir.clone();
        let go = move || {
            caught(&path, || {
                drop(sled);
                Ok(())
            })
        };
        within(self.time_limit, &self.dir, "closing", go)?;
        // its background threads write and truncate after the drop. Each keeps the locked descriptor open, so
        // the lock is free only when the last of them is done.
        lock(&self.db, &self.dir, self.time_limit).map_err(|error| self.stuck_if_held(error))
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

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!(%error, "sled was let go uncleanly");
        }
    }
}

/// Takes the lock sled takes, so nobody has the engine open while it is held. It goes with the descriptor.
pub(super) fn lock(db: &File, dir: &Path, patience: Duration) -> Result<(), EngineError> {
    let begun = Instant::now();
    loop {
        match db.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => return Err(files::failed(dir, source)),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => return Err(held_elsewhere(dir)),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn caught<T>(dir: &Path, ask: impl FnOnce() -> ::sled::Result<T>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(answer) => answer.map_err(|error| named(dir, error)),
        Err(panic) => Err(files::damaged(dir, &format!("sled panicked: {}", text(panic.as_ref())))),
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")
}

fn named(dir: &Path, error: ::sled::Error) -> EngineError {
    match error {
        ::sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            held_elsewhere(dir)
        }
        ::sled::Error::Io(source) => files::failed(dir, source),
        ::sled::Error::Corruption { .. } => files::damaged(dir, &error.to_string()),
        other => EngineError::Io { path: dir.to_path_buf(), source: io::Error::other(other.to_string()) },
    }
}

fn held_elsewhere(dir: &Path) -> EngineError {
    let source = io::Error::new(io::ErrorKind::WouldBlock, "another handle has this engine open");
    EngineError::Io { path: dir.to_path_buf(), source }
}

/// sled answers alike for a write that found no room, which broke nothing, and for a sync that found none,
/// which dropped what the page cache held. Our own descriptor was open before either, so its sync tells them
/// apart.
fn or_failed_sync(db: &File, dir: &Path, error: EngineError) -> EngineError {
    match error {
        EngineError::Full { .. } => match db.sync_data() {
            Ok(()) => error,
            Err(source) => files::sync_failed(&dir.join(files::DB), source),
        },
        other => other,
    }
}

/// Runs `work` on a thread of its own and gives up waiting after `limit`; the thread is then left to itself.
fn within<T: Send + 'static>(
    limit: Duration,
    dir: &Path,
    doing: &'static str,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let (done, outcome) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name(format!("sled-{doing}"))
        // nobody may be waiting any more; what was opened is then closed again here
        .spawn(move || drop(done.send(work())))
        .map_err(|source| files::failed(dir, source))?;
    match outcome.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => Err(stuck(dir, doing, limit)),
        Err(RecvTimeoutError::Disconnected) => {
            Err(files::damaged(dir, "sled's thread ended without an answer"))
        }
    }
}

fn stuck(dir: &Path, doing: &'static str, limit: Duration) -> EngineError {
    EngineError::Stuck { path: dir.to_path_buf(), doing, seconds: limit.as_secs() }
}
