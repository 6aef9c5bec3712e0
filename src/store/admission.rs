//! The state behind the one lock: a batch is checked against it, numbered, given its positions, applied to the overlay
//! and written behind the group that is being filled. All of that is synchronous and touches no disk.
//!
//! # Invariants
//! - Commit numbers and positions are given here and nowhere else, both without a gap.
//! - A batch whose conditions fail, or for which there is no room, changes nothing.
//! - What is admitted is undone only by the failure of the store: the group it lies in is written before any later one.
//! - Senders from outside leave a reserve of journal room untouched; turns may use it, so acks never wait for senders.
//! - A mailbox of an entity leaves memory only when nobody holds anything of it and the engine has all of it; what is loaded again is the
//!   same, and no incarnation of it is ever given again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::batch::{Batch, Condition, Op, Seen};
use super::cursor::Cursor;
use super::fault::StoreError;
use super::group::{self, GroupHeader, Replayed};
use super::keys::{self, LANES, LogId, MailboxId};
use super::overlay::{Frozen, Generation, GroupBytes};
use super::ticket::Ticket;
use super::unattended::{Attendance, Regions};
use super::view::Shows;
use crate::sync::Bell;
use crate::sync::atomic::AtomicU8;

/// Who commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A sender outside a turn: slowed by pressure, refused when the disk is nearly full.
    Outside,
    /// A turn, or the runtime itself: uses the reserve.
    Inside,
}

/// How soon the commit should be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Somebody waits for it.
    Now,
    /// Within a few milliseconds, with whatever comes first.
    Soon,
}

/// A commit that was taken: it becomes durable, unless the store fails.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    pub(crate) number: u64,
    /// Positions of the appends, in their order.
    pub(crate) positions: Vec<u64>,
    pub(crate) ticket: Ticket,
}

/// Why a batch was not admitted. Nothing of it happened.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    /// The letter was settled by something else, such as a cancellation.
    Gone,
    /// A newer incarnation of the actor has started.
    Fenced,
    /// A key that had to be absent has a value, or the other way round.
    Key(Vec<u8>),
    /// The read behind a condition is out of date: read again.
    Stale,
    /// The mailbox's cursors are not in memory: load them first.
    NotLoaded(MailboxId),
    /// The mailbox is at its limit; `room` is rung when something leaves it.
    MailboxFull { waiting: u64, bytes: u64, limits: Limits, room: Arc<Bell> },
    /// The batch is larger than a mailbox or a group can ever take.
    TooLarge { bytes: u64, limit: u64 },
    /// Too much waits for the disk or the checkpoint: wait for `Store::eased`.
    Busy,
    /// The disk has no room.
    NoRoom,
    /// The store has failed or is closed.
    Failed(StoreError),
}

/// How much a mailbox may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// So few mailboxes in memory are not worth a look.
const FEW: usize = 4096;

/// What is known of a mailbox: its cursors, its limits and who is to be woken.
#[derive(Debug)]
pub(crate) struct MailboxState {
    pub(super) lanes: [Cursor; LANES],
    /// The generation in which each lane was last listed as touched.
    touched_in: [u64; LANES],
    /// None: the bounds' usual ones, until somebody says otherwise.
    pub(super) limits: Option<Limits>,
    pub(super) incarnation: u64,
    pub(super) room: Arc<Bell>,
    pub(super) bell: Arc<Bell>,
    /// Letters below these positions were there when the store was opened.
    pub(super) resumed: [u64; LANES],
    /// One bit for each lane that got mail since whoever reads the mailbox last took the bits.
    pub(super) fresh: Arc<AtomicU8>,
    pub(super) attendance: Attendance,
    /// Those who show this mailbox's logs.
    pub(super) views: Vec<MailboxId>,
    /// Its views: other logs that its reader reads through it.
    pub(super) reads: Vec<MailboxId>,
    /// What this one shows, if it is a view.
    pub(super) shows: Option<Shows>,
}

