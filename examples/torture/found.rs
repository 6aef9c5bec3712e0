//! All that is in a store when everybody has come to the end of all work, compared with what had been acknowledged and with
//! itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, de::DeserializeOwned};
use steadfast::{Actor, ActorRef, CellMap, System, decode_value};

use super::bank::{
    BALANCE, Bank, COMPLAINTS, DEPOSITED, GAPS, GOT, HANDLED, Habit, Kind, NEXT, Reader, Transfer,
};
use super::checker::{Findings, Refusal};
use super::ledger::{Ledger, Told};
use super::plan::{self, ACCOUNTS, ATTEMPTS, EXPIRING, KEPT, START, TOPICS};

async fn money(bank: &Bank) -> Result<i64, Refusal> {
    let mut sum = 0;
    for account in &bank.accounts {
        sum += account.cell(&BALANCE).await?.unwrap_or(START);
    }
    Ok(sum)
}

/// What is in the store.
#[derive(Default)]
pub(crate) struct Found {
    handled: BTreeMap<u64, u32>,
    deposited: BTreeMap<u64, u32>,
    noted: BTreeMap<u64, u32>,
    dead: BTreeMap<u64, u32>,
    /// Handled by another than they were sent to.
    astray: Vec<u64>,
    complaints: Vec<(Kind, String)>,
    records: Vec<Record>,
    waiting: Vec<(String, u64)>,
    money: i64,
    next: [u64; 2],
}

/// What one subscriber got.
struct Record {
    name: String,
    topic: usize,
    habit: Habit,
    got: BTreeMap<u64, u64>,
    gaps: Vec<(u64, u64)>,
    next: u64,
}

impl Found {
    pub(crate) async fn read(
        system: &System,
        bank: &Bank,
        readers: &[(usize, Habit, ActorRef<Reader>)],
        ledger: &Ledger,
    ) -> Result<Found, Refusal> {
        let mut found = Found { money: money(bank).await?, ..Found::default() };
        for (index, account) in (0..).zip(&bank.accounts) {
            for (key, times) in all(account, &HANDLED).await? {
                *found.handled.entry(key).or_default() += times;
                found.astray.extend((plan::from(key) != index).then_some(key));
            }
            for (key, times) in all(account, &DEPOSITED).await? {
                *found.deposited.entry(key).or_default() += times;
                found.astray.extend((plan::to(key) != index).then_some(key));
            }
            found.complaints.extend(account.cell(&COMPLAINTS).await?.unwrap_or_default());
        }
        found.noted = all(&bank.book, &HANDLED).await?.into_iter().collect();
        found.complaints.extend(bank.book.cell(&COMPLAINTS).await?.unwrap_or_default());
        for (topic, habit, reader) in readers {
            let got = all(reader, &GOT).await?.into_iter().filter(|(at, _)| *at >= ledger.bases[*topic]);
            found.complaints.extend(reader.cell(&COMPLAINTS).await?.unwrap_or_default());
            found.records.push(Record {
                name: reader.name().to_owned(),
                topic: *topic,
                habit: *habit,
                got: got.collect(),
                gaps: reader.cell(&GAPS).await?.unwrap_or_default(),
                next: reader.cell(&NEXT).await?.unwrap_or_default(),
            });
        }
        for (next, topic) in found.next.iter_mut().zip(&bank.topics) {
            *next = topic.info().await?.next;
        }
        found.waiting = mailboxes(system).await?;
        let (dead, wrong) = dead(system).await?;
        found.dead = dead;
        found.complaints.extend(wrong.into_iter().map(|what| (Kind::Other, what)));
        Ok(found)
    }

    pub(crate) fn compare(&self, ledger: &Ledger, findings: &mut Findings) {
        self.count(findings);
        self.compare_acknowledged(ledger, findings);
        self.compare_turns(ledger.bases, findings);
        for record in &self.records {
            self.compare_record(record, ledger, findings);
            self.compare_with_the_first(record, findings);
        }
        for (kind, what) in &self.complaints {
            match kind {
                Kind::Twice => findings.handled_twice += 1,
                Kind::Order => findings.reordered += 1,
                Kind::Other => findings.other += 1,
            }
            findings.say(what.clone());
        }
        for key in &self.astray {
            findings.other += 1;
            findings.say(format!("{key:#x} was handled by another than it was sent to"));
        }
        for (name, waiting) in self.waiting.iter().filter(|(_, waiting)| *waiting > 0) {
            findings.other += 1;
            findings.say(format!("{waiting} messages wait in {name} when all is done"));
        }
        let off = self.money - START * ACCOUNTS as i64;
        if off != 0 {
            findings.money_off = off.unsigned_abs();
            findings.say(format!("there is {off} more money than there was"));
        }
    }

