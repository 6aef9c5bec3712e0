//! One seed: lives with faults until there were enough of them, then one without, in which everything must come to its end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::broken::Broken;
use super::checker::{self, Findings};
use super::clock::PausedClock;
use super::coverage::{self, Coverage};
use super::dice::Dice;
use super::ledger::Ledger;
use super::life::{Notebook, checkpoints, commits};
use super::traffic::{self, Life};
use super::{CRASHES, OPERATIONS, TORN, plan};
use crate::clock::{Timestamp, mix};
use crate::store::{ByHand, SimulatedDisk, StoreError};
use crate::system::System;

/// Lives in which a run has had its faults, at most.
const LIVES: u64 = 60;
/// The longest life, of the time that is paused.
const LONG: Duration = Duration::from_secs(3600);

/// What came of a seed.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) coverage: Coverage,
    pub(super) trace: u64,
    /// What was said and done, in order.
    pub(super) story: Vec<String>,
    /// What is wrong.
    pub(super) problems: Vec<String>,
}

/// How a life is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// In the middle of the operation with this number.
    At {
        kill: bool,
        operation: u64,
    },
    /// In the middle of the first write from this operation on.
    InWrite {
        kill: bool,
        operation: u64,
    },
    /// Between two operations, after this time.
    After {
        kill: bool,
        time: Duration,
    },
    Clean,
}

impl Harm {
    fn is_kill(self) -> bool {
        match self {
            Harm::At { kill, .. } | Harm::InWrite { kill, .. } | Harm::After { kill, .. } => kill,
            Harm::Clean => false,
        }
    }
}

/// How a life ended.
enum End {
    Cut,
    Between,
    Clean,
    Wrong(String),
}

pub(super) struct Run {
    seed: u64,
    broken: Option<Broken>,
    disk: SimulatedDisk,
    dice: Dice,
    notes: Notebook,
    ledger: Ledger,
    /// When the life begins.
    now: Timestamp,
    life: u64,
    ran: Ran,
}

impl Run {
    pub(super) fn new(seed: u64, broken: Option<Broken>) -> Self {
        Run {
            seed,
            broken,
            disk: SimulatedDisk::new(mix(seed)),
            dice: Dice::new(seed, "run"),
            notes: Notebook::default(),
            ledger: Ledger::default(),
            now: Timestamp::from_millis(1_700_000_000_000),
            life: 0,
            ran: Ran::default(),
        }
    }

    pub(super) fn go(mut self) -> Ran {
        while self.ran.problems.is_empty() && !self.has_enough() {
            if self.life == LIVES {
                self.problem("it did not come to enough".into());
                break;
            }
            self.life += 1;
            self.live();
        }
        self.disk.keep_power();
        for what in ["at the end", "after one more clean end"] {
            if self.ran.problems.is_empty() {
                self.check(what);
            }
        }
        self.sum_up()
    }

    fn has_enough(&self) -> bool {
        let coverage = &self.ran.coverage;
        self.operations() >= OPERATIONS
            && coverage.of(coverage::POWER_CUTS) + coverage.of(coverage::KILLS) >= CRASHES
            && self.disk.torn_writes() >= TORN
    }

    fn operations(&self) -> u64 {
        (self.ledger.acknowledged.len() + self.ledger.published.len()) as u64
    }

    fn problem(&mut self, what: String) {
        self.ran.problems.push(format!("life {}: {what}", self.life));
    }

    fn tell(&mut self, what: String) {
        self.ran.story.push(what);
    }

    /// The first life always has its cut in a write, for one must be torn.
    fn choose_harm(&self) -> Harm {
        let kill = self.dice.one_in(3);
        let within = self.dice.pick(&[12, 40, 120, 300, 600]);
        let operation = self.disk.operations() + 1 + self.dice.below(within);
        match self.dice.below(12) {
            _ if self.life == 1 => Harm::InWrite { kill: false, operation: operation + 40 },
            0 => Harm::Clean,
            1 | 2 => Harm::After { kill, time: Duration::from_millis(self.dice.below(400)) },
            3..6 => Harm::InWrite { kill, operation },
            _ => Harm::At { kill, operation },
        }
    }

