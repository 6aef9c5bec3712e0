//! Entities: loaded when they have mail, unloaded when they rest, one incarnation at a time, and nothing of it to be seen by
//! whoever sends to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::*;
use crate::store::{Batch, Origin, Urgency, keys};
use crate::{
    Actor, Address, Context, Durability, Entities, Failure, Handler, KeyTooLong, Refused, RetryPolicy,
    SpawnError, State, System,
};

const REGION: &str = "probes";

/// Adds one to the stored total, and writes the note down behind the entity's key.
fn counting(log: &Log) -> impl for<'a> Fn(Turn<'a>) -> Answer<'a> + Clone + Send + Sync + 'static {
    let log = log.clone();
    script(move |turn| {
        let total = turn.ctx.state().get(&TOTAL).map(Option::unwrap_or_default);
        let name = turn.ctx.address().name().to_owned();
        let (note, log) = (turn.note.to_owned(), log.clone());
        Box::pin(async move {
            let total = total? + 1;
            turn.ctx.state().set(&TOTAL, &total)?;
            log.say(format!("{name} {note}"));
            Ok(total)
        })
    })
}

async fn counters(system: &System, log: &Log) -> Entities<u64, Probe> {
    region::<u64, _>(system, REGION, counting(log)).await.expect("opens")
}

async fn unloaded<K, A: Actor>(entities: &Entities<K, A>) {
    until("all to be unloaded", || entities.loaded() == 0).await;
}

#[tokio::test]
async fn keys_are_listed_by_page_in_their_order() {
    let world = World::new();
    let system = world.open().await;
    let numbers = counters(&system, &Log::new()).await;
    let texts = region::<String, _>(&system, "texts", counting(&Log::new())).await.expect("opens");
    for key in [300, 2, u64::MAX, 1, 0] {
        numbers.get(&key).await.expect("a handle");
    }
    for key in ["b", "a!", "a", "ä", "#", "", "a~b", "a b"] {
        texts.get(&key.to_owned()).await.expect("a handle");
    }
    assert_eq!(numbers.keys(None, 100).await.expect("reads"), [0, 1, 2, 300, u64::MAX]);
    assert_eq!(numbers.keys(Some(&1), 2).await.expect("reads"), [2, 300]);
    assert_eq!(numbers.keys(Some(&u64::MAX), 2).await.expect("reads"), [] as [u64; 0]);
    assert_eq!(texts.keys(None, 100).await.expect("reads"), ["", "#", "a", "a b", "a!", "a~b", "b", "ä"]);
    assert_eq!(texts.keys(Some(&"a".to_owned()), 2).await.expect("reads"), ["a b", "a!"]);
}

#[tokio::test]
async fn a_region_is_of_one_type_open_once_and_its_keys_are_not_too_long() {
    struct Other;
    impl Actor for Other {
        const NAME: &'static str = "test.other";
        type Messages = (Note,);
    }
    impl Handler<Note> for Other {
        async fn handle(&mut self, _: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
            Ok(0)
        }
    }
    let world = World::new();
    let system = world.open().await;
    let first = counters(&system, &Log::new()).await;
    let twice = region::<u64, _>(&system, REGION, counting(&Log::new())).await;
    assert!(matches!(twice, Err(SpawnError::Running { .. })), "{twice:?}");
    let other = system.entities(REGION, |_: &u64| Other).await;
    assert!(matches!(other, Err(SpawnError::WrongActor(_))), "{other:?}");
    let bad = region::<u64, _>(&system, "a#b", counting(&Log::new())).await;
    assert!(matches!(bad, Err(SpawnError::Name(_))), "{bad:?}");
    let spawned = probe(&system, first.address(&1).expect("short").name(), counting(&Log::new())).await;
    assert!(matches!(spawned, Err(SpawnError::Name(_))), "an entity is not spawned: {spawned:?}");
    first.stop().await;
    let texts = region::<String, _>(&system, REGION, counting(&Log::new())).await.expect("opens again");
    let long = "x".repeat(257);
    assert!(matches!(texts.get(&long).await, Err(SpawnError::Key(KeyTooLong { len: 257, .. }))));
    assert!(texts.address(&long).is_err());
    let longest = "\u{1}".repeat(256);
    assert_eq!(texts.get(&longest).await.expect("a handle").ask(note("it")).await.expect("a reply"), 1);
}

