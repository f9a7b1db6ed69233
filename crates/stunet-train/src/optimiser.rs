//! The optimiser: SGD with Nesterov momentum, coupled weight decay and clipping by the global norm, or
//! any of Burn's, or one's own.
//!
//! * [`OptimiserConfig`]: which optimiser, as [`StateOptions`](crate::StateOptions) takes it;
//!   [`Optimiser`]: one that is running,
//! * [`Sgd`]: nnU-Net's, one step at a time, its momentum by parameter name,
//! * [`BurnOptimiser`]: one of Burn's, or one that implements Burn's trait; [`AdamSettings`]: Adam and
//!   AdamW as nnU-Net's trainers have them,
//! * [`ParameterGradients`]: the gradients of a network in the order of its parameters; they add up
//!   over micro-batches and over devices,
//! * [`LossScaler`]: the moving factor that keeps half-precision gradients in range,
//! * [`Ema`]: a moving average of the weights.
//!
//! Parameters stay f32 whatever the [`Precision`](crate::precision::Precision) of the computation.

mod adam;
mod burn_optimiser;
mod ema;
mod gradients;
mod scaler;
mod update;

pub use adam::AdamSettings;
pub use burn_optimiser::BurnOptimiser;
pub use ema::Ema;
pub use gradients::{IntoParameterGradients, ParameterGradients};
pub use scaler::LossScaler;

use crate::checkpoint::{Group, Scalar};
use crate::error::{Result, TrainError};
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use stunet_model::{ModelError, ParameterSpec, StuNet, StuNetConfig};

/// Which optimiser a run has. [`SgdConfig`] and [`BurnOptimiser`] are such.
pub trait OptimiserConfig: fmt::Debug + Send + Sync {
    /// Name and settings in one line. The text is kept in checkpoints, and a run is continued only
    /// with an optimiser of the same description.
    fn describe(&self) -> String;

    /// An optimiser at rest; every device of a run has one of its own.
    fn init(&self, network: &StuNetConfig) -> Box<dyn Optimiser>;

    /// The same for a network that may have low-rank factors, which follow its parameters.
    fn init_for(&self, network: &StuNet) -> Box<dyn Optimiser> {
        self.init(&network.config())
    }

    /// How many tensors of the size of the weights it keeps, for the estimate of
    /// [`memory::plan`](crate::memory::plan).
    fn copies_of_weights(&self) -> f64;
}

/// An optimiser that is running: its memory of the steps before, and the next one.
///
/// For an optimiser of one's own, Burn's trait [`Optimizer`](burn_optim::Optimizer) with
/// [`BurnOptimiser`] around it is the shorter way: it works on one parameter at a time and leaves
/// clipping, loss scaling and checkpoints to this crate.
pub trait Optimiser: fmt::Debug + Send {
    /// Moves the network one step. The gradients are those of a loss that was scaled; they have to be
    /// multiplied by `unscale`. Where one is not finite nothing may change, and the report says so.
    fn step(
        &mut self,
        network: StuNet,
        gradients: ParameterGradients,
        lr: f64,
        unscale: f64,
    ) -> (StuNet, StepReport);

    /// Takes what the learning rate of every parameter is multiplied by, in the order of the gradients.
    ///
    /// # Errors
    /// For an optimiser that has one rate for all, as it is by default.
    fn set_rate_factors(&mut self, factors: Vec<f64>) -> Result<()> {
        let _ = factors;
        let expected =
            "an optimiser that has one per parameter, such as SgdConfig or BurnOptimiser";
        Err(TrainError::setting("learning rates by layer", expected, "one rate for all"))
    }

    /// Where its tensors are kept in a checkpoint: [`Group::Momentum`] is for what nnU-Net reads.
    fn group(&self) -> Group {
        Group::Optimiser
    }

    /// All that the next step depends on.
    fn state(&self) -> OptimiserState;

    /// Takes the state of a run to be continued.
    ///
    /// # Errors
    /// When it is not that of this network; nothing is changed then.
    fn restore(&mut self, state: OptimiserState, device: &Device) -> Result<()>;

    /// One with the same settings and no memory, for another device.
    fn at_rest(&self) -> Box<dyn Optimiser>;
}

/// The memory of an optimiser, as checkpoints keep it.
#[derive(Clone, Debug, Default)]
pub struct OptimiserState {
    /// Tensors by name, `f32` or `f64`.
    pub tensors: Vec<(String, TensorData)>,
    /// Numbers that are no tensors, such as a count of steps, by name.
    pub scalars: BTreeMap<String, Scalar>,
}

