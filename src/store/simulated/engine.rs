//! The simulated machine's map as an engine.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::engine::{Engine, EngineError, EngineKind, Pair, Seal, Write, within_limits};
use super::Machine;

/// How the map is found, for as long as the machine does not crash.
pub(super) struct MapKind {
    pub(super) machine: Arc<Machine>,
    pub(super) incarnation: u64,
}

struct OpenMap {
    machine: Arc<Machine>,
    incarnation: u64,
    /// As with sled, an engine that found no room stays so until it is opened again.
    is_full: AtomicBool,
}

impl MapKind {
    fn handle(&self) -> Box<dyn Engine> {
        let machine = Arc::clone(&self.machine);
        Box::new(OpenMap { machine, incarnation: self.incarnation, is_full: AtomicBool::new(false) })
    }
}

impl EngineKind for MapKind {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn exists(&self) -> Result<bool, EngineError> {
        Ok(self.machine.look(self.incarnation).map_err(failed)?.map.exists)
    }

    fn create(&self) -> Result<Box<dyn Engine>, EngineError> {
        let created = self.machine.change(self.incarnation, |state| {
            if state.map.exists {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.map.create();
            Ok(())
        });
        created.map(|()| self.handle()).map_err(failed)
    }

    fn open(&self, seal: Option<&Seal>) -> Result<Box<dyn Engine>, EngineError> {
        let state = self.machine.look(self.incarnation).map_err(failed)?;
        if !state.map.exists {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        if seal.is_some_and(|seal| *seal != state.map.seal()) {
            return Err(EngineError::Damaged { path: path(), what: "it is not as it was closed".to_owned() });
        }
        Ok(self.handle())
    }

    fn remove(&self) -> Result<(), EngineError> {
        let removed = self.machine.change(self.incarnation, |state| {
            state.map.remove();
            Ok(())
        });
        removed.map_err(failed)
    }
}

impl OpenMap {
    fn check_room(&self) -> Result<(), EngineError> {
        if self.is_full.load(Ordering::Acquire) { Err(EngineError::Full { path: path() }) } else { Ok(()) }
    }

    /// Remembers a lack of room.
    fn note<T>(&self, answer: io::Result<T>) -> Result<T, EngineError> {
        answer.map_err(failed).inspect_err(|error| {
            if matches!(error, EngineError::Full { .. }) {
                self.is_full.store(true, Ordering::Release);
            }
        })
    }

    fn look<T>(&self, look: impl FnOnce(&super::map::Map) -> T) -> Result<T, EngineError> {
        self.check_room()?;
        Ok(look(&self.machine.look(self.incarnation).map_err(failed)?.map))
    }
}

impl Engine for OpenMap {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.look(|map| map.get(key))
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, EngineError> {
        self.look(|map| map.range(from, to, limit))
    }

    fn last(&self, from: &[u8], last: &[u8]) -> Result<Option<Pair>, EngineError> {
        self.look(|map| map.last(from, last))
    }

    fn apply(&self, batch: Vec<Write>) -> Result<(), EngineError> {
        self.check_room()?;
        within_limits(&path(), &batch)?;
        self.note(self.machine.change(self.incarnation, |state| state.apply(batch)))
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.check_room()?;
        self.note(self.machine.change(self.incarnation, |state| {
            state.faults.check_sync()?;
            state.map.flush();
            Ok(())
        }))
    }

    fn close(self: Box<Self>) -> Result<Seal, EngineError> {
        self.check_room()?;
        self.note(self.machine.change(self.incarnation, |state| {
            state.faults.check_sync()?;
            state.map.flush();
            Ok(state.map.seal())
        }))
    }
}

fn failed(source: io::Error) -> EngineError {
    match source.kind() {
        io::ErrorKind::StorageFull => EngineError::Full { path: path() },
        _ => EngineError::Io { path: path(), source },
    }
}

/// What stands for the engine's directory in an error.
fn path() -> PathBuf {
    PathBuf::from("memory")
}
