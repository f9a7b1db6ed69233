//! Resampling to another number of voxels, as the reference computes it.
//!
//! # Source
//! `skimage.transform.resize(mode="edge", anti_aliasing=False, clip=True)`, which is
//! `scipy.ndimage.zoom(mode="nearest", grid_mode=True)` clipped to the range of the input:
//! * output voxel `i` of `m` lies at `(i + 0.5) * n / m - 0.5` of the `n` input voxels;
//! * order 3: cubic B-spline; twelve copies of the edge voxel on either side, then the prefilter
//!   with the half-sample-symmetric boundary; positions outside run into the copies;
//! * order 1: positions are clamped to the volume, then linear;
//! * order 0: positions are clamped, then the voxel at `floor(position + 0.5)`.
//!
//! # Deviations
//! The axes are done one after the other in double precision, so results differ from the
//! reference's 64-tap sums in the last bits (about 1e-13 of the range). An axis that keeps its
//! length is left alone, where the reference applies a filter that is the identity up to 1e-13.

mod labels;
mod separable;
mod taps;
mod torch;

pub use labels::{LabelRule, resize_labels};
pub use taps::AxisTaps;
pub use torch::resize_labels_as_torch;

use crate::simd::{Work, wide};
use crate::zeroed::zeroed;
use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;
use separable::resize_axes;
use serde::{Deserialize, Serialize};

/// Degree of the interpolating spline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The nearest voxel.
    Nearest,
    /// Linear.
    Linear,
    /// Cubic B-spline.
    Cubic,
}

/// Whose functions resample images, labels and probabilities: nnU-Net's `resampling_fn_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Resampling {
    /// `resample_data_or_seg_to_shape`, the usual one: cubic for images, linear for labels and
    /// probabilities, by scikit-image.
    #[default]
    #[serde(rename = "resample_data_or_seg_to_shape")]
    ScikitImage,
    /// `resample_torch_fornnunet`: linear, by PyTorch in single precision.
    #[serde(rename = "resample_torch_fornnunet")]
    Torch,
}

impl Resampling {
    /// nnU-Net's name of the function.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScikitImage => "resample_data_or_seg_to_shape",
            Self::Torch => "resample_torch_fornnunet",
        }
    }

    /// How intensities are interpolated.
    pub fn image_order(self) -> Order {
        match self {
            Self::ScikitImage => Order::Cubic,
            Self::Torch => Order::Linear,
        }
    }
}

/// A voxel type that is computed in double precision.
pub trait Voxel: Copy + Send + Sync + Default + PartialOrd {
    /// What a resize gives, and keeps between the axes: never a wider volume than needed.
    type Resized: Voxel;
    /// Widens.
    fn to_f64(self) -> f64;
    /// Rounds to the nearest.
    fn from_f64(value: f64) -> Self;
}

impl Voxel for i16 {
    type Resized = f32;
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.into()
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value.round() as Self
    }
}

impl Voxel for f32 {
    type Resized = Self;
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self.into()
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as Self
    }
}

