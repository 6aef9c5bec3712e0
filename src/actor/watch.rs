//! Who is told when an actor has ended: by a message, or by ending too.
//!
//! # Invariants
//! - A watch is told once, by whoever takes it out of the table; then it is over.
//! - A watch lasts as long as the run of the actor that watches: a process, or a restart by a supervisor, begins without any.
//! - The end of the system is not told: otherwise every actor would find it in its mail at the next start.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::life::{Exit, Failed};
use super::message::Message;
use super::options::{Sealing, SendOptions};
use super::runtime::Runtime;
use crate::durable::CommitRefused;
use crate::error::Refused;
use crate::store::{Batch, LogId, MailboxId, Origin, StoreError, Urgency};

/// An actor that was [watched](crate::Context::watch) has ended and is not started again by its supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Terminated {
    /// The actor's name.
    pub name: String,
    /// Why it ended.
    pub exit: Exit,
}

impl Message for Terminated {
    type Reply = ();
    const NAME: &'static str = "steadfast.terminated";
}

/// What a watch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// A [`Terminated`] in the mailbox.
    Message,
    /// The end of the actor that watches, if the other's was not normal.
    Pact,
}

#[derive(Debug)]
struct Watch {
    watcher: Arc<str>,
    told: Told,
}

/// Who watches whom, by name.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    table: Mutex<HashMap<String, Vec<Watch>>>,
    /// Actors that somebody starts again when they end, or tells that they have ended for good.
    kept_up: Mutex<HashSet<String>>,
}

impl Watches {
    fn add(&self, watcher: &Arc<str>, target: &str, told: Told) {
        let mut table = self.table();
        let watches = table.entry(target.to_owned()).or_default();
        if !watches.iter().any(|watch| watch.watcher == *watcher && watch.told == told) {
            watches.push(Watch { watcher: watcher.clone(), told });
        }
    }

    fn remove(&self, watcher: &str, target: &str) {
        let mut table = self.table();
        if let Some(watches) = table.get_mut(target) {
            watches.retain(|watch| *watch.watcher != *watcher);
            if watches.is_empty() {
                table.remove(target);
            }
        }
    }

    /// The run of an actor has ended: it watches nobody.
    pub(crate) fn forget(&self, watcher: &str) {
        self.table().retain(|_, watches| {
            watches.retain(|watch| *watch.watcher != *watcher);
            !watches.is_empty()
        });
    }

    fn take(&self, target: &str) -> Vec<Watch> {
        self.table().remove(target).unwrap_or_default()
    }

    /// Whoever started this actor tells its end, if it does not start it again.
    pub(crate) fn keep_up(&self, target: &str) {
        self.kept_up.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned());
    }

    fn is_kept_up(&self, target: &str) -> bool {
        self.kept_up.lock().unwrap_or_else(PoisonError::into_inner).contains(target)
    }

    fn give_up(&self, target: &str) {
        self.kept_up.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Watch>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime {
    /// Has `watcher` told of the end of `target`: at once if it does not run.
    pub(crate) async fn watch(&self, watcher: &Arc<str>, target: &str, told: Told) {
        self.watches.add(watcher, target, told);
        // looked at after it was added: an end that comes between is told by one of the two
        let runs = self.mailboxes.get(target).is_some_and(|mailbox| mailbox.is_running());
        if !runs && (!self.watches.is_kept_up(target) || cfg!(steadfast_bug = "take_a_wait_for_an_end")) {
            self.terminated(target, &Exit::NotRunning).await;
        }
    }

    pub(crate) fn unwatch(&self, watcher: &str, target: &str) {
        self.watches.remove(watcher, target);
    }

    /// An actor has ended and is not started again: tells those who watch it.
    pub(crate) async fn terminated(&self, target: &str, exit: &Exit) {
        if self.is_closing() && !cfg!(steadfast_bug = "tell_the_end_of_the_system") {
            return;
        }
        // before the watches are taken: one that is added later sees that nobody will tell it
        self.watches.give_up(target);
        for Watch { watcher, told } in self.watches.take(target) {
            let Some(mailbox) = self.mailboxes.get(&*watcher).map(|found| found.value().clone()) else {
                continue;
            };
            match told {
                Told::Message => {
                    let message = Terminated { name: target.to_owned(), exit: exit.clone() };
                    if let Err(why) = self.tell_terminated(mailbox.id(), &message).await {
                        tracing::error!(actor = %watcher, ended = %target, %why, "could not be told of an end it watches");
                    }
                }
                Told::Pact if exit.is_normal() => {}
                Told::Pact => {
                    let why = format!("{target}, to which it is linked, has ended: {exit}");
                    mailbox.end_with(Failed::linked(why));
                }
            }
        }
    }

    async fn tell_terminated(&self, target: MailboxId, message: &Terminated) -> Result<(), Refused> {
        let clock = self.ledger.clock();
        let (id, now, kind) = (clock.id(), clock.now(), self.kind_of(message)?);
        let options = SendOptions::new();
        let sealing = Sealing { id, kind, options: &options, now, asks: false, mark: None };
        let mut batch = Batch::default();
        let log = LogId { mailbox: target, lane: options.priority.lane() };
        batch.append(log, |out| sealing.seal(self, message, out))?;
        match self.ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
            Ok(_) => Ok(()),
            Err(CommitRefused::Refused(why)) => Err(why),
            // there is no condition that could fail
            Err(_) => Err(Refused::Store(StoreError::Closed)),
        }
    }
}
