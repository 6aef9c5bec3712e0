//! Groups: members that come and go share one mailbox; who gets which key, and what becomes of what one had in hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::world::*;
use crate::testkit::{Recorder, run_until_idle};
use crate::{
    Actor, ActorRef, Address, Backoff, BatchHandler, ChildSpec, Context, Durability, Event, Exit, Failure,
    FailurePolicy, Group, Handled, Handler, Item, Member, Order, Outcomes, RestartLimit, RetryPolicy,
    SpawnError, StartFrom, State, Strategy, Supervisor, SupervisorExit, System, Topic,
};

/// A factory of probes that do what the script says.
fn made<F>(script: F) -> impl Fn() -> Probe + Clone + Send + Sync + 'static
where
    F: for<'a> Fn(Turn<'a>) -> Answer<'a> + Send + Sync + 'static,
{
    let script = Arc::new(script);
    move || Probe::new(script.clone())
}

async fn topic(system: &System) -> Topic<Note> {
    system.topic("notes").await.expect("opens")
}

/// Publishes `text` under the key that is its part before the colon.
async fn publish(to: &Topic<Note>, text: &str) {
    let (key, _) = text.split_once(':').expect("a key");
    to.publish(note(text)).key(key).await.expect("accepted");
}

async fn publish_all(to: &Topic<Note>, texts: &[&str]) {
    for text in texts {
        publish(to, text).await;
    }
}

async fn group(system: &System) -> Group<Probe> {
    let topic = topic(system).await;
    let group = system.group("group").subscribe(&topic, StartFrom::Earliest);
    group.retry(every_ten_seconds(5)).await.expect("opens")
}

/// One that says what it handles, after its name.
async fn join(group: &Group<Probe>, name: &str, log: &Log) -> Member {
    join_gated(group, name, log, &opened()).await
}

fn opened() -> Gate {
    let gate = Gate::closed();
    gate.open();
    gate
}

/// The same, and ends each when the gate lets it.
async fn join_gated(group: &Group<Probe>, name: &str, log: &Log, gate: &Gate) -> Member {
    let (log, gate, who) = (log.clone(), gate.clone(), name.to_owned());
    let script = script(move |turn| {
        log.say(format!("{who} {}", turn.note));
        let gate = gate.clone();
        Box::pin(async move {
            gate.pass().await;
            Ok(0)
        })
    });
    soon(group.join(made(script)).name(name)).await.expect("joins")
}

/// Waits until all events were handled.
async fn handled(system: &System, log: &Log, count: usize) -> Vec<String> {
    log.lines(count).await;
    soon(run_until_idle(system)).await.expect("runs");
    assert_eq!(log.len(), count);
    log.all()
}

/// Which members handled each key.
fn by_key(lines: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines {
        let (who, text) = line.split_once(' ').expect("who and what");
        let (key, _) = text.split_once(':').expect("a key");
        all.entry(key.to_owned()).or_default().insert(who.to_owned());
    }
    all
}

/// A name under which one that joins those of these names gets the key.
fn takes(key: &str, members: &[&str]) -> String {
    let wins = |name: &str| {
        let all = members.iter().copied().chain([name]);
        let salts = all.enumerate().map(|(number, name)| (number as u64, crate::actor::salt_of(name)));
        crate::actor::home(&crate::actor::Key::Named(key.into()), salts) == Some(members.len() as u64)
    };
    let mut names =
        (0..1000).map(|number| format!("m{number}")).filter(|name| !members.contains(&name.as_str()));
    names.find(|name| wins(name)).expect("one of so many")
}

