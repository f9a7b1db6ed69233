//! Parameters by name, and where they come from.
//!
//! A network is built by asking a [`ParameterSource`] for one parameter after the other.
//! Initialisation, checkpoints and seeded test weights are all sources, so that nothing is
//! initialised in vain and one tensor at a time is held beside the network.
//!
//! The order and the names are those in which Burn visits the network
//! ([`Module::visit`](burn::module::Module::visit)), which is also the order of the reference's state
//! dict. [`StuNetConfig::parameter_specs`] lists them without a network; every pass over a network
//! holds the list against what Burn visits.

use crate::{ModelError, NUM_STAGES, NUM_UPSAMPLINGS, StuNetConfig};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::any::Any;
use stunet_kernels as kernels;

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

/// Which part of the network a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkPart {
    /// The residual blocks of the encoder.
    Encoder,
    /// The 1×1×1 convolutions before upsampling.
    Upsampling,
    /// The residual blocks of the decoder.
    Decoder,
    /// The segmentation heads.
    Head,
}

/// Name, shape, kind and place of one parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Its path in the network, such as `encoder.stages.0.0.conv1.weight`: where Burn visits it.
    pub name: String,
    /// Shape, row major.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParameterKind,
    /// What it belongs to.
    pub part: NetworkPart,
    /// The encoder's stage at whose resolution its output is, 0 for the finest.
    pub stage: usize,
    /// Whether it is the weight of a convolution that sees the image itself: its second axis is the
    /// image's channels.
    pub sees_image: bool,
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

impl<'a> ParameterRef<'a> {
    pub(crate) fn of<const D: usize>(parameter: &'a Param<Tensor<D>>) -> Self {
        let any: &dyn Any = parameter;
        match (any.downcast_ref(), any.downcast_ref()) {
            (Some(vector), _) => Self::Vector(vector),
            (_, Some(kernel)) => Self::Kernel(kernel),
            _ => panic!("a parameter of the network has 1 or 5 axes, not {D}"),
        }
    }

    /// Copies the values to the host.
    pub fn to_data(self) -> TensorData {
        match self {
            Self::Vector(p) => stunet_kernels::read(p.val()),
            Self::Kernel(p) => stunet_kernels::read(p.val()),
        }
    }
}

impl StuNetConfig {
    /// Every parameter, in the order in which Burn visits the network and in which the reference's
    /// state dict holds them: encoder, upsamplings, decoder, heads; in a block conv1, norm1, conv2,
    /// norm2, skip; weight before bias.
    pub fn parameter_specs(&self) -> Vec<ParameterSpec> {
        let mut specs = Specs::encoder(self);
        let upsamplings = self.upsamplings().into_iter().enumerate();
        for (u, (coarse, fine)) in upsamplings.clone() {
            let channels = [self.width[coarse], self.width[fine]];
            specs.at(NetworkPart::Upsampling, fine).conv(
                &format!("decoder.upsample.{u}"),
                channels,
                1,
            );
        }
        for (u, (_, fine)) in upsamplings.clone() {
            let (channels, depth) = ([2 * self.width[fine], self.width[fine]], self.depth[fine]);
            specs.at(NetworkPart::Decoder, fine).blocks(
                &format!("decoder.stages.{u}"),
                channels,
                depth,
            );
        }
        for (u, (_, fine)) in upsamplings {
            let channels = [self.width[fine], self.num_classes];
            specs.at(NetworkPart::Head, fine).conv(&format!("decoder.heads.{u}"), channels, 1);
        }
        specs.all
    }

    /// Every parameter of the encoder, in order: what [`parameter_specs`](Self::parameter_specs)
    /// begins with.
    pub fn encoder_specs(&self) -> Vec<ParameterSpec> {
        Specs::encoder(self).all
    }

    /// Stages `(coarse, fine)` each upsampling joins, coarsest first.
    pub(crate) fn upsamplings(&self) -> [(usize, usize); NUM_UPSAMPLINGS] {
        std::array::from_fn(|u| (NUM_STAGES - 1 - u, NUM_STAGES - 2 - u))
    }
}

/// Path of a stage of the encoder.
pub(crate) fn stage_path(stage: usize) -> String {
    format!("encoder.stages.{stage}")
}

