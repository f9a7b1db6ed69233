//! What of a network is trained: everything, or what is not frozen, or low-rank factors.

use crate::checkpoint::{Group, TrainingCheckpoint};
use crate::error::{Result, TrainError};
use crate::parts::Parts;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeSet;
use stunet_model::{
    Initialisation, LowRankConfig, ModelError, NetworkPart, ParameterKind, ParameterRef,
    ParameterSource, ParameterSpec, StuNet,
};

/// Low-rank adaptation of a network that was trained before.
///
/// Every 3×3×3 convolution stays as it is, and factors beside it are trained
/// ([`LowRankConfig`]). Trained as a whole are the segmentation heads, the scales and shifts of the
/// norms, and what [`whole`](Self::whole) names; the 1×1×1 convolutions (upsamplings, skip connections) and
/// all biases but the heads' stay as they are. Frozen parts have no factors and are not trained at all.
///
/// Neither gradients nor momentum are kept of a weight that stays as it is. The forward pass adds
/// the product of the factors to the weight, which takes one more copy of the weights, or of those of
/// one stage where activations are recomputed.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRankOptions {
    /// Rank and scale.
    pub factors: LowRankConfig,
    /// Names of parameters that are trained as a whole all the same: those that were not carried over,
    /// as a random weight is no weight to stay beside.
    pub whole: Vec<String>,
    /// Seed of the factors.
    pub seed: u64,
}

impl LowRankOptions {
    /// Factors of a rank beside every convolution.
    pub fn new(rank: usize) -> Self {
        Self { factors: LowRankConfig::new(rank), whole: Vec::new(), seed: 0 }
    }

    /// Whether a parameter is trained as a whole.
    fn trains(&self, spec: &ParameterSpec) -> bool {
        spec.part == NetworkPart::Head
            || matches!(spec.kind, ParameterKind::NormWeight | ParameterKind::NormBias)
            || self.whole.contains(&spec.name)
    }

    /// How the factors begin: with a product of 0.
    fn source(&self) -> impl ParameterSource {
        let mut drawn = Initialisation::PyTorchDefault.source(self.seed);
        move |spec: &ParameterSpec| match spec.name.ends_with(".up") {
            true => Ok(TensorData::zeros::<f32, _>(spec.shape.clone())),
            false => drawn.parameter(spec),
        }
    }
}

/// What is trained of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    All,
    Factors,
    Nothing,
}

/// What is trained of each parameter of a network.
pub(crate) fn share(
    spec: &ParameterSpec,
    frozen: &Parts,
    low_rank: Option<&LowRankOptions>,
) -> Share {
    match low_rank {
        _ if frozen.contains(spec) => Share::Nothing,
        None => Share::All,
        Some(low_rank) if low_rank.trains(spec) => Share::All,
        Some(_) if spec.kind == ParameterKind::ConvWeight && spec.shape[2..] != [1; 3] => {
            Share::Factors
        }
        Some(_) => Share::Nothing,
    }
}

/// A network as a run begins with it.
///
/// # Errors
/// When nothing would be trained, or a rank cannot be used.
pub(crate) fn begin(
    network: StuNet,
    frozen: &Parts,
    low_rank: Option<&LowRankOptions>,
) -> Result<StuNet> {
    let share = |spec: &ParameterSpec| share(spec, frozen, low_rank);
    let specs = network.config().parameter_specs();
    let mut network = network;
    if let Some(low_rank) = low_rank {
        let wanted = |spec: &ParameterSpec| share(spec) == Share::Factors;
        if !specs.iter().any(wanted) {
            let expected = "a 3×3×3 convolution outside of the frozen parts";
            return Err(TrainError::setting("low-rank adaptation", expected, "none"));
        }
        network = network.adapted(&low_rank.factors, &wanted, &mut low_rank.source())?;
    }
    let names = specs.iter().filter(|spec| share(spec) == Share::Nothing);
    let network = freeze(network, names.map(|spec| spec.name.as_str()));
    match trains(&network) {
        true => Ok(network),
        false => Err(TrainError::setting("frozen parts", "a part that is trained", "all of them")),
    }
}

