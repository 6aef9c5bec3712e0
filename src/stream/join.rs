//! Pairs of events of two topics that have the same key and happened within a time of each other.
//!
//! # Invariants
//! - Each event is kept until no event that is not late can be its partner any more; each pair is put out once, by the later to come.
//! - Time has come as far as it has on the side that is behind: a side without events keeps the other side's.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::due::{Due, Timers};
use super::error::StageError;
use super::flow::Flow;
use super::inputs::{Side, Sources, Two};
use super::names;
use super::pipe::{Flowed, Mark, Operator, Start, Timed, Turning};
use super::time::millis;
use super::window::check_time;
use crate::actor::{Cell, CellMap, Failure, MapKey, Message};
use crate::clock::Timestamp;
use crate::durable::StartFrom;
use crate::topic::Topic;

/// How many partners are read at once.
const PAGE: usize = 64;

type TimeOf<E> = Arc<dyn Fn(&E) -> Timestamp + Send + Sync>;

/// A join being built; from [`Topic::join`].
#[must_use = "a stage does nothing until it has an end and is run"]
pub struct TopicJoin<L: Message, R: Message> {
    flow: Flow<Two<L, R>, Side<L, R>>,
    within: Duration,
    times: Option<(TimeOf<L>, TimeOf<R>)>,
    out_of_order: Duration,
}

impl<L: Message> Topic<L> {
    /// Begins a stage over the events of two topics, in pairs that happened within `within` of each other. `name` is its durable
    /// identity. Everything else is as with [`Topic::stage`].
    ///
    /// An event that happened before the watermark of the side that is behind is late: it is dropped, counted and logged.
    pub fn join<R: Message>(
        &self,
        name: impl Into<String>,
        right: &Topic<R>,
        within: Duration,
    ) -> TopicJoin<L, R> {
        let name = name.into();
        let mut flow = Flow {
            name: name.clone(),
            topics: vec![(self.name().into(), self.log()), (right.name().into(), right.log())],
            from: StartFrom::Earliest,
            pipe: Arc::new(Start) as Arc<dyn super::pipe::Pipe<Two<L, R>, Side<L, R>>>,
            keeps: Vec::new(),
            is_timed: true,
            has_fallback: false,
            wrong: None,
        };
        if self.log() == right.log() {
            flow.refuse(StageError::SameTopic { stage: name.clone(), topic: self.name().to_owned() });
        }
        if let Err(wrong) = check_time(&name, "a time", within) {
            flow.refuse(wrong);
        }
        TopicJoin { flow, within, times: None, out_of_order: Duration::ZERO }
    }
}

impl<L: Message, R: Message> TopicJoin<L, R> {
    /// Has the events say when they happened; see [`Flow::event_time`]. Without this, they happen when they are handled.
    pub fn event_time(
        mut self,
        left: impl Fn(&L) -> Timestamp + Send + Sync + 'static,
        right: impl Fn(&R) -> Timestamp + Send + Sync + 'static,
        out_of_order: Duration,
    ) -> Self {
        self.times = Some((Arc::new(left), Arc::new(right)));
        self.out_of_order = out_of_order;
        self
    }

    /// The keys of which pairs are made, and what is made of a pair.
    pub fn on<K, U, KL, KR, P>(mut self, left: KL, right: KR, pair: P) -> Flow<Two<L, R>, U>
    where
        K: MapKey + Clone + PartialEq + Send + Sync + 'static,
        U: Send + 'static,
        KL: Fn(&L) -> K + Send + Sync + 'static,
        KR: Fn(&R) -> K + Send + Sync + 'static,
        P: Fn(&L, &R) -> U + Send + Sync + 'static,
    {
        let slot = self.flow.slot(format!("join within {} ms", self.within.as_millis()));
        self.flow.then(Pairs {
            lefts: CellMap::new(names::kept(slot), 1),
            rights: CellMap::new(names::other(slot), 1),
            sides: Cell::new(names::sides(slot), 1),
            timers: Timers::new(slot),
            within: millis(self.within),
            times: self.times,
            out_of_order: millis(self.out_of_order),
            keys: (left, right),
            pair,
            _out: PhantomData,
        })
    }
}

/// An event that waits for partners: sorted by key, then by time.
#[derive(Debug, Clone, PartialEq)]
struct At<K> {
    key: K,
    at: u64,
    number: u64,
}

impl<K: MapKey> MapKey for At<K> {
    fn to_bytes(&self) -> Vec<u8> {
        let key = self.key.to_bytes();
        // keys that are too long are refused by their length as a whole
        let len = u16::try_from(key.len()).unwrap_or(u16::MAX);
        [&len.to_be_bytes()[..], &key, &self.at.to_be_bytes(), &self.number.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let len = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
        let key = K::from_bytes(bytes.get(2..2 + len)?)?;
        let number = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        Some(At { key, at: number(2 + len)?, number: number(10 + len)? })
    }
}

/// How far both sides have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Sides {
    left: u64,
    right: u64,
    /// Events so far.
    number: u64,
}

