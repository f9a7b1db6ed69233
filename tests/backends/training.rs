//! What is trained and how: losses of nnU-Net's variants, frozen parts, low-rank factors.

use burn::tensor::{Device, Int, Tensor, TensorData};
use ndarray::{Array3, Array4};
use std::ops::ControlFlow;
use std::sync::Arc;
use stunet::data::augment::Augmentation;
use stunet::data::loader::LoaderConfig;
use stunet::data::sample::MemoryCase;
use stunet::model::{Initialisation, ParameterSource, StuNetConfig};
use stunet::train::loss::{Loss, LossConfig, LossTerms};
use stunet::train::{FitCases, FitConfig, LowRankOptions, StateOptions, TrainingState, fit};
use stunet_testing::prng;

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
