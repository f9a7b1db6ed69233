//! Training of STU-Net: loss, optimiser, and what makes them fit in memory.
//!
//! * [`loss`]: dice plus cross-entropy under deep supervision, with a backward of its own,
//! * [`optimiser`]: SGD with momentum and clipping, loss scaling, averages of weights,
//! * [`precision`]: half-precision computation around f32 parameters,
//! * [`recompute`]: activation checkpointing by stage,
//! * [`schedule`]: learning rates.
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
