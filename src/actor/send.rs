//! Sending from outside a turn: from a message and its options to a commit, and the futures that callers await.
//!
//! # Invariants
//! - A message that was refused is handed back, and lies nowhere.
//! - Between admission and the mailbox in memory nobody else can come: both happen under the mailbox's lock.
//! - `Ok` of a synced send comes after the sync that covers it, and of a duplicate after that of the first.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tracing::Instrument;

use super::handle::ActorRef;
use super::list::Contains;
use super::mailbox::{Body, Head, Letter, Mailbox, Place};
use super::message::{Actor, Message};
use super::options::{Durability, Priority, Sealing, SendOptions, When};
use super::receipt::Receipt;
use super::reply::{ReplyLost, ReplySlot, ReplyWait};
use super::runtime::is_in_turn;
use crate::clock::{Deadline, Timestamp};
use crate::codec;
use crate::durable::{CommitRefused, Mark, Outcome, Scheduled, marks};
use crate::envelope::MessageId;
use crate::error::{AskError, Refused, SendError};
use crate::store::{Admitted, Batch, Condition, LogId, Origin, Refusal, Slot, StoreError, Urgency, keys};

/// The default time an ask waits for its reply.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// A send being built; awaiting it sends. See [`ActorRef::tell`].
#[must_use = "nothing is sent until it is awaited, or `submit` is called"]
pub struct Tell<'a, A: Actor, M, I> {
    pub(super) to: &'a ActorRef<A>,
    pub(super) message: M,
    pub(super) options: SendOptions,
    pub(super) _index: PhantomData<fn() -> I>,
}

/// An ask being built; awaiting it sends and waits for the reply. See [`ActorRef::ask`].
#[must_use = "nothing is sent until it is awaited"]
pub struct Ask<'a, A: Actor, M, I> {
    pub(super) to: &'a ActorRef<A>,
    pub(super) message: M,
    pub(super) options: SendOptions,
    pub(super) _index: PhantomData<fn() -> I>,
}

macro_rules! options {
    ($Builder:ident) => {
        impl<A: Actor, M, I> $Builder<'_, A, M, I> {
            /// Takes its place in the mailbox only after this time.
            pub fn delay(mut self, delay: Duration) -> Self {
                self.options.due = Some(When::In(delay));
                self
            }

            /// Takes its place in the mailbox only at this time.
            pub fn at(mut self, due: Timestamp) -> Self {
                self.options.due = Some(When::At(due));
                self
            }

            /// The priority.
            pub fn priority(mut self, priority: Priority) -> Self {
                self.options.priority = priority;
                self
            }

            /// Not handled any more when this time has passed since the send.
            pub fn expires(mut self, after: Duration) -> Self {
                self.options.expires = Some(When::In(after));
                self
            }

            /// A duplicate with the same id, to the same mailbox within 24 hours, is accepted once.
            pub fn dedup_id(mut self, id: impl Into<String>) -> Self {
                self.options.dedup_id = Some(id.into());
                self
            }

            /// What `Ok` means; see [`Durability`].
            pub fn durability(mut self, durability: Durability) -> Self {
                self.options.durability = durability;
                self
            }

            /// A header; a key that is there already is replaced.
            pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
                self.options.headers.insert(key, value);
                self
            }

            /// How long to wait: for room in the mailbox, and for the reply of an ask.
            pub fn timeout(mut self, time: Duration) -> Self {
                self.options.timeout = Some(time);
                self
            }

            /// Sends although this code runs in a turn: the message stands even if the turn fails.
            pub fn outside_turn(mut self) -> Self {
                self.options.outside_turn = true;
                self
            }
        }
    };
}

options!(Tell);
options!(Ask);

/// A message that was taken.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) id: MessageId,
    /// None for volatile messages.
    pub(super) commit: Option<Admitted>,
}

/// How the message came to be sent again: by its dedup id.
pub(super) enum Duplicate {
    /// Nobody sent it before, or too long ago.
    New(Sent),
    /// The first has this mark.
    Of(Mark),
}

