//! Starting an actor.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use super::{Started, System};
use crate::actor::{
    Actor, ActorRef, BatchHandler, Contains, Factory, Filter, Group, MailboxOptions, Message, Order, Spread,
    Start, Subscribes, start_group,
};
use crate::durable::StartFrom;
use crate::error::SpawnError;
use crate::policy::{FailurePolicy, RetryPolicy};
use crate::topic::Topic;

/// A spawn being built; awaiting it starts the actor. See [`System::spawn`]. `Made` is where its workers come from: a factory, or
/// [`ByMembers`] of a group.
#[must_use = "nothing is started until it is awaited"]
pub struct Spawn<'a, A: Actor, Made = Factory<A>> {
    pub(super) system: &'a System,
    pub(super) name: String,
    pub(super) made: Made,
    pub(super) options: MailboxOptions,
    /// Those of a pool; none: what the options say.
    pub(super) workers: Option<usize>,
    pub(super) actor: PhantomData<fn() -> A>,
}

/// A group being opened; awaiting it opens it. See [`System::group`].
pub type OpenGroup<'a, A> = Spawn<'a, A, ByMembers>;

/// Says of a [`Spawn`] that its workers are the members that join.
#[derive(Debug)]
pub struct ByMembers {
    pub(super) spread: Spread,
}

impl<'a, A: Actor, Made> Spawn<'a, A, Made> {
    /// Options other than those of [`Actor::mailbox`].
    pub fn mailbox(mut self, options: MailboxOptions) -> Self {
        self.options = options.reading_as(self.options);
        self
    }

    /// The actor reads a topic: a durable subscription with the actor's name. Its place in the topic moves in the commit of each
    /// turn. `from` says where it begins when it is new; after that it goes on where it was, whatever `from` says, and also
    /// when it is started without this, until [`Subscription::unsubscribe`](crate::Subscription::unsubscribe).
    ///
    /// An actor may subscribe to several topics: their events come in the order of each topic, and one that is to be tried again
    /// holds up those of its own topic. Retries, order, pools and dead letters are those of its mailbox. Mail that is sent to it
    /// directly comes before events, that of low priority after them. What retention took before it was handled is told to
    /// [`Actor::gap`].
    pub fn subscribe<E: Message, I>(mut self, topic: &Topic<E>, from: StartFrom) -> Self
    where
        A::Messages: Contains<E, I>,
    {
        self.options.subscribes.push(Subscribes::To(topic.log(), from));
        self
    }

    /// The actor reads every topic whose name matches and whose events are of this type: as many durable subscriptions, made
    /// when the topic is. Names have parts between dots; in a pattern `*` stands for one part, and `>` at the end for one or more.
    ///
    /// `from` says where it begins in topics that are there when the pattern is new; one that is made later it reads from its first
    /// event on. The order is that of each topic; there is none between them. Of topics with events of another type, also when
    /// their names match, it gets none: call this once for each type.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// let counter = system.spawn("counter-1", || Counter).subscribe_matching::<Add, _>("additions.*", StartFrom::Earliest).await?;
    /// let berlin = system.topic::<Add>("additions.berlin").await?; // made after the subscription
    /// berlin.publish(Add { amount: 7 }).await?;
    /// steadfast::testkit::run_until_idle(&system).await?;
    /// assert_eq!(counter.cell(&TOTAL).await?, Some(7));
    /// # Ok(()) }
    /// ```
    pub fn subscribe_matching<E: Message, I>(mut self, pattern: impl Into<String>, from: StartFrom) -> Self
    where
        A::Messages: Contains<E, I>,
    {
        self.options.subscribes.push(Subscribes::Matching(pattern.into(), E::NAME, from));
        self
    }

