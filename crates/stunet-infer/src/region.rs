//! A part of the body: the box around labels of a coarse prediction, in which alone another model
//! predicts.
//!
//! ```text
//! coarse model -> labelmap -> region_of(labels, margin) -> Prepared::within -> predict_prepared
//! ```
//!
//! The volume is normalised and resampled as a whole and cropped afterwards, and the windows are some of
//! those of the whole, so that the second model sees what it would see without a region.

use crate::error::InferError;
use crate::model::Model;
use crate::predict::Prepared;
use crate::windows::Windows;
use std::collections::BTreeSet;
use stunet_data::DataError;
use stunet_data::components::{Connectivity, LabelComponents};
use stunet_data::labels::{CompactLabelMap, LabelChoice};
use stunet_data::preprocess::crop::BoundingBox;
use stunet_data::statistics::{CaseStatistics, StatisticsInput};

/// Parts of a label that are smaller than this share of its largest part are taken for mistakes of the
/// coarse model, which would make the region larger.
const SMALLEST_PART: f64 = 0.1;

/// The box around the voxels of some labels with a margin, half-open, `[z, y, x]` of the file; none
/// where there are no such voxels.
///
/// Connected parts of less than a tenth of the largest one of their label do not count.
///
/// # Units
/// The margin is in mm; it is rounded up to whole voxels and ends at the borders of the volume.
///
/// ```
/// use ndarray::arr3;
/// use stunet_data::geometry::Geometry;
/// use stunet_data::labels::{CompactLabelMap, LabelVoxels};
/// let geometry = Geometry::axis_aligned([1, 1, 9], [2.0, 2.0, 2.0])?;
/// let voxels = LabelVoxels::Bytes(arr3(&[[[0, 0, 0, 0, 5, 5, 0, 0, 0]]]));
/// let labels = CompactLabelMap { voxels, geometry };
/// let region = stunet_infer::region::region_of(labels, &[5].into(), 3.0)?;
/// assert_eq!(region, Some([[0, 1], [0, 1], [2, 8]]));
/// # Ok::<(), stunet_data::DataError>(())
/// ```
///
/// # Errors
/// None that bad labels could cause.
pub fn region_of(
    mut labels: CompactLabelMap,
    wanted: &BTreeSet<u16>,
    margin_mm: f64,
) -> Result<Option<BoundingBox>, DataError> {
    labels.keep_only(&LabelChoice::Of(wanted.clone()));
    let parts = LabelComponents::of(&labels.voxels, Connectivity::Corners);
    let largest = |label: u16| {
        let of = parts.parts().iter().filter(|part| part.label == label);
        of.map(|part| part.voxels).max().unwrap_or(0) as f64
    };
    let largest: std::collections::BTreeMap<u16, f64> =
        wanted.iter().map(|label| (*label, largest(*label))).collect();
    let small = parts.parts().iter();
    let small: Vec<bool> =
        small.map(|part| (part.voxels as f64) < SMALLEST_PART * largest[&part.label]).collect();
    parts.remove(&small, &mut labels.voxels);
    let found = CaseStatistics::of("", &labels, &[], StatisticsInput::default())?;
    let boxes = found.labels.iter().filter_map(|label| label.position.as_ref());
    let boxes = boxes.map(|position| position.box_voxels);
    let around = boxes.fold(None, |around: Option<BoundingBox>, of| {
        let of = [of.z, of.y, of.x].map(|[first, last]| [first, last + 1]);
        Some(match around {
            None => of,
            Some(around) => std::array::from_fn(|axis| {
                [around[axis][0].min(of[axis][0]), around[axis][1].max(of[axis][1])]
            }),
        })
    });
    let geometry = &labels.geometry;
    let (shape, size) = (geometry.shape(), geometry.voxel_size_mm());
    Ok(around.map(|around| {
        std::array::from_fn(|axis| {
            let margin = (margin_mm / size[axis]).ceil().max(0.0) as usize;
            let [from, to] = around[axis];
            [from.saturating_sub(margin), to.saturating_add(margin).min(shape[axis])]
        })
    }))
}

impl Prepared {
    /// The part of the network's volume that the windows around a box of the file (`[z, y, x]`, half-open)
    /// cover, with windows at steps of at most `step_size`. They are the windows of the whole volume, so
    /// that labels are the same where the part holds every window that sees them. None where the box lies
    /// outside of what preprocessing has kept.
    ///
    /// # Errors
    /// As [`Windows::new`].
    pub fn region(
        &self,
        model: &Model,
        step_size: f64,
        file_box: BoundingBox,
    ) -> Result<Option<BoundingBox>, InferError> {
        let trace = &self.preprocessed.trace;
        let Some(needed) = trace.network_box(file_box) else { return Ok(None) };
        let windows = Windows::new(trace.network_shape(), model.plans().patch_size, step_size)?;
        Ok(Some(std::array::from_fn(|axis| windows.around(axis, needed[axis]))))
    }

    /// Only a part of the network's volume, such as [`Prepared::region`].
    ///
    /// # Panics
    /// When the box is empty or reaches beyond the volume, or this is a part already.
    pub fn within(self, region: BoundingBox) -> Self {
        Self { preprocessed: self.preprocessed.within(region), secs: self.secs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use stunet_data::geometry::Geometry;
    use stunet_data::labels::LabelVoxels;

    #[test]
    fn small_parts_are_mistakes() {
        let geometry = Geometry::axis_aligned([20, 20, 20], [3.0, 2.0, 1.0]).unwrap();
        let mut voxels = Array3::<u8>::zeros((20, 20, 20));
        voxels.slice_mut(ndarray::s![5..10, 5..10, 5..10]).fill(3);
        voxels[[19, 19, 19]] = 3;
        voxels[[0, 12, 8]] = 4;
        let labels = CompactLabelMap { voxels: LabelVoxels::Bytes(voxels), geometry };
        let of = |wanted: &[u16], margin| {
            let wanted = wanted.iter().copied().collect();
            region_of(labels.clone(), &wanted, margin).unwrap()
        };
        assert_eq!(of(&[3], 0.0), Some([[5, 10], [5, 10], [5, 10]]));
        // A part that is its label's only one is none.
        assert_eq!(of(&[3, 4], 0.0), Some([[0, 10], [5, 13], [5, 10]]));
        assert_eq!(of(&[3], 4.0), Some([[3, 12], [3, 12], [1, 14]]));
        assert_eq!(of(&[3], 1000.0), Some([[0, 20], [0, 20], [0, 20]]));
        assert_eq!(of(&[7], 4.0), None);
    }
}
