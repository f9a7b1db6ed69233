//! 1×1×1 convolution: a matrix product over the voxels of each sample.
//!
//! Voxels lie side by side on both sides of it, so that nothing is rearranged: register tiles of
//! output channels × voxels are swept over the planes, bias and all, and every output is written once.
//! The gradient of the weights, whose sums run over the voxels, is left to a library.
//!
//! With a stride it reads every `stride`-th voxel and nothing between, so those are picked first.

mod half_sums;
mod planes;
mod rows;

use super::shares::Shares;
use super::{STREAMED, Shape, voxels};
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::{Origin, Output, Target, with_scratch};
use crate::cpu::simd::Isa;
pub(crate) use half_sums::add_pointwise_rows;
use planes::{Planes, Repeated, Weights, buffer_len};
use rayon::prelude::*;
pub(crate) use rows::pointwise_rows;
use std::ops::Range;

/// Voxels a task multiplies at a time, at most.
const COLUMNS: usize = 1024;
/// Values a task copies, about: half a second cache.
const COPIED: usize = 1 << 16;
/// Rows of the product a task computes, where there are few voxels.
const ROWS: usize = 48;
/// Voxels a weight gradient sums at a time.
const SUMMED: usize = 4096;
/// Shares of the voxels that a weight gradient is summed over, each by itself.
const SHARES: usize = 16;

/// A matrix in memory: where it begins and how far apart rows and columns are.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    values: &'a [f32],
    row: usize,
    column: usize,
}

impl Matrix<'_> {
    fn assert_holds(&self, rows: usize, columns: usize) {
        let last = (rows - 1) * self.row + (columns - 1) * self.column;
        assert!(last < self.values.len(), "a matrix lies inside its values");
    }
}

