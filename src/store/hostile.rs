//! What the store's decoders do with bytes that are not theirs: refuse them, or read what they write again. Each check is
//! fed by a test here and by a target of `fuzz/`.
//!
//! # Invariants
//! - A check seals the bytes itself where a checksum stands before the decoder: what is behind it must hold on its own.

use std::path::Path;
use std::sync::Arc;

use super::census::Census;
use super::cursor::Cursor;
use super::engine::Write;
use super::group::{self, GroupHeader};
use super::keys::{self, LogId};
use super::manifest::Manifest;
use super::recovery::Place;
use super::segment::{SegmentBytes, SegmentHeader};
use super::simulated::SimulatedDisk;
use super::view::{self, ViewRecord};
use super::*;
use crate::observe::Silent;

const STORE: [u8; 16] = [7; 16];
const KEY: &[u8] = &[keys::class::CELL, 1];

/// A segment's header, as it is and with the checksum that fits.
pub(crate) fn segment_header(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), segment::sealed(bytes)] {
        if let Ok(Some(header)) = SegmentHeader::decode("a segment".into(), &bytes) {
            let again = SegmentHeader::decode("a segment".into(), &header.encode());
            assert!(matches!(again, Ok(Some(read)) if read == header));
        }
    }
}

/// A segment: its groups, and the search for one behind a hole.
pub(crate) fn segment(bytes: &[u8]) {
    let segment = SegmentBytes { id: 2, path: "a segment".into(), bytes: bytes.to_vec() };
    let _ = segment.later_group(&STORE, 0, 0);
    let Some((header, body)) = segment.group(&STORE, 0, 0) else { return };
    assert!(bytes.get(body).is_some_and(|body| body.len() == header.len as usize));
    assert!(header.last() >= header.first && segment::after(0, &header) >= group::HEADER as u64);
}

/// The commits in a group.
pub(crate) fn commits(body: &[u8]) {
    for commits in 0..3 {
        let mut read = Vec::new();
        if group::decode_commits(body, commits, |commit, op| read.push((commit, op))).is_some() {
            assert_eq!(group::written_again(body, commits, &read), body);
        }
    }
}

/// The manifest, as it is and with the checksum that fits.
pub(crate) fn manifest(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), Manifest::sealed(bytes)] {
        if let Ok(manifest) = Manifest::decode(Path::new("MANIFEST"), &bytes) {
            let again = Manifest::decode(Path::new("MANIFEST"), &manifest.encode());
            assert!(matches!(again, Ok(read) if read == manifest));
        }
    }
}

/// A sealed value, and what is behind the seal: the head of one in chunks.
pub(crate) fn sealed(bytes: &[u8]) {
    let engine = SimulatedDisk::new(1).engine_kind().create().map_err(drop);
    let Ok(engine) = engine else { return };
    let resealed = bytes.split_first().map(|(flag, body)| sealed::seal_piece(KEY, *flag, body));
    for bytes in [Some(bytes.to_vec()), resealed].into_iter().flatten() {
        assert!(sealed::chunk_keys(KEY, &bytes).len() <= u32::MAX as usize / sealed::PIECE + 1);
        let _ = sealed::sum(&bytes);
        if let Ok(value) = sealed::unseal(&*engine, KEY, bytes) {
            assert!(sealed::seal(KEY.to_vec(), &value).iter().any(|(key, _)| key == KEY));
        }
    }
}

/// The record of the last checkpoint.
pub(crate) fn census(value: &[u8]) {
    let Ok(engine) = SimulatedDisk::new(1).engine_kind().create() else { return };
    let writes = sealed::seal(keys::meta("checkpoint"), value).into_iter();
    let _ = engine.apply(writes.map(|(key, sealed)| Write::Put(key, sealed)).collect());
    if let Ok((number, mut census)) = Census::read(&*engine) {
        let mut writes = Vec::new();
        let _ = census.record(&*engine, number, &mut writes).map(|()| engine.apply(writes));
        assert!(matches!(Census::read(&*engine), Ok((read, _)) if read == number));
    }
}

