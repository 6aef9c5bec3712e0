//! The roll: which mailboxes had a worker when the process ended. A file of fixed slots beside the journal, one for each
//! running worker, written when it starts and emptied when it ends. What the end of a process leaves there says where its
//! messages in flight were.
//!
//! # Invariants
//! - It is a hint, never a reason to refuse an open: what does not verify is passed over, and what is missing makes fewer
//!   suspects, not wrong ones.
//! - It is not synced: the end of a process leaves the page cache as it is, and after a power cut nobody is suspect for what
//!   the power did.
//! - A start costs one write of 16 bytes, a turn nothing.

use std::io;
use std::sync::{Arc, PoisonError};

use super::group::u32_at;
use super::keys::MailboxId;
use super::last_words::{self, LastWords};
use super::medium::{Medium, MediumFile};
use super::{Shared, Store};

pub(super) const NAME: &str = "running";
const MAGIC: [u8; 8] = *b"SFROLL01";
pub(super) const SLOT: usize = 16;
/// Beyond this many slots nothing is read: a damaged length must not fill the memory.
const MOST_READ: u64 = 1 << 20;

/// A mailbox on the roll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OnRoll {
    pub(crate) mailbox: MailboxId,
    /// How many letters of one priority it handles at once.
    pub(crate) workers: u32,
}

/// What the life before left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LastLife {
    /// There was one, and it did not close the store.
    pub(crate) unclean: bool,
    /// It ended itself: `abort`, a stack overflow, a panic within a panic. Without this nothing is known of why it ended.
    pub(crate) aborted: bool,
    /// Who ran then.
    pub(crate) roll: Vec<OnRoll>,
}

/// See the module's head.
pub(super) struct Roll {
    file: Arc<dyn MediumFile>,
    free: Vec<u32>,
    next: u32,
}

impl Roll {
    fn begin(medium: &dyn Medium) -> io::Result<Self> {
        match medium.remove(NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = medium.create(NAME)?;
        file.write_at(0, &header())?;
        Ok(Roll { file, free: Vec::new(), next: 1 })
    }

    fn sign_in(&mut self, entry: OnRoll) -> io::Result<u32> {
        let slot = self.free.pop().unwrap_or(self.next);
        self.next = self.next.max(slot + 1);
        let written = self.file.write_at(u64::from(slot) * SLOT as u64, &encode(slot, entry));
        if written.is_err() {
            self.free.push(slot);
        }
        written.map(|()| slot)
    }

    fn sign_out(&mut self, slot: u32) {
        // left there, it makes a suspect that did nothing, and is handled like any other message
        let _ = self.file.write_at(u64::from(slot) * SLOT as u64, &[0; SLOT]);
        self.free.push(slot);
    }
}

pub(super) fn header() -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    bytes[..8].copy_from_slice(&MAGIC);
    seal(&mut bytes);
    bytes
}

/// The slot's own number is in it, so that one that was written elsewhere does not count.
pub(super) fn encode(slot: u32, entry: OnRoll) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    bytes[..4].copy_from_slice(&entry.mailbox.to_be_bytes());
    bytes[4..8].copy_from_slice(&entry.workers.to_be_bytes());
    bytes[8..12].copy_from_slice(&slot.to_be_bytes());
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8; SLOT]) {
    let crc = crc32fast::hash(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_be_bytes());
}

fn decode(slot: u32, bytes: &[u8]) -> Option<OnRoll> {
    let whole = u32_at(bytes, 12)? == crc32fast::hash(&bytes[..12]) && u32_at(bytes, 8)? == slot;
    let entry = OnRoll { mailbox: u32_at(bytes, 0)?, workers: u32_at(bytes, 4)? };
    whole.then_some(entry)
}

