//! Entities whose mail nobody reads: what is sent to one that is not loaded is listed here, for its region to load it.
//!
//! # Invariants
//! - Mail of an entity is read, listed, or found by a look through all that waits, which [`Unattended::missed`] asks for: an
//!   append, a summons and the end of a reader are all under the one lock of the admission, so no wake-up is lost between them.
//! - A mailbox is listed once, and at most [`MOST`] of a region are: what waits costs disk, not memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::admission::Admission;
use super::cursor::Cursor;
use super::fault::StoreError;
use super::keys::{self, MailboxId};
use super::{Store, sealed};
use crate::sync::Bell;

/// The most mailboxes of a region that are listed.
const MOST: usize = 4096;

/// Whether an entity's mailbox is read, or listed.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    /// The place of its region in [`Regions`]; none for a mailbox that is no entity's.
    region: Option<usize>,
    attended: bool,
    listed: bool,
    /// Something came for its reader that is not in the log.
    summoned: bool,
}

impl Attendance {
    pub(super) fn is_attended(&self) -> bool {
        self.attended
    }
}

/// The regions that were heard of, by name.
#[derive(Debug, Default)]
pub(super) struct Regions {
    by_name: HashMap<Box<str>, usize>,
    all: Vec<Region>,
}

/// What waits for one region.
#[derive(Debug, Default)]
struct Region {
    /// Nobody lists what nobody would take off the list.
    open: bool,
    listed: VecDeque<MailboxId>,
    missed: bool,
    bell: Arc<Bell>,
}

/// What a region is to load.
#[derive(Debug, Default)]
pub(crate) struct Unattended {
    pub(crate) listed: Vec<MailboxId>,
    /// There was no room to list more: [`Store::waiting_mailboxes`] finds them.
    pub(crate) missed: bool,
}

impl Regions {
    fn place_of(&mut self, name: &str) -> usize {
        if let Some(place) = self.by_name.get(name) {
            return *place;
        }
        self.all.push(Region::default());
        self.by_name.insert(name.into(), self.all.len() - 1);
        self.all.len() - 1
    }

    fn get(&mut self, name: &str) -> Option<&mut Region> {
        let place = *self.by_name.get(name)?;
        self.all.get_mut(place)
    }
}

impl Admission {
    /// The attendance of a mailbox that is loaded under this name.
    pub(super) fn attendance(&mut self, name: Option<&str>) -> Attendance {
        let region = name.and_then(keys::region_of).map(|region| self.regions.place_of(region));
        Attendance { region, ..Attendance::default() }
    }

    /// The name of a mailbox that may have been loaded without it: before it was made, for one.
    pub(super) fn attend_as(&mut self, mailbox: MailboxId, name: Option<&str>) {
        let Attendance { region, .. } = self.attendance(name);
        if let Some(state) = self.mailboxes.get_mut(&mailbox) {
            state.attendance.region = region.or(state.attendance.region);
        }
    }

    /// Something waits in the mailbox: if it is an entity's and nobody reads it, its region is told, once.
    pub(super) fn list_if_unattended(&mut self, mailbox: MailboxId) {
        let Some(state) = self.mailboxes.get_mut(&mailbox) else { return };
        let attendance = &mut state.attendance;
        let Some(region) = attendance.region.and_then(|region| self.regions.all.get_mut(region)) else {
            return;
        };
        if attendance.attended || attendance.listed || !region.open {
            return;
        }
        if region.listed.len() < MOST {
            attendance.listed = true;
            region.listed.push_back(mailbox);
        } else {
            region.missed = true;
        }
        region.bell.ring();
    }
}

impl Store {
    /// From now on what waits for the region is listed, and what waits already is missed. Gives what is rung when there is
    /// something to take; none when the region is open already.
    pub(crate) fn open_region(&self, name: &str) -> Option<Arc<Bell>> {
        let mut admission = self.shared.admission();
        let place = admission.regions.place_of(name);
        let region = admission.regions.all.get_mut(place)?;
        if std::mem::replace(&mut region.open, true) {
            return None;
        }
        region.missed = true;
        Some(region.bell.clone())
    }

    /// Nothing of the region is listed any more.
    pub(crate) fn close_region(&self, name: &str) {
        let mut admission = self.shared.admission();
        let Some(region) = admission.regions.get(name) else { return };
        region.open = false;
        for mailbox in std::mem::take(&mut region.listed) {
            if let Some(state) = admission.mailboxes.get_mut(&mailbox) {
                state.attendance.listed = false;
            }
        }
    }

