//! The task of one supervisor: it hears of ends and failures, asks the [`Roster`] what is to be done, and does it.
//! [`live`] is what it starts, [`by_hand`] what it is asked, [`report`] what it says.
//!
//! # Invariants
//! - A child is started only when the one of its name before has ended.
//! - What counts is on disk before a child is started because of it.
//! - Of a child that was stopped here nothing more is heard: its end was asked for.
//! - Children do not outlive their supervisor: they are stopped by it, or thrown away with its task.

mod by_hand;
mod live;
mod report;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};

pub(crate) use self::live::RunningTree;
use self::live::{ChildExit, Live};
use super::Supervisor;
use super::child::{ChildSpec, What};
use super::handle::{Command, Gone, SupervisorExit, SupervisorRef, TreeEnd};
use super::history::{History, Record};
use super::limit::RestartLimit;
use super::roster::{End, Name, Roster, Round, Stand, Verdict, Why};
use crate::actor::{Exit, Failed, Link, Runtime};
use crate::clock::{Deadline, Timestamp};
use crate::error::{Refused, SpawnError, SuperviseError};
use crate::policy::{OnActor, OnMessage};

/// Whether a supervisor starts with what it remembers of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    Kept,
    /// Its parent restarts it: with what it remembers it would give up again at once.
    Cleared,
}

/// Starts a supervisor and its children. On an error those that were started before have been stopped.
pub(super) fn start<'a>(
    supervisor: &'a Supervisor,
    parent: Option<&'a str>,
    runtime: &'a Arc<Runtime>,
    memory: Memory,
) -> BoxFuture<'a, Result<RunningTree, SuperviseError>> {
    // a tree starts trees
    Box::pin(start_one(supervisor, parent, runtime, memory))
}

async fn start_one(
    supervisor: &Supervisor,
    parent: Option<&str>,
    runtime: &Arc<Runtime>,
    memory: Memory,
) -> Result<RunningTree, SuperviseError> {
    if parent.is_none() {
        supervisor.check(None)?;
    }
    if runtime.is_closing() {
        return Err(SuperviseError::ShuttingDown);
    }
    let path = supervisor.path(parent);
    let record = Record::new(&path);
    let history = record.recall(memory, runtime).await?;
    let (end, ended) = watch::channel(None);
    let (commands, inbox) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(None);
    let handle = SupervisorRef { runtime: runtime.clone(), path, commands, stop: Arc::new(stop), end: ended };
    let (link, reports) = mpsc::unbounded_channel();
    let mut tree = Tree {
        handle: handle.clone(),
        is_root: parent.is_none(),
        limit: supervisor.limit,
        roster: Roster::new(supervisor.strategy, supervisor.limit, history),
        record,
        children: HashMap::new(),
        runs: 0,
        link,
        reports,
        ends: FuturesUnordered::new(),
        inbox,
        stop: stopped,
        stuck: Vec::new(),
    };
    if let Err(why) = tree.begin(&supervisor.children).await {
        tree.stop_all().await;
        tree.all_gone().await;
        return Err(why);
    }
    let task = tokio::spawn(async move {
        let ended = tree.run().await;
        end.send_replace(Some(ended));
    });
    Ok(RunningTree { handle, task })
}

/// See the module's head.
struct Tree {
    handle: SupervisorRef,
    is_root: bool,
    limit: RestartLimit,
    roster: Roster,
    record: Record,
    children: HashMap<Name, Child>,
    /// Numbers every run of a child.
    runs: u64,
    link: Link,
    reports: mpsc::UnboundedReceiver<(Arc<str>, Failed)>,
    ends: FuturesUnordered<BoxFuture<'static, (Name, u64, ChildExit)>>,
    inbox: mpsc::UnboundedReceiver<Command>,
    stop: watch::Receiver<Option<Deadline>>,
    stuck: Vec<String>,
}

