//! How a message is sent: the options all ways of sending share, and sealing a message with them.

use std::time::Duration;

use uuid::Uuid;

use super::list::MessageKind;
use super::message::Message;
use super::runtime::Runtime;
use crate::clock::Timestamp;
use crate::codec;
use crate::envelope::{self, EnvelopeHead, Headers, MessageId, ORDER_KEY, TOMBSTONE};
use crate::error::Refused;

/// When the effects of a send that returned `Ok` are safe.
///
/// ```
#[doc = include_str!("../example-prelude.txt")]
/// # let system = System::builder().open_in_memory().await?;
/// # let counter = system.spawn("counter-1", || Counter).await?;
/// counter.tell(Add { amount: 1 }).await?; // Synced
/// counter.tell(Add { amount: 1 }).durability(Durability::Buffered).await?;
/// counter.tell(Add { amount: 1 }).durability(Durability::Volatile).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// `Ok` means the message is on disk, synced: it will be handled, whatever crashes.
    #[default]
    Synced,
    /// `Ok` means the message is taken and will be synced within a few milliseconds. A power cut or kill before that loses
    /// it; a panic or an orderly end does not.
    Buffered,
    /// `Ok` means the message is in memory: handled at most once, not retried, lost when the process ends. It is not
    /// encoded and may overtake durable mail.
    Volatile,
}

/// Which of the waiting messages is handled first. Within one priority the order is that of sending; a lower priority waits
/// as long as there is mail of a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Before all others.
    High,
    /// The usual one.
    #[default]
    Normal,
    /// When nothing else waits.
    Low,
}

impl Priority {
    pub(crate) fn lane(self) -> u8 {
        self as u8
    }
}

/// A point in time, or a time from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this time.
    At(Timestamp),
    /// After this time, counted from the send.
    In(Duration),
}

impl When {
    pub(crate) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            When::At(at) => at,
            When::In(delay) => now.after(delay),
        }
    }
}

impl From<Duration> for When {
    fn from(delay: Duration) -> Self {
        When::In(delay)
    }
}

impl From<Timestamp> for When {
    fn from(at: Timestamp) -> Self {
        When::At(at)
    }
}

/// Options of a send. The builders of [`ActorRef::tell`](crate::ActorRef::tell) and
/// [`ask`](crate::ActorRef::ask) have the same; this form is for [`Context::tell_with`](crate::Context::tell_with).
#[derive(Debug, Clone, Default)]
pub struct SendOptions {
    pub(crate) due: Option<When>,
    pub(crate) priority: Priority,
    pub(crate) expires: Option<When>,
    pub(crate) dedup_id: Option<String>,
    pub(crate) durability: Durability,
    pub(crate) headers: Headers,
    pub(crate) timeout: Option<Duration>,
    pub(crate) outside_turn: bool,
}

impl SendOptions {
    /// No options: at once, normal priority, [`Durability::Synced`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes its place in the mailbox only after this time.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.due = Some(When::In(delay));
        self
    }

    /// Takes its place in the mailbox only at this time.
    #[must_use]
    pub fn at(mut self, due: Timestamp) -> Self {
        self.due = Some(When::At(due));
        self
    }

    /// The priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Not handled any more after this time.
    #[must_use]
    pub fn expires(mut self, after: Duration) -> Self {
        self.expires = Some(When::In(after));
        self
    }

    /// A duplicate with the same id, to the same mailbox within 24 hours, is accepted once.
    #[must_use]
    pub fn dedup_id(mut self, id: impl Into<String>) -> Self {
        self.dedup_id = Some(id.into());
        self
    }

    /// Messages with the same key are handled one after the other where the mailbox has [`Order::PerKey`](crate::Order::PerKey);
    /// elsewhere it changes nothing. It travels as the header `steadfast-key`.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        self.header(ORDER_KEY, key)
    }

    /// A header; a key that is there already is replaced.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(key, value);
        self
    }
}

