//! What a run is made of: events, topics, who reads them, chance, and the faults that can be planted in a child to see that
//! the checker notices them. A seed decides all but the times at which the machine gets to things.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use steadfast::{AdminError, Message, Retention, StartFrom, Subscription, System, SystemBuilder, Topic};

/// Topics that keep every event.
pub(crate) const PLAIN: [&str; 2] = ["plain-0", "plain-1"];
/// One that keeps the last few.
pub(crate) const SHORT: &str = "short";
/// One that is read by many.
pub(crate) const FAN: &str = "fan";
/// How many events [`SHORT`] keeps.
const KEPT: u64 = 40;

/// One of the events that a source has published together: they have one number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Happened {
    pub(crate) source: u32,
    /// Counts up in each source.
    pub(crate) number: u64,
    pub(crate) part: u32,
    /// How many were published together.
    pub(crate) of: u32,
}

impl Message for Happened {
    type Reply = ();
    const NAME: &'static str = "test.happened";
}

/// All that were published together.
pub(crate) fn group(source: u32, number: u64, of: u32) -> impl Iterator<Item = Happened> {
    (0..of).map(move |part| Happened { source, number, part, of })
}

pub(crate) async fn topic(system: &System, name: &str) -> Topic<Happened> {
    let retention = if name == SHORT { Retention::forever().count(KEPT) } else { Retention::forever() };
    system.topic(name).retention(retention).await.expect("opens")
}

pub(crate) fn topics() -> impl Iterator<Item = &'static str> {
    PLAIN.into_iter().chain([SHORT, FAN])
}

/// Who reads a topic, and when it runs.
#[derive(Debug, Clone)]
pub(crate) struct ReaderPlan {
    pub(crate) name: String,
    pub(crate) topic: &'static str,
    pub(crate) habit: Habit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Runs in every life.
    Steady,
    /// As steady, and takes several events at once.
    Gathers,
    /// Is stopped and started at random.
    Restless,
    /// Joins in the second half of the lives.
    Late,
    /// Reads everything when all is over.
    Witness,
}

impl ReaderPlan {
    /// Where it begins. What the short topic has lost by then is to be told.
    pub(crate) fn from(&self) -> StartFrom {
        if self.topic == SHORT { StartFrom::Sequence(0) } else { StartFrom::Earliest }
    }

    /// How far its subscription has come; none if there is no such yet.
    pub(crate) async fn subscription(&self, system: &System) -> Option<Subscription> {
        match system.subscription(&self.name).await {
            Ok(subscription) => Some(subscription),
            Err(AdminError::NotFound(_)) => None,
            Err(why) => panic!("{}: {why}", self.name),
        }
    }
}

/// A fault in the code of a child: each must be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A subscriber writes its state in one turn and acknowledges in another.
    WritesInAnotherTurn,
    /// A subscriber acknowledges an event and writes it down with the next.
    WritesLater,
    /// A subscriber drops an event now and then.
    Drops,
    /// A subscriber writes two events down in the wrong order.
    Swaps,
    /// A subscriber passes over what it is told of gaps.
    HidesGaps,
    /// A subscription is moved past an event.
    Skips,
    /// Events that belong together are published one by one.
    PublishesOneByOne,
    /// A turn is acknowledged before the message for it is on disk.
    AcknowledgesEarly,
    /// A turn publishes at once and not as part of itself.
    PublishesPastTheTurn,
    /// A turn publishes half of what it should.
    PublishesHalf,
}

impl Fault {
    const ALL: [Fault; 10] = [
        Fault::WritesInAnotherTurn,
        Fault::WritesLater,
        Fault::Drops,
        Fault::Swaps,
        Fault::HidesGaps,
        Fault::Skips,
        Fault::PublishesOneByOne,
        Fault::AcknowledgesEarly,
        Fault::PublishesPastTheTurn,
        Fault::PublishesHalf,
    ];
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// How many children are killed, one after the other.
    pub(crate) lives: u64,
    /// How many subscribers [`FAN`] has.
    pub(crate) fan: u64,
    pub(crate) fault: Option<Fault>,
}

/// The plan's way to the child.
pub(crate) const PLAN: &str = "STEADFAST_TOPICS_PLAN";

impl Plan {
    pub(crate) fn to_text(self) -> String {
        let fault = self.fault.and_then(|fault| Fault::ALL.iter().position(|known| *known == fault));
        let fault = fault.map_or("none".into(), |fault| fault.to_string());
        format!("{} {} {} {fault}", self.seed, self.lives, self.fan)
    }

    /// In the child.
    pub(crate) fn of_child() -> Plan {
        let text = std::env::var(PLAN).expect("the parent sets it");
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("a number");
        let fault = words[3].parse::<usize>().ok().map(|at| Fault::ALL[at]);
        Plan { seed: number(0), lives: number(1), fan: number(2), fault }
    }

    pub(crate) fn readers(self) -> Vec<ReaderPlan> {
        let mut readers = Vec::new();
        let mut add = |name: String, topic, habit| readers.push(ReaderPlan { name, topic, habit });
        for topic in PLAIN.into_iter().chain([SHORT]) {
            add(format!("steady-{topic}"), topic, Habit::Steady);
            add(format!("gathers-{topic}"), topic, Habit::Gathers);
            add(format!("restless-{topic}"), topic, Habit::Restless);
            add(format!("late-{topic}"), topic, Habit::Late);
        }
        for topic in topics() {
            add(format!("witness-{topic}"), topic, Habit::Witness);
        }
        for number in 0..self.fan {
            add(format!("fan-{number}"), FAN, Habit::Steady);
        }
        readers
    }

    /// Chance: the same for the same seed and the same `of`.
    pub(crate) fn chance(self, of: impl Hash, below: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, of).hash(&mut hasher);
        hasher.finish() % below
    }
}

/// Small, so that segments are filled and checkpoints made all the time.
pub(crate) fn builder() -> SystemBuilder {
    let builder = System::builder().max_message(16 << 10).journal_segment(256 << 10).overlay(256 << 10);
    builder.ballast(0).mark_every(std::time::Duration::from_millis(50))
}
