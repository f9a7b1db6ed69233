//! Connected parts of a mask.

use ndarray::ArrayView3;
use std::ops::Range;

/// Which voxels of a volume touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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
    fn reach(self, steps: usize) -> Option<usize> {
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
    labels: Vec<u32>,
    sizes: Vec<u64>,
}

/// Voxels of a row, one after the other, in the mask.
struct Run {
    row: usize,
    x: Range<usize>,
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
        assert_eq!(mask.len(), depth * height * width, "a mask of another shape");
        let (runs, rows) = runs(mask, width);
        let mut parents: Vec<u32> =
            (0..u32::try_from(runs.len()).expect("runs of one volume")).collect();
        for (row, here) in rows.iter().enumerate() {
            let (z, y) = (row / height, row % height);
            for (dz, dy) in [(0, -1), (-1, -1), (-1, 0), (-1, 1)] {
                let steps = usize::from(dz != 0) + usize::from(dy != 0);
                let other = z.checked_add_signed(dz).zip(y.checked_add_signed(dy));
                let (Some((z, y)), Some(reach)) = (other, connectivity.reach(steps)) else {
                    continue;
                };
                if y < height {
                    let there = rows[z * height + y].clone();
                    join(&runs, [here.clone(), there], reach, &mut parents);
                }
            }
        }
        Self::numbered(&runs, &mut parents, mask.len(), width)
    }

    fn numbered(runs: &[Run], parents: &mut [u32], num_voxels: usize, width: usize) -> Self {
        let mut labels = vec![0; num_voxels];
        let mut sizes: Vec<u64> = Vec::new();
        let mut numbers = vec![0u32; runs.len()];
        for (index, run) in runs.iter().enumerate() {
            let root = root(parents, index as u32) as usize;
            if numbers[root] == 0 {
                sizes.push(0);
                numbers[root] = sizes.len() as u32;
            }
            let number = numbers[root];
            sizes[number as usize - 1] += run.x.len() as u64;
            labels[run.row * width..][run.x.clone()].fill(number);
        }
        Self { labels, sizes }
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

/// The runs of all rows, and which of them are in each row.
fn runs(mask: &[bool], width: usize) -> (Vec<Run>, Vec<Range<usize>>) {
    let mut runs = Vec::new();
    let rows = mask.chunks_exact(width.max(1)).enumerate().map(|(row, voxels)| {
        let first = runs.len();
        let mut x = 0;
        while let Some(begin) = voxels[x..].iter().position(|v| *v).map(|at| x + at) {
            let length = voxels[begin..].iter().position(|v| !*v).unwrap_or(width - begin);
            x = begin + length;
            runs.push(Run { row, x: begin..x });
        }
        first..runs.len()
    });
    let rows = rows.collect();
    (runs, rows)
}

/// Joins the runs of two rows that touch.
fn join(runs: &[Run], rows: [Range<usize>; 2], reach: usize, parents: &mut [u32]) {
    let [mut here, mut there] = rows;
    while !here.is_empty() && !there.is_empty() {
        let (a, b) = (&runs[here.start].x, &runs[there.start].x);
        if a.start < b.end + reach && b.start < a.end + reach {
            let (a, b) = (root(parents, here.start as u32), root(parents, there.start as u32));
            // The earlier run stays the root.
            parents[a.max(b) as usize] = a.min(b);
        }
        if a.end < b.end { here.start += 1 } else { there.start += 1 }
    }
}

/// The first run of a part; the way there gets shorter with each visit.
fn root(parents: &mut [u32], mut run: u32) -> u32 {
    while parents[run as usize] != run {
        let above = parents[parents[run as usize] as usize];
        parents[run as usize] = above;
        run = above;
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
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
