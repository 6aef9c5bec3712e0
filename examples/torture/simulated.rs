//! Harm to a disk in memory: its power is cut, or a call fails, at each of its operations, one by one; or it fills up. The same
//! workload and checker as elsewhere, in this process.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steadfast::testkit::{Disk, Recorder};
use steadfast::{Event, System, SystemBuilder};

use super::broken::Broken;
use super::checker;
use super::harness::Harness;
use super::ledger::Ledger;
use super::options::{Fault, Options};
use super::part::quiet_about_stumbles;
use super::plan::{self, chance};
use super::traffic::{self, Life};

/// Messages of each sender in one life.
const FEW: u64 = 6;
/// A life that has not ended after so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checkpoints come early, so that a short life has some in the middle of its work.
fn builder() -> SystemBuilder {
    plan::builder().overlay(48 << 10)
}

type Lines = Arc<Mutex<Vec<String>>>;

fn said(lines: &Lines) -> Vec<String> {
    std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner))
}

/// One life on the disk, as far as it comes.
async fn live(disk: &Disk, builder: SystemBuilder, life: &Life) {
    let Ok(system) = disk.open(builder).await else { return };
    // what fails was said
    let _ = traffic::live(&system, life).await;
    end(system).await;
}

async fn end(system: System) {
    // after a failure it cannot end cleanly
    let _ = system.shutdown(Duration::from_secs(10)).await;
}

fn life_of(seed: u64, life: u64, broken: Option<Broken>, lines: &Lines) -> Life {
    let lines = lines.clone();
    let say = Arc::new(move |line| lines.lock().unwrap_or_else(PoisonError::into_inner).push(line));
    Life { life, settled: 0, seed, broken, amount: Some(FEW), say, stop: Arc::new(AtomicBool::new(false)) }
}

/// Checks what is on the disk.
async fn check(harness: &mut Harness<'_>, disk: &Disk, ledger: &Ledger, what: &str) {
    let checked = async {
        let system = disk.open(builder()).await?;
        let found = checker::check(&system, ledger, None).await?;
        system.shutdown(Duration::from_secs(10)).await?;
        Ok::<_, checker::Refusal>(found)
    };
    match tokio::time::timeout(3 * PATIENCE, checked).await {
        Ok(Ok(found)) => {
            if found.wrong() > 0 {
                harness.report.problems.push(what.to_owned());
            }
            harness.report.add(found);
        }
        Ok(Err(why)) => harness.report.problem(format!("{what}: {why}")),
        Err(_) => {
            harness.report.hangs += 1;
            harness.report.problems.push(format!("{what}: the check does not end"));
        }
    }
}

/// All numbers from 1 to `all`, each once, so that the first few are already spread over all.
fn spread(all: u64) -> impl Iterator<Item = u64> {
    let divides_both = |step: u64| (2..=step).any(|by| step.is_multiple_of(by) && all.is_multiple_of(by));
    // the golden section
    let step = (all * 618 / 1000..all).find(|step| !divides_both(*step)).unwrap_or(1);
    (0..all).map(move |index| (index + 1) * step % all + 1)
}

/// Does harm at one operation after the other.
pub(crate) async fn every_operation(harness: &mut Harness<'_>, options: &Options) {
    quiet_about_stumbles();
    let lines = Lines::default();
    let whole = Disk::new(harness.seed);
    let checkpoints = Recorder::new(|event| matches!(event, Event::Checkpointed { .. }).then_some(()));
    let life = life_of(harness.seed, 1, options.broken, &lines);
    live(&whole, builder().observer(checkpoints.clone()), &life).await;
    let all = whole.operations();
    harness.report.operations = all;
    harness.report.checkpoints = checkpoints.kept().len() as u64;
    // a slice goes on where the one before ended
    for operation in spread(all).skip(harness.cycles_before as usize) {
        if !harness.goes_on(harness.report.cycles - harness.cycles_before) {
            return;
        }
        harness.report.cycles += 1;
        harm_at(harness, options, operation).await;
    }
}

