//! Asking: mail for one actor whose reply is waited for.
//!
//! # Invariants
//! - A reply is told after the sync of the turn that gave it.
//! - However an ask ends, its mailbox does not remember who asked.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use tracing::Instrument;

use super::handle::ActorRef;
use super::list::Contains;
use super::message::{Actor, Message};
use super::options::{Durability, SendOptions, mail_options};
use super::reply::{ReplyLost, ReplySlot, ReplyWait};
use super::send::{Call, Delivered, Patience, Sending, check_outside_turn};
use crate::clock::Deadline;
use crate::codec;
use crate::durable::{Outcome, marks};
use crate::envelope::MessageId;
use crate::error::{AskError, Refused, SendError};

/// The default time an ask waits for its reply.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// An ask being built; awaiting it sends and waits for the reply. See [`ActorRef::ask`].
#[must_use = "nothing is sent until it is awaited"]
pub struct Ask<'a, A: Actor, M, I> {
    pub(super) to: &'a ActorRef<A>,
    pub(super) message: M,
    pub(super) options: SendOptions,
    pub(super) _index: PhantomData<fn() -> I>,
}

mail_options!(Ask);

impl<'a, A, M, I> Ask<'a, A, M, I>
where
    A: Actor,
    M: Message,
    I: 'static,
    A::Messages: Contains<M, I>,
{
    async fn send(self) -> Result<M::Reply, AskError<M>> {
        let Ask { to, message, options, .. } = self;
        let time = options.timeout.unwrap_or(ASK_TIMEOUT);
        let end = Deadline::after(time);
        let call = Call { name: "ask", in_a_turn: "Context::ask", message: M::NAME };
        if let Err(why) = check_outside_turn(&options, call) {
            return Err(AskError::Refused { message, why });
        }
        let until = to.mailbox.blocked_until(options.priority.lane().into());
        if until > to.runtime.ledger.clock().now() && options.durability != Durability::Volatile {
            return Err(AskError::Refused { message, why: Refused::Blocked { until } });
        }
        let sending = Sending::new(to.route(options.priority), &options, true);
        let patience = Patience::Until(end);
        if options.dedup_id.is_some() {
            return to.ask_once::<M, I>(&sending, message, patience, end).await;
        }
        let (slot, wait) = ReplySlot::new();
        let guard = AskGuard { to, id: MessageId::of(sending.id) };
        let span = tracing::trace_span!("send", mailbox = %to.mailbox.name, message = M::NAME);
        let mail = to.mail::<M, I>(message, Some(slot));
        let sent = match sending.deliver(mail, patience).instrument(span).await {
            Ok(Delivered::New(sent)) => sent,
            Ok(Delivered::Duplicate(mark)) => return Err(AskError::NoReply { id: mark.id }),
            Err(error) => return Err(not_asked(error)),
        };
        let reply = to.reply(sent.id, wait, end).await;
        drop(guard);
        reply
    }
}

/// Forgets who asks, however the ask ends.
struct AskGuard<'a, A: Actor> {
    to: &'a ActorRef<A>,
    id: MessageId,
}

impl<A: Actor> Drop for AskGuard<'_, A> {
    fn drop(&mut self) {
        self.to.mailbox.forget_asker(self.id);
    }
}

fn not_asked<M>(error: SendError<M>) -> AskError<M> {
    match error {
        SendError::Refused { message, why } => AskError::Refused { message, why },
        SendError::Unknown { id, why } => AskError::Unknown { id, why },
    }
}

impl<A: Actor> ActorRef<A> {
    async fn reply<M: Message>(
        &self,
        id: MessageId,
        wait: ReplyWait<M::Reply>,
        end: Deadline,
    ) -> Result<M::Reply, AskError<M>> {
        let Some(answer) = end.limit(wait).await else {
            return Err(AskError::TimedOut { id, after: end.allowed() });
        };
        let ledger = &self.runtime.ledger;
        match answer {
            Ok(Ok(replied)) => {
                if let Some(commit) = &replied.commit
                    && !cfg!(steadfast_bug = "reply_before_durable")
                {
                    ledger.durable(commit).await.map_err(|why| AskError::Unknown { id, why })?;
                }
                Ok(replied.reply)
            }
            Ok(Err(ReplyLost::Failed(why))) => {
                ledger.store().durable_now().await.map_err(|why| AskError::Unknown { id, why })?;
                Err(AskError::Failed { id, why })
            }
            Ok(Err(ReplyLost::Blocked(until))) => Err(AskError::Blocked { id, until }),
            Ok(Err(ReplyLost::Stopped)) | Err(_) => match ledger.store().failure() {
                Some(why) => Err(AskError::Unknown { id, why }),
                None => Err(AskError::NoReply { id }),
            },
        }
    }

    /// An ask whose reply is kept: the same dedup id is answered as the first was.
    async fn ask_once<M, I>(
        &self,
        sending: &Sending<'_>,
        message: M,
        patience: Patience,
        end: Deadline,
    ) -> Result<M::Reply, AskError<M>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        let mail = self.mail::<M, I>(message, None);
        let id = match sending.deliver(mail, patience).await.map_err(not_asked)? {
            Delivered::New(sent) => sent.id,
            Delivered::Duplicate(first) => first.id,
        };
        let hash = sending.options.dedup_id.as_deref().map(marks::hash).unwrap_or_default();
        let kept = self.runtime.kept_reply(self.mailbox.id, hash, id);
        let Some(outcome) = end.limit(kept).await else {
            return Err(AskError::TimedOut { id, after: end.allowed() });
        };
        match outcome.map_err(|why| AskError::Unknown { id, why })? {
            Outcome::Replied(bytes) => codec::decode(&bytes).map_err(|why| AskError::Undecodable { id, why }),
            Outcome::Dead(why) => Err(AskError::Failed { id, why }),
            Outcome::Pending | Outcome::Published(_) => Err(AskError::NoReply { id }),
        }
    }
}

impl<'a, A, M, I> IntoFuture for Ask<'a, A, M, I>
where
    A: Actor,
    M: Message,
    I: 'static,
    A::Messages: Contains<M, I>,
{
    type Output = Result<M::Reply, AskError<M>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
