//! The hand-off from the committer to those who wait: one ticket for each group, completed once, by the sync that
//! covers it or by the failure that ends the store.
//!
//! # Invariants
//! - Nobody who holds a ticket is released before [`Ticket::complete`].
//! - A waker that was registered before the completion is woken by it; one registered after sees it at once. So no
//!   wake-up is lost (explored with loom, below).

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::Mutex;

/// Whether the sync that covers a group succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    Durable,
    Failed,
}

/// What waits for one group.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    completion: Option<Completion>,
    waiters: Vec<Waker>,
}

impl Ticket {
    pub(crate) fn new() -> Self {
        Ticket { state: Arc::new(Mutex::new(State { completion: None, waiters: Vec::new() })) }
    }

    /// Ready once the group's fate is known.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, slot: &mut Slot) -> Poll<Completion> {
        let mut state = lock(&self.state);
        match state.completion {
            Some(completion) => Poll::Ready(completion),
            None => {
                if cfg!(steadfast_bug = "register-a-waker-late") {
                    drop(state);
                    state = lock(&self.state);
                }
                slot.register(&mut state.waiters, cx.waker());
                Poll::Pending
            }
        }
    }

    pub(crate) fn complete(&self, completion: Completion) {
        let waiters = {
            let mut state = lock(&self.state);
            state.completion = Some(completion);
            std::mem::take(&mut state.waiters)
        };
        for waker in waiters {
            waker.wake();
        }
    }
}

/// Where a waiter's waker lies, so that polling again replaces it instead of adding another.
#[derive(Debug, Default)]
pub(crate) struct Slot(Option<usize>);

impl Slot {
    fn register(&mut self, waiters: &mut Vec<Waker>, waker: &Waker) {
        match self.0.and_then(|at| waiters.get_mut(at)) {
            Some(registered) => registered.clone_from(waker),
            None => {
                self.0 = Some(waiters.len());
                waiters.push(waker.clone());
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> impl std::ops::DerefMut<Target = State> + '_ {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(all(test, steadfast_loom))]
mod loom_tests {
    use super::*;
    use crate::sync::explore::{explore, spawn};
    use loom::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn loom_every_waiter_of_a_group_is_released_by_its_completion_and_not_before() {
        explore("ticket: three who wait for one group", 2, || {
            let ticket = Ticket::new();
            let synced = Arc::new(AtomicBool::new(false));
            let waiters: Vec<_> = (0..3)
                .map(|_| {
                    let (ticket, synced) = (ticket.clone(), synced.clone());
                    spawn(move || {
                        let mut slot = Slot::default();
                        let completion =
                            loom::future::block_on(std::future::poll_fn(|cx| ticket.poll(cx, &mut slot)));
                        assert_eq!(completion, Completion::Durable);
                        assert!(synced.load(Ordering::SeqCst), "released before the sync");
                    })
                })
                .collect();
            synced.store(true, Ordering::SeqCst);
            ticket.complete(Completion::Durable);
            for waiter in waiters {
                waiter.join().unwrap();
            }
        });
    }

    /// Three wait: two for a group whose sync fails, one for the group before, which was synced.
    #[test]
    fn loom_an_error_reaches_its_group_and_not_the_one_before() {
        explore("ticket: three who wait, one group fails", 2, || {
            let (before, failing) = (Ticket::new(), Ticket::new());
            let failed = Arc::new(AtomicBool::new(false));
            let waiters: Vec<_> = [&before, &failing, &failing]
                .into_iter()
                .enumerate()
                .map(|(index, ticket)| {
                    let (ticket, failed) = (ticket.clone(), failed.clone());
                    spawn(move || {
                        let mut slot = Slot::default();
                        let completion =
                            loom::future::block_on(std::future::poll_fn(|cx| ticket.poll(cx, &mut slot)));
                        let expected = if index == 0 { Completion::Durable } else { Completion::Failed };
                        assert_eq!(completion, expected);
                        assert!(index == 0 || failed.load(Ordering::SeqCst), "released before the failure");
                    })
                })
                .collect();
            before.complete(Completion::Durable);
            failed.store(true, Ordering::SeqCst);
            failing.complete(Completion::Failed);
            for waiter in waiters {
                waiter.join().unwrap();
            }
        });
    }
}
