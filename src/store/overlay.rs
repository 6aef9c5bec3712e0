//! What is committed but not yet checkpointed. One generation takes commits; a frozen one is being written to the
//! engine meanwhile. Readers look in the active generation, then the frozen one, then the engine.
//!
//! # Invariants
//! - A put and its delete, or an append and its settling, cancel only within the active generation. Once a generation
//!   is frozen it does not change: a later delete is a tombstone in the active one, a later settling a cursor.
//! - Entries of a log are in order of position; every entry's bytes are held until it is settled or checkpointed.
//! - Bytes of a group are dropped when nothing in them lives, so one turn after another costs no memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::cursor::Cursor;
use super::keys::{LogId, is_entity};

/// Bytes of a sealed group, shared between the committer and the overlay.
pub(super) type GroupBytes = Arc<Vec<u8>>;

/// An envelope's bytes, kept alive by this value.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Slice {
    pub(super) fn new(bytes: GroupBytes, range: Range<usize>) -> Self {
        Slice { bytes, range }
    }

    /// No bytes.
    pub(crate) fn empty() -> Self {
        Slice { bytes: Arc::default(), range: 0..0 }
    }

    pub(super) fn copied(bytes: &[u8]) -> Self {
        Slice { range: 0..bytes.len(), bytes: Arc::new(bytes.to_vec()) }
    }
}

impl std::ops::Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

/// Where an envelope lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) position: u64,
    group: u64,
    offset: u32,
    pub(super) len: u32,
    live: bool,
}

#[derive(Debug, Default)]
struct Held {
    /// None while the group is being filled: its bytes lie with the admission.
    bytes: Option<GroupBytes>,
    live: u32,
}

/// The commits between two checkpoints.
#[derive(Debug, Default)]
pub(super) struct Generation {
    pub(super) id: u64,
    /// The last commit in it; meaningful once frozen.
    pub(super) last: u64,
    pub(super) logs: HashMap<LogId, VecDeque<Entry>>,
    pub(super) cells: BTreeMap<Vec<u8>, Option<Arc<[u8]>>>,
    /// Logs whose cursor changed, each once.
    touched: Vec<LogId>,
    groups: HashMap<u64, Held>,
    cell_bytes: usize,
    group_bytes: usize,
}

/// What a cell costs beside its key and value, roughly.
const CELL_OVERHEAD: usize = 96;
/// What a log costs that is touched, roughly: its mailbox stays in memory until the checkpoint.
const LOG_OVERHEAD: usize = 640;

impl Generation {
    pub(super) fn new(id: u64) -> Self {
        Generation { id, ..Generation::default() }
    }

    /// Bytes held in memory.
    pub(super) fn bytes(&self) -> usize {
        self.cell_bytes + self.group_bytes + self.touched.len() * LOG_OVERHEAD
    }

    /// The log's cursor changed for the first time in this generation.
    pub(super) fn touch(&mut self, log: LogId) {
        self.touched.push(log);
    }

    /// Logs whose cursor changed.
    pub(super) fn touched(&self) -> &[LogId] {
        &self.touched
    }

    pub(super) fn append(&mut self, log: LogId, position: u64, group: u64, at: Range<usize>) {
        self.groups.entry(group).or_default().live += 1;
        let entry = Entry { position, group, offset: at.start as u32, len: at.len() as u32, live: true };
        self.logs.entry(log).or_default().push_back(entry);
    }

    /// Drops the entry's bytes when it was appended in this generation.
    pub(super) fn settle(&mut self, log: LogId, position: u64) {
        let Some(entries) = self.logs.get_mut(&log) else { return };
        let Ok(at) = entries.binary_search_by_key(&position, |entry| entry.position) else { return };
        let entry = &mut entries[at];
        if !std::mem::replace(&mut entry.live, false) {
            return;
        }
        let group = entry.group;
        while entries.front().is_some_and(|entry| !entry.live) {
            entries.pop_front();
        }
        if entries.is_empty() && is_entity(log.mailbox) {
            // there are many of them, and most get no more in this generation
            self.logs.remove(&log);
        }
        self.release(group);
    }

