//! Labels are resized by interpolating the indicator of each, then deciding.

use super::{AxisTaps, copy_repeats, groups, owned, plane_shape, taps};
use crate::zeroed::zeroed;
use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

/// Who wins a voxel between labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelRule {
    /// The largest label whose share is at least one half; label 0 where none is.
    ///
    /// # Source
    /// `resize_segmentation` of batchgenerators 0.25, which nnU-Net 1 and the published models use.
    LastAboveHalf,
    /// The label with the largest share; the nearest voxel's label settles a tie it takes part in,
    /// the smallest label any other.
    ///
    /// # Source
    /// `resize_segmentation` of batchgenerators 0.25.5, which nnU-Net 2 uses today.
    LargestShare,
    /// The nearest voxel's label.
    Nearest,
}

/// Resizes a labelmap by linear interpolation of each label's indicator, or to the nearest voxel.
///
/// With a separate axis every slice across it is resized on its own, then the nearest is taken.
///
/// Shares are summed as the reference sums them (eight products in raster order, double precision):
/// at whole zoom factors exact halves are the rule at every boundary, so the order decides voxels.
///
/// # Panics
/// When an axis is empty.
pub fn resize_labels<T>(
    input: ArrayView3<'_, T>,
    shape: [usize; 3],
    rule: LabelRule,
    separate_axis: Option<usize>,
) -> Array3<T>
where
    T: Copy + Ord + Default + Send + Sync,
{
    assert!(!input.is_empty(), "the input of a resize is empty");
    assert!(!shape.contains(&0), "the output of a resize is empty");
    if input.shape() == shape {
        return owned(input);
    }
    let Some(axis) = separate_axis.filter(|_| rule != LabelRule::Nearest) else {
        return resize_volume(input, shape, rule);
    };
    let source = taps::nearest(input.shape()[axis], shape[axis]);
    let plane_shape = plane_shape(shape, axis);
    let mut output = zeroed(shape);
    let slices: Vec<_> = output.axis_iter_mut(Axis(axis)).collect();
    slices.into_par_iter().zip(groups(&source)).for_each(|(mut slice, group)| {
        if let Some(from) = group {
            let plane = input.index_axis(Axis(axis), from).insert_axis(Axis(0));
            let resized = resize_volume(plane, plane_shape, rule);
            slice.assign(&resized.index_axis(Axis(0), 0));
        }
    });
    copy_repeats(&mut output, axis, &source);
    output
}

