//! The backward passes.
//!
//! States hold tensors, not recomputations: a convolution keeps its input, a norm its input with the
//! statistics, and its output only where a residual went in.

use super::norm::{self, Statistics};
use super::operators::{
    CpuOps, NormParameters, convolve, convolve_bias_gradient, convolve_input_gradient,
    convolve_weight_gradient, normalise,
};
use super::simd::Isa;
use super::tensor::{dims, finish, own, tensor, values};
use super::{interleave, upsample};
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex, TensorMetadata};
use burn_flex::FlexTensor;

type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

impl<C: CheckpointStrategy> CpuOps for Autodiff<Flex, C> {
    fn stunet_conv3d(
        x: Tracked<C>,
        weight: Tracked<C>,
        bias: Tracked<C>,
        stride: [usize; 3],
    ) -> Tracked<C> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let output = convolve(&[&x], &weight, &bias, stride);
        let prepared = ConvBackward.prepare::<C>([x_node, weight_node, bias_node]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish(ConvState { parts: vec![x], weight, stride }, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn stunet_conv3d_joined(
        first: Tracked<C>,
        second: Tracked<C>,
        weight: Tracked<C>,
        bias: Tracked<C>,
        stride: [usize; 3],
    ) -> Tracked<C> {
        let ((first, first_node), (second, second_node)) =
            (first.into_parts(), second.into_parts());
        let ((weight, weight_node), (bias, bias_node)) = (weight.into_parts(), bias.into_parts());
        let output = convolve(&[&first, &second], &weight, &bias, stride);
        let nodes = [first_node, second_node, weight_node, bias_node];
        match ConvBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish(ConvState { parts: vec![first, second], weight, stride }, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn stunet_norm(
        x: Tracked<C>,
        weight: Tracked<C>,
        bias: Tracked<C>,
        epsilon: f64,
        slope: f64,
    ) -> Tracked<C> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let parameters = NormParameters { weight, bias, epsilon, slope };
        let prepared = NormBackward.prepare::<C>([x_node, weight_node, bias_node]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (output, statistics) = normalise(x.clone(), &parameters, None);
                let state = NormState { x, output: None, parameters, statistics };
                prepared.finish(state, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(normalise(x, &parameters, None).0),
        }
    }

    fn stunet_norm_residual(
        x: Tracked<C>,
        weight: Tracked<C>,
        bias: Tracked<C>,
        residual: Tracked<C>,
        epsilon: f64,
        slope: f64,
    ) -> Tracked<C> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let (residual, residual_node) = residual.into_parts();
        let parameters = NormParameters { weight, bias, epsilon, slope };
        let nodes = [x_node, weight_node, bias_node, residual_node];
        match NormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (output, statistics) = normalise(x.clone(), &parameters, Some(&residual));
                let state = NormState { x, output: Some(output.clone()), parameters, statistics };
                prepared.finish(state, output)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(normalise(x, &parameters, Some(&residual)).0)
            }
        }
    }

    fn stunet_upsample(x: Tracked<C>, factor: [usize; 3]) -> Tracked<C> {
        let (x, node) = x.into_parts();
        let output = Flex::stunet_upsample(x, factor);
        match UpsampleBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(factor, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn stunet_interleave(x: Tracked<C>, factor: [usize; 3]) -> Tracked<C> {
        let (x, node) = x.into_parts();
        let output = Flex::stunet_interleave(x, factor);
        match InterleaveBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(factor, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

#[derive(Clone, Debug)]
struct ConvState {
    parts: Vec<FlexTensor>,
    weight: FlexTensor,
    stride: [usize; 3],
}

#[derive(Debug)]
struct ConvBackward;

/// Parents: the parts of the input, the weight, the bias.
impl<const N: usize> Backward<Flex, N> for ConvBackward {
    type State = ConvState;

    fn backward(self, ops: Ops<ConvState, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let ConvState { parts, weight, stride } = &ops.state;
        let views: Vec<_> = parts.iter().collect();
        let (inputs, parameters) = ops.parents.split_at(parts.len());
        if let Some(node) = &parameters[0] {
            let found = convolve_weight_gradient(&gradient, &views, weight, *stride);
            grads.register::<Flex>(node.id, found);
        }
        if let Some(node) = &parameters[1] {
            grads.register::<Flex>(node.id, convolve_bias_gradient(&gradient));
        }
        if inputs.iter().any(Option::is_some) {
            let found = convolve_input_gradient(&gradient, &views, weight, *stride);
            for (node, found) in inputs.iter().zip(found) {
                if let Some(node) = node {
                    grads.register::<Flex>(node.id, found);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
struct NormState {
    x: FlexTensor,
    /// Only where a residual was added.
    output: Option<FlexTensor>,
    parameters: NormParameters,
    statistics: Vec<Statistics>,
}

#[derive(Debug)]
struct NormBackward;

/// Parents: input, weight, bias and, where there is one, the residual.
impl<const N: usize> Backward<Flex, N> for NormBackward {
    type State = NormState;

    fn backward(self, ops: Ops<NormState, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut gradient = own(grads.consume::<Flex>(&ops.node));
        let NormState { x, output, parameters, statistics } = ops.state;
        let x = x.to_contiguous();
        let [_, _, depth, height, width] = dims(&x);
        let volume = depth * height * width;
        let output = output.as_ref().map(FlexTensor::to_contiguous);
        let found = parameters.with(|parameters| {
            norm::backward(
                Isa::best(),
                values(&x),
                output.as_ref().map(values),
                gradient.storage_mut::<f32>(),
                volume,
                parameters,
                &statistics,
            )
        });
        if let Some(node) = &ops.parents[0] {
            grads.register::<Flex>(node.id, finish(found.x, x.shape()));
        }
        for (node, found) in ops.parents[1..3].iter().zip([found.weight, found.bias]) {
            if let Some(node) = node {
                let shape = [found.len()];
                grads.register::<Flex>(node.id, tensor(found, shape));
            }
        }
        if let Some(node) = ops.parents.get(3).and_then(Option::as_ref) {
            grads.register::<Flex>(node.id, gradient);
        }
    }
}

#[derive(Debug)]
struct UpsampleBackward;

impl Backward<Flex, 1> for UpsampleBackward {
    type State = [usize; 3];

    fn backward(self, ops: Ops<[usize; 3], 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        if let [Some(node)] = &ops.parents {
            let [n, c, z, y, x] = dims(&gradient);
            let [fz, fy, fx] = ops.state;
            let size = [z / fz, y / fy, x / fx];
            let found = upsample::gradient(values(&gradient), size, ops.state);
            let shape = [n, c, size[0], size[1], size[2]];
            grads.register::<Flex>(node.id, finish(found, shape));
        }
    }
}

#[derive(Debug)]
struct InterleaveBackward;

impl Backward<Flex, 1> for InterleaveBackward {
    type State = [usize; 3];

    fn backward(self, ops: Ops<[usize; 3], 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        if let [Some(node)] = &ops.parents {
            let [n, c, z, y, x] = dims(&gradient);
            let [fz, fy, fx] = ops.state;
            let size = [z / fz, y / fy, x / fx];
            let found = interleave::separate(values(&gradient), size, ops.state);
            let shape = [n, c * fz * fy * fx, size[0], size[1], size[2]];
            grads.register::<Flex>(node.id, finish(found, shape));
        }
    }
}
