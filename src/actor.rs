//! Typed actors: their messages and mailboxes, what a handler is given, and the turn that makes all it did one commit.
//!
//! Where to look: [`message`], [`list`] what can be sent · [`handle`], [`address`], [`send`], [`options`], [`receipt`] sending
//! · [`mailbox`] what waits · [`worker`], [`turn`] handling · [`context`], [`state`], [`failure`], [`reply`] what a handler
//! uses · [`runtime`] what they share.

mod address;
mod context;
mod failure;
mod handle;
mod list;
mod mailbox;
mod message;
mod options;
mod receipt;
mod reply;
mod runtime;
mod send;
mod state;
mod turn;
mod worker;

pub use address::{Accepts, Address};
pub use context::{Context, Target};
pub use failure::Failure;
pub use handle::{ActorRef, Recipient};
pub use list::{Contains, MessageList};
pub(crate) use mailbox::{Control, Mailbox};
pub use message::{Actor, Handler, Message, Stored, Undecodable};
pub use options::{Durability, Priority, SendOptions, When};
pub use receipt::Receipt;
pub use runtime::Handled;
pub(crate) use runtime::{AnyMailbox, Runtime};
pub use send::{Ask, SendFuture, Tell};
pub use state::{Cell, CellList, CellMap, ListRef, MapKey, MapRef, State, StateRef, decode_value};
pub use worker::MailboxOptions;
pub(crate) use worker::{Factory, Worker, decoder};
