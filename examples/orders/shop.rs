//! The process that is killed: opens the store, starts the actors, ends when all is handled. It does the same
//! whether it is the first or was killed before, for the store knows where it was.

use std::error::Error;
use std::time::Duration;

use steadfast::{ActorRef, Entities, StartFrom, System, Topic};

use super::analytics::Analytics;
use super::billing::Billing;
use super::customer::{self, Customer};
use super::data::{AttemptLog, Data, Lines};
use super::inventory::{Inventory, TOTAL};
use super::notification::Notification;
use super::options::{Guard, Part};
use super::pace::Pace;
use super::products::{self, NextSlice, OrderPlaced, POSITION, Products};

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) async fn run(part: &Part, broken: Option<Guard>) -> Result<(), Box<dyn Error>> {
    // what a restart has to read, and what is held before a checkpoint, is bounded by this: little memory is enough
    let system =
        System::builder().journal_segment(4 << 20).overlay(4 << 20).open(Data(&part.data).store()).await?;
    let shop = Shop::open(&system, part, broken).await?;
    shop.begin().await?;
    tokio::select! {
        ended = say_progress(&shop) => ended?,
        ended = shop.finish(&system) => ended?,
    }
    Ok(system.shutdown(Duration::from_secs(10)).await?)
}

struct Shop {
    placed: Topic<OrderPlaced>,
    products: ActorRef<Products>,
    inventory: ActorRef<Inventory>,
    billing: ActorRef<Billing>,
    customers: Entities<String, Customer>,
    notification: ActorRef<Notification>,
    attempts: AttemptLog,
}

impl Shop {
    async fn open(system: &System, part: &Part, broken: Option<Guard>) -> Result<Self, Box<dyn Error>> {
        let data = Data(&part.data);
        let attempts = AttemptLog { lines: Lines::open(&data.attempts())?, run: part.run };
        let placed = system.topic(products::TOPIC).await?;

        // the subscribers: each reads the topic at its own pace, from where it was
        let log = attempts.clone();
        let inventory = system.spawn("inventory", move || Inventory { attempts: log.clone() });
        let inventory = inventory.subscribe(&placed, StartFrom::Earliest).await?;

        let log = attempts.clone();
        let customers =
            system.entities(customer::REGION, move |_: &String| Customer { attempts: log.clone() });
        let customers = customers.max_loaded(customer::MOST_LOADED).await?;
        let (log, to) = (attempts.clone(), customers.clone());
        let make = move || Billing { customers: to.clone(), attempts: log.clone() };
        let billing = system.spawn("billing", make).subscribe(&placed, StartFrom::Earliest).await?;

        let (log, sent) = (attempts.clone(), Lines::open(&data.notifications())?);
        let make = move || Notification { sent: sent.clone(), attempts: log.clone() };
        let notification = system.spawn("notification", make).subscribe(&placed, StartFrom::Earliest).await?;

        // and who publishes
        let mut subscribers = Vec::new();
        for name in ["inventory", "billing", "notification"] {
            subscribers.push(system.subscription(name).await?);
        }
        let pace = Pace::new(subscribers, part.hold_at);
        let (input, acknowledged) = (part.input.clone(), data.acknowledged());
        let (topic, log) = (placed.clone(), attempts.clone());
        let make = move || Products {
            input: input.clone(),
            placed: topic.clone(),
            pace: pace.clone(),
            attempts: log.clone(),
            broken,
            acknowledged: acknowledged.clone(),
        };
        let products = system.spawn("products", make).await?;
        Ok(Shop { placed, products, inventory, billing, customers, notification, attempts })
    }

    /// Products drives itself, once it is set going. A shop that was killed before its first turn was committed
    /// has no position either, but may have sent this message: the dedup id keeps a second one from being
    /// taken.
    async fn begin(&self) -> Result<(), Box<dyn Error>> {
        if self.products.cell(&POSITION).await?.is_none() {
            self.products.tell(NextSlice).dedup_id("the first slice").await?;
        }
        Ok(())
    }

    /// Returns when nothing waits for any of them. Each turn of products but the last leaves another message to
    /// itself, so it is drained when the file is at its end; the subscribers when they have handled what it
    /// published, and the customers when they have what billing sent them.
    async fn finish(&self, system: &System) -> Result<(), Box<dyn Error>> {
        self.products.drain().await;
        self.inventory.drain().await;
        self.billing.drain().await;
        self.customers.drain().await?;
        self.notification.drain().await;
        self.analyse(system).await
    }

    /// Somebody new, after the last order was handled: the events are still there.
    async fn analyse(&self, system: &System) -> Result<(), Box<dyn Error>> {
        let log = self.attempts.clone();
        let analytics = system.spawn("analytics", move || Analytics { attempts: log.clone() });
        let analytics = analytics.subscribe(&self.placed, StartFrom::Earliest).await?;
        analytics.drain().await;
        Ok(())
    }
}

/// Says how many orders inventory has handled, for the process that kills this one, how much memory this one took at its
/// peak and how many customers are loaded. What an inspection returns is durable, so a kill right after the line takes nothing
/// of it back. Ends only with an error: when nobody listens any more, say.
async fn say_progress(shop: &Shop) -> Result<(), Box<dyn Error>> {
    use std::io::Write;
    let mut said = None;
    loop {
        let total = shop.inventory.cell(&TOTAL).await?.unwrap_or_default();
        let now = (total.times, peak_rss_mib(), shop.customers.loaded());
        if said != Some(now) {
            writeln!(std::io::stdout(), "handled {} {} {}", now.0, now.1, now.2)?;
            said = Some(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The most memory this process has taken, as the kernel counts it; 0 where it does not say.
fn peak_rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
