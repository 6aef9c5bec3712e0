//! A durable subscription of an actor to a topic, looked at, moved, paused and ended from outside.

use std::sync::Arc;

use crate::actor::Runtime;
use crate::clock::Timestamp;
use crate::durable::{Reading, StartFrom};
use crate::envelope;
use crate::error::AdminError;
use crate::store::{Letter, MailboxId};

/// A durable subscription; from [`System::subscription`](crate::System::subscription).
#[derive(Clone)]
pub struct Subscription {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) actor: Arc<str>,
    pub(crate) reader: MailboxId,
    pub(crate) reading: Reading,
}

/// How far a subscription has come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionInfo {
    /// Every event below this sequence number is handled, or was taken by retention.
    pub position: u64,
    /// The sequence number that the next event of the topic will have.
    pub next: u64,
    /// Events that are there and not handled.
    pub lag: u64,
    /// Events that retention took before they were handled, and of which the subscriber has not been told yet.
    pub lost: u64,
    /// When the oldest of those not handled was published.
    pub oldest: Option<Timestamp>,
    /// Whether it waits for [`Subscription::resume`].
    pub paused: bool,
}

impl Subscription {
    /// The name of the actor that subscribes.
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// The name of the topic.
    pub fn topic(&self) -> &str {
        &self.reading.topic
    }

    /// How far it has come.
    ///
    /// # Errors
    /// The store failed.
    pub async fn info(&self) -> Result<SubscriptionInfo, AdminError> {
        let ledger = &self.runtime.ledger;
        let progress = ledger.progress(self.reading.log).await?;
        let from = progress.front.max(progress.first);
        let oldest = ledger.letters(self.reading.of, from, 1, 1).await?;
        let sent_at = |letter: &Letter| envelope::open(&letter.envelope).ok().map(|opened| opened.sent_at);
        Ok(SubscriptionInfo {
            position: from,
            next: progress.next,
            lag: progress.waiting,
            lost: progress.first.saturating_sub(progress.front),
            oldest: oldest.first().and_then(sent_at),
            paused: progress.paused,
        })
    }

    /// Has it go on elsewhere, backwards or forwards; what was handled after that place is handled again. A turn that runs is
    /// committed or not, as it comes.
    ///
    /// # Errors
    /// It has ended, or the store failed.
    pub async fn seek(&self, to: StartFrom) -> Result<(), AdminError> {
        let ledger = &self.runtime.ledger;
        let to = ledger.position(self.reading.of, to).await?;
        ledger.seek(self.reader, &self.reading, to).await
    }

    /// Its actor gets no more events of the topic until [`Subscription::resume`], also after a restart; it keeps its place, and goes on
    /// with its mail and other topics. `Ok` means that is on disk, synced. A turn that runs goes on to its end; of a pool, so do
    /// events that wait for their key.
    ///
    /// # Errors
    /// It has ended, or the store failed.
    pub async fn pause(&self) -> Result<(), AdminError> {
        self.runtime.ledger.pause(self.reader, &self.reading, true).await
    }

    /// Its actor gets events again, from where it was. `Ok` means that is on disk, synced.
    ///
    /// # Errors
    /// It has ended, or the store failed.
    pub async fn resume(&self) -> Result<(), AdminError> {
        self.runtime.ledger.pause(self.reader, &self.reading, false).await
    }

    /// Ends it: its actor gets no more events of the topic, and its place is forgotten. `Ok` means that is on disk, synced. What a
    /// turn that runs does is not committed. The actor's mail, state and dead letters stay. A pattern that the topic matches
    /// stays too, and is for topics that are made later.
    ///
    /// # Errors
    /// The store failed.
    pub async fn unsubscribe(self) -> Result<(), AdminError> {
        Ok(self.runtime.ledger.unsubscribe(self.reader, &self.reading).await?)
    }
}
