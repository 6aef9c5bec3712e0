//! The task of one actor, or one of several of a pool: takes letters from its [front](super::front) and runs a turn for each,
//! until it is asked to end, its policy ends it after a failure, or the store fails.
//!
//! # Invariants
//! - One worker at a time reads a mailbox, or the workers of one [pool](super::pool): new ones start only when the tasks of all
//!   the old ones have ended.
//! - Turns are committed in the order in which they ran. A worker does not wait for its own last turn to be synced, but at most
//!   [`UNSYNCED`] of its turns are not.
//! - In strict order a letter that is to be tried again holds up those behind it, and only those of its priority.
//! - A worker whose turn overfilled another mailbox starts no turn until there is room there, unless its own is over its limit.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::affinity::Spread;
use super::filter::Filter;
use super::front::Front;
use super::hooks::{Followed, Hook, Unhooked};
use super::life::{Exit, Failed, Link};
use super::list::MessageList;
use super::mailbox::{Control, Letter, Mailbox};
use super::message::Actor;
use super::order::Order;
use super::presence::Presence;
use super::runtime::{AnyMailbox, Runtime};
use super::solo::{Concern, Pass};
use super::state::{Cells, State, WHOLE};
use super::turn::{drop_quietly, panic_text};
use super::watchdog::{Held, Pulse};
use crate::clock::Timestamp;
use crate::durable::{Attempts, StartFrom};
use crate::envelope::MessageId;
use crate::error::{SpawnError, StateError};
use crate::observe::Event;
use crate::policy::{FailureClass, FailurePolicy, RetryPolicy};
use crate::store::{
    Admitted, LANES, Limits, LogId, MailboxId, OnRoll, SignedIn, Store, StoreError, ViewOf, is_entity, keys,
};

/// The most turns of one worker that are not synced.
const UNSYNCED: usize = 1024;
/// After this many turns others on the same thread get theirs.
const TURNS_AT_ONCE: u32 = 64;

/// How a mailbox behaves.
#[derive(Debug, Clone)]
pub struct MailboxOptions {
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) order: Order,
    pub(crate) workers: usize,
    /// Its workers come and go, and who gets which key; none: there are as many as `workers` says.
    pub(crate) group: Option<Spread>,
    pub(crate) batch: Option<Batching>,
    pub(crate) count: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) park_changed: bool,
    pub(crate) failures: FailurePolicy,
    pub(crate) turn_timeout: Option<Duration>,
    /// What it reads, besides its mail.
    pub(crate) subscribes: Vec<Subscribes>,
    /// What of it is wanted.
    pub(crate) filters: Vec<Filter>,
    abandon_stuck: Option<Duration>,
}

impl Default for MailboxOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl MailboxOptions {
    /// Strict order, [`RetryPolicy::strict`], the system's limits.
    pub const fn new() -> Self {
        MailboxOptions {
            retry: None,
            order: Order::Strict,
            workers: 1,
            group: None,
            batch: None,
            count: None,
            bytes: None,
            park_changed: false,
            failures: FailurePolicy::new(),
            turn_timeout: None,
            subscribes: Vec::new(),
            filters: Vec::new(),
            abandon_stuck: None,
        }
    }

    /// Without order between a message that is tried again and those behind it: it does not hold them up. Retries follow
    /// [`RetryPolicy::unordered`] unless there is another policy.
    #[must_use]
    pub const fn unordered(mut self) -> Self {
        self.order = Order::Unordered;
        self
    }

    /// In which order messages are handled; see [`Order`].
    #[must_use]
    pub const fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// How many workers read the mailbox, each with an actor of its own from the factory; see
    /// [`System::pool`](crate::System::pool). 0 counts as 1.
    #[must_use]
    pub const fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Messages are handled by [`BatchHandler`](crate::BatchHandler), up to `size` at once: from the first one it is waited at most
    /// `linger` for more. A `size` of 0 counts as 1.
    #[must_use]
    pub const fn batch(mut self, size: usize, linger: Duration) -> Self {
        self.batch = Some(Batching { size, linger });
        self
    }

