//! Gradients of the norm, and sums over all voxels of a channel.

use super::kernels::{Channel, NormSizes, OF_CHANNEL, UNITS, channel_at, lane, normed};
use cubecl::prelude::*;

/// Values that are added before their sum is added to the others.
const RUN: usize = 16;

/// The gradient before the activation: the sign there is that of the output, or computed again.
#[cube]
fn before_activation(
    gradient: f32,
    x: f32,
    output: f32,
    channel: Channel,
    slope: f32,
    #[comptime] has_output: bool,
) -> f32 {
    let mut sign = output;
    if comptime!(!has_output) {
        sign = normed(x, channel);
    }
    select(sign < 0.0f32, gradient * slope, gradient)
}

/// Adds the pairs of the threads of each channel, in their order; the first thread's are all.
#[cube]
pub(in crate::gpu) fn add_rows(first: f32, second: f32, #[comptime] width: usize) -> (f32, f32) {
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(comptime!(2 * UNITS));
    let mut a = first;
    let mut b = second;
    shared[unit] = a;
    shared[UNITS + unit] = b;
    let halvings = comptime!((UNITS / width).ilog2() as usize);
    #[unroll]
    for level in 0..halvings {
        let reach = comptime!(UNITS >> (level + 1));
        sync_cube();
        if unit < reach {
            a += shared[unit + reach];
            b += shared[UNITS + unit + reach];
            shared[unit] = a;
            shared[UNITS + unit] = b;
        }
    }
    (a, b)
}

/// Sums of the gradient before the activation, and of its products with the normed input, of every
/// chunk: `[N, chunks, C, 2]`. `output` is read if `has_output`.
#[cube(launch_unchecked)]
pub(super) fn chunk_gradients<E: Float>(
    gradient: &[E],
    x: &[E],
    output: &[E],
    statistics: &[f32],
    chunks: &mut [f32],
    sizes: NormSizes,
    slope: f32,
    #[comptime] has_output: bool,
    #[comptime] width: usize,
    #[define(E)] _dtype: ElemType,
) {
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let lane = lane(&sizes, width);
    let rows = comptime!(UNITS / width);
    let mut sum = 0.0f32.runtime();
    let mut products = 0.0f32.runtime();
    if lane.channel < sizes.channels {
        let at = lane.sample * sizes.channels + lane.channel;
        let channel = channel_at(statistics, at * OF_CHANNEL);
        let mut voxel = lane.from;
        while voxel < lane.to {
            let mut run = 0.0f32.runtime();
            let mut run_products = 0.0f32.runtime();
            #[unroll]
            for i in 0..RUN {
                let here = voxel + comptime!(i * rows);
                if here < lane.to {
                    let at = (lane.sample * sizes.voxels + here) * sizes.channels + lane.channel;
                    let value = f32::cast_from(x[at]);
                    let mut sign = value;
                    if comptime!(has_output) {
                        sign = f32::cast_from(output[at]);
                    }
                    let g = f32::cast_from(gradient[at]);
                    let g = before_activation(g, value, sign, channel, slope, has_output);
                    run += g;
                    run_products += g * ((value - channel.mean) * channel.deviation);
                }
            }
            sum += run;
            products += run_products;
            voxel += comptime!(RUN * rows);
        }
    }
    let (sum, products) = add_rows(sum, products, width);
    if lane.row == 0 && lane.channel < sizes.channels {
        let at = (lane.sample * sizes.chunks + lane.chunk) * sizes.channels + lane.channel;
        chunks[at * 2] = sum;
        chunks[at * 2 + 1] = products;
    }
}

/// Sums of the gradient of every chunk, `[N, chunks, C, 2]` of which the second is nothing.
#[cube(launch_unchecked)]
pub(super) fn chunk_sums<E: Float>(
    gradient: &[E],
    chunks: &mut [f32],
    sizes: NormSizes,
    #[comptime] width: usize,
    #[define(E)] _dtype: ElemType,
) {
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let lane = lane(&sizes, width);
    let rows = comptime!(UNITS / width);
    let mut sum = 0.0f32.runtime();
    if lane.channel < sizes.channels {
        let mut voxel = lane.from;
        while voxel < lane.to {
            let mut run = 0.0f32.runtime();
            #[unroll]
            for i in 0..RUN {
                let here = voxel + comptime!(i * rows);
                if here < lane.to {
                    let at = (lane.sample * sizes.voxels + here) * sizes.channels + lane.channel;
                    run += f32::cast_from(gradient[at]);
                }
            }
            sum += run;
            voxel += comptime!(RUN * rows);
        }
    }
    let (sum, _) = add_rows(sum, sum, width);
    if lane.row == 0 && lane.channel < sizes.channels {
        let at = (lane.sample * sizes.chunks + lane.chunk) * sizes.channels + lane.channel;
        chunks[at * 2] = sum;
        chunks[at * 2 + 1] = 0.0f32;
    }
}

