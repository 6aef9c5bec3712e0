include!("common.rs");

use steadfast::{Accepts, Address, Recipient, Refused, SendError};

actor!(Takes, (Letter<0>, (Letter<1>, Letter<2>)));

/// Generic over the actor and the message.
async fn forward<A: Actor, M: Message, I: 'static>(actor: &ActorRef<A>, message: M) -> Result<(), SendError<M>>
where
    A::Messages: Contains<M, I>,
{
    actor.tell(message).await.map(drop)
}

/// Generic over the actor, with two messages of its own.
async fn both<A: Actor, I: 'static, J: 'static>(actor: &ActorRef<A>)
where
    A::Messages: Contains<Letter<1>, I> + Contains<Letter<2>, J>,
{
    let _ = actor.tell(Letter::<1>).await;
    let _ = actor.ask(Letter::<2>).await;
    let _ = forward(actor, Letter::<1>).await;
}

/// The actor forgotten, by type and by name.
async fn sends(actor: ActorRef<Takes>, address: &Address<Takes>) {
    let _ = forward(&actor, Letter::<0>).await;
    let _ = forward(&actor, Letter::<2>).await;
    both(&actor).await;
    let recipient: Recipient<Letter<2>> = actor.recipient();
    let _ = recipient.tell(Letter).await;
    let _narrow: Address<dyn Accepts<Letter<1>>> = address.accepts();
    let _also = address.accepts::<Letter<0>, _>();
}

/// In a turn, to whatever names a target.
fn in_turn(
    ctx: &mut Context<Takes>,
    actor: &ActorRef<Takes>,
    address: &Address<Takes>,
    narrow: &Address<dyn Accepts<Letter<1>>>,
    recipient: &Recipient<Letter<2>>,
) -> Result<(), Refused> {
    ctx.tell(actor, Letter::<0>)?;
    ctx.tell(address, Letter::<2>)?;
    ctx.tell(narrow, Letter::<1>)?;
    ctx.tell(recipient, Letter::<2>)?;
    Ok(())
}

fn main() {
    let _ = (sends, in_turn);
}
