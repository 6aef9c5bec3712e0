//! Messages that may have killed the process: what was in flight when it ended without closing the store. Each is run alone,
//! with that written and synced before; what a later open finds of such a run is a death.
//!
//! # Invariants
//! - Only a process that ended itself while a suspect ran alone counts as that message's death: a kill from outside, however
//!   often, condemns nobody.
//! - A run is counted before it begins, and in the commit that settles the message everything about it goes.
//! - A run that has ended, however, is closed before another begins: one death is held against one message.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ledger::{CommitRefused, Ledger};
use crate::clock::Timestamp;
use crate::codec;
use crate::envelope::{self, MessageId};
use crate::error::Refused;
use crate::store::{
    Batch, LANES, LastLife, LogId, MailboxId, OnRoll, Origin, Store, StoreError, Urgency, keys,
};

/// This many deaths while it ran alone make a message a dead letter.
pub(crate) const DEATHS: u32 = 3;
/// Two unclean ends within this time: from then on nothing runs beside a suspect.
const SOON: Duration = Duration::from_secs(600);
/// After this many runs in a row with no word of how they ended, the next one waits.
const PATIENT: u32 = 3;
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Records in one commit.
const AT_ONCE: usize = 256;
/// Bytes of messages read at once to see whose they are.
const BYTES_AT_ONCE: usize = 1 << 20;

/// What is held against a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suspicion {
    /// How often it was run alone.
    pub(crate) runs: u32,
    /// One of these runs has begun and not ended.
    pub(crate) running: bool,
    /// How many of them ended with the process ending itself.
    pub(crate) deaths: u32,
    /// How many in a row ended with the process, nobody knows why.
    pub(crate) unexplained: u32,
}

impl Suspicion {
    /// What the end of a process makes of it.
    pub(super) fn after(self, life: &LastLife) -> Self {
        let explained = life.aborted || cfg!(steadfast_bug = "count_a_kill_from_outside");
        let ended = Suspicion { running: false, ..self };
        match (self.running && life.unclean, explained) {
            (false, _) => ended,
            (true, true) => Suspicion { deaths: self.deaths.saturating_add(1), ..ended },
            (true, false) => Suspicion { unexplained: self.unexplained.saturating_add(1), ..ended },
        }
    }

    /// A run begins.
    pub(crate) fn run(self) -> Self {
        Suspicion { runs: self.runs.saturating_add(1), running: true, ..self }
    }

    /// Its run was broken off: nothing is known of it that was not before.
    pub(crate) fn broken_off(self) -> Self {
        Suspicion { running: false, ..self }
    }

    /// Its handler came to an end, though not to success. None: it is not suspect any more.
    pub(crate) fn survived(self) -> Option<Self> {
        (self.deaths > 0).then_some(Suspicion { running: false, unexplained: 0, ..self })
    }

    /// Whether it goes to the dead letters without another run.
    pub(crate) fn is_condemned(&self) -> bool {
        self.deaths >= DEATHS
    }

    /// How long the next run waits, so that others are handled in a process that keeps ending.
    pub(crate) fn waits(&self) -> Option<Duration> {
        let doublings = self.unexplained.checked_sub(PATIENT)?;
        Some(Duration::from_secs(1 << doublings.min(16)).min(LONGEST_WAIT))
    }

    pub(crate) fn put(
        &self,
        mailbox: MailboxId,
        id: MessageId,
        batch: &mut Batch,
    ) -> Result<(), codec::EncodeError> {
        batch.put(keys::suspect(mailbox, *id.as_bytes()), |out| codec::encode_into(self, out))
    }

    pub(crate) fn delete(mailbox: MailboxId, id: MessageId, batch: &mut Batch) {
        batch.delete(keys::suspect(mailbox, *id.as_bytes()));
    }
}

/// A message that may have killed the process; see [`System::suspects`](crate::System::suspects).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Suspect {
    /// Its mailbox's name.
    pub mailbox: String,
    /// The message.
    pub message: MessageId,
    /// How often the process ended itself while the message ran alone. After 3 times it goes to the dead letters.
    pub deaths: u32,
    /// How often in a row the process ended while the message ran alone, with nothing to say why: killed from outside, out of
    /// memory, `exit`. Never held against it.
    pub unexplained: u32,
}