/// The record of a cursor, and what it must still be able to do.
pub(crate) fn cursor(bytes: &[u8]) {
    let Some(mut cursor) = Cursor::decode(bytes) else { return };
    assert_eq!(cursor.encode(cursor.as_of), bytes);
    assert!(cursor.waiting() <= cursor.next);
    let position = cursor.append(usize::MAX);
    assert!(cursor.is_waiting(position) && cursor.settle(position, u32::MAX));
    cursor.first_waiting(0).inspect(|first| assert!(cursor.is_waiting(*first)));
    cursor.pass(u64::MAX);
    assert!(cursor.is_drained());
}

/// A page of envelopes, in the engine and in a file, and the link to one.
pub(crate) fn page(bytes: &[u8]) {
    if let Some(link) = page::Link::decode(bytes) {
        assert_eq!(link.encode(), bytes);
        assert!(link.end() >= u64::from(link.len));
    }
    let entries = match page::Stored::of(KEY, bytes) {
        Ok(page::Stored::Inline) => page::entries(bytes, page::INLINE_START),
        _ => None,
    };
    if let Some(entries) = entries {
        let mut again = page::inline();
        entries.into_iter().for_each(|(at, range)| page::add_entry(&mut again, at, &bytes[range]));
        assert_eq!(again, bytes);
    }
    let _ = page::entries(bytes, page::HEADER);
    let _ = page::check_file_header(bytes, &STORE, 1);
    if let Some(header) = page::RecordHeader::read(bytes).filter(|_| bytes.len() > page::HEADER) {
        let mut record = bytes.to_vec();
        let link = page::close_record(&mut record, header.log, header.first, 1, 40);
        assert!(page::is_record(&record, &keys::page(header.log, header.first), &link));
    }
}

/// The accounts of two page files, and which of the files are worth moving.
pub(crate) fn account(bytes: &[u8]) {
    let Some(account) = accounts::Account::decode(bytes) else { return };
    assert_eq!(account.encode(), bytes);
    let mut accounts = accounts::Accounts::default();
    (0..20).for_each(|file| accounts.found(file, account));
    accounts.add(&page::Link { file: 1, offset: 40, len: u32::MAX, crc: 0 });
    let _ = accounts.worth_moving(1 << 20, |_| false);
    accounts.remove(&page::Link { file: 1, offset: 40, len: u32::MAX, crc: 0 });
}

/// The record of a view.
pub(crate) fn view(bytes: &[u8]) {
    if let Ok(record) = ViewRecord::decode(KEY, bytes) {
        assert_eq!(record.encode(), *bytes);
    }
}

/// The files that tell who ran when the process ended, and whether it ended itself.
pub(crate) fn life(bytes: &[u8]) {
    let disk = SimulatedDisk::new(1);
    for name in [roll::NAME, last_words::NAME] {
        let _ = disk.medium().create(name).and_then(|file| file.write_at(0, bytes));
    }
    let _ = last_words::were_said(&*disk.medium());
    if let Ok(Some((read, damaged))) = roll::read(&*disk.medium()) {
        assert!(read.len() + damaged <= bytes.len() / roll::SLOT);
    }
}

/// A value of the store's own, behind its seal.
#[cfg(fuzzing)]
pub(crate) fn value(class: u8, value: &[u8]) {
    match class {
        keys::class::META => census(value),
        keys::class::CURSOR => cursor(value),
        keys::class::PAGE => page(value),
        keys::class::PAGE_FILE => account(value),
        keys::class::VIEW => view(value),
        _ => {}
    }
}

/// A whole store: a commit that verifies, replayed over what was there. Whether the store opens.
pub(crate) fn replay(bytes: &[u8]) -> bool {
    let Some((disk, (store, name))) = begun() else { unreachable!("{NO_STORE}") };
    let wrote = disk.damage(&name, |segment| {
        let Ok(Some(header)) = SegmentHeader::decode("a segment".into(), segment) else { return };
        let (mut at, mut last) = (segment::START as usize, header.last_before);
        while let Some((group, _)) = GroupHeader::verify(&store, header.id, &segment[at..]) {
            (at, last) = (at + group::padded(group.len as usize), group.last());
        }
        let header = GroupHeader {
            segment: header.id,
            first: last + 1,
            durable: last,
            commits: 1,
            len: bytes.len() as u32,
        };
        let group = [header.encode(&store, bytes).as_slice(), bytes].concat();
        if let Some(place) = segment.get_mut(at..at + group.len()) {
            place.copy_from_slice(&group);
        }
    });
    wrote.is_ok() && open_and_use(&disk)
}

