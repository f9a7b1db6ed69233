//! The residual block and its parts.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor};
use kernels::{Measured, PointwiseRows, Residual, Upsampled, WindowValues};
use stunet_kernels as kernels;

/// Slope of the activation for negative values.
const LEAKY_SLOPE: f64 = 0.01;
/// Added to the variance under the root.
const NORM_EPSILON: f64 = 1e-5;

/// A convolution: `ConvConfig::new([in, out], kernel).init(&device)`.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use stunet_model::ConvConfig;
/// let device = Device::flex();
/// let head = ConvConfig::new([16, 3], 1).init(&device);
/// let logits = head.forward(Tensor::ones([1, 16, 2, 2, 2], &device), [1; 3]);
/// assert_eq!(logits.dims(), [1, 3, 2, 2, 2]);
/// ```
#[derive(Config, Debug)]
pub struct ConvConfig {
    /// Features that go in and that come out.
    pub channels: [usize; 2],
    /// Voxels along each axis: 1 or another odd number.
    pub kernel: usize,
}

impl ConvConfig {
    /// A convolution with He-normal weights for the network's activation and a bias of zero, drawn
    /// from the device's generator when they are first used.
    pub fn init(&self, device: &Device) -> Conv {
        let ([inputs, outputs], k) = (self.channels, self.kernel);
        let gain = (2.0 / (1.0 + LEAKY_SLOPE * LEAKY_SLOPE)).sqrt();
        let weight = Initializer::KaimingNormal { gain, fan_out_only: false };
        let fan_in = Some(inputs * k.pow(3));
        Conv {
            weight: weight.init_with([outputs, inputs, k, k, k], fan_in, None, device),
            bias: Initializer::Zeros.init([outputs], device),
        }
    }
}

/// A convolution's parameters.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Conv {
    /// `[Cout, Cin, K, K, K]`.
    pub weight: Param<Tensor<5>>,
    /// `[Cout]`.
    pub bias: Param<Tensor<1>>,
}

impl ModuleDisplay for Conv {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [inputs, outputs] = self.channels();
        let kernel = self.weight.lazy_shape().dims::<5>()[2];
        let content = content.add("inputs", &inputs).add("outputs", &outputs);
        content.add("kernel", &kernel).optional()
    }
}

impl Conv {
    /// Features that go in and that come out.
    pub fn channels(&self) -> [usize; 2] {
        let [outputs, inputs, ..] = self.weight.lazy_shape().dims::<5>();
        [inputs, outputs]
    }

    /// Convolves with padding of half the kernel.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives `[N, Cout, ceil(Z / sz), ceil(Y / sy), ceil(X / sx)]`.
    pub fn forward(&self, x: Tensor<5>, stride: [usize; 3]) -> Tensor<5> {
        kernels::conv3d(x, self.weight.val(), self.bias.val(), stride)
    }

    /// The convolution of single voxels that has yet to be computed.
    pub(crate) fn waiting(&self, features: Tensor<5>) -> WindowValues {
        WindowValues::BeforeHead { features, weight: self.weight.val(), bias: self.bias.val() }
    }

    /// [`forward`](Self::forward) of voxels on the host, for a kernel of one voxel.
    pub(crate) fn rows(&self) -> Option<PointwiseRows> {
        PointwiseRows::new(self.weight.val(), self.bias.val())
    }

    /// [`forward`](Self::forward), for a norm alone to read.
    pub(crate) fn measured(&self, x: Tensor<5>, stride: [usize; 3]) -> Measured {
        kernels::conv3d_measured(x, self.weight.val(), self.bias.val(), stride)
    }

    /// [`forward`](Self::forward) of a tensor that is upsampled and the one beside it, for a norm alone to read.
    fn measured_upsampled(&self, first: Upsampled, second: Tensor<5>) -> Measured {
        first.conv3d_joined_measured(second, self.weight.val(), self.bias.val())
    }

    /// [`forward`](Self::forward) of two tensors, as if they were one, for a norm alone to read.
    pub(crate) fn measured_joined(&self, [first, second]: [Tensor<5>; 2]) -> Measured {
        kernels::conv3d_joined_measured(first, second, self.weight.val(), self.bias.val(), [1; 3])
    }
}

/// An affine instance norm's parameters.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct InstanceNorm {
    /// Scale, `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[C]`.
    pub bias: Param<Tensor<1>>,
}

impl ModuleDisplay for InstanceNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content.add("channels", &self.weight.lazy_shape().dims::<1>()[0]).optional()
    }
}

