//! Billing: has each order charged to its customer, who is an entity of their own.
//!
//! The place in the topic and the charge that is sent on are one commit: no order is charged twice, none is
//! passed over.

use steadfast::{Actor, Context, Entities, Failure, Handler};

use super::customer::{Charge, Customer};
use super::data::AttemptLog;
use super::products::OrderPlaced;

pub(crate) struct Billing {
    pub(crate) customers: Entities<String, Customer>,
    pub(crate) attempts: AttemptLog,
}

impl Actor for Billing {
    const NAME: &'static str = "billing";
    type Messages = (OrderPlaced,);
}

impl Handler<OrderPlaced> for Billing {
    async fn handle(&mut self, event: OrderPlaced, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.attempts.note(ctx)?;
        let OrderPlaced { order } = event;
        let customer = self.customers.address(&order.customer)?;
        ctx.tell(&customer, Charge { order_id: order.order_id, cents: order.total_cents })?;
        Ok(())
    }
}
