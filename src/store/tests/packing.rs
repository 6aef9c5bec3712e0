//! What a checkpoint makes of many and of large messages.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn pages(store: &Store, log: LogId) -> usize {
    let (from, to) = (keys::page(log, 0), keys::page(log, u64::MAX));
    store.shared.with_engine(|engine| Ok(engine.range(&from, &to, usize::MAX)?.len())).expect("reads")
}

fn pairs(store: &Store) -> usize {
    store.shared.with_engine(|engine| Ok(engine.range(&[], &[u8::MAX], usize::MAX)?.len())).expect("reads")
}

fn settle_all(store: &Store, log: LogId, len: usize) {
    for letters in read_all(store, log).chunks(50) {
        let mut batch = Batch::default();
        letters.iter().for_each(|letter| batch.settle(log, letter.position, len as u32));
        send(store, &batch).expect("is taken");
    }
}

#[test]
fn twenty_thousand_messages_lie_in_pages_come_back_in_order_and_leave_nothing_when_drained() {
    const LEN: usize = 150;
    let dir = tempfile::tempdir().expect("a directory");
    let config = StoreConfig { segment: 1 << 20, overlay: 1 << 20, ..small() };
    let logs = [LOG, OTHER, LogId { mailbox: 2, lane: 0 }];
    let open = || with_mailboxes(open_directory(dir.path(), &config).expect("opens").0);

    let driven = open();
    for tag in (0..20_000).step_by(100) {
        let mut batch = Batch::default();
        for tag in tag..tag + 100 {
            add_letter(&mut batch, logs[tag as usize % 3], &body(tag, LEN));
        }
        send(driven.store(), &batch).expect("is taken");
    }
    block_on(driven.store().checkpoint()).expect("a checkpoint");
    let in_pages: usize = logs.iter().map(|log| pages(driven.store(), *log)).sum();
    // a page of 32 KiB takes two hundred of them
    assert!((90..200).contains(&in_pages), "{in_pages} pages");
    driven.close().expect("closes");

    let driven = open();
    for (first, log) in logs.iter().enumerate() {
        let expected: Vec<_> = (0..20_000).filter(|tag| tag % 3 == first as u64).collect();
        assert_eq!(tags(driven.store(), *log), expected);
    }
    logs.iter().for_each(|log| settle_all(driven.store(), *log, LEN));
    block_on(driven.store().checkpoint()).expect("a checkpoint");
    assert_eq!(logs.map(|log| pages(driven.store(), log)), [0; 3]);
    // three cursors, and the number with its census
    assert_eq!(pairs(driven.store()), 4);
    driven.close().expect("closes");
    let driven = open();
    let next = send(driven.store(), &letter(LOG, &body(1, 10))).expect("is taken");
    assert_eq!(next.positions, [6_667]);
}

#[test]
fn a_log_that_is_read_in_part_keeps_what_still_waits() {
    let disk = SimulatedDisk::new(1);
    let mut world = Steps::on(&disk);
    world.fill(LOG, 0, 60, 1_000);
    world.checkpoint();
    let before = pages(&world.store, LOG);
    for settled in 0..55 {
        world.commit(&settling(LOG, settled, 1_000));
        world.checkpoint();
        drop(world);
        disk.crash();
        world = Steps::on(&disk);
        assert_eq!(tags(&world.store, LOG), (settled + 1..60).collect::<Vec<_>>());
    }
    assert!(pages(&world.store, LOG) < before);
}

#[test]
fn letters_settled_out_of_order_stay_settled_after_a_restart() {
    let disk = SimulatedDisk::new(2);
    let mut world = Steps::on(&disk);
    world.fill(LOG, 0, 30, 700);
    world.checkpoint();
    for position in (0..30).filter(|position| position % 3 != 1) {
        world.commit(&settling(LOG, position, 700));
    }
    world.checkpoint();
    drop(world);
    disk.crash();
    let world = Steps::on(&disk);
    assert_eq!(tags(&world.store, LOG), (0..30).filter(|tag| tag % 3 == 1).collect::<Vec<_>>());
    assert_eq!(world.store.depth(LOG.mailbox), Some((10, 7_000)));
}