impl InstanceNorm {
    fn init(channels: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
        }
    }

    /// The norm and the activation behind it, of values in eight bits.
    pub(crate) fn eight_bits(&self) -> kernels::eight_bit::EightBitNorm {
        let values = |tensor: Tensor<1>| {
            let data = tensor.into_data().convert::<f32>();
            data.try_into_vec().expect("converted to f32")
        };
        kernels::eight_bit::EightBitNorm {
            weight: values(self.weight.val()),
            bias: values(self.bias.val()),
            epsilon: NORM_EPSILON,
            slope: LEAKY_SLOPE as f32,
        }
    }

    fn norm(&self) -> kernels::Norm {
        kernels::Norm { weight: self.weight.val(), bias: self.bias.val(), epsilon: NORM_EPSILON }
    }
}

/// A residual block: `ResidualBlockConfig::new([in, out]).init(&device)`.
#[derive(Config, Debug)]
pub struct ResidualBlockConfig {
    /// Features that go in and that come out.
    pub channels: [usize; 2],
    /// Whether the skip connection is a convolution, as in the first block of a stage, or the
    /// identity.
    #[config(default = true)]
    pub convolved_skip: bool,
}

impl ResidualBlockConfig {
    /// A block with parameters as [`ConvConfig::init`] draws them, norms without effect.
    ///
    /// # Panics
    /// When the skip connection is the identity between different numbers of features.
    pub fn init(&self, device: &Device) -> ResidualBlock {
        let [inputs, outputs] = self.channels;
        assert!(
            self.convolved_skip || inputs == outputs,
            "a block without a convolved skip connection: expected as many inputs as outputs, \
             found {inputs} and {outputs}"
        );
        ResidualBlock {
            conv1: ConvConfig::new([inputs, outputs], 3).init(device),
            norm1: InstanceNorm::init(outputs, device),
            conv2: ConvConfig::new([outputs, outputs], 3).init(device),
            norm2: InstanceNorm::init(outputs, device),
            skip: self.convolved_skip.then(|| ConvConfig::new([inputs, outputs], 1).init(device)),
        }
    }
}

/// The blocks of one stage: only the first changes the width and has a skip convolution.
pub(crate) fn init_stage(
    [inputs, outputs]: [usize; 2],
    depth: usize,
    device: &Device,
) -> Vec<ResidualBlock> {
    let block = |index| match index {
        0 => ResidualBlockConfig::new([inputs, outputs]),
        _ => ResidualBlockConfig::new([outputs, outputs]).with_convolved_skip(false),
    };
    (0..depth).map(|index| block(index).init(device)).collect()
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
        // The residual comes last: until then only its input is held.
        let y = self.second_conv(self.conv1.measured(x.clone(), stride));
        let residual = match &self.skip {
            Some(skip) => Residual::convolved(x, skip.weight.val(), skip.bias.val(), stride),
            None => x.into(),
        };
        y.norm_residual_activation(self.norm2.norm(), residual, LEAKY_SLOPE)
    }

    /// Runs the block on the concatenation of two tensors along the channels.
    ///
    /// # Shapes
    /// `[N, C1, Z, Y, X]` and `[N, C2, Z, Y, X]`, where `C1 + C2 = Cin`, give `[N, Cout, Z, Y, X]`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and when the block has no skip convolution.
    pub fn forward_joined(&self, [first, second]: [Tensor<5>; 2]) -> Tensor<5> {
        self.forward_upsampled(first.into(), second)
    }

    /// [`forward_joined`](Self::forward_joined) of a tensor that is upsampled and the one beside it.
    pub(crate) fn forward_upsampled(&self, first: Upsampled, second: Tensor<5>) -> Tensor<5> {
        let skip = self.skip.as_ref().expect("the first block of a stage has a skip convolution");
        let y = self.conv1.measured_upsampled(first.clone(), second.clone());
        // Where the residual is written, it takes the place of its two inputs before more is computed.
        let (weight, bias) = (skip.weight.val(), skip.bias.val());
        let residual = Residual::convolved_joined(first, second, weight, bias);
        self.second_conv(y).norm_residual_activation(self.norm2.norm(), residual, LEAKY_SLOPE)
    }

    /// `conv2` of what follows `conv1`.
    fn second_conv(&self, y: Measured) -> Measured {
        let (weight, bias) = (self.conv2.weight.val(), self.conv2.bias.val());
        y.norm_conv3d_measured(self.norm1.norm(), LEAKY_SLOPE, weight, bias, [1; 3])
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
