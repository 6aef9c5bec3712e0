//! Who is to be loaded next: what is listed as having mail, what a look through the store finds, and what was to be left
//! alone for a while.
//!
//! # Invariants
//! - Whatever has mail comes up some time: it is listed, or a look that begins later finds it, or its time comes.
//! - Memory is bounded whatever waits: what does not fit is found by a later look.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::durable::Ledger;
use crate::store::{FIRST_ENTITY, MailboxId, StoreError};

/// How many are taken off the list at once, and found in one step of a look.
const AT_ONCE: usize = 256;
/// The most that are remembered to be left alone.
const REMEMBERED: usize = 8192;
/// When what was not remembered is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// See the module's head.
pub(super) struct Line {
    region: Arc<str>,
    ready: VecDeque<MailboxId>,
    /// Where the look goes on; none when there is none.
    look: Option<MailboxId>,
    missed: bool,
    /// Those with mail that is not to be handled before a time.
    later: BTreeSet<(Timestamp, MailboxId)>,
    /// Those that could not be loaded, until when, and how often in a row.
    failed: HashMap<MailboxId, (Timestamp, u32)>,
    look_at: Option<Timestamp>,
}

impl Line {
    pub(super) fn new(region: Arc<str>) -> Self {
        Line {
            region,
            ready: VecDeque::new(),
            look: None,
            missed: false,
            later: BTreeSet::new(),
            failed: HashMap::new(),
            look_at: None,
        }
    }

    /// How many are known to wait.
    pub(super) fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether there is more to look for at once.
    pub(super) fn is_looking(&self) -> bool {
        self.look.is_some() || self.missed
    }

    /// The next to be loaded, of those that are known.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<MailboxId> {
        loop {
            let mailbox = self.ready.pop_front()?;
            let rests = self.failed.get(&mailbox).is_some_and(|(until, _)| *until > now);
            if !rests {
                return Some(mailbox);
            }
        }
    }

    /// Looks for more to load. May find none although there is more: see [`Line::is_looking`].
    pub(super) async fn refill(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        let now = ledger.clock().now();
        while let Some((due, mailbox)) = self.later.first().copied().filter(|(due, _)| *due <= now) {
            self.later.remove(&(due, mailbox));
            self.ready.push_back(mailbox);
        }
        let unattended = ledger.store().unattended(&self.region, AT_ONCE);
        self.ready.extend(unattended.listed);
        self.missed |= unattended.missed;
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.missed = true;
        }
        if self.look.is_none() && std::mem::take(&mut self.missed) {
            self.look = Some(FIRST_ENTITY);
        }
        if let Some(from) = self.look {
            let (found, next) = ledger.waiting_entities(&self.region, from, AT_ONCE).await?;
            self.ready.extend(found);
            self.look = next;
        }
        Ok(())
    }

    /// When something comes up by itself.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.later.first().map(|(due, _)| *due).into_iter().chain(self.look_at).min()
    }

    /// The mailbox has mail that is not to be handled before a time.
    pub(super) fn leave_until(&mut self, mailbox: MailboxId, due: Timestamp, now: Timestamp) {
        if self.later.len() < REMEMBERED {
            self.later.insert((due, mailbox));
        } else {
            self.look_at.get_or_insert(now.after(LOOK_AGAIN));
        }
    }

    /// It could not be loaded: tried again after a while that grows. Returns when.
    pub(super) fn failed(&mut self, mailbox: MailboxId, now: Timestamp) -> Timestamp {
        const LONGEST: u32 = 5;
        let tries = self.failed.get(&mailbox).map_or(0, |(_, tries)| *tries);
        let until = now.after(Duration::from_secs(1 << tries.min(LONGEST)));
        if self.failed.len() < REMEMBERED || tries > 0 {
            self.failed.insert(mailbox, (until, tries + 1));
        }
        self.leave_until(mailbox, until, now);
        until
    }

    /// It was loaded.
    pub(super) fn loaded(&mut self, mailbox: MailboxId) {
        self.failed.remove(&mailbox);
    }
}
