//! The task of one actor: takes letters in order and runs a turn for each, until it is asked to end or the store fails.
//!
//! # Invariants
//! - One worker at a time reads a mailbox: a new one starts only when the old one's task has ended.
//! - Turns are committed in the order in which they ran. A worker does not wait for its own last turn to be synced, but at most
//!   [`UNSYNCED`] of its turns are not.
//! - In strict order a letter that is to be tried again holds up those behind it, and only those of its priority.
//! - A worker whose turn overfilled another mailbox starts no turn until there is room there, unless its own is over its limit.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::list::Decoder;
use super::mailbox::{Control, Intake, Letter, Mailbox};
use super::message::Actor;
use super::reply::ReplyLost;
use super::runtime::{AnyMailbox, Runtime};
use super::state::{Cells, State, WHOLE};
use super::turn::{drop_quietly, panic_text};
use crate::clock::Timestamp;
use crate::durable::Attempts;
use crate::envelope::MessageId;
use crate::error::{SpawnError, StateError};
use crate::observe::Event;
use crate::policy::RetryPolicy;
use crate::store::{Admitted, LANES, Limits, MailboxId, StoreError, keys};

/// The most turns of one worker that are not synced.
const UNSYNCED: usize = 1024;
/// After this many turns others on the same thread get theirs.
const TURNS_AT_ONCE: u32 = 64;

/// How a mailbox behaves.
#[derive(Debug, Clone)]
pub struct MailboxOptions {
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) strict: bool,
    pub(crate) count: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) park_changed: bool,
}

impl Default for MailboxOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl MailboxOptions {
    /// Strict order, [`RetryPolicy::strict`], the system's limits.
    pub const fn new() -> Self {
        MailboxOptions { retry: None, strict: true, count: None, bytes: None, park_changed: false }
    }

    /// Without order between a message that is tried again and those behind it: it does not hold them up. Retries follow
    /// [`RetryPolicy::unordered`] unless there is another policy.
    #[must_use]
    pub const fn unordered(mut self) -> Self {
        self.strict = false;
        self
    }

    /// When and how often a failed message is tried again.
    #[must_use]
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
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

    pub(crate) fn policy(&self) -> RetryPolicy {
        let usual = if self.strict { RetryPolicy::strict() } else { RetryPolicy::unordered() };
        self.retry.clone().unwrap_or(usual)
    }

    pub(crate) fn limits(&self, usual: Limits) -> Limits {
        Limits { count: self.count.unwrap_or(usual.count), bytes: self.bytes.unwrap_or(usual.bytes) }
    }
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
    pub(super) strict: bool,
    /// None while it has to be made anew.
    pub(super) actor: Option<A>,
    pub(super) cells: Cells,
    /// The whole struct as last committed.
    pub(super) saved: Option<Vec<u8>>,
    /// Messages that have failed and are not settled.
    pub(super) tried: HashMap<MessageId, Attempts>,
    factory: Factory<A>,
    intake: Intake<A>,
    /// Until when each priority is held up by a letter that is to be tried again.
    held: [Option<Timestamp>; LANES],
    unsynced: usize,
    last: Option<Admitted>,
    overfilled: Vec<MailboxId>,
}

impl<A: Actor> Worker<A> {
    /// Reads the actor's state and makes the actor. An error leaves everything as it was.
    pub(crate) async fn new(
        runtime: Arc<Runtime>,
        mailbox: Arc<Mailbox<A>>,
        factory: Factory<A>,
        options: &MailboxOptions,
    ) -> Result<Self, SpawnError> {
        let state = A::state();
        let cells = load_cells(&runtime, mailbox.id).await?;
        let tried = runtime.ledger.attempts(mailbox.id).await?.into_iter().collect();
        let incarnation = runtime.ledger.store().fence(mailbox.id);
        let unreadable = |why| SpawnError::State { mailbox: mailbox.name.to_string(), why };
        state.check(&runtime, &cells).map_err(unreadable)?;
        let control = mailbox.control.subscribe();
        let mut worker = Worker {
            runtime,
            mailbox: mailbox.clone(),
            control,
            incarnation,
            state,
            retry: options.policy(),
            strict: options.strict,
            actor: None,
            saved: cells.get(WHOLE).map(|bytes| bytes.to_vec()),
            cells,
            tried,
            factory,
            intake: Intake::new(),
            held: [None; LANES],
            unsynced: 0,
            last: None,
            overfilled: Vec::new(),
        };
        match worker.make_actor() {
            Ok(()) => Ok(worker),
            Err(Unmade::Panicked(why)) => Err(SpawnError::Factory { mailbox: mailbox.name.to_string(), why }),
            Err(Unmade::Unreadable(why)) => Err(unreadable(why)),
        }
    }

