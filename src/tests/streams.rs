//! Streams: stages, sources and sinks, asked for what they promise.

mod bus;
mod chains;
mod sinks;
mod sources;
mod stages;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::world::*;
use crate::testkit::run_until_idle;
use crate::{Message, StartFrom, System, Timestamp, Topic};

/// A purchase: what the tests' topics are of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Buy {
    who: String,
    at: u64,
    cents: u64,
}

impl Message for Buy {
    type Reply = ();
    const NAME: &'static str = "test.buy";
}

/// Something that came out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Line(String);

impl Message for Line {
    type Reply = ();
    const NAME: &'static str = "test.line";
}

fn buy(who: &str, at: u64, cents: u64) -> Buy {
    Buy { who: who.into(), at, cents }
}

fn time(buy: &Buy) -> Timestamp {
    Timestamp::from_millis(buy.at)
}

fn line(text: impl ToString) -> Line {
    Line(text.to_string())
}

async fn buys(system: &System) -> Topic<Buy> {
    system.topic("buys").await.expect("opens")
}

async fn lines_topic(system: &System, name: &str) -> Topic<Line> {
    system.topic(name).await.expect("opens")
}

/// All that is in a topic now, once nobody has work.
async fn all_of(system: &System, topic: &Topic<Line>) -> Vec<String> {
    soon(run_until_idle(system)).await.expect("idle");
    let events = topic.read_to_end(StartFrom::Earliest).await.expect("reads");
    soon(events.map(|given| given.expect("readable").event.0).collect::<Vec<_>>()).await
}
