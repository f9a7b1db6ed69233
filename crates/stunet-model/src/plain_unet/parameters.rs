//! The parameters of a plain U-Net by name, and the network built from them.

use super::{ConvBlock, PlainConvUNet, PlainConvUNetConfig, PlainDecoder, PlainEncoder};
use crate::block::{Conv, InstanceNorm};
use crate::init::Initialiser;
use crate::parameter;
use crate::weights::digest::Digest;
use crate::{
    Initialisation, ModelError, NetworkPart, ParameterKind, ParameterSource, ParameterSpec,
};
use burn::module::{Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};

impl PlainConvUNetConfig {
    /// A network with initial parameters; the same seed gives the same parameters.
    ///
    /// # Errors
    /// When the configuration describes no network.
    pub fn init_seeded(
        &self,
        initialisation: Initialisation,
        seed: u64,
        device: &Device,
    ) -> Result<PlainConvUNet, ModelError> {
        self.init_from(&mut Initialiser::new(initialisation, seed), device)
    }

    /// A network whose parameters a source supplies, one at a time, in the order of
    /// [`parameter_specs`](Self::parameter_specs).
    ///
    /// # Errors
    /// When the configuration describes no network, the source fails, or a shape differs.
    pub fn init_from(
        &self,
        source: &mut dyn ParameterSource,
        device: &Device,
    ) -> Result<PlainConvUNet, ModelError> {
        self.validate()?;
        let mut build = Builder { source, device };
        let mut encoder = Vec::with_capacity(self.num_stages());
        for stage in 0..self.num_stages() {
            let blocks = self.encoder_blocks(stage).into_iter().map(|shape| build.block(&shape));
            encoder.push(blocks.collect::<Result<Vec<_>, _>>()?);
        }
        let (mut transpconvs, mut stages, mut seg_layers) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..self.num_stages() - 1 {
            let blocks = self.decoder_blocks(index).into_iter().map(|shape| build.block(&shape));
            stages.push(blocks.collect::<Result<Vec<_>, _>>()?);
        }
        for index in 0..self.num_stages() - 1 {
            transpconvs.push(build.conv(&self.transpconv(index))?);
        }
        for index in 0..self.num_stages() - 1 {
            seg_layers.push(build.conv(&self.seg_layer(index))?);
        }
        Ok(PlainConvUNet {
            encoder: PlainEncoder { stages: encoder },
            decoder: PlainDecoder { transpconvs, stages, seg_layers },
            config: self.clone(),
        })
    }

    /// Every parameter, in the order of the reference's state dict: encoder, then stages, transposed
    /// convolutions and heads of the decoder; names are paths of the module.
    pub fn parameter_specs(&self) -> Vec<ParameterSpec> {
        let stages = 0..self.num_stages();
        let ups = 0..self.num_stages().saturating_sub(1);
        let encoder = stages.flat_map(|stage| self.encoder_blocks(stage));
        let decoder = ups.clone().flat_map(|index| self.decoder_blocks(index));
        let blocks = encoder.chain(decoder).flat_map(|block| block.specs());
        let transpconvs = ups.clone().flat_map(|index| self.transpconv(index).specs());
        let heads = ups.flat_map(|index| self.seg_layer(index).specs());
        blocks.chain(transpconvs).chain(heads).collect()
    }

    pub(super) fn encoder_blocks(&self, stage: usize) -> Vec<BlockShape> {
        let input = if stage == 0 { self.in_channels } else { self.features[stage - 1] };
        let path = format!("encoder.stages.{stage}");
        let place = Place { part: NetworkPart::Encoder, stage, sees_image: stage == 0 };
        self.blocks(&path, [input, self.features[stage]], place, self.convs[stage])
    }

    /// The stage of the encoder beside a stage of the decoder.
    pub(super) fn beside(&self, index: usize) -> usize {
        self.num_stages() - 2 - index
    }

    pub(super) fn decoder_blocks(&self, index: usize) -> Vec<BlockShape> {
        let stage = self.beside(index);
        let (path, width) = (format!("decoder.stages.{index}"), self.features[stage]);
        let convs = self.decoder_convs[index];
        let place = Place { part: NetworkPart::Decoder, stage, sees_image: false };
        self.blocks(&path, [2 * width, width], place, convs)
    }

    pub(super) fn transpconv(&self, index: usize) -> ConvShape {
        let stage = self.beside(index);
        ConvShape {
            path: format!("decoder.transpconvs.{index}"),
            input: self.features[stage + 1],
            output: self.features[stage],
            kernel: self.strides[stage + 1],
            transposed: true,
            bias: self.conv_bias,
            place: Place { part: NetworkPart::Upsampling, stage, sees_image: false },
        }
    }

    pub(super) fn seg_layer(&self, index: usize) -> ConvShape {
        ConvShape {
            path: format!("decoder.seg_layers.{index}"),
            input: self.features[self.beside(index)],
            output: self.num_classes,
            kernel: [1; 3],
            transposed: false,
            bias: true,
            place: Place { part: NetworkPart::Head, stage: self.beside(index), sees_image: false },
        }
    }

