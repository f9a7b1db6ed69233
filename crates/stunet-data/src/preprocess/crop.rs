//! The region that holds data: everything else is exactly 0 in every channel.

use super::resample::Voxel;
use crate::error::{DataError, Result};
use ndarray::{Array3, ArrayView4, Axis};
use rayon::prelude::*;

/// Half-open range of indices along each axis.
pub type BoundingBox = [[usize; 2]; 3];

/// Smallest box around all voxels that differ from 0 in some channel.
///
/// Filling holes does not change it, so no mask is needed.
///
/// # Errors
/// When there is no such voxel.
pub fn bounding_box<T: Voxel>(image: ArrayView4<'_, T>) -> Result<BoundingBox> {
    let depth = image.dim().1;
    let planes: Vec<Option<[[usize; 2]; 2]>> =
        (0..depth).into_par_iter().map(|z| plane_box(image, z)).collect();
    let used = || planes.iter().enumerate().filter_map(|(z, p)| Some((z, (*p)?)));
    let mut bounds: Option<BoundingBox> = None;
    for (z, [y, x]) in used() {
        let b = bounds.get_or_insert([[z, z + 1], y, x]);
        b[0][1] = z + 1;
        for (b, new) in b[1..].iter_mut().zip([y, x]) {
            *b = [b[0].min(new[0]), b[1].max(new[1])];
        }
    }
    bounds.ok_or(DataError::EmptyImage)
}

fn plane_box<T: Voxel>(image: ArrayView4<'_, T>, z: usize) -> Option<[[usize; 2]; 2]> {
    let mut found: Option<[[usize; 2]; 2]> = None;
    for channel in image.axis_iter(Axis(0)) {
        for (y, row) in channel.index_axis(Axis(0), z).rows().into_iter().enumerate() {
            // NaN differs from 0 too, here as in the reference.
            let Some(first) = row.iter().position(|v| *v != T::default()) else {
                continue;
            };
            let last = row.len() - row.iter().rev().position(|v| *v != T::default()).unwrap_or(0);
            let b = found.get_or_insert([[y, y + 1], [first, last]]);
            b[0] = [b[0][0].min(y), b[0][1].max(y + 1)];
            b[1] = [b[1][0].min(first), b[1][1].max(last)];
        }
    }
    found
}

/// Voxels that differ from 0 in some channel, or are enclosed by such (6-connected background does
/// not reach them from the border).
///
/// # Source
/// nnU-Net's `create_nonzero_mask` with SciPy's `binary_fill_holes`.
pub fn nonzero_mask<T: Voxel>(image: ArrayView4<'_, T>) -> Array3<bool> {
    let (_, depth, height, width) = image.dim();
    let mut mask = Array3::from_elem((depth, height, width), false);
    for channel in image.axis_iter(Axis(0)) {
        ndarray::Zip::from(&mut mask).and(&channel).par_for_each(|m, v| *m |= *v != T::default());
    }
    fill_holes(&mut mask);
    mask
}

/// A run of background voxels in one row.
struct Run {
    start: usize,
    end: usize,
}

/// Sets background that is not connected to the border.
fn fill_holes(mask: &mut Array3<bool>) {
    let (depth, height, width) = mask.dim();
    let rows: Vec<Vec<Run>> = (0..depth * height)
        .into_par_iter()
        .map(|row| background_runs(mask.slice(ndarray::s![row / height, row % height, ..])))
        .collect();
    // Runs are numbered through; number 0 is the outside.
    let offsets: Vec<usize> = rows
        .iter()
        .scan(1, |next, runs| {
            let first = *next;
            *next += runs.len();
            Some(first)
        })
        .collect();
    let count = 1 + rows.iter().map(Vec::len).sum::<usize>();
    let mut sets = DisjointSets::new(count);
    for (row, runs) in rows.iter().enumerate() {
        let (z, y) = (row / height, row % height);
        let border_row = z == 0 || z + 1 == depth || y == 0 || y + 1 == height;
        for (i, run) in runs.iter().enumerate() {
            if border_row || run.start == 0 || run.end == width {
                sets.join(0, offsets[row] + i);
            }
        }
        if y > 0 {
            join_touching((runs, offsets[row]), (&rows[row - 1], offsets[row - 1]), &mut sets);
        }
        if z > 0 {
            let above = row - height;
            join_touching((runs, offsets[row]), (&rows[above], offsets[above]), &mut sets);
        }
    }
    let outside = sets.root(0);
    for (row, runs) in rows.iter().enumerate() {
        for (i, run) in runs.iter().enumerate() {
            if sets.root(offsets[row] + i) != outside {
                let hole = ndarray::s![row / height, row % height, run.start..run.end];
                mask.slice_mut(hole).fill(true);
            }
        }
    }
}

