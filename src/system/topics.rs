//! Opening topics and finding subscriptions.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;

use super::System;
use crate::actor::Message;
use crate::durable::Pattern;
use crate::error::{AdminError, Refused};
use crate::topic::{Retention, Subscription, Topic};

/// A topic being opened; awaiting it opens it. See [`System::topic`].
#[must_use = "nothing is opened until it is awaited"]
pub struct OpenTopic<'a, E: Message> {
    system: &'a System,
    name: String,
    retention: Option<Retention>,
    _event: PhantomData<fn(E)>,
}

impl System {
    /// Opens a topic, making it at its first use. It belongs to one type of event for ever; a [`Message`] of any type may be one, its
    /// reply is thrown away.
    ///
    /// # Errors
    /// The name is none, the topic has events of another type, or the store failed.
    pub fn topic<E: Message>(&self, name: impl Into<String>) -> OpenTopic<'_, E> {
        OpenTopic { system: self, name: name.into(), retention: None, _event: PhantomData }
    }

    /// The durable subscription of an actor that subscribes to one topic, by the actor's name; it need not run.
    ///
    /// # Errors
    /// [`AdminError::NotFound`]: it subscribes to none. [`AdminError::SeveralTopics`]: to more than one. Or the store failed.
    pub async fn subscription(&self, actor: &str) -> Result<Subscription, AdminError> {
        let mut all = self.subscriptions(actor).await?;
        match (all.pop(), all.is_empty()) {
            (None, _) => Err(AdminError::NotFound(format!("subscription {actor}"))),
            (Some(one), true) => Ok(one),
            (Some(last), false) => {
                let topics = all.iter().chain([&last]).map(|one| one.topic().to_owned()).collect();
                Err(AdminError::SeveralTopics { actor: actor.into(), topics })
            }
        }
    }

    /// The durable subscriptions of an actor, by the actor's name: one for each topic, in the order in which they were made. It
    /// need not run.
    ///
    /// # Errors
    /// The store failed.
    pub async fn subscriptions(&self, actor: &str) -> Result<Vec<Subscription>, AdminError> {
        let runtime = &self.inner.runtime;
        let Some(record) = runtime.ledger.mailbox_record(actor).await? else { return Ok(Vec::new()) };
        let readings = runtime.ledger.readings(record.id).await?;
        let subscription = |reading| Subscription {
            runtime: runtime.clone(),
            actor: actor.into(),
            reader: record.id,
            reading,
        };
        Ok(readings.into_iter().map(subscription).collect())
    }

    /// The patterns of topics that an actor subscribes to.
    ///
    /// # Errors
    /// The store failed.
    pub async fn patterns(&self, actor: &str) -> Result<Vec<String>, AdminError> {
        let ledger = &self.inner.runtime.ledger;
        let Some(record) = ledger.mailbox_record(actor).await? else { return Ok(Vec::new()) };
        Ok(ledger.patterns(record.id).await?)
    }

    /// Ends an actor's subscription to a pattern, and to all topics that match it. `Ok` means that is on disk, synced, also when there
    /// was none.
    ///
    /// # Errors
    /// The pattern is not one, or the store failed.
    pub async fn unsubscribe_matching(&self, actor: &str, pattern: &str) -> Result<(), AdminError> {
        let ledger = &self.inner.runtime.ledger;
        let pattern = Pattern::new(pattern)?;
        let Some(record) = ledger.mailbox_record(actor).await? else { return Ok(()) };
        Ok(ledger.unsubscribe_matching(record.id, &pattern).await?)
    }
}

impl<E: Message> OpenTopic<'_, E> {
    /// How long events are kept, while this process runs: the bounds are not stored. Without this, all are kept.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    async fn open(self) -> Result<Topic<E>, Refused> {
        let inner = &self.system.inner;
        let topic = Topic::open(&inner.runtime, &self.name).await?;
        if let Some(retention) = self.retention {
            inner.runtime.ledger.load_subscriptions(topic.log()).await?;
            inner.retentions.set(topic.log(), retention);
        }
        Ok(topic)
    }
}

impl<'a, E: Message> IntoFuture for OpenTopic<'a, E> {
    type Output = Result<Topic<E>, Refused>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}
