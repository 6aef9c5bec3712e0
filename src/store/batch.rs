//! What is to be committed: operations and the conditions under which they may be. Shapes and turns add to a batch;
//! nobody but the [store](super::Store) applies one.
//!
//! # Invariants
//! - A batch names no position for what it appends and no commit number: both are given at admission.
//! - All of a batch becomes visible and durable, or nothing of it.

use std::ops::Range;

use super::keys::{self, LogId, MailboxId};

/// Operations, and the conditions that must hold when they are admitted.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(super) conditions: Vec<Condition>,
    pub(super) ops: Vec<Op>,
    /// Envelopes and values, one after the other: no allocation for each.
    pub(super) bytes: Vec<u8>,
}

/// One operation; its bytes lie in the batch.
#[derive(Debug)]
pub(super) enum Op {
    Append {
        log: LogId,
        envelope: Range<usize>,
    },
    Settle {
        log: LogId,
        position: u64,
        len: u32,
    },
    Trim {
        log: LogId,
        below: u64,
        bytes: u64,
    },
    Seek {
        log: LogId,
        to: u64,
    },
    Put {
        key: Vec<u8>,
        value: Range<usize>,
    },
    /// A put of the value and, behind it, the position of the append before it.
    PutPlaced {
        key: Vec<u8>,
        value: Range<usize>,
    },
    Delete {
        key: Vec<u8>,
    },
}

impl Op {
    /// Whether recovery takes it: what it refuses must never be admitted.
    pub(super) fn can_be_replayed(&self) -> bool {
        match self {
            Op::Append { log, .. } => !log.is_shown(),
            Op::Put { key, .. } | Op::PutPlaced { key, .. } | Op::Delete { key } => keys::is_of_a_commit(key),
            Op::Settle { .. } | Op::Trim { .. } | Op::Seek { .. } => true,
        }
    }
}

/// What must hold at admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The letter is still at its place: neither settled nor cancelled.
    Waiting { log: LogId, position: u64 },
    /// No newer incarnation of the actor has been started.
    Incarnation { mailbox: MailboxId, incarnation: u64 },
    /// The key has no value. `seen` is what a read of the engine said when the overlay had nothing.
    Absent { key: Vec<u8>, seen: Option<Seen> },
    /// The key has a value.
    Present { key: Vec<u8>, seen: Option<Seen> },
    /// The mailbox has room for what this batch appends to it.
    Room { mailbox: MailboxId },
}

/// A read of the engine, and the count of finished checkpoints before it: while that count stands, what the
/// overlay does not have is as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) present: bool,
    pub(crate) stamp: u64,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes this batch will take in the journal, at most.
    pub(crate) fn encoded_len(&self) -> usize {
        let keys: usize = self
            .ops
            .iter()
            .map(|op| match op {
                Op::Put { key, .. } | Op::PutPlaced { key, .. } | Op::Delete { key } => key.len(),
                Op::Append { .. } | Op::Settle { .. } | Op::Trim { .. } | Op::Seek { .. } => 0,
            })
            .sum();
        8 + self.ops.len() * 24 + keys + self.bytes.len()
    }

    pub(crate) fn require(&mut self, condition: Condition) {
        match condition {
            // before all others: whoever may not commit any more is to learn that, not what has changed since
            Condition::Incarnation { .. } => self.conditions.insert(0, condition),
            _ if !self.conditions.contains(&condition) => self.conditions.push(condition),
            _ => {}
        }
    }

    /// Appends what `write` puts behind the bytes it is given; an error leaves the batch as it was.
    pub(crate) fn append<E>(
        &mut self,
        log: LogId,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let envelope = self.write(write)?;
        self.ops.push(Op::Append { log, envelope });
        Ok(())
    }

    /// The letter at `position`, `len` bytes long, is done with.
    pub(crate) fn settle(&mut self, log: LogId, position: u64, len: u32) {
        self.require(Condition::Waiting { log, position });
        self.ops.push(Op::Settle { log, position, len });
    }

    /// As [`Batch::settle`], whether or not it waits: of what does not, nothing changes.
    pub(crate) fn supersede(&mut self, log: LogId, position: u64, len: u32) {
        self.ops.push(Op::Settle { log, position, len });
    }

    /// Everything in the log below a position is done with, and is `bytes` long together. Of two trims the further one counts.
    pub(crate) fn trim(&mut self, log: LogId, below: u64, bytes: u64) {
        self.ops.push(Op::Trim { log, below, bytes });
    }

    /// The reader of the log goes on at a position, whatever it has settled.
    pub(crate) fn seek(&mut self, log: LogId, to: u64) {
        self.ops.push(Op::Seek { log, to });
    }

    pub(crate) fn put<E>(
        &mut self,
        key: Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let value = self.write(write)?;
        self.ops.push(Op::Put { key, value });
        Ok(())
    }

    /// As [`Batch::put`]; behind the value comes, in 8 bytes, the position of what was appended last before this. Nobody knows it
    /// before the batch is admitted.
    pub(crate) fn put_placed<E>(
        &mut self,
        key: Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let value = self.write(write)?;
        self.ops.push(Op::PutPlaced { key, value });
        Ok(())
    }

    pub(crate) fn put_bytes(&mut self, key: Vec<u8>, value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.ops.push(Op::Put { key, value: start..self.bytes.len() });
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.ops.push(Op::Delete { key });
    }

    fn write<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Range<usize>, E> {
        let start = self.bytes.len();
        match write(&mut self.bytes) {
            Ok(()) => Ok(start..self.bytes.len()),
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }
}

impl Batch {
    /// The keys this batch has conditions on.
    pub(crate) fn keys_in_conditions(&self) -> Vec<Vec<u8>> {
        let key = |condition: &Condition| match condition {
            Condition::Absent { key, .. } | Condition::Present { key, .. } => Some(key.clone()),
            _ => None,
        };
        self.conditions.iter().filter_map(key).collect()
    }

    /// Notes what the engine says of a key now.
    pub(crate) fn seen(&mut self, read: &[u8], now: Seen) {
        for condition in &mut self.conditions {
            if let Condition::Absent { key, seen } | Condition::Present { key, seen } = condition
                && key == read
            {
                *seen = Some(now);
            }
        }
    }

    /// The envelope of the first append.
    pub(crate) fn appended(&self) -> Option<&[u8]> {
        let appended = |op: &Op| match op {
            Op::Append { envelope, .. } => Some(envelope.clone()),
            _ => None,
        };
        self.bytes.get(self.ops.iter().find_map(appended)?)
    }

    /// The length of the first append's envelope.
    pub(crate) fn appended_len(&self) -> u32 {
        self.appended().map_or(0, |envelope| envelope.len() as u32)
    }

    /// Bytes of envelopes and values so far.
    pub(crate) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }
}
