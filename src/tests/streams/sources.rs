//! Sources: the rules of Reactive Streams that have a meaning for `Stream`, asked of every one, and acknowledgements.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};

use super::*;
use crate::{Deliveries, Delivery, DeliveryStream, EmptyBatch, Failure, Overflow, StartFrom};

type Numbers = Pin<Box<dyn Stream<Item = u64> + Send>>;

async fn published(system: &System, cents: impl IntoIterator<Item = u64>) -> Topic<Buy> {
    let buys = buys(system).await;
    buys.publish_all(cents.into_iter().map(|cents| buy("ann", 0, cents))).await.expect("published");
    buys
}

async fn subscription(system: &System, in_flight: usize) -> Deliveries<Buy> {
    let buys = buys(system).await;
    system.consume(&buys, "reader").in_flight(in_flight).await.expect("opens")
}

fn acking(deliveries: Deliveries<Buy>) -> Numbers {
    Box::pin(deliveries.then(|one| async move {
        let cents = one.item().cents;
        one.ack().await.expect("acknowledged");
        cents
    }))
}

/// Every source, by name, with ten numbers in it or on their way.
async fn every_source(system: &System) -> Vec<(&'static str, Numbers)> {
    let buys = buys(system).await;
    let ephemeral = buys.ephemeral(100, Overflow::Disconnect).await.expect("opens").into_stream();
    let topic = buys.read(StartFrom::Earliest).await.expect("opens");
    let mailbox = system.receive::<Buy>("mail").await.expect("opens");
    let mail = mailbox.source().clone();
    published(system, 0..10).await;
    mail.tell_all((0..10).map(|cents| buy("ann", 0, cents))).await.expect("sent");
    vec![
        ("subscription", acking(subscription(system, 1).await)),
        ("mailbox", acking(mailbox)),
        ("topic", Box::pin(topic.map(|given| given.expect("readable").event.cents)) as Numbers),
        ("ephemeral", Box::pin(ephemeral.map(|given| given.expect("kept up").event.cents))),
    ]
}

async fn handled(system: &System, name: &str) -> u64 {
    system.subscription(name).await.expect("subscribes").info().await.expect("readable").position
}

#[tokio::test]
async fn every_source_gives_its_items_in_order_one_at_a_time() {
    let world = World::new();
    let system = world.open().await;
    for (name, source) in every_source(&system).await {
        let came: Vec<_> = soon(source.take(10).collect::<Vec<_>>()).await;
        assert_eq!(came, (0..10).collect::<Vec<_>>(), "{name}");
    }
}

#[tokio::test]
async fn no_source_is_read_further_than_it_was_asked() {
    let world = World::new();
    let system = world.open().await;
    published(&system, 0..10).await;
    // 4 may be out, and one is asked for
    let mut deliveries = subscription(&system, 4).await;
    let first = soon(deliveries.next()).await.expect("one");
    a_moment().await;
    assert!(deliveries.items_waiting() == 0, "nobody asked for a second");
    drop(first);
}

#[tokio::test]
async fn no_more_items_are_out_than_may_be_in_flight() {
    let world = World::new();
    let system = world.open().await;
    published(&system, 0..10).await;
    let mut deliveries = subscription(&system, 3).await;
    let mut out = Vec::new();
    for _ in 0..3 {
        out.push(soon(deliveries.next()).await.expect("one"));
    }
    assert!(tokio::time::timeout(Duration::from_millis(60), deliveries.next()).await.is_err());
    soon(out.remove(0).ack()).await.expect("acknowledged");
    assert!(soon(deliveries.next()).await.is_some());
}

#[tokio::test]
async fn every_source_ends_with_its_system_and_gives_nothing_after_its_end() {
    let world = World::new();
    let system = world.open().await;
    let (mut deliveries, buys) = (subscription(&system, 2).await, buys(&system).await);
    let mut topic = buys.read_to_end(StartFrom::Earliest).await.expect("opens");
    let mut ephemeral = buys.ephemeral(1, Overflow::Disconnect).await.expect("opens").into_stream();
    system.shutdown(secs(60)).await.expect("ends");
    for _ in 0..3 {
        assert!(soon(deliveries.next()).await.is_none());
        assert!(soon(topic.next()).await.is_none());
    }
    assert!(matches!(soon(ephemeral.next()).await, Some(Err(crate::EphemeralEnded::Store(_)))));
    assert!(soon(ephemeral.next()).await.is_none());
}

#[tokio::test]
async fn a_source_that_is_dropped_stops_and_leaves_nothing_behind() {
    let world = World::new();
    let system = world.open().await;
    published(&system, 0..10).await;
    for round in 0..5 {
        let mut deliveries = subscription(&system, 1).await;
        let source = deliveries.source().clone();
        let one = soon(deliveries.next()).await.expect("one");
        assert_eq!(one.item().cents, round);
        drop(deliveries);
        // what was out can still be settled
        soon(one.ack()).await.expect("acknowledged");
        soon(source.ended()).await;
    }
    assert_eq!(handled(&system, "reader").await, 5);
}

