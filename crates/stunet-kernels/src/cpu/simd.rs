//! Vectors of `f32`, and which of the machine's instruction sets work on them.
//!
//! A kernel is written once, over [`Simd`], as a [`Task`]; [`Isa::run`] compiles it for every
//! instruction set and runs the one asked for. The implementor is a token: it exists only where its
//! instructions do, which is what makes its arithmetic safe to call.

mod halves;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use burn::tensor::f16;
use portable::Portable;
use std::sync::OnceLock;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::has_avx512_vnni;

/// Values in the widest vectors.
pub(crate) const MOST_LANES: usize = 16;

/// Vectors of one instruction set.
///
/// # Safety
/// A value of the type exists only where the machine has the instructions that its functions use.
pub(crate) unsafe trait Simd: Copy {
    /// A vector.
    type Vector: Copy;
    /// As many values in double precision.
    type Wide: Copy;
    /// Values in a vector.
    const LANES: usize;
    /// Voxels of a convolution's register tile, two vectors wide.
    const TILE: usize;
    /// Input channels of a weight gradient's register tile, two vectors wide; divides 16.
    const CHANNEL_TILE: usize;
    /// Planes of a 1×1×1 convolution's register tile, four vectors wide: 6 or 2.
    const PLANES: usize;

    /// All lanes zero.
    fn zero(self) -> Self::Vector;
    /// All lanes `value`.
    fn splat(self, value: f32) -> Self::Vector;
    /// `a * b + c`.
    fn multiply_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    fn subtract(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`.
    fn multiply(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger ones; `b` where one of both is not a number.
    fn maximum(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// All zero.
    fn zero_wide(self) -> Self::Wide;
    /// `sum + a`.
    fn add_wide(self, sum: Self::Wide, a: Self::Vector) -> Self::Wide;
    /// `sum + a * a`.
    fn add_square(self, sum: Self::Wide, a: Self::Vector) -> Self::Wide;
    /// The values of a wide vector are added to those of `to`.
    fn flush_wide(self, sum: Self::Wide, to: &mut [f64]);
    /// Reads a vector.
    ///
    /// # Safety
    /// `from` is valid for reading `LANES` values.
    unsafe fn load(self, from: *const f32) -> Self::Vector;
    /// Writes a vector.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` values.
    unsafe fn store(self, to: *mut f32, value: Self::Vector);
    /// [`store`](Self::store) past the caches, where the address is aligned for that; seen by other
    /// threads after [`fence`](Self::fence).
    ///
    /// # Safety
    /// As [`store`](Self::store).
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32, value: Self::Vector) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to, value) };
    }
    /// Reads a vector of values in half precision, exactly.
    ///
    /// # Safety
    /// `from` is valid for reading `LANES` values.
    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> Self::Vector {
        const { assert!(Self::LANES <= MOST_LANES, "room for a vector") };
        let mut lanes = [0.0; MOST_LANES];
        for (lane, to) in lanes[..Self::LANES].iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *to = halves::widened(unsafe { *from.add(lane) });
        }
        // SAFETY: there are as many lanes.
        unsafe { self.load(lanes.as_ptr()) }
    }
    /// Writes a vector, every value rounded to the nearest one in half precision, ties to even.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` values.
    #[inline(always)]
    unsafe fn store_halves(self, to: *mut f16, value: Self::Vector) {
        const { assert!(Self::LANES <= MOST_LANES, "room for a vector") };
        let mut lanes = [0.0; MOST_LANES];
        // SAFETY: there are as many lanes.
        unsafe { self.store(lanes.as_mut_ptr(), value) };
        for (lane, value) in lanes[..Self::LANES].iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *to.add(lane) = halves::narrowed(*value) };
        }
    }
    /// Has the cache line at an address read, for those who need it soon; nothing where there is no such instruction.
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        let _ = from;
    }
    /// Orders what [`stream`](Self::stream) wrote before all that follows.
    #[inline(always)]
    fn fence(self) {}
    /// Row `j` of `to` becomes column `j` of the 8×8 block whose rows `from` points to.
    ///
    /// # Safety
    /// Each pointer of `from` is valid for reading 8 values, each of `to` for writing 8, and no row
    /// of `to` overlaps one of `from`.
    #[inline(always)]
    unsafe fn transpose(self, from: [*const f32; 8], to: [*mut f32; 8]) {
        for (row, to) in to.into_iter().enumerate() {
            for (column, from) in from.into_iter().enumerate() {
                // SAFETY: the caller's promise; both indices are below 8.
                unsafe { *to.add(column) = *from.add(row) };
            }
        }
    }
}

/// Work written over any instruction set.
pub(crate) trait Task {
    /// Does the work. Must be `#[inline(always)]`, and so must all it calls: only then is it
    /// compiled with the instructions of `S`. A closure that makes vectors is not: see `written_out`.
    fn run<S: Simd>(self, simd: S);
}

/// An instruction set kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 8 lanes, with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 8 lanes in two registers, with fused multiply-add.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// 16 lanes in plain Rust, with the tiles of AVX-512.
    #[cfg(test)]
    Sixteen,
    /// Plain Rust: what the compiler makes of it.
    Portable,
}

impl Isa {
    /// The sets this machine has, best first.
    pub(crate) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if x86::has_avx512() {
                found.push(Self::Avx512);
            }
            if x86::has_avx2() {
                found.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if neon::has_neon() {
            found.push(Self::Neon);
        }
        #[cfg(test)]
        if !cfg!(miri) && found.first().is_none_or(|best| best.lanes() < 16) {
            found.push(Self::Sixteen);
        }
        found.push(Self::Portable);
        found
    }

