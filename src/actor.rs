//! Typed actors: their messages and mailboxes, what a handler is given, and the turn that makes all it did one commit.
//!
//! Where to look: [`message`], [`list`] what can be sent · [`handle`], [`address`], [`send`], [`tell`], [`ask`], [`volatile`],
//! [`options`], [`receipt`] sending · [`mailbox`] what waits · [`front`], [`pool`], [`affinity`], [`order`] what reads it ·
//! [`filter`] what of it · [`group`], [`crew`], [`start`], [`life`], [`worker`], [`turn`], [`bundle`],
//! [`batch`], [`hooks`], [`solo`] handling · [`watchdog`] what does not yield · [`watch`] who is told of an end · [`context`],
//! [`state`], [`failure`], [`reply`] what a handler
//! uses · [`runtime`] what they share.

mod address;
mod affinity;
mod ask;
mod batch;
mod bundle;
mod context;
mod crew;
mod failure;
mod filter;
mod front;
mod group;
mod handle;
mod hooks;
mod life;
mod list;
mod mailbox;
mod message;
mod options;
mod order;
mod pool;
mod presence;
mod receipt;
mod reply;
mod runtime;
mod send;
mod solo;
mod start;
mod state;
mod tell;
mod turn;
mod volatile;
mod watch;
mod watchdog;
mod worker;

pub use address::{Accepts, Address};
pub(crate) use affinity::Spread;
#[cfg(test)]
#[cfg(not(steadfast_loom))]
pub(crate) use affinity::{home, salt_of};
pub use ask::Ask;
pub(crate) use batch::About;
pub use batch::{BatchHandler, Item, Outcomes};
pub use context::{Context, FromTopic, Target};
pub use failure::Failure;
pub(crate) use filter::Filter;
pub use group::{Group, Join, Member, MemberInfo};
pub use handle::{ActorRef, Recipient};
pub use hooks::Gap;
pub use life::{Exit, Failed};
pub(crate) use life::{Life, Link};
pub use list::{Contains, MessageList};
pub(crate) use list::{Dispatch, InBatch, List, MessageKind, decode_one, read};
pub(crate) use mailbox::{Control, Mailbox};
pub use message::{Actor, Handler, Message, Stored, Undecodable};

pub use options::{Durability, Priority, SendOptions, When};
#[cfg(test)]
#[cfg(not(steadfast_loom))]
pub(crate) use order::Key;
pub use order::Order;
pub(crate) use presence::{Crowd, Presence};
pub use receipt::Receipt;
pub(crate) use reply::{Answered, Asker, KeepReply, ReplySlot, ReplyWait};
pub use runtime::Handled;
pub(crate) use runtime::Runtime;
pub(crate) use send::{
    Accepted, Call, Delivered, Draft, InFlight, Kind, Parcel, Patience, Returned, Route, Sending, Sent,
    check_outside_turn, ids_for, payload_of, refused, seal_all,
};
pub(crate) use start::{Made, Running, Start, check_shapes, decoder, mailbox, not_opened, start_group};
pub use state::{Cell, CellList, CellMap, ListRef, MapKey, MapRef, State, StateRef, decode_value};
pub use tell::{SendFuture, Tell};
pub(crate) use turn::panic_text;
pub use watch::Terminated;
pub use worker::MailboxOptions;
pub(crate) use worker::{Factory, Subscribes};
