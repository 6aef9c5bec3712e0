//! Duplicates: accepted once, answered as the first was, within a window.

use super::world::*;
use crate::{Address, AskError, Failure, Refused, SendError, SendOptions};

#[tokio::test]
async fn a_duplicate_is_accepted_once_and_told_the_first_id_over_restarts() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    let to = bound(&system, "a").await;
    let first = to.tell(note("one")).dedup_id("x").await.unwrap();
    for round in 0..3 {
        let to = bound(&system, "a").await;
        assert_eq!(to.tell(note("one")).dedup_id("x").await.unwrap(), first);
        if round == 1 {
            scribe(&system, "a", &log).await;
            log.lines(1).await;
            settled(&to).await;
        }
        system = world.crash(system).await;
    }
    scribe(&system, "a", &log).await;
    let other = bound(&system, "b").await;
    assert_ne!(
        other.tell(note("one")).dedup_id("x").await.unwrap(),
        first,
        "another mailbox is another matter"
    );
    a_moment().await;
    assert_eq!(log.all(), ["one"]);
}

#[tokio::test]
async fn two_at_the_same_time_are_one() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    let sends = (0..20).map(|_| to.tell(note("one")).dedup_id("x").into_future());
    let ids: Vec<_> = futures_util::future::join_all(sends).await.into_iter().map(Result::unwrap).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    a_moment().await;
    assert_eq!(log.all(), ["one"]);
}

#[tokio::test]
async fn an_ok_of_a_duplicate_comes_after_the_sync_of_the_first() {
    let world = World::new();
    let system = world.open().await;
    let to = bound(&system, "a").await;
    world.disk.hold_syncs();
    let first = tokio::spawn({
        let to = to.clone();
        async move { to.tell(note("one")).dedup_id("x").await.map_err(drop) }
    });
    until("the first", || to.waiting() == 1).await;
    let second = only_after(to.tell(note("one")).dedup_id("x"), || world.disk.release_syncs()).await;
    assert_eq!(soon(first).await.unwrap().unwrap(), second.unwrap());
}

