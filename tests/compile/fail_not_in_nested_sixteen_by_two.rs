include!("common.rs");

actor!(Takes, ((Letter<0>, Letter<1>, Letter<2>, Letter<3>, Letter<4>, Letter<5>, Letter<6>, Letter<7>, Letter<8>, Letter<9>, Letter<10>, Letter<11>, Letter<12>, Letter<13>, Letter<14>, Letter<15>), (Letter<16>, Letter<17>, Letter<18>, Letter<19>, Letter<20>, Letter<21>, Letter<22>, Letter<23>, Letter<24>, Letter<25>, Letter<26>, Letter<27>, Letter<28>, Letter<29>, Letter<30>, Letter<31>)));

fn sends(actor: &ActorRef<Takes>) {
    actor.tell(Letter::<33>);
}

fn main() {}
