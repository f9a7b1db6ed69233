//! A convolution with everything it reads and writes.

use super::kernels::convolve;
use super::place::SizesLaunch;
use super::transposed::convolve_transposed;
use crate::gpu::launch::{Kernel, Present, dims, elem, vector_size};
use crate::gpu::tiles::Tile;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Tensors are `[N, Z, Y, X, C]`.
pub(super) struct Job {
    pub name: &'static str,
    pub tile: Tile,
    /// One or two, side by side along the channels.
    pub parts: Vec<CubeTensor>,
    /// How often each voxel of the first part is repeated along each axis.
    pub factor: [usize; 3],
    /// Statistics that the one part is normed by: `[N, C, 4]`.
    pub reads_by: Option<CubeTensor>,
    /// What is normed and added to the result, and its statistics.
    pub added: Option<[CubeTensor; 2]>,
    /// Of the activation behind either norm.
    pub slope: f32,
    /// The weights, as [`arrange`](super::weights::arrange) left them.
    pub arranged: CubeTensor,
    pub bias: Option<CubeTensor>,
    pub output: CubeTensor,
    /// Where the moments of the output go, `[N, tiles, C, 3]`.
    pub moments: Option<CubeTensor>,
    pub products: u64,
}

impl Job {
    /// The convolution of the parts.
    pub fn run(self) -> CubeTensor {
        let [samples, z, y, x, outputs] = dims(&self.output);
        let tiles = self.tile.tiles([z, y, x]);
        let cubes = samples * tiles.iter().product::<usize>() * self.blocks();
        let first = &self.parts[0];
        self.kernel().in_turns(cubes, self.tile.units(), |cube, count, dim| {
            // SAFETY: what is read and written is held against the sizes of the tensors in the kernel.
            unsafe {
                convolve::launch_unchecked(
                    &first.client,
                    count,
                    dim,
                    self.size_in(),
                    vector_size(&[outputs]),
                    arg(first),
                    self.parts.get(1).map(arg).into(),
                    self.reads_by.as_ref().map(arg).into(),
                    arg(&self.arranged),
                    self.bias.as_ref().map(arg).into(),
                    self.added.as_ref().map(|[added, _]| arg(added)).into(),
                    self.added.as_ref().map(|[_, by]| arg(by)).into(),
                    arg(&self.output),
                    self.moments.as_ref().map(arg).into(),
                    self.sizes(tiles, cube, cubes),
                    self.slope,
                    self.factor,
                    self.tile,
                    self.present(),
                    elem(first),
                );
            }
        });
        self.output
    }

    /// The transposed convolution of the one part, a gradient; `size` voxels leave each remainder modulo
    /// the stride, at most.
    pub fn run_transposed(self, size: [usize; 3]) -> CubeTensor {
        let [samples, _, _, _, outputs] = dims(&self.output);
        let tiles = self.tile.tiles(size);
        let remainders: usize = self.tile.stride.iter().product();
        let cubes = remainders * samples * tiles.iter().product::<usize>() * self.blocks();
        let gradient = &self.parts[0];
        self.kernel().in_turns(cubes, self.tile.units(), |cube, count, dim| {
            // SAFETY: what is read and written is held against the sizes of the tensors in the kernel.
            unsafe {
                convolve_transposed::launch_unchecked(
                    &gradient.client,
                    count,
                    dim,
                    self.size_in(),
                    vector_size(&[outputs]),
                    arg(gradient),
                    arg(&self.arranged),
                    arg(&self.output),
                    self.sizes(tiles, cube, cubes),
                    self.tile,
                    elem(gradient),
                );
            }
        });
        self.output
    }

    fn kernel(&self) -> Kernel {
        let mut read: Vec<_> = self.parts.iter().collect();
        read.push(&self.arranged);
        read.extend(&self.bias);
        read.extend(&self.reads_by);
        read.extend(self.added.iter().flatten());
        let mut written = vec![&self.output];
        written.extend(&self.moments);
        Kernel::new(self.name).reads(&read).writes(&written).products(self.products)
    }

    fn present(&self) -> Present {
        let [second, bias] = [self.parts.len() > 1, self.bias.is_some()];
        let [reads_by, added] = [self.reads_by.is_some(), self.added.is_some()];
        Present::of(&[second, reads_by, bias, added, added, self.moments.is_some()])
    }

    /// Blocks of output channels.
    fn blocks(&self) -> usize {
        dims::<5>(&self.output)[4].div_ceil(self.tile.channels())
    }

    fn channels(&self, part: usize) -> usize {
        self.parts.get(part).map_or(0, |part| dims::<5>(part)[4])
    }

    /// Values that are read at a time, never beyond the channels that are in shared memory.
    fn size_in(&self) -> usize {
        let deep = if self.tile.depth >= 4 { 4 } else { 1 };
        vector_size(&[self.channels(0), self.channels(1)]).min(deep)
    }

    fn sizes(&self, tiles: [usize; 3], cube: usize, cubes: usize) -> SizesLaunch {
        let [_, z, y, x, _] = dims(&self.parts[0]);
        let [in_z, in_y, in_x] = [z * self.factor[0], y * self.factor[1], x * self.factor[2]];
        let [_, out_z, out_y, out_x, outputs] = dims(&self.output);
        let [tiles_z, tiles_y, tiles_x] = tiles;
        SizesLaunch::new(
            self.channels(0),
            self.channels(1),
            outputs,
            in_z,
            in_y,
            in_x,
            out_z,
            out_y,
            out_x,
            tiles_z,
            tiles_y,
            tiles_x,
            self.blocks(),
            dims::<3>(&self.arranged)[2] / 4,
            cube,
            cubes,
            cube,
        )
    }
}

fn arg(x: &CubeTensor) -> BufferArg {
    x.clone().into_buffer_arg()
}
