//! A queue in sled, one key for each message. sled's own `flush` does not survive a power cut on Linux (it asks for no flush of the
//! device), so each group ends with an `fdatasync` of its file.

use std::fs::File;
use std::io;
use std::path::Path;

use super::group::{Group, Log, Ticket};

/// Messages under the actor's number and their own, state under the actor's number.
pub struct SledQueue(Group<Db>);

/// One write.
pub enum Op {
    /// A message.
    Put {
        /// Whose.
        actor: u64,
        /// Its number.
        number: u64,
        /// Its bytes.
        body: Box<[u8]>,
    },
    /// It was handled, and the state changed.
    Ack {
        /// Whose.
        actor: u64,
        /// Its number.
        number: u64,
        /// What the state is now.
        count: u64,
    },
}

impl SledQueue {
    /// Opens an empty database.
    ///
    /// # Errors
    /// Of the disk.
    pub fn start(directory: &Path) -> io::Result<Self> {
        let db = sled::Config::new().path(directory).flush_every_ms(None).open()?;
        let file = File::options().write(true).open(directory.join("db"))?;
        Ok(SledQueue(Group::start(Db { db, file })?))
    }

    /// Adds a write to the group that fills.
    pub fn add(&self, op: Op) -> Ticket {
        self.0.add(|ops| ops.push(op))
    }
}

/// The database, and its file.
pub struct Db {
    db: sled::Db,
    file: File,
}

/// Larger batches make sled keep more and more memory: one batch is one pinned epoch.
const MOST: usize = 100;

impl Log for Db {
    type Batch = Vec<Op>;

    fn commit(&mut self, ops: &mut Vec<Op>) -> io::Result<()> {
        for some in ops.chunks(MOST) {
            let mut batch = sled::Batch::default();
            for op in some {
                match op {
                    Op::Put { actor, number, body } => batch.insert(&message(*actor, *number), &**body),
                    Op::Ack { actor, number, count } => {
                        batch.remove(&message(*actor, *number));
                        batch.insert(&state(*actor), &count.to_be_bytes());
                    }
                }
            }
            self.db.apply_batch(batch)?;
        }
        ops.clear();
        self.db.flush()?;
        self.file.sync_data()?;
        crossbeam_epoch::pin().flush();
        Ok(())
    }
}

fn message(actor: u64, number: u64) -> [u8; 17] {
    let mut key = [b'm'; 17];
    key[1..9].copy_from_slice(&actor.to_be_bytes());
    key[9..].copy_from_slice(&number.to_be_bytes());
    key
}

fn state(actor: u64) -> [u8; 9] {
    let mut key = [b's'; 9];
    key[1..].copy_from_slice(&actor.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_there_until_it_is_handled_and_then_the_state_is() -> crate::Outcome<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("db");
        let queue = SledQueue::start(&path)?;
        let body: Box<[u8]> = [1, 2, 3].into();
        assert!(queue.add(Op::Put { actor: 7, number: 1, body: body.clone() }).await);
        assert!(queue.add(Op::Put { actor: 7, number: 2, body }).await);
        assert!(queue.add(Op::Ack { actor: 7, number: 1, count: 1 }).await);
        drop(queue);
        let db = sled::open(path)?;
        assert_eq!(db.get(message(7, 1))?, None);
        assert_eq!(db.get(message(7, 2))?.as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!(db.get(state(7))?.as_deref(), Some(&1_u64.to_be_bytes()[..]));
        Ok(())
    }
}
