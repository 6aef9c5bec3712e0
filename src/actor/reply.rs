//! The way back to whoever asked. It is shared by the message, which has the reply's type, and the worker,
//! which has not, so that the asker outlives a failed or panicked attempt.
//!
//! # Invariants
//! - A reply that was given is seen by the asker only after [`Answered::release`]: that is, after the turn's
//!   commit.
//! - An asker hears once: the reply, or why there is none. If every slot is dropped unanswered it hears that.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::failure::Failure;
use crate::clock::Timestamp;
use crate::codec;
use crate::store::Admitted;
use crate::sync::oneshot;

/// Why an asker gets no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplyLost {
    /// The handler failed, and there will be no further attempt.
    #[error("the handler failed: {0}")]
    Failed(String),
    /// The actor ended before it came to the message.
    #[error("the actor stopped")]
    Stopped,
    /// The message waits behind one that is tried again at this time.
    #[error("the mailbox is blocked until {0}")]
    Blocked(Timestamp),
}

/// What the asker waits on.
pub(crate) type ReplyWait<R> = oneshot::Receiver<Result<Replied<R>, ReplyLost>>;

/// A reply, and the commit that must be durable before it may leave the process.
#[derive(Debug, Clone)]
pub(crate) struct Replied<R> {
    pub(crate) reply: R,
    pub(crate) commit: Option<Admitted>,
}

/// Where the handler's reply is put.
pub struct ReplySlot<R>(Arc<Mutex<Pending<R>>>);

struct Pending<R> {
    asker: Option<oneshot::Sender<Result<Replied<R>, ReplyLost>>>,
    reply: Option<R>,
}

impl<R: Send + 'static> ReplySlot<R> {
    pub(crate) fn new() -> (Self, ReplyWait<R>) {
        let (asker, wait) = oneshot::channel();
        (ReplySlot(Arc::new(Mutex::new(Pending { asker: Some(asker), reply: None }))), wait)
    }

    /// The slot without its type, for the worker.
    pub(crate) fn asker(&self) -> Asker {
        Asker(self.0.clone())
    }

    /// The slot again, or none if the asker waits for another type.
    pub(crate) fn of(asker: &Asker) -> Option<Self> {
        let any: Arc<dyn Any + Send + Sync> = asker.0.clone();
        any.downcast().ok().map(ReplySlot)
    }

    fn put(self, reply: R) -> Asker {
        lock(&self.0).reply = Some(reply);
        Asker(self.0)
    }
}

/// Whoever waits for the reply, without the reply's type.
#[derive(Clone)]
pub struct Asker(Arc<dyn Waiting>);

impl Asker {
    /// Says that there will be no reply. Nothing, if the asker has heard already.
    pub(crate) fn lose(&self, why: ReplyLost) {
        self.0.lose(why);
    }

    /// Whether nobody waits: the asker gave up, or has heard.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("gone", &self.is_gone()).finish()
    }
}

/// What a handler that succeeded leaves behind. Dropped, it tells nobody: the turn's commit is what makes it
/// true.
#[derive(Debug)]
#[must_use]
pub struct Answered {
    asker: Option<Asker>,
    stored: Option<Vec<u8>>,
}

impl Answered {
    /// # Errors
    /// The reply is to be kept, but cannot be encoded. No further attempt would change that.
    pub(crate) fn new<R>(reply: R, slot: Option<ReplySlot<R>>, keep: KeepReply) -> Result<Self, Failure>
    where
        R: Serialize + Send + 'static,
    {
        let stored = match keep {
            KeepReply::No => None,
            KeepReply::Encoded => Some(encoded(&reply)?),
        };
        Ok(Answered { asker: slot.map(|slot| slot.put(reply)), stored })
    }

    /// The encoded reply, if it was to be kept; the first call takes it.
    pub(crate) fn take_stored(&mut self) -> Option<Vec<u8>> {
        self.stored.take()
    }

