//! The convolution itself.
//!
//! A workgroup computes a block of output voxels × output channels. It brings the input voxels under
//! them into shared memory, a few channels at a time, and every thread keeps 4 voxels of a row × 4 or
//! 8 channels in registers: a value from shared memory is used in up to 3 × 8 products, a vector of
//! weights in 4 × 4. All sums are in single precision, in an order that only shapes decide.

use super::measure::measure;
use super::place::{Place, Sizes, V4, cube_of, keep, kept_place, part_of, place_again, place_of};
use crate::gpu::launch::Present;
use crate::gpu::norm::{OF_CHANNEL, activated, channel_at, normed};
use crate::gpu::tiles::{ROW, Tile};
use cubecl::prelude::*;

/// Convolves the concatenation of one or two tensors `[N, Z, Y, X, C]`.
///
/// The first is repeated by a factor while it is read, or normed by `reads_by`, or neither. The weights are
/// `[taps, Cin, Cout]` with as many zeros behind as fill the last block. To what comes out is added the norm of
/// `added`, by `added_by`, before the activation, if there is such a tensor. The grid is one workgroup for each tile
/// and block, blocks innermost.
#[cube(launch_unchecked)]
pub(super) fn convolve<E: Float, NI: Size, NO: Size>(
    first: &[Vector<E, NI>],
    second: ComptimeOption<&[Vector<E, NI>]>,
    reads_by: ComptimeOption<&[f32]>,
    weight: &[V4],
    bias: ComptimeOption<&[E]>,
    added: ComptimeOption<&[Vector<E, NO>]>,
    added_by: ComptimeOption<&[f32]>,
    output: &mut [Vector<E, NO>],
    moments: ComptimeOption<&mut [f32]>,
    sizes: Sizes,
    slope: f32,
    #[comptime] factor: [usize; 3],
    #[comptime] tile: Tile,
    #[comptime] _present: Present,
    #[define(E)] _dtype: ElemType,
) {
    let cube = cube_of(&sizes);
    if cube >= sizes.cubes {
        terminate!();
    }
    let part = part_of(&sizes, cube, tile);
    let mut halo = Shared::<[f32]>::new_slice(comptime!(tile.plane() * tile.depth));
    let kept = keep(part, 0usize);
    let mut sums = Array::<V4>::new(comptime!(ROW * tile.vectors));
    begin::<E>(bias, &mut sums, &sizes, place_of(part, UNIT_POS as usize, tile), tile);
    let (channels, more) = (sizes.first_channels, sizes.second_channels);
    accumulate::<E, NI>(
        first, reads_by, slope, weight, &mut halo, &kept, &mut sums, &sizes, channels, 0usize,
        factor, tile,
    );
    #[comptime]
    match second {
        ComptimeOption::Some(second) => {
            let (by, each) = (ComptimeOption::new_None(), comptime!([1, 1, 1]));
            accumulate::<E, NI>(
                second, by, slope, weight, &mut halo, &kept, &mut sums, &sizes, more, channels,
                each, tile,
            );
        }
        ComptimeOption::None => {}
    }
    let place = place_again(&sizes, tile);
    add_normed::<E, NO>(added, added_by, slope, &mut sums, &sizes, place, tile);
    store::<E, NO>(output, &sums, &sizes, place, tile);
    #[comptime]
    match moments {
        ComptimeOption::Some(moments) => {
            measure(moments, &mut halo, &sums, &sizes, place, tile);
        }
        ComptimeOption::None => {}
    }
}

#[cube]
pub(super) fn zero(sums: &mut Array<V4>) {
    #[unroll]
    for i in 0..sums.len() {
        sums[i] = V4::new(0.0f32);
    }
}

/// Sums begin with the bias, if there is one.
#[cube]
fn begin<E: Float>(
    bias: ComptimeOption<&[E]>,
    sums: &mut Array<V4>,
    sizes: &Sizes,
    place: Place,
    #[comptime] tile: Tile,
) {
    #[comptime]
    match bias {
        ComptimeOption::Some(bias) => begin_with::<E>(bias, sums, sizes, place, tile),
        ComptimeOption::None => zero(sums),
    }
}

#[cube]
fn begin_with<E: Float>(
    bias: &[E],
    sums: &mut Array<V4>,
    sizes: &Sizes,
    place: Place,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for vector in 0..tile.vectors {
        let mut values = V4::new(0.0f32);
        #[unroll]
        for i in 0..4usize {
            let channel = place.channel + comptime!(vector * 4 + i);
            if channel < sizes.outputs {
                values.insert(i, f32::cast_from(bias[channel]));
            }
        }
        #[unroll]
        for voxel in 0..ROW {
            sums[comptime!(voxel * tile.vectors + vector)] = values;
        }
    }
}

