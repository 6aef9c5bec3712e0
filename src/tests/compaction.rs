//! Of each key the last event: what a later one supersedes goes without a gap, and tombstones after their time.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::*;
use crate::store::SimulatedDisk;
use crate::testkit::run_until_idle;
use crate::{
    Actor, Context, Failure, Gap, Handler, Overflow, PublishOptions, Refused, Retention, RetryPolicy,
    SendError, Spawn, StartFrom, System, Topic,
};

const LAST: Retention = Retention::forever().keep_last_per_key();

async fn topic(system: &System, retention: Retention) -> Topic<Note> {
    system.topic("notes").retention(retention).await.expect("opens")
}

/// Publishes events whose text is their key and their number.
async fn publish(topic: &Topic<Note>, keys: &[&str]) {
    for key in keys {
        let number = topic.info().await.expect("readable").next;
        topic.publish(note(format!("{key}{number}"))).key(*key).await.expect("accepted");
    }
}

/// Lets time pass until the topic holds so many events.
async fn shrunk_to(world: &World, topic: &Topic<Note>, events: u64) {
    for _ in 0..2_000 {
        if topic.info().await.expect("readable").events == events {
            return;
        }
        world.pass(secs(1));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the topic holds {} events, not {events}", topic.info().await.expect("readable").events);
}

/// Lets a pass come that takes nothing.
async fn some_seconds(world: &World) {
    for _ in 0..5 {
        world.pass(secs(1));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Writes down events and gaps.
struct Reader {
    log: Log,
    gate: Option<Gate>,
}

impl Actor for Reader {
    const NAME: &'static str = "test.reader";
    type Messages = (Note,);

    async fn gap(&mut self, gap: Gap, _: &mut Context<Self>) -> Result<(), Failure> {
        self.log.say(format!("gap {}..{}", gap.from, gap.to));
        Ok(())
    }
}

impl Handler<Note> for Reader {
    async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
        self.log.say(&note.0);
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        Ok(0)
    }
}

fn reader<'s>(system: &'s System, name: &str, log: &Log, gate: Option<&Gate>) -> Spawn<'s, Reader> {
    let (log, gate) = (log.clone(), gate.cloned());
    system.spawn(name, move || Reader { log: log.clone(), gate: gate.clone() })
}

/// What a new subscriber gets.
async fn all(system: &System, topic: &Topic<Note>, name: &str) -> Vec<String> {
    let log = Log::new();
    let reader =
        reader(system, name, &log, None).subscribe(topic, StartFrom::Earliest).await.expect("spawns");
    soon(run_until_idle(system)).await.expect("runs");
    reader.stop().await;
    log.all()
}

#[tokio::test]
async fn a_late_subscriber_gets_the_last_of_each_key_in_order_also_after_power_cuts() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system, LAST).await;
    publish(&notes, &["a", "b", "a", "c", "b", "a", "d"]).await;
    shrunk_to(&world, &notes, 4).await;
    let expected = ["c3", "b4", "a5", "d6"];
    assert_eq!(all(&system, &notes, "late").await, expected);
    let info = notes.info().await.expect("readable");
    assert_eq!((info.first, info.next, info.events), (3, 7, 4));
    let system = world.restart(system).await;
    let notes = topic(&system, LAST).await;
    assert_eq!(all(&system, &notes, "later").await, expected);
    let system = world.crash(system).await;
    let notes = topic(&system, LAST).await;
    publish(&notes, &["c"]).await;
    assert_eq!(all(&system, &notes, "last").await, ["c3", "b4", "a5", "d6", "c7"]);
}

#[tokio::test]
async fn a_subscriber_that_is_behind_gets_what_is_left_and_no_gap() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, LAST).await;
    let first =
        reader(&system, "reader", &log, None).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, &["a", "b"]).await;
    log.lines(2).await;
    first.stop().await;
    publish(&notes, &["a", "b", "c", "a", "c", "b", "e", "b"]).await;
    shrunk_to(&world, &notes, 4).await;
    let subscription = system.subscription("reader").await.expect("there is one");
    let info = subscription.info().await.expect("readable");
    assert_eq!((info.position, info.next, info.lag, info.lost), (5, 10, 4, 0));
    reader(&system, "reader", &log, None).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all(), ["a0", "b1", "a5", "c6", "e8", "b9"]);
    assert_eq!(subscription.info().await.expect("readable").lag, 0);
}

