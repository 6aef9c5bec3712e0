//! A mailbox in memory: what was sent in this process and not yet handled, decoded; behind it stands the log, which has
//! everything. What memory does not have is read from the log.
//!
//! # Invariants
//! - The log decides what waits and in which order; what lies here is only spared the decoding.
//! - Messages are added under the lock under which they were admitted, so they lie here in order of position.
//! - At most [`WINDOW`] messages of each priority lie here; the rest waits on disk.

use std::any::Any;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::batch::About;
use super::context::FromTopic;
use super::life::{Failed, Life};
use super::list::{Decoder, SumOf};
use super::message::Actor;
use super::reply::{Asker, ReplyLost};
use super::runtime::AnyMailbox;
use crate::clock::Timestamp;
use crate::durable::Ledger;
use crate::envelope::{self, Headers, MessageId};
use crate::store::{LANES, LogId, MailboxId, Slice, StoreError, ViewOf, view};
use crate::sync::Bell;
use crate::sync::atomic::AtomicU8;

/// The most decoded messages of one priority held in memory.
const WINDOW: usize = 1024;
/// The most volatile messages waiting.
pub(super) const VOLATILE: usize = 4096;

/// What a worker is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Control {
    Run,
    /// Handle what waits, then end.
    Drain,
    /// End after the turn that runs.
    Stop,
    /// End now; the turn that runs is thrown away.
    Park,
}

/// See the module's head.
pub(crate) struct Mailbox<A: Actor> {
    pub(crate) id: MailboxId,
    pub(crate) name: Arc<str>,
    pub(crate) decoder: Arc<Decoder<A>>,
    pub(crate) bell: Arc<Bell>,
    /// One bit for each priority that got mail since the worker last took the bits.
    fresh: Arc<AtomicU8>,
    pub(crate) control: watch::Sender<Control>,
    /// Whether a worker reads this mailbox; see [`Claim`](super::life::Claim).
    pub(crate) life: watch::Sender<Life>,
    /// Why the worker is to end as failed, if it is.
    fails: Mutex<Option<Failed>>,
    quick: Mutex<Quick<A>>,
    /// Milliseconds, for each priority; an ask before this time would wait behind a message that is tried again then.
    blocked_until: [AtomicU64; LANES],
    cancelled: Mutex<HashSet<(LogId, u64)>>,
    any_cancelled: AtomicUsize,
    volatile_room: Bell,
    volatile_waiting: AtomicBool,
    /// How many of its workers do not yield.
    pub(crate) stuck: Arc<AtomicUsize>,
}

/// What lies in memory.
pub(crate) struct Quick<A: Actor> {
    lanes: [VecDeque<Decoded<A>>; LANES],
    volatile: VecDeque<Letter<A>>,
    /// Who asks, for messages that lie on disk only, and their priority.
    askers: HashMap<MessageId, (usize, Asker)>,
}

struct Decoded<A: Actor> {
    position: u64,
    letter: Letter<A>,
}

/// What is known of a message beside its body.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) id: MessageId,
    pub(crate) sent_at: Timestamp,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) mark: Option<[u8; 16]>,
    pub(crate) headers: Headers,
}

impl Head {
    /// What a handler of batches may know of the message.
    pub(super) fn about(&self, attempt: u32, from: Option<FromTopic>) -> About {
        About { id: self.id, attempt, sent_at: self.sent_at, headers: self.headers.clone(), from }
    }
}

/// A message that is to be handled. Only what was read from a log has a place, and only what has a place can be settled.
pub(crate) struct Letter<A: Actor> {
    pub(crate) place: Option<Place>,
    pub(crate) head: Head,
    pub(crate) body: Body<A>,
    pub(crate) asker: Option<Asker>,
}

impl<A: Actor> Letter<A> {
    /// What it takes in its log, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.place.map_or(0, |place| u64::from(place.len))
    }
}

/// Where a message lies in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) log: LogId,
    pub(crate) position: u64,
    pub(crate) len: u32,
}

/// A message's body, decoded or not.
pub(crate) enum Body<A: Actor> {
    Decoded(SumOf<A>),
    Sealed(Slice),
}

