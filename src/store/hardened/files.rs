//! Calls of the operating system around an engine, and what their failures are called.
//!
//! # Invariants
//! - What is made here is private to the user from its first moment on.
//! - A write without room is [`EngineError::Full`]; a sync without room is not: what it was to keep is gone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::store::engine::EngineError;

pub(in crate::store) fn open_for_writing(path: &Path) -> Result<File, EngineError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(|source| failed(path, source))
}

pub(super) fn create_private(path: &Path) -> Result<File, EngineError> {
    let opened = private(OpenOptions::new().read(true).write(true).create_new(true)).open(path);
    opened.map_err(|source| failed(path, source))
}

pub(super) fn create_private_dir(path: &Path) -> Result<(), EngineError> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| failed(path, source))
}

pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
pub(super) fn make_private(path: &Path, wanted: u32) -> Result<(), EngineError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(|source| failed(path, source))?.permissions().mode();
    if mode & 0o777 == wanted {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(wanted)).map_err(|source| failed(path, source))
}

#[cfg(not(unix))]
pub(super) fn make_private(_: &Path, _: u32) -> Result<(), EngineError> {
    Ok(())
}

/// Removes a directory and what is in it; one that is not there is fine.
pub(super) fn remove_dir(path: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(path, source)),
        _ => Ok(()),
    }
}

/// Makes creations, renames and removals in `dir` durable.
pub(in crate::store) fn sync_dir(dir: &Path) -> Result<(), EngineError> {
    // elsewhere a directory cannot be opened, and its entries are durable with the file
    if cfg!(unix) {
        let opened = File::open(dir).map_err(|source| failed(dir, source))?;
        opened.sync_all().map_err(|source| sync_failed(dir, source))?;
    }
    Ok(())
}

pub(in crate::store) fn sync_parent(path: &Path) -> Result<(), EngineError> {
    sync_dir(&parent(path))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A call that wrote, read or looked failed.
pub(in crate::store) fn failed(path: &Path, source: io::Error) -> EngineError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EngineError::Full { path },
        _ => EngineError::Io { path, source },
    }
}

/// A sync failed, for want of room or not: what it was to keep cannot be trusted to this process any more.
pub(in crate::store) fn sync_failed(path: &Path, source: io::Error) -> EngineError {
    EngineError::Io { path: path.to_path_buf(), source }
}

pub(in crate::store) fn damaged(path: &Path, what: &str) -> EngineError {
    EngineError::Damaged { path: path.to_path_buf(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_without_room_is_full_and_a_sync_without_room_is_not() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(failed(Path::new("db"), full()), EngineError::Full { .. }));
        assert!(matches!(sync_failed(Path::new("db"), full()), EngineError::Io { .. }));
    }
}
