//! Starting and stopping: what ends, what stays, and who is told.

use std::time::Duration;

use super::world::*;
use crate::{Actor, Address, Context, Failure, Handler, Priority, ShutdownError, SpawnError, System};

#[tokio::test]
async fn a_stop_ends_the_actor_after_its_turn_and_the_rest_of_the_mail_waits() {
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
    let to = probe(&system, "a", script.clone()).await.unwrap();
    to.tell_all((0..3).map(note)).await.unwrap();
    log.lines(1).await;
    only_after(to.stop(), || gate.let_one_pass()).await;
    assert!(!to.is_running());
    assert_eq!((to.waiting(), log.len()), (2, 1));
    gate.open();
    probe(&system, "a", script).await.unwrap();
    assert_eq!(log.lines(3).await, ["0", "1", "2"]);
}

#[tokio::test]
async fn a_park_throws_the_running_turn_away_and_its_message_is_the_next() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        let said = said.clone();
        Box::pin(async move {
            turn.ctx.state().set(&TOTAL, &1)?;
            said.say(turn.note);
            std::future::pending().await
        })
    });
    let to = spawn.await.unwrap();
    to.tell_all((0..3).map(note)).await.unwrap();
    log.lines(1).await;
    soon(to.park()).await;
    assert_eq!((to.waiting(), to.cell(&TOTAL).await.unwrap()), (3, None));
    scribe(&system, "a", &log).await;
    assert_eq!(log.lines(4).await, ["0", "0", "1", "2"]);
}

#[tokio::test]
async fn a_drain_handles_what_waits_in_every_priority_and_then_ends() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (said, passes) = (log.clone(), gate.clone());
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.note);
        let passes = passes.clone();
        Box::pin(async move {
            passes.pass().await;
            Ok(0)
        })
    });
    let to = spawn.await.unwrap();
    to.tell(note("first")).await.unwrap();
    log.lines(1).await;
    // one in a priority that was looked at before it came
    to.tell(note("high")).priority(Priority::High).await.unwrap();
    to.tell(note("low")).priority(Priority::Low).await.unwrap();
    let drained = tokio::spawn({
        let to = to.clone();
        async move { to.drain().await }
    });
    a_moment().await;
    gate.open();
    soon(drained).await.unwrap();
    assert_eq!(log.all(), ["first", "high", "low"]);
    assert!(!to.is_running());
    to.tell(note("later")).await.unwrap();
    a_moment().await;
    assert_eq!((log.len(), to.waiting()), (3, 1));
}

#[tokio::test]
async fn a_drain_waits_for_what_is_tried_again() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.note);
        let fails = turn.ctx.attempt() == 1;
        Box::pin(async move { if fails { Err(Failure::new("no")) } else { Ok(0) } })
    });
    let to = spawn.retry(every_ten_seconds(5)).await.unwrap();
    to.tell(note("one")).await.unwrap();
    log.lines(1).await;
    until("it to be held", || to.mailbox.blocked_until(1) > world.clock_now()).await;
    only_after(to.drain(), || world.pass(secs(10))).await;
    assert_eq!((log.len(), to.waiting()), (2, 0));
}

#[tokio::test]
async fn stopping_what_does_not_run_returns_at_once_and_does_not_stop_the_next_start() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    soon(to.stop()).await;
    soon(to.park()).await;
    scribe(&system, "a", &log).await;
    assert_eq!(soon(to.ask(note("x"))).await.unwrap(), 0);
}

#[tokio::test]
async fn a_second_start_of_a_running_actor_is_refused() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    let second = probe(&system, "a", |_| Box::pin(async { Ok(1) })).await;
    assert!(matches!(second, Err(SpawnError::Running { .. })), "{second:?}");
    assert_eq!(soon(to.ask(note("x"))).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_started_right_after_a_stop_is_running_and_alone() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    for round in 0..300 {
        let to = scribe(&system, "a", &log).await;
        let asked = soon(to.ask(note(round))).await;
        assert!(asked.is_ok(), "{asked:?}");
        assert!(to.is_running(), "the old one's end was taken for the new one's, round {round}");
        soon(to.stop()).await;
    }
    let expected: Vec<_> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(log.all(), expected);
}

struct Stranger;
impl Actor for Stranger {
    const NAME: &'static str = "test.stranger";
    type Messages = (Note,);
}
impl Handler<Note> for Stranger {
    async fn handle(&mut self, _: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
        Ok(0)
    }
}

