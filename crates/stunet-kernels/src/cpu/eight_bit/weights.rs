//! Weights in eight bits, made anew for every input: its scales are multiplied into them.

use super::lanes::{DotProducts, LANES, Lanes, WEIGHTS, Work};
use super::volume::{Coding, Layout, chunk};
use crate::cpu::evenly::Evenly;
use rayon::prelude::*;

/// Most that a weight in eight bits may be.
const MOST_WEIGHT: usize = 127;
/// Most that a code may be.
const MOST_CODE: usize = 255;

/// A convolution whose products are formed in eight bits.
///
/// Its input is one volume, or several whose channels follow one another.
pub struct EightBitConv {
    /// Channels of each part of the input.
    parts: Vec<usize>,
    outputs: usize,
    /// 1 or 3 voxels along each axis.
    pub(super) kernel: usize,
    pub(super) layout: Layout,
    /// `[block][part][tap][four inputs][vector][input of four][output]`.
    weights: Vec<f32>,
    /// The largest weight of each input and output, `[block][input][output of the block]`.
    largest: Vec<f32>,
    /// `[output]`.
    bias: Vec<f32>,
}

/// Weights for one input.
pub(super) struct Packed {
    /// As [`EightBitConv`] has them, without the four inputs of an output lying apart.
    pub weights: Vec<i8>,
    /// What the sum of an output is worth.
    pub scale: Vec<f32>,
    /// What the codes of zero add to a sum.
    pub correction: Vec<i32>,
}

impl EightBitConv {
    /// A convolution with `weight` `[Cout, Cin, K, K, K]`, where `K` is 1 or 3, and `bias` `[Cout]`, of an input whose
    /// parts have `parts` channels.
    ///
    /// # Panics
    /// When lengths do not fit, or a sum of products might not fit 32 bits, which is beyond 60 000 inputs.
    pub fn new(weight: &[f32], bias: &[f32], parts: &[usize], kernel: usize) -> Self {
        let (outputs, taps) = (bias.len(), kernel.pow(3));
        let inputs: usize = parts.iter().sum();
        assert!(matches!(kernel, 1 | 3), "a kernel of 1 or 3 voxels along each axis");
        assert_eq!(weight.len(), outputs * inputs * taps, "a weight for each product");
        assert!(most_weight(inputs * taps) > 0, "{inputs} inputs are too many for sums of 32 bits");
        let layout = Layout::of(outputs);
        let (parts, bias) = (parts.to_vec(), bias.to_vec());
        let mut conv =
            Self { parts, outputs, kernel, layout, weights: Vec::new(), largest: Vec::new(), bias };
        conv.weights = conv.in_order(weight);
        conv.largest = conv.largest_of(weight);
        conv
    }

    /// Output channels.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        let values = self.weights.len() + self.largest.len() + self.bias.len();
        (values * size_of::<f32>()) as u64
    }

    fn taps(&self) -> usize {
        self.kernel.pow(3)
    }

    /// Input channels of each part in whole vectors.
    fn padded_parts(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|channels| channels.next_multiple_of(LANES))
    }

    /// All of them.
    fn padded_inputs(&self) -> usize {
        self.padded_parts().sum()
    }

    /// Bytes of the weights of a block of outputs.
    pub(super) fn block_len(&self) -> usize {
        self.padded_inputs() * self.taps() * self.layout.block
    }

    fn in_order(&self, weight: &[f32]) -> Vec<f32> {
        let (taps, inputs) = (self.taps(), self.parts.iter().sum::<usize>());
        let mut to = Vec::with_capacity(self.layout.blocks() * self.block_len());
        for block in 0..self.layout.blocks() {
            let mut first = 0;
            for (part, padded) in self.parts.iter().zip(self.padded_parts()) {
                for tap in 0..taps {
                    for (four, vector) in product(padded / 4, self.layout.vectors()) {
                        for (of_four, lane) in product(4, LANES) {
                            let input = four * 4 + of_four;
                            let output = block * self.layout.block + vector * LANES + lane;
                            let there = input < *part && output < self.outputs;
                            let at = (output * inputs + first + input) * taps + tap;
                            to.push(if there { weight[at] } else { 0.0 });
                        }
                    }
                }
                first += part;
            }
        }
        to
    }

    fn largest_of(&self, weight: &[f32]) -> Vec<f32> {
        let (taps, inputs) = (self.taps(), self.parts.iter().sum::<usize>());
        let mut to = Vec::with_capacity(self.layout.channels * self.padded_inputs());
        for block in 0..self.layout.blocks() {
            let mut first = 0;
            for (part, padded) in self.parts.iter().zip(self.padded_parts()) {
                for (input, lane) in product(padded, self.layout.block) {
                    let output = block * self.layout.block + lane;
                    let there = input < *part && output < self.outputs;
                    let at = (output * inputs + first + input) * taps;
                    let largest =
                        |taps: &[f32]| taps.iter().fold(0f32, |most, w| most.max(w.abs()));
                    to.push(if there { largest(&weight[at..][..taps]) } else { 0.0 });
                }
                first += part;
            }
        }
        to
    }

    /// Of each output, in whole vectors.
    pub(super) fn bias(&self) -> Vec<f32> {
        let mut bias = self.bias.clone();
        bias.resize(self.layout.channels, 0.0);
        bias
    }

    /// A power of two by which every sum fits half precision.
    pub(super) fn unit(&self) -> f32 {
        let most = MOST_CODE * MOST_WEIGHT * self.taps() * self.parts.iter().sum::<usize>();
        let bits = usize::BITS - most.leading_zeros();
        0.5f32.powi(bits.saturating_sub(15).cast_signed())
    }

    /// The weights for an input whose parts have these codings.
    ///
    /// # Panics
    /// When the parts have other channels than the convolution.
    pub(super) fn pack(&self, dots: DotProducts, codings: &[&[Coding]]) -> Packed {
        assert!(
            codings.iter().map(|of| of.len()).eq(self.padded_parts()),
            "parts of other channels than the convolution's, {:?}",
            self.parts
        );
        let codings: Vec<_> = codings.iter().copied().flatten().copied().collect();
        let inputs = self.parts.iter().sum::<usize>();
        let most = most_weight(inputs * self.taps()) as f32;
        let (length, block) = (self.block_len(), self.layout.block);
        let mut weights = vec![0i8; self.weights.len()];
        let mut scale = vec![0f32; self.layout.channels];
        let mut correction = vec![0i32; self.layout.channels];
        let blocks =
            weights.par_chunks_exact_mut(length).zip(self.weights.par_chunks_exact(length));
        let sums = scale.par_chunks_exact_mut(block).zip(correction.par_chunks_exact_mut(block));
        let largest = self.largest.par_chunks_exact(self.padded_inputs() * block);
        blocks.zip(sums).zip(largest).evenly().for_each(|(((to, from), sums), largest)| {
            let parts = self.padded_parts().collect::<Vec<_>>();
            let (scale, correction) = sums;
            let codings = codings.as_slice();
            let taps = self.taps();
            dots.run(Pack {
                parts: &parts,
                taps,
                codings,
                from,
                largest,
                most,
                to,
                scale,
                correction,
            });
        });
        Packed { weights, scale, correction }
    }
}

