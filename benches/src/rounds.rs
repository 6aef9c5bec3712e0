//! The sides of a row, in turn.
//!
//! # Invariants
//! - Each side runs once a round, in an order that moves on by one: none always comes after the same one.
//! - No side begins while what another left behind is still running in this process.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::slice::Slice;
use crate::stats::{Latencies, median};
use crate::usage;

/// A future of a side.
pub type Running<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// One side of a row: who, and how it runs for a while.
pub struct Side<'a> {
    name: &'static str,
    run: Box<dyn FnMut(Duration) -> Running<'a, Slice> + 'a>,
}

impl<'a> Side<'a> {
    /// A side of this name.
    pub fn new(name: &'static str, mut run: impl AsyncRun<'a> + 'a) -> Self {
        Side { name, run: Box::new(move |time| run.run(time)) }
    }
}

/// What runs a side for some time.
pub trait AsyncRun<'a> {
    /// Runs it.
    fn run(&mut self, time: Duration) -> Running<'a, Slice>;
}

impl<'a, F, Fut> AsyncRun<'a> for F
where
    F: FnMut(Duration) -> Fut,
    Fut: Future<Output = Slice> + 'a,
{
    fn run(&mut self, time: Duration) -> Running<'a, Slice> {
        Box::pin(self(time))
    }
}

/// How often, and how long each time.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Rounds that count.
    pub rounds: usize,
    /// How long a side runs in a round.
    pub slice: Duration,
}

/// See [`interleave_until`].
pub const MOST_ROUNDS: usize = 3;

/// What came of a side, over all rounds.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Who.
    pub name: &'static str,
    /// Round by round.
    pub slices: Vec<Slice>,
}

/// Runs all sides once for a third of the time, which does not count, and then in turn.
pub async fn interleave(plan: Plan, sides: Vec<Side<'_>>) -> Vec<Measured> {
    interleave_until(plan, sides, || true).await
}

/// As [`interleave`], with more rounds than planned, up to [`MOST_ROUNDS`] times as many, until it is enough. That is asked after
/// warming up too, for those who count from there.
pub async fn interleave_until(
    plan: Plan,
    mut sides: Vec<Side<'_>>,
    mut enough: impl FnMut() -> bool,
) -> Vec<Measured> {
    let mut measured: Vec<_> =
        sides.iter().map(|side| Measured { name: side.name, slices: Vec::new() }).collect();
    for side in &mut sides {
        settle().await;
        (side.run)(plan.slice / 3).await;
    }
    let mut ended = enough();
    for round in 0..plan.rounds * MOST_ROUNDS {
        if round >= plan.rounds && ended {
            break;
        }
        for turn in 0..sides.len() {
            let at = (round + turn) % sides.len();
            settle().await;
            let slice = (sides[at].run)(plan.slice).await;
            measured[at].slices.push(slice);
        }
        ended = enough();
    }
    measured
}

/// Waits until this process does next to nothing, at most 3 s: a checkpoint goes on when its senders have ended, and the time it
/// takes is not the next side's.
pub async fn settle() {
    const LOOK: Duration = Duration::from_millis(20);
    let began = Instant::now();
    let mut quiet = 0;
    while quiet < 2 && began.elapsed() < Duration::from_secs(3) {
        let before = usage::cpu_time();
        tokio::time::sleep(LOOK).await;
        quiet = if usage::cpu_time() - before < LOOK / 10 { quiet + 1 } else { 0 };
    }
}

/// What of two sides is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Messages in a second: more is better.
    Rate,
    /// The time of one message where one follows the other: less is better.
    Time,
    /// The median latency.
    P50,
    /// The latency that one of a hundred exceeds, over all rounds together.
    P99,
}

impl Of {
    /// As it is called in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Of::Rate => "msgs_per_s",
            Of::Time => "us_per_msg",
            Of::P50 => "p50_us",
            Of::P99 => "p99_us",
        }
    }
}

impl Measured {
    /// The median round's messages in a second.
    pub fn rate(&self) -> f64 {
        self.median_of(Slice::rate)
    }

    /// The median round's processor time of a message.
    pub fn cpu_us(&self) -> f64 {
        self.median_of(Slice::cpu_us)
    }

    /// The median round's bytes written for a message.
    pub fn written_each(&self) -> f64 {
        self.median_of(Slice::written_each)
    }