/// One send: the target, and how.
struct Sending<'a, A: Actor> {
    to: &'a ActorRef<A>,
    options: &'a SendOptions,
    id: uuid::Uuid,
    asks: bool,
    urgency: Urgency,
}

impl<A: Actor> Sending<'_, A> {
    fn log(&self) -> LogId {
        LogId { mailbox: self.to.mailbox.id, lane: self.options.priority.lane() }
    }

    /// The batch that sends the message; and the head that goes with it in memory.
    fn batch<M, I>(&self, message: &M, batch: &mut Batch) -> Result<Head, Refused>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        let runtime = &self.to.runtime;
        let sealing = Sealing {
            id: self.id,
            kind: runtime.kind_of(message)?,
            options: self.options,
            now: runtime.ledger.clock().now(),
            asks: self.asks,
            mark: self.options.dedup_id.as_deref().map(marks::hash),
        };
        let id = MessageId::of(self.id);
        match self.options.due {
            Some(due) => {
                let mut envelope = Vec::new();
                sealing.seal(runtime, message, &mut envelope)?;
                let scheduled = Scheduled { target: self.log(), envelope };
                scheduled.put(due.at(sealing.now), id, batch)?;
            }
            None => {
                if !cfg!(steadfast_bug = "ignore_the_capacity") {
                    batch.require(Condition::Room { mailbox: self.to.mailbox.id });
                }
                batch.append(self.log(), |out| sealing.seal(runtime, message, out))?;
            }
        }
        Ok(Head {
            id,
            sent_at: sealing.now,
            expires: sealing.expires(),
            mark: sealing.mark,
            headers: self.options.headers.clone(),
        })
    }

    /// Admits the batch and keeps the message in memory, under one lock.
    fn admit<M, I>(
        &self,
        batch: &Batch,
        head: Head,
        message: M,
        slot: Option<ReplySlot<M::Reply>>,
    ) -> Result<Sent, (M, Option<ReplySlot<M::Reply>>, Refusal)>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        let mailbox = &self.to.mailbox;
        let mut quick = mailbox.quick();
        let admitted = match self.to.runtime.ledger.try_commit(batch, Origin::Outside, self.urgency) {
            Ok(admitted) => admitted,
            Err(refusal) => return Err((message, slot, refusal)),
        };
        let id = head.id;
        if let Some(position) = admitted.positions.first() {
            let asker = slot.as_ref().map(ReplySlot::asker);
            let len = batch.appended_len();
            let place = Some(Place { log: self.log(), position: *position, len });
            let body = Body::Decoded(<A::Messages as Contains<M, I>>::wrap(message, slot));
            quick.push(*position, Letter { place, head, body, asker }, mailbox.running_now());
        } else if self.options.due.is_some() {
            if let Some(slot) = slot {
                quick.remember_asker(id, usize::from(self.log().lane), slot.asker());
            }
            if !cfg!(steadfast_bug = "tell_no_timekeeper") {
                self.to.runtime.scheduled.notify_one();
            }
        }
        Ok(Sent { id, commit: Some(admitted) })
    }

    /// Refuses options that only a stored message can have.
    fn check_volatile(&self) -> Result<(), Refused> {
        let option = match (self.options.due, &self.options.dedup_id) {
            (Some(_), _) => "delay",
            (None, Some(_)) => "dedup_id",
            (None, None) => return Ok(()),
        };
        Err(Refused::NotVolatile { option })
    }

    /// Queues the message in memory, or gives it back when there is no room.
    fn volatile<M, I>(&self, message: M, slot: Option<ReplySlot<M::Reply>>) -> Result<Sent, Unsent<M>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        let now = self.to.runtime.ledger.clock().now();
        let id = MessageId::of(self.id);
        let expires = self.options.expires.map(|expires| expires.at(now));
        let headers = self.options.headers.clone();
        let head = Head { id, sent_at: now, expires, mark: None, headers };
        self.to.mailbox.push_volatile((message, slot), |(message, slot)| {
            let asker = slot.as_ref().map(ReplySlot::asker);
            let body = Body::Decoded(<A::Messages as Contains<M, I>>::wrap(message, slot));
            Letter { place: None, head, body, asker }
        })?;
        Ok(Sent { id, commit: None })
    }
}

