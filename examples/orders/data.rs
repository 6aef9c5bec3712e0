//! What lies in the data directory: the store, and the files beside it that belong to the outside world.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use steadfast::{Actor, Context};

/// The paths in a data directory.
pub(crate) struct Data<'a>(pub(crate) &'a Path);

impl Data<'_> {
    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// The input, if it is the generated one.
    pub(crate) fn sample(&self) -> PathBuf {
        self.0.join("orders.ndjson")
    }

    /// What notification has done to the outside world.
    pub(crate) fn notifications(&self) -> PathBuf {
        self.0.join("notifications.ndjson")
    }

    /// Every run of every handler.
    pub(crate) fn attempts(&self) -> PathBuf {
        self.0.join("attempts.log")
    }

    /// Where products keeps its position when its guard is broken.
    pub(crate) fn acknowledged(&self) -> PathBuf {
        self.0.join("acknowledged.json")
    }
}

/// A file that lines are appended to, in no transaction with anything.
#[derive(Clone)]
pub(crate) struct Lines {
    file: Arc<File>,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Lines { file: Arc::new(file) })
    }

    /// Appends lines in one write. It is not synced: a kill takes nothing from the page cache. (Where a power
    /// cut counts too, `sync_data` belongs here.)
    pub(crate) fn append(&self, lines: &str) -> io::Result<()> {
        // A kill can cut a long write short between two pages. The end of line in front keeps a torn line
        // from swallowing the one that is written next; readers skip what is empty or torn.
        (&*self.file).write_all(format!("\n{lines}\n").as_bytes())
    }
}

/// Counts runs of handlers from outside of the store, which forgets those that were not committed.
#[derive(Clone)]
pub(crate) struct AttemptLog {
    pub(crate) lines: Lines,
    /// Which run of the program this is.
    pub(crate) run: u64,
}

impl AttemptLog {
    pub(crate) fn note<A: Actor>(&self, ctx: &Context<A>) -> io::Result<()> {
        self.lines.append(&format!("{} {} {}", self.run, ctx.name(), ctx.message_id()))
    }
}