/// A whole store with a view, in which one value of the engine is another. Whether the store opens, and the view with it.
pub(crate) fn stored(class: u8, value: &[u8]) -> bool {
    let Some((disk, _)) = begun() else { unreachable!("{NO_STORE}") };
    let Ok((opened, ..)) = open(&disk) else { unreachable!("{NO_STORE}") };
    let key = match class % 5 {
        0 => keys::view(VIEW.mailbox),
        1 => keys::cursor(VIEW),
        2 => keys::cursor(LOG),
        3 => keys::page(LOG, 0),
        _ => keys::reading(READER, LOG),
    };
    let Ok(engine) = opened.shared.place.engine.open(None) else { return false };
    drop(opened);
    let Ok((number, mut census)) = Census::read(&*engine) else { return false };
    let mut writes = Vec::new();
    let _ = census.put(&*engine, key, value, &mut writes);
    let _ = census.record(&*engine, number, &mut writes);
    let _ = engine.apply(writes).and_then(|()| engine.flush());
    drop(engine);
    open_and_use(&disk)
}

/// A check that cannot begin checks nothing, and must not pass for that.
const NO_STORE: &str = "a store of its own making, before anything in it is changed, opens";
const LOG: LogId = LogId { mailbox: 1, lane: 1 };
const READER: MailboxId = 2;
const VIEW: LogId = LogId { mailbox: keys::FIRST_VIEW, lane: view::LANE };

/// A store with some letters and a view of them, closed as a crash does; its id, and the segment that was written last.
fn begun() -> Option<(SimulatedDisk, ([u8; 16], String))> {
    let disk = SimulatedDisk::new(1);
    let (store, mut committer, mut checkpointer) = open(&disk).ok()?;
    store.load_mailbox(LOG.mailbox, None).ok()?;
    let record = ViewRecord { of: LOG, reader: Some(READER), paused: false };
    store.load_mailbox(READER, None).ok()?;
    let mut batch = Batch::default();
    batch.put_bytes(keys::view(VIEW.mailbox), &record.encode());
    batch.put_bytes(keys::reading(READER, LOG), &VIEW.mailbox.to_be_bytes());
    for _ in 0..3 {
        let _ = batch.append(LOG, |out| {
            out.extend_from_slice(b"letter");
            Ok::<_, std::convert::Infallible>(())
        });
    }
    store.keep_new_view(VIEW.mailbox, LOG, READER);
    store.admit(&batch, Origin::Inside, Urgency::Now).ok()?;
    let mut settles = Batch::default();
    settles.settle(VIEW, 0, 6);
    settles.settle(VIEW, 2, 6);
    store.admit(&settles, Origin::Inside, Urgency::Now).ok()?;
    committer.step();
    store.shared.ask_for_checkpoint(&store.shared.admission());
    for _ in 0..20 {
        checkpointer.step();
    }
    let id = Manifest::read(&*disk.medium(), Path::new("")).ok()??.store;
    let name = disk.files().into_iter().rfind(|name| name.ends_with(".seg"))?;
    Some((disk, (id, name)))
}

fn open(disk: &SimulatedDisk) -> Result<(Store, committer::Committer, checkpoint::Checkpointer), StoreError> {
    let config = StoreConfig { segment: LEAST_SEGMENT, spares: 2, ballast: 0, ..StoreConfig::default() };
    let (store, committer, checkpointer, _) =
        Store::open_undriven(Place::simulated(disk), &config, Arc::new(Silent), Drive::Threads)?;
    Ok((store, committer, checkpointer))
}

