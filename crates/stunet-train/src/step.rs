//! One update of the weights, and where the time of an epoch's updates goes.

/// One update of the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingStep {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Iteration within the epoch, from 0.
    pub iteration: usize,
    /// Loss of the batch; the mean over the batches of an accumulated step.
    pub loss: f64,
    /// Global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// The weights were left alone: a scaled gradient overflowed.
    pub skipped: bool,
    /// Seconds the step waited for its batch.
    pub wait_secs: f64,
    /// Seconds of the whole step.
    pub secs: f64,
}

/// Seconds of the updates of an epoch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// Altogether.
    pub train_secs: f64,
    /// Waiting for batches.
    pub wait_secs: f64,
}

impl Clock {
    pub(crate) fn add(&mut self, step: &TrainingStep) {
        self.train_secs += step.secs;
        self.wait_secs += step.wait_secs;
    }
}
