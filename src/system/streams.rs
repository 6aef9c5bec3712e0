//! Running stages.

use super::{Started, System};
use crate::error::SpawnError;
use crate::stream::{Sources, Stage, StageRef};

impl System {
    /// Runs a stage; see [`Topic::stage`](crate::Topic::stage). It is an actor of the stage's name. `Ok` means that it takes its first
    /// event.
    ///
    /// # Errors
    /// See [`SpawnError`]. [`SpawnError::Hook`] when what was kept under this name was kept by other operators.
    pub async fn run_stage<S: Sources>(&self, stage: Stage<S>) -> Result<StageRef<S>, SpawnError> {
        let (actor, running) = stage.start().start(&self.inner.runtime).await?;
        self.runs(Started::Actor(running));
        Ok(StageRef::new(actor))
    }
}
