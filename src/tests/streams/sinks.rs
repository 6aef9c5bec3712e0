//! Sinks: what was flushed is stored, in order, and a sink that is full is not ready.

use futures_util::{FutureExt, SinkExt, StreamExt, stream};

use super::*;

#[tokio::test]
async fn a_topic_takes_a_stream_in_order_and_a_flush_means_it_is_on_disk() {
    let world = World::new();
    let system = world.open().await;
    let out = lines_topic(&system, "out").await;
    let mut numbers = stream::iter((0..100).map(|n| Ok(line(n))));
    soon(out.sink(7).send_all(&mut numbers)).await.expect("stored");
    let system = world.crash(system).await;
    let out = lines_topic(&system, "out").await;
    assert_eq!(all_of(&system, &out).await, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_sink_is_not_ready_until_what_waits_is_stored() {
    let world = World::new();
    let system = world.open().await;
    let out = lines_topic(&system, "out").await;
    let mut sink = out.sink(2);
    world.disk.hold_syncs();
    for n in 0..4 {
        assert!(sink.feed(line(n)).now_or_never().is_some(), "two wait and two are under way");
    }
    assert!(sink.feed(line(4)).now_or_never().is_none(), "there is no room for a fifth");
    world.disk.release_syncs();
    soon(sink.feed(line(4))).await.expect("stored");
    soon(sink.close()).await.expect("stored");
    assert_eq!(out.info().await.expect("readable").events, 5);
}

#[tokio::test]
async fn an_actor_and_its_mailbox_take_a_stream() {
    let world = World::new();
    let system = world.open().await;
    let log = Log::new();
    // it does not run: its mailbox takes it
    let mailbox = bound(&system, "scribe").await;
    let mut notes = stream::iter((0..20).map(|n| Ok(note(n))));
    soon(mailbox.sink(8).send_all(&mut notes)).await.expect("stored");
    let scribe = scribe(&system, "scribe", &log).await;
    soon(stream::iter([Ok(note(20))]).forward(scribe.sink(1))).await.expect("stored");
    assert_eq!(log.lines(21).await, (0..=20).map(|n| n.to_string()).collect::<Vec<_>>());
}
