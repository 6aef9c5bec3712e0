//! Asks: what a reply means, who is told that none will come, and asks inside a turn, which are not handled twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::world::*;
use crate::{Address, AskError, Failure, Priority, Refused, System};

#[tokio::test]
async fn the_reply_of_an_outside_ask_comes_after_the_sync_of_its_turn() {
    let world = World::new();
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        Box::pin(async move {
            turn.ctx.state().set(&TOTAL, &7)?;
            Ok(7)
        })
    });
    let to = spawn.await.unwrap();
    world.disk.hold_syncs();
    assert_eq!(only_after(to.ask(note("one")), || world.disk.release_syncs()).await.unwrap(), 7);
}

#[tokio::test]
async fn the_reply_of_a_turn_that_only_read_comes_after_what_it_read_is_durable() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.note);
        Box::pin(async move {
            if turn.note == "write" {
                turn.ctx.state().set(&TOTAL, &7)?;
            }
            Ok(turn.ctx.state().get(&TOTAL)?.unwrap_or(0))
        })
    });
    let to = spawn.await.unwrap();
    world.disk.hold_syncs();
    let _written = to.try_tell(note("write")).unwrap();
    log.lines(1).await;
    assert_eq!(only_after(to.ask(note("read")), || world.disk.release_syncs()).await.unwrap(), 7);
}

#[tokio::test]
async fn an_inspection_shows_only_what_is_durable() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let said = said.clone();
        Box::pin(async move {
            turn.ctx.state().set(&TOTAL, &7)?;
            said.say("set");
            Ok(0)
        })
    });
    let to = spawn.await.unwrap();
    world.disk.hold_syncs();
    let _receipt = to.try_tell(note("one")).unwrap();
    log.lines(1).await;
    until("the commit", || to.waiting() == 0).await;
    assert_eq!(only_after(to.cell(&TOTAL), || world.disk.release_syncs()).await.unwrap(), Some(7));
    world.disk.hold_syncs();
    let _receipt = to.try_tell(note("two")).unwrap();
    log.lines(2).await;
    let page = system.mailboxes();
    only_after(page.page(None, 9), || world.disk.release_syncs()).await.unwrap();
}

#[tokio::test]
async fn an_ask_that_fails_for_the_last_time_is_told_the_last_error() {
    let world = World::new();
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        let attempt = turn.ctx.attempt();
        Box::pin(async move { Err(Failure::new(format!("failed {attempt}"))) })
    });
    let to = spawn.retry(at_once(3)).await.unwrap();
    match soon(to.ask(note("one"))).await {
        Err(AskError::Failed { why, .. }) => assert_eq!(why, "failed 3"),
        other => panic!("{other:?}"),
    }
    assert_eq!(dead(&system).await.len(), 1);
}

#[tokio::test]
async fn an_ask_outlives_a_failed_attempt_of_its_own_message() {
    let world = World::new();
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        let attempt = turn.ctx.attempt();
        Box::pin(async move { if attempt < 3 { Err(Failure::new("no")) } else { Ok(attempt.into()) } })
    });
    let to = spawn.retry(at_once(5)).await.unwrap();
    assert_eq!(soon(to.ask(note("one"))).await.unwrap(), 3);
    let to = unordered_failing_twice(&system).await;
    assert_eq!(soon(to.ask(note("one"))).await.unwrap(), 3);
}

async fn unordered_failing_twice(system: &System) -> crate::ActorRef<Probe> {
    let spawn = probe(system, "b", |turn| {
        let attempt = turn.ctx.attempt();
        Box::pin(async move { if attempt < 3 { Err(Failure::new("no")) } else { Ok(attempt.into()) } })
    });
    spawn.mailbox(crate::MailboxOptions::new().unordered().retry(at_once(5))).await.unwrap()
}