impl Voxel for f64 {
    type Resized = Self;
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// Resizes a volume; the result stays within the range of the input.
///
/// # Shapes
/// `[z, y, x]` to `shape`; any strides, so a transposed view costs no copy.
///
/// # Panics
/// When an axis of the input or of `shape` is empty.
///
/// ```
/// use ndarray::arr3;
/// use stunet_data::preprocess::resample::{Order, resize};
/// let line = arr3(&[[[0.0f32, 1.0]]]);
/// let longer = resize(line.view(), [1, 1, 4], Order::Linear);
/// assert_eq!(longer.as_slice(), Some(&[0.0, 0.25, 0.75, 1.0][..]));
/// ```
pub fn resize<T: Voxel>(
    input: ArrayView3<'_, T>,
    shape: [usize; 3],
    order: Order,
) -> Array3<T::Resized> {
    resize_mapped(input, shape, order, None, T::to_f64)
}

/// Resizes a volume, apart along one coarse axis where asked: every slice across it on its own with
/// `order` (and its own range), then the nearest slice.
///
/// # Panics
/// As [`resize`], and when `separate_axis` is above 2.
pub fn resize_separately<T: Voxel>(
    input: ArrayView3<'_, T>,
    shape: [usize; 3],
    order: Order,
    separate_axis: Option<usize>,
) -> Array3<T::Resized> {
    resize_mapped(input, shape, order, separate_axis, T::to_f64)
}

/// As [`resize_separately`], of `map` applied to the voxels; `map` is monotonically non-decreasing.
pub(crate) fn resize_mapped<T: Voxel>(
    input: ArrayView3<'_, T>,
    shape: [usize; 3],
    order: Order,
    separate_axis: Option<usize>,
    map: impl Fn(T) -> f64 + Copy + Send + Sync,
) -> Array3<T::Resized> {
    assert!(!input.is_empty(), "the input of a resize is empty");
    assert!(!shape.contains(&0), "the output of a resize is empty");
    if input.shape() == shape {
        return owned(input.map(|v| T::Resized::from_f64(map(*v))).view());
    }
    let Some(axis) = separate_axis else {
        return resize_axes(input, shape, order, range(input, map), map);
    };
    let source = taps::nearest(input.shape()[axis], shape[axis]);
    let plane_shape = plane_shape(shape, axis);
    let mut output = zeroed(shape);
    let slices: Vec<_> = output.axis_iter_mut(Axis(axis)).collect();
    slices.into_par_iter().zip(groups(&source)).for_each(|(mut slice, group)| {
        if let Some(from) = group {
            let plane = input.index_axis(Axis(axis), from).insert_axis(Axis(0));
            let resized = resize_mapped(plane, plane_shape, order, None, map);
            slice.assign(&resized.index_axis(Axis(0), 0));
        }
    });
    copy_repeats(&mut output, axis, &source);
    output
}

/// One slice across an axis, as a volume of one plane.
pub(crate) fn plane_shape(shape: [usize; 3], axis: usize) -> [usize; 3] {
    match axis {
        0 => [1, shape[1], shape[2]],
        1 => [1, shape[0], shape[2]],
        _ => [1, shape[0], shape[1]],
    }
}

/// For every output slice the input slice to resize, or none where its predecessor has it already.
pub(crate) fn groups(source: &[usize]) -> Vec<Option<usize>> {
    let repeats = |i: usize| i > 0 && source[i] == source[i - 1];
    (0..source.len()).map(|i| (!repeats(i)).then_some(source[i])).collect()
}

/// Fills slices that repeat their predecessor.
pub(crate) fn copy_repeats<T: Copy>(volume: &mut Array3<T>, axis: usize, source: &[usize]) {
    for i in 1..source.len() {
        if source[i] == source[i - 1] {
            let (done, mut rest) = volume.view_mut().split_at(Axis(axis), i);
            let previous = done.index_axis(Axis(axis), i - 1);
            rest.index_axis_mut(Axis(axis), 0).assign(&previous);
        }
    }
}

/// A copy in standard layout.
pub(crate) fn owned<T: Copy>(input: ArrayView3<'_, T>) -> Array3<T> {
    input.as_standard_layout().into_owned()
}

/// Smallest and largest value of `map`, which is monotonically non-decreasing, so that it is applied
/// to the smallest and largest voxel only.
fn range<T: Voxel>(input: ArrayView3<'_, T>, map: impl Fn(T) -> f64 + Copy + Sync) -> (f64, f64) {
    let none: Option<(T, T)> = None;
    let join = |a: Option<(T, T)>, b: Option<(T, T)>| match (a, b) {
        (Some(a), Some(b)) => {
            Some((if b.0 < a.0 { b.0 } else { a.0 }, if b.1 > a.1 { b.1 } else { a.1 }))
        }
        (a, b) => a.or(b),
    };
    let found = input
        .axis_iter(Axis(0))
        .into_par_iter()
        .map(|plane| {
            // A transposed plane has the same voxels; rows that are contiguous are read faster.
            let plane = match plane.strides()[0].abs() < plane.strides()[1].abs() {
                true => plane.reversed_axes(),
                false => plane,
            };
            plane.rows().into_iter().fold(none, |range, row| match row.to_slice() {
                Some(values) => join(range, wide(RangeOf(values))),
                None => row
                    .iter()
                    .filter(|v| v.partial_cmp(v).is_some())
                    .fold(range, |r, v| join(r, Some((*v, *v)))),
            })
        })
        .reduce(|| none, join);
    found.map_or((f64::INFINITY, f64::NEG_INFINITY), |(low, high)| (map(low), map(high)))
}

/// Several lanes and plain comparisons: this is what the compiler turns into vector code.
struct RangeOf<'a, T>(&'a [T]);

