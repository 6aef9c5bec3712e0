//! The words of a publish, each also over a power cut: dedup ids, delays, expiry, keys, and what a refusal gives back.

use super::world::*;
use crate::testkit::run_until_idle;
use crate::{
    Durability, Failure, Order, Overflow, PublishOptions, Published, Refused, Retention, SendError, Spawn,
    StartFrom, Status, System, Timestamp, Topic,
};

async fn topic(system: &System) -> Topic<Note> {
    system.topic("notes").await.expect("opens")
}

/// A subscriber that writes down each event.
fn reader<'s>(system: &'s System, name: &str, log: &Log) -> Spawn<'s, Probe> {
    let log = log.clone();
    probe(system, name, move |turn| {
        log.say(turn.note);
        Box::pin(async { Ok(0) })
    })
}

/// As [`reader`], started with a subscription.
async fn subscribed(system: &System, topic: &Topic<Note>, name: &str, from: StartFrom, log: &Log) {
    reader(system, name, log).subscribe(topic, from).await.expect("spawns");
}

async fn next(topic: &Topic<Note>) -> u64 {
    topic.info().await.expect("readable").next
}

/// Waits until the topic has so many events.
async fn grown_to(topic: &Topic<Note>, count: u64) {
    for _ in 0..2000 {
        if next(topic).await >= count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("the topic has {} events, not {count}", next(topic).await);
}

fn refusal<M: std::fmt::Debug, T: std::fmt::Debug>(of: Result<T, SendError<M>>) -> (M, Refused) {
    match of.expect_err("refused") {
        SendError::Refused { message, why } => (message, why),
        SendError::Unknown { why, .. } => panic!("{why}"),
    }
}

#[tokio::test]
async fn a_duplicate_event_is_accepted_once_and_told_the_firsts_number_over_power_cuts() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    let notes = topic(&system).await;
    notes.publish(note("zero")).await.unwrap();
    let first = notes.publish(note("one")).dedup_id("x").await.unwrap();
    assert_eq!(first.sequence, Some(1));
    notes.publish(note("two")).await.unwrap();
    for round in 0..3 {
        let notes = topic(&system).await;
        assert_eq!(notes.publish(note("one")).dedup_id("x").await.unwrap(), first);
        assert_eq!(next(&notes).await, 3);
        system = if round == 1 { world.restart(system).await } else { world.crash(system).await };
    }
    let other: Topic<Note> = system.topic("others").await.unwrap();
    let elsewhere = other.publish(note("one")).dedup_id("x").await.unwrap();
    assert_eq!(elsewhere.sequence, Some(0), "another topic is another matter");
    let notes = topic(&system).await;
    subscribed(&system, &notes, "reader", StartFrom::Earliest, &log).await;
    soon(run_until_idle(&system)).await.unwrap();
    assert_eq!(log.all(), ["zero", "one", "two"]);
}

#[tokio::test]
async fn events_published_with_one_id_at_the_same_time_are_one() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    let publishes = (0..20).map(|_| notes.publish(note("one")).dedup_id("x").into_future());
    let published: Vec<_> =
        futures_util::future::join_all(publishes).await.into_iter().map(Result::unwrap).collect();
    assert!(published.iter().all(|one| *one == published[0]));
    assert_eq!((published[0].sequence, next(&notes).await), (Some(0), 1));
}

#[tokio::test]
async fn an_ok_of_a_duplicate_event_comes_after_the_sync_of_the_first() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    world.disk.hold_syncs();
    let first = notes.publish(note("one")).dedup_id("x").durability(Durability::Buffered).await.unwrap();
    let second = only_after(notes.publish(note("one")).dedup_id("x"), || world.disk.release_syncs()).await;
    assert_eq!(second.unwrap(), first);
}

#[tokio::test]
async fn the_id_of_an_event_is_free_again_when_its_window_has_passed() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    let first = notes.publish(note("one")).dedup_id("x").await.unwrap();
    world.pass(secs(24 * 3600));
    assert_eq!(notes.publish(note("one")).dedup_id("x").await.unwrap(), first);
    world.pass(secs(1));
    let second = notes.publish(note("another")).dedup_id("x").await.unwrap();
    assert_eq!(second.sequence, Some(1));
    let system = world.crash(system).await;
    let notes = topic(&system).await;
    assert_eq!(notes.publish(note("another")).dedup_id("x").await.unwrap(), second);
}

