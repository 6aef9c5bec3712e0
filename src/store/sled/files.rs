//! The files of a sled directory: which there must be, what they hold, and making them private and durable.
//!
//! Beside sled's own there is one empty file, `opened` or `closed`. It is renamed between the two, which
//! needs no room on the device, and tells whether a seal still describes the files: a process killed in
//! sled's open leaves files that differ from the last seal and are not damaged.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::store::engine::{EngineError, Seal, SealedFile};

pub(super) const DB: &str = "db";
pub(super) const CONF: &str = "conf";
pub(super) const BLOBS: &str = "blobs";
const OPENED: &str = "opened";
const CLOSED: &str = "closed";
const SNAPSHOT: &str = "snap.";
const HALF_WRITTEN: &str = ".generating";

/// Names of what lies in `dir`, sorted, without the directory of blobs.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, EngineError> {
    let entries = fs::read_dir(dir).map_err(|source| failed(dir, source))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| failed(dir, source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(|source| failed(&entry.path(), source))?;
        if name != BLOBS || !kind.is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The files sled reads when it opens.
pub(super) fn names_sled_reads(dir: &Path) -> Result<Vec<String>, EngineError> {
    let mut names = names(dir)?;
    names.retain(|name| name == DB || name == CONF || name.starts_with(SNAPSHOT));
    Ok(names)
}

pub(super) fn must_be_there(dir: &Path, needed: &[&str]) -> Result<(), EngineError> {
    for name in needed {
        let path = dir.join(name);
        if !path.try_exists().map_err(|source| failed(&path, source))? {
            return Err(damaged(&path, "the file is missing"));
        }
    }
    Ok(())
}

/// sled writes no file here while values and segments keep their sizes; it would never sync one.
pub(super) fn no_blobs(dir: &Path) -> Result<(), EngineError> {
    let blobs = dir.join(BLOBS);
    match fs::read_dir(&blobs).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(damaged(&blobs, "there are files in it, and they may not survive a power cut")),
        // sled makes it anew
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed(&blobs, source)),
    }
}

pub(super) fn remove_half_written_snapshots(dir: &Path) -> Result<(), EngineError> {
    for name in names(dir)? {
        if name.starts_with(SNAPSHOT) && name.ends_with(HALF_WRITTEN) {
            let path = dir.join(name);
            fs::remove_file(&path).map_err(|source| failed(&path, source))?;
        }
    }
    sync_dir(dir)
}

/// sled takes the last name that begins with `snap.` for the newest snapshot, be it an editor's backup.
pub(super) fn only_snapshots_sled_wrote(dir: &Path) -> Result<(), EngineError> {
    for name in names(dir)? {
        let Some(position) = name.strip_prefix(SNAPSHOT) else { continue };
        if position.len() != 16 || !position.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(damaged(
                &dir.join(&name),
                "this is no snapshot of sled's, and sled would read it as one",
            ));
        }
    }
    Ok(())
}

/// Reads every byte sled is about to: an error here stops the open, an error in sled's own reads loses
/// records.
pub(super) fn read_all(dir: &Path) -> Result<(), EngineError> {
    for name in names_sled_reads(dir)? {
        describe(dir, name)?;
    }
    Ok(())
}

/// Describes every file.
pub(super) fn seal(dir: &Path) -> Result<Seal, EngineError> {
    let files = names(dir)?.into_iter().map(|name| describe(dir, name)).collect::<Result<_, _>>()?;
    Ok(Seal { files })
}

/// Refuses when anything differs from the seal, and says which file.
pub(super) fn compare(dir: &Path, seal: &Seal) -> Result<(), EngineError> {
    let names = names(dir)?;
    for file in &seal.files {
        if !names.contains(&file.name) {
            return Err(damaged(&dir.join(&file.name), "the file is missing"));
        }
    }
    for name in names {
        if !seal.files.iter().any(|file| file.name == name) {
            return Err(damaged(&dir.join(name), "the file was not there when the engine was closed"));
        }
    }
    for file in &seal.files {
        if describe(dir, file.name.clone())? != *file {
            return Err(damaged(&dir.join(&file.name), "the file was changed after the engine was closed"));
        }
    }
    Ok(())
}

