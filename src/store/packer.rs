//! Puts the letters of a frozen generation together into pages, writes the larger ones to page files, and moves what still
//! lives out of files that are mostly dead. The engine is only read meanwhile: it learns of all this when all of it is
//! durable.
//!
//! # Invariants
//! - How letters are put together depends on the generation alone: who writes the engine comes to the same pages.
//! - What is moved leaves behind what was settled in the log; the page keeps its key.
//! - Nothing that does not verify is moved: it stays where it is, for its reader to be told.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::accounts::Account;
use super::census::Census;
use super::cursor::Cursor;
use super::engine::Engine;
use super::fault::StoreError;
use super::keys::{self, LogId};
use super::overlay::{Frozen, Generation};
use super::page::{self, INLINE, Link, PAGE};
use super::page_files::PageFiles;
use super::{sealed, writer};

/// The most bytes written in one step, roughly.
const STEP_BYTES: usize = 1 << 20;

/// Letters of one log that make a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sheet {
    pub(super) first: u64,
    /// The last position in it.
    pub(super) last: u64,
    /// Bytes of its entries.
    len: usize,
}

impl Sheet {
    /// The next page of a log from a position on.
    pub(super) fn next(generation: &Generation, log: LogId, from: u64) -> Option<Sheet> {
        let mut sheet: Option<Sheet> = None;
        for entry in generation.entries(log, from) {
            let len = page::ENTRY + entry.len as usize;
            match &mut sheet {
                None => sheet = Some(Sheet { first: entry.position, last: entry.position, len }),
                Some(sheet) if sheet.len + len > PAGE => break,
                Some(sheet) => {
                    sheet.len += len;
                    sheet.last = entry.position;
                }
            }
        }
        sheet
    }

    pub(super) fn is_inline(&self) -> bool {
        self.len <= INLINE
    }

    /// Adds its letters to a page.
    pub(super) fn write(&self, generation: &Generation, log: LogId, page: &mut Vec<u8>) {
        for entry in generation.entries(log, self.first).take_while(|entry| entry.position <= self.last) {
            page::add_entry(page, entry.position, &generation.slice(entry, &[]));
        }
    }
}

/// A page that lies elsewhere from now on.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) key: Vec<u8>,
    pub(super) from: Link,
    pub(super) to: Link,
}

/// What a generation's larger pages became, in order of log and position, and what was moved. All of it is durable.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) links: Vec<Link>,
    pub(super) moved: Vec<Moved>,
}

/// Does it, step by step.
pub(super) struct Packer {
    pub(super) frozen: Arc<Frozen>,
    logs: Vec<LogId>,
    at: Position,
    packed: Packed,
    /// Of the logs whose pages are moved.
    cursors: HashMap<LogId, Cursor>,
}

enum Position {
    Room,
    Pages { log: usize, from: u64 },
    Victims,
    Moves(VecDeque<(Link, Vec<u8>)>),
    Sync,
}

/// The logs of a generation in the order in which they are written.
pub(super) fn logs(frozen: &Frozen) -> Vec<LogId> {
    let mut logs: Vec<LogId> = frozen.generation.logs.keys().copied().collect();
    logs.sort_unstable();
    logs
}

impl Packer {
    pub(super) fn new(frozen: Arc<Frozen>) -> Self {
        Packer {
            logs: logs(&frozen),
            frozen,
            at: Position::Room,
            packed: Packed::default(),
            cursors: HashMap::new(),
        }
    }

    /// The next piece of work; all that was packed, when there is none.
    pub(super) fn step(
        &mut self,
        engine: &dyn Engine,
        census: &Census,
        files: &PageFiles,
    ) -> Result<Option<Packed>, StoreError> {
        self.at = match std::mem::replace(&mut self.at, Position::Sync) {
            Position::Room => {
                files.must_have_room(self.bytes_for_files())?;
                Position::Pages { log: 0, from: 0 }
            }
            Position::Pages { log, from } => self.pages(log, from, files)?,
            Position::Victims => victims(engine, census, files)?,
            Position::Moves(found) => self.moves(found, engine, files)?,
            Position::Sync => {
                if !cfg!(steadfast_bug = "link-pages-before-they-are-synced") {
                    files.sync()?;
                }
                return Ok(Some(std::mem::take(&mut self.packed)));
            }
        };
        Ok(None)
    }

    /// Everything at once, for recovery.
    pub(super) fn pack(
        mut self,
        engine: &dyn Engine,
        census: &Census,
        files: &PageFiles,
    ) -> Result<Packed, StoreError> {
        loop {
            match self.step(engine, census, files) {
                Ok(None) => {}
                Ok(Some(packed)) => return Ok(packed),
                Err(error) => {
                    files.rewind();
                    return Err(error);
                }
            }
        }
    }

    fn bytes_for_files(&self) -> u64 {
        let generation = &self.frozen.generation;
        let mut bytes = 0;
        for log in &self.logs {
            let mut from = 0;
            while let Some(sheet) = Sheet::next(generation, *log, from) {
                bytes += if sheet.is_inline() { 0 } else { (page::HEADER + sheet.len) as u64 };
                from = sheet.last + 1;
            }
        }
        bytes
    }

