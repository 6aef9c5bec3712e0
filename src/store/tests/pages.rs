//! Pages in files of their own: they are found whatever happens, damage to them is told, and a file goes when nothing in it
//! lives, neither earlier nor much later.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::store::census::Census;
use crate::store::manifest::Manifest;

const LEN: usize = 1_000;
const ROUNDS: u64 = 12;
const KEPT: u64 = 3 * ROUNDS;

fn config() -> StoreConfig {
    StoreConfig { page_file: 32 << 10, segment: 256 << 10, overlay: 128 << 10, ..small() }
}

fn open(disk: &SimulatedDisk) -> Steps {
    Steps::open_with(disk, &config()).expect("opens")
}

/// Bytes of the page files that are there, by name.
fn files(disk: &SimulatedDisk) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &String| {
        let file = disk.medium().open(name).expect("is there");
        let mut bytes = vec![0; file.len().expect("has a length") as usize];
        file.read_at(0, &mut bytes).expect("reads");
        bytes
    };
    let names = disk.files().into_iter().filter(|name| name.starts_with("pages/"));
    names.map(|name| (name.clone(), read(&name))).collect()
}

fn size(disk: &SimulatedDisk) -> usize {
    files(disk).values().map(Vec::len).sum()
}

fn close(world: Steps) {
    world.close().expect("closes");
}

/// In every page file a little that still waits beside much that does not: the next checkpoint moves.
fn mostly_dead(disk: &SimulatedDisk) -> Steps {
    let mut world = open(disk);
    for round in 0..ROUNDS {
        world.fill(LOG, 10 * round, 10, LEN);
        world.fill(OTHER, 3 * round, 3, LEN);
        world.checkpoint();
    }
    for position in 0..10 * ROUNDS {
        world.commit(&settling(LOG, position, LEN));
    }
    world.checkpoint();
    nudge(&mut world, 0);
    world
}

fn change(number: u8) -> Batch {
    let mut batch = Batch::default();
    batch.put_bytes(cell(1), &[number]);
    batch
}

/// Gives the next checkpoint something to do.
fn nudge(world: &mut Steps, number: u8) -> bool {
    let admitted = world.store.admit(&change(number), Origin::Inside, Urgency::Now);
    admitted.is_ok() && world.committer.step() == Step::Worked
}

/// Checkpoints until nothing is moved any more.
fn tidy(world: &mut Steps) {
    for number in 1..6 {
        assert!(nudge(world, number));
        world.checkpoint();
    }
}

/// Takes a checkpoint of everything; false when the store has failed.
fn ends(world: &mut Steps) -> bool {
    let wanted = world.store.last_number();
    world.ask_for_checkpoint();
    for _ in 0..200 {
        if *world.store.shared.checkpointed.borrow() >= wanted {
            return true;
        }
        if world.checkpointer.step() == Step::Failed {
            return false;
        }
    }
    panic!("the checkpoint does not end");
}

fn is_whole(world: &Steps, what: &str) {
    assert_eq!(tags(&world.store, OTHER), (0..KEPT).collect::<Vec<_>>(), "{what}");
    assert_eq!(tags(&world.store, LOG), [0; 0], "{what}");
}

#[test]
fn pages_that_live_are_moved_out_of_files_that_are_mostly_dead_and_those_go() {
    let disk = SimulatedDisk::new(1);
    let mut world = mostly_dead(&disk);
    let before = files(&disk);
    assert!(before.len() >= 4, "{:?}", before.keys());
    tidy(&mut world);
    is_whole(&world, "moved");
    let live = KEPT as usize * LEN;
    assert!(size(&disk) < 2 * live + (32 << 10), "{} bytes for {live}", size(&disk));
    assert!(!files(&disk).contains_key(before.keys().next().expect("one")), "the first file stays");
    close(world);
    is_whole(&open(&disk), "opened again");
    let mut world = open(&disk);
    for position in 0..KEPT {
        world.commit(&settling(OTHER, position, LEN));
    }
    world.checkpoint();
    assert_eq!(files(&disk), BTreeMap::new());
}

#[test]
fn a_power_cut_at_any_operation_of_checkpoints_that_move_and_remove_loses_no_page() {
    for seed in 0..3 {
        for operation in 1.. {
            let disk = SimulatedDisk::new(seed);
            let mut world = mostly_dead(&disk);
            let before = files(&disk).len();
            disk.cut_power_at(disk.operations() + operation);
            let went = ends(&mut world) && (1..4).all(|number| nudge(&mut world, number) && ends(&mut world));
            if went {
                assert!(operation > 40, "only {operation} operations");
                assert!(files(&disk).len() < before, "none was given up");
                break;
            }
            assert!(disk.is_cut(), "{:?}", world.store.failure());
            drop(world);
            disk.crash();
            let what = format!("seed {seed}, cut at {operation}");
            let found = disk.fork();
            recovers(&disk, &what);
            // and again while recovering
            for second in (1..).step_by(9) {
                let disk = found.fork();
                disk.cut_power_at(disk.operations() + second);
                if Steps::open_with(&disk, &config()).is_ok() && !disk.is_cut() {
                    break;
                }
                disk.crash();
                recovers(&disk, &format!("{what}, and {second} into recovery"));
            }
        }
    }
}

