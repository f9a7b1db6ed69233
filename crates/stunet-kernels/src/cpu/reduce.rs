//! Sums in double precision: exact enough for any volume, and as fast as memory.

use super::simd::{Isa, Simd, Task};

const LANES: usize = 32;

/// The sum of `values`.
pub(crate) fn sum(isa: Isa, values: &[f32]) -> f64 {
    let mut sum = 0.0;
    isa.run(Sum { values, sum: &mut sum });
    sum
}

struct Sum<'a> {
    values: &'a [f32],
    sum: &'a mut f64,
}

impl Task for Sum<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let mut lanes = [0f64; LANES];
        let chunks = self.values.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*value);
            }
        }
        *self.sum = lanes.iter().sum::<f64>() + rest.iter().copied().map(f64::from).sum::<f64>();
    }
}
