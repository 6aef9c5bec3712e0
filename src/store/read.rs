//! Reading: the overlay under the lock, the engine outside it. What the engine said holds while the count of finished
//! checkpoints stands; when it moved meanwhile, the read is done again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::Seen;
use super::engine::Engine;
use super::fault::StoreError;
use super::group::{u32_at, u64_at};
use super::keys::{self, LogId, MailboxId};
use super::overlay::Slice;
use super::{Shared, Store, sealed};

/// What a look at the overlay says of a key.
#[derive(Debug, Clone)]
pub(crate) enum Peek {
    /// It has this value.
    Value(Arc<[u8]>),
    /// It has none.
    Absent,
    /// Only the engine knows.
    AskEngine,
}

/// A stored key and its value.
pub(crate) type KeyValue = (Vec<u8>, Arc<[u8]>);

/// A waiting envelope and its place.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) log: LogId,
    pub(crate) position: u64,
    pub(crate) envelope: Slice,
}

/// An answer to [`Store::peek_letters`].
#[derive(Debug)]
pub(crate) enum Letters {
    /// Waiting letters in order; none when nothing waits from there on.
    Here(Vec<Letter>),
    /// The next ones lie in the engine: use [`Store::read_letters`] where blocking is allowed.
    InEngine,
}

impl Store {
    /// Looks a key up without touching the disk.
    pub(crate) fn peek(&self, key: &[u8]) -> Peek {
        match self.shared.admission().peek(key) {
            Some(Some(value)) => Peek::Value(value),
            Some(None) => Peek::Absent,
            None => Peek::AskEngine,
        }
    }

