//! Starting an actor, for whoever may: the system, a supervisor, a region of entities.
//!
//! # Invariants
//! - Nothing is started for a mailbox that has a worker, nor with messages whose fields changed under the same version.
//! - A failed start leaves everything as it was.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::affinity::Spread;
use super::crew::Crew;
use super::group::{Group, Inside};
use super::handle::ActorRef;
use super::life::{Claim, Exit, Life, Link};
use super::list::Decoder;
use super::mailbox::{Control, Mailbox};
use super::message::Actor;
use super::pool::Pool;
use super::presence::Presence;
use super::runtime::{AnyMailbox, Runtime};
use super::worker::{Factory, Ground, MailboxOptions, Subscribes, Worker, tidy};
use crate::clock::Deadline;
use crate::codec;
use crate::durable::{CommitRefused, Pattern, check_name};
use crate::error::{Refused, SpawnError, SubscribeError, WrongActor};
use crate::store::{Batch, MailboxId, Origin, Urgency, keys};

/// What an actor is started from.
pub(crate) struct Start<A: Actor> {
    pub(crate) name: String,
    pub(crate) factory: Factory<A>,
    pub(crate) options: MailboxOptions,
    /// Where it reports what it survives; none without a supervisor.
    pub(crate) link: Option<Link>,
    /// Whether its end is told to those who watch it. Whoever may start it again tells it himself.
    pub(crate) tells_end: bool,
}

impl<A: Actor> Start<A> {
    /// Starts it. `Ok`: it is made, and takes its first letter.
    pub(crate) async fn start(self, runtime: &Arc<Runtime>) -> Result<(ActorRef<A>, Running), SpawnError> {
        let Start { name, factory, options, link, tells_end } = self;
        let (mailbox, claim) = claim(runtime, name, &options).await?;
        let (runtime_, mailbox_) = (runtime.clone(), mailbox.clone());
        let make = Make { runtime: runtime_, mailbox: mailbox_, factory, options, link, presence: None };
        let mut workers = make.workers().await?;
        for worker in &mut workers {
            worker.begin().await?;
        }
        if !tells_end {
            runtime.watches.keep_up(&mailbox.name);
        }
        let made = Made { workers, claim, make };
        let task = tokio::spawn(run(made, tells_end.then(|| runtime.clone())));
        let running = Running::new(mailbox.name.clone(), &mailbox.control, &mailbox.life, task);
        Ok((ActorRef { runtime: runtime.clone(), mailbox }, running))
    }
}

/// Starts a group, without members.
pub(crate) async fn start_group<A: Actor>(
    name: String,
    options: MailboxOptions,
    spread: Spread,
    runtime: &Arc<Runtime>,
) -> Result<(Group<A>, Running), SpawnError> {
    let options = options.of_group(spread);
    let (mailbox, claim) = claim::<A>(runtime, name, &options).await?;
    let (ground, tried, views) = Ground::read(runtime, &mailbox, &options).await?;
    let pool = Pool::new(options.order, spread, options.batch.is_some(), tried, views);
    let (door, entry) = mpsc::channel(1);
    let crew = Crew::new(runtime, &options, pool.clone(), claim, Some(entry));
    let (runtime_, mailbox_) = (runtime.clone(), mailbox.clone());
    let task = tokio::spawn(async move {
        let (claim, exit) = crew.run(Vec::new()).await;
        give_back(&runtime_, &mailbox_, claim, &exit);
        runtime_.terminated(&mailbox_.name, &exit).await;
    });
    let running = Running::new(mailbox.name.clone(), &mailbox.control, &mailbox.life, task);
    let actor = ActorRef { runtime: runtime.clone(), mailbox };
    Ok((Group::new(actor, Inside { ground, pool, door }), running))
}

