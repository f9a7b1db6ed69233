//! The inner loops: register tiles of voxels × output channels.

use super::geometry::CHANNELS;
use crate::cpu::simd::Simd;

/// What a tile reads for one tap of one block of channels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    /// First value in the buffer, for the run's first voxel.
    pub input: usize,
    /// First packed weight.
    pub weight: usize,
    /// Channels.
    pub channels: usize,
}

/// Sums over `segments` for a run of voxels, `VECTORS` vectors of output channels each.
///
/// `sums` holds the run's voxels one after the other, `step` values apart. They begin as `start` where
/// it is given, else where they stand.
///
/// # Safety
/// For every segment, `CHANNELS` values lie in `input` at each voxel of the run (`CHANNELS` apart,
/// from the segment's first on), and `channels` times a voxel's sums in `weight`; `sums` holds the
/// run; `start` one voxel's sums.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn sweep<S: Simd, const VECTORS: usize>(
    simd: S,
    voxels: usize,
    input: *const f32,
    weight: *const f32,
    segments: &[Segment],
    start: Option<*const f32>,
    sums: *mut f32,
    step: usize,
) {
    const { assert!(S::TILE >= 1 && S::TILE <= 14, "tiles are written for up to 14 voxels") };
    // Tiles of nearly equal length: a short one at the end would starve the multipliers.
    let tiles = voxels.div_ceil(S::TILE);
    for index in 0..tiles {
        let (from, to) = (voxels * index / tiles, voxels * (index + 1) / tiles);
        // SAFETY: voxels `from..to` lie in the run.
        unsafe {
            let input = input.add(from * CHANNELS);
            let sums = sums.add(from * step);
            macro_rules! tiles {
                ($($voxels:literal)*) => {
                    match to - from {
                        $($voxels if $voxels <= S::TILE => tile::<S, $voxels, VECTORS>(
                            simd, input, weight, segments, start, sums, step,
                        ),)*
                        _ => unreachable!("a tile has at most TILE voxels"),
                    }
                };
            }
            tiles!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        }
    }
}

/// One tile: `VOXELS` voxels × `VECTORS` vectors of sums, all of them in registers.
///
/// # Safety
/// As [`sweep`], for `VOXELS` voxels.
#[inline(always)]
unsafe fn tile<S: Simd, const VOXELS: usize, const VECTORS: usize>(
    simd: S,
    input: *const f32,
    weight: *const f32,
    segments: &[Segment],
    start: Option<*const f32>,
    sums: *mut f32,
    step: usize,
) {
    // SAFETY: every address below is one the caller promised.
    unsafe {
        let mut tile = [[simd.zero(); VECTORS]; VOXELS];
        for (voxel, row) in tile.iter_mut().enumerate() {
            for (vector, sum) in row.iter_mut().enumerate() {
                *sum = match start {
                    Some(start) => simd.load(start.add(vector * S::LANES)),
                    None => simd.load(sums.add(voxel * step + vector * S::LANES)),
                };
            }
        }
        for segment in segments {
            let input = input.add(segment.input);
            let weight = weight.add(segment.weight);
            for channel in 0..segment.channels {
                let weight = weight.add(channel * VECTORS * S::LANES);
                let mut weights = [simd.zero(); VECTORS];
                for (vector, weights) in weights.iter_mut().enumerate() {
                    *weights = simd.load(weight.add(vector * S::LANES));
                }
                for (voxel, row) in tile.iter_mut().enumerate() {
                    let value = simd.splat(*input.add(voxel * CHANNELS + channel));
                    for (vector, sum) in row.iter_mut().enumerate() {
                        *sum = simd.multiply_add(value, weights[vector], *sum);
                    }
                }
            }
        }
        for (voxel, row) in tile.iter().enumerate() {
            for (vector, sum) in row.iter().enumerate() {
                simd.store(sums.add(voxel * step + vector * S::LANES), *sum);
            }
        }
    }
}

/// Adds to `sums`, for each of `channels` input channels, the products of `voxels` inputs and
/// gradients: what one tap of a weight gradient gathers from a run.
///
/// # Safety
/// `CHANNELS` values lie in `input` at each voxel of the run; `gradient` holds `VECTORS` vectors for
/// each, `sums` as many for each channel; `channels` is at most `CHANNELS`.
#[inline(always)]
pub(super) unsafe fn outer<S: Simd, const VECTORS: usize>(
    simd: S,
    voxels: usize,
    channels: usize,
    input: *const f32,
    gradient: *const f32,
    sums: *mut f32,
) {
    let mut channel = 0;
    while channel < channels {
        // SAFETY: channels `channel..channel + tile` are among those the caller promised.
        unsafe {
            let (input, sums) = (input.add(channel), sums.add(channel * VECTORS * S::LANES));
            let left = channels - channel;
            if left >= 8 && S::CHANNEL_TILE >= 8 {
                outer_tile::<S, 8, VECTORS>(simd, voxels, input, gradient, sums);
                channel += 8;
            } else if left >= 4 && S::CHANNEL_TILE >= 4 {
                outer_tile::<S, 4, VECTORS>(simd, voxels, input, gradient, sums);
                channel += 4;
            } else if left >= 2 {
                outer_tile::<S, 2, VECTORS>(simd, voxels, input, gradient, sums);
                channel += 2;
            } else {
                outer_tile::<S, 1, VECTORS>(simd, voxels, input, gradient, sums);
                channel += 1;
            }
        }
    }
}

/// # Safety
/// As [`outer`], for `TILE` channels.
#[inline(always)]
unsafe fn outer_tile<S: Simd, const TILE: usize, const VECTORS: usize>(
    simd: S,
    voxels: usize,
    input: *const f32,
    gradient: *const f32,
    sums: *mut f32,
) {
    // SAFETY: every address below is one the caller promised.
    unsafe {
        let mut tile = [[simd.zero(); VECTORS]; TILE];
        for voxel in 0..voxels {
            let gradient = gradient.add(voxel * VECTORS * S::LANES);
            let mut gradients = [simd.zero(); VECTORS];
            for (vector, gradients) in gradients.iter_mut().enumerate() {
                *gradients = simd.load(gradient.add(vector * S::LANES));
            }
            for (channel, row) in tile.iter_mut().enumerate() {
                let value = simd.splat(*input.add(voxel * CHANNELS + channel));
                for (vector, sum) in row.iter_mut().enumerate() {
                    *sum = simd.multiply_add(value, gradients[vector], *sum);
                }
            }
        }
        for (channel, row) in tile.iter().enumerate() {
            for (vector, sum) in row.iter().enumerate() {
                let at = sums.add((channel * VECTORS + vector) * S::LANES);
                simd.store(at, simd.add(simd.load(at), *sum));
            }
        }
    }
}