/// What an open finds.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    pub(crate) suspects: BTreeMap<(MailboxId, MessageId), Suspicion>,
    /// Whether others wait while a suspect runs.
    pub(crate) nothing_beside: bool,
    /// How the life before ended.
    pub(crate) life: LastLife,
}

impl Ledger {
    /// Draws the conclusions from how the life before ended, and writes them down, synced. Doing it again after a crash at any
    /// point inside it comes to the same.
    pub(crate) async fn take_stock(&self, life: LastLife) -> Result<Stock, StoreError> {
        let now = self.clock().now();
        let (before, mut ends, in_flight, life) = self
            .blocking(move |store| {
                let in_flight = if life.unclean { in_flight(store, &life.roll) } else { Vec::new() };
                Ok((suspicions(store)?, unclean_ends(store)?, in_flight, life))
            })
            .await?;
        ends.retain(|end| now.since(*end) < SOON);
        if life.unclean {
            ends.push(now);
        }
        let mut suspects: BTreeMap<_, _> =
            before.iter().map(|(key, suspicion)| (*key, suspicion.after(&life))).collect();
        for key in in_flight {
            suspects.entry(key).or_default();
        }
        let changed = suspects.iter().filter(|(key, suspicion)| before.get(key) != Some(suspicion));
        self.write_down(changed.map(|(key, suspicion)| (*key, *suspicion)).collect(), &ends, &life).await?;
        let nothing_beside = ends.len() > 1 && !suspects.is_empty();
        Ok(Stock { suspects, nothing_beside, life })
    }

    async fn write_down(
        &self,
        changed: Vec<((MailboxId, MessageId), Suspicion)>,
        ends: &[Timestamp],
        life: &LastLife,
    ) -> Result<(), StoreError> {
        let mut batches: Vec<Batch> = Vec::new();
        for part in changed.chunks(AT_ONCE) {
            let mut batch = Batch::default();
            for ((mailbox, id), suspicion) in part {
                // numbers: they can always be encoded
                let _ = suspicion.put(*mailbox, *id, &mut batch);
            }
            batches.push(batch);
        }
        if life.unclean {
            let mut batch = Batch::default();
            let _ = batch.put(keys::note(ENDS), |out| codec::encode_into(&ends, out));
            batches.push(batch);
        }
        for mut batch in batches {
            match self.commit(&mut batch, Origin::Outside, Urgency::Now).await {
                Ok(admitted) => self.durable(&admitted).await?,
                Err(CommitRefused::Refused(Refused::Store(why))) => return Err(why),
                // a store opens on a full disk: what is suspect is then known to this process alone
                Err(why) => tracing::warn!(?why, "what may have ended the process cannot be written down"),
            }
        }
        Ok(())
    }

    /// What is held against messages, by mailbox and message.
    pub(crate) async fn suspects(&self) -> Result<Vec<Suspect>, StoreError> {
        let known = self.blocking(suspicions).await?;
        let mut suspects = Vec::new();
        for ((mailbox, message), Suspicion { deaths, unexplained, .. }) in known {
            let mailbox = self.mailbox_name(mailbox).await?.unwrap_or_default();
            suspects.push(Suspect { mailbox, message, deaths, unexplained });
        }
        Ok(suspects)
    }
}

/// The name of the note that holds when the last unclean ends were found.
const ENDS: &str = "unclean ends";

fn unclean_ends(store: &Store) -> Result<Vec<Timestamp>, StoreError> {
    let Some(bytes) = store.get(&keys::note(ENDS))? else { return Ok(Vec::new()) };
    codec::decode(&bytes)
        .map_err(|error| StoreError::value(format!("the times of unclean ends cannot be read: {error}")))
}

