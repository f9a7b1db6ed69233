//! The gradients of the weights and the bias.

use super::Shape;
use super::ends::Source;
use super::gather::gather;
use super::geometry::{CHANNELS, Cut, Strip, Sweep};
use super::shares::Shares;
use super::tile;
use super::weights::{Packing, unpack};
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::{Target, with_scratch};
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;
use std::ops::Range;

/// Tasks the work is divided into where sizes allow, by voxels if channels are too few.
const TASKS: usize = 16;
/// Blocks of outputs a task sums from one gathered strip, at most.
const BLOCKS: usize = 4;
/// Voxels summed in registers before they are added to the rest: first caches hold their operands,
/// and sums of sums stay exact where one long sum would drift.
const RUN: usize = 160;

/// The gradient of the weights, `[Cout, Cin, 3, 3, 3]`.
pub(crate) fn weight_gradient(
    isa: Isa,
    shape: &Shape,
    source: Source<'_>,
    gradient: Source<'_>,
    weight: &mut [f32],
) {
    let sweep = &Sweep::forward(shape);
    let packing = Packing::new(isa, shape.outputs, shape.inputs);
    let blocks = packing.blocks.min(BLOCKS);
    let cut = &sweep.cut(blocks * packing.width);
    let strips = cut.strips(sweep);
    let groups: Vec<_> = sweep.groups(cut.blocks).collect();
    let pairs = packing.blocks.div_ceil(blocks) * groups.len();
    let len = packing.len(sweep);
    let mut shares = Shares::new(TASKS.div_ceil(pairs).min(strips.len()), len);
    let target = shares.target();
    (0..shares.count * pairs).into_par_iter().evenly().for_each(|task| {
        let (share, pair) = (task % shares.count, task / shares.count);
        let (range, group) = (pair / groups.len(), groups[pair % groups.len()].clone());
        let blocks = range * blocks..((range + 1) * blocks).min(packing.blocks);
        let sums = share * shares.pitch;
        let task =
            StripGradients { sweep, cut, source, gradient, packing, blocks, group, target, sums };
        with_scratch(|buffer, gradients| {
            let buffer = buffer.scratch(cut.buffer_len());
            let gradients = gradients.scratch(task.blocks.len() * task.block_len());
            for &strip in &strips[shares.range(share, strips.len())] {
                isa.run(StripGradientsInScratch { task: &task, strip, buffer, gradients });
            }
        });
    });
    unpack(sweep, packing, &shares.sum()[..len], weight);
}

/// What all strips share, for some blocks of outputs and one group of inputs.
struct StripGradients<'a> {
    sweep: &'a Sweep,
    cut: &'a Cut,
    source: Source<'a>,
    gradient: Source<'a>,
    packing: Packing,
    blocks: Range<usize>,
    group: Range<usize>,
    target: Target,
    /// Where the share's sums begin.
    sums: usize,
}

/// A strip of a task with the memory it works in.
struct StripGradientsInScratch<'a> {
    task: &'a StripGradients<'a>,
    strip: Strip,
    buffer: &'a mut [f32],
    gradients: &'a mut [f32],
}

impl Task for StripGradientsInScratch<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { task, strip, buffer, gradients } = self;
        gather(simd, task.sweep, task.cut, strip, task.source, task.group.clone(), buffer);
        for (block, to) in task.blocks.clone().zip(gradients.chunks_exact_mut(task.block_len())) {
            task.gather_gradient(simd, strip, block, to);
        }
        if task.packing.width == S::LANES {
            task.multiply::<S, 1>(simd, strip, buffer, gradients);
        } else {
            task.multiply::<S, 2>(simd, strip, buffer, gradients);
        }
    }
}

