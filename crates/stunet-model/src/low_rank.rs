//! Low-rank adaptation: a convolution's weight stays as it is, and what is learnt beside it is a
//! product of two small factors.
//!
//! Burn keeps the factors inside the parameter ([`Reparameterization`]): the network is the same
//! type and runs the same operators, on the sum of the weight and the product. What is written to
//! files is that sum ([`StuNet::source`]).

use crate::parameter::{InAdapter, ParameterRef, ParameterSource, ParameterSpec, checked};
use crate::{ModelError, ParameterKind, StuNet};
use burn::module::{
    Module, ModuleVisitor, Param, Reparameterization, Reparameterizer as BurnReparameterizer,
};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How large the factors are, and how much their product counts.
///
/// A weight `W` of shape `[Cout, Cin, 3, 3, 3]` acts as `W + alpha / rank * up * down`, where `down` is
/// a 3×3×3 convolution to `rank` features and `up` a 1×1×1 convolution from them. It begins with
/// `up = 0`, so that an adapted network computes what it did before.
///
/// # Source
/// Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), for convolutions as in
/// `loralib` 0.1.2: the weight as a matrix `[Cout, Cin * 27]`, `down` drawn as PyTorch draws a
/// convolution's weight, `up` zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LowRankConfig {
    /// Features between the two factors.
    pub rank: usize,
    /// The product is multiplied by `alpha / rank`.
    pub alpha: f64,
}

impl LowRankConfig {
    /// Factors of a rank, their product as it is: `alpha` is the rank.
    pub fn new(rank: usize) -> Self {
        Self { rank, alpha: rank as f64 }
    }

    /// What the product is multiplied by.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// The two factors of a convolution's weight: `down`, then `up`.
    pub fn factor_specs(&self, weight: &ParameterSpec) -> [ParameterSpec; 2] {
        let (outputs, rest) = (weight.shape[0], &weight.shape[1..]);
        let factor = |name: &str, shape: Vec<usize>| ParameterSpec {
            name: factor_name(&weight.name, &format!("{}.{name}", LowRank::NAME)),
            shape,
            sees_image: false,
            ..weight.clone()
        };
        let down = [&[self.rank], rest].concat();
        [factor("down", down), factor("up", vec![outputs, self.rank, 1, 1, 1])]
    }

    /// Adds the product to a weight on the host.
    ///
    /// # Panics
    /// When a length is not that of its specification.
    pub fn add_to(&self, weight: &mut [f32], down: &[f32], up: &[f32]) {
        let (rank, scale) = (self.rank, self.scale() as f32);
        let inner = down.len() / rank;
        assert_eq!(weight.len() / inner, up.len() / rank, "as many rows as outputs");
        for (row, up) in weight.chunks_exact_mut(inner).zip(up.chunks_exact(rank)) {
            for (down, &up) in down.chunks_exact(inner).zip(up) {
                let up = up * scale;
                row.iter_mut().zip(down).for_each(|(weight, &down)| *weight += up * down);
            }
        }
    }

    fn check(&self) -> Result<(), ModelError> {
        if self.rank == 0 {
            return Err(ModelError::config("rank of the adapters", "at least 1", 0));
        }
        match self.alpha.is_finite() && self.alpha > 0.0 {
            true => Ok(()),
            false => Err(ModelError::config("alpha of the adapters", "above 0", self.alpha)),
        }
    }
}

/// The two factors beside a weight.
#[derive(Module, Debug)]
pub struct LowRank {
    /// `[rank, Cin, K, K, K]`.
    pub down: Param<Tensor<5>>,
    /// `[Cout, rank, 1, 1, 1]`.
    pub up: Param<Tensor<5>>,
    /// What their product is multiplied by.
    pub scale: f64,
}

impl Reparameterization for LowRank {
    const NAME: &'static str = "low_rank";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let (down, up) = (self.down.val(), self.up.val());
        let [rank, ..] = down.dims();
        let [outputs, ..] = up.dims();
        let inner = down.shape().num_elements() / rank;
        let down: Tensor<2> = down.reshape([rank, inner]);
        let up: Tensor<2> = up.reshape([outputs, rank]);
        let product = up.matmul(down).mul_scalar(self.scale).reshape(base.dims());
        let dtype = base.dtype();
        base + if product.dtype() == dtype { product } else { product.cast(dtype) }
    }
}

