//! The store: what is accepted is in the journal, what stays is in the engine, and one lock decides the order.
//!
//! ```text
//!   Batch ── admission (one lock: checks, numbers, overlay) ──► group ── committer ──► journal (write, one sync)
//!                         │                                                                 │ durable
//!                         └── overlay: active │ frozen ── checkpoint ──► pages, engine ──► manifest, recycle
//! ```
//!
//! Where to look: [`batch`] what is asked for · [`admission`] the order of the world · [`committer`], [`journal`],
//! [`segment`], [`group`] the durability point · [`overlay`], [`checkpoint`], [`packer`], [`writer`], [`census`], [`sealed`]
//! the way to the engine · [`page`], [`page_files`], [`shelf`], [`accounts`] what lies beside it · [`recovery`], [`manifest`] the way back · [`roll`], [`last_words`] what a crash leaves to say who
//! did it · [`read`] who asks · [`medium`], [`engine`] the two seams · [`engine_choice`], [`hardened`], [`sled`] (and `redb`) what
//! stands behind the second.

mod accounts;
mod admission;
mod backup;
mod batch;
mod census;
mod checkpoint;
mod committer;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod crash_points;
mod cursor;
mod disk;
mod driver;
mod engine;
mod engine_choice;
mod fault;
mod file_name;
mod group;
mod hardened;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod journal;
pub(crate) mod keys;
mod last_words;
mod lock;
mod manifest;
mod medium;
#[cfg(test)]
mod medium_contract;
mod overlay;
mod packer;
mod page;
mod page_files;
mod read;
mod recovery;
#[cfg(feature = "redb")]
mod redb;
mod roll;
mod sealed;
mod segment;
mod shelf;
mod simulated;
mod sled;
#[cfg(test)]
mod tests;
mod ticket;
mod unattended;
pub(crate) mod view;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use self::admission::{Admission, Bounds, MailboxState};
pub(crate) use self::admission::{Admitted, Limits, Origin, Refusal, Urgency};
pub(crate) use self::batch::{Batch, Condition, Seen};
use self::checkpoint::Checkpointer;
use self::committer::Committer;
pub(crate) use self::driver::Driven;
use self::engine::Engine;
pub use self::engine_choice::EngineChoice;
pub use self::fault::StoreError;
use self::journal::Segments;
pub(crate) use self::keys::{FIRST_ENTITY, KEY_MARK, LANES, LogId, MailboxId, is_entity, is_view, region_of};
pub(crate) use self::overlay::Slice;
use self::page_files::PageFiles;
pub(crate) use self::read::{Letter, Letters, Peek};
pub(crate) use self::recovery::{Place, Report};
use self::roll::LifeSigns;
pub(crate) use self::roll::{LastLife, OnRoll, SignedIn};
pub(crate) use self::simulated::SimulatedDisk;
pub(crate) use self::ticket::Slot;
use self::ticket::{Completion, Ticket};
pub(crate) use self::view::{Progress, ViewOf, ViewRecord};
use crate::observe::{Event, Observer};

/// Sizes of a store.
#[derive(Debug, Clone)]
pub(crate) struct StoreConfig {
    /// Bytes of one journal segment.
    pub(crate) segment: u64,
    /// Bytes of committed but not checkpointed values held in memory before a checkpoint starts.
    pub(crate) overlay: usize,
    /// Pre-written segments kept ready.
    pub(crate) spares: usize,
    /// Segments that recovery would read before senders are slowed.
    pub(crate) live_segments: usize,
    /// Bytes set aside so that a checkpoint has room on a full disk; reopening sled alone needs 17 MiB.
    pub(crate) ballast: u64,
    /// What a mailbox may hold that nobody has set limits for.
    pub(crate) limits: Limits,
    /// A page file that has so many bytes is not continued.
    pub(crate) page_file: u64,
    /// How often the high-water mark is written while nothing else writes the manifest.
    pub(crate) mark_every: Duration,
    /// The engine of a new store, which an existing one must have; with none it is the default and whichever there is.
    pub(crate) engine: Option<EngineChoice>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            segment: 16 << 20,
            overlay: 16 << 20,
            spares: 2,
            live_segments: 12,
            ballast: 20 << 20,
            limits: Limits { count: 1_000_000, bytes: 4 << 30 },
            page_file: 16 << 20,
            mark_every: Duration::from_secs(5),
            engine: None,
        }
    }
}

