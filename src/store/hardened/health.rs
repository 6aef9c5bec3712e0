//! Whether an engine may still be written to. Engines forget some failures, and their next flush would then succeed.
//!
//! # Invariants
//! - After one failed write or sync nothing is written any more through the handle that it failed in.
//! - The first failure is the one that is told.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use crate::store::engine::EngineError;

/// Of one open engine.
#[derive(Debug, Default)]
pub(in crate::store) struct Health {
    broken: OnceLock<Broken>,
}

#[derive(Debug)]
enum Broken {
    Full,
    Failed(String),
}

impl Health {
    pub(in crate::store) fn must_be_whole(&self, path: &Path) -> Result<(), EngineError> {
        let path = path.to_path_buf();
        match self.broken.get() {
            None => Ok(()),
            Some(_) if cfg!(steadfast_bug = "write-on-after-a-failure") => Ok(()),
            Some(Broken::Full) => Err(EngineError::Full { path }),
            Some(Broken::Failed(why)) => {
                let source = io::Error::other(format!("not written after an earlier failure: {why}"));
                Err(EngineError::Io { path, source })
            }
        }
    }

    /// Remembers the first failed write, and answers what it was.
    pub(in crate::store) fn break_with(&self, error: EngineError) -> EngineError {
        let _ = self.broken.set(match &error {
            EngineError::Full { .. } => Broken::Full,
            other => Broken::Failed(other.to_string()),
        });
        error
    }
}
