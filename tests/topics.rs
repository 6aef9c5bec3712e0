//! Topics in a process that is killed with signal 9 at random moments (promise G16): a child publishes from outside and in
//! turns, to topics that many subscribe to; the parent kills it, again and again on the same store, and in the end compares
//! what the subscribers wrote into their states with the acknowledgements it had read before each kill. Then the same with
//! faults planted in the child, each of which must be noticed: a checker that cannot fail would show nothing.
//!
//! Long form: `STEADFAST_ROUNDS=200 cargo test --release --test topics`. A run that fails says how to run it again.

#[path = "topics/checker.rs"]
mod checker;
mod child;
#[path = "topics/life.rs"]
mod life;
#[path = "topics/plan.rs"]
mod plan;
#[path = "topics/readers.rs"]
mod readers;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use checker::{Acknowledged, Evidence, Kind, Record, Wrong};
use plan::{Fault, PLAN, Plan, ReaderPlan, SHORT, builder, topics};
use steadfast::System;
use steadfast::testkit::run_until_idle;

const LIVES: &str = "every_event_comes_once_in_order_or_is_told_as_a_gap_through_kills";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn every_event_comes_once_in_order_or_is_told_as_a_gap_through_kills() {
    if let Some((store, life)) = child::task() {
        return runtime().block_on(life::live(&store, life));
    }
    let lives = child::setting("STEADFAST_ROUNDS", 8);
    let plan = Plan { seed: seed(), lives, fan: 50, fault: None };
    let mut run = Run::new(plan);
    let began = Instant::now();
    for life in 1..=lives {
        run.live(life);
        if life.is_multiple_of(50) || life == lives {
            let evidence = run.evidence();
            eprintln!("after {life} kills: {}, {} s", Figures(&evidence), began.elapsed().as_secs());
            run.expect_nothing_wrong(&evidence.check());
            let gaps = evidence.records_of(SHORT).flat_map(Record::gaps).count();
            assert!(gaps > 0 || lives < 8, "nobody was told of a gap: {}", run.again());
            run.acknowledged = evidence.acknowledged;
        }
    }
}

fn seed() -> u64 {
    child::setting("STEADFAST_SEED", child::chance(u64::from(u32::MAX)))
}

/// Lives one after the other in one store, and what they acknowledged.
struct Run {
    plan: Plan,
    directory: PathBuf,
    acknowledged: Acknowledged,
    wrong: Vec<Wrong>,
}

impl Run {
    fn new(plan: Plan) -> Self {
        // kept where a run fails
        let directory = tempfile::tempdir().expect("a directory").keep();
        Run { plan, directory, acknowledged: Acknowledged::default(), wrong: Vec::new() }
    }

    fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// A child that is killed, and now and then a look at what it left.
    fn live(&mut self, life: u64) {
        for line in self.killed(life) {
            self.acknowledged.read(&line);
        }
        if self.plan.chance(("look", life), 3) == 0 {
            let wrong = runtime().block_on(look(&self.store(), self.plan));
            self.wrong.extend(wrong);
        }
    }

