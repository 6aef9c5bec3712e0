//! Publishing: an event sealed, admitted and made durable as any message is, and put into a topic instead of a mailbox. In a turn,
//! [`Context::publish`](crate::Context::publish) is the way.
//!
//! # Invariants
//! - An event that was refused is handed back, and lies nowhere.
//! - An event has its sequence number from its place in the topic: a delayed one has none before it is due.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll};
use std::time::Duration;

use uuid::Uuid;

use super::Topic;
use crate::actor::{
    Accepted, Actor, Call, Context, Delivered, Draft, Durability, InFlight, Kind, Message, Parcel, Patience,
    Returned, Route, Runtime, SendOptions, Sending, Sent, check_outside_turn, ids_for, payload_of, refused,
    seal_all,
};
use crate::clock::Timestamp;
use crate::envelope::{MessageId, TOMBSTONE};
use crate::error::{Refused, SendError};
use crate::store::{Admitted, Batch, StoreError};

/// An event that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its id.
    pub id: MessageId,
    /// Its sequence number in the topic: from 0, without a gap. None for one that is [delayed](Publish::delay): it gets its number
    /// when it is due.
    pub sequence: Option<u64>,
}

impl From<Accepted> for Published {
    fn from(Accepted { id, position: sequence }: Accepted) -> Self {
        Published { id, sequence }
    }
}

/// A publish being built; awaiting it publishes. See [`Topic::publish`].
#[must_use = "nothing is published until it is awaited, or `submit` is called"]
pub struct Publish<'a, E: Message> {
    topic: &'a Topic<E>,
    event: E,
    options: SendOptions,
}

/// Options of a publish in a turn, for [`Context::publish_with`]; [`Topic::publish`] has the same words.
#[derive(Debug, Clone, Default)]
#[must_use = "options change nothing until they are given to a publish"]
pub struct PublishOptions {
    options: SendOptions,
}

impl PublishOptions {
    /// No options: published when the turn is committed.
    pub fn new() -> Self {
        Self::default()
    }
}

macro_rules! event_options {
    ($($Builder:tt)*) => {
        impl $($Builder)* {
            /// Published only after this time: it takes its place in the topic, and has its sequence number, when it is due. Until then
            /// no subscriber sees it. It counts as published then, for [`StartFrom::Time`](crate::StartFrom::Time) and for
            /// [`Retention::age`](crate::Retention::age).
            pub fn delay(mut self, delay: Duration) -> Self {
                self.options = self.options.delay(delay);
                self
            }

            /// As [`delay`](Self::delay), at this time.
            pub fn at(mut self, due: Timestamp) -> Self {
                self.options = self.options.at(due);
                self
            }

            /// Not handled any more when this time has passed since the publish: a subscriber that comes to it later passes over it. It
            /// keeps its sequence number, and its place until retention takes it.
            pub fn expires(mut self, after: Duration) -> Self {
                self.options = self.options.expires(after);
                self
            }

            /// A duplicate with the same id, to the same topic within 24 hours, is accepted once, and answered as the first was: with
            /// its id and its sequence number, none if the first was delayed.
            pub fn dedup_id(mut self, id: impl Into<String>) -> Self {
                self.options = self.options.dedup_id(id);
                self
            }

            /// Events with the same key are handled one after the other by a subscriber that has
            /// [`Order::PerKey`](crate::Order::PerKey), and of a topic with
            /// [`keep_last_per_key`](crate::Retention::keep_last_per_key) the last one stays. Elsewhere it changes nothing. It travels as
            /// the header `steadfast-key`.
            pub fn key(mut self, key: impl Into<String>) -> Self {
                self.options = self.options.key(key);
                self
            }

            /// Says that the event's key is gone; it needs a [key](Self::key). Delivered like any other, with the header
            /// `steadfast-tombstone`. Of a topic with [`keep_last_per_key`](crate::Retention::keep_last_per_key) it goes too, once it is
            /// older than [`tombstones_for`](crate::Retention::tombstones_for) says.
            pub fn tombstone(mut self) -> Self {
                self.options = self.options.header(TOMBSTONE, "");
                self
            }

            /// A header; a key that is there already is replaced.
            pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
                self.options = self.options.header(key, value);
                self
            }
        }
    };
}

