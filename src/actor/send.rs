//! Sending from outside a turn, whatever is sent and wherever it goes: it is sealed, admitted, waited for and made durable here.
//! What differs, a [`Parcel`] says: a message for a mailbox, many of them, an event for a topic.
//!
//! # Invariants
//! - What was refused is handed back, and lies nowhere.
//! - `Ok` of a synced send comes after the sync that covers it, and of a duplicate after that of the first.
//! - A plain send with nothing in its way allocates nothing for its future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use tracing::Instrument;
use uuid::Uuid;

use super::message::Message;
use super::options::{Durability, Sealing, SendOptions};
use super::runtime::{Runtime, is_in_turn};
use crate::clock::{Deadline, Timestamp};
use crate::codec;
use crate::durable::{CommitRefused, Mark, Outcome, Scheduled, marks};
use crate::envelope::MessageId;
use crate::error::{Refused, SendError};
use crate::store::{Admitted, Batch, Condition, Limits, LogId, Origin, Refusal, Slot, StoreError, Urgency};

/// Where something is sent.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) runtime: &'a Runtime,
    /// The name of the mailbox or the topic.
    pub(crate) name: &'a str,
    pub(crate) log: LogId,
    pub(crate) kind: Kind,
}

/// What lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Mail of one actor: there is a limit to what waits, and whoever asks with a dedup id has the reply kept with its mark.
    Mailbox,
    /// Events: nobody settles or answers them, and a mark keeps their place.
    Topic,
}

/// What is sent at once, and what has to happen where it is admitted.
pub(crate) trait Parcel: Sized + Send {
    /// What is handed back.
    type Content: Send;
    /// What is known once it is sealed.
    type Sealed: Send;
    /// What is called to send it, what to call in a turn, and the message's name.
    const CALL: Call;

    /// Adds it to the batch that sends it.
    fn seal(&self, sending: &Sending<'_>, batch: &mut Batch) -> Result<Self::Sealed, Refused>;

    /// Tells two payloads under one dedup id apart.
    fn payload(&self) -> Result<[u8; 16], Refused>;

    /// Has the batch admitted and hands on, under the same lock, what memory is to have of it.
    fn admit(
        self,
        sending: &Sending<'_>,
        batch: &Batch,
        sealed: Self::Sealed,
    ) -> Result<Admitted, Returned<Self>>;

    /// Queues it in memory alone, or gives it back.
    fn volatile_now(self, _: &Sending<'_>) -> Result<(), (Self, Refused)> {
        Err((self, Refused::NotVolatile { option: Self::CALL.name }))
    }

    /// As [`Parcel::volatile_now`], waiting for room.
    fn volatile(
        self,
        sending: &Sending<'_>,
        _: Patience,
    ) -> impl Future<Output = Result<(), (Self, Refused)>> + Send {
        std::future::ready(self.volatile_now(sending))
    }

    fn into_content(self) -> Self::Content;
}

/// What a user calls to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) in_a_turn: &'static str,
    pub(crate) message: &'static str,
}

/// What was not admitted, and, where that can be sent again as it is, what was sealed.
pub(crate) struct Returned<P: Parcel> {
    pub(crate) parcel: P,
    pub(crate) sealed: Option<P::Sealed>,
    pub(crate) refusal: Refusal,
}

/// What is known of a sealed message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) sent_at: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) mark: Option<[u8; 16]>,
}

/// One send: where it goes, and how.
pub(crate) struct Sending<'a> {
    pub(crate) route: Route<'a>,
    pub(crate) options: &'a SendOptions,
    /// That of the first message.
    pub(crate) id: Uuid,
    pub(crate) asks: bool,
    urgency: Urgency,
}

/// Something that was taken.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) id: MessageId,
    /// None for volatile messages.
    pub(crate) commit: Option<Admitted>,
}

/// What came of a send.
pub(crate) enum Delivered {
    /// It was taken.
    New(Sent),
    /// One with this mark was taken before.
    Duplicate(Mark),
}

/// What a sender is told: the id, and the place in the log if it has one already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted {
    pub(crate) id: MessageId,
    pub(crate) position: Option<u64>,
}

impl Sent {
    pub(crate) fn accepted(&self) -> Accepted {
        let positions = self.commit.as_ref().map(|commit| &commit.positions);
        Accepted { id: self.id, position: positions.and_then(|positions| positions.first().copied()) }
    }
}

