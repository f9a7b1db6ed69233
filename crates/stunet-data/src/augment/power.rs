//! Powers of many numbers in [0, 1], in a form that compilers turn into vector code.

/// `base.powf(exponent)` within 1e-6 for bases in [0, 1] and exponents of 0.1 to 10; 0 stays 0.
///
/// Logarithm and exponential to base 2 by their series after taking exponents apart.
pub(super) fn power(base: f32, exponent: f32) -> f32 {
    let y = exponent * log2(base);
    // Below this the result is smaller than anything added to it.
    let y = if y < -120.0 { -120.0 } else { y };
    let result = exp2(y);
    if base <= 0.0 { 0.0 } else { result }
}

/// Of a positive, normal number.
fn log2(x: f32) -> f32 {
    const SQRT_HALF: u32 = 0x3f35_04f3;
    let bits = x.to_bits();
    // The mantissa into [sqrt(1/2), sqrt(2)), so that logarithms near 1 lose no digits.
    let exponent = (bits.wrapping_sub(SQRT_HALF) as i32) >> 23;
    let mantissa = f32::from_bits(bits.wrapping_sub((exponent as u32) << 23));
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let series = 1.0 + s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 * (1.0 / 9.0))));
    exponent as f32 + s * series * (2.0 * std::f32::consts::LOG2_E)
}

/// Of a number in [-120, 120].
fn exp2(y: f32) -> f32 {
    const LN2: f32 = std::f32::consts::LN_2;
    // Adding 1.5 * 2^23 rounds to whole numbers.
    const ROUND: f32 = 12_582_912.0;
    let whole = (y + ROUND) - ROUND;
    let f = (y - whole) * LN2;
    let series = 1.0
        + f * (1.0
            + f * (1.0 / 2.0
                + f * (1.0 / 6.0
                    + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f * (1.0 / 720.0 + f / 5040.0))))));
    let scale = f32::from_bits(((whole as i32 + 127) as u32) << 23);
    series * scale
}

#[cfg(test)]
mod tests {
    use super::power;

    #[test]
    fn powers_are_close_to_the_library_s() {
        let mut worst = 0f64;
        for exponent in [0.5f32, 0.7, 0.999, 1.0, 1.2, 1.5, 3.0] {
            for i in 0..=100_000 {
                let base = i as f32 / 100_000.0;
                let expected = f64::from(base).powf(f64::from(exponent));
                worst = worst.max((f64::from(power(base, exponent)) - expected).abs());
            }
            assert_eq!(power(0.0, exponent), 0.0);
            assert!(power(1e-30, exponent) < 1e-14);
        }
        assert!(worst < 5e-7, "{worst:e}");
    }
}
