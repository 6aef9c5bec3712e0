//! The only writer of the journal: takes the group that waits, writes it, syncs it, and releases whoever waits for it. A
//! step function: a thread drives it, or a test does.
//!
//! # Invariants
//! - Groups are written in the order in which they were sealed, one at a time: the next after the sync of this one.
//! - Nobody is released, and the durable number does not move, before the sync that covers it returned.
//! - After one failed write or sync nothing is written any more: what the disk holds then is unknown to this process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::admission::SealedGroup;
use super::fault::StoreError;
use super::group;
use super::journal::Journal;
use super::ticket::Completion;
use crate::clock::Stopwatch;
use crate::observe::Event;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing was there to do.
    Idle,
    /// One unit of work is done.
    Worked,
    /// The store has failed.
    Failed,
}

/// See the module's head.
pub(super) struct Committer {
    shared: Arc<Shared>,
    journal: Journal,
}

/// The longest that commits nobody waits for stay unsynced.
const LINGER: Duration = Duration::from_millis(1);

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, journal: Journal) -> Self {
        Committer { shared, journal }
    }

    /// Writes and syncs one group, if one is there.
    pub(super) fn step(&mut self) -> Step {
        let Some(group) = self.take() else { return Step::Idle };
        match self.write(&group) {
            Ok(()) => self.release(group),
            Err(error) => self.fail(&group, error),
        }
    }

    fn take(&self) -> Option<SealedGroup> {
        let mut admission = self.shared.admission();
        if admission.failed.is_some() {
            return None;
        }
        if admission.sealed.is_empty() {
            admission.urgent = false;
            admission.seal_filling();
        }
        admission.sealed.pop_front()
    }

    fn write(&mut self, group: &SealedGroup) -> Result<(), StoreError> {
        let _span = tracing::trace_span!("commit", first = group.first, commits = group.commits).entered();
        let durable = self.shared.durable.load(Ordering::Acquire);
        let bytes = self.journal.write(group, durable)?;
        if cfg!(steadfast_bug = "ack-before-sync") {
            self.shared.durable.store(group.last(), Ordering::Release);
            group.ticket.complete(Completion::Durable);
        }
        let began = Stopwatch::start();
        self.sync()?;
        let sync = began.elapsed();
        self.shared.durable.store(group.last(), Ordering::Release);
        self.shared.observer.event(&Event::GroupSynced {
            commits: group.commits,
            bytes,
            sync,
            durable: group.last(),
        });
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let synced = self.journal.sync();
        if cfg!(steadfast_bug = "retry-a-failed-sync") {
            synced.or_else(|_| self.journal.sync())
        } else {
            synced
        }
    }

    fn release(&self, group: SealedGroup) -> Step {
        group.ticket.complete(Completion::Durable);
        {
            let mut admission = self.shared.admission();
            admission.pending -= group::padded(group.bytes.len());
            admission.room = self.shared.segments.room();
            admission.recycle_buffer(group.bytes);
        }
        self.shared.eased.ring_all();
        self.shared.wake_checkpointer();
        Step::Worked
    }

    fn fail(&self, group: &SealedGroup, error: StoreError) -> Step {
        self.shared.fail(error);
        group.ticket.complete(Completion::Failed);
        Step::Failed
    }

    /// Drives the steps until the store closes or fails.
    pub(super) fn run(mut self) {
        while self.wait_for_work() {
            if self.step() == Step::Failed {
                return;
            }
        }
    }

    /// False when there will be no more work.
    fn wait_for_work(&self) -> bool {
        let mut admission = self.shared.admission();
        loop {
            if admission.failed.is_some() {
                return false;
            }
            if admission.urgent || !admission.sealed.is_empty() {
                return true;
            }
            if self.shared.is_closing() {
                return admission.filling.commits > 0;
            }
            if admission.filling.commits == 0 {
                admission = self.shared.wait(&self.shared.work, admission, None);
                continue;
            }
            // commits nobody waits for: whatever comes within this time rides along
            admission = self.shared.wait(&self.shared.work, admission, Some(LINGER));
            if admission.failed.is_none() && admission.filling.commits > 0 {
                return true;
            }
        }
    }
}
