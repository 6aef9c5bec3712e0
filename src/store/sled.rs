//! The [`Engine`] over sled 0.34.7, hardened: what sled would lose, hide or leave open is checked around it.
//!
//! # Invariants
//! - sled opens nothing that was not read to its last byte before: one failed read in its own open loses
//!   records.
//! - Nothing sled has touched since an unclean exit is the only copy, unless the device had no room for
//!   another.
//! - A flush ends with an `fdatasync` of our own, on a descriptor older than any write it covers.
//! - After one failed write or sync this handle never writes again; reads go on.
//! - No panic of sled leaves this module, and its open and its close have a time limit.
//!
//! Three calls of sled are never made: `flush_async` hangs when called concurrently, `generate_id` repeats
//! ids after a power cut, and `watch_prefix` blocks writers once 1 024 events are unread.

mod files;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::engine::{Engine, EngineError, EngineKind, Pair, Seal, Write, within_limits};
use super::engine_choice::EngineChoice;
use super::hardened::dir::{EngineDir, Layout};
use super::hardened::files::{damaged, failed, sync_parent};
use super::hardened::handle::{Handle, held_elsewhere, locked, locked_new};
use super::hardened::health::Health;

/// A page over a quarter of a segment goes to a file in `blobs/` that sled never syncs. Sixteen entries make
/// a leaf, so sixteen values of [`MAX_VALUE`](super::engine::MAX_VALUE) must stay below it: the largest segment sled allows.
const SEGMENT_BYTES: usize = 16 * 1024 * 1024;

const LAYOUT: Layout = Layout {
    engine: "sled",
    data: files::DB,
    needed: &[files::DB, files::CONF],
    empty_dir: Some(files::BLOBS),
    reads: files::is_read,
    // the tail of a segment it zeroes, and a snapshot
    written_by_open: 2 * SEGMENT_BYTES as u64,
};

impl EngineChoice {
    /// sled 0.34: the default.
    pub const fn sled() -> Self {
        EngineChoice::new(LAYOUT.engine, |store| Arc::new(SledKind::in_store(store)))
    }
}

/// sled in a directory of its own. To open it needs some 17 MiB of room on the device, or it answers
/// [`EngineError::Full`]: it writes the last segment to its end.
#[derive(Debug, Clone)]
struct SledKind {
    dir: EngineDir,
    /// For sled's open and for its close, each.
    time_limit: Duration,
    /// What sled may keep in memory.
    cache_bytes: u64,
}

impl SledKind {
    fn in_store(store: &Path) -> Self {
        SledKind {
            dir: EngineDir::in_store(store, &LAYOUT),
            time_limit: Duration::from_secs(120),
            // what sled counts is about half of what it takes; behind it stands the page cache
            cache_bytes: 4 << 20,
        }
    }

    fn config(&self) -> ::sled::Config {
        ::sled::Config::new()
            .path(&self.dir.path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(self.cache_bytes)
            .use_compression(false)
            // sled's own flusher only logs a failed sync, and the next flush then succeeds
            .flush_every_ms(None)
    }

    /// Looks at everything sled is about to open, and changes nothing of a sealed engine.
    fn inspect(&self, seal: Option<&Seal>) -> Result<(), EngineError> {
        // with a snapshot and no `db` sled would start an empty one, and call it recovered
        self.dir.must_be_there()?;
        files::no_blobs(&self.dir)?;
        match seal {
            Some(seal) if !self.dir.was_opened_since_close()? => self.dir.compare(seal),
            _ => self.inspect_unsealed(),
        }
    }

    fn inspect_unsealed(&self) -> Result<(), EngineError> {
        // a kill in sled's open leaves half a snapshot, which the next open reads as the newest one: corrupt
        // for ever
        files::remove_half_written_snapshots(&self.dir)?;
        files::only_snapshots_sled_wrote(&self.dir)?;
        self.dir.read_all()?;
        self.dir.copy_aside()
    }

    fn start(&self, db: File) -> Result<SledEngine, EngineError> {
        // sled takes it for a descriptor of its own
        db.unlock().map_err(|source| failed(&self.dir.path, source))?;
        let (config, dir) = (self.config(), self.dir.clone());
        let open = move || config.open().map_err(|error| named(&dir, error));
        let handle = Handle::open(&self.dir, db, self.time_limit, open)?;
        // what sled's open wrote (a new snapshot, a zeroed tail) is not durable by its own doing
        handle.sync()?;
        self.dir.settle(&[])?;
        files::no_blobs(&self.dir)?;
        let settled = Mutex::new(self.dir.names()?);
        Ok(SledEngine { handle, settled, health: Health::default() })
    }
}

impl EngineKind for SledKind {
    fn name(&self) -> &'static str {
        LAYOUT.engine
    }

    fn exists(&self) -> Result<bool, EngineError> {
        self.dir.exists()
    }

    fn create(&self) -> Result<Box<dyn Engine>, EngineError> {
        let engine = self.start(locked_new(&self.dir)?)?;
        engine.flush()?;
        sync_parent(&self.dir.path)?;
        Ok(Box::new(engine))
    }

