//! What a sender holds of a message that was taken.

use std::fmt;
use std::sync::Arc;

use super::runtime::{Ended, Handled, Runtime};
use super::send::Sent;
use crate::envelope::MessageId;
use crate::store::StoreError;
use crate::sync::oneshot;

/// A message that was taken by [`submit`](crate::Tell::submit): it is in the mailbox, and here is how to wait for more.
pub struct Receipt {
    runtime: Arc<Runtime>,
    sent: Sent,
    ended: oneshot::Receiver<Ended>,
}

impl Receipt {
    /// For a message that is about to be sent: it may be handled before its sender hears that it was taken.
    pub(super) fn expected(runtime: &Arc<Runtime>, id: MessageId) -> Self {
        let (runtime, ended) = (runtime.clone(), runtime.receipt_for(id));
        Receipt { runtime, sent: Sent { id, commit: None }, ended }
    }

    /// Of the message as it was taken.
    pub(super) fn of(mut self, sent: Sent) -> Self {
        self.sent = sent;
        self
    }

    /// The message's id.
    pub fn id(&self) -> MessageId {
        self.sent.id
    }

    /// Waits until the message is on disk, synced. A volatile message never is: for it this returns at once.
    ///
    /// # Errors
    /// The store failed; whether the message will be found after a restart is not known.
    pub async fn durable(&self) -> Result<(), StoreError> {
        match &self.sent.commit {
            Some(commit) => self.runtime.ledger.durable(commit).await,
            None => Ok(()),
        }
    }

    /// Waits until the message has been handled to its end, and that is on disk, synced. Only within this process: after a
    /// restart the message is handled all the same, but nobody holds a receipt.
    ///
    /// # Errors
    /// The store failed or was closed before.
    pub async fn handled(mut self) -> Result<Handled, StoreError> {
        let failed = self.runtime.ledger.store().failed();
        let ended = tokio::select! {
            biased;
            ended = &mut self.ended => ended.map_err(|_| StoreError::Closed)?,
            why = failed => return Err(why),
        };
        match &ended.commit {
            Some(commit) => self.runtime.ledger.durable(commit).await?,
            None => self.runtime.ledger.store().durable_now().await?,
        }
        Ok(ended.how)
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.runtime.forget_receipt(self.sent.id);
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receipt({})", self.sent.id)
    }
}
