//! Dedup marks: that a message with this dedup id was accepted, and what became of it. Kept for a window of time and up to
//! a number per mailbox; beside each mark lies one by age, so that old ones are found.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ledger::Ledger;
use crate::clock::Timestamp;
use crate::codec;
use crate::envelope::MessageId;
use crate::error::Refused;
use crate::store::{Batch, Condition, MailboxId, StoreError, keys};

/// How long a dedup id is remembered.
pub(crate) const WINDOW: Duration = Duration::from_secs(24 * 3600);
/// How many are remembered for one mailbox.
pub(crate) const MOST: usize = 1_000_000;

/// What is stored of one dedup id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) id: MessageId,
    /// Hash of the message's name and encoded body.
    pub(crate) payload: [u8; 16],
    pub(crate) at: Timestamp,
    pub(crate) outcome: Outcome,
}

/// What became of the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It waits, or nobody wanted its reply kept.
    Pending,
    /// Its reply, encoded.
    Replied(Vec<u8>),
    /// It is in the dead letters.
    Dead(String),
    /// It is an event of a topic, with this sequence number, big-endian.
    Published([u8; 8]),
}

impl Outcome {
    /// The sequence number of an event.
    pub(crate) fn sequence(&self) -> Option<u64> {
        match self {
            Outcome::Published(sequence) => Some(u64::from_be_bytes(*sequence)),
            _ => None,
        }
    }
}

/// The key under which a dedup id is remembered.
pub(crate) fn hash(dedup_id: &str) -> [u8; 16] {
    const NAMESPACE: Uuid = Uuid::from_bytes(*b"steadfast-dedup0");
    Uuid::new_v5(&NAMESPACE, dedup_id.as_bytes()).into_bytes()
}

/// Tells two payloads apart.
pub(crate) fn payload_hash(name: &str, body: &[u8]) -> [u8; 16] {
    const NAMESPACE: Uuid = Uuid::from_bytes(*b"steadfast-paylod");
    let mut bytes = Vec::with_capacity(name.len() + 1 + body.len());
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(body);
    Uuid::new_v5(&NAMESPACE, &bytes).into_bytes()
}

impl Mark {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        codec::decode(bytes)
            .map_err(|error| StoreError::value(format!("a dedup mark cannot be read: {error}")))
    }

    /// Itself, for a duplicate with the same payload; an error for another.
    pub(crate) fn answers(self, dedup_id: &str, payload: [u8; 16]) -> Result<Self, Refused> {
        match self.payload == payload {
            true => Ok(self),
            false => Err(Refused::DedupConflict { dedup_id: dedup_id.into(), first: self.id }),
        }
    }

    /// Whether the window has passed.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.at) > WINDOW
    }

    /// Adds the writes that remember it.
    pub(crate) fn put(
        &self,
        mailbox: MailboxId,
        hash: [u8; 16],
        batch: &mut Batch,
    ) -> Result<(), codec::EncodeError> {
        batch.put(keys::mark(mailbox, hash), |out| codec::encode_into(self, out))?;
        batch.put_bytes(keys::mark_age(mailbox, self.at.as_millis(), hash), &[]);
        Ok(())
    }

    /// As [`Mark::put`], for the event that was added to the batch last: the mark remembers its sequence number.
    pub(crate) fn put_published(
        self,
        topic: MailboxId,
        hash: [u8; 16],
        batch: &mut Batch,
    ) -> Result<(), codec::EncodeError> {
        let sequence = [0; 8];
        let mark = Mark { outcome: Outcome::Published(sequence), ..self };
        batch.put_placed(keys::mark(topic, hash), |out| {
            codec::encode_into(&mark, out)?;
            // it stands last; the true one comes in its place
            out.truncate(out.len() - sequence.len());
            Ok::<_, codec::EncodeError>(())
        })?;
        batch.put_bytes(keys::mark_age(topic, mark.at.as_millis(), hash), &[]);
        Ok(())
    }

    /// Adds the writes that forget it.
    pub(crate) fn delete(&self, mailbox: MailboxId, hash: [u8; 16], batch: &mut Batch) {
        batch.delete(keys::mark(mailbox, hash));
        batch.delete(keys::mark_age(mailbox, self.at.as_millis(), hash));
    }
}

/// A mark found by its age.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aged {
    pub(crate) mailbox: MailboxId,
    pub(crate) at: Timestamp,
    pub(crate) hash: [u8; 16],
}

impl Aged {
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        let mailbox = u32::from_be_bytes(*key.get(1..)?.first_chunk()?);
        let at = Timestamp::from_millis(u64::from_be_bytes(*key.get(5..)?.first_chunk()?));
        Some(Aged { mailbox, at, hash: *key.get(13..)?.first_chunk()? })
    }

    /// Adds the writes that forget it.
    pub(crate) fn delete(&self, batch: &mut Batch) {
        batch.delete(keys::mark(self.mailbox, self.hash));
        batch.delete(keys::mark_age(self.mailbox, self.at.as_millis(), self.hash));
    }
}

impl Ledger {
    pub(crate) async fn mark(&self, mailbox: MailboxId, hash: [u8; 16]) -> Result<Option<Mark>, StoreError> {
        self.get(keys::mark(mailbox, hash)).await?.map(|bytes| Mark::decode(&bytes)).transpose()
    }

    /// Looks a dedup id up: the mark of an earlier message with the same id and payload, if its window has not passed. If there is
    /// none, adds to the batch what keeps it so until the batch is admitted; the mark of its own message is for the caller to put.
    pub(crate) async fn earlier(
        &self,
        mailbox: MailboxId,
        dedup_id: &str,
        payload: [u8; 16],
        batch: &mut Batch,
    ) -> Result<Option<Mark>, Refused> {
        let hash = hash(dedup_id);
        let key = keys::mark(mailbox, hash);
        let (stored, seen) = self.get_seen(key.clone()).await?;
        match stored.map(|bytes| Mark::decode(&bytes)).transpose()? {
            _ if cfg!(steadfast_bug = "accept_duplicates") => {}
            Some(first) if !first.is_over(self.clock().now()) => {
                return first.answers(dedup_id, payload).map(Some);
            }
            Some(old) => {
                batch.require(Condition::Present { key, seen: Some(seen) });
                old.delete(mailbox, hash, batch);
            }
            None => batch.require(Condition::Absent { key, seen: Some(seen) }),
        }
        Ok(None)
    }

    /// Marks in order of mailbox and age, from a key on; and the key to go on from.
    pub(crate) async fn aged_marks(
        &self,
        from: Option<Vec<u8>>,
        limit: usize,
    ) -> Result<(Vec<Aged>, Option<Vec<u8>>), StoreError> {
        let first = vec![keys::class::MARK_AGE];
        let to = keys::after_prefix(&first);
        let pairs = self.scan(from.unwrap_or(first), to, limit).await?;
        let next =
            pairs.last().filter(|_| pairs.len() == limit).map(|(key, _)| [key.as_slice(), &[0]].concat());
        Ok((pairs.iter().filter_map(|(key, _)| Aged::of(key)).collect(), next))
    }
}
