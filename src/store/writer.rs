//! Turns a frozen generation into batches of the engine.
//!
//! # Invariants
//! - Many small batches, each with the census as it is after it: what was moved, cells and pages first, then each log's trimmed
//!   pages and cursor; the number in the last one.
//! - A page goes when all its positions are below the log's front, or in one settled range.
//! - Written again from its beginning, over any part of itself, it comes to the same end.

use std::sync::Arc;

use super::census::Census;
use super::cursor::Cursor;
use super::engine::{Engine, Write};
use super::fault::StoreError;
use super::keys::{self, LogId};
use super::overlay::Frozen;
use super::packer::{self, Packed, Sheet};
use super::{page, sealed};

/// A log's cursor as the engine has it.
pub(super) fn stored_cursor(engine: &dyn Engine, log: LogId) -> Result<Cursor, StoreError> {
    let key = keys::cursor(log);
    let Some(sealed) = engine.get(&key)? else { return Ok(Cursor::default()) };
    let value = sealed::unseal(engine, &key, sealed)?;
    Cursor::decode(&value).ok_or_else(|| sealed::damaged(&key, "is no cursor"))
}

/// The most writes in one engine batch: larger ones make sled hold on to memory.
const BATCH_WRITES: usize = 64;
/// The most bytes in one engine batch, roughly.
const BATCH_BYTES: usize = 1 << 20;

/// See the module's head.
pub(super) struct Writer {
    pub(super) frozen: Arc<Frozen>,
    pub(super) census: Census,
    packed: Arc<Packed>,
    logs: Vec<LogId>,
    at: Position,
    before: u64,
}

enum Position {
    Moved(usize),
    Cells(Option<Vec<u8>>),
    /// `link` counts the pages in files before this one.
    Pages {
        log: usize,
        from: u64,
        link: usize,
    },
    /// `settled` is where in the log's settled ranges to go on.
    Cursors {
        log: usize,
        settled: u64,
    },
    Number,
    Done,
}

impl Writer {
    /// `before` is the engine's checkpoint number until the last batch.
    pub(super) fn new(frozen: Arc<Frozen>, census: Census, before: u64, packed: Arc<Packed>) -> Self {
        Writer { logs: packer::logs(&frozen), frozen, census, packed, at: Position::Moved(0), before }
    }

    /// The next batch, or nothing when all has been written.
    pub(super) fn next_batch(&mut self, engine: &dyn Engine) -> Result<Option<Vec<Write>>, StoreError> {
        let mut batch = Vec::new();
        while batch.is_empty() {
            match &self.at {
                Position::Moved(from) => self.moved(*from, engine, &mut batch)?,
                Position::Cells(after) => self.cells(after.clone(), engine, &mut batch)?,
                Position::Pages { log, from, link } => self.pages(*log, *from, *link, engine, &mut batch)?,
                Position::Cursors { log, settled } => self.cursors(*log, *settled, engine, &mut batch)?,
                Position::Number => {
                    self.at = Position::Done;
                    self.before = self.frozen.generation.last;
                    break;
                }
                Position::Done => return Ok(None),
            }
        }
        self.census.record(engine, self.before, &mut batch)?;
        Ok(Some(batch))
    }

    /// Pages that lie elsewhere now, unless they have gone or were written anew.
    fn moved(&mut self, from: usize, engine: &dyn Engine, batch: &mut Vec<Write>) -> Result<(), StoreError> {
        let packed = self.packed.clone();
        for moved in packed.moved.iter().skip(from).take(BATCH_WRITES) {
            let Some(sealed) = engine.get(&moved.key)? else { continue };
            let is_there = sealed::unseal(engine, &moved.key, sealed)? == moved.from.encode();
            if is_there && !cfg!(steadfast_bug = "move-pages-without-linking-them") {
                self.census.put(engine, moved.key.clone(), &moved.to.encode(), batch)?;
            }
        }
        let next = from + BATCH_WRITES;
        self.at = if next < packed.moved.len() { Position::Moved(next) } else { Position::Cells(None) };
        Ok(())
    }

    fn cells(
        &mut self,
        after: Option<Vec<u8>>,
        engine: &dyn Engine,
        batch: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        let frozen = self.frozen.clone();
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut bytes = 0;
        for (key, value) in frozen.generation.cells.range((from, std::ops::Bound::Unbounded)) {
            match value {
                Some(value) => self.census.put(engine, key.clone(), value, batch)?,
                None => self.census.delete(engine, key.clone(), batch)?,
            }
            bytes += value.as_ref().map_or(0, |value| value.len());
            if batch.len() >= BATCH_WRITES || bytes >= BATCH_BYTES {
                self.at = Position::Cells(Some(key.clone()));
                return Ok(());
            }
        }
        self.at = Position::Pages { log: 0, from: 0, link: 0 };
        Ok(())
    }

