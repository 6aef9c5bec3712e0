//! What is done to a running supervisor from outside, and what it tells.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::child::{ChildSpec, Restart};
use super::history::CountedFailure;
use super::limit::RestartLimit;
use crate::actor::{Actor, ActorRef, Exit, Runtime, mailbox};
use crate::clock::{Deadline, Timestamp};
use crate::envelope::MessageId;
use crate::error::ChildError;

/// A running supervisor, from outside. Clones are the same. It does one thing after the other: while it stops or starts a
/// child it answers nobody, so a child must not wait for its own supervisor in a hook, nor in a handler that is to end.
///
/// A handle is of one run: after a supervisor has been restarted by
/// its parent, ask that for [another](SupervisorRef::supervisor).
#[derive(Clone)]
pub struct SupervisorRef {
    pub(super) runtime: Arc<Runtime>,
    pub(super) path: Arc<str>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) stop: Arc<watch::Sender<Option<Deadline>>>,
    pub(super) end: watch::Receiver<Option<TreeEnd>>,
}

/// How a supervisor's task ended.
#[derive(Debug, Clone)]
pub(super) struct TreeEnd {
    pub(super) exit: SupervisorExit,
    /// Actors whose handlers do not yield.
    pub(super) stuck: Vec<String>,
    /// Its actors, whose end the parent tells to those who watch, unless it starts them again.
    pub(super) gone: Vec<Gone>,
}

/// An actor that has ended, and why.
pub(super) type Gone = (Arc<str>, Exit);

type Answer<T> = oneshot::Sender<Result<T, ChildError>>;

pub(super) enum Command {
    Start(Box<ChildSpec>, Answer<()>),
    Stop(String, Answer<()>),
    Restart(String, Answer<()>),
    Delete(String, Answer<()>),
    Find(String, Answer<Option<SupervisorRef>>),
    Children(Answer<Vec<ChildInfo>>),
    Failures(Answer<Vec<CountedFailure>>),
    Reset(Answer<()>),
}

/// Why a supervisor ended. Its children have ended then; their mail and their state stay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SupervisorExit {
    /// It was asked to. The one normal end.
    Stopped,
    /// More failed than its limit bears.
    LimitExceeded {
        /// The limit.
        limit: RestartLimit,
        /// The failure that was one too many.
        last: CountedFailure,
    },
    /// A child asked for it: see [`OnActor::Escalate`](crate::OnActor::Escalate).
    Escalated {
        /// The child.
        child: String,
        /// The message that it was handling.
        message: Option<MessageId>,
        /// What went wrong.
        why: String,
    },
    /// The store failed; only a new process resumes.
    StoreFailed,
    /// Its task was thrown away: the runtime or the system was dropped.
    Aborted,
}

impl SupervisorExit {
    /// Whether it was asked to end.
    pub fn is_normal(&self) -> bool {
        matches!(self, SupervisorExit::Stopped)
    }
}

impl fmt::Display for SupervisorExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SupervisorExit::Stopped => f.write_str("it was asked to end"),
            SupervisorExit::LimitExceeded { limit, last } => {
                let (max, within) = (limit.max(), limit.within());
                write!(
                    f,
                    "more than {max} failures within {within:?}, the last of {}: {}",
                    last.child, last.why
                )
            }
            SupervisorExit::Escalated { child, message: Some(id), why } => {
                write!(f, "{child} escalated at message {id}: {why}")
            }
            SupervisorExit::Escalated { child, message: None, why } => write!(f, "{child} escalated: {why}"),
            SupervisorExit::StoreFailed => f.write_str("the store failed"),
            SupervisorExit::Aborted => f.write_str("its task was thrown away"),
        }
    }
}

/// A child, as [`SupervisorRef::children`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildInfo {
    /// Its name.
    pub name: String,
    /// Whether it is a supervisor.
    pub is_supervisor: bool,
    /// When it is started again.
    pub restart: Restart,
    /// Whether it runs.
    pub state: ChildState,
    /// How often it was restarted since the supervisor started, with its siblings or alone.
    pub restarts: u64,
    /// The last of its failures that still count.
    pub last_failure: Option<CountedFailure>,
}

/// Whether a child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildState {
    /// It runs.
    Running,
    /// It is started at this time.
    Waiting {
        /// When.
        until: Timestamp,
    },
    /// It ended and is not started again, unless with its siblings or by [`SupervisorRef::restart_child`].
    Ended,
}

