//! What can go wrong, one enum for each operation a caller performs. Each variant says what did *not* happen.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::codec::{DecodeError, EncodeError, ProbeError};
use crate::envelope::MessageId;
use crate::store::StoreError;

/// Why a message was not accepted. It is in no mailbox.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The mailbox is at its limit.
    #[error(
        "mailbox {mailbox} is full: {waiting} messages ({bytes} bytes) wait, the limit is {limit} ({limit_bytes} bytes)"
    )]
    Full {
        /// The mailbox's name.
        mailbox: String,
        /// Messages waiting.
        waiting: u64,
        /// Their bytes.
        bytes: u64,
        /// The most messages.
        limit: u64,
        /// The most bytes.
        limit_bytes: u64,
    },
    /// There was no room within the time allowed.
    #[error("not accepted within {0:?}: {1}")]
    TimedOut(Duration, Box<Refused>),
    /// The message, or all that were to be committed together, are larger than may be.
    #[error(
        "{bytes} bytes are more than the limit of {limit}; send less at once, or a reference to what is large"
    )]
    TooLarge {
        /// The size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The disk has no room. Sending works again once there is some; nothing accepted is lost.
    #[error("the disk is full; free some space and send again")]
    NoRoom,
    /// Too much waits for the disk.
    #[error("the disk does not keep up; send again later")]
    Busy,
    /// The message cannot be encoded.
    #[error("the message cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// Messages of this type could not be read back after a restart.
    #[error("messages of this type could not be read back: {0}")]
    Unreadable(#[from] ProbeError),
    /// A message with the same dedup id but another payload was accepted before.
    #[error("dedup id {dedup_id:?} was used by message {first} with another payload; use another id")]
    DedupConflict {
        /// The dedup id.
        dedup_id: String,
        /// The message that has it.
        first: MessageId,
    },
    /// A direct send in a turn would not be undone with it.
    #[error(
        "a direct `{call}` inside a turn would stand even if the turn fails; use `{instead}`, or `.outside_turn()`"
    )]
    InsideTurn {
        /// What was called.
        call: &'static str,
        /// What to call.
        instead: &'static str,
    },
    /// The option needs the send to be awaited.
    #[error("a send with `{option}` may have to look something up: await it instead of submitting it")]
    MustAwait {
        /// The option.
        option: &'static str,
    },
    /// A tombstone says that a key is gone, and this one says not which.
    #[error("a tombstone without a key says of nothing that it is gone; give it one with `.key(..)`")]
    NoKey,
    /// A volatile message is not stored, so it cannot have the option.
    #[error("a volatile message cannot have `{option}`, which needs it to be stored; use another durability")]
    NotVolatile {
        /// The option.
        option: &'static str,
    },
    /// The mailbox's head is waiting to be tried again, so an answer cannot come before.
    #[error("the mailbox is blocked until {until}: the message before is tried again then")]
    Blocked {
        /// When it is tried again.
        until: Timestamp,
    },
    /// An interceptor of an address of the event bus did not let it pass.
    #[error("bus address {address}: {why}")]
    Intercepted {
        /// The address.
        address: String,
        /// What the interceptor said.
        why: String,
    },
    /// The target is waiting, through others, for the very actor that asks.
    #[error("asking {mailbox} would wait for ever: it waits, directly or through others, for this actor")]
    AskCycle {
        /// The mailbox that was to be asked.
        mailbox: String,
    },
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The mailbox belongs to another type of actor.
    #[error(transparent)]
    WrongActor(#[from] WrongActor),
    /// The store has stopped or is closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no name: 1 to 128 characters of A-Z, a-z, 0-9 and ._:/-")]
pub struct BadName {
    /// The name given.
    pub name: String,
}

/// A pattern of topics that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is no pattern of topics: {why}")]
pub struct BadPattern {
    /// The pattern given.
    pub pattern: String,
    /// Why it is none.
    pub why: &'static str,
}

/// The key of an entity is too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key of {len} bytes is too long for an entity of {region}: at most {limit}")]
pub struct KeyTooLong {
    /// The region's name.
    pub region: String,
    /// The key's length in bytes.
    pub len: usize,
    /// The most bytes.
    pub limit: usize,
}

/// A mailbox belongs to another type of actor than it was used as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mailbox {mailbox} belongs to actor `{found}`, not `{expected}`")]
pub struct WrongActor {
    /// The mailbox's name.
    pub mailbox: String,
    /// The actor it belongs to.
    pub found: String,
    /// The actor it was used as.
    pub expected: String,
}

/// A `tell` did not return `Ok`.
#[non_exhaustive]
pub enum SendError<M> {
    /// The message was not accepted; it is in no mailbox, and is handed back.
    Refused {
        /// The message.
        message: M,
        /// Why.
        why: Refused,
    },
    /// The store failed after it had taken the message. Whether it will be handled after a restart is not known:
    /// send it again with the same dedup id.
    Unknown {
        /// The message's id.
        id: MessageId,
        /// What failed.
        why: StoreError,
    },
}

impl<M> SendError<M> {
    /// Why the message was not accepted, if that is known.
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            SendError::Refused { why, .. } => Some(why),
            SendError::Unknown { .. } => None,
        }
    }

    /// The message, if it was handed back.
    pub fn into_message(self) -> Option<M> {
        match self {
            SendError::Refused { message, .. } => Some(message),
            SendError::Unknown { .. } => None,
        }
    }

    fn text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Refused { why, .. } => write!(f, "the message was not accepted: {why}"),
            SendError::Unknown { id, why } => {
                write!(f, "it is not known whether message {id} was accepted: {why}")
            }
        }
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text(f)
    }
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text(f)
    }
}

