//! The journal of a store that may be damaged: how far it can be applied, and what lies behind that.
//!
//! # Invariants
//! - What counts is an unbroken row of commits from the engine's own on: each group verifies, and none is missing between two.
//! - What lies behind the first hole is counted, and never applied: it builds on what is missing.

use std::collections::BTreeMap;

use super::super::fault::StoreError;
use super::super::group::{self, GroupHeader, Replayed};
use super::super::keys::LogId;
use super::super::recovery::JOURNAL;
use super::super::segment::{self, SegmentBytes, SegmentHeader};
use super::report::{Findings, LostCommits};
use super::source::Source;

/// How far the journal counts.
#[derive(Default)]
pub(super) struct Plan {
    /// Parts of segments with something that counts: segment, begin and end.
    pub(super) parts: Vec<(u64, u64, u64)>,
    /// The commit up to which the engine has everything, as far as that is known.
    pub(super) base: u64,
    /// The last commit that counts, the engine's own at least.
    pub(super) last: u64,
    /// The highest number that was seen anywhere.
    pub(super) seen: u64,
    pub(super) segments: u64,
    pub(super) store: [u8; 16],
    /// Where the journal goes on with a log.
    pub(super) first_appends: BTreeMap<LogId, u64>,
    pub(super) lost: Option<LostCommits>,
}

/// Looks through the journal. `base` is the engine's number, `as_of` the number a log's cursor has.
pub(super) struct Survey<'a> {
    source: &'a Source,
    findings: &'a mut Findings,
    base: Option<u64>,
    as_of: &'a dyn Fn(LogId) -> u64,
    plan: Plan,
    /// Segment, its end and the last commit, up to which everything was in order.
    tail: Option<(u64, u64, u64)>,
    is_open: bool,
    readable: u64,
    messages: u64,
}

impl<'a> Survey<'a> {
    pub(super) fn new(
        source: &'a Source,
        base: Option<u64>,
        as_of: &'a dyn Fn(LogId) -> u64,
        findings: &'a mut Findings,
    ) -> Self {
        let last = base.unwrap_or(0);
        let store = source.manifest.as_ref().map(|manifest| manifest.store).unwrap_or_default();
        let plan = Plan { last, seen: last, store, ..Plan::default() };
        Survey { source, findings, base, as_of, plan, tail: None, is_open: true, readable: 0, messages: 0 }
    }

    pub(super) fn run(mut self) -> Result<Plan, StoreError> {
        let ids = self.ids();
        let mut next_header = None;
        for (index, id) in ids.iter().copied().enumerate() {
            let bytes = self.read(id)?;
            let header = next_header.take().unwrap_or(self.header(&bytes)?);
            let following = ids.get(index + 1).copied();
            let next = match following {
                Some(next) if next == id + 1 => self.header(&self.read_head(next)?)?,
                _ => None,
            };
            self.segment(&bytes, header, next.as_ref(), following.is_none());
            next_header = next.map(Some);
        }
        self.end();
        self.plan.base = self.base.unwrap_or(0);
        Ok(self.plan)
    }

    /// Segments from the first one that is needed on.
    fn ids(&mut self) -> Vec<u64> {
        let first = self.source.manifest.as_ref().map_or(1, |manifest| manifest.first_segment);
        let listed = self.source.place.medium.list(JOURNAL).unwrap_or_else(|why| {
            self.findings.loss(JOURNAL, "", format!("the journal cannot be listed: {why}"));
            Vec::new()
        });
        let ids: Vec<u64> =
            listed.iter().filter_map(|file| segment::id_of(file)).filter(|id| *id >= first).collect();
        let is_known = self.source.manifest.is_some();
        let begins = ids.first().copied() == Some(first);
        let needs_one = self.source.manifest.as_ref().is_some_and(|m| m.high_water > 0 || first > 1);
        if is_known && !begins && (needs_one || !ids.is_empty()) {
            self.findings.note(&segment::name(first), "", "the segment is missing");
        }
        ids
    }

    fn read(&self, id: u64) -> Result<SegmentBytes, StoreError> {
        let place = &self.source.place;
        match SegmentBytes::read(&*place.medium, &place.root, id) {
            Ok(bytes) => Ok(bytes),
            // a device that cannot give one block may give the others
            Err(_) => {
                Ok(SegmentBytes { id, path: place.root.join(segment::name(id)), bytes: self.blocks(id) })
            }
        }
    }

