//! The example `torture`, as a user runs it: each harm in a short form, and each planted fault, which must be noticed. A checker
//! that cannot fail would show nothing.
//!
//! Long form: `cargo run --release --example torture -- --fault kill9 --cycles 1000`; `--help` says more.

mod example;

use std::process::{Command, Output};

use example::example;
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(example("torture", &["tests/child", "tests/device"]))
        .args(arguments)
        .arg("--json")
        .output()
        .expect("it starts")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|why| panic!("{why} in {last:?}; {}", errors(output)))
}

/// Runs a harm in its short form, in which nothing may be wrong.
#[track_caller]
fn holds(arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let report = json(&output);
    if let Some(why) = report["skipped"].as_str() {
        eprintln!("skipped: {arguments:?}: {why}");
    }
    if report["cycles"] != 0 {
        assert!(report["acknowledged"].as_u64() > Some(0), "{report}");
    }
    report
}

/// Plants a fault, which must be counted as this.
#[track_caller]
fn notices(arguments: &[&str], count: &str) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "not noticed: {}", errors(&output));
    let report = json(&output);
    assert!(report[count].as_u64() > Some(0), "not counted as {count}: {report}");
    assert!(errors(&output).contains("--seed"), "does not say how to run it again: {}", errors(&output));
}

/// Two lives, and a check.
#[track_caller]
fn notices_in_lives(broken: &str, count: &str) {
    notices(&["--fault", "kill9", "--cycles", "2", "--break", broken], count);
}

#[test]
fn nothing_is_lost_through_kills() {
    let report = holds(&["--fault", "kill9", "--cycles", "5"]);
    assert_eq!((&report["kills"], &report["checks"]), (&5.into(), &1.into()));
}

#[test]
fn slices_of_a_run_add_up() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().to_str().expect("a path that is text");
    for slice in 1..=2 {
        let report = holds(&["--fault", "kill9", "--cycles", "1", "--resume", directory]);
        assert_eq!((&report["slices"], &report["cycles"]), (&slice.into(), &slice.into()));
    }
    let other = run(&["--fault", "soak", "--resume", directory]);
    assert!(errors(&other).contains("is a run of --fault kill9"), "{}", errors(&other));
}

#[test]
fn nothing_is_lost_through_a_power_cut() {
    holds(&["--fault", "power-cut", "--cycles", "1"]);
}

#[test]
fn damage_is_refused_or_loses_nothing() {
    let report = holds(&["--fault", "damage", "--cases", "6"]);
    let answered = report["refused_cases"].as_u64().zip(report["unharmed_cases"].as_u64());
    assert_eq!(answered.map(|(refused, unharmed)| refused + unharmed), Some(6), "{report}");
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let report = holds(&["--fault", "disk-full", "--cycles", "1"]);
    assert_eq!(report["times_full"], 1);
}

#[test]
fn nothing_is_lost_in_a_short_soak() {
    holds(&["--fault", "soak", "--cycles", "1"]);
}

#[test]
fn nothing_is_lost_by_power_cuts_at_operations_of_a_disk() {
    holds(&["--fault", "syscall-kill", "--cases", "3"]);
}

#[test]
fn nothing_is_lost_by_operations_of_a_disk_that_fail() {
    holds(&["--fault", "syscall-error", "--cases", "3"]);
}

#[test]
fn a_message_that_was_acknowledged_and_not_sent_is_noticed() {
    notices_in_lives("acknowledges-early", "lost");
}

#[test]
fn a_message_that_is_gone_long_before_it_expires_is_noticed() {
    notices_in_lives("forgets-the-expiring", "lost");
}

#[test]
fn a_sender_that_is_told_of_another_end_than_came_is_noticed() {
    notices_in_lives("tells-lies", "lost");
}

#[test]
fn a_loss_on_a_simulated_disk_is_noticed() {
    notices(&["--fault", "syscall-kill", "--cases", "20", "--break", "acknowledges-early"], "lost");
}

#[test]
fn an_event_that_was_not_written_down_is_noticed() {
    notices_in_lives("drops-events", "lost");
}

#[test]
fn a_turn_that_sends_half_is_noticed() {
    notices_in_lives("half-turn", "half_visible");
}

#[test]
fn a_turn_that_sends_past_itself_is_noticed() {
    notices_in_lives("past-the-turn", "handled_twice");
}

#[test]
fn messages_in_the_wrong_order_are_noticed() {
    notices_in_lives("swaps", "reordered");
}

#[test]
fn a_message_that_nobody_announced_is_noticed() {
    notices_in_lives("phantom", "phantom");
}

#[test]
fn a_message_sent_again_without_its_dedup_id_is_noticed() {
    notices_in_lives("no-dedup", "handled_twice");
}

#[test]
fn money_out_of_nowhere_is_noticed() {
    notices_in_lives("mints", "money_off");
}

#[test]
fn a_store_that_opens_empty_is_noticed() {
    notices(&["--fault", "damage", "--cases", "1", "--break", "wipe"], "silent_loss");
}

#[test]
fn bad_options_are_named_and_exit_with_two() {
    let bad: [(&[&str], &str); 7] = [
        (&[], "--fault is missing: it needs one of kill9, power-cut"),
        (&["--fault", "rain"], "--fault cannot be \"rain\": it needs one of kill9"),
        (&["--fault"], "--fault needs a value"),
        (&["--fault", "kill9", "--cycles", "many"], "--cycles cannot be \"many\": it needs a whole number"),
        (&["--fault", "kill9", "--cycles", "0"], "--cycles cannot be \"0\": it needs a number from 1"),
        (&["--fault", "kill9", "--break", "wipe"], "goes with --fault damage"),
        (&["--frobnicate"], "unknown option \"--frobnicate\""),
    ];
    for (arguments, said) in bad {
        let output = Command::new(example("torture", &["tests/child", "tests/device"]))
            .args(arguments)
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", errors(&output));
        assert!(errors(&output).contains(said), "{arguments:?}: {}", errors(&output));
    }
}