/// How [`Sgd`] moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdConfig {
    /// Share of the velocity that stays.
    pub momentum: f64,
    /// Looks ahead by the velocity.
    pub nesterov: bool,
    /// Added to the gradient, times the parameter; acts on every parameter, biases and norms too.
    pub weight_decay: f64,
    /// Gradients with a larger global norm are scaled down to it.
    pub max_norm: Option<f64>,
}

/// nnU-Net's, 1.7.1 and 2 alike.
impl Default for SgdConfig {
    fn default() -> Self {
        Self { momentum: 0.99, nesterov: true, weight_decay: 3e-5, max_norm: Some(12.0) }
    }
}

impl OptimiserConfig for SgdConfig {
    fn describe(&self) -> String {
        let Self { momentum, nesterov, weight_decay, max_norm } = self;
        let kind = if *nesterov { "Nesterov momentum" } else { "momentum" };
        let clip = max_norm.map_or_else(|| "none".to_owned(), |norm| format!("{norm:?}"));
        format!("SGD, {kind} {momentum:?}, weight decay {weight_decay:?}, largest norm {clip}")
    }

    fn init(&self, network: &StuNetConfig) -> Box<dyn Optimiser> {
        Box::new(Sgd::new(*self, network))
    }

    fn init_for(&self, network: &StuNet) -> Box<dyn Optimiser> {
        Box::new(Sgd::with_specs(*self, trained_specs(network)))
    }

    fn copies_of_weights(&self) -> f64 {
        1.0
    }
}

impl Optimiser for Sgd {
    fn step(
        &mut self,
        network: StuNet,
        gradients: ParameterGradients,
        lr: f64,
        unscale: f64,
    ) -> (StuNet, StepReport) {
        self.step_unscaled(network, gradients, lr, unscale)
    }

    fn set_rate_factors(&mut self, factors: Vec<f64>) -> Result<()> {
        self.factors = Some(factors.into());
        Ok(())
    }

    fn group(&self) -> Group {
        Group::Momentum
    }

    fn state(&self) -> OptimiserState {
        let tensors = self.velocities().filter_map(|(spec, v)| Some((spec.name.clone(), v?)));
        OptimiserState { tensors: tensors.collect(), scalars: BTreeMap::new() }
    }

    fn restore(&mut self, state: OptimiserState, device: &Device) -> Result<()> {
        let mut velocities: BTreeMap<_, _> = state.tensors.into_iter().collect();
        Ok(Self::restore(self, &mut |spec| velocities.remove(&spec.name), device)?)
    }

    fn at_rest(&self) -> Box<dyn Optimiser> {
        let velocities = vec![None; self.specs.len()];
        Box::new(Self { velocities, ..self.clone() })
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Global L2 norm of the gradients before clipping, the loss scale taken out.
    pub grad_norm: f64,
    /// True when a gradient was not finite: nothing was changed.
    pub skipped: bool,
}

/// Stochastic gradient descent: with `g` the clipped gradient plus `weight_decay * w`, the velocity
/// is `v = momentum * v + g`, and `w -= lr * (g + momentum * v)`; the first velocity is `g`.
///
/// A parameter without a gradient is left alone, weight decay and momentum included.
///
/// # Source
/// `torch.optim.SGD(nesterov=True, dampening=0)` and `torch.nn.utils.clip_grad_norm_`.
///
/// # Deviations
/// A gradient that is not finite changes nothing and is reported; PyTorch without a gradient scaler
/// would carry it into the weights. The norm is summed in f64.
#[derive(Clone, Debug)]
pub struct Sgd {
    config: SgdConfig,
    specs: Vec<ParameterSpec>,
    /// Of the learning rate; none where all are 1.
    factors: Option<Arc<[f64]>>,
    /// Velocities, flat, in the order of the parameters; none before the first gradient.
    velocities: Vec<Option<Tensor<1>>>,
}

impl Sgd {
    /// An optimiser at rest.
    pub fn new(config: SgdConfig, network: &StuNetConfig) -> Self {
        Self::with_specs(config, network.parameter_specs())
    }

    fn with_specs(config: SgdConfig, specs: Vec<ParameterSpec>) -> Self {
        let velocities = vec![None; specs.len()];
        Self { config, specs, factors: None, velocities }
    }

    /// How it moves.
    pub fn config(&self) -> &SgdConfig {
        &self.config
    }

