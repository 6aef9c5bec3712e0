//! Stages: their operators, windows and state, through failures, restarts and what cannot be.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::{Failure, RetryPolicy, SpawnError, Stage, StageError, Window, Windowed};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn tell(window: Windowed<String, u64>) -> Line {
    let Windowed { key, start, end, value, revision, .. } = window;
    line(format!("{key} {}-{} {value} r{revision}", start.as_millis(), end.as_millis()))
}

/// Moves time once all that was published is handled: it would overtake that.
async fn advance(system: &System, stage: &crate::StageRef<crate::One<Buy>>, to: u64) {
    soon(run_until_idle(system)).await.expect("idle");
    soon(stage.advance_to(Timestamp::from_millis(to))).await.expect("advances");
}

#[tokio::test]
async fn a_stage_puts_out_what_its_operators_make_of_each_event_in_order() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let stage = buys
        .stage("enrich")
        .filter(|buy| buy.cents > 1)
        .flat_map(|buy| [buy.cents, buy.cents * 10])
        .filter_map(|cents| (cents != 30).then(|| line(cents)))
        .then_async(|Line(text)| async move { Ok(line(format!("<{text}>"))) })
        .to(&out)
        .expect("possible");
    system.run_stage(stage).await.expect("runs");
    buys.publish_all((1..=4).map(|cents| buy("ann", 0, cents))).await.expect("published");
    assert_eq!(all_of(&system, &out).await, ["<2>", "<20>", "<3>", "<4>", "<40>"]);
}

fn sums(buys: &Topic<Buy>, out: &Topic<Line>, window: Window, lateness: u64) -> Stage<crate::One<Buy>> {
    let flow = buys.stage("sums").event_time(time, ms(0)).key_by(|buy| buy.who.clone()).window(window);
    flow.lateness(ms(lateness)).fold(|| 0, |sum, buy| *sum += buy.cents).map(tell).to(out).expect("possible")
}

#[tokio::test]
async fn a_tumbling_window_is_put_out_once_when_time_has_passed_it() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let stage = system.run_stage(sums(&buys, &out, Window::tumbling(ms(10)), 0)).await.expect("runs");
    let events = [buy("ann", 1, 1), buy("bob", 2, 5), buy("ann", 9, 2), buy("ann", 12, 7), buy("bob", 3, 9)];
    buys.publish_all(events).await.expect("published");
    // the last came after its window was over
    assert_eq!(all_of(&system, &out).await, ["ann 0-10 3 r0", "bob 0-10 5 r0"]);
    assert_eq!(stage.late().await.expect("readable"), 1);
    advance(&system, &stage, 20).await;
    assert_eq!(all_of(&system, &out).await[2..], ["ann 10-20 7 r0"]);
}

#[tokio::test]
async fn a_sliding_window_holds_every_event_that_is_in_it() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let stage = system.run_stage(sums(&buys, &out, Window::sliding(ms(10), ms(5)), 0)).await.expect("runs");
    buys.publish_all([buy("ann", 6, 1), buy("ann", 12, 2)]).await.expect("published");
    advance(&system, &stage, 100).await;
    let wanted = ["ann 0-10 1 r0", "ann 5-15 3 r0", "ann 10-20 2 r0"];
    assert_eq!(all_of(&system, &out).await, wanted);
}

#[tokio::test]
async fn an_event_within_the_lateness_puts_its_window_out_once_more_as_a_revision() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let stage = system.run_stage(sums(&buys, &out, Window::tumbling(ms(10)), 10)).await.expect("runs");
    let events = [buy("ann", 1, 1), buy("ann", 15, 2), buy("ann", 2, 4), buy("ann", 3, 8)];
    buys.publish_all(events).await.expect("published");
    assert_eq!(all_of(&system, &out).await, ["ann 0-10 1 r0", "ann 0-10 5 r1", "ann 0-10 13 r2"]);
    buys.publish_all([buy("ann", 20, 1), buy("ann", 4, 16)]).await.expect("published");
    all_of(&system, &out).await;
    assert_eq!(stage.late().await.expect("readable"), 1);
}

