//! The locks and atomics of the pieces that loom explores. Under `--cfg steadfast_loom` they are loom's, otherwise
//! std's; the code that uses them is the same production code.

#[cfg(steadfast_loom)]
pub(crate) use loom::sync::{Arc, Mutex};
#[cfg(not(steadfast_loom))]
pub(crate) use std::sync::{Arc, Mutex};
