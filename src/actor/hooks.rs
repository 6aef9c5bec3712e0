//! The life-cycle hooks of an actor, each run as a turn without a message: what it sends and stores is one commit, and exists
//! only if it succeeded.
//!
//! # Invariants
//! - An actor handles nothing before its `started` has succeeded, nor what is left of an earlier process before `recovered` has.
//! - A hook that fails leaves nothing, and the actor it ran on is not used again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;

use super::context::{Context, Effects, FromTopic, Settling, Turn};
use super::failure::Failure;
use super::life::Failed;
use super::mailbox::{Control, Head, Letter, Place};
use super::message::Actor;
use super::runtime::IN_TURN;
use super::solo::Pass;
use super::state::WorkingCopy;
use super::turn::{drop_quietly, panic_text, settle_effects};
use super::worker::{Ending, Worker};
use crate::durable::CommitRefused;
use crate::envelope::{Headers, MessageId};
use crate::error::Refused;
use crate::store::{Batch, Condition, LogId, Origin, StoreError, Urgency, view};

/// Which hook; see [`Actor`] for when each is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    Started,
    Recovered,
    Restarted,
    Gap(LogId, Gap),
    Stopping,
}

/// Events that a subscriber will not get: those from one sequence number up to, and without, another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first that is missing.
    pub from: u64,
    /// The next that is there.
    pub to: u64,
}

/// What a worker knows of a topic it reads.
pub(super) struct Followed {
    /// The next event, if nothing is missing before it.
    next: Option<u64>,
    /// Events below were published before the store was opened.
    resumed_below: u64,
    /// The topic's name, once it was asked for.
    name: Option<Arc<str>>,
}

impl Hook {
    fn name(self) -> &'static str {
        match self {
            Hook::Started => "started",
            Hook::Recovered => "recovered",
            Hook::Restarted => "restarted",
            Hook::Gap(..) => "gap",
            Hook::Stopping => "stopping",
        }
    }
}

/// A hook did not succeed.
pub(super) enum Unhooked {
    /// It failed or panicked: the actor is to be made anew.
    Failed(Failed),
    Ending(Ending),
}

impl<A: Actor> Worker<A> {
    /// Whether this is the first letter from before the store was opened that this worker takes.
    pub(super) fn resumes_with(&mut self, letter: &Letter<A>) -> bool {
        let Some(place) = letter.place else { return false };
        let below = match place.log.is_shown() {
            false => self.resumed_below[usize::from(place.log.lane)],
            true if self.has_resumed => 0,
            true => self.topic(place.log).resumed_below,
        };
        place.position < below && !cfg!(steadfast_bug = "resume_without_recovered")
    }

    /// What this worker knows of a topic it reads.
    fn topic(&mut self, log: LogId) -> &mut Followed {
        let store = self.runtime.ledger.store();
        self.topics.entry(log).or_insert_with(|| {
            let resumed_below = store.resumed(log.mailbox)[usize::from(view::LANE)];
            Followed { next: None, resumed_below, name: None }
        })
    }

    /// Where an event comes from; none for mail.
    pub(super) async fn origin(&mut self, place: Option<Place>) -> Result<Option<FromTopic>, StoreError> {
        let Some(place) = place.filter(|place| place.log.is_shown()) else { return Ok(None) };
        let name = match &self.topic(place.log).name {
            Some(name) => name.clone(),
            None => {
                let Some(of) = self.runtime.ledger.store().shown_log(place.log) else { return Ok(None) };
                let name: Arc<str> = self.runtime.ledger.topic_of(of).await?.into();
                self.topic(place.log).name = Some(name.clone());
                name
            }
        };
        Ok(Some(FromTopic { topic: name, sequence: place.position }))
    }

    /// What was taken from the topic between the letter before and this one, if something was.
    pub(super) fn gap_before(&mut self, letter: &Letter<A>) -> Option<Hook> {
        let place = letter.place.filter(|place| place.log.is_shown())?;
        let next = Some(place.position + 1);
        let follows = std::mem::replace(&mut self.topic(place.log).next, next) == Some(place.position);
        // what another worker had in hand may be gone, whatever this one had before
        let alone = self.front.seat().is_none() || cfg!(steadfast_bug = "trust_what_one_of_several_had");
        if (follows && alone) || cfg!(steadfast_bug = "pass_over_a_gap") {
            return None;
        }
        let missing = self.runtime.ledger.store().missing(place.log)?;
        // what was read before it was taken is handled: it is here, or with another worker
        let here = match cfg!(steadfast_bug = "lose_what_is_in_hand") {
            true => u64::MAX,
            false => self.front.first_here(place.log).unwrap_or(u64::MAX).min(place.position),
        };
        let gap = Gap { from: missing.start, to: missing.end.min(here) };
        (gap.from < gap.to).then_some(Hook::Gap(place.log, gap))
    }

    /// Something may be missing before the next event of a view, whichever it is.
    pub(super) fn look_for_a_gap(&mut self, view: LogId) {
        self.topic(view).next = None;
    }

    /// Whether a later event of its key has superseded an event that was read before: it is passed over, and is no gap. One
    /// that is superseded while it is handled is settled with the turn if an event before it is not, and otherwise the turn is
    /// thrown away: its place has moved on.
    pub(super) fn was_superseded(&self, place: Place) -> bool {
        place.log.is_shown()
            && self.runtime.ledger.store().was_superseded(place.log, place.position)
            && !cfg!(steadfast_bug = "handle_what_was_superseded")
    }

