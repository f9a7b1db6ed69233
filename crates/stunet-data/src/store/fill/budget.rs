//! How much memory the cases in work take together.

use super::guard;
use crate::dataset::TrainingCaseFiles;
use crate::error::{DataError, Result};
use crate::geometry::Leniency;
use crate::plans::Plans;
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that preparing a case takes at its peak, from its first header.
///
/// An estimate on the high side, of one channel per file: the volume and its labels as read; masks and marked labels; one
/// channel in single precision between two passes of a resize; the result, twice where channels are
/// stacked.
pub(super) fn memory_of(
    source: &TrainingCaseFiles,
    plans: &Plans,
    leniency: Leniency,
) -> Result<u64> {
    let first = source.images.first().ok_or(DataError::NoCases)?;
    let (geometry, _) = plans.reader.leniently(leniency).read_geometry(first)?;
    let channels = source.images.len() as f64;
    let voxels: f64 = geometry.shape().iter().map(|n| *n as f64).product();
    let growth: f64 = (0..3)
        .map(|axis| {
            let from = geometry.spacing_mm()[plans.transpose_forward[axis]];
            from / plans.spacing_mm[axis]
        })
        .product();
    let result = voxels * growth;
    let stacked = if channels > 1.0 { 8.0 } else { 4.0 };
    let bytes = voxels * (4.0 * channels + 6.0)
        + 4.0 * voxels.max(result)
        + result * (stacked * channels + 4.0);
    Ok(bytes as u64)
}

/// Bytes that may be taken; whoever comes first is served first.
pub(super) struct Budget {
    total: u64,
    pub(super) free: Mutex<u64>,
    more: Condvar,
    /// Held while waiting, so that small cases do not overtake a large one for ever.
    pub(super) queue: Mutex<()>,
}

impl Budget {
    pub fn new(total: u64) -> Self {
        Self { total, free: Mutex::new(total), more: Condvar::new(), queue: Mutex::new(()) }
    }

    /// Waits until there is as much, or everything where there never is.
    pub fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.total);
        let _first = guard(&self.queue);
        let enough = |free: &mut u64| *free < bytes;
        let free = self.more.wait_while(guard(&self.free), enough);
        *free.unwrap_or_else(PoisonError::into_inner) -= bytes;
        Taken { budget: self, bytes }
    }
}

/// Gives its bytes back when dropped.
pub(super) struct Taken<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *guard(&self.budget.free) += self.bytes;
        self.budget.more.notify_all();
    }
}
