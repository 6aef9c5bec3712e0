//! Who runs beside whom. After a process has ended without closing the store, what was in flight is suspect: such messages run
//! one at a time, and after a second such end within ten minutes nothing else runs beside one.
//!
//! # Invariants
//! - At most one suspect runs alone at any time, and that it does is on disk, synced, before its handler begins.
//! - What it did is on disk, synced, before the next one begins: one death is held against one message.
//! - While a turn waits for the reply of another actor it holds up nobody, and is not the one that runs alone.
//! - A suspect holds up others for at most [`ALONE`]; others that do not come to an end hold it up no longer than that. One that
//!   runs longer while another suspect waits has had its time, and is not the one that runs alone any more.
//! - Without suspects a turn costs one look at a number.

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::mailbox::{Control, Letter, Place};
use super::message::Actor;
use super::runtime::Handled;
use super::worker::{Ending, Worker};
use crate::clock::Deadline;
use crate::durable::{CommitRefused, DEATHS, Ledger, Reason, Stock, Suspicion};
use crate::envelope::MessageId;
use crate::error::Refused;
use crate::store::{Batch, Condition, MailboxId, Origin, StoreError, Urgency};

/// The longest time for which one suspect has the system to itself.
const ALONE: Duration = Duration::from_secs(30);

/// See the module's head.
pub(crate) struct Solo {
    suspects: Mutex<BTreeMap<(MailboxId, MessageId), Known>>,
    /// How many there are.
    left: AtomicUsize,
    /// Whether others wait while a suspect runs.
    nothing_beside: bool,
    /// Mailboxes that had a worker when the process ended itself.
    to_be_found_in: HashSet<MailboxId>,
    /// Who holds it runs alone.
    alone: Arc<Semaphore>,
    /// Who does, or did last.
    last: Mutex<Weak<Standing>>,
    gate: Mutex<Gate>,
    /// Told of every change of the gate, to whoever waits longest first.
    moved: Notify,
}

/// What is known of a suspect in this life.
#[derive(Debug, Clone, Copy)]
struct Known {
    suspicion: Suspicion,
    /// Its next run was put off once: not again.
    has_waited: bool,
}

/// What the suspects of the system are to a mailbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Concern {
    pub(super) has_suspects: bool,
    /// Its turns wait while a suspect of another mailbox runs.
    others_do: bool,
}

/// Who may begin.
#[derive(Debug, Default)]
struct Gate {
    /// Turns that run and are not alone.
    beside: usize,
    /// Until when nobody else begins.
    closed: Option<Deadline>,
}

impl Gate {
    /// Lets one more in, or says until when the gate is closed.
    fn come_in(&mut self) -> Option<Deadline> {
        let closed = self.closed.filter(|end| !end.has_passed());
        self.beside += usize::from(closed.is_none());
        closed
    }
}

impl Solo {
    pub(crate) fn new(stock: Stock) -> Self {
        let Stock { suspects, nothing_beside, life } = stock;
        let known = |suspicion| Known { suspicion, has_waited: false };
        Solo {
            left: AtomicUsize::new(suspects.len()),
            suspects: Mutex::new(suspects.into_iter().map(|(key, of)| (key, known(of))).collect()),
            nothing_beside,
            to_be_found_in: life.roll.iter().filter(|_| life.aborted).map(|entry| entry.mailbox).collect(),
            alone: Arc::new(Semaphore::new(1)),
            last: Mutex::default(),
            gate: Mutex::default(),
            moved: Notify::new(),
        }
    }

    /// Whether a message of this mailbox may have ended the process before. Turns of the mailbox that were not synced then run
    /// again, so it need not have been the first; which it is shows when the process ends again, if each is synced before the
    /// next begins.
    pub(super) fn is_careful(&self, mailbox: MailboxId) -> bool {
        self.to_be_found_in.contains(&mailbox)
    }

    /// Whether turns of a mailbox have to look who is suspect. What is not suspect when the store is opened never is in this life.
    pub(super) fn concerns(&self, mailbox: MailboxId) -> Concern {
        let first = (mailbox, MessageId::from_bytes([0; 16]));
        let has_suspects = self.suspects().range(first..).next().is_some_and(|(key, _)| key.0 == mailbox);
        Concern { has_suspects, others_do: self.nothing_beside }
    }

