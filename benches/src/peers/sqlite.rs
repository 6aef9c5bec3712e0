//! A queue in SQLite: a table, write-ahead log, `synchronous = FULL`, one transaction for all who wait.

use std::io;
use std::path::Path;

use rusqlite::{Connection, params};

use super::group::{Group, Log, Ticket};
use super::sled::Op;

/// A table of messages and one of state.
pub struct SqliteQueue(Group<Tables>);

/// The connection.
pub struct Tables(Connection);

const SCHEMA: &str = "
    CREATE TABLE queue (id INTEGER PRIMARY KEY, actor INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE state (actor INTEGER PRIMARY KEY, count INTEGER NOT NULL);";

impl SqliteQueue {
    /// Makes a database in an empty directory.
    ///
    /// # Errors
    /// Of SQLite.
    pub fn start(directory: &Path) -> crate::Outcome<Self> {
        let connection = Connection::open(directory.join("queue.sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute_batch(SCHEMA)?;
        Ok(SqliteQueue(Group::start(Tables(connection))?))
    }

    /// Adds a write to the transaction that fills.
    pub fn add(&self, op: Op) -> Ticket {
        self.0.add(|ops| ops.push(op))
    }
}

impl Log for Tables {
    type Batch = Vec<Op>;

    fn commit(&mut self, ops: &mut Vec<Op>) -> io::Result<()> {
        self.transaction(ops).map_err(io::Error::other)
    }
}

impl Tables {
    fn transaction(&mut self, ops: &mut Vec<Op>) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
        {
            let mut put = transaction.prepare_cached("INSERT INTO queue VALUES (?1, ?2, ?3)")?;
            let mut take = transaction.prepare_cached("DELETE FROM queue WHERE id = ?1")?;
            let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2)")?;
            for op in ops.drain(..) {
                match op {
                    Op::Put { actor, number, body } => {
                        put.execute(params![number as i64, actor as i64, body])?;
                    }
                    Op::Ack { actor, number, count } => {
                        take.execute(params![number as i64])?;
                        set.execute(params![actor as i64, count as i64])?;
                    }
                }
            }
        }
        transaction.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_there_until_it_is_handled_and_then_the_state_is() -> crate::Outcome<()> {
        let directory = tempfile::tempdir()?;
        let queue = SqliteQueue::start(directory.path())?;
        let body: Box<[u8]> = [1, 2, 3].into();
        assert!(queue.add(Op::Put { actor: 7, number: 1, body: body.clone() }).await);
        assert!(queue.add(Op::Put { actor: 7, number: 2, body }).await);
        assert!(queue.add(Op::Ack { actor: 7, number: 1, count: 1 }).await);
        drop(queue);
        let connection = Connection::open(directory.path().join("queue.sqlite"))?;
        let one = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        assert_eq!(one("SELECT id FROM queue")?, 2);
        assert_eq!(one("SELECT count(*) FROM queue")?, 1);
        assert_eq!(one("SELECT count FROM state WHERE actor = 7")?, 1);
        Ok(())
    }
}
