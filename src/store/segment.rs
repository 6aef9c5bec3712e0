//! One file of the journal: its header, and reading its groups back. A segment is pre-written and recycled, so old bytes
//! behind its end are expected; only groups of this store and this segment id, in order, count.

use std::path::PathBuf;
use std::sync::Arc;

use super::fault::StoreError;
use super::group::{self, GroupHeader, Sums, u32_at, u64_at};
use super::medium::{Medium, MediumFile};

/// Where the groups begin.
pub(super) const START: u64 = 4096;
/// The format version written here; see `docs/format.md`.
pub(super) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"SFSEGMT1";
const HEADER: usize = 84;

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) store: [u8; 16],
    pub(super) id: u64,
    /// The segment before, 0 when there is none, and where it ended.
    pub(super) previous: u64,
    pub(super) previous_end: u64,
    /// The last commit before this segment and the first in it.
    pub(super) last_before: u64,
    pub(super) first: u64,
    pub(super) size: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; START as usize];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[12..16].copy_from_slice(&FORMAT.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.store);
        let numbers = [self.id, self.previous, self.previous_end, self.last_before, self.first, self.size];
        for (at, number) in (32..).step_by(8).zip(numbers) {
            bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
        }
        let crc = crc32fast::hash(&bytes[12..HEADER]);
        bytes[8..12].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The header at the start of `bytes`; `None` when it does not verify. A newer format is an error of its own.
    pub(super) fn decode(path: PathBuf, bytes: &[u8]) -> Result<Option<Self>, StoreError> {
        let fields = || {
            let whole =
                bytes.get(0..8)? == MAGIC && crc32fast::hash(bytes.get(12..HEADER)?) == u32_at(bytes, 8)?;
            let store = bytes.get(16..32)?.try_into().ok()?;
            let number = |index: usize| u64_at(bytes, 32 + index * 8);
            whole.then_some(())?;
            let header = SegmentHeader {
                store,
                id: number(0)?,
                previous: number(1)?,
                previous_end: number(2)?,
                last_before: number(3)?,
                first: number(4)?,
                size: number(5)?,
            };
            Some((u32_at(bytes, 12)?, header))
        };
        match fields() {
            Some((found, _)) if found > FORMAT => Err(StoreError::Newer { path, found, known: FORMAT }),
            Some((_, header)) => Ok(Some(header)),
            None => Ok(None),
        }
    }
}

/// The bytes with the checksum of a header over what stands in its place.
#[cfg(any(test, fuzzing))]
pub(super) fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= HEADER {
        bytes[0..8].copy_from_slice(&MAGIC);
        let crc = crc32fast::hash(&bytes[12..HEADER]);
        bytes[8..12].copy_from_slice(&crc.to_be_bytes());
    }
    bytes
}

/// The file name of a segment, relative to the store.
pub(super) fn name(id: u64) -> String {
    format!("journal/{id:016x}.seg")
}

/// The id in a segment's file name, without its directory.
pub(super) fn id_of(file: &str) -> Option<u64> {
    u64::from_str_radix(file.strip_suffix(".seg")?, 16).ok()
}

/// A segment's bytes, read whole: recovery looks at every one of them.
pub(super) struct SegmentBytes {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl SegmentBytes {
    pub(super) fn read(medium: &dyn Medium, root: &std::path::Path, id: u64) -> Result<Self, StoreError> {
        let name = name(id);
        let path = root.join(&name);
        let read = || {
            let file: Arc<dyn MediumFile> = medium.open(&name)?;
            let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
            file.read_at(0, &mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|source| StoreError::io(&path, "reading a journal segment", source))?;
        Ok(SegmentBytes { id, path, bytes })
    }

    pub(super) fn header(&self) -> Result<Option<SegmentHeader>, StoreError> {
        SegmentHeader::decode(self.path.clone(), &self.bytes)
    }

    /// The group at `offset` when it verifies and begins with commit `next`.
    pub(super) fn group(
        &self,
        store: &[u8; 16],
        offset: u64,
        next: u64,
    ) -> Option<(GroupHeader, std::ops::Range<usize>)> {
        let start = usize::try_from(offset).ok()?;
        let (header, body) = GroupHeader::verify(store, self.id, self.bytes.get(start..)?)?;
        let in_order = header.first == next || cfg!(steadfast_bug = "replay-stale-group");
        in_order.then_some((header, start + body.start..start + body.end))
    }

    /// The first whole group of this segment after `offset`: it proves that what lies before it was durable.
    pub(super) fn later_group(&self, store: &[u8; 16], offset: u64, next: u64) -> Option<GroupHeader> {
        self.search(store, offset, next).0.map(|(_, header)| header)
    }

    /// The same, and where it begins.
    pub(super) fn next_group(&self, store: &[u8; 16], offset: u64, next: u64) -> Option<(u64, GroupHeader)> {
        self.search(store, offset, next).0.map(|(at, header)| (at as u64, header))
    }

    /// The same, and how many bytes were summed up for it. What lies there may be the body of a message, made by somebody
    /// to look like headers of long groups, each within the other: summing up every one would take hours.
    fn search(&self, store: &[u8; 16], offset: u64, next: u64) -> (Option<(usize, GroupHeader)>, usize) {
        let (Ok(start), mut summed, mut sums) = (usize::try_from(offset), 0, None) else { return (None, 0) };
        for at in (start..self.bytes.len()).step_by(8) {
            let bytes = &self.bytes[at..];
            let Some((header, body)) = GroupHeader::read(self.id, bytes) else { continue };
            if header.first <= next {
                continue;
            }
            let sums_up = summed <= self.bytes.len() || cfg!(steadfast_bug = "sum_up_every_header");
            let verifies = if sums_up {
                summed += body.len();
                GroupHeader::verify(store, self.id, bytes).is_some()
            } else {
                let sums = sums.get_or_insert_with(|| Sums::of(&self.bytes));
                GroupHeader::verify_at(store, self.id, sums, at).is_some()
            };
            if verifies {
                return (Some((at, header)), summed);
            }
        }
        (None, summed)
    }
}

/// Where the group after one that starts at `offset` begins.
pub(super) fn after(offset: u64, header: &GroupHeader) -> u64 {
    offset + group::padded(header.len as usize) as u64
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    const STORE: [u8; 16] = [7; 16];

    /// A message's body can say anything, so also what looks like thousands of headers of groups that each reach to the end.
    /// Found by reading: with 64 MiB of them, the search after a crash would have taken hours.
    #[test]
    fn a_body_made_of_headers_does_not_hold_up_the_search_for_a_later_group() {
        const LEN: usize = 256 << 10;
        let header = |first, len| GroupHeader { segment: 2, first, durable: 0, commits: 1, len };
        let mut bytes = Vec::new();
        while bytes.len() < LEN {
            let left = (LEN - bytes.len()) as u32;
            bytes.extend_from_slice(&header(9, left).encode(&STORE, b"another body"));
        }
        let true_one = [header(77, 6).encode(&STORE, b"commit").as_slice(), b"commit"].concat();
        bytes.extend_from_slice(&true_one);
        let segment = SegmentBytes { id: 2, path: "a segment".into(), bytes };
        let (found, summed) = segment.search(&STORE, 0, 5);
        assert_eq!(found.map(|(_, header)| header.first), Some(77));
        assert!(summed <= 3 * LEN, "{summed}");
    }
}
