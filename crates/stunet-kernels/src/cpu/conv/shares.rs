//! Sums that many tasks make together.

use crate::cpu::evenly::Evenly;
use crate::cpu::memory::{Output, Target};
use rayon::prelude::*;
use std::ops::Range;

/// Values of a gradient of weights, summed in shares: each by one task over a part of the voxels, and
/// then all of them in order. How many there are depends on sizes alone, so that sums do not depend on
/// the threads.
pub(super) struct Shares {
    partial: Output,
    /// Shares.
    pub count: usize,
    /// Values from one share to the next.
    pub pitch: usize,
}

impl Shares {
    /// `count` shares of `len` zeros.
    pub(super) fn new(count: usize, len: usize) -> Self {
        // Whole cache lines, so that vectors of each share are aligned alike.
        let pitch = len.next_multiple_of(16);
        let mut partial = Output::new(count * pitch);
        partial.values_mut().par_chunks_mut(1 << 16).evenly().for_each(|part| part.fill(0.0));
        Self { partial, count, pitch }
    }

    /// Where the shares are summed, one behind the other.
    pub(super) fn target(&mut self) -> Target {
        self.partial.target()
    }

    /// Those of `parts` parts that belong to share `share`.
    pub(super) fn range(&self, share: usize, parts: usize) -> Range<usize> {
        parts * share / self.count..parts * (share + 1) / self.count
    }

    /// The sum of all shares.
    pub(super) fn sum(&mut self) -> &[f32] {
        let (sum, others) = self.partial.values_mut().split_at_mut(self.pitch);
        for share in others.chunks(self.pitch) {
            sum.par_chunks_mut(1 << 14).evenly().zip(share.par_chunks(1 << 14)).for_each(
                |(sum, part)| {
                    sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                },
            );
        }
        sum
    }
}
