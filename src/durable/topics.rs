//! Topics and the places of their readers: a topic is a log that nobody settles, a subscription a view of it.
//!
//! # Invariants
//! - A topic's log lies under its name with a mark before it, and belongs to one type of event for ever.
//! - A mailbox reads a topic through one view at most, which is made and put to its first place in one commit.
//! - Who reads what matches a [pattern](super::patterns) reads a new topic from the commit that makes it: topics are made, and
//!   patterns added, one at a time.

use super::ledger::{CommitRefused, Ledger};
use super::mailboxes::MailboxRecord;
use super::names::{TOPIC_MARK, topic_name};
use super::patterns::Pattern;
use crate::clock::Timestamp;
use crate::codec;
use crate::envelope;
use crate::error::{AdminError, Refused, SubscribeError, WrongActor};
use crate::store::{
    Batch, Condition, LogId, MailboxId, Origin, Progress, StoreError, Urgency, ViewRecord, keys, view,
};

/// The lane in which a topic's events lie.
const LANE: u8 = 1;

/// Where a new subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum StartFrom {
    /// With the oldest event the topic still has.
    #[default]
    Earliest,
    /// With the next event that is published.
    Latest,
    /// With the event of this sequence number.
    Sequence(u64),
    /// With the first event published at or after this time.
    Time(Timestamp),
}

/// A subscription of a mailbox to a topic.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Where it is read.
    pub(crate) log: LogId,
    pub(crate) of: LogId,
    /// The topic's name.
    pub(crate) topic: String,
}

/// Views that are about to be made. They are forgotten unless they were.
struct NewViews<'a> {
    ledger: &'a Ledger,
    views: Vec<MailboxId>,
}

impl Ledger {
    /// The log of a topic, made at its first use.
    pub(crate) async fn topic(&self, topic: &str, event: &str) -> Result<LogId, Refused> {
        let name = topic_name(topic)?;
        if let Some(log) = self.known_topic(&name, event).await? {
            return Ok(log);
        }
        let _one_at_a_time = self.catalogue.lock().await;
        if let Some(log) = self.known_topic(&name, event).await? {
            return Ok(log);
        }
        super::names::check_name(event)?;
        let id = self.blocking(|store| store.new_mailbox_id(false)).await?;
        let log = LogId { mailbox: id, lane: LANE };
        let record = MailboxRecord { id, created: self.clock().now(), actor: event.into() };
        let mut batch = Batch::default();
        batch.require(Condition::Absent { key: keys::name(&name), seen: None });
        batch.put(keys::name(&name), |out| codec::encode_into(&record, out))?;
        batch.put_bytes(keys::mailbox(id), name.as_bytes());
        self.store().keep_new_mailbox(id, &name, None);
        let mut views = NewViews { ledger: self, views: Vec::new() };
        for reader in self.readers_of(topic, event).await? {
            if cfg!(steadfast_bug = "forget_who_matches") {
                break;
            }
            views.add(reader, log, 0, &mut batch).await?;
        }
        self.commit_all(&mut batch, || views.made()).await?;
        Ok(log)
    }

    async fn known_topic(&self, name: &str, event: &str) -> Result<Option<LogId>, Refused> {
        let Some(record) = self.mailbox_record(name).await? else { return Ok(None) };
        if record.actor != event {
            let wrong = WrongActor { mailbox: name.into(), found: record.actor, expected: event.into() };
            return Err(wrong.into());
        }
        self.load(record.id).await?;
        Ok(Some(LogId { mailbox: record.id, lane: LANE }))
    }

    /// The topics with this type of event: their names and logs.
    pub(super) async fn topics_of(&self, event: &str) -> Result<Vec<(String, LogId)>, StoreError> {
        const PAGE: usize = 256;
        let mark = TOPIC_MARK.to_string();
        let mut topics = Vec::new();
        let mut after = mark.clone();
        loop {
            let page = self.mailbox_page(Some(&after), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(topics) };
            after.clone_from(last);
            let end = !after.starts_with(TOPIC_MARK) || page.len() < PAGE;
            for (name, record) in page {
                if let Some(topic) = name.strip_prefix(&mark).filter(|_| record.actor == event) {
                    topics.push((topic.to_owned(), LogId { mailbox: record.id, lane: LANE }));
                }
            }
            if end {
                return Ok(topics);
            }
        }
    }

    /// Commits a batch, and has memory follow at once: whoever waits for the disk may be thrown away there.
    async fn commit_all(&self, batch: &mut Batch, follow: impl FnOnce()) -> Result<(), Refused> {
        match self.commit(batch, Origin::Inside, Urgency::Now).await {
            Ok(commit) => {
                follow();
                Ok(self.durable(&commit).await?)
            }
            Err(CommitRefused::Refused(why)) => Err(why),
            // one at a time, so there is nothing that could have changed
            Err(_) => Err(Refused::Busy),
        }
    }

