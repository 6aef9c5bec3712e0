//! What an engine over real files is wrapped in, whichever it is: its files private, sealed and copied aside; its own calls
//! where a panic is caught, its open and its close within a time limit; and nothing written after a write that failed.
//!
//! [`dir`] the files and their seal · [`rescue`] the copy before an unclean open · [`handle`] the one way to the engine ·
//! [`health`] whether it may still be written to · [`files`] calls of the operating system, and what their failures are called.

pub(super) mod dir;
pub(super) mod files;
pub(super) mod handle;
pub(super) mod health;
mod rescue;
#[cfg(test)]
pub(super) mod suite;
