//! What must hold of a store, whatever was done to it: asked of what had been acknowledged, and of what is found when everybody
//! runs again and has come to the end of all work.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::testkit::run_until_idle;
use steadfast::{Actor, ActorRef, Exit, LookupError, System};

use super::bank::{Account, Bank, Book, Forget, HANDLED, Habit, Reader, TURNS};
use super::found::{Found, all, dead};
use super::ledger::{Ledger, Told};
use super::plan::{self, ACCOUNTS, LONGEST_DELAY, TOPICS};

/// Whatever the store said instead of an answer: its errors are typed, so this is a refusal and no loss.
pub(crate) type Refusal = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Findings {
    pub(crate) lost: u64,
    pub(crate) half_visible: u64,
    pub(crate) reordered: u64,
    pub(crate) handled_twice: u64,
    pub(crate) phantom: u64,
    /// Work that does not come to an end.
    pub(crate) hangs: u64,
    /// Money that was made or lost.
    pub(crate) money_off: u64,
    /// Anything else that is wrong.
    pub(crate) other: u64,
    pub(crate) handled: u64,
    pub(crate) small: u64,
    pub(crate) large: u64,
    pub(crate) dead: u64,
    pub(crate) expired: u64,
    /// Messages that were acknowledged, handled or dead.
    pub(crate) accepted: u64,
    /// Messages of whose end the sender was told.
    pub(crate) told: u64,
    pub(crate) events: u64,
    pub(crate) gaps_told: u64,
    pub(crate) next: [u64; 2],
    /// The first few things that are wrong.
    pub(crate) problems: Vec<String>,
}

impl Findings {
    pub(crate) fn wrong(&self) -> u64 {
        let Findings {
            lost, half_visible, reordered, handled_twice, phantom, hangs, money_off, other, ..
        } = self;
        lost + half_visible + reordered + handled_twice + phantom + hangs + money_off + other
    }

    pub(crate) fn say(&mut self, what: String) {
        const SOME: usize = 12;
        if self.problems.len() < SOME {
            self.problems.push(what);
        }
    }
}

/// Looks at a store as it was left, before anybody runs: turns that were half done would show here first. A transfer's turn, its
/// note and its event are as many, whatever waits.
pub(crate) async fn look(system: &System) -> Result<Option<String>, Refusal> {
    let mut turns = 0;
    for index in 0..ACCOUNTS {
        // it may be that nobody was ever there
        let Some(account) = known::<Account>(system, &format!("account-{index}")).await? else { continue };
        turns += account.cell(&TURNS).await?.unwrap_or_default();
    }
    let Some(book) = known::<Book>(system, "book").await? else {
        return Ok((turns > 0).then(|| format!("{turns} turns, and no book")));
    };
    let noted = book.cell(&TURNS).await?.unwrap_or_default();
    let waiting = match system.mailboxes().page(Some("boo"), 1).await?.pop() {
        Some(book) if book.name == "book" => book.waiting,
        _ => 0,
    };
    let topic = system.topic::<super::bank::Happened>(plan::MOVED).await?;
    let events = topic.info().await?.next;
    let same = noted + waiting == turns && events == turns;
    Ok((!same).then(|| format!("{turns} turns, {noted} noted and {waiting} waiting, {events} events")))
}

async fn known<A: Actor>(system: &System, name: &str) -> Result<Option<ActorRef<A>>, Refusal> {
    match system.lookup(name).await {
        Ok(actor) => Ok(Some(actor)),
        Err(LookupError::Unknown { .. }) => Ok(None),
        Err(why) => Err(why.into()),
    }
}

/// What its sender was told of the end of a message is so before anybody runs: it was not told of what was still to come.
async fn look_for_what_was_told(
    system: &System,
    ledger: &Ledger,
    findings: &mut Findings,
) -> Result<(), Refusal> {
    let mut handled = BTreeSet::new();
    for index in 0..ACCOUNTS {
        let Some(account) = known::<Account>(system, &format!("account-{index}")).await? else { continue };
        handled.extend(all(&account, &HANDLED).await?.into_iter().map(|(key, _)| key));
    }
    let (dead, _) = dead(system).await?;
    for (key, told) in &ledger.told {
        let (is_handled, is_dead) = (handled.contains(key), dead.contains_key(key));
        let so = match told {
            Told::Handled => is_handled && !is_dead,
            Told::Buried => is_dead && !is_handled,
            Told::Expired => !is_dead && !is_handled,
        };
        if !so {
            findings.lost += 1;
            findings.say(format!(
                "the sender of {key:#x} was told: {told:?}; before anybody ran, handled: {is_handled}, dead: {is_dead}"
            ));
        }
    }
    findings.told = ledger.told.len() as u64;
    Ok(())
}

