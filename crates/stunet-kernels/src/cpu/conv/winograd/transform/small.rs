//! Tiles of 2×2×2 outputs: F(2, 3) along all three axes.

use super::axis::{gradient_2, input_2, kernel_2, kernel_gradient_2, output_2};
use super::load;
use crate::cpu::conv::winograd::boxes::{Box3, Tile};
use crate::cpu::simd::Simd;

/// Transformed values of a tile.
const FREQUENCIES: usize = Tile::Small.frequencies();

/// Transforms the inputs of a box.
///
/// `voxels` is `[Z, Y, X][width]` with the halo, `to` `[frequency][tile][width]`, frequencies
/// [`Box3::pitch`] tiles apart; `width` is a multiple of the lanes.
#[inline(always)]
pub(super) fn input<S: Simd>(simd: S, tiles: Box3, width: usize, voxels: &[f32], to: &mut [f32]) {
    let [_, rows, columns] = tiles.outer();
    let [count_z, count_y, count_x] = tiles.tiles;
    let next = tiles.pitch() * width;
    let strides = [rows * columns * width, columns * width];
    for part in (0..width).step_by(S::LANES) {
        for tile_row in 0..count_z * count_y {
            let (z, y) = (2 * (tile_row / count_y), 2 * (tile_row % count_y));
            let row = (z * rows + y) * columns * width + part;
            // The last four columns, by their number modulo 4.
            let mut ring = [[[simd.zero(); 4]; 4]; 4];
            for x in 0..2 * count_x + 2 {
                // SAFETY: `z + 3`, `y + 3` and `x` lie in the box, as asserted.
                ring[x % 4] = unsafe { column(simd, voxels, row + x * width, strides) };
                if x % 2 == 0 || x < 3 {
                    continue;
                }
                let tile = tile_row * count_x + (x - 3) / 2;
                // Column 0 of this tile stands where the next column will.
                let first = (x + 1) % 4;
                let mut at = tile * width + part;
                for fz in 0..4 {
                    for fy in 0..4 {
                        let columns = four!(|I| ring[(first + I) % 4][fz][fy]);
                        for value in input_2(simd, columns) {
                            // SAFETY: one of 64 frequencies of a tile of the box, as asserted.
                            unsafe { simd.store(to.as_mut_ptr().add(at), value) };
                            at += next;
                        }
                    }
                }
            }
        }
    }
}

/// One column of the four planes and rows of a tile, transformed along both: `[fz][fy]`.
///
/// # Safety
/// Vectors lie in `voxels` at `at` and at up to three of each stride from there.
#[inline(always)]
unsafe fn column<S: Simd>(
    simd: S,
    voxels: &[f32],
    at: usize,
    [plane, row]: [usize; 2],
) -> [[S::Vector; 4]; 4] {
    // SAFETY: the caller's promise.
    let along_z: [[S::Vector; 4]; 4] = four!(|Y| input_2(
        simd,
        four!(|Z| unsafe { load(simd, voxels, at + Z * plane + Y * row) })
    ));
    four!(|F| input_2(simd, four!(|Y| along_z[Y][F])))
}

/// Transforms a box back and adds `start`, one value for each of `width` channels.
///
/// `from` is `[frequency][tile][width]`, `voxels` `[Z, Y, X][width]`.
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
            // Along z and y, one frequency along x after the other: [z][y] of each.
            // SAFETY: 64 frequencies of a tile of the box, as asserted.
            let planes = four!(|X| unsafe { output_plane(simd, from, at + X * next, next) });
            for dz in 0..2 {
                for dy in 0..2 {
                    let row = output_2(simd, four!(|X| planes[X][dz][dy]));
                    let to = ((2 * z + dz) * rows + 2 * y + dy) * columns + 2 * x;
                    for (dx, value) in row.into_iter().enumerate() {
                        let value = simd.add(value, start);
                        // SAFETY: a voxel of the box, as asserted.
                        unsafe {
                            simd.store(voxels.as_mut_ptr().add((to + dx) * width + part), value);
                        }
                    }
                }
            }
        }
    }
}

