//! A damaged store is an error that names the file, and is left as it was found. After a clean close any byte that means
//! something counts; after an unclean exit everything up to the high-water mark.

use std::collections::BTreeMap;
use std::fs;

use super::*;

type Contents = BTreeMap<String, Vec<u8>>;
type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(disk: &SimulatedDisk) -> Contents {
    disk.files().into_iter().map(|name| (name.clone(), read(disk, &name))).collect()
}

fn read(disk: &SimulatedDisk, name: &str) -> Vec<u8> {
    let file = disk.medium().open(name).expect("is there");
    let mut bytes = vec![0; file.len().expect("has a length") as usize];
    file.read_at(0, &mut bytes).expect("reads");
    bytes
}

fn refusal(disk: &SimulatedDisk) -> StoreError {
    Steps::open(disk).map(drop).expect_err("opens in spite of the damage")
}

/// Damages a copy of the machine: opening it is an error that speaks of `name`, and changes no file.
fn is_refused(
    disk: &SimulatedDisk,
    name: &str,
    what: &str,
    damage: impl FnOnce(&SimulatedDisk),
) -> StoreError {
    let disk = disk.fork();
    damage(&disk);
    let before = contents(&disk);
    let refused = match Steps::open(&disk) {
        Err(refused) => refused,
        Ok(world) => panic!("{name}, {what}: it opens, with {} letters", tags(&world.store, LOG).len()),
    };
    assert!(refused.to_string().contains(name), "{name}, {what}: {refused}");
    assert!(!matches!(refused, StoreError::Io { .. }), "{name}, {what}: {refused}");
    assert!(contents(&disk) == before, "{name}, {what}: files were changed");
    refused
}

fn change(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> impl FnOnce(&SimulatedDisk) {
    move |disk| disk.damage(name, change).expect("is there")
}

fn remove(name: &str) -> impl FnOnce(&SimulatedDisk) {
    move |disk| {
        let medium = disk.medium();
        medium.remove(name).expect("is there");
        for dir in ["", "journal", "pages"] {
            medium.sync_dir(dir).expect("syncs");
        }
    }
}

/// Every way to damage the first `len` bytes of a file that are tried here.
fn is_refused_whatever_happens_to(disk: &SimulatedDisk, name: &str, len: usize, stride: usize) {
    for at in (0..len).step_by(stride) {
        is_refused(disk, name, &format!("bit of byte {at}"), change(name, |bytes| bytes[at] ^= 0x10));
        is_refused(disk, name, &format!("cut at {at}"), change(name, |bytes| bytes.truncate(at)));
    }
    is_refused(disk, name, "zeroed", change(name, |bytes| bytes.fill(0)));
    is_refused(disk, name, "emptied", change(name, Vec::clear));
    is_refused(disk, name, "deleted", remove(name));
}

fn segments(disk: &SimulatedDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| name.ends_with(".seg")).collect()
}

/// Where the groups of a segment lie.
fn groups(disk: &SimulatedDisk, name: &str) -> Vec<std::ops::Range<usize>> {
    let bytes = read(disk, name);
    let header = segment::SegmentHeader::decode(name.into(), &bytes).expect("is known").expect("verifies");
    let mut at = segment::START as usize;
    let mut found = Vec::new();
    while let Some((group, _)) = group::GroupHeader::verify(&header.store, header.id, &bytes[at..]) {
        found.push(at..at + group::HEADER + group.len as usize);
        at += super::super::group::padded(group.len as usize);
    }
    found
}

/// A checkpoint, several segments behind it, a mark in the manifest, and then some more; not closed.
fn unclean(after_the_mark: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(11);
    let mut world = Steps::on(&disk);
    let mut batch = letter(OTHER, &body(7, 700));
    batch.put_bytes(cell(1), &[3; 200_000][..20_000]);
    world.commit(&batch);
    world.fill(LOG, 0, 20, 1_000);
    world.checkpoint();
    world.fill(LOG, 20, 45, 1_500);
    world.checkpointer.mark_high_water().expect("writes");
    world.fill(LOG, 65, after_the_mark, 1_500);
    assert!(segments(&disk).len() >= 2, "{:?}", segments(&disk));
    disk
}

