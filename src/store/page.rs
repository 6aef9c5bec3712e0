//! A page: letters of one log that a checkpoint put together. A small one is the value under its key; a larger one is a
//! record in a page file, and the value is the link to it.
//!
//! # Invariants
//! - The checksum of a record covers the file and the place in it, the log, the first position and every byte: a record
//!   that lies elsewhere, or belongs elsewhere, does not verify.
//! - A link carries that checksum too, so a whole record that is not the one meant does not verify either.

use std::ops::Range;

use super::fault::StoreError;
use super::group::{u32_at, u64_at};
use super::keys::{self, LogId};
use super::sealed;
use super::segment::FORMAT;

/// Letters of one log are put together up to this many bytes, with what stands between them. Large enough that an index record
/// costs nothing against its page and that reading on in a log is one read for a hundred letters; small enough that
/// who wants one letter does not read and hold much more.
pub(super) const PAGE: usize = 32 * 1024;
/// Up to this many bytes a page lies in the engine: a million logs with a letter each are cheapest there, and such a leaf
/// (16 values) is rewritten as a few tens of KiB.
pub(super) const INLINE: usize = 2 * 1024;

/// Bytes at the start of a page file.
pub(super) const FILE_HEADER: usize = 40;
/// Bytes of a record before its entries.
pub(super) const HEADER: usize = 21;
/// Bytes of an entry before its envelope.
pub(super) const ENTRY: usize = 12;

const MAGIC: [u8; 8] = *b"SFPAGES1";
const TAG_INLINE: u8 = 0;
const TAG_LINK: u8 = 1;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) file: u64,
    pub(super) offset: u32,
    /// Of the whole record.
    pub(super) len: u32,
    pub(super) crc: u32,
}

impl Link {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![TAG_LINK];
        value.extend_from_slice(&self.file.to_be_bytes());
        for number in [self.offset, self.len, self.crc] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        value
    }

    /// The link in a page's value; none when the page lies in the value itself, or the value is none.
    pub(super) fn decode(value: &[u8]) -> Option<Link> {
        let whole = value.len() == 21 && value[0] == TAG_LINK;
        whole.then_some(())?;
        let [offset, len, crc] = [u32_at(value, 9)?, u32_at(value, 13)?, u32_at(value, 17)?];
        Some(Link { file: u64_at(value, 1)?, offset, len, crc })
    }

    pub(super) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }
}

/// What the value of a page says.
pub(super) enum Stored {
    /// The entries follow its first byte.
    Inline,
    Link(Link),
}

impl Stored {
    pub(super) fn of(key: &[u8], value: &[u8]) -> Result<Stored, StoreError> {
        match value.first() {
            Some(&TAG_INLINE) => Ok(Stored::Inline),
            _ => Link::decode(value).map(Stored::Link).ok_or_else(|| sealed::damaged(key, "is no page")),
        }
    }
}

/// Where the entries begin in the value of a page that lies in the engine.
pub(super) const INLINE_START: usize = 1;

/// A buffer for the value of a page that is to lie in the engine: entries are added, and it is whole.
pub(super) fn inline() -> Vec<u8> {
    vec![TAG_INLINE]
}

/// A buffer for a record of `len` bytes of entries, which are added before it is closed.
pub(super) fn record(len: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + len);
    record.resize(HEADER, 0);
    record
}

pub(super) fn add_entry(page: &mut Vec<u8>, position: u64, envelope: &[u8]) {
    page.extend_from_slice(&position.to_be_bytes());
    page.extend_from_slice(&(envelope.len() as u32).to_be_bytes());
    page.extend_from_slice(envelope);
}

/// What stands before the entries of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) crc: u32,
    /// Of the whole record.
    pub(super) len: u32,
    pub(super) log: LogId,
    pub(super) first: u64,
}

impl RecordHeader {
    /// As found, verified or not; none where no record can be.
    pub(super) fn read(bytes: &[u8]) -> Option<RecordHeader> {
        let len = u32_at(bytes, 4).filter(|len| *len as usize > HEADER)?;
        let lane = bytes.get(12).copied().filter(|lane| usize::from(*lane) < keys::LANES)?;
        let log = LogId { mailbox: u32_at(bytes, 8)?, lane };
        Some(RecordHeader { crc: u32_at(bytes, 0)?, len, log, first: u64_at(bytes, 13)? })
    }
}

/// Fills in the header of a record that is to lie at `offset` of a file, and says where it will be found.
pub(super) fn close_record(record: &mut [u8], log: LogId, first: u64, file: u64, offset: u32) -> Link {
    let len = record.len() as u32;
    record[4..8].copy_from_slice(&len.to_be_bytes());
    record[8..12].copy_from_slice(&log.mailbox.to_be_bytes());
    record[12] = log.lane;
    record[13..HEADER].copy_from_slice(&first.to_be_bytes());
    let crc = crc(record, file, offset);
    record[0..4].copy_from_slice(&crc.to_be_bytes());
    Link { file, offset, len, crc }
}

/// Whether these bytes are the record that the link and the key mean.
pub(super) fn is_record(record: &[u8], key: &[u8], link: &Link) -> bool {
    let belongs = |header: RecordHeader| {
        header.crc == link.crc && header.len == link.len && keys::page(header.log, header.first) == key
    };
    record.len() == link.len as usize
        && RecordHeader::read(record).is_some_and(belongs)
        && (crc(record, link.file, link.offset) == link.crc
            || cfg!(steadfast_bug = "skip-the-checksum-of-a-page"))
}

