//! Handles: what sends to one actor, and looks at its state from outside.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::address::Address;
use super::ask::Ask;
use super::life::{Exit, Life};
use super::list::Contains;
use super::mailbox::{Control, Mailbox};
use super::message::{Actor, Message};
use super::options::SendOptions;
use super::receipt::Receipt;
use super::runtime::Runtime;
use super::state::{Cell, CellMap, MapKey};
use super::tell::Tell;
use crate::envelope::MessageId;
use crate::error::{AskError, SendError, StateError};
use crate::store::keys;

/// Sends to one actor. Cheap to clone; valid whether or not the actor is running: mail for one that is not running waits.
pub struct ActorRef<A: Actor> {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) mailbox: Arc<Mailbox<A>>,
}

impl<A: Actor> ActorRef<A> {
    /// Sends a message. Awaiting it returns the message's id.
    ///
    /// `Ok` means that the message is on disk, synced, and will be handled to its end or lie in the dead letters, whatever
    /// crashes; with another [`durability`](Tell::durability) it means what that says. While the mailbox is full it waits for
    /// room, for ever unless there is a [`timeout`](Tell::timeout).
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// # let counter = system.spawn("counter-1", || Counter).await?;
    /// counter.tell(Add { amount: 7 }).await?; // on disk
    /// counter.tell(Add { amount: 7 }).delay(Duration::from_secs(60)).dedup_id("order 17").await?;
    /// match counter.tell(Add { amount: 7 }).timeout(Duration::from_millis(50)).await {
    ///     Ok(id) => println!("{id} will be handled"),
    ///     Err(SendError::Refused { message, why }) => println!("{} was not accepted: {why}", message.amount),
    ///     Err(unknown) => println!("{unknown}"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SendError::Refused`] hands the message back: it is in no mailbox. [`SendError::Unknown`]: the store failed while the
    /// message was being synced.
    pub fn tell<M, I>(&self, message: M) -> Tell<'_, A, M, I>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        Tell { to: self, message, options: SendOptions::new(), _index: PhantomData }
    }

    /// Sends a message and waits for its reply, at most 30 s unless there is another [`timeout`](Ask::timeout).
    ///
    /// `Ok` means that the message was handled, and that its effects and every commit its handler had seen are on disk,
    /// synced.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// # let counter = system.spawn("counter-1", || Counter).await?;
    /// assert_eq!(counter.ask(Add { amount: 7 }).await?, 7);
    /// let total = counter.ask(Add { amount: 1 }).timeout(Duration::from_secs(2)).await?;
    /// assert_eq!(total, 8);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`AskError`]. Only [`AskError::Refused`] means that the message will not be handled.
    pub fn ask<M, I>(&self, message: M) -> Ask<'_, A, M, I>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        Ask { to: self, message, options: SendOptions::new(), _index: PhantomData }
    }

    /// Sends without waiting for anything: a full mailbox refuses at once. The same as `tell(message).submit()`.
    ///
    /// `Ok` means the message is in the mailbox; [`Receipt::durable`] waits for the disk.
    ///
    /// # Errors
    /// The message was refused, and is handed back.
    pub fn try_tell<M, I: 'static>(&self, message: M) -> Result<Receipt, SendError<M>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        self.tell(message).submit()
    }

    /// Sends all messages in one commit: all of them are accepted, in this order and with nothing between, or none. Waits for
    /// room for all of them. `Ok` means they are on disk, synced.
    ///
    /// # Errors
    /// As [`ActorRef::tell`]. Together they may be as large as half a journal segment (8 MiB by default).
    pub async fn tell_all<M, I>(
        &self,
        messages: impl IntoIterator<Item = M>,
    ) -> Result<Vec<MessageId>, SendError<Vec<M>>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        self.send_all(messages.into_iter().collect()).await
    }

    /// The actor's name.
    pub fn name(&self) -> &str {
        &self.mailbox.name
    }

    /// The actor's address: the same as data.
    pub fn address(&self) -> Address<A> {
        Address::checked(self.mailbox.name.to_string())
    }

    /// A handle of which only that it takes `M` is known.
    pub fn recipient<M, I: 'static>(&self) -> Recipient<M>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        Recipient { target: Arc::new(Erased::<A, M, I> { actor: self.clone(), _index: PhantomData }) }
    }

    /// Whether the actor is running in this process.
    pub fn is_running(&self) -> bool {
        self.mailbox.running_now()
    }

    /// Whether its handler does not yield: see [`SystemBuilder::stuck_after`](crate::SystemBuilder::stuck_after). Its mail waits then.
    pub fn is_stuck(&self) -> bool {
        self.mailbox.stuck.load(std::sync::atomic::Ordering::Acquire) > 0
    }

    /// Messages waiting in the mailbox; scheduled ones are not among them.
    pub fn waiting(&self) -> u64 {
        self.runtime.ledger.store().depth(self.mailbox.id).map_or(0, |(count, _)| count)
    }

    /// Ends the actor after the turn that runs. The mail stays and waits. Returns when it has ended.
    pub async fn stop(&self) {
        self.end(Control::Stop).await;
    }

    /// Ends the actor when it has handled all that waits. Returns when it has ended.
    pub async fn drain(&self) {
        self.end(Control::Drain).await;
    }

    /// Ends the actor now: the turn that runs is thrown away and costs its message no attempt. The mail stays and waits.
    /// Returns when it has ended.
    pub async fn park(&self) {
        self.end(Control::Park).await;
    }

    async fn end(&self, control: Control) {
        let mut life = self.mailbox.life.subscribe();
        if !life.borrow_and_update().is_running() {
            return;
        }
        let mut asked = self.mailbox.control.subscribe();
        self.mailbox.control.send_modify(|now| *now = control.max(*now));
        // a start takes the request back: by then the actor it was meant for has ended
        tokio::select! {
            biased;
            _ = life.wait_for(|life| !life.is_running()) => {}
            _ = asked.wait_for(|now| *now < control) => {}
        }
    }

    /// Waits until the actor is not running, and tells why it ended; none if it was never started in this process.
    pub async fn ended(&self) -> Option<Exit> {
        let mut life = self.mailbox.life.subscribe();
        // the mailbox, and so the sender, is held by self
        match life.wait_for(|life| !life.is_running()).await.as_deref() {
            Ok(Life::Ended(exit)) => Some(exit.clone()),
            _ => None,
        }
    }

    /// The value of one of the actor's cells as last committed; no message is sent. What it returns is on disk, synced.
    ///
    /// # Errors
    /// What is stored cannot be read as this cell, or the store failed.
    pub async fn cell<T>(&self, cell: &Cell<T>) -> Result<Option<T>, StateError>
    where
        T: Serialize + DeserializeOwned + 'static,
    {
        let stored = self.runtime.ledger.get(keys::cell(self.mailbox.id, cell.name(), &[])).await?;
        if !cfg!(steadfast_bug = "inspect_before_durable") {
            self.runtime.ledger.store().durable_now().await?;
        }
        stored.map(|bytes| cell.decode(&self.runtime, &bytes)).transpose()
    }

    /// The value of a key of one of the actor's map cells; as [`ActorRef::cell`].
    ///
    /// # Errors
    /// As [`ActorRef::cell`].
    pub async fn map_get<K, V>(&self, map: &CellMap<K, V>, key: &K) -> Result<Option<V>, StateError>
    where
        K: MapKey + 'static,
        V: Serialize + DeserializeOwned + 'static,
    {
        let stored = self.runtime.ledger.get(map.key(self.mailbox.id, key)?).await?;
        self.runtime.ledger.store().durable_now().await?;
        stored.map(|bytes| map.decode(&self.runtime, &bytes)).transpose()
    }

    /// Up to `limit` entries of one of the actor's map cells in order of key, after `after`; as [`ActorRef::cell`].
    ///
    /// # Errors
    /// As [`ActorRef::cell`].
    pub async fn map_page<K, V>(
        &self,
        map: &CellMap<K, V>,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StateError>
    where
        K: MapKey + 'static,
        V: Serialize + DeserializeOwned + 'static,
    {
        let prefix = map.prefix(self.mailbox.id);
        let from = match after {
            Some(after) => [map.key(self.mailbox.id, after)?.as_slice(), &[0]].concat(),
            None => prefix.clone(),
        };
        let stored = self.runtime.ledger.scan(from, keys::after_prefix(&prefix), limit).await?;
        self.runtime.ledger.store().durable_now().await?;
        let entry = |(key, value): (Vec<u8>, Arc<[u8]>)| {
            Ok((map.key_of(&prefix, &key)?, map.decode(&self.runtime, &value)?))
        };
        stored.into_iter().map(entry).collect()
    }

    /// The actor's whole state as last committed, for actors whose state is the [whole struct](crate::State::whole); none when
    /// nothing was stored yet. What it returns is on disk, synced.
    ///
    /// # Errors
    /// What is stored cannot be read as this actor, or the store failed.
    pub async fn snapshot(&self) -> Result<Option<A>, StateError> {
        let key = keys::cell(self.mailbox.id, super::state::WHOLE, &[]);
        let stored = self.runtime.ledger.get(key).await?;
        self.runtime.ledger.store().durable_now().await?;
        A::state().load(&self.runtime, stored.as_deref())
    }
}

