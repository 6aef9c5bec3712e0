//! What a supervisor promises over a restart of the process, and what its restarts leave to others. The rest is in
//! `tests/supervision.rs`, and its rules in `supervisor::tests`.

use std::sync::Arc;

use super::world::*;
use crate::{
    Backoff, ChildSpec, MailboxOptions, Reads, RestartLimit, StartFrom, Strategy, Supervisor, SupervisorExit,
    SupervisorRef, System, Topic,
};

/// A supervisor of one probe, which panics at "bad" in its first attempt.
async fn supervised(system: &System, log: &Log, max: u32) -> SupervisorRef {
    let said = log.clone();
    let panics = script(move |turn| {
        said.say(format!("{} {}", turn.note, turn.ctx.attempt()));
        let bad = turn.note.starts_with("bad") && turn.ctx.attempt() == 1;
        Box::pin(async move { if bad { panic!("no") } else { Ok(7) } })
    });
    let script: Arc<_> = Arc::new(panics);
    let probe = ChildSpec::actor("a", move || Probe::new(script.clone()));
    let probe = probe.backoff(Backoff::none()).mailbox(MailboxOptions::new().retry(at_once(5)));
    let tree =
        Supervisor::new("tree", Strategy::OneForOne).limit(RestartLimit::new(max, secs(60))).child(probe);
    system.supervise(tree).await.expect("starts")
}

#[tokio::test]
async fn a_limit_holds_over_restarts_of_the_process() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    for deploy in 1..=3 {
        let tree = supervised(&system, &log, 2).await;
        let actor = tree.actor::<Probe>("a").await.unwrap();
        actor.tell(note(format!("bad {deploy}"))).await.unwrap();
        if deploy == 3 {
            let exit = soon(tree.ended()).await;
            assert!(matches!(exit, SupervisorExit::LimitExceeded { .. }), "{exit}");
            return;
        }
        // answered once it is on disk, and so is what came before it
        soon(actor.ask(note("after"))).await.unwrap();
        system = world.crash(system).await;
    }
}

#[tokio::test]
async fn what_counts_is_durable_before_the_child_is_started_again() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let tree = supervised(&system, &log, 2).await;
    let actor = tree.actor::<Probe>("a").await.unwrap();
    actor.ask(note("first")).await.unwrap();
    world.disk.hold_syncs();
    actor.tell(note("bad")).durability(crate::Durability::Volatile).await.unwrap();
    actor.tell(note("next")).durability(crate::Durability::Volatile).await.unwrap();
    log.lines(2).await;
    a_moment().await;
    let early = log.all();
    world.disk.release_syncs();
    assert_eq!(early, ["first 1", "bad 1"]);
    log.lines(3).await;
}

#[tokio::test]
async fn an_ask_is_answered_by_the_actor_that_was_started_anew_meanwhile() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let tree = supervised(&system, &log, 9).await;
    let actor = tree.actor::<Probe>("a").await.unwrap();
    // the second is taken together with the first, which ends the actor that took it
    let (bad, next) = soon(async { tokio::join!(actor.ask(note("bad")), actor.ask(note("next"))) }).await;
    assert_eq!((bad.unwrap(), next.unwrap()), (7, 7));
}

/// A supervisor of one reader of a topic, which panics at "bad" in its first attempt.
async fn supervised_reader(system: &System, topic: &Topic<Note>, log: &Log) -> SupervisorRef {
    let said = log.clone();
    let panics = script(move |turn| {
        said.say(format!("{} {}", turn.note, turn.ctx.attempt()));
        let bad = turn.note.starts_with("bad") && turn.ctx.attempt() == 1;
        Box::pin(async move { if bad { panic!("no") } else { Ok(7) } })
    });
    let script: Arc<_> = Arc::new(panics);
    let make = move || Probe::new(script.clone());
    let reader = ChildSpec::subscriber("a", make, Reads::new().subscribe(topic, StartFrom::Earliest));
    let reader = reader.backoff(Backoff::none()).mailbox(MailboxOptions::new().retry(at_once(5)));
    let tree = Supervisor::new("tree", Strategy::OneForOne).child(reader);
    system.supervise(tree).await.expect("starts")
}

#[tokio::test]
async fn a_supervised_subscriber_goes_on_where_it_was_whenever_it_is_started_again() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes: Topic<Note> = system.topic("notes").await.unwrap();
    let tree = supervised_reader(&system, &notes, &log).await;
    for text in ["first", "bad", "next"] {
        notes.publish(note(text)).await.unwrap();
    }
    assert_eq!(log.lines(4).await, ["first 1", "bad 1", "bad 2", "next 1"]);
    settled(&tree.actor::<Probe>("a").await.unwrap()).await;
    drop(tree);
    let system = world.crash(system).await;
    let notes: Topic<Note> = system.topic("notes").await.unwrap();
    notes.publish(note("while it was down")).await.unwrap();
    supervised_reader(&system, &notes, &log).await;
    assert_eq!(log.lines(5).await[4], "while it was down 1");
    a_moment().await;
    assert_eq!(log.len(), 5);
}