event_options!(<E: Message> Publish<'_, E>);
event_options!(PublishOptions);

impl<E: Message> Publish<'_, E> {
    /// What `Ok` means: [`Durability::Synced`] or [`Durability::Buffered`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// How long to wait while the disk does not keep up; for ever without this.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.options.timeout = Some(time);
        self
    }

    /// Publishes although this code runs in a turn: the event stands even if the turn fails.
    pub fn outside_turn(mut self) -> Self {
        self.options.outside_turn = true;
        self
    }
}

impl<E: Message> Topic<E> {
    /// Publishes an event. `Ok`, under the usual [`Durability::Synced`], means that it is on disk, synced, and that every
    /// subscription gets it.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// # let additions = system.topic::<Add>("additions").await?;
    /// let first = additions.publish(Add { amount: 7 }).key("account-1").dedup_id("order 17").await?;
    /// let again = additions.publish(Add { amount: 7 }).key("account-1").dedup_id("order 17").await?;
    /// assert_eq!(again, first);
    ///
    /// let later = additions.publish(Add { amount: 1 }).delay(Duration::from_secs(60)).await?;
    /// assert_eq!(later.sequence, None); // it has none before it is due
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The event was refused, and is handed back; or the store failed, and it is not known whether the event is there.
    pub fn publish(&self, event: E) -> Publish<'_, E> {
        Publish { topic: self, event, options: SendOptions::new() }
    }

    /// Publishes without waiting for anything. The same as `publish(event).submit()`.
    ///
    /// `Ok` means that the event is in the topic; [`PublishReceipt::durable`] waits for the disk.
    ///
    /// # Errors
    /// The event was refused, and is handed back.
    pub fn try_publish(&self, event: E) -> Result<PublishReceipt, SendError<E>> {
        self.publish(event).submit()
    }

    /// Publishes all events in one commit: all of them, in this order and with nothing between, or none. Together they may be as
    /// large as half a journal segment (8 MiB by default). `Ok` means that they are on disk, synced.
    ///
    /// # Errors
    /// As [`Topic::publish`].
    pub async fn publish_all(
        &self,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Vec<Published>, SendError<Vec<E>>> {
        let options = SendOptions::new();
        let sending = Sending::new(self.route(), &options, false);
        let events: Vec<E> = events.into_iter().collect();
        let events = Events { ids: ids_for(&sending, events.len()), events };
        if let Err(why) = check_outside_turn(&options, Events::<E>::CALL) {
            return Err(refused((events, why)));
        }
        if events.events.is_empty() {
            return Ok(Vec::new());
        }
        let ids = events.ids.clone();
        // only a dedup id makes duplicates
        let Delivered::New(sent) = sending.deliver(events, Patience::Forever).await? else {
            return Ok(Vec::new());
        };
        sending.synced(&sent).await?;
        let sequences = sent.commit.into_iter().flat_map(|commit| commit.positions);
        let published = |(id, sequence)| Published { id: MessageId::of(id), sequence: Some(sequence) };
        Ok(ids.into_iter().zip(sequences).map(published).collect())
    }

    fn route(&self) -> Route<'_> {
        Route { runtime: &self.runtime, name: &self.name, log: self.log, kind: Kind::Topic }
    }
}

impl<A: Actor> Context<A> {
    /// Publishes an event as part of the turn: it is there if and when the turn is committed, and has the same id whenever the turn is
    /// run again.
    ///
    /// # Errors
    /// The event cannot be encoded or is too large.
    pub fn publish<E: Message>(&mut self, topic: &Topic<E>, event: E) -> Result<MessageId, Refused> {
        self.publish_with(topic, event, &PublishOptions::new())
    }

    /// As [`Context::publish`], with options. A duplicate by its [`dedup_id`](PublishOptions::dedup_id) is left out when the turn is
    /// committed; one with another payload fails the turn.
    ///
    /// # Errors
    /// As [`Context::publish`].
    pub fn publish_with<E: Message>(
        &mut self,
        topic: &Topic<E>,
        event: E,
        options: &PublishOptions,
    ) -> Result<MessageId, Refused> {
        self.collect((&topic.mailbox, E::NAME), Kind::Topic, &event, &options.options)
    }
}