    /// Whether nobody is suspect any more: in this life nobody will be.
    fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// What is held against a message.
    pub(super) fn suspicion(&self, mailbox: MailboxId, id: MessageId) -> Option<Suspicion> {
        if self.is_over() {
            return None;
        }
        self.suspects().get(&(mailbox, id)).map(|known| known.suspicion)
    }

    /// The message is settled, or has shown that it kills nobody.
    pub(crate) fn forget(&self, mailbox: MailboxId, id: MessageId) {
        let mut suspects = self.suspects();
        suspects.remove(&(mailbox, id));
        self.left.store(suspects.len(), Ordering::Release);
    }

    fn keep(&self, mailbox: MailboxId, id: MessageId, suspicion: Suspicion) {
        if let Some(known) = self.suspects().get_mut(&(mailbox, id)) {
            known.suspicion = suspicion;
        }
    }

    /// True the first time it is asked of a message in this life.
    fn puts_off(&self, mailbox: MailboxId, id: MessageId) -> bool {
        let mut suspects = self.suspects();
        suspects.get_mut(&(mailbox, id)).is_some_and(|known| !std::mem::replace(&mut known.has_waited, true))
    }

    fn suspects(&self) -> MutexGuard<'_, BTreeMap<(MailboxId, MessageId), Known>> {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to run a turn that is not suspect.
    async fn beside(self: &Arc<Self>) -> Pass {
        if !self.nothing_beside || self.is_over() || cfg!(steadfast_bug = "run_others_beside_a_suspect") {
            return Pass::default();
        }
        self.come_in().await;
        Pass(Some(Arc::new(Standing { solo: self.clone(), is_in: AtomicBool::new(true), alone: None })))
    }

    async fn come_in(&self) {
        loop {
            let mut moved = pin!(self.moved.notified());
            // before the look: what changes after it is heard
            moved.as_mut().enable();
            let Some(end) = lock(&self.gate).come_in() else { return };
            let _ = end.limit(moved).await;
        }
    }

    fn go_out(&self) {
        lock(&self.gate).beside -= 1;
        self.moved.notify_waiters();
    }

    async fn nobody_is_beside(&self) {
        loop {
            let mut moved = pin!(self.moved.notified());
            moved.as_mut().enable();
            if lock(&self.gate).beside == 0 {
                return;
            }
            moved.await;
        }
    }

    /// Waits until nobody runs alone. Who did for longer than its time, while this waits, does not any more.
    async fn take_turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        loop {
            // not held while this waits: with its last holder goes its right to run
            let until = lock(&self.last).upgrade().and_then(|last| last.time_left());
            let patience = until.unwrap_or_else(|| Deadline::after(LOOK_AGAIN));
            if let Some(Ok(permit)) = patience.limit(self.alone.clone().acquire_owned()).await {
                return Ok(permit);
            }
            let last = lock(&self.last).upgrade();
            if let Some(last) = last.filter(|last| last.time_left().is_none()) {
                Pass(Some(last)).step_aside().await?;
            }
        }
    }

    /// Keeps others from beginning, and waits for those that have.
    async fn close(&self, until: Deadline) {
        if !self.nothing_beside {
            return;
        }
        lock(&self.gate).closed = Some(until);
        if until.limit(self.nobody_is_beside()).await.is_none() {
            tracing::warn!("other turns do not come to an end: a suspect message runs beside them");
        }
    }

    fn open(&self) {
        if self.nothing_beside {
            lock(&self.gate).closed = None;
            self.moved.notify_waiters();
        }
    }
}

/// The right to run one turn. It ends when its last clone is dropped. The default is that of a time without suspects.
#[derive(Clone, Default)]
pub(crate) struct Pass(Option<Arc<Standing>>);

pub(crate) struct Standing {
    solo: Arc<Solo>,
    is_in: AtomicBool,
    alone: Option<Alone>,
}

