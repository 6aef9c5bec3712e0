//! Full mailboxes: who waits, who is refused, and who is never held up.

use std::time::Duration;

use super::world::*;
use crate::{Address, MailboxOptions, Refused, SendError};

#[tokio::test]
async fn a_tell_to_a_full_mailbox_waits_for_room() {
    let (world, gate) = (World::new(), Gate::closed());
    let system = world.open().await;
    let passes = gate.clone();
    let spawn = probe(&system, "a", move |_| {
        let passes = passes.clone();
        Box::pin(async move {
            passes.pass().await;
            Ok(0)
        })
    });
    let to = spawn.capacity(2).await.unwrap();
    to.tell_all([note("1"), note("2")]).await.unwrap();
    only_after(to.tell(note("3")), || gate.let_one_pass()).await.unwrap();
    assert_eq!(to.waiting(), 2);
    // every one of many who wait gets its turn
    let senders: Vec<_> = (0..20)
        .map(|number| {
            let to = to.clone();
            tokio::spawn(async move { to.tell(note(number)).await.map(drop).map_err(drop) })
        })
        .collect();
    gate.open();
    for sender in senders {
        soon(sender).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_refused_message_comes_back_and_lies_nowhere() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = probe(&system, "a", |_| Box::pin(std::future::pending())).capacity(2).await.unwrap();
    to.tell_all([note("1"), note("2")]).await.unwrap();
    match to.try_tell(note("3")).unwrap_err() {
        SendError::Refused { message, why: Refused::Full { mailbox, waiting: 2, limit: 2, .. } } => {
            assert_eq!((message, mailbox.as_str()), (note("3"), "a"));
        }
        other => panic!("{other}"),
    }
    let time = Duration::from_millis(20);
    match soon(to.tell(note("4")).timeout(time)).await.unwrap_err() {
        SendError::Refused { message, why: Refused::TimedOut(after, why) } => {
            assert_eq!((message, after), (note("4"), time));
            assert!(matches!(*why, Refused::Full { .. }), "{why}");
        }
        other => panic!("{other}"),
    }
    assert!(matches!(to.ask(note("5")).timeout(time).await, Err(crate::AskError::Refused { .. })));
    let system = world.restart_parked(system, &to).await;
    scribe(&system, "a", &log).await;
    a_moment().await;
    assert_eq!(log.all(), ["1", "2"]);
}

impl World {
    async fn restart_parked(&self, system: crate::System, to: &crate::ActorRef<Probe>) -> crate::System {
        to.park().await;
        self.restart(system).await
    }
}

#[tokio::test]
async fn the_limit_holds_after_a_restart_for_bytes_too_and_more_than_it_is_refused_for_good() {
    let world = World::new();
    let system = world.builder().mailbox_capacity(3).mailbox_capacity_bytes(2000);
    let system = system.open_simulated(&world.disk).await.unwrap();
    let to = bound(&system, "a").await;
    to.tell_all((0..3).map(note)).await.unwrap();
    assert!(matches!(to.try_tell(note("x")).unwrap_err().refused(), Some(Refused::Full { .. })));
    let large = note("x".repeat(1900));
    let to = bound(&system, "b").await;
    to.tell(large.clone()).await.unwrap();
    assert!(matches!(
        to.try_tell(large).unwrap_err().refused(),
        Some(Refused::Full { limit_bytes: 2000, .. })
    ));
    let too_many = soon(to.tell_all((0..4).map(note))).await.unwrap_err();
    assert!(matches!(too_many.refused(), Some(Refused::TooLarge { .. })), "{too_many}");
    assert_eq!(too_many.into_message().unwrap().len(), 4);
    drop(system);
    let system = world.builder().mailbox_capacity(3);
    world.disk.crash();
    let system = system.open_simulated(&world.disk).await.unwrap();
    let to = bound(&system, "a").await;
    assert!(matches!(to.try_tell(note("x")).unwrap_err().refused(), Some(Refused::Full { waiting: 3, .. })));
    // an actor's own options count more
    probe(&system, "a", |_| Box::pin(std::future::pending())).capacity(5).await.unwrap();
    to.try_tell(note("x")).unwrap();
}

#[tokio::test]
async fn a_send_in_a_turn_is_never_refused_but_its_worker_waits_until_there_is_room() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let passes = gate.clone();
    let target = probe(&system, "target", move |_| {
        let passes = passes.clone();
        Box::pin(async move {
            passes.pass().await;
            Ok(0)
        })
    });
    let target = target.capacity(3).await.unwrap();
    let said = log.clone();
    let source = probe(&system, "source", move |turn| {
        said.say(turn.note);
        Box::pin(async move {
            for number in 0..5 {
                turn.ctx.tell(&Address::<Probe>::new("target")?, note(number))?;
            }
            Ok(0)
        })
    });
    let source = source.await.unwrap();
    source.tell_all((0..3).map(note)).await.unwrap();
    until("the target to be overfilled", || target.waiting() == 5).await;
    a_moment().await;
    assert_eq!((log.len(), target.waiting()), (1, 5), "the source goes on without room");
    gate.let_one_pass();
    gate.let_one_pass();
    log.lines(2).await;
    until("the second turn's mail", || target.waiting() == 8).await;
    gate.open();
    log.lines(3).await;
    until("all to be settled", || target.waiting() + source.waiting() == 0).await;
}

#[tokio::test]
async fn two_actors_that_send_to_each_others_full_mailboxes_keep_moving() {
    let world = World::new();
    let system = world.open().await;
    let mut refs = Vec::new();
    for (name, other) in [("a", "b"), ("b", "a")] {
        let spawn = probe(&system, name, move |turn| {
            Box::pin(async move {
                let left: u64 = turn.note.parse()?;
                for _ in 0..2 {
                    if left > 0 {
                        turn.ctx.tell(&Address::<Probe>::new(other)?, note(left - 1))?;
                    }
                }
                Ok(0)
            })
        });
        refs.push(spawn.capacity(2).await.unwrap());
    }
    for to in &refs {
        to.tell(note(7)).await.unwrap();
    }
    until("both to be empty", || refs.iter().all(|to| to.waiting() == 0)).await;
    assert!(dead(&system).await.is_empty());
}

#[tokio::test]
async fn mailbox_options_of_the_actor_are_those_of_its_spawn_unless_it_says_otherwise() {
    let world = World::new();
    let system = world.open().await;
    let options = MailboxOptions::new().capacity(1).capacity_bytes(500);
    let to = probe(&system, "a", |_| Box::pin(std::future::pending())).mailbox(options).await.unwrap();
    assert!(to.try_tell(note("x".repeat(600))).is_err());
    to.try_tell(note("x")).unwrap();
    assert!(to.try_tell(note("x")).is_err());
}