/// The largest weight for which no sum of so many products leaves 32 bits.
fn most_weight(products: usize) -> usize {
    MOST_WEIGHT.min(i32::MAX as usize / (MOST_CODE * products.max(1)))
}

impl Layout {
    /// Channels in whole vectors, and in blocks as wide as register tiles.
    pub(super) fn of(channels: usize) -> Self {
        let channels = channels.next_multiple_of(LANES);
        let vectors = channels / LANES;
        let block = LANES
            * if vectors.is_multiple_of(4) && vectors > 8 {
                4
            } else if vectors.is_multiple_of(2) {
                2
            } else {
                1
            };
        Self { channels, block }
    }
}

fn product(outer: usize, inner: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..outer).flat_map(move |outer| (0..inner).map(move |inner| (outer, inner)))
}

/// Packs one block.
struct Pack<'a> {
    parts: &'a [usize],
    taps: usize,
    codings: &'a [Coding],
    from: &'a [f32],
    largest: &'a [f32],
    most: f32,
    to: &'a mut [i8],
    scale: &'a mut [f32],
    correction: &'a mut [i32],
}

impl Work for Pack<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let block = self.scale.len();
        for (coding, largest) in self.codings.iter().zip(self.largest.chunks_exact(block)) {
            for (scale, largest) in self.scale.iter_mut().zip(largest) {
                *scale = scale.max(largest * coding.scale);
            }
        }
        let mut inverse = [0f32; 4 * LANES];
        for (inverse, scale) in inverse.iter_mut().zip(self.scale.iter_mut()) {
            *scale /= self.most;
            *inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
        }
        let vectors = block / LANES;
        let mut sums = [lanes.no_sums(); 4];
        let (from, to) = (self.from.as_chunks::<WEIGHTS>().0, self.to.as_chunks_mut::<WEIGHTS>().0);
        let (mut first, mut at) = (0, 0);
        for part in self.parts {
            let codings = &self.codings[first..first + part];
            for _ in 0..self.taps {
                for four in codings.as_chunks::<4>().0 {
                    let zeros = four.map(|coding| coding.zero);
                    // SAFETY: four bytes.
                    let zeros = unsafe { lanes.codes(zeros.as_ptr()) };
                    for vector in 0..vectors {
                        let inverse = lanes.load(chunk(&inverse[vector * LANES..]));
                        let rows = from[at].as_chunks::<LANES>().0;
                        let mut values = [inverse; 4];
                        for ((value, coding), row) in values.iter_mut().zip(four).zip(rows) {
                            let scaled = lanes.multiply(lanes.load(row), lanes.splat(coding.scale));
                            *value = lanes.multiply(scaled, inverse);
                        }
                        let weights = lanes.to_weights(values);
                        sums[vector] = lanes.dot(sums[vector], zeros, weights);
                        lanes.store_weights(&mut to[at], weights);
                        at += 1;
                    }
                }
            }
            first += part;
        }
        let corrections = self.correction.as_chunks_mut::<LANES>().0;
        for (to, sums) in corrections.iter_mut().zip(sums) {
            lanes.store_sums(to, sums);
        }
    }
}
