//! Operators of our own for GPUs: every device that CubeCL reaches, from one source.
//!
//! `operators.rs` implements [`Kernels`](crate::kernels::Kernels) for CubeCL's backend. Tensors are
//! `[N, C, Z, Y, X]` for Burn and `[N, Z, Y, X, C]` in memory: a workgroup that reads a few channels of
//! neighbouring voxels reads neighbouring bytes, and weights of neighbouring channels are vectors.
//! Tensors in another order are copied when they come in; what comes out stays as it is, and Burn's
//! operators read it as well.
//!
//! Values are stored as Burn stores them and multiplied and added in single precision. What a workgroup
//! computes is in `gpu_tiles.rs`; it keeps to what WebGPU guarantees, without subgroups.

mod conv;
mod faults;
#[cfg_attr(feature = "fusion", allow(dead_code, unused_variables))] // Nothing is called then.
mod labelled_softmax;
mod launch;
mod moments;
mod norm;
mod operators;
#[cfg_attr(feature = "fusion", allow(unused_variables))] // Nothing is called then.
mod sgd;
#[cfg_attr(feature = "fusion", allow(unused_variables))] // Nothing is called then.
mod squares;
mod traffic;
mod voxels;
#[cfg_attr(feature = "fusion", allow(dead_code, unused_variables))] // Nothing is called then.
mod window_sums;

pub(crate) use crate::gpu_tiles as tiles;
use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device};
use conv::Shape;
use tiles::{SHARED, UNITS};

pub use faults::with_broken_kernel;
pub(crate) use labelled_softmax::OwnSoftmax;
pub(crate) use sgd::{sgd_step, steps};
pub(crate) use squares::{squares_of, sum_of_squares};
pub use traffic::{KernelCall, dry_kernel_calls, kernel_calls, launches};
pub(crate) use window_sums::OwnSums;

/// Whether a device is one these operators are written for: a GPU, or what passes for one, that offers
/// what WebGPU guarantees. With Burn's fusion the backend is another one.
pub(crate) fn computes_on(device: &Device) -> bool {
    if cfg!(feature = "fusion") {
        return false;
    }
    let device = device.clone().without_autodiff();
    let DispatchDevice::Cube(device) = device.as_dispatch() else { return false };
    let client = device.client();
    let hardware = &client.properties().hardware;
    hardware.max_shared_memory_size >= SHARED && hardware.max_units_per_cube as usize >= UNITS
}

/// Most bytes of one tensor, and of all, if that is told, on a device that [`computes_on`] accepts.
pub(crate) fn memory(device: &Device) -> Option<(u64, Option<u64>)> {
    /// Kernels count values in 32 bits.
    const COUNTED: u64 = 1 << 32;
    if !computes_on(device) {
        return None;
    }
    let device = device.clone().without_autodiff();
    let DispatchDevice::Cube(device) = device.as_dispatch() else { return None };
    let client = device.client();
    let memory = &client.properties().memory;
    Some((memory.max_page_size.min(COUNTED), memory.max_memory()))
}

/// Whether these operators are written for a type, and the device has it: 16 bits are what values are
/// stored in, never what they are added in.
pub(crate) fn takes(device: &Device, dtype: DType) -> bool {
    match dtype {
        DType::F32 => true,
        DType::F16 | DType::BF16 => device.supports_dtype(dtype),
        _ => false,
    }
}

/// Whether every pass of a convolution is written for these shapes.
pub(crate) fn convolution_fits(input: [usize; 5], weight: [usize; 5], stride: [usize; 3]) -> bool {
    Shape::new(input, weight, stride).fits()
}