    /// Lets the reply go to its asker. For after the turn was committed, and durable as far as the reply
    /// promises.
    pub(crate) fn release(self, commit: Option<Admitted>) {
        if let Some(asker) = self.asker {
            asker.0.release(commit);
        }
    }
}

/// Whether a reply is wanted as bytes too, to be kept with a dedup mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepReply {
    No,
    Encoded,
}

fn encoded<R: Serialize>(reply: &R) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    codec::encode_into(reply, &mut bytes).map_err(|e| Failure::from_error(&e).terminal())?;
    Ok(bytes)
}

trait Waiting: Any + Send + Sync {
    fn release(&self, commit: Option<Admitted>);
    fn lose(&self, why: ReplyLost);
    fn is_gone(&self) -> bool;
}

impl<R: Send + 'static> Waiting for Mutex<Pending<R>> {
    fn release(&self, commit: Option<Admitted>) {
        let mut pending = lock(self);
        if let (Some(reply), Some(asker)) = (pending.reply.take(), pending.asker.take()) {
            // the asker may have gone away; the turn stands
            let _ = asker.send(Ok(Replied { reply, commit }));
        }
    }

    fn lose(&self, why: ReplyLost) {
        if let Some(asker) = lock(self).asker.take() {
            let _ = asker.send(Err(why));
        }
    }

    fn is_gone(&self) -> bool {
        lock(self).asker.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

fn lock<R>(pending: &Mutex<Pending<R>>) -> MutexGuard<'_, Pending<R>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_seen_only_after_its_release() {
        let (slot, mut wait) = ReplySlot::new();
        let answered = Answered::new(7u32, Some(slot), KeepReply::No).unwrap();
        assert!(wait.try_recv().is_none());
        answered.release(None);
        assert_eq!(wait.try_recv().unwrap().unwrap().unwrap().reply, 7);
    }

    #[test]
    fn an_asker_outlives_the_answer_of_a_turn_that_was_not_committed() {
        let (slot, mut wait) = ReplySlot::new();
        let asker = slot.asker();
        drop(Answered::new(7u32, Some(slot), KeepReply::No).unwrap());
        assert!(!asker.is_gone());
        let again = ReplySlot::of(&asker);
        Answered::new(8u32, again, KeepReply::No).unwrap().release(None);
        assert_eq!(wait.try_recv().unwrap().unwrap().unwrap().reply, 8);
        assert!(asker.is_gone());
    }

    #[test]
    fn an_asker_hears_once() {
        let (slot, mut wait) = ReplySlot::<u32>::new();
        let asker = slot.asker();
        asker.lose(ReplyLost::Stopped);
        Answered::new(7, Some(slot), KeepReply::No).unwrap().release(None);
        assert_eq!(wait.try_recv().unwrap().unwrap().unwrap_err(), ReplyLost::Stopped);
    }

    #[test]
    fn an_asker_is_gone_when_it_gave_up_and_hears_when_all_slots_are_dropped() {
        let (slot, wait) = ReplySlot::<u32>::new();
        drop(wait);
        assert!(slot.asker().is_gone());
        let (slot, mut wait) = ReplySlot::<u32>::new();
        drop(slot);
        assert!(matches!(wait.try_recv(), Some(Err(oneshot::Unanswered))));
    }

    #[test]
    fn an_asker_for_another_type_gives_no_slot() {
        let (slot, _wait) = ReplySlot::<u32>::new();
        assert!(ReplySlot::<String>::of(&slot.asker()).is_none());
    }

    #[test]
    fn a_kept_reply_is_its_encoding() {
        let mut answered = Answered::new("yes".to_owned(), None, KeepReply::Encoded).unwrap();
        let bytes = answered.take_stored().unwrap();
        assert_eq!(codec::decode::<String>(&bytes).unwrap(), "yes");
        assert_eq!(answered.take_stored(), None);
    }
}