/// Takes the right to read the mailbox of this name, with all that comes before a start.
async fn claim<A: Actor>(
    runtime: &Arc<Runtime>,
    name: String,
    options: &MailboxOptions,
) -> Result<(Arc<Mailbox<A>>, Claim<A>), SpawnError> {
    if runtime.is_closing() {
        return Err(SpawnError::ShuttingDown);
    }
    check_name(&name)?;
    let mailbox = mailbox::<A>(runtime, &name, Some(options)).await?;
    check_shapes(runtime, &mailbox.decoder, options).await?;
    let claim = Claim::take(&mailbox).ok_or(SpawnError::Running { mailbox: name })?;
    subscribe(runtime, mailbox.id, &options.subscribes).await?;
    // of a run that has ended
    drop(mailbox.fails());
    Ok((mailbox, claim))
}

/// Nobody reads the mailbox any more.
fn give_back<A: Actor>(runtime: &Runtime, mailbox: &Mailbox<A>, claim: Option<Claim<A>>, exit: &Exit) {
    // somebody else holds it only when a worker's task is still being thrown away
    let Some(claim) = claim else { return };
    tidy(runtime, mailbox, exit);
    runtime.watches.forget(&mailbox.name);
    claim.give_back(exit.clone());
}

async fn subscribe(
    runtime: &Runtime,
    mailbox: MailboxId,
    subscribes: &[Subscribes],
) -> Result<(), SubscribeError> {
    for one in subscribes {
        match one {
            Subscribes::To(topic, from) => runtime.ledger.subscribe(mailbox, *topic, *from).await?,
            Subscribes::Matching(pattern, event, from) => {
                let pattern = Pattern::new(pattern)?;
                runtime.ledger.subscribe_matching(mailbox, &pattern, event, *from).await?;
            }
        }
    }
    Ok(())
}

async fn run<A: Actor>(made: Made<A>, tells: Option<Arc<Runtime>>) {
    let name = made.make.mailbox.name.clone();
    let exit = made.live().await;
    if let Some(runtime) = tells {
        runtime.terminated(&name, &exit).await;
    }
}

/// What a worker is made from.
struct Make<A: Actor> {
    runtime: Arc<Runtime>,
    mailbox: Arc<Mailbox<A>>,
    factory: Factory<A>,
    options: MailboxOptions,
    link: Option<Link>,
    /// What the region of an entity sees of it.
    presence: Option<Arc<Presence>>,
}

impl<A: Actor> Make<A> {
    async fn workers(&self) -> Result<Vec<Worker<A>>, SpawnError> {
        let Make { runtime, mailbox, factory, options, link, presence } = self;
        let mut workers = Worker::all(runtime, mailbox, factory, options, link.as_ref()).await?;
        for worker in &mut workers {
            worker.show(presence.clone());
        }
        Ok(workers)
    }

    /// Runs workers one after the other: a handler that does not yield is abandoned with its worker, and the next one begins with
    /// what becomes of its message. The claim on the mailbox stays with whoever runs this.
    async fn run(&self, mut worker: Worker<A>) -> Exit {
        loop {
            let pulse = worker.pulse.clone();
            let mut task = Task(tokio::spawn(pulse.clone().felt(worker.run())));
            let held = tokio::select! {
                biased;
                ended = &mut task.0 => return ended.unwrap_or(Exit::Aborted),
                held = pulse.is_abandoned() => held,
            };
            tracing::error!(actor = %self.mailbox.name, "its handler does not yield: it goes on in a new incarnation without it");
            worker = match self.next_worker().await {
                Some(worker) => worker,
                None => return Exit::Aborted,
            };
            worker.takes_over(held);
        }
    }

