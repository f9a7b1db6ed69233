//! Convolutions of codes.

use super::lanes::{DotProducts, LANES, Lanes, WEIGHTS, Work};
use super::volume::{EightBitCodes, EightBitValues, Layout, Memory, Range, chunk, chunk_mut};
use super::weights::{EightBitConv, Packed};
use crate::cpu::evenly::Evenly;
use rayon::prelude::*;

/// Parts of an input at most.
const PARTS: usize = 2;
/// Rows of voxels that a kernel reads of each part.
const ROWS: usize = 9;

/// What a convolution leaves for a norm: its sums in half precision, and what a norm asks of them.
///
/// Its bias is left out, as a norm takes it away.
pub struct EightBitSums {
    pub(super) size: [usize; 3],
    pub(super) layout: Layout,
    /// `[block, z, y, x, channel of the block]`.
    pub(super) halves: Memory,
    /// What a sum is worth.
    pub(super) unit: Vec<f32>,
    pub(super) statistics: Vec<Statistics>,
}

/// Of the values of one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statistics {
    pub sum: f64,
    pub squares: f64,
    pub least: f32,
    pub most: f32,
}

impl Statistics {
    pub const NONE: Self =
        Self { sum: 0.0, squares: 0.0, least: f32::INFINITY, most: f32::NEG_INFINITY };

    pub fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        self.squares += other.squares;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }
}

impl EightBitConv {
    /// The convolution of all parts, with padding of half the kernel.
    ///
    /// # Panics
    /// When the parts differ in size, or have other channels than the convolution.
    pub fn sums(&self, parts: &[&EightBitCodes], stride: [usize; 3]) -> EightBitSums {
        self.sums_by(DotProducts::best(), parts, stride)
    }

    pub(super) fn sums_by(
        &self,
        dots: DotProducts,
        parts: &[&EightBitCodes],
        stride: [usize; 3],
    ) -> EightBitSums {
        let input = &Input::new(self, dots, parts, stride);
        let (size, layout) = (input.size, self.layout);
        let [depth, height, width] = size;
        let plane = height * width * layout.block;
        let mut halves = Memory::new(layout.blocks() * depth * plane * size_of::<u16>());
        let planes =
            halves.halves_mut()[..layout.blocks() * depth * plane].par_chunks_exact_mut(plane);
        let unit = self.unit();
        let found: Vec<_> = planes
            .enumerate()
            .evenly()
            .map(|(index, to)| {
                let (block, z) = (index / depth, index % depth);
                let mut found = vec![Statistics::NONE; layout.block];
                dots.run(SumPlane { input, block, z, unit, to, found: &mut found });
                found
            })
            .collect();
        let mut statistics = vec![Statistics::NONE; layout.channels];
        for (index, found) in found.iter().enumerate() {
            let to = &mut statistics[index / depth * layout.block..][..layout.block];
            to.iter_mut().zip(found).for_each(|(to, found)| to.add(found));
        }
        let unit = input.packed.scale.iter().map(|scale| scale / unit).collect();
        EightBitSums { size, layout, halves, unit, statistics }
    }

    /// The values of a convolution of single voxels.
    ///
    /// # Panics
    /// As [`sums`](Self::sums).
    pub fn values(&self, parts: &[&EightBitCodes]) -> EightBitValues {
        self.values_by(DotProducts::best(), parts)
    }

    pub(super) fn values_by(&self, dots: DotProducts, parts: &[&EightBitCodes]) -> EightBitValues {
        let input = &Input::new(self, dots, parts, [1; 3]);
        let (size, layout) = (input.size, self.layout);
        let [depth, height, width] = size;
        let plane = height * width * layout.block;
        let mut halves = Memory::new(layout.blocks() * depth * plane * size_of::<u16>());
        let planes =
            halves.halves_mut()[..layout.blocks() * depth * plane].par_chunks_exact_mut(plane);
        let found: Vec<_> = planes
            .enumerate()
            .evenly()
            .map(|(index, to)| {
                let (block, z) = (index / depth, index % depth);
                let mut found = vec![Range::ZERO; layout.block];
                dots.run(ValuePlane { input, block, z, to, found: &mut found });
                found
            })
            .collect();
        EightBitValues { size, layout, halves, ranges: ranges(layout, depth, &found) }
    }
}

