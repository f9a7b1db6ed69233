//! Activation checkpointing by stage: memory for time.
//!
//! Autodiff keeps what every operator of the network needs for its backward. Here the forward pass
//! runs without autodiff and keeps the output of each stage alone; the backward pass then takes the
//! stages in reverse, runs each a second time under autodiff, and hands the gradient of its inputs
//! to the stage before. At most one stage's activations are held at a time, for one more forward
//! pass: about a third more time.

use crate::loss::{Loss, LossValue, inject};
use crate::optimiser::{IntoParameterGradients, ParameterGradients};
use crate::precision::Precision;
use burn::module::Module;
use burn::tensor::{Int, Tensor};
use stunet_model::StuNet;

/// The loss and its gradients, as `loss.backward_scaled(network.forward_deep(input), ..)` gives them
/// for the network in that precision, holding the activations of one stage at a time.
///
/// # Shapes
/// `input` is `[N, Cin, Z, Y, X]`, `targets` as for [`Loss::backward`].
///
/// # Panics
/// As [`StuNet::forward_deep`] and [`Loss::backward`]; when the network is not on an autodiff device.
pub fn backward(
    network: &StuNet,
    precision: Precision,
    input: Tensor<5>,
    loss: &Loss,
    targets: &[Tensor<4, Int>],
    scale: f64,
) -> (LossValue, ParameterGradients) {
    let working = precision.network(network);
    let mut pass = Pass { master: network, working: &working, gradients: None };
    let input = input.inner().cast(precision.dtype());
    let mut kept = Kept::forward(&working.valid(), input.clone());

    let (value, mut slopes) = pass.heads(&kept.climbed, loss, targets, scale);
    let stages = kept.climbed.len();
    let mut encoder_slopes = vec![None; stages + 1];
    for index in (0..stages).rev() {
        // Not needed again: the stage's output is computed anew.
        kept.climbed.truncate(index);
        let Some(slope) = slopes[index].take() else { continue };
        let below = match index {
            0 => kept.features[stages].clone(),
            _ => kept.climbed[index - 1].clone(),
        };
        let skip = kept.features[stages - 1 - index].clone();
        let [of_below, of_skip] = pass
            .stage([below, skip], slope, |[x, skip]| working.decoder.forward_stage(index, x, skip));
        let below = match index {
            0 => &mut encoder_slopes[stages],
            _ => &mut slopes[index - 1],
        };
        add(below, of_below);
        add(&mut encoder_slopes[stages - 1 - index], of_skip);
    }
    for stage in (0..=stages).rev() {
        kept.features.truncate(stage);
        let Some(slope) = encoder_slopes[stage].take() else { continue };
        let forward = |[x]: [Tensor<5>; 1]| working.encoder.forward_stage(stage, x);
        if let Some(below) = kept.features.last().cloned() {
            let [of_below] = pass.stage([below], slope, forward);
            add(&mut encoder_slopes[stage - 1], of_below);
        } else {
            pass.stage([input.clone()], slope, forward);
        }
    }
    (value, pass.gradients.expect("the heads have gradients"))
}

/// What the forward pass keeps.
struct Kept {
    /// Outputs of the encoder's stages, finest first.
    features: Vec<Tensor<5>>,
    /// Outputs of the decoder's stages, coarsest first.
    climbed: Vec<Tensor<5>>,
}

impl Kept {
    fn forward(network: &StuNet, input: Tensor<5>) -> Self {
        let features = network.encoder.forward(input);
        let (mut x, skips) = match features.split_last() {
            Some((last, skips)) => (last.clone(), skips),
            None => unreachable!("an encoder has stages"),
        };
        let mut climbed = Vec::with_capacity(skips.len());
        for (index, skip) in skips.iter().rev().enumerate() {
            x = network.decoder.forward_stage(index, x, skip.clone());
            climbed.push(x.clone());
        }
        Self { features, climbed }
    }
}

/// The backward pass: gradients of parameters pile up, gradients of features are handed on.
struct Pass<'a> {
    /// The network with the parameters the gradients belong to.
    master: &'a StuNet,
    /// The same in the precision of the computation.
    working: &'a StuNet,
    gradients: Option<ParameterGradients>,
}