    /// As [`Generation::settle`], for all below a position.
    pub(super) fn trim(&mut self, log: LogId, below: u64) {
        let Some(entries) = self.logs.get_mut(&log) else { return };
        let end = entries.partition_point(|entry| entry.position < below);
        let groups: Vec<u64> =
            entries.drain(..end).filter(|entry| entry.live).map(|entry| entry.group).collect();
        for group in groups {
            self.release(group);
        }
    }

    fn release(&mut self, group: u64) {
        let Some(held) = self.groups.get_mut(&group) else { return };
        held.live -= 1;
        if held.live > 0 {
            return;
        }
        if let Some(bytes) = &held.bytes {
            self.group_bytes -= bytes.len();
            self.groups.remove(&group);
        }
    }

    /// The group is full: its bytes move here if something in it still lives.
    pub(super) fn group_sealed(&mut self, group: u64, bytes: &GroupBytes) {
        match self.groups.get_mut(&group) {
            Some(held) if held.live > 0 => {
                held.bytes = Some(bytes.clone());
                self.group_bytes += bytes.len();
            }
            _ => {
                self.groups.remove(&group);
            }
        }
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Option<&[u8]>) {
        let added = key.len() + value.map_or(0, <[u8]>::len) + CELL_OVERHEAD;
        let key_len = key.len();
        self.cell_bytes += added;
        if let Some(old) = self.cells.insert(key, value.map(Arc::from)) {
            self.cell_bytes -= key_len + old.map_or(0, |old| old.len()) + CELL_OVERHEAD;
        }
    }

    /// The envelope of a live entry; `filling` are the bytes of the group that is being filled.
    pub(super) fn slice(&self, entry: &Entry, filling: &[u8]) -> Slice {
        let range = entry.offset as usize..(entry.offset + entry.len) as usize;
        match self.groups.get(&entry.group).and_then(|held| held.bytes.as_ref()) {
            Some(bytes) => Slice::new(bytes.clone(), range),
            None => Slice::copied(filling.get(range).unwrap_or(&[])),
        }
    }

    /// Live entries of a log from a position on.
    pub(super) fn entries(&self, log: LogId, from: u64) -> impl Iterator<Item = &Entry> {
        let entries = self.logs.get(&log);
        let start = entries.map_or(0, |entries| entries.partition_point(|entry| entry.position < from));
        entries.into_iter().flat_map(move |entries| entries.range(start..)).filter(|entry| entry.live)
    }
}

/// A generation that is being written to the engine, with the cursors as they were when it was frozen.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) generation: Generation,
    pub(super) cursors: Vec<(LogId, Cursor)>,
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    const LOG: LogId = LogId { mailbox: 1, lane: 0 };

    #[test]
    fn a_group_is_held_exactly_while_something_in_it_lives() {
        let mut generation = Generation::new(1);
        generation.append(LOG, 0, 5, 0..10);
        generation.append(LOG, 1, 5, 10..20);
        generation.settle(LOG, 1);
        generation.group_sealed(5, &Arc::new(vec![7; 20]));
        assert_eq!(generation.bytes(), 20);
        let entry = *generation.entries(LOG, 0).next().expect("lives");
        assert_eq!(&*generation.slice(&entry, &[]), &[7; 10]);
        generation.settle(LOG, 0);
        generation.settle(LOG, 0);
        assert_eq!(generation.bytes(), 0);
        assert_eq!(generation.entries(LOG, 0).count(), 0);
    }

    #[test]
    fn a_cell_written_often_costs_what_its_last_value_costs() {
        let mut generation = Generation::new(1);
        generation.put(vec![0x30], Some(&[0; 50]));
        let once = generation.bytes();
        for _ in 0..100 {
            generation.put(vec![0x30], Some(&[0; 50]));
        }
        assert_eq!(generation.bytes(), once);
        generation.put(vec![0x30], None);
        assert_eq!(generation.bytes(), once - 50);
    }
}
