//! Orders go through four actors in a process that is killed at random moments; then every order is audited.
//!
//! ```text
//!   orders.ndjson ──▶ intake ⟲ NextSlice, to itself
//!                       │
//!                       │ one commit a turn: the position in the file, three slices, the next turn
//!            ┌──────────┼────────────┐
//!            ▼          ▼            ▼
//!        inventory   billing   notification ──▶ notifications.ndjson
//!        CDs shipped  cents     one line an order, outside of the store: may repeat, never misses
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `intake`, `inventory`, `billing`, `notification` | the actors: start reading here |
//! | `shop` | the process that is killed: opens the store, starts the actors, waits until all is handled |
//! | `killer` | the process you start: runs the shop, kills it, runs it again, has it audited |
//! | `audit` | compares what the actors recorded with the input, order by order, in a third process |
//!
//! `cargo run --example orders` shows it; with `-- --break-guard ack` (or `dedup`) the audit fails.

mod audit;
mod bar;
mod billing;
mod data;
mod dice;
mod input;
mod intake;
mod inventory;
mod killer;
mod notification;
mod options;
mod report;
mod sample;
mod shop;

use std::error::Error;
use std::process::ExitCode;

use options::{Command, Options, Role};

const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("orders: {why}\nTry --help.");
            return ExitCode::from(BAD_USAGE);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(why) => {
            eprintln!("orders: {why}");
            let usage = why.downcast_ref::<killer::RunError>().is_some_and(killer::RunError::is_usage);
            ExitCode::from(if usage { BAD_USAGE } else { FAILED })
        }
    }
}

/// Plays this process's part. False when an audit does not hold.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    match &options.role {
        Role::Killer => {
            let report = killer::run(options)?;
            report.print(options)?;
            Ok(report.holds())
        }
        Role::Shop(part) => {
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(shop::run(part, options.broken))?;
            Ok(true)
        }
        Role::Audit(part) => {
            let runtime = tokio::runtime::Runtime::new()?;
            let findings = runtime.block_on(audit::run(part))?;
            println!("{}", serde_json::to_string(&findings)?);
            Ok(true)
        }
    }
}
