//! A turn with several letters: they are gathered, handled in one call, and settled in one commit, each as its own outcome
//! says.
//!
//! # Invariants
//! - The letters of a bundle are settled, put on the schedule, buried or left where they are in the one commit that carries the
//!   turn's effects; or nothing of it happened.
//! - A bundle that fails as a whole costs nobody an attempt: its letters are handled one by one.
//! - A letter that was handled before, and not to its end, is handled alone.
//! - It is waited for more letters no longer than the linger allows, and not at all when the actor is to end.

use super::context::{Context, Settling};
use super::failure::Failure;
use super::life::Failed;
use super::list::{InBatch, MessageList, SumOf};
use super::mailbox::{Body, Control, Head, Letter};
use super::message::Actor;
use super::reply::{Answered, ReplyLost};
use super::runtime::Handled;
use super::turn::{
    Again, Attempted, Committed, Done, Fate, Job, Judged, Stub, keep_reply, lose, settle_effects,
};
use super::worker::{Batching, Ending, Worker};
use crate::clock::{Stopwatch, Timestamp};
use crate::durable::{Attempts, Outcome};
use crate::envelope::MessageId;
use crate::error::Refused;
use crate::observe::TurnOutcome;
use crate::policy::{OnActor, OnMessage};
use crate::store::{Admitted, Batch, MailboxId};

/// The most bytes of messages in one bundle; one that is larger stands alone.
const BYTES: u64 = 1 << 20;

/// Several messages for one call.
struct Many<A: Actor>(Vec<InBatch<SumOf<A>>>);

impl<A: Actor> Job<A> for Many<A> {
    type Came = Vec<Result<Answered, Failure>>;
    const IS_ONE: bool = false;

    fn run(
        self,
        actor: &mut A,
        ctx: &mut Context<A>,
    ) -> impl Future<Output = Result<Self::Came, Failure>> + Send {
        A::Messages::dispatch_batch(self.0, actor, ctx)
    }
}

/// A letter that was handled in a bundle, and what becomes of it.
struct Member {
    stub: Stub,
    came: Came,
}

enum Came {
    Done { answered: Answered, stored: Option<Vec<u8>> },
    Failed(Box<Judged>),
}

impl<A: Actor> Worker<A> {
    /// A turn with this letter and those that may join it.
    pub(super) async fn turn_of_several(
        &mut self,
        first: Letter<A>,
        batching: Batching,
    ) -> Result<(), Ending> {
        let letters = self.gather(first, batching).await?;
        let mut opened = self.open_all(letters).await?;
        match opened.len() {
            0 | 1 => match opened.pop() {
                Some((stub, sum)) => self.turn_of(stub, sum).await,
                None => Ok(()),
            },
            _ => self.turn_of_bundle(opened).await,
        }
    }

    /// Takes letters until there are enough, or no more come in time.
    async fn gather(&mut self, first: Letter<A>, batching: Batching) -> Result<Vec<Letter<A>>, Ending> {
        let end = self.now().after(batching.linger);
        let mut bytes = first.bytes();
        let alone = self.front.has_failed(first.head.id);
        let mut letters = vec![first];
        while !alone && letters.len() < batching.size {
            let Some(letter) = self.next_letter().await? else {
                match self.wait_for_more(end).await {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(ending) => {
                        self.leave_all(letters);
                        return Err(ending);
                    }
                }
            };
            bytes += letter.bytes();
            let joins = !self.front.has_failed(letter.head.id) && !self.is_told_before(&letter);
            if bytes > BYTES || !joins {
                self.front.put_back(letter, &self.mailbox);
                break;
            }
            letters.push(letter);
        }
        Ok(letters)
    }

    /// Whether the actor is to be told something before this letter, which therefore begins a batch.
    fn is_told_before(&mut self, letter: &Letter<A>) -> bool {
        if cfg!(steadfast_bug = "gather_over_a_gap") {
            return self.resumes_with(letter);
        }
        self.hook_before(letter).is_some()
    }