#[tokio::test]
async fn nothing_goes_that_has_no_key() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system, LAST).await;
    for number in 0..3 {
        notes.publish(note(format!("plain {number}"))).await.expect("accepted");
        publish(&notes, &["k"]).await;
    }
    shrunk_to(&world, &notes, 4).await;
    some_seconds(&world).await;
    assert_eq!(all(&system, &notes, "late").await, ["plain 0", "plain 1", "plain 2", "k5"]);
}

#[tokio::test]
async fn a_topic_that_does_not_ask_for_it_keeps_every_event() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system, Retention::forever()).await;
    publish(&notes, &["a"; 5]).await;
    some_seconds(&world).await;
    assert_eq!(notes.info().await.expect("readable").events, 5);
}

#[tokio::test]
async fn a_tombstone_goes_after_its_time_and_not_before_nor_while_it_is_the_newest() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system, LAST.tombstones_for(secs(10_000))).await;
    publish(&notes, &["a", "b", "c"]).await;
    let gone = notes.publish(note("a is gone")).key("a").tombstone().await.expect("accepted");
    assert_eq!(gone.sequence, Some(3));
    publish(&notes, &["b", "c"]).await;
    shrunk_to(&world, &notes, 3).await;
    assert_eq!(all(&system, &notes, "early").await, ["a is gone", "b4", "c5"]);
    for _ in 0..7 {
        world.pass(secs(1_000));
        a_moment().await;
        assert_eq!(notes.info().await.expect("readable").events, 3, "it went too soon");
    }
    world.pass(secs(4_000));
    shrunk_to(&world, &notes, 2).await;
    assert_eq!(all(&system, &notes, "late").await, ["b4", "c5"]);
    notes.publish(note("b is gone")).key("b").tombstone().await.expect("accepted");
    world.pass(secs(12_000));
    shrunk_to(&world, &notes, 2).await;
    world.pass(secs(12_000));
    some_seconds(&world).await;
    assert_eq!(all(&system, &notes, "latest").await, ["c5", "b is gone"]);
    publish(&notes, &["d"]).await;
    world.pass(secs(12_000));
    shrunk_to(&world, &notes, 2).await;
    assert_eq!(all(&system, &notes, "last").await, ["c5", "d7"]);
}

#[tokio::test]
async fn a_key_that_comes_again_is_no_longer_gone() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system, LAST.tombstones_for(secs(5))).await;
    publish(&notes, &["a"]).await;
    notes.publish(note("gone")).key("a").tombstone().await.expect("accepted");
    publish(&notes, &["a", "b"]).await;
    shrunk_to(&world, &notes, 2).await;
    world.pass(secs(60));
    some_seconds(&world).await;
    assert_eq!(all(&system, &notes, "late").await, ["a2", "b3"]);
}

#[tokio::test]
async fn a_tombstone_without_a_key_is_refused_and_handed_back() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, LAST).await;
    let refused = notes.publish(note("x")).tombstone().await.expect_err("refused");
    let SendError::Refused { message, why } = refused else { panic!("not refused") };
    assert_eq!(message, note("x"));
    assert!(matches!(why, Refused::NoKey), "{why}");
    let (to, said) = (notes.clone(), log.clone());
    let spawn = probe(&system, "publisher", move |turn| {
        let options = PublishOptions::new().tombstone();
        let refused = turn.ctx.publish_with(&to, note("y"), &options);
        said.say(matches!(refused, Err(Refused::NoKey)));
        let published = turn.ctx.publish_with(&to, note("y"), &options.key("k"));
        Box::pin(async move { published.map(|_| 0).map_err(Failure::from) })
    });
    spawn.await.expect("spawns").tell(note("go")).await.expect("accepted");
    assert_eq!(log.lines(1).await, ["true"]);
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(all(&system, &notes, "late").await, ["y"]);
}

