//! Topics: how fast events are published and handled, how much disk they take, and how fast a late subscriber catches up.
//!
//! `cargo bench --bench topics`, with `-- --quick` for a short form, `-- publish`, `-- catch-up` or `-- retention` for one part
//! alone, `-- publish 10` for one number of subscribers, and `-- catch-up 5000000` for another number of events than 1 000 000.
//!
//! - **publish**: 256 tasks publish events of about 200 B, each waiting until its event is on disk, to a topic with so many durable
//!   subscribers, which do nothing with them. `handled/s` counts each event once for each subscriber, up to the moment when the
//!   last has handled all. `journal B` is what was written to the journal for each event, `disk B` by how much the store is larger
//!   after it was closed than one without events, `of target` that divided by 1.3 × (payload + 40 B). Files grow by 16 MiB: of few
//!   events it says nothing.
//! - **catch-up**: the events wait in a closed store, which a process of its own opens and reads from the earliest on, one by one
//!   and in batches of 256. The order is checked. `before` is the process's memory when the store is open, `peak` the most it had.
//! - **retention**: three and nine times as many bytes are published as are kept; `disk` is the size of the closed store without
//!   what an empty one has, `kept` what the topic says that it holds. `again`: the same after one more open and close.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, BatchHandler, Context, Event, Failure, Handler, Item, Message, Observer, Outcomes, Retention,
    StartFrom, System, Topic,
};

const PUBLISHERS: u64 = 256;
/// Bytes of one event, as encoded.
const PAYLOAD: usize = 200;
/// Bytes that an event may take on disk beyond its payload, before the factor.
const OVERHEAD: usize = 40;
const FACTOR: f64 = 1.3;
/// Events of one commit where single ones are not what is measured.
const CHUNK: u64 = 500;
const BATCH: usize = 256;
const LONG: Duration = Duration::from_secs(120);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Serialize, Deserialize)]
struct Tick {
    number: u64,
    text: String,
}

impl Message for Tick {
    type Reply = ();
    const NAME: &'static str = "bench.tick";
}

fn tick(number: u64) -> Tick {
    Tick { number, text: "x".repeat(PAYLOAD - 4) }
}

/// What a subscriber saw, for those who wait for it.
#[derive(Default)]
struct Seen {
    handled: AtomicU64,
    out_of_order: AtomicU64,
}

