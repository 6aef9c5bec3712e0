//! Items gathered in windows, a value for each key and window, put out when the window is over.
//!
//! # Invariants
//! - A window is put out once when the mark passes its end, and once more, as a revision, for each late item that it still takes.
//! - An item that no window takes any more goes where the stage says, and is counted.
//! - What is open of a key lies under that key; when it is due lies in the order of that, so that what is not due is not looked at.
//! - A window that has something in it has an entry among what is due, at or before the time at which it is.

use std::marker::PhantomData;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::due::{Clock, Due, Timers};
use super::flow::Flow;
use super::inputs::Sources;
use super::names;
use super::pipe::{Flowed, Mark, Operator, Timed, Turning};
use super::runner::StageActor;
use super::time::millis;
use super::window::Spans;
use crate::actor::{CellMap, Context, Failure, MapKey, Message};
use crate::clock::Timestamp;
use crate::topic::Topic;

/// The result of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Windowed<K, A> {
    /// The key.
    pub key: K,
    /// When the window begins; a session with its first item.
    pub start: Timestamp,
    /// When it ends: the first moment that is not in it. A session ends its gap after its last item.
    pub end: Timestamp,
    /// What was gathered.
    pub value: A,
    /// How often this window was put out before: 0 the first time, more when late items have changed it.
    pub revision: u32,
}

/// Says of [`Windows`] that they are sessions, which may have to be merged.
#[derive(Debug)]
pub struct Sessions;

/// Windows of a key, from [`Keyed::window`](super::Keyed::window) and [`Keyed::session`](super::Keyed::session); `fold` says what is
/// gathered in them.
#[must_use = "a stage does nothing until it has an end and is run"]
pub struct Windows<S: Sources, K, T, Kind = ()> {
    flow: Flow<S, (K, T)>,
    shape: Shape,
    what: String,
    lateness: u64,
    late: Late<S, K, T>,
    _kind: PhantomData<Kind>,
}

/// Which windows an item is in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Fixed(Spans),
    Session(u64),
}

/// Where items go that are too late.
enum Late<S: Sources, K, T> {
    Count,
    Fail,
    To(Route<S, K, T>),
}

type Route<S, K, T> = Box<dyn Fn(K, T, &mut Context<StageActor<S>>) -> Result<(), Failure> + Send + Sync>;

impl<S, K, T, Kind> Windows<S, K, T, Kind>
where
    S: Sources,
    K: MapKey + Clone + Send + Sync + 'static,
    T: Send + 'static,
{
    pub(super) fn new(flow: Flow<S, (K, T)>, shape: Shape, what: String) -> Self {
        Windows { flow, shape, what, lateness: 0, late: Late::Count, _kind: PhantomData }
    }

    /// How long after its end, by the mark of time, a window still takes items: each puts it out once more, with the next
    /// [`revision`](Windowed::revision). Default: not at all.
    pub fn lateness(mut self, lateness: Duration) -> Self {
        self.lateness = millis(lateness);
        self
    }

    /// Items that are too late are published there. Without this and [`late_fails`](Windows::late_fails) they are dropped, counted
    /// ([`StageRef::late`](super::StageRef::late)) and logged.
    pub fn late_to(mut self, topic: &Topic<T>) -> Self
    where
        T: Message,
    {
        let topic = topic.clone();
        self.late = Late::To(Box::new(move |_, item, ctx| {
            ctx.publish(&topic, item)?;
            Ok(())
        }));
        self
    }

    /// An event with an item that is too late goes to the dead letters, and nothing of its turn exists.
    pub fn late_fails(mut self) -> Self {
        self.late = Late::Fail;
        self
    }

    fn fold_with<A, N, F, M>(self, init: N, fold: F, merge: M) -> Flow<S, Windowed<K, A>>
    where
        A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        N: Fn() -> A + Send + Sync + 'static,
        F: Fn(&mut A, &T) + Send + Sync + 'static,
        M: Fn(&mut A, A) + Send + Sync + 'static,
    {
        let Windows { mut flow, shape, what, lateness, late, .. } = self;
        let slot = flow.slot(what);
        flow.then(Gather {
            open: CellMap::new(names::kept(slot), 1),
            timers: Timers::new(slot),
            shape,
            lateness,
            late,
            init,
            fold,
            merge,
        })
    }
}

impl<S, K, T> Windows<S, K, T>
where
    S: Sources,
    K: MapKey + Clone + Send + Sync + 'static,
    T: Send + 'static,
{
    /// Gathers the items of each window into a value, and puts it out when the window is over. The values of the windows an item is
    /// in are read and written with each item: keep them small.
    pub fn fold<A, N, F>(self, init: N, fold: F) -> Flow<S, Windowed<K, A>>
    where
        A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        N: Fn() -> A + Send + Sync + 'static,
        F: Fn(&mut A, &T) + Send + Sync + 'static,
    {
        self.fold_with(init, fold, |_, _| {})
    }
}

