//! A full disk: senders are told so before anything is written, what was accepted stays, turns and checkpoints have
//! their reserve, and work goes on when there is room, without opening the store again.

use std::io::ErrorKind;

use super::*;
use crate::store::manifest::Manifest;

/// Admits until the answer is neither a yes nor [`Refusal::Busy`]; counts the yeses.
fn until_refused(store: &Store, origin: Origin, mut batch: impl FnMut(u64) -> Batch) -> (u64, Refusal) {
    let (mut taken, mut answer) = (0, None);
    let refused = soon(|| {
        match store.admit(&batch(taken), origin, Urgency::Now) {
            Ok(_) => taken += 1,
            Err(Refusal::Busy) => {}
            Err(other) => answer = Some(other),
        }
        answer.is_some()
    });
    assert!(refused, "busy for ever, after {taken}");
    (taken, answer.expect("an answer"))
}

fn letters(tag: u64) -> Batch {
    letter(LOG, &body(tag, 1_000))
}

#[test]
fn on_a_full_disk_senders_are_refused_turns_go_on_and_all_resumes_when_there_is_room() {
    let disk = SimulatedDisk::new(1);
    let driven = drive(&disk, &small());
    let store = driven.store();
    disk.set_free_space(Some(0));
    let (sent, refused) = until_refused(store, Origin::Outside, letters);
    assert!(matches!(refused, Refusal::NoRoom), "{refused:?}");
    assert!(sent > 10);
    block_on(store.durable_now()).expect("is durable");
    let last = store.last_number();
    assert!(matches!(store.admit(&letters(sent), Origin::Outside, Urgency::Now), Err(Refusal::NoRoom)));
    assert_eq!(store.last_number(), last, "something of it happened");

    // turns settle what waits, from the reserve
    for position in 0..10 {
        let settled = store.admit(&settling(LOG, position, 1_000), Origin::Inside, Urgency::Now);
        block_on(store.durable(&settled.expect("the reserve"))).expect("is durable");
    }
    assert_eq!(tags(store, LOG), (10..sent).collect::<Vec<_>>());

    disk.set_free_space(None);
    let resumed = soon(|| store.admit(&letters(sent), Origin::Outside, Urgency::Now).is_ok());
    assert!(resumed, "still refused: {:?}", store.failure());
    block_on(store.checkpoint()).expect("a checkpoint");
    assert!(store.failure().is_none());
    drop(driven);
    disk.crash();
    assert_eq!(tags(&Steps::on(&disk).store, LOG), (10..=sent).collect::<Vec<_>>());
}

/// Turns may use all of the reserve. What is taken must also fit, whatever the sizes, or the store would fail for want
/// of a segment it had promised.
#[test]
fn turns_use_the_reserve_to_its_end_and_are_then_refused_without_harm() {
    for seed in 0..12 {
        let disk = SimulatedDisk::new(seed);
        let driven = drive(&disk, &small());
        let store = driven.store();
        let mut chance = seed;
        disk.set_free_space(Some(0));
        let largest = small().largest_batch() as usize - 40;
        let batch = |tag| {
            let len = match draw(&mut chance, 3) {
                0 => 10 + draw(&mut chance, 200) as usize,
                1 => 1_000 + draw(&mut chance, 20_000) as usize,
                _ => largest,
            };
            letter(LOG, &body(tag, len))
        };
        let (taken, refused) = until_refused(store, Origin::Inside, batch);
        assert!(matches!(refused, Refusal::NoRoom), "{refused:?}");
        block_on(store.durable_now()).expect("what was taken has its room");
        assert!(store.failure().is_none(), "{:?}", store.failure());
        assert_eq!(tags(store, LOG), (0..taken).collect::<Vec<_>>());
        disk.set_free_space(None);
        assert!(soon(|| store.admit(&letters(taken), Origin::Outside, Urgency::Now).is_ok()));
        assert!(store.failure().is_none());
    }
}

