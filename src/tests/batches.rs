//! Several messages handled in one call: what is one commit, what one bad message costs its neighbours, and how long is waited.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::*;
use crate::{
    Actor, ActorRef, Address, AskError, BatchHandler, Context, Decision, Exit, Failure, FailurePolicy,
    MailboxOptions, Order, Outcomes, Reason, RetryPolicy, Spawn, SpawnError, System,
};

type Item = crate::Item<Note>;
type Answer<'a> = Pin<Box<dyn Future<Output = Result<Outcomes<Note>, Failure>> + Send + 'a>>;
type Script = dyn for<'a> Fn(Vec<Item>, &'a mut Context<Sheaf>) -> Answer<'a> + Send + Sync;

/// An actor that does with each batch what its test says.
struct Sheaf {
    script: Arc<Script>,
}

impl Actor for Sheaf {
    const NAME: &'static str = "test.sheaf";
    type Messages = (Note,);
}

impl BatchHandler<Note> for Sheaf {
    async fn handle_batch(
        &mut self,
        batch: Vec<Item>,
        ctx: &mut Context<Self>,
    ) -> Result<Outcomes<Note>, Failure> {
        let script = self.script.clone();
        script(batch, ctx).await
    }
}

fn sheaves<'s, F>(system: &'s System, workers: usize, script: F) -> Spawn<'s, Sheaf>
where
    F: for<'a> Fn(Vec<Item>, &'a mut Context<Sheaf>) -> Answer<'a> + Send + Sync + 'static,
{
    let script: Arc<Script> = Arc::new(script);
    system.pool("a", workers, move || Sheaf { script: script.clone() })
}

fn joined(batch: &[Item]) -> String {
    batch.iter().map(|item| item.message.0.as_str()).collect::<Vec<_>>().join(" ")
}

/// Notes each batch, counts its good messages, and lets each fail whose text contains "bad"; "ruin" panics, "no" fails the whole.
fn counting<'s>(system: &'s System, log: &Log) -> Spawn<'s, Sheaf> {
    counting_pool(system, 1, log)
}

fn counting_pool<'s>(system: &'s System, workers: usize, log: &Log) -> Spawn<'s, Sheaf> {
    let log = log.clone();
    sheaves(system, workers, move |batch, ctx| {
        log.say(joined(&batch));
        Box::pin(async move {
            assert!(!batch.iter().any(|item| item.message.0.contains("ruin")), "as asked");
            if batch.iter().any(|item| item.message.0 == "no") {
                return Err(Failure::new("not this batch"));
            }
            let good = batch.iter().filter(|item| !item.message.0.contains("bad")).count() as u64;
            let total = ctx.state().get(&TOTAL)?.unwrap_or(0) + good;
            if good > 0 {
                ctx.state().set(&TOTAL, &total)?;
                ctx.tell(&Address::<Probe>::new("echo")?, note(joined(&batch)))?;
            }
            let outcome = |item: &Item| match &*item.message.0 {
                text if text.contains("terminal") => Err(Failure::new("never").terminal()),
                text if text.contains("bad") => Err(Failure::new("this one")),
                _ => Ok(total),
            };
            Ok(batch.iter().map(outcome).collect())
        })
    })
}

async fn handle(system: &System) -> ActorRef<Sheaf> {
    system.bind(&Address::new("a").expect("a name")).await.expect("binds")
}

async fn send_all(to: &ActorRef<Sheaf>, texts: &[&str]) {
    to.tell_all(texts.iter().map(note)).await.expect("sent");
}

async fn empty(to: &ActorRef<Sheaf>) {
    until("the mailbox to be empty", || to.waiting() == 0).await;
    to.runtime.ledger.store().durable_now().await.expect("durable");
}

const NO_WAIT: Duration = Duration::ZERO;

