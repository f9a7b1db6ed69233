//! The differentiable operators, for every backend that has the passes of [`Kernels`].

use crate::kernels::{ConvolvedResidual, Kernels, NormParameters};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, Shape, TensorMetadata, backend_extension};

/// One tensor, or two that are concatenated along the channels.
#[derive(ExtensionType)]
pub(crate) enum Parts<B: Backend> {
    One(FloatTensor<B>),
    Two(FloatTensor<B>, FloatTensor<B>),
}

impl<B: Backend> Parts<B> {
    pub fn of(first: FloatTensor<B>, second: Option<FloatTensor<B>>) -> Self {
        match second {
            None => Self::One(first),
            Some(second) => Self::Two(first, second),
        }
    }

    pub fn into_vec(self) -> Vec<FloatTensor<B>> {
        match self {
            Self::One(first) => vec![first],
            Self::Two(first, second) => vec![first, second],
        }
    }
}

/// A weight with its bias, of a convolution or a norm.
#[derive(ExtensionType)]
pub(crate) struct Affine<B: Backend> {
    pub weight: FloatTensor<B>,
    pub bias: FloatTensor<B>,
}

/// A tensor or none.
#[derive(ExtensionType)]
pub(crate) enum Maybe<B: Backend> {
    Some(FloatTensor<B>),
    None,
}

impl<B: Backend> Maybe<B> {
    pub fn of(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Self::None, Self::Some)
    }

    pub fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Some(tensor) => Some(tensor),
            Self::None => None,
        }
    }
}

/// What this crate adds to a backend. Tensors are `[N, C, Z, Y, X]`.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "cpu"),
    Cube: cfg(all(feature = "gpu", not(feature = "fusion")))
)]
pub(crate) trait Operators: Backend {
    /// Convolution with a kernel of 3 or 1 voxels along each axis.
    fn stunet_conv3d(
        #[extension_type] parts: Parts<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: [usize; 3],
    ) -> FloatTensor<Self>;

    /// [`stunet_conv3d`](Self::stunet_conv3d) for what a norm alone will read, with what that need not
    /// read again. The norm undoes the bias, whose gradient is zero therefore.
    fn stunet_conv3d_measured(
        #[extension_type] parts: Parts<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: [usize; 3],
    ) -> (FloatTensor<Self>, Maybe<Self>);

    /// Instance norm, sum with a residual if there is one, and activation; epsilon and slope, where a slope
    /// of 1 is no activation and all are positive. Moments are what was measured.
    fn stunet_norm(
        x: FloatTensor<Self>,
        #[extension_type] moments: Maybe<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        #[extension_type] residual: Maybe<Self>,
        epsilon_slope: [f64; 2],
    ) -> FloatTensor<Self>;

    /// [`stunet_norm`](Self::stunet_norm) with a residual that is a convolution of the parts, of which the first of two
    /// is repeated by a factor; factor and stride.
    fn stunet_norm_convolved(
        x: FloatTensor<Self>,
        #[extension_type] moments: Maybe<Self>,
        #[extension_type] norm: Affine<Self>,
        epsilon_slope: [f64; 2],
        #[extension_type] parts: Parts<Self>,
        #[extension_type] conv: Affine<Self>,
        factor_stride: [[usize; 3]; 2],
    ) -> FloatTensor<Self>;

    /// [`stunet_conv3d_measured`](Self::stunet_conv3d_measured) of the norm of `x`, with its activation.
    fn stunet_norm_conv3d_measured(
        x: FloatTensor<Self>,
        #[extension_type] moments: Maybe<Self>,
        #[extension_type] norm: Affine<Self>,
        epsilon_slope: [f64; 2],
        #[extension_type] conv: Affine<Self>,
        stride: [usize; 3],
    ) -> (FloatTensor<Self>, Maybe<Self>);

    /// Convolution of a tensor whose voxels are repeated and one that lies beside it; if measured, for what a
    /// norm alone will read.
    fn stunet_upsampled_conv3d(
        coarse: FloatTensor<Self>,
        factor: [usize; 3],
        second: FloatTensor<Self>,
        #[extension_type] conv: Affine<Self>,
        measured: bool,
    ) -> (FloatTensor<Self>, Maybe<Self>);

