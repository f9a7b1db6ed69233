//! Where the voxels of a label are.

use crate::components::Run;
use crate::geometry::{BodySide, Geometry};
use serde::{Deserialize, Serialize};

/// A place in the patient.
///
/// # Units
/// Millimetres in the world of NIfTI (RAS): `x` to the patient's right, `y` to the front, `z` to the
/// head.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Millimetres {
    /// To the right.
    pub x: f64,
    /// To the front.
    pub y: f64,
    /// To the head.
    pub z: f64,
}

/// A box of voxels: the first and the last index along every axis of the file, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoxelBox {
    /// Along the fastest axis of the file, NIfTI's first.
    pub x: [usize; 2],
    /// Along the second.
    pub y: [usize; 2],
    /// Along the slowest.
    pub z: [usize; 2],
}

/// A box in the patient, along the axes of [`Millimetres`]: the lower and the upper end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelBox {
    /// From left to right.
    pub x: [f64; 2],
    /// From back to front.
    pub y: [f64; 2],
    /// From feet to head.
    pub z: [f64; 2],
}

/// Where the voxels of a label are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelPosition {
    /// Mean of the centres of the voxels.
    pub centroid_mm: Millimetres,
    /// The voxels that hold it.
    pub box_voxels: VoxelBox,
    /// The smallest box around those, outer edges included: larger than the label on oblique grids.
    pub box_mm: LabelBox,
    /// Faces of the volume that the label touches, by the direction in the patient that is closest:
    /// there it may go on outside of the image.
    pub touches: Vec<BodySide>,
}

/// Sums over the voxels of a label.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub voxels: u64,
    pub confidence: u64,
    /// Of the indices z, y, x.
    sums: [u64; 3],
    first: [u64; 3],
    last: [u64; 3],
}

impl Default for Tally {
    fn default() -> Self {
        Self { voxels: 0, confidence: 0, sums: [0; 3], first: [u64::MAX; 3], last: [0; 3] }
    }
}

impl Tally {
    /// Adds a run in a row.
    pub fn add(&mut self, [z, y]: [u64; 2], run: &Run) {
        let (begin, last, length) = (u64::from(run.begin), u64::from(run.end) - 1, run.len());
        self.voxels += length;
        // The sum of begin, .., last: twice the mean is whole.
        let sum_x = (begin + last) * length / 2;
        let ends = [(z, z, z * length), (y, y, y * length), (begin, last, sum_x)];
        for (axis, (low, high, sum)) in ends.into_iter().enumerate() {
            self.sums[axis] += sum;
            self.first[axis] = self.first[axis].min(low);
            self.last[axis] = self.last[axis].max(high);
        }
    }

    /// Adds another part's.
    pub fn merge(&mut self, other: &Self) {
        self.voxels += other.voxels;
        self.confidence += other.confidence;
        for axis in 0..3 {
            self.sums[axis] += other.sums[axis];
            self.first[axis] = self.first[axis].min(other.first[axis]);
            self.last[axis] = self.last[axis].max(other.last[axis]);
        }
    }

    /// Where the voxels are on a grid.
    pub fn position(&self, geometry: &Geometry) -> Option<LabelPosition> {
        if self.voxels == 0 {
            return None;
        }
        let centre = self.sums.map(|sum| sum as f64 / self.voxels as f64);
        let [x, y, z] = geometry.world_of(centre);
        let (first, last) = (self.first.map(|at| at as usize), self.last.map(|at| at as usize));
        let [low, high] = geometry.world_box(first, last);
        let ends = |axis: usize| [first[axis], last[axis]];
        Some(LabelPosition {
            centroid_mm: Millimetres { x, y, z },
            box_voxels: VoxelBox { x: ends(2), y: ends(1), z: ends(0) },
            box_mm: LabelBox { x: [low[0], high[0]], y: [low[1], high[1]], z: [low[2], high[2]] },
            touches: touches(geometry, first, last),
        })
    }
}

fn touches(geometry: &Geometry, first: [usize; 3], last: [usize; 3]) -> Vec<BodySide> {
    let sides = geometry.sides();
    let mut touched: Vec<BodySide> = Vec::new();
    for axis in 0..3 {
        let [low, high] = sides[axis];
        if geometry.is_plane() && axis == 0 {
            continue;
        }
        if first[axis] == 0 {
            touched.push(low);
        }
        if last[axis] + 1 == geometry.shape()[axis] {
            touched.push(high);
        }
    }
    touched.sort();
    touched
}
