//! Every crash point of the store, one by one: a scenario is run once to count its operations on the disk, then once
//! for each of them with the power cut there, also while recovering. What is found afterwards must be the state after
//! some number of commits, in their order, and never fewer than were durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checkpoint::Checkpointer;
use super::committer::{Committer, Step};
use super::keys::{self, LogId};
use super::recovery::Place;
use super::*;
use crate::clock::mix;
use crate::observe::Silent;

const LOGS: [LogId; 3] =
    [LogId { mailbox: 1, lane: 1 }, LogId { mailbox: 2, lane: 1 }, LogId { mailbox: 2, lane: 0 }];

fn config() -> StoreConfig {
    StoreConfig {
        segment: LEAST_SEGMENT,
        overlay: 40 << 10,
        spares: 2,
        live_segments: 6,
        ballast: 0,
        ..StoreConfig::default()
    }
}

/// What a store contains, as plainly as it can be said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    /// Waiting envelopes by log and position.
    waiting: BTreeMap<(LogId, u64), Vec<u8>>,
    next: BTreeMap<LogId, u64>,
    cells: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl State {
    fn of(store: &Store) -> State {
        let mut state = State::default();
        for log in LOGS {
            store.load_mailbox(log.mailbox, None).expect("loads");
            let next = store.shared.admission().mailboxes[&log.mailbox].lanes[usize::from(log.lane)].next;
            state.next.insert(log, next);
            let mut from = 0;
            loop {
                let letters = store.read_letters(log, from, 7, 10_000).expect("reads");
                let Some(last) = letters.last() else { break };
                from = last.position + 1;
                for letter in letters {
                    state.waiting.insert((log, letter.position), letter.envelope.to_vec());
                }
            }
        }
        let (from, to) = (keys::cells(0), keys::cells(u32::MAX));
        for (key, value) in store.scan(&from, &to, usize::MAX).expect("scans") {
            state.cells.insert(key, value.to_vec());
        }
        state
    }
}

/// A store with its steps, and the states it went through: one for each commit that was admitted.
struct World {
    store: Store,
    committer: Committer,
    checkpointer: Checkpointer,
    /// Number of the commit that made it, and the state after it.
    history: Vec<(u64, State)>,
    chance: u64,
}

