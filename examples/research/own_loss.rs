//! A loss of one's own in `fit`: Tversky's index, which weighs missed voxels against false ones, at
//! every scale of deep supervision.
#![allow(clippy::disallowed_macros, reason = "examples print")]

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor};
use ndarray::{Array3, Array4};
use std::ops::ControlFlow;
use std::sync::Arc;
use stunet::data::augment::Augmentation;
use stunet::data::loader::LoaderConfig;
use stunet::data::sample::MemoryCase;
use stunet::model::{Initialisation, StuNetConfig};
use stunet::train::loss::deep_supervision::weights;
use stunet::train::objective::Objective;
use stunet::train::{FitCases, FitConfig, StateOptions, TrainingState, fit};

/// One less the index of every foreground class: `tp / (tp + alpha * fp + beta * fn)`.
#[derive(Debug)]
struct Tversky {
    alpha: f64,
    beta: f64,
}

impl Tversky {
    /// Logits `[N, C, Z, Y, X]` and labels `[N, Z, Y, X]`.
    fn at_one_scale(&self, logits: &Tensor<5>, labels: &Tensor<4, Int>) -> Tensor<1> {
        let classes = logits.dims()[1];
        let sums = |x: Tensor<5>| x.flatten::<3>(2, 4).sum_dim(2);
        let predicted = softmax(logits.clone(), 1);
        let labelled = labels.clone().one_hot::<5>(classes).float().permute([0, 4, 1, 2, 3]);
        let both = sums(predicted.clone() * labelled.clone());
        let false_positive = sums(predicted) - both.clone();
        let false_negative = sums(labelled) - both.clone();
        let all = both.clone() + false_positive * self.alpha + false_negative * self.beta;
        let index = (both + 1.0) / (all + 1.0);
        index.narrow(1, 1, classes - 1).mean().neg().add_scalar(1.0)
    }
}

impl Objective for Tversky {
    fn describe(&self) -> String {
        format!("Tversky, alpha {}, beta {}", self.alpha, self.beta)
    }

    fn loss(&self, logits: &[Tensor<5>], targets: &[Tensor<4, Int>]) -> Tensor<1> {
        let scales = logits.iter().zip(targets).zip(weights(logits.len()));
        let weighted = scales.filter(|(_, weight)| *weight > 0.0);
        let terms = weighted.map(|((x, y), weight)| self.at_one_scale(x, y) * weight);
        terms.reduce(|a, b| a + b).expect("the finest scale has a weight")
    }
}

/// Trains on a bright box for some epochs; the loss of the first and of the last, and the last Dice.
pub fn run(num_epochs: usize) -> anyhow::Result<(f64, f64, f64)> {
    let labels = Array3::from_shape_fn([24; 3], |(z, y, x)| i16::from(z > 7 && y > 9 && x > 11));
    let noise = |z, y, x| ((z * 31 + y * 17 + x * 7) % 13) as f32 / 13.0 - 0.5;
    let image = labels.indexed_iter().map(|((z, y, x), &l)| f32::from(l) + noise(z, y, x));
    let image = Array4::from_shape_vec([1, 24, 24, 24], image.collect())?;
    let cases = Arc::new(vec![MemoryCase::new("box", image, labels)?]);
    let cases = FitCases { training: cases.clone(), validation: Some(cases) };

    let strides = [[2; 3], [2; 3], [2; 3], [1; 3], [1; 3]];
    let network = StuNetConfig { width: [4; 6], strides, ..StuNetConfig::small(1, 2) };
    let loader = LoaderConfig::new(Augmentation::v2([16; 3]), 2, &network.strides);
    let config = FitConfig::new(num_epochs, loader, Tversky { alpha: 0.3, beta: 0.7 });
    let config = FitConfig { num_iterations: 10, ..config };
    let options = StateOptions::new(&Device::flex());
    let device = options.training_device();
    let network = network.init_seeded(Initialisation::NnUNetV1, 1, &device)?;
    let go_on = &mut |_: stunet::train::FitEvent<'_>| ControlFlow::Continue(());
    let state = fit(TrainingState::new(network, &options), &cases, &config, None, go_on)?;
    let [first, .., last] = &state.progress.history[..] else { anyhow::bail!("too few epochs") };
    Ok((first.train_loss, last.train_loss, last.pseudo_dice.unwrap_or(0.0)))
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> anyhow::Result<()> {
    run(20).map(|found| println!("{found:?}"))
}
