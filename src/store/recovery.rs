//! From the files of a store to its state in memory: finds or makes the store, checks that nothing durable is missing,
//! replays the journal over the engine, and opens a new segment behind what was found.
//!
//! # Invariants
//! - Nothing on disk is changed before everything needed has verified, but what an unclean exit left unfinished.
//! - The journal continues from the engine's number without a gap, and reaches the manifest's high-water mark.
//! - A torn tail is cut only where nothing later verifies; recovery never appends to a segment it found.
//! - What was found is made durable before anything is built on it: a process that was killed may have left it in the
//!   page cache alone.
//! - Running it again after a crash at any point inside it comes to the same state.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::admission::{Admission, MailboxState};
use super::census::Census;
use super::cursor::Cursor;
use super::disk::Disk;
use super::engine::{Engine, EngineKind};
use super::engine_choice::EngineChoice;
use super::fault::StoreError;
use super::group::{self, Replayed};
use super::journal::{Journal, Segments, Tail};
use super::keys::{self, LANES, LogId, MailboxId};
use super::last_words;
use super::manifest::{self, Manifest};
use super::medium::Medium;
use super::packer::Packer;
use super::page_files::{self, PageFiles};
use super::sealed;
use super::segment::{self, FORMAT, SegmentBytes, SegmentHeader};
use super::simulated::SimulatedDisk;
use super::view::ViewRecord;
use super::writer::Writer;
use super::{BALLAST, StoreConfig};

/// Where a store lives.
#[derive(Clone)]
pub(crate) struct Place {
    /// For messages; the medium's names are relative to it.
    pub(crate) root: PathBuf,
    pub(crate) medium: Arc<dyn Medium>,
    pub(crate) engine: Arc<dyn EngineKind>,
    /// Engines that are not this store's: nothing of them may be there.
    pub(crate) others: Vec<Arc<dyn EngineKind>>,
    /// What a backup to a directory is made with, unless another is asked for.
    pub(crate) choice: EngineChoice,
    /// Where the process leaves a word when it ends itself; none where nothing outlives it.
    pub(crate) last_words: Option<PathBuf>,
}

/// An open store that nobody drives yet.
pub(super) struct Recovered {
    pub(super) admission: Admission,
    pub(super) engine: Box<dyn Engine>,
    pub(super) journal: Journal,
    pub(super) segments: Arc<Segments>,
    pub(super) pages: Arc<PageFiles>,
    /// As it is on disk.
    pub(super) manifest: Manifest,
    /// The checkpoint that the engine has.
    pub(super) number: u64,
    pub(super) census: Census,
    pub(super) report: Report,
}

/// What recovery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) commits: u64,
    pub(crate) cut: u64,
    pub(crate) clean: bool,
}

const CREATING: &str = "CREATING";
pub(super) const JOURNAL: &str = "journal";

/// Opens the store at `place`, making it when there is none.
pub(super) fn open(place: &Place, config: &StoreConfig) -> Result<Recovered, StoreError> {
    let _span = tracing::info_span!("recovery", store = %place.root.display()).entered();
    let opened = match recover(place, config, config.overlay) {
        // a store must open on a full disk, or it could never be drained: the ballast is there for this, and what
        // would be moved to the engine stays in memory
        Err(StoreError::Full { .. }) => {
            let _ = place.medium.remove(BALLAST);
            recover(place, config, usize::MAX)
        }
        opened => opened,
    };
    opened.map_err(|error| error.located(|| place.engine_path()))
}

