//! The receipt of preprocessing, and the way back to the file's grid.

use super::crop::BoundingBox;
use super::resample::{AxisTaps, LabelRule, resize_labels};
use crate::error::{DataError, Result};
use crate::geometry::Geometry;
use crate::labels::LabelMap;
use crate::plans::{Plans, Reference, inverse};
use ndarray::{Array3, ArrayView3};
use serde::{Deserialize, Serialize};

/// How labels at the network's resolution are brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestoreOrder {
    /// The nearest voxel (mode `fastest`).
    Nearest,
    /// Linear interpolation of each label's indicator (mode `fast`).
    Linear,
}

/// What preprocessing did, for undoing it.
///
/// # Shapes
/// Three frames, all in the order slow to fast: the *file's* `[z, y, x]`; the *output* frame, which
/// is transposed and cropped but at the file's resolution; and the *network's*, which is resampled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    geometry: Geometry,
    bounds: BoundingBox,
    transpose_forward: [usize; 3],
    network_shape: [usize; 3],
    network_spacing_mm: [f64; 3],
    reference: Reference,
    force_separate_z: Option<bool>,
}

/// Voxels beyond which a resampled volume is taken for a wrong spacing (64 GiB in single precision).
const MAX_VOXELS: f64 = (1u64 << 34) as f64;

impl Trace {
    pub(super) fn new(geometry: &Geometry, bounds: BoundingBox, plans: &Plans) -> Result<Self> {
        let spacing = transposed(geometry.spacing_mm(), plans.transpose_forward);
        let cropped = transposed(bounds.map(|[from, to]| to - from), plans.transpose_forward);
        // Halves go to the even neighbour, in NumPy as in Python. One voxel is the least.
        let shape: [f64; 3] = std::array::from_fn(|axis| {
            let factor = spacing[axis] / plans.spacing_mm[axis];
            (factor * cropped[axis] as f64).round_ties_even().max(1.0)
        });
        if shape.iter().product::<f64>() > MAX_VOXELS {
            return Err(DataError::ResampledTooLarge { shape });
        }
        Ok(Self {
            geometry: geometry.clone(),
            bounds,
            transpose_forward: plans.transpose_forward,
            network_shape: shape.map(|n| n as usize),
            network_spacing_mm: plans.spacing_mm,
            reference: plans.reference,
            force_separate_z: plans.force_separate_z,
        })
    }

    /// Grid of the file.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The nonzero region, half-open ranges in the file's frame.
    pub fn bounding_box(&self) -> BoundingBox {
        self.bounds
    }

    /// Axis of the file that is output and network axis 0, 1, 2.
    pub fn transpose_forward(&self) -> [usize; 3] {
        self.transpose_forward
    }

    /// Shape at the network's resolution, network's frame.
    pub fn network_shape(&self) -> [usize; 3] {
        self.network_shape
    }

    /// Shape at the file's resolution, transposed and cropped.
    pub fn output_shape(&self) -> [usize; 3] {
        transposed(self.bounds.map(|[from, to]| to - from), self.transpose_forward)
    }

    /// Network axis that is resampled apart on the way in, if any.
    ///
    /// # Source
    /// nnU-Net: the largest over the smallest spacing above 3, of the file or else of the plan, with
    /// a single coarsest axis.
    pub fn separate_axis(&self) -> Option<usize> {
        let spacing = transposed(self.geometry.spacing_mm(), self.transpose_forward);
        self.decide([spacing, self.network_spacing_mm])
    }

    /// Network axis that is resampled apart on the way out, if any.
    ///
    /// # Source
    /// Not always the axis of the way in, and reproduced as it is:
    /// * nnU-Net 1 asks the file's spacing, then the plan's, which is transposed, and uses the
    ///   axis found for either on the array in the *file's* order;
    /// * 2.2 asks the plan's spacing, then the file's without transposing it, and uses the axis on
    ///   the array in the *network's* order;
    /// * 2.8 asks the plan's, then the file's in the network's order.
    pub fn separate_axis_of_restore(&self) -> Option<usize> {
        let file = self.geometry.spacing_mm();
        let network = self.network_spacing_mm;
        match self.reference {
            Reference::NnUNetV1 => {
                let file_axis = self.decide([file, network])?;
                Some(inverse(self.transpose_forward)[file_axis])
            }
            Reference::NnUNetV22 => self.decide([network, file]),
            Reference::NnUNetV28 => {
                self.decide([network, transposed(file, self.transpose_forward)])
            }
        }
    }

