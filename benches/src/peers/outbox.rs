//! What is written today by one who wants an actor whose mail survives: an actor library, and beside it a table of what was sent
//! and not yet handled, here in sled. A send puts the message there and then tells the actor; the actor handles it and hands the
//! removal, with the new state, to the next group. After a crash the table would be read and told again.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kameo::actor::{ActorRef, Spawn as _};
use kameo::mailbox;
use kameo::message::{Context, Message};

use super::group::Ticket;
use super::sled::{Op, SledQueue};

/// Actors, and their outbox.
pub struct Outbox {
    queue: Arc<SledQueue>,
    actors: Vec<ActorRef<Counter>>,
    next: AtomicU64,
}

/// Counts what it handles, and has that stored.
pub struct Counter {
    queue: Arc<SledQueue>,
    actor: u64,
    count: u64,
}

impl kameo::Actor for Counter {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(args: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(args)
    }
}

/// One message, as it is in memory.
pub struct Handle {
    number: u64,
    body: Box<[u8]>,
}

/// Ready once the message is taken off durably.
#[derive(kameo::Reply)]
pub struct Acked(Ticket);

impl Message<Handle> for Counter {
    type Reply = Acked;

    async fn handle(&mut self, message: Handle, _: &mut Context<Self, Acked>) -> Acked {
        std::hint::black_box(&message.body);
        self.count += 1;
        Acked(self.queue.add(Op::Ack { actor: self.actor, number: message.number, count: self.count }))
    }
}

impl Outbox {
    /// Starts so many actors, with an empty outbox.
    ///
    /// # Errors
    /// Of the disk.
    pub fn start(directory: &Path, actors: usize) -> io::Result<Self> {
        let queue = Arc::new(SledQueue::start(directory)?);
        let spawn = |actor| {
            let counter = Counter { queue: queue.clone(), actor: actor as u64, count: 0 };
            Counter::spawn_with_mailbox(counter, mailbox::unbounded())
        };
        let actors = (0..actors).map(spawn).collect();
        Ok(Outbox { queue, actors, next: AtomicU64::new(0) })
    }

    /// Sends, and waits until the message is handled and that is durable.
    pub async fn cycle(&self, actor: usize, body: &[u8]) -> bool {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let stored = self.queue.add(Op::Put { actor: actor as u64, number, body: body.into() });
        if !stored.await {
            return false;
        }
        match self.actors[actor].ask(Handle { number, body: body.into() }).await {
            Ok(Acked(acked)) => acked.await,
            Err(_) => false,
        }
    }
}
