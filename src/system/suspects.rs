//! What may have ended the process before: found at the open, told, and shown.

use super::System;
use crate::durable::{DEATHS, Ledger, Stock, Suspect};
use crate::error::AdminError;
use crate::observe::{Event, Observer};
use crate::store::{Store, StoreError};

/// Concludes from how the life before ended who is suspect, and begins this one.
pub(super) async fn take_stock(
    ledger: &Ledger,
    observer: &dyn Observer,
    watch_aborts: bool,
) -> Result<Stock, StoreError> {
    let life = ledger.blocking(|store| Ok(store.last_life())).await?;
    let stock = ledger.take_stock(life).await?;
    // only now: what the life before left is needed until it is written down what follows from it
    let begin = move |store: &Store| {
        store.begin_life(watch_aborts);
        Ok(())
    };
    ledger.blocking(begin).await?;
    tell(&stock, &ledger.suspects().await?, observer);
    Ok(stock)
}

fn tell(stock: &Stock, suspects: &[Suspect], observer: &dyn Observer) {
    if stock.life.unclean {
        let why = match stock.life.aborted {
            true => "it aborted, or its stack overflowed",
            false => "killed from outside, a loss of power, `exit`, or dropped without `shutdown`",
        };
        tracing::warn!(
            why,
            suspects = suspects.len(),
            nothing_beside = stock.nothing_beside,
            "the process before ended without closing the store: what was in flight is run one message at a time"
        );
    }
    for Suspect { mailbox, message, deaths, unexplained } in suspects {
        let (actor, message, deaths, unexplained) = (&**mailbox, *message, *deaths, *unexplained);
        if deaths >= DEATHS {
            tracing::error!(actor, %message, deaths, "it ended the process each time it ran alone: it goes to the dead letters");
        } else if deaths > 0 {
            tracing::error!(actor, %message, deaths, "it ended the process while it ran alone; after {DEATHS} times it goes to the dead letters");
        }
        observer.event(&Event::Suspect { actor, message, deaths, unexplained });
    }
}

impl System {
    /// Messages that may have ended the process: what was in flight when it ended without a [`System::shutdown`]. Each runs alone
    /// at its next attempt, and is no longer here once its handler has come to an end.
    ///
    /// # Errors
    /// The store failed.
    pub async fn suspects(&self) -> Result<Vec<Suspect>, AdminError> {
        let ledger = &self.inner.runtime.ledger;
        let suspects = ledger.suspects().await?;
        ledger.store().durable_now().await?;
        Ok(suspects)
    }
}
