//! The optimiser: SGD with Nesterov momentum, coupled weight decay and clipping by the global norm.
//!
//! * [`Sgd`]: one step at a time, its momentum by parameter name,
//! * [`ParameterGradients`]: the gradients of a network in the order of its parameters; they add up
//!   over micro-batches and over devices,
//! * [`LossScaler`]: the moving factor that keeps half-precision gradients in range,
//! * [`Ema`]: a moving average of the weights.
//!
//! Parameters stay f32 whatever the [`Precision`](crate::precision::Precision) of the computation.

mod ema;
mod gradients;
mod scaler;
mod update;

pub use ema::Ema;
pub use gradients::{IntoParameterGradients, ParameterGradients};
pub use scaler::LossScaler;

use burn::tensor::{DType, Device, Tensor, TensorData};
use stunet_model::{ModelError, ParameterSpec, StuNet, StuNetConfig};

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
    /// Velocities, flat, in the order of the parameters; none before the first gradient.
    velocities: Vec<Option<Tensor<1>>>,
}

impl Sgd {
    /// An optimiser at rest.
    pub fn new(config: SgdConfig, network: &StuNetConfig) -> Self {
        let specs = network.parameter_specs();
        let velocities = vec![None; specs.len()];
        Self { config, specs, velocities }
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
        let grad_norm = gradients.norm() * unscale;
        if !grad_norm.is_finite() {
            return (network, StepReport { grad_norm, skipped: true });
        }
        let clip = match self.config.max_norm {
            Some(max_norm) => (max_norm / (grad_norm + 1e-6)).min(1.0),
            None => 1.0,
        };
        let step = update::Step { config: self.config, gradient_factor: clip * unscale, lr };
        let network = update::apply(network, gradients, &mut self.velocities, &step);
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

#[cfg(test)]
mod tests;