/// Recovers, holding about `spill_at` bytes of the journal in memory.
fn recover(place: &Place, config: &StoreConfig, spill_at: usize) -> Result<Recovered, StoreError> {
    let bounds = config.bounds()?;
    finish_or_undo_creation(place)?;
    let manifest = match Manifest::read(&*place.medium, &place.root)? {
        Some(manifest) => {
            // its name may be in the page cache alone, and what it does not need is removed below
            if !cfg!(steadfast_bug = "trust-the-cached-name") {
                let synced = place.medium.sync_dir("");
                synced.map_err(|e| StoreError::io(&place.root, "syncing the store's directory", e))?;
            }
            manifest
        }
        None => create(place, config.segment)?,
    };
    let (medium, root) = (place.medium.clone(), place.root.clone());
    let pages = PageFiles::find(medium, root, manifest.store, config.page_file)?;
    let on_disk = manifest.checkpoint;
    let (engine, census, manifest, clean) = open_engine(place, manifest, &pages)?;
    let largest_group = group::padded(bounds.batch) as u64;
    let segments = Segments::new(place.medium.clone(), place.root.clone(), config.segment, largest_group);
    let mut replay = Replay {
        place,
        manifest: &manifest,
        engine: &*engine,
        pages: &pages,
        admission: Admission::new(bounds, manifest.checkpoint),
        census,
        spill_at,
        report: Report { clean: clean.is_some(), ..Report::default() },
    };
    let tail = replay.journal(&segments, clean)?;
    let Replay { mut admission, census, report, .. } = replay;
    admission.last = tail.last;
    if let Some(view) = admission.view_beyond_its_log() {
        return Err(sealed::damaged(&keys::view(view), super::view::BEYOND));
    }
    admission.begin_drained_entities();
    if !cfg!(steadfast_bug = "give-numbers-again") {
        admission.epoch_first = super::admission::next_epoch(tail.last);
        let epoch_first = admission.epoch_first;
        admission.mailboxes.values_mut().for_each(|state| state.note_resumed(epoch_first));
    }
    segments.adopt_spares()?;
    make_spares(&segments, config.spares)?;
    let segments = Arc::new(segments);
    let journal = Journal::open(segments.clone(), manifest.store, tail, admission.epoch_first)?;
    admission.room = segments.room();
    let pages = Arc::new(pages);
    let number = Census::read(&*engine)?.0;
    // what a process that was killed had applied lies in the page cache: the manifest does not claim it before a flush
    let checkpoint = match cfg!(steadfast_bug = "claim-what-was-not-flushed") {
        true => manifest.checkpoint,
        false => on_disk,
    };
    let manifest = Manifest { checkpoint, ..manifest };
    Ok(Recovered { admission, engine, journal, segments, pages, manifest, number, census, report })
}

/// One spare is enough to open, so that a store can be drained on a full disk.
fn make_spares(segments: &Segments, wanted: usize) -> Result<(), StoreError> {
    while segments.spares() < wanted {
        match segments.make_spare() {
            Err(StoreError::Full { .. }) if segments.spares() > 0 => {
                segments.set_disk_full(true);
                return Ok(());
            }
            made => made?,
        }
    }
    Ok(())
}

/// A creation that did not finish accepted nothing: what is there of it is removed.
fn finish_or_undo_creation(place: &Place) -> Result<(), StoreError> {
    let medium = &*place.medium;
    let listed = medium.list("").map_err(|e| StoreError::io(&place.root, "listing the store", e))?;
    if !listed.iter().any(|name| name == CREATING) {
        return Ok(());
    }
    // nobody was given the store before its mark was gone for good
    if let Some(manifest) = Manifest::read(medium, &place.root)?
        && (manifest.high_water > 0 || manifest.checkpoint > 0 || manifest.clean.is_some())
    {
        let what = "it says that the store was never finished, but the manifest tells of commits; remove it";
        return Err(StoreError::damaged(place.root.join(CREATING), what));
    }
    let undo = || {
        for dir in [JOURNAL, page_files::DIR] {
            for file in list_or_empty(medium, dir)? {
                medium.remove(&format!("{dir}/{file}"))?;
            }
        }
        for file in medium.list("")?.iter().filter(|file| file.starts_with(manifest::NAME)) {
            medium.remove(file)?;
        }
        for engine in place.engines() {
            engine.remove().map_err(|error| std::io::Error::other(error.to_string()))?;
        }
        medium.remove(CREATING)?;
        medium.sync_dir("")
    };
    undo().map_err(|source| {
        StoreError::io(&place.root, "removing a store whose creation did not finish", source)
    })
}

