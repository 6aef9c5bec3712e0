//! Analytics: what the shop sold, in all and to whom. It joins when all the others are done, and gets every
//! event from the first on: they lie in the topic, and nobody had to know that it would come.

use serde::{Deserialize, Serialize};
use steadfast::{Actor, Cell, CellMap, Context, Failure, Handler};

use super::data::AttemptLog;
use super::inventory::Tally;
use super::products::OrderPlaced;

/// What was sold in all.
pub(crate) const SALES: Cell<Sales> = Cell::new("sales", 1);
/// What each customer has ordered for, in cents.
pub(crate) const BY_CUSTOMER: CellMap<String, Tally> = CellMap::new("by-customer", 1);

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sales {
    pub(crate) orders: u64,
    pub(crate) cds: u64,
    pub(crate) cents: u64,
}

pub(crate) struct Analytics {
    pub(crate) attempts: AttemptLog,
}

impl Actor for Analytics {
    const NAME: &'static str = "analytics";
    type Messages = (OrderPlaced,);
}

impl Handler<OrderPlaced> for Analytics {
    async fn handle(&mut self, event: OrderPlaced, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.attempts.note(ctx)?;
        let OrderPlaced { order } = event;
        let mut sales = ctx.state().get(&SALES)?.unwrap_or_default();
        sales.orders += 1;
        sales.cds += u64::from(order.quantity);
        sales.cents += u64::from(order.total_cents);
        ctx.state().set(&SALES, &sales)?;
        let mut ordered = ctx.state().map(&BY_CUSTOMER).get(&order.customer).await?.unwrap_or_default();
        ordered.add(order.total_cents.into());
        Ok(ctx.state().map(&BY_CUSTOMER).insert(&order.customer, &ordered)?)
    }
}
