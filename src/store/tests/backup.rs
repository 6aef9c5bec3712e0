//! A backup is a store of its own: everything up to one commit, and nothing after it.

use std::fs;

use super::*;

#[test]
fn a_backup_opens_as_a_cleanly_closed_store_with_exactly_what_was_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("copies").join("monday");
    let driven = drive_directory(&dir.path().join("store"));
    let store = driven.store();
    for tag in 0..100 {
        send(store, &letter(LOG, &body(tag, 1_200))).expect("is taken");
    }
    (0..30).for_each(|position| drop(send(store, &settling(LOG, position, 1_200)).expect("is taken")));
    let mut batch = Batch::default();
    let large = body(9, 20_000);
    batch.put_bytes(cell(1), &large);
    send(store, &batch).expect("is taken");
    let last = store.last_number();
    assert_eq!(store.backup(&copy).expect("a backup"), last);
    // the original goes on, and the copy knows nothing of it
    send(store, &letter(LOG, &body(100, 10))).expect("is taken");
    block_on(store.checkpoint()).expect("checkpoints go on");

    let (restored, report) = open_directory(&copy, &small()).expect("opens beside the original");
    assert_eq!(report, Report { commits: 0, cut: 0, clean: true });
    assert_eq!(restored.store().last_number(), last);
    assert_eq!(tags(restored.store(), LOG), (30..100).collect::<Vec<_>>());
    assert_eq!(restored.store().get(&cell(1)).expect("reads").as_deref(), Some(&large[..]));
    // it is a store like any other
    let restored = with_mailboxes(restored);
    let next = send(restored.store(), &letter(LOG, &body(100, 10))).expect("is taken");
    assert_eq!(next.positions, [100]);
    restored.close().expect("closes");
    let restored = drive_directory(&copy);
    assert_eq!(tags(restored.store(), LOG), (30..101).collect::<Vec<_>>());
    for segment in fs::read_dir(copy.join("journal")).expect("lists") {
        // the short segment of the backup was not kept as a spare
        assert_eq!(
            segment.and_then(|segment| segment.metadata()).expect("has a length").len(),
            LEAST_SEGMENT
        );
    }
}

#[test]
fn a_backup_of_an_empty_store_is_an_empty_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let driven = drive_directory(&dir.path().join("store"));
    assert_eq!(driven.store().backup(&dir.path().join("copy")).expect("a backup"), 0);
    let restored = drive_directory(&dir.path().join("copy"));
    assert!(tags(restored.store(), LOG).is_empty());
}

#[test]
fn a_backup_goes_only_into_an_empty_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let driven = drive_directory(&dir.path().join("store"));
    let full = dir.path().join("full");
    fs::create_dir(&full).and_then(|()| fs::write(full.join("thesis.txt"), "mine")).expect("writes");
    for to in [&full, &dir.path().join("store")] {
        let refused = driven.store().backup(to).expect_err("is not empty");
        assert!(matches!(refused, StoreError::Setting { .. }), "{refused}");
        assert!(refused.to_string().contains("not empty"), "{refused}");
    }
    assert_eq!(fs::read_dir(&full).expect("lists").count(), 1);
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("makes");
    driven.store().backup(&empty).expect("a backup");
}