#[tokio::test]
async fn mail_from_outside_from_a_turn_and_from_the_schedule_loads_an_entity() {
    let world = World::new();
    let system = world.open().await;
    let log = Log::new();
    let entities = counters(&system, &log).await;
    assert_eq!(entities.get(&1).await.expect("a handle").ask(note("outside")).await.expect("a reply"), 1);
    let target = entities.address(&2).expect("short");
    let relay = probe(&system, "relay", move |turn| {
        let told = turn.ctx.tell(&target, note("inside"));
        Box::pin(async move { Ok(told.map(|_| 0)?) })
    });
    relay.await.expect("spawns").tell(note("go")).await.expect("sent");
    let third = entities.get(&3).await.expect("a handle");
    third.tell(note("later")).delay(secs(5)).await.expect("sent");
    third.tell(note("volatile")).durability(Durability::Volatile).await.expect("sent");
    log.lines(3).await;
    world.pass(secs(6));
    let said: BTreeSet<_> =
        log.lines(4).await.iter().filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect();
    assert_eq!(said, BTreeSet::from(["outside", "inside", "volatile", "later"].map(String::from)));
    assert_eq!(log.len(), 4);
}

#[tokio::test]
async fn an_address_of_an_entity_can_be_stored_and_bound() {
    let world = World::new();
    let system = world.open().await;
    let entities = counters(&system, &Log::new()).await;
    let address = entities.address(&7).expect("short");
    let bytes = serde_json::to_string(&address).expect("encodes");
    let again: Address<Probe> = serde_json::from_str(&bytes).expect("decodes");
    assert_eq!(system.bind(&again).await.expect("binds").ask(note("hi")).await.expect("a reply"), 1);
    assert!(serde_json::from_str::<Address<Probe>>(&bytes.replace("!00", "!0")).is_err());
}

#[tokio::test]
async fn an_entity_is_unloaded_when_it_rests_and_goes_on_with_its_state() {
    let world = World::new();
    let system = world.open().await;
    let entities =
        region::<u64, _>(&system, REGION, counting(&Log::new())).idle_after(secs(60)).await.expect("opens");
    let first = entities.get(&1).await.expect("a handle");
    assert_eq!(first.ask(note("a")).await.expect("a reply"), 1);
    assert_eq!(entities.loaded(), 1);
    world.pass(secs(50));
    a_moment().await;
    assert_eq!(entities.loaded(), 1, "it rested for less than it may");
    world.pass(secs(30));
    unloaded(&entities).await;
    assert!(!first.is_running());
    assert_eq!(entities.loaded_bytes(), 0);
    assert_eq!(first.ask(note("b")).await.expect("a reply"), 2);
    first.stop().await;
    assert_eq!(first.ask(note("c")).await.expect("a reply"), 3);
}

#[tokio::test]
async fn no_more_than_the_bound_are_loaded_and_the_longest_at_rest_goes_first() {
    let world = World::new();
    let system = world.open().await;
    let opened = region::<u64, _>(&system, REGION, counting(&Log::new())).max_loaded(3).await;
    let entities = opened.expect("opens");
    let ask = async |key: u64| {
        world.pass(Duration::from_millis(10));
        entities.get(&key).await.expect("a handle").ask(note("a")).await.expect("a reply")
    };
    for key in [1, 2, 3, 1, 4, 2, 5, 1] {
        ask(key).await;
        assert!(entities.loaded() <= 3);
    }
    let running = async |key| entities.get(&key).await.expect("a handle").is_running();
    assert_eq!([running(1).await, running(5).await, running(3).await], [true, true, false]);
    assert_eq!(ask(3).await, 2);
}

