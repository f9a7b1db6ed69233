//! Conversions of many values at a time between single and half precision.
//!
//! The instructions of x86-64 round as [`narrowed`] does, bit by bit; what is no number may have other bits.

use super::{narrowed, widened};
use half::f16;

/// What converts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halves {
    /// Sixteen values at a time.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Eight.
    #[cfg(target_arch = "x86_64")]
    F16c,
    /// Arithmetic on integers, which every processor has.
    Any,
}

impl Halves {
    /// All that the machine has, the widest first.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let widest = {
            let f16c = super::x86::has_avx2() && is_x86_feature_detected!("f16c");
            let avx512 = super::x86::has_avx512().then_some(Self::Avx512);
            avx512.into_iter().chain(f16c.then_some(Self::F16c))
        };
        #[cfg(not(target_arch = "x86_64"))]
        let widest = std::iter::empty();
        widest.chain([Self::Any])
    }

    /// The widest.
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self::Any)
    }

    /// # Panics
    /// When the lengths differ.
    pub fn widen(self, from: &[f16], to: &mut [f32]) {
        assert_eq!(from.len(), to.len(), "as many values");
        match self {
            // SAFETY: the machine has the instructions, as whoever made this asked it.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::avx512::widen(from, to) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::F16c => unsafe { x86::f16c::widen(from, to) },
            Self::Any => to.iter_mut().zip(from).for_each(|(to, from)| *to = widened(*from)),
        }
    }

    /// # Panics
    /// When the lengths differ.
    pub fn narrow(self, from: &[f32], to: &mut [f16]) {
        assert_eq!(from.len(), to.len(), "as many values");
        match self {
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::avx512::narrow(from, to) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::F16c => unsafe { x86::f16c::narrow(from, to) },
            Self::Any => to.iter_mut().zip(from).for_each(|(to, from)| *to = narrowed(*from)),
        }
    }

    pub fn round(self, values: &mut [f32]) {
        match self {
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::avx512::round(values) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::F16c => unsafe { x86::f16c::round(values) },
            Self::Any => values.iter_mut().for_each(|value| *value = widened(narrowed(*value))),
        }
    }

    /// # Panics
    /// When the lengths differ.
    pub fn add(self, sums: &mut [f16], values: &[f32], factors: Option<&[f32]>) {
        let len = sums.len();
        assert!(values.len() == len && factors.is_none_or(|f| f.len() == len), "as many values");
        match self {
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::avx512::add(sums, values, factors) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::F16c => unsafe { x86::f16c::add(sums, values, factors) },
            Self::Any => add_one_by_one(sums, values, factors),
        }
    }

    /// Whether all quotients are finite numbers.
    pub fn divide(self, sums: &mut [f16], divisors: &[f32]) -> bool {
        match self {
            // SAFETY: the machine has the instructions, as whoever made this asked it.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::avx512::divide(sums, divisors) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::F16c => unsafe { x86::f16c::divide(sums, divisors) },
            Self::Any => {
                let rows = sums.chunks_mut(divisors.len().max(1));
                rows.for_each(|row| divide_one_by_one(row, divisors));
                all_finite(sums)
            }
        }
    }
}

fn divide_one_by_one(sums: &mut [f16], divisors: &[f32]) {
    sums.iter_mut().zip(divisors).for_each(|(s, d)| *s = narrowed(widened(*s) / d));
}

/// Whether none is infinite or no number; looks at all of them, in wide registers.
#[inline(always)]
fn all_finite(values: &[f16]) -> bool {
    let most = values.iter().fold(0, |most: u16, v| most.max(v.to_bits() & 0x7fff));
    most < f16::INFINITY.to_bits()
}

