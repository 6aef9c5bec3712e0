include!("common.rs");

actor!(Takes, (Letter<0>, (Letter<1>, Letter<2>)));

/// Generic over the actor and the message.
fn forward<A: Actor, M: Message, I>(actor: &ActorRef<A>, message: M)
where
    A::Messages: Contains<M, I>,
{
    actor.tell(message);
}

/// Generic over the actor, with two messages of its own.
fn both<A: Actor, I, J>(actor: &ActorRef<A>)
where
    A::Messages: Contains<Letter<1>, I> + Contains<Letter<2>, J>,
{
    actor.tell(Letter::<1>);
    actor.tell(Letter::<2>);
    forward(actor, Letter::<1>);
}

/// Whoever takes `M`, with the actor and the index forgotten.
struct Recipient<M>(Box<dyn Fn(M) + Send + Sync>);

impl<M: Message> Recipient<M> {
    fn of<A: Actor, I>(actor: ActorRef<A>) -> Self
    where
        A::Messages: Contains<M, I>,
        I: 'static,
    {
        Recipient(Box::new(move |message| actor.tell::<M, I>(message)))
    }
}

/// An address of any actor that takes `M`.
trait Accepts<M> {}
struct Address<A: ?Sized>(std::marker::PhantomData<fn() -> Box<A>>);

impl<A: Actor> Address<A> {
    fn accepts<M: Message, I>(&self) -> Address<dyn Accepts<M>>
    where
        A::Messages: Contains<M, I>,
    {
        Address(std::marker::PhantomData)
    }
}

fn sends(actor: ActorRef<Takes>, address: &Address<Takes>) {
    forward(&actor, Letter::<0>);
    forward(&actor, Letter::<2>);
    both(&actor);
    let recipient: Recipient<Letter<2>> = Recipient::of(actor);
    (recipient.0)(Letter);
    let _narrow: Address<dyn Accepts<Letter<1>>> = address.accepts();
    let _also = address.accepts::<Letter<0>, _>();
}

fn main() {
    let _ = sends;
}
