//! The system: one open store and the actors that run on it. Wiring only: it opens, spawns, stops and closes, and hands
//! every question on.

mod admin;
mod builder;
mod spawn;
mod timekeeper;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

pub use self::admin::{DeadLetters, MailboxInfo, Mailboxes, Status};
pub use self::builder::SystemBuilder;
pub use self::spawn::Spawn;
use crate::actor::{Actor, ActorRef, Address, Control, Mailbox, MailboxOptions, Runtime, decoder};
use crate::clock::{Deadline, Timestamp};
use crate::error::{Refused, ShutdownError, SpawnError, WrongActor};
use crate::store::{Driven, StoreError};

/// An open store and the actors that run on it. Clones share it.
///
/// End it with [`System::shutdown`]. Dropping the last clone, or killing the process, loses nothing that was accepted: the next
/// open recovers it.
#[derive(Clone)]
pub struct System {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Arc<Runtime>,
    driven: Mutex<Option<Driven>>,
    /// In the order in which they were started.
    running: Mutex<Vec<Running>>,
    timekeeper: Mutex<Option<JoinHandle<()>>>,
}

/// An actor that was started, as far as stopping it goes.
struct Running {
    name: Arc<str>,
    control: tokio::sync::watch::Sender<Control>,
    running: tokio::sync::watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl System {
    /// Opens the store in a directory, making it when there is none, and recovers what a crash left. Needs a tokio runtime, of
    /// either kind.
    ///
    /// ```
    #[doc = include_str!("example-prelude.txt")]
    /// let directory = tempfile::tempdir()?; // a program's own: "data"
    /// let system = System::open(directory.path()).await?;
    /// let counter = system.spawn("counter-1", || Counter).await?;
    /// counter.tell(Add { amount: 7 }).await?;
    /// system.shutdown(Duration::from_secs(5)).await?;
    ///
    /// let system = System::open(directory.path()).await?;
    /// let counter = system.spawn("counter-1", || Counter).await?;
    /// assert_eq!(counter.ask(Add { amount: 1 }).await?, 8);
    /// # system.shutdown(Duration::from_secs(5)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`StoreError`]: what is wrong, with which file, and what to do. Nothing is changed then.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder().open(path).await
    }

    /// For settings other than the usual ones.
    pub fn builder() -> SystemBuilder {
        SystemBuilder::new()
    }

    fn start(driven: Driven, runtime: Arc<Runtime>) -> Self {
        let timekeeper = tokio::spawn(timekeeper::run(runtime.clone()));
        let inner = Inner {
            runtime,
            driven: Mutex::new(Some(driven)),
            running: Mutex::default(),
            timekeeper: Mutex::new(Some(timekeeper)),
        };
        System { inner: Arc::new(inner) }
    }

    /// Starts an actor. `name` is its durable identity: with it come its mail and its state. `factory` makes the actor at each
    /// start and after each failed turn. Awaiting it returns a handle once the actor is ready.
    ///
    /// # Errors
    /// See [`SpawnError`]; mail for the actor waits.
    pub fn spawn<A, F>(&self, name: impl Into<String>, factory: F) -> Spawn<'_, A>
    where
        A: Actor,
        F: Fn() -> A + Send + Sync + 'static,
    {
        Spawn { system: self, name: name.into(), factory: Arc::new(factory), options: A::mailbox() }
    }

    /// A handle on the actor at an address, whether or not it is running: mail for one that is not waits.
    ///
    /// # Errors
    /// The mailbox belongs to another type of actor, or the store failed.
    pub async fn bind<A: Actor>(&self, address: &Address<A>) -> Result<ActorRef<A>, SpawnError> {
        let mailbox = self.mailbox::<A>(address.name(), None).await?;
        Ok(ActorRef { runtime: self.inner.runtime.clone(), mailbox })
    }

    /// The mailbox of a name in this process, made at its first use.
    async fn mailbox<A: Actor>(
        &self,
        name: &str,
        options: Option<&MailboxOptions>,
    ) -> Result<Arc<Mailbox<A>>, SpawnError> {
        let runtime = &self.inner.runtime;
        let limits = options.map(MailboxOptions::limits);
        let known = runtime.mailboxes.get(name).map(|known| known.value().clone());
        if limits.is_none()
            && let Some(known) = &known
        {
            return cast(name, known.clone());
        }
        let limits = limits.unwrap_or_else(|| A::mailbox().limits());
        let id = runtime.ledger.mailbox(name, A::NAME, limits).await.map_err(not_opened)?;
        if let Some(known) = known {
            return cast(name, known);
        }
        let store = runtime.ledger.store();
        let closed = || SpawnError::Store(StoreError::Closed);
        let (bell, fresh) = (store.bell(id).ok_or_else(closed)?, store.fresh(id).ok_or_else(closed)?);
        let made = Arc::new(Mailbox::<A>::new(id, name.into(), decoder::<A>()?, bell, fresh));
        let kept = runtime.mailboxes.entry(name.to_owned()).or_insert_with(|| made).value().clone();
        cast(name, kept)
    }

