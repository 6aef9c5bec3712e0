//! A view: a log with a cursor of its own and the entries of another. Many read one log so, each at its own pace, and what
//! they read is stored once. A view has a reader, the mailbox whose worker reads it; a mailbox may read many.
//!
//! # Invariants
//! - Nothing is appended to a view. Its `next` is that of the log it shows, moved with the same append.
//! - The log it shows and its reader are in memory as long as the view is, and know it.
//! - What was trimmed off the log is not in the view either. Where that is beyond the view's front there is a gap, which
//!   stands until the view's own cursor moves over it.
//! - What was settled in the log itself is in no view, and no gap: it was superseded.
//! - A view's id is never given again: the record of one that has ended stays.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::admission::{Admission, MailboxState};
use super::cursor::Cursor;
use super::fault::StoreError;
use super::group::u32_at;
use super::keys::{self, LogId, MailboxId};
use super::{Store, sealed};
use crate::sync::Bell;
use crate::sync::atomic::AtomicU8;

/// The lane of a view that shows the other log; its others are empty.
pub(crate) const LANE: u8 = 1;
/// The bit beside those of the lanes that says that the cursor was put elsewhere: what was read ahead is to be read again.
pub(crate) const MOVED: u8 = 0x80;
/// The bit of a reader that says that there is something in one of its views.
pub(crate) const SHOWN: u8 = 0x40;
/// The bit of a reader that says that it has other views than before.
pub(crate) const VIEWS: u8 = 0x20;

/// What is stored of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ViewRecord {
    /// The log it shows.
    pub(crate) of: LogId,
    /// Whose it is; none once it has ended.
    pub(crate) reader: Option<MailboxId>,
    /// Whether its reader is to leave it alone.
    pub(crate) paused: bool,
}

const PAUSED: u8 = 1;
/// What is wrong with a view whose cursor is no cursor of the log it shows.
pub(super) const BEYOND: &str = "has read more than there is in the log it shows";

impl ViewRecord {
    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let fields = || {
            let (of, reader) = (u32_at(value, 0)?, u32_at(value, 5)?);
            let (lane, flags) = (*value.get(4)?, *value.get(9)?);
            // a view of a view, or of itself, would be loaded for ever
            let plain =
                !keys::is_view(of) && !keys::is_view(reader) || cfg!(steadfast_bug = "load_a_view_of_a_view");
            let whole = value.len() == 10 && usize::from(lane) < keys::LANES && flags <= PAUSED && plain;
            whole.then_some((LogId { mailbox: of, lane }, reader, flags))
        };
        let (of, reader, flags) = fields().ok_or_else(|| sealed::damaged(key, "is no view"))?;
        Ok(ViewRecord { of, reader: (reader != 0).then_some(reader), paused: flags & PAUSED != 0 })
    }

    pub(crate) fn encode(&self) -> [u8; 10] {
        let [a, b, c, d] = self.of.mailbox.to_be_bytes();
        let [e, f, g, h] = self.reader.unwrap_or(0).to_be_bytes();
        [a, b, c, d, self.of.lane, e, f, g, h, u8::from(self.paused)]
    }
}

/// What a view in memory shows, and to whom.
#[derive(Debug)]
pub(super) struct Shows {
    of: LogId,
    /// Nothing is stored of a view without one.
    reader: Option<MailboxId>,
    /// The reader's bits.
    reader_fresh: Arc<AtomicU8>,
    paused: bool,
}

/// One of the views that a mailbox reads.
#[derive(Debug, Clone)]
pub(crate) struct ViewOf {
    /// Where it is read.
    pub(crate) log: LogId,
    /// The log it shows.
    pub(crate) of: LogId,
    /// One bit when it grew, and [`MOVED`].
    pub(crate) fresh: Arc<AtomicU8>,
}

impl Admission {
    /// Keeps a view whose cursor was read; the log it shows and its reader must be loaded.
    pub(super) fn keep_view(&mut self, view: MailboxId, record: ViewRecord, mut state: MailboxState) {
        let ViewRecord { of, reader, paused } = record;
        if let Some(reader) = reader {
            let Some(reading) = self.mailboxes.get_mut(&reader) else { return };
            reading.reads.push(view);
            let reader_fresh = reading.fresh.clone();
            state.bell = reading.bell.clone();
            state.shows = Some(Shows { of, reader: Some(reader), reader_fresh, paused });
            self.show(view, of, state);
            self.pass_superseded(view);
        } else {
            // it has ended: nothing waits there
            self.mailboxes.insert(view, state);
        }
    }

