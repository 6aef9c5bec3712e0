//! What a handler is given beside its message. What it sends, schedules, buries and writes through here is collected, and
//! exists only when the turn is committed.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::address::{Accepts, Address};
use super::ask::ASK_TIMEOUT;
use super::batch::About;
use super::failure::Failure;
use super::handle::{ActorRef, Recipient};
use super::list::Contains;
use super::mailbox::{Control, Head};
use super::message::{Actor, Message};
use super::options::{Sealing, SendOptions, When, derived_id};
use super::runtime::Runtime;
use super::send::Kind;
use super::solo::Pass;
use super::state::{StateRef, WorkingCopy};
use super::turn::panic_text;
use super::watch::{Terminated, Told};
use super::watchdog::{Broken, Pulse};
use crate::clock::{Deadline, Timestamp};
use crate::codec;
use crate::durable::{Burial, CommitRefused, DeadLetters, Mark, Outcome, Reason, Scheduled, marks};
use crate::envelope::{self, Headers, MessageId, ORDER_KEY};
use crate::error::{AskError, Refused};
use crate::store::{Batch, Condition, Limits, LogId, MailboxId, Origin, StoreError, Urgency, keys};

/// What a handler is given beside its message: the way to send in the turn, the actor's state, and what is known of the
/// message.
///
/// ```
#[doc = include_str!("../example-prelude.txt")]
/// /// Adds up, and has someone else count the additions.
/// struct Relay { counter: Address<Counter> }
///
/// impl Actor for Relay {
///     const NAME: &'static str = "relay";
///     type Messages = (Add,);
/// }
/// impl Handler<Add> for Relay {
///     async fn handle(&mut self, add: Add, ctx: &mut Context<Self>) -> Result<u64, Failure> {
///         let total = ctx.state().get(&TOTAL)?.unwrap_or(0) + add.amount;
///         ctx.state().set(&TOTAL, &total)?;             // stored when the turn is committed
///         ctx.tell(&self.counter, Add { amount: 1 })?;  // sent when the turn is committed
///         Ok(total)                                     // answered when the commit is durable
///     }
/// }
/// # let system = System::builder().open_in_memory().await?;
/// # let counter = system.spawn("counter-1", || Counter).await?;
/// # let address = counter.address();
/// # let relay = system.spawn("relay-1", move || Relay { counter: address.clone() }).await?;
/// assert_eq!(relay.ask(Add { amount: 40 }).await?, 40);
/// assert_eq!(counter.ask(Add { amount: 1 }).await?, 2);
/// # Ok(()) }
/// ```
pub struct Context<A: Actor> {
    pub(crate) runtime: Arc<Runtime>,
    mailbox: MailboxId,
    name: Arc<str>,
    head: Head,
    from: Option<FromTopic>,
    attempt: u32,
    pub(crate) effects: Effects,
    pub(crate) copy: WorkingCopy,
    /// How many turns of this mailbox can run at once.
    workers: usize,
    control: watch::Receiver<Control>,
    pass: Pass,
    pulse: Arc<Pulse>,
    _actor: PhantomData<fn(A)>,
}

/// Where an event comes from; see [`Context::topic`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FromTopic {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The event's sequence number in it.
    pub sequence: u64,
}

/// What a turn will have done, once it is committed.
#[derive(Default)]
pub(crate) struct Effects {
    outgoing: Vec<Outgoing>,
    /// The sealed messages, one after the other.
    sealed: Vec<u8>,
    buried: Vec<(Vec<u8>, String)>,
    /// Marks of replies this turn has read: its commit clears them.
    read: Vec<(MailboxId, [u8; 16], Mark)>,
    /// Sends so far: what their ids are derived from.
    ordinal: u32,
    /// Whom to watch, and how.
    watches: Vec<(String, Told)>,
}

struct Outgoing {
    id: MessageId,
    mailbox: String,
    actor: String,
    kind: Kind,
    lane: u8,
    due: Option<Timestamp>,
    dedup_id: Option<String>,
    sealed: Range<usize>,
}