    fn live(&mut self) {
        let harm = self.choose_harm();
        self.tell(format!("life {}: {harm:?}, at operation {}", self.life, self.disk.operations()));
        match harm {
            Harm::At { operation, .. } => self.disk.cut_power_at(operation),
            Harm::InWrite { operation, .. } => self.disk.cut_power_in_write(operation),
            Harm::After { .. } | Harm::Clean => {}
        }
        let runtime = runtime();
        let end = runtime.block_on(self.lives(harm));
        self.ran.coverage.count(coverage::LIVES, 1);
        match &end {
            End::Clean => self.ran.coverage.count(coverage::CLEAN_ENDS, 1),
            End::Wrong(what) => self.problem(what.clone()),
            End::Cut | End::Between => self.harmed(harm, &end),
        }
        // only now: what was still open at the harm has ended with it
        drop(runtime);
        self.disk.keep_power();
        self.take_notes();
        let failed = std::mem::take(&mut self.ledger.failed);
        if !matches!(end, End::Cut) {
            failed.into_iter().for_each(|why| self.problem(format!("the store failed: {why}")));
        }
    }

    fn harmed(&mut self, harm: Harm, end: &End) {
        let cut = self.notes.with(|notes| notes.cut.take());
        if harm.is_kill() {
            self.disk.kill();
            self.ran.coverage.count(coverage::KILLS, 1);
        } else {
            self.disk.crash();
            self.ran.coverage.count(coverage::POWER_CUTS, 1);
        }
        let place = match end {
            End::Between => "between operations",
            _ => cut.unwrap_or("cut in the roll"),
        };
        self.ran.coverage.count(place, 1);
        self.tell(format!("{} {place}", if harm.is_kill() { "kill:" } else { "power:" }));
    }

    /// What was said in the life, for the ledger and the story.
    fn take_notes(&mut self) {
        let lines = self.notes.with(|notes| std::mem::take(&mut notes.lines));
        lines.iter().for_each(|line| self.ledger.read(line));
        self.ran.story.extend(lines);
        for wrong in std::mem::take(&mut self.ledger.wrong) {
            self.problem(wrong);
        }
    }

