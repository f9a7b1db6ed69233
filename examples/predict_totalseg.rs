//! Segments a CT and draws the result.
//!
//! ```console
//! cargo run --release --example predict_totalseg -- --input CT.nii.gz --weights base_ep4k.model
//! ```
//!
//! Without arguments, a new phantom is segmented with the demo model of this repository
//! (`examples/demo-model`), which is small, was trained on phantoms by `train_demo`, and has never
//! seen a real patient.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "examples print; text from outside goes through `shown` or `{:?}`"
)]

mod common;

use burn::tensor::Device;
use clap::Parser;
use common::scores::{dice, mean};
use common::{demo, pictures, shown};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use stunet::data::{image::Image, labels::LabelMap, nifti, plans::OrientationChoice};
use stunet::infer::{Model, OpenOptions, PredictEvent, PredictOptions, Stage, predict};
use stunet::pictures::preview::PreviewOptions;
use stunet_phantom::{PhantomCase, ScanOptions};

/// Segments a CT with the published weights of STU-Net, or a phantom with the demo model.
#[derive(Parser)]
struct Args {
    /// A CT as NIfTI; without it, a phantom
    #[arg(long)]
    input: Option<PathBuf>,
    /// small_ep4k.model, base_ep4k.model, …; without it, the demo model
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Where to write the labelmap
    #[arg(long)]
    output: Option<PathBuf>,
    /// Where to write image, labels and picture
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/predict_totalseg"))]
    folder: PathBuf,
    /// Which phantom; without it, one that nobody has seen
    #[arg(long)]
    seed: Option<u64>,
    /// auto, cpu, cuda:0, …
    #[arg(long, default_value = "auto")]
    device: String,
    /// Average over mirrored windows, where the model allows: up to eight times the work
    #[arg(long)]
    tta: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    check_places(&args)?;
    let device = stunet::device::parse(&args.device)?;
    let model = open(&args, &device)?;
    let (image, truth) = match &args.input {
        Some(file) => (model.plans().reader.read_scan(&[file])?.into_image(), None),
        None => fresh_phantom(args.seed)?,
    };

