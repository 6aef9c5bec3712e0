//! The six promises of a watch (ordered, unique, without a gap, atomic, resumable, its position known), asked of topics in
//! random runs: publishers and subscribers that fail, stop and start, power cuts, orderly restarts, and retention. What a
//! subscriber got is what it wrote into its own state in the turn, read when all is over.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::world::{Note, World, at_once, note, secs, soon};
use crate::store::SimulatedDisk;
use crate::testkit::run_until_idle;
use crate::{
    Actor, ActorRef, Address, Cell, Context, Failure, Gap, Handler, Retention, StartFrom, Subscription,
    System, Topic,
};

/// What a subscriber got, in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Got {
    Event(String),
    Gap(u64, u64),
}

const GOT: Cell<Vec<Got>> = Cell::new("got", 1);
const STEPS: u64 = 60;
const KEPT: u64 = 12;

/// Small numbers that look random, and are the same for the same seed.
fn mixed(seed: u64, what: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 29;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// How often the turn with this text fails before it succeeds.
fn failures(seed: u64, text: &str) -> u32 {
    let text = text.bytes().fold(seed, |sum, byte| mixed(sum, u64::from(byte)));
    (text % 5).saturating_sub(2) as u32
}

fn fail_at_times(seed: u64, text: &str, attempt: u32) -> Result<(), Failure> {
    if attempt <= failures(seed, text) { Err(Failure::new("at random")) } else { Ok(()) }
}

/// Writes down what it gets, in its own state.
struct Keeper {
    seed: u64,
}

impl Keeper {
    fn keep(ctx: &mut Context<Self>, got: Got) -> Result<(), Failure> {
        let mut all = ctx.state().get(&GOT)?.unwrap_or_default();
        all.push(got);
        Ok(ctx.state().set(&GOT, &all)?)
    }
}

impl Actor for Keeper {
    const NAME: &'static str = "test.keeper";
    type Messages = (Note,);

    async fn gap(&mut self, gap: Gap, ctx: &mut Context<Self>) -> Result<(), Failure> {
        Keeper::keep(ctx, Got::Gap(gap.from, gap.to))
    }
}

impl Handler<Note> for Keeper {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        let attempt = ctx.attempt();
        let fails = fail_at_times(self.seed, &note.0, attempt);
        Keeper::keep(ctx, Got::Event(note.0))?;
        fails.map(|()| 0)
    }
}

/// Publishes two events in each of its turns.
struct Publisher {
    topic: Topic<Note>,
    seed: u64,
}

impl Actor for Publisher {
    const NAME: &'static str = "test.publisher";
    type Messages = (Note,);
}

impl Handler<Note> for Publisher {
    async fn handle(&mut self, told: Note, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        for event in group(&told.0, 2) {
            ctx.publish(&self.topic, note(event))?;
        }
        fail_at_times(self.seed, &told.0, ctx.attempt()).map(|()| 0)
    }
}

fn group(name: &str, size: u64) -> Vec<String> {
    (0..size).map(|part| format!("{name}/{part}")).collect()
}

/// One seed's system, and what its publishers were told.
struct Run {
    seed: u64,
    draws: u64,
    world: World,
    retention: Retention,
    system: Option<System>,
    running: BTreeMap<String, ActorRef<Keeper>>,
    /// Where each subscription began.
    starts: BTreeMap<String, u64>,
    /// Events whose `Ok` came, by their sequence numbers.
    accepted: BTreeMap<u64, String>,
    /// What was published in one commit, whatever came of it.
    groups: Vec<Vec<String>>,
    /// The turns in which something was to be published, and must be.
    told: Vec<String>,
}

/// What came of a run.
struct Outcome {
    run: Run,
    got: BTreeMap<String, Vec<Got>>,
    positions: BTreeMap<String, u64>,
    next: u64,
}

impl Run {
    fn draw(&mut self, below: u64) -> u64 {
        self.draws += 1;
        mixed(self.seed, self.draws) % below
    }

