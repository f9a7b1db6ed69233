//! Operators of our own for the processor: Burn's `flex` backend, `f32`.
//!
//! `operators.rs` implements [`Kernels`](crate::kernels::Kernels) for Flex: every pass, forward and
//! backward. [`takes`] says whether tensors are theirs.
//!
//! All arithmetic is over [`simd`], chosen at run time. All parallelism is rayon's, over tasks whose
//! cut depends on shapes alone, so that results do not depend on the number of threads.

#[macro_use]
mod written_out;

mod conv;
pub(crate) mod eight_bit;
mod evenly;
mod interleave;
mod kept_weights;
mod memory;
mod norm;
mod operators;
mod pool;
mod reduce;
mod simd;
mod tensor;
mod upsample;

pub(crate) use conv::{add_pointwise_rows, kept_weight_cost, pointwise_rows};
pub(crate) use kept_weights::{Allowance, held as kept_weight_bytes};
pub(crate) use pool::{kept_memory, release_memory};
pub(crate) use simd::Isa;

use crate::Algorithm;
use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device};

/// The type these operators are written for.
pub(crate) const fn takes(dtype: DType) -> bool {
    matches!(dtype, DType::F32)
}

/// Whether a device is one these operators are written for.
pub(crate) fn computes_on(device: &Device) -> bool {
    let device = device.clone().without_autodiff();
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// The instructions in use, and how many values they work on at a time.
pub(crate) fn vector_instructions() -> String {
    let best = Isa::best();
    format!("{}, {} values at a time", best.name(), best.lanes())
}

/// How a convolution of tensors that [`takes`] accepted is computed.
pub(crate) fn convolution_algorithm(
    input: [usize; 5],
    weight: [usize; 5],
    stride: [usize; 3],
) -> Algorithm {
    let [batch, _, z, y, x] = input;
    let [outputs, inputs, kernel, ..] = weight;
    conv::algorithm(&conv::Shape { batch, inputs, outputs, size: [z, y, x], stride }, kernel)
}

#[cfg(test)]
mod tests;
