//! After a process has ended without closing the store: who is suspect, who runs beside whom, who is condemned. The end of a
//! process is a system that is dropped: what was written stays, synced or not. That it ended itself is a byte in a file.

use super::world::*;
use crate::testkit::Recorder;
use crate::{Address, Event, Failure, Reason, System};

/// How a process ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Killed from outside.
    Killed,
    /// By itself: `abort`, a stack overflow.
    Aborted,
}

/// The end of the process, and the next start.
async fn next_life(world: &World, system: System, end: End) -> System {
    // what is in flight goes with it
    drop(system);
    if end == End::Aborted {
        let words = world.disk.medium().create("last-words").expect("is not there");
        words.write_at(0, b"X").expect("writes");
    }
    world.open().await
}

/// A probe that notes each run, and does not come to an end with notes of this text.
async fn hangs_on(system: &System, name: &str, text: &'static str, log: &Log) {
    let log = log.clone();
    let spawn = probe(system, name, move |turn| {
        log.say(turn.note);
        let hangs = turn.note == text;
        Box::pin(async move { if hangs { std::future::pending().await } else { Ok(0) } })
    });
    spawn.await.expect("spawns");
}

/// A probe that says when a turn begins and ends, and ends only through the gate.
async fn gated(system: &System, name: &'static str, log: &Log, gate: &Gate) {
    let (log, gate) = (log.clone(), gate.clone());
    let spawn = probe(system, name, move |_| {
        let (log, gate) = (log.clone(), gate.clone());
        Box::pin(async move {
            log.say(format!("{name} begins"));
            gate.pass().await;
            log.say(format!("{name} ends"));
            Ok(0)
        })
    });
    spawn.await.expect("spawns");
}

/// (deaths, unexplained) of each suspect.
async fn held_against(system: &System) -> Vec<(u32, u32)> {
    let suspects = system.suspects().await.expect("readable");
    suspects.iter().map(|suspect| (suspect.deaths, suspect.unexplained)).collect()
}

#[tokio::test]
async fn a_message_that_ends_the_process_is_dead_after_exactly_three_runs_alone_and_all_others_are_handled() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    let killer = bound(&system, "killer").await;
    killer.tell_all(["kills", "behind it"].map(note)).await.unwrap();
    bound(&system, "neighbour").await.tell_all((0..3).map(note)).await.unwrap();
    // in flight, and not alone
    hangs_on(&system, "killer", "kills", &log).await;
    log.lines(1).await;
    for deaths in 0..3 {
        system = next_life(&world, system, End::Aborted).await;
        assert_eq!(held_against(&system).await, [(deaths, 0)]);
        hangs_on(&system, "killer", "kills", &log).await;
        log.lines(deaths as usize + 2).await;
    }
    system = next_life(&world, system, End::Aborted).await;
    hangs_on(&system, "killer", "kills", &log).await;
    let dead = first_dead(&system).await;
    assert_eq!((dead.mailbox.as_str(), dead.reason), ("killer", Reason::KilledTheProcess { deaths: 3 }));
    scribe(&system, "neighbour", &log).await;
    let lines = log.lines(8).await;
    assert_eq!(lines[..4], ["kills"; 4]);
    assert_eq!(log.count("behind it"), 1);
    assert_eq!(held_against(&system).await, []);
}

#[tokio::test]
async fn being_killed_from_outside_twenty_times_while_it_runs_condemns_nobody() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    bound(&system, "slow").await.tell(note("slow")).await.unwrap();
    hangs_on(&system, "slow", "slow", &log).await;
    log.lines(1).await;
    for kill in 1..=20 {
        system = next_life(&world, system, End::Killed).await;
        assert_eq!(held_against(&system).await, [(0, kill - 1)]);
        hangs_on(&system, "slow", "slow", &log).await;
        until("it to run alone", || {
            // it waits before, the more the oftener this happens
            world.pass(secs(1));
            log.len() > kill as usize
        })
        .await;
    }
    system = next_life(&world, system, End::Killed).await;
    let slow = scribe(&system, "slow", &log).await;
    until("it to be handled", || {
        world.pass(secs(1));
        slow.waiting() == 0
    })
    .await;
    assert!(dead(&system).await.is_empty());
    assert_eq!(held_against(&system).await, []);
}