#[tokio::test]
async fn late_events_go_where_the_stage_says() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let late = system.topic::<Buy>("late").await.expect("opens");
    let timed = |name: &str| buys.stage(name).event_time(time, ms(0)).key_by(|buy| buy.who.clone());
    let count = |flow: crate::Flow<_, Windowed<String, u64>>| flow.map(tell).to(&out).expect("possible");
    let window = || Window::tumbling(ms(10));
    let routed = timed("routed").window(window()).late_to(&late).fold(|| 0, |sum: &mut u64, _| *sum += 1);
    let failing = timed("failing").window(window()).late_fails().fold(|| 0, |sum: &mut u64, _| *sum += 1);
    system.run_stage(count(routed)).await.expect("runs");
    system.run_stage(count(failing)).await.expect("runs");
    buys.publish_all([buy("ann", 50, 1), buy("ann", 7, 2)]).await.expect("published");
    soon(run_until_idle(&system)).await.expect("idle");
    let came: Vec<_> = late.read_to_end(StartFrom::Earliest).await.expect("reads").collect().await;
    assert_eq!(came.into_iter().map(|one| one.expect("readable").event.at).collect::<Vec<_>>(), [7]);
    let dead = dead(&system).await;
    let why = &dead[0].attempts.last[0].error;
    assert!(why.contains("stage failing, event 1 of topic buys") && why.contains("7 ms"), "{why}");
}

fn sessions(buys: &Topic<Buy>, out: &Topic<Line>, lateness: u64) -> Stage<crate::One<Buy>> {
    let flow = buys.stage("sessions").event_time(time, ms(20)).key_by(|buy| buy.who.clone()).session(ms(10));
    let flow = flow.lateness(ms(lateness));
    flow.fold(|| 0, |sum, buy| *sum += buy.cents, |sum, other| *sum += other)
        .map(tell)
        .to(out)
        .expect("possible")
}

#[tokio::test]
async fn a_session_goes_on_until_its_gap_and_an_event_between_two_makes_them_one() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let stage = system.run_stage(sessions(&buys, &out, 0)).await.expect("runs");
    let events =
        [buy("ann", 0, 1), buy("ann", 16, 2), buy("bob", 17, 4), buy("ann", 8, 8), buy("bob", 27, 16)];
    buys.publish_all(events).await.expect("published");
    advance(&system, &stage, 100).await;
    // at the gap's end begins another
    assert_eq!(all_of(&system, &out).await, ["ann 0-26 11 r0", "bob 17-27 4 r0", "bob 27-37 16 r0"]);
}

#[tokio::test]
async fn a_session_that_was_put_out_and_goes_on_is_put_out_again_as_a_revision() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let stage = system.run_stage(sessions(&buys, &out, 50)).await.expect("runs");
    buys.publish_all([buy("ann", 0, 1), buy("ann", 35, 2)]).await.expect("published");
    assert_eq!(all_of(&system, &out).await, ["ann 0-10 1 r0"]);
    // the watermark is 15: this one makes 0 to 19 of it, which is not over yet
    buys.publish(buy("ann", 9, 4)).await.expect("published");
    assert_eq!(all_of(&system, &out).await.len(), 1);
    advance(&system, &stage, 30).await;
    assert_eq!(all_of(&system, &out).await[1..], ["ann 0-19 5 r1"]);
    advance(&system, &stage, 100).await;
    assert_eq!(all_of(&system, &out).await[2..], ["ann 35-45 2 r0"]);
}

