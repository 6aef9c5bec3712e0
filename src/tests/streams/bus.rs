//! The event bus: one, all, a reply, and what looks at messages on their way.

use std::time::Duration;

use super::*;
use crate::{AskError, Failure, Passing, Refused, SendError, Sent};

async fn noting(system: &System, bus: &crate::Bus<Note>, name: &str, log: &Log) -> crate::Registration<Note> {
    let (who, log) = (name.to_owned(), log.clone());
    let handle = move |note: Note, passing: Passing| {
        let how = if passing.sent == Sent::ToAll { "all" } else { "one" };
        let tag = passing.headers.get("tag").unwrap_or("-").to_owned();
        log.say(format!("{who} {} {how} {tag}", note.0));
        async move { Ok(note.0.len() as u64) }
    };
    system.bus_handler(bus, name, handle).await.expect("registers")
}

#[tokio::test]
async fn one_handler_gets_what_is_sent_and_all_get_what_is_published() {
    let world = World::new();
    let system = world.open().await;
    let (bus, log) = (system.bus::<Note>("prices").await.expect("opens"), Log::new());
    // it waits for a handler
    bus.send(note("early")).await.expect("stored");
    let _first = noting(&system, &bus, "a", &log).await;
    let _second = noting(&system, &bus, "b", &log).await;
    bus.publish(note("news")).await.expect("stored");
    let mut lines = log.lines(3).await;
    lines.sort();
    assert_eq!(lines, ["a early one -", "a news all -", "b news all -"]);
    assert_eq!(soon(bus.request(note("four"))).await.expect("answered"), 4);
    assert_eq!(log.len(), 4, "one of them answered");
}

#[tokio::test]
async fn a_handler_that_was_away_gets_what_was_published_meanwhile() {
    let world = World::new();
    let system = world.open().await;
    let (bus, log) = (system.bus::<Note>("prices").await.expect("opens"), Log::new());
    noting(&system, &bus, "a", &log).await.end().await;
    bus.publish(note("missed")).await.expect("stored");
    assert_eq!(log.len(), 0);
    let _again = noting(&system, &bus, "a", &log).await;
    assert_eq!(log.lines(1).await, ["a missed all -"]);
}

#[tokio::test]
async fn interceptors_see_messages_on_their_way_out_and_in_and_may_refuse_them() {
    let world = World::new();
    let system = world.open().await;
    let log = Log::new();
    let bus = system.bus::<Note>("prices").await.expect("opens");
    let bus = bus
        .outbound(|note, passing| {
            passing.headers.insert("tag", "checked");
            if note.0.is_empty() { Err(Failure::new("says nothing")) } else { Ok(()) }
        })
        .inbound(|note, passing| match passing.headers.get("tag") {
            Some("checked") if note.0 != "bad" => Ok(()),
            _ => Err(Failure::new("not checked").terminal()),
        });
    let _handler = noting(&system, &bus, "a", &log).await;
    let why = bus.send(note("")).await.expect_err("refused");
    assert!(matches!(&why, SendError::Refused { why: Refused::Intercepted { .. }, .. }), "{why}");
    bus.send(note("good")).await.expect("stored");
    assert_eq!(log.lines(1).await, ["a good one checked"]);
    let why = soon(bus.request(note("bad"))).await.expect_err("its handler never saw it");
    assert!(matches!(why, AskError::Failed { .. }));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(log.len(), 1);
}
