//! nnU-Net's plain convolutional U-Net.
//!
//! Two or more convolutions per stage, each with its instance norm and leaky ReLU; strided
//! convolutions down, transposed convolutions up, skip connections by concatenation, a
//! segmentation head at every stage of the decoder. The network of nnU-Net 2's standard trainers, and
//! so of TotalSegmentator 2.

mod config;
mod cost;
mod parameters;

pub use config::PlainConvUNetConfig;
pub use cost::{cost, kept_weight_bytes, num_parameters, predict_peak_bytes};

use crate::block::{Conv, InstanceNorm};
use crate::cost::planes_per_piece;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use std::ops::Range;
use stunet_kernels::{self as kernels, PointwiseRows};

/// A convolution with its norm; the activation follows.
#[derive(Module, Debug)]
pub struct ConvBlock {
    /// The convolution.
    pub conv: Conv,
    /// The norm.
    pub norm: InstanceNorm,
}

/// How the blocks compute, beside their parameters.
#[derive(Clone, Copy, Debug)]
struct Arithmetic {
    epsilon: f64,
    slope: f64,
}

impl ConvBlock {
    /// What follows the convolution.
    fn finish(&self, y: kernels::Measured, how: Arithmetic) -> Tensor<5> {
        let norm = kernels::Norm {
            weight: self.norm.weight.val(),
            bias: self.norm.bias.val(),
            epsilon: how.epsilon,
        };
        y.norm_activation(norm, how.slope)
    }

    fn forward(&self, x: Tensor<5>, stride: [usize; 3], how: Arithmetic) -> Tensor<5> {
        self.finish(self.conv.measured(x, stride), how)
    }

    fn forward_joined(&self, x: [Tensor<5>; 2], how: Arithmetic) -> Tensor<5> {
        self.finish(self.conv.measured_joined(x), how)
    }
}

/// The contracting half.
#[derive(Module, Debug)]
pub struct PlainEncoder {
    /// Blocks of each stage, finest first; the stride belongs to the first block.
    pub stages: Vec<Vec<ConvBlock>>,
}

/// The expanding half, coarsest stage first.
#[derive(Module, Debug)]
pub struct PlainDecoder {
    /// Transposed convolution into each stage; weights are `[Cin, Cout, z, y, x]`.
    pub transpconvs: Vec<Conv>,
    /// Blocks of each stage.
    pub stages: Vec<Vec<ConvBlock>>,
    /// Segmentation head of each stage.
    pub seg_layers: Vec<Conv>,
}

/// nnU-Net's plain convolutional U-Net.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use stunet_model::{Initialisation, plain_unet::PlainConvUNetConfig};
///
/// let device = Device::flex();
/// let (kernels, strides) = (vec![[3; 3]; 2], vec![[1; 3], [2; 3]]);
/// let config = PlainConvUNetConfig::new(1, 3, vec![4, 8], kernels, strides, vec![2; 2], vec![2]);
/// let network = config.init_seeded(Initialisation::NnUNetV1, 0, &device)?;
/// let logits = network.forward(Tensor::ones([1, 1, 8, 8, 8], &device));
/// assert_eq!(logits.dims(), [1, 3, 8, 8, 8]);
/// # Ok::<(), stunet_model::ModelError>(())
/// ```
///
/// # Source
/// dynamic-network-architectures 0.4 `PlainConvUNet`, as nnU-Net 2 plans it; Isensee et al.,
/// "nnU-Net" (2021).
#[derive(Module, Debug)]
pub struct PlainConvUNet {
    /// The contracting half.
    pub encoder: PlainEncoder,
    /// The expanding half.
    pub decoder: PlainDecoder,
    /// What it was built from.
    #[module(skip)]
    config: PlainConvUNetConfig,
}

impl PlainConvUNet {
    /// The configuration.
    pub fn config(&self) -> &PlainConvUNetConfig {
        &self.config
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.encoder.stages[0][0].conv.weight.val().device()
    }

