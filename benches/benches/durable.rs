//! Durable sends and full cycles, beside a plain log with group commit (the ceiling), sled, SQLite, and an actor library with an
//! outbox made by hand.
//!
//! `cargo bench -p steadfast-benches --bench durable -- --json FILE`, with `--quick` for a short form and `--only ROW` for some rows.
//!
//! - **send**: so many senders, each waiting until its message is on disk, synced. Nobody handles it, and it stays: steadfast moves
//!   it to its engine meanwhile, the databases keep it, the log writes over it.
//! - **cycle**: each sender waits until its message was handled by one of 64 actors and the acknowledgement and the new state are
//!   on disk, and then sends the next. On the log that is a record for the message, synced, and one for the acknowledgement with
//!   the state, synced, by the same task: nothing is handed over, so this is faster than any actor on that log could be.
//! - **tell**: each sender waits only until its message is on disk; the actors handle meanwhile, and the time ends when all
//!   messages of all senders are handled and acknowledged durably. On the log the sender hands the message to its actor's task,
//!   which appends all acknowledgements it has at once.
//! - **ask**: one asks and waits for the reply, which comes when what its handler stored is on disk, against one record on the log.
//!
//! Each side stays open for all rounds, so its checkpoints are in its figures; how many steadfast completed after warming up is in
//! the row, and how many messages a sync carried. There are at least five rounds, and more, up to three times as many, until three
//! checkpoints were completed; with one sender, and in the short form, segments are small, so that there are any.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use steadfast_benches::args::Args;
use steadfast_benches::durable::{Add, Counters, Handled, SMALL_SEGMENT, USUAL_SEGMENT};
use steadfast_benches::peers::outbox::Outbox;
use steadfast_benches::peers::raw_log::RawLog;
use steadfast_benches::peers::sled::{Op, SledQueue};
use steadfast_benches::peers::sqlite::SqliteQueue;
use steadfast_benches::report::{Comparison, Report, Row, Target};
use steadfast_benches::rounds::{Measured, Of, Plan, Side, interleave_until};
use steadfast_benches::slice::{self, Pace, Slice};
use steadfast_benches::{ACTORS, Outcome, PAYLOAD};
use tokio::sync::mpsc;

/// How many of these a row has at least, if the time allows.
const CHECKPOINTS: u64 = 3;
const SENDERS: [usize; 4] = [1, 16, 256, 4096];

/// What is asked of a ratio of ours: (row, against whom, of what, how much).
const TARGETS: &[(&str, &str, Of, Target)] = &[
    ("send 1 sender", "raw log", Of::P50, Target::AtMost(1.15)),
    ("cycle 256 senders", "raw log", Of::Rate, Target::AtLeast(1.0)),
    ("cycle 256 senders", "raw log", Of::P99, Target::AtMost(2.0)),
    ("cycle 256 senders", "sled", Of::Rate, Target::AtLeast(4.0)),
    ("cycle 256 senders", "sqlite", Of::Rate, Target::AtLeast(2.5)),
    ("cycle 4096 senders", "raw log", Of::Rate, Target::AtLeast(0.8)),
    ("cycle 4096 senders", "sled", Of::Rate, Target::AtLeast(12.0)),
    ("ask with a stored effect, 1 sender", "raw log", Of::P50, Target::AtMost(1.2)),
];

/// All that takes part in the rows of one kind and number of senders.
struct Sides {
    senders: usize,
    log: Arc<RawLog>,
    sled: Arc<SledQueue>,
    sqlite: Arc<SqliteQueue>,
    outbox: Arc<Outbox>,
    ours: Counters,
    next: Arc<AtomicU64>,
    body: Arc<[u8]>,
    counts: Arc<[AtomicU64]>,
}

