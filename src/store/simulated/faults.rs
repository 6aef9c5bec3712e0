//! What is to go wrong and when, and the one count of all calls that change something.
//!
//! # Invariants
//! - Operations are counted from 1 on and in the order in which they take the machine's lock, also over crashes.
//! - Once the power is cut no call gets through until the crash is over.

use std::collections::BTreeMap;
use std::io;

use crate::clock::mix;

/// What a call that changes something does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Operation {
    CreateDir,
    Create,
    Write,
    Sync,
    Rename,
    Remove,
    SyncDir,
    /// The engine is made, or removed.
    MakeEngine,
    Apply,
    Flush,
    CloseEngine,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    operations: u64,
    cut_at: Option<u64>,
    /// As `cut_at`, for the next write from this number on.
    cut_in_write: Option<u64>,
    is_cut: bool,
    /// In which operation the power went last.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    cut_in: Option<Operation>,
    /// All operations so far, in their order.
    trace: u64,
    failures: BTreeMap<u64, io::ErrorKind>,
    pub(super) syncs_fail: bool,
    /// `Some` while syncs are held; the number tells one holding from the next.
    pub(super) held: Option<u64>,
    holdings: u64,
}

/// What is to become of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Runs,
    Fails(io::ErrorKind),
    /// The power goes while it runs.
    CutShort,
}

impl Faults {
    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(super) fn cut_at(&mut self, operation: u64) {
        self.cut_at = Some(operation);
    }

    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(super) fn cut_in_write_from(&mut self, operation: u64) {
        self.cut_in_write = Some(operation);
    }

    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(super) fn cut_in(&self) -> Option<Operation> {
        self.cut_in
    }

    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    /// No cut is to come.
    pub(super) fn no_cut(&mut self) {
        self.cut_at = None;
        self.cut_in_write = None;
    }

    pub(super) fn fail_at(&mut self, operation: u64, kind: io::ErrorKind) {
        self.failures.insert(operation, kind);
    }

    pub(super) fn hold(&mut self) {
        if self.held.is_none() {
            self.holdings += 1;
            self.held = Some(self.holdings);
        }
    }

    /// Counts an operation and says what becomes of it. `of` says what it does it to, for the trace.
    pub(super) fn next(&mut self, what: Operation, of: u64) -> Fate {
        self.operations += 1;
        self.trace = mix(self.trace ^ mix(of.wrapping_mul(16).wrapping_add(what as u64)));
        // a number that has passed cuts the next one: a cut that was asked for always comes
        let is_time = |at: Option<u64>| at.is_some_and(|at| at <= self.operations);
        if is_time(self.cut_at) || what == Operation::Write && is_time(self.cut_in_write) {
            self.no_cut();
            self.is_cut = true;
            #[cfg(test)]
            #[cfg(not(steadfast_loom))]
            {
                self.cut_in = Some(what);
            }
            return Fate::CutShort;
        }
        self.failures.remove(&self.operations).map_or(Fate::Runs, Fate::Fails)
    }

    /// An error while syncs are told to fail.
    pub(super) fn check_sync(&self) -> io::Result<()> {
        if self.syncs_fail { Err(io::Error::other("simulated: the sync failed")) } else { Ok(()) }
    }

    /// The machine is up again. A cut still to come stays.
    pub(super) fn power_is_back(&mut self) {
        self.is_cut = false;
        self.held = None;
    }
}

pub(super) fn power_cut() -> io::Error {
    io::Error::other("power cut")
}

pub(super) fn stale() -> io::Error {
    io::Error::other("simulated: the machine has crashed since this was opened")
}

pub(super) fn injected(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "simulated: this operation was told to fail")
}
