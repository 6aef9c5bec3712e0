//! What is sent, as pure functions of a seed and of the message's key: whoever knows the key knows where it goes, what it
//! carries and what must become of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use steadfast::{System, SystemBuilder};

pub(crate) const ACCOUNTS: u64 = 4;
pub(crate) const START: i64 = 1_000_000;
/// How often a handler may fail.
pub(crate) const ATTEMPTS: u32 = 4;
/// The longest delay of anything.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_millis(200);
/// From this life on, those run who join late.
pub(crate) const LATE: u64 = 3;
/// How many events a topic keeps at least.
pub(crate) const KEPT: u64 = 20_000;
pub(crate) const TOPICS: [&str; 2] = [MOVED, NEWS];
/// Published in turns: one event for each transfer.
pub(crate) const MOVED: &str = "moved";
/// Published from outside.
pub(crate) const NEWS: &str = "news";

/// Those who send. Each counts its own messages.
pub(crate) const AWAITED: [u64; 2] = [0, 1];
pub(crate) const SUBMITTED: [u64; 2] = [2, 3];
pub(crate) const TOGETHER: u64 = 4;
pub(crate) const DELAYED: u64 = 5;
pub(crate) const RESENT: u64 = 6;
pub(crate) const EXPIRING: u64 = 7;
/// Sends when nobody listens any more, so that what was acknowledged is not the end of the journal.
pub(crate) const UNHEARD: u64 = 8;
pub(crate) const PUBLISHERS: [u64; 2] = [9, 10];
pub(crate) const SENDERS: [u64; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

/// A message's key: the life it was sent in, its sender, and the sender's count in that life.
pub(crate) fn key(life: u64, sender: u64, number: u64) -> u64 {
    life << 40 | sender << 32 | number
}

pub(crate) fn life(key: u64) -> u64 {
    key >> 40
}

pub(crate) fn sender(key: u64) -> u64 {
    key >> 32 & 0xff
}

pub(crate) fn number(key: u64) -> u64 {
    key & 0xffff_ffff
}

pub(crate) fn is_event(key: u64) -> bool {
    PUBLISHERS.contains(&sender(key))
}

/// Whether the messages of this one must be handled in the order of their numbers.
pub(crate) fn is_ordered(key: u64) -> bool {
    ![DELAYED, RESENT].contains(&sender(key))
}

/// Chance: the same for the same arguments.
pub(crate) fn chance(seed: u64, of: impl Hash, below: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, of).hash(&mut hasher);
    hasher.finish() % below.max(1)
}

/// The account that a transfer is sent to.
pub(crate) fn from(key: u64) -> u64 {
    chance(1, key, ACCOUNTS)
}

/// The account that it moves money to.
pub(crate) fn to(key: u64) -> u64 {
    (from(key) + 1 + chance(2, key, ACCOUNTS - 1)) % ACCOUNTS
}

pub(crate) fn amount(key: u64) -> i64 {
    1 + chance(3, key, 50) as i64
}

/// Whether its handler always fails, and it must end among the dead letters.
pub(crate) fn is_doomed(key: u64) -> bool {
    chance(4, key, 24) == 0
}

/// Whether one that is doomed is not tried again.
pub(crate) fn is_hopeless(key: u64) -> bool {
    chance(22, key, 2) == 0
}

/// Whether a message that expires does so late enough that it never comes to it.
pub(crate) fn is_patient(key: u64) -> bool {
    chance(9, key, 2) == 0
}

pub(crate) fn is_large(key: u64) -> bool {
    chance(5, key, 8) == 0
}

/// One of eight has 3 to 23 KiB.
pub(crate) fn body(key: u64) -> Vec<u8> {
    let len = if is_large(key) { 3_000 + chance(6, key, 20_000) } else { 20 + chance(7, key, 200) };
    let mix = chance(8, key, u64::MAX);
    (0..len).map(|at| (mix >> (at % 56)) as u8).collect()
}

/// Small, so that segments are filled and checkpoints made all the time.
pub(crate) fn builder() -> SystemBuilder {
    let builder = System::builder().max_message(48 << 10).journal_segment(256 << 10).overlay(512 << 10);
    builder.ballast(0).mark_every(Duration::from_millis(50))
}
