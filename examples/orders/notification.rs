//! Notification: tells the outside world, which no store can roll back. Here that is a file.
//!
//! The file is written before the turn is committed, so after a kill in between the lines come again: at
//! least once, never missing. Each carries its order's id and the event's, by which a reader can drop the
//! repeats.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use steadfast::{Actor, BatchHandler, Context, Failure, Item, MailboxOptions, Outcomes};

use super::data::{AttemptLog, Lines};
use super::products::OrderPlaced;

/// The most orders of one write. What waits is taken at once, so that the disk is waited for once, and nothing
/// is waited for to fill a batch.
const AT_ONCE: usize = 100;

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
    type Messages = (OrderPlaced,);

    fn mailbox() -> MailboxOptions {
        MailboxOptions::new().batch(AT_ONCE, Duration::ZERO)
    }
}

impl BatchHandler<OrderPlaced> for Notification {
    async fn handle_batch(
        &mut self,
        events: Vec<Item<OrderPlaced>>,
        ctx: &mut Context<Self>,
    ) -> Result<Outcomes<OrderPlaced>, Failure> {
        self.attempts.note(ctx)?;
        let lines: Result<Vec<_>, _> = events.iter().map(line).collect();
        // The events may have been committed a moment ago and not be on disk yet: without this, a power cut
        // could take back an order that the outside world was told of.
        ctx.durable().await?;
        self.sent.append(&lines?.join("\n"))?;
        Ok(events.iter().map(|_| Ok(())).collect())
    }
}

fn line(event: &Item<OrderPlaced>) -> serde_json::Result<String> {
    let order = &event.message.order;
    let text = format!("Dear {}, {} CDs are on their way.", order.customer, order.quantity);
    serde_json::to_string(&Notified { order_id: order.order_id, message_id: event.id().to_string(), text })
}