#[tokio::test]
async fn windows_by_the_clock_close_without_another_event_also_after_a_restart() {
    let world = World::new();
    let system = world.open().await;
    let make = async |system: &System| {
        let (buys, out) = (buys(system).await, lines_topic(system, "out").await);
        let flow = buys.stage("sums").processing_time().key_by(|buy| buy.who.clone());
        let flow = flow.window(Window::tumbling(secs(10))).fold(|| 0, |sum, buy: &Buy| *sum += buy.cents);
        let stage = flow.map(|window| line(window.value)).to(&out).expect("possible");
        system.run_stage(stage).await.expect("runs");
        (buys, out)
    };
    let (buys, out) = make(&system).await;
    buys.publish_all([buy("ann", 0, 3), buy("ann", 0, 4)]).await.expect("published");
    assert!(all_of(&system, &out).await.is_empty());
    drop((buys, out));
    let system = world.restart(system).await;
    let (buys, out) = make(&system).await;
    world.pass(secs(10));
    until("the window to close", || {
        world.pass(ms(1));
        futures_util::FutureExt::now_or_never(out.info())
            .is_some_and(|info| info.is_ok_and(|info| info.events == 1))
    })
    .await;
    assert_eq!(all_of(&system, &out).await, ["7"]);
    buys.publish(buy("ann", 0, 5)).await.expect("published");
    all_of(&system, &out).await;
    world.pass(secs(20));
    until("the next window to close", || {
        world.pass(ms(1));
        futures_util::FutureExt::now_or_never(out.info())
            .is_some_and(|info| info.is_ok_and(|info| info.events == 2))
    })
    .await;
}

#[tokio::test]
async fn more_windows_than_one_turn_closes_are_closed_in_the_next_ones() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let flow = buys.stage("sums").event_time(time, ms(0)).key_by(|buy| buy.who.clone());
    let sums = flow.window(Window::tumbling(ms(10))).fold(|| 0, |sum, buy: &Buy| *sum += buy.cents);
    // and nothing is late for the windows behind them
    let totals = sums.key_by(|_| "all".to_owned()).window(Window::tumbling(ms(10)));
    let totals = totals.late_fails().fold(|| 0, |sum, window: &Windowed<String, u64>| *sum += window.value);
    let stage = system.run_stage(totals.map(tell).to(&out).expect("possible")).await.expect("runs");
    buys.publish_all((0..700).map(|n| buy(&n.to_string(), n % 10, 1))).await.expect("published");
    advance(&system, &stage, 10).await;
    assert_eq!(all_of(&system, &out).await, ["all 0-10 700 r0"]);
}

#[tokio::test]
async fn a_scan_keeps_a_value_for_each_key_through_a_power_cut() {
    let world = World::new();
    let mut system = world.open().await;
    for round in 0..3 {
        let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
        let flow = buys.stage("totals").key_by(|buy| buy.who.clone());
        let flow = flow.scan(
            || 0,
            |total: &mut u64, who, buy| {
                *total += buy.cents;
                Some(line(format!("{who} {total}")))
            },
        );
        system.run_stage(flow.to(&out).expect("possible")).await.expect("runs");
        buys.publish_all([buy("ann", 0, 1), buy("bob", 0, 10)]).await.expect("published");
        let all = all_of(&system, &out).await;
        assert_eq!(all[2 * round..], [format!("ann {}", round + 1), format!("bob {}", 10 * (round + 1))]);
        system = world.crash(system).await;
    }
}

#[tokio::test]
async fn a_failure_and_a_panic_name_the_stage_and_the_event_and_follow_the_policy() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let stage = buys.stage("picky").try_map(|buy| match buy.cents {
        1 => Err(Failure::new("not one")),
        2 => panic!("two!"),
        cents => Ok(line(cents)),
    });
    let stage = stage.to(&out).expect("possible").retry(at_once(3));
    system.run_stage(stage).await.expect("runs");
    buys.publish_all((0..=3).map(|cents| buy("ann", 0, cents))).await.expect("published");
    assert_eq!(all_of(&system, &out).await, ["0", "3"]);
    let dead = dead(&system).await;
    let errors: Vec<_> =
        dead.iter().map(|dead| dead.attempts.last.last().expect("one").error.clone()).collect();
    let wanted =
        ["stage picky, event 1 of topic buys: not one", "stage picky, event 2 of topic buys: panicked: two!"];
    assert_eq!(errors, wanted);
    assert!(dead.iter().all(|dead| dead.attempts.count == 3));
}

