//! From planes at the network's resolution to labels at the image's, without ever holding
//! classes × output volume.
//!
//! An order-1 restore needs two neighbouring planes of the network's grid for a plane of the
//! output. [`Restore`] keeps the last one; as soon as the upper of two arrives, each row of the
//! output plane is interpolated for all classes, and the best class is kept.

use crate::error::InferError;
use crate::probabilities::ProbabilityFile;
use crate::sliding_window::PlaneSink;
use ndarray::Array3;
use rayon::prelude::*;
use stunet_data::preprocess::resample::AxisTaps;

/// How the values of one voxel become its label.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The class of the largest value; of equal ones the first.
    Largest {
        /// Label of each class.
        labels: Vec<u16>,
    },
    /// Regions: every class above the threshold writes its label, later ones over earlier ones.
    Regions {
        /// Label each class writes (`regions_class_order`).
        order: Vec<u16>,
        /// 0 for logits (a sigmoid of one half), 0.5 for probabilities.
        threshold: f32,
    },
}

impl Decision {
    /// Decides a row.
    ///
    /// # Shapes
    /// `values` `[C, voxels]`; `best` is room for one value per voxel.
    pub(crate) fn decide(&self, values: &[f32], best: &mut Vec<f32>, out: &mut [u16]) {
        match self {
            Self::Largest { labels } => {
                best.clear();
                best.resize(out.len(), f32::NEG_INFINITY);
                for (class, values) in labels.iter().zip(values.chunks_exact(out.len())) {
                    for ((best, out), v) in best.iter_mut().zip(out.iter_mut()).zip(values) {
                        let better = *v > *best;
                        *best = if better { *v } else { *best };
                        *out = if better { *class } else { *out };
                    }
                }
            }
            Self::Regions { order, threshold } => {
                out.fill(0);
                for (label, values) in order.iter().zip(values.chunks_exact(out.len())) {
                    for (out, v) in out.iter_mut().zip(values) {
                        *out = if *v > *threshold { *label } else { *out };
                    }
                }
            }
        }
    }
}

/// Labels at the network's resolution: what modes `fast` and `fastest` restore.
pub struct NetworkLabels {
    decision: Decision,
    labels: Array3<u16>,
}

impl NetworkLabels {
    /// An empty labelmap of `shape` `[z, y, x]` at the network's resolution.
    pub fn new(shape: [usize; 3], decision: Decision) -> Self {
        Self { decision, labels: Array3::zeros(shape) }
    }

    /// The labels, once every plane has come.
    pub fn into_labels(self) -> Array3<u16> {
        self.labels
    }
}

impl PlaneSink for NetworkLabels {
    fn plane(&mut self, z: usize, plane: &mut Vec<f32>) -> Result<(), InferError> {
        let (_, height, width) = self.labels.dim();
        let voxels = height * width;
        let decision = &self.decision;
        let values = plane.as_slice();
        let out = plane_mut(&mut self.labels, z);
        out.par_chunks_mut(width).enumerate().for_each_init(
            || (Vec::new(), Vec::new()),
            |(row, best), (y, out)| {
                row.clear();
                for class in values.chunks_exact(voxels) {
                    row.extend_from_slice(&class[y * width..(y + 1) * width]);
                }
                decision.decide(row, best, out);
            },
        );
        Ok(())
    }
}

/// Order-1 restore to the image's resolution and decision, plane by plane (mode `normal`).
///
/// # Source
/// nnU-Net 1.7.1 `segmentation_export.py`: each channel resampled in f64, cast to f32, then the
/// largest. nnU-Net 2.2 and 2.8 `export_prediction.py`: each channel of the half-precision logits
/// resampled in f64 and cast back to f16, then the largest (2.2 takes a softmax in f32 first, which
/// keeps the order).
///
/// # Deviations
/// Interpolation along z, y and x in turn, where scipy sums eight products: equal in f64 to the
/// last digits.
pub struct Restore {
    taps: [AxisTaps; 3],
    network_plane: [usize; 2],
    half: bool,
    decision: Decision,
    labels: Array3<u16>,
    previous: Vec<f32>,
    next_out: usize,
    probabilities: Option<ProbabilityFile>,
}

