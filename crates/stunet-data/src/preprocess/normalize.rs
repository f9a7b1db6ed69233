//! Intensities to network units.

use super::resample::Voxel;
use crate::plans::{ChannelPlan, Normalization};
use crate::reference::{DeviationGuard, PreprocessingConventions};
use crate::simd::{Work, wide};
use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;

/// A pointwise, monotonically non-decreasing normalisation: `(clip(v) - sub) / div`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PointMap {
    clip: Option<(f32, f32)>,
    sub: f32,
    div: f32,
}

impl PointMap {
    /// The map of a whole channel for nnU-Net 2; none where statistics are masked.
    pub fn of<T: Voxel>(
        channel: ArrayView3<'_, T>,
        plan: &ChannelPlan,
        conventions: &PreprocessingConventions,
    ) -> Option<Self> {
        let plain = Self { clip: None, sub: 0.0, div: 1.0 };
        let map = match plan.scheme {
            Normalization::None => plain,
            Normalization::RgbToZeroOne => Self { div: 255.0, ..plain },
            Normalization::Ct => {
                let i = plan.intensity.expect("checked plans have statistics for CT");
                let clip = (i.percentile_00_5 as f32, i.percentile_99_5 as f32);
                // Bounds in the wrong order make another function of it.
                let std = guarded_of_ct(i.std, conventions.deviation);
                (clip.0 <= clip.1).then_some(())?;
                Self { clip: Some(clip), sub: i.mean as f32, div: std as f32 }
            }
            Normalization::ZScore if !plan.use_mask => {
                let (mean, std) = moments_of_view(channel);
                let std = guarded_of_volume(std, conventions.deviation);
                Self { sub: mean as f32, div: std as f32, ..plain }
            }
            _ => return None,
        };
        (map.div > 0.0).then_some(map)
    }

    #[inline(always)]
    pub fn apply(self, v: f32) -> f32 {
        let v = self.clip.map_or(v, |(low, high)| v.max(low).min(high));
        (v - self.sub) / self.div
    }
}

/// A divisor of the CT schemes.
fn guarded_of_ct(std: f64, guard: DeviationGuard) -> f64 {
    match guard {
        DeviationGuard::AddedForVolumes => std,
        DeviationGuard::Bounded => std.max(1e-8),
    }
}

/// A divisor of z-score.
fn guarded_of_volume(std: f64, guard: DeviationGuard) -> f64 {
    match guard {
        DeviationGuard::AddedForVolumes => std + 1e-8,
        DeviationGuard::Bounded => std.max(1e-8),
    }
}

/// Mean and (population) standard deviation of a view: sums of planes, in order.
fn moments_of_view<T: Voxel>(channel: ArrayView3<'_, T>) -> (f64, f64) {
    let count = channel.len() as f64;
    let mean = sum_of_planes(channel, |v| v) / count;
    let squares = sum_of_planes(channel, |v| (v - mean) * (v - mean));
    (mean, (squares / count).sqrt())
}

fn sum_of_planes<T: Voxel>(
    channel: ArrayView3<'_, T>,
    f: impl Fn(f64) -> f64 + Copy + Sync + Send,
) -> f64 {
    let planes: Vec<f64> = channel
        .axis_iter(ndarray::Axis(0))
        .into_par_iter()
        .map(|plane| {
            let rows = plane.rows().into_iter();
            rows.map(|row| match row.to_slice() {
                Some(row) => wide(SumInLanes(row, f)),
                None => row.iter().map(|v| f(v.to_f64())).sum(),
            })
            .sum::<f64>()
        })
        .collect();
    planes.iter().sum()
}

/// Several sums side by side: this is what the compiler turns into vector code.
struct SumInLanes<'a, T, F>(&'a [T], F);

impl<T: Voxel, F: Fn(f64) -> f64> Work for SumInLanes<'_, T, F> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        const LANES: usize = 16;
        let Self(row, f) = self;
        let mut sums = [0.0; LANES];
        let (whole, rest) = row.as_chunks::<LANES>();
        for piece in whole {
            sums.iter_mut().zip(piece).for_each(|(s, v)| *s += f(v.to_f64()));
        }
        sums.iter().sum::<f64>() + rest.iter().map(|v| f(v.to_f64())).sum::<f64>()
    }
}

