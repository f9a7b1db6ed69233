//! Instance norm, a residual and the activation: from tensors to launches.

mod backward;
mod kernels;

use super::launch::{
    Kernel, channels_last, contiguous, dims, elem, elements, empty, empty_f32, tensor, vector_size,
};
use crate::kernels::{NormGradients, NormParameters};
use backward::{
    OF_NORM, OF_SUMS, add_chunks, add_samples, chunk_gradients, chunk_sums, norm_gradient,
};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use kernels::{NormSizesLaunch, chunk_moments, normalise, statistics};

pub(super) use backward::add_rows;
pub(super) use kernels::{NormSizes, OF_CHANNEL, UNITS, activated, channel_at, lane, normed};

/// Chunks a sample is divided into, at most.
const CHUNKS: usize = 256;
/// Values a thread adds at least.
const LEAST: usize = 16;

/// How a pass over `[N, voxels, C]` is divided.
#[derive(Clone, Copy)]
pub(super) struct Division {
    pub samples: usize,
    voxels: usize,
    pub channels: usize,
    /// Channels side by side in a workgroup: a power of two.
    pub width: usize,
    blocks: usize,
    pub chunks: usize,
    chunk: usize,
}

impl Division {
    pub fn of(x: &CubeTensor) -> Self {
        let [samples, z, y, w, channels] = dims(x);
        let voxels = z * y * w;
        let width = channels.next_power_of_two().min(32);
        let chunk = voxels.div_ceil(CHUNKS).max(UNITS / width * LEAST);
        let (blocks, chunks) = (channels.div_ceil(width), voxels.div_ceil(chunk));
        Self { samples, voxels, channels, width, blocks, chunks, chunk }
    }

    /// Workgroups, one for each chunk.
    pub fn cubes(&self) -> usize {
        self.samples * self.blocks * self.chunks
    }

    pub fn launch(&self, cubes: usize) -> NormSizesLaunch {
        let Self { voxels, channels, blocks, chunks, chunk, .. } = *self;
        NormSizesLaunch::new(voxels, channels, blocks, chunks, chunk, cubes)
    }

    /// Two values for each chunk and channel.
    fn empty_chunks(&self, like: &CubeTensor) -> CubeTensor {
        empty_f32(like, [self.samples, self.chunks, self.channels, 2])
    }
}

fn arg(x: &CubeTensor) -> BufferArg {
    x.clone().into_buffer_arg()
}

/// The norm with what follows it, and its statistics, `[N, C, 4]`: [`statistics_of`]. Moments are those of chunks of `x`,
/// `[N, chunks, C, 3]`, if the convolution before found them.
pub(super) fn forward(
    x: CubeTensor,
    moments: Option<CubeTensor>,
    parameters: &NormParameters<CubeTensor>,
    residual: Option<CubeTensor>,
) -> (CubeTensor, CubeTensor) {
    let x = channels_last(x);
    let residual = residual.map(channels_last);
    let found = statistics_of(&x, moments, parameters);
    let output = empty(&x, dims::<5>(&x));
    let [_, z, y, w, c] = dims(&x);
    let size = vector_size(&[c]);
    let (vectors, channels) = (elements(&x) / size, c / size);
    let mut read = vec![&x, &found];
    read.extend(&residual);
    Kernel::new("norm").reads(&read).writes(&[&output]).each(vectors, |count, dim| {
        // SAFETY: indices stay below `vectors`, channels below those of the parameters.
        unsafe {
            normalise::launch_unchecked(
                &x.client,
                count,
                dim,
                size,
                arg(&x),
                residual.as_ref().map(arg).into(),
                arg(&found),
                arg(&output),
                vectors,
                channels,
                z * y * w * channels,
                parameters.slope as f32,
                elem(&x),
            );
        }
    });
    (tensor(output), found)
}

