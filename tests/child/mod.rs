//! A test that starts itself again as a child process: the child runs one test of the same binary, told by the
//! environment that it is the child, and prints lines that begin with [`MARK`]; the parent reads them.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const DIRECTORY: &str = "STEADFAST_CHILD_DIRECTORY";
const LIFE: &str = "STEADFAST_CHILD_LIFE";
const MARK: &str = "::";
/// What a child panics with when its parent is gone.
pub(crate) const NOBODY_LISTENS: &str = "the parent listens";

/// In the child: where to work, and the number of this life. None in the parent.
pub(crate) fn task() -> Option<(PathBuf, u64)> {
    let directory = std::env::var_os(DIRECTORY)?;
    let life = std::env::var(LIFE).ok()?.parse().ok()?;
    Some((directory.into(), life))
}

/// The engines a test is run with: all that this build has, or the one that `STEADFAST_ENGINE` names.
pub(crate) fn engines() -> Vec<steadfast::EngineChoice> {
    match std::env::var("STEADFAST_ENGINE") {
        Ok(name) => vec![steadfast::EngineChoice::named(&name).expect("an engine of this build")],
        Err(_) => steadfast::EngineChoice::available().collect(),
    }
}

/// In the child: one line to the parent, on its way when this returns.
pub(crate) fn say(line: &str) {
    let line = format!("{MARK}{line}\n");
    let mut out = std::io::stdout().lock();
    // one write, so that a kill leaves no half line behind which another begins
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect(NOBODY_LISTENS);
}

/// A child process, and what it has said. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts the test of this name as a child.
    pub(crate) fn start(test: &str, directory: &Path, life: u64) -> Running {
        Running::start_with(test, directory, life, &[])
    }

    /// As [`Running::start`], with more in its environment.
    pub(crate) fn start_with(test: &str, directory: &Path, life: u64, more: &[(&str, &str)]) -> Running {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", test, "--nocapture"]).env(DIRECTORY, directory).env(LIFE, life.to_string());
        command.envs(more.iter().copied());
        Running::of(command, directory)
    }

    /// Starts any command that speaks as a child does; what it prints to its standard error goes to [`errors`].
    pub(crate) fn of(mut command: Command, directory: &Path) -> Running {
        let errors = std::fs::File::create(errors(directory)).expect("a file for its errors");
        let mut child =
            command.env("RUST_BACKTRACE", "0").stdout(Stdio::piped()).stderr(errors).spawn().expect("starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = said.clone();
        let reader = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // behind what the test harness prints without a line's end
                if let Some((_, line)) = line.split_once(MARK) {
                    lines.lock().expect("locks").push(line.to_owned());
                }
            }
        });
        Running { child, said, reader: Some(reader) }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.lock().expect("locks").clone()
    }

    /// How many lines that begin like this it has said so far.
    pub(crate) fn count(&self, begin: &str) -> usize {
        self.said.lock().expect("locks").iter().filter(|line| line.starts_with(begin)).count()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Kills it with signal 9 and returns all that it said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.end();
        self.said()
    }

    /// Waits for its end; true when it succeeded.
    pub(crate) fn wait(mut self) -> (bool, Vec<String>) {
        let ended = self.child.wait().expect("a child");
        self.end();
        (ended.success(), self.said())
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the last child in this directory printed to its standard error: beside the directory, not in it.
pub(crate) fn errors(directory: &Path) -> PathBuf {
    directory.with_extension("stderr")
}

/// A number of the environment, or the usual one.
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")),
        Err(_) => usual,
    }
}

/// Chance for when to kill: a different run each time, and no two rounds alike.
pub(crate) fn chance(below: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(below) % below
}