impl<T: Voxel> Work for RangeOf<'_, T> {
    type Output = Option<(T, T)>;

    #[inline(always)]
    fn run(self) -> Option<(T, T)> {
        const LANES: usize = 32;
        // NaN is neither small nor large.
        let &first = self.0.iter().find(|v| v.partial_cmp(v).is_some())?;
        let (mut low, mut high) = ([first; LANES], [first; LANES]);
        for piece in self.0.chunks(LANES) {
            for ((l, h), v) in low.iter_mut().zip(&mut high).zip(piece) {
                *l = if *v < *l { *v } else { *l };
                *h = if *v > *h { *v } else { *h };
            }
        }
        let lowest = low.iter().fold(first, |m, v| if *v < m { *v } else { m });
        Some((lowest, high.iter().fold(first, |m, v| if *v > m { *v } else { m })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(shape: [usize; 3]) -> Array3<f32> {
        let count = shape.iter().product();
        let values = stunet_testing::prng::uniform(7, 1, count);
        Array3::from_shape_vec(shape, values).unwrap()
    }

    const SHAPES: [[usize; 3]; 5] = [[5, 7, 11], [9, 13, 4], [3, 14, 11], [5, 7, 40], [1, 70, 3]];

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let input = noise([5, 70, 41]);
        let labels = input.mapv(|v| (v * 3.0) as i16);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let cubic = SHAPES.map(|s| resize(input.view(), s, Order::Cubic));
                let apart = resize_separately(input.view(), [9, 33, 50], Order::Cubic, Some(0));
                let l = resize_labels(labels.view(), [9, 33, 50], LabelRule::LargestShare, None);
                (cubic, apart, l)
            })
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(5));
    }

    #[test]
    fn strides_do_not_matter() {
        let input = noise([5, 7, 11]);
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]] {
            let view = input.view().permuted_axes(order);
            for to in SHAPES {
                for o in [Order::Nearest, Order::Linear, Order::Cubic] {
                    assert_eq!(resize(view, to, o), resize(owned(view).view(), to, o));
                }
                for axis in 0..3 {
                    let apart = |v| resize_separately(v, to, Order::Cubic, Some(axis));
                    assert_eq!(apart(view), apart(owned(view).view()));
                }
            }
        }
    }

    #[test]
    fn the_range_is_kept_and_equal_shapes_are_copies() {
        let input = noise([6, 9, 10]);
        let (low, high) = range(input.view(), f64::from);
        for to in SHAPES {
            let output = resize(input.view(), to, Order::Cubic);
            assert!(output.iter().all(|v| (low..=high).contains(&f64::from(*v))));
        }
        assert_eq!(resize(input.view(), [6, 9, 10], Order::Cubic), input);
        let flat = Array3::from_elem([4, 5, 6], 3.5f32);
        let resized = resize(flat.view(), [9, 3, 8], Order::Cubic);
        assert!(resized.iter().all(|v| *v == 3.5));
    }

    #[test]
    fn a_separate_axis_takes_whole_slices() {
        let input = noise([4, 6, 7]);
        let output = resize_separately(input.view(), [8, 9, 5], Order::Cubic, Some(0));
        for (z, from) in taps::nearest(4, 8).into_iter().enumerate() {
            let slice = input.slice(ndarray::s![from..=from, .., ..]);
            let expected = resize(slice, [1, 9, 5], Order::Cubic);
            assert_eq!(output.slice(ndarray::s![z..=z, .., ..]), expected);
        }
        // The same along the last axis, turned around.
        let turned = resize_separately(
            input.view().permuted_axes([1, 2, 0]),
            [9, 5, 8],
            Order::Cubic,
            Some(2),
        );
        assert_eq!(turned.permuted_axes([2, 0, 1]), output);
    }
}
