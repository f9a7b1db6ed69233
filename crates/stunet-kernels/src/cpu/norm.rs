//! Instance norm, a residual and the activation in one pass over memory, forward and backward.
//!
//! Statistics are summed in double precision, whose error nothing downstream can see.

mod innermost;

pub(crate) use innermost::{Normed, normalise_to_planes};

use super::memory::Output;
use super::simd::{Isa, Simd, Task};
use crate::cpu::evenly::Evenly;
use rayon::prelude::*;

/// Lanes of the sums: whatever the vectors, so that their order is one.
const LANES: usize = 32;

/// Mean and inverse standard deviation of a channel of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Statistics {
    mean: f64,
    inverse_deviation: f64,
}

/// What the norm does to a channel: `(x - mean) * scale + shift`.
#[derive(Clone, Copy)]
struct Affine {
    mean: f32,
    scale: f32,
    shift: f32,
}

impl Affine {
    fn new(statistics: Statistics, weight: f32, bias: f32) -> Self {
        let Statistics { mean, inverse_deviation } = statistics;
        let scale = f64::from(weight) * inverse_deviation;
        let rounded = mean as f32;
        // The mean is subtracted first, so that large means cost no digits; what rounding it lost
        // goes into the shift.
        let shift = f64::from(bias) - (mean - f64::from(rounded)) * scale;
        Self { mean: rounded, scale: scale as f32, shift: shift as f32 }
    }

    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        (x - self.mean) * self.scale + self.shift
    }
}

#[inline(always)]
fn activate(x: f32, slope: f32) -> f32 {
    if x < 0.0 { x * slope } else { x }
}

/// Parameters of the norm and what follows it.
#[derive(Clone, Copy)]
pub(crate) struct Parameters<'a> {
    /// `[C]`.
    pub weight: &'a [f32],
    /// `[C]`.
    pub bias: &'a [f32],
    pub epsilon: f64,
    /// Slope of the activation for negative values: 1 for none.
    pub slope: f32,
}

/// Statistics of every channel of every sample; `volume` voxels each.
pub(crate) fn statistics(isa: Isa, x: &[f32], volume: usize, epsilon: f64) -> Vec<Statistics> {
    let of_channel = |x: &[f32]| {
        let mut sums = [0.0; 2];
        isa.run(Moments { x, sums: &mut sums });
        Statistics::of(sums, volume, epsilon)
    };
    x.par_chunks(volume).evenly().map(of_channel).collect()
}

impl Statistics {
    /// From the sum of a channel's values and that of their squares.
    pub(crate) fn of(sums: [f64; 2], volume: usize, epsilon: f64) -> Self {
        let [mean, square] = sums.map(|sum| sum / volume as f64);
        // Squares of f32 are exact in f64, and so is all but the last digits of their sum.
        let variance = (square - mean * mean).max(0.0);
        Self { mean, inverse_deviation: 1.0 / (variance + epsilon).sqrt() }
    }
}

struct Moments<'a> {
    x: &'a [f32],
    sums: &'a mut [f64; 2],
}

impl Task for Moments<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (mut sums, mut squares) = ([0f64; LANES], [0f64; LANES]);
        // Whole chunks have a length the compiler knows; the last one, shorter, adds in the same way.
        let chunks = self.x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for ((sum, square), x) in sums.iter_mut().zip(&mut squares).zip(chunk) {
                let x = f64::from(*x);
                *sum += x;
                *square += x * x;
            }
        }
        for ((sum, square), x) in sums.iter_mut().zip(&mut squares).zip(rest) {
            let x = f64::from(*x);
            *sum += x;
            *square += x * x;
        }
        *self.sums = [sums.iter().sum(), squares.iter().sum()];
    }
}

/// Normalises `x` where it stands, adds `residual`, activates.
pub(crate) fn normalise_in_place(
    isa: Isa,
    x: &mut [f32],
    residual: Option<&[f32]>,
    volume: usize,
    parameters: Parameters<'_>,
    statistics: &[Statistics],
) {
    x.par_chunks_mut(volume).evenly().enumerate().for_each(|(index, to)| {
        let (affine, residual) = channel(index, residual, volume, parameters, statistics);
        isa.run(InPlace { affine, slope: parameters.slope, residual, to });
    });
}

/// Normalises `x` into a new tensor, adds `residual`, activates.
pub(crate) fn normalise(
    isa: Isa,
    x: &[f32],
    residual: Option<&[f32]>,
    volume: usize,
    parameters: Parameters<'_>,
    statistics: &[Statistics],
) -> Output {
    let mut output = Output::new(x.len());
    let chunks = output.values_mut().par_chunks_mut(volume).evenly().zip(x.par_chunks(volume));
    chunks.enumerate().for_each(|(index, (to, x))| {
        let (affine, residual) = channel(index, residual, volume, parameters, statistics);
        isa.run(Apply { affine, slope: parameters.slope, x, residual, to });
    });
    output
}

fn channel<'a>(
    index: usize,
    residual: Option<&'a [f32]>,
    volume: usize,
    parameters: Parameters<'_>,
    statistics: &[Statistics],
) -> (Affine, Option<&'a [f32]>) {
    let c = index % parameters.weight.len();
    let affine = Affine::new(statistics[index], parameters.weight[c], parameters.bias[c]);
    (affine, residual.map(|values| &values[index * volume..][..volume]))
}

