//! Gaussian blur, one axis after the other.

use super::{PerChannel, per_channel, uniform};
use crate::reference::BlurKernel;
use ndarray::{ArrayViewMut2, ArrayViewMut3, Axis};
use rand::Rng;

/// Blurs with a Gaussian.
///
/// # Source
/// `GaussianBlurTransform`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blur {
    /// How often.
    pub probability: f64,
    /// How often each channel then.
    pub per_channel: f64,
    /// Range of the standard deviation in voxels.
    pub sigma: (f64, f64),
    /// One standard deviation for all axes, or one for each.
    pub one_sigma: bool,
}

impl Blur {
    /// Draws whether, and the standard deviations for each channel.
    pub fn sample(&self, num_channels: usize, rng: &mut impl Rng) -> PerChannel<[f64; 3]> {
        per_channel(self.probability, self.per_channel, num_channels, rng, |rng| {
            if self.one_sigma {
                [uniform(self.sigma, rng); 3]
            } else {
                [(); 3].map(|()| uniform(self.sigma, rng))
            }
        })
    }
}

/// Blurs; `sigma` in voxels, `[z, y, x]`.
///
/// # Source
/// v1: SciPy's `gaussian_filter`, cut off at 4 sigma, edges repeated (`c b a | a b c`). v2:
/// batchgeneratorsv2's kernel of `6 sigma + 0.5` voxels, rounded to an odd number, edges mirrored
/// (`c b | a b c`).
pub fn blur(channel: &mut ArrayViewMut3<'_, f32>, sigma: [f64; 3], kernel: BlurKernel) {
    let kernels = sigma.map(|sigma| Kernel::new(sigma, kernel));
    let mut scratch = Vec::new();
    for slab in channel.axis_iter_mut(Axis(1)) {
        kernels[0].down(slab, &mut scratch);
    }
    for mut plane in channel.axis_iter_mut(Axis(0)) {
        kernels[1].down(plane.view_mut(), &mut scratch);
        kernels[2].along(plane, &mut scratch);
    }
}

struct Kernel {
    /// From the middle outwards.
    weights: Vec<f32>,
    /// True where the edge voxel is repeated.
    repeat_edge: bool,
}

impl Kernel {
    fn new(sigma: f64, kernel: BlurKernel) -> Self {
        let radius = match kernel {
            BlurKernel::SciPy => (4.0 * sigma + 0.5) as usize,
            BlurKernel::Odd => (odd(6.0 * sigma + 0.5) - 1) / 2,
        };
        let bell: Vec<f64> =
            (0..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
        let total = bell[0] + 2.0 * bell[1..].iter().sum::<f64>();
        Self {
            weights: bell.iter().map(|w| (w / total) as f32).collect(),
            repeat_edge: kernel == BlurKernel::SciPy,
        }
    }

    fn radius(&self) -> usize {
        self.weights.len() - 1
    }

    /// Voxel that stands for number `i` of `n`.
    fn fold(&self, i: isize, n: usize) -> usize {
        let n = n as isize;
        let period = if self.repeat_edge { 2 * n } else { (2 * (n - 1)).max(1) };
        let i = i.rem_euclid(period);
        let back = if self.repeat_edge { period - 1 - i } else { period - i };
        i.min(back).min(n - 1) as usize
    }

    /// Down the columns of a plane, all columns at a time.
    fn down(&self, mut plane: ArrayViewMut2<'_, f32>, scratch: &mut Vec<f32>) {
        let (n, width) = plane.dim();
        scratch.clear();
        scratch.extend(plane.iter());
        let row = |i: isize| {
            let start = self.fold(i, n) * width;
            &scratch[start..start + width]
        };
        for (i, mut target) in plane.rows_mut().into_iter().enumerate() {
            let i = i as isize;
            let target = target.as_slice_mut().expect("rows of a patch are contiguous");
            let middle = self.weights[0];
            target.iter_mut().zip(row(i)).for_each(|(t, v)| *t = middle * v);
            for (k, w) in self.weights.iter().enumerate().skip(1) {
                let k = k as isize;
                let pair = row(i - k).iter().zip(row(i + k));
                target.iter_mut().zip(pair).for_each(|(t, (a, b))| *t += w * (a + b));
            }
        }
    }

    /// Along the rows of a plane.
    fn along(&self, mut plane: ArrayViewMut2<'_, f32>, scratch: &mut Vec<f32>) {
        let n = plane.ncols();
        let radius = self.radius();
        for mut row in plane.rows_mut() {
            let row = row.as_slice_mut().expect("rows of a patch are contiguous");
            scratch.clear();
            scratch.extend((0..n + 2 * radius).map(|i| {
                let inside = i.wrapping_sub(radius);
                if inside < n {
                    row[inside]
                } else {
                    row[self.fold(i as isize - radius as isize, n)]
                }
            }));
            let middle = self.weights[0];
            row.iter_mut().zip(&scratch[radius..]).for_each(|(t, v)| *t = middle * v);
            for (k, w) in self.weights.iter().enumerate().skip(1) {
                let pair = scratch[radius - k..].iter().zip(&scratch[radius + k..]);
                row.iter_mut().zip(pair).for_each(|(t, (a, b))| *t += w * (a + b));
            }
        }
    }
}

/// The nearest odd number, as batchgeneratorsv2 finds it.
fn odd(n: f64) -> usize {
    let rounded = n.round_ties_even();
    let whole = rounded as usize;
    match (whole % 2 == 1, n >= rounded) {
        (true, _) => whole,
        (false, true) => whole + 1,
        (false, false) => whole.saturating_sub(1).max(1),
    }
}