struct Child {
    spec: ChildSpec,
    live: Option<Live>,
    /// Ends of other runs are old news.
    run: u64,
    /// Actors of it that ended and may be started again: those who watch them are not told yet.
    gone: Vec<Gone>,
}

/// What comes next.
enum Next {
    StopAsked,
    Failed(Name, Failed),
    Ended(Name, u64, ChildExit),
    Due,
    Asked(Command),
}

/// Why the supervisor's work is at its end.
type Stopped = Result<(), SupervisorExit>;

impl Tree {
    async fn begin(&mut self, children: &[ChildSpec]) -> Result<(), SuperviseError> {
        for child in children {
            self.add(child.clone()).await?;
        }
        Ok(())
    }

    /// Adds a child and starts it, unless its backoff says later.
    async fn add(&mut self, spec: ChildSpec) -> Result<(), SuperviseError> {
        let (name, now) = (spec.name.clone(), self.now());
        self.roster.add(name.clone(), spec.restart, spec.backoff, now);
        self.children.insert(name.clone(), Child { spec, live: None, run: 0, gone: Vec::new() });
        match self.roster.get(&name).map(|member| member.stand) {
            Some(Stand::Waits { until }) if until > now => {
                tracing::warn!(
                    supervisor = self.path(), child = %name, wait = ?until.since(now),
                    "the child failed before the last stop and waits for what is left of its backoff"
                );
                Ok(())
            }
            _ => self.start_child(&name, Memory::Kept).await,
        }
    }

    async fn run(mut self) -> TreeEnd {
        let exit = loop {
            let next = self.next().await;
            if let Err(exit) = self.act(next).await {
                break exit;
            }
        };
        self.stop_all().await;
        self.report_end(&exit);
        let gone = self.all_gone().await;
        TreeEnd { exit, stuck: std::mem::take(&mut self.stuck), gone }
    }

