//! The gradient of a convolution's weights, and the order of weights in memory.
//!
//! A workgroup keeps a block of the gradient, taps × input channels × output channels, in the
//! registers of its threads while it goes over its share of the voxels; what it found is written once.
//! Shares are then added in their order. No unfolded copy of the input exists, and nothing is added
//! atomically, so that the same tensors give the same bits.

use super::place::{V4, kept_number, kept_zero};
use crate::gpu::tiles::{KEPT, WeightTile};
use cubecl::prelude::*;

/// Sizes of the gradient, and which part of it a launch computes.
#[derive(CubeLaunch, CubeType)]
pub(super) struct WeightSizes {
    /// Channels of the first part of the input, and the blocks they are divided into.
    pub first_channels: usize,
    pub first_blocks: usize,
    /// The same of the second part.
    pub second_channels: usize,
    pub second_blocks: usize,
    /// Output channels, and the blocks.
    pub outputs: usize,
    pub output_blocks: usize,
    /// Input voxels.
    pub in_z: usize,
    pub in_y: usize,
    pub in_x: usize,
    /// Output voxels.
    pub out_z: usize,
    pub out_y: usize,
    pub out_x: usize,
    /// Tiles of the output along y and x, those of all samples, and those of a workgroup.
    pub tiles_y: usize,
    pub tiles_x: usize,
    pub tiles: usize,
    pub share: usize,
    /// The first workgroup of this launch, and how many there are in all launches.
    pub cube: usize,
    pub cubes: usize,
    /// The first workgroup once more, as in [`Sizes`](super::place::Sizes).
    pub cube_again: usize,
}

/// Which part of the gradient a workgroup computes.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct Part {
    /// The kernel's tap along z.
    tap_z: usize,
    /// Whether the block is of the second part of the input.
    second: bool,
    /// The first input channel in its part of the input.
    input: usize,
    /// Channels of that part.
    channels: usize,
    /// The first channel of that part in the kernel.
    from: usize,
    /// The first output channel.
    output: usize,
    /// Which share of the voxels.
    share: usize,
    /// The thread's number.
    unit: usize,
}

/// Sums of the products of input and gradient over a share of the voxels,
/// `[shares, taps, Cin, Cout]` in vectors of output channels.
#[cube(launch_unchecked)]
pub(super) fn gradient_shares<E: Float>(
    first: &[E],
    second: ComptimeOption<&[E]>,
    gradient: &[E],
    shares: &mut [V4],
    sizes: WeightSizes,
    #[comptime] tile: WeightTile,
    #[define(E)] _dtype: ElemType,
) {
    let cube = CUBE_POS_X as usize + sizes.cube;
    if cube >= sizes.cubes {
        terminate!();
    }
    let part = part_of(&sizes, cube, UNIT_POS as usize, tile);
    let mut x = Shared::<[f32]>::new_slice(comptime!(tile.input_values()));
    let mut g = Shared::<[V4]>::new_slice(comptime!(tile.gradient_room()));
    let mut sums = Array::<V4>::new(comptime!(tile.taps() * tile.each * 2));
    #[unroll]
    for i in 0..sums.len() {
        sums[i] = V4::new(0.0f32);
    }
    let kept = keep(&part, part.share * sizes.share);
    for tile_of_share in 0..sizes.share {
        // Nobody still reads what is overwritten.
        sync_cube();
        let part = kept_part(&kept);
        let index = kept_number(&kept) + tile_of_share;
        let plane = index / (sizes.tiles_y * sizes.tiles_x);
        let z = plane % sizes.out_z * comptime!(tile.stride[0]) + part.tap_z;
        let pad = comptime!(tile.kernel[0] / 2);
        // The tap may lie outside the volume, and the last share is not always whole.
        let inside = index < sizes.tiles && z >= pad && z < sizes.in_z + pad;
        if inside {
            fill_gradient::<E>(gradient, &mut g, &sizes, &part, index, tile);
            let plane = plane / sizes.out_z * sizes.in_z + z - pad;
            #[comptime]
            match second {
                ComptimeOption::Some(second) => {
                    if part.second {
                        fill_input::<E>(second, &mut x, &sizes, &part, index, plane, tile);
                    } else {
                        fill_input::<E>(first, &mut x, &sizes, &part, index, plane, tile);
                    }
                }
                ComptimeOption::None => {
                    fill_input::<E>(first, &mut x, &sizes, &part, index, plane, tile);
                }
            }
        }
        // Outside of conditions, as WebGPU demands where they depend on memory.
        sync_cube();
        if inside {
            multiply(&x, &g, &mut sums, kept_unit(&kept), tile);
        }
    }
    let unit = UNIT_POS as usize + (sizes.cube_again - sizes.cube);
    let part = part_of(&sizes, CUBE_POS_X as usize + sizes.cube_again, unit, tile);
    store(shares, &mut g, &mut sums, &sizes, &part, tile);
}