    /// When and how often a failed message is tried again.
    #[must_use]
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// What is decided after a failed turn, about the message and about the actor.
    #[must_use]
    pub const fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.failures = policy;
        self
    }

    /// The longest a turn may take, by the system's clock. One that takes longer is thrown away where its handler waits, and
    /// counts as an attempt that failed; see [`FailurePolicy::timeout`](crate::FailurePolicy). A handler that does not yield is
    /// not ended by it; see [`MailboxOptions::abandon_stuck`]. Default: none.
    #[must_use]
    pub const fn turn_timeout(mut self, time: Duration) -> Self {
        self.turn_timeout = Some(time);
        self
    }

    /// Goes on without a handler that has not yielded for this long: a new incarnation of the actor starts from what was last
    /// committed, and the turn counts as an attempt that timed out. The old handler still runs, since nothing can end it, but
    /// nothing it does from then on is committed. What it does to the outside world it may do at the same time as the next
    /// attempt, so this is only for handlers that stand that. Needs a runtime of several threads. Default: its mail waits, and so
    /// it does always in a pool and with batches.
    #[must_use]
    pub const fn abandon_stuck(mut self, after: Duration) -> Self {
        self.abandon_stuck = Some(after);
        self
    }

    /// The most messages that may wait; senders then wait or are refused.
    #[must_use]
    pub const fn capacity(mut self, messages: u64) -> Self {
        self.count = Some(messages);
        self
    }

    /// The most bytes of messages that may wait.
    #[must_use]
    pub const fn capacity_bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Starts although a message has other fields than when it was first stored under the same version: stored ones of the old
    /// shape go to the dead letters, where they can be redriven after an upgrade.
    #[must_use]
    pub const fn park_changed_mail(mut self) -> Self {
        self.park_changed = true;
        self
    }

    /// These, for an actor that reads what it was to read before: that is no option of its mailbox.
    pub(crate) fn reading_as(self, before: MailboxOptions) -> Self {
        let MailboxOptions { subscribes, filters, .. } = before;
        MailboxOptions { subscribes, filters, ..self }
    }

    pub(crate) fn policy(&self) -> RetryPolicy {
        self.retry.clone().unwrap_or(self.order.usual_retry())
    }

    /// How many letters of one priority may be in flight with so many workers, or lie before one that is.
    fn reach(&self, workers: usize) -> u32 {
        let at_once = if self.order == Order::Strict { 1 } else { workers.max(1) };
        let taken = at_once * self.batch.map_or(1, |batch| batch.size.max(1));
        let passed_over = if self.order == Order::PerKey { super::pool::WINDOW } else { 0 };
        u32::try_from(taken + passed_over).unwrap_or(u32::MAX)
    }

    /// Only a worker alone, with one message at a time, can be gone on without.
    pub(crate) fn abandons(&self) -> Option<Duration> {
        if self.has_several() || self.batch.is_some() {
            return None;
        }
        let at_once = cfg!(steadfast_bug = "start_beside_a_stuck_one").then_some(Duration::from_millis(50));
        self.abandon_stuck.or(at_once)
    }

    /// Those of a group.
    pub(crate) const fn of_group(mut self, spread: Spread) -> Self {
        self.group = Some(spread);
        self
    }

    /// Whether several workers may share the mailbox, and its state.
    fn has_several(&self) -> bool {
        self.workers > 1 || self.group.is_some()
    }

    /// None: the system's.
    pub(crate) fn limits(&self) -> Option<Limits> {
        let some = self.count.is_some() || self.bytes.is_some();
        some.then(|| Limits { count: self.count.unwrap_or(u64::MAX), bytes: self.bytes.unwrap_or(u64::MAX) })
    }
}