/// Opens the store, reads all there is, writes, closes, and opens it again: each may be refused. Whether it opens, and the
/// view with it.
fn open_and_use(disk: &SimulatedDisk) -> bool {
    let Ok((store, mut committer, checkpointer)) = open(disk) else { return false };
    let has_views = store.views().is_ok() & store.load_views(READER).is_ok();
    for log in [LOG, VIEW, LogId { mailbox: READER, lane: 0 }] {
        if store.load_mailbox(log.mailbox, None).is_err() {
            continue;
        }
        let _ = store.progress(log);
        let mut from = 0;
        while let Ok(letters) = store.read_letters(log, from, 10, 1 << 20)
            && let Some(last) = letters.last()
        {
            from = last.position + 1;
            let mut batch = Batch::default();
            batch.settle(log, last.position, last.envelope.len() as u32);
            let _ = store.admit(&batch, Origin::Inside, Urgency::Now);
        }
    }
    let mut batch = Batch::default();
    let _ = batch.append(LOG, |out| {
        out.extend_from_slice(b"letter");
        Ok::<_, std::convert::Infallible>(())
    });
    let _ = store.admit(&batch, Origin::Inside, Urgency::Now);
    while committer.step() == committer::Step::Worked {}
    let _ = store.scan(&[0], &[u8::MAX], 100);
    if checkpointer.close().is_ok() {
        let _ = open(disk);
    }
    has_views
}

#[cfg(test)]
#[cfg(not(steadfast_loom))]
mod tests {
    use super::*;
    use crate::hostile::survives;

