//! `type Messages`: from a list of types come the sum type a mailbox holds, the decoder of what was stored,
//! and the way from a message to its handler. A list is one message, or a tuple of up to 16 lists.
//!
//! # Invariants
//! - A sum holds its message inline and is dispatched by a match: a plain tell costs no box.
//! - A message has one place in its list, counted through the nesting from 0; [`List::describe`],
//!   [`List::decode`] and [`Contains::PLACE`] count alike.
//! - Nothing outside this crate implements these traits: their methods name types that cannot be named there.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;

use super::batch::{About, Item, check_count};
use super::context::Context;
use super::failure::Failure;
use super::message::{Actor, Handler, Message, Stored, Undecodable};
use super::reply::{Answered, Asker, KeepReply, ReplySlot};
use super::turn::panic_text;
use crate::codec;
use crate::envelope::Envelope;

/// The list of what `A` handles: a message, or a tuple of up to 16, which may be nested. Each needs a
/// [`Handler`] on `A`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the `Messages` of `{A}`",
    label = "more than 16, or not every one a `Message`",
    note = "`type Messages` takes one message or a tuple of at most 16; for more, nest the tuples: \
            `type Messages = ((A, B, ..), (C, D, ..))`"
)]
pub trait MessageList<A: Actor>: List {
    #[doc(hidden)]
    fn dispatch(
        sum: Self::Sum,
        actor: &mut A,
        ctx: &mut Context<A>,
        keep: KeepReply,
    ) -> impl Future<Output = Result<Answered, Failure>> + Send;

    /// Whether it is one message, with a [`BatchHandler`](super::batch::BatchHandler).
    #[doc(hidden)]
    const BATCHES: bool;

    #[doc(hidden)]
    fn dispatch_batch(
        batch: Vec<InBatch<Self::Sum>>,
        actor: &mut A,
        ctx: &mut Context<A>,
    ) -> impl Future<Output = Result<Vec<Result<Answered, Failure>>, Failure>> + Send;
}

impl<A: Actor, L: List + Dispatch<A, <L as List>::Form>> MessageList<A> for L {
    fn dispatch(
        sum: L::Sum,
        actor: &mut A,
        ctx: &mut Context<A>,
        keep: KeepReply,
    ) -> impl Future<Output = Result<Answered, Failure>> + Send {
        <L as Dispatch<A, L::Form>>::run(sum, actor, ctx, keep)
    }

    const BATCHES: bool = <L as Dispatch<A, L::Form>>::BATCHES;

    fn dispatch_batch(
        batch: Vec<InBatch<L::Sum>>,
        actor: &mut A,
        ctx: &mut Context<A>,
    ) -> impl Future<Output = Result<Vec<Result<Answered, Failure>>, Failure>> + Send {
        <L as Dispatch<A, L::Form>>::run_batch(batch, actor, ctx)
    }
}

/// A list with `M` in it, at the place `I`, which is always inferred.
///
/// Code that is generic over the actor says `where A::Messages: Contains<M, I>` with one more type parameter
/// `I`.
// `I` cannot be a parameter of what forgets the actor (`Recipient<M>`, `Address<dyn Accepts<M>>`): those are
// made by a method that has both, `actor.recipient::<M, _>()`, and keep `wrap` as a function pointer, or
// nothing but the name.
#[diagnostic::on_unimplemented(
    message = "`{M}` is not in the `Messages` of this actor",
    label = "this actor does not take `{M}`",
    note = "add `{M}` to the `type Messages = (..)` of the actor, and give it an `impl Handler<{M}>`"
)]
pub trait Contains<M: Message, I>: List {
    #[doc(hidden)]
    const PLACE: usize;

    #[doc(hidden)]
    fn wrap(message: M, reply: Option<ReplySlot<M::Reply>>) -> Self::Sum;
}