/// Adds the products of one part of the input, whose `channels` are those of the kernel `from` on.
#[cube]
fn accumulate<E: Float, N: Size>(
    part: &[Vector<E, N>],
    reads_by: ComptimeOption<&[f32]>,
    slope: f32,
    weight: &[V4],
    halo: &mut Shared<[f32]>,
    kept: &Shared<[u32]>,
    sums: &mut Array<V4>,
    sizes: &Sizes,
    channels: usize,
    from: usize,
    #[comptime] factor: [usize; 3],
    #[comptime] tile: Tile,
) {
    let mut channel = 0usize;
    while channel < channels {
        // Nobody still reads what is overwritten.
        sync_cube();
        let place = kept_place(kept, tile);
        fill::<E, N>(part, reads_by, slope, halo, sizes, place, channels, channel, factor, tile);
        sync_cube();
        let place = kept_place(kept, tile);
        let mut here = channels - channel;
        if here > tile.depth {
            here = comptime!(tile.depth).runtime();
        }
        for depth in 0..here {
            multiply(weight, &*halo, sums, sizes, place, depth, from + channel + depth, tile);
        }
        channel += tile.depth;
    }
}

/// What a voxel, or a number of voxels, is where each was repeated `by` times.
#[cube]
fn coarse(voxel: usize, #[comptime] by: usize) -> usize {
    let mut found = voxel;
    if comptime!(by > 1) {
        found = voxel / by;
    }
    found
}

/// Which voxel of a part lies at a place, where each was repeated.
#[cube]
fn voxel_at(
    sizes: &Sizes,
    sample: usize,
    z: usize,
    y: usize,
    x: usize,
    #[comptime] factor: [usize; 3],
) -> usize {
    let plane = sample * coarse(sizes.in_z, factor[0]) + coarse(z, factor[0]);
    let row = plane * coarse(sizes.in_y, factor[1]) + coarse(y, factor[1]);
    row * coarse(sizes.in_x, factor[2]) + coarse(x, factor[2])
}

/// Brings the input under a tile into shared memory, `[depth, z, y, x]`: channels `from` on; normed and
/// activated on the way if there is something to norm it by, statistics `[N, C, 4]`.
#[cube]
fn fill<E: Float, N: Size>(
    part: &[Vector<E, N>],
    reads_by: ComptimeOption<&[f32]>,
    slope: f32,
    halo: &mut Shared<[f32]>,
    sizes: &Sizes,
    place: Place,
    channels: usize,
    from: usize,
    #[comptime] factor: [usize; 3],
    #[comptime] tile: Tile,
) {
    let size = N::value();
    let vectors = comptime!(tile.depth / size);
    let plane = comptime!(tile.plane());
    let (high, wide) = comptime!((tile.halo(1), tile.halo(2)));
    let mut index = place.unit;
    while index < comptime!(plane * vectors) {
        let (voxel, channel) = (index / vectors, index % vectors * size);
        let (row, h_x) = (voxel / wide, voxel % wide);
        let (h_z, h_y) = (row / high, row % high);
        // Shifted by the padding, so that nothing is negative.
        let z = (place.z * comptime!(tile.step(0)) + h_z) * comptime!(tile.skip(0));
        let y = (place.y * comptime!(tile.step(1)) + h_y) * comptime!(tile.skip(1));
        let x = (place.x * comptime!(tile.step(2)) + h_x) * comptime!(tile.skip(2));
        let (pad_z, pad_y, pad_x) =
            comptime!((tile.kernel[0] / 2, tile.kernel[1] / 2, tile.kernel[2] / 2));
        let mut value = Vector::<E, N>::new(E::new(0.0));
        let inside = z >= pad_z
            && z < sizes.in_z + pad_z
            && y >= pad_y
            && y < sizes.in_y + pad_y
            && x >= pad_x
            && x < sizes.in_x + pad_x;
        let inside = inside && from + channel < channels;
        if inside {
            let voxel = voxel_at(sizes, place.sample, z - pad_z, y - pad_y, x - pad_x, factor);
            value = part[(voxel * channels + from + channel) / size];
        }
        #[unroll]
        for i in 0..size {
            let mut stored = f32::cast_from(value.extract(i));
            #[comptime]
            match reads_by {
                ComptimeOption::Some(by) => {
                    // What lies outside stays zero.
                    if inside {
                        let at = (place.sample * channels + from + channel + i) * OF_CHANNEL;
                        stored = activated(normed(stored, channel_at(by, at)), slope);
                    }
                }
                ComptimeOption::None => {}
            }
            halo[(channel + i) * plane + voxel] = stored;
        }
        index += comptime!(tile.units());
    }
}

