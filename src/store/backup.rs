//! A copy of an open store, as of a checkpoint: a fresh store in a directory of its own, closed cleanly. Senders go on
//! meanwhile; the next checkpoint waits.
//!
//! # Invariants
//! - The engine does not move while it is copied, and no page file goes: all of the copy is of one commit number.
//! - The copy has an id of its own, so segments of the original are foreign to it.
//! - The manifest comes last: what a backup that was interrupted leaves behind does not open.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::accounts::Accounts;
use super::engine::{Engine, EngineError, Pair, Seal, Write};
use super::engine_choice::EngineChoice;
use super::fault::StoreError;
use super::lock::Lock;
use super::manifest::{CleanClose, Manifest};
use super::page::Stored;
use super::page_files::{self, PageFiles};
use super::recovery::{self, Place};
use super::segment::{self, FORMAT, SegmentHeader};
use super::{Shared, Store};

/// Stands in the directory until the copy is whole.
const UNFINISHED: &str = "BACKUP";

/// The most writes in one engine batch, and about the most bytes: as a checkpoint does it.
const BATCH_WRITES: usize = 64;
const BATCH_BYTES: usize = 1 << 20;

impl Store {
    /// Writes a copy of the store to `to`, an empty directory or one still to be made, and returns the number of the
    /// last commit in it: every commit admitted before the call is. Blocks on the disk, and until a checkpoint has
    /// ended. While it runs no checkpoint begins, so senders are slowed once the overlay is full.
    pub(crate) fn backup(&self, to: &Path) -> Result<u64, StoreError> {
        self.backup_with(to, self.shared.place.choice)
    }

    /// The same, with this engine in the copy.
    pub(crate) fn backup_with(&self, to: &Path, engine: EngineChoice) -> Result<u64, StoreError> {
        must_be_empty(to)?;
        let _lock = Lock::take(to)?;
        let rest = self.shared.hold_engine()?;
        let copy = Copy { from: rest.shared, to: Place::directory(to, Some(engine))? };
        copy.make()
    }
}

fn must_be_empty(to: &Path) -> Result<(), StoreError> {
    let first = match fs::read_dir(to) {
        Ok(mut entries) => entries.next(),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(StoreError::io(to, "looking into the directory for a backup", source)),
    };
    match first {
        None => Ok(()),
        Some(_) => Err(StoreError::Setting {
            setting: "the directory for a backup",
            value: to.display().to_string(),
            why: "it is not empty",
        }),
    }
}

/// While it lives no checkpoint begins to write.
pub(super) struct Rest<'a> {
    shared: &'a Shared,
}

impl Shared {
    /// Waits for a checkpoint of all that is admitted, and keeps the engine as it is then.
    pub(super) fn hold_engine(&self) -> Result<Rest<'_>, StoreError> {
        const LOOK_AGAIN: Duration = Duration::from_millis(100);
        /// Looks at a full disk before this gives up: half a minute.
        const PATIENCE: u32 = 300;
        let mut admission = self.admission();
        let wanted = admission.last;
        let mut patience = PATIENCE;
        let mut rest = None;
        loop {
            if admission.closed || self.has_failed() {
                drop(admission);
                return Err(self.failure().unwrap_or(StoreError::Closed));
            }
            if rest.is_none() && *self.checkpointed.borrow() >= wanted {
                // one that has begun meanwhile still ends, the next one waits
                admission.engine.holds += 1;
                rest = Some(Rest { shared: self });
            }
            match rest.take() {
                Some(rest) if !admission.engine.moves || cfg!(steadfast_bug = "back-up-a-moving-engine") => {
                    return Ok(rest);
                }
                Some(waiting) => rest = Some(waiting),
                None => self.ask_for_checkpoint(&admission),
            }
            patience = if admission.room.disk_full { patience - 1 } else { PATIENCE };
            if patience == 0 {
                drop(admission);
                return Err(StoreError::Full {
                    path: self.place.root.clone(),
                    what: "the checkpoint that a backup needs".into(),
                });
            }
            admission = self.wait(&self.engine_rests, admission, Some(LOOK_AGAIN));
        }
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.shared.admission().engine.holds -= 1;
        self.shared.chores.notify_one();
        self.shared.engine_rests.notify_all();
    }
}

struct Copy<'a> {
    from: &'a Shared,
    to: Place,
}