    fn numbers(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    fn batch() -> Batch {
        let mut batch = Batch::default();
        for envelope in [&b"letter"[..], b""] {
            let _ = batch.append(LOG, |out| {
                out.extend_from_slice(envelope);
                Ok::<_, std::convert::Infallible>(())
            });
        }
        batch.settle(LOG, 1, 6);
        batch.seek(VIEW, 2);
        batch.put_bytes(KEY.to_vec(), b"value");
        batch.delete(KEY.to_vec());
        batch.trim(LOG, 2, 70);
        batch
    }

    fn body(batches: &[Batch]) -> Vec<u8> {
        let mut body = Vec::new();
        for batch in batches {
            group::encode_commit(batch, &[3, 4], &mut body, |_, _| {});
        }
        body
    }

    #[test]
    fn a_hostile_header_of_a_segment_is_refused_or_read_as_it_is() {
        let header = SegmentHeader {
            store: STORE,
            id: 2,
            previous: 1,
            previous_end: 8192,
            last_before: 4,
            first: 1 << 44 | 1,
            size: LEAST_SEGMENT,
        };
        survives(&[header.encode()[..84].to_vec(), header.encode()], segment_header);
    }

    #[test]
    fn a_hostile_segment_is_searched_to_its_end() {
        let body = body(&[batch(), batch()]);
        let header = GroupHeader { segment: 2, first: 0, durable: 0, commits: 2, len: body.len() as u32 };
        let mut bytes = header.encode(&STORE, &body).to_vec();
        bytes.extend_from_slice(&body);
        survives(&[bytes.clone(), [&[0; 8][..], &bytes].concat()], segment);
    }

    #[test]
    fn hostile_commits_are_refused_or_read_as_they_are() {
        survives(&[body(&[batch()]), body(&[batch(), batch()]), body(&[])], commits);
    }

    #[test]
    fn a_hostile_manifest_is_refused_or_read_as_it_is() {
        let plain = Manifest {
            format: 1,
            store: STORE,
            engine: "memory".into(),
            segment_size: LEAST_SEGMENT,
            checkpoint: 7,
            first_segment: 1,
            high_water: 9,
            clean: None,
        };
        let files = vec![engine::SealedFile { name: "db".into(), len: 70_000, crc: 9 }];
        let seal = engine::Seal { files };
        let closed = Manifest {
            clean: Some(manifest::CleanClose { last: 9, seal, pages: vec![(1, 40)] }),
            ..plain.clone()
        };
        let bodies = [&plain, &closed].map(|manifest| manifest.encode()[16..].to_vec());
        survives(&[bodies.as_slice(), &[plain.encode(), closed.encode()]].concat(), manifest);
    }

    #[test]
    fn a_hostile_sealed_value_is_refused_or_the_value_it_was() {
        let whole = sealed::seal(KEY.to_vec(), b"value").remove(0).1;
        let head = sealed::seal(KEY.to_vec(), &vec![1; 100_000]).pop().map(|(_, head)| head);
        survives(&[whole, head.unwrap_or_default()], sealed);
    }

    #[test]
    fn a_hostile_census_is_refused_or_read() {
        survives(&[numbers(&[7]), [&numbers(&[7])[..], &[0x20], &numbers(&[2, 99])].concat()], census);
    }

    #[test]
    fn a_hostile_cursor_is_refused_or_works() {
        let ends = |next| numbers(&[9, 3, next, u64::MAX, 2]);
        survives(
            &[
                numbers(&[9, 3, 20, 100, 2, 5, 7, 9, 20]),
                numbers(&[0; 5]),
                ends(u64::MAX),
                ends(u64::MAX - 1),
            ],
            cursor,
        );
    }

    #[test]
    fn a_hostile_page_is_refused_or_read_as_it_is() {
        let mut inline = page::inline();
        page::add_entry(&mut inline, 0, b"letter");
        page::add_entry(&mut inline, 5, b"");
        let mut record = page::record(100);
        page::add_entry(&mut record, 5, b"letter");
        let link = page::close_record(&mut record, LOG, 5, 1, 40);
        survives(&[inline, record, link.encode(), page::file_header(&STORE, 1).to_vec()], page);
    }

    #[test]
    fn a_hostile_account_of_a_page_file_is_refused_or_counted_on() {
        survives(&[numbers(&[70_000, 2, 60_000]), numbers(&[u64::MAX; 3])], account);
    }

    #[test]
    fn a_hostile_view_is_refused_or_read_as_it_is() {
        let record = ViewRecord { of: LOG, reader: Some(READER), paused: true };
        let ended = ViewRecord { reader: None, ..record };
        survives(&[record.encode().to_vec(), ended.encode().to_vec()], view);
    }

    #[test]
    fn hostile_signs_of_life_are_a_hint_at_most() {
        let entry = roll::OnRoll { mailbox: 3, workers: 2 };
        survives(&[[roll::header(), roll::encode(1, entry), [0; 16]].concat(), vec![1]], life);
    }

    #[test]
    fn commits_that_verify_and_make_no_sense_are_refused_or_harmless() {
        let mut ends = Batch::default();
        let record = ViewRecord { of: LOG, reader: None, paused: false };
        ends.put_bytes(keys::view(VIEW.mailbox), &record.encode());
        survives(&[body(&[batch()]), body(&[ends])], |bytes| {
            replay(bytes);
        });
    }

    /// A change that nobody could have committed, and whether the store opens with it.
    fn opens_after(change: impl FnOnce(&mut Batch), position: u64) -> bool {
        let mut batch = Batch::default();
        change(&mut batch);
        let mut body = Vec::new();
        group::encode_commit(&batch, &[position], &mut body, |_, _| {});
        replay(&body)
    }

    fn append(log: LogId) -> impl FnOnce(&mut Batch) {
        move |batch| {
            let _ = batch.append(log, |_| Ok::<_, std::convert::Infallible>(()));
        }
    }

    /// Found by feeding commits that verify: an append at the largest position, or below one that was given, made recovery
    /// panic or left a log whose end lies before its front.
    #[test]
    fn an_append_at_a_position_that_was_given_is_refused() {
        assert!(opens_after(append(LOG), 3), "the next position");
        for position in [0, 2, u64::MAX] {
            assert!(!opens_after(append(LOG), position), "{position}");
        }
        assert!(!opens_after(append(VIEW), 3), "nothing is appended to a view");
    }

    #[test]
    fn a_commit_that_writes_what_only_the_checkpoint_writes_is_refused() {
        assert!(opens_after(|batch| batch.put_bytes(KEY.to_vec(), b"value"), 0));
        let log = keys::cursor(LOG);
        for key in [
            keys::meta("checkpoint"),
            log,
            keys::page(LOG, 0),
            keys::page_file(1),
            keys::chunk(KEY, 0),
            vec![],
            vec![255],
        ] {
            assert!(!opens_after(|batch| batch.put_bytes(key.clone(), b"value"), 0), "{key:?}");
            assert!(!opens_after(|batch| batch.delete(key.clone()), 0), "{key:?}");
        }
    }

    /// Found by reading for hostile records: a view that shows itself was loaded for ever, until the stack was used up.
    #[test]
    fn a_view_of_a_view_is_refused() {
        let plain = ViewRecord { of: LOG, reader: Some(READER), paused: false };
        let of_itself = ViewRecord { of: VIEW, ..plain };
        let for_itself = ViewRecord { reader: Some(VIEW.mailbox), ..plain };
        assert!(stored(0, &plain.encode()));
        for record in [of_itself, for_itself] {
            assert!(!stored(0, &record.encode()), "{record:?}");
            assert!(!opens_after(|batch| batch.put_bytes(keys::view(VIEW.mailbox), &record.encode()), 0));
        }
    }

    /// Found by feeding values that verify: moving such a view panicked.
    #[test]
    fn a_view_that_has_read_more_than_there_is_is_refused() {
        assert!(stored(1, &numbers(&[0, 1, 3, 0, 0])));
        assert!(!stored(1, &numbers(&[0, 9, 9, 0, 0])));
    }

    /// Found by reading: a page was read into as many bytes as its link says, before it was looked whether there are any.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_link_to_more_than_there_is_reserves_nothing() {
        let test = "store::hostile::tests::a_link_to_more_than_there_is_reserves_nothing";
        if crate::hostile::with_memory_limit(test, 256) {
            let (disk, _) = begun().expect("a store");
            let link = page::Link { file: 1, offset: 40, len: u32::MAX, crc: 9 };
            let (medium, id) = (disk.medium(), Manifest::read(&*disk.medium(), Path::new("")));
            let id = id.expect("reads").expect("a manifest").store;
            let file = medium.create("pages/0000000000000001.pages").expect("a file");
            file.write_at(0, &page::file_header(&id, 1)).expect("writes");
            let files = page_files::PageFiles::find(medium, "".into(), id, 16 << 20).expect("finds them");
            let read = files.read_record(&keys::page(LOG, 0), &link);
            assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
        }
    }

