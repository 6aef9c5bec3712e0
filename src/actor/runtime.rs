//! What handles, contexts and workers of one system share: the ledger, who waits for what, and what is known of types.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use serde::de::DeserializeOwned;

use super::life::Failed;
use super::list::{Decoder, DuplicateName, MessageKind};
use super::message::{Actor, Message};
use super::solo::Solo;
use super::watch::Watches;
use super::watchdog::Watchdog;
use crate::codec;
use crate::durable::{Ledger, Outcome, Stock, check_name};
use crate::envelope::MessageId;
use crate::error::Refused;
use crate::observe::Observer;
use crate::store::{Admitted, LogId, MailboxId, StoreError, region_of};
use crate::sync::{Bell, oneshot};

tokio::task_local! {
    /// Set while a handler runs, in its own task.
    pub(crate) static IN_TURN: ();
}

/// Whether this code runs inside a handler.
pub(crate) fn is_in_turn() -> bool {
    IN_TURN.try_with(|()| ()).is_ok()
}

/// What a mailbox is to those who do not know its actor's type.
pub(crate) trait AnyMailbox: Send + Sync {
    /// The actor's NAME.
    fn actor(&self) -> &'static str;
    /// Whether a worker reads it.
    fn is_running(&self) -> bool;
    /// A message was cancelled: it must not be handled even if it is in memory already.
    fn cancelled(&self, log: LogId, position: u64);
    /// Its id in the store.
    fn id(&self) -> MailboxId;
    /// Ends the worker as failed, after the turn that runs.
    fn end_with(&self, why: Failed);
    /// Whoever asks with this message, which lies in no memory, will have no reply.
    fn lose_asker(&self, id: MessageId);
    /// The system ends: whoever asks will have no reply in this process.
    fn lose_askers(&self);
    /// Whether something lies here that lies nowhere else.
    fn holds_mail(&self) -> bool;
    /// Itself, for the cast back.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// How a message ended, told to who holds its receipt.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) how: Handled,
    pub(crate) commit: Option<Admitted>,
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handled {
    /// Its handler succeeded, and the effects are durable.
    Done,
    /// It is in the dead letters.
    Buried,
    /// It expired before it was handled.
    Expired,
    /// It was cancelled.
    Cancelled,
    /// It was volatile and its one attempt failed, or its actor ended meanwhile.
    Lost,
}

/// A kept reply, told to the one who asked again.
pub(crate) type KeptReply = (Outcome, Option<Admitted>);

/// See the module's head.
pub(crate) struct Runtime {
    pub(crate) ledger: Ledger,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) max_message: u64,
    pub(crate) mailboxes: DashMap<String, Arc<dyn AnyMailbox>>,
    /// Who waits for a reply that is kept with a mark, by message.
    kept_replies: DashMap<MessageId, Vec<oneshot::Sender<KeptReply>>>,
    /// Who holds a receipt, by message.
    receipts: DashMap<MessageId, oneshot::Sender<Ended>>,
    /// How many receipts are held: every turn asks, and the map would take all its locks to say.
    held_receipts: AtomicUsize,
    /// Notified when something was put on the schedule.
    pub(crate) scheduled: Bell,
    pub(super) watches: Watches,
    /// Which mailboxes wait, in their turns, for which others.
    asking: Mutex<HashMap<MailboxId, Waits>>,
    kinds: DashMap<TypeId, Result<MessageKind, Refused>>,
    shapes: DashMap<TypeId, u32>,
    decoders: DashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    /// How many mailboxes stayed in memory when it was last looked.
    stayed: AtomicUsize,
    closing: AtomicBool,
    pub(crate) solo: Arc<Solo>,
    pub(crate) watchdog: Arc<Watchdog>,
}