fn list_or_empty(medium: &dyn Medium, dir: &str) -> std::io::Result<Vec<String>> {
    match medium.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

fn create(place: &Place, segment_size: u64) -> Result<Manifest, StoreError> {
    refuse_foreign(place)?;
    let medium = &*place.medium;
    let io = |doing| move |source| StoreError::io(&place.root, doing, source);
    let begin = || {
        medium.create(CREATING)?;
        medium.sync_dir("")?;
        medium.create_dir(JOURNAL)?;
        medium.create_dir(page_files::DIR)?;
        medium.sync_dir("")
    };
    begin().map_err(io("creating a store"))?;
    drop(place.engine.create()?);
    let manifest = Manifest {
        format: FORMAT,
        store: *uuid_of_a_new_store(),
        engine: place.engine.name().into(),
        segment_size,
        checkpoint: 0,
        first_segment: 1,
        high_water: 0,
        clean: None,
    };
    manifest.write(medium, &place.root)?;
    let end = || {
        medium.remove(CREATING)?;
        medium.sync_dir("")
    };
    end().map_err(io("creating a store"))?;
    Ok(manifest)
}

pub(super) fn uuid_of_a_new_store() -> Box<[u8; 16]> {
    use crate::clock::Clock;
    Box::new(crate::clock::SystemClock.id().into_bytes())
}

/// Without a manifest the directory must be empty: anything else is a damaged store, or not a store.
fn refuse_foreign(place: &Place) -> Result<(), StoreError> {
    let listing = |source| StoreError::io(&place.root, "listing the store", source);
    let segments = list_or_empty(&*place.medium, JOURNAL).map_err(listing)?;
    let pages = list_or_empty(&*place.medium, page_files::DIR).map_err(listing)?;
    let mut engines = false;
    for engine in place.engines() {
        engines |= engine.exists()?;
    }
    if !segments.is_empty() || !pages.is_empty() || engines {
        let what = "the file is missing, but a journal, pages or an engine are there";
        return Err(StoreError::damaged(place.root.join(manifest::NAME), what));
    }
    let known = |name: &&String| !["LOCK", "MANIFEST.new", "ballast"].contains(&name.as_str());
    match place.medium.list("").map_err(listing)?.iter().find(known) {
        Some(name) => {
            let what =
                "the directory is not empty and has no MANIFEST; give the store a directory of its own"
                    .into();
            Err(StoreError::Foreign { path: place.root.join(name), what })
        }
        None => Ok(()),
    }
}

type OpenEngine = (Box<dyn Engine>, Census, Manifest, Option<u64>);

/// Verifies and opens the engine. The manifest on disk no longer claims a clean close once the engine was touched.
fn open_engine(place: &Place, mut manifest: Manifest, pages: &PageFiles) -> Result<OpenEngine, StoreError> {
    let path = place.root.join(manifest::NAME);
    if manifest.engine != place.engine.name() && !cfg!(steadfast_bug = "open-any-engine") {
        return Err(StoreError::OtherEngine { path, found: manifest.engine, chosen: place.engine.name() });
    }
    let clean = manifest.clean.take();
    if let Some(clean) = &clean {
        check_journal_of_a_clean_close(place, &manifest, clean.last)?;
        clean.pages.iter().try_for_each(|(file, end)| pages.check_file(*file, *end))?;
    }
    // a process that ended within this function leaves the claim of a clean close with an engine that was opened
    let sealed = clean.is_some() && !place.engine.was_opened_since_close()?;
    let engine = place.engine.open(clean.as_ref().map(|clean| &clean.seal))?;
    if clean.is_some() {
        manifest.write(&*place.medium, &place.root)?;
    }
    let (number, census) = Census::read(&*engine)?;
    if number < manifest.checkpoint {
        let path = place.engine_path();
        return Err(StoreError::Truncated { path, expected: manifest.checkpoint, found: number });
    }
    pages.check(census.accounts())?;
    if !sealed {
        // what sled dropped or changed while it opened is found here
        let counted = Census::take(&*engine, pages)?;
        if let Some(difference) = census.difference(&counted)
            && !cfg!(steadfast_bug = "trust-the-engine")
        {
            return Err(StoreError::damaged(place.engine_path(), difference));
        }
    }
    place.engine.verified()?;
    manifest.checkpoint = number;
    Ok((engine, census, manifest, clean.map(|clean| clean.last)))
}

/// Looked at before the manifest gives up its claim of a clean close, so that an error leaves everything as it was.
fn check_journal_of_a_clean_close(place: &Place, manifest: &Manifest, last: u64) -> Result<(), StoreError> {
    let segments = read_segments(place, manifest)?;
    let tail = walk(place, manifest, &segments, |_, _, _| Ok(()))?.0;
    match tail.last == last {
        true => Ok(()),
        false => {
            Err(StoreError::Truncated { path: place.root.join(JOURNAL), expected: last, found: tail.last })
        }
    }
}

/// The ids of the segments that recovery needs, in order and without a gap.
fn needed_segments(place: &Place, manifest: &Manifest) -> Result<Vec<u64>, StoreError> {
    let path = place.root.join(JOURNAL);
    let files = place.medium.list(JOURNAL).map_err(|e| StoreError::io(&path, "listing the journal", e))?;
    let ids: Vec<u64> = files
        .iter()
        .filter_map(|file| segment::id_of(file))
        .filter(|id| *id >= manifest.first_segment)
        .collect();
    for (id, expected) in ids.iter().zip(manifest.first_segment..) {
        if *id != expected {
            return Err(missing_segment(place, expected));
        }
    }
    if ids.is_empty() && (manifest.high_water > 0 || manifest.first_segment > 1) {
        return Err(missing_segment(place, manifest.first_segment));
    }
    Ok(ids)
}

fn missing_segment(place: &Place, id: u64) -> StoreError {
    StoreError::damaged(place.root.join(segment::name(id)), "the segment is missing, and it is needed")
}

/// A segment and its header, which verified.
struct Segment {
    bytes: SegmentBytes,
    header: SegmentHeader,
}

/// Reads the needed segments. A last one without a header was being opened when the process ended: nothing was
/// written to it, unless a group in it verifies.
fn read_segments(place: &Place, manifest: &Manifest) -> Result<Vec<Segment>, StoreError> {
    let ids = needed_segments(place, manifest)?;
    let mut segments = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        let bytes = SegmentBytes::read(&*place.medium, &place.root, *id)?;
        let header = bytes.header()?.filter(|header| header.id == *id);
        match header {
            Some(header) if header.store != manifest.store => {
                let what = "the segment belongs to another store".into();
                return Err(StoreError::Foreign { path: bytes.path, what });
            }
            Some(header) => segments.push(Segment { bytes, header }),
            None if index + 1 == ids.len()
                && bytes.later_group(&manifest.store, segment::START, 0).is_none() => {}
            None => return Err(StoreError::damaged(bytes.path, "its header does not verify")),
        }
    }
    Ok(segments)
}