fn describe(dir: &Path, name: String) -> Result<SealedFile, EngineError> {
    let path = dir.join(&name);
    let (len, crc) = checksum(&path).map_err(|source| failed(&path, source))?;
    Ok(SealedFile { name, len, crc })
}

fn checksum(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut len = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((len, crc.finalize())),
            Ok(read) => {
                crc.update(&buffer[..read]);
                len += read as u64;
            }
            Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether sled was let at the files since the last seal was made, so that they may differ from it.
pub(super) fn was_opened_since_close(dir: &Path) -> Result<bool, EngineError> {
    let names = names(dir)?;
    let has = |wanted| names.iter().any(|name| name == wanted);
    Ok(has(OPENED) && !has(CLOSED))
}

/// Durable before sled may change anything.
pub(super) fn mark_opened(dir: &Path) -> Result<(), EngineError> {
    mark(dir, CLOSED, OPENED)
}

/// Durable before a seal is handed out.
pub(super) fn mark_closed(dir: &Path) -> Result<(), EngineError> {
    mark(dir, OPENED, CLOSED)
}

fn mark(dir: &Path, from: &str, to: &str) -> Result<(), EngineError> {
    let (from, to) = (dir.join(from), dir.join(to));
    match fs::rename(&from, &to) {
        Ok(()) => sync_dir(dir),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let made = private(OpenOptions::new().write(true).create(true).truncate(true)).open(&to);
            made.map_err(|source| failed(&to, source))?;
            sync_dir(dir)
        }
        Err(source) => Err(failed(&from, source)),
    }
}

/// Makes the files durable and private that are not yet known to be, and then their names. The data file has
/// a descriptor of its own that syncs it.
pub(super) fn settle(dir: &Path, known: &[String]) -> Result<(), EngineError> {
    for name in names(dir)? {
        if name != DB && !known.contains(&name) {
            let path = dir.join(name);
            make_private(&path, 0o600)?;
            let file = open_for_writing(&path)?;
            file.sync_all().map_err(|source| sync_failed(&path, source))?;
        }
    }
    make_private(&dir.join(BLOBS), 0o700)?;
    sync_dir(dir)
}

pub(super) fn open_for_writing(path: &Path) -> Result<File, EngineError> {
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

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
fn make_private(path: &Path, wanted: u32) -> Result<(), EngineError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path).map_err(|source| failed(path, source))?.permissions().mode();
    if mode & 0o777 == wanted {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(wanted)).map_err(|source| failed(path, source))
}

#[cfg(not(unix))]
fn make_private(_: &Path, _: u32) -> Result<(), EngineError> {
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
pub(super) fn sync_dir(dir: &Path) -> Result<(), EngineError> {
    // elsewhere a directory cannot be opened, and its entries are durable with the file
    if cfg!(unix) {
        let opened = File::open(dir).map_err(|source| failed(dir, source))?;
        opened.sync_all().map_err(|source| sync_failed(dir, source))?;
    }
    Ok(())
}

pub(super) fn sync_parent(path: &Path) -> Result<(), EngineError> {
    sync_dir(&parent(path))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A call that wrote, read or looked failed.
pub(super) fn failed(path: &Path, source: io::Error) -> EngineError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EngineError::Full { path },
        _ => EngineError::Io { path, source },
    }
}

/// A sync failed, for want of room or not: what it was to keep cannot be trusted to this process any more.
pub(super) fn sync_failed(path: &Path, source: io::Error) -> EngineError {
    EngineError::Io { path: path.to_path_buf(), source }
}

pub(super) fn damaged(path: &Path, what: &str) -> EngineError {
    EngineError::Damaged { path: path.to_path_buf(), what: what.to_owned() }
}
