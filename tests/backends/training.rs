//! What is trained and how: losses of nnU-Net's variants, frozen parts, low-rank factors.

use burn::tensor::{Device, Int, Tensor, TensorData};
use ndarray::{Array3, Array4};
use std::ops::ControlFlow;
use std::sync::Arc;
use stunet::data::augment::Augmentation;
use stunet::data::loader::LoaderConfig;
use stunet::data::sample::MemoryCase;
#[cfg(feature = "gpu")]
use stunet::kernels::kernel_calls;
use stunet::model::{Initialisation, ParameterSource, StuNetConfig};
use stunet::train::loss::{Loss, LossConfig, LossTerms};
use stunet::train::optimiser::{Sgd, SgdConfig};
use stunet::train::{FitCases, FitConfig, LowRankOptions, StateOptions, TrainingState, fit};
use stunet_testing::prng;
#[cfg(feature = "gpu")]
use stunet_testing::{compare::assert_close, say};

const SHAPE: [usize; 5] = [2, 4, 5, 6, 7];
const IGNORED: i32 = 4;

/// Name, value and gradient of every variant, an ignored label among the others.
pub fn losses(device: &Device) -> Vec<(String, f64, Vec<f32>)> {
    let device = device.clone().autodiff();
    let [n, _, z, y, x] = SHAPE;
    let labels = prng::integers(5, 0, n * z * y * x, 5).into_iter().map(|label| label as i32);
    let labels = TensorData::new(labels.collect::<Vec<_>>(), [n, z, y, x]);
    let targets = [Tensor::<4, Int>::from_data(labels, &device)];
    let all = [
        LossTerms::DiceAndCrossEntropy,
        LossTerms::Dice,
        LossTerms::CrossEntropy,
        LossTerms::TopK { percent: 10.0, label_smoothing: 0.1 },
        LossTerms::DiceAndTopK { percent: 10.0 },
    ];
    let run = |terms: LossTerms| {
        let values = prng::uniform(5, 1, SHAPE.iter().product());
        let logits = Tensor::<5>::from_data(TensorData::new(values, SHAPE), &device) * 3.0;
        let logits = logits.detach().require_grad();
        let stock = LossConfig::v2(true);
        let config = LossConfig { terms, ignore_label: Some(IGNORED), weights: vec![1.0], ..stock };
        let (value, grads) = Loss::new(config).unwrap().backward(vec![logits.clone()], &targets);
        let gradient = logits.grad(&grads).unwrap().into_data().convert::<f32>();
        (format!("{terms:?}"), value.total, gradient.try_to_vec::<f32>().unwrap())
    };
    all.into_iter().map(run).collect()
}

/// The loss of many classes on a GPU: the processor's value and gradient, twice the same bits, and no more
/// passes over the logits than three to read and one to write.
#[cfg(feature = "gpu")]
pub fn fused_loss(device: &Device) {
    let [n, classes, z, y, x] = [2, 105, 5, 6, 7];
    let ignored = classes as i32;
    let run = |device: &Device, batch_dice: bool| {
        let device = device.clone().autodiff();
        let values = prng::uniform(8, 1, n * z * y * x * classes);
        // As a head on a GPU leaves them.
        let values = TensorData::new(values, [n, z, y, x, classes]);
        let logits = Tensor::<5>::from_data(values, &device).permute([0, 4, 1, 2, 3]) * 6.0;
        let logits = logits.detach().require_grad();
        let labels = prng::integers(8, 0, n * z * y * x, classes as u64 + 1).into_iter();
        let labels = labels.map(|label| label as i32).collect::<Vec<_>>();
        let targets = [Tensor::<4, Int>::from_data(TensorData::new(labels, [n, z, y, x]), &device)];
        let stock = LossConfig::v2(batch_dice);
        let config = LossConfig { ignore_label: Some(ignored), weights: vec![1.0], ..stock };
        let loss = Loss::new(config).unwrap();
        let (value, gradients) = loss.backward(vec![logits.clone()], &targets);
        let gradient = logits.grad(&gradients).unwrap().into_data();
        (value.total, gradient.try_to_vec::<f32>().unwrap())
    };
    let cpu = stunet::device::parse("cpu").unwrap();
    for batch_dice in [true, false] {
        let (expected, slope) = run(&cpu, batch_dice);
        let ((value, gradient), calls) = kernel_calls(|| run(device, batch_dice));
        assert!((value - expected).abs() <= 1e-5 * expected.abs(), "{value} {expected}");
        let largest = f64::from(slope.iter().fold(0f32, |most, v| most.max(v.abs())));
        assert_close("loss of many classes", &gradient, &slope, 2e-5 * largest, 2e-5 * largest);
        assert_eq!(run(device, batch_dice), (value, gradient), "other bits the second time");
        let of_loss = calls.iter().filter(|call| call.kernel.starts_with("softmax"));
        let (read, written) =
            of_loss.fold((0, 0), |sum, call| (sum.0 + call.read, sum.1 + call.written));
        let logits = 4 * n * classes * z * y * x;
        let passes = [read, written].map(|bytes| bytes as f64 / logits as f64);
        say!("passes over the logits, read and written: {passes:.2?}");
        assert!((3.0..3.2).contains(&passes[0]), "{passes:?}, {calls:?}");
        assert!(calls.iter().all(|call| call.kernel != "copy"), "{calls:?}");
    }
}

