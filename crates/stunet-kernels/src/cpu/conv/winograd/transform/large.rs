//! Tiles of 4×4×2 outputs: F(4, 3) along z and y, F(2, 3) along x.

use super::axis::{
    gradient_2, gradient_4, input_2, input_4, kernel_2, kernel_4, kernel_gradient_2,
    kernel_gradient_4, output_2, output_4,
};
use super::load;
use crate::cpu::conv::winograd::boxes::{Box3, Tile};
use crate::cpu::simd::Simd;

/// Transformed values of a tile, `[fz][fy][fx]`.
const FREQUENCIES: usize = Tile::Large.frequencies();

/// Transforms the inputs of a box; see [`transform_input`](super::transform_input), which asserts what lies where.
#[inline(always)]
pub(super) fn input<S: Simd>(simd: S, tiles: Box3, width: usize, voxels: &[f32], to: &mut [f32]) {
    let [_, rows, columns] = tiles.outer();
    let [count_z, count_y, count_x] = tiles.tiles;
    let next = tiles.pitch() * width;
    let strides = [rows * columns * width, columns * width];
    for part in (0..width).step_by(S::LANES) {
        for tile_row in 0..count_z * count_y {
            let (z, y) = (4 * (tile_row / count_y), 4 * (tile_row % count_y));
            let row = (z * rows + y) * columns * width + part;
            // The last four columns, by their number modulo 4, transformed along z: `[fz][y]`.
            let mut ring = [[[simd.zero(); 6]; 6]; 4];
            for x in 0..2 * count_x + 2 {
                // SAFETY: `z + 5`, `y + 5` and `x` lie in the box, as asserted.
                unsafe { column(simd, voxels, row + x * width, strides, &mut ring[x % 4]) };
                if x % 2 == 0 || x < 3 {
                    continue;
                }
                let tile = tile_row * count_x + (x - 3) / 2;
                // Column 0 of this tile stands where the next column will.
                let first = (x + 1) % 4;
                let mut at = tile * width + part;
                for fz in 0..6 {
                    let columns = four!(|I| input_4(simd, ring[(first + I) % 4][fz]));
                    for fy in 0..6 {
                        for value in input_2(simd, four!(|I| columns[I][fy])) {
                            // SAFETY: one of the frequencies of a tile of the box, as asserted.
                            unsafe { simd.store(to.as_mut_ptr().add(at), value) };
                            at += next;
                        }
                    }
                }
            }
        }
    }
}

/// One column of the six planes and rows of a tile, transformed along z: `[fz][y]`.
///
/// # Safety
/// Vectors lie in `voxels` at `at` and at up to five of each stride from there.
#[inline(always)]
unsafe fn column<S: Simd>(
    simd: S,
    voxels: &[f32],
    at: usize,
    [plane, row]: [usize; 2],
    to: &mut [[S::Vector; 6]; 6],
) {
    for y in 0..6 {
        let at = at + y * row;
        // SAFETY: the caller's promise.
        let values = input_4(simd, six!(|Z| unsafe { load(simd, voxels, at + Z * plane) }));
        for (to, value) in to.iter_mut().zip(values) {
            to[y] = value;
        }
    }
}

/// Transforms a box back; see [`transform_output`](super::transform_output), which asserts what lies where.
#[inline(always)]
pub(super) fn output<S: Simd>(
    simd: S,
    tiles: Box3,
    width: usize,
    from: &[f32],
    start: &[f32],
    voxels: &mut [f32],
) {
    let [_, rows, columns] = tiles.inner();
    let [_, count_y, count_x] = tiles.tiles;
    let next = tiles.pitch() * width;
    for tile in 0..tiles.count() {
        let (z, y, x) = (tile / (count_y * count_x), tile / count_x % count_y, tile % count_x);
        let voxel = (4 * z * rows + 4 * y) * columns + 2 * x;
        for part in (0..width).step_by(S::LANES) {
            // SAFETY: `start` has `width` values.
            let start = unsafe { load(simd, start, part) };
            // Along x and y, one frequency along z after the other: `[fz][x][y]`.
            let mut planes = [[[simd.zero(); 4]; 2]; 6];
            for (fz, plane) in planes.iter_mut().enumerate() {
                let at = tile * width + part + fz * 24 * next;
                // SAFETY: 24 frequencies of a tile of the box, as asserted.
                let along_x: [[S::Vector; 2]; 6] = six!(|Y| output_2(
                    simd,
                    four!(|X| unsafe { load(simd, from, at + (Y * 4 + X) * next) })
                ));
                *plane = two!(|X| output_4(simd, six!(|Y| along_x[Y][X])));
            }
            for dy in 0..4 {
                for dx in 0..2 {
                    let column = output_4(simd, six!(|Z| planes[Z][dx][dy]));
                    for (dz, value) in column.into_iter().enumerate() {
                        let value = simd.add(value, start);
                        let at = voxel + (dz * rows + dy) * columns + dx;
                        // SAFETY: a voxel of the box, as asserted.
                        unsafe { simd.store(voxels.as_mut_ptr().add(at * width + part), value) };
                    }
                }
            }
        }
    }
}

