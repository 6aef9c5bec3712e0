//! One store, life after life: a child lives on it until it is harmed, and now and then another checks what is left.
//!
//! # Invariants
//! - What counts as acknowledged was read before the harm began.
//! - What is kept for `--resume` is written before the next life begins.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use steadfast::EngineChoice;
use tempfile::TempDir;

use super::broken::Broken;
use super::checker::Findings;
use super::child::{self, Running};
use super::device::Device;
use super::ledger::Ledger;
use super::options::{Fault, Options, Task};
use super::part;
use super::plan::{self, chance};
use super::report::Report;
use super::traffic;

/// Of a file system that power cuts and full disks happen to.
const LARGE_DISK: &str = "1G";
const SMALL_DISK: &str = "192M";
/// Of a store on a disk that fills up: as much as is usual.
const BALLAST: u64 = 20 << 20;
/// Is there while a check may have had the store forget what it checked.
const CHECKING: &str = "checking";
/// A child that has not done what it should for so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Clean,
    PowerCut,
    /// The disk fills up, has room again, and then the child is killed.
    Full,
}

pub(crate) struct Harness<'a> {
    options: &'a Options,
    pub(crate) seed: u64,
    pub(crate) directory: PathBuf,
    temporary: Option<TempDir>,
    pub(crate) report: Report,
    ledger: Ledger,
    began: Instant,
    seconds_before: u64,
    /// Cycles of the slices before.
    pub(crate) cycles_before: u64,
}

impl<'a> Harness<'a> {
    pub(crate) fn open(options: &'a Options) -> Result<Self, Box<dyn Error>> {
        let (directory, temporary) = match &options.resume {
            Some(directory) => (directory.clone(), None),
            None => {
                let made = tempfile::Builder::new().prefix("steadfast-torture-").tempdir()?;
                (made.path().to_owned(), Some(made))
            }
        };
        std::fs::create_dir_all(&directory)?;
        if directory.join(CHECKING).exists() {
            let directory = directory.display();
            return Err(format!(
                "the slice before was ended while it checked {directory}: what was acknowledged may be forgotten there by now; \
                 begin in another directory"
            )
            .into());
        }
        let mut report: Report = match std::fs::read_to_string(directory.join("report.json")) {
            Ok(text) => serde_json::from_str(&text)?,
            Err(_) => Report::default(),
        };
        let fault = options.fault.name();
        if !report.fault.is_empty() && report.fault != fault {
            return Err(format!("{} is a run of --fault {}", directory.display(), report.fault).into());
        }
        if report.fault.is_empty() {
            let random = std::time::SystemTime::UNIX_EPOCH.elapsed()?.subsec_nanos();
            report.seed = options.seed.unwrap_or(u64::from(random));
        }
        report.fault = fault.to_owned();
        report.slices += 1;
        report.skipped = None;
        let ledger = std::fs::read_to_string(directory.join("ledger")).unwrap_or_default();
        let (seed, seconds_before, cycles_before) = (report.seed, report.seconds, report.cycles);
        let ledger = Ledger::of_text(&ledger);
        let began = Instant::now();
        Ok(Harness {
            options,
            seed,
            directory,
            temporary,
            report,
            ledger,
            began,
            seconds_before,
            cycles_before,
        })
    }

    /// Keeps what the next slice needs; where something is wrong that was not planted, everything.
    pub(crate) fn end(mut self) -> Result<Report, Box<dyn Error>> {
        let checked = self.report.checks + self.report.refused_cases;
        let nothing = self.report.acknowledged == 0 || checked == 0;
        if nothing && self.report.skipped.is_none() && self.report.holds() {
            self.report.problem("nothing was acknowledged, or nothing checked: this shows nothing".into());
        }
        self.save()?;
        if !self.report.holds()
            && self.options.broken.is_none()
            && let Some(temporary) = self.temporary.take()
        {
            eprintln!("everything is kept in {}", temporary.keep().display());
        }
        Ok(self.report)
    }

    fn save(&mut self) -> Result<(), Box<dyn Error>> {
        self.save_with("")
    }

    /// This program may be ended too: whoever goes on does not know what the life that begins now will have sent.
    fn save_before(&mut self, life: u64) -> Result<(), Box<dyn Error>> {
        let most = u64::from(u32::MAX);
        let lines = plan::SENDERS.map(|sender| traffic::announcement(life, sender, most) + "\n");
        self.save_with(&lines.concat())
    }

