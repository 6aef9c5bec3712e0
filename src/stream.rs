//! Streams over what is durable: stages that work a topic's events through to other topics.
//!
//! Where to look: [`flow`], [`keyed`], [`windowed`], [`fallback`] what a stage is built of · [`time`], [`window`], [`due`] time ·
//! [`pipe`] what its operators are to each other · [`inputs`], [`runner`] the actor behind it · [`stage`] the whole.
//!
//! # Invariants
//! - Nothing is stored here: a stage is a description of what one actor does, and an actor's turn is what commits.

mod due;
mod error;
mod fallback;
mod flow;
mod inputs;
mod keyed;
mod names;
mod pipe;
mod reader;
mod runner;
mod stage;
mod time;
mod window;
mod windowed;

pub use self::error::StageError;
pub use self::flow::Flow;
pub use self::inputs::{One, Side, Sources, Two};
pub use self::keyed::Keyed;
pub use self::reader::{ReadError, TopicStream};
pub use self::runner::StageActor;
pub use self::stage::{Stage, StageRef};
pub use self::window::Window;
pub use self::windowed::{Sessions, Windowed, Windows};