    async fn next(&mut self) -> Next {
        let clock = self.handle.runtime.ledger.clock();
        let due = async {
            match self.roster.next_due() {
                Some(due) => clock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // failures before ends: of one child they come in this order
            biased;
            _ = self.stop.wait_for(Option::is_some) => Next::StopAsked,
            Some((name, failed)) = self.reports.recv() => Next::Failed(name, failed),
            Some((name, run, exit)) = self.ends.next() => Next::Ended(name, run, exit),
            () = due => Next::Due,
            Some(command) = self.inbox.recv() => Next::Asked(command),
        }
    }

    async fn act(&mut self, next: Next) -> Stopped {
        match next {
            Next::StopAsked => Err(SupervisorExit::Stopped),
            Next::Failed(name, failed) => self.failed_in_place(&name, failed).await,
            Next::Ended(name, run, exit) => self.ended(&name, run, exit).await,
            Next::Due => self.start_due().await,
            Next::Asked(command) => self.obey(command).await,
        }
    }

    /// A child's turn failed, and the child goes on as a new one.
    async fn failed_in_place(&mut self, name: &str, failed: Failed) -> Stopped {
        if failed.decision.message == OnMessage::Release {
            return Ok(());
        }
        let (why, now) = (Why::failed(failed), self.now());
        let too_many = self.roster.failed_in_place(name, &why, now);
        self.save().await?;
        if too_many { Err(self.give_up(name, &why, now)) } else { Ok(()) }
    }

    async fn ended(&mut self, name: &Name, run: u64, exit: ChildExit) -> Stopped {
        let Some(child) = self.children.get_mut(name).filter(|child| child.run == run) else { return Ok(()) };
        child.live = None;
        match &exit {
            ChildExit::Actor(_) if child.spec.is_member() => {}
            ChildExit::Actor(exit) => child.gone.push((name.clone(), exit.clone())),
            ChildExit::Supervisor(end) => child.gone.extend(end.gone.iter().cloned()),
        }
        let (end, why) = match exit {
            ChildExit::Actor(Exit::StoreFailed)
            | ChildExit::Supervisor(TreeEnd { exit: SupervisorExit::StoreFailed, .. }) => {
                return Err(SupervisorExit::StoreFailed);
            }
            ChildExit::Actor(Exit::Failed(failed)) if failed.decision.actor == OnActor::Escalate => {
                return self.escalate(name, failed).await;
            }
            ChildExit::Actor(exit) => (end_of(exit.is_normal()), why_of(exit)),
            ChildExit::Supervisor(TreeEnd { exit, .. }) => (end_of(exit.is_normal()), Why::other(exit)),
        };
        self.decide(name, end, why).await
    }

    async fn escalate(&mut self, name: &str, failed: Failed) -> Stopped {
        let (why, now) = (Why::failed(failed), self.now());
        self.roster.escalated(name, &why, now);
        self.save().await?;
        Err(SupervisorExit::Escalated { child: name.to_owned(), message: why.message, why: why.text })
    }

    /// A child does not run: asks what is to be done, and does it.
    async fn decide(&mut self, name: &Name, end: End, why: Why) -> Stopped {
        if self.handle.runtime.is_closing() {
            // nothing is started any more: this is no failure, and nothing to remember
            self.roster.set(name, Stand::Ended);
            return Ok(());
        }
        let (now, chance) = (self.now(), self.handle.runtime.ledger.clock().random());
        match self.roster.ended(name, end, &why, now, chance) {
            Verdict::Leave => {
                tracing::debug!(supervisor = self.path(), child = %name, "ended");
                self.tell_gone(name).await;
            }
            Verdict::Forget => {
                tracing::debug!(supervisor = self.path(), child = %name, why = why.text, "a temporary child ended");
                self.tell_gone(name).await;
                self.children.remove(name);
            }
            Verdict::Restart(round) => {
                self.report_restart(name, &why, &round, now);
                self.save().await?;
                self.stop_siblings(round).await;
            }
            Verdict::GiveUp => {
                self.save().await?;
                return Err(self.give_up(name, &why, now));
            }
        }
        Ok(())
    }

    async fn stop_siblings(&mut self, round: Round) {
        for name in &round.stop {
            self.stop_child(name).await;
        }
        for name in &round.forget {
            self.tell_gone(name).await;
            self.children.remove(name);
        }
    }

    /// A child is not started again: tells those who watch its actors.
    async fn tell_gone(&mut self, name: &str) {
        let Some(child) = self.children.get_mut(name) else { return };
        for (actor, exit) in std::mem::take(&mut child.gone) {
            self.handle.runtime.terminated(&actor, &exit).await;
        }
    }

    /// The supervisor has ended: at the root nobody starts its actors again, and otherwise the parent knows.
    async fn all_gone(&mut self) -> Vec<Gone> {
        let gone = self.children.values_mut().flat_map(|child| std::mem::take(&mut child.gone)).collect();
        if !self.is_root {
            return gone;
        }
        for (actor, exit) in &gone {
            self.handle.runtime.terminated(actor, exit).await;
        }
        Vec::new()
    }

    /// Starts those whose time has come, in order; a start that fails is a failure of its own.
    async fn start_due(&mut self) -> Stopped {
        while let Some(name) = self.roster.due(self.now()) {
            if self.stop.borrow().is_some() {
                return Ok(());
            }
            match self.start_child(&name, Memory::Cleared).await {
                Ok(()) => {}
                Err(SuperviseError::Store(_) | SuperviseError::Child { why: SpawnError::Store(_), .. }) => {
                    return Err(SupervisorExit::StoreFailed);
                }
                Err(why) => {
                    self.decide(&name, End::NotStarted, Why::other(why)).await?;
                }
            }
        }
        Ok(())
    }

    async fn start_child(&mut self, name: &Name, memory: Memory) -> Result<(), SuperviseError> {
        let Some(child) = self.children.get(name) else { return Ok(()) };
        let (spec, link, handle) = (child.spec.clone(), self.link.clone(), self.handle.clone());
        let starting = async {
            match &spec.what {
                What::Actor(actor) => match actor.start(name, link, &handle.runtime).await {
                    Ok(running) => Ok(Live::Actor(running)),
                    Err(why) => Err(SuperviseError::Child { child: format!("{}/{name}", handle.path), why }),
                },
                What::Supervisor(supervisor) => {
                    let starting = start(supervisor, Some(&handle.path), &handle.runtime, memory);
                    Ok(Live::Supervisor(starting.await?))
                }
            }
        };
        let live = tokio::select! {
            live = starting => live?,
            // a start that takes long holds up no end
            _ = self.stop.wait_for(Option::is_some) => return Ok(()),
        };
        self.runs += 1;
        self.ends.push(live.end_of(name.clone(), self.runs));
        self.roster.set(name, Stand::Runs { since: self.now() });
        if let Some(child) = self.children.get_mut(name) {
            (child.live, child.run) = (Some(live), self.runs);
            child.gone.retain(|(actor, _)| !spec.starts(actor));
            // such as what was added to a supervisor that is restarted without it
            self.tell_gone(name).await;
        }
        Ok(())
    }

    /// Ends a child, by its shutdown time and by the supervisor's own deadline. False when its handler does not yield.
    async fn stop_child(&mut self, name: &str) -> bool {
        let Some(child) = self.children.get_mut(name) else { return true };
        // from here on its end is no news
        child.run = 0;
        let own = child.spec.shutdown.map_or_else(Deadline::never, Deadline::after);
        let Some(mut live) = child.live.take() else { return true };
        let stuck = loop {
            let asked = *self.stop.borrow_and_update();
            let by = asked.map_or(own, |asked| own.sooner(asked));
            tokio::select! {
                biased;
                (gone, stuck) = live.end(by) => {
                    child.gone.extend(gone.into_iter().filter(|_| !child.spec.is_member()));
                    break stuck;
                }
                Ok(()) = self.stop.changed() => {}
            }
        };
        for actor in &stuck {
            tracing::error!(
                supervisor = self.path(),
                actor,
                "the actor's handler does not yield: it could not be ended"
            );
        }
        let ended = stuck.is_empty();
        self.stuck.extend(stuck);
        ended
    }

    async fn stop_all(&mut self) {
        for name in self.roster.all_in_stop_order() {
            self.stop_child(&name).await;
            self.roster.set(&name, Stand::Ended);
        }
    }

    /// Puts what is remembered on disk, and waits for it: a crash after the restart that follows must find it.
    async fn save(&mut self) -> Stopped {
        let saving = self.record.write(&mut self.roster.history, &self.handle.runtime.ledger);
        let saved = tokio::select! {
            saved = saving => saved,
            // the end goes before; what was admitted is written with it
            _ = self.stop.wait_for(Option::is_some) => return Ok(()),
        };
        match saved {
            Ok(()) => Ok(()),
            Err(Refused::Store(_)) => Err(SupervisorExit::StoreFailed),
            Err(why) => {
                tracing::warn!(supervisor = self.path(), %why, "failures are remembered in memory only");
                Ok(())
            }
        }
    }

    fn path(&self) -> &str {
        &self.handle.path
    }

    fn full_name(&self, child: &str) -> String {
        format!("{}/{child}", self.path())
    }

    fn now(&self) -> Timestamp {
        self.handle.runtime.ledger.clock().now()
    }
}

impl Record {
    async fn recall(&self, memory: Memory, runtime: &Runtime) -> Result<History, SuperviseError> {
        let mut known = self.read(&runtime.ledger).await?;
        if memory == Memory::Cleared && !known.is_empty() {
            known.clear();
            // if it cannot be written now, it is with the next failure
            let _ = self.write(&mut known, &runtime.ledger).await;
        }
        Ok(known)
    }
}

fn end_of(normal: bool) -> End {
    if normal { End::Normal } else { End::Abnormal }
}

fn why_of(exit: Exit) -> Why {
    match exit {
        Exit::Failed(failed) => Why::failed(failed),
        other => Why::other(other),
    }
}