/// What an actor is to subscribe to, and where it begins when that is new.
#[derive(Debug, Clone)]
pub(crate) enum Subscribes {
    To(LogId, StartFrom),
    /// Topics that match, with this type of event.
    Matching(String, &'static str, StartFrom),
}

/// How many letters are handled in one turn, and how long it is waited for them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batching {
    pub(crate) size: usize,
    pub(crate) linger: Duration,
}

/// Makes an actor, at each start and after each failed turn.
pub(crate) type Factory<A> = Arc<dyn Fn() -> A + Send + Sync>;

/// Why a worker ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// It was asked to.
    Asked,
    /// A newer incarnation has started.
    Fenced,
    /// The actor is missing: it has to be made before the turn.
    NoActor,
    /// Its policy ended it after a failure.
    Failed(Failed),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for Ending {
    fn from(error: StoreError) -> Self {
        Ending::Store(error)
    }
}

/// See the module's head.
pub(crate) struct Worker<A: Actor> {
    pub(super) runtime: Arc<Runtime>,
    pub(super) mailbox: Arc<Mailbox<A>>,
    pub(super) control: watch::Receiver<Control>,
    pub(super) incarnation: u64,
    pub(super) state: State<A>,
    pub(super) retry: RetryPolicy,
    pub(super) failures: FailurePolicy,
    pub(super) order: Order,
    /// Whether others may read this mailbox, and its state.
    pub(super) shares: bool,
    /// Whether others take its letters over when it ends.
    is_member: bool,
    pub(super) batch: Option<Batching>,
    /// Where a supervisor hears of failures; none without one.
    pub(super) link: Option<Link>,
    /// None while it has to be made anew.
    pub(super) actor: Option<A>,
    pub(super) cells: Cells,
    /// The whole struct as last committed.
    pub(super) saved: Option<Vec<u8>>,
    pub(super) front: Front<A>,
    factory: Factory<A>,
    unsynced: usize,
    last: Option<Admitted>,
    overfilled: Vec<MailboxId>,
    /// Letters below were sent before the store was opened, until the first of them was taken.
    pub(super) resumed_below: [u64; LANES],
    /// Whether `recovered` was called, or need not be.
    pub(super) has_resumed: bool,
    /// What of the topics it reads is wanted.
    pub(super) filters: Vec<Filter>,
    /// The topics it reads, by their views.
    pub(super) topics: BTreeMap<LogId, Followed>,
    /// Letters since the start, for the reports.
    reported: u32,
    /// What the region of an entity sees of it; none for other actors.
    presence: Option<Arc<Presence>>,
    /// The longest a turn may take.
    pub(super) turn_timeout: Option<Duration>,
    /// What the watchdog sees.
    pub(super) pulse: Arc<Pulse>,
    /// A message whose handler was abandoned: the first thing to settle.
    taken_over: Option<Held>,
    /// The turn's right to run.
    pub(super) pass: Pass,
    /// What suspect messages are to its turns.
    pub(super) concern: Concern,
    /// So many turns are synced one by one: which message was in flight when the process ended is not known.
    careful: usize,
    /// Its place on the roll, until it ends.
    _signed_in: Arc<Option<SignedIn>>,
}

/// What the workers of one incarnation have in common: what they are made from.
pub(super) struct Ground<A: Actor> {
    pub(super) runtime: Arc<Runtime>,
    pub(super) mailbox: Arc<Mailbox<A>>,
    pub(super) options: MailboxOptions,
    incarnation: u64,
    cells: Cells,
    saved: Option<Vec<u8>>,
    signed_in: Arc<Option<SignedIn>>,
}

/// What is known of messages that have failed.
type Tried = HashMap<MessageId, Attempts>;

