//! The bytes of a group and of the commits in it; `docs/format.md` has the table. Reading never trusts a length: what
//! does not fit is an error, not a panic.

use std::ops::Range;

use super::batch::{Batch, Op};
use super::keys::LogId;

pub(super) const HEADER: usize = 40;
const MAGIC: [u8; 4] = *b"SFG1";

/// The fields of a group's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub(super) segment: u64,
    pub(super) first: u64,
    pub(super) durable: u64,
    pub(super) commits: u32,
    pub(super) len: u32,
}

impl GroupHeader {
    pub(super) fn last(&self) -> u64 {
        self.first + u64::from(self.commits) - 1
    }

    /// The header's bytes, with the checksum over itself and `body`.
    pub(super) fn encode(self, store: &[u8; 16], body: &[u8]) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0..4].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.segment.to_be_bytes());
        header[16..24].copy_from_slice(&self.first.to_be_bytes());
        header[24..32].copy_from_slice(&self.durable.to_be_bytes());
        header[32..36].copy_from_slice(&self.commits.to_be_bytes());
        header[36..40].copy_from_slice(&self.len.to_be_bytes());
        let crc = crc(store, &header[8..], body);
        header[4..8].copy_from_slice(&crc.to_be_bytes());
        header
    }

    /// The header and body range of the group at the start of `bytes`, when it verifies as one of `segment`.
    pub(super) fn verify(
        store: &[u8; 16],
        segment: u64,
        bytes: &[u8],
    ) -> Option<(GroupHeader, Range<usize>)> {
        let (header, body) = Self::read(segment, bytes)?;
        let whole = crc(store, &bytes[8..HEADER], &bytes[body.clone()]) == u32_at(bytes, 4)?;
        whole.then_some((header, body))
    }

    /// As [`GroupHeader::verify`], of a group at `at` in bytes whose sums are known: it takes no longer for a long body.
    pub(super) fn verify_at(
        store: &[u8; 16],
        segment: u64,
        sums: &Sums<'_>,
        at: usize,
    ) -> Option<GroupHeader> {
        let bytes = sums.bytes.get(at..)?;
        let (header, body) = Self::read(segment, bytes)?;
        let head = crc(store, &bytes[8..HEADER], &[]);
        let whole = sums.behind(head, at + body.start..at + body.end) == u32_at(bytes, 4)?;
        whole.then_some(header)
    }

    /// What a header says, before its checksum is looked at.
    pub(super) fn read(segment: u64, bytes: &[u8]) -> Option<(GroupHeader, Range<usize>)> {
        if bytes.get(0..4)? != MAGIC {
            return None;
        }
        let header = GroupHeader {
            segment: u64_at(bytes, 8)?,
            first: u64_at(bytes, 16)?,
            durable: u64_at(bytes, 24)?,
            commits: u32_at(bytes, 32)?,
            len: u32_at(bytes, 36)?,
        };
        let end = HEADER.checked_add(header.len as usize)?;
        bytes.get(HEADER..end)?;
        let of_segment = header.segment == segment || cfg!(steadfast_bug = "replay-stale-group");
        let sound =
            of_segment && header.commits > 0 && header.first.checked_add(u64::from(header.commits)).is_some();
        sound.then_some((header, HEADER..end))
    }
}

/// The checksum of any part of some bytes, for about the same work however long the part is.
pub(super) struct Sums<'a> {
    bytes: &'a [u8],
    /// Of the first 0, [`STEP`](Self::STEP), 2 `STEP`.. bytes.
    prefixes: Vec<u32>,
}

impl<'a> Sums<'a> {
    const STEP: usize = 64;

    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let mut crc = crc32fast::Hasher::new();
        let sums = bytes.chunks(Self::STEP).map(|piece| {
            crc.update(piece);
            crc.clone().finalize()
        });
        let prefixes = std::iter::once(0).chain(sums).collect();
        Sums { bytes, prefixes }
    }

    fn up_to(&self, end: usize) -> u32 {
        let before = end / Self::STEP;
        let mut crc = crc32fast::Hasher::new_with_initial(self.prefixes[before]);
        crc.update(&self.bytes[before * Self::STEP..end]);
        crc.finalize()
    }

    /// The checksum of something with the checksum `first` and of a part of the bytes behind it.
    fn behind(&self, first: u32, part: Range<usize>) -> u32 {
        // a checksum moves behind further bytes by a linear map: moving both at once is one such step instead of two
        let both = first ^ self.up_to(part.start);
        let mut moved = crc32fast::Hasher::new_with_initial(both);
        moved.combine(&crc32fast::Hasher::new_with_initial_len(0, part.len() as u64));
        moved.finalize() ^ self.up_to(part.end)
    }
}

/// Bytes a group with a body of `len` takes.
pub(super) fn padded(len: usize) -> usize {
    (HEADER + len).next_multiple_of(8)
}