impl SupervisorRef {
    /// The supervisor's names from the root on, as in `shop/payments`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.end.borrow().is_none() && self.end.has_changed().is_ok()
    }

    /// A handle on a child that is an actor, whether or not it runs now; it stays valid over restarts.
    ///
    /// # Errors
    /// There is no such child, it is no actor of this type, or the supervisor has ended.
    pub async fn actor<A: Actor>(&self, name: &str) -> Result<ActorRef<A>, ChildError> {
        if self.find(name).await?.is_some() {
            return Err(ChildError::OtherKind { child: self.child(name), is: "a supervisor" });
        }
        let mailbox = mailbox::<A>(&self.runtime, name, None).await?;
        Ok(ActorRef { runtime: self.runtime.clone(), mailbox })
    }

    /// A handle on a child that is a supervisor and runs now.
    ///
    /// # Errors
    /// There is no such child, it is an actor or does not run, or the supervisor has ended.
    pub async fn supervisor(&self, name: &str) -> Result<SupervisorRef, ChildError> {
        let other = || ChildError::OtherKind { child: self.child(name), is: "no running supervisor" };
        self.find(name).await?.ok_or_else(other)
    }

    async fn find(&self, name: &str) -> Result<Option<SupervisorRef>, ChildError> {
        self.ask(|answer| Command::Find(name.to_owned(), answer)).await
    }

    /// Adds a child at the end of the start order, and starts it. `Ok`: it runs, or waits for what is left of its backoff.
    ///
    /// What was added ends with the supervisor: after a restart of it or of the process it is added anew by whoever added it.
    ///
    /// # Errors
    /// It is not started and no child: there is one of this name, its start failed, or the supervisor has ended.
    pub async fn start_child(&self, child: ChildSpec) -> Result<(), ChildError> {
        self.ask(|answer| Command::Start(Box::new(child), answer)).await
    }

    /// Ends a child within its shutdown time, which those who [watch](crate::Context::watch) it are told. It stays a child that can be restarted, also with its siblings; a temporary one is
    /// no child any more. `Ok`: it does not run.
    ///
    /// # Errors
    /// There is no such child, its handler does not yield, or the supervisor has ended.
    pub async fn stop_child(&self, name: &str) -> Result<(), ChildError> {
        self.ask(|answer| Command::Stop(name.to_owned(), answer)).await
    }

    /// Starts a child that does not run, now: one that has ended, was stopped, or waits. This counts against no limit.
    ///
    /// # Errors
    /// It runs, its start failed, there is no such child, or the supervisor has ended.
    pub async fn restart_child(&self, name: &str) -> Result<(), ChildError> {
        self.ask(|answer| Command::Restart(name.to_owned(), answer)).await
    }

    /// Takes a child that does not run from the tree. Its mail and its state stay.
    ///
    /// # Errors
    /// It runs, there is no such child, or the supervisor has ended.
    pub async fn delete_child(&self, name: &str) -> Result<(), ChildError> {
        self.ask(|answer| Command::Delete(name.to_owned(), answer)).await
    }

    /// The children in start order.
    ///
    /// # Errors
    /// The supervisor has ended.
    pub async fn children(&self) -> Result<Vec<ChildInfo>, ChildError> {
        self.ask(Command::Children).await
    }

    /// The failures that count now, oldest first.
    ///
    /// # Errors
    /// The supervisor has ended.
    pub async fn failures(&self) -> Result<Vec<CountedFailure>, ChildError> {
        self.ask(Command::Failures).await
    }

    /// Forgets all failures that counted, here and on disk, and the children's rows of restarts: the cause is gone. A child that
    /// waits goes on waiting.
    ///
    /// # Errors
    /// The supervisor has ended.
    pub async fn reset(&self) -> Result<(), ChildError> {
        self.ask(Command::Reset).await
    }

    /// Ends the supervisor: its children in reverse start order, each within its shutdown time. Returns when it has ended. If it
    /// is a permanent child, its parent starts it again.
    pub async fn stop(&self) {
        self.stop_by(Deadline::never());
        self.ended().await;
    }

    /// Waits until it has ended, and tells why.
    pub async fn ended(&self) -> SupervisorExit {
        self.tree_end().await.exit
    }

    pub(super) async fn tree_end(&self) -> TreeEnd {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        ended.unwrap_or(TreeEnd { exit: SupervisorExit::Aborted, stuck: Vec::new(), gone: Vec::new() })
    }

    pub(super) fn stop_by(&self, deadline: Deadline) {
        let sooner = |now: &mut Option<Deadline>| {
            *now = Some(now.map_or(deadline, |now| now.sooner(deadline)));
        };
        self.stop.send_modify(sooner);
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, ChildError> {
        let (answer, answered) = oneshot::channel();
        let ended = || ChildError::Ended { supervisor: self.path.to_string() };
        self.commands.send(command(answer)).map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }

    fn child(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SupervisorRef({})", self.path)
    }
}
