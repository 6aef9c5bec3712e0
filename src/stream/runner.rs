//! The actor behind a stage. An event goes through the stage's operators within its turn, so that the place in the topic, what the
//! operators keep and what they put out are one commit.
//!
//! # Invariants
//! - A stage whose operators that keep something are others than when its state was written does not start.
//! - A turn closes at most [`AT_ONCE`] windows; for the rest the stage sends itself a tick in the same commit.
//! - A failure says which stage and which event.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::inputs::{Input, Inputs, Sources, Tick, Ticked};
use super::pipe::{Moved, Pipe, Turning};
use crate::actor::{
    About, Actor, Answered, Cell, Context, Failure, KeepReply, Kind, SendOptions, When, panic_text,
};
use crate::clock::Timestamp;

/// The most windows that are closed, and the most that expires, in one turn.
const AT_ONCE: usize = 256;

/// What the stage's operators that keep something were when the first of it was written.
const PLAN: Cell<Vec<String>> = Cell::new("stage.plan", 1);
/// When the clock wakes it next.
const ALARM: Cell<u64> = Cell::new("stage.alarm", 1);

/// What a stage does, made once and never changed.
pub(super) struct Plan<S: Sources> {
    pub(super) name: Arc<str>,
    /// The topics' names, as the sources are numbered.
    pub(super) topics: Vec<Arc<str>>,
    pub(super) pipe: Arc<dyn Pipe<S, ()>>,
    /// What keeps something.
    pub(super) keeps: Vec<String>,
    /// From the attempt after this one on its fallback is asked; none: it has none.
    pub(super) last_attempt: Option<u32>,
}

/// The actor behind a stage; see [`Stage`](super::Stage).
pub struct StageActor<S: Sources> {
    plan: Arc<Plan<S>>,
}

impl<S: Sources> Actor for StageActor<S> {
    const NAME: &'static str = "steadfast.stage";
    type Messages = Inputs<S>;

    async fn started(&mut self, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let keeps = &self.plan.keeps;
        match ctx.state().get(&PLAN)? {
            Some(kept) if kept != *keeps && !cfg!(steadfast_bug = "start_another_stage") => {
                let (now, then) = (keeps.join(", "), kept.join(", "));
                let why = "its state cannot be read as another's: give the stage another name, or the operators it had";
                Err(Failure::new(format!("the stage is now [{now}] and was [{then}]; {why}")))
            }
            Some(_) => Ok(()),
            None => Ok(ctx.state().set(&PLAN, keeps)?),
        }
    }
}

impl<S: Sources> StageActor<S> {
    pub(super) fn new(plan: &Arc<Plan<S>>) -> Self {
        StageActor { plan: plan.clone() }
    }

    pub(super) fn budget(&self) -> usize {
        AT_ONCE
    }

    /// Has an input go through the operators.
    pub(super) async fn take(
        &self,
        input: Input<S::Item>,
        about: About,
        ctx: &mut Context<Self>,
        budget: &mut usize,
        keep: KeepReply,
    ) -> Result<Answered, Failure> {
        let source =
            about.from.as_ref().and_then(|from| self.plan.topics.iter().position(|one| *one == from.topic));
        let place = self.place(&about);
        let mut turn =
            Turning { ctx, at: about.sent_at, source, budget, more: false, alarm: None, spent: false };
        turn.spent = self.plan.last_attempt.is_some_and(|last| about.attempt > last);
        let reply = {
            let went = AssertUnwindSafe(self.go(input, &mut turn)).catch_unwind().await;
            let went = went.unwrap_or_else(|panic| Err(Failure::panicked(panic_text(&*panic))));
            went.map_err(|failure| failure.at(&place))?
        };
        self.go_on_later(&mut turn).map_err(|failure| failure.at(&place))?;
        Answered::new((), reply, keep)
    }

    async fn go(
        &self,
        input: Input<S::Item>,
        turn: &mut Turning<'_, S>,
    ) -> Result<Option<crate::actor::ReplySlot<()>>, Failure> {
        match input {
            Input::Tick(Ticked { tick, reply }) => {
                let until = tick.until.map(Timestamp::from_millis);
                let mut state = turn.ctx.state();
                if tick.alarm.is_some() && state.get(&ALARM)? == tick.alarm {
                    // it has rung, whatever the wall clock does next
                    state.remove(&ALARM);
                }
                self.plan.pipe.wake(Moved { until }, turn).await?;
                Ok(reply)
            }
            Input::Item(item) => {
                self.plan.pipe.push(self.of_its_topic(item, turn.source)?, turn).await?;
                Ok(None)
            }
        }
    }

    fn of_its_topic(&self, item: S::Item, source: Option<usize>) -> Result<S::Item, Failure> {
        let unknown = || {
            let why = "it does not say which of the two topics it is from: it was put back by hand, and both have its type";
            Failure::new(why).terminal()
        };
        match source {
            Some(source) => S::of_topic(item, source).ok_or_else(unknown),
            None if S::are_alike() => Err(unknown()),
            None => Ok(item),
        }
    }

    /// Where an input is from, for whoever reads of its failure.
    fn place(&self, about: &About) -> String {
        let name = &self.plan.name;
        match &about.from {
            Some(from) => format!("stage {name}, event {} of topic {}", from.sequence, from.topic),
            None => format!("stage {name}, message {}", about.id),
        }
    }

    /// Sees that it is woken: at once when something is due still, or when the clock says so.
    fn go_on_later(&self, turn: &mut Turning<'_, S>) -> Result<(), Failure> {
        if turn.more {
            self.tick(turn.ctx, None)?;
        }
        let Some(alarm) = turn.alarm.map(Timestamp::as_millis) else { return Ok(()) };
        let set = turn.ctx.state().get(&ALARM)?;
        if set.is_none_or(|set| alarm < set) {
            self.tick(turn.ctx, Some(Timestamp::from_millis(alarm)))?;
            turn.ctx.state().set(&ALARM, &alarm)?;
        }
        Ok(())
    }

    fn tick(&self, ctx: &mut Context<Self>, due: Option<Timestamp>) -> Result<(), Failure> {
        let options = SendOptions { due: due.map(When::At), ..SendOptions::new() };
        let place = (&*self.plan.name, Self::NAME);
        let tick = Tick { until: None, alarm: due.map(Timestamp::as_millis) };
        ctx.collect(place, Kind::Mailbox, &tick, &options)?;
        Ok(())
    }
}
