//! Looks through a store that nobody has open, or carries what can be read of it into a new one: for the moment at which a
//! store does not open. See docs/operations.md.
//!
//! ```console
//! cargo run --example inspect -- check DIR [--json]
//! cargo run --example inspect -- salvage DIR TO [--json]
//! ```
//!
//! Exit codes: 0 nothing is wrong, 1 something is in doubt, 2 something is lost, 3 it could not be done, 64 it was called
//! wrongly. With `--json` the report is one object on the standard output, and nothing else is.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use steadfast::{CheckReport, SalvageReport, Severity};

const USAGE: &str = "usage: inspect check DIR [--json]
       inspect salvage DIR TO [--json]

check    looks through the store in DIR and changes nothing of it
salvage  carries what can be read of it into a new store in TO, which is empty or still to be made

Nobody may have the store open. Room is needed for copies of the engine's files (DIR/sled): twice in the
directory for temporary files (TMPDIR) for `check`, once more than what is carried in TO for `salvage`.

Exit code: 0 nothing is wrong, 1 something is in doubt, 2 something is lost, 3 it could not be done.";

/// What is asked for.
enum Task {
    Check(PathBuf),
    Salvage(PathBuf, PathBuf),
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let before = arguments.len();
    arguments.retain(|argument| argument != "--json");
    let as_json = arguments.len() < before;
    let Some(task) = task(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    match run(&task, as_json) {
        Ok(None | Some(Severity::Note)) => ExitCode::SUCCESS,
        Ok(Some(Severity::Doubt)) => ExitCode::from(1),
        Ok(Some(_)) => ExitCode::from(2),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}

fn task(arguments: &[String]) -> Option<Task> {
    match arguments {
        [verb, path] if verb == "check" => Some(Task::Check(path.into())),
        [verb, path, to] if verb == "salvage" => Some(Task::Salvage(path.into(), to.into())),
        _ => None,
    }
}

/// Does it, and gives the worst that was found.
fn run(task: &Task, as_json: bool) -> Result<Option<Severity>, Box<dyn Error>> {
    let (found, json) = match task {
        Task::Check(path) => {
            let report = steadfast::check(path)?;
            let json = serde_json::to_string(&report)?;
            (report, json)
        }
        Task::Salvage(path, to) => {
            let report = steadfast::salvage(path, to)?;
            let json = serde_json::to_string(&report)?;
            if !as_json {
                println!("{} holds a new store, {}. In it is:", to.display(), report.store);
            }
            let SalvageReport { found, .. } = report;
            (found, json)
        }
    };
    if as_json {
        println!("{json}")
    } else {
        tell(&found)
    }
    Ok(found.worst())
}

fn tell(report: &CheckReport) {
    let format = report.format.map_or_else(|| "unknown".into(), |format| format.to_string());
    let ended = if report.closed_cleanly { "closed cleanly" } else { "not closed cleanly" };
    println!("store {}, format {format}, engine {}, {ended}", report.store, report.engine);
    println!(
        "checkpoint at commit {}, then {} commits of {} segments up to commit {}",
        report.checkpoint, report.commits, report.segments, report.last_commit
    );
    println!("{} keys and {} pages verified", report.keys, report.pages);
    tell_contents(report);
    for finding in &report.findings {
        println!("{finding}");
    }
    if let Some(lost) = report.lost_commits {
        println!(
            "not applied: what was committed after commit {}, at least up to {}; of it {} commits with {} messages can be read",
            lost.after, lost.until, lost.readable, lost.messages
        );
    }
    match report.worst() {
        None => println!("nothing is wrong"),
        Some(worst) => println!("{} findings, the worst: {worst:?}", report.findings.len()),
    }
}

fn tell_contents(report: &CheckReport) {
    let contents = &report.contents;
    println!(
        "{} mailboxes, {} topics, {} dead letters, {} scheduled, {} cells, {} dedup marks",
        contents.known_mailboxes,
        contents.topics.len(),
        contents.dead_letters,
        contents.scheduled,
        contents.cells,
        contents.marks
    );
    for mailbox in &contents.mailboxes {
        let (waiting, bytes, dead) = (mailbox.waiting, mailbox.bytes, mailbox.dead_letters);
        println!("  mailbox {}: {waiting} wait ({bytes} bytes), {dead} dead letters", mailbox.name);
    }
    for topic in &contents.topics {
        println!("  topic {}: {} events, the next is {}", topic.name, topic.events, topic.next);
        for reader in &topic.subscriptions {
            let paused = if reader.paused { ", paused" } else { "" };
            println!("    {} is at {}, {} wait{paused}", reader.reader, reader.front, reader.waiting);
        }
    }
}
