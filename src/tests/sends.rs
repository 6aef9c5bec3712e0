//! Sends from outside and from turns: order, what `Ok` means, and what is refused.

use std::sync::{Arc, Mutex};

use super::world::*;
use crate::{
    Accepts, ActorRef, Address, AskError, Durability, Handled, MessageId, Priority, Refused, SendError,
    SendOptions, SpawnError, Status,
};

#[tokio::test]
async fn mail_is_handled_in_the_order_of_its_sends_over_restarts() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    for round in 0..3 {
        let to = bound(&system, "a").await;
        for number in 0..10 {
            to.tell(note(format!("{round}.{number}"))).await.unwrap();
        }
        system = if round == 1 { world.crash(system).await } else { world.restart(system).await };
    }
    scribe(&system, "a", &log).await;
    let expected: Vec<_> = (0..30).map(|n| format!("{}.{}", n / 10, n % 10)).collect();
    assert_eq!(log.lines(30).await, expected);
}

#[tokio::test]
async fn mail_for_an_actor_that_is_not_running_waits() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    to.tell(note("one")).await.unwrap();
    a_moment().await;
    assert_eq!((to.waiting(), to.is_running()), (1, false));
    scribe(&system, "a", &log).await;
    assert_eq!(log.lines(1).await, ["one"]);
}

#[tokio::test]
async fn a_higher_priority_is_handled_first_also_when_it_comes_while_others_wait() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (said, passes) = (log.clone(), gate.clone());
    let to = probe(&system, "a", move |turn| {
        said.say(turn.note);
        Box::pin(passing(passes.clone()))
    });
    let to = to.await.unwrap();
    to.tell(note("first")).await.unwrap();
    log.lines(1).await;
    for number in 0..3 {
        to.tell(note(format!("low {number}"))).priority(Priority::Low).await.unwrap();
        to.tell(note(format!("normal {number}"))).await.unwrap();
    }
    gate.let_one_pass();
    log.lines(2).await;
    to.tell(note("high")).priority(Priority::High).await.unwrap();
    gate.open();
    let expected = ["first", "normal 0", "high", "normal 1", "normal 2", "low 0", "low 1", "low 2"];
    assert_eq!(log.lines(8).await, expected);
}

async fn passing(gate: Gate) -> Result<u64, crate::Failure> {
    gate.pass().await;
    Ok(0)
}

#[tokio::test]
async fn an_ok_under_synced_comes_after_the_sync() {
    let world = World::new();
    let system = world.open().await;
    let to = bound(&system, "a").await;
    world.disk.hold_syncs();
    only_after(to.tell(note("one")), || world.disk.release_syncs()).await.unwrap();
}

#[tokio::test]
async fn an_ok_under_buffered_does_not_wait_for_the_sync_but_is_handled() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    world.disk.hold_syncs();
    soon(to.tell(note("one")).durability(Durability::Buffered)).await.unwrap();
    assert_eq!(log.lines(1).await, ["one"]);
    world.disk.release_syncs();
}

#[tokio::test]
async fn a_buffered_message_is_synced_without_being_asked_for() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    to.tell(note("one")).durability(Durability::Buffered).await.unwrap();
    a_moment().await;
    let system = world.crash(system).await;
    scribe(&system, "a", &log).await;
    assert_eq!(log.lines(1).await, ["one"]);
}

#[tokio::test]
async fn a_volatile_message_is_handled_but_not_found_after_a_restart() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    to.tell(note("durable")).await.unwrap();
    to.tell(note("lost")).durability(Durability::Volatile).await.unwrap();
    let system = world.restart(system).await;
    let to = scribe(&system, "a", &log).await;
    to.tell(note("volatile")).durability(Durability::Volatile).await.unwrap();
    assert_eq!(log.lines(2).await, ["durable", "volatile"]);
    assert_eq!(soon(to.ask(note("asked")).durability(Durability::Volatile)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_volatile_message_that_fails_is_not_tried_again_and_its_receipt_says_so() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.note);
        Box::pin(async { Err(crate::Failure::new("no")) })
    });
    let to = spawn.retry(at_once(5)).await.unwrap();
    let receipt = to.tell(note("one")).durability(Durability::Volatile).submit().unwrap();
    assert_eq!(soon(receipt.handled()).await.unwrap(), Handled::Lost);
    let expired = to.tell(note("two")).durability(Durability::Volatile).expires(secs(0)).submit().unwrap();
    assert_eq!(soon(expired.handled()).await.unwrap(), Handled::Expired);
    a_moment().await;
    assert_eq!(log.all(), ["one"]);
    assert!(dead(&system).await.is_empty());
}

