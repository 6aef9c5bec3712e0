//! One answer, from the one who gives it to the one who waits.
//!
//! # Invariants
//! - Whoever waits hears once: the answer, or that whoever was to give it is gone.
//! - An answer that nobody waits for any more comes back to its giver.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{Mutex, MutexGuard};

/// Both ends of it.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { answer: None, waker: None, given_up: false, gone: false };
    let shared = Arc::new(Mutex::new(state));
    (Sender(shared.clone()), Receiver(shared))
}

/// Gives the answer. Dropped without one, it says that there will be none.
pub(crate) struct Sender<T>(Arc<Mutex<State<T>>>);

/// Resolves to the answer.
pub(crate) struct Receiver<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    answer: Option<T>,
    waker: Option<Waker>,
    /// Nobody will answer any more.
    given_up: bool,
    /// Nobody waits any more.
    gone: bool,
}

/// Whoever was to answer is gone, and did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unanswered;

impl<T> Sender<T> {
    /// # Errors
    /// Nobody waits: the answer comes back.
    pub(crate) fn send(self, answer: T) -> Result<(), T> {
        let mut state = lock(&self.0);
        if state.gone {
            return Err(answer);
        }
        state.answer = Some(answer);
        // whoever waits is woken by the drop
        Ok(())
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.0).gone
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.0);
            state.given_up = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The answer, or that there will be none; none as long as that is not known.
    fn look(state: &mut State<T>) -> Option<Result<T, Unanswered>> {
        match state.answer.take() {
            Some(answer) => Some(Ok(answer)),
            None => state.given_up.then_some(Err(Unanswered)),
        }
    }

    /// As the future, without waiting.
    #[cfg(test)]
    pub(crate) fn try_recv(&mut self) -> Option<Result<T, Unanswered>> {
        Self::look(&mut lock(&self.0))
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Unanswered>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0);
        if let Some(heard) = Self::look(&mut state) {
            return Poll::Ready(heard);
        }
        if cfg!(steadfast_bug = "wait-for-an-answer-unlocked") {
            drop(state);
            state = lock(&self.0);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let unheard = {
            let mut state = lock(&self.0);
            state.gone = true;
            state.answer.take()
        };
        // not under the lock: it may hold whatever it likes
        drop(unheard);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_heard_once() {
        let (sender, mut receiver) = channel();
        assert_eq!(receiver.try_recv(), None);
        sender.send(7).unwrap();
        assert_eq!(receiver.try_recv(), Some(Ok(7)));
        assert_eq!(receiver.try_recv(), Some(Err(Unanswered)));
    }

    #[test]
    fn an_answer_that_nobody_waits_for_comes_back() {
        let (sender, receiver) = channel();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(7), Err(7));
    }
}

#[cfg(all(test, steadfast_loom))]
mod loom_tests {
    use loom::future::block_on;

    use super::*;
    use crate::sync::explore::{explore, spawn};

    #[test]
    fn loom_whoever_waits_hears_the_answer_or_that_there_is_none() {
        explore("one-shot: an answer, and none", 3, || {
            let (answers, hears) = channel();
            let (leaves, hears_nothing) = channel::<u8>();
            let giver = spawn(move || {
                answers.send(7).unwrap();
                drop(leaves);
            });
            assert_eq!(block_on(hears), Ok(7));
            assert_eq!(block_on(hears_nothing), Err(Unanswered));
            giver.join().unwrap();
        });
    }

    /// An answer that was heard does not come back, and nobody hears that there is none when there is one.
    #[test]
    fn loom_an_answer_that_was_heard_does_not_come_back() {
        explore("one-shot: whoever waits gives up", 3, || {
            let (answers, mut waits) = channel();
            let giver = spawn(move || answers.send(7).is_ok());
            let heard = block_on(std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut waits).poll(cx))));
            drop(waits);
            let given = giver.join().unwrap();
            let looked_too_early = heard.is_pending();
            assert!(looked_too_early || heard == Poll::Ready(Ok(7)), "{heard:?}");
            assert!(looked_too_early || given, "an answer that was heard came back");
        });
    }
}