#[tokio::test]
async fn one_of_a_batch_that_fails_takes_no_other_with_it() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    buys.publish_all((0..20).map(|cents| buy("ann", 0, cents))).await.expect("published");
    let stage = buys.stage("sums").scan(
        || 0,
        |sum: &mut u64, buy: Buy| {
            *sum += buy.cents;
            Some((buy.cents, *sum))
        },
    );
    let stage = stage.try_map(|(cents, sum)| match cents {
        7 => Err(Failure::new("seven")),
        _ => Ok(line(sum)),
    });
    let stage = stage.to(&out).expect("possible").retry(at_once(2)).batch(50, ms(0)).expect("possible");
    system.run_stage(stage).await.expect("runs");
    let all = all_of(&system, &out).await;
    let wanted: Vec<_> = (0..20u64)
        .filter(|n| *n != 7)
        .map(|n| (n * (n + 1) / 2 - if n > 7 { 7 } else { 0 }).to_string())
        .collect();
    assert_eq!(all, wanted);
    let why = &dead(&system).await[0].attempts.last[0].error;
    assert!(why.contains("stage sums, event 7 of topic buys"), "{why}");
}

#[tokio::test]
async fn an_event_that_failed_for_the_last_time_has_its_fallback_put_out() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let stage = buys.stage("careful").try_map(|buy| {
        if buy.cents == 2 {
            RUNS.fetch_add(1, Ordering::Relaxed);
            return Err(Failure::new("no"));
        }
        Ok(line(buy.cents))
    });
    let stage = stage.fallback(|buy| [line(format!("instead of {}", buy.cents))]).to(&out).expect("possible");
    system.run_stage(stage.retry(at_once(2))).await.expect("runs");
    buys.publish_all((1..=3).map(|cents| buy("ann", 0, cents))).await.expect("published");
    assert_eq!(all_of(&system, &out).await, ["1", "instead of 2", "3"]);
    assert_eq!(RUNS.load(Ordering::Relaxed), 2);
    assert!(dead(&system).await.is_empty());
}

#[tokio::test]
async fn an_event_over_its_time_is_a_failed_attempt() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let stage = buys.stage("slow").then_async(|buy| async move {
        if buy.cents == 1 {
            std::future::pending::<()>().await;
        }
        Ok(line(buy.cents))
    });
    let stage = stage.to(&out).expect("possible").retry(RetryPolicy::never()).turn_timeout(secs(5));
    system.run_stage(stage).await.expect("runs");
    buys.publish_all((1..=2).map(|cents| buy("ann", 0, cents))).await.expect("published");
    until("the turn to time out", || {
        world.pass(secs(1));
        futures_util::FutureExt::now_or_never(out.info())
            .is_some_and(|info| info.is_ok_and(|info| info.events == 1))
    })
    .await;
    assert_eq!(all_of(&system, &out).await, ["2"]);
}

#[tokio::test]
async fn an_impossible_stage_is_refused_when_it_is_built_and_says_which() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let timed = || buys.stage("odd").event_time(time, ms(0)).key_by(|buy| buy.who.clone());
    let end = |window: Window| timed().window(window).fold(|| 0, |_, _| {}).map(tell).to(&out).map(drop);
    assert!(matches!(end(Window::tumbling(ms(0))), Err(StageError::Window { .. })));
    assert!(matches!(end(Window::sliding(ms(5), ms(6))), Err(StageError::Slide { .. })));
    assert!(matches!(end(Window::sliding(secs(10), ms(1))), Err(StageError::TooManyWindows { .. })));
    let session = timed().session(ms(0)).fold(|| 0, |_, _| {}, |_, _| {}).map(tell).to(&out);
    assert!(matches!(session, Err(StageError::Window { .. })));
    let untimed = buys.stage("odd").key_by(|buy| buy.who.clone()).window(Window::tumbling(ms(5)));
    let why = untimed.fold(|| 0, |_, _| {}).map(tell).to(&out).map(drop).expect_err("refused");
    assert!(matches!(&why, StageError::NoTime { .. }) && why.to_string().contains("stage odd"), "{why}");
    let batch = buys.stage("odd").map(|_| line("")).to(&out).expect("possible").batch(0, ms(1));
    assert!(matches!(batch, Err(StageError::EmptyBatch { .. })));
    let mut many = buys.stage("odd").map(|_| 0u8);
    for _ in 0..17 {
        many = many.scan(|| 0u8, |_, n| Some(n));
    }
    assert!(matches!(many.map(line).to(&out), Err(StageError::TooManyOperators { .. })));
}

