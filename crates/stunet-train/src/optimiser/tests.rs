use super::*;
use burn::tensor::Distribution;
use stunet_model::{Initialisation, ParameterRef};

fn config() -> StuNetConfig {
    let strides = [[1, 2, 2], [2, 2, 2], [1, 1, 1], [1, 1, 1], [1, 1, 1]];
    StuNetConfig { width: [2, 2, 2, 2, 4, 4], strides, ..StuNetConfig::small(1, 3) }
}

fn network(device: &Device) -> StuNet {
    config().init_seeded(Initialisation::PyTorchDefault, 5, device).unwrap()
}

fn parameters(network: &StuNet) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    network.for_each_parameter(&mut |_, p| {
        all.push(p.to_data().convert::<f32>().try_to_vec::<f32>().unwrap());
    });
    all
}

/// The gradients of some function of the network that leaves the coarsest head out.
fn gradients(network: &StuNet, step: u64, factor: f64) -> ParameterGradients {
    let device = Device::flex();
    device.seed(step);
    let x = Tensor::<5>::random([1, 1, 4, 8, 8], Distribution::Normal(0.0, 1.0), &device);
    let x = x.autodiff();
    let mut outputs = network.forward_deep(x);
    outputs.pop();
    let terms = outputs.into_iter().map(|o| o.square().mean());
    let loss = terms.reduce(|a, b| a + b).unwrap() * factor;
    loss.backward().into_parameter_gradients(network)
}

/// The rule of [`Sgd`], written down in f64 for one parameter and a list of gradients.
fn by_hand(mut w: f64, gradients: &[f64], clips: &[f64], lr: f64) -> (f64, f64) {
    let mut v = 0.0;
    for (step, (g, clip)) in gradients.iter().zip(clips).enumerate() {
        let g = g * clip + 3e-5 * w;
        v = if step == 0 { g } else { 0.99 * v + g };
        w -= lr * (g + 0.99 * v);
    }
    (w, v)
}

#[test]
fn follows_the_rule() {
    let device = Device::flex().autodiff();
    let mut network = network(&device);
    let start = parameters(&network);
    let mut sgd = Sgd::new(SgdConfig { max_norm: Some(0.5), ..Default::default() }, &config());
    let (mut history, mut clips) = (Vec::new(), Vec::new());
    for step in 0..3 {
        let grads = gradients(&network, step, 1.0);
        let values: Vec<_> = (0..grads.len())
            .map(|i| grads.values(i).map(|d| d.try_to_vec::<f32>().unwrap()))
            .collect();
        history.push(values);
        let (next, report) = sgd.step(network, grads, 0.01);
        network = next;
        assert!(!report.skipped);
        clips.push((0.5 / (report.grad_norm + 1e-6)).min(1.0));
    }
    assert!(clips.iter().any(|&c| c < 1.0), "the norm must exceed the bound: {clips:?}");
    let end = parameters(&network);
    for (index, (spec, velocity)) in sgd.velocities().enumerate() {
        if spec.name.starts_with("decoder.heads.0") {
            assert_eq!(end[index], start[index], "no gradient, no decay");
            assert!(velocity.is_none());
            continue;
        }
        let velocity = velocity.unwrap();
        assert_eq!(velocity.shape().as_slice(), spec.shape);
        let velocity = velocity.try_to_vec::<f32>().unwrap();
        for i in 0..end[index].len() {
            let g: Vec<f64> =
                history.iter().map(|h| f64::from(h[index].as_ref().unwrap()[i])).collect();
            let (w, v) = by_hand(f64::from(start[index][i]), &g, &clips, 0.01);
            assert!(
                (f64::from(end[index][i]) - w).abs() <= 2e-7 * w.abs().max(1.0),
                "{}",
                spec.name
            );
            assert!(
                (f64::from(velocity[i]) - v).abs() <= 1e-6 * v.abs().max(1e-1),
                "{}",
                spec.name
            );
        }
    }
}

#[test]
fn slices_and_operators_agree() {
    let device = Device::flex();
    let make = |seed| {
        device.seed(seed);
        Tensor::<1>::random([40_000], Distribution::Normal(0.0, 1.0), &device)
    };
    for velocity in [None, Some(make(3))] {
        for nesterov in [true, false] {
            let config = SgdConfig { nesterov, ..Default::default() };
            let step = update::UpdateFactors { config, gradient_factor: 0.25, lr: 0.01 };
            let (w, v) = update::on_host_slices(make(1), make(2), velocity.clone(), &step);
            let (w2, v2) = update::with_operators(make(1), make(2), velocity.clone(), &step);
            let tolerance = burn::tensor::Tolerance::rel_abs(1e-6, 1e-6);
            w.into_data().assert_approx_eq::<f32>(&w2.into_data(), tolerance);
            v.into_data().assert_approx_eq::<f32>(&v2.into_data(), tolerance);
        }
    }
}