    /// None: the system ends, or its store failed.
    async fn next_worker(&self) -> Option<Worker<A>> {
        const AGAIN: Duration = Duration::from_secs(1);
        while !self.runtime.is_closing() && self.runtime.ledger.store().failure().is_none() {
            match self.workers().await {
                // only a worker alone is abandoned
                Ok(mut workers) => return workers.pop(),
                Err(why) => {
                    tracing::error!(actor = %self.mailbox.name, %why, "the actor cannot be made; trying again");
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
        None
    }
}

/// A task that ends where it next yields when nobody waits for it any more.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An actor that is made and does not run yet.
pub(crate) struct Made<A: Actor> {
    workers: Vec<Worker<A>>,
    claim: Claim<A>,
    make: Make<A>,
}

impl<A: Actor> Made<A> {
    /// Makes an entity of a region, whose messages were checked when it was opened. It has one worker. Nobody is told of its end:
    /// it is loaded again when it has mail.
    pub(crate) async fn entity(
        runtime: &Arc<Runtime>,
        mailbox: &Arc<Mailbox<A>>,
        factory: Factory<A>,
        options: &MailboxOptions,
        presence: Arc<Presence>,
    ) -> Result<Self, SpawnError> {
        let running = || SpawnError::Running { mailbox: mailbox.name.to_string() };
        let claim = Claim::take(mailbox).ok_or_else(running)?;
        // of a run that has ended
        drop(mailbox.fails());
        let (runtime, mailbox, options) = (runtime.clone(), mailbox.clone(), options.clone().workers(1));
        let make = Make { runtime, mailbox, factory, options, link: None, presence: Some(presence) };
        let mut workers = make.workers().await?;
        for worker in &mut workers {
            worker.begin().await?;
        }
        Ok(Made { workers, claim, make })
    }

    /// Runs until the end.
    pub(crate) async fn live(self) -> Exit {
        let Made { mut workers, claim, make } = self;
        let alone = if workers.len() == 1 { workers.pop() } else { None };
        let (claim, exit) = match (alone, make.options.abandons()) {
            (Some(worker), Some(_)) => (Some(claim), make.run(worker).await),
            (Some(worker), None) => (Some(claim), worker.pulse.clone().felt(worker.run()).await),
            (None, _) => run_pool(&make, workers, claim).await,
        };
        give_back(&make.runtime, &make.mailbox, claim, &exit);
        exit
    }
}

/// Runs the workers of a pool until all have ended; one that does not end because it was asked to takes the others with it.
async fn run_pool<A: Actor>(
    make: &Make<A>,
    workers: Vec<Worker<A>>,
    claim: Claim<A>,
) -> (Option<Claim<A>>, Exit) {
    match workers.first().and_then(|worker| worker.front.seat()).map(|seat| seat.pool().clone()) {
        Some(pool) => Crew::new(&make.runtime, &make.options, pool, claim, None).run(workers).await,
        // there is one at least, and what is alone was not sent here
        None => (Some(claim), Exit::Stopped),
    }
}

/// An actor that was started, as far as ending it goes.
pub(crate) struct Running {
    pub(crate) name: Arc<str>,
    control: watch::Sender<Control>,
    life: watch::Receiver<Life>,
    task: AbortHandle,
}

impl Running {
    pub(crate) fn new<T>(
        name: Arc<str>,
        control: &watch::Sender<Control>,
        life: &watch::Sender<Life>,
        task: JoinHandle<T>,
    ) -> Self {
        Running { name, control: control.clone(), life: life.subscribe(), task: task.abort_handle() }
    }

    /// A member of a group, for whoever ends it as an actor of its own.
    pub(super) fn member(
        name: Arc<str>,
        control: &watch::Sender<Control>,
        life: &watch::Sender<Life>,
        task: AbortHandle,
    ) -> Self {
        Running { name, control: control.clone(), life: life.subscribe(), task }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.life.borrow().is_running()
    }

    /// Waits for its end, and tells why it ended.
    pub(crate) async fn ended(&mut self) -> Exit {
        match self.life.wait_for(|life| !life.is_running()).await.as_deref() {
            Ok(Life::Ended(exit)) => exit.clone(),
            _ => Exit::Aborted,
        }
    }

    /// Its end, and why, for whoever does not hold it.
    pub(crate) fn end_of(&self) -> impl Future<Output = Exit> + Send + 'static {
        let mut life = self.life.clone();
        async move {
            match life.wait_for(|life| !life.is_running()).await.as_deref() {
                Ok(Life::Ended(exit)) => exit.clone(),
                _ => Exit::Aborted,
            }
        }
    }

    /// Asks the actor to end, and at the deadline to throw its turn away. False when it does not even then.
    pub(crate) async fn end(&mut self, deadline: Deadline) -> bool {
        /// A handler that yields is thrown away at once; this is for the tasks to be scheduled, for all that end by one deadline.
        const TO_BE_SCHEDULED: Duration = Duration::from_secs(1);
        /// And for each of them.
        const AT_LEAST: Duration = Duration::from_millis(50);
        self.control.send_modify(|control| *control = (*control).max(Control::Stop));
        if deadline.limit(self.ended()).await.is_some() {
            return true;
        }
        self.control.send_replace(Control::Park);
        let time = deadline.and(TO_BE_SCHEDULED).left().max(AT_LEAST);
        if tokio::time::timeout(time, self.ended()).await.is_ok() {
            return true;
        }
        self.task.abort();
        false
    }

    /// Throws the task away where it is: nothing it was about to do happens.
    pub(crate) fn abort(&self) {
        self.task.abort();
    }
}

/// The mailbox of a name in this process, made at its first use.
pub(crate) async fn mailbox<A: Actor>(
    runtime: &Arc<Runtime>,
    name: &str,
    options: Option<&MailboxOptions>,
) -> Result<Arc<Mailbox<A>>, SpawnError> {
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
    let (bell, fresh) = runtime.ledger.hold(id, name, limits).await?;
    let made = Arc::new(Mailbox::<A>::new(id, name.into(), decoder::<A>(runtime)?, bell, fresh));
    runtime.forget_mailboxes();
    let kept = runtime.mailboxes.entry(name.to_owned()).or_insert_with(|| made).value().clone();
    cast(name, kept)
}

/// The messages of an actor, checked for what the type system cannot see.
pub(crate) fn decoder<A: Actor>(runtime: &Runtime) -> Result<Arc<Decoder<A>>, SpawnError> {
    runtime.decoder().map_err(|twice| SpawnError::DuplicateMessage { actor: twice.actor, name: twice.name })
}

/// The mailbox as one of `A`'s.
fn cast<A: Actor>(name: &str, known: Arc<dyn AnyMailbox>) -> Result<Arc<Mailbox<A>>, SpawnError> {
    let found = known.actor().to_owned();
    let any: Arc<dyn Any + Send + Sync> = known.into_any();
    any.downcast().map_err(|_| {
        let expected = A::NAME.to_owned();
        SpawnError::WrongActor(WrongActor { mailbox: name.into(), found, expected })
    })
}

pub(crate) fn not_opened(why: Refused) -> SpawnError {
    match why {
        Refused::Name(bad) => SpawnError::Name(bad),
        Refused::WrongActor(wrong) => SpawnError::WrongActor(wrong),
        Refused::Store(failed) => SpawnError::Store(failed),
        other => SpawnError::Refused(Box::new(other)),
    }
}

/// The kind of a schema record that is a message.
const MESSAGE: u8 = 1;

/// Compares the shapes of the actor's messages with those first stored under the same name and version, and remembers new ones.
pub(crate) async fn check_shapes<A: Actor>(
    runtime: &Runtime,
    decoder: &Decoder<A>,
    options: &MailboxOptions,
) -> Result<(), SpawnError> {
    let ledger = &runtime.ledger;
    let mut batch = Batch::default();
    for kind in decoder.kinds() {
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
    match ledger.commit(&mut batch, Origin::Inside, Urgency::Soon).await {
        Ok(_) => Ok(()),
        Err(CommitRefused::Refused(why)) => Err(not_opened(why)),
        Err(_) => Err(SpawnError::ShuttingDown),
    }
}