    fn save_with(&mut self, more: &str) -> Result<(), Box<dyn Error>> {
        self.report.seconds = self.seconds_before + self.began.elapsed().as_secs();
        std::fs::write(self.directory.join("ledger"), self.ledger.to_text() + more)?;
        std::fs::write(self.directory.join("report.json"), serde_json::to_string(&self.report)?)?;
        Ok(())
    }

    pub(crate) fn goes_on(&self, done: u64) -> bool {
        let time = match self.options.minutes {
            Some(minutes) => self.began.elapsed() < Duration::from_secs(60 * minutes),
            None => done < self.options.cycles,
        };
        time && self.report.holds()
    }

    /// The fault that is one store's: everything but damage and simulated disks.
    pub(crate) fn lives(&mut self) -> Result<(), Box<dyn Error>> {
        let mut device = match self.device() {
            Ok(device) => device,
            Err(why) if self.options.fault == Fault::Soak => {
                self.report.skipped = Some(format!("power cuts and full disks in the soak: {why}"));
                None
            }
            Err(why) => {
                self.report.skipped = Some(why);
                return Ok(());
            }
        };
        let check_every = match self.options.fault {
            Fault::Kill9 if self.options.cycles >= 100 || self.options.minutes.is_some() => 20,
            Fault::Kill9 => 5,
            _ => 3,
        };
        let mut done = 0;
        while self.goes_on(done) {
            done += 1;
            self.report.cycles += 1;
            let life = self.report.cycles;
            let end = self.end_of(life, device.is_some());
            self.save_before(life)?;
            self.life(life, end, &mut device)?;
            if done % check_every == 0 || !self.goes_on(done) || end == End::Full {
                self.check(life, &mut device)?;
            }
            self.save()?;
        }
        Ok(())
    }

    fn device(&self) -> Result<Option<Device>, String> {
        let size = match self.options.fault {
            Fault::PowerCut => LARGE_DISK,
            Fault::DiskFull | Fault::Soak => SMALL_DISK,
            _ => return Ok(None),
        };
        Device::make_in(&self.directory, size).map(Some)
    }

    fn end_of(&self, life: u64, has_device: bool) -> End {
        match self.options.fault {
            Fault::PowerCut => End::PowerCut,
            Fault::DiskFull => End::Full,
            Fault::Soak => match (chance(self.seed, ("end", life), 8), has_device) {
                (0 | 1, _) => End::Clean,
                (2 | 3, true) => End::PowerCut,
                (4, true) => End::Full,
                _ => End::Kill,
            },
            _ => End::Kill,
        }
    }

    fn place(&self, device: &mut Option<Device>) -> Result<PathBuf, Box<dyn Error>> {
        let directory = match device {
            Some(device) => device.mount()?,
            None => self.directory.clone(),
        };
        Ok(directory.join("store"))
    }

    fn life(&mut self, life: u64, end: End, device: &mut Option<Device>) -> Result<(), Box<dyn Error>> {
        let store = self.place(device)?;
        let _ = std::fs::remove_file(part::end(&store));
        let mut running = self.start(Task::Live, &store, life)?;
        // some are harmed while they recover
        let recovers = life.is_multiple_of(5) && matches!(end, End::Kill | End::PowerCut);
        if !recovers && !self.waits_for(&mut running, "a ", 1, &store) {
            drop(running);
            return device.as_mut().map_or(Ok(()), Device::unmount).map_err(Into::into);
        }
        let time = match (recovers, self.options.fault) {
            (true, _) => chance(self.seed, ("time", life), 120),
            (false, Fault::Soak) => 1_000 + chance(self.seed, ("time", life), 6_000),
            (false, Fault::Kill9) => chance(self.seed, ("time", life), 400),
            // a fault that is planted has time to show
            _ => 200 + chance(self.seed, ("time", life), 1_000),
        };
        let least = if self.options.broken.is_some() { 300 } else { 0 };
        std::thread::sleep(Duration::from_millis(time + least));
        if running.has_ended() {
            let why = std::fs::read_to_string(child::errors(&store)).unwrap_or_default();
            self.report.panics += 1;
            self.report.problems.push(format!("life {life} ended by itself: {why}"));
        }
        if let Some(mib) = peak_mib(running.pid()) {
            self.report.took_memory(mib);
        }
        match end {
            End::PowerCut => self.cut_power(running, device)?,
            End::Full => self.fill(running, &store)?,
            End::Clean => self.end_cleanly(running, &store)?,
            End::Kill => {
                self.report.kills += 1;
                self.take(&running.kill(), false);
            }
        }
        if let Some(why) = panic_of(&store) {
            self.report.panics += 1;
            self.report.problems.push(format!("life {life}: {why}"));
        }
        if let Some(device) = device.as_mut() {
            device.unmount()?;
        }
        Ok(())
    }

