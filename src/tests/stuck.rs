//! Handlers that do not yield: found, told, and by choice gone on without. On real threads, with real time.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use super::world::*;
use crate::testkit::Recorder;
use crate::{ActorRef, Event, FailureClass, MailboxOptions, ShutdownError, SpawnError, System};

const STUCK_AFTER: Duration = Duration::from_millis(100);

/// Blocks threads until it is told otherwise; a test that ends lets them go.
#[derive(Clone)]
struct Block(Arc<Mutex<mpsc::Receiver<()>>>);

impl Block {
    fn new() -> (mpsc::Sender<()>, Self) {
        let (release, blocked) = mpsc::channel();
        (release, Block(Arc::new(Mutex::new(blocked))))
    }

    fn block(&self) {
        let _ = self.0.lock().unwrap().recv();
    }
}

/// Stuck or not, by actor, in the order in which it was told.
fn told() -> Arc<Recorder<(String, bool)>> {
    Recorder::new(|event| match event {
        Event::Stuck { actor, since, .. } => {
            assert!(*since >= STUCK_AFTER);
            Some(((*actor).to_owned(), true))
        }
        Event::Unstuck { actor, .. } => Some(((*actor).to_owned(), false)),
        _ => None,
    })
}

async fn open(world: &World, told: &Arc<Recorder<(String, bool)>>) -> System {
    let builder = world.builder().stuck_after(STUCK_AFTER).observer(told.clone());
    builder.open_simulated(&world.disk).await.expect("opens")
}