#[tokio::test]
async fn what_waits_is_handled_together_up_to_the_size() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1", "2", "3", "4", "5"]).await;
    counting(&system, &log).batch(3, NO_WAIT).await.unwrap();
    empty(&to).await;
    assert_eq!(log.all(), ["1 2 3", "4 5"]);
    assert_eq!(to.cell(&TOTAL).await.unwrap(), Some(5));
    assert_eq!(soon(to.ask(note("6"))).await.unwrap(), 6);
    assert_eq!(bound(&system, "echo").await.waiting(), 3);
}

#[tokio::test]
async fn a_batch_waits_for_more_as_long_as_it_may_and_not_when_it_is_full() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = counting(&system, &log).batch(3, secs(10)).await.unwrap();
    send_all(&to, &["1"]).await;
    a_moment().await;
    world.pass(secs(9));
    send_all(&to, &["2"]).await;
    a_moment().await;
    assert!(log.all().is_empty());
    world.pass(secs(1));
    assert_eq!(log.lines(1).await, ["1 2"]);
    empty(&to).await;
    send_all(&to, &["3", "4"]).await;
    a_moment().await;
    send_all(&to, &["5", "6"]).await;
    assert_eq!(log.lines(2).await[1], "3 4 5", "a full batch waits for nothing");
}

#[tokio::test]
async fn an_actor_that_is_to_end_does_not_wait_for_more() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let start = || counting(&system, &log).batch(3, secs(10));
    let to = start().await.unwrap();
    send_all(&to, &["1", "2"]).await;
    a_moment().await;
    soon(to.stop()).await;
    assert_eq!((log.len(), to.waiting()), (0, 2));
    let to = start().await.unwrap();
    a_moment().await;
    soon(to.drain()).await;
    assert_eq!((log.all(), to.waiting()), (vec!["1 2".to_owned()], 0));
    let to = start().await.unwrap();
    send_all(&to, &["3"]).await;
    a_moment().await;
    soon(to.park()).await;
    assert_eq!(to.waiting(), 1);
    start().await.unwrap();
    a_moment().await;
    soon(system.shutdown(secs(5))).await.unwrap();
}

#[tokio::test]
async fn the_failed_messages_of_a_batch_are_named_and_the_others_stand() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    let asks: Vec<_> = ["1", "bad terminal", "3"]
        .into_iter()
        .map(|text| {
            let to = to.clone();
            tokio::spawn(async move { to.ask(note(text)).await })
        })
        .collect();
    until("all to be sent", || to.waiting() == 3).await;
    counting(&system, &log).batch(5, NO_WAIT).await.unwrap();
    let mut replies = Vec::new();
    for ask in asks {
        replies.push(soon(ask).await.unwrap());
    }
    assert!(matches!(&replies[..], [Ok(2), Err(AskError::Failed { why, .. }), Ok(2)] if why == "never"));
    let letter = first_dead(&system).await;
    assert_eq!((letter.reason, letter.attempts.count), (Reason::Terminal, 1));
    assert_eq!(letter.attempts.last[0].error, "never");
    empty(&to).await;
    assert_eq!(log.len(), 1);
    assert_eq!(to.cell(&TOTAL).await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_failed_message_is_tried_again_alone_and_holds_up_those_that_were_not_in_its_batch() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1", "bad 2", "bad 3", "4", "5", "6"]).await;
    let to = counting(&system, &log).batch(4, NO_WAIT).retry(every_ten_seconds(2)).await.unwrap();
    log.lines(1).await;
    until("the others to be settled", || to.waiting() == 4).await;
    a_moment().await;
    assert_eq!(log.all(), ["1 bad 2 bad 3 4"]);
    world.pass(secs(10));
    empty(&to).await;
    assert_eq!(log.all()[1..], ["bad 2", "bad 3", "5 6"]);
    let attempts = dead(&system).await.into_iter().map(|letter| letter.attempts.count);
    assert_eq!(attempts.collect::<Vec<_>>(), [2, 2]);
    assert_eq!(to.cell(&TOTAL).await.unwrap(), Some(4));
}

