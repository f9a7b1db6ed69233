//! nnU-Net's postprocessing: all but the largest connected part of a class goes, where that made the
//! predictions of cross-validation better.
//!
//! [`determine`] decides by nnU-Net's rule which classes that is for, [`Postprocessing`] reads and
//! writes the decision in the files of both nnU-Nets, and [`Postprocessing::apply`] does it.

mod determine;
mod literal;
mod step;
mod stored;

pub use determine::{Determined, PostprocessingRule, PostprocessingTrial, determine};
pub use step::KeepLargest;
pub use stored::PICKLE_FUNCTION;

use stunet_data::labels::LabelMap;

/// What is done to predicted labels, one step after the other.
///
/// ```
/// use ndarray::arr3;
/// use stunet_data::geometry::Geometry;
/// use stunet_data::labels::LabelMap;
/// use stunet_infer::evaluate::Class;
/// use stunet_infer::postprocess::{KeepLargest, Postprocessing};
/// let grid = Geometry::axis_aligned([1, 1, 6], [1.0; 3])?;
/// let mut labels = LabelMap::new(arr3(&[[[1, 0, 1, 1, 0, 2]]]), grid)?;
/// let steps = vec![KeepLargest::of(vec![Class::Label(1)])];
/// Postprocessing { steps }.apply(&mut labels);
/// assert_eq!(labels.data, arr3(&[[[0, 0, 1, 1, 0, 2]]]));
/// # Ok::<(), stunet_data::DataError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Postprocessing {
    /// In their order.
    pub steps: Vec<KeepLargest>,
}

impl Postprocessing {
    /// Changes labels.
    pub fn apply(&self, labels: &mut LabelMap) {
        let voxel_mm3 = labels.geometry.spacing_mm().iter().product();
        for step in &self.steps {
            step.apply(&mut labels.data, voxel_mm3);
        }
    }
}

#[cfg(test)]
mod tests;
