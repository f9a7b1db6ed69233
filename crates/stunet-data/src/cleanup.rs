//! Cleaning up labelmaps: small parts of labels removed, holes in them filled.
//!
//! Labels are treated apart from each other. The order is fixed: parts are removed first, then holes
//! are filled.

use crate::components::{Connectivity, LabelComponents, LabelPart, Runs, Zeros, runs_of};
use crate::geometry::Geometry;
use crate::labels::{CompactLabelMap, LabelChoice, LabelVoxels};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;

/// What is removed from a labelmap, and what is filled.
///
/// ```
/// use ndarray::arr3;
/// use stunet_data::cleanup::CleanUp;
/// use stunet_data::geometry::Geometry;
/// use stunet_data::labels::{CompactLabelMap, LabelChoice, LabelVoxels};
/// let mut labels = CompactLabelMap {
///     voxels: LabelVoxels::Bytes(arr3(&[[[1, 0, 2, 2, 0, 1, 1]]])),
///     geometry: Geometry::axis_aligned([1, 1, 7], [1.0; 3])?,
/// };
/// let clean = CleanUp { largest: LabelChoice::All, ..CleanUp::default() };
/// let changes = clean.apply(&mut labels);
/// assert_eq!(labels.voxels, LabelVoxels::Bytes(arr3(&[[[0, 0, 2, 2, 0, 1, 1]]])));
/// assert_eq!((changes.len(), changes[0].label, changes[0].removed_voxels), (1, 1, 1));
/// # Ok::<(), stunet_data::DataError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CleanUp {
    /// Labels of which all but the largest connected part goes. Parts that are equally large all stay.
    ///
    /// # Source
    /// nnU-Net 2.8.1, `remove_all_but_largest_component_from_segmentation`, of each class on its own:
    /// see also `stunet_infer::postprocess`, which follows what nnU-Net decided.
    pub largest: LabelChoice,
    /// Labels of which small parts go.
    pub small: LabelChoice,
    /// Connected parts of less than this are small.
    ///
    /// # Units
    /// Millilitres.
    pub min_ml: f64,
    /// Labels whose holes are filled: see [`CleanUp::apply`].
    pub holes: LabelChoice,
    /// What connects the voxels of a part; corners, too, in nnU-Net 2.
    pub connectivity: Connectivity,
}

/// What became of a label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LabelChange {
    /// The label.
    pub label: u16,
    /// Connected parts that were removed.
    pub removed_parts: u64,
    /// Their voxels.
    pub removed_voxels: u64,
    /// Voxels of filled holes.
    pub filled_voxels: u64,
}

impl CleanUp {
    /// Whether there is nothing to do, whatever the labels.
    pub fn is_nothing(&self) -> bool {
        [&self.largest, &self.small, &self.holes].into_iter().all(LabelChoice::is_none)
    }

    /// Cleans up a labelmap, and says what has changed; labels that did not are left out.
    ///
    /// A hole is a part of the background, connected by faces, that touches neither the border of the
    /// volume nor any label but one. So of a volume with one label it is what
    /// `scipy.ndimage.binary_fill_holes` fills. What lies between two labels is none, and a label
    /// inside of another stays. The border of an image of two dimensions is that of its plane.
    pub fn apply(&self, labels: &mut CompactLabelMap) -> Vec<LabelChange> {
        labels.voxels.make_standard();
        let mut changes = BTreeMap::new();
        if !self.largest.is_none() || !self.small.is_none() {
            self.remove(labels, &mut changes);
        }
        if !self.holes.is_none() {
            fill(&mut labels.voxels, &labels.geometry, &self.holes, &mut changes);
        }
        changes.into_values().collect()
    }