/// The part of a workgroup: output blocks innermost, shares outermost.
#[cube]
fn part_of(sizes: &WeightSizes, cube: usize, unit: usize, #[comptime] tile: WeightTile) -> Part {
    let block = cube % sizes.output_blocks;
    let index = cube / sizes.output_blocks;
    let inputs = sizes.first_blocks + sizes.second_blocks;
    let input = index % inputs;
    let index = index / inputs;
    let second = input >= sizes.first_blocks;
    Part {
        tap_z: index % comptime!(tile.kernel[0]),
        second,
        input: select(second, input - sizes.first_blocks, input) * comptime!(tile.inputs),
        channels: select(second, sizes.second_channels, sizes.first_channels),
        from: select(second, sizes.first_channels, 0usize.runtime()),
        output: block * comptime!(tile.outputs),
        share: index / comptime!(tile.kernel[0]),
        unit,
    }
}

/// Keeps a workgroup's part and a number in shared memory, as [`place::keep`](super::place::keep) does and in the same
/// order from the zero on.
#[cube]
fn keep(part: &Part, number: usize) -> Shared<[u32]> {
    let mut kept = Shared::<[u32]>::new_slice(KEPT);
    if UNIT_POS == 0 {
        kept[0] = part.tap_z as u32;
        kept[1] = u32::cast_from(part.second);
        kept[2] = part.input as u32;
        kept[3] = part.channels as u32;
        kept[4] = part.output as u32;
        kept[5] = 0u32.runtime();
        kept[6] = number as u32;
    }
    kept
}

/// What a thread reads of its part while it adds, between two synchronisations: nothing of where it writes.
#[cube]
fn kept_part(kept: &Shared<[u32]>) -> Part {
    Part {
        tap_z: kept[0] as usize,
        second: kept[1] != 0,
        input: kept[2] as usize,
        channels: kept[3] as usize,
        from: 0usize.runtime(),
        output: kept[4] as usize,
        share: 0usize.runtime(),
        unit: kept_unit(kept),
    }
}

#[cube]
fn kept_unit(kept: &Shared<[u32]>) -> usize {
    UNIT_POS as usize + kept_zero(kept)
}

/// Brings the gradient of a tile into shared memory, `[y, x, Cout]`.
#[cube]
fn fill_gradient<E: Float>(
    gradient: &[E],
    to: &mut Shared<[V4]>,
    sizes: &WeightSizes,
    part: &Part,
    tile_index: usize,
    #[comptime] tile: WeightTile,
) {
    let vectors = comptime!(tile.outputs / 4);
    let x_0 = tile_index % sizes.tiles_x * comptime!(tile.voxels[1]);
    let index = tile_index / sizes.tiles_x;
    let y_0 = index % sizes.tiles_y * comptime!(tile.voxels[0]);
    let plane = index / sizes.tiles_y;
    let mut index = part.unit;
    while index < comptime!(tile.gradient_vectors()) {
        let (voxel, vector) = (index / vectors, index % vectors);
        let (y, x) =
            (y_0 + voxel / comptime!(tile.voxels[1]), x_0 + voxel % comptime!(tile.voxels[1]));
        let mut value = V4::new(0.0f32);
        if y < sizes.out_y && x < sizes.out_x {
            let start = ((plane * sizes.out_y + y) * sizes.out_x + x) * sizes.outputs;
            #[unroll]
            for i in 0..4usize {
                let channel = part.output + vector * 4 + i;
                if channel < sizes.outputs {
                    value.insert(i, f32::cast_from(gradient[start + channel]));
                }
            }
        }
        to[index] = value;
        index += comptime!(tile.units());
    }
}