    let begin = Instant::now();
    let options = PredictOptions { mirror: args.tta, ..PredictOptions::default() };
    let watched = std::io::stderr().is_terminal();
    // As those of the training images, where the model says how they ran; the labels come back as the file.
    let turned = match model.plans().opener(OrientationChoice::Auto)?.orientation {
        Some(orientation) => image.clone().oriented(orientation)?,
        None => image.clone(),
    };
    let prediction = predict(&model, &turned, &options, &mut |event| {
        match event {
            PredictEvent::Windows { done, total } if watched => {
                eprint!("\rwindow {done} of {total}")
            }
            PredictEvent::Stage(Stage::Export) if watched => eprintln!(),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    println!("{:.1} s", begin.elapsed().as_secs_f64());

    // The phantom's truth has the demo model's labels; other weights have others.
    let truth = truth.filter(|_| args.weights.is_none());
    let labelmap = prediction.labelmap.to_labelmap();
    report(&model, &labelmap, truth.as_ref());
    write(&args, &model, &image, &labelmap, truth.as_ref())
}

/// What is written to the folder.
const OUTPUTS: [&str; 3] = ["ct.nii.gz", "labels.nii.gz", "preview.png"];

/// Nothing that is written may be the CT.
fn check_places(args: &Args) -> anyhow::Result<()> {
    let Some(input) = args.input.as_ref().and_then(|input| input.canonicalize().ok()) else {
        return Ok(());
    };
    let outputs = OUTPUTS.map(|name| args.folder.join(name));
    let clash = outputs
        .iter()
        .chain(&args.output)
        .find(|output| output.canonicalize().is_ok_and(|output| output == input));
    match clash {
        Some(output) => anyhow::bail!("would overwrite the input: {}", output.display()),
        None => Ok(()),
    }
}

/// The model to use, and what to expect of it.
fn open(args: &Args, device: &Device) -> anyhow::Result<Model> {
    let options = OpenOptions::new(device);
    if let Some(weights) = &args.weights {
        return Ok(Model::open(weights, &options)?);
    }
    println!(
        "No --weights: this is a demo. Its model is small and was trained on phantoms only: it is"
    );
    println!("of no use for real CTs. For 104 structures of real ones, download weights from");
    println!("    https://huggingface.co/ziyanhuang/STU-Net");
    println!("and pass --input CT.nii.gz --weights base_ep4k.model");
    Ok(Model::open(&demo::folder(), &options)?)
}

/// A CT that was not there before, with its truth.
fn fresh_phantom(seed: Option<u64>) -> anyhow::Result<(Image, Option<LabelMap>)> {
    let seed = match seed {
        Some(seed) => seed,
        // Far beyond the seeds the model was trained on.
        None => (1 << 32) + SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64,
    };
    let PhantomCase { image, truth, .. } =
        PhantomCase::of(seed, &ScanOptions::default(), &demo::STRUCTURES);
    let (shape, spacing) = (image.geometry.shape(), image.geometry.spacing_mm());
    println!("No --input: a phantom of seed {seed}, {shape:?} voxels of {spacing:?} mm (z, y, x)");
    if demo::TRAINING_SEEDS.contains(&seed) {
        println!("The demo model was trained on this very phantom.");
    }
    Ok((image, Some(truth)))
}

/// Millilitres of every structure, and its Dice where the truth is known.
fn report(model: &Model, labelmap: &LabelMap, truth: Option<&LabelMap>) {
    let voxel_ml = labelmap.geometry.voxel_volume_mm3() / 1000.0;
    let volume = |map: &LabelMap, value: u16| {
        map.data.iter().filter(|voxel| **voxel == value).count() as f64 * voxel_ml
    };
    let labels = &model.labels().labels()[1..];
    let Some(truth) = truth else {
        for label in labels {
            let found: f64 = label.values.iter().map(|value| volume(labelmap, *value)).sum();
            if found > 0.0 {
                println!("{:32} {found:10.1} ml", shown(&label.name));
            }
        }
        return;
    };
    let scores = dice(truth, labelmap, labels.len());
    println!("{:20} {:>8} {:>10} {:>10}", "", "Dice", "found", "true");
    for (label, score) in labels.iter().zip(&scores) {
        let score = score.map_or("-".to_owned(), |score| format!("{score:.3}"));
        let [found, exact] = [labelmap, truth].map(|map| volume(map, label.values[0]));
        println!("{:20} {score:>8} {found:>7.0} ml {exact:>7.0} ml", shown(&label.name));
    }
    println!("{:20} {:>8.3}", "mean", mean(scores));
}

/// The labelmap where it was asked for; with the CT and a picture in the folder.
fn write(
    args: &Args,
    model: &Model,
    image: &Image,
    labelmap: &LabelMap,
    truth: Option<&LabelMap>,
) -> anyhow::Result<()> {
    let highest = model.labels().max_value();
    if let Some(path) = &args.output {
        nifti::write_labelmap(path, labelmap, highest)?;
        println!("labels:  {}", shown(path.display()));
    }
    std::fs::create_dir_all(&args.folder)?;
    let [ct, labels, picture] = OUTPUTS.map(|name| args.folder.join(name));
    nifti::write_image(&ct, image)?;
    nifti::write_labelmap(&labels, labelmap, highest)?;
    let words = PreviewOptions {
        banner: args.weights.is_none().then(|| demo::BANNER.to_owned()),
        ..PreviewOptions::default()
    };
    pictures::write(&picture, image, (labelmap, model.labels()), truth, &words)?;
    println!("CT:      {}", shown(ct.display()));
    println!("labels:  {}", shown(labels.display()));
    println!("picture: {}", shown(picture.display()));
    Ok(())
}
