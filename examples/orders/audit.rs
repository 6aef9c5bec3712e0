//! Compares what each actor recorded with the input, order by order. It runs in a process of its own, which
//! starts no actor and knows nothing but the store and the files.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::hash::Hash;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, ActorRef, Address, Cell, CellMap, DeadLetter, Entities, MapKey, Reason, StateError, System,
};

use super::analytics::{self, Analytics, Sales};
use super::customer::{self, Customer};
use super::data::Data;
use super::input::{Orders, Position};
use super::inventory::{self, Inventory, Tally};
use super::notification::Notified;
use super::options::Part;

const PAGE: usize = 1_000;

/// What the audit found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Orders that inventory has applied.
    pub(crate) orders: u64,
    pub(crate) cds: u64,
    pub(crate) cents: u64,
    pub(crate) customers: u64,
    /// Orders that inventory or a customer applied less often than the input has them, which is once.
    pub(crate) lost: u64,
    /// Orders that one of them applied more often.
    pub(crate) applied_twice: u64,
    /// Turns that were run again after a kill.
    pub(crate) reruns: u64,
    pub(crate) notified_missing: u64,
    pub(crate) notified_repeated: u64,
    /// Lines in the dead letters.
    pub(crate) malformed: u64,
    /// What the dead letters say of these lines.
    pub(crate) malformed_lines: Vec<String>,
    /// Orders that analytics has counted.
    pub(crate) analytics_orders: u64,
    /// Whatever else should not be.
    pub(crate) problems: Vec<String>,
}

pub(crate) async fn run(part: &Part) -> Result<Findings, Box<dyn Error>> {
    let data = Data(&part.data);
    let expected = Expected::read(&part.input)?;
    let system = System::open(data.store()).await?;
    let mut findings = Findings::default();
    let recorded = Recorded::read(&system).await?;
    recorded.compare(&expected, &mut findings);
    look_at_dead_letters(&system, &expected, &mut findings).await?;
    look_at_notifications(&read(&data.notifications())?, &expected, &mut findings);
    findings.reruns = reruns(&read(&data.attempts())?);
    system.shutdown(std::time::Duration::from_secs(10)).await?;
    Ok(findings)
}

/// What the input adds up to.
#[derive(Default)]
struct Expected {
    orders: HashMap<u64, Wanted>,
    owed: BTreeMap<String, u64>,
    malformed: u64,
}

/// What is to be found for one order id.
#[derive(Default)]
struct Wanted {
    /// How often the input has it.
    times: u64,
    cds: u64,
    cents: u64,
}

impl Expected {
    fn read(input: &Path) -> std::io::Result<Self> {
        let mut expected = Expected::default();
        for line in Orders::open(input, Position::default())? {
            let Ok(order) = line? else {
                expected.malformed += 1;
                continue;
            };
            let wanted = expected.orders.entry(order.order_id).or_default();
            wanted.times += 1;
            wanted.cds += u64::from(order.quantity);
            wanted.cents += u64::from(order.total_cents);
            *expected.owed.entry(order.customer).or_default() += u64::from(order.total_cents);
        }
        Ok(expected)
    }

    fn sum(&self, of: impl Fn(&Wanted) -> u64) -> u64 {
        self.orders.values().map(of).sum()
    }
}

/// What the actors recorded.
struct Recorded {
    shipped: HashMap<u64, Tally>,
    shipped_total: Tally,
    charged: HashMap<u64, Tally>,
    charged_total: Tally,
    owed: BTreeMap<String, u64>,
    sales: Sales,
    /// What analytics says that each customer has ordered for.
    ordered: BTreeMap<String, u64>,
}

impl Recorded {
    async fn read(system: &System) -> Result<Self, Box<dyn Error>> {
        // an inspection reads what is committed and sends nothing, so the actors need not run
        let inventory: ActorRef<Inventory> = system.bind(&Address::new("inventory")?).await?;
        let analytics: ActorRef<Analytics> = system.bind(&Address::new("analytics")?).await?;
        let ordered = all(&analytics, &analytics::BY_CUSTOMER).await?.into_iter();
        let mut recorded = Recorded {
            shipped: all(&inventory, &inventory::SHIPPED).await?.into_iter().collect(),
            shipped_total: value(&inventory, &inventory::TOTAL).await?,
            charged: HashMap::new(),
            charged_total: Tally::default(),
            owed: BTreeMap::new(),
            sales: value(&analytics, &analytics::SALES).await?,
            ordered: ordered.map(|(customer, ordered)| (customer, ordered.amount)).collect(),
        };
        recorded.read_customers(system).await?;
        Ok(recorded)
    }