#[tokio::test]
async fn a_volatile_message_is_refused_what_needs_the_store() {
    let world = World::new();
    let system = world.open().await;
    let to = bound(&system, "a").await;
    let delayed = to.tell(note("one")).durability(Durability::Volatile).delay(secs(1)).await.unwrap_err();
    assert!(matches!(delayed.refused(), Some(Refused::NotVolatile { option: "delay" })), "{delayed}");
    let marked = to.tell(note("one")).durability(Durability::Volatile).dedup_id("x").await.unwrap_err();
    assert!(matches!(marked.refused(), Some(Refused::NotVolatile { option: "dedup_id" })), "{marked}");
}

#[tokio::test]
async fn tell_all_is_found_whole_or_not_at_all_after_a_power_cut() {
    for operation in 1.. {
        let world = World::new();
        let system = world.open().await;
        let to = bound(&system, "a").await;
        to.tell(note("before")).await.unwrap();
        world.disk.cut_power_at(world.disk.operations() + operation);
        let sent = soon(to.tell_all((0..5).map(note))).await;
        if !world.disk.is_cut() {
            assert!(operation > 2 && sent.is_ok(), "nothing was cut");
            break;
        }
        let system = world.crash(system).await;
        let waiting = bound(&system, "a").await.waiting();
        assert!(waiting == 1 || waiting == 6, "{waiting} after a cut at operation {operation}");
        assert!(sent.is_err() || waiting == 6, "an Ok was lost");
    }
}

#[tokio::test]
async fn tell_all_keeps_its_order_with_nothing_between() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    let ids = to.tell_all((0..200).map(note)).await.unwrap();
    assert_eq!(ids.len(), 200);
    let expected: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(log.lines(200).await, expected);
    assert!(to.tell_all(Vec::<Note>::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_receipt_tells_how_a_message_ended() {
    let (world, gate) = (World::new(), Gate::closed());
    let system = world.open().await;
    let passes = gate.clone();
    let spawn = probe(&system, "a", move |turn| {
        let (passes, fails) = (passes.clone(), turn.note == "fail");
        Box::pin(async move {
            passes.pass().await;
            if fails { Err(crate::Failure::new("no").terminal()) } else { Ok(0) }
        })
    });
    let to = spawn.await.unwrap();
    let done = to.try_tell(note("done")).unwrap();
    soon(done.durable()).await.unwrap();
    let buried = to.try_tell(note("fail")).unwrap();
    let expired = to.tell(note("late")).expires(secs(5)).submit().unwrap();
    let cancelled = to.try_tell(note("never")).unwrap();
    assert!(system.cancel(cancelled.id()).await.unwrap());
    assert_eq!(soon(cancelled.handled()).await.unwrap(), Handled::Cancelled);
    world.pass(secs(5));
    gate.open();
    assert_eq!(soon(done.handled()).await.unwrap(), Handled::Done);
    assert_eq!(soon(buried.handled()).await.unwrap(), Handled::Buried);
    assert_eq!(soon(expired.handled()).await.unwrap(), Handled::Expired);
}

#[tokio::test]
async fn what_a_receipt_tells_is_durable() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    let receipt = to.try_tell(note("one")).unwrap();
    receipt.durable().await.unwrap();
    world.disk.hold_syncs();
    let receipt = to.try_tell(note("two")).unwrap();
    log.lines(2).await;
    only_after(receipt.durable(), || world.disk.release_syncs()).await.unwrap();
    world.disk.hold_syncs();
    let receipt = to.try_tell(note("three")).unwrap();
    log.lines(3).await;
    assert_eq!(only_after(receipt.handled(), || world.disk.release_syncs()).await.unwrap(), Handled::Done);
}

#[tokio::test]
async fn expired_mail_is_not_handled() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    let id = to.tell(note("late")).expires(secs(10)).await.unwrap();
    to.tell(note("in time")).expires(secs(11)).await.unwrap();
    world.pass(secs(10));
    scribe(&system, "a", &log).await;
    assert_eq!(log.lines(1).await, ["in time"]);
    until("both to be settled", || to.waiting() == 0).await;
    assert_eq!(system.status(id).await.unwrap(), Status::Gone);
    assert!(dead(&system).await.is_empty());
}

#[tokio::test]
async fn headers_deadline_and_sending_time_reach_the_handler_also_after_a_restart() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    to.tell(note("one")).header("k", "old").header("k", "v").expires(secs(60)).await.unwrap();
    let system = world.crash(system).await;
    world.pass(secs(1));
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let (sent, deadline) = (turn.ctx.sent_at().as_millis(), turn.ctx.deadline().unwrap().as_millis());
        said.say(format!("{:?} {sent} {deadline} {}", turn.ctx.headers().get("k"), turn.ctx.name()));
        Box::pin(async { Ok(0) })
    });
    spawn.await.unwrap();
    assert_eq!(log.lines(1).await, ["Some(\"v\") 1000000 1060000 a"]);
}

