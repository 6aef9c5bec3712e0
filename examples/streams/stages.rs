//! The three stages, and what they put out.

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{Message, PublishOptions, System, Topic, Window, Windowed};

use super::orders::{DAY, Order};

const A_DAY: Duration = Duration::from_millis(DAY);
pub(crate) const STAGES: [&str; 3] = ["revenue", "best", "sessions"];
pub(crate) const BEST: usize = 10;
/// Sliding windows, in days.
pub(crate) const SIZE: u64 = 28;
pub(crate) const SLIDE: u64 = 7;
/// The break that ends a session, in days.
pub(crate) const BREAK: u64 = 30;
/// Events in one commit.
const BATCH: usize = 64;
const LINGER: Duration = Duration::from_millis(2);

/// What a cohort brought in on a day. A cohort is the customers whose first order was in the same month of 30 days.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Revenue {
    pub(crate) day: u64,
    pub(crate) cohort: u64,
    pub(crate) orders: u64,
    pub(crate) cents: u64,
}

/// The best customers of some days.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Best {
    /// The day before which the days end.
    pub(crate) end: u64,
    /// The best first.
    pub(crate) customers: Vec<(u64, String)>,
}

/// A time in which a customer bought again and again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) customer: String,
    pub(crate) from: u64,
    pub(crate) orders: u64,
    pub(crate) cents: u64,
}

macro_rules! messages {
    ($($Message:ident $name:literal),+) => {
        $(impl Message for $Message {
            type Reply = ();
            const NAME: &'static str = $name;
        })+
    };
}
messages!(Revenue "streams.revenue", Best "streams.best", Session "streams.session");

pub(crate) fn cohort(first: u64) -> u64 {
    first / (30 * DAY)
}

/// Keeps the best of those that were kept and one more.
pub(crate) fn keep_best(best: &mut Vec<(u64, String)>, cents: u64, customer: &str) {
    best.push((cents, customer.to_owned()));
    best.sort_by(|(more, a), (less, b)| less.cmp(more).then(a.cmp(b)));
    best.truncate(BEST);
}

/// The topics that the stages publish to.
pub(crate) struct Results {
    pub(crate) revenue: Topic<Revenue>,
    pub(crate) best: Topic<Best>,
    pub(crate) sessions: Topic<Session>,
}

impl Results {
    pub(crate) async fn open(system: &System) -> Result<Self, Box<dyn Error>> {
        Ok(Results {
            revenue: system.topic("revenue").await?,
            best: system.topic("best").await?,
            sessions: system.topic("sessions").await?,
        })
    }
}

type Running = steadfast::StageRef<steadfast::One<Order>>;

/// Runs them all.
pub(crate) async fn run(system: &System, orders: &Topic<Order>) -> Result<[Running; 3], Box<dyn Error>> {
    let results = Results::open(system).await?;
    let timed = |name| orders.stage(name).event_time(Order::time, Duration::ZERO);

    let revenue = timed(STAGES[0])
        .key_by(|order| order.customer.clone())
        .scan(
            || None,
            |first: &mut Option<u64>, _, order| {
                let first = *first.get_or_insert(order.at);
                Some((cohort(first), order.cents))
            },
        )
        .key_by(|(cohort, _)| *cohort)
        .window(Window::tumbling(A_DAY))
        .fold(
            || (0, 0),
            |(orders, sum): &mut (u64, u64), (_, cents)| (*orders, *sum) = (*orders + 1, *sum + cents),
        )
        .map(|Windowed { key: cohort, start, value: (orders, cents), .. }| Revenue {
            day: start.as_millis() / DAY,
            cohort,
            orders,
            cents,
        })
        .to_with(&results.revenue, |revenue| PublishOptions::new().key(revenue.cohort.to_string()))?;

    let best = timed(STAGES[1])
        .key_by(|order| order.customer.clone())
        .window(Window::sliding(A_DAY * SIZE as u32, A_DAY * SLIDE as u32))
        .fold(|| 0, |sum, order: &Order| *sum += order.cents)
        // what ends together happened together
        .key_by(|_| String::new())
        .window(Window::tumbling(A_DAY * SLIDE as u32))
        .fold(Vec::new, |best, one: &Windowed<String, u64>| keep_best(best, one.value, &one.key))
        .map(|Windowed { end, value: customers, .. }| Best { end: end.as_millis() / DAY, customers })
        .to(&results.best)?;

    let sessions = timed(STAGES[2])
        .key_by(|order| order.customer.clone())
        .session(A_DAY * BREAK as u32)
        .fold(
            || (0, 0),
            |(orders, sum): &mut (u64, u64), order: &Order| {
                (*orders, *sum) = (*orders + 1, *sum + order.cents)
            },
            |(orders, sum), (more, cents)| (*orders, *sum) = (*orders + more, *sum + cents),
        )
        .map(|Windowed { key: customer, start, value: (orders, cents), .. }| Session {
            customer,
            from: start.as_millis() / DAY,
            orders,
            cents,
        })
        .to(&results.sessions)?;

    Ok([
        system.run_stage(revenue.batch(BATCH, LINGER)?).await?,
        system.run_stage(best.batch(BATCH, LINGER)?).await?,
        system.run_stage(sessions.batch(BATCH, LINGER)?).await?,
    ])
}
