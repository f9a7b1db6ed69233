//! A norm that is added to a convolution before the activation.

use crate::cpu::norm::Normed;
use crate::cpu::simd::Simd;
use std::ops::Range;

/// What is normed and added: a tensor of the output's size.
#[derive(Clone, Copy)]
pub(crate) struct Added<'a> {
    pub values: &'a [f32],
    /// Whether its channels lie innermost, a multiple of 8 of them.
    pub is_innermost: bool,
    pub normed: &'a Normed,
}

/// The part of it that a task adds.
pub(super) struct AddedRows<'a> {
    pub of: Added<'a>,
    pub sample: usize,
    /// Channels of the whole tensor, and voxels of a plane.
    pub channels: usize,
    pub volume: usize,
    /// Room for whole tiles of voxels of the task's rows: `[tile][row][width]`.
    pub buffer: &'a mut [f32],
}

impl AddedRows<'_> {
    /// Copies rows and columns, tile by tile; what lies behind the last column is zero.
    ///
    /// # Panics
    /// When there are no such rows or columns, or rows of a tensor whose channels lie innermost do not make up eights.
    #[inline(always)]
    pub fn copy<S: Simd>(
        &mut self,
        simd: S,
        rows: &Range<usize>,
        columns: &Range<usize>,
        width: usize,
    ) {
        let (count, all) = (rows.len(), self.channels * self.volume);
        let tiles = columns.len().div_ceil(width);
        assert!(rows.end <= self.channels && columns.end <= self.volume, "rows and columns");
        assert!(self.buffer.len() >= tiles * count * width, "room for whole tiles");
        let values = &self.of.values[self.sample * all..][..all];
        for (tile, to) in
            self.buffer[..tiles * count * width].chunks_exact_mut(count * width).enumerate()
        {
            let first = columns.start + tile * width;
            let voxels = width.min(columns.end - first);
            if self.of.is_innermost {
                let from = &values[first * self.channels + rows.start..];
                let eights = (from, self.channels);
                apart(simd, eights, (to, width), count, voxels);
            } else {
                for (row, to) in rows.clone().zip(to.chunks_exact_mut(width)) {
                    let (voxels, behind) = to.split_at_mut(voxels);
                    let from = row * self.volume + first;
                    voxels.copy_from_slice(&values[from..from + voxels.len()]);
                    behind.fill(0.0);
                }
            }
        }
    }
}

/// Voxels whose `count` channels lie side by side, `step` values from voxel to voxel, to rows of `width`.
#[inline(always)]
fn apart<S: Simd>(
    simd: S,
    (from, step): (&[f32], usize),
    (to, width): (&mut [f32], usize),
    count: usize,
    voxels: usize,
) {
    assert!(count.is_multiple_of(8) && width.is_multiple_of(8), "eight channels of eight voxels");
    assert!(voxels <= width && to.len() == count * width, "room for all voxels");
    assert!(voxels == 0 || from.len() >= (voxels - 1) * step + count, "channels of each voxel");
    let whole = voxels / 8 * 8;
    for at in (0..whole).step_by(8) {
        for group in (0..count).step_by(8) {
            let to = to.as_mut_ptr();
            // SAFETY: eight channels of voxels `at..at + 8` lie in `from` and in `to`, as asserted.
            unsafe {
                simd.transpose(
                    eight!(|I| from.as_ptr().add((at + I) * step + group)),
                    eight!(|I| to.add((group + I) * width + at)),
                );
            }
        }
    }
    for (channel, to) in to.chunks_exact_mut(width).enumerate() {
        for (voxel, to) in to.iter_mut().enumerate().skip(whole) {
            *to = if voxel < voxels { from[voxel * step + channel] } else { 0.0 };
        }
    }
}
