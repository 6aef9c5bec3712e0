//! Keeping the last event of each key: what a later event of the same key superseded is settled in the topic's own log, and with
//! it, after their time, tombstones that are the last of their key.
//!
//! A pass reads the log once, from its oldest event to what was the newest when it began, and takes what it finds superseded on
//! the way, some hundreds at once. It holds a hash of 16 bytes, a position and a length for each key: 50 MB for a million keys. It
//! runs when what was published since the last one is more than half of what the topic holds, so that an event is read a
//! few times in all, however often its key is written.
//!
//! # Invariants
//! - An event goes only when a later one of its key is in the log before it, or when it is a tombstone, the last of its key, and
//!   older than its time. One without a key, and one that cannot be read, never does.
//! - The newest event of the log stays.
//! - A pass that ends anywhere leaves a log in which the last of each key is; the next one takes what is left.

use std::collections::HashMap;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::durable::{CommitRefused, Ledger};
use crate::envelope::{self, ORDER_KEY, TOMBSTONE};
use crate::error::Refused;
use crate::store::{Batch, Letter, LogId, Origin, Progress, StoreError, Urgency};

/// What is known of one topic between the passes, and the pass that runs.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// Up to here the last pass came.
    clean: u64,
    /// When the last pass ended.
    ended: Timestamp,
    /// When the first of the tombstones that the last pass left is due.
    due: Option<Timestamp>,
    pass: Option<Pass>,
}

/// An event that may be superseded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    position: u64,
    len: u32,
    /// When it was published, if it is a tombstone.
    buried: Option<Timestamp>,
}

/// One reading of the log.
#[derive(Debug)]
struct Pass {
    /// The next position to read, and the first that is not read.
    at: u64,
    end: u64,
    /// The namespace of the hashes: nobody can choose keys that have the same.
    salt: Uuid,
    lasts: HashMap<[u8; 16], Last>,
}

impl Compaction {
    /// Whether a pass is to run. `waiting` are the events that the topic holds, `time` is that of tombstones.
    fn is_wanted(&self, first: u64, next: u64, waiting: u64, now: Timestamp, time: Duration) -> bool {
        let published = next.saturating_sub(self.clean.max(first));
        let rest = now.since(self.ended);
        let is_dirty = published * 2 > waiting;
        // among what was published there may be tombstones that nobody knows of
        let is_old = published > 0 && rest >= time;
        // a reading for tombstones alone is not for every single one
        let is_due = self.due.is_some_and(|due| now >= due && rest >= time / 10);
        waiting > 1 && (is_dirty || is_old || is_due)
    }

    /// Does the next piece of work; false when there is none.
    pub(super) async fn step(
        &mut self,
        ledger: &Ledger,
        topic: LogId,
        time: Duration,
    ) -> Result<bool, StoreError> {
        let now = ledger.clock().now();
        let Progress { first, next, waiting, .. } = ledger.progress(topic).await?;
        let Some(mut pass) = self.pass.take() else {
            let wanted = self.is_wanted(first, next, waiting, now, time);
            self.pass = wanted.then(|| Pass::new(first, next, ledger.clock().id()));
            return Ok(wanted);
        };
        if pass.at < pass.end {
            let superseded = pass.read(ledger, topic).await?;
            // what could not be taken now is found by the next pass
            let taken = take(ledger, topic, &superseded).await?;
            self.pass = taken.then_some(pass);
            return Ok(taken);
        }
        let (over, due) = pass.tombstones(next, now, time);
        let taken = take(ledger, topic, &over).await?;
        if taken {
            *self = Compaction { clean: pass.end, ended: now, due, pass: None };
        }
        Ok(taken)
    }
}

impl Pass {
    fn new(at: u64, end: u64, salt: Uuid) -> Self {
        Pass { at, end, salt, lasts: HashMap::new() }
    }

    /// Reads some hundreds of events, and says which of those read so far are superseded by them.
    async fn read(&mut self, ledger: &Ledger, topic: LogId) -> Result<Vec<Last>, StoreError> {
        const AT_ONCE: usize = 512;
        const BYTES_AT_ONCE: usize = 1 << 20;
        let letters = ledger.letters(topic, self.at, AT_ONCE, BYTES_AT_ONCE).await?;
        let superseded = letters.iter().filter_map(|letter| self.note(letter)).collect();
        self.at = letters.last().map_or(self.end, |last| last.position + 1);
        Ok(superseded)
    }

    /// Takes note of an event, and gives the one before it of its key.
    fn note(&mut self, letter: &Letter) -> Option<Last> {
        let opened = envelope::open(&letter.envelope).ok()?;
        let header =
            |name: &str| opened.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let key = match header(ORDER_KEY) {
            Some(key) => key,
            None if cfg!(steadfast_bug = "take_events_without_a_key") => "",
            None => return None,
        };
        let hash = Uuid::new_v5(&self.salt, key.as_bytes()).into_bytes();
        let buried = header(TOMBSTONE).map(|_| opened.sent_at);
        let last = Last { position: letter.position, len: letter.envelope.len() as u32, buried };
        let before = self.lasts.insert(hash, last);
        if cfg!(steadfast_bug = "keep_the_first_of_each_key") && before.is_some() {
            before.map(|before| self.lasts.insert(hash, before));
            return Some(last);
        }
        before
    }

    /// The tombstones whose time is over, and when the first of the others is due.
    fn tombstones(&self, next: u64, now: Timestamp, time: Duration) -> (Vec<Last>, Option<Timestamp>) {
        let (mut over, mut due) = (Vec::new(), None::<Timestamp>);
        for last in self.lasts.values() {
            let Some(at) = last.buried.map(|buried| buried.after(time)) else { continue };
            let is_newest = last.position + 1 == next && !cfg!(steadfast_bug = "take_the_newest_event");
            let is_over = now >= at || cfg!(steadfast_bug = "take_tombstones_at_once");
            match is_over {
                true if is_newest => {}
                true => over.push(*last),
                false => due = Some(due.map_or(at, |due| due.min(at))),
            }
        }
        (over, due)
    }
}

/// Settles events in their topic's log. False when that is not possible just now.
async fn take(ledger: &Ledger, topic: LogId, events: &[Last]) -> Result<bool, StoreError> {
    const AT_ONCE: usize = 512;
    for some in events.chunks(AT_ONCE) {
        let mut batch = Batch::default();
        some.iter().for_each(|event| batch.supersede(topic, event.position, event.len));
        match ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
            Ok(_) => {}
            Err(CommitRefused::Refused(Refused::Store(why))) => return Err(why),
            Err(_) => return Ok(false),
        }
        tokio::task::yield_now().await;
    }
    Ok(true)
}
