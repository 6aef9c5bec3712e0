//! A part of a bench in a process of its own: so its memory is of nothing else.
//!
//! # Invariants
//! - What a child came to is the last line that it prints, one JSON object of numbers.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::Outcome;

/// Figures by name.
pub type Figures = BTreeMap<String, f64>;

/// The variable that says how many heaps glibc uses.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Runs this bench again, with these words, and returns what it came to.
///
/// glibc has a heap for each thread and keeps in it what was freed, which hides what the library itself holds; so the child has two,
/// unless the variable is set. Set it to 0 for glibc's own default.
///
/// # Errors
/// The child did not end well.
pub fn run(words: &[&str]) -> Outcome<Figures> {
    let mut child = Command::new(std::env::current_exe()?);
    if std::env::var_os(ARENAS).is_none() {
        child.env(ARENAS, "2");
    }
    let done = child.args(words).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8(done.stdout)?;
    if !done.status.success() {
        return Err(format!("{words:?} ended with {}: {said}", done.status).into());
    }
    Ok(serde_json::from_str(said.lines().last().unwrap_or_default())?)
}

/// What a child says at its end.
///
/// # Errors
/// A figure is not a number.
pub fn say(figures: &[(&str, f64)]) -> Outcome<()> {
    let figures: Figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
