//! Weighted sums of channels that are added to running sums in half precision while they are in registers.

use super::planes::{VECTORS, Weights, products};
use crate::HalfSums;
use crate::cpu::simd::{Isa, MOST_LANES, Simd, Task};
use burn::tensor::f16;
use std::ops::Range;

/// Values in the widest tile.
const MOST_COLUMNS: usize = VECTORS * MOST_LANES;
/// Values in a line of a cache.
const LINE: usize = 16;
/// Lines that are asked for with a tile, at most: more would wait for each other.
const MOST_LINES: usize = 16;

/// Adds the 1×1×1 convolution of `columns` of `input` `[Cin, pitch]`, each value times the factor of its column,
/// to `sums`.
///
/// Every value is formed as in [`pointwise`](super::pointwise), its product with the factor is rounded to f32, and their
/// sum with what is there first to f32, then to half precision.
///
/// # Panics
/// When lengths do not fit.
pub(crate) fn add_pointwise_rows(
    isa: Isa,
    (weight, bias): (&[f32], &[f32]),
    (input, pitch): (&[f32], usize),
    columns: Range<usize>,
    sums: HalfSums<'_>,
) {
    let (outputs, count) = (bias.len(), columns.len());
    if outputs == 0 || count == 0 {
        return;
    }
    let inner = weight.len() / outputs;
    assert!(inner > 0 && weight.len() == outputs * inner, "a weight for each pair of channels");
    assert!(columns.end <= pitch && input.len() >= inner * pitch, "columns of whole rows");
    let HalfSums { values: to, pitch: to_pitch, factors, next } = sums;
    let last = (outputs - 1) * to_pitch + count;
    assert!(count <= to_pitch && to.len() >= last, "a sum for each output channel and column");
    assert!(factors.is_none_or(|factors| factors.len() == count), "a factor for each column");
    let width = VECTORS * isa.lanes();
    let input = &input[columns.start..];
    let whole = count / width * width;
    #[rustfmt::skip]
    isa.run(AddRows { weight, bias, input, pitch, count: whole, factors, to: &mut *to, to_pitch, next });
    let count = count - whole;
    if count > 0 {
        // A tile of their own, the rest zero.
        let mut padded = vec![0.0; inner * width];
        for (to, from) in padded.chunks_exact_mut(width).zip(input.chunks(pitch)) {
            to[..count].copy_from_slice(&from[whole..][..count]);
        }
        let (input, pitch, to) = (padded.as_slice(), width, &mut to[whole..]);
        let factors = factors.map(|factors| &factors[whole..]);
        let next = if whole == 0 { next } else { &[] };
        #[rustfmt::skip]
        isa.run(AddRows { weight, bias, input, pitch, count, factors, to, to_pitch, next });
    }
}

/// See [`add_pointwise_rows`]: whole tiles of columns, or one of which the input alone is whole.
struct AddRows<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    input: &'a [f32],
    pitch: usize,
    count: usize,
    factors: Option<&'a [f32]>,
    to: &'a mut [f16],
    to_pitch: usize,
    next: &'a [f32],
}

impl Task for AddRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        const { assert!(S::PLANES == 6 || S::PLANES == 2, "tiles are written for 6 and 2 planes") };
        let outputs = self.bias.len();
        let width = VECTORS * S::LANES;
        let tiles = outputs.div_ceil(S::PLANES) * self.count.div_ceil(width);
        let lines = self.next.len().div_ceil(LINE * tiles.max(1)).min(MOST_LINES);
        let mut next = self.next.chunks(LINE);
        let mut row = 0;
        while row < outputs {
            let left = outputs - row;
            let rows = match left {
                _ if left >= S::PLANES => S::PLANES,
                3.. => 3,
                _ => 1,
            };
            for column in (0..self.count).step_by(width) {
                next.by_ref().take(lines).for_each(|line| simd.prefetch(line.as_ptr()));
                match rows {
                    6 => self.tile::<S, 6>(simd, row, column),
                    3 => self.tile::<S, 3>(simd, row, column),
                    2 => self.tile::<S, 2>(simd, row, column),
                    _ => self.tile::<S, 1>(simd, row, column),
                }
            }
            row += rows;
        }
    }
}

