//! What the records of this shelf say when nobody runs: whether each can be read by its owner, and what must lie beside it.

use serde::de::DeserializeOwned;

use super::mailboxes::{MailboxRecord, RegionRecord};
use super::marks::{Aged, Mark};
use super::suspects::Suspicion;
use super::{Attempts, Scheduled, dead_letter, names, patterns, schedule};
use crate::clock::Timestamp;
use crate::codec;
use crate::store::keys::{self, class};
use crate::store::salvage::Records;

/// The records of this shelf, for whoever looks into a store.
pub(crate) const RECORDS: Records = Records { fault, companion, topic };

/// Why the owner of a value cannot read it.
fn fault(key: &[u8], value: &[u8]) -> Option<String> {
    match key.first().copied()? {
        class::NOTE => unreadable::<Vec<Timestamp>>(value),
        class::NAME => unreadable::<MailboxRecord>(value),
        class::REGION => unreadable::<RegionRecord>(value),
        class::ATTEMPTS => unreadable::<Attempts>(value),
        class::MARK => unreadable::<Mark>(value),
        class::MARK_AGE => Aged::of(key).is_none().then(|| "its key is too short".into()),
        class::SUSPECT => unreadable::<Suspicion>(value),
        class::SCHEDULE => schedule::read(key, value).err().map(|error| error.to_string()),
        class::DEAD => dead_letter::read(key, value).err().map(|error| error.to_string()),
        class::SCHEMA => unreadable::<u32>(value),
        class::PATTERN => patterns::read_key(key).is_none().then(|| "its key is no pattern".into()),
        _ => None,
    }
}

fn unreadable<T: DeserializeOwned>(value: &[u8]) -> Option<String> {
    codec::decode::<T>(value).err().map(|error| error.to_string())
}

/// The pair that follows from another one and must lie beside it.
fn companion(key: &[u8], value: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    match key.first().copied()? {
        class::NAME => {
            let record: MailboxRecord = codec::decode(value).ok()?;
            Some((keys::mailbox(record.id), key.get(1..)?.to_vec()))
        }
        class::SCHEDULE => {
            let entry = schedule::read(key, value).ok()?;
            let Scheduled { target, .. } = entry.scheduled;
            let place = [&entry.due.as_millis().to_be_bytes()[..], &target.mailbox.to_be_bytes()].concat();
            Some((keys::scheduled(*entry.id.as_bytes()), place))
        }
        _ => None,
    }
}

fn topic(name: &str) -> Option<&str> {
    name.strip_prefix(names::TOPIC_MARK)
}
