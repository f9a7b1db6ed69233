//! STU-Net's encoder in a network of one's own: a classifier of small volumes, trained with Burn's
//! Adam on batches of this project's loader.
#![allow(clippy::disallowed_macros, reason = "examples print")]

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use burn_optim::{AdamConfig, GradientsParams};
use ndarray::{Array3, Array4};
use stunet::data::augment::Augmentation;
use stunet::data::loader::{LoaderConfig, TrainingBatch, batch};
use stunet::data::sample::MemoryCase;
use stunet::model::{Encoder, StuNetConfig};
use stunet::train::DeviceBatch;

/// The encoder's deepest features, averaged over space, and one linear layer.
#[derive(Module, Debug)]
struct Classifier {
    encoder: Encoder,
    head: Linear,
}

impl Classifier {
    /// `[N, 1, Z, Y, X]` gives `[N, 2]`.
    fn forward(&self, x: Tensor<5>) -> Tensor<2> {
        let deepest = self.encoder.forward(x).pop().expect("an encoder has stages");
        self.head.forward(deepest.flatten::<3>(2, 4).mean_dim(2).flatten(1, 2))
    }
}

/// A ball (label 1) or a slab (label 2) of the same brightness.
fn volume(index: usize) -> anyhow::Result<MemoryCase> {
    let (centre, label) = (6 + index % 4, 1 + index % 2);
    let inside = |(z, y, x): (usize, usize, usize)| match label {
        1 => [z, y, x].iter().map(|v| v.abs_diff(centre).pow(2)).sum::<usize>() < 16,
        _ => z.abs_diff(centre) < 2,
    };
    let labels = Array3::from_shape_fn([16; 3], |at| if inside(at) { label as i16 } else { 0 });
    let image = Array4::from_shape_fn([1, 16, 16, 16], |(_, z, y, x)| {
        f32::from(labels[[z, y, x]] > 0) + ((z * 7 + y * 5 + x * 3 + index) % 11) as f32 / 20.0
    });
    Ok(MemoryCase::new(format!("volume {index}"), image, labels)?)
}

/// Images, and the label of each volume as its class.
fn on_device(batch: &TrainingBatch, device: &Device) -> (Tensor<5>, Tensor<1, Int>) {
    let DeviceBatch { images, targets } = DeviceBatch::new(batch, device);
    (images, targets[0].clone().flatten::<2>(1, 3).max_dim(1).flatten::<1>(0, 1) - 1)
}

/// Trains for so many steps; the loss of the first and of the last one.
pub fn run(steps: u64) -> anyhow::Result<(f64, f64)> {
    let device = stunet::device::parse("cpu")?.autodiff();
    device.seed(1);
    let strides = [[2; 3], [2; 3], [1; 3], [1; 3], [1; 3]];
    let config = StuNetConfig::small(1, 2).with_width([4, 8, 8, 8, 8, 8]).with_strides(strides);
    let (encoder, head) = (config.init_encoder(&device), LinearConfig::new(8, 2).init(&device));
    let mut model = Classifier { encoder, head };
    let cases = (0..16).map(volume).collect::<anyhow::Result<Vec<_>>>()?;
    let loader = LoaderConfig::new(Augmentation::none([16; 3]), 4, &[]);
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let mut optimiser = AdamConfig::new().init();
    let mut losses = Vec::new();
    for step in 0..steps {
        let (images, classes) = on_device(&batch(&cases, &loader, step)?, &device);
        let loss = cross_entropy.forward(model.forward(images), classes);
        losses.push(loss.clone().into_scalar());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimiser.step(1e-2, model, gradients);
    }
    Ok((losses[0], losses[losses.len() - 1]))
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> anyhow::Result<()> {
    let (first, last) = run(40)?;
    println!("loss {first:.3} -> {last:.3}");
    Ok(())
}
