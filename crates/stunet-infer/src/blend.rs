//! One forward pass added to the running sum: softmax, mirroring undone, importance.
//!
//! The logits of a published window are 105 volumes of 128³: 880 MB that come here some planes at a
//! time and are read once, in blocks small enough for the cache, by all threads.

use crate::slab::{PlaneSums, Slab};
use rayon::prelude::*;
use std::ops::Range;
use stunet_data::simd::{Work, wide};

/// Voxels treated at once; times the classes this fits in a core's cache.
const BLOCK_VOXELS: usize = 256;
/// The same where nothing is copied and only the sums should stay in the cache.
const DIRECT_VOXELS: usize = 1024;

/// How the passes over one window become one prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Averaging {
    /// v1: the logits of each pass are turned into probabilities, weighted by one over their number,
    /// and summed.
    Probabilities,
    /// v2, and all that are no logits: values are summed, then divided by their number.
    AsTheyAre,
}

/// Some planes of one forward pass over a window.
pub(crate) struct Pass<'a> {
    /// `[C, planes, y, x]`.
    pub logits: &'a [f32],
    /// The planes, in the frame of the network's input, mirrored as it was.
    pub planes: Range<usize>,
    /// Axes along which the window was mirrored.
    pub flips: [bool; 3],
    /// Index among the passes over this window.
    pub index: usize,
    /// Passes over this window.
    pub count: usize,
}

/// Adds windows to a slab.
pub(crate) struct Blender {
    pub averaging: Averaging,
    pub num_classes: usize,
    pub window: [usize; 3],
    /// `[z, y, x]`; none where every voxel counts alike.
    pub importance: Option<Vec<f32>>,
    /// Sum over the passes, `[z, C, y, x]`; empty without mirroring.
    sum: Vec<f32>,
}

impl Blender {
    pub fn new(
        averaging: Averaging,
        num_classes: usize,
        window: [usize; 3],
        importance: Option<Vec<f32>>,
        num_passes: usize,
    ) -> Self {
        let voxels =
            if num_passes > 1 { num_classes * window.iter().product::<usize>() } else { 0 };
        Self { averaging, num_classes, window, importance, sum: vec![0.0; voxels] }
    }

    /// Takes planes of one pass; those of the last are added to the slab.
    pub fn add(&mut self, pass: &Pass<'_>, slab: &mut Slab, fold: usize, start: [usize; 3]) {
        let mut sum = std::mem::take(&mut self.sum);
        let length = self.num_classes * self.window[1] * self.window[2];
        let mut sums = sum.chunks_exact_mut(length);
        let planes = slab.planes(start, self.window).into_iter().enumerate();
        let depth = self.window[0];
        let given = match pass.flips[0] {
            true => depth - pass.planes.end..depth - pass.planes.start,
            false => pass.planes.clone(),
        };
        // Planes that lie in the padding or beside the tile go nowhere.
        let work: Vec<_> = planes
            .map(|(z, target)| (z, sums.next(), target))
            .filter(|(z, ..)| given.contains(z))
            .filter_map(|(z, sum, target)| Some((z, sum, target?)))
            .collect();
        work.into_par_iter().for_each_init(Scratch::default, |scratch, (z, sum, mut target)| {
            wide(AddPlane { blender: self, pass, fold, z, sum, target: &mut target, scratch });
        });
        self.sum = sum;
    }

    /// Adds the weights of a window, once all its passes have been added.
    pub fn add_weights(&self, slab: &mut Slab, start: [usize; 3]) {
        let [_, height, width] = self.window;
        let planes = slab.planes(start, self.window).into_par_iter().enumerate();
        planes.filter_map(|(z, plane)| Some((z, plane?))).for_each(|(z, mut plane)| {
            for y in plane.rows() {
                let from = (z * height + y) * width;
                plane.add_weights(y, self.importance.as_ref().map(|m| &m[from..from + width]));
            }
        });
    }