/// A message that was not taken, with the slot for its reply.
type Unsent<M> = (M, Option<ReplySlot<<M as Message>::Reply>>);

fn refused<M>(message: M, why: impl Into<Refused>) -> SendError<M> {
    SendError::Refused { message, why: why.into() }
}

/// Refuses what would stand although the turn it is called in fails.
fn check_outside_turn(
    options: &SendOptions,
    call: &'static str,
    instead: &'static str,
) -> Result<(), Refused> {
    match !options.outside_turn && is_in_turn() && !cfg!(steadfast_bug = "send_past_the_turn") {
        true => Err(Refused::InsideTurn { call, instead }),
        false => Ok(()),
    }
}

impl<A: Actor> ActorRef<A> {
    fn sending<'a>(&'a self, options: &'a SendOptions, asks: bool) -> Sending<'a, A> {
        let urgent = !asks && options.durability == Durability::Synced;
        let urgency = if urgent { Urgency::Now } else { Urgency::Soon };
        Sending { to: self, options, id: self.runtime.ledger.clock().id(), asks, urgency }
    }

    /// Sends, waiting for whatever has to be waited for.
    async fn deliver<M, I>(
        &self,
        sending: &Sending<'_, A>,
        message: M,
        slot: Option<ReplySlot<M::Reply>>,
        patience: Patience,
    ) -> Result<Duplicate, SendError<M>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        if sending.options.durability == Durability::Volatile {
            return self.deliver_volatile(sending, message, slot, patience).await.map(Duplicate::New);
        }
        let mut unsent = (message, slot);
        let mut waited = false;
        loop {
            let (message, slot) = unsent;
            let mut batch = Batch::default();
            let head = match sending.batch(&message, &mut batch) {
                Ok(head) => head,
                Err(why) => return Err(refused(message, why)),
            };
            if let Some(dedup_id) = &sending.options.dedup_id {
                let payload = match payload_of(&message) {
                    Ok(payload) => payload,
                    Err(why) => return Err(refused(message, why)),
                };
                match self.dedup(dedup_id, head.id, payload, &mut batch).await {
                    Ok(None) => {}
                    Ok(Some(mark)) => return Ok(Duplicate::Of(mark)),
                    Err(why) => return Err(refused(message, why)),
                }
            }
            let refusal = match sending.admit(&batch, head, message, slot) {
                Ok(sent) => {
                    if waited {
                        // there may be room for another who waits
                        self.pass_room_on();
                    }
                    return Ok(Duplicate::New(sent));
                }
                Err((message, slot, refusal)) => {
                    unsent = (message, slot);
                    refusal
                }
            };
            if let Err(why) = self.wait_after(&mut batch, refusal, patience).await {
                return Err(refused(unsent.0, why));
            }
            waited = true;
        }
    }

    /// Waits for what the refusal is about, or says that waiting is of no use.
    async fn wait_after(
        &self,
        batch: &mut Batch,
        refusal: Refusal,
        patience: Patience,
    ) -> Result<(), Refused> {
        if matches!(refusal, Refusal::Busy) {
            patience.check(|| Refused::Busy)?;
        }
        match self.runtime.ledger.look_again(batch, refusal, Origin::Outside).await {
            Ok(()) | Err(CommitRefused::Key(_)) => Ok(()),
            Err(CommitRefused::Full { waiting, bytes, limits, room }) => {
                patience.check(|| self.full(waiting, bytes, limits.count, limits.bytes))?;
                // whatever keeps a wake-up from coming: a look now and then costs nothing
                let _ = tokio::time::timeout(patience.left(), room.notified()).await;
                Ok(())
            }
            Err(CommitRefused::Refused(why)) => Err(why),
            Err(CommitRefused::Gone | CommitRefused::Fenced) => Err(Refused::Store(StoreError::Closed)),
        }
    }

    async fn deliver_volatile<M, I>(
        &self,
        sending: &Sending<'_, A>,
        message: M,
        slot: Option<ReplySlot<M::Reply>>,
        patience: Patience,
    ) -> Result<Sent, SendError<M>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        if let Err(why) = sending.check_volatile() {
            return Err(refused(message, why));
        }
        let mut unsent = (message, slot);
        loop {
            let room = self.mailbox.volatile_room().notified();
            tokio::pin!(room);
            room.as_mut().enable();
            unsent = match sending.volatile(unsent.0, unsent.1) {
                Ok(sent) => return Ok(sent),
                Err(unsent) => unsent,
            };
            let limit = Mailbox::<A>::volatile_limit();
            if let Err(why) = patience.check(|| self.full(limit, 0, limit, 0)) {
                return Err(refused(unsent.0, why));
            }
            let _ = tokio::time::timeout(patience.left(), room).await;
        }
    }

    fn full(&self, waiting: u64, bytes: u64, limit: u64, limit_bytes: u64) -> Refused {
        Refused::Full { mailbox: self.mailbox.name.to_string(), waiting, bytes, limit, limit_bytes }
    }

    /// Looks the dedup id up, and adds to the batch what remembers it. Returns the mark of an earlier message with the same
    /// id and payload.
    async fn dedup(
        &self,
        dedup_id: &str,
        id: MessageId,
        payload: [u8; 16],
        batch: &mut Batch,
    ) -> Result<Option<Mark>, Refused> {
        let runtime = &self.runtime;
        let (mailbox, hash) = (self.mailbox.id, marks::hash(dedup_id));
        let now = runtime.ledger.clock().now();
        let key = keys::mark(mailbox, hash);
        let (stored, seen) = runtime.ledger.get_seen(key.clone()).await?;
        match stored.map(|bytes| Mark::decode(&bytes)).transpose()? {
            Some(first) if !first.is_over(now) => {
                if cfg!(steadfast_bug = "accept_duplicates") {
                    return Ok(None);
                }
                if first.payload != payload {
                    return Err(Refused::DedupConflict { dedup_id: dedup_id.into(), first: first.id });
                }
                return Ok(Some(first));
            }
            Some(old) => {
                batch.require(Condition::Present { key, seen: Some(seen) });
                old.delete(mailbox, hash, batch);
            }
            None => batch.require(Condition::Absent { key, seen: Some(seen) }),
        }
        Mark { id, payload, at: now, outcome: Outcome::Pending }.put(mailbox, hash, batch)?;
        Ok(None)
    }

    /// There may be room for another sender who waits.
    fn pass_room_on(&self) {
        self.runtime.ledger.store().pass_room_on(self.mailbox.id);
    }

    async fn durable_or_unknown<M>(&self, sent: &Sent) -> Result<(), SendError<M>> {
        let Some(commit) = &sent.commit else { return Ok(()) };
        let durable = self.runtime.ledger.durable(commit).await;
        durable.map_err(|why| SendError::Unknown { id: sent.id, why })
    }
}

