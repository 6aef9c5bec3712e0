//! Several messages handled in one call and committed as one: what the handler is given, and what it answers.
//!
//! # Invariants
//! - What a handler of batches is, is told to the turn through [`Handler`]: one way leads to every handler.

use std::future::Future;

use super::context::{Context, FromTopic};
use super::failure::Failure;
use super::message::{Actor, Handler, Message};
use crate::clock::Timestamp;
use crate::envelope::{Headers, MessageId, ORDER_KEY};

/// What became of each message of a batch, in its order: the reply, or why that one failed.
pub type Outcomes<M> = Vec<Result<<M as Message>::Reply, Failure>>;

/// How an actor handles several messages at once, such as rows that go to a database in one statement. It is for actors whose
/// `Messages` are this one, and is a [`Handler`] too: without [`Spawn::batch`](crate::Spawn::batch) each batch is one message.
///
/// ```
#[doc = include_str!("../example-prelude.txt")]
/// /// Sums up many numbers at once.
/// struct Ledger;
/// const SUM: Cell<u64> = Cell::new("sum", 1);
///
/// impl Actor for Ledger {
///     const NAME: &'static str = "ledger";
///     type Messages = (Add,);
/// }
/// impl BatchHandler<Add> for Ledger {
///     async fn handle_batch(&mut self, batch: Vec<Item<Add>>, ctx: &mut Context<Self>) -> Result<Outcomes<Add>, Failure> {
///         let mut sum = ctx.state().get(&SUM)?.unwrap_or(0);
///         let outcomes = batch.iter().map(|item| match item.message.amount {
///             0 => Err(Failure::new("nothing to add").terminal()), // this one alone: the others stand
///             amount => { sum += amount; Ok(sum) }
///         }).collect();
///         ctx.state().set(&SUM, &sum)?; // an error here: none of them was handled
///         Ok(outcomes)
///     }
/// }
/// # let system = System::builder().open_in_memory().await?;
/// let ledger = system.spawn("ledger-1", || Ledger).batch(100, Duration::from_millis(5)).await?;
/// ledger.tell_all([Add { amount: 1 }, Add { amount: 0 }, Add { amount: 2 }]).await?;
/// assert_eq!(ledger.ask(Add { amount: 4 }).await?, 7);
/// # Ok(()) }
/// ```
pub trait BatchHandler<M: Message>: Actor {
    /// Handles the messages of one batch, in the order in which they would have been handled one by one. There is at least
    /// one, and at most as many as [`Spawn::batch`](crate::Spawn::batch) says.
    ///
    /// 1. All that succeeded are settled in one commit, with everything done through `ctx`, the state and the replies.
    /// 2. A message whose outcome is a failure is tried again, released or buried as its mailbox's policy says, in the same
    ///    commit, and from then on handled alone. In strict order it holds up those behind it that were not in its batch. The
    ///    others stand, and the actor goes on as it is unless the policy says that it should end. When every outcome is a failure
    ///    nothing done through `ctx` exists.
    /// 3. When the whole call fails (`Err`, a panic, another number of outcomes than of messages) nothing of it exists, and no
    ///    attempt is counted: the actor is made anew and handles each of the messages alone. What each comes to then is its own
    ///    attempt, so one bad message does not drag its neighbours into the dead letters.
    /// 4. After a crash the same messages may come in other batches. The ids of messages sent through `ctx` repeat only for the
    ///    same batch; [`Item::idempotency_key`] is that of the message, however it is batched.
    ///
    /// What `ctx` tells of a message (headers, attempt, deadline) is about the first of the batch;
    /// [`Context::message_id`] is an id of the batch.
    ///
    /// # Errors
    /// A [`Failure`] of the whole batch.
    fn handle_batch(
        &mut self,
        batch: Vec<Item<M>>,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<Outcomes<M>, Failure>> + Send;
}

/// A batch of one.
#[diagnostic::do_not_recommend]
impl<M: Message, A: BatchHandler<M>> Handler<M> for A {
    async fn handle(&mut self, message: M, ctx: &mut Context<Self>) -> Result<M::Reply, Failure> {
        let about = ctx.about();
        let mut outcomes = self.handle_batch(vec![Item::new(message, about)], ctx).await?;
        check_count(1, outcomes.len())?;
        outcomes.pop().unwrap_or_else(|| Err(Failure::new("no outcome")))
    }

    const BATCHES: bool = true;

    fn handle_batch_hidden(
        &mut self,
        items: Vec<Item<M>>,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<Outcomes<M>, Failure>> + Send {
        self.handle_batch(items, ctx)
    }
}

/// Each message has its outcome.
pub(super) fn check_count(given: usize, came: usize) -> Result<(), Failure> {
    let other = || Failure::new(format!("the handler returned {came} outcomes where {given} were wanted"));
    if given == came { Ok(()) } else { Err(other()) }
}

/// One message of a batch.
#[derive(Debug)]
#[non_exhaustive]
pub struct Item<M> {
    /// The message.
    pub message: M,
    about: About,
}

/// What a handler may know of a message beside the message itself.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) id: MessageId,
    pub(crate) attempt: u32,
    pub(crate) sent_at: Timestamp,
    pub(crate) headers: Headers,
    pub(crate) from: Option<FromTopic>,
}

impl<M> Item<M> {
    pub(crate) fn new(message: M, about: About) -> Self {
        Item { message, about }
    }

    /// The message's id.
    pub fn id(&self) -> MessageId {
        self.about.id
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.about.attempt
    }

    /// When the message was sent.
    pub fn sent_at(&self) -> Timestamp {
        self.about.sent_at
    }

    /// The message's headers.
    pub fn headers(&self) -> &Headers {
        &self.about.headers
    }

    /// The message's [key](crate::Tell::key), if it has one.
    pub fn key(&self) -> Option<&str> {
        self.about.headers.get(ORDER_KEY)
    }

    /// As [`Context::topic`], for this message.
    pub fn topic(&self) -> Option<&FromTopic> {
        self.about.from.as_ref()
    }

    /// As [`Context::idempotency_key`], for this message: the same whenever it is handled again, in whatever batch.
    pub fn idempotency_key(&self, label: &str) -> String {
        self.about.id.key_for(label)
    }
}
