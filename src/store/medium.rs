//! Where the store's own files live: create, write at, sync, rename, list. Two implementations: real files
//! ([`Disk`](super::disk::Disk)) and a simulated one that drops, tears and reorders what was not synced
//! ([`SimulatedDisk`](super::simulated::SimulatedDisk)).
//!
//! # Contract (one suite asks for each, for every implementation)
//! 1. What was written is read back by the same process at once, synced or not.
//! 2. After a crash a file holds every byte range that a successful [`MediumFile::sync`] covered.
//! 3. Ranges written since the last sync may be there wholly, in part, or not at all, in any order.
//! 4. `create`, `rename` and `remove` survive a crash once [`Medium::sync_dir`] of their directory has returned;
//!    until then each may or may not have happened.
//! 5. `rename` replaces an existing target; after a crash the target is one of the two files, whole as synced.
//! 6. `create` refuses an existing name with `AlreadyExists`; `open` of a missing one answers `NotFound`.
//! 7. A write for which there is no room answers `StorageFull` and may have written a part of the range.
//!
//! Names are relative to the store, with `/` between a directory and a file, one level at most.

use std::io;
use std::sync::Arc;

/// A directory of files. Cheap to clone behind its [`Arc`]; every call may block.
pub(crate) trait Medium: Send + Sync + 'static {
    /// Names (without the directory) of the files in `dir` (`""` is the store itself), sorted. A missing
    /// directory is `NotFound`. Directories are not listed.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes a directory, private to the user. One that is already there is left as it is.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes a new, empty file, private to the user.
    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>>;
    /// Renames within one directory or across directories of this medium.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Bytes this process could still write before the device is full.
    fn free_space(&self) -> io::Result<u64>;
}

/// One open file.
pub(crate) trait MediumFile: Send + Sync {
    /// Reads exactly `buffer.len()` bytes at `offset`; `UnexpectedEof` when the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file when it ends before.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes every byte written so far, and the length, durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
}