#[tokio::test]
async fn the_attempts_of_a_failed_message_of_a_batch_survive_a_crash() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1", "bad 2", "3"]).await;
    let to = counting(&system, &log).batch(4, NO_WAIT).retry(every_ten_seconds(3)).await.unwrap();
    until("the others to be settled", || to.waiting() == 1).await;
    to.runtime.ledger.store().durable_now().await.unwrap();
    let system = world.crash(system).await;
    let to = counting(&system, &log).batch(4, NO_WAIT).retry(every_ten_seconds(2)).await.unwrap();
    send_all(&to, &["4"]).await;
    a_moment().await;
    assert_eq!(log.len(), 1);
    world.pass(secs(10));
    empty(&to).await;
    assert_eq!(log.all()[1..], ["bad 2", "4"]);
    assert_eq!(dead(&system).await[0].attempts.count, 2);
}

#[tokio::test]
async fn in_an_unordered_mailbox_a_failed_message_of_a_batch_goes_on_the_schedule_in_its_commit() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1", "bad 2", "3"]).await;
    let spawn = counting(&system, &log).order(Order::Unordered).batch(2, NO_WAIT);
    let to = spawn.retry(every_ten_seconds(2)).await.unwrap();
    empty(&to).await;
    assert_eq!(log.all(), ["1 bad 2", "3"]);
    world.pass(secs(10));
    assert_eq!(log.lines(3).await[2], "bad 2");
    first_dead(&system).await;
}

#[tokio::test]
async fn a_batch_of_which_some_failed_is_one_commit_whenever_the_power_goes() {
    let mut seen = [0, 0];
    for operation in 1.. {
        let (world, log) = (World::new(), Log::new());
        let system = world.open().await;
        let to = handle(&system).await;
        send_all(&to, &["1", "bad terminal", "3", "bad 4"]).await;
        world.disk.cut_power_at(world.disk.operations() + operation);
        // the power may go before it has started
        let _ = counting(&system, &log).batch(4, NO_WAIT).retry(every_ten_seconds(3)).await;
        until("the end", || to.waiting() == 1 || world.disk.is_cut()).await;
        let _ = system.shutdown(secs(5)).await;
        if !world.disk.is_cut() {
            break;
        }
        let system = world.crash(system).await;
        let to = handle(&system).await;
        let (total, dead) = (to.cell(&TOTAL).await.unwrap(), dead(&system).await.len());
        let attempts = crate::Attempts::of_mailbox(to.runtime.ledger.store(), to.mailbox.id).unwrap().len();
        let sent = bound(&system, "echo").await.waiting();
        let found = (to.waiting(), total, dead, attempts, sent);
        match to.waiting() {
            4 => assert_eq!(found, (4, None, 0, 0, 0), "after a cut at operation {operation}"),
            _ => assert_eq!(found, (1, Some(2), 1, 1, 1), "after a cut at operation {operation}"),
        }
        seen[usize::from(to.waiting() == 1)] += 1;
    }
    assert!(seen.iter().all(|times| *times > 0), "both were seen: {seen:?}");
}

#[tokio::test]
async fn a_batch_that_fails_as_a_whole_costs_the_good_ones_nothing() {
    for poison in ["ruin", "no"] {
        let (world, log) = (World::new(), Log::new());
        let system = world.open().await;
        let to = handle(&system).await;
        send_all(&to, &["1", poison, "3", "4"]).await;
        let spawn = counting(&system, &log).batch(10, NO_WAIT);
        let to = spawn.retry(RetryPolicy::never()).await.unwrap();
        empty(&to).await;
        assert_eq!(log.all(), [&format!("1 {poison} 3 4"), "1", poison, "3", "4"]);
        let dead = dead(&system).await;
        assert_eq!((dead.len(), dead[0].attempts.count), (1, 1));
        assert_eq!(to.cell(&TOTAL).await.unwrap(), Some(3));
        // the next ones come together again
        send_all(&to, &["5", "6"]).await;
        assert_eq!(log.lines(6).await[5], "5 6");
    }
}

