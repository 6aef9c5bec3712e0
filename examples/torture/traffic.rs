//! One life: everybody sends and publishes until told to stop, or until the store fails, and says what was acknowledged.
//!
//! | line | what it says |
//! |---|---|
//! | `open MS` | the store was opened |
//! | `i LIFE SENDER BELOW` | this sender may send all numbers below this one |
//! | `a KEY` | this message was acknowledged |
//! | `h KEY`, `d KEY`, `x KEY` | its sender was told that it was handled, is a dead letter, has expired |
//! | `u KEY` | this message was acknowledged, and may be the end of the journal |
//! | `p TOPIC SEQUENCE KEY` | this event was acknowledged, at this place |
//! | `refused` | a message was refused, for want of room, and is in no mailbox |
//! | `failed WHY` | the store failed |
//! | `wrong WHAT` | the store, as it was found, cannot be |
//! | `quiet` | nothing said before is at the end of the journal any more |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use steadfast::{ActorRef, Handled, Receipt, Refused, SendError, StoreError, System, Topic};
use tokio::task::JoinSet;

use super::bank::{Account, Bank, Habit, Happened, Transfer};
use super::broken::Broken;
use super::ledger::Told;
use super::plan::{
    self, AWAITED, DELAYED, EXPIRING, LATE, LONGEST_DELAY, PUBLISHERS, RESENT, SUBMITTED, TOGETHER,
};

/// Where lines go.
pub(crate) type Say = Arc<dyn Fn(String) + Send + Sync>;
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What a life is told.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) life: u64,
    /// All messages of lives up to this one were checked and forgotten.
    pub(crate) settled: u64,
    pub(crate) seed: u64,
    pub(crate) broken: Option<Broken>,
    /// Messages of each sender; none: without end.
    pub(crate) amount: Option<u64>,
    pub(crate) say: Say,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Returns when all has been sent, when it was told to stop, or when the store has failed.
