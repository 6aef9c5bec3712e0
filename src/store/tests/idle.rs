//! Entities' mailboxes: what nobody holds leaves memory and comes back the same, and what waits is found by whoever is to
//! load it.

use super::*;

const REGION: &str = "region";

fn entity(number: u32) -> LogId {
    LogId { mailbox: keys::FIRST_ENTITY + number, lane: 1 }
}

/// A named mailbox of an entity, as it is interned.
fn name_entity(world: &mut Steps, number: u32, region: &str) -> LogId {
    let log = entity(number);
    let mut batch = Batch::default();
    batch.put_bytes(keys::mailbox(log.mailbox), format!("{region}#{number}").as_bytes());
    world.commit(&batch);
    world.store.load_mailbox(log.mailbox, None).expect("loads");
    log
}

fn is_loaded(store: &Store, log: LogId) -> bool {
    store.shared.admission().mailboxes.contains_key(&log.mailbox)
}

fn records(world: &Steps) -> usize {
    let (from, to) = (keys::cursor(entity(0)), keys::after_prefix(&[keys::class::CURSOR]));
    world.store.shared.read_engine(|engine| Ok(engine.range(&from, &to, 10_000)?)).expect("reads").len()
}

#[test]
fn an_entity_that_nobody_holds_leaves_memory_at_a_checkpoint_and_comes_back_the_same() {
    let mut world = Steps::on(&SimulatedDisk::new(1));
    let log = name_entity(&mut world, 1, REGION);
    world.fill(log, 0, 5, 100);
    let first = waiting(&world.store, log)[0].0;
    world.commit(&settling(log, first + 2, 100));
    let (before, depth) = (waiting(&world.store, log), world.store.depth(log.mailbox));
    world.checkpoint();
    assert!(!is_loaded(&world.store, log));
    assert_eq!(waiting(&world.store, log), before);
    assert_eq!(world.store.depth(log.mailbox), depth);
    let next = world.commit(&letter(log, &body(9, 100)));
    assert_eq!(next.positions, [first + 5]);
}

/// A process that was killed took the commit that made it with it, and the next one asked for what had been at work.
#[test]
fn an_entity_that_was_asked_for_before_it_was_made_is_listed_like_any_other() {
    let mut world = Steps::on(&SimulatedDisk::new(4));
    let log = entity(1);
    world.store.load_mailbox(log.mailbox, None).expect("loads");
    assert!(world.store.open_region(REGION).is_some());
    assert!(world.store.unattended(REGION, 9).missed);
    world.store.keep_new_mailbox(log.mailbox, "region#1", None);
    world.commit(&letter(log, &body(0, 100)));
    assert_eq!(world.store.unattended(REGION, 9).listed, [log.mailbox]);
}

#[test]
fn what_somebody_holds_or_reads_stays_in_memory() {
    let mut world = Steps::on(&SimulatedDisk::new(2));
    let [held, attended, idle] = [1, 2, 3].map(|number| name_entity(&mut world, number, REGION));
    let hold = world.store.hold_mailbox(held.mailbox, "region#1", None).expect("loads");
    assert!(world.store.attend(attended.mailbox));
    world.checkpoint();
    assert_eq!([held, attended, idle].map(|log| is_loaded(&world.store, log)), [true, true, false]);
    drop(hold);
    world.store.leave(attended.mailbox, false);
    world.commit(&letter(LOG, &body(0, 100)));
    world.checkpoint();
    assert_eq!([held, attended, idle].map(|log| is_loaded(&world.store, log)), [false, false, false]);
}

/// Mail that came while a checkpoint wrote what was before it is in no engine yet.
#[test]
fn an_entity_that_got_mail_during_a_checkpoint_stays_in_memory() {
    let mut world = Steps::on(&SimulatedDisk::new(3));
    let log = name_entity(&mut world, 1, REGION);
    world.fill(log, 0, 3, 100);
    world.ask_for_checkpoint();
    while world.store.shared.admission().frozen.is_none() {
        assert_eq!(world.checkpointer.step(), Step::Worked);
    }
    world.fill(log, 3, 1, 100);
    world.checkpoint();
    assert_eq!(tags(&world.store, log), [0, 1, 2, 3]);
    world.fill(log, 4, 1, 100);
    assert_eq!(tags(&world.store, log), [0, 1, 2, 3, 4]);
}

#[test]
fn an_incarnation_is_not_given_again_when_its_mailbox_was_out_of_memory() {
    let mut world = Steps::on(&SimulatedDisk::new(4));
    let log = name_entity(&mut world, 1, REGION);
    let old = world.store.fence(log.mailbox);
    world.checkpoint();
    assert!(!is_loaded(&world.store, log));
    world.store.load_mailbox(log.mailbox, None).expect("loads");
    let new = world.store.fence(log.mailbox);
    let mut batch = letter(log, &body(1, 100));
    batch.require(Condition::Incarnation { mailbox: log.mailbox, incarnation: old });
    let refused = world.store.admit(&batch, Origin::Inside, Urgency::Now);
    assert!(matches!(refused, Err(Refusal::Fenced)), "{refused:?}, {old} and {new}");
}

