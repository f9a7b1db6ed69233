//! Which kernels ran on a GPU, and what they moved.

use cubecl::dry_run::DryRun;
use cubecl::logging::{LaunchObservation, LaunchObserver};
use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

/// A kernel that ran, with what it says about itself: every tensor counted once, however often a cache
/// serves it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelCall {
    /// Its name.
    pub kernel: &'static str,
    /// Launches: more than one where one would take too long.
    pub launches: usize,
    /// Bytes read from the device's memory.
    pub read: usize,
    /// Bytes written to it.
    pub written: usize,
    /// Products of values with weights.
    pub products: u64,
}

thread_local! {
    static CALLS: RefCell<Option<Vec<KernelCall>>> = const { RefCell::new(None) };
}

/// Runs `work` and lists the GPU kernels of this crate that this thread launched meanwhile, of forward
/// and backward passes. Burn's own kernels are not among them, but for copies to another order in memory.
///
/// ```
/// let ((), calls) = stunet_kernels::kernel_calls(|| ());
/// assert!(calls.is_empty());
/// ```
pub fn kernel_calls<R>(work: impl FnOnce() -> R) -> (R, Vec<KernelCall>) {
    let outer = Outer(CALLS.replace(Some(Vec::new())));
    let result = work();
    let calls = CALLS.take().unwrap_or_default();
    drop(outer);
    (result, calls)
}

/// [`kernel_calls`], but nothing is computed: as long as `work` runs, every launch of this process is compiled
/// and dropped, and what is read back means nothing. For counting what is too large to run.
pub fn dry_kernel_calls<R>(work: impl FnOnce() -> R) -> (R, Vec<KernelCall>) {
    let _dry = DryRun::new();
    kernel_calls(work)
}

/// Runs `work` and names every kernel that this process launched meanwhile on GPUs, Burn's included, by the
/// types that define them; a launch of [`dry_kernel_calls`] counts as well.
pub fn launches<R>(work: impl FnOnce() -> R) -> (R, Vec<&'static str>) {
    let names = Arc::new(Names::default());
    let observation = LaunchObservation::new(names.clone());
    let result = work();
    drop(observation);
    let found = std::mem::take(&mut *names.0.lock().unwrap_or_else(PoisonError::into_inner));
    (result, found)
}

#[derive(Default)]
struct Names(Mutex<Vec<&'static str>>);

impl LaunchObserver for Names {
    fn launched(&self, kernel: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(kernel);
    }
}

/// The list of whoever asked before, put back even if the work panics.
struct Outer(Option<Vec<KernelCall>>);

impl Drop for Outer {
    fn drop(&mut self) {
        CALLS.set(self.0.take());
    }
}

/// Notes a kernel, if anybody asks.
pub(crate) fn note(call: KernelCall) {
    CALLS.with_borrow_mut(|calls| {
        if let Some(calls) = calls {
            calls.push(call);
        }
    });
}
