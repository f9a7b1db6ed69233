//! The convolution itself.

use super::{Strip, Strips};
use crate::cpu::conv::STREAMED;
use crate::cpu::conv::ends::{Sink, Work};
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::with_scratch;
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;

/// Vectors of a register tile, at most. Long runs of few outputs: with six outputs of two vectors, whose
/// multiplications need fewer loads, writing took so much longer that all took half as long again.
const VECTORS: usize = 4;

/// Outputs of a register tile, at most.
const fn most<S: Simd>() -> usize {
    if S::CHANNEL_TILE == 8 { 4 } else { 2 }
}

/// Computes what `work` says, for shapes that [`pays`](super::pays) accepts.
pub(crate) fn forward(isa: Isa, work: &Work<'_>) {
    let shape = work.shape;
    let strips = Strips::new(shape, isa.lanes());
    let start = work.start(shape.outputs);
    let streamed = shape.batch * shape.outputs * work.sink.voxels > STREAMED;
    (0..strips.count(shape.batch)).into_par_iter().evenly().for_each(|index| {
        let strip = strips.get(index);
        with_scratch(|buffer, _| {
            let buffer = buffer.scratch(strips.len());
            strips.pad(work.source, strip, buffer);
            let (outputs, weight, start) = (shape.outputs, work.weight, start.values());
            let sink = &work.sink;
            isa.run(ForwardRows { strips, strip, outputs, weight, start, sink, streamed, buffer });
        });
    });
}

/// A strip.
struct ForwardRows<'a> {
    strips: Strips,
    strip: Strip,
    outputs: usize,
    /// `[output][input][tap]`.
    weight: &'a [f32],
    /// What each output's sums begin with.
    start: &'a [f32],
    sink: &'a Sink,
    /// Whether the outputs are too many for any cache.
    streamed: bool,
    /// What the strip reads.
    buffer: &'a [f32],
}

impl Task for ForwardRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { strips, strip, .. } = self;
        let (offsets, taps) = strips.offsets();
        assert!(self.buffer.len() >= strips.len() && strip.rows <= strips.rows, "a strip's rows");
        assert!(strips.columns.is_multiple_of(S::LANES), "whole vectors");
        assert!(self.weight.len() >= self.outputs * taps, "a weight for each output and tap");
        // Tiles of nearly equal length: a short one would starve the multipliers.
        let vectors = strips.columns / S::LANES;
        let tiles = vectors.div_ceil(VECTORS);
        let mut output = 0;
        while output < self.outputs {
            let left = (self.outputs - output).min(most::<S>());
            let count = [4, 2].into_iter().find(|count| *count <= left).unwrap_or(1);
            for row in 0..strip.rows {
                for tile in 0..tiles {
                    let (from, to) = (vectors * tile / tiles, vectors * (tile + 1) / tiles);
                    let at = [output, row, from * S::LANES];
                    // SAFETY: outputs, the strip's rows and its columns are as many as asserted.
                    unsafe {
                        match count {
                            4 => self.vectors::<S, 4>(simd, at, to - from, &offsets[..taps]),
                            2 => self.vectors::<S, 2>(simd, at, to - from, &offsets[..taps]),
                            _ => self.vectors::<S, 1>(simd, at, to - from, &offsets[..taps]),
                        }
                    }
                }
            }
            output += count;
        }
        if self.streamed {
            simd.fence();
        }
    }
}

impl ForwardRows<'_> {
    /// As [`tile`](Self::tile), of `count` vectors, at most [`VECTORS`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn vectors<S: Simd, const OUTPUTS: usize>(
        &self,
        simd: S,
        at: [usize; 3],
        count: usize,
        offsets: &[usize],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match count {
                1 => self.tile::<S, OUTPUTS, 1>(simd, at, offsets),
                2 => self.tile::<S, OUTPUTS, 2>(simd, at, offsets),
                3 => self.tile::<S, OUTPUTS, 3>(simd, at, offsets),
                _ => self.tile::<S, OUTPUTS, VECTORS>(simd, at, offsets),
            }
        }
    }

    /// `OUTPUTS` outputs of `COUNT` vectors of voxels, all of them in registers.
    ///
    /// # Safety
    /// There are so many outputs from the first of `at` on, so many vectors of columns in a row of the
    /// buffer from the last on, and the row is one of the strip's, which this task alone writes.
    #[inline(always)]
    unsafe fn tile<S: Simd, const OUTPUTS: usize, const COUNT: usize>(
        &self,
        simd: S,
        [output, row, column]: [usize; 3],
        offsets: &[usize],
    ) {
        let Self { strips, strip, .. } = self;
        let [_, size_y, size_x] = strips.size;
        let mut sums = [[simd.zero(); COUNT]; OUTPUTS];
        for (o, sums) in sums.iter_mut().enumerate() {
            *sums = [simd.splat(self.start[output + o]); COUNT];
        }
        // SAFETY: every address below is one the caller promised: taps reach two rows and two columns
        // further, which the buffer has.
        unsafe {
            let from = self.buffer.as_ptr().add(row * strips.pitch() + column);
            let weight = self.weight.as_ptr().add(output * offsets.len());
            for (tap, offset) in offsets.iter().enumerate() {
                let from = from.add(*offset);
                let mut inputs = [simd.zero(); COUNT];
                for (v, input) in inputs.iter_mut().enumerate() {
                    *input = simd.load(from.add(v * S::LANES));
                }
                for (o, sums) in sums.iter_mut().enumerate() {
                    let value = simd.splat(*weight.add(o * offsets.len() + tap));
                    for (sum, input) in sums.iter_mut().zip(inputs) {
                        *sum = simd.multiply_add(value, input, *sum);
                    }
                }
            }
            let place = (strip.z * size_y + strip.y + row) * size_x + column;
            let left = size_x - column;
            for (o, sums) in sums.iter().enumerate() {
                let (target, first) = self.sink.channel(strip.sample, output + o);
                let to = target.at(first + place);
                if left >= COUNT * S::LANES {
                    for (v, sum) in sums.iter().enumerate() {
                        if self.streamed {
                            simd.stream(to.add(v * S::LANES), *sum);
                        } else {
                            simd.store(to.add(v * S::LANES), *sum);
                        }
                    }
                } else {
                    let mut whole = [0f32; 16 * VECTORS];
                    for (v, sum) in sums.iter().enumerate() {
                        simd.store(whole.as_mut_ptr().add(v * S::LANES), *sum);
                    }
                    std::ptr::copy_nonoverlapping(whole.as_ptr(), to, left);
                }
            }
        }
    }
}