fn suspicions(store: &Store) -> Result<BTreeMap<(MailboxId, MessageId), Suspicion>, StoreError> {
    let prefix = [keys::class::SUSPECT];
    let pairs = store.scan(&prefix, &keys::after_prefix(&prefix), usize::MAX)?;
    let read = |(key, value): (Vec<u8>, std::sync::Arc<[u8]>)| {
        let mailbox = key.get(1..).and_then(|key| key.first_chunk()).copied().unwrap_or_default();
        let id = key.last_chunk().copied().unwrap_or_default();
        let suspicion = codec::decode(&value).map_err(|error| {
            StoreError::value(format!("what is held against a message cannot be read: {error}"))
        })?;
        Ok(((u32::from_be_bytes(mailbox), MessageId::from_bytes(id)), suspicion))
    };
    pairs.into_iter().map(read).collect()
}

/// The first of each priority and each topic that wait for the mailboxes on the roll: as many as were handled at once.
fn in_flight(store: &Store, roll: &[OnRoll]) -> Vec<(MailboxId, MessageId)> {
    let mut found = Vec::new();
    for OnRoll { mailbox, workers } in roll.iter().copied() {
        let own = (0..LANES as u8).map(|lane| LogId { mailbox, lane });
        match store.get(&keys::mailbox(mailbox)) {
            Ok(Some(_)) => {}
            // the process took the commit that made it with it
            Ok(None) => continue,
            Err(why) => {
                tracing::warn!(mailbox, %why, "what was in flight in a mailbox cannot be read");
                continue;
            }
        }
        let loaded = store.load_mailbox(mailbox, None).and_then(|()| store.load_views(mailbox));
        // one that is left alone has had nothing in flight
        let read = |log: &LogId| !store.is_left_alone(*log);
        let logs = loaded.map(|views| own.chain(views.into_iter().map(|view| view.log).filter(read)));
        let first = logs.and_then(|logs| {
            let first = |log| store.read_letters(log, 0, workers as usize, BYTES_AT_ONCE);
            logs.map(first).collect::<Result<Vec<_>, _>>()
        });
        match first {
            // one that cannot be opened is never run
            Ok(letters) => found.extend(letters.iter().flatten().filter_map(|letter| {
                let opened = envelope::open(&letter.envelope).ok()?;
                Some((mailbox, MessageId::of(opened.id)))
            })),
            Err(why) => tracing::warn!(mailbox, %why, "what was in flight in a mailbox cannot be read"),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(unclean: bool, aborted: bool) -> LastLife {
        LastLife { unclean, aborted, ..LastLife::default() }
    }

    #[test]
    fn only_a_process_that_ended_itself_while_the_message_ran_alone_counts_as_its_death() {
        let (running, idle) = (Suspicion::default().run(), Suspicion::default());
        let deaths = |of: Suspicion, unclean, aborted| {
            let after = of.after(&life(unclean, aborted));
            assert!(!after.running);
            (after.deaths, after.unexplained)
        };
        assert_eq!(deaths(running, true, true), (1, 0));
        assert_eq!(deaths(running, true, false), (0, 1));
        assert_eq!(deaths(running, false, true), (0, 0));
        assert_eq!(deaths(idle, true, true), (0, 0));
    }

    #[test]
    fn the_conclusion_is_drawn_once_however_often_an_open_is_broken_off() {
        let once = Suspicion::default().run().after(&life(true, true));
        assert_eq!(once.after(&life(true, true)), once);
    }

    #[test]
    fn it_waits_from_the_third_unexplained_end_in_a_row_on_and_at_most_ten_seconds() {
        let waits = |unexplained| Suspicion { unexplained, ..Suspicion::default() }.waits();
        let secs: Vec<_> = (0..9).map(|n| waits(n).map(|wait| wait.as_secs())).collect();
        let expected = [None, None, None, Some(1), Some(2), Some(4), Some(8), Some(10), Some(10)];
        assert_eq!(secs, expected);
        assert_eq!(waits(u32::MAX), Some(LONGEST_WAIT));
    }

    #[test]
    fn who_came_to_an_end_without_having_killed_is_not_suspect_any_more() {
        assert_eq!(Suspicion { unexplained: 7, ..Suspicion::default() }.run().survived(), None);
        let killer = Suspicion { deaths: 1, ..Suspicion::default() }.run().survived();
        assert_eq!(killer.map(|left| (left.deaths, left.running)), Some((1, false)));
    }
}
