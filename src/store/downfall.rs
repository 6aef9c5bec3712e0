//! Whether the store has failed, and why: said once, for good.
//!
//! # Invariants
//! - The first reason stays.
//! - Whoever waits hears of it, also who begins to wait later.

use std::sync::PoisonError;

use super::fault::StoreError;
use crate::sync::{Bell, Mutex, MutexGuard};

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Downfall {
    why: Mutex<Option<StoreError>>,
    bell: Bell,
}

impl Downfall {
    pub(super) fn note(&self, why: &StoreError) {
        self.why().get_or_insert_with(|| why.clone());
        self.bell.ring_for_good();
    }

    pub(super) fn has_come(&self) -> bool {
        self.why().is_some()
    }

    pub(super) fn reason(&self) -> Option<StoreError> {
        self.why().clone()
    }

    /// Resolves when it has come.
    pub(super) async fn comes(&self) -> StoreError {
        loop {
            if let Some(why) = self.reason() {
                return why;
            }
            self.bell.rung().await;
        }
    }

    fn why(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