impl<S, K, T> Windows<S, K, T, Sessions>
where
    S: Sources,
    K: MapKey + Clone + Send + Sync + 'static,
    T: Send + 'static,
{
    /// As the [`fold`](Windows::fold) of windows; `merge` makes one of the values of two sessions between which an item came.
    pub fn fold<A, N, F, M>(self, init: N, fold: F, merge: M) -> Flow<S, Windowed<K, A>>
    where
        A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        N: Fn() -> A + Send + Sync + 'static,
        F: Fn(&mut A, &T) + Send + Sync + 'static,
        M: Fn(&mut A, A) + Send + Sync + 'static,
    {
        self.fold_with(init, fold, merge)
    }
}

/// One window of a key that takes items.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Open<A> {
    start: u64,
    end: u64,
    value: A,
    /// How often it was put out.
    sent: u32,
    /// It was put out since its end came to where it is.
    closed: bool,
}

impl<A> Open<A> {
    /// When something is to be done about it.
    fn due(&self, lateness: u64) -> u64 {
        if self.closed { self.end.saturating_add(lateness) } else { self.end }
    }
}

struct Gather<S: Sources, K, T, A, N, F, M> {
    open: CellMap<K, Vec<Open<A>>>,
    timers: Timers<K>,
    shape: Shape,
    lateness: u64,
    late: Late<S, K, T>,
    init: N,
    fold: F,
    merge: M,
}

impl<S, K, T, A, N, F, M> Operator<S, (K, T), Windowed<K, A>> for Gather<S, K, T, A, N, F, M>
where
    S: Sources,
    K: MapKey + Clone + Send + Sync + 'static,
    T: Send + 'static,
    A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    N: Fn() -> A + Send + Sync + 'static,
    F: Fn(&mut A, &T) + Send + Sync + 'static,
    M: Fn(&mut A, A) + Send + Sync + 'static,
{
    async fn through(
        &self,
        came: Flowed<(K, T)>,
        turn: &mut Turning<'_, S>,
    ) -> Result<Flowed<Windowed<K, A>>, Failure> {
        let mut clock = self.timers.clock(turn)?;
        let mut out = Vec::new();
        for Timed { item: (key, item), at } in came.items {
            self.add(key, item, at.as_millis(), &mut clock, turn, &mut out).await?;
        }
        clock.move_to(came.mark.until);
        while let Some(due) = self.timers.next(&mut clock, turn).await? {
            self.close(due, &mut clock, turn, &mut out).await?;
        }
        if came.mark.by_clock {
            clock.wake(turn);
        }
        let until = clock.passed();
        self.timers.keep(clock, turn)?;
        Ok(Flowed { items: out, mark: Mark { until, by_clock: came.mark.by_clock } })
    }
}

type Out<K, A> = Vec<Timed<Windowed<K, A>>>;