/// Walks all groups in order, checking that nothing is missing between them, and hands each to `each`. Returns the end,
/// and how many bytes of a torn tail were found.
fn walk(
    place: &Place,
    manifest: &Manifest,
    segments: &[Segment],
    mut each: impl FnMut(&Segment, &group::GroupHeader, std::ops::Range<usize>) -> Result<(), StoreError>,
) -> Result<(Tail, u64), StoreError> {
    let Some(first) = segments.first() else {
        let nothing = Tail { segment: manifest.first_segment - 1, end: 0, last: 0 };
        must_reach(place, manifest, nothing)?;
        return Ok((nothing, 0));
    };
    let mut tail = Tail {
        segment: first.header.previous,
        end: first.header.previous_end,
        last: first.header.last_before,
    };
    if tail.last > manifest.checkpoint {
        let what =
            format!("it begins after commit {}, the engine ends at {}", tail.last, manifest.checkpoint);
        return Err(StoreError::damaged(&first.bytes.path, what));
    }
    let mut torn = 0;
    for (index, segment) in segments.iter().enumerate() {
        let SegmentHeader { previous, previous_end, last_before, .. } = segment.header;
        let continues = (previous, previous_end, last_before) == (tail.segment, tail.end, tail.last);
        if !continues && !cfg!(steadfast_bug = "mix-histories") {
            let what =
                format!("it continues commit {last_before}, but the segment before ends at {}", tail.last);
            return Err(StoreError::damaged(&segment.bytes.path, what));
        }
        let end = segments.get(index + 1).map(|next| next.header.previous_end);
        let (offset, last) = walk_segment(manifest, segment, end, &mut each)?;
        if end.is_none() {
            torn = torn_bytes(segment, offset);
        }
        tail = Tail { segment: segment.header.id, end: offset, last };
    }
    must_reach(place, manifest, tail)?;
    Ok((tail, torn))
}

/// What the manifest says was durable must have been found.
fn must_reach(place: &Place, manifest: &Manifest, tail: Tail) -> Result<(), StoreError> {
    if tail.last >= manifest.high_water || cfg!(steadfast_bug = "forget-the-mark") {
        return Ok(());
    }
    // a segment behind the last one that was read has lost its header, so it is the one to name
    let next = segment::name(tail.segment + 1);
    let name = if place.medium.open(&next).is_ok() { next } else { segment::name(tail.segment) };
    let path = place.root.join(name);
    Err(StoreError::Truncated { path, expected: manifest.high_water, found: tail.last })
}

