//! Durable subscriptions: to several topics, to patterns of topics, paused and ended.

use std::future::Future;

use super::world::{
    Gate, Log, Note, Probe, World, a_moment, bound, every_ten_seconds, note, probe, secs, soon,
};
use crate::testkit::run_until_idle;
use crate::{
    Actor, Context, Failure, Handler, Message, Spawn, SpawnError, StartFrom, SubscribeError, System, Topic,
};

async fn topic(system: &System, name: &str) -> Topic<Note> {
    system.topic(name).await.expect("opens")
}

async fn publish(topic: &Topic<Note>, texts: &[&str]) {
    for text in texts {
        topic.publish(note(text)).await.expect("accepted");
    }
}

/// Writes down each event with its topic and sequence number; `bad` fails.
fn reader<'s>(system: &'s System, name: &str, log: &Log) -> Spawn<'s, Probe> {
    let log = log.clone();
    let spawn = probe(system, name, move |turn| {
        let from =
            turn.ctx.topic().map(|event| format!("{}/{}:", event.topic, event.sequence)).unwrap_or_default();
        log.say(format!("{from}{}", turn.note));
        let fails = turn.note == "bad" && turn.ctx.attempt() == 1;
        Box::pin(async move { if fails { Err(Failure::new("bad")) } else { Ok(0) } })
    });
    spawn.retry(every_ten_seconds(3))
}

async fn idle(system: &System) {
    soon(run_until_idle(system)).await.expect("runs");
}

/// The lines that were said of each topic, in their order.
fn of(log: &Log, topic: &str) -> Vec<String> {
    let prefix = format!("{topic}/");
    log.all().iter().filter_map(|line| Some(line.strip_prefix(&prefix)?.to_owned())).collect()
}

#[tokio::test]
async fn an_actor_reads_several_topics_each_in_its_order_and_from_its_own_place() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (a, b) = (topic(&system, "a").await, topic(&system, "b").await);
    publish(&a, &["1", "2"]).await;
    publish(&b, &["old"]).await;
    let spawn = reader(&system, "reader", &log).subscribe(&a, StartFrom::Earliest);
    let actor = spawn.subscribe(&b, StartFrom::Latest).await.expect("spawns");
    publish(&b, &["x"]).await;
    publish(&a, &["3"]).await;
    actor.tell(note("mail")).await.expect("accepted");
    idle(&system).await;
    assert_eq!(of(&log, "a"), ["0:1", "1:2", "2:3"]);
    assert_eq!(of(&log, "b"), ["1:x"]);
    assert_eq!(log.count("mail"), 1);
    let several = system.subscription("reader").await.err().map(|why| why.to_string());
    assert_eq!(
        several.as_deref(),
        Some("reader subscribes to several topics (a, b): see `System::subscriptions`")
    );

    let system = world.crash(system).await;
    publish(&topic(&system, "b").await, &["y"]).await;
    // what it subscribes to is stored: it need not be said again
    reader(&system, "reader", &log).await.expect("spawns");
    idle(&system).await;
    assert_eq!((of(&log, "a").len(), of(&log, "b")), (3, vec!["1:x".into(), "2:y".into()]));
}

#[tokio::test]
async fn an_event_that_is_to_be_tried_again_holds_up_its_own_topic_alone() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (a, b) = (topic(&system, "a").await, topic(&system, "b").await);
    let spawn = reader(&system, "reader", &log).subscribe(&a, StartFrom::Earliest);
    let actor = spawn.subscribe(&b, StartFrom::Earliest).await.expect("spawns");
    publish(&a, &["bad", "behind"]).await;
    log.lines(1).await;
    publish(&b, &["1", "2"]).await;
    actor.tell(note("mail")).await.expect("accepted");
    log.lines(4).await;
    a_moment().await;
    assert_eq!((of(&log, "a"), of(&log, "b")), (vec!["0:bad".into()], vec!["0:1".into(), "1:2".into()]));
    world.pass(secs(11));
    idle(&system).await;
    assert_eq!(of(&log, "a"), ["0:bad", "0:bad", "1:behind"]);
}