    /// Waits until there may be more letters; false when it is time to go on without.
    async fn wait_for_more(&mut self, end: Timestamp) -> Result<bool, Ending> {
        let control = *self.control.borrow_and_update();
        if control >= Control::Stop {
            return Err(self.asked());
        }
        if control == Control::Drain || (self.now() >= end && !cfg!(steadfast_bug = "linger_for_ever")) {
            return Ok(false);
        }
        let store = self.runtime.ledger.store();
        store.flush_soon();
        if let Some(error) = store.failure() {
            return Err(error.into());
        }
        let over = async {
            match cfg!(steadfast_bug = "linger_for_ever") {
                true => std::future::pending().await,
                false => self.runtime.ledger.clock().sleep_until(end).await,
            }
        };
        let mut control = self.control.clone();
        tokio::select! {
            biased;
            () = self.front.woken(&self.mailbox) => self.front.look_again(),
            () = over => {}
            _ = control.changed() => {}
        }
        Ok(true)
    }

    /// The actor ends before these were handled.
    fn leave_all(&mut self, letters: Vec<Letter<A>>) {
        for letter in letters.into_iter().rev() {
            self.front.put_back(letter, &self.mailbox);
        }
    }

    /// The messages of the letters that are to be handled; the others are settled. One that cannot be decoded and stays where it is
    /// is not overtaken: those behind it go back.
    async fn open_all(&mut self, letters: Vec<Letter<A>>) -> Result<Vec<(Stub, SumOf<A>)>, Ending> {
        let mut opened = Vec::with_capacity(letters.len());
        let mut letters = letters.into_iter();
        while let Some(letter) = letters.next() {
            if self.may_stay(&letter) {
                self.leave_all(letters.by_ref().collect());
            }
            opened.extend(self.open(letter).await?);
        }
        Ok(opened)
    }

    /// Whether it cannot be decoded, and the policy is to leave such a letter where it is.
    fn may_stay(&mut self, letter: &Letter<A>) -> bool {
        let Body::Sealed(sealed) = &letter.body else { return false };
        self.failures.undecodable.message != OnMessage::DeadLetter
            && self.decode(Body::Sealed(sealed.clone())).is_err()
    }

    async fn turn_of_bundle(&mut self, opened: Vec<(Stub, SumOf<A>)>) -> Result<(), Ending> {
        let began = Stopwatch::start();
        let message = opened.first().map_or("", |(_, sum)| self.mailbox.decoder.kind_of(sum).name);
        let (mut stubs, mut items) = (Vec::with_capacity(opened.len()), Vec::with_capacity(opened.len()));
        for (stub, sum) in opened {
            // whatever failed before is alone
            let about = stub.head.about(1, self.origin(stub.place).await?);
            items.push(InBatch { sum, about, keep: keep_reply(&stub.head) });
            stubs.push(stub);
        }
        let Some(head) = head_of(&stubs) else { return Ok(()) };
        let Some(first) = stubs.first() else { return Ok(()) };
        let outcomes = match self.attempt(first, &head, 1, Many(items)).await? {
            Attempted::Done(done) => self.settle_bundle(&head, stubs, *done).await?,
            Attempted::Failed(failure) => (self.fall_apart(stubs, failure.text()).await?, Vec::new()),
            Attempted::Parked => {
                for stub in stubs.iter().filter(|stub| stub.place.is_none()) {
                    self.runtime.ended(stub.head.id, Handled::Lost, None);
                }
                return Err(Ending::Asked);
            }
        };
        let (outcomes, endings) = outcomes;
        for outcome in outcomes {
            self.report_turn(message, outcome, &began);
        }
        endings.into_iter().try_for_each(|failed| self.go_on_after(failed))
    }

    /// Nothing of it happened: each is handled alone.
    async fn fall_apart(&mut self, stubs: Vec<Stub>, why: &str) -> Result<Vec<TurnOutcome>, Ending> {
        tracing::warn!(actor = %self.mailbox.name, messages = stubs.len(), error = %why, "a batch failed; its messages are handled one by one");
        for stub in &stubs {
            if cfg!(steadfast_bug = "form_the_failed_batch_again") {
                break;
            }
            let attempts = self.front.attempts(stub.head.id);
            self.front.remember(stub.head.id, attempts);
        }
        self.put_all_back(stubs, why).await
    }

