//! What takes the place of an event that cannot be handled.

use std::sync::Arc;

use super::inputs::Sources;
use super::pipe::{Came, Flowed, Mark, Moved, Pipe, Timed, Turning};

/// The operators before it, unless they have failed too often.
pub(super) struct Fallback<S, T, F> {
    pub(super) before: Arc<dyn Pipe<S, T>>,
    pub(super) instead: F,
}

impl<S, T, I, F> Pipe<S, T> for Fallback<S, T, F>
where
    S: Sources,
    T: Send + 'static,
    I: IntoIterator<Item = T>,
    F: Fn(S::Item) -> I + Send + Sync + 'static,
{
    fn push<'a>(&'a self, item: S::Item, turn: &'a mut Turning<'_, S>) -> Came<'a, T> {
        if !turn.spent {
            return self.before.push(item, turn);
        }
        Box::pin(async move {
            let at = turn.at;
            let items = (self.instead)(item).into_iter().map(|item| Timed { item, at }).collect();
            Ok(Flowed { items, mark: Mark::default() })
        })
    }

    fn wake<'a>(&'a self, moved: Moved, turn: &'a mut Turning<'_, S>) -> Came<'a, T> {
        self.before.wake(moved, turn)
    }
}
