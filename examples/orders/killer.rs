//! The process you start: runs the shop as a child, kills it with SIGKILL when it has come to a random point,
//! runs it again, and in the end has it audited by a process that has nothing in memory.
//!
//! # Invariants
//! - As many kills happen as were asked for, each further on than the one before.
//! - A child never outlives this process's interest in it.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::audit::Findings;
use super::bar::Bar;
use super::data::Data;
use super::dice::Dice;
use super::input::{Orders, Position};
use super::options::{Guard, Options};
use super::products::SLICE;
use super::report::Report;
use super::sample;

/// A shop that has said nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(60);
/// A shop that takes no more orders in and has said nothing for so long has handled all it will.
const QUIET: Duration = Duration::from_millis(500);
/// The fewest slices between two kills.
const SLICES_APART: u64 = 4;

/// The orders were not handled to their end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{0} is not empty; give a directory that is empty or absent")]
    DataNotEmpty(PathBuf),
    #[error("{0} cannot be read: {1}")]
    Input(PathBuf, std::io::Error),
    #[error("{orders} orders are too few to kill the shop {kills} times; at least {least} are needed")]
    TooFewOrders { orders: u64, kills: u64, least: u64 },
    #[error("the {part} ended by itself: {status}")]
    Ended { part: &'static str, status: ExitStatus },
    #[error("the shop has made no progress for {SILENCE:?}")]
    Stuck,
}

impl RunError {
    /// Whether other options would help.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, RunError::DataNotEmpty(_) | RunError::Input(..) | RunError::TooFewOrders { .. })
    }
}

pub(crate) fn run(options: &Options) -> Result<Report, Box<dyn Error>> {
    // whatever other options would mend is found before anything is written
    let orders = options.input.as_deref().map_or(Ok(sample::ORDERS), count)?;
    let kills = plan(orders, options.kills)?;
    let place = Place::prepare(options)?;
    let (began, bar) = (Instant::now(), Bar::new(orders));
    let mut handled_at_kill = Vec::new();
    let mut most = Progress::default();
    for kill in kills {
        let mut shop = Shop::start(&place, options.broken, handled_at_kill.len(), Some(kill.hold_at))?;
        let handled = shop.kill_at(kill.at, |now| {
            most = most.most(now);
            bar.show(now.handled, handled_at_kill.len());
        })?;
        handled_at_kill.push(handled);
    }
    let shop = Shop::start(&place, options.broken, handled_at_kill.len(), None)?;
    shop.finish(|now| {
        most = most.most(now);
        bar.show(now.handled, handled_at_kill.len());
    })?;
    drop(bar);
    let findings = place.audit()?;
    let report = Report::new(findings, handled_at_kill, began.elapsed(), most);
    if !report.holds() {
        place.keep();
    }
    Ok(report)
}

/// Where everything lies.
struct Place {
    input: PathBuf,
    data: PathBuf,
    /// Removed at the end.
    temporary: Option<TempDir>,
}

impl Place {
    fn prepare(options: &Options) -> Result<Self, Box<dyn Error>> {
        let (data, temporary) = match &options.data {
            Some(data) => (data.clone(), None),
            None => {
                let made = tempfile::Builder::new().prefix("steadfast-orders-").tempdir()?;
                (made.path().to_owned(), Some(made))
            }
        };
        std::fs::create_dir_all(&data)?;
        if std::fs::read_dir(&data)?.next().is_some() {
            return Err(RunError::DataNotEmpty(data).into());
        }
        let input = match &options.input {
            Some(input) => input.clone(),
            None => {
                let input = Data(&data).sample();
                sample::write(&input)?;
                input
            }
        };
        Ok(Place { input, data, temporary })
    }