fn background_runs(row: ndarray::ArrayView1<'_, bool>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (x, inside) in row.iter().enumerate() {
        match runs.last_mut() {
            _ if *inside => {}
            Some(run) if run.end == x => run.end += 1,
            _ => runs.push(Run { start: x, end: x + 1 }),
        }
    }
    runs
}

fn join_touching(a: (&[Run], usize), b: (&[Run], usize), sets: &mut DisjointSets) {
    let (mut i, mut j) = (0, 0);
    while i < a.0.len() && j < b.0.len() {
        let (p, q) = (&a.0[i], &b.0[j]);
        if p.start < q.end && q.start < p.end {
            sets.join(a.1 + i, b.1 + j);
        }
        if p.end <= q.end {
            i += 1;
        } else {
            j += 1;
        }
    }
}

struct DisjointSets {
    parent: Vec<u32>,
}

impl DisjointSets {
    fn new(count: usize) -> Self {
        let count = u32::try_from(count).expect("a volume has fewer than 2^32 runs");
        Self { parent: (0..count).collect() }
    }

    fn root(&mut self, mut of: usize) -> usize {
        while self.parent[of] as usize != of {
            let grandparent = self.parent[self.parent[of] as usize];
            self.parent[of] = grandparent;
            of = grandparent as usize;
        }
        of
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        // The smaller number wins, so that the outside stays the root of its set.
        self.parent[a.max(b)] = a.min(b) as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array4;

    fn shell() -> Array4<f32> {
        // A closed box of ones around a hollow, off centre in an asymmetric volume.
        let mut image = Array4::zeros((1, 5, 7, 11));
        image.slice_mut(ndarray::s![0, 0..4, 1..6, 3..10]).fill(1.0);
        image.slice_mut(ndarray::s![0, 1..3, 2..5, 4..9]).fill(0.0);
        image
    }

    #[test]
    fn a_closed_hollow_is_filled_and_a_leaking_one_is_not() {
        let mut image = shell();
        let filled = nonzero_mask(image.view());
        assert_eq!(filled.iter().filter(|m| **m).count(), 4 * 5 * 7);
        assert_eq!(bounding_box(image.view()).unwrap(), [[0, 4], [1, 6], [3, 10]]);
        image[[0, 3, 3, 5]] = 0.0;
        let leaking = nonzero_mask(image.view());
        assert_eq!(leaking.iter().filter(|m| **m).count(), 4 * 5 * 7 - 2 * 3 * 5 - 1);
    }

    #[test]
    fn a_diagonal_gap_is_no_leak() {
        let mut image = shell();
        // Opens an edge of the box: touches the hollow only diagonally.
        image[[0, 0, 1, 4]] = 0.0;
        let mask = nonzero_mask(image.view());
        assert!(mask[[1, 2, 4]]);
    }

    #[test]
    fn any_channel_counts_and_none_is_an_error() {
        let mut image = Array4::zeros((2, 4, 5, 6));
        assert!(matches!(bounding_box(image.view()), Err(DataError::EmptyImage)));
        image[[0, 1, 2, 3]] = 1.0;
        image[[1, 3, 0, 5]] = f32::NAN;
        assert_eq!(bounding_box(image.view()).unwrap(), [[1, 4], [0, 3], [3, 6]]);
    }
}
