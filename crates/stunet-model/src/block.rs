//! The residual block and its parts.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use stunet_kernels as kernels;

/// Slope of the activation for negative values.
const LEAKY_SLOPE: f64 = 0.01;
/// Added to the variance under the root.
const NORM_EPSILON: f64 = 1e-5;

/// A convolution's parameters.
#[derive(Module, Debug)]
pub struct Conv {
    /// `[Cout, Cin, K, K, K]`.
    pub weight: Param<Tensor<5>>,
    /// `[Cout]`.
    pub bias: Param<Tensor<1>>,
}

impl Conv {
    /// Convolves with padding of half the kernel.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives `[N, Cout, ceil(Z / sz), ceil(Y / sy), ceil(X / sx)]`.
    pub fn forward(&self, x: Tensor<5>, stride: [usize; 3]) -> Tensor<5> {
        kernels::conv3d(x, self.weight.val(), self.bias.val(), stride)
    }

    /// [`forward`](Self::forward) of two tensors, as if they were concatenated along the channels.
    fn forward_joined(&self, [first, second]: [Tensor<5>; 2]) -> Tensor<5> {
        kernels::conv3d_joined(first, second, self.weight.val(), self.bias.val(), [1; 3])
    }
}

/// An affine instance norm's parameters.
#[derive(Module, Debug)]
pub struct InstanceNorm {
    /// Scale, `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[C]`.
    pub bias: Param<Tensor<1>>,
}

impl InstanceNorm {
    fn norm(&self) -> kernels::Norm {
        kernels::Norm { weight: self.weight.val(), bias: self.bias.val(), epsilon: NORM_EPSILON }
    }
}

/// Two 3×3×3 convolutions, each with its norm, around a skip connection.
///
/// `act(norm2(conv2(act(norm1(conv1(x))))) + skip(x))`; the skip is a strided 1×1×1 convolution with
/// bias and no norm in the first block of a stage, the identity in the others.
///
/// # Source
/// `BasicResBlock` of STU-Net's trainer (nnU-Net 1.7.1 and 2.2).
#[derive(Module, Debug)]
pub struct ResidualBlock {
    /// First convolution: changes width and resolution.
    pub conv1: Conv,
    /// Norm after `conv1`.
    pub norm1: InstanceNorm,
    /// Second convolution.
    pub conv2: Conv,
    /// Norm after `conv2`.
    pub norm2: InstanceNorm,
    /// 1×1×1 convolution of the skip connection; none means identity.
    pub skip: Option<Conv>,
}

impl ResidualBlock {
    /// Runs the block.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives `[N, Cout, ceil(Z / sz), ceil(Y / sy), ceil(X / sx)]`.
    ///
    /// # Panics
    /// When a single voxel is left, or a block without skip convolution is given a stride.
    pub fn forward(&self, x: Tensor<5>, stride: [usize; 3]) -> Tensor<5> {
        let y = self.first_half(self.conv1.forward(x.clone(), stride));
        // The residual comes last: until then only its input is held.
        let y = self.conv2.forward(y, [1; 3]);
        let residual = match &self.skip {
            Some(skip) => skip.forward(x, stride),
            None => x,
        };
        self.second_half(y, residual)
    }

    /// Runs the block on the concatenation of two tensors along the channels.
    ///
    /// # Shapes
    /// `[N, C1, Z, Y, X]` and `[N, C2, Z, Y, X]`, where `C1 + C2 = Cin`, give `[N, Cout, Z, Y, X]`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and when the block has no skip convolution.
    pub fn forward_joined(&self, x: [Tensor<5>; 2]) -> Tensor<5> {
        let skip = self.skip.as_ref().expect("the first block of a stage has a skip convolution");
        let y = self.first_half(self.conv1.forward_joined(x.clone()));
        // The residual takes the place of its two inputs before more is computed.
        let residual = skip.forward_joined(x);
        self.second_half(self.conv2.forward(y, [1; 3]), residual)
    }

    /// What follows `conv1`.
    fn first_half(&self, y: Tensor<5>) -> Tensor<5> {
        kernels::norm_activation(y, self.norm1.norm(), LEAKY_SLOPE)
    }

    /// What follows `conv2`.
    fn second_half(&self, y: Tensor<5>, residual: Tensor<5>) -> Tensor<5> {
        kernels::norm_residual_activation(y, self.norm2.norm(), residual, LEAKY_SLOPE)
    }
}

/// Runs the blocks of a stage; the stride belongs to the first.
pub(crate) fn forward_stage(
    blocks: &[ResidualBlock],
    mut x: Tensor<5>,
    stride: [usize; 3],
) -> Tensor<5> {
    for (index, block) in blocks.iter().enumerate() {
        x = block.forward(x, if index == 0 { stride } else { [1; 3] });
    }
    x
}
