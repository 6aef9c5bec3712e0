//! A progress bar, for people: it is drawn only on a terminal.

use std::io::{IsTerminal, Write};

const WIDTH: u64 = 40;

pub(crate) struct Bar {
    shown: bool,
    total: u64,
}

impl Bar {
    pub(crate) fn new(total: u64) -> Self {
        Bar { shown: std::io::stderr().is_terminal(), total }
    }

    pub(crate) fn show(&self, done: u64, kills: usize) {
        if !self.shown {
            return;
        }
        // with a guard broken, more can be handled than there is
        let full = (done * WIDTH / self.total.max(1)).min(WIDTH) as usize;
        let empty = WIDTH as usize - full;
        let (bar, rest) = ("#".repeat(full), ".".repeat(empty));
        eprint!("\r[{bar}{rest}] {done} of {} orders handled, killed {kills} times ", self.total);
        // a bar that cannot be drawn is no reason to stop
        let _ = std::io::stderr().flush();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown {
            eprintln!();
        }
    }
}