    /// Of the topics it reads, the actor gets only events for which this is true, and those of other types. It is asked once for
    /// each event and attempt; the others are passed over like handled ones, and not looked at again when the actor is started
    /// with another filter. Several filters have to agree. A panic in it counts as a failed attempt of that event.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// let additions = system.topic::<Add>("additions").await?;
    /// let spawn = system.spawn("counter-1", || Counter).subscribe(&additions, StartFrom::Earliest);
    /// let counter = spawn.filter(|add: &Add| add.amount > 10).await?;
    /// additions.publish_all([Add { amount: 7 }, Add { amount: 70 }]).await?;
    /// steadfast::testkit::run_until_idle(&system).await?;
    /// assert_eq!(counter.cell(&TOTAL).await?, Some(70));
    /// # Ok(()) }
    /// ```
    pub fn filter<E: Message, I>(mut self, wants: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self
    where
        A::Messages: Contains<E, I>,
    {
        self.options.filters.push(Filter::event(wants));
        self
    }

    /// As [`Spawn::filter`]: only events with this header. They are not even decoded to find out.
    pub fn filter_header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.filters.push(Filter::Header(key.into(), value.into()));
        self
    }

    /// When and how often a failed message is tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options = self.options.retry(policy);
        self
    }

    /// In which order messages are handled, and which of them one that is tried again holds up; see [`Order`].
    pub fn order(mut self, order: Order) -> Self {
        self.options = self.options.order(order);
        self
    }

    /// Messages are handled up to `size` at once, and committed together; see [`BatchHandler`]. From the first one it is waited at
    /// most `linger`, by the system's clock, for more; a batch also ends when it has 1 MiB of messages. A `size` of 0 counts
    /// as 1.
    ///
    /// ```compile_fail,E0277
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// // a `Counter` handles one message at a time
    /// let counter = system.spawn("counter-1", || Counter).batch(10, Duration::from_millis(5)).await?;
    /// # Ok(()) }
    /// ```
    pub fn batch<M>(mut self, size: usize, linger: Duration) -> Self
    where
        M: Message,
        A: BatchHandler<M, Messages = (M,)>,
    {
        self.options = self.options.batch(size, linger);
        self
    }

    /// The most messages that may wait.
    pub fn capacity(mut self, messages: u64) -> Self {
        self.options = self.options.capacity(messages);
        self
    }

    /// See [`MailboxOptions::turn_timeout`].
    pub fn turn_timeout(mut self, time: std::time::Duration) -> Self {
        self.options = self.options.turn_timeout(time);
        self
    }

    /// See [`MailboxOptions::park_changed_mail`].
    pub fn park_changed_mail(mut self) -> Self {
        self.options = self.options.park_changed_mail();
        self
    }

    /// What is decided after a failed turn, about the message and about the actor.
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.options = self.options.on_failure(policy);
        self
    }
}

impl<A: Actor> Spawn<'_, A> {
    /// See [`MailboxOptions::abandon_stuck`].
    pub fn abandon_stuck(mut self, after: std::time::Duration) -> Self {
        self.options = self.options.abandon_stuck(after);
        self
    }

    async fn start(self) -> Result<ActorRef<A>, SpawnError> {
        let Spawn { system, name, made: factory, mut options, workers, .. } = self;
        options.workers = workers.unwrap_or(options.workers);
        let start = Start { name, factory, options, link: None, tells_end: true };
        let (actor, running) = start.start(&system.inner.runtime).await?;
        system.runs(Started::Actor(running));
        Ok(actor)
    }
}

impl<A: Actor> OpenGroup<'_, A> {
    /// A key belongs to nobody: its next message goes to whichever member is free, as in a [pool](System::pool). No member's keys wait
    /// for it while others idle, and no member can count on what it remembers of a key.
    pub fn any_free(mut self) -> Self {
        self.made.spread = Spread::AnyFree;
        self
    }

    async fn open(self) -> Result<Group<A>, SpawnError> {
        let Spawn { system, name, made: ByMembers { spread }, options, .. } = self;
        let (group, running) = start_group(name, options, spread, &system.inner.runtime).await?;
        system.runs(Started::Actor(running));
        Ok(group)
    }
}

impl<'a, A: Actor> IntoFuture for OpenGroup<'a, A> {
    type Output = Result<Group<A>, SpawnError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

impl<'a, A: Actor> IntoFuture for Spawn<'a, A> {
    type Output = Result<ActorRef<A>, SpawnError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