/// The ranges of all channels from those of the planes of each block.
pub(super) fn ranges(layout: Layout, depth: usize, found: &[Vec<Range>]) -> Vec<Range> {
    let mut ranges = vec![Range::ZERO; layout.channels];
    for (index, found) in found.iter().enumerate() {
        let to = &mut ranges[index / depth * layout.block..][..layout.block];
        for (to, found) in to.iter_mut().zip(found) {
            *to = Range { least: to.least.min(found.least), most: to.most.max(found.most) };
        }
    }
    ranges
}

/// What a convolution reads.
pub(super) struct Input<'a> {
    conv: &'a EightBitConv,
    parts: Vec<&'a EightBitCodes>,
    pub packed: Packed,
    bias: Vec<f32>,
    stride: [usize; 3],
    /// Of the output.
    pub size: [usize; 3],
}

impl<'a> Input<'a> {
    pub fn new(
        conv: &'a EightBitConv,
        dots: DotProducts,
        parts: &[&'a EightBitCodes],
        stride: [usize; 3],
    ) -> Self {
        assert!((1..=PARTS).contains(&parts.len()), "one or two parts");
        let size = parts[0].size;
        assert!(parts.iter().all(|part| part.size == size), "parts of one size");
        let codings: Vec<_> = parts.iter().map(|part| part.codings.as_slice()).collect();
        let packed = conv.pack(dots, &codings);
        let size = std::array::from_fn(|axis| size[axis].div_ceil(stride[axis]));
        Self { conv, parts: parts.to_vec(), packed, bias: conv.bias(), stride, size }
    }

    /// What an output row reads.
    fn runs(&self, z: usize, y: usize) -> ([Run<'a>; PARTS * ROWS], usize) {
        let mut runs = [Run::default(); PARTS * ROWS];
        let mut count = 0;
        let kernel = self.conv.kernel;
        // The first voxel that a kernel reads, of those with the border.
        let first = 1 - kernel / 2;
        let [sz, sy, sx] = self.stride;
        for part in &self.parts {
            let [_, height, width] = part.size.map(|len| len + 2);
            let channels = part.channels();
            for (kz, ky) in (0..kernel).flat_map(|kz| (0..kernel).map(move |ky| (kz, ky))) {
                let row = (z * sz + first + kz) * height + y * sy + first + ky;
                let from = &part.codes()[(row * width + first) * channels..];
                let (step, length) = (sx * channels, kernel * channels);
                assert!(
                    (self.size[2] - 1) * step + length <= from.len(),
                    "a row inside the volume"
                );
                runs[count] = Run { from, step, fours: length / 4 };
                count += 1;
            }
        }
        (runs, count)
    }

    /// The weights of a block.
    fn weights(&self, block: usize) -> &[i8] {
        let length = self.conv.block_len();
        &self.packed.weights[block * length..][..length]
    }

    /// Values of the convolution of single voxels for one row, `[x, channel of the block]`.
    #[inline(always)]
    pub fn value_row<L: Lanes>(&self, lanes: L, [block, z, y]: [usize; 3], to: &mut [f32]) {
        let width = self.conv.layout.block;
        let first = block * width;
        let (scale, bias) = (&self.packed.scale[first..], &self.bias[first..]);
        let correction = &self.packed.correction[first..];
        let row = Row { input: self, block, z, y };
        row.sweep(lanes, ToValues { correction, scale, bias, width, to });
    }
}

/// Takes the sums of the voxels of a row.
trait Take<L: Lanes> {
    /// Those of a vector of a block, at a place of the row. Must be `#[inline(always)]`.
    fn take(&mut self, lanes: L, at: usize, vector: usize, sums: L::Sums);
}

/// Writes them as values.
struct ToValues<'a> {
    correction: &'a [i32],
    scale: &'a [f32],
    bias: &'a [f32],
    /// Channels of a block.
    width: usize,
    to: &'a mut [f32],
}

impl<L: Lanes> Take<L> for ToValues<'_> {
    #[inline(always)]
    fn take(&mut self, lanes: L, at: usize, vector: usize, sums: L::Sums) {
        let first = vector * LANES;
        let sums = lanes.difference(sums, lanes.load_sums(chunk(&self.correction[first..])));
        let value = lanes.multiply(lanes.to_values(sums), lanes.load(chunk(&self.scale[first..])));
        let value = lanes.add(value, lanes.load(chunk(&self.bias[first..])));
        lanes.store(chunk_mut(&mut self.to[at * self.width + first..]), value);
    }
}