impl<M> std::error::Error for SendError<M> {}

/// An `ask` brought no reply.
#[non_exhaustive]
pub enum AskError<M> {
    /// The message was not accepted; it is in no mailbox, and is handed back.
    Refused {
        /// The message.
        message: M,
        /// Why.
        why: Refused,
    },
    /// The message was accepted, but no reply came in time. It may still be handled.
    TimedOut {
        /// The message's id.
        id: MessageId,
        /// How long was waited.
        after: Duration,
    },
    /// The message was accepted and waits behind one that is tried again at that time. It will be handled, but this
    /// ask does not wait for it.
    Blocked {
        /// The message's id.
        id: MessageId,
        /// When the message before it is tried again.
        until: Timestamp,
    },
    /// The handler failed for the last time; the message is in the dead letters.
    Failed {
        /// The message's id.
        id: MessageId,
        /// The handler's last error.
        why: String,
    },
    /// The message was cancelled or expired, or it is not known what became of it since the actor or the system ended.
    NoReply {
        /// The message's id.
        id: MessageId,
    },
    /// The reply was kept, but cannot be read.
    Undecodable {
        /// The message's id.
        id: MessageId,
        /// Why not.
        why: DecodeError,
    },
    /// The store failed: it is not known whether the message and its effects will be found after a restart.
    Unknown {
        /// The message's id.
        id: MessageId,
        /// What failed.
        why: StoreError,
    },
}

impl<M> AskError<M> {
    /// Why the message was not accepted, if that is so.
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            AskError::Refused { why, .. } => Some(why),
            _ => None,
        }
    }

    /// The same of another message.
    pub(crate) fn map<N>(self, map: impl FnOnce(M) -> N) -> AskError<N> {
        match self {
            AskError::Refused { message, why } => AskError::Refused { message: map(message), why },
            AskError::TimedOut { id, after } => AskError::TimedOut { id, after },
            AskError::Blocked { id, until } => AskError::Blocked { id, until },
            AskError::Failed { id, why } => AskError::Failed { id, why },
            AskError::NoReply { id } => AskError::NoReply { id },
            AskError::Undecodable { id, why } => AskError::Undecodable { id, why },
            AskError::Unknown { id, why } => AskError::Unknown { id, why },
        }
    }

    fn text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Refused { why, .. } => write!(f, "the message was not accepted: {why}"),
            AskError::TimedOut { id, after } => write!(f, "no reply to message {id} within {after:?}"),
            AskError::Blocked { id, until } => {
                write!(f, "message {id} waits behind one that is tried again at {until}")
            }
            AskError::Failed { id, why } => write!(f, "message {id} is in the dead letters: {why}"),
            AskError::NoReply { id } => {
                write!(f, "message {id} was not answered: it, its actor or the system ended")
            }
            AskError::Undecodable { id, why } => write!(f, "the reply to message {id} cannot be read: {why}"),
            AskError::Unknown { id, why } => write!(f, "it is not known what became of message {id}: {why}"),
        }
    }
}

impl<M> fmt::Display for AskError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text(f)
    }
}

impl<M> fmt::Debug for AskError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text(f)
    }
}

impl<M> std::error::Error for AskError<M> {}

