//! Forward, and the gradient of the input: the same sweep with other taps.

use super::Shape;
use super::gather::{Source, gather};
use super::geometry::{Cut, Strip, Sweep};
use super::tile::{self, Segment};
use super::voxels;
use super::weights::{Order, Packing, pack};
use crate::cpu::memory::{Lines, Output, Target, with_scratch};
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;
use std::ops::Range;

/// Tasks below which the output channels are divided further.
const TASKS: usize = 32;
/// Blocks of outputs a task computes from one gathered strip, at most.
const BLOCKS: usize = 4;

/// The convolution of the concatenation of `parts`, with bias.
///
/// `[N, Cout, ..]` from parts `[N, C1, ..]`, `[N, C2, ..]`, ... and `weight`
/// `[Cout, C1 + C2 + .., 3, 3, 3]`.
pub(crate) fn forward(
    isa: Isa,
    shape: &Shape,
    parts: &[(&[f32], usize)],
    weight: &[f32],
    bias: &[f32],
) -> Output {
    let sweep = Sweep::forward(shape);
    let mut output = Output::new(shape.batch * shape.outputs * voxels(sweep.out_size));
    let sink = [(output.target(), shape.outputs)];
    run(isa, &sweep, parts, weight, Order::forward(shape.inputs), Some(bias), &sink);
    output
}

/// The gradient of each part of the input, which have `parts` channels.
pub(crate) fn input_gradient(
    isa: Isa,
    shape: &Shape,
    gradient: &[f32],
    weight: &[f32],
    parts: &[usize],
) -> Vec<Output> {
    let sweep = Sweep::input_gradient(shape);
    let volume = shape.batch * voxels(shape.size);
    let mut outputs: Vec<_> = parts.iter().map(|channels| Output::new(channels * volume)).collect();
    let sink: Vec<_> =
        outputs.iter_mut().zip(parts).map(|(output, part)| (output.target(), *part)).collect();
    let source = [(gradient, shape.outputs)];
    run(isa, &sweep, &source, weight, Order::transposed(shape.inputs), None, &sink);
    outputs
}

fn run(
    isa: Isa,
    sweep: &Sweep,
    parts: &[(&[f32], usize)],
    weight: &[f32],
    order: Order,
    bias: Option<&[f32]>,
    sink: &[(Target, usize)],
) {
    let total = |channels: usize, size| sweep.batch * channels * voxels(size);
    assert_eq!(parts.iter().map(|part| part.1).sum::<usize>(), sweep.inputs, "channels read");
    assert_eq!(sink.iter().map(|part| part.1).sum::<usize>(), sweep.outputs, "channels written");
    for (values, channels) in parts {
        assert_eq!(values.len(), total(*channels, sweep.in_size), "values read");
    }
    let packing = Packing::new(isa, sweep.outputs, sweep.inputs);
    let packed = pack(isa, sweep, packing, weight, order);
    let mut start = Lines::zeros(packing.blocks * packing.width);
    if let Some(bias) = bias {
        start.values_mut()[..sweep.outputs].copy_from_slice(bias);
    }

    let mut blocks = packing.blocks.min(BLOCKS);
    let mut cut = sweep.cut(sweep.passes.len() * blocks * packing.width);
    let mut strips = cut.strips(sweep);
    while strips.len() * packing.blocks.div_ceil(blocks) < TASKS && blocks > 1 {
        blocks = blocks.div_ceil(2);
        cut = sweep.cut(sweep.passes.len() * blocks * packing.width);
        strips = cut.strips(sweep);
    }
    let ranges = packing.blocks.div_ceil(blocks);
    let source = Source { parts, voxels: voxels(sweep.in_size) };
    (0..strips.len() * ranges).into_par_iter().for_each(|task| {
        // Tasks beside each other share their weights.
        let (range, strip) = (task / strips.len(), strips[task % strips.len()]);
        let blocks = range * blocks..((range + 1) * blocks).min(packing.blocks);
        let (packed, start) = (packed.values(), start.values());
        let task =
            StripTask { sweep, cut: &cut, strip, source, packing, packed, start, blocks, sink };
        with_scratch(|buffer, sums| {
            let buffer = buffer.scratch(cut.buffer_len());
            let sums = sums.scratch(task.sums_len());
            isa.run(WithScratch { task, buffer, sums });
        });
    });
}

/// One strip, for a range of blocks of outputs.
struct StripTask<'a> {
    sweep: &'a Sweep,
    cut: &'a Cut,
    strip: Strip,
    source: Source<'a>,
    packing: Packing,
    packed: &'a [f32],
    /// What sums begin with.
    start: &'a [f32],
    blocks: Range<usize>,
    sink: &'a [(Target, usize)],
}

/// A task with the memory it works in, which is found outside of what is compiled for vectors.
struct WithScratch<'a> {
    task: StripTask<'a>,
    buffer: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Task for WithScratch<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { task, buffer, sums } = self;
        let StripTask { sweep, cut, strip, source, packing, .. } = task;
        for group in sweep.groups() {
            gather(simd, sweep, cut, strip, source, group.clone(), buffer);
            if packing.width == S::LANES {
                task.multiply::<S, 1>(simd, group, buffer, sums);
            } else {
                task.multiply::<S, 2>(simd, group, buffer, sums);
            }
        }
        task.scatter(simd, sums);
    }
}