#[tokio::test]
async fn a_pattern_is_a_subscription_to_every_topic_that_matches_also_to_those_made_later() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let before = topic(&system, "orders.eu").await;
    publish(&before, &["old"]).await;
    let spawn = reader(&system, "reader", &log);
    spawn.subscribe_matching::<Note, _>("orders.>", StartFrom::Latest).await.expect("spawns");
    publish(&before, &["new"]).await;
    let later = topic(&system, "orders.us.east").await;
    publish(&later, &["first"]).await;
    publish(&topic(&system, "payments").await, &["none of its business"]).await;
    idle(&system).await;
    assert_eq!(log.len(), 2);
    assert_eq!(
        (of(&log, "orders.eu"), of(&log, "orders.us.east")),
        (vec!["1:new".into()], vec!["0:first".into()])
    );
    assert_eq!(system.patterns("reader").await.expect("readable"), ["orders.>"]);
    let topics: Vec<_> = system.subscriptions("reader").await.expect("readable");
    assert_eq!(topics.iter().map(|one| one.topic()).collect::<Vec<_>>(), ["orders.eu", "orders.us.east"]);
}

#[tokio::test]
async fn a_topic_made_while_who_matches_it_is_down_is_read_from_its_first_event_on() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let spawn = reader(&system, "reader", &log);
    spawn.subscribe_matching::<Note, _>("orders.*", StartFrom::Latest).await.expect("spawns");
    let system = world.crash(system).await;
    publish(&topic(&system, "orders.eu").await, &["1", "2"]).await;
    let system = world.crash(system).await;
    publish(&topic(&system, "orders.eu").await, &["3"]).await;
    reader(&system, "reader", &log).await.expect("spawns");
    idle(&system).await;
    assert_eq!(log.all(), ["orders.eu/0:1", "orders.eu/1:2", "orders.eu/2:3"]);
}

async fn subscribe_to_all(system: System, name: &'static str) -> Result<(), SpawnError> {
    let spawn = probe(&system, name, |_| Box::pin(async { Ok(0) }));
    spawn.subscribe_matching::<Note, _>("t.*", StartFrom::Earliest).await.map(drop)
}

/// Topics are made at random moments around power cuts, by several at once, while patterns are added: whatever survives, a
/// topic that is there has all its readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_matches_a_topic_subscribes_in_the_commit_that_makes_it() {
    for seed in 0..24 {
        let world = World::with(crate::store::SimulatedDisk::new(seed));
        let system = world.open().await;
        subscribe_to_all(system.clone(), "early").await.expect("spawns");
        let making = (0..6).map(|number| {
            let system = system.clone();
            tokio::spawn(async move { system.topic::<Note>(format!("t.{number}")).await.map(drop).is_ok() })
        });
        let mut making: Vec<_> = making.collect();
        let late = subscribe_to_all(system.clone(), "late");
        making.push(tokio::spawn(async move { late.await.is_ok() }));
        for _ in 0..seed {
            tokio::time::sleep(std::time::Duration::from_micros(50)).await;
        }
        world.disk.crash();
        for made in making {
            soon(made).await.expect("no panic");
        }
        drop(system);
        let system = world.open().await;
        let page = system.mailboxes().page(None, 100).await.expect("readable");
        let made: Vec<_> = page.iter().filter_map(|one| one.name.strip_prefix('@')).collect();
        for reader in ["early", "late"] {
            let subscribed = system.subscriptions(reader).await.expect("readable");
            let mut topics: Vec<_> = subscribed.iter().map(|one| one.topic().to_owned()).collect();
            topics.sort();
            let has_pattern = !system.patterns(reader).await.expect("readable").is_empty();
            assert_eq!(
                topics,
                if has_pattern { made.clone() } else { Vec::new() },
                "{reader} of seed {seed}"
            );
        }
    }
}

