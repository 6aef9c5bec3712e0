//! What can be wrong with a stage before it runs.

use std::time::Duration;

/// A stage that makes no sense. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// A window holds nothing, or more than can be counted.
    #[error(
        "stage {stage}: a window of {time:?} is impossible: give {what} of at least a millisecond, and less than 100 years"
    )]
    Window {
        /// The stage.
        stage: String,
        /// What is wrong: the size, the slide or the gap.
        what: &'static str,
        /// How long it was to be.
        time: Duration,
    },
    /// A window slides by more than its size, so that events between two of them would be in none.
    #[error(
        "stage {stage}: windows of {size:?} every {slide:?} leave out what is between them; slide by at most the size"
    )]
    Slide {
        /// The stage.
        stage: String,
        /// The size.
        size: Duration,
        /// The slide.
        slide: Duration,
    },
    /// Each event would be in too many windows.
    #[error("stage {stage}: each event would be in {windows} windows, the limit is {limit}; slide by more")]
    TooManyWindows {
        /// The stage.
        stage: String,
        /// How many.
        windows: u128,
        /// The most.
        limit: u64,
    },
    /// Nobody says what time it is.
    #[error("stage {stage}: {what} needs time: say `event_time` or `processing_time` before it")]
    NoTime {
        /// The stage.
        stage: String,
        /// What needs it.
        what: &'static str,
    },
    /// A batch holds nothing.
    #[error("stage {stage}: a batch of no events would never be handled; give it a size of at least 1")]
    EmptyBatch {
        /// The stage.
        stage: String,
    },
    /// Both sides of a join are the same topic.
    #[error("stage {stage}: both sides of the join are topic {topic}; make pairs of its events with `scan`")]
    SameTopic {
        /// The stage.
        stage: String,
        /// The topic.
        topic: String,
    },
    /// Too many operators keep something.
    #[error(
        "stage {stage}: more than {limit} operators keep something; go on in another stage, behind a topic"
    )]
    TooManyOperators {
        /// The stage.
        stage: String,
        /// The most.
        limit: usize,
    },
}