#[tokio::test]
async fn an_events_dedup_id_is_the_topics_and_answers_nobody_who_asks_a_subscriber() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    let spawn = probe(&system, "reader", |turn| {
        let answer = turn.note.len() as u64;
        Box::pin(async move { Ok(answer) })
    });
    let reader = spawn.subscribe(&notes, StartFrom::Earliest).await.unwrap();
    assert_eq!(reader.ask(note("one")).dedup_id("x").await.unwrap(), 3);
    notes.publish(note("an event")).dedup_id("x").await.unwrap();
    soon(run_until_idle(&system)).await.unwrap();
    assert_eq!(reader.ask(note("one")).dedup_id("x").await.unwrap(), 3);
}

#[tokio::test]
async fn delayed_events_come_in_the_order_of_their_times_and_are_not_there_before() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    subscribed(&system, &notes, "reader", StartFrom::Earliest, &log).await;
    let third = notes.publish(note("third")).delay(secs(3)).await.unwrap();
    notes.publish(note("first")).at(Timestamp::from_millis(1_001_000)).await.unwrap();
    notes.publish(note("second")).delay(secs(2)).await.unwrap();
    assert_eq!(third.sequence, None);
    let due = Timestamp::from_millis(1_003_000);
    assert_eq!(system.status(third.id).await.unwrap(), Status::Scheduled { due });
    for (passes, expected) in [(999, 0), (1, 1), (999, 1), (1, 2), (1000, 3)] {
        world.pass(std::time::Duration::from_millis(passes));
        log.lines(expected).await;
        a_moment().await;
        assert_eq!((log.len(), next(&notes).await), (expected, expected as u64), "one came early");
    }
    assert_eq!(log.all(), ["first", "second", "third"]);
    assert_eq!(notes.publish(note("fourth")).await.unwrap().sequence, Some(3));
}

#[tokio::test]
async fn delayed_events_survive_power_cuts_and_come_once_though_nobody_has_opened_the_topic() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    notes.publish(note("late")).delay(secs(20)).dedup_id("x").await.unwrap();
    notes.publish(note("early")).delay(secs(10)).await.unwrap();
    let never = notes.publish(note("never")).delay(secs(10)).await.unwrap();
    assert!(system.cancel(never.id).await.unwrap());
    let system = world.crash(system).await;
    world.pass(secs(10));
    a_moment().await;
    system.shutdown(secs(5)).await.unwrap();
    // the other falls due while nobody runs
    world.pass(secs(100));
    let system = world.open().await;
    let notes = topic(&system).await;
    grown_to(&notes, 2).await;
    let first = notes.publish(note("late")).dedup_id("x").await.unwrap();
    assert_eq!(first.sequence, None, "as the first was told");
    notes.runtime.ledger.store().durable_now().await.unwrap();
    let system = world.crash(system).await;
    let notes = topic(&system).await;
    subscribed(&system, &notes, "reader", StartFrom::Earliest, &log).await;
    world.pass(secs(1000));
    soon(run_until_idle(&system)).await.unwrap();
    assert_eq!(log.all(), ["early", "late"]);
}

#[tokio::test]
async fn a_delayed_event_counts_as_published_when_it_takes_its_place() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let keeps = Retention::forever().age(secs(60));
    let notes: Topic<Note> = system.topic("notes").retention(keeps).await.unwrap();
    notes.publish(note("delayed")).delay(secs(100)).await.unwrap();
    world.pass(secs(90));
    let later = system.now();
    notes.publish(note("direct")).await.unwrap();
    world.pass(secs(10));
    grown_to(&notes, 2).await;
    // whoever begins at a time gets all that was published from then on
    subscribed(&system, &notes, "reader", StartFrom::Time(later), &log).await;
    assert_eq!(log.lines(2).await, ["direct", "delayed"]);
    // and what is kept for a minute is kept for a minute
    for _ in 0..30 {
        world.pass(secs(2));
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    a_moment().await;
    assert_eq!(notes.info().await.unwrap().first, 1);
}

#[tokio::test]
async fn an_expired_event_is_passed_over_by_every_subscriber_and_keeps_its_number() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    notes.publish(note("stays")).await.unwrap();
    notes.publish(note("goes")).expires(secs(10)).await.unwrap();
    let last = notes.publish(note("is quicker")).expires(secs(60)).await.unwrap();
    assert_eq!(last.sequence, Some(2));
    subscribed(&system, &notes, "in-time", StartFrom::Earliest, &log).await;
    assert_eq!(log.lines(3).await, ["stays", "goes", "is quicker"]);
    world.pass(secs(10));
    let system = world.crash(system).await;
    let (notes, late) = (topic(&system).await, Log::new());
    subscribed(&system, &notes, "late", StartFrom::Earliest, &late).await;
    assert_eq!(late.lines(2).await, ["stays", "is quicker"]);
    soon(run_until_idle(&system)).await.unwrap();
    let info = system.subscription("late").await.unwrap().info().await.unwrap();
    assert_eq!((info.position, info.lag, info.lost), (3, 0, 0));
    assert!(dead(&system).await.is_empty());
}

