//! One step: the largest connected part of some labels stays.

use ndarray::{Array3, s};
use stunet_data::components::{Components, Connectivity};
use stunet_data::metrics::Class;

/// Removes all but the largest connected part of the union of some classes.
///
/// # Source
/// nnU-Net 2.8.1, `remove_connected_components.py`:
/// `remove_all_but_largest_component_from_segmentation`; nnU-Net 1.7.1, `connected_components.py`:
/// `remove_all_but_the_largest_connected_component`. Parts that are equally large all stay, in both.
#[derive(Clone, Debug, PartialEq)]
pub struct KeepLargest {
    /// Labels and regions that count as one.
    pub classes: Vec<Class>,
    /// What connects voxels: corners, too, in nnU-Net 2, faces alone in nnU-Net 1.
    pub connectivity: Connectivity,
    /// Parts of this size or more stay as well (nnU-Net 1).
    pub min_valid_mm3: Option<f64>,
}

impl KeepLargest {
    /// As nnU-Net 2 does it.
    pub fn of(classes: Vec<Class>) -> Self {
        Self { classes, connectivity: Connectivity::Corners, min_valid_mm3: None }
    }

    /// Whether voxels of this value are among those that may go.
    pub fn holds(&self, value: u16) -> bool {
        self.classes.iter().any(|class| class.holds(value))
    }

    /// Sets what goes to background; `voxel_mm3` is the volume of a voxel.
    pub fn apply(&self, labels: &mut Array3<u16>, voxel_mm3: f64) {
        let highest = labels.iter().copied().max().unwrap_or(0);
        let holds: Vec<bool> = (0..=highest).map(|value| self.holds(value)).collect();
        let of = |value: u16| holds[usize::from(value)];
        let Some([z, y, x]) = held(labels, of) else { return };
        let mut here = labels.slice_mut(s![z[0]..z[1], y[0]..y[1], x[0]..x[1]]);
        let mask = here.map(|value| of(*value));
        let parts = Components::of(mask.view(), self.connectivity);
        let largest = parts.sizes().iter().copied().max().unwrap_or(0);
        let stays = |size: &u64| {
            let valid = self.min_valid_mm3.is_some_and(|mm3| *size as f64 * voxel_mm3 >= mm3);
            *size == largest || valid
        };
        let stays: Vec<bool> = parts.sizes().iter().map(stays).collect();
        if stays.contains(&false) {
            for (value, part) in here.iter_mut().zip(parts.labels()).filter(|(_, part)| **part > 0)
            {
                if !stays[*part as usize - 1] {
                    *value = 0;
                }
            }
        }
    }
}

/// The smallest box around the voxels of which `of` is true; none if there is none.
fn held(labels: &Array3<u16>, of: impl Fn(u16) -> bool) -> Option<[[usize; 2]; 3]> {
    let mut held: Option<[[usize; 2]; 3]> = None;
    for ((z, y, x), _) in labels.indexed_iter().filter(|(_, value)| of(**value)) {
        let held = held.get_or_insert([z, y, x].map(|at| [at, at + 1]));
        for (range, at) in held.iter_mut().zip([z, y, x]) {
            *range = [range[0].min(at), range[1].max(at + 1)];
        }
    }
    held
}
