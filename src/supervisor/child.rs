//! A child as data: what is started, when it is started again, and how long it may take to end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Supervisor;
use super::limit::Backoff;
use crate::actor::{
    Actor, Factory, Filter, Group, Link, MailboxOptions, Running, Runtime, Start, Subscribes,
};
use crate::error::SpawnError;

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Restart {
    /// Always, also after it was asked to end.
    #[default]
    Permanent,
    /// Only after an abnormal end: not when it was asked to end.
    Transient,
    /// Never. Its end concerns nobody: its siblings go on, and nothing is counted. It is no child any more then; it is not
    /// started again either when its siblings are.
    Temporary,
}

/// How long an actor may take to end, unless it says otherwise.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// A child of a [`Supervisor`], before it is started. It may be started any number of times.
///
/// ```
#[doc = include_str!("../example-prelude.txt")]
/// let child = ChildSpec::actor("counter-1", || Counter)
///     .transient()
///     .shutdown(Duration::from_secs(20))
///     .backoff(Backoff { min: Duration::from_secs(1), ..Backoff::default() });
/// # assert_eq!(child.name(), "counter-1");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ChildSpec {
    pub(super) name: Arc<str>,
    pub(super) restart: Restart,
    /// None: as long as it takes.
    pub(super) shutdown: Option<Duration>,
    pub(super) backoff: Backoff,
    pub(super) what: What,
}

#[derive(Clone)]
pub(super) enum What {
    Actor(Box<ActorSpec>),
    Supervisor(Arc<Supervisor>),
}

/// An actor without its type.
#[derive(Clone)]
pub(super) struct ActorSpec {
    options: MailboxOptions,
    start: Arc<Starter>,
    /// It joins a group, whose mailbox it has.
    is_member: bool,
}

type Starter = dyn Fn(String, MailboxOptions, Link, Arc<Runtime>) -> BoxFuture<'static, Result<Running, SpawnError>>
    + Send
    + Sync;

impl ActorSpec {
    fn new<A: Actor>(factory: Factory<A>) -> Self {
        let start = move |name, options, link, runtime: Arc<Runtime>| {
            let start = Start { name, factory: factory.clone(), options, link: Some(link), tells_end: false };
            let started = async move { Ok(start.start(&runtime).await?.1) };
            Box::pin(started) as BoxFuture<'static, _>
        };
        ActorSpec { options: A::mailbox(), start: Arc::new(start), is_member: false }
    }

    fn member<A: Actor>(group: Group<A>, factory: Factory<A>) -> Self {
        let start = move |name: String, _, link, _| {
            let (group, factory) = (group.clone(), factory.clone());
            let joined = async move { Ok(group.let_join(&factory, Some(name.into()), Some(&link)).await?.1) };
            Box::pin(joined) as BoxFuture<'static, _>
        };
        ActorSpec { options: A::mailbox(), start: Arc::new(start), is_member: true }
    }

    pub(super) async fn start(
        &self,
        name: &str,
        link: Link,
        runtime: &Arc<Runtime>,
    ) -> Result<Running, SpawnError> {
        (self.start)(name.to_owned(), self.options.clone(), link, runtime.clone()).await
    }
}

impl ChildSpec {
    /// An actor; as [`System::spawn`](crate::System::spawn), `name` is its durable identity, unique in the whole system. It is
    /// permanent, has 5 s to end, and waits [as usual](Backoff::default) before it is started again.
    pub fn actor<A, F>(name: impl Into<String>, factory: F) -> Self
    where
        A: Actor,
        F: Fn() -> A + Send + Sync + 'static,
    {
        Self::of_actor(name.into(), ActorSpec::new::<A>(Arc::new(factory)))
    }

    fn of_actor(name: String, actor: ActorSpec) -> Self {
        ChildSpec {
            name: name.into(),
            restart: Restart::Permanent,
            shutdown: Some(SHUTDOWN),
            backoff: Backoff::default(),
            what: What::Actor(Box::new(actor)),
        }
    }

