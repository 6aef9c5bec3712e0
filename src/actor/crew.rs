//! The workers of one mailbox that has several, each in a task of its own, and what the end of one is to the others: those of a
//! pool end together, the members of a [group](super::group) come and go.
//!
//! # Invariants
//! - A worker is at its end only when its task is gone, and with it its handler and the closures it left behind. Only then is its
//!   [seat](super::pool) given up.
//! - Thrown away, a crew throws its workers away too, and the claim on the mailbox is given back with the last of them.
//! - Nobody joins a crew that was asked to end.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::life::{Claim, Exit, Life};
use super::mailbox::{Control, Mailbox};
use super::message::Actor;
use super::pool::Pool;
use super::runtime::Runtime;
use super::watchdog::Pulse;
use super::worker::{MailboxOptions, Worker};
use crate::observe::Event;

/// See the module's head.
pub(super) struct Crew<A: Actor> {
    runtime: Arc<Runtime>,
    options: MailboxOptions,
    pool: Arc<Pool<A>>,
    claim: Arc<Claim<A>>,
    /// Where members come in; none: the workers are as many as they are, and end together.
    door: Option<mpsc::Receiver<Newcomer<A>>>,
    tasks: JoinSet<Exit>,
    workers: HashMap<Id, Known>,
    exit: Exit,
}

/// One that is made and wants to join.
pub(super) struct Newcomer<A: Actor> {
    pub(super) worker: Worker<A>,
    pub(super) strings: Strings,
    /// Told when it is in; dropped when it cannot be.
    pub(super) joined: oneshot::Sender<Joined>,
}

/// A member that nobody has yet: without [`Joined::task`] it is told to leave again.
pub(super) struct Joined {
    task: AbortHandle,
    /// None once somebody has it.
    control: Option<watch::Sender<Control>>,
}

impl Joined {
    pub(super) fn task(mut self) -> AbortHandle {
        self.control = None;
        self.task.clone()
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(control) = self.control.take().filter(|_| !cfg!(steadfast_bug = "keep_who_was_not_taken"))
        {
            control.send_modify(|now| *now = Control::Stop.max(*now));
        }
    }
}

/// What a member hangs on.
#[derive(Clone)]
pub(super) struct Strings {
    pub(super) control: watch::Sender<Control>,
    pub(super) life: watch::Sender<Life>,
}

/// What is known of a worker that runs.
struct Known {
    number: u64,
    name: Arc<str>,
    pulse: Arc<Pulse>,
    /// Those of a member; none in a pool.
    strings: Option<Strings>,
}

impl<A: Actor> Crew<A> {
    pub(super) fn new(
        runtime: &Arc<Runtime>,
        options: &MailboxOptions,
        pool: Arc<Pool<A>>,
        claim: Claim<A>,
        door: Option<mpsc::Receiver<Newcomer<A>>>,
    ) -> Self {
        Crew {
            runtime: runtime.clone(),
            options: options.clone(),
            pool,
            claim: Arc::new(claim),
            door,
            tasks: JoinSet::new(),
            workers: HashMap::new(),
            exit: Exit::Stopped,
        }
    }

