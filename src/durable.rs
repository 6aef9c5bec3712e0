//! The durable shapes: mailboxes (logs with a name), marks, attempts, the schedule, cells and dead letters. They read, or
//! add writes and conditions to a batch; only the [`ledger`](Ledger) commits.

mod attempts;
mod cells;
mod dead_letter;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod ledger;
mod mailboxes;
pub(crate) mod marks;
mod names;
mod patterns;
mod records;
mod schedule;
mod suspects;
mod topics;

pub use attempts::{Attempt, Attempts};
pub(crate) use cells::{StoredCell, Upcast};
pub(crate) use dead_letter::{Burial, DeadLetters};
pub use dead_letter::{DeadLetter, DeadLetterId, Reason};
pub(crate) use ledger::{CommitRefused, Ledger};
pub(crate) use mailboxes::MailboxRecord;
pub(crate) use marks::{Mark, Outcome};
pub(crate) use names::{check_address, check_name, entity_name, is_topic, key_of, topic_name};
pub(crate) use patterns::Pattern;
pub(crate) use records::RECORDS;
pub(crate) use schedule::Scheduled;
pub use suspects::Suspect;
pub(crate) use suspects::{DEATHS, Stock, Suspicion};
pub(crate) use topics::Reading;
pub use topics::StartFrom;