impl Runtime {
    pub(crate) fn new(
        ledger: Ledger,
        observer: Arc<dyn Observer>,
        max_message: u64,
        stock: Stock,
        stuck_after: Duration,
    ) -> Self {
        Runtime {
            ledger,
            observer,
            max_message,
            mailboxes: DashMap::new(),
            kept_replies: DashMap::new(),
            receipts: DashMap::new(),
            held_receipts: AtomicUsize::new(0),
            scheduled: Bell::new(),
            watches: Watches::default(),
            asking: Mutex::default(),
            kinds: DashMap::new(),
            shapes: DashMap::new(),
            decoders: DashMap::new(),
            stayed: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            solo: Arc::new(Solo::new(stock)),
            watchdog: Arc::new(Watchdog::new(stuck_after)),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        use crate::store::{Drive, Driven, Place, SimulatedDisk, StoreConfig};
        let config = StoreConfig { segment: 64 << 10, ballast: 0, ..StoreConfig::default() };
        let observer = Arc::new(crate::observe::Silent);
        let place = Place::simulated(&SimulatedDisk::new(0));
        let (driven, _) =
            Driven::open(place, &config, observer.clone(), None, Drive::Threads).expect("opens");
        let clock = Arc::new(crate::clock::SystemClock);
        let ledger = Ledger::new(driven.store().clone(), clock);
        Runtime::new(ledger, observer, 1 << 20, Stock::default(), Duration::MAX)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn set_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// What messages of this type are stored as. The first message of each type is probed: what could not be read back
    /// is refused before any is accepted.
    pub(crate) fn kind_of<M: Message>(&self, message: &M) -> Result<MessageKind, Refused> {
        if let Some(known) = self.kinds.get(&TypeId::of::<M>()) {
            return known.clone();
        }
        let probed = probe(message);
        self.kinds.insert(TypeId::of::<M>(), probed.clone());
        probed
    }

    /// The fingerprint of a type, 0 where it cannot be traced.
    pub(crate) fn shape_of<T: DeserializeOwned + 'static>(&self) -> u32 {
        let traced = || codec::fingerprint::<T>().unwrap_or(0);
        *self.shapes.entry(TypeId::of::<T>()).or_insert_with(traced)
    }

    /// What messages of this type are stored as now.
    pub(crate) fn stored_kind<M: Message>(&self) -> MessageKind {
        MessageKind { name: M::NAME, version: M::VERSION, shape: self.shape_of::<M>() }
    }

    /// What reads the stored messages of an actor, made once: tracing the fields of every message takes a while.
    pub(crate) fn decoder<A: Actor>(&self) -> Result<Arc<Decoder<A>>, DuplicateName> {
        let known = self.decoders.get(&TypeId::of::<A>()).map(|known| known.value().clone());
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return Ok(known);
        }
        let made = Arc::new(Decoder::<A>::new()?);
        self.decoders.insert(TypeId::of::<A>(), made.clone());
        Ok(made)
    }

    /// Forgets the mailbox of an entity, if nobody has it: there may be millions.
    pub(crate) fn forget_mailbox(&self, name: &str) {
        self.mailboxes.remove_if(name, |name, mailbox| is_spare(name, mailbox));
    }

    /// Forgets all such mailboxes, now and then.
    pub(crate) fn forget_mailboxes(&self) {
        const FEW: usize = 4096;
        if self.mailboxes.len() > 2 * self.stayed.load(Ordering::Relaxed) + FEW {
            self.mailboxes.retain(|name, mailbox| !is_spare(name, mailbox));
            self.stayed.store(self.mailboxes.len(), Ordering::Relaxed);
        }
    }