fn closed() -> SimulatedDisk {
    let disk = unclean(3);
    Steps::on(&disk).close().expect("closes");
    let mut world = Steps::on(&disk);
    world.fill(LOG, 68, 10, 1_000);
    world.close().expect("closes");
    disk
}

#[test]
fn after_a_clean_close_any_damage_to_manifest_or_journal_is_refused_and_nothing_is_changed() {
    let disk = closed();
    let manifest = read(&disk, "MANIFEST").len();
    is_refused_whatever_happens_to(&disk, "MANIFEST", manifest, 1);
    let journal = segments(&disk).pop().expect("a segment");
    let end = groups(&disk, &journal).last().expect("a group").end;
    is_refused_whatever_happens_to(&disk, &journal, 84, 1);
    for group in groups(&disk, &journal) {
        for at in group.clone().step_by(37).chain([group.end - 1]) {
            is_refused(
                &disk,
                &journal,
                &format!("bit of byte {at}"),
                change(&journal, |bytes| bytes[at] ^= 1),
            );
        }
        let what = format!("zeroed from {}", group.start);
        is_refused(&disk, &journal, &what, change(&journal, |bytes| bytes[group].fill(0)));
    }
    // what lies behind the end means nothing
    let spoilt = disk.fork();
    spoilt.damage(&journal, |bytes| bytes[end.next_multiple_of(8)..].fill(0x5A)).expect("is there");
    assert_eq!(tags(&Steps::on(&spoilt).store, LOG), (0..78).collect::<Vec<_>>());
}

#[test]
fn after_a_clean_close_any_damage_to_the_engine_is_refused() {
    let disk = closed();
    let mut pairs = Vec::new();
    disk.fork().damage_engine(|map| pairs.extend(map.keys().cloned()));
    assert!(pairs.len() > 5);
    for key in pairs {
        let what = format!("{key:02x?}");
        is_refused(&disk, "memory", &what, |disk| {
            disk.damage_engine(|map| map.get_mut(&key).expect("a pair")[0] ^= 1)
        });
        is_refused(&disk, "memory", &what, |disk| disk.damage_engine(|map| drop(map.remove(&key))));
    }
}

#[test]
fn after_an_unclean_exit_damage_to_the_journal_up_to_the_mark_is_refused() {
    let disk = unclean(0);
    let needed: Vec<String> =
        segments(&disk).into_iter().filter(|name| !groups(&disk, name).is_empty()).collect();
    for name in &needed {
        for group in groups(&disk, name) {
            for at in [group.start, group.start + 5, group.start + 20, group.end - 1] {
                let what = format!("bit of byte {at}");
                is_refused(&disk, "journal/", &what, change(name, |bytes| bytes[at] ^= 1));
            }
            let what = format!("cut at {}", group.end - 1);
            is_refused(&disk, "journal/", &what, change(name, |bytes| bytes.truncate(group.end - 1)));
        }
        is_refused(&disk, name, "without its header", change(name, |bytes| bytes[..84].fill(0)));
        is_refused(&disk, name, "emptied", change(name, Vec::clear));
        is_refused(&disk, "journal/", "deleted", remove(name));
    }
    is_refused_whatever_happens_to(&disk, "MANIFEST", read(&disk, "MANIFEST").len(), 3);
}