    async fn read_customers(&mut self, system: &System) -> Result<(), Box<dyn Error>> {
        let nobody = |_: &String| unreachable!("none is loaded");
        let customers: Entities<String, Customer> =
            system.entities(customer::REGION, nobody).max_loaded(0).await?;
        let mut after = None;
        loop {
            let page = customers.keys(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for customer in page {
                let entity = customers.get(&customer).await?;
                let owed = value(&entity, &customer::OWED).await?;
                self.charged_total.times += owed.times;
                self.charged_total.amount += owed.amount;
                self.owed.insert(customer, owed.amount);
                for (order_id, charged) in all(&entity, &customer::CHARGED).await? {
                    let tally = self.charged.entry(order_id).or_default();
                    tally.times += charged.times;
                    tally.amount += charged.amount;
                }
            }
        }
    }

    fn compare(&self, expected: &Expected, findings: &mut Findings) {
        findings.orders = self.shipped.len() as u64;
        findings.cds = self.shipped_total.amount;
        findings.cents = self.charged_total.amount;
        findings.customers = self.owed.len() as u64;
        findings.analytics_orders = self.sales.orders;
        for (order_id, wanted) in &expected.orders {
            self.compare_order(*order_id, wanted, findings);
        }
        let unknown = |order_id: &&u64| !expected.orders.contains_key(order_id);
        for order_id in self.shipped.keys().chain(self.charged.keys()).filter(unknown) {
            findings.problems.push(format!("order {order_id} is not in the input"));
        }
        // Each order can be right and a total wrong: they are entries of their own.
        let mut same = |what: &str, found: u64, expected: u64| {
            if found != expected {
                findings.problems.push(format!("{what}: {found} recorded, {expected} in the input"));
            }
        };
        same("orders shipped", self.shipped_total.times, expected.sum(|wanted| wanted.times));
        same("orders charged", self.charged_total.times, expected.sum(|wanted| wanted.times));
        same("CDs", self.shipped_total.amount, expected.sum(|wanted| wanted.cds));
        same("cents", self.charged_total.amount, expected.sum(|wanted| wanted.cents));
        same("orders analysed", self.sales.orders, expected.sum(|wanted| wanted.times));
        same("CDs analysed", self.sales.cds, expected.sum(|wanted| wanted.cds));
        same("cents analysed", self.sales.cents, expected.sum(|wanted| wanted.cents));
        if self.owed != expected.owed {
            findings.problems.push("customers owe other sums than they ordered for".into());
        }
        if self.ordered != expected.owed {
            findings.problems.push("analytics has other sums by customer than they ordered for".into());
        }
    }

    fn compare_order(&self, order_id: u64, wanted: &Wanted, findings: &mut Findings) {
        let nothing = Tally::default();
        let shipped = self.shipped.get(&order_id).unwrap_or(&nothing);
        let charged = self.charged.get(&order_id).unwrap_or(&nothing);
        findings.lost += u64::from(shipped.times.min(charged.times) < wanted.times);
        findings.applied_twice += u64::from(shipped.times.max(charged.times) > wanted.times);
        let as_often = shipped.times == wanted.times && charged.times == wanted.times;
        if as_often && (shipped.amount, charged.amount) != (wanted.cds, wanted.cents) {
            findings.problems.push(format!("order {order_id} was applied with other amounts"));
        }
    }
}

async fn value<A, T>(actor: &ActorRef<A>, cell: &Cell<T>) -> Result<T, StateError>
where
    A: Actor,
    T: Default + Serialize + DeserializeOwned + 'static,
{
    Ok(actor.cell(cell).await?.unwrap_or_default())
}

/// A whole map, page by page.
async fn all<A, K, V>(actor: &ActorRef<A>, map: &CellMap<K, V>) -> Result<Vec<(K, V)>, StateError>
where
    A: Actor,
    K: MapKey + 'static,
    V: Serialize + DeserializeOwned + 'static,
{
    let mut all = Vec::new();
    loop {
        let page = actor.map_page(map, all.last().map(|(key, _)| key), PAGE).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

async fn look_at_dead_letters(
    system: &System,
    expected: &Expected,
    findings: &mut Findings,
) -> Result<(), Box<dyn Error>> {
    let mut after = None;
    loop {
        let page = system.dead_letters().page(None, after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for letter in page {
            look_at_dead_letter(letter, findings);
        }
    }
    if findings.malformed != expected.malformed {
        let (found, expected) = (findings.malformed, expected.malformed);
        findings.problems.push(format!("malformed lines: {found} buried, {expected} in the input"));
    }
    Ok(())
}

fn look_at_dead_letter(letter: DeadLetter, findings: &mut Findings) {
    match letter.reason {
        Reason::Buried(why) => {
            findings.malformed += 1;
            findings.malformed_lines.push(why);
        }
        other => {
            let last = letter.attempts.last.last().map_or("", |attempt| &attempt.error);
            let why = format!("a message to {} could not be handled: {other:?} {last}", letter.mailbox);
            findings.problems.push(why);
        }
    }
}

fn look_at_notifications(lines: &str, expected: &Expected, findings: &mut Findings) {
    // a line that a kill has torn is none: the turn that wrote it was not committed, and writes it again
    let notified = lines.lines().filter_map(|line| serde_json::from_str::<Notified>(line).ok());
    let times = count(notified.map(|line| line.order_id));
    for (order_id, wanted) in &expected.orders {
        let times = times.get(order_id).copied().unwrap_or(0);
        findings.notified_missing += u64::from(times < wanted.times);
        findings.notified_repeated += u64::from(times > wanted.times);
    }
}

fn count<T: Hash + Eq>(things: impl Iterator<Item = T>) -> HashMap<T, u64> {
    let mut counts = HashMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}

/// Turns that ran in one run of the program and again in a later one. A turn that failed and was tried again
/// in the same run is none.
fn reruns(attempts: &str) -> u64 {
    let mut seen_in = HashMap::new();
    let mut reruns = 0;
    for line in attempts.lines() {
        let Some((run, turn)) = line.split_once(' ') else { continue };
        reruns += u64::from(seen_in.insert(turn, run).is_some_and(|before| before != run));
    }
    reruns
}

/// A file that may not have come to be.
fn read(path: &Path) -> std::io::Result<String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(why) => Err(why),
    }
}
