//! What time it is for a stage: as its events say, or as the clock does.

use std::time::Duration;

use super::inputs::Sources;
use super::names;
use super::pipe::{Flowed, Mark, Operator, Timed, Turning};
use crate::actor::{Cell, Failure};
use crate::clock::Timestamp;

/// Events say when they happened.
pub(super) struct ByEvent<F> {
    /// Up to where everything is taken to have come.
    watermark: Cell<u64>,
    at: F,
    out_of_order: u64,
}

impl<F> ByEvent<F> {
    pub(super) fn new(slot: usize, at: F, out_of_order: Duration) -> Self {
        ByEvent { watermark: Cell::new(names::time(slot), 1), at, out_of_order: millis(out_of_order) }
    }
}

impl<S, T, F> Operator<S, T, T> for ByEvent<F>
where
    S: Sources,
    T: Send + 'static,
    F: Fn(&T) -> Timestamp + Send + Sync + 'static,
{
    async fn through(&self, came: Flowed<T>, turn: &mut Turning<'_, S>) -> Result<Flowed<T>, Failure> {
        let before = turn.ctx.state().get(&self.watermark)?.unwrap_or_default();
        let mut watermark = before.max(came.mark.until.as_millis());
        let mut items = came.items;
        for Timed { item, at } in &mut items {
            *at = (self.at)(item);
            watermark = watermark.max(at.as_millis().saturating_sub(self.out_of_order));
        }
        if watermark != before && !cfg!(steadfast_bug = "forget_the_watermark") {
            turn.ctx.state().set(&self.watermark, &watermark)?;
        }
        let mark = Mark { until: Timestamp::from_millis(watermark), by_clock: false };
        Ok(Flowed { items, mark })
    }
}

/// The system's clock says it.
pub(super) struct ByClock;

impl<S: Sources, T: Send + 'static> Operator<S, T, T> for ByClock {
    async fn through(&self, came: Flowed<T>, turn: &mut Turning<'_, S>) -> Result<Flowed<T>, Failure> {
        let now = turn.ctx.now();
        let items = came.items.into_iter().map(|Timed { item, .. }| Timed { item, at: now }).collect();
        Ok(Flowed { items, mark: Mark { until: now.max(came.mark.until), by_clock: true } })
    }
}

/// Whole milliseconds, at most as many as there are.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