/// What a message can be sent to in a turn: an [`ActorRef`], an [`Address`] or a [`Recipient`].
pub trait Target<M: Message, I> {
    /// The mailbox's name, and the NAME of the actor it belongs to.
    #[doc(hidden)]
    fn place(&self) -> (&str, &str);
}

impl<A: Actor, M: Message, I> Target<M, I> for ActorRef<A>
where
    A::Messages: Contains<M, I>,
{
    fn place(&self) -> (&str, &str) {
        (self.name(), A::NAME)
    }
}

impl<A: Actor, M: Message, I> Target<M, I> for Address<A>
where
    A::Messages: Contains<M, I>,
{
    fn place(&self) -> (&str, &str) {
        (&self.name, &self.actor)
    }
}

impl<M: Message> Target<M, ()> for Address<dyn Accepts<M>> {
    fn place(&self) -> (&str, &str) {
        (&self.name, &self.actor)
    }
}

impl<M: Message> Target<M, ()> for Recipient<M> {
    fn place(&self) -> (&str, &str) {
        (self.name(), self.actor())
    }
}

/// What a context is made of.
pub(crate) struct Turn<'a> {
    pub(crate) runtime: &'a Arc<Runtime>,
    pub(crate) mailbox: MailboxId,
    pub(crate) name: &'a Arc<str>,
    pub(crate) head: Head,
    pub(crate) from: Option<FromTopic>,
    pub(crate) attempt: u32,
    pub(crate) copy: WorkingCopy,
    pub(crate) workers: usize,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) pass: Pass,
    pub(crate) pulse: Arc<Pulse>,
}

impl<A: Actor> Context<A> {
    pub(crate) fn new(turn: Turn<'_>) -> Self {
        let Turn { runtime, mailbox, name, head, from, attempt, copy, workers, control, pass, pulse } = turn;
        Context {
            runtime: runtime.clone(),
            mailbox,
            name: name.clone(),
            head,
            from,
            attempt,
            effects: Effects::default(),
            copy,
            workers,
            control,
            pass,
            pulse,
            _actor: PhantomData,
        }
    }

    /// The topic this event comes from, and its sequence number there; none for what was sent to the actor itself, for an event
    /// that was tried [later](crate::OnMessage::RetryLater) or put back from the dead letters, and in batches, where each
    /// [`Item`](crate::Item::topic) tells its own.
    pub fn topic(&self) -> Option<&FromTopic> {
        self.from.as_ref()
    }

    /// Sends a message as part of the turn: it is accepted if and when the turn is committed, never refused by the target's
    /// limits, and has the same id whenever the turn is run again.
    ///
    /// # Errors
    /// The message cannot be encoded or is too large.
    pub fn tell<M: Message, I>(&mut self, to: &impl Target<M, I>, message: M) -> Result<MessageId, Refused> {
        self.tell_with(to, message, &SendOptions::new())
    }

    /// As [`Context::tell`], due later: it takes its place in the target's mailbox then.
    ///
    /// # Errors
    /// As [`Context::tell`].
    pub fn schedule<M: Message, I>(
        &mut self,
        to: &impl Target<M, I>,
        message: M,
        when: impl Into<When>,
    ) -> Result<MessageId, Refused> {
        let options = SendOptions { due: Some(when.into()), ..SendOptions::new() };
        self.tell_with(to, message, &options)
    }

    /// As [`Context::tell`], with options.
    ///
    /// # Errors
    /// As [`Context::tell`].
    pub fn tell_with<M: Message, I>(
        &mut self,
        to: &impl Target<M, I>,
        message: M,
        options: &SendOptions,
    ) -> Result<MessageId, Refused> {
        self.collect(to.place(), Kind::Mailbox, &message, options)
    }

