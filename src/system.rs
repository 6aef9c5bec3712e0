//! The system: one open store and the actors that run on it. Wiring only: it opens, spawns, stops and closes, and hands
//! every question on.

mod admin;
mod builder;
mod entities;
mod spawn;
mod suspects;
mod timekeeper;
mod topics;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

pub use self::admin::{DeadLetters, MailboxInfo, Mailboxes, Status};
pub use self::builder::SystemBuilder;
pub use self::entities::OpenEntities;
pub use self::spawn::{ByMembers, OpenGroup, Spawn};
pub use self::topics::OpenTopic;
#[cfg(doc)]
use crate::actor::Group;
use crate::actor::{Actor, ActorRef, Address, Factory, Order, Running, Runtime, Spread, mailbox};
use crate::clock::{Deadline, Timestamp};
use crate::error::{LookupError, ShutdownError, SpawnError, SuperviseError};
use crate::store::{Driven, EngineChoice, StoreError};
use crate::supervisor::{RunningTree, Supervisor, SupervisorRef};
use crate::topic::Retentions;

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
    running: Mutex<Vec<Started>>,
    timekeeper: Mutex<Option<JoinHandle<()>>>,
    retentions: Arc<Retentions>,
    /// What looks after the retention of topics.
    janitor: JoinHandle<()>,
}

/// What ends with the system.
enum Started {
    Actor(Running),
    Tree(RunningTree),
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
        let retentions = Arc::<Retentions>::default();
        let janitor = tokio::spawn(retentions.clone().run(runtime.ledger.clone()));
        let inner = Inner {
            runtime,
            driven: Mutex::new(Some(driven)),
            running: Mutex::default(),
            timekeeper: Mutex::new(Some(timekeeper)),
            retentions,
            janitor,
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
        let (name, made, options): (_, Factory<A>, _) = (name.into(), Arc::new(factory), A::mailbox());
        Spawn { system: self, name, made, options, workers: None, actor: PhantomData }
    }

    /// Starts several workers for one mailbox, each with an actor of its own from the factory; the mailbox's
    /// [`order`](Spawn::order) says which messages they may handle at once. Everything else is as with [`System::spawn`]: one name,
    /// one handle, one end. The workers end together, also when one of them ends by its [policy](crate::FailurePolicy), and each
    /// calls the hooks of its own actor.
    ///
    /// ```
    #[doc = include_str!("example-prelude.txt")]
    /// /// Scales pictures; those of one customer in order.
    /// struct Scale;
    /// impl Actor for Scale { const NAME: &'static str = "scale"; type Messages = (Add,); }
    /// impl Handler<Add> for Scale {
    ///     async fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Result<u64, Failure> {
    ///         Ok(add.amount)
    ///     }
    /// }
    /// # let system = System::builder().open_in_memory().await?;
    /// let scale = system.pool("scale", 4, || Scale).order(Order::PerKey).await?;
    /// scale.tell(Add { amount: 1 }).key("customer-7").await?;
    /// scale.tell(Add { amount: 2 }).key("customer-7").await?; // after the first
    /// scale.tell(Add { amount: 3 }).key("customer-8").await?; // beside them
    /// # Ok(()) }
    /// ```
    ///
    /// The workers share the mailbox's name, under which state is stored, so they can read state but not write it: an actor
    /// [stored as a whole](crate::State::whole) is refused, and a write to a cell is an error. What is to be kept goes to an
    /// actor with one worker, in the same turn: [`Context::tell`](crate::Context::tell).
    ///
    /// # Errors
    /// See [`SpawnError`]; mail for the actor waits.
    pub fn pool<A, F>(&self, name: impl Into<String>, workers: usize, factory: F) -> Spawn<'_, A>
    where
        A: Actor,
        F: Fn() -> A + Send + Sync + 'static,
    {
        Spawn { workers: Some(workers), ..self.spawn(name, factory) }
    }

