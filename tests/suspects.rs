//! Messages that end the process, and a process that is ended from outside, with real processes: a child opens a real
//! directory and says what its handlers do; the parent starts it again after each end, as whatever keeps a service running
//! would.

#![cfg(unix)]

mod child;

use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use steadfast::testkit::run_until_idle;
use steadfast::{Actor, Context, Failure, Handler, Message, Reason, System};

const NEIGHBOURS: u64 = 20;

/// What a handler is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Do {
    Return(u64),
    Abort,
    Overflow,
    Sleep,
    Block,
}

impl Message for Do {
    type Reply = ();
    const NAME: &'static str = "do";
}

struct Worker;

impl Actor for Worker {
    const NAME: &'static str = "worker";
    type Messages = (Do,);
}

impl Handler<Do> for Worker {
    async fn handle(&mut self, what: Do, ctx: &mut Context<Self>) -> Result<(), Failure> {
        const SLOW: Duration = Duration::from_millis(1500);
        child::say(&format!("{} begins {what:?}", ctx.name()));
        match what {
            Do::Return(_) => {}
            Do::Abort => std::process::abort(),
            Do::Overflow => assert!(deeper(0) > 0),
            Do::Sleep => tokio::time::sleep(SLOW).await,
            Do::Block => std::thread::sleep(SLOW),
        }
        child::say(&format!("{} ends {what:?}", ctx.name()));
        Ok(())
    }
}

#[allow(unconditional_recursion, reason = "it is to run out of stack")]
fn deeper(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 512]);
    deeper(depth + 1) + page[7]
}

/// One life of the child: in the first the mail is sent, and whoever is in trouble starts first.
fn live(store: &Path, life: u64, trouble: Do) {
    live_behind(store, life, trouble, 0);
}

/// As [`live`], with `quick` messages before the trouble.
fn live_behind(store: &Path, life: u64, trouble: Do, quick: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let system = System::builder().ballast(0).open(store).await.expect("opens");
        if life == 0 {
            for name in ["a", "b", "trouble"] {
                let to = system.bind::<Worker>(&name_of(name)).await.expect("binds");
                let mail = (0..NEIGHBOURS).map(Do::Return);
                let quick = (0..quick).map(Do::Return);
                let first = quick.chain([trouble]).filter(|_| name == "trouble");
                to.tell_all(first.chain(mail)).await.expect("accepted");
            }
        }
        for name in ["trouble", "a", "b"] {
            system.spawn(name, || Worker).await.expect("starts");
        }
        run_until_idle(&system).await.expect("comes to rest");
        for dead in system.dead_letters().page(None, None, 10).await.expect("reads") {
            child::say(&format!("dead {} {:?}", dead.mailbox, dead.reason));
        }
        assert_eq!(system.suspects().await.expect("reads"), []);
        system.shutdown(Duration::from_secs(10)).await.expect("shuts down");
    });
}

fn name_of(name: &str) -> steadfast::Address<Worker> {
    steadfast::Address::new(name).expect("a name")
}

/// Lets the child live until it comes to its end. How often it did not, and all that it said.
fn until_it_lives(test: &str, store: &Path) -> (u64, Vec<String>) {
    let mut all = Vec::new();
    for life in 0..10 {
        let (succeeded, said) = child::Running::start(test, store, life).wait();
        all.extend(said);
        if succeeded {
            return (life, all);
        }
    }
    panic!("it does not come to an end: {all:?}");
}

fn count(said: &[String], line: &str) -> usize {
    said.iter().filter(|said| *said == line).count()
}

