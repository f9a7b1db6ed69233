//! The four transforms, each along one axis after the other.

use super::FREQUENCIES;
use super::boxes::Box3;
use crate::cpu::simd::Simd;

/// Four inputs of a tile.
#[inline(always)]
fn input<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 4] {
    [simd.subtract(a, c), simd.add(b, c), simd.subtract(c, b), simd.subtract(b, d)]
}

/// Two outputs from their four frequencies.
#[inline(always)]
fn output<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 2] {
    [simd.add(a, simd.add(b, c)), simd.subtract(simd.subtract(b, c), d)]
}

/// Two gradients of outputs: the transpose of [`output`].
#[inline(always)]
fn gradient<S: Simd>(simd: S, [a, b]: [S::Vector; 2]) -> [S::Vector; 4] {
    [a, simd.add(a, b), simd.subtract(a, b), simd.subtract(simd.zero(), b)]
}

/// Three weights.
#[inline(always)]
fn kernel<S: Simd>(simd: S, [a, b, c]: [S::Vector; 3]) -> [S::Vector; 4] {
    let half = simd.splat(0.5);
    let (outer, middle) = (simd.multiply(half, simd.add(a, c)), simd.multiply(half, b));
    [a, simd.add(outer, middle), simd.subtract(outer, middle), c]
}

/// Gradients of three weights: the transpose of [`kernel`].
#[inline(always)]
fn kernel_gradient<S: Simd>(simd: S, [a, b, c, d]: [S::Vector; 4]) -> [S::Vector; 3] {
    let half = simd.splat(0.5);
    let sum = simd.multiply(half, simd.add(b, c));
    [simd.add(a, sum), simd.multiply(half, simd.subtract(b, c)), simd.add(sum, d)]
}

/// Reads a vector.
///
/// # Safety
/// A vector lies at `offset` in `from`.
#[inline(always)]
unsafe fn load<S: Simd>(simd: S, from: &[f32], offset: usize) -> S::Vector {
    // SAFETY: the caller's promise.
    unsafe { simd.load(from.as_ptr().add(offset)) }
}

