//! Subscriptions in memory: events as they come, for whoever looks on. What cannot be kept up with is dropped by a rule with a
//! name, and counted.
//!
//! # Invariants
//! - At most `capacity` events are held; a slow reader slows neither the publisher nor anybody else.
//! - Every event since the subscription began is received, or has expired, or is counted as missed with the event received after
//!   it, or with the end.
//! - Nothing is received that is not on disk, synced.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinHandle;

use super::Topic;
use crate::actor::{Message, Runtime, read};
use crate::envelope;
use crate::error::AdminError;
use crate::store::{Letter, LogId, MailboxId, Progress, StoreError, view};
use crate::sync::Bell;

/// What is dropped when a reader does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest of those that wait goes, the new one is kept.
    DropOldest,
    /// The new one is not taken.
    DropNewest,
    /// Only the newest is kept, whatever the capacity.
    Latest,
    /// The subscription ends: what waits is received, then [`EphemeralEnded::Overflow`].
    Disconnect,
}

/// An event as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received<E> {
    /// The event.
    pub event: E,
    /// Its sequence number in the topic.
    pub sequence: u64,
    /// How many events were dropped between the one received before and this one.
    pub missed: u64,
}

/// Why there are no more events.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EphemeralEnded {
    /// The reader did not keep up, and asked for [`Overflow::Disconnect`].
    #[error("the reader was {missed} events behind, with room for {capacity}: subscribe again")]
    Overflow {
        /// The room there was, in events.
        capacity: usize,
        /// Events that were not taken.
        missed: u64,
    },
    /// The store failed or was closed.
    #[error(transparent)]
    Store(StoreError),
}

/// A subscription in memory; from [`Topic::ephemeral`]. It ends when it is dropped.
pub struct Ephemeral<E: Message> {
    shared: Arc<Shared<E>>,
    tail: JoinHandle<()>,
}

struct Shared<E> {
    ring: Mutex<Ring<E>>,
    filled: Bell,
}

struct Ring<E> {
    waiting: VecDeque<Received<E>>,
    overflow: Overflow,
    capacity: usize,
    /// Dropped since the last that waits.
    missed: u64,
    /// In all.
    lost: u64,
    ended: Option<EphemeralEnded>,
}

impl<E> Received<E> {
    pub(crate) fn new(event: E, sequence: u64, missed: u64) -> Self {
        Received { event, sequence, missed }
    }
}

impl<E> Ring<E> {
    /// Takes an event, or drops one. False when the subscription has ended.
    fn push(&mut self, sequence: u64, event: E) -> bool {
        let full = self.waiting.len() >= self.capacity;
        match self.overflow {
            Overflow::Disconnect if full || matches!(self.ended, Some(EphemeralEnded::Overflow { .. })) => {
                self.lose(1);
                let (capacity, missed) = (self.capacity, self.missed);
                self.ended = Some(EphemeralEnded::Overflow { capacity, missed });
                return false;
            }
            Overflow::DropNewest if full => {
                self.lose(if cfg!(steadfast_bug = "drop_newest_uncounted") { 0 } else { 1 });
                return true;
            }
            Overflow::DropOldest | Overflow::Latest if full => self.drop_oldest(),
            _ => {}
        }
        let missed = std::mem::take(&mut self.missed);
        self.waiting.push_back(Received { event, sequence, missed });
        true
    }

    fn drop_oldest(&mut self) {
        let Some(dropped) = self.waiting.pop_front() else { return };
        self.lost += 1;
        let gone = dropped.missed + 1;
        match self.waiting.front_mut() {
            Some(next) => next.missed += gone,
            None => self.missed += gone,
        }
    }

    fn lose(&mut self, events: u64) {
        self.missed += events;
        self.lost += events;
    }
}

impl<E: Message> Topic<E> {
    /// Receives events from now on, in memory. `capacity` are the events that may wait, at least 1; `overflow` says what happens to
    /// those beyond.
    ///
    /// # Errors
    /// The store failed.
    pub async fn ephemeral(&self, capacity: usize, overflow: Overflow) -> Result<Ephemeral<E>, AdminError> {
        let (view, bell) = View::of(&self.runtime, self.log).await?;
        let next = self.runtime.ledger.progress(self.log).await?.next;
        let capacity = if overflow == Overflow::Latest { 1 } else { capacity.max(1) };
        let ring = Ring { waiting: VecDeque::new(), overflow, capacity, missed: 0, lost: 0, ended: None };
        let shared = Arc::new(Shared { ring: Mutex::new(ring), filled: Bell::new() });
        let tail = tokio::spawn(follow(view, bell, next, shared.clone()));
        Ok(Ephemeral { shared, tail })
    }
}

