//! Convolutions: from tensors to launches.

mod job;
mod kernels;
mod shape;
mod transposed;
mod weight_gradient;
mod weights;

use super::launch::{
    Kernel, channels_last, contiguous, dims, elem, elements, empty, empty_f32, tensor,
};
use super::tiles::Tile;
use burn_cubecl::tensor::CubeTensor;
use job::Job;
use shape::shape_of;
use weights::arrange;

pub(super) use shape::Shape;
pub(super) use weight_gradient::weight_gradient;

/// The convolution of the concatenation of one or two parts, with bias.
pub(super) fn forward(
    parts: Vec<CubeTensor>,
    weight: &CubeTensor,
    bias: CubeTensor,
    stride: [usize; 3],
) -> CubeTensor {
    let shape = shape_of(&parts, weight, stride);
    let [z, y, x] = shape.out_size();
    let tile = Tile::new(shape.kernel, stride, shape.outputs, shape.samples, [z, y, x])
        .expect("asked before: fits");
    let parts: Vec<_> = parts.into_iter().map(channels_last).collect();
    let arrangement = Arrangement {
        rows: shape.inputs,
        columns: shape.outputs,
        from: 0,
        to_inputs: false,
        flipped: false,
    };
    let arranged = arrangement.apply(&contiguous(weight.clone()), tile.channels());
    let output = empty(&parts[0], [shape.samples, z, y, x, shape.outputs]);
    let (bias, products) = (Some(contiguous(bias)), shape.products());
    let job = Job { name: "conv", tile, parts, arranged, bias, output, products };
    tensor(job.run())
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
    let weight = contiguous(weight.clone());
    let mut from = 0;
    let of_part = |part: &CubeTensor| {
        let channels = dims::<5>(part)[1];
        let part = Shape { inputs: channels, ..shape };
        let found = part_gradient(&gradient, &weight, &part, from);
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
    let (name, bias) = ("conv_input_gradient", None);
    let job = Job { name, tile, parts, arranged, bias, output, products };
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
    /// Arranges `[Cout, Cin, taps]`, with zeros behind the columns up to a multiple of `block`.
    fn apply(&self, weight: &CubeTensor, block: usize) -> CubeTensor {
        let [_, inputs, kz, ky, kx] = dims(weight);
        let taps = kz * ky * kx;
        let padded = self.columns.next_multiple_of(block);
        let arranged = empty_f32(weight, [taps, self.rows, padded]);
        let (by_output, by_input) = (inputs * taps, taps);
        let (row_stride, column_stride) =
            if self.to_inputs { (by_output, by_input) } else { (by_input, by_output) };
        let values = elements(&arranged);
        Kernel::new("arrange_weights").reads(&[weight]).writes(&[&arranged]).each(
            values,
            |count, dim| {
                let from = weight.clone().into_buffer_arg();
                let to = arranged.clone().into_buffer_arg();
                // SAFETY: rows and columns lie inside the weight, and indices below `values`.
                unsafe {
                    arrange::launch_unchecked(
                        &weight.client,
                        count,
                        dim,
                        from,
                        to,
                        taps,
                        self.rows,
                        self.columns,
                        padded,
                        row_stride,
                        column_stride,
                        self.from,
                        self.flipped,
                        elem(weight),
                    );
                }
            },
        );
        arranged
    }
}