#[tokio::test]
async fn what_is_dropped_or_released_comes_again_and_costs_no_attempt() {
    let world = World::new();
    let system = world.open().await;
    published(&system, 0..2).await;
    let mut deliveries = subscription(&system, 1).await;
    drop(soon(deliveries.next()).await);
    let again = only_later(&world, &mut deliveries).await;
    assert_eq!((again.item().cents, again.attempt()), (0, 1));
    again.release();
    let again = only_later(&world, &mut deliveries).await;
    assert_eq!((again.item().cents, again.attempt()), (0, 1));
    assert_eq!(again.position().map(|from| from.sequence), Some(0));
    soon(again.ack()).await.expect("acknowledged");
    assert_eq!(soon(deliveries.next()).await.expect("one").item().cents, 1);
}

/// The next item, which is due only when time has passed.
async fn only_later(world: &World, deliveries: &mut Deliveries<Buy>) -> Delivery<Buy> {
    loop {
        world.pass(Duration::from_millis(50));
        if let Ok(one) = tokio::time::timeout(Duration::from_millis(5), deliveries.next()).await {
            return one.expect("one");
        }
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_after_a_power_cut_and_what_is_does_not() {
    let world = World::new();
    let system = world.open().await;
    published(&system, 0..3).await;
    let mut deliveries = subscription(&system, 2).await;
    let first = soon(deliveries.next()).await.expect("one");
    let second = soon(deliveries.next()).await.expect("one");
    // out of order
    let (kept, acked) = if first.item().cents == 0 { (first, second) } else { (second, first) };
    soon(acked.ack()).await.expect("acknowledged");
    let system = world.crash(system).await;
    assert!(soon(kept.ack()).await.is_err(), "its source is gone");
    drop(deliveries);
    let came = soon(acking(subscription(&system, 1).await).take(2).collect::<Vec<_>>()).await;
    assert_eq!(came, [0, 2]);
}

#[tokio::test]
async fn what_failed_too_often_becomes_a_dead_letter() {
    let world = World::new();
    let system = world.open().await;
    let buys = published(&system, 0..2).await;
    let mut deliveries = system.consume(&buys, "reader").retry(at_once(2)).await.expect("opens");
    for attempt in 1..=2 {
        let one = soon(deliveries.next()).await.expect("one");
        assert_eq!((one.item().cents, one.attempt()), (0, attempt));
        one.nack(Failure::new("no"));
    }
    assert_eq!(soon(deliveries.next()).await.expect("one").item().cents, 1);
    assert_eq!(dead(&system).await[0].attempts.count, 2);
}

#[tokio::test]
async fn what_is_filtered_out_is_acknowledged_and_what_is_split_with_its_last_part() {
    let world = World::new();
    let system = world.open().await;
    published(&system, 0..6).await;
    let odd = subscription(&system, 1).await.filter_delivered(|buy| buy.cents % 2 == 1);
    let mut parts = Box::pin(odd.flat_map_delivered(|buy| [buy.cents, buy.cents * 10]));
    let (one, ten) = (soon(parts.next()).await.expect("one"), soon(parts.next()).await.expect("one"));
    assert_eq!((*one.item(), *ten.item()), (1, 10));
    soon(one.ack()).await.expect("noted");
    a_moment().await;
    assert_eq!(handled(&system, "reader").await, 1);
    soon(ten.ack()).await.expect("acknowledged");
    assert_eq!(handled(&system, "reader").await, 2);
    // all parts of the next but one
    let next = soon(parts.next()).await.expect("one");
    assert_eq!(*next.item(), 3);
}

#[tokio::test]
async fn a_batch_acknowledges_what_it_holds_and_one_of_nothing_is_refused() {
    let world = World::new();
    let system = world.open().await;
    published(&system, 0..5).await;
    let batches = subscription(&system, 4).await.batch_delivered(4, secs(30)).expect("possible");
    let mut batches = Box::pin(batches);
    let batch = soon(batches.next()).await.expect("one");
    assert_eq!(batch.item().len(), 4);
    soon(batch.ack()).await.expect("acknowledged");
    assert_eq!(handled(&system, "reader").await, 4);
    drop(batches);
    assert!(matches!(
        futures_util::stream::empty::<Delivery<u8>>().batch_delivered(0, secs(1)),
        Err(EmptyBatch)
    ));
}

#[tokio::test]
async fn operators_of_futures_work_unchanged_over_what_is_acknowledged() {
    let world = World::new();
    let system = world.open().await;
    published(&system, 0..20).await;
    let deliveries = subscription(&system, 8).await;
    let handled_by = deliveries.map(|one| async move {
        let cents = one.item().cents;
        tokio::task::yield_now().await;
        one.ack().await.map(|()| cents)
    });
    let scanned = handled_by.buffer_unordered(8).scan(0, |sum, cents| {
        *sum += cents.expect("acknowledged");
        std::future::ready(Some(*sum))
    });
    let last = soon(scanned.take(20).fold(0, |_, sum| std::future::ready(sum))).await;
    assert_eq!(last, 190);
    assert_eq!(handled(&system, "reader").await, 20);
}

#[tokio::test]
async fn a_slow_reader_of_a_topic_reads_no_more_than_a_page_ahead() {
    let world = World::new();
    let system = world.open().await;
    let buys = published(&system, 0..500).await;
    let mut topic = buys.read(StartFrom::Earliest).await.expect("opens");
    assert!(
        topic.next().now_or_never().is_none_or(|one| one.is_some()),
        "nothing is read before it is polled"
    );
    let came: Vec<_> = soon(topic.take(100).collect::<Vec<_>>()).await;
    assert_eq!(came.len(), 100);
}
