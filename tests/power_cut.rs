//! A real power cut: a file system on a loop device is shut down without flushing anything, while a child sends. What the
//! parent had read as acknowledged before the cut must be there afterwards; only this sees a missing fsync on a
//! file system, where a kill does not.
//!
//! Needs root, losetup, mkfs.ext4, and perl or python3 for the ioctl (`unsafe` is forbidden here); where one is missing it
//! says that it is skipped. Long form: `STEADFAST_CYCLES=20 cargo test --test power_cut -- --nocapture`

mod child;
mod device;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use device::Device;
use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, Cell, Context, EngineChoice, Failure, Handler, Message, State, System, SystemBuilder,
};

const SENDERS: u32 = 4;
/// Of all cycles: the file system must not fill up.
const DISK: &str = "1G";

#[derive(Serialize, Deserialize)]
struct Parcel {
    sender: u32,
    number: u64,
    body: Vec<u8>,
}
impl Message for Parcel {
    type Reply = ();
    const NAME: &'static str = "parcel";
}

/// Remembers for each sender the numbers it got: as runs, since they come in order and mostly without a gap.
struct Depot;
type Runs = BTreeMap<u32, Vec<(u64, u64)>>;
const GOT: Cell<Runs> = Cell::new("got", 1);
const WRONG: Cell<Vec<String>> = Cell::new("wrong", 1);
impl Actor for Depot {
    const NAME: &'static str = "depot";
    type Messages = (Parcel,);
    fn state() -> State<Self> {
        State::cells().with(GOT).with(WRONG)
    }
}
impl Handler<Parcel> for Depot {
    async fn handle(&mut self, parcel: Parcel, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let Parcel { sender, number, body } = parcel;
        let mut got = ctx.state().get(&GOT)?.unwrap_or_default();
        let runs = got.entry(sender).or_default();
        let wrong = match runs.last_mut() {
            _ if body != content(sender, number) => Some(format!("{number} of {sender} has another body")),
            Some((_, last)) if *last >= number => Some(format!("{number} of {sender} after {last}")),
            Some((_, last)) if *last + 1 == number => {
                *last = number;
                None
            }
            _ => {
                runs.push((number, number));
                None
            }
        };
        if let Some(wrong) = wrong {
            let mut all = ctx.state().get(&WRONG)?.unwrap_or_default();
            all.push(wrong);
            ctx.state().set(&WRONG, &all)?;
        }
        ctx.state().set(&GOT, &got)?;
        Ok(())
    }
}

/// Half of them small, half of 3 to 23 KiB.
fn content(sender: u32, number: u64) -> Vec<u8> {
    let mix = (u64::from(sender) << 48 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let len = if mix.is_multiple_of(2) { 20 + mix / 2 % 200 } else { 3_000 + mix / 2 % 20_000 };
    (0..len).map(|at| (mix >> (at % 32)) as u8).collect()
}

fn builder() -> SystemBuilder {
    System::builder().journal_segment(4 << 20).overlay(2 << 20).mark_every(Duration::from_millis(200))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn what_was_acknowledged_survives_a_file_system_that_stops() {
    const TEST: &str = "what_was_acknowledged_survives_a_file_system_that_stops";
    if let Some((store, life)) = child::task() {
        return runtime().block_on(send(&store, life));
    }
    child::engines().into_iter().for_each(|engine| survives(TEST, engine));
}

fn survives(test: &str, engine: EngineChoice) {
    let mut device = match Device::make(DISK) {
        Ok(device) => device,
        Err(why) => return eprintln!("skipped: {test}: {why}"),
    };
    let cycles = child::setting("STEADFAST_CYCLES", 3);
    let mut acknowledged: BTreeSet<(u32, u64)> = BTreeSet::new();
    let store = device.mount().expect("mounts").join("store");
    // whoever opens it from here on finds which engine it has
    runtime().block_on(make(&store, engine));
    device.unmount().expect("unmounts");
    for cycle in 1..=cycles {
        let store = device.mount().expect("mounts").join("store");
        let mut running = child::Running::start(test, &store, cycle);
        let patience = Instant::now() + Duration::from_secs(60);
        // some cuts fall into the recovery
        while !cycle.is_multiple_of(4) && running.said().is_empty() {
            let errors = || std::fs::read_to_string(child::errors(&store)).unwrap_or_default();
            assert!(!running.has_ended() && Instant::now() < patience, "cycle {cycle}: {}", errors());
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(child::chance(1_500)));
        // what is read after the cut may rest on syncs that were answered by a file system already dead
        let read = device.cut_power_after(|| running.said()).expect("cuts the power");
        running.kill();
        device.unmount().expect("unmounts");
        acknowledged.extend(read.iter().map(|line| {
            let (sender, number) = line.split_once(' ').expect("two numbers");
            (sender.parse().expect("a sender"), number.parse().expect("a number"))
        }));
        let store = device.mount().expect("mounts again").join("store");
        let got = runtime().block_on(check(&store, &acknowledged, cycle));
        eprintln!(
            "{}, cycle {cycle}: acknowledged {} in all, {} of this cycle, got {got}",
            engine.name(),
            acknowledged.len(),
            read.len()
        );
        device.unmount().expect("unmounts");
    }
}

async fn make(store: &Path, engine: EngineChoice) {
    let made = builder().engine(engine).open(store).await.expect("is made");
    made.shutdown(Duration::from_secs(30)).await.expect("ends");
}

async fn send(store: &Path, life: u64) {
    let system = builder().open(store).await.expect("opens");
    let depot = system.spawn("depot", || Depot).await.expect("starts");
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let depot = depot.clone();
        senders.spawn(async move {
            for number in life * 1_000_000.. {
                let body = content(sender, number);
                // an error is what the cut looks like from here
                if depot.tell(Parcel { sender, number, body }).await.is_err() {
                    return;
                }
                child::say(&format!("{sender} {number}"));
            }
        });
    }
    while senders.join_next().await.is_some() {}
    // nothing on this file system ends well any more: wait to be killed
    std::thread::sleep(Duration::from_secs(600));
}

async fn check(store: &Path, acknowledged: &BTreeSet<(u32, u64)>, cycle: u64) -> u64 {
    let system = builder().open(store).await.unwrap_or_else(|why| panic!("cycle {cycle}: {why}"));
    let depot = system.spawn("depot", || Depot).await.unwrap_or_else(|why| panic!("cycle {cycle}: {why}"));
    depot.drain().await;
    let wrong = depot.cell(&WRONG).await.expect("reads");
    assert_eq!(wrong, None, "cycle {cycle}");
    let dead = system.dead_letters().page(None, None, 5).await.expect("reads");
    assert!(dead.is_empty(), "cycle {cycle}: {dead:?}");
    let got = depot.cell(&GOT).await.expect("reads").unwrap_or_default();
    let has = |sender: &u32, number: &u64| {
        let runs = got.get(sender).into_iter().flatten();
        runs.clone().any(|(first, last)| first <= number && number <= last)
    };
    let lost: Vec<_> = acknowledged.iter().filter(|(sender, number)| !has(sender, number)).take(5).collect();
    assert!(lost.is_empty(), "cycle {cycle}: acknowledged and lost: {lost:?}");
    system.shutdown(Duration::from_secs(30)).await.unwrap_or_else(|why| panic!("cycle {cycle}: {why}"));
    got.values().flatten().map(|(first, last)| last - first + 1).sum()
}
