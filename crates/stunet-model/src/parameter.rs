//! Parameters by name, and where they come from.
//!
//! A network is built by asking a [`ParameterSource`] for one parameter after the other, in the
//! order of the reference's state dict. Initialisation, checkpoints and seeded test weights are all
//! sources, so that nothing is initialised in vain and one tensor at a time is held beside the
//! network.

use crate::{ModelError, NUM_STAGES, NUM_UPSAMPLINGS, StuNetConfig};
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Weight of a convolution, `[Cout, Cin, K, K, K]`.
    ConvWeight,
    /// Bias of a convolution, `[Cout]`; the number is the convolution's fan-in.
    ConvBias {
        /// Inputs of one output: `Cin * K^3`.
        fan_in: usize,
    },
    /// Scale of a norm, `[C]`.
    NormWeight,
    /// Shift of a norm, `[C]`.
    NormBias,
}

/// Name, shape and kind of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Dotted path, such as `encoder.0.0.conv1.weight`.
    pub name: String,
    /// Shape, row major.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParameterKind,
}

/// Where parameters come from.
pub trait ParameterSource {
    /// The values of one parameter, in the shape asked for.
    ///
    /// # Errors
    /// When the source has no such parameter, or cannot read it.
    fn parameter(&mut self, spec: &ParameterSpec) -> Result<TensorData, ModelError>;
}

impl<F> ParameterSource for F
where
    F: FnMut(&ParameterSpec) -> Result<TensorData, ModelError>,
{
    fn parameter(&mut self, spec: &ParameterSpec) -> Result<TensorData, ModelError> {
        self(spec)
    }
}

/// A parameter of a network, borrowed.
#[derive(Clone, Copy, Debug)]
pub enum ParameterRef<'a> {
    /// A bias, scale or shift.
    Vector(&'a Param<Tensor<1>>),
    /// A convolution's weight.
    Kernel(&'a Param<Tensor<5>>),
}

impl ParameterRef<'_> {
    /// Copies the values to the host.
    pub fn to_data(self) -> TensorData {
        match self {
            Self::Vector(p) => p.val().into_data(),
            Self::Kernel(p) => p.val().into_data(),
        }
    }
}

impl StuNetConfig {
    /// Every parameter in the order of the reference's state dict: encoder, upsamplings, decoder,
    /// heads; in a block conv1, norm1, conv2, norm2, skip; weight before bias.
    pub fn parameter_specs(&self) -> Vec<ParameterSpec> {
        let mut specs = Specs::default();
        let mut channels = self.in_channels;
        for stage in 0..NUM_STAGES {
            let prefix = format!("encoder.{stage}");
            specs.blocks(&prefix, channels, self.width[stage], self.depth[stage]);
            channels = self.width[stage];
        }
        for (u, (coarse, fine)) in self.upsamplings().into_iter().enumerate() {
            specs.conv(&format!("upsample.{u}"), self.width[coarse], self.width[fine], 1);
        }
        for (u, (_, fine)) in self.upsamplings().into_iter().enumerate() {
            let width = self.width[fine];
            specs.blocks(&format!("decoder.{u}"), 2 * width, width, self.depth[fine]);
        }
        for (u, (_, fine)) in self.upsamplings().into_iter().enumerate() {
            specs.conv(&format!("heads.{u}"), self.width[fine], self.num_classes, 1);
        }
        specs.0
    }

    /// Stages `(coarse, fine)` each upsampling joins, coarsest first.
    pub(crate) fn upsamplings(&self) -> [(usize, usize); NUM_UPSAMPLINGS] {
        std::array::from_fn(|u| (NUM_STAGES - 1 - u, NUM_STAGES - 2 - u))
    }
}

#[derive(Default)]
struct Specs(Vec<ParameterSpec>);

impl Specs {
    fn push(&mut self, name: String, shape: Vec<usize>, kind: ParameterKind) {
        self.0.push(ParameterSpec { name, shape, kind });
    }

    fn conv(&mut self, prefix: &str, input: usize, output: usize, kernel: usize) {
        let shape = vec![output, input, kernel, kernel, kernel];
        let fan_in = input * kernel.pow(3);
        self.push(format!("{prefix}.weight"), shape, ParameterKind::ConvWeight);
        self.push(format!("{prefix}.bias"), vec![output], ParameterKind::ConvBias { fan_in });
    }

    fn norm(&mut self, prefix: &str, channels: usize) {
        self.push(format!("{prefix}.weight"), vec![channels], ParameterKind::NormWeight);
        self.push(format!("{prefix}.bias"), vec![channels], ParameterKind::NormBias);
    }

    /// The blocks of one stage: only the first changes the width and has a skip convolution.
    fn blocks(&mut self, prefix: &str, input: usize, output: usize, depth: usize) {
        for block in 0..depth {
            let input = if block == 0 { input } else { output };
            self.conv(&format!("{prefix}.{block}.conv1"), input, output, 3);
            self.norm(&format!("{prefix}.{block}.norm1"), output);
            self.conv(&format!("{prefix}.{block}.conv2"), output, output, 3);
            self.norm(&format!("{prefix}.{block}.norm2"), output);
            if block == 0 {
                self.conv(&format!("{prefix}.{block}.skip"), input, output, 1);
            }
        }
    }
}
