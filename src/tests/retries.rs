//! What a failed turn leaves, what counts as an attempt, and who waits for the next one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::*;
use crate::{Address, CellList, CellMap, Failure, MailboxOptions, System};

const NAMES: CellMap<String, u64> = CellMap::new("names", 1);
const QUEUE: CellList<u64> = CellList::new("queue", 1);

/// Fails "bad" as often as told, and writes down every run.
fn failing<'s>(system: &'s System, log: &Log, times: u32) -> crate::Spawn<'s, Probe> {
    let said = log.clone();
    probe(system, "a", move |turn| {
        said.say(format!("{} {}", turn.note, turn.ctx.attempt()));
        let fails = turn.note.starts_with("bad") && turn.ctx.attempt() <= times;
        Box::pin(async move { if fails { Err(Failure::new("no")) } else { Ok(0) } })
    })
}

#[tokio::test]
async fn a_message_that_is_tried_again_holds_up_those_behind_it() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = failing(&system, &log, 2).retry(every_ten_seconds(5)).await.unwrap();
    // in one commit: the worker takes both ahead
    to.tell_all([note("bad"), note("next")]).await.unwrap();
    log.lines(1).await;
    world.pass(Duration::from_millis(9_999));
    a_moment().await;
    assert_eq!(log.all(), ["bad 1"]);
    world.pass(Duration::from_millis(1));
    log.lines(2).await;
    until("the second attempt's failure to be kept", || to.mailbox.blocked_until(1).as_millis() == 1_020_000)
        .await;
    world.pass(secs(10));
    assert_eq!(log.lines(4).await, ["bad 1", "bad 2", "bad 3", "next 1"]);
}

#[tokio::test]
async fn order_and_attempts_survive_a_restart_between_attempts() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    let to = bound(&system, "a").await;
    to.tell(note("bad")).await.unwrap();
    to.tell(note("next")).await.unwrap();
    for attempt in 1..=3 {
        let to = failing(&system, &log, 3).retry(every_ten_seconds(5)).await.unwrap();
        log.lines(attempt).await;
        until("the failure to be kept", || to.mailbox.blocked_until(1) > world.clock_now()).await;
        // synced with it, since it was committed before
        bound(&system, "b").await.tell(note("sync")).await.unwrap();
        system = world.crash(system).await;
        let to = failing(&system, &log, 3).retry(every_ten_seconds(5)).await.unwrap();
        a_moment().await;
        assert_eq!(log.len(), attempt, "it was tried before its time");
        to.stop().await;
        world.pass(secs(10));
    }
    failing(&system, &log, 3).retry(every_ten_seconds(5)).await.unwrap();
    assert_eq!(log.lines(5).await, ["bad 1", "bad 2", "bad 3", "bad 4", "next 1"]);
}

#[tokio::test]
async fn an_unordered_mailbox_goes_on_while_a_message_waits_for_its_next_attempt() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let options = MailboxOptions::new().unordered().retry(every_ten_seconds(5));
    let to = failing(&system, &log, 2).mailbox(options.clone()).await.unwrap();
    let bad = to.tell(note("bad")).await.unwrap();
    to.tell(note("next")).await.unwrap();
    assert_eq!(log.lines(2).await, ["bad 1", "next 1"]);
    settled(&to).await;
    assert!(matches!(system.status(bad).await.unwrap(), crate::Status::Scheduled { .. }));
    let system = world.crash(system).await;
    failing(&system, &log, 2).mailbox(options).await.unwrap();
    world.pass(Duration::from_millis(9_999));
    a_moment().await;
    assert_eq!(log.len(), 2);
    world.pass(Duration::from_millis(1));
    log.lines(3).await;
    let to = bound(&system, "a").await;
    until("the second failure to be kept", || to.waiting() == 0).await;
    world.pass(secs(10));
    assert_eq!(log.lines(4).await[2..], ["bad 2", "bad 3"]);
}

#[tokio::test]
async fn only_the_priority_of_a_failed_message_is_held_up() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = failing(&system, &log, 1).retry(every_ten_seconds(5)).await.unwrap();
    to.tell(note("bad")).await.unwrap();
    log.lines(1).await;
    to.tell(note("same")).await.unwrap();
    to.tell(note("high")).priority(crate::Priority::High).await.unwrap();
    to.tell(note("low")).priority(crate::Priority::Low).await.unwrap();
    assert_eq!(log.lines(3).await, ["bad 1", "high 1", "low 1"]);
    world.pass(secs(10));
    assert_eq!(log.lines(5).await[3..], ["bad 2", "same 1"]);
}

