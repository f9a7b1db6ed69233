//! A moving average of the weights.

use crate::host::is_host;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;
use std::collections::HashMap;
use stunet_model::{ParameterRef, StuNet};

/// An exponential moving average of a network's parameters: `a = decay * a + (1 - decay) * w`.
#[derive(Clone, Debug)]
pub struct Ema {
    decay: f64,
    average: StuNet,
}

impl Ema {
    /// An average that begins at the network.
    ///
    /// # Panics
    /// When `decay` is not in `[0, 1)`.
    pub fn new(decay: f64, network: &StuNet) -> Self {
        assert!((0.0..1.0).contains(&decay), "a decay in [0, 1), found {decay}");
        Self { decay, average: network.valid() }
    }

    /// Share of the average that stays.
    pub fn decay(&self) -> f64 {
        self.decay
    }

    /// Takes in the network after a step.
    pub fn update(&mut self, network: &StuNet) {
        let mut vectors = HashMap::new();
        let mut kernels = HashMap::new();
        let mut current = Vec::new();
        network.for_each_parameter(&mut |_, parameter| match parameter {
            ParameterRef::Vector(p) => current.push(p.val().inner()),
            ParameterRef::Kernel(p) => current.push(p.val().inner().flatten(0, 4)),
        });
        let mut current = current.into_iter();
        self.average.for_each_parameter(&mut |_, parameter| {
            let value = current.next().expect("a network of the same configuration");
            match parameter {
                ParameterRef::Vector(p) => vectors.insert(p.id, value),
                ParameterRef::Kernel(p) => kernels.insert(p.id, value),
            };
        });
        vectors.extend(kernels);
        let mut mapper = Towards { current: vectors, rate: 1.0 - self.decay };
        // `map` consumes: nothing else holds the average then, and it is worked on in place.
        let placeholder = self.average.clone();
        self.average = std::mem::replace(&mut self.average, placeholder).map(&mut mapper);
    }

    /// The average, for inference.
    pub fn network(&self) -> &StuNet {
        &self.average
    }
}

struct Towards {
    current: HashMap<ParamId, Tensor<1>>,
    rate: f64,
}

impl ModuleMapper for Towards {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(current) = self.current.remove(&param.id) else { return param };
        param.map(|average| {
            let shape = average.dims();
            let average: Tensor<1> = average.flatten(0, D as isize - 1);
            towards(average, current, self.rate).reshape(shape)
        })
    }
}

/// `average + rate * (current - average)`: stays put exactly where the two are equal.
fn towards(average: Tensor<1>, current: Tensor<1>, rate: f64) -> Tensor<1> {
    let device = average.device();
    if !is_host(&device) || average.dtype() != DType::F32 {
        return average.clone() + (current - average) * rate;
    }
    let (mut average, current) = (average.into_data(), current.into_data());
    let averages = average.as_mut_slice::<f32>().expect("f32 as checked above");
    let currents = current.as_slice::<f32>().expect("of the average's type");
    averages.par_iter_mut().zip(currents).with_min_len(1 << 14).for_each(|(a, &w)| {
        *a += rate as f32 * (w - *a);
    });
    Tensor::from_data(average, (&device, DType::F32))
}
