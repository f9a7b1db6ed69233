//! Sixteen output channels at a time, with dot products of four eight-bit numbers.
//!
//! Every operation is exact, or one rounding of `f32`: both sets give the same bits.

#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::has_avx512_vnni;
use burn::tensor::f16;

/// Channels that are computed at once.
pub(super) const LANES: usize = 16;
/// Bytes of the weights of four inputs and sixteen outputs.
pub(super) const WEIGHTS: usize = 4 * LANES;

/// Vectors of sixteen channels.
///
/// # Safety
/// A value of the type exists only where the machine has the instructions that its functions use.
pub(super) unsafe trait Lanes: Copy {
    /// Sixteen sums in `i32`, or 64 bytes.
    type Sums: Copy;
    /// Sixteen values in `f32`.
    type Values: Copy;

    fn no_sums(self) -> Self::Sums;
    /// Four codes, for every lane the same.
    ///
    /// # Safety
    /// Four bytes can be read.
    unsafe fn codes(self, from: *const u8) -> Self::Sums;
    /// Four weights of each lane.
    ///
    /// # Safety
    /// [`WEIGHTS`] bytes can be read.
    unsafe fn weights(self, from: *const i8) -> Self::Sums;
    /// To each sum four products of codes (0 to 255) and weights (-128 to 127) are added.
    fn dot(self, sums: Self::Sums, codes: Self::Sums, weights: Self::Sums) -> Self::Sums;
    fn load_sums(self, from: &[i32; LANES]) -> Self::Sums;
    fn store_sums(self, to: &mut [i32; LANES], sums: Self::Sums);
    fn store_weights(self, to: &mut [i8; WEIGHTS], weights: Self::Sums);
    /// `a - b`.
    fn difference(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;
    fn to_values(self, sums: Self::Sums) -> Self::Values;
    /// Four values of each lane, between -127 and 127, rounded to weights.
    fn to_weights(self, values: [Self::Values; 4]) -> Self::Sums;

    fn splat(self, value: f32) -> Self::Values;
    fn load(self, from: &[f32; LANES]) -> Self::Values;
    fn store(self, to: &mut [f32; LANES], values: Self::Values);
    fn load_halves(self, from: &[u16; LANES]) -> Self::Values;
    fn store_halves(self, to: &mut [u16; LANES], values: Self::Values);
    /// Rounded to whole numbers from 0 to 255.
    fn store_codes(self, to: &mut [u8; LANES], values: Self::Values);
    fn add(self, a: Self::Values, b: Self::Values) -> Self::Values;
    fn multiply(self, a: Self::Values, b: Self::Values) -> Self::Values;
    fn minimum(self, a: Self::Values, b: Self::Values) -> Self::Values;
    fn maximum(self, a: Self::Values, b: Self::Values) -> Self::Values;
    /// Rows become columns.
    fn transposed(self, rows: [Self::Values; LANES]) -> [Self::Values; LANES];
}

/// Work over any set of instructions. What it calls must be `#[inline(always)]`, too.
pub(super) trait Work {
    fn run<L: Lanes>(self, lanes: L);
}

/// What computes dot products of eight-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DotProducts {
    /// AVX-512 VNNI.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// Plain Rust.
    Plain,
}

impl DotProducts {
    /// All that this machine has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if has_avx512_vnni() {
            found.push(Self::Vnni);
        }
        found.push(Self::Plain);
        found
    }

    pub fn best() -> Self {
        static BEST: std::sync::OnceLock<DotProducts> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    pub(super) fn run<W: Work>(self, work: W) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => x86::run(work),
            Self::Plain => work.run(Plain),
        }
    }
}

/// Plain Rust.
#[derive(Clone, Copy)]
struct Plain;

/// The bytes of a lane.
fn bytes(lane: i32) -> [i32; 4] {
    lane.to_le_bytes().map(i32::from)
}

// SAFETY: it uses no instructions that a machine may lack.
unsafe impl Lanes for Plain {
    type Sums = [i32; LANES];
    type Values = [f32; LANES];