/// The smallest segment: its largest batch still takes a message of a few KiB.
pub(crate) const LEAST_SEGMENT: u64 = 64 << 10;

impl StoreConfig {
    fn bounds(&self) -> Result<Bounds, StoreError> {
        if self.segment < LEAST_SEGMENT || self.segment > 1 << 30 || !self.segment.is_multiple_of(4096) {
            let why = "a segment has 64 KiB to 1 GiB, in steps of 4 KiB";
            return Err(StoreError::Setting {
                setting: "journal segment",
                value: self.segment.to_string(),
                why,
            });
        }
        if self.spares < 2 {
            // with one, a segment that is nearly full would leave no room beside the reserve
            let why = "two are the least: one for senders, one for turns";
            return Err(StoreError::Setting {
                setting: "spare segments",
                value: self.spares.to_string(),
                why,
            });
        }
        let batch = (self.segment / 2) as usize - segment::START as usize;
        Ok(Bounds {
            group: batch / 2,
            batch,
            pending: batch,
            overlay: self.overlay,
            reserve: self.segment / 2,
            segments: self.live_segments,
            mailbox: self.limits,
        })
    }

    /// The largest batch a store of this configuration takes, in bytes.
    pub(crate) fn largest_batch(&self) -> u64 {
        self.segment / 2 - segment::START
    }
}

/// What the threads and every handle share.
struct Shared {
    admission: Mutex<Admission>,
    /// The ids to give to the next mailbox of an actor and of an entity, once they were looked for.
    next_ids: Mutex<[Option<MailboxId>; 3]>,
    /// The committer sleeps here, with the admission's lock.
    work: Condvar,
    /// The checkpointer sleeps here, with the admission's lock.
    chores: Condvar,
    /// Backups sleep here until a checkpoint has ended, and a close until the backups have, with the admission's lock.
    engine_rests: Condvar,
    durable: AtomicU64,
    /// Notified whenever senders that were told [`Refusal::Busy`] should try again.
    eased: Notify,
    engine: RwLock<Option<Box<dyn Engine>>>,
    place: Place,
    segments: Arc<Segments>,
    pages: Arc<PageFiles>,
    failed: watch::Sender<Option<StoreError>>,
    checkpointed: watch::Sender<u64>,
    checkpoint_asked: AtomicBool,
    closing: AtomicBool,
    /// Whether the life before this one closed the store.
    closed_cleanly: bool,
    life: Mutex<LifeSigns>,
    observer: Arc<dyn Observer>,
    spares: usize,
    checkpoint_every: usize,
    mark_every: Duration,
    ballast: u64,
}

