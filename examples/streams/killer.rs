//! The process you start: runs the shop, kills it when it has come to a random point, runs it again, and in the end compares.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Instant, SystemTime};

use serde_json::json;
use tokio::runtime::Runtime;

use super::plain::{self, Findings};
use super::{Options, orders, stages};

const KILLS: u64 = 3;

/// False when a figure is wrong.
pub(crate) fn run(options: &Options, runtime: &Runtime) -> Result<bool, Box<dyn Error>> {
    let began = Instant::now();
    let (orders, malformed) = orders::read(options.input.as_deref())?;
    let kills = options.kills.unwrap_or(KILLS);
    let (data, _temporary) = place(options.data.as_deref())?;
    let events = orders.len() as u64 * stages::STAGES.len() as u64;
    let (mut killed, mut rss_kib) = (0, 0);
    for at in points(events, kills) {
        let mut shop = Shop::start(options, &data)?;
        if shop.kill_at(at, &mut rss_kib)? {
            killed += 1;
        }
    }
    Shop::start(options, &data)?.finish(&mut rss_kib)?;
    let findings = runtime.block_on(plain::check(&data, &orders))?;
    if killed < kills {
        return Err(
            format!("the shop was done before it was killed {kills} times: give it more orders").into()
        );
    }
    let Findings { windows, windows_wrong, outputs_missing, outputs_doubled } = findings;
    let seconds = began.elapsed().as_secs();
    if options.json {
        let report = json!({
            "orders": orders.len(), "malformed": malformed, "kills": killed, "windows": windows,
            "windows_wrong": windows_wrong, "outputs_missing": outputs_missing, "outputs_doubled": outputs_doubled,
            "peak_rss_mib": rss_kib / 1024, "seconds": seconds,
        });
        println!("{report}");
    } else {
        println!("{} orders ({malformed} lines were none), killed {killed} times, {seconds} s", orders.len());
        println!(
            "{windows} windows: {windows_wrong} wrong, {outputs_missing} missing, {outputs_doubled} doubled"
        );
    }
    Ok(findings.hold())
}

fn place(data: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), Box<dyn Error>> {
    let Some(data) = data else {
        let made = tempfile::Builder::new().prefix("steadfast-streams-").tempdir()?;
        return Ok((made.path().join("store"), Some(made)));
    };
    std::fs::create_dir_all(data)?;
    if std::fs::read_dir(data)?.next().is_some() {
        return Err(
            format!("{} is not empty; give a directory that is empty or absent", data.display()).into()
        );
    }
    Ok((data.to_owned(), None))
}

/// A random point in each of as many equal parts of the work, in events handled.
fn points(events: u64, kills: u64) -> Vec<u64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut chance = now.subsec_nanos() as u64;
    let part = events * 9 / 10 / kills.max(1);
    let mut point = |n| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        events / 20 + n * part + (chance >> 33) % part.max(1)
    };
    (0..kills).map(&mut point).collect()
}

struct Shop(Child);

impl Shop {
    fn start(options: &Options, data: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--shop").arg("--data").arg(data).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(input) = &options.input {
            command.arg("--input").arg(input);
        }
        Ok(Shop(command.spawn()?))
    }

    /// Kills it when it has handled so much; false when it was done before.
    fn kill_at(&mut self, at: u64, rss_kib: &mut u64) -> Result<bool, Box<dyn Error>> {
        let Some(says) = self.0.stdout.take() else { return Err("the shop says nothing".into()) };
        for line in BufReader::new(says).lines() {
            let line = line?;
            let mut numbers = line.split(' ').skip(1).filter_map(|number| number.parse::<u64>().ok());
            let (handled, rss) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
            *rss_kib = rss.max(*rss_kib);
            if handled >= at {
                // SIGKILL: nothing in the process runs any more
                self.0.kill()?;
                break;
            }
        }
        let status = self.0.wait()?;
        match (status.success(), status.code()) {
            (true, _) => Ok(false),
            (false, None) => Ok(true),
            (false, Some(_)) => Err(format!("the shop ended by itself: {status}").into()),
        }
    }

    fn finish(&mut self, rss_kib: &mut u64) -> Result<(), Box<dyn Error>> {
        match self.kill_at(u64::MAX, rss_kib)? {
            false => Ok(()),
            true => Err("the shop was killed by somebody else".into()),
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // of no effect on one that has ended
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
