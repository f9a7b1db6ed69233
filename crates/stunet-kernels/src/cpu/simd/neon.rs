//! Vectors of AArch64: NEON.

use super::{Simd, Task};
use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

/// Proof that the machine has NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

pub(super) fn has_neon() -> bool {
    is_aarch64_feature_detected!("neon")
}

pub(super) fn run_neon<T: Task>(task: T) {
    #[target_feature(enable = "neon")]
    fn inner<T: Task>(task: T) {
        task.run(Neon(()));
    }
    assert!(has_neon(), "this machine has no NEON");
    // SAFETY: the machine has the feature, as just asserted.
    unsafe { inner(task) }
}

/// Eight lanes are two registers: a block of outputs is then a multiple of 8 wide, and one of 16 has
/// sums enough to hide the multipliers' latency.
// SAFETY: `run_neon` alone makes the token, after it has asked the machine.
unsafe impl Simd for Neon {
    type Vector = [float32x4_t; 2];
    type Wide = [float64x2_t; 4];
    const LANES: usize = 8;
    // In registers of four: 24 sums, four of weights and one input, 29 of 32.
    const TILE: usize = 6;
    const CHANNEL_TILE: usize = 4;
    // 16 sums, eight registers of voxels and one weight.
    const PLANES: usize = 2;

    #[inline(always)]
    fn zero(self) -> Self::Vector {
        self.splat(0.0)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Vector {
        // SAFETY: the token proves NEON.
        [unsafe { vdupq_n_f32(value) }; 2]
    }

    #[inline(always)]
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // SAFETY: the token proves NEON. The addend comes first here.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: the token proves NEON.
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    fn subtract(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: the token proves NEON.
        unsafe { [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    fn multiply(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: the token proves NEON.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    fn maximum(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        // SAFETY: the token proves NEON. Where one is not a number, no comparison holds.
        unsafe {
            [
                vbslq_f32(vcgtq_f32(a[0], b[0]), a[0], b[0]),
                vbslq_f32(vcgtq_f32(a[1], b[1]), a[1], b[1]),
            ]
        }
    }

    #[inline(always)]
    fn zero_wide(self) -> Self::Wide {
        // SAFETY: the token proves NEON.
        [unsafe { vdupq_n_f64(0.0) }; 4]
    }

    #[inline(always)]
    fn add_wide(self, sum: Self::Wide, a: Self::Vector) -> Self::Wide {
        let wide = self.widen(a);
        // SAFETY: the token proves NEON.
        four!(|I| unsafe { vaddq_f64(sum[I], wide[I]) })
    }

    #[inline(always)]
    fn add_square(self, sum: Self::Wide, a: Self::Vector) -> Self::Wide {
        let wide = self.widen(a);
        // SAFETY: the token proves NEON. The addend comes first here.
        four!(|I| unsafe { vfmaq_f64(sum[I], wide[I], wide[I]) })
    }

    #[inline(always)]
    fn flush_wide(self, sum: Self::Wide, to: &mut [f64]) {
        for (to, sum) in to[..8].chunks_exact_mut(2).zip(sum) {
            // SAFETY: the token proves NEON; two values.
            unsafe { vst1q_f64(to.as_mut_ptr(), vaddq_f64(vld1q_f64(to.as_ptr()), sum)) };
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::Vector {
        // SAFETY: the token proves NEON; the caller promises 8 values.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4))] }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: Self::Vector) {
        // SAFETY: the token proves NEON; the caller promises 8 values.
        unsafe {
            vst1q_f32(to, value[0]);
            vst1q_f32(to.add(4), value[1]);
        }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: [*const f32; 8], to: [*mut f32; 8]) {
        // SAFETY: the token proves NEON; the rest is the caller's promise.
        unsafe { transpose_8x8(from, to) }
    }
}

impl Neon {
    /// Pairs of a vector's values in double precision.
    #[inline(always)]
    fn widen(self, [a, b]: [float32x4_t; 2]) -> [float64x2_t; 4] {
        // SAFETY: the token proves NEON.
        unsafe {
            [
                vcvt_f64_f32(vget_low_f32(a)),
                vcvt_high_f64_f32(a),
                vcvt_f64_f32(vget_low_f32(b)),
                vcvt_high_f64_f32(b),
            ]
        }
    }
}

/// Row `j` of `to` becomes column `j` of `from`: four blocks of 4×4.
///
/// # Safety
/// The machine has NEON; each pointer is valid for 8 values; no row of `to` overlaps one of `from`.
#[inline(always)]
unsafe fn transpose_8x8(from: [*const f32; 8], to: [*mut f32; 8]) {
    for row in [0, 4] {
        for column in [0, 4] {
            // SAFETY: the caller's promises; `row + 4` and `column + 4` are at most 8.
            unsafe {
                let block = transpose_4x4([
                    vld1q_f32(from[row].add(column)),
                    vld1q_f32(from[row + 1].add(column)),
                    vld1q_f32(from[row + 2].add(column)),
                    vld1q_f32(from[row + 3].add(column)),
                ]);
                for (index, values) in block.into_iter().enumerate() {
                    vst1q_f32(to[column + index].add(row), values);
                }
            }
        }
    }
}

/// The columns of four rows: pairs of rows, then pairs of pairs.
///
/// # Safety
/// The machine has NEON.
#[inline(always)]
unsafe fn transpose_4x4([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        // Columns 0 and 2, or 1 and 3, of two rows: each column one value of 64 bits.
        let [ab_even, ab_odd, cd_even, cd_odd] =
            [vtrn1q_f32(a, b), vtrn2q_f32(a, b), vtrn1q_f32(c, d), vtrn2q_f32(c, d)];
        let [ab_even, ab_odd, cd_even, cd_odd] = [
            vreinterpretq_f64_f32(ab_even),
            vreinterpretq_f64_f32(ab_odd),
            vreinterpretq_f64_f32(cd_even),
            vreinterpretq_f64_f32(cd_odd),
        ];
        [
            vreinterpretq_f32_f64(vtrn1q_f64(ab_even, cd_even)),
            vreinterpretq_f32_f64(vtrn1q_f64(ab_odd, cd_odd)),
            vreinterpretq_f32_f64(vtrn2q_f64(ab_even, cd_even)),
            vreinterpretq_f32_f64(vtrn2q_f64(ab_odd, cd_odd)),
        ]
    }
}
