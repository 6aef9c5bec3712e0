//! The simulated machine as a medium.

use std::io;
use std::sync::Arc;

use super::super::medium::{Medium, MediumFile};
use super::Machine;
use super::faults::{Fate, Operation, injected};
use super::files::{Hold, Number};
use crate::clock::mix;

/// The file system, for as long as the machine does not crash.
pub(super) struct SimulatedMedium {
    pub(super) machine: Arc<Machine>,
    pub(super) incarnation: u64,
}

struct SimulatedFile {
    machine: Arc<Machine>,
    incarnation: u64,
    number: Number,
    _hold: Hold,
}

impl SimulatedMedium {
    fn handle(&self, (number, hold): (Number, Hold)) -> Arc<dyn MediumFile> {
        let machine = Arc::clone(&self.machine);
        Arc::new(SimulatedFile { machine, incarnation: self.incarnation, number, _hold: hold })
    }
}

impl Medium for SimulatedMedium {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.machine.look(self.incarnation)?.files.list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.machine.change(self.incarnation, (Operation::CreateDir, dir), |state| {
            // the store itself is always there
            if dir.is_empty() { Ok(()) } else { state.files.create_dir(dir) }
        })
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        let what = (Operation::Create, name);
        let created = self.machine.change(self.incarnation, what, |state| state.files.create(name));
        created.map(|file| self.handle(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn MediumFile>> {
        self.machine.look(self.incarnation)?.files.open(name).map(|file| self.handle(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.machine.change(self.incarnation, (Operation::Rename, to), |state| state.files.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.machine.change(self.incarnation, (Operation::Remove, name), |state| state.files.remove(name))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.machine.change(self.incarnation, (Operation::SyncDir, dir), |state| state.files.sync_dir(dir))
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(self.machine.look(self.incarnation)?.room())
    }
}

impl MediumFile for SimulatedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.machine.look(self.incarnation)?.files.contents(self.number)?.read(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.machine.look(self.incarnation)?;
        let place = mix(self.number ^ mix(offset)) ^ bytes.len() as u64;
        match state.faults.next(Operation::Write, place) {
            Fate::Runs => state.write(self.number, offset, bytes),
            Fate::Fails(kind) => {
                state.tear(self.number, offset, bytes);
                Err(injected(kind))
            }
            Fate::CutShort => {
                state.tear(self.number, offset, bytes);
                Err(self.machine.went_dark())
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.machine.look(self.incarnation)?;
        let covered = state.files.contents(self.number)?.written();
        match state.faults.next(Operation::Sync, self.number) {
            Fate::Runs => {}
            Fate::Fails(kind) => return Err(injected(kind)),
            Fate::CutShort => {
                if state.chance.coin() {
                    state.files.contents_mut(self.number)?.sync(covered);
                }
                return Err(self.machine.went_dark());
            }
        }
        let mut state = self.machine.wait_until_released(state);
        state.check(self.incarnation)?;
        state.faults.check_sync()?;
        state.files.contents_mut(self.number)?.sync(covered);
        state.syncs += 1;
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.machine.look(self.incarnation)?.files.contents(self.number)?.len() as u64)
    }
}
