//! Direct convolution with 3×3×3 kernels, and 1×1×1 convolution as a matrix product.
//!
//! Tensors are `[N, C, Z, Y, X]` on both sides. Between them a task works on a *strip*: a few output
//! rows of a few output planes. It copies the input rows these need, with their halo, into a buffer
//! where the channels lie innermost (`gather`), sweeps register tiles of voxels × output
//! channels over it (`tile`), and copies the sums out (`forward`). The buffer stays in the second
//! cache, so that changing the layout costs a few percent and no padded copy of the input exists.
//!
//! Two kinds of convolution go other ways: by minimal filtering (`winograd`), which needs fewer products,
//! and, where there are few input channels, along the rows as they lie (`few`).
//!
//! In the buffer a strided convolution is a plain one: input rows and columns are dealt out by their
//! remainder modulo the stride, so that every tap reads neighbours. And a transposed convolution,
//! the gradient of the input, is one plain convolution per remainder of the output, with the taps
//! that reach it. Both facts are in `geometry`; the kernels know neither stride nor direction.

mod backward;
mod ends;
mod few_channels;
mod forward;
mod gather;
mod geometry;
mod pointwise;
mod shares;
mod tile;
mod weights;
mod winograd;

pub(crate) use backward::bias_gradient;
pub(crate) use pointwise::{
    add_pointwise_rows, can_overwrite, pointwise, pointwise_input_gradient, pointwise_over,
    pointwise_over_repeated, pointwise_repeated, pointwise_rows, pointwise_weight_gradient,
};

use super::kept_weights::KeptWeight;
use super::memory::Output;
use super::norm::Normed;
use super::simd::Isa;
use crate::Algorithm;
use ends::{Direction, Sink, Source, Work};
use std::sync::Arc;

/// Values of an output that no cache holds: it is written past them.
const STREAMED: usize = 1 << 23;

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Samples.
    pub batch: usize,
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Input voxels of each axis.
    pub size: [usize; 3],
    /// Stride of each axis.
    pub stride: [usize; 3],
}

impl Shape {
    /// Output voxels of each axis.
    pub(crate) fn out_size(&self) -> [usize; 3] {
        std::array::from_fn(|axis| self.size[axis].div_ceil(self.stride[axis]))
    }
}

/// How a convolution with a kernel of `kernel` voxels along each axis is computed.
pub(crate) fn algorithm(shape: &Shape, kernel: usize) -> Algorithm {
    match kernel {
        1 => Algorithm::Pointwise,
        _ if winograd::pays(shape) => Algorithm::Winograd,
        _ => Algorithm::Direct,
    }
}

/// The convolution of the concatenation of `parts`, with bias.
///
/// `[N, Cout, ..]` from parts `[N, C1, ..]`, `[N, C2, ..]`, ... and `weight`
/// `[Cout, C1 + C2 + .., 3, 3, 3]`.
pub(crate) fn forward(
    isa: Isa,
    shape: &Shape,
    parts: &[(&[f32], usize)],
    (weight, kept): (&[f32], Option<&Arc<KeptWeight>>),
    bias: &[f32],
) -> Output {
    assert_eq!(weight.len(), shape.outputs * shape.inputs * 27, "a kernel holds 27 taps");
    assert_eq!(bias.len(), shape.outputs, "a bias for each output");
    let source = Source::new(parts, [shape.batch, shape.inputs, voxels(shape.size)]);
    let (mut outputs, sink) = Sink::create(&[shape.outputs], shape.batch, voxels(shape.out_size()));
    let (direction, bias) = (Direction::Forward, Some(bias));
    let work = Work { shape, direction, source, weight, kept, bias, sink };
    if winograd::pays(shape) {
        winograd::run(isa, &work);
    } else if few_channels::pays(shape) {
        few_channels::forward(isa, &work);
    } else {
        forward::run(isa, &work);
    }
    outputs.pop().expect("one was created")
}

/// Bytes of weights that are kept for a convolution of one sample, and of these weights as they are read.
pub(crate) fn kept_weight_cost(
    [outputs, inputs]: [usize; 2],
    size: [usize; 3],
    stride: [usize; 3],
) -> u64 {
    let shape = Shape { batch: 1, inputs, outputs, size, stride };
    let taps = match winograd::tile(&shape) {
        Some(tile) => tile.frequencies(),
        None if few_channels::pays(&shape) => return 0,
        None => 27,
    };
    let width = weights::block_width(Isa::best(), outputs);
    let read = taps * outputs.next_multiple_of(width) * inputs;
    ((read + 27 * outputs * inputs) * size_of::<f32>()) as u64
}

/// What a convolution does beside its sums, where its shape [is fit for it](fuses).
#[derive(Clone, Copy, Default)]
pub(crate) struct Fused<'a> {
    /// By what whole factors the voxels of the first part are repeated while they are read; none is as it is.
    pub repeats: Option<[usize; 3]>,
    /// Whether the channels of the input lie innermost.
    pub reads_innermost: bool,
    /// A norm of the input, with its activation.
    pub normed: Option<&'a Normed>,
    /// Whether the channels of the output are to lie innermost.
    pub writes_innermost: bool,
}