impl Restore {
    /// A restore from planes `[C, Y, X]` of `network_plane` voxels, along `taps`.
    ///
    /// With `half`, interpolated values are rounded to half precision before they are compared.
    pub fn new(
        taps: [AxisTaps; 3],
        network_plane: [usize; 2],
        half: bool,
        decision: Decision,
        probabilities: Option<ProbabilityFile>,
    ) -> Self {
        let shape = [taps[0].len(), taps[1].len(), taps[2].len()];
        Self {
            taps,
            network_plane,
            half,
            decision,
            labels: Array3::zeros(shape),
            previous: Vec::new(),
            next_out: 0,
            probabilities,
        }
    }

    /// The labels at the image's resolution, once every plane has come, and the file of
    /// probabilities.
    pub fn finish(self) -> (Array3<u16>, Option<ProbabilityFile>) {
        debug_assert_eq!(self.next_out, self.taps[0].len(), "every plane has come");
        (self.labels, self.probabilities)
    }

    fn restore_plane(
        &mut self,
        z: usize,
        lower: &[f32],
        upper: &[f32],
        weight: f64,
    ) -> Result<(), InferError> {
        let [_, taps_y, taps_x] = &self.taps;
        let width = taps_x.len();
        let source = Source { lower, upper, weight, plane: self.network_plane, half: self.half };
        let decision = &self.decision;
        let out = plane_mut(&mut self.labels, z);
        let row = |scratch: &mut Scratch, y: usize, out: &mut [u16]| {
            source.row(Tap::of(taps_y, y), taps_x, scratch);
            decision.decide(&scratch.row, &mut scratch.best, out);
        };
        match &mut self.probabilities {
            None => out
                .par_chunks_mut(width)
                .enumerate()
                .for_each_init(Scratch::default, |s, (y, out)| row(s, y, out)),
            Some(file) => {
                let kind = file.kind();
                let rows = file.rows(width);
                out.par_chunks_mut(width).zip(rows).enumerate().for_each_init(
                    Scratch::default,
                    |s, (y, (out, probabilities))| {
                        row(s, y, out);
                        kind.apply(&s.row, width, probabilities);
                    },
                );
                file.write_plane(z)?;
            }
        }
        Ok(())
    }
}

impl PlaneSink for Restore {
    fn plane(&mut self, z: usize, plane: &mut Vec<f32>) -> Result<(), InferError> {
        while self.next_out < self.taps[0].len() {
            let tap = Tap::of(&self.taps[0], self.next_out);
            if tap.upper > z {
                break;
            }
            debug_assert!(tap.lower + 1 >= z, "taps ascend by at most one plane");
            let previous = std::mem::take(&mut self.previous);
            let lower = if tap.lower == z { plane.as_slice() } else { &previous };
            let restored = self.restore_plane(self.next_out, lower, plane, tap.weight_upper);
            self.previous = previous;
            restored?;
            self.next_out += 1;
        }
        self.previous.resize(plane.len(), 0.0);
        std::mem::swap(&mut self.previous, plane);
        Ok(())
    }
}

/// Where one output index looks along an axis.
#[derive(Clone, Copy)]
struct Tap {
    lower: usize,
    upper: usize,
    weight_upper: f64,
}

impl Tap {
    fn of(taps: &AxisTaps, index: usize) -> Self {
        Self {
            lower: taps.lower[index],
            upper: taps.upper[index],
            weight_upper: taps.weight_upper[index],
        }
    }
}

/// Two planes of the network's grid and the place between them.
struct Source<'a> {
    lower: &'a [f32],
    upper: &'a [f32],
    weight: f64,
    plane: [usize; 2],
    half: bool,
}

#[derive(Default)]
struct Scratch {
    line: Vec<f64>,
    row: Vec<f32>,
    best: Vec<f32>,
}

