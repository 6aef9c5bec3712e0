//! What a store says of itself while it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use steadfast::{Event, Observer};

/// Counts what a store reports.
#[derive(Debug, Default)]
pub struct Watch {
    syncs: AtomicU64,
    journal: AtomicU64,
    checkpoints: AtomicU64,
}

impl Watch {
    /// One to give to a system's builder.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Groups of commits that were synced.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Bytes that were written to the journal.
    pub fn journal_bytes(&self) -> u64 {
        self.journal.load(Ordering::Relaxed)
    }

    /// Checkpoints that were completed.
    pub fn checkpoints(&self) -> u64 {
        self.checkpoints.load(Ordering::Relaxed)
    }
}

impl Observer for Watch {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::GroupSynced { bytes, .. } => {
                self.syncs.fetch_add(1, Ordering::Relaxed);
                self.journal.fetch_add(*bytes, Ordering::Relaxed);
            }
            Event::Checkpointed { .. } => {
                self.checkpoints.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}
