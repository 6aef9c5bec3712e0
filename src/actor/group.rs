//! Groups: members that come and go and share one mailbox, such as a subscription. A [pool](super::pool) whose seats are taken and
//! given up while it runs; the [crew](super::crew) is what runs it.
//!
//! # Invariants
//! - A member is made, and its `started` has succeeded, before it is given a letter.
//! - A handle on a member, or on the group, keeps nothing alive and ends nothing when it is dropped.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::crew::{Newcomer, Strings};
use super::front::Front;
use super::handle::ActorRef;
use super::life::{Exit, Life, Link};
use super::mailbox::Control;
use super::message::Actor;
use super::pool::Pool;
use super::start::Running;
use super::worker::{Factory, Ground};
use crate::error::SpawnError;

/// A handle on a group: members that come and go while it runs, and share one mailbox. See [`System::group`](crate::System::group).
///
/// It is an [`ActorRef`] and more: what is sent to it is handled by one of its members, and it is stopped as an actor is. Cheap to
/// clone; dropping it ends nothing. When the group was stopped and opened again, members join by the new handle.
pub struct Group<A: Actor> {
    actor: ActorRef<A>,
    inside: Arc<Inside<A>>,
}

/// What members are made from, and where they come in.
pub(super) struct Inside<A: Actor> {
    pub(super) ground: Ground<A>,
    pub(super) pool: Arc<Pool<A>>,
    pub(super) door: mpsc::Sender<Newcomer<A>>,
}

/// A member of a group: one more that handles its messages. Dropping the handle changes nothing: the member stays until it
/// [leaves](Member::leave), fails, or the group ends. Clones are the same member.
#[derive(Clone)]
pub struct Member {
    id: u64,
    name: Arc<str>,
    group: Arc<str>,
    control: watch::Sender<Control>,
    life: watch::Receiver<Life>,
}

/// A member, and what it does now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberInfo {
    /// Its number: how many wanted to join before it, and one. It is given once while the group runs.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// How many keys it has in flight.
    pub keys: usize,
    /// How many messages it has in flight.
    pub messages: usize,
}

/// A member that is to join; awaiting it has it join. See [`Group::join`].
#[must_use = "nobody joins until it is awaited"]
pub struct Join<'a, A: Actor> {
    group: &'a Group<A>,
    factory: Factory<A>,
    name: Option<Arc<str>>,
}

impl<A: Actor> Group<A> {
    pub(super) fn new(actor: ActorRef<A>, inside: Inside<A>) -> Self {
        Group { actor, inside: Arc::new(inside) }
    }

    /// Has one more join. Awaiting it makes its actor from the factory, as it is made again after each failed turn, calls
    /// [`started`](Actor::started), and returns when the member takes its share. Thrown away before that, nobody has joined.
    ///
    /// # Errors
    /// [`SpawnError::Factory`], [`SpawnError::Hook`]: its actor could not be made. [`SpawnError::Stopped`]: the group has ended, or is
    /// ending. Or the store failed.
    pub fn join<F>(&self, factory: F) -> Join<'_, A>
    where
        F: Fn() -> A + Send + Sync + 'static,
    {
        Join { group: self, factory: Arc::new(factory), name: None }
    }

    /// Who is a member now, in the order in which they came.
    pub fn members(&self) -> Vec<MemberInfo> {
        let info = |doing: super::pool::Doing| {
            let super::pool::Doing { number, name, keys, letters } = doing;
            MemberInfo { id: number, name: name.to_string(), keys, messages: letters }
        };
        self.inside.pool.doing().into_iter().map(info).collect()
    }

    /// The handle that sends to it and stops it.
    pub fn actor(&self) -> &ActorRef<A> {
        &self.actor
    }

    pub(crate) async fn let_join(
        &self,
        factory: &Factory<A>,
        name: Option<Arc<str>>,
        link: Option<&Link>,
    ) -> Result<(Member, Running), SpawnError> {
        let Inside { ground, pool, door } = &*self.inside;
        let stopped = || SpawnError::Stopped { mailbox: self.actor.name().to_owned() };
        if ground.runtime.is_closing() {
            return Err(SpawnError::ShuttingDown);
        }
        if door.is_closed() {
            return Err(stopped());
        }
        let seat = pool.seat(name);
        let (id, name, group) = (seat.number(), seat.name().clone(), ground.mailbox.name.clone());
        let (control, life) = (watch::Sender::new(Control::Run), watch::Sender::new(Life::Unborn));
        let mut worker = ground.worker(Front::Shared(seat), factory, link, control.subscribe())?;
        worker.begin().await?;
        let strings = Strings { control: control.clone(), life: life.clone() };
        let (joined, is_in) = oneshot::channel();
        door.send(Newcomer { worker, strings, joined }).await.map_err(|_| stopped())?;
        let task = is_in.await.map_err(|_| stopped())?.task();
        let running = Running::member(name.clone(), &control, &life, task);
        Ok((Member { id, name, group, control, life: life.subscribe() }, running))
    }
}

impl<A: Actor> Join<'_, A> {
    /// The member's name: by it keys find the member they belong to, so one that comes again under the same name, after a restart
    /// too, gets about the keys it had. Without this it is the member's number. Two members may have the same name; then the
    /// later one has the keys of both.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into().into());
        self
    }
}

impl<'a, A: Actor> IntoFuture for Join<'a, A> {
    type Output = Result<Member, SpawnError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let Join { group, factory, name } = self;
        Box::pin(async move { group.let_join(&factory, name, None).await.map(|(member, _)| member) })
    }
}

impl Member {
    /// Its number in its group; see [`MemberInfo::id`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Whether it is a member still.
    pub fn is_running(&self) -> bool {
        self.life.borrow().is_running()
    }

    /// Leaves after the turn that runs. Returns when it has left: what it would have handled next is with the others by then, or
    /// waits for the next to join.
    pub async fn leave(&self) {
        self.end(Control::Stop).await;
    }

    /// Leaves now: the turn that runs is thrown away and costs its message no attempt. Returns when it has left; a handler that
    /// does not yield is waited for, since nobody else may have its key meanwhile.
    pub async fn park(&self) {
        self.end(Control::Park).await;
    }

    async fn end(&self, control: Control) {
        self.control.send_modify(|now| *now = control.max(*now));
        self.ended().await;
    }

    /// Waits until it is no member any more, and tells why.
    pub async fn ended(&self) -> Exit {
        let mut life = self.life.clone();
        match life.wait_for(|life| !life.is_running()).await.as_deref() {
            Ok(Life::Ended(exit)) => exit.clone(),
            _ => Exit::Aborted,
        }
    }
}

impl<A: Actor> Deref for Group<A> {
    type Target = ActorRef<A>;

    fn deref(&self) -> &ActorRef<A> {
        &self.actor
    }
}

impl<A: Actor> Clone for Group<A> {
    fn clone(&self) -> Self {
        Group { actor: self.actor.clone(), inside: self.inside.clone() }
    }
}

impl<A: Actor> fmt::Debug for Group<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({}: {}, {} members)", self.actor.name(), A::NAME, self.inside.pool.taken())
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Member({} of {})", self.name, self.group)
    }
}
