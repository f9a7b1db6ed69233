//! A network of one's own predicts: resampling, windows, mirroring, tiles, the image's grid, NIfTI.
#![allow(clippy::disallowed_macros, reason = "examples print")]

use burn::module::Module;
use burn::nn::conv::{Conv3d, Conv3dConfig};
use burn::nn::{Initializer, PaddingConfig3d};
use burn::tensor::{Device, Tensor, activation};
use ndarray::Array4;
use std::ops::ControlFlow;
use std::path::Path;
use stunet::data::geometry::Geometry;
use stunet::data::image::Image;
use stunet::data::labels::LabelSet;
use stunet::data::nifti;
use stunet::data::plans::{Normalization, Plans};
use stunet::infer::{Model, Outputs, PredictOptions, Prediction, TensorNetwork, predict};

/// The brightness of a voxel's neighbourhood, as the probability of being inside.
#[derive(Module, Debug)]
struct Brightness {
    mean: Conv3d,
}

impl Brightness {
    fn new(device: &Device) -> Self {
        let config = Conv3dConfig::new([1, 1], [3; 3]).with_padding(PaddingConfig3d::Same);
        let weights = Initializer::Constant { value: 1.0 / 27.0 };
        Self { mean: config.with_bias(false).with_initializer(weights).init(device) }
    }

    /// `[1, 1, Z, Y, X]` gives `[1, 2, Z, Y, X]`: outside and inside.
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let inside = activation::sigmoid((self.mean.forward(x) - 50.0) / 10.0);
        Tensor::cat(vec![1.0 - inside.clone(), inside], 1)
    }
}

/// What a prediction needs: the network with a statement of its cost, plans and labels.
fn model(device: &Device) -> anyhow::Result<Model> {
    let brightness = Brightness::new(device);
    let network = TensorNetwork {
        device: device.clone(),
        in_channels: 1,
        num_classes: 2,
        outputs: Outputs::Probabilities, // so nothing is put through a softmax again
        bytes_per_voxel: 6 * 4,          // six feature maps of full size, at most
        multiple_of: [1; 3],
        identity: Some("brightness, version 1".to_owned()),
        forward: move |x| brightness.forward(x),
    };
    let mut plans = Plans::totalsegmentator();
    plans.channels[0].scheme = Normalization::None;
    let plans = Plans { patch_size: [16; 3], strides: Vec::new(), num_outputs: None, ..plans };
    Ok(Model::from_parts(vec![network], plans, LabelSet::from_names(["background", "ball"])?)?)
}

/// Segments a bright ball in a volume of so many voxels per axis, in one go and within less memory.
pub fn run(size: usize, output: &Path) -> anyhow::Result<[Prediction; 2]> {
    let image = Array4::from_shape_fn((1, size, size, size), |(_, z, y, x)| {
        let squares = [z, y, x].map(|v| (v as f32 - size as f32 / 2.0).powi(2));
        if squares.iter().sum::<f32>() < (size as f32 / 4.0).powi(2) { 100.0 } else { 0.0 }
    });
    let image = Image::new(image, Geometry::axis_aligned([size; 3], [2.0, 1.0, 1.0])?)?;
    let model = model(&Device::flex())?;
    let predicted = |memory_bytes| {
        let options = PredictOptions { memory_bytes, ..PredictOptions::default() };
        predict(&model, &image, &options, &mut |_| ControlFlow::Continue(()))
    };
    let whole = predicted(None)?;
    let divided = predicted(Some(whole.report.memory.total_bytes() * 9 / 10))?;
    nifti::write_compact_labelmap(output, &divided.labelmap, model.labels().max_value(), None)?;
    Ok([whole, divided])
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> anyhow::Result<()> {
    let [_, divided] = run(48, &std::env::temp_dir().join("ball.nii.gz"))?;
    println!("{} tiles", divided.report.memory.tiles.len());
    Ok(())
}
