//! The operators on Flex's tensors.

use super::conv::{self, Shape, voxels};
use super::norm::{self, Parameters, Statistics};
use super::simd::Isa;
use super::tensor::{dims, finish, is_whole, own, tensor, values};
use super::{interleave, upsample};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

/// What this crate adds to a backend. Tensors are `[N, C, Z, Y, X]`, all `f32`.
#[backend_extension(Autodiff, Flex)]
pub(crate) trait CpuOps: Backend {
    /// Convolution with a kernel of 3 or 1 voxels along each axis.
    fn stunet_conv3d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: [usize; 3],
    ) -> FloatTensor<Self>;

    /// [`stunet_conv3d`](Self::stunet_conv3d) of two tensors concatenated along the channels.
    fn stunet_conv3d_joined(
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        stride: [usize; 3],
    ) -> FloatTensor<Self>;

    /// Instance norm and activation; a slope of 1 is none. The slope is positive.
    fn stunet_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
        slope: f64,
    ) -> FloatTensor<Self>;

    /// Instance norm, sum with a residual and activation. The slope is positive.
    fn stunet_norm_residual(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        epsilon: f64,
        slope: f64,
    ) -> FloatTensor<Self>;

    /// Repetition of voxels by whole factors.
    fn stunet_upsample(x: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;

    /// As many channels as a block has voxels become one channel of blocks.
    fn stunet_interleave(x: FloatTensor<Self>, factor: [usize; 3]) -> FloatTensor<Self>;
}

impl CpuOps for Flex {
    fn stunet_conv3d(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        stride: [usize; 3],
    ) -> FlexTensor {
        convolve(&[&x], &weight, &bias, stride)
    }

    fn stunet_conv3d_joined(
        first: FlexTensor,
        second: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        stride: [usize; 3],
    ) -> FlexTensor {
        match convolve_over(first, &second, &weight, &bias, stride) {
            Ok(output) => output,
            Err(first) => convolve(&[&first, &second], &weight, &bias, stride),
        }
    }

    fn stunet_norm(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        epsilon: f64,
        slope: f64,
    ) -> FlexTensor {
        normalise(x, &NormParameters { weight, bias, epsilon, slope }, None).0
    }

    fn stunet_norm_residual(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        residual: FlexTensor,
        epsilon: f64,
        slope: f64,
    ) -> FlexTensor {
        normalise(x, &NormParameters { weight, bias, epsilon, slope }, Some(&residual)).0
    }

    fn stunet_upsample(x: FlexTensor, factor: [usize; 3]) -> FlexTensor {
        let x = x.to_contiguous();
        let [n, c, z, y, w] = dims(&x);
        let [fz, fy, fx] = factor;
        let output = upsample::upsample(values(&x), [z, y, w], factor);
        finish(output, [n, c, z * fz, y * fy, w * fx])
    }

    fn stunet_interleave(x: FlexTensor, factor: [usize; 3]) -> FlexTensor {
        let x = x.to_contiguous();
        let [n, c, z, y, w] = dims(&x);
        let [fz, fy, fx] = factor;
        let output = interleave::interleave(values(&x), [z, y, w], factor);
        finish(output, [n, c / (fz * fy * fx), z * fz, y * fy, w * fx])
    }
}

/// A convolution's sizes, and whether its kernel is one voxel.
pub(super) fn sizes(
    parts: &[&FlexTensor],
    weight: &FlexTensor,
    stride: [usize; 3],
) -> (Shape, bool) {
    let [batch, _, z, y, x] = dims(parts[0]);
    let [outputs, inputs, kernel, ..] = dims(weight);
    let channels: usize = parts.iter().map(|part| dims(part)[1]).sum();
    assert_eq!(channels, inputs, "channels of the input differ from the kernel's");
    (Shape { batch, inputs, outputs, size: [z, y, x], stride }, kernel == 1)
}

/// The contiguous tensors, with their channels.
pub(super) fn contiguous(parts: &[&FlexTensor]) -> Vec<(FlexTensor, usize)> {
    parts.iter().map(|part| (part.to_contiguous(), dims(part)[1])).collect()
}

pub(super) fn slices(parts: &[(FlexTensor, usize)]) -> Vec<(&[f32], usize)> {
    parts.iter().map(|(part, channels)| (values(part), *channels)).collect()
}

pub(super) fn convolve(
    parts: &[&FlexTensor],
    weight: &FlexTensor,
    bias: &FlexTensor,
    stride: [usize; 3],
) -> FlexTensor {
    let (shape, is_pointwise) = sizes(parts, weight, stride);
    let (parts, weight, bias) = (contiguous(parts), weight.to_contiguous(), bias.to_contiguous());
    let (parts, weight, bias) = (slices(&parts), values(&weight), values(&bias));
    let output = if is_pointwise {
        conv::pointwise(Isa::best(), &shape, &parts, weight, bias)
    } else {
        conv::forward(Isa::best(), &shape, &parts, weight, bias)
    };
    let [z, y, x] = shape.out_size();
    finish(output, [shape.batch, shape.outputs, z, y, x])
}

