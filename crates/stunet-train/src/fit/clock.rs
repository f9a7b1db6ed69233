//! Where an epoch's time goes.

use crate::events::Step;

/// Seconds of the updates of an epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// Altogether.
    pub train_secs: f64,
    /// Waiting for batches.
    pub wait_secs: f64,
}

impl Clock {
    pub(super) fn add(&mut self, step: &Step) {
        self.train_secs += step.secs;
        self.wait_secs += step.wait_secs;
    }
}
