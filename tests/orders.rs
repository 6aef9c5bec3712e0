//! The example `orders`, as a user runs it: its audit holds through kills, and fails when a guard is broken. The subscriber who
//! joins last has the same totals as those who were killed.
//! An audit that cannot fail would show nothing.

mod example;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use example::example;
use serde_json::Value;

/// Enough for two kills, and for a turn that fails on purpose after the first one.
const ORDERS: u64 = 1_200;

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(example("orders", &[]));
    command.arg("--data").arg(directory.join("data")).args(arguments).output().expect("it starts")
}

/// Runs it on an input, with two kills.
fn run_on(directory: &Path, input: &str, arguments: &[&str]) -> Output {
    let file = directory.join("orders.ndjson");
    fs::write(&file, input).expect("a file in a temporary directory");
    let file = file.to_str().expect("a path that is text");
    run(directory, &[&["--input", file, "--kills", "2", "--json"], arguments].concat())
}

fn order(id: u64) -> String {
    let customer = id % 97;
    format!(
        r#"{{"order_id":{id},"customer":"{customer}","date":"1997-01-01","quantity":2,"total_cents":{id}}}"#
    )
}

fn orders() -> Vec<String> {
    (1..=ORDERS).map(order).collect()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|why| panic!("{why} in {last:?}; {}", errors(output)))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_order_is_applied_once_through_two_kills() {
    let directory = tempfile::tempdir().unwrap();
    let output = run_on(directory.path(), &orders().join("\n"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let report = json(&output);
    let fields = [
        "orders",
        "cds",
        "cents",
        "customers",
        "lost",
        "applied_twice",
        "notified_missing",
        "analytics_orders",
    ];
    let found = fields.map(|field| report[field].as_u64().unwrap());
    let cents = ORDERS * (ORDERS + 1) / 2;
    assert_eq!(found, [ORDERS, 2 * ORDERS, cents, 97, 0, 0, 0, ORDERS]);
    assert_eq!(report["kills"], 2);
    let handled: Vec<_> =
        report["handled_at_kill"].as_array().unwrap().iter().flat_map(Value::as_u64).collect();
    assert!(handled[0] < handled[1] && handled[1] < ORDERS, "{handled:?}");
    assert!(report["reruns"].as_u64().unwrap() > 0, "a kill interrupts at least one turn: {report}");
}

#[test]
fn the_json_object_has_its_fields_in_the_order_of_the_documentation() {
    let directory = tempfile::tempdir().unwrap();
    let output = run_on(directory.path(), &orders().join("\n"), &["--kills", "0"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let fields: Vec<_> = text.split('"').skip(1).step_by(2).collect();
    let documented = "orders cds cents customers lost applied_twice notified_missing kills handled_at_kill \
                      reruns notified_repeated malformed seconds peak_rss_mib loaded_max analytics_orders";
    assert_eq!(fields.join(" "), documented);
}

#[test]
fn a_position_acknowledged_before_the_commit_loses_orders_and_the_audit_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let output = run_on(directory.path(), &orders().join("\n"), &["--break-guard", "ack"]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    let report = json(&output);
    assert!(report["lost"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["kills"], 2);
}

#[test]
fn events_published_past_the_turn_are_applied_twice_and_the_audit_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let output = run_on(directory.path(), &orders().join("\n"), &["--break-guard", "dedup"]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    let report = json(&output);
    assert!(report["applied_twice"].as_u64().unwrap() > 0, "{report}");
    assert!(errors(&output).contains("orders analysed: "), "{}", errors(&output));
    assert_eq!((&report["kills"], &report["lost"]), (&2.into(), &0.into()));
}

#[test]
fn malformed_lines_are_reported_with_their_numbers_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut lines = orders();
    lines[6] = "no order".into();
    lines[499] = order(500).replace("\"quantity\":2", "\"quantity\":-2");
    lines[999] = format!("{{\"order_id\":1000,\"customer\":\"{}\"", "x".repeat(100_000));
    let output = run_on(directory.path(), &lines.join("\n"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let report = json(&output);
    assert_eq!((&report["malformed"], &report["orders"]), (&3.into(), &(ORDERS - 3).into()));
    for number in [7, 500, 1000] {
        let said = format!("line {number} is no order: ");
        assert!(errors(&output).contains(&said), "{said:?} is not in {}", errors(&output));
    }
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("data")).unwrap();
    fs::write(directory.path().join("data").join("mine"), "mine").unwrap();
    let output = run(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("is not empty"), "{}", errors(&output));
    assert_eq!(fs::read_dir(directory.path().join("data")).unwrap().count(), 1);
}

#[test]
fn bad_options_are_named_and_exit_with_two() {
    let directory = tempfile::tempdir().unwrap();
    let bad: [(&[&str], &str); 5] = [
        (&["--frobnicate"], "unknown option \"--frobnicate\""),
        (&["--kills", "many"], "--kills cannot be \"many\""),
        (&["--kills"], "--kills needs a value"),
        (&["--break-guard", "both"], "--break-guard cannot be \"both\""),
        (&["--kills", "1000"], "too few to kill the shop 1000 times"),
    ];
    for (arguments, said) in bad {
        let output = run(directory.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", errors(&output));
        assert!(errors(&output).contains(said), "{arguments:?}: {}", errors(&output));
        assert!(!directory.path().join("data").exists(), "{arguments:?} left something behind");
    }
}
