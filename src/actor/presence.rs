//! What a region of entities and the workers of its entities tell each other: who rests, since when and how much it holds, and
//! how many should make way for others.
//!
//! # Invariants
//! - A worker asked to make way was idle, or had its turns: it ends between two turns, as on any other request.
//! - No rest is overlooked: who rests says so and then looks whether others wait; the region says that others wait and then
//!   looks who rests. Both in one order, so that one of them sees the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::clock::Timestamp;
use crate::sync::Bell;

/// All entities of a region that are loaded.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    /// How many are to make way.
    wanted: AtomicUsize,
    bytes: AtomicU64,
    most_bytes: u64,
    /// Notified when the loaded entities became heavier than they may.
    pub(crate) too_heavy: Bell,
}

/// One loaded entity.
#[derive(Debug)]
pub(crate) struct Presence {
    /// Milliseconds and one; 0 while it works.
    rests_since: AtomicU64,
    /// Milliseconds: when the letter it rests over is tried again; 0 without one.
    due: AtomicU64,
    bytes: AtomicU64,
    crowd: Arc<Crowd>,
}

impl Crowd {
    pub(crate) fn new(most_bytes: u64) -> Self {
        Crowd { most_bytes, ..Crowd::default() }
    }

    /// How many are to make way from now on.
    pub(crate) fn want(&self, wanted: usize) {
        self.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Bytes of state of all that are loaded.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Whether they hold more than they may.
    pub(crate) fn is_too_heavy(&self) -> bool {
        self.bytes() > self.most_bytes
    }

    fn take(&self) -> bool {
        let one_less = |wanted: usize| wanted.checked_sub(1);
        self.wanted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }
}

impl Presence {
    pub(crate) fn new(crowd: &Arc<Crowd>) -> Self {
        Presence {
            rests_since: AtomicU64::new(0),
            due: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            crowd: crowd.clone(),
        }
    }

    /// The worker has nothing to do before `due`. True: it is to end, for others wait for its place.
    pub(crate) fn rest(&self, now: Timestamp, due: Option<Timestamp>) -> bool {
        self.due.store(due.map_or(0, Timestamp::as_millis), Ordering::Release);
        self.rests_since.store(now.as_millis().saturating_add(1), Ordering::SeqCst);
        self.make_way()
    }

    /// The worker has something to do again.
    pub(crate) fn work(&self) {
        self.rests_since.store(0, Ordering::Release);
        self.due.store(0, Ordering::Release);
    }

    /// Whether the worker, which had its turns, is to end for another.
    pub(crate) fn make_way(&self) -> bool {
        self.crowd.take()
    }

    /// The bytes of state it holds now.
    pub(crate) fn weigh(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::AcqRel);
        if bytes == before {
            return;
        }
        self.crowd.bytes.fetch_add(bytes.wrapping_sub(before), Ordering::AcqRel);
        if bytes > before && self.crowd.is_too_heavy() {
            self.crowd.too_heavy.ring();
        }
    }

    /// Since when it rests; none while it works.
    pub(crate) fn rests_since(&self) -> Option<Timestamp> {
        self.rests_since.load(Ordering::SeqCst).checked_sub(1).map(Timestamp::from_millis)
    }

    /// When the letter it rested over is tried again, if it did.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        Some(self.due.load(Ordering::Acquire)).filter(|due| *due > 0).map(Timestamp::from_millis)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.weigh(0);
    }
}
