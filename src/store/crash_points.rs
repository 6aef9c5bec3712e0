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

const LOGS: [LogId; 6] = [
    LogId { mailbox: 1, lane: 1 },
    LogId { mailbox: 2, lane: 1 },
    LogId { mailbox: 2, lane: 0 },
    LogId { mailbox: keys::FIRST_ENTITY, lane: 1 },
    LogId { mailbox: keys::FIRST_ENTITY + 1, lane: 1 },
    TOPIC,
];

/// What is read through a view, and trimmed.
const TOPIC: LogId = LogId { mailbox: 5, lane: 1 };
/// The mailbox that reads the view.
const READER: u32 = 1;
const VIEW: LogId = LogId { mailbox: keys::FIRST_VIEW, lane: view::LANE };

fn config() -> StoreConfig {
    StoreConfig {
        segment: LEAST_SEGMENT,
        overlay: 40 << 10,
        spares: 2,
        live_segments: 6,
        ballast: 0,
        page_file: 16 << 10,
        ..StoreConfig::default()
    }
}

/// What a store contains, as plainly as it can be said.
#[derive(Debug, Clone, Default)]
struct State {
    /// Waiting envelopes by log and position.
    waiting: BTreeMap<(LogId, u64), Vec<u8>>,
    has_view: bool,
    /// The next position of a log; of an entity's, one above all it ever gave.
    next: BTreeMap<LogId, u64>,
    cells: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl State {
    fn of(store: &Store) -> State {
        let mut state = State::default();
        for log in LOGS {
            // the last one loaded may have put it out of memory
            store.load_mailbox(log.mailbox, None).expect("loads");
            let next = store.shared.admission().mailboxes[&log.mailbox].lanes[usize::from(log.lane)].next;
            state.next.insert(log, next);
            state.read(store, log);
        }
        state.has_view = store.get(&keys::view(VIEW.mailbox)).expect("reads").is_some();
        if state.has_view {
            state.read(store, VIEW);
        }
        let (from, to) = (keys::cells(0), keys::cells(u32::MAX));
        for (key, value) in store.scan(&from, &to, usize::MAX).expect("scans") {
            state.cells.insert(key, value.to_vec());
        }
        state
    }

    fn read(&mut self, store: &Store, log: LogId) {
        let mut from = 0;
        loop {
            let letters = store.read_letters(log, from, 7, 10_000).expect("reads");
            let Some(last) = letters.last() else { return };
            from = last.position + 1;
            for letter in letters {
                self.waiting.insert((log, letter.position), letter.envelope.to_vec());
            }
        }
    }

    /// Whether this is what was found. An entity's log may go on anywhere above what it gave.
    fn is(&self, found: &State) -> bool {
        let goes_on = |(log, next): (&LogId, &u64)| match keys::is_entity(log.mailbox) {
            true => found.next[log] >= *next,
            false => found.next[log] == *next,
        };
        self.waiting == found.waiting
            && self.has_view == found.has_view
            && self.cells == found.cells
            && self.next.iter().all(goes_on)
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
        let (store, committer, checkpointer, _) =
            Store::open_undriven(place, &config(), Arc::new(Silent), Drive::Threads)?;
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
        let settled = |log: &LogId| *log != TOPIC && *log != VIEW;
        let first = state.waiting.keys().find(|(log, _)| settled(log)).copied();
        let last = state.waiting.keys().rfind(|(log, _)| settled(log)).copied();
        for (log, position) in [first, last].into_iter().flatten().take(self.draw(3) as usize) {
            if let Some(envelope) = state.waiting.remove(&(log, position)) {
                batch.settle(log, position, envelope.len() as u32);
            }
        }
        self.use_view(&mut state, &mut batch);
        self.supersede(&mut state, &mut batch);
        if self.draw(8) == 0 {
            let log = [LOGS[0], TOPIC][self.draw(2) as usize];
            let below = state.next.get(&log).copied().unwrap_or(0).saturating_sub(self.draw(3));
            let goes: Vec<_> = state.waiting.range((log, 0)..(log, below)).map(|(at, _)| *at).collect();
            let bytes =
                goes.iter().filter_map(|at| state.waiting.remove(at)).map(|gone| gone.len() as u64).sum();
            batch.trim(log, below, bytes);
            state.waiting.retain(|(at, position), _| log != TOPIC || *at != VIEW || *position >= below);
        }
        let mut appended = Vec::new();
        for _ in 0..self.draw(3) {
            let log = LOGS[self.draw(LOGS.len() as u64) as usize];
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
                Err(Refusal::NotLoaded(mailbox)) if keys::is_entity(mailbox) => {
                    self.store.load_mailbox(mailbox, None).map_err(|error| Stopped(Some(error)))?;
                }
                Err(Refusal::Failed(error)) => return Err(Stopped(Some(error))),
                Err(other) => panic!("refused: {other:?}"),
            }
        };
        for ((log, envelope), position) in appended.into_iter().zip(admitted.positions) {
            let next = state.next.entry(log).or_default();
            if keys::is_entity(log.mailbox) {
                assert!(*next <= position, "a position was given twice");
            } else {
                assert_eq!(*next, position, "a position was given twice or skipped");
            }
            *next = position + 1;
            if log == TOPIC && state.has_view {
                state.waiting.insert((VIEW, position), envelope.clone());
            }
            state.waiting.insert((log, position), envelope);
        }
        self.history.push((admitted.number, state));
        Ok(())
    }