/// Brings the input under a tile into shared memory, `[y, x, Cin]`; `plane` counts the planes of all
/// samples.
#[cube]
fn fill_input<E: Float>(
    input: &[E],
    to: &mut Shared<[f32]>,
    sizes: &WeightSizes,
    part: &Part,
    tile_index: usize,
    plane: usize,
    #[comptime] tile: WeightTile,
) {
    let x_0 = tile_index % sizes.tiles_x * comptime!(tile.voxels[1]);
    let y_0 = tile_index / sizes.tiles_x % sizes.tiles_y * comptime!(tile.voxels[0]);
    let (pad_y, pad_x) = comptime!((tile.kernel[1] / 2, tile.kernel[2] / 2));
    let mut index = part.unit;
    while index < comptime!(tile.input_values()) {
        let voxel = index / comptime!(tile.inputs);
        let channel = part.input + index % comptime!(tile.inputs);
        let (h_y, h_x) = (voxel / comptime!(tile.halo(2)), voxel % comptime!(tile.halo(2)));
        let y = (y_0 * comptime!(tile.step(1)) + h_y) * comptime!(tile.skip(1));
        let x = (x_0 * comptime!(tile.step(2)) + h_x) * comptime!(tile.skip(2));
        let inside = y >= pad_y && y < sizes.in_y + pad_y && x >= pad_x && x < sizes.in_x + pad_x;
        let mut value = 0.0f32.runtime();
        if inside && channel < part.channels {
            let voxel = (plane * sizes.in_y + y - pad_y) * sizes.in_x + x - pad_x;
            value = f32::cast_from(input[voxel * part.channels + channel]);
        }
        to[index] = value;
        index += comptime!(tile.units());
    }
}

/// Adds the products of a thread's voxels.
#[cube]
fn multiply(
    x: &Shared<[f32]>,
    g: &Shared<[V4]>,
    sums: &mut Array<V4>,
    unit: usize,
    #[comptime] tile: WeightTile,
) {
    let thread = unit % comptime!(tile.threads());
    let input = thread % comptime!(tile.inputs / tile.each) * tile.each;
    let pair = thread / comptime!(tile.inputs / tile.each);
    let mut voxel = unit / comptime!(tile.threads());
    while voxel < comptime!(tile.voxels[0] * tile.voxels[1]) {
        let at = voxel * comptime!(tile.outputs / 4) + pair * 2;
        let (g_0, g_1) = (g[at], g[at + 1]);
        let y = voxel / comptime!(tile.voxels[1]) * comptime!(tile.step(1));
        let column = voxel % comptime!(tile.voxels[1]) * comptime!(tile.step(2));
        let start = (y * comptime!(tile.halo(2)) + column) * comptime!(tile.inputs) + input;
        #[unroll]
        for tap in 0..comptime!(tile.taps()) {
            let (tap_y, tap_x) = comptime!((tap / tile.kernel[2], tap % tile.kernel[2]));
            let from = start + comptime!((tap_y * tile.halo(2) + tap_x) * tile.inputs);
            #[unroll]
            for i in 0..tile.each {
                let value = V4::new(x[from + i]);
                let sum = comptime!((tap * tile.each + i) * 2);
                sums[sum] = fma(value, g_0, sums[sum]);
                sums[comptime!(sum + 1)] = fma(value, g_1, sums[comptime!(sum + 1)]);
            }
        }
        voxel += comptime!(tile.shares);
    }
}