    fn open(&self, seal: Option<&Seal>) -> Result<Box<dyn Engine>, EngineError> {
        self.dir.must_be_there()?;
        let db = locked(&self.dir)?;
        self.inspect(seal)?;
        self.dir.mark_opened()?;
        let engine = self.start(db)?;
        engine.must_hold_something()?;
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

/// An open sled.
struct SledEngine {
    handle: Handle<::sled::Db>,
    /// The files whose names are known to be durable.
    settled: Mutex<Vec<String>>,
    health: Health,
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.read(|sled| Ok(sled.get(key)?.map(|value| value.to_vec())))
    }

    fn range(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, EngineError> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.read(|sled| sled.range(from..to).take(limit).map(|entry| entry.map(owned)).collect())
    }

    fn last(&self, from: &[u8], last: &[u8]) -> Result<Option<Pair>, EngineError> {
        if from > last {
            return Ok(None);
        }
        self.read(|sled| sled.range(from..=last).next_back().map(|entry| entry.map(owned)).transpose())
    }

    fn apply(&self, batch: Vec<Write>) -> Result<(), EngineError> {
        self.health.must_be_whole(&self.dir().path)?;
        within_limits(&self.dir().path, &batch)?;
        let batch = as_sled_batch(batch);
        self.call(|sled| apply(sled, batch)).map_err(|error| self.break_with(error))
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.health.must_be_whole(&self.dir().path)?;
        self.flush_everything().map_err(|error| self.break_with(error))
    }

    fn close(mut self: Box<Self>) -> Result<Seal, EngineError> {
        self.flush()?;
        self.handle.release(|sled| {
            drop(sled);
            Ok(())
        })?;
        // sled's last handle writes as it goes
        self.handle.sync()?;
        let dir = self.dir();
        files::no_blobs(dir)?;
        dir.settle(&[])?;
        dir.mark_closed()?;
        dir.seal()
    }
}

impl SledEngine {
    fn dir(&self) -> &EngineDir {
        self.handle.dir()
    }

    fn call<T>(&self, ask: impl FnOnce(&::sled::Db) -> ::sled::Result<T>) -> Result<T, EngineError> {
        self.handle.call(|sled| ask(sled).map_err(|error| named(self.dir(), error)))
    }

    /// Asks sled, and gives back what it read in beyond its cache.
    fn read<T>(&self, ask: impl FnOnce(&::sled::Db) -> ::sled::Result<T>) -> Result<T, EngineError> {
        self.call(|sled| {
            let answer = ask(sled);
            reclaim(1);
            answer
        })
    }

    fn flush_everything(&self) -> Result<(), EngineError> {
        self.call(|sled| sled.flush())?;
        // sled's flush is `sync_file_range`, which tells the device nothing: 15 of 24 power cuts lost
        // everything
        self.handle.sync()?;
        self.settle_new_files()?;
        files::no_blobs(self.dir())
    }

    fn settle_new_files(&self) -> Result<(), EngineError> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.dir().names()?;
        if names != *settled {
            self.dir().settle(&settled)?;
            *settled = names;
        }
        Ok(())
    }

    /// An emptied `db` opens without complaint, as a new one.
    fn must_hold_something(&self) -> Result<(), EngineError> {
        if self.call(|sled| Ok(sled.was_recovered()))? {
            return Ok(());
        }
        Err(damaged(&self.dir().path, "sled found nothing in it"))
    }

    fn break_with(&self, error: EngineError) -> EngineError {
        self.health.break_with(self.handle.or_failed_sync(error))
    }
}

fn named(dir: &EngineDir, error: ::sled::Error) -> EngineError {
    match error {
        ::sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            held_elsewhere(dir)
        }
        ::sled::Error::Io(source) => failed(&dir.path, source),
        ::sled::Error::Corruption { .. } => damaged(&dir.path, &error.to_string()),
        other => {
            let source = std::io::Error::other(other.to_string());
            EngineError::Io { path: dir.path.clone(), source }
        }
    }
}

/// What was freed waits, thread by thread, for a later pin of the epoch: without this the process grows by 2.5 KB a write,
/// and by what each read brought in from disk, until the next pause. Each round pins anew, or the epoch would not move on.
fn reclaim(rounds: usize) {
    for _ in 0..rounds {
        crossbeam_epoch::pin().flush();
    }
}

fn apply(sled: &::sled::Db, batch: ::sled::Batch) -> ::sled::Result<()> {
    sled.apply_batch(batch)?;
    // one batch is one pin of the epoch
    reclaim(4);
    Ok(())
}

fn as_sled_batch(writes: Vec<Write>) -> ::sled::Batch {
    let mut batch = ::sled::Batch::default();
    for write in writes {
        match write {
            Write::Put(key, value) => batch.insert(key, value),
            Write::Delete(key) => batch.remove(key),
        }
    }
    batch
}

fn owned((key, value): (::sled::IVec, ::sled::IVec)) -> Pair {
    (key.to_vec(), value.to_vec())
}