    fn count(&self, findings: &mut Findings) {
        findings.handled = self.handled.len() as u64;
        findings.large = self.handled.keys().filter(|key| plan::is_large(**key)).count() as u64;
        findings.small = findings.handled - findings.large;
        findings.dead = self.dead.len() as u64;
        findings.next = self.next;
        findings.events = self.records.iter().map(|record| record.got.len() as u64).sum();
        findings.gaps_told = self.records.iter().map(|record| record.gaps.len() as u64).sum();
    }

    /// What was acknowledged is handled, dead or expired, nothing waits any more, and none is two of these; what is handled or
    /// dead was sent. A key says which mailbox it belongs to, and each actor was asked for itself, so this holds for each mailbox.
    fn compare_acknowledged(&self, ledger: &Ledger, findings: &mut Findings) {
        // of those that were checked before, only duplicates can have been acknowledged since
        for key in ledger.acknowledged.iter().filter(|key| plan::life(**key) > ledger.settled) {
            let expired = ledger.told.get(key) == Some(&Told::Expired);
            if self.handled.contains_key(key) || self.dead.contains_key(key) {
                if expired {
                    findings.other += 1;
                    findings
                        .say(format!("{key:#x} is handled or dead, and its sender was told that it expired"));
                }
                continue;
            }
            // one that nobody was told of may have expired in a later life
            if plan::sender(*key) == EXPIRING && !plan::is_patient(*key) {
                findings.expired += 1;
                continue;
            }
            findings.lost += 1;
            findings.say(format!("{key:#x} was acknowledged, and is neither handled nor dead"));
        }
        let found = self.handled.len() + self.dead.len();
        findings.accepted = found as u64 + findings.expired;
        for (key, times) in self.handled.iter().chain(&self.dead) {
            if !ledger.was_announced(*key) {
                findings.phantom += 1;
                findings.say(format!("{key:#x} was never sent"));
            }
            if *times > 1 {
                findings.handled_twice += 1;
                findings.say(format!("{key:#x} was handled {times} times"));
            }
        }
        for key in self.handled.keys().filter(|key| plan::is_doomed(**key)) {
            findings.other += 1;
            findings.say(format!("{key:#x} was handled, and cannot be"));
        }
        for key in self.dead.keys().filter(|key| !plan::is_doomed(**key)) {
            findings.lost += 1;
            findings.say(format!("{key:#x} is dead, and could have been handled"));
        }
    }

    /// A turn's state and what it sent and published are all there or all not.
    fn compare_turns(&self, bases: [u64; 2], findings: &mut Findings) {
        let turns: BTreeSet<u64> = self.handled.keys().copied().collect();
        let mut same = |what: &str, there: BTreeSet<u64>| {
            for key in turns.symmetric_difference(&there) {
                findings.half_visible += 1;
                let has = if there.contains(key) { "only" } else { "no" };
                findings.say(format!("the turn of {key:#x} has {has} {what}"));
            }
        };
        same("deposit", self.deposited.keys().copied().collect());
        same("note", self.noted.keys().copied().collect());
        // where retention overtook it, it does not know
        let steady = self.records.iter().find(|record| record.topic == 0);
        if let Some(steady) = steady.filter(|record| record.gaps.iter().all(|(_, to)| *to <= bases[0])) {
            same("event", steady.got.values().copied().collect());
        }
        for (key, times) in self.deposited.iter().chain(&self.noted).filter(|(_, times)| **times > 1) {
            findings.handled_twice += 1;
            findings.say(format!("what the turn of {key:#x} sent was handled {times} times"));
        }
    }

    /// All who read a topic got the same at the same place.
    fn compare_with_the_first(&self, record: &Record, findings: &mut Findings) {
        let Some(first) = self.records.iter().find(|first| first.topic == record.topic) else { return };
        for (at, key) in &record.got {
            if let Some(other) = first.got.get(at).filter(|other| *other != key) {
                findings.reordered += 1;
                let (name, first) = (&record.name, &first.name);
                findings.say(format!("{name} got {key:#x} at {at}, where {first} got {other:#x}"));
            }
        }
    }

