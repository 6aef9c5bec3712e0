//! The store as loom explores it: the real one, on a simulated disk, with its committer in a thread of the model.
//!
//! What lies on the disk, and the disk itself, is no part of what is explored: each operation on it is one step.

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::future::block_on;
use loom::thread::JoinHandle;

use super::*;
use crate::observe::Silent;
use crate::sync::explore::{explore, spawn};

pub(crate) const LOG: LogId = LogId { mailbox: 1, lane: 1 };

/// A store without threads, small enough to be opened for each interleaving.
pub(crate) struct Small {
    pub(crate) store: Store,
    disk: SimulatedDisk,
    committer: Committer,
}

impl Small {
    pub(crate) fn open() -> Self {
        Small::with(Limits { count: 100, bytes: 1 << 20 })
    }

    fn with(limits: Limits) -> Self {
        let disk = SimulatedDisk::new(1);
        let config = StoreConfig { segment: LEAST_SEGMENT, ballast: 0, limits, ..StoreConfig::default() };
        let place = Place::simulated(&disk);
        let (store, committer, ..) =
            Store::open_undriven(place, &config, Arc::new(Silent), Drive::Threads).unwrap();
        store.load_mailbox(LOG.mailbox, None).unwrap();
        Small { store, disk, committer }
    }
}

pub(crate) fn letter(tag: u8) -> Batch {
    let mut batch = Batch::default();
    let _ = batch.append(LOG, |out| {
        out.push(tag);
        Ok::<_, ()>(())
    });
    batch
}

fn one_that_wants_room() -> Batch {
    let mut batch = letter(0);
    batch.conditions.push(Condition::Room { mailbox: LOG.mailbox });
    batch
}

pub(crate) fn settling(position: u64) -> Batch {
    let mut batch = Batch::default();
    batch.settle(LOG, position, 1);
    batch
}

pub(crate) fn admit(store: &Store, batch: &Batch) -> Result<Admitted, Refusal> {
    store.admit(batch, Origin::Outside, Urgency::Now)
}

/// The tags of what waits from a position on.
fn tags(store: &Store, log: LogId, from: u64) -> Vec<(u64, u8)> {
    let Letters::Here(letters) = store.peek_letters(log, from, 10, 100) else { panic!("not in memory") };
    letters.iter().map(|letter| (letter.position, letter.envelope[0])).collect()
}

/// Several threads of a model of which the last to end closes the store: then the committer ends too.
struct Crowd {
    store: Store,
    left: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn new(store: &Store, threads: usize) -> Self {
        Crowd { store: store.clone(), left: Arc::new(AtomicUsize::new(threads)), threads: Vec::new() }
    }