    /// Adds to what the turn sends, if it is committed.
    pub(crate) fn collect<M: Message>(
        &mut self,
        (name, owner): (&str, &str),
        kind: Kind,
        message: &M,
        options: &SendOptions,
    ) -> Result<MessageId, Refused> {
        let id = self.next_id::<M>(name);
        let now = self.runtime.ledger.clock().now();
        let mark = kind.reply_mark(options);
        let stored = self.runtime.kind_of(message)?;
        let sealing = Sealing { id, kind: stored, options, now, asks: false, mark };
        let start = self.effects.sealed.len();
        sealing.seal(&self.runtime, message, &mut self.effects.sealed)?;
        self.effects.outgoing.push(Outgoing {
            id: MessageId::of(id),
            mailbox: name.to_owned(),
            actor: owner.to_owned(),
            kind,
            lane: options.priority.lane(),
            due: options.due.map(|due| due.at(now)),
            dedup_id: options.dedup_id.clone(),
            sealed: start..self.effects.sealed.len(),
        });
        Ok(MessageId::of(id))
    }

    /// Sends a message at once and waits for its reply, at most 30 s.
    ///
    /// It is sent whether or not this turn succeeds; when the turn is run again, the same ask is not handled twice but gets the
    /// same reply, which is kept until the turn is committed.
    ///
    /// # Errors
    /// See [`AskError`]; [`Refused::AskCycle`] when the target waits for this actor.
    pub async fn ask<M: Message, I>(
        &mut self,
        to: &impl Target<M, I>,
        message: M,
    ) -> Result<M::Reply, AskError<M>> {
        self.ask_within(to, message, ASK_TIMEOUT).await
    }

    /// As [`Context::ask`], waiting at most `time`.
    ///
    /// # Errors
    /// As [`Context::ask`].
    pub async fn ask_within<M: Message, I>(
        &mut self,
        to: &impl Target<M, I>,
        message: M,
        time: Duration,
    ) -> Result<M::Reply, AskError<M>> {
        let (mailbox, actor) = to.place();
        let end = Deadline::after(time);
        let id = self.next_id::<M>(mailbox);
        let mut sent = Batch::default();
        let target = match self.seal_ask(mailbox, actor, id, &message, &mut sent).await {
            Ok(target) => target,
            Err(why) => return Err(AskError::Refused { message, why }),
        };
        let Some(asking) = self.runtime.begin_asking(self.mailbox, self.workers, target) else {
            let why = Refused::AskCycle { mailbox: mailbox.to_owned() };
            return Err(AskError::Refused { message, why });
        };
        let id = MessageId::of(id);
        let hash = *id.as_bytes();
        if let Err(why) = self.send_ask(target, hash, sent, end).await {
            return Err(AskError::Refused { message, why });
        }
        let unknown = |why| AskError::Unknown { id, why };
        self.pass.step_aside().await.map_err(unknown)?;
        let kept = end.limit(self.runtime.kept_reply_in_turn(target, hash, id)).await;
        self.pass.come_back().await.map_err(unknown)?;
        let Some(kept) = kept else {
            return Err(AskError::TimedOut { id, after: time });
        };
        drop(asking);
        let (outcome, _) = kept.map_err(unknown)?;
        if let Some(mark) = self.runtime.ledger.mark(target, hash).await.map_err(unknown)? {
            self.effects.read.push((target, hash, mark));
        }
        match outcome {
            Outcome::Replied(bytes) => codec::decode(&bytes).map_err(|why| AskError::Undecodable { id, why }),
            Outcome::Dead(why) => Err(AskError::Failed { id, why }),
            Outcome::Pending | Outcome::Published(_) => Err(AskError::NoReply { id }),
        }
    }

    async fn seal_ask<M: Message>(
        &self,
        mailbox: &str,
        actor: &str,
        id: uuid::Uuid,
        message: &M,
        batch: &mut Batch,
    ) -> Result<MailboxId, Refused> {
        let options = SendOptions::new();
        let now = self.runtime.ledger.clock().now();
        let kind = self.runtime.kind_of(message)?;
        let hash = id.into_bytes();
        let sealing = Sealing { id, kind, options: &options, now, asks: true, mark: Some(hash) };
        let target = self.runtime.ledger.mailbox(mailbox, actor, None).await?;
        batch.require(Condition::Room { mailbox: target });
        batch.require(Condition::Absent { key: keys::mark(target, hash), seen: None });
        let log = LogId { mailbox: target, lane: options.priority.lane() };
        batch.append(log, |out| sealing.seal(&self.runtime, message, out))?;
        let payload = batch.appended().and_then(|sealed| envelope::open(sealed).ok());
        let payload = payload.map(|opened| marks::payload_hash(opened.name, opened.body)).unwrap_or_default();
        Mark { id: MessageId::of(id), payload, at: now, outcome: Outcome::Pending }
            .put(target, hash, batch)?;
        Ok(target)
    }