impl MailboxState {
    pub(super) fn new(lanes: [Cursor; LANES], limits: Option<Limits>, attendance: Attendance) -> Self {
        MailboxState {
            lanes,
            touched_in: [0; LANES],
            limits,
            incarnation: 0,
            resumed: [0; LANES],
            room: Arc::new(Bell::new()),
            bell: Arc::new(Bell::new()),
            fresh: Arc::default(),
            attendance,
            views: Vec::new(),
            reads: Vec::new(),
            shows: None,
        }
    }

    /// Whether somebody holds a part of it: whoever reads it, sends to it or waits for room in it.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.room) > 1
            || Arc::strong_count(&self.bell) > 1
            || Arc::strong_count(&self.fresh) > 1
    }

    /// Whether it may leave memory. `oldest` is the first generation that is not in the engine. One over its limit stays, for
    /// whoever filled it waits for room.
    fn is_idle(&self, oldest: u64, usual: Limits) -> bool {
        let touched = self.touched_in.iter().any(|generation| *generation >= oldest)
            && !cfg!(steadfast_bug = "forget_a_touched_mailbox");
        !touched && !self.is_held() && !self.attendance.is_attended() && !self.is_over_limit(usual)
    }

    /// Has every empty lane go on at `position` or above.
    pub(super) fn begin_at(&mut self, position: u64) {
        for lane in &mut self.lanes {
            lane.begin_at(position);
        }
    }

    /// To be called when the cursors were read: one that no commit of this epoch is contained in is as it was at the open.
    pub(super) fn note_resumed(&mut self, epoch_first: u64) {
        let as_of_the_open = |cursor: &Cursor| if cursor.as_of < epoch_first { cursor.next } else { 0 };
        self.resumed = std::array::from_fn(|lane| as_of_the_open(&self.lanes[lane]));
    }

    pub(super) fn waiting(&self) -> u64 {
        self.lanes.iter().map(Cursor::waiting).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    pub(super) fn limits(&self, usual: Limits) -> Limits {
        self.limits.unwrap_or(usual)
    }

    pub(super) fn is_over_limit(&self, usual: Limits) -> bool {
        let limits = self.limits(usual);
        self.waiting() > limits.count || self.bytes() > limits.bytes
    }
}

/// The group that takes commits.
#[derive(Debug)]
pub(super) struct Filling {
    pub(super) id: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) first: u64,
    pub(super) commits: u32,
    pub(super) ticket: Ticket,
}

impl Filling {
    fn new(id: u64, bytes: Vec<u8>) -> Self {
        Filling { id, bytes, first: 0, commits: 0, ticket: Ticket::new() }
    }
}

/// A group that waits for the committer. The header is completed when its segment is known.
#[derive(Debug)]
pub(super) struct SealedGroup {
    pub(super) bytes: GroupBytes,
    pub(super) first: u64,
    pub(super) commits: u32,
    pub(super) ticket: Ticket,
}

impl SealedGroup {
    pub(super) fn last(&self) -> u64 {
        self.first + u64::from(self.commits) - 1
    }
}

/// Sizes that bound what is held in memory and in the journal, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// A group is sealed for the committer when it is longer.
    pub(super) group: usize,
    /// The largest batch.
    pub(super) batch: usize,
    /// Groups waiting for the committer, before senders are slowed.
    pub(super) pending: usize,
    /// The active generation, before it is frozen; senders are slowed while twice this is held.
    pub(super) overlay: usize,
    /// Journal room that senders leave to turns.
    pub(super) reserve: u64,
    /// Live segments, before senders are slowed.
    pub(super) segments: usize,
    /// What a mailbox may hold that nobody has set limits for.
    pub(super) mailbox: Limits,
}

/// What the journal last said of its room.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    /// Bytes that fit into pre-written segments, whatever the sizes of the groups.
    pub(super) usable: u64,
    /// Segments that recovery would read.
    pub(super) live: usize,
    /// Whether making another segment failed for want of space.
    pub(super) disk_full: bool,
}

/// Whether the engine stands between two checkpoints, and who needs it to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EngineUse {
    /// A checkpoint has begun to write and is not recorded yet.
    pub(super) moves: bool,
    /// Backups in progress: no checkpoint begins to write meanwhile.
    pub(super) holds: usize,
}

