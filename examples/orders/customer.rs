//! A customer: what was charged for each order and in all. There is an entity for each, and most are seldom
//! heard of: one is loaded when there is something to charge, and unloaded when others need the place.

use serde::{Deserialize, Serialize};
use steadfast::{Actor, Cell, CellMap, Context, Failure, Handler, Message};

use super::data::AttemptLog;
use super::inventory::Tally;

/// The region of the customers.
pub(crate) const REGION: &str = "customers";
/// The most customers in memory.
pub(crate) const MOST_LOADED: usize = 1_000;

/// What was charged for each order of this customer.
pub(crate) const CHARGED: CellMap<u64, Tally> = CellMap::new("charged", 1);
/// What this customer owes.
pub(crate) const OWED: Cell<Tally> = Cell::new("owed", 1);

/// What one order costs.
#[derive(Serialize, Deserialize)]
pub(crate) struct Charge {
    pub(crate) order_id: u64,
    pub(crate) cents: u32,
}
impl Message for Charge {
    type Reply = ();
    const NAME: &'static str = "customer.charge";
}

pub(crate) struct Customer {
    pub(crate) attempts: AttemptLog,
}

impl Actor for Customer {
    const NAME: &'static str = "customer";
    type Messages = (Charge,);
}

impl Handler<Charge> for Customer {
    async fn handle(&mut self, charge: Charge, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.attempts.note(ctx)?;
        let mut tally = ctx.state().map(&CHARGED).get(&charge.order_id).await?.unwrap_or_default();
        tally.add(charge.cents.into());
        ctx.state().map(&CHARGED).insert(&charge.order_id, &tally)?;
        let mut owed = ctx.state().get(&OWED)?.unwrap_or_default();
        owed.add(charge.cents.into());
        Ok(ctx.state().set(&OWED, &owed)?)
    }
}