#[tokio::test]
async fn a_topic_whose_events_are_of_another_type_matches_nobody_who_does_not_understand_them() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Other;
    impl Message for Other {
        type Reply = ();
        const NAME: &'static str = "test.other";
    }
    struct Both(Log);
    impl Actor for Both {
        const NAME: &'static str = "test.both";
        type Messages = (Note, Other);
    }
    impl Handler<Note> for Both {
        async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
            self.0.say(note.0);
            Ok(0)
        }
    }
    impl Handler<Other> for Both {
        async fn handle(&mut self, _: Other, _: &mut Context<Self>) -> Result<(), Failure> {
            self.0.say("other");
            Ok(())
        }
    }
    let (world, log, all) = (World::new(), Log::new(), Log::new());
    let system = world.open().await;
    let spawn = reader(&system, "reader", &log);
    spawn.subscribe_matching::<Note, _>(">", StartFrom::Earliest).await.expect("spawns");
    let said = all.clone();
    let both = system.spawn("both", move || Both(said.clone()));
    let both = both.subscribe_matching::<Note, _>(">", StartFrom::Earliest);
    both.subscribe_matching::<Other, _>(">", StartFrom::Earliest).await.expect("spawns");
    publish(&topic(&system, "notes").await, &["1"]).await;
    let others: Topic<Other> = system.topic("others").await.expect("opens");
    others.publish(Other).await.expect("accepted");
    idle(&system).await;
    assert_eq!(log.all(), ["notes/0:1"]);
    let mut all = all.all();
    all.sort();
    assert_eq!(all, ["1", "other"]);
}

#[tokio::test]
async fn a_pattern_that_is_none_is_refused() {
    let world = World::new();
    let system = world.open().await;
    let spawn = reader(&system, "reader", &Log::new());
    let refused =
        spawn.subscribe_matching::<Note, _>("a.>.b", StartFrom::Earliest).await.expect_err("refused");
    assert!(matches!(refused, SpawnError::Subscribe(SubscribeError::Pattern(_))), "{refused}");
}

#[tokio::test]
async fn a_paused_subscription_gets_nothing_keeps_its_place_and_goes_on_when_it_is_resumed() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (a, b) = (topic(&system, "a").await, topic(&system, "b").await);
    let spawn = reader(&system, "reader", &log).subscribe(&a, StartFrom::Earliest);
    spawn.subscribe(&b, StartFrom::Earliest).await.expect("spawns");
    publish(&a, &["1"]).await;
    idle(&system).await;
    let paused = system.subscriptions("reader").await.expect("readable").remove(0);
    paused.pause().await.expect("pauses");
    publish(&a, &["2", "3"]).await;
    publish(&b, &["x"]).await;
    idle(&system).await;
    assert_eq!(log.all(), ["a/0:1", "b/0:x"]);
    let info = paused.info().await.expect("readable");
    assert_eq!((info.paused, info.position, info.lag), (true, 1, 2));

    let system = world.crash(system).await;
    reader(&system, "reader", &log).await.expect("spawns");
    idle(&system).await;
    a_moment().await;
    assert_eq!(log.len(), 2);
    let paused = system.subscriptions("reader").await.expect("readable").remove(0);
    assert!(paused.info().await.expect("readable").paused);
    paused.resume().await.expect("goes on");
    idle(&system).await;
    assert_eq!(of(&log, "a"), ["0:1", "1:2", "2:3"]);
}

#[tokio::test]
async fn what_was_read_ahead_is_not_handled_after_a_pause() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    publish(&notes, &["0", "1", "2"]).await;
    let (said, pass) = (log.clone(), gate.clone());
    let spawn = probe(&system, "reader", move |turn| {
        said.say(turn.note);
        let pass = pass.clone();
        Box::pin(async move {
            pass.pass().await;
            Ok(0)
        })
    });
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    log.lines(1).await;
    let subscription = system.subscription("reader").await.expect("there is one");
    subscription.pause().await.expect("pauses");
    gate.open();
    a_moment().await;
    // the turn that ran was committed
    assert_eq!((log.all(), subscription.info().await.expect("readable").position), (vec!["0".into()], 1));
    subscription.resume().await.expect("goes on");
    assert_eq!(log.lines(3).await, ["0", "1", "2"]);
}

