//! What a handler is given beside its message. What it sends, schedules, buries and writes through here is collected, and
//! exists only when the turn is committed.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::address::{Accepts, Address};
use super::handle::{ActorRef, Recipient};
use super::list::Contains;
use super::mailbox::{Control, Head};
use super::message::{Actor, Message};
use super::options::{Sealing, SendOptions, When, derived_id};
use super::runtime::Runtime;
use super::send::ASK_TIMEOUT;
use super::state::{StateRef, WorkingCopy};
use crate::clock::{Deadline, Timestamp};
use crate::codec;
use crate::durable::{Burial, CommitRefused, DeadLetters, Mark, Outcome, Reason, Scheduled, marks};
use crate::envelope::{self, Headers, MessageId};
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
    attempt: u32,
    pub(crate) effects: Effects,
    pub(crate) copy: WorkingCopy,
    control: watch::Receiver<Control>,
    _actor: PhantomData<fn(A)>,
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
}

struct Outgoing {
    id: MessageId,
    mailbox: String,
    actor: String,
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
    pub(crate) attempt: u32,
    pub(crate) copy: WorkingCopy,
    pub(crate) control: watch::Receiver<Control>,
}

impl<A: Actor> Context<A> {
    pub(crate) fn new(turn: Turn<'_>) -> Self {
        let Turn { runtime, mailbox, name, head, attempt, copy, control } = turn;
        Context {
            runtime: runtime.clone(),
            mailbox,
            name: name.clone(),
            head,
            attempt,
            effects: Effects::default(),
            copy,
            control,
            _actor: PhantomData,
        }
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
        let (mailbox, actor) = to.place();
        let id = self.next_id::<M>(mailbox);
        let now = self.runtime.ledger.clock().now();
        let sealing = Sealing {
            id,
            kind: self.runtime.kind_of(&message)?,
            options,
            now,
            asks: false,
            mark: options.dedup_id.as_deref().map(marks::hash),
        };
        let start = self.effects.sealed.len();
        sealing.seal(&self.runtime, &message, &mut self.effects.sealed)?;
        self.effects.outgoing.push(Outgoing {
            id: MessageId::of(id),
            mailbox: mailbox.to_owned(),
            actor: actor.to_owned(),
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
        let Some(asking) = self.runtime.begin_asking(self.mailbox, target) else {
            let why = Refused::AskCycle { mailbox: mailbox.to_owned() };
            return Err(AskError::Refused { message, why });
        };
        let id = MessageId::of(id);
        let hash = *id.as_bytes();
        if let Err(why) = self.send_ask(target, hash, sent, end).await {
            return Err(AskError::Refused { message, why });
        }
        let kept = self.runtime.kept_reply_in_turn(target, hash, id);
        let Some(kept) = end.limit(kept).await else {
            return Err(AskError::TimedOut { id, after: time });
        };
        drop(asking);
        let unknown = |why| AskError::Unknown { id, why };
        let (outcome, _) = kept.map_err(unknown)?;
        if let Some(mark) = self.runtime.ledger.mark(target, hash).await.map_err(unknown)? {
            self.effects.read.push((target, hash, mark));
        }
        match outcome {
            Outcome::Replied(bytes) => codec::decode(&bytes).map_err(|why| AskError::Undecodable { id, why }),
            Outcome::Dead(why) => Err(AskError::Failed { id, why }),
            Outcome::Pending => Err(AskError::NoReply { id }),
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
        loop {
            match self.runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
                Ok(_) => return Ok(()),
                Err(CommitRefused::Key(taken)) if taken == key => return Ok(()),
                Err(CommitRefused::Full { waiting, bytes, limits, room }) => {
                    let Limits { count: limit, bytes: limit_bytes } = limits;
                    let mailbox = self.runtime.ledger.mailbox_name(target).await?.unwrap_or_default();
                    let full = Refused::Full { mailbox, waiting, bytes, limit, limit_bytes };
                    let waited = end.limit(room.notified()).await;
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
        uuid::Uuid::new_v5(&self.head.id.uuid(), label.as_bytes()).to_string()
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
            attempt: 1,
            copy: WorkingCopy::new(Default::default()),
            control: watch::Sender::new(Control::Run).subscribe(),
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
                    let scheduled = Scheduled { target: log, envelope: sealed.to_vec() };
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

    /// Whether this turn puts something on the schedule.
    pub(crate) fn schedules(&self) -> bool {
        self.outgoing.iter().any(|outgoing| outgoing.due.is_some())
    }

    /// Whether a message with the same dedup id was accepted before; if not, remembers this one.
    async fn is_duplicate(
        &self,
        turn: &Settling<'_>,
        outgoing: &Outgoing,
        target: MailboxId,
        sealed: &[u8],
        marked: &mut HashMap<Vec<u8>, Mark>,
        batch: &mut Batch,
    ) -> Result<bool, Refused> {
        let Some(dedup_id) = &outgoing.dedup_id else { return Ok(false) };
        let now = turn.runtime.ledger.clock().now();
        let hash = marks::hash(dedup_id);
        let key = keys::mark(target, hash);
        let payload = envelope::open(sealed).map(|opened| marks::payload_hash(opened.name, opened.body));
        let payload = payload.unwrap_or_default();
        let is_first = |first: &Mark| match first.payload == payload {
            true => Ok(true),
            false => Err(Refused::DedupConflict { dedup_id: dedup_id.clone(), first: first.id }),
        };
        if let Some(first) = marked.get(&key) {
            return is_first(first);
        }
        let (stored, seen) = turn.runtime.ledger.get_seen(key.clone()).await?;
        match stored.map(|bytes| Mark::decode(&bytes)).transpose()? {
            Some(mark) if !mark.is_over(now) => return is_first(&mark),
            Some(old) => {
                batch.require(Condition::Present { key: key.clone(), seen: Some(seen) });
                old.delete(target, hash, batch);
            }
            None => batch.require(Condition::Absent { key: key.clone(), seen: Some(seen) }),
        }
        let mark = Mark { id: outgoing.id, payload, at: now, outcome: Outcome::Pending };
        mark.put(target, hash, batch)?;
        marked.insert(key, mark);
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
