//! Looks for handlers that do not yield. A thread, not a task: the handler it looks for may hold the only thread of the runtime.
//!
//! # Invariants
//! - It looks and tells. What is stuck keeps its mailbox, and no second incarnation starts beside it, unless its mailbox was told
//!   to abandon what is stuck.
//! - A worker pays for it with a few writes to memory for each turn, and reads no clock.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::mailbox::{Head, Place};
use super::reply::Asker;
use crate::clock::Stopwatch;
use crate::envelope::MessageId;
use crate::observe::{Event, Observer};
use crate::store::Store;
use crate::sync::Bell;

/// See the module's head.
pub(crate) struct Watchdog {
    /// Milliseconds since it began, from 1, as of its last look.
    now: Arc<AtomicU64>,
    stuck_after: Duration,
    /// Milliseconds between two looks.
    every: AtomicU64,
    pulses: Mutex<Vec<Weak<Pulse>>>,
    ended: AtomicBool,
}

/// The time between two looks.
const EVERY: std::ops::RangeInclusive<u64> = 10..=500;

impl Watchdog {
    /// Watches nothing until [`Watchdog::run`].
    pub(crate) fn new(stuck_after: Duration) -> Self {
        Watchdog {
            now: Arc::new(AtomicU64::new(1)),
            stuck_after,
            every: AtomicU64::new(between_looks(stuck_after)),
            pulses: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    /// Starts its thread, which ends with [`Watchdog::end`], or when nobody is left to be watched.
    pub(crate) fn run(self: &Arc<Self>, store: Store, observer: Arc<dyn Observer>) -> std::io::Result<()> {
        let (began, me) = (Stopwatch::start(), Arc::downgrade(self));
        let watch = move || {
            while let Some(every) = me.upgrade().and_then(|me| me.look(&began, &store, &*observer)) {
                std::thread::sleep(every);
            }
        };
        std::thread::Builder::new().name("steadfast-watch".into()).spawn(watch).map(drop)
    }

    /// The system has ended.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// The pulse of a new worker.
    pub(crate) fn pulse(
        &self,
        actor: Arc<str>,
        seen: &Arc<AtomicUsize>,
        abandon: Option<Duration>,
    ) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse {
            actor,
            now: self.now.clone(),
            since: AtomicU64::new(0),
            left_behind: AtomicU64::new(0),
            message: Mutex::default(),
            held: Mutex::default(),
            is_stuck: AtomicBool::new(false),
            stuck_here: seen.clone(),
            abandon,
            abandoned: Bell::new(),
            gone_on_without: AtomicBool::new(false),
            closures: watch::Sender::new(0),
        });
        if let Some(after) = abandon {
            self.every.fetch_min(between_looks(after), Ordering::AcqRel);
        }
        lock(&self.pulses).push(Arc::downgrade(&pulse));
        pulse
    }

    /// The time until the next look; none when there is to be none.
    fn look(&self, began: &Stopwatch, store: &Store, observer: &dyn Observer) -> Option<Duration> {
        if self.ended.load(Ordering::Acquire) {
            return None;
        }
        let now = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        self.now.store(now, Ordering::Release);
        store.heed_outside_abort();
        let mut pulses = Vec::new();
        lock(&self.pulses).retain(|pulse| match pulse.upgrade() {
            Some(pulse) if pulse.is_to_be_looked_at() => {
                pulses.push(pulse);
                true
            }
            alive => alive.is_some(),
        });
        // without the lock: an observer is somebody else's code
        for pulse in pulses {
            pulse.look(now, self.stuck_after, observer);
        }
        Some(Duration::from_millis(self.every.load(Ordering::Acquire)))
    }
}

const HANDLER: &str = "stuck: its handler does not yield, and its mail waits until it does; have what blocks run with `ctx.blocking`, and long work yield";
const CLOSURE: &str = "stuck: a closure of `ctx.blocking` outlived its turn, and its mail waits until that has ended; give it a way to end";

fn between_looks(limit: Duration) -> u64 {
    (limit.as_millis() as u64 / 10).clamp(*EVERY.start(), *EVERY.end())
}

/// What a worker lets the watchdog see.
pub(crate) struct Pulse {
    actor: Arc<str>,
    now: Arc<AtomicU64>,
    /// When the turn, or the poll of its task, began that runs without having yielded; 0 when none does.
    since: AtomicU64,
    /// When the worker began to wait for closures that outlived their turn; 0 when it does not.
    left_behind: AtomicU64,
    message: Mutex<Option<MessageId>>,
    /// The message that is handled, for a mailbox that abandons what is stuck.
    held: Mutex<Option<Held>>,
    is_stuck: AtomicBool,
    /// How many workers of the mailbox are stuck.
    stuck_here: Arc<AtomicUsize>,
    abandon: Option<Duration>,
    abandoned: Bell,
    /// It was: another worker reads the mailbox.
    gone_on_without: AtomicBool,
    /// Closures on threads of their own that have not ended.
    closures: watch::Sender<usize>,
}

/// A message whose handler may be abandoned.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) place: Option<Place>,
    pub(super) head: Head,
    pub(super) asker: Option<Asker>,
}

impl Pulse {
    #[cfg(test)]
    pub(crate) fn for_test() -> Arc<Self> {
        Watchdog::new(Duration::MAX).pulse("test".into(), &Arc::default(), None)
    }