#[tokio::test]
async fn an_ended_subscription_gets_nothing_holds_up_no_retention_and_can_begin_anew() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let keeps = crate::Retention::forever().interest();
    let notes: Topic<Note> = system.topic("notes").retention(keeps).await.expect("opens");
    let spawn = reader(&system, "reader", &log).subscribe(&notes, StartFrom::Earliest);
    let actor = spawn.await.expect("spawns");
    reader(&system, "other", &Log::new()).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, &["1"]).await;
    idle(&system).await;
    let subscription = system.subscription("reader").await.expect("there is one");
    let again = system.subscription("reader").await.expect("there is one");
    subscription.unsubscribe().await.expect("ends");
    publish(&notes, &["2", "3"]).await;
    actor.tell(note("mail")).await.expect("accepted");
    idle(&system).await;
    assert_eq!(log.all(), ["notes/0:1", "mail"]);
    assert!(system.subscriptions("reader").await.expect("readable").is_empty());
    assert!(again.resume().await.is_err(), "what has ended cannot go on");
    world.pass(secs(2));
    while notes.info().await.expect("readable").first < 3 {
        world.pass(secs(1));
        a_moment().await;
    }

    actor.stop().await;
    let system = world.crash(system).await;
    let notes = topic(&system, "notes").await;
    let spawn = reader(&system, "reader", &log);
    spawn.subscribe(&notes, StartFrom::Latest).await.expect("spawns");
    publish(&notes, &["4"]).await;
    idle(&system).await;
    assert_eq!(log.all(), ["notes/0:1", "mail", "notes/3:4"]);
}

#[tokio::test]
async fn a_turn_that_runs_when_its_subscription_ends_is_not_committed() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    publish(&notes, &["0"]).await;
    let target = bound(&system, "target").await.address();
    let (said, pass) = (log.clone(), gate.clone());
    let spawn = probe(&system, "reader", move |turn| {
        said.say(turn.note);
        let (pass, sent) = (pass.clone(), turn.ctx.tell(&target, note("sent")));
        Box::pin(async move {
            pass.pass().await;
            sent?;
            Ok(0)
        })
    });
    let actor = spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    log.lines(1).await;
    system.subscription("reader").await.expect("there is one").unsubscribe().await.expect("ends");
    gate.open();
    actor.tell(note("mail")).await.expect("accepted");
    assert_eq!(log.lines(2).await, ["0", "mail"]);
    idle(&system).await;
    let sent = system.mailboxes().page(None, 100).await.expect("readable");
    let waiting = sent.iter().find(|one| one.name == "target").map(|one| one.waiting);
    assert_eq!(waiting, Some(1), "what the mail's turn sent, and no more");
}

#[tokio::test]
async fn to_unsubscribe_from_a_pattern_ends_what_matches_and_what_would() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let other = topic(&system, "other").await;
    let spawn = reader(&system, "reader", &log).subscribe(&other, StartFrom::Earliest);
    spawn.subscribe_matching::<Note, _>("t.*", StartFrom::Earliest).await.expect("spawns");
    let there = topic(&system, "t.1").await;
    system.unsubscribe_matching("reader", "t.*").await.expect("ends");
    publish(&there, &["1"]).await;
    publish(&topic(&system, "t.2").await, &["2"]).await;
    publish(&other, &["3"]).await;
    idle(&system).await;
    assert_eq!(log.all(), ["other/0:3"]);
    assert!(system.patterns("reader").await.expect("readable").is_empty());
}

#[tokio::test]
async fn events_that_no_filter_wants_are_passed_over_and_mail_is_not_filtered() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    let spawn = reader(&system, "reader", &log).subscribe(&notes, StartFrom::Earliest);
    let spawn = spawn.filter(|note: &Note| note.0.len() == 1).filter_header("region", "eu");
    let actor = spawn.await.expect("spawns");
    for (text, region) in [("1", "eu"), ("22", "eu"), ("3", "us"), ("4", "eu")] {
        notes.publish(note(text)).header("region", region).await.expect("accepted");
    }
    notes.publish(note("5")).await.expect("accepted");
    actor.tell(note("direct")).await.expect("accepted");
    idle(&system).await;
    let mut said = log.all();
    said.sort();
    assert_eq!(said, ["direct", "notes/0:1", "notes/3:4"]);
    let system = world.crash(system).await;
    reader(&system, "reader", &log).await.expect("spawns");
    idle(&system).await;
    let info = system.subscription("reader").await.expect("there is one").info().await.expect("readable");
    assert_eq!((info.position, info.lag, log.len()), (5, 0, 3));
}

/// Writes down each batch in a line.
#[derive(Clone)]
struct Bundles(Log);

impl Actor for Bundles {
    const NAME: &'static str = "test.bundles";
    type Messages = (Note,);
}

