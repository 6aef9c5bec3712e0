//! What a look into a store brought: what is in it, what is wrong with it, and what is lost.
//!
//! # Invariants
//! - Whatever could not be read is in a finding; what was lost of messages and commits is also in numbers.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// How much a finding matters. The most harmful is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// Nothing is lost by it.
    Note,
    /// Nothing is known to be lost, but something may be older than it was, or handled a second time.
    Doubt,
    /// Something cannot be read any more.
    Loss,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The file, or the directory.
    pub file: PathBuf,
    /// Where in it: a byte, a key, the messages of a mailbox. Empty when all of it is meant.
    pub place: String,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub what_to_do: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Doubt => "doubt",
            Severity::Loss => "LOSS",
        };
        write!(f, "{severity}: {}", self.file.display())?;
        if !self.place.is_empty() {
            write!(f, ", {}", self.place)?;
        }
        write!(f, ": {}. {}", self.what, self.what_to_do)
    }
}

/// Messages or events that waited and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LostMessages {
    /// The mailbox or topic; its number where its name is lost.
    pub mailbox: String,
    /// The priority: 0 high, 1 normal, 2 low. Events are normal.
    pub lane: u8,
    /// The position of the first.
    pub first: u64,
    /// How many there are, one position after the other.
    pub count: u64,
}

/// Commits behind a hole in the journal. They are not applied: what they build on is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LostCommits {
    /// The last commit that counts: everything up to it is applied, nothing after it.
    pub after: u64,
    /// The last commit that is known to have been durable.
    pub until: u64,
    /// Commits behind the hole that verify.
    pub readable: u64,
    /// Messages and events that were accepted in those.
    pub messages: u64,
}

/// A mailbox in which something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MailboxContents {
    /// Its name.
    pub name: String,
    /// Messages that wait, of all priorities.
    pub waiting: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Dead letters taken from it.
    pub dead_letters: u64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TopicContents {
    /// Its name.
    pub name: String,
    /// Events that it has.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The sequence number that its next event gets.
    pub next: u64,
    /// Who reads it.
    pub subscriptions: Vec<SubscriptionContents>,
}

/// A durable subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SubscriptionContents {
    /// The mailbox that reads.
    pub reader: String,
    /// The sequence number from which on events wait for it.
    pub front: u64,
    /// Events that wait for it.
    pub waiting: u64,
    /// Whether it is paused.
    pub paused: bool,
}

/// What is in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Contents {
    /// Mailboxes that are known, with or without something in them.
    pub known_mailboxes: u64,
    /// Those in which messages wait or of which there are dead letters, in order of their numbers.
    pub mailboxes: Vec<MailboxContents>,
    /// All topics.
    pub topics: Vec<TopicContents>,
    /// Dead letters.
    pub dead_letters: u64,
    /// Messages and events that are not due yet.
    pub scheduled: u64,
    /// Values of state: cells, and entries of maps and lists.
    pub cells: u64,
    /// Dedup ids that are remembered.
    pub marks: u64,
}

/// What [`check`](crate::check) found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// The format version; none when the manifest is lost.
    pub format: Option<u32>,
    /// The store's id as 32 hex digits; empty when nothing tells it.
    pub store: String,
    /// The engine's name.
    pub engine: String,
    /// Whether the store was closed, and nothing opened it since.
    pub closed_cleanly: bool,
    /// The commit up to which the engine has everything.
    pub checkpoint: u64,
    /// The last commit that counts.
    pub last_commit: u64,
    /// Journal segments that were read.
    pub segments: u64,
    /// Commits of the journal that count and are not in the engine yet.
    pub commits: u64,
    /// Pages of messages and events that verified.
    pub pages: u64,
    /// Keys of the engine that verified.
    pub keys: u64,
    /// What is in it, with the journal applied.
    pub contents: Contents,
    /// Everything that is not as it must be, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// Messages and events that waited and cannot be read.
    pub lost_messages: Vec<LostMessages>,
    /// Commits behind a hole in the journal.
    pub lost_commits: Option<LostCommits>,
}

impl CheckReport {
    /// The worst of the findings; none when there is none, and then the store opens.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Whether something cannot be read any more.
    pub fn has_losses(&self) -> bool {
        self.worst() == Some(Severity::Loss)
    }
}

/// What [`salvage`](crate::salvage) did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SalvageReport {
    /// What was found in the damaged store. Its contents are what was carried, its findings and losses what was not.
    pub found: CheckReport,
    /// The id of the new store as 32 hex digits.
    pub store: String,
}

/// The findings of one look, as they are made.
pub(super) struct Findings {
    root: PathBuf,
    pub(super) all: Vec<Finding>,
    pub(super) messages: Vec<LostMessages>,
}

/// Findings of one kind, such as of each damaged page, beyond these many are counted only.
const MOST: usize = 10_000;

const RESTORE: &str =
    "Restore the store from a backup if there is one; `steadfast::salvage` carries the rest into a new store";

impl Findings {
    pub(super) fn new(root: PathBuf) -> Self {
        Findings { root, all: Vec::new(), messages: Vec::new() }
    }

    pub(super) fn note(&mut self, file: &str, place: impl Into<String>, what: impl Into<String>) {
        self.add(Severity::Note, file, place.into(), what.into(), "Nothing needs to be done");
    }

    pub(super) fn doubt(
        &mut self,
        file: &str,
        place: impl Into<String>,
        what: impl Into<String>,
        what_to_do: &str,
    ) {
        self.add(Severity::Doubt, file, place.into(), what.into(), what_to_do);
    }

    pub(super) fn loss(&mut self, file: &str, place: impl Into<String>, what: impl Into<String>) {
        self.add(Severity::Loss, file, place.into(), what.into(), RESTORE);
    }

    /// Whether something in a file is lost.
    pub(super) fn has_loss_in(&self, file: &str) -> bool {
        let file = self.root.join(file);
        self.all.iter().any(|finding| finding.severity == Severity::Loss && finding.file == file)
    }

    fn add(&mut self, severity: Severity, file: &str, place: String, what: String, what_to_do: &str) {
        if self.all.len() > MOST {
            return;
        }
        let (file, what_to_do) = (self.root.join(file), what_to_do.to_owned());
        let finding = Finding { severity, file, place, what, what_to_do };
        if self.all.len() == MOST {
            let what = "there are more findings than can be told".to_owned();
            self.all.push(Finding { severity: Severity::Loss, place: String::new(), what, ..finding });
        } else if !self.all.contains(&finding) {
            self.all.push(finding);
        }
    }
}