    /// Notes that a turn of `asker`, of which `workers` run at once, waits for `target`, until the guard is dropped. None when nobody
    /// would ever answer: all that `target` can run waits, directly or through others, for `asker`, and this ask would take the
    /// last of its workers.
    pub(crate) fn begin_asking(
        self: &Arc<Self>,
        asker: MailboxId,
        workers: usize,
        target: MailboxId,
    ) -> Option<Asking> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = asking.entry(asker).or_default();
        waits.workers = workers;
        if cfg!(steadfast_bug = "remember_one_ask_of_a_pool") {
            waits.targets.clear();
        }
        waits.targets.push(target);
        let guard = Asking { runtime: self.clone(), asker, target };
        if is_stuck(&asking, target) && !cfg!(steadfast_bug = "wait_in_a_cycle_of_asks") {
            // its drop takes the lock
            drop(asking);
            drop(guard);
            return None;
        }
        Some(guard)
    }

    /// The system ends: tells everybody who asks that there will be no reply.
    pub(crate) fn lose_askers(&self) {
        let mailboxes: Vec<_> = self.mailboxes.iter().map(|mailbox| mailbox.value().clone()).collect();
        for mailbox in mailboxes {
            mailbox.lose_askers();
        }
    }

    /// Tells whoever holds the message's receipt how it ended.
    pub(crate) fn ended(&self, id: MessageId, how: Handled, commit: Option<&Admitted>) {
        if self.held_receipts.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(holder) = self.take_receipt(id) {
            // the holder may have lost interest
            let _ = holder.send(Ended { how, commit: commit.cloned() });
        }
    }

    /// Tells whoever waits for the kept reply of a message.
    pub(crate) fn kept(&self, id: MessageId, outcome: &Outcome, commit: Option<&Admitted>) {
        let Some((_, askers)) = self.kept_replies.remove(&id) else { return };
        for asker in askers {
            let _ = asker.send((outcome.clone(), commit.cloned()));
        }
    }

    /// Waits for the outcome that is kept with a mark, and for the commit that made it to be durable.
    pub(crate) async fn kept_reply(
        &self,
        mailbox: MailboxId,
        hash: [u8; 16],
        id: MessageId,
    ) -> Result<Outcome, StoreError> {
        let (outcome, commit) = self.kept_reply_in_turn(mailbox, hash, id).await?;
        match commit {
            Some(commit) => self.ledger.durable(&commit).await?,
            None => self.ledger.store().durable_now().await?,
        }
        Ok(outcome)
    }

    /// As [`Runtime::kept_reply`], for a turn: what it builds on this is committed after it, so nothing is waited for.
    pub(crate) async fn kept_reply_in_turn(
        &self,
        mailbox: MailboxId,
        hash: [u8; 16],
        id: MessageId,
    ) -> Result<KeptReply, StoreError> {
        let (sender, receiver) = oneshot::channel();
        // before the look: an outcome that comes between is told, not missed
        self.kept_replies.entry(id).or_default().push(sender);
        match self.ledger.mark(mailbox, hash).await? {
            Some(mark) if mark.outcome != Outcome::Pending => {
                self.kept_replies.remove_if(&id, |_, askers| askers.iter().all(oneshot::Sender::is_closed));
                Ok((mark.outcome, None))
            }
            _ => tokio::select! {
                biased;
                told = receiver => told.map_err(|_| self.ledger.store().failure().unwrap_or(StoreError::Closed)),
                // nobody is left to tell it then
                why = self.ledger.store().failed() => Err(why),
            },
        }
    }

    /// What will be told when the message has ended.
    pub(crate) fn receipt_for(&self, id: MessageId) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        // counted first: whoever finds it held must find it counted
        self.held_receipts.fetch_add(1, Ordering::AcqRel);
        if self.receipts.insert(id, sender).is_some() {
            self.held_receipts.fetch_sub(1, Ordering::AcqRel);
        }
        receiver
    }

    pub(crate) fn forget_receipt(&self, id: MessageId) {
        drop(self.take_receipt(id));
    }

    fn take_receipt(&self, id: MessageId) -> Option<oneshot::Sender<Ended>> {
        let (_, holder) = self.receipts.remove(&id)?;
        self.held_receipts.fetch_sub(1, Ordering::AcqRel);
        Some(holder)
    }
}

/// Whether nobody has the mailbox, and what it holds can be found again. With the lock of its entry, under which alone it is
/// handed out.
fn is_spare(name: &str, mailbox: &Arc<dyn AnyMailbox>) -> bool {
    region_of(name).is_some() && Arc::strong_count(mailbox) == 1 && !mailbox.holds_mail()
}

/// What the turns of a mailbox wait for.
#[derive(Default)]
struct Waits {
    /// How many of them run at once.
    workers: usize,
    /// One for each that waits.
    targets: Vec<MailboxId>,
}

/// Whether no turn of the mailbox will ever end: each that can run waits for a mailbox of which the same is true.
fn is_stuck(asking: &HashMap<MailboxId, Waits>, mailbox: MailboxId) -> bool {
    let busy = |id: &MailboxId| asking.get(id).is_some_and(|waits| waits.targets.len() >= waits.workers);
    let mut stuck = HashSet::new();
    let mut next = vec![mailbox];
    while let Some(id) = next.pop() {
        if busy(&id) && stuck.insert(id) {
            next.extend(asking.get(&id).into_iter().flat_map(|waits| waits.targets.iter().copied()));
        }
    }
    // whoever waits for one that will go on goes on too
    loop {
        let goes_on = |id: &&MailboxId| {
            let mut targets = asking.get(id).into_iter().flat_map(|waits| &waits.targets);
            targets.any(|target| !stuck.contains(target))
        };
        match stuck.iter().find(goes_on).copied() {
            Some(id) => stuck.remove(&id),
            None => return stuck.contains(&mailbox),
        };
    }
}

/// Held while an actor waits, in a turn, for another.
pub(crate) struct Asking {
    runtime: Arc<Runtime>,
    asker: MailboxId,
    target: MailboxId,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut asking = self.runtime.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waits) = asking.get_mut(&self.asker) else { return };
        if let Some(at) = waits.targets.iter().position(|target| *target == self.target) {
            waits.targets.swap_remove(at);
        }
        if waits.targets.is_empty() {
            asking.remove(&self.asker);
        }
    }
}

fn probe<M: Message>(message: &M) -> Result<MessageKind, Refused> {
    check_name(M::NAME)?;
    codec::probe(message)?;
    let shape = codec::fingerprint::<M>().unwrap_or(super::list::UNTRACED);
    Ok(MessageKind { name: M::NAME, version: M::VERSION, shape })
}