fn crc(record: &[u8], file: u64, offset: u32) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&file.to_be_bytes());
    crc.update(&offset.to_be_bytes());
    crc.update(&record[4..]);
    crc.finalize()
}

/// Positions and places of the entries in a page, which begin at `start`.
pub(super) fn entries(page: &[u8], start: usize) -> Option<Vec<(u64, Range<usize>)>> {
    let mut entries = Vec::new();
    let mut at = start;
    while at < page.len() {
        let (position, len) = u64_at(page, at).zip(u32_at(page, at + 8))?;
        let start = at + ENTRY;
        let end = start.checked_add(len as usize).filter(|end| *end <= page.len())?;
        entries.push((position, start..end));
        at = end;
    }
    Some(entries)
}

/// The start of a page file.
pub(super) fn file_header(store: &[u8; 16], number: u64) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[0..8].copy_from_slice(&MAGIC);
    header[12..16].copy_from_slice(&FORMAT.to_be_bytes());
    header[16..32].copy_from_slice(store);
    header[32..40].copy_from_slice(&number.to_be_bytes());
    let crc = crc32fast::hash(&header[12..]);
    header[8..12].copy_from_slice(&crc.to_be_bytes());
    header
}

/// What is wrong with the start of a page file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged,
    Foreign,
    Newer(u32),
}

pub(super) fn check_file_header(header: &[u8], store: &[u8; 16], number: u64) -> Result<(), HeaderFault> {
    let whole = header.get(0..8) == Some(&MAGIC)
        && header.get(12..FILE_HEADER).map(crc32fast::hash) == u32_at(header, 8);
    match u32_at(header, 12) {
        Some(found) if whole && found > FORMAT => Err(HeaderFault::Newer(found)),
        Some(_) if whole && header[16..32] != *store => Err(HeaderFault::Foreign),
        Some(_) if whole && u64_at(header, 32) == Some(number) => Ok(()),
        _ => Err(HeaderFault::Damaged),
    }
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;

    const LOG: LogId = LogId { mailbox: 7, lane: 2 };

    fn closed() -> (Vec<u8>, Link) {
        let mut page = record(100);
        add_entry(&mut page, 5, b"one");
        add_entry(&mut page, 9, b"");
        add_entry(&mut page, 10, b"three");
        let link = close_record(&mut page, LOG, 5, 3, 40);
        (page, link)
    }

    #[test]
    fn a_record_is_the_one_its_key_and_its_link_mean_and_no_other() {
        let (page, link) = closed();
        let key = keys::page(LOG, 5);
        assert!(is_record(&page, &key, &link));
        assert!(!is_record(&page, &keys::page(LOG, 6), &link));
        for other in [
            Link { file: 4, ..link },
            Link { offset: 41, ..link },
            Link { crc: !link.crc, ..link },
            Link { len: link.len - 1, ..link },
        ] {
            assert!(!is_record(&page, &key, &other), "{other:?}");
        }
        for at in 0..page.len() {
            let mut changed = page.clone();
            changed[at] ^= 1;
            assert!(!is_record(&changed, &key, &link), "byte {at}");
        }
    }

    #[test]
    fn entries_come_back_as_they_were_added_and_none_reaches_beyond_the_page() {
        let (page, _) = closed();
        let found: Vec<_> = entries(&page, HEADER)
            .expect("is whole")
            .into_iter()
            .map(|(position, range)| (position, page[range].to_vec()))
            .collect();
        assert_eq!(found, [(5, b"one".to_vec()), (9, Vec::new()), (10, b"three".to_vec())]);
        assert!(entries(&page[..page.len() - 1], HEADER).is_none());
    }

    #[test]
    fn a_link_is_what_was_encoded_and_a_page_is_no_link() {
        let (_, link) = closed();
        assert_eq!(Link::decode(&link.encode()), Some(link));
        let mut value = inline();
        add_entry(&mut value, 1, b"12345678");
        assert_eq!(value.len(), link.encode().len());
        assert_eq!(Link::decode(&value), None);
        assert!(matches!(Stored::of(&[0x21], &value), Ok(Stored::Inline)));
        assert!(Stored::of(&[0x21], &link.encode()[..20]).is_err());
    }

    #[test]
    fn the_start_of_a_file_tells_damage_a_foreign_store_and_a_newer_format_apart() {
        let header = file_header(&[1; 16], 9);
        assert_eq!(check_file_header(&header, &[1; 16], 9), Ok(()));
        assert_eq!(check_file_header(&header, &[2; 16], 9), Err(HeaderFault::Foreign));
        assert_eq!(check_file_header(&header, &[1; 16], 8), Err(HeaderFault::Damaged));
        for at in 0..FILE_HEADER {
            let mut changed = header;
            changed[at] ^= 1;
            assert_eq!(check_file_header(&changed, &[1; 16], 9), Err(HeaderFault::Damaged), "byte {at}");
        }
        let mut newer = header;
        newer[12..16].copy_from_slice(&(FORMAT + 1).to_be_bytes());
        let crc = crc32fast::hash(&newer[12..]);
        newer[8..12].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(check_file_header(&newer, &[1; 16], 9), Err(HeaderFault::Newer(FORMAT + 1)));
    }
}
