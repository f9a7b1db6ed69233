//! A step of every value in one pass.

use super::launch::{Kernel, contiguous, elem, elements, empty};
use crate::SgdStep;
use crate::operators::Maybe;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Values and velocities lie beside each other in no order that Burn knows: a step has no gradient.
#[backend_extension(Cube: cfg(not(feature = "fusion")))]
trait Steps: Backend {
    /// The values and the velocities after a step.
    fn stunet_sgd(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        #[extension_type] velocity: Maybe<Self>,
        step: SgdStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl Steps for CubeBackend {
    fn stunet_sgd(
        value: CubeTensor,
        gradient: CubeTensor,
        velocity: Maybe<Self>,
        step: SgdStep,
    ) -> (CubeTensor, CubeTensor) {
        run(contiguous(value), contiguous(gradient), velocity.into_option().map(contiguous), step)
    }
}

/// Whether the step is one of these operators'.
pub(crate) fn steps(value: &Tensor<1>, gradient: &Tensor<1>, velocity: Option<&Tensor<1>>) -> bool {
    let is_own =
        |x: &Tensor<1>| super::computes_on(&x.device()) && super::takes(&x.device(), x.dtype());
    let is_single = |x: &Tensor<1>| is_own(x) && x.dtype() == DType::F32;
    let [len] = value.dims();
    let tracked = [Some(value), Some(gradient), velocity].into_iter().flatten();
    len > 0
        && is_single(value)
        && is_own(gradient)
        && velocity.is_none_or(is_single)
        && tracked.into_iter().all(|x| x.dims() == [len] && !x.device().is_autodiff())
}

/// A step of tensors that [`steps`] accepted.
pub(crate) fn sgd_step(
    value: Tensor<1>,
    gradient: Tensor<1>,
    velocity: Option<Tensor<1>>,
    step: SgdStep,
) -> (Tensor<1>, Tensor<1>) {
    let (value, gradient) = (value.into_dispatch(), gradient.into_dispatch());
    let velocity = Maybe::of(velocity.map(Tensor::into_dispatch));
    let (value, velocity) = Dispatch::stunet_sgd(value, gradient, velocity, step);
    (Tensor::from_dispatch(value), Tensor::from_dispatch(velocity))
}

/// What a step multiplies by.
#[derive(CubeLaunch, CubeType)]
struct Factors {
    gradient: f32,
    decay: f32,
    momentum: f32,
    lr: f32,
    /// Of the gradient and of the velocity, in the direction.
    ahead: f32,
    behind: f32,
}

#[cube(launch_unchecked)]
fn sgd<G: Float>(
    value: &[f32],
    gradient: &[G],
    velocity: ComptimeOption<&[f32]>,
    new_value: &mut [f32],
    new_velocity: &mut [f32],
    factors: Factors,
    values: usize,
    #[define(G)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index >= values {
        terminate!();
    }
    let w = value[index];
    let g = f32::cast_from(gradient[index]) * factors.gradient + w * factors.decay;
    let mut v = g;
    #[comptime]
    match velocity {
        ComptimeOption::Some(velocity) => v = velocity[index] * factors.momentum + g,
        ComptimeOption::None => {}
    }
    new_velocity[index] = v;
    new_value[index] = w - (g * factors.ahead + v * factors.behind) * factors.lr;
}

fn run(
    value: CubeTensor,
    gradient: CubeTensor,
    velocity: Option<CubeTensor>,
    step: SgdStep,
) -> (CubeTensor, CubeTensor) {
    let values = elements(&value);
    let (new_value, new_velocity) = (empty(&value, [values]), empty(&value, [values]));
    let mut read = vec![&value, &gradient];
    read.extend(&velocity);
    let kernel = Kernel::new("sgd").reads(&read).writes(&[&new_value, &new_velocity]);
    kernel.each(values, |count, dim| {
        let arg = |x: &CubeTensor| x.clone().into_buffer_arg();
        let (ahead, behind) = if step.nesterov { (1.0, step.momentum) } else { (0.0, 1.0) };
        let [gradient_factor, decay, momentum, lr, ahead, behind] =
            [step.gradient_factor, step.weight_decay, step.momentum, step.lr, ahead, behind]
                .map(|factor| factor as f32);
        let factors = FactorsLaunch::new(gradient_factor, decay, momentum, lr, ahead, behind);
        // SAFETY: all tensors have `values` values, below which the index stays.
        unsafe {
            sgd::launch_unchecked(
                &value.client,
                count,
                dim,
                arg(&value),
                arg(&gradient),
                velocity.as_ref().map(arg).into(),
                arg(&new_value),
                arg(&new_velocity),
                factors,
                values,
                elem(&gradient),
            );
        }
    });
    (new_value, new_velocity)
}
