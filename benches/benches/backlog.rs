//! Mail that waits: how fast it is taken, how long the next open takes and how much memory, when the first message is handled and
//! how fast the rest; a steady state with mail always waiting; and what a large checkpoint costs those who send meanwhile.
//!
//! `cargo bench -p steadfast-benches --bench backlog -- --json FILE`, with `--quick` for a short form and `--only ROW` for some rows.
//!
//! Each part is a process of its own, and its memory is counted from just before the store is opened. Messages of 256 B in 64
//! mailboxes; one run each.
//!
//! - **load**: 64 tasks send 500 messages in one commit, again and again, to mailboxes that nobody reads.
//! - **reopen**: until `open` has returned, after a clean close and after a kill. Then all counts are looked at.
//! - **drain**: actors are started and handle all; `first_ms` is from the begin of the open until the first was handled.
//! - **steady**: a handler waits until 10 000 more have been sent, so that many always wait. `drift` is how much slower the fourth
//!   fifth of the messages was than the second (the first warms up).
//! - **survivors**: 256 senders whose messages nobody handles, with a segment so large that a million of them wait for one
//!   checkpoint; the rate while that runs, against the rate before it began.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use steadfast::{Actor, ActorRef, Address, Cell, Context, Event, Failure, Handler, Observer, State, System};
use steadfast_benches::args::{self, Args};
use steadfast_benches::child::{self, Figures};
use steadfast_benches::durable::Add;
use steadfast_benches::report::{Comparison, Report, Row, Target};
use steadfast_benches::stats::median;
use steadfast_benches::{ACTORS, Outcome, PAYLOAD, usage};
use tokio::sync::Semaphore;

/// Messages of one commit where single ones are not what is measured.
const CHUNK: u64 = 500;
/// How many always wait in the steady state.
const DEPTH: u64 = 10_000;
const LONG: Duration = Duration::from_secs(120);
const MIB: f64 = (1 << 20) as f64;

/// What the actors of one process share.
struct Shared {
    handled: AtomicU64,
    /// When the first was handled, in microseconds since `began`.
    first_us: AtomicU64,
    began: Instant,
    /// One for each message that may be handled; none: all may.
    permits: Option<Semaphore>,
}

impl Shared {
    fn new(permits: Option<Semaphore>) -> Arc<Self> {
        let (handled, first_us) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Arc::new(Shared { handled, first_us, began: Instant::now(), permits })
    }

    fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    async fn wait_for(&self, count: u64) {
        while self.handled() < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

const COUNT: Cell<u64> = Cell::new("count", 1);

/// Counts what it handles, and has the count stored.
struct Reader(Arc<Shared>);

impl Actor for Reader {
    const NAME: &'static str = "bench.reader";
    type Messages = (Add,);
    fn state() -> State<Self> {
        State::cells().with(COUNT)
    }
}

impl Handler<Add> for Reader {
    async fn handle(&mut self, _: Add, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let shared = &self.0;
        if let Some(permits) = &shared.permits {
            permits.acquire().await.map_err(|_| Failure::new("the bench has ended"))?.forget();
        }
        let count = ctx.state().get(&COUNT)?.unwrap_or(0);
        ctx.state().set(&COUNT, &(count + 1))?;
        if shared.handled.fetch_add(1, Ordering::Relaxed) == 0 {
            let us = shared.began.elapsed().as_micros() as u64;
            shared.first_us.store(us, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Opens a store in which more may wait than usual.
async fn open(store: &Path) -> Outcome<System> {
    Ok(System::builder().mailbox_capacity(u64::MAX >> 1).open(store).await?)
}

async fn bind_all(system: &System) -> Outcome<Vec<ActorRef<Reader>>> {
    let mut all = Vec::new();
    for index in 0..ACTORS {
        all.push(system.bind(&Address::<Reader>::new(format!("reader-{index}"))?).await?);
    }
    Ok(all)
}

async fn spawn_all(system: &System, shared: &Arc<Shared>) -> Outcome<Vec<ActorRef<Reader>>> {
    let mut all = Vec::new();
    for index in 0..ACTORS {
        let shared = shared.clone();
        all.push(system.spawn(format!("reader-{index}"), move || Reader(shared.clone())).await?);
    }
    Ok(all)
}

/// Sends so many to each mailbox.
async fn fill(mailboxes: &[ActorRef<Reader>], each: u64) -> Outcome<()> {
    let fill = |mailbox: ActorRef<Reader>| async move {
        let mut left = each;
        while left > 0 {
            let some = left.min(CHUNK);
            let sent = mailbox.tell_all((0..some).map(|_| Add::of(PAYLOAD))).await;
            assert!(sent.is_ok(), "the messages are taken");
            left -= some;
        }
    };
    let tasks: Vec<_> = mailboxes.iter().map(|mailbox| tokio::spawn(fill(mailbox.clone()))).collect();
    for task in tasks {
        task.await?;
    }
    Ok(())
}

/// Child: fills a store, and closes it or is killed.
async fn load(store: &Path, count: u64, ends: &str) -> Outcome<()> {
    let before = usage::rss_mib();
    let system = open(store).await?;
    let mailboxes = bind_all(&system).await?;
    let (began, cpu) = (Instant::now(), usage::cpu_time());
    fill(&mailboxes, count / ACTORS as u64).await?;
    let (took, cpu) = (began.elapsed(), usage::cpu_time() - cpu);
    let peak = usage::peak_mib() - before;
    drop(mailboxes);
    if ends == "closed" {
        system.shutdown(LONG).await?;
    }
    child::say(&[
        ("msgs_per_s", count as f64 / took.as_secs_f64()),
        ("cpu_us_per_msg", cpu.as_secs_f64() * 1e6 / count as f64),
        ("rss_mib_over", peak),
        ("disk_mib", usage::disk_bytes(store) as f64 / MIB),
    ])?;
    // a store that was not closed is left as a kill leaves it
    std::process::exit(0)
}

/// Child: opens it and looks at the counts.
async fn reopen(store: &Path, count: u64) -> Outcome<()> {
    let before = usage::rss_mib();
    let began = Instant::now();
    let system = open(store).await?;
    let opened = began.elapsed();
    let mut waiting = 0;
    for mailbox in bind_all(&system).await? {
        waiting += mailbox.waiting();
    }
    let counted = began.elapsed();
    let (rss, peak) = (usage::rss_mib() - before, usage::peak_mib() - before);
    if waiting != count {
        return Err(format!("{waiting} wait, and {count} were sent").into());
    }
    child::say(&[
        ("open_s", opened.as_secs_f64()),
        ("s_per_million", counted.as_secs_f64() * 1e6 / count as f64),
        ("rss_mib_over", rss),
        ("peak_mib_over", peak),
    ])?;
    system.shutdown(LONG).await?;
    Ok(())
}

/// Child: opens it and handles all.
async fn drain(store: &Path, count: u64) -> Outcome<()> {
    let before = usage::rss_mib();
    let shared = Shared::new(None);
    let system = open(store).await?;
    let (opened, cpu) = (Instant::now(), usage::cpu_time());
    let actors = spawn_all(&system, &shared).await?;
    shared.wait_for(count).await;
    let (took, cpu) = (opened.elapsed(), usage::cpu_time() - cpu);
    let peak = usage::peak_mib() - before;
    let mut stored = 0;
    for actor in &actors {
        stored += actor.cell(&COUNT).await?.unwrap_or(0);
    }
    if stored != count {
        return Err(format!("{stored} were handled, and {count} were sent").into());
    }
    drop(actors);
    system.shutdown(LONG).await?;
    child::say(&[
        ("msgs_per_s", count as f64 / took.as_secs_f64()),
        ("cpu_us_per_msg", cpu.as_secs_f64() * 1e6 / count as f64),
        ("first_ms", shared.first_us.load(Ordering::Relaxed) as f64 / 1e3),
        ("rss_mib_over", peak),
        ("disk_mib_after", usage::disk_bytes(store) as f64 / MIB),
    ])
}

/// What was seen of the steady state while it ran.
#[derive(Default)]
struct Most {
    rss_mib: f64,
    journal: u64,
    beside_journal: u64,
}

impl Most {
    fn look(&mut self, store: &Path, before: f64) {
        let journal = usage::disk_bytes(&store.join("journal"));
        self.rss_mib = self.rss_mib.max(usage::rss_mib() - before);
        self.journal = self.journal.max(journal);
        self.beside_journal = self.beside_journal.max(usage::disk_bytes(store).saturating_sub(journal));
    }
}

/// Child: sends and handles so many while [`DEPTH`] wait.
async fn steady(store: &Path, count: u64) -> Outcome<()> {
    let before = usage::rss_mib();
    let shared = Shared::new(Some(Semaphore::new(0)));
    let system = open(store).await?;
    let actors = spawn_all(&system, &shared).await?;
    let (began, cpu) = (Instant::now(), usage::cpu_time());
    let sent = Arc::new(AtomicU64::new(0));
    let feed = |actor: ActorRef<Reader>| {
        let (shared, sent) = (shared.clone(), sent.clone());
        async move {
            const SOME: u64 = 50;
            while sent.fetch_add(SOME, Ordering::Relaxed) < count {
                let told = actor.tell_all((0..SOME).map(|_| Add::of(PAYLOAD))).await;
                assert!(told.is_ok(), "the messages are taken");
                // so many may be handled as were sent, but for those that are to wait
                let (sent, handled) = (sent.load(Ordering::Relaxed), shared.handled());
                if sent > DEPTH {
                    shared.permits.as_ref().expect("there are some").add_permits(SOME as usize);
                }
                if sent > handled + 2 * DEPTH {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    };
    let tasks: Vec<_> = actors.iter().map(|actor| tokio::spawn(feed(actor.clone()))).collect();
    let (mut most, mut fifths) = (Most::default(), vec![began]);
    while (fifths.len() as u64) < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        most.look(store, before);
        if shared.handled() >= fifths.len() as u64 * (count - 2 * DEPTH) / 5 {
            fifths.push(Instant::now());
        }
    }
    for task in tasks {
        task.await?;
    }
    let took = began.elapsed();
    fifths.push(Instant::now());
    let cpu = usage::cpu_time() - cpu;
    most.look(store, before);
    let waits = sent.load(Ordering::Relaxed).saturating_sub(shared.handled());
    shared.permits.as_ref().expect("there are some").add_permits(4 * DEPTH as usize);
    let fifth = |index: usize| (fifths[index + 1] - fifths[index]).as_secs_f64();
    drop(actors);
    system.shutdown(LONG).await?;
    let live = (DEPTH * PAYLOAD as u64) as f64;
    child::say(&[
        ("msgs_per_s", count as f64 / took.as_secs_f64()),
        ("cpu_us_per_msg", cpu.as_secs_f64() * 1e6 / count as f64),
        ("rss_mib_over", most.rss_mib),
        ("journal_mib", most.journal as f64 / MIB),
        ("beside_journal_mib", most.beside_journal as f64 / MIB),
        ("disk_of_allowed", most.beside_journal as f64 / (3.0 * live + 64.0 * MIB)),
        ("drift", fifth(3) / fifth(1) - 1.0),
        ("wait_at_end", waits as f64),
    ])
}

/// When checkpoints ended, and how long they took.
#[derive(Default)]
struct Checkpoints(std::sync::Mutex<Vec<(Instant, Duration, u64)>>);

impl Observer for Checkpoints {
    fn event(&self, event: &Event<'_>) {
        if let Event::Checkpointed { took, writes, .. } = event {
            let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.push((Instant::now(), *took, *writes));
        }
    }
}

/// Child: sends until one checkpoint with so many survivors has ended.
async fn survivors(store: &Path, count: u64) -> Outcome<()> {
    const SENDERS: usize = 256;
    // with what a message takes in the journal beside itself
    let segment = (count * (PAYLOAD as u64 + 88)).next_multiple_of(1 << 20).min(1 << 30);
    let checkpoints = Arc::new(Checkpoints::default());
    let builder = System::builder().observer(checkpoints.clone()).journal_segment(segment).overlay(2 << 30);
    let system = builder.mailbox_capacity(u64::MAX >> 1).open(store).await?;
    let mailboxes = bind_all(&system).await?;
    let sent = Arc::new(AtomicU64::new(0));
    let send = |mailbox: ActorRef<Reader>| {
        let sent = sent.clone();
        async move {
            loop {
                assert!(mailbox.tell(Add::of(PAYLOAD)).await.is_ok(), "the message is taken");
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let tasks: Vec<_> =
        (0..SENDERS).map(|index| tokio::spawn(send(mailboxes[index % ACTORS].clone()))).collect();
    let mut samples = vec![(Instant::now(), 0)];
    let seen = || checkpoints.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).first().copied();
    let (ended, took, writes) = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        samples.push((Instant::now(), sent.load(Ordering::Relaxed)));
        if let Some(first) = seen() {
            break first;
        }
    };
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let began = ended - took;
    let rates = |from: Instant, to: Instant| -> Vec<f64> {
        let inside = |sample: &&[(Instant, u64)]| sample[0].0 >= from && sample[1].0 <= to;
        let rate = |sample: &[(Instant, u64)]| {
            (sample[1].1 - sample[0].1) as f64 / (sample[1].0 - sample[0].0).as_secs_f64()
        };
        samples.windows(2).filter(inside).map(rate).collect()
    };
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    // a third of the way: the senders and the disk have warmed up
    let start = samples[0].0 + (began - samples[0].0) / 3;
    let (before, during) = (rates(start, began), rates(began, ended));
    child::say(&[
        ("msgs_per_s", mean(&during)),
        ("before_per_s", mean(&before)),
        ("before_median_per_s", median(&before)),
        ("during_median_per_s", median(&during)),
        ("survivors", samples.iter().find(|(at, _)| *at >= began).map_or(0, |(_, sent)| *sent) as f64),
        ("writes", writes as f64),
        ("checkpoint_s", took.as_secs_f64()),
    ])?;
    // what was left in the store is of no use to anybody
    std::process::exit(0)
}

fn get(figures: &Figures, name: &str) -> f64 {
    figures.get(name).copied().unwrap_or(f64::NAN)
}

/// A row of what a child came to.
fn row(name: String, means: &str, figures: &Figures, shown: &[&'static str]) -> Row {
    let more = shown.iter().map(|name| (*name, get(figures, name))).collect();
    Row {
        name,
        means: means.to_owned(),
        msgs_per_s: figures.get("msgs_per_s").copied(),
        cpu_us_per_msg: figures.get("cpu_us_per_msg").copied(),
        more,
        ..Row::default()
    }
}

fn limit(against: &str, of: &'static str, ratio: f64, target: Target) -> Comparison {
    Comparison { against: against.to_owned(), of, ratio, target }
}

const MEMORY: Target = Target::AtMost(64.0);

/// Loads, opens and drains one store.
fn waiting(count: u64, args: &Args, report: &mut Report) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let many =
        if count >= 1_000_000 { format!("{} M", count / 1_000_000) } else { format!("{} k", count / 1_000) };
    if !args.wants(&format!("load {many} reopen {many} waiting drain {many}, steadfast")) {
        return Ok(());
    }
    // of fewer the files that every open makes are most of it
    let time = if count >= 1_000_000 { Target::AtMost(1.0) } else { Target::None };
    let number = (count / ACTORS as u64 * ACTORS as u64).to_string();
    for ends in ["closed", "killed"] {
        let store = directory.path().join(ends);
        let store = store.to_str().unwrap_or_default();
        let loaded = child::run(&["load", store, &number, ends])?;
        if ends == "closed" {
            let means = format!("{CHUNK} messages in one commit, on disk, synced; nobody handles them");
            report.row(&row(
                format!("load {many}, steadfast"),
                &means,
                &loaded,
                &["rss_mib_over", "disk_mib"],
            ))?;
        }
        let opened = child::run(&["reopen", store, &number])?;
        let shown = ["open_s", "s_per_million", "rss_mib_over", "peak_mib_over"];
        let means = "open has returned and all counts are verified";
        let reopened = row(format!("reopen {many} waiting, {ends}, steadfast"), means, &opened, &shown)
            .compared(limit("1 s per million", "s_per_million", get(&opened, "s_per_million"), time))
            .compared(limit("64 MiB more than before", "rss_mib_over", get(&opened, "rss_mib_over"), MEMORY));
        report.row(&reopened)?;
        if ends == "closed" {
            let drained = child::run(&["drain", store, &number])?;
            let means = "from the open until all are handled, acks and states on disk";
            let shown = ["first_ms", "rss_mib_over", "disk_mib_after"];
            report.row(&row(format!("drain {many}, steadfast"), means, &drained, &shown))?;
        }
    }
    Ok(())
}

fn in_steady_state(count: u64, args: &Args, report: &mut Report) -> Outcome<()> {
    let name = format!("steady, {DEPTH} waiting, steadfast");
    if !args.wants(&name) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let store = directory.path().join("store");
    let figures = child::run(&["steady", store.to_str().unwrap_or_default(), &count.to_string()])?;
    let shown =
        ["rss_mib_over", "journal_mib", "beside_journal_mib", "disk_of_allowed", "drift", "wait_at_end"];
    let row = row(name, "sent 50 in one commit, handled while that many wait", &figures, &shown)
        .with("messages", count as f64)
        .compared(limit("64 MiB more than before", "rss_mib_over", get(&figures, "rss_mib_over"), MEMORY))
        .compared(limit(
            "segments + 3 x live bytes + 64 MiB",
            "disk_of_allowed",
            get(&figures, "disk_of_allowed"),
            Target::AtMost(1.0),
        ))
        .compared(limit("the second fifth", "drift", get(&figures, "drift"), Target::AtMost(0.1)));
    report.row(&row)
}

fn while_survivors_move(count: u64, args: &Args, report: &mut Report) -> Outcome<()> {
    let many =
        if count >= 1_000_000 { format!("{} M", count / 1_000_000) } else { format!("{} k", count / 1_000) };
    let name = format!("send 256 senders while {many} survivors are checkpointed, steadfast");
    if !args.wants(&name) {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let store = directory.path().join("store");
    let figures = child::run(&["survivors", store.to_str().unwrap_or_default(), &count.to_string()])?;
    let shown =
        ["before_per_s", "before_median_per_s", "during_median_per_s", "survivors", "writes", "checkpoint_s"];
    let ratio = get(&figures, "msgs_per_s") / get(&figures, "before_per_s");
    let row = row(name, "returned: on disk, synced. nobody handles it", &figures, &shown).compared(limit(
        "the same senders before it",
        "msgs_per_s",
        ratio,
        Target::AtLeast(0.7),
    ));
    report.row(&row)
}

fn all(args: &Args) -> Outcome<()> {
    let mut report = Report::new("backlog", args)?;
    let scale = if args.quick { 10 } else { 1 };
    for count in [1_000_000, 5_000_000] {
        waiting(count / scale, args, &mut report)?;
    }
    in_steady_state(5_000_000 / (2 * scale - 1), args, &mut report)?;
    while_survivors_move(1_000_000 / scale, args, &mut report)?;
    report.end();
    Ok(())
}

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = || args::runtime(Args::default().cores());
    match words.as_slice() {
        ["load", store, count, ends] => runtime()?.block_on(load(Path::new(store), count.parse()?, ends)),
        ["reopen", store, count] => runtime()?.block_on(reopen(Path::new(store), count.parse()?)),
        ["drain", store, count] => runtime()?.block_on(drain(Path::new(store), count.parse()?)),
        ["steady", store, count] => runtime()?.block_on(steady(Path::new(store), count.parse()?)),
        ["survivors", store, count] => runtime()?.block_on(survivors(Path::new(store), count.parse()?)),
        _ => all(&Args::of_process()?),
    }
}
