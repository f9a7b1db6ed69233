//! Loops that are also compiled for AVX2 and AVX-512, and half-precision conversions inside such loops.
#![allow(unsafe_code)] // Calls of functions compiled for instructions that the machine was asked for.

mod halves;

use half::f16;
use halves::Halves;

/// What [`wide`] runs.
///
/// [`run`](Self::run) must be `#[inline(always)]`, as must what it calls: what is not inlined is not
/// compiled for the other instruction set. A closure would not do, because the compiler decides whether it
/// is inlined.
pub trait Work {
    /// Result type.
    type Output;

    /// Runs the computation.
    fn run(self) -> Self::Output;
}

/// Runs `work`, compiled for AVX-512 or AVX2 if the processor supports it, else for the default target.
///
/// The same operations are done in the same order, and none are contracted: results are equal bit
/// by bit.
///
/// ```
/// use stunet_data::simd::{Work, wide};
///
/// struct Double<'a>(&'a mut [f32]);
///
/// impl Work for Double<'_> {
///     type Output = ();
///
///     #[inline(always)]
///     fn run(self) {
///         self.0.iter_mut().for_each(|v| *v *= 2.0);
///     }
/// }
///
/// let mut values = vec![1.0; 100];
/// wide(Double(&mut values));
/// assert_eq!(values, [2.0; 100]);
/// ```
#[inline(always)]
pub fn wide<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if x86::has_avx512() {
            // SAFETY: the machine has the features, as it just said.
            return unsafe { x86::avx512(work) };
        }
        if x86::has_avx2() {
            // SAFETY: as above.
            return unsafe { x86::avx2(work) };
        }
    }
    work.run()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Work;

    pub fn has_avx2() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    pub fn has_avx512() -> bool {
        has_avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2<W: Work>(work: W) -> W::Output {
        work.run()
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
    pub fn avx512<W: Work>(work: W) -> W::Output {
        work.run()
    }
}

/// An f16 as f32, exactly.
///
/// As `f16::to_f32` of `half`, but without branches or calls, so that loops over it are vectorised.
#[inline(always)]
pub fn widened(value: f16) -> f32 {
    /// 2^112: between the biases of the two exponents.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(value.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * REBIAS;
    // What was infinite or no number has come out as 2^16 or more.
    let beyond = if magnitude >= 65_536.0 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | beyond | (bits & 0x8000) << 16)
}

/// An f32 rounded to the nearest f16, ties to even.
///
/// As `f16::from_f32` of `half`, likewise; of what is no number, the bits may differ.
#[inline(always)]
pub fn narrowed(value: f32) -> f16 {
    /// The exponent's bias, and half of the last place less one.
    const REBIAS: u32 = (112u32 << 23).wrapping_neg().wrapping_add(0x0fff);
    /// 2^16, 2^-14 and infinity.
    const TOO_LARGE: i32 = 143 << 23;
    const SMALLEST_NORMAL: i32 = 113 << 23;
    const INFINITE: i32 = 0x7f80_0000;
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let normal = magnitude.wrapping_add(REBIAS).wrapping_add(magnitude >> 13 & 1) >> 13;
    // In this sum the last place is that of the smallest f16: the processor rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let order = magnitude as i32;
    let finite = if order < SMALLEST_NORMAL { subnormal } else { normal };
    let beyond = if order > INFINITE { 0x7e00 } else { 0x7c00 };
    let rounded = if order >= TOO_LARGE { beyond } else { finite };
    f16::from_bits((rounded | bits >> 16 & 0x8000) as u16)
}

/// [`widened`] values, one by one; by the processor's own instructions where it has some.
///
/// # Panics
/// When the lengths differ.
pub fn widen(from: &[f16], to: &mut [f32]) {
    Halves::best().widen(from, to);
}

/// Rounds values to half precision: [`widened`] after [`narrowed`], one by one.
pub fn round_to_half(values: &mut [f32]) {
    Halves::best().round(values);
}

/// [`narrowed`] values, one by one; by the processor's own instructions where it has some.
///
/// # Panics
/// When the lengths differ.
pub fn narrow(from: &[f32], to: &mut [f16]) {
    Halves::best().narrow(from, to);
}

/// Adds values, each times its factor, in f32 and rounds every sum to half precision. The product is rounded to
/// f32 before it is added.
///
/// # Panics
/// When the lengths differ.
pub fn add_to_halves(sums: &mut [f16], values: &[f32], factors: Option<&[f32]>) {
    Halves::best().add(sums, values, factors);
}

/// Divides rows of sums by the divisors of their columns, in f32, and rounds the quotients to half precision. Whether
/// all are finite numbers.
///
/// # Shapes
/// `sums` `[rows, columns]`, `divisors` `[columns]`.
pub fn divide_halves(sums: &mut [f16], divisors: &[f32]) -> bool {
    Halves::best().divide(sums, divisors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let (expected, found) = (half.to_f32(), widened(half));
            let same = expected.to_bits() == found.to_bits();
            assert!(same || expected.is_nan() && found.is_nan(), "{bits:#x}: {found}");
        }
    }

    #[test]
    fn values_are_narrowed_as_the_library_does() {
        let check = |value: f32| {
            let (expected, found) = (f16::from_f32(value), narrowed(value));
            let same = expected.to_bits() == found.to_bits();
            assert!(same || expected.is_nan() && found.is_nan(), "{value}: {expected}, {found}");
        };
        // Every half, what lies halfway to the next, and the neighbours of both.
        for bits in 0..0x7c00u16 {
            let value = f16::from_bits(bits).to_f32();
            let next = f16::from_bits(bits + 1).to_f32();
            let next = if next.is_finite() { next } else { 65_536.0 };
            for at in [value, (value + next) / 2.0] {
                for near in [at.next_down(), at, at.next_up()] {
                    check(near);
                    check(-near);
                }
            }
        }
        for value in [f32::INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE, 1e-45, 1e-8, 1e6] {
            check(value);
            check(-value);
        }
        // One bit pattern in 4001 of all.
        (0..=u32::MAX).step_by(4001).for_each(|bits| check(f32::from_bits(bits)));
    }
}