    fn blocks(&self, id: u64) -> Vec<u8> {
        const BLOCK: u64 = 4096;
        let Ok(file) = self.source.place.medium.open(&segment::name(id)) else { return Vec::new() };
        let len = file.len().unwrap_or(0);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        for (block, at) in bytes.chunks_mut(BLOCK as usize).zip((0..).step_by(BLOCK as usize)) {
            if file.read_at(at, block).is_err() {
                block.fill(0);
            }
        }
        bytes
    }

    fn read_head(&self, id: u64) -> Result<SegmentBytes, StoreError> {
        let mut bytes = vec![0; segment::START as usize];
        let name = segment::name(id);
        let read = self.source.place.medium.open(&name).and_then(|file| file.read_at(0, &mut bytes));
        if read.is_err() {
            bytes.clear();
        }
        Ok(SegmentBytes { id, path: self.source.place.root.join(name), bytes })
    }

    /// The header of a segment, if it is one of this store.
    fn header(&self, bytes: &SegmentBytes) -> Result<Option<SegmentHeader>, StoreError> {
        let is_ours = |header: &SegmentHeader| {
            header.id == bytes.id && (self.plan.store == [0; 16] || header.store == self.plan.store)
        };
        Ok(bytes.header()?.filter(is_ours))
    }

    fn segment(
        &mut self,
        bytes: &SegmentBytes,
        header: Option<SegmentHeader>,
        next: Option<&SegmentHeader>,
        is_last: bool,
    ) {
        self.plan.segments += 1;
        let name = segment::name(bytes.id);
        if let Some(header) = &header {
            self.plan.store = header.store;
            self.plan.seen = self.plan.seen.max(header.last_before);
        }
        let Some(header) = header else {
            let store = self.plan.store;
            // it was being opened when the process ended
            let was_new = is_last && bytes.later_group(&store, segment::START, 0).is_none();
            if was_new && !bytes.bytes.is_empty() {
                return;
            }
            let before = self.readable;
            self.count_behind(bytes, segment::START, 0);
            let what = "its header does not verify, or it belongs to another store";
            let reached = self.tail.map_or(0, |(_, _, last)| last);
            if self.readable == before && self.base.is_some_and(|base| reached < base) {
                self.findings.note(&name, "byte 0", format!("{what}; the engine has what was in it"));
                self.tail = None;
            } else {
                self.hole(&name, "byte 0", what);
            }
            return;
        };
        if self.is_open {
            self.must_continue(&name, &header);
        }
        let mut offset = segment::START;
        if self.is_open {
            offset = self.walk(bytes, &header, next.map(|next| next.previous_end));
        }
        if !self.is_open {
            let known = self.tail.map_or(0, |(_, _, last)| last);
            self.count_behind(bytes, offset, known);
        }
    }

    fn must_continue(&mut self, name: &str, header: &SegmentHeader) {
        let begins = (header.previous, header.previous_end, header.last_before);
        let before = header.last_before;
        // the engine has at least what segments that are gone had
        let base = *self.base.get_or_insert(before);
        match self.tail {
            Some(tail) if tail == begins => {}
            None if before <= base => self.plan.last = self.plan.last.max(base),
            // what is missing between the two is in the engine
            Some((_, _, last)) if before <= base => {
                let what = format!(
                    "it continues commit {before}, the segment before ends at {last}, and the engine has both"
                );
                self.findings.note(name, "", what);
            }
            None => {
                let what = format!(
                    "it begins after commit {before}, and the engine ends at {base}: the commits between are missing"
                );
                self.hole(name, "", &what);
            }
            Some((_, _, last)) => {
                let what = format!("it continues commit {before}, but the segment before ends at {last}");
                self.hole(name, "", &what);
            }
        }
    }

    /// Goes through the groups of a segment as long as they are in order; gives where it stopped.
    fn walk(&mut self, bytes: &SegmentBytes, header: &SegmentHeader, end: Option<u64>) -> u64 {
        let (mut offset, mut last, mut next) = (segment::START, header.last_before, header.first);
        loop {
            let begin = offset;
            while end.is_none_or(|end| offset < end) {
                let Some((group, body)) = bytes.group(&header.store, offset, next) else { break };
                if !self.note_group(&group, &bytes.bytes[body]) {
                    let place = format!("byte {offset}");
                    self.hole(&segment::name(bytes.id), &place, "its commits verify and cannot be read");
                    break;
                }
                last = group.last();
                next = last + 1;
                offset = segment::after(offset, &group);
            }
            self.plan.parts.push((bytes.id, begin, offset));
            self.plan.last = self.plan.last.max(last);
            self.plan.seen = self.plan.seen.max(last);
            self.tail = Some((bytes.id, offset, last));
            let goes_on = if self.is_open { self.stopped(bytes, header, offset, next, end) } else { None };
            match goes_on {
                Some((at, first)) => (offset, next) = (at, first),
                None => return offset,
            }
        }
    }