/// The words of a send to a mailbox.
macro_rules! mail_options {
    ($Builder:ident) => {
        impl<A: $crate::actor::Actor, M, I> $Builder<'_, A, M, I> {
            /// Takes its place in the mailbox only after this time.
            pub fn delay(mut self, delay: std::time::Duration) -> Self {
                self.options.due = Some($crate::actor::When::In(delay));
                self
            }

            /// Takes its place in the mailbox only at this time.
            pub fn at(mut self, due: $crate::clock::Timestamp) -> Self {
                self.options.due = Some($crate::actor::When::At(due));
                self
            }

            /// The priority.
            pub fn priority(mut self, priority: $crate::actor::Priority) -> Self {
                self.options.priority = priority;
                self
            }

            /// Not handled any more when this time has passed since the send.
            pub fn expires(mut self, after: std::time::Duration) -> Self {
                self.options.expires = Some($crate::actor::When::In(after));
                self
            }

            /// A duplicate with the same id, to the same mailbox within 24 hours, is accepted once.
            pub fn dedup_id(mut self, id: impl Into<String>) -> Self {
                self.options.dedup_id = Some(id.into());
                self
            }

            /// What `Ok` means; see [`Durability`](crate::Durability).
            pub fn durability(mut self, durability: $crate::actor::Durability) -> Self {
                self.options.durability = durability;
                self
            }

            /// Messages with the same key are handled one after the other where the mailbox has
            /// [`Order::PerKey`](crate::Order::PerKey); elsewhere it changes nothing. It travels as the header `steadfast-key`.
            pub fn key(mut self, key: impl Into<String>) -> Self {
                self.options.headers.insert($crate::envelope::ORDER_KEY, key);
                self
            }

            /// A header; a key that is there already is replaced.
            pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
                self.options.headers.insert(key, value);
                self
            }

            /// How long to wait: for room in the mailbox, and for the reply of an ask.
            pub fn timeout(mut self, time: std::time::Duration) -> Self {
                self.options.timeout = Some(time);
                self
            }

            /// Sends although this code runs in a turn: the message stands even if the turn fails.
            pub fn outside_turn(mut self) -> Self {
                self.options.outside_turn = true;
                self
            }
        }
    };
}

pub(super) use mail_options;

/// Everything about a message that is sealed with it.
pub(crate) struct Sealing<'a> {
    pub(crate) id: Uuid,
    pub(crate) kind: MessageKind,
    pub(crate) options: &'a SendOptions,
    pub(crate) now: Timestamp,
    pub(crate) asks: bool,
    pub(crate) mark: Option<[u8; 16]>,
}

impl Sealing<'_> {
    pub(crate) fn expires(&self) -> Option<Timestamp> {
        self.options.expires.map(|expires| expires.at(self.now))
    }

    /// Writes the sealed message behind `out`.
    pub(crate) fn seal<M: Message>(
        &self,
        runtime: &Runtime,
        message: &M,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let head = EnvelopeHead {
            id: self.id,
            name: self.kind.name,
            version: self.kind.version,
            shape: self.kind.shape,
            sent_at: self.now,
            expires: self.expires(),
            asks: self.asks,
            mark: self.mark,
            headers: &self.options.headers,
        };
        let headers = &self.options.headers;
        let needs_key = headers.get(TOMBSTONE).is_some() && !cfg!(steadfast_bug = "bury_without_a_key");
        if needs_key && headers.get(ORDER_KEY).is_none() {
            return Err(Refused::NoKey);
        }
        let start = out.len();
        let mut body = start;
        envelope::seal_into(
            &head,
            |out| {
                body = out.len();
                codec::encode_into(message, out)
            },
            out,
        )?;
        let bytes = (out.len() - body) as u64;
        if bytes > runtime.max_message {
            out.truncate(start);
            return Err(Refused::TooLarge { bytes, limit: runtime.max_message });
        }
        Ok(())
    }
}

/// The id of a message sent in a turn: the same whenever the turn is run again.
pub(crate) fn derived_id(incoming: MessageId, ordinal: u32, target: &str, name: &str) -> Uuid {
    let mut bytes = ordinal.to_be_bytes().to_vec();
    for part in [target, name] {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    Uuid::new_v5(&incoming.uuid(), &bytes)
}
