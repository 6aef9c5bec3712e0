//! What comes back after a restart: all that was durable, nothing that is older, and nothing twice.

use super::*;
use crate::store::manifest::Manifest;

#[test]
fn a_number_that_was_lost_with_a_power_cut_is_never_given_again() {
    let disk = SimulatedDisk::new(1);
    let mut world = Steps::on(&disk);
    world.fill(LOG, 0, 3, 100);
    let lost = world.admit(&letter(LOG, &body(3, 100)));
    drop(world);
    disk.crash();
    let mut world = Steps::on(&disk);
    assert_eq!(tags(&world.store, LOG), [0, 1, 2]);
    let next = world.commit(&letter(LOG, &body(4, 100)));
    assert!(next.number > lost.number, "{} was given to another commit", lost.number);
}

/// A killed process leaves what it had not synced in the page cache, where the next one finds it. When the power goes
/// later, what the next one built on it must not be missing its ground.
#[test]
fn what_a_killed_process_had_written_survives_a_power_cut_once_the_next_one_has_found_it() {
    let mut found_once = false;
    for seed in 0..40 {
        let disk = SimulatedDisk::new(seed);
        let mut world = Steps::on(&disk);
        world.fill(LOG, 0, 3, 3_000);
        // killed before its sync returned: in the file, and not known to be durable
        world.admit(&letter(LOG, &body(3, 3_000)));
        disk.fail_at(disk.operations() + 3, std::io::ErrorKind::Other);
        assert_eq!(world.committer.step(), Step::Failed);
        drop(world);
        let mut world = Steps::on(&disk);
        let found = tags(&world.store, LOG);
        found_once |= found.len() == 4;
        world.fill(LOG, 4, 1, 100);
        let durable = tags(&world.store, LOG);
        drop(world);
        disk.crash();
        let world = Steps::open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(tags(&world.store, LOG), durable, "seed {seed}");
    }
    assert!(found_once);
}

#[test]
fn what_a_process_killed_in_a_checkpoint_had_done_survives_a_power_cut_once_the_next_one_has_found_it() {
    let mut killed = 0;
    for operation in 1..=20 {
        for seed in 0..8 {
            let disk = SimulatedDisk::new(operation * 100 + seed);
            let mut world = Steps::on(&disk);
            world.fill(LOG, 0, 25, 3_000);
            (0..25).for_each(|position| drop(world.commit(&settling(LOG, position, 3_000))));
            // an error at this point, and no more operations after it: a kill, as far as the disk can tell
            disk.fail_at(disk.operations() + operation, std::io::ErrorKind::Other);
            world.ask_for_checkpoint();
            if !(0..40).any(|_| world.checkpointer.step() == Step::Failed) {
                continue;
            }
            killed += 1;
            drop(world);
            let mut next = Steps::on(&disk);
            next.fill(LOG, 25, 1, 100);
            // it writes a manifest before it has flushed what it found
            next.checkpointer.mark_high_water().expect("writes");
            drop(next);
            disk.crash();
            let world = Steps::open(&disk);
            let world = world.unwrap_or_else(|error| panic!("operation {operation}, seed {seed}: {error}"));
            assert_eq!(tags(&world.store, LOG), [25]);
        }
    }
    assert!(killed > 10 * 8, "a checkpoint has only {} operations", killed / 8);
}

#[test]
fn positions_of_a_drained_mailbox_are_not_given_again_after_a_restart() {
    for closes in [true, false] {
        let disk = SimulatedDisk::new(2);
        let mut world = Steps::on(&disk);
        world.fill(LOG, 0, 5, 100);
        (0..5).for_each(|position| drop(world.commit(&settling(LOG, position, 100))));
        world.checkpoint();
        if closes {
            world.close().expect("closes");
        } else {
            drop(world);
            disk.crash();
        }
        let mut world = Steps::on(&disk);
        assert_eq!(world.commit(&letter(LOG, &body(5, 100))).positions, [5]);
    }
}

#[test]
fn a_value_deleted_after_a_checkpoint_stays_deleted() {
    let disk = SimulatedDisk::new(3);
    let mut world = Steps::on(&disk);
    let put = |value: &[u8]| {
        let mut batch = Batch::default();
        batch.put_bytes(cell(1), value);
        batch
    };
    world.commit(&put(b"old"));
    world.checkpoint();
    world.commit(&put(b"new"));
    let mut delete = Batch::default();
    delete.delete(cell(1));
    world.commit(&delete);
    assert_eq!(world.store.get(&cell(1)).expect("reads"), None);
    world.checkpoint();
    assert_eq!(world.store.get(&cell(1)).expect("reads"), None);
}

