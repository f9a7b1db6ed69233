//! A CT in, 104 structures out.
//!
//! ```console
//! cargo run --release --example predict_totalseg -- --input CT.nii.gz --weights base_ep4k.model
//! ```
//!
//! Without arguments the whole job runs on a phantom, with a small network of random weights.

use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::tensor::Device;
use clap::Parser;
use stunet::data::{geometry::Geometry, image::Image, labels::LabelSet, nifti, plans::Plans};
use stunet::infer::{Event, Model, OpenOptions, PredictOptions, predict};
use stunet::model::{Initialisation, StuNet, StuNetConfig};

/// Segments a CT with the published weights of STU-Net.
#[derive(Parser)]
struct Args {
    /// A CT as NIfTI; without it, a phantom
    #[arg(long)]
    input: Option<PathBuf>,
    /// small_ep4k.model, base_ep4k.model, …; without it, random weights
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Where to write the labelmap
    #[arg(long)]
    output: Option<PathBuf>,
    /// auto, cpu, cuda:0, …
    #[arg(long, default_value = "auto")]
    device: String,
    /// Average over mirrored windows, as the reference does: eight times the work
    #[arg(long)]
    tta: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = stunet::device::parse(&args.device)?;
    let model = match &args.weights {
        Some(weights) => Model::open(weights, &OpenOptions::new(&device))?,
        None => random_model(&device)?,
    };
    let image = match &args.input {
        Some(file) => nifti::read_image(&[file])?,
        None => phantom()?,
    };

    let options = PredictOptions { mirror: args.tta, ..PredictOptions::default() };
    let prediction = predict(&model, &image, &options, &mut |event| {
        if let Event::Windows { done: done @ 1.., total } = event {
            println!("window {done} of {total}");
        }
        ControlFlow::Continue(())
    })?;

    let voxel_ml = image.geometry.voxel_volume_mm3() / 1000.0;
    for label in &model.labels().labels()[1..] {
        let is_label = |voxel: &&u16| label.values.contains(voxel);
        let voxels = prediction.labelmap.data.iter().filter(is_label).count();
        if voxels > 0 {
            println!("{:32} {:10.1} ml", label.name, voxels as f64 * voxel_ml);
        }
    }
    if let Some(path) = &args.output {
        nifti::write_labelmap(path, &prediction.labelmap, model.labels().max_value())?;
        println!("written: {}", path.display());
    }
    Ok(())
}

/// A network with the published plan and labels, but a quarter of the width and no knowledge.
fn random_model(device: &Device) -> anyhow::Result<Model> {
    println!(
        "No --weights: the network is small and its weights are random, so the organs it finds"
    );
    println!("mean nothing. For real ones pass --weights base_ep4k.model, from");
    println!("https://huggingface.co/ziyanhuang/STU-Net");
    let config = StuNetConfig { width: [4, 8, 16, 32, 64, 64], ..StuNetConfig::small(1, 105) };
    let network = StuNet::init(&config, Initialisation::NnUNetV1, 1, device)?;
    let labels = LabelSet::totalsegmentator();
    Ok(Model::from_parts(vec![network], Plans::totalsegmentator(), labels)?)
}

/// A torso at about 4 mm.
fn phantom() -> anyhow::Result<Image> {
    println!("No --input: the CT is a phantom. For a real one pass --input CT.nii.gz");
    let torso = stunet_testing::phantom::torso([80, 64, 88], 1);
    let shape = [80, 64, 88];
    let geometry = Geometry::new(shape, torso.spacing_mm, torso.origin_mm, torso.direction)?;
    Ok(Image::new(torso.image.insert_axis(ndarray::Axis(0)), geometry)?)
}
