//! Training of STU-Net: from cases to weights.
//!
//! Training and inference never know each other: they meet on disk, in a model folder.
#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod atomic;
pub mod checkpoint;
mod error;
pub mod events;
mod exact;
mod history;
pub mod log;
pub mod progress_png;
pub mod schedule;
pub mod transfer;

pub use error::{Result, TrainError};
pub use events::{Event, Step};
pub use history::{EpochRecord, Progress, Running};