    async fn lives(&mut self, harm: Harm) -> End {
        let clock = self.begin();
        let (disk, notes) = (self.disk.clone(), self.notes.clone());
        let life = self.next_life();
        let shuts_down = Dice::new(self.seed, "end").below(self.life + 3) > 0;
        let living = async {
            let system = self.open(&clock).await.map_err(|why| {
                notes.was_cut_in("cut in a recovery");
                format!("the store does not open: {why}")
            })?;
            match checker::look(&system).await {
                Ok(None) => {}
                // the power may be gone
                Err(_) if disk.is_cut() => {}
                Ok(Some(what)) => return Err(format!("before anybody ran: {what}")),
                Err(why) => return Err(format!("it cannot be looked at: {why}")),
            }
            traffic::live(&system, &life).await.map_err(|why| format!("it cannot be lived: {why}"))?;
            if shuts_down && !disk.is_cut() {
                let ended = system.shutdown(LONG).await;
                if disk.is_cut() {
                    notes.was_cut_in("cut in a close");
                }
                ended.map_err(|why| format!("it does not end: {why}"))?;
                return Ok(End::Clean);
            }
            Ok(End::Between)
        };
        let harmed = async {
            match harm {
                Harm::After { time, .. } => tokio::time::sleep(time).await,
                _ => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            biased;
            () = disk.power_is_cut() => Ok(End::Cut),
            () = harmed => Ok(End::Between),
            end = living => end,
            () = tokio::time::sleep(LONG) => Err("it does not come to an end".to_owned()),
        };
        if disk.is_cut() {
            // a process lives on for a while with a disk that answers nothing
            for _ in 0..Dice::new(self.seed ^ self.life, "aftermath").below(60) {
                tokio::task::yield_now().await;
            }
        }
        self.now = crate::Clock::now(&*clock).after(self.downtime());
        match end {
            // nothing else is known of what met the cut
            _ if disk.is_cut() => End::Cut,
            Ok(end) => end,
            Err(what) => End::Wrong(what),
        }
    }

    fn downtime(&self) -> Duration {
        Duration::from_millis(self.dice.pick(&[0, 3, 1_000, 40_000, 1_500_000]))
    }

    /// The clock of this life, whose runtime runs now.
    fn begin(&self) -> Arc<PausedClock> {
        let dice = Dice::new(self.seed ^ mix(self.life), "clock");
        Arc::new(PausedClock::new(self.now, dice))
    }

    fn next_life(&self) -> Life {
        let notes = self.notes.clone();
        Life {
            life: self.life,
            settled: 0,
            seed: self.seed,
            broken: self.broken,
            amount: Some(3 + self.dice.below(12)),
            say: Arc::new(move |line| notes.say(line)),
            stop: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Opens the store, driven by tasks of this runtime.
    async fn open(&self, clock: &Arc<PausedClock>) -> Result<System, StoreError> {
        let seed = self.seed ^ mix(self.life);
        let slow = Dice::new(seed, "reads");
        let most = slow.below(6);
        let hand = ByHand::new(move || slow.below(most + 1) as u32);
        let (disk, notes) = (&self.disk, &self.notes);
        let dice = Dice::new(seed, "commits");
        tokio::spawn(commits(hand.clone(), disk.clone(), notes.clone(), dice));
        let dice = Dice::new(seed, "checkpoints");
        tokio::spawn(checkpoints(hand.clone(), disk.clone(), notes.clone(), dice));
        let overlay = Dice::new(self.seed, "overlay").pick(&[16 << 10, 48 << 10, 128 << 10]);
        let builder = plan::builder().overlay(overlay).watch_aborts(false);
        let builder = builder.clock(clock.clone()).observer(Arc::new(notes.clone()));
        builder.open_by_hand(disk, &hand).await
    }

    /// Everything must come to its end and be as it was promised.
    fn check(&mut self, what: &str) {
        self.life += 1;
        let runtime = runtime();
        let found = runtime.block_on(async {
            let clock = self.begin();
            let checked = async {
                let system = self.open(&clock).await?;
                let found = checker::check(&system, &self.ledger, None).await?;
                system.shutdown(LONG).await?;
                Ok::<Findings, checker::Refusal>(found)
            };
            tokio::time::timeout(LONG, checked).await
        });
        drop(runtime);
        match found {
            Ok(Ok(found)) if found.wrong() == 0 => {}
            Ok(Ok(found)) => {
                found.problems.into_iter().for_each(|why| self.problem(format!("{what}: {why}")))
            }
            Ok(Err(why)) => self.problem(format!("{what}: {why}")),
            Err(_) => self.problem(format!("{what}: the check does not end")),
        }
        self.take_notes();
    }

    fn sum_up(mut self) -> Ran {
        let (operations, disk) = (self.operations(), self.disk.operations());
        let notes = self.notes.with(std::mem::take);
        let coverage = &mut self.ran.coverage;
        coverage.add(&notes.coverage);
        coverage.count(coverage::SEEDS, 1);
        coverage.count(coverage::OPERATIONS, operations);
        coverage.count(coverage::DISK_OPERATIONS, disk);
        coverage.count(coverage::TORN_WRITES, self.disk.torn_writes());
        self.ran.trace = mix(notes.trace ^ self.disk.trace()) ^ self.now.as_millis();
        self.ran
    }
}

/// One thread, and time that passes only while everybody waits.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}