#[tokio::test]
async fn a_mailbox_belongs_to_one_type_of_actor_for_ever() {
    let world = World::new();
    let system = world.open().await;
    bound(&system, "a").await.tell(note("x")).await.unwrap();
    for restarted in [false, true] {
        let system = if restarted { world.restart(system.clone()).await } else { system.clone() };
        let spawned = system.spawn("a", || Stranger).await;
        assert!(matches!(spawned, Err(SpawnError::WrongActor(_))), "{spawned:?}");
        let bound = system.bind(&Address::<Stranger>::new("a").unwrap()).await;
        assert!(matches!(bound, Err(SpawnError::WrongActor(_))), "{bound:?}");
        if restarted {
            a_turn_to_the_wrong_actor_fails(&system).await;
        }
    }
}

async fn a_turn_to_the_wrong_actor_fails(system: &System) {
    let spawn = probe(system, "sender", |turn| {
        Box::pin(async move {
            turn.ctx.tell(&Address::<Stranger>::new("a")?, note("x"))?;
            Ok(0)
        })
    });
    let to = spawn.retry(at_once(1)).await.unwrap();
    assert!(soon(to.ask(note("go"))).await.is_err());
    assert!(dead(system).await[0].attempts.last[0].error.contains("belongs to actor"));
}

#[tokio::test]
async fn a_factory_that_panics_at_the_start_is_an_error_and_the_next_start_works() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let spawned = system.spawn("a", || -> Probe { panic!("no actor") }).await;
    assert!(matches!(spawned, Err(SpawnError::Factory { .. })), "{spawned:?}");
    let to = scribe(&system, "a", &log).await;
    assert_eq!(soon(to.ask(note("x"))).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_load_loses_nothing_and_the_next_start_goes_on_in_order() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    let mut accepted = 0;
    for _ in 0..4 {
        let said = log.clone();
        let spawn = probe(&system, "a", move |turn| {
            let said = said.clone();
            Box::pin(async move {
                if turn.note.ends_with('7') {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let attempt = turn.ctx.attempt();
                said.say(format!("{} {attempt}", turn.note));
                Ok(0)
            })
        });
        let to = spawn.retry(at_once(1)).await.unwrap();
        let sender = tokio::spawn(async move {
            let mut sent = accepted;
            while to.tell(note(format!("{sent:05}"))).await.is_ok() {
                sent += 1;
            }
            sent
        });
        tokio::time::sleep(Duration::from_millis(40)).await;
        soon(system.shutdown(secs(5))).await.unwrap();
        accepted = soon(sender).await.unwrap();
        system = world.open().await;
    }
    let to = scribe(&system, "a", &log).await;
    until("all to be settled", || to.waiting() == 0).await;
    let lines: Vec<_> = log.all().iter().map(|line| line.trim_end_matches(" 1").to_owned()).collect();
    let expected: Vec<_> = (0..lines.len()).map(|n| format!("{n:05}")).collect();
    assert_eq!(lines, expected, "in order, each once, each at its first attempt");
    assert!(lines.len() >= accepted && accepted > 100, "{} of {accepted}", lines.len());
    assert!(dead(&system).await.is_empty());
}

#[tokio::test]
async fn a_shutdown_waits_for_slow_turns_throws_endless_ones_away_and_ends_within_its_deadline() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    let script = script(move |turn| {
        let (said, text) = (said.clone(), turn.note.to_owned());
        Box::pin(async move {
            said.say(format!("{text} begun"));
            match text.as_str() {
                "slow" => tokio::time::sleep(Duration::from_millis(30)).await,
                "endless" => loop {
                    tokio::task::yield_now().await;
                },
                _ => std::future::pending().await,
            }
            said.say(format!("{text} done"));
            Ok(0)
        })
    });
    for name in ["slow", "endless", "pending"] {
        let to = probe(&system, name, script.clone()).await.unwrap();
        to.tell(note(name)).await.unwrap();
    }
    log.lines(3).await;
    let began = std::time::Instant::now();
    system.shutdown(Duration::from_millis(300)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(log.count("slow done"), 1);
    let system = world.open().await;
    assert_eq!(bound(&system, "slow").await.waiting(), 0);
    for name in ["endless", "pending"] {
        let to = bound(&system, name).await;
        assert_eq!(to.waiting(), 1);
        assert!(crate::Attempts::of_mailbox(to.runtime.ledger.store(), to.mailbox.id).unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_never_yields_is_reported_stuck_and_its_mail_waits() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(turn.note);
        let _ = blocked.lock().unwrap().recv();
        Box::pin(async { Ok(0) })
    });
    let to = spawn.await.unwrap();
    to.tell(note("one")).await.unwrap();
    log.lines(1).await;
    match soon(system.shutdown(Duration::from_millis(50))).await {
        Err(ShutdownError::Stuck { mailboxes }) => assert_eq!(mailboxes, ["a"]),
        other => panic!("{other:?}"),
    }
    drop(release);
    soon(to.ended()).await;
    drop(to);
    let system = world.crash(system).await;
    scribe(&system, "a", &log).await;
    assert_eq!(log.lines(2).await, ["one", "one"], "the turn that came too late was not committed");
}

#[tokio::test]
async fn actors_end_in_reverse_order_of_their_start() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    for name in ["first", "second", "third"] {
        let said = log.clone();
        let spawn = probe(&system, name, move |turn| {
            let (said, name) = (said.clone(), turn.ctx.name().to_owned());
            Box::pin(async move {
                said.say("begun");
                turn.ctx.cancelled().await;
                said.say(name);
                Ok(0)
            })
        });
        spawn.await.unwrap().tell(note("x")).await.unwrap();
    }
    log.lines(3).await;
    soon(system.shutdown(secs(5))).await.unwrap();
    assert_eq!(log.all()[3..], ["third", "second", "first"]);
}