/// Whether [`forward_fused`] computes a convolution.
pub(crate) fn fuses(shape: &Shape, kernel: usize) -> bool {
    algorithm(shape, kernel) == Algorithm::Winograd
}

/// Whether a tensor of so many channels can be written with these innermost, and read again.
pub(crate) fn can_be_innermost(channels: usize) -> bool {
    // Whole blocks of outputs, for all vectors, and of inputs.
    channels.is_multiple_of(if channels > 16 { 32 } else { 16 })
}

/// Whether the voxels of a first part of so many channels can be repeated while they are read.
pub(crate) fn can_repeat(shape: &Shape, repeats: [usize; 3], channels: usize) -> bool {
    // Eight channels are read at a time.
    channels.is_multiple_of(8) && (0..3).all(|axis| shape.size[axis].is_multiple_of(repeats[axis]))
}

/// [`forward`] with what else is to be done, and of each channel of each sample of the output the sum of its values
/// and that of their squares.
pub(crate) fn forward_fused(
    isa: Isa,
    shape: &Shape,
    parts: &[(&[f32], usize)],
    (weight, kept): (&[f32], Option<&Arc<KeptWeight>>),
    bias: &[f32],
    fused: Fused<'_>,
) -> (Output, Vec<[f64; 2]>) {
    assert!(fuses(shape, 3), "a shape for which tiles pay");
    assert_eq!(weight.len(), shape.outputs * shape.inputs * 27, "a kernel holds 27 taps");
    assert_eq!(bias.len(), shape.outputs, "a bias for each output");
    let Fused { repeats, reads_innermost, normed, writes_innermost } = fused;
    assert!(!reads_innermost || can_be_innermost(shape.inputs), "whole blocks of inputs");
    assert!(!writes_innermost || can_be_innermost(shape.outputs), "whole blocks of outputs");
    assert!(repeats.is_none_or(|repeats| can_repeat(shape, repeats, parts[0].1)), "whole repeats");
    let sizes = [shape.batch, shape.inputs, voxels(shape.size)];
    let mut source = Source::repeated(parts, sizes, repeats.unwrap_or([1; 3]));
    (source.innermost, source.normed) = (reads_innermost, normed);
    let (mut outputs, mut sink) =
        Sink::create(&[shape.outputs], shape.batch, voxels(shape.out_size()));
    sink.innermost = writes_innermost;
    let (direction, bias) = (Direction::Forward, Some(bias));
    let work = Work { shape, direction, source, weight, kept, bias, sink };
    let moments = winograd::run_measured(isa, &work);
    (outputs.pop().expect("one was created"), moments)
}

/// The gradient of each part of the input, which have `parts` channels.
pub(crate) fn input_gradient(
    isa: Isa,
    shape: &Shape,
    gradient: &[f32],
    weight: &[f32],
    parts: &[usize],
) -> Vec<Output> {
    assert_eq!(weight.len(), shape.outputs * shape.inputs * 27, "a kernel holds 27 taps");
    assert_eq!(parts.iter().sum::<usize>(), shape.inputs, "channels written");
    let read = [(gradient, shape.outputs)];
    let source = Source::new(&read, [shape.batch, shape.outputs, voxels(shape.out_size())]);
    let (outputs, sink) = Sink::create(parts, shape.batch, voxels(shape.size));
    let direction = Direction::InputGradient;
    let work = Work { shape, direction, source, weight, kept: None, bias: None, sink };
    if winograd::pays_for_gradients(shape) {
        winograd::run(isa, &work);
    } else {
        forward::run(isa, &work);
    }
    outputs
}

/// The gradient of the weights, `[Cout, Cin, 3, 3, 3]`.
pub(crate) fn weight_gradient(
    isa: Isa,
    shape: &Shape,
    parts: &[(&[f32], usize)],
    gradient: &[f32],
) -> Output {
    let source = Source::new(parts, [shape.batch, shape.inputs, voxels(shape.size)]);
    let read = [(gradient, shape.outputs)];
    let gradient = Source::new(&read, [shape.batch, shape.outputs, voxels(shape.out_size())]);
    let mut weight = Output::new(shape.outputs * shape.inputs * 27);
    let compute = if winograd::pays_for_gradients(shape) {
        winograd::weight_gradient
    } else if few_channels::pays(shape) {
        few_channels::weight_gradient
    } else {
        backward::weight_gradient
    };
    compute(isa, shape, source, gradient, weight.values_mut());
    weight
}

/// Voxels of a volume.
pub(crate) fn voxels(size: [usize; 3]) -> usize {
    size.into_iter().product()
}

#[cfg(test)]
mod tests;
