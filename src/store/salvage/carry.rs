//! Carries what can be read of an engine into a fresh one.
//!
//! # Invariants
//! - A value is carried as it was written, or not at all; what is not, is told.
//! - Where a log's cursor says that a letter waits and no page has it, the place is given up: the log goes on behind it.
//! - Nothing is carried of a mailbox whose name is lost: its number may be given again, to somebody else.

use std::collections::BTreeMap;

use super::super::census::Census;
use super::super::cursor::Cursor;
use super::super::engine::{Engine, Write};
use super::super::fault::StoreError;
use super::super::group::u32_at;
use super::super::keys::{self, LogId, MailboxId, class};
use super::super::page::{self, Stored};
use super::super::page_files::PageFiles;
use super::super::sealed;
use super::Records;
use super::journal::Plan;
use super::known::Known;
use super::pairs::Pairs;
use super::report::{Findings, LostMessages};
use super::source::told;

/// Where it goes.
pub(super) struct Target {
    pub(super) engine: Box<dyn Engine>,
    /// Where pages go that lie in files; where they are when there are none.
    pub(super) pages: Option<PageFiles>,
    pub(super) census: Census,
}

/// See the module's head.
pub(super) struct Carry<'a> {
    pub(super) engine: &'a dyn Engine,
    pub(super) pages: Option<&'a PageFiles>,
    pub(super) to: &'a mut Target,
    pub(super) known: &'a Known,
    pub(super) plan: &'a Plan,
    pub(super) records: &'a Records,
    pub(super) findings: &'a mut Findings,
    pub(super) engine_name: &'static str,
    batch: Vec<Write>,
    bytes: usize,
    pub(super) page_count: u64,
    pub(super) key_count: u64,
    /// What is not carried of mailboxes without a name: values, messages.
    nameless: BTreeMap<MailboxId, (u64, u64)>,
    log: Option<Log>,
}

/// The log whose pages are being read.
struct Log {
    id: LogId,
    cursor: Option<Cursor>,
    /// Where what was found lies.
    found: Vec<(u64, u64)>,
    bytes: u64,
}

const BATCH_WRITES: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