#[test]
fn senders_leave_turns_their_reserve() {
    let disk = SimulatedDisk::new(2);
    // nothing but the room in the journal may stop a sender: a checkpoint that is behind would do the reserve's work
    let config = StoreConfig { overlay: 4 << 20, live_segments: 100, ..small() };
    let driven = drive(&disk, &config);
    let store = driven.store();
    disk.set_free_space(Some(0));
    let mut sent = 0;
    loop {
        // what is written takes less room than what may have to be: refused means it only when nothing is pending
        let (taken, _) = until_refused(store, Origin::Outside, |taken| letters(sent + taken));
        sent += taken;
        block_on(store.durable_now()).expect("is written");
        if taken == 0 {
            break;
        }
    }
    let (turns, refused) = until_refused(store, Origin::Inside, |taken| letters(sent + taken));
    assert!(matches!(refused, Refusal::NoRoom), "{refused:?}");
    let reserve = small().segment / 2;
    assert!(turns * 1_000 > reserve / 2, "{turns} turns");
    assert!(store.failure().is_none());
}

/// The journal has plenty of room, and the engine none: the overlay is at its limit and stays there.
#[test]
fn senders_slowed_by_a_checkpoint_that_finds_no_room_are_told_so() {
    let disk = SimulatedDisk::new(3);
    let config = StoreConfig { segment: 4 << 20, ..small() };
    let driven = drive(&disk, &config);
    let store = driven.store();
    disk.set_free_space(Some(0));
    let (mut sent, refused) = until_refused(store, Origin::Outside, letters);
    assert!(matches!(refused, Refusal::NoRoom), "{refused:?}");
    // refused for want of a spare first, when the checkpoint is slow to begin
    let frozen = soon(|| {
        sent += u64::from(store.admit(&letters(sent), Origin::Outside, Urgency::Now).is_ok());
        store.shared.admission().frozen.is_some()
    });
    assert!(frozen, "no checkpoint begins");
    let held = store.shared.admission().active.bytes();
    assert!(held < 2 * config.overlay, "{held} bytes");
    // turns are not slowed
    store.admit(&letters(sent), Origin::Inside, Urgency::Now).expect("the reserve");
    disk.set_free_space(None);
    let (more, _) = (send_after(store, sent + 1), ());
    block_on(store.checkpoint()).expect("a checkpoint");
    assert_eq!(tags(store, LOG), (0..more).collect::<Vec<_>>());
    // and a full disk that has room again is not remembered as full
    assert!(!store.shared.segments.room().disk_full);
}

fn send_after(store: &Store, tag: u64) -> u64 {
    assert!(soon(|| store.admit(&letters(tag), Origin::Outside, Urgency::Now).is_ok()));
    tag + 1
}

#[test]
fn a_checkpoint_asked_for_on_a_full_disk_comes_when_there_is_room() {
    let disk = SimulatedDisk::new(4);
    let driven = drive(&disk, &small());
    let store = driven.store();
    for tag in 0..20 {
        send(store, &letters(tag)).expect("is taken");
    }
    disk.set_free_space(Some(0));
    block_on(async {
        let mut checkpoint = Box::pin(store.checkpoint());
        tokio::select! {
            early = &mut checkpoint => panic!("{early:?}"),
            () = tokio::time::sleep(Duration::from_millis(700)) => {}
        }
        assert!(store.failure().is_none());
        disk.set_free_space(None);
        checkpoint.await.expect("a checkpoint");
    });
    driven.close().expect("closes");
    assert_eq!(tags(&Steps::on(&disk).store, LOG), (0..20).collect::<Vec<_>>());
}

