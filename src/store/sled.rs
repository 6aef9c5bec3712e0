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
mod handle;
mod rescue;
#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use self::handle::Handle;
use super::engine::{Engine, EngineError, EngineKind, MAX_VALUE, Pair, Seal, Which, Write};

/// The longest key an engine is handed, in bytes.
const MAX_KEY: usize = 1024;

/// A page over a quarter of a segment goes to a file in `blobs/` that sled never syncs. Sixteen entries make
/// a leaf, so sixteen values of [`MAX_VALUE`] must stay below it: the largest segment sled allows.
const SEGMENT_BYTES: usize = 16 * 1024 * 1024;

/// How long a lock may still be held by a child process that has not yet replaced our memory.
const FORK_PATIENCE: Duration = Duration::from_millis(100);

/// sled in a directory of its own. To open it needs some 17 MiB of room on the device, or it answers
/// [`EngineError::Full`]: it writes the last segment to its end.
#[derive(Debug, Clone)]
pub(crate) struct SledKind {
    /// The directory for sled itself; its parent exists.
    pub(crate) path: PathBuf,
    /// Where the files are copied to before sled opens them after an unclean exit; same parent.
    pub(crate) rescue: PathBuf,
    /// For sled's open and for its close, each.
    pub(crate) time_limit: Duration,
    /// What sled may keep in memory.
    pub(crate) cache_bytes: u64,
}

impl SledKind {
    /// Removes the copy made by an [`open`](EngineKind::open) without seal. Call it once what was opened has
    /// been verified, and not before: until then it may be the only copy sled has not cut short.
    pub(crate) fn forget_rescue(&self) -> Result<(), EngineError> {
        rescue::forget(&self.rescue)
    }

    fn config(&self) -> ::sled::Config {
        ::sled::Config::new()
            .path(&self.path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(self.cache_bytes)
            .use_compression(false)
            // sled's own flusher only logs a failed sync, and the next flush then succeeds
            .flush_every_ms(None)
    }

    /// Looks at everything sled is about to open, and changes nothing of a sealed engine.
    fn inspect(&self, seal: Option<&Seal>) -> Result<(), EngineError> {
        // with a snapshot and no `db` sled would start an empty one, and call it recovered
        files::must_be_there(&self.path, &[files::DB, files::CONF])?;
        files::no_blobs(&self.path)?;
        match seal {
            Some(seal) if !files::was_opened_since_close(&self.path)? => files::compare(&self.path, seal),
            _ => self.inspect_unsealed(),
        }
    }

    fn inspect_unsealed(&self) -> Result<(), EngineError> {
        // a kill in sled's open leaves half a snapshot, which the next open reads as the newest one: corrupt
        // for ever
        files::remove_half_written_snapshots(&self.path)?;
        files::only_snapshots_sled_wrote(&self.path)?;
        files::read_all(&self.path)?;
        rescue::copy_aside(&self.path, &self.rescue)
    }

    fn start(&self, db: fs::File) -> Result<SledEngine, EngineError> {
        let handle = Handle::open(self.config(), &self.path, db, self.time_limit)?;
        // what sled's open wrote (a new snapshot, a zeroed tail) is not durable by its own doing
        handle.sync()?;
        files::settle(&self.path, &[])?;
        files::no_blobs(&self.path)?;
        let settled = Mutex::new(files::names(&self.path)?);
        Ok(SledEngine { handle, settled, broken: OnceLock::new() })
    }
}

impl EngineKind for SledKind {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn exists(&self) -> Result<bool, EngineError> {
        self.path.try_exists().map_err(|source| files::failed(&self.path, source))
    }

    fn create(&self) -> Result<Box<dyn Engine>, EngineError> {
        // before sled does: it would make them readable by everyone
        files::create_private_dir(&self.path)?;
        files::create_private_dir(&self.path.join(files::BLOBS))?;
        let db = files::create_private(&self.path.join(files::DB))?;
        files::mark_opened(&self.path)?;
        let engine = self.start(db)?;
        engine.flush()?;
        files::sync_parent(&self.path)?;
        Ok(Box::new(engine))
    }

    fn open(&self, seal: Option<&Seal>) -> Result<Box<dyn Engine>, EngineError> {
        files::must_be_there(&self.path, &[files::DB, files::CONF])?;
        let db = files::open_for_writing(&self.path.join(files::DB))?;
        // nobody else has it open while its files are compared, copied and swept
        handle::lock(&db, &self.path, FORK_PATIENCE)?;
        self.inspect(seal)?;
        files::mark_opened(&self.path)?;
        db.unlock().map_err(|source| files::failed(&self.path, source))?;
        let engine = self.start(db)?;
        engine.must_hold_something()?;
        Ok(Box::new(engine))
    }

    fn was_opened_since_close(&self) -> Result<bool, EngineError> {
        files::was_opened_since_close(&self.path)
    }

