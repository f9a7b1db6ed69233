//! Vectors in plain Rust.

use super::Simd;

/// Eight lanes, left to the compiler.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 8;

impl Simd for Portable {
    type Vector = [f32; LANES];
    const LANES: usize = LANES;
    // A vector here is two of NEON's 32 registers or two of SSE's 16.
    const TILE: usize = if cfg!(target_arch = "aarch64") { 6 } else { 2 };
    const CHANNEL_TILE: usize = if cfg!(target_arch = "aarch64") { 4 } else { 2 };
    const PLANES: usize = 2;

    #[inline(always)]
    fn zero(self) -> Self::Vector {
        [0.0; LANES]
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        [value; LANES]
    }

    #[inline(always)]
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| {
            // Every AArch64 has the fused instruction; elsewhere it may be a library call.
            if cfg!(target_arch = "aarch64") {
                a[lane].mul_add(b[lane], c[lane])
            } else {
                a[lane] * b[lane] + c[lane]
            }
        })
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn subtract(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn multiply(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::Vector {
        // SAFETY: the caller's promise; an array of `f32` is aligned as an `f32` is.
        unsafe { from.cast::<[f32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::Vector) {
        // SAFETY: the caller's promise; an array of `f32` is aligned as an `f32` is.
        unsafe { to.cast::<[f32; LANES]>().write(value) }
    }
}
