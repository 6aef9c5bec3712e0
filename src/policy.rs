//! What happens to a message whose handler failed: a pure function of stored facts, so that the answer is the same
//! before and after a restart.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// When and how often a failed message is tried again.
///
/// The delay before attempt *n + 1* is drawn evenly from zero to `min(cap, first × factor^(n − 1))` ("full jitter": M.
/// Brooker, *Exponential Backoff and Jitter*, AWS Architecture Blog, 2015), or is exactly that without jitter.
///
/// ```
#[doc = include_str!("example-prelude.txt")]
/// // attempts after 1 s, 2 s, 4 s, then the dead letters
/// let policy = RetryPolicy::strict().with_attempts(4).without_jitter();
/// # let system = System::builder().open_in_memory().await?;
/// let counter = system.spawn("counter-1", || Counter).retry(policy).await?;
/// # let hasty = system.spawn("counter-2", || Counter).retry(RetryPolicy::never()).await?;
/// # assert!(matches!(hasty.ask(Add { amount: 0 }).await, Err(AskError::Failed { .. })));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts in all; after the last one the message goes to the dead letters.
    pub attempts: u32,
    /// The longest delay after the first failure.
    pub first: Duration,
    /// What the delay is multiplied with after each further failure.
    pub factor: f64,
    /// The longest delay.
    pub cap: Duration,
    /// Whether the delay is drawn between zero and what the formula gives.
    pub jitter: bool,
}

/// What a handler asked for when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Try again as the policy says.
    Retry,
    /// Try again after this time, if the policy allows another attempt.
    RetryAfter(Duration),
    /// No further attempt.
    Terminal,
    /// Give the message back without counting an attempt.
    Release,
}

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try it again at this time; the attempt counts.
    RetryAt(Timestamp),
    /// Try it again at this time; the attempt does not count.
    ReleaseUntil(Timestamp),
    /// It goes to the dead letters.
    Bury,
}

/// The least time before a released message is handled again: without one it would spin.
pub(crate) const LEAST_RELEASE: Duration = Duration::from_millis(100);

impl RetryPolicy {
    /// For mailboxes in strict order, where a message that is tried again holds up those behind it: 5 attempts, 1 s
    /// doubled up to 30 s, full jitter.
    pub const fn strict() -> Self {
        RetryPolicy {
            attempts: 5,
            first: Duration::from_secs(1),
            factor: 2.0,
            cap: Duration::from_secs(30),
            jitter: true,
        }
    }

    /// For mailboxes without order, where it holds up nobody: 20 attempts, 1 s doubled up to 5 min, full jitter.
    pub const fn unordered() -> Self {
        RetryPolicy { attempts: 20, cap: Duration::from_secs(300), ..Self::strict() }
    }

    /// One attempt: the first failure is the last.
    pub const fn never() -> Self {
        RetryPolicy { attempts: 1, ..Self::strict() }
    }

    /// `attempts` attempts with no delay between them.
    pub const fn immediately(attempts: u32) -> Self {
        RetryPolicy { attempts, first: Duration::ZERO, cap: Duration::ZERO, ..Self::strict() }
    }

    /// The same with another number of attempts; 0 counts as 1.
    #[must_use]
    pub const fn with_attempts(self, attempts: u32) -> Self {
        RetryPolicy { attempts, ..self }
    }

    /// The same with another first delay, factor and cap.
    #[must_use]
    pub const fn with_backoff(self, first: Duration, factor: f64, cap: Duration) -> Self {
        RetryPolicy { first, factor, cap, ..self }
    }

    /// The same without jitter.
    #[must_use]
    pub const fn without_jitter(self) -> Self {
        RetryPolicy { jitter: false, ..self }
    }

    /// After failure number `attempt` (from 1). `chance` are 64 random bits.
    pub(crate) fn on_failure(&self, attempt: u32, wish: Wish, now: Timestamp, chance: u64) -> Verdict {
        match wish {
            Wish::Release => Verdict::ReleaseUntil(now.after(LEAST_RELEASE)),
            Wish::Terminal => Verdict::Bury,
            _ if attempt >= self.attempts => Verdict::Bury,
            Wish::RetryAfter(delay) => Verdict::RetryAt(now.after(delay)),
            Wish::Retry => Verdict::RetryAt(now.after(self.delay(attempt, chance))),
        }
    }

    fn delay(&self, attempt: u32, chance: u64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.first.as_secs_f64() * self.factor.powi(exponent);
        let most = grown.min(self.cap.as_secs_f64()).max(0.0);
        let part = if self.jitter { chance as f64 / u64::MAX as f64 } else { 1.0 };
        Duration::try_from_secs_f64(most * part).unwrap_or(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn at(verdict: Verdict) -> u64 {
        match verdict {
            Verdict::RetryAt(at) | Verdict::ReleaseUntil(at) => at.since(NOW).as_millis() as u64,
            Verdict::Bury => u64::MAX,
        }
    }

    #[test]
    fn the_strict_curve_doubles_from_one_second_to_thirty_and_ends_after_five() {
        let policy = RetryPolicy::strict().without_jitter();
        let delays: Vec<_> = (1..=5).map(|n| at(policy.on_failure(n, Wish::Retry, NOW, 0))).collect();
        assert_eq!(delays, [1_000, 2_000, 4_000, 8_000, u64::MAX]);
    }

    #[test]
    fn the_unordered_curve_is_capped_at_five_minutes_and_ends_after_twenty() {
        let policy = RetryPolicy::unordered();
        assert_eq!(at(policy.on_failure(19, Wish::Retry, NOW, u64::MAX)), 300_000);
        assert_eq!(policy.on_failure(20, Wish::Retry, NOW, 0), Verdict::Bury);
    }

    #[test]
    fn jitter_reaches_from_nothing_to_the_whole_delay() {
        let policy = RetryPolicy::strict();
        assert_eq!(at(policy.on_failure(1, Wish::Retry, NOW, 0)), 0);
        assert_eq!(at(policy.on_failure(1, Wish::Retry, NOW, u64::MAX)), 1_000);
        assert_eq!(at(policy.on_failure(1, Wish::Retry, NOW, u64::MAX / 2)), 500);
    }

    #[test]
    fn what_the_handler_wishes_wins_within_the_attempts() {
        let policy = RetryPolicy::strict();
        let after = Wish::RetryAfter(Duration::from_secs(77));
        assert_eq!(at(policy.on_failure(1, after, NOW, 0)), 77_000);
        assert_eq!(policy.on_failure(5, after, NOW, 0), Verdict::Bury);
        assert_eq!(policy.on_failure(1, Wish::Terminal, NOW, 0), Verdict::Bury);
        assert_eq!(at(policy.on_failure(9, Wish::Release, NOW, 0)), 100);
    }
}
