//! Several workers of one mailbox: what may be handled at once, what holds up what, and how they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::*;
use crate::{
    Actor, ActorRef, Address, AskError, Context, Durability, Exit, Failure, Handler, MailboxOptions, Order,
    Priority, Refused, RetryPolicy, SendError, SpawnError, State, StateError, System,
};

/// Sends `text` under the key that is its part before the colon; none: no key.
async fn send(to: &ActorRef<Probe>, text: &str) {
    let tell = to.tell(note(text));
    match text.split_once(':') {
        Some((key, _)) => tell.key(key).await,
        None => tell.await,
    }
    .expect("sent");
}

async fn send_all(to: &ActorRef<Probe>, texts: &[&str]) {
    for text in texts {
        send(to, text).await;
    }
}

/// Fails notes that contain "bad" as often as told.
fn failing(log: &Log, times: u32) -> impl for<'a> Fn(Turn<'a>) -> Answer<'a> + Clone + Send + Sync + 'static {
    let log = log.clone();
    script(move |turn| {
        log.say(format!("{} {}", turn.note, turn.ctx.attempt()));
        let fails = turn.note.contains("bad") && turn.ctx.attempt() <= times;
        Box::pin(async move { if fails { Err(Failure::new("no")) } else { Ok(0) } })
    })
}

#[tokio::test]
async fn messages_of_one_key_come_one_after_the_other_and_others_beside_them() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    send_all(&to, &["k:1", "k:2", "l:1", "k:3", "l:2", "m:1", "n:1"]).await;
    probes(&system, "a", 3, gated(&log, &gate)).order(Order::PerKey).await.unwrap();
    log.lines(3).await;
    a_moment().await;
    assert_eq!(BTreeSet::from_iter(log.all()), BTreeSet::from(["k:1", "l:1", "m:1"].map(str::to_owned)));
    gate.open();
    let all = log.lines(7).await;
    let place = |text: &str| all.iter().position(|said| said == text).expect("handled");
    assert!(place("k:1") < place("k:2") && place("k:2") < place("k:3") && place("l:1") < place("l:2"));
    settled(&to).await;
    assert_eq!(log.len(), 7);
}

#[tokio::test]
async fn a_message_that_is_tried_again_holds_up_only_those_of_its_key() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    send_all(&to, &["k:bad", "k:2", "l:1", "k:3", "l:2"]).await;
    let spawn = probes(&system, "a", 1, failing(&log, 2)).order(Order::PerKey);
    spawn.retry(every_ten_seconds(5)).await.unwrap();
    assert_eq!(log.lines(3).await, ["k:bad 1", "l:1 1", "l:2 1"]);
    a_moment().await;
    assert_eq!(log.len(), 3);
    world.pass(secs(10));
    log.lines(4).await;
    a_moment().await;
    world.pass(secs(10));
    assert_eq!(log.lines(7).await[3..], ["k:bad 2", "k:bad 3", "k:2 1", "k:3 1"]);
}

#[tokio::test]
async fn what_a_failed_message_holds_up_is_the_same_after_a_crash() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    send_all(&to, &["k:bad", "k:2", "l:1"]).await;
    let start = async |system: &System| {
        let spawn = probes(system, "a", 2, failing(&log, 2)).order(Order::PerKey);
        spawn.retry(every_ten_seconds(5)).await.unwrap()
    };
    let to = start(&system).await;
    log.lines(2).await;
    until("the others to be handled", || to.waiting() == 2).await;
    until("the failure to be kept", || has_attempts(&to)).await;
    to.runtime.ledger.store().durable_now().await.unwrap();
    let system = world.crash(system).await;
    let to = start(&system).await;
    send(&to, "l:2").await;
    log.lines(3).await;
    a_moment().await;
    assert_eq!(log.all()[2..], ["l:2 1"]);
    world.pass(secs(10));
    log.lines(4).await;
    until("the second failure to be kept", || has_attempts(&to)).await;
    a_moment().await;
    world.pass(secs(10));
    assert_eq!(log.lines(6).await[3..], ["k:bad 2", "k:bad 3", "k:2 1"]);
}

