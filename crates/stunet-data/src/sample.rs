//! Training cases, and where patches are extracted from them.
//!
//! A [`TrainingCase`] is a preprocessed volume with its labels and with the voxels of every class
//! that were drawn once, when it was preprocessed ([`class_locations`]). [`PatchSampler`] draws the
//! corner of a patch; the patch is read later, so that only its voxels are touched.

mod lazy;
mod locations;
mod sampler;

pub use lazy::LazyCases;
pub use locations::{ANNOTATED, ClassLocations, class_locations};
pub use sampler::{CropPosition, PatchSampler, is_forced};

use crate::error::{DataError, Result};
use ndarray::{Array3, Array4, ArrayView3, ArrayView4};

/// A preprocessed volume to cut patches from.
pub trait TrainingCase: Send + Sync {
    /// What errors and logs call it.
    fn name(&self) -> &str;
    /// Normalised, in the network's frame, `[C, Z, Y, X]`.
    fn image(&self) -> ArrayView4<'_, f32>;
    /// On the same grid; -1 outside the nonzero region, an ignore label included.
    fn labels(&self) -> ArrayView3<'_, i16>;
    /// Voxels drawn of every class.
    fn locations(&self) -> &ClassLocations;
}

/// The cases of a training or a validation set.
pub trait TrainingCases: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;
    /// True without cases.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Opens a case; cheap, because a case on disk is mapped, not read.
    ///
    /// # Errors
    /// When it cannot be read.
    fn open(&self, index: usize) -> Result<Box<dyn TrainingCase + '_>>;
    /// What an error of [`open`](Self::open) calls the case.
    fn name(&self, index: usize) -> String {
        format!("number {index}")
    }
}

/// A case in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryCase {
    name: String,
    image: Array4<f32>,
    labels: Array3<i16>,
    locations: ClassLocations,
}

impl MemoryCase {
    /// A case whose classes are the labels above 0 that occur.
    ///
    /// # Errors
    /// When image and labels have different shapes.
    pub fn new(name: impl Into<String>, image: Array4<f32>, labels: Array3<i16>) -> Result<Self> {
        check_shapes(image.view(), labels.view())?;
        let locations = locations::of_present_labels(labels.view());
        Ok(Self { name: name.into(), image, labels, locations })
    }

    /// The same case with other locations, such as those of regions.
    #[must_use]
    pub fn with_locations(mut self, locations: ClassLocations) -> Self {
        self.locations = locations;
        self
    }
}

impl TrainingCase for MemoryCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn image(&self) -> ArrayView4<'_, f32> {
        self.image.view()
    }

    fn labels(&self) -> ArrayView3<'_, i16> {
        self.labels.view()
    }

    fn locations(&self) -> &ClassLocations {
        &self.locations
    }
}

impl TrainingCase for &MemoryCase {
    fn name(&self) -> &str {
        (*self).name()
    }

    fn image(&self) -> ArrayView4<'_, f32> {
        (*self).image()
    }

    fn labels(&self) -> ArrayView3<'_, i16> {
        (*self).labels()
    }

    fn locations(&self) -> &ClassLocations {
        (*self).locations()
    }
}

impl TrainingCases for Vec<MemoryCase> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn open(&self, index: usize) -> Result<Box<dyn TrainingCase + '_>> {
        Ok(Box::new(&self[index]))
    }

    fn name(&self, index: usize) -> String {
        self[index].name.clone()
    }
}

/// Image and labels of a case must lie on one grid.
pub(crate) fn check_shapes(image: ArrayView4<'_, f32>, labels: ArrayView3<'_, i16>) -> Result<()> {
    if image.shape()[1..] == *labels.shape() {
        return Ok(());
    }
    Err(DataError::Mismatch {
        what: "shape of the labels",
        expected: format!("{:?}", &image.shape()[1..]),
        found: format!("{:?}", labels.shape()),
    })
}