pub(crate) async fn live(system: &System, life: &Life) -> Result<(), Failed> {
    let bank = Arc::new(Bank::open(system, life.broken).await?);
    let mut tasks = JoinSet::new();
    for topic in 0..plan::TOPICS.len() {
        bank.reader(system, Habit::Steady, topic, life.broken).await?;
        if life.life >= LATE {
            bank.reader(system, Habit::Late, topic, life.broken).await?;
        }
        tasks.spawn(come_and_go(system.clone(), bank.clone(), life.clone(), topic));
    }
    let senders = [&AWAITED[..], &SUBMITTED, &[TOGETHER, DELAYED, RESENT, EXPIRING], &PUBLISHERS].concat();
    let at_work = Arc::new(AtomicU64::new(senders.len() as u64));
    for sender in senders {
        let (system, life, bank) = (system.clone(), life.clone(), bank.clone());
        let sender = Sender { system, life, bank, sender, announced: 0 };
        let at_work = at_work.clone();
        tasks.spawn(async move {
            sender.run().await;
            at_work.fetch_sub(1, Ordering::Relaxed);
        });
    }
    while at_work.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    life.stop.store(true, Ordering::Relaxed);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Stops and starts one who subscribes.
async fn come_and_go(system: System, bank: Arc<Bank>, life: Life, topic: usize) {
    let mut step = 0;
    while !life.stop.load(Ordering::Relaxed) {
        step += 1;
        let draw = |what: &str, below| plan::chance(life.seed, (life.life, topic, step, what), below);
        tokio::time::sleep(Duration::from_millis(draw("absence", 150))).await;
        // the store may have failed
        let Ok(reader) = bank.reader(&system, Habit::Restless, topic, life.broken).await else { return };
        tokio::time::sleep(Duration::from_millis(draw("presence", 150))).await;
        match draw("end", 2) {
            0 => reader.stop().await,
            _ => reader.park().await,
        }
    }
}

struct Sender {
    system: System,
    life: Life,
    bank: Arc<Bank>,
    sender: u64,
    announced: u64,
}

/// The store has failed; it was said.
struct StoreFailed;

impl Sender {
    async fn run(mut self) {
        let most = self.life.amount.unwrap_or(u64::from(u32::MAX));
        let mut number = 0;
        if self.sender == RESENT && self.send_those_before_again().await.is_err() {
            return;
        }
        while number < most && !self.life.stop.load(Ordering::Relaxed) {
            let many = self.at_once(number).min(most - number);
            self.announce(self.life.life, number + many);
            let keys: Vec<u64> = (number..number + many)
                .map(|number| plan::key(self.life.life, self.sender, number))
                .collect();
            self.wait_for_the_slow(&keys).await;
            let sent = match self.sender {
                sender if PUBLISHERS.contains(&sender) => self.publish(&keys).await,
                sender if SUBMITTED.contains(&sender) => self.submit(&keys).await,
                TOGETHER => self.send_together(&keys).await,
                DELAYED => self.send_delayed(keys[0]).await,
                RESENT => self.send_twice(keys[0]).await,
                EXPIRING => self.send_expiring(keys[0]).await,
                _ => self.send(keys[0]).await,
            };
            if sent.is_err() {
                return;
            }
            number += many;
        }
    }

    fn at_once(&self, number: u64) -> u64 {
        match self.sender {
            sender if SUBMITTED.contains(&sender) => 16,
            sender if PUBLISHERS.contains(&sender) => 1 + plan::chance(self.life.seed, (sender, number), 4),
            TOGETHER => 12,
            _ => 1,
        }
    }

    /// Says which numbers are to come, before they do.
    fn announce(&mut self, life: u64, below: u64) {
        const AHEAD: u64 = 64;
        if below > self.announced || life != self.life.life {
            self.announced = if life == self.life.life { below + AHEAD } else { self.announced };
            self.say(announcement(life, self.sender, below + AHEAD));
        }
    }

    fn say(&self, line: String) {
        (self.life.say)(line);
    }

    fn acknowledge(&self, key: u64) {
        self.say(format!("a {key}"));
    }

    /// What is sent faster than it is handled would only take the time in which it is checked.
    async fn wait_for_the_slow(&self, keys: &[u64]) {
        const MANY: u64 = 300;
        let waits = |key: &u64| self.bank.account(*key).waiting() > MANY;
        while !plan::is_event(keys[0]) && keys.iter().any(waits) && !self.life.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    async fn became<T, M>(&self, sent: Result<T, SendError<M>>) -> Result<Option<T>, StoreFailed> {
        match sent {
            Ok(sent) => Ok(Some(sent)),
            Err(SendError::Unknown { why, .. }) => Err(self.failed(why)),
            Err(SendError::Refused {
                why: Refused::NoRoom | Refused::Busy | Refused::Store(StoreError::Full { .. }),
                ..
            }) => {
                self.say("refused".into());
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(None)
            }
            Err(SendError::Refused { why: Refused::Store(why), .. }) => Err(self.failed(why)),
            Err(other) => {
                self.say(format!("wrong refusal: {other}"));
                Err(StoreFailed)
            }
        }
    }

    fn failed(&self, why: StoreError) -> StoreFailed {
        self.say(format!("failed {why}"));
        StoreFailed
    }

    async fn send(&self, key: u64) -> Result<(), StoreFailed> {
        if self.life.broken == Some(Broken::AcknowledgesEarly) && plan::number(key).is_multiple_of(5) {
            self.acknowledge(key);
            return Ok(());
        }
        let account = self.bank.account(key);
        if self.life.broken == Some(Broken::Phantom) && plan::number(key).is_multiple_of(20) {
            let unheard_of = plan::key(self.life.life, self.sender, 1_000_000 + plan::number(key));
            self.became(self.bank.account(unheard_of).tell(Transfer::new(unheard_of)).await).await?;
        }
        let sent = self.became(account.tell(Transfer::new(key)).await).await?;
        if sent.is_some() {
            self.acknowledge(key);
        }
        Ok(())
    }

    /// Does not wait for one before it sends the next.
    async fn submit(&self, keys: &[u64]) -> Result<(), StoreFailed> {
        let mut keys = keys.to_vec();
        if self.life.broken == Some(Broken::Swaps) {
            keys.reverse();
        }
        let mut receipts = Vec::new();
        for key in keys {
            let submitted = self.bank.account(key).tell(Transfer::new(key)).submit();
            receipts.extend(self.became(submitted).await?.map(|receipt| (key, receipt)));
        }
        for (key, receipt) in receipts {
            receipt.durable().await.map_err(|why| self.failed(why))?;
            self.acknowledge(key);
            self.tells_of_the_end(key, receipt);
        }
        Ok(())
    }

    /// Says what became of it, once that is durable. A life may end before.
    fn tells_of_the_end(&self, key: u64, receipt: Receipt) {
        let say = self.life.say.clone();
        let broken = self.life.broken;
        tokio::spawn(async move {
            let told = match receipt.handled().await {
                Ok(Handled::Done) if broken == Some(Broken::TellsLies) => Told::Buried,
                Ok(Handled::Done) => Told::Handled,
                Ok(Handled::Buried) => Told::Buried,
                Ok(Handled::Expired) => Told::Expired,
                Ok(other) => return say(format!("wrong end of {key:#x}: {other:?}")),
                // its actor, the system or the store has ended
                Err(_) => return,
            };
            say(format!("{} {key}", told.word()));
        });
    }

    async fn send_together(&self, keys: &[u64]) -> Result<(), StoreFailed> {
        let mut by_account: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for key in keys {
            by_account.entry(plan::from(*key)).or_default().push(*key);
        }
        for keys in by_account.into_values() {
            let account: &ActorRef<Account> = self.bank.account(keys[0]);
            let transfers: Vec<_> = keys.iter().map(|key| Transfer::new(*key)).collect();
            if self.became(account.tell_all(transfers).await).await?.is_some() {
                keys.into_iter().for_each(|key| self.acknowledge(key));
            }
        }
        Ok(())
    }

    async fn send_delayed(&self, key: u64) -> Result<(), StoreFailed> {
        let longest = LONGEST_DELAY.as_millis() as u64;
        let delay = Duration::from_millis(plan::chance(30, key, longest));
        let due = self.system.now().after(delay);
        let transfer = Transfer { due_ms: due.as_millis(), ..Transfer::new(key) };
        if self.became(self.bank.account(key).tell(transfer).at(due).await).await?.is_some() {
            self.acknowledge(key);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(())
    }

    async fn send_once(&self, key: u64) -> Result<(), StoreFailed> {
        let tell = self.bank.account(key).tell(Transfer::new(key));
        let tell = match self.life.broken {
            Some(Broken::NoDedup) => tell,
            _ => tell.dedup_id(key.to_string()),
        };
        if self.became(tell.await).await?.is_some() {
            self.acknowledge(key);
        }
        Ok(())
    }

    async fn send_twice(&self, key: u64) -> Result<(), StoreFailed> {
        self.send_once(key).await?;
        match plan::chance(31, key, 3) {
            0 => self.send_once(key).await,
            _ => Ok(()),
        }
    }

    /// As one does who was killed and does not know how far it had come.
    async fn send_those_before_again(&mut self) -> Result<(), StoreFailed> {
        const AGAIN: u64 = 8;
        // what was not sent then, and would be now, must not be one of those that were checked
        let before = self.life.life - 1;
        if before <= self.life.settled {
            return Ok(());
        }
        self.announce(before, AGAIN);
        for number in 0..AGAIN {
            self.send_once(plan::key(before, self.sender, number)).await?;
        }
        Ok(())
    }

    async fn send_expiring(&self, key: u64) -> Result<(), StoreFailed> {
        const LONG: Duration = Duration::from_secs(7 * 24 * 3600);
        let short = Duration::from_millis(1 + plan::chance(32, key, 60));
        let time = if plan::is_patient(key) { LONG } else { short };
        if self.life.broken == Some(Broken::ForgetsTheExpiring) && plan::is_patient(key) {
            self.acknowledge(key);
            return Ok(());
        }
        let tell = self.bank.account(key).tell(Transfer::new(key)).expires(time);
        if let Some(receipt) = self.became(tell.submit()).await? {
            receipt.durable().await.map_err(|why| self.failed(why))?;
            self.acknowledge(key);
            self.tells_of_the_end(key, receipt);
        }
        tokio::time::sleep(Duration::from_millis(4)).await;
        Ok(())
    }

    async fn publish(&self, keys: &[u64]) -> Result<(), StoreFailed> {
        let news: &Topic<Happened> = &self.bank.topics[1];
        let published = match keys {
            [key] => self.became(news.publish(Happened { key: *key }).await).await?.map(|one| vec![one]),
            _ => {
                let events: Vec<_> = keys.iter().map(|key| Happened { key: *key }).collect();
                self.became(news.publish_all(events).await).await?
            }
        };
        for (key, published) in keys.iter().zip(published.into_iter().flatten()) {
            if let Some(sequence) = published.sequence {
                self.say(format!("p {} {sequence} {key}", news.name()));
            }
        }
        tokio::time::sleep(Duration::from_millis(plan::chance(33, keys[0], 8))).await;
        Ok(())
    }
}

/// The line that says which numbers are to come.
pub(crate) fn announcement(life: u64, sender: u64, below: u64) -> String {
    format!("i {life} {sender} {below}")
}

/// Sends some that nobody hears of, so that what was acknowledged is not the journal's end: after an unclean end, that end
/// cannot be told from one that was torn.
pub(crate) async fn send_unheard(system: &System, life: &Life) -> Result<(), Failed> {
    const MARK: Duration = Duration::from_millis(150);
    const MANY: u64 = 40;
    // so that they wait in the store
    for index in 0..plan::ACCOUNTS {
        system.lookup::<Account>(&format!("account-{index}")).await?.park().await;
    }
    (life.say)(announcement(life.life, plan::UNHEARD, MANY));
    tokio::time::sleep(MARK).await;
    for number in 0..MANY {
        let key = plan::key(life.life, plan::UNHEARD, number);
        let account: ActorRef<Account> = system.lookup(&format!("account-{}", plan::from(key))).await?;
        account.tell(Transfer::new(key)).await?;
        (life.say)(format!("u {key}"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
