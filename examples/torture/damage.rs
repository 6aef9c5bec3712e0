//! Damage: a store that was closed or killed, with one byte, range, length or file of it changed. Reading all of it must end in a
//! typed error, or find everything.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use steadfast::EngineChoice;

use super::broken::Broken;
use super::harness::{Harness, Lives, Read, read, start};
use super::ledger::Ledger;
use super::options::Task;
use super::part;
use super::plan::{self, chance};
use super::traffic;

/// A store to be damaged, which stays as it is.
struct Original {
    store: PathBuf,
    what: &'static str,
    ledger: Ledger,
}

pub(crate) fn run(harness: &mut Harness<'_>, broken: Option<Broken>) -> Result<(), Box<dyn Error>> {
    let originals = [lay(harness, true)?, lay(harness, false)?];
    let mut done = 0;
    while harness.goes_on(done) {
        done += 1;
        harness.report.cycles += 1;
        case(harness, &originals, broken)?;
    }
    Ok(())
}

/// Has a store made and ended.
fn lay(harness: &mut Harness<'_>, cleanly: bool) -> Result<Original, Box<dyn Error>> {
    const PATIENCE: Duration = Duration::from_secs(120);
    let what = if cleanly { "closed" } else { "killed" };
    let directory = harness.directory.join(what);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)?;
    let store = directory.join("store");
    let mut running = start(
        Task::Lay,
        &store,
        harness.seed,
        None,
        Lives { life: 1, engine: harness.options.engine, ..Lives::default() },
    )?;
    let until = Instant::now() + PATIENCE;
    let waits = |running: &mut super::child::Running, line: &str| {
        while running.count(line) == 0 {
            if running.has_ended() || Instant::now() > until {
                return Err(format!("a store could not be made: {:?}", running.said().last()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    };
    waits(&mut running, "quiet")?;
    if cleanly {
        std::fs::write(part::end(&store), "")?;
        waits(&mut running, "done")?;
    }
    let mut ledger = Ledger::default();
    let said = running.kill();
    // after an unclean end, what was said before the last were sent is what a store must hold to
    let last = traffic::announcement(1, plan::UNHEARD, 0);
    let last = last.trim_end_matches('0');
    let told_last = said.iter().position(|line| line.starts_with(last)).unwrap_or(said.len());
    for (at, line) in said.iter().enumerate() {
        if cleanly || at <= told_last || !matches!(line.as_bytes(), [b'h' | b'd' | b'x', b' ', ..]) {
            ledger.read(line);
        }
    }
    if cleanly {
        ledger.acknowledged.extend(&ledger.unheard);
    }
    harness.report.acknowledged += (ledger.acknowledged.len() + ledger.published.len()) as u64;
    Ok(Original { store, what, ledger })
}

fn case(
    harness: &mut Harness<'_>,
    originals: &[Original; 2],
    broken: Option<Broken>,
) -> Result<(), Box<dyn Error>> {
    let (seed, case) = (harness.seed, harness.report.cycles);
    let original = &originals[chance(seed, ("original", case), 2) as usize];
    let directory = harness.directory.join("case");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)?;
    let store = directory.join("store");
    copy(&original.store, &store)?;
    let what = match broken {
        Some(_) => wipe(&store)?,
        None => damage(&store, seed, case)?,
    };
    let before = contents(&store)?;
    std::fs::write(part::ledger(&store), original.ledger.to_text())?;
    let what = format!("case {case}, a {} store, {what}", original.what);
    let report = &mut harness.report;
    match read(Task::Read, &store, seed, 1)? {
        // only what names the file, or at least the store, tells where to look
        Read::Refused { why, .. } if !why.contains(&*store.to_string_lossy()) => {
            report.problem(format!("{what}: an error that names no file: {why}"));
        }
        Read::Refused { opened, .. } => {
            report.refused_cases += 1;
            // what is found out later may come after writes
            if let Some(changed) = changed(&before, &store)?.filter(|_| !opened) {
                report.problem(format!("{what}: it was refused, and {changed} is not as it was"));
            }
        }
        Read::Found(found, open_ms) => {
            report.opened(open_ms);
            if found.hangs > 0 {
                report.hangs += 1;
                report.problems.push(format!("{what}: hangs"));
            } else if found.wrong() > 0 {
                report.silent_loss += 1;
                report.problems.push(format!("{what}: {}", found.problems.join("; ")));
            } else {
                report.unharmed_cases += 1;
                report.add(*found);
            }
        }
        Read::Panicked(why) => {
            report.panics += 1;
            report.problems.push(format!("{what}: {why}"));
        }
        Read::Hangs => {
            report.hangs += 1;
            report.problems.push(format!("{what}: hangs"));
        }
    }
    Ok(())
}

/// Of a file system.
const BLOCK: u64 = 4096;

fn wipe(store: &Path) -> std::io::Result<String> {
    std::fs::remove_dir_all(store)?;
    std::fs::create_dir(store)?;
    Ok("all of it deleted".into())
}

type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// All files of a store, but those that no message is in.
fn contents(store: &Path) -> std::io::Result<Contents> {
    const NEITHER: [&str; 5] = ["LOCK", "running", "last-words", "opened", "closed"];
    let mut all = Vec::new();
    files(store, &mut all)?;
    let file_name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let means_something = |path: &PathBuf| file_name(path).is_none_or(|name| !NEITHER.contains(&&*name));
    all.into_iter().filter(means_something).map(|path| Ok((path.clone(), std::fs::read(path)?))).collect()
}

/// A file that is not as it was; some may have come. The engine writes to its own when it opens; what they were is copied
/// first, and the copy is there until they were found good.
fn changed(before: &Contents, store: &Path) -> std::io::Result<Option<String>> {
    let now = contents(store)?;
    let rescue = store.join("rescue");
    let has_copy = rescue.exists();
    let of_engine =
        |path: &Path| EngineChoice::available().any(|one| path.parent() == Some(&store.join(one.name())));
    let is_kept = |path: &Path, bytes: &Vec<u8>| {
        let copy = path.file_name().and_then(|name| now.get(&rescue.join(name)));
        let is_copied = if has_copy { copy == Some(bytes) } else { true };
        now.get(path) == Some(bytes) || of_engine(path) && is_copied
    };
    let changed = before.iter().find(|(path, bytes)| !is_kept(path, bytes));
    Ok(changed.map(|(path, _)| name(store, path)))
}

/// Changes one thing in one file, and says what. Most often one that holds what was sent, where something is written.
fn damage(store: &Path, seed: u64, case: u64) -> Result<String, Box<dyn Error>> {
    let mut all = Vec::new();
    files(store, &mut all)?;
    all.sort();
    let draw = |what: &str, below: u64| chance(seed, (case, what), below);
    let kind = ["journal/0", "journal/0", "journal/0", "pages/", "pages/", "sled/", "MANIFEST", ""];
    // one of them is there
    let has_redb = all.iter().any(|file| name(store, file).starts_with("redb/"));
    let kind = kind.map(|kind| if kind == "sled/" && has_redb { "redb/" } else { kind });
    let kind = kind[draw("kind", kind.len() as u64) as usize];
    if all.iter().any(|file| name(store, file).starts_with(kind)) {
        all.retain(|file| name(store, file).starts_with(kind));
    }
    let file = all.get(draw("file", all.len() as u64) as usize).ok_or("a store without files")?;
    let mut bytes = std::fs::read(file)?;
    let len = match draw("anywhere", 4) {
        0 => bytes.len(),
        _ => bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1),
    } as u64;
    let (at, many) = (draw("at", len) as usize, 1 + draw("many", 4096) as usize);
    let range = at..(at + many).min(bytes.len());
    let what = match draw("how", 10) {
        0 => {
            std::fs::remove_file(file)?;
            return Ok(format!("{} deleted", name(store, file)));
        }
        1 | 9 => {
            bytes.truncate(at);
            format!("{} cut to {at} of {len} bytes", name(store, file))
        }
        2 => {
            bytes[range].fill(0);
            format!("{} with zeros from {at}, {many} bytes", name(store, file))
        }
        3 => {
            bytes[range].iter_mut().for_each(|byte| *byte ^= 0xff);
            format!("{} turned round from {at}, {many} bytes", name(store, file))
        }
        4 => {
            bytes[at..].fill(0);
            format!("{} with nothing but zeros from {at}", name(store, file))
        }
        5 if len >= 2 * BLOCK => {
            let (one, other) = (draw("one", len / BLOCK) * BLOCK, draw("other", len / BLOCK) * BLOCK);
            for offset in 0..BLOCK {
                bytes.swap((one + offset) as usize, (other + offset) as usize);
            }
            format!("{} with the blocks at {one} and {other} swapped", name(store, file))
        }
        _ => {
            let bit = draw("bit", 8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            format!("{} with bit {bit} of byte {at} flipped", name(store, file))
        }
    };
    std::fs::write(file, bytes)?;
    Ok(what)
}

fn name(store: &Path, file: &Path) -> String {
    file.strip_prefix(store).unwrap_or(file).display().to_string()
}

/// All files of a directory.
fn files(directory: &Path, all: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, all)?;
        } else {
            all.push(path);
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to)?;
        } else {
            std::fs::copy(&path, &to)?;
        }
    }
    Ok(())
}
