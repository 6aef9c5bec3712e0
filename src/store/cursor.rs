//! How far a log has been read: everything below `front` is settled, above it the settled ranges are kept as
//! exceptions, `next` is the position the next append gets.
//!
//! # Invariants
//! - `front <= next`, which is below the largest number; no settled range touches `front` (it would have moved it) or reaches beyond `next`.
//! - `next` never goes back, also when the log is empty: a position is given once.
//! - An entity's log that is empty has no record, so that a million of them cost nothing: it begins again at the number of the
//!   last commit. That is above every position it ever gave, because its record goes only once `next` is not above the number
//!   of the checkpoint.
//! - Waiting = `next - front` minus what the ranges cover; it is derived, so it cannot drift.
//! - `trimmed <= front`: what was settled was handled or superseded, what was trimmed off is missing for whoever shows the log.

use std::collections::BTreeMap;

/// The state of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Every position below is settled.
    pub(crate) front: u64,
    /// The next position to give.
    pub(crate) next: u64,
    /// Bytes of the envelopes that wait.
    pub(crate) bytes: u64,
    /// Every position below was trimmed off, or settled before.
    pub(crate) trimmed: u64,
    /// Commits up to this number are contained in the engine's record of this cursor.
    pub(crate) as_of: u64,
    /// Settled out of order: start → end, exclusive.
    settled: BTreeMap<u64, u64>,
    /// Positions covered by `settled`.
    covered: u64,
}