    /// A view with a front beyond the end of the log it shows. There may be one while the journal is replayed, after a checkpoint
    /// that was interrupted between the cursors of the two.
    pub(super) fn view_beyond_its_log(&self) -> Option<MailboxId> {
        let mut views = self.mailboxes.range(keys::FIRST_VIEW..keys::FIRST_ENTITY);
        let beyond = |state: &MailboxState| {
            let cursor = &state.lanes[usize::from(LANE)];
            state.shows.is_some() && cursor.front > cursor.next
        };
        let found = views.find(|(_, state)| beyond(state) && !cfg!(steadfast_bug = "believe_any_front"));
        found.map(|(view, _)| *view)
    }

    /// What is stored of a view is this from now on.
    pub(super) fn change_view(&mut self, view: MailboxId, record: ViewRecord) {
        match record.reader {
            Some(_) => self.pause_view(view, record.paused),
            None => self.end_view(view),
        }
    }

    fn pause_view(&mut self, view: MailboxId, paused: bool) {
        let Some(state) = self.mailboxes.get_mut(&view) else { return };
        if let Some(shows) = &mut state.shows {
            shows.paused = paused;
            shows.reader_fresh.fetch_or(VIEWS, Ordering::Release);
            state.ring(MOVED | 1 << LANE);
        }
    }

    fn end_view(&mut self, view: MailboxId) {
        let Some(state) = self.mailboxes.get_mut(&view) else { return };
        let Some(Shows { of, reader, reader_fresh, .. }) = state.shows.take() else { return };
        match reader {
            // a turn of its reader may still name it: nothing waits there any more
            Some(_) => state.lanes[usize::from(LANE)].end(),
            None => drop(self.mailboxes.remove(&view)),
        }
        if let Some(shown) = self.mailboxes.get_mut(&of.mailbox) {
            shown.views.retain(|one| *one != view);
        }
        if let Some(reading) = reader.and_then(|reader| self.mailboxes.get_mut(&reader)) {
            reading.reads.retain(|one| *one != view);
            reader_fresh.fetch_or(VIEWS, Ordering::Release);
            reading.bell.ring();
        }
    }

    fn show(&mut self, view: MailboxId, of: LogId, mut state: MailboxState) {
        let Some(shown) = self.mailboxes.get_mut(&of.mailbox) else { return };
        shown.views.push(view);
        state.lanes[usize::from(LANE)].next = shown.lanes[usize::from(of.lane)].next;
        self.mailboxes.insert(view, state);
    }

    /// A log got an entry: so did those who show it.
    pub(super) fn advance_views(&mut self, log: LogId, next: u64) {
        let Some(views) = self.mailboxes.get(&log.mailbox).map(|state| &state.views) else { return };
        if views.is_empty() {
            return;
        }
        for view in views.clone() {
            let Some(state) = self.mailboxes.get_mut(&view) else { continue };
            if state.shows.as_ref().is_none_or(|shows| shows.of != log) {
                continue;
            }
            if !cfg!(steadfast_bug = "leave_views_behind") {
                state.lanes[usize::from(LANE)].next = next;
            }
            if !cfg!(steadfast_bug = "tell_no_view") {
                state.ring(1 << LANE);
            }
        }
    }

    /// What was settled in a log is over for those who show it, too.
    pub(super) fn settled_in_views(&mut self, log: LogId) {
        let views = self.mailboxes.get(&log.mailbox).map(|state| state.views.clone()).unwrap_or_default();
        for view in views {
            self.pass_superseded(view);
        }
    }

    /// Moves a view's front over what was settled in the log it shows.
    pub(super) fn pass_superseded(&mut self, view: MailboxId) {
        let log = LogId { mailbox: view, lane: LANE };
        let passes = |admission: &Admission| {
            let front = admission.mailboxes.get(&view)?.lanes[usize::from(LANE)].front;
            let shown = admission.shown(log).1?;
            match front {
                front if front < shown.trimmed => None,
                front if front < shown.front => Some(shown.front),
                front => shown.end_of_settled(front),
            }
        };
        while let Some(end) = passes(self) {
            self.touch(log);
            let Some(state) = self.mailboxes.get_mut(&view) else { return };
            state.lanes[usize::from(LANE)].pass(end);
        }
    }

