//! Instance norms of sums, and what follows them.

use super::conv::{EightBitSums, Input, RowStatistics, Statistics, ranges, store_row};
use super::lanes::{DotProducts, LANES, Lanes, Work};
use super::volume::{Affine, EightBitCodes, EightBitValues, Layout, Range, Rows, chunk, chunk_mut};
use super::weights::EightBitConv;
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::{Output, Target};
use crate::eight_bit::norm::EightBitNorm;
use rayon::prelude::*;

impl EightBitNorm {
    /// What it does to the values of each channel, of which one is worth `unit`; channels beyond its own become 0.
    fn affine(&self, statistics: &[Statistics], unit: &[f32], voxels: usize) -> Vec<Affine> {
        let of = |(channel, (statistics, unit)): (usize, (&Statistics, &f32))| {
            let (Some(weight), Some(bias)) = (self.weight.get(channel), self.bias.get(channel))
            else {
                return Affine { scale: 0.0, shift: 0.0 };
            };
            let [mean, square] =
                [statistics.sum, statistics.squares].map(|sum| sum / voxels as f64);
            let unit = f64::from(*unit);
            let variance = (square - mean * mean).max(0.0) * unit * unit;
            let scale = f64::from(*weight) * unit / (variance + self.epsilon).sqrt();
            Affine { scale: scale as f32, shift: (f64::from(*bias) - mean * scale) as f32 }
        };
        statistics.iter().zip(unit).enumerate().map(of).collect()
    }
}

/// What is added behind a norm.
pub enum EightBitResidual<'a> {
    /// Values as they are.
    Values(&'a EightBitValues),
    /// A convolution of single voxels.
    Convolved {
        /// The convolution.
        conv: &'a EightBitConv,
        /// Its input.
        parts: &'a [&'a EightBitCodes],
        /// Voxels from one that is read to the next.
        stride: [usize; 3],
    },
    /// The same of an image in single precision, at stride 1.
    Image {
        /// `[Cin, z, y, x]`.
        values: &'a [f32],
        /// `[Cout, Cin]`.
        weight: &'a [f32],
        /// `[Cout]`.
        bias: &'a [f32],
    },
}

impl EightBitCodes {
    /// What a norm and its activation make of values `[C, z, y, x]` in single precision, in eight bits.
    ///
    /// # Panics
    /// When there is not a volume for each channel of the norm.
    pub fn of_normed(values: &[f32], size: [usize; 3], norm: &EightBitNorm) -> Self {
        Self::of_normed_by(DotProducts::best(), values, size, norm)
    }

    pub(super) fn of_normed_by(
        dots: DotProducts,
        values: &[f32],
        size: [usize; 3],
        norm: &EightBitNorm,
    ) -> Self {
        let voxels = size.iter().product::<usize>();
        assert_eq!(values.len(), voxels * norm.weight.len(), "a volume for each channel");
        let channels = norm.weight.len().next_multiple_of(LANES);
        let of_piece = |piece: &[f32]| {
            let mut found = Statistics::NONE;
            dots.run(PlaneStatistics { values: piece, found: &mut found });
            found
        };
        let mut statistics: Vec<_> = values
            .par_chunks_exact(voxels)
            .map(|channel| {
                let pieces: Vec<_> = channel.par_chunks(1 << 16).map(of_piece).collect();
                let mut sum = Statistics::NONE;
                pieces.iter().for_each(|piece| sum.add(piece));
                sum
            })
            .collect();
        statistics.resize(channels, Statistics { least: 0.0, most: 0.0, ..Statistics::NONE });
        let affine = norm.affine(&statistics, &vec![1.0; channels], voxels);
        let ranges = ranges_of(&statistics);
        Self::new(dots, Rows::Planes { values, size }, size, (&affine, &ranges, norm.slope))
    }
}