impl Sides {
    async fn open(directory: &Path, senders: usize, handled: Handled, segment: u64) -> Outcome<Self> {
        let at = |name: &str| -> Outcome<std::path::PathBuf> {
            let path = directory.join(name);
            std::fs::create_dir(&path)?;
            Ok(path)
        };
        Ok(Sides {
            senders,
            log: Arc::new(RawLog::start(&at("log")?)?),
            sled: Arc::new(SledQueue::start(&at("sled")?)?),
            sqlite: Arc::new(SqliteQueue::start(&at("sqlite")?)?),
            outbox: Arc::new(Outbox::start(&at("outbox")?, ACTORS)?),
            ours: Counters::open(&at("steadfast")?, ACTORS, handled, segment).await?,
            next: Arc::default(),
            body: vec![7; PAYLOAD].into(),
            counts: (0..ACTORS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().into(),
        })
    }

    /// A send on the log is one record.
    async fn send_log(&self, time: Duration) -> Slice {
        let sender = |_, mut pace: Pace| {
            let (log, body) = (self.log.clone(), self.body.clone());
            async move {
                while let Some(begun) = pace.begin() {
                    assert!(log.append(|out| out.extend_from_slice(&body)).await, "the log is written");
                    pace.done(begun);
                }
                pace
            }
        };
        slice::run(self.senders, time, 1, sender, async {}).await
    }

    async fn cycle_log(&self, time: Duration) -> Slice {
        let sender = |index: usize, mut pace: Pace| {
            let (log, body, counts) = (self.log.clone(), self.body.clone(), self.counts.clone());
            async move {
                while let Some(begun) = pace.begin() {
                    assert!(log.append(|out| out.extend_from_slice(&body)).await, "the log is written");
                    let count = counts[index % ACTORS].fetch_add(1, Ordering::Relaxed);
                    assert!(log.append(|out| ack(out, index, count)).await, "the log is written");
                    pace.done(begun);
                }
                pace
            }
        };
        slice::run(self.senders, time, 1, sender, async {}).await
    }

    /// What a sender handed over when it was durable, its actor's task acknowledges, all that is there in one go.
    async fn tell_log(&self, time: Duration) -> Slice {
        let (mut inlets, mut actors) = (Vec::new(), Vec::new());
        for index in 0..ACTORS {
            let (inlet, mut mail) = mpsc::unbounded_channel::<Arc<[u8]>>();
            inlets.push(inlet);
            let (log, mut count, mut letters) = (self.log.clone(), 0, Vec::new());
            actors.push(tokio::spawn(async move {
                while mail.recv_many(&mut letters, 256).await > 0 {
                    let mut last = None;
                    for letter in letters.drain(..) {
                        std::hint::black_box(&letter);
                        count += 1;
                        last = Some(log.append(|out| ack(out, index, count)));
                    }
                    if let Some(last) = last {
                        assert!(last.await, "the log is written");
                    }
                }
            }));
        }
        // it goes when all senders are started, and their own handles with them: then the tasks end when all is handled
        let sender = move |index: usize, mut pace: Pace| {
            let (log, body) = (self.log.clone(), self.body.clone());
            let actor = inlets[index % ACTORS].clone();
            async move {
                while let Some(begun) = pace.begin() {
                    assert!(log.append(|out| out.extend_from_slice(&body)).await, "the log is written");
                    assert!(actor.send(body.clone()).is_ok(), "the actor's task runs");
                    pace.done(begun);
                }
                pace
            }
        };
        let last = async {
            for actor in actors {
                actor.await.expect("an actor's task comes to its end");
            }
        };
        slice::run(self.senders, time, 1, sender, last).await
    }

    async fn send_ours(&self, time: Duration) -> Slice {
        let sender = |index: usize, mut pace: Pace| {
            let actor = self.ours.actors[index % ACTORS].clone();
            async move {
                while let Some(begun) = pace.begin() {
                    assert!(actor.tell(Add::of(PAYLOAD)).await.is_ok(), "the message is taken");
                    pace.done(begun);
                }
                pace
            }
        };
        slice::run(self.senders, time, 1, sender, async {}).await
    }

    async fn cycle_ours(&self, time: Duration) -> Slice {
        let sender = |index: usize, mut pace: Pace| {
            let actor = self.ours.actors[index % ACTORS].clone();
            async move {
                while let Some(begun) = pace.begin() {
                    assert!(actor.ask(Add::of(PAYLOAD)).await.is_ok(), "the message is handled");
                    pace.done(begun);
                }
                pace
            }
        };
        slice::run(self.senders, time, 1, sender, async {}).await
    }

    async fn receipt_ours(&self, time: Duration) -> Slice {
        let sender = |index: usize, mut pace: Pace| {
            let actor = self.ours.actors[index % ACTORS].clone();
            async move {
                while let Some(begun) = pace.begin() {
                    let Ok(receipt) = actor.tell(Add::of(PAYLOAD)).submit() else {
                        panic!("the message is taken");
                    };
                    assert!(receipt.handled().await.is_ok(), "the message is handled");
                    pace.done(begun);
                }
                pace
            }
        };
        slice::run(self.senders, time, 1, sender, async {}).await
    }

    async fn tell_ours(&self, time: Duration) -> Slice {
        let sender = |index: usize, mut pace: Pace| {
            let actor = self.ours.actors[index % ACTORS].clone();
            async move {
                while let Some(begun) = pace.begin() {
                    assert!(actor.tell(Add::of(PAYLOAD)).await.is_ok(), "the message is taken");
                    pace.done(begun);
                }
                pace
            }
        };
        let last = async { self.ours.all_handled().await.expect("all is handled") };
        slice::run(self.senders, time, 1, sender, last).await
    }

    async fn send_queue<Q: Queue>(&self, queue: &Arc<Q>, time: Duration) -> Slice {
        let sender = |index: usize, mut pace: Pace| {
            let (queue, body, next) = (queue.clone(), self.body.clone(), self.next.clone());
            async move {
                while let Some(begun) = pace.begin() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let put = Op::Put { actor: (index % ACTORS) as u64, number, body: (*body).into() };
                    assert!(queue.add(put).await, "the queue is written");
                    pace.done(begun);
                }
                pace
            }
        };
        slice::run(self.senders, time, 1, sender, async {}).await
    }

