//! ractor. Its mailboxes have no limit: a tell never waits, and what waits takes memory.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::memory::{Note, Peer};

/// Its actors.
pub struct Ractor;

struct Adder;

/// What an actor receives.
pub enum Mail {
    /// To add.
    Tell(Note),
    /// To add and answer.
    Ask(Note, RpcReplyPort<u64>),
}

impl Actor for Adder {
    type Msg = Mail;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Mail>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Mail>, mail: Mail, sum: &mut u64) -> Result<(), ActorProcessingErr> {
        match mail {
            Mail::Tell(note) => *sum = sum.wrapping_add(note.value()),
            Mail::Ask(note, reply) => {
                *sum = sum.wrapping_add(note.value());
                // who asked may have gone away
                let _ = reply.send(*sum);
            }
        }
        Ok(())
    }
}

impl Peer for Ractor {
    type Actor = ActorRef<Mail>;

    async fn spawn(&self) -> Self::Actor {
        Adder::spawn(None, Adder, ()).await.expect("the actor starts").0
    }

    async fn tell(actor: &Self::Actor, note: Note) {
        assert!(actor.cast(Mail::Tell(note)).is_ok(), "the actor runs");
        // without a limit the sender would never let its thread go
        tokio::task::coop::consume_budget().await;
    }

    async fn ask(actor: &Self::Actor, note: Note) -> u64 {
        let call = actor.call(|reply| Mail::Ask(note, reply), None).await;
        call.expect("the actor runs").expect("the actor answers")
    }

    async fn stop(actor: Self::Actor) {
        actor.stop_and_wait(None, None).await.expect("the actor ends");
    }
}
