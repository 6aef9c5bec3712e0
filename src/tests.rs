//! What is promised of actors, sends and turns, asked of the whole: a system on a simulated machine, whose time and
//! failures are the test's. Each test is named as the fact it establishes; bugs planted in the source keep them honest.

mod asks;
mod capacity;
mod dead_letters;
mod dedup;
mod life_cycle;
mod retries;
mod schedule;
mod schema;
mod sends;
mod state;
mod world;
