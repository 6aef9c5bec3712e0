//! An actor's durable state: cells, maps, lists and whole structs.

use serde::{Deserialize, Serialize};

use super::world::*;
use crate::store::{Batch, Origin, Urgency, keys};
use crate::{
    Actor, Cell, CellList, CellMap, Context, DecodeError, Failure, Handler, SpawnError, State, StateError,
    decode_value,
};

const WORDS: CellMap<String, u64> = CellMap::new("words", 1);
const OTHER: CellMap<String, u64> = CellMap::new("wordsx", 1);
const SIGNED: CellMap<i64, u64> = CellMap::new("signed", 1);
const QUEUE: CellList<String> = CellList::new("queue", 1);

#[tokio::test]
async fn a_cell_is_what_was_last_committed_also_after_a_crash_and_can_be_removed() {
    let world = World::new();
    let mut system = world.open().await;
    for round in 0..3 {
        let spawn = probe(&system, "a", |turn| {
            Box::pin(async move {
                if turn.note == "remove" {
                    turn.ctx.state().remove(&TOTAL);
                    assert_eq!(turn.ctx.state().get(&TOTAL)?, None);
                    return Ok(0);
                }
                let total = turn.ctx.state().get(&TOTAL)?.unwrap_or(0) + 1;
                turn.ctx.state().set(&TOTAL, &total)?;
                assert_eq!(turn.ctx.state().get(&TOTAL)?, Some(total), "a turn reads its own writes");
                Ok(total)
            })
        });
        let to = spawn.await.unwrap();
        assert_eq!(to.ask(note("add")).await.unwrap(), 1);
        assert_eq!(to.ask(note("add")).await.unwrap(), 2);
        to.stop().await;
        system = if round == 0 { world.restart(system).await } else { world.crash(system).await };
        let to = bound(&system, "a").await;
        assert_eq!(to.cell(&TOTAL).await.unwrap(), Some(2));
        let spawn = probe(&system, "a", |turn| {
            turn.ctx.state().remove(&TOTAL);
            Box::pin(async { Ok(0) })
        });
        spawn.await.unwrap().ask(note("remove")).await.unwrap();
        to.stop().await;
        assert_eq!(to.cell(&TOTAL).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_map_is_read_by_key_and_by_page_with_the_turns_own_writes_in_it() {
    let world = World::new();
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        Box::pin(async move {
            let key = |n: u64| format!("{n:03}");
            match turn.note {
                "fill" => {
                    for n in 0..100 {
                        turn.ctx.state().map(&WORDS).insert(&key(n), &n)?;
                    }
                    turn.ctx.state().map(&OTHER).insert(&key(7), &700)?;
                    for n in [-5, 3, 0, i64::MIN, i64::MAX] {
                        turn.ctx.state().map(&SIGNED).insert(&n, &0)?;
                    }
                }
                _ => {
                    turn.ctx.state().map(&WORDS).remove(&key(11))?;
                    turn.ctx.state().map(&WORDS).insert(&key(12), &1200)?;
                    turn.ctx.state().map(&WORDS).insert(&"0115".to_owned(), &115)?;
                    let map = turn.ctx.state().map(&WORDS);
                    let page = map.page(Some(&key(10)), 3).await?;
                    let expected = [("0115".to_owned(), 115), (key(12), 1200), (key(13), 13)];
                    assert_eq!(page, expected);
                    assert_eq!(map.get(&key(11)).await?, None);
                    assert_eq!(map.get(&key(12)).await?, Some(1200));
                    assert_eq!(map.get(&key(99)).await?, Some(99));
                    assert_eq!(map.page(Some(&key(99)), 9).await?, []);
                    assert_eq!(map.page(None, 1000).await?.len(), 100);
                }
            }
            Ok(0)
        })
    });
    let to = spawn.await.unwrap();
    to.ask(note("fill")).await.unwrap();
    to.ask(note("look")).await.unwrap();
    let system = world.crash(system).await;
    let to = bound(&system, "a").await;
    assert_eq!(to.map_get(&WORDS, &"012".to_owned()).await.unwrap(), Some(1200));
    assert_eq!(to.map_page(&WORDS, None, 2).await.unwrap(), [("000".to_owned(), 0), ("001".to_owned(), 1)]);
    assert_eq!(to.map_page(&WORDS, Some(&"099".to_owned()), 9).await.unwrap(), []);
    assert_eq!(to.map_page(&OTHER, None, 9).await.unwrap(), [("007".to_owned(), 700)]);
    let signed: Vec<_> =
        to.map_page(&SIGNED, None, 9).await.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(signed, [i64::MIN, -5, 0, 3, i64::MAX], "keys come in their own order");
    let long = to.map_get(&WORDS, &"x".repeat(600)).await;
    assert!(matches!(long, Err(StateError::TooLong { .. })), "{long:?}");
}

#[tokio::test]
async fn a_list_is_taken_from_its_front_and_read_by_page() {
    let world = World::new();
    let mut system = world.open().await;
    for round in 0..2_u64 {
        let spawn = probe(&system, "a", move |turn| {
            Box::pin(async move {
                assert_eq!(turn.ctx.state().list(&QUEUE).len().await?, round * 3);
                for n in 0..5 {
                    turn.ctx.state().list(&QUEUE).push(&format!("{round}.{n}")).await?;
                }
                let mut list = turn.ctx.state().list(&QUEUE);
                assert_eq!(list.pop_front().await?.as_deref(), Some(if round == 0 { "0.0" } else { "0.2" }));
                assert_eq!(list.pop_front().await?.as_deref(), Some(if round == 0 { "0.1" } else { "0.3" }));
                assert_eq!(list.get(0).await?.as_deref(), Some(if round == 0 { "0.2" } else { "0.4" }));
                assert_eq!(list.get(u64::MAX).await?, None);
                let len = list.len().await?;
                assert_eq!(len, 3 + round * 3);
                assert!(!list.is_empty().await?);
                assert_eq!(list.page(len - 1, 9).await?, [format!("{round}.4")]);
                assert_eq!(list.page(len, 9).await?, Vec::<String>::new());
                assert_eq!(list.page(len + 9, 9).await?, Vec::<String>::new(), "beyond the end");
                assert_eq!(list.page(u64::MAX, 9).await?, Vec::<String>::new());
                assert_eq!(list.page(0, 2).await?.len(), 2);
                Ok(0)
            })
        });
        soon(spawn.retry(at_once(1)).await.unwrap().ask(note("go"))).await.unwrap();
        system = world.crash(system).await;
    }
    let spawn = probe(&system, "a", |turn| {
        Box::pin(async move {
            let mut list = turn.ctx.state().list(&QUEUE);
            while list.pop_front().await?.is_some() {}
            assert!(list.is_empty().await?);
            Ok(0)
        })
    });
    soon(spawn.await.unwrap().ask(note("go"))).await.unwrap();
}

/// Found by reading for hostile records: a value pushed at the largest index made the handler panic, or the list empty.
#[tokio::test]
async fn a_list_whose_end_is_the_largest_number_there_is_cannot_be_read() {
    let world = World::new();
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        Box::pin(async move {
            let pushed = turn.ctx.state().list(&QUEUE).push(&"more".to_owned()).await;
            assert!(matches!(pushed, Err(StateError::Decode { .. })), "{pushed:?}");
            Ok(7)
        })
    });
    let to = spawn.retry(at_once(1)).await.unwrap();
    let mut batch = Batch::default();
    let ends = [0, u64::MAX].map(u64::to_be_bytes).concat();
    batch.put_bytes(keys::list_entry(to.mailbox.id, "queue", &[]), &ends);
    to.runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Now).await.unwrap();
    assert_eq!(soon(to.ask(note("go"))).await.unwrap(), 7);
}

