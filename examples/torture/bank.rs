//! The actors. An account takes a transfer's money, sends it to another account, tells the book and publishes an event: one
//! turn. Every actor counts for each message how often it was handled, and writes down what is wrong as it sees it.
//!
//! # Invariants
//! - What a turn did is in state by the transfer's key, at four places: the account, the other account, the book, and the
//!   subscribers. They are the same or a turn was half visible.
//! - What was checked is forgotten, so that a store stays small however long it is tortured; what comes of it later is noticed.

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, Address, Cell, CellMap, Context, Failure, Gap, Handler, MailboxOptions, Message,
    Retention, RetryPolicy, SpawnError, StartFrom, System, Topic,
};

use super::broken::Broken;
use super::plan::{self, ATTEMPTS, KEPT, START, TOPICS};

/// Moves money. What it moves follows from its key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) key: u64,
    /// In milliseconds since 1970; not to be handled before.
    pub(crate) due_ms: u64,
    pub(crate) body: Vec<u8>,
}
impl Message for Transfer {
    type Reply = ();
    const NAME: &'static str = "torture.transfer";
}

impl Transfer {
    pub(crate) fn new(key: u64) -> Self {
        Transfer { key, due_ms: 0, body: plan::body(key) }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Deposit {
    key: u64,
    amount: i64,
}
impl Message for Deposit {
    type Reply = ();
    const NAME: &'static str = "torture.deposit";
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    key: u64,
}
impl Message for Note {
    type Reply = ();
    const NAME: &'static str = "torture.note";
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Happened {
    pub(crate) key: u64,
}
impl Message for Happened {
    type Reply = ();
    const NAME: &'static str = "torture.happened";
}

/// All messages of lives up to this one were checked, and all events below this sequence number.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Forget {
    pub(crate) life: u64,
    pub(crate) below: u64,
}
impl Message for Forget {
    type Reply = ();
    const NAME: &'static str = "torture.forget";
}

/// What an actor saw that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Twice,
    Order,
    Other,
}

pub(crate) const BALANCE: Cell<i64> = Cell::new("balance", 1);
pub(crate) const COMPLAINTS: Cell<Vec<(Kind, String)>> = Cell::new("complaints", 1);
/// Turns since the store was made.
pub(crate) const TURNS: Cell<u64> = Cell::new("turns", 1);
const FORGOTTEN: Cell<u64> = Cell::new("forgotten", 1);
/// How often each was handled: by key.
pub(crate) const HANDLED: CellMap<u64, u32> = CellMap::new("handled", 1);
pub(crate) const DEPOSITED: CellMap<u64, u32> = CellMap::new("deposited", 1);
/// The last key of each sender.
const LAST: CellMap<u64, u64> = CellMap::new("last", 1);
/// Keys by sequence number.
pub(crate) const GOT: CellMap<u64, u64> = CellMap::new("got", 1);
/// The sequence number that comes next.
pub(crate) const NEXT: Cell<u64> = Cell::new("next", 1);
pub(crate) const GAPS: Cell<Vec<(u64, u64)>> = Cell::new("gaps", 1);

fn complain<A: Actor>(ctx: &mut Context<A>, kind: Kind, what: String) -> Result<(), Failure> {
    const ENOUGH: usize = 20;
    let mut all = ctx.state().get(&COMPLAINTS)?.unwrap_or_default();
    if all.len() < ENOUGH {
        all.push((kind, what));
        ctx.state().set(&COMPLAINTS, &all)?;
    }
    Ok(())
}

/// Counts the message, and says so if it was handled before.
async fn once<A: Actor>(ctx: &mut Context<A>, map: &CellMap<u64, u32>, key: u64) -> Result<(), Failure> {
    if plan::life(key) <= ctx.state().get(&FORGOTTEN)?.unwrap_or_default() {
        complain(ctx, Kind::Twice, format!("{key:#x} came after it was checked"))?;
    }
    let times = ctx.state().map(map).get(&key).await?.unwrap_or_default() + 1;
    ctx.state().map(map).insert(&key, &times)?;
    Ok(())
}

async fn in_order<A: Actor>(ctx: &mut Context<A>, key: u64) -> Result<(), Failure> {
    let sender = plan::sender(key);
    let last = ctx.state().map(&LAST).get(&sender).await?;
    if let Some(last) = last.filter(|last| *last > key) {
        complain(ctx, Kind::Order, format!("{key:#x} after {last:#x}"))?;
    }
    ctx.state().map(&LAST).insert(&sender, &key)?;
    Ok(())
}

fn count_turn<A: Actor>(ctx: &mut Context<A>) -> Result<(), Failure> {
    let turns = ctx.state().get(&TURNS)?.unwrap_or_default() + 1;
    Ok(ctx.state().set(&TURNS, &turns)?)
}

/// Fails or panics as the key says, less often than would use up the attempts. After all else: what a failed turn did must not
/// be seen.
fn stumble<A: Actor>(ctx: &Context<A>, key: u64) -> Result<(), Failure> {
    let times = plan::chance(20, (A::NAME, key), 48).saturating_sub(45) as u32;
    if ctx.attempt() > times.min(ATTEMPTS - 1) {
        return Ok(());
    }
    assert!(plan::chance(21, key, 5) != 0, "{STUMBLES}");
    Err(Failure::new("stumbles"))
}

pub(crate) const STUMBLES: &str = "stumbles with a panic";

/// Takes some of what was checked away; true if there is more.
async fn forget<A: Actor>(
    ctx: &mut Context<A>,
    map: &CellMap<u64, u32>,
    settled: u64,
) -> Result<bool, Failure> {
    const AT_ONCE: usize = 400;
    let page = ctx.state().map(map).page(None, AT_ONCE).await?;
    let old: Vec<u64> = page.iter().map(|(key, _)| *key).filter(|key| plan::life(*key) <= settled).collect();
    for key in &old {
        ctx.state().map(map).remove(key)?;
    }
    Ok(old.len() == AT_ONCE)
}

pub(crate) struct Account {
    broken: Option<Broken>,
    moved: Topic<Happened>,
    book: ActorRef<Book>,
}
impl Actor for Account {
    const NAME: &'static str = "torture.account";
    type Messages = (Transfer, Deposit, Forget);
    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().retry(RetryPolicy::immediately(ATTEMPTS))
    }
}