    fn blocks(
        &self,
        path: &str,
        [input, output]: [usize; 2],
        place: Place,
        count: usize,
    ) -> Vec<BlockShape> {
        let block = |index| BlockShape {
            path: format!("{path}.{index}"),
            conv: ConvShape {
                path: format!("{path}.{index}.conv"),
                input: if index == 0 { input } else { output },
                output,
                kernel: self.kernels[place.stage],
                transposed: false,
                bias: self.conv_bias,
                place: Place { sees_image: place.sees_image && index == 0, ..place },
            },
        };
        (0..count).map(block).collect()
    }
}

/// Where a convolution is: see [`ParameterSpec`].
#[derive(Clone, Copy)]
struct Place {
    part: NetworkPart,
    stage: usize,
    sees_image: bool,
}

/// A convolution as the configuration describes it.
pub(super) struct ConvShape {
    path: String,
    pub input: usize,
    pub output: usize,
    pub kernel: [usize; 3],
    transposed: bool,
    /// Whether it has a bias; where it has none, the network's is zero.
    pub bias: bool,
    place: Place,
}

impl ConvShape {
    fn weight(&self) -> ParameterSpec {
        let [z, y, x] = self.kernel;
        let shape = match self.transposed {
            true => vec![self.input, self.output, z, y, x],
            false => vec![self.output, self.input, z, y, x],
        };
        let name = format!("{}.weight", self.path);
        let Place { part, stage, sees_image } = self.place;
        ParameterSpec { name, shape, kind: ParameterKind::ConvWeight, part, stage, sees_image }
    }

    fn bias(&self) -> ParameterSpec {
        let fan_in = self.input * self.kernel.iter().product::<usize>();
        let kind = ParameterKind::ConvBias { fan_in };
        self.vector(format!("{}.bias", self.path), kind)
    }

    /// A parameter with one value per output.
    fn vector(&self, name: String, kind: ParameterKind) -> ParameterSpec {
        let Place { part, stage, .. } = self.place;
        ParameterSpec { name, shape: vec![self.output], kind, part, stage, sees_image: false }
    }

    fn specs(&self) -> impl Iterator<Item = ParameterSpec> + use<> {
        [Some(self.weight()), self.bias.then(|| self.bias())].into_iter().flatten()
    }
}

/// A convolution and its norm.
pub(super) struct BlockShape {
    path: String,
    pub conv: ConvShape,
}

impl BlockShape {
    fn norm(&self) -> [ParameterSpec; 2] {
        [("weight", ParameterKind::NormWeight), ("bias", ParameterKind::NormBias)]
            .map(|(leaf, kind)| self.conv.vector(format!("{}.norm.{leaf}", self.path), kind))
    }

    fn specs(&self) -> impl Iterator<Item = ParameterSpec> + use<> {
        self.conv.specs().chain(self.norm())
    }
}

/// Asks a source for one parameter after the other and makes modules of them.
struct Builder<'a> {
    source: &'a mut dyn ParameterSource,
    device: &'a Device,
}

impl Builder<'_> {
    fn block(&mut self, shape: &BlockShape) -> Result<ConvBlock, ModelError> {
        let conv = self.conv(&shape.conv)?;
        let [weight, bias] = shape.norm();
        let norm = InstanceNorm { weight: self.parameter(&weight)?, bias: self.parameter(&bias)? };
        Ok(ConvBlock { conv, norm })
    }

    fn conv(&mut self, shape: &ConvShape) -> Result<Conv, ModelError> {
        let weight = self.parameter(&shape.weight())?;
        let bias = match shape.bias {
            true => self.parameter(&shape.bias())?,
            false => {
                let zeros = Tensor::zeros([shape.output], (self.device, DType::F32));
                Param::initialized(ParamId::new(), zeros)
            }
        };
        Ok(Conv { weight, bias })
    }

    fn parameter<const D: usize>(
        &mut self,
        spec: &ParameterSpec,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let tensor = parameter::tensor(self.source, spec, self.device)?;
        let tensor = if self.device.is_autodiff() { tensor.require_grad() } else { tensor };
        Ok(Param::initialized(ParamId::new(), tensor))
    }
}

impl PlainConvUNet {
    /// The values of every parameter on the host, in the order of
    /// [`PlainConvUNetConfig::parameter_specs`].
    fn for_each_parameter(&self, visit: &mut dyn FnMut(&ParameterSpec, TensorData)) {
        let specs = self.config.parameter_specs();
        let mut specs = specs.iter();
        let mut put = |data: TensorData| visit(specs.next().expect("a spec per parameter"), data);
        let has_bias = self.config.conv_bias;
        let conv = |conv: &Conv, bias: bool, put: &mut dyn FnMut(TensorData)| {
            put(conv.weight.val().into_data());
            if bias {
                put(conv.bias.val().into_data());
            }
        };
        for block in self.encoder.stages.iter().chain(&self.decoder.stages).flatten() {
            conv(&block.conv, has_bias, &mut put);
            put(block.norm.weight.val().into_data());
            put(block.norm.bias.val().into_data());
        }
        self.decoder.transpconvs.iter().for_each(|each| conv(each, has_bias, &mut put));
        self.decoder.seg_layers.iter().for_each(|each| conv(each, true, &mut put));
    }

    /// A digest of all parameters' names and values, whatever file they came from.
    pub fn digest(&self) -> String {
        let mut digest = Digest::default();
        self.for_each_parameter(&mut |spec, data| {
            digest.parameter(&spec.name, data.convert_dtype(DType::F32).as_bytes());
        });
        digest.finish()
    }
}