impl Cursor {
    /// Messages that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.next - self.front - self.covered
    }

    /// Whether nothing waits, and nothing is known but where to go on.
    pub(crate) fn is_drained(&self) -> bool {
        self.front == self.next
    }

    /// Has the log go on at `position`, if it is drained and not beyond it.
    pub(crate) fn begin_at(&mut self, position: u64) {
        if self.is_drained() && self.next < position {
            (self.front, self.next) = (position, position);
        }
    }

    pub(crate) fn is_waiting(&self, position: u64) -> bool {
        position >= self.front && position < self.next && self.range_over(position).is_none()
    }

    /// The first waiting position at or after `from`.
    pub(crate) fn first_waiting(&self, from: u64) -> Option<u64> {
        let mut position = from.max(self.front);
        if let Some((_, end)) = self.range_over(position) {
            position = end;
        }
        (position < self.next).then_some(position)
    }

    /// Takes the next position for an envelope of `len` bytes.
    pub(crate) fn append(&mut self, len: usize) -> u64 {
        let position = self.next;
        self.next += 1;
        self.bytes = self.bytes.saturating_add(len as u64);
        position
    }

    /// Marks a waiting position as settled; false when it was not waiting.
    pub(crate) fn settle(&mut self, position: u64, len: u32) -> bool {
        if !self.is_waiting(position) {
            return false;
        }
        self.bytes = self.bytes.saturating_sub(u64::from(len));
        if position == self.front {
            self.front += 1;
            self.absorb_ranges_at_front();
        } else {
            self.insert(position);
        }
        true
    }

    /// Positions that wait here and in a log that has the same ones.
    pub(crate) fn waiting_in_both(&self, other: &Cursor) -> u64 {
        let (first, next) = (self.front.max(other.front), self.next.min(other.next));
        // whoever is nearly at the end need not look at what was settled long before
        let from = |cursor: &Cursor| cursor.range_over(first).map_or(first, |(start, _)| start);
        let (mine, others) = (self.settled.range(from(self)..), other.settled.range(from(other)..));
        let mut ranges: Vec<(u64, u64)> = mine.chain(others).map(|(start, end)| (*start, *end)).collect();
        ranges.sort_unstable();
        let (mut waiting, mut at) = (0, first);
        for (start, end) in ranges {
            waiting += start.min(next).saturating_sub(at);
            at = at.max(end);
        }
        waiting + next.saturating_sub(at)
    }

    /// Where the settled range over a position ends, if one is.
    pub(crate) fn end_of_settled(&self, position: u64) -> Option<u64> {
        self.range_over(position).map(|(_, end)| end)
    }

    /// The first position that is settled behind one that is not.
    pub(crate) fn first_settled(&self) -> Option<u64> {
        self.settled.keys().next().copied()
    }

    /// Whether something is settled behind what waits.
    pub(crate) fn has_settled(&self) -> bool {
        !self.settled.is_empty()
    }

    /// The settled ranges from a position on that an earlier state of it did not have so.
    pub(crate) fn settled_since<'a>(
        &'a self,
        before: &'a Cursor,
        from: u64,
    ) -> impl Iterator<Item = (u64, u64)> + 'a {
        let ranges = self.settled.range(from..).map(|(start, end)| (*start, *end));
        ranges.filter(|(start, end)| before.settled.get(start) != Some(end))
    }

    /// Settles everything there is.
    pub(crate) fn end(&mut self) {
        self.seek(self.next);
        self.bytes = 0;
    }

    /// Puts the front at a position, with nothing after it settled.
    pub(crate) fn seek(&mut self, to: u64) {
        self.front = to.min(self.next);
        // what is read again is not missing
        self.trimmed = self.trimmed.min(self.front);
        self.settled.clear();
        self.covered = 0;
    }

    /// Marks everything below a position as settled; `bytes` is what of it waited. False when there was nothing.
    pub(crate) fn trim(&mut self, below: u64, bytes: u64) -> bool {
        let below = below.min(self.next);
        if below <= self.front {
            return false;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.pass(below);
        self.trimmed = below;
        true
    }

    /// Puts the front at a position and the settled ranges behind it.
    pub(crate) fn pass(&mut self, to: u64) {
        self.front = to.clamp(self.front, self.next);
        while let Some((start, end)) = self.settled.first_key_value().map(|(start, end)| (*start, *end))
            && start <= self.front
        {
            self.settled.remove(&start);
            self.covered -= end - start;
            self.front = self.front.max(end);
        }
    }

    /// Marks all of a range as settled: what waited there cannot be read any more. The bytes are for the caller to count anew.
    pub(super) fn give_up(&mut self, start: u64, end: u64) {
        let (mut start, mut end) = (start.max(self.front), end.min(self.next));
        if start >= end {
            return;
        }
        let touching: Vec<u64> =
            self.settled.range(..=end).filter(|(_, until)| **until >= start).map(|(from, _)| *from).collect();
        for from in touching {
            let until = self.settled.remove(&from).unwrap_or(from);
            self.covered -= until - from;
            (start, end) = (start.min(from), end.max(until));
        }
        self.covered += end - start;
        self.settled.insert(start, end);
        self.pass(self.front);
    }

    /// The first stretch of positions in a range that wait, one after the other.
    pub(super) fn first_stretch(&self, from: u64, to: u64) -> Option<(u64, u64)> {
        let start = self.first_waiting(from).filter(|start| *start < to)?;
        let end = self.settled.range(start..).next().map_or(self.next, |(settled, _)| *settled);
        Some((start, end.min(to)))
    }

    fn absorb_ranges_at_front(&mut self) {
        if let Some(end) = self.settled.remove(&self.front) {
            self.covered -= end - self.front;
            self.front = end;
        }
    }

    /// Adds one position to the ranges, joining its neighbours.
    fn insert(&mut self, position: u64) {
        self.covered += 1;
        let mut end = position + 1;
        if let Some(after) = self.settled.remove(&end) {
            end = after;
        }
        match self.settled.range_mut(..position).next_back() {
            Some((_, before)) if *before == position => *before = end,
            _ => {
                self.settled.insert(position, end);
            }
        }
    }

    fn range_over(&self, position: u64) -> Option<(u64, u64)> {
        if self.settled.is_empty() {
            return None;
        }
        let (start, end) = self.settled.range(..=position).next_back()?;
        (position < *end).then_some((*start, *end))
    }

    /// The record in the engine; see `docs/format.md`.
    pub(crate) fn encode(&self, as_of: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40 + self.settled.len() * 16);
        for number in [as_of, self.front, self.next, self.bytes, self.trimmed] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        for (start, end) in &self.settled {
            bytes.extend_from_slice(&start.to_be_bytes());
            bytes.extend_from_slice(&end.to_be_bytes());
        }
        bytes
    }

    /// Reads a record; `None` when it breaks an invariant.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() || numbers.len() < 5 || numbers.len() % 2 == 0 {
            return None;
        }
        let mut numbers = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes));
        let mut take = || numbers.next();
        let (as_of, front, next, bytes, trimmed) = (take()?, take()?, take()?, take()?, take()?);
        let mut cursor = Cursor { front, next, bytes, as_of, trimmed, ..Cursor::default() };
        let mut last = front;
        while let Some(start) = take() {
            let end = take()?;
            if start <= last || end <= start || end > next {
                return None;
            }
            cursor.settled.insert(start, end);
            cursor.covered += end - start;
            last = end;
        }
        (trimmed <= front && front <= next && next < u64::MAX).then_some(cursor)
    }
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_agrees_with_a_plain_set(steps in proptest::collection::vec((0u8..9, 0u64..40), 0..200)) {
            let mut cursor = Cursor::default();
            let mut waiting = BTreeSet::new();
            for (step, at) in steps {
                match step {
                    0..4 => {
                        waiting.insert(cursor.append(10));
                    }
                    4..8 => prop_assert_eq!(cursor.settle(at, 10), waiting.remove(&at)),
                    _ => {
                        let rest = waiting.split_off(&at);
                        cursor.trim(at, waiting.len() as u64 * 10);
                        waiting = rest;
                    }
                }
                prop_assert_eq!(cursor.waiting(), waiting.len() as u64);
                prop_assert_eq!(cursor.bytes, waiting.len() as u64 * 10);
                prop_assert_eq!(cursor.first_waiting(at), waiting.range(at..).next().copied());
                let mut again = Cursor::decode(&cursor.encode(9)).expect("its own record");
                prop_assert_eq!(again.as_of, 9);
                again.as_of = cursor.as_of;
                prop_assert_eq!(&again, &cursor);
            }
        }

        #[test]
        fn what_is_given_up_is_settled_and_nothing_else(
            settled in proptest::collection::vec(0u64..30, 0..12),
            given_up in proptest::collection::vec((0u64..32, 0u64..12), 0..6),
        ) {
            let mut cursor = Cursor::default();
            let mut waiting: BTreeSet<u64> = (0..30).map(|_| cursor.append(1)).collect();
            for position in settled {
                cursor.settle(position, 1);
                waiting.remove(&position);
            }
            for (start, len) in given_up {
                cursor.give_up(start, start + len);
                waiting.retain(|position| !(start..start + len).contains(position));
            }
            let (mut found, mut at) = (BTreeSet::new(), 0);
            while let Some((start, end)) = cursor.first_stretch(at, 30) {
                found.extend(start..end);
                at = end;
            }
            prop_assert_eq!(found, waiting.clone());
            prop_assert_eq!(cursor.waiting(), waiting.len() as u64);
            prop_assert!(Cursor::decode(&cursor.encode(1)).is_some());
        }

        #[test]
        fn what_waits_in_both_of_two_is_counted_as_in_plain_sets(
            one in proptest::collection::vec(0u64..30, 0..30),
            other in proptest::collection::vec(0u64..30, 0..30),
        ) {
            let cursor = |settled: &[u64]| {
                let mut cursor = Cursor::default();
                for _ in 0..30 {
                    cursor.append(1);
                }
                for position in settled {
                    cursor.settle(*position, 1);
                }
                cursor
            };
            let both = (0..30).filter(|position| !one.contains(position) && !other.contains(position)).count();
            prop_assert_eq!(cursor(&one).waiting_in_both(&cursor(&other)), both as u64);
        }

        #[test]
        fn a_cursor_that_was_put_anywhere_has_a_valid_record(
            settled in proptest::collection::vec(0u64..20, 0..10),
            below in 0u64..25,
            to in 0u64..25,
        ) {
            let mut cursor = Cursor::default();
            for _ in 0..20 {
                cursor.append(1);
            }
            cursor.trim(below, 0);
            for position in settled {
                cursor.settle(position, 1);
            }
            cursor.seek(to);
            prop_assert!(Cursor::decode(&cursor.encode(1)).is_some());
        }

        #[test]
        fn any_bytes_are_a_valid_cursor_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(cursor) = Cursor::decode(&bytes) {
                prop_assert!(cursor.waiting() <= cursor.next);
            }
        }
    }
}