impl Source<'_> {
    /// One output row of all classes, `[C, x]`, into `scratch.row`.
    fn row(&self, tap_y: Tap, taps_x: &AxisTaps, scratch: &mut Scratch) {
        let [height, width] = self.plane;
        let voxels = height * width;
        scratch.row.clear();
        for class in 0..self.lower.len() / voxels {
            let at = |y: usize| class * voxels + y * width..class * voxels + (y + 1) * width;
            let (low, high) = (at(tap_y.lower), at(tap_y.upper));
            let corners = [
                &self.lower[low.clone()],
                &self.lower[high.clone()],
                &self.upper[low],
                &self.upper[high],
            ];
            self.line(corners, tap_y.weight_upper, &mut scratch.line);
            let line = &scratch.line;
            let taps = taps_x.lower.iter().zip(&taps_x.upper).zip(&taps_x.weight_upper);
            let values = taps.map(|((&lower, &upper), &weight)| {
                let value = line[lower] * (1.0 - weight) + line[upper] * weight;
                if self.half { round_to_half(value) as f32 } else { value as f32 }
            });
            scratch.row.extend(values);
        }
    }

    /// Interpolates along z and y; corners are (z, y), (z, y+1), (z+1, y), (z+1, y+1).
    fn line(&self, corners: [&[f32]; 4], weight_y: f64, line: &mut Vec<f64>) {
        let [a, b, c, d] = corners;
        let (z, y) = (self.weight, weight_y);
        let mix = |a: f64, b: f64, w: f64| a * (1.0 - w) + b * w;
        line.clear();
        // A weight of 0 leaves values exactly as they are: the common case without resampling.
        match (z == 0.0, y == 0.0) {
            (true, true) => line.extend(a.iter().map(|v| f64::from(*v))),
            (true, false) => {
                line.extend(a.iter().zip(b).map(|(a, b)| mix((*a).into(), (*b).into(), y)));
            }
            (false, true) => {
                line.extend(a.iter().zip(c).map(|(a, c)| mix((*a).into(), (*c).into(), z)));
            }
            (false, false) => {
                line.extend(a.iter().zip(b).zip(c.iter().zip(d)).map(|((a, b), (c, d))| {
                    let low = mix((*a).into(), (*c).into(), z);
                    let high = mix((*b).into(), (*d).into(), z);
                    mix(low, high, y)
                }))
            }
        }
    }
}

/// The nearest half-precision number, ties to even, without the detour over f32 that would round
/// twice; magnitudes within the range of f16.
#[inline(always)]
fn round_to_half(value: f64) -> f64 {
    /// Bits of an f64 that f16 does not have.
    const DROPPED: u32 = 52 - 10;
    /// The smallest normal f16; below it the grid is 2^-24.
    const SMALLEST_NORMAL: f64 = 1.0 / 16384.0;
    /// An f64 whose last place is worth 2^-24.
    const GRID: f64 = 1.5 * (1u64 << 28) as f64;
    let bits = value.to_bits();
    let half_place = (1u64 << (DROPPED - 1)) - 1 + ((bits >> DROPPED) & 1);
    let normal = f64::from_bits(bits.wrapping_add(half_place) & !((1u64 << DROPPED) - 1));
    let subnormal = (value + GRID) - GRID;
    if value.abs() < SMALLEST_NORMAL { subnormal } else { normal }
}