fn has_attempts(to: &ActorRef<Probe>) -> bool {
    let prefix = crate::store::keys::attempts(to.mailbox.id, [0; 16])[..5].to_vec();
    let end = crate::store::keys::after_prefix(&prefix);
    !to.runtime.ledger.store().scan(&prefix, &end, 1).expect("readable").is_empty()
}

#[tokio::test]
async fn messages_without_a_key_hold_up_nobody() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    send_all(&to, &["bad", "plain", "k:1"]).await;
    let spawn = probes(&system, "a", 1, failing(&log, 1)).order(Order::PerKey);
    spawn.retry(every_ten_seconds(5)).await.unwrap();
    assert_eq!(log.lines(3).await, ["bad 1", "plain 1", "k:1 1"]);
    until("it to be on the schedule", || to.waiting() == 0).await;
    world.pass(secs(10));
    assert_eq!(log.lines(4).await[3..], ["bad 2"]);
}

#[tokio::test]
async fn an_unordered_pool_handles_as_many_at_once_as_it_has_workers() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let to = probes(&system, "a", 3, gated(&log, &gate)).order(Order::Unordered).await.unwrap();
    // the key is of no meaning here
    send_all(&to, &["k:1", "k:2", "k:3", "k:4"]).await;
    log.lines(3).await;
    a_moment().await;
    assert_eq!(log.len(), 3);
    gate.let_one_pass();
    log.lines(4).await;
    gate.open();
    settled(&to).await;
}

#[tokio::test]
async fn a_strict_pool_handles_one_at_a_time_in_order_and_waits_for_what_is_tried_again() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    let texts = ["1", "k:2", "bad", "l:4", "5"];
    send_all(&to, &texts).await;
    let to = probes(&system, "a", 3, failing(&log, 1)).retry(every_ten_seconds(5)).await.unwrap();
    assert_eq!(log.lines(3).await, ["1 1", "k:2 1", "bad 1"]);
    until("it to be held", || to.mailbox.blocked_until(1) > world.clock_now()).await;
    assert!(matches!(to.ask(note("6")).await, Err(AskError::Refused { why: Refused::Blocked { .. }, .. })));
    a_moment().await;
    assert_eq!(log.len(), 3);
    world.pass(secs(10));
    assert_eq!(log.lines(6).await[3..], ["bad 2", "l:4 1", "5 1"]);
}

#[tokio::test]
async fn what_is_looked_at_behind_a_blocked_key_is_bounded() {
    const WINDOW: usize = 1024;
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let to = bound(&system, "a").await;
    for number in 0..WINDOW - 1 {
        to.tell(note(number)).key("k").durability(Durability::Buffered).await.unwrap();
    }
    send(&to, "l:near").await;
    for number in 0..100 {
        to.tell(note(number)).key("k").durability(Durability::Buffered).await.unwrap();
    }
    send(&to, "l:far").await;
    let (said, passes) = (log.clone(), gate.clone());
    let spawn = probes(&system, "a", 2, move |turn| {
        let (text, passes) = (turn.note.to_owned(), passes.clone());
        said.say(&text);
        Box::pin(async move {
            if !text.starts_with('l') {
                passes.pass().await;
            }
            Ok(0)
        })
    });
    spawn.order(Order::PerKey).await.unwrap();
    log.lines(2).await;
    a_moment().await;
    assert_eq!(log.len(), 2, "what is far behind was reached");
    assert_eq!(log.count("l:near"), 1);
    gate.open();
    settled(&to).await;
    assert_eq!(log.len(), WINDOW + 101);
}

#[tokio::test]
async fn the_bytes_looked_at_behind_a_blocked_key_are_bounded() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.builder().max_message(1 << 20).open_simulated(&world.disk).await.unwrap();
    let to = bound(&system, "a").await;
    for _ in 0..12 {
        to.tell(note("x".repeat(512 << 10))).key("k").await.unwrap();
    }
    send(&to, "l:far").await;
    let (said, passes) = (log.clone(), gate.clone());
    let spawn = probes(&system, "a", 2, move |turn| {
        said.say(&turn.note[..1]);
        let (passes, waits) = (passes.clone(), turn.note.starts_with('x'));
        Box::pin(async move {
            if waits {
                passes.pass().await;
            }
            Ok(0)
        })
    });
    spawn.order(Order::PerKey).await.unwrap();
    log.lines(1).await;
    a_moment().await;
    assert_eq!(log.all(), ["x"]);
    gate.open();
    settled(&to).await;
    assert_eq!(log.len(), 13);
}