/// The 4×4 frequencies along z and y from `at`, those along x being `next` apart, transformed back.
///
/// # Safety
/// Vectors lie in `from` at `at` and at every fourth `next` from there, 16 in all.
#[inline(always)]
unsafe fn output_plane<S: Simd>(
    simd: S,
    from: &[f32],
    at: usize,
    next: usize,
) -> [[S::Vector; 2]; 2] {
    // SAFETY: the caller's promise.
    let along_z: [[S::Vector; 2]; 4] = four!(|Y| output_2(
        simd,
        four!(|Z| unsafe { load(simd, from, at + (Z * 16 + Y * 4) * next) })
    ));
    two!(|Z| output_2(simd, four!(|Y| along_z[Y][Z])))
}

/// Transforms the gradients of a box's outputs; layouts as in [`input`], without a halo.
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
    for tile in 0..tiles.count() {
        let (z, y, x) = (tile / (count_y * count_x), tile / count_x % count_y, tile % count_x);
        let voxel = (2 * z * rows + 2 * y) * columns + 2 * x;
        for part in (0..width).step_by(S::LANES) {
            let voxel = voxel * width + part;
            let (plane, row) = (rows * columns * width, columns * width);
            // SAFETY: eight voxels of the box, as asserted.
            let along_z: [[[S::Vector; 4]; 2]; 2] = two!(|Y| two!(|X| gradient_2(
                simd,
                two!(|Z| unsafe { load(simd, voxels, voxel + Z * plane + Y * row + X * width) })
            )));
            let mut at = tile * width + part;
            for fz in 0..4 {
                let along_y: [[S::Vector; 4]; 2] =
                    two!(|X| gradient_2(simd, two!(|Y| along_z[Y][X][fz])));
                for fy in 0..4 {
                    for value in gradient_2(simd, two!(|X| along_y[X][fy])) {
                        // SAFETY: one of 64 frequencies of a tile of the box, as asserted.
                        unsafe { simd.store(to.as_mut_ptr().add(at), value) };
                        at += next;
                    }
                }
            }
        }
    }
}

/// Transforms a kernel: 27 vectors, `[z][y][x]`, to 64.
#[inline(always)]
pub(super) fn kernel<S: Simd>(simd: S, taps: &[S::Vector; 27]) -> [S::Vector; FREQUENCIES] {
    // [z][y][fx], then [z][fx][fy].
    let mut along_y = [[[simd.zero(); 4]; 4]; 3];
    for (z, along_y) in along_y.iter_mut().enumerate() {
        let along_x: [[S::Vector; 4]; 3] =
            three!(|Y| kernel_2(simd, three!(|X| taps[(z * 3 + Y) * 3 + X])));
        *along_y = four!(|F| kernel_2(simd, three!(|Y| along_x[Y][F])));
    }
    let mut frequencies = [simd.zero(); FREQUENCIES];
    for fy in 0..4 {
        for fx in 0..4 {
            let along_z = kernel_2(simd, three!(|Z| along_y[Z][fx][fy]));
            for (fz, value) in along_z.into_iter().enumerate() {
                frequencies[(fz * 4 + fy) * 4 + fx] = value;
            }
        }
    }
    frequencies
}

/// Transforms the gradient of a transformed kernel back: 64 vectors to 27.
#[inline(always)]
pub(super) fn kernel_gradient<S: Simd>(
    simd: S,
    frequencies: &[S::Vector; FREQUENCIES],
) -> [S::Vector; 27] {
    // [fy][fx][z].
    let mut along_z = [[[simd.zero(); 3]; 4]; 4];
    for fy in 0..4 {
        for fx in 0..4 {
            let four = four!(|Z| frequencies[(Z * 4 + fy) * 4 + fx]);
            along_z[fy][fx] = kernel_gradient_2(simd, four);
        }
    }
    let mut taps = [simd.zero(); 27];
    for z in 0..3 {
        let along_y: [[S::Vector; 3]; 4] =
            four!(|X| kernel_gradient_2(simd, four!(|Y| along_z[Y][X][z])));
        for y in 0..3 {
            let row = kernel_gradient_2(simd, four!(|X| along_y[X][y]));
            for (x, value) in row.into_iter().enumerate() {
                taps[(z * 3 + y) * 3 + x] = value;
            }
        }
    }
    taps
}
