//! Whom steadfast is measured beside. Each does its best with what a careful user would write: group commit for all databases, as
//! one sync for each message is 20 to 100 times slower.

pub mod actix;
pub mod channel;
pub mod group;
pub mod kameo;
pub mod outbox;
pub mod ractor;
pub mod raw_log;
pub mod sled;
pub mod sqlite;
pub mod steadfast;
