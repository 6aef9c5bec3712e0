//! Senders that run for a while, and what came of it.
//!
//! # Invariants
//! - A slice ends when the last thing that was begun in it has ended: nothing is left to the next.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::stats::Latencies;
use crate::usage;

/// What came of one run of one side.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// Messages.
    pub count: u64,
    /// From the first to the end of the last.
    pub took: Duration,
    /// Processor time of the whole process meanwhile.
    pub cpu: Duration,
    /// Bytes the process wrote meanwhile.
    pub written: u64,
    /// How long single messages took.
    pub latencies: Latencies,
}

impl Slice {
    /// Messages in a second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Processor time of one message, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / (self.count as f64).max(1.0)
    }

    /// Bytes written for one message.
    pub fn written_each(&self) -> f64 {
        self.written as f64 / (self.count as f64).max(1.0)
    }
}

/// Measures what happens from now on.
pub struct Meter {
    began: Instant,
    cpu: Duration,
    written: u64,
}

impl Meter {
    /// From now on.
    pub fn start() -> Self {
        Meter { cpu: usage::cpu_time(), written: usage::written_bytes(), began: Instant::now() }
    }

    /// Until now.
    pub fn stop(self, count: u64, latencies: Latencies) -> Slice {
        Slice {
            count,
            took: self.began.elapsed(),
            cpu: usage::cpu_time() - self.cpu,
            written: usage::written_bytes().saturating_sub(self.written),
            latencies,
        }
    }
}

/// Says one sender when to begin the next message and when to end, and notes how long each took.
pub struct Pace {
    ends: Arc<AtomicBool>,
    /// Of so many messages the time of one is taken.
    every: u64,
    count: u64,
    latencies: Latencies,
}

impl Pace {
    fn new(ends: &Arc<AtomicBool>, every: u64) -> Self {
        Pace { ends: ends.clone(), every, count: 0, latencies: Latencies::default() }
    }

    /// The next message begins, unless it is time to end.
    pub fn begin(&mut self) -> Option<Begun> {
        if self.ends.load(Ordering::Relaxed) {
            return None;
        }
        let timed = self.count.is_multiple_of(self.every);
        self.count += 1;
        Some(Begun(timed.then(Instant::now)))
    }

    /// It has ended.
    pub fn done(&mut self, begun: Begun) {
        if let Some(began) = begun.0 {
            self.latencies.note(began.elapsed());
        }
    }

    /// So many more messages were part of the one that began last.
    pub fn also(&mut self, more: u64) {
        self.count += more;
    }
}

/// A message that began.
pub struct Begun(Option<Instant>);

/// Runs so many senders for some time, and then what has to come after them. Of `every` messages the time of one is taken: where
/// a message takes less than a microsecond a look at the clock for each would be measured too.
///
/// # Panics
/// When a sender does: what it could not send is an end of the bench.
pub async fn run<F, After>(
    senders: usize,
    time: Duration,
    every: u64,
    sender: impl Fn(usize, Pace) -> F,
    after: After,
) -> Slice
where
    F: Future<Output = Pace> + Send + 'static,
    After: Future<Output = ()>,
{
    let ends = Arc::new(AtomicBool::new(false));
    let meter = Meter::start();
    let tasks: Vec<_> =
        (0..senders).map(|index| tokio::spawn(sender(index, Pace::new(&ends, every)))).collect();
    drop(sender);
    tokio::time::sleep(time).await;
    ends.store(true, Ordering::Relaxed);
    let (mut count, mut latencies) = (0, Latencies::default());
    for task in tasks {
        let pace = task.await.expect("a sender comes to its end");
        count += pace.count;
        latencies.join(&pace.latencies);
    }
    after.await;
    meter.stop(count, latencies)
}

/// As [`run`], of one sender that is not spawned: it stays on this thread.
pub async fn run_here<F>(time: Duration, every: u64, sender: impl FnOnce(Pace) -> F) -> Slice
where
    F: Future<Output = Pace>,
{
    let ends = Arc::new(AtomicBool::new(false));
    let bell = ends.clone();
    let timer = std::thread::spawn(move || {
        std::thread::sleep(time);
        bell.store(true, Ordering::Relaxed);
    });
    let meter = Meter::start();
    let pace = sender(Pace::new(&ends, every)).await;
    let slice = meter.stop(pace.count, pace.latencies);
    timer.join().expect("a timer comes to its end");
    slice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_message_is_counted_and_some_are_timed() {
        let sender = |_, mut pace: Pace| async move {
            while let Some(begun) = pace.begin() {
                tokio::task::yield_now().await;
                pace.done(begun);
                if pace.count == 40 {
                    break;
                }
            }
            pace
        };
        let slice = run(3, Duration::from_millis(300), 8, sender, async {}).await;
        assert_eq!(slice.count, 120);
        assert_eq!(slice.latencies.len(), 15);
        assert!(slice.rate() > 0.0 && slice.rate() <= 400.0, "{}", slice.rate());
    }

    #[tokio::test]
    async fn what_comes_after_the_senders_belongs_to_the_slice() {
        let after = tokio::time::sleep(Duration::from_millis(50));
        let slice = run(1, Duration::ZERO, 1, |_, pace| async { pace }, after).await;
        assert!(slice.took >= Duration::from_millis(50));
    }
}
