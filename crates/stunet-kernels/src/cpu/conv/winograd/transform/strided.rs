//! Tiles of 2×2×2 outputs at stride 2 along each axis.
//!
//! Outer inputs meet the kernel's outer weights, two at stride 1, and inner inputs its middle weight. Along each
//! axis both are transformed for the points 1 and -1, the outer ones for infinity, too, where the middle weight is
//! none: five frequencies of inputs, of which those of the same point belong to one of three sums.

use super::axis::{input_strided, kernel_strided, output_strided};
use super::load;
use crate::cpu::conv::winograd::boxes::{Box3, Tile};
use crate::cpu::simd::Simd;

/// Transformed values of a kernel.
const FREQUENCIES: usize = Tile::Strided.frequencies();

/// Along one axis: the frequencies of inputs and of the kernel whose products belong to each of the outputs.
const TERMS: [&[[usize; 2]]; 3] = [&[[0, 0], [3, 3]], &[[1, 1], [4, 3]], &[[2, 2]]];

/// The frequencies of inputs and of the kernel whose products belong to frequency `sum` of the outputs.
pub(super) fn terms(sum: usize) -> impl Iterator<Item = [usize; 2]> {
    let [along_z, along_y, along_x] = [sum / 9, sum / 3 % 3, sum % 3].map(|axis| TERMS[axis]);
    along_z.iter().flat_map(move |z| {
        along_y.iter().flat_map(move |y| {
            along_x
                .iter()
                .map(move |x| [(z[0] * 5 + y[0]) * 5 + x[0], (z[1] * 4 + y[1]) * 4 + x[1]])
        })
    })
}

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
            // The last five columns: those between two tiles first or last by turns.
            let mut last = [[[simd.zero(); 5]; 5]; 5];
            for x in 0..4 * count_x + 1 {
                let place = if x % 8 == 4 { 4 } else { x % 4 };
                // SAFETY: `z + 4`, `y + 4` and `x` lie in the box, as asserted.
                unsafe { column(simd, voxels, row + x * width, strides, &mut last[place]) };
                if x % 4 != 0 || x == 0 {
                    continue;
                }
                let tile = tile_row * count_x + x / 4 - 1;
                let (first, end) = (4 - place, place);
                let mut at = tile * width + part;
                for fz in 0..5 {
                    for fy in 0..5 {
                        let [_, b, c, d, _] = five!(|X| last[X][fz][fy]);
                        let columns = [last[first][fz][fy], b, c, d, last[end][fz][fy]];
                        for value in input_strided(simd, columns) {
                            // SAFETY: one of 125 frequencies of a tile of the box, as asserted.
                            unsafe { simd.store(to.as_mut_ptr().add(at), value) };
                            at += next;
                        }
                    }
                }
            }
        }
    }
}

/// One column of the five planes and rows of a tile, transformed along both: `[fz][fy]`.
///
/// # Safety
/// Vectors lie in `voxels` at `at` and at up to four of each stride from there.
#[inline(always)]
unsafe fn column<S: Simd>(
    simd: S,
    voxels: &[f32],
    at: usize,
    [plane, row]: [usize; 2],
    to: &mut [[S::Vector; 5]; 5],
) {
    // SAFETY: the caller's promise.
    let along_z: [[S::Vector; 5]; 5] = five!(|Y| input_strided(
        simd,
        five!(|Z| unsafe { load(simd, voxels, at + Z * plane + Y * row) })
    ));
    for (fz, to) in to.iter_mut().enumerate() {
        *to = input_strided(simd, five!(|Y| along_z[Y][fz]));
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
        for part in (0..width).step_by(S::LANES) {
            // SAFETY: `start` has `width` values.
            let start = unsafe { load(simd, start, part) };
            let at = tile * width + part;
            // Along x and y, one frequency along z after the other: `[fz][x][y]`.
            let planes: [[[S::Vector; 2]; 2]; 3] = three!(|Z| {
                // SAFETY: 27 frequencies of a tile of the box, as asserted.
                let along_x: [[S::Vector; 2]; 3] = three!(|Y| output_strided(
                    simd,
                    three!(|X| unsafe { load(simd, from, at + ((Z * 3 + Y) * 3 + X) * next) })
                ));
                two!(|X| output_strided(simd, three!(|Y| along_x[Y][X])))
            });
            for dy in 0..2 {
                for dx in 0..2 {
                    let column = output_strided(simd, three!(|Z| planes[Z][dx][dy]));
                    for (dz, value) in column.into_iter().enumerate() {
                        let value = simd.add(value, start);
                        let voxel = ((2 * z + dz) * rows + 2 * y + dy) * columns + 2 * x + dx;
                        // SAFETY: a voxel of the box, as asserted.
                        unsafe { simd.store(voxels.as_mut_ptr().add(voxel * width + part), value) };
                    }
                }
            }
        }
    }
}

/// Transforms a kernel: 27 vectors, `[z][y][x]`, to 64.
#[inline(always)]
pub(super) fn kernel<S: Simd>(simd: S, taps: &[S::Vector; 27]) -> [S::Vector; FREQUENCIES] {
    // `[z][fx][fy]`.
    let along_y: [[[S::Vector; 4]; 4]; 3] = three!(|Z| {
        let along_x: [[S::Vector; 4]; 3] =
            three!(|Y| kernel_strided(simd, three!(|X| taps[(Z * 3 + Y) * 3 + X])));
        four!(|F| kernel_strided(simd, three!(|Y| along_x[Y][F])))
    });
    let mut frequencies = [simd.zero(); FREQUENCIES];
    for fy in 0..4 {
        for fx in 0..4 {
            let along_z = kernel_strided(simd, three!(|Z| along_y[Z][fx][fy]));
            for (fz, value) in along_z.into_iter().enumerate() {
                frequencies[(fz * 4 + fy) * 4 + fx] = value;
            }
        }
    }
    frequencies
}