#[tokio::test]
async fn a_batch_of_which_all_failed_leaves_nothing_of_its_turn() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1", "2"]).await;
    let said = log.clone();
    let spawn = sheaves(&system, 1, move |batch, ctx| {
        said.say(joined(&batch));
        Box::pin(async move {
            ctx.state().set(&TOTAL, &9)?;
            Ok(batch.iter().map(|_| Err(Failure::new("no").terminal())).collect())
        })
    });
    let to = spawn.batch(2, NO_WAIT).await.map(|_| to).unwrap();
    empty(&to).await;
    assert_eq!((log.len(), dead(&system).await.len()), (1, 2));
    assert_eq!(to.cell(&TOTAL).await.unwrap(), None);
}

#[tokio::test]
async fn another_number_of_outcomes_than_of_messages_is_a_failure_that_says_so() {
    let world = World::new();
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1", "2"]).await;
    let spawn = sheaves(&system, 1, |_, ctx| {
        Box::pin(async move {
            ctx.state().set(&TOTAL, &9)?;
            Ok(Vec::new())
        })
    });
    spawn.batch(2, NO_WAIT).retry(RetryPolicy::never()).await.unwrap();
    empty(&to).await;
    let dead = dead(&system).await;
    assert_eq!(dead.len(), 2);
    let why = &dead[0].attempts.last[0].error;
    assert_eq!(why, "the handler returned 0 outcomes where 1 were wanted");
    assert_eq!(to.cell(&TOTAL).await.unwrap(), None);
}

#[tokio::test]
async fn without_a_size_a_handler_of_batches_is_given_one_at_a_time() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1", "2"]).await;
    counting(&system, &log).await.unwrap();
    empty(&to).await;
    assert_eq!(log.all(), ["1", "2"]);
    assert_eq!(soon(to.ask(note("3"))).await.unwrap(), 3);
}

#[tokio::test]
async fn an_actor_without_a_handler_of_batches_is_refused_a_batch() {
    let world = World::new();
    let system = world.open().await;
    let options = MailboxOptions::new().batch(10, NO_WAIT);
    let refused = probe(&system, "a", |_| Box::pin(async { Ok(0) })).mailbox(options).await.err();
    assert!(matches!(refused, Some(SpawnError::NoBatches { actor: "test.probe" })), "{refused:?}");
}

#[tokio::test]
async fn what_was_cancelled_or_expired_is_not_in_the_batch() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1"]).await;
    let gone = to.tell(note("2")).await.unwrap();
    to.tell(note("3")).expires(secs(1)).await.unwrap();
    send_all(&to, &["4"]).await;
    world.pass(secs(2));
    assert!(system.cancel(gone).await.unwrap());
    counting(&system, &log).batch(10, NO_WAIT).await.unwrap();
    empty(&to).await;
    assert_eq!(log.all(), ["1 4"]);
}

#[tokio::test]
async fn a_cancel_while_its_batch_is_handled_wins_and_the_others_are_handled_again() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1"]).await;
    let gone = to.tell(note("2")).await.unwrap();
    let (said, passes) = (log.clone(), gate.clone());
    let spawn = sheaves(&system, 1, move |batch, ctx| {
        said.say(joined(&batch));
        let passes = passes.clone();
        Box::pin(async move {
            passes.pass().await;
            let total = ctx.state().get(&TOTAL)?.unwrap_or(0) + batch.len() as u64;
            ctx.state().set(&TOTAL, &total)?;
            Ok(batch.iter().map(|_| Ok(0)).collect())
        })
    });
    spawn.batch(10, NO_WAIT).await.unwrap();
    log.lines(1).await;
    assert!(system.cancel(gone).await.unwrap());
    gate.open();
    empty(&to).await;
    assert_eq!(log.all(), ["1 2", "1"]);
    assert_eq!(to.cell(&TOTAL).await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_failure_of_one_message_ends_the_actor_when_the_policy_says_so_and_the_others_stand() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1", "bad 2", "3"]).await;
    let policy = FailurePolicy { error: Decision::STOP, ..FailurePolicy::new() };
    let to = counting(&system, &log).batch(3, NO_WAIT).on_failure(policy).await.map(|_| to).unwrap();
    assert!(matches!(soon(to.ended()).await, Some(Exit::Failed(failed)) if failed.why == "this one"));
    assert_eq!((to.waiting(), to.cell(&TOTAL).await.unwrap()), (1, Some(2)));
}