struct InPlace<'a> {
    affine: Affine,
    slope: f32,
    residual: Option<&'a [f32]>,
    to: &'a mut [f32],
}

impl Task for InPlace<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { affine, slope, residual, to } = self;
        let Some(residual) = residual else {
            for x in to {
                *x = activate(affine.apply(*x), slope);
            }
            return;
        };
        for (x, r) in to.iter_mut().zip(residual) {
            *x = activate(affine.apply(*x) + r, slope);
        }
    }
}

struct Apply<'a> {
    affine: Affine,
    slope: f32,
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    to: &'a mut [f32],
}

impl Task for Apply<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { affine, slope, x, residual, to } = self;
        let Some(residual) = residual else {
            for (to, x) in to.iter_mut().zip(x) {
                *to = activate(affine.apply(*x), slope);
            }
            return;
        };
        for ((to, x), r) in to.iter_mut().zip(x).zip(residual) {
            *to = activate(affine.apply(*x) + r, slope);
        }
    }
}

/// Gradients of the norm's inputs.
pub(crate) struct Gradients {
    /// `[C]`.
    pub weight: Vec<f32>,
    /// `[C]`.
    pub bias: Vec<f32>,
    /// Of `x`.
    pub x: Output,
}

/// Gradients with respect to `x`, weight and bias.
///
/// `gradient` becomes the gradient before the activation: that of the residual. `y` is the forward
/// result, which tells the sign before the activation; without a residual it is computed again.
pub(crate) fn backward(
    isa: Isa,
    x: &[f32],
    y: Option<&[f32]>,
    gradient: &mut [f32],
    volume: usize,
    parameters: Parameters<'_>,
    statistics: &[Statistics],
) -> Gradients {
    let channels = parameters.weight.len();
    let mut output = Output::new(x.len());
    let chunks = output.values_mut().par_chunks_mut(volume).evenly().zip(x.par_chunks(volume));
    let sums: Vec<[f64; 2]> = chunks
        .zip(gradient.par_chunks_mut(volume))
        .enumerate()
        .map(|(index, ((to, x), gradient))| {
            let (affine, y) = channel(index, y, volume, parameters, statistics);
            let weight = parameters.weight[index % channels];
            let statistics = statistics[index];
            let mut sums = [0.0; 2];
            let slope = parameters.slope;
            let sum = &mut sums;
            isa.run(Backward { affine, slope, weight, statistics, x, y, gradient, to, sum });
            sums
        })
        .collect();
    let total = |c: usize, which: usize| -> f32 {
        sums.iter().skip(c).step_by(channels).map(|sums| sums[which]).sum::<f64>() as f32
    };
    Gradients {
        weight: (0..channels).map(|c| total(c, 1)).collect(),
        bias: (0..channels).map(|c| total(c, 0)).collect(),
        x: output,
    }
}

/// One channel of one sample.
struct Backward<'a> {
    affine: Affine,
    slope: f32,
    weight: f32,
    statistics: Statistics,
    x: &'a [f32],
    y: Option<&'a [f32]>,
    gradient: &'a mut [f32],
    to: &'a mut [f32],
    /// Sums of the gradient, and of the gradient times the normalised input.
    sum: &'a mut [f64; 2],
}

impl Task for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { affine, slope, weight, statistics, x, y, gradient, to, sum } = self;
        match y {
            Some(y) => {
                for (g, y) in gradient.iter_mut().zip(y) {
                    *g *= if *y < 0.0 { slope } else { 1.0 };
                }
            }
            None => {
                for (g, x) in gradient.iter_mut().zip(x) {
                    *g *= if affine.apply(*x) < 0.0 { slope } else { 1.0 };
                }
            }
        }
        let mean = affine.mean;
        let deviation = statistics.inverse_deviation as f32;
        let lost = ((statistics.mean - f64::from(mean)) * statistics.inverse_deviation) as f32;
        let normalised = |x: f32| (x - mean) * deviation - lost;
        let (mut sums, mut products) = ([0f64; LANES], [0f64; LANES]);
        let whole = x.len() / LANES * LANES;
        let pairs = x.chunks_exact(LANES).zip(gradient.chunks_exact(LANES));
        for (x, g) in pairs {
            let lanes = sums.iter_mut().zip(&mut products);
            for ((sum, product), (x, g)) in lanes.zip(x.iter().zip(g)) {
                *sum += f64::from(*g);
                *product += f64::from(*g) * f64::from(normalised(*x));
            }
        }
        let lanes = sums.iter_mut().zip(&mut products);
        for ((sum, product), (x, g)) in lanes.zip(x[whole..].iter().zip(&gradient[whole..])) {
            *sum += f64::from(*g);
            *product += f64::from(*g) * f64::from(normalised(*x));
        }
        *sum = [sums.iter().sum(), products.iter().sum()];
        let [mean_gradient, slope_gradient] = sum.map(|sum| (sum / x.len() as f64) as f32);
        let scale = (f64::from(weight) * statistics.inverse_deviation) as f32;
        for ((to, x), g) in to.iter_mut().zip(x).zip(gradient.iter()) {
            *to = scale * (g - mean_gradient - normalised(*x) * slope_gradient);
        }
    }
}
