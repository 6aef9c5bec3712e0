//! Nobody hears of a commit before the sync that covers it, and all hear of a sync that failed.

use std::sync::Mutex;

use super::*;

/// Notes what became durable, in order.
#[derive(Default)]
struct Notes(Mutex<Vec<u64>>);

impl Observer for Notes {
    fn event(&self, event: &Event<'_>) {
        if let Event::GroupSynced { durable, .. } = event {
            self.0.lock().expect("lives").push(*durable);
        }
    }
}

/// Lets held syncs finish also when a check fails: the store's threads would never end.
struct Releases<'a>(&'a SimulatedDisk);

impl Drop for Releases<'_> {
    fn drop(&mut self) {
        self.0.release_syncs();
    }
}

/// Whether the future is still pending when it is looked at.
async fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
}

#[test]
fn nobody_hears_of_a_commit_while_its_sync_is_held_and_all_do_after_it() {
    let disk = SimulatedDisk::new(1);
    let driven = drive(&disk, &small());
    let _releases = Releases(&disk);
    let store = driven.store();
    block_on(async {
        disk.hold_syncs();
        let before = store.durable_number();
        let admitted: Vec<_> =
            (0..10).map(|tag| send(store, &letter(LOG, &body(tag, 500))).expect("is taken")).collect();
        assert!(soon(|| disk.waiting_syncs() > 0));
        let mut waits: Vec<_> = admitted.iter().map(|admitted| Box::pin(store.durable(admitted))).collect();
        let mut now = Box::pin(store.durable_now());
        for wait in &mut waits {
            assert!(is_pending(wait).await);
        }
        assert!(is_pending(&mut now).await);
        assert_eq!(store.durable_number(), before);
        // readers of this process see it all the same: what they do with it waits for `durable`
        assert_eq!(tags(store, LOG).len(), 10);
        disk.release_syncs();
        for wait in waits {
            wait.await.expect("is durable");
        }
        now.await.expect("is durable");
        assert_eq!(store.durable_number(), store.last_number());
    });
}

