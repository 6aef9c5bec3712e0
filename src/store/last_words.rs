//! A process that ends itself leaves a word: one byte in a file, written by the handler of the signal that `abort`, a stack
//! overflow and a panic within a panic all raise. Nothing else that ends a process writes it, so a kill from outside is told
//! apart from a message that kills.
//!
//! # Invariants
//! - Only with this word is a message held to have killed the process.
//! - The same signal sent from outside leaves no word: a process that is alive some time after it was not ended by itself. It
//!   takes back the word and ends as it was told to.
//! - When nobody watches any more, the signal does what it does without us.

#[cfg(not(unix))]
pub(super) use elsewhere::LastWords;
use std::io;
#[cfg(unix)]
pub(super) use unix::LastWords;

use super::medium::Medium;

pub(super) const NAME: &str = "last-words";

/// Whether the process before left its word.
pub(super) fn were_said(medium: &dyn Medium) -> bool {
    medium.open(NAME).and_then(|file| file.len()).is_ok_and(|len| len > 0)
}

/// Removes the word. Synced: one that came back after a power cut would condemn an innocent message.
pub(super) fn forget(medium: &dyn Medium) -> io::Result<()> {
    match medium.remove(NAME) {
        Ok(()) => medium.sync_dir(""),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
mod unix {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
    use std::time::Duration;

    use signal_hook::consts::SIGABRT;
    use signal_hook::{SigId, flag, low_level};

    use crate::clock::Stopwatch;

    /// So long after the signal nothing that `abort` does is still going on, such as a crash reporter's work.
    const ALIVE_AFTER: Duration = Duration::from_secs(2);

    /// The files of all open stores of this process: signals belong to the process.
    static FILES: Mutex<Vec<Arc<File>>> = Mutex::new(Vec::new());
    /// Whether the signal ends the process as it does without us: while nobody watches.
    static AS_USUAL: OnceLock<Arc<AtomicBool>> = OnceLock::new();

    /// Watches until it is dropped.
    pub(crate) struct LastWords {
        file: Arc<File>,
        actions: [SigId; 2],
        signalled: Arc<AtomicBool>,
        since: Mutex<Option<Stopwatch>>,
    }

    impl LastWords {
        /// Has the process write a byte to the file at `path` when it ends itself.
        pub(crate) fn watch(path: &Path) -> io::Result<Self> {
            let mut options = OpenOptions::new();
            options.append(true).create(true);
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = Arc::new(options.open(path)?);
            file.set_len(0)?;
            let signalled = Arc::new(AtomicBool::new(false));
            let mut files = files();
            let as_usual = while_nobody_watches(&files)?;
            let writes = low_level::pipe::register(SIGABRT, file.try_clone()?)?;
            let notes = flag::register(SIGABRT, signalled.clone());
            let notes = notes.inspect_err(|_| {
                low_level::unregister(writes);
            })?;
            files.push(file.clone());
            as_usual.store(false, Ordering::SeqCst);
            Ok(LastWords { file, actions: [writes, notes], signalled, since: Mutex::default() })
        }

        /// Ends the process when the signal came from outside.
        pub(crate) fn heed_outside(&self) {
            if !self.signalled.load(Ordering::SeqCst) {
                return;
            }
            let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
            if since.get_or_insert_with(Stopwatch::start).elapsed() < ALIVE_AFTER {
                return;
            }
            tracing::error!(
                "told from outside to abort: the process ends; no message is held to have done it"
            );
            for file in files().iter() {
                let _ = file.set_len(0);
            }
            let _ = low_level::emulate_default_handler(SIGABRT);
        }
    }

    impl Drop for LastWords {
        fn drop(&mut self) {
            let mut files = files();
            files.retain(|file| !Arc::ptr_eq(file, &self.file));
            if files.is_empty()
                && let Some(as_usual) = AS_USUAL.get()
            {
                as_usual.store(true, Ordering::SeqCst);
            }
            for action in self.actions {
                low_level::unregister(action);
            }
        }
    }

    fn files() -> MutexGuard<'static, Vec<Arc<File>>> {
        FILES.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registered once, before all else, and never taken away: the operating system's own way of dealing with the signal does not
    /// come back by itself.
    fn while_nobody_watches(_files: &MutexGuard<'_, Vec<Arc<File>>>) -> io::Result<Arc<AtomicBool>> {
        if let Some(known) = AS_USUAL.get() {
            return Ok(known.clone());
        }
        let made = Arc::new(AtomicBool::new(true));
        flag::register_conditional_default(SIGABRT, made.clone())?;
        Ok(AS_USUAL.get_or_init(|| made).clone())
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use std::io;
    use std::path::Path;

    /// Nothing tells an end from another here: no message is held to have killed the process.
    pub(crate) struct LastWords;

    impl LastWords {
        pub(crate) fn watch(_: &Path) -> io::Result<Self> {
            Ok(LastWords)
        }

        pub(crate) fn heed_outside(&self) {}
    }
}