    /// Commits the ask, unless a run of this turn before did.
    async fn send_ask(
        &self,
        target: MailboxId,
        hash: [u8; 16],
        mut batch: Batch,
        end: Deadline,
    ) -> Result<(), Refused> {
        let key = keys::mark(target, hash);
        let mut in_line = None;
        loop {
            match self.runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
                Ok(_) => return Ok(()),
                Err(CommitRefused::Key(taken)) if taken == key => return Ok(()),
                Err(CommitRefused::Full { waiting, bytes, limits, room }) => {
                    let Limits { count: limit, bytes: limit_bytes } = limits;
                    let mailbox = self.runtime.ledger.mailbox_name(target).await?.unwrap_or_default();
                    let full = Refused::Full { mailbox, waiting, bytes, limit, limit_bytes };
                    in_line.get_or_insert_with(|| self.runtime.ledger.store().in_line(target));
                    let waited = end.limit(room.rung()).await;
                    waited.ok_or_else(|| Refused::TimedOut(end.allowed(), Box::new(full)))?;
                }
                Err(CommitRefused::Refused(why)) => return Err(why),
                Err(_) => return Err(Refused::Store(StoreError::Closed)),
            }
        }
    }

    fn next_id<M: Message>(&mut self, mailbox: &str) -> uuid::Uuid {
        let ordinal = self.effects.ordinal;
        self.effects.ordinal += 1;
        if cfg!(steadfast_bug = "fresh_ids_in_turns") {
            return self.runtime.ledger.clock().id();
        }
        derived_id(self.head.id, ordinal, mailbox, M::NAME)
    }

    /// Has this actor told when `target` has ended for good, that is, is not started again by its supervisor: with a
    /// [`Terminated`] message, which must be among its `Messages`. If it does not run, and no supervisor is about to start it
    /// again, that is told at once.
    ///
    /// The watch begins when the turn is committed, is over once it has been told, and ends with the run of this actor: watch again
    /// in [`started`](Actor::started). The end of the system, and a crash, are told to nobody.
    pub fn watch<B: Actor, I>(&mut self, target: &Address<B>)
    where
        A::Messages: Contains<Terminated, I>,
    {
        self.effects.watches.push((target.name.clone(), Told::Message));
    }

    /// Takes back a [`watch`](Context::watch) or a [`link`](Context::link), at once.
    pub fn unwatch<B: Actor>(&mut self, target: &Address<B>) {
        self.effects.watches.retain(|(name, _)| *name != target.name);
        self.runtime.unwatch(&self.name, &target.name);
    }

    /// Binds this actor's life to that of `target`: when it has ended abnormally, or does not run, this one ends as failed after
    /// the turn that runs, and its supervisor does what it does then. Otherwise as [`watch`](Context::watch).
    pub fn link<B: Actor>(&mut self, target: &Address<B>) {
        self.effects.watches.push((target.name.clone(), Told::Pact));
    }

    /// Puts bytes that cannot be handled into the dead letters, as part of the turn.
    pub fn bury(&mut self, bytes: impl Into<Vec<u8>>, reason: impl Into<String>) {
        self.effects.buried.push((bytes.into(), reason.into()));
    }

    /// The actor's durable state.
    pub fn state(&mut self) -> StateRef<'_> {
        StateRef { runtime: &self.runtime, mailbox: self.mailbox, copy: &mut self.copy }
    }

    /// Waits until everything this handler can have seen is on disk, synced: to be called before touching the outside world.
    ///
    /// # Errors
    /// The store failed.
    pub async fn durable(&self) -> Result<(), StoreError> {
        self.runtime.ledger.store().durable_now().await
    }

    /// Runs what blocks its thread, such as work for the processor or calls that wait, on a thread of its own, and gives its value.
    ///
    /// When the turn is thrown away meanwhile, by its timeout or the end of the actor, the closure still runs to its end: nothing
    /// ends it. The message is not tried again, nor is another handled, before it has; an end of the system that does not wait so
    /// long says so in [`ShutdownError::Stuck`](crate::ShutdownError::Stuck).
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// struct Primes;
    /// impl Actor for Primes {
    ///     const NAME: &'static str = "primes";
    ///     type Messages = (Add,);
    /// }
    /// impl Handler<Add> for Primes {
    ///     async fn handle(&mut self, add: Add, ctx: &mut Context<Self>) -> Result<u64, Failure> {
    ///         let is_prime = move |n: &u64| (2..*n).all(|d| !n.is_multiple_of(d));
    ///         Ok(ctx.blocking(move || (2..add.amount).filter(is_prime).count() as u64).await?)
    ///     }
    /// }
    /// # let system = System::builder().open_in_memory().await?;
    /// # let primes = system.spawn("primes", || Primes).await?;
    /// assert_eq!(primes.ask(Add { amount: 100 }).await?, 25);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The closure panicked, or the runtime ends.
    pub async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.pulse.clone().blocking(run).await.map_err(|broken| match broken {
            Broken::Panicked(panic) => Failure::panicked(panic_text(&*panic)),
            Broken::Ending => Failure::new("the runtime ends").release(),
        })
    }

    /// Which attempt this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The id of the message.
    pub fn message_id(&self) -> MessageId {
        self.head.id
    }

    /// When the message was sent.
    pub fn sent_at(&self) -> Timestamp {
        self.head.sent_at
    }

    /// When the message expires, if it does.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.head.expires
    }

    /// The message's headers.
    pub fn headers(&self) -> &Headers {
        &self.head.headers
    }

    /// The message's [key](crate::Tell::key), if it has one.
    pub fn key(&self) -> Option<&str> {
        self.head.headers.get(ORDER_KEY)
    }

    /// The actor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The actor's own address.
    pub fn address(&self) -> Address<A> {
        Address::checked(self.name.to_string())
    }

    /// The time, by the system's clock.
    pub fn now(&self) -> Timestamp {
        self.runtime.ledger.clock().now()
    }

    /// A key that is the same whenever this message is handled again: for calls to the outside world that take one.
    pub fn idempotency_key(&self, label: &str) -> String {
        self.head.id.key_for(label)
    }

    /// What a handler of batches may know of the message.
    pub(crate) fn about(&self) -> About {
        self.head.about(self.attempt, self.from.clone())
    }

    /// Resolves when the actor is asked to end: a long handler should come to a good place and return.
    pub async fn cancelled(&self) {
        let mut control = self.control.clone();
        if control.wait_for(|control| *control >= Control::Stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        let runtime = Arc::new(Runtime::for_test());
        let head = Head {
            id: MessageId::from_bytes([1; 16]),
            sent_at: Timestamp::default(),
            expires: None,
            mark: None,
            headers: Headers::new(),
        };
        Context::new(Turn {
            runtime: &runtime,
            mailbox: 1,
            name: &"test".into(),
            head,
            from: None,
            attempt: 1,
            copy: WorkingCopy::new(Default::default(), false),
            workers: 1,
            control: watch::Sender::new(Control::Run).subscribe(),
            pass: Pass::default(),
            pulse: Pulse::for_test(),
        })
    }
}

