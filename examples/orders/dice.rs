//! Chance: SplitMix64 (Steele, Lea, Flood, 2014), which is enough for a sample and for the moments of kills.

use std::hash::{BuildHasher, RandomState};

pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    /// The same throws for the same seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Dice { state: seed }
    }

    /// Others in each process.
    pub(crate) fn random() -> Self {
        Dice::seeded(RandomState::new().hash_one("dice"))
    }

    /// A number below `limit`; 0 if that is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}
