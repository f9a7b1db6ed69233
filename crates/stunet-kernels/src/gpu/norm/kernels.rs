//! Statistics, norm and their gradients, over tensors `[N, voxels, C]`.
//!
//! A workgroup goes over a chunk of the voxels of some channels: channels side by side, so that
//! neighbours read neighbours. Means and squared deviations are found and merged in single precision by
//! Chan's formula, around the mean so far, so that channels far from zero lose no digits; everything is
//! added in an order that only shapes decide.

use crate::gpu::moments::{Moments, merge};
use cubecl::prelude::*;

/// Threads of a workgroup.
pub(crate) const UNITS: usize = 256;
/// Values that are added before their sum is merged.
const RUN: usize = 16;

/// Sizes of a pass.
#[derive(CubeLaunch, CubeType)]
pub(in crate::gpu) struct NormSizes {
    /// Voxels of a sample.
    pub voxels: usize,
    /// Channels.
    pub channels: usize,
    /// Blocks of channels.
    pub blocks: usize,
    /// Chunks of a sample, and voxels of a chunk.
    pub chunks: usize,
    pub chunk: usize,
    /// Workgroups.
    pub cubes: usize,
}

/// Where a thread works.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::gpu) struct Lane {
    pub sample: usize,
    pub chunk: usize,
    pub channel: usize,
    /// Which of the threads of a channel.
    pub row: usize,
    /// Its first voxel, and the end of the chunk.
    pub from: usize,
    pub to: usize,
}

#[cube]
pub(in crate::gpu) fn lane(sizes: &NormSizes, #[comptime] width: usize) -> Lane {
    let block = CUBE_POS % sizes.blocks;
    let index = CUBE_POS / sizes.blocks;
    let (chunk, sample) = (index % sizes.chunks, index / sizes.chunks);
    let unit = UNIT_POS as usize;
    let row = unit / width;
    let first = chunk * sizes.chunk;
    let end = first + sizes.chunk;
    Lane {
        sample,
        chunk,
        channel: block * width + unit % width,
        row,
        from: first + row,
        to: select(end < sizes.voxels, end, sizes.voxels),
    }
}

/// No moments yet, to be changed.
#[cube]
fn none() -> Moments {
    Moments {
        count: RuntimeCell::<f32>::new(0.0f32).consume(),
        mean: RuntimeCell::<f32>::new(0.0f32).consume(),
        squares: RuntimeCell::<f32>::new(0.0f32).consume(),
    }
}

#[cube]
fn set(all: &mut Moments, to: Moments) {
    all.count = to.count;
    all.mean = to.mean;
    all.squares = to.squares;
}

/// Merges the moments of the threads of each channel, in their order; the first thread's are all.
#[cube]
fn merge_rows(moments: Moments, #[comptime] width: usize) -> Moments {
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(comptime!(3 * UNITS));
    let mut all = none();
    set(&mut all, moments);
    shared[unit] = all.count;
    shared[UNITS + unit] = all.mean;
    shared[2 * UNITS + unit] = all.squares;
    let halvings = comptime!((UNITS / width).ilog2() as usize);
    #[unroll]
    for level in 0..halvings {
        let reach = comptime!(UNITS >> (level + 1));
        sync_cube();
        if unit < reach {
            let other = Moments {
                count: shared[unit + reach],
                mean: shared[UNITS + unit + reach],
                squares: shared[2 * UNITS + unit + reach],
            };
            let merged = merge(all, other);
            set(&mut all, merged);
            shared[unit] = all.count;
            shared[UNITS + unit] = all.mean;
            shared[2 * UNITS + unit] = all.squares;
        }
    }
    all
}

/// Count, mean and sum of squared deviations of every chunk, `[N, chunks, C, 3]`.
#[cube(launch_unchecked)]
pub(super) fn chunk_moments<E: Float>(
    x: &[E],
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
    let mut all = none();
    if lane.channel < sizes.channels {
        let mut voxel = lane.from;
        while voxel < lane.to {
            // Deviations from the first value, then from the mean so far.
            let at = (lane.sample * sizes.voxels + voxel) * sizes.channels + lane.channel;
            let centre = select(all.count > 0.0f32, all.mean, f32::cast_from(x[at]));
            let mut count = 0.0f32.runtime();
            let mut sum = 0.0f32.runtime();
            let mut squares = 0.0f32.runtime();
            #[unroll]
            for i in 0..RUN {
                let here = voxel + comptime!(i * rows);
                if here < lane.to {
                    let at = (lane.sample * sizes.voxels + here) * sizes.channels + lane.channel;
                    let value = f32::cast_from(x[at]) - centre;
                    count += 1.0f32;
                    sum += value;
                    squares += value * value;
                }
            }
            let mean = sum / count;
            let run = Moments { count, mean: centre + mean, squares: squares - sum * mean };
            let merged = merge(all, run);
            set(&mut all, merged);
            voxel += comptime!(RUN * rows);
        }
    }
    let all = merge_rows(all, width);
    if lane.row == 0 && lane.channel < sizes.channels {
        let at = (lane.sample * sizes.chunks + lane.chunk) * sizes.channels + lane.channel;
        chunks[at * 3] = all.count;
        chunks[at * 3 + 1] = all.mean;
        chunks[at * 3 + 2] = all.squares;
    }
}

