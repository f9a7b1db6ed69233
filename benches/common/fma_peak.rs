//! What the machine can do at most: fused multiply-adds in registers, on every thread of the pool.
#![allow(unsafe_code)] // Calls into functions compiled for instructions that were found.

use super::usage::{Usage, measure};
use std::hint::black_box;

/// Independent sums of a thread: more than two multiply-adds a cycle, five cycles deep, keep busy.
const SUMS: usize = 12;
/// Rounds over them: a fifth of a second at 16 lanes.
const ROUNDS: usize = 1 << 26;

/// A measured peak of the whole thread pool.
#[derive(Clone, Copy, Debug)]
pub struct FmaPeak {
    pub usage: Usage,
    pub flop: f64,
}

impl FmaPeak {
    /// Keeps every thread busy for about a fifth of a second.
    pub fn measure() -> Self {
        let (lanes, usage) = measure(|| rayon::broadcast(|_| multiply_add()));
        let multiply_adds = lanes.iter().sum::<usize>() * SUMS * ROUNDS;
        Self { usage, flop: 2.0 * multiply_adds as f64 }
    }

    /// GFLOP/s of the pool by the clock: less than the machine's if others use it.
    pub fn gflops(&self) -> f64 {
        self.flop / self.usage.wall_secs / 1e9
    }

    /// GFLOP/s of one core by processor time, which others do not touch but through its frequency.
    pub fn gflops_per_core(&self) -> f64 {
        self.flop / self.usage.cpu_secs / 1e9
    }
}

/// Multiplies and adds with the widest vectors there are; gives their lanes.
fn multiply_add() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the instructions are there.
            unsafe { x86::avx512(ROUNDS) };
            return 16;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the instructions are there.
            unsafe { x86::avx2(ROUNDS) };
            return 8;
        }
    }
    let (factor, mut sums) = (black_box([0.5f32; 4]), black_box([[1f32; 4]; SUMS]));
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = std::array::from_fn(|lane| sum[lane].mul_add(factor[lane], factor[lane]));
        }
    }
    black_box(sums);
    4
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{SUMS, black_box};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub fn avx512(rounds: usize) {
        let factor = _mm512_set1_ps(black_box(0.5));
        let mut sums = [factor; SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(rounds: usize) {
        let factor = _mm256_set1_ps(black_box(0.5));
        let mut sums = [factor; SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        black_box(sums);
    }
}
