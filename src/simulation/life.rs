//! What goes on below the workload in one life: the steps of the store, in an order that the seed chooses, and the note of where
//! the power went.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::coverage::{self, Coverage};
use super::dice::Dice;
use crate::clock::mix;
use crate::observe::{Event, Observer, TurnOutcome};
use crate::store::{ByHand, Operation, SimulatedDisk, Step};

/// What all who run in a life write to.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) coverage: Coverage,
    /// What was said, in order.
    pub(super) lines: Vec<String>,
    /// Of the lines and of the turns.
    pub(super) trace: u64,
    /// Where this life's power went, once it is known.
    pub(super) cut: Option<&'static str>,
}

impl Notes {
    fn hash(&mut self, text: &str) {
        self.trace = mix(self.trace ^ u64::from(crc32fast::hash(text.as_bytes())));
    }
}

/// Shared by all who run in a life.
#[derive(Debug, Clone, Default)]
pub(super) struct Notebook(Arc<Mutex<Notes>>);

impl Notebook {
    pub(super) fn with<T>(&self, write: impl FnOnce(&mut Notes) -> T) -> T {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn say(&self, line: String) {
        self.with(|notes| {
            notes.hash(&line);
            notes.lines.push(line);
        });
    }

    /// Where the power went, unless it is known better.
    pub(super) fn was_cut_in(&self, place: &'static str) {
        self.with(|notes| {
            notes.cut.get_or_insert(place);
        });
    }

    /// Does a step; if the power goes in it, that was where.
    fn watch<T>(
        &self,
        disk: &SimulatedDisk,
        place: impl FnOnce(Operation) -> &'static str,
        step: impl FnOnce() -> T,
    ) -> T {
        let was_cut = disk.is_cut();
        let done = step();
        if !was_cut
            && disk.is_cut()
            && let Some(operation) = disk.cut_in()
        {
            self.with(|notes| notes.cut = Some(place(operation)));
        }
        done
    }
}

impl Observer for Notebook {
    fn event(&self, event: &Event<'_>) {
        self.with(|notes| match event {
            Event::Turn { actor, message, outcome, .. } => {
                notes.hash(actor);
                notes.hash(message);
                notes.coverage.count(coverage::TURNS, 1);
                let failed = !matches!(outcome, TurnOutcome::Done);
                notes.coverage.count(coverage::FAILED_TURNS, u64::from(failed));
            }
            Event::Checkpointed { .. } => notes.coverage.count(coverage::CHECKPOINTS, 1),
            Event::Recovered { commits, cut, .. } => {
                notes.coverage.count(coverage::REPLAYED, *commits);
                notes.coverage.count(coverage::TORN_TAILS, u64::from(*cut > 0));
            }
            _ => {}
        });
    }
}

/// Lets others come first, or time pass: how much, this life's habit says.
async fn pause(dice: &Dice, habit: u64) {
    match dice.below(8) {
        0 => tokio::time::sleep(Duration::from_millis(1 + dice.below(habit))).await,
        1..4 => {}
        _ => {
            for _ in 0..dice.below(2 * habit) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Takes the committer's steps until the store fails.
pub(super) async fn commits(hand: ByHand, disk: SimulatedDisk, notes: Notebook, dice: Dice) {
    let habit = 1 + dice.below(6);
    let place = |operation| match operation {
        Operation::Write => "cut in a group write",
        Operation::Sync => "cut in a group sync",
        _ => "cut in a turn of segments",
    };
    loop {
        hand.work().await;
        loop {
            pause(&dice, habit).await;
            match notes.watch(&disk, place, || hand.commit()) {
                Step::Worked => {}
                Step::Idle => break,
                Step::Failed => return,
            }
        }
    }
}

/// Takes the checkpointer's steps until the store fails.
pub(super) async fn checkpoints(hand: ByHand, disk: SimulatedDisk, notes: Notebook, dice: Dice) {
    let (habit, often) = (1 + dice.below(6), 10 + dice.below(100));
    loop {
        hand.chores().await;
        if dice.one_in(often) {
            hand.ask_for_checkpoint();
        }
        if dice.one_in(often) {
            notes.watch(&disk, |_| "cut in the manifest", || hand.mark_high_water());
        }
        loop {
            pause(&dice, habit).await;
            let about = hand.checkpoint_is_about();
            let place = |_| match about {
                "spares" => "cut in making a spare",
                "pages" => "cut in a page file",
                "batches" => "cut in a checkpoint batch",
                "flush" => "cut in the engine's flush",
                "manifest" => "cut in the manifest",
                _ => "cut in a recycle",
            };
            match notes.watch(&disk, place, || hand.checkpoint()) {
                Step::Worked => {}
                Step::Idle => break,
                Step::Failed => return,
            }
        }
    }
}