async fn harm_at(harness: &mut Harness<'_>, options: &Options, operation: u64) {
    let (seed, kills) = (harness.seed, options.fault == Fault::SyscallKill);
    let (disk, lines) = (Disk::new(seed ^ operation), Lines::default());
    let what = format!("{} at operation {operation}", options.fault.name());
    let mut last = 0;
    for life in [1, 2] {
        let after = disk.operations() + 1 + chance(seed, ("second", operation), 90);
        let at = if life == 1 { operation } else { after };
        last = at.max(last);
        if kills {
            disk.cut_power_at(at);
        } else {
            use std::io::ErrorKind::{Other, StorageFull};
            let kind = if chance(seed, ("kind", operation, life), 3) == 0 { StorageFull } else { Other };
            disk.fail_at(at, kind);
        }
        let living = life_of(seed, life, options.broken, &lines);
        if tokio::time::timeout(PATIENCE, live(&disk, builder(), &living)).await.is_err() {
            harness.report.hangs += 1;
            harness.report.problems.push(format!("{what}: life {life} does not end"));
            return;
        }
        if kills {
            harness.report.power_cuts += u64::from(disk.is_cut());
        }
        // a process that saw an error may be gone with all it had not synced
        disk.crash();
    }
    disk.cut_power_at(u64::MAX);
    if !kills {
        let_failures_come(&disk, last).await;
    }
    let mut ledger = Ledger::default();
    said(&lines).iter().for_each(|line| ledger.read(line));
    take(harness, &mut ledger);
    check(harness, &disk, &ledger, &what).await;
}

/// A life may have ended before the operation that was to fail, which would then fail the check.
async fn let_failures_come(disk: &Disk, last: u64) {
    const OFTEN: u32 = 100;
    for _ in (0..OFTEN).take_while(|_| disk.operations() < last) {
        if let Ok(system) = disk.open(builder()).await {
            end(system).await;
        }
        disk.crash();
    }
}

fn take(harness: &mut Harness<'_>, ledger: &mut Ledger) {
    harness.report.acknowledged += (ledger.acknowledged.len() + ledger.published.len()) as u64;
    harness.report.refused += ledger.refused;
    for wrong in std::mem::take(&mut ledger.wrong) {
        harness.report.problem(wrong);
    }
}

/// A disk that fills up, refuses, has room again, and goes on, without a new process.
pub(crate) async fn fills_up(harness: &mut Harness<'_>, broken: Option<Broken>) {
    quiet_about_stumbles();
    let mut done = 0;
    while harness.goes_on(done) {
        done += 1;
        harness.report.cycles += 1;
        let (seed, cycle) = (harness.seed, harness.report.cycles);
        let (disk, lines) = (Disk::new(seed ^ cycle), Lines::default());
        let mut life = life_of(seed, 1, broken, &lines);
        life.amount = None;
        let Ok(system) = disk.open(builder()).await else {
            harness.report.problem("an empty disk cannot be opened".into());
            return;
        };
        disk.set_free_space(Some((20 << 10) + chance(seed, ("room", cycle), 600 << 10)));
        let lives = traffic::live(&system, &life);
        let fills = async {
            let full = waits(&lines, "refused", 1).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            disk.set_free_space(None);
            let now = count(&lines, "a ");
            let goes_on = waits(&lines, "a ", now + 50).await;
            life.stop.store(true, std::sync::atomic::Ordering::Relaxed);
            (full, goes_on)
        };
        let (_, (full, goes_on)) = tokio::join!(lives, fills);
        harness.report.times_full += u64::from(full);
        if !full || !goes_on {
            let what = if full { "does not go on when there is room again" } else { "is never full" };
            harness.report.problem(format!("cycle {cycle} {what}"));
        }
        if cycle % 2 == 0 {
            disk.crash();
        }
        end(system).await;
        let mut ledger = Ledger::default();
        said(&lines).iter().for_each(|line| ledger.read(line));
        for why in std::mem::take(&mut ledger.failed).into_iter().take(1) {
            harness.report.problem(format!("the store failed: {why}"));
        }
        take(harness, &mut ledger);
        check(harness, &disk, &ledger, &format!("cycle {cycle}")).await;
    }
}

fn count(lines: &Lines, begin: &str) -> usize {
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|line| line.starts_with(begin)).count()
}

async fn waits(lines: &Lines, begin: &str, times: usize) -> bool {
    let come = async {
        while count(lines, begin) < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, come).await.is_ok()
}
