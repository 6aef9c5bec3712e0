//! steadfast in the rows of memory: its volatile messages, which are handled at most once and lost with the process, in a system
//! whose other mail is durable.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, Context, Durability, Failure, Handler, MailboxOptions, Message, State, System,
};

use crate::Outcome;
use crate::memory::{Note, Peer, WAITING};

/// A system, and a name for each of its actors.
pub struct Volatile {
    system: System,
    next: AtomicU64,
}

/// What is told.
#[derive(Serialize, Deserialize)]
pub struct Tell(Note);

/// What is asked.
#[derive(Serialize, Deserialize)]
pub struct Ask(Note);

impl Message for Tell {
    type Reply = ();
    const NAME: &'static str = "bench.tell";
}

impl Message for Ask {
    type Reply = u64;
    const NAME: &'static str = "bench.ask";
}

/// Adds up what it is told.
#[derive(Default)]
pub struct Adder(u64);

impl Actor for Adder {
    const NAME: &'static str = "bench.adder";
    type Messages = (Tell, Ask);
    fn state() -> State<Self> {
        State::cells()
    }
    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().capacity(WAITING as u64)
    }
}

impl Handler<Tell> for Adder {
    async fn handle(&mut self, Tell(note): Tell, _: &mut Context<Self>) -> Result<(), Failure> {
        self.0 = self.0.wrapping_add(note.value());
        Ok(())
    }
}

impl Handler<Ask> for Adder {
    async fn handle(&mut self, Ask(note): Ask, _: &mut Context<Self>) -> Result<u64, Failure> {
        self.0 = self.0.wrapping_add(note.value());
        Ok(self.0)
    }
}

impl Volatile {
    /// In a directory.
    ///
    /// # Errors
    /// Of the store.
    pub async fn open(directory: &Path) -> Outcome<Self> {
        Ok(Volatile { system: System::open(directory).await?, next: AtomicU64::new(0) })
    }

    /// With a store in memory, which nothing survives.
    ///
    /// # Errors
    /// Of the store.
    pub async fn in_memory() -> Outcome<Self> {
        Ok(Volatile { system: System::builder().open_in_memory().await?, next: AtomicU64::new(0) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// Of the store.
    pub async fn close(&self) -> Outcome<()> {
        Ok(self.system.shutdown(Duration::from_secs(30)).await?)
    }
}

impl Peer for Volatile {
    type Actor = ActorRef<Adder>;

    /// Its name is new, so this is a commit: the mailbox is durable when the actor runs.
    async fn spawn(&self) -> Self::Actor {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.system.spawn(format!("adder-{number}"), Adder::default).await.expect("the actor starts")
    }

    async fn tell(actor: &Self::Actor, note: Note) {
        let told = actor.tell(Tell(note)).durability(Durability::Volatile).await;
        assert!(told.is_ok(), "the mailbox takes it");
    }

    async fn ask(actor: &Self::Actor, note: Note) -> u64 {
        let asked = actor.ask(Ask(note)).durability(Durability::Volatile).await;
        asked.map_err(|why| why.to_string()).expect("the actor answers")
    }

    async fn stop(actor: Self::Actor) {
        actor.stop().await;
    }
}