/// Groups of one size, so that those of a recycled segment lie exactly where the next group would.
#[test]
fn groups_of_a_recycled_segments_former_life_are_not_replayed() {
    let disk = SimulatedDisk::new(4);
    let mut world = Steps::on(&disk);
    let (mut sent, mut stale) = (0, 0);
    for _ in 0..12 {
        world.fill(LOG, sent, 40, 1_000);
        sent += 40;
        world.checkpoint();
        world.fill(LOG, sent, 7, 1_000);
        sent += 7;
        let disk = disk.fork();
        disk.crash();
        stale += u64::from(has_stale_group_behind_its_end(&disk));
        let world = Steps::open(&disk).expect("opens");
        assert_eq!(tags(&world.store, LOG), (0..sent).collect::<Vec<_>>());
        assert_eq!(world.report.commits, 7);
    }
    assert!(stale > 0, "no recycled segment had anything to replay");
}

fn has_stale_group_behind_its_end(disk: &SimulatedDisk) -> bool {
    let last = disk.files().into_iter().rfind(|name| name.ends_with(".seg")).expect("a segment");
    let file = disk.medium().open(&last).expect("is there");
    let mut bytes = vec![0; file.len().expect("has a length") as usize];
    file.read_at(0, &mut bytes).expect("reads");
    let mut at = segment::START as usize;
    let id_at = |at: usize| group::u64_at(&bytes, at + 8).filter(|_| bytes[at..].starts_with(b"SFG1"));
    while id_at(at) == segment::id_of(last.trim_start_matches("journal/")) {
        at += group::padded(group::u32_at(&bytes, at + 36).expect("a length") as usize);
    }
    id_at(at).is_some()
}

/// The manifest still names the segment that was closed between its writing and the recycling: with nothing new in it,
/// it looked as if it were not needed.
#[test]
fn a_segment_closed_while_a_checkpoint_ends_is_kept_until_a_manifest_lets_it_go() {
    let disk = SimulatedDisk::new(7);
    let mut world = Steps::on(&disk);
    world.fill(LOG, 0, 33, 1_000);
    while world.checkpointer.step() == Step::Worked {}
    world.ask_for_checkpoint();
    let wanted = world.store.last_number();
    let recorded =
        || Manifest::read(&*disk.medium(), Path::new("")).expect("reads").expect("is there").checkpoint;
    while recorded() < wanted {
        assert_eq!(world.checkpointer.step(), Step::Worked);
    }
    let segments = || disk.files().iter().filter(|name| name.ends_with(".seg")).count();
    let before = segments();
    // does not fit behind what is there
    world.commit(&letter(LOG, &body(33, 28_000)));
    assert!(segments() > before, "no segment was closed");
    while world.checkpointer.step() == Step::Worked {}
    drop(world);
    disk.crash();
    assert_eq!(tags(&Steps::on(&disk).store, LOG), (0..34).collect::<Vec<_>>());
}

#[test]
fn readers_see_everything_at_every_step_of_a_checkpoint() {
    let disk = SimulatedDisk::new(5);
    let mut world = Steps::on(&disk);
    world.fill(LOG, 0, 30, 900);
    let mut batch = Batch::default();
    batch.put_bytes(cell(1), b"kept");
    world.commit(&batch);
    world.checkpoint();
    (0..4).for_each(|position| drop(world.commit(&settling(LOG, position, 900))));
    let mut batch = letter(LOG, &body(30, 900));
    batch.put_bytes(cell(2), b"fresh");
    batch.delete(cell(1));
    world.commit(&batch);
    let mut steps = 0;
    world.checkpoint_seen(|store| {
        steps += 1;
        assert_eq!(tags(store, LOG), (4..31).collect::<Vec<_>>(), "step {steps}");
        assert_eq!(store.get(&cell(1)).expect("reads"), None, "step {steps}");
        assert_eq!(store.get(&cell(2)).expect("reads").as_deref(), Some(&b"fresh"[..]), "step {steps}");
        let cells = store.scan(&keys::cells(1), &keys::cells(2), 10).expect("scans");
        assert_eq!(cells.len(), 1, "step {steps}");
    });
    assert!(steps > 4);
}

#[test]
fn a_journal_longer_than_the_overlay_is_moved_to_the_engine_while_it_is_replayed() {
    let disk = SimulatedDisk::new(6);
    let large = StoreConfig { overlay: 16 << 20, segment: 1 << 20, ..small() };
    let mut world = Steps::open_with(&disk, &large).expect("opens");
    world.fill(LOG, 0, 400, 2_000);
    (0..200).for_each(|position| drop(world.commit(&settling(LOG, position, 2_000))));
    drop(world);
    disk.crash();
    let overlay = 64 << 10;
    let tight = StoreConfig { overlay, segment: 1 << 20, ..small() };
    let mut world = Steps::open_with(&disk, &tight).expect("opens");
    assert_eq!(world.report.commits, 600);
    assert!(world.store.shared.admission().active.bytes() <= 2 * overlay);
    assert_eq!(tags(&world.store, LOG), (200..400).collect::<Vec<_>>());
    world.fill(LOG, 400, 50, 2_000);
    drop(world);
    disk.crash();
    let world = Steps::open_with(&disk, &tight).expect("opens");
    assert_eq!(tags(&world.store, LOG), (200..450).collect::<Vec<_>>());
}