/// Name of the weight that tells a stage's inputs and width.
pub(crate) fn first_weight(stage: usize) -> String {
    format!("{}.0.conv1.weight", stage_path(stage))
}

/// Name of the weight that tells the classes: that of the head whose logits are the prediction.
pub(crate) fn finest_head() -> String {
    format!("decoder.heads.{}.weight", NUM_UPSAMPLINGS - 1)
}

/// The list as it grows.
struct Specs {
    all: Vec<ParameterSpec>,
    /// Where the next parameters belong.
    part: NetworkPart,
    stage: usize,
    on_image: bool,
}

impl Specs {
    fn encoder(config: &StuNetConfig) -> Self {
        let mut specs =
            Self { all: Vec::new(), part: NetworkPart::Encoder, stage: 0, on_image: false };
        let mut inputs = config.in_channels;
        for (stage, (&width, &depth)) in config.width.iter().zip(&config.depth).enumerate() {
            specs.at(NetworkPart::Encoder, stage).blocks(
                &stage_path(stage),
                [inputs, width],
                depth,
            );
            inputs = width;
        }
        specs
    }

    fn at(&mut self, part: NetworkPart, stage: usize) -> &mut Self {
        (self.part, self.stage) = (part, stage);
        self
    }

    fn push(&mut self, name: String, shape: Vec<usize>, kind: ParameterKind) {
        let (part, stage) = (self.part, self.stage);
        let sees_image = self.on_image && kind == ParameterKind::ConvWeight;
        self.all.push(ParameterSpec { name, shape, kind, part, stage, sees_image });
    }

    fn conv(&mut self, path: &str, [inputs, outputs]: [usize; 2], kernel: usize) {
        let shape = vec![outputs, inputs, kernel, kernel, kernel];
        let fan_in = inputs * kernel.pow(3);
        self.push(format!("{path}.weight"), shape, ParameterKind::ConvWeight);
        self.push(format!("{path}.bias"), vec![outputs], ParameterKind::ConvBias { fan_in });
    }

    fn norm(&mut self, path: &str, channels: usize) {
        self.push(format!("{path}.weight"), vec![channels], ParameterKind::NormWeight);
        self.push(format!("{path}.bias"), vec![channels], ParameterKind::NormBias);
    }

    /// The blocks of one stage: only the first changes the width and has a skip convolution.
    fn blocks(&mut self, path: &str, [inputs, outputs]: [usize; 2], depth: usize) {
        for block in 0..depth {
            let inputs = if block == 0 { inputs } else { outputs };
            let first = self.part == NetworkPart::Encoder && self.stage == 0 && block == 0;
            self.on_image = first;
            self.conv(&format!("{path}.{block}.conv1"), [inputs, outputs], 3);
            self.on_image = false;
            self.norm(&format!("{path}.{block}.norm1"), outputs);
            self.conv(&format!("{path}.{block}.conv2"), [outputs, outputs], 3);
            self.norm(&format!("{path}.{block}.norm2"), outputs);
            if block == 0 {
                self.on_image = first;
                self.conv(&format!("{path}.{block}.skip"), [inputs, outputs], 1);
                self.on_image = false;
            }
        }
    }
}

/// Where a pass is inside of what Burn keeps beside a parameter (see [`low_rank`](crate::low_rank)):
/// the names from there on.
pub(crate) struct InAdapter(Vec<String>);

impl InAdapter {
    pub(crate) fn enter(at: Option<Self>, name: &str, container: &str) -> Option<Self> {
        match at {
            Some(Self(mut path)) => {
                path.push(name.to_owned());
                Some(Self(path))
            }
            None => (container == "Reparameterization").then(|| Self(vec![name.to_owned()])),
        }
    }

    pub(crate) fn exit(at: Option<Self>) -> Option<Self> {
        let Self(mut path) = at?;
        path.pop();
        (!path.is_empty()).then_some(Self(path))
    }

    pub(crate) fn path(&self) -> String {
        self.0.join(".")
    }
}

/// Where a pass over a module is, and the parameter of the list that must come next.
struct Walk<'a> {
    path: Vec<String>,
    specs: std::slice::Iter<'a, ParameterSpec>,
}

impl<'a> Walk<'a> {
    fn new(root: Option<&str>, specs: &'a [ParameterSpec]) -> Self {
        Self { path: root.map(str::to_owned).into_iter().collect(), specs: specs.iter() }
    }

