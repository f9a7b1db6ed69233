//! Activation checkpointing by stage: less memory for more time.
//!
//! Autodiff keeps what every operator of the network needs for its backward. Here the forward pass
//! runs without autodiff and keeps the output of each stage alone; the backward pass then takes the
//! stages in reverse, runs each a second time under autodiff, and hands the gradient of its inputs
//! to the stage before. At most one stage's activations are held at a time, for one more forward
//! pass: about a third more time.

use crate::error::Result;
use crate::objective::{self, Objective};
use crate::optimiser::{IntoParameterGradients, ParameterGradients};
use crate::precision::Precision;
use crate::trained::trains;
use burn::module::Module;
use burn::tensor::{Int, Tensor};
use stunet_model::{ResidualBlock, StuNet};

/// The loss and its gradients times `scale`, as for the outputs of `network.forward_deep(input)` in that
/// precision, holding the activations of one stage at a time.
///
/// # Shapes
/// `input` is `[N, Cin, Z, Y, X]`, `targets` as for [`Objective::loss`].
///
/// # Errors
/// When the loss carries no gradient.
///
/// # Panics
/// As [`StuNet::forward_deep`] and the loss; when the network is not on an autodiff device.
pub fn backward(
    network: &StuNet,
    precision: Precision,
    input: Tensor<5>,
    loss: &dyn Objective,
    targets: &[Tensor<4, Int>],
    scale: f64,
) -> Result<(f64, ParameterGradients)> {
    let working = precision.network(network);
    let mut pass = Pass { master: network, working: &working, gradients: None };
    let input = match precision {
        Precision::F32 => input.inner(),
        _ => input.inner().cast(precision.dtype()),
    };
    let mut kept = Kept::forward(&working.valid(), input.clone());

    let learns = Learns::of(network);
    let (value, mut slopes) = pass.heads(&kept.climbed, loss, targets, scale)?;
    let stages = kept.climbed.len();
    let mut encoder_slopes = vec![None; stages + 1];
    for index in (0..stages).rev() {
        // Not needed again: the stage's output is computed anew.
        kept.climbed.truncate(index);
        let Some(slope) = slopes[index].take() else { continue };
        if !learns.decoder(index) {
            continue;
        }
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
        if !learns.encoder(stage) {
            continue;
        }
        let forward = |[x]: [Tensor<5>; 1]| working.encoder.forward_stage(stage, x);
        if let Some(below) = kept.features.last().cloned() {
            let [of_below] = pass.stage([below], slope, forward);
            add(&mut encoder_slopes[stage - 1], of_below);
        } else {
            pass.stage([input.clone()], slope, forward);
        }
    }
    Ok((value, pass.gradients.expect("the heads have gradients")))
}

/// Which stages have something that is trained, in themselves or in what their inputs come from:
/// only these are run a second time.
struct Learns {
    /// The finest stage of the encoder that is trained.
    encoder: Option<usize>,
    /// The coarsest stage of the decoder that is trained.
    decoder: Option<usize>,
}

impl Learns {
    fn of(network: &StuNet) -> Self {
        let (encoder, decoder) = (&network.encoder, &network.decoder);
        let stage = |blocks: &Vec<ResidualBlock>| blocks.iter().any(trains);
        let up =
            |index: &usize| trains(&decoder.upsample[*index]) || stage(&decoder.stages[*index]);
        Self {
            encoder: encoder.stages.iter().position(stage),
            decoder: (0..decoder.stages.len()).find(up),
        }
    }

    fn encoder(&self, stage: usize) -> bool {
        self.encoder.is_some_and(|finest| stage >= finest)
    }

