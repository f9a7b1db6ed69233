//! The gradients of a network, in the order of its parameters.

use crate::host::is_host;
use burn::tensor::{DType, Gradients, Tensor, TensorData};
use rayon::prelude::*;
use stunet_model::{ParameterRef, ParameterSpec, StuNet, sum_of_squares};

/// Values summed by one task: always the same cuts, so that sums do not depend on the threads.
const BLOCK: usize = 1 << 14;

/// One gradient per parameter, in the order of
/// [`StuNetConfig::parameter_specs`](stunet_model::StuNetConfig::parameter_specs), then one per low-rank
/// factor ([`StuNet::factor_specs`]); none where no loss reaches the parameter, or it is frozen.
#[derive(Clone, Debug)]
pub struct ParameterGradients {
    /// Flat and without autodiff, each with the first axis of its parameter's shape.
    gradients: Vec<Option<(Tensor<1>, usize)>>,
}

/// Whatever holds the gradients of a network's parameters.
pub trait IntoParameterGradients {
    /// The gradients in the order of the parameters.
    fn into_parameter_gradients(self, network: &StuNet) -> ParameterGradients;
}

impl IntoParameterGradients for ParameterGradients {
    fn into_parameter_gradients(self, _network: &StuNet) -> ParameterGradients {
        self
    }
}

/// Takes the gradients out, so that nothing else holds them.
impl IntoParameterGradients for Gradients {
    fn into_parameter_gradients(mut self, network: &StuNet) -> ParameterGradients {
        ParameterGradients::collect(network, |parameter| match parameter {
            ParameterRef::Vector(p) => p.val().grad_remove(&mut self),
            ParameterRef::Kernel(p) => p.val().grad_remove(&mut self).map(|g| g.flatten(0, 4)),
        })
    }
}

impl IntoParameterGradients for &Gradients {
    fn into_parameter_gradients(self, network: &StuNet) -> ParameterGradients {
        ParameterGradients::collect(network, |parameter| match parameter {
            ParameterRef::Vector(p) => p.val().grad(self),
            ParameterRef::Kernel(p) => p.val().grad(self).map(|g| g.flatten(0, 4)),
        })
    }
}

impl ParameterGradients {
    fn collect(
        network: &StuNet,
        mut gradient: impl FnMut(ParameterRef<'_>) -> Option<Tensor<1>>,
    ) -> Self {
        let mut gradients = Vec::new();
        let mut take = |spec: &ParameterSpec, parameter: ParameterRef<'_>| {
            gradients.push(gradient(parameter).map(|g| (g, spec.shape[0])));
        };
        network.for_each_parameter(&mut take);
        network.for_each_factor(&mut take);
        Self { gradients }
    }

    /// Gradients as they are listed, each with the first axis of its parameter's shape.
    #[cfg(test)]
    pub(super) fn from_list(gradients: Vec<Option<(Tensor<1>, usize)>>) -> Self {
        Self { gradients }
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.gradients.len()
    }

    /// True for a network without parameters.
    pub fn is_empty(&self) -> bool {
        self.gradients.is_empty()
    }

    /// True where no loss reaches any parameter.
    pub fn all_missing(&self) -> bool {
        self.gradients.iter().all(Option::is_none)
    }

    /// The values of one gradient, flat; none where no loss reaches the parameter.
    pub fn values(&self, index: usize) -> Option<TensorData> {
        self.gradients[index].as_ref().map(|(g, _)| g.to_data())
    }

    /// Every gradient put through `f`, such as a transfer to a device or a reduction over devices.
    #[must_use]
    pub fn map(self, mut f: impl FnMut(Tensor<1>) -> Tensor<1>) -> Self {
        let gradients = self.gradients.into_iter().map(|g| g.map(|(g, rows)| (f(g), rows)));
        Self { gradients: gradients.collect() }
    }

    /// The global L2 norm; not finite when any gradient is.
    ///
    /// # Source
    /// `torch.nn.utils.clip_grad_norm_`, here summed in f64 from f32 sums over some thousand values
    /// each, or over one output channel where Burn's operators compute.
    pub fn norm(&self) -> f64 {
        let present = || self.gradients.iter().flatten();
        let Some((first, _)) = present().next() else { return 0.0 };
        let squares: f64 = if is_host(&first.device()) {
            present().map(|(g, _)| host_squares(&g.to_data())).sum()
        } else {
            let tensors: Vec<_> = present().map(|(g, _)| g.clone()).collect();
            sum_of_squares(&tensors).unwrap_or_else(|| {
                let rows = present().map(|(g, rows)| row_squares(g.clone(), *rows)).collect();
                // One tensor, one wait for the device.
                stunet_model::read(Tensor::cat(rows, 0)).iter::<f64>().sum()
            })
        };
        squares.sqrt()
    }

    /// The same of gradients that are given away and come back: on the host nothing is copied.
    pub(super) fn with_norm(self) -> (Self, f64) {
        let on_host = self.gradients.iter().flatten().all(|(g, _)| is_host(&g.device()));
        if !on_host {
            let norm = self.norm();
            return (self, norm);
        }
        let mut squares = 0.0;
        let gradients = self.map(|gradient| {
            let (device, dtype) = (gradient.device(), gradient.dtype());
            let data = gradient.into_data();
            squares += host_squares(&data);
            Tensor::from_data(data, (&device, dtype))
        });
        (gradients, squares.sqrt())
    }

    pub(super) fn into_tensors(self) -> impl Iterator<Item = Option<Tensor<1>>> {
        self.gradients.into_iter().map(|g| g.map(|(g, _)| g))
    }
}

fn row_squares(gradient: Tensor<1>, rows: usize) -> Tensor<1> {
    let gradient = match gradient.dtype() {
        DType::F16 | DType::BF16 => gradient.cast(DType::F32),
        _ => gradient,
    };
    let [len] = gradient.dims();
    gradient.square().reshape([rows, len / rows]).sum_dim(1).reshape([rows])
}

fn host_squares(data: &TensorData) -> f64 {
    let square = |v: f64| v * v;
    match data.as_slice::<f32>() {
        Ok(values) => sum_blocks(values, |v| square(f64::from(v))),
        Err(_) => data.iter::<f64>().map(square).sum(),
    }
}

fn sum_blocks(values: &[f32], term: impl Fn(f32) -> f64 + Sync) -> f64 {
    let blocks: Vec<f64> = values
        .par_chunks(BLOCK)
        .map(|block| {
            let mut lanes = [0f64; 8];
            for part in block.chunks(8) {
                part.iter().zip(&mut lanes).for_each(|(&v, lane)| *lane += term(v));
            }
            lanes.iter().sum()
        })
        .collect();
    blocks.iter().sum()
}

/// Adds the gradients of another micro-batch: for the mean of `k`, compute each with `1 / k`
/// ([`Loss::backward_scaled`](crate::loss::Loss::backward_scaled)).
///
/// # Panics
/// When they are of another network.
impl std::ops::Add for ParameterGradients {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        assert_eq!(self.len(), other.len(), "gradients of another network");
        let sum = |(a, b)| match (a, b) {
            (Some((a, rows)), Some((b, _))) => Some((a + b, rows)),
            (a, b) => a.or(b),
        };
        Self { gradients: self.gradients.into_iter().zip(other.gradients).map(sum).collect() }
    }
}