    fn system(&self) -> &System {
        self.system.as_ref().expect("open")
    }

    async fn topic(&self) -> Topic<Note> {
        self.system().topic("events").retention(self.retention).await.expect("opens")
    }

    async fn subscription(&self, name: &str) -> Subscription {
        self.system().subscription(name).await.expect("there is one")
    }

    async fn start(&mut self, name: &str, from: u64) {
        let (seed, topic) = (self.seed ^ name.len() as u64, self.topic().await);
        let spawn = self.system().spawn(name, move || Keeper { seed }).retry(at_once(9));
        let subscriber = spawn.subscribe(&topic, StartFrom::Sequence(from)).await.expect("spawns");
        self.running.insert(name.into(), subscriber);
        self.starts.entry(name.into()).or_insert(from);
    }

    async fn start_publisher(&self) {
        let (seed, topic) = (self.seed, self.topic().await);
        let publisher = self.system().spawn("publisher", move || Publisher { topic: topic.clone(), seed });
        publisher.retry(at_once(9)).await.expect("spawns");
    }

    async fn publish(&mut self, step: u64) {
        let topic = self.topic().await;
        let text = format!("one-{step}");
        let published = topic.publish(note(&text)).await.expect("accepted");
        self.accepted.insert(published.sequence.expect("at once"), text);
    }

    async fn publish_all(&mut self, step: u64) {
        let events = group(&format!("all-{step}"), 2 + self.draw(4));
        let published = self.topic().await.publish_all(events.iter().map(note)).await.expect("accepted");
        self.accepted.extend(published.iter().filter_map(|one| one.sequence).zip(events.iter().cloned()));
        self.groups.push(events);
    }

    async fn publish_in_a_turn(&mut self, step: u64) {
        let text = format!("turn-{step}");
        let publisher: Address<Publisher> = Address::new("publisher").expect("a name");
        let publisher = self.system().bind(&publisher).await.expect("binds");
        publisher.tell(note(&text)).await.expect("accepted");
        self.groups.push(group(&text, 2));
        self.told.push(text);
    }

    async fn stop_one(&mut self) {
        let at = self.draw(self.running.len().max(1) as u64) as usize;
        let Some(name) = self.running.keys().nth(at).cloned() else { return };
        if let Some(subscriber) = self.running.remove(&name) {
            subscriber.stop().await;
        }
    }

    async fn start_all(&mut self) {
        let starts = self.starts.clone();
        for (name, from) in starts {
            if !self.running.contains_key(&name) {
                self.start(&name, from).await;
            }
        }
    }

    async fn join(&mut self) {
        let next = self.topic().await.info().await.expect("readable").next;
        let (name, from) = (format!("joined-{}", self.starts.len()), self.draw(next + 1));
        if self.starts.len() < 6 {
            self.start(&name, from).await;
        }
    }

    async fn restart(&mut self) {
        self.running.clear();
        let system = self.system.take().expect("open");
        self.system = Some(self.world.restart(system).await);
        self.start_publisher().await;
    }

    /// The power goes while publishers wait for their `Ok`.
    async fn crash(&mut self, step: u64) {
        let topic = self.topic().await;
        let publishing = (0..3).map(|number| {
            let (topic, events) = (topic.clone(), group(&format!("crash-{step}-{number}"), 3));
            self.groups.push(events.clone());
            tokio::spawn(async move {
                let published = topic.publish_all(events.iter().map(note)).await.ok()?;
                Some(published.iter().filter_map(|one| one.sequence).zip(events).collect::<Vec<_>>())
            })
        });
        let publishing: Vec<_> = publishing.collect();
        for _ in 0..self.draw(6) {
            tokio::task::yield_now().await;
        }
        self.running.clear();
        self.world.disk.crash();
        for published in publishing {
            self.accepted.extend(published.await.expect("no panic").into_iter().flatten());
        }
        drop(topic);
        drop(self.system.take());
        self.system = Some(self.world.open().await);
        self.start_publisher().await;
    }