    /// Makes the actor from its factory and what was last committed.
    fn make_actor(&mut self) -> Result<(), Unmade> {
        let stored = self.state.load(&self.runtime, self.saved.as_deref()).map_err(Unmade::Unreadable)?;
        let actor = match stored {
            Some(actor) => actor,
            None => {
                let made = std::panic::catch_unwind(AssertUnwindSafe(|| (self.factory)()));
                made.map_err(|panic| Unmade::Panicked(panic_text(&*panic)))?
            }
        };
        self.actor = Some(actor);
        Ok(())
    }

    /// Runs until the end; the mailbox says so when it has come.
    pub(crate) async fn run(mut self) {
        let ending = self.work().await;
        if let Some(actor) = self.actor.take() {
            drop_quietly(actor);
        }
        match &ending {
            Ending::Store(why) => tracing::debug!(actor = %self.mailbox.name, %why, "ended with the store"),
            other => tracing::debug!(actor = %self.mailbox.name, ending = ?other, "ended"),
        }
        if let Some(last) = &self.last {
            // an orderly end leaves nothing unsynced behind; a failed store is reported by itself
            self.runtime.ledger.store().flush_soon();
            let _ = self.runtime.ledger.durable(last).await;
        }
        self.mailbox.clear();
        if self.runtime.is_closing() || matches!(ending, Ending::Store(_)) {
            self.mailbox.lose_askers();
        }
        for lane in 0..LANES {
            self.mailbox.set_blocked_until(lane, Timestamp::default());
        }
        // that it is not running says the claim on the mailbox, once this task is at its end: said here too, it could
        // be said of the next worker
    }