    /// The value of a key. May block on the disk.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Arc<[u8]>>, StoreError> {
        Ok(self.get_seen(key)?.0)
    }

    /// The value of a key, and what to put into a condition about it. May block on the disk.
    pub(crate) fn get_seen(&self, key: &[u8]) -> Result<(Option<Arc<[u8]>>, Seen), StoreError> {
        loop {
            let stamp = {
                let admission = self.shared.admission();
                if let Some(value) = admission.peek(key) {
                    let seen = Seen { present: value.is_some(), stamp: admission.stamp };
                    return Ok((value, seen));
                }
                admission.stamp
            };
            let value = self.shared.read_engine(|engine| match engine.get(key)? {
                Some(sealed) => Ok(Some(Arc::from(sealed::unseal(engine, key, sealed)?))),
                None => Ok(None),
            });
            if self.shared.admission().stamp == stamp {
                let value = value?;
                return Ok((value.clone(), Seen { present: value.is_some(), stamp }));
            }
        }
    }

    /// Pairs with `from <= key < to` in order, at most `limit`. May block on the disk.
    pub(crate) fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<KeyValue>, StoreError> {
        let mut found = Vec::new();
        let mut from = from.to_vec();
        while found.len() < limit && from.as_slice() < to {
            let (part, next) = self.scan_part(&from, to, limit - found.len())?;
            found.extend(part);
            from = next;
        }
        Ok(found)
    }

    /// One step of a scan: what lies between `from` and the key returned with it.
    fn scan_part(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<(Vec<KeyValue>, Vec<u8>), StoreError> {
        loop {
            let (overlay, mut end, stamp) = self.shared.overlay_range(from, to, limit);
            let stored = self.shared.read_engine(|engine| {
                let pairs = engine.range(from, &end, limit)?;
                pairs
                    .into_iter()
                    .map(|(key, value)| unsealed(engine, key, value))
                    .collect::<Result<Vec<_>, _>>()
            });
            if self.shared.admission().stamp != stamp {
                continue;
            }
            let stored = stored?;
            if stored.len() == limit
                && let Some((last, _)) = stored.last()
            {
                // beyond its last pair the engine was not asked
                end = successor(last);
            }
            let mut merged: BTreeMap<Vec<u8>, Option<Arc<[u8]>>> =
                stored.into_iter().map(|(key, value)| (key, Some(value))).collect();
            merged.extend(overlay.into_iter().filter(|(key, _)| *key < end));
            let mut pairs: Vec<_> =
                merged.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            if pairs.len() > limit {
                pairs.truncate(limit);
            }
            return Ok((pairs, end));
        }
    }

    /// Up to `count` waiting letters (and about `bytes`) of a log from a position on, as far as memory has them.
    pub(crate) fn peek_letters(&self, log: LogId, from: u64, count: usize, bytes: usize) -> Letters {
        let admission = self.shared.admission();
        let Some(cursor) =
            admission.mailboxes.get(&log.mailbox).map(|state| &state.lanes[usize::from(log.lane)])
        else {
            return Letters::InEngine;
        };
        let Some(first) = cursor.first_waiting(from) else { return Letters::Here(Vec::new()) };
        let frozen = admission.frozen.as_ref().map(|frozen| &frozen.generation);
        let filling = &admission.filling.bytes;
        let from_frozen =
            frozen.into_iter().flat_map(|frozen| frozen.entries(log, first).map(move |e| (frozen, e)));
        let from_active = admission.active.entries(log, first).map(|entry| (&admission.active, entry));
        let mut letters = Vec::new();
        let (mut expected, mut left) = (first, bytes);
        for (generation, entry) in from_frozen.chain(from_active) {
            if !cursor.is_waiting(entry.position) {
                continue;
            }
            if cursor.first_waiting(expected) != Some(entry.position) {
                break;
            }
            letters.push(Letter {
                log,
                position: entry.position,
                envelope: generation.slice(entry, filling),
            });
            expected = entry.position + 1;
            left = left.saturating_sub(entry.len as usize);
            if letters.len() == count || left == 0 {
                break;
            }
        }
        if letters.is_empty() { Letters::InEngine } else { Letters::Here(letters) }
    }

    /// As [`Store::peek_letters`], from wherever the letters are. May block on the disk.
    pub(crate) fn read_letters(
        &self,
        log: LogId,
        from: u64,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<Letter>, StoreError> {
        loop {
            if let Letters::Here(letters) = self.peek_letters(log, from, count, bytes) {
                return Ok(letters);
            }
            let stamp = self.shared.admission().stamp;
            let first = self.first_waiting(log, from)?;
            let Some(first) = first else { return Ok(Vec::new()) };
            let stored = self.shared.read_engine(|engine| stored_letters(engine, log, first, count, bytes));
            let admission = self.shared.admission();
            if admission.stamp != stamp {
                continue;
            }
            let Some(cursor) =
                admission.mailboxes.get(&log.mailbox).map(|state| &state.lanes[usize::from(log.lane)])
            else {
                continue;
            };
            let mut letters = stored?;
            letters.retain(|letter| cursor.is_waiting(letter.position));
            let whole = letters.first().map(|letter| letter.position) == cursor.first_waiting(first);
            if whole || cursor.first_waiting(first) != Some(first) {
                return Ok(in_unbroken_order(letters, |position| cursor.first_waiting(position)));
            }
            let what = format!(
                "message {first} of mailbox {}, lane {} must be there and is not",
                log.mailbox, log.lane
            );
            return Err(StoreError::damaged(self.shared.place.engine_path(), what));
        }
    }

    fn first_waiting(&self, log: LogId, from: u64) -> Result<Option<u64>, StoreError> {
        self.load_mailbox(log.mailbox, None)?;
        let admission = self.shared.admission();
        let state = admission.mailboxes.get(&log.mailbox);
        Ok(state.and_then(|state| state.lanes[usize::from(log.lane)].first_waiting(from)))
    }

    /// The first mailbox id that was never given. May block on the disk.
    pub(crate) fn next_mailbox_id(&self) -> Result<MailboxId, StoreError> {
        let (from, to) = (keys::mailbox(0), keys::mailbox(MailboxId::MAX));
        let stored = self.shared.read_engine(|engine| Ok(engine.last(&from, &to)?))?.map(|(key, _)| key);
        let fresh = {
            let admission = self.shared.admission();
            let frozen = admission.frozen.as_ref().map(|frozen| &frozen.generation);
            [Some(&admission.active), frozen]
                .into_iter()
                .flatten()
                .filter_map(|generation| {
                    Some(generation.cells.range(from.clone()..=to.clone()).next_back()?.0.clone())
                })
                .max()
        };
        let last = stored.max(fresh).and_then(|key| u32_at(&key, 1));
        Ok(last.map_or(1, |last| last.saturating_add(1)))
    }
}

/// The start of `letters` that has no hole in it.
fn in_unbroken_order(letters: Vec<Letter>, next: impl Fn(u64) -> Option<u64>) -> Vec<Letter> {
    let mut expected = letters.first().map(|letter| letter.position);
    letters
        .into_iter()
        .take_while(|letter| {
            let here = expected == Some(letter.position);
            expected = next(letter.position + 1);
            here
        })
        .collect()
}

fn unsealed(engine: &dyn Engine, key: Vec<u8>, value: Vec<u8>) -> Result<(Vec<u8>, Arc<[u8]>), StoreError> {
    let value = sealed::unseal(engine, &key, value)?;
    Ok((key, Arc::from(value)))
}

fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

impl Shared {
    /// The overlay's part of a scan: overrides and tombstones up to the key returned, and the stamp. Bounded, so that
    /// the lock is not held for long.
    fn overlay_range(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> (BTreeMap<Vec<u8>, Option<Arc<[u8]>>>, Vec<u8>, u64) {
        let most = limit.saturating_add(64);
        let admission = self.admission();
        let frozen = admission.frozen.as_ref().map(|frozen| &frozen.generation);
        let mut found = BTreeMap::new();
        let mut end = to.to_vec();
        for generation in frozen.into_iter().chain([&admission.active]) {
            let range = generation.cells.range(from.to_vec()..to.to_vec());
            for (taken, (key, value)) in range.enumerate() {
                if taken == most {
                    end = end.min(key.clone());
                    break;
                }
                found.insert(key.clone(), value.clone());
            }
        }
        found.retain(|key, _| *key < end);
        (found, end, admission.stamp)
    }
}

/// Letters in the engine's pages from a position on, waiting or not.
fn stored_letters(
    engine: &dyn Engine,
    log: LogId,
    first: u64,
    count: usize,
    bytes: usize,
) -> Result<Vec<Letter>, StoreError> {
    const PAGES: usize = 8;
    let start = match engine.last(&keys::page(log, 0), &keys::page(log, first))? {
        Some((key, _)) => key,
        None => keys::page(log, first),
    };
    let end = successor(&keys::page(log, u64::MAX));
    let mut letters: Vec<Letter> = Vec::new();
    let (mut from, mut left) = (start, bytes);
    loop {
        let pages = engine.range(&from, &end, PAGES)?;
        let Some((last, _)) = pages.last() else { return Ok(letters) };
        from = successor(last);
        for (key, value) in pages {
            let page = Arc::new(sealed::unseal(engine, &key, value)?);
            for (position, range) in page_entries(&key, &page)? {
                // a checkpoint that was interrupted leaves pages that overlap; what they hold is the same
                let known = letters.last().is_some_and(|letter| letter.position >= position);
                if position < first || known {
                    continue;
                }
                left = left.saturating_sub(range.len());
                letters.push(Letter { log, position, envelope: Slice::new(page.clone(), range) });
                if letters.len() >= count || left == 0 {
                    return Ok(letters);
                }
            }
        }
    }
}

/// Positions and places of the entries of a page.
fn page_entries(key: &[u8], page: &[u8]) -> Result<Vec<(u64, std::ops::Range<usize>)>, StoreError> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < page.len() {
        let entry = u64_at(page, at).zip(u32_at(page, at + 8)).and_then(|(position, len)| {
            let start = at + 12;
            let end = start.checked_add(len as usize).filter(|end| *end <= page.len())?;
            Some((position, start..end))
        });
        let (position, range) = entry.ok_or_else(|| sealed::damaged(key, "is no page"))?;
        at = range.end;
        entries.push((position, range));
    }
    Ok(entries)
}
