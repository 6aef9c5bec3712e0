//! Supervision as an Erlang or Akka engineer knows it, and what only durable mailboxes allow. Each test is named as the fact
//! it establishes; `model` compares random trees and random mishaps with a plain reference model.
//!
//! In the logs `+a` means that actor a was made and `-a` that it was dropped, in this order.

#[path = "supervision/model.rs"]
mod model;
#[path = "supervision/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use steadfast::testkit::{Recorder, run_until_idle};
use steadfast::*;
use world::*;

fn tree(strategy: Strategy, children: impl IntoIterator<Item = ChildSpec>) -> Supervisor {
    children.into_iter().fold(Supervisor::new("tree", strategy), Supervisor::child)
}

fn abc(world: &World, strategy: Strategy) -> Supervisor {
    tree(strategy, ["a", "b", "c"].map(|name| world.child(name)))
}

#[tokio::test]
async fn children_start_in_order_and_stop_in_reverse_order() {
    let world = World::new();
    let system = world.open().await;
    let root = system.supervise(abc(&world, Strategy::OneForOne)).await.unwrap();
    assert_eq!(world.log.text(), "+a +b +c");
    assert_eq!(standing(&root).await, "a+ b+ c+");
    soon(root.stop()).await;
    assert_eq!(world.log.text(), "+a +b +c -c -b -a");
    assert_eq!(root.ended().await, SupervisorExit::Stopped);
    assert!(!root.is_running());
    assert!(matches!(root.children().await, Err(ChildError::Ended { .. })));
}

#[tokio::test]
async fn one_for_one_restarts_only_the_child_that_failed() {
    let world = World::new();
    let system = world.open().await;
    let root = system.supervise(abc(&world, Strategy::OneForOne)).await.unwrap();
    world.log.clear();
    tell(&root, "b", Do::Panic(1)).await;
    world.log.shows("-b +b").await;
    assert_eq!(standing(&root).await, "a+ b+ c+");
}

#[tokio::test]
async fn one_for_all_stops_the_others_in_reverse_order_and_starts_all_in_order() {
    let world = World::new();
    let system = world.open().await;
    let root = system.supervise(abc(&world, Strategy::OneForAll)).await.unwrap();
    world.log.clear();
    tell(&root, "b", Do::Panic(1)).await;
    world.log.shows("-b -c -a +a +b +c").await;
}

#[tokio::test]
async fn rest_for_one_restarts_the_later_siblings_in_start_order_after_stopping_them_in_reverse() {
    let world = World::new();
    let system = world.open().await;
    let children = ["a", "b", "c", "d"].map(|name| world.child(name));
    let root = system.supervise(tree(Strategy::RestForOne, children)).await.unwrap();
    world.log.clear();
    tell(&root, "b", Do::Panic(1)).await;
    world.log.shows("-b -d -c +b +c +d").await;
}

#[tokio::test]
async fn a_permanent_child_is_started_again_after_a_normal_end_too() {
    let world = World::new();
    let system = world.open().await;
    let root = system.supervise(abc(&world, Strategy::OneForOne)).await.unwrap();
    world.log.clear();
    soon(hand(&root, "a").await.stop()).await;
    world.log.shows("-a +a").await;
    assert_eq!(root.failures().await.unwrap().len(), 1, "as in OTP, that counts");
}

