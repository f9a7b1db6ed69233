//! Rotation and scaling about the middle of a crop.

mod image;
mod labels;
mod spline;

use super::{Crop, balanced, uniform};
use crate::preprocess::resample::Order;
use crate::reference::{AugmentationConventions, RotationOrder};
use ndarray::{Array3, Array4};
use rand::{Rng, RngExt};
use std::f64::consts::PI;

/// How labels are interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelOrder {
    /// The nearest voxel.
    Nearest,
    /// Between the eight neighbours.
    Linear,
}

/// Rotates and scales, each by chance.
///
/// # Source
/// v1: `augment_spatial` of batchgenerators 0.25: cubic B-spline (`map_coordinates`, order 3, mode
/// `constant`, mirrored prefilter), labels by the largest label whose share is at least one half; 0
/// outside. v2: `SpatialTransform` of batchgeneratorsv2: linear, labels by the largest share.
///
/// # Deviations
/// Images are computed in single precision from positions in double precision (v1: within 1e-4 of the
/// reference's double precision; v2 computes positions in single precision).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spatial {
    /// Whose arithmetic.
    pub flavour: &'static AugmentationConventions,
    /// In the planes across the first axis only.
    pub slice_by_slice: bool,
    /// How often it rotates.
    pub rotation_probability: f64,
    /// Largest angle about each axis, in radians.
    pub max_angle: f64,
    /// How often it scales.
    pub scaling_probability: f64,
    /// Range of the factor, one for all axes; above 1 shows more and everything smaller.
    pub scale: (f64, f64),
    /// How labels are interpolated.
    pub label_order: LabelOrder,
}

/// What was drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SpatialParams {
    /// Angles about the axes `[z, y, x]` in radians; slice by slice only the first counts.
    pub angles: Option<[f64; 3]>,
    /// Factor.
    pub scale: Option<f64>,
}

impl SpatialParams {
    /// True where the middle of the crop is taken as it is.
    pub fn is_identity(&self) -> bool {
        self.angles.is_none() && self.scale.is_none()
    }
}

impl Spatial {
    /// The reference's probabilities and ranges.
    pub fn of(flavour: &'static AugmentationConventions, slice_by_slice: bool) -> Self {
        Self {
            flavour,
            slice_by_slice,
            rotation_probability: 0.2,
            max_angle: max_angle(slice_by_slice),
            scaling_probability: 0.2,
            scale: (0.7, 1.4),
            label_order: LabelOrder::Linear,
        }
    }

    /// Draws.
    pub fn sample(&self, rng: &mut impl Rng) -> SpatialParams {
        let range = (-self.max_angle, self.max_angle);
        let rotates = rng.random_bool(self.rotation_probability);
        let angles = rotates.then(|| {
            let first = uniform(range, rng);
            if self.slice_by_slice {
                [first, 0.0, 0.0]
            } else {
                [first, uniform(range, rng), uniform(range, rng)]
            }
        });
        let scales = rng.random_bool(self.scaling_probability);
        let scale = scales.then(|| match self.flavour.balanced_scale {
            true => balanced(self.scale, rng),
            false => uniform(self.scale, rng),
        });
        SpatialParams { angles, scale }
    }
}

impl Spatial {
    /// Crop that a patch is made from, at this largest angle: [`crop_size`] for the reference's.
    pub(super) fn crop_size(&self, patch_size: [usize; 3]) -> [usize; 3] {
        crop_size_at(patch_size, self.slice_by_slice, self.max_angle)
    }
}

/// Largest angle about each axis: half a turn where only slices turn.
fn max_angle(slice_by_slice: bool) -> f64 {
    if slice_by_slice { PI } else { PI / 6.0 }
}

/// True for patches more than three times as wide as high, which turn slice by slice.
pub(super) fn is_flat(patch_size: [usize; 3]) -> bool {
    let longest = patch_size.into_iter().max().unwrap_or(0);
    longest > 3 * patch_size[0]
}

/// Crop that a patch is made from: it holds the patch turned about each axis alone, at 0.85 of its
/// size (although patches are later scaled by up to 1.4).
///
/// # Source
/// nnU-Net's `get_patch_size` with the scale range (0.85, 1.25).
pub fn crop_size(patch_size: [usize; 3], slice_by_slice: bool) -> [usize; 3] {
    crop_size_at(patch_size, slice_by_slice, max_angle(slice_by_slice))
}