/// The first number of the epoch after that of `last`: a number that was lost with a torn tail is never given again.
pub(super) fn next_epoch(last: u64) -> u64 {
    const SEQUENCE_BITS: u32 = 44;
    ((last >> SEQUENCE_BITS) + 1) << SEQUENCE_BITS | 1
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) bounds: Bounds,
    pub(super) last: u64,
    /// That of the group with the last commit.
    last_ticket: Ticket,
    pub(super) filling: Filling,
    pub(super) sealed: VecDeque<SealedGroup>,
    pub(super) pending: usize,
    pub(super) active: Generation,
    pub(super) frozen: Option<Arc<Frozen>>,
    pub(super) mailboxes: BTreeMap<MailboxId, MailboxState>,
    /// The entities that have mail and nobody who reads it.
    pub(super) regions: Regions,
    /// The last incarnation given, of any mailbox: one that left memory and came back does not begin again.
    incarnations: u64,
    /// How many mailboxes stayed in memory when it was last looked.
    stayed: usize,
    /// Finished checkpoints: while it stands, what the engine said holds for keys the overlay does not have.
    pub(super) stamp: u64,
    pub(super) room: Room,
    pub(super) engine: EngineUse,
    /// Bytes admitted since the last freeze.
    pub(super) since_freeze: usize,
    pub(super) urgent: bool,
    pub(super) failed: Option<StoreError>,
    /// The store is being closed: what was admitted is still written.
    pub(super) closed: bool,
    /// The first number of this open's epoch.
    pub(super) epoch_first: u64,
    /// Buffers of written groups, to be filled again.
    spare_buffers: Vec<Vec<u8>>,
    groups: u64,
}

impl Admission {
    pub(super) fn new(bounds: Bounds, last: u64) -> Self {
        let mut admission = Admission {
            bounds,
            last,
            // what was recovered is durable: nobody waits with this one
            last_ticket: Ticket::new(),
            filling: Filling::new(0, Vec::new()),
            sealed: VecDeque::new(),
            pending: 0,
            active: Generation::new(1),
            frozen: None,
            mailboxes: BTreeMap::new(),
            regions: Regions::default(),
            incarnations: 0,
            stayed: 0,
            stamp: 0,
            room: Room::default(),
            engine: EngineUse::default(),
            since_freeze: 0,
            urgent: false,
            failed: None,
            closed: false,
            epoch_first: next_epoch(last),
            spare_buffers: Vec::new(),
            groups: 0,
        };
        admission.filling = admission.empty_group();
        admission
    }

    /// Takes the batch, or says why not; see the module's invariants.
    pub(super) fn admit(
        &mut self,
        batch: &Batch,
        origin: Origin,
        urgency: Urgency,
    ) -> Result<Admitted, Refusal> {
        self.check_alive()?;
        self.check_conditions(batch)?;
        if batch.is_empty() {
            // nothing to write: whoever made it waits for what it has seen
            return Ok(self.last_admitted(Vec::new()));
        }
        self.check_space(batch, origin)?;
        let positions = self.take_positions(batch);
        self.write_and_apply(batch, &positions);
        self.urgent |= urgency == Urgency::Now;
        Ok(self.last_admitted(positions))
    }

    /// The last commit, as whoever waits for it is given it.
    pub(super) fn last_admitted(&self, positions: Vec<u64>) -> Admitted {
        Admitted { number: self.last, positions, ticket: self.last_ticket.clone() }
    }

    /// Ends admission for good and gives back the tickets of what was not written.
    pub(super) fn fail(&mut self, error: StoreError) -> Vec<Ticket> {
        if self.failed.is_none() {
            self.failed = Some(error);
        }
        for state in self.mailboxes.values() {
            // for good: whoever was refused just now has yet to begin to wait
            state.room.ring_for_good();
            state.bell.ring_for_good();
        }
        let filling = (!cfg!(steadfast_bug = "forget-who-fills")).then(|| self.filling.ticket.clone());
        self.sealed.iter().map(|group| group.ticket.clone()).chain(filling).collect()
    }