#[test]
fn letters_and_values_of_a_mebibyte_survive_and_leave_no_chunk_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = StoreConfig { segment: 4 << 20, overlay: 2 << 20, ..small() };
    let open = || with_mailboxes(open_directory(dir.path(), &config).expect("opens").0);
    let driven = open();
    let large = body(7, 1 << 20);
    let mut batch = letter(LOG, &large);
    batch.put_bytes(cell(1), &large[..300_000]);
    send(driven.store(), &batch).expect("is taken");
    for len in [97 << 10, 128 << 10, (128 << 10) + 1] {
        send(driven.store(), &letter(LOG, &body(8, len))).expect("is taken");
    }
    driven.close().expect("closes");

    let driven = open();
    let found = read_all(driven.store(), LOG);
    assert_eq!(*found[0].envelope, *large);
    assert_eq!(
        found.iter().map(|letter| letter.envelope.len()).collect::<Vec<_>>()[1..],
        [97 << 10, 128 << 10, (128 << 10) + 1]
    );
    assert_eq!(driven.store().get(&cell(1)).expect("reads").as_deref(), Some(&large[..300_000]));
    // a shorter value has fewer chunks, and none at all in the end
    let mut batch = Batch::default();
    batch.put_bytes(cell(1), &large[..100_000]);
    for letter in &found {
        batch.settle(LOG, letter.position, letter.envelope.len() as u32);
    }
    send(driven.store(), &batch).expect("is taken");
    block_on(driven.store().checkpoint()).expect("a checkpoint");
    // cell, two chunks of it, cursor, number
    assert_eq!(pairs(driven.store()), 5);
    driven.close().expect("closes");
    assert_eq!(open().store().get(&cell(1)).expect("reads").as_deref(), Some(&large[..100_000]));
}

#[test]
fn a_batch_that_no_segment_can_hold_is_refused_whole() {
    let disk = SimulatedDisk::new(3);
    let driven = drive(&disk, &small());
    let limit = small().largest_batch();
    let refused = driven.store().admit(&letter(LOG, &vec![0; limit as usize]), Origin::Inside, Urgency::Now);
    assert!(matches!(refused, Err(Refusal::TooLarge { .. })), "{refused:?}");
    assert!(waiting(driven.store(), LOG).is_empty());
}

/// A worker of a topic ended with "must be there and is not": between its look at the overlay and its look at the cursor, the
/// first letter had been taken from the engine, and the next one lay in the overlay.
#[test]
fn a_reader_finds_what_waits_while_the_first_letter_goes_and_the_next_is_in_memory() {
    let mut world = Steps::on(&SimulatedDisk::new(1));
    world.fill(LOG, 0, 1, 10);
    let (store, done) = (world.store.clone(), Arc::new(AtomicBool::new(false)));
    let read = {
        let done = done.clone();
        move || {
            let mut reads = 0;
            while !done.load(Ordering::Acquire) {
                let letters = store.read_letters(LOG, 0, 64, 1 << 20).expect("nothing is damaged");
                assert!(!letters.is_empty(), "something waits always");
                reads += 1;
            }
            reads
        }
    };
    let readers: Vec<_> = (0..4).map(|_| std::thread::spawn(read.clone())).collect();
    for position in 0..500 {
        if readers.iter().any(std::thread::JoinHandle::is_finished) {
            break;
        }
        world.checkpoint();
        world.fill(LOG, position + 1, 1, 10);
        // by now they all look for the first one in the engine
        std::thread::sleep(std::time::Duration::from_micros(50));
        world.commit(&settling(LOG, position, 10));
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        assert!(reader.join().expect("every read succeeds") > 0);
    }
}