impl crate::BatchHandler<Note> for Bundles {
    async fn handle_batch(
        &mut self,
        items: Vec<crate::Item<Note>>,
        _: &mut Context<Self>,
    ) -> Result<crate::Outcomes<Note>, Failure> {
        let texts: Vec<_> = items.iter().map(|item| item.message.0.clone()).collect();
        self.0.say(texts.join(" "));
        Ok(items.iter().map(|_| Ok(0)).collect())
    }
}

#[tokio::test]
async fn a_batch_has_only_what_the_filter_wants() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    publish(&notes, &["1", "22", "3", "44", "5"]).await;
    let said = log.clone();
    let spawn = system.spawn("bundles", move || Bundles(said.clone())).batch(10, secs(0));
    let spawn = spawn.subscribe(&notes, StartFrom::Earliest);
    spawn.filter(|note: &Note| note.0.len() == 1).await.expect("spawns");
    idle(&system).await;
    assert_eq!(log.all(), ["1 3 5"]);
}

#[tokio::test]
async fn a_filter_that_panics_is_a_failed_attempt_of_that_event() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    publish(&notes, &["1", "poison", "2"]).await;
    let spawn = reader(&system, "reader", &log).subscribe(&notes, StartFrom::Earliest);
    let spawn = spawn.filter(|note: &Note| {
        assert!(note.0 != "poison", "it is poison");
        true
    });
    spawn.retry(super::world::at_once(2)).await.expect("spawns");
    idle(&system).await;
    assert_eq!(log.all(), ["notes/0:1", "notes/2:2"]);
    let dead = super::world::first_dead(&system).await;
    assert_eq!((dead.mailbox.as_str(), dead.attempts.count), ("reader", 2));
    assert!(dead.attempts.last[0].error.contains("it is poison"), "{:?}", dead.attempts.last);
}

#[tokio::test]
async fn a_batch_has_each_event_once_also_when_its_subscription_is_moved_while_it_is_gathered() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    publish(&notes, &["1", "2"]).await;
    let said = log.clone();
    let spawn = system.spawn("bundles", move || Bundles(said.clone())).batch(10, secs(5));
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    a_moment().await;
    let subscription = system.subscription("bundles").await.expect("there is one");
    subscription.pause().await.expect("pauses");
    a_moment().await;
    subscription.resume().await.expect("goes on");
    a_moment().await;
    world.pass(secs(6));
    idle(&system).await;
    assert_eq!(log.all(), ["1 2"]);
}

/// A future that waits for the disk is thrown away there: what it was to do is admitted.
async fn throw_away_at_the_sync<T>(world: &World, what: impl Future<Output = T>) {
    world.quiet().await;
    world.disk.hold_syncs();
    let ended = tokio::time::timeout(std::time::Duration::from_millis(100), what).await;
    assert!(ended.is_err(), "it did not wait for the disk");
    world.disk.release_syncs();
}

#[tokio::test]
async fn a_topic_whose_maker_was_thrown_away_while_it_waited_for_the_disk_has_its_readers() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let spawn = reader(&system, "reader", &log);
    spawn.subscribe_matching::<Note, _>("t.*", StartFrom::Earliest).await.expect("spawns");
    throw_away_at_the_sync(&world, topic(&system, "t.1")).await;
    publish(&topic(&system, "t.1").await, &["1"]).await;
    idle(&system).await;
    assert_eq!(log.all(), ["t.1/0:1"]);
}

#[tokio::test]
async fn a_subscription_that_was_being_ended_or_paused_when_that_was_thrown_away_is_as_it_is_on_disk() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    let spawn = reader(&system, "reader", &log).subscribe(&notes, StartFrom::Earliest);
    spawn.await.expect("spawns");
    let subscription = system.subscription("reader").await.expect("there is one");
    throw_away_at_the_sync(&world, subscription.pause()).await;
    assert!(subscription.info().await.expect("readable").paused);
    throw_away_at_the_sync(&world, subscription.unsubscribe()).await;
    assert!(system.subscriptions("reader").await.expect("readable").is_empty());
    publish(&notes, &["1"]).await;
    idle(&system).await;
    assert!(log.all().is_empty());
}

