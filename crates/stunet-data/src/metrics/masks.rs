//! Where a class is, in the reference and in the prediction, cut to what is not background.

use super::Class;
use crate::labels::LabelMap;
use ndarray::{ArrayView3, Axis, s};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// The smallest box of voxels that holds something, `[z, y, x]`.
type Box3 = [Range<usize>; 3];

/// Both masks of a class, cut to the smallest box that holds them.
///
/// Outside the box both are empty, as they are outside the volume: what is measured does not depend
/// on where the volume ends.
///
/// ```
/// use ndarray::arr3;
/// use stunet_data::metrics::MaskPair;
/// let reference = arr3(&[[[false, true, true, false]]]);
/// let prediction = arr3(&[[[false, false, true, false]]]);
/// let masks = MaskPair::new(reference.view(), prediction.view());
/// assert_eq!((masks.shape(), masks.num_reference(), masks.num_prediction()), ([1, 1, 2], 2, 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskPair {
    pub(super) reference: Vec<bool>,
    pub(super) prediction: Vec<bool>,
    pub(super) shape: [usize; 3],
}

impl MaskPair {
    /// Two masks of the same grid.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn new(reference: ArrayView3<'_, bool>, prediction: ArrayView3<'_, bool>) -> Self {
        assert_eq!(reference.shape(), prediction.shape(), "masks of different shape");
        let mut held: Option<Box3> = None;
        let rows = reference.rows().into_iter().zip(prediction.rows());
        for (index, (first, second)) in rows.enumerate() {
            let both = |x: &usize| first[*x] | second[*x];
            let mut along = (0..first.len()).filter(both);
            let Some(begin) = along.next() else { continue };
            let end = along.next_back().unwrap_or(begin) + 1;
            let (z, y) = (index / reference.dim().1, index % reference.dim().1);
            let row = [z..z + 1, y..y + 1, begin..end];
            held = Some(held.as_ref().map_or_else(|| row.clone(), |held| union(held, &row)));
        }
        let held = held.unwrap_or([0..0, 0..0, 0..0]);
        let shape = held.clone().map(|range| range.len());
        let [z, y, x] = held;
        let cut = |mask: ArrayView3<'_, bool>| {
            mask.slice(s![z.clone(), y.clone(), x.clone()]).iter().copied().collect()
        };
        Self { reference: cut(reference), prediction: cut(prediction), shape }
    }

    /// Size of the box.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Voxels of the class in the reference.
    pub fn num_reference(&self) -> usize {
        self.reference.iter().filter(|v| **v).count()
    }

    /// Voxels of the class in the prediction.
    pub fn num_prediction(&self) -> usize {
        self.prediction.iter().filter(|v| **v).count()
    }

    /// Whether the reference, and whether the prediction has a voxel.
    pub(super) fn any(&self) -> [bool; 2] {
        [self.reference.contains(&true), self.prediction.contains(&true)]
    }
}

/// A reference and a prediction, and where each of their labels is: masks of many classes are cut out
/// without looking at the whole volume again.
#[derive(Clone, Debug)]
pub struct LabelPair<'a> {
    reference: &'a LabelMap,
    prediction: &'a LabelMap,
    ignore: Option<u16>,
    boxes: [BTreeMap<u16, Box3>; 2],
}

