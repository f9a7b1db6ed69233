//! What the benchmarks of the processor share.
#![allow(dead_code)] // Each benchmark uses a part.

pub mod bandwidth;
pub mod fma_peak;
pub mod usage;

/// The middle value; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
