//! Killed with signal 9 at random moments: a child moves money between accounts in a real directory and prints every
//! acknowledged transfer; the parent kills it, again and again on the same store, and checks what `accounts` says must
//! hold against the acknowledgements it had read.
//!
//! Long form: `STEADFAST_ROUNDS=1000 cargo test --release --test kill`

mod accounts;
mod child;

use std::path::Path;
use std::time::{Duration, Instant};

use accounts::{Acknowledged, Bank, settle_and_check};
use steadfast::{EngineChoice, MessageId, System, SystemBuilder};

const SENDERS: u32 = 4;

/// Small, so that segments are filled and checkpoints made all the time.
fn builder() -> SystemBuilder {
    let builder = System::builder().max_message(16 << 10).journal_segment(256 << 10).overlay(256 << 10);
    builder.ballast(0).mark_every(Duration::from_millis(50))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn what_was_acknowledged_survives_every_kill() {
    if let Some((directory, life)) = child::task() {
        return runtime().block_on(send_until_killed(&directory, life));
    }
    child::engines().into_iter().for_each(survives);
}

fn survives(engine: EngineChoice) {
    let rounds = child::setting("STEADFAST_ROUNDS", 50);
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let (mut acknowledged, mut before_any) = (Acknowledged::new(), 0);
    // whoever opens it from here on finds which engine it has
    runtime().block_on(make(&store, engine));
    let began = Instant::now();
    for round in 1..=rounds {
        let read = killed(&store, round);
        before_any += u64::from(read.is_empty());
        acknowledged.extend(read);
        if round % 10 == 0 || round == rounds {
            let what = format!("{}, after {round} kills", engine.name());
            runtime().block_on(check(&store, &acknowledged, &what, began.elapsed()));
        }
    }
    assert!(before_any < rounds / 2, "{before_any} of {rounds} were killed before anything was acknowledged");
    assert!(store.join(engine.name()).exists());
}

async fn make(store: &Path, engine: EngineChoice) {
    let made = builder().engine(engine).open(store).await.expect("is made");
    made.shutdown(Duration::from_secs(20)).await.expect("ends");
}

/// One round: what the child acknowledged before it was killed.
fn killed(store: &Path, round: u64) -> Vec<(MessageId, (u32, u64))> {
    let mut running = child::Running::start("what_was_acknowledged_survives_every_kill", store, round);
    let patience = Instant::now() + Duration::from_secs(30);
    // some are killed while they recover
    let recovers = round.is_multiple_of(5);
    while !recovers && running.said().is_empty() {
        let errors = || std::fs::read_to_string(child::errors(store)).unwrap_or_default();
        assert!(!running.has_ended(), "round {round}: ended by itself: {}", errors());
        assert!(Instant::now() < patience, "round {round}: acknowledges nothing: {}", errors());
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(child::chance(if recovers { 120 } else { 300 })));
    assert!(!running.has_ended(), "round {round}: ended by itself");
    running.kill().iter().map(|line| parse(line)).collect()
}

fn parse(line: &str) -> (MessageId, (u32, u64)) {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_else(|| panic!("half a line: {line:?}"));
    let (id, sender, number) = (word(), word(), word());
    let bytes: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).expect("hex")).collect();
    let id = MessageId::from_bytes(bytes.try_into().expect("sixteen"));
    (id, (sender.parse().expect("a sender"), number.parse().expect("a number")))
}

async fn send_until_killed(store: &Path, life: u64) {
    let system = builder().open(store).await.expect("opens");
    let bank = Bank::open(&system).await.expect("starts");
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let bank = bank.clone();
        senders.spawn(async move {
            for number in life * 1_000_000.. {
                let (account, transfer) = bank.transfer(sender, number);
                let id = account.tell(transfer).await.expect("accepted");
                let id: String = id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                child::say(&format!("{id} {sender} {number}"));
            }
        });
    }
    while let Some(ended) = senders.join_next().await {
        ended.expect("sends until it is killed");
    }
}

async fn check(store: &Path, acknowledged: &Acknowledged, what: &str, elapsed: Duration) {
    let system = builder().open(store).await.unwrap_or_else(|why| panic!("{what}: {why}"));
    let bank = Bank::open(&system).await.unwrap_or_else(|why| panic!("{what}: {why}"));
    let found = settle_and_check(&system, &bank, acknowledged, what).await;
    let (acknowledged, elapsed) = (acknowledged.len(), elapsed.as_secs());
    eprintln!("{what}: acknowledged {acknowledged}, {found:?}, {elapsed} s");
    let ended = system.shutdown(Duration::from_secs(20)).await;
    ended.unwrap_or_else(|why| panic!("{what}: does not end: {why}"));
}