    #[inline(always)]
    fn no_sums(self) -> Self::Sums {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn codes(self, from: *const u8) -> Self::Sums {
        // SAFETY: the caller's promise.
        [i32::from_le_bytes(unsafe { *from.cast::<[u8; 4]>() }); LANES]
    }

    #[inline(always)]
    unsafe fn weights(self, from: *const i8) -> Self::Sums {
        // SAFETY: the caller's promise.
        let (lanes, _) = unsafe { &*from.cast::<[u8; WEIGHTS]>() }.as_chunks::<4>();
        std::array::from_fn(|lane| i32::from_le_bytes(lanes[lane]))
    }

    #[inline(always)]
    fn dot(self, sums: Self::Sums, codes: Self::Sums, weights: Self::Sums) -> Self::Sums {
        std::array::from_fn(|lane| {
            let signed = weights[lane].to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
            let products = bytes(codes[lane]).into_iter().zip(signed).map(|(a, b)| a * b);
            sums[lane] + products.sum::<i32>()
        })
    }

    #[inline(always)]
    fn load_sums(self, from: &[i32; LANES]) -> Self::Sums {
        *from
    }

    #[inline(always)]
    fn store_sums(self, to: &mut [i32; LANES], sums: Self::Sums) {
        *to = sums;
    }

    #[inline(always)]
    fn store_weights(self, to: &mut [i8; WEIGHTS], weights: Self::Sums) {
        let (lanes, _) = to.as_chunks_mut::<4>();
        for (to, lane) in lanes.iter_mut().zip(weights) {
            *to = lane.to_le_bytes().map(u8::cast_signed);
        }
    }

    #[inline(always)]
    fn difference(self, a: Self::Sums, b: Self::Sums) -> Self::Sums {
        std::array::from_fn(|lane| a[lane].wrapping_sub(b[lane]))
    }

    #[inline(always)]
    fn to_values(self, sums: Self::Sums) -> Self::Values {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn to_weights(self, values: [Self::Values; 4]) -> Self::Sums {
        std::array::from_fn(|lane| {
            i32::from_le_bytes(values.map(|of| of[lane].round_ties_even() as i8 as u8))
        })
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Values {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Values {
        *from
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], values: Self::Values) {
        *to = values;
    }

    #[inline(always)]
    fn load_halves(self, from: &[u16; LANES]) -> Self::Values {
        from.map(|bits| f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    fn store_halves(self, to: &mut [u16; LANES], values: Self::Values) {
        *to = values.map(|value| f16::from_f32(value).to_bits());
    }

    #[inline(always)]
    fn store_codes(self, to: &mut [u8; LANES], values: Self::Values) {
        *to = values.map(|value| value.round_ties_even() as u8);
    }

    #[inline(always)]
    fn add(self, a: Self::Values, b: Self::Values) -> Self::Values {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn multiply(self, a: Self::Values, b: Self::Values) -> Self::Values {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn minimum(self, a: Self::Values, b: Self::Values) -> Self::Values {
        std::array::from_fn(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn maximum(self, a: Self::Values, b: Self::Values) -> Self::Values {
        std::array::from_fn(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn transposed(self, rows: [Self::Values; LANES]) -> [Self::Values; LANES] {
        std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Transpose;

    impl Work for Transpose {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            let value = |row: usize, column: usize| (row * LANES + column) as f32;
            let rows = std::array::from_fn(|row| {
                lanes.load(&std::array::from_fn(|column| value(row, column)))
            });
            for (column, values) in lanes.transposed(rows).into_iter().enumerate() {
                let mut found = [0.0; LANES];
                lanes.store(&mut found, values);
                assert_eq!(found, std::array::from_fn(|row| value(row, column)));
            }
        }
    }

    #[test]
    fn rows_become_columns() {
        DotProducts::available().into_iter().for_each(|dots| dots.run(Transpose));
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, Lanes, WEIGHTS, Work, has_avx512_vnni};
    use std::arch::x86_64::*;

    /// Proof that the machine has AVX-512 with VNNI.
    #[derive(Clone, Copy)]
    struct Vnni(());

    pub(super) fn run<W: Work>(work: W) {
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512vnni,avx2,fma,f16c")]
        fn inner<W: Work>(work: W) {
            work.run(Vnni(()));
        }
        assert!(has_avx512_vnni(), "this machine has no AVX-512 VNNI");
        // SAFETY: the machine has the features, as just asserted.
        unsafe { inner(work) }
    }

    /// An expression of instructions that the token `Vnni` proves.
    macro_rules! proved {
        ($value:expr) => {
            // SAFETY: the token proves the instructions; references are to as many values as a vector has.
            unsafe { $value }
        };
    }

    // SAFETY: `run` alone makes the token, after it has asked the machine.
    unsafe impl Lanes for Vnni {
        type Sums = __m512i;
        type Values = __m512;

        #[inline(always)]
        fn no_sums(self) -> __m512i {
            proved!(_mm512_setzero_si512())
        }

        #[inline(always)]
        unsafe fn codes(self, from: *const u8) -> __m512i {
            // SAFETY: the token proves the instruction; the caller promises four bytes.
            unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn weights(self, from: *const i8) -> __m512i {
            // SAFETY: the token proves the instruction; the caller promises 64 bytes.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        fn dot(self, sums: __m512i, codes: __m512i, weights: __m512i) -> __m512i {
            proved!(_mm512_dpbusd_epi32(sums, codes, weights))
        }

        #[inline(always)]
        fn load_sums(self, from: &[i32; LANES]) -> __m512i {
            proved!(_mm512_loadu_si512(from.as_ptr().cast()))
        }

        #[inline(always)]
        fn store_sums(self, to: &mut [i32; LANES], sums: __m512i) {
            proved!(_mm512_storeu_si512(to.as_mut_ptr().cast(), sums))
        }

        #[inline(always)]
        fn store_weights(self, to: &mut [i8; WEIGHTS], weights: __m512i) {
            proved!(_mm512_storeu_si512(to.as_mut_ptr().cast(), weights))
        }

        #[inline(always)]
        fn difference(self, a: __m512i, b: __m512i) -> __m512i {
            proved!(_mm512_sub_epi32(a, b))
        }

        #[inline(always)]
        fn to_values(self, sums: __m512i) -> __m512 {
            proved!(_mm512_cvtepi32_ps(sums))
        }

        #[inline(always)]
        fn to_weights(self, [a, b, c, d]: [__m512; 4]) -> __m512i {
            proved!({
                let byte = _mm512_set1_epi32(0xff);
                let a = _mm512_and_si512(_mm512_cvtps_epi32(a), byte);
                let b = _mm512_slli_epi32::<8>(_mm512_and_si512(_mm512_cvtps_epi32(b), byte));
                let c = _mm512_slli_epi32::<16>(_mm512_and_si512(_mm512_cvtps_epi32(c), byte));
                let d = _mm512_slli_epi32::<24>(_mm512_cvtps_epi32(d));
                _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d))
            })
        }

        #[inline(always)]
        fn splat(self, value: f32) -> __m512 {
            proved!(_mm512_set1_ps(value))
        }

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> __m512 {
            proved!(_mm512_loadu_ps(from.as_ptr()))
        }

        #[inline(always)]
        fn store(self, to: &mut [f32; LANES], values: __m512) {
            proved!(_mm512_storeu_ps(to.as_mut_ptr(), values))
        }

        #[inline(always)]
        fn load_halves(self, from: &[u16; LANES]) -> __m512 {
            proved!(_mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())))
        }

        #[inline(always)]
        fn store_halves(self, to: &mut [u16; LANES], values: __m512) {
            proved!({
                let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
                _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
            })
        }

        #[inline(always)]
        fn store_codes(self, to: &mut [u8; LANES], values: __m512) {
            proved!({
                let values = _mm512_max_ps(values, _mm512_setzero_ps());
                let codes = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(values));
                _mm_storeu_si128(to.as_mut_ptr().cast(), codes);
            })
        }

        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            proved!(_mm512_add_ps(a, b))
        }

        #[inline(always)]
        fn multiply(self, a: __m512, b: __m512) -> __m512 {
            proved!(_mm512_mul_ps(a, b))
        }

        #[inline(always)]
        fn minimum(self, a: __m512, b: __m512) -> __m512 {
            proved!(_mm512_min_ps(a, b))
        }

        #[inline(always)]
        fn maximum(self, a: __m512, b: __m512) -> __m512 {
            proved!(_mm512_max_ps(a, b))
        }

        #[inline(always)]
        fn transposed(self, mut rows: [__m512; LANES]) -> [__m512; LANES] {
            let from = rows;
            for pair in 0..LANES / 2 {
                let [a, b] = [from[2 * pair], from[2 * pair + 1]];
                proved!({
                    rows[2 * pair] = _mm512_unpacklo_ps(a, b);
                    rows[2 * pair + 1] = _mm512_unpackhi_ps(a, b);
                });
            }
            let from = rows;
            for four in 0..LANES / 4 {
                proved!({
                    let a = _mm512_castps_pd(from[4 * four]);
                    let b = _mm512_castps_pd(from[4 * four + 1]);
                    let c = _mm512_castps_pd(from[4 * four + 2]);
                    let d = _mm512_castps_pd(from[4 * four + 3]);
                    rows[4 * four] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
                    rows[4 * four + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
                    rows[4 * four + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
                    rows[4 * four + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
                });
            }
            // Quarters of the vectors: those of columns 0 to 3, 4 to 7, ..
            let from = rows;
            for column in 0..4 {
                let [a, b] = [from[column], from[4 + column]];
                let [c, d] = [from[8 + column], from[12 + column]];
                proved!({
                    let even = _mm512_shuffle_f32x4::<0x88>(a, b);
                    let odd = _mm512_shuffle_f32x4::<0xdd>(a, b);
                    let even_below = _mm512_shuffle_f32x4::<0x88>(c, d);
                    let odd_below = _mm512_shuffle_f32x4::<0xdd>(c, d);
                    rows[column] = _mm512_shuffle_f32x4::<0x88>(even, even_below);
                    rows[4 + column] = _mm512_shuffle_f32x4::<0x88>(odd, odd_below);
                    rows[8 + column] = _mm512_shuffle_f32x4::<0xdd>(even, even_below);
                    rows[12 + column] = _mm512_shuffle_f32x4::<0xdd>(odd, odd_below);
                });
            }
            rows
        }
    }
}
