//! What could not be handled, kept until somebody decides: with its bytes, the reason and every attempt's error. It gets
//! there in the commit that takes it out of its mailbox.

use serde::{Deserialize, Serialize};

use super::attempts::Attempts;
use super::ledger::{CommitRefused, Ledger};
use crate::clock::Timestamp;
use crate::codec;
use crate::envelope::{self, MessageId};
use crate::error::{AdminError, Refused};
use crate::store::{Batch, Condition, LogId, MailboxId, Origin, StoreError, Urgency, keys};

/// Where a dead letter lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeadLetterId {
    mailbox: u32,
    at: Timestamp,
    message: MessageId,
}

impl DeadLetterId {
    pub(crate) fn new(mailbox: MailboxId, at: Timestamp, message: MessageId) -> Self {
        DeadLetterId { mailbox, at, message }
    }

    /// The message's id.
    pub fn message(&self) -> MessageId {
        self.message
    }

    fn key(&self) -> Vec<u8> {
        keys::dead(self.mailbox, self.at.as_millis(), *self.message.as_bytes())
    }

    fn of(key: &[u8]) -> Option<Self> {
        let mailbox = u32::from_be_bytes(*key.get(1..)?.first_chunk()?);
        let at = Timestamp::from_millis(u64::from_be_bytes(*key.get(5..)?.first_chunk()?));
        Some(DeadLetterId { mailbox, at, message: MessageId::from_bytes(*key.get(13..)?.first_chunk()?) })
    }
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// Every attempt the policy allows failed.
    AttemptsUsedUp,
    /// The handler said that no further attempt would help.
    Terminal,
    /// The message cannot be decoded by this program; redrive it after an upgrade.
    Undecodable(String),
    /// A handler buried these bytes, with its own words for why.
    Buried(String),
    /// Each time it was run alone after a crash, the process ended itself: it aborted, or its stack overflowed.
    KilledTheProcess {
        /// How often.
        deaths: u32,
    },
}

/// A message that could not be handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Where it lies.
    pub id: DeadLetterId,
    /// The mailbox it was taken from.
    pub mailbox: String,
    /// The message's name; empty for bytes that a handler buried or that are no envelope.
    pub message: String,
    /// When it was buried.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// Every failed attempt.
    pub attempts: Attempts,
    /// The message's encoded body, or the bytes that a handler buried.
    pub body: Vec<u8>,
    lane: u8,
    /// The whole sealed message; empty for bytes that a handler buried.
    envelope: Vec<u8>,
}

/// What a turn knows when it buries a message.
pub(crate) struct Burial<'a> {
    pub(crate) log: LogId,
    pub(crate) mailbox: &'a str,
    pub(crate) id: MessageId,
    pub(crate) at: Timestamp,
    pub(crate) reason: Reason,
    pub(crate) attempts: Attempts,
}

/// Adds to a batch what makes a message a dead letter.
pub(crate) struct DeadLetters;

impl DeadLetters {
    /// Buries a sealed message.
    pub(crate) fn bury(
        burial: Burial<'_>,
        envelope: &[u8],
        batch: &mut Batch,
    ) -> Result<(), codec::EncodeError> {
        let message = envelope::open(envelope).map(|opened| opened.name.to_owned()).unwrap_or_default();
        // the body is in the envelope: twice, a large message would not fit into a commit
        Self::put(burial, message, Vec::new(), envelope.to_vec(), batch)
    }

    /// Buries bytes that are no message.
    pub(crate) fn bury_bytes(
        burial: Burial<'_>,
        bytes: Vec<u8>,
        batch: &mut Batch,
    ) -> Result<(), codec::EncodeError> {
        Self::put(burial, String::new(), bytes, Vec::new(), batch)
    }

