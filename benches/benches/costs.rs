//! How cost grows: with the size of a message, the number of actors, what waits, and the number of processors. docs/costs.md has the
//! tables.
//!
//! `cargo bench -p steadfast-benches --bench costs -- --json FILE`, with `--quick` for a short form, `--only ROW` for some rows and
//! `--cores N` for the number of workers of all rows but those that vary it.
//!
//! 256 senders tell so many actors, each waiting until its message is on disk; the time ends when all are handled, and their acks
//! and new states are on disk. 256 B, 64 actors and nothing waiting where a row does not say otherwise.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use steadfast::Address;
use steadfast_benches::args::{self, Args};
use steadfast_benches::durable::{Add, Counter, Counters, Handled, USUAL_SEGMENT};
use steadfast_benches::peers::raw_log::RawLog;
use steadfast_benches::report::{Comparison, Report, Row, Target};
use steadfast_benches::rounds::{Of, Plan, Side, interleave};
use steadfast_benches::slice::{self, Pace, Slice};
use steadfast_benches::{ACTORS, Outcome, PAYLOAD};

const SENDERS: usize = 256;

/// One row: what differs from the usual.
#[derive(Debug, Clone, Copy)]
struct Shape {
    bytes: usize,
    actors: usize,
    /// Messages in mailboxes that nobody reads.
    waiting: u64,
    cores: usize,
}

async fn tell_ours(counters: &Counters, bytes: usize, time: Duration) -> Slice {
    let actors = &counters.actors;
    // each sender goes through actors of its own, so that all have mail however many there are
    let sender = |index: usize, mut pace: Pace| {
        let own: Vec<_> = actors.iter().skip(index % actors.len()).step_by(SENDERS).cloned().collect();
        async move {
            for actor in own.iter().cycle() {
                let Some(begun) = pace.begin() else { break };
                assert!(actor.tell(Add::of(bytes)).await.is_ok(), "the message is taken");
                pace.done(begun);
            }
            pace
        }
    };
    let last = async { counters.all_handled().await.expect("all is handled") };
    slice::run(SENDERS, time, 1, sender, last).await
}

/// A record for each message and one for its ack, as in the cycle of the durable bench.
async fn cycle_log(log: &Arc<RawLog>, bytes: usize, time: Duration) -> Slice {
    let body: Arc<[u8]> = vec![7; bytes].into();
    let sender = |_: usize, mut pace: Pace| {
        let (log, body) = (log.clone(), body.clone());
        async move {
            while let Some(begun) = pace.begin() {
                assert!(log.append(|out| out.extend_from_slice(&body)).await, "the log is written");
                pace.done(begun);
                assert!(log.append(|out| out.extend_from_slice(&[7; 16])).await, "the log is written");
            }
            pace
        }
    };
    slice::run(SENDERS, time, 1, sender, async {}).await
}

/// Has so many messages wait in 64 mailboxes that are not the actors'.
async fn leave_waiting(counters: &Counters, waiting: u64) -> Outcome<()> {
    const CHUNK: u64 = 500;
    for index in 0..ACTORS as u64 {
        let address = Address::<Counter>::new(format!("waiting-{index}"))?;
        let mailbox = counters.system.bind(&address).await?;
        let mut left = waiting / ACTORS as u64;
        while left > 0 {
            let some = left.min(CHUNK);
            mailbox.tell_all((0..some).map(|_| Add::of(PAYLOAD))).await.map_err(|why| why.to_string())?;
            left -= some;
        }
    }
    Ok(())
}

async fn measure(name: &str, shape: Shape, plan: Plan, report: &mut Report) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir(at("log"))?;
    let log = Arc::new(RawLog::start(&at("log"))?);
    let counters = open(&at("store"), shape.actors).await?;
    leave_waiting(&counters, shape.waiting).await?;
    let sides = vec![
        Side::new("raw log", |time| cycle_log(&log, shape.bytes, time)),
        Side::new("steadfast", |time| tell_ours(&counters, shape.bytes, time)),
    ];
    let measured = interleave(plan, sides).await;
    let (theirs, ours) = (&measured[0], &measured[1]);
    let means = "returned: on disk, synced. the end: all handled, acks on disk, synced";
    report.row(&Row::of(name, theirs, means))?;
    let row = Row::of(name, ours, means)
        .with("written_bytes_per_msg", ours.written_each())
        .with("mib_per_s", ours.rate() * shape.bytes as f64 / f64::from(1 << 20))
        .with("checkpoints", counters.watch.checkpoints() as f64)
        .compared(Comparison::between(ours, theirs, Of::Rate, Target::None));
    report.row(&row)?;
    counters.close().await
}

async fn open(store: &Path, actors: usize) -> Outcome<Counters> {
    Counters::open(store, actors, Handled::Yes, USUAL_SEGMENT).await
}

fn shapes(args: &Args) -> Vec<(String, Shape)> {
    let usual = Shape { bytes: PAYLOAD, actors: ACTORS, waiting: 0, cores: args.cores() };
    let mut all = Vec::new();
    for bytes in [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10] {
        all.push((format!("{bytes} B a message"), Shape { bytes, ..usual }));
    }
    for actors in [1, 10, 100, 1_000, 10_000, 100_000] {
        if !args.quick || actors <= 10_000 {
            all.push((format!("{actors} actors"), Shape { actors, ..usual }));
        }
    }
    for waiting in [0, 10_000, 100_000, 1_000_000] {
        if !args.quick || waiting <= 100_000 {
            all.push((format!("{waiting} others waiting"), Shape { waiting, ..usual }));
        }
    }
    for cores in (0..).map(|power| 1 << power).take_while(|cores| *cores <= Args::default().cores().max(2)) {
        all.push((format!("{cores} workers"), Shape { cores, ..usual }));
    }
    all
}

fn main() -> Outcome<()> {
    let args = Args::of_process()?;
    let plan = if args.quick {
        Plan { rounds: 3, slice: Duration::from_millis(150) }
    } else {
        Plan { rounds: 5, slice: Duration::from_millis(700) }
    };
    let mut report = Report::new("costs", &args)?;
    for (name, shape) in shapes(&args) {
        if args.wants(&format!("{name}, steadfast")) {
            args::runtime(shape.cores)?.block_on(measure(&name, shape, plan, &mut report))?;
        }
    }
    report.end();
    Ok(())
}
