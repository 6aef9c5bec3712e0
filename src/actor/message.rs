//! What is sent, who it is sent to, and how a stored message is read again, perhaps by a later program.
//!
//! # Invariants
//! - A message is known in storage by its `NAME` and `VERSION`, never by its Rust path.
//! - Bytes are decoded only as the version they were written as; anything else is [`Undecodable`], never a
//!   guess.

use std::fmt::Display;
use std::future::Future;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::batch::{Item, Outcomes};
use super::context::Context;
use super::failure::Failure;
use super::hooks::Gap;
use super::list::MessageList;
use super::state::State;
use super::worker::MailboxOptions;
use crate::codec;

/// Something that can be sent to an actor and stored until it is handled.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use steadfast::{Message, Stored, Undecodable};
///
/// #[derive(Serialize, Deserialize)]
/// struct Reserve { sku: String, quantity: u32 }
///
/// impl Message for Reserve {
///     type Reply = bool;
///     const NAME: &'static str = "inventory.reserve";
///     const VERSION: u32 = 2;
///
///     fn upcast(stored: Stored<'_>) -> Result<Self, Undecodable> {
///         match stored.version() {
///             1 => stored.decode::<String>().map(|sku| Reserve { sku, quantity: 1 }),
///             _ => Err(stored.unknown_version()),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "does not implement `Message`",
    note = "write `impl Message for {Self}`, with its `Reply` and the `NAME` it is stored under"
)]
pub trait Message: Serialize + DeserializeOwned + Send + 'static {
    /// What the handler answers. The domain's outcomes belong here, "out of stock" too; `()` for none.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// The name it is stored under. It must stay when the type is renamed, and be the only one of its list.
    const NAME: &'static str;
    /// To be raised with every change of the type's fields, with an [`upcast`](Message::upcast) from those
    /// before.
    const VERSION: u32 = 1;

    /// Reads a message stored by an older version of the type.
    ///
    /// # Errors
    /// What it cannot read. The default reads no older version.
    fn upcast(stored: Stored<'_>) -> Result<Self, Undecodable> {
        Err(stored.unknown_version())
    }
}

/// A state that handles one message at a time.
///
/// `Messages` is what its mailbox can hold: one message, or a tuple of up to 16, each of which may be a tuple
/// again. Every one of them needs a [`Handler`], so what was stored can always be handled after a restart.
pub trait Actor: Sized + Send + 'static {
    /// The kind of actor, in storage and in events.
    const NAME: &'static str;
    /// What can be sent to it.
    type Messages: MessageList<Self>;

    /// How the actor's state is stored. Default: in [cells](State::cells).
    fn state() -> State<Self> {
        State::cells()
    }

    /// How the mailbox behaves; see [`MailboxOptions`].
    fn mailbox() -> MailboxOptions {
        MailboxOptions::new()
    }

    // The hooks, in the order in which they are called. Each is a turn without a message: what it sends and stores is one
    // commit, and exists only if it succeeds.

    /// The actor was made and is about to take its first message: at each spawn, restart by a supervisor and load of an
    /// entity. The place to watch others.
    ///
    /// # Errors
    /// The start fails: with [`SpawnError::Hook`](crate::SpawnError::Hook), or as its supervisor decides.
    fn started(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), Failure>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// The next message was sent before the store was opened: after `started`, before the first such message.
    ///
    /// # Errors
    /// As when the actor cannot be made: its supervisor decides; without one it is made anew after 1 s. The message waits.
    fn recovered(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), Failure>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// The turn before failed, and the actor was made anew in its place, without `started`: before the next message.
    ///
    /// # Errors
    /// As [`recovered`](Actor::recovered).
    fn restarted(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), Failure>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// Events of the topic it subscribes to were taken by retention before it came to them: before the next event. They will not
    /// come any more. The default logs it and goes on.
    ///
    /// # Errors
    /// As [`recovered`](Actor::recovered); it is told again.
    fn gap(&mut self, gap: Gap, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), Failure>> + Send {
        tracing::error!(
            actor = ctx.name(),
            from = gap.from,
            to = gap.to,
            "events were lost before they were handled"
        );
        async { Ok(()) }
    }

    /// The last turn: the actor was asked to end (stop, drain, shutdown, an entity's unloading) and has the time. Not called
    /// when it is parked, fails or is killed.
    ///
    /// # Errors
    /// Are logged; the actor ends, and what this did is thrown away.
    fn stopping(&mut self, ctx: &mut Context<Self>) -> impl Future<Output = Result<(), Failure>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }
}

