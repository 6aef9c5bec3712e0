//! All pairs of an engine that may be damaged: where it cannot be read, it is read on behind that.
//!
//! # Invariants
//! - What lies between two pairs that are handed out one after the other and could not be read is told as a gap.
//! - Looking for the end of a gap ends, however much is damaged.

use std::collections::VecDeque;

use super::super::engine::{Engine, EngineError, Pair};
use super::super::keys;

/// Keys that could not be read: from the first, up to before the second.
#[derive(Debug, Clone)]
pub(super) struct Gap {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
    pub(super) why: String,
}

/// See the module's head.
pub(super) struct Pairs<'a> {
    engine: &'a dyn Engine,
    from: Vec<u8>,
    to: Vec<u8>,
    read: VecDeque<Pair>,
    pub(super) gaps: Vec<Gap>,
    probes: usize,
}

const AT_ONCE: usize = 256;
/// Looks for the end of a gap, for all gaps together.
const PROBES: usize = 20_000;

impl<'a> Pairs<'a> {
    pub(super) fn between(engine: &'a dyn Engine, from: &[u8], to: &[u8]) -> Self {
        let (from, to) = (from.to_vec(), to.to_vec());
        Pairs { engine, from, to, read: VecDeque::new(), gaps: Vec::new(), probes: PROBES }
    }

    fn fill(&mut self) {
        while self.read.is_empty() && self.from < self.to {
            // one damaged value must not hide its neighbours
            let many = self.engine.range(&self.from, &self.to, AT_ONCE);
            match many.or_else(|_| self.engine.range(&self.from, &self.to, 1)) {
                Ok(pairs) => match pairs.last() {
                    Some((last, _)) => {
                        self.from = [last.as_slice(), &[0]].concat();
                        self.read = pairs.into();
                    }
                    None => self.from.clone_from(&self.to),
                },
                Err(why) => self.skip(&why),
            }
        }
    }

    /// Goes on at the nearest key behind `from` at which the engine answers.
    fn skip(&mut self, why: &EngineError) {
        let from = std::mem::take(&mut self.from);
        let mut end = self.to.clone();
        for len in (1..=from.len()).rev() {
            let next = keys::after_prefix(&from[..len]);
            if next >= self.to || self.probes == 0 {
                break;
            }
            self.probes -= 1;
            if next > from && self.engine.range(&next, &self.to, 1).is_ok() {
                end = next;
                break;
            }
        }
        self.gaps.push(Gap { from, to: end.clone(), why: why.to_string() });
        self.from = end;
    }
}

impl Iterator for Pairs<'_> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        if self.read.is_empty() {
            self.fill();
        }
        self.read.pop_front()
    }
}