/// Writes them in half precision, and measures them.
struct ToHalves<'a, L: Lanes> {
    correction: &'a [i32],
    unit: L::Values,
    /// Channels of a block.
    width: usize,
    to: &'a mut [u16],
    row: &'a mut [RowStatistics<L>; 4],
}

impl<L: Lanes> Take<L> for ToHalves<'_, L> {
    #[inline(always)]
    fn take(&mut self, lanes: L, at: usize, vector: usize, sums: L::Sums) {
        let first = vector * LANES;
        let sums = lanes.difference(sums, lanes.load_sums(chunk(&self.correction[first..])));
        let value = lanes.multiply(lanes.to_values(sums), self.unit);
        self.row[vector].add(lanes, value);
        lanes.store_halves(chunk_mut(&mut self.to[at * self.width + first..]), value);
    }
}

/// Bytes that lie in order, from the first output voxel of a row on.
#[derive(Clone, Copy, Default)]
struct Run<'a> {
    from: &'a [u8],
    /// Bytes from one output voxel to the next.
    step: usize,
    /// A quarter of the bytes that a voxel reads.
    fours: usize,
}

/// A row of outputs of a block.
struct Row<'a, 'b> {
    input: &'b Input<'a>,
    block: usize,
    z: usize,
    y: usize,
}

impl Row<'_, '_> {
    /// Gives every voxel's sums to `take`.
    #[inline(always)]
    fn sweep<L: Lanes>(&self, lanes: L, mut take: impl Take<L>) {
        let (runs, count) = self.input.runs(self.z, self.y);
        let (runs, weights) = (&runs[..count], self.input.weights(self.block));
        let vectors = self.input.conv.layout.vectors();
        let fours: usize = runs.iter().map(|run| run.fours).sum();
        assert_eq!(weights.len(), fours * vectors * WEIGHTS, "weights for all that is read");
        let width = self.input.size[2];
        macro_rules! tiles {
            ($vectors:literal: $($voxels:literal)*) => {{
                let mut x = 0;
                $(while width - x >= $voxels {
                    // SAFETY: `runs` has asserted that the row's voxels lie inside, and the weights are as many.
                    let sums = unsafe { tile::<L, $voxels, $vectors>(lanes, runs, x, weights.as_ptr()) };
                    for of in 0..$voxels {
                        for vector in 0..$vectors {
                            take.take(lanes, x + of, vector, sums[of][vector]);
                        }
                    }
                    x += $voxels;
                })*
                let _ = x;
            }};
        }
        match vectors {
            1 => tiles!(1: 16 8 4 2 1),
            2 => tiles!(2: 8 4 2 1),
            _ => tiles!(4: 4 2 1),
        }
    }
}

/// Sums of some voxels of a row, from `x` on.
///
/// # Safety
/// The runs hold the bytes of these voxels, and `weights` is one vector for each four bytes of a voxel and each
/// vector of outputs.
#[inline(always)]
unsafe fn tile<L: Lanes, const VOXELS: usize, const VECTORS: usize>(
    lanes: L,
    runs: &[Run<'_>],
    x: usize,
    mut weights: *const i8,
) -> [[L::Sums; VECTORS]; VOXELS] {
    let mut sums = [[lanes.no_sums(); VECTORS]; VOXELS];
    for run in runs {
        let step = run.step;
        // SAFETY: the caller's promise.
        let mut from = unsafe { run.from.as_ptr().add(x * step) };
        for _ in 0..run.fours {
            let mut of_four = [lanes.no_sums(); VECTORS];
            for vector in 0..VECTORS {
                // SAFETY: the caller's promise.
                of_four[vector] = unsafe { lanes.weights(weights.add(vector * WEIGHTS)) };
            }
            for voxel in 0..VOXELS {
                // SAFETY: the caller's promise.
                let codes = unsafe { lanes.codes(from.add(voxel * step)) };
                for vector in 0..VECTORS {
                    sums[voxel][vector] = lanes.dot(sums[voxel][vector], codes, of_four[vector]);
                }
            }
            // SAFETY: the caller's promise; at the end both are one past what is read.
            unsafe {
                weights = weights.add(VECTORS * WEIGHTS);
                from = from.add(4);
            }
        }
    }
    sums
}

/// Computes one plane of a block, in half precision.
struct SumPlane<'a, 'b> {
    input: &'b Input<'a>,
    block: usize,
    z: usize,
    unit: f32,
    to: &'b mut [u16],
    found: &'b mut [Statistics],
}

impl Work for SumPlane<'_, '_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let width = self.found.len();
        let row_len = self.input.size[2] * width;
        let correction = &self.input.packed.correction[self.block * width..][..width];
        let unit = lanes.splat(self.unit);
        for (y, to) in self.to.chunks_exact_mut(row_len).enumerate() {
            let mut row = [RowStatistics::new(lanes); 4];
            let sweep = Row { input: self.input, block: self.block, z: self.z, y };
            sweep.sweep(lanes, ToHalves { correction, unit, width, to, row: &mut row });
            for (row, found) in row.iter().zip(self.found.chunks_exact_mut(LANES)) {
                row.flush(lanes, found);
            }
        }
    }
}

