//! Many entities, few of them loaded: each is sent one message from several tasks and changes its state. Prints how fast, how
//! much memory the process took at its peak, and how much disk; checks only that every message was handled.
//!
//! `cargo bench -p steadfast-benches --bench entities`, with `-- 100000` for another number of entities than 1 000 000, and `-- 100000 again` for a
//! second round after a restart, in which every entity is read from the disk.
//!
//! The measured process runs with `MALLOC_ARENA_MAX=2` unless the variable is set: glibc's heaps, one for each thread, keep what
//! was freed in them, and hide what the library holds itself. Set it to 0 for glibc's own default.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use steadfast::{Actor, Cell, Context, Entities, Failure, Handler, Message, State, System};
use steadfast_benches::args::Args;
use steadfast_benches::usage;

const SENDERS: u64 = 64;
const LOADED: usize = 1_000;

#[derive(Serialize, Deserialize)]
struct Deposit {
    cents: u64,
    note: String,
}

impl Message for Deposit {
    type Reply = ();
    const NAME: &'static str = "bench.deposit";
}

const BALANCE: Cell<u64> = Cell::new("balance", 1);

struct Account {
    handled: Arc<AtomicU64>,
}

impl Actor for Account {
    const NAME: &'static str = "account";
    type Messages = (Deposit,);
    fn state() -> State<Self> {
        State::cells().with(BALANCE)
    }
}

impl Handler<Deposit> for Account {
    async fn handle(&mut self, deposit: Deposit, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let balance = ctx.state().get(&BALANCE)?.unwrap_or(0);
        ctx.state().set(&BALANCE, &(balance + deposit.cents))?;
        self.handled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What one round came to.
struct Round {
    sent: Duration,
    handled: Duration,
    rss_before_mib: f64,
    rss_peak_mib: f64,
    disk_mib: u64,
}

/// Opens the store, sends one message to each entity, waits until all are handled and closes it.
async fn round(store: &Path, count: u64, expected: u64) -> Result<Round, Box<dyn std::error::Error>> {
    let system = System::open(store).await?;
    let handled = Arc::new(AtomicU64::new(0));
    let shared = handled.clone();
    let make = move |_: &u64| Account { handled: shared.clone() };
    let accounts = system.entities("accounts", make).max_loaded(LOADED).await?;
    let rss_before_mib = usage::rss_mib();
    let began = Instant::now();
    let senders: Vec<_> =
        (0..SENDERS).map(|sender| tokio::spawn(send(accounts.clone(), sender, count))).collect();
    for sender in senders {
        sender.await?;
    }
    let sent = began.elapsed();
    while handled.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed();
    check(&accounts, count, expected).await?;
    let rss_peak_mib = usage::peak_mib();
    system.shutdown(Duration::from_secs(60)).await?;
    Ok(Round { sent, handled: took, rss_before_mib, rss_peak_mib, disk_mib: usage::disk_bytes(store) >> 20 })
}

async fn send(accounts: Entities<u64, Account>, sender: u64, count: u64) {
    for key in (sender..count).step_by(SENDERS as usize) {
        let account = accounts.get(&key).await.expect("a handle");
        account.tell(Deposit { cents: 1, note: format!("deposit {key}") }).await.expect("sent");
    }
}

/// Every entity exists, and every hundredth has the balance it must have.
async fn check(
    accounts: &Entities<u64, Account>,
    count: u64,
    expected: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut found, mut after) = (0, None);
    loop {
        let page = accounts.keys(after.as_ref(), 1_000).await?;
        let Some(last) = page.last().copied() else { break };
        found += page.len() as u64;
        after = Some(last);
    }
    assert_eq!(found, count, "entities are missing");
    for key in (0..count).step_by(100) {
        let balance = accounts.get(&key).await?.cell(&BALANCE).await?;
        assert_eq!(balance, Some(expected), "entity {key}");
    }
    Ok(())
}

/// The variable that says how many heaps glibc uses.
const ARENAS: &str = "MALLOC_ARENA_MAX";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os(ARENAS).is_none() {
        let mut measured = std::process::Command::new(std::env::current_exe()?);
        let status = measured.args(std::env::args_os().skip(1)).env(ARENAS, "2").status()?;
        return if status.success() { Ok(()) } else { Err(format!("the measured process: {status}").into()) };
    }
    let args = Args::of_process().map_err(|why| why.to_string())?;
    let count = args.number().unwrap_or(if args.quick { 100_000 } else { 1_000_000 });
    let rounds = if args.words.iter().any(|word| word == "again") { 2 } else { 1 };
    let directory = tempfile::tempdir()?;
    let runtime = args.runtime()?;
    println!("{count} entities, {LOADED} loaded at most, {SENDERS} senders, {} bytes of state each", 8);
    println!("round |   sent/s | handled/s | seconds | MiB before | MiB peak | MiB on disk");
    for number in 1..=rounds {
        let round = runtime.block_on(round(&directory.path().join("store"), count, number))?;
        let rate = |took: Duration| count as f64 / took.as_secs_f64();
        println!(
            "{number:>5} | {:>8.0} | {:>9.0} | {:>7.1} | {:>10.0} | {:>8.0} | {:>11}",
            rate(round.sent),
            rate(round.handled),
            round.handled.as_secs_f64(),
            round.rss_before_mib,
            round.rss_peak_mib,
            round.disk_mib
        );
    }
    Ok(())
}