impl<A: Actor> Mailbox<A> {
    pub(crate) fn new(
        id: MailboxId,
        name: Arc<str>,
        decoder: Arc<Decoder<A>>,
        bell: Arc<Bell>,
        fresh: Arc<AtomicU8>,
    ) -> Self {
        let quick = Quick {
            lanes: std::array::from_fn(|_| VecDeque::new()),
            volatile: VecDeque::new(),
            askers: HashMap::new(),
        };
        Mailbox {
            id,
            name,
            decoder,
            bell,
            fresh,
            control: watch::Sender::new(Control::Run),
            life: watch::Sender::new(Life::Unborn),
            fails: Mutex::default(),
            quick: Mutex::new(quick),
            blocked_until: Default::default(),
            cancelled: Mutex::default(),
            any_cancelled: AtomicUsize::new(0),
            volatile_room: Bell::new(),
            volatile_waiting: AtomicBool::new(false),
            stuck: Arc::default(),
        }
    }

    pub(crate) fn quick(&self) -> MutexGuard<'_, Quick<A>> {
        self.quick.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn running_now(&self) -> bool {
        self.life.borrow().is_running()
    }

    /// Whether mail came since the worker last looked.
    pub(crate) fn has_fresh_mail(&self) -> bool {
        self.fresh.load(Ordering::Acquire) != 0
    }

    /// Why the worker that was asked to end is to end as failed; none if it is not.
    pub(super) fn fails(&self) -> Option<Failed> {
        self.fails.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Queues a volatile message, or gives back what it would be made of when there is no room.
    pub(crate) fn push_volatile<T>(&self, what: T, make: impl FnOnce(T) -> Letter<A>) -> Result<(), T> {
        {
            let mut quick = self.quick();
            if quick.volatile.len() >= VOLATILE {
                self.volatile_waiting.store(true, Ordering::Release);
                return Err(what);
            }
            quick.volatile.push_back(make(what));
        }
        self.bell.ring();
        Ok(())
    }

    /// Notified when a volatile message was taken while somebody found no room.
    pub(crate) fn volatile_room(&self) -> &Bell {
        &self.volatile_room
    }

    /// The next volatile message.
    pub(crate) fn pop_volatile(&self) -> Option<Letter<A>> {
        let letter = self.quick().volatile.pop_front()?;
        if self.volatile_waiting.swap(false, Ordering::AcqRel) {
            self.volatile_room.ring_all();
        }
        Some(letter)
    }

    /// The letter at this place again, if it was not settled.
    pub(crate) async fn letter_at(
        &self,
        place: Place,
        ledger: &Ledger,
    ) -> Result<Option<Letter<A>>, StoreError> {
        let letters = ledger.letters(place.log, place.position, 1, 1).await?;
        let here = letters.into_iter().find(|letter| letter.position == place.position);
        Ok(here.map(|letter| from_log(self, letter)))
    }

    /// Puts a volatile message that was not handled back, to be the next.
    pub(crate) fn put_back_volatile(&self, letter: Letter<A>) {
        self.quick().volatile.push_front(letter);
    }

    /// Forgets who asks: the ask has ended.
    pub(crate) fn forget_asker(&self, id: MessageId) {
        self.quick().askers.remove(&id);
    }

    /// Until when an ask of this priority would be held up.
    pub(crate) fn blocked_until(&self, lane: usize) -> Timestamp {
        Timestamp::from_millis(self.blocked_until[lane].load(Ordering::Acquire))
    }

    pub(crate) fn set_blocked_until(&self, lane: usize, until: Timestamp) {
        self.blocked_until[lane].store(until.as_millis(), Ordering::Release);
    }

    /// Everybody who waits for a reply of a message of this priority that lies here.
    pub(crate) fn askers_in(&self, lane: usize) -> Vec<Asker> {
        let quick = self.quick();
        let letters = quick.lanes[lane].iter().filter_map(|decoded| decoded.letter.asker.clone());
        let on_disk = quick.askers.values().filter(|(of, _)| *of == lane).map(|(_, asker)| asker.clone());
        letters.chain(on_disk).collect()
    }

    /// Whether there are messages that were cancelled after they were sent, and not seen since.
    pub(crate) fn has_cancelled(&self) -> bool {
        self.any_cancelled.load(Ordering::Acquire) > 0
    }

    /// Whether the message was cancelled after it was read.
    pub(crate) fn is_cancelled(&self, place: Place) -> bool {
        self.has_cancelled() && {
            let cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
            cancelled.contains(&(place.log, place.position))
        }
    }

    /// As [`Mailbox::is_cancelled`], and forgets it.
    pub(crate) fn was_cancelled(&self, place: Place) -> bool {
        if self.any_cancelled.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        let was = cancelled.remove(&(place.log, place.position));
        self.any_cancelled.store(cancelled.len(), Ordering::Release);
        was
    }

    /// Drops what lies in memory: a stopped worker's successor reads the log.
    pub(crate) fn clear(&self) {
        let mut quick = self.quick();
        for lane in 0..LANES {
            let dropped = std::mem::take(&mut quick.lanes[lane]);
            for decoded in dropped {
                if let Some(asker) = decoded.letter.asker {
                    quick.remember_asker(decoded.letter.head.id, lane, asker);
                }
            }
        }
    }
}

impl<A: Actor> Quick<A> {
    /// Remembers who asks, for a message that will be read from the log again.
    pub(crate) fn remember_asker(&mut self, id: MessageId, lane: usize, asker: Asker) {
        self.askers.insert(id, (lane, asker));
    }