/// The store stopped: the power was cut, or something it reported. Read when it is printed.
#[derive(Debug)]
struct Stopped(#[expect(dead_code, reason = "printed with Debug")] Option<StoreError>);

impl World {
    fn open(disk: &SimulatedDisk, chance: u64) -> Result<World, StoreError> {
        let place = Place::simulated(disk);
        let (store, committer, checkpointer, _) = Store::open_undriven(place, &config(), Arc::new(Silent))?;
        let state = State::of(&store);
        let history = vec![(store.durable_number(), state)];
        Ok(World { store, committer, checkpointer, history, chance })
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.chance = mix(self.chance.wrapping_add(0x9E37_79B9));
        self.chance % below
    }

    fn state(&self) -> State {
        self.history.last().expect("never empty").1.clone()
    }

    /// Commits one batch that does several things at once, and notes the state that it makes.
    fn commit(&mut self) -> Result<(), Stopped> {
        let mut state = self.state();
        let mut batch = Batch::default();
        let first = state.waiting.keys().next().copied();
        let last = state.waiting.keys().next_back().copied();
        for (log, position) in [first, last].into_iter().flatten().take(self.draw(3) as usize) {
            if let Some(envelope) = state.waiting.remove(&(log, position)) {
                batch.settle(log, position, envelope.len() as u32);
            }
        }
        let mut appended = Vec::new();
        for _ in 0..self.draw(3) {
            let log = LOGS[self.draw(3) as usize];
            let len = if self.draw(20) == 0 { 20_000 } else { 200 + self.draw(2_500) };
            let envelope = vec![self.draw(256) as u8; len as usize];
            let _ = batch.append(log, |out| {
                out.extend_from_slice(&envelope);
                Ok::<_, ()>(())
            });
            appended.push((log, envelope));
        }
        let key = keys::cell(self.draw(2) as u32, "cell", &[self.draw(6) as u8]);
        if self.draw(3) == 0 {
            state.cells.remove(&key);
            batch.delete(key);
        } else {
            let value = vec![self.draw(256) as u8; 1 + self.draw(300) as usize];
            batch.put_bytes(key.clone(), &value);
            state.cells.insert(key, value);
        }
        let mut patience = 1_000;
        let admitted = loop {
            patience -= 1;
            assert!(patience > 0, "senders are never let in again");
            match self.store.admit(&batch, Origin::Outside, Urgency::Soon) {
                Ok(admitted) => break admitted,
                Err(Refusal::Busy | Refusal::NoRoom) => self.work(4)?,
                Err(Refusal::Failed(error)) => return Err(Stopped(Some(error))),
                Err(other) => panic!("refused: {other:?}"),
            }
        };
        for ((log, envelope), position) in appended.into_iter().zip(admitted.positions) {
            let next = state.next.entry(log).or_default();
            assert_eq!(*next, position, "a position was given twice or skipped");
            *next += 1;
            state.waiting.insert((log, position), envelope);
        }
        self.history.push((admitted.number, state));
        Ok(())
    }

    fn work(&mut self, steps: u64) -> Result<(), Stopped> {
        for _ in 0..steps {
            let worked = if self.draw(2) == 0 { self.committer.step() } else { self.checkpointer.step() };
            if worked == Step::Failed {
                return Err(Stopped(self.store.failure()));
            }
        }
        Ok(())
    }

    fn run(&mut self, commits: u64) -> Result<(), Stopped> {
        for _ in 0..commits {
            self.commit()?;
            let steps = self.draw(4);
            self.work(steps)?;
        }
        Ok(())
    }

    fn settle_down(&mut self) -> Result<(), Stopped> {
        while self.store.durable_number() < self.store.last_number() {
            self.work(2)?;
        }
        self.work(60)
    }

    fn close(mut self) -> Result<(), StoreError> {
        while self.store.durable_number() < self.store.last_number() {
            if self.committer.step() == Step::Failed {
                return Err(self.store.failure().unwrap_or(StoreError::Closed));
            }
        }
        self.checkpointer.close()
    }

    /// The states that may be found after a crash now: from the last durable commit on.
    fn possible(&self) -> Vec<State> {
        let durable = self.store.durable_number();
        let from = self.history.iter().rposition(|(number, _)| *number <= durable).unwrap_or(0);
        self.history[from..].iter().map(|(_, state)| state.clone()).collect()
    }
}

const SEED: u64 = 42;
const COMMITS: u64 = 45;

/// The scenario: fill, close cleanly, open again, fill, crash (when it was not cut before), open, fill. Returns what
/// may be found now.
fn scenario(disk: &SimulatedDisk) -> Vec<State> {
    let mut possible = vec![State::default()];
    fill_empty(&mut possible[0]);
    for (round, closes) in [(1, true), (2, false), (3, true)] {
        let world = World::open(disk, SEED + round);
        let mut world = match world {
            Ok(world) => world,
            Err(error) => {
                assert!(disk.is_cut(), "does not open: {error}");
                return possible;
            }
        };
        check(&world.state(), &possible);
        let ran = world.run(COMMITS).and_then(|()| world.settle_down());
        possible = world.possible();
        if ran.is_err() {
            assert!(disk.is_cut(), "failed without a fault: {ran:?}");
            return possible;
        }
        if closes {
            if let Err(error) = world.close() {
                assert!(disk.is_cut(), "does not close: {error}");
                return possible;
            }
        } else {
            drop(world);
            disk.crash();
        }
    }
    possible
}

fn fill_empty(state: &mut State) {
    state.next = LOGS.iter().map(|log| (*log, 0)).collect();
}

fn check(found: &State, possible: &[State]) {
    if !possible.contains(found) {
        let closest = possible.last().expect("at least one");
        let lost: Vec<_> =
            closest.waiting.keys().filter(|key| !found.waiting.contains_key(key)).take(5).collect();
        let extra: Vec<_> =
            found.waiting.keys().filter(|key| !closest.waiting.contains_key(key)).take(5).collect();
        panic!(
            "the state found is none of the {} that are possible; against the last: lost {lost:?}, too many {extra:?}, \
             next {:?} against {:?}, cells equal: {}",
            possible.len(),
            found.next,
            closest.next,
            found.cells == closest.cells
        );
    }
}

/// Opens after a crash, checks, goes on working, closes, opens and checks again.
fn recovers(disk: &SimulatedDisk, possible: &[State], what: &str) {
    let mut world = World::open(disk, 7).unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    check(&world.state(), possible);
    world.run(12).and_then(|()| world.settle_down()).unwrap_or_else(|stopped| panic!("{what}: {stopped:?}"));
    let last = world.state();
    world.close().unwrap_or_else(|error| panic!("{what}: does not close: {error}"));
    let world = World::open(disk, 8).unwrap_or_else(|error| panic!("{what}: does not open again: {error}"));
    check(&world.state(), &[last]);
}

fn operations_of_the_scenario() -> u64 {
    let disk = SimulatedDisk::new(SEED);
    let possible = scenario(&disk);
    recovers(&disk, &possible, "without a fault");
    let disk = SimulatedDisk::new(SEED);
    scenario(&disk);
    disk.operations()
}

/// Without an environment variable a part of the points, so that the suite stays quick; `STEADFAST_ALL_CRASH_POINTS=1`
/// visits every one.
fn stride(short: u64) -> u64 {
    if std::env::var_os("STEADFAST_ALL_CRASH_POINTS").is_some() { 1 } else { short }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_durable_and_shows_nothing_half() {
    let all = operations_of_the_scenario();
    assert!(all > 300, "the scenario has only {all} operations");
    for operation in 1..=all {
        let disk = SimulatedDisk::new(SEED);
        disk.cut_power_at(operation);
        let possible = scenario(&disk);
        disk.crash();
        recovers(&disk, &possible, &format!("cut at operation {operation}"));
    }
}

#[test]
fn a_power_cut_during_recovery_is_recovered_from() {
    let all = operations_of_the_scenario();
    for operation in (1..=all).step_by(stride(9) as usize) {
        let cut = SimulatedDisk::new(SEED);
        cut.cut_power_at(operation);
        let possible = scenario(&cut);
        cut.crash();
        for second in 1.. {
            let disk = cut.fork();
            disk.cut_power_at(disk.operations() + second);
            if World::open(&disk, 9).is_ok() && !disk.is_cut() {
                break;
            }
            disk.crash();
            recovers(&disk, &possible, &format!("cut at operation {operation}, and {second} into recovery"));
        }
    }
}

#[test]
fn the_same_point_recovers_whatever_the_disk_kept_of_what_was_not_synced() {
    let all = operations_of_the_scenario();
    for operation in (1..=all).step_by(stride(5) as usize) {
        for seed in 100..108 {
            let disk = SimulatedDisk::new(seed);
            disk.cut_power_at(operation);
            let possible = scenario(&disk);
            disk.crash();
            recovers(&disk, &possible, &format!("seed {seed}, cut at operation {operation}"));
        }
    }
}
