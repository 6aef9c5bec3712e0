//! Producers without consumers: messages are sent to mailboxes that nobody reads, faster than the disk likes and until
//! they are full. Memory stays bounded whatever waits, senders are slowed, and nothing accepted is lost (G10).
//!
//! Long forms: `STEADFAST_MEMORY_SECONDS=60 cargo test --release --test memory -- --nocapture`, and a backlog that is
//! reopened and drained: `STEADFAST_MEMORY_BACKLOG=1000000` before the same.

mod child;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, Cell, Context, Event, Failure, Handler, Message, Observer, Refused, SendError, State,
    System,
};

const MAILBOXES: usize = 16;
const PRODUCERS: usize = 8;
/// Sends of one producer that wait together.
const AT_ONCE: usize = 32;
/// Of all mailboxes together.
const CAPACITY: u64 = 200_000;
/// The most memory a process may take with the default sizes: an overlay of 32 MiB twice, group buffers, sled's cache, and
/// the allocator's share.
const MOST_MIB: u64 = 300;

#[derive(Serialize, Deserialize)]
struct Load(Vec<u8>);
impl Message for Load {
    type Reply = ();
    const NAME: &'static str = "load";
}

struct Sink;
const TAKEN: Cell<u64> = Cell::new("taken", 1);
impl Actor for Sink {
    const NAME: &'static str = "sink";
    type Messages = (Load,);
    fn state() -> State<Self> {
        State::cells().with(TAKEN)
    }
}
impl Handler<Load> for Sink {
    async fn handle(&mut self, _: Load, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let taken = ctx.state().get(&TAKEN)?.unwrap_or_default();
        Ok(ctx.state().set(&TAKEN, &(taken + 1))?)
    }
}