/// Who is on the roll, and how many slots could not be read; `None` when there is none.
pub(super) fn read(medium: &dyn Medium) -> io::Result<Option<(Vec<OnRoll>, usize)>> {
    let file = match medium.open(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let slots = (file.len()? / SLOT as u64).min(MOST_READ);
    let mut bytes = vec![0; slots as usize * SLOT];
    file.read_at(0, &mut bytes)?;
    let used = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
    let (mut roll, mut damaged) = (Vec::new(), 0);
    for (slot, bytes) in bytes.chunks_exact(SLOT).enumerate().filter(|(_, bytes)| used(bytes)) {
        match slot {
            0 => damaged += usize::from(bytes != header()),
            slot => match decode(slot as u32, bytes) {
                Some(entry) => roll.push(entry),
                None => damaged += 1,
            },
        }
    }
    roll.sort_unstable();
    roll.dedup_by_key(|entry| entry.mailbox);
    Ok(Some((roll, damaged)))
}

/// A worker's place on the roll, given back when it is dropped.
pub(crate) struct SignedIn {
    shared: Arc<Shared>,
    slot: u32,
}

impl Drop for SignedIn {
    fn drop(&mut self) {
        let mut life = self.shared.life.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(roll) = &mut life.roll {
            roll.sign_out(self.slot);
        }
    }
}

/// What a store keeps for those who come after an unclean end.
#[derive(Default)]
pub(super) struct LifeSigns {
    roll: Option<Roll>,
    words: Option<LastWords>,
}

impl Store {
    /// What the life before left behind. To be asked before [`Store::begin_life`], which throws it away.
    pub(crate) fn last_life(&self) -> LastLife {
        let medium = &*self.shared.place.medium;
        let (roll, damaged) = match read(medium) {
            Ok(Some(read)) => read,
            // a new store, or one whose last process ended before it began to work
            Ok(None) => return LastLife::default(),
            Err(error) => {
                tracing::warn!(%error, "the file `running` cannot be read: it is not known what was in flight");
                (Vec::new(), 0)
            }
        };
        if damaged > 0 {
            tracing::warn!(
                damaged,
                "entries of the file `running` are damaged: some of what was in flight is not known"
            );
        }
        match self.shared.closed_cleanly {
            true => LastLife::default(),
            false => LastLife { unclean: true, aborted: last_words::were_said(medium), roll },
        }
    }

    /// Begins a new roll, and with `watch` has the process leave a word when it ends itself. Neither is needed to work: what
    /// cannot be done is logged.
    pub(crate) fn begin_life(&self, watch: bool) {
        let medium = &*self.shared.place.medium;
        let roll = Roll::begin(medium);
        let roll = roll.inspect_err(|error| {
            tracing::warn!(%error, "the file `running` cannot be written: after a crash it will not be known what was in flight");
        });
        let words = last_words::forget(medium).and_then(|()| match &self.shared.place.last_words {
            Some(path) if watch => LastWords::watch(path).map(Some),
            _ => Ok(None),
        });
        let words = words.inspect_err(|error| {
            tracing::warn!(%error, "the file `last-words` cannot be written: a message that aborts the process will not be found");
        });
        let mut life = self.shared.life.lock().unwrap_or_else(PoisonError::into_inner);
        *life = LifeSigns { roll: roll.ok(), words: words.ok().flatten() };
    }

    /// Puts a worker on the roll. None when there is no roll: it works without.
    pub(crate) fn sign_in(&self, entry: OnRoll) -> Option<SignedIn> {
        let mut life = self.shared.life.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = life.roll.as_mut()?.sign_in(entry).ok()?;
        Some(SignedIn { shared: self.shared.clone(), slot })
    }

    /// To be called several times a second: has a process that was told from outside to abort do so, with no word left.
    pub(crate) fn heed_outside_abort(&self) {
        let life = self.shared.life.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = &life.words {
            words.heed_outside();
        }
    }
}

impl Shared {
    /// From here on the process says nothing when it ends.
    pub(super) fn fall_silent(&self) {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = LifeSigns::default();
    }

    /// After a clean close: nobody is in flight, and nothing has to be explained.
    pub(super) fn end_life(&self) {
        self.fall_silent();
        // the manifest says that the close was clean: what is left is not looked at
        let _ = self.place.medium.remove(NAME);
        let _ = self.place.medium.remove(last_words::NAME);
    }
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::super::SimulatedDisk;
    use super::*;

    fn on(mailbox: MailboxId) -> OnRoll {
        OnRoll { mailbox, workers: 1 }
    }

    fn mailboxes(medium: &dyn Medium) -> Vec<MailboxId> {
        read(medium).unwrap().unwrap().0.iter().map(|entry| entry.mailbox).collect()
    }

    #[test]
    fn who_has_not_signed_out_is_on_the_roll_and_slots_are_used_again() {
        let medium = SimulatedDisk::new(1).medium();
        assert!(read(&*medium).unwrap().is_none());
        let mut roll = Roll::begin(&*medium).unwrap();
        let slots: Vec<_> = (1..=3).map(|mailbox| roll.sign_in(on(mailbox)).unwrap()).collect();
        roll.sign_out(slots[1]);
        assert_eq!(mailboxes(&*medium), [1, 3]);
        assert_eq!(roll.sign_in(on(9)).unwrap(), slots[1]);
        assert_eq!(mailboxes(&*medium), [1, 3, 9]);
        Roll::begin(&*medium).unwrap();
        assert!(mailboxes(&*medium).is_empty());
    }

    #[test]
    fn damage_to_the_roll_costs_the_slot_it_hit_and_nothing_else() {
        let disk = SimulatedDisk::new(1);
        let medium = disk.medium();
        let mut roll = Roll::begin(&*medium).unwrap();
        for mailbox in 1..=3 {
            roll.sign_in(on(mailbox)).unwrap();
        }
        medium.open(NAME).unwrap().sync().unwrap();
        for at in SLOT..4 * SLOT {
            let hurt = disk.fork();
            hurt.damage(NAME, |bytes| bytes[at] ^= 0x40).unwrap();
            let left: Vec<_> = (1..=3).filter(|slot| *slot != (at / SLOT) as u32).collect();
            assert_eq!(mailboxes(&*hurt.medium()), left);
        }
        disk.damage(NAME, |bytes| bytes.truncate(3 * SLOT + 5)).unwrap();
        assert_eq!(mailboxes(&*disk.medium()), [1, 2]);
    }
}
