//! Runs of equal voxels along x, and which of them touch: two passes with union-find, in slabs of
//! planes that are worked on in parallel.

use super::Connectivity;
use rayon::prelude::*;
use std::ops::Range;

/// Voxels of a row, one after the other, of the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub begin: u32,
    pub end: u32,
    pub value: u16,
}

impl Run {
    /// Its voxels along x.
    pub fn range(&self) -> Range<usize> {
        self.begin as usize..self.end as usize
    }

    pub fn len(&self) -> u64 {
        u64::from(self.end - self.begin)
    }
}

/// A voxel whose runs are found.
pub(crate) trait RunVoxel: Copy + PartialEq + Send + Sync {
    /// Its value, 0 for what has no runs.
    fn value(self) -> u16;
}

impl RunVoxel for bool {
    fn value(self) -> u16 {
        u16::from(self)
    }
}

impl RunVoxel for u8 {
    fn value(self) -> u16 {
        u16::from(self)
    }
}

impl RunVoxel for u16 {
    fn value(self) -> u16 {
        self
    }
}

/// All runs of a volume, in the order z, y, x.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    pub all: Vec<Run>,
    /// The first run of every row, and the number of all.
    firsts: Vec<u32>,
    pub shape: [usize; 3],
}

/// Which runs of value 0 there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zeros {
    /// None: they lie between the others.
    Skip,
    /// All, like any other value.
    Keep,
}

impl Runs {
    /// Finds them.
    ///
    /// # Panics
    /// When the volume has another number of voxels than the shape, or 2³² runs or more.
    pub fn of<T: RunVoxel>(voxels: &[T], shape: [usize; 3], zeros: Zeros) -> Self {
        let [depth, height, width] = shape;
        assert_eq!(voxels.len(), depth * height * width, "voxels of another shape");
        assert!(u32::try_from(width).is_ok(), "a row of 2^32 voxels");
        let rows_at_a_time = slab_planes(depth) * height;
        let found: Vec<(Vec<Run>, Vec<u32>)> = voxels
            .par_chunks((rows_at_a_time * width).max(1))
            .map(|slab| {
                let (mut runs, mut counts) = (Vec::new(), Vec::with_capacity(rows_at_a_time));
                for row in slab.chunks_exact(width) {
                    let before = runs.len();
                    runs_of_row(row, zeros, &mut runs);
                    counts.push((runs.len() - before) as u32);
                }
                (runs, counts)
            })
            .collect();
        let count = found.iter().map(|(runs, _)| runs.len()).sum();
        assert!(u32::try_from(count).is_ok(), "2^32 runs");
        let mut all = Vec::with_capacity(count);
        let mut firsts = Vec::with_capacity(depth * height + 1);
        let mut first = 0;
        for (runs, counts) in found {
            all.extend_from_slice(&runs);
            for count in counts {
                firsts.push(first);
                first += count;
            }
        }
        // Rows without voxels have none, either.
        firsts.resize(depth * height + 1, first);
        Self { all, firsts, shape }
    }

    /// The places of a row's runs among all.
    pub fn of_row(&self, row: usize) -> Range<usize> {
        self.firsts[row] as usize..self.firsts[row + 1] as usize
    }

    /// Every row with its runs and the place of the first of them.
    pub fn rows(&self) -> impl Iterator<Item = (usize, usize, &[Run])> {
        (0..self.firsts.len() - 1).map(|row| {
            let range = self.of_row(row);
            (row, range.start, &self.all[range])
        })
    }

    /// Calls `meet` for every two runs of different values that have a common face.
    pub fn for_each_contact(&self, mut meet: impl FnMut(usize, usize)) {
        let height = self.shape[1];
        for (row, first, runs) in self.rows() {
            for index in 1..runs.len() {
                if runs[index - 1].end == runs[index].begin {
                    meet(first + index - 1, first + index);
                }
            }
            let above = (row % height > 0).then(|| row - 1);
            let before = row.checked_sub(height);
            for other in above.into_iter().chain(before) {
                self.meet_row(row, other, &mut meet);
            }
        }
    }

    fn meet_row(&self, row: usize, other: usize, meet: &mut impl FnMut(usize, usize)) {
        let (mut here, mut there) = (self.of_row(row), self.of_row(other));
        while !here.is_empty() && !there.is_empty() {
            let (a, b) = (&self.all[here.start], &self.all[there.start]);
            if a.value != b.value && a.begin < b.end && b.begin < a.end {
                meet(here.start, there.start);
            }
            if a.end < b.end { here.start += 1 } else { there.start += 1 }
        }
    }

