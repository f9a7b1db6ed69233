//! Where in the sums something is done.

use super::kernels::{RowSizesLaunch, WindowSizesLaunch};
use crate::gpu::launch::{UNITS, dims};
use crate::windowed::WindowOverlap;
use burn_cubecl::tensor::CubeTensor;

/// Where a window is added.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub window: [usize; 3],
    pub overlap: WindowOverlap,
    /// Where its first plane lies.
    pub plane: usize,
    pub flips: [bool; 3],
    /// The first class of the sums.
    pub class: usize,
    pub factor: f32,
}

/// What is taken of the sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    pub plane: usize,
    pub planes: usize,
    pub row: usize,
    pub rows: usize,
    pub divisor: f32,
}

impl Place {
    /// Voxels that are added, and workgroups for them.
    pub fn threads(&self) -> [usize; 2] {
        let voxels = self.window[0] * self.overlap.rows.len() * self.overlap.columns.len();
        [voxels, voxels.div_ceil(UNITS)]
    }

    pub fn sizes(&self, sums: &CubeTensor, cube: usize) -> WindowSizesLaunch {
        let [_, planes, sums_rows, sums_columns] = dims(sums);
        let [depth, height, width] = self.window;
        assert!(planes >= depth, "sums of {planes} planes, windows of {depth}");
        let WindowOverlap { rows, columns, first: [from_row, from_column] } = &self.overlap;
        let inside = rows.end <= sums_rows
            && columns.end <= sums_columns
            && from_row + rows.len() <= height
            && from_column + columns.len() <= width;
        assert!(inside, "{self:?} in sums of {sums_rows} rows and {sums_columns} columns");
        let [flip_z, flip_y, flip_x] = self.flips.map(usize::from);
        WindowSizesLaunch::new(
            depth,
            height,
            width,
            flip_z,
            flip_y,
            flip_x,
            *from_row,
            *from_column,
            rows.len(),
            columns.len(),
            planes,
            self.plane,
            rows.start,
            columns.start,
            sums_rows,
            sums_columns,
            cube,
        )
    }
}

impl Taken {
    pub fn values(&self, sums: &CubeTensor) -> usize {
        let [classes, _, _, columns] = dims(sums);
        classes * self.planes * self.rows * columns
    }

    pub fn sizes(&self, sums: &CubeTensor, cube: usize) -> RowSizesLaunch {
        let [classes, depth, sums_rows, columns] = dims(sums);
        let Self { plane, planes, row, rows, .. } = *self;
        assert!(planes <= depth && row + rows <= sums_rows, "{self:?} of {depth}, {sums_rows}");
        RowSizesLaunch::new(classes, planes, rows, columns, plane, row, depth, sums_rows, cube)
    }
}
