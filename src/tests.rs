//! What is promised of actors, sends and turns, asked of the whole: a system on a simulated machine, whose time and
//! failures are the test's. Each test is named as the fact it establishes; bugs planted in the source keep them honest.

mod asks;
mod batches;
mod capacity;
mod compaction;
mod crash_points;
mod dead_letters;
mod decisions;
mod dedup;
mod entities;
mod ephemeral;
mod groups;
mod hooks;
mod life_cycle;
mod moves;
mod pools;
mod publishing;
mod retries;
mod salvage;
mod salvage_files;
mod schedule;
mod schema;
mod sends;
mod state;
mod streams;
mod stuck;
mod subscriptions;
mod supervisors;
mod suspects;
mod timeouts;
mod topic_promises;
mod topics;
mod watches;
mod world;
