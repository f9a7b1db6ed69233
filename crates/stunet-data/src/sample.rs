//! Training cases, and where patches are extracted from them.
//!
//! A [`TrainingCase`] is a preprocessed volume with its labels and with the voxels of every class
//! that were drawn once, when it was preprocessed ([`class_locations`]). [`PatchSampler`] draws the
//! corner of a patch; the [part](TrainingCase::part) that the patch is made of is read later, so that a
//! case need not fit into memory.

mod lazy;
mod locations;
mod sampler;

pub use lazy::LazyCases;
pub use locations::{ANNOTATED, ClassLocations, class_locations};
pub use sampler::{CropPosition, PatchSampler, is_forced};

use crate::error::{DataError, Result};
use ndarray::{Array3, Array4, ArrayView3, ArrayView4, CowArray, Ix3, Ix4};

/// A preprocessed volume to cut patches from.
///
/// Images are normalised and in the network's frame; labels lie on the same grid and are -1 outside the
/// nonzero region, an ignore label included.
pub trait TrainingCase: Send + Sync {
    /// What errors and logs call it.
    fn name(&self) -> &str;
    /// Shape of the image, `[C, Z, Y, X]`.
    fn shape(&self) -> [usize; 4];
    /// Image and labels of a box within the case, of `size` voxels from `first` on; what is at hand may be
    /// more than was asked for.
    ///
    /// # Errors
    /// When the voxels cannot be read.
    fn part(&self, first: [usize; 3], size: [usize; 3]) -> Result<CasePart<'_>>;
    /// Voxels drawn of every class.
    ///
    /// # Errors
    /// When they cannot be read.
    fn locations(&self) -> Result<&ClassLocations>;
}

/// A part of a case, or all of it.
#[derive(Clone, Debug)]
pub struct CasePart<'a> {
    /// `[C, z, y, x]`.
    pub image: CowArray<'a, f32, Ix4>,
    /// `[z, y, x]`.
    pub labels: CowArray<'a, i16, Ix3>,
    /// Its first voxel, in voxels of the case.
    pub first: [usize; 3],
}

impl<'a> CasePart<'a> {
    /// A whole case that is in memory.
    pub fn whole(image: ArrayView4<'a, f32>, labels: ArrayView3<'a, i16>) -> Self {
        Self { image: image.into(), labels: labels.into(), first: [0; 3] }
    }
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

    /// Normalised, in the network's frame, `[C, Z, Y, X]`.
    pub fn image(&self) -> ArrayView4<'_, f32> {
        self.image.view()
    }

    /// On the same grid.
    pub fn labels(&self) -> ArrayView3<'_, i16> {
        self.labels.view()
    }

    /// Voxels drawn of every class.
    pub fn locations(&self) -> &ClassLocations {
        &self.locations
    }
}

impl TrainingCase for MemoryCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> [usize; 4] {
        self.image.dim().into()
    }

    fn part(&self, _: [usize; 3], _: [usize; 3]) -> Result<CasePart<'_>> {
        Ok(CasePart::whole(self.image(), self.labels()))
    }

    fn locations(&self) -> Result<&ClassLocations> {
        Ok(&self.locations)
    }
}

impl TrainingCase for &MemoryCase {
    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> [usize; 4] {
        (**self).shape()
    }

    fn part(&self, first: [usize; 3], size: [usize; 3]) -> Result<CasePart<'_>> {
        (**self).part(first, size)
    }

    fn locations(&self) -> Result<&ClassLocations> {
        Ok(&self.locations)
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