#[tokio::test]
async fn an_event_that_fails_for_good_while_its_subscription_is_paused_is_a_whole_dead_letter() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    publish(&notes, &["1"]).await;
    let (said, pass) = (log.clone(), gate.clone());
    let spawn = probe(&system, "reader", move |turn| {
        said.say(turn.note);
        let (pass, first) = (pass.clone(), said.len() == 1);
        Box::pin(async move {
            pass.pass().await;
            if first { Err(Failure::new("bad").terminal()) } else { Ok(0) }
        })
    });
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    log.lines(1).await;
    system.subscription("reader").await.expect("there is one").pause().await.expect("pauses");
    gate.open();
    let dead = super::world::first_dead(&system).await;
    system.dead_letters().redrive(dead.id).await.expect("it is whole");
    assert_eq!(log.lines(2).await, ["1", "1"]);
}

#[tokio::test]
async fn a_handle_on_a_subscription_that_has_ended_does_nothing_to_the_one_that_came_after_it() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    let actor = reader(&system, "reader", &log).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, &["1"]).await;
    idle(&system).await;
    let old = system.subscription("reader").await.expect("there is one");
    old.clone().unsubscribe().await.expect("ends");
    actor.stop().await;
    let actor = reader(&system, "reader", &log).subscribe(&notes, StartFrom::Latest).await.expect("spawns");
    assert!(old.pause().await.is_err());
    assert!(old.seek(StartFrom::Earliest).await.is_err());
    assert_eq!(old.info().await.expect("readable").lag, 0);
    old.unsubscribe().await.expect("there is nothing to end");
    publish(&notes, &["2"]).await;
    idle(&system).await;
    actor.stop().await;
    let system = world.crash(system).await;
    let notes = topic(&system, "notes").await;
    publish(&notes, &["3"]).await;
    reader(&system, "reader", &log).await.expect("spawns");
    idle(&system).await;
    assert_eq!(log.all(), ["notes/0:1", "notes/1:2", "notes/2:3"]);
}

#[tokio::test]
async fn a_subscription_that_was_put_before_what_retention_took_is_found_again() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let keeps = crate::Retention::forever().count(2);
    let notes: Topic<Note> = system.topic("notes").retention(keeps).await.expect("opens");
    publish(&notes, &["0", "1", "2", "3"]).await;
    let spawn = reader(&system, "reader", &log).subscribe(&notes, StartFrom::Sequence(0));
    while notes.info().await.expect("readable").first < 2 {
        world.pass(secs(2));
        a_moment().await;
    }
    spawn.await.expect("spawns");
    idle(&system).await;
    let subscription = system.subscription("reader").await.expect("there is one");
    subscription.pause().await.expect("pauses");
    subscription.seek(StartFrom::Sequence(0)).await.expect("moves");
    subscription.runtime.ledger.store().checkpoint().await.expect("ends");
    drop(subscription);
    let system = world.crash(system).await;
    reader(&system, "reader", &log).await.expect("spawns");
}

/// Says when it is told that something is left of an earlier process.
struct Resumes(Log);

impl Actor for Resumes {
    const NAME: &'static str = "test.resumes";
    type Messages = (Note,);

    async fn recovered(&mut self, _: &mut Context<Self>) -> Result<(), Failure> {
        self.0.say("recovered");
        Ok(())
    }
}

impl Handler<Note> for Resumes {
    async fn handle(&mut self, note: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
        self.0.say(note.0);
        Ok(0)
    }
}

#[tokio::test]
async fn events_published_before_the_open_to_a_subscriber_that_was_up_to_date_and_down_are_left_over() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system, "notes").await;
    let resumes = |log: &Log| {
        let log = log.clone();
        move || Resumes(log.clone())
    };
    let actor =
        system.spawn("reader", resumes(&log)).subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    publish(&notes, &["1"]).await;
    idle(&system).await;
    actor.stop().await;
    system
        .subscription("reader")
        .await
        .expect("there is one")
        .runtime
        .ledger
        .store()
        .checkpoint()
        .await
        .expect("ends");
    publish(&notes, &["2"]).await;
    let system = world.restart(system).await;
    system.spawn("reader", resumes(&log)).await.expect("spawns");
    idle(&system).await;
    assert_eq!(log.all(), ["1", "recovered", "2"]);
}