fn recovers(disk: &SimulatedDisk, what: &str) {
    let opened = Steps::open_with(disk, &config());
    let mut world = opened.unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    is_whole(&world, what);
    world.commit(&change(9));
    world.checkpoint();
    is_whole(&world, what);
    let (_, census) = world.store.shared.with_engine(Census::read).expect("reads");
    let living: Vec<_> = census.accounts().iter().map(|(file, _)| page_files::name(file)).collect();
    assert_eq!(
        files(disk).into_keys().collect::<Vec<_>>(),
        living,
        "{what}: what no link names is still there"
    );
    close(world);
    is_whole(&open(disk), what);
}

#[test]
fn a_failure_at_any_operation_of_a_checkpoint_loses_no_page_and_want_of_room_is_waited_out() {
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        let mut failed = 0;
        for operation in 1.. {
            let disk = SimulatedDisk::new(operation);
            let mut world = mostly_dead(&disk);
            let at = disk.operations() + operation;
            disk.fail_at(at, kind);
            let ended = ends(&mut world);
            let what = format!("{kind:?} at {operation}");
            if ended {
                is_whole(&world, &what);
            }
            if disk.operations() < at {
                assert!(operation > 20, "only {operation} operations");
                break;
            }
            // but to write the number and to remove a file takes no room
            failed += u32::from(!ended);
            drop(world);
            disk.crash();
            recovers(&disk, &what);
        }
        assert_eq!(failed > 8, kind == ErrorKind::Other, "{kind:?}: {failed}");
    }
}

#[test]
fn a_page_file_goes_only_after_the_manifest_of_the_checkpoint_that_took_its_last_page() {
    let disk = SimulatedDisk::new(1);
    let mut world = mostly_dead(&disk);
    let recorded = || Manifest::read(&*disk.medium(), Path::new("")).expect("reads").expect("is there");
    let (mut before, mut gone) = (files(&disk), 0);
    world.checkpoint_seen(|store| {
        let now = files(&disk);
        if before.keys().any(|name| !now.contains_key(name)) {
            assert_eq!(recorded().checkpoint, store.last_number(), "a file went before the manifest");
            gone += 1;
        }
        before = now;
    });
    assert!(gone > 0, "no file went");
}

#[test]
fn a_process_writes_no_page_file_of_an_earlier_one() {
    let disk = SimulatedDisk::new(1);
    let mut world = open(&disk);
    world.fill(LOG, 0, 5, LEN);
    world.checkpoint();
    let before = files(&disk);
    for closes in [true, false] {
        if closes {
            close(world);
        } else {
            drop(world);
        }
        world = open(&disk);
        world.fill(LOG, 5, 5, LEN);
        world.checkpoint();
        for (name, bytes) in &before {
            assert!(files(&disk)[name] == *bytes, "{name} was written again");
        }
    }
    assert_eq!(files(&disk).len(), 3);
}

#[test]
fn files_of_many_short_lives_become_few() {
    let disk = SimulatedDisk::new(1);
    for life in 0..60 {
        let mut world = open(&disk);
        world.fill(LOG, 3 * life, 3, LEN);
        close(world);
    }
    assert!(files(&disk).len() < 40, "{} files", files(&disk).len());
    assert_eq!(tags(&open(&disk).store, LOG), (0..180).collect::<Vec<_>>());
}

#[test]
fn many_logs_with_little_in_each_need_no_page_file() {
    let disk = SimulatedDisk::new(1);
    // nothing is checkpointed on the way: who is not held would leave memory with it
    let driven = drive(&disk, &StoreConfig { segment: 8 << 20, overlay: 8 << 20, ..small() });
    let store = driven.store();
    let logs = (0..3_000).map(|number| LogId { mailbox: keys::FIRST_ENTITY + number, lane: 1 });
    for (tag, log) in (0..).zip(logs.clone()) {
        store.load_mailbox(log.mailbox, None).expect("loads");
        send(store, &letter(log, &body(tag, 300))).expect("is taken");
    }
    block_on(store.checkpoint()).expect("a checkpoint");
    assert_eq!(files(&disk), BTreeMap::new());
    driven.close().expect("closes");
    let world = Steps::on(&disk);
    for (tag, log) in (0..).zip(logs).step_by(100) {
        assert_eq!(tags(&world.store, log), [tag]);
    }
}