    fn run(&mut self, act: impl FnOnce(&Store) + Send + 'static) {
        let (store, left) = (self.store.clone(), self.left.clone());
        self.threads.push(spawn(move || {
            act(&store);
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                store.shared.close();
            }
        }));
    }

    fn join(self) {
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// So many wait, and the committer is one more. Whoever comes while a group is written fills the next one.
fn hand_off(waiters: u8) {
    let Small { store, disk, committer } = Small::open();
    let mut crowd = Crowd::new(&store, waiters.into());
    for tag in 0..waiters {
        let disk = disk.clone();
        crowd.run(move |store| {
            let syncs = disk.syncs();
            let admitted = admit(store, &letter(tag)).unwrap();
            block_on(store.durable(&admitted)).unwrap();
            assert!(disk.syncs() > syncs, "released before a sync");
            assert!(store.durable_number() >= admitted.number, "released before its number");
        });
    }
    committer.run();
    crowd.join();
    assert_eq!(store.durable_number(), store.last_number());
}

#[test]
fn loom_nobody_is_released_before_the_sync_that_covers_it() {
    explore("group commit: two who wait, and the committer", 1, || hand_off(2));
}

/// A lost wake-up after a group commit may need as many. Here they switch only where one has to wait.
#[test]
fn loom_all_of_four_who_hand_off_a_group_come_to_their_end() {
    explore("group commit: three who wait, and the committer", 0, || hand_off(3));
}

/// One is durable before the disk fails. Then one waits for the group that is written, one for that which fills meanwhile.
#[test]
fn loom_a_failed_sync_reaches_all_who_wait_for_it_or_for_a_later_one_and_none_before() {
    explore("poison: a sync fails with commits in flight", 2, || {
        let Small { store, disk, mut committer } = Small::open();
        let before = admit(&store, &letter(0)).unwrap();
        assert_eq!(committer.step(), committer::Step::Worked);
        disk.fail_syncs(true);
        let mut crowd = Crowd::new(&store, 2);
        for tag in 1..3 {
            crowd.run(move |store| match admit(store, &letter(tag)) {
                Ok(admitted) => {
                    block_on(store.durable(&admitted)).unwrap_err();
                    assert!(store.durable_number() < admitted.number, "a failed commit is called durable");
                }
                Err(refusal) => assert!(matches!(refusal, Refusal::Failed(_)), "{refusal:?}"),
            });
        }
        committer.run();
        crowd.join();
        block_on(store.durable(&before)).unwrap();
        assert!(matches!(admit(&store, &letter(3)), Err(Refusal::Failed(_))));
    });
}

/// A reader that has nothing to do looks whether the store has failed, and sleeps.
#[test]
fn loom_whoever_waits_for_mail_or_room_hears_that_the_store_has_failed() {
    explore("poison: those who are parked", 1, || {
        let Small { store, disk, committer } = Small::with(Limits { count: 1, bytes: 100 });
        disk.fail_syncs(true);
        let (bell, _) = store.held_mailbox(LOG.mailbox).unwrap();
        let reader = {
            let store = store.clone();
            spawn(move || {
                while store.failure().is_none() {
                    block_on(bell.rung());
                }
            })
        };
        let sender = {
            let store = store.clone();
            spawn(move || {
                loop {
                    match admit(&store, &one_that_wants_room()) {
                        Ok(_) => {}
                        Err(Refusal::MailboxFull { room, .. }) => block_on(room.rung()),
                        Err(Refusal::Failed(_)) => return,
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        };
        committer.run();
        reader.join().unwrap();
        sender.join().unwrap();
    });
}

/// Two commit; a third looks on.
#[test]
fn loom_numbers_and_positions_have_no_gap_and_are_seen_in_their_order() {
    explore("commit numbers and the order in which they are published", 2, || {
        let Small { store, .. } = Small::open();
        let first = store.last_number();
        let senders: Vec<_> = (0..2u8)
            .map(|sender| {
                let store = store.clone();
                spawn(move || {
                    [0, 1].map(|index| {
                        let admitted = admit(&store, &letter(sender * 2 + index)).unwrap();
                        (admitted.number, admitted.positions[0])
                    })
                })
            })
            .collect();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (number, now) = (store.last_number(), tags(&store, LOG, 0));
            assert!(now.starts_with(&seen), "what was seen has changed");
            assert!(
                now.len() as u64
                    >= number.saturating_sub(first.max(store.shared.admission().epoch_first - 1))
            );
            assert!(now.iter().zip(0..).all(|((position, _), expected)| *position == expected), "a gap");
            seen = now;
        }
        let mut given: Vec<_> = senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect();
        assert!(given.chunks(2).all(|own| own[0] < own[1]));
        given.sort_unstable();
        let start = given[0].0;
        let expected: Vec<_> = (0..4).map(|index| (start + index, index)).collect();
        assert_eq!(given, expected);
    });
}

/// A mailbox takes one message. Two wait for room; one of them gives up while it waits. Whoever stays gets the place.
#[test]
fn loom_room_is_not_lost_with_a_sender_that_gave_up() {
    explore("capacity: a sender gives up while it waits", 2, || {
        let Small { store, .. } = Small::with(Limits { count: 1, bytes: 100 });
        admit(&store, &one_that_wants_room()).unwrap();
        let gives_up = {
            let store = store.clone();
            spawn(move || {
                let refused = admit(&store, &one_that_wants_room());
                let Err(Refusal::MailboxFull { room, .. }) = refused else { return true };
                let _in_line = store.in_line(LOG.mailbox);
                let mut waits = std::pin::pin!(room.rung());
                // dropped after one look, also when it was woken since
                block_on(std::future::poll_fn(|cx| {
                    let _ = waits.as_mut().poll(cx);
                    Poll::Ready(())
                }));
                false
            })
        };
        let stays = {
            let store = store.clone();
            spawn(move || {
                while let Err(refusal) = admit(&store, &one_that_wants_room()) {
                    let Refusal::MailboxFull { room, .. } = refusal else { panic!("{refusal:?}") };
                    block_on(room.rung());
                }
            })
        };
        admit(&store, &settling(0)).unwrap();
        if gives_up.join().unwrap() {
            // it did get the place: it is given back
            admit(&store, &settling(1)).unwrap();
        }
        stays.join().unwrap();
    });
}

/// An old incarnation commits late, while a new one begins: what the new one read is what there is.
#[test]
fn loom_an_old_incarnation_commits_nothing_once_a_new_one_has_begun() {
    explore("fence: a late commit against a new incarnation", 3, || {
        let Small { store, .. } = Small::open();
        admit(&store, &letter(0)).unwrap();
        let turn = |incarnation| {
            let mut batch = settling(0);
            batch.conditions.push(Condition::Incarnation { mailbox: LOG.mailbox, incarnation });
            batch.conditions.push(Condition::Waiting { log: LOG, position: 0 });
            batch
        };
        let old = store.fence(LOG.mailbox);
        let late = {
            let store = store.clone();
            spawn(move || admit(&store, &turn(old)).is_ok())
        };
        let new = store.fence(LOG.mailbox);
        let waits = !tags(&store, LOG, 0).is_empty();
        let handled = admit(&store, &turn(new));
        assert_eq!(handled.is_ok(), waits, "what the new incarnation read has changed: {handled:?}");
        assert_ne!(late.join().unwrap(), waits, "the message was handled twice, or never");
    });
}

/// One publishes, one subscribes meanwhile: from where it began, it sees all.
#[test]
fn loom_a_subscriber_sees_a_clean_suffix() {
    explore("subscribe against publish", 2, || {
        let Small { store, .. } = Small::open();
        const EVENTS: u8 = 3;
        admit(&store, &letter(0)).unwrap();
        let publisher = {
            let store = store.clone();
            spawn(move || (1..EVENTS).for_each(|tag| drop(admit(&store, &letter(tag)).unwrap())))
        };
        let view = LogId { mailbox: keys::FIRST_VIEW, lane: view::LANE };
        let mut next = store.progress(LOG).unwrap().next;
        let bell = store.passing_view(view.mailbox, LOG);
        while next < u64::from(EVENTS) {
            let events = tags(&store, view, next);
            for (position, tag) in &events {
                assert_eq!((*position, u64::from(*tag)), (next, next), "an event is missing, or twice there");
                next += 1;
            }
            if events.is_empty() {
                block_on(bell.rung());
            }
        }
        publisher.join().unwrap();
        assert!(tags(&store, view, next).is_empty());
    });
}

/// The reader of an entity leaves while mail comes. Its region loads what is listed.
#[test]
fn loom_mail_of_an_entity_is_read_or_listed() {
    explore("entities: mail against a reader that leaves", 2, || {
        let Small { store, .. } = Small::open();
        let entity = LogId { mailbox: FIRST_ENTITY, lane: 1 };
        let region = store.open_region("carts").unwrap();
        store.unattended("carts", 10);
        store.keep_new_mailbox(entity.mailbox, &format!("carts{KEY_MARK}1"), None);
        let sender = {
            let store = store.clone();
            spawn(move || {
                for tag in 0..2 {
                    let mut batch = Batch::default();
                    let _ = batch.append(entity, |out| {
                        out.push(tag);
                        Ok::<_, ()>(())
                    });
                    admit(&store, &batch).unwrap();
                }
            })
        };
        let mut handled = 0;
        while handled < 2 {
            let listed = store.unattended("carts", 10).listed;
            if listed.is_empty() {
                block_on(region.rung());
            }
            for mailbox in listed {
                assert!(store.attend(mailbox), "it was read already");
                for (position, tag) in tags(&store, entity, 0) {
                    assert_eq!(handled, tag);
                    handled += 1;
                    let mut batch = Batch::default();
                    batch.settle(entity, position, 1);
                    admit(&store, &batch).unwrap();
                }
                store.leave(mailbox, false);
            }
        }
        sender.join().unwrap();
    });
}