    /// Moves the network one step down its gradients.
    ///
    /// # Panics
    /// When the network is not of the configuration the optimiser was made for.
    pub fn step(
        &mut self,
        network: StuNet,
        gradients: impl IntoParameterGradients,
        lr: f64,
    ) -> (StuNet, StepReport) {
        self.step_unscaled(network, gradients, lr, 1.0)
    }

    /// As [`step`](Self::step), for gradients of a loss multiplied by the scaler's factor; the
    /// scaler is told whether they were finite.
    ///
    /// # Panics
    /// As [`step`](Self::step).
    pub fn step_scaled(
        &mut self,
        network: StuNet,
        gradients: impl IntoParameterGradients,
        lr: f64,
        scaler: &mut LossScaler,
    ) -> (StuNet, StepReport) {
        let (network, report) = self.step_unscaled(network, gradients, lr, 1.0 / scaler.factor());
        scaler.update(!report.skipped);
        (network, report)
    }

    fn step_unscaled(
        &mut self,
        network: StuNet,
        gradients: impl IntoParameterGradients,
        lr: f64,
        unscale: f64,
    ) -> (StuNet, StepReport) {
        let gradients = gradients.into_parameter_gradients(&network);
        assert_eq!(gradients.len(), self.specs.len(), "as many gradients as parameters");
        let (gradients, norm) = gradients.with_norm();
        let grad_norm = norm * unscale;
        if !grad_norm.is_finite() {
            return (network, StepReport { grad_norm, skipped: true });
        }
        let clip = clip_factor(self.config.max_norm, grad_norm);
        let step =
            update::UpdateFactors { config: self.config, gradient_factor: clip * unscale, lr };
        let factors = self.factors.as_deref();
        let mut rule = update::SgdRule { velocities: &mut self.velocities, step: &step, factors };
        let network = update::apply(network, gradients, &mut rule);
        (network, StepReport { grad_norm, skipped: false })
    }

    /// Every parameter with its velocity (PyTorch's `momentum_buffer`), in the order of the
    /// parameters; none where no gradient has come yet.
    pub fn velocities(&self) -> impl Iterator<Item = (&ParameterSpec, Option<TensorData>)> {
        self.specs.iter().zip(&self.velocities).map(|(spec, velocity)| {
            let shaped = |v: &Tensor<1>| {
                let (bytes, _, dtype) = v.to_data().into_parts();
                TensorData::from_bytes(bytes, spec.shape.clone(), dtype)
            };
            (spec, velocity.as_ref().map(shaped))
        })
    }

    /// Takes the velocities of a run to be continued, asked for one parameter at a time.
    ///
    /// # Errors
    /// When a velocity is not of its parameter's shape; nothing is changed then.
    pub fn restore(
        &mut self,
        velocity: &mut dyn FnMut(&ParameterSpec) -> Option<TensorData>,
        device: &Device,
    ) -> Result<(), ModelError> {
        let device = device.clone().inner();
        let mut restored = Vec::with_capacity(self.specs.len());
        for spec in &self.specs {
            let Some(data) = velocity(spec) else {
                restored.push(None);
                continue;
            };
            if data.shape().as_slice() != spec.shape {
                return Err(ModelError::Shape {
                    name: format!("velocity of {}", spec.name),
                    expected: spec.shape.clone(),
                    found: data.shape().to_vec(),
                });
            }
            let dtype = if data.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
            let (bytes, _, dtype) = data.convert_dtype(dtype).into_parts();
            let flat = TensorData::from_bytes(bytes, [spec.shape.iter().product::<usize>()], dtype);
            restored.push(Some(Tensor::from_data(flat, (&device, dtype))));
        }
        self.velocities = restored;
        Ok(())
    }
}

/// The parameters of a network, then its low-rank factors: the order of [`ParameterGradients`].
pub(crate) fn trained_specs(network: &StuNet) -> Vec<ParameterSpec> {
    let mut specs = network.config().parameter_specs();
    specs.extend(network.factor_specs());
    specs
}

/// The learning rate of a parameter.
fn rate_of(lr: f64, factors: Option<&[f64]>, index: usize) -> f64 {
    factors.map_or(lr, |factors| lr * factors[index])
}

/// What the gradients are multiplied by so that their norm is at most `max_norm`.
fn clip_factor(max_norm: Option<f64>, norm: f64) -> f64 {
    match max_norm {
        Some(max_norm) => (max_norm / (norm + 1e-6)).min(1.0),
        None => 1.0,
    }
}

#[cfg(test)]
mod tests;