impl Pass<'_> {
    /// The loss, and its slope with respect to the output of each stage of the decoder.
    fn heads(
        &mut self,
        climbed: &[Tensor<5>],
        loss: &Loss,
        targets: &[Tensor<4, Int>],
        scale: f64,
    ) -> (LossValue, Vec<Option<Tensor<5>>>) {
        let leaves: Vec<_> = climbed.iter().map(|x| self.leaf(x.clone())).collect();
        let heads = self.working.decoder.heads.iter();
        let mut outputs: Vec<_> =
            heads.zip(&leaves).map(|(head, x)| head.forward(x.clone(), [1; 3])).collect();
        outputs.reverse();
        let (value, mut grads) = loss.backward_scaled(outputs, targets, scale);
        let slopes = leaves.iter().map(|leaf| leaf.grad_remove(&mut grads)).collect();
        self.collect(grads);
        (value, slopes)
    }

    /// Runs a stage again, under autodiff, and takes its output's slope back to its inputs.
    fn stage<const N: usize>(
        &mut self,
        inputs: [Tensor<5>; N],
        slope: Tensor<5>,
        forward: impl FnOnce([Tensor<5>; N]) -> Tensor<5>,
    ) -> [Tensor<5>; N] {
        let leaves = inputs.map(|x| self.leaf(x));
        let output = forward(leaves.clone());
        let mut grads = inject::with_gradient(output, slope).backward();
        let slopes = leaves.map(|leaf| leaf.grad_remove(&mut grads).expect("a tracked input"));
        self.collect(grads);
        slopes
    }

    fn collect(&mut self, grads: burn::tensor::Gradients) {
        let grads = grads.into_parameter_gradients(self.master);
        self.gradients = Some(match self.gradients.take() {
            Some(sum) => sum.add(grads),
            None => grads,
        });
    }

    /// A tensor that the next backward pass has a gradient for, under the network's strategy.
    fn leaf(&self, x: Tensor<5>) -> Tensor<5> {
        let parameter = self.master.decoder.heads[0].weight.val();
        let x = x.autodiff();
        let x = match parameter.gradient_checkpointing_strategy() {
            Some(strategy) => x.with_gradient_checkpointing_strategy(strategy),
            None => panic!("training needs a network on an autodiff device"),
        };
        x.require_grad()
    }
}

fn add(sum: &mut Option<Tensor<5>>, slope: Tensor<5>) {
    *sum = Some(match sum.take() {
        Some(sum) => sum + slope,
        None => slope,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{LossConfig, ZeroWeight, deep_supervision};
    use burn::tensor::{DType, Device, Distribution, TensorData};
    use stunet_model::{Initialisation, ParameterKind, StuNetConfig};

    fn config() -> StuNetConfig {
        let strides = [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]];
        let base = StuNetConfig::small(2, 3);
        StuNetConfig { width: [3, 4, 4, 4, 4, 4], depth: [2, 1, 1, 1, 1, 2], strides, ..base }
    }

    /// Two samples with labels at every scale.
    fn batch(device: &Device) -> (Tensor<5>, Vec<Tensor<4, Int>>) {
        let [n, z, y, x] = [2, 8, 12, 16];
        device.seed(3);
        let input = Tensor::<5>::random([n, 2, z, y, x], Distribution::Normal(0.0, 1.0), device);
        let sizes = config().stage_sizes([z, y, x]);
        let targets = sizes[..5].iter().map(|&[z, y, x]| {
            let labels: Vec<i32> = (0..n * z * y * x).map(|i| (i / 5 * 7 % 3) as i32).collect();
            Tensor::from_data(TensorData::new(labels, [n, z, y, x]), device)
        });
        (input, targets.collect())
    }

    /// With and without, the same value and gradients.
    fn check(loss: LossConfig, precision: Precision, bound: f64) {
        let device = Device::flex().autodiff();
        let network = StuNet::init(&config(), Initialisation::PyTorchDefault, 1, &device).unwrap();
        let (input, targets) = batch(&device);
        let loss = Loss::new(loss).unwrap();
        let (value, found) = backward(&network, precision, input.clone(), &loss, &targets, 4.0);

        let outputs = precision.network(&network).forward_deep(input.cast(precision.dtype()));
        let (expected_value, grads) = loss.backward_scaled(outputs, &targets, 4.0);
        let expected = grads.into_parameter_gradients(&network);
        assert_eq!(value, expected_value);
        let specs = config().parameter_specs();
        for (index, spec) in specs.iter().enumerate() {
            let data = |g: &ParameterGradients| g.values(index).map(|d| d.convert::<f64>());
            let (found, expected) = match (data(&found), data(&expected)) {
                (None, None) => continue,
                (found, expected) => (found.unwrap(), expected.unwrap()),
            };
            let largest = expected.iter::<f64>().fold(0.0, |a: f64, b| a.max(b.abs()));
            let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
            let worst = pairs.fold(0.0, |w: f64, (a, b)| w.max((a - b).abs()));
            // A bias before a norm has no effect: its gradient is rounding alone.
            let noise = matches!(spec.kind, ParameterKind::ConvBias { .. });
            let scale = if noise { largest.max(1.0) } else { largest };
            assert!(worst <= bound * scale, "{}: {worst:e} of {largest:e}", spec.name);
        }
    }

    #[test]
    fn the_same_gradients_as_without() {
        check(LossConfig::v1(true), Precision::F32, 1e-6);
    }

    #[test]
    fn the_same_gradients_for_a_head_of_weight_zero() {
        check(LossConfig::v2(false), Precision::F32, 1e-6);
    }

    #[test]
    fn the_same_gradients_with_one_output() {
        let weights = vec![1.0, 0.0, 0.0, 0.0, 0.0];
        let zero_weight = ZeroWeight::Skip;
        check(LossConfig { weights, zero_weight, ..LossConfig::v1(true) }, Precision::F32, 1e-6);
        assert_eq!(deep_supervision::weights(1), [1.0]);
    }

    #[test]
    fn the_same_gradients_in_half_precision() {
        assert_eq!(Precision::F16.dtype(), DType::F16);
        check(LossConfig::v1(true), Precision::F16, 1e-2);
    }
}