    /// Found by reading: a manifest was read into as many bytes as its file is said to have.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_manifest_that_is_too_long_is_refused_without_being_read() {
        let test = "store::hostile::tests::a_manifest_that_is_too_long_is_refused_without_being_read";
        if crate::hostile::with_memory_limit(test, 256) {
            let dir = tempfile::tempdir().expect("a directory");
            // of which the file system stores nothing
            let file = std::fs::File::create(dir.path().join(manifest::NAME)).expect("a file");
            file.set_len(8 << 30).expect("a long file");
            let read = Manifest::read(&disk::Disk::new(dir.path()), dir.path());
            assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
        }
    }

    /// Found by feeding bodies that verify: of a store without a segment, the one before the first was looked for.
    #[test]
    fn a_manifest_whose_first_segment_has_no_number_is_refused() {
        for (first_segment, opens) in [(1, true), (0, false), (u64::MAX, false)] {
            let disk = SimulatedDisk::new(1);
            drop(open(&disk).expect("a new store"));
            let made = Manifest::read(&*disk.medium(), Path::new("")).expect("reads").expect("a manifest");
            let manifest = Manifest { first_segment, high_water: 0, ..made };
            manifest.write(&*disk.medium(), Path::new("")).expect("writes");
            for name in disk.files().into_iter().filter(|name| name.ends_with(".seg")) {
                disk.medium().remove(&name).expect("removes");
            }
            assert_eq!(open(&disk).is_ok(), opens, "{first_segment}");
        }
    }

    #[test]
    fn values_that_verify_and_make_no_sense_are_refused_or_harmless() {
        let record = ViewRecord { of: LOG, reader: Some(READER), paused: false };
        let mut page = page::inline();
        page::add_entry(&mut page, 0, b"letter");
        let link = page::Link { file: 1, offset: 40, len: u32::MAX, crc: 9 }.encode();
        let reading = VIEW.mailbox.to_be_bytes().to_vec();
        let values = [record.encode().to_vec(), numbers(&[1, 1, 3, 12, 0, 2, 3]), page, link, reading];
        let tagged: Vec<_> = [0, 1, 2, 3, 3, 4]
            .into_iter()
            .zip([0, 1, 1, 2, 3, 4])
            .map(|(class, value): (u8, usize)| [&[class], &values[value][..]].concat())
            .collect();
        survives(&tagged, |bytes| {
            if let Some((class, value)) = bytes.split_first() {
                let _ = stored(*class, value);
            }
        });
    }
}
