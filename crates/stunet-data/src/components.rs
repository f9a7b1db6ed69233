//! Connected parts of a mask, and of every label of a labelmap.

mod labelled;
mod runs;
mod volume;

pub(crate) use labelled::runs_of;
pub use labelled::{LabelComponents, LabelPart};
pub(crate) use runs::{Run, Runs, Zeros};
pub use volume::PartVolume;

use ndarray::ArrayView3;
use rayon::prelude::*;
use serde::Serialize;

/// Which voxels of a volume touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Connectivity {
    /// Those with a common face.
    Faces,
    /// Those with a common face or edge.
    Edges,
    /// Those with a common face, edge or corner.
    #[default]
    Corners,
}

impl Connectivity {
    /// How many voxels a voxel touches: 6, 18 or 26.
    pub fn num_neighbours(self) -> u32 {
        match self {
            Self::Faces => 6,
            Self::Edges => 18,
            Self::Corners => 26,
        }
    }

    /// The one in which a voxel touches so many; none for other numbers.
    pub fn of_neighbours(count: u32) -> Option<Self> {
        [Self::Faces, Self::Edges, Self::Corners].into_iter().find(|c| c.num_neighbours() == count)
    }

    /// Voxels along x by which runs in two rows may miss each other and still touch; none if they do
    /// not touch at all. `steps` is how many of y and z differ between the rows.
    fn reach(self, steps: usize) -> Option<u32> {
        match (self, steps) {
            (Self::Faces, 1) | (Self::Edges, 2) => Some(0),
            (Self::Edges, 1) | (Self::Corners, _) => Some(1),
            _ => None,
        }
    }
}

/// The connected parts of a mask, numbered from 1 in the order of their first voxels.
///
/// ```
/// use ndarray::arr3;
/// use stunet_data::components::{Components, Connectivity};
/// let mask = arr3(&[[[true, false, false], [false, true, true]]]);
/// let parts = Components::of(mask.view(), Connectivity::Faces);
/// assert_eq!(parts.sizes(), [1, 2]);
/// assert_eq!(Components::of(mask.view(), Connectivity::Corners).sizes(), [3]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Components {
    /// Part of every voxel, `[z, y, x]`; 0 outside.
    labels: PartVolume,
    sizes: Vec<u64>,
}

impl Components {
    /// Finds the parts.
    ///
    /// # Panics
    /// When the volume has 2³² runs of voxels or more.
    pub fn of(mask: ArrayView3<'_, bool>, connectivity: Connectivity) -> Self {
        let (depth, height, width) = mask.dim();
        match mask.as_slice() {
            Some(mask) => Self::of_slice(mask, [depth, height, width], connectivity),
            None => {
                let mask: Vec<bool> = mask.iter().copied().collect();
                Self::of_slice(&mask, [depth, height, width], connectivity)
            }
        }
    }

    /// As [`Components::of`], of voxels in the order z, y, x.
    ///
    /// # Panics
    /// As there, and when the mask has another number of voxels than the shape.
    pub fn of_slice(
        mask: &[bool],
        [depth, height, width]: [usize; 3],
        connectivity: Connectivity,
    ) -> Self {
        let runs = Runs::of(mask, [depth, height, width], Zeros::Skip);
        let Numbered { numbers, parts } = Numbered::of(&runs, connectivity);
        let sizes = parts.iter().map(|part| part.voxels).collect();
        Self { labels: painted(&runs, &numbers), sizes }
    }

    /// The part that each voxel belongs to, in the order z, y, x: from 1, and 0 outside of the mask.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Voxels of each part.
    pub fn sizes(&self) -> &[u64] {
        &self.sizes
    }

    /// Number of the parts.
    pub fn count(&self) -> usize {
        self.sizes.len()
    }
}

/// Parts by number, in the order of their first voxels.
struct Numbered {
    /// Part of every run, from 1.
    numbers: Vec<u32>,
    /// Label and size of every part.
    parts: Vec<LabelPart>,
}

impl Numbered {
    fn of(runs: &Runs, connectivity: Connectivity) -> Self {
        let mut numbers = runs.parents(connectivity);
        let mut parts: Vec<LabelPart> = Vec::new();
        for (index, run) in runs.iter(0..runs.len()).enumerate() {
            let parent = numbers[index] as usize;
            let number = if parent == index {
                parts.push(LabelPart { label: run.value, voxels: 0 });
                parts.len() as u32
            } else {
                // An earlier run, which has its number already.
                numbers[parent]
            };
            numbers[index] = number;
            parts[number as usize - 1].voxels += run.len();
        }
        Self { numbers, parts }
    }
}