/// The network after two steps, with a frozen stage and low-rank factors beside the others.
pub fn adapted(device: &Device) -> Vec<f32> {
    let strides = [[2; 3], [2; 3], [2; 3], [1; 3], [1; 3]];
    let network = StuNetConfig { width: [4; 6], strides, ..StuNetConfig::small(1, 2) };
    let labels = Array3::from_shape_fn([16; 3], |(z, y, x)| i16::from(z > 5 && y > 6 && x > 7));
    let noise = |z, y, x| ((z * 31 + y * 17 + x * 7) % 13) as f32 / 13.0 - 0.5;
    let image = labels.indexed_iter().map(|((z, y, x), &label)| f32::from(label) + noise(z, y, x));
    let image = Array4::from_shape_vec([1, 16, 16, 16], image.collect()).unwrap();
    let cases = Arc::new(vec![MemoryCase::new("box", image, labels).unwrap()]);
    let cases = FitCases { training: cases, validation: None };
    let loader = LoaderConfig::new(Augmentation::none([16; 3]), 2, &network.strides);
    let config = FitConfig::new(1, loader, Loss::new(LossConfig::v2(true)).unwrap());
    let config = FitConfig { num_iterations: 2, ..config };
    let options = StateOptions {
        frozen: "stage0".parse().unwrap(),
        low_rank: Some(LowRankOptions::new(2)),
        ..StateOptions::new(device)
    };
    let on = options.training_device();
    let start = network.init_seeded(Initialisation::NnUNetV1, 3, &on).unwrap();
    let state = TrainingState::try_new(start, &options).unwrap();
    let end = fit(state, &cases, &config, None, &mut |_| ControlFlow::Continue(())).unwrap();
    let mut source = end.network_for_inference().source();
    let specs = network.parameter_specs().into_iter();
    specs
        .flat_map(|spec| source.parameter(&spec).unwrap().iter::<f32>().collect::<Vec<_>>())
        .collect()
}

/// Steps of a small network on one batch: what the device holds after each of the last two thirds.
pub fn reserved(device: &Device, num_steps: usize) -> Vec<[u64; 2]> {
    let tracked = device.clone().autodiff();
    let strides = [[2; 3], [2; 3], [2; 3], [1; 3], [1; 3]];
    let config = StuNetConfig { width: [4; 6], strides, ..StuNetConfig::small(1, 3) };
    let size = [16; 3];
    let mut network = config.init_seeded(Initialisation::NnUNetV1, 5, &tracked).unwrap();
    let [z, y, x] = size;
    let input = prng::uniform(6, 0, z * y * x);
    let input = Tensor::<5>::from_data(TensorData::new(input, [1, 1, z, y, x]), &tracked);
    let targets: Vec<_> = config.stage_sizes(size)[..5]
        .iter()
        .enumerate()
        .map(|(scale, &[z, y, x])| {
            let labels = prng::integers(6, 1 + scale as u64, z * y * x, 3).into_iter();
            let labels = labels.map(|label| label as i32).collect::<Vec<_>>();
            Tensor::<4, Int>::from_data(TensorData::new(labels, [1, z, y, x]), &tracked)
        })
        .collect();
    let loss = Loss::new(LossConfig::v2(true)).unwrap();
    let mut sgd = Sgd::new(SgdConfig::default(), &config);
    let mut held = Vec::new();
    for step in 0..num_steps {
        let outputs = network.forward_deep(input.clone());
        let (value, gradients) = loss.backward(outputs, &targets);
        assert!(value.total.is_finite(), "step {step}: {value:?}");
        (network, _) = sgd.step(network, gradients, 1e-3);
        if 3 * step >= num_steps {
            let usage = device.memory_pool_usage().expect("CubeCL tells what it holds");
            held.push([usage.bytes_reserved, usage.bytes_in_use]);
        }
    }
    held
}
