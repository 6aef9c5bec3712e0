//! How far a log has been read: everything below `front` is settled, above it the settled ranges are kept as
//! exceptions, `next` is the position the next append gets.
//!
//! # Invariants
//! - `front <= next`; no settled range touches `front` (it would have moved it) or reaches beyond `next`.
//! - `next` never goes back, also when the log is empty: a position is given once.
//! - Waiting = `next - front` minus what the ranges cover; it is derived, so it cannot drift.

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
        self.bytes += len as u64;
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
        let mut bytes = Vec::with_capacity(32 + self.settled.len() * 16);
        for number in [as_of, self.front, self.next, self.bytes] {
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
        if !rest.is_empty() || numbers.len() < 4 || numbers.len() % 2 != 0 {
            return None;
        }
        let mut numbers = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes));
        let mut take = || numbers.next();
        let (as_of, front, next, bytes) = (take()?, take()?, take()?, take()?);
        let mut cursor = Cursor { front, next, bytes, as_of, ..Cursor::default() };
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
        (front <= next).then_some(cursor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_agrees_with_a_plain_set(steps in proptest::collection::vec((any::<bool>(), 0u64..40), 0..200)) {
            let mut cursor = Cursor::default();
            let mut waiting = BTreeSet::new();
            for (append, at) in steps {
                if append {
                    waiting.insert(cursor.append(10));
                } else {
                    prop_assert_eq!(cursor.settle(at, 10), waiting.remove(&at));
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
        fn any_bytes_are_a_valid_cursor_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(cursor) = Cursor::decode(&bytes) {
                prop_assert!(cursor.waiting() <= cursor.next);
            }
        }
    }
}