impl<S, K, T, A, N, F, M> Gather<S, K, T, A, N, F, M>
where
    S: Sources,
    K: MapKey + Clone + Send + Sync + 'static,
    T: Send + 'static,
    A: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    N: Fn() -> A + Send + Sync + 'static,
    F: Fn(&mut A, &T) + Send + Sync + 'static,
    M: Fn(&mut A, A) + Send + Sync + 'static,
{
    async fn add(
        &self,
        key: K,
        item: T,
        at: u64,
        clock: &mut Clock<K>,
        turn: &mut Turning<'_, S>,
        out: &mut Out<K, A>,
    ) -> Result<(), Failure> {
        let mut open = turn.ctx.state().map(&self.open).get(&key).await?.unwrap_or_default();
        let touched = match self.shape {
            Shape::Fixed(spans) => self.add_to_each(spans, &item, at, clock, &mut open),
            Shape::Session(gap) => self.add_to_session(gap, &item, at, clock, &mut open),
        };
        if touched.is_empty() {
            return self.too_late(key, item, at, clock, turn);
        }
        for Touched { start, is_new } in touched {
            let Some(window) = open.iter_mut().find(|window| window.start == start) else { continue };
            if is_new {
                let due = Due { at: window.due(self.lateness), start, key: key.clone() };
                self.timers.add(&due, clock, turn)?;
            }
            if window.closed {
                out.push(put_out(&key, window));
            }
        }
        turn.ctx.state().map(&self.open).insert(&key, &open)?;
        Ok(())
    }

    /// Adds an item to the windows it is in and that still take it.
    fn add_to_each(
        &self,
        spans: Spans,
        item: &T,
        at: u64,
        clock: &Clock<K>,
        open: &mut Vec<Open<A>>,
    ) -> Vec<Touched> {
        let mut touched = Vec::new();
        for (start, end) in spans.of(at) {
            if self.is_over(end, clock) {
                continue;
            }
            let is_new = !open.iter().any(|window| window.start == start);
            if is_new {
                open.push(Open { start, end, value: (self.init)(), sent: 0, closed: false });
            }
            if let Some(window) = open.iter_mut().find(|window| window.start == start) {
                (self.fold)(&mut window.value, item);
            }
            touched.push(Touched { start, is_new });
        }
        touched
    }

    /// Makes one session of an item and all sessions it is within the gap of.
    fn add_to_session(
        &self,
        gap: u64,
        item: &T,
        at: u64,
        clock: &Clock<K>,
        open: &mut Vec<Open<A>>,
    ) -> Vec<Touched> {
        let end = at.saturating_add(gap);
        let meets = |window: &Open<A>| window.start < end && at < window.end;
        let last = open.iter().filter(|window| meets(window)).map(|window| window.end).fold(end, u64::max);
        if self.is_over(last, clock) {
            return Vec::new();
        }
        let (mut met, mut others): (Vec<_>, Vec<_>) = std::mem::take(open).into_iter().partition(meets);
        met.sort_by_key(|window| window.start);
        // its timer is found by where it begins; one that is due too early is only looked at too early
        let is_known = matches!(&met[..], [one] if one.start <= at && !one.closed);
        let mut met = met.into_iter();
        let new = || Open { start: at, end, value: (self.init)(), sent: 0, closed: false };
        let mut session = met.next().unwrap_or_else(new);
        for other in met {
            (self.merge)(&mut session.value, other.value);
            (session.end, session.sent) = (session.end.max(other.end), session.sent.max(other.sent));
        }
        (self.fold)(&mut session.value, item);
        session.start = session.start.min(at);
        session.end = session.end.max(end);
        session.closed = session.sent > 0 && session.end <= clock.watermark();
        let touched = vec![Touched { start: session.start, is_new: !is_known }];
        others.push(session);
        *open = others;
        touched
    }

    /// Whether a window with this end takes nothing any more.
    fn is_over(&self, end: u64, clock: &Clock<K>) -> bool {
        end.saturating_add(self.lateness) <= clock.watermark()
            && !cfg!(steadfast_bug = "take_what_is_too_late")
    }

    fn too_late(
        &self,
        key: K,
        item: T,
        at: u64,
        clock: &mut Clock<K>,
        turn: &mut Turning<'_, S>,
    ) -> Result<(), Failure> {
        let late = clock.count_late();
        match &self.late {
            Late::To(route) => route(key, item, turn.ctx),
            Late::Fail => {
                Err(Failure::new(format!("it happened at {at} ms, and its windows are over")).terminal())
            }
            Late::Count => {
                tracing::warn!(
                    stage = turn.ctx.name(),
                    at,
                    late,
                    "an item was too late for its windows, and is dropped"
                );
                Ok(())
            }
        }
    }

    /// A window may be due.
    async fn close(
        &self,
        due: Due<K>,
        clock: &mut Clock<K>,
        turn: &mut Turning<'_, S>,
        out: &mut Out<K, A>,
    ) -> Result<(), Failure> {
        let mut open = turn.ctx.state().map(&self.open).get(&due.key).await?.unwrap_or_default();
        let Some(index) = open.iter().position(|window| window.start == due.start) else { return Ok(()) };
        let Some(window) = open.get_mut(index) else { return Ok(()) };
        let really = window.due(self.lateness);
        if really > due.at {
            let again = Due { at: really, ..due };
            return self.timers.add(&again, clock, turn);
        }
        let is_first = !window.closed;
        if is_first {
            out.push(put_out(&due.key, window));
            window.closed = true;
        }
        if is_first && self.lateness > 0 {
            let again = Due { at: window.due(self.lateness), start: due.start, key: due.key.clone() };
            self.timers.add(&again, clock, turn)?;
        } else {
            open.remove(index);
        }
        let mut map = turn.ctx.state().map(&self.open);
        match open.is_empty() {
            true => map.remove(&due.key)?,
            false => map.insert(&due.key, &open)?,
        }
        Ok(())
    }
}

/// A window an item was added to.
struct Touched {
    start: u64,
    /// Nothing is noted of when it is due.
    is_new: bool,
}

/// The result of a window, which happened in its last moment.
fn put_out<K: Clone, A: Clone>(key: &K, window: &mut Open<A>) -> Timed<Windowed<K, A>> {
    let revision = window.sent;
    window.sent += 1;
    let (start, end) = (Timestamp::from_millis(window.start), Timestamp::from_millis(window.end));
    let item = Windowed { key: key.clone(), start, end, value: window.value.clone(), revision };
    Timed { item, at: Timestamp::from_millis(window.end.saturating_sub(1)) }
}
