//! Every key of the engine, in one place; `docs/format.md` has the same table. The first byte is the class, numbers
//! are big-endian so that byte order is the order of the thing.

/// Classes: the first byte of a key.
pub(crate) mod class {
    pub(crate) const META: u8 = 0x01;
    pub(crate) const NOTE: u8 = 0x02;
    pub(crate) const NAME: u8 = 0x10;
    pub(crate) const MAILBOX: u8 = 0x11;
    pub(crate) const REGION: u8 = 0x12;
    pub(crate) const CURSOR: u8 = 0x20;
    pub(crate) const PAGE: u8 = 0x21;
    pub(crate) const PAGE_FILE: u8 = 0x22;
    pub(crate) const CELL: u8 = 0x30;
    pub(crate) const ATTEMPTS: u8 = 0x31;
    pub(crate) const MARK: u8 = 0x32;
    pub(crate) const MARK_AGE: u8 = 0x33;
    pub(crate) const MAP: u8 = 0x34;
    pub(crate) const LIST: u8 = 0x35;
    pub(crate) const SUSPECT: u8 = 0x36;
    pub(crate) const SUPERVISOR: u8 = 0x37;
    pub(crate) const SCHEDULE: u8 = 0x40;
    pub(crate) const SCHEDULED: u8 = 0x41;
    pub(crate) const DEAD: u8 = 0x50;
    pub(crate) const SCHEMA: u8 = 0x60;
    pub(crate) const VIEW: u8 = 0x80;
    pub(crate) const READING: u8 = 0x81;
    pub(crate) const PATTERN: u8 = 0x82;
    pub(crate) const CHUNK: u8 = 0xF0;
}

/// How many priorities a mailbox has, each a log of its own.
pub(crate) const LANES: usize = 3;

/// A mailbox's interned id. Those of entities have the highest bit, so that what is kept of them can be found and judged
/// without their names.
pub(crate) type MailboxId = u32;

/// The first id of an entity's mailbox.
pub(crate) const FIRST_ENTITY: MailboxId = 1 << 31;

/// Whether the mailbox is an entity's: there may be millions of them.
pub(crate) fn is_entity(mailbox: MailboxId) -> bool {
    mailbox >= FIRST_ENTITY
}

/// The first id of a view.
pub(crate) const FIRST_VIEW: MailboxId = 1 << 30;

/// Whether the id is that of a view, whose entries lie in another log.
pub(crate) fn is_view(mailbox: MailboxId) -> bool {
    (FIRST_VIEW..FIRST_ENTITY).contains(&mailbox)
}

/// What stands between the region and the key in the name of an entity's mailbox; no other name has it.
pub(crate) const KEY_MARK: char = '#';

/// The region in the name of an entity's mailbox; none for other mailboxes.
pub(crate) fn region_of(name: &str) -> Option<&str> {
    name.split_once(KEY_MARK).map(|(region, _)| region)
}

/// One ordered log: a mailbox and a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct LogId {
    pub(crate) mailbox: MailboxId,
    pub(crate) lane: u8,
}

impl LogId {
    /// Whether what lies here is shown from another log.
    pub(crate) fn is_shown(self) -> bool {
        is_view(self.mailbox) && self.lane == super::view::LANE
    }
}

/// A key under construction.
#[derive(Default)]
struct Key(Vec<u8>);

impl Key {
    fn new(class: u8) -> Self {
        Key(vec![class])
    }

    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(value);
        self
    }

    fn log(self, log: LogId) -> Self {
        self.u32(log.mailbox).u8(log.lane)
    }
}

pub(crate) fn meta(name: &str) -> Vec<u8> {
    Key::new(class::META).bytes(name.as_bytes()).0
}

/// What is known of the store as a whole.
pub(crate) fn note(name: &str) -> Vec<u8> {
    Key::new(class::NOTE).bytes(name.as_bytes()).0
}

pub(crate) fn name(mailbox: &str) -> Vec<u8> {
    Key::new(class::NAME).bytes(mailbox.as_bytes()).0
}

pub(crate) fn mailbox(id: MailboxId) -> Vec<u8> {
    Key::new(class::MAILBOX).u32(id).0
}

pub(crate) fn region(name: &str) -> Vec<u8> {
    Key::new(class::REGION).bytes(name.as_bytes()).0
}

pub(crate) fn cursor(log: LogId) -> Vec<u8> {
    Key::new(class::CURSOR).log(log).0
}

/// The log of a cursor's key.
pub(crate) fn log_of_cursor(key: &[u8]) -> Option<LogId> {
    let mailbox = key.get(1..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
    Some(LogId { mailbox, lane: *key.get(5)? })
}

pub(crate) fn page(log: LogId, first: u64) -> Vec<u8> {
    Key::new(class::PAGE).log(log).u64(first).0
}

/// The log and the first position of a page's key.
pub(crate) fn log_of_page(key: &[u8]) -> Option<(LogId, u64)> {
    let first = key.get(6..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))?;
    Some((log_of_cursor(key)?, first))
}

/// What lives in a page file.
pub(crate) fn page_file(number: u64) -> Vec<u8> {
    Key::new(class::PAGE_FILE).u64(number).0
}

/// All of a mailbox's cells, or one cell, or one entry of a map cell.
pub(crate) fn cells(mailbox: MailboxId) -> Vec<u8> {
    Key::new(class::CELL).u32(mailbox).0
}