/// Tells two messages under one dedup id apart, however they are sent.
fn payload_of<M: Message>(message: &M) -> Result<[u8; 16], Refused> {
    let mut body = Vec::new();
    codec::encode_into(message, &mut body)?;
    Ok(marks::payload_hash(M::NAME, &body))
}

/// How long a sender waits for room.
#[derive(Debug, Clone, Copy)]
enum Patience {
    Until(Deadline),
    Forever,
}

const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Patience {
    fn of(timeout: Option<Duration>) -> Self {
        timeout.map_or(Patience::Forever, |time| Patience::Until(Deadline::after(time)))
    }

    /// An error when there is no time left, made of what is waited for.
    fn check(self, for_what: impl FnOnce() -> Refused) -> Result<(), Refused> {
        match self {
            Patience::Until(end) if end.has_passed() => {
                Err(Refused::TimedOut(end.allowed(), Box::new(for_what())))
            }
            _ => Ok(()),
        }
    }

    fn left(self) -> Duration {
        match self {
            Patience::Until(end) => end.left().min(LOOK_AGAIN),
            _ => LOOK_AGAIN,
        }
    }
}

impl<'a, A, M, I> Tell<'a, A, M, I>
where
    A: Actor,
    M: Message,
    I: 'static,
    A::Messages: Contains<M, I>,
{
    /// Sends without waiting for anything, and returns a [`Receipt`] to wait with.
    ///
    /// `Ok` means the message is in the mailbox, but not yet that it is on disk: see [`Receipt::durable`].
    ///
    /// # Errors
    /// The message was refused, also because there is no room just now, and is handed back. With a
    /// [`dedup_id`](Tell::dedup_id) use `await`: looking the id up may have to wait.
    pub fn submit(self) -> Result<Receipt, SendError<M>> {
        let Tell { to, message, options, .. } = self;
        if let Err(why) = check_outside_turn(&options, "submit", "Context::tell") {
            return Err(refused(message, why));
        }
        let runtime = &to.runtime;
        if options.dedup_id.is_some() {
            return Err(refused(message, Refused::MustAwait { option: "dedup_id" }));
        }
        let sending = to.sending(&options, false);
        let ended = runtime.receipt_for(MessageId::of(sending.id));
        let sent = to.send_now(&sending, message);
        let sent = sent.inspect_err(|_| runtime.forget_receipt(MessageId::of(sending.id)))?;
        Ok(Receipt::new(runtime.clone(), sent, ended))
    }

    async fn send(self) -> Result<MessageId, SendError<M>> {
        let Tell { to, message, options, .. } = self;
        if let Err(why) = check_outside_turn(&options, "tell", "Context::tell") {
            return Err(refused(message, why));
        }
        let sending = to.sending(&options, false);
        let span = tracing::trace_span!("send", mailbox = %to.mailbox.name, message = M::NAME);
        let delivered = to.deliver(&sending, message, None, Patience::of(options.timeout)).instrument(span);
        match delivered.await? {
            Duplicate::New(sent) => {
                if options.durability == Durability::Synced {
                    to.durable_or_unknown(&sent).await?;
                }
                Ok(sent.id)
            }
            Duplicate::Of(first) => {
                // the first may not be durable yet, and this `Ok` says that it is
                if !cfg!(steadfast_bug = "duplicate_before_the_first") {
                    let durable = to.runtime.ledger.store().durable_now().await;
                    durable.map_err(|why| SendError::Unknown { id: first.id, why })?;
                }
                Ok(first.id)
            }
        }
    }
}