#[tokio::test]
async fn a_batch_of_a_pool_may_have_many_of_a_key_and_a_key_is_in_one_batch_at_a_time() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let to = handle(&system).await;
    for text in ["k:1", "k:2", "l:1", "k:3", "l:2", "m:1"] {
        let key = text.split(':').next().unwrap();
        to.tell(note(text)).key(key).await.unwrap();
    }
    let (said, passes) = (log.clone(), gate.clone());
    let spawn = sheaves(&system, 3, move |batch, _| {
        said.say(joined(&batch));
        let passes = passes.clone();
        Box::pin(async move {
            passes.pass().await;
            Ok(batch.iter().map(|_| Ok(0)).collect())
        })
    });
    spawn.order(Order::PerKey).batch(2, NO_WAIT).await.unwrap();
    log.lines(3).await;
    a_moment().await;
    let mut first = log.all();
    first.sort();
    assert_eq!(first, ["k:1 k:2", "l:1 l:2", "m:1"]);
    gate.open();
    assert_eq!(log.lines(4).await[3], "k:3");
    empty(&to).await;
}

#[tokio::test]
async fn a_failed_message_of_a_batch_holds_up_only_its_key() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    for text in ["k:bad", "l:1", "k:2", "l:2"] {
        to.tell(note(text)).key(&text[..1]).await.unwrap();
    }
    let spawn = counting(&system, &log).order(Order::PerKey).batch(2, NO_WAIT);
    spawn.retry(every_ten_seconds(2)).await.unwrap();
    until("the other key to be done", || to.waiting() == 2).await;
    a_moment().await;
    assert_eq!(log.all(), ["k:bad l:1", "l:2"]);
    world.pass(secs(10));
    empty(&to).await;
    assert_eq!(log.all()[2..], ["k:bad", "k:2"]);
}

#[tokio::test]
async fn each_batch_sends_with_ids_of_its_own_that_repeat_when_it_is_run_again() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let to = handle(&system).await;
    send_all(&to, &["1", "2"]).await;
    let said = log.clone();
    let spawn = sheaves(&system, 1, move |batch, ctx| {
        let id = ctx.tell(&Address::<Probe>::new("echo").unwrap(), note("x")).unwrap();
        said.say(format!("{id} {}", batch[0].idempotency_key("x")));
        let first = said.len() == 1;
        Box::pin(async move {
            if first {
                // cut off: the same batch comes again
                std::future::pending::<()>().await;
            }
            let outcome = |item: &Item| match (batch.len(), item.attempt()) {
                (2, 1) if item.message.0 == "1" => Err(Failure::new("later")),
                _ => Ok(0),
            };
            Ok(batch.iter().map(outcome).collect())
        })
    });
    let to_run = spawn.batch(2, NO_WAIT).retry(at_once(3)).await.unwrap();
    log.lines(1).await;
    soon(to_run.park()).await;
    let said = log.clone();
    let spawn = sheaves(&system, 1, move |batch, ctx| {
        let id = ctx.tell(&Address::<Probe>::new("echo").unwrap(), note("x")).unwrap();
        said.say(format!("{id} {}", batch[0].idempotency_key("x")));
        let several = batch.len() > 1;
        let outcome = |item: &Item| match several && item.message.0 == "1" {
            true => Err(Failure::new("later")),
            false => Ok(0),
        };
        let outcomes = batch.iter().map(outcome).collect();
        Box::pin(async move { Ok(outcomes) })
    });
    spawn.batch(2, NO_WAIT).retry(at_once(3)).await.unwrap();
    empty(&to).await;
    let lines = log.lines(3).await;
    assert_eq!(lines[0], lines[1]);
    let part = |line: usize, part: usize| lines[line].split(' ').nth(part).unwrap().to_owned();
    assert_ne!(part(1, 0), part(2, 0), "what was sent alone has the id of what was sent with the batch");
    assert_eq!(part(1, 1), part(2, 1), "the message's own key is the same");
    assert_eq!(bound(&system, "echo").await.waiting(), 2);
}