    /// A member of a group, which is open: as [`Group::join`](crate::Group::join) under this name. Started again it joins again, and gets
    /// the keys back that others had meanwhile. A failure counts as that of any child, and concerns the other members only if the
    /// strategy says so; without this child the group goes on with those that are left. It is permanent, has 5 s to end, and waits
    /// [as usual](Backoff::default) before it is started again.
    ///
    /// ```
    #[doc = include_str!("../example-prelude.txt")]
    /// # let system = System::builder().open_in_memory().await?;
    /// let group = system.group::<Counter>("counters").await?;
    /// let supervisor = Supervisor::new("members", Strategy::OneForOne)
    ///     .child(ChildSpec::member("first", &group, || Counter))
    ///     .child(ChildSpec::member("second", &group, || Counter));
    /// system.supervise(supervisor).await?;
    /// assert_eq!(group.members().len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn member<A, F>(name: impl Into<String>, group: &Group<A>, factory: F) -> Self
    where
        A: Actor,
        F: Fn() -> A + Send + Sync + 'static,
    {
        Self::of_actor(name.into(), ActorSpec::member(group.clone(), Arc::new(factory)))
    }

    /// A supervisor, under its own name. It is permanent, and has as long to end as its children have.
    pub fn supervisor(supervisor: Supervisor) -> Self {
        ChildSpec {
            name: supervisor.name.clone(),
            restart: Restart::Permanent,
            shutdown: None,
            backoff: Backoff::default(),
            what: What::Supervisor(Arc::new(supervisor)),
        }
    }

    /// The name, unique among its siblings.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`Restart::Permanent`].
    #[must_use]
    pub fn permanent(self) -> Self {
        self.restart(Restart::Permanent)
    }

    /// See [`Restart::Transient`].
    #[must_use]
    pub fn transient(self) -> Self {
        self.restart(Restart::Transient)
    }

    /// See [`Restart::Temporary`].
    #[must_use]
    pub fn temporary(self) -> Self {
        self.restart(Restart::Temporary)
    }

    /// When it is started again.
    #[must_use]
    pub fn restart(self, restart: Restart) -> Self {
        ChildSpec { restart, ..self }
    }

    /// How long it may take to end when it is asked to. After that its turn is thrown away, which costs the message no attempt;
    /// zero does so at once.
    #[must_use]
    pub fn shutdown(self, time: Duration) -> Self {
        ChildSpec { shutdown: Some(time), ..self }
    }

    /// How long it waits before it is started again.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        ChildSpec { backoff, ..self }
    }

    /// Options of the actor's mailbox other than those of [`Actor::mailbox`]. A supervisor has none, and a
    /// member those of its group: nothing changes.
    #[must_use]
    pub fn mailbox(mut self, options: MailboxOptions) -> Self {
        if let What::Actor(actor) = &mut self.what {
            let before = std::mem::take(&mut actor.options);
            actor.options = options.reading_as(before);
        }
        self
    }

    /// Has the actor read topics, whose events it must be able to decode.
    pub(crate) fn reads(mut self, subscribes: Vec<Subscribes>, filters: Vec<Filter>) -> Self {
        if let What::Actor(actor) = &mut self.what {
            (actor.options.subscribes, actor.options.filters) = (subscribes, filters);
        }
        self
    }

    /// Whether it has no mailbox of its own, whose end somebody could watch.
    pub(super) fn is_member(&self) -> bool {
        matches!(&self.what, What::Actor(actor) if actor.is_member)
    }

    pub(super) fn is_supervisor(&self) -> bool {
        matches!(self.what, What::Supervisor(_))
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("name", &self.name)
            .field("supervisor", &self.is_supervisor())
            .field("restart", &self.restart)
            .field("shutdown", &self.shutdown)
            .field("backoff", &self.backoff)
            .finish()
    }
}