impl<A: Actor> Ground<A> {
    /// Begins an incarnation: reads what it begins with.
    pub(super) async fn read(
        runtime: &Arc<Runtime>,
        mailbox: &Arc<Mailbox<A>>,
        options: &MailboxOptions,
    ) -> Result<(Self, Tried, Vec<ViewOf>), SpawnError> {
        // before anything is read: what an abandoned incarnation commits later would be missing in it
        let incarnation = runtime.ledger.store().fence(mailbox.id);
        // a group has nothing in flight while it has no members, and each of them signs in
        let on_roll = OnRoll { mailbox: mailbox.id, workers: options.reach(options.workers) };
        let signs_in = options.group.is_none();
        // all at once: an entity may be started for every message
        let read = move |store: &Store| {
            let id = on_roll.mailbox;
            let signed_in = signs_in.then(|| store.sign_in(on_roll)).flatten();
            let views = if is_entity(id) { Vec::new() } else { store.load_views(id)? };
            Ok((load_cells(store, id)?, Attempts::of_mailbox(store, id)?, signed_in, views))
        };
        let (cells, tried, signed_in, views) = runtime.ledger.blocking(read).await?;
        let state = A::state();
        if options.has_several() && state.is_whole() && !cfg!(steadfast_bug = "share_a_struct") {
            return Err(SpawnError::PoolWithState { mailbox: mailbox.name.to_string() });
        }
        if options.batch.is_some() && !<A::Messages as MessageList<A>>::BATCHES {
            return Err(SpawnError::NoBatches { actor: A::NAME });
        }
        state.check(runtime, &cells).map_err(|why| unreadable(mailbox, why))?;
        let saved = cells.get(WHOLE).map(|bytes| bytes.to_vec());
        let (runtime, mailbox, options) = (runtime.clone(), mailbox.clone(), options.clone());
        let ground =
            Ground { runtime, mailbox, options, incarnation, cells, saved, signed_in: Arc::new(signed_in) };
        Ok((ground, tried.into_iter().collect(), views))
    }

    /// Makes a worker, with its actor.
    pub(super) fn worker(
        &self,
        front: Front<A>,
        factory: &Factory<A>,
        link: Option<&Link>,
        control: watch::Receiver<Control>,
    ) -> Result<Worker<A>, SpawnError> {
        let Ground { runtime, mailbox, options, incarnation, cells, saved, signed_in } = self;
        let careful = if runtime.solo.is_careful(mailbox.id) { UNSYNCED } else { 0 };
        let mut worker = Worker {
            runtime: runtime.clone(),
            mailbox: mailbox.clone(),
            control,
            incarnation: *incarnation,
            state: A::state(),
            retry: options.policy(),
            failures: options.failures,
            link: link.cloned(),
            order: options.order,
            shares: options.has_several(),
            is_member: options.group.is_some(),
            batch: options.batch,
            actor: None,
            saved: saved.clone(),
            cells: cells.clone(),
            front,
            factory: factory.clone(),
            unsynced: 0,
            last: None,
            overfilled: Vec::new(),
            resumed_below: runtime.ledger.store().resumed(mailbox.id),
            has_resumed: false,
            filters: options.filters.clone(),
            topics: BTreeMap::new(),
            reported: 0,
            presence: None,
            turn_timeout: options.turn_timeout,
            pulse: runtime.watchdog.pulse(mailbox.name.clone(), &mailbox.stuck, options.abandons()),
            taken_over: None,
            pass: Pass::default(),
            careful,
            concern: runtime.solo.concerns(mailbox.id),
            _signed_in: signed_in.clone(),
        };
        match worker.make_actor() {
            Ok(()) => Ok(worker),
            Err(Unmade::Panicked(why)) => Err(SpawnError::Factory { mailbox: mailbox.name.to_string(), why }),
            Err(Unmade::Unreadable(why)) => Err(unreadable(mailbox, why)),
        }
    }
}

fn unreadable<A: Actor>(mailbox: &Mailbox<A>, why: StateError) -> SpawnError {
    SpawnError::State { mailbox: mailbox.name.to_string(), why }
}

