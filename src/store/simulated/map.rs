//! An ordered map in memory: what is durable, and the batches applied since the last flush.
//!
//! # Invariants
//! - `now` is always `durable` with every pending batch applied, in order.
//! - A crash keeps a prefix of the pending batches, each whole.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::engine::{Pair, Seal, SealedFile, Write};
use super::chance::Chance;

/// Keys and values.
pub(super) type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The map of one machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Map {
    pub(super) exists: bool,
    now: Pairs,
    durable: Pairs,
    pending: Vec<Vec<Write>>,
    used: u64,
}

impl Map {
    /// The bytes of all keys and values.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.now.get(key).cloned()
    }

    pub(super) fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Vec<Pair> {
        // the standard map panics on a range that ends before it begins
        if from >= to {
            return Vec::new();
        }
        let found = self.now.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        found.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn last(&self, from: &[u8], last: &[u8]) -> Option<Pair> {
        if from > last {
            return None;
        }
        let found = self.now.range::<[u8], _>((Bound::Included(from), Bound::Included(last)));
        found.last().map(|(key, value)| (key.clone(), value.clone()))
    }

    pub(super) fn apply(&mut self, batch: Vec<Write>) {
        for write in &batch {
            self.used = self.used.saturating_add(size(write)).saturating_sub(put(&mut self.now, write));
        }
        self.pending.push(batch);
    }

    pub(super) fn flush(&mut self) {
        self.keep(self.pending.len());
    }

    pub(super) fn crash(&mut self, chance: &mut Chance) {
        let kept = chance.up_to(self.pending.len());
        self.keep(kept);
        self.pending.clear();
        self.show_durable();
    }

    pub(super) fn create(&mut self) {
        *self = Map { exists: true, ..Map::default() };
    }

    pub(super) fn remove(&mut self) {
        *self = Map::default();
    }

    /// Changes what is durable behind everyone's back; what is pending stays pending.
    #[cfg(test)]
    pub(super) fn damage(&mut self, change: impl FnOnce(&mut Pairs)) {
        change(&mut self.durable);
        self.show_durable();
        for write in self.pending.iter().flatten() {
            put(&mut self.now, write);
        }
        self.used = weigh(&self.now);
    }

    /// Describes the durable pairs.
    pub(super) fn seal(&self) -> Seal {
        let mut crc = crc32fast::Hasher::new();
        for (key, value) in &self.durable {
            // with the lengths, or a byte could move from a key to its value unseen
            for part in [key, value] {
                crc.update(&(part.len() as u64).to_be_bytes());
                crc.update(part);
            }
        }
        let len = self.durable.len() as u64;
        Seal { files: vec![SealedFile { name: "map".to_owned(), len, crc: crc.finalize() }] }
    }

    fn keep(&mut self, batches: usize) {
        for write in self.pending.drain(..batches).flatten() {
            put(&mut self.durable, &write);
        }
    }

    fn show_durable(&mut self) {
        self.now.clone_from(&self.durable);
        self.used = weigh(&self.now);
    }
}

/// The bytes a write needs.
pub(super) fn size(write: &Write) -> u64 {
    match write {
        Write::Put(key, value) => (key.len() + value.len()) as u64,
        Write::Delete(_) => 0,
    }
}

/// Does one write, and says how many bytes the pair took that was there before.
fn put(pairs: &mut Pairs, write: &Write) -> u64 {
    let (key, before) = match write {
        Write::Put(key, value) => (key, pairs.insert(key.clone(), value.clone())),
        Write::Delete(key) => (key, pairs.remove(key)),
    };
    before.map_or(0, |value| (key.len() + value.len()) as u64)
}

fn weigh(pairs: &Pairs) -> u64 {
    pairs.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
}
