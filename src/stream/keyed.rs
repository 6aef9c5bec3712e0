//! What is kept for each key: values that items are scanned into.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StageError;
use super::flow::Flow;
use super::inputs::Sources;
use super::names;
use super::pipe::{Flowed, Operator, Timed, Turning};
use super::window::{Window, check_time};
use super::windowed::{Shape, Windows};
use crate::actor::{CellMap, Failure, MapKey};

/// A [`Flow`] whose items have keys; from [`Flow::key_by`].
#[must_use = "a stage does nothing until it has an end and is run"]
pub struct Keyed<S: Sources, K, T> {
    pub(super) flow: Flow<S, (K, T)>,
}

impl<S, K, T> Keyed<S, K, T>
where
    S: Sources,
    K: MapKey + Clone + Send + Sync + 'static,
    T: Send + 'static,
{
    /// Keeps a value for each key, and makes any number of items of it and each item that comes. The value is kept for ever: it is
    /// read and written by key, so there may be millions.
    pub fn scan<V, U, I, F>(mut self, init: impl Fn() -> V + Send + Sync + 'static, scan: F) -> Flow<S, U>
    where
        V: Serialize + DeserializeOwned + Send + 'static,
        U: Send + 'static,
        I: IntoIterator<Item = U>,
        F: Fn(&mut V, &K, T) -> I + Send + Sync + 'static,
    {
        let slot = self.flow.slot("scan".into());
        self.flow.then(Scan { kept: CellMap::new(names::kept(slot), 1), init, scan })
    }

    /// Gathers the items of each key in windows.
    pub fn window(mut self, window: Window) -> Windows<S, K, T> {
        let spans = window.check(&self.flow.name);
        self.needs_time("a window");
        let shape = self.or_refuse(spans.map(Shape::Fixed));
        Windows::new(self.flow, shape, window.describe())
    }

    /// Gathers the items of each key in sessions: one ends when nothing came for as long as `gap`.
    pub fn session(mut self, gap: Duration) -> Windows<S, K, T, super::Sessions> {
        let checked = check_time(&self.flow.name, "a gap", gap);
        self.needs_time("a session");
        let shape = self.or_refuse(checked.map(Shape::Session));
        Windows::new(self.flow, shape, format!("sessions with gaps of {} ms", gap.as_millis()))
    }

    /// Goes on without the keys.
    pub fn values(self) -> Flow<S, T> {
        self.flow.map(|(_, item)| item)
    }

    fn needs_time(&mut self, what: &'static str) {
        if !self.flow.is_timed {
            self.flow.refuse(StageError::NoTime { stage: self.flow.name.clone(), what });
        }
    }

    fn or_refuse(&mut self, shape: Result<Shape, StageError>) -> Shape {
        shape.unwrap_or_else(|wrong| {
            self.flow.refuse(wrong);
            // never run: the flow has no end now
            Shape::Session(1)
        })
    }
}

impl<S: Sources, T: Send + 'static> Flow<S, T> {
    /// Keeps one value, and makes any number of items of it and each item that comes.
    pub fn scan<V, U, I, F>(self, init: impl Fn() -> V + Send + Sync + 'static, scan: F) -> Flow<S, U>
    where
        V: Serialize + DeserializeOwned + Send + 'static,
        U: Send + 'static,
        I: IntoIterator<Item = U>,
        F: Fn(&mut V, T) -> I + Send + Sync + 'static,
    {
        let scan = Arc::new(scan);
        self.key_by(|_| String::new()).scan(init, move |kept, _, item| scan(kept, item))
    }
}

struct Scan<K, V, N, F> {
    kept: CellMap<K, V>,
    init: N,
    scan: F,
}

impl<S, K, T, V, U, I, N, F> Operator<S, (K, T), U> for Scan<K, V, N, F>
where
    S: Sources,
    K: MapKey + Send + Sync + 'static,
    T: Send + 'static,
    V: Serialize + DeserializeOwned + Send + 'static,
    U: Send + 'static,
    I: IntoIterator<Item = U>,
    N: Fn() -> V + Send + Sync + 'static,
    F: Fn(&mut V, &K, T) -> I + Send + Sync + 'static,
{
    async fn through(&self, came: Flowed<(K, T)>, turn: &mut Turning<'_, S>) -> Result<Flowed<U>, Failure> {
        let mut items = Vec::new();
        for Timed { item: (key, item), at } in came.items {
            let mut kept = turn.ctx.state().map(&self.kept).get(&key).await?.unwrap_or_else(&self.init);
            items.extend((self.scan)(&mut kept, &key, item).into_iter().map(|item| Timed { item, at }));
            if !cfg!(steadfast_bug = "scan_without_keeping") {
                turn.ctx.state().map(&self.kept).insert(&key, &kept)?;
            }
        }
        Ok(Flowed { items, mark: came.mark })
    }
}
