//! The gradient of a strided convolution with respect to its input.
//!
//! Voxels of the input that leave the same remainder modulo the stride are reached by the same taps: a
//! workgroup computes a tile of one remainder, as a small convolution of the gradient with those taps.
//! Nothing is multiplied by the zeros between the voxels.

use super::kernels::{store_voxel, zero};
use super::place::{
    Place, Sizes, V4, cube_again, cube_of, keep, kept_number, kept_place, kept_zero, part_of,
    place_of, unit_again,
};
use crate::gpu::tiles::{ROW, SHARED, Tile};
use cubecl::prelude::*;

/// The gradient `[N, Z, Y, X, Cin]` of the input, from that of the output, `[N, Z, Y, X, Cout]`.
///
/// In `sizes`, the input is the gradient of the output and the output that of the input; the weights are
/// `[taps, Cout, Cin]`. The grid has `first_remainder` and all that follow outermost.
#[cube(launch_unchecked)]
pub(super) fn convolve_transposed<E: Float, NI: Size, NO: Size>(
    gradient: &[Vector<E, NI>],
    weight: &[V4],
    output: &mut [Vector<E, NO>],
    sizes: Sizes,
    #[comptime] tile: Tile,
    #[define(E)] _dtype: ElemType,
) {
    let cube = cube_of(&sizes);
    if cube >= sizes.cubes {
        terminate!();
    }
    let remainders = comptime!(tile.stride[0] * tile.stride[1] * tile.stride[2]);
    let each = sizes.cubes / remainders;
    let plane =
        comptime!(tile.halo_transposed(0) * tile.halo_transposed(1) * tile.halo_transposed(2));
    let mut halo = Shared::<[f32]>::new_slice(comptime!(plane * tile.depth));
    let kept = keep(part_of(&sizes, cube % each, tile), cube / each);
    let mut sums = Array::<V4>::new(comptime!(ROW * tile.vectors));
    zero(&mut sums);
    let channels = sizes.first_channels;
    let mut channel = 0usize;
    while channel < channels {
        sync_cube();
        let place = kept_place(&kept, tile);
        fill::<E, NI>(gradient, &mut halo, &sizes, place, channel, tile);
        sync_cube();
        let place = kept_place(&kept, tile);
        let mut here = channels - channel;
        if here > tile.depth {
            here = comptime!(tile.depth).runtime();
        }
        // One register each, instead of what a compiler takes apart.
        let zero = kept_zero(&kept);
        let (r_z, r_y, r_x) = remainder_of(kept_number(&kept), tile);
        let from_voxel = (
            shifted(r_z, 0usize, tile) ^ zero,
            shifted(r_y, 1usize, tile) ^ zero,
            shifted(r_x, 2usize, tile) ^ zero,
        );
        let first = first_of(place, tile) ^ zero;
        multiply(weight, &halo, &mut sums, &sizes, place, first, from_voxel, here, channel, tile);
        channel += tile.depth;
    }
    let cube = cube_again(&sizes);
    let place = place_of(part_of(&sizes, cube % each, tile), unit_again(&sizes), tile);
    store::<E, NO>(output, &sums, &sizes, place, remainder_of(cube / each, tile), tile);
}

/// The remainder of a number, z, y and x.
#[cube]
fn remainder_of(remainder: usize, #[comptime] tile: Tile) -> (usize, usize, usize) {
    let r_x = remainder % comptime!(tile.stride[2]);
    let r_y = remainder / comptime!(tile.stride[2]) % comptime!(tile.stride[1]);
    (remainder / comptime!(tile.stride[2] * tile.stride[1]), r_y, r_x)
}

/// Brings the gradient around a tile into shared memory, `[depth, z, y, x]`: channels `from` on.
#[cube]
fn fill<E: Float, N: Size>(
    gradient: &[Vector<E, N>],
    halo: &mut Shared<[f32]>,
    sizes: &Sizes,
    place: Place,
    from: usize,
    #[comptime] tile: Tile,
) {
    let size = N::value();
    let vectors = comptime!(tile.depth / size);
    let (high, wide) = comptime!((tile.halo_transposed(1), tile.halo_transposed(2)));
    let plane = comptime!(tile.halo_transposed(0) * high * wide);
    let mut index = place.unit;
    while index < comptime!(plane * vectors) {
        let (voxel, channel) = (index / vectors, index % vectors * size);
        let (row, h_x) = (voxel / wide, voxel % wide);
        let (z, y, x) = (place.z + row / high, place.y + row % high, place.x + h_x);
        let (below_z, below_y, below_x) = comptime!((tile.below(0), tile.below(1), tile.below(2)));
        let mut value = Vector::<E, N>::new(E::new(0.0));
        let inside = z >= below_z
            && z < sizes.in_z + below_z
            && y >= below_y
            && y < sizes.in_y + below_y
            && x >= below_x
            && x < sizes.in_x + below_x;
        if inside && from + channel < sizes.first_channels {
            let voxel = (place.sample * sizes.in_z + z - below_z) * sizes.in_y + y - below_y;
            let voxel = voxel * sizes.in_x + x - below_x;
            value = gradient[(voxel * sizes.first_channels + from + channel) / size];
        }
        #[unroll]
        for i in 0..size {
            halo[(channel + i) * plane + voxel] = f32::cast_from(value.extract(i));
        }
        index += comptime!(tile.units());
    }
}

