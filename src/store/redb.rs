//! The [`Engine`] over redb 4, hardened as every engine over real files is; the feature `redb` adds it.
//!
//! # Invariants
//! - A batch is a commit that redb keeps in memory and in free pages; a flush is one that it makes durable with all before it.
//!   A crash leaves the last flush, whole: batches never overtake it, and never tear.
//! - Every byte redb reads, writes and syncs goes through [`backend`], which ends all writing at the first that fails.
//! - redb trusts its files after its own clean shutdown, and goes back in silence to an older commit where it is allowed to.
//!   So it is let at files without a seal only with every page verified, and a flush is committed in two phases, after
//!   which there is no older commit to go back to.
//! - An empty file is never opened: redb would begin a new engine in it.

mod backend;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::redb::{Builder, Database, Durability, ReadableDatabase, TableDefinition};

use self::backend::Backend;
use super::engine::{Engine, EngineError, EngineKind, Pair, Seal, Write, within_limits};
use super::engine_choice::EngineChoice;
use super::hardened::dir::{EngineDir, Layout};
use super::hardened::files::{damaged, failed, sync_parent};
use super::hardened::handle::{Handle, locked, locked_new};
use super::hardened::health::Health;

const DATA: &str = "data.redb";
const MAP: TableDefinition<'_, &'static [u8], &'static [u8]> = TableDefinition::new("map");

const LAYOUT: Layout = Layout {
    engine: "redb",
    data: DATA,
    needed: &[DATA],
    empty_dir: None,
    reads: |name| name == DATA,
    // a header, and the pages of its own bookkeeping
    written_by_open: 1 << 20,
};

/// For [`EngineChoice::available`].
pub(super) const REDB: &[EngineChoice] = &[EngineChoice::redb()];

impl EngineChoice {
    /// redb 4.
    pub const fn redb() -> Self {
        EngineChoice::new(LAYOUT.engine, |store| Arc::new(RedbKind::in_store(store)))
    }
}

/// redb in one file, in a directory of its own.
#[derive(Debug, Clone)]
struct RedbKind {
    dir: EngineDir,
    /// For redb's open and for its close, each.
    time_limit: Duration,
    /// What redb may keep in memory: pages it has read, and up to half of it those of batches that are not flushed.
    cache_bytes: usize,
}

impl RedbKind {
    fn in_store(store: &Path) -> Self {
        RedbKind {
            dir: EngineDir::in_store(store, &LAYOUT),
            // after an unclean exit an open reads the file three times
            time_limit: Duration::from_secs(600),
            cache_bytes: 8 << 20,
        }
    }

    /// Looks at the file redb is about to open, and changes nothing of it. Whether it is as it was sealed.
    fn inspect(&self, data: &File, seal: Option<&Seal>) -> Result<bool, EngineError> {
        match seal {
            Some(seal) if !self.dir.was_opened_since_close()? => {
                self.dir.compare(seal)?;
                Ok(true)
            }
            _ => {
                must_not_be_empty(data, &self.dir)?;
                self.dir.read_all()?;
                self.dir.copy_aside()?;
                Ok(false)
            }
        }
    }

    fn start(&self, data: File, verifies: bool) -> Result<RedbEngine, EngineError> {
        let health = Arc::new(Health::default());
        let file = data.try_clone().map_err(|source| failed(&self.dir.data(), source))?;
        let backend = Backend::new(file, self.dir.data(), health.clone())?;
        let (dir, heard, cache_bytes) = (self.dir.clone(), health.clone(), self.cache_bytes);
        let open = move || {
            let mut builder = Builder::new();
            builder.set_cache_size(cache_bytes).set_check_integrity_on_open(verifies);
            builder.create_with_backend(backend).map_err(|error| named(&dir, &heard, error.into()))
        };
        let handle = Handle::open(&self.dir, data, self.time_limit, open)?;
        // what a process that was killed had written, and redb found good, may lie in the page cache alone
        handle.sync()?;
        self.dir.settle(&[])?;
        Ok(RedbEngine { handle, health })
    }
}

fn must_not_be_empty(data: &File, dir: &EngineDir) -> Result<(), EngineError> {
    let len = data.metadata().map_err(|source| failed(&dir.data(), source))?.len();
    if len > 0 || cfg!(steadfast_bug = "begin-anew-in-an-empty-file") {
        return Ok(());
    }
    Err(damaged(&dir.data(), "the file is empty"))
}

impl EngineKind for RedbKind {
    fn name(&self) -> &'static str {
        LAYOUT.engine
    }

    fn exists(&self) -> Result<bool, EngineError> {
        self.dir.exists()
    }

    fn create(&self) -> Result<Box<dyn Engine>, EngineError> {
        let engine = self.start(locked_new(&self.dir)?, false)?;
        engine.flush()?;
        sync_parent(&self.dir.path)?;
        Ok(Box::new(engine))
    }

    fn open(&self, seal: Option<&Seal>) -> Result<Box<dyn Engine>, EngineError> {
        self.dir.must_be_there()?;
        let data = locked(&self.dir)?;
        let is_sealed = self.inspect(&data, seal)?;
        self.dir.mark_opened()?;
        let verifies = !is_sealed && !cfg!(steadfast_bug = "trust-redbs-own-shutdown");
        let engine = self.start(data, verifies)?;
        engine.must_hold_the_map()?;
        Ok(Box::new(engine))
    }

    fn was_opened_since_close(&self) -> Result<bool, EngineError> {
        self.dir.was_opened_since_close()
    }

    fn verified(&self) -> Result<(), EngineError> {
        self.dir.forget_rescue()
    }

    fn remove(&self) -> Result<(), EngineError> {
        self.dir.remove()
    }
}