    /// Loads every subscription to a topic, so that it is known what they need.
    pub(crate) async fn load_subscriptions(&self, topic: LogId) -> Result<(), StoreError> {
        self.blocking(move |store| {
            let mut views = store.views()?.into_iter().filter(|(_, record)| record.of == topic);
            views.try_for_each(|(view, _)| store.load_mailbox(view, None))
        })
        .await
    }

    /// How far a log's reader has come; it is loaded for this.
    pub(crate) async fn progress(&self, log: LogId) -> Result<Progress, StoreError> {
        loop {
            if let Some(progress) = self.store().progress(log) {
                return Ok(progress);
            }
            self.load(log.mailbox).await?;
        }
    }

    /// The position a start means now.
    pub(crate) async fn position(&self, topic: LogId, from: StartFrom) -> Result<u64, StoreError> {
        let Progress { first, next, .. } = self.progress(topic).await?;
        match from {
            StartFrom::Earliest => Ok(first),
            StartFrom::Latest => Ok(next),
            StartFrom::Sequence(sequence) => Ok(sequence.min(next)),
            StartFrom::Time(time) => self.position_at(topic, time, first, next).await,
        }
    }

    /// The first position whose event was published at or after a time. Events lie in order of admission, which is that of
    /// time as long as the clock was not set back.
    async fn position_at(
        &self,
        topic: LogId,
        time: Timestamp,
        mut first: u64,
        mut next: u64,
    ) -> Result<u64, StoreError> {
        while first < next {
            let middle = first + (next - first) / 2;
            let found = self.letters(topic, middle, 1, 1).await?;
            let Some(letter) = found.into_iter().next() else { break };
            let published = envelope::open(&letter.envelope).map(|opened| opened.sent_at).unwrap_or_default();
            match published < time {
                true => first = letter.position + 1,
                false => next = middle,
            }
        }
        Ok(first)
    }

    /// Has a mailbox read a topic, if it does not; `from` is for the first time alone.
    pub(crate) async fn subscribe(
        &self,
        reader: MailboxId,
        topic: LogId,
        from: StartFrom,
    ) -> Result<(), SubscribeError> {
        let _one_at_a_time = self.catalogue.lock().await;
        if self.get(keys::reading(reader, topic)).await?.is_some() {
            return Ok(());
        }
        let to = self.position(topic, from).await?;
        let (mut batch, mut views) = (Batch::default(), NewViews { ledger: self, views: Vec::new() });
        views.add(reader, topic, to, &mut batch).await?;
        self.commit_all(&mut batch, || views.made()).await?;
        Ok(())
    }

    /// Has a mailbox read the topics that match a pattern and have this type of event, those there are from `from` on and those
    /// that are made later from their first event on.
    pub(crate) async fn subscribe_matching(
        &self,
        reader: MailboxId,
        pattern: &Pattern,
        event: &str,
        from: StartFrom,
    ) -> Result<(), SubscribeError> {
        let _one_at_a_time = self.catalogue.lock().await;
        let key = keys::pattern(reader, pattern.text(), event);
        if self.get(key.clone()).await?.is_some() {
            return Ok(());
        }
        let (mut batch, mut views) = (Batch::default(), NewViews { ledger: self, views: Vec::new() });
        batch.put(key, |out| codec::encode_into(&from, out)).map_err(Refused::from)?;
        for (topic, log) in self.topics_of(event).await? {
            if pattern.matches(&topic) && self.get(keys::reading(reader, log)).await?.is_none() {
                let to = self.position(log, from).await?;
                views.add(reader, log, to, &mut batch).await?;
            }
        }
        self.commit_all(&mut batch, || views.made()).await?;
        Ok(())
    }

    /// Ends a subscription of a mailbox.
    pub(crate) async fn unsubscribe(&self, reader: MailboxId, reading: &Reading) -> Result<(), Refused> {
        let _one_at_a_time = self.catalogue.lock().await;
        self.end(reader, std::slice::from_ref(reading), Vec::new()).await
    }

    /// Ends the interest of a mailbox in what matches a pattern, and its subscriptions to topics that do.
    pub(crate) async fn unsubscribe_matching(
        &self,
        reader: MailboxId,
        pattern: &Pattern,
    ) -> Result<(), Refused> {
        let _one_at_a_time = self.catalogue.lock().await;
        let mut readings = self.readings(reader).await?;
        readings.retain(|reading| pattern.matches(&reading.topic));
        let patterns = self.pattern_keys(reader, pattern).await?;
        self.end(reader, &readings, patterns).await
    }