impl<'a> Sending<'a> {
    pub(crate) fn new(route: Route<'a>, options: &'a SendOptions, asks: bool) -> Self {
        let urgent = !asks && options.durability == Durability::Synced;
        let urgency = if urgent { Urgency::Now } else { Urgency::Soon };
        Sending { route, options, id: route.runtime.ledger.clock().id(), asks, urgency }
    }

    /// Adds one message to the batch, in its log or on the schedule.
    pub(crate) fn seal<M: Message>(
        &self,
        id: Uuid,
        message: &M,
        batch: &mut Batch,
    ) -> Result<Stamp, Refused> {
        let Route { runtime, log, kind, .. } = self.route;
        let sealing = Sealing {
            id,
            kind: runtime.kind_of(message)?,
            options: self.options,
            now: runtime.ledger.clock().now(),
            asks: self.asks,
            mark: kind.reply_mark(self.options),
        };
        match self.options.due {
            Some(due) => {
                let mut envelope = Vec::new();
                sealing.seal(runtime, message, &mut envelope)?;
                let scheduled = Scheduled { target: log, envelope, is_event: kind == Kind::Topic };
                scheduled.put(due.at(sealing.now), MessageId::of(id), batch)?;
            }
            None => {
                if kind == Kind::Mailbox && !cfg!(steadfast_bug = "ignore_the_capacity") {
                    batch.require(Condition::Room { mailbox: log.mailbox });
                }
                batch.append(log, |out| sealing.seal(runtime, message, out))?;
            }
        }
        Ok(Stamp { sent_at: sealing.now, expires: sealing.expires(), mark: sealing.mark })
    }

    /// Has the batch admitted, or says at once why not.
    pub(crate) fn commit(&self, batch: &Batch) -> Result<Admitted, Refusal> {
        let admitted = self.route.runtime.ledger.try_commit(batch, Origin::Outside, self.urgency)?;
        if self.options.due.is_some() && !cfg!(steadfast_bug = "tell_no_timekeeper") {
            self.route.runtime.scheduled.ring();
        }
        Ok(admitted)
    }

    /// Sends, waiting for whatever has to be waited for but the sync.
    pub(crate) async fn deliver<P: Parcel>(
        &self,
        parcel: P,
        patience: Patience,
    ) -> Result<Delivered, SendError<P::Content>> {
        let id = MessageId::of(self.id);
        if self.options.durability == Durability::Volatile {
            let taken = parcel.volatile(self, patience).await;
            return taken.map(|()| Delivered::New(Sent { id, commit: None })).map_err(refused);
        }
        let (mut parcel, mut batch, mut kept) = (parcel, Batch::default(), None);
        let mut in_line = None;
        loop {
            let sealed = match kept {
                Some(sealed) => sealed,
                None => {
                    batch = Batch::default();
                    match parcel.seal(self, &mut batch) {
                        Ok(sealed) => sealed,
                        Err(why) => return Err(refused((parcel, why))),
                    }
                }
            };
            if let Some(dedup_id) = &self.options.dedup_id {
                let payload = match parcel.payload() {
                    Ok(payload) => payload,
                    Err(why) => return Err(refused((parcel, why))),
                };
                match self.earlier(dedup_id, payload, &mut batch).await {
                    Ok(None) => {}
                    Ok(Some(first)) => return Ok(Delivered::Duplicate(first)),
                    Err(why) => return Err(refused((parcel, why))),
                }
            }
            let back = match parcel.admit(self, &batch, sealed) {
                Ok(commit) => {
                    return Ok(Delivered::New(Sent { id, commit: Some(commit) }));
                }
                Err(back) => back,
            };
            (parcel, kept) = (back.parcel, back.sealed);
            in_line.get_or_insert_with(|| self.route.runtime.ledger.store().in_line(self.route.log.mailbox));
            if let Err(why) = self.wait_after(&mut batch, back.refusal, patience).await {
                return Err(refused((parcel, why)));
            }
        }
    }

