//! Money moves between accounts: the actors of the crash tests, and what must hold of them afterwards.
//!
//! A transfer is one turn: it takes the money from its own account and sends it to another as part of the turn, so money
//! is neither made nor lost if a turn is all or nothing (G3). Every account remembers the messages it handled (G4, G6)
//! and the last transfer of each sender (G2), and numbers what it tells the book. Handlers fail at random, but as the
//! message's id decides: the same way whenever it is handled again.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Once;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, Cell, CellMap, Context, Failure, Handler, MailboxOptions, Message, MessageId,
    RetryPolicy, SpawnError, State, System,
};

pub(crate) const ACCOUNTS: u32 = 4;
pub(crate) const START: i64 = 10_000;

#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) sender: u32,
    pub(crate) number: u64,
    pub(crate) to: u32,
    pub(crate) amount: i64,
}
impl Message for Transfer {
    type Reply = ();
    const NAME: &'static str = "account.transfer";
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Deposit {
    amount: i64,
}
impl Message for Deposit {
    type Reply = ();
    const NAME: &'static str = "account.deposit";
}

/// Told the book of every transfer, in the account's own count.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    account: u32,
    number: u64,
}
impl Message for Note {
    type Reply = ();
    const NAME: &'static str = "book.note";
}

/// Asked of the book by some transfers: how often it was asked so far.
#[derive(Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) account: u32,
}
impl Message for Question {
    type Reply = u64;
    const NAME: &'static str = "book.question";
}

const BALANCE: Cell<i64> = Cell::new("balance", 1);
const NOTED: Cell<u64> = Cell::new("noted", 1);
const WRONG: Cell<Vec<String>> = Cell::new("wrong", 1);
const HANDLED: CellMap<MessageId, u8> = CellMap::new("handled", 1);
const LAST: CellMap<u64, u64> = CellMap::new("last", 1);
/// In the book: transfers that asked, answers that were given.
const ASKED: Cell<u64> = Cell::new("asked", 1);

pub(crate) struct Account {
    index: u32,
}
impl Actor for Account {
    const NAME: &'static str = "account";
    type Messages = (Transfer, Deposit);
    fn state() -> State<Self> {
        State::cells().with(BALANCE).with(NOTED).with(WRONG)
    }
    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().retry(RetryPolicy::immediately(ATTEMPTS))
    }
}

pub(crate) struct Book;
impl Actor for Book {
    const NAME: &'static str = "book";
    type Messages = (Note, Question);
    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().retry(RetryPolicy::immediately(ATTEMPTS))
    }
}

const ATTEMPTS: u32 = 4;

fn chance(id: MessageId) -> u64 {
    let bytes = id.as_bytes();
    let half = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight"));
    (half(0) ^ half(8)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

/// Fails or panics as the id says, less often than would use up the attempts.
fn stumble<A: Actor>(ctx: &Context<A>) -> Result<(), Failure> {
    let chance = chance(ctx.message_id());
    let times = match chance % 16 {
        0 => 1 + (chance / 16 % u64::from(ATTEMPTS - 1)) as u32,
        _ => 0,
    };
    if ctx.attempt() > times {
        return Ok(());
    }
    assert!(!(chance / 64).is_multiple_of(5), "stumbles with a panic");
    Err(Failure::new("stumbles"))
}

/// The handlers panic on purpose.
fn quiet_about_stumbles() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() != Some("stumbles with a panic") {
            usual(panic);
        }
    }));
}

/// Remembers the message, and what is wrong if it was handled before.
async fn once<A: Actor>(ctx: &mut Context<A>) -> Result<(), Failure> {
    let id = ctx.message_id();
    if ctx.state().map(&HANDLED).get(&id).await?.is_some() {
        complain(ctx, format!("{id} was handled twice"))?;
    }
    ctx.state().map(&HANDLED).insert(&id, &1)?;
    Ok(())
}

fn complain<A: Actor>(ctx: &mut Context<A>, what: String) -> Result<(), Failure> {
    let mut wrong = ctx.state().get(&WRONG)?.unwrap_or_default();
    wrong.push(what);
    ctx.state().set(&WRONG, &wrong)?;
    Ok(())
}

