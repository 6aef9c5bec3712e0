//! In which order the letters of one mailbox are handled when several workers read it, and what one that is tried again holds
//! up.

use std::sync::Arc;

use super::mailbox::Head;
use crate::envelope::{MessageId, ORDER_KEY};
use crate::policy::RetryPolicy;

/// In which order the messages of a mailbox are handled, and which of them one that is tried again holds up.
///
/// Each [priority](crate::Priority) has an order of its own. Whatever the order: at most
/// [`MailboxOptions::workers`](crate::MailboxOptions::workers) messages are handled at once, in a [`Group`](crate::Group) as many as
/// it has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// One message at a time, in the order in which they were sent. One that is tried again holds up all those behind it.
    /// Several workers take turns: that is of use only where each of them holds something that must rest between two
    /// messages.
    #[default]
    Strict,
    /// Messages with the same [`key`](crate::Tell::key) one at a time, in the order in which they were sent; those with
    /// different keys at once. One that is tried again holds up only those of its key. Messages without a key have no order
    /// among themselves; one that is tried again gives up its place.
    ///
    /// To find messages of other keys, at most 1 024 messages or 4 MiB of each priority are looked at behind those that have
    /// to wait for their key. When that many wait, what is behind them waits too, whatever its key.
    PerKey,
    /// No order: as many at once as there are workers. One that is tried again gives up its place and holds up nobody.
    Unordered,
}

impl Order {
    /// How often a message is tried unless the mailbox says otherwise.
    pub(super) const fn usual_retry(self) -> RetryPolicy {
        match self {
            Order::Strict | Order::PerKey => RetryPolicy::strict(),
            Order::Unordered => RetryPolicy::unordered(),
        }
    }

    /// Whether a message that is tried again keeps its place.
    pub(super) fn keeps_place(self, head: &Head) -> bool {
        !matches!(Key::of(self, head), Key::Own(_))
    }
}

/// Letters of one key are handled one after the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// That of every letter, in strict order.
    All,
    /// The one its sender gave it.
    Named(Arc<str>),
    /// It has no order with any other.
    Own(MessageId),
}

impl Key {
    pub(super) fn of(order: Order, head: &Head) -> Self {
        match (order, head.headers.get(ORDER_KEY)) {
            (Order::Strict, _) => Key::All,
            (Order::PerKey, Some(key)) if !cfg!(steadfast_bug = "ignore_keys") => Key::Named(key.into()),
            (Order::PerKey | Order::Unordered, _) => Key::Own(head.id),
        }
    }
}