/// A suspect that runs alone.
struct Alone {
    ledger: Ledger,
    mailbox: MailboxId,
    id: MessageId,
    place: Place,
    until: Deadline,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Pass {
    /// To be called before a turn waits for another actor, whose turn may have to wait for this one.
    pub(super) async fn step_aside(&self) -> Result<(), StoreError> {
        let Some(standing) = &self.0 else { return Ok(()) };
        if let Some(alone) = standing.alone.as_ref().filter(|_| standing.is_in.load(Ordering::Acquire)) {
            let suspicion = standing.solo.suspicion(alone.mailbox, alone.id);
            if let Some(suspicion) = suspicion {
                alone.write(&standing.solo, suspicion.broken_off()).await?;
            }
        }
        standing.leave();
        Ok(())
    }

    /// To be called when it goes on.
    pub(super) async fn come_back(&self) -> Result<(), StoreError> {
        let Some(standing) = &self.0 else { return Ok(()) };
        match &standing.alone {
            Some(alone) => {
                *lock(&alone.permit) = Some(standing.solo.take_turn().await?);
                *lock(&standing.solo.last) = Arc::downgrade(standing);
                standing.is_in.store(true, Ordering::Release);
                // what is left of its time
                standing.solo.close(alone.until).await;
                if let Some(suspicion) = standing.solo.suspicion(alone.mailbox, alone.id) {
                    alone.write(&standing.solo, Suspicion { running: true, ..suspicion }).await?;
                }
            }
            None => {
                standing.solo.come_in().await;
                standing.is_in.store(true, Ordering::Release);
            }
        }
        Ok(())
    }
}

impl Standing {
    /// Until when it may run alone while others wait to, if that is still to come.
    fn time_left(&self) -> Option<Deadline> {
        self.alone.as_ref().map(|alone| alone.until).filter(|until| !until.has_passed())
    }