#[tokio::test]
async fn a_group_without_members_keeps_its_mail_and_the_first_to_join_gets_it_all() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    publish_all(&notes, &["k:1", "l:1", "k:2"]).await;
    billing.tell(note("k:direct")).key("k").await.unwrap();
    a_moment().await;
    assert!(billing.members().is_empty() && billing.is_running());
    let system = world.restart(system).await;
    let notes = topic(&system).await;
    publish(&notes, "k:3").await;
    let system = world.crash(system).await;
    let billing = group(&system).await;
    let first = join(&billing, "a", &log).await;
    let all = handled(&system, &log, 5).await;
    assert_eq!(all[0], "a k:direct", "direct mail goes first");
    assert_eq!(
        all.iter().filter(|line| line.contains("k:")).skip(1).collect::<Vec<_>>(),
        ["a k:1", "a k:2", "a k:3"]
    );
    soon(first.leave()).await;
    assert_eq!((soon(first.ended()).await, first.is_running()), (Exit::Stopped, false));
    publish(&topic(&system).await, "k:4").await;
    a_moment().await;
    assert_eq!(log.len(), 5, "nobody is there");
    join(&billing, "b", &log).await;
    assert_eq!(handled(&system, &log, 6).await[5], "b k:4");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_members_stay_the_same_each_key_goes_to_one_of_them() {
    const KEYS: usize = 40;
    let (world, log) = (World::new(), Log::new());
    let mut system = world.open().await;
    let mut first = BTreeMap::new();
    for life in 0..2 {
        let (notes, billing) = (topic(&system).await, group(&system).await);
        // in another order after the restart: the names decide
        let names = if life == 0 { ["a", "b", "c", "d"] } else { ["c", "d", "b", "a"] };
        for name in names {
            join(&billing, name, &log).await;
        }
        for number in 0..5 {
            for key in 0..KEYS {
                publish(&notes, &format!("{key}:{number}")).await;
            }
        }
        let keys = by_key(&handled(&system, &log, 5 * KEYS * (life + 1)).await);
        assert!(keys.values().all(|who| who.len() == 1), "{keys:?}");
        let busy: BTreeSet<_> = keys.values().flatten().collect();
        assert_eq!((keys.len(), busy.len()), (KEYS, 4));
        if life == 0 {
            first = keys;
        } else {
            assert_eq!(first, keys);
        }
        system = world.restart(system).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_joins_takes_about_its_share_of_the_keys_and_no_other_key_moves() {
    const KEYS: usize = 200;
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    let mut members = Vec::new();
    for number in 0..4 {
        members.push(join(&billing, &number.to_string(), &log).await);
    }
    let round = async |name: &str| {
        let before = log.len();
        for key in 0..KEYS {
            let event = notes.publish(note(format!("{key}:{name}"))).key(key.to_string());
            event.durability(Durability::Buffered).await.expect("accepted");
        }
        by_key(&handled(&system, &log, before + KEYS).await[before..])
    };
    let before = round("before").await;
    let fifth = join(&billing, "4", &log).await;
    let with = round("with").await;
    let moved: Vec<_> = before.iter().filter(|(key, who)| with[*key] != **who).collect();
    assert!((20..=60).contains(&moved.len()), "{} of {KEYS} moved", moved.len());
    assert!(moved.iter().all(|(key, _)| with[*key] == BTreeSet::from(["4".to_owned()])));
    soon(fifth.leave()).await;
    assert_eq!(round("after").await, before, "what it took comes back, and nothing else moves");
}

#[tokio::test]
async fn the_keys_of_one_that_leaves_are_taken_over_in_order_after_its_turn() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    let first = join_gated(&billing, "first", &log, &gate).await;
    publish_all(&notes, &["k:1", "k:2", "l:1", "k:3"]).await;
    log.lines(1).await;
    join_gated(&billing, "second", &log, &opened()).await;
    publish_all(&notes, &["k:4", "l:2"]).await;
    // what is at home with the second may be handled by now
    a_moment().await;
    only_after(first.leave(), || gate.let_one_pass()).await;
    let all = handled(&system, &log, 6).await;
    assert_eq!(all[0], "first k:1");
    for key in ["k", "l"] {
        let of: Vec<_> =
            all.iter().filter(|line| line.contains(key)).map(|line| &line[line.len() - 1..]).collect();
        assert!(of.is_sorted(), "{all:?}");
    }
    assert!(all[1..].iter().all(|line| line.starts_with("second")), "{all:?}");
}

#[tokio::test]
async fn a_key_that_is_in_flight_moves_to_one_that_joined_when_its_turn_has_ended() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    join_gated(&billing, "old", &log, &gate).await;
    publish_all(&notes, &["k:1", "k:2"]).await;
    log.lines(1).await;
    let new = takes("k", &["old"]);
    join_gated(&billing, &new, &log, &opened()).await;
    publish_all(&notes, &["k:3"]).await;
    a_moment().await;
    assert_eq!(log.all(), ["old k:1"], "it is in flight");
    let doing: Vec<_> =
        billing.members().into_iter().map(|info| (info.name, info.keys, info.messages)).collect();
    assert_eq!(doing, [("old".to_owned(), 1, 1), (new.clone(), 0, 0)]);
    gate.let_one_pass();
    assert_eq!(handled(&system, &log, 3).await[1..], [format!("{new} k:2"), format!("{new} k:3")]);
}

