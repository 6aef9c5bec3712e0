//! The only place that reads the time, draws ids and draws chance. A [`ManualClock`] stands still until it is
//! told to move and gives ids from a seed, so that a test, or a failing seed, replays.
//!
//! # Invariants
//! - Nothing else in the crate calls the operating system's clocks or a random source.
//! - Wall time may jump either way: [`Clock::sleep_until`] looks again, it never trusts one long sleep.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A point in wall time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Timestamp(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This time plus `by`, or the last representable one.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Timestamp(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A future that is boxed because the clock is chosen at run time.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Time, ids and chance. Implemented by [`SystemClock`] and [`ManualClock`].
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The wall time now.
    fn now(&self) -> Timestamp;
    /// A new id, never given before by this or any other clock.
    fn id(&self) -> Uuid;
    /// 64 random bits, for jitter.
    fn random(&self) -> u64;
    /// Ready once [`Clock::now`] is at or after `due`.
    fn sleep_until(&self, due: Timestamp) -> Sleep;
}

/// The operating system's clock, and ids of UUID version 7.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

/// The longest single sleep: a wall clock that was set is noticed after this time at the latest.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        // a clock set before 1970 reads as 1970: due times then simply wait
        Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    fn id(&self) -> Uuid {
        let (high, low) = (chance().to_be_bytes(), chance().to_be_bytes());
        let random = [high[0], high[1], low[0], low[1], low[2], low[3], low[4], low[5], low[6], low[7]];
        uuid::Builder::from_unix_timestamp_millis(self.now().as_millis(), &random).into_uuid()
    }

    fn random(&self) -> u64 {
        chance()
    }

    fn sleep_until(&self, due: Timestamp) -> Sleep {
        Box::pin(async move {
            loop {
                let now = SystemClock.now();
                if now >= due {
                    return;
                }
                tokio::time::sleep(due.since(now).min(LOOK_AGAIN)).await;
            }
        })
    }
}

thread_local! {
    /// What this thread draws from: asking the operating system for every id costs more than sending the message.
    static CHANCE: std::cell::Cell<(u64, u64)> = {
        let (seed, stride) = Uuid::new_v4().as_u64_pair();
        // an odd stride visits every number before it comes back to one
        std::cell::Cell::new((seed, stride | 1))
    };
}

/// 64 bits by SplitMix64, with a seed and a stride of the operating system's for each thread.
fn chance() -> u64 {
    CHANCE.with(|chance| {
        let (at, stride) = chance.get();
        let next = at.wrapping_add(stride);
        chance.set((next, stride));
        mix(next)
    })
}

/// A clock that moves only when told to; ids and chance come from a seed.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<ManualState>,
    moved: std::sync::Arc<tokio::sync::watch::Sender<Timestamp>>,
}

#[derive(Debug)]
struct ManualState {
    seed: u64,
    drawn: u64,
}

impl ManualClock {
    /// Stands at `start`; `seed` decides every id and every random number.
    pub fn new(start: Timestamp, seed: u64) -> Self {
        let moved = std::sync::Arc::new(tokio::sync::watch::Sender::new(start));
        ManualClock { state: Mutex::new(ManualState { seed, drawn: 0 }), moved }
    }

    /// Moves forward and wakes whoever was waiting for a time now reached.
    pub fn advance(&self, by: Duration) {
        self.moved.send_modify(|now| *now = now.after(by));
    }

    /// Jumps to any time, also back.
    pub fn set(&self, now: Timestamp) {
        self.moved.send_replace(now);
    }

    fn draw(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.drawn += 1;
        mix(state.seed.wrapping_add(state.drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.moved.borrow()
    }

    fn id(&self) -> Uuid {
        Uuid::from_u64_pair(self.draw(), self.draw())
    }

    fn random(&self) -> u64 {
        self.draw()
    }

    fn sleep_until(&self, due: Timestamp) -> Sleep {
        let mut moved = self.moved.subscribe();
        Box::pin(async move {
            if moved.wait_for(|now| *now >= due).await.is_err() {
                // the clock is gone, so its time never comes
                std::future::pending::<()>().await;
            }
        })
    }
}

/// A time limit within this process, on tokio's monotonic clock: wall time may jump without moving it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    end: tokio::time::Instant,
    time: Duration,
}

impl Deadline {
    pub(crate) fn after(time: Duration) -> Self {
        const AGES: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        Deadline { end: tokio::time::Instant::now() + time.min(AGES), time }
    }

    /// As far away as there is.
    pub(crate) fn never() -> Self {
        Deadline::after(Duration::MAX)
    }

    /// The one that comes first.
    pub(crate) fn sooner(self, other: Deadline) -> Self {
        if other.end < self.end { other } else { self }
    }

    /// So much later.
    pub(crate) fn and(self, more: Duration) -> Self {
        Deadline { end: self.end + more, time: self.time + more }
    }

    /// The whole time that was allowed.
    pub(crate) fn allowed(self) -> Duration {
        self.time
    }

    pub(crate) fn left(self) -> Duration {
        self.end.saturating_duration_since(tokio::time::Instant::now())
    }

    pub(crate) fn has_passed(self) -> bool {
        self.left().is_zero()
    }

    /// What the future gives, unless the limit passes before.
    pub(crate) async fn limit<T>(self, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.end, future).await.ok()
    }
}

/// Measures how long something took, to be told to an observer: a duration that decides nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Stopwatch(std::time::Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_a_sleeper_only_when_its_time_has_come() {
        let clock = ManualClock::new(Timestamp::from_millis(1_000), 7);
        let mut sleep = clock.sleep_until(Timestamp::from_millis(1_500));
        clock.advance(Duration::from_millis(499));
        assert!(futures_util::poll!(&mut sleep).is_pending());
        clock.advance(Duration::from_millis(1));
        sleep.await;
    }

    #[test]
    fn a_seed_gives_the_same_ids_again_and_no_id_twice() {
        let draw = |seed| {
            let clock = ManualClock::new(Timestamp::default(), seed);
            (0..100).map(|_| clock.id()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        let mut all = draw(1);
        all.extend(draw(2));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200);
    }

    #[test]
    fn no_id_is_given_twice_by_many_threads_at_once_and_each_is_of_version_7() {
        let draw = || (0..20_000).map(|_| SystemClock.id()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let mut all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(all.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        let first = all[0].get_timestamp().map(|at| at.to_unix().0).unwrap();
        assert!(SystemClock.now().as_millis() / 1000 - first < 3600, "{first} s");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 80_000);
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        assert_eq!(Timestamp::from_millis(u64::MAX).after(Duration::MAX).as_millis(), u64::MAX);
        assert_eq!(Timestamp::from_millis(5).since(Timestamp::from_millis(9)), Duration::ZERO);
    }
}