    async fn put_all_back(&mut self, stubs: Vec<Stub>, why: &str) -> Result<Vec<TurnOutcome>, Ending> {
        self.actor = None;
        let outcomes = vec![TurnOutcome::Discarded; stubs.len()];
        for stub in stubs.into_iter().rev() {
            let Some(place) = stub.place else {
                self.front.forget(stub.head.id);
                self.lose_volatile(&stub, why.to_owned());
                continue;
            };
            let sealed = self.sealed(place).await?;
            let Some(sealed) = sealed else {
                self.let_go(&stub).await?;
                continue;
            };
            let Stub { place, head, asker } = stub;
            let letter = Letter { place, head, body: Body::Sealed(sealed), asker };
            self.front.put_back(letter, &self.mailbox);
        }
        Ok(outcomes)
    }

    /// Settles each letter as its outcome says. Returns how each ended, and the failures after which the actor may have to.
    async fn settle_bundle(
        &mut self,
        head: &Head,
        stubs: Vec<Stub>,
        done: Done<Vec<Result<Answered, Failure>>>,
    ) -> Result<(Vec<TurnOutcome>, Vec<Failed>), Ending> {
        let Done { came, effects, copy, whole } = done;
        let all_failed = came.iter().all(Result::is_err);
        let members: Vec<_> = stubs
            .into_iter()
            .zip(came)
            .map(|(stub, came)| {
                let came = match came {
                    Ok(mut answered) => Came::Done { stored: answered.take_stored(), answered },
                    Err(failure) => Came::Failed(Box::new(self.judge(&stub, &failure))),
                };
                Member { stub, came }
            })
            .collect();
        let done = Done { came: (), effects, copy, whole };
        let committed = self.commit_bundle(head, &members, (!all_failed).then_some(&done)).await?;
        let Done { effects, copy, whole, .. } = done;
        match committed {
            Committed::Yes(commit, targets) => {
                if all_failed {
                    self.cells = copy.cells;
                    self.actor = None;
                } else {
                    self.cells = copy.committed();
                    self.saved = whole.or(self.saved.take());
                    if effects.schedules() {
                        self.runtime.scheduled.ring();
                    }
                    effects.watch(&self.runtime, &self.mailbox.name).await;
                }
                let told = self.announce(members, all_failed, &commit).await?;
                self.committed(commit, targets).await?;
                Ok(told)
            }
            Committed::Gone => {
                self.cells = copy.cells;
                let stubs = members.into_iter().map(|member| member.stub).collect();
                Ok((self.put_all_back(stubs, "a message of its batch was cancelled").await?, Vec::new()))
            }
            Committed::Impossible(why) => {
                self.cells = copy.cells;
                let stubs = members.into_iter().map(|member| member.stub).collect();
                let why = format!("the batch cannot be committed: {why}");
                Ok((self.fall_apart(stubs, &why).await?, Vec::new()))
            }
        }
    }

    /// One batch for the turn's effects and for every letter. A condition that no longer holds has it made again.
    async fn commit_bundle(
        &mut self,
        head: &Head,
        members: &[Member],
        done: Option<&Done<()>>,
    ) -> Result<Committed, Ending> {
        loop {
            let mut batch = Batch::default();
            let mut targets: Vec<MailboxId> = Vec::new();
            if let Some(done) = done {
                let (mailbox, name) = (self.mailbox.id, &*self.mailbox.name);
                let turn = Settling { runtime: &self.runtime, mailbox, name, incoming: head.id };
                let whole = done.whole.as_ref().filter(|whole| self.saved.as_ref() != Some(whole));
                targets = match settle_effects(&turn, &done.effects, &done.copy, whole, &mut batch).await {
                    Ok(targets) => targets,
                    Err(Refused::Store(why)) => return Err(why.into()),
                    Err(why) => return Ok(Committed::Impossible(why)),
                };
            }
            for member in members {
                if !self.settle_member(member, &mut batch).await? {
                    return Ok(Committed::Gone);
                }
            }
            match self.commit_batch(batch).await? {
                Some(Committed::Yes(commit, _)) => return Ok(Committed::Yes(commit, targets)),
                Some(other) => return Ok(other),
                None => {}
            }
        }
    }

