//! Streams over what is durable: stages that work a topic's events through to other topics, sources of items that are acknowledged,
//! sinks.
//!
//! Where to look: [`flow`], [`keyed`], [`windowed`], [`join`], [`fallback`] what a stage is built of · [`time`], [`window`], [`due`] time ·
//! [`pipe`] what its operators are to each other · [`inputs`], [`runner`] the actor behind it · [`stage`] the whole ·
//! [`reader`], [`consume`], [`delivery`], [`delivered`], [`sink`] for `futures-util`.
//!
//! # Invariants
//! - Nothing is stored here: a stage is a description of what one actor does, and an actor's turn is what commits.

mod bus;
mod consume;
mod delivered;
mod delivery;
mod due;
mod error;
mod fallback;
mod flow;
mod inputs;
mod join;
mod keyed;
mod names;
mod pipe;
mod reader;
mod runner;
mod sink;
mod stage;
mod time;
mod window;
mod windowed;

pub use self::bus::{Bus, BusHandler, Passing, Registration, Sent};
pub use self::consume::{Consume, Deliveries, Source};
pub use self::delivered::{DeliveryStream, EmptyBatch};
pub use self::delivery::{Acknowledged, Delivery, NotAcknowledged};
pub use self::error::StageError;
pub use self::flow::Flow;
pub use self::inputs::{One, Side, Sources, Two};
pub use self::join::TopicJoin;
pub use self::keyed::Keyed;
pub use self::reader::{ReadError, TopicStream};
pub use self::runner::StageActor;
pub use self::sink::DurableSink;
pub use self::stage::{Stage, StageRef};
pub use self::window::Window;
pub use self::windowed::{Sessions, Windowed, Windows};