#[tokio::test]
async fn a_cell_of_an_older_version_is_upcast_and_what_cannot_be_read_is_an_error() {
    const OLD: Cell<u32> = Cell::new("c", 1);
    const NEW: Cell<String> = Cell::new("c", 3)
        .upcast(|version, bytes| decode_value::<u32>(bytes).map(|old| format!("{old} of {version}")));
    const NO_WAY: Cell<String> = Cell::new("c", 2);
    const CHANGED: Cell<String> = Cell::new("c", 1);
    const OLDER: Cell<u32> = Cell::new("c", 0);
    let world = World::new();
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        let set = turn.ctx.state().set(&OLD, &7);
        Box::pin(async move { Ok(set.map(|()| 0)?) })
    });
    let to = spawn.await.unwrap();
    to.ask(note("go")).await.unwrap();
    assert_eq!(to.cell(&NEW).await.unwrap().as_deref(), Some("7 of 1"));
    assert!(matches!(to.cell(&NO_WAY).await, Err(StateError::NoUpcast { stored: 1, .. })));
    assert!(matches!(to.cell(&CHANGED).await, Err(StateError::Changed { version: 1, .. })));
    assert!(matches!(to.cell(&OLDER).await, Err(StateError::Newer { stored: 1, known: 0, .. })));
}

