//! The directory of an engine: which files there must be, what they hold, and making them private and durable.
//!
//! Beside the engine's own there is one empty file, `opened` or `closed`. It is renamed between the two, which needs no room
//! on the device, and tells whether a seal still describes the files: a process killed in the engine's open leaves files that
//! differ from the last seal and are not damaged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::files::{self, damaged, failed};
use crate::store::engine::{EngineError, Seal, SealedFile};

const OPENED: &str = "opened";
const CLOSED: &str = "closed";

/// What an engine keeps in its directory.
#[derive(Debug)]
pub(in crate::store) struct Layout {
    /// The engine's name, which is that of its directory.
    pub(in crate::store) engine: &'static str,
    /// The data file: there is a descriptor of ours that locks and syncs it.
    pub(in crate::store) data: &'static str,
    /// Files without which it is damaged.
    pub(in crate::store) needed: &'static [&'static str],
    /// A directory that the engine makes, and that is empty or damage.
    pub(in crate::store) empty_dir: Option<&'static str>,
    /// Whether the engine reads the file of this name when it opens.
    pub(in crate::store) reads: fn(&str) -> bool,
    /// What the engine's own open may write, in bytes.
    pub(in crate::store) written_by_open: u64,
}

/// An engine's directory, and where its copy goes.
#[derive(Debug, Clone)]
pub(in crate::store) struct EngineDir {
    /// Its parent exists.
    pub(in crate::store) path: PathBuf,
    /// Where the files are copied to before the engine opens them after an unclean exit; same parent.
    pub(in crate::store) rescue: PathBuf,
    pub(in crate::store) layout: &'static Layout,
}

impl EngineDir {
    /// In the directory of a store.
    pub(in crate::store) fn in_store(root: &Path, layout: &'static Layout) -> Self {
        EngineDir { path: root.join(layout.engine), rescue: root.join("rescue"), layout }
    }

    pub(in crate::store) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(in crate::store) fn data(&self) -> PathBuf {
        self.file(self.layout.data)
    }

    /// What is meant when the engine does not say which of its files it is.
    pub(in crate::store) fn suspect(&self) -> PathBuf {
        match self.layout.needed {
            [only] => self.file(only),
            _ => self.path.clone(),
        }
    }

    pub(in crate::store) fn exists(&self) -> Result<bool, EngineError> {
        self.path.try_exists().map_err(|source| failed(&self.path, source))
    }

    /// Makes the directory with an empty data file, private from their first moment on: an engine would make them readable by
    /// everyone.
    pub(in crate::store) fn create(&self) -> Result<File, EngineError> {
        files::create_private_dir(&self.path)?;
        if let Some(dir) = self.layout.empty_dir {
            files::create_private_dir(&self.file(dir))?;
        }
        let data = files::create_private(&self.data())?;
        self.mark_opened()?;
        Ok(data)
    }

    /// Leaves a copy alone: an engine whose creation never finished has none.
    pub(in crate::store) fn remove(&self) -> Result<(), EngineError> {
        files::remove_dir(&self.path)?;
        files::sync_parent(&self.path)
    }

    /// Names of what lies in it, sorted, without the directory that is empty.
    pub(in crate::store) fn names(&self) -> Result<Vec<String>, EngineError> {
        names(&self.path, self.layout.empty_dir)
    }

    /// The files the engine reads when it opens.
    pub(super) fn names_read(&self) -> Result<Vec<String>, EngineError> {
        let mut names = self.names()?;
        names.retain(|name| (self.layout.reads)(name));
        Ok(names)
    }

    pub(in crate::store) fn must_be_there(&self) -> Result<(), EngineError> {
        for name in self.layout.needed {
            let path = self.file(name);
            if !path.try_exists().map_err(|source| failed(&path, source))? {
                return Err(damaged(&path, "the file is missing"));
            }
        }
        Ok(())
    }

