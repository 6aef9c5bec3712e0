//! How long events are kept. What goes by a bound, goes from the oldest on, whoever has not read it: a durable subscription is
//! told of the gap. What goes because a later event [superseded](super::compaction) it, is no gap.
//!
//! # Invariants
//! - An event goes when one of the bounds says so; without bounds none ever does.
//! - With [`Retention::interest`] alone, none goes that a subscription still needs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::compaction::Compaction;
use crate::clock::Timestamp;
use crate::durable::{CommitRefused, Ledger};
use crate::envelope;
use crate::error::Refused;
use crate::store::{Batch, LogId, Origin, Progress, StoreError, Urgency};

/// Bounds on what a topic keeps. The default has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    count: Option<u64>,
    bytes: Option<u64>,
    age: Option<Duration>,
    interest: bool,
    last_per_key: bool,
    tombstones: Option<Duration>,
}

impl Retention {
    /// Every event is kept.
    pub const fn forever() -> Self {
        Retention {
            count: None,
            bytes: None,
            age: None,
            interest: false,
            last_per_key: false,
            tombstones: None,
        }
    }

    /// At most this many events.
    #[must_use]
    pub const fn count(self, events: u64) -> Self {
        Retention { count: Some(events), ..self }
    }

    /// At most this many bytes of events, with their envelopes.
    #[must_use]
    pub const fn bytes(self, bytes: u64) -> Self {
        Retention { bytes: Some(bytes), ..self }
    }

    /// No event older than this, by the time it was published.
    #[must_use]
    pub const fn age(self, age: Duration) -> Self {
        Retention { age: Some(age), ..self }
    }

    /// No event that every durable subscription has handled. Without a subscription all are kept.
    #[must_use]
    pub const fn interest(self) -> Self {
        Retention { interest: true, ..self }
    }

    /// Of the events with a [key](crate::Publish::key), the last of each: one that a later event of its key supersedes goes, whoever
    /// has not read it. A subscriber that comes to it later passes over it, and is told of no gap. Events without a key stay,
    /// unless another bound takes them. So a new subscriber gets the last state of everything from a log that does not grow
    /// for ever. Combines with the other bounds.
    ///
    /// The topic is looked through, in the background, when what was published since the last time is more than half of what it
    /// holds, and when [tombstones](Retention::tombstones_for) are due. A look reads the whole topic once, and holds about 50 bytes
    /// of memory for each key meanwhile. Until then a superseded event may still be delivered. A handler that is at one
    /// when it goes is not disturbed; what it did may be thrown away, and then it is not handled again.
    ///
    /// What stands between events that stay costs 16 bytes for each run of what went, in memory and in a record that each
    /// checkpoint writes anew: good for some hundred thousands of keys, not for many millions.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # let disk = steadfast::testkit::Disk::new(7);
    /// # let clock = std::sync::Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000), 7));
    /// # let system = disk.open(System::builder().clock(clock.clone())).await?;
    /// let retention = Retention::forever().keep_last_per_key();
    /// let balances = system.topic::<Add>("balances").retention(retention).await?;
    /// for amount in 1..=10 {
    ///     balances.publish(Add { amount }).key("account-1").await?;
    /// }
    /// balances.publish(Add { amount: 5 }).key("account-2").tombstone().await?; // closed
    /// # while balances.info().await?.events > 2 { clock.advance(Duration::from_secs(1)); tokio::task::yield_now().await; }
    /// // a moment later
    /// let info = balances.info().await?;
    /// assert_eq!((info.events, info.first, info.next), (2, 9, 11));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn keep_last_per_key(self) -> Self {
        Retention { last_per_key: true, ..self }
    }

    /// With [`keep_last_per_key`](Retention::keep_last_per_key): a [tombstone](crate::Publish::tombstone) that is the last of its key
    /// goes too once it is older than this, by the time it was published; 24 hours without this. A subscriber that is further
    /// behind does not learn that the key is gone. It goes soon after: within a tenth of this time, if it was found before.
    #[must_use]
    pub const fn tombstones_for(self, time: Duration) -> Self {
        Retention { tombstones: Some(time), ..self }
    }

    /// How long tombstones are kept, if what is superseded goes.
    fn compacts(&self) -> Option<Duration> {
        const TOMBSTONES: Duration = Duration::from_secs(24 * 60 * 60);
        self.last_per_key.then(|| self.tombstones.unwrap_or(TOMBSTONES))
    }

    /// Whether an event goes. `before` are the events and bytes that would be kept with it, `needed` is the first position a
    /// subscription needs, if there is one.
    fn takes(
        &self,
        position: u64,
        sent_at: Timestamp,
        kept: (u64, u64),
        needed: Option<u64>,
        now: Timestamp,
    ) -> bool {
        let more = u64::from(cfg!(steadfast_bug = "take_one_more_than_the_bound"));
        self.count.is_some_and(|most| kept.0 + more > most)
            || self.bytes.is_some_and(|most| kept.1 > most)
            || self.age.is_some_and(|oldest| now.since(sent_at) > oldest)
            || self.interest && needed.is_some_and(|needed| position < needed)
    }
}

