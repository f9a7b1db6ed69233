//! The norm of voxels whose channels lie side by side: of what a convolution reads, and of what one wrote.

use super::{Affine, InPlace, Parameters, Statistics, channel};
use crate::cpu::evenly::Evenly;
use crate::cpu::memory::Output;
use crate::cpu::simd::{Isa, Simd, Task};
use rayon::prelude::*;

/// A norm with its activation, for a convolution to apply to what it reads.
pub(crate) struct Normed {
    /// Of every channel of every sample.
    affine: Vec<Affine>,
    slope: f32,
}

impl Normed {
    /// Channels that are read at a time.
    pub(crate) const BLOCK: usize = 16;

    /// # Panics
    /// When the slope is above 1.
    pub(crate) fn new(parameters: Parameters<'_>, statistics: &[Statistics]) -> Self {
        assert!(parameters.slope <= 1.0, "of a value and its slope's multiple the larger is taken");
        let affine = |index| channel(index, None, 0, parameters, statistics).0;
        Self { affine: (0..statistics.len()).map(affine).collect(), slope: parameters.slope }
    }

    /// For `count` channels, at most a block, from `first` on, counted through all samples; what lies behind them
    /// becomes zero.
    #[inline(always)]
    pub(crate) fn block(&self, first: usize, count: usize) -> NormedBlock {
        let zeros = [0.0; Normed::BLOCK];
        let mut found = NormedBlock { mean: zeros, scale: zeros, shift: zeros, slope: self.slope };
        for (i, affine) in self.affine[first..first + count].iter().enumerate() {
            found.mean[i] = affine.mean;
            found.scale[i] = affine.scale;
            found.shift[i] = affine.shift;
        }
        found
    }
}

/// What [`Normed`] does to a voxel whose channels lie beside each other.
#[derive(Clone, Copy)]
pub(crate) struct NormedBlock {
    mean: [f32; Normed::BLOCK],
    scale: [f32; Normed::BLOCK],
    shift: [f32; Normed::BLOCK],
    slope: f32,
}

impl NormedBlock {
    /// Writes the norm of `count` voxels, `step` values apart, to places that are `to_step` apart; the arithmetic is that
    /// of planes.
    ///
    /// # Safety
    /// A block of values is valid at each voxel for reading, and at each place for writing.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(
        &self,
        simd: S,
        (from, step): (*const f32, usize),
        (to, to_step): (*mut f32, usize),
        count: usize,
    ) {
        const { assert!(Normed::BLOCK.is_multiple_of(S::LANES), "whole vectors") };
        let slope = simd.splat(self.slope);
        for part in (0..Normed::BLOCK).step_by(S::LANES) {
            // SAFETY: vectors inside of a block of values, which are here and which the caller promises.
            unsafe {
                let mean = simd.load(self.mean.as_ptr().add(part));
                let scale = simd.load(self.scale.as_ptr().add(part));
                let shift = simd.load(self.shift.as_ptr().add(part));
                for voxel in 0..count {
                    let value = simd.load(from.add(voxel * step + part));
                    let value = simd.multiply(simd.subtract(value, mean), scale);
                    let value = simd.add(value, shift);
                    // With a slope of at most 1 the larger one, and what is not a number stays so.
                    let value = simd.maximum(simd.multiply(value, slope), value);
                    simd.store(to.add(voxel * to_step + part), value);
                }
            }
        }
    }
}

/// Voxels whose channels are taken apart at a time.
const APART: usize = 512;

/// [`normalise`] of a tensor whose channels lie innermost, a multiple of 8 of them; the result is planes.
pub(crate) fn normalise_to_planes(
    isa: Isa,
    x: &[f32],
    residual: Option<&[f32]>,
    volume: usize,
    parameters: Parameters<'_>,
    statistics: &[Statistics],
) -> Output {
    let mut output = Output::new(x.len());
    let target = output.target();
    let (channels, blocks) = (parameters.weight.len(), volume.div_ceil(APART));
    assert!(channels.is_multiple_of(8) && x.len() == statistics.len() * volume, "whole voxels");
    (0..statistics.len() / channels * blocks).into_par_iter().evenly().for_each(|task| {
        let (sample, first) = (task / blocks, task % blocks * APART);
        let voxels = APART.min(volume - first);
        let x = &x[(sample * volume + first) * channels..][..voxels * channels];
        for group in (0..channels).step_by(8) {
            let plane = |i: usize| (sample * channels + group + i) * volume + first;
            // SAFETY: voxels of eight channels, which this task alone writes, inside of the output.
            let mut planes = eight!(|I| unsafe { target.slice(plane(I), voxels) });
            isa.run(Apart { x: &x[group..], channels, planes: &mut planes });
            for (i, to) in planes.into_iter().enumerate() {
                let index = sample * channels + group + i;
                let (affine, residual) = channel(index, residual, volume, parameters, statistics);
                let residual = residual.map(|values| &values[first..][..voxels]);
                isa.run(InPlace { affine, slope: parameters.slope, residual, to });
            }
        }
    });
    output
}

/// Eight channels of voxels, `channels` values apart, to a plane each.
struct Apart<'a, 'b> {
    x: &'a [f32],
    channels: usize,
    planes: &'a mut [&'b mut [f32]; 8],
}

impl Task for Apart<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, channels, planes } = self;
        let len = planes[0].len();
        assert!(planes.iter().all(|plane| plane.len() == len), "as many voxels of each channel");
        assert!(len > 0 && x.len() >= (len - 1) * channels + 8, "eight channels of each voxel");
        let whole = len / 8 * 8;
        for at in (0..whole).step_by(8) {
            // SAFETY: voxels `at..at + 8` and their eight channels lie in `x` and in each plane, as asserted.
            unsafe {
                simd.transpose(
                    eight!(|I| x.as_ptr().add((at + I) * channels)),
                    eight!(|I| planes[I].as_mut_ptr().add(at)),
                );
            }
        }
        for at in whole..len {
            for (i, plane) in planes.iter_mut().enumerate() {
                plane[at] = x[at * channels + i];
            }
        }
    }
}
