//! What is due later: never early, once, over restarts and jumps of the clock; and what is taken back.

use std::time::Duration;

use super::world::*;
use crate::{Failure, Handled, Priority, Status, Timestamp};

#[tokio::test]
async fn a_delayed_message_is_handled_when_it_is_due_and_not_before() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    to.tell(note("three")).delay(secs(3)).await.unwrap();
    to.tell(note("one")).at(Timestamp::from_millis(1_001_000)).await.unwrap();
    to.tell(note("now")).await.unwrap();
    log.lines(1).await;
    for (passes, expected) in [(999, 1), (1, 2), (1_999, 2), (1, 3)] {
        world.pass(Duration::from_millis(passes));
        log.lines(expected).await;
        a_moment().await;
        assert_eq!(log.len(), expected, "one came early");
    }
    assert_eq!(log.all(), ["now", "one", "three"]);
}

#[tokio::test]
async fn what_is_scheduled_survives_restarts_and_comes_once() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        Box::pin(async move {
            let to = crate::Address::<Probe>::new("b")?;
            turn.ctx.schedule(&to, note("from a turn"), secs(20))?;
            Ok(0)
        })
    });
    spawn.await.unwrap().ask(note("go")).await.unwrap();
    bound(&system, "b").await.tell(note("from outside")).delay(secs(10)).await.unwrap();
    let system = world.crash(system).await;
    let to = scribe(&system, "b", &log).await;
    world.pass(secs(9));
    a_moment().await;
    assert!(log.all().is_empty());
    world.pass(secs(1));
    log.lines(1).await;
    until("its ack", || to.waiting() == 0).await;
    let system = world.restart(system).await;
    // the second falls due while nobody runs
    let system = {
        system.shutdown(secs(5)).await.unwrap();
        world.pass(secs(100));
        world.open().await
    };
    scribe(&system, "b", &log).await;
    assert_eq!(log.lines(2).await, ["from outside", "from a turn"]);
    let to = bound(&system, "b").await;
    settled(&to).await;
    let system = world.crash(system).await;
    scribe(&system, "b", &log).await;
    world.pass(secs(1000));
    a_moment().await;
    assert_eq!(log.len(), 2);
}

#[tokio::test]
async fn a_clock_that_jumps_back_makes_nothing_early_and_one_that_jumps_ahead_nothing_twice() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    to.tell(note("one")).delay(secs(10)).await.unwrap();
    world.clock.set(Timestamp::from_millis(1_000));
    world.pass(secs(11));
    a_moment().await;
    assert!(log.all().is_empty(), "a delay is a point in time");
    world.clock.set(Timestamp::from_millis(9_000_000));
    log.lines(1).await;
    world.clock.set(Timestamp::from_millis(0));
    world.clock.set(Timestamp::from_millis(9_000_000));
    a_moment().await;
    assert_eq!(log.all(), ["one"]);
}

#[tokio::test]
async fn due_messages_take_their_places_in_order_of_their_times() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    for number in (0..100).rev() {
        let due = Timestamp::from_millis(1_000_001 + number);
        to.tell(note(number)).at(due).priority(Priority::Normal).await.unwrap();
    }
    world.pass(secs(1));
    until("all to be mail", || to.waiting() == 100).await;
    scribe(&system, "a", &log).await;
    let expected: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(log.lines(100).await, expected);
}

#[tokio::test]
async fn a_cancelled_message_on_the_schedule_never_comes() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    let id = to.tell(note("never")).delay(secs(5)).await.unwrap();
    let due = Timestamp::from_millis(1_005_000);
    assert_eq!(system.status(id).await.unwrap(), Status::Scheduled { due });
    assert!(system.cancel(id).await.unwrap());
    assert_eq!(system.status(id).await.unwrap(), Status::Gone);
    assert!(!system.cancel(id).await.unwrap());
    let system = world.crash(system).await;
    scribe(&system, "a", &log).await;
    world.pass(secs(10));
    a_moment().await;
    assert!(log.all().is_empty());
}

#[tokio::test]
async fn a_cancel_between_the_look_and_the_firing_wins() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    let id = to.tell(note("never")).delay(secs(5)).await.unwrap();
    // what the timekeeper saw before the cancel
    let ledger = &to.runtime.ledger;
    let entry = ledger.first_scheduled(1).await.unwrap().remove(0);
    assert!(system.cancel(id).await.unwrap());
    let mut batch = crate::store::Batch::default();
    entry.fire(world.clock_now(), &mut batch);
    let fired = ledger.commit(&mut batch, crate::store::Origin::Inside, crate::store::Urgency::Now).await;
    assert!(fired.is_err());
    a_moment().await;
    assert!(log.all().is_empty());
}

#[tokio::test]
async fn a_cancelled_message_that_waits_is_not_handled() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(to.tell(note(number)).await.unwrap());
    }
    assert_eq!(system.status(ids[1]).await.unwrap(), Status::Waiting { mailbox: "a".into() });
    assert!(system.cancel(ids[1]).await.unwrap());
    let system = world.crash(system).await;
    scribe(&system, "a", &log).await;
    assert_eq!(log.lines(2).await, ["0", "2"]);
    until("all to be settled", || to.waiting() <= 3).await;
    assert!(!system.cancel(ids[0]).await.unwrap(), "it was handled");
}

#[tokio::test]
async fn a_message_cancelled_while_its_handler_runs_leaves_no_effect_and_its_successors_come() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (said, passes) = (log.clone(), gate.clone());
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.note);
        let passes = passes.clone();
        Box::pin(async move {
            let total = turn.ctx.state().get(&TOTAL)?.unwrap_or(0) + 1;
            turn.ctx.state().set(&TOTAL, &total)?;
            passes.pass().await;
            if turn.note == "fails" { Err(Failure::new("no")) } else { Ok(total) }
        })
    });
    let to = spawn.retry(every_ten_seconds(5)).await.unwrap();
    for text in ["succeeds", "fails"] {
        let receipt = to.try_tell(note(text)).unwrap();
        until("its handler", || log.all().last().is_some_and(|last| last == text)).await;
        assert!(system.cancel(receipt.id()).await.unwrap());
        assert_eq!(soon(receipt.handled()).await.unwrap(), Handled::Cancelled);
        gate.let_one_pass();
        gate.let_one_pass();
        assert_eq!(soon(to.ask(note("next"))).await.unwrap(), if text == "succeeds" { 1 } else { 2 });
    }
    assert!(dead(&system).await.is_empty());
}

#[tokio::test]
async fn cancelling_a_message_that_is_tried_again_lets_those_behind_it_go_on() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.note);
        let fails = turn.note == "bad";
        Box::pin(async move { if fails { Err(Failure::new("no")) } else { Ok(0) } })
    });
    let to = spawn.retry(every_ten_seconds(5)).await.unwrap();
    let bad = to.tell(note("bad")).await.unwrap();
    to.tell(note("next")).await.unwrap();
    log.lines(1).await;
    until("it to be held", || to.mailbox.blocked_until(1) > world.clock_now()).await;
    assert!(system.cancel(bad).await.unwrap());
    assert_eq!(log.lines(2).await, ["bad", "next"]);
    assert_eq!(soon(to.ask(note("asked"))).await.unwrap(), 0);
    assert!(crate::Attempts::of_mailbox(to.runtime.ledger.store(), to.mailbox.id).unwrap().is_empty());
}
