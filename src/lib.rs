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
//   system                            open, spawn, look, act, shut down
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
mod envelope;
mod error;
mod observe;
mod policy;
mod store;
mod sync;
mod system;
pub mod testkit;
#[cfg(test)]
mod tests;

pub use self::actor::{
    Accepts, Actor, ActorRef, Address, Ask, Cell, CellList, CellMap, Contains, Context, Durability, Failure,
    Handled, Handler, ListRef, MailboxOptions, MapKey, MapRef, Message, MessageList, Priority, Receipt,
    Recipient, SendFuture, SendOptions, State, StateRef, Stored, Target, Tell, Undecodable, When,
    decode_value,
};
pub use self::clock::{Clock, ManualClock, Sleep, SystemClock, Timestamp};
pub use self::codec::{DecodeError, EncodeError, ProbeError};
pub use self::durable::{Attempt, Attempts, DeadLetter, DeadLetterId, Reason};
pub use self::envelope::{Headers, MessageId};
pub use self::error::{
    AdminError, AskError, BadName, Refused, SendError, ShutdownError, SpawnError, StateError, WrongActor,
};
pub use self::observe::{Event, Observer, Silent, TurnOutcome};
pub use self::policy::RetryPolicy;
pub use self::store::StoreError;
pub use self::system::{DeadLetters, MailboxInfo, Mailboxes, Spawn, Status, System, SystemBuilder};
