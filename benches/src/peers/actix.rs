//! actix, whose actors live on a thread of their own runtime. Its `do_send` ignores the limit of a mailbox and never waits; the
//! send that waits for room waits for the answer too.

use std::sync::mpsc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, ArbiterHandle, Context, Handler, Message, System};

use crate::memory::{Note, Peer, WAITING};
use crate::slice::{self, Slice};

/// Its actors, on one thread beside those who send.
pub struct Actix {
    arbiter: ArbiterHandle,
    system: System,
}

/// Adds up what it is told.
#[derive(Default)]
pub struct Adder(u64);

impl Actor for Adder {
    type Context = Context<Self>;
}

struct Tell(Note);
struct Ask(Note);
struct Stop;

impl Message for Tell {
    type Result = ();
}
impl Message for Ask {
    type Result = u64;
}
impl Message for Stop {
    type Result = ();
}

impl Handler<Tell> for Adder {
    type Result = ();

    fn handle(&mut self, Tell(note): Tell, _: &mut Context<Self>) {
        self.0 = self.0.wrapping_add(note.value());
    }
}

impl Handler<Ask> for Adder {
    type Result = u64;

    fn handle(&mut self, Ask(note): Ask, _: &mut Context<Self>) -> u64 {
        self.0 = self.0.wrapping_add(note.value());
        self.0
    }
}

impl Handler<Stop> for Adder {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) {
        actix::ActorContext::stop(context);
    }
}

impl Actix {
    /// Starts its thread.
    ///
    /// # Errors
    /// The thread did not come up.
    pub fn start() -> crate::Outcome<Self> {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let runner = System::new();
            let own = runner.block_on(async { (Arbiter::current(), System::current()) });
            // whoever waits has gone away
            let _ = tell.send(own);
            let _ = runner.run();
        });
        let (arbiter, system) = told.recv()?;
        Ok(Actix { arbiter, system })
    }
}

impl Drop for Actix {
    fn drop(&mut self) {
        self.system.stop();
    }
}

impl Peer for Actix {
    type Actor = Addr<Adder>;

    async fn spawn(&self) -> Self::Actor {
        Adder::start_in_arbiter(&self.arbiter, |_| Adder::default())
    }

    async fn tell(actor: &Self::Actor, note: Note) {
        actor.do_send(Tell(note));
        // without a limit the sender would never let its thread go
        tokio::task::coop::consume_budget().await;
    }

    async fn ask(actor: &Self::Actor, note: Note) -> u64 {
        actor.send(Ask(note)).await.expect("the actor answers")
    }

    async fn stop(actor: Self::Actor) {
        actor.send(Stop).await.expect("the actor ends");
    }
}

/// One tells one, both on one thread: nothing has to go from one processor to another. After as many as other mailboxes hold the
/// sender waits for an answer, as the actor runs only when its sender does not.
///
/// # Errors
/// The thread ended.
pub async fn tell_on_one_thread(time: Duration) -> crate::Outcome<Slice> {
    let runs = move || {
        System::new().block_on(async move {
            let actor = Adder::default().start();
            let to = &actor;
            slice::run_here(time, 64, |mut pace| async move {
                let mut told = 0;
                while let Some(begun) = pace.begin() {
                    to.do_send(Tell(Note::of(1)));
                    pace.done(begun);
                    told += 1;
                    if told % WAITING == 0 {
                        to.send(Ask(Note::of(1))).await.expect("the actor answers");
                    }
                }
                to.send(Ask(Note::of(1))).await.expect("the actor answers");
                pace
            })
            .await
        })
    };
    Ok(tokio::task::spawn_blocking(runs).await?)
}
