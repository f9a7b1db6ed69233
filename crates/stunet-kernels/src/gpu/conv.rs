//! Convolutions: from tensors to launches.

mod job;
mod kernels;
mod measure;
mod place;
mod shape;
mod transposed;
mod weight_gradient;
mod weights;

use super::launch::{
    Kernel, channels_last, contiguous, dims, elem, elements, empty, empty_f32, strides, tensor,
};
use super::norm;
use super::tiles::Tile;
use crate::kernels::{ConvolvedResidual, NormParameters};
use burn::tensor::DType;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;
use job::Job;
use shape::shape_of;
use std::ops::Range;
use weights::{OrderLaunch, arrange};

pub(super) use shape::Shape;
pub(super) use weight_gradient::weight_gradient;

/// How a convolution is put together with what is before and behind it.
pub(super) struct Around {
    /// How often each voxel of the first part is repeated along each axis.
    pub factor: [usize; 3],
    /// Statistics that the one part is normed by.
    pub reads_by: Option<CubeTensor>,
    /// What is normed and added to the result, `[N, Z, Y, X, C]`, and its statistics.
    pub added: Option<[CubeTensor; 2]>,
    /// Of the activation behind either norm.
    pub slope: f64,
    /// Whether the moments of the output are wanted.
    pub measured: bool,
}

impl Default for Around {
    fn default() -> Self {
        Self { factor: [1; 3], reads_by: None, added: None, slope: 1.0, measured: false }
    }
}

/// The convolution of the concatenation of one or two parts, with bias; and the moments of the output,
/// `[N, tiles, C, 3]`, if they are wanted and the tile has room for them.
pub(super) fn forward(
    parts: Vec<CubeTensor>,
    weight: &CubeTensor,
    bias: CubeTensor,
    stride: [usize; 3],
    around: Around,
) -> (CubeTensor, Option<CubeTensor>) {
    let Around { factor, reads_by, added, slope, measured } = around;
    let mut shape = shape_of(&parts, weight, stride);
    shape.size = std::array::from_fn(|axis| shape.size[axis] * factor[axis]);
    let Shape { samples, inputs, outputs, kernel, .. } = shape;
    let [z, y, x] = shape.out_size();
    let tile = Tile::new(kernel, stride, outputs, samples, [z, y, x]).expect("asked before: fits");
    let parts: Vec<_> = parts.into_iter().map(channels_last).collect();
    let (rows, columns) = (inputs, outputs);
    let arrangement = Arrangement { rows, columns, from: 0, to_inputs: false, flipped: false };
    let arranged = arrangement.apply(weight, tile.channels());
    let output = empty(&parts[0], [samples, z, y, x, outputs]);
    let tiles = tile.tiles([z, y, x]).iter().product();
    let moments =
        (measured && tile.measures()).then(|| empty_f32(&output, [samples, tiles, outputs, 3]));
    let name = if added.is_some() { "conv_norm" } else { "conv" };
    let (bias, products, kept) = (Some(contiguous(bias)), shape.products(), moments.clone());
    let job = Job {
        name,
        tile,
        parts,
        factor,
        reads_by,
        added,
        slope: slope as f32,
        arranged,
        bias,
        output,
        moments,
        products,
    };
    (tensor(job.run()), kept)
}

/// The norm of `x`, plus a convolution of what lies beside it, then the activation; and the norm's statistics.
pub(super) fn normed_and_added(
    x: CubeTensor,
    moments: Option<CubeTensor>,
    parameters: &NormParameters<CubeTensor>,
    residual: ConvolvedResidual<CubeTensor>,
) -> (CubeTensor, CubeTensor) {
    let x = channels_last(x);
    let statistics = norm::statistics_of(&x, moments, parameters);
    let ConvolvedResidual { parts, factor, weight, bias, stride } = residual;
    let (slope, added) = (parameters.slope, Some([x, statistics.clone()]));
    let around = Around { factor, added, slope, ..Around::default() };
    (forward(parts, &weight, bias, stride, around).0, statistics)
}

/// Weights `[Cout, Cin, 1, 1, 1]` of some output channels as `[1, Cin, channels]` of single precision, with
/// zeros behind the channels up to a multiple of `block`.
pub(super) fn pointwise_weights(
    weight: &CubeTensor,
    channels: Range<usize>,
    block: usize,
) -> CubeTensor {
    let (rows, columns, from) = (dims::<5>(weight)[1], channels.len(), channels.start);
    Arrangement { rows, columns, from, to_inputs: false, flipped: false }.apply(weight, block)
}

/// The gradient of each part of the input.
pub(super) fn input_gradient(
    gradient: &CubeTensor,
    parts: &[CubeTensor],
    weight: &CubeTensor,
    stride: [usize; 3],
) -> Vec<CubeTensor> {
    let shape = shape_of(parts, weight, stride);
    let gradient = channels_last(gradient.clone());
    let mut from = 0;
    let of_part = |part: &CubeTensor| {
        let channels = dims::<5>(part)[1];
        let part = Shape { inputs: channels, ..shape };
        let found = part_gradient(&gradient, weight, &part, from);
        from += channels;
        tensor(found)
    };
    parts.iter().map(of_part).collect()
}