/// What a list is, whoever handles it.
pub trait List: 'static {
    /// [`Leaf`] or [`Branch`].
    type Form;
    /// One of the messages, with the slot for its reply.
    type Sum: Send + 'static;
    /// How many messages there are, through all nesting.
    const LEN: usize;

    /// Adds each message, in the order of their places.
    fn describe(out: &mut Vec<MessageKind>);
    /// Reads the message at `place`; none if there is no such place.
    fn decode(place: usize, stored: Stored<'_>) -> Option<Result<Self::Sum, Undecodable>>;
    /// The place of what `sum` holds.
    fn place(sum: &Self::Sum) -> usize;
    /// The message in it.
    fn message(sum: &Self::Sum) -> &dyn Any;
    /// Who waits for the reply.
    fn asker(sum: &Self::Sum) -> Option<Asker>;
    /// Lets `asker` have the reply, in a message that was decoded again for another attempt.
    fn attach(sum: &mut Self::Sum, asker: &Asker);
}

/// How `A` handles what a list of the form `F` holds.
///
/// The form keeps the impl for messages from being a candidate for tuples: with two candidates the compiler
/// would say that the tuple as a whole will not do, and not which handler is missing.
pub trait Dispatch<A: Actor, F>: List {
    /// Hands the message to its handler.
    fn run(
        sum: Self::Sum,
        actor: &mut A,
        ctx: &mut Context<A>,
        keep: KeepReply,
    ) -> impl Future<Output = Result<Answered, Failure>> + Send;

    /// See [`MessageList::BATCHES`].
    const BATCHES: bool = false;

    /// Hands several messages to their handler at once.
    fn run_batch(
        _batch: Vec<InBatch<Self::Sum>>,
        _actor: &mut A,
        _ctx: &mut Context<A>,
    ) -> impl Future<Output = Result<Vec<Result<Answered, Failure>>, Failure>> + Send {
        // refused when the actor was started
        async { Err(Failure::new("this actor has no handler of batches").terminal()) }
    }
}

/// One message of a batch: its sum, what its handler may know of it, and whether its reply is kept.
pub struct InBatch<S> {
    pub(crate) sum: S,
    pub(crate) about: About,
    pub(crate) keep: KeepReply,
}

impl<S> InBatch<S> {
    fn map<T>(self, map: impl FnOnce(S) -> T) -> InBatch<T> {
        let InBatch { sum, about, keep } = self;
        InBatch { sum: map(sum), about, keep }
    }
}

/// The form of a list that is one message.
pub struct Leaf(());

/// The form of a list that is a tuple.
pub struct Branch(());

/// What the mailbox of `A` holds.
pub(crate) type SumOf<A> = <<A as Actor>::Messages as List>::Sum;

/// The fingerprint of a type whose fields cannot be traced: it is compared with nothing.
pub(crate) const UNTRACED: u32 = 0;

/// One message of a list, as storage knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageKind {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    /// The fingerprint of its fields, or [`UNTRACED`].
    pub(crate) shape: u32,
}

/// Two messages of one list have this name, so a stored one could be either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("two messages of `{actor}` are named `{name}`")]
pub(crate) struct DuplicateName {
    pub(crate) actor: &'static str,
    pub(crate) name: &'static str,
}

/// Reads what was stored for an `A`. Made once per spawn, because tracing the fields of every message takes a
/// while.
pub(crate) struct Decoder<A: Actor> {
    kinds: Vec<MessageKind>,
    /// Places, in the order of their names.
    by_name: Vec<usize>,
    _actor: PhantomData<fn() -> A>,
}

impl<A: Actor> Decoder<A> {
    /// # Errors
    /// A name that is there twice.
    pub(crate) fn new() -> Result<Self, DuplicateName> {
        let mut kinds = Vec::with_capacity(A::Messages::LEN);
        A::Messages::describe(&mut kinds);
        let mut by_name: Vec<usize> = (0..kinds.len()).collect();
        by_name.sort_by_key(|&place| kinds[place].name);
        match by_name.windows(2).find(|pair| kinds[pair[0]].name == kinds[pair[1]].name) {
            Some(pair) => Err(DuplicateName { actor: A::NAME, name: kinds[pair[0]].name }),
            None => Ok(Decoder { kinds, by_name, _actor: PhantomData }),
        }
    }

    /// The messages, by place.
    pub(crate) fn kinds(&self) -> &[MessageKind] {
        &self.kinds
    }

