//! Simulated low resolution.

use super::pyramid::nearest;
use super::{PerChannel, per_channel, uniform};
use crate::preprocess::resample::{Order, resize};
use ndarray::{ArrayViewMut3, Axis};
use rand::Rng;

/// Takes fewer voxels, then interpolates the former number.
///
/// # Source
/// `SimulateLowResolutionTransform`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowResolution {
    /// How often.
    pub probability: f64,
    /// How often each channel then.
    pub per_channel: f64,
    /// Range of the factor, one for all axes.
    pub scale: (f64, f64),
}

impl LowResolution {
    /// Draws whether, and a factor for each channel.
    pub fn sample(&self, num_channels: usize, rng: &mut impl Rng) -> PerChannel<f64> {
        per_channel(self.probability, self.per_channel, num_channels, rng, |rng| {
            uniform(self.scale, rng)
        })
    }
}

/// Takes the nearest of `scale` as many voxels per axis (rounded, halves to even), then interpolates by
/// a spline of `order`: cubically (v1) or linearly (v2). Slice by slice, the first axis keeps its voxels.
pub fn low_resolution(
    channel: &mut ArrayViewMut3<'_, f32>,
    scale: f64,
    slice_by_slice: bool,
    order: Order,
) {
    let shape: [usize; 3] = std::array::from_fn(|axis| channel.shape()[axis]);
    let fewer: [usize; 3] = std::array::from_fn(|axis| {
        let n = shape[axis] as f64;
        let kept = if slice_by_slice && axis == 0 { n } else { (n * scale).round_ties_even() };
        (kept as usize).max(1)
    });
    let taps: [Vec<usize>; 3] = std::array::from_fn(|axis| nearest(shape[axis], fewer[axis]));
    let coarse = channel.select(Axis(0), &taps[0]).select(Axis(1), &taps[1]);
    let coarse = coarse.select(Axis(2), &taps[2]);
    channel.assign(&resize(coarse.view(), shape, order));
}
