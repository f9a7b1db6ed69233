//! What moves voxels without computing: repetition, interleaving, and their ways back.

use super::launch::{Kernel, channels_last, dims, elem, elements, empty, tensor, vector_size};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// A volume and by what it grows.
#[derive(CubeLaunch, CubeType)]
struct Growth {
    /// Voxels of the small volume; planes of all samples lie behind each other.
    y: usize,
    x: usize,
    /// The factor of each axis.
    by_z: usize,
    by_y: usize,
    by_x: usize,
}

impl GrowthLaunch {
    fn of(size: [usize; 3], factor: [usize; 3]) -> Self {
        let ([_, y, x], [by_z, by_y, by_x]) = (size, factor);
        Self::new(y, x, by_z, by_y, by_x)
    }
}

/// Repeats voxels; `vectors` of the output, `channels` of vectors.
#[cube(launch_unchecked)]
fn repeat<E: Float, N: Size>(
    x: &[Vector<E, N>],
    output: &mut [Vector<E, N>],
    growth: Growth,
    vectors: usize,
    channels: usize,
    #[define(E)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index >= vectors {
        terminate!();
    }
    let (voxel, channel) = (index / channels, index % channels);
    let (wide, high) = (growth.x * growth.by_x, growth.y * growth.by_y);
    let (row, at_x) = (voxel / wide, voxel % wide);
    let (plane, at_y) = (row / high, row % high);
    // Planes of all samples lie behind each other.
    let from = (plane / growth.by_z * growth.y + at_y / growth.by_y) * growth.x;
    output[index] = x[(from + at_x / growth.by_x) * channels + channel];
}

/// Sums over what each voxel became; `vectors` of the output, `channels` of vectors.
#[cube(launch_unchecked)]
fn add_repeated<E: Float, N: Size>(
    gradient: &[Vector<E, N>],
    output: &mut [Vector<E, N>],
    growth: Growth,
    vectors: usize,
    channels: usize,
    #[comptime] factor: [usize; 3],
    #[define(E)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index >= vectors {
        terminate!();
    }
    let (voxel, channel) = (index / channels, index % channels);
    let (row, at_x) = (voxel / growth.x, voxel % growth.x);
    let (plane, at_y) = (row / growth.y, row % growth.y);
    let (by_z, by_y, by_x) = comptime!((factor[0], factor[1], factor[2]));
    let (wide, high) = (growth.x * by_x, growth.y * by_y);
    let first = (plane * by_z * high + at_y * by_y) * wide + at_x * by_x;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    for z in 0..comptime!(factor[0]) {
        for y in 0..comptime!(factor[1]) {
            for x in 0..comptime!(factor[2]) {
                let voxel = first + (z * high + y) * wide + x;
                sum += Vector::<f32, N>::cast_from(gradient[voxel * channels + channel]);
            }
        }
    }
    output[index] = Vector::<E, N>::cast_from(sum);
}

/// Copies between a volume with a channel for every voxel of a block, and the volume of blocks;
/// `channels` are those of the latter.
#[cube(launch_unchecked)]
fn rearrange<E: Float>(
    x: &[E],
    output: &mut [E],
    growth: Growth,
    values: usize,
    channels: usize,
    #[comptime] separates: bool,
    #[define(E)] _dtype: ElemType,
) {
    // The place in the volume of blocks.
    let index = ABSOLUTE_POS;
    if index >= values {
        terminate!();
    }
    let (voxel, channel) = (index / channels, index % channels);
    let (wide, high) = (growth.x * growth.by_x, growth.y * growth.by_y);
    let (row, at_x) = (voxel / wide, voxel % wide);
    let (plane, at_y) = (row / high, row % high);
    let in_block =
        (plane % growth.by_z * growth.by_y + at_y % growth.by_y) * growth.by_x + at_x % growth.by_x;
    let small =
        (plane / growth.by_z * growth.y + at_y / growth.by_y) * growth.x + at_x / growth.by_x;
    let block = growth.by_z * growth.by_y * growth.by_x;
    let other = (small * channels + channel) * block + in_block;
    if comptime!(separates) {
        output[other] = x[index];
    } else {
        output[index] = x[other];
    }
}