    fn put(
        burial: Burial<'_>,
        message: String,
        body: Vec<u8>,
        envelope: Vec<u8>,
        batch: &mut Batch,
    ) -> Result<(), codec::EncodeError> {
        let Burial { log, mailbox, id, at, reason, attempts } = burial;
        let id = DeadLetterId::new(log.mailbox, at, id);
        let letter = DeadLetter {
            id,
            mailbox: mailbox.into(),
            message,
            at,
            reason,
            attempts,
            body,
            lane: log.lane,
            envelope,
        };
        batch.put(id.key(), |out| codec::encode_into(&letter, out))
    }
}

impl Ledger {
    /// Dead letters in order of mailbox and time, after one of them.
    pub(crate) async fn dead_letters(
        &self,
        mailbox: Option<MailboxId>,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, AdminError> {
        let prefix = match mailbox {
            Some(mailbox) => keys::dead(mailbox, 0, [0; 16])[..5].to_vec(),
            None => vec![keys::class::DEAD],
        };
        let from = after.map_or_else(|| prefix.clone(), |after| [after.key().as_slice(), &[0]].concat());
        let pairs = self.scan(from, keys::after_prefix(&prefix), limit).await?;
        pairs.iter().map(|(key, value)| read(key, value)).collect()
    }

    pub(crate) async fn dead_letter(&self, id: DeadLetterId) -> Result<DeadLetter, AdminError> {
        match self.get(id.key()).await? {
            Some(value) => read(&id.key(), &value),
            None => Err(AdminError::NotFound(format!("dead letter {}", id.message))),
        }
    }

    /// Puts the message back into its mailbox, at its end, with its attempts forgotten. Durable on return.
    pub(crate) async fn redrive(&self, id: DeadLetterId) -> Result<(), AdminError> {
        let letter = self.dead_letter(id).await?;
        if letter.envelope.is_empty() {
            let what = format!("dead letter {}", id.message);
            let why =
                "these bytes were buried by a handler and are no message; send a message with them instead";
            return Err(AdminError::Unreadable { what, why: why.into() });
        }
        let mut batch = Batch::default();
        batch.require(Condition::Present { key: id.key(), seen: None });
        batch.delete(id.key());
        let log = LogId { mailbox: id.mailbox, lane: letter.lane };
        let _ = batch.append(log, |out| {
            out.extend_from_slice(&letter.envelope);
            Ok::<_, std::convert::Infallible>(())
        });
        self.act(batch, id).await
    }

    /// Removes a dead letter for good. Durable on return.
    pub(crate) async fn purge(&self, id: DeadLetterId) -> Result<(), AdminError> {
        let mut batch = Batch::default();
        batch.require(Condition::Present { key: id.key(), seen: None });
        batch.delete(id.key());
        self.act(batch, id).await
    }

    async fn act(&self, mut batch: Batch, id: DeadLetterId) -> Result<(), AdminError> {
        match self.commit(&mut batch, Origin::Inside, Urgency::Now).await {
            Ok(admitted) => Ok(self.durable(&admitted).await?),
            Err(CommitRefused::Refused(Refused::Store(error))) => Err(error.into()),
            Err(CommitRefused::Refused(why)) => Err(why.into()),
            Err(_) => Err(AdminError::NotFound(format!("dead letter {}", id.message))),
        }
    }
}

pub(super) fn read(key: &[u8], value: &[u8]) -> Result<DeadLetter, AdminError> {
    let letter: Result<DeadLetter, _> = codec::decode(value);
    let with_body = |mut letter: DeadLetter| {
        if !letter.envelope.is_empty() {
            let body = envelope::open(&letter.envelope).map_or(&*letter.envelope, |opened| opened.body);
            letter.body = body.to_vec();
        }
        letter
    };
    letter.map(with_body).map_err(|error| {
        let what = match DeadLetterId::of(key) {
            Some(id) => format!("dead letter {}", id.message),
            None => "a dead letter".into(),
        };
        AdminError::Unreadable { what, why: error.to_string() }
    })
}

impl From<StoreError> for CommitRefused {
    fn from(error: StoreError) -> Self {
        CommitRefused::Refused(Refused::Store(error))
    }
}
