//! Looking at what is stored and acting on it: mailboxes, dead letters, single messages.

use super::System;
use super::timekeeper::after_entities;
use crate::actor::{Handled, Runtime};
use crate::clock::Timestamp;
use crate::durable::{CommitRefused, DeadLetter, DeadLetterId, MailboxRecord, Outcome, is_topic};
use crate::envelope::{self, MessageId};
use crate::error::{AdminError, Refused};
use crate::store::{
    Batch, FIRST_ENTITY, LANES, LogId, Origin, Store, StoreError, Urgency, is_entity, is_view, region_of,
};

/// What is known of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailboxInfo {
    /// Its name.
    pub name: String,
    /// The NAME of the actor it belongs to.
    pub actor: String,
    /// When it was first used.
    pub created: Timestamp,
    /// Messages waiting, without those on the schedule.
    pub waiting: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether its actor runs in this process.
    pub running: bool,
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// It is on the schedule.
    Scheduled {
        /// When it takes its place in its mailbox.
        due: Timestamp,
    },
    /// It is in a mailbox: waiting, being handled or waiting to be tried again.
    Waiting {
        /// The mailbox's name.
        mailbox: String,
    },
    /// It is a dead letter.
    Dead {
        /// Which one.
        letter: DeadLetterId,
    },
    /// It is none of these: it was handled, cancelled or expired, or was never accepted here.
    Gone,
}

/// The mailboxes of the store; see [`System::mailboxes`].
pub struct Mailboxes<'a> {
    system: &'a System,
}

impl Mailboxes<'_> {
    /// Up to `limit` mailboxes in order of name, after `after`.
    ///
    /// # Errors
    /// The store failed.
    pub async fn page(&self, after: Option<&str>, limit: usize) -> Result<Vec<MailboxInfo>, AdminError> {
        let runtime = &self.system.inner.runtime;
        let mut infos = Vec::new();
        for (name, record) in runtime.ledger.mailbox_page(after, limit).await? {
            infos.push(info(runtime, name, record).await?);
        }
        runtime.ledger.store().durable_now().await?;
        Ok(infos)
    }
}

async fn info(runtime: &Runtime, name: String, record: MailboxRecord) -> Result<MailboxInfo, StoreError> {
    let MailboxRecord { id, created, actor } = record;
    let load = move |store: &Store| match is_entity(id) {
        true => store.load_mailbox(id, None),
        false => store.load_mailbox(id, None).and_then(|()| store.load_views(id).map(drop)),
    };
    runtime.ledger.blocking(load).await?;
    let (waiting, bytes) = runtime.ledger.store().depth(id).unwrap_or_default();
    let running = runtime.mailboxes.get(&name).is_some_and(|mailbox| mailbox.is_running());
    Ok(MailboxInfo { name, actor, created, waiting, bytes, running })
}

/// The dead letters of the store; see [`System::dead_letters`].
///
/// ```
#[doc = include_str!("../example-prelude.txt")]
/// # let system = System::builder().open_in_memory().await?;
/// let counter = system.spawn("counter-1", || Counter).retry(RetryPolicy::immediately(2)).await?;
/// counter.tell(Add { amount: 0 }).await?; // its handler refuses to add nothing
/// counter.drain().await;
///
/// let dead = system.dead_letters().page(Some("counter-1"), None, 10).await?;
/// assert_eq!((dead[0].reason.clone(), dead[0].attempts.count), (Reason::AttemptsUsedUp, 2));
/// assert_eq!(dead[0].attempts.last[0].error, "nothing to add");
/// system.dead_letters().redrive(dead[0].id).await?; // behind what waits, with its attempts forgotten
/// assert_eq!(counter.waiting(), 1);
/// # Ok(()) }
/// ```
pub struct DeadLetters<'a> {
    system: &'a System,
}

