//! A turn: one letter handled. Attempt runs the handler; settle decides what becomes of the letter; commit makes the ack, the
//! state, the sends, the timers and the reply one batch.
//!
//! # Invariants
//! - A letter leaves its mailbox only in the commit that carries its effects, or the reason why there are none.
//! - A failed attempt leaves its error and nothing else: effects exist only as what a successful attempt returned.
//! - Only the handler's own failures count as attempts: not a stop, a cancellation or the store.
//! - After anything but a committed success the actor is made anew: no letter meets a half-changed one.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tracing::Instrument;

use super::context::{Context, Effects, Settling, Turn};
use super::failure::Failure;
use super::list::{List, MessageList, SumOf};
use super::mailbox::{Body, Control, Letter, Place};
use super::message::{Actor, Undecodable};
use super::reply::{Answered, Asker, KeepReply, ReplyLost};
use super::runtime::{Handled, IN_TURN};
use super::state::WorkingCopy;
use super::worker::{Ending, Worker};
use crate::clock::Stopwatch;
use crate::durable::{Attempt, Attempts, Burial, CommitRefused, DeadLetters, Outcome, Reason, Scheduled};
use crate::envelope;
use crate::error::Refused;
use crate::observe::{Event, TurnOutcome};
use crate::policy::{Verdict, Wish};
use crate::store::{Admitted, Batch, Condition, MailboxId, Origin, StoreError, Urgency, keys};

/// What an attempt came to.
enum Attempted {
    /// The handler succeeded. Only here are there effects.
    Done(Box<Done>),
    /// The handler failed or panicked.
    Failed(Failure),
    /// The actor is to end now: the turn is thrown away.
    Parked,
}

/// A success, not yet committed.
struct Done {
    answered: Answered,
    effects: Effects,
    copy: WorkingCopy,
    whole: Option<Vec<u8>>,
}

/// How a commit went.
enum Committed {
    /// It was admitted; these mailboxes got mail.
    Yes(Admitted, Vec<MailboxId>),
    /// The letter was settled by something else.
    Gone,
    /// The turn itself cannot be committed, such as being too large: the handler's fault.
    Impossible(Refused),
}

/// What is left of a letter while its body is with the handler.
struct Stub {
    place: Option<Place>,
    head: super::mailbox::Head,
    asker: Option<Asker>,
}

impl<A: Actor> Worker<A> {
    /// Handles one letter to an end, or puts it back.
    pub(super) async fn turn(&mut self, letter: Letter<A>) -> Result<(), Ending> {
        let Letter { place, head, body, asker } = letter;
        let stub = Stub { place, head, asker };
        if place.is_some_and(|place| self.mailbox.was_cancelled(place)) {
            self.tried.remove(&stub.head.id);
            return Ok(());
        }
        if stub.head.expires.is_some_and(|expires| self.now() >= expires)
            && !cfg!(steadfast_bug = "handle_what_expired")
        {
            return self.expire(stub).await;
        }
        let sum = match self.decode(body) {
            Ok(sum) => sum,
            Err(_) if cfg!(steadfast_bug = "wait_for_what_cannot_be_decoded") => {
                let Some(place) = place else { return Ok(()) };
                return self.put_back(stub, place, self.now().after(Duration::from_secs(30))).await;
            }
            Err(why) => return self.bury(stub, Reason::Undecodable(why.to_string()), why.to_string()).await,
        };
        let began = Stopwatch::start();
        let message = self.mailbox.decoder.kind_of(&sum).name;
        let outcome = match self.attempt(&stub, sum).await? {
            Attempted::Done(done) => self.settle_success(stub, done).await?,
            Attempted::Failed(failure) => self.settle_failure(stub, failure).await?,
            Attempted::Parked => {
                if stub.place.is_none() {
                    self.runtime.ended(stub.head.id, Handled::Lost, None);
                }
                return Err(Ending::Asked);
            }
        };
        self.runtime.observer.event(&Event::Turn {
            actor: &self.mailbox.name,
            message,
            outcome,
            took: began.elapsed(),
        });
        Ok(())
    }

