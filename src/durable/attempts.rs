//! What is known of a message's failed attempts. Written in the commit of each failure, deleted in the commit that settles
//! the message, so that neither survives the other.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::codec;
use crate::envelope::MessageId;
use crate::policy::{Decision, FailureClass};
use crate::store::{Batch, MailboxId, Store, StoreError, keys};

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it failed.
    pub at: Timestamp,
    /// What kind of failure it was.
    pub class: FailureClass,
    /// The error with its sources, or the panic's message.
    pub error: String,
    /// What was decided about the message and its actor.
    pub decision: Decision,
    /// The trace it ran in: the `traceparent` header of the message, if it had one.
    pub trace: Option<String>,
}

/// A message's failed attempts so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// How many there were.
    pub count: u32,
    /// The last of them, at most 50, oldest first.
    pub last: Vec<Attempt>,
    /// Not tried again before this time.
    pub not_before: Timestamp,
}

const KEPT: usize = 50;

impl Attempts {
    pub(crate) fn add(&mut self, attempt: Attempt) {
        self.count = self.count.saturating_add(1);
        if self.last.len() == KEPT {
            self.last.remove(0);
        }
        self.last.push(attempt);
    }

    pub(crate) fn put(
        &self,
        mailbox: MailboxId,
        id: MessageId,
        batch: &mut Batch,
    ) -> Result<(), codec::EncodeError> {
        batch.put(keys::attempts(mailbox, *id.as_bytes()), |out| codec::encode_into(self, out))
    }

    pub(crate) fn delete(mailbox: MailboxId, id: MessageId, batch: &mut Batch) {
        batch.delete(keys::attempts(mailbox, *id.as_bytes()));
    }
}

impl Attempts {
    /// The attempts of every message of a mailbox that has failed and is not settled. May block on the disk.
    pub(crate) fn of_mailbox(
        store: &Store,
        mailbox: MailboxId,
    ) -> Result<Vec<(MessageId, Attempts)>, StoreError> {
        let prefix = keys::attempts(mailbox, [0; 16])[..5].to_vec();
        let pairs = store.scan(&prefix, &keys::after_prefix(&prefix), usize::MAX)?;
        pairs
            .into_iter()
            .map(|(key, value)| {
                let attempts = codec::decode(&value).map_err(|error| {
                    StoreError::value(format!("the attempts of a message cannot be read: {error}"))
                })?;
                let id = key.last_chunk().copied().unwrap_or_default();
                Ok((MessageId::from_bytes(id), attempts))
            })
            .collect()
    }
}