#[tokio::test]
async fn a_failed_turn_leaves_no_sends_no_state_no_timers_and_no_buried_bytes() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let said = said.clone();
        Box::pin(async move {
            let total = turn.ctx.state().get(&TOTAL)?;
            let name = turn.ctx.state().map(&NAMES).get(&"n".to_owned()).await?;
            let queued = turn.ctx.state().list(&QUEUE).len().await?;
            said.say(format!("{total:?} {name:?} {queued} {}", turn.memory.len()));
            turn.memory.push(turn.note.to_owned());
            turn.ctx.state().set(&TOTAL, &1)?;
            turn.ctx.state().map(&NAMES).insert(&"n".to_owned(), &1)?;
            turn.ctx.state().list(&QUEUE).push(&1).await?;
            let to = Address::<Probe>::new("b")?;
            turn.ctx.tell(&to, note("sent"))?;
            turn.ctx.schedule(&to, note("scheduled"), secs(0))?;
            turn.ctx.bury(*b"bytes", "why");
            match (turn.note, turn.ctx.attempt()) {
                ("fail", 1) => Err(Failure::new("no")),
                ("fail", 2) => panic!("no"),
                ("fail", _) => Err(Failure::new("no").terminal()),
                _ => Ok(0),
            }
        })
    });
    let to = spawn.retry(at_once(5)).await.unwrap();
    to.tell(note("fail")).await.unwrap();
    first_dead(&system).await;
    world.pass(secs(100));
    a_moment().await;
    assert_eq!(to.cell(&TOTAL).await.unwrap(), None);
    assert_eq!(to.map_get(&NAMES, &"n".to_owned()).await.unwrap(), None);
    assert_eq!(dead(&system).await.len(), 1, "only the message itself is dead");
    assert_eq!(bound(&system, "b").await.waiting(), 0);
    to.ask(note("fine")).await.unwrap();
    assert_eq!(log.all(), ["None None 0 0"; 4]);
    let b = bound(&system, "b").await;
    until("what the good turn sent", || b.waiting() == 2).await;
    assert_eq!(to.cell(&TOTAL).await.unwrap(), Some(1));
    assert_eq!(dead(&system).await.len(), 2);
}

#[tokio::test]
async fn a_panic_restarts_that_actor_alone_with_what_was_last_committed() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let said = said.clone();
        Box::pin(async move {
            let total = turn.ctx.state().get(&TOTAL)?.unwrap_or(0) + 1;
            turn.ctx.state().set(&TOTAL, &total)?;
            turn.memory.push(turn.note.to_owned());
            said.say(format!("{} {total} {}", turn.note, turn.memory.join("+")));
            assert!(turn.note != "bad" || turn.ctx.attempt() > 1, "as asked");
            Ok(total)
        })
    });
    let to = spawn.retry(at_once(2)).await.unwrap();
    let other = probe(&system, "other", |turn| {
        Box::pin(async move {
            turn.memory.push(String::new());
            Ok(turn.memory.len() as u64)
        })
    });
    let other = other.await.unwrap();
    assert_eq!(other.ask(note("x")).await.unwrap(), 1);
    for text in ["good", "bad", "good"] {
        to.ask(note(text)).await.unwrap();
    }
    assert_eq!(log.all(), ["good 1 good", "bad 2 good+bad", "bad 2 bad", "good 3 bad+good"]);
    assert_eq!(other.ask(note("x")).await.unwrap(), 2, "the other kept its memory");
}

#[tokio::test]
async fn a_panic_while_the_users_lock_is_held_stops_nobody() {
    let (world, lock) = (World::new(), Arc::new(Mutex::new(0)));
    let system = world.open().await;
    let held = lock.clone();
    let spawn = probe(&system, "a", move |turn| {
        let (held, first) = (held.clone(), turn.ctx.attempt() == 1);
        Box::pin(async move {
            let mut guard = held.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *guard += 1;
            assert!(!first, "while the lock is held");
            Ok(*guard)
        })
    });
    let to = spawn.retry(at_once(2)).await.unwrap();
    assert_eq!(soon(to.ask(note("one"))).await.unwrap(), 2);
    assert!(lock.is_poisoned());
    soon(system.shutdown(secs(5))).await.unwrap();
}

#[tokio::test]
async fn a_panic_that_is_no_text_and_one_in_a_drop_are_failures_too() {
    struct Loud;
    impl Drop for Loud {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("in the drop");
            }
        }
    }
    let world = World::new();
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        let text = turn.note.to_owned();
        Box::pin(async move {
            let _loud = (text == "drop").then(|| Loud);
            if text == "any" {
                std::panic::panic_any(7_u8);
            }
            Ok(0)
        })
    });
    let to = spawn.retry(at_once(1)).await.unwrap();
    assert!(soon(to.ask(note("any"))).await.is_err());
    world.pass(secs(1));
    assert!(soon(to.ask(note("drop"))).await.is_err());
    assert_eq!(soon(to.ask(note("fine"))).await.unwrap(), 0);
    let why: Vec<_> =
        dead(&system).await.iter().map(|letter| letter.attempts.last[0].error.clone()).collect();
    assert_eq!(why, ["panicked: (no message)", "panicked: in the drop"]);
}

/// Runs one message whose turn never ends until `ends` has ended it, and says which attempt the next run is.
async fn attempt_after(ends: impl AsyncFnOnce(&World, System, crate::ActorRef<Probe>) -> System) -> u32 {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let script = script(move |turn| {
        said.say(turn.ctx.attempt());
        Box::pin(std::future::pending())
    });
    let to = probe(&system, "a", script.clone()).await.unwrap();
    to.tell(note("one")).await.unwrap();
    log.lines(1).await;
    let system = ends(&world, system, to).await;
    probe(&system, "a", script).await.unwrap();
    log.lines(2).await[1].parse().unwrap()
}

