//! The importance map: how much each voxel of a window counts where windows overlap.
//!
//! A Gaussian around the centre with a deviation of an eighth of the window. The three references
//! scale and round it differently, and with half-precision accumulation that decides labels.

use half::f16;
use ndarray::Array3;
use stunet_data::reference::{Accumulation, ImportanceScaling, Reference};

/// The importance map of a window, as `reference` computes it; every value is positive.
///
/// # Shapes
/// `window` and the result are `[z, y, x]`.
///
/// # Source
/// * nnU-Net 1.7.1 `neural_network.py::_get_gaussian`: divided by its maximum, f32.
/// * nnU-Net 2.2 `sliding_window_prediction.py::compute_gaussian`: cast to the accumulator's
///   precision *first*, then divided by its maximum and scaled by 1000 in that precision. At 128³
///   the peak is a subnormal of f16, which leaves some thirty levels.
/// * nnU-Net 2.8, same function: divided by its maximum and scaled by 10 in f64, then cast.
///
/// In all three, values that underflow to 0 become the smallest positive one.
///
/// ```
/// use stunet_data::plans::{Accumulation, Reference};
/// use stunet_infer::importance::importance;
/// let map = importance(Reference::NnUNetV1, Accumulation::F32, [16, 24, 32]);
/// assert_eq!(map[[8, 12, 16]], 1.0);
/// ```
pub fn importance(
    reference: Reference,
    accumulation: Accumulation,
    window: [usize; 3],
) -> Array3<f32> {
    let raw = gaussian(window);
    let peak = raw.iter().copied().fold(0f64, f64::max);
    let cast: fn(f64) -> f32 = match accumulation {
        // By way of f32, as torch casts.
        Accumulation::F16 => |v| f16::from_f64_by_f32(v),
        Accumulation::F32 => |v| v as f32,
    };
    let map = match reference.conventions().prediction.importance {
        ImportanceScaling::PeakOfOne => raw.mapv(|v| (v / peak) as f32),
        ImportanceScaling::RoundedThenThousand => {
            let peak = f64::from(cast(peak));
            raw.mapv(|v| cast(f64::from(cast(f64::from(cast(v)) / peak)) * 1000.0))
        }
        ImportanceScaling::TenThenRounded => raw.mapv(|v| cast(v / (peak / 10.0))),
    };
    let smallest = map.iter().copied().filter(|v| *v > 0.0).fold(f32::INFINITY, f32::min);
    map.mapv(|v| if v > 0.0 { v } else { smallest })
}

trait ByF32 {
    fn from_f64_by_f32(value: f64) -> f32;
}

impl ByF32 for f16 {
    fn from_f64_by_f32(value: f64) -> f32 {
        f16::from_f32(value as f32).to_f32()
    }
}

/// `scipy.ndimage.gaussian_filter` of a unit impulse at the centre (`size / 2`), with
/// `sigma = size / 8`, `truncate = 4`, zeros outside.
fn gaussian(window: [usize; 3]) -> Array3<f64> {
    let [z, y, x] = window.map(gaussian_line);
    Array3::from_shape_fn(window, |(k, j, i)| z[k] * y[j] * x[i])
}

fn gaussian_line(size: usize) -> Vec<f64> {
    let sigma = size as f64 * (1.0 / 8.0);
    let radius = (4.0 * sigma + 0.5) as i64;
    let weight = |d: i64| (-0.5 / (sigma * sigma) * (d * d) as f64).exp();
    let sum: f64 = (-radius..=radius).map(weight).sum();
    let centre = (size / 2) as i64;
    (0..size as i64)
        .map(|i| i - centre)
        .map(|d| if d.abs() <= radius { weight(d) / sum } else { 0.0 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [(Reference, Accumulation); 5] = [
        (Reference::NnUNetV1, Accumulation::F32),
        (Reference::NnUNetV22, Accumulation::F16),
        (Reference::NnUNetV22, Accumulation::F32),
        (Reference::NnUNetV28, Accumulation::F16),
        (Reference::NnUNetV28, Accumulation::F32),
    ];

    #[test]
    fn figures_of_the_published_window() {
        let check = |reference, accumulation, smallest: f32, largest: f32| {
            let map = importance(reference, accumulation, [128; 3]);
            let min = map.iter().copied().fold(f32::INFINITY, f32::min);
            let max = map.iter().copied().fold(0f32, f32::max);
            assert!((min / smallest - 1.0).abs() < 1e-3, "{reference:?} {min}");
            assert!((max / largest - 1.0).abs() < 1e-3, "{reference:?} {max}");
        };
        check(Reference::NnUNetV1, Accumulation::F32, 3.775e-11, 1.0);
        check(Reference::NnUNetV22, Accumulation::F16, 3.846, 1000.0);
        check(Reference::NnUNetV28, Accumulation::F16, 5.96e-8, 10.0);
    }

    proptest! {
        #[test]
        fn positive_and_largest_at_the_centre(window in [1usize..20, 1..20, 1..20]) {
            for (reference, accumulation) in ALL {
                let map = importance(reference, accumulation, window);
                let [z, y, x] = window.map(|n| n / 2);
                let peak = map[[z, y, x]];
                prop_assert!(map.iter().all(|v| *v > 0.0 && *v <= peak), "{reference:?}");
            }
        }
    }
}