impl StuNet {
    /// The network with factors beside every 3×3×3 convolution that `wanted` says, which are all that
    /// is trained of these weights; `source` supplies the factors, `down` before `up`.
    ///
    /// # Errors
    /// When the rank is 0 or not below the features of such a convolution, or the source fails.
    ///
    /// # Panics
    /// When the network has adapters already.
    pub fn adapted(
        self,
        config: &LowRankConfig,
        wanted: &dyn Fn(&ParameterSpec) -> bool,
        source: &mut dyn ParameterSource,
    ) -> Result<Self, ModelError> {
        assert!(!self.is_adapted(), "expected a network without adapters");
        config.check()?;
        let specs = self.config().parameter_specs().into_iter();
        let specs: BTreeMap<_, _> = specs
            .filter(|spec| is_adaptable(spec) && wanted(spec))
            .map(|spec| (spec.name.clone(), spec))
            .collect();
        if let Some(spec) = specs.values().find(|spec| spec.shape[0] <= config.rank) {
            let expected = format!("below {}, the features of {}", spec.shape[0], spec.name);
            return Err(ModelError::config("rank of the adapters", expected, config.rank));
        }
        let mut failed = None;
        let attach = Attach { config, specs: &specs, source, failed: &mut failed };
        let network = self.apply_reparameterization(attach);
        failed.map_or(Ok(network), Err)
    }

    /// True where some weight has factors beside it.
    pub fn is_adapted(&self) -> bool {
        let mut any = false;
        self.for_each_factor(&mut |_, _| any = true);
        any
    }

    /// The factors, in the order of their weights, `down` before `up`.
    pub fn factor_specs(&self) -> Vec<ParameterSpec> {
        let mut specs = Vec::new();
        self.for_each_factor(&mut |spec, _| specs.push(spec.clone()));
        specs
    }

    /// Calls `visit` with every factor, in the order of [`factor_specs`](Self::factor_specs).
    pub fn for_each_factor(&self, visitor: &mut dyn FnMut(&ParameterSpec, ParameterRef<'_>)) {
        let specs = self.config().parameter_specs();
        let mut factors = Factors { specs: specs.iter(), weight: None, at: None, visitor };
        self.visit(&mut factors);
    }
}

/// `encoder.stages.0.0.conv1.low_rank.down`, beside `encoder.stages.0.0.conv1.weight`: neither name begins
/// with the other, so that what is kept by name stays apart.
fn factor_name(weight: &str, path: &str) -> String {
    format!("{}{path}", weight.strip_suffix("weight").unwrap_or(weight))
}

/// Whether a parameter is the weight of a 3×3×3 convolution.
fn is_adaptable(spec: &ParameterSpec) -> bool {
    spec.kind == ParameterKind::ConvWeight && spec.shape[2..] != [1; 3]
}

/// Gives weights their factors.
struct Attach<'a> {
    config: &'a LowRankConfig,
    specs: &'a BTreeMap<String, ParameterSpec>,
    source: &'a mut dyn ParameterSource,
    failed: &'a mut Option<ModelError>,
}

impl Attach<'_> {
    fn factors(&mut self, weight: &ParameterSpec, device: &Device) -> Result<LowRank, ModelError> {
        let [down, up] = self.config.factor_specs(weight);
        let mut factor = |spec: &ParameterSpec| -> Result<_, ModelError> {
            let data: TensorData = checked(self.source, spec)?;
            let dtype = if data.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            Ok(Param::from_tensor(Tensor::from_data(data, (device, dtype))))
        };
        Ok(LowRank { down: factor(&down)?, up: factor(&up)?, scale: self.config.scale() })
    }
}

impl BurnReparameterizer for Attach<'_> {
    type Reparam = LowRank;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        parameter: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRank>) {
        let (specs, device) = (self.specs, parameter.lazy_device());
        let Some(weight) = specs.get(path).filter(|_| self.failed.is_none()) else {
            return (parameter, None);
        };
        match self.factors(weight, &device) {
            Ok(factors) => (parameter.set_require_grad(false), Some(factors)),
            Err(error) => {
                *self.failed = Some(error);
                (parameter, None)
            }
        }
    }
}

/// A pass over the factors alone.
struct Factors<'a, 'v> {
    specs: std::slice::Iter<'a, ParameterSpec>,
    /// The parameter that was visited last: the one that factors lie beside.
    weight: Option<&'a ParameterSpec>,
    at: Option<InAdapter>,
    visitor: &'v mut dyn FnMut(&ParameterSpec, ParameterRef<'_>),
}

