//! The operators on Flex's tensors.

use super::conv::{self, Fused, Shape, voxels};
use super::norm::{self, Normed, Parameters, Statistics};
use super::simd::Isa;
use super::tensor::{
    dims, finish, finish_innermost, innermost, is_whole, moments, of_moments, own, tensor, values,
};
use super::{interleave, kept_weights, upsample};
use crate::kernels::{Kernels, NormGradients, NormParameters};
use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;

impl Kernels for Flex {
    type Statistics = Vec<Statistics>;

    fn conv(
        mut parts: Vec<FlexTensor>,
        weight: FlexTensor,
        bias: FlexTensor,
        stride: [usize; 3],
    ) -> FlexTensor {
        if parts.len() == 2 {
            match convolve_over(parts.swap_remove(0), &parts[0], &weight, &bias, stride) {
                Ok(output) => return output,
                Err(first) => parts.insert(0, first),
            }
        }
        convolve(&parts, &weight, &bias, stride)
    }

    /// Channels lie innermost in the result, where there are whole blocks of them.
    fn conv_measured(
        parts: Vec<FlexTensor>,
        weight: FlexTensor,
        bias: FlexTensor,
        stride: [usize; 3],
    ) -> (FlexTensor, Option<FlexTensor>) {
        let (shape, _) = sizes(&parts, &weight, stride);
        if !conv::fuses(&shape, dims(&weight)[2]) {
            return (Self::conv(parts, weight, bias, stride), None);
        }
        let fused =
            Fused { writes_innermost: conv::can_be_innermost(shape.outputs), ..Fused::default() };
        let parts = contiguous(&parts);
        let (output, moments) = convolve_fused(&shape, &slices(&parts), [&weight, &bias], fused);
        (output, Some(moments))
    }

    /// Voxels are repeated while they are read.
    fn conv_upsampled(
        [coarse, second]: [FlexTensor; 2],
        factor: [usize; 3],
        [weight, bias]: [FlexTensor; 2],
        measured: bool,
    ) -> (FlexTensor, Option<FlexTensor>) {
        let ([n, coarse_channels, z, y, x], [outputs, inputs, kernel, ..]) =
            (dims(&coarse), dims(&weight));
        let size = [z * factor[0], y * factor[1], x * factor[2]];
        let shape = Shape { batch: n, inputs, outputs, size, stride: [1; 3] };
        let fits = conv::can_repeat(&shape, factor, coarse_channels);
        if kernel == 1 && !measured {
            let output = convolve_repeated(&shape, (coarse, factor), second, [&weight, &bias]);
            return (output, None);
        }
        let parts = contiguous(&[coarse, second]);
        if measured && fits && conv::fuses(&shape, kernel) {
            let fused = Fused {
                repeats: Some(factor),
                writes_innermost: conv::can_be_innermost(outputs),
                ..Fused::default()
            };
            let (output, found) = convolve_fused(&shape, &slices(&parts), [&weight, &bias], fused);
            return (output, Some(found));
        }
        let [(coarse, _), (second, _)] = <[_; 2]>::try_from(parts).expect("two parts");
        let parts = vec![Self::upsample(coarse, factor), second];
        match measured {
            true => Self::conv_measured(parts, weight, bias, [1; 3]),
            false => (Self::conv(parts, weight, bias, [1; 3]), None),
        }
    }