#[tokio::test]
async fn a_higher_priority_goes_first_in_a_pool_too_and_a_key_is_one_through_all_priorities() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let to = probes(&system, "a", 2, gated(&log, &gate)).order(Order::PerKey).await.unwrap();
    send_all(&to, &["k:1", "l:1"]).await;
    log.lines(2).await;
    send_all(&to, &["m:normal", "n:normal"]).await;
    to.tell(note("k:high")).key("k").priority(Priority::High).await.unwrap();
    to.tell(note("high")).priority(Priority::High).await.unwrap();
    to.tell(note("low")).priority(Priority::Low).await.unwrap();
    for _ in 0..2 {
        gate.let_one_pass();
    }
    let all = log.lines(4).await;
    assert_eq!(BTreeSet::from_iter(&all[2..]), BTreeSet::from([&"high".to_owned(), &"k:high".to_owned()]));
    gate.open();
    assert_eq!(log.lines(7).await[6], "low");
}

#[tokio::test]
async fn volatile_messages_of_one_key_wait_for_it_too() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let to = probes(&system, "a", 3, gated(&log, &gate)).order(Order::PerKey).await.unwrap();
    send(&to, "k:1").await;
    log.lines(1).await;
    to.tell(note("k:2")).key("k").durability(Durability::Volatile).await.unwrap();
    to.tell(note("l:1")).key("l").durability(Durability::Volatile).await.unwrap();
    log.lines(2).await;
    a_moment().await;
    assert_eq!(log.all(), ["k:1", "l:1"]);
    gate.open();
    assert_eq!(log.lines(3).await[2], "k:2");
}

#[tokio::test]
async fn an_ask_behind_a_held_key_is_told_and_one_of_another_key_is_answered() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let spawn = probes(&system, "a", 2, failing(&log, 1)).order(Order::PerKey);
    let to = spawn.retry(every_ten_seconds(5)).await.unwrap();
    send(&to, "k:bad").await;
    log.lines(1).await;
    until("the failure to be kept", || has_attempts(&to)).await;
    a_moment().await;
    let blocked = soon(to.ask(note("k:2")).key("k")).await;
    assert!(matches!(blocked, Err(AskError::Blocked { .. })), "{blocked:?}");
    assert_eq!(soon(to.ask(note("l:1")).key("l")).await.unwrap(), 0);
    world.pass(secs(10));
    assert_eq!(log.lines(4).await[2..], ["k:bad 2", "k:2 1"]);
}

#[tokio::test]
async fn a_cancelled_message_frees_its_key() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let spawn = probes(&system, "a", 2, failing(&log, 1)).order(Order::PerKey);
    let to = spawn.retry(every_ten_seconds(5)).await.unwrap();
    let bad = to.tell(note("k:bad")).key("k").await.unwrap();
    send(&to, "k:2").await;
    log.lines(1).await;
    until("the failure to be kept", || has_attempts(&to)).await;
    a_moment().await;
    assert!(system.cancel(bad).await.unwrap());
    assert_eq!(log.lines(2).await, ["k:bad 1", "k:2 1"]);
    settled(&to).await;
}

#[tokio::test]
async fn a_drain_of_a_pool_waits_for_what_is_in_hand_and_held() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let spawn = probes(&system, "a", 3, failing(&log, 1)).order(Order::PerKey);
    let to = spawn.retry(every_ten_seconds(5)).await.unwrap();
    send_all(&to, &["k:bad", "k:2", "l:1"]).await;
    log.lines(2).await;
    until("the failure to be kept", || has_attempts(&to)).await;
    only_after(to.drain(), || world.pass(secs(10))).await;
    assert_eq!((log.len(), to.waiting(), to.is_running()), (4, 0, false));
    assert_eq!(to.ended().await, Some(Exit::Stopped));
}

#[tokio::test]
async fn the_last_turn_of_a_pool_that_is_drained_ends_those_who_waited_for_it() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let to = probes(&system, "a", 3, gated(&log, &gate)).order(Order::PerKey).await.unwrap();
    send_all(&to, &["k:1", "k:2"]).await;
    log.lines(1).await;
    only_after(to.drain(), || gate.open()).await;
    assert_eq!((log.len(), to.waiting(), to.is_running()), (2, 0, false));
}

