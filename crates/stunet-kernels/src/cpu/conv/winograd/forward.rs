//! Forward, and the gradient of the input.

use super::boxes::{Box3, Cut, Tile};
use super::copy::{Region, copy_in, copy_out, gather, measure, scatter};
use super::transform::{strided_terms, transform_input, transform_output};
use super::weights::{Layout, pack};
use crate::cpu::conv::ends::{Sink, Source, Work};
use crate::cpu::conv::geometry::CHANNELS;
use crate::cpu::conv::tile::{self, Segment};
use crate::cpu::conv::{Shape, voxels};
use crate::cpu::evenly::Evenly;
use crate::cpu::kept_weights::WeightOrder;
use crate::cpu::memory::with_scratch;
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;
use std::ops::Range;

/// Tasks below which the output channels are divided.
const TASKS: usize = 32;

/// Computes what `work` says, for shapes that [`pays`](super::pays) accepts.
pub(crate) fn run(isa: Isa, work: &Work<'_>) {
    run_tasks(isa, work, false);
}

/// [`run`], and of each channel written of each sample the sum of its values and that of their squares.
pub(crate) fn run_measured(isa: Isa, work: &Work<'_>) -> Vec<[f64; 2]> {
    let outputs = work.channels()[1];
    let mut sums = vec![[0.0; 2]; work.shape.batch * outputs];
    // Tasks in their order, whatever the threads, so that the sums are always the same.
    for Moments { sample, channel, found } in run_tasks(isa, work, true) {
        let sums = &mut sums[sample * outputs..][..outputs][channel..];
        let [found, squares] = found;
        for (sum, found) in sums.iter_mut().zip(found.into_iter().zip(squares)) {
            *sum = [sum[0] + found.0, sum[1] + found.1];
        }
    }
    sums
}

/// What a task found of the channels it wrote, from `channel` on.
struct Moments {
    sample: usize,
    channel: usize,
    /// Sums of values and of squares.
    found: [Vec<f64>; 2],
}

fn run_tasks(isa: Isa, work: &Work<'_>, measured: bool) -> Vec<Moments> {
    let shape = work.shape;
    let [inputs, outputs] = work.channels();
    let tile = Tile::of(shape).expect("shapes for which tiles pay");
    let layout = Layout::new(isa, tile, inputs, outputs);
    let order = WeightOrder { isa, taps: tile.frequencies(), strided: tile == Tile::Strided };
    let packed = work.packed(order, || pack(isa, layout, work));
    let start = work.start(layout.blocks * layout.width);
    let (packed, start) = (packed.values(), start.values());
    let in_blocks = layout.inputs.div_ceil(CHANNELS);
    // Every task transforms what it reads, so outputs are divided only where boxes are few.
    let mut blocks = layout.blocks;
    let cut = loop {
        let channels = [in_blocks * CHANNELS, blocks * layout.width];
        let cut = Cut::new(tile, shape.out_size(), shape.batch, channels);
        if blocks == 1 || cut.len() * layout.blocks.div_ceil(blocks) >= TASKS {
            break cut;
        }
        blocks = blocks.div_ceil(2);
    };
    let ranges = layout.blocks.div_ceil(blocks);
    let tasks = (0..cut.len() * ranges).into_par_iter().evenly().map(|task| {
        // Tasks beside each other share their weights.
        let (range, tiles) = (task / cut.len(), cut.get(task % cut.len()));
        let blocks = range * blocks..((range + 1) * blocks).min(layout.blocks);
        let (source, sink) = (work.source, &work.sink);
        let task = BoxTask { shape, tiles, source, layout, packed, start, blocks, sink };
        let found = if measured { task.blocks.len() * layout.width } else { 0 };
        let (sample, channel) = (tiles.sample, task.blocks.start * layout.width);
        let found = [vec![0.0; found], vec![0.0; found]];
        let mut moments = Moments { sample, channel, found };
        let found = &mut moments.found;
        with_scratch(|first, second| {
            let inputs = first.scratch(in_blocks * task.input_len());
            let rest = second.scratch(task.voxels_len() + task.sums_len());
            let (voxels, sums) = rest.split_at_mut(task.voxels_len());
            isa.run(BoxInScratch { task, inputs, voxels, sums, moments: found });
        });
        moments
    });
    tasks.collect()
}

/// A box, for a range of blocks of outputs.
struct BoxTask<'a> {
    shape: &'a Shape,
    tiles: Box3,
    source: Source<'a>,
    layout: Layout,
    packed: &'a [f32],
    /// What outputs begin with.
    start: &'a [f32],
    blocks: Range<usize>,
    sink: &'a Sink,
}

/// A task with the memory it works in, which is found outside of what is compiled for vectors.
struct BoxInScratch<'a> {
    task: BoxTask<'a>,
    /// Transformed: `[block of inputs][frequency][tile][input]`.
    inputs: &'a mut [f32],
    /// Voxels read, then those written, of one block.
    voxels: &'a mut [f32],
    /// `[block of outputs][frequency][tile][output]`.
    sums: &'a mut [f32],
    /// For each output of the blocks, if any.
    moments: &'a mut [Vec<f64>; 2],
}

impl Task for BoxInScratch<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { task, inputs, voxels, sums, moments } = self;
        task.read(simd, inputs, voxels);
        if task.layout.width == S::LANES {
            task.multiply::<S, 1>(simd, inputs, sums);
        } else {
            task.multiply::<S, 2>(simd, inputs, sums);
        }
        task.write(simd, sums, voxels, moments);
    }
}