    /// What `M` is stored as.
    #[cfg(test)]
    pub(crate) fn kind<M: Message, I>(&self) -> MessageKind
    where
        A::Messages: Contains<M, I>,
    {
        self.kinds[<A::Messages as Contains<M, I>>::PLACE]
    }

    /// What `sum` holds.
    pub(crate) fn kind_of(&self, sum: &SumOf<A>) -> MessageKind {
        self.kinds[A::Messages::place(sum)]
    }

    /// The message of this name, decoded or upcast. Nobody waits for its reply.
    ///
    /// # Errors
    /// See [`Undecodable`]; a shape is compared only where both sides could be traced.
    pub(crate) fn decode(
        &self,
        name: &str,
        version: u32,
        shape: u32,
        body: &[u8],
    ) -> Result<SumOf<A>, Undecodable> {
        let place = self.find(name).ok_or_else(|| unknown(name))?;
        self.kinds[place].check(version, shape)?;
        A::Messages::decode(place, Stored::new(name, version, body)).ok_or_else(|| unknown(name))?
    }

    fn find(&self, name: &str) -> Option<usize> {
        let at = self.by_name.binary_search_by(|&place| self.kinds[place].name.cmp(name)).ok()?;
        Some(self.by_name[at])
    }
}

impl<A: Actor> fmt::Debug for Decoder<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("kinds", &self.kinds).finish()
    }
}

impl MessageKind {
    /// Refuses what was stored as something this program cannot read.
    fn check(&self, version: u32, shape: u32) -> Result<(), Undecodable> {
        let name = || self.name.to_owned();
        if version > self.version {
            return Err(Undecodable::NewerVersion { name: name(), stored: version, known: self.version });
        }
        if version == self.version && shape != self.shape && shape != UNTRACED && self.shape != UNTRACED {
            return Err(Undecodable::ChangedShape { name: name(), version, stored: shape, now: self.shape });
        }
        Ok(())
    }
}

/// One stored message of a known type, decoded or upcast.
pub(crate) fn read<M: Message>(kind: &MessageKind, stored: &Envelope<'_>) -> Result<M, Undecodable> {
    if stored.name != kind.name {
        return Err(unknown(stored.name));
    }
    kind.check(stored.version, stored.shape)?;
    let body = Stored::new(stored.name, stored.version, stored.body);
    // user code: an upcast may panic, and so may a `Deserialize`
    std::panic::catch_unwind(AssertUnwindSafe(|| decode_one(body)))
        .unwrap_or_else(|panic| Err(body.malformed(panic_text(&*panic))))
}

fn unknown(name: &str) -> Undecodable {
    Undecodable::UnknownName { name: name.to_owned() }
}

/// A stored message of a known type and shape, decoded or upcast.
pub(crate) fn decode_one<M: Message>(stored: Stored<'_>) -> Result<M, Undecodable> {
    match stored.version() == M::VERSION {
        true => stored.decode(),
        false => M::upcast(stored),
    }
}

/// A message and the slot for its reply: the sum of a list of one.
pub struct Held<M: Message> {
    message: M,
    reply: Option<ReplySlot<M::Reply>>,
}

/// The index of a message in itself.
pub struct Here(());

/// The index of a message which is at `I` in the `N`th element of a tuple.
pub struct At<const N: usize, I>(PhantomData<I>);

impl<M: Message> List for M {
    type Form = Leaf;
    type Sum = Held<M>;
    const LEN: usize = 1;

    fn describe(out: &mut Vec<MessageKind>) {
        let shape = codec::fingerprint::<M>().unwrap_or(UNTRACED);
        out.push(MessageKind { name: M::NAME, version: M::VERSION, shape });
    }

    fn decode(place: usize, stored: Stored<'_>) -> Option<Result<Held<M>, Undecodable>> {
        (place == 0).then(|| decode_one(stored).map(|message| Held { message, reply: None }))
    }

    fn place(_: &Held<M>) -> usize {
        0
    }

    fn message(held: &Held<M>) -> &dyn Any {
        &held.message
    }

    fn asker(held: &Held<M>) -> Option<Asker> {
        held.reply.as_ref().map(ReplySlot::asker)
    }