    /// One plane of the window, block by block of whole rows.
    #[inline(always)]
    fn plane(
        &self,
        pass: &Pass<'_>,
        fold: usize,
        z: usize,
        mut sum: Option<&mut [f32]>,
        target: &mut PlaneSums<'_>,
        scratch: &mut Scratch,
    ) {
        let [_, height, width] = self.window;
        if self.averaging == Averaging::AsTheyAre && pass.count == 1 {
            return self.plane_as_it_is(pass, fold, z, target);
        }
        let num_rows = (BLOCK_VOXELS / width).clamp(1, height);
        let within = target.rows();
        for y in within.clone().step_by(num_rows) {
            let rows = y..(y + num_rows).min(within.end);
            let voxels = rows.len() * width;
            self.gather(pass, z, rows.clone(), &mut scratch.block);
            if self.averaging == Averaging::Probabilities {
                softmax(&mut scratch.block, voxels);
            }
            if let Some(sum) = sum.as_deref_mut() {
                self.add_to_sum(pass, sum, y * width, voxels, &mut scratch.block);
            }
            if pass.index + 1 < pass.count {
                continue;
            }
            for (class, block) in scratch.block.chunks_exact(voxels).enumerate() {
                for (y, values) in rows.clone().zip(block.chunks_exact(width)) {
                    let from = (z * height + y) * width;
                    let importance = self.importance.as_ref().map(|m| &m[from..from + width]);
                    target.add_row((fold, class, y), values, importance);
                }
            }
        }
    }

    /// One plane of logits that are not averaged over passes: they are added where they lie.
    #[inline(always)]
    fn plane_as_it_is(&self, pass: &Pass<'_>, fold: usize, z: usize, target: &mut PlaneSums<'_>) {
        debug_assert_eq!(pass.flips, [false; 3], "the only pass is not mirrored");
        let [_, height, width] = self.window;
        let num_rows = (DIRECT_VOXELS / width).clamp(1, height);
        let within = target.rows();
        for first in within.clone().step_by(num_rows) {
            for class in 0..self.num_classes {
                let plane = class * pass.planes.len() + z - pass.planes.start;
                let plane = &pass.logits[plane * height * width..][..height * width];
                for y in first..(first + num_rows).min(within.end) {
                    let importance =
                        self.importance.as_ref().map(|m| &m[(z * height + y) * width..][..width]);
                    target.add_row((fold, class, y), &plane[y * width..][..width], importance);
                }
            }
        }
    }

    /// Copies rows of all classes into `block` `[C, rows * x]`, mirroring undone.
    #[inline(always)]
    fn gather(&self, pass: &Pass<'_>, z: usize, rows: Range<usize>, block: &mut Vec<f32>) {
        let [depth, height, width] = self.window;
        let [flip_z, flip_y, flip_x] = pass.flips;
        let z = if flip_z { depth - 1 - z } else { z } - pass.planes.start;
        let depth = pass.planes.len();
        block.clear();
        for class in 0..self.num_classes {
            let plane = &pass.logits[(class * depth + z) * height * width..][..height * width];
            if !flip_y && !flip_x {
                block.extend_from_slice(&plane[rows.start * width..rows.end * width]);
                continue;
            }
            for y in rows.clone() {
                let y = if flip_y { height - 1 - y } else { y };
                let row = &plane[y * width..(y + 1) * width];
                if flip_x {
                    block.extend(row.iter().rev());
                } else {
                    block.extend_from_slice(row);
                }
            }
        }
    }

    /// Adds `block` to the sum over passes; after the last pass `block` holds their average.
    #[inline(always)]
    fn add_to_sum(
        &self,
        pass: &Pass<'_>,
        sum: &mut [f32],
        at: usize,
        voxels: usize,
        block: &mut [f32],
    ) {
        let plane = self.window[1] * self.window[2];
        for (sum, block) in sum.chunks_exact_mut(plane).zip(block.chunks_exact_mut(voxels)) {
            average(self.averaging, [pass.index, pass.count], &mut sum[at..at + voxels], block);
        }
    }
}

