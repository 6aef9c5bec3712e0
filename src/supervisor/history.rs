//! What a supervisor remembers of its children's failures, also over restarts of the process: those that count, each with
//! the message it was about, and how long each child has to wait.
//!
//! # Invariants
//! - A message counts once within the window, however often it fails: its retries are bounded by its own policy.
//! - At most one more than the limit's `max` is kept.
//! - It is on disk before what it led to is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limit::RestartLimit;
use crate::clock::Timestamp;
use crate::codec;
use crate::durable::{CommitRefused, Ledger};
use crate::envelope::MessageId;
use crate::error::Refused;
use crate::store::{Admitted, Batch, Origin, StoreError, Urgency, keys};

/// The longest text kept of a failure, in bytes; the message's own record has all of it.
const LONGEST: usize = 256;

/// A failure that counted against a supervisor's limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CountedFailure {
    /// When.
    pub at: Timestamp,
    /// The child.
    pub child: String,
    /// The message that was being handled; none for a failure without one, as of a factory.
    pub message: Option<MessageId>,
    /// What went wrong; at most 256 bytes of it.
    pub why: String,
}

impl CountedFailure {
    pub(super) fn new(at: Timestamp, child: &str, message: Option<MessageId>, why: &str) -> Self {
        let mut end = why.len().min(LONGEST);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        CountedFailure { at, child: child.into(), message, why: why[..end].into() }
    }
}

/// Where a child stands in its row of restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Restarts since it last ran long enough.
    pub(super) restarts: u32,
    pub(super) last_failure: Timestamp,
    /// It is not started before this time.
    pub(super) not_before: Timestamp,
}

/// See the module's head.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    /// Oldest first.
    failures: Vec<CountedFailure>,
    rows: BTreeMap<String, Row>,
    /// Since it was last written.
    #[serde(skip)]
    is_changed: bool,
}

impl History {
    /// Counts a failure, if `once` only when its message was not counted before, and says how many are in the window now.
    pub(super) fn count(
        &mut self,
        failure: CountedFailure,
        once: bool,
        limit: RestartLimit,
        now: Timestamp,
    ) -> usize {
        self.slide(limit, now);
        let known = self.failures.iter().any(|one| one.message == failure.message);
        if !(once && known) || cfg!(steadfast_bug = "count-a-message-twice") {
            self.failures.push(failure);
            self.is_changed = true;
        }
        let most = limit.max() as usize + 1;
        let excess = self.failures.len().saturating_sub(most);
        self.failures.drain(..excess);
        self.failures.len()
    }

    /// Forgets what is out of the window. After the clock was set back, what seems to come from the future is as old as that.
    pub(super) fn slide(&mut self, limit: RestartLimit, now: Timestamp) {
        for failure in &mut self.failures {
            failure.at = failure.at.min(now);
        }
        if !cfg!(steadfast_bug = "window-never-slides") {
            self.failures.retain(|failure| now.since(failure.at) <= limit.within());
        }
    }

    pub(super) fn failures(&self) -> &[CountedFailure] {
        &self.failures
    }

    pub(super) fn row(&self, child: &str) -> Row {
        self.rows.get(child).copied().unwrap_or_default()
    }

    pub(super) fn set_row(&mut self, child: &str, row: Row) {
        self.rows.insert(child.to_owned(), row);
        self.is_changed = true;
    }

    pub(super) fn forget_row(&mut self, child: &str) {
        self.is_changed |= self.rows.remove(child).is_some();
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = History { is_changed: true, ..History::default() };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.failures.is_empty() && self.rows.is_empty()
    }
}

/// The record is refused, or comes back as it is and stays within its limit.
#[cfg(any(test, fuzzing))]
pub(crate) fn survives(bytes: &[u8]) {
    let Some(mut history) = codec::comes_back::<History>(bytes) else { return };
    let now = Timestamp::from_millis(u64::MAX);
    let limit = RestartLimit::default();
    assert!(
        history.count(CountedFailure::new(now, "child", None, "why"), true, limit, now)
            <= limit.max() as usize + 1
    );
}

/// The place on disk of one supervisor's history.
#[derive(Debug, Clone)]
pub(super) struct Record {
    key: Vec<u8>,
    path: Arc<str>,
}

impl Record {
    pub(super) fn new(path: &Arc<str>) -> Self {
        Record { key: keys::supervisor(path), path: path.clone() }
    }

    pub(super) async fn read(&self, ledger: &Ledger) -> Result<History, StoreError> {
        if cfg!(steadfast_bug = "limit-forgotten-at-restart") {
            return Ok(History::default());
        }
        let Some(stored) = ledger.get(self.key.clone()).await? else { return Ok(History::default()) };
        let unreadable =
            |why| StoreError::value(format!("the history of supervisor {} cannot be read: {why}", self.path));
        codec::decode(&stored).map_err(unreadable)
    }

    /// Writes what has changed. `Ok` means that it is on disk, synced.
    pub(super) async fn write(&self, history: &mut History, ledger: &Ledger) -> Result<(), Refused> {
        if !history.is_changed {
            return Ok(());
        }
        let admitted = self.commit(history, ledger).await?;
        history.is_changed = false;
        if cfg!(steadfast_bug = "restart-before-durable") {
            return Ok(());
        }
        ledger.durable(&admitted).await.map_err(Refused::Store)
    }

    async fn commit(&self, history: &History, ledger: &Ledger) -> Result<Admitted, Refused> {
        let mut batch = Batch::default();
        if history.is_empty() {
            batch.delete(self.key.clone());
        } else {
            batch.put(self.key.clone(), |out| codec::encode_into(history, out))?;
        }
        match ledger.commit(&mut batch, Origin::Inside, Urgency::Now).await {
            Ok(admitted) => Ok(admitted),
            Err(CommitRefused::Refused(why)) => Err(why),
            // the batch has no conditions and appends to no mailbox
            Err(_) => Err(Refused::Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_history_is_refused_or_counted_on() {
        let at = Timestamp::from_millis(u64::MAX);
        let failures = vec![CountedFailure::new(at, "child", Some(MessageId::from_bytes([1; 16])), "why")];
        let mut history = History { failures, ..History::default() };
        history.set_row("child", Row { restarts: u32::MAX, last_failure: at, not_before: at });
        let mut bytes = Vec::new();
        codec::encode_into(&history, &mut bytes).expect("can be encoded");
        crate::hostile::survives(&[bytes], survives);
    }
}
