//! Who is to run, and what is to be done when somebody no longer does: a supervisor's decisions, without its deeds. Time and
//! chance come in as arguments, the answer goes out as a value.
//!
//! # Invariants
//! - Children are in start order; what is stopped is stopped in the reverse of it.
//! - A temporary child's end concerns nobody else and counts nowhere.
//! - More failures within the window than the limit's `max`: the answer is to give up, whatever the strategy.

use std::sync::Arc;

use super::child::Restart;
use super::history::{CountedFailure, History, Row};
use super::limit::{Backoff, RestartLimit};
use crate::actor::Failed;
use crate::clock::Timestamp;
use crate::envelope::MessageId;
use crate::policy::OnMessage;

/// Which children are restarted when one of them fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Only the one that failed.
    OneForOne,
    /// All of them: the others are stopped in reverse start order, then all are started in start order.
    OneForAll,
    /// The one that failed and those started after it: these are stopped in reverse start order, then all of them are started in
    /// start order. Those before it go on.
    RestForOne,
}

/// A child's name, unique among its siblings.
pub(super) type Name = Arc<str>;

/// How a child came not to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked to.
    Normal,
    /// It failed.
    Abnormal,
    /// It could not be started.
    NotStarted,
}

/// What is known of a failure.
#[derive(Debug, Clone, Default)]
pub(super) struct Why {
    pub(super) message: Option<MessageId>,
    /// Whether the message's own policy bounds how often it fails: then it counts once.
    pub(super) is_bounded: bool,
    pub(super) text: String,
}

impl Why {
    /// A turn failed, or the making of an actor.
    pub(super) fn failed(failed: Failed) -> Self {
        let is_bounded = failed.decision.message != OnMessage::Keep;
        Why { message: failed.message, is_bounded, text: failed.why }
    }

    /// Something else than a message.
    pub(super) fn other(text: impl ToString) -> Self {
        Why { message: None, is_bounded: false, text: text.to_string() }
    }
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing; it stays ended.
    Leave,
    /// Nothing; it is no child any more.
    Forget,
    /// Stop these, then start those that wait when their time has come.
    Restart(Round),
    /// Stop all, and fail upward.
    GiveUp,
}

/// One restart of a child, and of those that share its fate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Round {
    /// In this order.
    pub(super) stop: Vec<Name>,
    /// Siblings that were stopped and are not started again.
    pub(super) forget: Vec<Name>,
    /// Those that wait to be started, in start order.
    pub(super) start: Vec<Name>,
    /// When.
    pub(super) at: Timestamp,
}

/// Whether a child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    Runs {
        since: Timestamp,
    },
    /// To be started at this time.
    Waits {
        until: Timestamp,
    },
    Ended,
}

/// A child, as far as decisions go.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: Name,
    pub(super) restart: Restart,
    pub(super) backoff: Backoff,
    pub(super) stand: Stand,
    /// Since the supervisor started.
    pub(super) restarts: u64,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Roster {
    strategy: Strategy,
    limit: RestartLimit,
    /// In start order.
    members: Vec<Member>,
    pub(super) history: History,
}

impl Roster {
    pub(super) fn new(strategy: Strategy, limit: RestartLimit, history: History) -> Self {
        Roster { strategy, limit, members: Vec::new(), history }
    }

    /// Adds a child at the end of the start order. It waits for what is left of its backoff, and as long as a sibling before it
    /// does, where the strategy says that it depends on those.
    pub(super) fn add(&mut self, name: Name, restart: Restart, backoff: Backoff, now: Timestamp) {
        let row = self.history.row(&name);
        if now.since(row.last_failure.max(row.not_before)) >= backoff.reset_after {
            self.history.forget_row(&name);
        }
        let before = match self.strategy {
            Strategy::OneForOne => None,
            Strategy::OneForAll | Strategy::RestForOne => self.members.iter().filter_map(Member::waits).max(),
        };
        // no longer than the backoff could have said: the clock may have been set back
        let own = row.not_before.min(now.after(backoff.wait(row.restarts, u64::MAX)));
        let until = before.unwrap_or(now).max(own);
        self.members.push(Member { name, restart, backoff, stand: Stand::Waits { until }, restarts: 0 });
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.members.retain(|member| *member.name != *name);
        self.history.forget_row(name);
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn get(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| *member.name == *name)
    }

    pub(super) fn set(&mut self, name: &str, stand: Stand) {
        if let Some(member) = self.members.iter_mut().find(|member| *member.name == *name) {
            member.stand = stand;
        }
    }

    /// Who is to be started by now: the longest due first, and of the same time in start order.
    pub(super) fn due(&self, now: Timestamp) -> Option<Name> {
        let due = self.members.iter().filter(|member| member.waits().is_some_and(|until| until <= now));
        due.min_by_key(|member| member.waits()).map(|member| member.name.clone())
    }

