//! Durable sends and full cycles (send, durable, handled with a state change, ack durable) against a plain log with group
//! commit: the ceiling. Both run in turn, several times; what counts are the ratios of the medians.
//!
//! `cargo bench --bench durable`, with `-- --quick` for a short form.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use steadfast::{Actor, ActorRef, Cell, Context, Failure, Handler, Message, System};
use tokio::sync::oneshot;

const ACTORS: usize = 64;
/// Bytes of one message, roughly.
const PAYLOAD: usize = 256;

#[derive(Serialize, Deserialize, Clone)]
struct Add {
    text: String,
}

impl Message for Add {
    type Reply = ();
    const NAME: &'static str = "bench.add";
}

const COUNT: Cell<u64> = Cell::new("count", 1);

struct Counter;

impl Actor for Counter {
    const NAME: &'static str = "counter";
    type Messages = (Add,);
}

impl Handler<Add> for Counter {
    async fn handle(&mut self, _: Add, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let count = ctx.state().get(&COUNT)?.unwrap_or(0);
        Ok(ctx.state().set(&COUNT, &(count + 1))?)
    }
}

/// What one run of one side came to.
#[derive(Debug, Clone, Copy)]
struct Figures {
    send_per_s: f64,
    cycle_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

/// A log that is pre-written, recycled by starting over, and synced once for all who wait.
struct RawLog {
    records: mpsc::SyncSender<(Vec<u8>, oneshot::Sender<()>)>,
}

impl RawLog {
    fn start(path: &Path) -> std::io::Result<RawLog> {
        const SEGMENT: usize = 16 << 20;
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        file.write_all(&vec![0; SEGMENT])?;
        file.sync_all()?;
        let (records, queue) = mpsc::sync_channel::<(Vec<u8>, oneshot::Sender<()>)>(1 << 16);
        std::thread::spawn(move || {
            let (mut offset, mut group) = (0, Vec::new());
            while let Ok(first) = queue.recv() {
                let mut waiting = vec![first];
                waiting.extend(std::iter::from_fn(|| queue.try_recv().ok()));
                group.clear();
                for (record, _) in &waiting {
                    group.extend_from_slice(&(record.len() as u32).to_be_bytes());
                    group.extend_from_slice(record);
                }
                group.extend_from_slice(&crc32fast::hash(&group).to_be_bytes());
                if offset + group.len() > SEGMENT {
                    offset = 0;
                }
                write_at(&file, &group, offset as u64);
                offset += group.len();
                for (_, waiter) in waiting {
                    let _ = waiter.send(());
                }
            }
        });
        Ok(RawLog { records })
    }

    async fn append(&self, record: Vec<u8>) {
        let (sender, synced) = oneshot::channel();
        if self.records.send((record, sender)).is_ok() {
            let _ = synced.await;
        }
    }
}

fn write_at(file: &File, bytes: &[u8], offset: u64) {
    use std::os::unix::fs::FileExt;
    file.write_all_at(bytes, offset).expect("the log can be written");
    file.sync_data().expect("the log can be synced");
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, scale) = if quick { (1, 10) } else { (5, 1) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    println!(
        "{:>8}  {:<10} {:>12} {:>12} {:>9} {:>9}",
        "senders", "side", "send/s", "cycle/s", "p50 µs", "p99 µs"
    );
    for (senders, each) in [(1, 4_000), (16, 4_000), (256, 1_000), (4_096, 100)] {
        let each = (each / scale).max(10);
        let (mut ours, mut raw) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            raw.push(runtime.block_on(run_raw(senders, each)));
            ours.push(runtime.block_on(run_ours(senders, each)));
        }
        let (ours, raw) = (median(&ours), median(&raw));
        for (side, figures) in [("raw log", raw), ("steadfast", ours)] {
            let Figures { send_per_s, cycle_per_s, p50_us, p99_us } = figures;
            println!(
                "{senders:>8}  {side:<10} {send_per_s:>12.0} {cycle_per_s:>12.0} {p50_us:>9.0} {p99_us:>9.0}"
            );
        }
        println!(
            "{senders:>8}  ratio      {:>12.2} {:>12.2} {:>9.2} {:>9.2}",
            ours.send_per_s / raw.send_per_s,
            ours.cycle_per_s / raw.cycle_per_s,
            ours.p50_us / raw.p50_us,
            ours.p99_us / raw.p99_us
        );
    }
}

fn median(runs: &[Figures]) -> Figures {
    let middle = |of: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        send_per_s: middle(|run| run.send_per_s),
        cycle_per_s: middle(|run| run.cycle_per_s),
        p50_us: middle(|run| run.p50_us),
        p99_us: middle(|run| run.p99_us),
    }
}

/// A send is one record; a full cycle is two, the message and its ack.
async fn run_raw(senders: usize, each: usize) -> Figures {
    let directory = tempfile::tempdir().expect("a directory");
    let log = std::sync::Arc::new(RawLog::start(&directory.path().join("log")).expect("a log"));
    let began = Instant::now();
    let sends = in_parallel(senders, each, |_| {
        let log = log.clone();
        move || {
            let log = log.clone();
            async move { log.append(vec![7; PAYLOAD]).await }
        }
    });
    let latencies = sends.await;
    let sent = began.elapsed();
    let acks = in_parallel(senders, each, |_| {
        let log = log.clone();
        move || {
            let log = log.clone();
            async move { log.append(vec![7; 16]).await }
        }
    });
    acks.await;
    figures(senders * each, sent, began.elapsed(), latencies)
}

async fn run_ours(senders: usize, each: usize) -> Figures {
    let directory = tempfile::tempdir().expect("a directory");
    let system = System::open(directory.path()).await.expect("opens");
    let mut actors: Vec<ActorRef<Counter>> = Vec::new();
    for index in 0..ACTORS {
        actors.push(system.spawn(format!("counter-{index}"), || Counter).await.expect("spawns"));
    }
    let began = Instant::now();
    let sends = in_parallel(senders, each, |sender| {
        let actor = actors[sender % ACTORS].clone();
        move || {
            let actor = actor.clone();
            async move {
                actor.tell(Add { text: "x".repeat(PAYLOAD - 60) }).await.expect("is accepted");
            }
        }
    });
    let latencies = sends.await;
    let sent = began.elapsed();
    for actor in &actors {
        actor.drain().await;
    }
    let cycled = began.elapsed();
    let mut handled = 0;
    for actor in &actors {
        handled += actor.cell(&COUNT).await.expect("reads").unwrap_or(0);
    }
    assert_eq!(handled, (senders * each) as u64, "every message was handled once");
    system.shutdown(Duration::from_secs(30)).await.expect("closes");
    figures(senders * each, sent, cycled, latencies)
}

async fn in_parallel<F, Fut>(senders: usize, each: usize, sender: impl Fn(usize) -> F) -> Vec<Duration>
where
    F: Fn() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let tasks: Vec<_> = (0..senders)
        .map(|index| {
            let send = sender(index);
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(each);
                for _ in 0..each {
                    let began = Instant::now();
                    send().await;
                    latencies.push(began.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut all = Vec::with_capacity(senders * each);
    for task in tasks {
        all.extend(task.await.expect("a sender ends"));
    }
    all
}

fn figures(count: usize, sent: Duration, cycled: Duration, mut latencies: Vec<Duration>) -> Figures {
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    Figures {
        send_per_s: count as f64 / sent.as_secs_f64(),
        cycle_per_s: count as f64 / cycled.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
    }
}
