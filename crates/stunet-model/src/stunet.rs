//! The network.

use crate::StuNetConfig;
use crate::block::{Conv, InstanceNorm, ResidualBlock};
use crate::cost::planes_per_piece;
use crate::init::Initialiser;
use crate::parameter::{ParameterRef, ParameterSource, ParameterSpec};
use crate::{Decoder, Encoder, Initialisation, ModelError, NUM_STAGES, NUM_UPSAMPLINGS};
use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::ops::Range;
use stunet_kernels as kernels;

/// STU-Net: a six-stage residual U-Net with a segmentation head at every decoder stage.
///
/// # Source
/// Huang et al., "STU-Net" (2023), and its trainer for nnU-Net 1.7.1.
#[derive(Module, Debug)]
pub struct StuNet {
    /// The contracting half.
    pub encoder: Encoder,
    /// The expanding half.
    pub decoder: Decoder,
}

impl StuNet {
    /// A network with initial parameters; the same seed gives the same parameters.
    ///
    /// # Errors
    /// When the configuration describes no network.
    pub fn init(
        config: &StuNetConfig,
        initialisation: Initialisation,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::from_source(config, &mut Initialiser::new(initialisation, seed), device)
    }

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
        let specs = config.parameter_specs();
        let mut build = Builder { specs: specs.iter(), source, device };
        let upsamplings = config.upsamplings();

        let encoder = (0..NUM_STAGES)
            .map(|stage| build.blocks(config.depth[stage]))
            .collect::<Result<_, _>>()?;
        let upsample = upsamplings.iter().map(|_| build.conv()).collect::<Result<_, _>>()?;
        let decoder = upsamplings
            .iter()
            .map(|&(_, fine)| build.blocks(config.depth[fine]))
            .collect::<Result<_, _>>()?;
        let heads = upsamplings.iter().map(|_| build.conv()).collect::<Result<_, _>>()?;
        debug_assert!(build.specs.next().is_none(), "the builder asks for every parameter");

        let mut factors = config.strides;
        factors.reverse();
        Ok(Self {
            encoder: Encoder { stages: encoder, strides: config.strides },
            decoder: Decoder { upsample, stages: decoder, heads, factors },
        })
    }

    /// The configuration, read off the parameters.
    pub fn config(&self) -> StuNetConfig {
        let stages = &self.encoder.stages;
        let [_, in_channels, ..] = stages[0][0].conv1.weight.lazy_shape().dims::<5>();
        let [num_classes, ..] = self.decoder.heads[0].weight.lazy_shape().dims::<5>();
        StuNetConfig {
            in_channels,
            num_classes,
            width: std::array::from_fn(|s| stages[s][0].conv1.weight.lazy_shape().dims::<5>()[0]),
            depth: std::array::from_fn(|s| stages[s].len()),
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
        let _workspace = kernels::workspace();
        self.decoder.forward(self.encoder.forward(x))
    }

    /// Logits at full resolution, some planes at a time, lowest first.
    ///
    /// `take` receives a range of planes and their logits. Of all classes only
    /// [`cost::planes_per_piece`](crate::cost::planes_per_piece) planes are held at a time, which
    /// for a published network is an eighth of [`forward`](Self::forward)'s output.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives pieces `[N, classes, planes, Y, X]`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_by_planes(&self, x: Tensor<5>, take: &mut dyn FnMut(Range<usize>, Tensor<5>)) {
        self.assert_input(&x);
        let _workspace = kernels::workspace();
        let features = self.decoder.finest(self.encoder.forward(x));
        let [batch, _, depth, height, width] = features.dims();
        let head = &self.decoder.heads[self.decoder.heads.len() - 1];
        let num_classes = head.weight.lazy_shape().dims::<5>()[0];
        let step = planes_per_piece(batch * num_classes, [height, width]);
        for from in (0..depth).step_by(step) {
            let planes = from..(from + step).min(depth);
            let piece = features.clone().narrow(2, from, planes.len());
            take(planes, head.forward(piece, [1; 3]));
        }
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
        let _workspace = kernels::workspace();
        self.decoder.forward_deep(self.encoder.forward(x))
    }

    /// Calls `visit` with every parameter, in the order of [`StuNetConfig::parameter_specs`].
    pub fn for_each_parameter(&self, visit: &mut dyn FnMut(&ParameterSpec, ParameterRef<'_>)) {
        let specs = self.config().parameter_specs();
        for (spec, parameter) in specs.iter().zip(self.parameters()) {
            visit(spec, parameter);
        }
    }

    pub(crate) fn parameters(&self) -> Vec<ParameterRef<'_>> {
        let mut all = Vec::new();
        let encoder = self.encoder.stages.iter().flatten();
        encoder.for_each(|block| push_block(&mut all, block));
        self.decoder.upsample.iter().for_each(|conv| push_conv(&mut all, conv));
        let decoder = self.decoder.stages.iter().flatten();
        decoder.for_each(|block| push_block(&mut all, block));
        self.decoder.heads.iter().for_each(|conv| push_conv(&mut all, conv));
        all
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

fn push_conv<'a>(all: &mut Vec<ParameterRef<'a>>, conv: &'a Conv) {
    all.push(ParameterRef::Kernel(&conv.weight));
    all.push(ParameterRef::Vector(&conv.bias));
}

