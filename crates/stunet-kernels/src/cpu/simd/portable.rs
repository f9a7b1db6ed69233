//! Vectors in plain Rust.

use super::Simd;

/// Vectors of so many lanes, left to the compiler.
macro_rules! plain {
    ($name:ident, $lanes:literal, $($constant:ident = $value:expr),*) => {
// SAFETY: plain Rust needs no instructions that a machine might lack.
unsafe impl Simd for $name {
    type Vector = [f32; $lanes];
    type Wide = [f64; $lanes];
    const LANES: usize = $lanes;
    $(const $constant: usize = $value;)*

    #[inline(always)]
    fn zero(self) -> Self::Vector {
        [0.0; $lanes]
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        [value; $lanes]
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
    fn maximum(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn zero_wide(self) -> Self::Wide {
        [0.0; $lanes]
    }

    #[inline(always)]
    fn add_wide(self, sum: Self::Wide, a: Self::Vector) -> Self::Wide {
        std::array::from_fn(|lane| sum[lane] + f64::from(a[lane]))
    }

    #[inline(always)]
    fn add_square(self, sum: Self::Wide, a: Self::Vector) -> Self::Wide {
        std::array::from_fn(|lane| sum[lane] + f64::from(a[lane]) * f64::from(a[lane]))
    }

    #[inline(always)]
    fn flush_wide(self, sum: Self::Wide, to: &mut [f64]) {
        to.iter_mut().zip(sum).for_each(|(to, sum)| *to += sum);
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::Vector {
        // SAFETY: the caller's promise; an array of `f32` is aligned as an `f32` is.
        unsafe { from.cast::<[f32; $lanes]>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::Vector) {
        // SAFETY: the caller's promise; an array of `f32` is aligned as an `f32` is.
        unsafe { to.cast::<[f32; $lanes]>().write(value) }
    }
}
    };
}

/// Eight lanes.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

// A vector here is two of NEON's 32 registers or two of SSE's 16.
plain!(
    Portable,
    8,
    TILE = if cfg!(target_arch = "aarch64") { 6 } else { 2 },
    CHANNEL_TILE = if cfg!(target_arch = "aarch64") { 4 } else { 2 },
    PLANES = 2
);

/// The shapes of AVX-512 in plain Rust: kernels are tested in them on machines without it.
#[cfg(test)]
#[derive(Clone, Copy)]
pub(crate) struct Sixteen;

#[cfg(test)]
plain!(Sixteen, 16, TILE = 14, CHANNEL_TILE = 8, PLANES = 6);