impl<A: Actor> ActorRef<A> {
    /// One attempt to send, waiting for nothing.
    fn send_now<M, I>(&self, sending: &Sending<'_, A>, message: M) -> Result<Sent, SendError<M>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        if sending.options.durability == Durability::Volatile {
            if let Err(why) = sending.check_volatile() {
                return Err(refused(message, why));
            }
            let limit = Mailbox::<A>::volatile_limit();
            let full = |(message, _): Unsent<M>| refused(message, self.full(limit, 0, limit, 0));
            return sending.volatile(message, None).map_err(full);
        }
        let mut batch = Batch::default();
        let head = match sending.batch(&message, &mut batch) {
            Ok(head) => head,
            Err(why) => return Err(refused(message, why)),
        };
        sending.admit(&batch, head, message, None).map_err(|(message, _, refusal)| {
            let why = match refusal {
                Refusal::MailboxFull { waiting, bytes, limits, .. } => {
                    self.full(waiting, bytes, limits.count, limits.bytes)
                }
                Refusal::TooLarge { bytes, limit } => Refused::TooLarge { bytes, limit },
                Refusal::NoRoom => Refused::NoRoom,
                Refusal::Failed(error) => Refused::Store(error),
                _ => Refused::Busy,
            };
            refused(message, why)
        })
    }

    pub(super) async fn send_all<M, I>(&self, messages: Vec<M>) -> Result<Vec<MessageId>, SendError<Vec<M>>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        let options = SendOptions::new();
        if let Err(why) = check_outside_turn(&options, "tell_all", "Context::tell") {
            return Err(refused(messages, why));
        }
        let sendings: Vec<_> = messages.iter().map(|_| self.sending(&options, false)).collect();
        let mut batch = Batch::default();
        let mut heads = Vec::with_capacity(messages.len());
        for (sending, message) in sendings.iter().zip(&messages) {
            let before = batch.bytes_len();
            match sending.batch(message, &mut batch) {
                Ok(head) => heads.push((head, (batch.bytes_len() - before) as u32)),
                Err(why) => return Err(refused(messages, why)),
            }
        }
        if heads.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = heads.iter().map(|(head, _)| head.id).collect();
        let commit = loop {
            let refusal = {
                let mut quick = self.mailbox.quick();
                match self.runtime.ledger.try_commit(&batch, Origin::Outside, Urgency::Now) {
                    Ok(admitted) => {
                        let letters = messages.into_iter().zip(heads).zip(&admitted.positions).zip(&sendings);
                        for (((message, (head, len)), position), sending) in letters {
                            let place = Some(Place { log: sending.log(), position: *position, len });
                            let body = Body::Decoded(<A::Messages as Contains<M, I>>::wrap(message, None));
                            let letter = Letter { place, head, body, asker: None };
                            quick.push(*position, letter, self.mailbox.running_now());
                        }
                        break admitted;
                    }
                    Err(refusal) => refusal,
                }
            };
            if let Err(why) = self.wait_after(&mut batch, refusal, Patience::Forever).await {
                return Err(refused(messages, why));
            }
        };
        let id = ids.first().copied().unwrap_or(MessageId::from_bytes([0; 16]));
        self.durable_or_unknown(&Sent { id, commit: Some(commit) }).await?;
        Ok(ids)
    }
}

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
        if let Err(why) = check_outside_turn(&options, "ask", "Context::ask") {
            return Err(AskError::Refused { message, why });
        }
        let until = to.mailbox.blocked_until(options.priority.lane().into());
        if until > to.runtime.ledger.clock().now() && options.durability != Durability::Volatile {
            return Err(AskError::Refused { message, why: Refused::Blocked { until } });
        }
        let sending = to.sending(&options, true);
        let patience = Patience::Until(end);
        if options.dedup_id.is_some() {
            return to.ask_once(&sending, message, patience, end).await;
        }
        let (slot, wait) = ReplySlot::new();
        let guard = AskGuard { to, id: MessageId::of(sending.id) };
        let span = tracing::trace_span!("send", mailbox = %to.mailbox.name, message = M::NAME);
        let sent = match to.deliver(&sending, message, Some(slot), patience).instrument(span).await {
            Ok(Duplicate::New(sent)) => sent,
            Ok(Duplicate::Of(mark)) => return Err(AskError::NoReply { id: mark.id }),
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
        sending: &Sending<'_, A>,
        message: M,
        patience: Patience,
        end: Deadline,
    ) -> Result<M::Reply, AskError<M>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        let id = match self.deliver(sending, message, None, patience).await.map_err(not_asked)? {
            Duplicate::New(sent) => sent.id,
            Duplicate::Of(first) => first.id,
        };
        let hash = sending.options.dedup_id.as_deref().map(marks::hash).unwrap_or_default();
        let kept = self.runtime.kept_reply(self.mailbox.id, hash, id);
        let Some(outcome) = end.limit(kept).await else {
            return Err(AskError::TimedOut { id, after: end.allowed() });
        };
        match outcome.map_err(|why| AskError::Unknown { id, why })? {
            Outcome::Replied(bytes) => codec::decode(&bytes).map_err(|why| AskError::Undecodable { id, why }),
            Outcome::Dead(why) => Err(AskError::Failed { id, why }),
            Outcome::Pending => Err(AskError::NoReply { id }),
        }
    }
}

