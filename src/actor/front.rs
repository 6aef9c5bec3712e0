//! What reads letters out of a mailbox for a worker: what was taken ahead, what is held up by a letter that is to be tried
//! again, and what is known of letters that have failed. A worker alone has all this to itself, without a lock; the workers of
//! a [pool](super::pool) share it.
//!
//! # Invariants
//! - The letters of one priority come out in the order of their log, but for those that gave up their place.
//! - A letter that is held comes no sooner than it is due, unless it was cancelled, and none of its priority before it.

use std::collections::HashMap;

use super::mailbox::{EVENTS, IN_ORDER, Intake, Letter, Mailbox};
use super::message::Actor;
use super::order::Order;
use super::pool::{Pool, Seat};
use super::reply::ReplyLost;
use super::worker::MailboxOptions;
use crate::clock::Timestamp;
use crate::durable::{Attempts, Ledger};
use crate::envelope::MessageId;
use crate::store::{LANES, LogId, StoreError, ViewOf};

/// See the module's head.
pub(super) enum Front<A: Actor> {
    Own(Box<Line<A>>),
    Shared(Seat<A>),
}

impl<A: Actor> Front<A> {
    /// One for each worker of a mailbox.
    pub(super) fn all(
        options: &MailboxOptions,
        tried: HashMap<MessageId, Attempts>,
        views: Vec<ViewOf>,
    ) -> Vec<Self> {
        let MailboxOptions { order, workers, .. } = *options;
        match order {
            // what it takes ahead never has to wait for a key
            Order::Strict | Order::Unordered if workers <= 1 => {
                vec![Front::Own(Box::new(Line::new(order == Order::Strict, tried, views)))]
            }
            _ => Pool::seats(order, workers.max(1), options.batch.is_some(), tried, views)
                .map(Front::Shared)
                .collect(),
        }
    }

    /// The next letter that may be handled now.
    pub(super) async fn next(
        &mut self,
        now: Timestamp,
        mailbox: &Mailbox<A>,
        ledger: &Ledger,
    ) -> Result<Option<Letter<A>>, StoreError> {
        match self {
            Front::Own(line) => {
                let next = line.next(now, mailbox, ledger).await?;
                line.in_hand |= next.is_some();
                Ok(next)
            }
            Front::Shared(seat) => seat.next(now, mailbox, ledger).await,
        }
    }

    /// Keeps a letter as the next of its priority or key, not before `due`.
    pub(super) fn hold(&mut self, letter: Letter<A>, due: Timestamp, now: Timestamp, mailbox: &Mailbox<A>) {
        match self {
            Front::Own(line) => line.hold(letter, due, now, mailbox),
            Front::Shared(seat) => seat.hold(letter, due, now, mailbox),
        }
    }

    /// Puts a letter that was not handled back, to be the next of its priority or key.
    pub(super) fn put_back(&mut self, letter: Letter<A>, mailbox: &Mailbox<A>) {
        match self {
            Front::Own(line) => line.put_back(letter, mailbox),
            Front::Shared(seat) => seat.put_back(letter),
        }
    }

    /// What was taken has been handled, or put back.
    pub(super) fn release(&mut self) {
        match self {
            Front::Own(line) => line.in_hand = false,
            Front::Shared(seat) => seat.release(),
        }
    }

    /// When the first of the letters that are held may be handled.
    pub(super) fn due(&self) -> Option<Timestamp> {
        match self {
            Front::Own(line) => line.held().min(),
            Front::Shared(seat) => seat.due(),
        }
    }

    /// The first position of those events of a view that were read and are not settled yet, in whoever's hands; of a worker
    /// alone, of those that are not in its hands.
    pub(super) fn first_here(&self, view: LogId) -> Option<u64> {
        match self {
            Front::Own(line) => line.intake.first_of(view),
            Front::Shared(seat) => seat.first_here(view),
        }
    }

    /// Whether nothing waits here that would be handled without new mail.
    pub(super) fn is_idle(&self) -> bool {
        match self {
            Front::Own(line) => line.held().next().is_none(),
            Front::Shared(seat) => seat.is_idle(),
        }
    }

    /// The bell rang: there may be more.
    pub(super) fn look_again(&mut self) {
        match self {
            Front::Own(line) => line.intake.look_again(),
            Front::Shared(seat) => seat.look_again(),
        }
    }

    /// Resolves when there may be more.
    pub(super) async fn woken(&mut self, mailbox: &Mailbox<A>) {
        match self {
            Front::Own(_) => mailbox.bell.rung().await,
            Front::Shared(seat) => tokio::select! {
                biased;
                () = mailbox.bell.rung() => {}
                () = seat.woken() => {}
            },
        }
    }

    /// The worker has ended. The next one reads the letters that are here again; who asks with them goes on waiting.
    pub(super) fn leave(&mut self, mailbox: &Mailbox<A>) {
        match self {
            Front::Own(_) if cfg!(steadfast_bug = "forget_askers_at_a_restart") => {}
            Front::Own(line) => line.intake.hand_over_askers(mailbox),
            Front::Shared(seat) => seat.leave_if_alone(mailbox),
        }
    }