/// Nothing that is written at a try without room stays, and pages are not written again because the engine has none.
#[test]
fn tries_without_room_take_no_more_of_it() {
    let disk = SimulatedDisk::new(1);
    let mut world = open(&disk);
    world.fill(LOG, 0, 40, LEN);
    world.ask_for_checkpoint();
    disk.set_free_space(Some(20_000));
    for _ in 0..40 {
        assert_ne!(world.checkpointer.step(), Step::Failed);
        assert_eq!(size(&disk), 0, "there was no room for all of it");
    }
    // room for pages, and none for the engine
    disk.set_free_space(None);
    for _ in 0..60 {
        if world.checkpointer.is_writing() {
            disk.fail_at(disk.operations() + 1, ErrorKind::StorageFull);
        }
        assert_ne!(world.checkpointer.step(), Step::Failed);
        assert!(size(&disk) < 44_000, "{} bytes", size(&disk));
    }
    assert_eq!(*world.store.shared.checkpointed.borrow(), 0);
    assert!(size(&disk) > 40_000);
    world.checkpoint();
    assert!(size(&disk) < 44_000);
    drop(world);
    disk.crash();
    assert_eq!(tags(&open(&disk).store, LOG), (0..40).collect::<Vec<_>>());
}

#[test]
fn readers_find_every_page_while_files_are_given_up() {
    let disk = SimulatedDisk::new(1);
    let mut world = open(&disk);
    let (store, done) = (world.store.clone(), Arc::new(AtomicBool::new(false)));
    let kept = Arc::new(AtomicU64::new(0));
    let reader = std::thread::spawn({
        let (done, kept) = (done.clone(), kept.clone());
        move || {
            let mut reads = 0;
            while !done.load(Ordering::Acquire) {
                let expected = kept.load(Ordering::Acquire);
                assert!(tags(&store, OTHER).len() as u64 >= expected);
                reads += 1;
            }
            reads
        }
    });
    let mut next = 0;
    for round in 0..60 {
        world.fill(OTHER, round, 1, 3 * LEN);
        kept.store(round + 1, Ordering::Release);
        world.fill(LOG, next, 12, LEN);
        world.checkpoint();
        for position in next..next + 12 {
            world.commit(&settling(LOG, position, LEN));
        }
        next += 12;
    }
    world.checkpoint();
    done.store(true, Ordering::Release);
    assert!(reader.join().expect("every read succeeds") > 0);
    assert!(size(&disk) < 700_000, "{}", size(&disk));
    assert!(!files(&disk).contains_key(&page_files::name(1)), "the first file was never given up");
}

fn read_log(store: &Store) -> Result<Vec<u64>, StoreError> {
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let letters = store.read_letters(LOG, from, 100, 1 << 20)?;
        let Some(last) = letters.last() else { return Ok(found) };
        from = last.position + 1;
        found.extend(letters.iter().map(|letter| tag(&letter.envelope)));
    }
}

/// A page of twenty letters in a file, and one page before it of which nothing lives.
fn one_page(disk: &SimulatedDisk) -> Steps {
    let mut world = open(disk);
    world.fill(OTHER, 0, 5, LEN);
    world.checkpoint();
    world.fill(LOG, 0, 20, LEN);
    (0..5).for_each(|position| drop(world.commit(&settling(OTHER, position, LEN))));
    world.checkpoint();
    world
}

