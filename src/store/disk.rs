//! The medium over real files.
//!
//! # Invariants
//! - Every file and directory made here is private to the user from its first moment on.
//! - A name never leads out of the root.
//! - A call the operating system interrupted is made again; a sync that failed is not.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_name::{check_dir, split};
use super::medium::{Medium, MediumFile};

/// A directory of real files.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    writes: bool,
}

impl Disk {
    /// Over the files below `root`, which `create_dir("")` makes when it is missing.
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Disk { root: root.into(), writes: true }
    }

    /// The same, on which nothing is ever opened for writing, made, renamed or removed.
    pub(crate) fn read_only(root: impl Into<PathBuf>) -> Self {
        Disk { root: root.into(), writes: false }
    }

    fn must_write(&self) -> io::Result<()> {
        if self.writes { Ok(()) } else { Err(io::ErrorKind::ReadOnlyFilesystem.into()) }
    }

    fn file(&self, name: &str) -> io::Result<PathBuf> {
        split(name)?;
        Ok(self.root.join(name))
    }

    fn dir(&self, dir: &str) -> io::Result<PathBuf> {
        check_dir(dir)?;
        // joining "" would add a trailing separator
        Ok(if dir.is_empty() { self.root.clone() } else { self.root.join(dir) })
    }
}

impl Medium for Disk {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let path = self.dir(dir)?;
        let mut names = Vec::new();
        for entry in uninterrupted(|| fs::read_dir(&path))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                continue;
            }
            // a name that is no UTF-8 is none of ours
            names.extend(entry.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Durable on return, so that [`Medium::sync_dir`] of the new directory is enough for its files.
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.must_write()?;
        let path = self.dir(dir)?;
        let mut missing: Vec<&Path> = Vec::new();
        for ancestor in path.ancestors().take_while(|p| !p.as_os_str().is_empty()) {
            match fs::metadata(ancestor) {
                Ok(found) if found.is_dir() => break,
                Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(ancestor),
                Err(e) => return Err(e),
            }
        }
        // a store that has gone away is not made again by the way
        if !dir.is_empty() && missing.len() > 1 {
            return Err(io::ErrorKind::NotFound.into());
        }
        for made in missing.into_iter().rev() {
            make_private_dir(made)?;
            sync_path(parent(made))?;
        }
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        self.must_write()?;
        let path = self.file(name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Arc::new(DiskFile::new(uninterrupted(|| options.open(&path))?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let path = self.file(name)?;
        let file = uninterrupted(|| OpenOptions::new().read(true).write(self.writes).open(&path))?;
        Ok(Arc::new(DiskFile::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.must_write()?;
        let (from, to) = (self.file(from)?, self.file(to)?);
        uninterrupted(|| fs::rename(&from, &to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.must_write()?;
        let path = self.file(name)?;
        uninterrupted(|| fs::remove_file(&path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        sync_path(&self.dir(dir)?)
    }

    #[cfg(unix)]
    fn free_space(&self) -> io::Result<u64> {
        let found = rustix::io::retry_on_intr(|| rustix::fs::statvfs(&self.root))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Not known here, so it is never the reason to refuse a write.
    #[cfg(not(unix))]
    fn free_space(&self) -> io::Result<u64> {
        Ok(u64::MAX / 4)
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer,
        }
    }
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match uninterrupted(|| builder.create(path)) {
        // made by someone else in between: left as it is
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        answer => answer,
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn sync_path(path: &Path) -> io::Result<()> {
    uninterrupted(|| File::open(path))?.sync_all()
}

/// A directory cannot be opened for a sync here; the file system orders its own entries.
#[cfg(not(unix))]
fn sync_path(path: &Path) -> io::Result<()> {
    fs::metadata(path).map(drop)
}

/// A quota that is used up is a device that is full: the same is to be done about both.
fn no_room(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => io::Error::new(io::ErrorKind::StorageFull, error),
        _ => error,
    }
}

#[cfg(unix)]
use positioned::DiskFile;
#[cfg(not(unix))]
use seeking::DiskFile;

#[cfg(unix)]
mod positioned {
    //! A file whose reads and writes carry their own position.

    use std::os::unix::fs::FileExt;

    use super::{File, MediumFile, io, no_room};

    pub(super) struct DiskFile {
        file: File,
    }

    impl DiskFile {
        pub(super) fn new(file: File) -> Self {
            DiskFile { file }
        }
    }

    impl MediumFile for DiskFile {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.file.read_exact_at(buffer, offset)
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.file.write_all_at(bytes, offset).map_err(no_room)
        }

        fn sync(&self) -> io::Result<()> {
            self.file.sync_data().map_err(no_room)
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.file.metadata()?.len())
        }
    }
}

// also built for tests, so that it does not rot where nobody runs it
#[cfg(any(test, not(unix)))]
mod seeking {
    //! A file with one position, moved under a lock before each read and write.

    use std::io::{Read, Seek, SeekFrom, Write};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::{File, MediumFile, io, no_room};

    pub(super) struct DiskFile {
        file: Mutex<File>,
    }

    impl DiskFile {
        pub(super) fn new(file: File) -> Self {
            DiskFile { file: Mutex::new(file) }
        }

        fn at(&self, offset: u64) -> io::Result<MutexGuard<'_, File>> {
            let mut file = self.lock();
            file.seek(SeekFrom::Start(offset))?;
            Ok(file)
        }

        fn lock(&self) -> MutexGuard<'_, File> {
            self.file.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl MediumFile for DiskFile {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.at(offset)?.read_exact(buffer)
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.at(offset)?.write_all(bytes).map_err(no_room)
        }

        fn sync(&self) -> io::Result<()> {
            self.lock().sync_data().map_err(no_room)
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.lock().metadata()?.len())
        }
    }
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_missing_root_is_made_with_its_parents() -> io::Result<()> {
        let temporary = tempfile::tempdir()?;
        let disk = Disk::new(temporary.path().join("a/b"));
        assert_eq!(disk.create_dir("journal").map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
        disk.create_dir("")?;
        disk.create_dir("")?;
        disk.create_dir("journal")?;
        assert_eq!(disk.list("")?, Vec::<String>::new());
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_what_is_made() -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let temporary = tempfile::tempdir()?;
        let root = temporary.path().join("store");
        let disk = Disk::new(&root);
        disk.create_dir("")?;
        disk.create_dir("journal")?;
        disk.create("journal/1")?;
        let mode = |path: &Path| fs::metadata(path).map(|m| m.permissions().mode() & 0o777);
        assert_eq!(mode(&root)?, 0o700);
        assert_eq!(mode(&root.join("journal"))?, 0o700);
        assert_eq!(mode(&root.join("journal/1"))?, 0o600);
        Ok(())
    }

    #[test]
    fn free_space_is_that_of_the_device() -> io::Result<()> {
        let temporary = tempfile::tempdir()?;
        assert!(Disk::new(temporary.path()).free_space()? > 0);
        Ok(())
    }

    #[test]
    fn a_file_that_seeks_keeps_the_promises_of_one_that_need_not() -> io::Result<()> {
        let file = seeking::DiskFile::new(tempfile::tempfile()?);
        file.write_at(3, b"def")?;
        file.write_at(0, b"abc")?;
        file.sync()?;
        let mut read = [0; 4];
        file.read_at(1, &mut read)?;
        assert_eq!(&read, b"bcde");
        assert_eq!(file.len()?, 6);
        let short = file.read_at(4, &mut read).map_err(|e| e.kind());
        assert_eq!(short, Err(io::ErrorKind::UnexpectedEof));
        Ok(())
    }
}