    fn verified(&self) -> Result<(), EngineError> {
        self.forget_rescue()
    }

    fn open_copy(&self, which: Which, aside: &Path) -> Result<Option<Box<dyn Engine>>, EngineError> {
        let from = match which {
            Which::Present => &self.path,
            Which::PutAside => &self.rescue,
        };
        if !from.try_exists().map_err(|source| files::failed(from, source))? {
            return Ok(None);
        }
        let copy = SledKind { path: aside.join("copy"), rescue: aside.join("none"), ..self.clone() };
        files::create_private_dir(aside)?;
        rescue::copy(from, &copy.path)?;
        // what sled would take for damage of its own is gone from the copy; the rest is for it to say
        files::must_be_there(&copy.path, &[files::DB, files::CONF])?;
        files::remove_half_written_snapshots(&copy.path)?;
        files::create_private_dir(&copy.path.join(files::BLOBS))?;
        let db = files::open_for_writing(&copy.path.join(files::DB))?;
        Ok(Some(Box::new(copy.start(db)?)))
    }

    /// Leaves a rescue copy alone: an engine whose creation never finished has none.
    fn remove(&self) -> Result<(), EngineError> {
        files::remove_dir(&self.path)?;
        files::sync_parent(&self.path)
    }
}

/// An open sled.
struct SledEngine {
    handle: Handle,
    /// The files whose names are known to be durable.
    settled: Mutex<Vec<String>>,
    /// Why nothing is written any more. sled forgets some failures: its next flush would succeed.
    broken: OnceLock<Broken>,
}

enum Broken {
    Full,
    Failed(String),
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
        self.must_be_whole()?;
        self.within_limits(&batch)?;
        let batch = as_sled_batch(batch);
        self.handle.call(|sled| apply(sled, batch)).map_err(|error| self.break_with(error))
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.must_be_whole()?;
        self.flush_everything().map_err(|error| self.break_with(error))
    }

    fn close(mut self: Box<Self>) -> Result<Seal, EngineError> {
        self.flush()?;
        self.handle.release()?;
        // sled's last handle writes as it goes
        self.handle.sync()?;
        let dir = self.handle.dir();
        files::no_blobs(dir)?;
        files::settle(dir, &[])?;
        files::mark_closed(dir)?;
        files::seal(dir)
    }
}

impl SledEngine {
    /// Asks sled, and gives back what it read in beyond its cache.
    fn read<T>(&self, ask: impl FnOnce(&::sled::Db) -> ::sled::Result<T>) -> Result<T, EngineError> {
        self.handle.call(|sled| {
            let answer = ask(sled);
            reclaim(1);
            answer
        })
    }

    fn flush_everything(&self) -> Result<(), EngineError> {
        self.handle.call(|sled| sled.flush())?;
        // sled's flush is `sync_file_range`, which tells the device nothing: 15 of 24 power cuts lost
        // everything
        self.handle.sync()?;
        self.settle_new_files()?;
        files::no_blobs(self.handle.dir())
    }

    fn settle_new_files(&self) -> Result<(), EngineError> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let names = files::names(self.handle.dir())?;
        if names != *settled {
            files::settle(self.handle.dir(), &settled)?;
            *settled = names;
        }
        Ok(())
    }

    /// An emptied `db` opens without complaint, as a new one.
    fn must_hold_something(&self) -> Result<(), EngineError> {
        if self.handle.call(|sled| Ok(sled.was_recovered()))? {
            return Ok(());
        }
        Err(files::damaged(self.handle.dir(), "sled found nothing in it"))
    }

    fn within_limits(&self, batch: &[Write]) -> Result<(), EngineError> {
        let too_long = |write: &Write| match write {
            Write::Put(key, value) => key.len() > MAX_KEY || value.len() > MAX_VALUE,
            Write::Delete(key) => key.len() > MAX_KEY,
        };
        if !batch.iter().any(too_long) {
            return Ok(());
        }
        let source = io::Error::new(io::ErrorKind::InvalidInput, "a key or value is over the engine's limit");
        Err(EngineError::Io { path: self.handle.dir().to_path_buf(), source })
    }

    fn must_be_whole(&self) -> Result<(), EngineError> {
        let path = self.handle.dir().to_path_buf();
        match self.broken.get() {
            None => Ok(()),
            Some(Broken::Full) => Err(EngineError::Full { path }),
            Some(Broken::Failed(why)) => {
                let source = io::Error::other(format!("not written after an earlier failure: {why}"));
                Err(EngineError::Io { path, source })
            }
        }
    }

    /// Remembers the first failed write, and answers what it was.
    fn break_with(&self, error: EngineError) -> EngineError {
        let error = self.handle.or_failed_sync(error);
        let _ = self.broken.set(match &error {
            EngineError::Full { .. } => Broken::Full,
            other => Broken::Failed(other.to_string()),
        });
        error
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
