//! What happens to a message whose handler failed, and to its actor: pure functions of stored facts, so that the answer is
//! the same before and after a restart.

use std::fmt;
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

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureClass {
    /// The handler returned a failure.
    Error,
    /// It panicked.
    Panic,
    /// It took longer than its mailbox allows.
    Timeout,
    /// The message could not be decoded. It is no attempt.
    Undecodable,
    /// It killed the process.
    Death,
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FailureClass::Error => "error",
            FailureClass::Panic => "panic",
            FailureClass::Timeout => "timeout",
            FailureClass::Undecodable => "undecodable",
            FailureClass::Death => "death of the process",
        })
    }
}

/// What becomes of the message that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OnMessage {
    /// It is tried again as its mailbox's [`RetryPolicy`] says, and after the last attempt goes to the dead letters. In strict
    /// order it holds up those behind it meanwhile.
    Retry,
    /// As `Retry`, but it holds up nobody: it gives up its place, also in a mailbox of strict order.
    RetryLater,
    /// It goes to the dead letters.
    DeadLetter,
    /// It is given back without counting an attempt, and handled again no sooner than 100 ms later.
    Release,
    /// It stays where it is, however often it failed. For use with [`OnActor::Stop`] and [`OnActor::Escalate`].
    Keep,
}

/// What becomes of the actor whose turn failed. Whatever it is, no message meets what the failed turn left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum OnActor {
    /// It is made anew from its factory and its last committed state, and goes on. Its supervisor, if it has one, is told,
    /// and counts it towards its limit.
    Rebuild,
    /// It ends, and its supervisor does with it and its siblings what its strategy says. Without a supervisor: as `Rebuild`.
    Restart,
    /// It ends abnormally. A supervisor starts it again unless it is temporary; without one its mail waits.
    Stop,
    /// It ends, and its supervisor fails too. Without a supervisor: as `Stop`.
    Escalate,
}

/// What was decided after a failed turn: about the message, and separate from it, about the actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// What becomes of the message.
    pub message: OnMessage,
    /// What becomes of the actor.
    pub actor: OnActor,
}

impl Decision {
    /// The message is tried again; the actor is made anew in its place.
    pub const RETRY: Self = Decision { message: OnMessage::Retry, actor: OnActor::Rebuild };
    /// The message is tried again; the supervisor restarts the actor.
    pub const RESTART: Self = Decision { message: OnMessage::Retry, actor: OnActor::Restart };
    /// The message goes to the dead letters; the actor is made anew in its place.
    pub const DEAD_LETTER: Self = Decision { message: OnMessage::DeadLetter, actor: OnActor::Rebuild };
    /// The actor ends and its mail waits, this message first.
    pub const STOP: Self = Decision { message: OnMessage::Keep, actor: OnActor::Stop };
    /// The actor's supervisor fails; the mail waits, this message first.
    pub const ESCALATE: Self = Decision { message: OnMessage::Keep, actor: OnActor::Escalate };
}

/// What is decided after a failed turn, by the kind of failure. What the handler itself asked for, such as
/// [`Failure::terminal`](crate::Failure::terminal), goes before it.
///
/// ```
#[doc = include_str!("example-prelude.txt")]
/// // a panic of this actor is a fault of the program: nothing more is handled until somebody has looked
/// let policy = FailurePolicy { panic: Decision::STOP, ..FailurePolicy::new() };
/// # let system = System::builder().open_in_memory().await?;
/// let counter = system.spawn("counter-1", || Counter).on_failure(policy).await?;
/// # counter.tell(Add { amount: 1 }).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePolicy {
    /// The handler returned a failure. Default: [`Decision::RETRY`].
    pub error: Decision,
    /// It panicked. Default: [`Decision::RESTART`].
    pub panic: Decision,
    /// It took longer than its mailbox allows. Default: [`Decision::RESTART`].
    pub timeout: Decision,
    /// The message cannot be decoded. Default: [`Decision::DEAD_LETTER`]. With any other decision about the message it stays the
    /// first of its priority, holds up those behind it, and is looked at again every 30 s.
    pub undecodable: Decision,
}

impl FailurePolicy {
    /// The defaults.
    pub const fn new() -> Self {
        FailurePolicy {
            error: Decision::RETRY,
            panic: Decision::RESTART,
            timeout: Decision::RESTART,
            undecodable: Decision::DEAD_LETTER,
        }
    }

    /// What is decided, when the handler asked for `wish` and `actor`.
    pub(crate) fn decide(&self, class: FailureClass, wish: Wish, actor: Option<OnActor>) -> Decision {
        let usual = match class {
            FailureClass::Error => self.error,
            FailureClass::Panic => self.panic,
            FailureClass::Timeout | FailureClass::Death => self.timeout,
            FailureClass::Undecodable => self.undecodable,
        };
        let message = match (wish, usual.message) {
            (Wish::Terminal, _) => OnMessage::DeadLetter,
            (Wish::Release, _) => OnMessage::Release,
            (Wish::RetryAfter(_), OnMessage::RetryLater) => OnMessage::RetryLater,
            (Wish::RetryAfter(_), _) => OnMessage::Retry,
            (Wish::Retry, _) if actor.is_some() => OnMessage::Keep,
            (Wish::Retry, usual) => usual,
        };
        Decision { message, actor: actor.unwrap_or(usual.actor) }
    }
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// What a handler asked for when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// As the policy says.
    Retry,
    /// Try again after this time, if the policy allows another attempt.
    RetryAfter(Duration),
    /// No further attempt.
    Terminal,
    /// Give the message back without counting an attempt.
    Release,
}