impl<E: Message> Ephemeral<E> {
    /// The next event, once there is one.
    ///
    /// # Errors
    /// See [`EphemeralEnded`]; what waited before was received.
    pub async fn recv(&mut self) -> Result<Received<E>, EphemeralEnded> {
        loop {
            let filled = self.shared.filled.rung();
            {
                let mut ring = self.shared.lock();
                if let Some(received) = ring.waiting.pop_front() {
                    return Ok(received);
                }
                if let Some(ended) = &ring.ended {
                    return Err(ended.clone());
                }
            }
            filled.await;
        }
    }

    /// The next event, if one waits.
    pub fn try_recv(&mut self) -> Option<Received<E>> {
        self.shared.lock().waiting.pop_front()
    }

    /// How many events wait.
    pub fn lag(&self) -> usize {
        self.shared.lock().waiting.len()
    }

    /// How many events were dropped, in all.
    pub fn lost(&self) -> u64 {
        self.shared.lock().lost
    }
}

impl<E> Shared<E> {
    fn lock(&self) -> MutexGuard<'_, Ring<E>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, why: StoreError) {
        self.lock().ended.get_or_insert(EphemeralEnded::Store(why));
        self.filled.ring();
    }
}

impl<E: Message> Drop for Ephemeral<E> {
    fn drop(&mut self) {
        self.tail.abort();
    }
}

impl<E: Message> fmt::Debug for Ephemeral<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ephemeral").field("lag", &self.lag()).field("lost", &self.lost()).finish()
    }
}

/// The view through which the events come. It ends with the task that reads it.
pub(crate) struct View {
    runtime: Arc<Runtime>,
    id: MailboxId,
}

impl View {
    /// A view of a topic, and what rings when that has grown.
    pub(crate) async fn of(runtime: &Arc<Runtime>, topic: LogId) -> Result<(Self, Arc<Bell>), StoreError> {
        let id = runtime.ledger.blocking(|store| store.new_view_id()).await?;
        // the log is loaded before something is to show it
        runtime.ledger.progress(topic).await?;
        let bell = runtime.ledger.store().passing_view(id, topic);
        Ok((View { runtime: runtime.clone(), id }, bell))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.runtime.ledger.store().end_view(self.id);
    }
}

/// Reads the topic on and on, as fast as it grows.
async fn follow<E: Message>(view: View, bell: Arc<Bell>, mut next: u64, shared: Arc<Shared<E>>) {
    const AT_ONCE: usize = 256;
    const BYTES_AT_ONCE: usize = 1 << 20;
    let ledger = &view.runtime.ledger;
    let log = LogId { mailbox: view.id, lane: view::LANE };
    loop {
        let letters = match ledger.letters(log, next, AT_ONCE, BYTES_AT_ONCE).await {
            Ok(letters) => letters,
            Err(why) => return shared.end(why),
        };
        if letters.is_empty() {
            tokio::select! {
                biased;
                () = bell.rung() => continue,
                why = ledger.store().failed() => return shared.end(why),
            }
        }
        if !cfg!(steadfast_bug = "receive_before_durable")
            && let Err(why) = ledger.store().durable_now().await
        {
            return shared.end(why);
        }
        let Some(Progress { first, .. }) = ledger.store().progress(log) else { return };
        for letter in letters {
            // retention may have been quicker; what was superseded is not missed
            let skipped = first.min(letter.position).saturating_sub(next);
            next = letter.position + 1;
            if !give(&view.runtime, &letter, skipped, &shared) {
                return;
            }
        }
    }
}

fn give<E: Message>(runtime: &Runtime, letter: &Letter, skipped: u64, shared: &Shared<E>) -> bool {
    let kind = runtime.stored_kind::<E>();
    let opened = envelope::open(&letter.envelope).map_err(|why| why.to_string());
    let expires = opened.as_ref().ok().and_then(|opened| opened.expires);
    if expires.is_some_and(|expires| runtime.ledger.clock().now() >= expires) {
        // nobody is told that it was there, as nobody is of mail that expired
        shared.lock().lose(skipped);
        return true;
    }
    let event = opened.and_then(|opened| read::<E>(&kind, &opened).map_err(|why| why.to_string()));
    let mut ring = shared.lock();
    ring.lose(skipped);
    let goes_on = match event {
        Ok(event) => ring.push(letter.position, event),
        Err(why) => {
            tracing::error!(sequence = letter.position, %why, "an event cannot be read, and is missed by a subscriber in memory");
            ring.lose(1);
            true
        }
    };
    drop(ring);
    shared.filled.ring();
    goes_on
}
