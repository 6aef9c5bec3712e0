//! What sled's directory must not hold: blobs, half-written snapshots, and what sled would take for a snapshot.

use std::fs;
use std::io;

use crate::store::engine::EngineError;
use crate::store::hardened::dir::EngineDir;
use crate::store::hardened::files::{damaged, failed, sync_dir};

pub(super) const DB: &str = "db";
pub(super) const CONF: &str = "conf";
pub(super) const BLOBS: &str = "blobs";
const SNAPSHOT: &str = "snap.";
const HALF_WRITTEN: &str = ".generating";

pub(super) fn is_read(name: &str) -> bool {
    name == DB || name == CONF || name.starts_with(SNAPSHOT)
}

/// sled writes no file here while values and segments keep their sizes; it would never sync one.
pub(super) fn no_blobs(dir: &EngineDir) -> Result<(), EngineError> {
    let blobs = dir.file(BLOBS);
    match fs::read_dir(&blobs).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(damaged(&blobs, "there are files in it, and they may not survive a power cut")),
        // sled makes it anew
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed(&blobs, source)),
    }
}

pub(super) fn remove_half_written_snapshots(dir: &EngineDir) -> Result<(), EngineError> {
    for name in dir.names()? {
        if name.starts_with(SNAPSHOT) && name.ends_with(HALF_WRITTEN) {
            let path = dir.file(&name);
            fs::remove_file(&path).map_err(|source| failed(&path, source))?;
        }
    }
    sync_dir(&dir.path)
}

/// sled takes the last name that begins with `snap.` for the newest snapshot, be it an editor's backup.
pub(super) fn only_snapshots_sled_wrote(dir: &EngineDir) -> Result<(), EngineError> {
    for name in dir.names()? {
        let Some(position) = name.strip_prefix(SNAPSHOT) else { continue };
        if position.len() != 16 || !position.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let what = "this is no snapshot of sled's, and sled would read it as one";
            return Err(damaged(&dir.file(&name), what));
        }
    }
    Ok(())
}
