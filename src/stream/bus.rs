//! An event bus over what is durable: an address to which one sends (one handler gets it), publishes (all get it) and of which one
//! requests (one answers), with interceptors on both sides.
//!
//! # Invariants
//! - What was sent waits until there is a handler; what was published waits for each handler that has been there by its name.
//! - A message passes all interceptors of the address, in their order, before it is stored, and again before it is handled.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::actor::{Actor, ActorRef, Context, Failure, Group, Handler, Member, Message};
use crate::envelope::{Headers, MessageId};
use crate::error::{AskError, Refused, SendError};
use crate::topic::{Published, Topic};

/// How a message came to a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// It is this handler's alone; who requested it gets what the handler returns.
    ToOne,
    /// Every handler gets it; what it returns is thrown away.
    ToAll,
}

/// What is known of a message on its way.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Passing {
    /// The address.
    pub address: Arc<str>,
    /// How it came.
    pub sent: Sent,
    /// Its headers: an interceptor on the way out may add to them.
    pub headers: Headers,
}

type Interceptor<M> = Arc<dyn Fn(&M, &mut Passing) -> Result<(), Failure> + Send + Sync>;
type Handling<M> =
    Arc<dyn Fn(M, Passing) -> BoxFuture<'static, Result<<M as Message>::Reply, Failure>> + Send + Sync>;

/// An address of the bus, for messages of one type; from [`System::bus`](crate::System::bus). Clones are the same.
pub struct Bus<M: Message> {
    address: Arc<str>,
    topic: Topic<M>,
    group: Group<BusHandler<M>>,
    outbound: Vec<Interceptor<M>>,
    inbound: Vec<Interceptor<M>>,
}

impl<M: Message> Bus<M> {
    pub(crate) fn new(address: String, topic: Topic<M>, group: Group<BusHandler<M>>) -> Self {
        Bus { address: address.into(), topic, group, outbound: Vec::new(), inbound: Vec::new() }
    }

    /// Has messages that are sent by this handle, and its clones from now on, looked at before they are stored. An error refuses them:
    /// [`Refused::Intercepted`].
    pub fn outbound<F>(mut self, intercept: F) -> Self
    where
        F: Fn(&M, &mut Passing) -> Result<(), Failure> + Send + Sync + 'static,
    {
        self.outbound.push(Arc::new(intercept));
        self
    }

    /// Has messages looked at before handlers get them that are made by this handle, or by its clones, from now on. An error is the
    /// handler's.
    pub fn inbound<F>(mut self, intercept: F) -> Self
    where
        F: Fn(&M, &mut Passing) -> Result<(), Failure> + Send + Sync + 'static,
    {
        self.inbound.push(Arc::new(intercept));
        self
    }

    /// Sends to one of the handlers. `Ok` means that it is on disk, synced: it waits until there is a handler.
    ///
    /// # Errors
    /// As [`ActorRef::tell`](crate::ActorRef::tell).
    pub async fn send(&self, message: M) -> Result<MessageId, SendError<M>> {
        match self.pass(&message, Sent::ToOne) {
            Ok(passing) => {
                let tell = self.group.actor().tell(message);
                passing.headers.iter().fold(tell, |tell, (key, value)| tell.header(key, value)).await
            }
            Err(why) => Err(SendError::Refused { message, why }),
        }
    }

    /// Sends to one of the handlers, and waits for what it returns, at most 30 s.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn request(&self, message: M) -> Result<M::Reply, AskError<M>> {
        match self.pass(&message, Sent::ToOne) {
            Ok(passing) => {
                let ask = self.group.actor().ask(message);
                passing.headers.iter().fold(ask, |ask, (key, value)| ask.header(key, value)).await
            }
            Err(why) => Err(AskError::Refused { message, why }),
        }
    }

    /// Sends to all handlers. `Ok` means that it is on disk, synced: a handler that is away gets it when it is back.
    ///
    /// # Errors
    /// As [`Topic::publish`].
    pub async fn publish(&self, message: M) -> Result<Published, SendError<M>> {
        match self.pass(&message, Sent::ToAll) {
            Ok(passing) => {
                let publish = self.topic.publish(message);
                passing.headers.iter().fold(publish, |publish, (key, value)| publish.header(key, value)).await
            }
            Err(why) => Err(SendError::Refused { message, why }),
        }
    }

    fn pass(&self, message: &M, sent: Sent) -> Result<Passing, Refused> {
        let mut passing = Passing { address: self.address.clone(), sent, headers: Headers::new() };
        match intercept(&self.outbound, message, &mut passing) {
            Ok(()) => Ok(passing),
            Err(why) => Err(Refused::Intercepted { address: self.address.to_string(), why: why.to_string() }),
        }
    }

    pub(crate) fn topic(&self) -> &Topic<M> {
        &self.topic
    }

    pub(crate) fn group(&self) -> &Group<BusHandler<M>> {
        &self.group
    }

    /// What makes a handler's actors.
    pub(crate) fn factory<F, Fut>(
        &self,
        handle: F,
    ) -> impl Fn() -> BusHandler<M> + Clone + Send + Sync + 'static
    where
        F: Fn(M, Passing) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<M::Reply, Failure>> + Send + 'static,
    {
        let (address, inbound) = (self.address.clone(), self.inbound.clone());
        let handle: Handling<M> = Arc::new(move |message, passing| Box::pin(handle(message, passing)));
        move || BusHandler { address: address.clone(), inbound: inbound.clone(), handle: handle.clone() }
    }
}

fn intercept<M>(all: &[Interceptor<M>], message: &M, passing: &mut Passing) -> Result<(), Failure> {
    all.iter().try_for_each(|one| one(message, passing))
}

/// The actor behind a handler.
pub struct BusHandler<M: Message> {
    address: Arc<str>,
    inbound: Vec<Interceptor<M>>,
    handle: Handling<M>,
}

impl<M: Message> Actor for BusHandler<M> {
    const NAME: &'static str = "steadfast.bus";
    type Messages = (M,);
}

impl<M: Message> Handler<M> for BusHandler<M> {
    async fn handle(&mut self, message: M, ctx: &mut Context<Self>) -> Result<M::Reply, Failure> {
        let sent = if ctx.topic().is_some() { Sent::ToAll } else { Sent::ToOne };
        let mut passing = Passing { address: self.address.clone(), sent, headers: ctx.headers().clone() };
        intercept(&self.inbound, &message, &mut passing)?;
        (self.handle)(message, passing).await
    }
}

/// A handler of an address. Dropping it changes nothing.
pub struct Registration<M: Message> {
    pub(crate) member: Member,
    pub(crate) subscriber: ActorRef<BusHandler<M>>,
}

impl<M: Message> Registration<M> {
    /// Ends the handler after what it does now. What is published meanwhile waits for one of its name.
    pub async fn end(self) {
        self.member.leave().await;
        self.subscriber.stop().await;
    }
}

impl<M: Message> Clone for Bus<M> {
    fn clone(&self) -> Self {
        Bus {
            address: self.address.clone(),
            topic: self.topic.clone(),
            group: self.group.clone(),
            outbound: self.outbound.clone(),
            inbound: self.inbound.clone(),
        }
    }
}

impl<M: Message> fmt::Debug for Bus<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bus({}: {})", self.address, M::NAME)
    }
}

impl<M: Message> fmt::Debug for Registration<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({})", self.subscriber.name())
    }
}
