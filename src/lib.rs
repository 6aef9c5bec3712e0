//! Durable actors.

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
