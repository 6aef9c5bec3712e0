//! Telling: mail for one actor, one message or many in one commit.
//!
//! # Invariants
//! - Between admission and the mailbox in memory nobody else can come: both happen under the mailbox's lock.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use uuid::Uuid;

use super::handle::ActorRef;
use super::list::Contains;
use super::mailbox::{Body, Head, Letter, Mailbox, Place};
use super::message::{Actor, Message};
use super::options::{Priority, SendOptions, mail_options};
use super::receipt::Receipt;
use super::reply::ReplySlot;
use super::send::{
    Accepted, Call, Delivered, Draft, InFlight, Kind, Parcel, Patience, Returned, Route, Sending, Stamp,
    check_outside_turn, ids_for, payload_of, refused, seal_all,
};
use crate::envelope::MessageId;
use crate::error::{Refused, SendError};
use crate::store::{Admitted, Batch, LogId};

/// A send being built; awaiting it sends. See [`ActorRef::tell`].
#[must_use = "nothing is sent until it is awaited, or `submit` is called"]
pub struct Tell<'a, A: Actor, M, I> {
    pub(super) to: &'a ActorRef<A>,
    pub(super) message: M,
    pub(super) options: SendOptions,
    pub(super) _index: PhantomData<fn() -> I>,
}

mail_options!(Tell);

/// One message for a mailbox, and where its reply goes if somebody waits for it.
pub(super) struct Mail<'a, A: Actor, M: Message, I> {
    pub(super) mailbox: &'a Mailbox<A>,
    pub(super) message: M,
    pub(super) slot: Option<ReplySlot<M::Reply>>,
    pub(super) _index: PhantomData<fn() -> I>,
}

impl<A: Actor> ActorRef<A> {
    pub(super) fn route(&self, priority: Priority) -> Route<'_> {
        let log = LogId { mailbox: self.mailbox.id, lane: priority.lane() };
        Route { runtime: &self.runtime, name: &self.mailbox.name, log, kind: Kind::Mailbox }
    }

    pub(super) fn mail<M: Message, I>(
        &self,
        message: M,
        slot: Option<ReplySlot<M::Reply>>,
    ) -> Mail<'_, A, M, I> {
        Mail { mailbox: &self.mailbox, message, slot, _index: PhantomData }
    }
}

impl Stamp {
    pub(super) fn head(self, id: Uuid, options: &SendOptions) -> Head {
        let Stamp { sent_at, expires, mark } = self;
        Head { id: MessageId::of(id), sent_at, expires, mark, headers: options.headers.clone() }
    }
}

impl<A, M, I> Parcel for Mail<'_, A, M, I>
where
    A: Actor,
    M: Message,
    A::Messages: Contains<M, I>,
{
    type Content = M;
    type Sealed = Stamp;
    const CALL: Call = Call { name: "tell", in_a_turn: "Context::tell", message: M::NAME };

    fn seal(&self, sending: &Sending<'_>, batch: &mut Batch) -> Result<Stamp, Refused> {
        sending.seal(sending.id, &self.message, batch)
    }

    fn payload(&self) -> Result<[u8; 16], Refused> {
        payload_of(&self.message)
    }

    fn admit(self, sending: &Sending<'_>, batch: &Batch, stamp: Stamp) -> Result<Admitted, Returned<Self>> {
        let log = sending.route.log;
        let head = stamp.head(sending.id, sending.options);
        let mut quick = self.mailbox.quick();
        let admitted = match sending.commit(batch) {
            Ok(admitted) => admitted,
            Err(refusal) => return Err(Returned { parcel: self, sealed: None, refusal }),
        };
        let Mail { mailbox, message, slot, .. } = self;
        let asker = slot.as_ref().map(ReplySlot::asker);
        if let Some(position) = admitted.positions.first() {
            let place = Some(Place { log, position: *position, len: batch.appended_len() });
            let body = Body::Decoded(<A::Messages as Contains<M, I>>::wrap(message, slot));
            quick.push(*position, Letter { place, head, body, asker }, mailbox.running_now());
        } else if let Some(asker) = asker {
            quick.remember_asker(head.id, usize::from(log.lane), asker);
        }
        Ok(admitted)
    }

    fn volatile_now(self, sending: &Sending<'_>) -> Result<(), (Self, Refused)> {
        self.push_volatile(sending)
    }

    fn volatile(
        self,
        sending: &Sending<'_>,
        patience: Patience,
    ) -> impl Future<Output = Result<(), (Self, Refused)>> + Send {
        self.push_volatile_when_there_is_room(sending, patience)
    }

    fn into_content(self) -> M {
        self.message
    }
}

