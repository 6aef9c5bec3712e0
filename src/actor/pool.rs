//! What several workers of one mailbox share: the letters that were taken from it, sorted by key, and who handles which key. Each
//! worker has a seat; those of a pool are taken once, those of a [group](super::group) come and go.
//!
//! # Invariants
//! - A key has one owner at a time: the worker that handles letters of it, from taking the first of them until its turn is
//!   committed. Nobody else is given a letter of this key meanwhile, whoever comes or goes.
//! - A seat is given up only when its worker has ended. What that had in hand and did not settle is put back first, to be the next
//!   of its key; then its keys have no owner.
//! - The letters of one key and priority come out in the order of their log, but for those that gave up their place.
//! - Where keys have a home ([`Spread::ByKey`]), a letter is given to the worker at the home of its key alone. Homes change only when a
//!   seat is taken or given up.
//! - What waits here for its key is bounded, by count and by bytes, for each priority; when that is reached nothing more is read.
//! - Whoever takes a letter and leaves others behind wakes one more worker, and whoever finds one for another wakes that one, so
//!   that no letter waits while the worker that may have it sleeps. So it is with what is held: while workers sleep, one of them
//!   wakes when the first of it is due.
//! - The lock is not held while the log is read.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::affinity::{Spread, home, salt_of};
use super::mailbox::{self, EVENTS, IN_ORDER, Intake, Letter, Mailbox, Place};
use super::message::Actor;
use super::order::{Key, Order};
use super::reply::ReplyLost;
use crate::clock::Timestamp;
use crate::durable::{Attempts, Ledger};
use crate::envelope::MessageId;
use crate::store::{LANES, LogId, StoreError, ViewOf};
use crate::sync::Bell;

/// The most letters of one priority that wait here for their key.
pub(super) const WINDOW: usize = 1024;
/// And the most bytes of them.
const WINDOW_BYTES: u64 = 4 << 20;

/// Those of the mailbox, and volatile letters.
const CLASSES: usize = mailbox::CLASSES + 1;
const VOLATILE: usize = mailbox::CLASSES;
/// The number of no seat.
const NOBODY: u64 = u64::MAX;

/// See the module's head.
pub(super) struct Pool<A: Actor> {
    sorted: Mutex<Sorted<A>>,
    /// There may be a letter for one more worker.
    look: Bell,
    /// How many seats are taken.
    taken: AtomicUsize,
    /// The number of the next seat of a group.
    next: AtomicU64,
}

/// One worker's place in a pool.
pub(super) struct Seat<A: Actor> {
    pool: Arc<Pool<A>>,
    number: u64,
    name: Arc<str>,
    /// There is something for this worker, which may be the only one to have it; none in a pool, where anybody may.
    look: Option<Arc<Bell>>,
}

/// What the worker of a seat does now.
pub(super) struct Doing {
    pub(super) number: u64,
    pub(super) name: Arc<str>,
    pub(super) keys: usize,
    pub(super) letters: usize,
}

impl<A: Actor> Pool<A> {
    /// As many seats as there are workers, all taken.
    pub(super) fn seats(
        order: Order,
        workers: usize,
        gathers: bool,
        tried: HashMap<MessageId, Attempts>,
        views: Vec<ViewOf>,
    ) -> impl Iterator<Item = Seat<A>> {
        let pool = Pool::new(order, Spread::AnyFree, gathers, tried, views);
        (0..workers as u64).map(move |number| {
            let seat = Seat { pool: pool.clone(), number, name: "".into(), look: None };
            seat.take();
            seat
        })
    }

    /// No seats.
    pub(super) fn new(
        order: Order,
        spread: Spread,
        gathers: bool,
        tried: HashMap<MessageId, Attempts>,
        views: Vec<ViewOf>,
    ) -> Arc<Self> {
        let sorted = Mutex::new(Sorted::new(order, spread, gathers, tried, Intake::new(views)));
        Arc::new(Pool { sorted, look: Bell::new(), taken: AtomicUsize::new(0), next: AtomicU64::new(1) })
    }

