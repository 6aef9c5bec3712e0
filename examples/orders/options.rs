//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

pub(crate) const HELP: &str = "\
Publishes orders to durable subscribers, kills the process at random moments, and audits every order.

Usage: orders [OPTIONS]

  --input FILE         orders, one JSON object a line: order_id, customer, date, quantity,
                       total_cents (default: a small generated file)
  --data DIR           where the store and all else is kept; empty or absent
                       (default: a temporary directory, kept only if the audit fails)
  --kills N            how often the process is killed (default: 3)
  --json               print one JSON object instead of the summary: orders, cds, cents, customers, lost,
                       applied_twice, notified_missing, kills, handled_at_kill, reruns,
                       notified_repeated, malformed, seconds, peak_rss_mib, loaded_max,
                       analytics_orders
  --break-guard ack    acknowledge the input before the turn is committed: orders are lost,
                       and the audit fails
  --break-guard dedup  publish past the turn: orders are applied twice,
                       and the audit fails
  --help               print this

Exit code: 0 if the audit holds, 1 if it fails or could not be made, 2 for bad options.
";

pub(crate) enum Command {
    Help,
    Run(Options),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) input: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) kills: u64,
    pub(crate) json: bool,
    pub(crate) broken: Option<Guard>,
    pub(crate) role: Role,
}

/// What keeps the effects of a turn to once, and can be left out to see the audit fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The position in the input is part of the turn.
    Ack,
    /// The events are part of the turn.
    Dedup,
}

/// What this process does. The program starts itself as the last two.
#[derive(Debug)]
pub(crate) enum Role {
    Killer,
    Shop(Part),
    Audit(Part),
}

/// What a process that was started by this program is told.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) input: PathBuf,
    pub(crate) data: PathBuf,
    /// The how manieth shop it is.
    pub(crate) run: u64,
    /// A shop that is to be killed takes no more than this many orders in, so that it cannot end before.
    pub(crate) hold_at: Option<u64>,
}

/// The command line cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("unknown option {0:?}")]
    Unknown(OsString),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{option} cannot be {value:?}: it needs {needs}")]
    BadValue { option: &'static str, value: OsString, needs: &'static str },
    #[error("{0} needs --input and --data")]
    NoPart(&'static str),
}

pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut options =
        Options { input: None, data: None, kills: 3, json: false, broken: None, role: Role::Killer };
    let (mut shop, mut hold_at, mut audit) = (None, None, false);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--json") => options.json = true,
            Some("--input") => options.input = Some(value("--input", &mut arguments)?.into()),
            Some("--data") => options.data = Some(value("--data", &mut arguments)?.into()),
            Some("--kills") => options.kills = number("--kills", &mut arguments)?,
            Some("--break-guard") => options.broken = Some(guard(&mut arguments)?),
            // not in the help: how the program starts itself
            Some("--child") => shop = Some(number("--child", &mut arguments)?),
            Some("--hold-at") => hold_at = Some(number("--hold-at", &mut arguments)?),
            Some("--audit") => audit = true,
            _ => return Err(UsageError::Unknown(argument)),
        }
    }
    if let Some(run) = shop {
        options.role = Role::Shop(part("--child", &options, run, hold_at)?);
    } else if audit {
        options.role = Role::Audit(part("--audit", &options, 0, None)?);
    }
    Ok(Command::Run(options))
}

fn part(option: &'static str, options: &Options, run: u64, hold_at: Option<u64>) -> Result<Part, UsageError> {
    match (options.input.clone(), options.data.clone()) {
        (Some(input), Some(data)) => Ok(Part { input, data, run, hold_at }),
        _ => Err(UsageError::NoPart(option)),
    }
}

fn value(
    option: &'static str,
    arguments: &mut impl Iterator<Item = OsString>,
) -> Result<OsString, UsageError> {
    arguments.next().ok_or(UsageError::NoValue(option))
}

fn number(option: &'static str, arguments: &mut impl Iterator<Item = OsString>) -> Result<u64, UsageError> {
    let value = value(option, arguments)?;
    let number = value.to_str().and_then(|text| u64::from_str(text).ok());
    number.ok_or(UsageError::BadValue { option, value, needs: "a whole number" })
}

fn guard(arguments: &mut impl Iterator<Item = OsString>) -> Result<Guard, UsageError> {
    let option = "--break-guard";
    let value = value(option, arguments)?;
    match value.to_str() {
        Some("ack") => Ok(Guard::Ack),
        Some("dedup") => Ok(Guard::Dedup),
        _ => Err(UsageError::BadValue { option, value, needs: "`ack` or `dedup`" }),
    }
}

impl Guard {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Guard::Ack => "ack",
            Guard::Dedup => "dedup",
        }
    }
}