#[tokio::test]
async fn whoever_hears_of_an_event_wakes_the_one_to_whom_it_belongs() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    for name in ["a", "b", "c"] {
        join(&billing, name, &log).await;
    }
    for key in 0..20 {
        // all sleep, and the bell wakes any of them
        tokio::time::sleep(Duration::from_millis(2)).await;
        publish(&notes, &format!("{key}:1")).await;
        log.lines(key + 1).await;
    }
    assert_eq!(by_key(&log.all()).values().flatten().collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn a_message_whose_key_has_moved_is_tried_again_when_it_is_due_while_its_old_home_is_busy() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    let (said, passes) = (log.clone(), gate.clone());
    let fails = made(move |turn| {
        said.say(format!("old {}", turn.note));
        let (passes, fails) = (passes.clone(), turn.note == "k:bad");
        Box::pin(async move {
            passes.pass().await;
            if fails { Err(Failure::new("no")) } else { Ok(0) }
        })
    });
    billing.join(fails).name("old").await.unwrap();
    publish(&notes, "k:bad").await;
    log.lines(1).await;
    let new = takes("k", &["old"]);
    join(&billing, &new, &log).await;
    let stays = (0..100).map(|key| format!("q{key}")).find(|key| at(key, &["old", &new]) == 0);
    publish(&notes, &format!("{}:long", stays.expect("one of so many"))).await;
    a_moment().await;
    gate.let_one_pass();
    // it goes from one to the other without a rest
    log.lines(2).await;
    a_moment().await;
    world.pass(secs(10));
    assert_eq!(log.lines(3).await[2], format!("{new} k:bad"));
    gate.open();
    soon(run_until_idle(&system)).await.expect("runs");
}

#[tokio::test]
async fn a_key_without_end_holds_up_no_other_and_with_any_free_none_waits_for_a_busy_member() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let notes = topic(&system).await;
    let billing = group(&system).await;
    join_gated(&billing, "a", &log, &gate).await;
    let other = takes("slow", &["a"]);
    let at_home = takes("slow", &["a", &other]);
    // `slow` is at home with the last of three
    join(&billing, &other, &log).await;
    join_gated(&billing, &at_home, &log, &gate).await;
    for number in 0..300 {
        notes
            .publish(note(format!("slow:{number}")))
            .key("slow")
            .durability(Durability::Buffered)
            .await
            .unwrap();
    }
    log.lines(1).await;
    assert_eq!(log.all(), [format!("{at_home} slow:0")]);
    let theirs = (0..100).map(|key| format!("q{key}")).filter(|key| at(key, &["a", &other, &at_home]) == 1);
    let theirs: Vec<_> = theirs.take(10).collect();
    for key in &theirs {
        publish(&notes, &format!("{key}:1")).await;
    }
    log.lines(11).await;
    assert_eq!(log.all().iter().filter(|line| line.starts_with(&other)).count(), 10);
    // one of the busy member waits for it
    let its = (0..100).map(|key| format!("q{key}")).find(|key| at(key, &["a", &other, &at_home]) == 2);
    publish(&notes, &format!("{}:1", its.expect("one of so many"))).await;
    a_moment().await;
    assert_eq!(log.len(), 11);
    soon(billing.park()).await;
    let again = system.group("group").subscribe(&notes, StartFrom::Earliest).any_free().await.unwrap();
    let log = Log::new();
    join_gated(&again, "x", &log, &gate).await;
    join_gated(&again, "y", &log, &gate).await;
    log.lines(2).await;
    a_moment().await;
    assert_eq!(log.len(), 2, "{:?}", log.all());
    let keys = by_key(&log.all());
    assert!(keys.contains_key("slow") && keys.len() == 2, "{keys:?}");
}

/// The number of the one of these at which a key is at home.
fn at(key: &str, members: &[&str]) -> u64 {
    let salts = members.iter().enumerate().map(|(number, name)| (number as u64, crate::actor::salt_of(name)));
    crate::actor::home(&crate::actor::Key::Named(key.into()), salts).expect("there are members")
}

