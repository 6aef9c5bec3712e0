//! Moves what survives from the overlay to the engine, and gives the journal its room back. A step function: a thread
//! drives it, or a test does.
//!
//! # Invariants, in the order of the steps
//! 1. A frozen generation is written only when its last commit is durable: the engine never holds what the journal lost.
//! 2. Larger pages are written to page files and synced before the first batch of the engine, which may name them.
//! 3. Many small batches: cells and pages first, then each log's trimmed pages and cursor; the number in the last batch.
//! 4. Then the engine is flushed, then the manifest says so, and only then are segments recycled and page files removed.
//! 5. Readers go to the engine for a generation only after it was flushed. When a file goes, they have been told to look again.
//!
//! A crash anywhere between leaves batches that the replay from the old number writes again, to the same end, and in page files
//! what nobody names.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::admission::Admission;
use super::census::Census;
use super::committer::Step;
use super::engine::EngineError;
use super::fault::StoreError;
use super::manifest::Manifest;
use super::overlay::Frozen;
use super::packer::{Packed, Packer};
use super::writer::Writer;
use crate::clock::Stopwatch;
use crate::observe::Event;

/// Segments kept beyond the spares that are wanted. A spare that was taken is replaced at once, so without these every
/// segment would be pre-written anew and its predecessor removed.
const RECYCLED: usize = 2;

/// Drives checkpoints and keeps the journal's spares; see the module's head.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    /// As it is on disk.
    manifest: Manifest,
    /// The checkpoint that the engine has, which may not be on disk yet.
    number: u64,
    census: Census,
    stage: Stage,
    /// What the frozen generation was packed into: it stands, also when the engine had no room for what names it.
    packed: Option<Arc<Packed>>,
    began: Stopwatch,
    previous: Stopwatch,
    writes: u64,
}

enum Stage {
    Idle,
    Frozen(Arc<Frozen>),
    Packing(Box<Packer>),
    Writing(Box<Writer>),
    Written(Arc<Frozen>),
    Flushed(u64),
    Recorded(u64),
}

impl Checkpointer {
    pub(super) fn new(shared: Arc<Shared>, manifest: Manifest, number: u64, census: Census) -> Self {
        let now = Stopwatch::start();
        let stage = Stage::Idle;
        Checkpointer {
            shared,
            manifest,
            number,
            census,
            stage,
            packed: None,
            began: now,
            previous: now,
            writes: 0,
        }
    }

    /// Whether the next step writes to the engine.
    #[cfg(test)]
    pub(super) fn is_writing(&self) -> bool {
        matches!(self.stage, Stage::Writing(_))
    }