    /// Judges why a segment went no further. Where it goes on, if all that is missing is in the engine.
    fn stopped(
        &mut self,
        bytes: &SegmentBytes,
        header: &SegmentHeader,
        offset: u64,
        next: u64,
        end: Option<u64>,
    ) -> Option<(u64, u64)> {
        let (name, place) = (segment::name(bytes.id), format!("byte {offset}"));
        let later = bytes.next_group(&header.store, offset, next);
        let what = match (end, later) {
            (Some(end), _) if end == offset => return None,
            (Some(end), _) => {
                format!(
                    "the group with commit {next} does not verify, and the segment is whole up to byte {end}"
                )
            }
            (None, Some(_)) => {
                format!("the group with commit {next} does not verify, and one behind it does")
            }
            (None, None) => {
                self.torn(bytes, offset, next);
                return None;
            }
        };
        let base = self.base.unwrap_or(0);
        match later {
            Some((at, group)) if next <= base && group.first <= base.saturating_add(1) => {
                self.findings.note(&name, place, format!("{what}; the engine has what is missing"));
                Some((at, group.first))
            }
            None if next <= base => {
                self.findings.note(&name, place, format!("{what}; the engine has it"));
                self.tail = None;
                None
            }
            _ => {
                self.hole(&name, &place, &what);
                None
            }
        }
    }

    /// A group that was begun at the very end.
    fn torn(&mut self, bytes: &SegmentBytes, offset: u64, next: u64) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let begun = bytes.bytes.get(at..).is_some_and(|rest| rest.starts_with(b"SFG1"));
        if begun && group::u64_at(&bytes.bytes, at + 8) == Some(bytes.id) {
            let what = format!(
                "the group with commit {next} was begun and does not verify: usual after a crash, when nobody was told \
                 that it is durable; else it is lost"
            );
            let place = format!("byte {offset}");
            self.findings.doubt(&segment::name(bytes.id), place, what, "Compare with what senders know");
        }
    }

    /// Notes where logs go on; false when the commits cannot be read.
    fn note_group(&mut self, group: &GroupHeader, body: &[u8]) -> bool {
        let mut appends = Vec::new();
        let read = group::decode_commits(body, group.commits, |commit, op| {
            if let Replayed::Append { log, position, .. } = op {
                appends.push((group.first + u64::from(commit), log, position));
            }
        });
        for (number, log, position) in appends {
            if number > self.base.unwrap_or(0) && number > (self.as_of)(log) {
                self.plan.first_appends.entry(log).or_insert(position);
            }
        }
        read.is_some()
    }

    fn hole(&mut self, file: &str, place: &str, what: &str) {
        let what = format!("{what}. What was committed after commit {} is not applied", self.plan.last);
        self.findings.loss(file, place, what);
        self.is_open = cfg!(steadfast_bug = "salvage-behind-a-hole");
    }

    /// Counts what verifies behind a hole.
    fn count_behind(&mut self, bytes: &SegmentBytes, mut offset: u64, mut known: u64) {
        let store = self.plan.store;
        while let Some((at, group)) = bytes.next_group(&store, offset, known) {
            known = group.last();
            offset = segment::after(at, &group);
            self.plan.seen = self.plan.seen.max(known);
            if group.last() <= self.plan.last {
                continue;
            }
            self.readable += u64::from(group.commits);
            let start = at as usize + group::HEADER;
            let body = bytes.bytes.get(start..start + group.len as usize).unwrap_or(&[]);
            let mut messages = 0;
            let _ = group::decode_commits(body, group.commits, |_, op| {
                messages += u64::from(matches!(op, Replayed::Append { .. }));
            });
            self.messages += messages;
        }
    }

    fn end(&mut self) {
        let manifest = self.source.manifest.as_ref();
        let clean = manifest.and_then(|manifest| manifest.clean.as_ref()).map_or(0, |clean| clean.last);
        let durable = manifest.map_or(0, |manifest| manifest.high_water.max(manifest.checkpoint).max(clean));
        let (after, until) = (self.plan.last, durable.max(self.plan.seen));
        self.plan.seen = until;
        if self.is_open && after < durable {
            let what = format!(
                "the store ends at commit {after}, and {durable} was durable: those between are missing"
            );
            self.findings.loss(JOURNAL, "", what);
        }
        if !self.is_open || after < durable {
            let (readable, messages) = (self.readable, self.messages);
            self.plan.lost = Some(LostCommits { after, until: until.max(after), readable, messages });
        }
    }
}