/// The turn that settles effects, as they need it.
pub(crate) struct Settling<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) mailbox: MailboxId,
    pub(crate) name: &'a str,
    pub(crate) incoming: MessageId,
}

impl Effects {
    /// Adds everything to the batch. Returns the mailboxes that get mail.
    pub(crate) async fn settle(
        &self,
        turn: &Settling<'_>,
        batch: &mut Batch,
    ) -> Result<Vec<MailboxId>, Refused> {
        let mut targets = Vec::new();
        let mut marked = HashMap::new();
        for outgoing in &self.outgoing {
            let target = turn.runtime.ledger.mailbox(&outgoing.mailbox, &outgoing.actor, None).await?;
            let sealed = &self.sealed[outgoing.sealed.clone()];
            if self.is_duplicate(turn, outgoing, target, sealed, &mut marked, batch).await? {
                continue;
            }
            let log = LogId { mailbox: target, lane: outgoing.lane };
            match outgoing.due {
                Some(due) => {
                    let is_event = outgoing.kind == Kind::Topic;
                    let scheduled = Scheduled { target: log, envelope: sealed.to_vec(), is_event };
                    scheduled.put(due, outgoing.id, batch)?;
                }
                None => {
                    batch.append(log, |out| {
                        out.extend_from_slice(sealed);
                        Ok::<_, Refused>(())
                    })?;
                    targets.push(target);
                }
            }
            // behind what it marks, whose place it may remember
            if let Some(dedup_id) = &outgoing.dedup_id
                && let Some(mark) = marked.get(&(target, marks::hash(dedup_id)))
            {
                let is_delayed = outgoing.due.is_some();
                outgoing.kind.put_mark(mark.clone(), dedup_id, is_delayed, log, batch)?;
            }
        }
        self.settle_buried(turn, batch)?;
        for (mailbox, hash, mark) in &self.read {
            if cfg!(steadfast_bug = "keep_the_answer_of_an_ask") {
                continue;
            }
            mark.delete(*mailbox, *hash, batch);
        }
        Ok(targets)
    }

