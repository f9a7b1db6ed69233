//! A whole small network and its training: logits, gradients, losses, steps.

use super::bench::{Bench, Found, Reason, Values, numbers};
use super::stage::Stage;
use burn::tensor::{Device, Int, Tensor, TensorData};
use stunet_model::{ParameterRef, ParameterSpec, StuNet, StuNetConfig};
use stunet_train::loss::{Loss, LossConfig, LossTerms};
use stunet_train::optimiser::{Sgd, SgdConfig};

/// Rounding errors of some twenty layers.
const BOUND: f64 = 1e-3;
/// Sums over a volume.
const SUMS: f64 = 1e-4;
/// Batch, channel and three unequal axes, so that a swapped pair shows. Not larger: of many values before an
/// activation one would lie so near zero that rounding turns its sign, and its gradient with it.
const INPUT: [usize; 5] = [2, 1, 8, 12, 16];

/// A few channels, strides alike and unlike along the axes, classes that are no power of two.
pub(super) fn config() -> StuNetConfig {
    StuNetConfig {
        in_channels: 1,
        num_classes: 5,
        width: [4, 8, 8, 8, 8, 8],
        depth: [1; 6],
        strides: [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]],
    }
}

fn each_scale(logits: Vec<Tensor<5>>) -> Found {
    let named = |(scale, logits)| (format!("logits of scale {scale}"), numbers(logits));
    logits.into_iter().enumerate().map(named).collect()
}

fn forward(bench: &Bench) -> Result<Found, Reason> {
    let network = bench.network(&config())?;
    let mut found = each_scale(network.forward_deep(bench.tensor(0, INPUT)));
    let mut pieces = Vec::new();
    network.forward_by_planes(bench.tensor(0, INPUT), &mut |_, piece| pieces.push(piece));
    found.push(("logits by planes".to_owned(), numbers(Tensor::cat(pieces, 2))));
    Ok(found)
}

/// The gradient of every parameter, whose norms undo the bias before them: those gradients are what rounding
/// leaves of zero.
fn gradients_of(network: &StuNet, gradients: &burn::tensor::Gradients) -> Found {
    let mut found = Found::new();
    network.for_each_parameter(&mut |spec: &ParameterSpec, parameter| {
        let undone = ["conv1.bias", "conv2.bias"].iter().any(|bias| spec.name.ends_with(bias));
        let gradient = match parameter {
            ParameterRef::Vector(p) => p.val().grad(gradients).map(numbers),
            ParameterRef::Kernel(p) => p.val().grad(gradients).map(numbers),
        };
        found.extend(gradient.filter(|_| !undone).map(|values| (spec.name.clone(), values)));
    });
    found
}

/// Through all scales, with an input that has a gradient and with one that has none.
fn backward(bench: &Bench, tracked_input: bool) -> Result<Found, Reason> {
    let bench = bench.tracked();
    let network = bench.network(&config())?;
    let input = bench.tensor::<5>(0, INPUT);
    let input = if tracked_input { input.require_grad() } else { input };
    let terms = network.forward_deep(input.clone()).into_iter().enumerate();
    let terms = terms.map(|(scale, logits)| {
        let weights = bench.tensor(1 + scale as u64, logits.dims());
        (logits.clone() * weights).sum() * 1e-2 + logits.square().mean()
    });
    let loss = terms.reduce(|a, b| a + b).ok_or("no scale")?;
    let gradients = loss.backward();
    let mut found = gradients_of(&network, &gradients);
    found.extend(input.grad(&gradients).map(|values| ("input".to_owned(), numbers(values))));
    Ok(found)
}

fn labels(
    bench: &Bench,
    [n, _, z, y, x]: [usize; 5],
    classes: u32,
    device: &Device,
) -> Tensor<4, Int> {
    let labels = bench.labels(50, n * z * y * x, classes);
    let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
    Tensor::from_data(TensorData::new(labels, [n, z, y, x]), device)
}

