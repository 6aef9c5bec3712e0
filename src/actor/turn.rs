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
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tracing::Instrument;

use super::context::{Context, Effects, Settling, Turn};
use super::failure::Failure;
use super::filter;
use super::life::Failed;
use super::list::{List, MessageList, SumOf};
use super::mailbox::{Body, Control, Head, Letter, Place};
use super::message::{Actor, Undecodable};
use super::reply::{Answered, Asker, KeepReply, ReplyLost};
use super::runtime::{Handled, IN_TURN};
use super::state::WorkingCopy;
use super::watchdog::Held;
use super::worker::{Ending, Worker};
use crate::clock::{Stopwatch, Timestamp};
use crate::durable::{
    Attempt, Attempts, Burial, CommitRefused, DeadLetters, Outcome, Reason, Scheduled, Suspicion,
};
use crate::envelope;
use crate::error::Refused;
use crate::observe::{Event, TurnOutcome};
use crate::policy::{Decision, FailureClass, OnActor, OnMessage, Verdict, Wish};
use crate::store::{Admitted, Batch, Condition, LogId, MailboxId, Origin, Slice, StoreError, Urgency, keys};

/// What an actor is given to do in a turn: one message, or [several](super::bundle).
pub(super) trait Job<A: Actor> {
    /// What a success brings.
    type Came;
    /// Whether it is one letter, of which the context tells where it is from.
    const IS_ONE: bool;

    fn run(
        self,
        actor: &mut A,
        ctx: &mut Context<A>,
    ) -> impl Future<Output = Result<Self::Came, Failure>> + Send;
}

/// One message.
struct One<A: Actor> {
    sum: SumOf<A>,
    keep: KeepReply,
}

impl<A: Actor> Job<A> for One<A> {
    type Came = Answered;
    const IS_ONE: bool = true;

    fn run(
        self,
        actor: &mut A,
        ctx: &mut Context<A>,
    ) -> impl Future<Output = Result<Answered, Failure>> + Send {
        A::Messages::dispatch(self.sum, actor, ctx, self.keep)
    }
}

/// What an attempt came to.
pub(super) enum Attempted<T> {
    /// The handler succeeded. Only here are there effects.
    Done(Box<Done<T>>),
    /// The handler failed or panicked.
    Failed(Failure),
    /// The actor is to end now: the turn is thrown away.
    Parked,
}

/// What became of a handler.
enum Ran<T> {
    Ended(T),
    TimedOut,
    Parked,
}

/// A success, not yet committed.
pub(super) struct Done<T> {
    pub(super) came: T,
    pub(super) effects: Effects,
    pub(super) copy: WorkingCopy,
    pub(super) whole: Option<Vec<u8>>,
}

/// How a commit went.
pub(super) enum Committed {
    /// It was admitted; these mailboxes got mail.
    Yes(Admitted, Vec<MailboxId>),
    /// The letter was settled by something else.
    Gone,
    /// The turn itself cannot be committed, such as being too large: the handler's fault.
    Impossible(Refused),
}

/// When and where a letter is handled again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Again {
    /// Where it is: it holds up those behind it.
    InPlace(Timestamp),
    /// The same, and nothing of it is remembered.
    Released(Timestamp),
    /// Through the schedule, behind what waits then.
    Later(Timestamp),
}

/// What becomes of a letter whose attempt failed.
pub(super) struct Judged {
    pub(super) failed: Failed,
    pub(super) attempts: Attempts,
    pub(super) fate: Fate,
}

pub(super) enum Fate {
    /// It was volatile: it had its one attempt.
    Lost,
    Bury(Reason),
    Again(Again),
}

impl Fate {
    pub(super) fn outcome(&self, decision: Decision) -> TurnOutcome {
        match self {
            Fate::Lost | Fate::Bury(_) => TurnOutcome::Buried,
            Fate::Again(_) if decision.message == OnMessage::Release => TurnOutcome::Released,
            Fate::Again(_) => TurnOutcome::Retried,
        }
    }
}

/// What is left of a letter while its body is with the handler.
pub(super) struct Stub {
    pub(super) place: Option<Place>,
    pub(super) head: Head,
    pub(super) asker: Option<Asker>,
}

