//! Vectors of x86-64: AVX-512, and AVX2 with FMA and F16C.

use super::{Simd, Task};
use burn::tensor::f16;
use std::arch::x86_64::*;

/// Proof that the machine has AVX-512 (F, DQ, VL, BW), AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

pub(super) fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
}

/// AVX-512 with dot products of eight-bit numbers, and conversions to half precision.
pub(crate) fn has_avx512_vnni() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("f16c")
}

pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

pub(super) fn run_avx512<T: Task>(task: T) {
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,f16c")]
    fn inner<T: Task>(task: T) {
        task.run(Avx512(()));
    }
    assert!(has_avx512(), "this machine has no AVX-512");
    // SAFETY: the machine has the features, as just asserted.
    unsafe { inner(task) }
}

pub(super) fn run_avx2<T: Task>(task: T) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner<T: Task>(task: T) {
        task.run(Avx2(()));
    }
    assert!(has_avx2(), "this machine has no AVX2 with FMA and F16C");
    // SAFETY: the machine has the features, as just asserted.
    unsafe { inner(task) }
}

// SAFETY: `run_avx512` and `run_avx2` alone make the tokens, after they have asked the machine.
unsafe impl Simd for Avx512 {
    type Vector = __m512;
    type Wide = [__m512d; 2];
    const LANES: usize = 16;
    // 28 sums, two vectors of weights and one input: 31 of 32 registers.
    const TILE: usize = 14;
    const CHANNEL_TILE: usize = 8;
    // 24 sums and four vectors of voxels.
    const PLANES: usize = 6;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn multiply_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn subtract(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn multiply(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn maximum(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn zero_wide(self) -> [__m512d; 2] {
        // SAFETY: the token proves AVX-512.
        [unsafe { _mm512_setzero_pd() }; 2]
    }

    #[inline(always)]
    fn add_wide(self, sum: [__m512d; 2], a: __m512) -> [__m512d; 2] {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let [low, high] = widen_512(a);
            [_mm512_add_pd(sum[0], low), _mm512_add_pd(sum[1], high)]
        }
    }

    #[inline(always)]
    fn add_square(self, sum: [__m512d; 2], a: __m512) -> [__m512d; 2] {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let [low, high] = widen_512(a);
            [_mm512_fmadd_pd(low, low, sum[0]), _mm512_fmadd_pd(high, high, sum[1])]
        }
    }

    #[inline(always)]
    fn flush_wide(self, sum: [__m512d; 2], to: &mut [f64]) {
        let half = Self::LANES / 2;
        for (to, sum) in to[..2 * half].chunks_exact_mut(half).zip(sum) {
            // SAFETY: the token proves AVX-512; half a vector of values.
            unsafe {
                let sum = _mm512_add_pd(_mm512_loadu_pd(to.as_ptr()), sum);
                _mm512_storeu_pd(to.as_mut_ptr(), sum);
            }
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the token proves AVX-512; the caller promises 16 values.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        // SAFETY: the token proves AVX-512; the caller promises 16 values.
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> __m512 {
        // SAFETY: the token proves AVX-512; the caller promises 16 values.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_halves(self, to: *mut f16, value: __m512) {
        // SAFETY: the token proves AVX-512; the caller promises 16 values.
        unsafe {
            _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value))
        }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, value: __m512) {
        // SAFETY: the token proves AVX-512; the caller promises the place, and alignment is asked.
        unsafe {
            if to.addr().is_multiple_of(64) {
                _mm512_stream_ps(to, value);
            } else {
                _mm512_storeu_ps(to, value);
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        // SAFETY: every x86-64 machine has it, and it may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) };
    }

    #[inline(always)]
    fn fence(self) {
        // SAFETY: every x86-64 machine has it.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: [*const f32; 8], to: [*mut f32; 8]) {
        // SAFETY: the token proves AVX2 as well; the rest is the caller's promise.
        unsafe { transpose_8x8(from, to) }
    }
}

// SAFETY: `run_avx512` and `run_avx2` alone make the tokens, after they have asked the machine.
unsafe impl Simd for Avx2 {
    type Vector = __m256;
    type Wide = [__m256d; 2];
    const LANES: usize = 8;
    // 12 sums, two vectors of weights and one input: 15 of 16 registers.
    const TILE: usize = 6;
    const CHANNEL_TILE: usize = 4;
    // 8 sums, four vectors of voxels and one weight.
    const PLANES: usize = 2;

    #[inline(always)]
    fn zero(self) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn multiply_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn subtract(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn multiply(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn maximum(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn zero_wide(self) -> [__m256d; 2] {
        // SAFETY: the token proves AVX2.
        [unsafe { _mm256_setzero_pd() }; 2]
    }

    #[inline(always)]
    fn add_wide(self, sum: [__m256d; 2], a: __m256) -> [__m256d; 2] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let [low, high] = widen_256(a);
            [_mm256_add_pd(sum[0], low), _mm256_add_pd(sum[1], high)]
        }
    }

    #[inline(always)]
    fn add_square(self, sum: [__m256d; 2], a: __m256) -> [__m256d; 2] {
        // SAFETY: the token proves AVX2 and FMA.
        unsafe {
            let [low, high] = widen_256(a);
            [_mm256_fmadd_pd(low, low, sum[0]), _mm256_fmadd_pd(high, high, sum[1])]
        }
    }

    #[inline(always)]
    fn flush_wide(self, sum: [__m256d; 2], to: &mut [f64]) {
        let half = Self::LANES / 2;
        for (to, sum) in to[..2 * half].chunks_exact_mut(half).zip(sum) {
            // SAFETY: the token proves AVX2; half a vector of values.
            unsafe {
                let sum = _mm256_add_pd(_mm256_loadu_pd(to.as_ptr()), sum);
                _mm256_storeu_pd(to.as_mut_ptr(), sum);
            }
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        // SAFETY: the token proves AVX2; the caller promises 8 values.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m256) {
        // SAFETY: the token proves AVX2; the caller promises 8 values.
        unsafe { _mm256_storeu_ps(to, value) }
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> __m256 {
        // SAFETY: the token proves F16C; the caller promises 8 values.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_halves(self, to: *mut f16, value: __m256) {
        // SAFETY: the token proves F16C; the caller promises 8 values.
        unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value)) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, value: __m256) {
        // SAFETY: the token proves AVX2; the caller promises the place, and alignment is asked.
        unsafe {
            if to.addr().is_multiple_of(32) {
                _mm256_stream_ps(to, value);
            } else {
                _mm256_storeu_ps(to, value);
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        // SAFETY: every x86-64 machine has it, and it may be given any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) };
    }

    #[inline(always)]
    fn fence(self) {
        // SAFETY: every x86-64 machine has it.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: [*const f32; 8], to: [*mut f32; 8]) {
        // SAFETY: the token proves AVX2; the rest is the caller's promise.
        unsafe { transpose_8x8(from, to) }
    }
}

/// Both halves in double precision.
///
/// # Safety
/// The machine has AVX-512 (F, DQ).
#[inline(always)]
unsafe fn widen_512(a: __m512) -> [__m512d; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let high = _mm512_extractf32x8_ps::<1>(a);
        [_mm512_cvtps_pd(_mm512_castps512_ps256(a)), _mm512_cvtps_pd(high)]
    }
}

/// Both halves in double precision.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn widen_256(a: __m256) -> [__m256d; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let high = _mm256_extractf128_ps::<1>(a);
        [_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(high)]
    }
}

/// Row `j` of `to` becomes column `j` of `from`: pairs of rows, pairs of pairs, then halves.
///
/// # Safety
/// The machine has AVX; each pointer is valid for 8 values; no row of `to` overlaps one of `from`.
#[inline(always)]
unsafe fn transpose_8x8(from: [*const f32; 8], to: [*mut f32; 8]) {
    // SAFETY: the caller's promises, which are those of every instruction below.
    unsafe {
        let r = eight!(|I| _mm256_loadu_ps(from[I]));
        let p = eight!(|I| {
            let (a, b) = (r[I / 2 * 2], r[I / 2 * 2 + 1]);
            if I & 1 == 0 { _mm256_unpacklo_ps(a, b) } else { _mm256_unpackhi_ps(a, b) }
        });
        // q[4h + c]: columns c and c + 4 of rows 4h..4h + 4, one to a half.
        let q = eight!(|I| {
            let (h, c) = (I / 4, I % 4);
            let (a, b) = (p[4 * h + c / 2], p[4 * h + c / 2 + 2]);
            if c % 2 == 0 {
                _mm256_shuffle_ps::<0x44>(a, b)
            } else {
                _mm256_shuffle_ps::<0xEE>(a, b)
            }
        });
        for (c, row) in to.into_iter().enumerate() {
            let (a, b) = (q[c % 4], q[4 + c % 4]);
            let column = if c < 4 {
                _mm256_permute2f128_ps::<0x20>(a, b)
            } else {
                _mm256_permute2f128_ps::<0x31>(a, b)
            };
            _mm256_storeu_ps(row, column);
        }
    }
}