/// Sees whether the store slowed its senders.
#[derive(Default)]
struct Pressure {
    slowed: AtomicU64,
}
impl Observer for Pressure {
    fn event(&self, event: &Event<'_>) {
        if let Event::Pressure { slowed: true, .. } = event {
            self.slowed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn bind(system: &System, index: usize) -> ActorRef<Sink> {
    let address = steadfast::Address::new(format!("sink-{index}")).expect("a name");
    system.bind::<Sink>(&address).await.expect("binds")
}

/// What this process takes at most, as the kernel counts it.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux /proc");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Runs the test of this name again as a child, so that the peak is of nothing else, and shows what it said.
fn alone(test: &str) {
    if !Path::new("/proc/self/status").exists() {
        return eprintln!("skipped: {test}: memory is read from /proc, which is not here");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    for life in 1..=2 {
        let (succeeded, said) = child::Running::start(test, &store, life).wait();
        eprintln!("{test} {life}: {}", said.join(" "));
        let errors = std::fs::read_to_string(child::errors(&store)).unwrap_or_default();
        assert!(succeeded, "{errors}");
    }
}

/// The size of everything in a directory.
fn size(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[test]
fn producers_without_consumers_fill_mailboxes_and_not_the_memory() {
    match child::task() {
        Some((store, 1)) => runtime().block_on(produce(&store)),
        Some((store, _)) => runtime().block_on(count(&store)),
        None => alone("producers_without_consumers_fill_mailboxes_and_not_the_memory"),
    }
}

async fn produce(store: &Path) {
    let time = Duration::from_secs(child::setting("STEADFAST_MEMORY_SECONDS", 6));
    let pressure = Arc::new(Pressure::default());
    let builder = System::builder().mailbox_capacity(CAPACITY / MAILBOXES as u64).observer(pressure.clone());
    let system = builder.open(store).await.expect("opens");
    let (end, accepted, full) =
        (Instant::now() + time, Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS * AT_ONCE {
        let sink = bind(&system, producer % MAILBOXES).await;
        let (accepted, full) = (accepted.clone(), full.clone());
        producers.spawn(async move {
            while Instant::now() < end {
                match sink.tell(Load(vec![7; 1024])).timeout(Duration::from_millis(500)).await {
                    Ok(_) => accepted.fetch_add(1, Ordering::Relaxed),
                    Err(SendError::Refused { why: Refused::TimedOut(..), .. }) => {
                        full.fetch_add(1, Ordering::Relaxed)
                    }
                    Err(why) => panic!("{why}"),
                };
            }
        });
    }
    while let Some(ended) = producers.join_next().await {
        ended.expect("a producer");
    }
    let (accepted, full) = (accepted.load(Ordering::Relaxed), full.load(Ordering::Relaxed));
    system.shutdown(Duration::from_secs(60)).await.expect("ends");
    let (rss, slowed, disk) = (peak_mib(), pressure.slowed.load(Ordering::Relaxed), size(store) >> 20);
    child::say(&format!("rss_mib max={rss} accepted={accepted} full={full} slowed={slowed} disk_mib={disk}"));
    std::fs::write(store.with_extension("accepted"), accepted.to_string()).expect("writes");
    assert!(rss < MOST_MIB, "took {rss} MiB");
    assert!(accepted <= CAPACITY, "{accepted} were accepted");
    // what waits, as pages and in the journal, and what is set aside
    assert!(disk < 1024, "{disk} MiB on disk");
}

async fn count(store: &Path) {
    let accepted = std::fs::read_to_string(store.with_extension("accepted")).expect("reads");
    let began = Instant::now();
    let system = System::open(store).await.expect("opens");
    let mailboxes = system.mailboxes().page(None, 100).await.expect("reads");
    let waiting: u64 = mailboxes.iter().map(|mailbox| mailbox.waiting).sum();
    child::say(&format!("waiting={waiting} reopened_ms={}", began.elapsed().as_millis()));
    assert_eq!(waiting.to_string(), accepted, "as many wait as were accepted");
    system.shutdown(Duration::from_secs(60)).await.expect("ends");
}

#[test]
fn a_long_backlog_is_reopened_and_drained_in_bounded_memory() {
    let test = "a_long_backlog_is_reopened_and_drained_in_bounded_memory";
    let messages = child::setting("STEADFAST_MEMORY_BACKLOG", 20_000);
    match child::task() {
        Some((store, 1)) => runtime().block_on(pile_up(&store, messages)),
        Some((store, _)) => runtime().block_on(drain(&store, messages)),
        None => alone(test),
    }
}

async fn pile_up(store: &Path, messages: u64) {
    const TOGETHER: u64 = 500;
    let system = System::builder().mailbox_capacity(u64::MAX).open(store).await.expect("opens");
    let sink = bind(&system, 0).await;
    for _ in 0..messages.div_ceil(TOGETHER) {
        sink.tell_all((0..TOGETHER).map(|_| Load(vec![7; 256]))).await.expect("accepted");
    }
    // left as by a crash: the journal's end is replayed by the next life
    child::say(&format!("piled up {messages}, rss_mib max={}", peak_mib()));
    drop((sink, system));
}

async fn drain(store: &Path, messages: u64) {
    let began = Instant::now();
    let system = System::builder().mailbox_capacity(u64::MAX).open(store).await.expect("opens");
    let opened = began.elapsed();
    let sink = system.spawn("sink-0", || Sink).await.expect("starts");
    sink.drain().await;
    let drained = began.elapsed() - opened;
    assert_eq!(sink.cell(&TAKEN).await.expect("reads"), Some(messages));
    assert_eq!(sink.waiting(), 0);
    system.shutdown(Duration::from_secs(60)).await.expect("ends");
    let rss = peak_mib();
    let (opened, drained) = (opened.as_millis(), drained.as_millis());
    child::say(&format!("opened in {opened} ms, drained in {drained} ms, rss_mib max={rss}"));
    assert!(rss < MOST_MIB, "took {rss} MiB");
}
