//! Half precision in plain Rust, without branches or calls: loops over it are vectorised.
//!
//! The same arithmetic is that of `stunet_data::simd`, which knows nothing of this crate, nor this crate of it.

use burn::tensor::f16;

/// An f16 as f32, exactly.
#[inline(always)]
pub(super) fn widened(value: f16) -> f32 {
    /// 2^112: between the biases of the two exponents.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(value.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * REBIAS;
    // What was infinite or no number has come out as 2^16 or more.
    let beyond = if magnitude >= 65_536.0 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | beyond | (bits & 0x8000) << 16)
}

/// An f32 rounded to the nearest f16, ties to even. Of what is no number, the bits may differ between instruction sets.
#[inline(always)]
pub(super) fn narrowed(value: f32) -> f16 {
    /// The exponent's bias, and half of the last place less one.
    const REBIAS: u32 = (112u32 << 23).wrapping_neg().wrapping_add(0x0fff);
    /// 2^16, 2^-14 and infinity.
    const TOO_LARGE: u32 = 143 << 23;
    const SMALLEST_NORMAL: u32 = 113 << 23;
    const INFINITE: u32 = 0x7f80_0000;
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let normal = magnitude.wrapping_add(REBIAS).wrapping_add(magnitude >> 13 & 1) >> 13;
    // In this sum the last place is that of the smallest f16: the processor rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < SMALLEST_NORMAL { subnormal } else { normal };
    let beyond = if magnitude > INFINITE { 0x7e00 } else { 0x7c00 };
    let rounded = if magnitude >= TOO_LARGE { beyond } else { finite };
    f16::from_bits((rounded | bits >> 16 & 0x8000) as u16)
}