async fn in_order<A: Actor>(ctx: &mut Context<A>, who: u64, number: u64) -> Result<Option<u64>, Failure> {
    let last = ctx.state().map(&LAST).get(&who).await?;
    if last.is_some_and(|last| last >= number) {
        complain(ctx, format!("{number} of {who} after {last:?}"))?;
    }
    ctx.state().map(&LAST).insert(&who, &number)?;
    Ok(last)
}

impl Handler<Transfer> for Account {
    async fn handle(&mut self, transfer: Transfer, ctx: &mut Context<Self>) -> Result<(), Failure> {
        let chance = chance(ctx.message_id());
        if (chance / 7).is_multiple_of(23) {
            return Err(Failure::new("cannot ever be done")); // uses up its attempts
        }
        if (chance / 7) % 23 == 1 {
            return Err(Failure::new("refused").terminal());
        }
        // before the stumble: what a failed turn did must not be seen
        once(ctx).await?;
        in_order(ctx, u64::from(transfer.sender), transfer.number).await?;
        let balance = ctx.state().get(&BALANCE)?.unwrap_or(START);
        ctx.state().set(&BALANCE, &(balance - transfer.amount))?;
        let (to, deposit) = (account(transfer.to), Deposit { amount: transfer.amount });
        match chance / 3 % 8 {
            0 => ctx.schedule(&to, deposit, Duration::from_millis(chance % 20))?,
            _ => ctx.tell(&to, deposit)?,
        };
        if (chance / 5).is_multiple_of(32) {
            ctx.ask(&book(), Question { account: self.index }).await?;
        }
        let noted = ctx.state().get(&NOTED)?.unwrap_or_default() + 1;
        ctx.state().set(&NOTED, &noted)?;
        ctx.tell(&book(), Note { account: self.index, number: noted })?;
        stumble(ctx)
    }
}

impl Handler<Deposit> for Account {
    async fn handle(&mut self, deposit: Deposit, ctx: &mut Context<Self>) -> Result<(), Failure> {
        once(ctx).await?;
        let balance = ctx.state().get(&BALANCE)?.unwrap_or(START);
        ctx.state().set(&BALANCE, &(balance + deposit.amount))?;
        stumble(ctx)
    }
}

impl Handler<Note> for Book {
    async fn handle(&mut self, note: Note, ctx: &mut Context<Self>) -> Result<(), Failure> {
        once(ctx).await?;
        let last = in_order(ctx, u64::from(note.account), note.number).await?;
        if last.unwrap_or_default() + 1 != note.number {
            complain(ctx, format!("note {} of account {} after {last:?}", note.number, note.account))?;
        }
        stumble(ctx)
    }
}

impl Handler<Question> for Book {
    async fn handle(&mut self, _: Question, ctx: &mut Context<Self>) -> Result<u64, Failure> {
        once(ctx).await?;
        let asked = ctx.state().get(&ASKED)?.unwrap_or_default() + 1;
        ctx.state().set(&ASKED, &asked)?;
        stumble(ctx)?;
        Ok(asked)
    }
}

fn account(index: u32) -> steadfast::Address<Account> {
    steadfast::Address::new(format!("account-{index}")).expect("a name")
}

fn book() -> steadfast::Address<Book> {
    steadfast::Address::new("book").expect("a name")
}

/// The actors of one life of the system.
#[derive(Clone)]
pub(crate) struct Bank {
    pub(crate) accounts: Vec<ActorRef<Account>>,
    pub(crate) book: ActorRef<Book>,
}

impl Bank {
    pub(crate) async fn open(system: &System) -> Result<Bank, SpawnError> {
        static ONCE: Once = Once::new();
        ONCE.call_once(quiet_about_stumbles);
        let book = system.spawn("book", || Book).await?;
        let mut accounts = Vec::new();
        for index in 0..ACCOUNTS {
            accounts.push(system.spawn(format!("account-{index}"), move || Account { index }).await?);
        }
        Ok(Bank { accounts, book })
    }

