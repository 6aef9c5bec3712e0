//! The ordered map that keeps what a checkpoint writes. Implementations: sled; redb, with the feature of that name; and one in
//! memory that loses what was not flushed. Only the checkpoint writes here, recovery reads it, and the journal is the truth for
//! everything above the engine's own checkpoint number.
//!
//! # Contract (one suite asks for each, for every implementation)
//! 1. [`Engine::apply`] is atomic: after a crash all of its writes are there, or none.
//! 2. After a crash the map holds a prefix of the applied batches, in order, at least up to the last flush.
//! 3. [`Engine::flush`] returns `Ok` only when every applied batch survives a power cut.
//! 4. Reads see every applied batch at once, flushed or not.
//! 5. No call panics: a panic inside an engine becomes an [`EngineError`].
//! 6. After [`EngineKind::open`] with the seal of the last clean close, any changed byte is an error.

use std::io;
use std::path::{Path, PathBuf};

/// One write of a batch. Values are at most [`MAX_VALUE`] bytes, keys at most [`MAX_KEY`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// The largest value an engine is handed, in bytes: larger ones go to files that sled never syncs.
pub(crate) const MAX_VALUE: usize = 128 * 1024;

/// The longest key an engine is handed, in bytes.
pub(crate) const MAX_KEY: usize = 1024;

/// Refuses a batch with a key or a value over the limits, before any of it is written.
pub(crate) fn within_limits(path: &Path, batch: &[Write]) -> Result<(), EngineError> {
    let too_long = |write: &Write| match write {
        Write::Put(key, value) => key.len() > MAX_KEY || value.len() > MAX_VALUE,
        Write::Delete(key) => key.len() > MAX_KEY,
    };
    if !batch.iter().any(too_long) {
        return Ok(());
    }
    let source = io::Error::new(io::ErrorKind::InvalidInput, "a key or a value is over the engine's limit");
    Err(EngineError::Io { path: path.to_path_buf(), source })
}

/// An open ordered map; keys are ordered as bytes.
pub(crate) trait Engine: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;
    /// Pairs with `from <= key < to` in order, at most `limit` of them.
    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, EngineError>;
    /// The last pair with `from <= key <= last`.
    fn last(&self, from: &[u8], last: &[u8]) -> Result<Option<Pair>, EngineError>;
    fn apply(&self, batch: Vec<Write>) -> Result<(), EngineError>;
    fn flush(&self) -> Result<(), EngineError>;
    /// Flushes, closes, and describes the closed files so that [`EngineKind::open`] can tell a changed byte.
    fn close(self: Box<Self>) -> Result<Seal, EngineError>;
}

/// How an engine is found, opened and created.
pub(crate) trait EngineKind: Send + Sync + 'static {
    /// The word for this engine in the manifest: `sled`, `redb`, `memory`.
    fn name(&self) -> &'static str;
    /// Whether a (possibly damaged) engine is there.
    fn exists(&self) -> Result<bool, EngineError>;
    /// Makes a new, empty engine in a place where none is; durable on return.
    fn create(&self) -> Result<Box<dyn Engine>, EngineError>;
    /// Opens an existing engine. With `seal`, nothing may have changed since the clean close that made it.
    fn open(&self, seal: Option<&Seal>) -> Result<Box<dyn Engine>, EngineError>;
    /// Whether the engine was opened again after the clean close that made the last seal.
    fn was_opened_since_close(&self) -> Result<bool, EngineError> {
        Ok(false)
    }
    /// What was opened has been verified: copies made for the case that it had not are not needed any more.
    fn verified(&self) -> Result<(), EngineError> {
        Ok(())
    }
    /// Removes every file of the engine, of a store whose creation never finished.
    fn remove(&self) -> Result<(), EngineError>;
}

/// What an engine looked like after a clean close: for each file its name, length and checksum.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Seal {
    pub(crate) files: Vec<SealedFile>,
}

/// One file of a [`Seal`]; the name is relative to the engine's directory.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct SealedFile {
    pub(crate) name: String,
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

/// Why a call to an engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// There was no room; nothing is broken, but this engine must be reopened before it is used again.
    #[error("no room left on the device for {}", .path.display())]
    Full { path: PathBuf },
    /// The bytes on disk are not what was written.
    #[error("{} is damaged: {what}", .path.display())]
    Damaged { path: PathBuf, what: String },
    /// A call failed in the operating system.
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The engine did not answer within the time limit.
    #[error("{} did not answer within {seconds} s while {doing}", .path.display())]
    Stuck { path: PathBuf, doing: &'static str, seconds: u64 },
}