/// A probe that adds one to its total and, on its first run of the note "blocks" in this process, does not yield.
async fn blocks_once(
    system: &System,
    name: &str,
    log: &Log,
    block: Block,
    options: MailboxOptions,
) -> ActorRef<Probe> {
    let (said, blocks) = (log.clone(), Arc::new(Mutex::new(Some(block))));
    let spawn = probe(system, name, move |turn| {
        let (said, blocks) = (said.clone(), blocks.clone());
        Box::pin(async move {
            said.say(format!("{} {}", turn.note, turn.ctx.attempt()));
            let total = turn.ctx.state().get(&TOTAL)?.unwrap_or(0) + 1;
            turn.ctx.state().set(&TOTAL, &total)?;
            let block = if turn.note == "blocks" { blocks.lock().unwrap().take() } else { None };
            if let Some(block) = block {
                block.block();
                said.say("came back");
            }
            Ok(total)
        })
    });
    spawn.mailbox(options).await.expect("spawns")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_does_not_yield_is_told_its_mail_waits_no_second_incarnation_starts_and_others_go_on()
{
    let (world, log, told) = (World::new(), Log::new(), told());
    let system = open(&world, &told).await;
    let (release, block) = Block::new();
    let a = blocks_once(&system, "a", &log, block, MailboxOptions::new()).await;
    a.tell_all(["blocks", "next"].map(note)).await.unwrap();
    until("it to be told", || told.kept() == [("a".to_owned(), true)]).await;
    assert!(a.is_stuck() && a.is_running());
    let again = probe(&system, "a", |_| Box::pin(async { Ok(0) })).await;
    assert!(matches!(again, Err(SpawnError::Running { .. })), "{:?}", again.map(drop));
    let other = scribe(&system, "other", &Log::new()).await;
    for _ in 0..10 {
        soon(other.ask(note("x"))).await.unwrap();
    }
    tokio::time::sleep(3 * STUCK_AFTER).await;
    assert_eq!((log.all(), a.waiting()), (vec!["blocks 1".to_owned()], 2));
    release.send(()).unwrap();
    assert_eq!(log.lines(3).await, ["blocks 1", "came back", "next 1"]);
    until("its return to be told", || told.kept().last() == Some(&("a".to_owned(), false))).await;
    assert!(!a.is_stuck());
    assert_eq!(told.kept().len(), 2);
    settled(&a).await;
    assert_eq!(a.cell(&TOTAL).await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_handler_that_holds_the_only_thread_is_told_too() {
    let (world, log, told) = (World::new(), Log::new(), told());
    let system = open(&world, &told).await;
    let (release, block) = Block::new();
    let kept = told.clone();
    let lets_go = std::thread::spawn(move || {
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while kept.kept().is_empty() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(release);
    });
    let a = blocks_once(&system, "a", &log, block, MailboxOptions::new()).await;
    a.tell(note("blocks")).await.unwrap();
    settled(&a).await;
    lets_go.join().unwrap();
    assert_eq!(told.kept()[0], ("a".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_quick_turns_and_long_waits_are_not_stuck() {
    let (world, told) = (World::new(), told());
    let system = open(&world, &told).await;
    let spawn = probe(&system, "a", |turn| {
        let waits = turn.note == "waits";
        Box::pin(async move {
            match waits {
                true => tokio::time::sleep(3 * STUCK_AFTER).await,
                // one poll of the worker's task has many of these in it
                false => std::thread::sleep(STUCK_AFTER / 10),
            }
            Ok(0)
        })
    });
    let a = spawn.await.unwrap();
    a.tell_all((0..40).map(note).chain([note("waits")])).await.unwrap();
    settled(&a).await;
    assert_eq!(told.kept(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_late_commit_of_an_abandoned_incarnation_is_refused() {
    let (world, log, told) = (World::new(), Log::new(), told());
    let system = open(&world, &told).await;
    let (release, block) = Block::new();
    let options = MailboxOptions::new().abandon_stuck(2 * STUCK_AFTER).retry(every_ten_seconds(3));
    let a = blocks_once(&system, "a", &log, block, options).await;
    a.tell_all(["blocks", "next"].map(note)).await.unwrap();
    log.lines(1).await;
    until("it to be gone on without", || a.mailbox.blocked_until(1) > world.clock_now()).await;
    release.send(()).unwrap();
    log.lines(2).await;
    a_moment().await;
    assert_eq!((a.waiting(), a.cell(&TOTAL).await.unwrap()), (2, None));
    world.pass(secs(10));
    assert_eq!(log.lines(4).await, ["blocks 1", "came back", "blocks 2", "next 1"]);
    settled(&a).await;
    assert_eq!(a.cell(&TOTAL).await.unwrap(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_abandoned_incarnation_takes_nothing_more_from_its_mailbox() {
    let (world, log, told) = (World::new(), Log::new(), told());
    let system = open(&world, &told).await;
    let (release, block) = Block::new();
    let options = MailboxOptions::new().abandon_stuck(2 * STUCK_AFTER).retry(at_once(3));
    let a = blocks_once(&system, "a", &log, block, options).await;
    a.tell_all(["blocks", "next"].map(note)).await.unwrap();
    // a new incarnation tries it again while the old handler still runs
    assert_eq!(log.lines(3).await, ["blocks 1", "blocks 2", "next 1"]);
    settled(&a).await;
    assert_eq!(a.cell(&TOTAL).await.unwrap(), Some(2));
    until("nothing to be stuck", || !a.is_stuck()).await;
    release.send(()).unwrap();
    log.lines(4).await;
    a_moment().await;
    assert_eq!(soon(a.ask(note("after"))).await.unwrap(), 3, "the old incarnation counted for nothing");
    assert!(a.is_running());
    assert_eq!(log.all(), ["blocks 1", "blocks 2", "next 1", "came back", "after 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_abandoned_turn_is_a_failed_attempt_and_the_last_one_makes_it_a_dead_letter() {
    let (world, log, told) = (World::new(), Log::new(), told());
    let system = open(&world, &told).await;
    let (release, block) = Block::new();
    let options = MailboxOptions::new().abandon_stuck(STUCK_AFTER).retry(at_once(1));
    let a = blocks_once(&system, "a", &log, block, options).await;
    a.tell_all(["blocks", "next"].map(note)).await.unwrap();
    let dead = first_dead(&system).await;
    assert_eq!((dead.attempts.count, dead.attempts.last[0].class), (1, FailureClass::Timeout));
    assert!(dead.attempts.last[0].error.contains("did not yield"), "{:?}", dead.attempts);
    assert_eq!(log.lines(2).await, ["blocks 1", "next 1"]);
    // an orderly end does not wait for what was abandoned
    soon(system.shutdown(Duration::from_secs(5))).await.unwrap();
    drop(release);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_closure_that_outlives_its_turn_is_told_to_be_stuck_and_by_choice_gone_on_without() {
    for abandons in [false, true] {
        let (world, log, told) = (World::new(), Log::new(), told());
        let system = open(&world, &told).await;
        let (release, block) = Block::new();
        let (said, blocks) = (log.clone(), block.clone());
        let spawn = probe(&system, "a", move |turn| {
            said.say(format!("attempt {}", turn.ctx.attempt()));
            let (blocks, first) = (blocks.clone(), turn.ctx.attempt() == 1);
            Box::pin(async move {
                turn.ctx
                    .blocking(move || {
                        if first {
                            blocks.block()
                        }
                    })
                    .await?;
                Ok(0)
            })
        });
        let options = MailboxOptions::new().turn_timeout(secs(10)).retry(at_once(3));
        let options = if abandons { options.abandon_stuck(2 * STUCK_AFTER) } else { options };
        let a = spawn.mailbox(options).await.unwrap();
        a.tell(note("it")).await.unwrap();
        log.lines(1).await;
        tokio::time::sleep(2 * STUCK_AFTER).await;
        assert_eq!(told.kept(), [], "it runs within its time");
        world.pass(secs(10));
        until("it to be told", || told.kept() == [("a".to_owned(), true)]).await;
        match abandons {
            true => drop(log.lines(2).await),
            false => {
                a_moment().await;
                assert_eq!(log.all(), ["attempt 1"]);
                release.send(()).unwrap();
                log.lines(2).await;
            }
        }
        settled(&a).await;
        assert!(dead(&system).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_end_of_the_system_names_what_is_stuck_within_its_deadline_and_costs_no_attempt() {
    let (world, log, told) = (World::new(), Log::new(), told());
    let system = open(&world, &told).await;
    let (release, block) = Block::new();
    let (first, second) = (block.clone(), block);
    blocks_once(&system, "a", &log, first, MailboxOptions::new()).await.tell(note("blocks")).await.unwrap();
    let blocks = second.clone();
    let said = log.clone();
    let spawn = probe(&system, "b", move |turn| {
        let (blocks, said) = (blocks.clone(), said.clone());
        Box::pin(async move {
            said.say("closure");
            turn.ctx.blocking(move || blocks.block()).await?;
            Ok(0)
        })
    });
    spawn.await.unwrap().tell(note("it")).await.unwrap();
    log.lines(2).await;
    let began = std::time::Instant::now();
    match system.shutdown(Duration::from_millis(200)).await {
        Err(ShutdownError::Stuck { mut mailboxes }) => {
            mailboxes.sort();
            assert_eq!(mailboxes, ["a", "b"]);
        }
        other => panic!("{other:?}"),
    }
    // and a second in all for what yields
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
    drop(release);
    drop(system);
    let system = world.open().await;
    let attempts = Log::new();
    for name in ["a", "b"] {
        let said = attempts.clone();
        let spawn = probe(&system, name, move |turn| {
            said.say(format!("attempt {}", turn.ctx.attempt()));
            Box::pin(async { Ok(0) })
        });
        spawn.await.unwrap();
    }
    assert_eq!(attempts.lines(2).await, ["attempt 1", "attempt 1"]);
}
