//! Intake: reads the orders and sends them on, slice by slice.
//!
//! # Invariants
//! - Its position, the slices it sends and the message that makes it go on are one commit. A kill finds all
//!   of them or none, so no order is left out and none is sent twice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{Actor, ActorRef, Cell, Context, Failure, Handler, MailboxOptions, Message, RetryPolicy};

use super::billing::Billing;
use super::data::AttemptLog;
use super::input::{Malformed, Order, Orders, Position};
use super::inventory::Inventory;
use super::notification::Notification;
use super::options::Guard;

/// The most orders sent on in one turn.
pub(crate) const SLICE: usize = 20;
/// And the most bytes of lines read for them, though one line more may be: messages are limited to 1 MiB.
const SLICE_BYTES: u64 = 128 << 10;
/// One turn in so many orders, the first to begin with, fails at its first attempt.
const FAILS_EVERY: u64 = 1_000;

/// Where the next slice begins.
pub(crate) const POSITION: Cell<Position> = Cell::new("position", 1);

/// Orders on their way to one of the three who handle them.
#[derive(Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) orders: Vec<Order>,
}
impl Message for Slice {
    type Reply = ();
    const NAME: &'static str = "orders.slice";
}

/// Intake's own message: go on.
#[derive(Serialize, Deserialize)]
pub(crate) struct NextSlice;
impl Message for NextSlice {
    type Reply = ();
    const NAME: &'static str = "intake.next-slice";
}

/// What the factory makes. What has to survive lies in [`POSITION`].
pub(crate) struct Intake {
    pub(crate) input: PathBuf,
    pub(crate) inventory: ActorRef<Inventory>,
    pub(crate) billing: ActorRef<Billing>,
    pub(crate) notification: ActorRef<Notification>,
    pub(crate) attempts: AttemptLog,
    pub(crate) hold_at: Option<u64>,
    pub(crate) broken: Option<Guard>,
    pub(crate) acknowledged: PathBuf,
}

impl Actor for Intake {
    const NAME: &'static str = "intake";
    type Messages = (NextSlice,);

    fn mailbox() -> MailboxOptions {
        // the only failures are those made on purpose, and nobody else is to be waited for
        MailboxOptions::new().retry(RetryPolicy::immediately(5))
    }
}

impl Handler<NextSlice> for Intake {
    async fn handle(&mut self, _: NextSlice, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.attempts.note(ctx)?;
        let from = self.position(ctx)?;
        self.wait_to_be_killed(&from).await;
        // a page of a local file: not worth a thread of its own
        let cut = Cut::read(&self.input, from.clone())?;
        for line in cut.malformed {
            ctx.bury(line.bytes, line.reason);
        }
        self.send(cut.orders, ctx).await?;
        self.acknowledge(&cut.end, ctx)?;
        fail_now_and_then(&from, &cut.end, ctx)?;
        if !cut.last {
            ctx.tell(&ctx.address(), NextSlice)?;
        }
        Ok(())
    }
}

impl Intake {
    fn position(&self, ctx: &mut Context<Self>) -> Result<Position, Failure> {
        if self.broken == Some(Guard::Ack) {
            return Ok(read_acknowledged(&self.acknowledged)?);
        }
        Ok(ctx.state().get(&POSITION)?.unwrap_or_default())
    }

    /// The position becomes true together with everything else this turn does.
    fn acknowledge(&self, end: &Position, ctx: &mut Context<Self>) -> Result<(), Failure> {
        if self.broken == Some(Guard::Ack) {
            // BROKEN: true at once. If the turn fails or is killed, its slices are never sent, and nobody
            // goes back for them.
            return Ok(fs::write(&self.acknowledged, serde_json::to_vec(end)?)?);
        }
        Ok(ctx.state().set(&POSITION, end)?)
    }

    async fn send(&self, orders: Vec<Order>, ctx: &mut Context<Self>) -> Result<(), Failure> {
        if orders.is_empty() {
            return Ok(());
        }
        let slice = || Slice { orders: orders.clone() };
        if self.broken == Some(Guard::Dedup) {
            // BROKEN: sent at once. If the turn fails or is killed, it is run again and sends them again.
            // With a `dedup_id` made of the position the second ones would be dropped; without one, every
            // receiver would have to look for repeats.
            self.inventory.tell(slice()).outside_turn().await?;
            self.billing.tell(slice()).outside_turn().await?;
            self.notification.tell(slice()).outside_turn().await?;
            return Ok(());
        }
        ctx.tell(&self.inventory, slice())?;
        ctx.tell(&self.billing, slice())?;
        ctx.tell(&self.notification, slice())?;
        Ok(())
    }

    /// A shop that is to be killed must not end before. It is killed while it works, unless the kill comes
    /// late: then it waits.
    async fn wait_to_be_killed(&self, from: &Position) {
        if self.hold_at.is_some_and(|hold_at| from.orders >= hold_at) {
            // time for the others to handle what was sent; where orders are lost, the count that is waited
            // for never comes
            tokio::time::sleep(Duration::from_millis(500)).await;
            println!("held");
            std::future::pending().await
        }
    }
}

/// Real handlers fail too, and at the worst moment: when all is done but the commit.
fn fail_now_and_then(from: &Position, end: &Position, ctx: &Context<Intake>) -> Result<(), Failure> {
    let crosses = from.orders.div_ceil(FAILS_EVERY) < end.orders.div_ceil(FAILS_EVERY);
    match crosses && ctx.attempt() == 1 {
        true => Err(Failure::new("on purpose")),
        false => Ok(()),
    }
}

/// What one turn sends on.
struct Cut {
    orders: Vec<Order>,
    malformed: Vec<Malformed>,
    end: Position,
    last: bool,
}

impl Cut {
    fn read(input: &Path, from: Position) -> io::Result<Self> {
        let most = from.offset + SLICE_BYTES;
        let mut lines = Orders::open(input, from)?;
        let (mut orders, mut malformed, mut last) = (Vec::new(), Vec::new(), false);
        while orders.len() + malformed.len() < SLICE && lines.position.offset < most && !last {
            match lines.next().transpose()? {
                Some(Ok(order)) => orders.push(order),
                Some(Err(line)) => malformed.push(line),
                None => last = true,
            }
        }
        Ok(Cut { orders, malformed, end: lines.position, last })
    }
}

fn read_acknowledged(path: &Path) -> io::Result<Position> {
    match fs::read(path) {
        // a kill may have left it empty
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Position::default()),
        Err(why) => Err(why),
    }
}
