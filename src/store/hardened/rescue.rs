//! The copy made before an engine opens files that were not closed: an engine's open may cut damaged files short, in silence,
//! or go back to what was there before, and writes over what it did not understand.
//!
//! # Invariants
//! - `rescue` is whole or absent: it is filled under another name.
//! - It is never replaced, only forgotten. While it is there, what was opened since was not found good, and
//!   the files it was made from have been the engine's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::dir::EngineDir;
use super::files::{self, failed};
use crate::store::engine::EngineError;

impl EngineDir {
    /// Copies what the engine reads to `rescue`. Without room for it there is no copy: a full device must still open, or
    /// nothing can ever be removed from it.
    pub(in crate::store) fn copy_aside(&self) -> Result<(), EngineError> {
        if self.rescue.try_exists().map_err(|source| failed(&self.rescue, source))? {
            return Ok(());
        }
        let unfinished = self.unfinished();
        files::remove_dir(&unfinished)?;
        match self.has_room_to_copy().and_then(|()| self.fill(&unfinished)) {
            Ok(()) => {
                fs::rename(&unfinished, &self.rescue).map_err(|source| failed(&self.rescue, source))?;
                files::sync_parent(&self.rescue)
            }
            Err(EngineError::Full { .. }) => {
                tracing::warn!(path = %self.path.display(), "no room for a copy before an unclean open");
                files::remove_dir(&unfinished)
            }
            Err(error) => files::remove_dir(&unfinished).and(Err(error)),
        }
    }

    /// Removes the copy. Call it once what was opened has been verified, and not before: until then it may be the only one the
    /// engine has not changed.
    pub(in crate::store) fn forget_rescue(&self) -> Result<(), EngineError> {
        files::remove_dir(&self.unfinished())?;
        files::remove_dir(&self.rescue)?;
        files::sync_parent(&self.rescue)
    }

    fn unfinished(&self) -> PathBuf {
        self.rescue.with_extension("unfinished")
    }

    fn fill(&self, target: &Path) -> Result<(), EngineError> {
        files::create_private_dir(target)?;
        for name in self.names_read()? {
            let copy = target.join(&name);
            copy_file(&self.file(&name), &copy).map_err(|source| failed(&copy, source))?;
        }
        files::sync_dir(target)
    }

    #[cfg(unix)]
    fn has_room_to_copy(&self) -> Result<(), EngineError> {
        let mut needed = self.layout.written_by_open;
        for name in self.names_read()? {
            let path = self.file(&name);
            needed += fs::metadata(&path).map_err(|source| failed(&path, source))?.len();
        }
        let device = rustix::fs::statvfs(&self.path).map_err(|error| failed(&self.path, error.into()))?;
        match device.f_bavail.saturating_mul(device.f_frsize) >= needed {
            true => Ok(()),
            false => Err(EngineError::Full { path: self.path.clone() }),
        }
    }

    #[cfg(not(unix))]
    fn has_room_to_copy(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// A failed sync is treated as a failed write here: nothing but this copy depended on it.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let expected = fs::metadata(from)?.len();
    let copied = fs::copy(from, to)?;
    if copied != expected {
        return Err(io::Error::other(format!("{copied} of {expected} bytes were copied")));
    }
    File::options().write(true).open(to)?.sync_all()
}
