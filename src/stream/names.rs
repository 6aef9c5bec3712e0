//! The names under which a stage's operators keep what they keep: by the number of the operator among those that keep something.

macro_rules! names {
    ($name:ident: $prefix:literal $($n:literal)+) => {
        pub(super) const fn $name(slot: usize) -> &'static str {
            const NAMES: [&str; super::flow::SLOTS] = [$(concat!($prefix, $n)),+];
            NAMES[slot]
        }
    };
}

names!(clock: "stage.clock." 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
names!(kept: "stage.kept." 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
names!(due: "stage.due." 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
names!(other: "stage.other." 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
names!(sides: "stage.sides." 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
names!(time: "stage.time." 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