/// A volume of the numbers of runs, 0 elsewhere.
fn painted(runs: &Runs, numbers: &[u32]) -> PartVolume {
    let [depth, height, width] = runs.shape;
    let mut volume = PartVolume::zeros(depth * height * width);
    volume.par_chunks_mut(width.max(1)).enumerate().for_each(|(row, voxels)| {
        let range = runs.of_row(row);
        for (run, number) in runs.iter(range.clone()).zip(&numbers[range]) {
            voxels[run.range()].fill(*number);
        }
    });
    volume
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::LabelVoxels;
    use ndarray::Array3;
    use proptest::prelude::*;
    use stunet_testing::prng;

    const SHAPE: [usize; 3] = [5, 6, 7];

    /// The definition: whoever touches is visited.
    fn by_visits(mask: &[bool], connectivity: Connectivity) -> (Vec<u32>, Vec<u64>) {
        let place = |at: usize| [at / 42, at / 7 % 6, at % 7].map(|v| v as isize);
        let touches = |a: usize, b: usize| {
            let (a, b) = (place(a), place(b));
            let apart: Vec<isize> = (0..3).map(|i| (a[i] - b[i]).abs()).collect();
            let steps = match connectivity {
                Connectivity::Faces => 1,
                Connectivity::Edges => 2,
                Connectivity::Corners => 3,
            };
            apart.iter().all(|d| *d <= 1) && apart.iter().sum::<isize>() <= steps
        };
        let (mut labels, mut sizes) = (vec![0; mask.len()], Vec::new());
        for first in 0..mask.len() {
            if !mask[first] || labels[first] != 0 {
                continue;
            }
            sizes.push(0);
            let mut open = vec![first];
            labels[first] = sizes.len() as u32;
            while let Some(at) = open.pop() {
                *sizes.last_mut().unwrap() += 1;
                for other in 0..mask.len() {
                    if mask[other] && labels[other] == 0 && touches(at, other) {
                        labels[other] = sizes.len() as u32;
                        open.push(other);
                    }
                }
            }
        }
        (labels, sizes)
    }

    proptest! {
        #[test]
        fn parts_are_what_touches(seed in 0u64..100_000, one_in in 1u64..6) {
            let mask: Vec<bool> =
                prng::integers(seed, 0, 210, one_in + 1).iter().map(|v| *v == 0).collect();
            for connectivity in
                [Connectivity::Faces, Connectivity::Edges, Connectivity::Corners]
            {
                let found = Components::of_slice(&mask, SHAPE, connectivity);
                let (labels, sizes) = by_visits(&mask, connectivity);
                prop_assert_eq!(found.labels(), &labels[..], "{:?}", connectivity);
                prop_assert_eq!(found.sizes(), &sizes[..]);
            }
        }
    }

    proptest! {
        /// Every label on its own, in any order of numbers, whatever the threads.
        #[test]
        fn parts_of_labels(seed in 0u64..100_000, labels in 1u64..5, threads in 1usize..5) {
            let of: Vec<u16> =
                prng::integers(seed, 0, 210, labels + 1).iter().map(|v| *v as u16).collect();
            let voxels = LabelVoxels::Words(Array3::from_shape_vec(SHAPE, of.clone()).unwrap());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for connectivity in
                [Connectivity::Faces, Connectivity::Edges, Connectivity::Corners]
            {
                let found = pool.install(|| LabelComponents::of(&voxels, connectivity));
                let volume = found.volume();
                let mut numbers = std::collections::BTreeMap::new();
                let mut firsts = Vec::new();
                for label in 1..=labels as u16 {
                    let mask: Vec<bool> = of.iter().map(|v| *v == label).collect();
                    let (parts, sizes) = by_visits(&mask, connectivity);
                    for (at, part) in parts.iter().enumerate().filter(|(_, part)| **part > 0) {
                        let new = !numbers.contains_key(&(label, *part));
                        numbers.entry((label, *part)).or_insert(volume[at]);
                        if new {
                            let size = LabelPart { label, voxels: sizes[*part as usize - 1] };
                            prop_assert_eq!(found.parts()[volume[at] as usize - 1], size);
                            firsts.push((at, volume[at]));
                        }
                        prop_assert_eq!(numbers[&(label, *part)], volume[at]);
                    }
                }
                // Numbers go with the first voxels.
                firsts.sort_unstable();
                let order: Vec<u32> = firsts.into_iter().map(|(_, number)| number).collect();
                prop_assert_eq!(order, (1..=found.parts().len() as u32).collect::<Vec<_>>());
                prop_assert!(volume.iter().zip(&of).all(|(part, label)| (*part > 0) == (*label > 0)));
            }
        }
    }

    #[test]
    fn labels_touch_across_a_common_end() {
        // Both rows change their label at the same place: each touches the other at a corner.
        let voxels = Array3::from_shape_vec((1, 2, 4), vec![1u8, 1, 2, 2, 2, 2, 1, 1]).unwrap();
        let parts = |connectivity| {
            LabelComponents::of(&LabelVoxels::Bytes(voxels.clone()), connectivity).parts().len()
        };
        assert_eq!(parts(Connectivity::Corners), 2);
        assert_eq!(parts(Connectivity::Faces), 4);
    }

    #[test]
    fn nothing_and_everything() {
        let none = Components::of_slice(&[], [0, 0, 0], Connectivity::Corners);
        assert_eq!((none.count(), none.labels().len()), (0, 0));
        let all = Components::of_slice(&[true; 210], SHAPE, Connectivity::Faces);
        assert_eq!(all.sizes(), [210]);
        assert_eq!(Connectivity::of_neighbours(18), Some(Connectivity::Edges));
        assert_eq!(Connectivity::of_neighbours(8), None);
    }
}
