//! What lies between operators: codes, and values in half precision.

use super::lanes::{DotProducts, LANES, Lanes, Work};
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::Output;
use burn::tensor::f16;
use rayon::prelude::*;

/// Numbers of one or two bytes in memory that is kept for later ones.
pub(super) struct Memory(Output);

impl Memory {
    /// Room for so many bytes, which have no meaning yet.
    pub fn new(bytes: usize) -> Self {
        Self(Output::new(bytes.div_ceil(size_of::<f32>())))
    }

    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self.0.values())
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self.0.values_mut())
    }

    pub fn halves(&self) -> &[u16] {
        bytemuck::cast_slice(self.0.values())
    }

    pub fn halves_mut(&mut self) -> &mut [u16] {
        bytemuck::cast_slice_mut(self.0.values_mut())
    }
}

/// The smallest and the largest value of a channel, 0 among them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub least: f32,
    pub most: f32,
}

impl Range {
    pub const ZERO: Self = Self { least: 0.0, most: 0.0 };

    pub fn of(least: f32, most: f32) -> Self {
        // `min` and `max` would drop what is no number.
        let bad = least.is_nan() || most.is_nan();
        let [least, most] = if bad { [f32::NAN; 2] } else { [least.min(0.0), most.max(0.0)] };
        Self { least, most }
    }

    /// NaN where a value is too large for half precision.
    fn in_halves(self) -> Self {
        let most = f16::MAX.to_f32();
        if self.least >= -most && self.most <= most { self } else { Self::of(f32::NAN, f32::NAN) }
    }

    fn is_finite(self) -> bool {
        self.least.is_finite() && self.most.is_finite()
    }
}

/// How the values of a channel become codes: `round(value / scale) + zero`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Coding {
    /// Difference of two values whose codes are neighbours; 0 where all values are 0.
    pub scale: f32,
    /// The code of 0.
    pub zero: u8,
}

impl Coding {
    fn of(range: Range) -> Self {
        // One code less than there are: the code of 0 is rounded, and nothing is cut off by that.
        let scale = (range.most - range.least) / 254.0;
        if !(scale > 0.0 && scale.is_finite()) {
            return Self { scale: 0.0, zero: 0 };
        }
        Self { scale, zero: (-range.least / scale).round() as u8 }
    }

    /// 1 / scale.
    fn per_value(self) -> f32 {
        if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 }
    }
}

/// A volume in eight bits: what convolutions read.
///
/// Each channel has a scale and a code for 0 of its own. Around the volume lies one voxel of that code, the
/// padding of convolutions.
pub struct EightBitCodes {
    /// Voxels along z, y and x.
    pub(super) size: [usize; 3],
    /// `[z + 2, y + 2, x + 2, channels]`, channels in whole vectors.
    codes: Memory,
    /// Of each channel, in whole vectors.
    pub(super) codings: Vec<Coding>,
    finite: bool,
}

/// A volume in half precision, with the range of each channel.
pub struct EightBitValues {
    pub(super) size: [usize; 3],
    pub(super) layout: Layout,
    /// `[block, z, y, x, channel of the block]`.
    pub(super) halves: Memory,
    pub(super) ranges: Vec<Range>,
}

/// How channels lie in half precision: in blocks, each a volume of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Channels, in whole vectors.
    pub channels: usize,
    /// Of them in a block.
    pub block: usize,
}

impl Layout {
    pub fn blocks(self) -> usize {
        self.channels / self.block
    }

    /// Vectors of a block.
    pub fn vectors(self) -> usize {
        self.block / LANES
    }
}

/// What is done to a value of a channel before it becomes a code: `value * scale + shift`, then the activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Affine {
    pub scale: f32,
    pub shift: f32,
}

impl Affine {
    pub const NONE: Self = Self { scale: 1.0, shift: 0.0 };

    /// The range of what becomes of values in `range`.
    pub fn after(self, range: Range, slope: f32) -> Range {
        let of = |value: f32| {
            let value = value * self.scale + self.shift;
            value.max(value * slope)
        };
        let [a, b] = [of(range.least), of(range.most)];
        Range::of(a.min(b), a.max(b))
    }
}