    /// Resolves when the store has failed. The system then refuses everything; only a new process resumes.
    pub fn failed(&self) -> impl Future<Output = StoreError> + Send + 'static {
        self.inner.runtime.ledger.store().failed()
    }

    /// The time, by the system's clock.
    pub fn now(&self) -> Timestamp {
        self.inner.runtime.ledger.clock().now()
    }

    /// Writes a consistent copy of the store to an empty directory while the system runs: everything that was durable when it was
    /// called, in a form that [`System::open`] opens. Returns the number of the last commit in it.
    ///
    /// # Errors
    /// The directory is not empty, there is no room, or the store failed. What was written then is no store.
    pub async fn backup(&self, to: impl Into<PathBuf>) -> Result<u64, StoreError> {
        let to = to.into();
        self.inner.runtime.ledger.store().durable_now().await?;
        self.inner.runtime.ledger.blocking(move |store| store.backup(&to)).await
    }

    /// Ends all actors, in reverse order of their start: each after the turn that runs; turns that still run at the deadline are
    /// thrown away and cost their message no attempt. Then closes the store. The mail waits for the next start.
    ///
    /// # Errors
    /// [`ShutdownError::Stuck`] names actors whose handlers do not yield; the store is then left as after a crash, and the next
    /// start recovers it.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), ShutdownError> {
        let end = Deadline::after(deadline);
        self.inner.runtime.set_closing();
        let mut running = std::mem::take(&mut *self.running());
        running.reverse();
        let mut stuck = Vec::new();
        for actor in running {
            let name = actor.name.clone();
            if !actor.end(end).await {
                stuck.push(name.to_string());
            }
        }
        self.inner.runtime.lose_askers();
        if let Some(timekeeper) = lock(&self.inner.timekeeper).take() {
            timekeeper.abort();
        }
        let driven = lock(&self.inner.driven).take();
        let closing = tokio::task::spawn_blocking(move || match driven {
            Some(driven) if stuck.is_empty() => driven.close().map_err(ShutdownError::from),
            Some(driven) => {
                drop(driven);
                Err(ShutdownError::Stuck { mailboxes: stuck })
            }
            None => Ok(()),
        });
        closing.await.unwrap_or(Err(StoreError::Closed.into()))
    }

    /// Runs until `signal` resolves or the store fails, then shuts down within `deadline`.
    ///
    /// ```no_run
    /// # async fn example(system: steadfast::System) -> Result<(), Box<dyn std::error::Error>> {
    /// system.run_until(tokio::signal::ctrl_c(), std::time::Duration::from_secs(20)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The store failed, or as [`System::shutdown`].
    pub async fn run_until(&self, signal: impl Future, deadline: Duration) -> Result<(), ShutdownError> {
        tokio::select! {
            _ = signal => self.shutdown(deadline).await,
            why = self.failed() => {
                let _ = self.shutdown(deadline).await;
                Err(why.into())
            }
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Running>> {
        lock(&self.inner.running)
    }
}

impl Running {
    /// Asks the actor to end, and at the deadline to throw its turn away. False when it does not even then.
    async fn end(mut self, deadline: Deadline) -> bool {
        /// A handler that yields is thrown away at once; this is for the task to be scheduled.
        const TO_BE_SCHEDULED: Duration = Duration::from_secs(1);
        self.control.send_modify(|control| *control = (*control).max(Control::Stop));
        let ended = self.running.wait_for(|running| !running);
        if deadline.limit(ended).await.is_some() {
            return true;
        }
        self.control.send_replace(Control::Park);
        let ended = self.running.wait_for(|running| !running);
        if tokio::time::timeout(TO_BE_SCHEDULED, ended).await.is_ok() {
            return true;
        }
        self.task.abort();
        false
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The mailbox as one of `A`'s.
fn cast<A: Actor>(
    name: &str,
    known: Arc<dyn crate::actor::AnyMailbox>,
) -> Result<Arc<Mailbox<A>>, SpawnError> {
    let found = known.actor().to_owned();
    let any: Arc<dyn Any + Send + Sync> = known.into_any();
    any.downcast().map_err(|_| {
        let expected = A::NAME.to_owned();
        SpawnError::WrongActor(WrongActor { mailbox: name.into(), found, expected })
    })
}

fn not_opened(why: Refused) -> SpawnError {
    match why {
        Refused::Name(bad) => SpawnError::Name(bad),
        Refused::WrongActor(wrong) => SpawnError::WrongActor(wrong),
        Refused::Store(failed) => SpawnError::Store(failed),
        other => SpawnError::Refused(Box::new(other)),
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.runtime.set_closing();
        if let Some(timekeeper) = lock(&self.timekeeper).take() {
            timekeeper.abort();
        }
        for actor in lock(&self.running).drain(..) {
            actor.task.abort();
        }
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running: Vec<_> = self.running().iter().map(|actor| actor.name.clone()).collect();
        f.debug_struct("System").field("running", &running).finish()
    }
}