#[test]
fn an_entity_whose_mail_is_handled_costs_no_record_and_gives_no_position_twice() {
    for closes in [true, false] {
        let disk = SimulatedDisk::new(5);
        let mut world = Steps::on(&disk);
        let log = name_entity(&mut world, 1, REGION);
        let mut last = 0;
        for round in 0..4 {
            world.fill(log, round * 3, 3, 100);
            for (position, _) in waiting(&world.store, log) {
                assert!(position > last, "{position} was given before {last}");
                last = position;
                world.commit(&settling(log, position, 100));
            }
            world.checkpoint();
            assert_eq!(records(&world), 0);
            assert!(!is_loaded(&world.store, log));
            if round == 1 {
                if closes {
                    world.close().expect("closes");
                } else {
                    drop(world);
                    disk.crash();
                }
                world = Steps::on(&disk);
            }
            world.store.load_mailbox(log.mailbox, None).expect("loads");
        }
    }
}

/// More messages in one commit than there were commits: the number of the last commit is not above them.
#[test]
fn a_record_stays_while_its_positions_are_beyond_the_commits() {
    let mut world = Steps::on(&SimulatedDisk::new(6));
    let log = name_entity(&mut world, 1, REGION);
    let mut batch = Batch::default();
    (0..50).for_each(|tag| add_letter(&mut batch, log, &body(tag, 20)));
    world.commit(&batch);
    let mut settle = Batch::default();
    let positions = waiting(&world.store, log);
    positions.iter().for_each(|(position, _)| settle.settle(log, *position, 20));
    world.commit(&settle);
    world.checkpoint();
    assert_eq!((records(&world), is_loaded(&world.store, log)), (1, false));
    world.store.load_mailbox(log.mailbox, None).expect("loads");
    let next = world.commit(&letter(log, &body(0, 20)));
    assert!(next.positions[0] > positions[49].0);
}

#[test]
fn mail_for_an_entity_that_nobody_reads_is_listed_once_and_again_when_its_reader_leaves_some() {
    let mut world = Steps::on(&SimulatedDisk::new(7));
    let [log, other] = [1, 2].map(|number| name_entity(&mut world, number, REGION));
    let foreign = name_entity(&mut world, 3, "another");
    world.fill(log, 0, 1, 20);
    assert!(world.store.unattended(REGION, 9).listed.is_empty(), "nobody opened the region");
    assert!(world.store.open_region(REGION).is_some());
    assert!(world.store.open_region(REGION).is_none());
    assert!(world.store.unattended(REGION, 9).missed);
    world.fill(log, 1, 2, 20);
    world.fill(other, 0, 1, 20);
    world.fill(foreign, 0, 1, 20);
    let unattended = world.store.unattended(REGION, 9);
    assert_eq!((unattended.listed, unattended.missed), (vec![log.mailbox, other.mailbox], false));
    assert!(world.store.attend(log.mailbox));
    assert!(!world.store.attend(log.mailbox));
    world.fill(log, 3, 1, 20);
    assert!(world.store.unattended(REGION, 9).listed.is_empty());
    world.store.leave(log.mailbox, false);
    assert_eq!(world.store.unattended(REGION, 9).listed, [log.mailbox]);
    // it is to be left alone until more comes
    assert!(world.store.attend(log.mailbox));
    world.store.leave(log.mailbox, true);
    assert!(world.store.unattended(REGION, 9).listed.is_empty());
    world.fill(log, 4, 1, 20);
    assert_eq!(world.store.unattended(REGION, 9).listed, [log.mailbox]);
    // what waits for its reader outside the log
    assert!(world.store.attend(other.mailbox));
    for (position, _) in waiting(&world.store, other) {
        world.commit(&settling(other, position, 20));
    }
    world.store.summon(other.mailbox);
    world.store.leave(other.mailbox, false);
    assert_eq!(world.store.unattended(REGION, 9).listed, [other.mailbox]);
}

#[test]
fn everything_that_waits_is_found_by_page_wherever_it_lies() {
    let disk = SimulatedDisk::new(8);
    let mut world = Steps::on(&disk);
    let logs: Vec<_> = (0..60).map(|number| name_entity(&mut world, number, REGION)).collect();
    for (index, log) in logs.iter().enumerate() {
        world.store.load_mailbox(log.mailbox, None).expect("loads");
        world.fill(*log, 0, 2, 20);
        if index == 30 {
            world.checkpoint();
        }
    }
    let settled = [logs[3], logs[40]];
    for log in settled {
        for (position, _) in waiting(&world.store, log) {
            world.commit(&settling(log, position, 20));
        }
    }
    let wanted: Vec<_> = logs.iter().filter(|log| !settled.contains(log)).map(|log| log.mailbox).collect();
    for most in [4, 7, 100] {
        let (mut found, mut from) = (Vec::new(), Some(keys::FIRST_ENTITY));
        while let Some(next) = from {
            let (page, next) = world.store.waiting_mailboxes(next, most).expect("reads");
            found.extend(page);
            from = next;
        }
        assert_eq!(found, wanted, "{most} at once");
    }
}
