//! Messages that are not due yet. A scheduled message is no mail: it takes its place in the mailbox when it is due, in the
//! commit that takes it off the schedule. So does an event in its topic: it is published then.

use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::clock::Timestamp;
use crate::codec;
use crate::envelope::{self, MessageId};
use crate::store::{Batch, Condition, LogId, StoreError, keys};

/// One entry of the schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scheduled {
    /// Its mailbox and priority.
    pub(crate) target: LogId,
    pub(crate) envelope: Vec<u8>,
    /// Whether it is an event, which is published when it takes its place and not when it was put here.
    pub(crate) is_event: bool,
}

/// An entry with its place.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) due: Timestamp,
    pub(crate) id: MessageId,
    pub(crate) scheduled: Scheduled,
}

impl Scheduled {
    /// Adds the writes that put it on the schedule.
    pub(crate) fn put(
        &self,
        due: Timestamp,
        id: MessageId,
        batch: &mut Batch,
    ) -> Result<(), codec::EncodeError> {
        batch.put(keys::schedule(due.as_millis(), *id.as_bytes()), |out| codec::encode_into(self, out))?;
        let mut place = due.as_millis().to_be_bytes().to_vec();
        place.extend_from_slice(&self.target.mailbox.to_be_bytes());
        batch.put_bytes(keys::scheduled(*id.as_bytes()), &place);
        Ok(())
    }
}

impl Entry {
    /// Adds the writes that take it off the schedule, if it is still on it.
    pub(crate) fn take_off(&self, batch: &mut Batch) {
        let key = keys::schedule(self.due.as_millis(), *self.id.as_bytes());
        if !cfg!(steadfast_bug = "fire_a_cancelled_timer") {
            batch.require(Condition::Present { key: key.clone(), seen: None });
        }
        batch.delete(key);
        batch.delete(keys::scheduled(*self.id.as_bytes()));
    }

    /// Adds the writes that make it mail, or an event published `now`.
    pub(crate) fn fire(&self, now: Timestamp, batch: &mut Batch) {
        self.take_off(batch);
        let _ = batch.append(self.scheduled.target, |out| {
            let start = out.len();
            out.extend_from_slice(&self.scheduled.envelope);
            // events lie in order of the times at which they were published: retention and readers count on it
            if self.scheduled.is_event && !cfg!(steadfast_bug = "date_delayed_events_back") {
                envelope::date(&mut out[start..], now);
            }
            Ok::<_, std::convert::Infallible>(())
        });
    }
}

impl Ledger {
    /// The first entries of the schedule, due or not.
    pub(crate) async fn first_scheduled(&self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let from = vec![keys::class::SCHEDULE];
        let pairs = self.scan(from.clone(), keys::after_prefix(&from), limit).await?;
        pairs.iter().map(|(key, value)| read(key, value)).collect()
    }

    /// When a scheduled message is due, if it is on the schedule.
    pub(crate) async fn scheduled(&self, id: MessageId) -> Result<Option<Entry>, StoreError> {
        let Some(place) = self.get(keys::scheduled(*id.as_bytes())).await? else { return Ok(None) };
        let due = place.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let key = keys::schedule(due, *id.as_bytes());
        let value = self.get(key.clone()).await?;
        value.map(|value| read(&key, &value)).transpose()
    }
}

pub(super) fn read(key: &[u8], value: &[u8]) -> Result<Entry, StoreError> {
    let damaged = |what: String| StoreError::value(what);
    let due = key.get(1..9).and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from_be_bytes(*bytes));
    let id = key.last_chunk().copied().map(MessageId::from_bytes);
    let (Some(due), Some(id)) = (due, id) else {
        return Err(damaged("a key of the schedule is too short".into()));
    };
    let scheduled =
        codec::decode(value).map_err(|error| damaged(format!("scheduled message {id}: {error}")))?;
    Ok(Entry { due: Timestamp::from_millis(due), id, scheduled })
}