#[tokio::test]
async fn an_ask_behind_a_message_that_is_tried_again_fails_at_once_and_only_in_its_priority() {
    let (world, gate, log) = (World::new(), Gate::closed(), Log::new());
    let system = world.open().await;
    let (passes, said) = (gate.clone(), log.clone());
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.note);
        let (passes, fails) = (passes.clone(), turn.note == "head" && turn.ctx.attempt() == 1);
        Box::pin(async move {
            if fails {
                passes.pass().await;
                return Err(Failure::new("no"));
            }
            Ok(1)
        })
    });
    let to = spawn.retry(every_ten_seconds(5)).await.unwrap();
    to.tell(note("head")).await.unwrap();
    log.lines(1).await;
    // these wait behind the head while it runs: one is taken ahead, one comes while it is held
    let ask = |text: &'static str| {
        let to = to.clone();
        tokio::spawn(async move { to.ask(note(text)).await })
    };
    let behind = ask("behind");
    until("the ask to be in the mailbox", || to.waiting() == 2).await;
    gate.open();
    let due = world.clock_now().after(secs(10));
    match soon(behind).await.unwrap() {
        Err(AskError::Blocked { until, .. }) => assert_eq!(until, due),
        other => panic!("{other:?}"),
    }
    match soon(to.ask(note("refused"))).await {
        Err(AskError::Refused { why: Refused::Blocked { until }, .. }) => assert_eq!(until, due),
        other => panic!("{other:?}"),
    }
    assert_eq!(soon(to.ask(note("high")).priority(Priority::High)).await.unwrap(), 1);
    assert_eq!(soon(to.ask(note("low")).priority(Priority::Low)).await.unwrap(), 1);
    world.pass(secs(10));
    assert_eq!(log.lines(5).await, ["head", "high", "low", "head", "behind"]);
    assert_eq!(soon(to.ask(note("again"))).await.unwrap(), 1);
}

#[tokio::test]
async fn an_ask_that_was_taken_ahead_together_with_the_head_is_told_that_it_is_blocked() {
    let world = World::new();
    let system = world.open().await;
    let to = bound(&system, "a").await;
    to.tell(note("head")).await.unwrap();
    let behind = tokio::spawn(async move { to.ask(note("behind")).await });
    let to = bound(&system, "a").await;
    until("both to wait", || to.waiting() == 2).await;
    let spawn = probe(&system, "a", |_| Box::pin(async { Err(Failure::new("no")) }));
    spawn.retry(every_ten_seconds(5)).await.unwrap();
    assert!(matches!(soon(behind).await.unwrap(), Err(AskError::Blocked { .. })));
}

#[tokio::test]
async fn an_ask_that_waited_too_long_is_handled_all_the_same() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    let late = to.ask(note("one")).timeout(Duration::from_millis(30)).await;
    assert!(matches!(late, Err(AskError::TimedOut { .. })), "{late:?}");
    scribe(&system, "a", &log).await;
    assert_eq!(log.lines(1).await, ["one"]);
}

#[tokio::test]
async fn an_ask_with_a_delay_is_answered_when_its_time_has_come() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    let reply = only_after(to.ask(note("one")).delay(secs(5)), || world.pass(secs(5))).await;
    assert_eq!(reply.unwrap(), 0);
}

#[tokio::test]
async fn asks_that_will_not_be_answered_learn_it_when_the_system_ends() {
    let world = World::new();
    let system = world.open().await;
    let to = bound(&system, "nobody").await;
    let plain = tokio::spawn({
        let to = to.clone();
        async move { to.ask(note("one")).await }
    });
    let kept = tokio::spawn({
        let to = to.clone();
        async move { to.ask(note("two")).dedup_id("x").await }
    });
    until("both to wait", || to.waiting() == 2).await;
    world.disk.fail_syncs(true);
    let _ = soon(to.tell(note("three"))).await;
    soon(system.failed()).await;
    assert!(matches!(soon(kept).await.unwrap(), Err(AskError::Unknown { .. })));
    assert!(matches!(soon(plain).await.unwrap(), Err(AskError::Unknown { .. })));
}