    /// A seat for a worker that may come: not taken. Without a name it gets its number.
    pub(super) fn seat(self: &Arc<Self>, name: Option<Arc<str>>) -> Seat<A> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = name.unwrap_or_else(|| number.to_string().into());
        Seat { pool: self.clone(), number, name, look: Some(Arc::default()) }
    }

    /// The worker of a seat has ended, in whatever way: what it had in hand and did not settle is put back, and others get its keys.
    ///
    /// # Errors
    /// What it had in hand cannot be read: it is not here any more, and must be read from its log before anything behind it.
    pub(super) async fn vacate(
        &self,
        number: u64,
        mailbox: &Mailbox<A>,
        ledger: &Ledger,
    ) -> Result<(), StoreError> {
        let in_hand = self.sorted().in_hand(number);
        // the last first: each becomes the next of its key
        for place in in_hand.into_iter().rev().filter(|_| !cfg!(steadfast_bug = "forget_what_a_leaver_had")) {
            if let Some(letter) = mailbox.letter_at(place, ledger).await? {
                self.sorted().put_back(letter, number);
            }
        }
        let mut sorted = self.sorted();
        sorted.stand_up(number);
        self.taken.store(sorted.hands.len(), Ordering::Release);
        // one of them may have to read on, wake when something is due, or end
        sorted.hands.values().filter_map(|hand| hand.look.as_ref()).for_each(|look| look.ring());
        self.look.ring();
        Ok(())
    }

    /// How many seats are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// What each worker does, in the order in which they came.
    pub(super) fn doing(&self) -> Vec<Doing> {
        let doing = |(number, hand): (&u64, &Hand)| {
            let (keys, letters) = (hand.keys.len(), hand.letters);
            Doing { number: *number, name: hand.name.clone(), keys, letters }
        };
        self.sorted().hands.iter().map(doing).collect()
    }

    /// See [`Intake::hand_over_askers`].
    pub(super) fn hand_over_askers(&self, mailbox: &Mailbox<A>) {
        self.sorted().hand_over_askers(mailbox);
    }

    fn wake_one(&self) {
        if !cfg!(steadfast_bug = "leave_other_workers_asleep") {
            self.look.ring();
        }
    }

    fn sorted(&self) -> MutexGuard<'_, Sorted<A>> {
        self.sorted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Actor> Seat<A> {
    fn sorted(&self) -> MutexGuard<'_, Sorted<A>> {
        self.pool.sorted()
    }

    pub(super) fn pool(&self) -> &Arc<Pool<A>> {
        &self.pool
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// From now on it is given letters.
    pub(super) fn take(&self) {
        let mut sorted = self.sorted();
        sorted.sit(self.number, Hand::new(self.name.clone(), self.look.clone()));
        self.pool.taken.store(sorted.hands.len(), Ordering::Release);
    }

    /// The next letter that this worker may handle now. It owns the letter's key until [`Seat::release`].
    pub(super) async fn next(
        &self,
        now: Timestamp,
        mailbox: &Mailbox<A>,
        ledger: &Ledger,
    ) -> Result<Option<Letter<A>>, StoreError> {
        loop {
            let picked = {
                let mut sorted = self.sorted();
                let picked = sorted.pick(self.number, now, mailbox, ledger);
                if matches!(picked, Pick::Letter(_)) && sorted.needs_another() {
                    self.pool.wake_one();
                }
                picked
            };
            let (lane, intake) = match picked {
                Pick::Letter(letter) => return Ok(Some(*letter)),
                Pick::Nothing => return Ok(None),
                Pick::Read(lane, intake) => (lane, intake),
            };
            let mut reading = Reading { pool: &self.pool, intake: Some(intake) };
            if let Some(intake) = &mut reading.intake {
                intake.refill(lane, mailbox, ledger).await?;
            }
        }
    }

    /// The turn is over: others may have letters of the keys it owned.
    pub(super) fn release(&self) {
        let mut sorted = self.sorted();
        sorted.release(self.number);
        if sorted.has_more() {
            self.pool.wake_one();
        }
    }

    pub(super) fn hold(&self, letter: Letter<A>, due: Timestamp, now: Timestamp, mailbox: &Mailbox<A>) {
        self.sorted().hold(letter, due, now, mailbox, self.number);
    }

    /// Puts a letter that was not handled back, to be the next of its key.
    pub(super) fn put_back(&self, letter: Letter<A>) {
        self.sorted().put_back(letter, self.number);
    }

    pub(super) fn due(&self) -> Option<Timestamp> {
        self.sorted().held.first().map(|(due, ..)| *due)
    }

    /// See [`Front::first_here`](super::front::Front::first_here).
    pub(super) fn first_here(&self, view: LogId) -> Option<u64> {
        self.sorted().first_here(view)
    }

    /// Whether nobody handles a letter and none waits here.
    pub(super) fn is_idle(&self) -> bool {
        let sorted = self.sorted();
        sorted.hands.values().all(|hand| hand.letters == 0)
            && sorted.ahead.iter().all(|ahead| ahead.count == 0)
    }

    pub(super) fn look_again(&self) {
        self.sorted().rung = true;
    }

    /// Resolves when another worker left something behind.
    pub(super) async fn woken(&self) {
        match &self.look {
            None => self.pool.look.rung().await,
            Some(mine) => tokio::select! {
                biased;
                () = self.pool.look.rung() => {}
                () = mine.rung() => {}
            },
        }
    }

    /// A worker that never had others ends: who asks is handed over. Who has others leaves by [`Pool::vacate`].
    pub(super) fn leave_if_alone(&self, mailbox: &Mailbox<A>) {
        if self.look.is_none() && self.pool.taken() == 1 {
            self.pool.hand_over_askers(mailbox);
        }
    }

    pub(super) fn tried<T>(&self, with: impl FnOnce(&mut HashMap<MessageId, Attempts>) -> T) -> T {
        with(&mut self.sorted().tried)
    }
}

