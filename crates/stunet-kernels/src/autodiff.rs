//! The backward passes, once for all backends.
//!
//! States hold tensors, not recomputations: a convolution keeps its input, a norm its input with the
//! statistics, and its output only where a residual went in.

use crate::kernels::{Kernels, NormGradients, NormParameters};
use crate::operators::Operators;
use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

impl<B: Kernels, C: CheckpointStrategy> Operators for Autodiff<B, C> {
    fn stunet_conv3d(
        x: Tracked<B, C>,
        weight: Tracked<B, C>,
        bias: Tracked<B, C>,
        stride: [usize; 3],
    ) -> Tracked<B, C> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let prepared = ConvBackward.prepare::<C>([x_node, weight_node, bias_node]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let state = ConvState { parts: vec![x], weight, stride };
                let output = state.output::<B>(bias);
                prepared.finish(state, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::conv(vec![x], weight, bias, stride)),
        }
    }

    fn stunet_conv3d_joined(
        first: Tracked<B, C>,
        second: Tracked<B, C>,
        weight: Tracked<B, C>,
        bias: Tracked<B, C>,
        stride: [usize; 3],
    ) -> Tracked<B, C> {
        let ((first, first_node), (second, second_node)) =
            (first.into_parts(), second.into_parts());
        let ((weight, weight_node), (bias, bias_node)) = (weight.into_parts(), bias.into_parts());
        let nodes = [first_node, second_node, weight_node, bias_node];
        match ConvBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let state = ConvState { parts: vec![first, second], weight, stride };
                let output = state.output::<B>(bias);
                prepared.finish(state, output)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::conv(vec![first, second], weight, bias, stride))
            }
        }
    }

    fn stunet_norm(
        x: Tracked<B, C>,
        weight: Tracked<B, C>,
        bias: Tracked<B, C>,
        epsilon: f64,
        slope: f64,
    ) -> Tracked<B, C> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let parameters = NormParameters { weight, bias, epsilon, slope };
        let prepared = NormBackward.prepare::<C>([x_node, weight_node, bias_node]);
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (output, statistics) = B::norm(x.clone(), &parameters, None);
                let state = NormState { x, output: None, parameters, statistics };
                prepared.finish(state, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::norm(x, &parameters, None).0),
        }
    }

    fn stunet_norm_residual(
        x: Tracked<B, C>,
        weight: Tracked<B, C>,
        bias: Tracked<B, C>,
        residual: Tracked<B, C>,
        epsilon: f64,
        slope: f64,
    ) -> Tracked<B, C> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let (residual, residual_node) = residual.into_parts();
        let parameters = NormParameters { weight, bias, epsilon, slope };
        let nodes = [x_node, weight_node, bias_node, residual_node];
        match NormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (output, statistics) = B::norm(x.clone(), &parameters, Some(residual));
                let state = NormState { x, output: Some(output.clone()), parameters, statistics };
                prepared.finish(state, output)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::norm(x, &parameters, Some(residual)).0)
            }
        }
    }

    fn stunet_upsample(x: Tracked<B, C>, factor: [usize; 3]) -> Tracked<B, C> {
        let (x, node) = x.into_parts();
        let output = B::upsample(x, factor);
        match UpsampleBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(factor, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn stunet_interleave(x: Tracked<B, C>, factor: [usize; 3]) -> Tracked<B, C> {
        let (x, node) = x.into_parts();
        let output = B::interleave(x, factor);
        match InterleaveBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(factor, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

#[derive(Clone, Debug)]
struct ConvState<T> {
    parts: Vec<T>,
    weight: T,
    stride: [usize; 3],
}

impl<T: Clone> ConvState<T> {
    /// The forward pass, with a copy of every handle.
    fn output<B: Kernels<FloatTensorPrimitive = T>>(&self, bias: T) -> T {
        B::conv(self.parts.clone(), self.weight.clone(), bias, self.stride)
    }
}

#[derive(Debug)]
struct ConvBackward;

/// Parents: the parts of the input, the weight, the bias.
impl<B: Kernels, const N: usize> Backward<B, N> for ConvBackward {
    type State = ConvState<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let ConvState { parts, weight, stride } = &ops.state;
        let (inputs, parameters) = ops.parents.split_at(parts.len());
        if let Some(node) = &parameters[0] {
            let found = B::conv_weight_gradient(&gradient, parts, weight, *stride);
            grads.register::<B>(node.id, found);
        }
        if let Some(node) = &parameters[1] {
            grads.register::<B>(node.id, B::conv_bias_gradient(&gradient));
        }
        if inputs.iter().any(Option::is_some) {
            let found = B::conv_input_gradient(&gradient, parts, weight, *stride);
            for (node, found) in inputs.iter().zip(found) {
                if let Some(node) = node {
                    grads.register::<B>(node.id, found);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
struct NormState<T, S> {
    x: T,
    /// Only where a residual was added.
    output: Option<T>,
    parameters: NormParameters<T>,
    statistics: S,
}

#[derive(Debug)]
struct NormBackward;

/// Parents: input, weight, bias and, where there is one, the residual.
impl<B: Kernels, const N: usize> Backward<B, N> for NormBackward {
    type State = NormState<FloatTensor<B>, B::Statistics>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let NormState { x, output, parameters, statistics } = ops.state;
        let NormGradients { x, weight, bias, residual } =
            B::norm_gradients(gradient, x, output, &parameters, &statistics);
        let found = [Some(x), Some(weight), Some(bias), residual];
        for (node, found) in ops.parents.iter().zip(found) {
            if let (Some(node), Some(found)) = (node, found) {
                grads.register::<B>(node.id, found);
            }
        }
    }
}

#[derive(Debug)]
struct UpsampleBackward;

impl<B: Kernels> Backward<B, 1> for UpsampleBackward {
    type State = [usize; 3];

    fn backward(self, ops: Ops<[usize; 3], 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = &ops.parents {
            grads.register::<B>(node.id, B::upsample_gradient(gradient, ops.state));
        }
    }
}

#[derive(Debug)]
struct InterleaveBackward;

impl<B: Kernels> Backward<B, 1> for InterleaveBackward {
    type State = [usize; 3];

    fn backward(self, ops: Ops<[usize; 3], 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = &ops.parents {
            grads.register::<B>(node.id, B::separate(gradient, ops.state));
        }
    }
}