    fn check_alive(&self) -> Result<(), Refusal> {
        match &self.failed {
            Some(failed) => Err(Refusal::Failed(failed.clone())),
            None if self.closed => Err(Refusal::Failed(StoreError::Closed)),
            None => Ok(()),
        }
    }

    fn check_conditions(&self, batch: &Batch) -> Result<(), Refusal> {
        for op in &batch.ops {
            debug_assert!(op.can_be_replayed(), "the next open would refuse it: {op:?}");
            if let Op::Append { log, .. }
            | Op::Settle { log, .. }
            | Op::Trim { log, .. }
            | Op::Seek { log, .. } = op
            {
                self.mailbox(log.mailbox)?;
            }
        }
        batch.conditions.iter().try_for_each(|condition| self.check(condition, batch))
    }

    fn check(&self, condition: &Condition, batch: &Batch) -> Result<(), Refusal> {
        match condition {
            Condition::Waiting { log, position } => {
                let waiting = self.mailbox(log.mailbox)?.lanes[usize::from(log.lane)].is_waiting(*position);
                if waiting { Ok(()) } else { Err(Refusal::Gone) }
            }
            Condition::Incarnation { mailbox, incarnation } => {
                let current = self.mailbox(*mailbox)?.incarnation;
                if current == *incarnation || cfg!(steadfast_bug = "let-a-late-commit-in") {
                    Ok(())
                } else {
                    Err(Refusal::Fenced)
                }
            }
            Condition::Absent { key, seen } => self.check_key(key, *seen, false),
            Condition::Present { key, seen } => self.check_key(key, *seen, true),
            Condition::Room { mailbox } => self.check_room(*mailbox, batch),
        }
    }

    fn check_key(&self, key: &[u8], seen: Option<Seen>, wanted: bool) -> Result<(), Refusal> {
        let present = match (self.peek(key), seen) {
            (Some(value), _) => value.is_some(),
            (None, Some(seen)) if seen.stamp == self.stamp => seen.present,
            (None, _) => return Err(Refusal::Stale),
        };
        if present == wanted { Ok(()) } else { Err(Refusal::Key(key.to_vec())) }
    }

    fn check_room(&self, mailbox: MailboxId, batch: &Batch) -> Result<(), Refusal> {
        let state = self.mailbox(mailbox)?;
        let (mut count, mut bytes) = (0, 0);
        for op in &batch.ops {
            if let Op::Append { log, envelope } = op
                && log.mailbox == mailbox
            {
                count += 1;
                bytes += envelope.len() as u64;
            }
        }
        let limits = state.limits(self.bounds.mailbox);
        let Limits { count: most, bytes: most_bytes } = limits;
        if count > most || bytes > most_bytes {
            return Err(Refusal::TooLarge { bytes, limit: most_bytes });
        }
        let (waiting, held) = (state.waiting(), state.bytes());
        if waiting + count > most || held + bytes > most_bytes {
            let room = state.room.clone();
            return Err(Refusal::MailboxFull { waiting, bytes: held, limits, room });
        }
        Ok(())
    }

    fn check_space(&self, batch: &Batch, origin: Origin) -> Result<(), Refusal> {
        let size = batch.encoded_len();
        if size > self.bounds.batch {
            return Err(Refusal::TooLarge { bytes: size as u64, limit: self.bounds.batch as u64 });
        }
        let keeps_reserve = origin == Origin::Outside && !cfg!(steadfast_bug = "spend-the-reserve");
        let reserve = if keeps_reserve { self.bounds.reserve } else { 0 };
        let groups = self.pending + group::padded(self.filling.bytes.len()) + group::padded(size);
        let wanted = groups as u64 + reserve;
        if wanted <= self.room.usable && !(origin == Origin::Outside && self.is_pressed()) {
            return Ok(());
        }
        // on a full disk also what is only slow would not end: a checkpoint may find no room
        Err(if self.room.disk_full { Refusal::NoRoom } else { Refusal::Busy })
    }