#[tokio::test]
async fn another_payload_under_the_same_id_is_a_conflict_and_comes_back() {
    let world = World::new();
    let system = world.open().await;
    let to = bound(&system, "a").await;
    let now = to.tell(note("one")).dedup_id("x").await.unwrap();
    let later = to.tell(note("one")).dedup_id("y").delay(secs(1)).await.unwrap();
    for (dedup_id, expected) in [("x", now), ("y", later)] {
        for delay in [0, 5] {
            match to.tell(note("two")).dedup_id(dedup_id).delay(secs(delay)).await.unwrap_err() {
                SendError::Refused { message, why: Refused::DedupConflict { first, .. } } => {
                    assert_eq!((message, first), (note("two"), expected));
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(
            to.tell(note("one")).dedup_id(dedup_id).await.unwrap(),
            expected,
            "the same, though not delayed"
        );
    }
    let asked = to.ask(note("two")).dedup_id("x").await;
    assert!(matches!(asked, Err(AskError::Refused { why: Refused::DedupConflict { .. }, .. })), "{asked:?}");
}

#[tokio::test]
async fn an_id_is_free_again_when_its_window_has_passed() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    let first = to.tell(note("one")).dedup_id("x").await.unwrap();
    world.pass(secs(24 * 3600));
    assert_eq!(to.tell(note("one")).dedup_id("x").await.unwrap(), first);
    world.pass(secs(1));
    let second = to.tell(note("another")).dedup_id("x").await.unwrap();
    assert_ne!(second, first);
    assert_eq!(to.tell(note("another")).dedup_id("x").await.unwrap(), second);
    assert_eq!(log.lines(2).await, ["one", "another"]);
}

#[tokio::test]
async fn marks_are_forgotten_when_their_window_has_passed() {
    let world = World::new();
    let system = world.open().await;
    let to = bound(&system, "a").await;
    for number in 0..10 {
        to.tell(note("one")).dedup_id(number.to_string()).await.unwrap();
    }
    world.pass(secs(24 * 3600 + 1));
    let end = std::time::Instant::now() + secs(10);
    while !to.runtime.ledger.aged_marks(None, 10).await.unwrap().0.is_empty() {
        assert!(std::time::Instant::now() < end, "they are still there");
        world.pass(secs(60));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_ask_with_a_dedup_id_is_answered_as_the_first_was_over_restarts() {
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    for _ in 0..3 {
        let said = log.clone();
        let spawn = probe(&system, "a", move |turn| {
            said.say(turn.note);
            let answer = said.len() as u64;
            Box::pin(async move { Ok(answer) })
        });
        let to = spawn.await.unwrap();
        for _ in 0..2 {
            assert_eq!(soon(to.ask(note("one")).dedup_id("x")).await.unwrap(), 1);
        }
        // whoever asks what was told gets the answer of that
        let _ = to.tell(note("two")).dedup_id("y").await.unwrap();
        assert_eq!(soon(to.ask(note("two")).dedup_id("y")).await.unwrap(), 2);
        system = world.crash(system).await;
    }
    assert_eq!(log.all(), ["one", "two"]);
}

#[tokio::test]
async fn an_ask_with_a_dedup_id_is_told_again_that_the_first_died() {
    let world = World::new();
    let mut system = world.open().await;
    for _ in 0..2 {
        let spawn = probe(&system, "a", |_| Box::pin(async { Err(Failure::new("no").terminal()) }));
        let to = spawn.await.unwrap();
        for _ in 0..2 {
            let asked = soon(to.ask(note("one")).dedup_id("x")).await;
            assert!(matches!(&asked, Err(AskError::Failed { why, .. }) if why == "no"), "{asked:?}");
        }
        system = world.crash(system).await;
    }
    assert_eq!(dead(&system).await.len(), 1);
}

#[tokio::test]
async fn the_reply_of_an_ask_with_a_dedup_id_comes_after_the_sync() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = scribe(&system, "a", &log).await;
    world.disk.hold_syncs();
    let first = only_after(to.ask(note("one")).dedup_id("x"), || world.disk.release_syncs()).await;
    assert_eq!(first.unwrap(), 0);
}

#[tokio::test]
async fn a_dedup_id_holds_for_sends_in_turns_too_even_twice_in_one_turn() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    scribe(&system, "b", &log).await;
    let spawn = probe(&system, "a", |turn| {
        Box::pin(async move {
            let to = Address::<Probe>::new("b")?;
            let options = SendOptions::new().dedup_id("x");
            turn.ctx.tell_with(&to, note("one"), &options)?;
            turn.ctx.tell_with(&to, note("one"), &options)?;
            turn.ctx.tell_with(&to, note("other"), &SendOptions::new().dedup_id("y"))?;
            Ok(0)
        })
    });
    let to = spawn.await.unwrap();
    to.ask(note("go")).await.unwrap();
    to.ask(note("go")).await.unwrap();
    bound(&system, "b").await.tell(note("one")).dedup_id("x").await.unwrap();
    a_moment().await;
    assert_eq!(log.all(), ["one", "other"]);
}

#[tokio::test]
async fn a_conflict_in_a_turn_fails_the_turn() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let b = scribe(&system, "b", &log).await;
    b.tell(note("one")).dedup_id("x").await.unwrap();
    let spawn = probe(&system, "a", |turn| {
        let text = turn.note.to_owned();
        Box::pin(async move {
            let to = Address::<Probe>::new("b")?;
            let id = if text == "within" { "z" } else { "x" };
            turn.ctx.tell_with(&to, note("two"), &SendOptions::new().dedup_id(id))?;
            turn.ctx.tell_with(&to, note(text), &SendOptions::new().dedup_id("z"))?;
            Ok(0)
        })
    });
    let to = spawn.retry(at_once(1)).await.unwrap();
    for text in ["with another", "within"] {
        let asked = soon(to.ask(note(text))).await;
        assert!(matches!(&asked, Err(AskError::Failed { why, .. }) if why.contains("dedup id")), "{asked:?}");
    }
    assert_eq!(log.all(), ["one"]);
}

#[tokio::test]
async fn a_dedup_id_needs_a_send_that_is_awaited() {
    let world = World::new();
    let system = world.open().await;
    let to = bound(&system, "a").await;
    let refused = to.tell(note("x")).dedup_id("x").submit().unwrap_err();
    assert!(matches!(refused.refused(), Some(Refused::MustAwait { option: "dedup_id" })));
}
