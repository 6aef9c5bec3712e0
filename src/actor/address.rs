//! Where an actor is to be found, as pure data: it can be stored, sent in a message, and is valid after a restart.

use std::fmt;
use std::marker::PhantomData;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::list::Contains;
use super::message::{Actor, Message};
use crate::durable::{check_address, check_name};
use crate::error::BadName;

/// Something that takes messages of type `M`, whatever else it takes. Named only in `Address<dyn Accepts<M>>`.
pub trait Accepts<M: Message> {}

/// The name of an actor of type `A`; or, as `Address<dyn Accepts<M>>`, of any actor that takes `M`.
///
/// It is data: serializable, allowed in messages and state, and valid in every process that opens the store.
/// [`System::bind`](crate::System::bind) makes an [`ActorRef`](crate::ActorRef) of it;
/// [`Context::tell`](crate::Context::tell) takes it as it is.
///
/// ```
#[doc = include_str!("../example-prelude.txt")]
/// #[derive(Serialize, Deserialize)]
/// struct Subscribe { to: Address<dyn Accepts<Add>> } // an address may lie in a message, and in state
///
/// # let system = System::builder().open_in_memory().await?;
/// let address = Address::<Counter>::new("counter-1")?; // nobody runs under this name yet
/// let counter = system.bind(&address).await?;
/// counter.tell(Add { amount: 7 }).await?; // waits for whoever is spawned
/// let subscribe = Subscribe { to: address.accepts() };
/// assert_eq!(subscribe.to.name(), "counter-1");
/// # let counter = system.spawn("counter-1", || Counter).await?;
/// # assert_eq!(counter.ask(Add { amount: 1 }).await?, 8);
/// # Ok(()) }
/// ```
pub struct Address<A: ?Sized> {
    pub(crate) name: String,
    /// The NAME of the actor's type: what the mailbox belongs to.
    pub(crate) actor: String,
    _actor: PhantomData<fn(&A)>,
}

impl<A: Actor> Address<A> {
    /// The address of the actor named `name`, which need not exist yet.
    ///
    /// # Errors
    /// A name that is none: 1 to 128 characters of `A-Z a-z 0-9 . _ : / -`.
    pub fn new(name: impl Into<String>) -> Result<Self, BadName> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self::checked(name))
    }

    pub(crate) fn checked(name: String) -> Self {
        Address { name, actor: A::NAME.to_owned(), _actor: PhantomData }
    }

    /// The same address, of which only that it takes `M` is known.
    pub fn accepts<M, I>(&self) -> Address<dyn Accepts<M>>
    where
        M: Message,
        A::Messages: Contains<M, I>,
    {
        Address { name: self.name.clone(), actor: self.actor.clone(), _actor: PhantomData }
    }
}

impl<A: ?Sized> Address<A> {
    /// The actor's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<A: ?Sized> Clone for Address<A> {
    fn clone(&self) -> Self {
        Address { name: self.name.clone(), actor: self.actor.clone(), _actor: PhantomData }
    }
}

impl<A: ?Sized> PartialEq for Address<A> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.actor == other.actor
    }
}

impl<A: ?Sized> Eq for Address<A> {}

impl<A: ?Sized> fmt::Debug for Address<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}: {})", self.name, self.actor)
    }
}

impl<A: ?Sized> Serialize for Address<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.name, &self.actor).serialize(serializer)
    }
}

impl<'de, A: ?Sized> Deserialize<'de> for Address<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (name, actor) = <(String, String)>::deserialize(deserializer)?;
        check_address(&name).map_err(D::Error::custom)?;
        check_name(&actor).map_err(D::Error::custom)?;
        Ok(Address { name, actor, _actor: PhantomData })
    }
}