    /// Runs until the end: of all its workers, or, when they come and go, until it is asked to.
    pub(super) async fn run(mut self, workers: Vec<Worker<A>>) -> (Option<Claim<A>>, Exit) {
        let mut control = self.mailbox().control.subscribe();
        for worker in workers {
            self.set_to_work(worker, None);
        }
        // a request may have come before this looks for one
        let mut asked = *control.borrow_and_update();
        while !(self.tasks.is_empty() && (self.door.is_none() || asked >= Control::Drain)) {
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended).await,
                _ = control.changed() => {}
                Some(newcomer) = come_in(&mut self.door) => self.let_in(newcomer).await,
            }
            let now = *control.borrow_and_update();
            if now > asked {
                asked = now;
                self.ask_members(now);
            }
        }
        self.pool.hand_over_askers(self.mailbox());
        if let (Exit::Stopped, Some(failed)) = (&self.exit, self.mailbox().fails()) {
            self.exit = Exit::Failed(failed);
        }
        (Arc::into_inner(self.claim), self.exit)
    }

    fn mailbox(&self) -> &Mailbox<A> {
        self.claim.mailbox()
    }

    /// Hands on to the members what the group is asked for.
    fn ask_members(&self, control: Control) {
        for strings in self.workers.values().filter_map(|worker| worker.strings.as_ref()) {
            strings.control.send_modify(|now| *now = control.max(*now));
        }
    }

    async fn let_in(&mut self, newcomer: Newcomer<A>) {
        let Newcomer { mut worker, strings, joined } = newcomer;
        // nobody waits any more: it would be a member that nobody has
        if joined.is_closed() || *self.mailbox().control.borrow() >= Control::Drain {
            return;
        }
        worker.sign_in(&self.options, self.pool.taken() + 1).await;
        strings.life.send_replace(Life::Running);
        let Some(task) = self.set_to_work(worker, Some(strings.clone())) else { return };
        // whoever waited may be gone, also when it was sent: dropped, it is told to leave
        drop(joined.send(Joined { task, control: Some(strings.control) }));
    }

    fn set_to_work(&mut self, worker: Worker<A>, strings: Option<Strings>) -> Option<AbortHandle> {
        let (pulse, claim) = (worker.pulse.clone(), self.claim.clone());
        let seat = worker.front.seat()?;
        let (number, name) = (seat.number(), seat.name().clone());
        if strings.is_some() {
            seat.take();
            let (group, members) = (&*self.mailbox().name, self.pool.taken());
            tracing::debug!(group, member = %name, members, "joined");
            self.runtime.observer.event(&Event::MemberJoined { group, member: &name, members });
        }
        let feels = pulse.clone();
        let task = self.tasks.spawn(async move {
            let exit = feels.felt(worker.run()).await;
            drop(claim);
            exit
        });
        self.workers.insert(task.id(), Known { number, name, pulse, strings });
        Some(task)
    }

    /// A worker's task has ended: others take over.
    async fn ended(&mut self, ended: Result<(Id, Exit), JoinError>) {
        let (id, exit) = match ended {
            Ok(ended) => ended,
            Err(why) => (why.id(), Exit::Aborted),
        };
        let Some(worker) = self.workers.remove(&id) else { return };
        if worker.pulse.has_closures() && !cfg!(steadfast_bug = "leave_before_the_closures") {
            // thrown away before it could wait for them: they are a part of it
            let pulse = worker.pulse.clone();
            let task = self.tasks.spawn(async move {
                pulse.closures_ended().await;
                exit
            });
            self.workers.insert(task.id(), worker);
            return;
        }
        let vacated = self.pool.vacate(worker.number, self.mailbox(), &self.runtime.ledger).await;
        let exit = match vacated {
            Ok(()) => exit,
            Err(why) => {
                tracing::debug!(actor = %self.mailbox().name, %why, "what was in hand cannot be read");
                Exit::StoreFailed
            }
        };
        if let Some(strings) = worker.strings {
            let (group, member, members) = (&*self.mailbox().name, &*worker.name, self.pool.taken());
            if exit.is_normal() {
                tracing::debug!(group, member, members, "left");
            } else {
                tracing::error!(group, member, members, why = %exit, "a member is gone; the others take over");
            }
            self.runtime.observer.event(&Event::MemberLeft {
                group,
                member,
                members,
                why: &exit.to_string(),
            });
            strings.life.send_replace(Life::Ended(exit.clone()));
        }
        self.end_all_if(exit);
    }

    /// What ends a worker of a pool, or any worker and is not its own affair, ends all.
    fn end_all_if(&mut self, exit: Exit) {
        let own_affair = self.door.is_some() && matches!(exit, Exit::Failed(_) | Exit::Aborted);
        let ending = *self.mailbox().control.borrow() >= Control::Stop;
        if exit.is_normal() || (own_affair && !ending) {
            return;
        }
        self.mailbox().control.send_modify(|control| *control = Control::Stop.max(*control));
        if self.exit.is_normal() {
            self.exit = exit;
        }
    }
}

/// The next that wants to join; none when nobody can any more.
async fn come_in<A: Actor>(door: &mut Option<mpsc::Receiver<Newcomer<A>>>) -> Option<Newcomer<A>> {
    door.as_mut()?.recv().await
}
