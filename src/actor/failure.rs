//! Why a turn did not happen, and what its handler wishes to be done about it.
//!
//! # Invariants
//! - A failure is text from its birth: nothing of the error's own type outlives the handler, and the text is
//!   short enough to be stored with every attempt.
//! - `Failure` is not itself an [`std::error::Error`]: that is what lets `?` take any error there is.

use std::error::Error;
use std::fmt::{self, Display, Write};
use std::time::Duration;

use crate::policy::{FailureClass, OnActor, Wish};

/// Longest text kept of a failure, in bytes.
pub(crate) const MAX_TEXT: usize = 4096;

/// A chain of sources longer than this is taken for one that runs in a circle.
const MAX_LINKS: usize = 32;

/// Why a handler could not do its work. None of its sends, its changes of state or its reply exist.
///
/// Any error becomes one by `?`, and is tried again by the actor's policy. An outcome the *sender* should
/// learn of, such as "out of stock", is no failure: it belongs in the message's `Reply`.
///
/// ```
/// use std::time::Duration;
/// use steadfast::Failure;
///
/// fn busy() -> Failure {
///     Failure::new("the bank is busy").retry_after(Duration::from_secs(60))
/// }
///
/// fn quantity(text: &str) -> Result<u32, Failure> {
///     // Another attempt would read the same text.
///     text.parse().map_err(|e| Failure::from_error(&e).terminal())
/// }
/// assert_eq!(quantity("7").unwrap(), 7);
/// assert_eq!(busy().text(), "the bank is busy");
/// assert_eq!(quantity("seven").unwrap_err().text(), "invalid digit found in string");
/// ```
#[derive(Clone)]
pub struct Failure {
    text: String,
    wish: Wish,
    class: FailureClass,
    actor: Option<OnActor>,
}

impl Failure {
    /// A failure that says `text`, which may be any value that can be displayed. At most 4 KiB of it are
    /// kept.
    pub fn new(text: impl Display) -> Self {
        let mut short = Short::default();
        // a `Display` that fails has said what it could
        let _ = write!(short, "{text}");
        Self::of(FailureClass::Error, short.text)
    }

    /// A failure that says what `error` and each of its sources say, `outer: inner: innermost`. At most 4 KiB
    /// of it are kept. This is what `?` does.
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        let mut short = Short::default();
        let _ = write!(short, "{error}");
        let mut next = error.source();
        for _ in 0..MAX_LINKS {
            let Some(source) = next.filter(|_| !short.full) else { break };
            let said = Failure::new(source).text;
            // many errors already end with what their source says
            if !short.text.ends_with(&said) {
                let _ = write!(short, ": {said}");
            }
            next = source.source();
        }
        Self::of(FailureClass::Error, short.text)
    }

    fn of(class: FailureClass, text: String) -> Self {
        Failure { text, wish: Wish::Retry, class, actor: None }
    }

    /// The handler panicked.
    pub(crate) fn panicked(text: String) -> Self {
        Failure { class: FailureClass::Panic, ..Self::new(text) }
    }

    /// The turn took longer than its mailbox allows.
    pub(crate) fn timed_out(text: String) -> Self {
        Failure { class: FailureClass::Timeout, ..Self::new(text) }
    }

    /// No further attempt is made: the message becomes a dead letter.
    #[must_use]
    pub fn terminal(self) -> Self {
        Failure { wish: Wish::Terminal, ..self }
    }

    /// The next attempt, if the policy allows one, comes no sooner than `delay` from now.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Failure { wish: Wish::RetryAfter(delay), ..self }
    }

    /// Gives the message back without counting this attempt. There is a least delay before the next one, so
    /// that a handler that always releases does not spin.
    #[must_use]
    pub fn release(self) -> Self {
        Failure { wish: Wish::Release, ..self }
    }

    /// The actor ends, and its mail waits, this message first, until somebody starts it again: its supervisor, if it has one.
    /// See [`OnActor::Stop`].
    #[must_use]
    pub fn stop_actor(self) -> Self {
        Failure { actor: Some(OnActor::Stop), ..self }
    }

    /// The actor ends, and its supervisor fails too: the cause lies deeper than this actor. See [`OnActor::Escalate`].
    #[must_use]
    pub fn escalate(self) -> Self {
        Failure { actor: Some(OnActor::Escalate), ..self }
    }

    /// What went wrong.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same, and it says where it happened.
    pub(crate) fn at(self, place: impl Display) -> Self {
        let text = Failure::new(format_args!("{place}: {}", self.text)).text;
        Failure { text, ..self }
    }

    pub(crate) fn wish(&self) -> Wish {
        self.wish
    }

    pub(crate) fn class(&self) -> FailureClass {
        self.class
    }

    /// What the handler asked for as to the actor.
    pub(crate) fn on_actor(&self) -> Option<OnActor> {
        self.actor
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::from_error(&error)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("text", &self.text).field("wish", &self.wish).finish()
    }
}

/// Takes text until [`MAX_TEXT`], then refuses, which stops the writer before it makes more.
#[derive(Default)]
struct Short {
    text: String,
    full: bool,
}

impl Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        if self.text.len() + more.len() <= MAX_TEXT {
            self.text.push_str(more);
            return Ok(());
        }
        const CUT: &str = "…";
        let all = std::mem::take(&mut self.text) + more;
        self.text = all[..all.floor_char_boundary(MAX_TEXT - CUT.len())].to_owned() + CUT;
        self.full = true;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is full")]
    struct Innermost;

    #[derive(Debug, thiserror::Error)]
    #[error("no log: {0}")]
    struct Inner(#[source] Innermost);

    #[derive(Debug, thiserror::Error)]
    #[error("not reserved")]
    struct Outer(#[source] Inner);

    #[derive(Debug)]
    struct Circle;

    impl Display for Circle {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("round")
        }
    }

    impl Error for Circle {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }

    fn fails() -> Result<(), Failure> {
        Err(Outer(Inner(Innermost)))?
    }

    #[test]
    fn a_question_mark_keeps_the_whole_chain_and_says_nothing_twice() {
        let failure = fails().unwrap_err();
        assert_eq!(failure.text(), "not reserved: no log: the disk is full");
        assert_eq!(failure.wish(), Wish::Retry);
    }

    #[test]
    fn a_chain_that_runs_in_a_circle_ends() {
        assert_eq!(Failure::from(Circle).text(), "round");
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let text = Failure::new("é".repeat(MAX_TEXT)).into_text();
        assert!(text.len() <= MAX_TEXT && text.len() > MAX_TEXT - 8, "{} bytes", text.len());
        assert!(text.ends_with("é…"));
        let exact = "x".repeat(MAX_TEXT);
        assert_eq!(Failure::new(&exact).text(), exact);
    }

    #[test]
    fn the_last_wish_counts() {
        let second = Duration::from_secs(1);
        assert_eq!(Failure::new("").terminal().wish(), Wish::Terminal);
        assert_eq!(Failure::new("").terminal().retry_after(second).wish(), Wish::RetryAfter(second));
        assert_eq!(Failure::new("").retry_after(second).release().wish(), Wish::Release);
    }
}