fn plane_mut(labels: &mut Array3<u16>, z: usize) -> &mut [u16] {
    let (_, height, width) = labels.dim();
    let all = labels.as_slice_mut().expect("made contiguous");
    &mut all[z * height * width..(z + 1) * height * width]
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    #[test]
    fn round_to_half_is_exact() {
        for bits in 0..0x7bffu16 {
            let (a, b) = (f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64());
            let middle = (a + b) / 2.0;
            let even = if bits % 2 == 0 { a } else { b };
            // The middle goes to the even neighbour, and the smallest step decides otherwise.
            for sign in [1.0, -1.0] {
                assert_eq!(round_to_half(sign * a), sign * a);
                assert_eq!(round_to_half(sign * middle), sign * even, "{bits}");
                assert_eq!(round_to_half(sign * middle.next_down()), sign * a, "{bits}");
                assert_eq!(round_to_half(sign * middle.next_up()), sign * b, "{bits}");
            }
        }
    }

    #[test]
    fn the_first_of_equal_values_wins() {
        let decision = Decision::Largest { labels: vec![0, 1, 7] };
        let mut out = [9; 4];
        let values = [1.0, 0.0, 5.0, -2.0, 1.0, 2.0, 5.0, -3.0, 0.5, 2.0, 6.0, -1.0];
        decision.decide(&values, &mut Vec::new(), &mut out);
        assert_eq!(out, [0, 1, 7, 7]);
    }

    #[test]
    fn later_regions_paint_over_earlier_ones() {
        let decision = Decision::Regions { order: vec![1, 3, 2], threshold: 0.0 };
        let mut out = [9; 4];
        let values = [1.0, -1.0, 0.0, 1.0, -1.0, -1.0, 0.0, 1.0, 1.0, -1.0, 1.0, -1.0];
        decision.decide(&values, &mut Vec::new(), &mut out);
        assert_eq!(out, [2, 0, 2, 3]);
    }

    fn value(c: usize, z: usize, y: usize, x: usize) -> f32 {
        let hash = (c * 7919 + z * 104_729 + y * 1299 + x * 15_485).wrapping_mul(2_654_435_761);
        (hash % 10_007) as f32 / 10_007.0
    }

    /// The reference's way: every class restored in full, then compared.
    fn by_hand(taps: &[AxisTaps; 3], classes: usize, half: bool) -> Array3<u16> {
        let shape = [taps[0].len(), taps[1].len(), taps[2].len()];
        Array3::from_shape_fn(shape, |(z, y, x)| {
            let [tz, ty, tx] = [Tap::of(&taps[0], z), Tap::of(&taps[1], y), Tap::of(&taps[2], x)];
            let mut best = (0, f64::NEG_INFINITY);
            for c in 0..classes {
                let mut sum = 0.0;
                for (k, wz) in [(tz.lower, 1.0 - tz.weight_upper), (tz.upper, tz.weight_upper)] {
                    for (j, wy) in [(ty.lower, 1.0 - ty.weight_upper), (ty.upper, ty.weight_upper)]
                    {
                        for (i, wx) in
                            [(tx.lower, 1.0 - tx.weight_upper), (tx.upper, tx.weight_upper)]
                        {
                            sum += wz * wy * wx * f64::from(value(c, k, j, i));
                        }
                    }
                }
                let sum = if half { f16::from_f64(sum).to_f64() } else { f64::from(sum as f32) };
                if sum > best.1 {
                    best = (c as u16, sum);
                }
            }
            best.0
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn streamed_equals_whole(
            from in [1usize..7, 1..7, 1..7],
            to in [1usize..12, 1..12, 1..12],
            half in any::<bool>(),
            apart in 0usize..4,
        ) {
            let classes = 4;
            let taps = [0, 1, 2].map(|a| match a == apart {
                true => AxisTaps::nearest(from[a], to[a]),
                false => AxisTaps::linear(from[a], to[a]),
            });
            let decision = Decision::Largest { labels: (0..classes as u16).collect() };
            let mut restore = Restore::new(taps.clone(), [from[1], from[2]], half, decision, None);
            for z in 0..from[0] {
                let mut plane = Vec::new();
                for c in 0..classes {
                    for y in 0..from[1] {
                        plane.extend((0..from[2]).map(|x| value(c, z, y, x)));
                    }
                }
                restore.plane(z, &mut plane).unwrap();
            }
            let (found, _) = restore.finish();
            let expected = by_hand(&taps, classes, half);
            let differ = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
            // Values closer than rounding may change places.
            prop_assert!(differ <= found.len() / 200, "{differ} of {}", found.len());
        }
    }
}
