//! Senders that are faster than the disk are slowed, memory stays bounded, and threads that race with a power cut lose
//! nothing they were told was durable.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Sends until nothing was taken for a while; how much that was.
fn until_busy(store: &Store) -> u64 {
    let mut taken = 0;
    let mut busy = 0;
    while busy < 100 {
        match store.admit(&letter(LOG, &body(taken, 1_000)), Origin::Outside, Urgency::Now) {
            Ok(_) => (taken, busy) = (taken + 1, 0),
            Err(Refusal::Busy) => {
                busy += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    taken
}

#[test]
fn senders_that_outrun_the_sync_are_slowed_and_let_in_again() {
    let disk = SimulatedDisk::new(1);
    let driven = drive(&disk, &small());
    disk.hold_syncs();
    let taken = until_busy(driven.store());
    assert!(taken * 1_000 < 2 * small().segment, "{taken} letters wait for one sync");
    assert!(driven.store().admit(&letter(LOG, &body(0, 9)), Origin::Inside, Urgency::Now).is_ok());
    disk.release_syncs();
    block_on(driven.store().eased());
    send(driven.store(), &letter(LOG, &body(taken, 1_000))).expect("is let in again");
}

#[test]
fn senders_that_outrun_the_checkpoint_are_slowed_and_memory_stays_bounded() {
    let disk = SimulatedDisk::new(2);
    let config = StoreConfig { segment: 256 << 10, overlay: 256 << 10, ..small() };
    let driven = drive(&disk, &config);
    let store = driven.store();
    let rest = store.shared.hold_engine().expect("a checkpoint ends");
    let taken = until_busy(store);
    {
        let admission = store.shared.admission();
        let held = admission.held();
        // and the letter that took it over
        assert!(held < 2 * config.overlay + 2_000, "{held} bytes are held");
        assert!(held > config.overlay, "{held} bytes are held");
    }
    drop(rest);
    for tag in taken..taken + 500 {
        send(store, &letter(LOG, &body(tag, 1_000))).expect("is let in again");
        assert!(store.shared.admission().held() < 2 * config.overlay + 2_000);
    }
    assert_eq!(tags(store, LOG), (0..taken + 500).collect::<Vec<_>>());
}

/// What is sent and settled at once costs nothing, however much it is.
#[test]
fn letters_that_are_settled_soon_leave_nothing_in_memory() {
    let disk = SimulatedDisk::new(3);
    let mut world = Steps::on(&disk);
    for position in 0..2_000 {
        world.commit(&letter(LOG, &body(position, 1_000)));
        world.commit(&settling(LOG, position, 1_000));
        while world.checkpointer.step() == Step::Worked {}
        assert!(world.store.shared.admission().active.bytes() < 4_000);
    }
    assert!(segments(&disk) <= 6, "{} segments", segments(&disk));
}

fn segments(disk: &SimulatedDisk) -> usize {
    disk.files().iter().filter(|name| name.starts_with("journal/")).count()
}

/// `STEADFAST_ROUNDS` runs more than the short form.
fn rounds() -> u64 {
    std::env::var("STEADFAST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(25)
}

#[test]
fn four_threads_of_senders_lose_nothing_durable_when_the_power_goes() {
    const SENDERS: u64 = 4;
    let mut disk = SimulatedDisk::new(4);
    let mut chance = 4;
    // of each sender: the letters it was told are durable
    let mut durable = [0; SENDERS as usize];
    let log = |sender: u64| LogId { mailbox: 20 + sender as u32, lane: 1 };
    for round in 0..rounds() {
        if round % 25 == 24 {
            // nothing is ever settled: a store in which everything waits is only slow to check
            assert!(durable.iter().sum::<u64>() > 100);
            (disk, durable) = (SimulatedDisk::new(round), [0; SENDERS as usize]);
        }
        let driven = drive(&disk, &small());
        let store = driven.store();
        for (sender, durable) in (0..).zip(&mut durable) {
            let found = tags(store, log(sender));
            assert!(
                found.len() as u64 >= *durable,
                "round {round}: {durable} of sender {sender} were durable"
            );
            assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "round {round}, sender {sender}");
            *durable = found.len() as u64;
        }
        let stop = AtomicBool::new(false);
        let send_on = |sender: u64, first: u64| {
            let mut acknowledged = first;
            for tag in first.. {
                let len = 50 + (crate::clock::mix(tag ^ sender) % 3_000) as usize;
                let Ok(admitted) = send(store, &letter(log(sender), &body(tag, len))) else { break };
                if block_on(store.durable(&admitted)).is_err() {
                    break;
                }
                acknowledged = tag + 1;
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            acknowledged
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..SENDERS)
                .map(|sender| (sender, durable[sender as usize]))
                .map(|(sender, first)| scope.spawn(move || send_on(sender, first)))
                .collect();
            std::thread::sleep(Duration::from_millis(draw(&mut chance, 40)));
            if draw(&mut chance, 5) > 0 {
                disk.cut_power_at(disk.operations() + draw(&mut chance, 60));
            }
            stop.store(true, Ordering::Relaxed);
            for (thread, durable) in threads.into_iter().zip(&mut durable) {
                *durable = thread.join().expect("a sender ends");
            }
        });
        match draw(&mut chance, 4) {
            0 => drop(driven.close().map_err(|error| assert!(disk.is_cut(), "does not close: {error}"))),
            _ => drop(driven),
        }
        // one that did not come in this round is not to come in the next one's recovery
        disk.cut_power_at(u64::MAX);
        disk.crash();
    }
}

/// Each life leaves a segment with next to nothing in it, and nothing was there to have them moved to the engine.
#[test]
fn a_store_whose_process_ended_again_and_again_lets_senders_in() {
    let disk = SimulatedDisk::new(3);
    let lives = 3 * small().live_segments as u64;
    for life in 0..lives {
        let mut steps = Steps::on(&disk);
        steps.admit(&letter(LOG, &body(life, 9)));
        assert_eq!(steps.committer.step(), Step::Worked);
    }
    assert_eq!(tags(&Steps::on(&disk).store, LOG), (0..lives).collect::<Vec<_>>());
}
