// Included by the cases beside it: messages `Letter<0>` to `Letter<63>`, and actors that handle all of them.
use serde::{Deserialize, Serialize};
#[allow(unused_imports, reason = "each case that includes this uses a part of it")]
use steadfast::{Actor, ActorRef, Contains, Context, Failure, Handler, Message};

#[derive(Serialize, Deserialize)]
pub struct Letter<const N: u8>;

macro_rules! letters {
    ($($n:literal)+) => {
        $(impl Message for Letter<$n> {
            type Reply = ();
            const NAME: &'static str = concat!("letter.", $n);
        })+
    };
}

letters!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33);

#[allow(unused_macros, reason = "each case that includes this uses a part of it")]
macro_rules! actor {
    ($Actor:ident, $Messages:ty) => {
        struct $Actor;

        impl Actor for $Actor {
            const NAME: &'static str = "actor";
            type Messages = $Messages;
        }

        impl<const N: u8> Handler<Letter<N>> for $Actor
        where
            Letter<N>: Message<Reply = ()>,
        {
            async fn handle(&mut self, _: Letter<N>, _: &mut Context<Self>) -> Result<(), Failure> {
                Ok(())
            }
        }
    };
}
