//! STU-Net's encoder in a network of one's own: the encoder of a segmentation model, with a linear
//! layer, tells balls from slabs. Trained with Burn's Adam on batches of this project's loader.
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
use stunet::model::{Encoder, weights::folder};
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
    let (centre, label) = (12 + index % 8, 1 + index % 2);
    let inside = |(z, y, x): (usize, usize, usize)| match label {
        1 => [z, y, x].iter().map(|v| v.abs_diff(centre).pow(2)).sum::<usize>() < 64,
        _ => z.abs_diff(centre) < 4,
    };
    let labels = Array3::from_shape_fn([32; 3], |at| if inside(at) { label as i16 } else { 0 });
    let image = Array4::from_shape_fn([1, 32, 32, 32], |(_, z, y, x)| {
        f32::from(labels[[z, y, x]] > 0) + ((z * 7 + y * 5 + x * 3 + index) % 11) as f32 / 20.0
    });
    Ok(MemoryCase::new(format!("volume {index}"), image, labels)?)
}

/// Images, and the label of each volume as its class.
fn on_device(batch: &TrainingBatch, device: &Device) -> (Tensor<5>, Tensor<1, Int>) {
    let DeviceBatch { images, targets } = DeviceBatch::new(batch, device);
    (images, targets[0].clone().flatten::<2>(1, 3).max_dim(1).flatten::<1>(0, 1) - 1)
}

/// Trains for so many steps, the encoder too unless it is frozen: the loss of the first and of the
/// last step.
pub fn run(steps: u64, frozen: bool) -> anyhow::Result<(f64, f64)> {
    let device = stunet::device::parse("cpu")?.autodiff();
    device.seed(1);
    let pretrained = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/stunet-phantom/demo-model");
    let (encoder, _) = folder::open(pretrained.as_ref())?.load_encoder(&device)?;
    let encoder = if frozen { encoder.freeze() } else { encoder };
    let head = LinearConfig::new(encoder.width()[5], 2).init(&device);
    let mut model = Classifier { encoder, head };
    let cases = (0..16).map(volume).collect::<anyhow::Result<Vec<_>>>()?;
    let loader = LoaderConfig::new(Augmentation::none([32; 3]), 4, &[]);
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let (mut optimiser, mut losses) = (AdamConfig::new().init(), Vec::new());
    for step in 0..steps {
        let (images, classes) = on_device(&batch(&cases, &loader, step)?, &device);
        let loss = cross_entropy.forward(model.forward(images), classes);
        losses.push(loss.clone().into_scalar());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimiser.step(if frozen { 3e-2 } else { 3e-3 }, model, gradients);
    }
    Ok((losses[0], losses[losses.len() - 1]))
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> anyhow::Result<()> {
    println!("losses, encoder frozen {:?}, encoder trained {:?}", run(60, true)?, run(20, false)?);
    Ok(())
}