    fn decide(&self, spacings: [[f64; 3]; 2]) -> Option<usize> {
        let chosen = match self.force_separate_z {
            Some(false) => None,
            Some(true) => Some(spacings[0]),
            None => spacings.into_iter().find(|s| largest(s) / smallest(s) > 3.0),
        }?;
        let coarse = |axis: &usize| largest(&chosen) / chosen[*axis] == 1.0;
        let mut coarsest = (0..3).filter(coarse);
        match (coarsest.next(), coarsest.next()) {
            (Some(axis), None) => Some(axis),
            _ => None,
        }
    }

    /// Per network axis, where each voxel of the output frame looks at the network's resolution:
    /// linear, nearest on the axis that is resampled apart.
    pub fn taps(&self) -> [AxisTaps; 3] {
        let separate = self.separate_axis_of_restore();
        let (from, to) = (self.network_shape, self.output_shape());
        std::array::from_fn(|axis| match separate {
            Some(apart) if apart == axis => AxisTaps::nearest(from[axis], to[axis]),
            _ => AxisTaps::linear(from[axis], to[axis]),
        })
    }

    /// Puts labels of the output frame where they belong in the file's volume; the rest is 0.
    ///
    /// # Panics
    /// When the array has another shape than [`Trace::output_shape`].
    pub fn paste(&self, labels: ArrayView3<'_, u16>) -> LabelMap {
        assert_eq!(labels.shape(), self.output_shape(), "labels of another shape than the output");
        self.paste_untransposed(labels.permuted_axes(inverse(self.transpose_forward)))
    }

    fn paste_untransposed(&self, labels: ArrayView3<'_, u16>) -> LabelMap {
        let mut data = Array3::zeros(self.geometry.shape());
        let [z, y, x] = self.bounds.map(|[from, to]| ndarray::Slice::from(from..to));
        data.slice_mut(ndarray::s![z, y, x]).assign(&labels);
        LabelMap { data, geometry: self.geometry.clone() }
    }

    /// Brings labels at the network's resolution back to the file's grid.
    ///
    /// # Panics
    /// When the array has another shape than [`Trace::network_shape`].
    ///
    /// # Deviations
    /// Where nnU-Net 1 stops with an assertion (spacing apart on two equal axes), the axes are
    /// resampled together.
    pub fn restore_labels(&self, labels: ArrayView3<'_, u16>, order: RestoreOrder) -> LabelMap {
        assert_eq!(
            labels.shape(),
            self.network_shape,
            "labels of another shape than the network's"
        );
        let separate = self.separate_axis_of_restore();
        let backward = inverse(self.transpose_forward);
        match (order, self.reference) {
            // This version turns the axes back first; sums in raster order depend on it.
            (RestoreOrder::Linear, Reference::NnUNetV1) => {
                let shape = self.bounds.map(|[from, to]| to - from);
                let apart = separate.map(|axis| self.transpose_forward[axis]);
                let labels = labels.permuted_axes(backward);
                let labels = resize_labels(labels, shape, LabelRule::LastAboveHalf, apart);
                self.paste_untransposed(labels.view())
            }
            (order, _) => {
                let rule = match order {
                    RestoreOrder::Nearest => LabelRule::Nearest,
                    RestoreOrder::Linear => LabelRule::LargestShare,
                };
                let labels = resize_labels(labels, self.output_shape(), rule, separate);
                self.paste(labels.view())
            }
        }
    }
}

fn transposed<T: Copy>(values: [T; 3], forward: [usize; 3]) -> [T; 3] {
    forward.map(|axis| values[axis])
}

fn largest(values: &[f64; 3]) -> f64 {
    values.iter().copied().fold(f64::MIN, f64::max)
}

fn smallest(values: &[f64; 3]) -> f64 {
    values.iter().copied().fold(f64::MAX, f64::min)
}
