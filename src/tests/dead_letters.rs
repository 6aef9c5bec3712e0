//! Where messages go that cannot be handled, and how they come back.

use super::world::*;
use crate::store::{Batch, LogId, Origin, Urgency};
use crate::{ActorRef, Address, AdminError, Failure, Reason, Status, System, Timestamp};

/// A probe whose every turn fails.
async fn hopeless(system: &System, attempts: u32) -> ActorRef<Probe> {
    let spawn = probe(system, "a", |turn| {
        let text = format!("{} failed {}", turn.note, turn.ctx.attempt());
        Box::pin(async move { Err(Failure::new(text)) })
    });
    spawn.retry(every_ten_seconds(attempts)).await.unwrap()
}

#[tokio::test]
async fn the_last_attempt_moves_the_message_to_the_dead_letters_with_every_error_and_its_time() {
    let world = World::new();
    let mut system = world.open().await;
    let to = bound(&system, "a").await;
    let id = to.tell(note("one")).header("traceparent", "00-trace-01").await.unwrap();
    for _ in 1..=3 {
        let to = hopeless(&system, 3).await;
        until("the failure", || to.mailbox.blocked_until(1) > world.clock_now() || to.waiting() == 0).await;
        system = world.restart(system).await;
        world.pass(secs(10));
    }
    let letter = first_dead(&system).await;
    assert_eq!(
        (letter.id.message(), letter.mailbox.as_str(), letter.message.as_str()),
        (id, "a", "test.note")
    );
    assert_eq!(letter.reason, Reason::AttemptsUsedUp);
    let attempts: Vec<_> =
        letter.attempts.last.iter().map(|attempt| (attempt.at.as_millis(), attempt.error.as_str())).collect();
    let expected = [(1_000_000, "one failed 1"), (1_010_000, "one failed 2"), (1_020_000, "one failed 3")];
    assert_eq!(attempts, expected);
    assert_eq!(letter.attempts.count, 3);
    assert!(letter.attempts.last.iter().all(|attempt| attempt.trace.as_deref() == Some("00-trace-01")));
    assert_eq!(letter.at, Timestamp::from_millis(1_020_000));
    assert!(matches!(system.status(id).await.unwrap(), Status::Dead { letter: dead } if dead == letter.id));
    let to = bound(&system, "a").await;
    assert!(
        crate::Attempts::of_mailbox(to.runtime.ledger.store(), to.mailbox.id).unwrap().is_empty(),
        "attempts were left behind"
    );
}

#[tokio::test]
async fn at_every_moment_a_failing_message_is_either_waiting_or_dead() {
    let mut fates = [0, 0];
    for operation in 1.. {
        let world = World::new();
        let system = world.open().await;
        let to = bound(&system, "a").await;
        to.tell(note("one")).await.unwrap();
        let before = world.disk.operations();
        world.disk.cut_power_at(before + operation);
        let spawn = probe(&system, "a", |_| Box::pin(async { Err(Failure::new("no")) }));
        // the power may go before it has started
        let _ = spawn.retry(at_once(3)).await;
        until("the end", || to.waiting() == 0 || world.disk.is_cut()).await;
        let _ = system.shutdown(secs(5)).await;
        if !world.disk.is_cut() {
            break;
        }
        let system = world.crash(system).await;
        let (waiting, dead) = (bound(&system, "a").await.waiting(), dead(&system).await);
        assert_eq!(waiting + dead.len() as u64, 1, "after a cut at operation {operation}");
        assert!(dead.iter().all(|letter| letter.attempts.last.len() == 3));
        fates[dead.len()] += 1;
    }
    assert!(fates[0] > 0 && fates[1] > 1, "both ends were seen: {fates:?}");
}