/// Walks one segment up to `end`, or up to where nothing verifies any more.
fn walk_segment(
    manifest: &Manifest,
    segment: &Segment,
    end: Option<u64>,
    each: &mut impl FnMut(&Segment, &group::GroupHeader, std::ops::Range<usize>) -> Result<(), StoreError>,
) -> Result<(u64, u64), StoreError> {
    let (mut offset, mut last) = (segment::START, segment.header.last_before);
    let mut next = segment.header.first;
    while end.is_none_or(|end| offset < end) {
        let Some((header, body)) = segment.bytes.group(&manifest.store, offset, next) else {
            break;
        };
        each(segment, &header, body)?;
        last = header.last();
        next = last + 1;
        offset = segment::after(offset, &header);
    }
    if let Some(end) = end.filter(|end| *end != offset) {
        let what =
            format!("the group at byte {offset} does not verify, and the segment is whole up to byte {end}");
        return Err(StoreError::damaged(&segment.bytes.path, what));
    }
    if end.is_none()
        && !cfg!(steadfast_bug = "cut-at-a-hole")
        && let Some(later) = segment.bytes.later_group(&manifest.store, offset, next)
    {
        let what = format!(
            "the group at byte {offset} (commit {next}) does not verify, but commit {} after it does",
            later.first
        );
        return Err(StoreError::damaged(&segment.bytes.path, what));
    }
    Ok((offset, last))
}

/// Bytes of a group that was begun at the end: what is neither zero nor of an older segment cannot be told apart
/// cheaply, so only a header of this segment counts.
fn torn_bytes(segment: &Segment, offset: u64) -> u64 {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    let header = segment.bytes.bytes.get(at..at.saturating_add(group::HEADER)).unwrap_or(&[]);
    match (group::u64_at(header, 8), group::u32_at(header, 36)) {
        (Some(id), Some(len)) if id == segment.header.id => u64::from(len) + group::HEADER as u64,
        _ => 0,
    }
}

/// Replays the journal over the engine.
struct Replay<'a> {
    place: &'a Place,
    manifest: &'a Manifest,
    engine: &'a dyn Engine,
    pages: &'a PageFiles,
    admission: Admission,
    census: Census,
    spill_at: usize,
    report: Report,
}

