//! An item that has to be acknowledged, and what is made of it on its way: whatever it becomes, its acknowledgement goes with it.
//!
//! # Invariants
//! - An item is settled once: acknowledged, failed or given back. One that is dropped is given back.
//! - What several came of one item settle it when the last of them is settled, and only together as handled.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Task, Poll};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::oneshot;

use crate::actor::{About, Failure, FromTopic, ReplyWait, Runtime};
use crate::clock::Timestamp;
use crate::envelope::{Headers, MessageId};

/// An item of a durable source. It is handled when it is [acknowledged](Delivery::ack), and comes again when it was not.
#[must_use = "an item that is dropped is given back, and comes again"]
pub struct Delivery<T> {
    item: T,
    about: Arc<About>,
    ack: Ack,
}

/// The acknowledgement was not written: the item comes again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the item was not acknowledged, since its source has ended or the store failed; it comes again")]
pub struct NotAcknowledged;

/// Resolves when an acknowledgement is on disk, synced. The acknowledgement is given whether or not this is awaited.
#[must_use = "the acknowledgement is durable only when this has resolved"]
pub struct Acknowledged(BoxFuture<'static, Result<(), NotAcknowledged>>);

/// What becomes of an item.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    Handled,
    Failed(Failure),
    Released,
}

impl Verdict {
    /// The worse of two: what failed is not given back without a count.
    fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (failed @ Verdict::Failed(_), _) | (_, failed @ Verdict::Failed(_)) => failed,
            (Verdict::Handled, Verdict::Handled) => Verdict::Handled,
            _ => Verdict::Released,
        }
    }
}

/// The way back to the source.
pub(super) enum Ack {
    One(Box<ToSource>),
    /// Of a batch.
    All(Vec<Ack>),
    /// Of one of several that came of an item.
    Part(Part),
}

/// How the source is told, and tells.
pub(super) struct ToSource {
    pub(super) verdict: oneshot::Sender<Verdict>,
    pub(super) committed: ReplyWait<()>,
    pub(super) runtime: Arc<Runtime>,
}

impl Ack {
    fn settle(self, verdict: Verdict) -> Acknowledged {
        match self {
            Ack::One(source) => {
                let ToSource { verdict: tell, committed, runtime } = *source;
                let is_told = tell.send(verdict).is_ok();
                Acknowledged(Box::pin(async move {
                    let replied = committed.await.ok().and_then(Result::ok).filter(|_| is_told);
                    match replied.ok_or(NotAcknowledged)?.commit {
                        Some(commit) => runtime.ledger.durable(&commit).await.map_err(|_| NotAcknowledged),
                        None => Ok(()),
                    }
                }))
            }
            Ack::All(all) => {
                let settled: Vec<_> = all.into_iter().map(|one| one.settle(verdict.clone())).collect();
                Acknowledged(join_all(settled).map(|all| all.into_iter().collect()).boxed())
            }
            Ack::Part(part) => part.settle(verdict),
        }
    }
}

/// One of several that came of an item.
pub(super) struct Part(Option<Arc<Parts>>);

struct Parts {
    left: AtomicUsize,
    whole: Mutex<Option<(Ack, Verdict)>>,
}

impl Part {
    fn settle(mut self, verdict: Verdict) -> Acknowledged {
        match self.0.take() {
            Some(parts) => parts.settle(verdict),
            None => Acknowledged(Box::pin(async { Err(NotAcknowledged) })),
        }
    }
}

impl Parts {
    fn settle(&self, verdict: Verdict) -> Acknowledged {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, so_far)) = &mut *whole {
            *so_far = so_far.clone().and(verdict);
        }
        let is_last =
            self.left.fetch_sub(1, Ordering::AcqRel) == 1 || cfg!(steadfast_bug = "ack_with_the_first_part");
        match whole.take_if(|_| is_last) {
            Some((ack, verdict)) => ack.settle(verdict),
            // the last one is what settles it
            None => Acknowledged(Box::pin(async { Ok(()) })),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(parts) = self.0.take() {
            drop(parts.settle(Verdict::Released));
        }
    }
}

impl<T> Delivery<T> {
    pub(super) fn new(item: T, about: About, source: ToSource) -> Self {
        Delivery { item, about: Arc::new(about), ack: Ack::One(Box::new(source)) }
    }

    /// The item.
    pub fn item(&self) -> &T {
        &self.item
    }

    /// The message's id.
    pub fn id(&self) -> MessageId {
        self.about.id
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.about.attempt
    }

    /// When it was sent or published.
    pub fn sent_at(&self) -> Timestamp {
        self.about.sent_at
    }

    /// Its headers.
    pub fn headers(&self) -> &Headers {
        &self.about.headers
    }

    /// The topic it is from and its sequence number there; none for mail.
    pub fn position(&self) -> Option<&FromTopic> {
        self.about.from.as_ref()
    }

    /// It is handled, and does not come again. That is so as soon as this was called, and durable when what it returns resolves.
    ///
    /// # Errors
    /// Of what is returned: its source has ended before, or the store failed.
    pub fn ack(self) -> Acknowledged {
        self.ack.settle(Verdict::Handled)
    }

    /// It failed: it is tried again, or becomes a dead letter, as the source's policies say.
    pub fn nack(self, why: Failure) {
        drop(self.ack.settle(Verdict::Failed(why)));
    }

    /// It is given back without an attempt being counted, and comes again, no sooner than 100 ms later.
    pub fn release(self) {
        drop(self.ack.settle(Verdict::Released));
    }

    /// Another item with the same acknowledgement.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Delivery<U> {
        let Delivery { item, about, ack } = self;
        Delivery { item: map(item), about, ack }
    }

    /// Takes the item out of its acknowledgement.
    pub fn into_parts(self) -> (T, Delivery<()>) {
        let Delivery { item, about, ack } = self;
        (item, Delivery { item: (), about, ack })
    }

    /// Several items of it: it is acknowledged when all of them are, at once when there are none, fails when one of them does, and is
    /// given back when one of them is.
    pub fn split<U>(self, items: impl IntoIterator<Item = U>) -> Vec<Delivery<U>> {
        let items: Vec<U> = items.into_iter().collect();
        let Delivery { about, ack, .. } = self;
        if items.is_empty() {
            drop(ack.settle(Verdict::Handled));
            return Vec::new();
        }
        let whole = Mutex::new(Some((ack, Verdict::Handled)));
        let parts = Arc::new(Parts { left: AtomicUsize::new(items.len()), whole });
        let part = |item| Delivery { item, about: about.clone(), ack: Ack::Part(Part(Some(parts.clone()))) };
        items.into_iter().map(part).collect()
    }

    /// One of several, which acknowledges all of them. None of none. What it tells of is the first.
    pub fn join(all: Vec<Delivery<T>>) -> Option<Delivery<Vec<T>>> {
        let about = all.first()?.about.clone();
        let (items, acks) = all.into_iter().map(|one| (one.item, one.ack)).unzip();
        Some(Delivery { item: items, about, ack: Ack::All(acks) })
    }
}

impl<T: fmt::Debug> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("item", &self.item)
            .field("id", &self.about.id)
            .finish_non_exhaustive()
    }
}

impl Future for Acknowledged {
    type Output = Result<(), NotAcknowledged>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(cx)
    }
}

impl fmt::Debug for Acknowledged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acknowledged")
    }
}