impl<'a> Carry<'a> {
    #[allow(clippy::too_many_arguments, reason = "each is a part of one of the two stores")]
    pub(super) fn new(
        engine: &'a dyn Engine,
        pages: Option<&'a PageFiles>,
        to: &'a mut Target,
        known: &'a Known,
        plan: &'a Plan,
        records: &'a Records,
        findings: &'a mut Findings,
        engine_name: &'static str,
    ) -> Self {
        Carry {
            engine,
            pages,
            to,
            known,
            plan,
            records,
            findings,
            engine_name,
            batch: Vec::new(),
            bytes: 0,
            page_count: 0,
            key_count: 0,
            nameless: BTreeMap::new(),
            log: None,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), StoreError> {
        let mut pairs = Pairs::between(self.engine, &[class::META + 1], &[u8::MAX]);
        let mut last_class = 0;
        for (key, sealed) in pairs.by_ref() {
            let class = key.first().copied().unwrap_or(0);
            if class != last_class {
                // what is written is looked up by what refers to it
                self.flush()?;
                last_class = class;
            }
            self.pair(&key, sealed)?;
        }
        self.end_log()?;
        for gap in std::mem::take(&mut pairs.gaps) {
            let what = format!("the keys up to {} cannot be read ({})", self.describe(&gap.to), gap.why);
            let place = format!("behind {}", self.describe(&gap.from));
            self.findings.loss(self.engine_name, place, what);
        }
        self.logs_without_pages()?;
        self.flush()?;
        for (key, value) in &self.known.companions {
            let place = self.describe(key);
            self.findings.note(
                self.engine_name,
                place,
                "it was missing or damaged, and is made anew from what it belongs to",
            );
            self.put(key.clone(), value)?;
        }
        self.flush()?;
        self.tell_nameless();
        Ok(())
    }

    fn pair(&mut self, key: &[u8], sealed: Vec<u8>) -> Result<(), StoreError> {
        let class = key.first().copied().unwrap_or(0);
        if class == class::CHUNK {
            // carried with the value it is a part of
            return Ok(());
        }
        let value = match sealed::unseal(self.engine, key, sealed) {
            Ok(value) => value,
            Err(why) if class == class::PAGE => {
                self.page_lost(key, &told(&why))?;
                return Ok(());
            }
            Err(why) => {
                let companion = self.known.companions.iter().any(|(known, _)| known == key);
                if class != class::CURSOR && !companion {
                    let place = self.describe(key);
                    self.findings.loss(self.engine_name, place, told(&why));
                }
                return Ok(());
            }
        };
        self.key_count += 1;
        match class {
            class::CURSOR | class::PAGE_FILE => Ok(()),
            class::PAGE => self.page(key, value),
            _ if self.belongs_to_nobody(key, &value)? => Ok(()),
            _ => match (self.records.fault)(key, &value) {
                None => self.put(key.to_vec(), &value),
                Some(why) => {
                    let place = self.describe(key);
                    self.findings.loss(
                        self.engine_name,
                        place,
                        format!("it verifies and cannot be read: {why}"),
                    );
                    Ok(())
                }
            },
        }
    }

    /// Whether what the value belongs to is lost; then it is counted there.
    fn belongs_to_nobody(&mut self, key: &[u8], value: &[u8]) -> Result<bool, StoreError> {
        let of = |at| u32_at(key, at);
        let mailbox = match key.first().copied().unwrap_or(0) {
            class::CELL..=class::SUSPECT | class::DEAD | class::PATTERN => of(1),
            class::SCHEDULE => (self.records.companion)(key, value).and_then(|(_, place)| u32_at(&place, 8)),
            class::SCHEDULED => {
                let due = value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                let id = key.last_chunk().copied().unwrap_or_default();
                return Ok(self.to.engine.get(&keys::schedule(due, id))?.is_none());
            }
            class::READING => {
                let view = u32_at(value, 0).unwrap_or(0);
                let shown = self
                    .known
                    .views
                    .get(&view)
                    .and_then(|record| Some(keys::reading(record.reader?, record.of)));
                if shown.as_deref() != Some(key) {
                    let reader = self.known.name(of(1).unwrap_or(0));
                    let place =
                        format!("a subscription of {reader} to {}", self.known.name(of(5).unwrap_or(0)));
                    self.findings.loss(
                        self.engine_name,
                        place,
                        "its record is lost: it begins anew when it is opened",
                    );
                    return Ok(true);
                }
                of(1)
            }
            class::VIEW => {
                let is_known = of(1).is_some_and(|id| self.known.views.contains_key(&id));
                if !is_known {
                    let what = "it cannot be read, or the name of its reader or of its topic is lost";
                    let place = self.describe(key);
                    self.findings.loss(self.engine_name, place, what);
                }
                return Ok(!is_known);
            }
            _ => return Ok(false),
        };
        let Some(mailbox) = mailbox.filter(|mailbox| !self.known.has(*mailbox)) else { return Ok(false) };
        let is_message = matches!(key.first(), Some(&class::SCHEDULE | &class::DEAD));
        let (values, messages) = self.nameless.entry(mailbox).or_default();
        *(if is_message { messages } else { values }) += 1;
        Ok(true)
    }

    fn page_lost(&mut self, key: &[u8], why: &str) -> Result<(), StoreError> {
        if let Some((log, _)) = keys::log_of_page(key) {
            // what of it waited is found out by what is missing
            self.begin_log(log)?;
        }
        let place = self.describe(key);
        self.findings.loss(self.engine_name, place, why.to_owned());
        Ok(())
    }

    fn page(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        let Some((log, first)) =
            keys::log_of_page(key).filter(|(log, _)| usize::from(log.lane) < keys::LANES)
        else {
            return self.page_lost(key, "it is no key of a page");
        };
        let stored = match Stored::of(key, &value) {
            Ok(stored) => stored,
            Err(why) => return self.page_lost(key, &told(&why)),
        };
        let (record, start) = match &stored {
            Stored::Inline => (value.clone(), page::INLINE_START),
            Stored::Link(link) => {
                let read = self.pages.map(|pages| pages.read_record(key, link));
                match read {
                    Some(Ok(record)) => (record, page::HEADER),
                    Some(Err(why)) => {
                        return self.page_lost(
                            key,
                            &format!("{}: {}", super::super::page_files::name(link.file), told(&why)),
                        );
                    }
                    None => return self.page_lost(key, "the directory of page files is missing"),
                }
            }
        };
        let Some(entries) = page::entries(&record, start) else {
            return self.page_lost(key, "it verifies and cannot be read");
        };
        self.page_count += 1;
        self.begin_log(log)?;
        if !self.known.has(log.mailbox) {
            self.nameless.entry(log.mailbox).or_default().1 += entries.len() as u64;
            return Ok(());
        }
        if !self.note_entries(log, &entries) {
            // all of it was handled
            return Ok(());
        }
        let value = match (stored, &self.to.pages) {
            (Stored::Link(_), Some(pages)) => pages.append(log, first, record)?.encode(),
            _ => value,
        };
        self.put(key.to_vec(), &value)
    }

    /// Notes which letters of a log were found; whether one of them waits.
    fn note_entries(&mut self, log: LogId, entries: &[(u64, std::ops::Range<usize>)]) -> bool {
        let limit = self.plan.first_appends.get(&log).copied().unwrap_or(u64::MAX);
        let Some(state) = &mut self.log else { return false };
        let mut waits = false;
        for (position, at) in entries {
            let position = *position;
            let last = state.found.last().map_or(0, |(_, end)| *end);
            let is_waiting = match &state.cursor {
                Some(cursor) => cursor.is_waiting(position),
                // what the journal brings again comes from there
                None => position < limit && position < u64::MAX - 1,
            };
            if !is_waiting {
                continue;
            }
            waits = true;
            // pages of a checkpoint that was interrupted overlap; what they hold is the same
            if position < last {
                continue;
            }
            state.bytes += at.len() as u64;
            match state.found.last_mut() {
                Some((_, end)) if *end == position => *end += 1,
                _ => state.found.push((position, position + 1)),
            }
        }
        waits
    }

    fn begin_log(&mut self, id: LogId) -> Result<(), StoreError> {
        if self.log.as_ref().is_some_and(|log| log.id == id) {
            return Ok(());
        }
        self.end_log()?;
        let cursor = self.known.cursors.get(&id).cloned();
        self.log = Some(Log { id, cursor, found: Vec::new(), bytes: 0 });
        Ok(())
    }

    /// Cursors of logs of which no page was found.
    fn logs_without_pages(&mut self) -> Result<(), StoreError> {
        let known = self.known;
        for id in known.cursors.keys().chain(&known.lost_cursors) {
            if self.to.engine.get(&keys::cursor(*id))?.is_none() {
                self.begin_log(*id)?;
                self.end_log()?;
            }
        }
        Ok(())
    }

    fn end_log(&mut self) -> Result<(), StoreError> {
        let Some(log) = self.log.take() else { return Ok(()) };
        self.flush()?;
        if !self.known.has(log.id.mailbox) {
            self.nameless.entry(log.id.mailbox).or_default();
            return Ok(());
        }
        if log.id.is_shown() {
            return self.end_view(log);
        }
        let (id, found, bytes) = (log.id, log.found, log.bytes);
        let Some(mut cursor) = log.cursor.or_else(|| self.cursor_anew(id, &found)) else { return Ok(()) };
        self.reach_the_journal(id, &mut cursor);
        let mut at = cursor.front;
        let ends = [(cursor.next, cursor.next)];
        for (start, end) in found.iter().chain(&ends) {
            while let Some((first, last)) = cursor.first_stretch(at, *start) {
                self.lost(id, first, last);
                if !cfg!(steadfast_bug = "keep-the-places-of-lost-letters") {
                    cursor.give_up(first, last);
                }
                at = last;
            }
            at = at.max(*end);
        }
        cursor.bytes = bytes;
        let as_of = cursor.as_of;
        self.put(keys::cursor(id), &cursor.encode(as_of))?;
        self.flush()
    }

    /// A subscription's place is all that is stored of its log.
    fn end_view(&mut self, log: Log) -> Result<(), StoreError> {
        match log.cursor {
            Some(cursor) => self.put(keys::cursor(log.id), &cursor.encode(cursor.as_of))?,
            None if self.known.lost_cursors.contains(&log.id) => {
                let what = "its place is lost: it begins with the oldest event there is, and handles again what it had handled";
                let place = self.known.name(log.id.mailbox);
                self.findings.doubt(
                    self.engine_name,
                    place,
                    what,
                    "Seek it to where it was, if that is known",
                );
            }
            None => {}
        }
        self.flush()
    }

    /// A cursor for a log whose own cannot be read: all that is in its pages waits.
    fn cursor_anew(&mut self, id: LogId, found: &[(u64, u64)]) -> Option<Cursor> {
        if found.is_empty() && !self.known.lost_cursors.contains(&id) {
            return None;
        }
        let first_append = self.plan.first_appends.get(&id).copied();
        let front = found.first().map(|(start, _)| *start).or(first_append);
        let next = first_append.or(found.last().map(|(_, end)| *end)).unwrap_or(0);
        let next = next.max(self.known.furthest_reader(id));
        let mut cursor = Cursor::default();
        (cursor.front, cursor.next) = (front.unwrap_or(next).min(next), next);
        cursor.as_of = self.plan.base;
        let mut at = cursor.front;
        for (start, end) in found {
            cursor.give_up(at, *start);
            at = *end;
        }
        cursor.give_up(at, next);
        let what =
            "how far it was read is lost: every message that its pages have waits, also what was handled";
        let place = self.place(id);
        self.findings.doubt(self.engine_name, place, what, "Expect messages to be handled again");
        Some(cursor)
    }

    /// Where the journal goes on beyond the end of a log, what was between is lost.
    fn reach_the_journal(&mut self, id: LogId, cursor: &mut Cursor) {
        let Some(first) = self.plan.first_appends.get(&id).copied() else { return };
        let begins_there = keys::is_entity(id.mailbox) && cursor.is_drained();
        if first > cursor.next && !begins_there {
            let start = std::mem::replace(&mut cursor.next, first);
            cursor.give_up(start, first);
            self.lost(id, start, first);
        }
    }

    fn lost(&mut self, id: LogId, first: u64, end: u64) {
        if !cfg!(steadfast_bug = "say-nothing-of-lost-letters") {
            let what = format!("{} messages that waited cannot be read", end - first);
            let place = format!("{}, messages {first} to {}", self.place(id), end - 1);
            self.findings.loss(self.engine_name, place, what);
            let mailbox = self.known.name(id.mailbox);
            self.findings.messages.push(LostMessages { mailbox, lane: id.lane, first, count: end - first });
        }
    }

    fn place(&self, id: LogId) -> String {
        format!("mailbox {}, lane {}", self.known.name(id.mailbox), id.lane)
    }

    fn tell_nameless(&mut self) {
        for (mailbox, (values, messages)) in std::mem::take(&mut self.nameless) {
            let what = format!("its name is lost, and with it {messages} messages and {values} values");
            self.findings.loss(self.engine_name, format!("mailbox number {mailbox}"), what);
        }
        for (id, name) in &self.known.names {
            if !self.known.recorded.contains(id) {
                let what = "its record is lost: what it holds is carried, but an actor of its name begins with nothing";
                self.findings.loss(self.engine_name, format!("mailbox {name}"), what);
            }
        }
    }

    fn put(&mut self, key: Vec<u8>, value: &[u8]) -> Result<(), StoreError> {
        self.bytes += key.len() + value.len();
        self.to.census.put(&*self.to.engine, key, value, &mut self.batch)?;
        if self.batch.len() >= BATCH_WRITES || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let mut batch = std::mem::take(&mut self.batch);
        self.to.census.record(&*self.to.engine, self.plan.base, &mut batch)?;
        Ok(self.to.engine.apply(batch)?)
    }

    /// A key in words.
    fn describe(&self, key: &[u8]) -> String {
        describe(key, self.known)
    }
}

/// A key in words.
fn describe(key: &[u8], known: &Known) -> String {
    let class = key.first().copied().unwrap_or(0);
    let whose = u32_at(key, 1).map(|id| known.name(id));
    let named = matches!(class, class::NAME | class::REGION | class::SUPERVISOR | class::META | class::NOTE);
    match (named, whose) {
        (true, _) => format!("{} {}", of_class(class), String::from_utf8_lossy(key.get(1..).unwrap_or(&[]))),
        (false, Some(whose))
            if (class::MAILBOX..=class::SUSPECT).contains(&class) || class == class::DEAD =>
        {
            match keys::log_of_page(key).filter(|_| class == class::PAGE) {
                Some((log, first)) => format!("page of {whose}, lane {}, from message {first} on", log.lane),
                None => format!("{} of {whose}", of_class(class)),
            }
        }
        _ => {
            let hex: String = key.iter().skip(1).take(32).map(|byte| format!("{byte:02x}")).collect();
            format!("{} {hex}", of_class(class))
        }
    }
}

/// What a value of a class is, in words.
pub(super) fn of_class(class: u8) -> &'static str {
    match class {
        class::META => "checkpoint",
        class::NOTE => "note",
        class::NAME => "record of mailbox",
        class::MAILBOX => "name",
        class::REGION => "region",
        class::CURSOR => "cursor",
        class::PAGE => "page",
        class::PAGE_FILE => "account of a page file",
        class::CELL => "cell",
        class::ATTEMPTS => "attempts",
        class::MARK => "dedup mark",
        class::MARK_AGE => "age of a dedup mark",
        class::MAP => "map entry",
        class::LIST => "list entry",
        class::SUSPECT => "suspicion",
        class::SUPERVISOR => "supervisor",
        class::SCHEDULE => "scheduled message",
        class::SCHEDULED => "place on the schedule",
        class::DEAD => "dead letter",
        class::SCHEMA => "schema",
        class::VIEW => "subscription",
        class::READING => "reader of a topic",
        class::PATTERN => "pattern of topics",
        class::CHUNK => "part of a large value",
        _ => "value",
    }
}
