//! The encoder: the contracting half of the U-Net.

use crate::block::{ResidualBlock, forward_stage, init_stage};
use crate::parameter::fill;
use crate::{
    Initialisation, ModelError, NUM_STAGES, NUM_UPSAMPLINGS, ParameterSource, StuNetConfig,
};
use burn::module::{Content, Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};

/// Six stages of residual blocks; every stage after the first begins with a strided block.
///
/// As a part of [`StuNet`](crate::StuNet), or alone as a feature extractor in another network, whose
/// own `#[derive(Module)]` may hold it. It begins with initial parameters
/// ([`StuNetConfig::init_encoder`]) or with those of a model folder
/// ([`load_encoder`](crate::weights::folder::ModelFolder::load_encoder)), of a checkpoint of nnU-Net
/// ([`load_encoder`](crate::weights::Checkpoint::load_encoder)) or of any other source. Burn's
/// [`freeze`](burn::module::Module::freeze) and
/// [`freeze_group`](burn::module::Module::freeze_group) keep it, or its first stages, as they are.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use stunet_model::StuNetConfig;
/// let device = Device::flex();
/// let config = StuNetConfig::small(1, 2).with_width([2, 2, 4, 4, 8, 8]);
/// let encoder = config.init_encoder(&device);
/// let features = encoder.forward(Tensor::ones([1, 1, 16, 16, 64], &device));
/// assert_eq!(features.len(), 6);
/// assert_eq!(features[5].dims(), [1, 8, 1, 1, 2]);
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Encoder {
    /// Blocks of each stage, finest first.
    pub stages: Vec<Vec<ResidualBlock>>,
    /// Stride into each stage after the first.
    #[module(skip)]
    pub strides: [[usize; 3]; NUM_UPSAMPLINGS],
}

impl StuNetConfig {
    /// The encoder alone, with initial parameters as [`init`](Self::init) draws them.
    ///
    /// # Panics
    /// When the configuration describes no network.
    pub fn init_encoder(&self, device: &Device) -> Encoder {
        if let Err(error) = self.validate() {
            panic!("{error}");
        }
        let inputs = |stage| if stage == 0 { self.in_channels } else { self.width[stage - 1] };
        let channels = |stage| [inputs(stage), self.width[stage]];
        let blocks = |stage| init_stage(channels(stage), self.depth[stage], device);
        Encoder { stages: (0..NUM_STAGES).map(blocks).collect(), strides: self.strides }
    }

    /// The encoder alone, as [`init_seeded`](Self::init_seeded) makes it: the same values as those
    /// of the encoder within the network.
    ///
    /// # Errors
    /// When the configuration describes no network.
    pub fn init_encoder_seeded(
        &self,
        initialisation: Initialisation,
        seed: u64,
        device: &Device,
    ) -> Result<Encoder, ModelError> {
        Encoder::from_source(self, &mut initialisation.source(seed), device)
    }
}

impl Encoder {
    /// An encoder whose parameters a source supplies, in the order and under the names of
    /// [`StuNetConfig::encoder_specs`]. They become f32, unless the source gives f64.
    ///
    /// # Errors
    /// When the configuration describes no network, the source fails, or a shape differs.
    pub fn from_source(
        config: &StuNetConfig,
        source: &mut dyn ParameterSource,
        device: &Device,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        let encoder = config.init_encoder(device);
        fill(encoder, Some("encoder"), &config.encoder_specs(), source, device)
    }

    /// Channels of the image.
    pub fn in_channels(&self) -> usize {
        self.stages[0][0].conv1.channels()[0]
    }

    /// Features of each stage, finest first.
    pub fn width(&self) -> Vec<usize> {
        self.stages.iter().map(|blocks| blocks[0].conv1.channels()[1]).collect()
    }

    /// The features of every stage, finest first; the last is the bottleneck.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives `[N, width[s], ..]` at the size of each stage `s`. Sizes need not be
    /// multiples of the strides: a stride `s` gives `ceil(size / s)`.
    ///
    /// # Panics
    /// When the channels differ from the encoder's, an axis is empty, or the bottleneck would be a
    /// single voxel, which has no variance to normalise by.
    pub fn forward(&self, mut x: Tensor<5>) -> Vec<Tensor<5>> {
        self.assert_input(x.dims());
        let mut features = Vec::with_capacity(NUM_STAGES);
        for stage in 0..self.stages.len() {
            x = self.forward_stage(stage, x);
            features.push(x.clone());
        }
        features
    }

    fn assert_input(&self, shape: [usize; 5]) {
        let [_, channels, mut size @ ..] = shape;
        let expected = self.in_channels();
        assert_eq!(
            channels, expected,
            "input of shape {shape:?}: expected {expected} channels, as the network was made for, \
             found {channels}"
        );
        assert!(!shape.contains(&0), "input of shape {shape:?}: expected no empty axis");
        for stride in &self.strides {
            size = std::array::from_fn(|axis| size[axis].div_ceil(stride[axis]));
        }
        assert!(
            size != [1; 3],
            "input of shape {shape:?}: expected more than one voxel at the bottleneck; with the \
             strides {:?} the image must be larger",
            self.strides
        );
    }

    /// The features of one stage from those of the stage before, or from the image.
    ///
    /// # Shapes
    /// `[N, width[stage - 1], ..]` gives `[N, width[stage], ..]`, a stride smaller.
    ///
    /// # Panics
    /// When there is no such stage.
    pub fn forward_stage(&self, stage: usize, x: Tensor<5>) -> Tensor<5> {
        let stride = if stage == 0 { [1; 3] } else { self.strides[stage - 1] };
        forward_stage(&self.stages[stage], x, stride)
    }
}