/// From where on an axis of the gradient lies what the taps multiply: a remainder, shifted so that no tap falls below zero.
#[cube]
fn shifted(remainder: usize, #[comptime] axis: usize, #[comptime] tile: Tile) -> usize {
    let by = comptime!(tile.kernel[axis] / 2 + (tile.below(axis) + 1) * tile.stride[axis]);
    remainder + by
}

/// Where a thread's voxels begin in shared memory, less the one voxel along each axis by which [`shifted`] is too high.
#[cube]
fn first_of(place: Place, #[comptime] tile: Tile) -> usize {
    let (high, wide) = comptime!((tile.halo_transposed(1), tile.halo_transposed(2)));
    (place.unit_z * high + place.unit_y) * wide + place.unit_x - comptime!((high + 1) * wide + 1)
}

/// Adds the products of the channels in shared memory, with the taps that reach the remainder.
#[cube]
fn multiply(
    weight: &[V4],
    halo: &Shared<[f32]>,
    sums: &mut Array<V4>,
    sizes: &Sizes,
    place: Place,
    first: usize,
    from_voxel: (usize, usize, usize),
    channels: usize,
    from: usize,
    #[comptime] tile: Tile,
) {
    let (high, wide) = comptime!((tile.halo_transposed(1), tile.halo_transposed(2)));
    let (taps_y, taps_x) = comptime!((tile.kernel[1], tile.kernel[2]));
    let (stride_z, stride_y, stride_x) =
        comptime!((tile.stride[0], tile.stride[1], tile.stride[2]));
    let (from_z, from_y, from_x) = from_voxel;
    for tap in 0..comptime!(tile.kernel[0] * taps_y * taps_x) {
        let (tap_z, tap_y, tap_x) = (tap / taps_x / taps_y, tap / taps_x % taps_y, tap % taps_x);
        let (z, y, x) = (from_z - tap_z, from_y - tap_y, from_x - tap_x);
        // The tap reaches voxels with these remainders.
        if z.is_multiple_of(stride_z) && y.is_multiple_of(stride_y) && x.is_multiple_of(stride_x) {
            let start = first + (z / stride_z * high + y / stride_y) * wide + x / stride_x;
            // Nothing changes: it tells compilers that no address overflows.
            let start = start & comptime!(SHARED / size_of::<f32>() - 1);
            multiply_tap(weight, halo, sums, sizes, place, start, tap, channels, from, tile);
        }
    }
}

/// Adds the products of one tap.
#[cube]
fn multiply_tap(
    weight: &[V4],
    halo: &Shared<[f32]>,
    sums: &mut Array<V4>,
    sizes: &Sizes,
    place: Place,
    start: usize,
    tap: usize,
    channels: usize,
    from: usize,
    #[comptime] tile: Tile,
) {
    let (high, wide) = comptime!((tile.halo_transposed(1), tile.halo_transposed(2)));
    let plane = comptime!(tile.halo_transposed(0) * high * wide);
    for depth in 0..channels {
        let weights = (tap * sizes.first_channels + from + depth) * sizes.row + place.channel / 4;
        let mut row = Array::<f32>::new(ROW);
        #[unroll]
        for voxel in 0..ROW {
            row[voxel] = halo[depth * plane + start + voxel];
        }
        #[unroll]
        for vector in 0..tile.vectors {
            let w = weight[weights + vector];
            #[unroll]
            for voxel in 0..ROW {
                let at = comptime!(voxel * tile.vectors + vector);
                sums[at] = fma(V4::new(row[voxel]), w, sums[at]);
            }
        }
    }
}

/// Writes a thread's sums to the voxels with the remainder.
#[cube]
fn store<E: Float, N: Size>(
    output: &mut [Vector<E, N>],
    sums: &Array<V4>,
    sizes: &Sizes,
    place: Place,
    remainder: (usize, usize, usize),
    #[comptime] tile: Tile,
) {
    let z = (place.z + place.unit_z) * comptime!(tile.stride[0]) + remainder.0;
    let y = (place.y + place.unit_y) * comptime!(tile.stride[1]) + remainder.1;
    if z < sizes.out_z && y < sizes.out_y {
        let row = ((place.sample * sizes.out_z + z) * sizes.out_y + y) * sizes.out_x;
        #[unroll]
        for voxel in 0..ROW {
            let x = (place.x + place.unit_x + voxel) * comptime!(tile.stride[2]) + remainder.2;
            if x < sizes.out_x {
                let values = (row + x) * sizes.outputs;
                store_voxel::<E, N>(output, sums, sizes, place.channel, values, voxel, tile);
            }
        }
    }
}