/// Many messages for a mailbox, in one commit.
struct Mails<'a, A: Actor, M, I> {
    mailbox: &'a Mailbox<A>,
    messages: Vec<M>,
    ids: Vec<Uuid>,
    _index: PhantomData<fn() -> I>,
}

impl<A, M, I> Parcel for Mails<'_, A, M, I>
where
    A: Actor,
    M: Message,
    A::Messages: Contains<M, I>,
{
    type Content = Vec<M>;
    type Sealed = Vec<(Stamp, u32)>;
    const CALL: Call = Call { name: "tell_all", in_a_turn: "Context::tell", message: M::NAME };

    fn seal(&self, sending: &Sending<'_>, batch: &mut Batch) -> Result<Self::Sealed, Refused> {
        seal_all(sending, &self.ids, &self.messages, batch)
    }

    fn payload(&self) -> Result<[u8; 16], Refused> {
        Err(Refused::MustAwait { option: "dedup_id" })
    }

    fn admit(
        self,
        sending: &Sending<'_>,
        batch: &Batch,
        sealed: Self::Sealed,
    ) -> Result<Admitted, Returned<Self>> {
        let mut quick = self.mailbox.quick();
        let admitted = match sending.commit(batch) {
            Ok(admitted) => admitted,
            // to encode them all again whenever there may be room would cost more than it is worth
            Err(refusal) => return Err(Returned { parcel: self, sealed: Some(sealed), refusal }),
        };
        let Mails { mailbox, messages, ids, .. } = self;
        let letters = messages.into_iter().zip(ids).zip(sealed).zip(&admitted.positions);
        for (((message, id), (stamp, len)), position) in letters {
            let place = Some(Place { log: sending.route.log, position: *position, len });
            let body = Body::Decoded(<A::Messages as Contains<M, I>>::wrap(message, None));
            let head = stamp.head(id, sending.options);
            quick.push(*position, Letter { place, head, body, asker: None }, mailbox.running_now());
        }
        Ok(admitted)
    }

    fn into_content(self) -> Vec<M> {
        self.messages
    }
}

impl<A: Actor> ActorRef<A> {
    pub(super) async fn send_all<M, I>(&self, messages: Vec<M>) -> Result<Vec<MessageId>, SendError<Vec<M>>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        let options = SendOptions::new();
        let sending = Sending::new(self.route(options.priority), &options, false);
        let ids = ids_for(&sending, messages.len());
        let told = ids.iter().copied().map(MessageId::of).collect();
        let mails = Mails::<A, M, I> { mailbox: &self.mailbox, messages, ids, _index: PhantomData };
        if let Err(why) = check_outside_turn(&options, Mails::<A, M, I>::CALL) {
            return Err(refused((mails, why)));
        }
        if mails.messages.is_empty() {
            return Ok(told);
        }
        // only a dedup id makes duplicates
        if let Delivered::New(sent) = sending.deliver(mails, Patience::Forever).await? {
            sending.synced(&sent).await?;
        }
        Ok(told)
    }
}

impl<'a, A, M, I> Tell<'a, A, M, I>
where
    A: Actor,
    M: Message,
    I: 'static,
    A::Messages: Contains<M, I>,
{
    fn draft(self) -> Draft<'a, Mail<'a, A, M, I>> {
        let Tell { to, message, options, .. } = self;
        Draft { route: to.route(options.priority), parcel: to.mail(message, None), options }
    }

    /// Sends without waiting for anything, and returns a [`Receipt`] to wait with.
    ///
    /// `Ok` means the message is in the mailbox, but not yet that it is on disk: see [`Receipt::durable`].
    ///
    /// # Errors
    /// The message was refused, also because there is no room just now, and is handed back. With a
    /// [`dedup_id`](Tell::dedup_id) use `await`: looking the id up may have to wait.
    pub fn submit(self) -> Result<Receipt, SendError<M>> {
        let runtime = &self.to.runtime;
        let (sent, receipt) = self.draft().submit(|id| Receipt::expected(runtime, id))?;
        Ok(receipt.of(sent))
    }
}

/// The future of a [`Tell`].
pub struct SendFuture<'a, A: Actor, M: Message, I>
where
    A::Messages: Contains<M, I>,
{
    inner: InFlight<'a, Mail<'a, A, M, I>>,
}

impl<'a, A, M, I> Future for SendFuture<'a, A, M, I>
where
    A: Actor,
    M: Message,
    I: 'static,
    A::Messages: Contains<M, I>,
{
    type Output = Result<MessageId, SendError<M>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.inner).poll(cx).map_ok(|Accepted { id, .. }| id)
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
        SendFuture { inner: InFlight::new(self.draft()) }
    }
}
