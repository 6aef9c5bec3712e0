//! Starting an actor.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use tokio::task::JoinHandle;

use super::{Running, System};
use crate::actor::{Actor, ActorRef, Control, Factory, Mailbox, MailboxOptions, Worker};
use crate::codec;
use crate::error::{Refused, SpawnError};
use crate::policy::RetryPolicy;
use crate::store::{Batch, Origin, Urgency, keys};

/// A spawn being built; awaiting it starts the actor. See [`System::spawn`].
#[must_use = "nothing is started until it is awaited"]
pub struct Spawn<'a, A: Actor> {
    pub(super) system: &'a System,
    pub(super) name: String,
    pub(super) factory: Factory<A>,
    pub(super) options: MailboxOptions,
}

impl<'a, A: Actor> Spawn<'a, A> {
    /// Options other than those of [`Actor::mailbox`].
    pub fn mailbox(mut self, options: MailboxOptions) -> Self {
        self.options = options;
        self
    }

    /// When and how often a failed message is tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options = self.options.retry(policy);
        self
    }

    /// The most messages that may wait.
    pub fn capacity(mut self, messages: u64) -> Self {
        self.options = self.options.capacity(messages);
        self
    }

    /// See [`MailboxOptions::park_changed_mail`].
    pub fn park_changed_mail(mut self) -> Self {
        self.options = self.options.park_changed_mail();
        self
    }

    async fn start(self) -> Result<ActorRef<A>, SpawnError> {
        let Spawn { system, name, factory, options } = self;
        let runtime = &system.inner.runtime;
        if runtime.is_closing() {
            return Err(SpawnError::ShuttingDown);
        }
        let mailbox = system.mailbox::<A>(&name, Some(&options)).await?;
        check_shapes(system, &mailbox, &options).await?;
        let claim = Claim::take(&mailbox).ok_or(SpawnError::Running { mailbox: name })?;
        let worker = Worker::new(runtime.clone(), mailbox.clone(), factory, &options).await?;
        let running = Running {
            name: mailbox.name.clone(),
            control: mailbox.control.clone(),
            running: mailbox.running.subscribe(),
            task: run(worker, claim),
        };
        let mut all = system.running();
        all.retain(|actor| *actor.running.borrow());
        all.push(running);
        drop(all);
        Ok(ActorRef { runtime: runtime.clone(), mailbox })
    }
}

fn run<A: Actor>(worker: Worker<A>, claim: Claim<A>) -> JoinHandle<()> {
    tokio::spawn(async move {
        worker.run().await;
        drop(claim);
    })
}

/// The right to read a mailbox: one at a time. Given back when the worker's task ends, however it does.
struct Claim<A: Actor> {
    mailbox: std::sync::Arc<Mailbox<A>>,
}

impl<A: Actor> Claim<A> {
    fn take(mailbox: &std::sync::Arc<Mailbox<A>>) -> Option<Self> {
        let taken = mailbox.running.send_if_modified(|running| {
            let free = !std::mem::replace(running, true);
            if free {
                // in the same step: a request to end that comes later is for this start
                mailbox.control.send_replace(Control::Run);
            }
            free
        });
        (taken || cfg!(steadfast_bug = "second_worker")).then(|| Claim { mailbox: mailbox.clone() })
    }
}

impl<A: Actor> Drop for Claim<A> {
    fn drop(&mut self) {
        self.mailbox.running.send_replace(false);
    }
}

/// The kind of a schema record that is a message.
const MESSAGE: u8 = 1;

/// Compares the shapes of the actor's messages with those first stored under the same name and version, and remembers new ones.
async fn check_shapes<A: Actor>(
    system: &System,
    mailbox: &Mailbox<A>,
    options: &MailboxOptions,
) -> Result<(), SpawnError> {
    let ledger = &system.inner.runtime.ledger;
    let mut batch = Batch::default();
    for kind in mailbox.decoder.kinds() {
        if kind.shape == 0 {
            continue;
        }
        let key = keys::schema(MESSAGE, kind.name, kind.version);
        let stored = ledger.get(key.clone()).await?;
        let known = stored.and_then(|bytes| codec::decode::<u32>(&bytes).ok());
        if known.is_some_and(|known| known != kind.shape)
            && !options.park_changed
            && !cfg!(steadfast_bug = "ignore_changed_shapes")
        {
            return Err(SpawnError::SchemaChanged { name: kind.name.to_owned(), version: kind.version });
        }
        if known != Some(kind.shape) {
            let write = |out: &mut Vec<u8>| codec::encode_into(&kind.shape, out);
            batch.put(key, write).map_err(|why| SpawnError::Refused(Box::new(Refused::Encode(why))))?;
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    let committed = ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await;
    match committed {
        Ok(_) => Ok(()),
        Err(crate::durable::CommitRefused::Refused(why)) => Err(super::not_opened(why)),
        Err(_) => Err(SpawnError::ShuttingDown),
    }
}

impl<'a, A: Actor> IntoFuture for Spawn<'a, A> {
    type Output = Result<ActorRef<A>, SpawnError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