fn is_found(test: &str, trouble: Do) {
    if let Some((store, life)) = child::task() {
        return live(&store, life, trouble);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (deaths, said) = until_it_lives(test, &directory.path().join("store"));
    // once in flight, then three times alone
    assert_eq!((deaths, count(&said, &format!("trouble begins {trouble:?}"))), (4, 4), "{said:?}");
    let reason = Reason::KilledTheProcess { deaths: 3 };
    assert_eq!(count(&said, &format!("dead trouble {reason:?}")), 1, "{said:?}");
    for (name, number) in
        ["a", "b", "trouble"].iter().flat_map(|name| (0..NEIGHBOURS).map(move |n| (name, n)))
    {
        let handled = format!("{name} ends {:?}", Do::Return(number));
        assert!(count(&said, &handled) > 0, "not {handled}");
    }
}

#[test]
fn a_message_that_aborts_is_dead_after_three_deaths_alone_and_all_other_mail_is_handled() {
    is_found(
        "a_message_that_aborts_is_dead_after_three_deaths_alone_and_all_other_mail_is_handled",
        Do::Abort,
    );
}

#[test]
fn a_message_that_overflows_the_stack_is_dead_after_three_deaths_alone_and_all_other_mail_is_handled() {
    let test =
        "a_message_that_overflows_the_stack_is_dead_after_three_deaths_alone_and_all_other_mail_is_handled";
    is_found(test, Do::Overflow);
}

/// What was handled before it and not synced when the process ended is handled again, and stands before it.
#[test]
fn a_message_that_aborts_behind_many_quick_ones_is_found_one_death_later() {
    const TEST: &str = "a_message_that_aborts_behind_many_quick_ones_is_found_one_death_later";
    if let Some((store, life)) = child::task() {
        return live_behind(&store, life, Do::Abort, 500);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (deaths, said) = until_it_lives(TEST, &directory.path().join("store"));
    assert!((4..=5).contains(&deaths), "{deaths} deaths");
    let reason = Reason::KilledTheProcess { deaths: 3 };
    assert_eq!(count(&said, &format!("dead trouble {reason:?}")), 1);
    assert_eq!(said.iter().filter(|said| said.starts_with("dead")).count(), 1);
}

fn is_not_condemned(test: &str, trouble: Do) {
    if let Some((store, life)) = child::task() {
        return live(&store, life, trouble);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let begins = format!("trouble begins {trouble:?}");
    let mut in_flight = 0;
    for life in 0..20 {
        let mut running = child::Running::start(test, &store, life);
        // later it waits before it runs, longer than this test wants to
        let patience = Instant::now() + Duration::from_millis(if life < 6 { 20_000 } else { 250 });
        while count(&running.said(), &begins) == 0 && Instant::now() < patience {
            assert!(!running.has_ended(), "ended by itself: {:?}", running.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(child::chance(100)));
        in_flight += count(&running.kill(), &begins);
    }
    assert!(in_flight >= 6, "killed only {in_flight} times while it ran");
    let (succeeded, said) = child::Running::start(test, &store, 20).wait();
    assert!(succeeded, "{said:?}");
    assert_eq!(count(&said, &format!("trouble ends {trouble:?}")), 1, "{said:?}");
    assert!(!said.iter().any(|said| said.starts_with("dead")), "{said:?}");
}

#[test]
fn killed_from_outside_twenty_times_a_slow_message_is_handled_in_the_end() {
    is_not_condemned("killed_from_outside_twenty_times_a_slow_message_is_handled_in_the_end", Do::Sleep);
}

#[test]
fn killed_from_outside_twenty_times_a_message_that_blocks_is_handled_in_the_end() {
    is_not_condemned(
        "killed_from_outside_twenty_times_a_message_that_blocks_is_handled_in_the_end",
        Do::Block,
    );
}

/// `abort` raises a signal, and somebody else may send the same one: that is a kill from outside.
#[test]
fn the_signal_of_an_abort_sent_from_outside_ends_the_process_and_condemns_nobody() {
    const TEST: &str = "the_signal_of_an_abort_sent_from_outside_ends_the_process_and_condemns_nobody";
    if let Some((store, life)) = child::task() {
        return live_with_patience(&store, life);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    for life in 0..4 {
        let mut running = child::Running::start(TEST, &store, life);
        let patience = Instant::now() + Duration::from_secs(20);
        let in_flight = |running: &child::Running| running.said().iter().any(|said| said.starts_with("runs"));
        while !in_flight(&running) {
            assert!(!running.has_ended() && Instant::now() < patience, "life {life}: {:?}", running.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = std::process::Command::new("kill").args(["-ABRT", &running.pid().to_string()]).status();
        assert!(sent.expect("there is a kill").success());
        while !running.has_ended() {
            assert!(Instant::now() < patience, "life {life}: it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = running.kill();
        assert!(said.contains(&format!("runs, held against it {}: 0", life.min(1))), "life {life}: {said:?}");
    }
}

/// A handler that waits for ever; before it starts, how many suspects there are and what is held against them.
fn live_with_patience(store: &Path, life: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let system = System::builder().ballast(0).open(store).await.expect("opens");
        let to = system
            .bind::<Patient>(&steadfast::Address::new("patient").expect("a name"))
            .await
            .expect("binds");
        if life == 0 {
            to.tell(Do::Sleep).await.expect("accepted");
        }
        let suspects = system.suspects().await.expect("reads");
        let deaths: u32 = suspects.iter().map(|suspect| suspect.deaths).sum();
        let held = format!("runs, held against it {}: {deaths}", suspects.len());
        system.spawn("patient", move || Patient(held.clone())).await.expect("starts");
        std::future::pending::<()>().await;
    });
}

struct Patient(String);

impl Actor for Patient {
    const NAME: &'static str = "patient";
    type Messages = (Do,);
}

impl Handler<Do> for Patient {
    async fn handle(&mut self, _: Do, _: &mut Context<Self>) -> Result<(), Failure> {
        child::say(&self.0);
        std::future::pending().await
    }
}
