//! The differentiable operators, for every backend that has the passes of [`Kernels`].

use crate::kernels::{Kernels, NormParameters};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};

/// What this crate adds to a backend. Tensors are `[N, C, Z, Y, X]`.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "cpu"),
    Cube: cfg(all(feature = "gpu", not(feature = "fusion")))
)]
pub(crate) trait Operators: Backend {
    /// Convolution with a kernel of 3 or 1 voxels along each axis.
    fn stunet_conv3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: [usize; 3],
    ) -> FloatTensor<Self>;

    /// [`stunet_conv3d`](Self::stunet_conv3d) of two tensors concatenated along the channels.
    fn stunet_conv3d_joined(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: [usize; 3],
    ) -> FloatTensor<Self>;

    /// Instance norm and activation; a slope of 1 is none. The slope is positive.
    fn stunet_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
        slope: f64,
    ) -> FloatTensor<Self>;

    /// Instance norm, sum with a residual and activation. The slope is positive.
    fn stunet_norm_residual(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        epsilon: f64,
        slope: f64,
    ) -> FloatTensor<Self>;

    /// Repetition of voxels by whole factors.
    fn stunet_upsample(x: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;

    /// As many channels as a block has voxels become one channel of blocks.
    fn stunet_interleave(x: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;
}

/// Without gradients an operator is its forward pass.
impl<B: Kernels> Operators for B {
    fn stunet_conv3d(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        stride: [usize; 3],
    ) -> FloatTensor<B> {
        B::conv(vec![x], weight, bias, stride)
    }

    fn stunet_conv3d_joined(
        first: FloatTensor<B>,
        second: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        stride: [usize; 3],
    ) -> FloatTensor<B> {
        B::conv(vec![first, second], weight, bias, stride)
    }

    fn stunet_norm(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        epsilon: f64,
        slope: f64,
    ) -> FloatTensor<B> {
        B::norm(x, &NormParameters { weight, bias, epsilon, slope }, None).0
    }

    fn stunet_norm_residual(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        residual: FloatTensor<B>,
        epsilon: f64,
        slope: f64,
    ) -> FloatTensor<B> {
        B::norm(x, &NormParameters { weight, bias, epsilon, slope }, Some(residual)).0
    }

    fn stunet_upsample(x: FloatTensor<B>, factor: [usize; 3]) -> FloatTensor<B> {
        B::upsample(x, factor)
    }

    fn stunet_interleave(x: FloatTensor<B>, factor: [usize; 3]) -> FloatTensor<B> {
        B::interleave(x, factor)
    }
}
