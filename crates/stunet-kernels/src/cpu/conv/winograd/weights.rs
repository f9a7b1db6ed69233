//! Kernels and their gradients between PyTorch's layout and that of the products.
//!
//! Transformed: `[frequency][block of outputs][input][output of the block]`; gradients
//! `[block of outputs][block of inputs][frequency][input of the block][output of the block]`. A block
//! of outputs is one or two vectors wide and filled up with zeros.

use super::boxes::Tile;
use super::transform::{MOST, transform_kernel, transform_kernel_gradient};
use crate::cpu::conv::ends::{Direction, Work};
use crate::cpu::conv::geometry::CHANNELS;
use crate::cpu::conv::weights::{Order, block_width, transpose};
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::{Output, Target};
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;

/// Input channels a task transforms.
const INPUTS: usize = CHANNELS;

/// Sizes of transformed kernels.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub tile: Tile,
    pub inputs: usize,
    pub outputs: usize,
    /// Outputs of a block.
    pub width: usize,
    /// Blocks of outputs.
    pub blocks: usize,
}

impl Layout {
    pub(super) fn new(isa: Isa, tile: Tile, inputs: usize, outputs: usize) -> Self {
        let width = block_width(isa, outputs);
        Self { tile, inputs, outputs, width, blocks: outputs.div_ceil(width) }
    }

    /// Values of one frequency of one block of outputs.
    pub(super) fn block_len(&self) -> usize {
        self.inputs * self.width
    }

    /// Values of all frequencies.
    pub(super) fn len(&self) -> usize {
        self.tile.frequencies() * self.blocks * self.block_len()
    }
}

/// Transforms the weights, mirrored for the gradient of the input.
pub(super) fn pack(isa: Isa, layout: Layout, work: &Work<'_>) -> Output {
    let Work { shape, direction, weight, .. } = *work;
    let order = Order::new(direction, shape.inputs);
    let mirrored = direction == Direction::InputGradient;
    let mut packed = Output::new(layout.len());
    let target = packed.target();
    let groups = layout.inputs.div_ceil(INPUTS);
    (0..layout.blocks * groups).into_par_iter().evenly().for_each(|task| {
        let (block, group) = (task / groups, task % groups);
        isa.run(PackForBoxes { layout, weight, order, mirrored, block, group, target });
    });
    packed
}

struct PackForBoxes<'a> {
    layout: Layout,
    weight: &'a [f32],
    order: Order,
    mirrored: bool,
    block: usize,
    group: usize,
    target: Target,
}

impl Task for PackForBoxes<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { layout, weight, order, mirrored, block, group, target } = self;
        let Layout { tile, inputs, outputs, width, blocks } = layout;
        let mut taps = [[0f32; 32]; 27];
        let mut frequencies = [simd.zero(); MOST];
        assert!(width <= 32, "a block of outputs is at most 32 wide");
        for input in group * INPUTS..inputs.min((group + 1) * INPUTS) {
            let first = block * width;
            let from = input * order.input;
            transpose(simd, weight, from, order.output, outputs - first, first, width, &mut taps);
            for part in (0..width).step_by(S::LANES) {
                let mut vectors = [simd.zero(); 27];
                for (tap, vector) in vectors.iter_mut().enumerate() {
                    let tap = &taps[if mirrored { 26 - tap } else { tap }];
                    // SAFETY: `part` is below `width`, a multiple of the lanes, and that at most 32.
                    *vector = unsafe { simd.load(tap.as_ptr().add(part)) };
                }
                transform_kernel(simd, tile, &vectors, &mut frequencies);
                for (frequency, value) in frequencies[..tile.frequencies()].iter().enumerate() {
                    let at = ((frequency * blocks + block) * inputs + input) * width + part;
                    // SAFETY: a place in a buffer of `layout.len()` values that no other task has.
                    unsafe { simd.store(target.at(at), *value) };
                }
            }
        }
    }
}

/// The gradient of the weights, `[Cout, Cin, 27]`, from that of the transformed ones.
pub(super) fn unpack(isa: Isa, layout: Layout, gradient: &[f32], weight: &mut [f32]) {
    let Layout { tile, inputs, width, .. } = layout;
    let len = inputs * tile.frequencies() * width;
    let blocks = weight.par_chunks_mut(width * inputs * 27).evenly();
    blocks.zip(gradient.par_chunks(len)).for_each(|(weight, gradient)| {
        isa.run(Unpack { layout, gradient, weight });
    });
}

/// One block of outputs.
struct Unpack<'a> {
    layout: Layout,
    gradient: &'a [f32],
    weight: &'a mut [f32],
}

impl Task for Unpack<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { layout: Layout { tile, inputs, width, .. }, gradient, weight } = self;
        let all = tile.frequencies();
        assert_eq!(gradient.len(), inputs * all * width, "all inputs' frequencies");
        for input in 0..inputs {
            let (first, at) = (input / CHANNELS * CHANNELS, input % CHANNELS);
            let channels = (inputs - first).min(CHANNELS);
            let mut taps = [[0f32; 32]; 27];
            for part in (0..width).step_by(S::LANES) {
                let mut vectors = [simd.zero(); MOST];
                for (frequency, vector) in vectors[..all].iter_mut().enumerate() {
                    let row = first * all + frequency * channels + at;
                    // SAFETY: `row` is below the number of rows of `width` values, asserted above.
                    *vector = unsafe { simd.load(gradient.as_ptr().add(row * width + part)) };
                }
                let found = transform_kernel_gradient(simd, tile, &vectors);
                for (tap, value) in taps.iter_mut().zip(found) {
                    // SAFETY: `part` is below `width`, a multiple of the lanes, and that at most 32.
                    unsafe { simd.store(tap.as_mut_ptr().add(part), value) };
                }
            }
            for (output, weight) in weight.chunks_mut(inputs * 27).enumerate() {
                let to = &mut weight[input * 27..][..27];
                to.iter_mut().zip(&taps).for_each(|(to, tap)| *to = tap[output]);
            }
        }
    }
}