#[tokio::test]
async fn a_transient_child_is_started_again_only_after_an_abnormal_end() {
    let world = World::new();
    let system = world.open().await;
    let children = [world.child("a").transient(), world.child("b")];
    let root = system.supervise(tree(Strategy::OneForAll, children)).await.unwrap();
    world.log.clear();
    tell(&root, "a", Do::Panic(1)).await;
    world.log.shows("-a -b +a +b").await;
    soon(hand(&root, "a").await.stop()).await;
    world.log.shows("-a").await;
    assert_eq!(standing(&root).await, "a- b+");
    assert_eq!(root.failures().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_temporary_child_is_never_started_again_and_its_end_touches_nobody_and_counts_nowhere() {
    let world = World::new();
    let system = world.open().await;
    let children = [world.child("a"), world.child("b").temporary(), world.child("c")];
    let tree = tree(Strategy::OneForAll, children).limit(RestartLimit::new(0, secs(60)));
    let root = system.supervise(tree).await.unwrap();
    world.log.clear();
    tell(&root, "b", Do::Fail(1)).await;
    world.log.shows("-b +b").await;
    tell(&root, "b", Do::Panic(1)).await;
    world.log.shows("-b").await;
    assert_eq!(standing(&root).await, "a+ c+");
    assert_eq!(root.failures().await.unwrap(), []);
}

#[tokio::test]
async fn a_temporary_child_that_was_stopped_with_its_siblings_is_not_started_again() {
    let world = World::new();
    let system = world.open().await;
    let children = [world.child("a"), world.child("b").temporary(), world.child("c")];
    let root = system.supervise(tree(Strategy::OneForAll, children)).await.unwrap();
    world.log.clear();
    tell(&root, "c", Do::Panic(1)).await;
    world.log.shows("-c -b -a +a +c").await;
    assert_eq!(standing(&root).await, "a+ c+");
}

#[tokio::test]
async fn a_sibling_that_had_ended_is_started_again_with_its_group_as_in_otp() {
    let world = World::new();
    let system = world.open().await;
    let children = [world.child("a"), world.child("b").transient(), world.child("c")];
    let root = system.supervise(tree(Strategy::OneForAll, children)).await.unwrap();
    soon(hand(&root, "b").await.stop()).await;
    stands(&root, "a+ b- c+").await;
    world.log.clear();
    tell(&root, "a", Do::Panic(1)).await;
    world.log.shows("-a -c +a +b +c").await;
}

#[tokio::test]
async fn restart_intensity_counts_over_a_sliding_window() {
    let world = World::new();
    let system = world.open().await;
    let tree = abc(&world, Strategy::OneForOne).limit(RestartLimit::new(2, secs(10)));
    let root = system.supervise(tree).await.unwrap();
    // two within any ten seconds, for a long time
    for _ in 0..6 {
        world.log.clear();
        tell(&root, "a", Do::Panic(1)).await;
        world.log.shows("-a +a").await;
        world.pass(Duration::from_millis(5_001));
    }
    // the third within ten seconds, across what would be two fixed windows
    tell(&root, "a", Do::Panic(1)).await;
    world.log.shows("-a +a").await;
    tell(&root, "b", Do::Panic(1)).await;
    let SupervisorExit::LimitExceeded { limit, last } = soon(root.ended()).await else {
        panic!("it goes on")
    };
    assert_eq!((limit.max(), last.child.as_str(), last.why.as_str()), (2, "b", "panicked: boom"));
}

#[tokio::test]
async fn a_supervisor_that_exceeds_its_limit_stops_its_children_in_reverse_start_order_and_fails_upward() {
    let world = World::new();
    let system = world.open().await;
    let inner = Supervisor::new("inner", Strategy::OneForOne).limit(RestartLimit::new(1, secs(60)));
    let inner = ["a", "b", "c"].map(|name| world.child(name)).into_iter().fold(inner, Supervisor::child);
    let inner = ChildSpec::supervisor(inner).backoff(Backoff::none());
    let root = system
        .supervise(tree(Strategy::OneForOne, [world.child("z"), inner, world.child("y")]))
        .await
        .unwrap();
    let first = root.supervisor("inner").await.unwrap();
    world.log.clear();
    tell(&first, "b", Do::Panic(1)).await;
    world.log.shows("-b +b").await;
    tell(&first, "a", Do::Panic(1)).await;
    // inner is down in reverse order, and its parent starts it again: its siblings go on
    world.log.shows("-a -c -b +a +b +c").await;
    assert!(matches!(soon(first.ended()).await, SupervisorExit::LimitExceeded { .. }));
    let failures = root.failures().await.unwrap();
    assert_eq!((failures.len(), failures[0].child.as_str()), (1, "inner"));
    assert!(failures[0].why.contains("more than 1 failures"), "{}", failures[0].why);
}

#[tokio::test]
async fn a_subtree_that_its_parent_restarts_begins_without_what_it_remembered() {
    let world = World::new();
    let system = world.open().await;
    let build = || {
        let inner = Supervisor::new("inner", Strategy::OneForOne).limit(RestartLimit::new(1, secs(60)));
        let inner = ChildSpec::supervisor(inner.child(world.child("a"))).backoff(Backoff::none());
        tree(Strategy::OneForOne, [inner])
    };
    let root = system.supervise(build()).await.unwrap();
    let inner = root.supervisor("inner").await.unwrap();
    tell(&inner, "a", Do::Panic(1)).await;
    world.log.becomes("+a -a +a").await;
    tell(&inner, "a", Do::Panic(1)).await;
    world.log.shows("+a -a +a -a +a").await;
    let inner = root.supervisor("inner").await.unwrap();
    assert_eq!(inner.failures().await.unwrap(), []);
    // on disk too
    let system = world.restart(system).await;
    let root = system.supervise(build()).await.unwrap();
    assert_eq!(root.supervisor("inner").await.unwrap().failures().await.unwrap(), []);
    assert_eq!(root.failures().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_exceeded_limit_escalates_through_every_level_and_the_root_leaves_its_tree_down_and_the_mail_waiting()
 {
    let world = World::new();
    let events = Recorder::new(|event| match event {
        Event::ChildRestarted { supervisor, child, .. } => Some(format!("{supervisor} restarts {child}")),
        Event::RestartLimitExceeded { supervisor, child, .. } => {
            Some(format!("{supervisor} gives up over {child}"))
        }
        Event::SupervisorDown { supervisor, .. } => Some(format!("{supervisor} is down")),
        _ => None,
    });
    let system = world.disk.open(world.builder().observer(events.clone())).await.unwrap();
    let strict = RestartLimit::new(0, secs(60));
    let low = Supervisor::new("low", Strategy::OneForOne).limit(strict).child(world.child("a"));
    let mid = Supervisor::new("mid", Strategy::OneForOne).limit(strict).child(ChildSpec::supervisor(low));
    let top = Supervisor::new("top", Strategy::OneForOne).limit(strict);
    let top = top.child(world.child("z")).child(ChildSpec::supervisor(mid));
    let top = system.supervise(top).await.unwrap();
    let low = top.supervisor("mid").await.unwrap().supervisor("low").await.unwrap();
    assert_eq!(low.path(), "top/mid/low");
    let actor = hand(&low, "a").await;
    actor.tell(Do::Panic(9)).await.unwrap();
    actor.tell(Do::Work).await.unwrap();
    let exit = soon(top.ended()).await;
    assert!(matches!(exit, SupervisorExit::LimitExceeded { .. }), "{exit}");
    world.log.becomes("+z +a -a -z").await;
    assert_eq!(actor.waiting(), 2, "nothing is lost");
    let expected =
        ["top/mid/low gives up over a", "top/mid gives up over low", "top gives up over mid", "top is down"];
    assert_eq!(events.kept(), expected);
}

#[tokio::test]
async fn one_poison_message_is_dead_lettered_and_trips_no_limit_while_its_neighbours_go_on() {
    let world = World::new();
    let system = world.open().await;
    let tree = abc(&world, Strategy::OneForOne).limit(RestartLimit::new(1, secs(60)));
    let root = system.supervise(tree).await.unwrap();
    let poison = tell(&root, "a", Do::Panic(99)).await;
    let after = hand(&root, "a").await.ask(Do::Work).await;
    assert_eq!(after.unwrap(), 1, "it is handled, and by an actor that knows nothing of the poison");
    assert_eq!(soon(hand(&root, "b").await.ask(Do::Work).into_future()).await.unwrap(), 1);
    world.log.becomes("+a +b +c -a +a -a +a -a +a -a +a -a +a").await;
    let dead = system.dead_letters().page(Some("a"), None, 9).await.unwrap();
    assert_eq!((dead.len(), dead[0].id.message()), (1, poison));
    let failures = root.failures().await.unwrap();
    assert_eq!(
        (failures.len(), failures[0].message),
        (1, Some(poison)),
        "five panics of one message count once"
    );
}

#[tokio::test]
async fn many_different_messages_that_fail_trip_the_limit_although_each_actor_was_only_made_anew() {
    let world = World::new();
    let system = world.open().await;
    let tree = abc(&world, Strategy::OneForOne).limit(RestartLimit::new(5, secs(60)));
    let root = system.supervise(tree).await.unwrap();
    let mut sent = Vec::new();
    for child in ["a", "b", "c", "a", "b"] {
        sent.push(Some(tell(&root, child, Do::Refuse).await));
        run_until_idle(&system).await.unwrap();
    }
    until("five to count", async || root.failures().await.unwrap().len() == 5).await;
    let known: Vec<_> = root.failures().await.unwrap().into_iter().map(|one| one.message).collect();
    assert_eq!(known, sent);
    let last = tell(&root, "c", Do::Refuse).await;
    let SupervisorExit::LimitExceeded { last: too_many, .. } = soon(root.ended()).await else {
        panic!("it goes on")
    };
    assert_eq!((too_many.child.as_str(), too_many.message), ("c", Some(last)));
    assert_eq!(system.dead_letters().page(None, None, 9).await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_message_that_stays_whatever_happens_counts_each_time() {
    let world = World::new();
    let system = world.open().await;
    let keep = FailurePolicy { panic: Decision::STOP, ..FailurePolicy::new() };
    let options = MailboxOptions::new().retry(RetryPolicy::immediately(2)).on_failure(keep);
    let tree = tree(Strategy::OneForOne, [world.child("a").mailbox(options)]);
    let root = system.supervise(tree.limit(RestartLimit::new(2, secs(60)))).await.unwrap();
    tell(&root, "a", Do::Panic(99)).await;
    for _ in 0..3 {
        run_soon(&world).await;
    }
    assert!(matches!(soon(root.ended()).await, SupervisorExit::LimitExceeded { .. }));
    assert_eq!(system.dead_letters().page(None, None, 9).await.unwrap(), []);
}

/// What is held back for a tenth of a second comes.
async fn run_soon(world: &World) {
    a_moment().await;
    a_moment().await;
    world.pass(Duration::from_millis(100));
}

#[tokio::test]
async fn the_decision_lies_with_the_message_and_the_message_with_the_failure() {
    let world = World::new();
    let system = world.open().await;
    let root = system.supervise(abc(&world, Strategy::OneForOne)).await.unwrap();
    let options = RetryPolicy::immediately(2);
    let d = world.child("d").mailbox(MailboxOptions::new().retry(options));
    root.start_child(d).await.unwrap();
    let id = tell(&root, "d", Do::Panic(2)).await;
    until("it is dead", async || !system.dead_letters().page(None, None, 9).await.unwrap().is_empty()).await;
    let dead = &system.dead_letters().page(None, None, 9).await.unwrap()[0];
    let decided: Vec<_> = dead.attempts.last.iter().map(|one| (one.class, one.decision)).collect();
    assert_eq!(decided, [(FailureClass::Panic, Decision::RESTART); 2]);
    until("it runs again", async || standing(&root).await == "a+ b+ c+ d+").await;
    let children = root.children().await.unwrap();
    let last = children[3].last_failure.as_ref().unwrap();
    assert_eq!((last.message, last.why.as_str(), children[3].restarts), (Some(id), "panicked: boom", 2));
}

#[tokio::test]
async fn a_released_message_is_no_failure() {
    let world = World::new();
    let system = world.open().await;
    let tree = abc(&world, Strategy::OneForOne).limit(RestartLimit::new(0, secs(60)));
    let root = system.supervise(tree).await.unwrap();
    world.log.clear();
    tell(&root, "a", Do::Release).await;
    world.log.becomes("-a +a").await;
    assert_eq!(root.failures().await.unwrap(), []);
}

#[tokio::test]
async fn a_limit_survives_a_restart_of_the_process_so_a_crash_loop_across_deploys_is_seen() {
    let world = World::new();
    let build = || abc(&world, Strategy::OneForOne).limit(RestartLimit::new(2, secs(60)));
    let mut system = world.open().await;
    for deploy in 0..2 {
        let root = system.supervise(build()).await.unwrap();
        assert_eq!(root.failures().await.unwrap().len(), deploy);
        world.log.clear();
        tell(&root, "a", Do::Panic(1)).await;
        world.log.shows("-a +a").await;
        system = if deploy == 0 { world.restart(system).await } else { world.crash(system).await };
        world.pass(secs(10));
    }
    for last in 0..2 {
        // it gives up at once, also at the next start within the window
        let root = system.supervise(build()).await.unwrap();
        world.log.clear();
        tell(&root, "b", Do::Panic(1)).await;
        let exit = soon(root.ended()).await;
        assert!(matches!(exit, SupervisorExit::LimitExceeded { .. }), "{last}: {exit}");
        world.log.shows("-b -c -a").await;
        system = world.restart(system).await;
    }
}

#[tokio::test]
async fn failures_older_than_the_window_are_forgotten_whether_the_process_ran_meanwhile_or_not() {
    let world = World::new();
    let build = || abc(&world, Strategy::OneForOne).limit(RestartLimit::new(1, secs(60)));
    let system = world.open().await;
    let root = system.supervise(build()).await.unwrap();
    world.log.clear();
    tell(&root, "a", Do::Panic(1)).await;
    world.log.shows("-a +a").await;
    system.shutdown(secs(10)).await.unwrap();
    world.pass(secs(61));
    let system = world.open().await;
    let root = system.supervise(build()).await.unwrap();
    assert_eq!(root.failures().await.unwrap(), []);
    world.log.clear();
    tell(&root, "a", Do::Panic(1)).await;
    world.log.shows("-a +a").await;
    world.pass(secs(60));
    assert_eq!(root.failures().await.unwrap().len(), 1, "the window includes its end");
    world.pass(Duration::from_millis(1));
    assert_eq!(root.failures().await.unwrap(), []);
}

#[tokio::test]
async fn a_reset_by_hand_forgets_what_counted_here_and_on_disk() {
    let world = World::new();
    let build = || abc(&world, Strategy::OneForOne).limit(RestartLimit::new(1, secs(60)));
    let system = world.open().await;
    let root = system.supervise(build()).await.unwrap();
    world.log.clear();
    tell(&root, "a", Do::Panic(1)).await;
    world.log.shows("-a +a").await;
    root.reset().await.unwrap();
    tell(&root, "a", Do::Panic(1)).await;
    world.log.shows("-a +a").await;
    root.reset().await.unwrap();
    let system = world.crash(system).await;
    let root = system.supervise(build()).await.unwrap();
    assert_eq!(root.failures().await.unwrap(), []);
}

#[tokio::test]
async fn what_counts_is_on_disk_before_the_child_is_started_again() {
    let world = World::new();
    let system = world.open().await;
    let root = system.supervise(abc(&world, Strategy::OneForOne)).await.unwrap();
    let actor = hand(&root, "a").await;
    world.log.clear();
    actor.ask(Do::Work).await.unwrap();
    world.disk.hold_syncs();
    let sent = actor.tell(Do::Panic(1)).durability(Durability::Volatile).await;
    sent.unwrap();
    world.log.becomes("-a").await;
    world.disk.release_syncs();
    world.log.becomes("-a +a").await;
}

#[tokio::test]
async fn the_wait_grows_with_each_restart_in_a_row_and_begins_anew_after_a_quiet_time() {
    let world = World::new();
    let system = world.open().await;
    let backoff = Backoff { min: secs(1), max: secs(5), factor: 2.0, jitter: 0.0, reset_after: secs(60) };
    let tree = tree(Strategy::OneForOne, [world.child("a").backoff(backoff), world.child("b")]);
    let root = system.supervise(tree.limit(RestartLimit::new(99, secs(60)))).await.unwrap();
    world.log.clear();
    for wait in [1, 2, 4, 5, 5] {
        tell(&root, "a", Do::Panic(1)).await;
        stands(&root, "a… b+").await;
        world.pass(Duration::from_millis(wait * 1_000 - 1));
        world.log.becomes("-a").await;
        world.pass(Duration::from_millis(1));
        world.log.shows("-a +a").await;
    }
    world.pass(secs(60));
    tell(&root, "a", Do::Panic(1)).await;
    stands(&root, "a… b+").await;
    world.pass(secs(1));
    world.log.shows("-a +a").await;
}

#[tokio::test]
async fn a_wait_survives_a_restart_of_the_process_and_later_siblings_that_depend_on_it_wait_too() {
    let world = World::new();
    let build = || {
        let children =
            [world.child("a"), world.child("b").backoff(Backoff::fixed(secs(10))), world.child("c")];
        tree(Strategy::RestForOne, children)
    };
    let system = world.open().await;
    let root = system.supervise(build()).await.unwrap();
    tell(&root, "b", Do::Panic(1)).await;
    stands(&root, "a+ b… c…").await;
    let system = world.crash(system).await;
    world.pass(secs(4));
    world.log.clear();
    let root = system.supervise(build()).await.unwrap();
    assert_eq!(standing(&root).await, "a+ b… c…");
    world.log.becomes("+a").await;
    world.pass(secs(6));
    world.log.becomes("+a +b +c").await;
}

#[tokio::test]
async fn jitter_comes_from_the_systems_clock_so_a_seed_replays() {
    let waits = async || {
        let world = World::new();
        let waits = Recorder::new(|event| match event {
            Event::ChildRestarted { after, .. } => Some(*after),
            _ => None,
        });
        let system = world.disk.open(world.builder().observer(waits.clone())).await.unwrap();
        let backoff = Backoff { jitter: 0.5, ..Backoff::fixed(secs(10)) };
        let root =
            system.supervise(tree(Strategy::OneForOne, [world.child("a").backoff(backoff)])).await.unwrap();
        for _ in 0..3 {
            tell(&root, "a", Do::Panic(1)).await;
            stands(&root, "a…").await;
            world.pass(secs(15));
            stands(&root, "a+").await;
        }
        waits.kept()
    };
    let first = waits().await;
    assert!(first.iter().all(|wait| (secs(10)..=secs(15)).contains(wait)), "{first:?}");
    assert_ne!(first[0], first[1]);
}

#[tokio::test]
async fn a_child_that_fails_at_the_first_start_has_those_before_it_stopped_in_reverse_and_is_named() {
    let world = World::new();
    let system = world.open().await;
    let inner = Supervisor::new("inner", Strategy::OneForOne).child(world.child("c")).child(world.child("d"));
    let children = [world.child("a"), world.child("b"), ChildSpec::supervisor(inner), world.child("e")];
    world.log.break_factory("d");
    let error = system.supervise(tree(Strategy::OneForOne, children)).await.unwrap_err();
    assert!(matches!(&error, SuperviseError::Child { child, .. } if child == "tree/inner/d"), "{error}");
    world.log.becomes("+a +b +c -c -b -a").await;
}

#[tokio::test]
async fn a_restart_whose_start_fails_counts_again_and_is_tried_again_after_its_wait() {
    let world = World::new();
    let system = world.open().await;
    let children = [world.child("a"), world.child("b").backoff(Backoff::fixed(secs(1))), world.child("c")];
    let tree = tree(Strategy::RestForOne, children).limit(RestartLimit::new(3, secs(60)));
    let root = system.supervise(tree).await.unwrap();
    world.log.clear();
    world.log.break_factory("b");
    tell(&root, "b", Do::Panic(1)).await;
    for failures in 1..=3 {
        until("it to count", async || root.failures().await.unwrap().len() == failures).await;
        assert_eq!(standing(&root).await, "a+ b… c…");
        if failures == 3 {
            world.log.mend_factory("b");
        }
        world.pass(secs(1));
    }
    world.log.shows("-b -c +b +c").await;
    world.log.break_factory("b");
    tell(&root, "b", Do::Panic(1)).await;
    assert!(matches!(soon(root.ended()).await, SupervisorExit::LimitExceeded { .. }));
    world.log.shows("-b -c -a").await;
}

#[tokio::test]
async fn a_group_whose_start_fails_halfway_is_stopped_and_started_again_as_its_strategy_says() {
    let world = World::new();
    let system = world.open().await;
    let wait = |name| world.child(name).backoff(Backoff::fixed(secs(1)));
    let root = system.supervise(tree(Strategy::OneForAll, ["a", "b", "c"].map(wait))).await.unwrap();
    world.log.clear();
    world.log.break_factory("b");
    tell(&root, "c", Do::Panic(1)).await;
    stands(&root, "a… b… c…").await;
    world.pass(secs(1));
    world.log.shows("-c -b -a +a -a").await;
    stands(&root, "a… b… c…").await;
    world.log.mend_factory("b");
    world.pass(secs(1));
    world.log.shows("+a +b +c").await;
}

#[tokio::test]
async fn names_that_are_none_and_names_given_twice_are_refused_before_anything_is_started() {
    let world = World::new();
    let system = world.open().await;
    let twice = tree(Strategy::OneForOne, [world.child("a"), world.child("b"), world.child("a")]);
    let error = system.supervise(twice).await.unwrap_err();
    assert!(matches!(&error, SuperviseError::Duplicate { child, .. } if child == "a"), "{error}");
    let nested =
        Supervisor::new("inner", Strategy::OneForOne).child(world.child("b")).child(world.child("b"));
    let nested = tree(Strategy::OneForOne, [world.child("a"), ChildSpec::supervisor(nested)]);
    let error = system.supervise(nested).await.unwrap_err();
    assert!(
        matches!(&error, SuperviseError::Duplicate { supervisor, .. } if supervisor == "tree/inner"),
        "{error}"
    );
    for bad in ["", "a b", "a/b"] {
        let error = system.supervise(Supervisor::new(bad, Strategy::OneForOne)).await.unwrap_err();
        assert!(matches!(&error, SuperviseError::Name { .. }), "{error}");
    }
    let bad = tree(Strategy::OneForOne, [world.child("a"), world.child("b c")]);
    let error = system.supervise(bad).await.unwrap_err();
    assert!(matches!(&error, SuperviseError::Child { child, .. } if child == "tree/b c"), "{error}");
    assert_eq!(world.log.text(), "");
}

#[tokio::test]
async fn a_tree_of_a_name_that_runs_is_refused_and_one_that_ended_can_be_started_again() {
    let world = World::new();
    let system = world.open().await;
    let root = system.supervise(abc(&world, Strategy::OneForOne)).await.unwrap();
    let error = system.supervise(Supervisor::new("tree", Strategy::OneForAll)).await.unwrap_err();
    assert!(matches!(error, SuperviseError::Running { .. }), "{error}");
    soon(root.stop()).await;
    system.supervise(abc(&world, Strategy::OneForOne)).await.unwrap();
}

#[tokio::test]
async fn children_can_be_added_stopped_restarted_and_deleted_while_the_tree_runs() {
    let world = World::new();
    let system = world.open().await;
    let root = system.supervise(tree(Strategy::OneForAll, [world.child("a")])).await.unwrap();
    root.start_child(world.child("b")).await.unwrap();
    assert!(matches!(root.start_child(world.child("b")).await, Err(ChildError::Exists { .. })));
    world.log.break_factory("c");
    assert!(matches!(root.start_child(world.child("c")).await, Err(ChildError::Start(_))));
    assert_eq!(standing(&root).await, "a+ b+");
    assert!(matches!(root.restart_child("b").await, Err(ChildError::Running { .. })));
    assert!(matches!(root.delete_child("b").await, Err(ChildError::Running { .. })));
    root.stop_child("b").await.unwrap();
    assert_eq!(standing(&root).await, "a+ b-");
    world.log.shows("+a +b -b").await;
    let actor = hand(&root, "b").await;
    actor.tell(Do::Work).await.unwrap();
    assert_eq!((actor.is_running(), actor.waiting()), (false, 1));
    root.restart_child("b").await.unwrap();
    until("the mail that waited to be handled", async || actor.waiting() == 0).await;
    // one that was added is restarted with the others
    tell(&root, "a", Do::Panic(1)).await;
    world.log.shows("+b -a -b +a +b").await;
    root.stop_child("b").await.unwrap();
    root.delete_child("b").await.unwrap();
    assert!(matches!(root.restart_child("b").await, Err(ChildError::NotFound { .. })));
    root.start_child(world.child("t").temporary()).await.unwrap();
    root.stop_child("t").await.unwrap();
    assert_eq!(standing(&root).await, "a+", "a temporary child that was stopped is none any more");
    let inner = Supervisor::new("inner", Strategy::OneForOne).child(world.child("x"));
    root.start_child(ChildSpec::supervisor(inner)).await.unwrap();
    assert!(matches!(root.actor::<Hand>("inner").await, Err(ChildError::OtherKind { .. })));
    assert!(matches!(root.supervisor("a").await, Err(ChildError::OtherKind { .. })));
    assert_eq!(standing(&root.supervisor("inner").await.unwrap()).await, "x+");
    assert_eq!(root.failures().await.unwrap().len(), 1, "what is done by hand does not count");
}

#[tokio::test]
async fn a_child_that_waits_can_be_started_at_once_by_hand() {
    let world = World::new();
    let system = world.open().await;
    let slow = world.child("a").backoff(Backoff::fixed(secs(600)));
    let root = system.supervise(tree(Strategy::OneForOne, [slow])).await.unwrap();
    tell(&root, "a", Do::Panic(1)).await;
    stands(&root, "a…").await;
    root.restart_child("a").await.unwrap();
    assert_eq!(standing(&root).await, "a+");
}

#[tokio::test]
async fn a_child_that_does_not_end_in_its_time_is_killed_which_costs_its_message_no_attempt() {
    let world = World::new();
    let system = world.open().await;
    let children =
        [world.child("a").shutdown(Duration::ZERO), world.child("b").shutdown(Duration::from_millis(80))];
    let root = system.supervise(tree(Strategy::OneForOne, children)).await.unwrap();
    let (a, b) = (hand(&root, "a").await, hand(&root, "b").await);
    for actor in [&a, &b] {
        actor.tell(Do::Hang).await.unwrap();
    }
    world.log.becomes("+a +b a-hangs b-hangs").await;
    let began = std::time::Instant::now();
    soon(root.stop()).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(80) && took < secs(4), "{took:?}");
    assert_eq!((a.waiting(), b.waiting()), (1, 1));
    world.log.becomes("+a +b a-hangs b-hangs -b -a").await;
    assert_eq!(system.dead_letters().page(None, None, 9).await.unwrap(), []);
    let again = system.supervise(tree(Strategy::OneForOne, [world.child("a")])).await.unwrap();
    assert_eq!(again.failures().await.unwrap(), []);
}

#[tokio::test]
async fn a_shutdown_ends_trees_and_plain_actors_in_reverse_order_of_their_start() {
    let world = World::new();
    let system = world.open().await;
    let log = world.log.clone();
    system.spawn("first", move || Hand::new("first", &log)).await.unwrap();
    let inner = Supervisor::new("inner", Strategy::OneForOne).child(world.child("b")).child(world.child("c"));
    let children = [world.child("a"), ChildSpec::supervisor(inner), world.child("d")];
    let root = system.supervise(tree(Strategy::OneForOne, children)).await.unwrap();
    let log = world.log.clone();
    system.spawn("last", move || Hand::new("last", &log)).await.unwrap();
    world.log.clear();
    soon(system.shutdown(secs(10))).await.unwrap();
    assert_eq!(world.log.text(), "-last -d -c -b -a -first");
    assert_eq!(root.ended().await, SupervisorExit::Stopped);
    let later = system.supervise(Supervisor::new("later", Strategy::OneForOne)).await;
    assert!(matches!(later, Err(SuperviseError::ShuttingDown)));
}

#[tokio::test]
async fn the_deadline_of_a_shutdown_goes_before_the_time_that_children_have() {
    let world = World::new();
    let system = world.open().await;
    let slow = |name| world.child(name).shutdown(secs(3_600));
    let inner = ChildSpec::supervisor(Supervisor::new("inner", Strategy::OneForOne).child(slow("b")));
    let root = system.supervise(tree(Strategy::OneForAll, [slow("a"), inner, slow("c")])).await.unwrap();
    let inner = root.supervisor("inner").await.unwrap();
    tell(&root, "a", Do::Hang).await;
    tell(&inner, "b", Do::Hang).await;
    world.log.becomes("+a +b +c a-hangs b-hangs").await;
    // it is about to stop its children for a restart when the shutdown comes
    tell(&root, "c", Do::Panic(1)).await;
    world.log.becomes("+a +b +c a-hangs b-hangs -c").await;
    let began = std::time::Instant::now();
    soon(system.shutdown(Duration::from_millis(200))).await.unwrap();
    assert!(began.elapsed() < secs(3), "{:?}", began.elapsed());
    world.log.becomes("+a +b +c a-hangs b-hangs -c -b -a").await;
}

#[tokio::test]
async fn a_child_that_escalates_takes_its_supervisor_down_with_it() {
    let world = World::new();
    let system = world.open().await;
    let inner = Supervisor::new("inner", Strategy::OneForOne).child(world.child("a")).child(world.child("b"));
    let inner = ChildSpec::supervisor(inner).backoff(Backoff::fixed(secs(1)));
    let root = system.supervise(tree(Strategy::OneForOne, [inner, world.child("z")])).await.unwrap();
    let inner = root.supervisor("inner").await.unwrap();
    world.log.clear();
    let id = tell(&inner, "a", Do::Escalate).await;
    world.log.becomes("-a -b").await;
    let SupervisorExit::Escalated { child, message, why } = soon(inner.ended()).await else {
        panic!("it goes on")
    };
    assert_eq!((child.as_str(), message, why.as_str()), ("a", Some(id), "no bank"));
    assert_eq!(standing(&root).await, "inner… z+");
}

#[tokio::test]
async fn a_child_that_stops_over_a_failure_is_started_again_unless_it_is_temporary() {
    let world = World::new();
    let system = world.open().await;
    let wait = |name| world.child(name).backoff(Backoff::fixed(secs(1)));
    let children = [wait("a"), wait("b").transient(), wait("c").temporary()];
    let root = system.supervise(tree(Strategy::OneForOne, children)).await.unwrap();
    for child in ["a", "b", "c"] {
        tell(&root, child, Do::StopActor).await;
    }
    stands(&root, "a… b…").await;
}

#[tokio::test]
async fn a_handle_stays_valid_over_restarts_and_what_is_sent_meanwhile_waits() {
    let world = World::new();
    let system = world.open().await;
    let slow = world.child("a").backoff(Backoff::fixed(secs(1)));
    let root = system.supervise(tree(Strategy::OneForOne, [slow])).await.unwrap();
    let actor = hand(&root, "a").await;
    assert_eq!(actor.ask(Do::Work).await.unwrap(), 1);
    tell(&root, "a", Do::Panic(1)).await;
    stands(&root, "a…").await;
    let asked = tokio::spawn({
        let actor = actor.clone();
        async move { actor.ask(Do::Work).await }
    });
    a_moment().await;
    assert!(!asked.is_finished());
    world.pass(secs(1));
    let done = soon(asked).await.unwrap().unwrap();
    assert_eq!(done, 3, "what was committed is there, the failed attempt left nothing");
    assert_eq!(actor.cell(&DONE).await.unwrap(), Some(3));
}

#[tokio::test]
async fn a_nested_supervisor_that_is_stopped_by_hand_is_a_child_that_ended_normally() {
    let world = World::new();
    let system = world.open().await;
    let inner = |name, child| Supervisor::new(name, Strategy::OneForOne).child(world.child(child));
    let permanent = ChildSpec::supervisor(inner("p", "a")).backoff(Backoff::none());
    let transient = ChildSpec::supervisor(inner("t", "b")).transient();
    let root = system.supervise(tree(Strategy::OneForOne, [permanent, transient])).await.unwrap();
    world.log.clear();
    soon(root.supervisor("p").await.unwrap().stop()).await;
    world.log.shows("-a +a").await;
    soon(root.supervisor("t").await.unwrap().stop()).await;
    world.log.shows("-b").await;
    stands(&root, "p+ t-").await;
}

#[tokio::test]
async fn a_store_that_failed_is_no_failure_of_a_child() {
    let world = World::new();
    let restarts = Recorder::new(|event| matches!(event, Event::ChildRestarted { .. }).then_some(()));
    let system = world.disk.open(world.builder().observer(restarts.clone())).await.unwrap();
    let root = system.supervise(abc(&world, Strategy::OneForOne)).await.unwrap();
    let actor = hand(&root, "a").await;
    world.disk.fail_syncs(true);
    let _ = actor.tell(Do::Work).await;
    assert_eq!(soon(root.ended()).await, SupervisorExit::StoreFailed);
    assert_eq!(restarts.kept(), []);
    // each ends by itself: their order is nobody's
    until("all to end", async || world.log.all().iter().filter(|line| line.starts_with('-')).count() == 3)
        .await;
    assert_eq!(world.log.all().len(), 6);
}

#[tokio::test]
async fn dropping_the_system_throws_its_trees_away() {
    let world = World::new();
    let system = world.open().await;
    let inner = Supervisor::new("inner", Strategy::OneForOne).child(world.child("b"));
    let children = [world.child("a"), ChildSpec::supervisor(inner)];
    let root = system.supervise(tree(Strategy::OneForOne, children)).await.unwrap();
    drop(system);
    assert_eq!(soon(root.ended()).await, SupervisorExit::Aborted);
    let log = world.log.clone();
    until("all to be dropped", async || log.all().iter().filter(|line| line.starts_with('-')).count() == 2)
        .await;
    let _: Arc<ManualClock> = world.clock;
}

#[tokio::test]
async fn who_watches_a_child_is_told_only_when_it_is_not_started_again() {
    let world = World::new();
    let system = world.open().await;
    let children =
        [world.child("p"), world.child("t").transient(), world.child("u").temporary(), world.child("v")];
    let root = system.supervise(tree(Strategy::OneForOne, children)).await.unwrap();
    world.watch(&system, &["p", "t", "u", "v"]).await;
    world.log.clear();
    tell(&root, "p", Do::Panic(1)).await;
    world.log.shows("-p +p").await;
    tell(&root, "t", Do::Panic(1)).await;
    world.log.shows("-t +t").await;
    soon(hand(&root, "t").await.stop()).await;
    world.log.shows("-t t†").await;
    tell(&root, "u", Do::Panic(1)).await;
    world.log.shows("-u u†").await;
    root.stop_child("v").await.unwrap();
    world.log.shows("-v v†").await;
    soon(root.stop()).await;
    world.log.shows("-p p†").await;
}

#[tokio::test]
async fn who_watches_into_a_subtree_is_told_when_it_is_not_started_again_with_it() {
    let world = World::new();
    let system = world.open().await;
    let inner = Supervisor::new("inner", Strategy::OneForOne).limit(RestartLimit::new(0, secs(60)));
    let inner = inner.child(world.child("a")).child(world.child("b").temporary());
    let inner = ChildSpec::supervisor(inner).backoff(Backoff::fixed(secs(1)));
    let root = system.supervise(tree(Strategy::OneForOne, [inner])).await.unwrap();
    root.supervisor("inner").await.unwrap().start_child(world.child("c")).await.unwrap();
    world.watch(&system, &["a", "b", "c"]).await;
    world.log.clear();
    tell(&root.supervisor("inner").await.unwrap(), "a", Do::Panic(1)).await;
    world.log.shows("-a -c -b").await;
    world.pass(secs(1));
    // what was added by hand does not come back
    world.log.shows("+a +b c†").await;
    tell(&root.supervisor("inner").await.unwrap(), "a", Do::Panic(1)).await;
    stands(&root, "inner…").await;
    world.log.shows("-a -b").await;
    soon(root.stop()).await;
    a_moment().await;
    let mut told = world.log.all();
    told.sort();
    assert_eq!(told, ["a†", "b†"]);
}

#[tokio::test]
async fn a_watch_of_a_child_that_waits_to_be_started_again_is_told_nothing_yet() {
    let world = World::new();
    let system = world.open().await;
    let children = [world.child("a").backoff(Backoff::fixed(secs(1))), world.child("b")];
    let root = system.supervise(tree(Strategy::OneForOne, children)).await.unwrap();
    tell(&root, "a", Do::Panic(1)).await;
    stands(&root, "a… b+").await;
    world.log.clear();
    world.watch(&system, &["a", "x"]).await;
    world.log.shows("x†").await;
    root.stop_child("a").await.unwrap();
    world.log.shows("a†").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_does_not_yield_is_named_at_the_shutdown_and_the_rest_of_its_tree_ends() {
    let world = World::new();
    let system = world.open().await;
    let inner = Supervisor::new("inner", Strategy::OneForOne).child(world.child("a")).child(world.child("b"));
    let root = system.supervise(tree(Strategy::OneForOne, [world.child("z"), ChildSpec::supervisor(inner)]));
    let inner = root.await.unwrap().supervisor("inner").await.unwrap();
    tell(&inner, "b", Do::Block).await;
    world.log.becomes("+z +a +b b-blocks").await;
    let ended = soon(system.shutdown(Duration::from_millis(50))).await;
    world.log.becomes("+z +a +b b-blocks -a -z").await;
    world.log.unblock();
    assert!(matches!(&ended, Err(ShutdownError::Stuck { mailboxes }) if mailboxes == &["b"]), "{ended:?}");
}