impl Handler<Transfer> for Account {
    async fn handle(&mut self, transfer: Transfer, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let Transfer { key, due_ms, body } = transfer;
        let early = ctx.now().as_millis() < due_ms;
        if plan::is_doomed(key) {
            let failure = Failure::new("cannot ever be done");
            return Err(if plan::is_hopeless(key) { failure.terminal() } else { failure });
        }
        once(ctx, &HANDLED, key).await?;
        if plan::is_ordered(key) {
            in_order(ctx, key).await?;
        }
        if early {
            complain(ctx, Kind::Order, format!("{key:#x} came before it was due"))?;
        }
        if body != plan::body(key) {
            complain(ctx, Kind::Other, format!("{key:#x} has another body"))?;
        }
        count_turn(ctx)?;
        self.moves(key, ctx).await?;
        stumble(ctx, key)
    }
}

impl Account {
    async fn moves(&self, key: u64, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let balance = ctx.state().get(&BALANCE)?.unwrap_or(START);
        let amount = plan::amount(key);
        ctx.state().set(&BALANCE, &(balance - amount))?;
        let more = i64::from(self.broken == Some(Broken::Mints));
        let (to, deposit) = (account(plan::to(key)), Deposit { key, amount: amount + more });
        match plan::chance(23, key, 8) {
            0 => ctx.schedule(&to?, deposit, std::time::Duration::from_millis(plan::chance(24, key, 20)))?,
            _ => ctx.tell(&to?, deposit)?,
        };
        match self.broken {
            Some(Broken::HalfTurn) if plan::number(key).is_multiple_of(5) => {}
            Some(Broken::PastTheTurn) => drop(self.book.tell(Note { key }).outside_turn().await?),
            _ => drop(ctx.tell(&self.book, Note { key })?),
        }
        ctx.publish(&self.moved, Happened { key })?;
        Ok(())
    }
}

impl Handler<Deposit> for Account {
    async fn handle(&mut self, deposit: Deposit, ctx: &mut Context<Self>) -> Result<(), Failure> {
        once(ctx, &DEPOSITED, deposit.key).await?;
        let balance = ctx.state().get(&BALANCE)?.unwrap_or(START);
        ctx.state().set(&BALANCE, &(balance + deposit.amount))?;
        stumble(ctx, deposit.key)
    }
}

impl Handler<Forget> for Account {
    async fn handle(&mut self, checked: Forget, ctx: &mut Context<Self>) -> Result<(), Failure> {
        ctx.state().set(&FORGOTTEN, &checked.life)?;
        let more = forget(ctx, &HANDLED, checked.life).await? | forget(ctx, &DEPOSITED, checked.life).await?;
        if more {
            let myself = ctx.address();
            ctx.tell(&myself, checked)?;
        }
        Ok(())
    }
}

pub(crate) struct Book;
impl Actor for Book {
    const NAME: &'static str = "torture.book";
    type Messages = (Note, Forget);
    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().retry(RetryPolicy::immediately(ATTEMPTS))
    }
}

impl Handler<Note> for Book {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<(), Failure> {
        once(ctx, &HANDLED, note.key).await?;
        count_turn(ctx)?;
        stumble(ctx, note.key)
    }
}