/// One event.
struct Event<E>(E);

impl<E: Message> Parcel for Event<E> {
    type Content = E;
    type Sealed = ();
    const CALL: Call = Call { name: "publish", in_a_turn: "ctx.publish", message: E::NAME };

    fn seal(&self, sending: &Sending<'_>, batch: &mut Batch) -> Result<(), Refused> {
        sending.seal(sending.id, &self.0, batch).map(drop)
    }

    fn payload(&self) -> Result<[u8; 16], Refused> {
        payload_of(&self.0)
    }

    fn admit(self, sending: &Sending<'_>, batch: &Batch, _: ()) -> Result<Admitted, Returned<Self>> {
        sending.commit(batch).map_err(|refusal| Returned { parcel: self, sealed: None, refusal })
    }

    fn into_content(self) -> E {
        self.0
    }
}

/// Many events, in one commit.
struct Events<E> {
    events: Vec<E>,
    ids: Vec<Uuid>,
}

impl<E: Message> Parcel for Events<E> {
    type Content = Vec<E>;
    type Sealed = ();
    const CALL: Call = Call { name: "publish_all", in_a_turn: "ctx.publish", message: E::NAME };

    fn seal(&self, sending: &Sending<'_>, batch: &mut Batch) -> Result<(), Refused> {
        seal_all(sending, &self.ids, &self.events, batch).map(drop)
    }

    fn payload(&self) -> Result<[u8; 16], Refused> {
        Err(Refused::MustAwait { option: "dedup_id" })
    }

    fn admit(self, sending: &Sending<'_>, batch: &Batch, _: ()) -> Result<Admitted, Returned<Self>> {
        sending.commit(batch).map_err(|refusal| Returned { parcel: self, sealed: Some(()), refusal })
    }

    fn into_content(self) -> Vec<E> {
        self.events
    }
}

/// An event that was taken by [`submit`](Publish::submit): it is in the topic or on the schedule, and here is how to wait for the
/// disk.
pub struct PublishReceipt {
    runtime: Arc<Runtime>,
    sent: Sent,
}

impl PublishReceipt {
    /// The event's id and sequence number. Until it is [durable](PublishReceipt::durable) a crash may take it.
    pub fn published(&self) -> Published {
        self.sent.accepted().into()
    }

    /// Waits until the event is on disk, synced.
    ///
    /// # Errors
    /// The store failed; whether the event will be found after a restart is not known.
    pub async fn durable(&self) -> Result<Published, StoreError> {
        if let Some(commit) = &self.sent.commit {
            self.runtime.ledger.durable(commit).await?;
        }
        Ok(self.published())
    }
}

impl fmt::Debug for PublishReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublishReceipt({})", self.sent.id)
    }
}

impl<'a, E: Message> Publish<'a, E> {
    /// Publishes without waiting for anything.
    ///
    /// `Ok` means that the event is in the topic, or on the schedule, but not yet that it is on disk: see
    /// [`PublishReceipt::durable`].
    ///
    /// # Errors
    /// The event was refused, also because the disk does not keep up just now, and is handed back. With a
    /// [`dedup_id`](Publish::dedup_id) use `await`: looking the id up may have to wait.
    pub fn submit(self) -> Result<PublishReceipt, SendError<E>> {
        let runtime = self.topic.runtime.clone();
        let (sent, ()) = self.draft().submit(|_| ())?;
        Ok(PublishReceipt { runtime, sent })
    }

    fn draft(self) -> Draft<'a, Event<E>> {
        let Publish { topic, event, options } = self;
        Draft { route: topic.route(), options, parcel: Event(event) }
    }
}

/// The future of a [`Publish`].
pub struct PublishFuture<'a, E: Message> {
    inner: InFlight<'a, Event<E>>,
}

impl<E: Message> Future for PublishFuture<'_, E> {
    type Output = Result<Published, SendError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.inner).poll(cx).map_ok(Published::from)
    }
}

impl<'a, E: Message> IntoFuture for Publish<'a, E> {
    type Output = Result<Published, SendError<E>>;
    type IntoFuture = PublishFuture<'a, E>;

    fn into_future(self) -> Self::IntoFuture {
        PublishFuture { inner: InFlight::new(self.draft()) }
    }
}