/// An actor was not started; mail for it waits.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The mailbox belongs to another type of actor.
    #[error(transparent)]
    WrongActor(#[from] WrongActor),
    /// The key of an entity is too long.
    #[error(transparent)]
    Key(#[from] KeyTooLong),
    /// An actor, or a region of entities, of this name is running.
    #[error("{mailbox} is running already; stop it first")]
    Running {
        /// The mailbox's name.
        mailbox: String,
    },
    /// Two of its messages have the same name.
    #[error("two messages of `{actor}` are named `{name}`; stored ones could be either")]
    DuplicateMessage {
        /// The actor's name.
        actor: &'static str,
        /// The message name.
        name: &'static str,
    },
    /// A message or cell has other fields than when it was first stored, under the same version.
    #[error(
        "the fields of `{name}` have changed but its version is still {version}: raise the version and give it an upcast, \
         or spawn with `.park_changed_mail()` to have stored ones put into the dead letters"
    )]
    SchemaChanged {
        /// The message or cell.
        name: String,
        /// The version.
        version: u32,
    },
    /// The actor's state cannot be read. It was not replaced.
    #[error("the state of {mailbox} cannot be read: {why}; it was left as it is")]
    State {
        /// The mailbox's name.
        mailbox: String,
        /// Why not.
        why: StateError,
    },
    /// Several workers would each write the one stored struct.
    #[error(
        "{mailbox} cannot have several workers: its actor is stored as a whole, and each worker would overwrite what the \
         others stored; give it one worker, or keep the state in another actor that the workers send to"
    )]
    PoolWithState {
        /// The mailbox's name.
        mailbox: String,
    },
    /// It was to handle batches, but cannot.
    #[error("actor `{actor}` cannot handle batches: implement `BatchHandler` for the one message it takes")]
    NoBatches {
        /// The actor's name.
        actor: &'static str,
    },
    /// The factory panicked.
    #[error("the factory of {mailbox} panicked: {why}")]
    Factory {
        /// The mailbox's name.
        mailbox: String,
        /// The panic's message.
        why: String,
    },
    /// It cannot subscribe.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// Its `started` failed. What it did was thrown away.
    #[error("{mailbox} did not start: {why}")]
    Hook {
        /// The mailbox's name.
        mailbox: String,
        /// The hook and its failure.
        why: String,
    },
    /// It was asked to end before it had started.
    #[error("{mailbox} was asked to end before it had started")]
    Stopped {
        /// The mailbox's name.
        mailbox: String,
    },
    /// The system is shutting down.
    #[error("the system is shutting down")]
    ShuttingDown,
    /// The mailbox's name could not be stored.
    #[error("the mailbox could not be opened: {0}")]
    Refused(Box<Refused>),
    /// The store has stopped or is closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// There is no such actor to be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// Nobody was ever spawned under this name, and nothing was sent to it.
    #[error(
        "there is no mailbox {name}: nobody was ever spawned under this name, and nothing was sent to it"
    )]
    Unknown {
        /// The name.
        name: String,
    },
    /// The mailbox belongs to another type of actor.
    #[error(transparent)]
    WrongActor(#[from] WrongActor),
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] BadName),
    /// It could not be opened.
    #[error("the mailbox could not be opened: {0}")]
    Refused(Box<SpawnError>),
    /// The store has stopped or is closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SpawnError> for LookupError {
    fn from(error: SpawnError) -> Self {
        match error {
            SpawnError::WrongActor(wrong) => wrong.into(),
            SpawnError::Name(bad) => bad.into(),
            SpawnError::Store(failed) => failed.into(),
            other => LookupError::Refused(Box::new(other)),
        }
    }
}

