//! Trains the demo model of this repository from nothing, on phantoms.
//!
//! ```console
//! cargo run --release --example train_demo
//! ```
//!
//! The result is a model folder with the log, the curve and the record of its Dice; what is in
//! `examples/demo-model` came out of this command. It can be stopped and started again: it goes on
//! where it stopped.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "examples print; text from outside goes through `shown` or `{:?}`"
)]

mod common;

use clap::Parser;
use common::training::{judge, phantoms, prepared, print_progress, short_run};
use common::{demo, pictures, scores::mean};
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stunet::infer::{Model, OpenOptions, PredictOptions, predict};
use stunet::model::Initialisation;
use stunet::model::weights::folder::StoredPrecision;
use stunet::pictures::preview::PreviewOptions;
use stunet::train::checkpoint::{FINAL, TrainingCheckpoint};
use stunet::train::optimiser::SgdConfig;
use stunet::train::{FitCases, FoldFolder, StateOptions, TrainingState, fit};
use stunet_phantom::{PhantomCase, ScanOptions, label_set};

/// Trains the demo model on phantoms.
#[derive(Parser)]
struct Args {
    /// Where checkpoints, log and model go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/demo-model"))]
    output: PathBuf,
    /// Epochs
    #[arg(long, default_value_t = demo::NUM_EPOCHS)]
    epochs: usize,
    /// Updates per epoch
    #[arg(long, default_value_t = demo::NUM_ITERATIONS)]
    iterations: usize,
    /// Of the initial weights and of the patches
    #[arg(long, default_value_t = demo::SEED)]
    seed: u64,
    /// auto, cpu, cuda:0, …
    #[arg(long, default_value = "cpu")]
    device: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut options = StateOptions::new(&stunet::device::parse(&args.device)?);
    options.optimiser = Arc::new(SgdConfig { momentum: demo::MOMENTUM, ..SgdConfig::default() });
    let run = FoldFolder::at(&args.output.join("run"));
    if !run.path.join(FINAL).is_file() {
        train(&args, &options, &run)?;
    }
    export(&args, &options, &run.path)
}

/// From random weights, or from where an earlier run was stopped, to the last epoch.
fn train(args: &Args, options: &StateOptions, run: &FoldFolder) -> anyhow::Result<()> {
    let num_classes = demo::STRUCTURES.len() + 1;
    let plans = demo::plans(num_classes);
    let scan = demo::training_scan();
    eprintln!("making {} phantoms", demo::TRAINING_SEEDS.count());
    let seen = |seeds| prepared(phantoms(seeds, &scan, &demo::STRUCTURES), &plans);
    let cases = FitCases {
        training: seen(demo::TRAINING_SEEDS)?,
        validation: Some(seen(demo::VALIDATION_SEEDS)?),
    };
    let mut config = short_run(&plans, args.epochs, args.iterations, demo::LR);
    config.training.seed = args.seed;
    let state = match run.newest_checkpoint() {
        Some(file) => TrainingState::from_checkpoint(&TrainingCheckpoint::open(&file)?, options)?,
        None => {
            let network = demo::network(num_classes);
            let device = options.training_device();
            let begin = Initialisation::NnUNetV1;
            TrainingState::new(network.init_seeded(begin, args.seed, &device)?, options)
        }
    };
    let state = fit(state, &cases, &config, Some(run), &mut print_progress)?;
    anyhow::ensure!(state.is_complete(&config), "stopped; start again to go on");
    Ok(())
}

/// The model folder: half-precision weights, the curve, the log, and the Dice of unseen phantoms.
fn export(args: &Args, options: &StateOptions, run: &Path) -> anyhow::Result<()> {
    let labels = label_set(&demo::STRUCTURES)?;
    let plans = demo::plans(labels.num_outputs());
    let checkpoint = TrainingCheckpoint::open(&run.join(FINAL))?;
    let network = TrainingState::from_checkpoint(&checkpoint, options)?.network_for_inference();
    Model::from_parts(vec![network], plans, labels)?
        .save_folder_as(&args.output, StoredPrecision::F16)?;
    for name in ["training_log.jsonl", "progress.png"] {
        std::fs::copy(run.join(name), args.output.join(name))?;
    }

    let model = Model::open(&args.output, &OpenOptions::new(&options.device))?;
    let scan = ScanOptions::default();
    let scores = phantoms(demo::TEST_SEEDS, &scan, &demo::STRUCTURES)
        .map(|case| judge(&model, &case?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let overall = mean(scores.iter().flatten().copied());
    let cases = demo::TEST_SEEDS.zip(&scores).map(|(seed, scores)| {
        let named = demo::STRUCTURES.iter().zip(scores);
        let dice: Map<String, Value> =
            named.map(|(name, score)| ((*name).to_owned(), json!(score))).collect();
        json!({ "seed": seed, "mean": mean(scores.iter().copied()), "dice": dice })
    });
    draw(&args.output, &model)?;
    let record = json!({ "mean": overall, "cases": cases.collect::<Vec<_>>() });
    std::fs::write(args.output.join("dice.json"), format!("{record:#}\n"))?;
    for (index, name) in demo::STRUCTURES.iter().enumerate() {
        println!("{name:20} {:.3}", mean(scores.iter().map(|case| case[index])));
    }
    println!("{:20} {overall:.3}", "mean");
    println!("{}", common::shown(args.output.display()));
    Ok(())
}

/// The first of the phantoms that the model is judged by, beside its truth.
fn draw(folder: &Path, model: &Model) -> anyhow::Result<()> {
    let case = PhantomCase::of(demo::TEST_SEEDS.start, &ScanOptions::default(), &demo::STRUCTURES);
    let options = PredictOptions { mirror: false, ..PredictOptions::default() };
    let found = predict(model, &case.image, &options, &mut |_| ControlFlow::Continue(()))?;
    let labels = (&found.labelmap.to_labelmap(), model.labels());
    let banner = Some(demo::BANNER.to_owned());
    let words = PreviewOptions { banner, ..PreviewOptions::default() };
    pictures::write(&folder.join("preview.png"), &case.image, labels, Some(&case.truth), &words)
}