    /// Has a checkpoint begin although nothing asks for one yet.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(super) fn ask(&self) {
        self.shared.ask_for_checkpoint(&self.shared.admission());
    }

    /// What the next step is about.
    #[cfg(test)]
    #[cfg(not(steadfast_loom))]
    pub(super) fn is_about(&self) -> &'static str {
        match self.stage {
            Stage::Idle | Stage::Frozen(_) => "spares",
            Stage::Packing(_) => "pages",
            Stage::Writing(_) => "batches",
            Stage::Written(_) => "flush",
            Stage::Flushed(_) => "manifest",
            Stage::Recorded(_) => "recycle",
        }
    }

    /// Does the next piece of work, if there is one: a stage of a checkpoint, or a spare segment.
    pub(super) fn step(&mut self) -> Step {
        let _span = tracing::debug_span!("checkpoint", before = self.number).entered();
        let done = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => self.look(),
            Stage::Frozen(frozen) => self.start(frozen),
            Stage::Packing(packer) => self.pack(packer),
            Stage::Writing(writer) => self.write(writer),
            Stage::Written(frozen) => self.flush(frozen),
            Stage::Flushed(number) => self.record(number),
            Stage::Recorded(number) => self.recycle(number),
        };
        done.unwrap_or_else(|error| {
            self.shared.fail(error);
            Step::Failed
        })
    }

    fn look(&mut self) -> Result<Step, StoreError> {
        if self.keep_spares()? {
            return Ok(Step::Worked);
        }
        let mut admission = self.shared.admission();
        if admission.failed.is_some() {
            return Ok(Step::Idle);
        }
        let asked = self.shared.checkpoint_asked.swap(false, Ordering::AcqRel);
        if !asked && !admission.wants_checkpoint(self.shared.checkpoint_every) {
            return Ok(Step::Idle);
        }
        self.began = Stopwatch::start();
        self.writes = 0;
        self.stage = Stage::Frozen(admission.freeze());
        drop(admission);
        self.shared.wake_committer();
        Ok(Step::Worked)
    }

    /// Makes a spare segment when one is wanting; a full disk is remembered and tried again, not a failure.
    fn keep_spares(&self) -> Result<bool, StoreError> {
        let segments = &self.shared.segments;
        if segments.spares() >= self.shared.spares || self.shared.has_failed() {
            return Ok(false);
        }
        let made = segments.make_spare();
        segments.set_disk_full(made.is_err());
        self.shared.admission().room = segments.room();
        self.shared.eased.ring_all();
        match made {
            Ok(()) => Ok(true),
            Err(StoreError::Full { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins to write once every commit in the generation is durable and no backup wants the engine at rest.
    fn start(&mut self, frozen: Arc<Frozen>) -> Result<Step, StoreError> {
        if self.may_start(&mut self.shared.admission(), &frozen) {
            if cfg!(steadfast_bug = "drop-the-overlay-early") {
                self.shared.admission().drop_frozen();
            }
            let packed = self.packed.clone();
            self.stage = match packed.filter(|_| !cfg!(steadfast_bug = "pack-again-at-every-try")) {
                Some(packed) => self.writing(frozen, packed),
                None => Stage::Packing(Box::new(Packer::new(frozen))),
            };
            return Ok(Step::Worked);
        }
        self.stage = Stage::Frozen(frozen);
        // turns need journal room also while a checkpoint has to wait
        Ok(if self.keep_spares()? { Step::Worked } else { Step::Idle })
    }

    fn may_start(&self, admission: &mut Admission, frozen: &Frozen) -> bool {
        let durable = self.shared.durable.load(Ordering::Acquire) >= frozen.generation.last
            || cfg!(steadfast_bug = "checkpoint-before-durable");
        let rests = admission.engine.holds > 0 && !cfg!(steadfast_bug = "back-up-a-moving-engine");
        admission.engine.moves |= durable && !rests;
        durable && admission.engine.moves
    }

    fn writing(&self, frozen: Arc<Frozen>, packed: Arc<Packed>) -> Stage {
        let writer = Writer::new(frozen, self.census.clone(), self.number, packed);
        Stage::Writing(Box::new(writer))
    }

    fn pack(&mut self, mut packer: Box<Packer>) -> Result<Step, StoreError> {
        let files = &self.shared.pages;
        match self.shared.with_engine(|engine| packer.step(engine, &self.census, files)) {
            Ok(None) => self.stage = Stage::Packing(packer),
            Ok(Some(packed)) => {
                let packed = Arc::new(packed);
                self.packed = Some(packed.clone());
                self.stage = self.writing(packer.frozen, packed);
            }
            // the engine has not been touched: only what was written to page files is forgotten
            Err(StoreError::Full { .. }) => {
                files.rewind();
                self.make_room();
                tracing::warn!("no room for a checkpoint: senders are refused until there is");
                self.stage = Stage::Frozen(packer.frozen);
                return Ok(Step::Idle);
            }
            Err(error) => return Err(error),
        }
        Ok(Step::Worked)
    }

    fn write(&mut self, mut writer: Box<Writer>) -> Result<Step, StoreError> {
        let frozen = writer.frozen.clone();
        let batch = self.shared.with_engine(|engine| {
            let Some(batch) = writer.next_batch(engine)? else { return Ok(None) };
            let writes = batch.len();
            match engine.apply(batch) {
                Ok(()) => Ok(Some(writes)),
                Err(EngineError::Full { path }) => {
                    Err(StoreError::Full { path, what: "a checkpoint".into() })
                }
                Err(error) => Err(error.into()),
            }
        });
        match batch {
            Ok(Some(writes)) => {
                self.writes += writes as u64;
                self.stage = Stage::Writing(writer);
            }
            Ok(None) => {
                self.census = writer.census;
                self.number = frozen.generation.last;
                self.stage = Stage::Written(frozen);
                if cfg!(steadfast_bug = "remove-page-files-before-manifest") {
                    self.shared.pages.remove_dead(self.census.accounts())?;
                }
            }
            Err(StoreError::Full { .. }) => return self.reopen_full_engine(frozen),
            Err(error) => return Err(error),
        }
        Ok(Step::Worked)
    }

    /// There was no room for a checkpoint. Nothing is lost: the journal has it all. The engine must be opened again
    /// before it is used, and the checkpoint starts again once there is room.
    fn reopen_full_engine(&mut self, frozen: Arc<Frozen>) -> Result<Step, StoreError> {
        self.make_room();
        self.shared.reopen_engine()?;
        (self.number, self.census) = self.shared.with_engine(Census::read)?;
        tracing::warn!("no room for a checkpoint: senders are refused until there is");
        self.stage = Stage::Frozen(frozen);
        Ok(Step::Idle)
    }

    /// Says that the disk is full, and gives back what was set aside for this.
    fn make_room(&self) {
        self.shared.segments.set_disk_full(true);
        self.shared.admission().room = self.shared.segments.room();
        self.shared.eased.ring_all();
        self.shared.release_ballast();
    }

    fn flush(&mut self, frozen: Arc<Frozen>) -> Result<Step, StoreError> {
        let flushes = !cfg!(steadfast_bug = "manifest-before-flush");
        match self.shared.with_engine(|engine| if flushes { Ok(engine.flush()?) } else { Ok(()) }) {
            Ok(()) => self.stage = Stage::Flushed(frozen.generation.last),
            // what was applied may not have reached the disk: all of it is written again
            Err(StoreError::Full { .. }) => return self.reopen_full_engine(frozen),
            Err(error) => return Err(error),
        }
        Ok(Step::Worked)
    }

    fn record(&mut self, number: u64) -> Result<Step, StoreError> {
        let mut manifest = self.manifest.clone();
        manifest.checkpoint = number;
        manifest.first_segment = self.shared.segments.first_needed(number);
        manifest.high_water = self.shared.durable.load(Ordering::Acquire);
        if cfg!(steadfast_bug = "recycle-before-manifest") {
            self.shared.segments.recycle(manifest.first_segment, self.shared.spares + RECYCLED)?;
        }
        match manifest.write(&*self.shared.segments.medium, &self.shared.segments.root) {
            Ok(()) => {
                self.manifest = manifest;
                self.stage = Stage::Recorded(number);
                Ok(Step::Worked)
            }
            // the old manifest is still there, and still true
            Err(StoreError::Full { .. }) => {
                self.make_room();
                self.stage = Stage::Flushed(number);
                Ok(Step::Idle)
            }
            Err(error) => Err(error),
        }
    }

    fn recycle(&mut self, number: u64) -> Result<Step, StoreError> {
        {
            let mut admission = self.shared.admission();
            admission.drop_frozen();
            admission.forget_idle();
        }
        self.packed = None;
        self.shared.pages.remove_dead(self.census.accounts())?;
        let first_needed = if cfg!(steadfast_bug = "recycle-by-number") {
            self.shared.segments.first_needed(number)
        } else {
            self.manifest.first_segment
        };
        self.shared.segments.recycle(first_needed, self.shared.spares + RECYCLED)?;
        self.shared.restore_ballast();
        // there was room for a checkpoint; whether there is for a spare is found when one is wanting
        self.shared.segments.set_disk_full(false);
        let room = self.shared.segments.room();
        let (bytes, slowed) = {
            let mut admission = self.shared.admission();
            admission.room = room;
            admission.engine.moves = false;
            (admission.active.bytes() as u64, admission.is_pressed())
        };
        self.shared.eased.ring_all();
        self.shared.checkpointed.send_replace(number);
        self.shared.engine_rests.notify_all();
        let (took, age) = (self.began.elapsed(), self.previous.elapsed());
        self.previous = Stopwatch::start();
        self.shared.observer.event(&Event::Checkpointed { number, writes: self.writes, took, age });
        self.shared.observer.event(&Event::Pressure {
            overlay_bytes: bytes,
            segments: room.live as u64,
            slowed,
        });
        Ok(Step::Worked)
    }

    /// Writes the high-water mark when the journal has grown since the last manifest.
    pub(super) fn mark_high_water(&mut self) -> Result<(), StoreError> {
        let durable = self.shared.durable.load(Ordering::Acquire);
        if !matches!(self.stage, Stage::Idle) || self.manifest.high_water == durable {
            return Ok(());
        }
        let manifest = Manifest { high_water: durable, ..self.manifest.clone() };
        match manifest.write(&*self.shared.segments.medium, &self.shared.segments.root) {
            Ok(()) => self.manifest = manifest,
            // the mark is written again with the next manifest
            Err(StoreError::Full { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn mark_or_fail(&mut self) {
        if let Err(error) = self.mark_high_water() {
            self.shared.fail(error);
        }
    }

    /// Drives the steps until the store closes or fails. Gives itself back for the clean close.
    pub(super) fn run(mut self) -> Self {
        const RETRY: Duration = Duration::from_millis(500);
        let mut marked = Stopwatch::start();
        while !self.shared.has_failed() {
            match self.step() {
                Step::Worked => continue,
                Step::Failed => return self,
                Step::Idle => {}
            }
            if self.shared.is_closing() {
                return self;
            }
            if marked.elapsed() >= self.shared.mark_every {
                marked = Stopwatch::start();
                self.mark_or_fail();
            }
            let admission = self.shared.admission();
            // looked at again under the lock: whoever makes work notifies after taking it
            if !self.has_work(&admission) {
                let pause =
                    if self.shared.segments.room().disk_full { RETRY } else { self.shared.mark_every };
                drop(self.shared.wait(&self.shared.chores, admission, Some(pause)));
            }
        }
        self
    }

    fn has_work(&self, admission: &Admission) -> bool {
        let segments = &self.shared.segments;
        let has_room = !segments.room().disk_full;
        let wants_spare = segments.spares() < self.shared.spares && has_room;
        match &self.stage {
            Stage::Idle => {
                wants_spare
                    || admission.wants_checkpoint(self.shared.checkpoint_every)
                    || self.shared.checkpoint_asked.load(Ordering::Acquire)
            }
            Stage::Frozen(frozen) => {
                let durable = self.shared.durable.load(Ordering::Acquire) >= frozen.generation.last;
                wants_spare || has_room && durable && (admission.engine.moves || admission.engine.holds == 0)
            }
            Stage::Flushed(_) => has_room,
            _ => true,
        }
    }

    /// The last checkpoint, and the seal that says nothing may change from here on. Every commit must be durable and
    /// nothing admitted any more.
    pub(super) fn close(mut self) -> Result<(), StoreError> {
        self.wait_for_backups();
        self.finish()?;
        let frozen = self.shared.admission().freeze();
        let last = frozen.generation.last;
        self.stage = Stage::Frozen(frozen);
        self.finish()?;
        let seal = self.shared.close_engine()?;
        self.manifest.high_water = last;
        let pages = self.census.accounts().iter().map(|(file, account)| (file, account.end)).collect();
        self.manifest.clean = Some(super::manifest::CleanClose { last, seal, pages });
        let write = || self.manifest.write(&*self.shared.segments.medium, &self.shared.segments.root);
        match write() {
            Err(StoreError::Full { .. }) => {
                self.shared.release_ballast();
                write()
            }
            written => written,
        }
    }

    fn wait_for_backups(&self) {
        let mut admission = self.shared.admission();
        while admission.engine.holds > 0 {
            admission = self.shared.wait(&self.shared.engine_rests, admission, None);
        }
    }

    /// Takes the checkpoint in progress to its end. A disk that was full gets one more chance: the ballast is gone now.
    fn finish(&mut self) -> Result<(), StoreError> {
        let mut chances = 2;
        while !matches!(self.stage, Stage::Idle) {
            match self.step() {
                Step::Worked => {}
                Step::Failed => return Err(self.shared.failure().unwrap_or(StoreError::Closed)),
                Step::Idle if chances > 0 && self.shared.segments.room().disk_full => chances -= 1,
                Step::Idle => {
                    let path = self.shared.place.engine_path();
                    return Err(StoreError::Full { path, what: "the last checkpoint".into() });
                }
            }
        }
        Ok(())
    }
}
