//! The process that is killed: opens the store, starts the actors, ends when all is handled. It does the same
//! whether it is the first or was killed before, for the store knows where it was.

use std::error::Error;
use std::time::Duration;

use steadfast::{ActorRef, System};

use super::billing::Billing;
use super::data::{AttemptLog, Data, Lines};
use super::intake::{Intake, NextSlice, POSITION};
use super::inventory::{Inventory, TOTAL};
use super::notification::Notification;
use super::options::{Guard, Part};

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(5);

pub(crate) async fn run(part: &Part, broken: Option<Guard>) -> Result<(), Box<dyn Error>> {
    let system = System::open(Data(&part.data).store()).await?;
    let actors = Actors::start(&system, part, broken).await?;
    actors.begin().await?;
    tokio::select! {
        ended = say_progress(&actors.inventory) => ended?,
        () = actors.finish() => {}
    }
    Ok(system.shutdown(Duration::from_secs(10)).await?)
}

struct Actors {
    intake: ActorRef<Intake>,
    inventory: ActorRef<Inventory>,
    billing: ActorRef<Billing>,
    notification: ActorRef<Notification>,
}

impl Actors {
    async fn start(system: &System, part: &Part, broken: Option<Guard>) -> Result<Self, Box<dyn Error>> {
        let data = Data(&part.data);
        let attempts = AttemptLog { lines: Lines::open(&data.attempts())?, run: part.run };
        let sent = Lines::open(&data.notifications())?;

        let log = attempts.clone();
        let inventory = system.spawn("inventory", move || Inventory { attempts: log.clone() }).await?;
        let log = attempts.clone();
        let billing = system.spawn("billing", move || Billing { attempts: log.clone() }).await?;
        let log = attempts.clone();
        let make = move || Notification { sent: sent.clone(), attempts: log.clone() };
        let notification = system.spawn("notification", make).await?;

        let (to_inventory, to_billing) = (inventory.clone(), billing.clone());
        let to_notification = notification.clone();
        let (input, acknowledged, hold_at) = (part.input.clone(), data.acknowledged(), part.hold_at);
        let make = move || Intake {
            input: input.clone(),
            inventory: to_inventory.clone(),
            billing: to_billing.clone(),
            notification: to_notification.clone(),
            attempts: attempts.clone(),
            hold_at,
            broken,
            acknowledged: acknowledged.clone(),
        };
        let intake = system.spawn("intake", make).await?;
        Ok(Actors { intake, inventory, billing, notification })
    }

    /// Intake drives itself, once it is set going. A shop that was killed before its first turn was committed
    /// has no position either, but may have sent this message: the dedup id keeps a second one from being
    /// taken.
    async fn begin(&self) -> Result<(), Box<dyn Error>> {
        if self.intake.cell(&POSITION).await?.is_none() {
            self.intake.tell(NextSlice).dedup_id("the first slice").await?;
        }
        Ok(())
    }

    /// Returns when nothing waits for any of them. Each turn of intake but the last leaves another message to
    /// itself, so it is drained when the file is at its end; and the others when they have handled what it
    /// sent.
    async fn finish(&self) {
        self.intake.drain().await;
        self.inventory.drain().await;
        self.billing.drain().await;
        self.notification.drain().await;
    }
}

/// Says how many orders inventory has handled, for the process that kills this one. What an inspection
/// returns is durable, so a kill right after the line takes nothing of it back. Ends only with an error: when
/// nobody listens any more, say.
async fn say_progress(inventory: &ActorRef<Inventory>) -> Result<(), Box<dyn Error>> {
    use std::io::Write;
    let mut said = None;
    loop {
        let total = inventory.cell(&TOTAL).await?.unwrap_or_default();
        if said != Some(total.times) {
            writeln!(std::io::stdout(), "handled {}", total.times)?;
            said = Some(total.times);
        }
        tokio::time::sleep(LOOK).await;
    }
}