impl<A: Actor> Worker<A> {
    /// Reads the actor's state and makes its workers, each with its actor. An error leaves everything as it was.
    pub(super) async fn all(
        runtime: &Arc<Runtime>,
        mailbox: &Arc<Mailbox<A>>,
        factory: &Factory<A>,
        options: &MailboxOptions,
        link: Option<&Link>,
    ) -> Result<Vec<Self>, SpawnError> {
        let (ground, tried, views) = Ground::read(runtime, mailbox, options).await?;
        let worker = |front| ground.worker(front, factory, link, mailbox.control.subscribe());
        Front::all(options, tried, views).into_iter().map(worker).collect()
    }

    /// Notes on the roll that it is one of so many, until it ends: the last to come of those that are there knows of all of them.
    pub(super) async fn sign_in(&mut self, options: &MailboxOptions, workers: usize) {
        let on_roll = OnRoll { mailbox: self.mailbox.id, workers: options.reach(workers) };
        let signed_in = self.runtime.ledger.blocking(move |store| Ok(store.sign_in(on_roll))).await;
        // as without a roll: after a death there are no suspects
        self._signed_in = Arc::new(signed_in.ok().flatten());
    }

    /// Calls `started`. An error leaves everything as it was.
    pub(crate) async fn begin(&mut self) -> Result<(), SpawnError> {
        match self.hook(Hook::Started).await {
            Ok(()) => Ok(()),
            Err(Unhooked::Failed(Failed { why, .. })) => {
                Err(SpawnError::Hook { mailbox: self.mailbox.name.to_string(), why })
            }
            Err(Unhooked::Ending(Ending::Store(why))) => Err(why.into()),
            Err(Unhooked::Ending(_)) => Err(SpawnError::Stopped { mailbox: self.mailbox.name.to_string() }),
        }
    }

    /// The name by which its supervisor knows it.
    pub(super) fn known_as(&self) -> Arc<str> {
        match self.front.seat().filter(|_| self.is_member) {
            Some(seat) => seat.name().clone(),
            None => self.mailbox.name.clone(),
        }
    }

    /// How many turns of this mailbox can run at once.
    pub(super) fn at_once(&self) -> usize {
        match self.front.seat() {
            Some(seat) if self.order != Order::Strict => seat.pool().taken().max(1),
            _ => 1,
        }
    }

    /// Makes the actor from its factory and what was last committed.
    fn make_actor(&mut self) -> Result<(), Unmade> {
        // the factory and a `Deserialize` are user code: a panic in them ends neither the task nor the caller
        let make = || match self.state.load(&self.runtime, self.saved.as_deref())? {
            Some(actor) => Ok(actor),
            None => Ok((self.factory)()),
        };
        let made = std::panic::catch_unwind(AssertUnwindSafe(make));
        let made = made.map_err(|panic| Unmade::Panicked(panic_text(&*panic)))?;
        self.actor = Some(made.map_err(Unmade::Unreadable)?);
        Ok(())
    }

    /// Runs until the end. Whoever holds the claim on the mailbox [tidies it up](tidy) and says that the end has come: said
    /// here, a successor could have started in between, and would be taken for ended.
    pub(crate) async fn run(mut self) -> Exit {
        let mut ending = self.work().await;
        if matches!(ending, Ending::Asked) && *self.control.borrow() < Control::Park {
            ending = self.stopping().await;
        }
        if let Some(actor) = self.actor.take() {
            drop_quietly(actor);
        }
        match &ending {
            Ending::Store(why) if self.runtime.ledger.store().failure().is_none() => {
                // the others go on: nobody else would say so
                tracing::error!(actor = %self.mailbox.name, %why, "the actor ends: what it needs cannot be read");
            }
            Ending::Store(why) => tracing::debug!(actor = %self.mailbox.name, %why, "ended with the store"),
            other => tracing::debug!(actor = %self.mailbox.name, ending = ?other, "ended"),
        }
        // whatever comes next for this mailbox must not meet them
        self.pulse.clone().closures_ended().await;
        // an orderly end leaves nothing unsynced behind; a failed store is reported by itself
        let _ = self.synced().await;
        self.front.leave(&self.mailbox);
        match ending {
            Ending::Asked | Ending::NoActor => Exit::Stopped,
            Ending::Fenced => Exit::Replaced,
            Ending::Failed(failed) => Exit::Failed(failed),
            Ending::Store(_) => Exit::StoreFailed,
        }
    }