#[tokio::test]
async fn money_is_moved_whole_or_not_at_all_whenever_the_power_goes() {
    const ACCOUNTS: u64 = 100;
    for operation in (1..).step_by(2) {
        let world = World::new();
        let system = world.open().await;
        let ledger = start_accounts(&system).await;
        ledger[0].tell_all((0..5).map(|_| note("give"))).await.unwrap();
        world.disk.cut_power_at(world.disk.operations() + operation);
        for _ in 0..3 {
            let _ = ledger[0].tell(note("give")).timeout(std::time::Duration::from_millis(50)).await;
        }
        until("the end", || ledger.iter().all(|account| account.waiting() == 0) || world.disk.is_cut()).await;
        let _ = system.shutdown(secs(5)).await;
        if !world.disk.is_cut() {
            break;
        }
        let system = world.crash(system).await;
        let ledger = start_accounts(&system).await;
        until("the rest", || ledger.iter().all(|account| account.waiting() == 0)).await;
        let given = ACCOUNTS - ledger[0].cell(&TOTAL).await.unwrap().unwrap_or(ACCOUNTS);
        let taken = ledger[1].cell(&TOTAL).await.unwrap().unwrap_or(0);
        assert_eq!(given, taken, "after a cut at operation {operation}");
        assert!((5..=8).contains(&given), "an accepted order was lost or handled twice: {given}");
    }

    async fn start_accounts(system: &System) -> [ActorRef<Probe>; 2] {
        let giver = probe(system, "giver", |turn| {
            Box::pin(async move {
                let left = turn.ctx.state().get(&TOTAL)?.unwrap_or(ACCOUNTS) - 1;
                turn.ctx.state().set(&TOTAL, &left)?;
                turn.ctx.tell(&Address::<Probe>::new("taker")?, note("take"))?;
                Ok(left)
            })
        });
        let taker = probe(system, "taker", |turn| {
            Box::pin(async move {
                let got = turn.ctx.state().get(&TOTAL)?.unwrap_or(0) + 1;
                turn.ctx.state().set(&TOTAL, &got)?;
                Ok(got)
            })
        });
        let giver = giver.await.unwrap();
        [giver, taker.await.unwrap()]
    }
}

#[tokio::test]
async fn a_message_whose_ack_is_durable_is_not_handled_again() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    for round in 0..5 {
        let to = scribe(&system, "a", &log).await;
        for number in 0..5 {
            to.ask(note(format!("{round}.{number}"))).await.unwrap();
        }
        system = world.crash(system).await;
    }
    scribe(&system, "a", &log).await;
    a_moment().await;
    let expected: Vec<_> = (0..25).map(|n| format!("{}.{}", n / 5, n % 5)).collect();
    assert_eq!(log.all(), expected);
}

/// Puts bytes into a mailbox as they are.
async fn put_raw(to: &ActorRef<Probe>, bytes: &[u8]) {
    let mut batch = Batch::default();
    let log = LogId { mailbox: to.mailbox.id, lane: 1 };
    let write = |out: &mut Vec<u8>| {
        out.extend_from_slice(bytes);
        Ok::<_, std::convert::Infallible>(())
    };
    batch.append(log, write).unwrap();
    let ledger = &to.runtime.ledger;
    let commit = ledger.commit(&mut batch, Origin::Inside, Urgency::Now).await.unwrap();
    ledger.durable(&commit).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_message_are_parked_as_they_are_and_block_nothing() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    for bytes in [b"garbage".as_slice(), b"", &[1; 40], &[0xff; 300]] {
        put_raw(&to, bytes).await;
        to.tell(note("next")).await.unwrap();
    }
    scribe(&system, "a", &log).await;
    assert_eq!(log.lines(4).await.len(), 4);
    until("all to be settled", || to.waiting() == 0).await;
    let dead = dead(&system).await;
    assert_eq!(dead.len(), 4);
    assert!(dead.iter().all(|letter| matches!(letter.reason, Reason::Undecodable(_))));
    assert!(dead.iter().any(|letter| letter.body == b"garbage"));
}