/// An actor whose whole struct is its state, and the same in a later program.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Counter {
    count: u64,
}

impl Actor for Counter {
    const NAME: &'static str = "test.counter";
    type Messages = (Note,);
    fn state() -> State<Self> {
        State::whole(1)
    }
}

impl Handler<Note> for Counter {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        self.count += 1;
        if note.0 == "fail" && ctx.attempt() == 1 {
            return Err(Failure::new("after the change"));
        }
        Ok(self.count)
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct LaterCounter {
    count: u64,
    upcast_from: Option<u32>,
}

impl Actor for LaterCounter {
    const NAME: &'static str = "test.counter";
    type Messages = (Note,);
    fn state() -> State<Self> {
        State::whole(2).upcast(|version, bytes| -> Result<Self, DecodeError> {
            decode_value::<u64>(bytes).map(|count| LaterCounter { count, upcast_from: Some(version) })
        })
    }
}

impl Handler<Note> for LaterCounter {
    async fn handle(&mut self, _: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
        self.count += 1;
        Ok(self.count)
    }
}

#[tokio::test]
async fn a_whole_struct_is_saved_with_each_turn_and_a_failed_turn_has_the_last_one() {
    let world = World::new();
    let system = world.open().await;
    let spawn = || system.spawn("a", || Counter { count: 10 }).retry(at_once(3));
    let to = spawn().await.unwrap();
    assert_eq!(to.snapshot().await.unwrap(), None);
    assert_eq!(to.ask(note("x")).await.unwrap(), 11);
    assert_eq!(to.ask(note("fail")).await.unwrap(), 12, "the failed attempt's change is gone");
    to.stop().await;
    assert_eq!(spawn().await.unwrap().ask(note("x")).await.unwrap(), 13);
    assert_eq!(to.snapshot().await.unwrap(), Some(Counter { count: 13 }));
    let system = world.crash(system).await;
    let to = system.spawn("a", || LaterCounter { count: 0, upcast_from: None }).await.unwrap();
    assert_eq!(to.snapshot().await.unwrap(), Some(LaterCounter { count: 13, upcast_from: Some(1) }));
    assert_eq!(to.ask(note("x")).await.unwrap(), 14);
}

#[tokio::test]
async fn an_actor_whose_state_cannot_be_read_does_not_start_and_its_mail_and_state_stay() {
    let world = World::new();
    let system = world.open().await;
    let to = system.spawn("a", || LaterCounter { count: 5, upcast_from: None }).await.unwrap();
    to.ask(note("x")).await.unwrap();
    to.stop().await;
    to.tell(note("waits")).await.unwrap();
    let system = world.restart(system).await;
    // the program before: it does not know version 2
    let older = system.spawn("a", || Counter { count: 0 }).await;
    assert!(matches!(older, Err(SpawnError::State { why: StateError::Newer { .. }, .. })), "{older:?}");
    let system = world.restart(system).await;
    let to = system.spawn("a", || LaterCounter { count: 0, upcast_from: None }).await.unwrap();
    assert_eq!(to.ask(note("x")).await.unwrap(), 8, "the mail was handled, on the state as it was");
}

const GUARDED: Cell<u64> = Cell::new("total", 1);
const GUARDED_CHANGED: Cell<String> = Cell::new("total", 1);

struct Guarded;
impl Actor for Guarded {
    const NAME: &'static str = "test.probe";
    type Messages = (Note,);
    fn state() -> State<Self> {
        State::cells().with(GUARDED_CHANGED)
    }
}
impl Handler<Note> for Guarded {
    async fn handle(&mut self, _: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
        Ok(0)
    }
}

#[tokio::test]
async fn a_cell_that_is_checked_at_the_start_keeps_an_actor_that_cannot_read_it_from_starting() {
    let world = World::new();
    let system = world.open().await;
    let spawn = probe(&system, "a", |turn| {
        let set = turn.ctx.state().set(&GUARDED, &7);
        Box::pin(async move { Ok(set.map(|()| 0)?) })
    });
    spawn.await.unwrap().ask(note("x")).await.unwrap();
    let system = world.restart(system).await;
    let refused = system.spawn("a", || Guarded).await;
    assert!(matches!(refused, Err(SpawnError::State { why: StateError::Changed { .. }, .. })), "{refused:?}");
    let system = world.restart(system).await;
    assert_eq!(bound(&system, "a").await.cell(&GUARDED).await.unwrap(), Some(7));
}
