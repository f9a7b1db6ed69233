//! One step of every parameter; SGD as a fused pass over slices on the host, with operators elsewhere.

use super::{ParameterGradients, SgdConfig, rate_of};
use crate::host::is_host;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use rayon::prelude::*;
use std::collections::HashMap;
use stunet_model::{ParameterRef, ParameterSpec, SgdStep, StuNet, sgd_step};

/// Values updated by one task.
const BLOCK: usize = 1 << 14;

/// What one step multiplies by.
#[derive(Clone, Copy, Debug)]
pub(super) struct UpdateFactors {
    pub config: SgdConfig,
    pub gradient_factor: f64,
    pub lr: f64,
}

/// How one parameter moves.
pub(super) trait Rule {
    /// The parameter of a number, without autodiff, and its gradient, flat.
    fn step<const D: usize>(
        &mut self,
        index: usize,
        parameter: Tensor<D>,
        gradient: Tensor<1>,
    ) -> Tensor<D>;
}

/// Moves every parameter that has a gradient.
pub(super) fn apply(
    network: StuNet,
    gradients: ParameterGradients,
    rule: &mut impl Rule,
) -> StuNet {
    let mut work = HashMap::new();
    let mut gradients = gradients.into_tensors().enumerate();
    let mut meet = |_: &ParameterSpec, parameter: ParameterRef<'_>| {
        let id = match parameter {
            ParameterRef::Vector(p) => p.id,
            ParameterRef::Kernel(p) => p.id,
        };
        let (index, gradient) = gradients.next().expect("as many gradients as parameters");
        if let Some(gradient) = gradient {
            work.insert(id, (index, gradient));
        }
    };
    network.for_each_parameter(&mut meet);
    network.for_each_factor(&mut meet);
    network.map(&mut Mapper { work, rule })
}

struct Mapper<'a, R> {
    work: HashMap<ParamId, (usize, Tensor<1>)>,
    rule: &'a mut R,
}

impl<R: Rule> ModuleMapper for Mapper<'_, R> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((index, gradient)) = self.work.remove(&param.id) else { return param };
        param.map(|parameter| {
            let strategy = parameter.gradient_checkpointing_strategy();
            let tracked = parameter.is_require_grad();
            let mut value = self.rule.step(index, parameter.inner(), gradient);
            if let Some(strategy) = strategy {
                value = value.autodiff().with_gradient_checkpointing_strategy(strategy);
            }
            if tracked { value.require_grad() } else { value }
        })
    }
}

/// Stochastic gradient descent.
pub(super) struct SgdRule<'a> {
    pub velocities: &'a mut [Option<Tensor<1>>],
    pub step: &'a UpdateFactors,
    /// Of the learning rate, by parameter.
    pub factors: Option<&'a [f64]>,
}

impl Rule for SgdRule<'_> {
    fn step<const D: usize>(
        &mut self,
        index: usize,
        parameter: Tensor<D>,
        gradient: Tensor<1>,
    ) -> Tensor<D> {
        let velocity = self.velocities[index].take();
        let shape = parameter.dims();
        let value: Tensor<1> = parameter.flatten(0, D as isize - 1);
        let on_host = is_host(&value.device()) && value.dtype() == DType::F32;
        let step = UpdateFactors { lr: rate_of(self.step.lr, self.factors, index), ..*self.step };
        let (value, velocity) = if on_host {
            on_host_slices(value, gradient, velocity, &step)
        } else {
            with_operators(value, gradient, velocity, &step)
        };
        self.velocities[index] = Some(velocity);
        value.reshape(shape)
    }
}

pub(super) fn with_operators(
    value: Tensor<1>,
    gradient: Tensor<1>,
    velocity: Option<Tensor<1>>,
    step: &UpdateFactors,
) -> (Tensor<1>, Tensor<1>) {
    let SgdConfig { momentum, nesterov, weight_decay, .. } = step.config;
    let UpdateFactors { gradient_factor, lr, .. } = *step;
    let step = SgdStep { gradient_factor, weight_decay, momentum, nesterov, lr };
    sgd_step(value, gradient, velocity, step)
}

/// The same in one pass, in place where nothing else holds the buffers.
pub(super) fn on_host_slices(
    value: Tensor<1>,
    gradient: Tensor<1>,
    velocity: Option<Tensor<1>>,
    step: &UpdateFactors,
) -> (Tensor<1>, Tensor<1>) {
    let device = value.device();
    let [len] = value.dims();
    let gradient = gradient.into_data().convert_dtype(DType::F32);
    let gradient = gradient.as_slice::<f32>().expect("converted above");
    let first = velocity.is_none();
    let mut value = value.into_data();
    let mut velocity = match velocity {
        Some(velocity) => velocity.into_data(),
        None => TensorData::zeros::<f32, _>([len]),
    };
    let SgdConfig { momentum, nesterov, weight_decay, .. } = step.config;
    let [momentum, decay] = [momentum, weight_decay].map(|v| v as f32);
    let [factor, lr] = [step.gradient_factor, step.lr].map(|v| v as f32);
    // The first velocity is the gradient, whatever the momentum.
    let kept = if first { 0.0 } else { momentum };
    let ahead = if nesterov { (1.0, momentum) } else { (0.0, 1.0) };
    let values = value.as_mut_slice::<f32>().expect("f32 as checked by the caller");
    let velocities = velocity.as_mut_slice::<f32>().expect("velocities are f32");
    values
        .par_chunks_mut(BLOCK)
        .zip(velocities.par_chunks_mut(BLOCK))
        .zip(gradient.par_chunks(BLOCK))
        .for_each(|((values, velocities), gradients)| {
            for ((w, v), &g) in values.iter_mut().zip(velocities).zip(gradients) {
                let g = g * factor + decay * *w;
                *v = kept * *v + g;
                *w -= lr * (ahead.0 * g + ahead.1 * *v);
            }
        });
    let tensor = |data| Tensor::from_data(data, (&device, DType::F32));
    (tensor(value), tensor(velocity))
}
