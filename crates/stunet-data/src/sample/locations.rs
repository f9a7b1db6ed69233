//! Voxels of every class, drawn once per case.

use crate::labels::LabelSet;
use crate::numpy_random::RandomState;
use ndarray::ArrayView3;
use std::collections::BTreeMap;

/// Key of the voxels that carry any label but the ignore label; kept where there is an ignore label.
pub const ANNOTATED: u16 = u16::MAX;

/// Seed of the reference's draw.
const SEED: u32 = 1234;
/// Voxels kept of a class ...
const MIN_VOXELS: usize = 10_000;
/// ... or one in so many, whichever is more.
const ONE_IN: usize = 100;

/// Voxels drawn of every class of a case, `[z, y, x]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassLocations(BTreeMap<u16, Vec<[u32; 3]>>);

impl ClassLocations {
    /// Voxels by class: a label, or the position of a region in its label set, or [`ANNOTATED`].
    pub fn new(voxels: BTreeMap<u16, Vec<[u32; 3]>>) -> Self {
        Self(voxels)
    }

    /// The voxels of a class; none of a class that does not occur.
    pub fn get(&self, class: u16) -> &[[u32; 3]] {
        self.0.get(&class).map_or(&[], Vec::as_slice)
    }

    /// Classes that occur, ascending; [`ANNOTATED`] last.
    pub fn present(&self) -> impl Iterator<Item = u16> {
        self.0.iter().filter(|(_, voxels)| !voxels.is_empty()).map(|(class, _)| *class)
    }
}

/// Draws the voxels that oversampling chooses from: of every foreground class (or region) 10000, or
/// one in a hundred where that is more, or all.
///
/// With an ignore label also of all annotated voxels, background included, under [`ANNOTATED`].
///
/// # Source
/// `class_locations` of nnU-Net 1.7.1 (`preprocessing.py`) and `_sample_foreground_locations` of
/// nnU-Net 2.8.1: `RandomState(1234).choice`, one generator for all classes in order, bit for bit.
pub fn class_locations(labels: ArrayView3<'_, i16>, set: &LabelSet) -> ClassLocations {
    let mut classes: Vec<(u16, Vec<i16>)> = Vec::new();
    for (position, label) in set.labels().iter().enumerate() {
        let values: Vec<i16> = label.values.iter().filter_map(|v| i16::try_from(*v).ok()).collect();
        let class = match (set.has_regions(), &label.values[..]) {
            (false, [value]) => *value,
            _ => u16::try_from(position).unwrap_or(ANNOTATED - 1),
        };
        if values != [0] && !values.is_empty() {
            classes.push((class, values));
        }
    }
    if set.ignore().is_some() {
        let mut annotated = vec![-1, 0];
        let named = set.labels().iter().flat_map(|label| &label.values);
        annotated.extend(named.filter(|v| **v > 0 && set.ignore() != Some(**v)).map(|v| *v as i16));
        annotated.sort_unstable();
        annotated.dedup();
        classes.push((ANNOTATED, annotated));
    }
    draw(labels, &classes)
}

/// The same, where the classes are the labels above 0 that occur.
pub(super) fn of_present_labels(labels: ArrayView3<'_, i16>) -> ClassLocations {
    let mut values: Vec<i16> = labels.iter().copied().filter(|v| *v > 0).collect();
    values.sort_unstable();
    values.dedup();
    let classes: Vec<(u16, Vec<i16>)> = values.iter().map(|v| (*v as u16, vec![*v])).collect();
    draw(labels, &classes)
}

fn draw(labels: ArrayView3<'_, i16>, classes: &[(u16, Vec<i16>)]) -> ClassLocations {
    let mut by_value: BTreeMap<i16, Vec<[u32; 3]>> =
        classes.iter().flat_map(|(_, values)| values).map(|v| (*v, Vec::new())).collect();
    for ((z, y, x), value) in labels.indexed_iter() {
        if let Some(voxels) = by_value.get_mut(value) {
            voxels.push([z, y, x].map(|i| i as u32));
        }
    }
    let mut random = RandomState::new(SEED);
    let mut drawn = BTreeMap::new();
    for (class, values) in classes {
        let blocks: Vec<&[[u32; 3]]> = values.iter().map(|v| by_value[v].as_slice()).collect();
        let count: usize = blocks.iter().map(|b| b.len()).sum();
        if count == 0 {
            continue;
        }
        let kept = count.min(MIN_VOXELS).max(count.div_ceil(ONE_IN));
        let chosen = random.choice(count, kept, false);
        drawn.insert(*class, chosen.into_iter().map(|i| pick(&blocks, i)).collect());
    }
    ClassLocations(drawn)
}

/// Entry `index` of blocks laid end to end.
fn pick(blocks: &[&[[u32; 3]]], mut index: usize) -> [u32; 3] {
    for block in blocks {
        match block.get(index) {
            Some(voxel) => return *voxel,
            None => index -= block.len(),
        }
    }
    unreachable!("the draw stays below the number of voxels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Label;
    use ndarray::Array3;

    fn label(name: &str, values: &[u16]) -> Label {
        Label { name: name.into(), values: values.to_vec() }
    }

    /// One generator for all classes: the reference's choice, recorded with NumPy 2.4.
    #[test]
    fn the_draw_is_the_reference_s() {
        let mut labels = Array3::zeros([3, 4, 5]);
        labels[[0, 0, 1]] = 1;
        labels[[1, 2, 3]] = 1;
        labels[[2, 3, 4]] = 1;
        labels[[0, 1, 0]] = 2;
        labels[[0, 3, 0]] = 2;
        labels[[2, 0, 0]] = 2;
        labels[[2, 1, 1]] = 2;
        let set = LabelSet::from_names(["background", "a", "b", "c"]).unwrap();
        let found = class_locations(labels.view(), &set);
        assert_eq!(found.present().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(found.get(1), [[0, 0, 1], [1, 2, 3], [2, 3, 4]]);
        assert_eq!(found.get(2), [[0, 3, 0], [2, 0, 0], [2, 1, 1], [0, 1, 0]]);
        assert!(found.get(3).is_empty());
        assert_eq!(found, of_present_labels(labels.view()));
    }

    #[test]
    fn at_least_ten_thousand_or_one_in_a_hundred() {
        let labels = Array3::from_elem([100, 110, 120], 1);
        let found = of_present_labels(labels.view());
        assert_eq!(found.get(1).len(), 13_200);
        let labels = Array3::from_elem([22, 23, 24], 1);
        let found = of_present_labels(labels.view());
        assert_eq!(found.get(1).len(), 10_000);
        let mut voxels = found.get(1).to_vec();
        voxels.sort_unstable();
        voxels.dedup();
        assert_eq!(voxels.len(), 10_000, "without replacement");
    }

    #[test]
    fn regions_and_the_ignore_label() {
        let labels = Array3::from_shape_fn([4, 1, 5], |(z, _, x)| match (z, x) {
            (3, _) => 3,
            (_, 0) => -1,
            (_, x) => (x % 3) as i16,
        });
        let regions = vec![label("background", &[0]), label("whole", &[1, 2]), label("core", &[2])];
        let set = LabelSet::new(regions, Some(3), Some(vec![1, 2])).unwrap();
        let found = class_locations(labels.view(), &set);
        assert_eq!(found.present().collect::<Vec<_>>(), [1, 2, ANNOTATED]);
        assert_eq!(found.get(1).len(), 9);
        assert_eq!(found.get(2).len(), 3);
        assert_eq!(found.get(ANNOTATED).len(), 15, "everything but the ignore label");
    }
}