#[test]
fn commits_become_durable_in_the_order_in_which_they_were_taken() {
    let disk = SimulatedDisk::new(2);
    let notes = Arc::new(Notes::default());
    let place = Place::simulated(&disk);
    let driven =
        with_mailboxes(Driven::open(place, &small(), notes.clone(), None, Drive::Threads).expect("opens").0);
    let store = driven.store();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for tag in 0..50 {
                    let log = [LOG, OTHER][thread % 2];
                    let admitted = send(store, &letter(log, &body(tag, 200))).expect("is taken");
                    block_on(store.durable(&admitted)).expect("is durable");
                    assert!(store.durable_number() >= admitted.number);
                }
            });
        }
    });
    let durable = notes.0.lock().expect("lives").clone();
    assert!(durable.is_sorted());
    assert_eq!(durable.last(), Some(&store.last_number()));
    assert_eq!(waiting(store, LOG).len() + waiting(store, OTHER).len(), 200);
    let positions: Vec<_> = waiting(store, LOG).into_iter().map(|(position, _)| position).collect();
    assert_eq!(positions, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_failed_sync_of_the_journal_stops_the_store_and_everyone_who_waits_learns_it() {
    let disk = SimulatedDisk::new(3);
    let driven = drive(&disk, &small());
    let store = driven.store().clone();
    let kept = send(&store, &letter(LOG, &body(0, 100))).expect("is taken");
    block_on(store.durable(&kept)).expect("is durable");
    disk.hold_syncs();
    let first = send(&store, &letter(LOG, &body(1, 100))).expect("is taken");
    assert!(soon(|| disk.waiting_syncs() > 0));
    // lies in the next group, which is never written
    let second = send(&store, &letter(LOG, &body(2, 100))).expect("is taken");
    disk.fail_syncs(true);
    disk.release_syncs();
    for unknown in [&first, &second] {
        let error = block_on(store.durable(unknown)).expect_err("is not known to be durable");
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }
    assert!(block_on(store.durable_now()).is_err());
    assert!(matches!(block_on(store.failed()), StoreError::Io { .. }));
    assert!(matches!(send(&store, &letter(LOG, &body(3, 100))), Err(Refusal::Failed(_))));
    disk.fail_syncs(false);
    assert!(
        matches!(send(&store, &letter(LOG, &body(3, 100))), Err(Refusal::Failed(_))),
        "it came back to life"
    );
    assert!(driven.close().is_err());
    for powerless in [false, true] {
        if powerless {
            disk.crash();
        }
        let found = tags(&Steps::on(&disk).store, LOG);
        assert!(found == [0] || found == [0, 1], "{found:?}");
    }
}

#[test]
fn a_sync_that_failed_once_is_not_tried_again() {
    let disk = SimulatedDisk::new(4);
    let mut world = Steps::on(&disk);
    world.fill(LOG, 0, 2, 100);
    let admitted = world.admit(&letter(LOG, &body(2, 100)));
    // two writes, then the sync
    disk.fail_at(disk.operations() + 3, std::io::ErrorKind::Other);
    assert_eq!(world.committer.step(), Step::Failed);
    assert!(block_on(world.store.durable(&admitted)).is_err());
    assert!(world.store.failure().is_some());
    assert_eq!(world.committer.step(), Step::Idle);
}

#[test]
fn a_failed_flush_of_the_engine_stops_the_store_and_the_journal_still_has_everything() {
    let disk = SimulatedDisk::new(5);
    let mut world = Steps::on(&disk);
    world.fill(LOG, 0, 40, 2_000);
    disk.fail_syncs(true);
    world.ask_for_checkpoint();
    assert!((0..200).any(|_| world.checkpointer.step() == Step::Failed));
    assert!(matches!(world.store.failure(), Some(StoreError::Io { .. })));
    assert!(matches!(
        world.store.admit(&letter(LOG, &body(9, 9)), Origin::Inside, Urgency::Now),
        Err(Refusal::Failed(_))
    ));
    drop(world);
    disk.fail_syncs(false);
    disk.crash();
    assert_eq!(tags(&Steps::on(&disk).store, LOG), (0..40).collect::<Vec<_>>());
}

/// The checkpointer's thread tried a spare segment again and again once its sync had failed, and never ended.
#[test]
fn a_store_whose_spare_segment_cannot_be_synced_fails_and_still_lets_go() {
    let disk = SimulatedDisk::new(6);
    let driven = drive(&disk, &small());
    disk.hold_syncs();
    for tag in 0..60 {
        let refused = driven.store().admit(&letter(LOG, &body(tag, 3_000)), Origin::Inside, Urgency::Now);
        if refused.is_err() {
            break;
        }
    }
    disk.fail_syncs(true);
    disk.release_syncs();
    block_on(driven.store().failed());
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(driven);
        let _ = done.send(());
    });
    ended.recv_timeout(Duration::from_secs(10)).expect("its threads end");
}

/// Once a commit slipped in between the committer's end and the closing of the door, and the close failed for it.
#[test]
fn a_close_amid_senders_has_all_that_was_admitted() {
    for round in 0..200 {
        let disk = SimulatedDisk::new(round);
        let driven = drive(&disk, &small());
        let store = driven.store().clone();
        let sender = std::thread::spawn(move || {
            let mut taken = 0_u64;
            loop {
                match store.admit(&letter(LOG, &body(taken, 30)), Origin::Inside, Urgency::Now) {
                    Ok(admitted) => {
                        taken += 1;
                        // so that the committer has nothing to do now and then
                        while store.durable_number() < admitted.number && store.failure().is_none() {
                            std::hint::spin_loop();
                        }
                    }
                    Err(Refusal::Failed(_)) => return taken,
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        std::thread::sleep(Duration::from_micros(20 * round));
        driven.close().unwrap_or_else(|error| panic!("round {round}: {error}"));
        let taken = sender.join().expect("no panic");
        let driven = drive(&disk, &small());
        assert_eq!(driven.store().depth(LOG.mailbox).map(|(count, _)| count), Some(taken), "round {round}");
    }
}
