//! Names of mailboxes and their interned ids. A name belongs to one type of actor for ever, and its id is never reused.

use serde::{Deserialize, Serialize};

use super::ledger::{CommitRefused, Ledger};
use crate::clock::Timestamp;
use crate::codec;
use crate::error::{BadName, Refused, WrongActor};
use crate::store::{Batch, Condition, Limits, MailboxId, Origin, StoreError, Urgency, keys};

/// What is stored under a mailbox's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MailboxRecord {
    pub(crate) id: MailboxId,
    pub(crate) created: Timestamp,
    /// The actor's NAME.
    pub(crate) actor: String,
}

const LONGEST: usize = 128;

/// Refuses what is not 1 to 128 characters of `A-Z a-z 0-9 . _ : / -`.
pub(crate) fn check_name(name: &str) -> Result<(), BadName> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    match !name.is_empty() && name.len() <= LONGEST && name.bytes().all(valid) {
        true => Ok(()),
        false => Err(BadName { name: name.chars().take(LONGEST).collect() }),
    }
}

impl Ledger {
    /// The id of a mailbox, made at its first use; its cursors are loaded. `limits` replaces the limits of a loaded one.
    pub(crate) async fn mailbox(
        &self,
        name: &str,
        actor: &str,
        limits: Option<Limits>,
    ) -> Result<MailboxId, Refused> {
        check_name(name)?;
        check_name(actor)?;
        loop {
            let id = match self.mailbox_record(name).await? {
                Some(record) if record.actor == actor => record.id,
                Some(record) => {
                    let (found, expected) = (record.actor, actor.to_owned());
                    return Err(WrongActor { mailbox: name.into(), found, expected }.into());
                }
                None => match self.intern(name, actor).await? {
                    Some(id) => id,
                    // somebody else was quicker
                    None => continue,
                },
            };
            self.blocking(move |store| store.load_mailbox(id, limits)).await?;
            return Ok(id);
        }
    }

    pub(crate) async fn mailbox_record(&self, name: &str) -> Result<Option<MailboxRecord>, StoreError> {
        let key = keys::name(name);
        let value = self.get(key).await?;
        value.map(|value| read_record(name, &value)).transpose()
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

    async fn intern(&self, name: &str, actor: &str) -> Result<Option<MailboxId>, Refused> {
        let id = self.blocking(|store| store.next_mailbox_id()).await?;
        let record = MailboxRecord { id, created: self.clock().now(), actor: actor.into() };
        let mut batch = Batch::default();
        batch.require(Condition::Absent { key: keys::name(name), seen: None });
        batch.require(Condition::Absent { key: keys::mailbox(id), seen: None });
        batch.put(keys::name(name), |out| codec::encode_into(&record, out))?;
        batch.put_bytes(keys::mailbox(id), name.as_bytes());
        match self.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
            Ok(_) => Ok(Some(id)),
            Err(CommitRefused::Refused(why)) => Err(why),
            Err(_) => Ok(None),
        }
    }
}

fn read_record(name: &str, value: &[u8]) -> Result<MailboxRecord, StoreError> {
    codec::decode(value)
        .map_err(|error| StoreError::value(format!("the record of mailbox {name} cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_rule_says() {
        for good in ["a", "warehouse-1", "orders.placed", "a:b/c_d", &"x".repeat(128)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "ä", "a\n", "a\0", "a*", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
