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
    /// Voxels that are compared at a time.
    const AT_A_TIME: usize;
    /// Bits of one of them.
    const BITS: u32 = 64 / Self::AT_A_TIME as u32;

    /// Its value, 0 for what has no runs.
    fn value(self) -> u16;

    /// As many voxels as are compared at a time, in one number, the first in its lowest bits.
    fn together(voxels: &[Self]) -> u64;
}

impl RunVoxel for bool {
    const AT_A_TIME: usize = 8;

    fn value(self) -> u16 {
        u16::from(self)
    }

    fn together(voxels: &[Self]) -> u64 {
        u8::together(bytemuck::cast_slice(voxels))
    }
}

impl RunVoxel for u8 {
    const AT_A_TIME: usize = 8;

    fn value(self) -> u16 {
        u16::from(self)
    }

    fn together(voxels: &[Self]) -> u64 {
        u64::from_le_bytes(voxels.try_into().expect("eight of a byte"))
    }
}

impl RunVoxel for u16 {
    const AT_A_TIME: usize = 4;

    fn value(self) -> u16 {
        self
    }

    fn together(voxels: &[Self]) -> u64 {
        let voxels: [u16; 4] = voxels.try_into().expect("four of two bytes");
        let bits = |at: usize| u64::from(voxels[at]) << (16 * at);
        bits(0) | bits(1) | bits(2) | bits(3)
    }
}

/// All runs of a volume, in the order z, y, x: part by part, as most passes need one of the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runs {
    begins: Vec<u32>,
    ends: Vec<u32>,
    values: Vec<u16>,
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
    /// Finds them: first how many there are, then which.
    ///
    /// # Panics
    /// When the volume has another number of voxels than the shape, or 2³² runs or more.
    pub fn of<T: RunVoxel>(voxels: &[T], shape: [usize; 3], zeros: Zeros) -> Self {
        let [depth, height, width] = shape;
        assert_eq!(voxels.len(), depth * height * width, "voxels of another shape");
        assert!(u32::try_from(width + 1).is_ok(), "a row of 2^32 voxels");
        let in_slab = slab_planes(depth) * height;
        let slabs = || voxels.par_chunks((in_slab * width).max(1));
        let counts: Vec<Vec<u32>> = slabs()
            .map(|slab| slab.chunks_exact(width).map(|row| num_runs(row, zeros)).collect())
            .collect();
        let total: u64 = counts.iter().flatten().map(|count| u64::from(*count)).sum();
        let total = usize::try_from(u32::try_from(total).expect("2^32 runs")).unwrap_or(0);
        let mut firsts = Vec::with_capacity(depth * height + 1);
        let mut first = 0;
        for count in counts.iter().flatten() {
            firsts.push(first);
            first += count;
        }
        // Rows without voxels have none, either.
        firsts.resize(depth * height + 1, first);
        let (mut begins, mut ends, mut values) = (vec![0; total], vec![0; total], vec![0; total]);
        let mut rest = (&mut begins[..], &mut ends[..], &mut values[..]);
        let mut rooms = Vec::with_capacity(counts.len());
        for counts in &counts {
            let count = counts.iter().map(|count| *count as usize).sum();
            let (begins, behind_begins) = rest.0.split_at_mut(count);
            let (ends, behind_ends) = rest.1.split_at_mut(count);
            let (values, behind_values) = rest.2.split_at_mut(count);
            rooms.push(Room { begins, ends, values, used: 0 });
            rest = (behind_begins, behind_ends, behind_values);
        }
        slabs().zip(rooms).for_each(|(slab, mut room)| {
            slab.chunks_exact(width).for_each(|row| room.fill(row, zeros));
        });
        Self { begins, ends, values, firsts, shape }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The value of a run.
    pub fn value(&self, run: usize) -> u16 {
        self.values[run]
    }

    /// Some of them.
    pub fn iter(&self, range: Range<usize>) -> impl Iterator<Item = Run> {
        let ends = self.begins[range.clone()].iter().zip(&self.ends[range.clone()]);
        let all = ends.zip(&self.values[range]);
        all.map(|((begin, end), value)| Run { begin: *begin, end: *end, value: *value })
    }

    /// The places of a row's runs among all.
    pub fn of_row(&self, row: usize) -> Range<usize> {
        self.firsts[row] as usize..self.firsts[row + 1] as usize
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.firsts.len() - 1
    }

    /// Calls `meet` for every two runs of different values that have a common face.
    pub fn for_each_contact(&self, mut meet: impl FnMut(usize, usize)) {
        let height = self.shape[1];
        for row in 0..self.num_rows() {
            let runs = self.of_row(row);
            for next in runs.start + 1..runs.end.max(runs.start + 1) {
                if self.ends[next - 1] == self.begins[next] {
                    meet(next - 1, next);
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
            let (a, b) = (here.start, there.start);
            let touch = self.begins[a] < self.ends[b] && self.begins[b] < self.ends[a];
            if touch && self.values[a] != self.values[b] {
                meet(a, b);
            }
            if self.ends[a] < self.ends[b] { here.start += 1 } else { there.start += 1 }
        }
    }

    /// For every run the first one of its part. Runs are of one part when voxels of them touch and have
    /// the same value.
    pub fn roots(&self, connectivity: Connectivity) -> Vec<u32> {
        let mut parents = self.parents(connectivity);
        flatten(&mut parents);
        parents
    }

    /// For every run an earlier one of its part, or itself where it is the first.
    pub fn parents(&self, connectivity: Connectivity) -> Vec<u32> {
        let [depth, height, _] = self.shape;
        let planes = slab_planes(depth);
        let slabs: Vec<Range<usize>> =
            (0..depth).step_by(planes).map(|z| z..(z + planes).min(depth)).collect();
        let mut parents = vec![0; self.len()];
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
            let first = first_run(slab.start) as u32;
            part.iter_mut().zip(first..).for_each(|(parent, run)| *parent = run);
            let mut forest = Forest { parents: part, first };
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
                let (here, there) = (here.clone(), self.of_row(z * height + y));
                match reach {
                    0 => self.join::<0>(here, there, forest),
                    _ => self.join::<1>(here, there, forest),
                }
            }
        }
    }

    /// Joins the runs of two rows that touch: that miss each other by fewer than `REACH` voxels.
    fn join<const REACH: u32>(
        &self,
        here: Range<usize>,
        there: Range<usize>,
        forest: &mut Forest<'_>,
    ) {
        let (first_a, first_b) = (here.start as u32, there.start as u32);
        let (begins_a, begins_b) = (&self.begins[here.clone()], &self.begins[there.clone()]);
        let (ends_a, ends_b) = (&self.ends[here.clone()], &self.ends[there.clone()]);
        let (values_a, values_b) = (&self.values[here], &self.values[there]);
        let (mut a, mut b) = (0, 0);
        while a < values_a.len() && b < values_b.len() {
            let touch = (begins_a[a] < ends_b[b] + REACH) & (begins_b[b] < ends_a[a] + REACH);
            if touch & (values_a[a] == values_b[b]) {
                forest.join(first_a + a as u32, first_b + b as u32);
            }
            let (end_a, end_b) = (ends_a[a], ends_b[b]);
            if REACH > 0 && end_a == end_b {
                // Runs of other values may begin where both end: they touch at a corner.
                if begins_a.get(a + 1) == Some(&end_b) && values_a[a + 1] == values_b[b] {
                    forest.join(first_a + a as u32 + 1, first_b + b as u32);
                }
                if begins_b.get(b + 1) == Some(&end_a) && values_b[b + 1] == values_a[a] {
                    forest.join(first_a + a as u32, first_b + b as u32 + 1);
                }
            }
            // Without a branch, which nobody could predict.
            a += usize::from(end_a <= end_b);
            b += usize::from(end_b <= end_a);
        }
    }
}