    async fn step(&mut self, step: u64) {
        match self.draw(20) {
            0..5 => self.publish(step).await,
            5..9 => self.publish_all(step).await,
            9..12 => self.publish_in_a_turn(step).await,
            12..14 => self.stop_one().await,
            14..16 => self.start_all().await,
            16 => self.join().await,
            17 => {
                self.world.pass(secs(2));
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            18 => self.restart().await,
            _ => self.crash(step).await,
        }
    }

    /// Until nobody has anything left to do.
    async fn drained(&self) {
        let mut draining = std::pin::pin!(run_until_idle(self.system()));
        loop {
            tokio::select! {
                done = &mut draining => return done.expect("runs"),
                () = tokio::time::sleep(std::time::Duration::from_millis(5)) => self.world.pass(secs(1)),
            }
        }
    }

    /// Everybody runs and is done.
    async fn finish(mut self) -> Outcome {
        self.start_all().await;
        soon(self.drained()).await;
        let (mut got, mut positions) = (BTreeMap::new(), BTreeMap::new());
        for (name, subscriber) in &self.running {
            got.insert(name.clone(), subscriber.cell(&GOT).await.expect("readable").unwrap_or_default());
            let info = self.subscription(name).await.info().await.expect("readable");
            assert_eq!((info.lag, info.lost), (0, 0), "{name} of seed {}", self.seed);
            positions.insert(name.clone(), info.position);
        }
        let next = self.topic().await.info().await.expect("readable").next;
        let dead = super::world::dead(self.system()).await;
        assert!(dead.is_empty(), "{dead:?}");
        Outcome { run: self, got, positions, next }
    }
}

/// A random run, to its end.
async fn history(seed: u64, retention: Retention) -> Outcome {
    let world = World::with(SimulatedDisk::new(seed));
    let system = Some(world.open().await);
    let (running, starts, accepted) = Default::default();
    let (groups, told) = Default::default();
    let mut run = Run { seed, draws: 0, world, retention, system, running, starts, accepted, groups, told };
    run.start_publisher().await;
    run.start("first", 0).await;
    run.start("second", 0).await;
    for step in 0..STEPS {
        run.step(step).await;
    }
    run.finish().await
}

/// Runs in which everything is kept, and runs in which the oldest go.
async fn histories(seeds: Range<u64>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for seed in seeds {
        let retention = if seed % 2 == 0 { Retention::forever() } else { Retention::forever().count(KEPT) };
        outcomes.push(history(seed, retention).await);
    }
    outcomes
}

impl Outcome {
    fn keeps_all(&self) -> bool {
        self.run.retention == Retention::forever()
    }

    /// What a subscriber got, by the sequence numbers that follow from where it began and what it was told.
    fn numbered(&self, name: &str) -> Vec<(u64, &str)> {
        let mut at = self.run.starts[name];
        let mut events = Vec::new();
        for got in &self.got[name] {
            match got {
                Got::Event(text) => {
                    events.push((at, &**text));
                    at += 1;
                }
                Got::Gap(_, to) => at = *to,
            }
        }
        events
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.got.keys().map(|name| &**name)
    }

