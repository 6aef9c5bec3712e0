//! What a stage can be given: the events of one topic or of two, and the word that time has moved on. One list of messages for
//! every stage, so that one actor is behind all of them.
//!
//! # Invariants
//! - An event belongs to the topic it was read from, also where two topics have one type of event.

use std::any::Any;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use super::runner::StageActor;
use crate::actor::{
    Answered, Asker, Contains, Context, Dispatch, Failure, InBatch, KeepReply, List, Message, MessageKind,
    ReplySlot, Stored, Undecodable, decode_one,
};

/// The events a stage reads. There are two kinds, [`One`] and [`Two`]; code that is generic over stages names this.
pub trait Sources: Send + Sync + 'static {
    /// An event of one of them.
    type Item: Send + 'static;

    #[doc(hidden)]
    fn describe(out: &mut Vec<MessageKind>);
    /// The event at this place of what was described.
    #[doc(hidden)]
    fn decode(place: usize, stored: Stored<'_>) -> Option<Result<Self::Item, Undecodable>>;
    #[doc(hidden)]
    fn place(item: &Self::Item) -> usize;
    #[doc(hidden)]
    fn message(item: &Self::Item) -> &dyn Any;
    /// The event as one of the topic with this number.
    #[doc(hidden)]
    fn of_topic(item: Self::Item, topic: usize) -> Option<Self::Item>;
    /// Whether the type of an event does not say which topic it is from.
    #[doc(hidden)]
    fn are_alike() -> bool;
}

/// The events of one topic.
pub struct One<E>(PhantomData<fn(E)>);

impl<E: Message> Sources for One<E> {
    type Item = E;

    fn describe(out: &mut Vec<MessageKind>) {
        E::describe(out);
    }

    fn decode(place: usize, stored: Stored<'_>) -> Option<Result<E, Undecodable>> {
        (place == 0).then(|| decode_one(stored))
    }

    fn place(_: &E) -> usize {
        0
    }

    fn message(item: &E) -> &dyn Any {
        item
    }

    fn of_topic(item: E, _: usize) -> Option<E> {
        Some(item)
    }

    fn are_alike() -> bool {
        false
    }
}

/// The events of two topics.
pub struct Two<L, R>(PhantomData<fn(L, R)>);

/// An event of one of two topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side<L, R> {
    /// Of the topic that the stage was built on.
    Left(L),
    /// Of the one that was joined.
    Right(R),
}

impl<L: Message, R: Message> Sources for Two<L, R> {
    type Item = Side<L, R>;

    fn describe(out: &mut Vec<MessageKind>) {
        L::describe(out);
        if !Self::are_alike() {
            R::describe(out);
        }
    }

    fn decode(place: usize, stored: Stored<'_>) -> Option<Result<Self::Item, Undecodable>> {
        match place {
            0 => Some(decode_one(stored).map(Side::Left)),
            1 if !Self::are_alike() => Some(decode_one(stored).map(Side::Right)),
            _ => None,
        }
    }

    fn place(item: &Self::Item) -> usize {
        match item {
            Side::Left(_) => 0,
            Side::Right(_) => usize::from(!Self::are_alike()),
        }
    }

    fn message(item: &Self::Item) -> &dyn Any {
        match item {
            Side::Left(left) => left,
            Side::Right(right) => right,
        }
    }

    fn of_topic(item: Self::Item, topic: usize) -> Option<Self::Item> {
        match item {
            Side::Left(left) if topic == 1 && !cfg!(steadfast_bug = "join_left_with_left") => {
                // one type under one name: it was decoded as the left one
                let mut left = Some(left);
                let any: &mut dyn Any = &mut left;
                let right = any.downcast_mut::<Option<R>>().and_then(Option::take);
                right.map(Side::Right).or(left.map(Side::Left))
            }
            other => Some(other),
        }
    }

    fn are_alike() -> bool {
        L::NAME == R::NAME
    }
}

/// Says that time has moved on: to go on with what is due, and not to wait for events before `until` any more.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Tick {
    pub(super) until: Option<u64>,
    /// The alarm that this is.
    pub(super) alarm: Option<u64>,
}

impl Message for Tick {
    type Reply = ();
    const NAME: &'static str = "steadfast.stage.tick";
}

/// The list of messages of a stage: the [`Tick`] and the events of its sources.
pub struct Inputs<S>(PhantomData<fn(S)>);

/// The form of that list.
pub struct StageForm(());

/// What a stage is given.
pub enum Input<I> {
    /// Time.
    Tick(Ticked),
    /// An event.
    Item(I),
}

/// Time, and who waits until it has moved.
pub struct Ticked {
    pub(super) tick: Tick,
    pub(super) reply: Option<ReplySlot<()>>,
}

impl<S: Sources> List for Inputs<S> {
    type Form = StageForm;
    type Sum = Input<S::Item>;
    const LEN: usize = 3;

    fn describe(out: &mut Vec<MessageKind>) {
        Tick::describe(out);
        S::describe(out);
    }

    fn decode(place: usize, stored: Stored<'_>) -> Option<Result<Self::Sum, Undecodable>> {
        match place {
            0 => Some(decode_one(stored).map(|tick| Input::Tick(Ticked { tick, reply: None }))),
            _ => Some(S::decode(place - 1, stored)?.map(Input::Item)),
        }
    }

    fn place(sum: &Self::Sum) -> usize {
        match sum {
            Input::Tick(_) => 0,
            Input::Item(item) => 1 + S::place(item),
        }
    }

    fn message(sum: &Self::Sum) -> &dyn Any {
        match sum {
            Input::Tick(ticked) => &ticked.tick,
            Input::Item(item) => S::message(item),
        }
    }

    fn asker(sum: &Self::Sum) -> Option<Asker> {
        match sum {
            Input::Tick(ticked) => ticked.reply.as_ref().map(ReplySlot::asker),
            Input::Item(_) => None,
        }
    }

    fn attach(sum: &mut Self::Sum, asker: &Asker) {
        if let Input::Tick(ticked) = sum {
            ticked.reply = ReplySlot::of(asker);
        }
    }
}

// no use to whoever sends an actor what it does not take
#[diagnostic::do_not_recommend]
impl<S: Sources> Contains<Tick, ()> for Inputs<S> {
    const PLACE: usize = 0;

    fn wrap(tick: Tick, reply: Option<ReplySlot<()>>) -> Self::Sum {
        Input::Tick(Ticked { tick, reply })
    }
}

impl<S: Sources> Dispatch<StageActor<S>, StageForm> for Inputs<S> {
    async fn run(
        sum: Self::Sum,
        stage: &mut StageActor<S>,
        ctx: &mut Context<StageActor<S>>,
        keep: KeepReply,
    ) -> Result<Answered, Failure> {
        let about = ctx.about();
        stage.take(sum, about, ctx, &mut stage.budget(), keep).await
    }

    const BATCHES: bool = true;

    /// One that fails takes all back: each is then given alone.
    async fn run_batch(
        batch: Vec<InBatch<Self::Sum>>,
        stage: &mut StageActor<S>,
        ctx: &mut Context<StageActor<S>>,
    ) -> Result<Vec<Result<Answered, Failure>>, Failure> {
        let (mut budget, mut answers) = (stage.budget(), Vec::with_capacity(batch.len()));
        for InBatch { sum, about, keep } in batch {
            answers.push(Ok(stage.take(sum, about, ctx, &mut budget, keep).await?));
        }
        Ok(answers)
    }
}
