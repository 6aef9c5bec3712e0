//! A bell: whoever has nothing to do waits for it, whoever makes work rings it. A ring that nobody waits for is kept, once, for
//! the next who comes.
//!
//! # Invariants
//! - A ring is heard by one who waits, or by the next who comes. It is not lost with one who was woken and left without having
//!   heard: it is passed on.
//! - What was written before a ring is seen by whoever hears it.
//! - Only under the lock does the state become, or stop being, [`AWAITED`]: a ring that finds nobody takes no lock.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::atomic::{AtomicU8, AtomicU64};
use super::{Mutex, MutexGuard};

/// Nobody waits, and no ring is kept.
const SILENT: u8 = 0;
/// Somebody waits.
const AWAITED: u8 = 1;
/// A ring is kept.
const RUNG: u8 = 2;
/// It rings for good.
const OPEN: u8 = 3;

/// See the module's head.
pub(crate) struct Bell {
    state: AtomicU8,
    /// How often all who waited were woken.
    rounds: AtomicU64,
    waiting: Mutex<Waiting>,
}

/// Those who wait, in the order in which they came.
#[derive(Default)]
struct Waiting {
    line: VecDeque<(u64, Waker)>,
    next: u64,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Bell { state: AtomicU8::new(SILENT), rounds: AtomicU64::new(0), waiting: Mutex::default() }
    }

    /// Wakes the one who has waited longest, or else keeps the ring for the next who comes.
    pub(crate) fn ring(&self) {
        while !self.keep() {
            let mut waiting = self.waiting();
            if let Some((_, waker)) = waiting.line.pop_front() {
                self.note_who_left(&waiting);
                drop(waiting);
                return waker.wake();
            }
            // they have left meanwhile
        }
    }

    /// Wakes all who wait, and those who have begun to: who called [`Bell::rung`] before this hears it. No ring is kept.
    pub(crate) fn ring_all(&self) {
        self.wake(|bell, waiting| {
            bell.rounds.fetch_add(1, Ordering::Release);
            bell.note_who_left(waiting);
        });
    }

    /// From now on whoever waits for it hears it at once.
    pub(crate) fn ring_for_good(&self) {
        self.wake(|bell, _| bell.state.store(OPEN, Ordering::Release));
    }

    /// Resolves when it rings. Dropped before, it leaves nothing behind.
    pub(crate) fn rung(&self) -> Rung<'_> {
        Rung { bell: self, rounds: self.rounds.load(Ordering::Acquire), place: Place::New }
    }

    fn wake(&self, note: impl FnOnce(&Self, &Waiting)) {
        let woken = {
            let mut waiting = self.waiting();
            let woken = std::mem::take(&mut waiting.line);
            note(self, &waiting);
            woken
        };
        for (_, waker) in woken {
            waker.wake();
        }
    }

    /// Keeps a ring, unless somebody waits.
    fn keep(&self) -> bool {
        let mut now = self.state.load(Ordering::Relaxed);
        loop {
            match now {
                AWAITED => return false,
                OPEN => return true,
                // also when one is kept already: whoever hears that one sees what was written before this one
                _ => match self.state.compare_exchange(now, RUNG, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return true,
                    Err(found) => now = found,
                },
            }
        }
    }

    /// Takes the ring that is kept.
    fn take(&self) -> bool {
        let taken = self.state.compare_exchange(RUNG, SILENT, Ordering::AcqRel, Ordering::Acquire);
        matches!(taken, Ok(_) | Err(OPEN))
    }

    /// Takes the ring that is kept, or notes that somebody waits. With the lock.
    fn take_or_await(&self) -> bool {
        loop {
            if self.take() {
                return true;
            }
            let noted = self.state.compare_exchange(SILENT, AWAITED, Ordering::AcqRel, Ordering::Acquire);
            if matches!(noted, Ok(_) | Err(AWAITED)) {
                return false;
            }
            // it was rung in between
        }
    }

    /// With the lock.
    fn note_who_left(&self, waiting: &Waiting) {
        if waiting.line.is_empty() {
            // nothing when nobody was noted
            let _ = self.state.compare_exchange(AWAITED, SILENT, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Bell {
    fn default() -> Self {
        Bell::new()
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

impl Waiting {
    fn add(&mut self, waker: &Waker) -> u64 {
        self.next += 1;
        self.line.push_back((self.next, waker.clone()));
        self.next
    }

    /// Where one of them stands; none when it was woken.
    fn find(&self, number: u64) -> Option<usize> {
        self.line.binary_search_by_key(&number, |(number, _)| *number).ok()
    }
}

/// Waits for a [`Bell`].
#[derive(Debug)]
#[must_use = "nobody waits before it is polled"]
pub(crate) struct Rung<'a> {
    bell: &'a Bell,
    rounds: u64,
    place: Place,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    New,
    Waiting(u64),
    Heard,
}

impl Rung<'_> {
    fn come(&mut self, waker: &Waker) -> Place {
        if self.bell.take() {
            return Place::Heard;
        }
        let mut waiting = self.bell.waiting();
        if self.all_were_woken() && !cfg!(steadfast_bug = "forget-who-has-begun") {
            return Place::Heard;
        }
        if cfg!(steadfast_bug = "wait-without-a-second-look") {
            self.bell.state.store(AWAITED, Ordering::Release);
        } else if self.bell.take_or_await() {
            return Place::Heard;
        }
        Place::Waiting(waiting.add(waker))
    }

    fn look_again(&self, number: u64, waker: &Waker) -> Place {
        let mut waiting = self.bell.waiting();
        match waiting.find(number) {
            Some(at) => {
                waiting.line[at].1.clone_from(waker);
                Place::Waiting(number)
            }
            None => Place::Heard,
        }
    }

    fn all_were_woken(&self) -> bool {
        self.bell.rounds.load(Ordering::Acquire) != self.rounds
    }
}

impl Future for Rung<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.place = match self.place {
            Place::New => self.come(cx.waker()),
            Place::Waiting(number) => self.look_again(number, cx.waker()),
            Place::Heard => Place::Heard,
        };
        if matches!(self.place, Place::Heard) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Rung<'_> {
    fn drop(&mut self) {
        let Place::Waiting(number) = self.place else { return };
        let mut waiting = self.bell.waiting();
        match waiting.find(number) {
            Some(_) if cfg!(steadfast_bug = "wake-who-has-left") => {}
            Some(at) => {
                waiting.line.remove(at);
                self.bell.note_who_left(&waiting);
            }
            // woken, and gone before it heard: another one is to. When all were woken, all are awake.
            None => {
                drop(waiting);
                if !self.all_were_woken() && !cfg!(steadfast_bug = "take-a-ring-along") {
                    self.bell.ring();
                }
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    fn poll(rung: &mut Rung<'_>) -> bool {
        Pin::new(rung).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_ring_that_nobody_waits_for_is_kept_once() {
        let bell = Bell::new();
        bell.ring();
        bell.ring();
        assert!(poll(&mut bell.rung()));
        assert!(!poll(&mut bell.rung()));
    }

    #[test]
    fn a_ring_wakes_the_one_who_has_waited_longest() {
        let bell = Bell::new();
        let (mut first, mut second) = (bell.rung(), bell.rung());
        assert!(!poll(&mut first) && !poll(&mut second));
        bell.ring();
        assert!(poll(&mut first) && !poll(&mut second));
        bell.ring();
        assert!(poll(&mut second));
        assert!(!poll(&mut bell.rung()), "a ring was heard twice");
    }

    #[test]
    fn whoever_leaves_passes_the_ring_on() {
        let bell = Bell::new();
        let (mut first, mut second) = (bell.rung(), bell.rung());
        assert!(!poll(&mut first) && !poll(&mut second));
        bell.ring();
        drop(first);
        assert!(poll(&mut second));
    }

    #[test]
    fn whoever_leaves_before_the_ring_takes_nothing_along() {
        let bell = Bell::new();
        let mut left = bell.rung();
        assert!(!poll(&mut left));
        drop(left);
        bell.ring();
        assert!(poll(&mut bell.rung()));
    }

    #[test]
    fn a_ring_for_all_wakes_those_who_have_begun_and_is_not_kept() {
        let bell = Bell::new();
        let (mut waits, mut has_begun) = (bell.rung(), bell.rung());
        assert!(!poll(&mut waits));
        bell.ring_all();
        assert!(poll(&mut waits) && poll(&mut has_begun));
        assert!(!poll(&mut bell.rung()));
    }

    #[test]
    fn a_bell_that_rings_for_good_is_heard_by_whoever_comes() {
        let bell = Bell::new();
        let mut waits = bell.rung();
        assert!(!poll(&mut waits));
        bell.ring_for_good();
        assert!(poll(&mut waits) && poll(&mut bell.rung()) && poll(&mut bell.rung()));
        bell.ring();
        assert!(poll(&mut bell.rung()) && poll(&mut bell.rung()));
    }
}

#[cfg(all(test, steadfast_loom))]
mod loom_tests {
    use loom::future::block_on;
    use loom::sync::atomic::AtomicUsize;
    use std::sync::Arc;

    use super::*;
    use crate::sync::explore::{explore, spawn};

    /// Two ring, each after it left a piece of work; one takes what is there, and waits when there is nothing.
    #[test]
    fn loom_whoever_waits_hears_of_everything_that_was_left_before_a_ring() {
        explore("bell: two ring, one waits", 2, || {
            let (bell, work) = (Arc::new(Bell::new()), Arc::new(AtomicUsize::new(0)));
            for _ in 0..2 {
                let (bell, work) = (bell.clone(), work.clone());
                spawn(move || {
                    work.fetch_add(1, Ordering::Relaxed);
                    bell.ring();
                });
            }
            let mut taken = 0;
            while taken < 2 {
                taken += match work.swap(0, Ordering::Relaxed) {
                    0 => {
                        block_on(bell.rung());
                        0
                    }
                    some => some,
                };
            }
        });
    }

    /// Two wait and two ring. One of those who wait gives up after a look; whoever stays must not sleep for ever for it.
    #[test]
    fn loom_a_ring_is_not_lost_with_one_who_gave_up() {
        explore("bell: one who waits gives up", 2, || {
            let bell = Arc::new(Bell::new());
            let gives_up = {
                let bell = bell.clone();
                spawn(move || {
                    let mut rung = bell.rung();
                    let heard =
                        block_on(std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut rung).poll(cx))));
                    drop(rung);
                    if heard.is_ready() {
                        // it has what the ring was for: there may be more
                        bell.ring();
                    }
                })
            };
            let rings = {
                let bell = bell.clone();
                spawn(move || bell.ring())
            };
            block_on(bell.rung());
            gives_up.join().unwrap();
            rings.join().unwrap();
        });
    }

    /// One waits already and leaves while it is rung: whoever waits behind it is woken in its place.
    #[test]
    fn loom_a_ring_is_passed_on_by_one_who_was_woken_and_left() {
        explore("bell: one who was woken leaves", 3, || {
            let bell = Arc::new(Bell::new());
            let rings = {
                let bell = bell.clone();
                spawn(move || bell.ring())
            };
            let mut leaves = bell.rung();
            let heard = block_on(std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut leaves).poll(cx))));
            if heard.is_pending() {
                drop(leaves);
                block_on(bell.rung());
            }
            rings.join().unwrap();
        });
    }

    /// All who began to wait before hear of it, and whoever comes when it rings for good.
    #[test]
    fn loom_all_hear_what_is_rung_for_all() {
        explore("bell: rung for all, and for good", 2, || {
            let (bell, over) = (Arc::new(Bell::new()), Arc::new(AtomicUsize::new(0)));
            let waiters: Vec<_> = (0..2)
                .map(|index| {
                    let (bell, over) = (bell.clone(), over.clone());
                    spawn(move || {
                        loop {
                            let rung = bell.rung();
                            if over.load(Ordering::Acquire) > index {
                                return;
                            }
                            block_on(rung);
                        }
                    })
                })
                .collect();
            over.store(1, Ordering::Release);
            bell.ring_all();
            over.store(2, Ordering::Release);
            bell.ring_for_good();
            for waiter in waiters {
                waiter.join().unwrap();
            }
        });
    }
}
