//! Which operators ran, and how.

use std::cell::RefCell;

/// How an operator was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// Burn's own operators: the truth, and the fallback.
    Reference,
    /// The processor's own operator: a convolution product by product.
    Direct,
    /// The processor's own operator: a convolution by minimal filtering.
    Winograd,
    /// The processor's own operator: a convolution of single voxels.
    Pointwise,
    /// An operator of this crate: in one pass what would be several.
    Fused,
    /// A GPU's own operator: a convolution in tiles, from shared memory and registers.
    Tiled,
}

/// One operator that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperatorCall {
    /// Its name, that of the function: `conv3d`, `norm_activation`, ...
    pub operator: &'static str,
    /// How it was computed.
    pub algorithm: Algorithm,
    /// Its input, `[N, C, Z, Y, X]`; of two that are joined, as if they were one.
    pub input: [usize; 5],
    /// Its weight, for convolutions: `[Cout, Cin, K, K, K]`.
    pub weight: Option<[usize; 5]>,
}

thread_local! {
    static STEPS: RefCell<Option<Vec<OperatorCall>>> = const { RefCell::new(None) };
}

/// Runs `work` and lists the operators that this thread called meanwhile, forward passes alone.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use stunet_kernels::{Algorithm, steps, upsample_nearest};
///
/// let x = Tensor::<5>::ones([1, 1, 2, 2, 2], &Device::flex());
/// let (y, steps) = steps(|| upsample_nearest(x, [2; 3]));
/// assert_eq!((y.dims()[4], steps[0].operator, steps[0].input[4]), (4, "upsample_nearest", 2));
/// # let _ = Algorithm::Fused;
/// ```
pub fn steps<R>(work: impl FnOnce() -> R) -> (R, Vec<OperatorCall>) {
    let outer = Outer(STEPS.replace(Some(Vec::new())));
    let result = work();
    let steps = STEPS.take().unwrap_or_default();
    drop(outer);
    (result, steps)
}

/// The list of whoever asked before, put back even if the work panics.
struct Outer(Option<Vec<OperatorCall>>);

impl Drop for Outer {
    fn drop(&mut self) {
        STEPS.set(self.0.take());
    }
}

/// Notes an operator, if anybody asks.
pub(crate) fn note(
    operator: &'static str,
    algorithm: Algorithm,
    input: [usize; 5],
    weight: Option<[usize; 5]>,
) {
    STEPS.with_borrow_mut(|steps| {
        if let Some(steps) = steps {
            steps.push(OperatorCall { operator, algorithm, input, weight });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn a_panic_leaves_the_outer_list() {
        let one = |name| note(name, Algorithm::Fused, [1; 5], None);
        let ((), calls) = steps(|| {
            one("before");
            let panicked = catch_unwind(|| steps(|| -> () { panic!("on purpose") }));
            assert!(panicked.is_err());
            one("after");
        });
        let names: Vec<_> = calls.iter().map(|call| call.operator).collect();
        assert_eq!(names, ["before", "after"]);
        // Nobody asks any more.
        assert!(STEPS.with_borrow(Option::is_none));
    }
}
