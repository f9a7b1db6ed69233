//! Sums of squares of tensors of any length.

use super::launch::{Kernel, contiguous, elem, elements, empty_f32};
use super::norm::{UNITS, add_rows};
use crate::operators::Maybe;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Values of a thread.
const EACH: usize = 64;
/// Values of a workgroup.
const CHUNK: usize = UNITS * EACH;

/// Sums have no gradient.
#[backend_extension(Cube: cfg(not(feature = "fusion")))]
trait Squares: Backend {
    /// Sums of the squares of chunks of `x` beside those of other tensors: the place of the first, and of how many in all,
    /// which are made with the first tensor.
    fn stunet_squares(
        x: FloatTensor<Self>,
        #[extension_type] sums: Maybe<Self>,
        first_of: [usize; 2],
    ) -> FloatTensor<Self>;
}

impl Squares for CubeBackend {
    fn stunet_squares(x: CubeTensor, sums: Maybe<Self>, [first, count]: [usize; 2]) -> CubeTensor {
        let sums = sums.into_option().unwrap_or_else(|| empty_f32(&x, [count]));
        run(&contiguous(x), &sums, first);
        sums
    }
}

/// Whether these are tensors of this operator.
pub(crate) fn squares_of(tensors: &[Tensor<1>]) -> bool {
    let takes = |x: &Tensor<1>| {
        let device = x.device();
        super::computes_on(&device) && super::takes(&device, x.dtype()) && !device.is_autodiff()
    };
    let same = |x: &Tensor<1>| x.device() == tensors[0].device();
    !tensors.is_empty() && tensors.iter().all(|x| takes(x) && same(x))
}

/// The sum of the squares of tensors that [`squares_of`] accepted.
pub(crate) fn sum_of_squares(tensors: &[Tensor<1>]) -> f64 {
    let chunks = |x: &Tensor<1>| x.dims()[0].div_ceil(CHUNK);
    let count = tensors.iter().map(chunks).sum();
    let (mut sums, mut first): (Option<Tensor<1>>, usize) = (None, 0);
    for x in tensors.iter().filter(|x| chunks(x) > 0) {
        let before = Maybe::of(sums.map(Tensor::into_dispatch));
        let after = Dispatch::stunet_squares(x.clone().into_dispatch(), before, [first, count]);
        sums = Some(Tensor::from_dispatch(after));
        first += chunks(x);
    }
    sums.map_or(0.0, |sums| crate::read(sums).iter::<f64>().sum())
}

fn run(x: &CubeTensor, sums: &CubeTensor, first: usize) {
    let values = elements(x);
    let cubes = values.div_ceil(CHUNK);
    let kernel = Kernel::new("squares").reads(&[x]).moves(0, cubes * DType::F32.size());
    kernel.cubes(cubes, UNITS, |count, dim| {
        // SAFETY: values beyond the last are left out, and there is a place for each workgroup from the first on.
        unsafe {
            squares::launch_unchecked(
                &x.client,
                count,
                dim,
                x.clone().into_buffer_arg(),
                sums.clone().into_buffer_arg(),
                values,
                first,
                cubes,
                elem(x),
            );
        }
    });
}

#[cube(launch_unchecked)]
fn squares<E: Float>(
    x: &[E],
    sums: &mut [f32],
    values: usize,
    first: usize,
    cubes: usize,
    #[define(E)] _dtype: ElemType,
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let mut index = CUBE_POS * CHUNK + UNIT_POS as usize;
    let mut sum = 0.0f32.runtime();
    for _ in 0..EACH {
        if index < values {
            let value = f32::cast_from(x[index]);
            sum += value * value;
        }
        index += UNITS;
    }
    let (sum, _) = add_rows(sum, 0.0f32.runtime(), 1usize);
    if UNIT_POS == 0 {
        sums[first + CUBE_POS] = sum;
    }
}