    /// Reads every byte the engine is about to: an error here stops the open, one in an engine's own reads may lose records.
    pub(in crate::store) fn read_all(&self) -> Result<(), EngineError> {
        self.names_read()?.into_iter().try_for_each(|name| self.describe(name).map(drop))
    }

    /// Describes every file.
    pub(in crate::store) fn seal(&self) -> Result<Seal, EngineError> {
        let files = self.names()?.into_iter().map(|name| self.describe(name)).collect::<Result<_, _>>()?;
        Ok(Seal { files })
    }

    /// Refuses when anything differs from the seal, and says which file.
    pub(in crate::store) fn compare(&self, seal: &Seal) -> Result<(), EngineError> {
        let names = self.names()?;
        for file in &seal.files {
            if !names.contains(&file.name) {
                return Err(damaged(&self.file(&file.name), "the file is missing"));
            }
        }
        for name in names {
            if !seal.files.iter().any(|file| file.name == name) {
                return Err(damaged(&self.file(&name), "the file was not there when the engine was closed"));
            }
        }
        for file in &seal.files {
            if self.describe(file.name.clone())? != *file && !cfg!(steadfast_bug = "trust-a-sealed-engine") {
                return Err(damaged(
                    &self.file(&file.name),
                    "the file was changed after the engine was closed",
                ));
            }
        }
        Ok(())
    }

    fn describe(&self, name: String) -> Result<SealedFile, EngineError> {
        let path = self.file(&name);
        let (len, crc) = checksum(&path).map_err(|source| failed(&path, source))?;
        Ok(SealedFile { name, len, crc })
    }

    /// Whether the engine was let at the files since the last seal was made, so that they may differ from it.
    pub(in crate::store) fn was_opened_since_close(&self) -> Result<bool, EngineError> {
        let names = self.names()?;
        let has = |wanted| names.iter().any(|name| name == wanted);
        Ok(has(OPENED) && !has(CLOSED))
    }

    /// Durable before the engine may change anything.
    pub(in crate::store) fn mark_opened(&self) -> Result<(), EngineError> {
        self.mark(CLOSED, OPENED)
    }

    /// Durable before a seal is handed out.
    pub(in crate::store) fn mark_closed(&self) -> Result<(), EngineError> {
        self.mark(OPENED, CLOSED)
    }

    fn mark(&self, from: &str, to: &str) -> Result<(), EngineError> {
        let (from, to) = (self.file(from), self.file(to));
        match fs::rename(&from, &to) {
            Ok(()) => files::sync_dir(&self.path),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                let mut options = OpenOptions::new();
                let made = files::private(options.write(true).create(true).truncate(true)).open(&to);
                made.map_err(|source| failed(&to, source))?;
                files::sync_dir(&self.path)
            }
            Err(source) => Err(failed(&from, source)),
        }
    }

    /// Makes the files durable and private that are not yet known to be, and then their names. The data file has a descriptor
    /// of its own that syncs it.
    pub(in crate::store) fn settle(&self, known: &[String]) -> Result<(), EngineError> {
        for name in self.names()? {
            let path = self.file(&name);
            if name == self.layout.data {
                files::make_private(&path, 0o600)?;
            } else if !known.contains(&name) {
                files::make_private(&path, 0o600)?;
                let file = files::open_for_writing(&path)?;
                file.sync_all().map_err(|source| files::sync_failed(&path, source))?;
            }
        }
        if let Some(dir) = self.layout.empty_dir {
            files::make_private(&self.file(dir), 0o700)?;
        }
        files::sync_dir(&self.path)
    }
}

/// Names in `dir`, sorted, without the directory `except`.
pub(super) fn names(dir: &Path, except: Option<&str>) -> Result<Vec<String>, EngineError> {
    let entries = fs::read_dir(dir).map_err(|source| failed(dir, source))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| failed(dir, source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(|source| failed(&entry.path(), source))?;
        if !kind.is_dir() || Some(name.as_str()) != except {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
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