    fn attach(held: &mut Held<M>, asker: &Asker) {
        held.reply = ReplySlot::of(asker);
    }
}

impl<A: Handler<M>, M: Message> Dispatch<A, Leaf> for M {
    async fn run(
        held: Held<M>,
        actor: &mut A,
        ctx: &mut Context<A>,
        keep: KeepReply,
    ) -> Result<Answered, Failure> {
        let reply = actor.handle(held.message, ctx).await?;
        Answered::new(reply, held.reply, keep)
    }

    const BATCHES: bool = <A as Handler<M>>::BATCHES;

    async fn run_batch(
        batch: Vec<InBatch<Held<M>>>,
        actor: &mut A,
        ctx: &mut Context<A>,
    ) -> Result<Vec<Result<Answered, Failure>>, Failure> {
        let (mut items, mut waiting) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for InBatch { sum, about, keep } in batch {
            items.push(Item::new(sum.message, about));
            waiting.push((sum.reply, keep));
        }
        let outcomes = actor.handle_batch_hidden(items, ctx).await?;
        check_count(waiting.len(), outcomes.len())?;
        let answer = |(outcome, (slot, keep)): (Result<M::Reply, Failure>, _)| {
            outcome.and_then(|reply| Answered::new(reply, slot, keep))
        };
        Ok(outcomes.into_iter().zip(waiting).map(answer).collect())
    }
}

impl<M: Message> Contains<M, Here> for M {
    const PLACE: usize = 0;

    fn wrap(message: M, reply: Option<ReplySlot<M::Reply>>) -> Held<M> {
        Held { message, reply }
    }
}

/// No message is nowhere. While `M` is not yet inferred, this second candidate keeps the compiler from taking
/// the only message of a list for it, and from then reporting "mismatched types" where the list should speak.
#[diagnostic::do_not_recommend]
impl<M: Message, Other: Message + Nowhere> Contains<Other, Decoy> for M {
    const PLACE: usize = 0;

    fn wrap(message: Other, _: Option<ReplySlot<Other::Reply>>) -> Held<M> {
        message.never()
    }
}

/// Has no impl, and must have none.
pub trait Nowhere {
    /// Cannot be called, there being no `self`.
    fn never<T>(self) -> T;
}

/// The index that is never inferred.
pub struct Decoy(());

/// How many messages come before the element `n`.
const fn before(n: usize, lens: &[usize]) -> usize {
    let (mut sum, mut i) = (0, 0);
    while i < n {
        sum += lens[i];
        i += 1;
    }
    sum
}

macro_rules! tuple {
    ($Sum:ident $all:tt $($T:ident $n:literal),+) => {
        pub enum $Sum<$($T),+> {
            $($T($T)),+
        }

        impl<$($T: List),+> List for ($($T,)+) {
            type Form = Branch;
            type Sum = $Sum<$($T::Sum),+>;
            const LEN: usize = 0 $(+ $T::LEN)+;

            fn describe(out: &mut Vec<MessageKind>) {
                $($T::describe(out);)+
            }

            fn decode(place: usize, stored: Stored<'_>) -> Option<Result<Self::Sum, Undecodable>> {
                $(
                    let first = const { before($n, &lens!($all)) };
                    if place < first + $T::LEN {
                        return Some($T::decode(place - first, stored)?.map($Sum::$T));
                    }
                )+
                None
            }

            fn place(sum: &Self::Sum) -> usize {
                match sum {
                    $($Sum::$T(one) => $T::place(one) + const { before($n, &lens!($all)) }),+
                }
            }

            fn message(sum: &Self::Sum) -> &dyn Any {
                match sum {
                    $($Sum::$T(one) => $T::message(one)),+
                }
            }

            fn asker(sum: &Self::Sum) -> Option<Asker> {
                match sum {
                    $($Sum::$T(one) => $T::asker(one)),+
                }
            }

            fn attach(sum: &mut Self::Sum, asker: &Asker) {
                match sum {
                    $($Sum::$T(one) => $T::attach(one, asker)),+
                }
            }
        }

        $(element!($Sum $all $T $n);)+
    };
}