/// Planes of a slab: as many slabs as threads. No result depends on it.
fn slab_planes(depth: usize) -> usize {
    depth.div_ceil(rayon::current_num_threads()).max(1)
}

/// Calls `end` with the places of a row where a voxel differs from the one before it, in their order.
#[inline(always)]
fn boundaries<T: RunVoxel>(row: &[T], mut end: impl FnMut(usize)) {
    let one = u64::MAX >> (64 - T::BITS);
    let mut at = 1;
    while at + T::AT_A_TIME <= row.len() {
        let here = T::together(&row[at..at + T::AT_A_TIME]);
        let mut differ = here ^ T::together(&row[at - 1..at - 1 + T::AT_A_TIME]);
        while differ != 0 {
            let place = differ.trailing_zeros() / T::BITS;
            end(at + place as usize);
            differ &= !(one << (place * T::BITS));
        }
        at += T::AT_A_TIME;
    }
    (at..row.len()).filter(|at| row[*at] != row[*at - 1]).for_each(end);
}

/// How many runs a row has.
fn num_runs<T: RunVoxel>(row: &[T], zeros: Zeros) -> u32 {
    let counts = |at: usize| u32::from(zeros == Zeros::Keep || row[at].value() != 0);
    let mut count = counts(0);
    boundaries(row, |at| count += counts(at));
    count
}

/// Where the runs of a slab go.
struct Room<'a> {
    begins: &'a mut [u32],
    ends: &'a mut [u32],
    values: &'a mut [u16],
    used: usize,
}

impl Room<'_> {
    /// Takes the runs of the next row.
    fn fill<T: RunVoxel>(&mut self, row: &[T], zeros: Zeros) {
        let mut begin = 0;
        let mut push = |end: usize| {
            let value = row[begin].value();
            if value != 0 || zeros == Zeros::Keep {
                self.begins[self.used] = begin as u32;
                self.ends[self.used] = end as u32;
                self.values[self.used] = value;
                self.used += 1;
            }
            begin = end;
        };
        boundaries(row, &mut push);
        push(row.len());
    }
}

/// Runs whose numbers begin with `first`, each with an earlier one of its part, or itself.
struct Forest<'a> {
    parents: &'a mut [u32],
    first: u32,
}

impl Forest<'_> {
    /// Makes one part of those of two runs. Most runs that touch are of one part already.
    #[inline(always)]
    fn join(&mut self, a: u32, b: u32) {
        let parent = |run: u32| self.parents[(run - self.first) as usize];
        if parent(a) != parent(b) {
            self.join_roots(a, b);
        }
    }

    #[inline(never)]
    fn join_roots(&mut self, a: u32, b: u32) {
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