impl<A: Actor> Clone for ActorRef<A> {
    fn clone(&self) -> Self {
        ActorRef { runtime: self.runtime.clone(), mailbox: self.mailbox.clone() }
    }
}

impl<A: Actor> fmt::Debug for ActorRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorRef({}: {})", self.mailbox.name, A::NAME)
    }
}

/// Sends messages of one type to some actor that takes it. Cheap to clone.
pub struct Recipient<M: Message> {
    target: Arc<dyn Takes<M>>,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

trait Takes<M: Message>: Send + Sync {
    fn tell(&self, message: M) -> Boxed<'_, Result<MessageId, SendError<M>>>;
    fn ask(&self, message: M) -> Boxed<'_, Result<M::Reply, AskError<M>>>;
    fn place(&self) -> (&str, &'static str);
}

struct Erased<A: Actor, M, I> {
    actor: ActorRef<A>,
    _index: PhantomData<fn() -> (M, I)>,
}

impl<A, M, I: 'static> Takes<M> for Erased<A, M, I>
where
    A: Actor,
    M: Message,
    A::Messages: Contains<M, I>,
{
    fn tell(&self, message: M) -> Boxed<'_, Result<MessageId, SendError<M>>> {
        Box::pin(self.actor.tell::<M, I>(message).into_future())
    }

    fn ask(&self, message: M) -> Boxed<'_, Result<M::Reply, AskError<M>>> {
        Box::pin(self.actor.ask::<M, I>(message).into_future())
    }

    fn place(&self) -> (&str, &'static str) {
        (self.actor.name(), A::NAME)
    }
}

impl<M: Message> Recipient<M> {
    /// As [`ActorRef::tell`].
    ///
    /// # Errors
    /// As [`ActorRef::tell`].
    pub async fn tell(&self, message: M) -> Result<MessageId, SendError<M>> {
        self.target.tell(message).await
    }

    /// As [`ActorRef::ask`].
    ///
    /// # Errors
    /// As [`ActorRef::ask`].
    pub async fn ask(&self, message: M) -> Result<M::Reply, AskError<M>> {
        self.target.ask(message).await
    }

    /// The actor's name.
    pub fn name(&self) -> &str {
        self.target.place().0
    }

    pub(crate) fn actor(&self) -> &'static str {
        self.target.place().1
    }
}

impl<M: Message> Clone for Recipient<M> {
    fn clone(&self) -> Self {
        Recipient { target: self.target.clone() }
    }
}

impl<M: Message> fmt::Debug for Recipient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({}: {})", self.name(), M::NAME)
    }
}
