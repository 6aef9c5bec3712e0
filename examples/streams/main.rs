//! Figures of a shop, worked out by three stages over one topic of orders, in a process that is killed in the middle of it and run
//! again; then compared with a plain computation of the same.
//!
//! ```text
//!   orders ──▶ topic orders ──┬──▶ stage revenue    who came first when (scan) ▶ a day and cohort (tumbling)  ──▶ topic revenue
//!   by date                   ├──▶ stage best       28 days of a customer every 7 (sliding) ▶ the 10 best     ──▶ topic best
//!                             └──▶ stage sessions   buying without a break of 30 days (sessions)              ──▶ topic sessions
//! ```
//!
//! `cargo run --release --example streams` shows it with orders it makes up, `-- --input FILE` with yours, one JSON object a line.
//!
//! | file | what it is |
//! |---|---|
//! | `stages` | the stages: start reading here |
//! | `shop` | the process that is killed: publishes the orders and runs the stages |
//! | `plain` | the same figures without streams, and the comparison |
//! | `orders` | the input |
//! | `killer` | the process you start |

mod killer;
mod orders;
mod plain;
mod shop;
mod stages;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
usage: streams [--input FILE] [--data DIR] [--kills N] [--json]
  --input FILE  orders, one JSON object a line; without it some are made up
  --data DIR    an empty directory for the store; without it a temporary one
  --kills N     how often the process is killed on its way (default 3)
  --json        the last line is one JSON object
exit code: 0 all figures are right, 1 some are not, 2 it could not be run
";

/// What was asked for.
#[derive(Debug, Clone, Default)]
struct Options {
    input: Option<PathBuf>,
    data: Option<PathBuf>,
    kills: Option<u64>,
    json: bool,
    /// This is the process that is killed.
    is_shop: bool,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let mut value = |what: &str| args.next().ok_or_else(|| format!("{arg} needs {what}"));
        match arg.as_str() {
            "--input" => options.input = Some(value("a file")?.into()),
            "--data" => options.data = Some(value("a directory")?.into()),
            "--kills" => {
                let kills = value("a number")?;
                let kills = kills.parse().map_err(|why| format!("--kills {kills}: {why}"))?;
                options.kills = Some(kills).filter(|kills| *kills <= 1000);
                options.kills.ok_or("--kills: at most 1000")?;
            }
            "--json" => options.json = true,
            "--shop" => options.is_shop = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("{other} is no option")),
        }
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("streams: {why}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("streams: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    if options.is_shop {
        // what a stage or the store says when it cannot go on is to be seen
        let errors = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR);
        errors.with_writer(std::io::stderr).init();
        runtime.block_on(shop::run(options))?;
        return Ok(true);
    }
    killer::run(options, &runtime)
}