/// [`Affine`] and [`Coding`] of every channel as one.
struct Coder {
    scale: Vec<f32>,
    shift: Vec<f32>,
    zero: Vec<f32>,
    slope: f32,
}

impl Coder {
    fn new(affine: &[Affine], codings: &[Coding], slope: f32) -> Self {
        let both = || affine.iter().zip(codings);
        Self {
            scale: both().map(|(affine, coding)| affine.scale * coding.per_value()).collect(),
            shift: both().map(|(affine, coding)| affine.shift * coding.per_value()).collect(),
            zero: codings.iter().map(|coding| f32::from(coding.zero)).collect(),
            slope,
        }
    }
}

/// Where the values of a row come from.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    /// Half precision, of voxels that are repeated by whole factors.
    Halves { halves: &'a [u16], layout: Layout, size: [usize; 3], repeats: [usize; 3] },
    /// Single precision, `[channel, z, y, x]`; channels that are missing are 0.
    Planes { values: &'a [f32], size: [usize; 3] },
}

impl EightBitCodes {
    /// Codes of values that have `ranges`.
    pub(super) fn new(
        dots: DotProducts,
        rows: Rows<'_>,
        size: [usize; 3],
        (affine, ranges, slope): (&[Affine], &[Range], f32),
    ) -> Self {
        let pairs = affine.iter().zip(ranges);
        let ranges: Vec<_> = pairs.map(|(affine, range)| affine.after(*range, slope)).collect();
        let finite = ranges.iter().all(|range| range.is_finite());
        let codings: Vec<_> = ranges.iter().map(|range| Coding::of(*range)).collect();
        let channels = codings.len();
        let [_, height, width] = size.map(|len| len + 2);
        let plane = height * width * channels;
        let mut codes = Memory::new((size[0] + 2) * plane);
        let coder = &Coder::new(affine, &codings, slope);
        let zeros: Vec<u8> = codings.iter().map(|coding| coding.zero).collect();
        let planes = codes.bytes_mut()[..(size[0] + 2) * plane].par_chunks_exact_mut(plane);
        planes.enumerate().evenly().for_each(|(z, to)| {
            let inside = (1..=size[0]).contains(&z);
            for (y, to) in to.chunks_exact_mut(width * channels).enumerate() {
                if !inside || !(1..=size[1]).contains(&y) {
                    to.chunks_exact_mut(channels).for_each(|to| to.copy_from_slice(&zeros));
                    continue;
                }
                to[..channels].copy_from_slice(&zeros);
                to[(width - 1) * channels..].copy_from_slice(&zeros);
                let to = &mut to[channels..(width - 1) * channels];
                dots.run(CodeRow { rows, at: [z - 1, y - 1], coder, to });
            }
        });
        Self { size, codes, codings, finite }
    }

    /// Voxels along z, y and x.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    /// Whether no value was infinite or no number.
    pub fn is_finite(&self) -> bool {
        self.finite
    }

    pub(super) fn channels(&self) -> usize {
        self.codings.len()
    }

    pub(super) fn codes(&self) -> &[u8] {
        let [z, y, x] = self.size.map(|len| len + 2);
        &self.codes.bytes()[..z * y * x * self.channels()]
    }
}

impl EightBitValues {
    /// Voxels along z, y and x.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    /// The values in eight bits, every voxel repeated by whole factors along z, y and x.
    pub fn codes(&self, repeats: [usize; 3]) -> EightBitCodes {
        self.codes_by(DotProducts::best(), repeats)
    }

    pub(super) fn codes_by(&self, dots: DotProducts, repeats: [usize; 3]) -> EightBitCodes {
        let (halves, layout, size) = (self.halves.halves(), self.layout, self.size);
        let rows = Rows::Halves { halves, layout, size, repeats };
        let size = std::array::from_fn(|axis| size[axis] * repeats[axis]);
        let affine = vec![Affine::NONE; layout.channels];
        let ranges: Vec<_> = self.ranges.iter().map(|range| range.in_halves()).collect();
        EightBitCodes::new(dots, rows, size, (&affine, &ranges, 1.0))
    }
}

/// Writes the codes of one row.
struct CodeRow<'a> {
    rows: Rows<'a>,
    /// Plane and row.
    at: [usize; 2],
    coder: &'a Coder,
    /// `[x, channels]`.
    to: &'a mut [u8],
}