/// Each batch moves the same amount from one cell to the other, and sends a letter with the next tag: a copy of two
/// moments would not add up.
#[test]
fn backups_taken_while_senders_go_on_are_each_of_one_moment() {
    const TOTAL: u64 = 1 << 40;
    let disk = SimulatedDisk::new(1);
    let driven = drive(&disk, &small());
    let store = driven.store();
    let dir = tempfile::tempdir().expect("a directory");
    let done = std::sync::atomic::AtomicBool::new(false);
    let amounts = |store: &Store| {
        [cell(1), cell(255)].map(|key| match store.get(&key).expect("reads") {
            Some(value) => u64::from_be_bytes(value[..8].try_into().expect("eight bytes")),
            None => 0,
        })
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for tag in 0.. {
                let mut batch = letter(LOG, &body(tag, 500));
                batch.put_bytes(cell(1), &(tag + 1).to_be_bytes());
                // many cells between the two, so that a checkpoint needs several batches for them
                for between in 2..100 {
                    batch.put_bytes(cell(between), &(tag + 1).to_be_bytes());
                }
                batch.put_bytes(cell(255), &(TOTAL - tag - 1).to_be_bytes());
                if send(store, &batch).is_err() || done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for round in 0..5 {
            let copy = dir.path().join(round.to_string());
            let admitted = store.last_number();
            let number = store.backup(&copy).expect("a backup");
            assert!(number >= admitted);
            let restored = drive_directory(&copy);
            assert_eq!(restored.store().last_number(), number);
            let [first, second] = amounts(restored.store());
            let letters = tags(restored.store(), LOG);
            assert_eq!(letters, (0..first).collect::<Vec<_>>());
            if first > 0 {
                assert_eq!(first + second, TOTAL, "the copy is of two moments");
            }
            // some batches later the next one, also between two checkpoints
            let later = store.last_number() + 20;
            assert!(soon(|| store.last_number() > later));
        }
        done.store(true, Ordering::Relaxed);
    });
    let rests = store.shared.admission().engine;
    assert_eq!(rests.holds, 0);
}

#[test]
fn the_engine_stands_still_while_a_backup_holds_it() {
    let disk = SimulatedDisk::new(2);
    let mut world = Steps::on(&disk);
    world.fill(LOG, 0, 5, 1_000);
    world.checkpoint();
    let rest = world.store.clone();
    let rest = rest.shared.hold_engine().expect("nothing is to be checkpointed");
    let all = |store: &Store| {
        store.shared.with_engine(|engine| Ok(engine.range(&[], &[u8::MAX], usize::MAX)?)).expect("reads")
    };
    let before = all(&world.store);
    // one overlay is frozen and waits, the next one fills
    world.fill(LOG, 5, 60, 1_000);
    world.ask_for_checkpoint();
    for _ in 0..50 {
        assert_ne!(world.checkpointer.step(), Step::Failed);
    }
    assert!(all(&world.store) == before, "a checkpoint wrote while a backup held the engine");
    drop(rest);
    world.checkpoint();
    assert!(all(&world.store) != before);
}

/// Everything a backup writes, cut off after each of its files: nothing of it opens as a store.
#[test]
fn a_backup_that_was_interrupted_does_not_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let driven = drive_directory(&dir.path().join("store"));
    send(driven.store(), &letter(LOG, &body(0, 100))).expect("is taken");
    let copy = dir.path().join("copy");
    driven.store().backup(&copy).expect("a backup");
    // as it was just before the manifest got its name
    fs::remove_file(copy.join("MANIFEST")).and_then(|()| fs::write(copy.join("BACKUP"), "")).expect("writes");
    for left in ["journal", "sled", ""] {
        let refused = open_directory(&copy, &small()).map(drop).expect_err("is no whole store");
        assert!(matches!(refused, StoreError::Damaged { .. } | StoreError::Foreign { .. }), "{refused}");
        if !left.is_empty() {
            fs::remove_dir_all(copy.join(left)).expect("removes");
        }
    }
    // and where the mark alone is left behind, the copy is whole
    fs::remove_dir_all(&copy).expect("removes");
    driven.store().backup(&copy).expect("a backup");
    fs::write(copy.join("BACKUP"), "").expect("writes");
    assert_eq!(tags(drive_directory(&copy).store(), LOG), [0]);
}

#[test]
fn a_backup_on_a_device_without_room_for_the_checkpoint_says_so() {
    let disk = SimulatedDisk::new(3);
    let driven = drive(&disk, &small());
    disk.set_free_space(Some(0));
    send(driven.store(), &letter(LOG, &body(0, 100))).expect("is taken");
    driven.store().shared.fail(StoreError::Closed);
    let dir = tempfile::tempdir().expect("a directory");
    let refused = driven.store().backup(&dir.path().join("copy")).expect_err("cannot end");
    assert!(matches!(refused, StoreError::Closed), "{refused}");
}
