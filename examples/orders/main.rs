//! A shop in a process that is killed at random moments. `products` publishes each order once, to a topic; durable subscribers
//! handle it, each at its own pace; then every order is audited.
//!
//! ```text
//!   orders.ndjson ──▶ products ⟲ NextSlice, to itself
//!                        │
//!                        │ one commit a turn: the position in the file, the events, the next turn
//!                        ▼
//!                 topic orders-placed
//!                        │
//!                        │ one commit an event: the place in the topic, and all that was done with the event
//!        ┌───────────────┼────────────────────┬─────────────────────────┐
//!        ▼               ▼                    ▼                         ▼
//!    inventory        billing           notification                analytics
//!    CDs shipped         │              one line an order, in       what was sold: joins when all
//!                        ▼              notifications.ndjson:       else is done, and gets every
//!                    customers          may repeat, never misses    event from the first on
//!                    an entity each: what was charged; at most 1 000 of them in memory
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `products` | who publishes: start reading here |
//! | `inventory`, `billing` with `customer`, `notification`, `analytics` | the subscribers |
//! | `shop` | the process that is killed: opens the store, starts the actors, waits until all is handled |
//! | `killer` | the process you start: runs the shop, kills it, runs it again, has it audited |
//! | `audit` | compares what the actors recorded with the input, order by order, in a third process |
//!
//! `cargo run --example orders` shows it; with `-- --break-guard ack` (or `dedup`) the audit fails.

mod analytics;
mod audit;
mod bar;
mod billing;
mod customer;
mod data;
mod dice;
mod input;
mod inventory;
mod killer;
mod notification;
mod options;
mod pace;
mod products;
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
            // what an actor or the store says when it cannot go on is to be seen
            let errors = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR);
            errors.with_writer(std::io::stderr).init();
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
