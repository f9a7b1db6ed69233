//! The one error type of the crate.

use std::path::PathBuf;
use stunet_data::DataError;
use stunet_data::error::size_text;
use stunet_model::{DeviceFailure, ModelError};

/// What can go wrong between a model's path and a labelmap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The callback asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Images, plans, labels, preprocessing.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Weights and network configurations.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A device that did not compute. Unless it is lost, the next case can be predicted.
    #[error(transparent)]
    Device(#[from] DeviceFailure),
    /// A path that holds none of the three kinds of model.
    #[error("model: expected {expected}, found {found}: {}", path.display())]
    NotAModel {
        /// What would have been accepted there.
        expected: &'static str,
        /// What is there.
        found: String,
        /// Where.
        path: PathBuf,
    },
    /// Two parts of a model that contradict each other.
    #[error("model: {what}: expected {expected}, found {found}: {}", path.display())]
    Mismatch {
        /// What is compared.
        what: &'static str,
        /// The number one part implies, and which part.
        expected: String,
        /// The number the other part has.
        found: String,
        /// The model.
        path: PathBuf,
    },
    /// A file that became another one while it was predicted.
    #[error(
        "input: expected the file as it was when the case was begun, found it changed meanwhile; \
         predict the case again: {}", path.display()
    )]
    InputChanged {
        /// The file.
        path: PathBuf,
    },
    /// A results folder with other plans than its checkpoint was trained with.
    #[error(
        "model: expected the plans of the checkpoint, found others: {told}; put the plans.json of the \
         training back, or prepare and train anew: {}", path.display()
    )]
    OtherPlans {
        /// The entries, with both values.
        told: String,
        /// The checkpoint.
        path: PathBuf,
    },
    /// An image that was not read by the model's reader.
    #[error(
        "image: expected one read by {expected}, which turns it to RAS (`plans().reader.read_scan`), \
         found one in its file's order"
    )]
    Reader {
        /// nnU-Net's name of the reader.
        expected: &'static str,
    },
    /// An image with another number of channels than the model takes.
    #[error("image: expected {expected} channels (as the model's plans), found {found}")]
    Channels {
        /// Channels of the plans.
        expected: usize,
        /// Channels of the image.
        found: usize,
    },
    /// A step between windows that is no fraction of a window.
    #[error("step size: expected more than 0 and at most 1, found {found}")]
    StepSize {
        /// What was given.
        found: f64,
    },
    /// A window that the network cannot take.
    #[error("window: expected {expected}, found {found:?} (z, y, x)")]
    Window {
        /// Which windows the network takes.
        expected: String,
        /// The size `[z, y, x]` in voxels.
        found: [usize; 3],
    },
    /// A network of another kind than is needed.
    #[error("{action}: expected a model with an STU-Net, found one with a {found}; {instead}")]
    Architecture {
        /// What was asked for.
        action: &'static str,
        /// The kind of network that the model has.
        found: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// A model that cannot predict in eight bits.
    #[error(
        "eight bits: expected a model with an STU-Net on the processor, found one with a {found}; predict in f32"
    )]
    EightBits {
        /// The kind of network that the model has.
        found: String,
    },
    /// A volume or window without voxels.
    #[error(
        "window: expected at least one voxel per axis, found volume {shape:?}, window {window:?}"
    )]
    EmptyVolume {
        /// Shape of the volume `[z, y, x]`.
        shape: [usize; 3],
        /// Shape of the window `[z, y, x]`.
        window: [usize; 3],
    },
    /// Half-precision sums that left the range of f16.
    #[error(
        "the sums in half precision overflowed in plane {plane} (logits too large for the \
         reference's f16 accumulators): predict with f32 accumulation (`--accumulation f32`, or \
         \"accumulation\": \"f32\" in plans.json)"
    )]
    HalfPrecisionOverflow {
        /// Network-resolution plane.
        plane: usize,
    },
    /// A prediction with NaN or infinite values.
    #[error(
        "the network's output is not finite in plane {plane}: the weights are damaged or not of this model"
    )]
    NotFinite {
        /// Network-resolution plane.
        plane: usize,
    },
    /// A prediction that needs more memory than it may have.
    #[error(
        "memory: this case needs at least {}, allowed are {}",
        size_text(*needed), size_text(*allowed)
    )]
    Memory {
        /// Bytes of the smallest plan.
        needed: u64,
        /// Bytes that are allowed.
        allowed: u64,
    },
    /// An option the chosen combination does not have.
    #[error("{option}: {reason}")]
    Unsupported {
        /// The option.
        option: &'static str,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// Labelmaps and references that do not belong together.
    #[error("{what}: expected {expected}, found {found}: {}", path.display())]
    Evaluation {
        /// Which side.
        what: &'static str,
        /// What was expected there.
        expected: String,
        /// What is there.
        found: String,
        /// The folder.
        path: PathBuf,
    },
    /// A file that could not be read or written.
    #[error("{action}: {source}: {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
        /// Where.
        path: PathBuf,
    },
}

impl InferError {
    pub(crate) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, source, path }
    }
}