    fn pages(
        &mut self,
        mut log: usize,
        mut from: u64,
        mut link: usize,
        engine: &dyn Engine,
        batch: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        let (frozen, packed) = (self.frozen.clone(), self.packed.clone());
        let mut bytes = 0;
        while let Some(id) = self.logs.get(log).copied() {
            let Some(sheet) = Sheet::next(&frozen.generation, id, from) else {
                (log, from) = (log + 1, 0);
                continue;
            };
            if batch.len() >= BATCH_WRITES || bytes >= BATCH_BYTES {
                self.at = Position::Pages { log, from, link };
                return Ok(());
            }
            self.forget_stale(id, &sheet, engine, batch)?;
            let key = keys::page(id, sheet.first);
            if sheet.is_inline() {
                let mut page = page::inline();
                sheet.write(&frozen.generation, id, &mut page);
                bytes += page.len();
                self.census.put(engine, key, &page, batch)?;
            } else {
                let to = packed.links.get(link).ok_or_else(|| sealed::damaged(&key, "was not packed"))?;
                self.census.put(engine, key, &to.encode(), batch)?;
                link += 1;
            }
            from = sheet.last + 1;
        }
        self.at = Position::Cursors { log: 0, settled: 0 };
        Ok(())
    }

    /// Deletes pages that begin inside a new one. A checkpoint that was interrupted wrote them, when less was settled: they hold
    /// nothing that the new one has not, and who looks for a letter would find them in its place.
    fn forget_stale(
        &mut self,
        log: LogId,
        sheet: &Sheet,
        engine: &dyn Engine,
        batch: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        if sheet.first == sheet.last || cfg!(steadfast_bug = "leave-stale-pages") {
            return Ok(());
        }
        let (from, to) = (keys::page(log, sheet.first + 1), keys::page(log, sheet.last + 1));
        for (key, _) in engine.range(&from, &to, usize::MAX)? {
            self.census.delete(engine, key, batch)?;
        }
        Ok(())
    }

    fn cursors(
        &mut self,
        mut log: usize,
        mut settled: u64,
        engine: &dyn Engine,
        batch: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        let frozen = self.frozen.clone();
        let last = frozen.generation.last;
        while let Some((id, cursor)) = frozen.cursors.get(log) {
            self.trim(*id, cursor.front, cursor.front == cursor.next, engine, batch)?;
            settled = self.delete_settled(*id, cursor, settled, engine, batch)?;
            if batch.len() >= BATCH_WRITES {
                // this log may have more pages that go
                self.at = Position::Cursors { log, settled };
                return Ok(());
            }
            let may_go = cursor.next <= last || cfg!(steadfast_bug = "forget_positions_beyond_the_commits");
            if keys::is_entity(id.mailbox) && cursor.is_drained() && may_go {
                self.census.delete(engine, keys::cursor(*id), batch)?;
            } else {
                self.census.put(engine, keys::cursor(*id), &cursor.encode(last), batch)?;
            }
            (log, settled) = (log + 1, 0);
        }
        self.at = Position::Number;
        Ok(())
    }

    /// Deletes pages all of whose positions are below `front`: those before the last page that begins at or below it,
    /// and that one too when the log is empty.
    fn trim(
        &mut self,
        log: LogId,
        front: u64,
        empty: bool,
        engine: &dyn Engine,
        batch: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        let end = keys::page(log, front.saturating_add(1));
        let room = BATCH_WRITES.saturating_sub(batch.len());
        let pages = engine.range(&keys::page(log, 0), &end, room + 1)?;
        let done = if empty || cfg!(steadfast_bug = "trim-too-early") {
            pages.len()
        } else {
            pages.len().saturating_sub(1)
        };
        for (key, _) in pages.into_iter().take(done.min(room)) {
            self.census.delete(engine, key, batch)?;
        }
        Ok(())
    }

    /// Deletes pages that lie in a settled range, of those ranges that the engine's cursor has not: in the others there are none
    /// any more. Begins at the range that starts at or behind `from`, and says where to go on.
    fn delete_settled(
        &mut self,
        log: LogId,
        cursor: &Cursor,
        from: u64,
        engine: &dyn Engine,
        batch: &mut Vec<Write>,
    ) -> Result<u64, StoreError> {
        if !cursor.has_settled() {
            return Ok(0);
        }
        let before = stored_cursor(engine, log)?;
        for (start, end) in cursor.settled_since(&before, from) {
            let room = BATCH_WRITES.saturating_sub(batch.len());
            if room == 0 {
                return Ok(start);
            }
            // also one that begins at the end: only behind a page that begins there or before is the one before it known to end
            let (from, to) = (keys::page(log, start), keys::page(log, end.saturating_add(1)));
            let pages = engine.range(&from, &to, room + 1)?;
            let reaches_the_end = pages.len() <= room && end == cursor.next;
            let goes = match reaches_the_end || cfg!(steadfast_bug = "delete-pages-that-are-half-settled") {
                true => pages.len(),
                false => pages.len().saturating_sub(1),
            };
            for (key, _) in pages.into_iter().take(goes) {
                self.census.delete(engine, key, batch)?;
            }
            if batch.len() >= BATCH_WRITES {
                // the range may have more
                return Ok(start);
            }
        }
        Ok(u64::MAX)
    }

    /// Writes everything; for recovery, where nobody waits meanwhile.
    pub(super) fn write_all(mut self, engine: &dyn Engine) -> Result<Census, StoreError> {
        while let Some(batch) = self.next_batch(engine)? {
            engine.apply(batch)?;
        }
        engine.flush()?;
        Ok(self.census)
    }
}