    /// Every stage of the decoder has features of the encoder beside it.
    fn decoder(&self, index: usize) -> bool {
        self.encoder.is_some() || self.decoder.is_some_and(|coarsest| index >= coarsest)
    }
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
        loss: &dyn Objective,
        targets: &[Tensor<4, Int>],
        scale: f64,
    ) -> Result<(f64, Vec<Option<Tensor<5>>>)> {
        let leaves: Vec<_> = climbed.iter().map(|x| self.leaf(x.clone())).collect();
        let heads = self.working.decoder.heads.iter();
        let mut outputs: Vec<_> =
            heads.zip(&leaves).map(|(head, x)| head.forward(x.clone(), [1; 3])).collect();
        outputs.reverse();
        let (value, mut grads) = objective::backward(loss, outputs, targets, scale)?;
        let slopes = leaves.iter().map(|leaf| leaf.grad_remove(&mut grads)).collect();
        self.collect(grads);
        Ok((value, slopes))
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
        let mut grads = stunet_model::with_gradient(output, slope).backward();
        let slopes = leaves.map(|leaf| leaf.grad_remove(&mut grads).expect("a tracked input"));
        self.collect(grads);
        slopes
    }

    fn collect(&mut self, grads: burn::tensor::Gradients) {
        let grads = grads.into_parameter_gradients(self.master);
        self.gradients = Some(match self.gradients.take() {
            Some(sum) => sum + grads,
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
    use crate::loss::{Loss, LossConfig, ZeroWeight};
    use burn::tensor::{DType, Device, Distribution, TensorData};
    use stunet_model::{Initialisation, ParameterSource, ParameterSpec, StuNetConfig};

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

    /// The network, in f64 where that is asked for: rounding out of the way.
    fn network(dtype: DType) -> StuNet {
        let device = Device::flex().autodiff();
        let network = config().init_seeded(Initialisation::PyTorchDefault, 1, &device).unwrap();
        let mut source = network.source();
        let mut source = |spec: &ParameterSpec| Ok(source.parameter(spec)?.convert_dtype(dtype));
        StuNet::from_source(&config(), &mut source, &device).unwrap()
    }

    /// Value and gradients of all parameters, with recomputation and without.
    fn run(
        loss: &LossConfig,
        precision: Precision,
        dtype: DType,
        recomputed: bool,
    ) -> (f64, Vec<f64>) {
        let device = Device::flex().autodiff();
        let network = network(dtype);
        let (input, targets) = batch(&device);
        let input = input.cast(dtype);
        let loss = Loss::new(loss.clone()).unwrap();
        let (value, gradients) = if recomputed {
            backward(&network, precision, input, &loss, &targets, 256.0).unwrap()
        } else {
            let input = if dtype == DType::F64 { input } else { input.cast(precision.dtype()) };
            let outputs = precision.network(&network).forward_deep(input);
            let (value, grads) = loss.backward_scaled(outputs, &targets, 256.0);
            (value.total, grads.into_parameter_gradients(&network))
        };
        let mut all = Vec::new();
        for (index, spec) in config().parameter_specs().iter().enumerate() {
            match gradients.values(index) {
                Some(data) => all.extend(data.iter::<f64>()),
                // None must meet none.
                None => all.resize(all.len() + spec.shape.iter().product::<usize>(), f64::NAN),
            }
        }
        (value, all)
    }

    /// Difference in L2 over all parameters, relative to the gradient's.
    fn distance(found: &[f64], expected: &[f64]) -> f64 {
        assert_eq!(found.len(), expected.len());
        let (mut squares, mut norm) = (0.0, 0.0);
        for (a, b) in found.iter().zip(expected) {
            if !(a.is_nan() && b.is_nan()) {
                squares += (a - b) * (a - b);
                norm += b * b;
            }
        }
        assert!(norm > 0.0);
        f64::sqrt(squares / norm)
    }

    fn check(loss: &LossConfig, dtype: DType, bound: f64) {
        let (value, found) = run(loss, Precision::F32, dtype, true);
        let (expected_value, expected) = run(loss, Precision::F32, dtype, false);
        assert!((value / expected_value - 1.0).abs() <= bound, "{value} {expected_value}");
        let error = distance(&found, &expected);
        assert!(error <= bound, "{error:e}");
    }

    #[test]
    fn the_same_gradients_as_without() {
        check(&LossConfig::v1(true), DType::F64, 1e-13);
        check(&LossConfig::v1(true), DType::F32, 1e-6);
    }

    #[test]
    fn the_same_gradients_for_a_head_of_weight_zero() {
        check(&LossConfig::v2(false), DType::F64, 1e-13);
        check(&LossConfig::v2(false), DType::F32, 1e-6);
    }

    #[test]
    fn the_same_gradients_with_one_output() {
        let config = LossConfig {
            weights: vec![1.0, 0.0, 0.0, 0.0, 0.0],
            zero_weight: ZeroWeight::Skip,
            ..LossConfig::v1(true)
        };
        check(&config, DType::F64, 1e-13);
    }

    /// Half precision rounds differently in the two, which is no error unless it is a larger one.
    #[test]
    fn half_precision_is_as_exact_as_without() {
        let loss = LossConfig::v1(true);
        let (value, exact) = run(&loss, Precision::F32, DType::F32, false);
        let (plain_value, plain) = run(&loss, Precision::F16, DType::F32, false);
        let (found_value, found) = run(&loss, Precision::F16, DType::F32, true);
        let (plain, found) = (distance(&plain, &exact), distance(&found, &exact));
        assert!(found <= 1.5 * plain, "{found:e} {plain:e}");
        let off = |v: f64| (v / value - 1.0).abs();
        assert!(off(plain_value) < 1e-3 && off(found_value) < 1e-3);
    }
}