    /// The weight of a convolution in the order in memory that the forward pass reads.
    fn stunet_prepared(weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Repetition of voxels by whole factors.
    fn stunet_upsample(x: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;

    /// As many channels as a block has voxels become one channel of blocks.
    fn stunet_interleave(x: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;

    /// A zero whose gradient with respect to the first is the second.
    fn stunet_with_gradient(x: FloatTensor<Self>, gradient: FloatTensor<Self>)
    -> FloatTensor<Self>;
}

/// Without gradients an operator is its forward pass.
impl<B: Kernels> Operators for B {
    fn stunet_conv3d(
        parts: Parts<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        stride: [usize; 3],
    ) -> FloatTensor<B> {
        B::conv(parts.into_vec(), weight, bias, stride)
    }

    fn stunet_conv3d_measured(
        parts: Parts<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        stride: [usize; 3],
    ) -> (FloatTensor<B>, Maybe<B>) {
        let (output, moments) = B::conv_measured(parts.into_vec(), weight, bias, stride);
        (output, Maybe::of(moments))
    }

    fn stunet_norm(
        x: FloatTensor<B>,
        moments: Maybe<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        residual: Maybe<B>,
        [epsilon, slope]: [f64; 2],
    ) -> FloatTensor<B> {
        let parameters = NormParameters { weight, bias, epsilon, slope };
        B::norm(x, moments.into_option(), &parameters, residual.into_option()).0
    }

    fn stunet_norm_convolved(
        x: FloatTensor<B>,
        moments: Maybe<B>,
        norm: Affine<B>,
        [epsilon, slope]: [f64; 2],
        parts: Parts<B>,
        Affine { weight, bias }: Affine<B>,
        [factor, stride]: [[usize; 3]; 2],
    ) -> FloatTensor<B> {
        let norm = NormParameters { weight: norm.weight, bias: norm.bias, epsilon, slope };
        let residual = ConvolvedResidual { parts: parts.into_vec(), factor, weight, bias, stride };
        B::norm_convolved(x, moments.into_option(), &norm, residual).0
    }

    fn stunet_norm_conv3d_measured(
        x: FloatTensor<B>,
        moments: Maybe<B>,
        norm: Affine<B>,
        [epsilon, slope]: [f64; 2],
        conv: Affine<B>,
        stride: [usize; 3],
    ) -> (FloatTensor<B>, Maybe<B>) {
        let norm = NormParameters { weight: norm.weight, bias: norm.bias, epsilon, slope };
        let (moments, conv) = (moments.into_option(), [conv.weight, conv.bias]);
        let (output, moments) = B::conv_normed(x, moments, &norm, conv, stride);
        (output, Maybe::of(moments))
    }

    fn stunet_upsampled_conv3d(
        coarse: FloatTensor<B>,
        factor: [usize; 3],
        second: FloatTensor<B>,
        conv: Affine<B>,
        measured: bool,
    ) -> (FloatTensor<B>, Maybe<B>) {
        let conv = [conv.weight, conv.bias];
        let (output, moments) = B::conv_upsampled([coarse, second], factor, conv, measured);
        (output, Maybe::of(moments))
    }

    fn stunet_prepared(weight: FloatTensor<B>) -> FloatTensor<B> {
        B::prepared(weight)
    }

    fn stunet_upsample(x: FloatTensor<B>, factor: [usize; 3]) -> FloatTensor<B> {
        B::upsample(x, factor)
    }

    fn stunet_interleave(x: FloatTensor<B>, factor: [usize; 3]) -> FloatTensor<B> {
        B::interleave(x, factor)
    }

    fn stunet_with_gradient(x: FloatTensor<B>, _: FloatTensor<B>) -> FloatTensor<B> {
        B::float_zeros(Shape::from([1]), &x.device(), x.dtype().into())
    }
}
