//! The durable shapes: mailboxes (logs with a name), marks, attempts, the schedule, cells and dead letters. They read, or
//! add writes and conditions to a batch; only the [`ledger`](Ledger) commits.

mod attempts;
mod cells;
mod dead_letter;
mod ledger;
mod mailboxes;
pub(crate) mod marks;
mod schedule;

pub use attempts::{Attempt, Attempts};
pub(crate) use cells::{StoredCell, Upcast};
pub(crate) use dead_letter::{Burial, DeadLetters};
pub use dead_letter::{DeadLetter, DeadLetterId, Reason};
pub(crate) use ledger::{CommitRefused, Ledger};
pub(crate) use mailboxes::{MailboxRecord, check_name};
pub(crate) use marks::{Mark, Outcome};
pub(crate) use schedule::Scheduled;