    async fn cycle_queue<Q: Queue>(&self, queue: &Arc<Q>, time: Duration) -> Slice {
        let sender = |index: usize, mut pace: Pace| {
            let (queue, body, next) = (queue.clone(), self.body.clone(), self.next.clone());
            let (counts, actor) = (self.counts.clone(), (index % ACTORS) as u64);
            async move {
                while let Some(begun) = pace.begin() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let put = Op::Put { actor, number, body: (*body).into() };
                    assert!(queue.add(put).await, "the queue is written");
                    let count = counts[index % ACTORS].fetch_add(1, Ordering::Relaxed);
                    assert!(queue.add(Op::Ack { actor, number, count }).await, "the queue is written");
                    pace.done(begun);
                }
                pace
            }
        };
        slice::run(self.senders, time, 1, sender, async {}).await
    }

    async fn cycle_outbox(&self, time: Duration) -> Slice {
        let sender = |index: usize, mut pace: Pace| {
            let (outbox, body) = (self.outbox.clone(), self.body.clone());
            async move {
                while let Some(begun) = pace.begin() {
                    assert!(outbox.cycle(index % ACTORS, &body).await, "the outbox is written");
                    pace.done(begun);
                }
                pace
            }
        };
        slice::run(self.senders, time, 1, sender, async {}).await
    }
}

/// An acknowledgement on the log: whose, and the new state.
fn ack(out: &mut Vec<u8>, actor: usize, count: u64) {
    out.extend_from_slice(&(actor as u64).to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
}

/// A table of messages.
trait Queue: Send + Sync + 'static {
    fn add(&self, op: Op) -> steadfast_benches::peers::group::Ticket;
}

impl Queue for SledQueue {
    fn add(&self, op: Op) -> steadfast_benches::peers::group::Ticket {
        SledQueue::add(self, op)
    }
}

impl Queue for SqliteQueue {
    fn add(&self, op: Op) -> steadfast_benches::peers::group::Ticket {
        SqliteQueue::add(self, op)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Send,
    Cycle,
    Tell,
    Ask,
}

impl Kind {
    fn row(self, senders: usize) -> String {
        let many = if senders == 1 { "sender" } else { "senders" };
        match self {
            Kind::Send => format!("send {senders} {many}"),
            Kind::Cycle => format!("cycle {senders} {many}"),
            Kind::Tell => format!("tell {senders} {many}"),
            Kind::Ask => format!("ask with a stored effect, {senders} {many}"),
        }
    }

    fn means(self) -> &'static str {
        match self {
            Kind::Send => "returned: on disk, synced. nobody handles it",
            Kind::Cycle => "returned: handled, its ack and the new state on disk, synced",
            Kind::Tell => "returned: on disk, synced. the end: all handled, acks on disk, synced",
            Kind::Ask => "returned: handled, reply and new state on disk, synced; log: one record synced",
        }
    }