impl<A: Actor> Worker<A> {
    /// Handles one letter to an end, or puts it back.
    pub(super) async fn turn(&mut self, letter: Letter<A>) -> Result<(), Ending> {
        match self.open(letter).await? {
            Some((stub, sum)) => self.turn_of(stub, sum).await,
            None => Ok(()),
        }
    }

    /// The message of a letter; none when it is not to be handled, which is then settled.
    pub(super) async fn open(&mut self, letter: Letter<A>) -> Result<Option<(Stub, SumOf<A>)>, Ending> {
        let Letter { place, head, body, asker } = letter;
        let stub = Stub { place, head, asker };
        if place.is_some_and(|place| self.mailbox.was_cancelled(place)) {
            self.front.forget(stub.head.id);
            return Ok(None);
        }
        if place.is_some_and(|place| self.was_superseded(place)) {
            return self.let_go(&stub).await.map(|()| None);
        }
        if stub.head.expires.is_some_and(|expires| self.now() >= expires)
            && !cfg!(steadfast_bug = "handle_what_expired")
        {
            return self.expire(stub).await.map(|()| None);
        }
        let filtered = place.is_some_and(|place| place.log.is_shown()) && !self.filters.is_empty();
        let unwanted = filtered && !filter::want_headers(&self.filters, &stub.head.headers);
        if unwanted && !cfg!(steadfast_bug = "let_all_headers_pass") {
            return self.pass_over(stub).await.map(|()| None);
        }
        match self.decode(body) {
            Ok(mut sum) => {
                if filtered {
                    match filter::want(&self.filters, A::Messages::message(&sum)) {
                        Ok(true) => {}
                        Ok(false) => return self.pass_over(stub).await.map(|()| None),
                        Err(failure) => return self.settle_unfiltered(stub, failure).await.map(|()| None),
                    }
                }
                if let Some(asker) = &stub.asker {
                    A::Messages::attach(&mut sum, asker);
                }
                Ok(Some((stub, sum)))
            }
            Err(_) if cfg!(steadfast_bug = "wait_for_what_cannot_be_decoded") => {
                let Some(place) = place else { return Ok(None) };
                let due = self.now().after(Duration::from_secs(30));
                self.put_back(stub, place, due).await.map(|()| None)
            }
            Err(why) => self.settle_undecodable(stub, why).await.map(|()| None),
        }
    }

    /// A turn with one message.
    pub(super) async fn turn_of(&mut self, stub: Stub, sum: SumOf<A>) -> Result<(), Ending> {
        let began = Stopwatch::start();
        let message = self.mailbox.decoder.kind_of(&sum).name;
        let keep = keep_reply(&stub.head);
        let attempt = self.front.attempt(stub.head.id);
        let outcome = match self.attempt(&stub, &stub.head, attempt, One { sum, keep }).await? {
            Attempted::Done(done) => self.settle_success(stub, done).await?,
            Attempted::Failed(failure) => {
                let (outcome, failed) = self.settle_failure(stub, failure).await?;
                self.report_turn(message, outcome, &began);
                return self.go_on_after(failed);
            }
            Attempted::Parked => {
                if stub.place.is_none() {
                    self.runtime.ended(stub.head.id, Handled::Lost, None);
                }
                return Err(Ending::Asked);
            }
        };
        self.report_turn(message, outcome, &began);
        Ok(())
    }

    pub(super) fn report_turn(&self, message: &str, outcome: TurnOutcome, began: &Stopwatch) {
        let (actor, took) = (&*self.mailbox.name, began.elapsed());
        self.runtime.observer.event(&Event::Turn { actor, message, outcome, took });
    }

    /// What was decided about the actor: to go on, which its supervisor is told, or to end.
    pub(super) fn go_on_after(&self, failed: Failed) -> Result<(), Ending> {
        match (failed.decision.actor, &self.link) {
            (OnActor::Rebuild, None) | (OnActor::Restart, None) => Ok(()),
            (OnActor::Rebuild, Some(supervisor)) => {
                // a supervisor that has ended is ending this actor too
                let _ = supervisor.send((self.known_as(), failed));
                Ok(())
            }
            (OnActor::Restart, Some(_)) | (OnActor::Stop | OnActor::Escalate, _) => {
                Err(Ending::Failed(failed))
            }
        }
    }

