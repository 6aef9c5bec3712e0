//! What is decided after a failed turn: about the message, and apart from it, about the actor.

use super::world::{Log, World, at_once, note, probe, until};
use crate::{Decision, Exit, Failure, FailureClass, FailurePolicy, OnActor, OnMessage, Reason, RetryPolicy};

#[tokio::test]
async fn an_actor_that_stops_on_a_failure_keeps_its_mail_and_that_message_first() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let policy = FailurePolicy { panic: Decision::STOP, ..FailurePolicy::new() };
    let actor = probe(&system, "a", move |turn| {
        said.say(format!("{} attempt {}", turn.note, turn.ctx.attempt()));
        let bad = turn.note == "bad";
        Box::pin(async move { if bad { panic!("no") } else { Ok(0) } })
    });
    let start = actor.on_failure(policy).retry(RetryPolicy::never());
    let actor = start.await.expect("spawns");
    actor.tell_all([note("bad"), note("next")]).await.expect("accepted");
    let Some(Exit::Failed(failed)) = actor.ended().await else { panic!("it goes on") };
    assert_eq!((failed.class, failed.decision), (FailureClass::Panic, Decision::STOP));
    assert_eq!((failed.why.as_str(), actor.waiting()), ("panicked: no", 2));

    // after a restart too: it is no dead letter, though its policy allows one attempt, and its attempts are known
    let system = world.restart(system).await;
    world.pass(super::world::secs(1));
    let said = log.clone();
    let actor = probe(&system, "a", move |turn| {
        said.say(format!("{} attempt {}", turn.note, turn.ctx.attempt()));
        Box::pin(async { Ok(0) })
    });
    actor.await.expect("spawns");
    assert_eq!(log.lines(3).await, ["bad attempt 1", "bad attempt 2", "next attempt 1"]);
}

#[tokio::test]
async fn a_handler_may_ask_for_the_end_of_its_actor() {
    let world = World::new();
    let system = world.open().await;
    let actor = probe(&system, "a", |_| Box::pin(async { Err(Failure::new("no bank").escalate()) }));
    let actor = actor.await.expect("spawns");
    actor.tell(note("x")).await.expect("accepted");
    let Some(Exit::Failed(failed)) = actor.ended().await else { panic!("it goes on") };
    assert_eq!(failed.decision, Decision { message: OnMessage::Keep, actor: OnActor::Escalate });
    assert_eq!(actor.waiting(), 1);
}

#[tokio::test]
async fn without_a_supervisor_a_restart_is_a_new_actor_in_the_same_place() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let actor = probe(&system, "a", move |turn| {
        said.say(format!("{} {}", turn.note, turn.memory.len()));
        turn.memory.push(turn.note.to_owned());
        let bad = turn.note == "bad" && turn.ctx.attempt() == 1;
        Box::pin(async move { if bad { panic!("no") } else { Ok(0) } })
    });
    let actor = actor.retry(at_once(2)).await.expect("spawns");
    actor.tell_all([note("one"), note("bad"), note("two")]).await.expect("accepted");
    assert_eq!(log.lines(4).await, ["one 0", "bad 1", "bad 0", "two 1"]);
    assert!(actor.is_running());
}

#[tokio::test]
async fn a_message_that_is_tried_later_holds_up_nobody_in_strict_order_too() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let later = Decision { message: OnMessage::RetryLater, actor: OnActor::Rebuild };
    let policy = FailurePolicy { error: later, ..FailurePolicy::new() };
    let actor = probe(&system, "a", move |turn| {
        said.say(format!("{} attempt {}", turn.note, turn.ctx.attempt()));
        let bad = turn.note == "bad" && turn.ctx.attempt() == 1;
        Box::pin(async move { if bad { Err(Failure::new("no")) } else { Ok(0) } })
    });
    let actor = actor.retry(super::world::every_ten_seconds(3)).on_failure(policy).await.expect("spawns");
    actor.tell_all([note("bad"), note("next")]).await.expect("accepted");
    assert_eq!(log.lines(2).await, ["bad attempt 1", "next attempt 1"]);
    world.pass(super::world::secs(11));
    assert_eq!(log.lines(3).await[2], "bad attempt 2");
}

#[tokio::test]
async fn the_kind_of_failure_and_the_decision_lie_with_the_dead_letter() {
    let world = World::new();
    let system = world.open().await;
    let actor = probe(&system, "a", |turn| {
        let first = turn.ctx.attempt() == 1;
        Box::pin(async move { if first { panic!("first") } else { Err(Failure::new("second").terminal()) } })
    });
    let actor = actor.retry(at_once(5)).await.expect("spawns");
    actor.tell(note("x")).await.expect("accepted");
    until("it is settled", || actor.waiting() == 0).await;
    let dead = system.dead_letters().page(Some("a"), None, 9).await.expect("readable");
    let decided: Vec<_> = dead[0].attempts.last.iter().map(|at| (at.class, at.decision)).collect();
    assert_eq!(dead[0].reason, Reason::Terminal);
    let expected = [(FailureClass::Panic, Decision::RESTART), (FailureClass::Error, Decision::DEAD_LETTER)];
    assert_eq!(decided, expected);
}