/// Value and gradient with respect to the logits.
fn loss(bench: &Bench, config: LossConfig) -> Result<Found, Reason> {
    let bench = bench.tracked();
    let shape = [2, 4, 5, 6, 7];
    let logits: Tensor<5> = bench.tensor(0, shape) * 3.0;
    let logits = logits.detach().require_grad();
    let targets = [labels(&bench, shape, 4, &bench.device)];
    let config = LossConfig { weights: vec![1.0], ..config };
    let (value, gradients) = Loss::new(config)?.backward(vec![logits.clone()], &targets);
    let gradient = logits.grad(&gradients).ok_or("the logits have no gradient")?;
    Ok(vec![
        ("value".to_owned(), Values::Numbers(vec![value.dice, value.cross_entropy])),
        ("gradient".to_owned(), numbers(gradient)),
    ])
}

fn weights_of(network: &StuNet) -> Found {
    let mut found = Found::new();
    network.for_each_parameter(&mut |spec: &ParameterSpec, parameter| {
        let values = match parameter {
            ParameterRef::Vector(p) => numbers(p.val()),
            ParameterRef::Kernel(p) => numbers(p.val()),
        };
        found.push((spec.name.clone(), values));
    });
    found
}

/// Two steps of the optimiser with gradients that do not come from the network, clipped.
fn optimiser(bench: &Bench) -> Result<Found, Reason> {
    let bench = bench.tracked();
    let mut network = bench.network(&config())?;
    let mut sgd = Sgd::new(SgdConfig { weight_decay: 1e-2, ..SgdConfig::default() }, &config());
    for step in 0..2 {
        let (mut sum, mut id) = (bench.tensor(9000, [1]), 2000 * step);
        network.for_each_parameter(&mut |spec: &ParameterSpec, parameter| {
            let values = match parameter {
                ParameterRef::Vector(p) => p.val(),
                ParameterRef::Kernel(p) => p.val().flatten(0, 4),
            };
            let weights = bench.tensor::<1>(id, [spec.shape.iter().product()]);
            id += 1;
            sum = sum.clone() + (values * weights).sum();
        });
        let report;
        (network, report) = sgd.step(network, sum.backward(), 0.05);
        if report.skipped {
            return Err("a gradient is not finite".into());
        }
    }
    Ok(weights_of(&network))
}

/// Two steps of a training: logits, loss, gradients, weights.
fn training(bench: &Bench) -> Result<Found, Reason> {
    let bench = bench.tracked();
    let mut network = bench.network(&config())?;
    let mut sgd = Sgd::new(SgdConfig::default(), &config());
    let loss = Loss::new(LossConfig::v2(true))?;
    let mut losses = Vec::new();
    for step in 0..2 {
        let outputs = network.forward_deep(bench.tensor(step, INPUT));
        let label = |logits: &Tensor<5>| labels(&bench, logits.dims(), 5, &bench.device);
        let targets: Vec<_> = outputs.iter().map(label).collect();
        let (value, gradients) = loss.backward(outputs, &targets);
        losses.extend([value.dice, value.cross_entropy]);
        (network, _) = sgd.step(network, gradients, 0.01);
    }
    let mut found = weights_of(&network);
    found.push(("losses".to_owned(), Values::Numbers(losses)));
    Ok(found)
}

/// All of them, each with inputs of its own.
pub(super) fn stages() -> Vec<Stage> {
    let all = |terms| LossConfig { terms, ..LossConfig::v2(true) };
    vec![
        Stage::new("network, forward", BOUND, forward),
        Stage::new("network, backward", BOUND, |bench| backward(bench, true)),
        Stage::new("network, backward to weights alone", BOUND, |bench| backward(bench, false)),
        Stage::new("loss of nnU-Net 1", SUMS, |bench| loss(bench, LossConfig::v1(false))),
        Stage::new("loss of nnU-Net 2", SUMS, |bench| loss(bench, LossConfig::v2(true))),
        Stage::new("loss of the largest tenth", SUMS, move |bench| {
            loss(bench, all(LossTerms::DiceAndTopK { percent: 10.0 }))
        }),
        Stage::new("step of the optimiser", SUMS, optimiser),
        Stage::new("two steps of a training", BOUND, training),
    ]
}
