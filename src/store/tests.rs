//! The store as a whole: what it promises, under the faults that put it to the test. Stepped worlds have no threads, so
//! that a failure repeats; driven ones have those of production.

mod backup;
mod child;
mod damage;
mod engines;
mod full_disk;
mod history;
mod idle;
mod kill;
mod lock;
mod order;
mod packing;
mod pages;
mod power_cut;
mod pressure;
mod settled;
mod views;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Checkpointer;
use super::committer::{Committer, Step};
use super::driver::Driven;
use super::recovery::Place;
use super::*;
use crate::observe::Silent;

const LOG: LogId = LogId { mailbox: 1, lane: 1 };
const OTHER: LogId = LogId { mailbox: 2, lane: 1 };

/// A store so small that segments turn over and checkpoints come after a few dozen messages.
fn small() -> StoreConfig {
    StoreConfig {
        segment: LEAST_SEGMENT,
        overlay: 40 << 10,
        live_segments: 6,
        ballast: 0,
        page_file: 64 << 10,
        ..StoreConfig::default()
    }
}

/// An envelope that tells its tag and whether it is whole.
fn body(tag: u64, len: usize) -> Vec<u8> {
    let mut body = tag.to_be_bytes().to_vec();
    body.resize(len.max(8), tag as u8);
    body
}

fn tag(envelope: &[u8]) -> u64 {
    let tag = u64::from_be_bytes(envelope[..8].try_into().expect("eight bytes"));
    assert!(envelope[8..].iter().all(|byte| *byte == tag as u8), "the envelope of {tag} is not whole");
    tag
}

fn letter(log: LogId, envelope: &[u8]) -> Batch {
    let mut batch = Batch::default();
    add_letter(&mut batch, log, envelope);
    batch
}

fn add_letter(batch: &mut Batch, log: LogId, envelope: &[u8]) {
    let _ = batch.append(log, |out| {
        out.extend_from_slice(envelope);
        Ok::<_, ()>(())
    });
}

fn settling(log: LogId, position: u64, len: usize) -> Batch {
    let mut batch = Batch::default();
    batch.settle(log, position, len as u32);
    batch
}

fn cell(number: u8) -> Vec<u8> {
    keys::cell(1, "cell", &[number])
}

/// Tags of everything that waits in a log, by position.
fn waiting(store: &Store, log: LogId) -> Vec<(u64, u64)> {
    let letters = read_all(store, log);
    letters.iter().map(|letter| (letter.position, tag(&letter.envelope))).collect()
}

fn tags(store: &Store, log: LogId) -> Vec<u64> {
    waiting(store, log).into_iter().map(|(_, tag)| tag).collect()
}

fn read_all(store: &Store, log: LogId) -> Vec<Letter> {
    store.load_mailbox(log.mailbox, None).expect("loads");
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let letters = store.read_letters(log, from, 100, 1 << 20).expect("reads");
        let Some(last) = letters.last() else { return all };
        from = last.position + 1;
        all.extend(letters);
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

/// Whether it comes true within some seconds.
fn soon(mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Admits as a sender does: waits while the store is busy.
fn send(store: &Store, batch: &Batch) -> Result<Admitted, Refusal> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match store.admit(batch, Origin::Outside, Urgency::Now) {
            Err(Refusal::Busy) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
            answer => return answer,
        }
    }
}

/// A number drawn from `chance`, below `below`.
fn draw(chance: &mut u64, below: u64) -> u64 {
    *chance = crate::clock::mix(chance.wrapping_add(0x9E37_79B9));
    *chance % below
}

/// A store without threads: the test takes its steps.
struct Steps {
    store: Store,
    committer: Committer,
    checkpointer: Checkpointer,
    report: Report,
}

impl Steps {
    fn open(disk: &SimulatedDisk) -> Result<Steps, StoreError> {
        Steps::open_with(disk, &small())
    }

    fn open_with(disk: &SimulatedDisk, config: &StoreConfig) -> Result<Steps, StoreError> {
        let place = Place::simulated(disk);
        let (store, committer, checkpointer, report) = Store::open_undriven(place, config, Arc::new(Silent))?;
        for log in [LOG, OTHER] {
            store.load_mailbox(log.mailbox, None)?;
        }
        Ok(Steps { store, committer, checkpointer, report })
    }

    /// Opened, or the test ends here.
    fn on(disk: &SimulatedDisk) -> Steps {
        Steps::open(disk).expect("opens")
    }

    fn commit(&mut self, batch: &Batch) -> Admitted {
        let admitted = self.admit(batch);
        assert_eq!(self.committer.step(), Step::Worked);
        assert!(self.store.durable_number() >= admitted.number);
        admitted
    }

    fn admit(&mut self, batch: &Batch) -> Admitted {
        for _ in 0..200 {
            match self.store.admit(batch, Origin::Outside, Urgency::Now) {
                Ok(admitted) => return admitted,
                Err(Refusal::Busy) => drop((self.committer.step(), self.checkpointer.step())),
                Err(other) => panic!("refused: {other:?}"),
            }
        }
        panic!("senders are never let in again");
    }

    /// Commits letters of one size, each a group of its own, with tags from `first` on.
    fn fill(&mut self, log: LogId, first: u64, count: u64, len: usize) {
        for tag in first..first + count {
            self.commit(&letter(log, &body(tag, len)));
        }
    }

    /// Takes a checkpoint of everything admitted, looking at the store after each step.
    fn checkpoint_seen(&mut self, mut seen: impl FnMut(&Store)) {
        self.ask_for_checkpoint();
        let wanted = self.store.last_number();
        for _ in 0..500 {
            if *self.store.shared.checkpointed.borrow() >= wanted {
                return;
            }
            assert_ne!(self.checkpointer.step(), Step::Failed, "{:?}", self.store.failure());
            assert_ne!(self.committer.step(), Step::Failed, "{:?}", self.store.failure());
            seen(&self.store);
        }
        panic!("the checkpoint does not end");
    }

    fn checkpoint(&mut self) {
        self.checkpoint_seen(|_| {});
    }

    fn ask_for_checkpoint(&self) {
        self.store.shared.ask_for_checkpoint(&self.store.shared.admission());
    }

    fn close(self) -> Result<(), StoreError> {
        let Steps { mut committer, checkpointer, .. } = self;
        while committer.step() == Step::Worked {}
        checkpointer.close()
    }
}

fn drive(disk: &SimulatedDisk, config: &StoreConfig) -> Driven {
    let opened = Driven::open(Place::simulated(disk), config, Arc::new(Silent), None);
    with_mailboxes(opened.expect("opens").0)
}

fn open_directory(path: &Path, config: &StoreConfig) -> Result<(Driven, Report), StoreError> {
    Driven::open_directory(path, config, Arc::new(Silent))
}

fn drive_directory(path: &Path) -> Driven {
    with_mailboxes(open_directory(path, &small()).expect("opens").0)
}

/// As [`small`], with this engine.
fn small_with(engine: EngineChoice) -> StoreConfig {
    StoreConfig { engine: Some(engine), ..small() }
}

/// An empty store with this engine, which whoever opens it finds there.
fn make_directory(path: &Path, engine: EngineChoice) {
    open_directory(path, &small_with(engine)).expect("opens").0.close().expect("closes");
}

fn with_mailboxes(driven: Driven) -> Driven {
    for log in [LOG, OTHER] {
        driven.store().load_mailbox(log.mailbox, None).expect("loads");
    }
    driven
}
