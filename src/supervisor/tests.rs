//! The rules of a supervisor as questions to its pure part: who is stopped, who is started, in which order, and when it is
//! too much.

use std::time::Duration;

use super::child::Restart::{self, Permanent, Temporary, Transient};
use super::history::History;
use super::limit::{Backoff, RestartLimit};
use super::roster::{End, Name, Roster, Stand, Strategy, Verdict, Why};
use crate::clock::Timestamp;
use crate::envelope::MessageId;

const START: Timestamp = Timestamp::from_millis(1_000_000);
const LIMIT: RestartLimit = RestartLimit::new(2, Duration::from_secs(10));

fn at(seconds: u64) -> Timestamp {
    START.after(Duration::from_secs(seconds))
}

fn roster(strategy: Strategy, children: &[(&str, Restart)]) -> Roster {
    let mut roster = Roster::new(strategy, LIMIT, History::default());
    for (name, restart) in children {
        roster.add(Name::from(*name), *restart, Backoff::none(), START);
        roster.set(name, Stand::Runs { since: START });
    }
    roster
}

fn permanent(strategy: Strategy) -> Roster {
    roster(strategy, &["a", "b", "c", "d"].map(|name| (name, Permanent)))
}

fn message(number: u8) -> Why {
    Why { message: Some(MessageId::from_bytes([number; 16])), is_bounded: true, text: "no".into() }
}

fn fail(roster: &mut Roster, name: &str, why: &Why, now: Timestamp) -> Verdict {
    let verdict = roster.ended(name, End::Abnormal, why, now, 0);
    while let Some(name) = roster.due(now) {
        roster.set(&name, Stand::Runs { since: now });
    }
    verdict
}

/// What is stopped / what is started.
fn round(verdict: Verdict) -> String {
    let Verdict::Restart(round) = verdict else { panic!("{verdict:?}") };
    format!("{} / {}", round.stop.concat(), round.start.concat())
}

trait Concat {
    fn concat(&self) -> String;
}

impl Concat for Vec<Name> {
    fn concat(&self) -> String {
        self.iter().map(|name| &**name).collect()
    }
}

#[test]
fn each_strategy_stops_in_reverse_and_starts_in_order_whom_it_says() {
    let expected = [
        (Strategy::OneForOne, " / b"),
        (Strategy::OneForAll, "dca / abcd"),
        (Strategy::RestForOne, "dc / bcd"),
    ];
    for (strategy, expected) in expected {
        let mut roster = permanent(strategy);
        assert_eq!(round(fail(&mut roster, "b", &Why::other("x"), START)), expected, "{strategy:?}");
        assert_eq!(roster.all_in_stop_order().concat(), "dcba");
    }
}

#[test]
fn a_transient_child_that_ended_normally_stays_ended() {
    let mut roster = roster(Strategy::OneForAll, &[("a", Permanent), ("b", Transient)]);
    assert_eq!(roster.ended("b", End::Normal, &Why::other("asked"), START, 0), Verdict::Leave);
    assert_eq!(roster.in_window(), 0);
    roster.set("b", Stand::Runs { since: START });
    assert_eq!(round(roster.ended("b", End::NotStarted, &Why::other("x"), START, 0)), "a / ab");
}

#[test]
fn the_end_of_a_temporary_child_concerns_nobody() {
    let mut roster = roster(Strategy::OneForAll, &[("a", Permanent), ("b", Temporary), ("c", Permanent)]);
    assert!(!roster.failed_in_place("b", &message(1), START));
    assert_eq!(fail(&mut roster, "b", &message(2), START), Verdict::Forget);
    assert_eq!((roster.in_window(), roster.members().len()), (0, 2));
}

#[test]
fn a_temporary_child_that_is_stopped_with_its_siblings_is_forgotten() {
    let mut roster = roster(Strategy::OneForAll, &[("a", Permanent), ("b", Temporary), ("c", Permanent)]);
    assert_eq!(round(fail(&mut roster, "a", &message(1), START)), "cb / ac");
    assert!(roster.get("b").is_none());
}