impl Work for CodeRow<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        match self.rows {
            Rows::Halves { halves, layout, size, repeats } => {
                self.of_halves(lanes, (halves, layout, size, repeats));
            }
            Rows::Planes { values, size } => self.of_planes(lanes, (values, size)),
        }
    }
}

impl CodeRow<'_> {
    #[inline(always)]
    fn of_halves<L: Lanes>(
        self,
        lanes: L,
        (halves, layout, [depth, height, width], repeats): (&[u16], Layout, [usize; 3], [usize; 3]),
    ) {
        let [z, y] = [self.at[0] / repeats[0], self.at[1] / repeats[1]];
        let channels = layout.channels;
        for block in 0..layout.blocks() {
            let from = ((block * depth + z) * height + y) * width * layout.block;
            let row = &halves[from..][..width * layout.block];
            for vector in 0..layout.vectors() {
                let channel = block * layout.block + vector * LANES;
                let code = CodeVector::new(lanes, self.coder, channel);
                let to = self.to.chunks_exact_mut(repeats[2] * channels);
                for (from, to) in row.chunks_exact(layout.block).zip(to) {
                    let from = chunk(&from[vector * LANES..]);
                    let value = lanes.load_halves(from);
                    for to in to.chunks_exact_mut(channels) {
                        code.write(lanes, value, chunk_mut(&mut to[channel..]));
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn of_planes<L: Lanes>(self, lanes: L, (values, [depth, height, width]): (&[f32], [usize; 3])) {
        let (volume, channels) = (depth * height * width, self.coder.scale.len());
        let from = (self.at[0] * height + self.at[1]) * width;
        for channel in (0..channels).step_by(LANES) {
            let code = CodeVector::new(lanes, self.coder, channel);
            let there = (values.len() / volume - channel).min(LANES);
            for (piece, to) in self.to.chunks_mut(LANES * channels).enumerate() {
                let mut block = [[0f32; LANES]; LANES];
                let count = to.len() / channels;
                if (there, count) == (LANES, LANES) {
                    let mut rows = [lanes.splat(0.0); LANES];
                    for of in 0..LANES {
                        let at = (channel + of) * volume + from + piece * LANES;
                        rows[of] = lanes.load(chunk(&values[at..]));
                    }
                    let columns = lanes.transposed(rows);
                    for of in 0..LANES {
                        let to = chunk_mut(&mut to[of * channels + channel..]);
                        code.write(lanes, columns[of], to);
                    }
                    continue;
                }
                for of in 0..there {
                    let row = &values[(channel + of) * volume + from + piece * LANES..][..count];
                    block.iter_mut().zip(row).for_each(|(to, value)| to[of] = *value);
                }
                for (from, to) in block.iter().zip(to.chunks_exact_mut(channels)) {
                    code.write(lanes, lanes.load(from), chunk_mut(&mut to[channel..]));
                }
            }
        }
    }
}

/// A vector's part of a [`Coder`].
struct CodeVector<L: Lanes> {
    scale: L::Values,
    shift: L::Values,
    zero: L::Values,
    slope: L::Values,
}

impl<L: Lanes> CodeVector<L> {
    #[inline(always)]
    fn new(lanes: L, coder: &Coder, channel: usize) -> Self {
        Self {
            scale: lanes.load(chunk(&coder.scale[channel..])),
            shift: lanes.load(chunk(&coder.shift[channel..])),
            zero: lanes.load(chunk(&coder.zero[channel..])),
            slope: lanes.splat(coder.slope),
        }
    }

    #[inline(always)]
    fn write(&self, lanes: L, value: L::Values, to: &mut [u8; LANES]) {
        let value = lanes.add(lanes.multiply(value, self.scale), self.shift);
        let value = lanes.maximum(value, lanes.multiply(value, self.slope));
        lanes.store_codes(to, lanes.add(value, self.zero));
    }
}

/// The first vector of a slice.
#[inline(always)]
pub(super) fn chunk<T>(values: &[T]) -> &[T; LANES] {
    values.first_chunk().expect("a whole vector")
}

#[inline(always)]
pub(super) fn chunk_mut<T>(values: &mut [T]) -> &mut [T; LANES] {
    values.first_chunk_mut().expect("a whole vector")
}