    /// Keeps a message that was just admitted, if there is room; otherwise only who asks.
    pub(crate) fn push(&mut self, position: u64, letter: Letter<A>, running: bool) {
        let lane = letter.place.map_or(0, |place| usize::from(place.log.lane));
        if running && self.lanes[lane].len() < WINDOW {
            self.lanes[lane].push_back(Decoded { position, letter });
        } else if let Some(asker) = letter.asker {
            self.remember_asker(letter.head.id, lane, asker);
        }
    }
}

impl<A: Actor> AnyMailbox for Mailbox<A> {
    fn actor(&self) -> &'static str {
        A::NAME
    }

    fn is_running(&self) -> bool {
        self.running_now()
    }

    fn cancelled(&self, log: LogId, position: u64) {
        let mut cancelled = self.cancelled.lock().unwrap_or_else(PoisonError::into_inner);
        cancelled.insert((log, position));
        self.any_cancelled.store(cancelled.len(), Ordering::Release);
        drop(cancelled);
        // it may be the one that holds up the others
        self.bell.ring();
    }

    fn id(&self) -> MailboxId {
        self.id
    }

    fn end_with(&self, why: Failed) {
        *self.fails.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.control.send_modify(|control| *control = (*control).max(Control::Stop));
    }

    fn lose_asker(&self, id: MessageId) {
        if let Some((_, asker)) = self.quick().askers.remove(&id) {
            asker.lose(ReplyLost::Stopped);
        }
    }

    fn lose_askers(&self) {
        for asker in (0..LANES).flat_map(|lane| self.askers_in(lane)) {
            asker.lose(ReplyLost::Stopped);
        }
        let volatile = std::mem::take(&mut self.quick().volatile);
        for asker in volatile.into_iter().filter_map(|letter| letter.asker) {
            asker.lose(ReplyLost::Stopped);
        }
    }