    /// One attempt to send, waiting for nothing.
    pub(crate) fn send_now<P: Parcel>(&self, parcel: P) -> Result<Sent, SendError<P::Content>> {
        let id = MessageId::of(self.id);
        if self.options.durability == Durability::Volatile {
            let taken = parcel.volatile_now(self);
            return taken.map(|()| Sent { id, commit: None }).map_err(refused);
        }
        let mut batch = Batch::default();
        let sealed = match parcel.seal(self, &mut batch) {
            Ok(sealed) => sealed,
            Err(why) => return Err(refused((parcel, why))),
        };
        match parcel.admit(self, &batch, sealed) {
            Ok(commit) => Ok(Sent { id, commit: Some(commit) }),
            Err(back) => Err(refused((back.parcel, self.why(back.refusal)))),
        }
    }

    /// Looks the dedup id up, and adds to the batch what remembers it. Returns the mark of an earlier one with the same id and
    /// payload.
    async fn earlier(
        &self,
        dedup_id: &str,
        payload: [u8; 16],
        batch: &mut Batch,
    ) -> Result<Option<Mark>, Refused> {
        let Route { runtime, log, kind, .. } = self.route;
        let first = runtime.ledger.earlier(log.mailbox, dedup_id, payload, batch).await?;
        if first.is_some() {
            return Ok(first);
        }
        let (id, at) = (MessageId::of(self.id), runtime.ledger.clock().now());
        let mark = Mark { id, payload, at, outcome: Outcome::Pending };
        kind.put_mark(mark, dedup_id, self.options.due.is_some(), log, batch)?;
        Ok(None)
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
        match self.route.runtime.ledger.look_again(batch, refusal, Origin::Outside).await {
            Ok(()) | Err(CommitRefused::Key(_)) => Ok(()),
            Err(CommitRefused::Full { waiting, bytes, limits, room }) => {
                patience.check(|| self.full(waiting, bytes, limits))?;
                // whatever keeps a wake-up from coming: a look now and then costs nothing
                let _ = tokio::time::timeout(patience.left(), room.rung()).await;
                Ok(())
            }
            Err(CommitRefused::Refused(why)) => Err(why),
            Err(CommitRefused::Gone | CommitRefused::Fenced) => Err(Refused::Store(StoreError::Closed)),
        }
    }

    /// What one who does not wait is told.
    fn why(&self, refusal: Refusal) -> Refused {
        match refusal {
            Refusal::MailboxFull { waiting, bytes, limits, .. } => self.full(waiting, bytes, limits),
            Refusal::TooLarge { bytes, limit } => Refused::TooLarge { bytes, limit },
            Refusal::NoRoom => Refused::NoRoom,
            Refusal::Failed(error) => Refused::Store(error),
            _ => Refused::Busy,
        }
    }

    pub(crate) fn full(&self, waiting: u64, bytes: u64, limits: Limits) -> Refused {
        let Limits { count: limit, bytes: limit_bytes } = limits;
        Refused::Full { mailbox: self.route.name.to_owned(), waiting, bytes, limit, limit_bytes }
    }

    /// Waits for the sync, if the sender wanted to.
    pub(crate) async fn synced<C>(&self, sent: &Sent) -> Result<(), SendError<C>> {
        let Some(commit) = sent.commit.as_ref().filter(|_| self.options.durability == Durability::Synced)
        else {
            return Ok(());
        };
        let durable = self.route.runtime.ledger.durable(commit).await;
        durable.map_err(|why| SendError::Unknown { id: sent.id, why })
    }
}

impl Kind {
    /// The mark with which the reply of a message is kept.
    pub(crate) fn reply_mark(self, options: &SendOptions) -> Option<[u8; 16]> {
        let keeps = self == Kind::Mailbox || cfg!(steadfast_bug = "answer_for_an_event");
        options.dedup_id.as_deref().filter(|_| keeps).map(marks::hash)
    }

    /// Adds what remembers a dedup id. An event that is not delayed was added to the batch last.
    pub(crate) fn put_mark(
        self,
        mark: Mark,
        dedup_id: &str,
        is_delayed: bool,
        log: LogId,
        batch: &mut Batch,
    ) -> Result<(), Refused> {
        let hash = marks::hash(dedup_id);
        match self == Kind::Topic && !is_delayed {
            true => mark.put_published(log.mailbox, hash, batch)?,
            false => mark.put(log.mailbox, hash, batch)?,
        }
        Ok(())
    }
}

