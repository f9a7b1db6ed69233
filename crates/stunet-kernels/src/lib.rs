//! The 3-D operators of STU-Net, and of plain U-Nets, on Burn.
//!
//! Every convolution, norm, activation and upsampling of the network goes through a function of
//! this crate, so that a faster operator replaces a slower one without touching the model. Each
//! operator is a folder; its `reference.rs` is a composition of Burn's own operators: the truth the
//! fast ones are held against, and the fallback where none is written for a device.
//!
//! Tensors are `[N, C, Z, Y, X]`. Nothing here knows parameters, files or plans.
//!
//! | operator | what it computes |
//! |---|---|
//! | [`conv3d`] | cross-correlation with bias |
//! | [`conv3d_joined`] | the same of two tensors, as if they were concatenated |
//! | [`conv3d_measured`], [`conv3d_joined_measured`] | the same for a norm alone, with what it need not read again |
//! | [`conv_transpose3d`] | transposed convolution whose stride is its kernel |
//! | [`instance_norm`] | normalisation over space, per sample and channel |
//! | [`leaky_relu`] | `x` where positive, else `slope * x` |
//! | [`norm_activation`] | norm, then activation |
//! | [`norm_residual_activation`] | norm, plus a residual, then activation |
//! | [`Residual::convolved`] | a residual that is a convolution: computed while it is added, where the device can |
//! | [`upsample_nearest`] | repetition by whole factors |
//! | [`PointwiseRows`] | a 1×1×1 convolution of rows of voxels that the caller has on the host |
//! | [`sgd_step`] | a step of stochastic gradient descent |
//! | [`sum_of_squares`] | of all values of several tensors, on GPUs: what gradients are clipped by |
//! | [`LabelledSoftmax`] | sums of a softmax beside its labels, and the gradient of a loss of them, on GPUs |
//! | [`concat_channels`] | two tensors along the channel axis |
//! | [`WindowSums`] | sums of windows that overlap, of what a last convolution gives |
//!
//! [`in_use`] says whether operators of this crate run on a device, and why not; [`steps`] tells which
//! operators a piece of work called, and how each was computed.
#![warn(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::disallowed_methods))]

#[cfg(feature = "_own")]
#[cfg_attr(not(feature = "gpu"), allow(dead_code))] // Some are for GPUs alone.
mod autodiff;
mod concat_channels;
mod conv3d;
mod conv_transpose3d;
mod copied;
#[cfg(feature = "cpu")]
#[allow(unsafe_code)] // Vectors and shared outputs: see the module.
mod cpu;
mod device_failure;
mod device_memory;
pub mod eight_bit;
mod facts;
#[cfg(feature = "gpu")]
#[allow(unsafe_code)] // Launches: what a kernel reads and writes is its own promise.
mod gpu;
#[cfg(any(feature = "gpu", test))]
#[cfg_attr(
    not(feature = "gpu"),
    allow(dead_code, reason = "the tests ask for less than the kernels")
)]
mod gpu_tiles;
mod in_use;
mod instance_norm;
mod kept;
mod kept_kernels;
#[cfg(feature = "_own")]
#[cfg_attr(not(feature = "gpu"), allow(dead_code))] // Some are for GPUs alone.
mod kernels;
mod labelled_softmax;
mod leaky_relu;
mod measured;
#[cfg(feature = "_own")]
#[cfg_attr(not(feature = "gpu"), allow(dead_code))] // Some are for GPUs alone.
mod operators;
#[cfg(feature = "_own")]
mod own;
mod pointwise_rows;
mod residual;
mod sgd;
mod squares;
mod steps;
mod upsample_nearest;
mod upsampled;
mod window_sums;
mod windowed;
mod with_gradient;

pub use concat_channels::concat_channels;
pub use conv_transpose3d::conv_transpose3d;
pub use conv3d::{conv3d, conv3d_joined, conv3d_joined_measured, conv3d_measured, prepared};
pub use copied::copied;
pub use device_failure::{DeviceFailure, DeviceFault, Readable, guarded, read, synchronized};
pub use device_memory::{DeviceMemory, device_memory};
pub use facts::{DeviceFacts, device_facts, has_eight_bit_products, vector_instructions};
#[cfg(feature = "gpu")]
pub use gpu::{KernelCall, dry_kernel_calls, kernel_calls, launches, with_broken_kernel};
pub use in_use::{InUse, in_use};
pub use instance_norm::{Norm, instance_norm, norm_activation, norm_residual_activation};
pub use kept::{
    KeptWeights, keep_weights, kept_memory, kept_weight_bytes, kept_weight_cost, release_memory,
};
pub use kept_kernels::keep_compiled_kernels;
pub use labelled_softmax::{LabelledSoftmax, SoftmaxSlopes, SoftmaxSums};
pub use leaky_relu::leaky_relu;
pub use measured::Measured;
pub use pointwise_rows::{HalfSums, PointwiseRows};
pub use residual::Residual;
pub use sgd::{SgdStep, sgd_step};
pub use squares::sum_of_squares;
pub use steps::{Algorithm, OperatorCall, steps};
pub use upsample_nearest::upsample_nearest;
pub use upsampled::Upsampled;
pub use window_sums::WindowSums;
pub use windowed::{
    LabelDecision, LinePlace, MirroredPass, WindowAverage, WindowOverlap, WindowSumsCost,
    WindowValues,
};
pub use with_gradient::with_gradient;

/// The plain compositions of Burn operators every faster operator is held against.
pub mod reference {
    pub use crate::conv_transpose3d::reference::conv_transpose3d;
    pub use crate::conv3d::reference::{conv3d, conv3d_joined};
    pub use crate::instance_norm::reference::{
        instance_norm, norm_activation, norm_residual_activation,
    };
    pub use crate::leaky_relu::reference::leaky_relu;
    pub use crate::sgd::reference::sgd_step;
    pub use crate::upsample_nearest::reference::upsample_nearest;
}