    /// Every event once, in its place, or told as a gap where retention may have taken it.
    fn compare_record(&self, record: &Record, ledger: &Ledger, findings: &mut Findings) {
        let (name, topic) = (&record.name, record.topic);
        let end = self.next[topic];
        if record.next != end {
            findings.lost += 1;
            findings.say(format!("{name} has come to {}, and the topic to {end}", record.next));
        }
        for (from, to) in &record.gaps {
            if to + KEPT > end || from >= to {
                findings.lost += 1;
                findings
                    .say(format!("{name} was told of a gap {from}..{to} of {end}, where nothing was taken"));
            }
        }
        let told = |at: u64| record.gaps.iter().any(|(from, to)| (*from..*to).contains(&at));
        let mut seen = BTreeSet::new();
        let mut last = BTreeMap::new();
        // who came for the first time begins with what is kept, and all have come by the first check
        let first = record.got.keys().next().copied().unwrap_or(end);
        let came_late = ledger.settled == 0 && record.habit != Habit::Steady;
        let was_kept_from_it = |at: u64| came_late && at < first && at + KEPT < end;
        for at in ledger.bases[topic]..end {
            let expected = ledger.published.get(&(topic, at));
            match (record.got.get(&at), expected) {
                (None, _) if told(at) || was_kept_from_it(at) => {}
                (None, _) => {
                    findings.lost += 1;
                    findings.say(format!("{name} did not get event {at}"));
                }
                (Some(key), Some(expected)) if key != expected => {
                    findings.reordered += 1;
                    findings.say(format!("{name} got {key:#x} at {at}, where {expected:#x} was published"));
                }
                (Some(key), _) => {
                    // each publisher's in its order; in turns they are published in the order of those
                    let before = last.insert(plan::sender(*key), *key);
                    if plan::is_event(*key) && before.is_some_and(|before| before > *key) {
                        findings.reordered += 1;
                        findings.say(format!("{name} got {key:#x} at {at} after {before:#x?}"));
                    }
                    if !seen.insert(*key) {
                        findings.handled_twice += 1;
                        findings.say(format!("{name} got {key:#x} again at {at}"));
                    }
                    if !ledger.was_announced(*key) {
                        findings.phantom += 1;
                        findings.say(format!("{name} got {key:#x}, which was never published"));
                    }
                }
            }
        }
        for (_, at) in ledger.published.keys().filter(|(of, at)| *of == topic && *at >= end) {
            findings.lost += 1;
            findings.say(format!("event {at} of {} was acknowledged, and it ends at {end}", TOPICS[topic]));
        }
    }
}

async fn mailboxes(system: &System) -> Result<Vec<(String, u64)>, Refusal> {
    const ENOUGH: usize = 100;
    let page = system.mailboxes().page(None, ENOUGH).await?;
    // what a topic keeps does not wait
    let mailboxes = page.into_iter().filter(|mailbox| !mailbox.name.starts_with('@'));
    Ok(mailboxes.map(|mailbox| (mailbox.name, mailbox.waiting)).collect())
}

/// How often each is dead: only transfers may be. Also what is wrong with them: each had all its attempts, whatever happened
/// between two of them, and lies where it was sent.
pub(crate) async fn dead(system: &System) -> Result<(BTreeMap<u64, u32>, Vec<String>), Refusal> {
    const PAGE: usize = 500;
    let (mut dead, mut wrong, mut after) = (BTreeMap::new(), Vec::new(), None);
    loop {
        let page = system.dead_letters().page(None, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok((dead, wrong)) };
        after = Some(last.id);
        for letter in &page {
            if letter.message != <Transfer as steadfast::Message>::NAME {
                return Err(format!("a dead {}: {:?}", letter.message, letter.reason).into());
            }
            let transfer: Transfer = decode_value(&letter.body)?;
            let key = transfer.key;
            *dead.entry(key).or_default() += 1;
            let attempts = if plan::is_hopeless(key) { 1 } else { ATTEMPTS };
            if letter.attempts.count != attempts || letter.mailbox != format!("account-{}", plan::from(key)) {
                let (mailbox, count) = (&letter.mailbox, letter.attempts.count);
                wrong.push(format!(
                    "{key:#x} is a dead letter of {mailbox} after {count} attempts of {attempts}"
                ));
            }
        }
    }
}

/// A whole map, page by page.
pub(crate) async fn all<A, V>(actor: &ActorRef<A>, map: &CellMap<u64, V>) -> Result<Vec<(u64, V)>, Refusal>
where
    A: Actor,
    V: Serialize + DeserializeOwned + 'static,
{
    const PAGE: usize = 2_000;
    let mut all = Vec::new();
    loop {
        let page = actor.map_page(map, all.last().map(|(key, _)| key), PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}
