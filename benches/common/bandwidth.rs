//! What the machine's memory can do at most: every thread of the pool reads, then writes, more than any
//! cache holds.
#![allow(unsafe_code)] // Stores past the caches.

use super::usage::measure;
use std::cell::RefCell;
use std::hint::black_box;

/// Values of a thread's buffer: 128 MB.
const VALUES: usize = 1 << 25;
/// Times that it is read and written; the fastest counts.
const ROUNDS: usize = 4;

/// Bytes in a second of processor time of one core, while all cores do the same.
#[derive(Clone, Copy, Debug)]
pub struct Bandwidth {
    pub read: f64,
    /// Past the caches: written memory is not read first.
    pub write: f64,
}

thread_local! {
    static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl Bandwidth {
    /// Keeps the memory busy for about a second.
    pub fn measure() -> Self {
        rayon::broadcast(|_| BUFFER.set(vec![1.0; VALUES]));
        let read = fastest(|values| {
            black_box(sum(values));
        });
        let write = fastest(write);
        rayon::broadcast(|_| BUFFER.take());
        Self { read, write }
    }

    /// Seconds of processor time that reading and writing so many bytes take at least.
    pub fn secs(&self, [read, written]: [f64; 2]) -> f64 {
        read / self.read + written / self.write
    }
}

fn fastest(work: impl Fn(&mut [f32]) + Sync) -> f64 {
    let round = |_| {
        let pass = || rayon::broadcast(|_| BUFFER.with_borrow_mut(|values| work(values))).len();
        let (threads, usage) = measure(pass);
        (threads * VALUES * size_of::<f32>()) as f64 / usage.cpu_secs
    };
    (0..ROUNDS).map(round).fold(0.0, f64::max)
}

/// Adds in as many lanes as keep several cache lines under way.
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0f32; 64];
    for chunk in values.chunks_exact(64) {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().sum()
}

fn write(values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128, _mm_set1_ps, _mm_sfence, _mm_stream_ps};
        // SAFETY: SSE is part of x86-64; a vector has no invalid values, and `align_to_mut` aligns it.
        unsafe {
            let value = _mm_set1_ps(2.0);
            for to in values.align_to_mut::<__m128>().1 {
                _mm_stream_ps(std::ptr::from_mut(to).cast(), value);
            }
            _mm_sfence();
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    values.fill(2.0);
}