    async fn work(&mut self) -> Ending {
        let mut turns = 0;
        loop {
            if let Err(ending) = self.step().await {
                return ending;
            }
            turns += 1;
            if turns % TURNS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// One letter, or a wait for one.
    async fn step(&mut self) -> Result<(), Ending> {
        let control = *self.control.borrow();
        if control >= Control::Stop {
            return Err(Ending::Asked);
        }
        self.wait_for_room().await?;
        self.wait_for_actor().await?;
        match self.next_letter().await? {
            Some(letter) => self.turn(letter).await,
            None if control == Control::Drain && self.held.iter().all(Option::is_none) => Err(Ending::Asked),
            None => self.wait_for_mail().await,
        }
    }

    async fn next_letter(&mut self) -> Result<Option<Letter<A>>, Ending> {
        let now = self.now();
        if !cfg!(steadfast_bug = "look_late_for_higher_priorities") && self.mailbox.has_rung() {
            // what came while others were handled may be of a higher priority
            self.intake.look_again();
        }
        for lane in 0..LANES {
            let first = self.intake.first(lane);
            let cancelled = first.is_some_and(|place| self.mailbox.is_cancelled(place));
            if self.held[lane].is_some_and(|until| until > now) && !cancelled {
                continue;
            }
            if self.held[lane].take().is_some() {
                self.mailbox.set_blocked_until(lane, Timestamp::default());
            }
            let Some(letter) = self.intake.next(lane, &self.mailbox, &self.runtime.ledger).await? else {
                continue;
            };
            // after a restart: it failed before and its time has not come
            let due = self.tried.get(&letter.head.id).map(|attempts| attempts.not_before);
            match due.filter(|due| self.strict && *due > now && !cancelled) {
                Some(due) => self.hold(letter, due),
                None => return Ok(Some(letter)),
            }
        }
        Ok(self.mailbox.pop_volatile())
    }

    /// Keeps a letter as the next of its priority, not before `due`.
    pub(super) fn hold(&mut self, letter: Letter<A>, due: Timestamp) {
        let Some(place) = letter.place else { return };
        let lane = usize::from(place.log.lane);
        self.held[lane] = Some(due);
        self.mailbox.set_blocked_until(lane, due);
        if due > self.now() {
            for asker in self.intake.askers(lane).chain(self.mailbox.askers_in(lane)) {
                asker.lose(ReplyLost::Blocked(due));
            }
        }
        self.intake.put_back(letter);
    }

    /// A turn was committed: what it has others wait for, and what it waits for itself.
    pub(super) async fn committed(
        &mut self,
        commit: Admitted,
        targets: Vec<MailboxId>,
    ) -> Result<(), Ending> {
        self.overfilled = targets;
        self.unsynced += 1;
        if self.unsynced >= UNSYNCED {
            self.unsynced = 0;
            self.runtime.ledger.store().flush_soon();
            self.runtime.ledger.durable(&commit).await?;
        }
        self.last = Some(commit);
        Ok(())
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
            let _ = tokio::time::timeout(LOOK_AGAIN, room.notified()).await;
            self.overfilled.retain(|target| store.over_limit(*target).is_some());
        }
        Ok(())
    }

    /// After a failed turn the actor is made anew; a factory that panics then is asked again a second later.
    async fn wait_for_actor(&mut self) -> Result<(), Ending> {
        while self.actor.is_none() {
            let Err(unmade) = self.make_actor() else { break };
            let why = match unmade {
                Unmade::Panicked(why) => why,
                Unmade::Unreadable(why) => why.to_string(),
            };
            tracing::error!(actor = %self.mailbox.name, %why, "the actor cannot be made; trying again");
            let again = self.now().after(Duration::from_secs(1));
            let mut control = self.control.clone();
            tokio::select! {
                () = self.runtime.ledger.clock().sleep_until(again) => {}
                _ = control.wait_for(|control| *control >= Control::Stop) => return Err(Ending::Asked),
            }
        }
        Ok(())
    }

    async fn wait_for_mail(&mut self) -> Result<(), Ending> {
        let store = self.runtime.ledger.store();
        store.flush_soon();
        if let Some(error) = store.failure() {
            return Err(error.into());
        }
        let due = self.held.iter().flatten().min().copied();
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
        if now >= Control::Stop || (now == Control::Drain && due.is_none()) {
            // asked between the look and here: looked at again, with the mail that may have come before
            self.intake.look_again();
            let (count, _) = store.depth(self.mailbox.id).unwrap_or_default();
            return if now == Control::Drain && count > 0 { Ok(()) } else { Err(Ending::Asked) };
        }
        tokio::select! {
            () = self.mailbox.bell.notified() => self.intake.look_again(),
            () = retry => {}
            _ = control.changed() => self.intake.look_again(),
        }
        self.report_waiting();
        Ok(())
    }

    fn report_waiting(&self) {
        if let Some((count, _)) = self.runtime.ledger.store().depth(self.mailbox.id) {
            self.runtime.observer.event(&Event::Waiting { actor: &self.mailbox.name, count, oldest: None });
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.runtime.ledger.clock().now()
    }
}

enum Unmade {
    Panicked(String),
    Unreadable(StateError),
}

/// The plain cells of an actor: few, and read at every start.
async fn load_cells(runtime: &Runtime, mailbox: MailboxId) -> Result<Cells, StoreError> {
    let prefix = keys::cells(mailbox);
    let stored = runtime.ledger.scan(prefix.clone(), keys::after_prefix(&prefix), usize::MAX).await?;
    let name = |key: &[u8]| String::from_utf8_lossy(key.get(prefix.len() + 1..).unwrap_or(&[])).into_owned();
    Ok(stored.into_iter().map(|(key, value)| (name(&key), value)).collect())
}

/// The messages of an actor, checked for what the type system cannot see.
pub(crate) fn decoder<A: Actor>() -> Result<Decoder<A>, SpawnError> {
    Decoder::new().map_err(|twice| SpawnError::DuplicateMessage { actor: twice.actor, name: twice.name })
}