macro_rules! dispatch {
    // several messages are never handled in one call
    ($Sum:ident $($T:ident)+) => {
        impl<A: Actor, $($T: MessageList<A>),+> Dispatch<A, Branch> for ($($T,)+) {
            async fn run(
                sum: Self::Sum,
                actor: &mut A,
                ctx: &mut Context<A>,
                keep: KeepReply,
            ) -> Result<Answered, Failure> {
                match sum {
                    $($Sum::$T(one) => $T::dispatch(one, actor, ctx, keep).await),+
                }
            }
        }
    };
}

impl<A: Actor, T0: MessageList<A>> Dispatch<A, Branch> for (T0,) {
    async fn run(
        sum: Self::Sum,
        actor: &mut A,
        ctx: &mut Context<A>,
        keep: KeepReply,
    ) -> Result<Answered, Failure> {
        let Sum1::T0(one) = sum;
        T0::dispatch(one, actor, ctx, keep).await
    }

    const BATCHES: bool = <T0 as MessageList<A>>::BATCHES;

    fn run_batch(
        batch: Vec<InBatch<Self::Sum>>,
        actor: &mut A,
        ctx: &mut Context<A>,
    ) -> impl Future<Output = Result<Vec<Result<Answered, Failure>>, Failure>> + Send {
        let inner = batch.into_iter().map(|one| one.map(|Sum1::T0(sum)| sum)).collect();
        T0::dispatch_batch(inner, actor, ctx)
    }
}

macro_rules! element {
    ($Sum:ident [$($All:ident)+] $T:ident $n:literal) => {
        #[diagnostic::do_not_recommend]
        impl<M: Message, I, $($All: List),+> Contains<M, At<$n, I>> for ($($All,)+)
        where
            $T: Contains<M, I>,
        {
            const PLACE: usize = before($n, &lens!([$($All)+])) + <$T as Contains<M, I>>::PLACE;

            fn wrap(message: M, reply: Option<ReplySlot<M::Reply>>) -> Self::Sum {
                $Sum::$T(<$T as Contains<M, I>>::wrap(message, reply))
            }
        }
    };
}

macro_rules! lens {
    ([$($All:ident)+]) => { [$($All::LEN),+] };
}

macro_rules! tuples {
    ($($Sum:ident: $($T:ident $n:literal)+;)+) => {
        $(tuple!($Sum [$($T)+] $($T $n),+);)+
    };
}

tuples! {
    Sum1: T0 0;
    Sum2: T0 0 T1 1;
    Sum3: T0 0 T1 1 T2 2;
    Sum4: T0 0 T1 1 T2 2 T3 3;
    Sum5: T0 0 T1 1 T2 2 T3 3 T4 4;
    Sum6: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5;
    Sum7: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6;
    Sum8: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6 T7 7;
    Sum9: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6 T7 7 T8 8;
    Sum10: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6 T7 7 T8 8 T9 9;
    Sum11: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6 T7 7 T8 8 T9 9 T10 10;
    Sum12: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6 T7 7 T8 8 T9 9 T10 10 T11 11;
    Sum13: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6 T7 7 T8 8 T9 9 T10 10 T11 11 T12 12;
    Sum14: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6 T7 7 T8 8 T9 9 T10 10 T11 11 T12 12 T13 13;
    Sum15: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6 T7 7 T8 8 T9 9 T10 10 T11 11 T12 12 T13 13 T14 14;
    Sum16: T0 0 T1 1 T2 2 T3 3 T4 4 T5 5 T6 6 T7 7 T8 8 T9 9 T10 10 T11 11 T12 12 T13 13 T14 14 T15 15;
}