#[tokio::test]
async fn what_the_handler_did_not_do_is_no_attempt() {
    let parked = attempt_after(async |_, system, to| {
        soon(to.park()).await;
        system
    });
    assert_eq!(parked.await, 1, "after a park");
    let shut = attempt_after(async |world, system, _| {
        system.shutdown(Duration::from_millis(20)).await.unwrap();
        world.open().await
    });
    assert_eq!(shut.await, 1, "after a shutdown");
    let crashed = attempt_after(async |world, system, _| world.crash(system).await);
    assert_eq!(crashed.await, 1, "after a crash");
    let dropped = attempt_after(async |world, system, _| {
        drop(system);
        a_moment().await;
        world.disk.crash();
        world.open().await
    });
    assert_eq!(dropped.await, 1, "after a dropped system");
}

#[tokio::test]
async fn an_error_of_the_store_is_no_attempt() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (said, passes) = (log.clone(), gate.clone());
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.ctx.attempt());
        let passes = passes.clone();
        Box::pin(async move {
            passes.pass().await;
            turn.ctx.durable().await?;
            Ok(0)
        })
    });
    let to = spawn.retry(at_once(5)).await.unwrap();
    to.tell(note("one")).await.unwrap();
    log.lines(1).await;
    world.disk.fail_syncs(true);
    let _ = to.tell(note("two")).await;
    soon(system.failed()).await;
    gate.open();
    soon(to.ended()).await;
    world.disk.fail_syncs(false);
    let system = world.crash(system).await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.ctx.attempt());
        Box::pin(async { Ok(0) })
    });
    spawn.await.unwrap();
    assert_eq!(log.lines(2).await[..2], ["1", "1"]);
    assert!(dead(&system).await.is_empty());
}

#[tokio::test]
async fn a_release_is_no_attempt_and_waits_its_least_delay() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.ctx.attempt());
        let releases = said.len() < 4;
        Box::pin(async move { if releases { Err(Failure::new("later").release()) } else { Ok(0) } })
    });
    let to = spawn.retry(at_once(2)).await.unwrap();
    to.tell(note("one")).await.unwrap();
    for runs in 1..4 {
        log.lines(runs).await;
        until("it to be held", || to.mailbox.blocked_until(1) > world.clock_now()).await;
        a_moment().await;
        assert_eq!(log.len(), runs, "it spins");
        world.pass(Duration::from_millis(100));
    }
    assert_eq!(log.lines(4).await, ["1"; 4]);
    until("the message to be settled", || to.waiting() == 0).await;
    assert!(dead(&system).await.is_empty());
}

#[tokio::test]
async fn retry_after_and_terminal_are_what_the_handler_wishes() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(format!("{} {}", turn.note, turn.ctx.attempt()));
        let failure = match turn.note {
            "terminal" => Failure::new("never").terminal(),
            _ => Failure::new("later").retry_after(secs(77)),
        };
        Box::pin(async move { Err(failure) })
    });
    let to = spawn.retry(at_once(2)).await.unwrap();
    to.tell(note("terminal")).await.unwrap();
    assert_eq!(first_dead(&system).await.reason, crate::Reason::Terminal);
    to.tell(note("later")).await.unwrap();
    log.lines(2).await;
    until("it to be held", || to.mailbox.blocked_until(1).as_millis() == 1_077_000).await;
    world.pass(secs(77));
    assert_eq!(log.lines(3).await, ["terminal 1", "later 1", "later 2"]);
    until("the second to die", || to.waiting() == 0).await;
    assert_eq!(dead(&system).await.len(), 2);
}

#[tokio::test]
async fn a_factory_that_panics_after_a_failed_turn_is_asked_again() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let fails = Arc::new(Mutex::new(vec![false, true, true, false]));
    let spawn = system.spawn("a", {
        let (fails, log) = (fails.clone(), log.clone());
        move || {
            assert!(!fails.lock().unwrap().pop().unwrap_or(false), "no actor today");
            log.say("made");
            Quiet
        }
    });
    let to = spawn.retry(at_once(5)).await.unwrap();
    to.tell(note("fail once")).await.unwrap();
    for _ in 0..2 {
        a_moment().await;
        world.pass(secs(1));
    }
    assert_eq!(log.lines(2).await, ["made", "made"]);
    until("the message to be handled", || to.waiting() == 0).await;
}

struct Quiet;
impl crate::Actor for Quiet {
    const NAME: &'static str = "test.quiet";
    type Messages = (Note,);
}
impl crate::Handler<Note> for Quiet {
    async fn handle(&mut self, _: Note, ctx: &mut crate::Context<Self>) -> Result<u64, Failure> {
        if ctx.attempt() == 1 { Err(Failure::new("once")) } else { Ok(0) }
    }
}