impl<'a> LabelPair<'a> {
    /// Finds the box of every label; voxels whose reference is `ignore` belong to no mask.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn new(reference: &'a LabelMap, prediction: &'a LabelMap, ignore: Option<u16>) -> Self {
        assert_eq!(reference.data.shape(), prediction.data.shape(), "labelmaps of different shape");
        let boxes = [reference, prediction].map(|map| boxes(map.data.view()));
        Self { reference, prediction, ignore, boxes }
    }

    /// The masks of a class.
    pub fn masks(&self, class: &Class) -> MaskPair {
        let mut held: Option<Box3> = None;
        for boxes in &self.boxes {
            for (_, found) in boxes.iter().filter(|(value, _)| class.holds(**value)) {
                held = Some(match held {
                    None => found.clone(),
                    Some(held) => union(&held, found),
                });
            }
        }
        let [z, y, x] = held.unwrap_or([0..0, 0..0, 0..0]);
        let shape = [z.len(), y.len(), x.len()];
        let here = s![z, y, x];
        let (reference, prediction) =
            (self.reference.data.slice(here), self.prediction.data.slice(here));
        let highest = self.boxes.iter().filter_map(|b| b.last_key_value()).map(|(v, _)| *v).max();
        // A table is quicker than a search among the labels of a region.
        let holds: Vec<bool> = (0..=highest.unwrap_or(0)).map(|v| class.holds(v)).collect();
        let kept = |reference: &u16| Some(*reference) != self.ignore;
        let of = |value: &u16| holds[usize::from(*value)];
        let both = reference.iter().zip(prediction.iter());
        let (reference, prediction) = match self.ignore {
            None => (reference.iter().map(of).collect(), prediction.iter().map(of).collect()),
            Some(_) => both.map(|(r, p)| (of(r) && kept(r), of(p) && kept(r))).unzip(),
        };
        MaskPair { reference, prediction, shape }
    }
}

fn boxes(labels: ArrayView3<'_, u16>) -> BTreeMap<u16, Box3> {
    let planes = labels.axis_iter(Axis(0)).into_par_iter().enumerate();
    let of_plane = |(z, plane): (usize, ndarray::ArrayView2<'_, u16>)| {
        let mut found: BTreeMap<u16, Box3> = BTreeMap::new();
        for (y, row) in plane.outer_iter().enumerate() {
            let (mut x, width) = (0, row.len());
            while x < width {
                let (value, begin) = (row[x], x);
                while x < width && row[x] == value {
                    x += 1;
                }
                let run = [z..z + 1, y..y + 1, begin..x];
                match found.get_mut(&value) {
                    Some(held) => *held = union(held, &run),
                    None => drop(found.insert(value, run)),
                }
            }
        }
        found
    };
    planes.map(of_plane).reduce(BTreeMap::new, |mut all, part| {
        for (value, found) in part {
            let held = all.get(&value).map_or_else(|| found.clone(), |held| union(held, &found));
            all.insert(value, held);
        }
        all
    })
}

fn union(a: &Box3, b: &Box3) -> Box3 {
    std::array::from_fn(|i| a[i].start.min(b[i].start)..a[i].end.max(b[i].end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;
    use ndarray::Array3;

    fn labels(seed: u64) -> LabelMap {
        let drawn = stunet_testing::prng::integers(seed, 0, 5 * 7 * 11, 90);
        let values = drawn.into_iter().map(|v| if v < 4 { v as u16 } else { 0 }).collect();
        let data = Array3::from_shape_vec([5, 7, 11], values).unwrap();
        LabelMap::new(data, Geometry::axis_aligned([5, 7, 11], [3.0, 1.0, 0.5]).unwrap()).unwrap()
    }

    #[test]
    fn masks_of_a_class_are_those_of_the_whole_volume() {
        for seed in 0..40 {
            let (reference, prediction) = (labels(seed), labels(seed + 100));
            for ignore in [None, Some(3)] {
                let pair = LabelPair::new(&reference, &prediction, ignore);
                for class in [Class::Label(0), Class::Label(2), Class::Region(vec![1, 3])] {
                    let mask = |map: &LabelMap| {
                        let both = ndarray::Zip::from(&map.data).and(&reference.data);
                        both.map_collect(|v, r| class.holds(*v) && Some(*r) != ignore)
                    };
                    let expected = MaskPair::new(mask(&reference).view(), mask(&prediction).view());
                    let found = pair.masks(&class);
                    let counts = |masks: &MaskPair| (masks.num_reference(), masks.num_prediction());
                    assert_eq!(counts(&found), counts(&expected), "{seed} {class}");
                    if ignore.is_none() {
                        assert_eq!(found, expected, "{seed} {class}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_class_that_is_nowhere_is_an_empty_box() {
        let map = labels(1);
        let masks = LabelPair::new(&map, &map, None).masks(&Class::Label(9));
        assert_eq!((masks.shape(), masks.any()), ([0, 0, 0], [false, false]));
    }
}