/// Transforms the gradients of a box's outputs; see [`transform_gradient`](super::transform_gradient), which
/// asserts what lies where.
#[inline(always)]
pub(super) fn gradient<S: Simd>(
    simd: S,
    tiles: Box3,
    width: usize,
    voxels: &[f32],
    to: &mut [f32],
) {
    let [_, rows, columns] = tiles.inner();
    let [_, count_y, count_x] = tiles.tiles;
    let next = tiles.pitch() * width;
    let (plane, row) = (rows * columns * width, columns * width);
    for tile in 0..tiles.count() {
        let (z, y, x) = (tile / (count_y * count_x), tile / count_x % count_y, tile % count_x);
        let voxel = (4 * z * rows + 4 * y) * columns + 2 * x;
        for part in (0..width).step_by(S::LANES) {
            let voxel = voxel * width + part;
            // `[fz][x][y]`.
            let mut along_z = [[[simd.zero(); 4]; 2]; 6];
            for y in 0..4 {
                for x in 0..2 {
                    let at = voxel + y * row + x * width;
                    // SAFETY: four voxels of the box, as asserted.
                    let column = four!(|Z| unsafe { load(simd, voxels, at + Z * plane) });
                    for (to, value) in along_z.iter_mut().zip(gradient_4(simd, column)) {
                        to[x][y] = value;
                    }
                }
            }
            let mut at = tile * width + part;
            for plane in &along_z {
                let along_y: [[S::Vector; 6]; 2] = two!(|X| gradient_4(simd, plane[X]));
                for fy in 0..6 {
                    for value in gradient_2(simd, two!(|X| along_y[X][fy])) {
                        // SAFETY: one of the frequencies of a tile of the box, as asserted.
                        unsafe { simd.store(to.as_mut_ptr().add(at), value) };
                        at += next;
                    }
                }
            }
        }
    }
}

/// Transforms a kernel: 27 vectors, `[z][y][x]`.
#[inline(always)]
pub(super) fn kernel<S: Simd>(simd: S, taps: &[S::Vector; 27]) -> [S::Vector; FREQUENCIES] {
    // `[z][fy][fx]`.
    let mut along_y = [[[simd.zero(); 4]; 6]; 3];
    for (z, along_y) in along_y.iter_mut().enumerate() {
        let along_x: [[S::Vector; 4]; 3] =
            three!(|Y| kernel_2(simd, three!(|X| taps[(z * 3 + Y) * 3 + X])));
        for fx in 0..4 {
            let column = kernel_4(simd, three!(|Y| along_x[Y][fx]));
            for (to, value) in along_y.iter_mut().zip(column) {
                to[fx] = value;
            }
        }
    }
    let mut frequencies = [simd.zero(); FREQUENCIES];
    for fy in 0..6 {
        for fx in 0..4 {
            let along_z = kernel_4(simd, three!(|Z| along_y[Z][fy][fx]));
            for (fz, value) in along_z.into_iter().enumerate() {
                frequencies[(fz * 6 + fy) * 4 + fx] = value;
            }
        }
    }
    frequencies
}

/// Transforms the gradient of a transformed kernel back.
#[inline(always)]
pub(super) fn kernel_gradient<S: Simd>(
    simd: S,
    frequencies: &[S::Vector; FREQUENCIES],
) -> [S::Vector; 27] {
    // `[fy][fx][z]`.
    let mut along_z = [[[simd.zero(); 3]; 4]; 6];
    for fy in 0..6 {
        for fx in 0..4 {
            let six = six!(|Z| frequencies[(Z * 6 + fy) * 4 + fx]);
            along_z[fy][fx] = kernel_gradient_4(simd, six);
        }
    }
    let mut taps = [simd.zero(); 27];
    for z in 0..3 {
        let along_y: [[S::Vector; 3]; 4] =
            four!(|X| kernel_gradient_4(simd, six!(|Y| along_z[Y][X][z])));
        for y in 0..3 {
            let row = kernel_gradient_2(simd, four!(|X| along_y[X][y]));
            for (x, value) in row.into_iter().enumerate() {
                taps[(z * 3 + y) * 3 + x] = value;
            }
        }
    }
    taps
}
