//! What an actor is: its messages, the list that holds them, what a handler is given and what it may answer.

mod context;
mod failure;
mod handle;
mod list;
mod message;
mod reply;

pub use context::Context;
pub use failure::Failure;
pub use handle::ActorRef;
pub use list::{Contains, MessageList};
pub use message::{Actor, Handler, Message, Stored, Undecodable};