/// Normalises one channel in place.
///
/// `inside` is the nonzero region where the plan asks for masked statistics.
///
/// # Source
/// nnU-Net 1's `GenericPreprocessor.resample_and_normalize`; nnU-Net 2's
/// `default_normalization_schemes.py`.
///
/// # Deviations
/// Means and deviations are summed in double precision (about 1e-6 from NumPy's single precision).
///
/// # Panics
/// When the shapes of channel and mask differ.
pub(super) fn normalize(
    channel: &mut Array3<f32>,
    inside: Option<ArrayView3<'_, bool>>,
    plan: &ChannelPlan,
    conventions: &PreprocessingConventions,
) {
    let inside = inside.filter(|_| plan.use_mask);
    match plan.scheme {
        // What is the caller's own is done by the caller.
        Normalization::None | Normalization::Own => {}
        Normalization::Ct | Normalization::CtPerVolume => ct(channel, inside, plan, conventions),
        Normalization::ZScore => z_score(channel, inside, conventions),
        Normalization::RescaleZeroToOne => {
            let lowest = fold(channel, f32::INFINITY, f32::min);
            map(channel, |v| v - lowest);
            let highest = fold(channel, f32::NEG_INFINITY, f32::max).max(1e-8);
            map(channel, |v| v / highest);
        }
        Normalization::RgbToZeroOne => map(channel, |v| v / 255.0),
    }
}

fn ct(
    channel: &mut Array3<f32>,
    inside: Option<ArrayView3<'_, bool>>,
    plan: &ChannelPlan,
    conventions: &PreprocessingConventions,
) {
    let i = plan.intensity.expect("checked plans have statistics for CT");
    let (low, high) = (i.percentile_00_5 as f32, i.percentile_99_5 as f32);
    let (mean, std) = if plan.scheme == Normalization::CtPerVolume {
        moments(channel, |_, v| v > low && v < high)
    } else {
        (i.mean, i.std)
    };
    let std = guarded_of_ct(std, conventions.deviation);
    let (mean, std) = (mean as f32, std as f32);
    // Not clamp(), which panics for bounds in the wrong order.
    map(channel, |v| (v.max(low).min(high) - mean) / std);
    if let Some(inside) = inside.filter(|_| conventions.zero_outside_mask) {
        zero_outside(channel, inside);
    }
}

fn z_score(
    channel: &mut Array3<f32>,
    inside: Option<ArrayView3<'_, bool>>,
    conventions: &PreprocessingConventions,
) {
    let (mean, std) = match inside {
        Some(inside) => {
            let inside = inside.as_slice().expect("masks are made in standard layout");
            moments(channel, |i, _| inside[i])
        }
        None => moments(channel, |_, _| true),
    };
    let std = guarded_of_volume(std, conventions.deviation);
    let (mean, std) = (mean as f32, std as f32);
    let Some(inside) = inside else {
        return map(channel, |v| (v - mean) / std);
    };
    ndarray::Zip::from(&mut *channel).and(&inside).par_for_each(|v, inside| {
        if *inside {
            *v = (*v - mean) / std;
        }
    });
    if conventions.zero_outside_mask {
        zero_outside(channel, inside);
    }
}

fn zero_outside(channel: &mut Array3<f32>, inside: ArrayView3<'_, bool>) {
    ndarray::Zip::from(channel).and(&inside).par_for_each(|v, inside| {
        if !*inside {
            *v = 0.0;
        }
    });
}

/// Voxels summed at a time: fixed, so that sums do not depend on the number of threads.
const PIECE: usize = 1 << 16;

fn slice(channel: &Array3<f32>) -> &[f32] {
    channel.as_slice().expect("channels are made in standard layout")
}

fn map(channel: &mut Array3<f32>, f: impl Fn(f32) -> f32 + Sync + Send) {
    channel.par_mapv_inplace(f);
}

fn fold(channel: &Array3<f32>, start: f32, f: impl Fn(f32, f32) -> f32 + Sync) -> f32 {
    let pieces = slice(channel).par_chunks(PIECE);
    pieces.map(|piece| piece.iter().copied().fold(start, &f)).reduce(|| start, &f)
}

