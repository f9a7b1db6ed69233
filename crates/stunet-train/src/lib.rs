//! Training of STU-Net. So far the learning-rate schedule; loss, batches, the loop and checkpoints
//! follow.
//!
//! Training and inference never know each other: they meet on disk, in a model folder.
#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "distributed")]
pub mod distributed;
pub mod loss;
pub mod optimiser;
pub mod precision;
pub mod recompute;
pub mod schedule;
