// The front page is the README; its code is compiled and run with the doc tests.
#![doc = include_str!("../README.md")]
//
// The way of a message:
//
//   tell / ask ──seal──► Envelope ──► Batch ──► store: admission (numbers, overlay) ──► journal: one sync for all who wait
//                                       ▲                                                   = the durability point
//   Handler<M> ◄── turn: attempt ◄── worker ◄── mailbox                                             │
//       └── Ok ──► settle ──► commit: ack + state + sends + timers + reply, one Batch               ▼
//                                                       checkpoint: what still waits, to the engine (sled)
//
// Where to find what, from the lowest shelf up; a module names lower shelves only (tests/architecture.rs):
//
//   clock · codec · envelope · sync   time, ids and chance · values as bytes · a message as bytes · bells, answers, loom's locks or std's
//   policy · observe                  what becomes of a failed message, as a pure function · what is told to listeners
//   store                             journal, overlay, checkpoint, recovery; `Medium` and `Engine` are its two seams
//   error                             one public enum for each operation a caller performs
//   durable                           mailboxes, marks, attempts, schedule, cells, dead letters; only `Ledger` commits
//   actor                             messages, handles, context, state; `Worker` runs, `turn` makes it one commit
//   supervisor                        trees of children: strategies, limits, backoff, what is remembered of failures
//   topic                             events stored once, and who reads them
//   stream                            topics worked through in stages; items with their acknowledgement
//   system                            open, spawn, supervise, look, act, shut down; check and salvage what does not open
//
// What is on disk is in docs/format.md, before it is in the code.
//
// Deliberately absent: `unsafe`; a process-wide registry; a thread for each actor; a time-out after which a message is
// handed to a second reader (a mailbox has one); a default in place of state that cannot be read; a way to commit beside
// the ledger; an engine's, a format's or an exporter's name above the store.

// what loom explores is the store and what lies below it: nothing above is built for its models, and much of the store is then
// used by nobody
#![cfg_attr(steadfast_loom, allow(dead_code, unused_imports))]

// the workload of examples/torture names the crate as a user does
#[cfg(test)]
#[cfg(not(steadfast_loom))]
extern crate self as steadfast;

#[cfg(not(steadfast_loom))]
mod actor;
mod clock;
mod codec;
#[cfg(not(steadfast_loom))]
mod durable;
#[cfg(not(steadfast_loom))]
mod entity;
mod envelope;
#[cfg(not(steadfast_loom))]
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod hostile;
mod observe;
mod policy;
#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod simulation;
mod store;
#[cfg(not(steadfast_loom))]
mod stream;
#[cfg(not(steadfast_loom))]
pub mod supervisor;
mod sync;
#[cfg(not(steadfast_loom))]
mod system;
#[cfg(not(steadfast_loom))]
pub mod testkit;
#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests;
#[cfg(not(steadfast_loom))]
mod topic;

#[cfg(not(steadfast_loom))]
pub use self::actor::{
    Accepts, Actor, ActorRef, Address, Ask, BatchHandler, Cell, CellList, CellMap, Contains, Context,
    Durability, Exit, Failed, Failure, FromTopic, Gap, Group, Handled, Handler, Item, Join, ListRef,
    MailboxOptions, MapKey, MapRef, Member, MemberInfo, Message, MessageList, Order, Outcomes, Priority,
    Receipt, Recipient, SendFuture, SendOptions, State, StateRef, Stored, Target, Tell, Terminated,
    Undecodable, When, decode_value,
};
pub use self::clock::{Clock, ManualClock, Sleep, SystemClock, Timestamp};
pub use self::codec::{DecodeError, EncodeError, ProbeError};
#[cfg(not(steadfast_loom))]
pub use self::durable::{Attempt, Attempts, DeadLetter, DeadLetterId, Reason, StartFrom, Suspect};
#[cfg(not(steadfast_loom))]
pub use self::entity::Entities;
pub use self::envelope::{Headers, MessageId};
#[cfg(not(steadfast_loom))]
pub use self::error::{
    AdminError, AskError, BadName, BadPattern, CheckError, ChildError, KeyTooLong, LookupError, Refused,
    SalvageError, SendError, ShutdownError, SpawnError, StateError, SubscribeError, SuperviseError,
    WrongActor,
};
pub use self::observe::{Event, Observer, Silent, TurnOutcome};
pub use self::policy::{Decision, FailureClass, FailurePolicy, OnActor, OnMessage, RetryPolicy};
pub use self::store::StoreError;
pub use self::store::salvage::{
    CheckReport, Contents, Finding, LostCommits, LostMessages, MailboxContents, SalvageReport, Severity,
    SubscriptionContents, TopicContents,
};
#[cfg(not(steadfast_loom))]
pub use self::stream::{
    Acknowledged, Consume, Deliveries, Delivery, DeliveryStream, DurableSink, EmptyBatch, Flow, Keyed,
    NotAcknowledged, One, ReadError, Sessions, Side, Source, Sources, Stage, StageActor, StageError,
    StageRef, TopicJoin, TopicStream, Two, Window, Windowed, Windows,
};
#[cfg(not(steadfast_loom))]
pub use self::supervisor::{
    Backoff, ChildInfo, ChildSpec, ChildState, CountedFailure, Restart, RestartLimit, Strategy, Supervisor,
    SupervisorExit, SupervisorRef,
};
#[cfg(not(steadfast_loom))]
pub use self::system::{
    ByMembers, DeadLetters, MailboxInfo, Mailboxes, OpenEntities, OpenGroup, OpenTopic, Spawn, Status,
    System, SystemBuilder, check, salvage,
};
#[cfg(not(steadfast_loom))]
pub use self::topic::{
    Ephemeral, EphemeralEnded, Overflow, Publish, PublishFuture, PublishOptions, PublishReceipt, Published,
    Reads, Received, Retention, Subscription, SubscriptionInfo, Topic, TopicInfo,
};