    /// The transfer with this number of this sender, and where it goes.
    pub(crate) fn transfer(&self, sender: u32, number: u64) -> (&ActorRef<Account>, Transfer) {
        let mix = (u64::from(sender) << 32 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24;
        let (from, hop) = (mix as u32 % ACCOUNTS, 1 + (mix >> 8) as u32 % (ACCOUNTS - 1));
        let (to, amount) = ((from + hop) % ACCOUNTS, 1 + (mix >> 16) as i64 % 50);
        (&self.accounts[from as usize], Transfer { sender, number, to, amount })
    }

    pub(crate) async fn money(&self) -> i64 {
        let mut sum = 0;
        for account in &self.accounts {
            sum += account.cell(&BALANCE).await.expect("reads").unwrap_or(START);
        }
        sum
    }

    /// Every message of the transfers' mailboxes that was handled.
    async fn handled(&self) -> BTreeSet<MessageId> {
        let mut handled = BTreeSet::new();
        for account in &self.accounts {
            let mut after = None;
            loop {
                let page = account.map_page(&HANDLED, after.as_ref(), 2_000).await.expect("reads");
                let Some((last, _)) = page.last() else { break };
                after = Some(*last);
                handled.extend(page.iter().map(|(id, _)| *id));
            }
        }
        handled
    }

    async fn wrong(&self) -> Vec<String> {
        let mut wrong = self.book.cell(&WRONG).await.expect("reads").unwrap_or_default();
        for account in &self.accounts {
            wrong.extend(account.cell(&WRONG).await.expect("reads").unwrap_or_default());
        }
        wrong
    }
}

/// What was acknowledged: ids, and for the message of the fault what they were.
pub(crate) type Acknowledged = HashMap<MessageId, (u32, u64)>;

/// What a check found, for those who print it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) handled: usize,
    pub(crate) dead: usize,
}

/// Waits until all money has arrived, then checks everything that must hold.
pub(crate) async fn settle_and_check(
    system: &System,
    bank: &Bank,
    acknowledged: &Acknowledged,
    what: &str,
) -> Found {
    const PATIENCE: Duration = Duration::from_secs(60);
    let all = START * i64::from(ACCOUNTS);
    let settled = tokio::time::timeout(PATIENCE, async {
        loop {
            steadfast::testkit::run_until_idle(system).await.unwrap_or_else(|why| panic!("{what}: {why}"));
            if bank.money().await == all {
                return;
            }
            // deposits on the schedule are not due yet
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if settled.await.is_err() {
        let mailboxes = system.mailboxes().page(None, 100).await.expect("reads");
        let waiting: BTreeMap<_, _> = mailboxes.into_iter().map(|m| (m.name, m.waiting)).collect();
        let money = bank.money().await;
        panic!(
            "{what}: {money} instead of {all} after {PATIENCE:?}; waiting {waiting:?}, {:?}",
            bank.wrong().await
        );
    }
    let wrong = bank.wrong().await;
    assert!(wrong.is_empty(), "{what}: {wrong:?}");
    let handled = bank.handled().await;
    let dead = dead(system, what).await;
    let both: Vec<_> = handled.intersection(&dead).collect();
    assert!(both.is_empty(), "{what}: handled and dead: {both:?}");
    let lost: Vec<_> =
        acknowledged.iter().filter(|(id, _)| !handled.contains(id) && !dead.contains(id)).take(5).collect();
    assert!(lost.is_empty(), "{what}: acknowledged and neither handled nor dead: {lost:?}");
    Found { handled: handled.len(), dead: dead.len() }
}

async fn dead(system: &System, what: &str) -> BTreeSet<MessageId> {
    let (mut dead, mut after) = (BTreeSet::new(), None);
    loop {
        let page = system.dead_letters().page(None, after, 500).await.expect("reads");
        let Some(last) = page.last() else { return dead };
        after = Some(last.id);
        for letter in &page {
            assert_eq!(letter.message, Transfer::NAME, "{what}: only transfers may die, not {letter:?}");
            assert!(letter.attempts.count <= ATTEMPTS, "{what}: too many attempts counted: {letter:?}");
            assert!(dead.insert(letter.id.message()), "{what}: dead twice: {letter:?}");
        }
    }
}
