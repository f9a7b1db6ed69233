//! The gradient of weights: from tensors to launches.

use super::shape::{Shape, shape_of};
use super::weights::{WeightSizesLaunch, add_shares, gradient_shares};
use crate::gpu::launch::{Kernel, channels_last, dims, elem, elements, empty, empty_f32};
use crate::gpu::tiles::WeightTile;
use burn_cubecl::tensor::CubeTensor;

/// Workgroups between which the gradient of weights is divided, if it has fewer blocks itself.
const SHARES: usize = 512;

/// The gradient of the weights, `[Cout, Cin, KZ, KY, KX]`.
pub fn weight_gradient(
    gradient: &CubeTensor,
    parts: &[CubeTensor],
    weight: &CubeTensor,
    stride: [usize; 3],
) -> CubeTensor {
    let shape = shape_of(parts, weight, stride);
    let parts: Vec<_> = parts.iter().cloned().map(channels_last).collect();
    let gradient = channels_last(gradient.clone());
    let shares = weight_shares(&shape, &parts, &gradient);
    let found = empty(&gradient, dims::<5>(weight));
    let (inputs, outputs, taps) = (shape.inputs, shape.outputs, shape.taps());
    let count = dims::<2>(&shares)[0];
    let kernel = Kernel::new("add_weight_shares").reads(&[&shares]).writes(&[&found]);
    kernel.each(elements(&found), |cubes, dim| {
        let (from, to) = (shares.clone().into_buffer_arg(), found.clone().into_buffer_arg());
        // SAFETY: there are `count` shares, each of all weights.
        unsafe {
            add_shares::launch_unchecked(
                &shares.client,
                cubes,
                dim,
                from,
                to,
                count,
                taps,
                inputs,
                outputs,
                elem(&found),
            );
        }
    });
    found
}

/// Launches [`gradient_shares`].
fn weight_shares(shape: &Shape, parts: &[CubeTensor], gradient: &CubeTensor) -> CubeTensor {
    let Shape { kernel, stride, inputs, outputs, samples, .. } = *shape;
    let tile = WeightTile::new(kernel, stride, inputs, outputs).expect("asked before: fits");
    let [in_z, in_y, in_x] = shape.size;
    let [out_z, out_y, out_x] = shape.out_size();
    let channels = |part: Option<&CubeTensor>| part.map_or(0, |part| dims::<5>(part)[4]);
    let (first_channels, second_channels) = (channels(parts.first()), channels(parts.get(1)));
    let blocks_of = |channels: usize| channels.div_ceil(tile.inputs);
    let output_blocks = outputs.div_ceil(tile.outputs);
    let blocks = (blocks_of(first_channels) + blocks_of(second_channels)) * output_blocks;
    let (tiles_y, tiles_x) = (out_y.div_ceil(tile.voxels[0]), out_x.div_ceil(tile.voxels[1]));
    let tiles = samples * out_z * tiles_y * tiles_x;
    let share = tiles.div_ceil((SHARES / (blocks * kernel[0])).clamp(1, tiles));
    let shares = tiles.div_ceil(share);
    let found = empty_f32(gradient, [shares, shape.taps() * inputs * outputs.next_multiple_of(4)]);
    let mut read: Vec<_> = parts.iter().collect();
    read.push(gradient);
    let cubes = shares * kernel[0] * blocks;
    let launch = Kernel::new("conv_weight_gradient").reads(&read).writes(&[&found]);
    launch.products(shape.products()).in_turns(cubes, tile.units(), |cube, count, dim| {
        let sizes = WeightSizesLaunch::new(
            first_channels,
            blocks_of(first_channels),
            second_channels,
            blocks_of(second_channels),
            outputs,
            output_blocks,
            in_z,
            in_y,
            in_x,
            out_z,
            out_y,
            out_x,
            tiles_y,
            tiles_x,
            tiles,
            share,
            cube,
            cubes,
            cube,
        );
        let arg = |x: &CubeTensor| x.clone().into_buffer_arg();
        // SAFETY: what is read and written is held against the sizes of the tensors in the kernel.
        unsafe {
            gradient_shares::launch_unchecked(
                &gradient.client,
                count,
                dim,
                arg(&parts[0]),
                parts.get(1).map(arg).into(),
                arg(gradient),
                arg(&found),
                sizes,
                tile,
                elem(gradient),
            );
        }
    });
    found
}