/// What a norm does to each channel of each sample, `[N, C, 4]`: [`Channel`]. One workgroup for each sample and block.
#[cube(launch_unchecked)]
pub(super) fn statistics<P: Float>(
    chunks: &[f32],
    weight: &[P],
    bias: &[P],
    statistics: &mut [f32],
    sizes: NormSizes,
    epsilon: f32,
    #[comptime] width: usize,
    #[define(P)] _dtype: ElemType,
) {
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let (block, sample) = (CUBE_POS % sizes.blocks, CUBE_POS / sizes.blocks);
    let unit = UNIT_POS as usize;
    let channel = block * width + unit % width;
    let mut all = none();
    if channel < sizes.channels {
        let mut chunk = unit / width;
        while chunk < sizes.chunks {
            let at = (sample * sizes.chunks + chunk) * sizes.channels + channel;
            let moments = Moments {
                count: chunks[at * 3],
                mean: chunks[at * 3 + 1],
                squares: chunks[at * 3 + 2],
            };
            let merged = merge(all, moments);
            set(&mut all, merged);
            chunk += comptime!(UNITS / width);
        }
    }
    let all = merge_rows(all, width);
    if unit < width && channel < sizes.channels {
        let at = (sample * sizes.channels + channel) * OF_CHANNEL;
        let deviation = 1.0f32 / (all.squares / all.count + epsilon).sqrt();
        statistics[at] = all.mean;
        statistics[at + 1] = deviation;
        statistics[at + 2] = deviation * f32::cast_from(weight[channel]);
        statistics[at + 3] = f32::cast_from(bias[channel]);
    }
}

/// Values of a [`Channel`] in memory.
pub(in crate::gpu) const OF_CHANNEL: usize = 4;

/// What a norm does to a channel of a sample.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in crate::gpu) struct Channel {
    pub mean: f32,
    /// The inverse standard deviation, and that times the norm's weight.
    pub deviation: f32,
    pub scale: f32,
    pub shift: f32,
}

/// The channel whose values begin at a place.
#[cube]
pub(in crate::gpu) fn channel_at(values: &[f32], at: usize) -> Channel {
    Channel {
        mean: values[at],
        deviation: values[at + 1],
        scale: values[at + 2],
        shift: values[at + 3],
    }
}

/// The norm of a value.
#[cube]
pub(in crate::gpu) fn normed(x: f32, channel: Channel) -> f32 {
    (x - channel.mean) * channel.scale + channel.shift
}

#[cube]
pub(in crate::gpu) fn activated(x: f32, slope: f32) -> f32 {
    select(x < 0.0f32, x * slope, x)
}

/// Norm, sum with a residual, activation, in one pass; `vectors`, `channels` and the `volume` of a sample count vectors.
#[cube(launch_unchecked)]
pub(super) fn normalise<E: Float, N: Size>(
    x: &[Vector<E, N>],
    residual: ComptimeOption<&[Vector<E, N>]>,
    statistics: &[f32],
    output: &mut [Vector<E, N>],
    vectors: usize,
    channels: usize,
    volume: usize,
    slope: f32,
    #[define(E)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index >= vectors {
        terminate!();
    }
    let size = N::value();
    let at = index / volume * channels * size + index % channels * size;
    let values = x[index];
    let mut result = Vector::<E, N>::empty();
    let mut added = Vector::<E, N>::new(E::new(0.0));
    #[comptime]
    match residual {
        ComptimeOption::Some(residual) => added = residual[index],
        ComptimeOption::None => {}
    }
    #[unroll]
    for i in 0..size {
        let channel = channel_at(statistics, (at + i) * OF_CHANNEL);
        let normed = normed(f32::cast_from(values.extract(i)), channel);
        let sum = normed + f32::cast_from(added.extract(i));
        result.insert(i, E::cast_from(activated(sum, slope)));
    }
    output[index] = result;
}