    /// Takes in what a child said. After a failure that was made, errors are what was to be expected.
    fn take(&mut self, lines: &[String], may_fail: bool) {
        let before = self.ledger.acknowledged.len() + self.ledger.published.len();
        lines.iter().for_each(|line| self.ledger.read(line));
        let now = self.ledger.acknowledged.len() + self.ledger.published.len();
        self.report.acknowledged += (now - before) as u64;
        self.report.refused += std::mem::take(&mut self.ledger.refused);
        for ms in std::mem::take(&mut self.ledger.open_ms) {
            self.report.opened(ms);
        }
        for wrong in std::mem::take(&mut self.ledger.wrong) {
            self.report.half_visible += 1;
            self.report.problems.push(wrong);
        }
        for why in std::mem::take(&mut self.ledger.failed).into_iter().filter(|_| !may_fail).take(1) {
            self.report.problem(format!("the store failed: {why}"));
        }
    }

    fn cut_power(&mut self, running: Running, device: &Option<Device>) -> Result<(), Box<dyn Error>> {
        self.report.power_cuts += 1;
        // what is read after the cut may rest on syncs that were answered by a file system already dead
        let read = device.as_ref().ok_or("no device")?.cut_power_after(|| running.said())?;
        let after = running.kill();
        self.take(&read, true);
        // but what was to be sent may have been
        let announced: Vec<_> = after.into_iter().filter(|line| line.starts_with("i ")).collect();
        self.take(&announced, true);
        Ok(())
    }

    fn end_cleanly(&mut self, running: Running, store: &Path) -> Result<(), Box<dyn Error>> {
        std::fs::write(part::end(store), "")?;
        let mut running = running;
        if self.waits_for(&mut running, "done", 1, store) {
            self.report.clean_ends += 1;
        }
        self.take(&running.kill(), false);
        Ok(())
    }

    /// Takes all room, waits until senders are refused, gives the room back, and waits until they go on.
    fn fill(&mut self, mut running: Running, store: &Path) -> Result<(), Box<dyn Error>> {
        let filler = store.with_extension("filler");
        let refused = running.count("refused");
        fill_up(&filler)?;
        if !self.waits_for(&mut running, "refused", refused + 1, store) {
            std::fs::remove_file(&filler)?;
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(chance(self.seed, ("full", self.report.cycles), 300)));
        std::fs::remove_file(&filler)?;
        let acknowledged = running.count("a ");
        if !self.waits_for(&mut running, "a ", acknowledged + 200, store) {
            return Ok(());
        }
        self.report.times_full += 1;
        // every other one ends cleanly
        if self.report.cycles.is_multiple_of(2) {
            return self.end_cleanly(running, store);
        }
        self.report.kills += 1;
        self.take(&running.kill(), false);
        Ok(())
    }