/// Values of a channel of a sample in what [`add_chunks`] writes for a norm: the two sums, then what the norm
/// did to the channel. One tensor instead of four, so that [`norm_gradient`] has as few as WebGPU offers.
pub(super) const OF_NORM: usize = OF_SUMS + OF_CHANNEL;
/// The same without a norm: the two sums.
pub(super) const OF_SUMS: usize = 2;

/// The sums of all chunks, `[N, C, each]`, and behind them what the norm did to the channel, if there is one:
/// one workgroup for each sample and block of channels.
#[cube(launch_unchecked)]
pub(super) fn add_chunks(
    chunks: &[f32],
    sums: &mut [f32],
    statistics: ComptimeOption<&[f32]>,
    sizes: NormSizes,
    #[comptime] each: usize,
    #[comptime] width: usize,
) {
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let (block, sample) = (CUBE_POS % sizes.blocks, CUBE_POS / sizes.blocks);
    let channel = block * width + unit % width;
    let mut sum = 0.0f32.runtime();
    let mut products = 0.0f32.runtime();
    if channel < sizes.channels {
        let mut chunk = unit / width;
        while chunk < sizes.chunks {
            let at = ((sample * sizes.chunks + chunk) * sizes.channels + channel) * 2;
            sum += chunks[at];
            products += chunks[at + 1];
            chunk += comptime!(UNITS / width);
        }
    }
    let (sum, products) = add_rows(sum, products, width);
    if unit < width && channel < sizes.channels {
        let index = sample * sizes.channels + channel;
        let at = index * each;
        sums[at] = sum;
        sums[at + 1] = products;
        #[comptime]
        match statistics {
            ComptimeOption::Some(statistics) =>
            {
                #[unroll]
                for i in 0..OF_CHANNEL {
                    sums[at + comptime!(OF_SUMS + i)] = statistics[index * OF_CHANNEL + i];
                }
            }
            ComptimeOption::None => {}
        }
    }
}

/// The sums over the samples, `[C]` each: the gradients of the norm's bias and weight. One workgroup for
/// each block of channels.
#[cube(launch_unchecked)]
pub(super) fn add_samples<E: Float>(
    sums: &[f32],
    bias: &mut [E],
    weight: &mut [E],
    sizes: NormSizes,
    samples: usize,
    #[comptime] each: usize,
    #[comptime] width: usize,
    #[define(E)] _dtype: ElemType,
) {
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let channel = CUBE_POS * width + unit % width;
    let mut sum = 0.0f32.runtime();
    let mut products = 0.0f32.runtime();
    if channel < sizes.channels {
        let mut sample = unit / width;
        while sample < samples {
            let at = (sample * sizes.channels + channel) * each;
            sum += sums[at];
            products += sums[at + 1];
            sample += comptime!(UNITS / width);
        }
    }
    let (sum, products) = add_rows(sum, products, width);
    if unit < width && channel < sizes.channels {
        bias[channel] = E::cast_from(sum);
        weight[channel] = E::cast_from(products);
    }
}

/// The gradient of the input, and that of the residual if `has_output`; `sums` are those of [`add_chunks`] for
/// a norm.
#[cube(launch_unchecked)]
pub(super) fn norm_gradient<E: Float>(
    gradient: &[E],
    x: &[E],
    output: &[E],
    sums: &[f32],
    to: &mut [E],
    residual: ComptimeOption<&mut [E]>,
    sizes: NormSizes,
    values: usize,
    slope: f32,
    #[comptime] has_output: bool,
    #[define(E)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index >= values {
        terminate!();
    }
    let channel_index = index % sizes.channels;
    let at = index / sizes.channels / sizes.voxels * sizes.channels + channel_index;
    let at = at * OF_NORM;
    let channel = channel_at(sums, at + OF_SUMS);
    let value = f32::cast_from(x[index]);
    let mut sign = value;
    if comptime!(has_output) {
        sign = f32::cast_from(output[index]);
    }
    let g = f32::cast_from(gradient[index]);
    let g = before_activation(g, value, sign, channel, slope, has_output);
    #[comptime]
    match residual {
        ComptimeOption::Some(residual) => residual[index] = E::cast_from(g),
        ComptimeOption::None => {}
    }
    let voxels = f32::cast_from(sizes.voxels as u32);
    let normed = (value - channel.mean) * channel.deviation;
    let rest = g - sums[at] / voxels - normed * (sums[at + 1] / voxels);
    to[index] = E::cast_from(channel.scale * rest);
}
