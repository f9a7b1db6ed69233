//! What less precise arithmetic could gain: `cargo bench --bench precisions`.
//!
//! A direct 3×3×3 convolution is, once its input lies in a strip that a cache holds, one loop over
//! taps and channels on a register tile of 14 voxels × 32 outputs. That loop is timed here on layer
//! shapes of S and B in single precision, in bfloat16 (pairs of products, `vdpbf16ps`) and in eight-bit
//! integers (fours, `vpdpbusd`): the most that a convolution in that precision can reach, as nothing is
//! converted, rearranged or written out. Beside it stands what the operator of the library, all of it,
//! gets done in single precision. Needs AVX-512 with BF16 and VNNI; one thread, processor time.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::disallowed_macros,
    clippy::disallowed_methods
)]

#[path = "../common/mod.rs"]
mod common;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::common::usage::measure;
    use burn::tensor::{Device, Distribution, Tensor};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Voxels of a tile, two vectors of outputs wide.
    const TILE: usize = 14;
    /// Voxels of a strip.
    const STRIP: usize = 40 * TILE;

    /// The inner loop, `$step` channels to an instruction.
    macro_rules! sweep {
        ($name:ident, $feature:literal, $zero:expr, $load:expr, $multiply:expr) => {
            /// # Safety
            /// The machine has the instructions; `input` holds 4 bytes for each of `STRIP` voxels and
            /// `steps` steps, `weight` 128 for each step.
            #[target_feature(enable = $feature)]
            unsafe fn $name(input: &[u32], weight: &[u32], steps: usize) {
                assert!(input.len() >= STRIP * steps && weight.len() >= 32 * steps);
                for tile in 0..STRIP / TILE {
                    let mut sums = [[$zero; 2]; TILE];
                    for step in 0..steps {
                        // SAFETY: inside both slices, as asserted.
                        let at = unsafe { weight.as_ptr().add(step * 32) };
                        let weights = unsafe { [$load(at), $load(at.add(16))] };
                        // SAFETY: as above.
                        let voxels = unsafe {
                            *input.as_ptr().add(step * STRIP + tile * TILE).cast::<[u32; TILE]>()
                        };
                        for voxel in 0..TILE {
                            for vector in 0..2 {
                                sums[voxel][vector] =
                                    $multiply(sums[voxel][vector], voxels[voxel], weights[vector]);
                            }
                        }
                    }
                    black_box(sums);
                }
            }
        };
    }

    sweep!(
        single,
        "avx512f",
        _mm512_setzero_ps(),
        |at: *const u32| _mm512_loadu_ps(at.cast()),
        |sum, voxel: u32, weight| _mm512_fmadd_ps(
            _mm512_set1_ps(f32::from_bits(voxel)),
            weight,
            sum
        )
    );
    sweep!(
        bfloat,
        "avx512f,avx512bf16",
        _mm512_setzero_ps(),
        |at: *const u32| _mm512_loadu_si512(at.cast()),
        |sum, voxel: u32, weight: __m512i| {
            let voxel = _mm512_set1_epi32(voxel.cast_signed());
            // SAFETY: the same 512 bits.
            let [voxel, weight]: [__m512bh; 2] = unsafe { std::mem::transmute([voxel, weight]) };
            _mm512_dpbf16_ps(sum, voxel, weight)
        }
    );
    sweep!(
        eight_bit,
        "avx512f,avx512vnni",
        _mm512_setzero_si512(),
        |at: *const u32| _mm512_loadu_si512(at.cast()),
        |sum, voxel: u32, weight| {
            _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(voxel.cast_signed()), weight)
        }
    );

    /// GFLOP/s of a loop over `products` products for each output, `per_step` to an instruction.
    fn rate(run: unsafe fn(&[u32], &[u32], usize), products: usize, per_step: usize) -> f64 {
        let steps = products / per_step;
        let (input, weight) = (vec![0x3f80_3f80; STRIP * steps], vec![0x3f00_3f00; 32 * steps]);
        let repeats = 1 + 400_000_000 / (STRIP * 2 * steps * per_step);
        let mut rates: Vec<f64> = (0..5)
            .map(|_| {
                let work = || {
                    for _ in 0..repeats {
                        // SAFETY: `run` asked for instructions found by `main`; the slices are as
                        // long as it says.
                        unsafe { run(&input, &weight, steps) };
                    }
                };
                let (_, usage) = measure(work);
                let flop = 2.0 * (STRIP * 32 * products * repeats) as f64;
                flop / usage.cpu_secs / 1e9
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        rates[2]
    }

    /// GFLOP/s of the library's operator, counted as a direct convolution.
    fn operator(inputs: usize, outputs: usize, size: usize) -> f64 {
        let device = Device::flex();
        let random = |shape| Tensor::<5>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let x = random([1, inputs, size, size, size]);
        let weight = random([outputs, inputs, 3, 3, 3]);
        let bias = Tensor::<1>::zeros([outputs], &device);
        let mut rates: Vec<f64> = (0..6)
            .map(|_| {
                let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
                let (y, usage) = measure(|| stunet::kernels::conv3d(x, weight, bias, [1; 3]));
                drop(y);
                54.0 * (inputs * outputs * size.pow(3)) as f64 / usage.cpu_secs / 1e9
            })
            .collect();
        rates.remove(0);
        rates.sort_by(f64::total_cmp);
        rates[2]
    }

    pub fn main() {
        let found =
            is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni");
        if !found {
            println!("SKIPPED: this machine has no AVX512-BF16 and VNNI");
            return;
        }
        println!("GFLOP/s of a core        loop alone:  f32    bf16    int8     operator, f32");
        for (inputs, outputs, size) in
            [(16, 16, 128), (32, 32, 128), (64, 64, 64), (128, 128, 32), (256, 256, 16)]
        {
            // Taps and channels of one strip's worth of input that a cache holds.
            let products = 27 * inputs.min(32);
            println!(
                "{inputs:3} → {outputs:3}, {size:3}³ {:27.0} {:7.0} {:7.0} {:17.0}",
                rate(single, products, 1),
                rate(bfloat, products, 2),
                rate(eight_bit, products, 4),
                operator(inputs, outputs, size),
            );
        }
    }
}

fn main() {
    #[cfg(target_arch = "x86_64")]
    x86::main();
    #[cfg(not(target_arch = "x86_64"))]
    println!("SKIPPED: written for x86-64");
}