    /// Opens a group: a mailbox whose workers are members that [join](Group::join) and leave while it runs, such as the consumer
    /// group of a subscription. Everything else is as with [`System::pool`]: one name, one handle, shared state that can be read
    /// and not written.
    ///
    /// ```
    #[doc = include_str!("example-prelude.txt")]
    /// /// Bills orders; those of one customer in order.
    /// struct Biller;
    /// impl Actor for Biller { const NAME: &'static str = "biller"; type Messages = (Add,); }
    /// impl Handler<Add> for Biller {
    ///     async fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Result<u64, Failure> {
    ///         Ok(add.amount)
    ///     }
    /// }
    /// # let system = System::builder().open_in_memory().await?;
    /// let orders = system.topic::<Add>("orders").await?;
    /// let billing = system.group::<Biller>("billing").subscribe(&orders, StartFrom::Earliest).await?;
    /// orders.publish(Add { amount: 7 }).key("customer-7").await?; // waits: nobody has joined
    ///
    /// let first = billing.join(|| Biller).await?; // takes all keys
    /// let second = billing.join(|| Biller).await?; // takes about half of them
    /// assert_eq!(billing.members().len(), 2);
    /// first.leave().await; // its keys are the second's
    /// assert_eq!(billing.ask(Add { amount: 3 }).key("customer-8").await?, 3); // direct mail, beside events
    /// second.leave().await; // what comes now waits for the next to join
    /// # Ok(()) }
    /// ```
    ///
    /// **Order.** [`Order::PerKey`] unless [`order`](Spawn::order) or [`mailbox`](Spawn::mailbox) says otherwise, whatever
    /// [`Actor::mailbox`] says: messages of one key one at a time, in the order in which they were sent, whoever joins or leaves
    /// meanwhile. In [`Order::Strict`] one member handles all, and the others stand by. Messages without a key have no order and
    /// go to whoever is free.
    ///
    /// **Affinity.** While the members stay the same, each key belongs to one of them. One that joins takes about its share of the
    /// keys, evenly from all; when one is gone its keys go to the others, and nobody else's move. A key moves once what its old
    /// owner has in flight of it has ended. The price is that keys of a busy member wait for it although others idle; and where
    /// 1 024 messages, or 4 MiB, wait so, what is behind them waits too. With [`any_free`](OpenGroup::any_free) a key is handled by
    /// whoever is free.
    ///
    /// **Members** live in this process; the group's mail, its place in the topic and the attempts of a message are stored, and
    /// are the group's. A member leaves by [`Member::leave`](crate::Member::leave). It is gone too when its policy ends it, as with
    /// [`FailurePolicy`](crate::FailurePolicy) and [`Failure::stop_actor`](crate::Failure::stop_actor), or when its actor cannot be made
    /// again after a failed turn: what it had is put back, costs no attempt beyond those that failed, and goes to the others. A
    /// message that ends every member that handles it ends them all, one after the other. Without members mail waits.
    ///
    /// # Errors
    /// See [`SpawnError`]; mail for the group waits.
    pub fn group<A: Actor>(&self, name: impl Into<String>) -> OpenGroup<'_, A> {
        let (name, options) = (name.into(), A::mailbox().order(Order::PerKey));
        let made = ByMembers { spread: Spread::ByKey };
        Spawn { system: self, name, made, options, workers: None, actor: PhantomData }
    }

    /// Starts a supervisor and all its children, in start order; see [`supervisor`](crate::supervisor). Returns once all of them
    /// run, but for those that have a backoff from before the last stop left to wait for.
    ///
    /// # Errors
    /// See [`SuperviseError`]; then none of its children runs.
    pub async fn supervise(&self, supervisor: Supervisor) -> Result<SupervisorRef, SuperviseError> {
        let name = supervisor.name().to_owned();
        let is_same = |started: &Started| matches!(started, Started::Tree(tree) if tree.path() == name);
        let runs = || self.running().iter().any(|started| is_same(started) && started.is_running());
        if runs() {
            return Err(SuperviseError::Running { supervisor: name });
        }
        let tree = supervisor.start(&self.inner.runtime).await?;
        let handle = tree.handle.clone();
        self.runs(Started::Tree(tree));
        if self.inner.runtime.is_closing() {
            // the end of the system may have passed over it while it started
            handle.stop().await;
            return Err(SuperviseError::ShuttingDown);
        }
        Ok(handle)
    }

    /// A handle on the actor at an address, whether or not it is running: mail for one that is not waits.
    ///
    /// # Errors
    /// The mailbox belongs to another type of actor, or the store failed.
    pub async fn bind<A: Actor>(&self, address: &Address<A>) -> Result<ActorRef<A>, SpawnError> {
        let mailbox = mailbox::<A>(&self.inner.runtime, address.name(), None).await?;
        Ok(ActorRef { runtime: self.inner.runtime.clone(), mailbox })
    }

    /// A handle on the actor of a name, by name and type, if the store knows it: the registry is what is stored, so it survives
    /// restarts. Whether it runs says [`ActorRef::is_running`]; all names are in [`System::mailboxes`].
    ///
    /// # Errors
    /// [`LookupError::Unknown`], where [`System::bind`] would make the mailbox; [`LookupError::WrongActor`] names both types.
    pub async fn lookup<A: Actor>(&self, name: &str) -> Result<ActorRef<A>, LookupError> {
        let address = Address::<A>::new(name)?;
        match self.inner.runtime.ledger.mailbox_record(name).await? {
            Some(_) => Ok(self.bind(&address).await?),
            None => Err(LookupError::Unknown { name: name.to_owned() }),
        }
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

    /// As [`System::backup`], with this engine in the copy: so a store moves from one engine to another. Back it up, shut down,
    /// and open the copy in its place.
    ///
    /// # Errors
    /// As [`System::backup`].
    pub async fn backup_with(&self, to: impl Into<PathBuf>, engine: EngineChoice) -> Result<u64, StoreError> {
        let to = to.into();
        self.inner.runtime.ledger.store().durable_now().await?;
        self.inner.runtime.ledger.blocking(move |store| store.backup_with(&to, engine)).await
    }

    /// Ends all actors and supervisors, in reverse order of their start: each actor after the turn that runs; turns that still run at the deadline are
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
        for mut started in running {
            stuck.extend(started.end(end).await);
        }
        self.inner.runtime.lose_askers();
        self.inner.runtime.watchdog.end();
        if let Some(timekeeper) = lock(&self.inner.timekeeper).take() {
            timekeeper.abort();
        }
        self.inner.janitor.abort();
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

    /// Remembers an actor that was started, to end it with the system.
    fn runs(&self, started: Started) {
        let mut all = self.running();
        all.retain(Started::is_running);
        all.push(started);
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Started>> {
        lock(&self.inner.running)
    }
}

impl Started {
    fn name(&self) -> &str {
        match self {
            Started::Actor(actor) => &actor.name,
            Started::Tree(tree) => tree.path(),
        }
    }

    fn is_running(&self) -> bool {
        match self {
            Started::Actor(actor) => actor.is_running(),
            Started::Tree(tree) => tree.is_running(),
        }
    }

    /// Ends it by the deadline; tells which actors do not end even then.
    async fn end(&mut self, deadline: Deadline) -> Vec<String> {
        match self {
            Started::Actor(actor) => match actor.end(deadline).await {
                true => Vec::new(),
                false => vec![actor.name.to_string()],
            },
            Started::Tree(tree) => tree.end(deadline).await,
        }
    }

    fn abort(&self) {
        match self {
            Started::Actor(actor) => actor.abort(),
            Started::Tree(tree) => tree.abort(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.runtime.set_closing();
        self.runtime.watchdog.end();
        self.janitor.abort();
        if let Some(timekeeper) = lock(&self.timekeeper).take() {
            timekeeper.abort();
        }
        for started in lock(&self.running).drain(..) {
            started.abort();
        }
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running: Vec<_> = self.running().iter().map(|started| started.name().to_owned()).collect();
        f.debug_struct("System").field("running", &running).finish()
    }
}