/// Holds the intake while its worker reads the log, and gives it back also when the worker is thrown away meanwhile.
struct Reading<'a, A: Actor> {
    pool: &'a Pool<A>,
    intake: Option<Intake<A>>,
}

impl<A: Actor> Drop for Reading<'_, A> {
    fn drop(&mut self) {
        self.pool.sorted().intake = self.intake.take();
    }
}

/// What a worker is to do next.
enum Pick<A: Actor> {
    Letter(Box<Letter<A>>),
    /// To read on in the log of this priority.
    Read(usize, Intake<A>),
    Nothing,
}

struct Sorted<A: Actor> {
    order: Order,
    spread: Spread,
    /// Workers take several letters for one turn.
    gathers: bool,
    /// None while one of the workers reads the log with it.
    intake: Option<Intake<A>>,
    /// The bell rang, and the intake has not been told.
    rung: bool,
    /// Keys that have an owner or a letter that waits.
    keys: HashMap<Key, Kept<A>>,
    /// Keys of which anybody may take a letter.
    free: Free,
    /// Keys that are held up. To be checked: it may be held until another time by now.
    held: BTreeSet<(Timestamp, usize, Key)>,
    /// How much waits under its key.
    ahead: [Ahead; CLASSES],
    /// Messages that have failed and are not settled.
    tried: HashMap<MessageId, Attempts>,
    /// By the numbers of their seats.
    hands: BTreeMap<u64, Hand>,
}

/// Keys of which a letter may be taken, for each class, each at most once. To be checked: it may have been taken since.
type Free = [VecDeque<Key>; CLASSES];

/// What is known of a key.
struct Kept<A: Actor> {
    owner: Option<u64>,
    /// The one worker that may have its letters; none: whoever is free, or there is nobody.
    home: Option<u64>,
    waiting: [VecDeque<Letter<A>>; CLASSES],
    /// Until when the first that waits is held, and holds up those behind it.
    held: [Option<Timestamp>; CLASSES],
    /// Whether the key is among those of which a letter may be taken: once is enough.
    free: [bool; CLASSES],
}

impl<A: Actor> Kept<A> {
    fn at(home: Option<u64>) -> Self {
        let waiting = std::array::from_fn(|_| VecDeque::new());
        Kept { owner: None, home, waiting, held: [None; CLASSES], free: [false; CLASSES] }
    }

    /// Whether this worker may have a letter of the key.
    fn is_free_for(&self, hand: u64) -> bool {
        let at_home = self.home.is_none_or(|home| home == hand);
        at_home && self.in_hand().is_none_or(|owner| owner == hand)
    }

    fn in_hand(&self) -> Option<u64> {
        let moves = cfg!(steadfast_bug = "move_a_key_in_flight") && self.home.is_some();
        self.owner.filter(|owner| !moves || self.home == Some(*owner))
    }

    /// Whether a letter of this class waits for nothing but a worker.
    fn is_ready(&self, class: usize) -> bool {
        self.in_hand().is_none() && self.held[class].is_none() && !self.waiting[class].is_empty()
    }
}

#[derive(Default)]
struct Ahead {
    count: usize,
    bytes: u64,
}