/// Tells two messages under one dedup id apart, however they are sent.
pub(crate) fn payload_of<M: Message>(message: &M) -> Result<[u8; 16], Refused> {
    let mut body = Vec::new();
    codec::encode_into(message, &mut body)?;
    Ok(marks::payload_hash(M::NAME, &body))
}

pub(crate) fn refused<P: Parcel>((parcel, why): (P, Refused)) -> SendError<P::Content> {
    SendError::Refused { message: parcel.into_content(), why }
}

/// Refuses what would stand although the turn it is called in fails.
pub(crate) fn check_outside_turn(options: &SendOptions, call: Call) -> Result<(), Refused> {
    match !options.outside_turn && is_in_turn() && !cfg!(steadfast_bug = "send_past_the_turn") {
        true => Err(Refused::InsideTurn { call: call.name, instead: call.in_a_turn }),
        false => Ok(()),
    }
}

/// How long a sender waits for room.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    Until(Deadline),
    Forever,
}

const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Patience {
    pub(crate) fn of(timeout: Option<Duration>) -> Self {
        timeout.map_or(Patience::Forever, |time| Patience::Until(Deadline::after(time)))
    }

    /// An error when there is no time left, made of what is waited for.
    pub(crate) fn check(self, for_what: impl FnOnce() -> Refused) -> Result<(), Refused> {
        match self {
            Patience::Until(end) if end.has_passed() => {
                Err(Refused::TimedOut(end.allowed(), Box::new(for_what())))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn left(self) -> Duration {
        match self {
            Patience::Until(end) => end.left().min(LOOK_AGAIN),
            _ => LOOK_AGAIN,
        }
    }
}

/// What is about to be sent.
pub(crate) struct Draft<'a, P> {
    pub(crate) route: Route<'a>,
    pub(crate) options: SendOptions,
    pub(crate) parcel: P,
}

enum Started<'a, P: Parcel> {
    Ready(Result<Accepted, SendError<P::Content>>),
    Syncing(Route<'a>, Sent),
    Slow(Draft<'a, P>),
}

impl<'a, P: Parcel> Draft<'a, P> {
    /// Sends, waiting for whatever has to be waited for.
    pub(crate) async fn send(self) -> Result<Accepted, SendError<P::Content>> {
        let Draft { route, options, parcel } = self;
        if let Err(why) = check_outside_turn(&options, P::CALL) {
            return Err(refused((parcel, why)));
        }
        let sending = Sending::new(route, &options, false);
        let span = tracing::trace_span!("send", mailbox = %route.name, message = P::CALL.message);
        match sending.deliver(parcel, Patience::of(options.timeout)).instrument(span).await? {
            Delivered::New(sent) => {
                sending.synced(&sent).await?;
                Ok(sent.accepted())
            }
            Delivered::Duplicate(first) => {
                // the first may not be durable yet, and this `Ok` says that it is
                if !cfg!(steadfast_bug = "duplicate_before_the_first") {
                    let durable = route.runtime.ledger.store().durable_now().await;
                    durable.map_err(|why| SendError::Unknown { id: first.id, why })?;
                }
                Ok(Accepted { id: first.id, position: first.outcome.sequence() })
            }
        }
    }

    /// As [`Draft::send`], waiting for nothing. `prepare` is given the id before anybody can see the message.
    pub(crate) fn submit<T>(
        self,
        prepare: impl FnOnce(MessageId) -> T,
    ) -> Result<(Sent, T), SendError<P::Content>> {
        let Draft { route, options, parcel } = self;
        if let Err(why) = check_outside_turn(&options, Call { name: "submit", ..P::CALL }) {
            return Err(refused((parcel, why)));
        }
        if options.dedup_id.is_some() {
            return Err(refused((parcel, Refused::MustAwait { option: "dedup_id" })));
        }
        let sending = Sending::new(route, &options, false);
        let prepared = prepare(MessageId::of(sending.id));
        Ok((sending.send_now(parcel)?, prepared))
    }

    /// The send of what is plain when nothing is in its way.
    fn start(self) -> Started<'a, P> {
        let plain = self.options.dedup_id.is_none() && self.options.due.is_none();
        if !plain || is_in_turn() {
            return Started::Slow(self);
        }
        if self.options.durability == Durability::Volatile {
            return self.start_volatile();
        }
        let Draft { route, options, parcel } = self;
        let _span = tracing::trace_span!("send", mailbox = %route.name, message = P::CALL.message).entered();
        let sending = Sending::new(route, &options, false);
        let mut batch = Batch::default();
        let sealed = match parcel.seal(&sending, &mut batch) {
            Ok(sealed) => sealed,
            Err(why) => return Started::Ready(Err(refused((parcel, why)))),
        };
        match parcel.admit(&sending, &batch, sealed) {
            Ok(commit) => {
                let sent = Sent { id: MessageId::of(sending.id), commit: Some(commit) };
                match options.durability {
                    Durability::Synced => Started::Syncing(route, sent),
                    _ => Started::Ready(Ok(sent.accepted())),
                }
            }
            Err(back) => Started::Slow(Draft { route, options, parcel: back.parcel }),
        }
    }

    /// As [`Draft::start`], in memory alone.
    fn start_volatile(self) -> Started<'a, P> {
        let Draft { route, options, parcel } = self;
        let sending = Sending::new(route, &options, false);
        let id = MessageId::of(sending.id);
        match parcel.volatile_now(&sending) {
            Ok(()) => Started::Ready(Ok(Accepted { id, position: None })),
            Err((parcel, _)) => Started::Slow(Draft { route, options, parcel }),
        }
    }
}

/// What is on its way.
///
/// The first poll of a plain send checks, admits and registers, without allocating; whatever has to be waited for beyond
/// the sync is done by a boxed future.
pub(crate) struct InFlight<'a, P: Parcel> {
    state: State<'a, P>,
}