#[tokio::test]
async fn asks_for_what_expired_learn_that_there_is_no_reply() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    let ask = |expires: u64, dedup: Option<&'static str>| {
        let to = to.clone();
        tokio::spawn(async move {
            let ask = to.ask(note("x")).expires(secs(expires));
            match dedup {
                Some(id) => ask.dedup_id(id).await,
                None => ask.await,
            }
        })
    };
    let late = [ask(5, None), ask(5, Some("late"))];
    until("two to wait", || to.waiting() == 2).await;
    world.pass(secs(5));
    scribe(&system, "a", &log).await;
    for asked in late {
        assert!(matches!(soon(asked).await.unwrap(), Err(AskError::NoReply { .. })));
    }
    assert!(log.all().is_empty());
}

#[tokio::test]
async fn asks_for_what_was_cancelled_learn_that_there_is_no_reply() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    let waits = to.ask(note("waits"));
    let delayed = to.ask(note("delayed")).delay(secs(5));
    let kept = to.ask(note("kept")).dedup_id("x");
    let cancels = async {
        until("two to wait", || to.waiting() == 2).await;
        let ledger = &to.runtime.ledger;
        let log = crate::store::LogId { mailbox: to.mailbox.id, lane: 1 };
        let mut ids = vec![ledger.first_scheduled(1).await.unwrap()[0].id];
        for letter in ledger.letters(log, 0, 9, 1 << 20).await.unwrap() {
            ids.push(crate::MessageId::of(crate::envelope::open(&letter.envelope).unwrap().id));
        }
        for id in ids {
            assert!(system.cancel(id).await.unwrap());
        }
    };
    let asks =
        async { tokio::join!(waits.into_future(), delayed.into_future(), kept.into_future(), cancels) };
    let (waits, delayed, kept, ()) = soon(asks).await;
    for asked in [waits, delayed, kept] {
        assert!(matches!(asked, Err(AskError::NoReply { .. })), "{asked:?}");
    }
    scribe(&system, "a", &log).await;
    a_moment().await;
    assert!(log.all().is_empty());
}

/// The asker asks the oracle, which counts how often it is asked, and fails or is cut off after the answer.
struct Court {
    asked: Arc<AtomicU64>,
    answers: Log,
    gate: Gate,
    fails: Arc<AtomicBool>,
}

impl Court {
    fn new(fails: bool) -> Self {
        let fails = Arc::new(AtomicBool::new(fails));
        Court { asked: Arc::default(), answers: Log::new(), gate: Gate::closed(), fails }
    }

    async fn start(&self, system: &System) -> crate::ActorRef<Probe> {
        let asked = self.asked.clone();
        let oracle = probe(system, "oracle", move |_| {
            let answer = asked.fetch_add(1, Ordering::SeqCst) + 100;
            Box::pin(async move { Ok(answer) })
        });
        oracle.await.unwrap();
        let (answers, gate, fails) = (self.answers.clone(), self.gate.clone(), self.fails.clone());
        let asker = probe(system, "asker", move |turn| {
            let (answers, gate, fails) = (answers.clone(), gate.clone(), fails.clone());
            Box::pin(async move {
                let answer = turn.ctx.ask(&Address::<Probe>::new("oracle")?, note("?")).await?;
                answers.say(answer);
                if fails.swap(false, Ordering::SeqCst) {
                    return Err(Failure::new("after the answer"));
                }
                gate.pass().await;
                Ok(answer)
            })
        });
        asker.retry(at_once(3)).await.unwrap()
    }
}

#[tokio::test]
async fn an_ask_in_a_turn_is_not_handled_twice_when_the_turn_fails_and_runs_again() {
    let (world, court) = (World::new(), Court::new(true));
    let system = world.open().await;
    let asker = court.start(&system).await;
    court.gate.open();
    assert_eq!(soon(asker.ask(note("go"))).await.unwrap(), 100);
    assert_eq!(
        (court.answers.all(), court.asked.load(Ordering::SeqCst)),
        (vec!["100".into(), "100".into()], 1)
    );
}

