//! What nnU-Net 1 notes beside its `softmax`: where the cropped image lies in the whole one.

use super::{differs, open_archive};
use crate::InferError;
use ndarray::{Array3, s};
use serde_json::Value;
use std::path::Path;
use stunet_model::weights::pickle;

/// The array of nnU-Net 1.
pub(super) const ARRAY: &str = "softmax.npy";
/// Most voxels of an image.
const MOST: usize = isize::MAX as usize / 8;

/// How many outputs the probabilities of nnU-Net 1 have; none of other files.
///
/// # Errors
/// When the file is no archive, or its array is damaged.
pub fn outputs_of_v1(path: &Path) -> Result<Option<usize>, InferError> {
    let mut archive = open_archive(path)?;
    if archive.index_for_name(ARRAY).is_none() {
        return Ok(None);
    }
    let array = archive.by_name(ARRAY).map_err(|e| differs(path, ARRAY, e.to_string()));
    let header = super::npy::header(&mut array?);
    let header = header.map_err(InferError::io("cannot read probabilities", path))?;
    Ok(Some(header.shape[0]))
}

/// Where the cropped image lies.
pub(super) struct Cropped {
    /// Shape of the whole image, `[z, y, x]`.
    shape: [usize; 3],
    /// Of the whole image, the first voxel.
    first: [usize; 3],
    /// Of regions: the labels that they are painted with.
    pub regions: Option<Vec<u16>>,
}

/// The properties beside the probabilities, read without executing anything.
///
/// # Source
/// nnU-Net 1.7.1, `save_segmentation_nifti_from_softmax`: `crop_bbox` and `original_size_of_raw_data` of the
/// properties; the box ends where the array does.
pub(super) fn properties(npz: &Path, shape: [usize; 4]) -> Result<Cropped, InferError> {
    let path = &npz.with_extension("pkl");
    let root = pickle::read_file(path)?.to_json();
    let [_, cropped @ ..] = shape;
    let wanted = format!("original_size_of_raw_data and crop_bbox around {cropped:?} voxels");
    let found =
        || format!("{:.80} and {:.80}", root["original_size_of_raw_data"], root["crop_bbox"]);
    let bad = || differs(path, &*wanted, found());
    let whole = triple(&root["original_size_of_raw_data"]).ok_or_else(bad)?;
    let first = match &root["crop_bbox"] {
        Value::Null => [0; 3],
        bounds => {
            let sides = bounds.as_array().filter(|sides| sides.len() == 3).ok_or_else(bad)?;
            let begins: Option<Vec<usize>> =
                sides.iter().map(|side| whole_number(&side[0])).collect();
            begins.and_then(|begins| begins.try_into().ok()).ok_or_else(bad)?
        }
    };
    let inside =
        (0..3).all(|a| first[a].checked_add(cropped[a]).is_some_and(|end| end <= whole[a]));
    let count = whole.iter().try_fold(1usize, |n, length| n.checked_mul(*length));
    if !inside || count.is_none_or(|count| count > MOST) {
        return Err(bad());
    }
    let regions = match &root["regions_class_order"] {
        Value::Null => None,
        order => {
            let labels = order.as_array().into_iter().flatten();
            let labels: Option<Vec<u16>> = labels
                .map(|label| whole_number(label).and_then(|label| u16::try_from(label).ok()))
                .collect();
            let bad = || differs(path, "labels as regions_class_order", order.to_string());
            Some(labels.filter(|labels| !labels.is_empty()).ok_or_else(bad)?)
        }
    };
    Ok(Cropped { shape: whole, first, regions })
}

impl Cropped {
    /// The whole image, background around the cropped one.
    pub fn placed(&self, labels: Array3<u16>) -> Array3<u16> {
        let mut whole = Array3::zeros(self.shape);
        let (z, y, x) = labels.dim();
        let [from_z, from_y, from_x] = self.first;
        let box_of = s![from_z..from_z + z, from_y..from_y + y, from_x..from_x + x];
        whole.slice_mut(box_of).assign(&labels);
        whole
    }
}

fn triple(value: &Value) -> Option<[usize; 3]> {
    let numbers: Option<Vec<usize>> = value.as_array()?.iter().map(whole_number).collect();
    numbers?.try_into().ok()
}

/// A length, also where it is a float.
fn whole_number(value: &Value) -> Option<usize> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0)?;
    (number <= MOST as f64).then_some(number as usize)
}