    /// The median round's median latency.
    pub fn p50_us(&self) -> f64 {
        self.median_of(|slice| slice.latencies.percentile_us(0.5))
    }

    /// Of all rounds together: what is rare must not be lost with its round.
    pub fn p99_us(&self) -> f64 {
        let mut all = Latencies::default();
        self.slices.iter().for_each(|slice| all.join(&slice.latencies));
        all.percentile_us(0.99)
    }

    /// Messages of all rounds.
    pub fn count(&self) -> u64 {
        self.slices.iter().map(|slice| slice.count).sum()
    }

    /// How this side stands to another: the median of the ratios round by round, so that what slows a machine for a while, both
    /// sides of that round, does not count. For p99 the ratio over all rounds.
    pub fn ratio(&self, other: &Measured, of: Of) -> f64 {
        if of == Of::P99 {
            return self.p99_us() / other.p99_us();
        }
        let value = |slice: &Slice| match of {
            Of::Rate => slice.rate(),
            Of::Time => 1e6 / slice.rate(),
            Of::P50 | Of::P99 => slice.latencies.percentile_us(0.5),
        };
        let ratios = self.slices.iter().zip(&other.slices).map(|(one, two)| value(one) / value(two));
        median(&ratios.collect::<Vec<_>>())
    }

    fn median_of(&self, value: impl Fn(&Slice) -> f64) -> f64 {
        median(&self.slices.iter().map(value).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn slice(count: u64, us: u64) -> Slice {
        let mut latencies = Latencies::default();
        (0..count).for_each(|_| latencies.note(Duration::from_micros(us)));
        Slice { count, took: Duration::from_secs(1), latencies, ..Slice::default() }
    }

    fn measured(slices: &[(u64, u64)]) -> Measured {
        Measured { name: "side", slices: slices.iter().map(|(count, us)| slice(*count, *us)).collect() }
    }

    #[test]
    fn a_ratio_is_that_of_the_same_round() {
        // the machine was four times as slow in the last two rounds
        let ours = measured(&[(100, 10), (100, 10), (25, 40), (25, 40), (100, 10)]);
        let theirs = measured(&[(50, 20), (50, 20), (13, 80), (12, 80), (50, 20)]);
        assert_eq!(ours.ratio(&theirs, Of::Rate), 2.0);
        assert_eq!(ours.ratio(&theirs, Of::Time), 0.5);
        assert_eq!(ours.ratio(&theirs, Of::P50), 0.5);
    }

    #[test]
    fn a_slow_round_is_in_the_p99_and_not_in_the_median() {
        let ours = measured(&[(100, 10), (100, 10), (100, 10), (100, 10), (10, 900)]);
        assert_eq!(ours.p50_us(), 10.0);
        assert_eq!(ours.p99_us(), 900.0);
        assert_eq!(ours.count(), 410);
    }

    #[tokio::test]
    async fn sides_take_turns_and_none_always_comes_first() {
        let order = RefCell::new(String::new());
        let side = |name: &'static str| {
            let order = &order;
            Side::new(name, move |_: Duration| async move {
                order.borrow_mut().push_str(name);
                slice(1, 1)
            })
        };
        let plan = Plan { rounds: 2, slice: Duration::ZERO };
        let measured = interleave(plan, vec![side("a"), side("b"), side("c")]).await;
        assert_eq!(*order.borrow(), "abc abc bca".replace(' ', ""));
        assert!(measured.iter().all(|side| side.slices.len() == 2));
    }

    #[tokio::test]
    async fn there_are_more_rounds_until_it_is_enough_and_not_for_ever() {
        let plan = Plan { rounds: 2, slice: Duration::ZERO };
        let rounds_when = async |enough: &mut dyn FnMut() -> bool| {
            let side = Side::new("a", |_: Duration| async { slice(1, 1) });
            interleave_until(plan, vec![side], enough).await[0].slices.len()
        };
        let mut asked = 0;
        let mut at_fifth = || {
            asked += 1;
            asked > 4
        };
        assert_eq!(rounds_when(&mut at_fifth).await, 4);
        assert_eq!(rounds_when(&mut || false).await, 2 * MOST_ROUNDS);
        assert_eq!(rounds_when(&mut || true).await, 2);
    }
}
