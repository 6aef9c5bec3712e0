//! Subscriptions that several workers read, and whose place is moved, or whose events retention takes, while events are in
//! somebody's hands, wait for their key, or wait to be tried again.

use std::future::IntoFuture;
use std::task::{Context as Poll, Waker};

use super::world::*;
use crate::testkit::run_until_idle;
use crate::{
    Actor, BatchHandler, Context, Failure, Gap, Handler, Item, Order, Outcomes, Retention, StartFrom, System,
    Topic,
};

async fn topic(system: &System) -> Topic<Note> {
    system.topic("notes").await.expect("opens")
}

async fn publish(topic: &Topic<Note>, range: std::ops::Range<u64>) {
    for number in range {
        topic.publish(note(number)).key("k").await.expect("accepted");
    }
}

async fn seek(system: &System, to: StartFrom) {
    system.subscription("reader").await.expect("there is one").seek(to).await.expect("moves");
}

#[tokio::test]
async fn what_waits_for_its_key_is_dropped_when_the_place_is_moved() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system).await;
    publish(&notes, 0..6).await;
    let spawn = probes(&system, "reader", 2, gated(&log, &gate)).order(Order::PerKey);
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    log.lines(1).await;
    // the other one has read them, and they wait
    a_moment().await;
    seek(&system, StartFrom::Sequence(4)).await;
    gate.open();
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all(), ["0", "4", "5"]);
    seek(&system, StartFrom::Sequence(2)).await;
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all()[3..], ["2", "3", "4", "5"]);
}

#[tokio::test]
async fn what_is_in_somebodys_hands_is_given_to_nobody_else_when_the_place_is_moved() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system).await;
    publish(&notes, 0..2).await;
    let spawn = probes(&system, "reader", 3, gated(&log, &gate)).order(Order::Unordered);
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    log.lines(2).await;
    seek(&system, StartFrom::Earliest).await;
    a_moment().await;
    assert_eq!(log.len(), 2, "{:?}", log.all());
    publish(&notes, 2..4).await;
    gate.open();
    soon(run_until_idle(&system)).await.expect("runs");
    let mut all = log.all();
    all.sort();
    assert_eq!(all, ["0", "1", "2", "3"]);
}

#[tokio::test]
async fn what_holds_up_a_topic_does_so_no_more_once_the_place_is_moved() {
    for (workers, order) in [(1, Order::Strict), (2, Order::PerKey)] {
        let (world, log) = (World::new(), Log::new());
        let system = world.open().await;
        let notes = topic(&system).await;
        publish(&notes, 0..2).await;
        let said = log.clone();
        let fails = script(move |turn| {
            said.say(turn.note);
            let fails = turn.note == "0";
            Box::pin(async move { if fails { Err(Failure::new("no")) } else { Ok(0) } })
        });
        let spawn = probes(&system, "reader", workers, fails).order(order);
        let spawn = spawn.retry(every_ten_seconds(5));
        spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
        log.lines(1).await;
        a_moment().await;
        seek(&system, StartFrom::Sequence(1)).await;
        assert_eq!(log.lines(2).await, ["0", "1"], "{workers} workers");
    }
}

/// Fails with event 0 the first time, once the gate lets it, and writes down its gaps.
struct Stumbles {
    log: Log,
    gate: Gate,
}

impl Actor for Stumbles {
    const NAME: &'static str = "test.stumbles";
    type Messages = (Note,);

    async fn gap(&mut self, gap: Gap, _: &mut Context<Self>) -> Result<(), Failure> {
        self.log.say(format!("gap {}..{}", gap.from, gap.to));
        Ok(())
    }
}

impl Handler<Note> for Stumbles {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        if note.0 == "0" && ctx.attempt() == 1 {
            self.gate.pass().await;
            return Err(Failure::new("not now"));
        }
        self.log.say(&note.0);
        Ok(0)
    }
}

