//! The gradient of the weights.

use super::boxes::{Box3, Cut, Tile};
use super::copy::{Region, gather};
use super::transform::{transform_gradient, transform_input};
use super::weights::{Layout, unpack};
use crate::cpu::conv::ends::Source;
use crate::cpu::conv::geometry::CHANNELS;
use crate::cpu::conv::shares::Shares;
use crate::cpu::conv::{Shape, tile, voxels};
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::{Target, with_scratch};
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;
use std::ops::Range;

/// Tasks the work is divided into where sizes allow, by boxes if channels are too few.
const TASKS: usize = 16;
/// Blocks of inputs a task sums at a time, for every gradient it transforms.
const GROUP: usize = 4;

/// The gradient of the weights, for shapes that [`pays_for_gradients`](super::pays_for_gradients) accepts.
pub(crate) fn weight_gradient(
    isa: Isa,
    shape: &Shape,
    source: Source<'_>,
    gradient: Source<'_>,
    weight: &mut [f32],
) {
    let tile = Tile::of_gradients(shape).expect("shapes for which tiles pay");
    let layout = Layout::new(isa, tile, shape.inputs, shape.outputs);
    let cut = Cut::new(tile, shape.size, shape.batch, [CHANNELS, layout.width]);
    let in_blocks = shape.inputs.div_ceil(CHANNELS);
    let groups = in_blocks.div_ceil(GROUP);
    let pairs = layout.blocks * groups;
    let block_len = shape.inputs * tile.frequencies() * layout.width;
    let mut shares = Shares::new(TASKS.div_ceil(pairs).min(cut.len()), layout.blocks * block_len);
    let target = shares.target();
    (0..shares.count * pairs).into_par_iter().evenly().for_each(|task| {
        let (share, pair) = (task % shares.count, task / shares.count);
        let (block, group) = (pair / groups, pair % groups);
        let group = group * GROUP..((group + 1) * GROUP).min(in_blocks);
        let sums = share * shares.pitch + block * block_len;
        let task = BoxGradients { shape, source, gradient, layout, block, group, target, sums };
        let largest = cut.largest();
        with_scratch(|first, second| {
            let transformed = largest.input_len();
            let first = first.scratch(transformed * (CHANNELS + layout.width));
            let (inputs, gradients) = first.split_at_mut(transformed * CHANNELS);
            let voxels = second.scratch(task.voxels_len(largest));
            for index in shares.range(share, cut.len()) {
                let (task, tiles) = (&task, cut.get(index));
                isa.run(BoxGradientsInScratch { task, tiles, inputs, gradients, voxels });
            }
        });
    });
    unpack(isa, layout, &shares.sum()[..layout.blocks * block_len], weight);
}

/// What all boxes share, for one block of outputs and one group of blocks of inputs.
struct BoxGradients<'a> {
    shape: &'a Shape,
    source: Source<'a>,
    gradient: Source<'a>,
    layout: Layout,
    block: usize,
    group: Range<usize>,
    target: Target,
    /// Where the sums of the block begin.
    sums: usize,
}

/// A box of a task with the memory it works in.
struct BoxGradientsInScratch<'a> {
    task: &'a BoxGradients<'a>,
    tiles: Box3,
    /// Transformed: `[frequency][tile][input]`.
    inputs: &'a mut [f32],
    /// Transformed: `[frequency][tile][output]`.
    gradients: &'a mut [f32],
    voxels: &'a mut [f32],
}

impl Task for BoxGradientsInScratch<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { task, tiles, inputs, gradients, voxels } = self;
        task.read_gradient(simd, tiles, gradients, voxels);
        for block in task.group.clone() {
            task.read_input(simd, tiles, block, inputs, voxels);
            if task.layout.width == S::LANES {
                task.multiply::<S, 1>(simd, tiles, block, inputs, gradients);
            } else {
                task.multiply::<S, 2>(simd, tiles, block, inputs, gradients);
            }
        }
    }
}

impl BoxGradients<'_> {
    fn voxels_len(&self, tiles: Box3) -> usize {
        (voxels(tiles.outer()) * CHANNELS).max(voxels(tiles.inner()) * self.layout.width)
    }

    #[inline(always)]
    fn read_gradient<S: Simd>(&self, simd: S, tiles: Box3, to: &mut [f32], voxels: &mut [f32]) {
        let Layout { outputs, width, .. } = self.layout;
        let region = Region::written(tiles, self.shape.size);
        for part in (0..width).step_by(8) {
            let first = self.block * width + part;
            let count = outputs.saturating_sub(first).min(8);
            let first = first.min(outputs - 1);
            gather::<S, 8>(simd, self.gradient, region, first, count, &mut voxels[part..], width);
        }
        transform_gradient(simd, tiles, width, voxels, to);
    }

    #[inline(always)]
    fn read_input<S: Simd>(
        &self,
        simd: S,
        tiles: Box3,
        block: usize,
        to: &mut [f32],
        voxels: &mut [f32],
    ) {
        let region = Region::read(tiles, self.shape.size);
        let first = block * CHANNELS;
        let count = (self.layout.inputs - first).min(CHANNELS);
        gather::<S, CHANNELS>(simd, self.source, region, first, count, voxels, CHANNELS);
        transform_input(simd, tiles, CHANNELS, voxels, to);
    }

    #[inline(always)]
    fn multiply<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        tiles: Box3,
        block: usize,
        inputs: &[f32],
        gradients: &[f32],
    ) {
        let width = self.layout.width;
        let (count, pitch) = (tiles.count(), tiles.pitch());
        let channels = (self.layout.inputs - block * CHANNELS).min(CHANNELS);
        assert!(VECTORS * S::LANES == width, "a block of outputs");
        assert!(inputs.len() >= tiles.input_len() * CHANNELS, "transformed inputs");
        assert!(gradients.len() >= tiles.output_len() * width, "transformed gradients");
        let frequencies = tiles.tile.frequencies();
        for frequency in 0..frequencies {
            let sums = self.sums + (block * CHANNELS * frequencies + frequency * channels) * width;
            // SAFETY: the tiles of a frequency lie in both buffers, as asserted; the sums lie in this
            // task's block of outputs and its group of inputs, which no other task of its share has.
            unsafe {
                tile::outer::<S, VECTORS>(
                    simd,
                    count,
                    channels,
                    inputs.as_ptr().add(frequency * pitch * CHANNELS),
                    gradients.as_ptr().add(frequency * pitch * width),
                    self.target.at(sums),
                );
            }
        }
    }
}