    /// Has the region look through all that waits.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(crate) fn miss(&self, name: &str) {
        let mut admission = self.shared.admission();
        if let Some(region) = admission.regions.get(name) {
            region.missed = true;
            region.bell.ring();
        }
    }

    /// Whether the region is open.
    pub(crate) fn is_region_open(&self, name: &str) -> bool {
        self.shared.admission().regions.get(name).is_some_and(|region| region.open)
    }

    /// Takes up to `most` mailboxes off the region's list.
    pub(crate) fn unattended(&self, name: &str, most: usize) -> Unattended {
        let mut admission = self.shared.admission();
        let Some(region) = admission.regions.get(name) else { return Unattended::default() };
        let some = most.min(region.listed.len());
        let listed: Vec<_> = region.listed.drain(..some).collect();
        let missed = std::mem::take(&mut region.missed);
        for mailbox in &listed {
            if let Some(state) = admission.mailboxes.get_mut(mailbox) {
                state.attendance.listed = false;
            }
        }
        Unattended { listed, missed }
    }

    /// Somebody reads the mailbox from now on: it is not listed. False when it is not loaded, or read already.
    pub(crate) fn attend(&self, mailbox: MailboxId) -> bool {
        let mut admission = self.shared.admission();
        let Some(state) = admission.mailboxes.get_mut(&mailbox) else { return false };
        state.attendance.summoned = false;
        !std::mem::replace(&mut state.attendance.attended, true)
    }

    /// Nobody reads the mailbox any more. It is listed at once if something waits there, unless `later`: then only when more
    /// comes.
    pub(crate) fn leave(&self, mailbox: MailboxId, later: bool) {
        let before = cfg!(steadfast_bug = "leave-in-two-steps")
            .then(|| self.depth(mailbox).is_some_and(|(count, _)| count > 0));
        let mut admission = self.shared.admission();
        let Some(state) = admission.mailboxes.get_mut(&mailbox) else { return };
        state.attendance.attended = false;
        let waits = before.unwrap_or(state.waiting() > 0) && !later || state.attendance.summoned;
        if waits && !cfg!(steadfast_bug = "leave_without_a_look") {
            admission.list_if_unattended(mailbox);
        }
    }

    /// Something that is not in the log waits for whoever reads the mailbox.
    pub(crate) fn summon(&self, mailbox: MailboxId) {
        let mut admission = self.shared.admission();
        if let Some(state) = admission.mailboxes.get_mut(&mailbox) {
            state.attendance.summoned = true;
            admission.list_if_unattended(mailbox);
        }
    }

    /// Mailboxes in which something waits, in order from `from` on, and where to go on; none at the end. A page may be empty
    /// before the end. May block on the disk.
    pub(crate) fn waiting_mailboxes(
        &self,
        from: MailboxId,
        most: usize,
    ) -> Result<(Vec<MailboxId>, Option<MailboxId>), StoreError> {
        loop {
            let (in_memory, mut end, stamp) = self.waiting_in_memory(from, most);
            let keys = |mailbox| keys::cursor(keys::LogId { mailbox, lane: 0 });
            let to = end.map_or_else(|| keys::after_prefix(&[keys::class::CURSOR]), keys);
            let stored = self.shared.read_engine(|engine| {
                let records = engine.range(&keys(from), &to, most)?;
                let full = records.len() == most;
                let read = |(key, sealed): (Vec<u8>, Vec<u8>)| {
                    let value = sealed::unseal(engine, &key, sealed)?;
                    let cursor =
                        Cursor::decode(&value).ok_or_else(|| sealed::damaged(&key, "is no cursor"))?;
                    let log = keys::log_of_cursor(&key)
                        .ok_or_else(|| sealed::damaged(&key, "is no cursor's key"))?;
                    Ok((log.mailbox, cursor.waiting() > 0))
                };
                Ok((records.into_iter().map(read).collect::<Result<Vec<_>, StoreError>>()?, full))
            });
            if self.shared.admission().stamp != stamp {
                continue;
            }
            let (stored, full) = stored?;
            if let Some((last, _)) = stored.last().filter(|_| full) {
                // its other lanes were not read: they only say the same, or that another one has mail
                end = Some(end.map_or(*last, |end| end.min(*last)).max(from.saturating_add(1)));
            }
            let mut waiting = in_memory;
            for (mailbox, waits) in stored {
                let known = waiting.entry(mailbox).or_insert((waits, Origin::Stored));
                known.0 |= waits && known.1 == Origin::Stored;
            }
            let before_end = |mailbox: &MailboxId| end.is_none_or(|end| *mailbox < end);
            let found = waiting.into_iter().filter(|(mailbox, (waits, _))| *waits && before_end(mailbox));
            return Ok((found.map(|(mailbox, _)| mailbox).collect(), end));
        }
    }

    /// The mailboxes in memory from `from` on, whether something waits in them, and up to where was looked.
    fn waiting_in_memory(
        &self,
        from: MailboxId,
        most: usize,
    ) -> (BTreeMap<MailboxId, (bool, Origin)>, Option<MailboxId>, u64) {
        let admission = self.shared.admission();
        let mut found = BTreeMap::new();
        for (mailbox, state) in admission.mailboxes.range(from..) {
            if found.len() == most {
                return (found, Some(*mailbox), admission.stamp);
            }
            found.insert(*mailbox, (state.waiting() > 0, Origin::Memory));
        }
        (found, None, admission.stamp)
    }
}

/// Where what is known of a mailbox was found: memory has the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Memory,
    Stored,
}
