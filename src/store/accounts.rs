//! What lives in each page file. The engine has a record for each file, written in the same batch as the links that changed
//! it, so that an open counts files and not pages.
//!
//! # Invariants
//! - A file has an account exactly while a link in the engine names it.

use std::collections::{BTreeMap, BTreeSet};

use super::group::u64_at;
use super::page::Link;

/// What is known of one page file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// The file has at least this many bytes: so far reaches the last page that was ever linked.
    pub(super) end: u64,
    /// Pages that live, and their bytes.
    pub(super) pages: u64,
    pub(super) bytes: u64,
}

impl Account {
    pub(super) fn encode(&self) -> Vec<u8> {
        [self.end, self.pages, self.bytes].iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let whole = value.len() == 24;
        let number = |at| u64_at(value, at).filter(|_| whole);
        Some(Account { end: number(0)?, pages: number(8)?, bytes: number(16)? })
    }
}

/// The accounts of all page files.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    files: BTreeMap<u64, Account>,
    changed: BTreeSet<u64>,
}

impl Accounts {
    pub(super) fn add(&mut self, link: &Link) {
        let account = self.files.entry(link.file).or_default();
        account.end = account.end.max(link.end());
        account.pages = account.pages.saturating_add(1);
        account.bytes = account.bytes.saturating_add(u64::from(link.len));
        self.changed.insert(link.file);
    }

    pub(super) fn remove(&mut self, link: &Link) {
        let Some(account) = self.files.get_mut(&link.file) else { return };
        account.pages = account.pages.saturating_sub(1);
        account.bytes = account.bytes.saturating_sub(u64::from(link.len));
        if account.pages == 0 {
            self.files.remove(&link.file);
        }
        self.changed.insert(link.file);
    }

    /// An account as the engine has it.
    pub(super) fn found(&mut self, file: u64, account: Account) {
        self.files.insert(file, account);
    }

    pub(super) fn of(&self, file: u64) -> Option<Account> {
        self.files.get(&file).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Account)> {
        self.files.iter().map(|(file, account)| (*file, *account))
    }

    /// Files whose account changed since the last call; without one, nothing of the file lives.
    pub(super) fn take_changed(&mut self) -> Vec<(u64, Option<Account>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|file| (file, self.of(file))).collect()
    }

    /// The first file in which something else lives than was counted.
    pub(super) fn difference(&self, counted: &Accounts) -> Option<String> {
        let files = self.files.keys().chain(counted.files.keys());
        let living = |accounts: &Accounts, file| {
            accounts.of(file).map_or((0, 0), |account| (account.pages, account.bytes))
        };
        files
            .map(|file| (*file, living(self, *file), living(counted, *file)))
            .find(|(_, expected, found)| expected != found)
            .map(|(file, (expected, _), (found, _))| {
                format!("page file {file:x} must have {expected} pages that live, {found} were found or they differ")
            })
    }

    /// The files whose living pages are best moved elsewhere so that they can go: the one with the least life for its size
    /// first, together at most about `size` bytes that live, which is also the size of a full file. `stays` says which are
    /// not to be touched.
    pub(super) fn worth_moving(&self, size: u64, stays: impl Fn(u64) -> bool) -> Vec<u64> {
        let total = self.files.values().map(|account| account.end).fold(0, u64::saturating_add);
        let living = self.files.values().map(|account| account.bytes).fold(0, u64::saturating_add);
        let dead = total.saturating_sub(living);
        let mut files: Vec<_> = self.iter().filter(|(file, _)| !stays(*file)).collect();
        if dead > living && dead > size {
            files.retain(|(_, account)| account.bytes <= account.end / 2);
            files.sort_by_key(|(file, account)| {
                (account.bytes.saturating_mul(1024) / account.end.max(1), *file)
            });
        } else if self.files.len() as u64 > FEW.saturating_add((total / size).saturating_mul(2)) {
            // each process that ends leaves a file that no other goes on with
            files.retain(|(_, account)| account.end <= size / 4);
            files.sort_by_key(|(file, account)| (account.bytes, *file));
        } else {
            return Vec::new();
        }
        let mut left = size;
        let mut chosen = Vec::new();
        for (file, account) in files {
            // one page alone may be larger than a file is meant to be
            if account.bytes > left && !chosen.is_empty() {
                break;
            }
            left = left.saturating_sub(account.bytes);
            chosen.push(file);
        }
        chosen
    }
}

/// So many page files are never too many.
const FEW: u64 = 16;

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    const SIZE: u64 = 1_000;

    fn accounts(files: &[(u64, u64)]) -> Accounts {
        let mut accounts = Accounts::default();
        for (file, (end, bytes)) in files.iter().enumerate() {
            accounts.found(file as u64, Account { end: *end, pages: 1, bytes: *bytes });
        }
        accounts
    }

    fn moved(files: &[(u64, u64)]) -> Vec<u64> {
        accounts(files).worth_moving(SIZE, |file| file == 9)
    }

    #[test]
    fn files_are_moved_when_more_is_dead_than_lives_and_that_is_much() {
        assert_eq!(moved(&[(1_000, 1_000), (1_000, 10)]), [0; 0], "more lives");
        assert_eq!(moved(&[(500, 1), (500, 1)]), [0; 0], "it is not much");
        assert_eq!(moved(&[(1_000, 700), (1_000, 300), (1_000, 10)]), [2, 1], "the deadest first");
        assert_eq!(moved(&[(2_000, 700), (2_000, 600), (2_000, 10)]), [2, 1], "no more than a file holds");
        assert_eq!(moved(&[(9_000, 3_000), (9_000, 3_001)]), [0], "but one at least");
    }

    #[test]
    fn many_small_files_become_few() {
        assert_eq!(moved(&[(100, 100); 16]), [0; 0]);
        assert_eq!(moved(&[(100, 100); 30]).len(), 10);
        assert!(!moved(&[(100, 100); 30]).contains(&9), "the one that stays");
    }

    #[test]
    fn an_account_ends_with_its_last_page() {
        let link = |offset| Link { file: 3, offset, len: 10, crc: 0 };
        let mut accounts = Accounts::default();
        accounts.add(&link(40));
        accounts.add(&link(50));
        assert_eq!(accounts.take_changed(), [(3, Some(Account { end: 60, pages: 2, bytes: 20 }))]);
        accounts.remove(&link(50));
        assert_eq!(accounts.of(3), Some(Account { end: 60, pages: 1, bytes: 10 }));
        accounts.remove(&link(40));
        assert_eq!(accounts.take_changed(), [(3, None)]);
        assert_eq!(accounts.iter().count(), 0);
    }

    #[test]
    fn an_account_is_what_was_encoded() {
        let account = Account { end: 5, pages: 6, bytes: 1 << 40 };
        assert_eq!(Account::decode(&account.encode()), Some(account));
        assert_eq!(Account::decode(&account.encode()[..23]), None);
    }
}