fn crc(store: &[u8; 16], header: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(store);
    crc.update(header);
    if !cfg!(steadfast_bug = "skip-body-crc") {
        crc.update(body);
    }
    crc.finalize()
}

const APPEND: u8 = 1;
const SETTLE: u8 = 2;
const PUT: u8 = 3;
const DELETE: u8 = 4;
const TRIM: u8 = 5;
const SEEK: u8 = 6;

/// Writes one commit behind `out` and tells `placed` where each envelope and value came to lie.
pub(super) fn encode_commit(
    batch: &Batch,
    positions: &[u64],
    out: &mut Vec<u8>,
    mut placed: impl FnMut(usize, usize),
) {
    let (mut positions, mut last) = (positions.iter(), u64::MAX);
    out.extend_from_slice(&(batch.ops.len() as u32).to_be_bytes());
    for op in &batch.ops {
        match op {
            Op::Append { log, envelope } => {
                last = positions.next().copied().unwrap_or(u64::MAX);
                put_log(out, APPEND, *log, last, envelope.len() as u32);
                placed(out.len(), envelope.len());
                out.extend_from_slice(&batch.bytes[envelope.clone()]);
            }
            Op::Settle { log, position, len } => put_log(out, SETTLE, *log, *position, *len),
            Op::Seek { log, to } => put_position(out, SEEK, *log, *to),
            Op::Trim { log, below, bytes } => {
                put_position(out, TRIM, *log, *below);
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            Op::Put { key, value } => {
                put_key(out, PUT, key);
                out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                placed(out.len(), value.len());
                out.extend_from_slice(&batch.bytes[value.clone()]);
            }
            Op::PutPlaced { key, value } => {
                put_key(out, PUT, key);
                let position = last.to_be_bytes();
                let len = value.len() + position.len();
                out.extend_from_slice(&(len as u32).to_be_bytes());
                placed(out.len(), len);
                out.extend_from_slice(&batch.bytes[value.clone()]);
                out.extend_from_slice(&position);
            }
            Op::Delete { key } => put_key(out, DELETE, key),
        }
    }
}

fn put_log(out: &mut Vec<u8>, tag: u8, log: LogId, position: u64, len: u32) {
    put_position(out, tag, log, position);
    out.extend_from_slice(&len.to_be_bytes());
}

fn put_position(out: &mut Vec<u8>, tag: u8, log: LogId, position: u64) {
    out.push(tag);
    out.extend_from_slice(&log.mailbox.to_be_bytes());
    out.push(log.lane);
    out.extend_from_slice(&position.to_be_bytes());
}

fn put_key(out: &mut Vec<u8>, tag: u8, key: &[u8]) {
    out.push(tag);
    // keys are limited to 1 024 bytes where they are made
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(key);
}

/// What was read, as it was written: `body` itself, if reading is right.
#[cfg(any(test, fuzzing))]
pub(super) fn written_again(body: &[u8], commits: u32, read: &[(u32, Replayed)]) -> Vec<u8> {
    let mut out = Vec::new();
    for commit in 0..commits {
        let ops: Vec<_> = read.iter().filter(|(of, _)| *of == commit).map(|(_, op)| op.clone()).collect();
        out.extend_from_slice(&(ops.len() as u32).to_be_bytes());
        for op in ops {
            write_again(body, op, &mut out);
        }
    }
    out
}

#[cfg(any(test, fuzzing))]
fn write_again(body: &[u8], op: Replayed, out: &mut Vec<u8>) {
    match op {
        Replayed::Append { log, position, envelope } => {
            put_log(out, APPEND, log, position, envelope.len() as u32);
            out.extend_from_slice(&body[envelope]);
        }
        Replayed::Settle { log, position, len } => put_log(out, SETTLE, log, position, len),
        Replayed::Trim { log, below, bytes } => {
            put_position(out, TRIM, log, below);
            out.extend_from_slice(&bytes.to_be_bytes());
        }
        Replayed::Seek { log, to } => put_position(out, SEEK, log, to),
        Replayed::Put { key, value } => {
            put_key(out, PUT, &body[key]);
            out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            out.extend_from_slice(&body[value]);
        }
        Replayed::Delete { key } => put_key(out, DELETE, &body[key]),
    }
}

/// One operation read back; ranges are within the body that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replayed {
    Append { log: LogId, position: u64, envelope: Range<usize> },
    Settle { log: LogId, position: u64, len: u32 },
    Trim { log: LogId, below: u64, bytes: u64 },
    Seek { log: LogId, to: u64 },
    Put { key: Range<usize>, value: Range<usize> },
    Delete { key: Range<usize> },
}

