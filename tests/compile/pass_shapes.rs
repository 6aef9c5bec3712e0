include!("common.rs");

actor!(Bare, Letter<0>);
actor!(One, (Letter<0>,));
actor!(Two, (Letter<0>, Letter<1>));
actor!(Sixteen, (Letter<0>, Letter<1>, Letter<2>, Letter<3>, Letter<4>, Letter<5>, Letter<6>, Letter<7>, Letter<8>, Letter<9>, Letter<10>, Letter<11>, Letter<12>, Letter<13>, Letter<14>, Letter<15>));
actor!(SixteenByTwo, ((Letter<0>, Letter<1>, Letter<2>, Letter<3>, Letter<4>, Letter<5>, Letter<6>, Letter<7>, Letter<8>, Letter<9>, Letter<10>, Letter<11>, Letter<12>, Letter<13>, Letter<14>, Letter<15>), (Letter<16>, Letter<17>, Letter<18>, Letter<19>, Letter<20>, Letter<21>, Letter<22>, Letter<23>, Letter<24>, Letter<25>, Letter<26>, Letter<27>, Letter<28>, Letter<29>, Letter<30>, Letter<31>)));
actor!(ThreeDeep, (Letter<0>, (Letter<1>, (Letter<2>, (Letter<3>,)), Letter<4>)));

macro_rules! tells {
    ($actor:expr; $($n:literal)+) => {{
        let actor = $actor;
        $(drop(actor.tell(Letter::<$n>));)+
    }};
}

#[rustfmt::skip]
fn sends(
    bare: ActorRef<Bare>,
    one: ActorRef<One>,
    two: ActorRef<Two>,
    sixteen: ActorRef<Sixteen>,
    sixteen_by_two: ActorRef<SixteenByTwo>,
    three_deep: ActorRef<ThreeDeep>,
) {
    tells!(bare; 0);
    tells!(one; 0);
    tells!(two; 0 1);
    tells!(sixteen; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    tells!(sixteen_by_two; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    tells!(three_deep; 0 1 2 3 4);
}

fn main() {
    let _ = sends;
}
