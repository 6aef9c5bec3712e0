//! Topics: how fast events are published and handled, how much disk they take, and how fast a late subscriber catches up.
//!
//! `cargo bench -p steadfast-benches --bench topics -- --json FILE`, with `--quick` for a short form, `--only ROW` for some rows
//! (`--only publish`, `--only catch-up`, `--only retention`), and `-- 1000000` for another number of events to catch up than 5 M.
//!
//! - **publish**: 256 tasks publish events of about 200 B, each waiting until its event is on disk, to a topic with so many durable
//!   subscribers, which do nothing with them. `handled_per_s` counts each event once for each subscriber, up to the moment when the
//!   last has handled all. `journal_bytes` is what was written to the journal for each event, `disk_bytes` by how much the store is
//!   larger after it was closed than one without events, `of_allowed` that divided by 1.3 × (payload + 40 B). Files grow by 16 MiB:
//!   of few events it says nothing.
//! - **catch-up**: the events wait in a closed store, which a process of its own opens and reads from the earliest on, one by one
//!   and in batches of 256. The order is checked. `rss_mib_over` is the most memory it had over what it had before the open.
//! - **retention**: three and nine times as many bytes are published as are kept; `disk_of_kept` is the size of the closed store
//!   without what an empty one has, for a byte that the topic says it holds, and `again_of_kept` the same after one more open and close.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, BatchHandler, Context, Failure, Handler, Item, Message, Outcomes, Retention, StartFrom, State,
    System, Topic,
};
use steadfast_benches::args::{self, Args};
use steadfast_benches::report::{Comparison, Report, Row, Target};
use steadfast_benches::slice::{self, Pace};
use steadfast_benches::watch::Watch;
use steadfast_benches::{Outcome, child, usage};

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
    fn state() -> State<Self> {
        State::cells()
    }
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
    fn state() -> State<Self> {
        State::cells()
    }
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

/// Opens a store with a topic, and so many who read it from now on.
async fn open(
    store: &Path,
    watch: &Arc<Watch>,
    subscribers: u64,
) -> Outcome<(System, Topic<Tick>, Vec<Arc<Seen>>)> {
    let system = System::builder().observer(watch.clone()).open(store).await?;
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

async fn publish(subscribers: u64, time: Duration, report: &mut Report) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let (empty, store) = (directory.path().join("empty"), directory.path().join("store"));
    let (system, ..) = open(&empty, &Watch::new(), subscribers).await?;
    system.shutdown(LONG).await?;
    let watch = Watch::new();
    let (system, topic, all) = open(&store, &watch, subscribers).await?;
    let before = watch.journal_bytes();
    let sender = |_, mut pace: Pace| {
        let topic = topic.clone();
        async move {
            // the number says nothing of the order here
            while let Some(begun) = pace.begin() {
                assert!(topic.publish(tick(1 << 20)).await.is_ok(), "the event is published");
                pace.done(begun);
            }
            pace
        }
    };
    let began = Instant::now();
    let slice = slice::run(PUBLISHERS as usize, time, 1, sender, async {}).await;
    for seen in &all {
        seen.wait_for(slice.count).await;
    }
    let handled = began.elapsed();
    drop(topic);
    system.shutdown(LONG).await?;
    let journal = (watch.journal_bytes() - before) as f64 / slice.count as f64;
    let disk = (usage::disk_bytes(&store) as f64 - usage::disk_bytes(&empty) as f64) / slice.count as f64;
    let row = Row {
        name: format!("publish to {subscribers} subscribers, steadfast"),
        means: "returned: on disk, synced; every durable subscription will get it".into(),
        msgs_per_s: Some(slice.rate()),
        p50_us: Some(slice.latencies.percentile_us(0.5)),
        p99_us: Some(slice.latencies.percentile_us(0.99)),
        cpu_us_per_msg: Some(slice.cpu_us()),
        ..Row::default()
    };
    let row = row
        .with("events", slice.count as f64)
        .with("handled_per_s", (slice.count * subscribers) as f64 / handled.as_secs_f64())
        .with("checkpoints", watch.checkpoints() as f64)
        .with("journal_bytes", journal)
        .with("disk_bytes", disk)
        .with("of_allowed", disk / (FACTOR * (PAYLOAD + OVERHEAD) as f64));
    report.row(&row)
}

/// Fills a store and has processes of their own read it.
async fn catch_up(events: u64, report: &mut Report) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let store = directory.path().join("store");
    let (system, topic, _) = open(&store, &Watch::new(), 0).await?;
    let began = Instant::now();
    publish_chunks(&topic, events).await?;
    let filled = began.elapsed();
    drop(topic);
    system.shutdown(LONG).await?;
    let row = Row {
        name: format!("publish {CHUNK} events in one commit, steadfast"),
        means: "returned: on disk, synced".into(),
        msgs_per_s: Some(events as f64 / filled.as_secs_f64()),
        ..Row::default()
    };
    let disk = usage::disk_bytes(&store) as f64 / f64::from(1 << 20);
    report.row(&row.with("events", events as f64).with("disk_mib", disk))?;
    for (batch, name) in [(1, "one by one"), (BATCH, "in batches of 256")] {
        let store = store.to_str().unwrap_or_default();
        let figures = child::run(&["read", store, &events.to_string(), &batch.to_string()])?;
        let get = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
        let row = Row {
            name: format!("catch-up {name}, steadfast"),
            means: "handled in order from the earliest on; its place is stored with each turn".into(),
            msgs_per_s: Some(get("msgs_per_s")),
            cpu_us_per_msg: Some(get("cpu_us_per_msg")),
            ..Row::default()
        };
        let target = if batch == 1 { Target::AtLeast(1.0) } else { Target::None };
        let ratio = get("msgs_per_s") / 1e6;
        let comparison = Comparison { against: "1 M events/s".into(), of: "msgs_per_s", ratio, target };
        let row = row.with("events", events as f64).with("open_ms", get("open_ms"));
        report.row(&row.with("rss_mib_over", get("rss_mib_over")).compared(comparison))?;
    }
    Ok(())
}