#[tokio::test]
async fn a_stop_ends_all_workers_after_their_turns_and_a_park_at_once() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let start = || probes(&system, "a", 3, gated(&log, &gate)).order(Order::PerKey);
    let to = start().await.unwrap();
    send_all(&to, &["k:1", "k:2", "l:1", "m:1", "n:1"]).await;
    log.lines(3).await;
    only_after(to.stop(), || (0..3).for_each(|_| gate.let_one_pass())).await;
    assert_eq!((log.len(), to.waiting()), (3, 2));
    let to = start().await.unwrap();
    assert_eq!(log.lines(5).await.len(), 5);
    soon(to.park()).await;
    assert_eq!(to.waiting(), 2);
    gate.open();
    start().await.unwrap();
    settled(&to).await;
    assert_eq!(log.len(), 7);
    soon(system.shutdown(secs(5))).await.unwrap();
}

#[tokio::test]
async fn a_pool_ends_together_when_one_of_its_workers_is_to_end() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (said, passes) = (log.clone(), gate.clone());
    let spawn = probes(&system, "a", 3, move |turn| {
        said.say(turn.note);
        let (passes, ends) = (passes.clone(), turn.note == "end");
        Box::pin(async move {
            if ends {
                return Err(Failure::new("no").stop_actor());
            }
            passes.pass().await;
            Ok(0)
        })
    });
    let to = spawn.order(Order::Unordered).await.unwrap();
    send_all(&to, &["slow", "end"]).await;
    log.lines(2).await;
    a_moment().await;
    assert!(to.is_running(), "a turn still runs");
    gate.open();
    match soon(to.ended()).await {
        Some(Exit::Failed(failed)) => assert_eq!(failed.why, "no"),
        other => panic!("{other:?}"),
    }
    send(&to, "later").await;
    a_moment().await;
    assert_eq!((log.len(), to.waiting()), (2, 2), "the failed one and the later one wait");
}

#[tokio::test]
async fn a_pool_that_is_thrown_away_comes_again_with_what_it_had_in_hand() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let to = probes(&system, "a", 3, gated(&log, &gate)).order(Order::PerKey).await.unwrap();
    send_all(&to, &["k:1", "k:2", "l:1"]).await;
    log.lines(2).await;
    drop(to);
    let system = world.crash(system).await;
    gate.open();
    let to = probes(&system, "a", 3, gated(&log, &gate)).order(Order::PerKey).await.unwrap();
    let all = log.lines(5).await;
    let again: Vec<_> = all[2..].iter().filter(|text| text.starts_with('k')).collect();
    assert_eq!(again, ["k:1", "k:2"]);
    settled(&to).await;
}

/// An actor that is its state.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sum(u64);

impl Actor for Sum {
    const NAME: &'static str = "test.sum";
    type Messages = (Note,);
    fn state() -> State<Self> {
        State::whole(1)
    }
}

impl Handler<Note> for Sum {
    async fn handle(&mut self, _: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
        self.0 += 1;
        Ok(self.0)
    }
}

#[tokio::test]
async fn an_actor_that_is_its_state_is_refused_as_a_pool_and_as_one_worker_is_not() {
    let world = World::new();
    let system = world.open().await;
    let refused = system.pool("a", 2, || Sum(0)).await.unwrap_err();
    assert!(matches!(&refused, SpawnError::PoolWithState { mailbox } if mailbox == "a"), "{refused}");
    let alone = system.pool("a", 1, || Sum(0)).order(Order::PerKey).await.unwrap();
    assert_eq!(alone.ask(note("x")).await.unwrap(), 1);
}