    fn remove(&self, labels: &mut CompactLabelMap, changes: &mut BTreeMap<u16, LabelChange>) {
        let parts = LabelComponents::of(&labels.voxels, self.connectivity);
        let mut largest: BTreeMap<u16, u64> = BTreeMap::new();
        for LabelPart { label, voxels } in parts.parts() {
            let most = largest.entry(*label).or_default();
            *most = (*most).max(*voxels);
        }
        let voxel_ml = labels.geometry.voxel_volume_mm3() / 1000.0;
        let goes = |part: &LabelPart| {
            let smaller = part.voxels < largest[&part.label] && self.largest.holds(part.label);
            let small = (part.voxels as f64) * voxel_ml < self.min_ml;
            smaller || small && self.small.holds(part.label)
        };
        let goes: Vec<bool> = parts.parts().iter().map(goes).collect();
        for (part, _) in parts.parts().iter().zip(&goes).filter(|(_, goes)| **goes) {
            let change = change_of(part.label, changes);
            change.removed_parts += 1;
            change.removed_voxels += part.voxels;
        }
        if goes.contains(&true) {
            parts.remove(&goes, &mut labels.voxels);
        }
    }
}

fn change_of(label: u16, changes: &mut BTreeMap<u16, LabelChange>) -> &mut LabelChange {
    changes.entry(label).or_insert_with(|| LabelChange { label, ..LabelChange::default() })
}

/// What encloses a part of the background.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Nothing,
    Label(u16),
    /// The border of the volume, or more than one label.
    Open,
}

fn fill(
    labels: &mut LabelVoxels,
    geometry: &Geometry,
    chosen: &LabelChoice,
    changes: &mut BTreeMap<u16, LabelChange>,
) {
    let runs = runs_of(labels, Zeros::Keep);
    let roots = runs.roots(Connectivity::Faces);
    let mut around = vec![Around::Nothing; roots.len()];
    for row in 0..runs.num_rows() {
        let (range, open_row) =
            (runs.of_row(row), lies_at_the_border(&runs, row, geometry.is_plane()));
        for (run, root) in runs.iter(range.clone()).zip(&roots[range]) {
            let open = open_row || run.begin == 0 || run.end as usize == runs.shape[2];
            if run.value == 0 && open {
                around[*root as usize] = Around::Open;
            }
        }
    }
    runs.for_each_contact(|a, b| {
        for (hole, wall) in [(a, b), (b, a)] {
            let (value, label) = (runs.value(hole), runs.value(wall));
            if value == 0 {
                let around = &mut around[roots[hole] as usize];
                *around = match *around {
                    Around::Nothing => Around::Label(label),
                    Around::Label(other) if other == label => Around::Label(label),
                    _ => Around::Open,
                };
            }
        }
    });
    let filled: Vec<u16> = (roots.iter().enumerate())
        .map(|(run, root)| match around[*root as usize] {
            Around::Label(label) if runs.value(run) == 0 && chosen.holds(label) => label,
            _ => 0,
        })
        .collect();
    for (run, label) in runs.iter(0..runs.len()).zip(&filled).filter(|(_, label)| **label != 0) {
        change_of(*label, changes).filled_voxels += run.len();
    }
    if filled.iter().any(|label| *label != 0) {
        match labels {
            // A label that encloses a hole is one of the volume, which holds bytes.
            LabelVoxels::Bytes(voxels) => {
                paint(&runs, &filled, voxels.as_slice_mut(), |v| v as u8);
            }
            LabelVoxels::Words(voxels) => paint(&runs, &filled, voxels.as_slice_mut(), |v| v),
        }
    }
}

fn lies_at_the_border(runs: &Runs, row: usize, is_plane: bool) -> bool {
    let [depth, height, _] = runs.shape;
    let (z, y) = (row / height, row % height);
    (!is_plane && (z == 0 || z + 1 == depth)) || y == 0 || y + 1 == height
}

fn paint<T: Copy + Send>(
    runs: &Runs,
    values: &[u16],
    voxels: Option<&mut [T]>,
    voxel: impl Fn(u16) -> T + Sync,
) {
    let voxels = voxels.expect("labels in standard layout");
    voxels.par_chunks_mut(runs.shape[2].max(1)).enumerate().for_each(|(row, voxels)| {
        let range = runs.of_row(row);
        for (run, value) in runs.iter(range.clone()).zip(&values[range]) {
            if *value != 0 {
                voxels[run.range()].fill(voxel(*value));
            }
        }
    });
}

#[cfg(test)]
mod tests;
