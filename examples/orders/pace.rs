//! How fast orders come in: no faster than the shop gets on with them. A topic needs none of this, for those who are slow read
//! on later; it is here so that a kill finds everybody at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use steadfast::{AdminError, Subscription};

/// The most events that a subscriber may be behind.
const MOST_BEHIND: u64 = 200;
/// How long it takes to say no.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub(crate) struct Pace {
    subscribers: Vec<Subscription>,
    /// A shop that is to be killed takes no more than this many orders in, so that it cannot end before.
    hold_at: Option<u64>,
    held: Arc<AtomicBool>,
}

impl Pace {
    pub(crate) fn new(subscribers: Vec<Subscription>, hold_at: Option<u64>) -> Self {
        Pace { subscribers, hold_at, held: Arc::default() }
    }

    /// Whether orders may come in now, after so many. A `false` takes its time, but not until it may: a turn
    /// that waits for those of others may wait for ever, for one that was interrupted by a kill is run again
    /// alone.
    pub(crate) async fn allows(&self, orders: u64) -> Result<bool, AdminError> {
        let held = self.hold_at.is_some_and(|hold_at| orders >= hold_at);
        if held && !self.held.swap(true, Ordering::Relaxed) {
            println!("held");
        }
        let allowed = !held && self.most_behind().await? <= MOST_BEHIND;
        if !allowed {
            tokio::time::sleep(LOOK).await;
        }
        Ok(allowed)
    }

    async fn most_behind(&self) -> Result<u64, AdminError> {
        let mut most = 0;
        for subscriber in &self.subscribers {
            most = most.max(subscriber.info().await?.lag);
        }
        Ok(most)
    }
}