/// A network of a checkpoint, frozen and adapted as it was.
pub(crate) fn go_on(network: StuNet, checkpoint: &TrainingCheckpoint) -> Result<StuNet> {
    let state = checkpoint.state();
    let network = match &state.low_rank {
        None => network,
        Some(low_rank) => {
            let there = |spec: &ParameterSpec| checkpoint.has_factors(low_rank, spec);
            network.adapted(low_rank, &there, &mut checkpoint.source(Group::LowRank))?
        }
    };
    Ok(freeze(network, state.frozen.iter().map(String::as_str)))
}

fn freeze<'a>(network: StuNet, names: impl Iterator<Item = &'a str>) -> StuNet {
    let names: Vec<_> = names.collect();
    match names.is_empty() {
        true => network,
        false => network.freeze_group(ParamGroup::from_paths(names)),
    }
}

/// Names of the parameters that get no gradient and have no factors beside them.
pub(crate) fn frozen(network: &StuNet) -> Vec<String> {
    let mut factors = BTreeSet::new();
    network.for_each_factor(&mut |spec, _| {
        factors.insert(spec.name.clone());
    });
    // Names do not depend on the rank.
    let names = LowRankConfig::new(1);
    let mut frozen = Vec::new();
    network.for_each_parameter(&mut |spec, parameter| {
        let tracked = match parameter {
            ParameterRef::Vector(p) => p.val().is_require_grad(),
            ParameterRef::Kernel(p) => p.val().is_require_grad(),
        };
        let beside =
            || names.factor_specs(spec).iter().any(|factor| factors.contains(&factor.name));
        if !tracked && !beside() {
            frozen.push(spec.name.clone());
        }
    });
    frozen
}

/// The factors by name.
pub(crate) fn factors(network: &StuNet) -> Vec<(String, TensorData)> {
    let mut all = Vec::new();
    network.for_each_factor(&mut |spec, p| all.push((spec.name.clone(), p.to_data())));
    all
}

/// Whether anything in a module gets a gradient.
pub(crate) fn trains(module: &impl Module) -> bool {
    count(module) > 0
}

/// Values in a module that get a gradient.
pub(crate) fn count(module: &impl Module) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            if parameter.base().is_require_grad() {
                self.0 += parameter.lazy_shape().num_elements();
            }
        }
    }
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}

impl TrainingCheckpoint {
    /// The weights of a group as they act: a run's own with the product of their low-rank factors
    /// added, where it has some. For export; [`source`](Self::source) gives them as they are kept.
    pub fn merged(&self, group: Group) -> impl ParameterSource + '_ {
        move |spec: &ParameterSpec| -> std::result::Result<TensorData, ModelError> {
            let data = self.source(group).parameter(spec)?;
            let low_rank = self.state().low_rank.filter(|_| group == Group::Weights);
            let Some(low_rank) = low_rank.filter(|low_rank| self.has_factors(low_rank, spec))
            else {
                return Ok(data);
            };
            let mut values: Vec<f32> = data.iter::<f32>().collect();
            let mut factors = self.source(Group::LowRank);
            let mut factor = |spec: &ParameterSpec| -> std::result::Result<Vec<f32>, ModelError> {
                Ok(factors.parameter(spec)?.iter::<f32>().collect())
            };
            let [down, up] = low_rank.factor_specs(spec);
            low_rank.add_to(&mut values, &factor(&down)?, &factor(&up)?);
            Ok(TensorData::new(values, spec.shape.clone()))
        }
    }

    fn has_factors(&self, low_rank: &LowRankConfig, spec: &ParameterSpec) -> bool {
        let [down, up] = low_rank.factor_specs(spec);
        [down, up]
            .iter()
            .all(|spec| self.shape(Group::LowRank, &spec.name) == Some(&spec.shape[..]))
    }
}