#[test]
fn the_norm_is_pytorchs() {
    let network = network(&Device::flex().autodiff());
    let grads = gradients(&network, 1, 1.0);
    let squares: f64 = (0..grads.len())
        .filter_map(|i| grads.values(i))
        .map(|d| d.iter::<f64>().map(|v| v * v).sum::<f64>())
        .sum();
    assert!((grads.norm() / squares.sqrt() - 1.0).abs() < 1e-12);
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut network = network(&Device::flex().autodiff());
    let start = parameters(&network);
    let mut sgd = Sgd::new(SgdConfig::default(), &config());
    let mut scaler = LossScaler::default();
    for factor in [f64::INFINITY, f64::NAN] {
        let grads = gradients(&network, 1, factor);
        let (next, report) = sgd.step_scaled(network, grads, 0.01, &mut scaler);
        network = next;
        assert!(report.skipped && !report.grad_norm.is_finite());
    }
    assert_eq!(parameters(&network), start);
    assert!(sgd.velocities().all(|(_, v)| v.is_none()));
    assert_eq!(scaler.factor(), 16384.0);
}

#[test]
fn the_loss_scale_is_taken_out() {
    let step = |factor: f64| {
        let network = network(&Device::flex().autodiff());
        let mut sgd = Sgd::new(SgdConfig::default(), &config());
        let mut scaler = LossScaler::restore(factor, 0);
        let grads = gradients(&network, 1, factor);
        let (network, report) = sgd.step_scaled(network, grads, 0.01, &mut scaler);
        (parameters(&network), report.grad_norm)
    };
    let ((a, norm_a), (b, norm_b)) = (step(1.0), step(1024.0));
    assert_eq!(a, b);
    assert!((norm_a / norm_b - 1.0).abs() < 1e-12);
}

#[test]
fn micro_batches_add_up() {
    let network = network(&Device::flex().autodiff());
    let (a, b) = (gradients(&network, 1, 0.5), gradients(&network, 2, 0.5));
    let sum = a.clone() + b.clone();
    for i in 0..sum.len() {
        let data = |g: &ParameterGradients| g.values(i).map(|d| d.try_to_vec::<f32>().unwrap());
        let Some(sum) = data(&sum) else {
            assert!(data(&a).is_none() && data(&b).is_none());
            continue;
        };
        for (s, (a, b)) in sum.iter().zip(data(&a).unwrap().iter().zip(data(&b).unwrap())) {
            assert_eq!(*s, a + b);
        }
    }
}

