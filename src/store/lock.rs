//! One process, one store: a file lock held while the store is open, with the owner's pid in it so that the refusal can
//! say who holds it. The lock goes with the process, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::fault::StoreError;

/// Held while the store is open.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory when it is missing, and takes its lock.
    pub(super) fn take(directory: &Path) -> Result<Self, StoreError> {
        make_private(directory).map_err(|e| StoreError::io(directory, "making the store's directory", e))?;
        let path = directory.join("LOCK");
        let io = |source| StoreError::io(&path, "locking the store", source);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if cfg!(steadfast_bug = "share-the-lock") => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: directory.into(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let record = || {
            file.set_len(0)?;
            write!(&file, "{}", std::process::id())
        };
        record().map_err(io)?;
        Ok(Lock { _file: file })
    }
}

impl Lock {
    /// Takes the lock of a store that is only read, and changes nothing, not even the pid in it. None when the store has no lock
    /// file: then nobody has it open.
    pub(super) fn take_to_read(directory: &Path) -> Result<Option<Lock>, StoreError> {
        let path = directory.join("LOCK");
        let open = |write| OpenOptions::new().read(true).write(write).open(&path);
        // some file systems lock only what may be written, and what was set aside may be on one that is read-only
        let opened = match open(true) {
            Err(refused) if refused.kind() != std::io::ErrorKind::NotFound => open(false),
            opened => opened,
        };
        let mut file = match opened {
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|source| StoreError::io(&path, "locking the store", source))?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) if cfg!(steadfast_bug = "check-a-store-in-use") => Ok(None),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::Locked { path: directory.into(), holder: holder(&mut file) })
            }
            Err(TryLockError::Error(source)) => Err(StoreError::io(&path, "locking the store", source)),
        }
    }
}

fn make_private(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        #[cfg(unix)]
        Some(parent) => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    // the owner may be just writing it
    let _ = file.take(20).read_to_string(&mut pid);
    match pid.trim() {
        "" => "another process".into(),
        pid => format!("process {pid}"),
    }
}
