//! Inventory: the CDs that were shipped, by order.
//!
//! Nothing here looks for repeats. That each order is applied once is what the library does: the place in the
//! topic moves in the commit that carries what was done with the event.

use serde::{Deserialize, Serialize};
use steadfast::{Actor, Cell, CellMap, Context, Failure, Handler};

use super::data::AttemptLog;
use super::products::OrderPlaced;

/// What was shipped for each order: by its id, so that an audit can look at every single one.
pub(crate) const SHIPPED: CellMap<u64, Tally> = CellMap::new("shipped", 1);
/// What was shipped in all.
pub(crate) const TOTAL: Cell<Tally> = Cell::new("total", 1);

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
    type Messages = (OrderPlaced,);
}

impl Handler<OrderPlaced> for Inventory {
    /// An entry for the order and a sum: a turn's writes become true together, so they always agree.
    async fn handle(&mut self, event: OrderPlaced, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.attempts.note(ctx)?;
        let OrderPlaced { order } = event;
        let mut tally = ctx.state().map(&SHIPPED).get(&order.order_id).await?.unwrap_or_default();
        tally.add(order.quantity.into());
        ctx.state().map(&SHIPPED).insert(&order.order_id, &tally)?;
        let mut total = ctx.state().get(&TOTAL)?.unwrap_or_default();
        total.add(order.quantity.into());
        Ok(ctx.state().set(&TOTAL, &total)?)
    }
}