impl AddRows<'_> {
    /// `ROWS` output channels of a tile from `column` on.
    #[inline(always)]
    fn tile<S: Simd, const ROWS: usize>(&mut self, simd: S, row: usize, column: usize) {
        let width = VECTORS * S::LANES;
        let inner = self.weight.len() / self.bias.len();
        let from = &self.input[column..];
        let weights = Weights { values: &self.weight[row * inner..], row: inner, column: 1 };
        assert!(weights.values.len() >= ROWS * inner, "weights of the rows");
        assert!(from.len() >= (inner - 1) * self.pitch + width, "a tile of every channel");
        let bias = Some(&self.bias[row..]);
        let count = width.min(self.count - column);
        let mut factors = [simd.zero(); VECTORS];
        if let Some(given) = self.factors {
            factors = read_factors(simd, &given[column..][..count]);
        }
        // SAFETY: the weights and the tile, as asserted.
        let values = unsafe { products::<S, ROWS>(simd, weights, bias, from, [inner, self.pitch]) };
        for (r, values) in values.into_iter().enumerate() {
            let to = &mut self.to[(row + r) * self.to_pitch + column..][..count];
            let factors = self.factors.is_some().then_some(factors);
            if count == width {
                add(simd, values, factors, to);
            } else {
                let mut whole = [f16::ZERO; MOST_COLUMNS];
                whole[..count].copy_from_slice(to);
                add(simd, values, factors, &mut whole[..width]);
                to.copy_from_slice(&whole[..count]);
            }
        }
    }
}

/// The factors of a tile; zero where there are too few.
#[inline(always)]
fn read_factors<S: Simd>(simd: S, given: &[f32]) -> [S::Vector; VECTORS] {
    let mut whole = [0.0; MOST_COLUMNS];
    let mut factors = [simd.zero(); VECTORS];
    let from = if given.len() == VECTORS * S::LANES {
        given.as_ptr()
    } else {
        whole[..given.len()].copy_from_slice(given);
        whole.as_ptr()
    };
    for (v, factor) in factors.iter_mut().enumerate() {
        // SAFETY: both hold `VECTORS` vectors.
        *factor = unsafe { simd.load(from.add(v * S::LANES)) };
    }
    factors
}

/// Adds values to the sums of a tile.
#[inline(always)]
fn add<S: Simd>(
    simd: S,
    values: [S::Vector; VECTORS],
    factors: Option<[S::Vector; VECTORS]>,
    to: &mut [f16],
) {
    assert_eq!(to.len(), VECTORS * S::LANES, "a tile");
    for (v, mut value) in values.into_iter().enumerate() {
        if let Some(factors) = factors {
            value = simd.multiply(value, factors[v]);
        }
        // SAFETY: `to` holds `VECTORS` vectors.
        unsafe {
            let to = to.as_mut_ptr().add(v * S::LANES);
            simd.store_halves(to, simd.add(simd.load_halves(to), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::pointwise_rows;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is added are the rows, in every instruction set, bit by bit; sums beside them stay as they are.
        #[test]
        fn what_is_added_are_the_rows(
            outputs in 1usize..20, inner in 1usize..9, width in 1usize..150, beside in 0usize..9,
            from in 0usize..100, count in 1usize..150, weighted in any::<bool>(), seed in 0u32..1000,
        ) {
            let from = from.min(width - 1);
            let columns = from..(from + count).min(width);
            let count = columns.len();
            let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 1e7 - 0.8;
            let values = |len: usize, salt: usize| (0..len).map(|i| value(i + salt)).collect::<Vec<_>>();
            let (weight, bias) = (values(outputs * inner, 1), values(outputs, 77_777));
            let (input, factors) = (values(inner * width, 999), values(count, 4321));
            let factors = weighted.then_some(factors.as_slice());
            let pitch = count + beside;
            let start: Vec<f16> = values(outputs * pitch - beside, 55).into_iter().map(f16::from_f32).collect();
            for isa in Isa::available() {
                let mut rows = vec![f32::NAN; outputs * count];
                pointwise_rows(isa, (&weight, &bias), (&input, width), columns.clone(), &mut rows);
                let mut expected = start.clone();
                for (channel, row) in rows.chunks_exact(count).enumerate() {
                    for (i, value) in row.iter().enumerate() {
                        let sum = &mut expected[channel * pitch + i];
                        *sum = f16::from_f32(sum.to_f32() + value * factors.map_or(1.0, |factors| factors[i]));
                    }
                }
                let mut found = start.clone();
                let sums = HalfSums { values: &mut found, pitch, factors, next: &input };
                add_pointwise_rows(isa, (&weight, &bias), (&input, width), columns.clone(), sums);
                let bits = |sums: &[f16]| sums.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&found), bits(&expected), "{:?}", isa);
            }
        }
    }
}
