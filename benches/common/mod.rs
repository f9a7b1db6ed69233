//! What the benchmarks of the processor share.
#![allow(dead_code)] // Each benchmark uses a part.

pub mod bandwidth;
pub mod fma_peak;
pub mod usage;

use std::path::PathBuf;

/// The middle value; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What this program was called as: in the bundle of `scripts/gpu-check` one file has several names.
pub fn program() -> PathBuf {
    std::env::args_os().next().map(PathBuf::from).unwrap_or_default()
}
