//! The reliability harness: one workload, one checker, and a choice of harm. Run it as long as you like; slices add up.
//!
//! ```text
//!   senders, awaited and not, together, delayed, resent with a dedup id, expiring
//!      │                                                        publishers ──▶ topic news ─┐
//!      ▼                                                                                   ▼
//!   account ── one turn: money, a deposit, a note, an event ──▶ topic moved ──▶ subscribers: steady,
//!      │  ▲                                                                     restless, late, witness
//!      │  └── deposits, some delayed
//!      └── notes ──▶ book
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `plan` | what is sent where, and what must become of it |
//! | `bank` | the actors: start reading here |
//! | `traffic` | one life: everybody sends, and says what was acknowledged |
//! | `ledger` | what was said before the harm |
//! | `checker` | has everybody come to the end of all work |
//! | `found` | compares what is there then with what was said |
//! | `harness` | life after life on one store: kill, power cut, full disk, soak |
//! | `damage` | files that are not what was written |
//! | `simulated` | every operation of a disk in memory: power cuts and errors; a full disk without root |
//! | `broken` | faults in the workload that the checker must notice |
//!
//! `cargo run --release --example torture -- --fault kill9 --cycles 100`

mod bank;
mod broken;
mod checker;
#[path = "../../tests/child/mod.rs"]
mod child;
mod damage;
#[path = "../../tests/device/mod.rs"]
mod device;
mod found;
mod harness;
mod ledger;
mod options;
mod part;
mod plan;
mod report;
mod simulated;
mod traffic;

use std::error::Error;
use std::process::ExitCode;

use harness::Harness;
use options::{Command, Fault, Options};
use report::Report;

const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Child(child)) => {
            return match play(&child) {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => {
                    eprintln!("torture: {why}");
                    ExitCode::from(FAILED)
                }
            };
        }
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("torture: {why}\nTry --help.");
            return ExitCode::from(BAD_USAGE);
        }
    };
    match run(&options).and_then(|report| Ok((report.print(&options)?, report.holds()))) {
        Ok(((), true)) => ExitCode::SUCCESS,
        Ok(((), false)) => ExitCode::from(FAILED),
        Err(why) => {
            eprintln!("torture: {why}");
            ExitCode::from(FAILED)
        }
    }
}

fn play(child: &options::Child) -> Result<(), Box<dyn Error>> {
    // as text: errors that are sent between threads and those that are not are two types
    runtime()?.block_on(part::run(child)).map_err(|why| why.to_string().into())
}

fn run(options: &Options) -> Result<Report, Box<dyn Error>> {
    let mut harness = Harness::open(options)?;
    match options.fault {
        Fault::Kill9 | Fault::PowerCut | Fault::Soak => harness.lives()?,
        Fault::Damage => damage::run(&mut harness, options.broken)?,
        Fault::DiskFull => {
            harness.lives()?;
            if let Some(why) = harness.report.skipped.take() {
                harness.report.skipped =
                    Some(format!("a real file system ({why}): a simulated disk was filled"));
                runtime()?.block_on(simulated::fills_up(&mut harness, options.broken));
            }
        }
        Fault::SyscallKill | Fault::SyscallError => {
            runtime()?.block_on(simulated::every_operation(&mut harness, options));
        }
    }
    harness.end()
}

fn runtime() -> Result<tokio::runtime::Runtime, Box<dyn Error>> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
