use super::SgdStep;
use burn::tensor::Tensor;

/// A step of Burn's operators.
pub fn sgd_step(
    value: Tensor<1>,
    gradient: Tensor<1>,
    velocity: Option<Tensor<1>>,
    step: SgdStep,
) -> (Tensor<1>, Tensor<1>) {
    let SgdStep { gradient_factor, weight_decay, momentum, nesterov, lr } = step;
    let gradient = gradient.cast(value.dtype()) * gradient_factor;
    let gradient = gradient + value.clone() * weight_decay;
    let velocity = match velocity {
        Some(velocity) => velocity * momentum + gradient.clone(),
        None => gradient.clone(),
    };
    let direction =
        if nesterov { gradient + velocity.clone() * momentum } else { velocity.clone() };
    (value - direction * lr, velocity)
}