impl DeadLetters<'_> {
    /// Up to `limit` dead letters of one mailbox, or of all, in order of mailbox and time, after `after`.
    ///
    /// # Errors
    /// One of them cannot be read, or the store failed.
    pub async fn page(
        &self,
        mailbox: Option<&str>,
        after: Option<DeadLetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, AdminError> {
        let ledger = &self.system.inner.runtime.ledger;
        let mailbox = match mailbox {
            Some(name) => match ledger.mailbox_record(name).await? {
                Some(record) => Some(record.id),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        let letters = ledger.dead_letters(mailbox, after, limit).await?;
        ledger.store().durable_now().await?;
        Ok(letters)
    }

    /// One dead letter.
    ///
    /// # Errors
    /// There is none, it cannot be read, or the store failed.
    pub async fn get(&self, id: DeadLetterId) -> Result<DeadLetter, AdminError> {
        let ledger = &self.system.inner.runtime.ledger;
        let letter = ledger.dead_letter(id).await?;
        ledger.store().durable_now().await?;
        Ok(letter)
    }

    /// Puts the message back into its mailbox, behind what waits, with its attempts forgotten. `Ok` means that is on disk, synced.
    ///
    /// # Errors
    /// There is no such dead letter, it is no message, or the store failed.
    pub async fn redrive(&self, id: DeadLetterId) -> Result<(), AdminError> {
        self.system.inner.runtime.ledger.redrive(id).await
    }

    /// Removes a dead letter for good. `Ok` means that is on disk, synced.
    ///
    /// # Errors
    /// There is no such dead letter, or the store failed.
    pub async fn purge(&self, id: DeadLetterId) -> Result<(), AdminError> {
        self.system.inner.runtime.ledger.purge(id).await
    }
}

impl System {
    /// The mailboxes of the store.
    pub fn mailboxes(&self) -> Mailboxes<'_> {
        Mailboxes { system: self }
    }

    /// The dead letters of the store.
    pub fn dead_letters(&self) -> DeadLetters<'_> {
        DeadLetters { system: self }
    }

    /// Where a message is. Without an index by id, every mailbox with mail is looked through: for people and tools, not for hot paths.
    ///
    /// # Errors
    /// The store failed.
    pub async fn status(&self, id: MessageId) -> Result<Status, AdminError> {
        let ledger = &self.inner.runtime.ledger;
        let status = self.look_up(id).await?;
        ledger.store().durable_now().await?;
        Ok(status)
    }

    async fn look_up(&self, id: MessageId) -> Result<Status, AdminError> {
        let ledger = &self.inner.runtime.ledger;
        if let Some(entry) = ledger.scheduled(id).await? {
            return Ok(Status::Scheduled { due: entry.due });
        }
        if let Some(found) = self.find(id).await? {
            return Ok(Status::Waiting { mailbox: found.name });
        }
        let mut after = None;
        loop {
            const PAGE: usize = 256;
            let page = ledger.dead_letters(None, after, PAGE).await?;
            if let Some(letter) = page.iter().find(|letter| letter.id.message() == id) {
                return Ok(Status::Dead { letter: letter.id });
            }
            match page.last() {
                Some(last) => after = Some(last.id),
                None => return Ok(Status::Gone),
            }
        }
    }

    /// Takes a message back before it is handled. True when it was: it will have no effects in the store, even if its handler runs
    /// just now. An event can be taken back until it is due, not once it is in its topic. `Ok` means that is on disk, synced. Looks
    /// through every mailbox with mail unless the message is on the schedule.
    ///
    /// # Errors
    /// The store failed.
    pub async fn cancel(&self, id: MessageId) -> Result<bool, AdminError> {
        let runtime = &self.inner.runtime;
        let mut batch = Batch::default();
        let (name, mailbox, found) = match runtime.ledger.scheduled(id).await? {
            Some(entry) => {
                let mailbox = entry.scheduled.target.mailbox;
                entry.take_off(&mut batch);
                crate::durable::Attempts::delete(mailbox, id, &mut batch);
                crate::durable::Suspicion::delete(mailbox, id, &mut batch);
                (runtime.ledger.mailbox_name(mailbox).await?.unwrap_or_default(), mailbox, None)
            }
            None => match self.find(id).await? {
                // others read it, or have read it
                Some(found) if found.is_event() => return Ok(false),
                Some(found) => {
                    batch.settle(found.log, found.position, found.len);
                    crate::durable::Attempts::delete(found.log.mailbox, id, &mut batch);
                    crate::durable::Suspicion::delete(found.log.mailbox, id, &mut batch);
                    (found.name.clone(), found.log.mailbox, Some(found))
                }
                None => return Ok(false),
            },
        };
        match runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Now).await {
            Ok(commit) => {
                if let Some(known) = runtime.mailboxes.get(&name) {
                    if let Some(found) = found {
                        known.cancelled(found.log, found.position);
                    }
                    known.lose_asker(id);
                }
                runtime.solo.forget(mailbox, id);
                runtime.kept(id, &Outcome::Pending, Some(&commit));
                runtime.ended(id, Handled::Cancelled, Some(&commit));
                runtime.ledger.durable(&commit).await?;
                Ok(true)
            }
            Err(CommitRefused::Refused(Refused::Store(why))) => Err(why.into()),
            Err(CommitRefused::Refused(why)) => Err(why.into()),
            Err(_) => Ok(false),
        }
    }

    /// Whether nothing waits for an actor that runs and nothing on the schedule is due.
    pub(crate) async fn is_idle(&self) -> Result<bool, AdminError> {
        const PAGE: usize = 256;
        let runtime = &self.inner.runtime;
        let store = runtime.ledger.store();
        if let Some(why) = store.failure() {
            return Err(why.into());
        }
        let commit = store.last_number();
        let first = runtime.ledger.first_scheduled(1).await?;
        if first.first().is_some_and(|entry| entry.due <= runtime.ledger.clock().now()) {
            return Ok(false);
        }
        let mut after: Option<String> = None;
        loop {
            let page = self.mailboxes().page(after.as_deref(), PAGE).await?;
            if page.iter().any(|mailbox| mailbox.running && mailbox.waiting > 0) {
                return Ok(false);
            }
            match page.into_iter().next_back() {
                Some(last) => after = Some(after_entities(last.name)),
                None => break,
            }
        }
        // a message may have moved behind the look; every move is a commit
        Ok(!self.entities_have_mail().await? && store.last_number() == commit)
    }

    /// Whether something waits for an entity whose region is open.
    async fn entities_have_mail(&self) -> Result<bool, StoreError> {
        let ledger = &self.inner.runtime.ledger;
        let mut from = Some(FIRST_ENTITY);
        while let Some(next) = from {
            let (waiting, next) = ledger.waiting(next).await?;
            for mailbox in waiting {
                let name = ledger.mailbox_name(mailbox).await?.unwrap_or_default();
                if region_of(&name).is_some_and(|region| ledger.store().is_region_open(region)) {
                    return Ok(true);
                }
            }
            from = next;
        }
        Ok(false)
    }

    /// Looks a message up in all mailboxes in which something waits.
    async fn find(&self, id: MessageId) -> Result<Option<Found>, StoreError> {
        let ledger = &self.inner.runtime.ledger;
        let mut from = Some(0);
        while let Some(next) = from {
            let (waiting, next) = ledger.waiting(next).await?;
            for mailbox in waiting.into_iter().filter(|mailbox| !is_view(*mailbox)) {
                for lane in 0..LANES as u8 {
                    let log = LogId { mailbox, lane };
                    if let Some((position, len)) = self.find_in(log, id).await? {
                        let name = ledger.mailbox_name(mailbox).await?.unwrap_or_default();
                        return Ok(Some(Found { name, log, position, len }));
                    }
                }
            }
            from = next;
        }
        Ok(None)
    }

    async fn find_in(&self, log: LogId, id: MessageId) -> Result<Option<(u64, u32)>, StoreError> {
        const COUNT: usize = 256;
        const BYTES: usize = 1 << 20;
        let ledger = &self.inner.runtime.ledger;
        let mut from = 0;
        loop {
            let letters = ledger.letters(log, from, COUNT, BYTES).await?;
            let is_it = |sealed: &[u8]| envelope::open(sealed).is_ok_and(|opened| opened.id == id.uuid());
            if let Some(letter) = letters.iter().find(|letter| is_it(&letter.envelope)) {
                return Ok(Some((letter.position, letter.envelope.len() as u32)));
            }
            match letters.last() {
                Some(last) => from = last.position + 1,
                None => return Ok(None),
            }
        }
    }
}

struct Found {
    name: String,
    log: LogId,
    position: u64,
    len: u32,
}

impl Found {
    /// Whether it lies in a topic.
    fn is_event(&self) -> bool {
        is_topic(&self.name) && !cfg!(steadfast_bug = "take_back_an_event")
    }
}