#[test]
fn a_changed_byte_in_a_living_page_is_an_error_that_names_it_and_in_a_dead_one_does_no_harm() {
    let closed = SimulatedDisk::new(1);
    close(one_page(&closed));
    let unclean = SimulatedDisk::new(1);
    drop(one_page(&unclean));
    unclean.crash();
    let (name, bytes) = files(&closed).pop_first().expect("one file");
    assert!(files(&unclean)[&name][page::FILE_HEADER..] == bytes[page::FILE_HEADER..]);
    let dead = page::FILE_HEADER..page::FILE_HEADER + page::HEADER + 5 * (LEN + page::ENTRY);
    let flip = |disk: &SimulatedDisk, at: usize| {
        let disk = disk.fork();
        disk.damage(&name, |bytes| bytes[at] ^= 4).expect("is there");
        disk
    };
    for at in (dead.end..dead.end + 60).chain((dead.end..bytes.len()).step_by(211)) {
        let world = open(&flip(&closed, at));
        let refused = read_log(&world.store).expect_err("reads what was changed");
        assert!(matches!(refused, StoreError::Damaged { .. }), "byte {at}: {refused}");
        assert!(refused.to_string().contains(&name), "byte {at}: {refused}");
        let place = format!("byte {}, of mailbox 1, lane 1, with message 0", dead.end);
        assert!(refused.to_string().contains(&place), "byte {at}: {refused}");
        let refused = Steps::open_with(&flip(&unclean, at), &config()).map(drop).expect_err("opens");
        assert!(refused.to_string().contains(&name), "byte {at}: {refused}");
    }
    for at in dead.step_by(97) {
        for disk in [&closed, &unclean] {
            let world = open(&flip(disk, at));
            assert_eq!(read_log(&world.store).expect("is whole"), (0..20).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_page_file_that_is_missing_short_foreign_or_not_one_is_refused_and_nothing_is_changed() {
    let closed = SimulatedDisk::new(1);
    close(one_page(&closed));
    let unclean = SimulatedDisk::new(2);
    drop(one_page(&unclean));
    unclean.crash();
    for disk in [closed, unclean] {
        let (name, bytes) = files(&disk).pop_first().expect("one file");
        let refused = |what: &str, damage: &dyn Fn(&SimulatedDisk)| {
            let disk = disk.fork();
            damage(&disk);
            let before = files(&disk);
            let refused = Steps::open_with(&disk, &config()).map(drop).expect_err("opens");
            assert!(refused.to_string().contains(&name), "{what}: {refused}");
            assert!(!matches!(refused, StoreError::Io { .. }), "{what}: {refused}");
            assert!(files(&disk) == before, "{what}: files were changed");
            refused
        };
        refused("removed", &|disk| {
            disk.medium().remove(&name).expect("is there");
            disk.medium().sync_dir("pages").expect("syncs");
        });
        for len in [0, 39, 40, 5_000, bytes.len() - 1] {
            let cut =
                |disk: &SimulatedDisk| disk.damage(&name, |bytes| bytes.truncate(len)).expect("is there");
            refused("short", &cut);
        }
        for at in 0..page::FILE_HEADER {
            let flip = |disk: &SimulatedDisk| disk.damage(&name, |bytes| bytes[at] ^= 1).expect("is there");
            refused("its header", &flip);
        }
        let header = page::file_header(&[7; 16], 1);
        let foreign = refused("foreign", &|disk| {
            disk.damage(&name, |bytes| bytes[..header.len()].copy_from_slice(&header)).expect("is there");
        });
        assert!(matches!(foreign, StoreError::Foreign { .. }), "{foreign}");
    }
}

#[test]
fn a_damaged_page_stays_where_it_is_and_the_store_works_on() {
    let disk = SimulatedDisk::new(1);
    drop(mostly_dead(&disk));
    let mut world = open(&disk);
    let (name, bytes) = files(&disk).pop_first().expect("a file");
    // in the page behind that of ten letters which wait no more
    let at = page::FILE_HEADER + page::HEADER + 10 * (LEN + page::ENTRY) + 100;
    disk.damage(&name, |bytes| bytes[at] ^= 1).expect("is there");
    let (mut keys_of, mut hurt) = (Vec::new(), 0);
    tidy(&mut world);
    for position in 0..KEPT {
        match world.store.read_letters(OTHER, position, 1, 1) {
            Ok(letters) => keys_of.push(letters[0].position),
            Err(refused) => {
                assert!(refused.to_string().contains(&name), "{refused}");
                hurt += 1;
            }
        }
    }
    assert_eq!((hurt, keys_of.len() as u64), (3, KEPT - 3));
    assert_eq!(files(&disk)[&name].len(), bytes.len(), "the file is still there");
}

#[test]
fn a_backup_has_every_page_and_goes_on_as_a_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SimulatedDisk::new(1);
    let mut world = mostly_dead(&disk);
    world.checkpoint();
    let rest = world.store.shared.hold_engine().expect("rests");
    let copy = dir.path().join("copy");
    drop(rest);
    world.store.backup(&copy).expect("a backup");
    let count = |dir: &Path| std::fs::read_dir(dir.join("pages")).expect("lists").count();
    assert!(count(&copy) > 1);
    for closes in [true, false] {
        let (restored, report) = open_directory(&copy, &config()).expect("opens");
        assert!(report.clean);
        let restored = with_mailboxes(restored);
        assert_eq!(tags(restored.store(), OTHER), (0..KEPT).collect::<Vec<_>>());
        if closes {
            restored.close().expect("closes");
        } else {
            for position in 0..KEPT {
                send(restored.store(), &settling(OTHER, position, LEN)).expect("is taken");
            }
            block_on(restored.store().checkpoint()).expect("a checkpoint");
            assert_eq!(count(&copy), 0);
        }
    }
    // what is damaged in the original is found when it is copied
    let (name, _) = files(&disk).pop_last().expect("a file");
    disk.damage(&name, |bytes| *bytes.last_mut().expect("a byte") ^= 1).expect("is there");
    let refused = world.store.backup(&dir.path().join("other")).expect_err("copies damage");
    assert!(refused.to_string().contains(&name), "{refused}");
}
