//! A plain log, and the ceiling: records with a checksum, appended to segments that are pre-written and used again, one write and
//! one `fdatasync` for all who wait. No mailboxes, no state, no checkpoint, no queue: what any durable runtime must do at least.
//!
//! # Invariants
//! - A record is durable when the commit of its group returned.
//! - Old bytes behind the end of a segment that is used again are not taken for records: a checksum covers the record's number.
//! - The newest records of [`SEGMENTS`] - 1 segments at least can be read back after a crash.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::group::{Group, Log, Ticket};

const SEGMENT: usize = 16 << 20;
/// How many there are. The oldest is written over.
const SEGMENTS: u64 = 4;
const MAGIC: &[u8; 8] = b"RAWLOG01";
/// Magic, segment number, number of the first record, checksum.
const HEADER: usize = 28;
/// Length, checksum.
const RECORD: usize = 8;

/// A log that takes records from any number of tasks.
pub struct RawLog(Group<Segments>);

impl RawLog {
    /// Makes and pre-writes its segments in an empty directory.
    ///
    /// # Errors
    /// Of the disk.
    pub fn start(directory: &Path) -> io::Result<Self> {
        Ok(RawLog(Group::start(Segments::make(directory)?)?))
    }

    /// How often it was synced.
    pub fn syncs(&self) -> u64 {
        self.0.commits()
    }

    /// Appends a record, written by `fill` into the group in place. The ticket is ready once it is durable.
    pub fn append(&self, fill: impl FnOnce(&mut Vec<u8>)) -> Ticket {
        self.0.add(|records| records.push(fill))
    }
}

/// Records of one group, as they will lie on disk, but for the numbers.
#[derive(Default)]
pub struct Records {
    bytes: Vec<u8>,
    /// Where each record starts.
    starts: Vec<u32>,
}

impl Records {
    fn push(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; RECORD]);
        fill(&mut self.bytes);
        let len = (self.bytes.len() - start - RECORD) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_le_bytes());
        self.starts.push(start as u32);
    }

    /// Gives the records their numbers and checksums.
    fn seal(&mut self, first: u64) {
        let mut end = self.bytes.len();
        for (index, start) in self.starts.iter().enumerate().rev() {
            let start = *start as usize;
            let sum = checksum(first + index as u64, &self.bytes[start + RECORD..end]);
            self.bytes[start + 4..start + RECORD].copy_from_slice(&sum.to_le_bytes());
            end = start;
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }
}

/// A record at the wrong place is not one: its number belongs to it.
fn checksum(number: u64, payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(payload);
    sum.finalize()
}

/// The files, and where the next group goes.
pub struct Segments {
    files: Vec<File>,
    /// Counts segments, over all uses of the files.
    active: u64,
    offset: usize,
    next: u64,
}

impl Segments {
    fn make(directory: &Path) -> io::Result<Self> {
        let zeros = vec![0; SEGMENT];
        let file = |number| {
            let path = directory.join(format!("{number}.log"));
            let file = OpenOptions::new().create_new(true).read(true).write(true).open(path)?;
            file.write_all_at(&zeros, 0)?;
            file.sync_all()?;
            Ok(file)
        };
        let files = (0..SEGMENTS).map(file).collect::<io::Result<_>>()?;
        File::open(directory)?.sync_all()?;
        let mut segments = Segments { files, active: 0, offset: 0, next: 1 };
        segments.begin(1)?;
        Ok(segments)
    }

    fn file(&self) -> &File {
        &self.files[(self.active % SEGMENTS) as usize]
    }

    /// Begins a segment; its header is durable with the first group in it.
    fn begin(&mut self, number: u64) -> io::Result<()> {
        self.active = number;
        self.file().write_all_at(&header(number, self.next), 0)?;
        self.offset = HEADER;
        Ok(())
    }
}

fn header(segment: u64, first: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&segment.to_le_bytes());
    header[16..24].copy_from_slice(&first.to_le_bytes());
    let sum = crc32fast::hash(&header[..24]);
    header[24..].copy_from_slice(&sum.to_le_bytes());
    header
}

impl Log for Segments {
    type Batch = Records;

    fn commit(&mut self, records: &mut Records) -> io::Result<()> {
        records.seal(self.next);
        let len = records.bytes.len();
        if HEADER + len > SEGMENT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a group is larger than a segment"));
        }
        if self.offset + len > SEGMENT {
            self.begin(self.active + 1)?;
        }
        self.file().write_all_at(&records.bytes, self.offset as u64)?;
        self.file().sync_data()?;
        self.offset += len;
        self.next += records.starts.len() as u64;
        records.clear();
        Ok(())
    }
}

