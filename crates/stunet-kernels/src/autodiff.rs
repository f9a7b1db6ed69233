//! The backward passes, once for all backends.
//!
//! States hold tensors, not recomputations: a convolution keeps its input, a norm its input with the
//! statistics, and its output only where a residual went in.

use crate::kernels::{ConvolvedResidual, Kernels, NormGradients, NormParameters};
use crate::operators::{Affine, Maybe, Operators, Parts};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Shape, TensorMetadata};

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

impl<B: Kernels, C: CheckpointStrategy> Operators for Autodiff<B, C> {
    fn stunet_conv3d(
        parts: Parts<Self>,
        weight: Tracked<B, C>,
        bias: Tracked<B, C>,
        stride: [usize; 3],
    ) -> Tracked<B, C> {
        conv3d::<B, C>(parts, weight, bias, (stride, false)).0
    }

    fn stunet_conv3d_measured(
        parts: Parts<Self>,
        weight: Tracked<B, C>,
        bias: Tracked<B, C>,
        stride: [usize; 3],
    ) -> (Tracked<B, C>, Maybe<Self>) {
        let (output, moments) = conv3d::<B, C>(parts, weight, bias, (stride, true));
        (output, Maybe::of(moments))
    }

    fn stunet_norm(
        x: Tracked<B, C>,
        moments: Maybe<Self>,
        weight: Tracked<B, C>,
        bias: Tracked<B, C>,
        residual: Maybe<Self>,
        [epsilon, slope]: [f64; 2],
    ) -> Tracked<B, C> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        // Nothing flows through moments: the gradient of the norm knows what they are.
        let moments = moments.into_option().map(|moments| moments.into_parts().0);
        let parameters = NormParameters { weight, bias, epsilon, slope };
        let input = NormInput { x, moments, parameters };
        match residual.into_option() {
            None => norm::<B, C, 3>([x_node, weight_node, bias_node], input, None),
            Some(residual) => {
                let (residual, node) = residual.into_parts();
                let nodes = [x_node, weight_node, bias_node, node];
                norm::<B, C, 4>(nodes, input, Some(residual))
            }
        }
    }

    fn stunet_norm_convolved(
        x: Tracked<B, C>,
        moments: Maybe<Self>,
        norm: Affine<Self>,
        [epsilon, slope]: [f64; 2],
        parts: Parts<Self>,
        conv: Affine<Self>,
        [factor, stride]: [[usize; 3]; 2],
    ) -> Tracked<B, C> {
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), norm.weight.into_parts(), norm.bias.into_parts());
        let moments = moments.into_option().map(|moments| moments.into_parts().0);
        let input =
            NormInput { x, moments, parameters: NormParameters { weight, bias, epsilon, slope } };
        let ((weight, conv_weight_node), (bias, conv_bias_node)) =
            (conv.weight.into_parts(), conv.bias.into_parts());
        let residual = |parts| ConvolvedResidual { parts, factor: [1; 3], weight, bias, stride };
        match parts {
            Parts::One(first) => {
                let (first, node) = first.into_parts();
                let nodes =
                    [x_node, weight_node, bias_node, conv_weight_node, conv_bias_node, node];
                norm_convolved::<B, C, 6>(nodes, input, residual(vec![first]))
            }
            Parts::Two(first, second) => {
                // The backward pass of the convolution reads what is repeated, so that it is written.
                let first = match factor {
                    [1, 1, 1] => first,
                    factor => Self::stunet_upsample(first, factor),
                };
                let ((first, first_node), (second, second_node)) =
                    (first.into_parts(), second.into_parts());
                let nodes = [
                    x_node,
                    weight_node,
                    bias_node,
                    conv_weight_node,
                    conv_bias_node,
                    first_node,
                    second_node,
                ];
                norm_convolved::<B, C, 7>(nodes, input, residual(vec![first, second]))
            }
        }
    }

    /// The backward pass of the convolution reads what is between, so that it is written.
    fn stunet_norm_conv3d_measured(
        x: Tracked<B, C>,
        moments: Maybe<Self>,
        norm: Affine<Self>,
        epsilon_slope: [f64; 2],
        conv: Affine<Self>,
        stride: [usize; 3],
    ) -> (Tracked<B, C>, Maybe<Self>) {
        let Affine { weight, bias } = norm;
        let x = Self::stunet_norm(x, moments, weight, bias, Maybe::None, epsilon_slope);
        Self::stunet_conv3d_measured(Parts::One(x), conv.weight, conv.bias, stride)
    }

    fn stunet_upsampled_conv3d(
        coarse: Tracked<B, C>,
        factor: [usize; 3],
        second: Tracked<B, C>,
        conv: Affine<Self>,
        measured: bool,
    ) -> (Tracked<B, C>, Maybe<Self>) {
        let parts = Parts::Two(Self::stunet_upsample(coarse, factor), second);
        let how = ([1; 3], measured);
        let (output, moments) = conv3d::<B, C>(parts, conv.weight, conv.bias, how);
        (output, Maybe::of(moments))
    }

    fn stunet_prepared(weight: Tracked<B, C>) -> Tracked<B, C> {
        let (weight, node) = weight.into_parts();
        let output = B::prepared(weight);
        match PreparedBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
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

    fn stunet_with_gradient(x: Tracked<B, C>, gradient: Tracked<B, C>) -> Tracked<B, C> {
        let ((x, node), (gradient, _)) = (x.into_parts(), gradient.into_parts());
        let value = B::float_zeros(Shape::from([1]), &x.device(), x.dtype().into());
        match WithGradientBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(gradient, value),
            OpsKind::UnTracked(prepared) => prepared.finish(value),
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

/// A convolution; the last says whether a norm alone will read it.
fn conv3d<B: Kernels, C: CheckpointStrategy>(
    parts: Parts<Autodiff<B, C>>,
    weight: Tracked<B, C>,
    bias: Tracked<B, C>,
    (stride, measured): ([usize; 3], bool),
) -> (Tracked<B, C>, Option<Tracked<B, C>>) {
    let ((weight, weight_node), (bias, bias_node)) = (weight.into_parts(), bias.into_parts());
    match parts {
        Parts::One(first) => {
            let (first, first_node) = first.into_parts();
            let state = ConvState { parts: vec![first], weight, stride, measured };
            conv_tracked::<B, C, 3>([first_node, weight_node, bias_node], state, bias)
        }
        Parts::Two(first, second) => {
            let (first, first_node) = first.into_parts();
            let (second, second_node) = second.into_parts();
            let state = ConvState { parts: vec![first, second], weight, stride, measured };
            let nodes = [first_node, second_node, weight_node, bias_node];
            conv_tracked::<B, C, 4>(nodes, state, bias)
        }
    }
}

fn conv_tracked<B: Kernels, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    state: ConvState<FloatTensor<B>>,
    bias: FloatTensor<B>,
) -> (Tracked<B, C>, Option<Tracked<B, C>>) {
    let (output, moments) = match ConvBackward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (output, moments) = state.clone().output::<B>(bias);
            (prepared.finish(state, output), moments)
        }
        // Nobody else holds what goes in.
        OpsKind::UnTracked(prepared) => {
            let (output, moments) = state.output::<B>(bias);
            (prepared.finish(output), moments)
        }
    };
    (output, moments.map(Autodiff::<B, C>::from_inner))
}