/// [`Statistics`] of one row of a vector of channels.
#[derive(Clone, Copy)]
pub(super) struct RowStatistics<L: Lanes> {
    sum: L::Values,
    squares: L::Values,
    least: L::Values,
    most: L::Values,
}

impl<L: Lanes> RowStatistics<L> {
    #[inline(always)]
    pub fn new(lanes: L) -> Self {
        let zero = lanes.splat(0.0);
        let (least, most) = (lanes.splat(f32::INFINITY), lanes.splat(f32::NEG_INFINITY));
        Self { sum: zero, squares: zero, least, most }
    }

    #[inline(always)]
    pub fn add(&mut self, lanes: L, value: L::Values) {
        self.sum = lanes.add(self.sum, value);
        self.squares = lanes.add(self.squares, lanes.multiply(value, value));
        self.least = lanes.minimum(self.least, value);
        self.most = lanes.maximum(self.most, value);
    }

    #[inline(always)]
    pub fn flush(&self, lanes: L, to: &mut [Statistics]) {
        let mut values = [[0f32; LANES]; 4];
        let [sum, squares, least, most] = &mut values;
        lanes.store(sum, self.sum);
        lanes.store(squares, self.squares);
        lanes.store(least, self.least);
        lanes.store(most, self.most);
        let [sum, squares, least, most] = values;
        for (lane, to) in to.iter_mut().enumerate() {
            to.add(&Statistics {
                sum: f64::from(sum[lane]),
                squares: f64::from(squares[lane]),
                least: least[lane],
                most: most[lane],
            });
        }
    }
}

/// Computes the values of one plane of a block.
struct ValuePlane<'a, 'b> {
    input: &'b Input<'a>,
    block: usize,
    z: usize,
    to: &'b mut [u16],
    found: &'b mut [Range],
}

impl Work for ValuePlane<'_, '_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let row_len = self.input.size[2] * self.found.len();
        let mut values = vec![0f32; row_len];
        for (y, to) in self.to.chunks_exact_mut(row_len).enumerate() {
            self.input.value_row(lanes, [self.block, self.z, y], &mut values);
            store_row(lanes, &values, to, self.found);
        }
    }
}

/// Writes a row of values in half precision, and widens the ranges of their channels.
#[inline(always)]
pub(super) fn store_row<L: Lanes>(lanes: L, values: &[f32], to: &mut [u16], found: &mut [Range]) {
    let width = found.len();
    for (vector, found) in found.chunks_exact_mut(LANES).enumerate() {
        let (mut least, mut most) = (lanes.splat(0.0), lanes.splat(0.0));
        let pairs = values.chunks_exact(width).zip(to.chunks_exact_mut(width));
        for (from, to) in pairs {
            let value = lanes.load(chunk(&from[vector * LANES..]));
            least = lanes.minimum(least, value);
            most = lanes.maximum(most, value);
            lanes.store_halves(chunk_mut(&mut to[vector * LANES..]), value);
        }
        let (mut low, mut high) = ([0f32; LANES], [0f32; LANES]);
        lanes.store(&mut low, least);
        lanes.store(&mut high, most);
        for (lane, found) in found.iter_mut().enumerate() {
            found.least = found.least.min(low[lane]);
            found.most = found.most.max(high[lane]);
        }
    }
}