    /// For every run the first one of its part. Runs are of one part when voxels of them touch and have
    /// the same value.
    pub fn roots(&self, connectivity: Connectivity) -> Vec<u32> {
        let [depth, height, _] = self.shape;
        let planes = slab_planes(depth);
        let slabs: Vec<Range<usize>> =
            (0..depth).step_by(planes).map(|z| z..(z + planes).min(depth)).collect();
        let mut parents: Vec<u32> = (0..self.all.len() as u32).collect();
        let first_run = |z: usize| self.firsts[z * height] as usize;
        let mut rest = &mut parents[..];
        let mut parts = Vec::with_capacity(slabs.len());
        for slab in &slabs {
            let (part, behind) =
                std::mem::take(&mut rest).split_at_mut(first_run(slab.end) - first_run(slab.start));
            rest = behind;
            parts.push((slab.clone(), part));
        }
        parts.into_par_iter().for_each(|(slab, part)| {
            let mut forest = Forest { parents: part, first: first_run(slab.start) as u32 };
            for row in slab.start * height..slab.end * height {
                self.join_row(row, slab.start, connectivity, &mut forest);
            }
        });
        // What touches across two slabs.
        let mut forest = Forest { parents: &mut parents, first: 0 };
        for slab in slabs.iter().skip(1) {
            for row in slab.start * height..(slab.start + 1) * height {
                self.join_row(row, 0, connectivity, &mut forest);
            }
        }
        flatten(&mut parents);
        parents
    }

    /// Joins the runs of a row with those that touch them in earlier rows, in planes from `lowest` on.
    fn join_row(
        &self,
        row: usize,
        lowest: usize,
        connectivity: Connectivity,
        forest: &mut Forest<'_>,
    ) {
        let height = self.shape[1];
        let here = self.of_row(row);
        if here.is_empty() {
            return;
        }
        let (z, y) = (row / height, row % height);
        for (dz, dy) in [(0, -1), (-1, -1), (-1, 0), (-1, 1)] {
            let steps = usize::from(dz != 0) + usize::from(dy != 0);
            let other = z.checked_add_signed(dz).zip(y.checked_add_signed(dy));
            let (Some((z, y)), Some(reach)) = (other, connectivity.reach(steps)) else {
                continue;
            };
            if y < height && z >= lowest {
                let there = self.of_row(z * height + y);
                self.join(here.clone(), there, reach, forest);
            }
        }
    }

    /// Joins the runs of two rows that touch.
    fn join(
        &self,
        mut here: Range<usize>,
        mut there: Range<usize>,
        reach: u32,
        forest: &mut Forest<'_>,
    ) {
        let mut meet = |a: usize, b: usize| {
            let (one, other) = (&self.all[a], &self.all[b]);
            let touch = one.begin < other.end + reach && other.begin < one.end + reach;
            if touch && one.value == other.value {
                forest.join(a as u32, b as u32);
            }
        };
        while !here.is_empty() && !there.is_empty() {
            let (a, b) = (here.start, there.start);
            meet(a, b);
            match self.all[a].end.cmp(&self.all[b].end) {
                std::cmp::Ordering::Less => here.start += 1,
                std::cmp::Ordering::Greater => there.start += 1,
                std::cmp::Ordering::Equal => {
                    // Runs of other values may begin where both end: they touch at a corner.
                    if reach > 0 && a + 1 < here.end {
                        meet(a + 1, b);
                    }
                    if reach > 0 && b + 1 < there.end {
                        meet(a, b + 1);
                    }
                    here.start += 1;
                    there.start += 1;
                }
            }
        }
    }
}

/// Planes of a slab: as many slabs as threads. No result depends on it.
fn slab_planes(depth: usize) -> usize {
    depth.div_ceil(rayon::current_num_threads()).max(1)
}

/// Appends the runs of a row.
fn runs_of_row<T: RunVoxel>(row: &[T], zeros: Zeros, runs: &mut Vec<Run>) {
    let mut at = 0;
    while at < row.len() {
        let voxel = row[at];
        let end = at + equal_ones(&row[at..], voxel);
        let value = voxel.value();
        if value != 0 || zeros == Zeros::Keep {
            runs.push(Run { begin: at as u32, end: end as u32, value });
        }
        at = end;
    }
}

/// How many voxels at the beginning equal the first; in pieces that the compiler makes vectors of.
fn equal_ones<T: RunVoxel>(voxels: &[T], first: T) -> usize {
    const PIECE: usize = 16;
    let mut at = 0;
    for piece in voxels.chunks_exact(PIECE) {
        if !piece.iter().fold(true, |all, v| all & (*v == first)) {
            break;
        }
        at += PIECE;
    }
    let rest = &voxels[at..];
    at + rest.iter().position(|v| *v != first).unwrap_or(rest.len())
}

/// Runs whose numbers begin with `first`, each with an earlier one of its part, or itself.
struct Forest<'a> {
    parents: &'a mut [u32],
    first: u32,
}

impl Forest<'_> {
    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        // The earlier run stays the root.
        self.parents[(a.max(b) - self.first) as usize] = a.min(b);
    }

    /// The first run of a part; the way there gets shorter with each visit.
    fn root(&mut self, mut run: u32) -> u32 {
        loop {
            let parent = self.parents[(run - self.first) as usize];
            if parent == run {
                return run;
            }
            let above = self.parents[(parent - self.first) as usize];
            self.parents[(run - self.first) as usize] = above;
            run = above;
        }
    }
}

/// Lets every run know its root. Parents are earlier runs, so that one pass is enough.
fn flatten(parents: &mut [u32]) {
    for run in 0..parents.len() {
        parents[run] = parents[parents[run] as usize];
    }
}
