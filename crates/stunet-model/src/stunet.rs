//! The network.

use crate::cost::planes_per_piece;
use crate::parameter::{ParameterRef, ParameterSource, ParameterSpec, fill, visit};
use crate::{Decoder, Encoder, Initialisation, ModelError, StuNetConfig, StuNetSize};
use burn::module::{Content, Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};
use std::ops::Range;
use stunet_kernels::{PointwiseRows, WindowValues};

/// STU-Net: a six-stage residual U-Net with a segmentation head at every decoder stage.
///
/// It is made by [`StuNetConfig::init`], [`StuNetConfig::init_seeded`], from a checkpoint
/// ([`weights`](crate::weights)) or from any other source of parameters.
///
/// # Source
/// Huang et al., "STU-Net" (2023), and its trainer for nnU-Net 1.7.1.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct StuNet {
    /// The contracting half.
    pub encoder: Encoder,
    /// The expanding half.
    pub decoder: Decoder,
}

impl StuNetConfig {
    /// A network with initial parameters: nnU-Net v1's ([`Initialisation::NnUNetV1`]).
    ///
    /// As everywhere in Burn they are drawn from the device's generator
    /// ([`Device::seed`](burn::tensor::Device::seed)) when they are first used, and tracked on an
    /// autodiff device. [`init_seeded`](Self::init_seeded) depends on its seed alone.
    ///
    /// # Panics
    /// When the configuration describes no network: see [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> StuNet {
        let encoder = self.init_encoder(device);
        StuNet { encoder, decoder: Decoder::init(self, device) }
    }

    /// A network with initial parameters that depend on the seed alone: the same on every device and
    /// in every version.
    ///
    /// # Errors
    /// When the configuration describes no network.
    pub fn init_seeded(
        &self,
        initialisation: Initialisation,
        seed: u64,
        device: &Device,
    ) -> Result<StuNet, ModelError> {
        StuNet::from_source(self, &mut initialisation.source(seed), device)
    }
}

impl StuNet {
    /// A network whose parameters a source supplies, one at a time, in the order of
    /// [`StuNetConfig::parameter_specs`]. They become f32, unless the source gives f64.
    ///
    /// # Errors
    /// When the configuration describes no network, the source fails, or a shape differs.
    pub fn from_source(
        config: &StuNetConfig,
        source: &mut dyn ParameterSource,
        device: &Device,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        fill(config.init(device), None, &config.parameter_specs(), source, device)
    }

    /// The configuration, read off the parameters.
    ///
    /// The number of classes is that of the finest head, whose logits are the prediction. Where that
    /// head alone was replaced by one of other classes, the others no longer fit this
    /// configuration: [`forward`](Self::forward) and
    /// [`forward_by_planes`](Self::forward_by_planes) work, and whatever saves the network says which
    /// head differs. Replace all of `decoder.heads` for deep supervision.
    pub fn config(&self) -> StuNetConfig {
        let stages = &self.encoder.stages;
        let channels = |stage: usize| stages[stage][0].conv1.channels();
        let finest = self.decoder.heads.last().expect("a decoder has heads");
        StuNetConfig {
            in_channels: self.encoder.in_channels(),
            num_classes: finest.channels()[1],
            width: std::array::from_fn(|stage| channels(stage)[1]),
            depth: std::array::from_fn(|stage| stages[stage].len()),
            strides: self.encoder.strides,
        }
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
        self.assert_input(&x);
        self.decoder.forward(self.encoder.forward(x))
    }

    /// Logits at full resolution, some planes at a time, lowest first.
    ///
    /// `take` receives a range of planes and their logits. Of all classes only
    /// [`cost::planes_per_piece`](crate::cost::planes_per_piece) planes are held at a time, which
    /// for a published network is a thirtieth of [`forward`](Self::forward)'s output.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives pieces `[N, classes, planes, Y, X]`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_by_planes(&self, x: Tensor<5>, take: &mut dyn FnMut(Range<usize>, Tensor<5>)) {
        let features = self.finest_features(x);
        let [batch, _, depth, height, width] = features.dims();
        let head = self.decoder.heads.last().expect("a decoder has heads");
        let num_classes = head.channels()[1];
        let step = planes_per_piece(batch * num_classes, [height, width]);
        for from in (0..depth).step_by(step) {
            let planes = from..(from + step).min(depth);
            let piece = features.clone().narrow(2, from, planes.len());
            take(planes, head.forward(piece, [1; 3]));
        }
    }

    /// What the finest head's logits are computed from, for sums of windows on a device
    /// ([`WindowSums`](crate::WindowSums)), which need never hold all of them.
    ///
    /// # Shapes
    /// `[1, Cin, Z, Y, X]` gives features `[1, width[0], Z, Y, X]` and the head.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_to_head(&self, x: Tensor<5>) -> WindowValues {
        let features = self.finest_features(x);
        let head = self.decoder.heads.last().expect("a decoder has heads");
        head.waiting(features)
    }

    /// What the finest head, a 1×1×1 convolution, makes the logits of.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives `[N, width[0], Z, Y, X]`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn finest_features(&self, x: Tensor<5>) -> Tensor<5> {
        self.assert_input(&x);
        self.decoder.finest(self.encoder.forward(x))
    }

    /// The finest head for features on the host, row by row; none where the network is not computed by
    /// the processor's own operators.
    pub fn finest_head_rows(&self) -> Option<PointwiseRows> {
        self.decoder.heads.last().and_then(|head| head.rows())
    }

    /// Logits at every resolution, finest first, for deep supervision.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives five tensors `[N, classes, ..]`, each a stride smaller.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_deep(&self, x: Tensor<5>) -> Vec<Tensor<5>> {
        self.assert_input(&x);
        self.decoder.forward_deep(self.encoder.forward(x))
    }

    /// Calls `visit` with every parameter, in the order of [`StuNetConfig::parameter_specs`]; low-rank
    /// factors are visited by [`for_each_factor`](Self::for_each_factor).
    pub fn for_each_parameter(&self, visitor: &mut dyn FnMut(&ParameterSpec, ParameterRef<'_>)) {
        visit(self, &self.config().parameter_specs(), visitor);
    }

    fn assert_input(&self, x: &Tensor<5>) {
        let config = self.config();
        let [_, channels, z, y, x] = x.dims();
        assert_eq!(channels, config.in_channels, "input channels differ from the network's");
        if let Err(error) = config.validate_patch([z, y, x]) {
            panic!("{error}");
        }
    }
}

impl ModuleDisplay for StuNet {
    fn custom_content(&self, content: Content) -> Option<Content> {
        let config = self.config();
        let size = config.size().map_or("custom", StuNetSize::name);
        let content = content.add("size", size).add("in_channels", &config.in_channels);
        let content = content.add("num_classes", &config.num_classes);
        content.add("encoder", &self.encoder).add("decoder", &self.decoder).optional()
    }
}

#[cfg(test)]
mod tests;
