//! What the README shows is what the examples do. Its other blocks of code are doc tests of the crate.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const README: &str = include_str!("../README.md");
const HELLO: &str = include_str!("../examples/hello.rs");

#[test]
fn the_readme_shows_the_hello_example_line_by_line() {
    let (_, marked) = README.split_once("<!-- examples/hello.rs").expect("the comment that marks the block");
    let (_, fenced) = marked.split_once("```rust,no_run\n").expect("the block begins");
    let (shown, _) = fenced.split_once("```").expect("the block ends");
    let code = HELLO.lines().skip_while(|line| line.starts_with("//!") || line.is_empty());
    assert_eq!(shown.lines().collect::<Vec<_>>(), code.collect::<Vec<_>>());
}

#[test]
fn a_hello_that_was_killed_goes_on_where_it_was() {
    let store = tempfile::tempdir().expect("a directory");
    let first =
        ["1. hello, whoever was waiting!", "2. hello, world!", "2 greetings since this store was made"];
    assert_eq!(run(store.path()), first);

    let mut killed = start(store.path());
    let mut said = BufReader::new(killed.stdout.take().expect("its output")).lines();
    assert_eq!(said.next().expect("a line").expect("text"), "3. hello, whoever was waiting!");
    killed.kill().expect("a kill with signal 9");
    killed.wait().expect("its end");

    let last = run(store.path());
    let numbers: Vec<u64> = last.iter().filter_map(|line| line.split_once('.')?.0.parse().ok()).collect();
    // the turn it was killed in may have been committed or not, and so may what it sent after it
    assert!((3..=5).contains(&numbers[0]), "{last:?}");
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{last:?}");
    let count = numbers.last().expect("a greeting");
    assert!((4..=6).contains(count), "{last:?}");
    assert_eq!(last.last().expect("a line"), &format!("{count} greetings since this store was made"));
}

/// Runs the example to its end; what it said.
fn run(store: &Path) -> Vec<String> {
    let output = start(store).wait_with_output().expect("it runs to its end");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

fn start(store: &Path) -> Child {
    Command::new(hello()).arg(store).stdout(Stdio::piped()).spawn().expect("it starts")
}

/// The example's executable. `cargo test` has built it; `cargo test --test readme` has not.
fn hello() -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let profile = test.ancestors().nth(2).expect("the directory of the profile");
    let hello = profile.join("examples").join(format!("hello{}", std::env::consts::EXE_SUFFIX));
    if !hello.exists() {
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--example", "hello", "--target-dir"])
            .arg(profile.parent().expect("the target"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success());
    }
    hello
}