#[test]
fn the_window_slides_and_one_more_than_its_limit_is_too_much() {
    let mut roster = permanent(Strategy::OneForOne);
    for n in 0..20 {
        let verdict = fail(&mut roster, "a", &message(n), at(u64::from(n) * 6));
        assert!(matches!(verdict, Verdict::Restart(_)), "two within ten seconds are borne: {n}");
    }
    assert!(matches!(fail(&mut roster, "a", &message(50), at(119)), Verdict::Restart(_)));
    assert_eq!(fail(&mut roster, "a", &message(51), at(120)), Verdict::GiveUp);
}

#[test]
fn a_message_counts_once_and_what_is_not_bounded_by_a_policy_each_time() {
    let mut roster = permanent(Strategy::OneForOne);
    for _ in 0..9 {
        assert!(matches!(fail(&mut roster, "a", &message(1), START), Verdict::Restart(_)));
        assert!(!roster.failed_in_place("a", &message(1), START));
    }
    assert_eq!(roster.in_window(), 1);
    let kept = Why { is_bounded: false, ..message(2) };
    assert!(matches!(fail(&mut roster, "a", &kept, START), Verdict::Restart(_)));
    assert_eq!(fail(&mut roster, "a", &kept, START), Verdict::GiveUp);
}

#[test]
fn a_child_waits_longer_with_each_failure_in_a_row_and_the_rest_of_its_group_with_it() {
    let mut roster = Roster::new(Strategy::RestForOne, LIMIT, History::default());
    let slow =
        Backoff { min: Duration::from_secs(100), jitter: 0.0, ..Backoff::fixed(Duration::from_secs(400)) };
    for (name, backoff) in
        [("a", Backoff::none()), ("b", Backoff { factor: 2.0, ..slow }), ("c", Backoff::none())]
    {
        roster.add(Name::from(name), Permanent, backoff, START);
        roster.set(name, Stand::Runs { since: START });
    }
    let waits = |verdict| match verdict {
        Verdict::Restart(round) => round.at,
        other => panic!("{other:?}"),
    };
    assert_eq!(waits(roster.ended("b", End::Abnormal, &message(1), at(1), 0)), at(101));
    // one before it fails meanwhile: they are started together, when the last may
    assert_eq!(waits(roster.ended("a", End::Abnormal, &message(2), at(50), 0)), at(101));
    assert_eq!((roster.next_due(), roster.due(at(100))), (Some(at(101)), None));
    assert_eq!(roster.due(at(101)), Some(Name::from("a")));
    for name in ["a", "b", "c"] {
        roster.set(name, Stand::Runs { since: at(101) });
    }
    assert_eq!(waits(roster.ended("b", End::Abnormal, &message(3), at(102), 0)), at(302));
    roster.set("b", Stand::Runs { since: at(302) });
    // it ran for its minute
    assert_eq!(waits(roster.ended("b", End::Abnormal, &message(4), at(362), 0)), at(462));
}

#[test]
fn a_clock_that_is_set_back_neither_forgets_failures_nor_keeps_them_for_ever() {
    let mut roster = permanent(Strategy::OneForOne);
    fail(&mut roster, "a", &message(1), at(1_000));
    fail(&mut roster, "a", &message(2), at(0));
    assert_eq!(roster.in_window(), 2);
    fail(&mut roster, "a", &message(3), at(11));
    assert_eq!(roster.in_window(), 1);
}

#[test]
fn no_more_failures_are_kept_than_are_needed_to_see_that_they_are_too_many() {
    let mut roster = permanent(Strategy::OneForOne);
    for n in 0..50 {
        fail(&mut roster, "a", &message(n), START);
    }
    assert_eq!(roster.in_window(), 3);
    assert_eq!(roster.history.failures()[2].message, message(49).message);
}
