//! A durable subscription, or a mailbox, as a stream of items that are acknowledged: an actor that hands each of them over, and is
//! done with it when that is.
//!
//! # Invariants
//! - An item is handed over only when the stream is asked for one.
//! - No more items are out than may be in flight: what is not settled holds back what is behind it.
//! - Nothing is handled by a stream that is gone: what it was not given stays where it is.

use std::any::Any;
use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream::{FusedStream, Stream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::delivery::{Delivery, ToSource, Verdict};
use crate::actor::{
    About, Actor, ActorRef, Answered, Asker, Contains, Context, Control, Dispatch, Failure, InBatch,
    KeepReply, List, MailboxOptions, Message, MessageKind, Order, ReplySlot, Running, Runtime, Start, Stored,
    Subscribes, Undecodable, decode_one,
};
use crate::durable::StartFrom;
use crate::error::SpawnError;
use crate::policy::{FailurePolicy, RetryPolicy};

/// The actor that hands items over to a stream.
pub struct Source<M: Message> {
    feed: Arc<Feed<M>>,
}

/// Between the source and its stream.
struct Feed<M> {
    /// One for each item the stream was asked for and not given; closed with the stream.
    demand: Semaphore,
    given: mpsc::UnboundedSender<Delivery<M>>,
}

impl<M: Message> Actor for Source<M> {
    const NAME: &'static str = "steadfast.source";
    type Messages = Fed<M>;
}

impl<M: Message> Source<M> {
    /// Hands an item over, and waits for what becomes of it.
    async fn hand_over(
        &self,
        item: M,
        about: About,
        ctx: &Context<Self>,
        keep: KeepReply,
    ) -> Result<Answered, Failure> {
        let given_back = || Failure::new("it was given back").release();
        tokio::select! {
            biased;
            asked = self.feed.demand.acquire() => asked.map_err(|_| given_back())?.forget(),
            () = ctx.cancelled() => return Err(given_back()),
        }
        let (slot, committed) = ReplySlot::new();
        let (verdict, said) = oneshot::channel();
        let delivery =
            Delivery::new(item, about, ToSource { verdict, committed, runtime: ctx.runtime.clone() });
        // a stream that is gone drops it, which is heard below
        let _ = self.feed.given.send(delivery);
        match said.await.unwrap_or(Verdict::Released) {
            Verdict::Handled => Answered::new((), Some(slot), keep),
            Verdict::Released if cfg!(steadfast_bug = "ack_what_is_dropped") => {
                Answered::new((), Some(slot), keep)
            }
            Verdict::Failed(why) => Err(why),
            Verdict::Released => Err(given_back()),
        }
    }
}

/// The list of messages of a source: one.
pub struct Fed<M>(PhantomData<fn(M)>);

/// The form of that list.
pub struct SourceForm(());

impl<M: Message> List for Fed<M> {
    type Form = SourceForm;
    type Sum = M;
    const LEN: usize = 1;

    fn describe(out: &mut Vec<MessageKind>) {
        M::describe(out);
    }

    fn decode(place: usize, stored: Stored<'_>) -> Option<Result<M, Undecodable>> {
        (place == 0).then(|| decode_one(stored))
    }

    fn place(_: &M) -> usize {
        0
    }

    fn message(item: &M) -> &dyn Any {
        item
    }

    // nobody is answered by a stream: who asks hears that there is no reply
    fn asker(_: &M) -> Option<Asker> {
        None
    }

    fn attach(_: &mut M, _: &Asker) {}
}

// no use to whoever sends an actor what it does not take
#[diagnostic::do_not_recommend]
impl<M: Message> Contains<M, ()> for Fed<M> {
    const PLACE: usize = 0;

    fn wrap(item: M, _: Option<ReplySlot<M::Reply>>) -> M {
        item
    }
}

impl<M: Message> Dispatch<Source<M>, SourceForm> for Fed<M> {
    async fn run(
        item: M,
        source: &mut Source<M>,
        ctx: &mut Context<Source<M>>,
        keep: KeepReply,
    ) -> Result<Answered, Failure> {
        source.hand_over(item, ctx.about(), ctx, keep).await
    }

    async fn run_batch(
        _: Vec<InBatch<M>>,
        _: &mut Source<M>,
        _: &mut Context<Source<M>>,
    ) -> Result<Vec<Result<Answered, Failure>>, Failure> {
        // never asked for
        Err(Failure::new("a source hands over one at a time"))
    }
}

/// A source being opened; awaiting it opens it. See [`System::consume`](crate::System::consume) and
/// [`System::receive`](crate::System::receive).
#[must_use = "nothing is read until it is awaited"]
pub struct Consume<'a, M: Message> {
    name: String,
    options: MailboxOptions,
    in_flight: usize,
    order: Order,
    runtime: &'a Arc<Runtime>,
    runs: Box<dyn Fn(Running) + Send + Sync + 'a>,
    _item: PhantomData<fn(M)>,
}

