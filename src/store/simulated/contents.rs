//! The bytes of one simulated file: what a reader sees, what is durable, and the writes between the two.
//!
//! # Invariants
//! - `now` is always `durable` with every pending write laid over it, in order.
//! - A crash changes no byte outside the pending writes, and never makes the file shorter than `durable`.
//! - A sector of [`SECTOR`] bytes of one write survives a crash whole or not at all.

use std::io;

use super::chance::Chance;

/// What a device writes in one piece, in bytes.
pub(super) const SECTOR: usize = 512;

/// The longest simulated file: beyond it an offset is a mistake, and would only fill the test's memory.
const MAX_LEN: usize = 1 << 32;

/// One file's bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    durable: Vec<u8>,
    now: Vec<u8>,
    pending: Vec<PendingWrite>,
    written: u64,
}

#[derive(Debug, Clone)]
struct PendingWrite {
    number: u64,
    offset: usize,
    bytes: Vec<u8>,
    /// A piece of a longer write that was cut short.
    is_part: bool,
}

impl PendingWrite {
    fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }
}

impl Contents {
    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    /// How many writes there were: what a sync that starts now has to cover.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let found = usize::try_from(offset)
            .ok()
            .and_then(|start| self.now.get(start..start.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.written += 1;
        overlay(&mut self.now, offset, bytes);
        let bytes = bytes.to_vec();
        self.pending.push(PendingWrite { number: self.written, offset, bytes, is_part: false });
    }

    /// The last write is a piece of one that was cut short.
    pub(super) fn last_is_part(&mut self) {
        if let Some(last) = self.pending.last_mut() {
            last.is_part = true;
        }
    }

    /// Makes the writes up to number `covered` durable. Later ones are not: they came while the sync ran.
    pub(super) fn sync(&mut self, covered: u64) {
        let count = self.pending.partition_point(|write| write.number <= covered);
        for write in self.pending.drain(..count) {
            overlay(&mut self.durable, write.offset, &write.bytes);
        }
    }

    /// Decides what of the pending writes has reached the device. Of how many of them a part did, and not all.
    pub(super) fn crash(&mut self, chance: &mut Chance) -> u64 {
        let pending = std::mem::take(&mut self.pending);
        let len = surviving_len(self.durable.len(), &pending, chance);
        let odds = chance.odds();
        self.durable.resize(len, 0);
        let mut torn = 0;
        for write in &pending {
            let mut reached = 0;
            for (offset, sector) in sectors(write.offset, &write.bytes) {
                let Some(room) = len.checked_sub(offset) else { break };
                if chance.happens(odds) {
                    let sector = &sector[..sector.len().min(room)];
                    overlay(&mut self.durable, offset, sector);
                    reached += sector.len();
                }
            }
            torn += u64::from(reached > 0 && (write.is_part || reached < write.bytes.len()));
        }
        self.now.clone_from(&self.durable);
        torn
    }

    /// Changes what is durable behind everyone's back; what is pending stays pending.
    pub(super) fn damage(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.durable);
        self.now.clone_from(&self.durable);
        for write in &self.pending {
            overlay(&mut self.now, write.offset, &write.bytes);
        }
    }
}

/// `offset` as a place in memory, when a write of `len` bytes there is one a file can hold.
pub(super) fn place(offset: u64, len: usize) -> io::Result<usize> {
    usize::try_from(offset)
        .ok()
        .filter(|start| start.checked_add(len).is_some_and(|end| end <= MAX_LEN))
        .ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

/// The parts of a write that reach the device each on its own: cut where the file's sectors end.
pub(super) fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR - offset % SECTOR).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let tail = rest.chunks(SECTOR).enumerate().map(move |(i, part)| (offset + first + i * SECTOR, part));
    std::iter::once((offset, head)).chain(tail)
}

/// The durable length, or the one after some of the writes that made the file longer.
fn surviving_len(durable: usize, pending: &[PendingWrite], chance: &mut Chance) -> usize {
    let mut lens = vec![durable];
    for write in pending {
        if lens.last().is_some_and(|last| write.end() > *last) {
            lens.push(write.end());
        }
    }
    lens[chance.up_to(lens.len() - 1)]
}

fn overlay(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    target[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_cut_where_the_sectors_of_the_file_end() {
        let parts =
            |offset, len| sectors(offset, &vec![0; len]).map(|(o, s)| (o, s.len())).collect::<Vec<_>>();
        assert_eq!(parts(0, 512), [(0, 512)]);
        assert_eq!(parts(500, 20), [(500, 12), (512, 8)]);
        assert_eq!(parts(1024, 1025), [(1024, 512), (1536, 512), (2048, 1)]);
    }

    #[test]
    fn a_sync_covers_nothing_written_after_it_began() {
        let mut lost = false;
        for seed in 0..50 {
            let mut file = Contents::default();
            file.write(0, b"before");
            let covered = file.written();
            file.write(6, b"after");
            file.sync(covered);
            file.crash(&mut Chance::new(seed));
            assert_eq!(&file.now[..6], b"before");
            lost |= file.now.len() == 6;
        }
        assert!(lost, "no seed lost what was written during the sync");
    }
}