#[tokio::test]
async fn direct_sends_in_a_turn_are_refused_unless_they_say_that_they_stand_outside() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let other = scribe(&system, "other", &log).await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let (other, said, first) = (other.clone(), said.clone(), turn.ctx.attempt() == 1);
        Box::pin(async move {
            if first {
                let is_refused = |why: Option<&Refused>| matches!(why, Some(Refused::InsideTurn { .. }));
                assert!(is_refused(other.tell(note("x")).await.unwrap_err().refused()));
                assert!(is_refused(other.try_tell(note("x")).unwrap_err().refused()));
                assert!(is_refused(other.ask(note("x")).await.unwrap_err().refused()));
                assert!(is_refused(other.tell_all([note("x")]).await.unwrap_err().refused()));
                assert!(is_refused(
                    other.recipient::<Note, _>().tell(note("x")).await.unwrap_err().refused()
                ));
                let volatile = other.tell(note("x")).durability(Durability::Volatile).await;
                assert!(is_refused(volatile.unwrap_err().refused()));
                other.tell(note("outside")).outside_turn().await?;
                other.ask(note("asked outside")).outside_turn().await?;
                said.say("refused");
                return Err(crate::Failure::new("the turn fails"));
            }
            Ok(0)
        })
    });
    let to = spawn.retry(at_once(2)).await.unwrap();
    to.ask(note("go")).await.unwrap();
    assert_eq!(log.all(), ["outside", "asked outside", "refused"]);
}

/// The ids one turn gives its sends, the key it shows the world, and its own id.
async fn ids_in_a_turn_over_a_crash(fail_first: bool) -> (Vec<Vec<MessageId>>, Vec<String>) {
    let (world, gate) = (World::new(), Gate::closed());
    let ids: Arc<Mutex<Vec<Vec<MessageId>>>> = Arc::default();
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let start = |system: crate::System| {
        let (ids, keys, gate) = (ids.clone(), keys.clone(), gate.clone());
        async move {
            let spawn = probe(&system, "a", move |turn| {
                let (ids, keys, gate) = (ids.clone(), keys.clone(), gate.clone());
                Box::pin(async move {
                    let to = Address::<Probe>::new("b")?;
                    let one = turn.ctx.tell(&to, note("x"))?;
                    let two = turn.ctx.tell(&to, note("x"))?;
                    let three = turn.ctx.schedule(&to, note("x"), secs(1))?;
                    let first = ids.lock().unwrap().is_empty();
                    ids.lock().unwrap().push(vec![turn.ctx.message_id(), one, two, three]);
                    keys.lock().unwrap().push(turn.ctx.idempotency_key("pay"));
                    if first && fail_first {
                        return Err(crate::Failure::new("no"));
                    }
                    gate.pass().await;
                    Ok(0)
                })
            });
            spawn.retry(at_once(3)).await.unwrap();
            system
        }
    };
    let system = start(world.open().await).await;
    bound(&system, "a").await.tell(note("go")).await.unwrap();
    until("two runs or one", || ids.lock().unwrap().len() == if fail_first { 2 } else { 1 }).await;
    let system = start(world.crash(system).await).await;
    until("a further run", || ids.lock().unwrap().len() == if fail_first { 3 } else { 2 }).await;
    gate.open();
    let seen = ids.lock().unwrap().clone();
    let b = bound(&system, "b").await;
    until("the mail of the one turn that was committed", || b.waiting() == 2).await;
    assert!(matches!(system.status(seen[0][1]).await.unwrap(), Status::Waiting { .. }));
    let keys = keys.lock().unwrap().clone();
    (seen, keys)
}

#[tokio::test]
async fn ids_of_sends_in_a_turn_repeat_when_it_is_run_again() {
    for fail_first in [false, true] {
        let (seen, keys) = ids_in_a_turn_over_a_crash(fail_first).await;
        assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
        assert!(keys.windows(2).all(|two| two[0] == two[1]), "{keys:?}");
        let mut all = seen[0].clone();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4, "the ids differ among themselves");
    }
}