#[tokio::test]
async fn a_subscriber_in_memory_passes_over_what_has_expired_and_misses_nothing() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    let mut ephemeral = notes.ephemeral(8, Overflow::DropOldest).await.unwrap();
    notes.publish(note("gone at once")).expires(secs(0)).await.unwrap();
    notes.publish(note("here")).expires(secs(9)).await.unwrap();
    let received = soon(ephemeral.recv()).await.unwrap();
    assert_eq!((received.event, received.sequence, received.missed), (note("here"), 1, 0));
    assert_eq!(ephemeral.lost(), 0);
}

#[tokio::test]
async fn events_of_one_key_are_handled_in_order_and_hold_up_no_other_also_after_a_power_cut() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    for text in ["k:1", "k:2", "l:1"] {
        let (key, _) = text.split_once(':').unwrap();
        notes.publish(note(text)).key(key).header("tenant", "t").await.unwrap();
    }
    let system = world.crash(system).await;
    let (notes, gate) = (topic(&system).await, Gate::closed());
    let (said, passes) = (log.clone(), gate.clone());
    let spawn = probes(&system, "reader", 3, move |turn| {
        said.say(format!("{} {:?} {:?}", turn.note, turn.ctx.key(), turn.ctx.headers().get("tenant")));
        let passes = passes.clone();
        Box::pin(async move {
            passes.pass().await;
            Ok(0)
        })
    });
    spawn.order(Order::PerKey).subscribe(&notes, StartFrom::Earliest).await.unwrap();
    log.lines(2).await;
    a_moment().await;
    let mut begun = log.all();
    begun.sort();
    assert_eq!(begun, ["k:1 Some(\"k\") Some(\"t\")", "l:1 Some(\"l\") Some(\"t\")"]);
    gate.open();
    assert_eq!(log.lines(3).await[2], "k:2 Some(\"k\") Some(\"t\")");
}

#[tokio::test]
async fn a_refused_event_comes_back() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    notes.publish(note("one")).dedup_id("x").await.unwrap();
    let (event, why) = refusal(notes.publish(note("two")).dedup_id("x").await);
    assert!(matches!(why, Refused::DedupConflict { .. }), "{why}");
    assert_eq!(event, note("two"));
    let (event, why) = refusal(notes.publish(note("one")).dedup_id("x").submit());
    assert!(matches!(why, Refused::MustAwait { option: "dedup_id" }), "{why}");
    assert_eq!(event, note("one"));
    let (event, why) = refusal(notes.publish(note("v")).durability(Durability::Volatile).await);
    assert!(matches!(why, Refused::NotVolatile { option: "publish" }), "{why}");
    assert_eq!(event, note("v"));
    let large = note("x".repeat(65 << 10));
    for (event, why) in [
        refusal(notes.publish(large.clone()).await),
        refusal(notes.publish(large.clone()).delay(secs(1)).await),
        refusal(notes.try_publish(large.clone())),
    ] {
        assert!(matches!(why, Refused::TooLarge { .. }), "{why}");
        assert_eq!(event, large);
    }
    let (events, why) = refusal(notes.publish_all([note("small"), large.clone()]).await);
    assert!(matches!(why, Refused::TooLarge { .. }), "{why}");
    assert_eq!(events, [note("small"), large]);
    assert_eq!(next(&notes).await, 1);
}

#[tokio::test]
async fn what_was_tried_is_in_the_topic_at_once_and_durable_after_the_sync() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    world.disk.hold_syncs();
    let receipt = notes.publish(note("one")).key("k").submit().unwrap();
    let second = notes.try_publish(note("two")).unwrap();
    assert_eq!((receipt.published().sequence, next(&notes).await), (Some(0), 2));
    let durable = only_after(second.durable(), || world.disk.release_syncs()).await.unwrap();
    assert_eq!(durable, second.published());
    let system = world.crash(system).await;
    assert_eq!(next(&topic(&system).await).await, 2);
}

