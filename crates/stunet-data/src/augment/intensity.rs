//! Brightness, contrast, gamma.

use super::power::power;
use super::{PerChannel, balanced, per_channel, uniform};
use crate::reference::GammaGuard;
use ndarray::ArrayViewMut3;
use rand::Rng;

/// Multiplies by a factor.
///
/// # Source
/// `BrightnessMultiplicativeTransform`, `MultiplicativeBrightnessTransform`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Brightness {
    /// How often.
    pub probability: f64,
    /// Range of the factor.
    pub factor: (f64, f64),
    /// Factors below and above 1 equally often.
    pub balanced: bool,
}

/// Stretches values away from their mean, within their range.
///
/// # Source
/// `ContrastAugmentationTransform`, `ContrastTransform`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contrast {
    /// How often.
    pub probability: f64,
    /// Range of the factor; below and above 1 equally often.
    pub factor: (f64, f64),
}

/// Raises the values' place in their range to a power; mean and standard deviation stay.
///
/// # Source
/// `GammaTransform`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gamma {
    /// How often.
    pub probability: f64,
    /// Range of the exponent; below and above 1 equally often.
    pub exponent: (f64, f64),
}

impl Brightness {
    /// Draws whether, and a factor for each channel.
    pub fn sample(&self, num_channels: usize, rng: &mut impl Rng) -> PerChannel<f64> {
        per_channel(self.probability, 1.0, num_channels, rng, |rng| {
            if self.balanced { balanced(self.factor, rng) } else { uniform(self.factor, rng) }
        })
    }
}

impl Contrast {
    /// Draws whether, and a factor for each channel.
    pub fn sample(&self, num_channels: usize, rng: &mut impl Rng) -> PerChannel<f64> {
        per_channel(self.probability, 1.0, num_channels, rng, |rng| balanced(self.factor, rng))
    }
}

impl Gamma {
    /// Draws whether, and an exponent for each channel.
    pub fn sample(&self, num_channels: usize, rng: &mut impl Rng) -> PerChannel<f64> {
        per_channel(self.probability, 1.0, num_channels, rng, |rng| balanced(self.exponent, rng))
    }
}

/// `v * factor`.
pub fn brightness(channel: &mut ArrayViewMut3<'_, f32>, factor: f64) {
    let factor = factor as f32;
    each_row(channel, |v| v * factor);
}

/// `(v - mean) * factor + mean`, held to the former range.
pub fn contrast(channel: &mut ArrayViewMut3<'_, f32>, factor: f64) {
    let Statistics { mean, low, high, .. } = Statistics::of(channel, 0);
    let (mean, factor) = (mean as f32, factor as f32);
    each_row(channel, |v| ((v - mean) * factor + mean).max(low).min(high));
}

/// `((v - low) / range) ^ exponent * range + low`, then the former mean and standard deviation;
/// of the negated image where `inverted`.
///
/// # Source
/// v1: `range = high - low + 1e-7`, deviations over n, 1e-8 added to the divisor. v2: the range and
/// the divisor are held above 1e-7, deviations over n - 1.
pub fn gamma(
    channel: &mut ArrayViewMut3<'_, f32>,
    exponent: f64,
    inverted: bool,
    guard: GammaGuard,
) {
    let ddof = match guard {
        GammaGuard::Added => 0,
        GammaGuard::Bounded => 1,
    };
    let sign = if inverted { -1.0 } else { 1.0 };
    if inverted {
        each_row(channel, |v| -v);
    }
    let before = Statistics::of(channel, ddof);
    let low = before.low;
    let range = before.high - low;
    let (divisor, range) = match guard {
        GammaGuard::Added => (range + 1e-7, range + 1e-7),
        GammaGuard::Bounded => (range.max(1e-7), range),
    };
    let (inverse, exponent) = (1.0 / divisor, exponent as f32);
    each_row(channel, |v| power(((v - low) * inverse).min(1.0), exponent) * range + low);
    let after = Statistics::of(channel, ddof);
    let scale = match guard {
        GammaGuard::Added => before.std / (after.std + 1e-8),
        GammaGuard::Bounded => before.std / after.std.max(1e-7),
    };
    let (scale, mean, shift) = (scale as f32, after.mean as f32, before.mean as f32);
    each_row(channel, |v| sign * ((v - mean) * scale + shift));
}

fn each_row(channel: &mut ArrayViewMut3<'_, f32>, map: impl Fn(f32) -> f32) {
    match channel.as_slice_mut() {
        Some(values) => values.iter_mut().for_each(|v| *v = map(*v)),
        None => channel.mapv_inplace(map),
    }
}

/// Of one channel, in double precision and a fixed order.
struct Statistics {
    mean: f64,
    std: f64,
    low: f32,
    high: f32,
}

impl Statistics {
    fn of(channel: &ArrayViewMut3<'_, f32>, ddof: usize) -> Self {
        let owned;
        let values = match channel.as_slice() {
            Some(values) => values,
            None => {
                owned = channel.iter().copied().collect::<Vec<_>>();
                &owned
            }
        };
        // Small enough to stay in the nearest cache between the two passes.
        const PIECE: usize = 4096;
        let shift = f64::from(values[0]);
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        let (mut sum, mut squares) = (0.0, 0.0);
        for piece in values.chunks(PIECE) {
            let range = range_of(piece);
            (low, high) = (low.min(range.0), high.max(range.1));
            let sums = sums_of(piece, shift);
            (sum, squares) = (sum + sums.0, squares + sums.1);
        }
        let count = values.len() as f64;
        let variance = (squares - sum * sum / count).max(0.0) / (count - ddof as f64);
        Self { mean: shift + sum / count, std: variance.sqrt(), low, high }
    }
}

fn range_of(values: &[f32]) -> (f32, f32) {
    const LANES: usize = 16;
    let (mut low, mut high) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    for piece in values.chunks(LANES) {
        for ((l, h), v) in low.iter_mut().zip(&mut high).zip(piece) {
            *l = if *v < *l { *v } else { *l };
            *h = if *v > *h { *v } else { *h };
        }
    }
    let low = low.into_iter().fold(f32::INFINITY, f32::min);
    (low, high.into_iter().fold(f32::NEG_INFINITY, f32::max))
}

/// Of the distances from `shift`, and of their squares, in eight interleaved sums each.
fn sums_of(values: &[f32], shift: f64) -> (f64, f64) {
    const LANES: usize = 8;
    let (mut sums, mut squares) = ([0.0; LANES], [0.0; LANES]);
    for piece in values.chunks(LANES) {
        for ((sum, square), v) in sums.iter_mut().zip(&mut squares).zip(piece) {
            let d = f64::from(*v) - shift;
            *sum += d;
            *square += d * d;
        }
    }
    (sums.iter().sum(), squares.iter().sum())
}