    /// When the next is to be started.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.members.iter().filter_map(Member::waits).min()
    }

    /// Those that run, in the order in which they are to be stopped.
    pub(super) fn all_in_stop_order(&self) -> Vec<Name> {
        in_stop_order(self.members.iter().filter(|member| member.runs()))
    }

    /// How many failures are in the window.
    pub(super) fn in_window(&self) -> usize {
        self.history.failures().len()
    }

    /// The turn of a child failed, and the child was made anew by itself. True: that was one too many.
    pub(super) fn failed_in_place(&mut self, name: &str, why: &Why, now: Timestamp) -> bool {
        let temporary = self.get(name).is_none_or(|member| member.restart == Restart::Temporary);
        if temporary {
            return false;
        }
        let row = self.history.row(name);
        if row.restarts > 0 {
            self.history.set_row(name, Row { last_failure: now, ..row });
        }
        self.is_too_many(name, why, now)
    }

    /// A child no longer runs. What the verdict says is noted as done.
    pub(super) fn ended(&mut self, name: &str, end: End, why: &Why, now: Timestamp, chance: u64) -> Verdict {
        let Some(at) = self.members.iter().position(|member| *member.name == *name) else {
            return Verdict::Leave;
        };
        let since = self.members[at].since();
        self.members[at].stand = Stand::Ended;
        match self.members[at].restart {
            Restart::Temporary if !cfg!(steadfast_bug = "restart-siblings-of-temporary") => {
                self.remove(name);
                return Verdict::Forget;
            }
            Restart::Transient
                if end == End::Normal && !cfg!(steadfast_bug = "restart-a-normal-transient") =>
            {
                return Verdict::Leave;
            }
            Restart::Permanent | Restart::Transient | Restart::Temporary => {}
        }
        if self.is_too_many(name, why, now) {
            return Verdict::GiveUp;
        }
        let until = self.back_off(at, since, now, chance);
        Verdict::Restart(self.restart(at, until))
    }

    /// A failure that no strategy is asked about: it is noted, and leads to giving up.
    pub(super) fn escalated(&mut self, name: &str, why: &Why, now: Timestamp) {
        self.set(name, Stand::Ended);
        self.is_too_many(name, why, now);
    }

    /// Forgets every failure, and every wait that is not under way.
    pub(super) fn reset(&mut self) {
        self.history.clear();
    }

    fn is_too_many(&mut self, name: &str, why: &Why, now: Timestamp) -> bool {
        let failure = CountedFailure::new(now, name, why.message, &why.text);
        let once = why.is_bounded && why.message.is_some();
        self.history.count(failure, once, self.limit, now) > self.limit.max() as usize
    }

    /// When the child may be started again.
    fn back_off(&mut self, at: usize, since: Timestamp, now: Timestamp, chance: u64) -> Timestamp {
        let Member { name, backoff, .. } = &self.members[at];
        let mut row = self.history.row(name);
        if now.since(since.max(row.last_failure)) >= backoff.reset_after {
            row.restarts = 0;
        }
        row.restarts = row.restarts.saturating_add(1);
        row.last_failure = now;
        row.not_before = now.after(backoff.wait(row.restarts, chance));
        self.history.set_row(name, row);
        row.not_before
    }

    /// Notes the restart of one child, and of those the strategy restarts with it.
    fn restart(&mut self, failed: usize, until: Timestamp) -> Round {
        let group = match self.strategy {
            Strategy::OneForOne => failed..failed + 1,
            Strategy::RestForOne if !cfg!(steadfast_bug = "rest-for-one-restarts-earlier-ones") => {
                failed..self.members.len()
            }
            Strategy::RestForOne | Strategy::OneForAll => 0..self.members.len(),
        };
        let members = &self.members[group.clone()];
        let stop = in_stop_order(members.iter().filter(|member| member.runs()));
        let is_failed = |member: &Member| member.name == self.members[failed].name;
        let stays = |member: &Member| member.restart != Restart::Temporary || is_failed(member);
        let names = |member: &Member| member.name.clone();
        let forget: Vec<_> = members.iter().filter(|member| !stays(member)).map(names).collect();
        let start: Vec<_> = members.iter().filter(|member| stays(member)).map(names).collect();
        // one that waits longer already is waited for: they are started together
        let at = members.iter().filter_map(Member::waits).max().unwrap_or(until).max(until);
        for member in &mut self.members[group] {
            member.stand = Stand::Waits { until: at };
            member.restarts += 1;
        }
        for name in &forget {
            self.remove(name);
        }
        Round { stop, forget, start, at }
    }
}

impl Member {
    pub(super) fn runs(&self) -> bool {
        matches!(self.stand, Stand::Runs { .. })
    }

    fn waits(&self) -> Option<Timestamp> {
        match self.stand {
            Stand::Waits { until } => Some(until),
            Stand::Runs { .. } | Stand::Ended => None,
        }
    }

    fn since(&self) -> Timestamp {
        match self.stand {
            Stand::Runs { since } => since,
            Stand::Waits { .. } | Stand::Ended => Timestamp::default(),
        }
    }
}

fn in_stop_order<'a>(members: impl DoubleEndedIterator<Item = &'a Member>) -> Vec<Name> {
    let names = members.map(|member| member.name.clone());
    if cfg!(steadfast_bug = "stop-in-start-order") { names.collect() } else { names.rev().collect() }
}
