//! What eight bits change: predicts a scan in `f32` and in eight bits, and compares labels and time.
//!
//! ```console
//! cargo run --release --example eight_bits -- --input CT.nii.gz --model MODEL
//! ```
//!
//! Without arguments, a new phantom is predicted with the demo model of this repository, which is so narrow that
//! eight bits save nothing; only its labels are of interest.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "examples print")]

mod common;

use clap::Parser;
use common::demo;
use common::scores::{dice, mean};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;
use stunet::data::image::Image;
use stunet::data::labels::LabelMap;
use stunet::infer::{Model, OpenOptions, PredictOptions, predict};
use stunet_phantom::{PhantomCase, ScanOptions};

/// Of the phantom; the demo model was not trained on it.
const SEED: u64 = 2026;

/// Compares predictions in eight bits with those in f32.
#[derive(Parser)]
struct Args {
    /// A scan as NIfTI; without it, a phantom
    #[arg(long)]
    input: Option<PathBuf>,
    /// A model with STU-Nets; without it, the demo model
    #[arg(long)]
    model: Option<PathBuf>,
    /// Average over mirrored windows, where the model allows: up to eight times the work
    #[arg(long)]
    tta: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let options = OpenOptions::new(&stunet::device::parse("cpu")?);
    let path = args.model.unwrap_or_else(demo::folder);
    let model = Model::open(&path, &options)?;
    let image = match &args.input {
        Some(file) => model.plans().reader.read_scan(&[file])?.into_image(),
        None => PhantomCase::of(SEED, &ScanOptions::default(), &demo::STRUCTURES).image,
    };
    if !stunet::kernels::has_eight_bit_products() {
        println!("This processor has no instructions for eight-bit products: they take long here.");
    }
    let (labels, exact) = run(&model, &image, args.tta)?;
    let (_, rounded) = run(&Model::open(&path, &options)?.in_eight_bits()?, &image, args.tta)?;
    let differ = exact.data.iter().zip(&rounded.data).filter(|(a, b)| a != b).count();
    println!("{differ} of {} voxels get another label", exact.data.len());
    let scores = dice(&exact, &rounded, labels);
    let worst = scores.iter().flatten().copied().fold(1.0, f64::min);
    println!(
        "Dice against the labels in f32: {:.4} in the mean, {worst:.3} at worst",
        mean(scores)
    );
    Ok(())
}

/// The number of labels but the background, and those of the scan.
fn run(model: &Model, image: &Image, mirror: bool) -> anyhow::Result<(usize, LabelMap)> {
    let options = PredictOptions { mirror, ..PredictOptions::default() };
    let begin = Instant::now();
    let prediction = predict(model, image, &options, &mut |_| ControlFlow::Continue(()))?;
    println!("{:?}: {:.1} s", model.precision(), begin.elapsed().as_secs_f64());
    Ok((model.num_classes() - 1, prediction.labelmap.to_labelmap()))
}
