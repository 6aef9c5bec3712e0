//! What can be wrong with a store, said so that somebody woken at night knows which file and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::engine::EngineError;

/// Stands for the engine where its place is not known.
const ENGINE: &str = "the engine";

/// The store could not be opened, or has stopped. Nothing that was accepted has been dropped: what is on disk stays
/// as it was found.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another handle of this one, has the store open.
    #[error("{} is in use by {holder}; stop it, or open another directory", .path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// Who holds it, as far as its lock file tells.
        holder: String,
    },
    /// The directory has files that no store of this library wrote, or a part of a store is missing.
    #[error("{} is not a steadfast store: {what}", .path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// What was expected.
        what: String,
    },
    /// The store was written by a newer version of this library.
    #[error("{} has format version {found}, this version of steadfast knows up to {known}; upgrade steadfast", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Another engine was chosen than the store was made with.
    #[error(
        "{} says that this store has the engine {found}, not {chosen}: choose {found}, or none, and it opens with the engine \
         it has; a backup with {chosen} makes a store that has that one", .path.display()
    )]
    OtherEngine {
        /// The manifest.
        path: PathBuf,
        /// The engine's name in it.
        found: String,
        /// The name of the engine that was chosen.
        chosen: &'static str,
    },
    /// The store was made with an engine that this build does not have.
    #[error(
        "{} says that this store has the engine {found}, and this build has only {known}: build steadfast with its feature \
         {found}, if it has one, or with a version that has", .path.display()
    )]
    UnknownEngine {
        /// The manifest.
        path: PathBuf,
        /// The engine's name in it.
        found: String,
        /// The names of the engines of this build.
        known: String,
    },
    /// Bytes on disk are not what was written.
    #[error("{} is damaged: {what}. Nothing was changed; restore the directory from a backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What did not verify, and where.
        what: String,
    },
    /// The store ends earlier than it must: commits that were durable are missing.
    #[error(
        "{} ends at commit {found}, but it reached {expected}: durable commits are missing. Nothing was changed; \
         restore the directory from a backup", .path.display()
    )]
    Truncated {
        /// The file or directory.
        path: PathBuf,
        /// The number it must reach.
        expected: u64,
        /// The number it reaches.
        found: u64,
    },
    /// There is no room on the device.
    #[error("no room left on the device for {}: {what}; free some space", .path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What needed the room.
        what: String,
    },
    /// The operating system refused a call.
    #[error("{}: {doing} failed: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The operating system's error.
        source: Arc<io::Error>,
    },
    /// The engine did not answer.
    #[error("{} did not answer within {seconds} s while {doing}; start the process again", .path.display())]
    Stuck {
        /// The engine's directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The time limit in seconds.
        seconds: u64,
    },
    /// A setting cannot be used.
    #[error("{setting} cannot be {value}: {why}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// The value given.
        value: String,
        /// What would do.
        why: &'static str,
    },
    /// This build aborts on panic, so a panicking handler would take every actor with it.
    #[error(
        "this program is built with panic = \"abort\": one panicking handler would end the whole process. Build with \
         panic = \"unwind\""
    )]
    AbortsOnPanic,
    /// The store was closed, or its threads have ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn io(path: impl Into<PathBuf>, doing: &'static str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return StoreError::Full { path: path.into(), what: doing.into() };
        }
        StoreError::Io { path: path.into(), doing, source: Arc::new(source) }
    }

    /// A stored value that is not what was written; [`StoreError::located`] says in which store.
    pub(crate) fn value(what: impl Into<String>) -> Self {
        StoreError::damaged(ENGINE, what)
    }

    /// The same, with the place of the engine where the value lies.
    pub(crate) fn located(self, engine: impl FnOnce() -> PathBuf) -> Self {
        match self {
            StoreError::Damaged { path, what } if path.as_os_str() == ENGINE => {
                StoreError::Damaged { path: engine(), what }
            }
            other => other,
        }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        StoreError::Damaged { path: path.into(), what: what.into() }
    }
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Full { path } => StoreError::Full { path, what: "the engine's file".into() },
            EngineError::Damaged { path, what } => StoreError::Damaged { path, what },
            EngineError::Io { path, source } => {
                StoreError::Io { path, doing: "using the engine", source: Arc::new(source) }
            }
            EngineError::Stuck { path, doing, seconds } => StoreError::Stuck { path, doing, seconds },
        }
    }
}