#[derive(Clone, Debug)]
struct ConvState<T> {
    parts: Vec<T>,
    weight: T,
    stride: [usize; 3],
    /// Whether a norm alone reads the output.
    measured: bool,
}

impl<T> ConvState<T> {
    /// The forward pass.
    fn output<B: Kernels<FloatTensorPrimitive = T>>(self, bias: T) -> (T, Option<T>) {
        let Self { parts, weight, stride, measured } = self;
        match measured {
            true => B::conv_measured(parts, weight, bias, stride),
            false => (B::conv(parts, weight, bias, stride), None),
        }
    }
}

#[derive(Debug)]
struct ConvBackward;

/// Parents: the parts of the input, the weight, the bias.
impl<B: Kernels, const N: usize> Backward<B, N> for ConvBackward {
    type State = ConvState<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let (inputs, parameters) = parents.split_at(ops.state.parts.len());
        ops.state.register_gradients::<B>(&gradient, inputs, parameters, grads);
    }
}

impl<T> ConvState<T> {
    /// Hands on the gradients of the parts, and those of weight and bias.
    fn register_gradients<B: Kernels<FloatTensorPrimitive = T>>(
        &self,
        gradient: &T,
        inputs: &[Option<NodeId>],
        parameters: &[Option<NodeId>],
        grads: &mut Gradients,
    ) {
        let Self { parts, weight, stride, measured } = self;
        if let Some(node) = parameters[0] {
            let found = B::conv_weight_gradient(gradient, parts, weight, *stride);
            grads.register::<B>(node, found);
        }
        if let Some(node) = parameters[1] {
            let found = match measured {
                true => no_gradient::<B>(weight, gradient),
                false => B::conv_bias_gradient(gradient),
            };
            grads.register::<B>(node, found);
        }
        if inputs.iter().any(Option::is_some) {
            let found = B::conv_input_gradient(gradient, parts, weight, *stride);
            for (node, found) in inputs.iter().zip(found) {
                if let Some(node) = *node {
                    grads.register::<B>(node, found);
                }
            }
        }
    }
}