#[test]
fn after_an_unclean_exit_what_the_engine_lost_or_changed_is_refused() {
    let disk = unclean(2);
    let mut pairs = Vec::new();
    disk.fork().damage_engine(|map| pairs.extend(map.keys().cloned()));
    for key in pairs {
        let changed = |map: &mut Pairs| {
            let value = map.get_mut(&key).expect("a pair");
            *value.last_mut().expect("sealed") ^= 1;
        };
        let what = format!("{key:02x?}");
        for damage in [&changed as &dyn Fn(&mut Pairs), &|map: &mut Pairs| drop(map.remove(&key))] {
            let disk = disk.fork();
            disk.damage_engine(damage);
            let refused = refusal(&disk);
            let names_it = refused.to_string().contains("memory") || refused.to_string().contains("engine");
            assert!(names_it, "{what}: {refused}");
        }
    }
    // a pair of another key under this one
    let disk = disk.fork();
    disk.damage_engine(|map| {
        let other = map.iter().find(|(key, _)| key[0] == keys::class::CELL).expect("a cell").1.clone();
        map.insert(cell(9), other);
    });
    assert!(matches!(refusal(&disk), StoreError::Damaged { .. }));
}

#[test]
fn a_torn_last_group_is_cut_and_said_to_be() {
    let disk = unclean(3);
    let last = segments(&disk).into_iter().rfind(|name| !groups(&disk, name).is_empty()).expect("one");
    let group = groups(&disk, &last).pop().expect("a group");
    for at in group.clone().step_by(97) {
        let disk = disk.fork();
        disk.damage(&last, |bytes| bytes[at..group.end].fill(0)).expect("is there");
        let world = Steps::on(&disk);
        assert_eq!(tags(&world.store, LOG), (0..67).collect::<Vec<_>>(), "torn at {at}");
        // a header that is there says how much is missing
        assert_eq!(world.report.cut > 0, at >= group.start + group::HEADER, "torn at {at}");
    }
}

#[test]
fn a_hole_before_a_whole_group_is_refused_also_beyond_the_mark() {
    let disk = unclean(4);
    let last = segments(&disk).into_iter().rfind(|name| !groups(&disk, name).is_empty()).expect("one");
    let groups = groups(&disk, &last);
    let [.., hole, _] = groups.as_slice() else { panic!("two groups: {groups:?}") };
    let refused = is_refused(&disk, &last, "a hole", change(&last, |bytes| bytes[hole.clone()].fill(0)));
    assert!(refused.to_string().contains("after it does"), "{refused}");
}

/// The two histories part in a group of one length, which holds one commit here and two there: nothing but the number
/// that a segment says it continues tells them apart.
#[test]
fn a_segment_of_another_history_of_the_same_store_is_refused() {
    let disk = SimulatedDisk::new(14);
    Steps::on(&disk).fill(LOG, 0, 3, 100);
    let other = disk.fork();
    Steps::on(&disk).fill(LOG, 3, 1, 1_022);
    let mut world = Steps::on(&other);
    world.admit(&letter(LOG, &body(3, 500)));
    world.commit(&letter(LOG, &body(4, 500)));
    drop(world);
    Steps::on(&disk).fill(LOG, 10, 1, 200);
    Steps::on(&other).fill(LOG, 20, 1, 200);

    let last = segments(&disk).pop().expect("a segment");
    assert_eq!(segments(&other).last(), Some(&last));
    let theirs = read(&other, &last);
    let refused = is_refused(&disk, &last, "of another history", change(&last, |bytes| *bytes = theirs));
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}

#[test]
fn a_segment_of_another_store_is_foreign() {
    let disk = closed();
    let other = SimulatedDisk::new(12);
    let mut world = Steps::on(&other);
    world.fill(LOG, 0, 3, 100);
    let theirs = read(&other, &segments(&other)[0]);
    let last = segments(&disk).pop().expect("a segment");
    // under the id it was written for, so that nothing but the store differs
    let mut header =
        segment::SegmentHeader::decode("theirs".into(), &theirs).expect("is known").expect("verifies");
    header.id = segment::id_of(last.trim_start_matches("journal/")).expect("an id");
    let refused = is_refused(
        &disk,
        &last,
        "foreign",
        change(&last, |bytes| {
            bytes[..segment::START as usize].copy_from_slice(&header.encode());
        }),
    );
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
    // and just copied, over the segment or behind the last one
    is_refused(&disk, &last, "copied over", change(&last, |bytes| *bytes = theirs.clone()));
}

