//! How many values of each class the engine holds, and the sum of their checksums, and what lives in each page file. Carried
//! by every checkpoint batch, so that an engine that dropped or changed something, whatever the moment of the crash, is told
//! apart from a whole one.

use std::collections::{BTreeMap, BTreeSet};

use super::accounts::{Account, Accounts};
use super::engine::{Engine, Write};
use super::fault::StoreError;
use super::group::u64_at;
use super::keys::{self, class};
use super::page::{Link, Stored};
use super::page_files::PageFiles;
use super::sealed;

/// See the module's head.
#[derive(Debug, Clone, Default)]
pub(super) struct Census {
    /// Per class: count, and the wrapping sum of the CRCs in its sealed values.
    classes: BTreeMap<u8, (u64, u64)>,
    accounts: Accounts,
}

impl Census {
    /// The writes that put `value` under `key` in place of whatever is there.
    pub(super) fn put(
        &mut self,
        engine: &dyn Engine,
        key: Vec<u8>,
        value: &[u8],
        out: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        self.forget_old(engine, &key, out)?;
        if let Some(link) = link(&key, value) {
            self.accounts.add(&link);
        }
        for (key, sealed) in sealed::seal(key, value) {
            let (count, sum) = self.of(&key);
            *count = count.wrapping_add(1);
            *sum = sum.wrapping_add(sealed::sum(&sealed));
            out.push(Write::Put(key, sealed));
        }
        Ok(())
    }

    /// The writes that remove `key` and its chunks, none when it is not there.
    pub(super) fn delete(
        &mut self,
        engine: &dyn Engine,
        key: Vec<u8>,
        out: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        if self.forget_old(engine, &key, out)? {
            out.push(Write::Delete(key));
        }
        Ok(())
    }

    fn forget_old(
        &mut self,
        engine: &dyn Engine,
        key: &[u8],
        out: &mut Vec<Write>,
    ) -> Result<bool, StoreError> {
        let Some(old) = engine.get(key)? else { return Ok(false) };
        self.forget(key, &old);
        if let Some(link) = old.get(sealed::OVERHEAD..).and_then(|value| link(key, value)) {
            self.accounts.remove(&link);
        }
        for chunk in sealed::chunk_keys(key, &old) {
            if let Some(old) = engine.get(&chunk)? {
                self.forget(&chunk, &old);
                out.push(Write::Delete(chunk));
            }
        }
        Ok(true)
    }

    fn forget(&mut self, key: &[u8], old: &[u8]) {
        let (count, sum) = self.of(key);
        *count = count.wrapping_sub(1);
        *sum = sum.wrapping_sub(sealed::sum(old));
    }

    fn of(&mut self, key: &[u8]) -> &mut (u64, u64) {
        self.classes.entry(key.first().copied().unwrap_or(0)).or_default()
    }

    /// What lives in each page file.
    pub(super) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The writes that end every batch: the accounts that it changed, and the meta record.
    pub(super) fn record(
        &mut self,
        engine: &dyn Engine,
        number: u64,
        out: &mut Vec<Write>,
    ) -> Result<(), StoreError> {
        for (file, account) in self.accounts.take_changed() {
            match account {
                Some(account) => self.put(engine, keys::page_file(file), &account.encode(), out)?,
                None => self.delete(engine, keys::page_file(file), out)?,
            }
        }
        out.push(self.meta(number));
        Ok(())
    }

    /// The write of the meta record: the checkpoint's number and this census.
    fn meta(&self, number: u64) -> Write {
        let mut value = number.to_be_bytes().to_vec();
        for (class, (count, sum)) in self.classes.iter().filter(|(_, (count, _))| *count > 0) {
            value.push(*class);
            value.extend_from_slice(&count.to_be_bytes());
            value.extend_from_slice(&sum.to_be_bytes());
        }
        // the meta record is far smaller than one piece
        let (key, sealed) = sealed::seal(keys::meta("checkpoint"), &value).swap_remove(0);
        Write::Put(key, sealed)
    }