pub(crate) fn cell(mailbox: MailboxId, name: &str, entry: &[u8]) -> Vec<u8> {
    named(class::CELL, mailbox, name, entry)
}

/// An entry of a map cell, or with an empty `entry` what all of the map's keys begin with.
pub(crate) fn map_entry(mailbox: MailboxId, name: &str, entry: &[u8]) -> Vec<u8> {
    named(class::MAP, mailbox, name, entry)
}

/// An entry of a list cell, or with an empty `entry` the list's ends.
pub(crate) fn list_entry(mailbox: MailboxId, name: &str, entry: &[u8]) -> Vec<u8> {
    named(class::LIST, mailbox, name, entry)
}

fn named(class: u8, mailbox: MailboxId, name: &str, entry: &[u8]) -> Vec<u8> {
    // cell names are limited to 64 bytes where cells are used
    let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
    Key::new(class).u32(mailbox).u8(len).bytes(name.as_bytes()).bytes(entry).0
}

/// What a supervisor remembers of its children's failures.
pub(crate) fn supervisor(path: &str) -> Vec<u8> {
    Key::new(class::SUPERVISOR).bytes(path.as_bytes()).0
}

pub(crate) fn attempts(mailbox: MailboxId, id: [u8; 16]) -> Vec<u8> {
    Key::new(class::ATTEMPTS).u32(mailbox).bytes(&id).0
}

pub(crate) fn suspect(mailbox: MailboxId, id: [u8; 16]) -> Vec<u8> {
    Key::new(class::SUSPECT).u32(mailbox).bytes(&id).0
}

pub(crate) fn mark(mailbox: MailboxId, hash: [u8; 16]) -> Vec<u8> {
    Key::new(class::MARK).u32(mailbox).bytes(&hash).0
}

pub(crate) fn mark_age(mailbox: MailboxId, time_ms: u64, hash: [u8; 16]) -> Vec<u8> {
    Key::new(class::MARK_AGE).u32(mailbox).u64(time_ms).bytes(&hash).0
}

pub(crate) fn schedule(due_ms: u64, id: [u8; 16]) -> Vec<u8> {
    Key::new(class::SCHEDULE).u64(due_ms).bytes(&id).0
}

pub(crate) fn scheduled(id: [u8; 16]) -> Vec<u8> {
    Key::new(class::SCHEDULED).bytes(&id).0
}

pub(crate) fn dead(mailbox: MailboxId, time_ms: u64, id: [u8; 16]) -> Vec<u8> {
    Key::new(class::DEAD).u32(mailbox).u64(time_ms).bytes(&id).0
}

pub(crate) fn schema(kind: u8, name: &str, version: u32) -> Vec<u8> {
    Key::new(class::SCHEMA).u8(kind).bytes(name.as_bytes()).u8(0).u32(version).0
}

pub(crate) fn view(id: MailboxId) -> Vec<u8> {
    Key::new(class::VIEW).u32(id).0
}

/// All that a mailbox reads.
pub(crate) fn readings(reader: MailboxId) -> Vec<u8> {
    Key::new(class::READING).u32(reader).0
}

/// The view through which a mailbox reads a log.
pub(crate) fn reading(reader: MailboxId, of: LogId) -> Vec<u8> {
    Key::new(class::READING).u32(reader).log(of).0
}

/// All patterns of a mailbox.
pub(crate) fn patterns(reader: MailboxId) -> Vec<u8> {
    Key::new(class::PATTERN).u32(reader).0
}

/// What a mailbox reads of topics that are yet to be made.
pub(crate) fn pattern(reader: MailboxId, pattern: &str, event: &str) -> Vec<u8> {
    Key::new(class::PATTERN).u32(reader).bytes(pattern.as_bytes()).u8(0).bytes(event.as_bytes()).0
}

pub(crate) fn chunk(key: &[u8], index: u32) -> Vec<u8> {
    Key::new(class::CHUNK).bytes(key).u32(index).0
}

/// The first key after every key that starts with `prefix`.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 32]
}

/// Whether a commit may put or delete the key: the others are for the checkpoint alone, or no keys. The same is asked when a
/// batch is admitted and when it is replayed, so that nothing is written that is refused later.
pub(super) fn is_of_a_commit(key: &[u8]) -> bool {
    let checkpoint = [class::META, class::CURSOR, class::PAGE, class::PAGE_FILE, class::CHUNK];
    let is_one = |class| (class::META..class::CHUNK).contains(class) && !checkpoint.contains(class);
    key.first().is_some_and(is_one) || cfg!(steadfast_bug = "replay_what_the_checkpoint_writes")
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_the_things_they_name() {
        let log = LogId { mailbox: 1, lane: 1 };
        assert!(page(log, 255) < page(log, 256));
        assert_eq!(log_of_page(&page(log, 256)), Some((log, 256)));
        assert!(page(log, u64::MAX) < page(LogId { mailbox: 2, lane: 0 }, 0));
        assert!(schedule(9, [255; 16]) < schedule(10, [0; 16]));
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_its_keys_and_before_the_next() {
        let end = after_prefix(&cells(7));
        assert!(cell(7, "zzz", &[255; 8]) < end);
        assert!(cells(8) >= end);
        assert_eq!(after_prefix(&[1, 255]), vec![2]);
    }
}
