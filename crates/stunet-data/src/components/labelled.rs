//! The connected parts of every label at once.

use super::runs::{Runs, Zeros};
use super::{Connectivity, Numbered, PartVolume, painted};
use crate::labels::LabelVoxels;
use rayon::prelude::*;

/// A connected part of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelPart {
    /// The label.
    pub label: u16,
    /// Its voxels.
    pub voxels: u64,
}

/// The connected parts of every label of a labelmap, numbered from 1 in the order of their first
/// voxels: voxels are of one part when a way of touching voxels of the same label leads from one to
/// the other. Background has none.
///
/// What it takes grows with the runs of equal voxels along x and not with the voxels.
///
/// ```
/// use ndarray::arr3;
/// use stunet_data::components::{Connectivity, LabelComponents, LabelPart};
/// use stunet_data::labels::LabelVoxels;
/// let labels = LabelVoxels::Bytes(arr3(&[[[7, 7, 2, 0, 7], [0, 2, 0, 0, 7]]]));
/// let parts = LabelComponents::of(&labels, Connectivity::Corners);
/// let found = [(7, 2), (2, 2), (7, 2)].map(|(label, voxels)| LabelPart { label, voxels });
/// assert_eq!(parts.parts(), found);
/// assert_eq!(parts.volume()[..], [1, 1, 2, 0, 3, 0, 2, 0, 0, 3]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelComponents {
    runs: Runs,
    /// Part of every run.
    numbers: Vec<u32>,
    parts: Vec<LabelPart>,
}

impl LabelComponents {
    /// Finds the parts, in parallel; the result does not depend on the number of threads.
    ///
    /// # Panics
    /// When the volume has 2³² runs of voxels or more.
    pub fn of(labels: &LabelVoxels, connectivity: Connectivity) -> Self {
        let runs = runs_of(labels, Zeros::Skip);
        let Numbered { numbers, parts } = Numbered::of(&runs, connectivity);
        Self { runs, numbers, parts }
    }

    /// Label and size of every part; the first is that of number 1.
    pub fn parts(&self) -> &[LabelPart] {
        &self.parts
    }

    /// The number of the part that each voxel belongs to, in the order z, y, x; 0 in the background.
    pub fn volume(&self) -> PartVolume {
        painted(&self.runs, &self.numbers)
    }

    /// Sets the voxels of some parts to background: of those for which `goes` is true, by number less
    /// one.
    ///
    /// # Panics
    /// When the labels have another shape than those whose parts these are, or `goes` another length
    /// than [`LabelComponents::parts`].
    pub fn remove(&self, goes: &[bool], labels: &mut LabelVoxels) {
        assert_eq!(goes.len(), self.parts.len(), "a choice about other parts");
        match labels {
            LabelVoxels::Bytes(voxels) => self.clear(goes, voxels.as_slice_mut(), self.runs.shape),
            LabelVoxels::Words(voxels) => self.clear(goes, voxels.as_slice_mut(), self.runs.shape),
        }
    }

    fn clear<T: Default + Copy + Send>(
        &self,
        goes: &[bool],
        voxels: Option<&mut [T]>,
        [depth, height, width]: [usize; 3],
    ) {
        let voxels = voxels.expect("labels in standard layout");
        assert_eq!(voxels.len(), depth * height * width, "labels of another shape");
        voxels.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, voxels)| {
            let range = self.runs.of_row(row);
            for (run, number) in self.runs.iter(range.clone()).zip(&self.numbers[range]) {
                if goes[*number as usize - 1] {
                    voxels[run.range()].fill(T::default());
                }
            }
        });
    }
}

/// The runs of a labelmap, whichever its layout in memory.
pub(crate) fn runs_of(labels: &LabelVoxels, zeros: Zeros) -> Runs {
    match labels {
        LabelVoxels::Bytes(voxels) => {
            let (z, y, x) = voxels.dim();
            let voxels = voxels.as_standard_layout();
            Runs::of(voxels.as_slice().expect("standard layout is contiguous"), [z, y, x], zeros)
        }
        LabelVoxels::Words(voxels) => {
            let (z, y, x) = voxels.dim();
            let voxels = voxels.as_standard_layout();
            Runs::of(voxels.as_slice().expect("standard layout is contiguous"), [z, y, x], zeros)
        }
    }
}
