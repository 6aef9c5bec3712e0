//! What threads and tasks share: the locks and atomics of the pieces that loom explores, and what those wait on. Under
//! `--cfg steadfast_loom` the locks and atomics are loom's, otherwise std's; the code that uses them is the same production
//! code. What counts references is std's in either: there is nothing of ours in it to explore.

mod bell;
#[cfg(all(test, steadfast_loom))]
pub(crate) mod explore;
pub(crate) mod oneshot;

#[cfg(steadfast_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(steadfast_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

pub(crate) mod atomic {
    #[cfg(steadfast_loom)]
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
    #[cfg(not(steadfast_loom))]
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
}

pub(crate) use self::bell::Bell;