    fn decode(&self, body: Body<A>) -> Result<SumOf<A>, Undecodable> {
        match body {
            Body::Decoded(sum) => Ok(sum),
            Body::Sealed(sealed) => {
                let opened = envelope::open(&sealed).map_err(|why| Undecodable::Malformed {
                    name: "envelope".into(),
                    version: 0,
                    why: why.to_string(),
                })?;
                // user code: an upcast may panic, and so may a `Deserialize`
                let decoder = &self.mailbox.decoder;
                let decode = || decoder.decode(opened.name, opened.version, opened.shape, opened.body);
                std::panic::catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
                    let (name, version) = (opened.name.to_owned(), opened.version);
                    Err(Undecodable::Malformed { name, version, why: panic_text(&*panic) })
                })
            }
        }
    }

    async fn attempt(&mut self, stub: &Stub, mut sum: SumOf<A>) -> Result<Attempted, Ending> {
        if let Some(asker) = &stub.asker {
            A::Messages::attach(&mut sum, asker);
        }
        let attempt = self.tried.get(&stub.head.id).map_or(1, |attempts| attempts.count + 1);
        let mut control = self.control.clone();
        let cells = std::mem::take(&mut self.cells);
        let mut context = Context::new(Turn {
            runtime: &self.runtime,
            mailbox: self.mailbox.id,
            name: &self.mailbox.name,
            head: stub.head.clone(),
            attempt,
            copy: WorkingCopy::new(cells),
            control: self.control.clone(),
        });
        let keep = if stub.head.mark.is_some() { KeepReply::Encoded } else { KeepReply::No };
        let mut actor = match self.actor.take() {
            Some(actor) => actor,
            None => return Err(Ending::NoActor),
        };
        let ran = {
            let span =
                tracing::debug_span!("turn", actor = %self.mailbox.name, message = %stub.head.id, attempt);
            let handler = IN_TURN
                .scope((), A::Messages::dispatch(sum, &mut actor, &mut context, keep))
                .instrument(span);
            let handler = AssertUnwindSafe(handler).catch_unwind();
            tokio::select! {
                biased;
                ran = self.flushing_when_it_waits(handler) => Some(ran),
                _ = control.wait_for(|control| *control == Control::Park) => None,
            }
        };
        let Context { effects, copy, .. } = context;
        let attempted = match ran {
            Some(Ok(Ok(answered))) => match self.state.save(&self.runtime, &actor) {
                Ok(whole) => {
                    self.actor = Some(actor);
                    return Ok(Attempted::Done(Box::new(Done { answered, effects, copy, whole })));
                }
                Err(why) => Attempted::Failed(Failure::from(why).terminal()),
            },
            Some(Ok(Err(failure))) => Attempted::Failed(failure),
            Some(Err(panic)) => Attempted::Failed(Failure::new(panic_text(&*panic))),
            None if cfg!(steadfast_bug = "count_a_park") => Attempted::Failed(Failure::new("parked")),
            None => Attempted::Parked,
        };
        // the working copy and the actor go; what was committed stays
        self.cells =
            if cfg!(steadfast_bug = "keep_state_of_a_failed_turn") { copy.committed() } else { copy.cells };
        if cfg!(steadfast_bug = "send_from_a_failed_turn") {
            let (mailbox, name, incoming) = (self.mailbox.id, &*self.mailbox.name, stub.head.id);
            let settling = Settling { runtime: &self.runtime, mailbox, name, incoming };
            let mut batch = Batch::default();
            let _ = effects.settle(&settling, &mut batch).await;
            let _ = self.runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await;
        }
        if cfg!(steadfast_bug = "keep_the_actor_after_a_failure") {
            self.actor = Some(actor);
        } else {
            drop_quietly(actor);
        }
        Ok(attempted)
    }

    /// Runs the handler. When it waits, turns that were committed before and not yet asked to be synced are.
    async fn flushing_when_it_waits<T>(&mut self, handler: impl Future<Output = T>) -> T {
        let mut handler = pin!(handler);
        let mut flushed = false;
        std::future::poll_fn(|cx| {
            let polled = handler.as_mut().poll(cx);
            if polled.is_pending() && !std::mem::replace(&mut flushed, true) {
                self.runtime.ledger.store().flush_soon();
            }
            polled
        })
        .await
    }

    async fn settle_success(&mut self, stub: Stub, mut done: Box<Done>) -> Result<TurnOutcome, Ending> {
        let stored = done.answered.take_stored();
        match self.commit_success(&stub, &done, stored.as_deref()).await? {
            Committed::Yes(commit, targets) => {
                let Done { answered, effects, copy, whole } = *done;
                self.cells = copy.committed();
                self.saved = whole.or(self.saved.take());
                self.tried.remove(&stub.head.id);
                if effects.schedules() {
                    self.runtime.scheduled.notify_one();
                }
                if let (Some(_), Some(reply)) = (stub.head.mark, stored) {
                    self.runtime.kept(stub.head.id, &Outcome::Replied(reply), Some(&commit));
                }
                answered.release(Some(commit.clone()));
                self.runtime.ended(stub.head.id, Handled::Done, Some(&commit));
                self.committed(commit, targets).await?;
                Ok(TurnOutcome::Done)
            }
            Committed::Gone => {
                self.cells = done.copy.cells;
                self.actor = None;
                Ok(TurnOutcome::Discarded)
            }
            Committed::Impossible(why) => {
                self.cells = std::mem::take(&mut done.copy.cells);
                self.actor = None;
                let why = Failure::new(format!("the turn cannot be committed: {why}"));
                Box::pin(self.settle_failure(stub, why)).await
            }
        }
    }

    /// One batch for all a turn did. A condition that no longer holds, such as a dedup id taken meanwhile, has it made again.
    async fn commit_success(
        &mut self,
        stub: &Stub,
        done: &Done,
        reply: Option<&[u8]>,
    ) -> Result<Committed, Ending> {
        loop {
            let mut batch = Batch::default();
            let settling = Settling {
                runtime: &self.runtime,
                mailbox: self.mailbox.id,
                name: &self.mailbox.name,
                incoming: stub.head.id,
            };
            let targets = match done.effects.settle(&settling, &mut batch).await {
                Ok(targets) => targets,
                Err(Refused::Store(why)) => return Err(why.into()),
                Err(why) => return Ok(Committed::Impossible(why)),
            };
            done.copy.settle(self.mailbox.id, &mut batch);
            if let Some(whole) = done.whole.as_ref().filter(|whole| self.saved.as_ref() != Some(whole)) {
                batch.put_bytes(keys::cell(self.mailbox.id, super::state::WHOLE, &[]), whole);
            }
            if let Some(reply) = reply {
                self.keep_outcome(stub, Outcome::Replied(reply.to_vec()), &mut batch).await?;
            }
            if self.tried.contains_key(&stub.head.id) {
                Attempts::delete(self.mailbox.id, stub.head.id, &mut batch);
            }
            match self.commit(stub, batch, true).await? {
                Some(Committed::Yes(commit, _)) => return Ok(Committed::Yes(commit, targets)),
                Some(other) => return Ok(other),
                None => {}
            }
        }
    }

    /// Adds what settles the letter, and commits. None: a key changed, make the batch again.
    async fn commit(
        &mut self,
        stub: &Stub,
        mut batch: Batch,
        settles: bool,
    ) -> Result<Option<Committed>, Ending> {
        if let Some(place) = stub.place {
            if cfg!(steadfast_bug = "commit_effects_without_ack") {
                // planted: the letter stays although its effects are committed
            } else if settles {
                batch.settle(place.log, place.position, place.len);
            } else {
                batch.require(Condition::Waiting { log: place.log, position: place.position });
            }
        }
        let (mailbox, incarnation) = (self.mailbox.id, self.incarnation);
        batch.require(Condition::Incarnation { mailbox, incarnation });
        match self.runtime.ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
            Ok(commit) => Ok(Some(Committed::Yes(commit, Vec::new()))),
            Err(CommitRefused::Gone) => Ok(Some(Committed::Gone)),
            Err(CommitRefused::Key(_)) => Ok(None),
            Err(CommitRefused::Fenced) => Err(Ending::Fenced),
            Err(CommitRefused::Refused(Refused::Store(why))) => Err(why.into()),
            Err(CommitRefused::Refused(why)) => Ok(Some(Committed::Impossible(why))),
            Err(CommitRefused::Full { .. }) => Ok(Some(Committed::Impossible(Refused::Busy))),
        }
    }

    /// Adds the outcome to the mark that keeps it, if the message has one.
    async fn keep_outcome(
        &mut self,
        stub: &Stub,
        outcome: Outcome,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let Some(hash) = stub.head.mark else { return Ok(()) };
        let mailbox = self.mailbox.id;
        let Some(mut mark) = self.runtime.ledger.mark(mailbox, hash).await? else { return Ok(()) };
        mark.outcome = outcome;
        // a reply was encoded before, so this cannot fail
        let _ = mark.put(mailbox, hash, batch);
        Ok(())
    }

    async fn settle_failure(&mut self, stub: Stub, failure: Failure) -> Result<TurnOutcome, Ending> {
        if !cfg!(steadfast_bug = "keep_the_actor_after_a_failure") {
            self.actor = None;
        }
        let (now, error, wish) = (self.now(), failure.text().to_owned(), failure.wish());
        tracing::warn!(actor = %self.mailbox.name, message = %stub.head.id, %error, "the handler failed");
        let Some(place) = stub.place else {
            // a volatile message has one attempt
            lose(&stub, ReplyLost::Failed(error));
            self.runtime.ended(stub.head.id, Handled::Lost, None);
            return Ok(TurnOutcome::Buried);
        };
        let mut attempts = self.tried.get(&stub.head.id).cloned().unwrap_or_default();
        if wish != Wish::Release || cfg!(steadfast_bug = "count_a_release") {
            let trace = stub.head.headers.get("traceparent").map(str::to_owned);
            attempts.add(Attempt { at: now, error: error.clone(), trace });
        }
        let chance = self.runtime.ledger.clock().random();
        match self.retry.on_failure(attempts.count, wish, now, chance) {
            Verdict::Bury => {
                let reason = if wish == Wish::Terminal { Reason::Terminal } else { Reason::AttemptsUsedUp };
                self.tried.insert(stub.head.id, attempts);
                self.bury(stub, reason, error).await?;
                Ok(TurnOutcome::Buried)
            }
            Verdict::RetryAt(at) => {
                attempts.not_before = at;
                self.try_later(stub, place, attempts, true).await?;
                Ok(TurnOutcome::Retried)
            }
            Verdict::ReleaseUntil(at) => {
                attempts.not_before = at;
                self.try_later(stub, place, attempts, false).await?;
                Ok(TurnOutcome::Released)
            }
        }
    }

    /// In strict order the letter stays where it is and holds up what is behind it; without order it goes on the schedule.
    async fn try_later(
        &mut self,
        stub: Stub,
        place: Place,
        attempts: Attempts,
        counts: bool,
    ) -> Result<(), Ending> {
        let due = attempts.not_before;
        let id = stub.head.id;
        let mut batch = Batch::default();
        if counts && !cfg!(steadfast_bug = "forget_attempts") {
            // errors are cut to a bounded text, so this cannot fail
            let _ = attempts.put(self.mailbox.id, id, &mut batch);
        }
        if !self.strict {
            let envelope = self.sealed(place).await?.to_vec();
            let _ = Scheduled { target: place.log, envelope }.put(due, id, &mut batch);
        }
        let committed = match self.strict && !counts {
            // nothing to write: that it was released is forgotten with the process
            true => None,
            false => self.commit(&stub, batch, !self.strict).await?,
        };
        match committed {
            Some(Committed::Gone) => {
                // cancelled while its handler ran: it holds up nobody
                self.tried.remove(&id);
            }
            Some(Committed::Yes(..)) if !self.strict => {
                self.tried.insert(id, attempts);
                if let Some(asker) = stub.asker {
                    self.mailbox.quick().remember_asker(id, usize::from(place.log.lane), asker);
                }
                self.runtime.scheduled.notify_one();
            }
            _ => {
                self.tried.insert(id, attempts);
                self.put_back(stub, place, due).await?;
            }
        }
        Ok(())
    }

    /// Leaves the letter where it is, to be the next of its priority, not before `due`.
    async fn put_back(
        &mut self,
        stub: Stub,
        place: Place,
        due: crate::clock::Timestamp,
    ) -> Result<(), Ending> {
        let sealed = self.sealed(place).await?;
        let Stub { place, head, asker } = stub;
        self.hold(Letter { place, head, body: Body::Sealed(sealed), asker }, due);
        Ok(())
    }

    /// The sealed bytes of a letter that still waits.
    async fn sealed(&mut self, place: Place) -> Result<crate::store::Slice, Ending> {
        let letters = self.runtime.ledger.letters(place.log, place.position, 1, 1).await?;
        let here = letters.into_iter().find(|letter| letter.position == place.position);
        // cancelled meanwhile: an empty envelope is never handled, its place is gone
        Ok(here.map_or_else(crate::store::Slice::empty, |letter| letter.envelope))
    }

    async fn bury(&mut self, stub: Stub, reason: Reason, error: String) -> Result<(), Ending> {
        let Some(place) = stub.place else {
            lose(&stub, ReplyLost::Failed(error));
            return Ok(());
        };
        let mut attempts = self.tried.get(&stub.head.id).cloned().unwrap_or_default();
        let committed = loop {
            match self.commit_burial(&stub, place, &reason, &attempts, &error).await? {
                // too large for one commit: the oldest errors go first, the message never
                Some(Committed::Impossible(_)) if !attempts.last.is_empty() => {
                    attempts.last.drain(..attempts.last.len().div_ceil(2));
                }
                Some(Committed::Impossible(why)) => {
                    const TRY_AGAIN: Duration = Duration::from_secs(30);
                    tracing::error!(actor = %self.mailbox.name, %why, "a message cannot be moved to the dead letters");
                    return self.put_back(stub, place, self.now().after(TRY_AGAIN)).await;
                }
                committed => break committed,
            }
        };
        self.tried.remove(&stub.head.id);
        if let Some(Committed::Yes(commit, _)) = committed {
            tracing::error!(actor = %self.mailbox.name, message = %stub.head.id, %error, "moved to the dead letters");
            self.runtime.kept(stub.head.id, &Outcome::Dead(error.clone()), Some(&commit));
            lose(&stub, ReplyLost::Failed(error));
            self.runtime.ended(stub.head.id, Handled::Buried, Some(&commit));
            self.committed(commit, Vec::new()).await?;
        }
        Ok(())
    }

    /// One batch that moves the message from its mailbox to the dead letters.
    async fn commit_burial(
        &mut self,
        stub: &Stub,
        place: Place,
        reason: &Reason,
        attempts: &Attempts,
        error: &str,
    ) -> Result<Option<Committed>, Ending> {
        let envelope = self.sealed(place).await?;
        let mut batch = Batch::default();
        if self.tried.contains_key(&stub.head.id) {
            Attempts::delete(self.mailbox.id, stub.head.id, &mut batch);
        }
        let burial = Burial {
            log: place.log,
            mailbox: &self.mailbox.name,
            id: stub.head.id,
            at: self.now(),
            reason: reason.clone(),
            attempts: if cfg!(steadfast_bug = "bury_without_attempts") {
                Attempts::default()
            } else {
                attempts.clone()
            },
        };
        // everything in it was encoded before or is bounded text
        let _ = DeadLetters::bury(burial, &envelope, &mut batch);
        self.keep_outcome(stub, Outcome::Dead(error.to_owned()), &mut batch).await?;
        self.commit(stub, batch, true).await
    }

    async fn expire(&mut self, stub: Stub) -> Result<(), Ending> {
        let mut batch = Batch::default();
        if self.tried.remove(&stub.head.id).is_some() {
            Attempts::delete(self.mailbox.id, stub.head.id, &mut batch);
        }
        lose(&stub, ReplyLost::Stopped);
        let committed = match stub.place {
            Some(_) => self.commit(&stub, batch, true).await?,
            None => {
                self.runtime.ended(stub.head.id, Handled::Expired, None);
                None
            }
        };
        if let Some(Committed::Yes(commit, _)) = committed {
            self.runtime.kept(stub.head.id, &Outcome::Pending, Some(&commit));
            self.runtime.ended(stub.head.id, Handled::Expired, Some(&commit));
            self.committed(commit, Vec::new()).await?;
        }
        let (actor, outcome) = (&*self.mailbox.name, TurnOutcome::Expired);
        self.runtime.observer.event(&Event::Turn { actor, message: "", outcome, took: Default::default() });
        Ok(())
    }
}

fn lose(stub: &Stub, why: ReplyLost) {
    if let Some(asker) = &stub.asker {
        asker.lose(why);
    }
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.as_deref().unwrap_or("(no message)"))
}

/// Drops an actor that may be half changed: a panic in its `Drop` is its own.
pub(super) fn drop_quietly<A>(actor: A) {
    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| drop(actor)));
}
