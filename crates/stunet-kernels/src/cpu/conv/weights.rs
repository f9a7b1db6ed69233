//! Weights in the order the kernels read them.
//!
//! Packed: `[pass][block of outputs][block of inputs][tap of the pass][input][output of the block]`.
//! A block of outputs is one or two vectors wide and filled up with zeros.

use super::ends::{Direction, Work};
use super::geometry::{CHANNELS, Sweep};
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::{Output, Target};
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;

/// Where a kernel `[Cout, Cin, 3, 3, 3]` holds the weight of an output and an input of a sweep.
#[derive(Clone, Copy)]
pub(super) struct Order {
    pub output: usize,
    pub input: usize,
}

impl Order {
    /// A convolution writes the kernel's outputs, the gradient of its input the kernel's inputs.
    pub(super) fn new(direction: Direction, inputs: usize) -> Self {
        match direction {
            Direction::Forward => Self { output: inputs * 27, input: 27 },
            Direction::InputGradient => Self { output: 27, input: inputs * 27 },
        }
    }
}

/// Outputs of a block: two vectors, or one where no more are needed.
pub(super) fn block_width(isa: Isa, outputs: usize) -> usize {
    if outputs <= isa.lanes() { isa.lanes() } else { 2 * isa.lanes() }
}

/// The layout of packed weights.
#[derive(Clone, Copy)]
pub(super) struct Packing {
    /// Outputs of a block.
    pub width: usize,
    /// Blocks of outputs.
    pub blocks: usize,
    inputs: usize,
}

impl Packing {
    pub(super) fn new(isa: Isa, outputs: usize, inputs: usize) -> Self {
        let width = block_width(isa, outputs);
        Self { width, blocks: outputs.div_ceil(width), inputs }
    }

    /// Values of one block of outputs in a pass of `taps` taps.
    pub(super) fn block_len(&self, taps: usize) -> usize {
        self.inputs * taps * self.width
    }

    /// Values of all passes.
    pub(super) fn len(&self, sweep: &Sweep) -> usize {
        sweep.passes.iter().map(|pass| self.blocks * self.block_len(pass.taps.len())).sum()
    }

    /// First value of a block of outputs in a pass.
    pub(super) fn start(&self, sweep: &Sweep, pass: usize, block: usize) -> usize {
        let before: usize = sweep.passes[..pass].iter().map(|pass| pass.taps.len()).sum();
        self.blocks * self.block_len(before) + block * self.block_len(sweep.passes[pass].taps.len())
    }

    /// First value, in its block of outputs, of tap `tap` (of `taps`) and input block `block`.
    pub(super) fn segment(&self, block: usize, channels: usize, tap: usize, taps: usize) -> usize {
        (block * CHANNELS * taps + tap * channels) * self.width
    }
}

/// Packs the weights for `sweep`.
pub(super) fn pack(isa: Isa, sweep: &Sweep, packing: Packing, work: &Work<'_>) -> Output {
    let weight = work.weight;
    let order = Order::new(work.direction, work.shape.inputs);
    let mut packed = Output::new(packing.len(sweep));
    let target = packed.target();
    let tasks = packing.blocks * sweep.blocks();
    (0..tasks).into_par_iter().evenly().for_each(|task| {
        let (output, input) = (task / sweep.blocks(), task % sweep.blocks());
        isa.run(PackForStrips { sweep, packing, weight, order, output, input, target });
    });
    packed
}

/// One block of outputs and one of inputs.
struct PackForStrips<'a> {
    sweep: &'a Sweep,
    packing: Packing,
    weight: &'a [f32],
    order: Order,
    output: usize,
    input: usize,
    target: Target,
}

impl Task for PackForStrips<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { sweep, packing, weight, order, output, input, target } = self;
        let width = packing.width;
        let channels = sweep.channels(input);
        // All taps of one input channel, outputs innermost.
        let mut taps = [[0f32; 32]; 27];
        assert!(width <= 32, "a block of outputs is at most 32 wide");
        for channel in 0..channels {
            let from = (input * CHANNELS + channel) * order.input;
            transpose(
                simd,
                weight,
                from,
                order.output,
                sweep.outputs - output * width,
                output * width,
                width,
                &mut taps,
            );
            for (index, pass) in sweep.passes.iter().enumerate() {
                let start = packing.start(sweep, index, output);
                for (tap, found) in pass.taps.iter().enumerate() {
                    let at = start
                        + packing.segment(input, channels, tap, pass.taps.len())
                        + channel * width;
                    // SAFETY: the place of these weights in a buffer of `packing.len` values; no
                    // other task has the same blocks.
                    unsafe { target.slice(at, width) }
                        .copy_from_slice(&taps[found.kernel][..width]);
                }
            }
        }
    }
}

/// `taps[tap][o]` of outputs `first..`, as many of `width` as there are `left`; the others are zero.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn transpose<S: Simd>(
    simd: S,
    weight: &[f32],
    from: usize,
    stride: usize,
    left: usize,
    first: usize,
    width: usize,
    taps: &mut [[f32; 32]; 27],
) {
    for o in (0..width).step_by(8) {
        if o + 8 <= left {
            let rows: [&[f32]; 8] =
                std::array::from_fn(|i| &weight[from + (first + o + i) * stride..][..27]);
            // The last block overlaps the one before: 27 is no multiple of 8.
            for tap in [0, 8, 16, 19] {
                let to: [*mut f32; 8] =
                    std::array::from_fn(|i| taps[tap + i][o..o + 8].as_mut_ptr());
                // SAFETY: `tap + 8` is at most 27, the length of each row; each place has 8 values.
                unsafe { simd.transpose(std::array::from_fn(|i| rows[i].as_ptr().add(tap)), to) };
            }
        } else {
            for i in o..o + 8 {
                for (tap, row) in taps.iter_mut().enumerate() {
                    let known = i < left;
                    row[i] = if known { weight[from + (first + i) * stride + tap] } else { 0.0 };
                }
            }
        }
    }
}

/// The inverse of packing for one pass of 27 taps: `[Cout, Cin, 3, 3, 3]`.
pub(super) fn unpack(sweep: &Sweep, packing: Packing, packed: &[f32], weight: &mut [f32]) {
    weight.par_chunks_mut(sweep.inputs * 27).evenly().enumerate().for_each(|(output, weight)| {
        let block = &packed[packing.start(sweep, 0, output / packing.width)..];
        for (input, taps) in weight.chunks_mut(27).enumerate() {
            let channels = sweep.channels(input / CHANNELS);
            for (tap, value) in taps.iter_mut().enumerate() {
                let at = packing.segment(input / CHANNELS, channels, tap, 27)
                    + input % CHANNELS * packing.width
                    + output % packing.width;
                *value = block[at];
            }
        }
    });
}
