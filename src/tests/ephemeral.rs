//! Subscriptions in memory, and what each does when its reader does not keep up.

use super::world::{Note, World, a_moment, note, soon, until};
use crate::{Ephemeral, EphemeralEnded, Overflow, System, Topic};

/// A topic of ten events, published while a subscriber with room for three did not read.
async fn behind(overflow: Overflow) -> (World, System, Topic<Note>, Ephemeral<Note>) {
    let world = World::new();
    let system = world.open().await;
    let notes: Topic<Note> = system.topic("notes").await.expect("opens");
    notes.publish(note("before")).await.expect("accepted");
    let ephemeral = notes.ephemeral(3, overflow).await.expect("subscribes");
    for number in 0..10 {
        notes.publish(note(number)).await.expect("accepted");
    }
    let waits = if overflow == Overflow::Latest { 1 } else { 3 };
    until("all has come", || {
        ephemeral.lag() as u64 == waits && ephemeral.lost() == 10 - waits || ephemeral.lost() > 0
    })
    .await;
    a_moment().await;
    (world, system, notes, ephemeral)
}

/// What waits: each event, and how many were missed before it.
fn waiting(ephemeral: &mut Ephemeral<Note>) -> Vec<(String, u64)> {
    std::iter::from_fn(|| ephemeral.try_recv()).map(|received| (received.event.0, received.missed)).collect()
}

fn expected(events: &[(u64, u64)]) -> Vec<(String, u64)> {
    events.iter().map(|(event, missed)| (event.to_string(), *missed)).collect()
}

#[tokio::test]
async fn a_reader_that_keeps_up_gets_every_event_from_now_on() {
    let world = World::new();
    let system = world.open().await;
    let notes: Topic<Note> = system.topic("notes").await.expect("opens");
    notes.publish(note("before")).await.expect("accepted");
    let mut ephemeral = notes.ephemeral(3, Overflow::Disconnect).await.expect("subscribes");
    for number in 0..20_u64 {
        let published = notes.publish(note(number)).await.expect("accepted");
        let received = soon(ephemeral.recv()).await.expect("goes on");
        assert_eq!(
            (received.event, received.sequence, received.missed),
            (note(number), published.sequence.expect("at once"), 0)
        );
    }
    assert_eq!(ephemeral.lost(), 0);
}

#[tokio::test]
async fn drop_oldest_keeps_the_newest_and_counts_what_went_before_them() {
    let (_world, _system, notes, mut ephemeral) = behind(Overflow::DropOldest).await;
    assert_eq!(waiting(&mut ephemeral), expected(&[(7, 7), (8, 0), (9, 0)]));
    notes.publish(note(10)).await.expect("accepted");
    assert_eq!(soon(ephemeral.recv()).await.expect("goes on").missed, 0);
}

#[tokio::test]
async fn drop_newest_keeps_what_came_first_and_counts_what_did_not_fit_behind_it() {
    let (_world, _system, notes, mut ephemeral) = behind(Overflow::DropNewest).await;
    assert_eq!(waiting(&mut ephemeral), expected(&[(0, 0), (1, 0), (2, 0)]));
    notes.publish(note(10)).await.expect("accepted");
    let received = soon(ephemeral.recv()).await.expect("goes on");
    assert_eq!((received.event, received.missed), (note(10), 7));
}

#[tokio::test]
async fn latest_keeps_one_event_and_counts_the_others() {
    let (_world, _system, _notes, mut ephemeral) = behind(Overflow::Latest).await;
    assert_eq!(waiting(&mut ephemeral), expected(&[(9, 9)]));
    assert_eq!(ephemeral.lost(), 9);
}

#[tokio::test]
async fn disconnect_gives_what_fitted_and_then_ends_with_an_error() {
    let (_world, _system, notes, mut ephemeral) = behind(Overflow::Disconnect).await;
    assert_eq!(waiting(&mut ephemeral), expected(&[(0, 0), (1, 0), (2, 0)]));
    let ended = soon(ephemeral.recv()).await.expect_err("ends");
    assert!(matches!(ended, EphemeralEnded::Overflow { capacity: 3, .. }), "{ended}");
    notes.publish(note(10)).await.expect("accepted");
    assert!(soon(ephemeral.recv()).await.is_err());
}

#[tokio::test]
async fn nothing_is_received_before_it_is_durable() {
    let world = World::new();
    let system = world.open().await;
    let notes: Topic<Note> = system.topic("notes").await.expect("opens");
    let mut ephemeral = notes.ephemeral(3, Overflow::DropOldest).await.expect("subscribes");
    world.disk.hold_syncs();
    let publishing = tokio::spawn({
        let notes = notes.clone();
        async move { notes.publish(note("held")).await }
    });
    until("the sync is held", || world.disk.waiting_syncs() > 0).await;
    a_moment().await;
    let early = ephemeral.try_recv();
    // so that what is held does not hold up the end of the test
    world.disk.release_syncs();
    assert_eq!(early, None);
    publishing.await.expect("no panic").expect("accepted");
    assert_eq!(soon(ephemeral.recv()).await.expect("goes on").event, note("held"));
}

#[tokio::test]
async fn a_subscription_in_memory_ends_with_the_store_and_leaves_nothing_behind() {
    let (world, system, notes, mut ephemeral) = behind(Overflow::DropOldest).await;
    world.disk.crash();
    let _ = notes.publish(note("lost")).await;
    waiting(&mut ephemeral);
    assert!(matches!(soon(ephemeral.recv()).await, Err(EphemeralEnded::Store(_))));
    drop((ephemeral, notes, system));
    let system = world.open().await;
    let notes: Topic<Note> = system.topic("notes").await.expect("opens");
    assert_eq!(notes.info().await.expect("readable").first, 0);
}
