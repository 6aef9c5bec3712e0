//! Chance from a seed.

use crate::clock::mix;

/// SplitMix64: a counter, mixed.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Chance(mix(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// One of `0..=most`.
    pub(super) fn up_to(&mut self, most: usize) -> usize {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        // the small bias of the remainder changes nothing here
        let drawn = self.next();
        let drawn = most.checked_add(1).map_or(drawn, |count| drawn % count);
        usize::try_from(drawn).unwrap_or(usize::MAX)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// How likely each of many things is. Never and always are among them: of a hundred fair coins no seed
    /// would ever show "all lost" or "all kept".
    pub(super) fn odds(&mut self) -> Odds {
        Odds(self.next() % 5)
    }

    pub(super) fn happens(&mut self, odds: Odds) -> bool {
        self.next() % 4 < odds.0
    }
}

/// From never (0) to always (4).
#[derive(Debug, Clone, Copy)]
pub(super) struct Odds(u64);