    /// The best set of this machine.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// Runs `task`.
    ///
    /// # Panics
    /// When this machine lacks the set.
    pub(crate) fn run<T: Task>(self, task: T) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::run_avx512(task),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::run_avx2(task),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::run_neon(task),
            #[cfg(test)]
            Self::Sixteen => task.run(portable::Sixteen),
            Self::Portable => task.run(Portable),
        }
    }

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "AVX2 and FMA",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "NEON",
            #[cfg(test)]
            Self::Sixteen => "plain code of 16 lanes",
            Self::Portable => "plain code",
        }
    }

    /// Values in a vector of the set.
    pub(crate) fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::Avx512::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::Avx2::LANES,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::Neon::LANES,
            #[cfg(test)]
            Self::Sixteen => portable::Sixteen::LANES,
            Self::Portable => Portable::LANES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Check;

    impl Task for Check {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let from: Vec<f32> = (0..64).map(|v| v as f32).collect();
            let mut to = vec![f32::NAN; 64];
            let base = to.as_mut_ptr();
            // SAFETY: eight rows of eight values, in buffers of 64.
            unsafe {
                simd.transpose(
                    std::array::from_fn(|row| from.as_ptr().add(8 * row)),
                    std::array::from_fn(|row| base.add(8 * row)),
                );
            }
            for (index, value) in to.iter().enumerate() {
                assert_eq!(*value, from[index % 8 * 8 + index / 8]);
            }
            let mut found = vec![f32::NAN; S::LANES];
            // SAFETY: 64 values are at least a vector, and `found` is one.
            unsafe {
                let sum = simd.multiply_add(simd.load(from.as_ptr()), simd.splat(3.0), simd.zero());
                let product = simd.multiply(sum, simd.splat(2.0));
                let less = simd.subtract(product, simd.splat(1.0));
                simd.store(found.as_mut_ptr(), simd.add(less, simd.splat(0.5)));
            }
            assert!(found.iter().enumerate().all(|(lane, v)| *v == lane as f32 * 6.0 - 0.5));
            let mut sums = [vec![0.5; S::LANES], vec![0.5; S::LANES]];
            // SAFETY: 64 values are at least a vector, and `found` is one.
            unsafe {
                let value = simd.load(from.as_ptr());
                let (mut sum, mut square) = (simd.zero_wide(), simd.zero_wide());
                for _ in 0..2 {
                    (sum, square) = (simd.add_wide(sum, value), simd.add_square(square, value));
                }
                simd.flush_wide(sum, &mut sums[0]);
                simd.flush_wide(square, &mut sums[1]);
                let least = simd.maximum(simd.splat(3.0), value);
                simd.store(found.as_mut_ptr(), simd.maximum(least, simd.splat(f32::NAN)));
                assert!(found.iter().all(|value| value.is_nan()));
                simd.store(found.as_mut_ptr(), least);
            }
            for lane in 0..S::LANES {
                let value = lane as f64;
                assert_eq!(f64::from(found[lane]), value.max(3.0));
                assert_eq!(
                    [sums[0][lane], sums[1][lane]],
                    [0.5 + 2.0 * value, 0.5 + 2.0 * value * value]
                );
            }
        }
    }

    /// What is narrowed, and what is found when that is widened again.
    struct Round<'a>(&'a [f32], &'a mut [f16], &'a mut [f32]);

    impl Task for Round<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let Self(values, narrow, wide) = self;
            for at in (0..values.len()).step_by(S::LANES) {
                // SAFETY: whole vectors, as `values` are a multiple of 16.
                unsafe {
                    simd.store_halves(
                        narrow.as_mut_ptr().add(at),
                        simd.load(values.as_ptr().add(at)),
                    );
                    let rounded = simd.load_halves(narrow.as_ptr().add(at));
                    simd.store(wide.as_mut_ptr().add(at), rounded);
                }
            }
        }
    }

    /// Every half, what lies halfway to the next and beside both, and bit patterns from all over.
    #[test]
    fn every_set_rounds_to_half_precision_alike() {
        let halves = (0..0x7c00u16).flat_map(|bits| {
            let value = f16::from_bits(bits).to_f32();
            let next = f16::from_bits(bits + 1).to_f32();
            let next = if next.is_finite() { next } else { 65_536.0 };
            [value, (value + next) / 2.0].map(|at| [at.next_down(), at, at.next_up()])
        });
        let values = halves.flatten().flat_map(|value| [value, -value]);
        let mut values: Vec<f32> =
            values.chain((0..=u32::MAX).step_by(40_009).map(f32::from_bits)).collect();
        values.resize(values.len().next_multiple_of(16), 0.0);
        for isa in Isa::available() {
            let (mut narrow, mut wide) = (vec![f16::ONE; values.len()], vec![1.0; values.len()]);
            isa.run(Round(&values, &mut narrow, &mut wide));
            for ((value, narrow), wide) in values.iter().zip(&narrow).zip(&wide) {
                let expected = f16::from_f32(*value);
                if expected.is_nan() {
                    assert!(narrow.is_nan() && wide.is_nan(), "{isa:?}: {value}");
                } else {
                    assert_eq!(narrow.to_bits(), expected.to_bits(), "{isa:?}: {value}");
                    assert_eq!(wide.to_bits(), expected.to_f32().to_bits(), "{isa:?}: {value}");
                }
            }
        }
    }

    #[test]
    fn every_set_of_this_machine_computes() {
        let sets = Isa::available();
        assert_eq!(sets.last(), Some(&Isa::Portable));
        #[cfg(target_arch = "aarch64")]
        assert_eq!(sets.first(), Some(&Isa::Neon));
        sets.into_iter().for_each(|isa| isa.run(Check));
    }
}