impl Ahead {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What one worker has in hand, and what is kept for it.
struct Hand {
    name: Arc<str>,
    salt: u64,
    /// See [`Seat::look`].
    look: Option<Arc<Bell>>,
    keys: Vec<Key>,
    letters: usize,
    /// Where the letters lie that it was given and has not put back, until its turn is over.
    places: Vec<Place>,
    /// Keys that are at home here.
    free: Free,
}

impl Hand {
    fn new(name: Arc<str>, look: Option<Arc<Bell>>) -> Self {
        let (salt, free) = (salt_of(&name), std::array::from_fn(|_| VecDeque::new()));
        Hand { name, salt, look, keys: Vec::new(), letters: 0, places: Vec::new(), free }
    }
}

fn class_of<A: Actor>(letter: &Letter<A>) -> usize {
    letter.place.map_or(VOLATILE, mailbox::Place::class)
}

impl<A: Actor> Sorted<A> {
    fn new(
        order: Order,
        spread: Spread,
        gathers: bool,
        tried: HashMap<MessageId, Attempts>,
        intake: Intake<A>,
    ) -> Self {
        Sorted {
            order,
            spread,
            gathers,
            intake: Some(intake),
            rung: false,
            keys: HashMap::new(),
            free: std::array::from_fn(|_| VecDeque::new()),
            held: BTreeSet::new(),
            ahead: Default::default(),
            tried,
            hands: BTreeMap::new(),
        }
    }

    /// Another worker: keys that are at home with it go there once nobody has them in hand.
    fn sit(&mut self, number: u64, hand: Hand) {
        self.hands.insert(number, hand);
        self.find_homes();
    }

    /// A worker has ended, and what it had in hand was put back.
    fn stand_up(&mut self, number: u64) {
        self.release(number);
        self.hands.remove(&number);
        if !cfg!(steadfast_bug = "keep_the_keys_of_one_that_is_gone") {
            self.find_homes();
        }
    }

    /// Where a key is at home among those who are here now.
    fn home(spread: Spread, hands: &BTreeMap<u64, Hand>, key: &Key) -> Option<u64> {
        match spread {
            Spread::AnyFree => None,
            Spread::ByKey => home(key, hands.iter().map(|(number, hand)| (*number, hand.salt))),
        }
    }

    /// Sorts what waits anew, for somebody has come or gone. What waits longest is offered first.
    fn find_homes(&mut self) {
        if self.spread == Spread::AnyFree {
            return;
        }
        let at_home = self.hands.values_mut().flat_map(|hand| &mut hand.free);
        at_home.chain(&mut self.free).for_each(VecDeque::clear);
        let mut ready = Vec::new();
        for (key, kept) in &mut self.keys {
            kept.home = Self::home(self.spread, &self.hands, key);
            kept.free = [false; CLASSES];
            for class in (0..CLASSES).filter(|class| kept.is_ready(*class)) {
                let first = kept.waiting[class].front().and_then(|letter| letter.place);
                ready.push((class, first.map(|place| place.position), key.clone()));
            }
        }
        ready.sort_unstable();
        for (class, _, key) in ready {
            self.offer(&key, class, NOBODY, VecDeque::push_back);
        }
    }

    /// Has whoever may have a letter of the key look for it, if there is one for which nobody else has to be waited.
    fn offer(&mut self, key: &Key, class: usize, by: u64, put: impl FnOnce(&mut VecDeque<Key>, Key)) {
        let Some(kept) = self.keys.get_mut(key).filter(|kept| kept.is_ready(class) && !kept.free[class])
        else {
            return;
        };
        let free = match kept.home.and_then(|home| self.hands.get_mut(&home)) {
            Some(hand) => {
                let look = hand.look.as_ref().filter(|_| kept.home != Some(by));
                if let Some(look) = look.filter(|_| !cfg!(steadfast_bug = "leave_the_home_asleep")) {
                    look.ring();
                }
                &mut hand.free
            }
            None => &mut self.free,
        };
        kept.free[class] = true;
        put(&mut free[class], key.clone());
    }

    /// What is kept under a key.
    fn kept(&mut self, key: Key) -> &mut Kept<A> {
        let (spread, hands) = (self.spread, &self.hands);
        self.keys.entry(key).or_insert_with_key(|key| Kept::at(Self::home(spread, hands, key)))
    }