    /// The norm is applied to what the convolution reads.
    fn conv_normed(
        x: FlexTensor,
        found: Option<FlexTensor>,
        norm: &NormParameters<FlexTensor>,
        [weight, bias]: [FlexTensor; 2],
        stride: [usize; 3],
    ) -> (FlexTensor, Option<FlexTensor>) {
        let (shape, _) = sizes(std::slice::from_ref(&x), &weight, stride);
        if norm.slope > 1.0 || !conv::fuses(&shape, dims(&weight)[2]) {
            let (x, _) = Self::norm(x, found, norm, None);
            return Self::conv_measured(vec![x], weight, bias, stride);
        }
        // Without moments they are summed over planes: anybody may have permuted a tensor so.
        let is_innermost =
            found.is_some() && innermost(&x).is_some() && conv::can_be_innermost(shape.inputs);
        let x = if is_innermost { x } else { x.to_contiguous() };
        let of = innermost(&x).filter(|_| is_innermost).unwrap_or_else(|| values(&x));
        let volume = voxels(shape.size);
        let normed = with(norm, |parameters| {
            let statistics = match &found {
                Some(found) => of_sums(found, volume, parameters.epsilon),
                None => norm::statistics(Isa::best(), values(&x), volume, parameters.epsilon),
            };
            Normed::new(parameters, &statistics)
        });
        let fused =
            Fused { reads_innermost: is_innermost, normed: Some(&normed), ..Fused::default() };
        let (output, moments) =
            convolve_fused(&shape, &[(of, shape.inputs)], [&weight, &bias], fused);
        (output, Some(moments))
    }