fn crop_size_at(patch_size: [usize; 3], slice_by_slice: bool, angle: f64) -> [usize; 3] {
    const MIN_SCALE: f64 = 0.85;
    let angle = angle.min(PI / 2.0);
    let size = patch_size.map(|n| n as f64);
    let mut largest = size;
    let axes = if slice_by_slice { 1 } else { 3 };
    for axis in 0..axes {
        let mut angles = [0.0; 3];
        angles[axis] = angle;
        let matrix = rotation(angles);
        for (j, largest) in largest.iter_mut().enumerate() {
            let turned: f64 = (0..3).map(|i| size[i] * matrix[i][j]).sum();
            *largest = largest.max(turned.abs());
        }
    }
    let mut crop = largest.map(|n| (n / MIN_SCALE) as usize);
    if slice_by_slice {
        crop[0] = patch_size[0];
    }
    crop
}

/// Rotates and scales the middle of a crop into a patch.
///
/// # Panics
/// When slices are transformed alone and patch and crop have different numbers of them.
pub fn transform(
    spatial: &Spatial,
    params: &SpatialParams,
    crop: &Crop<'_>,
    crop_size: [usize; 3],
    patch_size: [usize; 3],
) -> (Array4<f32>, Array3<i16>) {
    let flat = spatial.slice_by_slice;
    assert!(!flat || crop_size[0] == patch_size[0], "slices are not cut away");
    let positions = Positions::new(spatial, params, crop_size, patch_size);
    let image = match spatial.flavour.order {
        Order::Cubic => image::cubic(crop, &positions, flat),
        Order::Linear | Order::Nearest => image::linear(crop, &positions),
    };
    let labels = labels::transform(crop, &positions, spatial);
    (image, labels)
}

/// What [`transform`] reads of a crop: its first voxel, and its size.
pub(super) fn reach(
    spatial: &Spatial,
    params: &SpatialParams,
    crop_size: [usize; 3],
    patch_size: [usize; 3],
) -> ([usize; 3], [usize; 3]) {
    // Labels are read with the least margin.
    let margin = match spatial.flavour.order {
        Order::Cubic => image::CUBIC_MARGIN,
        Order::Linear | Order::Nearest => image::LINEAR_MARGIN,
    };
    Positions::new(spatial, params, crop_size, patch_size).reachable(margin)
}

type Matrix = [[f64; 3]; 3];

/// Rotation about axis 0, then 1, then 2, for row vectors: `v . R0 . R1 . R2`.
fn rotation(angles: [f64; 3]) -> Matrix {
    let [(s0, c0), (s1, c1), (s2, c2)] = angles.map(f64::sin_cos);
    let r0 = [[1.0, 0.0, 0.0], [0.0, c0, -s0], [0.0, s0, c0]];
    let r1 = [[c1, 0.0, s1], [0.0, 1.0, 0.0], [-s1, 0.0, c1]];
    let r2 = [[c2, -s2, 0.0], [s2, c2, 0.0], [0.0, 0.0, 1.0]];
    product(product(r0, r1), r2)
}

/// In the plane of axes 1 and 2.
fn rotation_in_plane(angle: f64) -> Matrix {
    let (s, c) = angle.sin_cos();
    [[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]]
}

fn product(a: Matrix, b: Matrix) -> Matrix {
    let cell = |i: usize, j: usize| (0..3).map(|k| a[i][k] * b[k][j]).sum();
    std::array::from_fn(|i| std::array::from_fn(|j| cell(i, j)))
}

fn transposed(a: Matrix) -> Matrix {
    std::array::from_fn(|i| std::array::from_fn(|j| a[j][i]))
}

/// Where each voxel of a patch looks in the crop.
struct Positions {
    crop_size: [usize; 3],
    patch_size: [usize; 3],
    /// For row vectors from the patch's middle.
    matrix: Matrix,
    scale: [f64; 3],
    /// Middle of the crop.
    centre: [f64; 3],
}

impl Positions {
    fn new(
        spatial: &Spatial,
        params: &SpatialParams,
        crop_size: [usize; 3],
        patch_size: [usize; 3],
    ) -> Self {
        let angles = params.angles.unwrap_or_default();
        let mut matrix = if spatial.slice_by_slice {
            rotation_in_plane(angles[0])
        } else {
            match spatial.flavour.rotation {
                RotationOrder::RowVectors => rotation(angles),
                // R2 . R1 . R0 . v.
                RotationOrder::ColumnVectors => {
                    let [a, b, c] = angles;
                    let about = |angles| rotation(angles);
                    let r = product(about([0.0, 0.0, c]), about([0.0, b, 0.0]));
                    transposed(product(r, about([a, 0.0, 0.0])))
                }
            }
        };
        if spatial.slice_by_slice && spatial.flavour.rotation == RotationOrder::ColumnVectors {
            matrix = transposed(matrix);
        }
        let mut scale = [params.scale.unwrap_or(1.0); 3];
        if spatial.slice_by_slice {
            scale[0] = 1.0;
        }
        let centre = crop_size.map(|n| n as f64 / 2.0 - 0.5);
        Self { crop_size, patch_size, matrix, scale, centre }
    }