    fn holds_mail(&self) -> bool {
        !self.quick().volatile.is_empty()
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// What a worker looks for, each in an order of its own: mail of each priority, by its lane, and [events](EVENTS).
pub(crate) const CLASSES: usize = LANES + 1;
/// The class of what is shown from topics.
pub(crate) const EVENTS: usize = LANES;
/// The classes in the order in which they are looked for: events come after mail of normal priority, and before that of low.
pub(crate) const IN_ORDER: [usize; CLASSES] = [0, 1, EVENTS, 2];

impl Place {
    /// The class of what lies here.
    pub(crate) fn class(self) -> usize {
        if self.log.is_shown() { EVENTS } else { usize::from(self.log.lane) }
    }
}

/// A worker's place in its mailbox and in the topics it reads: what it took ahead, and where it reads on.
pub(crate) struct Intake<A: Actor> {
    lanes: [Lane<A>; LANES],
    shown: Vec<Shown<A>>,
    /// The topic of which the next event is taken, in turn.
    turn: usize,
    /// The place in one of the topics was moved, and it is not read from there yet.
    moved: bool,
}

struct Lane<A: Actor> {
    /// The first position not taken yet.
    next: u64,
    ahead: VecDeque<Letter<A>>,
    /// The log had nothing more when it was last asked; the bell says when to ask again.
    dry: bool,
}

/// A topic that is read through a view.
struct Shown<A: Actor> {
    view: ViewOf,
    lane: Lane<A>,
    /// Until when an event that is to be tried again holds up those behind it.
    held: Option<Timestamp>,
    /// The place was moved, and it is not read from there yet.
    moved: bool,
}

/// How many letters are taken at once.
const AT_ONCE: usize = 64;
/// And how many bytes of them.
const BYTES_AT_ONCE: usize = 1 << 20;

impl<A: Actor> Intake<A> {
    pub(crate) fn new(views: Vec<ViewOf>) -> Self {
        let shown = views.into_iter().map(Shown::new).collect();
        Intake { lanes: std::array::from_fn(|_| Lane::new()), shown, turn: 0, moved: false }
    }

    /// The bell rang: there may be more.
    pub(crate) fn look_again(&mut self) {
        for lane in &mut self.lanes {
            lane.dry = false;
        }
        for shown in self.shown.iter_mut().filter(|shown| !shown.moved) {
            shown.lane.dry = false;
        }
    }

    /// As [`Intake::look_again`], for where something came since this was last called. Without it a priority that was found
    /// empty would be looked at again only when all of them are.
    ///
    /// Gives the views of which nothing that was taken before is to be handled: they have ended, or their place was moved. One that
    /// was moved is read again when none of its events is in somebody's hands any more: otherwise two might have the same.
    pub(crate) fn look_where_mail_came(
        &mut self,
        mailbox: &Mailbox<A>,
        ledger: &Ledger,
        in_hand: impl Fn(LogId) -> bool,
    ) -> Vec<LogId> {
        let mut stale = Vec::new();
        if mailbox.fresh.load(Ordering::Relaxed) != 0 {
            let fresh = mailbox.fresh.swap(0, Ordering::Acquire);
            for (index, lane) in self.lanes.iter_mut().enumerate() {
                lane.dry &= fresh & 1 << index == 0;
            }
            if fresh & view::VIEWS != 0 {
                stale = self.read_views(ledger.store().views_of(mailbox.id));
            }
            if fresh & view::SHOWN != 0 {
                self.shown.iter_mut().for_each(Shown::look_where_events_came);
                self.moved |= self.shown.iter().any(|shown| shown.moved);
            }
        }
        if std::mem::take(&mut self.moved) {
            for shown in self.shown.iter_mut().filter(|shown| shown.moved) {
                stale.push(shown.view.log);
                shown.drop_what_was_taken();
                shown.moved = in_hand(shown.view.log) && !cfg!(steadfast_bug = "read_again_what_is_in_hand");
                shown.lane.dry = shown.moved;
                self.moved |= shown.moved;
            }
        }
        stale
    }

    /// Has it read these views: those it reads already it goes on with. Gives those that it read before.
    fn read_views(&mut self, views: Vec<ViewOf>) -> Vec<LogId> {
        let mut before = std::mem::take(&mut self.shown);
        for view in views {
            let known = before.iter().position(|shown| shown.view.log == view.log);
            self.shown.push(known.map_or_else(|| Shown::new(view), |known| before.swap_remove(known)));
        }
        before.into_iter().map(|shown| shown.view.log).collect()
    }

    /// The first position of a view that was taken ahead.
    pub(crate) fn first_of(&self, view: LogId) -> Option<u64> {
        let shown = self.shown.iter().find(|shown| shown.view.log == view)?;
        shown.lane.ahead.iter().filter_map(|letter| letter.place).map(|place| place.position).min()
    }

    /// The place of the next letter of a lane, if it was taken already.
    pub(crate) fn first(&self, lane: usize) -> Option<Place> {
        self.lanes.get(lane)?.ahead.front()?.place
    }

    /// Who asks, among those taken ahead.
    pub(crate) fn askers(&self, lane: usize) -> impl Iterator<Item = Asker> {
        self.lanes[lane].ahead.iter().filter_map(|letter| letter.asker.clone())
    }

    /// Remembers who asks with what was taken ahead: the next worker reads these letters again.
    pub(crate) fn hand_over_askers(&self, mailbox: &Mailbox<A>) {
        let mut quick = mailbox.quick();
        for (index, lane) in self.lanes.iter().enumerate() {
            for letter in &lane.ahead {
                if let Some(asker) = &letter.asker {
                    quick.remember_asker(letter.head.id, index, asker.clone());
                }
            }
        }
    }

    /// Puts a letter back to be the next of its lane, or of its topic.
    pub(crate) fn put_back(&mut self, letter: Letter<A>) {
        let Some(place) = letter.place else { return };
        let lane = match place.log.is_shown() {
            false => Some(&mut self.lanes[usize::from(place.log.lane)]),
            // none: it is not subscribed to any more
            true => self.shown_at(place.log).map(|shown| &mut shown.lane),
        };
        let Some(lane) = lane else { return };
        if cfg!(steadfast_bug = "pass_over_a_failed_head") {
            lane.ahead.push_back(letter);
        } else {
            lane.ahead.push_front(letter);
        }
    }

    fn shown_at(&mut self, log: LogId) -> Option<&mut Shown<A>> {
        self.shown.iter_mut().find(|shown| shown.view.log == log)
    }

    /// The next letter of a class, in order; of events, the next one of a topic that is not held up.
    pub(crate) async fn next(
        &mut self,
        class: usize,
        now: Timestamp,
        mailbox: &Mailbox<A>,
        ledger: &Ledger,
    ) -> Result<Option<Letter<A>>, StoreError> {
        if class == EVENTS {
            return self.next_event(now, mailbox, ledger).await;
        }
        if self.lanes[class].ahead.is_empty() && !self.lanes[class].dry {
            self.refill(class, mailbox, ledger).await?;
        }
        Ok(self.take(class))
    }

    async fn next_event(
        &mut self,
        now: Timestamp,
        mailbox: &Mailbox<A>,
        ledger: &Ledger,
    ) -> Result<Option<Letter<A>>, StoreError> {
        for _ in 0..self.shown.len() {
            let at = self.next_turn();
            let shown = &mut self.shown[at];
            if shown.held.is_some_and(|until| until > now) {
                continue;
            }
            shown.held = None;
            if shown.lane.ahead.is_empty() && !shown.lane.dry {
                shown.lane.read(shown.view.log, mailbox, ledger).await?;
            }
            if let Some(letter) = shown.lane.ahead.pop_front() {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// Whose turn it is.
    fn next_turn(&mut self) -> usize {
        self.turn = (self.turn + 1) % self.shown.len().max(1);
        self.turn
    }

    /// Holds up a topic until a time, and puts its next event back.
    pub(crate) fn hold_event(&mut self, letter: Letter<A>, until: Timestamp) {
        let of = letter.place.map(|place| place.log);
        let all = cfg!(steadfast_bug = "hold_up_every_topic");
        for shown in self.shown.iter_mut().filter(|shown| all || Some(shown.view.log) == of) {
            shown.held = Some(until);
        }
        self.put_back(letter);
    }

    /// Until when topics are held up.
    pub(crate) fn held_events(&self) -> impl Iterator<Item = Timestamp> {
        self.shown.iter().filter_map(|shown| shown.held)
    }

    /// The next letter of a class among those taken ahead.
    pub(crate) fn take(&mut self, class: usize) -> Option<Letter<A>> {
        if class < LANES {
            return self.lanes[class].ahead.pop_front();
        }
        (0..self.shown.len()).find_map(|_| {
            let at = self.next_turn();
            self.shown[at].lane.ahead.pop_front()
        })
    }

    fn lanes_of(&self, class: usize) -> impl Iterator<Item = &Lane<A>> {
        let shown = if class == EVENTS { &*self.shown } else { &[] };
        self.lanes.get(class).into_iter().chain(shown.iter().map(|shown| &shown.lane))
    }

    /// Whether the logs of a class had nothing more when they were last asked.
    pub(crate) fn is_dry(&self, class: usize) -> bool {
        self.lanes_of(class).all(|lane| lane.dry)
    }

    /// Whether a look might find a letter.
    pub(crate) fn may_have_more(&self, class: usize) -> bool {
        self.lanes_of(class).any(|lane| !lane.ahead.is_empty() || !lane.dry)
    }

    /// Takes more letters of a class ahead.
    pub(crate) async fn refill(
        &mut self,
        class: usize,
        mailbox: &Mailbox<A>,
        ledger: &Ledger,
    ) -> Result<(), StoreError> {
        if let Some(lane) = self.lanes.get_mut(class) {
            lane.take_quick(mailbox, class);
            let log = LogId { mailbox: mailbox.id, lane: class as u8 };
            return if lane.ahead.is_empty() { lane.read(log, mailbox, ledger).await } else { Ok(()) };
        }
        for shown in &mut self.shown {
            if shown.lane.ahead.is_empty() && !shown.lane.dry {
                shown.lane.read(shown.view.log, mailbox, ledger).await?;
            }
        }
        Ok(())
    }
}

impl<A: Actor> Shown<A> {
    fn new(view: ViewOf) -> Self {
        Shown { view, lane: Lane::new(), held: None, moved: false }
    }

    fn look_where_events_came(&mut self) {
        let fresh = self.view.fresh.swap(0, Ordering::Acquire);
        if fresh & view::MOVED != 0 {
            self.moved = true;
        }
        self.lane.dry &= fresh == 0;
    }

    /// Nothing that was taken from where the place was is to be handled, or to hold up anything.
    fn drop_what_was_taken(&mut self) {
        self.lane.next = 0;
        if !cfg!(steadfast_bug = "keep_what_was_read_ahead") {
            self.lane.ahead.clear();
        }
        if !cfg!(steadfast_bug = "hold_over_a_seek") {
            self.held = None;
        }
    }
}

impl<A: Actor> Lane<A> {
    fn new() -> Self {
        Lane { next: 0, ahead: VecDeque::new(), dry: false }
    }

    /// Takes more letters ahead from the log.
    async fn read(&mut self, log: LogId, mailbox: &Mailbox<A>, ledger: &Ledger) -> Result<(), StoreError> {
        let mut letters = ledger.letters(log, self.next, AT_ONCE, BYTES_AT_ONCE).await?;
        if ledger.store().is_left_alone(log) {
            letters.clear();
        }
        self.dry = letters.is_empty();
        for letter in letters {
            self.next = letter.position + 1;
            let in_memory = match log.is_shown() {
                true => None,
                false => take_quick_at(mailbox, log.lane.into(), letter.position),
            };
            self.ahead.push_back(in_memory.unwrap_or_else(|| from_log(mailbox, letter)));
        }
        Ok(())
    }

    /// Takes the run of decoded messages that follows what was taken.
    fn take_quick(&mut self, mailbox: &Mailbox<A>, lane: usize) {
        let mut quick = mailbox.quick();
        while let Some(first) = quick.lanes[lane].front() {
            match first.position.cmp(&self.next) {
                std::cmp::Ordering::Less => drop(quick.lanes[lane].pop_front()),
                std::cmp::Ordering::Equal if self.ahead.len() < AT_ONCE => {
                    self.next += 1;
                    self.ahead.extend(quick.lanes[lane].pop_front().map(|decoded| decoded.letter));
                }
                _ => return,
            }
        }
    }
}

/// The decoded message at a position, if it lies in memory; what lies before it there is settled already.
fn take_quick_at<A: Actor>(mailbox: &Mailbox<A>, lane: usize, position: u64) -> Option<Letter<A>> {
    let mut quick = mailbox.quick();
    while quick.lanes[lane].front().is_some_and(|first| first.position < position) {
        quick.lanes[lane].pop_front();
    }
    let here = quick.lanes[lane].front().is_some_and(|first| first.position == position);
    here.then(|| quick.lanes[lane].pop_front()).flatten().map(|decoded| decoded.letter)
}

fn from_log<A: Actor>(mailbox: &Mailbox<A>, letter: crate::store::Letter) -> Letter<A> {
    let place = Place { log: letter.log, position: letter.position, len: letter.envelope.len() as u32 };
    let head = head_of(&letter.envelope, place);
    let asker = mailbox.quick().askers.remove(&head.id).map(|(_, asker)| asker);
    Letter { place: Some(place), head, body: Body::Sealed(letter.envelope), asker }
}

/// The head of a sealed message. Of one that cannot be opened nothing is known but its place, from which it gets an id:
/// it is buried as it is.
fn head_of(envelope: &[u8], place: Place) -> Head {
    match envelope::open(envelope) {
        Ok(envelope) => Head {
            id: MessageId::of(envelope.id),
            sent_at: envelope.sent_at,
            expires: envelope.expires,
            mark: envelope.mark,
            headers: envelope.headers.iter().copied().collect(),
        },
        Err(_) => {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&place.log.mailbox.to_be_bytes());
            id[4] = place.log.lane;
            id[8..].copy_from_slice(&place.position.to_be_bytes());
            let (id, headers) = (MessageId::from_bytes(id), Headers::new());
            Head { id, sent_at: Timestamp::default(), expires: None, mark: None, headers }
        }
    }
}
