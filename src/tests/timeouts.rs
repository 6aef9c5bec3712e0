//! Turns that may not take longer than a time, by the system's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::world::*;
use crate::{Decision, FailureClass, FailurePolicy, MailboxOptions, Reason, System};

/// A probe whose first turn does all a turn can do and then waits for ever; the later ones only note what they find.
async fn hangs_once(system: &System, log: &Log, options: MailboxOptions) -> crate::ActorRef<Probe> {
    let (said, target) = (log.clone(), crate::Address::<Probe>::new("target").unwrap());
    let spawn = probe(system, "a", move |turn| {
        let (said, target) = (said.clone(), target.clone());
        Box::pin(async move {
            let (attempt, memory) = (turn.ctx.attempt(), turn.memory.len());
            let total = turn.ctx.state().get(&TOTAL)?;
            said.say(format!("{} attempt {attempt}, total {total:?}, memory {memory}", turn.note));
            if attempt > 1 || turn.note != "slow" {
                return Ok(0);
            }
            turn.memory.push("half done".into());
            turn.ctx.state().set(&TOTAL, &1)?;
            turn.ctx.tell(&target, note("sent in a turn that never ended"))?;
            turn.ctx.bury(b"buried".to_vec(), "in a turn that never ended");
            std::future::pending().await
        })
    });
    spawn.mailbox(options).await.expect("spawns")
}

fn ten_seconds() -> MailboxOptions {
    MailboxOptions::new().turn_timeout(secs(10)).retry(at_once(3))
}

#[tokio::test]
async fn a_turn_over_its_time_leaves_nothing_counts_as_an_attempt_and_is_tried_with_a_new_actor() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let a = hangs_once(&system, &log, ten_seconds()).await;
    a.tell_all(["slow", "next"].map(note)).await.unwrap();
    log.lines(1).await;
    world.pass(Duration::from_millis(9_999));
    a_moment().await;
    assert_eq!(log.len(), 1, "it has its time");
    world.pass(Duration::from_millis(1));
    let expected = [
        "slow attempt 1, total None, memory 0",
        "slow attempt 2, total None, memory 0",
        "next attempt 1, total None, memory 0",
    ];
    assert_eq!(log.lines(3).await, expected);
    settled(&a).await;
    assert_eq!((dead(&system).await.len(), bound(&system, "target").await.waiting()), (0, 0));
}

#[tokio::test]
async fn a_message_whose_every_turn_takes_too_long_is_dead_and_its_attempts_say_why() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.note);
        Box::pin(std::future::pending())
    });
    let a = spawn.turn_timeout(secs(10)).retry(at_once(2)).await.unwrap();
    a.tell(note("slow")).await.unwrap();
    for attempt in 1..=2 {
        log.lines(attempt).await;
        // the timer is made when the handler first waits
        a_moment().await;
        world.pass(secs(10));
    }
    let dead = first_dead(&system).await;
    assert_eq!((dead.reason, dead.attempts.count), (Reason::AttemptsUsedUp, 2));
    for attempt in &dead.attempts.last {
        assert_eq!(attempt.class, FailureClass::Timeout);
        assert!(attempt.error.contains("10s") && attempt.error.contains("turn timeout"), "{}", attempt.error);
    }
}

#[tokio::test]
async fn what_is_decided_after_a_timeout_is_the_mailboxes_choice() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let policy = FailurePolicy { timeout: Decision::DEAD_LETTER, ..FailurePolicy::new() };
    let a = hangs_once(&system, &log, ten_seconds().on_failure(policy)).await;
    a.tell_all(["slow", "next"].map(note)).await.unwrap();
    log.lines(1).await;
    a_moment().await;
    world.pass(secs(10));
    assert_eq!(log.lines(2).await[1], "next attempt 1, total None, memory 0");
    assert_eq!(first_dead(&system).await.attempts.count, 1);
}

#[tokio::test]
async fn without_a_timeout_a_turn_takes_as_long_as_it_takes_and_a_quick_one_is_not_ended_by_its_timeout() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (said, passes) = (log.clone(), gate.clone());
    let script = script(move |turn| {
        said.say(turn.note);
        let passes = passes.clone();
        Box::pin(async move {
            passes.pass().await;
            Ok(0)
        })
    });
    let patient = probe(&system, "patient", script.clone()).await.unwrap();
    let quick = probe(&system, "quick", script).turn_timeout(secs(10)).await.unwrap();
    patient.tell(note("slow")).await.unwrap();
    log.lines(1).await;
    world.pass(secs(100_000));
    a_moment().await;
    gate.let_one_pass();
    settled(&patient).await;
    for _ in 0..5 {
        quick.tell(note("quick")).await.unwrap();
        world.pass(secs(9));
        gate.let_one_pass();
        settled(&quick).await;
    }
    assert_eq!(log.len(), 6);
}

#[tokio::test]
async fn after_a_timeout_the_next_attempt_waits_for_the_blocking_closure_of_the_one_before() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let (said, running) = (log.clone(), Arc::new(AtomicUsize::new(0)));
    let spawn = probe(&system, "a", move |turn| {
        let (said, blocked, running) = (said.clone(), blocked.clone(), running.clone());
        Box::pin(async move {
            said.say(format!("attempt {}", turn.ctx.attempt()));
            let most = turn
                .ctx
                .blocking(move || {
                    let now = running.fetch_add(1, Ordering::SeqCst);
                    let _ = blocked.lock().map(|blocked| blocked.recv());
                    running.fetch_sub(1, Ordering::SeqCst);
                    now
                })
                .await?;
            Ok(most as u64)
        })
    });
    let a = spawn.turn_timeout(secs(10)).retry(at_once(3)).await.unwrap();
    let asked = a.ask(note("it"));
    let answer = async {
        log.lines(1).await;
        a_moment().await;
        world.pass(secs(10));
        a_moment().await;
        assert_eq!(log.len(), 1, "the closure of the first attempt still runs");
        release.send(()).unwrap();
        assert_eq!(log.lines(2).await[1], "attempt 2");
        release.send(()).unwrap();
    };
    let (answered, ()) = futures_util::future::join(async { asked.await }, answer).await;
    assert_eq!(answered.unwrap(), 0, "two closures ran at the same time");
}

#[tokio::test]
async fn a_blocking_closure_gives_its_value_and_its_panic_is_a_failure() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let said = said.clone();
        Box::pin(async move {
            let text = turn.note.to_owned();
            let length = turn.ctx.blocking(move || if text == "bad" { panic!("oh no") } else { text.len() });
            let length = length.await.inspect_err(|failure| said.say(failure))?;
            Ok(length as u64)
        })
    });
    let a = spawn.retry(at_once(1)).await.unwrap();
    assert_eq!(soon(a.ask(note("four"))).await.unwrap(), 4);
    a.tell(note("bad")).await.unwrap();
    let dead = first_dead(&system).await;
    assert_eq!(dead.attempts.last[0].class, FailureClass::Panic);
    assert_eq!(log.all(), ["panicked: oh no"]);
}
