include!("common.rs");

actor!(Takes, (Letter<0>, Letter<1>));

fn sends(actor: &ActorRef<Takes>) {
    actor.tell(Letter::<33>);
}

fn main() {}