    /// Runs the worker's task so that it is seen when a poll of it does not end.
    pub(super) async fn felt<F: Future>(self: Arc<Self>, task: F) -> F::Output {
        let mut task = pin!(task);
        std::future::poll_fn(|cx| {
            self.since.store(self.now.load(Ordering::Relaxed), Ordering::Release);
            let polled = task.as_mut().poll(cx);
            self.since.store(0, Ordering::Release);
            polled
        })
        .await
    }

    /// A turn begins: what came before in this poll came to an end. `held` is asked for only where it may be needed.
    pub(super) fn turn(&self, id: MessageId, held: impl FnOnce() -> Held) {
        self.since.store(self.now.load(Ordering::Relaxed), Ordering::Release);
        *lock(&self.message) = Some(id);
        if self.abandon.is_some() {
            *lock(&self.held) = Some(held());
        }
    }

    /// A hook begins: no message is handled.
    pub(super) fn hook(&self) {
        *lock(&self.message) = None;
    }

    /// The turn's handler came to an end: nothing is left to be abandoned.
    pub(super) fn turn_ends(&self) {
        if self.abandon.is_some() {
            *lock(&self.held) = None;
        }
    }

    /// Waits until this worker is to be abandoned, and says with which message.
    pub(super) async fn is_abandoned(&self) -> Option<Held> {
        loop {
            self.abandoned.rung().await;
            // it may have come to an end since
            if self.is_to_be_abandoned(self.now.load(Ordering::Acquire)) {
                break;
            }
        }
        self.gone_on_without.store(true, Ordering::Release);
        lock(&self.held).take()
    }

    /// Whether it was abandoned: it takes nothing more.
    pub(super) fn was_abandoned(&self) -> bool {
        self.gone_on_without.load(Ordering::Acquire)
    }

    /// Runs a closure on a thread of its own; that it runs is known until it has ended, whoever waits for it.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Broken> {
        let running = Closure::begin(&self.closures);
        let run = move || {
            let ended = std::panic::catch_unwind(AssertUnwindSafe(run));
            drop(running);
            ended
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => Err(Broken::Panicked(panic)),
            Err(_) => Err(Broken::Ending),
        }
    }

    /// Whether closures run; none of them of this moment's turn when there is none.
    pub(super) fn has_closures(&self) -> bool {
        *self.closures.borrow() > 0
    }

    /// Waits until the closures have ended that outlived their turn.
    pub(super) async fn closures_ended(&self) {
        let mut closures = self.closures.subscribe();
        if *closures.borrow_and_update() == 0 {
            return;
        }
        self.left_behind.store(self.now.load(Ordering::Relaxed), Ordering::Release);
        // the sender is held by self
        let _ = closures.wait_for(|running| *running == 0).await;
        self.left_behind.store(0, Ordering::Release);
    }

    /// Since when nothing has moved.
    fn still_since(&self) -> Option<u64> {
        let of = |since: &AtomicU64| Some(since.load(Ordering::Acquire)).filter(|since| *since > 0);
        of(&self.since).or_else(|| of(&self.left_behind))
    }

    fn is_to_be_abandoned(&self, now: u64) -> bool {
        let since = self.still_since().map(|since| Duration::from_millis(now.saturating_sub(since)));
        self.abandon.zip(since).is_some_and(|(after, since)| since >= after) && !self.was_abandoned()
    }

    fn is_to_be_looked_at(&self) -> bool {
        self.is_stuck.load(Ordering::Acquire) || self.still_since().is_some()
    }

    fn look(&self, now: u64, stuck_after: Duration, observer: &dyn Observer) {
        let since = self.still_since().map(|since| Duration::from_millis(now.saturating_sub(since)));
        let is_stuck = since.is_some_and(|since| since >= stuck_after) && !self.was_abandoned();
        if self.is_stuck.swap(is_stuck, Ordering::AcqRel) != is_stuck {
            self.tell(is_stuck, since.unwrap_or_default(), observer);
        }
        if self.is_to_be_abandoned(now) {
            self.abandoned.ring();
        }
    }

    fn tell(&self, is_stuck: bool, since: Duration, observer: &dyn Observer) {
        let (actor, message) = (&*self.actor, *lock(&self.message));
        let shown = message.map(tracing::field::display);
        if is_stuck {
            self.stuck_here.fetch_add(1, Ordering::AcqRel);
            let what = if self.since.load(Ordering::Acquire) > 0 { HANDLER } else { CLOSURE };
            tracing::error!(actor, message = shown, ?since, "{what}");
            observer.event(&Event::Stuck { actor, message, since });
        } else {
            self.stuck_here.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(actor, message = shown, abandoned = self.was_abandoned(), "no longer stuck");
            observer.event(&Event::Unstuck { actor, message });
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if *self.is_stuck.get_mut() {
            self.stuck_here.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Why a closure gave no value.
pub(super) enum Broken {
    Panicked(Box<dyn std::any::Any + Send>),
    /// The runtime ends: it never ran.
    Ending,
}

/// A closure that runs.
struct Closure(watch::Sender<usize>);

impl Closure {
    fn begin(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Closure(running.clone())
    }
}

impl Drop for Closure {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
