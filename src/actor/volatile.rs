//! Volatile mail: queued in memory alone, at most so much of it.
//!
//! # Invariants
//! - Nothing of it is stored or encoded, so nothing of it survives the process.

use super::list::Contains;
use super::mailbox::{Body, Letter, VOLATILE};
use super::message::{Actor, Message};
use super::reply::ReplySlot;
use super::send::{Patience, Sending, Stamp};
use super::tell::Mail;
use crate::error::Refused;
use crate::store::{Limits, is_entity};

/// Refuses options that only a stored message can have.
fn check(sending: &Sending<'_>) -> Result<(), Refused> {
    let option = match (sending.options.due, &sending.options.dedup_id) {
        (Some(_), _) => "delay",
        (None, Some(_)) => "dedup_id",
        (None, None) => return Ok(()),
    };
    Err(Refused::NotVolatile { option })
}

impl<A, M, I> Mail<'_, A, M, I>
where
    A: Actor,
    M: Message,
    A::Messages: Contains<M, I>,
{
    /// Queues the message, or gives it back.
    pub(super) fn push_volatile(self, sending: &Sending<'_>) -> Result<(), (Self, Refused)> {
        match check(sending) {
            Ok(()) => self.push(sending).map_err(|mail| (mail, full(sending))),
            Err(why) => Err((self, why)),
        }
    }

    /// Queues the message once there is room.
    pub(super) async fn push_volatile_when_there_is_room(
        self,
        sending: &Sending<'_>,
        patience: Patience,
    ) -> Result<(), (Self, Refused)> {
        if let Err(why) = check(sending) {
            return Err((self, why));
        }
        let mailbox = self.mailbox;
        let mut mail = self;
        loop {
            let room = mailbox.volatile_room().rung();
            mail = match mail.push(sending) {
                Ok(()) => return Ok(()),
                Err(mail) => mail,
            };
            if let Err(why) = patience.check(|| full(sending)) {
                return Err((mail, why));
            }
            let _ = tokio::time::timeout(patience.left(), room).await;
        }
    }

    fn push(self, sending: &Sending<'_>) -> Result<(), Self> {
        let runtime = sending.route.runtime;
        let sent_at = runtime.ledger.clock().now();
        let expires = sending.options.expires.map(|expires| expires.at(sent_at));
        let head = Stamp { sent_at, expires, mark: None }.head(sending.id, sending.options);
        let mailbox = self.mailbox;
        mailbox.push_volatile(self, |Mail { message, slot, .. }| {
            let asker = slot.as_ref().map(ReplySlot::asker);
            let body = Body::Decoded(<A::Messages as Contains<M, I>>::wrap(message, slot));
            Letter { place: None, head, body, asker }
        })?;
        if is_entity(mailbox.id) {
            runtime.ledger.store().summon(mailbox.id);
        }
        Ok(())
    }
}

fn full(sending: &Sending<'_>) -> Refused {
    let limit = VOLATILE as u64;
    sending.full(limit, 0, Limits { count: limit, bytes: 0 })
}