    async fn end(
        &self,
        reader: MailboxId,
        readings: &[Reading],
        patterns: Vec<Vec<u8>>,
    ) -> Result<(), Refused> {
        let mut batch = Batch::default();
        for reading in readings {
            if !self.is_read_through(reader, reading).await? {
                continue;
            }
            let ended = ViewRecord { of: reading.of, reader: None, paused: false };
            batch.put_bytes(keys::view(reading.log.mailbox), &ended.encode());
            batch.delete(keys::reading(reader, reading.of));
        }
        patterns.into_iter().for_each(|key| batch.delete(key));
        if batch.is_empty() {
            return Ok(());
        }
        let end = || readings.iter().for_each(|reading| self.store().end_view(reading.log.mailbox));
        self.commit_all(&mut batch, end).await
    }

    /// Has a subscription leave its topic alone, or go on; also after a restart.
    pub(crate) async fn pause(
        &self,
        reader: MailboxId,
        reading: &Reading,
        paused: bool,
    ) -> Result<(), AdminError> {
        let _one_at_a_time = self.catalogue.lock().await;
        self.must_be_read_through(reader, reading).await?;
        let mut batch = Batch::default();
        let record = ViewRecord { of: reading.of, reader: Some(reader), paused };
        if !cfg!(steadfast_bug = "pause_until_the_restart") {
            batch.put_bytes(keys::view(reading.log.mailbox), &record.encode());
        }
        let pause = || self.store().pause_view(reading.log.mailbox, paused);
        Ok(self.commit_all(&mut batch, pause).await?)
    }

    /// Has a subscription go on at a position.
    pub(crate) async fn seek(&self, reader: MailboxId, reading: &Reading, to: u64) -> Result<(), AdminError> {
        let _one_at_a_time = self.catalogue.lock().await;
        self.must_be_read_through(reader, reading).await?;
        let mut batch = Batch::default();
        batch.seek(reading.log, to);
        Ok(self.commit_all(&mut batch, || {}).await?)
    }

    /// A subscription that has ended is not to come to life again.
    async fn must_be_read_through(&self, reader: MailboxId, reading: &Reading) -> Result<(), AdminError> {
        match self.is_read_through(reader, reading).await? {
            true => Ok(()),
            false => Err(AdminError::NotFound(format!("such subscription to {} any more", reading.topic))),
        }
    }

    /// Whether a mailbox reads a topic through this view: it may have ended, and another may have come after it.
    async fn is_read_through(&self, reader: MailboxId, reading: &Reading) -> Result<bool, StoreError> {
        let view = self.get(keys::reading(reader, reading.of)).await?;
        Ok(view.is_some_and(|view| *view == reading.log.mailbox.to_be_bytes()))
    }

    /// The name of a topic.
    pub(crate) async fn topic_of(&self, log: LogId) -> Result<String, StoreError> {
        let name = self.mailbox_name(log.mailbox).await?.unwrap_or_default();
        Ok(name.strip_prefix(TOPIC_MARK).unwrap_or(&name).to_owned())
    }

    /// What a mailbox subscribes to, in the order in which it began to.
    pub(crate) async fn readings(&self, reader: MailboxId) -> Result<Vec<Reading>, StoreError> {
        self.load(reader).await?;
        let views = self.blocking(move |store| store.load_views(reader)).await?;
        let mut readings = Vec::new();
        for view in views {
            let topic = self.topic_of(view.of).await?;
            readings.push(Reading { log: view.log, of: view.of, topic });
        }
        readings.sort_by_key(|reading| reading.log);
        Ok(readings)
    }
}

impl NewViews<'_> {
    /// Adds a view that begins at a position to a batch.
    async fn add(
        &mut self,
        reader: MailboxId,
        of: LogId,
        to: u64,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let id = self.ledger.blocking(|store| store.new_view_id()).await?;
        self.ledger.load(of.mailbox).await?;
        self.ledger.load(reader).await?;
        self.ledger.store().keep_new_view(id, of, reader);
        self.views.push(id);
        let record = ViewRecord { of, reader: Some(reader), paused: false };
        batch.put_bytes(keys::view(id), &record.encode());
        batch.put_bytes(keys::reading(reader, of), &id.to_be_bytes());
        batch.seek(LogId { mailbox: id, lane: view::LANE }, to);
        Ok(())
    }

    /// They were: their readers may begin.
    fn made(mut self) {
        for view in std::mem::take(&mut self.views) {
            self.ledger.store().pause_view(view, false);
        }
    }
}

impl Drop for NewViews<'_> {
    fn drop(&mut self) {
        for view in &self.views {
            self.ledger.store().end_view(*view);
        }
    }
}
