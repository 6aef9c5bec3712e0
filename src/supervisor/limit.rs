//! How many failures a supervisor bears, and how long a child waits before it is started again: both as data, answered by
//! pure functions of stored facts, so that the answer is the same before and after a restart of the process.

use std::time::Duration;

/// The most failures within a window of time: one more, and the supervisor gives up. See [the module](crate::supervisor) for
/// what counts.
///
/// ```
/// # use std::time::Duration;
/// # use steadfast::supervisor::RestartLimit;
/// let limit = RestartLimit::new(3, Duration::from_secs(10)); // the fourth within 10 s is one too many
/// assert_eq!(RestartLimit::default(), RestartLimit::new(5, Duration::from_secs(60)));
/// # assert_eq!((limit.max(), limit.within()), (3, Duration::from_secs(10)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartLimit {
    max: u32,
    within: Duration,
}

impl RestartLimit {
    /// The largest `max`: each failure that counts is kept on disk until it is out of the window.
    pub const LARGEST: u32 = 10_000;

    /// `max` failures within any time of the length `within` are borne. With 0 the first one is too many; more than
    /// [`RestartLimit::LARGEST`] is taken for that.
    pub const fn new(max: u32, within: Duration) -> Self {
        let max = if max > Self::LARGEST { Self::LARGEST } else { max };
        RestartLimit { max, within }
    }

    /// How many failures within the window are borne.
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// The length of the window.
    pub const fn within(&self) -> Duration {
        self.within
    }
}

impl Default for RestartLimit {
    /// 5 within 60 s.
    fn default() -> Self {
        RestartLimit::new(5, Duration::from_secs(60))
    }
}

/// How long a child waits before it is started again: `min` before the first of a row of restarts, `factor` times as long
/// before each further one, at most `max`, and up to `jitter` times that on top. The row ends when the child has run for
/// `reset_after` without a failure.
///
/// ```
/// # use std::time::Duration;
/// # use steadfast::supervisor::Backoff;
/// let slow = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(300), ..Backoff::default() };
/// # assert_eq!(slow.factor, 2.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// The wait before the first restart.
    pub min: Duration,
    /// The longest wait, before jitter.
    pub max: Duration,
    /// What the wait is multiplied with for each further restart; less than 1 is taken for 1.
    pub factor: f64,
    /// The largest part of the wait that is added to it at random, so that what failed together does not come back together: 0.2
    /// for up to a fifth. Not below 0.
    pub jitter: f64,
    /// After this time without a failure the next restart waits `min` again.
    pub reset_after: Duration,
}

impl Backoff {
    /// Every restart at once.
    pub const fn none() -> Self {
        Backoff::fixed(Duration::ZERO)
    }

    /// The same wait before every restart, without jitter.
    pub const fn fixed(wait: Duration) -> Self {
        Backoff { min: wait, max: wait, factor: 1.0, jitter: 0.0, reset_after: Duration::from_secs(60) }
    }

    /// The wait before restart number `nth` (from 1) of a row. `chance` are 64 random bits.
    pub(super) fn wait(&self, nth: u32, chance: u64) -> Duration {
        let exponent = i32::try_from(nth.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.min.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        let wait = grown.min(self.max.max(self.min).as_secs_f64());
        let added = self.jitter.max(0.0) * (chance as f64 / u64::MAX as f64);
        Duration::try_from_secs_f64(wait * (1.0 + added)).unwrap_or(self.max)
    }
}

impl Default for Backoff {
    /// 100 ms, doubled up to 10 s, with up to a fifth on top; begins anew after 60 s without a failure.
    fn default() -> Self {
        Backoff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(10),
            factor: 2.0,
            jitter: 0.2,
            reset_after: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_its_least_to_its_most() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        let waits: Vec<_> = (1..=9).map(|n| backoff.wait(n, 7).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
    }

    #[test]
    fn jitter_is_added_and_no_number_makes_it_panic() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait(1, 0).as_millis(), 100);
        assert_eq!(backoff.wait(1, u64::MAX).as_millis(), 120);
        for odd in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            let odd = Backoff { factor: odd, jitter: odd, max: Duration::MAX, ..backoff };
            for n in [0, 1, 2, u32::MAX] {
                assert!(odd.wait(n, u64::MAX) >= backoff.min);
            }
        }
    }
}
