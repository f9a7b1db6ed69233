//! Sliding-window prediction of STU-Net, and export in bounded memory.
//!
//! A tour, in reading order:
//!
//! * [`Model`] opens any of the three kinds of model: nnU-Net v1, nnU-Net v2, or a model folder,
//! * [`predict()`] turns an image into a labelmap: preprocess, slide, restore,
//! * [`windows`], [`importance`], [`mirror`]: pure functions that say where windows lie, how much
//!   their voxels count, and which flips are averaged, for each reference implementation,
//! * [`network`] says what a prediction asks of a network, so that any network can be predicted with,
//! * [`sliding_window`] runs the network, [`slab`] holds the sums of windows that still overlap,
//!   [`sink`] says who takes them as they become final,
//! * [`memory`] decides beforehand what is held at a time, and divides what is too large,
//! * [`export`] restores finished planes to the image's resolution and decides labels;
//!   [`probabilities`] stores what was decided on, and [`record`] what made it,
//! * [`budget`] chooses settings that keep to a time,
//! * [`region`] finds the part of the body in which a second model predicts,
//! * [`mod@evaluate`] holds labelmaps against their references and writes nnU-Net's `summary.json`,
//! * [`ensemble`] averages stored probabilities, [`postprocess`] removes all but the largest parts where
//!   that helps.
//!
//! Architecture invariant: memory does not grow with classes × volume, and results do not depend on
//! the number of threads. Nothing here prints, and nothing trains.
#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

mod accumulators;
mod architecture;
mod band;
mod blend;
pub mod budget;
pub mod confidence;
mod cutter;
mod deciding;
pub mod ensemble;
mod error;
pub mod evaluate;
pub mod export;
mod feature_sums;
pub mod importance;
mod kept;
mod kept_rows;
pub mod memory;
pub mod mirror;
pub mod model;
pub mod network;
mod platform;
pub mod postprocess;
pub mod predict;
pub mod probabilities;
pub mod record;
pub mod region;
pub mod sink;
pub mod slab;
pub mod sliding_window;
mod sums;
pub mod tile;
pub mod volume;
pub mod windows;

pub use architecture::Architecture;
pub use confidence::ConfidenceMeasure;
pub use error::InferError;
pub use model::{Folds, Model, ModelKind, NetworkPrecision, OpenOptions};
pub use network::{Featured, Head, Network, Outputs, TensorNetwork, WindowCost};
pub use predict::{
    Mode, PredictEvent, PredictOptions, PredictReport, Prediction, Prepared, Stage, Timings,
    predict, predict_prepared, prepare, prepare_scan,
};
pub use probabilities::ProbabilityFormat;
pub use record::{Record, Standing};
