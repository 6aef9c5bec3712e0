//! The copy made before sled opens an engine that was not closed: sled's open cuts damaged files short, in
//! silence, and zeroes what follows the last record it understood.
//!
//! # Invariants
//! - `rescue` is whole or absent: it is filled under another name.
//! - It is never replaced, only forgotten. While it is there, what was opened since was not found good, and
//!   the files it was made from have been sled's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{SEGMENT_BYTES, files};
use crate::store::engine::EngineError;

/// What sled's own open may write: the tail of a segment it zeroes, and a snapshot.
const ROOM_FOR_OPEN: u64 = 2 * SEGMENT_BYTES as u64;

/// Copies what sled reads to `rescue`. Without room for it there is no copy: a full device must still open,
/// or nothing can ever be removed from it.
pub(super) fn copy_aside(dir: &Path, rescue: &Path) -> Result<(), EngineError> {
    if rescue.try_exists().map_err(|source| files::failed(rescue, source))? {
        return Ok(());
    }
    let unfinished = unfinished(rescue);
    files::remove_dir(&unfinished)?;
    match has_room(dir, dir).and_then(|()| fill(dir, &unfinished)) {
        Ok(()) => {
            fs::rename(&unfinished, rescue).map_err(|source| files::failed(rescue, source))?;
            files::sync_parent(rescue)
        }
        Err(EngineError::Full { .. }) => {
            tracing::warn!(path = %dir.display(), "no room for a copy before an unclean open");
            files::remove_dir(&unfinished)
        }
        Err(error) => files::remove_dir(&unfinished).and(Err(error)),
    }
}

/// Copies what sled reads of a directory to another one that is still to be made.
pub(super) fn copy(dir: &Path, to: &Path) -> Result<(), EngineError> {
    has_room(dir, to.parent().unwrap_or(to)).and_then(|()| fill(dir, to))
}

pub(super) fn forget(rescue: &Path) -> Result<(), EngineError> {
    files::remove_dir(&unfinished(rescue))?;
    files::remove_dir(rescue)?;
    files::sync_parent(rescue)
}

fn unfinished(rescue: &Path) -> PathBuf {
    rescue.with_extension("unfinished")
}

fn fill(dir: &Path, target: &Path) -> Result<(), EngineError> {
    files::create_private_dir(target)?;
    for name in files::names_sled_reads(dir)? {
        let copy = target.join(&name);
        copy_file(&dir.join(&name), &copy).map_err(|source| files::failed(&copy, source))?;
    }
    files::sync_dir(target)
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

/// Whether there is room on the device of `on` for a copy that sled then opens.
#[cfg(unix)]
fn has_room(dir: &Path, on: &Path) -> Result<(), EngineError> {
    let mut needed = ROOM_FOR_OPEN;
    for name in files::names_sled_reads(dir)? {
        let path = dir.join(name);
        needed += fs::metadata(&path).map_err(|source| files::failed(&path, source))?.len();
    }
    let device = rustix::fs::statvfs(on).map_err(|error| files::failed(on, error.into()))?;
    match device.f_bavail.saturating_mul(device.f_frsize) >= needed {
        true => Ok(()),
        false => Err(EngineError::Full { path: on.to_path_buf() }),
    }
}

#[cfg(not(unix))]
fn has_room(_: &Path, _: &Path) -> Result<(), EngineError> {
    Ok(())
}
