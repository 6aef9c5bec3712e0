//! Views: many readers of one log, each at its own pace.

use super::*;

const TOPIC: LogId = LogId { mailbox: 7, lane: 1 };

fn view(number: u32) -> LogId {
    LogId { mailbox: keys::FIRST_VIEW + number, lane: view::LANE }
}

fn on(disk: &SimulatedDisk) -> Steps {
    let world = Steps::on(disk);
    world.store.load_mailbox(TOPIC.mailbox, None).expect("loads");
    world
}

fn after_a_crash(disk: &SimulatedDisk, world: Steps) -> Steps {
    drop(world);
    disk.crash();
    Steps::on(disk)
}

fn make_view(world: &mut Steps, number: u32, from: u64) -> LogId {
    let (log, reader) = (view(number), 100 + number);
    world.store.load_mailbox(reader, None).expect("loads");
    world.store.keep_new_view(log.mailbox, TOPIC, reader);
    let mut batch = Batch::default();
    let record = ViewRecord { of: TOPIC, reader: Some(reader), paused: false };
    batch.put_bytes(keys::view(log.mailbox), &record.encode());
    batch.put_bytes(keys::reading(reader, TOPIC), &log.mailbox.to_be_bytes());
    batch.seek(log, from);
    world.commit(&batch);
    world.store.pause_view(log.mailbox, false);
    log
}

fn trim(world: &mut Steps, below: u64) {
    let mut batch = Batch::default();
    batch.trim(TOPIC, below, 100 * below);
    world.commit(&batch);
}

#[test]
fn each_reader_has_its_own_place_and_the_entries_lie_there_once() {
    let disk = SimulatedDisk::new(1);
    let mut world = on(&disk);
    world.fill(TOPIC, 0, 4, 100);
    let (all, late) = (make_view(&mut world, 1, 0), make_view(&mut world, 2, 4));
    world.fill(TOPIC, 4, 2, 100);
    for position in [0, 2] {
        world.commit(&settling(all, position, 100));
    }
    let expected = (vec![1, 3, 4, 5], vec![4, 5], vec![0, 1, 2, 3, 4, 5]);
    let found = |store: &Store| (tags(store, all), tags(store, late), tags(store, TOPIC));
    assert_eq!(found(&world.store), expected);
    world.checkpoint();
    assert_eq!(found(&world.store), expected);
    let pages = |log| (keys::page(log, 0), keys::page(log, u64::MAX));
    let (from, to) = pages(all);
    let own = world.store.shared.read_engine(|engine| Ok(engine.range(&from, &to, 9)?)).expect("reads");
    assert!(own.is_empty(), "a view has pages of its own");
    let world = after_a_crash(&disk, world);
    assert_eq!(found(&world.store), expected);
    let progress = world.store.progress(all).expect("loaded");
    assert_eq!((progress.front, progress.first, progress.next, progress.waiting), (1, 0, 6, 4));
}

#[test]
fn what_was_trimmed_off_is_a_gap_that_its_reader_can_see() {
    let mut world = on(&SimulatedDisk::new(2));
    world.fill(TOPIC, 0, 10, 100);
    let log = make_view(&mut world, 1, 2);
    world.commit(&settling(log, 5, 100));
    trim(&mut world, 4);
    assert_eq!(tags(&world.store, log), [4, 6, 7, 8, 9]);
    let progress = world.store.progress(log).expect("loaded");
    assert_eq!((progress.front, progress.first, progress.waiting), (2, 4, 5));
    world.checkpoint();
    assert_eq!(tags(&world.store, log), [4, 6, 7, 8, 9]);
    assert_eq!(tags(&world.store, TOPIC), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_reader_goes_back_and_forth_and_stays_there_after_a_restart() {
    let disk = SimulatedDisk::new(3);
    let mut world = on(&disk);
    world.fill(TOPIC, 0, 6, 100);
    let log = make_view(&mut world, 1, 0);
    for position in 0..5 {
        world.commit(&settling(log, position, 100));
    }
    let seek = |world: &mut Steps, to| {
        let mut batch = Batch::default();
        batch.seek(log, to);
        world.commit(&batch);
    };
    seek(&mut world, 2);
    assert_eq!(tags(&world.store, log), [2, 3, 4, 5]);
    let mut world = after_a_crash(&disk, world);
    assert_eq!(tags(&world.store, log), [2, 3, 4, 5]);
    seek(&mut world, u64::MAX);
    world.fill(TOPIC, 6, 1, 100);
    assert_eq!(tags(&world.store, log), [6]);
}

#[test]
fn an_entry_rings_the_bell_of_every_reader() {
    let mut world = on(&SimulatedDisk::new(4));
    world.fill(TOPIC, 0, 1, 100);
    let logs = [1, 2, 3].map(|number| make_view(&mut world, number, 1));
    let bells = logs.map(|log| {
        let admission = world.store.shared.admission();
        let state = &admission.mailboxes[&(100 + log.mailbox - keys::FIRST_VIEW)];
        (state.bell.clone(), state.fresh.clone())
    });
    // rung when they were put to their places
    bells.iter().for_each(|(bell, _)| block_on(bell.rung()));
    world.fill(TOPIC, 1, 1, 100);
    for (bell, fresh) in bells {
        block_on(bell.rung());
        assert_ne!(fresh.load(std::sync::atomic::Ordering::Acquire), 0);
    }
}