    /// Centres of the last voxels of the crop.
    fn last(&self) -> [f64; 3] {
        self.crop_size.map(|n| (n - 1) as f64)
    }

    /// Of the voxels of one row.
    fn row(&self, z: usize, y: usize) -> Row {
        let at = |axis: usize, i: usize| i as f64 - (self.patch_size[axis] as f64 - 1.0) / 2.0;
        let (z, y) = (at(0, z), at(1, y));
        Row {
            start: std::array::from_fn(|j| z * self.matrix[0][j] + y * self.matrix[1][j]),
            step: self.matrix[2],
            first: at(2, 0),
            scale: self.scale,
            centre: self.centre,
        }
    }

    /// Lowest and highest position along each axis, held to the crop.
    fn range(&self) -> [(f64, f64); 3] {
        let last = self.patch_size.map(|n| n - 1);
        let none = [(f64::INFINITY, f64::NEG_INFINITY); 3];
        let mut range = none;
        for corner in 0..8 {
            let at = |axis: usize| if corner >> axis & 1 == 1 { last[axis] } else { 0 };
            let position = self.row(at(0), at(1)).at(at(2));
            for ((low, high), p) in range.iter_mut().zip(position) {
                (*low, *high) = (low.min(p), high.max(p));
            }
        }
        std::array::from_fn(|axis| {
            let last = (self.crop_size[axis] - 1) as f64;
            (range[axis].0.clamp(0.0, last), range[axis].1.clamp(0.0, last))
        })
    }

    /// Voxels of the crop that lie within `margin` of a position: first, and how many.
    fn reachable(&self, margin: usize) -> ([usize; 3], [usize; 3]) {
        let range = self.range();
        let first = range.map(|(low, _)| (low as usize).saturating_sub(margin));
        let size = std::array::from_fn(|axis| {
            let last = (range[axis].1 as usize + 1 + margin).min(self.crop_size[axis] - 1);
            last + 1 - first[axis]
        });
        (first, size)
    }
}

/// Where the voxels of one row look; computed in the reference's order.
#[derive(Clone, Copy)]
struct Row {
    start: [f64; 3],
    step: [f64; 3],
    first: f64,
    scale: [f64; 3],
    centre: [f64; 3],
}

/// Voxels of a row that are computed side by side.
const LANES: usize = 8;

/// Where the next `LANES` voxels of a row look, each as the voxel below it and the way from there.
struct Lanes {
    whole: [[i32; LANES]; 3],
    t: [[f64; LANES]; 3],
    /// True where the position lies between the bounds.
    inside: [bool; LANES],
}

impl Row {
    #[inline(always)]
    fn at(&self, x: usize) -> [f64; 3] {
        let x = self.first + x as f64;
        let along = |j: usize| (self.start[j] + x * self.step[j]) * self.scale[j] + self.centre[j];
        [along(0), along(1), along(2)]
    }

    /// From voxel `x` on, held to the bounds, of which `low` is a whole number.
    #[inline(always)]
    #[allow(clippy::needless_range_loop, reason = "one index into six arrays")]
    fn lanes(&self, x: usize, low: f64, high: [f64; 3]) -> Lanes {
        let mut lanes =
            Lanes { whole: [[0; LANES]; 3], t: [[0.0; LANES]; 3], inside: [true; LANES] };
        for j in 0..3 {
            for lane in 0..LANES {
                let x = self.first + (x + lane) as f64;
                let p = (self.start[j] + x * self.step[j]) * self.scale[j] + self.centre[j];
                let held = if p < low { low } else { p };
                let held = if held > high[j] { high[j] } else { held };
                lanes.inside[lane] &= held == p;
                // Not negative after the shift: truncation rounds down.
                let whole = (held - low) as i32;
                lanes.whole[j][lane] = whole;
                lanes.t[j][lane] = (held - low) - f64::from(whole);
            }
        }
        lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_are_as_large_as_the_reference_s() {
        assert_eq!(crop_size([128; 3], false), [205; 3]);
        assert_eq!(crop_size([28, 256, 256], false), [179, 411, 301]);
        assert_eq!(crop_size([28, 256, 256], true), [28, 301, 301]);
        assert!(is_flat([42, 127, 20]) && !is_flat([42, 126, 20]));
    }

    #[test]
    fn rotations_keep_lengths() {
        let r = rotation([0.3, -0.2, 0.45]);
        let unit = product(r, transposed(r));
        for (i, row) in unit.iter().enumerate() {
            for (j, value) in row.iter().enumerate() {
                assert!((value - f64::from(u8::from(i == j))).abs() < 1e-15);
            }
        }
    }
}