/// The ranges of values as they are: 0 need not be among them.
fn ranges_of(statistics: &[Statistics]) -> Vec<Range> {
    // What is no number is neither larger nor smaller than anything, but makes the sum none.
    let bad = Range { least: f32::NAN, most: f32::NAN };
    let of = |of: &Statistics| match of.squares.is_finite() {
        true => Range { least: of.least, most: of.most },
        false => bad,
    };
    statistics.iter().map(of).collect()
}

struct PlaneStatistics<'a> {
    values: &'a [f32],
    found: &'a mut Statistics,
}

impl Work for PlaneStatistics<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        // Lanes are voxels here, and a channel's sums are flushed before single precision loses digits.
        let mut found = [Statistics::NONE; LANES];
        let (vectors, rest) = self.values.as_chunks::<LANES>();
        for vectors in vectors.chunks(64) {
            let mut row = RowStatistics::new(lanes);
            for values in vectors {
                row.add(lanes, lanes.load(values));
            }
            row.flush(lanes, &mut found);
        }
        found.iter().for_each(|found| self.found.add(found));
        for value in rest {
            let wide = f64::from(*value);
            let (sum, squares) = (wide, wide * wide);
            self.found.add(&Statistics { sum, squares, least: *value, most: *value });
        }
    }
}

impl EightBitSums {
    fn affine(&self, norm: &EightBitNorm) -> Vec<Affine> {
        assert!(norm.weight.len() <= self.layout.channels, "a channel for each of the norm's");
        norm.affine(&self.statistics, &self.unit, self.size.iter().product())
    }

    /// The norm and its activation, in eight bits.
    ///
    /// # Panics
    /// When the norm has more channels.
    pub fn normed(&self, norm: &EightBitNorm) -> EightBitCodes {
        self.normed_by(DotProducts::best(), norm)
    }

    pub(super) fn normed_by(&self, dots: DotProducts, norm: &EightBitNorm) -> EightBitCodes {
        let Self { size, layout, .. } = *self;
        let rows = Rows::Halves { halves: self.halves.halves(), layout, size, repeats: [1; 3] };
        let ranges = ranges_of(&self.statistics);
        EightBitCodes::new(dots, rows, size, (&self.affine(norm), &ranges, norm.slope))
    }

    /// The norm, `residual`, and then the activation.
    ///
    /// # Panics
    /// When the residual has another size or other channels.
    pub fn normed_with(
        self,
        norm: &EightBitNorm,
        residual: &EightBitResidual<'_>,
    ) -> EightBitValues {
        self.normed_with_by(DotProducts::best(), norm, residual)
    }

    pub(super) fn normed_with_by(
        mut self,
        dots: DotProducts,
        norm: &EightBitNorm,
        residual: &EightBitResidual<'_>,
    ) -> EightBitValues {
        let affine = &self.affine(norm);
        let (size, layout, slope) = (self.size, self.layout, norm.slope);
        let added = &Added::new(residual, dots, size, layout);
        let plane = size[1] * size[2] * layout.block;
        let planes = &mut self.halves.halves_mut()[..layout.blocks() * size[0] * plane];
        let found: Vec<_> = planes
            .par_chunks_exact_mut(plane)
            .enumerate()
            .evenly()
            .map(|(index, to)| {
                let mut found = vec![Range::ZERO; layout.block];
                let plane = Plane { affine, slope, added, size, layout, index };
                dots.run(NormedPlane { plane, to, found: &mut found });
                found
            })
            .collect();
        let ranges = ranges(layout, size[0], &found);
        EightBitValues { size, layout, halves: self.halves, ranges }
    }