    /// Where the letters lie that a worker has in hand.
    fn in_hand(&self, number: u64) -> Vec<Place> {
        self.hands.get(&number).map(|hand| hand.places.clone()).unwrap_or_default()
    }

    /// A letter was put back by the worker that had it.
    fn out_of_hand(&mut self, place: Option<Place>, by: u64) {
        if let (Some(place), Some(hand)) = (place, self.hands.get_mut(&by)) {
            hand.places.retain(|in_hand| *in_hand != place);
        }
    }

    fn pick(&mut self, hand: u64, now: Timestamp, mailbox: &Mailbox<A>, ledger: &Ledger) -> Pick<A> {
        self.let_go(now, mailbox, hand);
        if let Some(intake) = &mut self.intake {
            let hands = &self.hands;
            let in_hand = |view| hands.values().flat_map(|hand| &hand.places).any(|place| place.log == view);
            let stale = intake.look_where_mail_came(mailbox, ledger, in_hand);
            if std::mem::take(&mut self.rung) {
                intake.look_again();
            }
            if !stale.is_empty() && !cfg!(steadfast_bug = "keep_what_waits_of_a_moved_topic") {
                self.drop_events(&stale, hand);
            }
        }
        for class in IN_ORDER.into_iter().chain([VOLATILE]) {
            if let Some(letter) = self.take_kept(class, hand, now, mailbox) {
                return self.give(letter, hand);
            }
            while self.may_read(class, hand) {
                let taken = match (class, &mut self.intake) {
                    (VOLATILE, _) => mailbox.pop_volatile(),
                    (_, None) => None,
                    (lane, Some(intake)) => match intake.take(lane) {
                        None if !intake.is_dry(lane) => match self.intake.take() {
                            Some(intake) => return Pick::Read(lane, intake),
                            None => None,
                        },
                        taken => taken,
                    },
                };
                let Some(letter) = taken else { break };
                if let Some(letter) = self.sort(letter, hand, now, mailbox) {
                    return self.give(letter, hand);
                }
            }
        }
        Pick::Nothing
    }

    /// Forgets the events of some views that wait here: they are read again, or have ended.
    fn drop_events(&mut self, views: &[LogId], by: u64) {
        let mut freed = Vec::new();
        let (keys, held, ahead) = (&mut self.keys, &mut self.held, &mut self.ahead[EVENTS]);
        keys.retain(|key, kept| {
            let goes = |letter: &Letter<A>| letter.place.is_some_and(|place| views.contains(&place.log));
            if kept.waiting[EVENTS].front().is_some_and(goes)
                && let Some(due) = kept.held[EVENTS].take()
            {
                held.remove(&(due, EVENTS, key.clone()));
                freed.push(key.clone());
            }
            kept.waiting[EVENTS].retain(|letter| {
                let goes = goes(letter);
                if goes {
                    ahead.count -= 1;
                    ahead.bytes -= letter.bytes();
                }
                !goes
            });
            kept.owner.is_some() || kept.waiting.iter().any(|waiting| !waiting.is_empty())
        });
        for key in freed {
            self.offer(&key, EVENTS, by, VecDeque::push_back);
        }
    }

    /// The first position of a view that waits here or is in somebody's hands.
    fn first_here(&self, view: LogId) -> Option<u64> {
        let waiting = self.keys.values().flat_map(|kept| &kept.waiting[EVENTS]);
        let in_hand = self.hands.values().flat_map(|hand| &hand.places).copied();
        let places = waiting.filter_map(|letter| letter.place).chain(in_hand);
        let ahead = self.intake.as_ref().and_then(|intake| intake.first_of(view));
        places.filter(|place| place.log == view).map(|place| place.position).chain(ahead).min()
    }

    fn give(&mut self, letter: Letter<A>, hand: u64) -> Pick<A> {
        if let Some(hand) = self.hands.get_mut(&hand) {
            hand.letters += 1;
            hand.places.extend(letter.place);
        }
        Pick::Letter(Box::new(letter))
    }

    /// Whether more letters of a class may be read: in strict order only when they could be handled, otherwise as long as there is
    /// room for those that could not.
    fn may_read(&self, class: usize, hand: u64) -> bool {
        if self.order == Order::Strict {
            let free = |kept: &Kept<A>| kept.is_free_for(hand) && kept.waiting[class].is_empty();
            return self.keys.get(&Key::All).is_none_or(free);
        }
        let ahead = &self.ahead[class];
        cfg!(steadfast_bug = "look_ahead_without_bound")
            || (ahead.count < WINDOW && ahead.bytes < WINDOW_BYTES)
    }