    /// Where the entries of a log lie, and the cursor of that log if it is another.
    pub(super) fn shown(&self, log: LogId) -> (LogId, Option<&Cursor>) {
        let state = self.mailboxes.get(&log.mailbox).filter(|_| log.is_shown());
        let of = state.and_then(|state| state.shows.as_ref()).map(|shows| shows.of);
        match of.and_then(|of| Some((of, self.mailboxes.get(&of.mailbox)?))) {
            Some((of, state)) => (of, Some(&state.lanes[usize::from(of.lane)])),
            None => (log, None),
        }
    }

    /// Below which position the letters of a log were there when the store was opened.
    fn resumed_in(&self, log: LogId) -> u64 {
        self.mailboxes.get(&log.mailbox).map_or(0, |state| state.resumed[usize::from(log.lane)])
    }

    /// Whether a view is to be left alone.
    pub(super) fn is_paused(&self, log: LogId) -> bool {
        let state = self.mailboxes.get(&log.mailbox).filter(|_| log.is_shown());
        state.and_then(|state| state.shows.as_ref()).is_some_and(|shows| shows.paused)
    }

    /// What waits in a log; none when it is not loaded.
    pub(super) fn waiting_in(&self, log: LogId) -> Option<Waiting<'_>> {
        let cursor = &self.mailboxes.get(&log.mailbox)?.lanes[usize::from(log.lane)];
        Some(Waiting { cursor, shown: self.shown(log).1 })
    }

    /// What waits in the views that a mailbox reads, but for those that are paused.
    pub(super) fn waiting_in_views(&self, reader: MailboxId) -> u64 {
        let Some(state) = self.mailboxes.get(&reader) else { return 0 };
        let logs = state.reads.iter().map(|view| LogId { mailbox: *view, lane: LANE });
        let waiting = logs.filter(|log| !self.is_paused(*log)).filter_map(|log| self.waiting_in(log));
        waiting.map(|waiting| waiting.count()).sum()
    }

    /// Puts a cursor at a position, with nothing after it settled.
    pub(super) fn seek(&mut self, log: LogId, to: u64) {
        self.touch(log);
        let Some(state) = self.mailboxes.get_mut(&log.mailbox) else { return };
        state.lanes[usize::from(log.lane)].seek(to);
        state.ring(MOVED | 1 << log.lane);
        self.pass_superseded(log.mailbox);
    }
}

/// What waits in a log, and in the log it shows.
pub(super) struct Waiting<'a> {
    cursor: &'a Cursor,
    shown: Option<&'a Cursor>,
}

impl Waiting<'_> {
    /// The first position from one on.
    pub(super) fn first(&self, from: u64) -> Option<u64> {
        let mut first = self.cursor.first_waiting(from)?;
        let Some(shown) = self.shown else { return Some(first) };
        loop {
            let there = shown.first_waiting(first)?;
            if there == first {
                return Some(first);
            }
            first = self.cursor.first_waiting(there)?;
        }
    }

    fn count(&self) -> u64 {
        self.shown.map_or_else(|| self.cursor.waiting(), |shown| self.cursor.waiting_in_both(shown))
    }
}

impl MailboxState {
    /// Whoever reads it, itself or as a view, is to look.
    fn ring(&self, bits: u8) {
        self.fresh.fetch_or(bits, Ordering::Release);
        if let Some(shows) = &self.shows {
            shows.reader_fresh.fetch_or(SHOWN, Ordering::Release);
        }
        self.bell.ring();
    }
}

/// How far a view has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Everything below is settled, or was trimmed off before it was.
    pub(crate) front: u64,
    /// Everything below was trimmed off the log, or settled there before.
    pub(crate) first: u64,
    /// The next position the log gives.
    pub(crate) next: u64,
    /// Entries that are there and not settled.
    pub(crate) waiting: u64,
    /// Bytes that wait in the log itself; nothing is known of those in a view.
    pub(crate) bytes: u64,
    pub(crate) paused: bool,
}