#[test]
fn a_newer_format_is_told_apart_from_damage() {
    let disk = closed();
    let newer = |bytes: &mut Vec<u8>| {
        let mut manifest = b"SFMANIF1".to_vec();
        let body = [segment::FORMAT as u8 + 1, 1, 2, 3];
        manifest.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
        manifest.extend_from_slice(&4u32.to_be_bytes());
        manifest.extend_from_slice(&body);
        *bytes = manifest;
    };
    let refused = is_refused(&disk, "MANIFEST", "newer", change("MANIFEST", newer));
    assert!(matches!(refused, StoreError::Newer { found: 2, .. }), "{refused}");
    let last = segments(&disk).pop().expect("a segment");
    let newer = |bytes: &mut Vec<u8>| {
        bytes[12..16].copy_from_slice(&(segment::FORMAT + 1).to_be_bytes());
        let crc = crc32fast::hash(&bytes[12..84]);
        bytes[8..12].copy_from_slice(&crc.to_be_bytes());
    };
    let refused = is_refused(&disk, &last, "newer", change(&last, newer));
    assert!(matches!(refused, StoreError::Newer { found: 2, .. }), "{refused}");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let disk = SimulatedDisk::new(13);
    let medium = disk.medium();
    medium.create("thesis.txt").and_then(|file| file.write_at(0, b"mine")).expect("writes");
    let refused = is_refused(&disk, "thesis.txt", "foreign", |_| {});
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
}

/// The mark of an unfinished creation makes the next open start anew. Beside a store with commits it must not.
#[test]
fn the_mark_of_an_unfinished_creation_does_not_undo_a_store_that_was_used() {
    for disk in [closed(), unclean(1)] {
        disk.medium().create("CREATING").expect("creates");
        let before = contents(&disk);
        assert!(refusal(&disk).to_string().contains("CREATING"));
        assert!(contents(&disk) == before);
        disk.medium().remove("CREATING").expect("removes");
        assert!(tags(&Steps::on(&disk).store, LOG).len() > 60);
    }
}

/// All files of a directory but the lock, which names its last owner, by name.
fn files(root: &Path) -> Contents {
    let mut found = Contents::new();
    for dir in ["", "journal", "sled", "redb", "rescue"] {
        for entry in fs::read_dir(root.join(dir)).into_iter().flatten() {
            let entry = entry.expect("is listed");
            let name = Path::new(dir).join(entry.file_name()).to_string_lossy().into_owned();
            if entry.file_type().expect("has a type").is_file() && name != "LOCK" {
                found.insert(name, fs::read(entry.path()).expect("reads"));
            }
        }
    }
    found
}

fn restore(root: &Path, files: &Contents) {
    for dir in ["", "journal", "sled", "redb", "rescue"] {
        for entry in fs::read_dir(root.join(dir)).into_iter().flatten() {
            let entry = entry.expect("is listed");
            if entry.file_type().expect("has a type").is_file() {
                fs::remove_file(entry.path()).expect("removes");
            }
        }
    }
    for (name, bytes) in files {
        fs::write(root.join(name), bytes).expect("writes");
    }
}

fn fill_directory(root: &Path, letters: u64) -> Driven {
    let driven = drive_directory(root);
    for tag in 0..letters {
        send(driven.store(), &letter(LOG, &body(tag, 1_500))).expect("is taken");
    }
    block_on(driven.store().durable_now()).expect("is durable");
    driven
}

/// Ways to damage a file; `None` deletes it.
fn damages(bytes: &[u8], end: usize) -> Vec<(String, Option<Vec<u8>>)> {
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.to_vec();
        change(&mut bytes);
        Some(bytes)
    };
    let mut damages = vec![("deleted".to_owned(), None)];
    if !bytes.is_empty() {
        damages.push(("emptied".into(), Some(Vec::new())));
        for at in [0, 9, 20, end / 3, end / 2, end - 1].into_iter().filter(|at| *at < end) {
            damages.push((format!("bit of byte {at}"), changed(&|bytes| bytes[at] ^= 1)));
            damages.push((format!("cut at {at}"), changed(&|bytes| bytes.truncate(at))));
        }
        damages.push(("zeroed page".into(), changed(&|bytes| bytes[..end.min(4_096)].fill(0))));
    }
    damages.retain(|(_, damaged)| damaged.as_deref() != Some(bytes));
    damages
}

