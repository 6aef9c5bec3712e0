//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use steadfast::EngineChoice;

use super::broken::Broken;

pub(crate) const HELP: &str = "\
Has actors send, move money, publish and wait, does harm to their process, their disk or their files, again and
again, and checks each time that nothing acknowledged is lost, doubled, reordered or half done.

Usage: torture --fault NAME [OPTIONS]

  --fault kill9          kill -9 at random moments, on one store
  --fault power-cut      an ext4 on a loop device is shut down without a flush (needs root)
  --fault damage         a byte, a range, a length or a file is damaged; then all is read
  --fault disk-full      the disk fills up, and has room again
  --fault soak           all of the above that can run on one store, for a long time
  --fault syscall-kill   the power is cut at each operation of a simulated disk, one by one
  --fault syscall-error  each operation of a simulated disk fails, one by one

  --cycles N             how often harm is done (default: 20)
  --cases N              the same word for damage and syscall-*
  --minutes N            as long as that, instead
  --seed S               decides what is sent and done; the machine's timing is its own (default: random)
  --engine NAME          the engine of the store: sled, or redb where it was built with the feature (default: sled)
  --resume DIR           keep the store and the counts here, and go on with those that are there
  --json                 the last line is one JSON object with every count
  --break NAME           plant a fault in the workload, which must be noticed: acknowledges-early, half-turn,
                         past-the-turn, swaps, phantom, drops-events, no-dedup, mints,
                         tells-lies, forgets-the-expiring; with damage: wipe
  --help                 print this

Exit code: 0 if all holds or the fault was skipped, 1 if anything is wrong, 2 for bad options.
";

pub(crate) enum Command {
    Help,
    Run(Options),
    Child(Child),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill9,
    PowerCut,
    Damage,
    DiskFull,
    Soak,
    SyscallKill,
    SyscallError,
}

impl Fault {
    const ALL: [(&'static str, Fault); 7] = [
        ("kill9", Fault::Kill9),
        ("power-cut", Fault::PowerCut),
        ("damage", Fault::Damage),
        ("disk-full", Fault::DiskFull),
        ("soak", Fault::Soak),
        ("syscall-kill", Fault::SyscallKill),
        ("syscall-error", Fault::SyscallError),
    ];

    pub(crate) fn name(self) -> &'static str {
        Fault::ALL.iter().find(|(_, fault)| *fault == self).map_or("", |(name, _)| name)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) fault: Fault,
    pub(crate) cycles: u64,
    pub(crate) minutes: Option<u64>,
    pub(crate) seed: Option<u64>,
    pub(crate) resume: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) broken: Option<Broken>,
    pub(crate) engine: Option<EngineChoice>,
}

/// What a process that was started by this program is told.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) task: Task,
    pub(crate) store: PathBuf,
    pub(crate) seed: u64,
    pub(crate) broken: Option<Broken>,
    pub(crate) life: u64,
    /// All messages of lives up to this one were checked and forgotten.
    pub(crate) settled: u64,
    /// Bytes set aside on the disk.
    pub(crate) ballast: u64,
    /// None: the engine the store has.
    pub(crate) engine: Option<EngineChoice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Sends until it is killed, or told to end.
    Live,
    /// Sends a little, so that what follows can be damaged.
    Lay,
    /// Checks all and has it forgotten.
    Check,
    /// Checks all of what was damaged.
    Read,
}

impl Task {
    const ALL: [(&'static str, Task); 4] =
        [("live", Task::Live), ("lay", Task::Lay), ("check", Task::Check), ("read", Task::Read)];

    pub(crate) fn name(self) -> &'static str {
        Task::ALL.iter().find(|(_, task)| *task == self).map_or("", |(name, _)| name)
    }
}

/// The command line cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("unknown option {0:?}")]
    Unknown(OsString),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{option} cannot be {value:?}: it needs {needs}")]
    BadValue { option: &'static str, value: OsString, needs: String },
    #[error("--fault is missing: it needs one of {}", names(&Fault::ALL))]
    NoFault,
    #[error("--break wipe goes with --fault damage, and only that")]
    Wipe,
    #[error("--child needs --store")]
    NoStore,
}

pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let (mut fault, mut cycles, mut minutes, mut seed, mut resume) = (None, 20, None, None, None);
    let (mut json, mut broken, mut task, mut store) = (false, None, None, None);
    let (mut life, mut settled, mut ballast, mut engine) = (1, 0, 0, None);
    let rest = &mut arguments;
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--json") => json = true,
            Some("--fault") => fault = Some(one_of("--fault", rest, &Fault::ALL)?),
            Some("--cycles") => cycles = at_least_one("--cycles", rest)?,
            Some("--cases") => cycles = at_least_one("--cases", rest)?,
            Some("--minutes") => minutes = Some(at_least_one("--minutes", rest)?),
            Some("--seed") => seed = Some(number("--seed", rest)?),
            Some("--resume") => resume = Some(value("--resume", rest)?.into()),
            Some("--engine") => engine = Some(one_of("--engine", rest, &engines())?),
            Some("--break") => broken = Some(one_of("--break", rest, &Broken::ALL)?),
            // not in the help: how the program starts itself
            Some("--child") => task = Some(one_of("--child", rest, &Task::ALL)?),
            Some("--store") => store = Some(PathBuf::from(value("--store", rest)?)),
            Some("--life") => life = at_least_one("--life", rest)?,
            Some("--settled") => settled = number("--settled", rest)?,
            Some("--ballast") => ballast = number("--ballast", rest)?,
            _ => return Err(UsageError::Unknown(argument)),
        }
    }
    if let Some(task) = task {
        let (store, seed) = (store.ok_or(UsageError::NoStore)?, seed.unwrap_or_default());
        return Ok(Command::Child(Child { task, store, seed, broken, life, settled, ballast, engine }));
    }
    let fault = fault.ok_or(UsageError::NoFault)?;
    if broken.is_some_and(|broken| (broken == Broken::Wipe) != (fault == Fault::Damage)) {
        return Err(UsageError::Wipe);
    }
    Ok(Command::Run(Options { fault, cycles, minutes, seed, resume, json, broken, engine }))
}

fn engines() -> Vec<(&'static str, EngineChoice)> {
    EngineChoice::available().map(|engine| (engine.name(), engine)).collect()
}

type Arguments<'a> = &'a mut dyn Iterator<Item = OsString>;

fn value(option: &'static str, arguments: Arguments<'_>) -> Result<OsString, UsageError> {
    arguments.next().ok_or(UsageError::NoValue(option))
}

fn number(option: &'static str, arguments: Arguments<'_>) -> Result<u64, UsageError> {
    let value = value(option, arguments)?;
    let number = value.to_str().and_then(|text| u64::from_str(text).ok());
    number.ok_or(UsageError::BadValue { option, value, needs: "a whole number".into() })
}

fn at_least_one(option: &'static str, arguments: Arguments<'_>) -> Result<u64, UsageError> {
    match number(option, arguments)? {
        0 => Err(UsageError::BadValue { option, value: "0".into(), needs: "a number from 1".into() }),
        number => Ok(number),
    }
}

fn one_of<T: Copy>(
    option: &'static str,
    arguments: Arguments<'_>,
    all: &[(&'static str, T)],
) -> Result<T, UsageError> {
    let value = value(option, arguments)?;
    let known = all.iter().find(|(name, _)| value.to_str() == Some(name)).map(|(_, one)| *one);
    known.ok_or_else(|| UsageError::BadValue { option, value, needs: format!("one of {}", names(all)) })
}

fn names<T>(all: &[(&'static str, T)]) -> String {
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}
