//! Letters settled amid others that wait: their pages go, and what still waits is found whatever was interrupted.

use super::*;
use crate::store::census::Census;

const LEN: usize = 1_000;
const COUNT: u64 = 200;

fn config() -> StoreConfig {
    StoreConfig { page_file: 32 << 10, segment: 256 << 10, overlay: 512 << 10, ..small() }
}

fn open(disk: &SimulatedDisk) -> Steps {
    Steps::open_with(disk, &config()).expect("opens")
}

/// First positions of the pages in the engine.
fn pages(world: &Steps, log: LogId) -> Vec<u64> {
    let (from, to) = (keys::page(log, 0), keys::page(log, u64::MAX));
    let found = world.store.shared.read_engine(|engine| Ok(engine.range(&from, &to, usize::MAX)?));
    let found = found.expect("reads");
    found.iter().filter_map(|(key, _)| keys::log_of_page(key)).map(|(_, first)| first).collect()
}

fn living(world: &Steps) -> u64 {
    let (_, census) = world.store.shared.with_engine(Census::read).expect("reads");
    census.accounts().iter().map(|(_, account)| account.bytes).sum()
}

fn settle(world: &mut Steps, positions: impl Iterator<Item = u64>) {
    let mut batch = Batch::default();
    positions.for_each(|position| batch.supersede(LOG, position, LEN as u32));
    world.commit(&batch);
}

/// Of these, the first and the last wait, and one amid them.
fn waits(position: u64) -> bool {
    position == 0 || position == 100 || position >= COUNT - 1
}

fn is_whole(world: &Steps, what: &str) {
    let expected: Vec<_> = (0..COUNT).filter(|position| waits(*position)).collect();
    assert_eq!(tags(&world.store, LOG), expected, "{what}");
    assert_eq!(waiting(&world.store, LOG).iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected, "{what}");
}

#[test]
fn pages_of_which_every_letter_was_settled_go_although_others_before_them_wait() {
    let disk = SimulatedDisk::new(1);
    let mut world = open(&disk);
    world.fill(LOG, 0, COUNT, LEN);
    world.checkpoint();
    let before = pages(&world, LOG);
    assert!(before.len() > 5, "{before:?}");
    settle(&mut world, (0..COUNT).filter(|position| !waits(*position)));
    world.checkpoint();
    let holds = |position: u64| before.iter().copied().rfind(|first| *first <= position);
    let expected: Vec<_> = [0, 100, COUNT - 1].into_iter().filter_map(holds).collect();
    assert_eq!(pages(&world, LOG), expected);
    is_whole(&world, "settled");
    world.close().expect("closes");
    is_whole(&open(&disk), "opened again");
}

#[test]
fn a_power_cut_at_any_operation_while_pages_of_settled_letters_go_loses_nothing_that_waits() {
    for operation in 1.. {
        let disk = SimulatedDisk::new(operation);
        let mut world = open(&disk);
        world.fill(LOG, 0, COUNT, LEN);
        world.checkpoint();
        settle(&mut world, (0..COUNT).filter(|position| !waits(*position)));
        disk.cut_power_at(disk.operations() + operation);
        world.ask_for_checkpoint();
        let wanted = world.store.last_number();
        let ended = (0..500).any(|_| {
            let stopped = world.checkpointer.step() == Step::Failed;
            stopped || *world.store.shared.checkpointed.borrow() >= wanted
        });
        assert!(ended, "the checkpoint does not end");
        if !disk.is_cut() {
            assert!(operation > 5, "only {operation} operations");
            return;
        }
        drop(world);
        disk.crash();
        let mut world = open(&disk);
        is_whole(&world, &format!("cut at {operation}"));
        settle(&mut world, [1].into_iter());
        world.checkpoint();
        is_whole(&world, &format!("cut at {operation}, then a checkpoint"));
        assert!(pages(&world, LOG).len() <= 3, "{:?}", pages(&world, LOG));
    }
}

#[test]
fn pages_of_a_checkpoint_that_was_interrupted_hide_no_letter() {
    // two to a page, so that the pages are written in several batches
    const LEN: usize = 15_000;
    let config = StoreConfig { segment: 4 << 20, overlay: 16 << 20, ..config() };
    let open = |disk: &SimulatedDisk| Steps::open_with(disk, &config).expect("opens");
    for steps in 1.. {
        let disk = SimulatedDisk::new(1);
        let mut world = open(&disk);
        world.fill(LOG, 0, COUNT, LEN);
        world.ask_for_checkpoint();
        let wanted = world.store.last_number();
        for _ in 0..steps {
            assert_ne!(world.checkpointer.step(), Step::Failed);
        }
        if *world.store.shared.checkpointed.borrow() >= wanted {
            assert!(steps > 5, "only {steps} steps");
            return;
        }
        // what waits makes other pages than before: one that begins before the last of the old ones, and ends behind it
        let mut batch = Batch::default();
        let goes = (0..COUNT).filter(|position| position % 5 != 3);
        goes.for_each(|position| batch.supersede(LOG, position, LEN as u32));
        world.commit(&batch);
        drop(world);
        let mut world = open(&disk);
        let expected: Vec<_> = (3..COUNT).step_by(5).collect();
        world.checkpoint();
        assert_eq!(tags(&world.store, LOG), expected, "after {steps} steps");
        for position in expected {
            let found = world.store.read_letters(LOG, position, 1, 1).expect("reads");
            assert_eq!(found.first().map(|letter| letter.position), Some(position), "after {steps} steps");
        }
    }
}

#[test]
fn what_was_settled_stays_behind_when_a_page_is_moved() {
    let disk = SimulatedDisk::new(1);
    let mut world = open(&disk);
    // pages of both in every file, and those of the other go
    for round in 0..10 {
        world.fill(LOG, 4 * round, 4, LEN);
        world.fill(OTHER, 12 * round, 12, LEN);
        world.checkpoint();
    }
    settle(&mut world, (0..40).filter(|position| position % 4 != 3));
    for position in 0..120 {
        world.commit(&settling(OTHER, position, LEN));
    }
    for number in 0..8 {
        let mut batch = Batch::default();
        batch.put_bytes(cell(1), &[number]);
        world.commit(&batch);
        world.checkpoint();
    }
    let expected: Vec<_> = (3..40).step_by(4).collect();
    assert_eq!(tags(&world.store, LOG), expected);
    // the file that still takes pages is not given up
    assert!(living(&world) < 24 * LEN as u64, "{} bytes", living(&world));
    world.close().expect("closes");
    assert_eq!(tags(&open(&disk).store, LOG), expected);
}