    /// Why it ends when it was asked to.
    pub(super) fn asked(&self) -> Ending {
        self.mailbox.fails().map_or(Ending::Asked, Ending::Failed)
    }

    /// Begins where a worker was abandoned: with what becomes of the message it held.
    pub(super) fn takes_over(&mut self, held: Option<Held>) {
        self.taken_over = held;
    }

    async fn work(&mut self) -> Ending {
        let mut turns = 0;
        if let Some(held) = self.taken_over.take()
            && let Err(ending) = self.settle_abandoned(held).await
        {
            return ending;
        }
        loop {
            if let Err(ending) = self.step().await {
                return ending;
            }
            turns += 1;
            if turns % TURNS_AT_ONCE == 0 {
                if self.presence.as_ref().is_some_and(|presence| presence.make_way()) {
                    return Ending::Asked;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// The last thing an actor does when it was asked to end and has the time.
    async fn stopping(&mut self) -> Ending {
        match self.hook(Hook::Stopping).await {
            Err(Unhooked::Failed(Failed { why, .. })) => {
                tracing::warn!(actor = %self.mailbox.name, %why, "the actor ends, and what this did is thrown away");
                Ending::Asked
            }
            Err(Unhooked::Ending(ending @ (Ending::Store(_) | Ending::Fenced))) => ending,
            Ok(()) | Err(Unhooked::Ending(_)) => Ending::Asked,
        }
    }

    /// One letter, or a wait for one.
    async fn step(&mut self) -> Result<(), Ending> {
        let control = *self.control.borrow();
        if self.pulse.was_abandoned() {
            return Err(Ending::Fenced);
        }
        if control >= Control::Stop {
            return Err(self.asked());
        }
        self.wait_for_room().await?;
        if self.pulse.has_closures() {
            self.pulse.clone().closures_ended().await;
        }
        self.wait_for_actor().await?;
        match self.next_letter().await? {
            Some(letter) => match self.hook_before(&letter) {
                None => self.handle(letter).await,
                Some(hook) => self.handle_after(hook, letter).await,
            },
            None if control == Control::Drain && self.front.is_idle() => self.end_when_drained(),
            None => self.wait_for_mail().await,
        }
    }

    /// A turn with this letter, and with those that may join it.
    async fn handle(&mut self, letter: Letter<A>) -> Result<(), Ending> {
        if cfg!(steadfast_bug = "release_before_the_commit") {
            self.front.release();
        }
        match self.batch {
            // whom the suspects concern handles one at a time
            Some(batching) if !self.is_concerned() => self.turn_of_several(letter, batching).await?,
            _ => self.turn_among_others(letter).await?,
        }
        self.front.release();
        Ok(())
    }

    /// What the actor is to be told before this letter.
    pub(super) fn hook_before(&mut self, letter: &Letter<A>) -> Option<Hook> {
        match self.resumes_with(letter) {
            true => Some(Hook::Recovered),
            false => self.gap_before(letter),
        }
    }

    /// Tells it, and looks at the letter again: there may be more to tell.
    async fn handle_after(&mut self, hook: Hook, letter: Letter<A>) -> Result<(), Ending> {
        match self.hook(hook).await {
            Ok(()) => {
                if hook == Hook::Recovered {
                    self.resumed_below = [0; LANES];
                    self.has_resumed = true;
                }
                self.front.put_back(letter, &self.mailbox);
                self.front.release();
                Ok(())
            }
            Err(Unhooked::Failed(failed)) => {
                self.front.put_back(letter, &self.mailbox);
                self.front.release();
                self.not_ready(failed).await
            }
            Err(Unhooked::Ending(ending)) => Err(ending),
        }
    }

    /// Nothing was found where it was looked; mail of another priority may have come since.
    fn end_when_drained(&mut self) -> Result<(), Ending> {
        match self.runtime.ledger.store().depth(self.mailbox.id) {
            Some((count, _)) if count > 0 => {
                self.front.look_again();
                Ok(())
            }
            _ => Err(Ending::Asked),
        }
    }

    pub(super) async fn next_letter(&mut self) -> Result<Option<Letter<A>>, Ending> {
        let now = self.now();
        let letter = self.front.next(now, &self.mailbox, &self.runtime.ledger).await?;
        if let Some(stored) = letter.as_ref().filter(|letter| letter.place.is_some()) {
            self.report_waiting(Some(now.since(stored.head.sent_at)));
        }
        Ok(letter)
    }

    /// Keeps a letter as the next of its priority, not before `due`.
    pub(super) fn hold(&mut self, letter: Letter<A>, due: Timestamp) {
        let now = self.now();
        self.front.hold(letter, due, now, &self.mailbox);
    }

    /// A turn was committed: what it has others wait for, and what it waits for itself.
    pub(super) async fn committed(
        &mut self,
        commit: Admitted,
        targets: Vec<MailboxId>,
    ) -> Result<(), Ending> {
        self.overfilled = targets;
        self.unsynced += 1;
        let most = if self.careful > 0 { 1 } else { UNSYNCED };
        self.careful = self.careful.saturating_sub(1);
        if self.unsynced >= most {
            self.unsynced = 0;
            self.runtime.ledger.store().flush_soon();
            self.runtime.ledger.durable(&commit).await?;
        }
        self.last = Some(commit);
        self.weigh();
        Ok(())
    }

    /// The worker of an entity: has its region see what it does.
    pub(crate) fn show(&mut self, presence: Option<Arc<Presence>>) {
        self.presence = presence;
        self.weigh();
    }

    fn weigh(&self) {
        let Some(presence) = &self.presence else { return };
        let cells: usize = self.cells.iter().map(|(name, value)| name.len() + value.len()).sum();
        presence.weigh((cells + self.saved.as_ref().map_or(0, Vec::len)) as u64);
    }

    /// Whether an entity that has nothing to do before `due` is to end, for others wait for its place.
    fn rests(&self, due: Option<Timestamp>) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.rest(self.now(), due))
    }

    /// Waits until every turn so far is on disk, synced.
    pub(super) async fn synced(&mut self) -> Result<(), StoreError> {
        let Some(last) = &self.last else { return Ok(()) };
        self.runtime.ledger.store().flush_soon();
        self.runtime.ledger.durable(last).await
    }

    async fn wait_for_room(&mut self) -> Result<(), Ending> {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        if cfg!(steadfast_bug = "overfill_without_waiting") {
            return Ok(());
        }
        let store = self.runtime.ledger.store();
        self.overfilled.retain(|target| *target != self.mailbox.id && store.over_limit(*target).is_some());
        while let Some(room) = self.overfilled.last().and_then(|target| store.over_limit(*target)) {
            let full_too =
                store.over_limit(self.mailbox.id).is_some() && !cfg!(steadfast_bug = "wait_in_a_cycle");
            if full_too || *self.control.borrow() >= Control::Stop {
                // a cycle of full mailboxes must keep moving
                break;
            }
            if let Some(error) = store.failure() {
                return Err(error.into());
            }
            store.flush_soon();
            let _ = tokio::time::timeout(LOOK_AGAIN, room.rung()).await;
            self.overfilled.retain(|target| store.over_limit(*target).is_some());
        }
        Ok(())
    }

    /// After a failed turn the actor is made anew; a factory that panics then is the supervisor's affair, in a group that of the other
    /// members, and without either asked again a second later.
    async fn wait_for_actor(&mut self) -> Result<(), Ending> {
        while self.actor.is_none() {
            let failed = match self.make_actor() {
                Ok(()) => match self.hook(Hook::Restarted).await {
                    Ok(()) => return Ok(()),
                    Err(Unhooked::Failed(failed)) => failed,
                    Err(Unhooked::Ending(ending)) => return Err(ending),
                },
                Err(Unmade::Panicked(why)) => Failed::unmade(FailureClass::Panic, why),
                Err(Unmade::Unreadable(why)) => Failed::unmade(FailureClass::Error, why.to_string()),
            };
            self.not_ready(failed).await?;
        }
        Ok(())
    }

    /// The actor could not be made.
    async fn not_ready(&mut self, failed: Failed) -> Result<(), Ending> {
        if self.link.is_some() || self.is_member {
            return Err(Ending::Failed(failed));
        }
        let why = failed.why;
        tracing::error!(actor = %self.mailbox.name, %why, "the actor cannot be made; trying again");
        let again = self.now().after(Duration::from_secs(1));
        let mut control = self.control.clone();
        tokio::select! {
            biased;
            () = self.runtime.ledger.clock().sleep_until(again) => Ok(()),
            _ = control.wait_for(|control| *control >= Control::Stop) => Err(Ending::Asked),
        }
    }

    async fn wait_for_mail(&mut self) -> Result<(), Ending> {
        let store = self.runtime.ledger.store();
        store.flush_soon();
        if let Some(error) = store.failure() {
            return Err(error.into());
        }
        let due = self.front.due();
        let clock = self.runtime.ledger.clock();
        let retry = async {
            match due {
                Some(due) => clock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let mut control = self.control.clone();
        control.mark_unchanged();
        let now = *self.control.borrow_and_update();
        if now >= Control::Stop || (now == Control::Drain && self.front.is_idle()) {
            // asked between the look and here: `step` looks at it again
            return Ok(());
        }
        if self.rests(due) {
            return Err(Ending::Asked);
        }
        tokio::select! {
            biased;
            () = self.front.woken(&self.mailbox) => self.front.look_again(),
            () = retry => {}
            _ = control.changed() => self.front.look_again(),
        }
        if let Some(presence) = &self.presence {
            presence.work();
        }
        Ok(())
    }

    /// Tells the observer how much waits, and for how long the oldest has: now and then, for it takes the store's lock.
    fn report_waiting(&mut self, oldest: Option<Duration>) {
        self.reported = self.reported.wrapping_add(1);
        if self.reported % TURNS_AT_ONCE != 1 {
            return;
        }
        if let Some((count, _)) = self.runtime.ledger.store().depth(self.mailbox.id) {
            self.runtime.observer.event(&Event::Waiting { actor: &self.mailbox.name, count, oldest });
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.runtime.ledger.clock().now()
    }
}

/// All workers of a mailbox have ended, unless it is another incarnation's by now: what lies in memory goes, and who cannot be answered any more is told.
pub(super) fn tidy<A: Actor>(runtime: &Runtime, mailbox: &Mailbox<A>, exit: &Exit) {
    if matches!(exit, Exit::Replaced) {
        return;
    }
    mailbox.clear();
    if runtime.is_closing() || matches!(exit, Exit::StoreFailed) {
        mailbox.lose_askers();
    }
    for lane in 0..LANES {
        mailbox.set_blocked_until(lane, Timestamp::default());
    }
}

enum Unmade {
    Panicked(String),
    Unreadable(StateError),
}

/// The plain cells of an actor: few, and read at every start.
fn load_cells(store: &Store, mailbox: MailboxId) -> Result<Cells, StoreError> {
    let prefix = keys::cells(mailbox);
    let stored = store.scan(&prefix, &keys::after_prefix(&prefix), usize::MAX)?;
    let name = |key: &[u8]| String::from_utf8_lossy(key.get(prefix.len() + 1..).unwrap_or(&[])).into_owned();
    Ok(stored.into_iter().map(|(key, value)| (name(&key), value)).collect())
}