/// Publishes in its turn what its mail says, with options, and fails after "bad".
async fn publisher(system: &System, notes: &Topic<Note>) -> crate::ActorRef<Probe> {
    let notes = notes.clone();
    let spawn = probe(system, "publisher", move |turn| {
        let with = |options: PublishOptions| options.key("k").header("tenant", "t");
        let options = match turn.note {
            "delayed" => with(PublishOptions::new().delay(secs(10))),
            "once" => with(PublishOptions::new().dedup_id("x")),
            "once, later" => with(PublishOptions::new().dedup_id("y").delay(secs(5))),
            "brief" => with(PublishOptions::new().expires(secs(5))),
            _ => with(PublishOptions::new()),
        };
        let published = turn.ctx.publish_with(&notes, note(turn.note), &options);
        let twice = match turn.note {
            "once" => turn.ctx.publish_with(&notes, note(turn.note), &options),
            _ => published.clone(),
        };
        let bad = turn.note == "bad";
        Box::pin(async move {
            published?;
            twice?;
            if bad { Err(Failure::new("no")) } else { Ok(0) }
        })
    });
    spawn.retry(at_once(1)).await.expect("spawns")
}

#[tokio::test]
async fn events_of_a_turn_have_the_options_too_and_are_there_if_the_turn_is() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    let asked = publisher(&system, &notes).await;
    for text in ["delayed", "once", "once, later", "brief", "now", "once"] {
        soon(asked.ask(note(text))).await.unwrap();
    }
    soon(asked.ask(note("bad"))).await.expect_err("fails");
    assert_eq!(next(&notes).await, 3);
    let once = notes.publish(note("once")).dedup_id("x").await.unwrap();
    assert_eq!(once.sequence, Some(0), "published in a turn");
    let system = world.crash(system).await;
    let notes = topic(&system).await;
    assert_eq!(notes.publish(note("once")).dedup_id("x").await.unwrap(), once);
    assert_eq!(notes.publish(note("once, later")).dedup_id("y").await.unwrap().sequence, None);
    world.pass(secs(9));
    grown_to(&notes, 4).await;
    subscribed(&system, &notes, "reader", StartFrom::Earliest, &log).await;
    assert_eq!(log.lines(3).await, ["once", "now", "once, later"]);
    world.pass(secs(1));
    assert_eq!(log.lines(4).await[3], "delayed");
    a_moment().await;
    assert_eq!((log.len(), next(&notes).await), (4, 5));
}

#[tokio::test]
async fn another_event_under_the_id_fails_the_turn_that_publishes_it() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    notes.publish(note("another")).dedup_id("x").await.unwrap();
    let asked = publisher(&system, &notes).await;
    let failed = soon(asked.ask(note("once"))).await.expect_err("a conflict").to_string();
    assert!(failed.contains("dedup id"), "{failed}");
    assert_eq!(next(&notes).await, 1);
}

#[tokio::test]
async fn in_a_turn_a_direct_publish_is_refused_whatever_its_options_unless_it_says_so() {
    let world = World::new();
    let system = world.open().await;
    let notes = topic(&system).await;
    let to = notes.clone();
    let spawn = probe(&system, "direct", move |_| {
        let to = to.clone();
        Box::pin(async move {
            let mut refusals = vec![to.publish(note("a")).delay(secs(1)).await.expect_err("in a turn")];
            refusals.push(to.publish(note("b")).dedup_id("x").await.expect_err("in a turn"));
            refusals.push(to.try_publish(note("c")).expect_err("in a turn"));
            for why in &refusals {
                assert!(matches!(why.refused(), Some(Refused::InsideTurn { instead: "ctx.publish", .. })));
            }
            let stands = to.publish(note("stands")).outside_turn().await.expect("accepted");
            assert_eq!(stands.sequence, Some(0));
            Err(Failure::new("the turn fails").terminal())
        })
    });
    let failed = soon(spawn.await.unwrap().ask(note("go"))).await.expect_err("fails").to_string();
    assert!(failed.contains("the turn fails"), "{failed}");
    assert_eq!(next(&notes).await, 1);
}

#[tokio::test]
async fn an_event_that_is_in_the_topic_cannot_be_taken_back() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    subscribed(&system, &notes, "reader", StartFrom::Earliest, &log).await;
    let Published { id, .. } = notes.publish(note("stays")).await.unwrap();
    assert!(!system.cancel(id).await.unwrap());
    subscribed(&system, &notes, "late", StartFrom::Earliest, &log).await;
    assert_eq!(log.lines(2).await, ["stays", "stays"]);
}