    fn sides(self, sides: &Sides) -> Vec<Side<'_>> {
        let log = |run: Kind| {
            Side::new("raw log", move |time| async move {
                match run {
                    Kind::Send | Kind::Ask => sides.send_log(time).await,
                    Kind::Cycle => sides.cycle_log(time).await,
                    Kind::Tell => sides.tell_log(time).await,
                }
            })
        };
        let ours = |run: Kind| {
            Side::new("steadfast", move |time| async move {
                match run {
                    Kind::Send => sides.send_ours(time).await,
                    Kind::Cycle | Kind::Ask => sides.cycle_ours(time).await,
                    Kind::Tell => sides.tell_ours(time).await,
                }
            })
        };
        let mut all = vec![log(self), ours(self)];
        match self {
            Kind::Send => {
                all.push(Side::new("sled", |time| sides.send_queue(&sides.sled, time)));
                all.push(Side::new("sqlite", |time| sides.send_queue(&sides.sqlite, time)));
            }
            Kind::Cycle => {
                all.push(Side::new("steadfast by receipt", |time| sides.receipt_ours(time)));
                all.push(Side::new("sled", |time| sides.cycle_queue(&sides.sled, time)));
                all.push(Side::new("sqlite", |time| sides.cycle_queue(&sides.sqlite, time)));
                all.push(Side::new("kameo and outbox", |time| sides.cycle_outbox(time)));
            }
            Kind::Tell | Kind::Ask => {}
        }
        all
    }
}

async fn measure(kind: Kind, senders: usize, quick: bool, report: &mut Report) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let handled = if kind == Kind::Send { Handled::No } else { Handled::Yes };
    let segment = if senders == 1 || quick { SMALL_SEGMENT } else { USUAL_SEGMENT };
    let sides = Sides::open(directory.path(), senders, handled, segment).await?;
    let watch = sides.ours.watch.clone();
    // asked first when all have warmed up
    let mut before = None;
    let enough = || {
        let now = (watch.checkpoints(), watch.syncs(), sides.log.syncs());
        now.0 - before.get_or_insert(now).0 >= CHECKPOINTS
    };
    let measured = interleave_until(plan(quick), kind.sides(&sides), enough).await;
    let before = before.unwrap_or_default();
    let (checkpoints, syncs) = (watch.checkpoints() - before.0, watch.syncs() - before.1);
    let log_syncs = sides.log.syncs() - before.2;
    let row = kind.row(senders);
    let ours = |side: &Measured| side.name.starts_with("steadfast");
    for side in &measured {
        let mut shown = Row::of(&row, side, kind.means()).with("written_bytes_per_msg", side.written_each());
        if side.name == "raw log" {
            shown = shown.with("msgs_per_sync", side.count() as f64 / log_syncs.max(1) as f64);
        }
        if ours(side) {
            let messages: u64 = measured.iter().filter(|side| ours(side)).map(Measured::count).sum();
            shown = shown
                .with("checkpoints", checkpoints as f64)
                .with("msgs_per_sync", messages as f64 / syncs.max(1) as f64);
            for other in measured.iter().filter(|other| !ours(other)) {
                for of in [Of::Rate, Of::P50, Of::P99] {
                    let target = target(&row, side, other, of);
                    if of == Of::Rate || other.name == "raw log" {
                        shown = shown.compared(Comparison::between(side, other, of, target));
                    }
                }
            }
        }
        report.row(&shown)?;
    }
    sides.ours.close().await
}

fn target(row: &str, side: &Measured, other: &Measured, of: Of) -> Target {
    let asked = TARGETS.iter().find(|(of_row, against, what, _)| {
        side.name == "steadfast" && *of_row == row && *against == other.name && *what == of
    });
    asked.map_or(Target::None, |(.., target)| *target)
}

fn plan(quick: bool) -> Plan {
    Plan { rounds: 5, slice: Duration::from_millis(if quick { 120 } else { 700 }) }
}

fn main() -> Outcome<()> {
    let args = Args::of_process()?;
    let mut report = Report::new("durable", &args)?;
    let rows = [Kind::Send, Kind::Cycle].into_iter().flat_map(|kind| SENDERS.map(|senders| (kind, senders)));
    let rows = rows.chain([(Kind::Tell, 256), (Kind::Tell, 4096), (Kind::Ask, 1)]);
    for (kind, senders) in rows {
        if args.wants(&format!("{}, steadfast", kind.row(senders))) {
            // a runtime of its own: what one row left in its queues is not the next one's
            args.runtime()?.block_on(measure(kind, senders, args.quick, &mut report))?;
        }
    }
    report.end();
    Ok(())
}
