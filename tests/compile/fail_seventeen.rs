include!("common.rs");

actor!(Takes, (Letter<0>, Letter<1>, Letter<2>, Letter<3>, Letter<4>, Letter<5>, Letter<6>, Letter<7>, Letter<8>, Letter<9>, Letter<10>, Letter<11>, Letter<12>, Letter<13>, Letter<14>, Letter<15>, Letter<16>));

fn main() {}