impl ModuleVisitor for Factors<'_, '_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.at = InAdapter::enter(self.at.take(), name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.at = InAdapter::exit(self.at.take());
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
        let Some(at) = &self.at else {
            self.weight = self.specs.next();
            return;
        };
        let weight = self.weight.expect("factors lie beside a weight");
        let spec = ParameterSpec {
            name: factor_name(&weight.name, &at.path()),
            shape: parameter.lazy_shape().to_vec(),
            sees_image: false,
            ..weight.clone()
        };
        (self.visitor)(&spec, ParameterRef::of(parameter));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Initialisation, StuNetConfig};
    use burn::tensor::Tolerance;

    fn config() -> StuNetConfig {
        let strides = [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]];
        StuNetConfig { strides, ..StuNetConfig::small(1, 3).with_width([4; 6]) }
    }

    fn network(device: &Device) -> StuNet {
        config().init_seeded(Initialisation::NnUNetV1, 3, device).unwrap()
    }

    fn input(device: &Device) -> Tensor<5> {
        let values = (0..8 * 8 * 16).map(|i| (i * i % 83) as f32 / 40.0 - 1.0).collect();
        Tensor::from_data(TensorData::new(values, [1, 1, 8, 8, 16]), device)
    }

    /// Factors that are not zero.
    fn factors(spec: &ParameterSpec) -> Result<TensorData, ModelError> {
        Initialisation::PyTorchDefault.source(spec.name.len() as u64).parameter(spec)
    }

    #[test]
    fn an_adapted_network_runs_on_the_sum() {
        let device = Device::flex();
        let low_rank = LowRankConfig { rank: 2, alpha: 3.0 };
        let plain = network(&device);
        let adapted = plain.clone().adapted(&low_rank, &|_| true, &mut factors).unwrap();
        let forward = |network: &StuNet| network.forward(input(&device)).into_data();
        assert!(adapted.is_adapted() && !plain.is_adapted());
        assert_ne!(forward(&adapted), forward(&plain));

        // What files receive: the sum, computed on the host as well.
        let mut source = adapted.source();
        let merged = StuNet::from_source(&config(), &mut source, &device).unwrap();
        assert!(!merged.is_adapted());
        let bound = Tolerance::absolute(1e-5);
        forward(&merged).assert_approx_eq::<f32>(&forward(&adapted), bound);
        let spec = &config().parameter_specs()[0];
        let [down, up] = low_rank.factor_specs(spec).map(|spec| factors(&spec).unwrap());
        let mut weight: Vec<f32> = plain.source().parameter(spec).unwrap().iter().collect();
        let [down, up] = [down, up].map(|data| data.iter::<f32>().collect::<Vec<_>>());
        low_rank.add_to(&mut weight, &down, &up);
        let expected = TensorData::new(weight, spec.shape.clone());
        adapted.source().parameter(spec).unwrap().assert_approx_eq::<f32>(&expected, bound);
    }

    #[test]
    fn factors_are_named_and_alone_are_trained() {
        let device = Device::flex().autodiff();
        let low_rank = LowRankConfig::new(2);
        let encoder = |spec: &ParameterSpec| spec.part == crate::NetworkPart::Encoder;
        let adapted = network(&device).adapted(&low_rank, &encoder, &mut factors).unwrap();
        let specs = adapted.factor_specs();
        // Two convolutions in each of six blocks.
        assert_eq!(specs.len(), 24);
        assert_eq!(specs[0].name, "encoder.stages.0.0.conv1.low_rank.down");
        assert_eq!(
            (&specs[0].shape[..], &specs[1].shape[..]),
            (&[2, 1, 3, 3, 3][..], &[4, 2, 1, 1, 1][..])
        );
        let expected = config()
            .parameter_specs()
            .into_iter()
            .filter(|spec| encoder(spec) && is_adaptable(spec));
        assert!(
            specs.iter().eq(expected
                .flat_map(|spec| low_rank.factor_specs(&spec))
                .collect::<Vec<_>>()
                .iter())
        );

        let mut grads = adapted.forward(input(&device)).powi_scalar(2).mean().backward();
        let mut slopes = 0;
        adapted.for_each_factor(&mut |spec, parameter| {
            let ParameterRef::Kernel(parameter) = parameter else { panic!("{}", spec.name) };
            slopes += usize::from(parameter.val().grad_remove(&mut grads).is_some());
        });
        assert_eq!(slopes, 24);
        let mut names = Vec::new();
        adapted.for_each_parameter(&mut |spec, parameter| {
            names.push(spec.name.clone());
            let tracked = match parameter {
                ParameterRef::Vector(p) => p.val().is_require_grad(),
                ParameterRef::Kernel(p) => p.val().is_require_grad(),
            };
            assert_eq!(tracked, !(encoder(spec) && is_adaptable(spec)), "{}", spec.name);
        });
        assert!(names.iter().eq(config().parameter_specs().iter().map(|spec| &spec.name)));
    }

    #[test]
    fn a_rank_that_saves_nothing_is_refused() {
        let device = Device::flex();
        let with = |rank, alpha| {
            let config = LowRankConfig { rank, alpha };
            network(&device).adapted(&config, &|_| true, &mut factors).unwrap_err().to_string()
        };
        assert!(with(4, 1.0).contains("below 4, the features of"), "{}", with(4, 1.0));
        assert!(with(0, 1.0).contains("at least 1"));
        assert!(with(2, f64::NAN).contains("above 0"));
    }
}