/// Reads the commits of a group's body, handing each operation to `apply` with the index of its commit. `None` when
/// the body is not `commits` whole commits.
pub(super) fn decode_commits(body: &[u8], commits: u32, mut apply: impl FnMut(u32, Replayed)) -> Option<()> {
    let mut reader = Reader { body, at: 0 };
    for commit in 0..commits {
        for _ in 0..reader.u32()? {
            apply(commit, reader.op()?);
        }
    }
    (reader.at == body.len()).then_some(())
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn op(&mut self) -> Option<Replayed> {
        Some(match self.u8()? {
            APPEND => {
                let (log, position, len) = (self.log()?, self.u64()?, self.u32()?);
                Replayed::Append { log, position, envelope: self.take(len as usize)? }
            }
            SEEK => Replayed::Seek { log: self.log()?, to: self.u64()? },
            TRIM => Replayed::Trim { log: self.log()?, below: self.u64()?, bytes: self.u64()? },
            SETTLE => Replayed::Settle { log: self.log()?, position: self.u64()?, len: self.u32()? },
            PUT => {
                let key = self.key()?;
                let len = self.u32()?;
                Replayed::Put { key, value: self.take(len as usize)? }
            }
            DELETE => Replayed::Delete { key: self.key()? },
            _ => return None,
        })
    }

    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let start = self.at;
        let end = start.checked_add(len).filter(|end| *end <= self.body.len())?;
        self.at = end;
        Some(start..end)
    }

    fn log(&mut self) -> Option<LogId> {
        let log = LogId { mailbox: self.u32()?, lane: self.u8()? };
        (usize::from(log.lane) < super::keys::LANES).then_some(log)
    }

    fn key(&mut self) -> Option<Range<usize>> {
        let len = u16_at(self.body, self.take(2)?.start)?;
        self.take(usize::from(len))
    }

    fn u8(&mut self) -> Option<u8> {
        let at = self.take(1)?.start;
        self.body.get(at).copied()
    }

    fn u32(&mut self) -> Option<u32> {
        u32_at(self.body, self.take(4)?.start)
    }

    fn u64(&mut self) -> Option<u64> {
        u64_at(self.body, self.take(8)?.start)
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STORE: [u8; 16] = [7; 16];

    fn group() -> Vec<u8> {
        let mut batch = Batch::default();
        let log = LogId { mailbox: 3, lane: 1 };
        batch
            .append(log, |out| {
                out.extend_from_slice(b"letter");
                Ok::<_, ()>(())
            })
            .unwrap();
        batch.settle(log, 4, 17);
        batch.put_bytes(vec![0x30, 1], b"value");
        batch.delete(vec![0x31]);
        batch.trim(log, 7, 70);
        let mut body = Vec::new();
        encode_commit(&batch, &[9], &mut body, |_, _| {});
        let len = body.len() as u32;
        let header = GroupHeader { segment: 2, first: 50, durable: 49, commits: 1, len };
        let mut bytes = header.encode(&STORE, &body).to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }

    #[test]
    fn a_group_reads_back_as_it_was_written() {
        let bytes = group();
        let (header, body) = GroupHeader::verify(&STORE, 2, &bytes).expect("verifies");
        assert_eq!((header.first, header.last(), header.durable), (50, 50, 49));
        let mut ops = Vec::new();
        decode_commits(&bytes[body], 1, |commit, op| ops.push((commit, op))).expect("whole commits");
        assert_eq!(ops.len(), 5);
        assert_eq!(ops[4].1, Replayed::Trim { log: LogId { mailbox: 3, lane: 1 }, below: 7, bytes: 70 });
        assert!(matches!(ops[0].1, Replayed::Append { position: 9, .. }));
        assert!(matches!(ops[1].1, Replayed::Settle { position: 4, len: 17, .. }));
    }

    #[test]
    fn a_changed_byte_another_store_or_another_segment_does_not_verify() {
        let bytes = group();
        assert!(GroupHeader::verify(&[8; 16], 2, &bytes).is_none(), "another store");
        assert!(GroupHeader::verify(&STORE, 3, &bytes).is_none(), "another segment");
        let header = GroupHeader::verify(&STORE, 2, &bytes).expect("whole").0;
        for at in 0..HEADER + header.len as usize {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            assert!(GroupHeader::verify(&STORE, 2, &changed).is_none(), "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn a_sum_of_a_part_is_that_of_its_bytes(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            first in any::<Vec<u8>>(),
            ends in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let (one, other) = (ends.0.index(bytes.len() + 1), ends.1.index(bytes.len() + 1));
            let part = one.min(other)..one.max(other);
            let whole = crc32fast::hash(&[&first, &bytes[part.clone()]].concat());
            prop_assert_eq!(Sums::of(&bytes).behind(crc32fast::hash(&first), part), whole);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), commits in 0u32..4) {
            let _ = GroupHeader::verify(&STORE, 2, &bytes);
            let _ = decode_commits(&bytes, commits, |_, _| {});
        }

        #[test]
        fn mutated_bodies_never_panic(at in 0usize..60, to in any::<u8>()) {
            let bytes = group();
            let (_, body) = GroupHeader::verify(&STORE, 2, &bytes).expect("whole");
            let mut body = bytes[body].to_vec();
            let at = at % body.len();
            body[at] = to;
            let _ = decode_commits(&body, 1, |_, _| {});
        }
    }
}
