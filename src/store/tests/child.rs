//! A process of its own that works on a store until it is killed: this test executable, started again. It says on its
//! standard output what it did, one line each; what was not said to its end never counted.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use super::*;

const WHAT: &str = "STEADFAST_CHILD";
const WHERE: &str = "STEADFAST_CHILD_STORE";
const MARK: &str = "child> ";

/// Senders of a child; each has a mailbox of its own, so its tags are its positions.
pub(super) const SENDERS: u32 = 4;

pub(super) fn log_of(sender: u32) -> LogId {
    LogId { mailbox: 10 + sender, lane: 1 }
}

/// How long the letter with this tag is: mostly short, some of 3 to 23 KiB.
pub(super) fn len_of(tag: u64) -> usize {
    match tag % 5 {
        0 => 3_000 + (crate::clock::mix(tag) % 20_000) as usize,
        _ => 200,
    }
}

/// How many letters a sender leaves waiting: the one before is settled with the next one sent.
pub(super) const KEPT: u64 = 25;

/// The running child.
pub(super) struct Child {
    process: process::Child,
    lines: Receiver<String>,
    early: VecDeque<String>,
}

impl Child {
    pub(super) fn start(what: &str, store: &Path) -> Child {
        let this: PathBuf = std::env::current_exe().expect("has a name");
        let mut process = Command::new(this)
            .args(["--exact", "store::tests::child::the_child_of_other_tests", "--nocapture"])
            .env(WHAT, what)
            .env(WHERE, store)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let out = BufReader::new(process.stdout.take().expect("is piped"));
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK) {
                    let _ = said.send(line.to_owned());
                }
            }
        });
        Child { process, lines, early: VecDeque::new() }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it said first of what was not taken yet.
    pub(super) fn next_line(&mut self) -> Option<String> {
        let line = self.lines.recv_timeout(Duration::from_secs(60)).ok()?;
        self.early.push_back(line.clone());
        Some(line)
    }

    /// Ends it with SIGKILL; everything it had said until then.
    pub(super) fn kill(mut self) -> Vec<String> {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // the reader has ended with the pipe
        std::mem::take(&mut self.early).into_iter().chain(self.lines.iter()).collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the senders of one child said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Commit number, sender and tag of what was admitted.
    pub(super) admitted: Vec<(u64, u32, u64)>,
    /// Sender and tag of what was durable.
    pub(super) durable: Vec<(u32, u64)>,
}

impl Said {
    pub(super) fn read(lines: &[String]) -> Said {
        let mut said = Said::default();
        for line in lines {
            let words: Vec<u64> = line.split(' ').skip(1).map_while(|word| word.parse().ok()).collect();
            match (line.split(' ').next(), words.as_slice()) {
                (Some("admitted"), [number, sender, tag]) => {
                    said.admitted.push((*number, *sender as u32, *tag))
                }
                (Some("durable"), [sender, tag]) => said.durable.push((*sender as u32, *tag)),
                _ => {}
            }
        }
        said
    }

    /// Checks a store that was opened after the child had ended, and tells how many letters there ever were.
    pub(super) fn check(&self, store: &Store) -> u64 {
        let next: Vec<u64> = (0..SENDERS).map(|sender| self.check_log(store, sender)).collect();
        for (sender, tag) in &self.durable {
            assert!(next[*sender as usize] > *tag, "letter {tag} of sender {sender} was durable and is lost");
        }
        let is_there = |(_, sender, tag): &&(u64, u32, u64)| next[*sender as usize] > *tag;
        let last = self.admitted.iter().filter(is_there).map(|(number, ..)| *number).max().unwrap_or(0);
        for (number, sender, tag) in self.admitted.iter().filter(|(number, ..)| *number < last) {
            assert!(next[*sender as usize] > *tag, "commit {number} is lost, and {last} after it is there");
        }
        next.iter().sum()
    }

    /// All that waits is whole and without a hole, the cell committed with the last letter agrees, and what a letter
    /// settled is gone with it.
    fn check_log(&self, store: &Store, sender: u32) -> u64 {
        let log = log_of(sender);
        let waiting = waiting(store, log);
        let next = store.shared.admission().mailboxes[&log.mailbox].lanes[1].next;
        let expected: Vec<_> = (next.saturating_sub(KEPT)..next).map(|tag| (tag, tag)).collect();
        assert_eq!(waiting, expected, "sender {sender}");
        let cell = store.get(&count_key(sender)).expect("reads");
        let count = cell.map_or(0, |cell| u64::from_be_bytes(cell[..].try_into().expect("eight bytes")));
        assert_eq!(count, next, "sender {sender}: a commit is there in part");
        next
    }
}

fn count_key(sender: u32) -> Vec<u8> {
    keys::cell(log_of(sender).mailbox, "count", &[])
}

/// Does nothing by itself: other tests start it with something to do.
#[test]
fn the_child_of_other_tests() {
    let (Ok(what), Some(store)) = (std::env::var(WHAT), std::env::var_os(WHERE)) else { return };
    let path = PathBuf::from(store);
    match what.as_str() {
        "hold" => hold(&path),
        "send" => send_until_killed(&path),
        other => panic!("{other}"),
    }
}

fn say(line: &str) {
    // one write, so that a line is there whole or not at all
    let _ = std::io::stdout().write_all(format!("{MARK}{line}\n").as_bytes());
}

fn hold(path: &Path) {
    let _driven = drive_directory(path);
    say("open");
    std::thread::sleep(Duration::from_secs(60));
}

fn send_until_killed(path: &Path) {
    let (driven, _) = open_directory(path, &config()).expect("opens");
    // a line of its own: the test harness has begun one
    say("");
    say("open");
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let store = driven.store();
            scope.spawn(move || send_from(store, sender));
        }
    });
}

/// As small as production allows, so that much happens in a fraction of a second.
pub(super) fn config() -> StoreConfig {
    StoreConfig { segment: 256 << 10, overlay: 200 << 10, mark_every: Duration::from_millis(50), ..small() }
}

fn send_from(store: &Store, sender: u32) {
    let log = log_of(sender);
    store.load_mailbox(log.mailbox, None).expect("loads");
    let first = store.shared.admission().mailboxes[&log.mailbox].lanes[1].next;
    for tag in first.. {
        let mut batch = letter(log, &body(tag, len_of(tag)));
        batch.put_bytes(count_key(sender), &(tag + 1).to_be_bytes());
        if let Some(old) = tag.checked_sub(KEPT) {
            batch.settle(log, old, len_of(old) as u32);
        }
        let Ok(admitted) = send(store, &batch) else { return };
        say(&format!("admitted {} {sender} {tag}", admitted.number));
        if block_on(store.durable(&admitted)).is_err() {
            return;
        }
        say(&format!("durable {sender} {tag}"));
    }
}