    /// Makes the view, or reads on in it, or has it go on elsewhere.
    fn use_view(&mut self, state: &mut State, batch: &mut Batch) {
        let next = state.next.get(&TOPIC).copied().unwrap_or(0);
        let to = next.saturating_sub(self.draw(8));
        let shown: Vec<_> = state.waiting.range((TOPIC, to)..(TOPIC, u64::MAX)).collect();
        let shown: Vec<_> = shown.into_iter().map(|((_, at), body)| ((VIEW, *at), body.clone())).collect();
        match (state.has_view, self.draw(6)) {
            (false, 0) => {
                self.store.keep_new_view(VIEW.mailbox, TOPIC, READER);
                self.store.pause_view(VIEW.mailbox, false);
                let record = ViewRecord { of: TOPIC, reader: Some(READER), paused: false };
                batch.put_bytes(keys::view(VIEW.mailbox), &record.encode());
                state.has_view = true;
            }
            (true, 0) => {}
            (true, 1..4) => {
                let mut read = state.waiting.range((VIEW, 0)..=(VIEW, u64::MAX)).map(|(at, _)| *at);
                let one = if self.draw(2) == 0 { read.next() } else { read.next_back() };
                if let Some(one) = one
                    && let Some(envelope) = state.waiting.remove(&one)
                {
                    batch.settle(VIEW, one.1, envelope.len() as u32);
                }
                return;
            }
            _ => return,
        }
        batch.seek(VIEW, to);
        state.waiting.retain(|(log, _), _| *log != VIEW);
        state.waiting.extend(shown);
    }

    /// Settles an event in the topic itself: it is over for the view, too.
    fn supersede(&mut self, state: &mut State, batch: &mut Batch) {
        let events: Vec<_> =
            state.waiting.range((TOPIC, 0)..=(TOPIC, u64::MAX)).map(|(at, _)| at.1).collect();
        if events.is_empty() || self.draw(3) > 0 {
            return;
        }
        let position = events[self.draw(events.len() as u64) as usize];
        let len = state.waiting.remove(&(TOPIC, position)).map_or(0, |event| event.len() as u32);
        state.waiting.remove(&(VIEW, position));
        batch.supersede(TOPIC, position, len);
    }

    fn work(&mut self, steps: u64) -> Result<(), Stopped> {
        for _ in 0..steps {
            // now and then a whole checkpoint goes by while the committer waits for its disk
            let (commits, checkpoints) = match self.draw(16) {
                0 => (0, 40),
                1..=8 => (1, 0),
                _ => (0, 1),
            };
            let commits = (0..commits).map(|_| self.committer.step()).any(|step| step == Step::Failed);
            let checkpoints =
                (0..checkpoints).map(|_| self.checkpointer.step()).any(|step| step == Step::Failed);
            if commits || checkpoints {
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
    if !possible.iter().any(|state| state.is(found)) {
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