dispatch!(Sum2 T0 T1);
dispatch!(Sum3 T0 T1 T2);
dispatch!(Sum4 T0 T1 T2 T3);
dispatch!(Sum5 T0 T1 T2 T3 T4);
dispatch!(Sum6 T0 T1 T2 T3 T4 T5);
dispatch!(Sum7 T0 T1 T2 T3 T4 T5 T6);
dispatch!(Sum8 T0 T1 T2 T3 T4 T5 T6 T7);
dispatch!(Sum9 T0 T1 T2 T3 T4 T5 T6 T7 T8);
dispatch!(Sum10 T0 T1 T2 T3 T4 T5 T6 T7 T8 T9);
dispatch!(Sum11 T0 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10);
dispatch!(Sum12 T0 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11);
dispatch!(Sum13 T0 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12);
dispatch!(Sum14 T0 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13);
dispatch!(Sum15 T0 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13 T14);
dispatch!(Sum16 T0 T1 T2 T3 T4 T5 T6 T7 T8 T9 T10 T11 T12 T13 T14 T15);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::actor::reply::ReplyLost;

    #[derive(Serialize, Deserialize)]
    struct Letter<const N: u32>(u64);

    macro_rules! letters {
        ($($n:literal)+) => {
            $(impl Message for Letter<$n> {
                type Reply = (u32, u64);
                const NAME: &'static str = concat!("letter.", $n);
            })+
        };
    }
    letters!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18);

    type Sixteen = (
        Letter<0>,
        Letter<1>,
        Letter<2>,
        Letter<3>,
        Letter<4>,
        Letter<5>,
        Letter<6>,
        Letter<7>,
        Letter<8>,
        Letter<9>,
        Letter<10>,
        Letter<11>,
        Letter<12>,
        Letter<13>,
        Letter<14>,
        Letter<15>,
    );

    macro_rules! actor {
        ($Actor:ident, $Messages:ty) => {
            #[derive(Default)]
            struct $Actor {
                seen: Vec<(u32, u64)>,
            }

            impl Actor for $Actor {
                const NAME: &'static str = stringify!($Actor);
                type Messages = $Messages;
            }

            impl<const N: u32> Handler<Letter<N>> for $Actor
            where
                Letter<N>: Message<Reply = (u32, u64)>,
            {
                async fn handle(
                    &mut self,
                    letter: Letter<N>,
                    _: &mut Context<Self>,
                ) -> Result<(u32, u64), Failure> {
                    tokio::task::yield_now().await;
                    self.seen.push((N, letter.0));
                    if letter.0 == 0 { Err(Failure::new("nothing")) } else { Ok((N, letter.0)) }
                }
            }
        };
    }
    actor!(Flat, Sixteen);
    actor!(Deep, (Letter<16>, (Sixteen, (Letter<17>,)), Letter<18>));
    actor!(Bare, Letter<3>);
    actor!(Twice, (Letter<1>, (Letter<2>, Letter<1>)));

    fn sealed<M: Message>(message: &M) -> Vec<u8> {
        let mut body = Vec::new();
        codec::encode_into(message, &mut body).unwrap();
        body
    }

    async fn run<A: Actor>(actor: &mut A, sum: SumOf<A>) -> Result<Answered, Failure> {
        A::Messages::dispatch(sum, actor, &mut Context::for_test(), KeepReply::No).await
    }

    /// Sends `message` to `actor` twice, wrapped and decoded, and gives the place and what came back.
    async fn both_ways<A: Actor, M: Message, I>(actor: &mut A, message: M, again: M) -> (usize, M::Reply)
    where
        A::Messages: Contains<M, I>,
    {
        let decoder = Decoder::<A>::new().unwrap();
        let kind = decoder.kind::<M, I>();
        assert_eq!(kind.name, M::NAME);
        let (slot, wait) = ReplySlot::new();
        let wrapped = <A::Messages as Contains<M, I>>::wrap(message, Some(slot));
        assert_eq!(decoder.kind_of(&wrapped), kind);
        run(actor, wrapped).await.unwrap().release(None);
        let decoded = decoder.decode(M::NAME, kind.version, kind.shape, &sealed(&again)).unwrap();
        run(actor, decoded).await.unwrap().release(None);
        (<A::Messages as Contains<M, I>>::PLACE, wait.await.unwrap().unwrap().reply)
    }

    macro_rules! at_each {
        ($actor:ident: $($n:literal at $place:literal),+) => {
            $({
                let came = both_ways(&mut $actor, Letter::<$n>(100 + $n), Letter::<$n>(200 + $n)).await;
                assert_eq!(came, ($place, ($n, 100 + $n)));
                assert_eq!($actor.seen, [($n, 100 + $n), ($n, 200 + $n)]);
                $actor.seen.clear();
            })+
        };
    }

    #[tokio::test]
    async fn a_message_reaches_its_handler_from_every_place_of_sixteen() {
        let mut flat = Flat::default();
        at_each!(flat: 0 at 0, 1 at 1, 2 at 2, 3 at 3, 4 at 4, 5 at 5, 6 at 6, 7 at 7, 8 at 8, 9 at 9,
            10 at 10, 11 at 11, 12 at 12, 13 at 13, 14 at 14, 15 at 15);
        assert_eq!(Sixteen::LEN, 16);
    }

    #[tokio::test]
    async fn a_message_reaches_its_handler_from_every_depth() {
        let mut deep = Deep::default();
        at_each!(deep: 16 at 0, 0 at 1, 1 at 2, 7 at 8, 15 at 16, 17 at 17, 18 at 18);
        assert_eq!(<Deep as Actor>::Messages::LEN, 19);
        let mut bare = Bare::default();
        at_each!(bare: 3 at 0);
    }

    #[test]
    fn a_stored_message_is_found_by_its_name_or_is_unknown() {
        let decoder = Decoder::<Deep>::new().unwrap();
        for (place, kind) in decoder.kinds().iter().enumerate() {
            let sum = decoder.decode(kind.name, 1, kind.shape, &sealed(&Letter::<0>(1))).unwrap();
            assert_eq!(<Deep as Actor>::Messages::place(&sum), place, "{}", kind.name);
        }
        let why = decoder.decode("letter.19", 1, UNTRACED, &[]).err();
        assert_eq!(why, Some(Undecodable::UnknownName { name: "letter.19".into() }));
    }

    #[test]
    fn the_same_version_in_another_shape_is_refused_unless_either_was_not_traced() {
        let mut decoder = Decoder::<Bare>::new().unwrap();
        let (body, now) = (sealed(&Letter::<3>(1)), decoder.kinds()[0].shape);
        let stored = now ^ 1;
        let name = "letter.3".to_owned();
        let why = decoder.decode("letter.3", 1, stored, &body).err();
        assert_eq!(why, Some(Undecodable::ChangedShape { name, version: 1, stored, now }));
        assert!(decoder.decode("letter.3", 1, UNTRACED, &body).is_ok());
        decoder.kinds[0].shape = UNTRACED;
        assert!(decoder.decode("letter.3", 1, stored, &body).is_ok());
    }

    #[test]
    fn bytes_that_are_no_message_are_malformed() {
        let decoder = Decoder::<Bare>::new().unwrap();
        for body in [&[][..], &[1, 2], &[253]] {
            let why = decoder.decode("letter.3", 1, UNTRACED, body).err();
            assert!(matches!(why, Some(Undecodable::Malformed { version: 1, .. })), "{body:?}: {why:?}");
        }
    }

    #[test]
    fn a_name_that_is_there_twice_is_found_through_the_nesting() {
        let twice = DuplicateName { actor: "Twice", name: "letter.1" };
        assert_eq!(Decoder::<Twice>::new().err(), Some(twice));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Grown {
        a: u8,
        b: String,
    }

    impl Message for Grown {
        type Reply = ();
        const NAME: &'static str = "grown";
        const VERSION: u32 = 4;

        fn upcast(stored: Stored<'_>) -> Result<Self, Undecodable> {
            match stored.version() {
                2 => Ok(Grown { a: stored.decode()?, b: String::new() }),
                3 => Err(stored.malformed("three was never released")),
                _ => Err(stored.unknown_version()),
            }
        }
    }

    struct Grows;

    impl Actor for Grows {
        const NAME: &'static str = "grows";
        type Messages = (Letter<0>, Grown);
    }

    impl Handler<Grown> for Grows {
        async fn handle(&mut self, _: Grown, _: &mut Context<Self>) -> Result<(), Failure> {
            Ok(())
        }
    }

    impl Handler<Letter<0>> for Grows {
        async fn handle(&mut self, _: Letter<0>, _: &mut Context<Self>) -> Result<(u32, u64), Failure> {
            Ok((0, 0))
        }
    }

    #[test]
    fn an_older_version_is_upcast_and_a_newer_one_refused() {
        let decoder = Decoder::<Grows>::new().unwrap();
        let read = |version| {
            decoder.decode("grown", version, 77, &[9]).map(|sum| match sum {
                Sum2::T0(_) => None,
                Sum2::T1(held) => Some(held.message),
            })
        };
        let name = || "grown".to_owned();
        assert_eq!(read(1), Err(Undecodable::UnknownVersion { name: name(), version: 1 }));
        assert_eq!(read(2), Ok(Some(Grown { a: 9, b: String::new() })));
        let why = "three was never released".to_owned();
        assert_eq!(read(3), Err(Undecodable::Malformed { name: name(), version: 3, why }));
        assert_eq!(read(5), Err(Undecodable::NewerVersion { name: name(), stored: 5, known: 4 }));
    }

    #[tokio::test]
    async fn a_failed_attempt_leaves_the_asker_waiting_for_the_next() {
        let mut flat = Flat::default();
        let (slot, mut wait) = ReplySlot::new();
        let mut sum: SumOf<Flat> = <Sixteen as Contains<_, _>>::wrap(Letter::<5>(0), Some(slot));
        let asker = Sixteen::asker(&sum).unwrap();
        assert_eq!(run(&mut flat, sum).await.unwrap_err().text(), "nothing");
        assert!(wait.try_recv().is_none() && !asker.is_gone());

        sum = <Sixteen as Contains<_, _>>::wrap(Letter::<5>(6), None);
        Sixteen::attach(&mut sum, &asker);
        run(&mut flat, sum).await.unwrap().release(None);
        assert_eq!(wait.try_recv().unwrap().unwrap().unwrap().reply, (5, 6));
        asker.lose(ReplyLost::Stopped);
    }

    #[tokio::test]
    async fn a_reply_that_is_kept_decodes_to_what_the_handler_gave() {
        let sum = <Letter<3> as Contains<_, _>>::wrap(Letter::<3>(4), None);
        let (mut bare, mut ctx) = (Bare::default(), Context::for_test());
        let run = <Letter<3>>::dispatch(sum, &mut bare, &mut ctx, KeepReply::Encoded);
        let bytes = run.await.unwrap().take_stored().unwrap();
        assert_eq!(codec::decode::<(u32, u64)>(&bytes).unwrap(), (3, 4));
    }

    /// What a `Recipient<M>` needs: the actor's type and the index erased, by a function pointer, without `I:
    /// 'static`.
    struct Sends<A: Actor, M: Message>(fn(M, Option<ReplySlot<M::Reply>>) -> SumOf<A>);

    trait Takes<M> {
        fn place_of(&self, message: M) -> usize;
    }

    impl<A: Actor, M: Message> Takes<M> for Sends<A, M> {
        fn place_of(&self, message: M) -> usize {
            A::Messages::place(&(self.0)(message, None))
        }
    }

    fn takes<A: Actor, M: Message, I>() -> Box<dyn Takes<M>>
    where
        A::Messages: Contains<M, I>,
    {
        Box::new(Sends::<A, M>(<A::Messages as Contains<M, I>>::wrap))
    }

    #[test]
    fn the_index_and_the_actor_can_be_erased() {
        let all: [Box<dyn Takes<Letter<3>>>; 3] =
            [takes::<Flat, _, _>(), takes::<Deep, _, _>(), takes::<Bare, _, _>()];
        assert_eq!(all.map(|one| one.place_of(Letter(1))), [3, 4, 0]);
    }

    #[test]
    fn a_dispatch_can_move_between_threads_and_holds_its_message_inline() {
        fn sendable<T: Send>(value: T) -> T {
            value
        }
        let sum: SumOf<Deep> = <<Deep as Actor>::Messages as Contains<_, _>>::wrap(Letter::<9>(1), None);
        let (mut deep, mut ctx) = (Deep::default(), Context::for_test());
        assert!(size_of_val(&sum) <= size_of::<Held<Letter<9>>>() + 3 * size_of::<usize>());
        let turn = sendable(<Deep as Actor>::Messages::dispatch(sum, &mut deep, &mut ctx, KeepReply::No));
        assert!(turn.now_or_never().is_none(), "the handler yields once");
    }
}