    /// Whether senders from outside are to wait.
    pub(super) fn is_pressed(&self) -> bool {
        self.pending > self.bounds.pending
            || self.room.live > self.bounds.segments
            || self.held() >= 2 * self.bounds.overlay
    }

    /// Bytes of what no checkpoint has moved to the engine yet.
    pub(super) fn held(&self) -> usize {
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.generation.bytes());
        frozen + self.active.bytes() + self.filling.bytes.len()
    }

    /// Whether the active generation should be frozen and checkpointed.
    pub(super) fn wants_checkpoint(&self, every: usize) -> bool {
        // a process that ended again and again leaves a segment each time, however little is in it
        let many = self.room.live > self.bounds.segments && !cfg!(steadfast_bug = "slow_senders_for_ever");
        self.frozen.is_none()
            && (self.active.bytes() >= self.bounds.overlay || self.since_freeze >= every || many)
    }

    fn take_positions(&mut self, batch: &Batch) -> Vec<u64> {
        let mut positions = Vec::new();
        for op in &batch.ops {
            if let Op::Append { log, envelope } = op
                && let Some(state) = self.mailboxes.get_mut(&log.mailbox)
            {
                positions.push(state.lanes[usize::from(log.lane)].append(envelope.len()));
            }
        }
        positions
    }

    fn write_and_apply(&mut self, batch: &Batch, positions: &[u64]) {
        self.seal_before(batch.encoded_len());
        self.last = self.next_number();
        if self.filling.commits == 0 {
            self.filling.first = self.last;
            self.last_ticket = self.filling.ticket.clone();
        }
        self.filling.commits += 1;
        let start = self.filling.bytes.len();
        let mut placed = Vec::new();
        group::encode_commit(batch, positions, &mut self.filling.bytes, |at, len| placed.push(at..at + len));
        self.since_freeze += self.filling.bytes.len() - start;
        self.apply(batch, positions, &placed);
    }

    pub(super) fn next_number(&self) -> u64 {
        (self.last + 1).max(self.epoch_first)
    }

    fn apply(&mut self, batch: &Batch, positions: &[u64], placed: &[std::ops::Range<usize>]) {
        let (mut positions, mut placed) = (positions.iter(), placed.iter().cloned());
        for op in &batch.ops {
            match op {
                Op::Append { log, .. } => {
                    let (Some(position), Some(at)) = (positions.next(), placed.next()) else { return };
                    self.active.append(*log, *position, self.filling.id, at);
                    self.touch(*log);
                    let Some(state) = self.mailboxes.get(&log.mailbox) else { continue };
                    state.fresh.fetch_or(1 << log.lane, Ordering::Release);
                    state.bell.ring();
                    // most mail goes to neither: it is not looked up again for them
                    if !state.views.is_empty() {
                        self.advance_views(*log, *position + 1);
                    }
                    if keys::is_entity(log.mailbox) {
                        self.list_if_unattended(log.mailbox);
                    }
                }
                Op::Settle { log, position, len } => self.settle(*log, *position, *len),
                Op::Trim { log, below, bytes } => self.trim(*log, *below, *bytes),
                Op::Seek { log, to } => self.seek(*log, *to),
                Op::Put { key, value } => {
                    placed.next();
                    self.active.put(key.clone(), Some(&batch.bytes[value.clone()]));
                }
                Op::PutPlaced { key, .. } => {
                    let Some(at) = placed.next() else { return };
                    self.active.put(key.clone(), Some(&self.filling.bytes[at]));
                }
                Op::Delete { key } => self.delete(key.clone()),
            }
        }
    }

    fn settle(&mut self, log: LogId, position: u64, len: u32) {
        self.touch(log);
        let Some(state) = self.mailboxes.get_mut(&log.mailbox) else { return };
        if state.lanes[usize::from(log.lane)].settle(position, len) {
            self.active.settle(log, position);
            state.room.ring();
            if state.shows.is_some() {
                self.pass_superseded(log.mailbox);
            } else if !state.views.is_empty() {
                self.settled_in_views(log);
            }
        }
    }

    fn trim(&mut self, log: LogId, below: u64, bytes: u64) {
        self.touch(log);
        let Some(state) = self.mailboxes.get_mut(&log.mailbox) else { return };
        if state.lanes[usize::from(log.lane)].trim(below, bytes) {
            self.active.trim(log, below);
            state.room.ring();
            self.pass_superseded(log.mailbox);
        }
    }

    fn delete(&mut self, key: Vec<u8>) {
        if cfg!(steadfast_bug = "cancel-across-generations") && self.active.cells.remove(&key).is_some() {
            return;
        }
        // always a tombstone: whether the engine has the key is not known here
        self.active.put(key, None);
    }

    pub(super) fn touch(&mut self, log: LogId) {
        let generation = self.active.id;
        let Some(state) = self.mailboxes.get_mut(&log.mailbox) else { return };
        let touched_in = &mut state.touched_in[usize::from(log.lane)];
        if *touched_in != generation {
            *touched_in = generation;
            self.active.touch(log);
        }
    }

    /// Keeps a mailbox as the engine has it.
    pub(super) fn keep(&mut self, mailbox: MailboxId, mut state: MailboxState) {
        if keys::is_entity(mailbox) && !cfg!(steadfast_bug = "begin_entities_at_nothing") {
            state.begin_at(self.last);
        }
        if self.mailboxes.len() > 2 * self.stayed + FEW {
            self.forget_idle();
        }
        self.mailboxes.insert(mailbox, state);
    }

    /// After a replay: an empty log of an entity that has no record, and got nothing since, goes on at the last number.
    pub(super) fn begin_drained_entities(&mut self) {
        let last = self.last;
        for (_, state) in self.mailboxes.range_mut(keys::FIRST_ENTITY..) {
            state.begin_at(last);
        }
    }

    /// A new incarnation of the mailbox's actor, and of no other.
    pub(super) fn fence(&mut self, mailbox: MailboxId) -> u64 {
        self.incarnations += 1;
        if let Some(state) = self.mailboxes.get_mut(&mailbox) {
            if cfg!(steadfast_bug = "give_incarnations_again") {
                state.incarnation += 1;
                return state.incarnation;
            }
            state.incarnation = self.incarnations;
        }
        self.incarnations
    }

    /// Drops the entities' mailboxes that nobody holds and of which the engine has all. Those of other actors are few.
    pub(super) fn forget_idle(&mut self) {
        let oldest = self.frozen.as_ref().map_or(self.active.id, |frozen| frozen.generation.id);
        let usual = self.bounds.mailbox;
        self.mailboxes.retain(|id, state| !keys::is_entity(*id) || !state.is_idle(oldest, usual));
        self.stayed = self.mailboxes.len();
    }

    fn mailbox(&self, id: MailboxId) -> Result<&MailboxState, Refusal> {
        self.mailboxes.get(&id).ok_or(Refusal::NotLoaded(id))
    }

    /// What the overlay says of a key: `None` when only the engine knows.
    pub(super) fn peek(&self, key: &[u8]) -> Option<Option<Arc<[u8]>>> {
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.generation.cells.get(key));
        self.active.cells.get(key).or_else(frozen).cloned()
    }

    /// Makes room in the group that is being filled, so that no group exceeds the bounds.
    fn seal_before(&mut self, size: usize) {
        if self.filling.commits > 0 && self.filling.bytes.len() + size > self.bounds.group {
            self.seal_filling();
        }
    }

    /// Hands the group that is being filled to the committer.
    pub(super) fn seal_filling(&mut self) {
        if self.filling.commits == 0 {
            return;
        }
        let empty = self.empty_group();
        let full = std::mem::replace(&mut self.filling, empty);
        if cfg!(steadfast_bug = "keep-the-ticket-of-a-group") {
            self.filling.ticket = full.ticket.clone();
        }
        let bytes = Arc::new(full.bytes);
        self.active.group_sealed(full.id, &bytes);
        self.pending += group::padded(bytes.len());
        self.sealed.push_back(SealedGroup {
            bytes,
            first: full.first,
            commits: full.commits,
            ticket: full.ticket,
        });
    }

    fn empty_group(&mut self) -> Filling {
        self.groups += 1;
        let mut bytes = self.spare_buffers.pop().unwrap_or_default();
        bytes.clear();
        Filling::new(self.groups, bytes)
    }

    /// Gives back the buffer of a written group that the overlay does not hold.
    pub(super) fn recycle_buffer(&mut self, bytes: GroupBytes) {
        const KEEP: usize = 4;
        if self.spare_buffers.len() < KEEP
            && let Ok(bytes) = Arc::try_unwrap(bytes)
        {
            self.spare_buffers.push(bytes);
        }
    }

    /// Ends the active generation, so that the checkpoint can write it.
    pub(super) fn freeze(&mut self) -> Arc<Frozen> {
        self.seal_filling();
        let next = Generation::new(self.active.id + 1);
        let mut generation = std::mem::replace(&mut self.active, next);
        generation.last = self.last;
        let cursors = generation
            .touched()
            .iter()
            .filter_map(|log| {
                Some((*log, self.mailboxes.get(&log.mailbox)?.lanes[usize::from(log.lane)].clone()))
            })
            .collect();
        let frozen = Arc::new(Frozen { generation, cursors });
        self.frozen = Some(frozen.clone());
        self.since_freeze = 0;
        frozen
    }

    /// The engine has it all: readers go there from now on.
    pub(super) fn drop_frozen(&mut self) {
        self.frozen = None;
        self.stamp += 1;
    }

    /// Applies one group found in the journal; `None` when it cannot have been written. The cursors of every mailbox in it must
    /// be loaded.
    pub(super) fn replay(
        &mut self,
        header: &GroupHeader,
        bytes: Vec<u8>,
        ops: Vec<(u32, Replayed)>,
    ) -> Option<()> {
        self.groups += 1;
        let group = self.groups;
        for (commit, op) in ops {
            self.replay_op(header.first + u64::from(commit), group, &bytes, op)?;
        }
        self.last = header.last();
        self.since_freeze += bytes.len();
        self.active.group_sealed(group, &Arc::new(bytes));
        Some(())
    }

    fn replay_op(&mut self, number: u64, group: u64, bytes: &[u8], op: Replayed) -> Option<()> {
        match op {
            Replayed::Append { log, position, envelope } => {
                let Some(state) = self.mailboxes.get_mut(&log.mailbox) else { return Some(()) };
                let cursor = &mut state.lanes[usize::from(log.lane)];
                if number <= cursor.as_of {
                    return Some(());
                }
                // an empty log of an entity goes on where it was said to
                cursor.begin_at(position);
                // a position is given once, and a view gives none
                let is_new = position >= cursor.next && position < u64::MAX && !log.is_shown();
                if !is_new && !cfg!(steadfast_bug = "replay_a_position_again") {
                    return None;
                }
                cursor.next = position;
                cursor.append(envelope.len());
                self.active.append(log, position, group, envelope);
                self.touch(log);
                self.advance_views(log, position + 1);
            }
            Replayed::Settle { log, position, len } => {
                let Some(state) = self.mailboxes.get(&log.mailbox) else { return Some(()) };
                if number > state.lanes[usize::from(log.lane)].as_of {
                    self.settle(log, position, len);
                }
            }
            Replayed::Trim { log, below, bytes } => {
                let Some(state) = self.mailboxes.get(&log.mailbox) else { return Some(()) };
                if number > state.lanes[usize::from(log.lane)].as_of {
                    self.trim(log, below, bytes);
                }
            }
            Replayed::Seek { log, to } => {
                let Some(state) = self.mailboxes.get(&log.mailbox) else { return Some(()) };
                if number > state.lanes[usize::from(log.lane)].as_of {
                    self.seek(log, to);
                }
            }
            Replayed::Put { key, value } => {
                let key = bytes[key].to_vec();
                keys::is_of_a_commit(&key).then(|| self.active.put(key, Some(&bytes[value])))?;
            }
            Replayed::Delete { key } => {
                let key = bytes[key].to_vec();
                keys::is_of_a_commit(&key).then(|| self.active.put(key, None))?;
            }
        }
        Some(())
    }
}
