//! Counts what is in a store whose journal was replayed into memory.

use std::collections::BTreeMap;

use super::super::admission::Admission;
use super::super::cursor::Cursor;
use super::super::engine::Engine;
use super::super::fault::StoreError;
use super::super::group::u32_at;
use super::super::keys::{self, LogId, MailboxId, class};
use super::super::{sealed, view};
use super::Records;
use super::known::Known;
use super::pairs::Pairs;
use super::report::{Contents, MailboxContents, SubscriptionContents, TopicContents};

pub(super) fn contents(
    engine: &dyn Engine,
    admission: &Admission,
    known: &Known,
    records: &Records,
) -> Result<Contents, StoreError> {
    let cursors = cursors(engine, admission);
    let mut mailboxes: BTreeMap<MailboxId, MailboxContents> = BTreeMap::new();
    for (log, cursor) in &cursors {
        if known.views.contains_key(&log.mailbox) || is_topic(log.mailbox, known, records) {
            continue;
        }
        let contents = of(&mut mailboxes, log.mailbox, known);
        contents.waiting += cursor.waiting();
        contents.bytes += cursor.bytes;
    }
    let mut dead_letters = 0;
    each_key(engine, admission, class::DEAD, |key| {
        dead_letters += 1;
        if let Some(id) = u32_at(key, 1) {
            of(&mut mailboxes, id, known).dead_letters += 1;
        }
    });
    let many = |class| {
        let mut many = 0;
        each_key(engine, admission, class, |_| many += 1);
        many
    };
    let is_mailbox = |name: &&String| (records.topic)(name).is_none();
    Ok(Contents {
        known_mailboxes: known.names.values().filter(is_mailbox).count() as u64,
        mailboxes: mailboxes.into_values().filter(|of| of.waiting > 0 || of.dead_letters > 0).collect(),
        topics: topics(&cursors, known, records),
        dead_letters,
        scheduled: many(class::SCHEDULE),
        cells: many(class::CELL) + many(class::MAP) + many(class::LIST),
        marks: many(class::MARK),
    })
}

fn is_topic(mailbox: MailboxId, known: &Known, records: &Records) -> bool {
    known.names.get(&mailbox).is_some_and(|name| (records.topic)(name).is_some())
}

fn of<'a>(
    mailboxes: &'a mut BTreeMap<MailboxId, MailboxContents>,
    id: MailboxId,
    known: &Known,
) -> &'a mut MailboxContents {
    let name = || match known.recorded.contains(&id) {
        true => known.name(id),
        false => format!("{} (its record is lost)", known.name(id)),
    };
    let empty = || MailboxContents { name: name(), waiting: 0, bytes: 0, dead_letters: 0 };
    mailboxes.entry(id).or_insert_with(empty)
}

/// Every log's cursor, as it is with the journal.
fn cursors(engine: &dyn Engine, admission: &Admission) -> BTreeMap<LogId, Cursor> {
    let mut cursors = BTreeMap::new();
    for (key, value) in Pairs::between(engine, &[class::CURSOR], &[class::CURSOR + 1]) {
        let cursor = sealed::unseal(engine, &key, value).ok().and_then(|value| Cursor::decode(&value));
        if let Some((log, cursor)) = keys::log_of_cursor(&key).zip(cursor) {
            cursors.insert(log, cursor);
        }
    }
    for (mailbox, state) in &admission.mailboxes {
        for (cursor, lane) in state.lanes.iter().zip(0..) {
            cursors.insert(LogId { mailbox: *mailbox, lane }, cursor.clone());
        }
    }
    cursors
}

fn topics(cursors: &BTreeMap<LogId, Cursor>, known: &Known, records: &Records) -> Vec<TopicContents> {
    let mut topics = Vec::new();
    for (id, name) in &known.names {
        let Some(topic) = (records.topic)(name) else { continue };
        let log = LogId { mailbox: *id, lane: view::LANE };
        let cursor = cursors.get(&log).cloned().unwrap_or_default();
        let readers = known.views.iter().filter(|(_, record)| record.of == log);
        let subscription = |(id, record): (&MailboxId, &view::ViewRecord)| {
            let mut place =
                cursors.get(&LogId { mailbox: *id, lane: view::LANE }).cloned().unwrap_or_default();
            place.next = cursor.next;
            Some(SubscriptionContents {
                reader: known.name(record.reader?),
                front: place.front,
                waiting: if place.front > place.next { 0 } else { place.waiting_in_both(&cursor) },
                paused: record.paused,
            })
        };
        topics.push(TopicContents {
            name: topic.to_owned(),
            events: cursor.waiting(),
            bytes: cursor.bytes,
            next: cursor.next,
            subscriptions: readers.filter_map(subscription).collect(),
        });
    }
    topics
}

/// The keys of a class, as they are with the journal.
fn each_key(engine: &dyn Engine, admission: &Admission, class: u8, mut each: impl FnMut(&[u8])) {
    let (from, to) = ([class], [class + 1]);
    let changed = &admission.active.cells;
    for (key, _) in Pairs::between(engine, &from, &to) {
        if !changed.contains_key(&key) {
            each(&key);
        }
    }
    for (key, value) in changed.range(from.to_vec()..to.to_vec()) {
        if value.is_some() {
            each(key);
        }
    }
}
