//! Forward, and the gradient of the input: the same sweep with other taps.

use super::ends::{Direction, Sink, Source, Work};
use super::gather::gather;
use super::geometry::{Cut, Strip, Sweep};
use super::tile::{self, Segment};
use super::weights::{Packing, pack};
use crate::cpu::evenly::Evenly;
use crate::cpu::kept_weights::WeightOrder;
use crate::cpu::memory::with_scratch;
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;
use std::ops::Range;

/// Tasks below which the output channels are divided further.
const TASKS: usize = 32;
/// Blocks of outputs a task computes from one gathered strip, at most.
const BLOCKS: usize = 4;

/// Computes what `work` says.
pub(crate) fn run(isa: Isa, work: &Work<'_>) {
    let sweep = &match work.direction {
        Direction::Forward => Sweep::forward(work.shape),
        Direction::InputGradient => Sweep::input_gradient(work.shape),
    };
    let packing = Packing::new(isa, sweep.outputs, sweep.inputs);
    let order = WeightOrder { isa, taps: 27, strided: false };
    let packed = work.packed(order, || pack(isa, sweep, packing, work));
    let start = work.start(packing.blocks * packing.width);
    let (packed, start) = (packed.values(), start.values());

    let mut blocks = packing.blocks.min(BLOCKS);
    let mut cut = sweep.cut(sweep.passes.len() * blocks * packing.width);
    let mut strips = cut.strips(sweep);
    while strips.len() * packing.blocks.div_ceil(blocks) < TASKS && blocks > 1 {
        blocks = blocks.div_ceil(2);
        cut = sweep.cut(sweep.passes.len() * blocks * packing.width);
        strips = cut.strips(sweep);
    }
    let ranges = packing.blocks.div_ceil(blocks);
    (0..strips.len() * ranges).into_par_iter().evenly().for_each(|task| {
        // Tasks beside each other share their weights.
        let (range, strip) = (task / strips.len(), strips[task % strips.len()]);
        let blocks = range * blocks..((range + 1) * blocks).min(packing.blocks);
        let (cut, source, sink) = (&cut, work.source, &work.sink);
        let task = StripTask { sweep, cut, strip, source, packing, packed, start, blocks, sink };
        with_scratch(|buffer, sums| {
            let buffer = buffer.scratch(cut.buffer_len());
            let sums = sums.scratch(task.sums_len());
            isa.run(StripInScratch { task, buffer, sums });
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
    sink: &'a Sink,
}

/// A task with the memory it works in, which is found outside of what is compiled for vectors.
struct StripInScratch<'a> {
    task: StripTask<'a>,
    buffer: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Task for StripInScratch<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { task, buffer, sums } = self;
        let StripTask { sweep, cut, strip, source, packing, .. } = task;
        for group in sweep.groups(cut.blocks) {
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
    /// Values of all sums: `[pass but for x][block][plane][row][column][pass along x][output]`, so
    /// that what several passes write to a row lies in order.
    fn sums_len(&self) -> usize {
        let [z, y, _] = self.sweep.spread;
        z * y * self.blocks.len() * self.cut.planes * self.plane_len()
    }

    /// Values of one plane of one block in the sums.
    #[inline(always)]
    fn plane_len(&self) -> usize {
        self.cut.rows * self.cut.pitch * self.step()
    }

    /// Values from one voxel of a pass to the next.
    #[inline(always)]
    fn step(&self) -> usize {
        self.sweep.spread[2] * self.packing.width
    }

    /// Where the sums of a plane of a block begin; the passes along x share it.
    #[inline(always)]
    fn plane(&self, pass: usize, block: usize, plane: usize) -> usize {
        let row_pass = pass / self.sweep.spread[2];
        let block = row_pass * self.blocks.len() + block - self.blocks.start;
        (block * self.cut.planes + plane) * self.plane_len()
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
        let step = self.step();
        assert!(VECTORS * S::LANES == width && run * step <= self.plane_len(), "a plane's sums");
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
                    let first = self.plane(pass_index, block, plane);
                    let sums = &mut sums[first..][..self.plane_len()][pass.origin[2] * width..];
                    let weight = packing.start(sweep, pass_index, block);
                    let weight = &self.packed[weight..][..packing.block_len(pass.taps.len())];
                    let start = &self.start[block * width..][..width];
                    let start = (group.start == 0).then_some(start.as_ptr());
                    // SAFETY: asserted above: every segment's run lies in the buffer, and the run's
                    // sums, of which this pass has every `spread`th, in theirs. A segment's weights lie in its block by `Packing`'s layout.
                    unsafe {
                        tile::sweep::<S, VECTORS>(
                            simd,
                            run,
                            buffer.as_ptr(),
                            weight.as_ptr(),
                            &segments[..count],
                            start,
                            sums.as_mut_ptr(),
                            step,
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
        let width = packing.width;
        for (index, pass) in sweep.passes.iter().enumerate().step_by(sweep.spread[2]) {
            for plane in 0..strip.planes {
                let z = (strip.z + plane) * sweep.spread[0] + pass.origin[0];
                for row in 0..strip.rows {
                    let y = (strip.y + row) * sweep.spread[1] + pass.origin[1];
                    if z >= out_z || y >= out_y {
                        continue;
                    }
                    for block in self.blocks.clone() {
                        let from = self.plane(index, block, plane) + row * cut.pitch * self.step();
                        let sums = &sums[from..][..out_x * width];
                        let first = block * width;
                        for channel in (first..sweep.outputs.min(first + width)).step_by(8) {
                            let count = (sweep.outputs - channel).min(8);
                            let rows: [*mut f32; 8] = std::array::from_fn(|i| {
                                let channel = channel + i.min(count - 1);
                                let (target, at) = self.sink.channel(strip.sample, channel);
                                // SAFETY: the row of a channel inside the output.
                                unsafe { target.at(at + (z * out_y + y) * out_x) }
                            });
                            let sums = &sums[channel - first..];
                            // SAFETY: each row holds `out_x` values, which only this task, with its
                            // strip and its blocks of outputs, writes.
                            unsafe { scatter_row(simd, sums, width, rows, count, out_x) };
                        }
                    }
                }
            }
        }
    }
}

/// Writes `count` channels of a row of `len` sums, `width` apart, to their rows.
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
    len: usize,
) {
    let mut x = 0;
    if count == 8 {
        while x + 8 <= len {
            let from = &sums[x * width..][..7 * width + 8];
            // SAFETY: eight rows of sums as just sliced; voxels `x..x + 8` are below `len`.
            unsafe {
                simd.transpose(
                    eight!(|I| from.as_ptr().add(I * width)),
                    eight!(|I| rows[I].add(x)),
                );
            }
            x += 8;
        }
    }
    for x in x..len {
        for (channel, row) in rows.into_iter().enumerate().take(count) {
            // SAFETY: `x` is below `len`.
            unsafe { *row.add(x) = sums[x * width + channel] };
        }
    }
}