impl Replay<'_> {
    fn journal(&mut self, segments: &Segments, clean: Option<u64>) -> Result<Tail, StoreError> {
        let found = read_segments(self.place, self.manifest)?;
        let (place, manifest) = (self.place, self.manifest);
        // a long journal moves to pages and engine on the way: all of it must verify before the first of it does
        walk(place, manifest, &found, |_, _, _| Ok(()))?;
        let mut lasts = Vec::new();
        let mut last_group = None;
        let (tail, cut) = walk(place, manifest, &found, |segment, header, body| {
            lasts.push((segment.header.id, header.last()));
            last_group = Some((segment.header.id, body.start - group::HEADER..body.end));
            self.group(segment, header, body)
        })?;
        if tail.last < manifest.checkpoint {
            let path = place.root.join(JOURNAL);
            return Err(StoreError::Truncated { path, expected: manifest.checkpoint, found: tail.last });
        }
        debug_assert!(clean.is_none_or(|last| last == tail.last));
        if clean.is_none()
            && let Some(last) = found.last()
            && !cfg!(steadfast_bug = "trust-the-page-cache")
        {
            self.write_again(last, last_group.filter(|(id, _)| *id == last.header.id).map(|(_, at)| at))?;
        }
        self.report.cut = cut;
        for segment in &found {
            let last = lasts.iter().rev().find(|(id, _)| *id == segment.header.id).map(|(_, last)| *last);
            segments.found(segment.header.id, last.unwrap_or(segment.header.last_before));
        }
        self.clear_the_way(tail)?;
        Ok(tail)
    }

    /// Only the header of the last segment and its last group may not be durable: everything before was synced before
    /// they were written. They are written again because a sync that failed leaves pages that are clean and lost.
    fn write_again(&self, last: &Segment, group: Option<std::ops::Range<usize>>) -> Result<(), StoreError> {
        let bytes = &last.bytes.bytes;
        let header = 0..(segment::START as usize).min(bytes.len());
        let write = || {
            let file = self.place.medium.open(&segment::name(last.header.id))?;
            for range in [Some(header), group].into_iter().flatten() {
                file.write_at(range.start as u64, &bytes[range])?;
            }
            file.sync()
        };
        write().map_err(|e| StoreError::io(&last.bytes.path, "making the end of the journal durable", e))
    }

    /// Segments that recovery did not need, and one that was being opened, would be in the way of new ones.
    fn clear_the_way(&self, tail: Tail) -> Result<(), StoreError> {
        let medium = &*self.place.medium;
        let clear = || {
            for file in medium.list(JOURNAL)? {
                let id = segment::id_of(&file);
                if id.is_some_and(|id| id < self.manifest.first_segment || id > tail.segment) {
                    medium.remove(&format!("{JOURNAL}/{file}"))?;
                }
            }
            medium.sync_dir(JOURNAL)
        };
        clear().map_err(|e| StoreError::io(self.place.root.join(JOURNAL), "removing segments not needed", e))
    }

    fn group(
        &mut self,
        segment: &Segment,
        header: &group::GroupHeader,
        body: std::ops::Range<usize>,
    ) -> Result<(), StoreError> {
        if header.last() <= self.manifest.checkpoint {
            return Ok(());
        }
        let body = segment.bytes.bytes[body].to_vec();
        let mut ops = Vec::new();
        let read = group::decode_commits(&body, header.commits, |commit, op| ops.push((commit, op)));
        if read.is_none() {
            let what = format!("the commits from {} on verify but cannot be read", header.first);
            return Err(StoreError::damaged(&segment.bytes.path, what));
        }
        let checkpoint = self.manifest.checkpoint;
        ops.retain(|(commit, _)| header.first + u64::from(*commit) > checkpoint);
        let mut entities = Vec::new();
        for (_, op) in &ops {
            match op {
                Replayed::Append { log, .. }
                | Replayed::Settle { log, .. }
                | Replayed::Trim { log, .. }
                | Replayed::Seek { log, .. } => {
                    let is_new = self.load(log.mailbox)?;
                    entities.extend((is_new && keys::is_entity(log.mailbox)).then_some(log.mailbox));
                }
                // a view is made and put to its place in one commit; later it may be paused, or end
                Replayed::Put { key, value } if body.get(key.start) == Some(&keys::class::VIEW) => {
                    self.load_view(&body[key.clone()], &body[value.clone()])?;
                }
                Replayed::Put { .. } | Replayed::Delete { .. } => {}
            }
        }
        self.report.commits += u64::from(header.commits);
        if self.admission.replay(header, body, ops).is_none() {
            let what = format!("the commits from {} on verify but cannot have been written", header.first);
            return Err(StoreError::damaged(&segment.bytes.path, what));
        }
        // its name may be in this very group
        for mailbox in entities.into_iter().filter(|_| !cfg!(steadfast_bug = "recover_without_regions")) {
            let name = self.name_of(mailbox)?;
            self.admission.attend_as(mailbox, name.as_deref());
        }
        self.spill()
    }

    /// False when it was loaded before.
    fn load(&mut self, mailbox: MailboxId) -> Result<bool, StoreError> {
        let is_new = !self.admission.mailboxes.contains_key(&mailbox);
        if is_new && keys::is_view(mailbox) {
            let key = keys::view(mailbox);
            let value = self.get(&key)?.ok_or_else(|| sealed::damaged(&key, "is missing"))?;
            self.load_view(&key, &value)?;
        } else if is_new {
            let lanes = load_cursors(self.engine, mailbox)?;
            let attendance = self.admission.attendance(None);
            // an empty log of an entity is told where to begin by its first append, or at the end of the replay
            self.admission.mailboxes.insert(mailbox, MailboxState::new(lanes, None, attendance));
        }
        Ok(is_new)
    }

    fn load_view(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let view = group::u32_at(key, 1).ok_or_else(|| sealed::damaged(key, "is no key of a view"))?;
        let record = ViewRecord::decode(key, value)?;
        self.load(record.of.mailbox)?;
        record.reader.map_or(Ok(false), |reader| self.load(reader))?;
        if self.admission.mailboxes.contains_key(&view) {
            if !cfg!(steadfast_bug = "replay_a_view_as_it_was_made") {
                self.admission.change_view(view, record);
            }
        } else {
            let state = MailboxState::new(load_cursors(self.engine, view)?, None, Default::default());
            self.admission.keep_view(view, record, state);
        }
        Ok(())
    }

    fn name_of(&self, mailbox: MailboxId) -> Result<Option<String>, StoreError> {
        let name = self.get(&keys::mailbox(mailbox))?;
        Ok(name.map(|name| String::from_utf8_lossy(&name).into_owned()))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.admission.peek(key) {
            Some(value) => Ok(value.map(|value| value.to_vec())),
            None => {
                let sealed = self.engine.get(key)?;
                sealed.map(|sealed| sealed::unseal(self.engine, key, sealed)).transpose()
            }
        }
    }

    /// A journal longer than the overlay may be is moved to the engine on the way.
    fn spill(&mut self) -> Result<(), StoreError> {
        if self.admission.active.bytes() < self.spill_at {
            return Ok(());
        }
        let frozen = self.admission.freeze();
        let before = Census::read(self.engine)?.0;
        let packed = Packer::new(frozen.clone()).pack(self.engine, &self.census, self.pages)?;
        let writer = Writer::new(frozen, self.census.clone(), before, Arc::new(packed));
        self.census = writer.write_all(self.engine)?;
        self.admission.drop_frozen();
        self.admission.forget_idle();
        Ok(())
    }
}