    /// Its place among others; none when it has its mailbox to itself.
    pub(super) fn seat(&self) -> Option<&Seat<A>> {
        match self {
            Front::Own(_) => None,
            Front::Shared(seat) => Some(seat),
        }
    }

    fn tried<T>(&mut self, with: impl FnOnce(&mut HashMap<MessageId, Attempts>) -> T) -> T {
        match self {
            Front::Own(line) => with(&mut line.tried),
            Front::Shared(seat) => seat.tried(with),
        }
    }

    /// Which attempt of a message is the next, from 1.
    pub(super) fn attempt(&mut self, id: MessageId) -> u32 {
        self.tried(|tried| tried.get(&id).map_or(1, |attempts| attempts.count + 1))
    }

    /// Whether it was handled before, and not to its end.
    pub(super) fn has_failed(&mut self, id: MessageId) -> bool {
        self.tried(|tried| tried.contains_key(&id))
    }

    pub(super) fn attempts(&mut self, id: MessageId) -> Attempts {
        self.tried(|tried| tried.get(&id).cloned().unwrap_or_default())
    }

    pub(super) fn remember(&mut self, id: MessageId, attempts: Attempts) {
        self.tried(|tried| tried.insert(id, attempts));
    }

    /// The message was settled. Whether anything was known of it.
    pub(super) fn forget(&mut self, id: MessageId) -> bool {
        self.tried(|tried| tried.remove(&id).is_some())
    }
}

/// The front of a worker alone.
pub(super) struct Line<A: Actor> {
    intake: Intake<A>,
    /// Whether a letter that is to be tried again holds up those behind it.
    strict: bool,
    /// The worker has something that it took, and may be taking more for the same turn.
    in_hand: bool,
    /// Until when each priority is held up.
    held: [Option<Timestamp>; LANES],
    /// Messages that have failed and are not settled.
    tried: HashMap<MessageId, Attempts>,
}

impl<A: Actor> Line<A> {
    fn new(strict: bool, tried: HashMap<MessageId, Attempts>, views: Vec<ViewOf>) -> Self {
        Line { intake: Intake::new(views), strict, in_hand: false, held: [None; LANES], tried }
    }

    /// Until when something here is held.
    fn held(&self) -> impl Iterator<Item = Timestamp> {
        self.held.iter().flatten().copied().chain(self.intake.held_events())
    }

    /// The next letter that may be handled now.
    async fn next(
        &mut self,
        now: Timestamp,
        mailbox: &Mailbox<A>,
        ledger: &Ledger,
    ) -> Result<Option<Letter<A>>, StoreError> {
        if !cfg!(steadfast_bug = "look_late_for_higher_priorities") {
            let in_hand = self.in_hand;
            self.intake.look_where_mail_came(mailbox, ledger, |_| in_hand);
        }
        for class in IN_ORDER {
            let first = self.intake.first(class);
            let cancelled = first.is_some_and(|place| mailbox.is_cancelled(place));
            if self.is_held(class, now, cancelled, mailbox) {
                continue;
            }
            while let Some(letter) = self.intake.next(class, now, mailbox, ledger).await? {
                // after a restart: it failed before and its time has not come
                let due = self.tried.get(&letter.head.id).map(|attempts| attempts.not_before);
                let Some(due) = due.filter(|due| self.strict && *due > now && !cancelled) else {
                    return Ok(Some(letter));
                };
                self.hold(letter, due, now, mailbox);
                if class != EVENTS {
                    break;
                }
            }
        }
        Ok(mailbox.pop_volatile())
    }

    /// Whether a priority is held up. Once its time has come, or what holds it up was cancelled, it is not any more.
    fn is_held(&mut self, class: usize, now: Timestamp, cancelled: bool, mailbox: &Mailbox<A>) -> bool {
        let Some(held) = self.held.get_mut(class) else { return false };
        if held.is_some_and(|until| until > now) && !cancelled {
            return true;
        }
        if held.take().is_some() {
            mailbox.set_blocked_until(class, Timestamp::default());
        }
        false
    }

    /// Keeps a letter as the next of its priority, not before `due`.
    fn hold(&mut self, letter: Letter<A>, due: Timestamp, now: Timestamp, mailbox: &Mailbox<A>) {
        let Some(place) = letter.place else { return };
        if place.class() == EVENTS {
            return self.intake.hold_event(letter, due);
        }
        let lane = usize::from(place.log.lane);
        self.held[lane] = Some(due);
        mailbox.set_blocked_until(lane, due);
        if due > now {
            for asker in self.intake.askers(lane).chain(mailbox.askers_in(lane)) {
                asker.lose(ReplyLost::Blocked(due));
            }
        }
        self.intake.put_back(letter);
    }

    fn put_back(&mut self, letter: Letter<A>, mailbox: &Mailbox<A>) {
        match letter.place {
            Some(_) => self.intake.put_back(letter),
            None => mailbox.put_back_volatile(letter),
        }
    }
}
