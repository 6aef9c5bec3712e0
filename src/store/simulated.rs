//! A simulated machine: a medium and an engine in memory that lose, tear and reorder what was not synced when
//! the power goes. With no fault set it is the store of tests that need no files.
//!
//! # Invariants
//! - One seed, one order of calls, one outcome: chance is drawn in the order in which calls take the one lock.
//! - What a contract calls durable survives every crash; everything else is at the mercy of the seed.
//! - A handle, medium or engine kind obtained before a crash never works again: threads of the life before it
//!   cannot reach into the next one.

mod chance;
mod contents;
mod engine;
mod faults;
mod files;
mod map;
mod medium;
#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests;

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use self::chance::Chance;
use self::contents::{place, sectors};
use self::engine::MapKind;
pub(crate) use self::faults::Operation;
use self::faults::{Fate, Faults, injected, power_cut, stale};
use self::files::{Files, Number};
use self::map::{Map, size};
use self::medium::SimulatedMedium;
use super::engine::{EngineKind, Write};
use super::medium::Medium;
use crate::clock::mix;

/// The controls of a simulated machine. A clone controls the same machine; [`SimulatedDisk::fork`] copies it.
#[derive(Clone)]
pub(crate) struct SimulatedDisk {
    machine: Arc<Machine>,
}

impl SimulatedDisk {
    /// A machine with nothing on it. `seed` decides every outcome.
    pub(crate) fn new(seed: u64) -> Self {
        SimulatedDisk::with(State::new(seed))
    }

    fn with(state: State) -> Self {
        SimulatedDisk { machine: Arc::new(Machine::new(state)) }
    }

    /// The files, until the next crash.
    pub(crate) fn medium(&self) -> Arc<dyn Medium> {
        let incarnation = self.state().crashes;
        Arc::new(SimulatedMedium { machine: Arc::clone(&self.machine), incarnation })
    }

    /// The map, until the next crash.
    pub(crate) fn engine_kind(&self) -> Arc<dyn EngineKind> {
        let incarnation = self.state().crashes;
        Arc::new(MapKind { machine: Arc::clone(&self.machine), incarnation })
    }

    /// How many calls there were that change something; the first has the number 1.
    pub(crate) fn operations(&self) -> u64 {
        self.state().faults.operations()
    }

    /// Cuts the power in the middle of the operation with this number (of the next one, when it has passed).
    /// From then on every call answers an error, until [`SimulatedDisk::crash`].
    pub(crate) fn cut_power_at(&self, operation: u64) {
        self.state().faults.cut_at(operation);
    }

    /// Whether the power was cut and the machine has not been started again.
    pub(crate) fn is_cut(&self) -> bool {
        self.state().faults.is_cut()
    }

    /// Stops the machine, decides what survives, and starts it again. Held syncs answer an error and later ones
    /// are no longer held; other faults stay as they were set.
    pub(crate) fn crash(&self) {
        self.state().crash();
        self.machine.changed.notify_all();
    }