/// Moments of every chunk.
fn moments_of(x: &CubeTensor) -> CubeTensor {
    let division = Division::of(x);
    let Division { samples, chunks, channels, width, .. } = division;
    let moments = empty_f32(x, [samples, chunks, channels, 3]);
    let cubes = division.cubes();
    let kernel = Kernel::new("norm_moments").reads(&[x]).writes(&[&moments]);
    kernel.cubes(cubes, UNITS, |count, dim| {
        let (from, to, sizes) = (arg(x), arg(&moments), division.launch(cubes));
        // SAFETY: chunks and channels beyond the last are left out by the kernel.
        unsafe {
            chunk_moments::launch_unchecked(&x.client, count, dim, from, to, sizes, width, elem(x));
        }
    });
    moments
}

/// What a norm does to every channel of every sample of `x`, which is `[N, Z, Y, X, C]`, from the moments of its
/// chunks: mean, inverse deviation, scale and shift, `[N, C, 4]`.
pub(super) fn statistics_of(
    x: &CubeTensor,
    moments: Option<CubeTensor>,
    parameters: &NormParameters<CubeTensor>,
) -> CubeTensor {
    let moments = &moments.unwrap_or_else(|| moments_of(x));
    let chunks = dims::<4>(moments)[1];
    let division = Division { chunks, ..Division::of(x) };
    let Division { samples, channels, width, .. } = division;
    let found = empty_f32(x, [samples, channels, OF_CHANNEL]);
    let (weight, bias) =
        (contiguous(parameters.weight.clone()), contiguous(parameters.bias.clone()));
    let cubes = samples * division.blocks;
    let read = [moments, &weight, &bias];
    let kernel = Kernel::new("norm_statistics").reads(&read).writes(&[&found]);
    kernel.cubes(cubes, UNITS, |count, dim| {
        // SAFETY: as above.
        unsafe {
            statistics::launch_unchecked(
                &x.client,
                count,
                dim,
                arg(moments),
                arg(&weight),
                arg(&bias),
                arg(&found),
                division.launch(cubes),
                parameters.epsilon as f32,
                width,
                elem(&weight),
            );
        }
    });
    found
}

/// Gradients of what went into a norm.
pub(super) fn gradients(
    gradient: CubeTensor,
    x: CubeTensor,
    output: Option<CubeTensor>,
    parameters: &NormParameters<CubeTensor>,
    statistics: &CubeTensor,
) -> NormGradients<CubeTensor> {
    let pass = Pass {
        gradient: channels_last(gradient),
        x: channels_last(x),
        output: output.map(channels_last),
        statistics: statistics.clone(),
        slope: parameters.slope as f32,
    };
    let [sums, bias, weight] =
        add(&pass.chunks(), Division::of(&pass.x), &parameters.weight, Some(statistics));
    let (x, residual) = pass.gradients(&sums);
    NormGradients { x: tensor(x), weight, bias, residual: residual.map(tensor) }
}

/// What the backward pass of a norm reads.
struct Pass {
    gradient: CubeTensor,
    x: CubeTensor,
    output: Option<CubeTensor>,
    statistics: CubeTensor,
    slope: f32,
}

impl Pass {
    fn read(&self) -> Vec<&CubeTensor> {
        let mut read = vec![&self.gradient, &self.x, &self.statistics];
        read.extend(&self.output);
        read
    }

    /// The output, or, where none is read, anything.
    fn output(&self) -> BufferArg {
        arg(self.output.as_ref().unwrap_or(&self.x))
    }

    /// Sums of every chunk.
    fn chunks(&self) -> CubeTensor {
        let division = Division::of(&self.x);
        let chunks = division.empty_chunks(&self.x);
        let cubes = division.cubes();
        let kernel = Kernel::new("norm_gradient_sums").reads(&self.read()).writes(&[&chunks]);
        kernel.cubes(cubes, UNITS, |count, dim| {
            // SAFETY: chunks and channels beyond the last are left out by the kernel.
            unsafe {
                chunk_gradients::launch_unchecked(
                    &self.x.client,
                    count,
                    dim,
                    arg(&self.gradient),
                    arg(&self.x),
                    self.output(),
                    arg(&self.statistics),
                    arg(&chunks),
                    division.launch(cubes),
                    self.slope,
                    self.output.is_some(),
                    division.width,
                    elem(&self.x),
                );
            }
        });
        chunks
    }