    /// False if it does not come to be said in time: a hang, or an end.
    fn waits_for(&mut self, running: &mut Running, begin: &str, times: usize, store: &Path) -> bool {
        let patience = Instant::now() + PATIENCE;
        while running.count(begin) < times {
            let ended = running.has_ended() && running.count(begin) < times;
            if ended || Instant::now() > patience {
                let why = std::fs::read_to_string(child::errors(store)).unwrap_or_default();
                let last = running.said().last().cloned().unwrap_or_default();
                if ended {
                    self.report.panics += 1
                } else {
                    self.report.hangs += 1
                }
                let what = if ended { "ended by itself" } else { "hangs" };
                let (life, count) = (self.report.cycles, running.count(begin));
                let what = format!(
                    "life {life} {what} before {begin:?} was said {times} times ({count}): {last}; {why}"
                );
                self.report.problems.push(what);
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    fn start(&self, task: Task, store: &Path, life: u64) -> Result<Running, Box<dyn Error>> {
        let broken = self.options.broken.filter(|_| task == Task::Live);
        let ballast = if self.fills() { BALLAST } else { 0 };
        let more = Lives { life, settled: self.ledger.settled, ballast, engine: self.options.engine };
        start(task, store, self.seed, broken, more)
    }

    fn fills(&self) -> bool {
        matches!(self.options.fault, Fault::DiskFull | Fault::Soak)
    }

    fn check(&mut self, life: u64, device: &mut Option<Device>) -> Result<(), Box<dyn Error>> {
        let store = self.place(device)?;
        std::fs::write(part::ledger(&store), self.ledger.to_text())?;
        let checking = self.directory.join(CHECKING);
        std::fs::write(&checking, "")?;
        match ended(self.start(Task::Check, &store, life)?, &store)? {
            Read::Found(found, open_ms) => {
                let next = found.next;
                self.report.opened(open_ms);
                self.report.add(*found);
                if self.report.holds() {
                    self.ledger.settle(life, next);
                }
            }
            Read::Refused { why, .. } => self.report.problem(format!("the store cannot be checked: {why}")),
            Read::Panicked(why) => {
                self.report.panics += 1;
                self.report.problems.push(why);
            }
            Read::Hangs => self.report.hangs += 1,
        }
        self.save()?;
        std::fs::remove_file(checking)?;
        self.report.takes_disk(size(&store));
        if let Some(device) = device {
            device.unmount()?;
        }
        Ok(())
    }
}

/// What came of reading a store in a process of its own.
pub(crate) enum Read {
    /// With the milliseconds it took to open.
    Found(Box<Findings>, u64),
    /// Whether it was opened before.
    Refused {
        why: String,
        opened: bool,
    },
    Panicked(String),
    Hangs,
}

/// Has a child check a store, whose ledger lies beside it.
pub(crate) fn read(task: Task, store: &Path, seed: u64, life: u64) -> Result<Read, Box<dyn Error>> {
    ended(start(task, store, seed, None, Lives { life, ..Lives::default() })?, store)
}

/// What a child that checks came to.
fn ended(mut running: Running, store: &Path) -> Result<Read, Box<dyn Error>> {
    let patience = Instant::now() + 2 * PATIENCE;
    while !running.has_ended() {
        if Instant::now() > patience {
            return Ok(Read::Hangs);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let said = running.kill();
    if let Some(why) = panic_of(store) {
        return Ok(Read::Panicked(why));
    }
    let after = |word: &str| said.iter().find_map(|line| line.strip_prefix(word));
    if let Some(found) = after("found ") {
        let open_ms = after("open ").and_then(|ms| ms.parse().ok()).unwrap_or_default();
        return Ok(Read::Found(Box::new(serde_json::from_str(found)?), open_ms));
    }
    if let Some(why) = after("refused ") {
        // an actor that could not read what it needs has stopped, and the log says why
        let log = std::fs::read_to_string(child::errors(store)).unwrap_or_default();
        let why = format!("{why} {}", log.lines().next().unwrap_or_default());
        return Ok(Read::Refused { why, opened: after("open ").is_some() });
    }
    Ok(Read::Panicked(std::fs::read_to_string(child::errors(store)).unwrap_or_default()))
}

/// Which life a child is, after those that were checked, and what it sets aside.
#[derive(Default)]
pub(crate) struct Lives {
    pub(crate) life: u64,
    pub(crate) settled: u64,
    pub(crate) ballast: u64,
    /// None: the engine the store has.
    pub(crate) engine: Option<EngineChoice>,
}

/// This program again, as another part.
pub(crate) fn start(
    task: Task,
    store: &Path,
    seed: u64,
    broken: Option<Broken>,
    Lives { life, settled, ballast, engine }: Lives,
) -> Result<Running, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", task.name()]).arg("--store").arg(store).stdin(Stdio::null());
    command.args(["--seed", &seed.to_string(), "--life", &life.to_string()]);
    command.args(["--settled", &settled.to_string(), "--ballast", &ballast.to_string()]);
    if let Some(engine) = engine {
        command.args(["--engine", engine.name()]);
    }
    if let Some(broken) = broken.filter(|broken| *broken != Broken::Wipe) {
        command.args(["--break", broken.name()]);
    }
    // glibc gives each thread a heap of its own and keeps what is freed in it: two are enough for a few threads
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        command.env("MALLOC_ARENA_MAX", "2");
    }
    Ok(Running::of(command, store))
}

/// Writes until there is no room left.
fn fill_up(filler: &Path) -> std::io::Result<()> {
    use std::io::{ErrorKind, Write};
    let mut file = std::fs::File::create(filler)?;
    for block in [vec![7; 1 << 20], vec![7; 4096]] {
        loop {
            match file.write_all(&block).and_then(|()| file.sync_data()) {
                Ok(()) => {}
                Err(why) if why.kind() == ErrorKind::StorageFull => break,
                Err(why) => return Err(why),
            }
        }
    }
    Ok(())
}

/// What the last child of a store said of a panic that was not planned, if there was one: one in a task does not end a process.
fn panic_of(store: &Path) -> Option<String> {
    let errors = std::fs::read_to_string(child::errors(store)).unwrap_or_default();
    let begin = errors.find("panicked at")?;
    Some(errors[begin..].chars().take(500).collect())
}

/// What a process takes at most, as the kernel counts it; none where that cannot be read.
fn peak_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// The size of everything in a directory.
fn size(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