impl Shared {
    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        on: &Condvar,
        admission: MutexGuard<'a, Admission>,
        at_most: Option<Duration>,
    ) -> MutexGuard<'a, Admission> {
        match at_most {
            Some(time) => on.wait_timeout(admission, time).unwrap_or_else(PoisonError::into_inner).0,
            None => on.wait(admission).unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    fn failure(&self) -> Option<StoreError> {
        self.failed.borrow().clone()
    }

    /// Ends the store: every waiter learns it, nothing is admitted any more.
    fn fail(&self, error: StoreError) {
        if !matches!(error, StoreError::Closed) {
            tracing::error!(%error, "the store has failed; only a new process resumes");
        }
        let tickets = self.admission().fail(error.clone());
        self.observer.event(&Event::StoreFailed { why: &error.to_string() });
        self.failed.send_if_modified(|failed| failed.replace(error.clone()).is_none());
        for ticket in tickets {
            ticket.complete(Completion::Failed);
        }
        self.wake_everybody();
    }

    fn wake_everybody(&self) {
        self.eased.notify_waiters();
        self.work.notify_all();
        self.chores.notify_all();
        self.engine_rests.notify_all();
    }

    /// With the lock: a checkpointer about to sleep has looked before, or hears it.
    fn ask_for_checkpoint(&self, _admission: &MutexGuard<'_, Admission>) {
        self.checkpoint_asked.store(true, Ordering::Release);
        self.chores.notify_one();
    }

    fn with_engine<T>(
        &self,
        ask: impl FnOnce(&dyn Engine) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let answer = ask(engine.as_deref().ok_or(StoreError::Closed)?);
        answer.map_err(|error| error.located(|| self.place.engine_path()))
    }

    /// As [`Shared::with_engine`], for whoever reads. An engine that a checkpoint found no room in answers nothing until the
    /// checkpointer has opened it again, which it does at once: that is no failure of the read.
    fn read_engine<T>(
        &self,
        mut ask: impl FnMut(&dyn Engine) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        const LOOK_AGAIN: Duration = Duration::from_millis(1);
        loop {
            match self.with_engine(&mut ask) {
                Err(StoreError::Full { .. }) if !self.has_failed() => std::thread::sleep(LOOK_AGAIN),
                answer => return answer,
            }
        }
    }

    fn reopen_engine(&self) -> Result<(), StoreError> {
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        drop(engine.take());
        *engine = Some(self.place.engine.open(None)?);
        Ok(self.place.engine.verified()?)
    }

    fn close_engine(&self) -> Result<engine::Seal, StoreError> {
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        Ok(engine.take().ok_or(StoreError::Closed)?.close()?)
    }

    /// Gives a checkpoint the room that was set aside for it.
    fn release_ballast(&self) {
        // when it is gone already there is nothing to give
        let _ = self.segments.medium.remove(BALLAST);
    }

    /// Sets room aside again; without room for it the next full disk simply comes sooner.
    fn restore_ballast(&self) {
        let medium = &self.segments.medium;
        let whole = || medium.open(BALLAST)?.len().map(|len| len >= self.ballast);
        if self.ballast == 0 || whole().unwrap_or(false) {
            return;
        }
        let _ = medium.remove(BALLAST);
        let enough = medium.free_space().is_ok_and(|free| free > 4 * self.ballast);
        if !enough {
            return;
        }
        const STRIDE: u64 = 1 << 20;
        let filled = medium.create(BALLAST).and_then(|file| {
            let zeros = vec![0; STRIDE.min(self.ballast) as usize];
            (0..self.ballast.div_ceil(STRIDE)).try_for_each(|index| file.write_at(index * STRIDE, &zeros))?;
            // without this a power cut would take it back
            file.sync()?;
            medium.sync_dir("")
        });
        if filled.is_err() {
            let _ = medium.remove(BALLAST);
        }
    }
}

const BALLAST: &str = "ballast";

/// A handle on an open store; clones share it.
#[derive(Clone)]
pub(crate) struct Store {
    shared: Arc<Shared>,
}

