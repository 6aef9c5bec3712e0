//! What the operators of a stage are to each other: each asks the one before it what has come, and makes its own of that.
//!
//! # Invariants
//! - After items comes the mark: no item that comes later is from before it, but for a result that is [revised](super::Windowed).
//! - Whatever an operator keeps is in the state of the stage's actor, and nothing in itself.

use futures_util::future::BoxFuture;

use super::inputs::Sources;
use super::runner::StageActor;
use crate::actor::{Context, Failure};
use crate::clock::Timestamp;

/// An item, and when it happened.
pub(super) struct Timed<T> {
    pub(super) item: T,
    pub(super) at: Timestamp,
}

/// What has come of one input.
pub(super) struct Flowed<T> {
    pub(super) items: Vec<Timed<T>>,
    pub(super) mark: Mark,
}

/// Up to where time has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mark {
    pub(super) until: Timestamp,
    /// It is the clock's: it moves on without events.
    pub(super) by_clock: bool,
}

/// Time is to move on without an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    /// At least up to here; none: as far as it has.
    pub(super) until: Option<Timestamp>,
}

/// The turn of one input.
pub(super) struct Turning<'a, S: Sources> {
    pub(super) ctx: &'a mut Context<StageActor<S>>,
    /// When the event was published.
    pub(super) at: Timestamp,
    /// The number of its topic.
    pub(super) source: Option<usize>,
    /// How many windows may still be closed.
    pub(super) budget: &'a mut usize,
    /// Something is due still.
    pub(super) more: bool,
    /// When the clock has something due.
    pub(super) alarm: Option<Timestamp>,
    /// It has failed as often as it may.
    pub(super) spent: bool,
}

impl<S: Sources> Turning<'_, S> {
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.alarm = Some(self.alarm.map_or(at, |alarm| alarm.min(at)));
    }
}

pub(super) type Came<'a, T> = BoxFuture<'a, Result<Flowed<T>, Failure>>;

/// All operators up to one, which puts out items of `T`.
pub(super) trait Pipe<S: Sources, T>: Send + Sync + 'static {
    /// An event came.
    fn push<'a>(&'a self, item: S::Item, turn: &'a mut Turning<'_, S>) -> Came<'a, T>;
    /// Time moved.
    fn wake<'a>(&'a self, moved: Moved, turn: &'a mut Turning<'_, S>) -> Came<'a, T>;
}

/// One operator: what it makes of what came from the one before it.
pub(super) trait Operator<S: Sources, T, U>: Send + Sync + 'static {
    fn through<'a>(
        &'a self,
        came: Flowed<T>,
        turn: &'a mut Turning<'_, S>,
    ) -> impl Future<Output = Result<Flowed<U>, Failure>> + Send;
}

/// An operator and all before it.
pub(super) struct Then<P, O, T> {
    pub(super) before: P,
    pub(super) operator: O,
    pub(super) _item: std::marker::PhantomData<fn(T)>,
}

impl<S, T, U, P, O> Pipe<S, U> for Then<P, O, T>
where
    S: Sources,
    T: Send + 'static,
    U: Send + 'static,
    P: std::ops::Deref<Target = dyn Pipe<S, T>> + Send + Sync + 'static,
    O: Operator<S, T, U>,
{
    fn push<'a>(&'a self, item: S::Item, turn: &'a mut Turning<'_, S>) -> Came<'a, U> {
        Box::pin(async move {
            let came = self.before.push(item, turn).await?;
            self.operator.through(came, turn).await
        })
    }

    fn wake<'a>(&'a self, moved: Moved, turn: &'a mut Turning<'_, S>) -> Came<'a, U> {
        Box::pin(async move {
            let came = self.before.wake(moved, turn).await?;
            self.operator.through(came, turn).await
        })
    }
}

/// The beginning: the events as they are, from when they were published, and time that nobody tells.
pub(super) struct Start;

impl<S: Sources> Pipe<S, S::Item> for Start {
    fn push<'a>(&'a self, item: S::Item, turn: &'a mut Turning<'_, S>) -> Came<'a, S::Item> {
        let items = vec![Timed { item, at: turn.at }];
        Box::pin(async move { Ok(Flowed { items, mark: Mark::default() }) })
    }

    fn wake<'a>(&'a self, moved: Moved, _: &'a mut Turning<'_, S>) -> Came<'a, S::Item> {
        let mark = Mark { until: moved.until.unwrap_or_default(), by_clock: false };
        Box::pin(async move { Ok(Flowed { items: Vec::new(), mark }) })
    }
}