/// `to += lhs * rhs`, where `to` has rows `row` apart and columns side by side.
///
/// # Safety
/// `to` is valid for `rows` rows of `columns` values, which no other thread touches.
unsafe fn multiply(
    [rows, columns, inner]: [usize; 3],
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    to: *mut f32,
    row: usize,
) {
    if rows * columns == 0 {
        return;
    }
    lhs.assert_holds(rows, inner);
    rhs.assert_holds(inner, columns);
    // SAFETY: the operands lie in their slices, as asserted; the caller promises the destination.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            to,
            1,
            row as isize,
            true,
            lhs.values.as_ptr(),
            lhs.column as isize,
            lhs.row as isize,
            rhs.values.as_ptr(),
            rhs.column as isize,
            rhs.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The convolution of the concatenation of `parts`, with bias.
pub(crate) fn pointwise(
    isa: Isa,
    shape: &Shape,
    parts: &[(&[f32], usize)],
    weight: &[f32],
    bias: &[f32],
) -> Output {
    let volume = voxels(shape.out_size());
    let parts: Vec<_> =
        parts.iter().map(|&(values, channels)| (pick(shape, values, channels), channels)).collect();
    let inputs: Vec<_> =
        parts.iter().map(|(values, channels)| (Origin::new(values.values()), *channels)).collect();
    let mut output = Output::new(shape.batch * shape.outputs * volume);
    convolve(isa, shape, (&inputs, [1; 3]), weight, bias, output.target());
    output
}

/// [`pointwise`] at stride 1, where each voxel of the first part stands for a block of `repeats`.
pub(crate) fn pointwise_repeated(
    isa: Isa,
    shape: &Shape,
    (parts, repeats): (&[(&[f32], usize)], [usize; 3]),
    weight: &[f32],
    bias: &[f32],
) -> Output {
    assert_eq!(shape.stride, [1; 3], "voxels in their order");
    let fits = (0..3).all(|axis| shape.size[axis].is_multiple_of(repeats[axis]));
    assert!(fits, "whole repeats");
    let volume = shape.batch * voxels(shape.size);
    for (index, (values, channels)) in parts.iter().enumerate() {
        let repeats: usize = if index == 0 { repeats.iter().product() } else { 1 };
        assert_eq!(values.len() * repeats, channels * volume, "values read");
    }
    let inputs: Vec<_> = parts.iter().map(|part| (Origin::new(part.0), part.1)).collect();
    let mut output = Output::new(shape.outputs * volume);
    convolve(isa, shape, (&inputs, repeats), weight, bias, output.target());
    output
}

/// The convolution of the concatenation of `first` and `second`, at stride 1, written over `first`;
/// for shapes that [`can_overwrite`] accepts.
pub(crate) fn pointwise_over(
    isa: Isa,
    shape: &Shape,
    first: &mut [f32],
    (second, channels): (&[f32], usize),
    weight: &[f32],
    bias: &[f32],
) {
    let volume = shape.batch * voxels(shape.size);
    assert!(
        can_overwrite(shape) && shape.stride == [1; 3],
        "every voxel is read by its task alone"
    );
    assert_eq!(first.len(), shape.outputs * volume, "what is read is what is written");
    assert_eq!(second.len(), channels * volume, "values read");
    let target = Target::new(first);
    let inputs = [(target.into(), shape.outputs), (Origin::new(second), channels)];
    convolve(isa, shape, (&inputs, [1; 3]), weight, bias, target);
}

/// [`pointwise_repeated`] of a first part and of `second`, written over the second; for shapes that [`can_overwrite`]
/// accepts.
pub(crate) fn pointwise_over_repeated(
    isa: Isa,
    shape: &Shape,
    ((first, channels), repeats): ((&[f32], usize), [usize; 3]),
    second: &mut [f32],
    weight: &[f32],
    bias: &[f32],
) {
    let volume = shape.batch * voxels(shape.size);
    let fits = (0..3).all(|axis| shape.size[axis].is_multiple_of(repeats[axis]));
    assert!(fits && shape.stride == [1; 3], "voxels in their order, and whole repeats");
    assert!(can_overwrite(shape), "every voxel is read by its task alone");
    assert_eq!(second.len(), shape.outputs * volume, "what is read is what is written");
    assert_eq!(first.len() * repeats.iter().product::<usize>(), channels * volume, "values read");
    let target = Target::new(second);
    let inputs = [(Origin::new(first), channels), (target.into(), shape.outputs)];
    convolve(isa, shape, (&inputs, repeats), weight, bias, target);
}

/// Whether each voxel is read by the task that writes it, and by no other.
pub(crate) fn can_overwrite(shape: &Shape) -> bool {
    let [rows, inputs] = [shape.outputs, shape.inputs];
    rows_per_task([shape.batch, rows, inputs, voxels(shape.out_size())]) == rows
}

/// Writes the convolution of whole planes of the output's size, or, of the first input, of as many voxels as become that
/// by repetition.
fn convolve(
    isa: Isa,
    shape: &Shape,
    (inputs, repeats): (&[(Origin, usize)], [usize; 3]),
    weight: &[f32],
    bias: &[f32],
    target: Target,
) {
    assert_eq!(weight.len(), shape.outputs * shape.inputs, "a kernel of one voxel");
    assert_eq!(bias.len(), shape.outputs, "a bias for each output");
    assert_eq!(inputs.iter().map(|input| input.1).sum::<usize>(), shape.inputs, "channels read");
    let volume = voxels(shape.out_size());
    let weights = Weights { values: weight, row: shape.inputs, column: 1 };
    let sizes = [shape.batch, shape.outputs, shape.inputs, volume];
    let (bias, streamed) = (Some(bias), shape.batch * shape.outputs * volume > STREAMED);
    let repeated = (repeats != [1; 3]).then_some(Repeated { size: shape.out_size(), repeats });
    for_each_block(isa, sizes, |sample, rows, columns, buffer| {
        let to = sample * shape.outputs * volume;
        #[rustfmt::skip]
        isa.run(Planes { inputs, repeated, sample, volume, weights, bias, rows, columns, target, to, streamed, buffer });
    });
}

/// The gradient of each part of the input.
pub(crate) fn pointwise_input_gradient(
    isa: Isa,
    shape: &Shape,
    gradient: &[f32],
    weight: &[f32],
    parts: &[usize],
) -> Vec<Output> {
    let volume = voxels(shape.out_size());
    assert_eq!(gradient.len(), shape.batch * shape.outputs * volume, "values of the gradient");
    assert_eq!(weight.len(), shape.outputs * shape.inputs, "a kernel of one voxel");
    let inputs = &[(Origin::new(gradient), shape.outputs)];
    let mut first = 0;
    let part = |channels: usize| {
        let mut output = Output::new(shape.batch * channels * volume);
        let target = output.target();
        let weights = Weights { values: &weight[first..], row: 1, column: shape.inputs };
        let sizes = [shape.batch, channels, shape.outputs, volume];
        let (bias, streamed) = (None, shape.batch * channels * volume > STREAMED);
        for_each_block(isa, sizes, |sample, rows, columns, buffer| {
            let to = sample * channels * volume;
            #[rustfmt::skip]
            isa.run(Planes { inputs, repeated: None, sample, volume, weights, bias, rows, columns, target, to, streamed, buffer });
        });
        first += channels;
        spread(shape, output, channels)
    };
    parts.iter().copied().map(part).collect()
}

/// The gradient of the weights, `[Cout, Cin]`.
pub(crate) fn pointwise_weight_gradient(
    shape: &Shape,
    parts: &[(&[f32], usize)],
    gradient: &[f32],
) -> Output {
    let volume = voxels(shape.out_size());
    let parts: Vec<_> =
        parts.iter().map(|&(values, channels)| (pick(shape, values, channels), channels)).collect();
    let pieces: Vec<_> = (0..shape.batch)
        .flat_map(|sample| (0..volume).step_by(SUMMED).map(move |from| (sample, from)))
        .collect();
    let rows_of: Vec<_> = blocks(shape.outputs).collect();
    let len = shape.outputs * shape.inputs;
    let mut shares = Shares::new(SHARES.div_ceil(rows_of.len()).min(pieces.len()), len);
    let target = shares.target();
    (0..shares.count * rows_of.len()).into_par_iter().evenly().for_each(|task| {
        let (share, rows) = (task % shares.count, rows_of[task / shares.count].clone());
        for &(sample, from) in &pieces[shares.range(share, pieces.len())] {
            let width = SUMMED.min(volume - from);
            let lhs = &gradient[(sample * shape.outputs + rows.start) * volume + from..];
            let mut first = 0;
            for (values, channels) in &parts {
                let rhs = &values.values()[sample * channels * volume + from..];
                // SAFETY: rows of this share's matrix that no other task of the share has.
                unsafe {
                    multiply(
                        [rows.len(), *channels, width],
                        Matrix { values: lhs, row: volume, column: 1 },
                        Matrix { values: rhs, row: 1, column: volume },
                        target.at(share * shares.pitch + rows.start * shape.inputs + first),
                        shape.inputs,
                    );
                }
                first += channels;
            }
        }
    });
    let mut weight = Output::new(len);
    weight.values_mut().copy_from_slice(&shares.sum()[..len]);
    weight
}

fn blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(ROWS).map(move |from| from..rows.min(from + ROWS))
}

