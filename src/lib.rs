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
//   clock · codec · envelope · sync   time, ids and chance · values as bytes · a message as bytes · loom's types or std's
//   policy · observe                  what becomes of a failed message, as a pure function · what is told to listeners
//   store                             journal, overlay, checkpoint, recovery; `Medium` and `Engine` are its two seams
//   error                             one public enum for each operation a caller performs
//   durable                           mailboxes, marks, attempts, schedule, cells, dead letters; only `Ledger` commits
//   actor                             messages, handles, context, state; `Worker` runs, `turn` makes it one commit
//   supervisor                        trees of children: strategies, limits, backoff, what is remembered of failures
//   topic                             events stored once, and who reads them
//   stream                            topics worked through in stages; items with their acknowledgement
//   system                            open, spawn, supervise, look, act, shut down
//
// What is on disk is in docs/format.md, before it is in the code.
//
// Deliberately absent: `unsafe`; a process-wide registry; a thread for each actor; a time-out after which a message is
// handed to a second reader (a mailbox has one); a default in place of state that cannot be read; a way to commit beside
// the ledger; an engine's, a format's or an exporter's name above the store.

mod actor;
mod clock;
mod codec;
mod durable;
mod entity;
mod envelope;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod hostile;
mod observe;
mod policy;
mod store;
mod stream;
pub mod supervisor;
mod sync;
mod system;
pub mod testkit;
// the models are of the store: what runs above it need not be built for them
#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests;
mod topic;

pub use self::actor::{
    Accepts, Actor, ActorRef, Address, Ask, BatchHandler, Cell, CellList, CellMap, Contains, Context,
    Durability, Exit, Failed, Failure, FromTopic, Gap, Group, Handled, Handler, Item, Join, ListRef,
    MailboxOptions, MapKey, MapRef, Member, MemberInfo, Message, MessageList, Order, Outcomes, Priority,
    Receipt, Recipient, SendFuture, SendOptions, State, StateRef, Stored, Target, Tell, Terminated,
    Undecodable, When, decode_value,
};
pub use self::clock::{Clock, ManualClock, Sleep, SystemClock, Timestamp};
pub use self::codec::{DecodeError, EncodeError, ProbeError};
pub use self::durable::{Attempt, Attempts, DeadLetter, DeadLetterId, Reason, StartFrom, Suspect};
pub use self::entity::Entities;
pub use self::envelope::{Headers, MessageId};
pub use self::error::{
    AdminError, AskError, BadName, BadPattern, ChildError, KeyTooLong, LookupError, Refused, SendError,
    ShutdownError, SpawnError, StateError, SubscribeError, SuperviseError, WrongActor,
};
pub use self::observe::{Event, Observer, Silent, TurnOutcome};
pub use self::policy::{Decision, FailureClass, FailurePolicy, OnActor, OnMessage, RetryPolicy};
pub use self::store::StoreError;
pub use self::stream::{
    Acknowledged, Bus, BusHandler, Consume, Deliveries, Delivery, DeliveryStream, DurableSink, EmptyBatch,
    Flow, Keyed, NotAcknowledged, One, Passing, ReadError, Registration, Sent, Sessions, Side, Source,
    Sources, Stage, StageActor, StageError, StageRef, TopicJoin, TopicStream, Two, Window, Windowed, Windows,
};
pub use self::supervisor::{
    Backoff, ChildInfo, ChildSpec, ChildState, CountedFailure, Restart, RestartLimit, Strategy, Supervisor,
    SupervisorExit, SupervisorRef,
};
pub use self::system::{
    ByMembers, DeadLetters, MailboxInfo, Mailboxes, OpenEntities, OpenGroup, OpenTopic, Spawn, Status,
    System, SystemBuilder,
};
pub use self::topic::{
    Ephemeral, EphemeralEnded, Overflow, Publish, PublishFuture, PublishOptions, PublishReceipt, Published,
    Reads, Received, Retention, Subscription, SubscriptionInfo, Topic, TopicInfo,
};
