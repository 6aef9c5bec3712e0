//! Chance from the seed. Each who draws has dice of its own, so that one more draw here changes nothing there.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::mix;

#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

impl Dice {
    pub(super) fn new(seed: u64, of: &str) -> Self {
        Dice(AtomicU64::new(mix(seed ^ mix(u64::from(crc32fast::hash(of.as_bytes()))))))
    }

    pub(super) fn draw(&self) -> u64 {
        mix(self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
    }

    pub(super) fn below(&self, below: u64) -> u64 {
        self.draw() % below.max(1)
    }

    /// One time in so many.
    pub(super) fn one_in(&self, many: u64) -> bool {
        self.below(many) == 0
    }

    pub(super) fn pick<T: Clone>(&self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}