#[tokio::test]
async fn one_that_fails_is_gone_with_its_keys_and_the_others_go_on() {
    let (world, log) = (World::new(), Log::new());
    let seen = Recorder::new(|event| match event {
        Event::MemberJoined { member, members, .. } => Some(format!("+{member} {members}")),
        Event::MemberLeft { member, members, why, .. } => Some(format!("-{member} {members}: {why}")),
        _ => None,
    });
    let system = world.builder().observer(seen.clone()).open_simulated(&world.disk).await.unwrap();
    let (notes, billing) = (topic(&system).await, group(&system).await);
    // the first stops, the second cannot be made again
    let said = log.clone();
    let stops = made(move |turn| {
        said.say(format!("stops {}", turn.note));
        Box::pin(async { Err(Failure::new("no").stop_actor()) })
    });
    let stops = billing.join(stops).name("stops").await.unwrap();
    publish_all(&notes, &["k:1", "k:2"]).await;
    let why = soon(stops.ended()).await;
    assert!(matches!(&why, Exit::Failed(failed) if failed.why == "no"), "{why}");
    let (said, broken) = (log.clone(), Arc::new(AtomicBool::new(false)));
    let (breaks, is_broken) = (broken.clone(), broken.clone());
    let script = script(move |turn| {
        said.say(format!("breaks {} {}", turn.note, turn.ctx.attempt()));
        breaks.store(true, Ordering::Release);
        Box::pin(async { panic!("planted") })
    });
    let factory = made(script);
    let broken = billing.join(move || {
        assert!(!is_broken.load(Ordering::Acquire), "cannot be made");
        factory()
    });
    let broken = broken.name("breaks").await.unwrap();
    world.pass(secs(60));
    let why = soon(broken.ended()).await;
    assert!(matches!(&why, Exit::Failed(failed) if failed.why.contains("cannot be made")), "{why}");
    assert!(billing.is_running() && billing.members().is_empty());
    join(&billing, "good", &log).await;
    log.lines(2).await;
    a_moment().await;
    assert_eq!(log.len(), 2, "its backoff is still to come");
    world.pass(secs(60));
    let all = handled(&system, &log, 4).await;
    assert_eq!(all, ["stops k:1", "breaks k:1 2", "good k:1", "good k:2"]);
    let kept = seen.kept();
    let short: Vec<_> = kept.iter().map(|line| line.split(':').next().unwrap_or_default()).collect();
    assert_eq!(short, ["+stops 1", "-stops 0", "+breaks 1", "-breaks 0", "+good 1"]);
}

#[tokio::test]
async fn one_that_leaves_while_a_message_waits_to_be_tried_again_hands_over_attempts_and_backoff() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    let member = async |name: &'static str| {
        let said = log.clone();
        let script = script(move |turn| {
            said.say(format!("{name} {} {}", turn.note, turn.ctx.attempt()));
            let fails = turn.note == "k:bad" && turn.ctx.attempt() <= 2;
            Box::pin(async move { if fails { Err(Failure::new("no")) } else { Ok(0) } })
        });
        billing.join(made(script)).name(name).await.unwrap()
    };
    let first = member("first").await;
    publish_all(&notes, &["k:bad", "k:2", "l:1"]).await;
    log.lines(2).await;
    until("the failure to be kept", || billing.members()[0].messages == 0).await;
    member("second").await;
    soon(first.leave()).await;
    publish(&notes, "l:2").await;
    log.lines(3).await;
    a_moment().await;
    assert_eq!(log.len(), 3, "{:?}", log.all());
    world.pass(secs(10));
    log.lines(4).await;
    a_moment().await;
    assert_eq!(log.len(), 4);
    world.pass(secs(10));
    assert_eq!(handled(&system, &log, 6).await[3..], ["second k:bad 2", "second k:bad 3", "second k:2 1"]);
}

#[tokio::test]
async fn the_turn_of_one_that_is_parked_is_run_again_by_another_and_costs_no_attempt() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    let parked = join_gated(&billing, "parked", &log, &gate).await;
    publish_all(&notes, &["k:1", "k:2"]).await;
    let direct = billing.tell(note("direct")).submit().unwrap();
    log.lines(1).await;
    soon(parked.park()).await;
    let said = log.clone();
    let script = script(move |turn| {
        said.say(format!("next {} {}", turn.note, turn.ctx.attempt()));
        Box::pin(async { Ok(0) })
    });
    billing.join(made(script)).await.unwrap();
    let all = handled(&system, &log, 4).await;
    let of_k: Vec<_> = all[1..].iter().filter(|line| line.contains("k:")).collect();
    assert_eq!(of_k, ["next k:1 1", "next k:2 1"], "{all:?}");
    assert_eq!(soon(direct.handled()).await.unwrap(), Handled::Done);
}