/// The bounds of the topics that were opened with some.
#[derive(Debug, Default)]
pub(crate) struct Retentions(Mutex<BTreeMap<LogId, Retention>>);

impl Retentions {
    pub(crate) fn set(&self, topic: LogId, retention: Retention) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(topic, retention);
    }

    fn all(&self) -> Vec<(LogId, Retention)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(topic, retention)| (*topic, *retention)).collect()
    }

    /// Looks after the topics now and then, until the store fails or is closed.
    pub(crate) async fn run(self: Arc<Self>, ledger: Ledger) {
        const EVERY: Duration = Duration::from_secs(1);
        let mut compactions = HashMap::new();
        loop {
            let next = ledger.clock().now().after(EVERY);
            tokio::select! {
                biased;
                () = ledger.clock().sleep_until(next) => {}
                _ = ledger.store().failed() => return,
            }
            if let Err(why) = self.apply(&ledger, &mut compactions).await {
                tracing::debug!(%why, "retention ends with the store");
                return;
            }
        }
    }

    /// Takes from every topic what its bounds say.
    async fn apply(
        &self,
        ledger: &Ledger,
        compactions: &mut HashMap<LogId, Compaction>,
    ) -> Result<(), StoreError> {
        let mut all = self.all();
        while !all.is_empty() {
            let mut unfinished = Vec::new();
            for (topic, retention) in all {
                while trim(ledger, topic, retention).await? {}
                if let Some(tombstones) = retention.compacts()
                    && compactions.entry(topic).or_default().step(ledger, topic, tombstones).await?
                {
                    unfinished.push((topic, retention));
                }
                tokio::task::yield_now().await;
            }
            // each in its turn: a long one holds up none of the others
            all = unfinished;
        }
        Ok(())
    }
}

/// Takes the oldest events that have to go, some hundreds at once. False when there are no more.
async fn trim(ledger: &Ledger, topic: LogId, retention: Retention) -> Result<bool, StoreError> {
    const AT_ONCE: usize = 512;
    const BYTES_AT_ONCE: usize = 1 << 20;
    let Progress { first, waiting, bytes, .. } = ledger.progress(topic).await?;
    let needed = ledger.store().needed(topic);
    let now = ledger.clock().now();
    let (mut below, mut gone) = (first, 0);
    let oldest = ledger.letters(topic, first, AT_ONCE, BYTES_AT_ONCE).await?;
    for (letter, kept) in oldest.iter().zip((0..=waiting).rev()) {
        let sent_at = envelope::open(&letter.envelope).map(|opened| opened.sent_at).unwrap_or_default();
        let kept = (kept, bytes.saturating_sub(gone));
        if !retention.takes(letter.position, sent_at, kept, needed, now) {
            break;
        }
        gone += letter.envelope.len() as u64;
        below = letter.position + 1;
    }
    if below == first {
        return Ok(false);
    }
    let mut batch = Batch::default();
    batch.trim(topic, below, gone);
    match ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
        Ok(_) => Ok(oldest.last().is_some_and(|last| last.position + 1 == below)),
        Err(CommitRefused::Refused(Refused::Store(why))) => Err(why),
        Err(_) => Ok(false),
    }
}