fn push_block<'a>(all: &mut Vec<ParameterRef<'a>>, block: &'a ResidualBlock) {
    for (conv, norm) in [(&block.conv1, &block.norm1), (&block.conv2, &block.norm2)] {
        push_conv(all, conv);
        all.push(ParameterRef::Vector(&norm.weight));
        all.push(ParameterRef::Vector(&norm.bias));
    }
    if let Some(skip) = &block.skip {
        push_conv(all, skip);
    }
}

/// Takes the specs in order and turns the source's values into modules.
struct Builder<'a> {
    specs: std::slice::Iter<'a, ParameterSpec>,
    source: &'a mut dyn ParameterSource,
    device: &'a Device,
}

impl Builder<'_> {
    fn blocks(&mut self, depth: usize) -> Result<Vec<ResidualBlock>, ModelError> {
        (0..depth).map(|index| self.block(index == 0)).collect()
    }

    fn block(&mut self, first: bool) -> Result<ResidualBlock, ModelError> {
        Ok(ResidualBlock {
            conv1: self.conv()?,
            norm1: self.norm()?,
            conv2: self.conv()?,
            norm2: self.norm()?,
            skip: if first { Some(self.conv()?) } else { None },
        })
    }

    fn conv(&mut self) -> Result<Conv, ModelError> {
        Ok(Conv { weight: self.parameter()?, bias: self.parameter()? })
    }

    fn norm(&mut self) -> Result<InstanceNorm, ModelError> {
        Ok(InstanceNorm { weight: self.parameter()?, bias: self.parameter()? })
    }

    fn parameter<const D: usize>(&mut self) -> Result<Param<Tensor<D>>, ModelError> {
        let spec = self.specs.next().expect("specs and modules are built by the same rule");
        let data: TensorData = self.source.parameter(spec)?;
        if data.shape().as_slice() != spec.shape {
            return Err(ModelError::Shape {
                name: spec.name.clone(),
                expected: spec.shape.clone(),
                found: data.shape().to_vec(),
            });
        }
        // Double precision is kept: tests compute the truth with it. All else becomes f32.
        let dtype = if data.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let tensor = Tensor::<D>::from_data(data, (self.device, dtype));
        let tensor = if self.device.is_autodiff() { tensor.require_grad() } else { tensor };
        Ok(Param::initialized(ParamId::new(), tensor))
    }
}

const _: () = assert!(NUM_UPSAMPLINGS + 1 == NUM_STAGES);