    /// Begins the watches of a committed turn.
    pub(crate) async fn watch(&self, runtime: &Runtime, watcher: &Arc<str>) {
        for (target, told) in &self.watches {
            runtime.watch(watcher, target, *told).await;
        }
    }

    /// Whether this turn puts something on the schedule.
    pub(crate) fn schedules(&self) -> bool {
        self.outgoing.iter().any(|outgoing| outgoing.due.is_some())
    }

    /// Whether a message with the same dedup id was accepted before; if not, `marked` remembers this one.
    async fn is_duplicate(
        &self,
        turn: &Settling<'_>,
        outgoing: &Outgoing,
        target: MailboxId,
        sealed: &[u8],
        marked: &mut HashMap<(MailboxId, [u8; 16]), Mark>,
        batch: &mut Batch,
    ) -> Result<bool, Refused> {
        let Some(dedup_id) = &outgoing.dedup_id else { return Ok(false) };
        let hash = marks::hash(dedup_id);
        let payload = envelope::open(sealed).map(|opened| marks::payload_hash(opened.name, opened.body));
        let payload = payload.unwrap_or_default();
        if let Some(first) = marked.get(&(target, hash)) {
            return first.clone().answers(dedup_id, payload).map(|_| true);
        }
        let ledger = &turn.runtime.ledger;
        if ledger.earlier(target, dedup_id, payload, batch).await?.is_some() {
            return Ok(true);
        }
        let (id, at) = (outgoing.id, ledger.clock().now());
        marked.insert((target, hash), Mark { id, payload, at, outcome: Outcome::Pending });
        Ok(false)
    }

    fn settle_buried(&self, turn: &Settling<'_>, batch: &mut Batch) -> Result<(), Refused> {
        for (index, (bytes, reason)) in self.buried.iter().enumerate() {
            let id = derived_id(turn.incoming, index as u32, turn.name, "buried");
            let burial = Burial {
                log: LogId { mailbox: turn.mailbox, lane: 1 },
                mailbox: turn.name,
                id: MessageId::of(id),
                at: turn.runtime.ledger.clock().now(),
                reason: Reason::Buried(reason.clone()),
                attempts: Default::default(),
            };
            DeadLetters::bury_bytes(burial, bytes.clone(), batch)?;
        }
        Ok(())
    }
}