fn add_one_by_one(sums: &mut [f16], values: &[f32], factors: Option<&[f32]>) {
    let terms = sums.iter_mut().zip(values);
    match factors {
        Some(factors) => {
            terms.zip(factors).for_each(|((s, v), f)| *s = narrowed(widened(*s) + v * f));
        }
        None => terms.for_each(|(s, v)| *s = narrowed(widened(*s) + v)),
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use half::f16;
    use std::arch::x86_64::*;

    /// The loops, for vectors of so many values and what reads, writes and computes those.
    macro_rules! loops {
        ($name:ident, $features:literal, $lanes:literal, $load:ident, $store:ident, $load_halves:ident,
         $store_halves:ident, $widen:ident, $narrow:ident, $mul:ident, $add:ident, $div:ident) => {
            pub mod $name {
                use super::*;

                const LANES: usize = $lanes;

                /// `to` is as long as `from`.
                #[target_feature(enable = $features)]
                pub fn widen(from: &[f16], to: &mut [f32]) {
                    let (from, rest) = from.as_chunks::<LANES>();
                    let (to, rest_to) = to.as_chunks_mut::<LANES>();
                    for (from, to) in from.iter().zip(to) {
                        // SAFETY: each is a vector of values.
                        unsafe {
                            let halves = $load_halves(from.as_ptr().cast());
                            $store(to.as_mut_ptr(), $widen(halves));
                        }
                    }
                    rest_to
                        .iter_mut()
                        .zip(rest)
                        .for_each(|(to, v)| *to = super::super::widened(*v));
                }

                /// `to` is as long as `from`.
                #[target_feature(enable = $features)]
                pub fn narrow(from: &[f32], to: &mut [f16]) {
                    let (from, rest) = from.as_chunks::<LANES>();
                    let (to, rest_to) = to.as_chunks_mut::<LANES>();
                    for (from, to) in from.iter().zip(to) {
                        // SAFETY: each is a vector of values.
                        unsafe {
                            let halves = $narrow::<_MM_FROUND_TO_NEAREST_INT>($load(from.as_ptr()));
                            $store_halves(to.as_mut_ptr().cast(), halves);
                        }
                    }
                    rest_to
                        .iter_mut()
                        .zip(rest)
                        .for_each(|(to, v)| *to = super::super::narrowed(*v));
                }

                #[target_feature(enable = $features)]
                pub fn round(values: &mut [f32]) {
                    let (values, rest) = values.as_chunks_mut::<LANES>();
                    for values in values {
                        // SAFETY: each is a vector of values.
                        unsafe {
                            let value = $load(values.as_ptr());
                            let halves = $narrow::<_MM_FROUND_TO_NEAREST_INT>(value);
                            $store(values.as_mut_ptr(), $widen(halves));
                        }
                    }
                    for value in rest {
                        *value = super::super::widened(super::super::narrowed(*value));
                    }
                }

                /// All are as long as `sums`.
                #[target_feature(enable = $features)]
                pub fn add(sums: &mut [f16], values: &[f32], factors: Option<&[f32]>) {
                    let whole = sums.len() / LANES * LANES;
                    assert!(values.len() >= whole && factors.is_none_or(|f| f.len() >= whole));
                    for at in (0..whole).step_by(LANES) {
                        // SAFETY: a vector begins at `at` in each of them.
                        unsafe {
                            let mut value = $load(values.as_ptr().add(at));
                            if let Some(factors) = factors {
                                value = $mul(value, $load(factors.as_ptr().add(at)));
                            }
                            let sum = sums.as_mut_ptr().add(at);
                            let value = $add($widen($load_halves(sum.cast_const().cast())), value);
                            $store_halves(sum.cast(), $narrow::<_MM_FROUND_TO_NEAREST_INT>(value));
                        }
                    }
                    let factors = factors.map(|factors| &factors[whole..]);
                    super::super::add_one_by_one(&mut sums[whole..], &values[whole..], factors);
                }

                /// Rows as long as `divisors`.
                #[target_feature(enable = $features)]
                pub fn divide(sums: &mut [f16], divisors: &[f32]) -> bool {
                    let (whole, rest) = divisors.as_chunks::<LANES>();
                    let mut last = [1.0; LANES];
                    last[..rest.len()].copy_from_slice(rest);
                    let mut finite = true;
                    for row in sums.chunks_mut(divisors.len().max(1)) {
                        let (vectors, rest) = row.as_chunks_mut::<LANES>();
                        for (sums, divisors) in vectors.iter_mut().zip(whole) {
                            divide_vector(sums, divisors);
                        }
                        let mut sums = [f16::ZERO; LANES];
                        sums[..rest.len()].copy_from_slice(rest);
                        divide_vector(&mut sums, &last);
                        rest.copy_from_slice(&sums[..rest.len()]);
                        finite &= super::super::all_finite(row);
                    }
                    finite
                }

                #[inline]
                #[target_feature(enable = $features)]
                fn divide_vector(sums: &mut [f16; LANES], divisors: &[f32; LANES]) {
                    // SAFETY: each is a vector of values.
                    unsafe {
                        let value = $widen($load_halves(sums.as_ptr().cast()));
                        let value = $div(value, $load(divisors.as_ptr()));
                        let halves = $narrow::<_MM_FROUND_TO_NEAREST_INT>(value);
                        $store_halves(sums.as_mut_ptr().cast(), halves);
                    }
                }
            }
        };
    }

    loops!(
        avx512,
        "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,f16c",
        16,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm256_loadu_si256,
        _mm256_storeu_si256,
        _mm512_cvtph_ps,
        _mm512_cvtps_ph,
        _mm512_mul_ps,
        _mm512_add_ps,
        _mm512_div_ps
    );
    loops!(
        f16c,
        "avx2,fma,f16c",
        8,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm_loadu_si128,
        _mm_storeu_si128,
        _mm256_cvtph_ps,
        _mm256_cvtps_ph,
        _mm256_mul_ps,
        _mm256_add_ps,
        _mm256_div_ps
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every half, what lies halfway to the next and beside both, and bit patterns from all over.
    fn singles() -> Vec<f32> {
        let halves = (0..0x7c00u16).flat_map(|bits| {
            let value = f16::from_bits(bits).to_f32();
            let next = f16::from_bits(bits + 1).to_f32();
            let next = if next.is_finite() { next } else { 65_536.0 };
            [value, (value + next) / 2.0].map(|at| [at.next_down(), at, at.next_up()])
        });
        let singles = halves.flatten().flat_map(|value| [value, -value]);
        singles.chain((0..=u32::MAX).step_by(40_009).map(f32::from_bits)).collect()
    }

    fn bits(values: &[f16]) -> Vec<u16> {
        let canonical = |v: &f16| if v.is_nan() { 0x7e00 } else { v.to_bits() };
        values.iter().map(canonical).collect()
    }

    #[test]
    fn every_instruction_set_narrows_and_widens_alike() {
        let singles = singles();
        let expected: Vec<f16> = singles.iter().map(|v| narrowed(*v)).collect();
        for halves in Halves::available() {
            let mut narrow = vec![f16::ONE; singles.len()];
            halves.narrow(&singles, &mut narrow);
            assert!(bits(&narrow) == bits(&expected), "{halves:?}");
            let (mut wide, mut rounded) = (vec![1.0; singles.len()], singles.clone());
            halves.widen(&expected, &mut wide);
            halves.round(&mut rounded);
            for ((wide, rounded), half) in wide.iter().zip(&rounded).zip(&expected) {
                let same = |v: f32| v.to_bits() == half.to_f32().to_bits() || v.is_nan();
                assert!(same(*wide) && same(*rounded), "{halves:?}: {half}, {wide}, {rounded}");
                assert_eq!((wide.is_nan(), rounded.is_nan()), (half.is_nan(), half.is_nan()));
            }
        }
    }

    #[test]
    fn every_instruction_set_adds_alike() {
        let singles = singles();
        for len in [0, 1, 7, 8, 15, 16, 17, 33, singles.len()] {
            let values = &singles[singles.len() - len..];
            let factors: Vec<f32> = (0..len).map(|i| 0.3 + (i % 17) as f32 / 9.0).collect();
            let start: Vec<f16> =
                (0..len).map(|i| f16::from_bits((i * 7919 % 0x7c00) as u16)).collect();
            for factors in [None, Some(factors.as_slice())] {
                let mut expected = start.clone();
                add_one_by_one(&mut expected, values, factors);
                for halves in Halves::available() {
                    let mut sums = start.clone();
                    halves.add(&mut sums, values, factors);
                    assert!(bits(&sums) == bits(&expected), "{halves:?}, {len}");
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_divides_alike() {
        let start: Vec<f16> =
            (0..3 * 0x7c00u32).map(|i| f16::from_bits((i * 7919) as u16)).collect();
        for width in [1, 7, 8, 15, 16, 17, 33, 244] {
            let start = &start[..start.len() / width * width];
            let divisors: Vec<f32> = (0..width).map(|i| 0.02 + (i % 17) as f32 / 9.0).collect();
            for rows in [&start[..0], &start[..width], start] {
                let mut expected = rows.to_vec();
                for row in expected.chunks_mut(width) {
                    divide_one_by_one(row, &divisors);
                }
                let finite = expected.iter().all(|v| v.is_finite());
                for halves in Halves::available() {
                    let mut found = rows.to_vec();
                    assert_eq!(halves.divide(&mut found, &divisors), finite, "{halves:?}, {width}");
                    assert!(bits(&found) == bits(&expected), "{halves:?}, {width}");
                }
            }
        }
        for bad in [f16::INFINITY, f16::NEG_INFINITY, f16::NAN] {
            for at in 0..33 {
                for halves in Halves::available() {
                    let mut sums = [f16::ONE; 33];
                    assert!(halves.divide(&mut sums, &[0.5; 33]));
                    sums[at] = bad;
                    assert!(!halves.divide(&mut sums, &[0.5; 33]), "{halves:?}, {at}");
                }
            }
        }
    }
}
