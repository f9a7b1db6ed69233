//! Burn's optimisers, and those that implement Burn's trait.

use super::update::{self, Rule};
use super::{
    Optimiser, OptimiserConfig, OptimiserState, ParameterGradients, StepReport, clip_factor,
    rate_of, trained_specs,
};
use crate::checkpoint::Scalar;
use crate::error::{Result, TrainError};
use burn::tensor::{Device, Tensor};
use burn_optim::{DynOptimizer, DynState, Optimizer, StateSink, StateSource};
use std::fmt;
use std::sync::Arc;
use stunet_model::{ParameterSpec, StuNet, StuNetConfig};

/// One of Burn's optimisers, with nnU-Net's clipping of the gradients by their global norm.
///
/// It takes what Burn's configurations build: the optimiser of a single parameter.
///
/// ```
/// use stunet_train::burn_optim::AdamWConfig;
/// use stunet_train::optimiser::{BurnOptimiser, OptimiserConfig};
/// let adam = AdamWConfig::new().with_weight_decay(0.01);
/// let optimiser = BurnOptimiser::new("AdamW, weight decay 0.01", adam.build());
/// assert_eq!(optimiser.describe(), "AdamW, weight decay 0.01, largest norm 12.0");
/// ```
#[derive(Clone)]
pub struct BurnOptimiser<O> {
    description: String,
    optimizer: O,
    max_norm: Option<f64>,
    copies_of_weights: f64,
}

impl<O: Optimizer> BurnOptimiser<O> {
    /// An optimiser, and its name and settings in one line: the text is kept in checkpoints, and a
    /// run is continued only with an optimiser of the same description.
    pub fn new(description: impl Into<String>, optimizer: O) -> Self {
        let description = description.into();
        Self { description, optimizer, max_norm: Some(12.0), copies_of_weights: 2.0 }
    }

    /// Gradients with a larger global norm are scaled down to it; 12 by default, as in nnU-Net.
    #[must_use]
    pub fn with_max_norm(self, max_norm: Option<f64>) -> Self {
        Self { max_norm, ..self }
    }

    /// How many tensors of the size of the weights it keeps, for the estimate of memory; 2 by
    /// default, as Adam does.
    #[must_use]
    pub fn with_copies_of_weights(self, copies_of_weights: f64) -> Self {
        Self { copies_of_weights, ..self }
    }
}

impl<O> fmt::Debug for BurnOptimiser<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { description, max_norm, .. } = self;
        f.debug_struct("BurnOptimiser")
            .field("description", description)
            .field("max_norm", max_norm)
            .finish_non_exhaustive()
    }
}

impl<O: Optimizer> OptimiserConfig for BurnOptimiser<O> {
    fn describe(&self) -> String {
        let clip = self.max_norm.map_or_else(|| "none".to_owned(), |norm| format!("{norm:?}"));
        format!("{}, largest norm {clip}", self.description)
    }

    fn init(&self, network: &StuNetConfig) -> Box<dyn Optimiser> {
        Box::new(Running::new(self.clone(), network.parameter_specs()))
    }

    fn init_for(&self, network: &StuNet) -> Box<dyn Optimiser> {
        Box::new(Running::new(self.clone(), trained_specs(network)))
    }

    fn copies_of_weights(&self) -> f64 {
        self.copies_of_weights
    }
}

/// The same at work, with its state by parameter.
struct Running<O> {
    config: BurnOptimiser<O>,
    specs: Vec<ParameterSpec>,
    /// Of the learning rate; none where all are 1.
    factors: Option<Arc<[f64]>>,
    states: Vec<Option<DynState>>,
}

impl<O: Optimizer> Running<O> {
    fn new(config: BurnOptimiser<O>, specs: Vec<ParameterSpec>) -> Self {
        let states = specs.iter().map(|_| None).collect();
        Self { config, specs, factors: None, states }
    }
}

impl<O> fmt::Debug for Running<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<O: Optimizer> Optimiser for Running<O> {
    fn step(
        &mut self,
        network: StuNet,
        gradients: ParameterGradients,
        lr: f64,
        unscale: f64,
    ) -> (StuNet, StepReport) {
        assert_eq!(gradients.len(), self.specs.len(), "as many gradients as parameters");
        let (gradients, norm) = gradients.with_norm();
        let grad_norm = norm * unscale;
        if !grad_norm.is_finite() {
            return (network, StepReport { grad_norm, skipped: true });
        }
        let factor = clip_factor(self.config.max_norm, grad_norm) * unscale;
        let optimizer = &self.config.optimizer;
        let (states, rates) = (&mut self.states, self.factors.as_deref());
        let mut rule = BurnRule { optimizer, states, factor, lr, rates };
        let network = update::apply(network, gradients, &mut rule);
        (network, StepReport { grad_norm, skipped: false })
    }

