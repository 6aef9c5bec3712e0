//! The same work with every engine of this build, in turn, several times; what counts are the medians beside each other. A
//! backlog in many mailboxes, so that it lies in the engine itself and not in page files: it is piled up, checkpointed, closed,
//! opened again, left as by a crash, opened again, and drained. Each life is a process of its own, so that the memory is its own.
//!
//! `cargo bench --features redb --bench engines`, with `-- --quick` for a short form.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, Address, Cell, Context, EngineChoice, Event, Failure, Handler, Message, Observer, State,
    System, SystemBuilder,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Messages in each mailbox: of this number and size a page has less than the 2 KiB from which on it goes to a file.
const EACH: u64 = 8;
const PAYLOAD: usize = 100;

#[derive(Serialize, Deserialize)]
struct Load(Vec<u8>);
impl Message for Load {
    type Reply = ();
    const NAME: &'static str = "bench.load";
}

struct Sink;
const TAKEN: Cell<u64> = Cell::new("taken", 1);
impl Actor for Sink {
    const NAME: &'static str = "bench.sink";
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

/// How long checkpoints took, and how much they handed to the engine.
#[derive(Default)]
struct Checkpoints {
    took_us: AtomicU64,
    writes: AtomicU64,
}
impl Observer for Checkpoints {
    fn event(&self, event: &Event<'_>) {
        if let Event::Checkpointed { writes, took, .. } = event {
            self.took_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
            self.writes.fetch_add(*writes, Ordering::Relaxed);
        }
    }
}

/// What is measured, in the order in which it is printed.
const FIGURES: [&str; 10] = [
    "checkpoint µs/message",
    "checkpoint µs/write",
    "close ms",
    "engine KiB, full",
    "open ms, closed",
    "open ms, crashed",
    "drain messages/s",
    "engine KiB, drained",
    "RSS MiB, filling",
    "RSS MiB, draining",
];
type Figures = [f64; FIGURES.len()];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, store, engine, mailboxes] = &arguments[..]
        && let Some(what) = what.strip_prefix("--life=")
    {
        let engine = EngineChoice::named(engine).expect("an engine of this build");
        let life = Life { store: store.into(), engine, mailboxes: mailboxes.parse().expect("a number") };
        return runtime().block_on(life.live(what));
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let (rounds, mailboxes) = if quick { (1, 500) } else { (5, 10_000) };
    let engines: Vec<_> = EngineChoice::available().collect();
    let mut found: Vec<Vec<Figures>> = vec![Vec::new(); engines.len()];
    for round in 0..rounds {
        for turn in 0..engines.len() {
            // whoever begins is another in each round
            let side = (turn + round) % engines.len();
            found[side].push(round_of(engines[side], mailboxes));
        }
    }
    println!("{} messages of {PAYLOAD} bytes in {mailboxes} mailboxes, {rounds} rounds", mailboxes * EACH);
    print!("{:<24}", "median");
    engines.iter().for_each(|engine| print!(" {:>12}", engine.name()));
    println!();
    for (at, name) in FIGURES.iter().enumerate() {
        print!("{name:<24}");
        found.iter().for_each(|rounds| print!(" {:>12.1}", median(rounds.iter().map(|round| round[at]))));
        println!();
    }
}

fn median(all: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<_> = all.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Four lives of one store.
fn round_of(engine: EngineChoice, mailboxes: u64) -> Figures {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let life = |what: &str| said(what, &store, engine, mailboxes);
    let [per_message, per_write, close, filling, ..] = life("fill");
    let full = kib(&store.join(engine.name()));
    let [opened, ..] = life("crash");
    let [opened_after, drained, draining, ..] = life("drain");
    let emptied = kib(&store.join(engine.name()));
    [per_message, per_write, close, full, opened, opened_after, drained, emptied, filling, draining]
}

/// Runs a life as a process of its own, and takes the figures it prints.
fn said(what: &str, store: &Path, engine: EngineChoice, mailboxes: u64) -> [f64; 4] {
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new(this);
    command.arg(format!("--life={what}")).arg(store).args([engine.name(), &mailboxes.to_string()]);
    let ran = command.stderr(Stdio::inherit()).output().expect("it starts");
    assert!(ran.status.success(), "the life `{what}` with {} failed", engine.name());
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let mut figures = text.split_whitespace().map(|figure| figure.parse().expect("a figure"));
    std::array::from_fn(|_| figures.next().unwrap_or_default())
}

/// What the files of a directory take on the device, in KiB.
fn kib(directory: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).expect("lists").flatten();
    entries.map(|entry| entry.metadata().expect("is there").blocks() / 2).sum::<u64>() as f64
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

struct Life {
    store: PathBuf,
    engine: EngineChoice,
    mailboxes: u64,
}

impl Life {
    async fn live(&self, what: &str) {
        let checkpoints = Arc::new(Checkpoints::default());
        let began = Instant::now();
        let system = self.builder(&checkpoints).open(&self.store).await.expect("opens");
        let opened = millis(began);
        match what {
            "fill" => self.fill(system, &checkpoints).await,
            // as by a crash: nothing is closed on the way out
            "crash" => {
                println!("{opened}");
                std::process::exit(0);
            }
            "drain" => self.drain(system, opened).await,
            other => panic!("{other}"),
        }
    }

    fn builder(&self, checkpoints: &Arc<Checkpoints>) -> SystemBuilder {
        // small, so that there are several checkpoints
        let builder = System::builder().engine(self.engine).journal_segment(4 << 20).overlay(4 << 20);
        builder.observer(checkpoints.clone())
    }

    async fn fill(&self, system: System, checkpoints: &Checkpoints) {
        let mut sinks: Vec<ActorRef<Sink>> = Vec::new();
        for index in 0..self.mailboxes {
            let address = Address::new(format!("sink-{index}")).expect("a name");
            sinks.push(system.bind::<Sink>(&address).await.expect("binds"));
        }
        for _ in 0..EACH {
            for some in sinks.chunks(256) {
                let sends = some.iter().map(|sink| sink.tell(Load(vec![7; PAYLOAD])).into_future());
                for sent in futures_util::future::join_all(sends).await {
                    sent.expect("is accepted");
                }
            }
        }
        drop(sinks);
        let began = Instant::now();
        system.shutdown(PATIENCE).await.expect("ends");
        let close = millis(began);
        let (took, writes) =
            (checkpoints.took_us.load(Ordering::Relaxed), checkpoints.writes.load(Ordering::Relaxed));
        let messages = (self.mailboxes * EACH) as f64;
        println!("{} {} {close} {}", took as f64 / messages, took as f64 / writes as f64, peak_mib());
    }

    async fn drain(&self, system: System, opened: f64) {
        let began = Instant::now();
        let mut taken = 0;
        for first in (0..self.mailboxes).step_by(256) {
            let mut sinks = Vec::new();
            for index in first..(first + 256).min(self.mailboxes) {
                sinks.push(system.spawn(format!("sink-{index}"), || Sink).await.expect("starts"));
            }
            for sink in sinks {
                sink.drain().await;
                taken += sink.cell(&TAKEN).await.expect("reads").unwrap_or_default();
            }
        }
        assert_eq!(taken, self.mailboxes * EACH, "every message was handled once");
        let per_second = taken as f64 / began.elapsed().as_secs_f64();
        system.shutdown(PATIENCE).await.expect("ends");
        println!("{opened} {per_second} {}", peak_mib());
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}