#[tokio::test]
async fn from_the_third_unexplained_end_on_a_suspect_waits_and_others_are_handled_meanwhile() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    bound(&system, "slow").await.tell(note("slow")).await.unwrap();
    hangs_on(&system, "slow", "slow", &log).await;
    for runs in 1..=4 {
        log.lines(runs).await;
        system = next_life(&world, system, End::Killed).await;
        hangs_on(&system, "slow", "slow", &log).await;
    }
    assert_eq!(held_against(&system).await, [(0, 3)]);
    let other = scribe(&system, "other", &log).await;
    soon(other.ask(note("meanwhile"))).await.unwrap();
    a_moment().await;
    assert_eq!(log.all()[4..], ["meanwhile"]);
    world.pass(secs(1));
    assert_eq!(log.lines(6).await[5], "slow");
}

#[tokio::test]
async fn a_run_alone_is_on_disk_before_its_handler_begins() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    bound(&system, "a").await.tell(note("it")).await.unwrap();
    hangs_on(&system, "a", "it", &log).await;
    log.lines(1).await;
    let system = next_life(&world, system, End::Killed).await;
    world.quiet().await;
    world.disk.hold_syncs();
    hangs_on(&system, "a", "it", &log).await;
    a_moment().await;
    let early = log.len() > 1;
    world.disk.release_syncs();
    assert!(!early, "it ran before that was on disk");
    log.lines(2).await;
    // whatever happens now, the run is found
    let system = world.crash(system).await;
    assert_eq!(held_against(&system).await, [(0, 1)]);
}

#[tokio::test]
async fn suspects_run_one_at_a_time() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let names = ["a", "b", "c"];
    for name in names {
        bound(&system, name).await.tell(note("it")).await.unwrap();
        gated(&system, name, &log, &gate).await;
    }
    log.lines(3).await;
    let system = next_life(&world, system, End::Killed).await;
    let log = Log::new();
    for name in names {
        gated(&system, name, &log, &gate).await;
    }
    for ended in 0..3 {
        log.lines(2 * ended + 1).await;
        a_moment().await;
        assert_eq!(log.len(), 2 * ended + 1, "{:?}", log.all());
        gate.let_one_pass();
    }
    let lines = log.lines(6).await;
    assert!(lines.chunks(2).all(|run| run[0].ends_with("begins") && run[1].ends_with("ends")), "{lines:?}");
}

#[tokio::test]
async fn after_a_second_unclean_end_within_ten_minutes_nothing_else_runs_beside_a_suspect() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let mut system = world.open().await;
    bound(&system, "suspect").await.tell(note("it")).await.unwrap();
    gated(&system, "suspect", &log, &gate).await;
    log.lines(1).await;
    // one such end, and one long after it
    for _ in 0..2 {
        world.pass(secs(601));
        system = next_life(&world, system, End::Killed).await;
        let log = Log::new();
        gated(&system, "suspect", &log, &gate).await;
        log.lines(1).await;
        let other = scribe(&system, "other", &log).await;
        soon(other.ask(note("beside it"))).await.unwrap();
    }
    world.pass(secs(599));
    system = next_life(&world, system, End::Killed).await;
    let log = Log::new();
    gated(&system, "suspect", &log, &gate).await;
    log.lines(1).await;
    let other = scribe(&system, "other", &log).await;
    other.tell_all((0..3).map(note)).await.unwrap();
    a_moment().await;
    assert_eq!(log.all(), ["suspect begins"]);
    gate.let_one_pass();
    assert_eq!(log.lines(5).await, ["suspect begins", "suspect ends", "0", "1", "2"]);
}