    /// The entry of the parameter that Burn is visiting.
    fn next(&mut self) -> &'a ParameterSpec {
        let path = self.path.join(".");
        let spec = self.specs.next().filter(|spec| spec.name == path);
        spec.unwrap_or_else(|| {
            panic!("parameter {path}: expected the parameters of an STU-Net and no others")
        })
    }

    fn finish(mut self) {
        let left = self.specs.next().map(|spec| &spec.name);
        assert!(left.is_none(), "parameter {left:?}: expected in the network, found none");
    }
}

/// The values of a parameter, in the shape that it must have.
pub(crate) fn checked(
    source: &mut dyn ParameterSource,
    spec: &ParameterSpec,
) -> Result<TensorData, ModelError> {
    let data = source.parameter(spec)?;
    match data.shape().as_slice() == spec.shape {
        true => Ok(data),
        false => Err(ModelError::Shape {
            name: spec.name.clone(),
            expected: spec.shape.clone(),
            found: data.shape().to_vec(),
        }),
    }
}

/// A parameter as a tensor.
pub(crate) fn tensor<const D: usize>(
    source: &mut dyn ParameterSource,
    spec: &ParameterSpec,
    device: &Device,
) -> Result<Tensor<D>, ModelError> {
    let data = checked(source, spec)?;
    // Double precision is kept: tests compute the truth with it. All else becomes f32.
    let dtype = if data.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let tensor = Tensor::from_data(data, (device, dtype));
    // In training a step gives every weight the order in memory of its gradient.
    let is_constant = spec.kind == ParameterKind::ConvWeight && !device.is_autodiff();
    Ok(if is_constant { kernels::prepared(tensor) } else { tensor })
}

/// Gives every parameter of a module the values of a source, in order. `root` is the module's place
/// within the network.
pub(crate) fn fill<M: Module>(
    module: M,
    root: Option<&str>,
    specs: &[ParameterSpec],
    source: &mut dyn ParameterSource,
    device: &Device,
) -> Result<M, ModelError> {
    let mut fill = Fill { walk: Walk::new(root, specs), source, device, failed: None };
    let module = module.map(&mut fill);
    match fill.failed {
        Some(error) => Err(error),
        None => {
            fill.walk.finish();
            Ok(module)
        }
    }
}

struct Fill<'a> {
    walk: Walk<'a>,
    source: &'a mut dyn ParameterSource,
    device: &'a Device,
    /// The first failure, after which nothing more is asked for.
    failed: Option<ModelError>,
}

impl Fill<'_> {
    fn tensor<const D: usize>(&mut self) -> Result<Tensor<D>, ModelError> {
        tensor(self.source, self.walk.next(), self.device)
    }
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.walk.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.path.pop();
    }

    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return parameter;
        }
        match self.tensor() {
            Ok(tensor) => {
                let id = parameter.id;
                parameter.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.failed = Some(error);
                parameter
            }
        }
    }
}

/// Calls `visit` with every parameter of a module, in order.
pub(crate) fn visit<M: Module>(
    module: &M,
    specs: &[ParameterSpec],
    visit: &mut dyn FnMut(&ParameterSpec, ParameterRef<'_>),
) {
    let mut pass = Visit { walk: Walk::new(None, specs), adapter: None, visit };
    module.visit(&mut pass);
    pass.walk.finish();
}

struct Visit<'a> {
    walk: Walk<'a>,
    /// What lies beside a parameter is none of the list.
    adapter: Option<InAdapter>,
    visit: &'a mut dyn FnMut(&ParameterSpec, ParameterRef<'_>),
}

impl ModuleVisitor for Visit<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.adapter = InAdapter::enter(self.adapter.take(), name, container);
        self.walk.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.adapter = InAdapter::exit(self.adapter.take());
        self.walk.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        if self.adapter.is_some() {
            return;
        }
        let spec = self.walk.next();
        let shape = parameter.lazy_shape().to_vec();
        match shape == spec.shape {
            true => (self.visit)(spec, ParameterRef::of(parameter)),
            // Somebody put another head in.
            false => {
                let spec = ParameterSpec { shape, ..spec.clone() };
                (self.visit)(&spec, ParameterRef::of(parameter));
            }
        }
    }
}
