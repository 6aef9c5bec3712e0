//! Reading: the overlay under the lock, the engine and the page files outside it. What they said holds while the count of finished
//! checkpoints stands; when it moved meanwhile, the read is done again.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use super::admission::Admission;
use super::batch::Seen;
use super::engine::Engine;
use super::fault::StoreError;
use super::group::u32_at;
use super::keys::{self, FIRST_ENTITY, FIRST_VIEW, LogId, MailboxId};
use super::overlay::{Generation, Slice};
use super::page::{self, Stored};
use super::page_files::PageFiles;
use super::view::Waiting;
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

/// What one look at a log under the lock says.
enum Look {
    /// Waiting letters in order; none when nothing waits from there on.
    Here(Vec<Letter>),
    /// The first that waits lies in the engine, in the log `source`, as long as the stamp stands and it waits.
    InEngine {
        source: LogId,
        first: u64,
        stamp: u64,
    },
    NotLoaded,
}

impl Admission {
    /// Where the first letter is and what of those behind it is in memory, in one look: between two, it may be settled, and the
    /// next may lie elsewhere.
    fn look(&self, log: LogId, from: u64, count: usize, bytes: usize) -> Look {
        let Some(waiting) = self.waiting_in(log) else { return Look::NotLoaded };
        let first = waiting.first(from);
        let (Some(first), source) = (first, self.shown(log).0) else { return Look::Here(Vec::new()) };
        let frozen = self.frozen.as_ref().map(|frozen| &frozen.generation);
        let from_frozen =
            frozen.into_iter().flat_map(|frozen| frozen.entries(source, first).map(move |e| (frozen, e)));
        let from_active = self.active.entries(source, first).map(|entry| (&self.active, entry));
        let mut letters = Vec::new();
        let (mut expected, mut left) = (first, bytes);
        for (generation, entry) in from_frozen.chain(from_active) {
            match waiting.first(expected) {
                Some(next) if next == entry.position => {}
                // settled here, not in the log that is shown
                Some(next) if next > entry.position => continue,
                _ => break,
            }
            let envelope = generation.slice(entry, &self.filling.bytes);
            letters.push(Letter { log, position: entry.position, envelope });
            expected = entry.position + 1;
            left = left.saturating_sub(entry.len as usize);
            if letters.len() == count || left == 0 {
                break;
            }
        }
        if letters.is_empty() {
            return Look::InEngine { source, first, stamp: self.stamp };
        }
        Look::Here(letters)
    }
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
        match self.shared.admission().look(log, from, count, bytes) {
            Look::Here(letters) => Letters::Here(letters),
            Look::InEngine { .. } | Look::NotLoaded => Letters::InEngine,
        }
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
            let look = self.shared.admission().look(log, from, count, bytes);
            let (source, first, stamp) = match look {
                Look::Here(letters) => return Ok(letters),
                Look::InEngine { source, first, stamp } => (source, first, stamp),
                Look::NotLoaded => {
                    self.load_mailbox(log.mailbox, None)?;
                    continue;
                }
            };
            let stored = self.shared.read_engine(|engine| {
                stored_letters(engine, &self.shared.pages, source, first, count, bytes)
            });
            let admission = self.shared.admission();
            if admission.stamp != stamp {
                continue;
            }
            // settled or trimmed meanwhile: what is the first now may lie in memory
            let Some(waiting) = admission.waiting_in(log) else { continue };
            let is_gone = waiting.first(first) != Some(first);
            if is_gone && !cfg!(steadfast_bug = "trust_the_first_look") {
                continue;
            }
            let letters = in_unbroken_order(log, stored?, first, &waiting);
            if !letters.is_empty() {
                return Ok(letters);
            }
            let what = format!(
                "message {first} of mailbox {}, lane {} must be there and is not",
                log.mailbox, log.lane
            );
            return Err(StoreError::damaged(self.shared.place.engine_path(), what));
        }
    }

    /// A mailbox id that was never given. May block on the disk.
    pub(crate) fn new_mailbox_id(&self, entity: bool) -> Result<MailboxId, StoreError> {
        self.new_id(if entity { IdKind::Entity } else { IdKind::Actor })
    }

    /// A view's id that was never given. May block on the disk.
    pub(crate) fn new_view_id(&self) -> Result<MailboxId, StoreError> {
        self.new_id(IdKind::View)
    }

    fn new_id(&self, kind: IdKind) -> Result<MailboxId, StoreError> {
        let mut next = self.shared.next_ids.lock().unwrap_or_else(PoisonError::into_inner);
        let next = &mut next[kind as usize];
        let id = match *next {
            Some(id) => id,
            None => self.first_free_id(kind)?,
        };
        if id >= kind.range().1 {
            return Err(StoreError::value("every id of a mailbox has been given"));
        }
        *next = Some(id + 1);
        Ok(id)
    }

    /// The first id above all that are stored.
    fn first_free_id(&self, kind: IdKind) -> Result<MailboxId, StoreError> {
        let (first, last) = kind.range();
        let key = if matches!(kind, IdKind::View) { keys::view } else { keys::mailbox };
        let (from, to) = (key(first), key(last));
        loop {
            let stamp = self.shared.admission().stamp;
            let stored = self.shared.read_engine(|engine| Ok(engine.last(&from, &to)?))?.map(|(key, _)| key);
            let admission = self.shared.admission();
            if admission.stamp != stamp {
                // what was in the overlay before may be in neither look
                continue;
            }
            let frozen = admission.frozen.as_ref().map(|frozen| &frozen.generation);
            let last_in = |generation: &Generation| {
                Some(generation.cells.range(from.clone()..=to.clone()).next_back()?.0.clone())
            };
            let fresh = [Some(&admission.active), frozen].into_iter().flatten().filter_map(last_in).max();
            let last = stored.max(fresh).and_then(|key| u32_at(&key, 1));
            return Ok(last.map_or(first, |last| last.saturating_add(1)));
        }
    }
}

