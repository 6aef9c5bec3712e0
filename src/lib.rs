//! Durable actors.

mod actor;
mod clock;
mod codec;
mod envelope;
mod observe;
mod store;
mod sync;

pub use self::actor::{
    Actor, ActorRef, Contains, Context, Failure, Handler, Message, MessageList, Stored, Undecodable,
};
pub use self::clock::{Clock, ManualClock, Sleep, SystemClock, Timestamp};
pub use self::codec::{DecodeError, EncodeError, ProbeError};
pub use self::envelope::Headers;
pub use self::observe::{Event, Observer, Silent, TurnOutcome};
pub use self::store::StoreError;