/// Calls `work` with every sample, block of rows and run of voxels, and a buffer for the voxels, in
/// parallel. Rows are divided only where voxels are few: each division copies the input again.
fn for_each_block(
    isa: Isa,
    [batch, rows, inputs, volume]: [usize; 4],
    work: impl Fn(usize, Range<usize>, Range<usize>, &mut [f32]) + Sync,
) {
    let (width, per_task) = (run_len(inputs), rows_per_task([batch, rows, inputs, volume]));
    let tasks: Vec<_> = (0..batch)
        .flat_map(|sample| (0..volume).step_by(width).map(move |column| (sample, column)))
        .flat_map(|(sample, column)| {
            (0..rows).step_by(per_task).map(move |row| (sample, row, column))
        })
        .collect();
    tasks.into_par_iter().evenly().for_each(|(sample, row, column)| {
        with_scratch(|buffer, _| {
            let columns = column..volume.min(column + width);
            let buffer = buffer.scratch(buffer_len(isa, inputs, columns.len()));
            work(sample, row..rows.min(row + per_task), columns, buffer);
        });
    });
}

/// Voxels a task multiplies at a time.
fn run_len(inputs: usize) -> usize {
    (COPIED / inputs).clamp(64, COLUMNS) / 64 * 64
}

/// Rows a task computes.
fn rows_per_task([batch, rows, inputs, volume]: [usize; 4]) -> usize {
    if batch * volume > 32 * run_len(inputs) { rows } else { ROWS.min(rows) }
}

/// Voxels as they lie in a tensor, or picked from it.
enum Picked<'a> {
    All(&'a [f32]),
    Some(Output),
}

impl Picked<'_> {
    fn values(&self) -> &[f32] {
        match self {
            Self::All(values) => values,
            Self::Some(output) => output.values(),
        }
    }
}

/// The voxels a strided convolution reads.
fn pick<'a>(shape: &Shape, values: &'a [f32], channels: usize) -> Picked<'a> {
    let (size, out) = (shape.size, shape.out_size());
    assert_eq!(values.len(), shape.batch * channels * voxels(size), "values read");
    if shape.stride == [1; 3] {
        return Picked::All(values);
    }
    let mut picked = Output::new(shape.batch * channels * voxels(out));
    let volumes = picked
        .values_mut()
        .par_chunks_mut(voxels(out))
        .evenly()
        .zip(values.par_chunks(voxels(size)));
    volumes.for_each(|(to, from)| {
        for (index, row) in to.chunks_mut(out[2]).enumerate() {
            let from = &from[row_start(shape, index)..][..size[2]];
            row.iter_mut().zip(from.iter().step_by(shape.stride[2])).for_each(|(to, v)| *to = *v);
        }
    });
    Picked::Some(picked)
}

/// The inverse of [`pick`]: the voxels where they were read, zero between.
fn spread(shape: &Shape, mut picked: Output, channels: usize) -> Output {
    if shape.stride == [1; 3] {
        return picked;
    }
    let (size, out) = (shape.size, shape.out_size());
    let mut values = Output::new(shape.batch * channels * voxels(size));
    let volumes = values.values_mut().par_chunks_mut(voxels(size)).evenly();
    volumes.zip(picked.values_mut().par_chunks(voxels(out))).for_each(|(to, from)| {
        to.fill(0.0);
        for (index, row) in from.chunks(out[2]).enumerate() {
            let to = &mut to[row_start(shape, index)..][..size[2]];
            to.iter_mut().step_by(shape.stride[2]).zip(row).for_each(|(to, v)| *to = *v);
        }
    });
    values
}

/// Where the input row begins from which output row `index` of a channel is picked.
fn row_start(shape: &Shape, index: usize) -> usize {
    let rows = shape.out_size()[1];
    let (z, y) = (index / rows * shape.stride[0], index % rows * shape.stride[1]);
    (z * shape.size[1] + y) * shape.size[2]
}
