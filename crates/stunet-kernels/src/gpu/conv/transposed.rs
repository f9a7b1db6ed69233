//! The gradient of a strided convolution with respect to its input.
//!
//! Voxels of the input that leave the same remainder modulo the stride are reached by the same taps: a
//! workgroup computes a tile of one remainder, as a small convolution of the gradient with those taps.
//! Nothing is multiplied by the zeros between the voxels.

use super::kernels::{store_voxel, zero};
use super::place::{Place, Sizes, V4, place};
use crate::gpu::tiles::{ROW, Tile};
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
    let cube = CUBE_POS + sizes.cube;
    if cube >= sizes.cubes {
        terminate!();
    }
    let remainders = comptime!(tile.stride[0] * tile.stride[1] * tile.stride[2]);
    let each = sizes.cubes / remainders;
    let remainder = cube / each;
    let place = place(&sizes, cube % each, tile);
    let r_x = remainder % comptime!(tile.stride[2]);
    let r_y = remainder / comptime!(tile.stride[2]) % comptime!(tile.stride[1]);
    let r_z = remainder / comptime!(tile.stride[2] * tile.stride[1]);

    let plane =
        comptime!(tile.halo_transposed(0) * tile.halo_transposed(1) * tile.halo_transposed(2));
    let mut halo = Shared::<[f32]>::new_slice(comptime!(plane * tile.depth));
    let mut sums = Array::<V4>::new(comptime!(ROW * tile.vectors));
    zero(&mut sums);
    let channels = sizes.first_channels;
    let mut channel = 0usize;
    while channel < channels {
        sync_cube();
        fill::<E, NI>(gradient, &mut halo, &sizes, place, channel, tile);
        sync_cube();
        let mut here = channels - channel;
        if here > tile.depth {
            here = comptime!(tile.depth).runtime();
        }
        multiply(weight, &halo, &mut sums, &sizes, place, (r_z, r_y, r_x), here, channel, tile);
        channel += tile.depth;
    }
    store::<E, NO>(output, &sums, &sizes, place, (r_z, r_y, r_x), tile);
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
    let mut index = UNIT_POS as usize;
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

/// Whether a tap reaches voxels with a remainder.
#[cube]
fn reaches(remainder: usize, tap: usize, #[comptime] axis: usize, #[comptime] tile: Tile) -> bool {
    let stride = comptime!(tile.stride[axis]);
    (remainder + comptime!(tile.kernel[axis] / 2 + stride) - tap).is_multiple_of(stride)
}

/// How far from a voxel, in shared memory, that lies which a tap multiplies.
#[cube]
fn offset(remainder: usize, tap: usize, #[comptime] axis: usize, #[comptime] tile: Tile) -> usize {
    let stride = comptime!(tile.stride[axis]);
    (remainder + comptime!(tile.kernel[axis] / 2 + stride) - tap) / stride
        + comptime!(tile.below(axis))
        - 1
}

/// Adds the products of the channels in shared memory, with the taps that reach the remainder.
#[cube]
fn multiply(
    weight: &[V4],
    halo: &Shared<[f32]>,
    sums: &mut Array<V4>,
    sizes: &Sizes,
    place: Place,
    remainder: (usize, usize, usize),
    channels: usize,
    from: usize,
    #[comptime] tile: Tile,
) {
    for tap_z in 0..comptime!(tile.kernel[0]) {
        if reaches(remainder.0, tap_z, 0usize, tile) {
            let z = place.unit_z + offset(remainder.0, tap_z, 0usize, tile);
            for tap_y in 0..comptime!(tile.kernel[1]) {
                if reaches(remainder.1, tap_y, 1usize, tile) {
                    let y = place.unit_y + offset(remainder.1, tap_y, 1usize, tile);
                    for tap_x in 0..comptime!(tile.kernel[2]) {
                        if reaches(remainder.2, tap_x, 2usize, tile) {
                            let x = place.unit_x + offset(remainder.2, tap_x, 2usize, tile);
                            let tap = (tap_z * comptime!(tile.kernel[1]) + tap_y)
                                * comptime!(tile.kernel[2])
                                + tap_x;
                            multiply_tap(
                                weight,
                                halo,
                                sums,
                                sizes,
                                place,
                                (z, y, x),
                                tap,
                                channels,
                                from,
                                tile,
                            );
                        }
                    }
                }
            }
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
    at: (usize, usize, usize),
    tap: usize,
    channels: usize,
    from: usize,
    #[comptime] tile: Tile,
) {
    let (high, wide) = comptime!((tile.halo_transposed(1), tile.halo_transposed(2)));
    let plane = comptime!(tile.halo_transposed(0) * high * wide);
    let start = (at.0 * high + at.1) * wide + at.2;
    for depth in 0..channels {
        let weights = (tap * sizes.first_channels + from + depth) * sizes.row + place.channel / 4;
        #[unroll]
        for vector in 0..tile.vectors {
            let w = weight[weights + vector];
            #[unroll]
            for voxel in 0..ROW {
                let at = comptime!(voxel * tile.vectors + vector);
                let value = halo[depth * plane + start + voxel];
                sums[at] = fma(V4::new(value), w, sums[at]);
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
