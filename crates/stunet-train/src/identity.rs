//! What a run is, as far as the library knows: kept in its checkpoints, checked when it goes on.

use crate::error::{Result, TrainError};
use serde::{Deserialize, Serialize};

/// Descriptions of the parts that a caller may replace. A run goes on with the parts that it began
/// with, or not at all: half a run with one loss and half with another is neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// [`Objective::describe`](crate::objective::Objective::describe).
    pub objective: String,
    /// [`OptimiserConfig::describe`](crate::optimiser::OptimiserConfig::describe).
    pub optimiser: String,
    /// [`Schedule::describe`](crate::schedule::Schedule::describe).
    pub schedule: String,
    /// [`Augmentation::describe`](stunet_data::augment::Augmentation::describe).
    pub augmentation: String,
}

impl Identity {
    /// Fails where another run differs from this one.
    pub(crate) fn check(&self, found: &Self) -> Result<()> {
        let parts = [
            ("loss", &self.objective, &found.objective),
            ("optimiser", &self.optimiser, &found.optimiser),
            ("learning rate schedule", &self.schedule, &found.schedule),
            ("augmentation", &self.augmentation, &found.augmentation),
        ];
        match parts.into_iter().find(|(_, expected, found)| expected != found) {
            None => Ok(()),
            Some((part, expected, found)) => {
                Err(TrainError::OtherRun { part, expected: expected.clone(), found: found.clone() })
            }
        }
    }
}
