//! A stage while it is being built: the operators that keep nothing, and where the results go.
//!
//! # Invariants
//! - What can be seen to be impossible is refused when the flow comes to its end, and names the stage.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::error::StageError;
use super::inputs::Sources;
use super::pipe::{Flowed, Operator, Pipe, Then, Timed, Turning};
use super::runner::StageActor;
use super::stage::Stage;
use super::time::{ByClock, ByEvent};
use crate::actor::{Accepts, Address, Context, Failure, MapKey, Message};
use crate::clock::Timestamp;
use crate::durable::StartFrom;
use crate::store::LogId;
use crate::topic::{PublishOptions, Topic};

/// The most operators of a stage that keep something.
pub(super) const SLOTS: usize = 16;

/// A stage being built: what comes of the events of `S` so far, items of `T`. From [`Topic::stage`]; an end such as [`Flow::to`]
/// makes it a [`Stage`].
#[must_use = "a stage does nothing until it has an end and is run"]
pub struct Flow<S: Sources, T> {
    pub(super) name: String,
    pub(super) topics: Vec<(Arc<str>, LogId)>,
    pub(super) from: StartFrom,
    pub(super) pipe: Arc<dyn Pipe<S, T>>,
    pub(super) keeps: Vec<String>,
    /// Whether somebody says what time it is.
    pub(super) is_timed: bool,
    pub(super) has_fallback: bool,
    /// The first thing that is wrong with it.
    pub(super) wrong: Option<StageError>,
}