impl ModuleDisplay for Encoder {
    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content.add("in_channels", &self.in_channels());
        let strides = std::iter::once([1; 3]).chain(self.strides);
        let stages = self.stages.iter().zip(strides).zip(self.width());
        let stages =
            stages.enumerate().fold(content, |content, (index, ((blocks, stride), width))| {
                let text =
                    format!("{width} features, {} block(s), stride {stride:?}", blocks.len());
                content.add(&format!("stage_{index}"), &text)
            });
        stages.optional()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{ModuleVisitor, Param, ParamGroup};
    use burn::tensor::{Gradients, TensorData};
    use std::collections::BTreeMap;

    fn config() -> StuNetConfig {
        StuNetConfig::small(2, 3).with_width([2, 2, 3, 3, 4, 4]).with_depth([2, 1, 1, 1, 1, 1])
    }

    /// What is alone is what is within the network.
    #[test]
    fn alone_as_within_the_network() {
        let device = Device::flex();
        let initialisation = Initialisation::PyTorchDefault;
        let alone = config().init_encoder_seeded(initialisation, 7, &device).unwrap();
        let within = config().init_seeded(initialisation, 7, &device).unwrap().encoder;
        let x = Tensor::<5>::random(
            [1, 2, 16, 20, 40],
            burn::tensor::Distribution::Normal(0.0, 1.0),
            &device,
        );
        let features = alone.forward(x.clone());
        assert_eq!(features[4].dims(), [1, 4, 1, 2, 3], "sizes are rounded up");
        for (found, expected) in features.into_iter().zip(within.forward(x)) {
            assert_eq!(found.into_data(), expected.into_data());
        }
        assert_eq!((alone.in_channels(), alone.width()), (2, vec![2, 2, 3, 3, 4, 4]));
    }

    /// Gradients of the encoder's parameters by path, those that there are.
    fn gradients(encoder: &Encoder) -> BTreeMap<String, TensorData> {
        struct Collect<'a>(Vec<String>, &'a Gradients, BTreeMap<String, TensorData>);
        impl ModuleVisitor for Collect<'_> {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.0.push(name.to_owned());
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.0.pop();
            }
            fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
                if let Some(gradient) = parameter.val().grad(self.1) {
                    self.2.insert(self.0.join("."), gradient.into_data());
                }
            }
        }
        let device = Device::flex().autodiff();
        let values = (0..32_768).map(|i| (i * i % 83) as f32 / 40.0 - 1.0).collect();
        let x = Tensor::<5>::from_data(TensorData::new(values, [1, 2, 16, 16, 64]), &device);
        let all = encoder.forward(x).into_iter().map(|f| f.powi_scalar(2).mean());
        let gradients = all.reduce(|sum, next| sum + next).unwrap().backward();
        let mut collect = Collect(Vec::new(), &gradients, BTreeMap::new());
        encoder.visit(&mut collect);
        collect.2
    }

    /// Frozen parameters get no gradient, and the others the same as without freezing.
    #[test]
    fn frozen_stages() {
        let device = Device::flex().autodiff();
        let initialisation = Initialisation::NnUNetV1;
        let encoder = config().init_encoder_seeded(initialisation, 3, &device).unwrap();
        let all = gradients(&encoder);
        assert_eq!(all.len(), config().encoder_specs().len());
        for paths in [vec!["stages.0."], vec!["stages.5."], vec!["stages.1.", "stages.3."]] {
            let group = ParamGroup::from_any_predicates(paths.clone());
            let found = gradients(&encoder.clone().freeze_group(group));
            let frozen = |path: &str| paths.iter().any(|begin| path.starts_with(begin));
            let expected = all.iter().filter(|(path, _)| !frozen(path));
            assert!(found.iter().eq(expected), "{paths:?}");
            assert!(found.len() < all.len());
        }
    }

    /// Whoever freezes all of it trains a head on features that carry no graph.
    #[test]
    fn frozen_altogether() {
        let device = Device::flex().autodiff();
        let encoder = config().init_encoder(&device).freeze();
        let x = Tensor::<5>::ones([1, 2, 16, 16, 64], &device);
        assert!(encoder.forward(x.clone()).iter().all(|features| !features.is_require_grad()));
        let thawed = encoder.clone().unfreeze();
        assert_eq!(gradients(&thawed).len(), config().encoder_specs().len());
        // The image may still be what is learnt.
        let x = x.require_grad();
        let slope = encoder.forward(x.clone()).pop().unwrap().sum().backward();
        assert_eq!(x.grad(&slope).unwrap().dims(), [1, 2, 16, 16, 64]);
    }

    fn refuse(shape: [usize; 5], phrase: &str) {
        let encoder = config().init_encoder(&Device::flex());
        let x = Tensor::<5>::zeros(shape, &Device::flex());
        let run = std::panic::AssertUnwindSafe(|| encoder.forward(x).len());
        let panic = std::panic::catch_unwind(run).expect_err("a panic");
        let text = panic.downcast_ref::<String>().expect("a message");
        assert!(text.contains(phrase) && text.contains(&format!("{shape:?}")), "{text}");
    }

    #[test]
    fn wrong_inputs_are_told() {
        refuse([1, 1, 16, 16, 64], "expected 2 channels, as the network was made for, found 1");
        refuse([1, 2, 16, 0, 64], "expected no empty axis");
        refuse([1, 2, 16, 16, 32], "more than one voxel at the bottleneck");
    }
}