/// Several workers that fail with the first of ten events once the gate lets them, and have handled the others, in a topic that
/// keeps three.
async fn stumble(world: &World, log: &Log, gate: &Gate) -> (System, Topic<Note>) {
    let system = world.open().await;
    let notes: Topic<Note> =
        system.topic("notes").retention(Retention::forever().count(3)).await.expect("opens");
    notes.publish_all((0..10).map(note)).await.expect("accepted");
    let (said, pass) = (log.clone(), gate.clone());
    let spawn = system.pool("reader", 2, move || Stumbles { log: said.clone(), gate: pass.clone() });
    let spawn = spawn.order(Order::Unordered).retry(every_ten_seconds(3));
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    log.lines(9).await;
    (system, notes)
}

async fn taken(world: &World, topic: &Topic<Note>, below: u64) {
    while topic.info().await.expect("readable").first < below {
        world.pass(secs(1));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_several_have_in_hand_or_handled_is_not_told_as_lost() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let (system, notes) = stumble(&world, &log, &gate).await;
    soon(taken(&world, &notes, 7)).await;
    publish(&notes, 10..11).await;
    assert_eq!(log.lines(10).await[9], "10", "the first is in the hands of another");
    gate.open();
    // it fails, and retention took it: it is gone
    a_moment().await;
    publish(&notes, 11..12).await;
    log.lines(12).await;
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all()[10..], ["gap 0..1", "11"]);
}

#[tokio::test]
async fn a_join_that_is_dropped_anywhere_leaves_no_member_behind() {
    for polls in 1..20 {
        let world = World::new();
        let system = world.open().await;
        let group = system.group::<Probe>("group").await.expect("opens");
        let make =
            || Probe::new(std::sync::Arc::new(|_: Turn<'_>| -> Answer<'_> { Box::pin(async { Ok(0) }) }));
        let mut join = group.join(make).into_future();
        for _ in 0..polls {
            if join.as_mut().poll(&mut Poll::from_waker(Waker::noop())).is_ready() {
                assert!(polls > 1, "there was nowhere to drop it");
                return;
            }
            a_moment().await;
        }
        drop(join);
        until("nobody to be there", || group.members().is_empty()).await;
    }
    panic!("it never joins");
}

/// Fails once with what it handles for the first time, alone or in a batch, when the gate lets it.
struct Fails {
    log: Log,
    gate: Gate,
}

impl Actor for Fails {
    const NAME: &'static str = "test.fails";
    type Messages = (Note,);

    async fn gap(&mut self, gap: Gap, _: &mut Context<Self>) -> Result<(), Failure> {
        self.log.say(format!("gap {}..{}", gap.from, gap.to));
        Ok(())
    }
}

impl BatchHandler<Note> for Fails {
    async fn handle_batch(
        &mut self,
        items: Vec<Item<Note>>,
        _: &mut Context<Self>,
    ) -> Result<Outcomes<Note>, Failure> {
        let texts: Vec<_> = items.iter().map(|item| item.message.0.clone()).collect();
        self.log.say(texts.join(" "));
        let first = self.log.len() == 1;
        if first {
            self.gate.pass().await;
        }
        Ok(items.iter().map(|_| if first { Err(Failure::new("no")) } else { Ok(0) }).collect())
    }
}

#[tokio::test]
async fn an_event_that_was_taken_before_it_was_put_off_is_told_as_lost_and_no_empty_one_comes() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes: Topic<Note> =
        system.topic("notes").retention(Retention::forever().count(3)).await.expect("opens");
    notes.publish_all((0..2).map(note)).await.expect("accepted");
    let (said, pass) = (log.clone(), gate.clone());
    let spawn = system.spawn("reader", move || Fails { log: said.clone(), gate: pass.clone() });
    let spawn = spawn.order(Order::Unordered).retry(every_ten_seconds(3)).batch(2, secs(0));
    spawn.subscribe(&notes, StartFrom::Earliest).await.expect("spawns");
    assert_eq!(log.lines(1).await, ["0 1"]);
    publish(&notes, 2..5).await;
    soon(taken(&world, &notes, 2)).await;
    gate.open();
    log.lines(4).await;
    world.pass(secs(11));
    a_moment().await;
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all()[1], "gap 0..2");
    assert_eq!(log.all()[2..].join(" "), "2 3 4");
    assert!(dead(&system).await.is_empty());
}