/// A convolution of single voxels in the memory of its first part, if nobody else holds that and it is
/// as large as the output; else gives the part back.
fn convolve_over(
    mut first: FlexTensor,
    second: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    stride: [usize; 3],
) -> Result<FlexTensor, FlexTensor> {
    let (shape, is_pointwise) = sizes(&[&first, second], weight, stride);
    let fits = stride == [1; 3] && dims(&first)[1] == shape.outputs;
    if !(is_pointwise && fits && is_whole(&first) && conv::can_overwrite(&shape)) {
        return Err(first);
    }
    let (weight, bias) = (weight.to_contiguous(), bias.to_contiguous());
    let (second, channels) = (second.to_contiguous(), dims(second)[1]);
    let Some(over) = first.try_storage_mut::<f32>() else { return Err(first) };
    let (weight, bias, second) = (values(&weight), values(&bias), (values(&second), channels));
    conv::pointwise_over(Isa::best(), &shape, over, second, weight, bias);
    Ok(first)
}

/// The gradient of each part of the input.
pub(super) fn convolve_input_gradient(
    gradient: &FlexTensor,
    parts: &[&FlexTensor],
    weight: &FlexTensor,
    stride: [usize; 3],
) -> Vec<FlexTensor> {
    let (shape, is_pointwise) = sizes(parts, weight, stride);
    let channels: Vec<_> = parts.iter().map(|part| dims(part)[1]).collect();
    let (gradient, weight) = (gradient.to_contiguous(), weight.to_contiguous());
    let (gradient, weight) = (values(&gradient), values(&weight));
    let outputs = if is_pointwise {
        conv::pointwise_input_gradient(Isa::best(), &shape, gradient, weight, &channels)
    } else {
        conv::input_gradient(Isa::best(), &shape, gradient, weight, &channels)
    };
    outputs.into_iter().zip(parts).map(|(output, part)| finish(output, part.shape())).collect()
}

pub(super) fn convolve_weight_gradient(
    gradient: &FlexTensor,
    parts: &[&FlexTensor],
    weight: &FlexTensor,
    stride: [usize; 3],
) -> FlexTensor {
    let (shape, is_pointwise) = sizes(parts, weight, stride);
    let (parts, gradient) = (contiguous(parts), gradient.to_contiguous());
    let (parts, gradient) = (slices(&parts), values(&gradient));
    let output = if is_pointwise {
        conv::pointwise_weight_gradient(&shape, &parts, gradient)
    } else {
        conv::weight_gradient(Isa::best(), &shape, &parts, gradient)
    };
    finish(output, weight.shape())
}

pub(super) fn convolve_bias_gradient(gradient: &FlexTensor) -> FlexTensor {
    let gradient = gradient.to_contiguous();
    let [batch, channels, ..] = dims(&gradient);
    let sums = conv::bias_gradient(Isa::best(), batch, channels, values(&gradient));
    tensor(sums, [channels])
}

/// A norm's parameters and what follows it.
#[derive(Clone, Debug)]
pub(super) struct NormParameters {
    pub weight: FlexTensor,
    pub bias: FlexTensor,
    pub epsilon: f64,
    pub slope: f64,
}

impl NormParameters {
    pub(super) fn with<R>(&self, work: impl FnOnce(Parameters<'_>) -> R) -> R {
        let (weight, bias) = (self.weight.to_contiguous(), self.bias.to_contiguous());
        work(Parameters {
            weight: values(&weight),
            bias: values(&bias),
            epsilon: self.epsilon,
            slope: self.slope as f32,
        })
    }
}

/// The norm with what follows it, in the input's own memory if nobody else holds it.
pub(super) fn normalise(
    x: FlexTensor,
    parameters: &NormParameters,
    residual: Option<&FlexTensor>,
) -> (FlexTensor, Vec<Statistics>) {
    let isa = Isa::best();
    let mut x = own(x);
    let [_, _, z, y, w] = dims(&x);
    let volume = voxels([z, y, w]);
    let residual = residual.map(FlexTensor::to_contiguous);
    let residual = residual.as_ref().map(values);
    let (output, statistics) = parameters.with(|parameters| {
        let statistics = norm::statistics(isa, values(&x), volume, parameters.epsilon);
        let output = match x.try_storage_mut::<f32>() {
            Some(x) => {
                norm::normalise_in_place(isa, x, residual, volume, parameters, &statistics);
                None
            }
            None => {
                Some(norm::normalise(isa, values(&x), residual, volume, parameters, &statistics))
            }
        };
        (output, statistics)
    });
    match output {
        Some(output) => (finish(output, x.shape()), statistics),
        None => (x, statistics),
    }
}
