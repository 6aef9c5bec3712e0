//! What is at hand for reading: which page files are there, some of them open, and the pages that were read last.
//!
//! # Invariants
//! - Nothing of a file that is not there is at hand: an open handle would keep its room.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::medium::MediumFile;
use super::page::{self, Link};

/// Files kept open for readers.
const OPEN: usize = 32;
/// Pages kept: who reads a log takes less than a page at a time, and many may read the same log.
const RECENT: usize = 16;

/// See the module's head.
#[derive(Default)]
pub(super) struct Shelf {
    there: BTreeSet<u64>,
    /// Files that are not given up by this process.
    left: BTreeSet<u64>,
    open: VecDeque<(u64, Arc<dyn MediumFile>)>,
    recent: VecDeque<(Link, Arc<Vec<u8>>)>,
}

impl Shelf {
    pub(super) fn new(there: BTreeSet<u64>) -> Self {
        Shelf { there, ..Shelf::default() }
    }

    pub(super) fn there(&self) -> &BTreeSet<u64> {
        &self.there
    }

    pub(super) fn add(&mut self, file: u64) {
        self.there.insert(file);
    }

    pub(super) fn remove(&mut self, file: u64) {
        self.there.remove(&file);
        self.open.retain(|(known, _)| *known != file);
        self.recent.retain(|(link, _)| link.file != file);
    }

    /// Has a file left as it is, since it is damaged.
    pub(super) fn leave(&mut self, file: u64) {
        self.left.insert(file);
    }

    pub(super) fn is_left(&self, file: u64) -> bool {
        self.left.contains(&file)
    }

    pub(super) fn page(&self, link: &Link) -> Option<Arc<Vec<u8>>> {
        self.recent.iter().find(|(known, _)| known == link).map(|(_, page)| page.clone())
    }

    /// Keeps a page for who reads on in it; one with a large letter in it would be no small thing to keep.
    pub(super) fn keep_page(&mut self, link: Link, page: &Arc<Vec<u8>>) {
        if page.len() <= 2 * page::PAGE && self.there.contains(&link.file) {
            self.recent.truncate(RECENT - 1);
            self.recent.push_front((link, page.clone()));
        }
    }

    pub(super) fn file(&self, number: u64) -> Option<Arc<dyn MediumFile>> {
        self.open.iter().find(|(known, _)| *known == number).map(|(_, file)| file.clone())
    }

    pub(super) fn keep_file(&mut self, number: u64, file: &Arc<dyn MediumFile>) {
        // it may have been removed since it was opened
        if self.there.contains(&number) {
            self.open.truncate(OPEN - 1);
            self.open.push_front((number, file.clone()));
        }
    }
}