/// The gradient of a bias that a norm undoes.
fn no_gradient<B: Kernels>(weight: &FloatTensor<B>, like: &FloatTensor<B>) -> FloatTensor<B> {
    let shape = Shape::new([weight.shape()[0]]);
    B::float_zeros(shape, &like.device(), like.dtype().into())
}

/// What is normed, and how.
struct NormInput<T> {
    x: T,
    moments: Option<T>,
    parameters: NormParameters<T>,
}

fn norm<B: Kernels, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    NormInput { x, moments, parameters }: NormInput<FloatTensor<B>>,
    residual: Option<FloatTensor<B>>,
) -> Tracked<B, C> {
    match NormBackward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let has_residual = residual.is_some();
            let (output, statistics) = B::norm(x.clone(), moments, &parameters, residual);
            let kept = has_residual.then(|| output.clone());
            let state = NormState { x, output: kept, parameters, statistics };
            prepared.finish(state, output)
        }
        OpsKind::UnTracked(prepared) => {
            prepared.finish(B::norm(x, moments, &parameters, residual).0)
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

fn norm_convolved<B: Kernels, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    NormInput { x, moments, parameters }: NormInput<FloatTensor<B>>,
    residual: ConvolvedResidual<FloatTensor<B>>,
) -> Tracked<B, C> {
    match NormConvolvedBackward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let ConvolvedResidual { parts, weight, stride, .. } = residual.clone();
            let conv = ConvState { parts, weight, stride, measured: false };
            let (output, statistics) = B::norm_convolved(x.clone(), moments, &parameters, residual);
            let norm = NormState { x, output: Some(output.clone()), parameters, statistics };
            prepared.finish((norm, conv), output)
        }
        OpsKind::UnTracked(prepared) => {
            prepared.finish(B::norm_convolved(x, moments, &parameters, residual).0)
        }
    }
}

#[derive(Debug)]
struct NormConvolvedBackward;

/// Parents: input, weight and bias of the norm, weight and bias of the convolution, the parts of its input.
impl<B: Kernels, const N: usize> Backward<B, N> for NormConvolvedBackward {
    type State = (NormState<FloatTensor<B>, B::Statistics>, ConvState<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (NormState { x, output, parameters, statistics }, conv) = ops.state;
        let found = B::norm_gradients(gradient, x, output, &parameters, &statistics);
        let parents = ops.parents.map(|node| node.map(|node| node.id));
        let (norm, rest) = parents.split_at(3);
        for (node, found) in norm.iter().zip([found.x, found.weight, found.bias]) {
            if let Some(node) = *node {
                grads.register::<B>(node, found);
            }
        }
        let (parameters, inputs) = rest.split_at(2);
        if let Some(gradient) = found.residual {
            conv.register_gradients::<B>(&gradient, inputs, parameters, grads);
        }
    }
}

#[derive(Debug)]
struct PreparedBackward;

/// The same values: the gradient passes through.
impl<B: Kernels> Backward<B, 1> for PreparedBackward {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        if let [Some(node)] = &ops.parents {
            grads.register::<B>(node.id, gradient);
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
struct WithGradientBackward;

impl<B: Kernels> Backward<B, 1> for WithGradientBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<FloatTensor<B>, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let above = grads.consume::<B>(&ops.node);
        if let [Some(node)] = &ops.parents {
            grads.register::<B>(node.id, B::scaled(ops.state, above));
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