    pub(super) fn decode(&self, body: Body<A>) -> Result<SumOf<A>, Undecodable> {
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

    /// Has the actor do it, as attempt number `attempt`. The context tells of `head`; `stub` is the first of the letters.
    pub(super) async fn attempt<J: Job<A>>(
        &mut self,
        stub: &Stub,
        head: &Head,
        attempt: u32,
        job: J,
    ) -> Result<Attempted<J::Came>, Ending> {
        let mut control = self.control.clone();
        // those of a batch may come from several
        let from = if J::IS_ONE { self.origin(stub.place).await? } else { None };
        let cells = std::mem::take(&mut self.cells);
        let mut context = Context::new(Turn {
            runtime: &self.runtime,
            mailbox: self.mailbox.id,
            name: &self.mailbox.name,
            head: head.clone(),
            from,
            attempt,
            copy: WorkingCopy::new(cells, self.shares),
            workers: self.at_once(),
            control: self.control.clone(),
            pass: self.pass.clone(),
            pulse: self.pulse.clone(),
        });
        let mut actor = match self.actor.take() {
            Some(actor) => actor,
            None => return Err(Ending::NoActor),
        };
        let (id, place, asker) = (stub.head.id, stub.place, &stub.asker);
        self.pulse.turn(id, || Held { place, head: stub.head.clone(), asker: asker.clone() });
        let ran = {
            let span = tracing::debug_span!("turn", actor = %self.mailbox.name, message = %head.id, attempt);
            let handler = IN_TURN.scope((), job.run(&mut actor, &mut context)).instrument(span);
            let handler = AssertUnwindSafe(handler).catch_unwind();
            tokio::select! {
                biased;
                ran = self.within_its_time(handler) => ran,
                _ = control.wait_for(|control| *control == Control::Park) => Ran::Parked,
            }
        };
        self.pulse.turn_ends();
        let Context { effects, copy, .. } = context;
        let attempted = match ran {
            Ran::Ended(Ok(Ok(came))) => {
                match copy.check().and_then(|()| self.state.save(&self.runtime, &actor)) {
                    Ok(whole) => {
                        self.actor = Some(actor);
                        return Ok(Attempted::Done(Box::new(Done { came, effects, copy, whole })));
                    }
                    Err(why) => Attempted::Failed(Failure::from(why).terminal()),
                }
            }
            Ran::Ended(Ok(Err(failure))) => Attempted::Failed(failure),
            Ran::TimedOut if cfg!(steadfast_bug = "timeout_is_no_attempt") => {
                Attempted::Failed(self.took_too_long().release())
            }
            Ran::TimedOut => Attempted::Failed(self.took_too_long()),
            Ran::Ended(Err(panic)) => Attempted::Failed(Failure::panicked(panic_text(&*panic))),
            Ran::Parked if cfg!(steadfast_bug = "count_a_park") => Attempted::Failed(Failure::new("parked")),
            Ran::Parked => Attempted::Parked,
        };
        // the working copy and the actor go; what was committed stays
        self.cells =
            if cfg!(steadfast_bug = "keep_state_of_a_failed_turn") { copy.committed() } else { copy.cells };
        if cfg!(steadfast_bug = "send_from_a_failed_turn") {
            let (mailbox, name, incoming) = (self.mailbox.id, &*self.mailbox.name, head.id);
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

    /// Runs the handler, for as long as a turn may take. When it waits, turns that were committed before and not yet asked to be
    /// synced are; a timer is made only then.
    async fn within_its_time<T>(&mut self, handler: impl Future<Output = T>) -> Ran<T> {
        let clock = self.runtime.ledger.clock();
        let end = self.turn_timeout.map(|time| clock.now().after(time));
        let mut handler = pin!(handler);
        let (mut flushed, mut timer) = (false, None);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(ended) = handler.as_mut().poll(cx) {
                return Poll::Ready(Ran::Ended(ended));
            }
            if !std::mem::replace(&mut flushed, true) {
                self.runtime.ledger.store().flush_soon();
                timer = end.map(|end| clock.sleep_until(end));
            }
            match &mut timer {
                Some(timer) => timer.as_mut().poll(cx).map(|()| Ran::TimedOut),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn took_too_long(&self) -> Failure {
        let time = self.turn_timeout.unwrap_or_default();
        Failure::timed_out(format!(
            "it took longer than {time:?}, the turn timeout of its mailbox, and was thrown away: allow more time, or do less in a turn"
        ))
    }

    /// A handler that did not yield was abandoned with its incarnation: that was a failed attempt.
    pub(super) async fn settle_abandoned(&mut self, held: Held) -> Result<(), Ending> {
        let Held { place, head, asker } = held;
        let why = "its handler did not yield and was abandoned: have what blocks run with `ctx.blocking`, and long work yield";
        let failure = Failure::timed_out(why.into());
        let (outcome, failed) = self.settle_failure(Stub { place, head, asker }, failure).await?;
        self.report_turn("", outcome, &Stopwatch::start());
        self.go_on_after(failed)
    }

    async fn settle_success(
        &mut self,
        stub: Stub,
        mut done: Box<Done<Answered>>,
    ) -> Result<TurnOutcome, Ending> {
        let stored = done.came.take_stored();
        match self.commit_success(&stub, &done, stored.as_deref()).await? {
            Committed::Yes(commit, targets) => {
                let Done { came, effects, copy, whole } = *done;
                self.cells = copy.committed();
                self.saved = whole.or(self.saved.take());
                self.front.forget(stub.head.id);
                if effects.schedules() {
                    self.runtime.scheduled.ring();
                }
                if let (Some(_), Some(reply)) = (stub.head.mark, stored) {
                    self.runtime.kept(stub.head.id, &Outcome::Replied(reply), Some(&commit));
                }
                effects.watch(&self.runtime, &self.mailbox.name).await;
                came.release(Some(commit.clone()));
                self.runtime.ended(stub.head.id, Handled::Done, Some(&commit));
                self.committed(commit, targets).await?;
                Ok(TurnOutcome::Done)
            }
            Committed::Gone => {
                self.cells = done.copy.cells;
                self.actor = None;
                self.let_go(&stub).await?;
                Ok(TurnOutcome::Discarded)
            }
            Committed::Impossible(why) => {
                self.cells = std::mem::take(&mut done.copy.cells);
                let why = Failure::new(format!("the turn cannot be committed: {why}"));
                let (outcome, failed) = Box::pin(self.settle_failure(stub, why)).await?;
                self.go_on_after(failed)?;
                Ok(outcome)
            }
        }
    }

    /// One batch for all a turn did. A condition that no longer holds, such as a dedup id taken meanwhile, has it made again.
    async fn commit_success(
        &mut self,
        stub: &Stub,
        done: &Done<Answered>,
        reply: Option<&[u8]>,
    ) -> Result<Committed, Ending> {
        loop {
            let mut batch = Batch::default();
            let (mailbox, name) = (self.mailbox.id, &*self.mailbox.name);
            let turn = Settling { runtime: &self.runtime, mailbox, name, incoming: stub.head.id };
            let whole = done.whole.as_ref().filter(|whole| self.saved.as_ref() != Some(whole));
            let targets = match settle_effects(&turn, &done.effects, &done.copy, whole, &mut batch).await {
                Ok(targets) => targets,
                Err(Refused::Store(why)) => return Err(why.into()),
                Err(why) => return Ok(Committed::Impossible(why)),
            };
            if let Some(reply) = reply {
                self.keep_outcome(stub, Outcome::Replied(reply.to_vec()), &mut batch).await?;
            }
            if self.front.has_failed(stub.head.id) {
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
        self.acknowledge(stub, &mut batch, settles);
        let (mailbox, id) = (self.mailbox.id, stub.head.id);
        let suspect =
            settles && self.concern.has_suspects && self.runtime.solo.suspicion(mailbox, id).is_some();
        if suspect {
            Suspicion::delete(mailbox, id, &mut batch);
        }
        let committed = self.commit_batch(batch).await?;
        if suspect && matches!(committed, Some(Committed::Yes(..))) {
            self.runtime.solo.forget(mailbox, id);
        }
        Ok(committed)
    }

    /// Adds what settles the letter; or, when it stays, that it must not have been settled by something else.
    pub(super) fn acknowledge(&self, stub: &Stub, batch: &mut Batch, settles: bool) {
        let Some(place) = stub.place else { return };
        if cfg!(steadfast_bug = "commit_effects_without_ack") {
            // planted: the letter stays although its effects are committed
        } else if settles {
            batch.settle(place.log, place.position, place.len);
        } else {
            batch.require(Condition::Waiting { log: place.log, position: place.position });
        }
    }

    pub(super) async fn commit_batch(&mut self, mut batch: Batch) -> Result<Option<Committed>, Ending> {
        let (mailbox, incarnation) = (self.mailbox.id, self.incarnation);
        if !cfg!(steadfast_bug = "commit_of_an_abandoned_incarnation") {
            batch.require(Condition::Incarnation { mailbox, incarnation });
        }
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
    pub(super) async fn keep_outcome(
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

    /// The letter's attempt failed: what the policy decides about it is done here, and about the actor by the caller.
    async fn settle_failure(
        &mut self,
        stub: Stub,
        failure: Failure,
    ) -> Result<(TurnOutcome, Failed), Ending> {
        if !cfg!(steadfast_bug = "keep_the_actor_after_a_failure") {
            self.actor = None;
        }
        let Judged { failed, attempts, fate } = self.judge(&stub, &failure);
        let outcome = fate.outcome(failed.decision);
        match (fate, stub.place) {
            (Fate::Bury(reason), Some(_)) => {
                self.front.remember(stub.head.id, attempts);
                self.bury(stub, reason, failed.why.clone()).await?;
            }
            (Fate::Again(again), Some(place)) => self.try_again(stub, place, attempts, again).await?,
            (_, _) => self.lose_volatile(&stub, failed.why.clone()),
        }
        Ok((outcome, failed))
    }

    /// A volatile message has one attempt.
    pub(super) fn lose_volatile(&self, stub: &Stub, why: String) {
        lose(stub, ReplyLost::Failed(why));
        self.runtime.ended(stub.head.id, Handled::Lost, None);
    }

    /// What becomes of a letter whose attempt failed, and of its actor.
    pub(super) fn judge(&mut self, stub: &Stub, failure: &Failure) -> Judged {
        let (now, why, wish, class) =
            (self.now(), failure.text().to_owned(), failure.wish(), failure.class());
        let decision = self.failures.decide(class, wish, failure.on_actor());
        tracing::warn!(actor = %self.mailbox.name, message = %stub.head.id, error = %why, ?decision, "the handler failed");
        let failed = Failed { message: Some(stub.head.id), class, why: why.clone(), decision };
        if stub.place.is_none() {
            return Judged { failed, attempts: Attempts::default(), fate: Fate::Lost };
        }
        let mut attempts = self.front.attempts(stub.head.id);
        if decision.message != OnMessage::Release || cfg!(steadfast_bug = "count_a_release") {
            let trace = stub.head.headers.get("traceparent").map(str::to_owned);
            attempts.add(Attempt { at: now, class, error: why, decision, trace });
        }
        let chance = self.runtime.ledger.clock().random();
        let strict = self.order.keeps_place(&stub.head);
        let fate = match self.retry.on_failure(attempts.count, decision.message, wish, now, chance) {
            Verdict::Bury if decision.message == OnMessage::DeadLetter => Fate::Bury(Reason::Terminal),
            Verdict::Bury => Fate::Bury(Reason::AttemptsUsedUp),
            Verdict::RetryAt(at) if strict => Fate::Again(Again::InPlace(at)),
            Verdict::RetryAt(at) | Verdict::RetryLaterAt(at) => Fate::Again(Again::Later(at)),
            Verdict::KeepUntil(at) => Fate::Again(Again::InPlace(at)),
            Verdict::ReleaseUntil(at) if strict => Fate::Again(Again::Released(at)),
            Verdict::ReleaseUntil(at) => Fate::Again(Again::Later(at)),
        };
        Judged { failed, attempts, fate }
    }

    /// A message that cannot be decoded was not handled, so it is no attempt.
    async fn settle_undecodable(&mut self, stub: Stub, why: Undecodable) -> Result<(), Ending> {
        const LOOK_AGAIN: Duration = Duration::from_secs(30);
        let (class, why) = (FailureClass::Undecodable, why.to_string());
        let decision = self.failures.decide(class, Wish::Retry, None);
        let failed = Failed { message: Some(stub.head.id), class, why: why.clone(), decision };
        match (decision.message, stub.place) {
            (OnMessage::DeadLetter, _) | (_, None) => {
                self.bury(stub, Reason::Undecodable(why.clone()), why).await?;
                if decision == Decision::DEAD_LETTER {
                    return Ok(());
                }
            }
            (_, Some(place)) => {
                tracing::error!(actor = %self.mailbox.name, message = %stub.head.id, %why, "a message that cannot be decoded holds up those behind it");
                self.put_back(stub, place, self.now().after(LOOK_AGAIN)).await?;
            }
        }
        self.go_on_after(failed)
    }

    /// In its place the letter holds up what is behind it; later, it goes on the schedule and gives up its place.
    async fn try_again(
        &mut self,
        stub: Stub,
        place: Place,
        mut attempts: Attempts,
        again: Again,
    ) -> Result<(), Ending> {
        let due = again.due();
        attempts.not_before = due;
        let id = stub.head.id;
        let mut batch = Batch::default();
        let is_here = self.note_attempts(&stub, place, &attempts, again, &mut batch).await?;
        let later = again.gives_up_its_place();
        let committed = match again {
            _ if !is_here => Some(Committed::Gone),
            // nothing to write: that it was released is forgotten with the process
            Again::Released(_) => None,
            Again::InPlace(_) | Again::Later(_) => self.commit(&stub, batch, later).await?,
        };
        match committed {
            Some(Committed::Gone) => {
                // cancelled or taken while its handler ran: it holds up nobody
                self.let_go(&stub).await?;
            }
            Some(Committed::Yes(..)) if later => {
                self.front.remember(id, attempts);
                if let Some(asker) = stub.asker {
                    self.mailbox.quick().remember_asker(id, usize::from(place.log.lane), asker);
                }
                self.runtime.scheduled.ring();
            }
            _ => {
                self.front.remember(id, attempts);
                self.put_back(stub, place, due).await?;
            }
        }
        Ok(())
    }

    /// Adds what is remembered of a letter that is handled again, and where. False when it is to go elsewhere and is not there any
    /// more.
    pub(super) async fn note_attempts(
        &mut self,
        stub: &Stub,
        place: Place,
        attempts: &Attempts,
        again: Again,
        batch: &mut Batch,
    ) -> Result<bool, Ending> {
        let id = stub.head.id;
        if !attempts.last.is_empty() && !cfg!(steadfast_bug = "forget_attempts") {
            // errors are cut to a bounded text, so this cannot fail
            let _ = attempts.put(self.mailbox.id, id, batch);
        }
        if again.gives_up_its_place() {
            let Some(envelope) = self.sealed(place).await?.map(|envelope| envelope.to_vec()) else {
                return Ok(false);
            };
            let target = LogId { mailbox: self.mailbox.id, lane: place.log.lane };
            let _ = Scheduled { target, envelope, is_event: false }.put(again.due(), id, batch);
        }
        Ok(true)
    }

    /// Leaves the letter where it is, to be the next of its priority, not before `due`.
    pub(super) async fn put_back(&mut self, stub: Stub, place: Place, due: Timestamp) -> Result<(), Ending> {
        let sealed = self.sealed(place).await?;
        let Some(sealed) = sealed else { return self.let_go(&stub).await };
        let Stub { place, head, asker } = stub;
        self.hold(Letter { place, head, body: Body::Sealed(sealed), asker }, due);
        Ok(())
    }

    /// Forgets a letter that is where it was no more, and its attempts: it was cancelled, or taken from the topic.
    pub(super) async fn let_go(&mut self, stub: &Stub) -> Result<(), Ending> {
        if let Some(place) = stub.place {
            self.mailbox.was_cancelled(place);
            if place.log.is_shown() {
                self.look_for_a_gap(place.log);
            }
        }
        if self.front.has_failed(stub.head.id) {
            let mut batch = Batch::default();
            Attempts::delete(self.mailbox.id, stub.head.id, &mut batch);
            self.commit_batch(batch).await?;
            self.front.forget(stub.head.id);
        }
        Ok(())
    }

    /// The sealed bytes of a letter; none when it does not wait any more.
    pub(super) async fn sealed(&mut self, place: Place) -> Result<Option<Slice>, Ending> {
        let letters = self.runtime.ledger.letters(place.log, place.position, 1, 1).await?;
        let here = letters.into_iter().find(|letter| letter.position == place.position);
        let here = here.map(|letter| letter.envelope);
        Ok(here.or_else(|| cfg!(steadfast_bug = "move_what_is_gone").then(Slice::empty)))
    }

    /// Moves a letter to the dead letters that is not to be handled.
    pub(super) async fn bury_unread(
        &mut self,
        letter: Letter<A>,
        reason: Reason,
        error: String,
    ) -> Result<(), Ending> {
        let Letter { place, head, asker, .. } = letter;
        self.bury(Stub { place, head, asker }, reason, error).await
    }

    async fn bury(&mut self, stub: Stub, reason: Reason, error: String) -> Result<(), Ending> {
        let Some(place) = stub.place else {
            lose(&stub, ReplyLost::Failed(error));
            return Ok(());
        };
        let mut attempts = self.front.attempts(stub.head.id);
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
        if matches!(committed, Some(Committed::Gone)) {
            self.let_go(&stub).await?;
        }
        self.front.forget(stub.head.id);
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
        let mut batch = Batch::default();
        let is_here = self.add_burial(stub, place, reason, attempts, error, &mut batch).await?;
        match is_here {
            true => self.commit(stub, batch, true).await,
            false => Ok(Some(Committed::Gone)),
        }
    }

    /// Adds what makes the message a dead letter. False when it is not there any more.
    pub(super) async fn add_burial(
        &mut self,
        stub: &Stub,
        place: Place,
        reason: &Reason,
        attempts: &Attempts,
        error: &str,
        batch: &mut Batch,
    ) -> Result<bool, Ending> {
        let Some(envelope) = self.sealed(place).await? else { return Ok(false) };
        if self.front.has_failed(stub.head.id) {
            Attempts::delete(self.mailbox.id, stub.head.id, batch);
        }
        let burial = Burial {
            log: LogId { mailbox: self.mailbox.id, lane: place.log.lane },
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
        let _ = DeadLetters::bury(burial, &envelope, batch);
        self.keep_outcome(stub, Outcome::Dead(error.to_owned()), batch).await?;
        Ok(true)
    }

    async fn expire(&mut self, stub: Stub) -> Result<(), Ending> {
        let mut batch = Batch::default();
        if self.front.forget(stub.head.id) {
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

impl<A: Actor> Worker<A> {
    /// An event that no filter wants: its place moves.
    async fn pass_over(&mut self, stub: Stub) -> Result<(), Ending> {
        let mut batch = Batch::default();
        if self.front.forget(stub.head.id) {
            Attempts::delete(self.mailbox.id, stub.head.id, &mut batch);
        }
        match self.commit(&stub, batch, true).await? {
            Some(Committed::Yes(commit, _)) => self.committed(commit, Vec::new()).await?,
            _ => return Ok(()),
        }
        self.report_turn("", TurnOutcome::Filtered, &Stopwatch::start());
        Ok(())
    }

    /// A filter panicked: that was an attempt.
    async fn settle_unfiltered(&mut self, stub: Stub, failure: Failure) -> Result<(), Ending> {
        let (outcome, failed) = self.settle_failure(stub, failure).await?;
        self.report_turn("", outcome, &Stopwatch::start());
        self.go_on_after(failed)
    }
}

/// Adds what a turn sent and stored. Returns the mailboxes that get mail.
pub(super) async fn settle_effects(
    turn: &Settling<'_>,
    effects: &Effects,
    copy: &WorkingCopy,
    whole: Option<&Vec<u8>>,
    batch: &mut Batch,
) -> Result<Vec<MailboxId>, Refused> {
    let targets = effects.settle(turn, batch).await?;
    copy.settle(turn.mailbox, batch);
    if let Some(whole) = whole {
        batch.put_bytes(keys::cell(turn.mailbox, super::state::WHOLE, &[]), whole);
    }
    Ok(targets)
}

impl Again {
    pub(super) fn due(self) -> Timestamp {
        let (Again::InPlace(due) | Again::Released(due) | Again::Later(due)) = self;
        due
    }

    pub(super) fn gives_up_its_place(self) -> bool {
        matches!(self, Again::Later(_))
    }
}

/// Whether the message's reply is kept, for whoever asks again.
pub(super) fn keep_reply(head: &Head) -> KeepReply {
    if head.mark.is_some() { KeepReply::Encoded } else { KeepReply::No }
}

pub(super) fn lose(stub: &Stub, why: ReplyLost) {
    if let Some(asker) = &stub.asker {
        asker.lose(why);
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.as_deref().unwrap_or("(no message)"))
}

/// Drops an actor that may be half changed: a panic in its `Drop` is its own.
pub(super) fn drop_quietly<A>(actor: A) {
    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| drop(actor)));
}