impl Store {
    /// How far a view, or the reader of a log, has come; none when it is not loaded.
    pub(crate) fn progress(&self, log: LogId) -> Option<Progress> {
        let admission = self.shared.admission();
        let cursor = &admission.mailboxes.get(&log.mailbox)?.lanes[usize::from(log.lane)];
        let first = admission.shown(log).1.map_or(cursor.front, |shown| shown.trimmed);
        let waiting = admission.waiting_in(log).map_or(0, |waiting| waiting.count());
        let paused = admission.is_paused(log);
        let (front, next, bytes) = (cursor.front, cursor.next, cursor.bytes);
        Some(Progress { front, first, next, waiting, bytes, paused })
    }

    /// The log that a view shows; none once it has ended.
    pub(crate) fn shown_log(&self, view: LogId) -> Option<LogId> {
        let admission = self.shared.admission();
        Some(admission.mailboxes.get(&view.mailbox)?.shows.as_ref()?.of)
    }

    /// The first positions of a view that were trimmed off the log before they were settled in the view; none if there are none.
    pub(crate) fn missing(&self, view: LogId) -> Option<Range<u64>> {
        let admission = self.shared.admission();
        let cursor = &admission.mailboxes.get(&view.mailbox)?.lanes[usize::from(view.lane)];
        let trimmed = admission.shown(view).1?.trimmed;
        // what is behind it was handled, where it was not in order
        let unsettled = match cfg!(steadfast_bug = "tell_of_what_was_handled") {
            true => u64::MAX,
            false => cursor.first_settled().unwrap_or(u64::MAX),
        };
        let missing = cursor.front..trimmed.min(unsettled);
        (!missing.is_empty()).then_some(missing)
    }

    /// Whether whoever reads a view is to leave it alone.
    pub(crate) fn is_left_alone(&self, log: LogId) -> bool {
        log.is_shown() && self.shared.admission().is_paused(log)
    }

    /// Whether an entry was settled in the log that a view shows, and not trimmed off it.
    pub(crate) fn was_superseded(&self, log: LogId, position: u64) -> bool {
        let admission = self.shared.admission();
        let is_over = |shown: &Cursor| position >= shown.trimmed && !shown.is_waiting(position);
        admission.shown(log).1.is_some_and(is_over)
    }

    /// The first position that somebody who reads the log through a view still needs; none without views. They must be loaded.
    pub(crate) fn needed(&self, log: LogId) -> Option<u64> {
        let admission = self.shared.admission();
        let shows = |state: &&MailboxState| {
            state.shows.as_ref().is_some_and(|shows| shows.of == log && shows.reader.is_some())
        };
        let state = |view| admission.mailboxes.get(view).filter(shows);
        let views = admission.mailboxes.get(&log.mailbox)?.views.iter().filter_map(state);
        let needed = views.map(|state| state.lanes[usize::from(LANE)].front);
        if cfg!(steadfast_bug = "let_the_quickest_decide") { needed.max() } else { needed.min() }
    }

    /// Every view that has not ended. May block on the disk.
    pub(crate) fn views(&self) -> Result<Vec<(MailboxId, ViewRecord)>, StoreError> {
        let prefix = &keys::view(0)[..1];
        let stored = self.scan(prefix, &keys::after_prefix(prefix), usize::MAX)?;
        let view = |(key, value): &super::read::KeyValue| {
            let id = u32_at(key, 1).ok_or_else(|| sealed::damaged(key, "is no key of a view"))?;
            Ok((id, ViewRecord::decode(key, value)?))
        };
        let views: Vec<_> = stored.iter().map(view).collect::<Result<_, StoreError>>()?;
        Ok(views.into_iter().filter(|(_, record)| record.reader.is_some()).collect())
    }

    /// Loads the views that a mailbox reads, and gives them. The mailbox must be loaded. May block on the disk.
    pub(crate) fn load_views(&self, reader: MailboxId) -> Result<Vec<ViewOf>, StoreError> {
        let prefix = keys::readings(reader);
        for (key, value) in self.scan(&prefix, &keys::after_prefix(&prefix), usize::MAX)? {
            let view = u32_at(&value, 0).ok_or_else(|| sealed::damaged(&key, "names no view"))?;
            self.load_mailbox(view, None)?;
        }
        Ok(self.views_of(reader))
    }