#[tokio::test]
async fn a_stage_with_other_operators_does_not_start_on_what_they_kept() {
    let world = World::new();
    let system = world.open().await;
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let first = system.run_stage(sums(&buys, &out, Window::tumbling(ms(10)), 0)).await.expect("runs");
    first.actor().stop().await;
    let other = sums(&buys, &out, Window::tumbling(ms(20)), 0);
    let why = system.run_stage(other).await.expect_err("refused");
    assert!(matches!(&why, SpawnError::Hook { why, .. } if why.contains("another name")), "{why}");
    // what it keeps nothing in may change
    let lateness = sums(&buys, &out, Window::tumbling(ms(10)), 5);
    system.run_stage(lateness).await.expect("runs");
}

#[tokio::test]
async fn what_cannot_be_decoded_is_parked_and_the_stage_goes_on() {
    #[derive(Serialize, Deserialize)]
    struct OtherBuy(u8);
    impl Message for OtherBuy {
        type Reply = ();
        const NAME: &'static str = Buy::NAME;
        const VERSION: u32 = 2;
    }
    let world = World::new();
    let system = world.open().await;
    system.topic::<OtherBuy>("buys").await.expect("opens").publish(OtherBuy(1)).await.expect("published");
    let (buys, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let stage = buys.stage("all").map(|buy| line(buy.cents)).to(&out).expect("possible");
    system.run_stage(stage).await.expect("runs");
    buys.publish(buy("ann", 0, 3)).await.expect("published");
    assert_eq!(all_of(&system, &out).await, ["3"]);
    let dead = dead(&system).await;
    assert!(matches!(&dead[0].reason, crate::Reason::Undecodable(_)), "{dead:?}");
}

#[tokio::test]
async fn two_topics_are_joined_within_their_time_also_when_their_events_are_alike() {
    let world = World::new();
    let system = world.open().await;
    let (orders, out) = (buys(&system).await, lines_topic(&system, "out").await);
    let paid = system.topic::<Buy>("paid").await.expect("opens");
    let who = |buy: &Buy| buy.who.clone();
    let join = orders.join("join", &paid, ms(10)).event_time(time, time, ms(0));
    let pairs = join.on(who, who, |order, paid| line(format!("{} {}-{}", order.who, order.at, paid.at)));
    let stage = system.run_stage(pairs.to(&out).expect("possible")).await.expect("runs");
    orders.publish_all([buy("ann", 5, 1), buy("bob", 6, 1), buy("ann", 12, 1)]).await.expect("published");
    soon(run_until_idle(&system)).await.expect("idle");
    let events =
        [buy("ann", 2, 1), buy("ann", 15, 1), buy("bob", 17, 1), buy("ann", 22, 1), buy("ann", 30, 1)];
    paid.publish_all(events).await.expect("published");
    assert_eq!(all_of(&system, &out).await, ["ann 5-2", "ann 12-2", "ann 5-15", "ann 12-15", "ann 12-22"]);
    // both sides have come to 12: what is from before is late
    orders.publish(buy("ann", 11, 1)).await.expect("published");
    all_of(&system, &out).await;
    assert_eq!(stage.late().await.expect("readable"), 1);
    let same = orders.join("same", &orders, ms(10)).on(who, who, |_, _| line("")).to(&out);
    assert!(matches!(same, Err(StageError::SameTopic { .. })));
}
