//! The handle that sends to one actor.

use std::marker::PhantomData;

use super::list::Contains;
use super::message::{Actor, Message};

/// Sends to one actor.
pub struct ActorRef<A: Actor>(PhantomData<fn(A)>);

impl<A: Actor> ActorRef<A> {
    /// Sends a message.
    pub fn tell<M, I>(&self, message: M)
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        drop(<A::Messages as Contains<M, I>>::wrap(message, None));
    }
}
