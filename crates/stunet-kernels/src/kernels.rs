//! What a backend has to compute for the operators of this crate: the passes, forward and backward.
//!
//! Tensors are `[N, C, Z, Y, X]`, whatever their order in memory. How they are put together to a
//! differentiable operator is written once, in `autodiff.rs`.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Shape, TensorMetadata};
use std::fmt::Debug;

/// A norm's parameters and what follows it.
#[derive(Clone, Debug)]
pub(crate) struct NormParameters<T> {
    /// Scale, `[C]`.
    pub weight: T,
    /// Shift, `[C]`.
    pub bias: T,
    /// Added to the variance under the root.
    pub epsilon: f64,
    /// Slope of the activation for negative values, which is positive: 1 for no activation.
    pub slope: f64,
}

/// A residual that is a convolution of one or two tensors.
#[derive(Clone, Debug)]
pub(crate) struct ConvolvedResidual<T> {
    /// One, or two side by side along the channels.
    pub parts: Vec<T>,
    /// How often each voxel of the first of two is repeated along each axis.
    pub factor: [usize; 3],
    pub weight: T,
    pub bias: T,
    pub stride: [usize; 3],
}

/// Gradients of what went into a norm.
pub(crate) struct NormGradients<T> {
    /// Of the input.
    pub x: T,
    /// `[C]`.
    pub weight: T,
    /// `[C]`.
    pub bias: T,
    /// Of the residual, where one was added.
    pub residual: Option<T>,
}

/// The passes of the operators on one backend, without gradients of their own.
pub(crate) trait Kernels: Backend {
    /// What the backward pass of a norm needs of the forward pass: mean and deviation per channel.
    type Statistics: Clone + Debug + Send + 'static;

    /// Convolution of the concatenation of `parts` along the channels, with bias.
    fn conv(
        parts: Vec<FloatTensor<Self>>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: [usize; 3],
    ) -> FloatTensor<Self>;

    /// [`conv`](Self::conv), and what [`norm`](Self::norm) need not read again: moments of the output, in
    /// whatever form it takes them, where the convolution finds them on the way.
    fn conv_measured(
        parts: Vec<FloatTensor<Self>>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: [usize; 3],
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        (Self::conv(parts, weight, bias, stride), None)
    }

    /// The gradient of each part of the input.
    fn conv_input_gradient(
        gradient: &FloatTensor<Self>,
        parts: &[FloatTensor<Self>],
        weight: &FloatTensor<Self>,
        stride: [usize; 3],
    ) -> Vec<FloatTensor<Self>>;

    /// The gradient of the weights.
    fn conv_weight_gradient(
        gradient: &FloatTensor<Self>,
        parts: &[FloatTensor<Self>],
        weight: &FloatTensor<Self>,
        stride: [usize; 3],
    ) -> FloatTensor<Self>;

    /// The gradient of the bias: sums over everything but the channels.
    fn conv_bias_gradient(gradient: &FloatTensor<Self>) -> FloatTensor<Self>;

    /// Instance norm, sum with a residual if there is one, activation. Moments are those that
    /// [`conv_measured`](Self::conv_measured) found of `x`.
    fn norm(
        x: FloatTensor<Self>,
        moments: Option<FloatTensor<Self>>,
        parameters: &NormParameters<FloatTensor<Self>>,
        residual: Option<FloatTensor<Self>>,
    ) -> (FloatTensor<Self>, Self::Statistics);

    /// [`norm`](Self::norm) with a residual that need not be written.
    fn norm_convolved(
        x: FloatTensor<Self>,
        moments: Option<FloatTensor<Self>>,
        parameters: &NormParameters<FloatTensor<Self>>,
        residual: ConvolvedResidual<FloatTensor<Self>>,
    ) -> (FloatTensor<Self>, Self::Statistics) {
        let ConvolvedResidual { parts, factor, weight, bias, stride } = residual;
        let residual = match <[_; 2]>::try_from(parts) {
            Ok(parts) if factor != [1; 3] => {
                Self::conv_upsampled(parts, factor, [weight, bias], false).0
            }
            Ok(parts) => Self::conv(Vec::from(parts), weight, bias, stride),
            Err(parts) => Self::conv(parts, weight, bias, stride),
        };
        Self::norm(x, moments, parameters, Some(residual))
    }

    /// [`conv_measured`](Self::conv_measured) of the norm of `x`; weight and bias of the convolution. What
    /// lies between need not be written.
    fn conv_normed(
        x: FloatTensor<Self>,
        moments: Option<FloatTensor<Self>>,
        norm: &NormParameters<FloatTensor<Self>>,
        [weight, bias]: [FloatTensor<Self>; 2],
        stride: [usize; 3],
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        let (x, _) = Self::norm(x, moments, norm, None);
        Self::conv_measured(vec![x], weight, bias, stride)
    }

    /// [`conv`](Self::conv) of a tensor whose voxels are repeated and one that lies beside it, or
    /// [`conv_measured`](Self::conv_measured), without strides. What is repeated need not be written.
    fn conv_upsampled(
        [coarse, second]: [FloatTensor<Self>; 2],
        factor: [usize; 3],
        [weight, bias]: [FloatTensor<Self>; 2],
        measured: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        let parts = vec![Self::upsample(coarse, factor), second];
        match measured {
            true => Self::conv_measured(parts, weight, bias, [1; 3]),
            false => (Self::conv(parts, weight, bias, [1; 3]), None),
        }
    }

    /// Gradients of a norm, whose `output` is given where a residual was added.
    fn norm_gradients(
        gradient: FloatTensor<Self>,
        x: FloatTensor<Self>,
        output: Option<FloatTensor<Self>>,
        parameters: &NormParameters<FloatTensor<Self>>,
        statistics: &Self::Statistics,
    ) -> NormGradients<FloatTensor<Self>>;

    /// The weight of a convolution, the same values, in the order in memory that its forward pass reads.
    fn prepared(weight: FloatTensor<Self>) -> FloatTensor<Self> {
        weight
    }

    /// Repetition of voxels by whole factors.
    fn upsample(x: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;

    /// Its gradient: sums over what each voxel became.
    fn upsample_gradient(gradient: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;

    /// A gradient times a single value, which is 1 nearly always.
    fn scaled(gradient: FloatTensor<Self>, by: FloatTensor<Self>) -> FloatTensor<Self> {
        let shape = gradient.shape();
        let by = Self::float_reshape(by, Shape::from(vec![1; shape.num_dims()]));
        Self::float_mul(gradient, Self::float_expand(by, shape))
    }

    /// As many channels as a block has voxels become one channel of blocks.
    fn interleave(x: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;

    /// The way back, which is also the gradient.
    fn separate(x: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;
}
