//! The files in which the larger pages lie: written by one checkpoint after the other, never changed, removed when
//! nothing in them lives.
//!
//! # Invariants
//! - A page is synced, and its file's name too, before the engine is told where it lies.
//! - A process writes only files that it made itself: what an earlier one left behind the last page that is linked may be
//!   anything, and what its last sync did nobody knows.
//! - A file goes only after the manifest that made the removal of its last link durable.
//! - What is read is checked against the link's checksum before anybody sees it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::accounts::{Account, Accounts};
use super::fault::StoreError;
use super::keys::{self, LogId};
use super::medium::{Medium, MediumFile};
use super::page::{self, HeaderFault, Link, RecordHeader};
use super::shelf::Shelf;

/// The directory of page files.
pub(super) const DIR: &str = "pages";

/// The page files of a store.
pub(super) struct PageFiles {
    medium: Arc<dyn Medium>,
    root: PathBuf,
    store: [u8; 16],
    /// A file that has so many bytes is not continued.
    size: u64,
    writing: Mutex<Writing>,
    shelf: Mutex<Shelf>,
}

/// Where the next page goes.
#[derive(Default)]
struct Writing {
    next: u64,
    file: Option<Appending>,
}

struct Appending {
    number: u64,
    file: Arc<dyn MediumFile>,
    /// Where the next page goes, and up to where everything is durable.
    end: u64,
    synced: u64,
}