#[tokio::test]
async fn a_redriven_message_comes_last_and_its_attempts_are_forgotten() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = hopeless(&system, 1).await;
    to.tell(note("bad")).await.unwrap();
    let letter = first_dead(&system).await;
    to.stop().await;
    to.tell(note("waiting")).await.unwrap();
    system.dead_letters().redrive(letter.id).await.unwrap();
    let system = world.crash(system).await;
    assert!(dead(&system).await.is_empty());
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(format!("{} {}", turn.note, turn.ctx.attempt()));
        Box::pin(async { Ok(0) })
    });
    spawn.await.unwrap();
    assert_eq!(log.lines(2).await, ["waiting 1", "bad 1"]);
    let again = system.dead_letters().redrive(letter.id).await;
    assert!(matches!(again, Err(AdminError::NotFound(_))), "{again:?}");
}

#[tokio::test]
async fn dead_letters_come_in_pages_by_mailbox_and_can_be_purged() {
    let world = World::new();
    let system = world.open().await;
    let to = hopeless(&system, 1).await;
    for number in 0..5 {
        to.tell(note(number)).await.unwrap();
        until("it to die", || to.waiting() == 0).await;
        world.pass(secs(1));
    }
    let letters = system.dead_letters();
    let first = letters.page(Some("a"), None, 2).await.unwrap();
    let rest = letters.page(Some("a"), Some(first[1].id), 9).await.unwrap();
    assert_eq!((first.len(), rest.len()), (2, 3));
    assert!(first[1].at < rest[0].at);
    assert!(letters.page(Some("unknown"), None, 9).await.unwrap().is_empty());
    assert_eq!(letters.get(first[0].id).await.unwrap(), first[0]);
    letters.purge(first[0].id).await.unwrap();
    assert!(matches!(letters.purge(first[0].id).await, Err(AdminError::NotFound(_))));
    assert!(matches!(letters.get(first[0].id).await, Err(AdminError::NotFound(_))));
    assert_eq!(dead(&world.crash(system).await).await.len(), 4);
}

#[tokio::test]
async fn bytes_a_handler_buries_are_kept_and_cannot_be_redriven() {
    let world = World::new();
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        turn.ctx.bury(*b"one", "not understood");
        turn.ctx.bury(*b"two", "not understood");
        Box::pin(async { Ok(0) })
    });
    spawn.await.unwrap().ask(note("go")).await.unwrap();
    let system = world.crash(system).await;
    let letters = dead(&system).await;
    let mut bodies: Vec<_> = letters.iter().map(|letter| letter.body.clone()).collect();
    bodies.sort();
    assert_eq!(bodies, [b"one".to_vec(), b"two".to_vec()]);
    assert_eq!(letters[0].reason, Reason::Buried("not understood".into()));
    assert!(system.dead_letters().redrive(letters[0].id).await.is_err());
    assert_eq!(dead(&system).await.len(), 2);
}

#[tokio::test]
async fn the_largest_message_with_the_longest_errors_can_be_buried() {
    let world = World::new();
    let system = world.builder().journal_segment(256 << 10).max_message(100 << 10);
    let system = system.open_simulated(&world.disk).await.unwrap();
    let spawn = probe(&system, "a", |turn| {
        let fails = turn.note.starts_with("bad");
        Box::pin(async move { if fails { Err(Failure::new("x".repeat(4096))) } else { Ok(0) } })
    });
    let to = spawn.retry(at_once(60)).await.unwrap();
    let large = format!("bad{}", "x".repeat((100 << 10) - 10));
    to.tell(note(&large)).await.unwrap();
    soon(to.ask(note("next"))).await.unwrap();
    let letter = first_dead(&system).await;
    assert_eq!((letter.attempts.count, letter.attempts.last.is_empty()), (60, false));
    assert!(letter.body.len() > 100 << 10 || letter.body.ends_with(b"xxx"));
    system.dead_letters().redrive(letter.id).await.unwrap();
}