/// The future of a [`Tell`].
///
/// The first poll of a plain send checks, admits and registers, without allocating; whatever has to be waited for beyond
/// the sync is done by a boxed future.
pub struct SendFuture<'a, A: Actor, M, I> {
    state: SendState<'a, A, M, I>,
}

enum SendState<'a, A: Actor, M, I> {
    New(Option<Tell<'a, A, M, I>>),
    Syncing { to: &'a ActorRef<A>, sent: Sent, slot: Slot },
    Waiting(Pin<Box<dyn Future<Output = Result<MessageId, SendError<M>>> + Send + 'a>>),
}

/// The message is only ever moved, never pinned.
impl<A: Actor, M, I> Unpin for SendFuture<'_, A, M, I> {}

impl<'a, A, M, I> Future for SendFuture<'a, A, M, I>
where
    A: Actor,
    M: Message,
    I: 'static,
    A::Messages: Contains<M, I>,
{
    type Output = Result<MessageId, SendError<M>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.state {
                SendState::New(tell) => {
                    let Some(tell) = tell.take() else { return Poll::Pending };
                    match tell.start() {
                        Started::Ready(done) => return Poll::Ready(done),
                        Started::Syncing(to, sent) => {
                            self.state = SendState::Syncing { to, sent, slot: Slot::default() };
                        }
                        Started::Slow(tell) => self.state = SendState::Waiting(Box::pin(tell.send())),
                    }
                }
                SendState::Syncing { to, sent, slot } => {
                    let Some(commit) = &sent.commit else { return Poll::Ready(Ok(sent.id)) };
                    let durable = to.runtime.ledger.store().poll_durable(commit, slot, cx);
                    let id = sent.id;
                    return durable
                        .map(|done| done.map(|()| id).map_err(|why| SendError::Unknown { id, why }));
                }
                SendState::Waiting(slow) => return slow.as_mut().poll(cx),
            }
        }
    }
}