/// A subscription was not made; the topic and what is stored were left as they are.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The pattern is not one.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// It could not be committed, or a name is none.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store has stopped or is closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// State could not be read or written. What is stored was left as it is.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The stored bytes are not what the type says.
    #[error("cell `{cell}` version {version} cannot be read: {why}")]
    Decode {
        /// The cell.
        cell: String,
        /// The stored version.
        version: u32,
        /// Why not.
        why: String,
    },
    /// The stored value is of a newer version.
    #[error("cell `{cell}` was stored as version {stored}, this program knows up to {known}")]
    Newer {
        /// The cell.
        cell: String,
        /// The stored version.
        stored: u32,
        /// The version known here.
        known: u32,
    },
    /// The stored value is of an older version and there is no upcast.
    #[error("cell `{cell}` was stored as version {stored}, from which there is no upcast")]
    NoUpcast {
        /// The cell.
        cell: String,
        /// The stored version.
        stored: u32,
    },
    /// The stored value has other fields under the same version.
    #[error(
        "the fields of cell `{cell}` have changed but its version is still {version}; raise it and give it an upcast"
    )]
    Changed {
        /// The cell.
        cell: String,
        /// The version.
        version: u32,
    },
    /// The value cannot be encoded.
    #[error("cell `{cell}` cannot be encoded: {why}")]
    Encode {
        /// The cell.
        cell: String,
        /// Why not.
        why: EncodeError,
    },
    /// A worker of a pool was to write state.
    #[error(
        "cell `{cell}` cannot be written by one of several workers, which would not see each other's writes; send what is to \
         be kept to an actor with one worker"
    )]
    Pool {
        /// The cell.
        cell: String,
    },
    /// A name or key is too long.
    #[error("cell `{cell}`: {len} bytes are more than the limit of {limit}")]
    TooLong {
        /// The cell.
        cell: String,
        /// The length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The store has stopped or is closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A request to look at, or act on, what is stored was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// There is no such thing, or no longer.
    #[error("there is no {0}")]
    NotFound(String),
    /// An actor reads several topics: which subscription is meant has to be said.
    #[error("{actor} subscribes to several topics ({}): see `System::subscriptions`", .topics.join(", "))]
    SeveralTopics {
        /// The actor's name.
        actor: String,
        /// The topics.
        topics: Vec<String>,
    },
    /// A pattern of topics is not one.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// The bytes found are not what was stored.
    #[error("{what} cannot be read: {why}")]
    Unreadable {
        /// What was read.
        what: String,
        /// Why not.
        why: String,
    },
    /// It could not be committed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store has stopped or is closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The system did not shut down cleanly. Nothing accepted is lost; the next start recovers.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// A handler does not yield, so its task could not be ended.
    #[error("{} did not end in time and is still running; the store was left as after a crash", .mailboxes.join(", "))]
    Stuck {
        /// The mailboxes whose handlers run.
        mailboxes: Vec<String>,
    },
    /// The store could not be closed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A supervisor was not started, and none of its children runs: those that were started before the one that failed were
/// stopped again, in reverse order.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// The name of a supervisor is not one.
    #[error(
        "{name:?} is no name of a supervisor: 1 to 128 characters of A-Z, a-z, 0-9 and ._:- (a / stands between it and its \
         parent's), and at most 512 with all of its parents'"
    )]
    Name {
        /// The name given, with those of its parents.
        name: String,
    },
    /// Two children of a supervisor have the same name.
    #[error("supervisor {supervisor} has two children named {child}")]
    Duplicate {
        /// The supervisor.
        supervisor: String,
        /// The name.
        child: String,
    },
    /// A supervisor of this name is running.
    #[error("supervisor {supervisor} is running already; stop it first")]
    Running {
        /// The supervisor.
        supervisor: String,
    },
    /// A child could not be started.
    #[error("{child} was not started: {why}")]
    Child {
        /// The child, with the names of its supervisors.
        child: String,
        /// Why not.
        why: SpawnError,
    },
    /// The system is shutting down.
    #[error("the system is shutting down")]
    ShuttingDown,
    /// The store has stopped or is closed, or what a supervisor remembers of failures cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A request to a supervisor was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// It has no such child.
    #[error("there is no child {child}")]
    NotFound {
        /// The child, with the names of its supervisors.
        child: String,
    },
    /// It has a child of this name.
    #[error("there is a child {child} already; stop and delete it first")]
    Exists {
        /// The child, with the names of its supervisors.
        child: String,
    },
    /// The child runs.
    #[error("{child} is running; stop it first")]
    Running {
        /// The child, with the names of its supervisors.
        child: String,
    },
    /// The child is something else than was asked for.
    #[error("{child} is {is}")]
    OtherKind {
        /// The child, with the names of its supervisors.
        child: String,
        /// What it is.
        is: &'static str,
    },
    /// The child's handler does not yield, so it could not be ended. Its mail waits.
    #[error("{child} did not end in time and is still running")]
    Stuck {
        /// The child, with the names of its supervisors.
        child: String,
    },
    /// The child could not be started.
    #[error(transparent)]
    Start(#[from] SuperviseError),
    /// There is no handle on the child: its mailbox belongs to another type of actor, or the store failed.
    #[error(transparent)]
    Handle(#[from] SpawnError),
    /// The supervisor has ended.
    #[error("supervisor {supervisor} has ended")]
    Ended {
        /// The supervisor.
        supervisor: String,
    },
}
