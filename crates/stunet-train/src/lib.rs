//! Training of STU-Net: from cases to weights.
//!
//! Training and inference never know each other: they meet on disk, in a model folder.
#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod atomic;
mod batch;
pub mod checkpoint;
mod error;
pub mod events;
pub mod exact;
pub mod export;
mod fit;
mod history;
pub mod log;
pub mod loss;
pub mod optimiser;
pub mod precision;
pub mod progress_png;
pub mod pseudo_dice;
pub mod schedule;
pub mod transfer;

pub use batch::DeviceBatch;
pub use error::{Result, TrainError};
pub use events::{Event, Step};
pub use fit::{FitCases, FitConfig, FoldFolder, StateOptions, TrainingState, fit};
pub use history::{EpochRecord, Progress, Running};