/// How an actor handles one of its messages. Written as an `async fn`:
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use steadfast::{Actor, Context, Failure, Handler, Message};
///
/// # #[derive(Serialize, Deserialize)] struct Restock { quantity: u32 }
/// # impl Message for Restock { type Reply = u32; const NAME: &'static str = "inventory.restock"; }
/// struct Inventory { quantity: u32 }
///
/// impl Actor for Inventory {
///     const NAME: &'static str = "inventory";
///     type Messages = (Restock,);
/// }
///
/// impl Handler<Restock> for Inventory {
///     async fn handle(&mut self, message: Restock, _ctx: &mut Context<Self>) -> Result<u32, Failure> {
///         self.quantity += message.quantity;
///         Ok(self.quantity)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no handler for `{M}`, which is in its `Messages`",
    label = "no `Handler<{M}>`",
    note = "write `impl Handler<{M}> for {Self}`, or take `{M}` out of `type Messages`"
)]
pub trait Handler<M: Message>: Actor {
    /// Handles one message.
    ///
    /// 1. It may run more than once for one message: after a failure, and after a crash.
    /// 2. What it did through `ctx`, and to the state, exists only if it returns `Ok`, and then all of it.
    /// 3. It should yield: nothing else of this actor runs until it returns.
    ///
    /// # Errors
    /// A [`Failure`], after which the actor's policy decides about another attempt.
    fn handle(
        &mut self,
        message: M,
        ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<M::Reply, Failure>> + Send;

    /// Whether it is a [`BatchHandler`](super::BatchHandler).
    #[doc(hidden)]
    const BATCHES: bool = false;

    /// The way to the [`BatchHandler`](super::BatchHandler).
    #[doc(hidden)]
    fn handle_batch_hidden(
        &mut self,
        _items: Vec<Item<M>>,
        _ctx: &mut Context<Self>,
    ) -> impl Future<Output = Result<Outcomes<M>, Failure>> + Send {
        // refused when the actor was started
        async { Err(Failure::new("this actor has no handler of batches").terminal()) }
    }
}

/// A message as it was stored, by this version of its type or another.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    name: &'a str,
    version: u32,
    body: &'a [u8],
}

impl<'a> Stored<'a> {
    pub(crate) fn new(name: &'a str, version: u32, body: &'a [u8]) -> Self {
        Stored { name, version, body }
    }

    /// The version it was stored as.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Reads it as a `T`, which must have the fields the stored version had, in their order. Names do not
    /// matter.
    ///
    /// # Errors
    /// [`Undecodable::Malformed`] if the bytes are no `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Undecodable> {
        codec::decode(self.body).map_err(|e| self.malformed(e))
    }

    /// The answer of an upcaster that does not know this version.
    pub fn unknown_version(&self) -> Undecodable {
        Undecodable::UnknownVersion { name: self.name.to_owned(), version: self.version }
    }

    /// The answer of an upcaster that can read the bytes, but make no message of what they say.
    pub fn malformed(&self, why: impl Display) -> Undecodable {
        let (name, version) = (self.name.to_owned(), self.version);
        Undecodable::Malformed { name, version, why: Failure::new(why).into_text() }
    }
}

/// Why a stored message could not be read. It was not handled; its bytes are kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Undecodable {
    /// The actor no longer lists a message of this name.
    #[error("no message is named `{name}` in the `Messages` of this actor")]
    UnknownName {
        /// The stored name.
        name: String,
    },
    /// A later program wrote it.
    #[error("`{name}` was stored as version {stored}, this program knows up to {known}")]
    NewerVersion {
        /// The message's name.
        name: String,
        /// The version it was stored as.
        stored: u32,
        /// The version of the type in this program.
        known: u32,
    },
    /// It is older than what the message's `upcast` reads.
    #[error("`{name}` was stored as version {version}, from which there is no upcast")]
    UnknownVersion {
        /// The message's name.
        name: String,
        /// The version it was stored as.
        version: u32,
    },
    /// The type has other fields than when it was stored, but its `VERSION` was not raised.
    #[error("the fields of `{name}` have changed since it was stored, but its version is still {version}")]
    ChangedShape {
        /// The message's name.
        name: String,
        /// The version, then and now.
        version: u32,
        /// The fingerprint of the fields then.
        stored: u32,
        /// The fingerprint of the fields now.
        now: u32,
    },
    /// The bytes do not say what the type needs.
    #[error("`{name}` version {version} cannot be read: {why}")]
    Malformed {
        /// The message's name.
        name: String,
        /// The version it was stored as.
        version: u32,
        /// What the decoder, or the upcaster, said.
        why: String,
    },
}