    fn pages(&mut self, mut log: usize, mut from: u64, files: &PageFiles) -> Result<Position, StoreError> {
        let generation = &self.frozen.generation;
        let mut bytes = 0;
        while let Some(id) = self.logs.get(log) {
            let Some(sheet) = Sheet::next(generation, *id, from) else {
                (log, from) = (log + 1, 0);
                continue;
            };
            from = sheet.last + 1;
            if sheet.is_inline() {
                continue;
            }
            if bytes >= STEP_BYTES {
                return Ok(Position::Pages { log, from: sheet.first });
            }
            let mut record = page::record(sheet.len);
            sheet.write(generation, *id, &mut record);
            bytes += record.len();
            self.packed.links.push(files.append(*id, sheet.first, record)?);
        }
        Ok(Position::Victims)
    }

    fn moves(
        &mut self,
        mut found: VecDeque<(Link, Vec<u8>)>,
        engine: &dyn Engine,
        files: &PageFiles,
    ) -> Result<Position, StoreError> {
        let mut bytes = 0;
        while let Some((from, key)) = found.pop_front() {
            let Some((log, first)) = keys::log_of_page(&key) else { continue };
            let record = match files.read_record(&key, &from) {
                Ok(record) => record,
                Err(error @ StoreError::Damaged { .. }) => {
                    leave(files, from.file, &error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let record = self.what_waits(log, &key, record, engine)?;
            bytes += record.len();
            let to = files.append(log, first, record)?;
            self.packed.moved.push(Moved { key, from, to });
            if bytes >= STEP_BYTES {
                return Ok(Position::Moves(found));
            }
        }
        Ok(Position::Sync)
    }
}

impl Packer {
    /// A record without what was settled in it. One of which nothing waits stays as it is: it is about to go.
    fn what_waits(
        &mut self,
        log: LogId,
        key: &[u8],
        record: Vec<u8>,
        engine: &dyn Engine,
    ) -> Result<Vec<u8>, StoreError> {
        let cursor = match self.cursors.get(&log) {
            Some(cursor) => cursor,
            None => {
                let frozen = self.frozen.cursors.iter().find(|(id, _)| *id == log);
                let cursor = match frozen {
                    Some((_, cursor)) => cursor.clone(),
                    None => writer::stored_cursor(engine, log)?,
                };
                self.cursors.entry(log).or_insert(cursor)
            }
        };
        let mut entries =
            page::entries(&record, page::HEADER).ok_or_else(|| sealed::damaged(key, "is no page"))?;
        entries.retain(|(position, _)| {
            cursor.is_waiting(*position) != cfg!(steadfast_bug = "move-what-was-settled-and-leave-the-rest")
        });
        let len: usize = entries.iter().map(|(_, at)| page::ENTRY + at.len()).sum();
        if len == 0 || page::HEADER + len == record.len() {
            return Ok(record);
        }
        let mut waits = page::record(len);
        entries.into_iter().for_each(|(position, at)| page::add_entry(&mut waits, position, &record[at]));
        Ok(waits)
    }
}

/// Chooses files to be given up, and looks what in them lives.
fn victims(engine: &dyn Engine, census: &Census, files: &PageFiles) -> Result<Position, StoreError> {
    let current = files.appending();
    let stays = |file| Some(file) == current || files.is_left(file);
    let mut chosen = census.accounts().worth_moving(files.size(), stays);
    // room is gained when the file goes, which is after the next manifest
    let mut left = if chosen.is_empty() { 0 } else { files.room()? / 2 };
    chosen.retain(|file| {
        let bytes = census.accounts().of(*file).map_or(0, |account| account.bytes);
        let fits = bytes <= left;
        left -= if fits { bytes } else { 0 };
        fits
    });
    let mut found = VecDeque::new();
    for file in chosen {
        let Some(account) = census.accounts().of(file) else { continue };
        match living(engine, files, file, account) {
            Ok(living) => found.extend(living),
            Err(error @ StoreError::Damaged { .. }) => leave(files, file, &error),
            Err(error) => return Err(error),
        }
    }
    Ok(if found.is_empty() { Position::Sync } else { Position::Moves(found) })
}

/// The pages of a file that the engine names, and their keys.
fn living(
    engine: &dyn Engine,
    files: &PageFiles,
    file: u64,
    account: Account,
) -> Result<Vec<(Link, Vec<u8>)>, StoreError> {
    let mut living = Vec::new();
    for (link, header) in files.walk(file, account.end)? {
        let key = keys::page(header.log, header.first);
        let Some(sealed) = engine.get(&key)? else { continue };
        // the header was not verified: what the engine says counts
        let named = Link::decode(&sealed::unseal(engine, &key, sealed)?);
        if let Some(named) = named.filter(|named| (named.file, named.offset) == (file, link.offset)) {
            living.push((named, key));
        }
    }
    if living.len() as u64 != account.pages {
        return Err(files.not_all_found(file, account.pages, living.len() as u64));
    }
    Ok(living)
}

/// A file with damage is not moved: what is whole in it is read as before, and of the rest its reader is told.
fn leave(files: &PageFiles, file: u64, error: &StoreError) {
    tracing::warn!(%error, "a page file cannot be given up: a part of it is damaged");
    files.leave(file);
}