/// Adds the products of one input channel: `depth` in shared memory, `input` of the kernel.
#[cube]
fn multiply(
    weight: &[V4],
    halo: &Shared<[f32]>,
    sums: &mut Array<V4>,
    sizes: &Sizes,
    place: Place,
    depth: usize,
    input: usize,
    #[comptime] tile: Tile,
) {
    let inputs = sizes.first_channels + sizes.second_channels;
    let (high, wide) = comptime!((tile.halo(1), tile.halo(2)));
    let (taps_y, taps_x) = comptime!((tile.kernel[1], tile.kernel[2]));
    for tap_z in 0..comptime!(tile.kernel[0]) {
        for tap_y in 0..taps_y {
            let z =
                depth * comptime!(tile.halo(0)) + place.unit_z * comptime!(tile.step(0)) + tap_z;
            let y = place.unit_y * comptime!(tile.step(1)) + tap_y;
            let start = (z * high + y) * wide + place.unit_x * comptime!(tile.step(2));
            let mut row = Array::<f32>::new(comptime!((ROW - 1) * tile.step(2) + tile.kernel[2]));
            #[unroll]
            for i in 0..row.len() {
                row[i] = halo[start + i];
            }
            #[unroll]
            for tap_x in 0..taps_x {
                let tap = (tap_z * taps_y + tap_y) * taps_x + tap_x;
                let weights = (tap * inputs + input) * sizes.row + place.channel / 4;
                #[unroll]
                for vector in 0..tile.vectors {
                    let w = weight[weights + vector];
                    #[unroll]
                    for voxel in 0..ROW {
                        let at = comptime!(voxel * tile.vectors + vector);
                        let value = row[comptime!(voxel * tile.step(2) + tap_x)];
                        sums[at] = fma(V4::new(value), w, sums[at]);
                    }
                }
            }
        }
    }
}

/// Adds the norm of the voxels at the same places, by statistics `[N, C, 4]`, and activates, if there are such.
#[cube]
fn add_normed<E: Float, N: Size>(
    added: ComptimeOption<&[Vector<E, N>]>,
    by: ComptimeOption<&[f32]>,
    slope: f32,
    sums: &mut Array<V4>,
    sizes: &Sizes,
    place: Place,
    #[comptime] tile: Tile,
) {
    #[comptime]
    match added {
        ComptimeOption::Some(added) =>
        {
            #[comptime]
            match by {
                ComptimeOption::Some(by) => {
                    add_normed_by::<E, N>(added, by, slope, sums, sizes, place, tile);
                }
                ComptimeOption::None => {}
            }
        }
        ComptimeOption::None => {}
    }
}

#[cube]
fn add_normed_by<E: Float, N: Size>(
    added: &[Vector<E, N>],
    by: &[f32],
    slope: f32,
    sums: &mut Array<V4>,
    sizes: &Sizes,
    place: Place,
    #[comptime] tile: Tile,
) {
    let size = N::value();
    let (z, y) = (place.z + place.unit_z, place.y + place.unit_y);
    let row = ((place.sample * sizes.out_z + z) * sizes.out_y + y) * sizes.out_x;
    let is_row = z < sizes.out_z && y < sizes.out_y;
    let first = place.x + place.unit_x;
    #[unroll]
    for part in 0..comptime!(tile.vectors * 4 / size) {
        let channel = place.channel + comptime!(part * size);
        let vector = comptime!(part * size / 4);
        if is_row && channel < sizes.outputs {
            let at = (place.sample * sizes.outputs + channel) * OF_CHANNEL;
            #[unroll]
            for voxel in 0..ROW {
                let x = first + voxel;
                if x < sizes.out_x {
                    let values = added[((row + x) * sizes.outputs + channel) / size];
                    let mut all = sums[comptime!(voxel * tile.vectors + vector)];
                    #[unroll]
                    for i in 0..size {
                        let place = comptime!(part * size % 4 + i);
                        let by = channel_at(by, at + comptime!(i * OF_CHANNEL));
                        let value = normed(f32::cast_from(values.extract(i)), by);
                        all.insert(place, activated(value + all.extract(place), slope));
                    }
                    sums[comptime!(voxel * tile.vectors + vector)] = all;
                }
            }
        }
    }
}

/// Writes a thread's sums.
#[cube]
fn store<E: Float, N: Size>(
    output: &mut [Vector<E, N>],
    sums: &Array<V4>,
    sizes: &Sizes,
    place: Place,
    #[comptime] tile: Tile,
) {
    let (z, y) = (place.z + place.unit_z, place.y + place.unit_y);
    if z < sizes.out_z && y < sizes.out_y {
        let row = ((place.sample * sizes.out_z + z) * sizes.out_y + y) * sizes.out_x;
        #[unroll]
        for voxel in 0..ROW {
            let x = place.x + place.unit_x + voxel;
            if x < sizes.out_x {
                let values = (row + x) * sizes.outputs;
                store_voxel::<E, N>(output, sums, sizes, place.channel, values, voxel, tile);
            }
        }
    }
}

/// Writes a thread's sums of one of its voxels, whose values begin at `values`.
#[cube]
pub(super) fn store_voxel<E: Float, N: Size>(
    output: &mut [Vector<E, N>],
    sums: &Array<V4>,
    sizes: &Sizes,
    channel: usize,
    values: usize,
    #[comptime] voxel: usize,
    #[comptime] tile: Tile,
) {
    let size = N::value();
    #[unroll]
    for vector in 0..tile.vectors {
        let sum = sums[comptime!(voxel * tile.vectors + vector)];
        #[unroll]
        for part in 0..comptime!(4 / size) {
            let channel = channel + comptime!(vector * 4 + part * size);
            if channel < sizes.outputs {
                let mut value = Vector::<E, N>::empty();
                #[unroll]
                for i in 0..size {
                    value.insert(i, E::cast_from(sum.extract(comptime!(part * size + i))));
                }
                output[(values + channel) / size] = value;
            }
        }
    }
}
