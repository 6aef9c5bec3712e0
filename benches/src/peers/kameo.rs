//! kameo, with its bounded mailbox.

use std::convert::Infallible;

use kameo::actor::{ActorRef, Spawn as _};
use kameo::mailbox;
use kameo::message::{Context, Message};

use crate::memory::{Note, Peer, WAITING};

/// Its actors.
pub struct Kameo;

/// Adds up what it is told.
#[derive(Default)]
pub struct Adder(u64);

impl kameo::Actor for Adder {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(args: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(args)
    }
}

struct Tell(Note);
struct Ask(Note);

impl Message<Tell> for Adder {
    type Reply = ();

    async fn handle(&mut self, Tell(note): Tell, _: &mut Context<Self, ()>) {
        self.0 = self.0.wrapping_add(note.value());
    }
}

impl Message<Ask> for Adder {
    type Reply = u64;

    async fn handle(&mut self, Ask(note): Ask, _: &mut Context<Self, u64>) -> u64 {
        self.0 = self.0.wrapping_add(note.value());
        self.0
    }
}

impl Peer for Kameo {
    type Actor = ActorRef<Adder>;

    async fn spawn(&self) -> Self::Actor {
        Adder::spawn_with_mailbox(Adder::default(), mailbox::bounded(WAITING))
    }

    async fn tell(actor: &Self::Actor, note: Note) {
        assert!(actor.tell(Tell(note)).await.is_ok(), "the actor runs");
    }

    async fn ask(actor: &Self::Actor, note: Note) -> u64 {
        actor.ask(Ask(note)).await.expect("the actor answers")
    }

    async fn stop(actor: Self::Actor) {
        assert!(actor.stop_gracefully().await.is_ok(), "the actor runs");
        actor.wait_for_shutdown().await;
    }
}
