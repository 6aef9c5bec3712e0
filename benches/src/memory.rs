//! What is measured of actors in memory, the same for all who have them.
//!
//! # Invariants
//! - A slice of tells ends when the last of them has been handled.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::slice::{self, Pace, Slice};

/// What is told and asked: 32 bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Note {
    number: u64,
    rest: [u64; 3],
}

impl Note {
    /// One with this number.
    pub fn of(number: u64) -> Self {
        Note { number, rest: [number; 3] }
    }

    /// What an actor adds to its sum.
    pub fn value(&self) -> u64 {
        self.number ^ self.rest[0] ^ self.rest[2]
    }
}

/// How many may wait in a mailbox that has a limit.
pub const WAITING: usize = 1024;

/// Of so many tells the time of one is taken.
const TIMED: u64 = 64;

/// Has actors that add up what they are told. A failure is an end of the bench.
pub trait Peer: Send + Sync + 'static {
    /// A handle.
    type Actor: Clone + Send + Sync + 'static;

    /// Starts one, whose mailbox takes [`WAITING`] messages, or any number where there is no such limit.
    fn spawn(&self) -> impl Future<Output = Self::Actor> + Send;

    /// Tells it, waiting for room where there is a limit.
    fn tell(actor: &Self::Actor, note: Note) -> impl Future<Output = ()> + Send;

    /// Tells it and waits for its sum, after what the same task told it before.
    fn ask(actor: &Self::Actor, note: Note) -> impl Future<Output = u64> + Send;

    /// Ends it.
    fn stop(actor: Self::Actor) -> impl Future<Output = ()> + Send;
}

/// So many senders to one actor, until it has handled all.
pub async fn tell<P: Peer>(peer: &P, senders: usize, time: Duration) -> Slice {
    let actor = peer.spawn().await;
    let sender = |_, mut pace: Pace| {
        let actor = actor.clone();
        async move {
            while let Some(begun) = pace.begin() {
                P::tell(&actor, Note::of(1)).await;
                pace.done(begun);
            }
            // what this one told it comes before
            P::ask(&actor, Note::of(1)).await;
            pace
        }
    };
    let slice = slice::run(senders, time, TIMED, sender, async {}).await;
    P::stop(actor).await;
    slice
}

/// One asks, and asks again when it has the reply.
pub async fn ask<P: Peer>(peer: &P, time: Duration) -> Slice {
    let actor = peer.spawn().await;
    let sender = |_, mut pace: Pace| {
        let actor = actor.clone();
        async move {
            while let Some(begun) = pace.begin() {
                P::ask(&actor, Note::of(1)).await;
                pace.done(begun);
            }
            pace
        }
    };
    let slice = slice::run(1, time, 1, sender, async {}).await;
    P::stop(actor).await;
    slice
}

/// Starts an actor and has its first answer; that it ends too is not timed, but counts in the rate.
pub async fn spawn<P: Peer>(peer: &Arc<P>, time: Duration) -> Slice {
    let sender = |_, mut pace: Pace| {
        let peer = peer.clone();
        async move {
            while let Some(begun) = pace.begin() {
                let actor = peer.spawn().await;
                P::ask(&actor, Note::of(1)).await;
                pace.done(begun);
                P::stop(actor).await;
            }
            pace
        }
    };
    slice::run(1, time, 1, sender, async {}).await
}

/// One tells so many actors, one after the other, until all of them have handled all. The time is that of one pass over them.
pub async fn fan_out<P: Peer>(peer: &P, targets: usize, time: Duration) -> Slice {
    let mut actors = Vec::new();
    for _ in 0..targets {
        actors.push(peer.spawn().await);
    }
    let sender = |_, mut pace: Pace| {
        let actors = actors.clone();
        async move {
            while let Some(begun) = pace.begin() {
                for actor in &actors {
                    P::tell(actor, Note::of(1)).await;
                }
                pace.done(begun);
                pace.also(actors.len() as u64 - 1);
            }
            for actor in &actors {
                P::ask(actor, Note::of(1)).await;
            }
            pace
        }
    };
    let slice = slice::run(1, time, 1, sender, async {}).await;
    for actor in actors {
        P::stop(actor).await;
    }
    slice
}