    /// This program again, as another part of the play.
    fn command(&self, broken: Option<Guard>) -> Result<Command, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--input").arg(&self.input).arg("--data").arg(&self.data);
        if let Some(guard) = broken {
            command.args(["--break-guard", guard.name()]);
        }
        command.stdin(Stdio::null());
        // glibc gives each thread a heap of its own and keeps what is freed in it: two are enough for a few threads
        if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
            command.env("MALLOC_ARENA_MAX", "2");
        }
        Ok(command)
    }

    fn audit(&self) -> Result<Findings, Box<dyn Error>> {
        let output = self.command(None)?.arg("--audit").stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(RunError::Ended { part: "audit", status: output.status }.into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Leaves what there is for you to look at.
    fn keep(self) {
        if let Some(temporary) = self.temporary {
            eprintln!("everything is kept in {}", temporary.keep().display());
        }
    }
}

fn count(input: &Path) -> Result<u64, RunError> {
    let unreadable = |why| RunError::Input(input.to_owned(), why);
    let mut orders = Orders::open(input, Position::default()).map_err(unreadable)?;
    while orders.next().transpose().map_err(unreadable)?.is_some() {}
    Ok(orders.position.orders)
}

/// When the shop is killed, in orders handled; and how many orders it may have taken in before it waits for a
/// kill that comes late.
struct Kill {
    at: u64,
    hold_at: u64,
}

/// Kills at random points from 5 to 95 % of the work, one in each of as many equal parts, so that the work is
/// killed early, late and between.
fn plan(orders: u64, kills: u64) -> Result<Vec<Kill>, RunError> {
    let mut dice = Dice::random();
    let (from, to) = (orders * 5 / 100, orders * 95 / 100);
    let part = (to - from) / kills.max(1);
    let slice = SLICE as u64;
    if kills > 0 && part < SLICES_APART * slice {
        let least = (kills * SLICES_APART * slice * 100).div_ceil(90) + 2;
        return Err(RunError::TooFewOrders { orders, kills, least });
    }
    let kill = |begin: u64| {
        // a slice after the begin: what was taken in before the last hold may have gone so far
        let at = begin + slice + dice.below(part - 2 * slice);
        Kill { at, hold_at: begin + part }
    };
    Ok((0..kills).map(|index| from + index * part).map(kill).collect())
}

/// A shop that runs.
struct Shop {
    child: Child,
    says: Receiver<Says>,
}

enum Says {
    Handled(Progress),
    Held,
}

/// How far a shop has come, and what it costs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    pub(crate) handled: u64,
    pub(crate) peak_rss_mib: u64,
    pub(crate) loaded: u64,
}

impl Progress {
    /// The most of both, whatever was handled.
    fn most(self, other: Progress) -> Progress {
        Progress {
            handled: other.handled,
            peak_rss_mib: self.peak_rss_mib.max(other.peak_rss_mib),
            loaded: self.loaded.max(other.loaded),
        }
    }
}

impl Shop {
    fn start(
        place: &Place,
        broken: Option<Guard>,
        run: usize,
        hold_at: Option<u64>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut command = place.command(broken)?;
        command.args(["--child", &run.to_string()]);
        if let Some(hold_at) = hold_at {
            command.args(["--hold-at", &hold_at.to_string()]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let (say, says) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            // a thread, because a pipe cannot be read with a time limit; it ends with the pipe
            std::thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                lines.filter_map(|line| Says::read(&line)).try_for_each(|said| say.send(said))
            });
        }
        Ok(Shop { child, says })
    }

    /// Kills the shop when it has handled so many orders. Returns how many it had.
    fn kill_at(&mut self, at: u64, mut show: impl FnMut(Progress)) -> Result<u64, RunError> {
        let (mut handled, mut held) = (0, false);
        loop {
            match self.says.recv_timeout(if held { QUIET } else { SILENCE }) {
                Ok(Says::Handled(now)) => {
                    handled = now.handled;
                    show(now);
                }
                Ok(Says::Held) => held = true,
                // where orders are lost, the count that is waited for never comes
                Err(mpsc::RecvTimeoutError::Timeout) if held => break,
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(RunError::Stuck),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(self.ended()),
            }
            if handled >= at {
                break;
            }
        }
        // SIGKILL: nothing in the process runs any more, no destructor and no flush
        let _ = self.child.kill();
        let _ = self.child.wait();
        Ok(handled)
    }

    /// Waits until the shop has ended.
    fn finish(mut self, mut show: impl FnMut(Progress)) -> Result<(), RunError> {
        loop {
            match self.says.recv_timeout(SILENCE) {
                Ok(Says::Handled(now)) => show(now),
                Ok(Says::Held) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(RunError::Stuck),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(self.ended()),
        }
    }

    fn ended(&mut self) -> RunError {
        let status = self.child.wait().unwrap_or_default();
        RunError::Ended { part: "shop", status }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // of no effect on one that has ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Says {
    fn read(line: &str) -> Option<Self> {
        let Some(numbers) = line.strip_prefix("handled ") else {
            return (line == "held").then_some(Says::Held);
        };
        let mut numbers = numbers.split(' ').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Says::Handled(Progress { handled: next()?, peak_rss_mib: next()?, loaded: next()? }))
    }
}