    /// The gradients of input and residual.
    fn gradients(&self, sums: &CubeTensor) -> (CubeTensor, Option<CubeTensor>) {
        let to = empty(&self.x, dims::<5>(&self.x));
        let residual = self.output.as_ref().map(|_| empty(&self.x, dims::<5>(&self.x)));
        let (mut read, mut written) = (vec![&self.gradient, &self.x, sums], vec![&to]);
        read.extend(&self.output);
        written.extend(&residual);
        let values = elements(&self.x);
        Kernel::new("norm_gradient").reads(&read).writes(&written).each(values, |count, dim| {
            let sizes = Division::of(&self.x).launch(0);
            // SAFETY: indices stay below `values`, channels below those of the parameters.
            unsafe {
                norm_gradient::launch_unchecked(
                    &self.x.client,
                    count,
                    dim,
                    arg(&self.gradient),
                    arg(&self.x),
                    self.output(),
                    arg(sums),
                    arg(&to),
                    residual.as_ref().map(arg).into(),
                    sizes,
                    values,
                    self.slope,
                    self.output.is_some(),
                    elem(&self.x),
                );
            }
        });
        (to, residual)
    }
}

/// The sums of all chunks, `[N, C, each]` as [`add_chunks`] leaves them, and those over the samples, `[C]`
/// each.
fn add(
    chunks: &CubeTensor,
    division: Division,
    like: &CubeTensor,
    statistics: Option<&CubeTensor>,
) -> [CubeTensor; 3] {
    let Division { samples, channels, blocks, width, .. } = division;
    let each = if statistics.is_some() { OF_NORM } else { OF_SUMS };
    let sums = empty_f32(like, [samples, channels, each]);
    let cubes = samples * blocks;
    let mut read = vec![chunks];
    read.extend(statistics);
    let kernel = Kernel::new("add_chunks").reads(&read).writes(&[&sums]);
    kernel.cubes(cubes, UNITS, |count, dim| {
        // SAFETY: chunks and channels beyond the last are left out by the kernel.
        unsafe {
            add_chunks::launch_unchecked(
                &like.client,
                count,
                dim,
                arg(chunks),
                arg(&sums),
                statistics.map(arg).into(),
                division.launch(cubes),
                each,
                width,
            );
        }
    });
    let (first, second) = (empty(like, [channels]), empty(like, [channels]));
    let kernel = Kernel::new("add_samples").reads(&[&sums]).writes(&[&first, &second]);
    kernel.cubes(blocks, UNITS, |count, dim| {
        // SAFETY: samples and channels beyond the last are left out by the kernel.
        unsafe {
            add_samples::launch_unchecked(
                &like.client,
                count,
                dim,
                arg(&sums),
                arg(&first),
                arg(&second),
                division.launch(blocks),
                samples,
                each,
                width,
                elem(like),
            );
        }
    });
    [sums, first, second]
}

/// Sums over everything but the channels, `[C]`.
pub(super) fn channel_sums(x: &CubeTensor) -> CubeTensor {
    let x = channels_last(x.clone());
    let division = Division::of(&x);
    let chunks = division.empty_chunks(&x);
    let cubes = division.cubes();
    let kernel = Kernel::new("channel_sums").reads(&[&x]).writes(&[&chunks]);
    kernel.cubes(cubes, UNITS, |count, dim| {
        // SAFETY: chunks and channels beyond the last are left out by the kernel.
        unsafe {
            chunk_sums::launch_unchecked(
                &x.client,
                count,
                dim,
                arg(&x),
                arg(&chunks),
                division.launch(cubes),
                division.width,
                elem(&x),
            );
        }
    });
    let [_, sums, _] = add(&chunks, division, &x, None);
    sums
}