/// What the process of its own does.
async fn read(store: &Path, events: u64, batch: usize) -> Outcome<()> {
    let before = usage::rss_mib();
    let began = Instant::now();
    let system = System::open(store).await?;
    let topic: Topic<Tick> = system.topic("ticks").await?;
    let opened = began.elapsed();
    let seen = Arc::new(Seen::default());
    let shared = seen.clone();
    let (began, cpu) = (Instant::now(), usage::cpu_time());
    if batch == 1 {
        let spawn = system.spawn("single", move || Reader(shared.clone()));
        spawn.subscribe(&topic, StartFrom::Earliest).await?;
    } else {
        let spawn = system.spawn("batched", move || BatchReader(shared.clone()));
        spawn.batch(batch, Duration::ZERO).subscribe(&topic, StartFrom::Earliest).await?;
    }
    seen.wait_for(events).await;
    let (took, cpu) = (began.elapsed(), usage::cpu_time() - cpu);
    let peak = usage::peak_mib();
    if seen.out_of_order.load(Ordering::Relaxed) > 0 {
        return Err("events came out of order".into());
    }
    drop(topic);
    system.shutdown(LONG).await?;
    child::say(&[
        ("msgs_per_s", events as f64 / took.as_secs_f64()),
        ("cpu_us_per_msg", cpu.as_secs_f64() * 1e6 / events as f64),
        ("open_ms", opened.as_secs_f64() * 1e3),
        ("rss_mib_over", peak - before),
    ])
}

async fn retention(kept: u64, times: u64, report: &mut Report) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let (empty, store) = (directory.path().join("empty"), directory.path().join("store"));
    let (system, ..) = open(&empty, &Watch::new(), 0).await?;
    system.shutdown(LONG).await?;
    let system = System::open(&store).await?;
    let topic: Topic<Tick> = system.topic("ticks").retention(Retention::forever().bytes(kept)).await?;
    let events = times * kept / PAYLOAD as u64;
    let began = Instant::now();
    publish_chunks(&topic, events).await?;
    let published = began.elapsed();
    let mut info = topic.info().await?;
    while info.bytes > kept && began.elapsed() < published + LONG {
        tokio::time::sleep(Duration::from_millis(50)).await;
        info = topic.info().await?;
    }
    let trimmed = began.elapsed() - published;
    drop(topic);
    system.shutdown(LONG).await?;
    let grown = || usage::disk_bytes(&store) as f64 - usage::disk_bytes(&empty) as f64;
    let disk = grown();
    System::open(&store).await?.shutdown(LONG).await?;
    let row = Row {
        name: format!("retention, {times} times what is kept, steadfast"),
        means: format!("{CHUNK} events in one commit, on disk, synced; {} MiB are kept", kept >> 20),
        msgs_per_s: Some(events as f64 / published.as_secs_f64()),
        ..Row::default()
    };
    let row = row
        .with("kept_mib", info.bytes as f64 / f64::from(1 << 20))
        .with("then_trimmed_s", trimmed.as_secs_f64())
        .with("disk_of_kept", disk / info.bytes as f64)
        .with("again_of_kept", grown() / info.bytes as f64);
    report.row(&row)
}

async fn all(args: &Args) -> Outcome<()> {
    let mut report = Report::new("topics", args)?;
    let time = Duration::from_secs(if args.quick { 1 } else { 5 });
    for subscribers in [0, 1, 10, 100] {
        if args.wants(&format!("publish to {subscribers} subscribers, steadfast")) {
            publish(subscribers, time, &mut report).await?;
        }
    }
    if args.wants("catch-up one by one in batches of 256, steadfast") {
        let usual = if args.quick { 500_000 } else { 5_000_000 };
        catch_up(args.number().unwrap_or(usual), &mut report).await?;
    }
    for times in [3, 9] {
        if args.wants(&format!("retention, {times} times what is kept, steadfast")) {
            retention(if args.quick { 8 << 20 } else { 64 << 20 }, times, &mut report).await?;
        }
    }
    report.end();
    Ok(())
}

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["read", store, events, batch] => {
            let runtime = args::runtime(Args::default().cores())?;
            runtime.block_on(read(Path::new(store), events.parse()?, batch.parse()?))
        }
        _ => {
            let args = Args::of_process()?;
            args.runtime()?.block_on(all(&args))
        }
    }
}
