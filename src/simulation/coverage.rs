//! What runs came to: a counter that stays at zero is a fault that was never tried.

use std::collections::BTreeMap;
use std::fmt;

/// Everything that is counted, in the order in which it is shown.
const ALL: [&str; 26] = [
    SEEDS,
    OPERATIONS,
    DISK_OPERATIONS,
    LIVES,
    TURNS,
    FAILED_TURNS,
    CHECKPOINTS,
    REPLAYED,
    TORN_TAILS,
    POWER_CUTS,
    KILLS,
    CLEAN_ENDS,
    TORN_WRITES,
    "cut in a group write",
    "cut in a group sync",
    "cut in a turn of segments",
    "cut in making a spare",
    "cut in a page file",
    "cut in a checkpoint batch",
    "cut in the engine's flush",
    "cut in the manifest",
    "cut in a recycle",
    "cut in a recovery",
    "cut in a close",
    "cut in the roll",
    "between operations",
];

pub(super) const SEEDS: &str = "seeds";
pub(super) const OPERATIONS: &str = "operations acknowledged";
pub(super) const DISK_OPERATIONS: &str = "disk operations";
pub(super) const LIVES: &str = "lives";
pub(super) const TURNS: &str = "turns";
pub(super) const FAILED_TURNS: &str = "failed turns";
pub(super) const CHECKPOINTS: &str = "checkpoints";
pub(super) const REPLAYED: &str = "commits replayed";
pub(super) const TORN_TAILS: &str = "journals with a torn end";
pub(super) const POWER_CUTS: &str = "power cuts";
pub(super) const KILLS: &str = "kills";
pub(super) const CLEAN_ENDS: &str = "clean ends";
pub(super) const TORN_WRITES: &str = "torn writes";

#[derive(Debug, Clone, Default)]
pub(super) struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(super) fn count(&mut self, what: &'static str, times: u64) {
        assert!(ALL.contains(&what), "{what:?} is not on the list");
        *self.0.entry(what).or_default() += times;
    }

    pub(super) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, other: &Coverage) {
        other.0.iter().for_each(|(what, times)| self.count(what, *times));
    }

    /// What never came.
    pub(super) fn untouched(&self) -> Vec<&'static str> {
        ALL.into_iter().filter(|what| self.of(what) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ALL.iter().try_for_each(|what| writeln!(f, "{:>12} {what}", self.of(what)))
    }
}
