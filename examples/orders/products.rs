//! Products: takes the orders in and publishes each as an event. It does not know who listens.
//!
//! # Invariants
//! - Its position, the events it publishes and the message that makes it go on are one commit. A kill finds all
//!   of them or none, so no order is left out and none is published twice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use steadfast::{
    Actor, Cell, Context, Durability, Failure, Handler, MailboxOptions, Message, RetryPolicy, Topic,
};

use super::data::AttemptLog;
use super::input::{Malformed, Order, Orders, Position};
use super::options::Guard;
use super::pace::Pace;

/// The topic of the orders.
pub(crate) const TOPIC: &str = "orders-placed";
/// The most orders taken in in one turn.
pub(crate) const SLICE: usize = 20;
/// And the most bytes of lines read for them, though one line more may be.
const SLICE_BYTES: u64 = 128 << 10;
/// One turn in so many orders, the first to begin with, fails at its first attempt.
const FAILS_EVERY: u64 = 1_000;

/// Where the next slice begins.
pub(crate) const POSITION: Cell<Position> = Cell::new("position", 1);

/// The event: somebody has ordered something.
#[derive(Serialize, Deserialize)]
pub(crate) struct OrderPlaced {
    pub(crate) order: Order,
}
impl Message for OrderPlaced {
    type Reply = ();
    const NAME: &'static str = "orders.placed";
}

/// Products' own message: go on.
#[derive(Serialize, Deserialize)]
pub(crate) struct NextSlice;
impl Message for NextSlice {
    type Reply = ();
    const NAME: &'static str = "products.next-slice";
}

/// What the factory makes. What has to survive lies in [`POSITION`].
pub(crate) struct Products {
    pub(crate) input: PathBuf,
    pub(crate) placed: Topic<OrderPlaced>,
    pub(crate) pace: Pace,
    pub(crate) attempts: AttemptLog,
    pub(crate) broken: Option<Guard>,
    pub(crate) acknowledged: PathBuf,
}

impl Actor for Products {
    const NAME: &'static str = "products";
    type Messages = (NextSlice,);

    fn mailbox() -> MailboxOptions {
        // the only failures are those made on purpose, and nobody else is to be waited for
        MailboxOptions::new().retry(RetryPolicy::immediately(5))
    }
}

impl Handler<NextSlice> for Products {
    async fn handle(&mut self, _: NextSlice, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.attempts.note(ctx)?;
        let from = self.position(ctx)?;
        if !self.pace.allows(from.orders).await? {
            ctx.tell(&ctx.address(), NextSlice)?;
            return Ok(());
        }
        // a page of a local file: not worth a thread of its own
        let slice = Slice::read(&self.input, from.clone())?;
        for line in slice.malformed {
            ctx.bury(line.bytes, line.reason);
        }
        self.publish(slice.orders, ctx).await?;
        self.acknowledge(&slice.end, ctx)?;
        fail_now_and_then(&from, &slice.end, ctx)?;
        if !slice.last {
            ctx.tell(&ctx.address(), NextSlice)?;
        }
        Ok(())
    }
}

impl Products {
    fn position(&self, ctx: &mut Context<Self>) -> Result<Position, Failure> {
        if self.broken == Some(Guard::Ack) {
            return Ok(read_acknowledged(&self.acknowledged)?);
        }
        Ok(ctx.state().get(&POSITION)?.unwrap_or_default())
    }

    /// The position becomes true together with everything else this turn does.
    fn acknowledge(&self, end: &Position, ctx: &mut Context<Self>) -> Result<(), Failure> {
        if self.broken == Some(Guard::Ack) {
            // BROKEN: true at once. If the turn fails or is killed, its events are never published, and nobody
            // goes back for them.
            return Ok(fs::write(&self.acknowledged, serde_json::to_vec(end)?)?);
        }
        Ok(ctx.state().set(&POSITION, end)?)
    }

    async fn publish(&self, orders: Vec<Order>, ctx: &mut Context<Self>) -> Result<(), Failure> {
        for order in orders {
            let event = OrderPlaced { order };
            if self.broken == Some(Guard::Dedup) {
                // BROKEN: published at once. If the turn fails or is killed, it is run again and publishes
                // them again, as other events; every subscriber would have to look for repeats.
                self.placed.publish(event).outside_turn().durability(Durability::Buffered).await?;
            } else {
                ctx.publish(&self.placed, event)?;
            }
        }
        Ok(())
    }
}

/// Real handlers fail too, and at the worst moment: when all is done but the commit.
fn fail_now_and_then(from: &Position, end: &Position, ctx: &Context<Products>) -> Result<(), Failure> {
    let crosses = from.orders.div_ceil(FAILS_EVERY) < end.orders.div_ceil(FAILS_EVERY);
    match crosses && ctx.attempt() == 1 {
        true => Err(Failure::new("on purpose")),
        false => Ok(()),
    }
}

/// What one turn takes in.
struct Slice {
    orders: Vec<Order>,
    malformed: Vec<Malformed>,
    end: Position,
    last: bool,
}

impl Slice {
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
        Ok(Slice { orders, malformed, end: lines.position, last })
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