#[tokio::test]
async fn a_suspect_that_asks_lets_others_run_until_it_has_its_answer() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    let asks = async |system: &System, log: &Log| {
        let (log, asked) = (log.clone(), Address::<Probe>::new("asked").unwrap());
        let spawn = probe(system, "asks", move |turn| {
            let (log, asked) = (log.clone(), asked.clone());
            Box::pin(async move {
                log.say("asks");
                let answer = turn.ctx.ask(&asked, note("question")).await?;
                log.say("has its answer");
                Ok(answer)
            })
        });
        spawn.await.expect("spawns");
    };
    bound(&system, "asks").await.tell(note("it")).await.unwrap();
    bound(&system, "asked").await.tell(note("suspect too")).await.unwrap();
    for _ in 0..2 {
        hangs_on(&system, "asked", "suspect too", &log).await;
        asks(&system, &log).await;
        until("both to be in flight", || log.count("asks") > 0 && log.count("suspect too") > 0).await;
        system = next_life(&world, system, End::Killed).await;
    }
    let log = Log::new();
    asks(&system, &log).await;
    log.lines(1).await;
    scribe(&system, "asked", &log).await;
    assert_eq!(log.lines(4).await, ["asks", "suspect too", "question", "has its answer"]);
    let (asks, asked) = (bound(&system, "asks").await, bound(&system, "asked").await);
    until("all to be handled", || asks.waiting() + asked.waiting() == 0).await;
    assert_eq!(held_against(&system).await, []);
}

#[tokio::test]
async fn a_suspect_whose_handler_fails_is_acquitted_and_tried_again_as_any_other() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    bound(&system, "a").await.tell(note("it")).await.unwrap();
    hangs_on(&system, "a", "it", &log).await;
    log.lines(1).await;
    let system = next_life(&world, system, End::Killed).await;
    let said = log.clone();
    let spawn = probe(&system, "a", move |turn| {
        said.say(format!("attempt {}", turn.ctx.attempt()));
        let fails = turn.ctx.attempt() < 3;
        Box::pin(async move { if fails { Err(Failure::new("no")) } else { Ok(0) } })
    });
    let a = spawn.retry(at_once(5)).await.unwrap();
    settled(&a).await;
    assert_eq!(log.all()[1..], ["attempt 1", "attempt 2", "attempt 3"]);
    assert_eq!(held_against(&system).await, []);
}

#[tokio::test]
async fn after_a_clean_end_nobody_is_suspect_and_a_run_that_was_broken_off_is_no_death() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    bound(&system, "a").await.tell(note("it")).await.unwrap();
    hangs_on(&system, "a", "it", &log).await;
    log.lines(1).await;
    let system = next_life(&world, system, End::Killed).await;
    hangs_on(&system, "a", "it", &log).await;
    log.lines(2).await;
    system.shutdown(std::time::Duration::from_millis(50)).await.unwrap();
    assert!(!world.disk.files().iter().any(|file| file == "running" || file == "last-words"));
    let system = world.open().await;
    assert_eq!(held_against(&system).await, [(0, 0)]);
    scribe(&system, "b", &log).await;
    hangs_on(&system, "a", "it", &log).await;
    log.lines(3).await;
    // parked, then the process ends itself while another runs
    soon(bound(&system, "a").await.park()).await;
    let system = next_life(&world, system, End::Aborted).await;
    assert_eq!(held_against(&system).await, [(0, 0)]);
}

#[tokio::test]
async fn what_was_in_flight_is_told_and_a_suspect_that_is_cancelled_is_none() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let id = bound(&system, "a").await.tell(note("it")).await.unwrap();
    bound(&system, "a").await.tell(note("behind it")).await.unwrap();
    bound(&system, "idle").await.tell(note("nobody runs here")).await.unwrap();
    hangs_on(&system, "a", "it", &log).await;
    log.lines(1).await;
    drop(system);
    let told = Recorder::new(|event| match event {
        Event::Suspect { actor, message, deaths, unexplained } => {
            Some(((*actor).to_owned(), *message, *deaths, *unexplained))
        }
        _ => None,
    });
    let system = world.builder().observer(told.clone()).open_simulated(&world.disk).await.unwrap();
    assert_eq!(told.kept(), [("a".to_owned(), id, 0, 0)]);
    let suspects = system.suspects().await.unwrap();
    assert_eq!((suspects[0].mailbox.as_str(), suspects[0].message, suspects.len()), ("a", id, 1));
    assert!(system.cancel(id).await.unwrap());
    assert_eq!(held_against(&system).await, []);
    scribe(&system, "a", &log).await;
    assert_eq!(log.lines(2).await[1], "behind it");
}

