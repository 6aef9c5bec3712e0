//! The durability point: groups are appended to pre-written segments, one write and one sync for all the commits in a
//! group.
//!
//! # Invariants
//! - Group k + 1 is written only after group k is synced: the caller writes and syncs in turn.
//! - A segment takes groups only after its header is durable, under its own name.
//! - A segment becomes a spare only when the manifest, durable, no longer needs it.
//! - Appending allocates nothing on disk: room is found when a segment is made.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::admission::{Room, SealedGroup};
use super::fault::StoreError;
use super::group::{self, GroupHeader, HEADER};
use super::medium::{Medium, MediumFile};
use super::segment::{self, SegmentHeader};

/// What both the committer and the checkpoint know of the segments.
pub(super) struct Segments {
    pub(super) medium: Arc<dyn Medium>,
    pub(super) root: PathBuf,
    size: u64,
    largest_group: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Full segments that recovery would read, oldest first, each with its last commit.
    closed: VecDeque<(u64, u64)>,
    active: u64,
    active_left: u64,
    /// Numbers of spare files.
    spares: Vec<u64>,
    next_spare: u64,
    disk_full: bool,
}

impl Segments {
    pub(super) fn new(medium: Arc<dyn Medium>, root: PathBuf, size: u64, largest_group: u64) -> Self {
        Segments { medium, root, size, largest_group, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What admission needs to know. A group may not fit into what is left of a segment, so a part as long as the
    /// largest group counts as lost in each.
    pub(super) fn room(&self) -> Room {
        let state = self.state();
        let spares = state.spares.len() as u64 * (self.size - segment::START - self.largest_group);
        Room {
            usable: state.active_left.saturating_sub(self.largest_group) + spares,
            live: state.closed.len() + 1,
            disk_full: state.disk_full,
        }
    }

    pub(super) fn set_disk_full(&self, full: bool) {
        self.state().disk_full = full;
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn spares(&self) -> usize {
        self.state().spares.len()
    }

    /// A segment found at recovery, full by definition.
    pub(super) fn found(&self, id: u64, last: u64) {
        self.state().closed.push_back((id, last));
    }

    /// Spare files found at recovery: those of the right size are used, others removed.
    pub(super) fn adopt_spares(&self) -> Result<(), StoreError> {
        let files =
            self.medium.list("journal").map_err(|e| self.fault("journal", "listing the journal", e))?;
        for number in
            files.iter().filter_map(|file| u64::from_str_radix(file.strip_prefix("spare-")?, 16).ok())
        {
            let name = spare(number);
            let len = self.medium.open(&name).and_then(|file| file.len());
            let whole = len.map_err(|e| self.fault(&name, "opening a spare segment", e))? == self.size;
            let mut state = self.state();
            state.next_spare = state.next_spare.max(number + 1);
            if whole {
                state.spares.push(number);
            } else {
                self.medium.remove(&name).map_err(|e| self.fault(&name, "removing a short spare", e))?;
            }
        }
        Ok(())
    }

    /// Makes and pre-writes one more spare segment.
    pub(super) fn make_spare(&self) -> Result<(), StoreError> {
        let number = {
            let mut state = self.state();
            state.next_spare += 1;
            state.next_spare
        };
        let name = spare(number);
        let made = self.has_room().and_then(|()| self.prewrite(&name));
        let made = made.map_err(|e| self.fault(&name, "pre-writing a journal segment", e));
        if made.is_err() {
            // a part of a segment is of no use, and its room may be needed
            let _ = self.medium.remove(&name);
        }
        made?;
        self.state().spares.push(number);
        Ok(())
    }

    /// Asked first: finding out by writing would fill the device to its last byte, at every try.
    fn has_room(&self) -> std::io::Result<()> {
        match self.medium.free_space()? >= self.size {
            true => Ok(()),
            false => Err(std::io::ErrorKind::StorageFull.into()),
        }
    }

    fn prewrite(&self, name: &str) -> std::io::Result<()> {
        const STRIDE: u64 = 1 << 20;
        let zeros = vec![0; STRIDE.min(self.size) as usize];
        let file = self.medium.create(name)?;
        let mut offset = 0;
        while offset < self.size {
            let len = STRIDE.min(self.size - offset);
            file.write_at(offset, &zeros[..len as usize])?;
            offset += len;
        }
        file.sync()?;
        self.medium.sync_dir("journal")
    }

    /// Turns segments before `first_needed`, as the durable manifest has it, into spares, and removes what is more than
    /// `keep`. A segment that was closed since the manifest was written may hold nothing new, and is still needed.
    pub(super) fn recycle(&self, first_needed: u64, keep: usize) -> Result<(), StoreError> {
        loop {
            let (id, number, spares) = {
                let mut state = self.state();
                match state.closed.front() {
                    Some((id, _)) if *id < first_needed => {
                        let id = *id;
                        state.closed.pop_front();
                        state.next_spare += 1;
                        (id, state.next_spare, state.spares.len())
                    }
                    _ => return Ok(()),
                }
            };
            let (old, new) = (segment::name(id), spare(number));
            if spares >= keep {
                self.medium.remove(&old).map_err(|e| self.fault(&old, "removing a segment", e))?;
                continue;
            }
            let renamed = self.medium.rename(&old, &new).and_then(|()| self.medium.sync_dir("journal"));
            renamed.map_err(|e| self.fault(&old, "recycling a segment", e))?;
            let file_len = self.medium.open(&new).and_then(|file| file.len());
            // a store opened with another segment size cannot use it
            match file_len.map_err(|e| self.fault(&new, "opening a spare segment", e))? == self.size {
                true => self.state().spares.push(number),
                false => self.medium.remove(&new).map_err(|e| self.fault(&new, "removing a segment", e))?,
            }
        }
    }

    /// The oldest segment that recovery would need once the engine holds `checkpoint`.
    pub(super) fn first_needed(&self, checkpoint: u64) -> u64 {
        let state = self.state();
        state.closed.iter().find(|(_, last)| *last > checkpoint).map_or(state.active, |(id, _)| *id)
    }

    fn fault(&self, name: &str, doing: &'static str, source: std::io::Error) -> StoreError {
        StoreError::io(self.root.join(name), doing, source)
    }
}

fn spare(number: u64) -> String {
    format!("journal/spare-{number:016x}")
}

/// Appends groups; owned by the committer.
pub(super) struct Journal {
    segments: Arc<Segments>,
    store: [u8; 16],
    active: Active,
}

struct Active {
    id: u64,
    file: Arc<dyn MediumFile>,
    offset: u64,
    last: u64,
}

/// The end of the journal before a segment is opened behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    pub(super) segment: u64,
    pub(super) end: u64,
    pub(super) last: u64,
}

impl Journal {
    /// Opens a new segment behind `tail`, durable on return; its first commit will be `first`.
    pub(super) fn open(
        segments: Arc<Segments>,
        store: [u8; 16],
        tail: Tail,
        first: u64,
    ) -> Result<Self, StoreError> {
        let active = open_segment(&segments, store, tail, first)?;
        Ok(Journal { segments, store, active })
    }

    /// Writes one group. It is durable after [`Journal::sync`].
    pub(super) fn write(&mut self, group: &SealedGroup, durable: u64) -> Result<u64, StoreError> {
        let len = group::padded(group.bytes.len()) as u64;
        if self.active.offset + len > self.segments.size {
            self.roll(group.first)?;
        }
        let header = GroupHeader {
            segment: self.active.id,
            first: group.first,
            durable,
            commits: group.commits,
            len: group.bytes.len() as u32,
        };
        let header = header.encode(&self.store, &group.bytes);
        let Active { file, offset, .. } = &self.active;
        // the header last: until it is there the group is not
        let written = file
            .write_at(offset + HEADER as u64, &group.bytes)
            .and_then(|()| file.write_at(*offset, &header));
        written.map_err(|e| self.segments.fault(&segment::name(self.active.id), "writing a group", e))?;
        self.active.offset += len;
        self.active.last = group.last();
        self.segments.state().active_left = self.segments.size - self.active.offset;
        Ok(len)
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        if cfg!(steadfast_bug = "skip-the-fsync") {
            return Ok(());
        }
        let synced = self.active.file.sync();
        synced.map_err(|e| self.segments.fault(&segment::name(self.active.id), "syncing the journal", e))
    }

    fn roll(&mut self, first: u64) -> Result<(), StoreError> {
        let Active { id, offset, last, .. } = self.active;
        let tail = Tail { segment: id, end: offset, last };
        self.active = open_segment(&self.segments, self.store, tail, first)?;
        Ok(())
    }
}

/// Turns a spare into the segment behind `tail`: renamed, then given its header, then synced.
fn open_segment(segments: &Segments, store: [u8; 16], tail: Tail, first: u64) -> Result<Active, StoreError> {
    if segments.spares() == 0 {
        segments.make_spare()?;
    }
    let spare = segments.state().spares.pop().map(spare).unwrap_or_default();
    let id = tail.segment + 1;
    let name = segment::name(id);
    let header = SegmentHeader {
        store,
        id,
        previous: tail.segment,
        previous_end: tail.end,
        last_before: tail.last,
        first,
        size: segments.size,
    };
    let opened = (|| {
        segments.medium.rename(&spare, &name)?;
        segments.medium.sync_dir("journal")?;
        let file = segments.medium.open(&name)?;
        file.write_at(0, &header.encode())?;
        file.sync()?;
        Ok(file)
    })();
    let file = opened.map_err(|e| segments.fault(&name, "opening a journal segment", e))?;
    let mut state = segments.state();
    if state.active != 0 {
        let closing = state.active;
        state.closed.push_back((closing, tail.last));
    }
    state.active = id;
    state.active_left = segments.size - segment::START;
    Ok(Active { id, file, offset: segment::START, last: tail.last })
}