/// What becomes of the message, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try it again at this time; the attempt counts.
    RetryAt(Timestamp),
    /// The same, and it gives up its place.
    RetryLaterAt(Timestamp),
    /// Try it again at this time; the attempt does not count.
    ReleaseUntil(Timestamp),
    /// It stays where it is, not before this time; the attempt counts.
    KeepUntil(Timestamp),
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
    pub(crate) fn on_failure(
        &self,
        attempt: u32,
        decided: OnMessage,
        wish: Wish,
        now: Timestamp,
        chance: u64,
    ) -> Verdict {
        let again = match wish {
            Wish::RetryAfter(delay) => now.after(delay),
            _ => now.after(self.delay(attempt, chance)),
        };
        match decided {
            OnMessage::Release => Verdict::ReleaseUntil(now.after(LEAST_RELEASE)),
            OnMessage::Keep if cfg!(steadfast_bug = "bury_what_is_kept") => Verdict::Bury,
            OnMessage::Keep => Verdict::KeepUntil(now.after(LEAST_RELEASE)),
            OnMessage::DeadLetter => Verdict::Bury,
            _ if attempt >= self.attempts => Verdict::Bury,
            OnMessage::Retry => Verdict::RetryAt(again),
            OnMessage::RetryLater => Verdict::RetryLaterAt(again),
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
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn at(verdict: Verdict) -> u64 {
        match verdict {
            Verdict::RetryAt(at) | Verdict::ReleaseUntil(at) => at.since(NOW).as_millis() as u64,
            Verdict::RetryLaterAt(at) | Verdict::KeepUntil(at) => at.since(NOW).as_millis() as u64,
            Verdict::Bury => u64::MAX,
        }
    }

    /// An error's usual way through both policies.
    fn on_error(policy: &RetryPolicy, attempt: u32, wish: Wish, chance: u64) -> Verdict {
        let decided = FailurePolicy::new().decide(FailureClass::Error, wish, None).message;
        policy.on_failure(attempt, decided, wish, NOW, chance)
    }

    #[test]
    fn the_strict_curve_doubles_from_one_second_to_thirty_and_ends_after_five() {
        let policy = RetryPolicy::strict().without_jitter();
        let delays: Vec<_> = (1..=5).map(|n| at(on_error(&policy, n, Wish::Retry, 0))).collect();
        assert_eq!(delays, [1_000, 2_000, 4_000, 8_000, u64::MAX]);
    }

    #[test]
    fn the_unordered_curve_is_capped_at_five_minutes_and_ends_after_twenty() {
        let policy = RetryPolicy::unordered();
        assert_eq!(at(on_error(&policy, 19, Wish::Retry, u64::MAX)), 300_000);
        assert_eq!(on_error(&policy, 20, Wish::Retry, 0), Verdict::Bury);
    }

    #[test]
    fn jitter_reaches_from_nothing_to_the_whole_delay() {
        let policy = RetryPolicy::strict();
        assert_eq!(at(on_error(&policy, 1, Wish::Retry, 0)), 0);
        assert_eq!(at(on_error(&policy, 1, Wish::Retry, u64::MAX)), 1_000);
        assert_eq!(at(on_error(&policy, 1, Wish::Retry, u64::MAX / 2)), 500);
    }

    #[test]
    fn what_the_handler_wishes_wins_within_the_attempts() {
        let policy = RetryPolicy::strict();
        let after = Wish::RetryAfter(Duration::from_secs(77));
        assert_eq!(at(on_error(&policy, 1, after, 0)), 77_000);
        assert_eq!(on_error(&policy, 5, after, 0), Verdict::Bury);
        assert_eq!(on_error(&policy, 1, Wish::Terminal, 0), Verdict::Bury);
        assert_eq!(at(on_error(&policy, 9, Wish::Release, 0)), 100);
    }

    #[test]
    fn what_is_kept_outlives_its_attempts() {
        let policy = RetryPolicy::never();
        let kept = policy.on_failure(9, Decision::STOP.message, Wish::Retry, NOW, 0);
        assert_eq!(kept, Verdict::KeepUntil(NOW.after(LEAST_RELEASE)));
    }

    #[test]
    fn each_kind_of_failure_has_its_decision_and_the_handler_a_say() {
        let policy = FailurePolicy { panic: Decision::ESCALATE, ..FailurePolicy::new() };
        let decide = |class, wish, actor| policy.decide(class, wish, actor);
        assert_eq!(decide(FailureClass::Error, Wish::Retry, None), Decision::RETRY);
        assert_eq!(decide(FailureClass::Panic, Wish::Retry, None), Decision::ESCALATE);
        assert_eq!(decide(FailureClass::Timeout, Wish::Retry, None), Decision::RESTART);
        assert_eq!(decide(FailureClass::Undecodable, Wish::Retry, None), Decision::DEAD_LETTER);
        assert_eq!(decide(FailureClass::Error, Wish::Terminal, None), Decision::DEAD_LETTER);
        assert_eq!(decide(FailureClass::Error, Wish::Retry, Some(OnActor::Stop)), Decision::STOP);
    }
}
