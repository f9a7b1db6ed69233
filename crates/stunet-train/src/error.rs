//! The one error type of the crate.

use std::path::{Path, PathBuf};
use stunet_data::error::DataError;
use stunet_model::{DeviceFailure, ModelError};

/// Result of training, of its files and of its settings.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

/// What can go wrong in training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A network or a checkpoint of one.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A case, or a batch of them.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A device that did not compute. Checkpoints that were written before are whole.
    #[error(transparent)]
    Device(#[from] DeviceFailure),
    /// A loss that cannot be computed as configured.
    #[error(transparent)]
    Loss(#[from] LossError),
    /// A setting that cannot be used.
    #[error("{what}: expected {expected}, found {found}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Pre-trained weights that do not fit the network.
    #[error("pre-trained weights do not fit: {name}: expected {expected}, found {found}: {}", path.display())]
    Transfer {
        /// The parameter.
        name: String,
        /// The network's shape.
        expected: String,
        /// What the file has there.
        found: String,
        /// The file.
        path: PathBuf,
    },
    /// Heads that are to be kept, for other labels.
    #[error(
        "heads can be kept for the same labels only: expected {expected}, found {found}; leave them \
         out (without --keep-heads or TransferOptions::keep_heads), or train for those labels: {}",
        path.display()
    )]
    Heads {
        /// The labels of the network to be trained, in the order of its outputs.
        expected: String,
        /// Those of the file.
        found: String,
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint of a training run that is none, is broken, or belongs to another run.
    #[error("expected {expected}, found {found}: {}", path.display())]
    Checkpoint {
        /// What the format asks for.
        expected: String,
        /// What the file holds.
        found: String,
        /// The file.
        path: PathBuf,
    },
    /// A run that goes on with another part than it began with.
    #[error(
        "this run was begun with another {part}: expected {expected}, found {found}; go on with the \
         same, or call TrainingState::forget_identity first to change it on purpose"
    )]
    OtherRun {
        /// Which part: the loss, the optimiser, the learning rate schedule, the augmentation.
        part: &'static str,
        /// Description of the run's.
        expected: String,
        /// Description of the one that was given.
        found: String,
    },
    /// A loss that does not depend on the logits, as far as autodiff knows.
    #[error(
        "the loss ({objective}) carries no gradient: expected one that is computed from the logits by \
         Burn's tensor operations, without `inner`, `detach` or data copied to the host"
    )]
    NoGradient {
        /// Its description.
        objective: String,
    },
    /// A number that is none any more: the weights before that step are the last good ones.
    #[error(
        "the {what} is {value} at epoch {epoch}, iteration {iteration} (counted from 0), \
         cases {}; last good checkpoint: {}", cases.join(", "), or_none(last_good)
    )]
    NotFinite {
        /// Loss, or norm of the gradients.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Epoch, from 0.
        epoch: usize,
        /// Iteration within the epoch, from 0.
        iteration: usize,
        /// The cases the batch was cut from.
        cases: Vec<String>,
        /// The newest checkpoint, if one was written.
        last_good: Option<PathBuf>,
    },
    /// The loader ended before the run did.
    #[error("the loader ended at batch {0}")]
    NoMoreBatches(u64),
    /// Two runs at once in one folder.
    #[error(
        "another program is training here; wait for it, or name another folder: {}", .0.display()
    )]
    InUse(PathBuf),
    /// A file that cannot be opened, read or written.
    #[error("cannot {action}: {problem}: {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        problem: std::io::Error,
        /// The file.
        path: PathBuf,
    },
}

/// A loss that cannot be computed as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// A setting out of range.
    #[error("loss: {what}: expected {expected}, found {found}")]
    Config {
        /// The setting.
        what: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        found: String,
    },
}

fn or_none(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

impl TrainError {
    pub(crate) fn setting(
        what: &'static str,
        expected: impl Into<String>,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::Setting { what, expected: expected.into(), found: found.to_string() }
    }

    pub(crate) fn checkpoint(
        path: &Path,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Checkpoint { expected: expected.into(), found: found.into(), path: path.to_owned() }
    }

    pub(crate) fn io(action: &'static str, path: &Path, problem: std::io::Error) -> Self {
        Self::Io { action, problem, path: path.to_owned() }
    }
}