/// Every voxel `factor` times along each axis.
pub(super) fn upsample(x: CubeTensor, factor: [usize; 3]) -> CubeTensor {
    let x = channels_last(x);
    let [n, z, y, w, c] = dims(&x);
    let [fz, fy, fx] = factor;
    let output = empty(&x, [n, z * fz, y * fy, w * fx, c]);
    let size = vector_size(&[c]);
    let vectors = elements(&output) / size;
    Kernel::new("upsample").reads(&[&x]).writes(&[&output]).each(vectors, |count, dim| {
        let growth = GrowthLaunch::of([z, y, w], factor);
        let (from, to) = (x.clone().into_buffer_arg(), output.clone().into_buffer_arg());
        // SAFETY: every vector of the output is one of the input, and indices stay below `vectors`.
        unsafe {
            repeat::launch_unchecked(
                &x.client,
                count,
                dim,
                size,
                from,
                to,
                growth,
                vectors,
                c / size,
                elem(&x),
            );
        }
    });
    tensor(output)
}

/// The gradient of [`upsample`].
pub(super) fn upsample_gradient(gradient: CubeTensor, factor: [usize; 3]) -> CubeTensor {
    let g = channels_last(gradient);
    let [n, z, y, w, c] = dims(&g);
    let [fz, fy, fx] = factor;
    let small = [z / fz, y / fy, w / fx];
    let output = empty(&g, [n, small[0], small[1], small[2], c]);
    let size = vector_size(&[c]);
    let vectors = elements(&output) / size;
    Kernel::new("upsample_gradient").reads(&[&g]).writes(&[&output]).each(vectors, |count, dim| {
        let growth = GrowthLaunch::of(small, factor);
        let (from, to) = (g.clone().into_buffer_arg(), output.clone().into_buffer_arg());
        // SAFETY: as above.
        unsafe {
            add_repeated::launch_unchecked(
                &g.client,
                count,
                dim,
                size,
                from,
                to,
                growth,
                vectors,
                c / size,
                factor,
                elem(&g),
            );
        }
    });
    tensor(output)
}

/// Channels to voxels.
pub(super) fn interleave(x: CubeTensor, factor: [usize; 3]) -> CubeTensor {
    let x = channels_last(x);
    let [n, z, y, w, c] = dims(&x);
    let [fz, fy, fx] = factor;
    let channels = c / (fz * fy * fx);
    let output = empty(&x, [n, z * fz, y * fy, w * fx, channels]);
    move_values("interleave", &x, &output, [z, y, w], factor, channels, false);
    tensor(output)
}

/// Voxels to channels.
pub(super) fn separate(x: CubeTensor, factor: [usize; 3]) -> CubeTensor {
    let x = channels_last(x);
    let [n, z, y, w, c] = dims(&x);
    let [fz, fy, fx] = factor;
    let small = [z / fz, y / fy, w / fx];
    let output = empty(&x, [n, small[0], small[1], small[2], c * fz * fy * fx]);
    move_values("separate", &x, &output, small, factor, c, true);
    tensor(output)
}

fn move_values(
    name: &'static str,
    x: &CubeTensor,
    output: &CubeTensor,
    size: [usize; 3],
    factor: [usize; 3],
    channels: usize,
    separates: bool,
) {
    let values = elements(x);
    Kernel::new(name).reads(&[x]).writes(&[output]).each(values, |count, dim| {
        let growth = GrowthLaunch::of(size, factor);
        let (from, to) = (x.clone().into_buffer_arg(), output.clone().into_buffer_arg());
        // SAFETY: a permutation of the values, of which there are as many in both.
        unsafe {
            rearrange::launch_unchecked(
                &x.client,
                count,
                dim,
                from,
                to,
                growth,
                values,
                channels,
                separates,
                elem(x),
            );
        }
    });
}