impl StripTask<'_> {
    /// Values of all sums.
    fn sums_len(&self) -> usize {
        self.sweep.passes.len() * self.blocks.len() * self.cut.planes * self.plane_len()
    }

    /// Values of one plane of one block of one pass in the sums.
    #[inline(always)]
    fn plane_len(&self) -> usize {
        self.cut.rows * self.cut.pitch * self.packing.width
    }

    #[inline(always)]
    fn multiply<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        group: Range<usize>,
        buffer: &[f32],
        sums: &mut [f32],
    ) {
        let Self { sweep, cut, strip, packing, .. } = self;
        let run = cut.run(sweep, strip.rows);
        let width = packing.width;
        assert!(VECTORS * S::LANES == width && run * width <= self.plane_len(), "a plane's sums");
        let mut segments = [Segment::default(); 4 * 27];
        for (pass_index, pass) in sweep.passes.iter().enumerate() {
            for plane in 0..strip.planes {
                let mut count = 0;
                for block in group.clone() {
                    let channels = sweep.channels(block);
                    for (tap, found) in pass.taps.iter().enumerate() {
                        if !strip.reads(sweep, plane, found.offset[0]) {
                            continue;
                        }
                        let input = (block - group.start) * cut.block_len
                            + cut.tap(sweep, plane, found.offset);
                        let weight = packing.segment(block, channels, tap, pass.taps.len());
                        segments[count] = Segment { input, weight, channels };
                        count += 1;
                        assert!(
                            input + (run - 1) * super::geometry::CHANNELS + channels
                                <= buffer.len(),
                            "a tap reads inside the buffer"
                        );
                    }
                }
                for block in self.blocks.clone() {
                    let index = (pass_index * self.blocks.len() + block - self.blocks.start)
                        * cut.planes
                        + plane;
                    let sums = &mut sums[index * self.plane_len()..][..self.plane_len()];
                    let weight = packing.start(sweep, pass_index, block);
                    let weight = &self.packed[weight..][..packing.block_len(pass.taps.len())];
                    let start = &self.start[block * width..][..width];
                    let start = (group.start == 0).then_some(start.as_ptr());
                    // SAFETY: asserted above: every segment's run lies in the buffer, and the run's
                    // sums in theirs. A segment's weights lie in its block by `Packing`'s layout.
                    unsafe {
                        tile::sweep::<S, VECTORS>(
                            simd,
                            run,
                            buffer.as_ptr(),
                            weight.as_ptr(),
                            &segments[..count],
                            start,
                            sums.as_mut_ptr(),
                        );
                    }
                }
            }
        }
    }

    /// Copies the sums into the output's channel planes.
    #[inline(always)]
    fn scatter<S: Simd>(&self, simd: S, sums: &[f32]) {
        let Self { sweep, cut, strip, packing, .. } = self;
        let [out_z, out_y, out_x] = sweep.out_size;
        let volume = voxels(sweep.out_size);
        for (pass_index, pass) in sweep.passes.iter().enumerate() {
            for plane in 0..strip.planes {
                let z = (strip.z + plane) * sweep.spread[0] + pass.origin[0];
                for row in 0..strip.rows {
                    let y = (strip.y + row) * sweep.spread[1] + pass.origin[1];
                    if z >= out_z || y >= out_y {
                        continue;
                    }
                    for block in self.blocks.clone() {
                        let index = (pass_index * self.blocks.len() + block - self.blocks.start)
                            * cut.planes
                            + plane;
                        let from = index * self.plane_len() + row * cut.pitch * packing.width;
                        let sums = &sums[from..][..sweep.size[2] * packing.width];
                        let first = block * packing.width;
                        for channel in (first..sweep.outputs.min(first + packing.width)).step_by(8)
                        {
                            let count = (sweep.outputs - channel).min(8);
                            let rows: [*mut f32; 8] = std::array::from_fn(|i| {
                                let (target, at, channels) =
                                    self.channel(channel + i.min(count - 1));
                                let at = (strip.sample * channels + at) * volume;
                                // SAFETY: the row of a channel inside the output.
                                unsafe { target.at(at + (z * out_y + y) * out_x) }
                            });
                            let x = (pass.origin[2], sweep.spread[2]);
                            let sums = &sums[channel - first..];
                            // SAFETY: each row holds `out_x` values, which only this task, with its
                            // strip and its blocks of outputs, writes.
                            unsafe {
                                scatter_row(simd, sums, packing.width, rows, count, x, out_x)
                            };
                        }
                    }
                }
            }
        }
    }

    /// The tensor that holds an output channel, and which of its channels that is.
    #[inline(always)]
    fn channel(&self, mut channel: usize) -> (Target, usize, usize) {
        for &(target, channels) in self.sink {
            if channel < channels {
                return (target, channel, channels);
            }
            channel -= channels;
        }
        panic!("a sink has fewer channels than are written");
    }
}

/// Writes `count` channels of a row of sums, `width` apart, to their rows: to voxels
/// `origin, origin + spread, ..` below `len`.
///
/// # Safety
/// The first `count` pointers are valid for writing `len` values.
#[inline(always)]
unsafe fn scatter_row<S: Simd>(
    simd: S,
    sums: &[f32],
    width: usize,
    rows: [*mut f32; 8],
    count: usize,
    (origin, spread): (usize, usize),
    len: usize,
) {
    let voxels = len.saturating_sub(origin).div_ceil(spread);
    let mut x = 0;
    if spread == 1 && count == 8 {
        while x + 8 <= voxels {
            let from = &sums[x * width..][..7 * width + 8];
            // SAFETY: eight rows of sums as just sliced; voxels `x..x + 8` are below `len`.
            unsafe {
                simd.transpose(
                    std::array::from_fn(|i| from.as_ptr().add(i * width)),
                    rows.map(|row| row.add(x)),
                );
            }
            x += 8;
        }
    }
    for x in x..voxels {
        for (channel, row) in rows.into_iter().enumerate().take(count) {
            // SAFETY: below `len`, as `x` is below `voxels`.
            unsafe { *row.add(origin + x * spread) = sums[x * width + channel] };
        }
    }
}