#[tokio::test]
async fn in_strict_order_one_handles_all_and_another_stands_by() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    let billing = system.group("group").subscribe(&notes, StartFrom::Earliest).order(Order::Strict);
    let billing: Group<Probe> = billing.await.unwrap();
    let members = BTreeMap::from([
        ("a".to_owned(), join(&billing, "a", &log).await),
        ("b".to_owned(), join(&billing, "b", &log).await),
    ]);
    for number in 0..20 {
        publish(&notes, &format!("{}:{number}", number % 3)).await;
    }
    let all = handled(&system, &log, 20).await;
    let active = all[0].split(' ').next().unwrap_or_default();
    assert!(all.iter().all(|line| line.starts_with(active)), "{all:?}");
    soon(members[active].leave()).await;
    publish(&notes, "0:20").await;
    let all = handled(&system, &log, 21).await;
    assert!(!all[20].starts_with(active));
}

#[tokio::test]
async fn a_group_is_stopped_drained_and_shut_down_as_one_and_joined_by_a_new_handle() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    let first = join_gated(&billing, "first", &log, &gate).await;
    let refused = system.group::<Probe>("group").await.unwrap_err();
    assert!(matches!(refused, SpawnError::Running { .. }), "{refused}");
    publish_all(&notes, &["k:1", "k:2"]).await;
    log.lines(1).await;
    only_after(billing.stop(), || gate.let_one_pass()).await;
    assert_eq!((soon(first.ended()).await, billing.ended().await), (Exit::Stopped, Some(Exit::Stopped)));
    let refused = soon(billing.join(made(|_| Box::pin(async { Ok(0) })))).await.unwrap_err();
    assert!(matches!(refused, SpawnError::Stopped { .. }), "{refused}");
    let again = group(&system).await;
    soon(again.drain()).await;
    assert!(!again.is_running(), "nobody is there to drain it");
    let again = group(&system).await;
    join_gated(&again, "second", &log, &opened()).await;
    publish(&notes, "k:3").await;
    soon(again.drain()).await;
    assert_eq!(log.all(), ["first k:1", "second k:2", "second k:3"]);
    let again = group(&system).await;
    let last = join_gated(&again, "last", &log, &Gate::closed()).await;
    publish(&notes, "k:4").await;
    log.lines(4).await;
    soon(system.shutdown(Duration::from_millis(50))).await.unwrap();
    assert!(!last.is_running());
    let system = world.open().await;
    let again = group(&system).await;
    join(&again, "next", &log).await;
    assert_eq!(handled(&system, &log, 5).await[4], "next k:4");
}

#[tokio::test]
async fn one_that_cannot_be_made_or_is_not_waited_for_is_no_member() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let billing = group(&system).await;
    let refused = soon(billing.join(|| -> Probe { panic!("planted") })).await.unwrap_err();
    assert!(matches!(&refused, SpawnError::Factory { why, .. } if why.contains("planted")), "{refused}");
    {
        let mut thrown_away =
            Box::pin(IntoFuture::into_future(billing.join(made(|_| Box::pin(async { Ok(0) })))));
        assert!(futures_util::poll!(&mut thrown_away).is_pending());
    }
    a_moment().await;
    assert!(billing.members().is_empty(), "{:?}", billing.members());
    // a handle is not the member
    drop(join(&billing, "kept", &log).await);
    publish(&topic(&system).await, "k:1").await;
    assert_eq!(handled(&system, &log, 1).await, ["kept k:1"]);
}

#[tokio::test]
async fn messages_without_a_key_go_to_whoever_is_free_also_when_one_has_put_them_back() {
    let (world, log, gate) = (World::new(), Log::new(), Gate::closed());
    let system = world.open().await;
    let billing = group(&system).await;
    let first = join_gated(&billing, "first", &log, &gate).await;
    join_gated(&billing, "second", &log, &gate).await;
    for number in 0..4 {
        billing.tell(note(number)).await.unwrap();
    }
    log.lines(2).await;
    a_moment().await;
    assert_eq!(log.len(), 2);
    soon(first.park()).await;
    gate.open();
    let all = handled_direct(&billing, &log, 5).await;
    assert!(all[2..].iter().all(|line| line.starts_with("second")), "{all:?}");
}

async fn handled_direct(to: &ActorRef<Probe>, log: &Log, count: usize) -> Vec<String> {
    settled(to).await;
    assert_eq!(log.len(), count, "{:?}", log.all());
    log.all()
}