    /// Every event that somebody got, under its number.
    fn log(&self) -> BTreeMap<u64, &str> {
        self.names().flat_map(|name| self.numbered(name)).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordered_every_subscriber_gets_events_in_the_order_in_which_they_were_accepted() {
    for outcome in histories(0..4).await {
        let (seed, log) = (outcome.run.seed, outcome.log());
        for name in outcome.names() {
            for (sequence, text) in outcome.numbered(name) {
                assert_eq!(log[&sequence], text, "{name} of seed {seed} at {sequence}");
                if let Some(accepted) = outcome.run.accepted.get(&sequence) {
                    assert_eq!(accepted, text, "{name} of seed {seed} at {sequence}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unique_no_event_comes_twice() {
    for outcome in histories(4..8).await {
        for name in outcome.names() {
            let mut seen = BTreeSet::new();
            for (sequence, text) in outcome.numbered(name) {
                assert!(seen.insert(text), "{name} of seed {}: {text} again at {sequence}", outcome.run.seed);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reliable_every_event_comes_or_is_told_as_a_gap() {
    for outcome in histories(8..12).await {
        let seed = outcome.run.seed;
        for name in outcome.names() {
            let events: BTreeMap<_, _> = outcome.numbered(name).into_iter().collect();
            let gaps = outcome.got[name].iter().filter_map(|got| match got {
                Got::Gap(from, to) => Some(*from..*to),
                Got::Event(_) => None,
            });
            let gaps: Vec<_> = gaps.collect();
            assert!(gaps.is_empty() || !outcome.keeps_all(), "{name} of seed {seed}: {gaps:?}");
            for (sequence, text) in outcome.run.accepted.range(outcome.run.starts[name]..) {
                let is_told = gaps.iter().any(|gap| gap.contains(sequence));
                let found = events.get(sequence).copied();
                assert!(
                    is_told || found == Some(text),
                    "{name} of seed {seed} at {sequence}: {found:?}, {gaps:?}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atomic_what_was_published_together_lies_together_or_nowhere() {
    for outcome in histories(12..16).await {
        let (seed, log) = (outcome.run.seed, outcome.log());
        let by_text: BTreeMap<_, _> = log.iter().map(|(sequence, text)| (*text, *sequence)).collect();
        for group in &outcome.run.groups {
            let places: Vec<_> = group.iter().map(|text| by_text.get(&**text).copied()).collect();
            let there = places.iter().flatten().count();
            let firsts = places.iter().zip(0..).filter_map(|(place, part)| Some((*place)? - part));
            let firsts: BTreeSet<_> = firsts.collect();
            assert!(firsts.len() <= 1, "seed {seed}: {group:?} lie at {places:?}");
            let whole = there == 0 || there == group.len();
            assert!(whole || !outcome.keeps_all(), "seed {seed}: {group:?} lie at {places:?}");
        }
        for told in outcome.run.told.iter().filter(|_| outcome.keeps_all()) {
            assert!(by_text.contains_key(&*group(told, 2)[0]), "seed {seed}: {told} was not published");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumable_who_begins_at_any_number_gets_what_the_others_got_from_there_on() {
    for mut outcome in histories(16..20).await {
        let log: BTreeMap<_, _> = outcome.log().into_iter().map(|(at, text)| (at, text.to_owned())).collect();
        let first = outcome.run.topic().await.info().await.expect("readable").first;
        let from = first + outcome.run.draw(outcome.next - first + 1);
        outcome.run.start("resumed", from).await;
        soon(run_until_idle(outcome.run.system())).await.expect("runs");
        let got = outcome.run.running["resumed"].cell(&GOT).await.expect("readable").unwrap_or_default();
        let expected: Vec<_> = log.range(from..).map(|(_, text)| Got::Event(text.clone())).collect();
        assert_eq!(got, expected, "seed {} from {from}", outcome.run.seed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookmarked_the_position_of_a_subscription_is_what_its_state_says() {
    for outcome in histories(20..24).await {
        for name in outcome.names() {
            let mut at = outcome.run.starts[name];
            for got in &outcome.got[name] {
                match got {
                    Got::Event(_) => at += 1,
                    Got::Gap(from, to) => {
                        assert_eq!(*from, at, "{name} of seed {}", outcome.run.seed);
                        assert!(from < to, "{name} of seed {}", outcome.run.seed);
                        at = *to;
                    }
                }
            }
            let known = (outcome.positions[name], outcome.next);
            assert_eq!((at, at), known, "{name} of seed {}: {:?}", outcome.run.seed, outcome.got[name]);
        }
    }
}