    /// The views in memory that a mailbox reads.
    pub(crate) fn views_of(&self, reader: MailboxId) -> Vec<ViewOf> {
        let admission = self.shared.admission();
        let Some(state) = admission.mailboxes.get(&reader) else { return Vec::new() };
        let view = |view: &MailboxId| {
            let state = admission.mailboxes.get(view)?;
            let (log, of) = (LogId { mailbox: *view, lane: LANE }, state.shows.as_ref()?.of);
            Some(ViewOf { log, of, fresh: state.fresh.clone() })
        };
        state.reads.iter().filter_map(view).collect()
    }

    /// Keeps a view that is about to be made: nothing of it is stored, and its reader leaves it alone until
    /// [`Store::pause_view`] says otherwise. The log it shows and the reader must be loaded.
    pub(crate) fn keep_new_view(&self, view: MailboxId, of: LogId, reader: MailboxId) {
        let mut admission = self.shared.admission();
        if !admission.mailboxes.contains_key(&view) {
            let state = MailboxState::new(Default::default(), None, Default::default());
            admission.keep_view(view, ViewRecord { of, reader: Some(reader), paused: true }, state);
        }
    }

    /// Has the reader of a view leave it alone, or go on. What it has read ahead it reads again. Only in memory: the record says
    /// it for the next open.
    pub(crate) fn pause_view(&self, view: MailboxId, paused: bool) {
        self.shared.admission().pause_view(view, paused);
    }

    /// A view of which nothing is stored, and what is rung when the log gets an entry. It ends with [`Store::end_view`]. The
    /// log it shows must be loaded.
    pub(crate) fn passing_view(&self, view: MailboxId, of: LogId) -> Arc<Bell> {
        let mut admission = self.shared.admission();
        let mut state = MailboxState::new(Default::default(), None, Default::default());
        state.shows = Some(Shows { of, reader: None, reader_fresh: Arc::default(), paused: false });
        let bell = state.bell.clone();
        if cfg!(steadfast_bug = "show-a-log-later") {
            let next = admission.waiting_in(of).map_or(0, |waiting| waiting.cursor.next);
            drop(admission);
            admission = self.shared.admission();
            admission.show(view, of, state);
            if let Some(state) = admission.mailboxes.get_mut(&view) {
                state.lanes[usize::from(LANE)].next = next;
            }
            return bell;
        }
        admission.show(view, of, state);
        bell
    }

    /// Forgets a view: one that was never stored, or whose record says that it has ended.
    pub(crate) fn end_view(&self, view: MailboxId) {
        self.shared.admission().end_view(view);
    }

    /// Loads a view, the log it shows and its reader. May block on the disk.
    pub(super) fn load_view(&self, view: MailboxId) -> Result<(), StoreError> {
        loop {
            let key = keys::view(view);
            let Some(value) = self.get(&key)? else { return Err(sealed::damaged(&key, "is missing")) };
            let record = ViewRecord::decode(&key, &value)?;
            self.load_mailbox(record.of.mailbox, None)?;
            record.reader.map_or(Ok(()), |reader| self.load_mailbox(reader, None))?;
            let stamp = self.shared.admission().stamp;
            let lanes = self.shared.read_engine(|engine| super::recovery::load_cursors(engine, view))?;
            let mut admission = self.shared.admission();
            if admission.mailboxes.contains_key(&view) {
                return Ok(());
            }
            if admission.stamp == stamp {
                let mut state = MailboxState::new(lanes, None, Default::default());
                // as of its own record it may be far behind the log
                state.resumed[usize::from(LANE)] = admission.resumed_in(record.of);
                let front = state.lanes[usize::from(LANE)].front;
                let shown = admission.mailboxes.get(&record.of.mailbox);
                let next = shown.map_or(0, |state| state.lanes[usize::from(record.of.lane)].next);
                let is_beyond = record.reader.is_some() && front > next;
                if is_beyond && !cfg!(steadfast_bug = "believe_any_front") {
                    return Err(sealed::damaged(&key, BEYOND));
                }
                admission.keep_view(view, record, state);
            }
        }
    }
}
