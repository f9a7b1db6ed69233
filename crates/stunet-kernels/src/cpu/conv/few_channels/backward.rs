//! The gradient of the weights.

use super::{Strip, Strips};
use crate::cpu::conv::Shape;
use crate::cpu::conv::ends::Source;
use crate::cpu::conv::shares::Shares;
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::{Target, with_scratch};
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;

/// Tasks the strips are divided into.
const TASKS: usize = 64;

/// The gradient of the weights, for shapes that [`pays`](super::pays) accepts.
pub(crate) fn weight_gradient(
    isa: Isa,
    shape: &Shape,
    source: Source<'_>,
    gradient: Source<'_>,
    weight: &mut [f32],
) {
    let strips = Strips::new(shape, isa.lanes());
    let count = strips.count(shape.batch);
    // A vector for each weight: its lanes are added up once, at the end.
    let mut shares = Shares::new(TASKS.min(count), weight.len() * isa.lanes());
    let target = shares.target();
    (0..shares.count).into_par_iter().evenly().for_each(|share| {
        with_scratch(|buffer, gradients| {
            let buffer = buffer.scratch(strips.len());
            let gradients = gradients.scratch(MOST * strips.rows * strips.columns);
            for index in shares.range(share, count) {
                let strip = strips.get(index);
                strips.pad(source, strip, buffer);
                let (outputs, sums) = (shape.outputs, share * shares.pitch);
                #[rustfmt::skip]
                isa.run(GradientRows { strips, strip, outputs, gradient, target, sums, buffer, gradients });
            }
        });
    });
    for (weight, lanes) in weight.iter_mut().zip(shares.sum().chunks_exact(isa.lanes())) {
        *weight = lanes.iter().sum();
    }
}

/// Outputs of a register tile, at most.
const MOST: usize = 8;

/// Outputs of a register tile: three sums for each, and the inputs and a gradient, in 16 registers or 32.
const fn most<S: Simd>() -> usize {
    if S::CHANNEL_TILE == MOST { MOST } else { 3 }
}

/// A strip.
struct GradientRows<'a> {
    strips: Strips,
    strip: Strip,
    outputs: usize,
    gradient: Source<'a>,
    target: Target,
    /// Where the share's sums begin: `[output][input][tap][lane]`.
    sums: usize,
    /// What the strip reads.
    buffer: &'a [f32],
    /// Room for the gradients of a tile's outputs: `[output][row][column]`.
    gradients: &'a mut [f32],
}

impl Task for GradientRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let strips = self.strips;
        assert!(self.buffer.len() >= strips.len(), "what a strip reads");
        assert!(self.strip.rows <= strips.rows, "a strip's rows");
        assert!(strips.columns.is_multiple_of(S::LANES), "whole vectors");
        let room = self.gradients.len() >= MOST * strips.rows * strips.columns;
        assert!(room, "room for a tile's gradients");
        let mut output = 0;
        while output < self.outputs {
            let left = (self.outputs - output).min(most::<S>());
            let count = [8, 3, 2].into_iter().find(|count| *count <= left).unwrap_or(1);
            self.copy(output, count);
            for rows in 0..9 * strips.inputs {
                // SAFETY: the gradients of `count` outputs were copied; there are nine rows of taps
                // for each input, and all of them lie in the buffer, as asserted.
                unsafe {
                    match count {
                        8 => self.tile::<S, 8>(simd, output, rows),
                        3 => self.tile::<S, 3>(simd, output, rows),
                        2 => self.tile::<S, 2>(simd, output, rows),
                        _ => self.tile::<S, 1>(simd, output, rows),
                    }
                }
            }
            output += count;
        }
    }
}

impl GradientRows<'_> {
    /// Copies the gradients of some outputs, zero behind the end of a row: volumes lie at powers of two
    /// from each other, where their rows would push one another out of the first cache.
    #[inline(always)]
    fn copy(&mut self, first: usize, count: usize) {
        let Self { strips, strip, gradient, .. } = self;
        let [_, size_y, size_x] = strips.size;
        for output in 0..count {
            let volume = gradient.channel(strip.sample, first + output);
            let from = (strip.z * size_y + strip.y) * size_x;
            let rows = volume[from..][..strip.rows * size_x].chunks_exact(size_x);
            let to = &mut self.gradients[output * strips.rows * strips.columns..];
            for (to, row) in to.chunks_exact_mut(strips.columns).zip(rows) {
                to[..size_x].copy_from_slice(row);
                to[size_x..].fill(0.0);
            }
        }
    }

    /// The three taps of one row of the kernel for `OUTPUTS` outputs, summed over the strip in
    /// registers.
    ///
    /// # Safety
    /// The gradients of so many outputs were copied; `rows` is one of `[input][tap along z][tap along
    /// y]`; the share's sums are this thread's alone.
    #[inline(always)]
    unsafe fn tile<S: Simd, const OUTPUTS: usize>(&self, simd: S, output: usize, rows: usize) {
        let Self { strips, strip, .. } = self;
        let mut sums = [[simd.zero(); 3]; OUTPUTS];
        // SAFETY: every address below is one the caller promised.
        unsafe {
            let first = rows / 3 * strips.plane_len() + rows % 3 * strips.pitch();
            for row in 0..strip.rows {
                let from = self.buffer.as_ptr().add(first + row * strips.pitch());
                let gradients = self.gradients.as_ptr().add(row * strips.columns);
                for column in (0..strips.columns).step_by(S::LANES) {
                    let mut inputs = [simd.zero(); 3];
                    for (tap, input) in inputs.iter_mut().enumerate() {
                        *input = simd.load(from.add(column + tap));
                    }
                    for (o, sums) in sums.iter_mut().enumerate() {
                        let gradient = gradients.add(o * strips.rows * strips.columns + column);
                        let gradient = simd.load(gradient);
                        for (sum, input) in sums.iter_mut().zip(inputs) {
                            *sum = simd.multiply_add(gradient, input, *sum);
                        }
                    }
                }
            }
            for (o, sums) in sums.iter().enumerate() {
                let weight = ((output + o) * 9 * strips.inputs + rows) * 3;
                for (tap, sum) in sums.iter().enumerate() {
                    let to = self.target.at(self.sums + (weight + tap) * S::LANES);
                    simd.store(to, simd.add(simd.load(to), *sum));
                }
            }
        }
    }
}
