//! Weighted sums of channels that lie side by side: a run of voxels at a time, where the caller has them.

use super::planes::{VECTORS, Weights, products};
use crate::cpu::simd::{Isa, Simd, Task};
use std::ops::Range;

/// The 1×1×1 convolution of `columns` of `input` `[Cin, pitch]`, to `to` `[Cout, columns]`.
///
/// Every sum is formed as in [`pointwise`](super::pointwise): equal bit by bit.
///
/// # Panics
/// When lengths do not fit.
pub(crate) fn pointwise_rows(
    isa: Isa,
    (weight, bias): (&[f32], &[f32]),
    (input, pitch): (&[f32], usize),
    columns: Range<usize>,
    to: &mut [f32],
) {
    let (outputs, count) = (bias.len(), columns.len());
    if outputs == 0 || count == 0 {
        return;
    }
    let inner = weight.len() / outputs;
    assert_eq!(weight.len(), outputs * inner, "a weight for each pair of channels");
    assert_eq!(to.len(), outputs * count, "a value for each output channel and column");
    assert!(columns.end <= pitch && input.len() >= inner * pitch, "columns of whole rows");
    let width = VECTORS * isa.lanes();
    if inner == 0 || count >= width {
        return isa.run(Rows { weight, bias, inner, input, pitch, columns, to });
    }
    // Fewer voxels than a tile has: a tile of their own, the rest zero.
    let mut padded = vec![0.0; inner * width];
    for (to, from) in padded.chunks_exact_mut(width).zip(input.chunks_exact(pitch)) {
        to[..count].copy_from_slice(&from[columns.clone()]);
    }
    let mut whole = vec![0.0; outputs * width];
    let (input, columns) = (padded.as_slice(), 0..width);
    isa.run(Rows { weight, bias, inner, input, pitch: width, columns, to: &mut whole });
    for (to, from) in to.chunks_exact_mut(count).zip(whole.chunks_exact(width)) {
        to.copy_from_slice(&from[..count]);
    }
}

/// See [`pointwise_rows`]; at least one tile of columns.
struct Rows<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    inner: usize,
    input: &'a [f32],
    pitch: usize,
    columns: Range<usize>,
    to: &'a mut [f32],
}

impl Task for Rows<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        const { assert!(S::PLANES == 6 || S::PLANES == 2, "tiles are written for 6 and 2 planes") };
        let (width, outputs, count) = (VECTORS * S::LANES, self.bias.len(), self.columns.len());
        if self.inner == 0 {
            self.to.chunks_exact_mut(count).zip(self.bias).for_each(|(to, bias)| to.fill(*bias));
            return;
        }
        let mut row = 0;
        while row < outputs {
            let rows = if row + S::PLANES <= outputs { S::PLANES } else { 1 };
            let mut column = 0;
            while column < count {
                // The last tile begins early: what lies in two is computed twice, alike.
                let at = column.min(count - width);
                match rows {
                    6 => self.tile::<S, 6>(simd, row, at),
                    2 => self.tile::<S, 2>(simd, row, at),
                    _ => self.tile::<S, 1>(simd, row, at),
                }
                column += width;
            }
            row += rows;
        }
    }
}

impl Rows<'_> {
    /// `ROWS` output channels of a tile from `column` of the columns on.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&mut self, simd: S, row: usize, column: usize) {
        let (width, count) = (VECTORS * S::LANES, self.columns.len());
        let from = &self.input[self.columns.start + column..];
        let weights =
            Weights { values: &self.weight[row * self.inner..], row: self.inner, column: 1 };
        assert!(weights.values.len() >= ROWS * self.inner, "weights of the rows");
        assert!(from.len() >= (self.inner - 1) * self.pitch + width, "a tile of every channel");
        let bias = Some(&self.bias[row..]);
        // SAFETY: the weights and the tile, as asserted.
        let sums =
            unsafe { products::<S, ROWS>(simd, weights, bias, from, [self.inner, self.pitch]) };
        for (r, sums) in sums.iter().enumerate() {
            let to = &mut self.to[(row + r) * count + column..][..width];
            for (v, sum) in sums.iter().enumerate() {
                // SAFETY: `to` holds `VECTORS` vectors.
                unsafe { simd.store(to.as_mut_ptr().add(v * S::LANES), *sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::conv::Shape;
    use crate::cpu::conv::pointwise::pointwise;
    use proptest::prelude::*;

    proptest! {
        /// Rows are those of the convolution of whole volumes, in every instruction set, bit by bit.
        #[test]
        fn rows_are_those_of_the_convolution(
            outputs in 1usize..20, inner in 1usize..9, width in 1usize..150,
            from in 0usize..100, count in 1usize..150, seed in 0u32..1000,
        ) {
            let from = from.min(width - 1);
            let columns = from..(from + count).min(width);
            let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 1e7 - 0.8;
            let values = |len: usize, salt: usize| (0..len).map(|i| value(i + salt)).collect::<Vec<_>>();
            let (weight, bias) = (values(outputs * inner, 1), values(outputs, 77_777));
            let input = values(inner * width, 999);
            for isa in Isa::available() {
                let (size, stride) = ([1, 1, width], [1; 3]);
                let shape = Shape { batch: 1, inputs: inner, outputs, size, stride };
                let whole = pointwise(isa, &shape, &[(&input, inner)], &weight, &bias);
                let mut rows = vec![f32::NAN; outputs * columns.len()];
                pointwise_rows(isa, (&weight, &bias), (&input, width), columns.clone(), &mut rows);
                for (channel, row) in rows.chunks_exact(columns.len()).enumerate() {
                    let expected = &whole.values()[channel * width..][columns.clone()];
                    prop_assert_eq!(row, expected);
                }
            }
        }
    }
}