/// What is still to be handled of each key, and which keys are in a batch now.
#[derive(Default)]
struct Books {
    pending: BTreeMap<String, BTreeSet<u32>>,
    busy: BTreeSet<String>,
    faults: Vec<String>,
}

impl Books {
    /// The messages of each key in a batch are the first of those that are to be handled, in order.
    fn begins(&mut self, batch: &BTreeMap<String, Vec<u32>>) {
        for (key, numbers) in batch {
            if !self.busy.insert(key.clone()) {
                self.faults.push(format!("{key} is in two batches"));
            }
            let first: Vec<_> = self.pending[key].iter().copied().take(numbers.len()).collect();
            if first != *numbers {
                self.faults.push(format!("{key}: {numbers:?} in place of {first:?}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_a_pool_keep_the_order_of_each_key_through_failures_and_restarts() {
    for seed in 0..4_u64 {
        let world = World::with(crate::store::SimulatedDisk::new(seed));
        let books: Arc<Mutex<Books>> = Arc::default();
        let mut system = world.open().await;
        let to = handle(&system).await;
        for number in 1..=20 {
            for key in ["k", "l", "m"] {
                to.tell(note(format!("{key}:{number}"))).key(key).await.unwrap();
                books.lock().unwrap().pending.entry(key.into()).or_default().insert(number);
            }
        }
        for life in 0..3_u64 {
            let (kept, calls) = (books.clone(), Arc::new(AtomicU64::new(seed * 31 + life * 7)));
            let spawn = sheaves(&system, 2, move |batch, _| {
                let chance = calls.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
                let kept = kept.clone();
                Box::pin(async move {
                    let mut by_key: BTreeMap<String, Vec<u32>> = BTreeMap::new();
                    for item in &batch {
                        let (key, number) = item.message.0.split_once(':').expect("a key");
                        by_key.entry(key.into()).or_default().push(number.parse().expect("a number"));
                    }
                    kept.lock().unwrap().begins(&by_key);
                    tokio::time::sleep(Duration::from_micros(chance % 2000)).await;
                    let mut books = kept.lock().unwrap();
                    books.busy.retain(|key| !by_key.contains_key(key));
                    if chance.is_multiple_of(5) {
                        return Err(Failure::new("the whole batch"));
                    }
                    let mut outcomes = Vec::new();
                    for (place, item) in batch.iter().enumerate() {
                        let (key, number) = item.message.0.split_once(':').expect("a key");
                        let fails = (chance >> (place + 4)).is_multiple_of(3);
                        if !fails {
                            let number = number.parse().expect("a number");
                            books.pending.get_mut(key).expect("sent").remove(&number);
                        }
                        outcomes.push(if fails { Err(Failure::new("this one")) } else { Ok(0) });
                    }
                    Ok(outcomes)
                })
            });
            let retry = RetryPolicy::strict().with_attempts(1000);
            let to = spawn.order(Order::PerKey).batch(4, NO_WAIT).retry(retry).await.unwrap();
            let last = life == 2;
            for _ in 0..if last { 20_000 } else { 10 + seed } {
                if to.waiting() == 0 {
                    break;
                }
                world.pass(Duration::from_millis(200));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(!last || to.waiting() == 0, "seed {seed}: {} wait", to.waiting());
            drop(to);
            system = world.restart(system).await;
            let faults = std::mem::take(&mut books.lock().unwrap().faults);
            assert!(faults.is_empty(), "seed {seed}, life {life}: {faults:?}");
        }
        let books = books.lock().unwrap();
        assert!(books.pending.values().all(BTreeSet::is_empty), "seed {seed}: {:?}", books.pending);
    }
}