/// Mean and (population) standard deviation of the chosen voxels; (0, 0) where there are none.
fn moments(channel: &Array3<f32>, chosen: impl Fn(usize, f32) -> bool + Sync) -> (f64, f64) {
    let sums = |f: &(dyn Fn(f64) -> f64 + Sync)| -> (f64, usize) {
        let pieces: Vec<(f64, usize)> = slice(channel)
            .par_chunks(PIECE)
            .enumerate()
            .map(|(p, piece)| {
                let values = piece.iter().enumerate();
                let values = values.filter(|(i, v)| chosen(p * PIECE + i, **v));
                values.fold((0.0, 0), |(sum, n), (_, v)| (sum + f(f64::from(*v)), n + 1))
            })
            .collect();
        pieces.iter().fold((0.0, 0), |(s, n), (ps, pn)| (s + ps, n + pn))
    };
    let (sum, count) = sums(&|v| v);
    if count == 0 {
        return (0.0, 0.0);
    }
    let mean = sum / count as f64;
    let (squares, _) = sums(&|v| (v - mean) * (v - mean));
    (mean, (squares / count as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plans::{Intensity, Reference};

    fn check(
        scheme: Normalization,
        reference: Reference,
        masked: bool,
        input: [f32; 4],
        expected: [f32; 4],
    ) {
        let plan = ChannelPlan {
            name: "a".to_owned(),
            scheme,
            use_mask: masked,
            intensity: Some(Intensity {
                mean: 10.0,
                std: 2.0,
                percentile_00_5: 0.0,
                percentile_99_5: 20.0,
            }),
        };
        let mut channel = Array3::from_shape_vec((1, 2, 2), input.to_vec()).unwrap();
        let inside = Array3::from_shape_vec((1, 2, 2), vec![true, true, true, false]).unwrap();
        let conventions = &reference.conventions().preprocessing;
        normalize(&mut channel, Some(inside.view()), &plan, conventions);
        let found = channel.as_slice().unwrap();
        let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close, "{scheme:?} {reference:?}: {found:?}, expected {expected:?}");
    }

    #[test]
    fn every_scheme_of_both_versions() {
        use Normalization::*;
        use Reference::{NnUNetV1 as V1, NnUNetV28 as V2};
        let r = 1.5f32.sqrt();
        check(Ct, V1, false, [-5.0, 10.0, 12.0, 90.0], [-5.0, 0.0, 1.0, 5.0]);
        check(Ct, V1, true, [-5.0, 10.0, 12.0, 90.0], [-5.0, 0.0, 1.0, 0.0]);
        check(Ct, V2, true, [-5.0, 10.0, 12.0, 90.0], [-5.0, 0.0, 1.0, 5.0]);
        check(CtPerVolume, V1, false, [-5.0, 8.0, 12.0, 90.0], [-5.0, -1.0, 1.0, 5.0]);
        check(ZScore, V1, false, [2.0, 4.0, 2.0, 4.0], [-1.0, 1.0, -1.0, 1.0]);
        check(ZScore, V1, true, [1.0, 2.0, 3.0, 7.0], [-r, 0.0, r, 0.0]);
        check(ZScore, V2, true, [1.0, 2.0, 3.0, 7.0], [-r, 0.0, r, 7.0]);
        check(ZScore, V2, false, [3.0; 4], [0.0; 4]);
        check(None, V2, true, [1.0, 2.0, 3.0, 7.0], [1.0, 2.0, 3.0, 7.0]);
        check(RescaleZeroToOne, V2, false, [2.0, 4.0, 6.0, 10.0], [0.0, 0.25, 0.5, 1.0]);
        check(RgbToZeroOne, V2, false, [0.0, 51.0, 255.0, 102.0], [0.0, 0.2, 1.0, 0.4]);
    }

    #[test]
    fn sums_do_not_depend_on_the_number_of_threads() {
        let values = stunet_testing::prng::uniform(1, 2, 40 * 60 * 70);
        let channel = Array3::from_shape_vec((40, 60, 70), values).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| moments(&channel, |_, _| true))
        };
        assert_eq!(run(1), run(3));
    }
}