/// The gradient of the input channels `from` on, of which there are `shape.inputs`.
fn part_gradient(
    gradient: &CubeTensor,
    weight: &CubeTensor,
    shape: &Shape,
    from: usize,
) -> CubeTensor {
    let [z, y, x] = shape.size;
    let output = empty(gradient, [shape.samples, z, y, x, shape.inputs]);
    let (rows, columns) = (shape.outputs, shape.inputs);
    let is_plain = shape.stride == [1; 3];
    let arrangement = Arrangement { rows, columns, from, to_inputs: true, flipped: is_plain };
    let tile = if is_plain {
        // A convolution with the taps the other way round.
        Tile::new(shape.kernel, [1; 3], columns, shape.samples, shape.size)
    } else {
        let size = shape.remainder_size();
        Tile::transposed(shape.kernel, shape.stride, columns, shape.samples, size)
    };
    let tile = tile.expect("asked before: fits");
    let arranged = arrangement.apply(weight, tile.channels());
    let (parts, products) = (vec![gradient.clone()], shape.products());
    let (name, factor) = ("conv_input_gradient", [1; 3]);
    let job = Job {
        name,
        tile,
        parts,
        factor,
        reads_by: None,
        added: None,
        slope: 1.0,
        arranged,
        bias: None,
        output,
        moments: None,
        products,
    };
    if is_plain { job.run() } else { job.run_transposed(shape.remainder_size()) }
}

/// How weights lie in memory for a pass: [`weights::arrange`].
struct Arrangement {
    rows: usize,
    columns: usize,
    /// The first column.
    from: usize,
    /// Columns are input channels.
    to_inputs: bool,
    flipped: bool,
}

impl Arrangement {
    /// Arranges `[Cout, Cin, KZ, KY, KX]` as `[taps, rows, columns]` of single precision, with zeros behind
    /// the columns up to a multiple of `block`; nothing is done where it lies so already.
    fn apply(&self, weight: &CubeTensor, block: usize) -> CubeTensor {
        let [_, _, kz, ky, kx] = dims(weight);
        let taps = kz * ky * kx;
        let padded = self.columns.next_multiple_of(block);
        if padded == self.columns && self.is_made(weight) {
            let (client, device, handle) =
                (weight.client.clone(), weight.device.clone(), weight.handle.clone());
            let shape = [taps, self.rows, padded].into();
            return CubeTensor::new_contiguous(client, device, shape, handle, DType::F32);
        }
        let weight = &with_collapsed_taps(weight);
        let [by_output, by_input, _, _, by_tap] = strides(weight);
        let arranged = empty_f32(weight, [taps, self.rows, padded]);
        let (row_stride, column_stride) =
            if self.to_inputs { (by_output, by_input) } else { (by_input, by_output) };
        let values = elements(&arranged);
        let kernel = Kernel::new("arrange_weights").reads(&[weight]).writes(&[&arranged]);
        kernel.each(values, |count, dim| {
            let from = weight.clone().into_buffer_arg();
            let to = arranged.clone().into_buffer_arg();
            let sizes = OrderLaunch::new(
                taps,
                self.rows,
                self.columns,
                padded,
                row_stride,
                column_stride,
                by_tap,
                self.from,
            );
            // SAFETY: rows and columns lie inside the weight, and indices below `values`.
            unsafe {
                arrange::launch_unchecked(
                    &weight.client,
                    count,
                    dim,
                    from,
                    to,
                    sizes,
                    self.flipped,
                    elem(weight),
                );
            }
        });
        arranged
    }

    /// Whether the weight lies in memory as the forward pass reads it: [`prepare`] did that.
    fn is_made(&self, weight: &CubeTensor) -> bool {
        let is_forward = !self.to_inputs && !self.flipped;
        is_forward
            && self.columns == dims::<5>(weight)[0]
            && weight.dtype == DType::F32
            && permute(weight.clone(), &[2, 3, 4, 1, 0]).is_contiguous()
    }
}

/// The weight as `[Cout, Cin, KZ, KY, KX]` with taps in a row, whatever lies between them; a copy if it is
/// in no such order.
fn with_collapsed_taps(weight: &CubeTensor) -> CubeTensor {
    let [_, _, _, ky, kx] = dims(weight);
    let [_, _, by_z, by_y, by_x] = strides(weight);
    let in_a_row = by_y == kx * by_x && by_z == ky * by_y;
    if in_a_row { weight.clone() } else { contiguous(weight.clone()) }
}

/// The same weight, `[Cout, Cin, KZ, KY, KX]`, in the order in memory that the forward pass reads.
pub(super) fn prepare(weight: CubeTensor) -> CubeTensor {
    let arranged = contiguous(permute(weight, &[2, 3, 4, 1, 0]));
    permute(arranged, &[4, 3, 0, 1, 2])
}
