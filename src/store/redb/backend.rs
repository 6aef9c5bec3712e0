//! The file under redb, so that we hear of every failure before redb does: redb forgets what it was, and takes a sync that
//! found no room for a write that found none.
//!
//! # Invariants
//! - After the first call that failed, and after the engine was found broken otherwise, nothing is written: not by redb's last
//!   commit as it is dropped either.
//! - No lock is taken here: the descriptor is locked by who opened it, before redb and until after it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ::redb::StorageBackend;
use ::redb::backends::FileBackend;

use crate::store::engine::EngineError;
use crate::store::hardened::files::{damaged, failed, sync_failed};
use crate::store::hardened::health::Health;

#[derive(Debug)]
pub(super) struct Backend {
    file: FileBackend,
    path: PathBuf,
    health: Arc<Health>,
}

impl Backend {
    pub(super) fn new(file: File, path: PathBuf, health: Arc<Health>) -> Result<Self, EngineError> {
        let file = FileBackend::new(file).map_err(|error| damaged(&path, &error.to_string()))?;
        Ok(Backend { file, path, health })
    }

    fn may_write(&self) -> io::Result<()> {
        match self.health.must_be_whole(&self.path) {
            Err(broken) if !cfg!(steadfast_bug = "let-redb-write-on") => Err(as_io(broken)),
            _ => Ok(()),
        }
    }

    fn note(&self, error: EngineError) -> io::Error {
        as_io(self.health.break_with(error))
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len().map_err(|error| self.note(failed(&self.path, error)))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // its kind tells a short file from a device that does not answer
        self.file.read(offset, out).inspect_err(|error| {
            let what = format!("{} bytes at {offset} cannot be read: {error}", out.len());
            self.health.break_with(damaged(&self.path, &what));
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.may_write()?;
        self.file.set_len(len).map_err(|error| self.note(failed(&self.path, error)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.may_write()?;
        self.file.sync_data().map_err(|error| self.note(sync_failed(&self.path, error)))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.may_write()?;
        self.file.write(offset, data).map_err(|error| self.note(failed(&self.path, error)))
    }
}

/// As redb takes it. Only a write without room is told as one.
fn as_io(error: EngineError) -> io::Error {
    match error {
        EngineError::Full { .. } => io::ErrorKind::StorageFull.into(),
        other => io::Error::other(other.to_string()),
    }
}