/// An open redb.
struct RedbEngine {
    handle: Handle<Database>,
    /// Shared with the backend, which is the first to learn of a failure.
    health: Arc<Health>,
}

impl Engine for RedbEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.call(|redb| {
            let map = redb.begin_read()?.open_table(MAP)?;
            Ok(map.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, EngineError> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.call(|redb| {
            let map = redb.begin_read()?.open_table(MAP)?;
            let pairs = map.range::<&[u8]>(from..to)?.take(limit).map(|entry| Ok(owned(entry?)));
            pairs.collect()
        })
    }

    fn last(&self, from: &[u8], last: &[u8]) -> Result<Option<Pair>, EngineError> {
        if from > last {
            return Ok(None);
        }
        self.call(|redb| {
            let map = redb.begin_read()?.open_table(MAP)?;
            let found = map.range::<&[u8]>(from..=last)?.next_back().transpose()?;
            Ok(found.map(owned))
        })
    }

    fn apply(&self, batch: Vec<Write>) -> Result<(), EngineError> {
        self.health.must_be_whole(self.path())?;
        within_limits(self.path(), &batch)?;
        self.write(|redb| apply(redb, batch))
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.health.must_be_whole(self.path())?;
        self.write(flush)
    }

    fn close(mut self: Box<Self>) -> Result<Seal, EngineError> {
        self.flush()?;
        let (dir, health) = (self.handle.dir().clone(), self.health.clone());
        self.handle.release(move |redb| redb.close().map_err(|error| named(&dir, &health, error.into())))?;
        self.handle.sync()?;
        let dir = self.handle.dir();
        dir.settle(&[])?;
        dir.mark_closed()?;
        dir.seal()
    }
}

impl RedbEngine {
    fn path(&self) -> &Path {
        &self.handle.dir().path
    }

    fn call<T>(&self, ask: impl FnOnce(&Database) -> Result<T, ::redb::Error>) -> Result<T, EngineError> {
        self.handle.call(|redb| ask(redb).map_err(|error| named(self.handle.dir(), &self.health, error)))
    }

    fn write(&self, ask: impl FnOnce(&Database) -> Result<(), ::redb::Error>) -> Result<(), EngineError> {
        // redb goes on when a page that it would keep in memory too does not reach the disk; nothing is built on that
        let written = self.call(ask).and_then(|()| self.health.must_be_whole(self.path()));
        written.map_err(|error| self.health.break_with(self.handle.or_failed_sync(error)))
    }

    fn must_hold_the_map(&self) -> Result<(), EngineError> {
        match self.call(|redb| Ok(redb.begin_read()?.open_table(MAP).map(drop))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(damaged(&self.handle.dir().data(), &why.to_string())),
            Err(error) => Err(error),
        }
    }
}

fn apply(redb: &Database, batch: Vec<Write>) -> Result<(), ::redb::Error> {
    let mut commit = redb.begin_write()?;
    commit.set_durability(Durability::None)?;
    {
        let mut map = commit.open_table(MAP)?;
        for write in &batch {
            match write {
                Write::Put(key, value) => map.insert(key.as_slice(), value.as_slice()).map(drop)?,
                Write::Delete(key) => map.remove(key.as_slice()).map(drop)?,
            }
        }
    }
    Ok(commit.commit()?)
}

/// Also makes the map, the first time.
fn flush(redb: &Database) -> Result<(), ::redb::Error> {
    let mut commit = redb.begin_write()?;
    let durability = match cfg!(steadfast_bug = "flush-redb-in-memory") {
        true => Durability::None,
        false => Durability::Immediate,
    };
    commit.set_durability(durability)?;
    commit.set_two_phase_commit(true);
    drop(commit.open_table(MAP)?);
    Ok(commit.commit()?)
}

fn owned((key, value): (::redb::AccessGuard<'_, &[u8]>, ::redb::AccessGuard<'_, &[u8]>)) -> Pair {
    (key.value().to_vec(), value.value().to_vec())
}

fn named(dir: &EngineDir, health: &Health, error: ::redb::Error) -> EngineError {
    let data = dir.data();
    match error {
        ::redb::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            damaged(&data, "it ends before a page that it has")
        }
        ::redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            damaged(&data, &source.to_string())
        }
        ::redb::Error::Io(source) => failed(&data, source),
        ::redb::Error::Corrupted(what) => damaged(&data, &what),
        // redb says no more than that there was a failure; what it was is known
        other => match health.must_be_whole(&dir.path) {
            Err(first) => first,
            Ok(()) => EngineError::Io { path: data, source: io::Error::other(other.to_string()) },
        },
    }
}
