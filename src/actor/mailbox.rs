//! A mailbox in memory: what was sent in this process and not yet handled, decoded; behind it stands the log, which has
//! everything. What memory does not have is read from the log.
//!
//! # Invariants
//! - The log decides what waits and in which order; what lies here is only spared the decoding.
//! - Messages are added under the lock under which they were admitted, so they lie here in order of position.
//! - At most [`WINDOW`] messages of each priority lie here; the rest waits on disk.

use std::any::Any;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::list::{Decoder, SumOf};
use super::message::Actor;
use super::reply::{Asker, ReplyLost};
use super::runtime::AnyMailbox;
use crate::clock::Timestamp;
use crate::durable::Ledger;
use crate::envelope::{self, Headers, MessageId};
use crate::store::{LANES, LogId, MailboxId, Slice, StoreError};

/// The most decoded messages of one priority held in memory.
const WINDOW: usize = 1024;
/// The most volatile messages waiting.
const VOLATILE: usize = 4096;

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
    pub(crate) decoder: Decoder<A>,
    pub(crate) bell: Arc<Notify>,
    /// One bit for each priority that got mail since the worker last took the bits.
    fresh: Arc<AtomicU8>,
    pub(crate) control: watch::Sender<Control>,
    /// True while a worker reads this mailbox.
    pub(crate) running: watch::Sender<bool>,
    quick: Mutex<Quick<A>>,
    /// Milliseconds, for each priority; an ask before this time would wait behind a message that is tried again then.
    blocked_until: [AtomicU64; LANES],
    cancelled: Mutex<HashSet<(LogId, u64)>>,
    any_cancelled: AtomicUsize,
    volatile_room: Notify,
    volatile_waiting: AtomicBool,
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

/// A message that is to be handled. Only what was read from a log has a place, and only what has a place can be settled.
pub(crate) struct Letter<A: Actor> {
    pub(crate) place: Option<Place>,
    pub(crate) head: Head,
    pub(crate) body: Body<A>,
    pub(crate) asker: Option<Asker>,
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
        decoder: Decoder<A>,
        bell: Arc<Notify>,
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
            running: watch::Sender::new(false),
            quick: Mutex::new(quick),
            blocked_until: Default::default(),
            cancelled: Mutex::default(),
            any_cancelled: AtomicUsize::new(0),
            volatile_room: Notify::new(),
            volatile_waiting: AtomicBool::new(false),
        }
    }

    pub(crate) fn quick(&self) -> MutexGuard<'_, Quick<A>> {
        self.quick.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn running_now(&self) -> bool {
        *self.running.borrow()
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
        self.bell.notify_one();
        Ok(())
    }

    /// The most volatile messages that may wait.
    pub(crate) const fn volatile_limit() -> u64 {
        VOLATILE as u64
    }

    /// Notified when a volatile message was taken while somebody found no room.
    pub(crate) fn volatile_room(&self) -> &Notify {
        &self.volatile_room
    }

    /// The next volatile message.
    pub(crate) fn pop_volatile(&self) -> Option<Letter<A>> {
        let letter = self.quick().volatile.pop_front()?;
        if self.volatile_waiting.swap(false, Ordering::AcqRel) {
            self.volatile_room.notify_waiters();
        }
        Some(letter)
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

    /// Whether the message was cancelled after it was read.
    pub(crate) fn is_cancelled(&self, place: Place) -> bool {
        self.any_cancelled.load(Ordering::Acquire) > 0 && {
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
        self.bell.notify_one();
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

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// A worker's place in its mailbox: what it took ahead, and where it reads on.
pub(crate) struct Intake<A: Actor> {
    lanes: [Lane<A>; LANES],
}

struct Lane<A: Actor> {
    /// The first position not taken yet.
    next: u64,
    ahead: VecDeque<Letter<A>>,
    /// The log had nothing more when it was last asked; the bell says when to ask again.
    dry: bool,
}

/// How many letters are taken at once.
const AT_ONCE: usize = 64;
/// And how many bytes of them.
const BYTES_AT_ONCE: usize = 1 << 20;

impl<A: Actor> Intake<A> {
    pub(crate) fn new() -> Self {
        Intake { lanes: std::array::from_fn(|_| Lane { next: 0, ahead: VecDeque::new(), dry: false }) }
    }

    /// The bell rang: there may be more.
    pub(crate) fn look_again(&mut self) {
        for lane in &mut self.lanes {
            lane.dry = false;
        }
    }

    /// As [`Intake::look_again`], for the priorities that got mail since this was last called. Without it a priority that was
    /// found empty would be looked at again only when all of them are.
    pub(crate) fn look_where_mail_came(&mut self, mailbox: &Mailbox<A>) {
        if mailbox.fresh.load(Ordering::Relaxed) == 0 {
            return;
        }
        let fresh = mailbox.fresh.swap(0, Ordering::Acquire);
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.dry &= fresh & 1 << index == 0;
        }
    }

    /// The place of the next letter of a lane, if it was taken already.
    pub(crate) fn first(&self, lane: usize) -> Option<Place> {
        self.lanes[lane].ahead.front()?.place
    }

    /// Who asks, among those taken ahead.
    pub(crate) fn askers(&self, lane: usize) -> impl Iterator<Item = Asker> {
        self.lanes[lane].ahead.iter().filter_map(|letter| letter.asker.clone())
    }

    /// Puts a letter back to be the next of its lane.
    pub(crate) fn put_back(&mut self, letter: Letter<A>) {
        if let Some(place) = letter.place {
            let ahead = &mut self.lanes[usize::from(place.log.lane)].ahead;
            if cfg!(steadfast_bug = "pass_over_a_failed_head") {
                ahead.push_back(letter);
            } else {
                ahead.push_front(letter);
            }
        }
    }

    /// The next letter of a lane, in order.
    pub(crate) async fn next(
        &mut self,
        lane: usize,
        mailbox: &Mailbox<A>,
        ledger: &Ledger,
    ) -> Result<Option<Letter<A>>, StoreError> {
        if self.lanes[lane].ahead.is_empty() && !self.lanes[lane].dry {
            self.refill(lane, mailbox, ledger).await?;
        }
        Ok(self.lanes[lane].ahead.pop_front())
    }

    async fn refill(&mut self, lane: usize, mailbox: &Mailbox<A>, ledger: &Ledger) -> Result<(), StoreError> {
        let taken = &mut self.lanes[lane];
        taken.take_quick(mailbox, lane);
        if !taken.ahead.is_empty() {
            return Ok(());
        }
        let log = LogId { mailbox: mailbox.id, lane: lane as u8 };
        let letters = ledger.letters(log, taken.next, AT_ONCE, BYTES_AT_ONCE).await?;
        taken.dry = letters.is_empty();
        for letter in letters {
            taken.next = letter.position + 1;
            let in_memory = take_quick_at(mailbox, lane, letter.position);
            taken.ahead.push_back(in_memory.unwrap_or_else(|| from_log(mailbox, letter)));
        }
        Ok(())
    }
}

impl<A: Actor> Lane<A> {
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