    /// Runs a hook on the actor, which there must be, and commits what it did.
    pub(super) async fn hook(&mut self, hook: Hook) -> Result<(), Unhooked> {
        let Some(mut actor) = self.actor.take() else { return Err(Unhooked::Ending(Ending::NoActor)) };
        self.pulse.hook();
        let mut control = self.control.clone();
        let clock = self.runtime.ledger.clock();
        let head = Head {
            id: MessageId::of(clock.id()),
            sent_at: clock.now(),
            expires: None,
            mark: None,
            headers: Headers::new(),
        };
        let incoming = head.id;
        // what a factory made is stored by the first turn that changes it, not by a start
        let before = self.state.save(&self.runtime, &actor).ok().flatten();
        let changed = |whole: &Vec<u8>| Some(whole) != before.as_ref();
        let mut context = Context::new(Turn {
            runtime: &self.runtime,
            mailbox: self.mailbox.id,
            name: &self.mailbox.name,
            head,
            from: None,
            attempt: 1,
            copy: WorkingCopy::new(std::mem::take(&mut self.cells), self.shares),
            workers: self.at_once(),
            control: self.control.clone(),
            // a hook has no message that could be suspect, and comes before those of its actor
            pass: Pass::default(),
            pulse: self.pulse.clone(),
        });
        let ran = {
            let run = IN_TURN.scope((), call(&mut actor, &mut context, hook));
            tokio::select! {
                biased;
                ran = AssertUnwindSafe(run).catch_unwind() => Some(ran),
                _ = control.wait_for(|control| *control == Control::Park) => None,
            }
        };
        let Context { effects, copy, .. } = context;
        let failure = match ran {
            Some(Ok(Ok(()))) => match copy
                .check()
                .and_then(|()| self.state.save(&self.runtime, &actor))
                .map(|now| now.filter(changed))
            {
                Ok(whole) => match self.commit_hook(hook, incoming, &effects, &copy, whole.as_ref()).await {
                    Ok(()) => {
                        self.cells = copy.committed();
                        self.saved = whole.or(self.saved.take());
                        self.actor = Some(actor);
                        if effects.schedules() {
                            self.runtime.scheduled.ring();
                        }
                        effects.watch(&self.runtime, &self.mailbox.name).await;
                        return Ok(());
                    }
                    Err(Uncommitted::Ending(ending)) => return Err(Unhooked::Ending(ending)),
                    Err(Uncommitted::Impossible(why)) => {
                        Failure::new(format!("what `{}` did cannot be committed: {why}", hook.name()))
                    }
                },
                Err(why) => Failure::from(why),
            },
            Some(Ok(Err(failure))) => failure,
            Some(Err(panic)) => Failure::panicked(panic_text(&*panic)),
            None => return Err(Unhooked::Ending(Ending::Asked)),
        };
        self.cells = copy.cells;
        drop_quietly(actor);
        let why = format!("`{}`: {failure}", hook.name());
        Err(Unhooked::Failed(Failed::unmade(failure.class(), why)))
    }

    /// One batch for all the hook did; nothing is written when it did nothing.
    async fn commit_hook(
        &mut self,
        hook: Hook,
        incoming: MessageId,
        effects: &Effects,
        copy: &WorkingCopy,
        whole: Option<&Vec<u8>>,
    ) -> Result<(), Uncommitted> {
        let (mailbox, incarnation) = (self.mailbox.id, self.incarnation);
        loop {
            let mut batch = Batch::default();
            let turn = Settling { runtime: &self.runtime, mailbox, name: &self.mailbox.name, incoming };
            let targets = match settle_effects(&turn, effects, copy, whole, &mut batch).await {
                Ok(targets) => targets,
                Err(Refused::Store(why)) => return Err(Uncommitted::Ending(why.into())),
                Err(why) => return Err(Uncommitted::Impossible(why)),
            };
            if let Hook::Gap(log, gap) = hook {
                // from here on its place is behind the gap
                batch.trim(log, gap.to, 0);
            }
            if batch.is_empty() {
                return Ok(());
            }
            batch.require(Condition::Incarnation { mailbox, incarnation });
            match self.runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
                Ok(commit) => return self.committed(commit, targets).await.map_err(Uncommitted::Ending),
                Err(CommitRefused::Key(_)) => {}
                Err(CommitRefused::Fenced) => return Err(Uncommitted::Ending(Ending::Fenced)),
                Err(CommitRefused::Refused(Refused::Store(why))) => {
                    return Err(Uncommitted::Ending(why.into()));
                }
                Err(CommitRefused::Refused(why)) => return Err(Uncommitted::Impossible(why)),
                Err(CommitRefused::Gone | CommitRefused::Full { .. }) => {
                    return Err(Uncommitted::Impossible(Refused::Busy));
                }
            }
        }
    }
}

enum Uncommitted {
    Ending(Ending),
    Impossible(Refused),
}

async fn call<A: Actor>(actor: &mut A, context: &mut Context<A>, hook: Hook) -> Result<(), Failure> {
    match hook {
        Hook::Started => actor.started(context).await,
        Hook::Recovered => actor.recovered(context).await,
        Hook::Restarted => actor.restarted(context).await,
        Hook::Gap(_, gap) => actor.gap(gap, context).await,
        Hook::Stopping => actor.stopping(context).await,
    }
}