    /// What the child acknowledged before it was killed.
    fn killed(&self, life: u64) -> Vec<String> {
        let (store, plan) = (self.store(), self.plan.to_text());
        let mut running = child::Running::start_with(LIVES, &store, life, &[(PLAN, &plan)]);
        let patience = Instant::now() + Duration::from_secs(60);
        // some are killed while they recover
        let recovers = life.is_multiple_of(5);
        let errors = || std::fs::read_to_string(child::errors(&store)).unwrap_or_default();
        while !recovers && running.said().is_empty() {
            assert!(!running.has_ended(), "{}: life {life} ended by itself: {}", self.again(), errors());
            assert!(Instant::now() < patience, "{}: life {life} says nothing: {}", self.again(), errors());
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(self.time_to_live(life, recovers));
        assert!(!running.has_ended(), "{}: life {life} ended by itself: {}", self.again(), errors());
        running.kill()
    }

    /// Some live so long that retention comes: it looks once a second.
    fn time_to_live(&self, life: u64, recovers: bool) -> Duration {
        let needs_retention = matches!(self.plan.fault, None | Some(Fault::HidesGaps));
        let is_long = !recovers && life % 3 == 2 && needs_retention;
        let (least, more) = match (recovers, is_long) {
            (true, _) => (0, 120),
            (false, true) => (1_050, 500),
            // a fault has time to do harm
            (false, false) if self.plan.fault.is_some() => (150, 150),
            (false, false) => (0, 300),
        };
        Duration::from_millis(least + self.plan.chance(("kill", life), more))
    }

    /// Has everything come to its end, without a fault.
    fn evidence(&mut self) -> Evidence {
        let mut acknowledged = std::mem::take(&mut self.acknowledged);
        acknowledged.wrong.append(&mut self.wrong);
        runtime().block_on(settle(&self.store(), self.plan, acknowledged))
    }

    fn expect_nothing_wrong(&self, wrong: &[Wrong]) {
        if wrong.is_empty() {
            return;
        }
        let some: Vec<_> = wrong.iter().take(10).map(Wrong::to_string).collect();
        let (count, again, store) = (wrong.len(), self.again(), self.store());
        panic!("{count} things are wrong in {}:\n{}\n{again}", store.display(), some.join("\n"));
    }

    /// How to run it again.
    fn again(&self) -> String {
        let Plan { seed, lives, fault, .. } = self.plan;
        match fault {
            None => format!(
                "run again: STEADFAST_SEED={seed} STEADFAST_ROUNDS={lives} cargo test --test topics {LIVES}"
            ),
            Some(fault) => {
                format!("run again: STEADFAST_SEED={seed} cargo test --test topics noticed (here: {fault:?})")
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Looks at a store as the kill left it, with nobody running: every subscription is where its subscriber's state says.
async fn look(store: &Path, plan: Plan) -> Vec<Wrong> {
    let system = builder().open(store).await.expect("opens");
    let mut wrong = Vec::new();
    for reader in plan.readers() {
        let Some(subscription) = reader.subscription(&system).await else { continue };
        let subscriber = readers::lookup(&system, &reader).await.expect("it subscribes");
        let info = subscription.info().await.expect("readable");
        let next = subscriber.place().await.expect("readable").next;
        if next != info.position - info.lost {
            let what = format!("{}: its state is at {next} after a kill, and it is at {info:?}", reader.name);
            wrong.push(Wrong::new(Kind::Position, what));
        }
    }
    system.shutdown(Duration::from_secs(20)).await.expect("ends");
    wrong
}

/// Has everybody run until nobody has anything to do, then reads what there is.
async fn settle(store: &Path, plan: Plan, acknowledged: Acknowledged) -> Evidence {
    const PATIENCE: Duration = Duration::from_secs(120);
    let plan = Plan { fault: None, ..plan };
    let system = builder().open(store).await.expect("opens");
    life::start_teller(&system, plan).await.expect("starts");
    let mut running = Vec::new();
    for reader in plan.readers() {
        running.push((readers::start(&system, plan, &reader).await.expect("starts"), reader));
    }
    tokio::time::timeout(PATIENCE, run_until_idle(&system)).await.expect("it ends").expect("runs");
    let mut evidence = Evidence { acknowledged, ..Evidence::default() };
    for (subscriber, reader) in &running {
        evidence.records.push(record(&system, subscriber, reader).await);
    }
    for name in topics() {
        let topic = plan::topic(&system, name).await;
        evidence.next.insert(name.to_owned(), topic.info().await.expect("readable").next);
    }
    let dead = system.dead_letters().page(None, None, 3).await.expect("readable");
    let dead = dead.iter().map(|letter| Wrong::new(Kind::Lost, format!("dead: {letter:?}")));
    evidence.acknowledged.wrong.extend(dead);
    system.shutdown(Duration::from_secs(20)).await.expect("ends");
    evidence
}

async fn record(system: &System, subscriber: &readers::Handle, reader: &ReaderPlan) -> Record {
    let subscription = reader.subscription(system).await.expect("it subscribes");
    let info = subscription.info().await.expect("readable");
    let got = subscriber.got().await.expect("readable");
    let (name, topic) = (reader.name.clone(), reader.topic.to_owned());
    Record { name, topic, got, position: info.position, lag: info.lag }
}

/// What a run came to, for those who print it.
struct Figures<'a>(&'a Evidence);

impl std::fmt::Display for Figures<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Evidence { acknowledged, records, next } = self.0;
        let gaps: usize = records.iter().map(|record| record.gaps().count()).sum();
        let missed: u64 = records.iter().flat_map(Record::gaps).map(|(from, to)| to - from).sum();
        let handled: usize = records.iter().map(|record| record.got.len()).sum::<usize>() - gaps;
        let (published, told) = (acknowledged.published.len(), acknowledged.told.len());
        let there: u64 = next.values().sum();
        write!(f, "{published} events and {told} turns acknowledged, {there} events published, ")?;
        write!(f, "{handled} handled by {} subscribers, {gaps} gaps told with {missed} events", records.len())
    }
}

/// A short run with a fault, in which there must be something wrong of this kind.
#[track_caller]
fn noticed(fault: Fault, kind: Kind) {
    // a gap is made in one life, and told to those who join in the next
    let lives = if fault == Fault::HidesGaps { 4 } else { 2 };
    let plan = Plan { seed: seed(), lives, fan: 3, fault: Some(fault) };
    let mut run = Run::new(plan);
    for life in 1..=plan.lives {
        run.live(life);
    }
    let wrong = run.evidence().check();
    let kinds: Vec<_> = wrong.iter().map(|wrong| wrong.kind).collect();
    assert!(kinds.contains(&kind), "{fault:?} was not noticed as {kind:?}: {kinds:?}; {}", run.again());
}

#[test]
fn a_state_written_in_another_turn_than_the_acknowledgement_is_noticed() {
    noticed(Fault::WritesInAnotherTurn, Kind::Twice);
}

#[test]
fn an_event_acknowledged_before_it_is_written_down_is_noticed() {
    noticed(Fault::WritesLater, Kind::Lost);
}

#[test]
fn an_event_that_was_dropped_is_noticed() {
    noticed(Fault::Drops, Kind::Lost);
}

#[test]
fn two_events_in_the_wrong_order_are_noticed() {
    noticed(Fault::Swaps, Kind::Order);
}

#[test]
fn a_gap_passed_over_in_silence_is_noticed() {
    noticed(Fault::HidesGaps, Kind::Position);
}

#[test]
fn a_subscription_moved_past_an_event_is_noticed() {
    noticed(Fault::Skips, Kind::Lost);
}

#[test]
fn events_that_belong_together_and_were_published_one_by_one_are_noticed() {
    noticed(Fault::PublishesOneByOne, Kind::Torn);
}

#[test]
fn an_acknowledgement_before_the_message_is_on_disk_is_noticed() {
    noticed(Fault::AcknowledgesEarly, Kind::Lost);
}

#[test]
fn events_published_past_a_turn_that_fails_are_noticed() {
    noticed(Fault::PublishesPastTheTurn, Kind::Twice);
}

#[test]
fn a_turn_that_published_to_one_topic_of_two_is_noticed() {
    noticed(Fault::PublishesHalf, Kind::Torn);
}