impl Copy<'_> {
    fn make(&self) -> Result<u64, StoreError> {
        self.begin().map_err(|e| StoreError::io(&self.to.root, "beginning a backup", e))?;
        let (number, census) = self.from.with_engine(super::census::Census::read)?;
        let manifest = self.manifest(number);
        let pages = self.pages(&manifest, census.accounts())?;
        let seal = self.engine()?;
        let manifest = Manifest { clean: Some(CleanClose { last: number, seal, pages }), ..manifest };
        self.segment(&manifest)
            .map_err(|e| StoreError::io(&self.to.root, "writing a backup's journal", e))?;
        manifest.write(&*self.to.medium, &self.to.root)?;
        self.end().map_err(|e| StoreError::io(&self.to.root, "ending a backup", e))?;
        Ok(number)
    }

    fn begin(&self) -> io::Result<()> {
        let medium = &*self.to.medium;
        medium.create(UNFINISHED)?;
        medium.sync_dir("")?;
        medium.create_dir(recovery::JOURNAL)?;
        medium.create_dir(page_files::DIR)?;
        medium.sync_dir("")
    }

    fn end(&self) -> io::Result<()> {
        self.to.medium.remove(UNFINISHED)?;
        self.to.medium.sync_dir("")
    }

    /// Every page file in which something lives, with its dead pages: links name places in it.
    fn pages(&self, manifest: &Manifest, accounts: &Accounts) -> Result<Vec<(u64, u64)>, StoreError> {
        let Place { medium, root, .. } = &self.to;
        let to = PageFiles::find(medium.clone(), root.clone(), manifest.store, self.from.pages.size())?;
        let mut copied = Vec::new();
        for (file, account) in accounts.iter() {
            self.from.pages.copy(file, account.end, &to)?;
            copied.push((file, account.end));
        }
        let synced = medium.sync_dir(page_files::DIR);
        synced.map_err(|e| StoreError::io(root.join(page_files::DIR), "writing a backup's pages", e))?;
        Ok(copied)
    }

    /// Every sealed pair as it is, the meta record with number and census among them.
    fn engine(&self) -> Result<Seal, StoreError> {
        let to = self.to.engine.create().map_err(|error| no_room(error, &self.to))?;
        let mut from = Vec::new();
        while let Some(pairs) = self.next_pairs(&from)? {
            if let Some((last, _)) = pairs.last() {
                from = [last.as_slice(), &[0]].concat();
            }
            write(&*to, pairs).map_err(|error| no_room(error, &self.to))?;
        }
        to.close().map_err(|error| no_room(error, &self.to))
    }

    fn next_pairs(&self, from: &[u8]) -> Result<Option<Vec<Pair>>, StoreError> {
        let pairs = self.from.with_engine(|engine| Ok(engine.range(from, &[u8::MAX], BATCH_WRITES)?))?;
        // what is damaged in the original is found here, not when the copy is needed
        for (key, sealed) in &pairs {
            let (_, value) = super::sealed::verify(key, sealed)?;
            if key.first() == Some(&super::keys::class::PAGE)
                && let Stored::Link(link) = Stored::of(key, value)?
            {
                self.from.pages.read_record(key, &link)?;
            }
        }
        Ok(if pairs.is_empty() { None } else { Some(pairs) })
    }

    fn manifest(&self, number: u64) -> Manifest {
        Manifest {
            format: FORMAT,
            store: *recovery::uuid_of_a_new_store(),
            engine: self.to.engine.name().into(),
            segment_size: self.from.segments.size(),
            checkpoint: number,
            first_segment: 1,
            high_water: number,
            clean: None,
        }
    }

    /// The journal is one segment without a group, which says behind which commit it begins.
    fn segment(&self, manifest: &Manifest) -> io::Result<()> {
        let header = SegmentHeader {
            store: manifest.store,
            id: manifest.first_segment,
            previous: 0,
            previous_end: 0,
            last_before: manifest.high_water,
            first: manifest.high_water + 1,
            size: manifest.segment_size,
        };
        let file = self.to.medium.create(&segment::name(header.id))?;
        file.write_at(0, &header.encode())?;
        file.sync()?;
        self.to.medium.sync_dir(recovery::JOURNAL)
    }
}

fn write(to: &dyn Engine, pairs: Vec<Pair>) -> Result<(), EngineError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for (key, value) in pairs {
        bytes += key.len() + value.len();
        batch.push(Write::Put(key, value));
        if bytes >= BATCH_BYTES {
            to.apply(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    if batch.is_empty() { Ok(()) } else { to.apply(batch) }
}

fn no_room(error: EngineError, to: &Place) -> StoreError {
    match error {
        EngineError::Full { .. } => StoreError::Full { path: to.root.clone(), what: "a backup".into() },
        error => error.into(),
    }
}