/// Whose id it is; each kind has a range of its own.
#[derive(Debug, Clone, Copy)]
enum IdKind {
    Actor,
    View,
    Entity,
}

impl IdKind {
    /// The first id, and the last, which is never given.
    fn range(self) -> (MailboxId, MailboxId) {
        match self {
            IdKind::Actor => (1, FIRST_VIEW - 1),
            IdKind::View => (FIRST_VIEW, FIRST_ENTITY - 1),
            IdKind::Entity => (FIRST_ENTITY, MailboxId::MAX),
        }
    }
}

/// Of the letters of the log that `log` shows, those that wait there, up to the first that is missing.
fn in_unbroken_order(log: LogId, letters: Vec<Letter>, first: u64, waiting: &Waiting<'_>) -> Vec<Letter> {
    let mut expected = Some(first);
    let mut unbroken = Vec::with_capacity(letters.len());
    for letter in letters {
        let Some(position) = expected else { break };
        if letter.position > position {
            break;
        }
        if letter.position == position {
            expected = waiting.first(position + 1);
            unbroken.push(Letter { log, ..letter });
        }
    }
    unbroken
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

/// Letters in stored pages from a position on, waiting or not.
fn stored_letters(
    engine: &dyn Engine,
    files: &PageFiles,
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
            let (page, start) = open_page(engine, files, &key, value)?;
            let entries = page::entries(&page, start).ok_or_else(|| sealed::damaged(&key, "is no page"))?;
            for (position, range) in entries {
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

/// A page from wherever it lies, and where in it the entries begin.
fn open_page(
    engine: &dyn Engine,
    files: &PageFiles,
    key: &[u8],
    sealed: Vec<u8>,
) -> Result<(Arc<Vec<u8>>, usize), StoreError> {
    let value = sealed::unseal(engine, key, sealed)?;
    match Stored::of(key, &value)? {
        Stored::Inline => Ok((Arc::new(value), page::INLINE_START)),
        Stored::Link(link) => Ok((files.read(key, &link)?, page::HEADER)),
    }
}