    /// The checkpoint's number and census as the engine has them; nothing before the first checkpoint.
    pub(super) fn read(engine: &dyn Engine) -> Result<(u64, Self), StoreError> {
        let key = keys::meta("checkpoint");
        let Some(sealed) = engine.get(&key)? else { return Ok((0, Census::default())) };
        let value = sealed::unseal(engine, &key, sealed)?;
        let short = || sealed::damaged(&key, "is too short");
        let number = u64_at(&value, 0).ok_or_else(short)?;
        let mut census = Census::default();
        for entry in value[8..].chunks(17) {
            let (count, sum) = u64_at(entry, 1).zip(u64_at(entry, 9)).ok_or_else(short)?;
            census.classes.insert(entry[0], (count, sum));
        }
        census.read_accounts(engine)?;
        Ok((number, census))
    }

    fn read_accounts(&mut self, engine: &dyn Engine) -> Result<(), StoreError> {
        let (from, to) = (keys::page_file(0), [class::PAGE_FILE + 1]);
        for (key, sealed) in engine.range(&from, &to, usize::MAX)? {
            let value = sealed::unseal(engine, &key, sealed)?;
            let account = u64_at(&key, 1).zip(Account::decode(&value));
            let (file, account) = account.ok_or_else(|| sealed::damaged(&key, "is no account"))?;
            self.accounts.found(file, account);
        }
        Ok(())
    }

    /// Counts everything in the engine, checking every checksum on the way, also those of pages in files.
    pub(super) fn take(engine: &dyn Engine, pages: &PageFiles) -> Result<Self, StoreError> {
        const AT_ONCE: usize = 256;
        let mut census = Census::default();
        let mut from = vec![class::META + 1];
        loop {
            let pairs = engine.range(&from, &[u8::MAX], AT_ONCE)?;
            for (key, sealed) in &pairs {
                let (_, value) = sealed::verify(key, sealed)?;
                if key.first() == Some(&class::PAGE)
                    && let Stored::Link(link) = Stored::of(key, value)?
                {
                    pages.read_record(key, &link)?;
                    census.accounts.add(&link);
                }
                census.count(key, sealed);
            }
            match pairs.into_iter().next_back() {
                Some((mut last, _)) => {
                    last.push(0);
                    from = last;
                }
                None => return Ok(census),
            }
        }
    }

    /// Counts one pair as it is stored.
    pub(super) fn count(&mut self, key: &[u8], sealed: &[u8]) {
        let (count, sum) = self.of(key);
        *count = count.wrapping_add(1);
        *sum = sum.wrapping_add(sealed::sum(sealed));
    }

    /// As [`Census::count`], with the value behind the seal: a link in it counts as a page that lives.
    pub(super) fn count_linked(&mut self, key: &[u8], sealed: &[u8], value: &[u8]) {
        self.count(key, sealed);
        if let Some(link) = link(key, value) {
            self.accounts.add(&link);
        }
    }

    /// The classes in which the engine, as counted, is not what this census says, and how many values there must be and are.
    pub(super) fn differences(&self, counted: &Census) -> impl Iterator<Item = (u8, u64, u64)> {
        let classes: BTreeSet<u8> = self.classes.keys().chain(counted.classes.keys()).copied().collect();
        let of = |census: &Census, class: u8| census.classes.get(&class).copied().unwrap_or_default();
        let pairs: Vec<_> =
            classes.into_iter().map(|class| (class, of(self, class), of(counted, class))).collect();
        pairs
            .into_iter()
            .filter(|(_, expected, found)| expected != found)
            .map(|(class, (expected, _), (found, _))| (class, expected, found))
    }

    /// The first class in which the engine, as counted, is not what this census says.
    pub(super) fn difference(&self, counted: &Census) -> Option<String> {
        let first = self.differences(counted).next();
        first
            .map(|(class, expected, found)| {
                format!("class {class:02x} must have {expected} values as written, {found} were found or they differ")
            })
            .or_else(|| self.accounts.difference(&counted.accounts))
    }
}

/// The link in a value, if it is one of a page that lies in a file.
fn link(key: &[u8], value: &[u8]) -> Option<Link> {
    if key.first() == Some(&class::PAGE) { Link::decode(value) } else { None }
}
