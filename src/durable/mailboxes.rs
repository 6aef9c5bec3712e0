//! Names of mailboxes and their interned ids. A name belongs to one type of actor for ever, and its id is never reused.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::{CommitRefused, Ledger};
use super::names::{check_address, check_name};
use crate::clock::Timestamp;
use crate::codec;
use crate::error::{Refused, WrongActor};
use crate::store::{
    Batch, Condition, KEY_MARK, Limits, MailboxId, Origin, Peek, Refusal, Store, StoreError, Urgency, keys,
    region_of,
};

/// What is stored under a mailbox's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MailboxRecord {
    pub(crate) id: MailboxId,
    pub(crate) created: Timestamp,
    /// The actor's NAME.
    pub(crate) actor: String,
}

/// What is stored under a region's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RegionRecord {
    created: Timestamp,
    /// The NAME of the actor its entities are.
    actor: String,
}

impl Ledger {
    /// The id of a mailbox, made at its first use; its cursors are loaded. `limits` replaces the limits of a loaded one.
    pub(crate) async fn mailbox(
        &self,
        name: &str,
        actor: &str,
        limits: Option<Limits>,
    ) -> Result<MailboxId, Refused> {
        check_address(name)?;
        check_name(actor)?;
        if let Some(id) = self.mailbox_in_memory(name, actor, limits)? {
            return Ok(id);
        }
        loop {
            let (name_, actor_, now) = (name.to_owned(), actor.to_owned(), self.clock().now());
            // all in one step off the workers: an entity may be made with every message
            match self.blocking(move |store| find_or_make(store, &name_, &actor_, limits, now)).await? {
                Found::Id(id) => return Ok(id),
                Found::Foreign(found) => return Err(wrong_actor(name, found, actor).into()),
                Found::Refused(refused) => {
                    let (mut batch, refusal) = *refused;
                    match self.look_again(&mut batch, refusal, Origin::Inside).await {
                        // somebody else was quicker
                        Ok(()) | Err(CommitRefused::Key(_)) => {}
                        Err(CommitRefused::Refused(why)) => return Err(why),
                        Err(_) => return Err(StoreError::Closed.into()),
                    }
                }
            }
        }
    }

    /// The id of a mailbox that is loaded and was named since the last checkpoint: without a look at the disk.
    fn mailbox_in_memory(
        &self,
        name: &str,
        actor: &str,
        limits: Option<Limits>,
    ) -> Result<Option<MailboxId>, Refused> {
        let Peek::Value(value) = self.store().peek(&keys::name(name)) else { return Ok(None) };
        let record = read_record(name, &value)?;
        match record.actor == actor {
            true => Ok(self.store().is_loaded(record.id, limits).then_some(record.id)),
            false => Err(wrong_actor(name, record.actor, actor).into()),
        }
    }

    pub(crate) async fn mailbox_record(&self, name: &str) -> Result<Option<MailboxRecord>, StoreError> {
        let key = keys::name(name);
        let value = self.get(key).await?;
        value.map(|value| read_record(name, &value)).transpose()
    }