struct Pairs<L, R, K, KL, KR, P, U> {
    lefts: CellMap<At<K>, L>,
    rights: CellMap<At<K>, R>,
    sides: Cell<Sides>,
    timers: Timers<K>,
    within: u64,
    times: Option<(TimeOf<L>, TimeOf<R>)>,
    out_of_order: u64,
    keys: (KL, KR),
    pair: P,
    _out: PhantomData<fn() -> U>,
}

impl<L, R, K, U, KL, KR, P> Operator<Two<L, R>, Side<L, R>, U> for Pairs<L, R, K, KL, KR, P, U>
where
    L: Message,
    R: Message,
    K: MapKey + Clone + PartialEq + Send + Sync + 'static,
    U: Send + 'static,
    KL: Fn(&L) -> K + Send + Sync + 'static,
    KR: Fn(&R) -> K + Send + Sync + 'static,
    P: Fn(&L, &R) -> U + Send + Sync + 'static,
{
    async fn through(
        &self,
        came: Flowed<Side<L, R>>,
        turn: &mut Turning<'_, Two<L, R>>,
    ) -> Result<Flowed<U>, Failure> {
        let mut clock = self.timers.clock(turn)?;
        let before = turn.ctx.state().get(&self.sides)?.unwrap_or_default();
        let (mut sides, mut items) = (before, Vec::new());
        for Timed { item, .. } in came.items {
            let now = turn.ctx.now();
            let (key, at) = match (&item, &self.times) {
                (Side::Left(left), times) => {
                    (self.keys.0(left), times.as_ref().map_or(now, |times| times.0(left)))
                }
                (Side::Right(right), times) => {
                    (self.keys.1(right), times.as_ref().map_or(now, |times| times.1(right)))
                }
            };
            let at = at.as_millis();
            if at < clock.watermark() && self.times.is_some() {
                let late = clock.count_late();
                tracing::warn!(
                    stage = turn.ctx.name(),
                    at,
                    late,
                    "an event was too late for its partners, and is dropped"
                );
                continue;
            }
            sides.number += 1;
            let place = At { key: key.clone(), at, number: sides.number };
            let is_left = matches!(item, Side::Left(_));
            match item {
                Side::Left(left) => {
                    let partners = self.partners(&self.rights, &place, turn).await?;
                    items.extend(partners.iter().map(|right| (self.pair)(&left, right)));
                    turn.ctx.state().map(&self.lefts).insert(&place, &left)?;
                }
                Side::Right(right) => {
                    let partners = self.partners(&self.lefts, &place, turn).await?;
                    items.extend(partners.iter().map(|left| (self.pair)(left, &right)));
                    turn.ctx.state().map(&self.rights).insert(&place, &right)?;
                }
            }
            let due = at.saturating_add(self.within).saturating_add(1);
            self.timers.add(
                &Due { at: due, start: sides.number * 2 + u64::from(is_left), key },
                &mut clock,
                turn,
            )?;
            let passed = at.saturating_sub(self.out_of_order);
            match (&self.times, is_left) {
                (None, _) => (sides.left, sides.right) = (at, at),
                (Some(_), true) => sides.left = sides.left.max(passed),
                (Some(_), false) => sides.right = sides.right.max(passed),
            }
        }
        let passed = Timestamp::from_millis(sides.left.min(sides.right)).max(came.mark.until);
        clock.move_to(passed);
        while let Some(due) = self.timers.next(&mut clock, turn).await? {
            let at = due.at.saturating_sub(self.within).saturating_sub(1);
            let place = At { key: due.key, at, number: due.start / 2 };
            match due.start % 2 {
                1 => turn.ctx.state().map(&self.lefts).remove(&place)?,
                _ => turn.ctx.state().map(&self.rights).remove(&place)?,
            }
        }
        let until = clock.passed();
        self.timers.keep(clock, turn)?;
        if sides != before {
            turn.ctx.state().set(&self.sides, &sides)?;
        }
        let at = |item| Timed { item, at: until };
        Ok(Flowed { items: items.into_iter().map(at).collect(), mark: Mark { until, by_clock: false } })
    }
}

impl<L, R, K, KL, KR, P, U> Pairs<L, R, K, KL, KR, P, U>
where
    K: MapKey + Clone + PartialEq + Send + Sync + 'static,
{
    /// The events of the other side that are near enough.
    async fn partners<S: Sources, E>(
        &self,
        others: &CellMap<At<K>, E>,
        place: &At<K>,
        turn: &mut Turning<'_, S>,
    ) -> Result<Vec<E>, Failure>
    where
        E: Serialize + DeserializeOwned + Send + 'static,
    {
        let (from, to) = (place.at.saturating_sub(self.within), place.at.saturating_add(self.within));
        // numbers begin at 1
        let mut after = At { key: place.key.clone(), at: from, number: 0 };
        let mut partners = Vec::new();
        loop {
            let page = turn.ctx.state().map(others).page(Some(&after), PAGE).await?;
            let is_last = page.len() < PAGE;
            for (other, event) in page {
                if other.key != place.key || other.at > to {
                    return Ok(partners);
                }
                partners.push(event);
                after = other;
            }
            if is_last {
                return Ok(partners);
            }
        }
    }
}
