//! The same figures from the whole input at once, and how those of the stages differ from them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt;
use serde::Serialize;
use steadfast::{Message, StartFrom, System, Topic};

use super::orders::{DAY, Order};
use super::stages::{BREAK, Best, Results, Revenue, SIZE, SLIDE, Session, cohort, keep_best};

/// What is wrong with what came out.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Findings {
    pub(crate) windows: u64,
    pub(crate) windows_wrong: u64,
    pub(crate) outputs_missing: u64,
    pub(crate) outputs_doubled: u64,
}

impl Findings {
    pub(crate) fn hold(&self) -> bool {
        self.windows_wrong == 0 && self.outputs_missing == 0 && self.outputs_doubled == 0
    }

    /// Compares outputs with those wanted; `window` is which window one is of.
    fn compare<T: Ord, W: Ord>(&mut self, wanted: Vec<T>, came: Vec<T>, window: impl Fn(&T) -> W) {
        self.windows += wanted.len() as u64;
        let wanted: BTreeMap<W, T> = wanted.into_iter().map(|one| (window(&one), one)).collect();
        let mut seen = BTreeSet::new();
        for one in came {
            let its = window(&one);
            self.windows_wrong += u64::from(wanted.get(&its) != Some(&one));
            self.outputs_doubled += u64::from(!seen.insert(its));
        }
        self.outputs_missing += wanted.keys().filter(|window| !seen.contains(*window)).count() as u64;
    }
}

pub(crate) async fn check(data: &Path, orders: &[Order]) -> Result<Findings, Box<dyn Error>> {
    let system = System::open(data).await?;
    let results = Results::open(&system).await?;
    let mut findings = Findings::default();
    findings.compare(revenue(orders), all(&results.revenue).await?, |one| (one.day, one.cohort));
    findings.compare(best(orders), all(&results.best).await?, |one| one.end);
    findings.compare(sessions(orders), all(&results.sessions).await?, |one| (one.customer.clone(), one.from));
    drop(results);
    system.shutdown(Duration::from_secs(60)).await?;
    Ok(findings)
}

async fn all<E: Message>(topic: &Topic<E>) -> Result<Vec<E>, Box<dyn Error>> {
    let events = topic.read_to_end(StartFrom::Earliest).await?;
    Ok(events.map_ok(|received| received.event).try_collect().await?)
}

fn revenue(orders: &[Order]) -> Vec<Revenue> {
    let (mut first, mut days) = (HashMap::new(), BTreeMap::new());
    for order in orders {
        let first = *first.entry(&order.customer).or_insert(order.at);
        let (orders, cents) = days.entry((order.at / DAY, cohort(first))).or_insert((0, 0));
        (*orders, *cents) = (*orders + 1, *cents + order.cents);
    }
    let line = |((day, cohort), (orders, cents))| Revenue { day, cohort, orders, cents };
    days.into_iter().map(line).collect()
}

fn best(orders: &[Order]) -> Vec<Best> {
    let mut ends: BTreeMap<u64, BTreeMap<&str, u64>> = BTreeMap::new();
    for order in orders {
        let day = order.at / DAY;
        // ends after the day, begins at it or before
        let first = (day / SLIDE + 1) * SLIDE;
        for end in (first..=day + SIZE).step_by(SLIDE as usize).filter(|end| *end >= SIZE) {
            *ends.entry(end).or_default().entry(&order.customer).or_default() += order.cents;
        }
    }
    let line = |(end, sums): (u64, BTreeMap<&str, u64>)| {
        let mut customers = Vec::new();
        sums.iter().for_each(|(customer, cents)| keep_best(&mut customers, *cents, customer));
        Best { end, customers }
    };
    ends.into_iter().map(line).collect()
}

fn sessions(orders: &[Order]) -> Vec<Session> {
    let mut of: BTreeMap<&str, Vec<(u64, Session)>> = BTreeMap::new();
    for order in orders {
        let (day, all) = (order.at / DAY, of.entry(&order.customer).or_default());
        match all.last_mut() {
            Some((last, session)) if day - *last < BREAK => {
                (session.orders, session.cents) = (session.orders + 1, session.cents + order.cents);
                *last = day;
            }
            _ => {
                let customer = order.customer.clone();
                all.push((day, Session { customer, from: day, orders: 1, cents: order.cents }));
            }
        }
    }
    of.into_values().flatten().map(|(_, session)| session).collect()
}