impl Seen {
    fn note(&self, number: u64) {
        if self.handled.fetch_add(1, Ordering::Relaxed) != number {
            self.out_of_order.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn wait_for(&self, count: u64) {
        while self.handled.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Handles events one by one.
struct Reader(Arc<Seen>);

impl Actor for Reader {
    const NAME: &'static str = "bench.reader";
    type Messages = (Tick,);
}

impl Handler<Tick> for Reader {
    async fn handle(&mut self, tick: Tick, _: &mut Context<Self>) -> Result<(), Failure> {
        self.0.note(tick.number);
        Ok(())
    }
}

/// Handles them in batches.
struct BatchReader(Arc<Seen>);

impl Actor for BatchReader {
    const NAME: &'static str = "bench.batch-reader";
    type Messages = (Tick,);
}

impl BatchHandler<Tick> for BatchReader {
    async fn handle_batch(
        &mut self,
        batch: Vec<Item<Tick>>,
        _: &mut Context<Self>,
    ) -> Result<Outcomes<Tick>, Failure> {
        batch.iter().for_each(|item| self.0.note(item.message.number));
        Ok(batch.iter().map(|_| Ok(())).collect())
    }
}

/// Counts what is written to the journal.
#[derive(Default)]
struct Written(AtomicU64);

impl Observer for Written {
    fn event(&self, event: &Event<'_>) {
        if let Event::GroupSynced { bytes, .. } = event {
            self.0.fetch_add(*bytes, Ordering::Relaxed);
        }
    }
}

/// Opens a store with a topic, and so many who read it from now on.
async fn open(
    store: &Path,
    written: &Arc<Written>,
    subscribers: u64,
) -> Outcome<(System, Topic<Tick>, Vec<Arc<Seen>>)> {
    let system = System::builder().observer(written.clone()).open(store).await?;
    let topic: Topic<Tick> = system.topic("ticks").await?;
    let mut all = Vec::new();
    for number in 0..subscribers {
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let spawn = system.spawn(format!("reader-{number}"), move || Reader(shared.clone()));
        spawn.subscribe(&topic, StartFrom::Earliest).await?;
        all.push(seen);
    }
    Ok((system, topic, all))
}

/// Publishes from many tasks; `number` says nothing of the order here.
async fn publish_each(topic: &Topic<Tick>, events: u64) -> Outcome<()> {
    let publisher = |publisher| {
        let topic = topic.clone();
        async move {
            for _ in (publisher..events).step_by(PUBLISHERS as usize) {
                topic.publish(tick(1 << 20)).await.expect("is published");
            }
        }
    };
    let publishers: Vec<_> = (0..PUBLISHERS).map(|number| tokio::spawn(publisher(number))).collect();
    for publisher in publishers {
        publisher.await?;
    }
    Ok(())
}

/// Publishes in order, many at once.
async fn publish_chunks(topic: &Topic<Tick>, events: u64) -> Outcome<()> {
    let mut next = 0;
    while next < events {
        let end = events.min(next + CHUNK);
        topic.publish_all((next..end).map(tick)).await.map_err(|_| "a chunk was not published")?;
        next = end;
    }
    Ok(())
}

async fn publish(subscribers: u64, events: u64) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let (empty, store) = (directory.path().join("empty"), directory.path().join("store"));
    let (system, ..) = open(&empty, &Arc::default(), subscribers).await?;
    system.shutdown(LONG).await?;
    let written = Arc::new(Written::default());
    let (system, topic, all) = open(&store, &written, subscribers).await?;
    let before = written.0.load(Ordering::Relaxed);
    let began = Instant::now();
    publish_each(&topic, events).await?;
    let published = began.elapsed();
    for seen in &all {
        seen.wait_for(events).await;
    }
    let handled = began.elapsed();
    drop(topic);
    system.shutdown(LONG).await?;
    let journal = written.0.load(Ordering::Relaxed) - before;
    let disk = size(&store) as f64 - size(&empty) as f64;
    let each = disk / events as f64;
    println!(
        "{subscribers:>11} | {events:>8} | {:>11.0} | {:>9.0} | {:>9.0} | {each:>6.0} | {:>9.2}",
        events as f64 / published.as_secs_f64(),
        (events * subscribers) as f64 / handled.as_secs_f64(),
        journal as f64 / events as f64,
        each / (FACTOR * (PAYLOAD + OVERHEAD) as f64),
    );
    Ok(())
}

/// Fills a store and has processes of their own read it.
async fn catch_up(events: u64) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let store = directory.path().join("store");
    let (system, topic, _) = open(&store, &Arc::default(), 0).await?;
    let began = Instant::now();
    publish_chunks(&topic, events).await?;
    let filled = began.elapsed();
    drop(topic);
    system.shutdown(LONG).await?;
    let mib = size(&store) >> 20;
    println!(
        "filled in chunks of {CHUNK}: {:.0} events/s, {mib} MiB on disk",
        events as f64 / filled.as_secs_f64()
    );
    println!("handler | batch |   events | open ms |  events/s | MiB before | MiB peak");
    for batch in [1, BATCH] {
        let mut child = Command::new(std::env::current_exe()?);
        child.arg("read").arg(&store).arg(events.to_string()).arg(batch.to_string());
        let done = child.stdout(Stdio::inherit()).status()?;
        if !done.success() {
            return Err(format!("the reading process ended with {done}").into());
        }
    }
    Ok(())
}

/// What the process of its own does.
async fn read(store: &Path, events: u64, batch: usize) -> Outcome<()> {
    let began = Instant::now();
    let system = System::open(store).await?;
    let topic: Topic<Tick> = system.topic("ticks").await?;
    let opened = began.elapsed();
    let before = memory_mib("VmRSS:");
    let seen = Arc::new(Seen::default());
    let shared = seen.clone();
    let began = Instant::now();
    let handler = if batch == 1 {
        let spawn = system.spawn("single", move || Reader(shared.clone()));
        spawn.subscribe(&topic, StartFrom::Earliest).await?;
        "single"
    } else {
        let spawn = system.spawn("batched", move || BatchReader(shared.clone()));
        spawn.batch(batch, Duration::ZERO).subscribe(&topic, StartFrom::Earliest).await?;
        "batched"
    };
    seen.wait_for(events).await;
    let took = began.elapsed();
    let peak = memory_mib("VmHWM:");
    println!(
        "{handler:>7} | {batch:>5} | {events:>8} | {:>7.0} | {:>9.0} | {before:>10} | {peak:>8}",
        opened.as_secs_f64() * 1e3,
        events as f64 / took.as_secs_f64(),
    );
    assert_eq!(seen.out_of_order.load(Ordering::Relaxed), 0, "events came out of order");
    drop(topic);
    system.shutdown(LONG).await?;
    Ok(())
}

async fn retention(kept: u64, times: u64) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let (empty, store) = (directory.path().join("empty"), directory.path().join("store"));
    let (system, ..) = open(&empty, &Arc::default(), 0).await?;
    system.shutdown(LONG).await?;
    let system = System::open(&store).await?;
    let topic: Topic<Tick> = system.topic("ticks").retention(Retention::forever().bytes(kept)).await?;
    let began = Instant::now();
    publish_chunks(&topic, times * kept / PAYLOAD as u64).await?;
    let published = began.elapsed();
    let mut info = topic.info().await?;
    while info.bytes > kept && began.elapsed() < published + LONG {
        tokio::time::sleep(Duration::from_millis(50)).await;
        info = topic.info().await?;
    }
    let trimmed = began.elapsed() - published;
    drop(topic);
    system.shutdown(LONG).await?;
    let grown = || (size(&store) as f64 - size(&empty) as f64) / f64::from(1 << 20);
    let disk = grown();
    System::open(&store).await?.shutdown(LONG).await?;
    println!(
        "{:>9} | {times:>5} | {:>8.1} | {:>11.1} | {:>14.1} | {disk:>8.1} | {:>9.1} | {:>11.2}",
        kept >> 20,
        info.bytes as f64 / f64::from(1 << 20),
        published.as_secs_f64(),
        trimmed.as_secs_f64(),
        grown(),
        disk * f64::from(1 << 20) / info.bytes as f64,
    );
    Ok(())
}

/// A line of what the kernel says of this process, in MiB; 0 where it does not say.
fn memory_mib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn size(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

async fn parts(words: &[String], quick: bool) -> Outcome<()> {
    let asked = words.iter().find_map(|word| word.parse().ok());
    let parts = ["publish", "catch-up", "retention"];
    let all = !words.iter().any(|word| parts.contains(&word.as_str()));
    let wants = |part: &str| all || words.iter().any(|word| word == part);
    if wants("publish") {
        println!("subscribers |   events | published/s | handled/s | journal B | disk B | of target");
        for (subscribers, events) in [(0, 1_000_000), (1, 1_000_000), (10, 500_000), (100, 250_000)] {
            if asked.is_some_and(|asked| asked != subscribers && !all) {
                continue;
            }
            publish(subscribers, if quick { events / 20 } else { events }).await?;
        }
    }
    if wants("catch-up") {
        catch_up(asked.unwrap_or(if quick { 100_000 } else { 1_000_000 })).await?;
    }
    if wants("retention") {
        println!(
            "limit MiB | times | kept MiB | published s | then trimmed s | disk MiB | again MiB | disk / kept"
        );
        for times in [3, 9] {
            retention(if quick { 8 << 20 } else { 64 << 20 }, times).await?;
        }
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|word| word == "--quick");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match words.as_slice() {
            [role, store, events, batch] if role == "read" => {
                read(Path::new(store), events.parse()?, batch.parse()?).await
            }
            _ => parts(&words, quick).await,
        }
    })
}
