//! 1×1×1 convolution: a matrix product over the voxels of each sample.
//!
//! With a stride it reads every `stride`-th voxel and nothing between, so those are picked first.

use super::{Shape, voxels};
use crate::cpu::memory::Output;
use rayon::prelude::*;

/// Voxels a task multiplies at a time.
const COLUMNS: usize = 4096;
/// Rows of the product a task computes, where there are few voxels.
const ROWS: usize = 64;
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

/// `to = to * keep + lhs * rhs`, where `to` has rows `row` apart and columns side by side.
///
/// # Safety
/// `to` is valid for `rows` rows of `columns` values, which no other thread touches.
unsafe fn multiply(
    [rows, columns, inner]: [usize; 3],
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    to: *mut f32,
    row: usize,
    keep: bool,
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
            keep,
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
    shape: &Shape,
    parts: &[(&[f32], usize)],
    weight: &[f32],
    bias: &[f32],
) -> Output {
    assert_eq!(weight.len(), shape.outputs * shape.inputs, "a kernel of one voxel");
    let volume = voxels(shape.out_size());
    let parts: Vec<_> =
        parts.iter().map(|&(values, channels)| (pick(shape, values, channels), channels)).collect();
    let mut output = Output::new(shape.batch * shape.outputs * volume);
    let target = output.target();
    for_each_block(shape.batch, shape.outputs, volume, |sample, rows, columns| {
        let (count, width) = (rows.len(), columns.len());
        let at = |channel| (sample * shape.outputs + channel) * volume + columns.start;
        for channel in rows.clone() {
            // SAFETY: a piece of one channel's row, which lies in this task's block alone.
            unsafe { target.slice(at(channel), width) }.fill(bias[channel]);
        }
        let mut first = 0;
        for (values, channels) in &parts {
            let weight = &weight[rows.start * shape.inputs + first..];
            let input = &values.values()[sample * channels * volume + columns.start..];
            // SAFETY: `count` rows of `width` values that lie in this task's block alone.
            unsafe {
                multiply(
                    [count, width, *channels],
                    Matrix { values: weight, row: shape.inputs, column: 1 },
                    Matrix { values: input, row: volume, column: 1 },
                    target.at(at(rows.start)),
                    volume,
                    true,
                );
            }
            first += channels;
        }
    });
    output
}

/// The gradient of each part of the input.
pub(crate) fn pointwise_input_gradient(
    shape: &Shape,
    gradient: &[f32],
    weight: &[f32],
    parts: &[usize],
) -> Vec<Output> {
    let volume = voxels(shape.out_size());
    let mut first = 0;
    let part = |channels: usize| {
        let mut output = Output::new(shape.batch * channels * volume);
        let target = output.target();
        for_each_block(shape.batch, channels, volume, |sample, rows, columns| {
            let weight = &weight[first + rows.start..];
            let input = &gradient[sample * shape.outputs * volume + columns.start..];
            // SAFETY: rows and columns that lie in this task's block alone.
            unsafe {
                multiply(
                    [rows.len(), columns.len(), shape.outputs],
                    Matrix { values: weight, row: 1, column: shape.inputs },
                    Matrix { values: input, row: volume, column: 1 },
                    target.at((sample * channels + rows.start) * volume + columns.start),
                    volume,
                    false,
                );
            }
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
        .flat_map(|sample| (0..volume).step_by(COLUMNS).map(move |from| (sample, from)))
        .collect();
    let rows_of: Vec<_> = blocks(shape.outputs).collect();
    let shares = SHARES.div_ceil(rows_of.len()).min(pieces.len());
    let len = shape.outputs * shape.inputs;
    let mut partial = Output::new(shares * len);
    let target = partial.target();
    (0..shares * rows_of.len()).into_par_iter().for_each(|task| {
        let (share, rows) = (task % shares, rows_of[task / shares].clone());
        let range = pieces.len() * share / shares..pieces.len() * (share + 1) / shares;
        for (index, &(sample, from)) in pieces[range].iter().enumerate() {
            let width = COLUMNS.min(volume - from);
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
                        target.at(share * len + rows.start * shape.inputs + first),
                        shape.inputs,
                        index > 0,
                    );
                }
                first += channels;
            }
        }
    });
    let mut weight = Output::new(len);
    let (sum, partial) = (weight.values_mut(), partial.values_mut());
    sum.copy_from_slice(&partial[..len]);
    for share in partial[len..].chunks(len) {
        sum.iter_mut().zip(share).for_each(|(sum, part)| *sum += part);
    }
    weight
}

fn blocks(rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..rows).step_by(ROWS).map(move |from| from..rows.min(from + ROWS))
}

/// Calls `work` with every sample, block of rows and run of voxels, in parallel. Rows are divided
/// only where voxels are few: each division reads the input again.
fn for_each_block(
    batch: usize,
    rows: usize,
    volume: usize,
    work: impl Fn(usize, std::ops::Range<usize>, std::ops::Range<usize>) + Sync,
) {
    let per_task = if batch * volume > 8 * COLUMNS { rows } else { ROWS };
    let tasks: Vec<_> = (0..batch)
        .flat_map(|sample| (0..volume).step_by(COLUMNS).map(move |column| (sample, column)))
        .flat_map(|(sample, column)| {
            (0..rows).step_by(per_task).map(move |row| (sample, row, column))
        })
        .collect();
    tasks.into_par_iter().for_each(|(sample, row, column)| {
        work(sample, row..rows.min(row + per_task), column..volume.min(column + COLUMNS));
    });
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
    let volumes =
        picked.values_mut().par_chunks_mut(voxels(out)).zip(values.par_chunks(voxels(size)));
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
    let volumes = values.values_mut().par_chunks_mut(voxels(size));
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