    fn leave(&self) {
        if !self.is_in.swap(false, Ordering::AcqRel) {
            return;
        }
        match &self.alone {
            Some(alone) => {
                self.solo.open();
                drop(lock(&alone.permit).take());
            }
            None => self.solo.go_out(),
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Alone {
    /// Writes what is held against the message, synced.
    async fn write(&self, solo: &Solo, suspicion: Suspicion) -> Result<Written, StoreError> {
        let (mailbox, id) = (self.mailbox, self.id);
        let mut batch = Batch::default();
        // numbers: they can always be encoded
        let _ = suspicion.put(mailbox, id, &mut batch);
        batch.require(Condition::Waiting { log: self.place.log, position: self.place.position });
        match self.ledger.commit(&mut batch, Origin::Inside, Urgency::Now).await {
            Ok(commit) => {
                if !cfg!(steadfast_bug = "run_alone_before_it_is_on_disk") {
                    self.ledger.durable(&commit).await?;
                }
                solo.keep(mailbox, id, suspicion);
                Ok(Written::Yes)
            }
            Err(CommitRefused::Refused(Refused::Store(why))) => Err(why),
            // it was cancelled
            Err(_) => Ok(Written::Gone),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Written {
    Yes,
    Gone,
}

impl<A: Actor> Worker<A> {
    /// Whether the suspects of the system are anything to this worker.
    pub(super) fn is_concerned(&self) -> bool {
        let Concern { has_suspects, others_do } = self.concern;
        (has_suspects || others_do) && !self.runtime.solo.is_over()
    }

    /// A turn among those of the others: beside them, or alone when its letter is suspect.
    pub(super) async fn turn_among_others(&mut self, letter: Letter<A>) -> Result<(), Ending> {
        if !self.is_concerned() {
            return self.turn(letter).await;
        }
        let (mailbox, id) = (self.mailbox.id, letter.head.id);
        let solo = self.runtime.solo.clone();
        let held_against = letter.place.zip(solo.suspicion(mailbox, id));
        let Some((place, suspicion)) = held_against else {
            self.pass = match self.unless_ended(solo.beside()).await {
                Ok(pass) => pass,
                Err(ending) => {
                    if letter.place.is_none() {
                        self.runtime.ended(id, Handled::Lost, None);
                    }
                    return Err(ending);
                }
            };
            let ended = self.turn(letter).await;
            self.pass = Pass::default();
            return ended;
        };
        if suspicion.is_condemned() {
            let Suspicion { deaths, .. } = suspicion;
            let why = format!("it ended the process {deaths} times while it ran alone");
            return self.bury_unread(letter, Reason::KilledTheProcess { deaths }, why).await;
        }
        if let Some(wait) = suspicion.waits()
            && solo.puts_off(mailbox, id)
        {
            tracing::warn!(actor = %self.mailbox.name, message = %id, unexplained = suspicion.unexplained, ?wait,
                "the process has ended again and again while this message was in flight: others are handled first");
            self.hold(letter, self.now().after(wait));
            return Ok(());
        }
        self.turn_alone(letter, place, suspicion).await
    }

    async fn turn_alone(
        &mut self,
        letter: Letter<A>,
        place: Place,
        suspicion: Suspicion,
    ) -> Result<(), Ending> {
        let (mailbox, id) = (self.mailbox.id, letter.head.id);
        let solo = self.runtime.solo.clone();
        let permit = self.unless_ended(solo.take_turn()).await??;
        let until = Deadline::after(ALONE);
        let alone = Alone {
            ledger: self.runtime.ledger.clone(),
            mailbox: self.mailbox.id,
            id,
            place,
            until,
            permit: Mutex::new(Some(permit)),
        };
        let standing = Standing { solo: solo.clone(), is_in: AtomicBool::new(true), alone: Some(alone) };
        let standing = Arc::new(standing);
        *lock(&solo.last) = Arc::downgrade(&standing);
        let pass = Pass(Some(standing));
        let Some(alone) = pass.alone() else { return Ok(()) };
        self.unless_ended(solo.close(until)).await?;
        let Suspicion { deaths, unexplained, .. } = suspicion;
        if deaths + unexplained > 0 {
            tracing::warn!(actor = %self.mailbox.name, message = %id, deaths, unexplained,
                "the process has ended while it ran alone: it runs alone again, and after {DEATHS} deaths goes to the dead letters");
        } else {
            tracing::info!(actor = %self.mailbox.name, message = %id, "it was in flight when the process ended: it runs alone");
        }
        if !cfg!(steadfast_bug = "count_a_run_after_it")
            && alone.write(&solo, suspicion.run()).await? == Written::Gone
        {
            solo.forget(mailbox, id);
            return Ok(());
        }
        self.pass = pass.clone();
        let ended = self.turn(letter).await;
        self.pass = Pass::default();
        match (solo.suspicion(mailbox, id), &ended) {
            // settled
            (None, _) => self.synced().await?,
            // it is another incarnation's by now
            (Some(_), Err(Ending::Fenced)) => {}
            (Some(held), Err(Ending::Asked | Ending::NoActor)) => {
                alone.write(&solo, held.broken_off()).await?;
            }
            (Some(held), _) => match held.survived() {
                Some(held) => {
                    alone.write(&solo, held).await?;
                }
                None => self.acquit(id).await?,
            },
        }
        ended
    }

    /// Its handler came to an end, and nothing is held against it.
    async fn acquit(&mut self, id: MessageId) -> Result<(), Ending> {
        let mut batch = Batch::default();
        Suspicion::delete(self.mailbox.id, id, &mut batch);
        match self.runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Now).await {
            Ok(commit) => self.runtime.ledger.durable(&commit).await?,
            Err(CommitRefused::Refused(Refused::Store(why))) => return Err(why.into()),
            // what is left there is found to have no run that has not ended, or goes with the message
            Err(_) => {}
        }
        self.runtime.solo.forget(self.mailbox.id, id);
        Ok(())
    }

    /// What the future gives, unless the actor is asked to end before.
    async fn unless_ended<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Ending> {
        let mut control = self.control.clone();
        tokio::select! {
            biased;
            given = what => Ok(given),
            _ = control.wait_for(|control| *control >= Control::Stop) => Err(Ending::Asked),
        }
    }
}

impl Pass {
    fn alone(&self) -> Option<&Alone> {
        self.0.as_ref()?.alone.as_ref()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
