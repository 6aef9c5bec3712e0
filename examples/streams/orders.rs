//! The orders: read from a file or made up, in the order of their dates, as a shop gets them.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};
use steadfast::{Message, Timestamp};

pub(crate) const DAY: u64 = 24 * 60 * 60 * 1000;
const LONGEST_LINE: usize = 16 << 10;

/// An order as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order_id: u64,
    pub(crate) customer: String,
    /// Midnight of its date, in milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) cents: u64,
}

impl Message for Order {
    type Reply = ();
    const NAME: &'static str = "streams.order";
}

impl Order {
    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.at)
    }
}

/// A line of the input.
#[derive(Deserialize)]
struct Line {
    order_id: u64,
    customer: String,
    date: String,
    total_cents: u32,
}

/// All orders by date, and how many lines were none.
pub(crate) fn read(input: Option<&Path>) -> Result<(Vec<Order>, u64), Box<dyn Error>> {
    let Some(input) = input else { return Ok((made_up(), 0)) };
    let file = File::open(input).map_err(|why| format!("{} cannot be read: {why}", input.display()))?;
    let (mut orders, mut malformed) = (Vec::new(), 0);
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match parse(&line) {
            Some(order) => orders.push(order),
            None => malformed += 1,
        }
    }
    // a customer's name is part of a key, and orders of one date stay in the order of the file
    orders.sort_by_key(|order| (order.at, order.order_id));
    Ok((orders, malformed))
}

fn parse(line: &[u8]) -> Option<Order> {
    let line: Line = serde_json::from_slice(line).ok().filter(|_| line.len() <= LONGEST_LINE)?;
    let Line { order_id, customer, date, total_cents } = line;
    let at = days(&date)? * DAY;
    (customer.len() <= 256).then_some(Order { order_id, customer, at, cents: total_cents.into() })
}

/// Days from 1970-01-01 to a date, which is not before it.
fn days(date: &str) -> Option<u64> {
    let mut parts = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // years that begin in March have their odd day at the end
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let in_year = (153 * month + 2) / 5 + day - 1;
    (365 * year + year / 4 - year / 100 + year / 400 + in_year).checked_sub(719_468)
}

/// The same orders each time.
fn made_up() -> Vec<Order> {
    let mut seed = 1997_u64;
    let mut below = |end: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % end
    };
    let first = days("1997-01-01").unwrap_or_default();
    let order = |order_id| {
        let customer = format!("{:05}", 1 + below(700));
        Order {
            order_id,
            customer,
            at: (first + order_id / 14) * DAY,
            cents: (1 + below(5)) * (799 + 100 * below(12)),
        }
    };
    (1..=4_000).map(order).collect()
}