#[test]
fn continuing_is_the_same_as_going_on() {
    let device = Device::flex().autodiff();
    let run = |restart: bool| {
        let mut network = network(&device);
        let mut sgd = Sgd::new(SgdConfig::default(), &config());
        for step in 0..4 {
            if restart && step == 2 {
                let kept: std::collections::HashMap<String, TensorData> =
                    sgd.velocities().filter_map(|(s, v)| Some((s.name.clone(), v?))).collect();
                sgd = Sgd::new(SgdConfig::default(), &config());
                sgd.restore(&mut |s| kept.get(&s.name).cloned(), &device).unwrap();
            }
            let grads = gradients(&network, step, 1.0);
            network = sgd.step(network, grads, 0.01).0;
        }
        parameters(&network)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_velocity_of_another_shape_is_refused() {
    let mut sgd = Sgd::new(SgdConfig::default(), &config());
    let error = sgd
        .restore(&mut |_| Some(TensorData::zeros::<f32, _>([1])), &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(error.contains("velocity of encoder.stages.0.0.conv1.weight"), "{error}");
}

#[test]
fn the_average_follows_the_weights() {
    let device = Device::flex().autodiff();
    let mut network = network(&device);
    let start = parameters(&network);
    let mut ema = Ema::new(0.75, &network);
    let mut sgd = Sgd::new(SgdConfig::default(), &config());
    network = {
        let g = gradients(&network, 1, 1.0);
        sgd.step(network, g, 0.1).0
    };
    ema.update(&network);
    let (end, average) = (parameters(&network), parameters(ema.network()));
    let mut moved = false;
    for ((a, w0), w1) in
        average.iter().flatten().zip(start.iter().flatten()).zip(end.iter().flatten())
    {
        assert!((a - (0.75 * w0 + 0.25 * w1)).abs() <= 1e-6, "{a} {w0} {w1}");
        moved |= w0 != w1;
    }
    assert!(moved);
    // The network itself is not touched, and the average carries no gradient.
    assert_ne!(parameters(&network), average);
    ema.network().for_each_parameter(&mut |_, p| {
        if let ParameterRef::Vector(p) = p {
            assert!(!p.val().is_require_grad());
        }
    });
}

/// Twenty steps of nnU-Net 2.8.1's trainers, recorded by scripts/reference/record_variants.py: the first
/// weight and bias of the network have gradients, the others none.
#[test]
fn steps_as_nnunets_trainers() {
    use stunet_testing::prng::uniform;
    let recorded = include_str!("../../../../tests/data/variants/optimisers.json");
    let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
    let seed = recorded["seed"].as_u64().unwrap();
    let check = |name: &str, optimiser: &dyn OptimiserConfig, bound: f64| {
        let device = Device::flex().autodiff();
        let mut index = 20;
        let mut source = |spec: &ParameterSpec| {
            let count = spec.shape.iter().product();
            index += 1;
            Ok(TensorData::new(uniform(seed, index - 1, count), spec.shape.clone()))
        };
        let mut network = StuNet::from_source(&config(), &mut source, &device).unwrap();
        let before = parameters(&network);
        let mut running = optimiser.init(&config());
        for step in 0..20 {
            let scale = if step % 4 == 0 { 0.5 } else { 0.125 };
            let of = |index: u64, len: usize| {
                let values = uniform(seed, 100 + 2 * step + index, len);
                let values: Vec<f32> = values.into_iter().map(|v| scale * v).collect();
                Some((Tensor::<1>::from_data(TensorData::new(values, [len]), &Device::flex()), 2))
            };
            let mut gradients = vec![None; before.len()];
            gradients[..2].clone_from_slice(&[of(0, 54), of(1, 2)]);
            let gradients = ParameterGradients::from_list(gradients);
            let lr = crate::schedule::poly_lr(0.01, step as usize, 20);
            network = running.step(network, gradients, lr, 1.0).0;
        }
        let after = parameters(&network);
        assert!(after[2..] == before[2..], "{name}: without a gradient nothing moves");
        for (index, found) in after[..2].iter().enumerate() {
            let expected =
                recorded[name][index].as_array().unwrap().iter().map(|v| v.as_f64().unwrap());
            let moved = found.iter().zip(&before[index]).map(|(a, b)| f64::from((a - b).abs()));
            let moved = moved.fold(0.0, f64::max);
            assert!(moved > 0.01, "{name}");
            for (found, expected) in found.iter().zip(expected) {
                let off = (f64::from(*found) - expected).abs();
                assert!(off <= bound * moved, "{name}: {found} {expected}, {:e}", off / moved);
            }
        }
    };
    check("sgd", &SgdConfig::default(), 2e-6);
    check("adamw-amsgrad", &AdamSettings::nnunet_adam(), 1e-4);
    check("adam", &AdamSettings::vanilla(), 1e-4);
}

/// A factor of the rate is a factor of the step, whatever the optimiser.
#[test]
fn rates_by_layer() {
    use crate::rates::LayerRates;
    let rates = LayerRates { decay: 0.5, factors: vec![("heads".parse().unwrap(), 3.0)] };
    let check = |optimiser: &dyn OptimiserConfig| {
        let device = Device::flex().autodiff();
        let start = network(&device);
        let specs = config().parameter_specs();
        let factors: Vec<f64> = specs.iter().map(|spec| rates.of(spec)).collect();
        let moved = |with: bool| {
            let mut running = optimiser.init(&config());
            if with {
                running.set_rate_factors(factors.clone()).unwrap();
            }
            // Replicas have the same.
            let mut running = running.at_rest();
            let gradients = gradients(&start, 1, 1.0);
            let after = parameters(&running.step(start.clone(), gradients, 1e-3, 1.0).0);
            let pairs = parameters(&start).into_iter().zip(after);
            pairs.map(|(a, b)| f64::from(b[0] - a[0])).collect::<Vec<_>>()
        };
        let (plain, scaled) = (moved(false), moved(true));
        assert!(plain.iter().filter(|v| v.abs() > 1e-7).count() > 20, "{plain:?}");
        for ((spec, factor), (plain, scaled)) in
            specs.iter().zip(&factors).zip(plain.iter().zip(&scaled))
        {
            let off = (scaled - plain * factor).abs();
            assert!(off <= 2e-7 + 1e-3 * plain.abs() * factor, "{}: {plain} {scaled}", spec.name);
        }
    };
    check(&SgdConfig { momentum: 0.5, ..SgdConfig::default() });
    check(&AdamSettings { weight_decay: 0.0, ..AdamSettings::nnunet_adam() });
}
