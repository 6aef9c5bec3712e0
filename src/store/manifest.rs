//! What must be there: the file that says how far the engine and the journal reach, so that a store which lost its end
//! is told apart from one that never had it.
//!
//! # Invariants
//! - Replaced as a whole: written beside, synced, renamed, directory synced. A crash leaves the old one or the new one.
//! - It never claims what is not durable: it is written after the flush it speaks of.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::engine::Seal;
use super::fault::StoreError;
use super::group::u32_at;
use super::medium::Medium;
use super::segment::FORMAT;
use crate::codec;

pub(super) const NAME: &str = "MANIFEST";
const NEW: &str = "MANIFEST.new";
const MAGIC: [u8; 8] = *b"SFMANIF1";
const HEADER: usize = 16;

/// See the module's head and `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) store: [u8; 16],
    pub(super) engine: String,
    pub(super) segment_size: u64,
    /// The engine holds at least this.
    pub(super) checkpoint: u64,
    /// The oldest segment that recovery needs.
    pub(super) first_segment: u64,
    /// The journal reaches at least this.
    pub(super) high_water: u64,
    /// Present after a clean close.
    pub(super) clean: Option<CleanClose>,
}

/// What a clean close leaves behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CleanClose {
    pub(super) last: u64,
    pub(super) seal: Seal,
    /// Page files in which something lives, and how long each is at least.
    pub(super) pages: Vec<(u64, u64)>,
}

impl Manifest {
    pub(super) fn write(&self, medium: &dyn Medium, root: &Path) -> Result<(), StoreError> {
        let mut body = Vec::new();
        codec::encode_into(self, &mut body)
            .map_err(|e| StoreError::damaged(root.join(NAME), format!("cannot be encoded: {e}")))?;
        let bytes = Self::sealed(&body);
        let replace = || {
            let _ = medium.remove(NEW);
            let file = medium.create(NEW)?;
            file.write_at(0, &bytes)?;
            file.sync()?;
            medium.rename(NEW, NAME)?;
            medium.sync_dir("")
        };
        replace().map_err(|source| StoreError::io(root.join(NAME), "replacing the manifest", source))
    }

    /// The file with this body.
    pub(super) fn sealed(body: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32fast::hash(body).to_be_bytes());
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let _ = codec::encode_into(self, &mut body);
        Self::sealed(&body)
    }

    /// The manifest; `None` when there is none.
    pub(super) fn read(medium: &dyn Medium, root: &Path) -> Result<Option<Self>, StoreError> {
        let path = root.join(NAME);
        let read = || {
            let file = medium.open(NAME)?;
            // one byte more than there can be is enough to see that it is damaged
            let len = file.len()?.min((HEADER + codec::MAX_BYTES + 1) as u64);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_at(0, &mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Self::decode(&path, &bytes).map(Some),
            Err(missing) if std::io::Error::kind(&missing) == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::io(path, "reading the manifest", source)),
        }
    }

    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = |what: &str| StoreError::damaged(path, what);
        if bytes.get(0..8) != Some(&MAGIC) {
            return Err(damaged("it does not begin as a manifest does"));
        }
        let (Some(crc), Some(len)) = (u32_at(bytes, 8), u32_at(bytes, 12)) else {
            return Err(damaged("it ends within its header"));
        };
        let body = &bytes[HEADER..];
        if body.len() != len as usize || crc32fast::hash(body) != crc {
            return Err(damaged("it does not match its checksum"));
        }
        // the version stands first, so that a newer layout is told apart from damage
        let (found, _) = codec::decode_borrowed::<u32>(body).map_err(|e| damaged(&e.to_string()))?;
        if found > FORMAT {
            return Err(StoreError::Newer { path: path.into(), found, known: FORMAT });
        }
        let manifest: Self = codec::decode(body).map_err(|e| damaged(&e.to_string()))?;
        match manifest.first_segment {
            0 | u64::MAX if !cfg!(steadfast_bug = "take_any_first_segment") => {
                Err(damaged("its first segment has a number that is never given"))
            }
            _ => Ok(manifest),
        }
    }
}