impl<'a, M: Message> Consume<'a, M> {
    pub(crate) fn new(
        name: String,
        subscribes: Vec<Subscribes>,
        runtime: &'a Arc<Runtime>,
        runs: Box<dyn Fn(Running) + Send + Sync + 'a>,
    ) -> Self {
        let mut options = MailboxOptions::new();
        options.subscribes = subscribes;
        Consume { name, options, in_flight: 1, order: Order::PerKey, runtime, runs, _item: PhantomData }
    }

    /// Where a subscription begins when it is new: with the oldest event that is there, unless this says otherwise.
    pub fn from(mut self, start: StartFrom) -> Self {
        for one in &mut self.options.subscribes {
            match one {
                Subscribes::To(_, from) | Subscribes::Matching(_, _, from) => *from = start,
            }
        }
        self
    }

    /// How many items may be out and not settled. With 1, as without this, they come strictly in order, each when the one before is
    /// settled; 0 counts as 1. With more, those of one [key](crate::Publish::key) come in order, one at a time, and others beside them.
    pub fn in_flight(mut self, items: usize) -> Self {
        self.in_flight = items.max(1);
        self
    }

    /// With several [in flight](Consume::in_flight): in which order they come.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// When and how often an item that [failed](Delivery::nack) comes again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options = self.options.retry(policy);
        self
    }

    /// What is decided about an item that failed, or that was out for longer than its time.
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.options = self.options.on_failure(policy);
        self
    }

    /// How long an item may be out: after that it counts as a failed attempt, and is settled no more by who has it.
    pub fn timeout(mut self, time: std::time::Duration) -> Self {
        self.options = self.options.turn_timeout(time);
        self
    }

    async fn open(self) -> Result<Deliveries<M>, SpawnError> {
        let Consume { name, options, in_flight, order, runtime, runs, .. } = self;
        let order = if in_flight == 1 { Order::Strict } else { order };
        let options = options.workers(in_flight).order(order);
        let (given, items) = mpsc::unbounded_channel();
        let feed = Arc::new(Feed { demand: Semaphore::new(0), given });
        let demand = Arc::downgrade(&feed);
        let factory = Arc::new(move || Source { feed: feed.clone() });
        let (source, running) =
            Start { name, factory, options, link: None, tells_end: true }.start(runtime).await?;
        runs(running);
        Ok(Deliveries { items, feed: demand, source, is_asked: false, has_ended: false })
    }
}

impl<'a, M: Message> IntoFuture for Consume<'a, M> {
    type Output = Result<Deliveries<M>, SpawnError>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

/// The items of a durable source as a stream; from [`System::consume`](crate::System::consume) and
/// [`System::receive`](crate::System::receive). It ends with the system, or when its source was stopped. Dropped, it stops its source;
/// what is out can still be settled.
pub struct Deliveries<M: Message> {
    items: mpsc::UnboundedReceiver<Delivery<M>>,
    /// Gone with the source.
    feed: std::sync::Weak<Feed<M>>,
    source: ActorRef<Source<M>>,
    /// The source owes an item.
    is_asked: bool,
    has_ended: bool,
}

impl<M: Message> Deliveries<M> {
    /// The actor that it is: to send to, to stop, to wait for.
    pub fn source(&self) -> &ActorRef<Source<M>> {
        &self.source
    }
}

#[cfg(test)]
impl<M: Message> Deliveries<M> {
    /// How many items were handed over and not taken.
    pub(crate) fn items_waiting(&self) -> usize {
        self.items.len()
    }
}

impl<M: Message> Stream for Deliveries<M> {
    type Item = Delivery<M>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Delivery<M>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if !self.is_asked
            && let Some(feed) = self.feed.upgrade()
        {
            feed.demand.add_permits(if cfg!(steadfast_bug = "ask_for_more_than_demanded") { 2 } else { 1 });
            self.is_asked = true;
        }
        let given = std::task::ready!(self.items.poll_recv(cx));
        self.is_asked = false;
        self.has_ended = given.is_none();
        Poll::Ready(given)
    }
}

impl<M: Message> FusedStream for Deliveries<M> {
    fn is_terminated(&self) -> bool {
        self.has_ended
    }
}

impl<M: Message> Drop for Deliveries<M> {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.upgrade() {
            feed.demand.close();
        }
        if !cfg!(steadfast_bug = "leave_the_source_running") {
            self.source.mailbox.control.send_modify(|control| *control = (*control).max(Control::Stop));
        }
    }
}

impl<M: Message> fmt::Debug for Deliveries<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deliveries({})", self.source.name())
    }
}
