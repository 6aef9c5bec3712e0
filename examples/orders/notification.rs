//! Notification: tells the outside world, which no store can roll back. Here that is a file.
//!
//! The file is written before the turn is committed, so after a kill in between the lines come again: at
//! least once, never missing. Each carries its order's id and the message's, by which a reader can drop the
//! repeats.

use serde::{Deserialize, Serialize};
use steadfast::{Actor, Context, Failure, Handler, MailboxOptions};

use super::data::{AttemptLog, Lines};
use super::intake::Slice;
use super::inventory::MOST_WAITING;

/// One line of the file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Notified {
    pub(crate) order_id: u64,
    pub(crate) message_id: String,
    pub(crate) text: String,
}

pub(crate) struct Notification {
    pub(crate) sent: Lines,
    pub(crate) attempts: AttemptLog,
}

impl Actor for Notification {
    const NAME: &'static str = "notification";
    type Messages = (Slice,);

    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().capacity(MOST_WAITING)
    }
}

impl Handler<Slice> for Notification {
    async fn handle(&mut self, slice: Slice, ctx: &mut Context<Self>) -> Result<(), Failure> {
        self.attempts.note(ctx)?;
        let message_id = ctx.message_id().to_string();
        let mut lines = Vec::new();
        for order in slice.orders {
            let text = format!("Dear {}, {} CDs are on their way.", order.customer, order.quantity);
            let line = Notified { order_id: order.order_id, message_id: message_id.clone(), text };
            lines.push(serde_json::to_string(&line)?);
        }
        // The slice may have been committed a moment ago and not be on disk yet: without this, a power cut
        // could take back an order that the outside world was told of.
        ctx.durable().await?;
        Ok(self.sent.append(&lines.join("\n"))?)
    }
}
