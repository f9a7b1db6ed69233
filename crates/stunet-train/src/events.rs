//! Events of a training run, for callers that print, plot or stop it.

use crate::history::EpochRecord;
pub use crate::step::TrainingStep;
use std::path::Path;

/// A moment of a training run.
///
/// Events arrive in order and on the thread that trains. Answering one with
/// [`ControlFlow::Break`](std::ops::ControlFlow::Break) ends the run after the step at hand, or
/// before the batch that is waited for, or in the middle of a validation, which is then done anew: a
/// checkpoint is written first, and continuing from it gives the same weights.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FitEvent<'a> {
    /// The run begins, or goes on where its checkpoint left it.
    Started {
        /// The epoch it begins with, from 0.
        epoch: usize,
        /// Iterations of that epoch that are done already.
        iteration: usize,
        /// Epochs of the whole run.
        num_epochs: usize,
        /// Iterations of one epoch.
        num_iterations: usize,
    },
    /// A batch is not ready yet; told ten times a second.
    Waiting {
        /// Seconds waited for it so far.
        secs: f64,
    },
    /// One update of the weights is done.
    Step(TrainingStep),
    /// One batch of the epoch's validation is done.
    Validated {
        /// Batches done.
        done: usize,
        /// Batches of the epoch.
        total: usize,
    },
    /// An epoch is complete.
    Epoch(&'a EpochRecord),
    /// A checkpoint is on the disk.
    Saved {
        /// The file.
        path: &'a Path,
    },
}