    /// The gradient of each part of the input.
    fn conv_input_gradient(
        gradient: &FlexTensor,
        parts: &[FlexTensor],
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

    fn conv_weight_gradient(
        gradient: &FlexTensor,
        parts: &[FlexTensor],
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

    fn conv_bias_gradient(gradient: &FlexTensor) -> FlexTensor {
        let gradient = gradient.to_contiguous();
        let [batch, channels, ..] = dims(&gradient);
        let sums = conv::bias_gradient(Isa::best(), batch, channels, values(&gradient));
        tensor(sums, [channels])
    }

    fn norm(
        x: FlexTensor,
        found: Option<FlexTensor>,
        parameters: &NormParameters<FlexTensor>,
        residual: Option<FlexTensor>,
    ) -> (FlexTensor, Vec<Statistics>) {
        normalise(x, found.as_ref(), parameters, residual.as_ref())
    }

    fn norm_gradients(
        gradient: FlexTensor,
        x: FlexTensor,
        output: Option<FlexTensor>,
        parameters: &NormParameters<FlexTensor>,
        statistics: &Vec<Statistics>,
    ) -> NormGradients<FlexTensor> {
        let (mut gradient, x) = (own(gradient), x.to_contiguous());
        let [_, _, z, y, w] = dims(&x);
        let output = output.as_ref().map(FlexTensor::to_contiguous);
        let found = with(parameters, |parameters| {
            norm::backward(
                Isa::best(),
                values(&x),
                output.as_ref().map(values),
                gradient.storage_mut::<f32>(),
                voxels([z, y, w]),
                parameters,
                statistics,
            )
        });
        let channels = found.weight.len();
        NormGradients {
            x: finish(found.x, x.shape()),
            weight: tensor(found.weight, [channels]),
            bias: tensor(found.bias, [channels]),
            residual: output.map(|_| gradient),
        }
    }

    fn upsample(x: FlexTensor, factor: [usize; 3]) -> FlexTensor {
        let x = x.to_contiguous();
        let [n, c, z, y, w] = dims(&x);
        let [fz, fy, fx] = factor;
        let output = upsample::upsample(values(&x), [z, y, w], factor);
        finish(output, [n, c, z * fz, y * fy, w * fx])
    }

    fn upsample_gradient(gradient: FlexTensor, factor: [usize; 3]) -> FlexTensor {
        let gradient = gradient.to_contiguous();
        let [n, c, z, y, w] = dims(&gradient);
        let [fz, fy, fx] = factor;
        let size = [z / fz, y / fy, w / fx];
        let found = upsample::gradient(values(&gradient), size, factor);
        finish(found, [n, c, size[0], size[1], size[2]])
    }

    fn scaled(gradient: FlexTensor, by: FlexTensor) -> FlexTensor {
        let factor = values(&by.to_contiguous())[0];
        if factor == 1.0 {
            return gradient;
        }
        let gradient = gradient.to_contiguous();
        finish(upsample::scaled(values(&gradient), factor), gradient.shape())
    }

    fn interleave(x: FlexTensor, factor: [usize; 3]) -> FlexTensor {
        let x = x.to_contiguous();
        let [n, c, z, y, w] = dims(&x);
        let [fz, fy, fx] = factor;
        let output = interleave::interleave(values(&x), [z, y, w], factor);
        finish(output, [n, c / (fz * fy * fx), z * fz, y * fy, w * fx])
    }

    fn separate(x: FlexTensor, factor: [usize; 3]) -> FlexTensor {
        let x = x.to_contiguous();
        let [n, c, z, y, w] = dims(&x);
        let [fz, fy, fx] = factor;
        let size = [z / fz, y / fy, w / fx];
        let found = interleave::separate(values(&x), size, factor);
        finish(found, [n, c * fz * fy * fx, size[0], size[1], size[2]])
    }
}

/// A convolution's sizes, and whether its kernel is one voxel.
fn sizes(parts: &[FlexTensor], weight: &FlexTensor, stride: [usize; 3]) -> (Shape, bool) {
    let [batch, _, z, y, x] = dims(&parts[0]);
    let [outputs, inputs, kernel, ..] = dims(weight);
    let channels: usize = parts.iter().map(|part| dims(part)[1]).sum();
    assert_eq!(channels, inputs, "channels of the input differ from the kernel's");
    (Shape { batch, inputs, outputs, size: [z, y, x], stride }, kernel == 1)
}

/// The contiguous tensors, with their channels.
fn contiguous(parts: &[FlexTensor]) -> Vec<(FlexTensor, usize)> {
    parts.iter().map(|part| (part.to_contiguous(), dims(part)[1])).collect()
}

fn slices(parts: &[(FlexTensor, usize)]) -> Vec<(&[f32], usize)> {
    parts.iter().map(|(part, channels)| (values(part), *channels)).collect()
}

fn convolve(
    parts: &[FlexTensor],
    weight: &FlexTensor,
    bias: &FlexTensor,
    stride: [usize; 3],
) -> FlexTensor {
    let (shape, is_pointwise) = sizes(parts, weight, stride);
    let (parts, weight, bias) = (contiguous(parts), weight.to_contiguous(), bias.to_contiguous());
    let kept = if is_pointwise { None } else { kept_weights::of(&weight) };
    let (parts, weight, bias) = (slices(&parts), values(&weight), values(&bias));
    let output = if is_pointwise {
        conv::pointwise(Isa::best(), &shape, &parts, weight, bias)
    } else {
        conv::forward(Isa::best(), &shape, &parts, (weight, kept.as_ref()), bias)
    };
    let [z, y, x] = shape.out_size();
    finish(output, [shape.batch, shape.outputs, z, y, x])
}

/// A convolution with what else it does, and the moments of its output.
fn convolve_fused(
    shape: &Shape,
    parts: &[(&[f32], usize)],
    [weight, bias]: [&FlexTensor; 2],
    fused: Fused<'_>,
) -> (FlexTensor, FlexTensor) {
    let (weight, bias) = (weight.to_contiguous(), bias.to_contiguous());
    let kept = kept_weights::of(&weight);
    let (weight, bias) = ((values(&weight), kept.as_ref()), values(&bias));
    let (output, sums) = conv::forward_fused(Isa::best(), shape, parts, weight, bias, fused);
    let ([z, y, x], Shape { batch, outputs, .. }) = (shape.out_size(), *shape);
    let dims = [batch, outputs, z, y, x];
    let output = match fused.writes_innermost {
        true => finish_innermost(output, dims),
        false => finish(output, dims),
    };
    (output, of_moments(sums, [batch, outputs]))
}

/// A convolution of single voxels in the memory of its first part, if nobody else holds that and it is
/// as large as the output; else gives the part back.
fn convolve_over(
    first: FlexTensor,
    second: &FlexTensor,
    weight: &FlexTensor,
    bias: &FlexTensor,
    stride: [usize; 3],
) -> Result<FlexTensor, FlexTensor> {
    let parts = [first, second.clone()];
    let (shape, is_pointwise) = sizes(&parts, weight, stride);
    let [mut first, second] = parts;
    let fits = stride == [1; 3] && dims(&first)[1] == shape.outputs;
    if !(is_pointwise && fits && is_whole(&first) && conv::can_overwrite(&shape)) {
        return Err(first);
    }
    let (weight, bias) = (weight.to_contiguous(), bias.to_contiguous());
    let (second, channels) = (second.to_contiguous(), dims(&second)[1]);
    let Some(over) = first.try_storage_mut::<f32>() else { return Err(first) };
    let (weight, bias, second) = (values(&weight), values(&bias), (values(&second), channels));
    conv::pointwise_over(Isa::best(), &shape, over, second, weight, bias);
    Ok(first)
}

/// A convolution of single voxels, of which those of the first part are repeated; in the memory of the second part, if
/// nobody else holds that and it is as large as the output.
fn convolve_repeated(
    shape: &Shape,
    (coarse, factor): (FlexTensor, [usize; 3]),
    second: FlexTensor,
    [weight, bias]: [&FlexTensor; 2],
) -> FlexTensor {
    let isa = Isa::best();
    let (weight, bias) = (weight.to_contiguous(), bias.to_contiguous());
    let (weight, bias) = (values(&weight), values(&bias));
    let (coarse, coarse_channels) = (coarse.to_contiguous(), dims(&coarse)[1]);
    let first = (values(&coarse), coarse_channels);
    let channels = dims(&second)[1];
    let mut second = if is_whole(&second) { second } else { second.to_contiguous() };
    let fits = channels == shape.outputs && is_whole(&second) && conv::can_overwrite(shape);
    if fits && let Some(over) = second.try_storage_mut::<f32>() {
        conv::pointwise_over_repeated(isa, shape, (first, factor), over, weight, bias);
        return second;
    }
    let parts = [first, (values(&second), channels)];
    let output = conv::pointwise_repeated(isa, shape, (&parts, factor), weight, bias);
    let [z, y, x] = shape.size;
    finish(output, [shape.batch, shape.outputs, z, y, x])
}

fn with<R>(parameters: &NormParameters<FlexTensor>, work: impl FnOnce(Parameters<'_>) -> R) -> R {
    let (weight, bias) = (parameters.weight.to_contiguous(), parameters.bias.to_contiguous());
    work(Parameters {
        weight: values(&weight),
        bias: values(&bias),
        epsilon: parameters.epsilon,
        slope: parameters.slope as f32,
    })
}

/// Statistics of every channel of every sample, from its sums.
fn of_sums(found: &FlexTensor, volume: usize, epsilon: f64) -> Vec<Statistics> {
    moments(found).iter().map(|sums| Statistics::of(*sums, volume, epsilon)).collect()
}

/// The norm with what follows it, in the input's own memory if nobody else holds it. The result is planes.
fn normalise(
    x: FlexTensor,
    found: Option<&FlexTensor>,
    parameters: &NormParameters<FlexTensor>,
    residual: Option<&FlexTensor>,
) -> (FlexTensor, Vec<Statistics>) {
    if let (Some(found), Some(values)) = (found, innermost(&x)) {
        return normalise_innermost(values, dims(&x), found, parameters, residual);
    }
    let isa = Isa::best();
    let mut x = own(x);
    let [_, _, z, y, w] = dims(&x);
    let volume = voxels([z, y, w]);
    let residual = residual.map(FlexTensor::to_contiguous);
    let residual = residual.as_ref().map(values);
    let (output, statistics) = with(parameters, |parameters| {
        let statistics = match found {
            Some(found) => of_sums(found, volume, parameters.epsilon),
            None => norm::statistics(isa, values(&x), volume, parameters.epsilon),
        };
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

/// [`normalise`] of values whose channels lie innermost.
fn normalise_innermost(
    x: &[f32],
    dims: [usize; 5],
    found: &FlexTensor,
    parameters: &NormParameters<FlexTensor>,
    residual: Option<&FlexTensor>,
) -> (FlexTensor, Vec<Statistics>) {
    let volume = voxels([dims[2], dims[3], dims[4]]);
    let residual = residual.map(FlexTensor::to_contiguous);
    let residual = residual.as_ref().map(values);
    with(parameters, |parameters| {
        let statistics = of_sums(found, volume, parameters.epsilon);
        let (isa, of) = (Isa::best(), &statistics);
        let output = norm::normalise_to_planes(isa, x, residual, volume, parameters, of);
        (finish(output, dims), statistics)
    })
}