#[tokio::test]
async fn entities_whose_state_is_too_large_together_make_way() {
    const BIG: crate::Cell<Vec<u8>> = crate::Cell::new("big", 1);
    let world = World::new();
    let system = world.open().await;
    let grows = script(|turn| {
        Box::pin(async move {
            turn.ctx.state().set(&BIG, &vec![7; 10_000])?;
            Ok(0)
        })
    });
    let entities = region::<u64, _>(&system, REGION, grows).max_bytes(35_000).await.expect("opens");
    for key in 0..10 {
        entities.get(&key).await.expect("a handle").ask(note("a")).await.expect("a reply");
        until("some to make way", || entities.loaded_bytes() <= 35_000).await;
    }
    until("three to be left", || entities.loaded() <= 3).await;
}

/// What runs where: an entity that is entered twice at once had two incarnations.
#[derive(Default)]
struct Watch {
    inside: Mutex<BTreeSet<String>>,
    doubled: AtomicBool,
    handled: Mutex<BTreeMap<String, Vec<u64>>>,
}

impl Watch {
    fn script(self: &Arc<Self>) -> impl for<'a> Fn(Turn<'a>) -> Answer<'a> + Clone + Send + Sync + 'static {
        let watch = self.clone();
        script(move |turn| {
            let (watch, name) = (watch.clone(), turn.ctx.address().name().to_owned());
            let number: u64 = turn.note.parse().expect("a number");
            Box::pin(async move {
                if !watch.inside.lock().expect("whole").insert(name.clone()) {
                    watch.doubled.store(true, Ordering::Relaxed);
                }
                tokio::task::yield_now().await;
                if number.is_multiple_of(3) {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
                let total = turn.ctx.state().get(&TOTAL)?.unwrap_or_default() + 1;
                turn.ctx.state().set(&TOTAL, &total)?;
                watch.inside.lock().expect("whole").remove(&name);
                watch.handled.lock().expect("whole").entry(name).or_default().push(number);
                Ok(total)
            })
        })
    }

    fn count(&self) -> usize {
        self.handled.lock().expect("whole").values().map(Vec::len).sum()
    }

    fn check(&self, each: u64) {
        assert!(!self.doubled.load(Ordering::Relaxed), "one entity ran twice at once");
        for (name, handled) in self.handled.lock().expect("whole").iter() {
            assert_eq!(*handled, (0..each).collect::<Vec<_>>(), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_is_handled_in_order_once_and_by_one_incarnation_while_few_can_be_loaded() {
    const KEYS: u64 = 50;
    const EACH: u64 = 40;
    let world = World::new();
    let system = world.open().await;
    let watch = Arc::new(Watch::default());
    let opened = region::<u64, _>(&system, REGION, watch.script()).max_loaded(2).await;
    let entities = opened.expect("opens");
    let senders: Vec<_> = (0..5)
        .map(|sender| {
            let entities = entities.clone();
            tokio::spawn(async move {
                for number in 0..EACH {
                    for key in (0..KEYS).filter(|key| key % 5 == sender) {
                        let to = entities.get(&key).await.expect("a handle");
                        to.tell(note(number)).durability(Durability::Buffered).await.expect("sent");
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("sends");
    }
    soon(async {
        while watch.count() < (KEYS * EACH) as usize {
            assert!(entities.loaded() <= 2);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    watch.check(EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_that_a_look_finds_while_it_is_loaded_is_not_loaded_again() {
    let world = World::new();
    let system = world.open().await;
    let (log, gate) = (Log::new(), Gate::closed());
    let (said, waits) = (log.clone(), gate.clone());
    let slow = script(move |turn| {
        said.say(turn.note);
        let waits = waits.clone();
        Box::pin(async move {
            waits.pass().await;
            Ok(0)
        })
    });
    let entities = region::<u64, _>(&system, REGION, slow).await.expect("opens");
    let entity = entities.get(&1).await.expect("a handle");
    entity.tell(note("a")).await.expect("sent");
    log.lines(1).await;
    entity.runtime.ledger.store().miss(REGION);
    a_moment().await;
    gate.open();
    settled(&entity).await;
    assert_eq!(log.all(), ["a"]);
}

/// Each message comes as its entity is about to make way for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_races_with_the_end_of_its_entity_is_handled_once() {
    const ROUNDS: u64 = 300;
    let world = World::new();
    let system = world.open().await;
    let watch = Arc::new(Watch::default());
    let opened = region::<u64, _>(&system, REGION, watch.script()).max_loaded(1).await;
    let entities = opened.expect("opens");
    let [one, other] = [entities.get(&1).await.expect("a handle"), entities.get(&2).await.expect("a handle")];
    for number in 0..ROUNDS {
        let asks = async { tokio::join!(one.ask(note(number)), other.ask(note(number))) };
        let (one, other) = soon(asks).await;
        assert_eq!((one.expect("a reply"), other.expect("a reply")), (number + 1, number + 1));
    }
    watch.check(ROUNDS);
}

/// The end is asked for from outside, again and again, while mail comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_comes_while_its_entity_ends_loads_it_again() {
    const NOTES: u64 = 400;
    let world = World::new();
    let system = world.open().await;
    let watch = Arc::new(Watch::default());
    let entities = region::<u64, _>(&system, REGION, watch.script()).await.expect("opens");
    let entity = entities.get(&1).await.expect("a handle");
    let stops = tokio::spawn({
        let entity = entity.clone();
        async move {
            loop {
                entity.stop().await;
                tokio::task::yield_now().await;
            }
        }
    });
    for number in 0..NOTES {
        entity.tell(note(number)).durability(Durability::Buffered).await.expect("sent");
        if number % 7 == 0 {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
    }
    until("all notes", || watch.count() == NOTES as usize).await;
    stops.abort();
    watch.check(NOTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_entities_are_handled_and_leave_little_in_memory() {
    const KEYS: u64 = 10_000;
    let world = World::new();
    let system = world.open().await;
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let counts = script(move |turn| {
        let count = count.clone();
        Box::pin(async move {
            turn.ctx.state().set(&TOTAL, &1)?;
            count.fetch_add(1, Ordering::Relaxed);
            Ok(0)
        })
    });
    let entities = region::<u64, _>(&system, REGION, counts).max_loaded(100).await.expect("opens");
    for key in 0..KEYS {
        let to = entities.get(&key).await.expect("a handle");
        to.tell(note("it")).durability(Durability::Buffered).await.expect("sent");
    }
    until("all to be handled", || handled.load(Ordering::Relaxed) == KEYS as usize).await;
    let last = entities.keys(Some(&(KEYS - 3)), 10).await.expect("reads");
    assert_eq!(last, [KEYS - 2, KEYS - 1]);
    let runtime = entities.get(&0).await.expect("a handle").runtime;
    assert!(runtime.mailboxes.len() < 9_000, "{} mailboxes stay in memory", runtime.mailboxes.len());
    runtime.ledger.store().checkpoint().await.expect("ends");
    let loaded = runtime.ledger.store().loaded_mailboxes();
    assert!(loaded < 9_000, "{loaded} mailboxes stay loaded");
}

/// More than are listed at once, so that the rest has to be looked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_region_that_was_not_open_is_handled_when_it_opens() {
    const KEYS: u64 = 6_000;
    let world = World::new();
    let system = world.open().await;
    let log = Log::new();
    counters(&system, &log).await.stop().await;
    for key in 0..KEYS {
        let to: Address<Probe> =
            Address::checked(crate::durable::entity_name(REGION, &key.to_be_bytes()).expect("short"));
        let to = system.bind(&to).await.expect("binds");
        to.tell(note("it")).durability(Durability::Buffered).await.expect("sent");
    }
    a_moment().await;
    assert!(log.all().is_empty(), "nobody reads them");
    let system = world.restart(system).await;
    let entities = region::<u64, _>(&system, REGION, counting(&log)).max_loaded(64).await.expect("opens");
    let lines = log.lines(KEYS as usize).await;
    assert_eq!(lines.into_iter().collect::<BTreeSet<_>>().len(), KEYS as usize);
    assert!(entities.loaded() <= 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_load_loses_nothing_that_was_sent_and_repeats_nothing_that_was_committed() {
    const KEYS: u64 = 40;
    for seed in 0..3 {
        let world = World::with(crate::store::SimulatedDisk::new(seed));
        let system = world.open().await;
        let log = Log::new();
        let entities = region::<u64, _>(&system, REGION, counting(&log)).max_loaded(4).await.expect("opens");
        let mut sent = BTreeMap::new();
        for number in 0..300 {
            let key = number * 7 % KEYS;
            entities.get(&key).await.expect("a handle").tell(note(number)).await.expect("sent");
            *sent.entry(key).or_insert(0) += 1;
        }
        let system = world.crash(system).await;
        let entities = region::<u64, _>(&system, REGION, counting(&log)).max_loaded(4).await.expect("opens");
        for (key, sent) in sent {
            let total =
                soon(entities.get(&key).await.expect("a handle").ask(note("end")).into_future()).await;
            assert_eq!(total.expect("a reply"), sent + 1, "seed {seed}, key {key}");
        }
    }
}

#[tokio::test]
async fn an_entity_that_cannot_be_loaded_keeps_its_mail_and_holds_up_nobody() {
    struct Strict;
    impl Actor for Strict {
        const NAME: &'static str = "test.strict";
        type Messages = (Note,);
        fn state() -> State<Self> {
            State::cells().with(TOTAL)
        }
    }
    impl Handler<Note> for Strict {
        async fn handle(&mut self, _: Note, ctx: &mut Context<Self>) -> Result<u64, Failure> {
            let total = ctx.state().get(&TOTAL)?.unwrap_or_default() + 1;
            ctx.state().set(&TOTAL, &total)?;
            Ok(total)
        }
    }
    let world = World::new();
    let system = world.open().await;
    let panics = Arc::new(AtomicBool::new(true));
    let factory = {
        let panics = panics.clone();
        move |key: &u64| {
            assert!(*key != 2 || !panics.load(Ordering::Relaxed), "not yet");
            Strict
        }
    };
    let entities = system.entities(REGION, factory).max_loaded(1).await.expect("opens");
    let [bad, unmade, good] = [1, 2, 3]
        .map(|key| (key, entities.clone()))
        .map(async |(key, entities)| entities.get(&key).await.expect("a handle"));
    let (bad, unmade, good) = (bad.await, unmade.await, good.await);
    let cell = keys::cell(bad.mailbox.id, "total", &[]);
    let ledger = &bad.runtime.ledger;
    let mut batch = Batch::default();
    batch.put_bytes(cell.clone(), b"no cell");
    ledger.commit(&mut batch, Origin::Inside, Urgency::Now).await.expect("commits");
    bad.tell(note("a")).await.expect("sent");
    unmade.tell(note("b")).await.expect("sent");
    assert_eq!(soon(good.ask(note("c"))).await.expect("a reply"), 1);
    assert_eq!((bad.waiting(), unmade.waiting()), (1, 1));
    let mut batch = Batch::default();
    batch.delete(cell);
    ledger.commit(&mut batch, Origin::Inside, Urgency::Now).await.expect("commits");
    panics.store(false, Ordering::Relaxed);
    a_moment().await;
    assert_eq!((bad.waiting(), unmade.waiting()), (1, 1), "tried again too early");
    until("both to be tried again", || {
        world.pass(secs(40));
        bad.waiting() + unmade.waiting() == 0
    })
    .await;
}

#[tokio::test]
async fn an_entity_whose_message_is_tried_again_later_makes_way_and_comes_back_in_time() {
    let world = World::new();
    let system = world.open().await;
    let log = Log::new();
    let said = log.clone();
    let fails_once = script(move |turn| {
        let first = turn.ctx.attempt() == 1 && turn.note == "fails";
        let said = said.clone();
        Box::pin(async move {
            said.say(format!("{} {}", turn.note, turn.ctx.attempt()));
            if first { Err(Failure::new("not yet")) } else { Ok(0) }
        })
    });
    let opened =
        region::<u64, _>(&system, REGION, fails_once).max_loaded(1).retry(every_ten_seconds(5)).await;
    let entities = opened.expect("opens");
    let [one, other] = [entities.get(&1).await.expect("a handle"), entities.get(&2).await.expect("a handle")];
    one.tell(note("fails")).await.expect("sent");
    log.lines(1).await;
    one.tell(note("behind")).await.expect("sent");
    soon(other.ask(note("another"))).await.expect("a reply");
    a_moment().await;
    assert_eq!(log.all(), ["fails 1", "another 1"]);
    world.pass(secs(11));
    assert_eq!(log.lines(4).await[2..], ["fails 2", "behind 1"]);
}

#[tokio::test]
async fn a_stopped_region_leaves_its_mail_to_the_next_and_a_shutdown_loses_nothing() {
    let world = World::new();
    let system = world.open().await;
    let log = Log::new();
    let entities = counters(&system, &log).await;
    let entity = entities.get(&1).await.expect("a handle");
    assert_eq!(entity.ask(note("a")).await.expect("a reply"), 1);
    soon(entities.stop()).await;
    assert_eq!((entities.loaded(), entity.is_running()), (0, false));
    entity.tell(note("b")).await.expect("sent");
    a_moment().await;
    assert_eq!(entity.waiting(), 1);
    let again = counters(&system, &log).await;
    log.lines(2).await;
    for key in 0..200 {
        let to = again.get(&key).await.expect("a handle");
        to.tell(note("c")).durability(Durability::Buffered).await.expect("sent");
    }
    let system = world.restart(system).await;
    counters(&system, &log).await;
    assert_eq!(log.lines(202).await.into_iter().collect::<BTreeSet<_>>().len(), 202);
}

#[tokio::test]
async fn a_handler_that_hangs_is_thrown_away_with_its_region() {
    let world = World::new();
    let system = world.open().await;
    let hangs = script(|_| Box::pin(std::future::pending()));
    let entities = region::<u64, _>(&system, REGION, hangs).await.expect("opens");
    entities.get(&1).await.expect("a handle").tell(note("a")).await.expect("sent");
    until("it to be loaded", || entities.loaded() == 1).await;
    a_moment().await;
    system.shutdown(Duration::from_millis(100)).await.expect("ends");
    let system = world.open().await;
    let log = Log::new();
    counters(&system, &log).await;
    assert_eq!(log.lines(1).await.len(), 1);
}

#[tokio::test]
async fn a_full_mailbox_of_an_entity_refuses_as_that_of_an_actor() {
    let world = World::new();
    let system = world.open().await;
    let gate = Gate::closed();
    let waits = gate.clone();
    let slow = script(move |_| {
        let waits = waits.clone();
        Box::pin(async move {
            waits.pass().await;
            Ok(0)
        })
    });
    let options = crate::MailboxOptions::new().capacity(2).retry(RetryPolicy::immediately(1));
    let entities = region::<u64, _>(&system, REGION, slow).mailbox(options).await.expect("opens");
    let entity = entities.get(&1).await.expect("a handle");
    entity.tell(note("a")).await.expect("sent");
    entity.tell(note("b")).await.expect("sent");
    let full = entity.try_tell(note("c")).expect_err("there is no room");
    assert!(matches!(full.refused(), Some(Refused::Full { .. })), "{full}");
    gate.open();
    settled(&entity).await;
}