/// Transforms the inputs of a box.
///
/// `voxels` is `[Z, Y, X][width]` with the halo, `to` `[frequency][tile][width]`, frequencies
/// [`Box3::pitch`] tiles apart; `width` is a multiple of the lanes.
#[inline(always)]
pub(super) fn transform_input<S: Simd>(
    simd: S,
    tiles: Box3,
    width: usize,
    voxels: &[f32],
    to: &mut [f32],
) {
    let [_, rows, columns] = tiles.outer();
    assert!(voxels.len() >= tiles.outer().iter().product::<usize>() * width, "voxels of a box");
    assert!(to.len() >= FREQUENCIES * tiles.pitch() * width, "frequencies of a box");
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
                        for value in input(simd, columns) {
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
    let along_z: [[S::Vector; 4]; 4] =
        four!(|Y| input(simd, four!(|Z| unsafe { load(simd, voxels, at + Z * plane + Y * row) })));
    four!(|F| input(simd, four!(|Y| along_z[Y][F])))
}

/// Transforms a box back and adds `start`, one value for each of `width` channels.
///
/// `from` is `[frequency][tile][width]`, `voxels` `[Z, Y, X][width]`.
#[inline(always)]
pub(super) fn transform_output<S: Simd>(
    simd: S,
    tiles: Box3,
    width: usize,
    from: &[f32],
    start: &[f32],
    voxels: &mut [f32],
) {
    let [_, rows, columns] = tiles.inner();
    assert!(from.len() >= FREQUENCIES * tiles.pitch() * width, "frequencies of a box");
    assert!(voxels.len() >= tiles.inner().iter().product::<usize>() * width, "voxels of a box");
    assert!(start.len() >= width, "a start for each channel");
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
                    let row = output(simd, four!(|X| planes[X][dz][dy]));
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
    let along_z: [[S::Vector; 2]; 4] = four!(|Y| output(
        simd,
        four!(|Z| unsafe { load(simd, from, at + (Z * 16 + Y * 4) * next) })
    ));
    two!(|Z| output(simd, four!(|Y| along_z[Y][Z])))
}

/// Transforms the gradients of a box's outputs; layouts as in [`transform_input`], without a halo.
#[inline(always)]
pub(super) fn transform_gradient<S: Simd>(
    simd: S,
    tiles: Box3,
    width: usize,
    voxels: &[f32],
    to: &mut [f32],
) {
    let [_, rows, columns] = tiles.inner();
    assert!(voxels.len() >= tiles.inner().iter().product::<usize>() * width, "voxels of a box");
    assert!(to.len() >= FREQUENCIES * tiles.pitch() * width, "frequencies of a box");
    let [_, count_y, count_x] = tiles.tiles;
    let next = tiles.pitch() * width;
    for tile in 0..tiles.count() {
        let (z, y, x) = (tile / (count_y * count_x), tile / count_x % count_y, tile % count_x);
        let voxel = (2 * z * rows + 2 * y) * columns + 2 * x;
        for part in (0..width).step_by(S::LANES) {
            let voxel = voxel * width + part;
            let (plane, row) = (rows * columns * width, columns * width);
            // SAFETY: eight voxels of the box, as asserted.
            let along_z: [[[S::Vector; 4]; 2]; 2] = two!(|Y| two!(|X| gradient(
                simd,
                two!(|Z| unsafe { load(simd, voxels, voxel + Z * plane + Y * row + X * width) })
            )));
            let mut at = tile * width + part;
            for fz in 0..4 {
                let along_y: [[S::Vector; 4]; 2] =
                    two!(|X| gradient(simd, two!(|Y| along_z[Y][X][fz])));
                for fy in 0..4 {
                    for value in gradient(simd, two!(|X| along_y[X][fy])) {
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
pub(super) fn transform_kernel<S: Simd>(simd: S, taps: &[S::Vector; 27]) -> [S::Vector; 64] {
    // [z][y][fx], then [z][fx][fy].
    let mut along_y = [[[simd.zero(); 4]; 4]; 3];
    for (z, along_y) in along_y.iter_mut().enumerate() {
        let along_x: [[S::Vector; 4]; 3] =
            three!(|Y| kernel(simd, three!(|X| taps[(z * 3 + Y) * 3 + X])));
        *along_y = four!(|F| kernel(simd, three!(|Y| along_x[Y][F])));
    }
    let mut frequencies = [simd.zero(); 64];
    for fy in 0..4 {
        for fx in 0..4 {
            let along_z = kernel(simd, three!(|Z| along_y[Z][fx][fy]));
            for (fz, value) in along_z.into_iter().enumerate() {
                frequencies[(fz * 4 + fy) * 4 + fx] = value;
            }
        }
    }
    frequencies
}

/// Transforms the gradient of a transformed kernel back: 64 vectors to 27.
#[inline(always)]
pub(super) fn transform_kernel_gradient<S: Simd>(
    simd: S,
    frequencies: &[S::Vector; 64],
) -> [S::Vector; 27] {
    // [fy][fx][z].
    let mut along_z = [[[simd.zero(); 3]; 4]; 4];
    for fy in 0..4 {
        for fx in 0..4 {
            let four = four!(|Z| frequencies[(Z * 4 + fy) * 4 + fx]);
            along_z[fy][fx] = kernel_gradient(simd, four);
        }
    }
    let mut taps = [simd.zero(); 27];
    for z in 0..3 {
        let along_y: [[S::Vector; 3]; 4] =
            four!(|X| kernel_gradient(simd, four!(|Y| along_z[Y][X][z])));
        for y in 0..3 {
            let row = kernel_gradient(simd, four!(|X| along_y[X][y]));
            for (x, value) in row.into_iter().enumerate() {
                taps[(z * 3 + y) * 3 + x] = value;
            }
        }
    }
    taps
}