/// Reads back what a log left, oldest first: the number of each record and its bytes.
///
/// # Errors
/// Of the disk. What does not verify is the end of the log.
pub fn recover(directory: &Path) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut segments = Vec::new();
    for number in 0..SEGMENTS {
        let mut bytes = Vec::new();
        File::open(directory.join(format!("{number}.log")))?.read_to_end(&mut bytes)?;
        segments.extend(first_of(&bytes).map(|(segment, first)| (segment, first, bytes)));
    }
    segments.sort_unstable_by_key(|(segment, ..)| *segment);
    let (mut records, mut next) = (Vec::new(), None);
    for (_, first, bytes) in &segments {
        if next.is_some_and(|next| next != *first) {
            break;
        }
        next = Some(read(bytes, *first, &mut records));
    }
    Ok(records)
}

/// The number of a segment and of its first record.
fn first_of(bytes: &[u8]) -> Option<(u64, u64)> {
    let header = bytes.get(..HEADER)?;
    let number = |at: usize| header[at..at + 8].try_into().ok().map(u64::from_le_bytes);
    let sound = header.starts_with(MAGIC) && header[24..] == crc32fast::hash(&header[..24]).to_le_bytes();
    sound.then_some((number(8)?, number(16)?))
}

/// Reads the records of a segment, and returns the number that comes next.
fn read(bytes: &[u8], first: u64, records: &mut Vec<(u64, Vec<u8>)>) -> u64 {
    let (mut at, mut number) = (HEADER, first);
    while let Some(payload) = payload_at(bytes, at, number) {
        records.push((number, payload.to_vec()));
        at += RECORD + payload.len();
        number += 1;
    }
    number
}

fn payload_at(bytes: &[u8], at: usize, number: u64) -> Option<&[u8]> {
    let head = bytes.get(at..at + RECORD)?;
    let len = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
    let payload = bytes.get(at + RECORD..(at + RECORD).checked_add(len)?)?;
    (head[4..] == checksum(number, payload).to_le_bytes()).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, len: usize) -> Vec<u8> {
        let mut record = number.to_le_bytes().to_vec();
        record.resize(len, number as u8);
        record
    }

    fn append(segments: &mut Segments, numbers: std::ops::Range<u64>, len: usize) -> io::Result<()> {
        let mut group = Records::default();
        numbers.for_each(|number| group.push(|out| out.extend_from_slice(&record(number, len))));
        segments.commit(&mut group)
    }

    #[tokio::test]
    async fn what_a_ticket_said_is_durable_is_read_back_in_order() -> crate::Outcome<()> {
        let directory = tempfile::tempdir()?;
        let log = RawLog::start(directory.path())?;
        let mut tickets = Vec::new();
        for number in 1..=500_u64 {
            tickets.push(log.append(|out| out.extend_from_slice(&record(number, 40))));
        }
        for ticket in tickets {
            assert!(ticket.await);
        }
        let read = recover(directory.path())?;
        assert_eq!(read.len(), 500);
        assert!(read.iter().all(|(number, bytes)| *bytes == record(*number, 40)));
        Ok(())
    }

    #[test]
    fn segments_are_used_again_and_their_old_bytes_are_no_records() -> crate::Outcome<()> {
        let directory = tempfile::tempdir()?;
        let mut segments = Segments::make(directory.path())?;
        // records of one length, so that those of an earlier use lie where the next would be looked for
        let (len, mut next) = (1 << 16, 1);
        while segments.active < SEGMENTS + 2 {
            append(&mut segments, next..next + 16, len)?;
            next += 16;
        }
        let read = recover(directory.path())?;
        let first = read.first().expect("there are some").0;
        let numbers: Vec<_> = read.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (first..next).collect::<Vec<_>>());
        assert!(read.iter().all(|(number, bytes)| *bytes == record(*number, len)));
        let kept = (SEGMENTS - 1) * (SEGMENT / (RECORD + len)) as u64;
        assert!(read.len() as u64 >= kept - 16 * SEGMENTS, "{} of {kept}", read.len());
        Ok(())
    }

    #[test]
    fn a_torn_group_is_the_end() -> crate::Outcome<()> {
        let directory = tempfile::tempdir()?;
        let mut segments = Segments::make(directory.path())?;
        append(&mut segments, 1..10, 100)?;
        let torn = segments.offset + 3 * (RECORD + 100) + 50;
        append(&mut segments, 10..20, 100)?;
        segments.file().write_all_at(&[0xff], torn as u64)?;
        let numbers: Vec<_> = recover(directory.path())?.into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, (1..13).collect::<Vec<_>>());
        Ok(())
    }

    #[test]
    fn what_is_larger_than_a_segment_is_refused() -> crate::Outcome<()> {
        let directory = tempfile::tempdir()?;
        let mut segments = Segments::make(directory.path())?;
        assert!(append(&mut segments, 1..3, SEGMENT / 2).is_err());
        Ok(())
    }
}
