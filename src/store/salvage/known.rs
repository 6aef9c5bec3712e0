//! Who is in a store: names, views and cursors, read before everything that hangs on them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::cursor::Cursor;
use super::super::engine::{Engine, Pair};
use super::super::group::u32_at;
use super::super::keys::{self, LogId, MailboxId, class};
use super::super::sealed;
use super::super::view::{self, ViewRecord};
use super::Records;
use super::pairs::Pairs;

/// See the module's head.
#[derive(Default)]
pub(super) struct Known {
    pub(super) names: BTreeMap<MailboxId, String>,
    /// Mailboxes whose record is there: an actor of their name finds them.
    pub(super) recorded: BTreeSet<MailboxId>,
    pub(super) views: BTreeMap<MailboxId, ViewRecord>,
    pub(super) cursors: BTreeMap<LogId, Cursor>,
    /// Logs with a cursor that cannot be read.
    pub(super) lost_cursors: BTreeSet<LogId>,
    /// Pairs that others stand for and that are missing.
    pub(super) companions: Vec<Pair>,
}

impl Known {
    pub(super) fn read(engine: &dyn Engine, records: &Records) -> Self {
        let mut known = Known::default();
        for (key, value) in values(engine, class::NAME) {
            let Some((companion, name)) = value.and_then(|value| (records.companion)(&key, &value)) else {
                continue;
            };
            if let Some(id) = u32_at(&companion, 1) {
                known.names.insert(id, String::from_utf8_lossy(&name).into_owned());
                known.recorded.insert(id);
                known.must_have(engine, companion, name);
            }
        }
        for (key, value) in values(engine, class::MAILBOX) {
            if let Some((id, name)) = u32_at(&key, 1).zip(value) {
                known.names.entry(id).or_insert_with(|| String::from_utf8_lossy(&name).into_owned());
            }
        }
        for (key, value) in values(engine, class::SCHEDULE) {
            if let Some((companion, place)) = value.and_then(|value| (records.companion)(&key, &value)) {
                known.must_have(engine, companion, place);
            }
        }
        for (key, value) in values(engine, class::VIEW) {
            known.view(engine, &key, value.as_deref());
        }
        let Known { names, views, companions, .. } = &mut known;
        views.retain(|_, record| {
            let is_known = names.contains_key(&record.of.mailbox)
                && record.reader.is_none_or(|reader| names.contains_key(&reader));
            if let Some(reader) = record.reader.filter(|_| !is_known) {
                companions.retain(|(key, _)| *key != keys::reading(reader, record.of));
            }
            is_known
        });
        for (key, value) in values(engine, class::CURSOR) {
            let Some(log) = keys::log_of_cursor(&key).filter(|log| usize::from(log.lane) < keys::LANES)
            else {
                continue;
            };
            match value.and_then(|value| Cursor::decode(&value)) {
                Some(cursor) => drop(known.cursors.insert(log, cursor)),
                None => drop(known.lost_cursors.insert(log)),
            }
        }
        known
    }

    fn view(&mut self, engine: &dyn Engine, key: &[u8], value: Option<&[u8]>) {
        let id = u32_at(key, 1).filter(|id| keys::is_view(*id));
        let record = value.and_then(|value| ViewRecord::decode(key, value).ok());
        let Some((id, record)) = id.zip(record) else { return };
        self.views.insert(id, record);
        if let Some(reader) = record.reader {
            self.must_have(engine, keys::reading(reader, record.of), id.to_be_bytes().to_vec());
        }
    }

    fn must_have(&mut self, engine: &dyn Engine, key: Vec<u8>, value: Vec<u8>) {
        let stored = engine.get(&key).ok().flatten();
        let is_there = stored
            .is_some_and(|sealed| sealed::unseal(engine, &key, sealed).is_ok_and(|stored| stored == value));
        if !is_there {
            self.companions.push((key, value));
        }
    }

    /// Whether a mailbox is known: one that is not has lost its name, and its number may be given again.
    pub(super) fn has(&self, mailbox: MailboxId) -> bool {
        self.names.contains_key(&mailbox) || self.views.contains_key(&mailbox)
    }

    pub(super) fn name(&self, mailbox: MailboxId) -> String {
        match (self.names.get(&mailbox), self.views.get(&mailbox)) {
            (Some(name), _) => name.clone(),
            (None, Some(record)) => {
                let reader = record.reader.map_or_else(|| "nobody".into(), |reader| self.name(reader));
                format!("subscription of {reader} to {}", self.name(record.of.mailbox))
            }
            (None, None) => format!("number {mailbox}"),
        }
    }

    /// The furthest place that a reader of a log has come to.
    pub(super) fn furthest_reader(&self, log: LogId) -> u64 {
        let of_log = self.views.iter().filter(|(_, record)| record.of == log && record.reader.is_some());
        let front = |(id, _): (&MailboxId, &ViewRecord)| {
            self.cursors.get(&LogId { mailbox: *id, lane: view::LANE }).map_or(0, |cursor| cursor.front)
        };
        of_log.map(front).max().unwrap_or(0)
    }
}

/// Keys of a class, with their values where they can be read.
fn values(engine: &dyn Engine, class: u8) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
    Pairs::between(engine, &[class], &[class + 1]).map(move |(key, sealed)| {
        let value = sealed::unseal(engine, &key, sealed).ok();
        (key, value)
    })
}
