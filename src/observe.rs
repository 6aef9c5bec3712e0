//! What the runtime reports while it works. The core says what happened; whoever listens decides what to make of
//! it (metrics, a console, a test). Listening never changes what happens.

use std::fmt;
use std::time::Duration;

use crate::envelope::MessageId;

/// Listens to [`Event`]s. Called on the threads that do the work: return quickly and do not block.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

/// Something that happened in the runtime.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A group of commits became durable.
    GroupSynced {
        /// How many commits one sync carried.
        commits: u32,
        /// Bytes written to the journal.
        bytes: u64,
        /// How long the sync took.
        sync: Duration,
        /// The last durable commit number.
        durable: u64,
    },
    /// What survived was moved from the journal to the engine.
    Checkpointed {
        /// The checkpoint's commit number.
        number: u64,
        /// Writes handed to the engine.
        writes: u64,
        /// How long it took from freezing to recycling.
        took: Duration,
        /// Time since the checkpoint before.
        age: Duration,
    },
    /// How much is held in memory and in the journal for the next checkpoint.
    Pressure {
        /// Bytes committed but not yet checkpointed.
        overlay_bytes: u64,
        /// Journal segments that recovery would read.
        segments: u64,
        /// Whether senders from outside are being slowed.
        slowed: bool,
    },
    /// The store was opened.
    Recovered {
        /// Commits replayed from the journal.
        commits: u64,
        /// Bytes of a torn tail that were cut.
        cut: u64,
        /// Whether the store had been closed cleanly.
        clean: bool,
    },
    /// The store failed; only a new process resumes.
    StoreFailed {
        /// Why.
        why: &'a str,
    },
    /// A turn ended.
    Turn {
        /// The actor's name.
        actor: &'a str,
        /// The message's name.
        message: &'a str,
        /// How it ended.
        outcome: TurnOutcome,
        /// How long the handler ran.
        took: Duration,
    },
    /// Mail waiting in a mailbox, reported with the first letter that a worker takes and every 64th after it.
    Waiting {
        /// The actor's name.
        actor: &'a str,
        /// Messages waiting.
        count: u64,
        /// How long the oldest of its priority has waited.
        oldest: Option<Duration>,
    },
    /// A child of a supervisor ended and is started again, with the siblings that share its fate.
    ChildRestarted {
        /// The supervisor's name, after those of its parents.
        supervisor: &'a str,
        /// The child that ended.
        child: &'a str,
        /// Why it ended.
        why: &'a str,
        /// The message that it was handling.
        message: Option<MessageId>,
        /// Failures that count within the supervisor's window, this one included.
        in_window: u32,
        /// How many of them the supervisor bears.
        limit: u32,
        /// The wait before the start.
        after: Duration,
    },
    /// More failed than a supervisor's limit bears: it ends its children, and fails.
    RestartLimitExceeded {
        /// The supervisor's name, after those of its parents.
        supervisor: &'a str,
        /// The child whose failure was one too many.
        child: &'a str,
        /// Its failure.
        why: &'a str,
        /// The message that it was handling.
        message: Option<MessageId>,
        /// How many failures the supervisor bears.
        limit: u32,
        /// Within this time.
        within: Duration,
    },
    /// A supervisor without a parent failed: the tree is down, and its mail waits.
    SupervisorDown {
        /// The supervisor's name.
        supervisor: &'a str,
        /// Why.
        why: &'a str,
    },
    /// The process before ended without closing the store while this message was in flight, or it is suspect since an earlier
    /// one. It will run alone. Told once for each at an open.
    Suspect {
        /// The actor's name.
        actor: &'a str,
        /// The message.
        message: MessageId,
        /// How often the process ended itself while the message ran alone; after 3 times it goes to the dead letters.
        deaths: u32,
        /// How often in a row the process ended while it ran alone, nobody knows why; never held against it.
        unexplained: u32,
    },
    /// A handler, or a closure that outlived its turn, has not come to an end and not yielded for longer than
    /// [`SystemBuilder::stuck_after`](crate::SystemBuilder::stuck_after). The actor's mail waits. Told once.
    Stuck {
        /// The actor's name.
        actor: &'a str,
        /// The message it handles; none when it is in a hook.
        message: Option<MessageId>,
        /// For how long it has not yielded.
        since: Duration,
    },
    /// What was told to be stuck goes on.
    Unstuck {
        /// The actor's name.
        actor: &'a str,
        /// The message it handled or handles.
        message: Option<MessageId>,
    },
    /// A member joined a group.
    MemberJoined {
        /// The group's name.
        group: &'a str,
        /// The member's name.
        member: &'a str,
        /// How many members there are with it.
        members: usize,
    },
    /// A member left its group, or failed. What it had in hand and its keys are with the others, or wait for the next to join.
    MemberLeft {
        /// The group's name.
        group: &'a str,
        /// The member's name.
        member: &'a str,
        /// How many members there are without it.
        members: usize,
        /// Why.
        why: &'a str,
    },
    /// Mail is waiting for a name that nobody has spawned.
    Unclaimed {
        /// The mailbox's name.
        mailbox: &'a str,
        /// Messages waiting.
        count: u64,
    },
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TurnOutcome {
    /// The handler succeeded and its effects were committed.
    Done,
    /// The handler failed; the message will be tried again.
    Retried,
    /// The handler gave the message back without counting an attempt.
    Released,
    /// The message went to the dead letters.
    Buried,
    /// The message had expired and was not handled.
    Expired,
    /// The actor's filters did not want the event.
    Filtered,
    /// The turn was thrown away without counting an attempt: a stop, a cancelled message, a store failure.
    Discarded,
}

/// Listens to nothing: what happens is in the `tracing` spans and events.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event<'_>) {}
}

impl fmt::Debug for dyn Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
