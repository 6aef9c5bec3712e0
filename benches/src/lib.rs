//! What steadfast costs, beside a plain log, databases and other actor libraries: the harness that the benches share, and the
//! peers. Figures of one machine on one day mean little; what counts are the ratios, so all sides of a row run in turn, in one
//! process, several times.
//!
//! ```text
//!   args      --quick, --json FILE, --only ROW, --cores N
//!   child     a part of a bench in a process of its own
//!   slice     senders that run for a while, and what came of it: count, time, processor time, latencies
//!   rounds    the sides of a row in turn, with a pause in which each comes to rest
//!   stats     medians and percentiles
//!   usage     processor time, memory, bytes written, bytes on disk, as the kernel counts them
//!   watch     what a store says of its syncs and checkpoints
//!   report    the table, and one JSON object a line
//!   memory    what is measured of actors in memory, the same for all
//!   durable   steadfast's side of the durable rows
//!   peers     the others
//! ```
//!
//! # Invariants
//! - A ratio compares sides of the same rounds, never figures of two runs.
//! - What a side does before a send returns is said in its row.

pub mod args;
pub mod child;
pub mod durable;
pub mod memory;
pub mod peers;
pub mod report;
pub mod rounds;
pub mod slice;
pub mod stats;
pub mod usage;
pub mod watch;

/// A bench ends at the first error, which it shows.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes of one message of the durable rows, as encoded.
pub const PAYLOAD: usize = 256;

/// How many actors, or keys, the messages of the durable rows are for.
pub const ACTORS: usize = 64;