impl<S: Sources, T: Send + 'static> Flow<S, T> {
    pub(super) fn then<U: Send + 'static>(self, operator: impl Operator<S, T, U>) -> Flow<S, U> {
        let Flow { name, topics, from, pipe, keeps, is_timed, has_fallback, wrong } = self;
        let pipe: Arc<dyn Pipe<S, U>> = Arc::new(Then { before: pipe, operator, _item: PhantomData });
        Flow { name, topics, from, pipe, keeps, is_timed, has_fallback, wrong }
    }

    /// The number of the next operator that keeps something, which is described so.
    pub(super) fn slot(&mut self, what: String) -> usize {
        self.keeps.push(what);
        if self.keeps.len() > SLOTS {
            self.refuse(StageError::TooManyOperators { stage: self.name.clone(), limit: SLOTS });
        }
        self.keeps.len().min(SLOTS) - 1
    }

    pub(super) fn refuse(&mut self, wrong: StageError) {
        self.wrong.get_or_insert(wrong);
    }

    /// Where the stage begins when it is new: with the oldest event that is there, unless this says otherwise. After that it goes
    /// on where it was.
    pub fn from(mut self, from: StartFrom) -> Self {
        self.from = from;
        self
    }

    /// Makes one item of each.
    pub fn map<U: Send + 'static>(self, map: impl Fn(T) -> U + Send + Sync + 'static) -> Flow<S, U> {
        self.try_flat_map(move |item| Ok([map(item)]))
    }

    /// Makes one item of each, or fails with the event.
    pub fn try_map<U, F>(self, map: F) -> Flow<S, U>
    where
        U: Send + 'static,
        F: Fn(T) -> Result<U, Failure> + Send + Sync + 'static,
    {
        self.try_flat_map(move |item| map(item).map(|item| [item]))
    }

    /// Lets through the items for which this is true.
    pub fn filter(self, wants: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.try_flat_map(move |item| Ok(Some(item).filter(|item| wants(item))))
    }

    /// Makes one item of each, or none.
    pub fn filter_map<U: Send + 'static>(
        self,
        map: impl Fn(T) -> Option<U> + Send + Sync + 'static,
    ) -> Flow<S, U> {
        self.try_flat_map(move |item| Ok(map(item)))
    }

    /// Makes any number of items of each, in one turn.
    pub fn flat_map<U, I>(self, map: impl Fn(T) -> I + Send + Sync + 'static) -> Flow<S, U>
    where
        U: Send + 'static,
        I: IntoIterator<Item = U>,
    {
        self.try_flat_map(move |item| Ok(map(item)))
    }

    /// Makes any number of items of each, or fails with the event: nothing of its turn exists then.
    pub fn try_flat_map<U, I, F>(self, map: F) -> Flow<S, U>
    where
        U: Send + 'static,
        I: IntoIterator<Item = U>,
        F: Fn(T) -> Result<I, Failure> + Send + Sync + 'static,
    {
        self.then(FlatMap(map))
    }

    /// Makes one item of each by something that waits, such as a look-up elsewhere: one after the other, within the turn. What it does
    /// to the outside world it may do again, as a handler may.
    pub fn then_async<U, F, Fut>(self, map: F) -> Flow<S, U>
    where
        U: Send + 'static,
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<U, Failure>> + Send + 'static,
    {
        self.then(Async(map))
    }

    /// Has the events say when they happened. The watermark, up to which everything is taken to have come, is the latest of
    /// these times less `out_of_order`; it is kept with the stage's state. Events need not be in order, but one that is later than that
    /// may be too late for its window.
    pub fn event_time(
        mut self,
        at: impl Fn(&T) -> Timestamp + Send + Sync + 'static,
        out_of_order: Duration,
    ) -> Self {
        let slot = self.slot("event time".into());
        self.is_timed = true;
        self.then(ByEvent::new(slot, at, out_of_order))
    }

    /// Has the system's clock say when events happen: when they are handled. Windows then close by the clock, also when no events
    /// come.
    pub fn processing_time(mut self) -> Self {
        self.is_timed = true;
        self.then(ByClock)
    }

    /// Gives each item a key: what follows keeps something for each. Items of all keys stay in order.
    pub fn key_by<K>(self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> super::Keyed<S, K, T>
    where
        K: MapKey + Clone + Send + 'static,
    {
        super::Keyed { flow: self.map(move |item| (key(&item), item)) }
    }

    /// What to put out for an event that has failed as often as the stage's [`retry`](Stage::retry) allows, in place of what the operators so
    /// far would have: they do not see it. Without this it goes to the dead letters, and so does one that failed
    /// [terminally](Failure::terminal), whatever this says.
    pub fn fallback<I>(mut self, instead: impl Fn(S::Item) -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item = T>,
    {
        self.has_fallback = true;
        let Flow { name, topics, from, pipe, keeps, is_timed, has_fallback, wrong } = self;
        let pipe: Arc<dyn Pipe<S, T>> = Arc::new(super::fallback::Fallback { before: pipe, instead });
        Flow { name, topics, from, pipe, keeps, is_timed, has_fallback, wrong }
    }

    /// Publishes each item.
    ///
    /// # Errors
    /// What was built is impossible; see [`StageError`].
    pub fn to(self, topic: &Topic<T>) -> Result<Stage<S>, StageError>
    where
        T: Message,
    {
        self.to_with(topic, |_| PublishOptions::new())
    }

    /// Publishes each item, with options such as its [key](PublishOptions::key).
    ///
    /// # Errors
    /// As [`Flow::to`].
    pub fn to_with<F>(self, topic: &Topic<T>, options: F) -> Result<Stage<S>, StageError>
    where
        T: Message,
        F: Fn(&T) -> PublishOptions + Send + Sync + 'static,
    {
        let topic = topic.clone();
        self.for_each(move |item, ctx| {
            let options = options(&item);
            ctx.publish_with(&topic, item, &options)?;
            Ok(())
        })
    }

    /// Sends each item to an actor.
    ///
    /// # Errors
    /// As [`Flow::to`].
    pub fn tell(self, to: &Address<dyn Accepts<T>>) -> Result<Stage<S>, StageError>
    where
        T: Message,
    {
        let to = to.clone();
        self.for_each(move |item, ctx| {
            ctx.tell(&to, item)?;
            Ok(())
        })
    }

    /// Has each item do something in the turn, such as to publish to this topic or that.
    ///
    /// # Errors
    /// As [`Flow::to`].
    pub fn for_each<F>(self, each: F) -> Result<Stage<S>, StageError>
    where
        F: Fn(T, &mut Context<StageActor<S>>) -> Result<(), Failure> + Send + Sync + 'static,
    {
        Stage::new(self.then(Each(each)))
    }
}

struct FlatMap<F>(F);

impl<S, T, U, I, F> Operator<S, T, U> for FlatMap<F>
where
    S: Sources,
    T: Send + 'static,
    U: Send + 'static,
    I: IntoIterator<Item = U>,
    F: Fn(T) -> Result<I, Failure> + Send + Sync + 'static,
{
    async fn through(&self, came: Flowed<T>, _: &mut Turning<'_, S>) -> Result<Flowed<U>, Failure> {
        let mut items = Vec::with_capacity(came.items.len());
        for Timed { item, at } in came.items {
            items.extend((self.0)(item)?.into_iter().map(|item| Timed { item, at }));
        }
        Ok(Flowed { items, mark: came.mark })
    }
}

struct Async<F>(F);

impl<S, T, U, F, Fut> Operator<S, T, U> for Async<F>
where
    S: Sources,
    T: Send + 'static,
    U: Send + 'static,
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<U, Failure>> + Send + 'static,
{
    async fn through(&self, came: Flowed<T>, _: &mut Turning<'_, S>) -> Result<Flowed<U>, Failure> {
        let mut items = Vec::with_capacity(came.items.len());
        for Timed { item, at } in came.items {
            items.push(Timed { item: (self.0)(item).await?, at });
        }
        Ok(Flowed { items, mark: came.mark })
    }
}

struct Each<F>(F);

impl<S, T, F> Operator<S, T, ()> for Each<F>
where
    S: Sources,
    T: Send + 'static,
    F: Fn(T, &mut Context<StageActor<S>>) -> Result<(), Failure> + Send + Sync + 'static,
{
    async fn through(&self, came: Flowed<T>, turn: &mut Turning<'_, S>) -> Result<Flowed<()>, Failure> {
        for Timed { item, .. } in came.items {
            (self.0)(item, turn.ctx)?;
        }
        Ok(Flowed { items: Vec::new(), mark: came.mark })
    }
}
