//! Work that is divided finely enough for the threads to end together.

use rayon::iter::{IndexedParallelIterator, MaxLen};

/// Parts that each thread would get.
const PARTS: usize = 16;

pub(crate) trait Evenly: IndexedParallelIterator {
    /// Divides down to a sixteenth of a thread's share.
    ///
    /// Left to itself rayon divides by what is stolen: with two threads a quarter of all may be one part,
    /// which nobody helps with when the other thread is done, or when its own thread has lost its core.
    fn evenly(self) -> MaxLen<Self> {
        let most = self.len() / (PARTS * rayon::current_num_threads());
        self.with_max_len(most.max(1))
    }
}

impl<I: IndexedParallelIterator> Evenly for I {}