fn resize_volume<T>(input: ArrayView3<'_, T>, shape: [usize; 3], rule: LabelRule) -> Array3<T>
where
    T: Copy + Ord + Default + Send + Sync,
{
    let n = input.shape();
    let linear: [AxisTaps; 3] = std::array::from_fn(|a| AxisTaps::linear(n[a], shape[a]));
    let nearest: [Vec<usize>; 3] = std::array::from_fn(|a| taps::nearest(n[a], shape[a]));
    let mut output = zeroed(shape);
    let planes: Vec<_> = output.axis_iter_mut(Axis(0)).collect();
    planes.into_par_iter().enumerate().for_each(|(z, mut plane)| {
        for (y, mut row) in plane.rows_mut().into_iter().enumerate() {
            for (x, out) in row.iter_mut().enumerate() {
                let near = || input[[nearest[0][z], nearest[1][y], nearest[2][x]]];
                *out = match rule {
                    LabelRule::Nearest => near(),
                    _ => {
                        let (labels, weights) = gather(input, &linear, [z, y, x]);
                        if labels.iter().all(|l| *l == labels[0]) {
                            labels[0]
                        } else {
                            decide(&labels, &weights, rule, near)
                        }
                    }
                };
            }
        }
    });
    output
}

/// The eight neighbours in raster order, with their weights.
fn gather<T: Copy>(
    input: ArrayView3<'_, T>,
    taps: &[AxisTaps; 3],
    at: [usize; 3],
) -> ([T; 8], [f64; 8]) {
    let index: [[usize; 2]; 3] =
        std::array::from_fn(|a| [taps[a].lower[at[a]], taps[a].upper[at[a]]]);
    let weight: [[f64; 2]; 3] = std::array::from_fn(|a| {
        let t = taps[a].weight_upper[at[a]];
        [1.0 - t, t]
    });
    let bit = |i: usize, axis: usize| i >> (2 - axis) & 1;
    let labels = std::array::from_fn(|i| {
        input[[index[0][bit(i, 0)], index[1][bit(i, 1)], index[2][bit(i, 2)]]]
    });
    let weights =
        std::array::from_fn(|i| weight[0][bit(i, 0)] * weight[1][bit(i, 1)] * weight[2][bit(i, 2)]);
    (labels, weights)
}

fn decide<T: Copy + Ord + Default>(
    labels: &[T; 8],
    weights: &[f64; 8],
    rule: LabelRule,
    near: impl Fn() -> T,
) -> T {
    // The reference clips the interpolated indicator to [0, 1].
    let share = |label: T| {
        let parts = labels.iter().zip(weights);
        let sum = parts.fold(0.0, |sum, (l, w)| if *l == label { sum + w } else { sum });
        f64::min(sum, 1.0)
    };
    if rule == LabelRule::LastAboveHalf {
        let above = labels.iter().filter(|l| share(**l) >= 0.5);
        return above.max().copied().unwrap_or_default();
    }
    let largest = labels.iter().map(|l| share(*l)).fold(0.0, f64::max);
    let near = near();
    if share(near) == largest {
        return near;
    }
    let winners = labels.iter().filter(|l| share(**l) == largest);
    winners.min().copied().unwrap_or(labels[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr3;

    fn check(rule: LabelRule, input: &[i16], m: usize, expected: &[i16]) {
        let input = Array3::from_shape_vec((1, 1, input.len()), input.to_vec()).unwrap();
        let found = resize_labels(input.view(), [1, 1, m], rule, None);
        assert_eq!(found.as_slice().unwrap(), expected, "{rule:?}");
    }

    #[test]
    fn exact_halves() {
        // The only output voxel lies in the middle between the two of the input.
        check(LabelRule::LastAboveHalf, &[5, 3], 1, &[5]);
        check(LabelRule::LastAboveHalf, &[-1, 0], 1, &[0]);
        check(LabelRule::LargestShare, &[5, 3], 1, &[3]);
        check(LabelRule::LargestShare, &[3, 5], 1, &[5]);
        check(LabelRule::Nearest, &[3, 5], 1, &[5]);
    }

    #[test]
    fn where_nobody_has_half() {
        let corners = arr3(&[[[1i16, 2], [3, 4]], [[1, 2], [3, 4]]]);
        let one = |rule| resize_labels(corners.view(), [1, 1, 1], rule, None)[[0, 0, 0]];
        assert_eq!(one(LabelRule::LastAboveHalf), 0);
        // All four tie; the nearest voxel is the last of them.
        assert_eq!(one(LabelRule::LargestShare), 4);
        let lost = arr3(&[[[3i16, 1], [1, 1]], [[2, 2], [2, 3]]]);
        let one = resize_labels(lost.view(), [1, 1, 1], LabelRule::LargestShare, None);
        assert_eq!(one[[0, 0, 0]], 1, "the nearest voxel lost: the smallest of the tied wins");
    }

    #[test]
    fn labels_are_never_invented() {
        let count = 5 * 7 * 11;
        let random = stunet_testing::prng::integers(3, 0, count, 4);
        let values = random.iter().map(|v| [2i16, 9, 30, -1][*v as usize]).collect();
        let input = Array3::from_shape_vec((5, 7, 11), values).unwrap();
        for separate in [None, Some(0), Some(1), Some(2)] {
            let rule = LabelRule::LargestShare;
            let output = resize_labels(input.view(), [9, 4, 23], rule, separate);
            assert!(output.iter().all(|l| [2, 9, 30, -1].contains(l)));
        }
    }
}