#[tokio::test]
async fn after_a_shutdown_nothing_is_accepted_and_nothing_starts() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    soon(system.shutdown(secs(5))).await.unwrap();
    assert!(soon(to.tell(note("x"))).await.unwrap_err().refused().is_some());
    assert!(soon(to.ask(note("x"))).await.unwrap_err().refused().is_some());
    let started = probe(&system, "b", |_| Box::pin(async { Ok(0) })).await;
    assert!(matches!(started, Err(SpawnError::ShuttingDown)), "{started:?}");
    soon(system.shutdown(secs(5))).await.unwrap();
    assert!(log.all().is_empty());
}

#[tokio::test]
async fn run_until_ends_with_its_signal_or_with_the_store() {
    let world = World::new();
    let system = world.open().await;
    soon(system.run_until(std::future::ready(()), secs(1))).await.unwrap();
    let system = world.open().await;
    let to = bound(&system, "a").await;
    world.disk.fail_syncs(true);
    let run = system.run_until(std::future::pending::<()>(), secs(1));
    let (ran, _) = soon(async { tokio::join!(run, to.tell(note("x"))) }).await;
    assert!(matches!(ran, Err(ShutdownError::Store(_))), "{ran:?}");
}

#[test]
fn a_system_works_on_either_runtime() {
    let runtimes = [
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    ];
    for runtime in runtimes {
        runtime.block_on(async {
            let (world, log) = (World::new(), Log::new());
            let system = world.open().await;
            let to = scribe(&system, "a", &log).await;
            to.tell(note("one")).await.unwrap();
            assert_eq!(soon(to.ask(note("two"))).await.unwrap(), 0);
            let system = world.restart(system).await;
            let to = scribe(&system, "a", &log).await;
            assert_eq!(soon(to.ask(note("three"))).await.unwrap(), 0);
            system.shutdown(secs(5)).await.unwrap();
            assert_eq!(log.all(), ["one", "two", "three"]);
        });
    }
}

#[tokio::test]
async fn mailboxes_come_in_pages_with_what_waits_in_them() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    for number in 0..5_u64 {
        let to = bound(&system, &format!("m{number}")).await;
        to.tell_all((0..number).map(note)).await.unwrap();
    }
    let system = world.crash(system).await;
    scribe(&system, "m0", &log).await;
    let mailboxes = system.mailboxes();
    let first = mailboxes.page(None, 2).await.unwrap();
    let rest = mailboxes.page(Some(&first[1].name), 9).await.unwrap();
    let seen: Vec<_> = first.iter().chain(&rest).map(|info| (info.name.as_str(), info.waiting)).collect();
    assert_eq!(seen, [("m0", 0), ("m1", 1), ("m2", 2), ("m3", 3), ("m4", 4)]);
    assert!(first[0].running && !first[1].running && first[0].bytes == 0 && first[1].bytes > 0);
    assert!(first.iter().all(|info| info.actor == "test.probe" && info.created.as_millis() == 1_000_000));
}