impl PageFiles {
    /// Looks which files are there.
    pub(super) fn find(
        medium: Arc<dyn Medium>,
        root: PathBuf,
        store: [u8; 16],
        size: u64,
    ) -> Result<Self, StoreError> {
        let listed = medium.list(DIR).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::damaged(root.join(DIR), "the directory is missing"),
            _ => StoreError::io(root.join(DIR), "listing the page files", source),
        })?;
        let there: BTreeSet<u64> = listed.iter().filter_map(|file| number_of(file)).collect();
        let writing = Writing { next: there.last().map_or(1, |last| last + 1), file: None };
        let last = there.last().copied();
        let shelf = Mutex::new(Shelf::new(there));
        let files = PageFiles { medium, root, store, size, writing: Mutex::new(writing), shelf };
        if let Some(number) = last.filter(|_| cfg!(steadfast_bug = "append-to-an-old-page-file"))
            && let Ok((file, end)) = files.handle(number).and_then(|file| Ok((file.clone(), file.len()?)))
        {
            files.writing().file = Some(Appending { number, file, end, synced: end });
        }
        Ok(files)
    }

    /// None at all, for whoever writes none.
    pub(super) fn nowhere(medium: Arc<dyn Medium>, root: PathBuf) -> Self {
        let (writing, shelf) = (Mutex::default(), Mutex::new(Shelf::new(BTreeSet::new())));
        PageFiles { medium, root, store: [0; 16], size: u64::MAX, writing, shelf }
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that every file with an account is there, ours, and long enough.
    pub(super) fn check(&self, accounts: &Accounts) -> Result<(), StoreError> {
        accounts.iter().try_for_each(|(number, Account { end, .. })| self.check_file(number, end))
    }

    pub(super) fn check_file(&self, number: u64, end: u64) -> Result<(), StoreError> {
        let path = || self.root.join(name(number));
        let mut header = [0; page::FILE_HEADER];
        let file = match self.medium.open(&name(number)) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::damaged(path(), "the file is missing, and pages in it are needed"));
            }
            opened => opened.map_err(|source| StoreError::io(path(), "opening a page file", source))?,
        };
        let len = file.len().map_err(|source| StoreError::io(path(), "looking at a page file", source))?;
        if len < end.max(page::FILE_HEADER as u64) {
            let what = format!("it has {len} bytes, and pages up to byte {end} are needed");
            return Err(StoreError::damaged(path(), what));
        }
        let read = file.read_at(0, &mut header);
        read.map_err(|source| StoreError::io(path(), "reading a page file", source))?;
        match page::check_file_header(&header, &self.store, number) {
            Ok(()) => Ok(()),
            Err(HeaderFault::Damaged) => Err(StoreError::damaged(path(), "its header does not verify")),
            Err(HeaderFault::Newer(found)) => {
                Err(StoreError::Newer { path: path(), found, known: super::segment::FORMAT })
            }
            Err(HeaderFault::Foreign) => {
                let what = "the page file belongs to another store".into();
                Err(StoreError::Foreign { path: path(), what })
            }
        }
    }

    /// Bytes that may still be written before the device is full.
    pub(super) fn room(&self) -> Result<u64, StoreError> {
        let room = self.medium.free_space();
        room.map_err(|source| StoreError::io(self.root.join(DIR), "looking for room", source))
    }

    /// Whether there is room for so many bytes. Asked first: finding out by writing would fill the device to its last byte, at
    /// every try.
    pub(super) fn must_have_room(&self, bytes: u64) -> Result<(), StoreError> {
        match self.room()? >= bytes {
            true => Ok(()),
            false => Err(self.fault(DIR, "writing pages", io::ErrorKind::StorageFull.into())),
        }
    }

    /// Appends a record, made with [`page::record`]. It may be linked after [`PageFiles::sync`].
    pub(super) fn append(&self, log: LogId, first: u64, mut record: Vec<u8>) -> Result<Link, StoreError> {
        let mut writing = self.writing();
        if writing.file.as_ref().is_some_and(|file| file.end >= self.size) {
            self.sync_file(&mut writing)?;
            writing.file = None;
        }
        if writing.file.is_none() {
            self.begin_file(&mut writing)?;
        }
        let Some(file) = &mut writing.file else { return Err(StoreError::Closed) };
        // a file goes on only while it is shorter than a full one, and a record is shorter than a segment
        let offset = u32::try_from(file.end).unwrap_or(u32::MAX);
        let link = page::close_record(&mut record, log, first, file.number, offset);
        let written = file.file.write_at(file.end, &record);
        // what was written of it lies behind the end, and the next one is written over it
        written.map_err(|source| self.fault(&name(file.number), "writing a page", source))?;
        file.end = link.end();
        Ok(link)
    }

    /// Makes every page appended so far durable, and its file's name.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.sync_file(&mut self.writing())
    }

    fn sync_file(&self, writing: &mut Writing) -> Result<(), StoreError> {
        let Some(file) = writing.file.as_mut().filter(|file| file.synced < file.end) else { return Ok(()) };
        let is_new = file.synced == 0;
        let sync = || {
            file.file.sync()?;
            if is_new { self.medium.sync_dir(DIR) } else { Ok(()) }
        };
        if let Err(source) = sync() {
            let fault = self.fault(&name(file.number), "syncing a page file", source);
            self.abandon(writing);
            return Err(fault);
        }
        file.synced = file.end;
        Ok(())
    }

    /// Forgets what was appended since the last sync.
    pub(super) fn rewind(&self) {
        let mut writing = self.writing();
        match &mut writing.file {
            Some(file) if file.synced > 0 => file.end = file.synced,
            Some(_) => self.abandon(&mut writing),
            None => {}
        }
    }

    /// Nothing is appended any more to the file that was: its last sync failed, or nothing in it was linked.
    fn abandon(&self, writing: &mut Writing) {
        if let Some(file) = writing.file.take()
            && file.synced == 0
        {
            // if it stays, it is removed with those in which nothing lives
            let _ = self.remove(file.number);
        }
    }

    fn begin_file(&self, writing: &mut Writing) -> Result<(), StoreError> {
        let number = writing.next;
        writing.next += 1;
        let name = name(number);
        let begin = || {
            let file = self.medium.create(&name)?;
            self.shelf().add(number);
            file.write_at(0, &page::file_header(&self.store, number))?;
            Ok(file)
        };
        match begin() {
            Ok(file) => {
                let end = page::FILE_HEADER as u64;
                writing.file = Some(Appending { number, file, end, synced: 0 });
                Ok(())
            }
            Err(source) => {
                let _ = self.remove(number);
                Err(self.fault(&name, "beginning a page file", source))
            }
        }
    }

    /// Bytes of a full file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Has a file left as it is, since it is damaged.
    pub(super) fn leave(&self, number: u64) {
        self.shelf().leave(number);
    }

    pub(super) fn is_left(&self, number: u64) -> bool {
        self.shelf().is_left(number)
    }

    /// The number of the file to which the next page may be appended.
    pub(super) fn appending(&self) -> Option<u64> {
        self.writing().file.as_ref().map(|file| file.number)
    }

    /// The record that `link`, the value of the page's `key`, names; it is as it was written.
    pub(super) fn read(&self, key: &[u8], link: &Link) -> Result<Arc<Vec<u8>>, StoreError> {
        if let Some(page) = self.shelf().page(link) {
            return Ok(page);
        }
        let page = Arc::new(self.read_record(key, link)?);
        self.shelf().keep_page(*link, &page);
        Ok(page)
    }

    /// As [`PageFiles::read`], from the disk.
    pub(super) fn read_record(&self, key: &[u8], link: &Link) -> Result<Vec<u8>, StoreError> {
        let mut record = Vec::new();
        let read = self.handle(link.file).and_then(|file| {
            // a link may name more than there is: nothing is reserved for that
            if file.len()? < link.end() && !cfg!(steadfast_bug = "reserve_what_a_link_says") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            record.resize(link.len as usize, 0);
            file.read_at(u64::from(link.offset), &mut record)
        });
        match read.map_err(|source| (source.kind(), source)) {
            Ok(()) if page::is_record(&record, key, link) => Ok(record),
            Ok(()) => Err(self.damaged(key, link, "does not match its checksum")),
            Err((io::ErrorKind::NotFound, _)) => Err(self.damaged(key, link, "is missing with its file")),
            Err((io::ErrorKind::UnexpectedEof, _)) => {
                Err(self.damaged(key, link, "lies beyond the end of the file"))
            }
            Err((_, source)) => Err(self.fault(&name(link.file), "reading a page", source)),
        }
    }

    fn damaged(&self, key: &[u8], link: &Link, what: &str) -> StoreError {
        let whose = keys::log_of_page(key).map_or_else(String::new, |(log, first)| {
            format!(
                ", of mailbox {}, lane {}, with message {first} and those after it,",
                log.mailbox, log.lane
            )
        });
        let what = format!("the page at byte {}{whose} {what}", link.offset);
        StoreError::damaged(self.root.join(name(link.file)), what)
    }

    fn handle(&self, number: u64) -> io::Result<Arc<dyn MediumFile>> {
        if let Some(file) = self.shelf().file(number) {
            return Ok(file);
        }
        let file = self.medium.open(&name(number))?;
        self.shelf().keep_file(number, &file);
        Ok(file)
    }

    /// The places of the records of a file as their headers say, up to `end`, or to where no record can be. Whether they
    /// live and are whole is not known.
    pub(super) fn walk(&self, number: u64, end: u64) -> Result<Vec<(Link, RecordHeader)>, StoreError> {
        let fault = |source: io::Error| match source.kind() {
            // as for who reads one of its pages
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => StoreError::damaged(
                self.root.join(name(number)),
                "the file is missing, or ends before its pages do",
            ),
            _ => self.fault(&name(number), "reading a page file", source),
        };
        let file = self.handle(number).map_err(fault)?;
        let mut at = page::FILE_HEADER as u64;
        let mut found = Vec::new();
        while at + page::HEADER as u64 <= end {
            let mut header = [0; page::HEADER];
            file.read_at(at, &mut header).map_err(fault)?;
            let header = RecordHeader::read(&header).filter(|header| at + u64::from(header.len) <= end);
            let Some((header, offset)) = header.zip(u32::try_from(at).ok()) else { break };
            let link = Link { file: number, offset, len: header.len, crc: header.crc };
            found.push((link, header));
            at = link.end();
        }
        Ok(found)
    }

    pub(super) fn not_all_found(&self, number: u64, expected: u64, found: u64) -> StoreError {
        let what = format!("{expected} pages in it must live, {found} were found");
        StoreError::damaged(self.root.join(name(number)), what)
    }

    /// Removes the files without an account. What the engine has, and the manifest says, must be durable.
    pub(super) fn remove_dead(&self, accounts: &Accounts) -> Result<(), StoreError> {
        let dead: Vec<u64> =
            self.shelf().there().iter().copied().filter(|number| accounts.of(*number).is_none()).collect();
        for number in dead {
            let mut writing = self.writing();
            if writing.file.as_ref().is_some_and(|file| file.number == number) {
                writing.file = None;
            }
            drop(writing);
            // its name may come back with a power cut: then it goes after the next checkpoint
            let removed = self.remove(number);
            removed.map_err(|source| self.fault(&name(number), "removing a page file", source))?;
        }
        Ok(())
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        self.shelf().remove(number);
        match self.medium.remove(&name(number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.inspect_err(|_| {
                self.shelf().add(number);
            }),
        }
    }

    /// Copies a file up to `end` to another store, durable there after `sync_dir`.
    pub(super) fn copy(&self, number: u64, end: u64, to: &PageFiles) -> Result<(), StoreError> {
        const STRIDE: u64 = 1 << 20;
        let (name, fault) = (name(number), |source| self.fault(&name(number), "reading a page file", source));
        let from = self.handle(number).map_err(fault)?;
        let begun = to.medium.create(&name).and_then(|copy| {
            copy.write_at(0, &page::file_header(&to.store, number))?;
            Ok(copy)
        });
        let copy = begun.map_err(|source| to.fault(&name, "writing a page file", source))?;
        let mut at = page::FILE_HEADER as u64;
        while at < end {
            let mut bytes = vec![0; STRIDE.min(end - at) as usize];
            from.read_at(at, &mut bytes).map_err(fault)?;
            copy.write_at(at, &bytes).map_err(|source| to.fault(&name, "writing a page file", source))?;
            at += bytes.len() as u64;
        }
        copy.sync().map_err(|source| to.fault(&name, "syncing a page file", source))
    }

    fn fault(&self, name: &str, doing: &'static str, source: io::Error) -> StoreError {
        StoreError::io(self.root.join(name), doing, source)
    }
}

/// The name of a page file, relative to the store.
pub(super) fn name(number: u64) -> String {
    format!("{DIR}/{number:016x}.pages")
}

/// The number in a page file's name, without its directory.
fn number_of(file: &str) -> Option<u64> {
    u64::from_str_radix(file.strip_suffix(".pages")?, 16).ok()
}