#[tokio::test]
async fn the_members_of_a_group_share_state_that_nobody_writes() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Whole(u64);
    impl Actor for Whole {
        const NAME: &'static str = "test.whole";
        type Messages = (Note,);
        fn state() -> State<Self> {
            State::whole(1)
        }
    }
    impl Handler<Note> for Whole {
        async fn handle(&mut self, _: Note, _: &mut Context<Self>) -> Result<u64, Failure> {
            Ok(self.0)
        }
    }
    let world = World::new();
    let system = world.open().await;
    let refused = system.group::<Whole>("whole").await.unwrap_err();
    assert!(matches!(refused, SpawnError::PoolWithState { .. }), "{refused}");
    let billing = system.group::<Probe>("group").retry(RetryPolicy::never()).await.unwrap();
    let writes = made(|turn| {
        let set = turn.ctx.state().set(&TOTAL, &1);
        Box::pin(async move { Ok(set.map(|()| 0)?) })
    });
    billing.join(writes).await.unwrap();
    let refused = soon(billing.ask(note("x"))).await.unwrap_err().to_string();
    assert!(refused.contains("`total`"), "{refused}");
}

/// Copies what it handles to another mailbox, a batch at a time.
struct Copier {
    name: String,
    log: Log,
    gate: Gate,
}

impl Actor for Copier {
    const NAME: &'static str = "test.copier";
    type Messages = (Note,);
}

impl BatchHandler<Note> for Copier {
    async fn handle_batch(
        &mut self,
        batch: Vec<Item<Note>>,
        _: &mut Context<Self>,
    ) -> Result<Outcomes<Note>, Failure> {
        let all: Vec<_> = batch.iter().map(|item| item.message.0.as_str()).collect();
        self.log.say(format!("{} {}", self.name, all.join(" ")));
        self.gate.pass().await;
        Ok(batch.iter().map(|_| Ok(0)).collect())
    }
}

#[tokio::test]
async fn all_that_one_had_taken_for_a_turn_is_put_back_in_order() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let group = system.group::<Copier>("group").batch(8, Duration::ZERO).await.unwrap();
    for number in 0..6 {
        group.tell(note(number)).key("k").await.unwrap();
    }
    let copier = |name: &str, gate: Gate| {
        let (name, log) = (name.to_owned(), log.clone());
        move || Copier { name: name.clone(), log: log.clone(), gate: gate.clone() }
    };
    let parked = group.join(copier("parked", Gate::closed())).await.unwrap();
    log.lines(1).await;
    assert_eq!(group.members()[0].messages, 6);
    soon(parked.park()).await;
    group.tell(note(6)).key("k").await.unwrap();
    group.join(copier("next", opened())).await.unwrap();
    until("all to be handled", || group.waiting() == 0).await;
    let lines = log.all();
    let of_next: Vec<_> = lines[1..].iter().flat_map(|line| line.split(' ').skip(1)).collect();
    assert_eq!(lines[0], "parked 0 1 2 3 4 5");
    assert_eq!(of_next, ["0", "1", "2", "3", "4", "5", "6"]);
}

#[tokio::test]
async fn a_supervised_member_comes_again_and_has_its_keys_back_and_when_it_is_given_up_others_have_them() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let notes = topic(&system).await;
    let open = system.group::<Probe>("group").subscribe(&notes, StartFrom::Earliest);
    let billing = open.retry(at_once(9)).await.expect("opens");
    join(&billing, "other", &log).await;
    let name = takes("k", &["other"]);
    let (said, who) = (log.clone(), name.clone());
    // the first failure is survived in place, the next ends it
    let fails = made(move |turn| {
        said.say(format!("{who} {} {}", turn.note, turn.ctx.attempt()));
        let (attempt, bad) = (turn.ctx.attempt(), turn.note.contains("bad"));
        Box::pin(async move {
            match (bad, attempt) {
                (true, 1) => Err(Failure::new("no")),
                (true, 2) => panic!("no"),
                _ => Ok(0),
            }
        })
    });
    let child = ChildSpec::member(name.clone(), &billing, fails).backoff(Backoff::none());
    let tree =
        Supervisor::new("tree", Strategy::OneForOne).limit(RestartLimit::new(1, secs(60))).child(child);
    let tree = system.supervise(tree).await.expect("starts");
    publish_all(&notes, &["k:1"]).await;
    assert_eq!(handled(&system, &log, 1).await, [format!("{name} k:1 1")]);
    // whoever of the two comes first handles it to its end
    publish_all(&notes, &["k:bad", "k:2"]).await;
    soon(run_until_idle(&system)).await.expect("runs");
    let gone = log.all();
    assert_eq!(gone[1..3], [format!("{name} k:bad 1"), format!("{name} k:bad 2")], "{gone:?}");
    until("it to be back", || billing.members().len() == 2).await;
    assert_eq!(billing.members()[1].name, name);
    let before = log.len();
    publish(&notes, "k:3").await;
    assert_eq!(handled(&system, &log, before + 1).await[before], format!("{name} k:3 1"));
    publish_all(&notes, &["k:bad", "k:4"]).await;
    let exit = soon(tree.ended()).await;
    assert!(matches!(exit, SupervisorExit::LimitExceeded { .. }), "{exit}");
    soon(run_until_idle(&system)).await.expect("runs");
    assert_eq!(log.all().last().map(String::as_str), Some("other k:4"));
    assert_eq!(billing.members().len(), 1);
}