    /// Notes that a region has this type of actor, or refuses another.
    pub(crate) async fn region(&self, name: &str, actor: &str) -> Result<(), Refused> {
        check_name(name)?;
        check_name(actor)?;
        let key = keys::region(name);
        loop {
            if let Some(value) = self.get(key.clone()).await? {
                let record: RegionRecord = codec::decode(&value).map_err(|error| {
                    StoreError::value(format!("the record of region {name} cannot be read: {error}"))
                })?;
                return match record.actor == actor {
                    true => Ok(()),
                    false => Err(wrong_actor(name, record.actor, actor).into()),
                };
            }
            let record = RegionRecord { created: self.clock().now(), actor: actor.into() };
            let mut batch = Batch::default();
            batch.require(Condition::Absent { key: key.clone(), seen: None });
            batch.put(key.clone(), |out| codec::encode_into(&record, out))?;
            match self.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
                Ok(_) => return Ok(()),
                Err(CommitRefused::Refused(why)) => return Err(why),
                // somebody else was quicker
                Err(_) => {}
            }
        }
    }

    /// Names of a region's entities in order, after `after`.
    pub(crate) async fn entity_names(
        &self,
        region: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let prefix = keys::name(&format!("{region}{KEY_MARK}"));
        let from = after.map_or_else(|| prefix.clone(), |after| [&*keys::name(after), &[0]].concat());
        let pairs = self.scan(from, keys::after_prefix(&prefix), limit).await?;
        Ok(pairs.iter().map(|(key, _)| String::from_utf8_lossy(&key[1..]).into_owned()).collect())
    }

    /// Entities of a region in which something waits, from a mailbox on, and where to go on; none at the end.
    pub(crate) async fn waiting_entities(
        &self,
        region: &Arc<str>,
        from: MailboxId,
        limit: usize,
    ) -> Result<(Vec<MailboxId>, Option<MailboxId>), StoreError> {
        let region = region.clone();
        let find = move |store: &Store| {
            let (waiting, next) = store.waiting_mailboxes(from, limit)?;
            let mut found = Vec::new();
            for mailbox in waiting {
                let name = store.get(&keys::mailbox(mailbox))?.unwrap_or_default();
                if region_of(&String::from_utf8_lossy(&name)) == Some(&*region) {
                    found.push(mailbox);
                }
            }
            Ok((found, next))
        };
        self.blocking(find).await
    }

    /// Mailboxes in which something waits, from one on, and where to go on; none at the end.
    pub(crate) async fn waiting(
        &self,
        from: MailboxId,
    ) -> Result<(Vec<MailboxId>, Option<MailboxId>), StoreError> {
        const PAGE: usize = 256;
        self.blocking(move |store| store.waiting_mailboxes(from, PAGE)).await
    }

    /// The name of a mailbox id.
    pub(crate) async fn mailbox_name(&self, id: MailboxId) -> Result<Option<String>, StoreError> {
        let name = self.get(keys::mailbox(id)).await?;
        Ok(name.map(|name| String::from_utf8_lossy(&name).into_owned()))
    }

    /// Mailbox names and records in order of name, after `after`.
    pub(crate) async fn mailbox_page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, MailboxRecord)>, StoreError> {
        let mut from = keys::name(after.unwrap_or(""));
        if after.is_some() {
            from.push(0);
        }
        let pairs = self.scan(from, keys::after_prefix(&keys::name("")), limit).await?;
        pairs
            .into_iter()
            .map(|(key, value)| {
                let name = String::from_utf8_lossy(&key[1..]).into_owned();
                let record = read_record(&name, &value)?;
                Ok((name, record))
            })
            .collect()
    }
}

/// What came of a look for a name.
enum Found {
    Id(MailboxId),
    /// It belongs to this actor.
    Foreign(String),
    /// It is new, and cannot be made just now.
    Refused(Box<(Batch, Refusal)>),
}

/// Looks a name up, makes it if it is new, and loads its cursors.
fn find_or_make(
    store: &Store,
    name: &str,
    actor: &str,
    limits: Option<Limits>,
    now: Timestamp,
) -> Result<Found, StoreError> {
    let (stored, seen) = store.get_seen(&keys::name(name))?;
    if let Some(value) = stored {
        let record = read_record(name, &value)?;
        if record.actor != actor {
            return Ok(Found::Foreign(record.actor));
        }
        store.load_named(record.id, Some(name), limits)?;
        return Ok(Found::Id(record.id));
    }
    let id = store.new_mailbox_id(region_of(name).is_some())?;
    let record = MailboxRecord { id, created: now, actor: actor.into() };
    let mut batch = Batch::default();
    batch.require(Condition::Absent { key: keys::name(name), seen: Some(seen) });
    let unwritable = |error: codec::EncodeError| StoreError::value(error.to_string());
    batch.put(keys::name(name), |out| codec::encode_into(&record, out)).map_err(unwritable)?;
    batch.put_bytes(keys::mailbox(id), name.as_bytes());
    match store.admit(&batch, Origin::Inside, Urgency::Soon) {
        Ok(_) => {
            store.keep_new_mailbox(id, name, limits);
            Ok(Found::Id(id))
        }
        Err(refusal) => Ok(Found::Refused(Box::new((batch, refusal)))),
    }
}

fn wrong_actor(name: &str, found: String, expected: &str) -> WrongActor {
    WrongActor { mailbox: name.into(), found, expected: expected.into() }
}

fn read_record(name: &str, value: &[u8]) -> Result<MailboxRecord, StoreError> {
    codec::decode(value)
        .map_err(|error| StoreError::value(format!("the record of mailbox {name} cannot be read: {error}")))
}