    /// [`normed_with`](Self::normed_with) in single precision, `[C, z, y, x]`, of as many channels as the norm has.
    ///
    /// # Panics
    /// As [`normed_with`](Self::normed_with).
    pub(super) fn planes_by(
        &self,
        dots: DotProducts,
        norm: &EightBitNorm,
        residual: &EightBitResidual<'_>,
    ) -> Output {
        let affine = &self.affine(norm);
        let (size, layout, slope) = (self.size, self.layout, norm.slope);
        let added = &Added::new(residual, dots, size, layout);
        let (voxels, channels) = (size.iter().product::<usize>(), norm.weight.len());
        let mut output = Output::new(channels * voxels);
        let target = output.target();
        let plane = size[1] * size[2] * layout.block;
        let planes =
            self.halves.halves()[..layout.blocks() * size[0] * plane].par_chunks_exact(plane);
        planes.enumerate().evenly().for_each(|(index, from)| {
            let plane = Plane { affine, slope, added, size, layout, index };
            dots.run(PlanesOut { plane, from, channels, target });
        });
        output
    }
}

/// A residual, ready to be added.
enum Added<'a> {
    Values(&'a EightBitValues),
    Convolved(Input<'a>),
    Image { values: &'a [f32], weight: Vec<f32>, bias: Vec<f32> },
}

impl<'a> Added<'a> {
    fn new(
        residual: &EightBitResidual<'a>,
        dots: DotProducts,
        size: [usize; 3],
        layout: Layout,
    ) -> Self {
        match residual {
            EightBitResidual::Values(values) => {
                assert_eq!(
                    (values.size, values.layout),
                    (size, layout),
                    "a residual of the sums' shape"
                );
                Self::Values(values)
            }
            EightBitResidual::Convolved { conv, parts, stride } => {
                assert_eq!(
                    (conv.kernel, conv.layout),
                    (1, layout),
                    "a convolution of single voxels"
                );
                let input = Input::new(conv, dots, parts, *stride);
                assert_eq!(input.size, size, "a residual of the sums' size");
                Self::Convolved(input)
            }
            EightBitResidual::Image { values, weight, bias } => {
                let inputs = weight.len() / bias.len().max(1);
                assert_eq!(
                    values.len(),
                    inputs * size.iter().product::<usize>(),
                    "a volume per input"
                );
                // `[input, output]`, in whole vectors.
                let mut turned = vec![0.0; inputs * layout.channels];
                for (output, of) in weight.chunks_exact(inputs.max(1)).enumerate() {
                    for (input, weight) in of.iter().enumerate() {
                        turned[input * layout.channels + output] = *weight;
                    }
                }
                let mut bias = bias.to_vec();
                bias.resize(layout.channels, 0.0);
                Self::Image { values, weight: turned, bias }
            }
        }
    }
}

/// A plane of a block.
struct Plane<'a> {
    affine: &'a [Affine],
    slope: f32,
    added: &'a Added<'a>,
    size: [usize; 3],
    layout: Layout,
    /// Of the planes of all blocks.
    index: usize,
}

impl Plane<'_> {
    /// The final values of a row, `[x, channel of the block]`, from its sums.
    #[inline(always)]
    fn row<L: Lanes>(&self, lanes: L, y: usize, sums: &[u16], to: &mut [f32]) {
        let width = self.layout.block;
        let (block, z) = (self.index / self.size[0], self.index % self.size[0]);
        self.residual_row(lanes, [block, z, y], to);
        let slope = lanes.splat(self.slope);
        for vector in 0..self.layout.vectors() {
            let first = block * width + vector * LANES;
            let affine: &[Affine; LANES] = chunk(&self.affine[first..]);
            let scale = lanes.load(&affine.map(|of| of.scale));
            let shift = lanes.load(&affine.map(|of| of.shift));
            for (sums, to) in sums.chunks_exact(width).zip(to.chunks_exact_mut(width)) {
                let to = chunk_mut(&mut to[vector * LANES..]);
                let value = lanes.load_halves(chunk(&sums[vector * LANES..]));
                let value = lanes.add(lanes.multiply(value, scale), shift);
                let value = lanes.add(value, lanes.load(to));
                lanes.store(to, lanes.maximum(value, lanes.multiply(value, slope)));
            }
        }
    }

    #[inline(always)]
    fn residual_row<L: Lanes>(&self, lanes: L, [block, z, y]: [usize; 3], to: &mut [f32]) {
        let [depth, height, width] = self.size;
        match self.added {
            Added::Convolved(input) => input.value_row(lanes, [block, z, y], to),
            Added::Values(values) => {
                let from = ((block * depth + z) * height + y) * width * self.layout.block;
                let from = &values.halves.halves()[from..][..to.len()];
                let pairs = from.as_chunks::<LANES>().0.iter().zip(to.as_chunks_mut::<LANES>().0);
                for (from, to) in pairs {
                    lanes.store(to, lanes.load_halves(from));
                }
            }
            Added::Image { values, weight, bias } => {
                let (voxels, channels) = (depth * height * width, self.layout.channels);
                for vector in 0..self.layout.vectors() {
                    let first = block * self.layout.block + vector * LANES;
                    let bias = lanes.load(chunk(&bias[first..]));
                    for (x, to) in to.chunks_exact_mut(self.layout.block).enumerate() {
                        let at = (z * height + y) * width + x;
                        let mut value = bias;
                        for (input, weight) in weight.chunks_exact(channels).enumerate() {
                            let factor = lanes.splat(values[input * voxels + at]);
                            let weight = lanes.load(chunk(&weight[first..]));
                            value = lanes.add(value, lanes.multiply(factor, weight));
                        }
                        lanes.store(chunk_mut(&mut to[vector * LANES..]), value);
                    }
                }
            }
        }
    }
}