    /// As [`SimulatedDisk::cut_power_at`], in the first write to a file from this number on.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(crate) fn cut_power_in_write(&self, operation: u64) {
        self.state().faults.cut_in_write_from(operation);
    }

    /// A cut that is still to come does not.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(crate) fn keep_power(&self) {
        self.state().faults.no_cut();
    }

    /// Resolves when the power is cut.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(crate) async fn power_is_cut(&self) {
        while !self.is_cut() {
            self.machine.dark.notified().await;
        }
    }

    /// In which operation the power was cut last.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(crate) fn cut_in(&self) -> Option<Operation> {
        self.state().faults.cut_in()
    }

    /// Differs unless the same operations were done in the same order.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(crate) fn trace(&self) -> u64 {
        self.state().faults.trace()
    }

    /// Of how many writes a part, and not all, was there after a crash.
    #[cfg(test)]
    pub(crate) fn torn_writes(&self) -> u64 {
        self.state().torn
    }

    /// As [`SimulatedDisk::crash`] when the process alone has ended: what it wrote to files is there, synced or not, and what
    /// the engine had not flushed was in its memory. After a cut the operation in which it came is the one the process ended in.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        self.state().kill();
        self.machine.changed.notify_all();
    }

    /// Makes the operation with this number fail, once. A write may have done a part of its work.
    pub(crate) fn fail_at(&self, operation: u64, kind: io::ErrorKind) {
        self.state().faults.fail_at(operation, kind);
    }

    /// Makes every sync of a file and every flush of the engine fail, or work again.
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.state().faults.syncs_fail = fail;
    }

    /// How many bytes files and engine may still grow by; `None` is without bound.
    pub(crate) fn set_free_space(&self, bytes: Option<u64>) {
        let mut state = self.state();
        state.capacity = bytes.map(|bytes| bytes.saturating_add(state.used()));
    }

    /// Lets every sync of a file wait until [`SimulatedDisk::release_syncs`].
    pub(crate) fn hold_syncs(&self) {
        self.state().faults.hold();
    }

    /// Lets the held syncs finish.
    pub(crate) fn release_syncs(&self) {
        self.state().faults.held = None;
        self.machine.changed.notify_all();
    }

    /// How many syncs are held right now.
    pub(crate) fn waiting_syncs(&self) -> u64 {
        self.state().waiting
    }

    /// How many syncs of files have succeeded.
    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Full names of all files.
    pub(crate) fn files(&self) -> Vec<String> {
        self.state().files.names()
    }

    /// Changes the durable bytes of a file; `NotFound` when there is none of this name.
    pub(crate) fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut state = self.state();
        let (number, _) = state.files.open(name)?;
        state.files.contents_mut(number)?.damage(change);
        Ok(())
    }

    /// Changes the durable pairs of the engine.
    #[cfg(test)]
    pub(crate) fn damage_engine(
        &self,
        change: impl FnOnce(&mut std::collections::BTreeMap<Vec<u8>, Vec<u8>>),
    ) {
        self.state().map.damage(change);
    }

    /// A copy of the whole machine that goes its own way: counts and set faults are taken over, handles are
    /// not, and chance differs from that of this machine and of every other copy.
    pub(crate) fn fork(&self) -> SimulatedDisk {
        SimulatedDisk::with(self.state().fork())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.machine.lock()
    }
}

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let mut shown = f.debug_struct("SimulatedDisk");
        shown.field("seed", &state.seed).field("crashes", &state.crashes).field("faults", &state.faults);
        shown.finish_non_exhaustive()
    }
}

/// What all handles share.
struct Machine {
    state: Mutex<State>,
    /// Rung when held syncs are to look again.
    changed: Condvar,
    /// Rung when the power goes.
    #[cfg(test)]
    dark: tokio::sync::Notify,
}

impl Machine {
    fn new(state: State) -> Self {
        Machine {
            state: Mutex::new(state),
            changed: Condvar::new(),
            #[cfg(test)]
            dark: tokio::sync::Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for a handle of this incarnation.
    fn look(&self, incarnation: u64) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        state.check(incarnation)?;
        Ok(state)
    }

    /// Does one counted operation. One that the cut finds halfway has either happened or not.
    fn change<T>(
        &self,
        incarnation: u64,
        what: (Operation, &str),
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.look(incarnation)?;
        let (operation, name) = what;
        match state.faults.next(operation, u64::from(crc32fast::hash(name.as_bytes()))) {
            Fate::Runs => change(&mut state),
            Fate::Fails(kind) => Err(injected(kind)),
            Fate::CutShort => {
                if state.chance.coin() {
                    // nobody is left to hear the answer
                    drop(change(&mut state));
                }
                Err(self.went_dark())
            }
        }
    }

    /// The error of the operation in which the power went.
    fn went_dark(&self) -> io::Error {
        self.changed.notify_all();
        #[cfg(test)]
        self.dark.notify_one();
        power_cut()
    }

    fn wait_until_released<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(holding) = state.faults.held else { return state };
        let incarnation = state.crashes;
        state.waiting += 1;
        while state.faults.held == Some(holding) && state.check(incarnation).is_ok() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        state
    }
}