#[tokio::test]
async fn an_ask_in_a_turn_gets_the_same_answer_after_a_crash() {
    let (world, court) = (World::new(), Court::new(false));
    let system = world.open().await;
    let asker = court.start(&system).await;
    asker.tell(note("go")).await.unwrap();
    court.answers.lines(1).await;
    // the answer is durable; the asker's turn is not committed
    bound(&system, "elsewhere").await.tell(note("sync")).await.unwrap();
    let system = world.crash(system).await;
    court.start(&system).await;
    assert_eq!(court.answers.lines(2).await, ["100", "100"]);
    assert_eq!(court.asked.load(Ordering::SeqCst), 1);
    court.gate.open();
}

#[tokio::test]
async fn the_answer_kept_for_a_turn_is_cleared_by_its_commit() {
    let (world, court) = (World::new(), Court::new(false));
    let system = world.open().await;
    let asker = court.start(&system).await;
    let marks = |asker: &crate::ActorRef<Probe>| {
        let runtime = asker.runtime.clone();
        async move { runtime.ledger.aged_marks(None, 10).await.unwrap().0.len() }
    };
    let asked = tokio::spawn({
        let asker = asker.clone();
        async move { asker.ask(note("go")).await }
    });
    court.answers.lines(1).await;
    assert_eq!(marks(&asker).await, 1);
    court.gate.open();
    soon(asked).await.unwrap().unwrap();
    assert_eq!(marks(&asker).await, 0);
}

#[tokio::test]
async fn a_cycle_of_waiting_asks_is_refused() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    for (name, next) in [("a", "b"), ("b", "c"), ("c", "a"), ("self", "self")] {
        let said = log.clone();
        let spawn = probe(&system, name, move |turn| {
            let said = said.clone();
            Box::pin(async move {
                match turn.ctx.ask(&Address::<Probe>::new(next)?, note("round")).await {
                    Err(AskError::Refused { why: Refused::AskCycle { mailbox }, .. }) => said.say(mailbox),
                    other => said.say(format!("{}", other.is_ok())),
                }
                Ok(0)
            })
        });
        spawn.await.unwrap();
    }
    soon(bound(&system, "a").await.ask(note("go"))).await.unwrap();
    assert_eq!(log.all(), ["a", "true", "true"]);
    soon(bound(&system, "self").await.ask(note("go"))).await.unwrap();
    assert_eq!(log.all()[3], "self");
}

#[tokio::test]
async fn an_ask_in_a_turn_waits_no_longer_than_it_was_told() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let said = said.clone();
        Box::pin(async move {
            let nobody = Address::<Probe>::new("nobody")?;
            let late = turn.ctx.ask_within(&nobody, note("?"), Duration::from_millis(20)).await;
            said.say(matches!(late, Err(AskError::TimedOut { .. })));
            Ok(0)
        })
    });
    spawn.await.unwrap().ask(note("go")).await.unwrap();
    assert_eq!(log.all(), ["true"]);
}

#[tokio::test]
async fn an_ask_in_a_turn_learns_that_its_message_died() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let oracle = probe(&system, "oracle", |_| Box::pin(async { Err(Failure::new("dumb").terminal()) }));
    oracle.await.unwrap();
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let said = said.clone();
        Box::pin(async move {
            match turn.ctx.ask(&Address::<Probe>::new("oracle")?, note("?")).await {
                Err(AskError::Failed { why, .. }) => said.say(why),
                other => said.say(format!("{other:?}")),
            }
            Ok(0)
        })
    });
    soon(spawn.await.unwrap().ask(note("go"))).await.unwrap();
    assert_eq!(log.all(), ["dumb"]);
}

#[tokio::test]
async fn the_barrier_in_a_handler_waits_for_what_it_can_have_seen() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let said = said.clone();
        Box::pin(async move {
            said.say("begun");
            turn.ctx.durable().await?;
            said.say("durable");
            Ok(0)
        })
    });
    let to = spawn.await.unwrap();
    world.disk.hold_syncs();
    let _receipt = to.try_tell(note("one")).unwrap();
    log.lines(1).await;
    a_moment().await;
    assert_eq!(log.all(), ["begun"]);
    world.disk.release_syncs();
    assert_eq!(log.lines(2).await, ["begun", "durable"]);
}