/// Runs everybody to the end of all work and compares. `prune` has the actors forget what was checked.
pub(crate) async fn check(system: &System, ledger: &Ledger, prune: Option<u64>) -> Result<Findings, Refusal> {
    let mut findings = Findings::default();
    if let Some(what) = look(system).await? {
        findings.half_visible += 1;
        findings.say(format!("before anybody ran: {what}"));
    }
    look_for_what_was_told(system, ledger, &mut findings).await?;
    let bank = Bank::open(system, None).await?;
    let mut readers = Vec::new();
    for topic in 0..TOPICS.len() {
        for habit in Habit::ALL {
            readers.push((topic, habit, bank.reader(system, habit, topic, None).await?));
        }
    }
    if !settles(system, &bank, &readers).await? {
        findings.hangs += 1;
    }
    let found = Found::read(system, &bank, &readers, ledger).await?;
    found.compare(ledger, &mut findings);
    if let Some(life) = prune.filter(|_| findings.wrong() == 0) {
        forget(system, &bank, &readers, life, findings.next).await?;
    }
    Ok(findings)
}

/// Waits for the end of all work; false if there is none, while everybody runs.
async fn settles(
    system: &System,
    bank: &Bank,
    readers: &[(usize, Habit, ActorRef<Reader>)],
) -> Result<bool, Refusal> {
    const PATIENCE: Duration = Duration::from_secs(90);
    let settles = async {
        // what was delayed comes to be due, and what that sends delayed too
        for _ in 0..2 {
            run_until_idle(system).await?;
            tokio::time::sleep(LONGEST_DELAY + Duration::from_millis(50)).await;
        }
        Ok::<_, Refusal>(run_until_idle(system).await?)
    };
    // an actor that has stopped says why, and its mail waits: a refusal too
    let stops = async {
        loop {
            all_run(system, bank, readers).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        // mail of one that does not run is no work
        settled = settles => match settled {
            Ok(()) => all_run(system, bank, readers).await.map(|()| true),
            Err(why) => Err(why),
        },
        why = system.failed() => Err(why.into()),
        stopped = stops => stopped,
        () = tokio::time::sleep(PATIENCE) => Ok(false),
    }
}

async fn all_run(
    system: &System,
    bank: &Bank,
    readers: &[(usize, Habit, ActorRef<Reader>)],
) -> Result<(), Refusal> {
    for account in &bank.accounts {
        is_running(system, account).await?;
    }
    is_running(system, &bank.book).await?;
    for (_, _, reader) in readers {
        is_running(system, reader).await?;
    }
    Ok(())
}

async fn is_running<A: Actor>(system: &System, actor: &ActorRef<A>) -> Result<(), Refusal> {
    if actor.is_running() {
        return Ok(());
    }
    match actor.ended().await {
        // that may be what this one could not read, which is in the log, while the store goes on for others
        Some(Exit::StoreFailed) => {
            match tokio::time::timeout(Duration::from_secs(1), system.failed()).await {
                Ok(why) => Err(why.into()),
                Err(_) => Err(format!("{} has stopped", actor.name()).into()),
            }
        }
        exit => {
            let why = exit.map_or_else(String::new, |exit| exit.to_string());
            Err(format!("{} has stopped: {why}", actor.name()).into())
        }
    }
}

/// Has everybody forget what was checked.
async fn forget(
    system: &System,
    bank: &Bank,
    readers: &[(usize, Habit, ActorRef<Reader>)],
    life: u64,
    next: [u64; 2],
) -> Result<(), Refusal> {
    for account in &bank.accounts {
        account.tell(Forget { life, below: 0 }).await?;
    }
    bank.book.tell(Forget { life, below: 0 }).await?;
    for (topic, _, reader) in readers {
        reader.tell(Forget { life, below: next[*topic] }).await?;
    }
    loop {
        let page = system.dead_letters().page(None, None, 200).await?;
        if page.is_empty() {
            break;
        }
        for letter in page {
            system.dead_letters().purge(letter.id).await?;
        }
    }
    Ok(run_until_idle(system).await?)
}