impl BoxTask<'_> {
    /// Transformed values of one block of inputs.
    fn input_len(&self) -> usize {
        self.tiles.input_len() * CHANNELS
    }

    /// Transformed values of one block of outputs.
    fn block_len(&self) -> usize {
        self.tiles.output_len() * self.layout.width
    }

    fn sums_len(&self) -> usize {
        self.blocks.len() * self.block_len()
    }

    fn voxels_len(&self) -> usize {
        let read = voxels(self.tiles.outer()) * CHANNELS;
        read.max(voxels(self.tiles.inner()) * self.layout.width).next_multiple_of(16)
    }

    #[inline(always)]
    fn read<S: Simd>(&self, simd: S, inputs: &mut [f32], voxels: &mut [f32]) {
        let region = Region::read(self.tiles, self.shape.size);
        for (block, to) in inputs.chunks_exact_mut(self.input_len()).enumerate() {
            let first = block * CHANNELS;
            let count = (self.layout.inputs - first).min(CHANNELS);
            if self.source.innermost {
                copy_in(simd, self.source, region, first, voxels);
            } else {
                gather::<S, CHANNELS>(simd, self.source, region, first, count, voxels, CHANNELS);
            }
            transform_input(simd, self.tiles, CHANNELS, voxels, to);
        }
    }

    /// The products that belong to each frequency of the outputs, one after the other; where all are alike, those of
    /// the first.
    fn terms(&self) -> Vec<Segment> {
        let Layout { tile, inputs, width, blocks, .. } = self.layout;
        let segment = |[input, kernel]: [usize; 2], first: usize| Segment {
            input: first / CHANNELS * self.input_len() + input * self.tiles.pitch() * CHANNELS,
            weight: kernel * blocks * self.layout.block_len() + first * width,
            channels: (inputs - first).min(CHANNELS),
        };
        let of = |term| (0..inputs).step_by(CHANNELS).map(move |first| segment(term, first));
        match tile {
            Tile::Small | Tile::Large => of([0, 0]).collect(),
            Tile::Strided => (0..27).flat_map(strided_terms).flat_map(of).collect(),
        }
    }

    #[inline(always)]
    fn multiply<S: Simd, const VECTORS: usize>(&self, simd: S, inputs: &[f32], sums: &mut [f32]) {
        let Layout { tile, width, blocks, .. } = self.layout;
        let (count, pitch) = (self.tiles.count(), self.tiles.pitch());
        assert!(VECTORS * S::LANES == width, "a block of outputs");
        let in_blocks = self.layout.inputs.div_ceil(CHANNELS);
        assert!(inputs.len() >= in_blocks * self.input_len() && sums.len() >= self.sums_len());
        assert!(self.packed.len() >= self.layout.len(), "transformed weights");
        let zero = [0f32; 32];
        let terms = self.terms();
        let mut left = terms.as_slice();
        for frequency in 0..tile.output_frequencies() {
            let (segments, shift) = match tile {
                Tile::Small | Tile::Large => (left, frequency),
                Tile::Strided => {
                    let count = strided_terms(frequency).count() * in_blocks;
                    (left.split_off(..count).expect("terms of all frequencies"), 0)
                }
            };
            for block in self.blocks.clone() {
                let weight = &self.packed[(shift * blocks + block) * self.layout.block_len()..];
                let at = (block - self.blocks.start) * self.block_len() + frequency * pitch * width;
                // SAFETY: every segment's tiles, of one frequency, lie in `inputs` and the block's in
                // `sums`, as asserted; the weights are `channels` rows of `width` values of the block's,
                // as asserted.
                unsafe {
                    tile::sweep::<S, VECTORS>(
                        simd,
                        count,
                        inputs.as_ptr().add(shift * pitch * CHANNELS),
                        weight.as_ptr(),
                        segments,
                        Some(zero.as_ptr()),
                        sums.as_mut_ptr().add(at),
                        width,
                    );
                }
            }
        }
    }

    #[inline(always)]
    fn write<S: Simd>(
        &self,
        simd: S,
        sums: &[f32],
        voxels: &mut [f32],
        moments: &mut [Vec<f64>; 2],
    ) {
        let Layout { outputs, width, .. } = self.layout;
        let region = Region::written(self.tiles, self.shape.out_size());
        for (block, sums) in self.blocks.clone().zip(sums.chunks_exact(self.block_len())) {
            let start = &self.start[block * width..][..width];
            transform_output(simd, self.tiles, width, sums, start, voxels);
            let at = (block - self.blocks.start) * width;
            let [sums, squares] = moments;
            if !sums.is_empty() {
                let to = [&mut sums[at..], &mut squares[at..]];
                measure(simd, voxels, width, region, to);
            }
            let first = block * width;
            if self.sink.innermost {
                let (target, sample) = self.sink.channel(self.tiles.sample, 0);
                let to = (target, sample + first);
                // SAFETY: the outputs are whole blocks, of whose voxels only this task, with its box and its
                // blocks of outputs, writes the region.
                unsafe { copy_out(simd, voxels, width, region, to, outputs) };
                continue;
            }
            for channel in (first..outputs.min(first + width)).step_by(8) {
                let count = (outputs - channel).min(8);
                let sample = self.tiles.sample;
                let targets =
                    std::array::from_fn(|i| self.sink.channel(sample, channel + i.min(count - 1)));
                let voxels = &voxels[channel - first..];
                // SAFETY: each target is a channel of this sample, of which only this task, with its
                // box and its blocks of outputs, writes the region.
                unsafe { scatter(simd, voxels, width, region, targets, count) };
            }
        }
    }
}
