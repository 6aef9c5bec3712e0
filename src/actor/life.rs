//! Whether an actor runs, and why it ended.
//!
//! # Invariants
//! - Who starts an actor holds the [`Claim`] on its mailbox: one at a time. It is given back when the actor's task is at its
//!   end, however it ended, and with the reason.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::mailbox::{Control, Mailbox};
use super::message::Actor;
use crate::envelope::MessageId;
use crate::policy::{Decision, FailureClass};

/// Why an actor ended. Its mail and its state stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Exit {
    /// It was asked to: stopped, drained, parked, or by the end of the system. The one normal end.
    Stopped,
    /// A turn, or the making of the actor, failed, and its [policy](crate::FailurePolicy) said that it should end.
    Failed(Failed),
    /// A newer incarnation took its place.
    Replaced,
    /// Its task was thrown away: the runtime or the system was dropped.
    Aborted,
    /// The store failed; or what lies there for this actor cannot be read, which the log tells with the file's name, while the
    /// others go on. Only a new process resumes.
    StoreFailed,
    /// It did not run when somebody began to watch it.
    NotRunning,
}

impl Exit {
    /// Whether it was asked to end. A transient child is started again only if it was not.
    pub fn is_normal(&self) -> bool {
        matches!(self, Exit::Stopped)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Stopped => f.write_str("it was asked to end"),
            Exit::Failed(failed) => write!(f, "{failed}"),
            Exit::Replaced => f.write_str("a newer incarnation took its place"),
            Exit::Aborted => f.write_str("its task was thrown away"),
            Exit::StoreFailed => f.write_str("the store failed, or what it has for the actor cannot be read"),
            Exit::NotRunning => f.write_str("it did not run"),
        }
    }
}

/// What failed in an actor, and what was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failed {
    /// The message that was handled; none when the actor could not be made, or an actor it is linked to ended.
    pub message: Option<MessageId>,
    /// What kind of failure it was.
    pub class: FailureClass,
    /// The error with its sources, or the panic's message.
    pub why: String,
    /// What was decided about the message and the actor.
    pub decision: Decision,
}

impl Failed {
    /// The actor could not be made: its factory or a hook failed.
    pub(crate) fn unmade(class: FailureClass, why: String) -> Self {
        Failed { message: None, class, why, decision: Decision::RESTART }
    }

    /// An actor that it is linked to has ended.
    pub(crate) fn linked(why: String) -> Self {
        Failed { message: None, class: FailureClass::Error, why, decision: Decision::STOP }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.message {
            Some(id) => write!(f, "message {id} failed ({}): {}", self.class, self.why),
            None => write!(f, "{}: {}", self.class, self.why),
        }
    }
}

/// Where a supervised actor reports the failures after which it goes on. Those that end it are in its [`Exit`].
pub(crate) type Link = tokio::sync::mpsc::UnboundedSender<(Arc<str>, Failed)>;

/// What is known of an actor's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    /// Not started in this process.
    Unborn,
    Running,
    Ended(Exit),
}

impl Life {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self, Life::Running)
    }
}

/// The right to read a mailbox. Given back with the reason, or as [`Exit::Aborted`] when its task is thrown away.
pub(crate) struct Claim<A: Actor> {
    mailbox: Arc<Mailbox<A>>,
    exit: Exit,
}

impl<A: Actor> Claim<A> {
    pub(super) fn take(mailbox: &Arc<Mailbox<A>>) -> Option<Self> {
        let taken = mailbox.life.send_if_modified(|life| {
            let free = !life.is_running();
            if free {
                *life = Life::Running;
                // in the same step: a request to end that comes later is for this start
                mailbox.control.send_replace(Control::Run);
            }
            free
        });
        let claim = || Claim { mailbox: mailbox.clone(), exit: Exit::Aborted };
        let planted =
            cfg!(steadfast_bug = "second_worker") || cfg!(steadfast_bug = "two_incarnations_of_an_entity");
        (taken || planted).then(claim)
    }

    pub(super) fn mailbox(&self) -> &Mailbox<A> {
        &self.mailbox
    }

    pub(super) fn give_back(mut self, exit: Exit) {
        self.exit = exit;
    }
}

impl<A: Actor> Drop for Claim<A> {
    fn drop(&mut self) {
        let exit = std::mem::replace(&mut self.exit, Exit::Aborted);
        self.mailbox.life.send_replace(Life::Ended(exit));
    }
}