#[test]
fn in_a_directory_any_damage_after_a_clean_close_is_refused_and_nothing_is_changed() {
    EngineChoice::available().for_each(refuses_damage_after_a_clean_close);
}

fn refuses_damage_after_a_clean_close(engine: EngineChoice) {
    let dir = tempfile::tempdir().expect("a directory");
    make_directory(dir.path(), engine);
    fill_directory(dir.path(), 120).close().expect("closes");
    // opened twice, so that sled has a snapshot
    drive_directory(dir.path()).close().expect("closes");
    let original = files(dir.path());
    let last = original.keys().rfind(|name| name.ends_with(".seg")).expect("a segment").clone();
    let needed = |name: &&String| !name.contains("spare") && (!name.ends_with(".seg") || **name == last);
    let mut cases = 0;
    for name in original.keys().filter(needed) {
        let bytes = &original[name];
        let end = if name.ends_with(".seg") { 84 } else { bytes.len() };
        for (what, damaged) in damages(bytes, end) {
            let path = dir.path().join(name);
            match &damaged {
                Some(damaged) => fs::write(&path, damaged).expect("writes"),
                None => fs::remove_file(&path).expect("removes"),
            }
            let refused = match open_directory(dir.path(), &small()) {
                Err(refused) => refused,
                Ok(_) => panic!("{name}, {what}: it opens"),
            };
            assert!(refused.to_string().contains(name), "{name}, {what}: {refused}");
            let mut expected = original.clone();
            match damaged {
                Some(damaged) => drop(expected.insert(name.clone(), damaged)),
                None => drop(expected.remove(name)),
            }
            assert!(files(dir.path()) == expected, "{name}, {what}: files were changed");
            fs::write(path, bytes).expect("writes");
            cases += 1;
        }
    }
    assert!(cases > 30, "only {cases} cases");
    let driven = drive_directory(dir.path());
    assert_eq!(tags(driven.store(), LOG), (0..120).collect::<Vec<_>>());
}

#[test]
fn in_a_directory_damage_after_an_unclean_exit_is_refused_or_did_no_harm() {
    EngineChoice::available().for_each(damage_after_an_unclean_exit_does_no_harm);
}

fn damage_after_an_unclean_exit_does_no_harm(engine: EngineChoice) {
    let dir = tempfile::tempdir().expect("a directory");
    make_directory(dir.path(), engine);
    let driven = fill_directory(dir.path(), 120);
    block_on(driven.store().checkpoint()).expect("a checkpoint");
    drop(driven);
    let original = files(dir.path());
    let mut refused = 0;
    let of_engine = format!("{}/", engine.name());
    for name in original.keys().filter(|name| name.starts_with(&of_engine) || *name == "MANIFEST") {
        let bytes = &original[name];
        let end = bytes.len();
        for (what, damaged) in damages(bytes, end).into_iter().step_by(if end > 1 << 20 { 3 } else { 2 }) {
            restore(dir.path(), &original);
            let path = dir.path().join(name);
            match &damaged {
                Some(damaged) => fs::write(&path, damaged).expect("writes"),
                None => fs::remove_file(&path).expect("removes"),
            }
            match open_directory(dir.path(), &small()) {
                Err(_) => refused += 1,
                Ok((driven, _)) => {
                    let found = tags(driven.store(), LOG);
                    assert_eq!(found, (0..120).collect::<Vec<_>>(), "{name}, {what}: it opens, and differs");
                }
            }
        }
    }
    assert!(refused > 5, "{refused}");
}