impl Store {
    /// Opens or makes the store at `place`, with nobody to drive it.
    fn open_undriven(
        place: Place,
        config: &StoreConfig,
        observer: Arc<dyn Observer>,
    ) -> Result<(Self, Committer, Checkpointer, Report), StoreError> {
        let recovered = recovery::open(&place, config)?;
        let recovery::Recovered {
            admission,
            engine,
            journal,
            segments,
            pages,
            manifest,
            number,
            census,
            report,
        } = recovered;
        let Report { commits, cut, clean } = report;
        observer.event(&Event::Recovered { commits, cut, clean });
        let shared = Arc::new(Shared {
            durable: AtomicU64::new(admission.last),
            admission: Mutex::new(admission),
            next_ids: Mutex::default(),
            work: Condvar::new(),
            chores: Condvar::new(),
            engine_rests: Condvar::new(),
            eased: Notify::new(),
            engine: RwLock::new(Some(engine)),
            place,
            segments,
            pages,
            failed: watch::Sender::new(None),
            checkpointed: watch::Sender::new(manifest.checkpoint),
            checkpoint_asked: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            closed_cleanly: clean,
            life: Mutex::default(),
            observer,
            spares: config.spares,
            checkpoint_every: config.segment as usize,
            mark_every: config.mark_every,
            ballast: config.ballast,
        });
        shared.restore_ballast();
        let committer = Committer::new(shared.clone(), journal);
        let checkpointer = Checkpointer::new(shared.clone(), manifest, number, census);
        Ok((Store { shared }, committer, checkpointer, report))
    }

    /// Takes a batch, or says why not. `Ok` means that only a failure of the store can undo it; it is durable once
    /// [`Store::durable`] says so.
    pub(crate) fn admit(&self, batch: &Batch, origin: Origin, urgency: Urgency) -> Result<Admitted, Refusal> {
        let (admitted, wake) = {
            let mut admission = self.shared.admission();
            let admitted = admission.admit(batch, origin, urgency)?;
            // the committer wakes for the first commit of a group, and for one that cannot wait
            (admitted, urgency == Urgency::Now || admission.filling.commits == 1)
        };
        if wake {
            self.shared.work.notify_one();
        }
        Ok(admitted)
    }

    /// Has what was admitted so far synced now.
    pub(crate) fn flush_soon(&self) {
        let mut admission = self.shared.admission();
        if admission.filling.commits > 0 {
            admission.urgent = true;
            self.shared.work.notify_one();
        }
    }

    /// Waits until the commit is durable. The error says that it is not known whether it will be found after a restart.
    pub(crate) async fn durable(&self, admitted: &Admitted) -> Result<(), StoreError> {
        self.wait_durable(admitted.number, &admitted.ticket).await
    }

    /// Waits until everything admitted before the call is durable.
    pub(crate) async fn durable_now(&self) -> Result<(), StoreError> {
        let (number, ticket) = {
            let mut admission = self.shared.admission();
            admission.urgent |= admission.filling.commits > 0;
            let last_group = admission.sealed.back().map(|group| group.ticket.clone());
            let ticket = match admission.filling.commits {
                0 => last_group,
                _ => Some(admission.filling.ticket.clone()),
            };
            (admission.last, ticket)
        };
        self.shared.work.notify_one();
        match ticket {
            Some(ticket) => self.wait_durable(number, &ticket).await,
            None => self.wait_written(number).await,
        }
    }

    /// The last group is with the committer: nothing is left to ask it for but the number.
    async fn wait_written(&self, number: u64) -> Result<(), StoreError> {
        loop {
            let eased = self.shared.eased.notified();
            tokio::pin!(eased);
            eased.as_mut().enable();
            if self.shared.durable.load(Ordering::Acquire) >= number {
                return Ok(());
            }
            if let Some(error) = self.shared.failure() {
                return Err(error);
            }
            eased.await;
        }
    }

    async fn wait_durable(&self, number: u64, ticket: &Ticket) -> Result<(), StoreError> {
        let mut slot = Slot::default();
        std::future::poll_fn(|cx| self.poll_ticket(number, ticket, &mut slot, cx)).await
    }