#[tokio::test]
async fn the_workers_of_a_pool_read_state_and_are_refused_to_write_it() {
    let world = World::new();
    let system = world.open().await;
    let single = probe(&system, "a", |turn| {
        Box::pin(async move {
            turn.ctx.state().set(&TOTAL, &7)?;
            Ok(0)
        })
    });
    let to = single.await.unwrap();
    to.ask(note("x")).await.unwrap();
    to.stop().await;
    let pool = probes(&system, "a", 2, |turn| {
        Box::pin(async move {
            let total = turn.ctx.state().get(&TOTAL)?.unwrap_or(0);
            match turn.note {
                "read" => return Ok(total),
                "remove" => turn.ctx.state().remove(&TOTAL),
                _ => match turn.ctx.state().set(&TOTAL, &8) {
                    Err(StateError::Pool { cell }) if cell == "total" => turn.ctx.state().set(&TOTAL, &8)?,
                    other => panic!("{other:?}"),
                },
            }
            Ok(0)
        })
    });
    let to = pool.retry(RetryPolicy::never()).await.unwrap();
    assert_eq!(soon(to.ask(note("read"))).await.unwrap(), 7);
    for text in ["write", "remove"] {
        match soon(to.ask(note(text))).await {
            Err(AskError::Failed { why, .. }) => assert!(why.contains("`total`"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(to.cell(&TOTAL).await.unwrap(), Some(7));
}

#[tokio::test]
async fn a_pool_waits_in_a_cycle_only_when_its_last_worker_would() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let said = log.clone();
    // each asks the pool itself, as deep as its note says
    let spawn = probes(&system, "a", 3, move |turn| {
        let said = said.clone();
        let depth: u64 = turn.note.parse().expect("a number");
        Box::pin(async move {
            if depth == 0 {
                return Ok(0);
            }
            match turn.ctx.ask(&Address::<Probe>::new("a")?, note(depth - 1)).await {
                Ok(below) => Ok(below + 1),
                Err(AskError::Refused { why: Refused::AskCycle { .. }, .. }) => {
                    said.say(format!("refused at {depth}"));
                    Ok(100)
                }
                Err(other) => Err(Failure::new(other)),
            }
        })
    });
    let to = spawn.order(Order::Unordered).await.unwrap();
    assert_eq!(soon(to.ask(note(2))).await.unwrap(), 2);
    assert_eq!(soon(to.ask(note(3))).await.unwrap(), 102);
    assert_eq!(log.all(), ["refused at 1"]);
    assert_eq!(soon(to.ask(note(2))).await.unwrap(), 2, "nothing of the asks before is left");
}

#[tokio::test]
async fn two_workers_that_ask_at_once_are_both_remembered() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (said, passes) = (log.clone(), gate.clone());
    let target = probe(&system, "target", move |turn| {
        said.say(turn.note);
        let passes = passes.clone();
        Box::pin(async move {
            passes.pass().await;
            // both workers of the pool wait for this one
            match turn.ctx.ask(&Address::<Probe>::new("pool")?, note("back")).await {
                Err(AskError::Refused { why: Refused::AskCycle { .. }, .. }) => Ok(1),
                other => other.map_err(Failure::new),
            }
        })
    });
    let target = target.await.unwrap();
    let pool = probes(&system, "pool", 2, |turn| {
        let asks = turn.note != "back";
        Box::pin(async move {
            match asks {
                true => Ok(turn
                    .ctx
                    .ask(&Address::<Probe>::new("target")?, note("x"))
                    .await
                    .map_err(Failure::new)?),
                false => Ok(0),
            }
        })
    });
    let to = pool.order(Order::Unordered).await.unwrap();
    let asks = [0, 1].map(|number| {
        let to = to.clone();
        tokio::spawn(async move { to.ask(note(number)).await.unwrap() })
    });
    log.lines(1).await;
    until("both to have asked", || target.waiting() == 2).await;
    gate.let_one_pass();
    until("one to be answered", || to.waiting() == 1).await;
    gate.let_one_pass();
    let mut replies = Vec::new();
    for ask in asks {
        replies.push(soon(ask).await.unwrap());
    }
    // the first finds both workers waiting; then one of them is free
    replies.sort_unstable();
    assert_eq!(replies, [0, 1]);
}

#[tokio::test]
async fn a_pool_holds_to_the_limit_of_its_mailbox() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let options = MailboxOptions::new().workers(2).order(Order::Unordered).capacity(3);
    let to = probe(&system, "a", gated(&log, &gate)).mailbox(options).await.unwrap();
    to.tell_all((0..3).map(note)).await.unwrap();
    log.lines(2).await;
    // what is in hand counts until it is settled
    match to.try_tell(note("x")).unwrap_err() {
        SendError::Refused { why: Refused::Full { waiting: 3, .. }, .. } => {}
        other => panic!("{other}"),
    }
    gate.open();
    settled(&to).await;
}

/// What was seen of one life of a pool.
#[derive(Default)]
struct Witness {
    /// The message of each key that is handled now.
    busy: BTreeMap<String, u32>,
    /// The last message of each key that began, and whether it succeeded.
    last: BTreeMap<String, (u32, bool)>,
    faults: Vec<String>,
}

impl Witness {
    fn begins(&mut self, key: &str, number: u32, ever_done: u32) {
        if let Some(other) = self.busy.insert(key.into(), number) {
            self.faults.push(format!("{key}:{number} beside {key}:{other}"));
        }
        let in_order = match self.last.get(key) {
            Some((last, true)) => number == last + 1,
            Some((last, false)) => number == *last,
            // the first of this life: what was done before may not have been synced
            None => number <= ever_done + 1,
        };
        if !in_order {
            self.faults.push(format!("{key}:{number} after {:?}", self.last.get(key)));
        }
        self.last.insert(key.into(), (number, false));
    }

    fn ends(&mut self, key: &str, number: u32, done: bool) {
        self.busy.remove(key);
        self.last.insert(key.into(), (number, done));
    }
}

/// Small numbers that look random, and are the same for the same seed.
fn mixed(seed: u64, what: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 29;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_each_key_holds_through_delays_failures_and_crashes() {
    const KEYS: u64 = 4;
    const EACH: u32 = 12;
    for seed in 0..6 {
        let world = World::with(crate::store::SimulatedDisk::new(seed));
        let done: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let mut system = world.open().await;
        let to = bound(&system, "a").await;
        for number in 1..=EACH {
            for key in 0..KEYS {
                let (key, priority) = (format!("k{key}"), Priority::Normal);
                to.tell(note(format!("{key}:{number}"))).key(key).priority(priority).await.unwrap();
            }
            to.tell(note("free:0")).await.unwrap();
        }
        for life in 0..4 {
            let witness: Arc<Mutex<Witness>> = Arc::default();
            let (seen, known) = (witness.clone(), done.clone());
            let spawn = probes(&system, "a", 3, move |turn| {
                let (key, number) = turn.note.split_once(':').expect("a key");
                let (key, number) = (key.to_owned(), number.parse::<u32>().expect("a number"));
                let (seen, known) = (seen.clone(), known.clone());
                let chance =
                    mixed(seed + 1, life * 1000 + u64::from(turn.ctx.attempt()) * 77 + u64::from(number));
                Box::pin(async move {
                    if key == "free" {
                        return Ok(0);
                    }
                    let ever = known.lock().unwrap().get(&key).copied().unwrap_or(0);
                    seen.lock().unwrap().begins(&key, number, ever);
                    tokio::time::sleep(Duration::from_micros(chance % 3000)).await;
                    let fails = chance.is_multiple_of(5);
                    if !fails {
                        let mut known = known.lock().unwrap();
                        let ever = known.entry(key.clone()).or_insert(0);
                        *ever = number.max(*ever);
                    }
                    seen.lock().unwrap().ends(&key, number, !fails);
                    if fails { Err(Failure::new("no")) } else { Ok(0) }
                })
            });
            let retry = RetryPolicy::strict().with_attempts(1000);
            let to = spawn.order(Order::PerKey).retry(retry).await.unwrap();
            let last = life == 3;
            for _ in 0..if last { 20_000 } else { 15 + seed } {
                if to.waiting() == 0 {
                    break;
                }
                world.pass(Duration::from_millis(100));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let faults = std::mem::take(&mut witness.lock().unwrap().faults);
            assert!(faults.is_empty(), "seed {seed}, life {life}: {faults:?}");
            assert!(!last || to.waiting() == 0, "seed {seed}: {} wait", to.waiting());
            drop(to);
            system = world.crash(system).await;
        }
        let done = done.lock().unwrap().clone();
        assert!(
            done.values().all(|last| *last == EACH) && done.len() as u64 == KEYS,
            "seed {seed}: {done:?}"
        );
        assert!(dead(&system).await.is_empty());
    }
}