/// Writes a plane over its sums.
struct NormedPlane<'a> {
    plane: Plane<'a>,
    to: &'a mut [u16],
    found: &'a mut [Range],
}

impl Work for NormedPlane<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let row_len = self.plane.size[2] * self.plane.layout.block;
        let mut row = vec![0f32; row_len];
        for (y, to) in self.to.chunks_exact_mut(row_len).enumerate() {
            self.plane.row(lanes, y, to, &mut row);
            store_row(lanes, &row, to, self.found);
        }
    }
}

/// Writes a plane of a block to the planes of its channels.
struct PlanesOut<'a> {
    plane: Plane<'a>,
    from: &'a [u16],
    channels: usize,
    target: Target,
}

impl Work for PlanesOut<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Plane { size: [_, _, width], layout, .. } = self.plane;
        let mut row = vec![0f32; width * layout.block];
        for (y, from) in self.from.chunks_exact(row.len()).enumerate() {
            self.plane.row(lanes, y, from, &mut row);
            for first in (0..layout.block).step_by(LANES) {
                self.write(lanes, y, first, &row);
            }
        }
    }
}

impl PlanesOut<'_> {
    /// Writes a vector of channels of a row to their planes.
    #[inline(always)]
    fn write<L: Lanes>(&self, lanes: L, y: usize, first: usize, row: &[f32]) {
        let Plane { size: [depth, height, width], layout, index, .. } = self.plane;
        let (channel, z) = (index / depth * layout.block + first, index % depth);
        let count = self.channels.saturating_sub(channel).min(LANES);
        let at = |of: usize| (((channel + of) * depth + z) * height + y) * width;
        let whole = if count == LANES { width / LANES * LANES } else { 0 };
        for x in (0..whole).step_by(LANES) {
            let mut rows = [lanes.splat(0.0); LANES];
            for of in 0..LANES {
                rows[of] = lanes.load(chunk(&row[(x + of) * layout.block + first..]));
            }
            let columns = lanes.transposed(rows);
            for of in 0..LANES {
                // SAFETY: voxels of a channel inside the output, which this task alone writes.
                let to = unsafe { self.target.slice(at(of) + x, LANES) };
                lanes.store(chunk_mut(to), columns[of]);
            }
        }
        for of in 0..count {
            // SAFETY: as above.
            let to = unsafe { self.target.slice(at(of) + whole, width - whole) };
            let from = row.iter().skip(whole * layout.block + first + of).step_by(layout.block);
            to.iter_mut().zip(from).for_each(|(to, value)| *to = *value);
        }
    }
}
