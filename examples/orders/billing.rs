//! Billing: the cents that were charged, by order and by customer.

use steadfast::{Actor, Cell, CellMap, Context, Failure, Handler, MailboxOptions};

use super::data::AttemptLog;
use super::input::Order;
use super::intake::Slice;
use super::inventory::{MOST_WAITING, Tally};

/// What was charged for each order.
pub(crate) const CHARGED: CellMap<u64, Tally> = CellMap::new("charged", 1);
/// What each customer owes.
pub(crate) const OWED: CellMap<String, u64> = CellMap::new("owed", 1);
/// What was charged in all.
pub(crate) const TOTAL: Cell<Tally> = Cell::new("total", 1);

pub(crate) struct Billing {
    pub(crate) attempts: AttemptLog,
}

impl Actor for Billing {
    const NAME: &'static str = "billing";
    type Messages = (Slice,);

    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().capacity(MOST_WAITING)
    }
}

impl Handler<Slice> for Billing {
    async fn handle(&mut self, slice: Slice, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.attempts.note(ctx)?;
        let mut total = ctx.state().get(&TOTAL)?.unwrap_or_default();
        for order in &slice.orders {
            charge(order, ctx).await?;
            total.add(order.total_cents.into());
        }
        Ok(ctx.state().set(&TOTAL, &total)?)
    }
}

/// Two entries for one order: a turn's writes become true together, so they always agree.
async fn charge(order: &Order, ctx: &mut Context<Billing>) -> Result<(), Failure> {
    let mut charged = ctx.state().map(&CHARGED);
    let mut tally = charged.get(&order.order_id).await?.unwrap_or_default();
    tally.add(order.total_cents.into());
    charged.insert(&order.order_id, &tally)?;

    let mut owed = ctx.state().map(&OWED);
    let cents = owed.get(&order.customer).await?.unwrap_or_default();
    owed.insert(&order.customer, &(cents + u64::from(order.total_cents)))?;
    Ok(())
}
