//! What a handler is given beside its message.

use std::marker::PhantomData;

use super::message::Actor;

/// What a handler is given beside its message.
pub struct Context<A: Actor> {
    _actor: PhantomData<fn(A)>,
}

impl<A: Actor> Context<A> {
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Context { _actor: PhantomData }
    }
}