    /// As [`Store::durable`], for a future written by hand.
    pub(crate) fn poll_durable(
        &self,
        admitted: &Admitted,
        slot: &mut Slot,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StoreError>> {
        self.poll_ticket(admitted.number, &admitted.ticket, slot, cx)
    }

    fn poll_ticket(
        &self,
        number: u64,
        ticket: &Ticket,
        slot: &mut Slot,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StoreError>> {
        if self.shared.durable.load(Ordering::Acquire) >= number {
            return Poll::Ready(Ok(()));
        }
        ticket.poll(cx, slot).map(|completion| match completion {
            Completion::Durable => Ok(()),
            Completion::Failed => Err(self.shared.failure().unwrap_or(StoreError::Closed)),
        })
    }

    /// The last durable commit number.
    #[cfg(test)]
    pub(crate) fn durable_number(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// The last admitted commit number.
    pub(crate) fn last_number(&self) -> u64 {
        self.shared.admission().last
    }

    /// Waits for a moment at which a commit that was refused as [`Refusal::Busy`] is worth another try.
    pub(crate) async fn eased(&self) {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        // a missed notification costs one look
        let _ = tokio::time::timeout(LOOK_AGAIN, self.shared.eased.notified()).await;
    }

    /// Resolves when the store has failed.
    pub(crate) fn failed(&self) -> impl Future<Output = StoreError> + Send + 'static {
        let mut failed = self.shared.failed.subscribe();
        async move {
            match failed.wait_for(Option::is_some).await {
                Ok(error) => error.clone().unwrap_or(StoreError::Closed),
                Err(_) => StoreError::Closed,
            }
        }
    }

    /// Why the store has failed, if it has.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        self.shared.failure()
    }

    /// Loads a mailbox's cursors and sets its limits. May block on the disk.
    pub(crate) fn load_mailbox(&self, mailbox: MailboxId, limits: Option<Limits>) -> Result<(), StoreError> {
        if self.is_loaded(mailbox, limits) {
            return Ok(());
        }
        let name = match keys::is_entity(mailbox) {
            true => self.get(&keys::mailbox(mailbox))?,
            false => None,
        };
        let name = name.as_deref().map(String::from_utf8_lossy);
        self.load_named(mailbox, name.as_deref(), limits)
    }

    /// As [`Store::load_mailbox`], for who knows the name, which only an entity's needs.
    pub(crate) fn load_named(
        &self,
        mailbox: MailboxId,
        name: Option<&str>,
        limits: Option<Limits>,
    ) -> Result<(), StoreError> {
        if keys::is_view(mailbox) {
            return if self.is_loaded(mailbox, limits) { Ok(()) } else { self.load_view(mailbox) };
        }
        loop {
            let stamp = {
                let mut admission = self.shared.admission();
                if let Some(state) = admission.mailboxes.get_mut(&mailbox) {
                    state.limits = limits.or(state.limits);
                    return Ok(());
                }
                admission.stamp
            };
            let lanes = self.shared.read_engine(|engine| recovery::load_cursors(engine, mailbox))?;
            let mut admission = self.shared.admission();
            if admission.stamp == stamp && !admission.mailboxes.contains_key(&mailbox) {
                let attendance = admission.attendance(name);
                let mut state = MailboxState::new(lanes, limits, attendance);
                state.note_resumed(admission.epoch_first);
                admission.keep(mailbox, state);
            }
        }
    }

    /// Keeps a mailbox that was made just now: nothing of it is stored.
    pub(crate) fn keep_new_mailbox(&self, mailbox: MailboxId, name: &str, limits: Option<Limits>) {
        let mut admission = self.shared.admission();
        match admission.mailboxes.get_mut(&mailbox) {
            // its id was given before, in a commit that the process took with it, and somebody asked for it since
            Some(state) => {
                state.limits = limits.or(state.limits);
                if !cfg!(steadfast_bug = "keep_who_has_no_region_so") {
                    admission.attend_as(mailbox, Some(name));
                }
            }
            None => {
                let attendance = admission.attendance(Some(name));
                admission.keep(mailbox, MailboxState::new(Default::default(), limits, attendance));
            }
        }
    }

    /// Whether the mailbox is loaded; then sets its limits.
    pub(crate) fn is_loaded(&self, mailbox: MailboxId, limits: Option<Limits>) -> bool {
        let mut admission = self.shared.admission();
        let Some(state) = admission.mailboxes.get_mut(&mailbox) else { return false };
        state.limits = limits.or(state.limits);
        true
    }

    /// Starts a new incarnation of the mailbox's actor: commits of older ones are refused from here on.
    pub(crate) fn fence(&self, mailbox: MailboxId) -> u64 {
        self.shared.admission().fence(mailbox)
    }

    /// Loads a mailbox and keeps it loaded as long as what this gives lives: what is notified at every append to it and when the
    /// store fails, and one bit for each lane that got mail since the bits were last taken. May block on the disk.
    pub(crate) fn hold_mailbox(
        &self,
        mailbox: MailboxId,
        name: &str,
        limits: Option<Limits>,
    ) -> Result<(Arc<Notify>, Arc<AtomicU8>), StoreError> {
        loop {
            // what nobody holds may leave memory between the two
            self.load_named(mailbox, Some(name), limits)?;
            if let Some(held) = self.held_mailbox(mailbox) {
                return Ok(held);
            }
        }
    }

    /// For each lane: letters below this position were there when the store was opened.
    pub(crate) fn resumed(&self, mailbox: MailboxId) -> [u64; LANES] {
        self.shared.admission().mailboxes.get(&mailbox).map_or([0; LANES], |state| state.resumed)
    }

    /// As [`Store::hold_mailbox`], of one that is loaded.
    pub(crate) fn held_mailbox(&self, mailbox: MailboxId) -> Option<(Arc<Notify>, Arc<AtomicU8>)> {
        let admission = self.shared.admission();
        let state = admission.mailboxes.get(&mailbox)?;
        Some((state.bell.clone(), state.fresh.clone()))
    }

    /// How many mailboxes are loaded.
    #[cfg(all(test, not(steadfast_loom)))]
    pub(crate) fn loaded_mailboxes(&self) -> usize {
        self.shared.admission().mailboxes.len()
    }

    /// What is notified when something leaves the mailbox, if the mailbox is over its limits.
    pub(crate) fn over_limit(&self, mailbox: MailboxId) -> Option<Arc<Notify>> {
        let admission = self.shared.admission();
        let state = admission.mailboxes.get(&mailbox)?;
        state.is_over_limit(admission.bounds.mailbox).then(|| state.room.clone())
    }

    /// Wakes one more sender that waits for room, if there is some.
    pub(crate) fn pass_room_on(&self, mailbox: MailboxId) {
        let admission = self.shared.admission();
        if let Some(state) =
            admission.mailboxes.get(&mailbox).filter(|state| !state.is_over_limit(admission.bounds.mailbox))
        {
            state.room.notify_one();
        }
    }

    /// Messages waiting in a loaded mailbox and in the views it reads, and the bytes of those in the mailbox.
    pub(crate) fn depth(&self, mailbox: MailboxId) -> Option<(u64, u64)> {
        let admission = self.shared.admission();
        let state = admission.mailboxes.get(&mailbox)?;
        Some((state.waiting() + admission.waiting_in_views(mailbox), state.bytes()))
    }

    /// Asks for a checkpoint and waits until one that began after the call has finished.
    #[cfg(test)]
    pub(crate) async fn checkpoint(&self) -> Result<u64, StoreError> {
        let number = self.last_number();
        let mut checkpointed = self.shared.checkpointed.subscribe();
        let mut failed = self.shared.failed.subscribe();
        loop {
            if *checkpointed.borrow_and_update() >= number {
                return Ok(number);
            }
            self.shared.ask_for_checkpoint(&self.shared.admission());
            tokio::select! {
                _ = checkpointed.changed() => {}
                failure = failed.wait_for(Option::is_some) => {
                    return Err(failure.ok().and_then(|failure| failure.clone()).unwrap_or(StoreError::Closed));
                }
            }
        }
    }
}