#[tokio::test]
async fn with_a_bound_on_the_count_gaps_are_told_for_what_that_took_alone() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, LAST).await;
    let first =
        reader(&system, "reader", &log, None).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, &["a"]).await;
    log.lines(1).await;
    first.stop().await;
    publish(&notes, &["b", "b", "b", "c", "d", "c"]).await;
    shrunk_to(&world, &notes, 4).await;
    let subscription = system.subscription("reader").await.expect("there is one");
    assert_eq!(subscription.info().await.expect("readable").position, 3);
    // takes 0 and 3, and with them what was superseded already
    let notes = topic(&system, LAST.count(2)).await;
    shrunk_to(&world, &notes, 2).await;
    assert_eq!(subscription.info().await.expect("readable").lost, 1);
    reader(&system, "reader", &log, None).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all(), ["a0", "gap 3..4", "d5", "c6"]);
}

#[tokio::test]
async fn an_event_in_hand_that_is_superseded_is_handled_once_and_what_was_read_ahead_is_passed_over() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system, LAST).await;
    publish(&notes, &["a", "b", "c"]).await;
    let spawn = reader(&system, "reader", &log, Some(&gate));
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    assert_eq!(log.lines(1).await, ["a0"]);
    publish(&notes, &["a", "b", "d", "b"]).await;
    shrunk_to(&world, &notes, 4).await;
    gate.open();
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all(), ["a0", "c2", "a3", "d5", "b6"]);
}

#[tokio::test]
async fn an_event_that_waits_to_be_tried_again_is_let_go_when_it_is_superseded() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, LAST).await;
    let said = log.clone();
    let spawn = probe(&system, "failing", move |turn| {
        said.say(format!("{} {}", turn.note, turn.ctx.attempt()));
        let bad = turn.note == "a0";
        Box::pin(async move { if bad { Err(Failure::new("no")) } else { Ok(0) } })
    });
    let hours = RetryPolicy::strict().with_attempts(3).with_backoff(secs(10_000), 1.0, secs(10_000));
    let spawn = spawn.retry(hours.without_jitter());
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, &["a"]).await;
    log.lines(1).await;
    a_moment().await;
    publish(&notes, &["b", "a"]).await;
    shrunk_to(&world, &notes, 2).await;
    world.pass(secs(10_001));
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.lines(3).await, ["a0 1", "b1 1", "a2 1"]);
    assert!(dead(&system).await.is_empty());
    let runtime = &notes.runtime;
    let record = runtime.ledger.mailbox_record("failing").await.expect("readable").expect("there is one");
    let left = crate::durable::Attempts::of_mailbox(runtime.ledger.store(), record.id).expect("readable");
    assert!(left.is_empty(), "its attempts stay for ever");
}

#[tokio::test]
async fn who_listens_in_memory_misses_nothing_by_what_was_superseded() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system, LAST).await;
    publish(&notes, &["a", "b"]).await;
    let mut ephemeral = notes.ephemeral(16, Overflow::DropOldest).await.expect("opens");
    // what is published in one commit is read in one look: only what comes after is behind what went
    publish(&notes, &["a", "b", "a", "b", "a"]).await;
    shrunk_to(&world, &notes, 2).await;
    publish(&notes, &["c"]).await;
    loop {
        let received = soon(ephemeral.recv()).await.expect("receives");
        assert_eq!(received.missed, 0);
        if received.sequence == 7 {
            return;
        }
    }
}

/// A small stream of numbers that depends on its seed alone.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What the topic holds is, of each key, the last event, and possibly some before that a pass has not taken.
fn check(got: &[(u64, String)], published: &BTreeMap<u64, String>, seed: u64) {
    assert!(got.is_sorted_by(|one, next| one.0 < next.0), "seed {seed}: out of order or twice: {got:?}");
    let mut lasts = BTreeMap::new();
    for (sequence, key) in published {
        lasts.insert(key.clone(), *sequence);
    }
    for (sequence, key) in got {
        assert_eq!(published.get(sequence), Some(key), "seed {seed}: a sequence number has another event");
    }
    for (key, sequence) in lasts {
        assert!(
            got.contains(&(sequence, key.clone())),
            "seed {seed}: the last of {key}, {sequence}, is missing"
        );
    }
}

