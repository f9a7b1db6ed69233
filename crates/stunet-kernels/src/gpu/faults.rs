//! Kernels that are broken on purpose, so that tests see who finds it.

use std::cell::Cell;

thread_local! {
    static BROKEN: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Does some work in which the kernel of that name leaves out its last workgroup; where debug assertions are
/// off, nothing is broken.
#[doc(hidden)]
pub fn with_broken_kernel<T>(kernel: &'static str, work: impl FnOnce() -> T) -> T {
    /// Ends it, whatever becomes of the work.
    struct Mended;
    impl Drop for Mended {
        fn drop(&mut self) {
            BROKEN.set(None);
        }
    }
    BROKEN.set(Some(kernel));
    let _mended = Mended;
    work()
}

/// How many of a kernel's workgroups are computed: all, unless it is broken.
pub(super) fn left_of(kernel: &str, cubes: usize) -> usize {
    match cfg!(debug_assertions) && BROKEN.get() == Some(kernel) {
        true => cubes.saturating_sub(1),
        false => cubes,
    }
}
