//! Group commit: whatever is added while one group is being synced is the next group. One thread commits; the others add to the
//! group that fills, in place, and wait for its ticket.
//!
//! # Invariants
//! - A ticket is ready only when the commit that carries its group has returned.
//! - After a commit that failed all that wait are told so, and nothing is taken any more.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};

/// What commits groups.
pub trait Log: Send + 'static {
    /// A group while it fills.
    type Batch: Default + Send;

    /// Makes a group durable and leaves it empty.
    ///
    /// # Errors
    /// It may or may not be durable.
    fn commit(&mut self, batch: &mut Self::Batch) -> io::Result<()>;
}

/// A log and the thread that commits to it.
pub struct Group<L: Log> {
    shared: Arc<Shared<L::Batch>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<B> {
    filling: Mutex<Filling<B>>,
    work: Condvar,
    commits: AtomicU64,
}

struct Filling<B> {
    batch: B,
    ticket: Ticket,
    added: bool,
    /// Whether the thread sleeps, and has to be woken.
    sleeps: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Failed,
}

impl<L: Log> Group<L> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system has no thread left.
    pub fn start(log: L) -> io::Result<Self> {
        let filling = Filling {
            batch: L::Batch::default(),
            ticket: Ticket::default(),
            added: false,
            sleeps: false,
            state: State::Open,
        };
        let shared = Arc::new(Shared {
            filling: Mutex::new(filling),
            work: Condvar::new(),
            commits: AtomicU64::new(0),
        });
        let of_thread = shared.clone();
        let thread = thread::Builder::new().name("peer-commit".into()).spawn(move || of_thread.run(log))?;
        Ok(Group { shared, thread: Some(thread) })
    }

    /// How many groups were committed.
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Adds to the group that fills; the ticket is ready once that is durable.
    pub fn add(&self, add: impl FnOnce(&mut L::Batch)) -> Ticket {
        let mut filling = self.shared.lock();
        if filling.state != State::Open {
            let ticket = Ticket::default();
            ticket.complete(false);
            return ticket;
        }
        add(&mut filling.batch);
        filling.added = true;
        let ticket = filling.ticket.clone();
        let wakes = std::mem::take(&mut filling.sleeps);
        drop(filling);
        if wakes {
            self.shared.work.notify_one();
        }
        ticket
    }
}

impl<L: Log> Drop for Group<L> {
    fn drop(&mut self) {
        {
            let mut filling = self.shared.lock();
            if filling.state == State::Open {
                filling.state = State::Closed;
            }
        }
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // one that panicked has said so
            let _ = thread.join();
        }
    }
}

impl<B: Default> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, Filling<B>> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<L: Log<Batch = B>>(&self, mut log: L) {
        let mut batch = B::default();
        while let Some(ticket) = self.take(&mut batch) {
            let committed = log.commit(&mut batch);
            if let Err(error) = &committed {
                eprintln!("a group was not committed: {error}");
                self.lock().state = State::Failed;
            }
            self.commits.fetch_add(1, Ordering::Relaxed);
            ticket.complete(committed.is_ok());
        }
    }

    /// The next group, in exchange for an empty one; none when there will be no more.
    fn take(&self, empty: &mut B) -> Option<Ticket> {
        let mut filling = self.lock();
        loop {
            if filling.state == State::Failed {
                filling.ticket.complete(false);
                return None;
            }
            if filling.added {
                filling.added = false;
                std::mem::swap(&mut filling.batch, empty);
                return Some(std::mem::take(&mut filling.ticket));
            }
            if filling.state == State::Closed {
                return None;
            }
            filling.sleeps = true;
            filling = self.work.wait(filling).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What waits for one group. Its output is whether the group is durable.
#[derive(Clone, Default)]
pub struct Ticket(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    durable: Option<bool>,
    wakers: Vec<Waker>,
}

impl Ticket {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complete(&self, durable: bool) {
        let wakers = {
            let mut waiting = self.lock();
            waiting.durable = Some(durable);
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Future for Ticket {
    type Output = bool;

    /// Polled by the task that will be woken: a task that polls twice is woken twice, which does no harm.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let mut waiting = self.lock();
        match waiting.durable {
            Some(durable) => Poll::Ready(durable),
            None => {
                waiting.wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Commits when it is told to, and with what outcome.
    struct Held {
        begun: mpsc::Sender<Vec<u32>>,
        outcomes: mpsc::Receiver<io::Result<()>>,
    }

    impl Log for Held {
        type Batch = Vec<u32>;
        fn commit(&mut self, batch: &mut Vec<u32>) -> io::Result<()> {
            let _ = self.begun.send(std::mem::take(batch));
            self.outcomes.recv().unwrap_or(Ok(()))
        }
    }

    type Parts = (Group<Held>, mpsc::Receiver<Vec<u32>>, mpsc::Sender<io::Result<()>>);

    fn held() -> io::Result<Parts> {
        let ((begun, groups), (outcome, outcomes)) = (mpsc::channel(), mpsc::channel());
        Ok((Group::start(Held { begun, outcomes })?, groups, outcome))
    }

    async fn is_ready(ticket: &Ticket) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut ticket.clone()).poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn what_comes_during_a_sync_is_one_group_and_waits_for_its_own() -> crate::Outcome<()> {
        let (group, groups, outcome) = held()?;
        let first = group.add(|batch| batch.push(1));
        assert_eq!(groups.recv()?, [1]);
        let (second, third) = (group.add(|batch| batch.push(2)), group.add(|batch| batch.push(3)));
        assert!(!is_ready(&first).await, "before its commit returned");
        outcome.send(Ok(()))?;
        assert!(first.await);
        assert_eq!(groups.recv()?, [2, 3]);
        assert!(!is_ready(&second).await && !is_ready(&third).await, "with the commit of another group");
        outcome.send(Ok(()))?;
        assert!(second.await && third.await);
        Ok(())
    }

    #[tokio::test]
    async fn a_failure_reaches_its_group_and_all_that_come_after() -> crate::Outcome<()> {
        let (group, groups, outcome) = held()?;
        let first = group.add(|batch| batch.push(1));
        assert_eq!(groups.recv()?, [1]);
        let second = group.add(|batch| batch.push(2));
        outcome.send(Err(io::ErrorKind::Other.into()))?;
        assert!(!first.await);
        assert!(!second.await);
        assert!(!group.add(|batch| batch.push(3)).await);
        assert!(groups.try_recv().is_err(), "nothing is committed behind what may be lost");
        Ok(())
    }
}