/// Adds what the threads found of the same weights, in their order, and writes it.
#[cube]
fn store(
    shares: &mut [V4],
    found: &mut Shared<[V4]>,
    sums: &mut Array<V4>,
    sizes: &WeightSizes,
    part: &Part,
    #[comptime] tile: WeightTile,
) {
    let unit = part.unit;
    let threads = comptime!(tile.threads());
    let thread = unit % threads;
    let input = part.input + thread % comptime!(tile.inputs / tile.each) * tile.each;
    let output = part.output + thread / comptime!(tile.inputs / tile.each) * 8;
    let inputs = sizes.first_channels + sizes.second_channels;
    let row = sizes.outputs.div_ceil(4usize);
    let taps_yx = comptime!(tile.taps());
    let first_tap = (part.share * comptime!(tile.kernel[0]) + part.tap_z) * taps_yx;
    #[unroll]
    for tap in 0..taps_yx {
        #[unroll]
        for i in 0..tile.each {
            let sum = comptime!((tap * tile.each + i) * 2);
            if comptime!(tile.shares > 1) {
                sync_cube();
                found[unit * 2] = sums[sum];
                found[unit * 2 + 1] = sums[comptime!(sum + 1)];
                sync_cube();
            }
            if unit < threads && input + i < part.channels {
                let mut total_0 = sums[sum];
                let mut total_1 = sums[comptime!(sum + 1)];
                for share in 1..comptime!(tile.shares) {
                    total_0 += found[(share * threads + thread) * 2];
                    total_1 += found[(share * threads + thread) * 2 + 1];
                }
                let at = ((first_tap + tap) * inputs + part.from + input + i) * row + output / 4;
                if output < sizes.outputs {
                    shares[at] = total_0;
                }
                if output + 4 < sizes.outputs {
                    shares[at + 1] = total_1;
                }
            }
        }
    }
}

/// The gradient `[Cout, Cin, taps]`: the sum of the `count` shares, in their order.
#[cube(launch_unchecked)]
pub(super) fn add_shares<E: Float>(
    shares: &[f32],
    gradient: &mut [E],
    count: usize,
    taps: usize,
    inputs: usize,
    outputs: usize,
    #[define(E)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index >= taps * inputs * outputs {
        terminate!();
    }
    // Read in the order of memory.
    let output = index % outputs;
    let (tap, input) = (index / outputs / inputs, index / outputs % inputs);
    let row = outputs.div_ceil(4usize) * 4;
    let mut sum = 0.0f32.runtime();
    for share in 0..count {
        sum += shares[((share * taps + tap) * inputs + input) * row + output];
    }
    gradient[(output * inputs + input) * taps + tap] = E::cast_from(sum);
}

/// Where weights lie, and where they go.
#[derive(CubeLaunch, CubeType)]
pub(super) struct Order {
    pub taps: usize,
    pub rows: usize,
    pub columns: usize,
    /// Columns with the zeros behind.
    pub padded: usize,
    /// From one row, column and tap to the next.
    pub by_row: usize,
    pub by_column: usize,
    pub by_tap: usize,
    /// The first column.
    pub from: usize,
}

/// Weights `[Cout, Cin, taps]` as `[taps, rows, columns]` with zeros behind the columns: `columns` are
/// output channels and rows input channels, or the other way round.
#[cube(launch_unchecked)]
pub(super) fn arrange<E: Float>(
    weight: &[E],
    arranged: &mut [f32],
    order: Order,
    #[comptime] flipped: bool,
    #[define(E)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index >= order.taps * order.rows * order.padded {
        terminate!();
    }
    let (column, row) = (index % order.padded, index / order.padded % order.rows);
    let mut tap = index / order.padded / order.rows;
    if flipped {
        tap = order.taps - 1 - tap;
    }
    let mut value = 0.0f32.runtime();
    if column < order.columns {
        let at = row * order.by_row + (order.from + column) * order.by_column;
        value = f32::cast_from(weight[at + tap * order.by_tap]);
    }
    arranged[index] = value;
}