impl Handler<Forget> for Book {
    async fn handle(&mut self, checked: Forget, ctx: &mut Context<Self>) -> Result<(), Failure> {
        ctx.state().set(&FORGOTTEN, &checked.life)?;
        if forget(ctx, &HANDLED, checked.life).await? {
            let myself = ctx.address();
            ctx.tell(&myself, checked)?;
        }
        Ok(())
    }
}

/// Subscribes to one topic, and writes down what it gets.
pub(crate) struct Reader {
    broken: Option<Broken>,
}
impl Actor for Reader {
    const NAME: &'static str = "torture.reader";
    type Messages = (Happened, Forget);
    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().retry(RetryPolicy::immediately(ATTEMPTS))
    }

    async fn gap(&mut self, gap: Gap, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let mut gaps = ctx.state().get(&GAPS)?.unwrap_or_default();
        gaps.push((gap.from, gap.to));
        ctx.state().set(&GAPS, &gaps)?;
        Ok(ctx.state().set(&NEXT, &gap.to)?)
    }
}

impl Handler<Happened> for Reader {
    async fn handle(&mut self, event: Happened, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let Some(at) = ctx.topic().map(|from| from.sequence) else {
            return complain(ctx, Kind::Other, format!("{:#x} came from no topic", event.key));
        };
        // the first may be any: retention may have taken those before it
        let next = ctx.state().get(&NEXT)?.unwrap_or(at);
        if next > at {
            complain(ctx, Kind::Twice, format!("event {at} came again, {next} was next"))?;
        } else if next < at {
            complain(ctx, Kind::Order, format!("event {at} came, {next} was next"))?;
        }
        if self.broken != Some(Broken::DropsEvents) || at % 7 != 0 {
            ctx.state().map(&GOT).insert(&at, &event.key)?;
        }
        ctx.state().set(&NEXT, &(at + 1))?;
        stumble(ctx, event.key)
    }
}

impl Handler<Forget> for Reader {
    async fn handle(&mut self, checked: Forget, ctx: &mut Context<Self>) -> Result<(), Failure> {
        const AT_ONCE: usize = 400;
        let page = ctx.state().map(&GOT).page(None, AT_ONCE).await?;
        let old: Vec<u64> = page.iter().map(|(at, _)| *at).filter(|at| *at < checked.below).collect();
        for at in &old {
            ctx.state().map(&GOT).remove(at)?;
        }
        if old.len() == AT_ONCE {
            let myself = ctx.address();
            ctx.tell(&myself, checked)?;
        }
        Ok(())
    }
}

pub(crate) fn account(index: u64) -> Result<Address<Account>, steadfast::BadName> {
    Address::new(format!("account-{index}"))
}

/// Who reads a topic, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Runs in every life.
    Steady,
    /// Comes and goes.
    Restless,
    /// Joins in a later life.
    Late,
    /// Runs only while all is checked.
    Witness,
}

impl Habit {
    pub(crate) const ALL: [Habit; 4] = [Habit::Steady, Habit::Restless, Habit::Late, Habit::Witness];

    fn name(self) -> &'static str {
        match self {
            Habit::Steady => "steady",
            Habit::Restless => "restless",
            Habit::Late => "late",
            Habit::Witness => "witness",
        }
    }
}

/// Everybody, of one life of the system.
pub(crate) struct Bank {
    pub(crate) accounts: Vec<ActorRef<Account>>,
    pub(crate) book: ActorRef<Book>,
    pub(crate) topics: Vec<Topic<Happened>>,
}

impl Bank {
    pub(crate) async fn open(
        system: &System,
        broken: Option<Broken>,
    ) -> Result<Bank, Box<dyn std::error::Error + Send + Sync>> {
        let mut topics = Vec::new();
        for name in TOPICS {
            topics.push(system.topic(name).retention(Retention::forever().count(KEPT)).await?);
        }
        let book = system.spawn("book", || Book).await?;
        let mut accounts = Vec::new();
        for index in 0..plan::ACCOUNTS {
            let (moved, book) = (topics[0].clone(), book.clone());
            let account = move || Account { broken, moved: moved.clone(), book: book.clone() };
            accounts.push(system.spawn(format!("account-{index}"), account).await?);
        }
        Ok(Bank { accounts, book, topics })
    }

    /// Starts one who subscribes to a topic.
    pub(crate) async fn reader(
        &self,
        system: &System,
        habit: Habit,
        topic: usize,
        broken: Option<Broken>,
    ) -> Result<ActorRef<Reader>, SpawnError> {
        let name = format!("{}-{}", habit.name(), TOPICS[topic]);
        let spawn = system.spawn(name, move || Reader { broken });
        spawn.subscribe(&self.topics[topic], StartFrom::Earliest).await
    }

    pub(crate) fn account(&self, key: u64) -> &ActorRef<Account> {
        &self.accounts[plan::from(key) as usize]
    }
}