    /// The letter, if this worker may have it now; otherwise it is kept under its key.
    fn sort(
        &mut self,
        letter: Letter<A>,
        hand: u64,
        now: Timestamp,
        mailbox: &Mailbox<A>,
    ) -> Option<Letter<A>> {
        if letter.place.is_some_and(|place| mailbox.is_cancelled(place)) {
            // it will not be handled, so it has to wait for nobody
            return Some(letter);
        }
        let (key, class) = (Key::of(self.order, &letter.head), class_of(&letter));
        if matches!(key, Key::Own(_)) {
            return Some(letter);
        }
        let kept = self.kept(key.clone());
        if kept.waiting[class].is_empty() && kept.is_free_for(hand) {
            return self.own_or_hold(key, letter, hand, now, mailbox);
        }
        if let (Some(until), Some(asker)) = (kept.held[class], &letter.asker) {
            asker.lose(ReplyLost::Blocked(until));
        }
        let bytes = letter.bytes();
        kept.waiting[class].push_back(letter);
        self.ahead[class].add(bytes);
        if self.spread == Spread::ByKey {
            self.offer(&key, class, hand, VecDeque::push_back);
        }
        None
    }

    /// The first letter of a class that was kept and may be handled now.
    fn take_kept(
        &mut self,
        class: usize,
        hand: u64,
        now: Timestamp,
        mailbox: &Mailbox<A>,
    ) -> Option<Letter<A>> {
        loop {
            let key = self.pop_free(class, hand)?;
            let Some(kept) = self.keys.get_mut(&key) else { continue };
            kept.free[class] = false;
            if !kept.is_free_for(hand) || kept.held[class].is_some() {
                continue;
            }
            let Some(letter) = kept.waiting[class].pop_front() else { continue };
            self.ahead[class].count -= 1;
            self.ahead[class].bytes -= letter.bytes();
            if self.gathers && !kept.waiting[class].is_empty() {
                // this worker may take more of it for the same turn
                kept.free[class] = true;
                let home = kept.home.and_then(|home| self.hands.get_mut(&home));
                home.map_or(&mut self.free, |hand| &mut hand.free)[class].push_front(key.clone());
            }
            if let Some(letter) = self.own_or_hold(key, letter, hand, now, mailbox) {
                return Some(letter);
            }
        }
    }

    /// The next key of which this worker may take a letter.
    fn pop_free(&mut self, class: usize, hand: u64) -> Option<Key> {
        let at_home = match self.spread {
            Spread::AnyFree => None,
            Spread::ByKey => self.hands.get_mut(&hand).and_then(|hand| hand.free[class].pop_front()),
        };
        at_home.or_else(|| self.free[class].pop_front())
    }

    /// Makes the worker the owner of the letter's key; or, when it has failed before and its time has not come, holds it.
    fn own_or_hold(
        &mut self,
        key: Key,
        letter: Letter<A>,
        hand: u64,
        now: Timestamp,
        mailbox: &Mailbox<A>,
    ) -> Option<Letter<A>> {
        let cancelled = letter.place.is_some_and(|place| mailbox.is_cancelled(place));
        let due = self.tried.get(&letter.head.id).map(|attempts| attempts.not_before);
        if let Some(due) = due.filter(|due| *due > now && !cancelled) {
            self.keep_until(key, letter, due, now, mailbox);
            return None;
        }
        let kept = self.kept(key.clone());
        if kept.in_hand().is_none() {
            kept.owner = Some(hand);
            if let Some(hand) = self.hands.get_mut(&hand) {
                hand.keys.push(key);
            }
        }
        Some(letter)
    }

    fn release(&mut self, hand: u64) {
        let Some(in_hand) = self.hands.get_mut(&hand) else { return };
        in_hand.letters = 0;
        in_hand.places.clear();
        let mut keys = std::mem::take(&mut in_hand.keys);
        for key in keys.drain(..) {
            let Some(kept) = self.keys.get_mut(&key) else { continue };
            kept.owner = None;
            if kept.waiting.iter().all(VecDeque::is_empty) {
                self.keys.remove(&key);
                continue;
            }
            for class in 0..CLASSES {
                self.offer(&key, class, hand, VecDeque::push_back);
            }
        }
        if let Some(in_hand) = self.hands.get_mut(&hand) {
            // its room is used again
            in_hand.keys = keys;
        }
    }

