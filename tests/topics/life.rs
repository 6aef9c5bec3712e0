//! One life of the child: it publishes from outside and in turns, has subscribers read, stops and starts some of them, and says
//! what was acknowledged, until it is killed.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, Context, Failure, Handler, MailboxOptions, Message, RetryPolicy, SpawnError, StartFrom,
    System, Topic,
};
use tokio::task::JoinSet;

use super::child;
use super::plan::{FAN, Fault, Habit, Happened, PLAIN, Plan, SHORT, builder, group, topic};
use super::readers;

/// Sources whose events are published in turns.
pub(crate) const TELLERS: u32 = 100;

/// Publishes to both plain topics in one turn.
struct Teller {
    plan: Plan,
    plain: [Topic<Happened>; 2],
}

/// The events that are to be published.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Tell {
    source: u32,
    number: u64,
}

impl Message for Tell {
    type Reply = ();
    const NAME: &'static str = "test.tell";
}

impl Actor for Teller {
    const NAME: &'static str = "test.teller";
    type Messages = (Tell,);

    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().retry(RetryPolicy::immediately(9))
    }
}

impl Handler<Tell> for Teller {
    async fn handle(&mut self, told: Tell, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let Tell { source, number } = told;
        for (topic, of) in self.plain.iter().zip([3, 2]) {
            if self.plan.fault == Some(Fault::PublishesHalf) && of == 2 && number % 5 == 0 {
                continue;
            }
            for event in group(source, number, of) {
                if self.plan.fault == Some(Fault::PublishesPastTheTurn) {
                    topic.publish(event).outside_turn().await?;
                } else {
                    ctx.publish(topic, event)?;
                }
            }
        }
        let times = self.plan.chance((source, number), 6).saturating_sub(3);
        if u64::from(ctx.attempt()) <= times { Err(Failure::new("at random")) } else { Ok(()) }
    }
}

/// What is told outlives the life in which it was: the teller runs in the check too.
pub(crate) async fn start_teller(system: &System, plan: Plan) -> Result<(), SpawnError> {
    let plain = [topic(system, PLAIN[0]).await, topic(system, PLAIN[1]).await];
    system.spawn("teller", move || Teller { plan, plain: plain.clone() }).await?;
    Ok(())
}

/// Returns only when something went wrong.
pub(crate) async fn live(store: &Path, life: u64) {
    let plan = Plan::of_child();
    let system = builder().open(store).await.expect("opens");
    let mut tasks = JoinSet::new();
    start_teller(&system, plan).await.expect("starts");
    for reader in plan.readers() {
        let runs = match reader.habit {
            Habit::Steady | Habit::Gathers => true,
            Habit::Restless => {
                tasks.spawn(come_and_go(system.clone(), plan, life, reader.clone()));
                false
            }
            Habit::Late => life > plan.lives / 2,
            Habit::Witness => false,
        };
        if runs {
            readers::start(&system, plan, &reader).await.expect("starts");
        }
    }
    if plan.fault == Some(Fault::Skips) {
        tasks.spawn(skip(system.clone()));
    }
    for (source, name) in (0..).zip([PLAIN[0], PLAIN[1], SHORT, PLAIN[0], PLAIN[1], SHORT]) {
        let publisher = Publisher::open(&system, plan, life, source, name).await;
        tasks.spawn(publisher.publish_until_killed(14));
    }
    tasks.spawn(Publisher::open(&system, plan, life, 50, FAN).await.publish_until_killed(60));
    for source in [TELLERS, TELLERS + 1] {
        tasks.spawn(tell_until_killed(system.clone(), plan, life, source));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("goes on until it is killed");
    }
}

/// The numbers of a source in one life.
fn numbers(life: u64) -> impl Iterator<Item = u64> {
    life * 1_000_000..
}

struct Publisher {
    plan: Plan,
    life: u64,
    source: u32,
    topic: Topic<Happened>,
}

impl Publisher {
    async fn open(system: &System, plan: Plan, life: u64, source: u32, name: &str) -> Self {
        Publisher { plan, life, source, topic: topic(system, name).await }
    }

    /// `pause_ms`: at most, between two.
    async fn publish_until_killed(self, pause_ms: u64) {
        for number in numbers(self.life) {
            let sequences = self.publish(number).await;
            let sequences: Vec<_> = sequences.iter().map(u64::to_string).collect();
            let (topic, source) = (self.topic.name(), self.source);
            child::say(&format!("published {topic} {source} {number} {}", sequences.join(" ")));
            let pause = self.plan.chance((self.source, number, "pause"), pause_ms + 1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// One event or several at once, with their sequence numbers.
    async fn publish(&self, number: u64) -> Vec<u64> {
        let of = self.plan.chance((self.source, number, "of"), 5) as u32 + 1;
        let events = group(self.source, number, of);
        if of == 1 || self.plan.fault == Some(Fault::PublishesOneByOne) {
            let mut sequences = Vec::new();
            for event in events {
                let published = self.topic.publish(event).await.expect("accepted");
                sequences.extend(published.sequence);
            }
            return sequences;
        }
        let published = self.topic.publish_all(events).await.expect("accepted");
        published.iter().filter_map(|published| published.sequence).collect()
    }
}

async fn tell_until_killed(system: System, plan: Plan, life: u64, source: u32) {
    let teller: ActorRef<Teller> = system.lookup("teller").await.expect("was started");
    for number in numbers(life) {
        let told = format!("told {source} {number}");
        if plan.fault == Some(Fault::AcknowledgesEarly) {
            child::say(&told);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        teller.tell(Tell { source, number }).await.expect("accepted");
        child::say(&told);
        let pause = plan.chance((source, number, "pause"), 12);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Stops and starts a subscriber; in some lives it does not run for long.
async fn come_and_go(system: System, plan: Plan, life: u64, reader: super::plan::ReaderPlan) {
    for step in 0_u64.. {
        let draw = |what: &str, below| plan.chance((&reader.name, life, step, what), below);
        let absence = if draw("long", 3) == 0 { 1500 } else { 60 };
        tokio::time::sleep(Duration::from_millis(draw("absence", absence))).await;
        let running = readers::start(&system, plan, &reader).await.expect("starts");
        tokio::time::sleep(Duration::from_millis(draw("presence", 80))).await;
        match draw("end", 2) {
            0 => running.stop().await,
            _ => running.park().await,
        }
    }
}

/// Moves a subscription past an event now and then.
async fn skip(system: System) {
    let subscription = system.subscription("steady-plain-0").await.expect("there is one");
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let position = subscription.info().await.expect("readable").position;
        subscription.seek(StartFrom::Sequence(position + 1)).await.expect("moves");
    }
}