/// A mailbox's cursors as the engine has them; empty ones when it has none.
pub(super) fn load_cursors(engine: &dyn Engine, mailbox: MailboxId) -> Result<[Cursor; LANES], StoreError> {
    let mut lanes: [Cursor; LANES] = Default::default();
    for (cursor, lane) in lanes.iter_mut().zip(0..) {
        let key = keys::cursor(LogId { mailbox, lane });
        if let Some(sealed) = engine.get(&key)? {
            let value = sealed::unseal(engine, &key, sealed)?;
            *cursor = Cursor::decode(&value).ok_or_else(|| sealed::damaged(&key, "is no cursor"))?;
        }
    }
    if cfg!(steadfast_bug = "forget-drained-positions") {
        lanes.iter_mut().filter(|lane| lane.waiting() == 0).for_each(|lane| *lane = Cursor::default());
    }
    Ok(lanes)
}

impl Place {
    /// Where the engine's files are, for messages.
    pub(super) fn engine_path(&self) -> PathBuf {
        self.root.join(self.engine.name())
    }

    /// All engines there could be.
    fn engines(&self) -> impl Iterator<Item = &Arc<dyn EngineKind>> {
        std::iter::once(&self.engine).chain(&self.others)
    }

    /// A directory of real files. Without a choice the engine is the one the manifest names, or the default for a new store; one
    /// that was chosen is not replaced by another in silence: the open refuses a store that has another.
    pub(super) fn directory(root: &Path, chosen: Option<EngineChoice>) -> Result<Self, StoreError> {
        let medium = Arc::new(Disk::new(root));
        let choice = match chosen {
            Some(chosen) => chosen,
            None => engine_of(&*medium, root)?,
        };
        let others = EngineChoice::available().filter(|other| *other != choice);
        Ok(Place {
            root: root.into(),
            medium,
            engine: choice.in_store(root),
            others: others.map(|other| other.in_store(root)).collect(),
            choice,
            last_words: Some(root.join(last_words::NAME)),
        })
    }

    /// A simulated disk, with an engine in memory.
    pub(crate) fn simulated(disk: &SimulatedDisk) -> Self {
        let (medium, engine) = (disk.medium(), disk.engine_kind());
        let choice = EngineChoice::default();
        Place { root: "memory".into(), medium, engine, others: Vec::new(), choice, last_words: None }
    }
}

/// The engine of the store that is there; the default when none is.
fn engine_of(medium: &dyn Medium, root: &Path) -> Result<EngineChoice, StoreError> {
    let Some(manifest) = Manifest::read(medium, root)? else { return Ok(EngineChoice::default()) };
    EngineChoice::named(&manifest.engine).ok_or_else(|| {
        let known = EngineChoice::available().map(|engine| engine.name()).collect::<Vec<_>>().join(", ");
        StoreError::UnknownEngine { path: root.join(manifest::NAME), found: manifest.engine, known }
    })
}
