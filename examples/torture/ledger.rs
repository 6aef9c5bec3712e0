//! What was said before a fault, since the last check: what a checker may hold the store to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::plan::{self, TOPICS};

/// What became of a message, as its sender was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Handled,
    Buried,
    Expired,
}

impl Told {
    const ALL: [(&'static str, Told); 3] = [("h", Told::Handled), ("d", Told::Buried), ("x", Told::Expired)];

    /// The line that says so begins with this.
    pub(crate) fn word(self) -> &'static str {
        Told::ALL.iter().find(|(_, told)| *told == self).map_or("", |(word, _)| word)
    }

    fn of_word(word: &str) -> Option<Told> {
        Told::ALL.iter().find(|(known, _)| *known == word).map(|(_, told)| *told)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// All messages of lives up to this one were checked.
    pub(crate) settled: u64,
    /// All events below these sequence numbers were checked.
    pub(crate) bases: [u64; 2],
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Acknowledged too, but not before an unclean end, which may be torn.
    pub(crate) unheard: BTreeSet<u64>,
    /// What a sender was told of the end of its messages.
    pub(crate) told: BTreeMap<u64, Told>,
    /// Which numbers a sender may have sent, by life and sender: all below.
    pub(crate) announced: BTreeMap<(u64, u64), u64>,
    /// Keys of events, by topic and sequence number.
    pub(crate) published: BTreeMap<(usize, u64), u64>,
    pub(crate) refused: u64,
    pub(crate) failed: Vec<String>,
    pub(crate) wrong: Vec<String>,
    pub(crate) open_ms: Vec<u64>,
}

impl Ledger {
    /// Takes a line in, of a child or of [`Ledger::to_text`]. A line that is none of them is something wrong.
    pub(crate) fn read(&mut self, line: &str) {
        if self.take(line).is_none() {
            self.wrong.push(format!("cannot be understood: {line:?}"));
        }
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        match word {
            "a" => drop(self.acknowledged.insert(number()?)),
            "u" => drop(self.unheard.insert(number()?)),
            "h" | "d" | "x" => {
                let (key, told) = (number()?, Told::of_word(word)?);
                if self.told.insert(key, told).is_some_and(|before| before != told) {
                    self.wrong.push(format!("it was told of two ends of {key:#x}"));
                }
            }
            "i" => {
                let most = self.announced.entry((number()?, number()?)).or_default();
                *most = number()?.max(*most);
            }
            "p" => {
                let (topic, rest) = rest.split_once(' ')?;
                let (sequence, key) = rest.split_once(' ')?;
                let topic = TOPICS.iter().position(|name| *name == topic)?;
                let (sequence, key) = (sequence.parse().ok()?, key.parse().ok()?);
                if let Some(before) = self.published.insert((topic, sequence), key).filter(|old| *old != key)
                {
                    self.wrong.push(format!("{key:#x} and {before:#x} were both published at {sequence}"));
                }
            }
            "settled" => (self.settled, self.bases) = (number()?, [number()?, number()?]),
            "open" => self.open_ms.push(number()?),
            "refused" => self.refused += 1,
            "failed" => self.failed.push(rest.to_owned()),
            "wrong" => self.wrong.push(rest.to_owned()),
            "quiet" | "done" => {}
            _ => return None,
        }
        Some(())
    }

    /// For a file: what a check needs.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("settled {} {} {}\n", self.settled, self.bases[0], self.bases[1]);
        for ((life, sender), below) in &self.announced {
            let _ = writeln!(text, "i {life} {sender} {below}");
        }
        for key in &self.acknowledged {
            let _ = writeln!(text, "a {key}");
        }
        for (key, told) in &self.told {
            let _ = writeln!(text, "{} {key}", told.word());
        }
        for ((topic, sequence), key) in &self.published {
            let _ = writeln!(text, "p {} {sequence} {key}", TOPICS[*topic]);
        }
        text
    }

    pub(crate) fn of_text(text: &str) -> Ledger {
        let mut ledger = Ledger::default();
        text.lines().for_each(|line| ledger.read(line));
        ledger
    }

    pub(crate) fn was_announced(&self, key: u64) -> bool {
        let below = self.announced.get(&(plan::life(key), plan::sender(key)));
        below.is_some_and(|below| plan::number(key) < *below)
    }

    /// All was checked up to this life.
    pub(crate) fn settle(&mut self, life: u64, bases: [u64; 2]) {
        *self = Ledger { settled: life, bases, ..Ledger::default() };
    }
}