#[tokio::test]
async fn a_key_stays_with_one_that_was_thrown_away_until_what_it_left_behind_has_ended() {
    let (world, log) = (World::new(), Log::new());
    let system = world.open().await;
    let (notes, billing) = (topic(&system).await, group(&system).await);
    let (ends, waits) = std::sync::mpsc::channel::<()>();
    let (said, waits) = (log.clone(), Arc::new(Mutex::new(waits)));
    let blocks = made(move |turn| {
        said.say(format!("first {}", turn.note));
        let waits = waits.clone();
        Box::pin(async move {
            let wait = move || waits.lock().unwrap().recv_timeout(secs(20)).is_ok();
            turn.ctx.blocking(wait).await?;
            Ok(0)
        })
    });
    // it has no time to end in
    let child = ChildSpec::member("first", &billing, blocks).shutdown(Duration::ZERO);
    let tree = Supervisor::new("tree", Strategy::OneForOne).child(child);
    let tree = system.supervise(tree).await.expect("starts");
    publish_all(&notes, &["k:1", "k:2"]).await;
    log.lines(1).await;
    soon(tree.stop()).await;
    join(&billing, "second", &log).await;
    a_moment().await;
    assert_eq!(log.all(), ["first k:1"]);
    drop(ends);
    assert_eq!(handled(&system, &log, 3).await[1..], ["second k:1", "second k:2"]);
}

/// What all members of one life share, by key.
#[derive(Default)]
struct Shared {
    busy: Vec<AtomicUsize>,
    /// The last event that succeeded in this life.
    done: Vec<AtomicU32>,
    faults: Mutex<Vec<String>>,
}

/// One that handles a key now; thrown away with its turn.
struct Busy(Arc<Shared>, usize);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy[self.1].fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn new(keys: usize) -> Arc<Self> {
        let busy = (0..keys).map(|_| AtomicUsize::new(0)).collect();
        let done = (0..keys).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Shared { busy, done, faults: Mutex::default() })
    }

    fn begins(self: &Arc<Self>, key: usize, number: u32) -> Busy {
        let fault = |what: String| self.faults.lock().unwrap().push(what);
        if self.busy[key].fetch_add(1, Ordering::SeqCst) > 0 {
            fault(format!("{key}:{number} beside another"));
        }
        let done = self.done[key].load(Ordering::SeqCst);
        // a turn that succeeded may have been thrown away before its commit
        if done > 0 && number != done && number != done + 1 {
            fault(format!("{key}:{number} after {done}"));
        }
        Busy(self.clone(), key)
    }
}

/// Small numbers that look random, and are the same for the same seed.
fn mixed(seed: u64, what: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 29;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

const KEYS: usize = 20;

/// A member that takes its time, fails now and then, ends by its policy or breaks for good, and writes each event down in the
/// turn that handled it.
fn worker(seed: u64, shared: &Arc<Shared>) -> impl Fn() -> Probe + Send + Sync + 'static {
    let (shared, broken) = (shared.clone(), Arc::new(AtomicBool::new(false)));
    let is_broken = broken.clone();
    let factory = made(move |turn| {
        let (key, number) = turn.note.split_once(':').expect("a key");
        let (key, number) =
            (key.parse::<usize>().expect("a number"), number.parse::<u32>().expect("a number"));
        let sent = turn.ctx.tell(&Address::<Probe>::new("book").expect("a name"), note(turn.note));
        let what = key as u64 * 1_000_003 + u64::from(number) * 101 + u64::from(turn.ctx.attempt());
        let (chance, shared, broken) = (mixed(seed, what), shared.clone(), broken.clone());
        Box::pin(async move {
            sent?;
            let busy = shared.begins(key, number);
            tokio::time::sleep(Duration::from_micros(chance % 2000)).await;
            match chance % 64 {
                0 | 1 => return Err(Failure::new("no")),
                2 => return Err(Failure::new("no more").stop_actor()),
                3 => {
                    broken.store(true, Ordering::SeqCst);
                    panic!("planted");
                }
                _ => {}
            }
            shared.done[key].store(number, Ordering::SeqCst);
            drop(busy);
            Ok(0)
        })
    });
    move || {
        assert!(!is_broken.load(Ordering::SeqCst), "planted");
        factory()
    }
}

