//! Topics: events stored once, read by any number of subscribers, each at its own pace. A subscriber that was down gets all it
//! missed; a new one joins at any time, without the publisher knowing.
//!
//! # Invariants
//! - An event lies in the topic's log once, however many subscribe; its sequence number is its position there, and is never given
//!   again.
//! - A subscription's place moves in the commit that carries what its handler did.
//! - What retention took before a subscriber came to it is told to that subscriber, never passed over in silence.

mod compaction;
mod ephemeral;
mod publish;
mod reader;
mod retention;
mod subscription;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

pub(crate) use self::ephemeral::View;
pub use self::ephemeral::{Ephemeral, EphemeralEnded, Overflow, Received};
pub use self::publish::{Publish, PublishFuture, PublishOptions, PublishReceipt, Published};
pub use self::reader::Reads;
pub use self::retention::Retention;
pub(crate) use self::retention::Retentions;
pub use self::subscription::{Subscription, SubscriptionInfo};
use crate::actor::{Message, Runtime};
use crate::durable::topic_name;
use crate::error::{AdminError, Refused};
use crate::store::{LogId, Progress};

/// A topic: where events of one type are published, and read from. Cheap to clone.
///
/// ```
#[doc = include_str!("example-prelude.txt")]
/// # let system = System::builder().open_in_memory().await?;
/// let additions = system.topic::<Add>("additions").await?;
/// let first = additions.publish(Add { amount: 7 }).await?; // Ok: on disk, synced
/// assert_eq!(first.sequence, Some(0));
///
/// // joins later, and gets what was published before too
/// let counter = system.spawn("counter-1", || Counter).subscribe(&additions, StartFrom::Earliest).await?;
/// additions.publish(Add { amount: 1 }).await?;
/// steadfast::testkit::run_until_idle(&system).await?;
/// assert_eq!(counter.cell(&TOTAL).await?, Some(8));
/// # Ok(()) }
/// ```
pub struct Topic<E: Message> {
    pub(crate) runtime: Arc<Runtime>,
    name: Arc<str>,
    /// The name under which the log lies.
    mailbox: Arc<str>,
    log: LogId,
    _event: PhantomData<fn(E)>,
}

/// What a topic holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// The sequence number of the oldest event that is still there.
    pub first: u64,
    /// The sequence number that the next event will have.
    pub next: u64,
    /// Events that are there. Fewer than lie between the two numbers when some were
    /// [superseded](Retention::keep_last_per_key).
    pub events: u64,
    /// Bytes of the events that are there, with their envelopes.
    pub bytes: u64,
}

impl<E: Message> Topic<E> {
    pub(crate) async fn open(runtime: &Arc<Runtime>, name: &str) -> Result<Self, Refused> {
        let log = runtime.ledger.topic(name, E::NAME).await?;
        let mailbox = topic_name(name)?.into();
        Ok(Topic { runtime: runtime.clone(), name: name.into(), mailbox, log, _event: PhantomData })
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the topic holds now.
    ///
    /// # Errors
    /// The store failed.
    pub async fn info(&self) -> Result<TopicInfo, AdminError> {
        let Progress { first, next, waiting, bytes, .. } = self.runtime.ledger.progress(self.log).await?;
        Ok(TopicInfo { first, next, events: waiting, bytes })
    }

    pub(crate) fn log(&self) -> LogId {
        self.log
    }
}

impl<E: Message> Clone for Topic<E> {
    fn clone(&self) -> Self {
        let Topic { runtime, name, mailbox, log, .. } = self;
        let (runtime, name, mailbox, log) = (runtime.clone(), name.clone(), mailbox.clone(), *log);
        Topic { runtime, name, mailbox, log, _event: PhantomData }
    }
}

impl<E: Message> fmt::Debug for Topic<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({}: {})", self.name, E::NAME)
    }
}
