//! A topic as a stream: its events from some place on, as they come, read when they are asked for.
//!
//! # Invariants
//! - Nothing is read before somebody asks: at most a page of events lies here, and they are decoded one by one.
//! - Nothing is given that is not on disk, synced.
//! - What retention took before it was read is counted with the event after it.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use crate::sync::Bell;
use futures_util::stream::{self, BoxStream, FusedStream, Stream, StreamExt};

use crate::actor::{Message, Runtime, read};
use crate::durable::StartFrom;
use crate::envelope;
use crate::error::AdminError;
use crate::store::{Letter, LogId, StoreError};
use crate::topic::{Ephemeral, EphemeralEnded, Received, Topic, View};

/// The most events, and bytes of them, that are read at once.
const PAGE: usize = 64;
const PAGE_BYTES: usize = 256 << 10;

/// An event could not be given.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// This event cannot be decoded. The next one comes after it.
    #[error("event {sequence} of topic {topic} cannot be read: {why}")]
    Undecodable {
        /// The topic's name.
        topic: Arc<str>,
        /// The event's sequence number.
        sequence: u64,
        /// Why not.
        why: String,
    },
    /// The store failed or was closed: nothing comes after this.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The events of a topic as a stream; from [`Topic::read`] and [`Topic::read_to_end`].
pub struct TopicStream<E> {
    inner: stream::Fuse<BoxStream<'static, Result<Received<E>, ReadError>>>,
}

impl<E: Message> Topic<E> {
    /// The topic's events from some place on, and then those that come, for whoever reads along. Nothing is remembered of how far it
    /// came: a reader that is to go on where it was is a [`stage`](Topic::stage), or [consumes](crate::System::consume). It reads as fast
    /// as it is asked, and ends when it is dropped.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// use futures_util::StreamExt;
    ///
    /// # let system = System::builder().open_in_memory().await?;
    /// let additions = system.topic::<Add>("additions").await?;
    /// additions.publish_all([1, 2, 3].map(|amount| Add { amount })).await?;
    /// let first_two: Vec<_> = additions.read(StartFrom::Earliest).await?.take(2).collect().await;
    /// assert_eq!(first_two[1].as_ref().unwrap().event.amount, 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The store failed.
    pub async fn read(&self, from: StartFrom) -> Result<TopicStream<E>, AdminError> {
        self.reader(from, None).await
    }

    /// As [`Topic::read`], up to the last event that is there now.
    ///
    /// # Errors
    /// The store failed.
    pub async fn read_to_end(&self, from: StartFrom) -> Result<TopicStream<E>, AdminError> {
        let next = self.runtime.ledger.progress(self.log()).await?.next;
        self.reader(from, Some(next)).await
    }

    async fn reader(&self, from: StartFrom, end: Option<u64>) -> Result<TopicStream<E>, AdminError> {
        let (runtime, log) = (self.runtime.clone(), self.log());
        let next = runtime.ledger.position(log, from).await?;
        let (view, bell) = View::of(&runtime, log).await?;
        let name = self.name().into();
        let reader = Reader { runtime, _view: view, bell, name, log, next, end, page: VecDeque::new() };
        let events = stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next::<E>().await {
                Ok(Some(given)) => Some((given, Some(reader))),
                Ok(None) => None,
                Err(why) => Some((Err(why.into()), None)),
            }
        });
        Ok(TopicStream { inner: events.boxed().fuse() })
    }
}

struct Reader {
    runtime: Arc<Runtime>,
    /// It rings as long as this is there.
    _view: View,
    bell: Arc<Bell>,
    name: Arc<str>,
    log: LogId,
    next: u64,
    /// Where it ends; none: nowhere.
    end: Option<u64>,
    page: VecDeque<Letter>,
}

impl Reader {
    /// The next event; none at the end.
    async fn next<E: Message>(&mut self) -> Result<Option<Result<Received<E>, ReadError>>, StoreError> {
        let mut missed = 0;
        loop {
            let Some(letter) = self.letter().await? else { return Ok(None) };
            let first = self.runtime.ledger.progress(self.log).await?.first;
            // what was superseded is not missed
            missed += first.min(letter.position).saturating_sub(self.next);
            self.next = letter.position + 1;
            if let Some(given) = self.open(&letter, missed) {
                return Ok(Some(given));
            }
        }
    }

    async fn letter(&mut self) -> Result<Option<Letter>, StoreError> {
        let is_at_end = |end: &Option<u64>, at: u64| end.is_some_and(|end| at >= end);
        loop {
            if is_at_end(&self.end, self.next) {
                return Ok(None);
            }
            if let Some(letter) = self.page.pop_front() {
                return Ok(Some(letter).filter(|letter| !is_at_end(&self.end, letter.position)));
            }
            let rung = self.bell.clone();
            let rung = rung.rung();
            let ledger = &self.runtime.ledger;
            self.page = ledger.letters(self.log, self.next, PAGE, PAGE_BYTES).await?.into();
            if !self.page.is_empty() {
                ledger.store().durable_now().await?;
            } else if self.end.is_some() {
                return Ok(None);
            } else {
                tokio::select! {
                    () = rung => {}
                    why = ledger.store().failed() => return Err(why),
                }
            }
        }
    }

    /// The event of a letter; none when it has expired.
    fn open<E: Message>(&self, letter: &Letter, missed: u64) -> Option<Result<Received<E>, ReadError>> {
        let kind = self.runtime.stored_kind::<E>();
        let opened = envelope::open(&letter.envelope).map_err(|why| why.to_string());
        let expires = opened.as_ref().ok().and_then(|opened| opened.expires);
        if expires.is_some_and(|expires| self.runtime.ledger.clock().now() >= expires) {
            return None;
        }
        let event = opened.and_then(|opened| read::<E>(&kind, &opened).map_err(|why| why.to_string()));
        let (topic, sequence) = (self.name.clone(), letter.position);
        Some(match event {
            Ok(event) => Ok(Received::new(event, sequence, missed)),
            Err(why) => Err(ReadError::Undecodable { topic, sequence, why }),
        })
    }
}

impl<E> Stream for TopicStream<E> {
    type Item = Result<Received<E>, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl<E> FusedStream for TopicStream<E> {
    fn is_terminated(&self) -> bool {
        self.inner.is_terminated()
    }
}

impl<E> fmt::Debug for TopicStream<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicStream").field("ended", &self.is_terminated()).finish()
    }
}

impl<E: Message> Ephemeral<E> {
    /// The events as a stream: its last item says why there are no more. It ends when it is dropped.
    pub fn into_stream(self) -> BoxStream<'static, Result<Received<E>, EphemeralEnded>> {
        let events = stream::unfold(Some(self), |reader| async move {
            let mut reader = reader?;
            match reader.recv().await {
                Ok(event) => Some((Ok(event), Some(reader))),
                Err(ended) => Some((Err(ended), None)),
            }
        });
        events.fuse().boxed()
    }
}
