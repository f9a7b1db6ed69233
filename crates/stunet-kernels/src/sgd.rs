//! A step of stochastic gradient descent.

pub(crate) mod reference;

use burn::tensor::Tensor;

/// What a step of stochastic gradient descent multiplies by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// The gradient: undoes the scaling of a loss, clips.
    pub gradient_factor: f64,
    /// The value, added to the gradient.
    pub weight_decay: f64,
    /// The velocity of the step before.
    pub momentum: f64,
    /// Whether the momentum is looked ahead.
    pub nesterov: bool,
    /// The learning rate.
    pub lr: f64,
}

/// Moves values against their gradient: the values and the velocity after the step.
///
/// On GPUs it is one pass over memory, for values and velocities in single precision.
///
/// # Shapes
/// All of one length. Without a velocity the gradient is the first one.
///
/// # Source
/// `torch.optim.SGD` without dampening.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use stunet_kernels::{SgdStep, sgd_step};
/// let device = Device::flex();
/// let step = SgdStep {
///     gradient_factor: 1.0, weight_decay: 0.0, momentum: 0.9, nesterov: false, lr: 0.5,
/// };
/// let value = Tensor::<1>::from_data([1.0f32], &device);
/// let gradient = Tensor::<1>::from_data([2.0f32], &device);
/// let (value, velocity) = sgd_step(value, gradient, None, step);
/// assert_eq!(value.into_data().try_to_vec::<f32>().unwrap(), [0.0]);
/// assert_eq!(velocity.into_data().try_to_vec::<f32>().unwrap(), [2.0]);
/// ```
pub fn sgd_step(
    value: Tensor<1>,
    gradient: Tensor<1>,
    velocity: Option<Tensor<1>>,
    step: SgdStep,
) -> (Tensor<1>, Tensor<1>) {
    #[cfg(feature = "gpu")]
    if crate::gpu::steps(&value, &gradient, velocity.as_ref()) {
        return crate::gpu::sgd_step(value, gradient, velocity, step);
    }
    reference::sgd_step(value, gradient, velocity, step)
}