    /// False when it failed and does not wait any more.
    async fn settle_member(&mut self, member: &Member, batch: &mut Batch) -> Result<bool, Ending> {
        let Member { stub, came } = member;
        let mut is_here = true;
        let settles = match came {
            Came::Done { stored, .. } => {
                if let Some(reply) = stored {
                    self.keep_outcome(stub, Outcome::Replied(reply.clone()), batch).await?;
                }
                true
            }
            Came::Failed(judged) => match (&judged.fate, stub.place) {
                (Fate::Bury(reason), Some(place)) => {
                    let why = &judged.failed.why;
                    is_here = self.add_burial(stub, place, reason, &judged.attempts, why, batch).await?;
                    true
                }
                (Fate::Again(again), Some(place)) => {
                    let attempts = Attempts { not_before: again.due(), ..judged.attempts.clone() };
                    is_here = self.note_attempts(stub, place, &attempts, *again, batch).await?;
                    again.gives_up_its_place() || cfg!(steadfast_bug = "settle_what_failed_in_a_batch")
                }
                _ => true,
            },
        };
        self.acknowledge(stub, batch, settles);
        Ok(is_here)
    }

    /// The bundle was committed: whoever waits for one of its letters is told, and what is handled again is kept.
    async fn announce(
        &mut self,
        members: Vec<Member>,
        all_failed: bool,
        commit: &Admitted,
    ) -> Result<(Vec<TurnOutcome>, Vec<Failed>), Ending> {
        let (mut outcomes, mut endings, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for Member { stub, came } in members {
            let id = stub.head.id;
            match came {
                Came::Done { answered, stored } => {
                    self.front.forget(id);
                    if let (Some(_), Some(reply)) = (stub.head.mark, stored) {
                        self.runtime.kept(id, &Outcome::Replied(reply), Some(commit));
                    }
                    answered.release(Some(commit.clone()));
                    self.runtime.ended(id, Handled::Done, Some(commit));
                    outcomes.push(TurnOutcome::Done);
                }
                Came::Failed(judged) => {
                    let Judged { failed, attempts, fate } = *judged;
                    outcomes.push(fate.outcome(failed.decision));
                    match (fate, stub.place) {
                        (Fate::Bury(_), Some(_)) => {
                            self.front.forget(id);
                            tracing::error!(actor = %self.mailbox.name, message = %id, error = %failed.why, "moved to the dead letters");
                            self.runtime.kept(id, &Outcome::Dead(failed.why.clone()), Some(commit));
                            lose(&stub, ReplyLost::Failed(failed.why.clone()));
                            self.runtime.ended(id, Handled::Buried, Some(commit));
                        }
                        (Fate::Again(Again::Later(due)), Some(place)) => {
                            self.front.remember(id, Attempts { not_before: due, ..attempts });
                            if let Some(asker) = stub.asker {
                                let lane = usize::from(place.log.lane);
                                self.mailbox.quick().remember_asker(id, lane, asker);
                            }
                            self.runtime.scheduled.ring();
                        }
                        (Fate::Again(again), Some(place)) => {
                            self.front.remember(id, Attempts { not_before: again.due(), ..attempts });
                            held.push((stub, place, again.due()));
                        }
                        _ => self.lose_volatile(&stub, failed.why.clone()),
                    }
                    if all_failed || failed.decision.actor != OnActor::Rebuild {
                        endings.push(failed);
                    }
                }
            }
        }
        // the last first: each becomes the next of its priority or key
        for (stub, place, due) in held.into_iter().rev() {
            self.put_back(stub, place, due).await?;
        }
        Ok((outcomes, endings))
    }
}

/// What the context tells of a bundle: what it would of its first message, but for the id, which is that of this bundle and no
/// other.
fn head_of(stubs: &[Stub]) -> Option<Head> {
    let first = &stubs.first()?.head;
    let all: Vec<u8> = stubs.iter().flat_map(|stub| *stub.head.id.as_bytes()).collect();
    let id = MessageId::of(uuid::Uuid::new_v5(&first.id.uuid(), &all));
    Some(Head { id, ..first.clone() })
}