    /// Logits at full resolution: the finest head alone.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives `[N, classes, Z, Y, X]`.
    ///
    /// # Panics
    /// When the channels differ from the configuration, an axis is no multiple of the total stride,
    /// or the bottleneck would be a single voxel.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        self.head().forward(self.finest_features(x), [1; 3])
    }

    /// Logits at full resolution, some planes at a time, lowest first.
    ///
    /// `take` receives a range of planes and their logits. Of all classes only
    /// [`cost::planes_per_piece`](crate::cost::planes_per_piece) planes are held at a time.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives pieces `[N, classes, planes, Y, X]`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_by_planes(&self, x: Tensor<5>, take: &mut dyn FnMut(Range<usize>, Tensor<5>)) {
        let features = self.finest_features(x);
        let [batch, _, depth, height, width] = features.dims();
        let step = planes_per_piece(batch * self.config.num_classes, [height, width]);
        for from in (0..depth).step_by(step) {
            let planes = from..(from + step).min(depth);
            let piece = features.clone().narrow(2, from, planes.len());
            take(planes, self.head().forward(piece, [1; 3]));
        }
    }

    /// What the finest head's logits are computed from, for sums of windows on a device
    /// ([`WindowSums`](crate::WindowSums)), which need never hold all of them.
    ///
    /// # Shapes
    /// `[1, Cin, Z, Y, X]` gives features `[1, features[0], Z, Y, X]` and the head.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_to_head(&self, x: Tensor<5>) -> kernels::WindowValues {
        self.head().waiting(self.finest_features(x))
    }

    /// What the finest head, a 1×1×1 convolution, makes the logits of.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives `[N, features[0], Z, Y, X]`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn finest_features(&self, x: Tensor<5>) -> Tensor<5> {
        self.climb(self.encode(x), |_, _| ())
    }

    /// The finest head for features on the host, row by row; none where the network is not computed by
    /// the processor's own operators.
    pub fn finest_head_rows(&self) -> Option<PointwiseRows> {
        self.head().rows()
    }

    /// Logits at every resolution of the decoder, finest first, for deep supervision.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives a tensor `[N, classes, ..]` per stage of the decoder.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_deep(&self, x: Tensor<5>) -> Vec<Tensor<5>> {
        let mut logits = Vec::with_capacity(self.decoder.seg_layers.len());
        self.climb(self.encode(x), |index, features| {
            logits.push(self.decoder.seg_layers[index].forward(features.clone(), [1; 3]));
        });
        logits.reverse();
        logits
    }

    /// The features of every stage, finest first; the last is the bottleneck.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives `[N, features[s], ..]` at the size of each stage `s`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn encode(&self, mut x: Tensor<5>) -> Vec<Tensor<5>> {
        self.assert_input(&x);
        let mut features = Vec::with_capacity(self.encoder.stages.len());
        for (blocks, stride) in self.encoder.stages.iter().zip(&self.config.strides) {
            for (index, block) in blocks.iter().enumerate() {
                let stride = if index == 0 { *stride } else { [1; 3] };
                x = block.forward(x, stride, self.arithmetic());
            }
            features.push(x.clone());
        }
        features
    }

    /// Climbs from the bottleneck, calling `visit` with the features of each stage; the last are
    /// returned.
    fn climb(
        &self,
        mut features: Vec<Tensor<5>>,
        mut visit: impl FnMut(usize, &Tensor<5>),
    ) -> Tensor<5> {
        let how = self.arithmetic();
        let mut x = features.pop().expect("an encoder has stages");
        for (index, blocks) in self.decoder.stages.iter().enumerate() {
            let up = &self.decoder.transpconvs[index];
            let up = kernels::conv_transpose3d(x, up.weight.val(), up.bias.val());
            let skip = features.pop().expect("one skip per stage of the decoder");
            x = blocks[0].forward_joined([up, skip], how);
            for block in &blocks[1..] {
                x = block.forward(x, [1; 3], how);
            }
            visit(index, &x);
        }
        x
    }

    fn head(&self) -> &Conv {
        self.decoder.seg_layers.last().expect("a decoder has stages")
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic { epsilon: self.config.epsilon, slope: self.config.slope }
    }

    fn assert_input(&self, x: &Tensor<5>) {
        let [_, channels, z, y, x] = x.dims();
        assert_eq!(channels, self.config.in_channels, "input channels differ from the network's");
        if let Err(error) = self.config.validate_patch([z, y, x]) {
            panic!("{error}");
        }
    }
}