impl StripGradients<'_> {
    /// Values of one block of gradients.
    fn block_len(&self) -> usize {
        self.cut.planes * self.cut.rows * self.cut.pitch * self.packing.width
    }

    /// Channels innermost, zero in the columns between rows and in channels there are not.
    #[inline(always)]
    fn gather_gradient<S: Simd>(&self, simd: S, strip: Strip, block: usize, to: &mut [f32]) {
        let Self { sweep, cut, packing, gradient, .. } = self;
        let [_, size_y, size_x] = sweep.out_size;
        let width = packing.width;
        let first = block * width;
        for channel in (0..width).step_by(8) {
            let count = sweep.outputs.saturating_sub(first + channel).min(8);
            let volumes: [&[f32]; 8] = std::array::from_fn(|i| {
                let known = (first + channel + i).min(sweep.outputs - 1);
                gradient.channel(strip.sample, known)
            });
            for plane in 0..strip.planes {
                for row in 0..strip.rows {
                    let from = ((strip.z + plane) * size_y + strip.y + row) * size_x;
                    let rows = volumes.map(|volume| &volume[from..from + size_x]);
                    let at = (plane * cut.rows + row) * cut.pitch * width + channel;
                    let to = &mut to[at..];
                    let mut x = 0;
                    if count == 8 {
                        while x + 8 <= size_x {
                            let to = &mut to[x * width..][..7 * width + 8];
                            let base = to.as_mut_ptr();
                            // SAFETY: voxels `x..x + 8` lie in every row; eight rows of eight in the
                            // slice; the two are different allocations.
                            unsafe {
                                simd.transpose(
                                    rows.map(|row| row.as_ptr().add(x)),
                                    std::array::from_fn(|i| base.add(i * width)),
                                );
                            }
                            x += 8;
                        }
                    }
                    for x in x..cut.pitch {
                        for (i, row) in rows.iter().enumerate() {
                            let known = i < count && x < size_x;
                            to[x * width + i] = if known { row[x] } else { 0.0 };
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn multiply<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        strip: Strip,
        buffer: &[f32],
        gradients: &[f32],
    ) {
        let Self { sweep, cut, packing, .. } = self;
        let (width, taps) = (packing.width, &sweep.passes[0].taps);
        let len = cut.run(sweep, strip.rows);
        let runs = len.div_ceil(RUN);
        let places = (0..strip.planes).flat_map(|plane| (0..runs).map(move |run| (plane, run)));
        for (plane, run) in places {
            let (from, to) = (len * run / runs, len * (run + 1) / runs);
            let at = (plane * cut.rows * cut.pitch + from) * width;
            let gradients = gradients.chunks_exact(self.block_len());
            for (output, gradient) in self.blocks.clone().zip(gradients) {
                let gradient = &gradient[at..][..(to - from) * width];
                let sums = self.sums + packing.start(sweep, 0, output);
                for block in self.group.clone() {
                    let channels = sweep.channels(block);
                    for (tap, found) in taps.iter().enumerate() {
                        if !strip.reads(sweep, plane, found.offset[0]) {
                            continue;
                        }
                        let input = (block - self.group.start) * cut.block_len
                            + cut.tap(sweep, plane, found.offset)
                            + from * CHANNELS;
                        let input = &buffer[input..][..(to - from - 1) * CHANNELS + channels];
                        let sums = sums + packing.segment(block, channels, tap, taps.len());
                        // SAFETY: the slices hold the run; the sums lie in this task's blocks of
                        // outputs and its group of inputs, which no other task of its share has.
                        unsafe {
                            tile::outer::<S, VECTORS>(
                                simd,
                                to - from,
                                channels,
                                input.as_ptr(),
                                gradient.as_ptr(),
                                self.target.at(sums),
                            );
                        }
                    }
                }
            }
        }
    }
}

/// The gradient of the bias: the sum over samples and voxels, in double precision.
pub(crate) fn bias_gradient(isa: Isa, batch: usize, channels: usize, gradient: &[f32]) -> Vec<f32> {
    let volume = gradient.len() / (batch * channels);
    assert_eq!(gradient.len(), batch * channels * volume, "values of the gradient");
    let sum = |channel: usize| -> f64 {
        (0..batch)
            .map(|sample| {
                let values = &gradient[(sample * channels + channel) * volume..][..volume];
                crate::cpu::reduce::sum(isa, values)
            })
            .sum()
    };
    (0..channels).into_par_iter().evenly().map(|channel| sum(channel) as f32).collect()
}