/// Room can run out at every single operation of a checkpoint: a batch, the flush, the manifest.
#[test]
fn a_checkpoint_that_runs_out_of_room_anywhere_is_taken_again() {
    for operation in 1.. {
        let disk = SimulatedDisk::new(operation);
        let mut world = Steps::on(&disk);
        world.fill(LOG, 0, 30, 1_000);
        world.checkpoint();
        (0..10).for_each(|position| drop(world.commit(&settling(LOG, position, 1_000))));
        world.fill(LOG, 30, 30, 1_000);
        while world.checkpointer.step() == Step::Worked {}
        world.ask_for_checkpoint();
        disk.fail_at(disk.operations() + operation, ErrorKind::StorageFull);
        let wanted = world.store.last_number();
        let mut recorded = false;
        for _ in 0..100 {
            recorded |=
                Manifest::read(&*disk.medium(), Path::new("")).expect("reads").expect("is there").checkpoint
                    == wanted;
            if world.checkpointer.step() == Step::Failed {
                break;
            }
        }
        if recorded && world.store.failure().is_some() {
            // renaming a segment needs no room
            assert!(operation > 8, "a checkpoint has more than {operation} operations");
            return;
        }
        assert!(world.store.failure().is_none(), "operation {operation}: {:?}", world.store.failure());
        assert_eq!(*world.store.shared.checkpointed.borrow(), wanted, "operation {operation}");
        assert_eq!(tags(&world.store, LOG), (10..60).collect::<Vec<_>>());
        drop(world);
        disk.crash();
        assert_eq!(tags(&Steps::on(&disk).store, LOG), (10..60).collect::<Vec<_>>(), "operation {operation}");
        if operation > 60 {
            return;
        }
    }
}

/// The ballast gives the one segment that opening needs; what the engine has no room for stays in memory.
#[test]
fn a_store_opens_on_a_full_disk_and_can_be_drained() {
    let disk = SimulatedDisk::new(6);
    let config = StoreConfig { ballast: LEAST_SEGMENT, ..small() };
    let mut world = Steps::open_with(&disk, &config).expect("opens");
    for tag in 0..70 {
        let admitted = world.store.admit(&letters(tag), Origin::Inside, Urgency::Now);
        assert!(admitted.is_ok() && world.committer.step() == Step::Worked);
    }
    drop(world);
    disk.crash();
    let medium = disk.medium();
    for spare in disk.files().iter().filter(|name| name.contains("spare")) {
        medium.remove(spare).expect("removes");
    }
    medium.sync_dir("journal").expect("syncs");
    disk.set_free_space(Some(0));
    let driven = drive(&disk, &config);
    let store = driven.store();
    assert_eq!(tags(store, LOG), (0..70).collect::<Vec<_>>());
    assert!(matches!(until_refused(store, Origin::Outside, letters), (0, Refusal::NoRoom)));
    for position in 0..70 {
        let settle = || store.admit(&settling(LOG, position, 1_000), Origin::Inside, Urgency::Now).is_ok();
        assert!(soon(settle), "{position}");
    }
    block_on(store.durable_now()).expect("is durable");
}

/// When the ballast is spent too, the next open says what it needs, and works once it has that.
#[test]
fn without_ballast_and_spares_a_full_disk_is_a_typed_error_until_there_is_room() {
    let disk = SimulatedDisk::new(8);
    let mut world = Steps::on(&disk);
    world.fill(LOG, 0, 20, 1_000);
    drop(world);
    disk.crash();
    let medium = disk.medium();
    for spare in disk.files().iter().filter(|name| name.contains("spare")) {
        medium.remove(spare).expect("removes");
    }
    disk.set_free_space(Some(0));
    let refused = Steps::open(&disk).map(drop).expect_err("there is no room for a segment");
    assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
    disk.set_free_space(None);
    assert_eq!(tags(&Steps::on(&disk).store, LOG), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_close_without_room_says_so_and_loses_nothing() {
    let disk = SimulatedDisk::new(7);
    let driven = drive(&disk, &small());
    for tag in 0..10 {
        send(driven.store(), &letters(tag)).expect("is taken");
    }
    disk.set_free_space(Some(0));
    let refused = driven.close().expect_err("has no room");
    assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
    disk.set_free_space(None);
    let world = Steps::on(&disk);
    assert!(!world.report.clean);
    assert_eq!(tags(&world.store, LOG), (0..10).collect::<Vec<_>>());
}