/// Publishes, and has members come and go, as the seed says.
struct Run {
    seed: u64,
    step: u64,
    published: [u32; KEYS],
}

impl Run {
    fn chance(&mut self) -> u64 {
        self.step += 1;
        mixed(self.seed + 1, self.step)
    }

    async fn life(&mut self, world: &World, system: &System, steps: u64, to_the_end: bool) {
        let (notes, shared) = (topic(system).await, Shared::new(KEYS));
        let open = system.group::<Probe>("group").subscribe(&notes, StartFrom::Earliest);
        let retry = RetryPolicy::strict().with_attempts(1000).with_backoff(secs(1), 1.0, secs(1));
        let open = open.retry(retry).on_failure(FailurePolicy::new());
        let group = if self.seed.is_multiple_of(4) { open.any_free() } else { open }.await.expect("opens");
        let mut members: Vec<Member> = Vec::new();
        let mut leaving = tokio::task::JoinSet::new();
        for _ in 0..steps {
            members.retain(Member::is_running);
            let chance = self.chance();
            match chance % 8 {
                0 | 1 if members.len() < 6 => {
                    members.push(soon(group.join(worker(self.seed, &shared))).await.expect("joins"));
                }
                2 if !members.is_empty() => {
                    let member = members.swap_remove((chance >> 8) as usize % members.len());
                    match chance >> 16 & 3 {
                        0 => soon(member.leave()).await,
                        1 => drop(leaving.spawn(async move { member.leave().await })),
                        2 => drop(leaving.spawn(async move { member.park().await })),
                        _ => soon(member.park()).await,
                    }
                }
                3 => world.pass(Duration::from_millis(300)),
                4 => tokio::time::sleep(Duration::from_micros(chance >> 8 & 2047)).await,
                _ => {
                    for _ in 0..4 {
                        let key = self.chance() as usize % KEYS;
                        self.published[key] += 1;
                        let event = note(format!("{key}:{}", self.published[key]));
                        notes.publish(event).key(key.to_string()).await.expect("accepted");
                    }
                }
            }
        }
        let lag =
            async || system.subscription("group").await.expect("there").info().await.expect("readable").lag;
        for round in 0..if to_the_end { 20_000 } else { 0 } {
            if round % 8 == 0 && lag().await == 0 {
                break;
            }
            if group.members().is_empty() {
                soon(group.join(worker(self.seed, &shared))).await.expect("joins");
            }
            world.pass(Duration::from_millis(100));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let faults = shared.faults.lock().unwrap().clone();
        assert!(faults.is_empty(), "seed {}: {faults:?}", self.seed);
        if to_the_end {
            while leaving.join_next().await.is_some() {}
            assert_eq!(lag().await, 0, "seed {}: {:?} of {:?}", self.seed, group.members(), self.published);
        }
    }

    /// Every event is in the book, once, in the order of its key.
    async fn check(&self, system: &System) {
        let book = Log::new();
        let total = self.published.iter().sum::<u32>() as usize;
        let to = scribe(system, "book", &book).await;
        settled(&to).await;
        let mut seen = [0; KEYS];
        for line in book.all() {
            let (key, number) = line.split_once(':').expect("a key");
            let (key, number): (usize, u32) =
                (key.parse().expect("a number"), number.parse().expect("a number"));
            seen[key] += 1;
            assert_eq!(number, seen[key], "seed {}, key {key}", self.seed);
        }
        assert_eq!((seen, book.len()), (self.published, total), "seed {}", self.seed);
        assert!(dead(system).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_handled_once_and_in_order_while_members_join_leave_and_crash() {
    for seed in 0..6 {
        let world = World::with(crate::store::SimulatedDisk::new(seed));
        let system = world.open().await;
        bound(&system, "book").await;
        let mut run = Run { seed, step: 0, published: [0; KEYS] };
        run.life(&world, &system, 200, true).await;
        run.check(&system).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_through_power_cuts_and_restarts() {
    for seed in 0..6 {
        let world = World::with(crate::store::SimulatedDisk::new(seed));
        let mut system = world.open().await;
        bound(&system, "book").await;
        let mut run = Run { seed: seed + 100, step: 0, published: [0; KEYS] };
        for life in 0..4 {
            let last = life == 3;
            run.life(&world, &system, 60, last).await;
            if last {
                run.check(&system).await;
            } else if life == 1 {
                system = world.restart(system).await;
            } else {
                system = world.crash(system).await;
            }
        }
    }
}