async fn random_life(seed: u64) {
    let mut dice = Dice(seed);
    let world = World::with(SimulatedDisk::new(seed));
    let mut system = world.open().await;
    let mut published = BTreeMap::new();
    let log = Log::new();
    for round in 0..12 {
        let notes = topic(&system, LAST).await;
        let spawn = reader(&system, "reader", &log, None);
        let behind = spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
        if dice.below(2) == 0 {
            behind.stop().await;
        }
        for _ in 0..dice.below(40) {
            let key = format!("k{}", dice.below(6));
            let sequence = notes.info().await.expect("readable").next;
            let event = note(format!("{sequence} {key}"));
            let sent = notes.publish(event).key(&key).await.expect("accepted");
            assert_eq!(sent.sequence, Some(sequence), "seed {seed}");
            published.insert(sequence, key);
            if dice.below(8) == 0 {
                world.pass(secs(1));
                tokio::time::sleep(Duration::from_millis(dice.below(4))).await;
            }
        }
        system = match dice.below(3) {
            0 => world.restart(system).await,
            _ => world.crash(system).await,
        };
        let notes = topic(&system, LAST).await;
        if dice.below(2) == 0 {
            world.pass(secs(1));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let got: Vec<_> = all(&system, &notes, &format!("late-{round}")).await.iter().map(parsed).collect();
        check(&got, &published, seed);
    }
    let notes = topic(&system, LAST).await;
    let keys = published.values().collect::<std::collections::BTreeSet<_>>().len() as u64;
    shrunk_to(&world, &notes, keys).await;
    reader(&system, "reader", &log, None).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all().iter().filter(|line| line.starts_with("gap")).count(), 0, "seed {seed}");
    let got: Vec<_> = all(&system, &notes, "at-last").await.iter().map(parsed).collect();
    check(&got, &published, seed);
    assert_eq!(got.len() as u64, keys, "seed {seed}");
}

fn parsed(line: impl AsRef<str>) -> (u64, String) {
    let (sequence, key) = line.as_ref().split_once(' ').expect("a number and a key");
    (sequence.parse().expect("a number"), key.to_owned())
}

#[tokio::test]
async fn whatever_is_published_and_wherever_the_power_is_cut_the_last_of_each_key_is_there_in_order() {
    for seed in 0..12 {
        random_life(seed).await;
    }
}

/// Bytes of the files in a directory and below it.
fn bytes_in(path: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("a directory").flatten();
    let bytes = |entry: std::fs::DirEntry| {
        let about = entry.metadata().expect("is there");
        if about.is_dir() { bytes_in(&entry.path()) } else { about.len() }
    };
    entries.map(bytes).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_shrink_with_what_was_superseded() {
    let dir = tempfile::tempdir().expect("a directory");
    let system = System::builder().open(dir.path()).await.expect("opens");
    let pages = async |notes: &Topic<Note>| {
        // what a checkpoint leaves behind goes with those after it
        for _ in 0..4 {
            publish(notes, &["again"]).await;
            notes.runtime.ledger.store().checkpoint().await.expect("a checkpoint");
        }
        bytes_in(&dir.path().join("pages"))
    };
    let notes = topic(&system, Retention::forever()).await;
    for _ in 0..20 {
        for key in 0..2_000 {
            let event = notes.publish(note("x".repeat(1_000))).key(format!("key-{key}"));
            event.durability(crate::Durability::Buffered).await.expect("accepted");
        }
    }
    let before = pages(&notes).await;
    let notes = topic(&system, LAST).await;
    let gone = async {
        while notes.info().await.expect("readable").events > 2_001 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(gone).await;
    let after = pages(&notes).await;
    assert!(before > 40_000_000 && after < 2 * before / 5, "{before} bytes, then {after}");
}