    fn set_rate_factors(&mut self, factors: Vec<f64>) -> Result<()> {
        self.factors = Some(factors.into());
        Ok(())
    }

    fn state(&self) -> OptimiserState {
        let mut sink = StateSink::default();
        for (spec, state) in self.specs.iter().zip(&self.states) {
            if let Some(state) = state {
                let optimizer: &dyn DynOptimizer = &self.config.optimizer;
                optimizer.state_flatten(&spec.name, state, &mut sink);
            }
        }
        let scalars = sink.scalars.into_iter();
        let scalars = scalars.map(|(name, value)| (name, from_burn(value)));
        OptimiserState { tensors: sink.tensors, scalars: scalars.collect() }
    }

    fn restore(&mut self, state: OptimiserState, device: &Device) -> Result<()> {
        let device = device.clone().inner();
        let scalars = state.scalars.into_iter().map(|(name, value)| (name, to_burn(value)));
        let mut source = StateSource::new(scalars.collect());
        state.tensors.into_iter().for_each(|(name, data)| source.insert_tensor(name, data));
        let optimizer: &dyn DynOptimizer = &self.config.optimizer;
        let mut states = Vec::with_capacity(self.specs.len());
        for spec in &self.specs {
            if !source.has_under(&spec.name) {
                states.push(None);
                continue;
            }
            let rank = spec.shape.len();
            let restored = optimizer.state_unflatten(rank, &spec.name, &mut source, &device);
            let Some(restored) = restored else {
                let expected = format!("all of {}", self.config.describe());
                let found = format!("a part for {}", spec.name);
                return Err(TrainError::setting("the optimiser's state", expected, found));
            };
            states.push(Some(restored));
        }
        self.states = states;
        Ok(())
    }

    fn at_rest(&self) -> Box<dyn Optimiser> {
        let factors = self.factors.clone();
        Box::new(Self { factors, ..Self::new(self.config.clone(), self.specs.clone()) })
    }
}

/// One step of one parameter.
struct BurnRule<'a, O> {
    optimizer: &'a O,
    states: &'a mut [Option<DynState>],
    factor: f64,
    lr: f64,
    /// Factors of the learning rate, by parameter.
    rates: Option<&'a [f64]>,
}

impl<O: Optimizer> Rule for BurnRule<'_, O> {
    fn step<const D: usize>(
        &mut self,
        index: usize,
        parameter: Tensor<D>,
        gradient: Tensor<1>,
    ) -> Tensor<D> {
        let gradient = gradient.cast(parameter.dtype()) * self.factor;
        let gradient = gradient.reshape(parameter.dims());
        let lr = rate_of(self.lr, self.rates, index);
        let state = self.states[index].take().map(DynState::downcast::<O::State<D>>);
        let (parameter, state) = self.optimizer.step(lr, parameter, gradient, state);
        self.states[index] = state.map(|state| DynState::create(state, D));
        parameter
    }
}

/// Burn keeps four types of numbers, and reads an integer of either sign as the other.
fn from_burn<S: Copy>(value: S) -> Scalar
where
    bool: TryFrom<S>,
    u64: TryFrom<S>,
    i64: TryFrom<S>,
    f64: TryFrom<S>,
{
    // A float takes integers as well, and so comes last.
    bool::try_from(value)
        .map(Scalar::Bool)
        .or_else(|_| u64::try_from(value).map(Scalar::UInt))
        .or_else(|_| i64::try_from(value).map(Scalar::Int))
        .or_else(|_| f64::try_from(value).map(Scalar::Float))
        .unwrap_or_else(|_| unreachable!("one of the four types"))
}

fn to_burn<S: From<bool> + From<u64> + From<i64> + From<f64>>(value: Scalar) -> S {
    match value {
        Scalar::Bool(value) => value.into(),
        Scalar::UInt(value) => value.into(),
        Scalar::Int(value) => value.into(),
        Scalar::Float(value) => value.into(),
    }
}