#[derive(Clone)]
struct State {
    seed: u64,
    chance: Chance,
    /// Also the incarnation: handles of an earlier one are dead.
    crashes: u64,
    forks: u64,
    files: Files,
    map: Map,
    faults: Faults,
    /// All bytes that files and map may take together.
    capacity: Option<u64>,
    syncs: u64,
    waiting: u64,
    torn: u64,
}

impl State {
    fn new(seed: u64) -> Self {
        State {
            seed,
            chance: Chance::new(seed),
            crashes: 0,
            forks: 0,
            files: Files::default(),
            map: Map::default(),
            faults: Faults::default(),
            capacity: None,
            syncs: 0,
            waiting: 0,
            torn: 0,
        }
    }

    fn check(&self, incarnation: u64) -> io::Result<()> {
        if self.crashes != incarnation {
            return Err(stale());
        }
        if self.faults.is_cut() { Err(power_cut()) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.files.used().saturating_add(self.map.used())
    }

    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX / 4, |capacity| capacity.saturating_sub(self.used()))
    }

    fn write(&mut self, number: Number, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let start = place(offset, bytes.len())?;
        let len = self.files.contents(number)?.len();
        let end = start + bytes.len();
        if !bytes.is_empty() && end > len && (end - len) as u64 > self.room() {
            let last = len.saturating_add(usize::try_from(self.room()).unwrap_or(usize::MAX));
            let part = self.chance.up_to(last.saturating_sub(start));
            self.files.contents_mut(number)?.write(start, &bytes[..part]);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.files.contents_mut(number)?.write(start, bytes);
        Ok(())
    }

    /// Writes a part: the first bytes, or some of the sectors.
    fn tear(&mut self, number: Number, offset: u64, bytes: &[u8]) {
        let Ok(start) = place(offset, bytes.len()) else { return };
        // a device too full for it stops a torn write like any other
        let mut parts = Vec::new();
        if self.chance.coin() {
            parts.push((start, &bytes[..self.chance.up_to(bytes.len())]));
        } else {
            parts.extend(sectors(start, bytes).filter(|_| self.chance.coin()));
        }
        if parts.iter().map(|(_, part)| part.len()).sum::<usize>() == bytes.len() {
            drop(self.write(number, offset, bytes));
            return;
        }
        for (at, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
            drop(self.write(number, at as u64, part));
            if let Ok(contents) = self.files.contents_mut(number) {
                contents.last_is_part();
            }
        }
    }

    /// Room is asked for the whole batch, also where it replaces: an engine writes the new beside the old.
    fn apply(&mut self, batch: Vec<Write>) -> io::Result<()> {
        let needed: u64 = batch.iter().map(size).sum();
        if needed > self.room() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.map.apply(batch);
        Ok(())
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.chance = Chance::new(self.seed ^ mix(self.crashes));
        self.torn += self.files.crash(&mut self.chance);
        self.map.crash(&mut self.chance);
        self.faults.power_is_back();
    }

    #[cfg(test)]
    fn kill(&mut self) {
        self.crashes += 1;
        self.chance = Chance::new(self.seed ^ mix(self.crashes));
        self.files.let_go();
        self.map.crash(&mut self.chance);
        self.faults.power_is_back();
    }

    fn fork(&mut self) -> State {
        self.forks += 1;
        let mut copy = self.clone();
        copy.seed = mix(self.seed.wrapping_add(mix(self.forks)));
        copy.chance = Chance::new(copy.seed);
        copy.forks = 0;
        copy.waiting = 0;
        copy.files.let_go();
        copy
    }
}
