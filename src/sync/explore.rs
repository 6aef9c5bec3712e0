//! How the models are explored: what runs in them has the stack that a store needs, and each says what was explored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::thread::{Builder, JoinHandle};

use crate::clock::Stopwatch;

/// What opens a store does not fit into loom's usual 32 KiB. In words.
const STACK: usize = (512 << 10) / size_of::<usize>();

/// Explores the interleavings of a model with at most so many preemptions, and prints how many they were and how long that took.
pub(crate) fn explore(model: &str, preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let (explored, began) = (Arc::new(AtomicU64::new(0)), Stopwatch::start());
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    let (count, run) = (explored.clone(), Arc::new(run));
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let run = run.clone();
        spawn(move || run()).join().unwrap();
    });
    let (explored, seconds) = (explored.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    println!("loom: {model}: {explored} interleavings, at most {preemptions} preemptions, {seconds:.1} s");
}

/// A thread of a model.
pub(crate) fn spawn<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().stack_size(STACK).spawn(run).unwrap()
}