enum Started<'a, A: Actor, M, I> {
    Ready(Result<MessageId, SendError<M>>),
    Syncing(&'a ActorRef<A>, Sent),
    Slow(Tell<'a, A, M, I>),
}

impl<'a, A, M, I> Tell<'a, A, M, I>
where
    A: Actor,
    M: Message,
    I: 'static,
    A::Messages: Contains<M, I>,
{
    /// The send of a plain message when nothing is in its way.
    fn start(self) -> Started<'a, A, M, I> {
        let plain = self.options.durability != Durability::Volatile
            && self.options.dedup_id.is_none()
            && self.options.due.is_none();
        if !plain || is_in_turn() {
            return Started::Slow(self);
        }
        let Tell { to, message, options, _index } = self;
        let _span = tracing::trace_span!("send", mailbox = %to.mailbox.name, message = M::NAME).entered();
        let sending = to.sending(&options, false);
        let mut batch = Batch::default();
        let head = match sending.batch(&message, &mut batch) {
            Ok(head) => head,
            Err(why) => return Started::Ready(Err(refused(message, why))),
        };
        match sending.admit(&batch, head, message, None) {
            Ok(sent) if options.durability == Durability::Synced => Started::Syncing(to, sent),
            Ok(sent) => Started::Ready(Ok(sent.id)),
            Err((message, _, _)) => Started::Slow(Tell { to, message, options, _index }),
        }
    }
}

impl<'a, A, M, I> IntoFuture for Tell<'a, A, M, I>
where
    A: Actor,
    M: Message,
    I: 'static,
    A::Messages: Contains<M, I>,
{
    type Output = Result<MessageId, SendError<M>>;
    type IntoFuture = SendFuture<'a, A, M, I>;

    fn into_future(self) -> Self::IntoFuture {
        SendFuture { state: SendState::New(Some(self)) }
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
