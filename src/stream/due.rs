//! What is due when, of an operator that keeps things until their time: in the order of that, and how far time has come.
//!
//! # Invariants
//! - What is due is looked for only when the earliest of it can be.
//! - The mark that is handed on is never past something that is due and not yet dealt with.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::inputs::Sources;
use super::names;
use super::pipe::Turning;
use crate::actor::{Cell, CellMap, Failure, MapKey};
use crate::clock::Timestamp;

/// How much of what is due is read at once.
const PAGE: usize = 64;

/// Something of a key that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due<K> {
    pub(super) at: u64,
    pub(super) start: u64,
    pub(super) key: K,
}

impl<K: MapKey> MapKey for Due<K> {
    fn to_bytes(&self) -> Vec<u8> {
        [&self.at.to_be_bytes()[..], &self.start.to_be_bytes(), &self.key.to_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        Some(Due { at: number(0)?, start: number(8)?, key: K::from_bytes(bytes.get(16..)?)? })
    }
}

/// How far time has come for an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    watermark: u64,
    /// Nothing is due before.
    earliest: Option<u64>,
    pub(super) late: u64,
}

/// The same in a turn.
pub(super) struct Clock<K> {
    kept: Kept,
    before: Kept,
    /// The first of what is noted, if nothing was noted before them since.
    page: VecDeque<Due<K>>,
    /// The earliest that is due and has to wait for the next turn.
    left: Option<u64>,
}

impl<K> Clock<K> {
    pub(super) fn watermark(&self) -> u64 {
        self.kept.watermark
    }

    /// One more came too late; how many did.
    pub(super) fn count_late(&mut self) -> u64 {
        self.kept.late += 1;
        self.kept.late
    }

    pub(super) fn move_to(&mut self, mark: Timestamp) {
        self.kept.watermark = self.kept.watermark.max(mark.as_millis());
    }

    fn may_be_due(&self) -> bool {
        self.kept.earliest.is_some_and(|earliest| earliest <= self.kept.watermark)
    }

    /// Up to where all that happened was handed on.
    pub(super) fn passed(&self) -> Timestamp {
        let watermark = self.kept.watermark;
        Timestamp::from_millis(self.left.map_or(watermark, |left| watermark.min(left.saturating_sub(1))))
    }

    /// Has the stage woken when the earliest is due.
    pub(super) fn wake<S: Sources>(&self, turn: &mut Turning<'_, S>) {
        if let Some(earliest) = self.kept.earliest.filter(|earliest| *earliest > self.kept.watermark) {
            turn.wake_at(Timestamp::from_millis(earliest));
        }
    }
}

/// See the module's head.
pub(super) struct Timers<K> {
    clock: Cell<Kept>,
    due: CellMap<Due<K>, ()>,
}

/// The clock of the operator with this number.
pub(super) const fn clock_of(slot: usize) -> Cell<Kept> {
    Cell::new(names::clock(slot), 1)
}

impl<K: MapKey + Clone + Send + Sync + 'static> Timers<K> {
    pub(super) fn new(slot: usize) -> Self {
        Timers { clock: clock_of(slot), due: CellMap::new(names::due(slot), 1) }
    }

    pub(super) fn clock<S: Sources>(&self, turn: &mut Turning<'_, S>) -> Result<Clock<K>, Failure> {
        let kept = turn.ctx.state().get(&self.clock)?.unwrap_or_default();
        Ok(Clock { kept, before: kept, page: VecDeque::new(), left: None })
    }

    pub(super) fn keep<S: Sources>(&self, clock: Clock<K>, turn: &mut Turning<'_, S>) -> Result<(), Failure> {
        if clock.kept != clock.before {
            turn.ctx.state().set(&self.clock, &clock.kept)?;
        }
        Ok(())
    }

    pub(super) fn add<S: Sources>(
        &self,
        due: &Due<K>,
        clock: &mut Clock<K>,
        turn: &mut Turning<'_, S>,
    ) -> Result<(), Failure> {
        turn.ctx.state().map(&self.due).insert(due, &())?;
        clock.kept.earliest = Some(clock.kept.earliest.map_or(due.at, |earliest| earliest.min(due.at)));
        clock.page.clear();
        Ok(())
    }

    /// Takes the next that is due; none when nothing is, or when that is for another turn.
    pub(super) async fn next<S: Sources>(
        &self,
        clock: &mut Clock<K>,
        turn: &mut Turning<'_, S>,
    ) -> Result<Option<Due<K>>, Failure> {
        if !clock.may_be_due() {
            return Ok(None);
        }
        if clock.page.is_empty() {
            let page = turn.ctx.state().map(&self.due).page(None, PAGE).await?;
            clock.page = page.into_iter().map(|(due, ())| due).collect();
        }
        clock.kept.earliest = clock.page.front().map(|due| due.at);
        if !clock.may_be_due() {
            return Ok(None);
        }
        if *turn.budget == 0 {
            clock.left = clock.kept.earliest;
            turn.more = !cfg!(steadfast_bug = "close_some_windows_only");
            return Ok(None);
        }
        *turn.budget -= 1;
        let first = clock.page.pop_front();
        if let Some(due) = &first {
            turn.ctx.state().map(&self.due).remove(due)?;
        }
        Ok(first)
    }
}
