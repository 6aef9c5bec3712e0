//! Deterministic simulation: whole systems on one thread, with paused time and a faulty disk in memory, driven by a seed. The
//! workload and the checker are those of `examples/torture`; what differs is that here the seed decides everything: what is
//! sent, which step of the store comes next, how time passes, where the power goes and what that leaves.
//!
//! A seed is some lives of one store. Each ends by a power cut, a kill or a clean end, in the middle of an operation on the disk
//! or between two, also while it opens or closes; then all faults cease, and everything must come to its end and be right.
//!
//! # Invariants
//! - The same seed is the same run, whatever ran before it: `a_seed_is_the_same_run_every_time`.
//! - A run has at least [`OPERATIONS`] acknowledged sends and publishes, [`CRASHES`] crashes and [`TORN`] torn write.
//! - What fails says how to run it again.
//!
//! Long form: `STEADFAST_SEEDS=10000 cargo test --release --lib simulation -- --nocapture`; one seed alone, with all that was
//! said in it: `STEADFAST_SEED=n`.

#[path = "../examples/torture/bank.rs"]
mod bank;
#[path = "../examples/torture/broken.rs"]
#[allow(dead_code, reason = "the names are those of the command line")]
mod broken;
#[path = "../examples/torture/checker.rs"]
#[allow(dead_code, reason = "reports are the example's")]
mod checker;
mod clock;
mod coverage;
mod dice;
#[path = "../examples/torture/found.rs"]
mod found;
#[path = "../examples/torture/ledger.rs"]
#[allow(dead_code, reason = "here nothing is told to another process")]
mod ledger;
mod life;
#[path = "../examples/torture/plan.rs"]
#[allow(dead_code, reason = "what is sent unheard is for damage")]
mod plan;
mod run;
#[path = "../examples/torture/traffic.rs"]
#[allow(dead_code, reason = "what is sent unheard is for damage")]
mod traffic;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, mpsc};
use std::time::{Duration, Instant};

use self::broken::Broken;
use self::coverage::Coverage;
use self::run::{Ran, Run};

/// Acknowledged sends and publishes of a run, at least.
const OPERATIONS: u64 = 200;
/// Power cuts and kills of a run, at least.
const CRASHES: u64 = 2;
/// Writes of a run of which a part and not all was there after a power cut, at least.
const TORN: u64 = 1;
/// Seeds of the short form: a second of unoptimised code each, so fewer of those.
const FEW: u64 = if cfg!(debug_assertions) { 16 } else { 150 };
/// In the long form every counter must have moved.
const MANY: u64 = 2_000;
/// A seed that takes so long, of real time, does not end.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn every_seed_keeps_every_promise() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("STEADFAST_SEED") {
        return replay(seed);
    }
    let seeds = number("STEADFAST_SEEDS").unwrap_or(FEW);
    let began = Instant::now();
    let (coverage, failed) = run_all(0..seeds);
    println!("{coverage}{:>12} seconds", began.elapsed().as_secs());
    assert!(failed.is_empty(), "{}", failures(&failed));
    if seeds >= MANY {
        assert_eq!(coverage.untouched(), Vec::<&str>::new(), "of {seeds} seeds none came to this");
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    const SEEDS: [u64; 3] = [3, 1, 0];
    quiet_about_stumbles();
    let trace = |seed: &u64| Run::new(*seed, None).go().trace;
    let forth: Vec<u64> = SEEDS.iter().map(trace).collect();
    let mut back: Vec<u64> = SEEDS.iter().rev().map(trace).collect();
    back.reverse();
    assert_eq!(forth, back);
    let different: std::collections::BTreeSet<u64> = forth.iter().copied().collect();
    assert_eq!(different.len(), SEEDS.len(), "two seeds are the same run");
}

#[test]
fn a_fault_in_the_workload_is_noticed() {
    quiet_about_stumbles();
    for broken in [Broken::Mints, Broken::HalfTurn, Broken::DropsEvents, Broken::AcknowledgesEarly] {
        let noticed = (0..5).any(|seed| !Run::new(seed, Some(broken)).go().problems.is_empty());
        assert!(noticed, "{broken:?} is not noticed");
    }
}

fn replay(seed: u64) {
    quiet_about_stumbles();
    let ran = Run::new(seed, None).go();
    println!("{}\n{}trace {:016x}", ran.story.join("\n"), ran.coverage, ran.trace);
    assert!(ran.problems.is_empty(), "{}", failures(&BTreeMap::from([(seed, ran.problems)])));
}

/// On as many threads as there are processors, each seed on one; stops soon after some have failed.
fn run_all(seeds: Range<u64>) -> (Coverage, BTreeMap<u64, Vec<String>>) {
    const ENOUGH: usize = 5;
    quiet_about_stumbles();
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let at_work: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(u64::MAX)).collect();
    let (coverage, failed) = (Mutex::new(Coverage::default()), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        let (tells, told) = mpsc::channel();
        for mine in &at_work {
            let (tells, next, coverage, failed) = (tells.clone(), &next, &coverage, &failed);
            scope.spawn(move || {
                while failed.lock().expect("whole").len() < ENOUGH {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    mine.store(seed, Ordering::Relaxed);
                    let Ran { coverage: covered, problems, .. } = run_one(seed);
                    coverage.lock().expect("whole").add(&covered);
                    if !problems.is_empty() {
                        failed.lock().expect("whole").insert(seed, problems);
                    }
                    let _ = tells.send(());
                }
            });
        }
        drop(tells);
        loop {
            match told.recv_timeout(PATIENCE) {
                Ok(()) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let seeds: Vec<u64> = at_work.iter().map(|seed| seed.load(Ordering::Relaxed)).collect();
                    eprintln!("no seed ends: one of {seeds:?} hangs");
                    seeds.iter().for_each(|seed| eprintln!("{}", command(*seed)));
                    // a thread cannot be ended from outside
                    std::process::exit(1);
                }
            }
        }
    });
    (coverage.into_inner().expect("whole"), failed.into_inner().expect("whole"))
}

/// A panic is a finding like any other.
fn run_one(seed: u64) -> Ran {
    catch_unwind(AssertUnwindSafe(|| Run::new(seed, None).go())).unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().cloned();
        let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
        Ran { problems: vec![format!("it panicked: {}", why.unwrap_or_default())], ..Ran::default() }
    })
}

fn failures(failed: &BTreeMap<u64, Vec<String>>) -> String {
    let one = |(seed, problems): (&u64, &Vec<String>)| {
        format!("seed {seed}: {}\n  again: {}\n", problems.join("\n  "), command(*seed))
    };
    format!("{} seeds failed\n{}", failed.len(), failed.iter().map(one).collect::<String>())
}

fn command(seed: u64) -> String {
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    format!(
        "STEADFAST_SEED={seed} cargo test{release} --lib simulation::every_seed_keeps_every_promise -- --nocapture"
    )
}

/// Some handlers panic on purpose.
fn quiet_about_stumbles() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str() != Some(bank::STUMBLES) {
                usual(panic);
            }
        }));
    });
}