#[tokio::test]
async fn an_address_is_data_and_finds_its_actor_after_a_restart() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "b").await;
    let stored = serde_json::to_string(&to.address()).unwrap();
    let any = serde_json::to_string(&to.address().accepts::<Note, _>()).unwrap();
    let system = world.restart(system).await;
    let address: Address<Probe> = serde_json::from_str(&stored).unwrap();
    let any: Address<dyn Accepts<Note>> = serde_json::from_str(&any).unwrap();
    assert_eq!(address.name(), "b");
    scribe(&system, "b", &log).await;
    let spawn = probe(&system, "a", {
        let (address, recipient) = (address.clone(), to_recipient(&system, &address).await);
        move |turn| {
            let (address, any, recipient) = (address.clone(), any.clone(), recipient.clone());
            Box::pin(async move {
                turn.ctx.tell(&address, note("by address"))?;
                turn.ctx.tell(&any, note("by what it accepts"))?;
                turn.ctx.tell(&recipient, note("by recipient"))?;
                let own = turn.ctx.address();
                if turn.note == "go" {
                    turn.ctx.tell(&own, note("myself"))?;
                }
                Ok(0)
            })
        }
    });
    spawn.await.unwrap().ask(note("go")).await.unwrap();
    let lines = log.lines(6).await;
    assert_eq!(lines[..3], ["by address", "by what it accepts", "by recipient"]);
    let recipient = to_recipient(&system, &address).await;
    recipient.tell(note("told")).await.unwrap();
    assert_eq!(recipient.ask(note("asked")).await.unwrap(), 0);
    assert!(serde_json::from_str::<Address<Probe>>(r#"["no name", "test.probe"]"#).is_err());
}

async fn to_recipient(system: &crate::System, address: &Address<Probe>) -> crate::Recipient<Note> {
    system.bind(address).await.unwrap().recipient::<Note, _>()
}

#[tokio::test]
async fn names_that_are_none_are_refused_everywhere() {
    let world = World::new();
    let system = world.open().await;
    assert!(Address::<Probe>::new("no name").is_err());
    let spawned = probe(&system, "no name", |_| Box::pin(async { Ok(0) })).await;
    assert!(matches!(spawned, Err(SpawnError::Name(_))));
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_handed_back() {
    let world = World::new();
    let system = world.builder().max_message(1000).open_simulated(&world.disk).await.unwrap();
    let to = bound(&system, "a").await;
    let large = note("x".repeat(2000));
    match to.tell(large.clone()).await.unwrap_err() {
        SendError::Refused { message, why: Refused::TooLarge { limit: 1000, bytes } } => {
            assert!(message == large && bytes > 2000);
        }
        other => panic!("{other}"),
    }
    assert!(matches!(
        to.ask(large.clone()).await,
        Err(AskError::Refused { why: Refused::TooLarge { .. }, .. })
    ));
    assert!(to.tell_all([note("small"), large]).await.is_err());
    assert_eq!(to.waiting(), 0);
    to.tell(note("small")).await.unwrap();
}

#[tokio::test]
async fn when_the_sync_fails_a_sender_learns_that_nothing_is_known_and_later_ones_are_refused() {
    let world = World::new();
    let system = world.open().await;
    let to = bound(&system, "a").await;
    to.tell(note("safe")).await.unwrap();
    world.quiet().await;
    world.disk.fail_syncs(true);
    assert!(matches!(soon(to.tell(note("who knows"))).await, Err(SendError::Unknown { .. })));
    soon(system.failed()).await;
    let later = to.tell(note("no")).await.unwrap_err();
    assert!(matches!(later.refused(), Some(Refused::Store(_))), "{later}");
    world.disk.fail_syncs(false);
    let system = world.crash(system).await;
    assert!(bound(&system, "a").await.waiting() >= 1);
}

#[tokio::test]
async fn options_reach_what_a_turn_sends() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        Box::pin(async move {
            let to = Address::<Probe>::new("b")?;
            turn.ctx.tell_with(&to, note("low"), &SendOptions::new().priority(Priority::Low))?;
            turn.ctx.tell_with(&to, note("late"), &SendOptions::new().expires(secs(1)))?;
            turn.ctx.tell_with(&to, note("high"), &SendOptions::new().priority(Priority::High))?;
            turn.ctx.tell_with(&to, note("delayed"), &SendOptions::new().delay(secs(3)))?;
            Ok(0)
        })
    });
    spawn.await.unwrap().ask(note("go")).await.unwrap();
    world.pass(secs(2));
    let b: ActorRef<Probe> = scribe(&system, "b", &log).await;
    assert_eq!(log.lines(2).await, ["high", "low"]);
    until("the late one to be dropped", || b.waiting() == 0).await;
    world.pass(secs(1));
    assert_eq!(log.lines(3).await, ["high", "low", "delayed"]);
}