/// Adds the values of pass `index` of `count` to their sum; after the last pass `block` holds the average.
#[inline(always)]
pub(crate) fn average(
    averaging: Averaging,
    [index, count]: [usize; 2],
    sum: &mut [f32],
    block: &mut [f32],
) {
    // v1 multiplies by 1/n before summing, v2 divides the sum by n: not the same in f32.
    let (factor, divisor) = match averaging {
        Averaging::Probabilities => (1.0 / count as f32, 1.0),
        Averaging::AsTheyAre => (1.0, count as f32),
    };
    match (index == 0, index + 1 == count) {
        (true, _) => sum.iter_mut().zip(block).for_each(|(s, b)| *s = *b * factor),
        (_, false) => sum.iter_mut().zip(block).for_each(|(s, b)| *s += *b * factor),
        (_, true) => {
            let terms = sum.iter().zip(block);
            terms.for_each(|(s, b)| *b = (s + *b * factor) / divisor);
        }
    }
}

/// See [`Blender::plane`].
struct AddPlane<'a, 'p> {
    blender: &'a Blender,
    pass: &'a Pass<'a>,
    fold: usize,
    z: usize,
    sum: Option<&'a mut [f32]>,
    target: &'a mut PlaneSums<'p>,
    scratch: &'a mut Scratch,
}

impl Work for AddPlane<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { blender, pass, fold, z, sum, target, scratch } = self;
        blender.plane(pass, fold, z, sum, target, scratch);
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    block: Vec<f32>,
}

/// Softmax over the classes of `block` `[C, voxels]`, in place.
///
/// A voxel with a logit that is not finite becomes NaN in every class, so that it is noticed when
/// its plane is closed.
#[inline(always)]
pub(crate) fn softmax(block: &mut [f32], voxels: usize) {
    let mut at = 0;
    while at < voxels {
        at += match voxels - at {
            64.. => softmax_of::<64>(block, voxels, at),
            16.. => softmax_of::<16>(block, voxels, at),
            _ => softmax_of::<1>(block, voxels, at),
        };
    }
}

/// The softmax of `N` voxels from `at` on, whose extremes and sums stay in registers. Returns `N`.
#[inline(always)]
fn softmax_of<const N: usize>(block: &mut [f32], voxels: usize, at: usize) -> usize {
    let mut most = [f32::NEG_INFINITY; N];
    // 0 where every value is finite, else NaN.
    let mut sum = [0f32; N];
    for values in block.chunks_exact(voxels) {
        let values: &[f32; N] = values[at..at + N].try_into().expect("so many");
        for i in 0..N {
            most[i] = if values[i] > most[i] { values[i] } else { most[i] };
            sum[i] += values[i] * 0.0;
        }
    }
    for values in block.chunks_exact_mut(voxels) {
        let values: &mut [f32; N] = (&mut values[at..at + N]).try_into().expect("so many");
        for i in 0..N {
            let value = exp_of_negative(values[i] - most[i]);
            values[i] = value;
            sum[i] += value;
        }
    }
    for values in block.chunks_exact_mut(voxels) {
        values[at..at + N].iter_mut().zip(&sum).for_each(|(v, sum)| *v /= sum);
    }
    N
}

/// `exp(x)` for `x <= 0` to one unit in the last place, free of branches so that it vectorises.
///
/// Range reduction by the nearest multiple of ln 2 (split in two, so that the product is exact),
/// then a polynomial of degree 6; below -87 the result stays at the smallest normal number.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > -87.0 { x } else { -87.0 };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    value * f32::from_bits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_good_to_the_last_place() {
        let mut worst = 0f64;
        for i in 0..870_000 {
            let x = -(i as f32) * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp_of_negative(x)) / exact - 1.0).abs());
        }
        assert!(worst < 1.5e-7, "{worst}");
        assert_eq!(exp_of_negative(0.0), 1.0);
    }

    #[test]
    fn softmax_by_hand() {
        let mut block = vec![0.0, 1.0, 2f32.ln(), 1.0, 5f32.ln(), 1.0];
        softmax(&mut block, 2);
        let expected = [0.125, 1.0 / 3.0, 0.25, 1.0 / 3.0, 0.625, 1.0 / 3.0];
        let differ = block.iter().zip(expected).any(|(a, b): (&f32, f32)| (a - b).abs() > 1e-6);
        assert!(!differ, "{block:?}");
    }

    #[test]
    fn logits_that_are_not_finite_show() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut block = vec![0.0, 1.0, bad, 2.0];
            softmax(&mut block, 2);
            assert!(block[0].is_nan() && block[2].is_nan(), "{bad}");
            assert!(block[1].is_finite() && block[3].is_finite());
        }
    }
}
