//! The clock of a life: it goes with the runtime's paused time, and its ids and its chance come from the seed.

use std::time::Duration;

use uuid::Uuid;

use super::dice::Dice;
use crate::clock::{Clock, Sleep, Timestamp};

#[derive(Debug)]
pub(super) struct PausedClock {
    start: Timestamp,
    began: tokio::time::Instant,
    dice: Dice,
}

impl PausedClock {
    /// Begins now, in a runtime whose time is paused.
    pub(super) fn new(start: Timestamp, dice: Dice) -> Self {
        PausedClock { start, began: tokio::time::Instant::now(), dice }
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        self.start.after(self.began.elapsed())
    }

    fn id(&self) -> Uuid {
        Uuid::from_u64_pair(self.dice.draw(), self.dice.draw())
    }

    fn random(&self) -> u64 {
        self.dice.draw()
    }

    fn sleep_until(&self, due: Timestamp) -> Sleep {
        let wait: Duration = due.since(self.now());
        // no wall clock jumps within a life: one sleep is enough
        Box::pin(tokio::time::sleep(wait))
    }
}
