//! Inventory: the CDs that were shipped, by order.
//!
//! Nothing here looks for repeats. That each order is applied once is what the library does.

use serde::{Deserialize, Serialize};
use steadfast::{Actor, Cell, CellMap, Context, Failure, Handler, MailboxOptions};

use super::data::AttemptLog;
use super::intake::Slice;

/// What was shipped for each order: by its id, so that an audit can look at every single one.
pub(crate) const SHIPPED: CellMap<u64, Tally> = CellMap::new("shipped", 1);
/// What was shipped in all.
pub(crate) const TOTAL: Cell<Tally> = Cell::new("total", 1);
/// The most slices that wait for one actor. Sends in a turn are never refused, but a worker whose turn has
/// overfilled a mailbox starts no other turn before there is room again: so intake goes as fast as the
/// slowest of the three.
pub(crate) const MOST_WAITING: u64 = 16;

/// How often something was done, and how much it came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) times: u64,
    pub(crate) amount: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, amount: u64) {
        self.times += 1;
        self.amount += amount;
    }
}

pub(crate) struct Inventory {
    pub(crate) attempts: AttemptLog,
}

impl Actor for Inventory {
    const NAME: &'static str = "inventory";
    type Messages = (Slice,);

    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().capacity(MOST_WAITING)
    }
}

impl Handler<Slice> for Inventory {
    async fn handle(&mut self, slice: Slice, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.attempts.note(ctx)?;
        let mut total = ctx.state().get(&TOTAL)?.unwrap_or_default();
        let mut shipped = ctx.state().map(&SHIPPED);
        for order in &slice.orders {
            let mut tally = shipped.get(&order.order_id).await?.unwrap_or_default();
            tally.add(order.quantity.into());
            shipped.insert(&order.order_id, &tally)?;
            total.add(order.quantity.into());
        }
        Ok(ctx.state().set(&TOTAL, &total)?)
    }
}