enum State<'a, P: Parcel> {
    New(Option<Draft<'a, P>>),
    Syncing { runtime: &'a Runtime, sent: Sent, slot: Slot },
    Waiting(Pin<Box<dyn Future<Output = Result<Accepted, SendError<P::Content>>> + Send + 'a>>),
}

/// What is sent is only ever moved, never pinned.
impl<P: Parcel> Unpin for InFlight<'_, P> {}

impl<'a, P: Parcel> InFlight<'a, P> {
    pub(crate) fn new(draft: Draft<'a, P>) -> Self {
        InFlight { state: State::New(Some(draft)) }
    }
}

impl<'a, P: Parcel + 'a> Future for InFlight<'a, P> {
    type Output = Result<Accepted, SendError<P::Content>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.state {
                State::New(draft) => {
                    let Some(draft) = draft.take() else { return Poll::Pending };
                    match draft.start() {
                        Started::Ready(done) => return Poll::Ready(done),
                        Started::Syncing(Route { runtime, .. }, sent) => {
                            self.state = State::Syncing { runtime, sent, slot: Slot::default() };
                        }
                        Started::Slow(draft) => self.state = State::Waiting(Box::pin(draft.send())),
                    }
                }
                State::Syncing { runtime, sent, slot } => {
                    let accepted = sent.accepted();
                    let Some(commit) = &sent.commit else { return Poll::Ready(Ok(accepted)) };
                    let durable = runtime.ledger.store().poll_durable(commit, slot, cx);
                    let unknown = |why| SendError::Unknown { id: accepted.id, why };
                    return durable.map(|done| done.map(|()| accepted).map_err(unknown));
                }
                State::Waiting(slow) => return slow.as_mut().poll(cx),
            }
        }
    }
}

/// One message with an id of its own for each of many, and what the batch has of it: how long it is.
pub(crate) fn seal_all<M: Message>(
    sending: &Sending<'_>,
    ids: &[Uuid],
    messages: &[M],
    batch: &mut Batch,
) -> Result<Vec<(Stamp, u32)>, Refused> {
    let seal = |(id, message): (&Uuid, &M)| {
        let before = batch.bytes_len();
        let stamp = sending.seal(*id, message, batch)?;
        Ok((stamp, (batch.bytes_len() - before) as u32))
    };
    ids.iter().zip(messages).map(seal).collect()
}

/// An id for each of many messages; that of the send is the first one's.
pub(crate) fn ids_for(sending: &Sending<'_>, count: usize) -> Vec<Uuid> {
    let clock = sending.route.runtime.ledger.clock();
    std::iter::once(sending.id).chain((1..count).map(|_| clock.id())).take(count).collect()
}