    fn put_back(&mut self, letter: Letter<A>, by: u64) {
        self.out_of_hand(letter.place, by);
        let (key, class) = (Key::of(self.order, &letter.head), class_of(&letter));
        self.ahead[class].add(letter.bytes());
        self.kept(key.clone()).waiting[class].push_front(letter);
        self.offer(&key, class, by, VecDeque::push_front);
    }

    fn hold(&mut self, letter: Letter<A>, due: Timestamp, now: Timestamp, mailbox: &Mailbox<A>, by: u64) {
        self.out_of_hand(letter.place, by);
        // a volatile letter has one attempt
        if letter.place.is_some() {
            self.keep_until(Key::of(self.order, &letter.head), letter, due, now, mailbox);
        }
    }

    /// Keeps a letter as the first of its key, not before `due`.
    fn keep_until(
        &mut self,
        key: Key,
        letter: Letter<A>,
        due: Timestamp,
        now: Timestamp,
        mailbox: &Mailbox<A>,
    ) {
        let class = class_of(&letter);
        self.ahead[class].add(letter.bytes());
        let kept = self.kept(key.clone());
        let behind = kept.waiting[class].iter().filter_map(|letter| letter.asker.clone());
        let mut blocked: Vec<_> = behind.collect();
        if key == Key::All && class < LANES {
            mailbox.set_blocked_until(class, due);
            blocked.extend(self.intake.iter().flat_map(|intake| intake.askers(class)));
            blocked.extend(mailbox.askers_in(class));
        }
        if due > now {
            blocked.iter().for_each(|asker| asker.lose(ReplyLost::Blocked(due)));
        }
        let kept = self.kept(key.clone());
        kept.waiting[class].push_front(letter);
        kept.held[class] = Some(due);
        self.held.insert((due, class, key));
    }

    /// Lets go of what is due by now or was cancelled.
    fn let_go(&mut self, now: Timestamp, mailbox: &Mailbox<A>, by: u64) {
        while let Some((due, class, key)) = self.held.pop_first() {
            if due > now {
                self.held.insert((due, class, key));
                break;
            }
            self.free_if_held(due, class, key, mailbox, by);
        }
        if !mailbox.has_cancelled() {
            return;
        }
        let is_cancelled = |(due, class, key): &(Timestamp, usize, Key)| {
            let kept = self.keys.get(key)?;
            let place = kept.waiting[*class].front()?.place?;
            mailbox.is_cancelled(place).then(|| (*due, *class, key.clone()))
        };
        let cancelled: Vec<_> = self.held.iter().filter_map(is_cancelled).collect();
        for held in cancelled {
            self.held.remove(&held);
            self.free_if_held(held.0, held.1, held.2, mailbox, by);
        }
    }

    fn free_if_held(&mut self, due: Timestamp, class: usize, key: Key, mailbox: &Mailbox<A>, by: u64) {
        let Some(kept) = self.keys.get_mut(&key) else { return };
        if kept.held[class] != Some(due) {
            return;
        }
        kept.held[class] = None;
        if key == Key::All && class < LANES {
            mailbox.set_blocked_until(class, Timestamp::default());
        }
        self.offer(&key, class, by, VecDeque::push_back);
    }

    /// Whether another worker is to look: for a letter, or to wake when one is due, which this one may be too busy for.
    fn needs_another(&self) -> bool {
        self.has_more() || (!self.held.is_empty() && !cfg!(steadfast_bug = "leave_what_is_held_to_the_busy"))
    }

    /// Whether another worker might find a letter.
    fn has_more(&self) -> bool {
        let unread = |lane| self.intake.as_ref().is_some_and(|intake| intake.may_have_more(lane));
        self.free.iter().any(|free| !free.is_empty())
            || (0..=EVENTS).any(|class| self.may_read(class, NOBODY) && unread(class))
    }

    fn hand_over_askers(&self, mailbox: &Mailbox<A>) {
        if let Some(intake) = &self.intake {
            intake.hand_over_askers(mailbox);
        }
        let mut quick = mailbox.quick();
        for letter in self.keys.values().flat_map(|kept| kept.waiting.iter().flatten()) {
            if let (Some(asker), Some(place)) = (&letter.asker, letter.place) {
                quick.remember_asker(letter.head.id, usize::from(place.log.lane), asker.clone());
            }
        }
    }
}
