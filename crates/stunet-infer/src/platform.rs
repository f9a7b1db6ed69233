//! What WebAssembly lacks: a clock that needs no help from the page, and threads.

/// Whether threads can be made.
pub(crate) const THREADS: bool = !cfg!(target_family = "wasm");

/// Whether time is measured.
pub(crate) const CLOCK: bool = !cfg!(target_family = "wasm");

/// A moment.
#[derive(Clone, Copy)]
pub(crate) struct Moment(#[cfg(not(target_family = "wasm"))] std::time::Instant);

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        Self(
            #[cfg(not(target_family = "wasm"))]
            std::time::Instant::now(),
        )
    }

    /// Seconds since then; 0 without a [`CLOCK`].
    pub(crate) fn secs(self) -> f64 {
        #[cfg(not(target_family = "wasm"))]
        return self.0.elapsed().as_secs_f64();
        #[cfg(target_family = "wasm")]
        0.0
    }
}