#[tokio::test]
async fn turns_after_a_process_ended_itself_are_synced_one_by_one_so_that_the_next_end_shows_which_did_it() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    scribe(&system, "a", &log).await;
    let system = next_life(&world, system, End::Aborted).await;
    let a = scribe(&system, "a", &log).await;
    world.quiet().await;
    world.disk.hold_syncs();
    let sent = tokio::spawn(async move { a.tell_all((0..3).map(note)).await });
    log.lines(1).await;
    a_moment().await;
    let begun = log.len();
    world.disk.release_syncs();
    assert_eq!(begun, 1);
    log.lines(3).await;
    soon(sent).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_damaged_or_missing_roll_is_no_reason_to_refuse_the_store() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    bound(&system, "a").await.tell(note("it")).await.unwrap();
    hangs_on(&system, "a", "it", &log).await;
    log.lines(1).await;
    drop(system);
    world.disk.medium().open("running").unwrap().sync().unwrap();
    for damage in 0..48 {
        let hurt = World::with(world.disk.fork());
        hurt.disk.damage("running", |bytes| bytes[damage % 32] ^= 1 << (damage % 8)).unwrap();
        let system = hurt.open().await;
        let handled = Log::new();
        scribe(&system, "a", &handled).await;
        handled.lines(1).await;
    }
    world.disk.medium().remove("running").unwrap();
    let system = world.open().await;
    scribe(&system, "a", &log).await;
    log.lines(2).await;
}

/// Lets this much time pass for what is timed within the process.
async fn let_pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_suspect_that_runs_long_while_another_waits_has_had_its_time_and_is_not_held_to_have_done_it() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let mut system = world.open().await;
    for name in ["long", "other"] {
        bound(&system, name).await.tell(note("it")).await.unwrap();
        gated(&system, name, &log, &gate).await;
    }
    log.lines(2).await;
    system = next_life(&world, system, End::Killed).await;
    let log = Log::new();
    gated(&system, "long", &log, &gate).await;
    log.lines(1).await;
    gated(&system, "other", &log, &gate).await;
    a_moment().await;
    assert_eq!(log.all(), ["long begins"]);
    let_pass(31).await;
    assert_eq!(log.lines(2).await, ["long begins", "other begins"]);
    let other = system.suspects().await.unwrap();
    let other = other.iter().find(|suspect| suspect.mailbox == "other").map(|suspect| suspect.message);
    system = next_life(&world, system, End::Aborted).await;
    let suspects = system.suspects().await.unwrap();
    let killer: Vec<_> = suspects.iter().filter(|suspect| suspect.deaths > 0).collect();
    assert_eq!((killer.len(), Some(killer[0].message)), (1, other), "{suspects:?}");
}

#[tokio::test]
async fn a_suspect_holds_up_others_for_thirty_seconds_at_most_and_they_it_no_longer() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let mut system = world.open().await;
    bound(&system, "suspect").await.tell(note("it")).await.unwrap();
    for lives in 1..=2 {
        gated(&system, "suspect", &log, &gate).await;
        log.lines(lives).await;
        system = next_life(&world, system, End::Killed).await;
    }
    let log = Log::new();
    // one that is there before it, and does not end
    let busy = bound(&system, "busy").await;
    busy.tell(note("it")).await.unwrap();
    gated(&system, "busy", &log, &gate).await;
    log.lines(1).await;
    gated(&system, "suspect", &log, &gate).await;
    a_moment().await;
    assert_eq!(log.all(), ["busy begins"]);
    let_pass(31).await;
    assert_eq!(log.lines(2).await[1], "suspect begins");
    // and one that comes while the suspect runs, after its time
    let later = scribe(&system, "later", &log).await;
    soon(later.ask(note("later"))).await.unwrap();
    gate.open();
    log.lines(5).await;
    settled(&bound(&system, "suspect").await).await;
    assert_eq!(held_against(&system).await, []);
}
