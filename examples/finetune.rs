//! Fine-tunes a trained network to a structure that it was not trained on, from a handful of cases.
//!
//! ```console
//! cargo run --release --example finetune
//! cargo run --release --example finetune -- --dataset Dataset042_Mine --weights base_ep4k.model
//! ```
//!
//! Without arguments the demo model learns to find the pancreas from a few phantoms, once from its
//! weights and once from random ones, with the same number of updates. With a dataset in nnU-Net's
//! layout and weights of your choice it does the same with your labels, from the given weights only.
//!
//! This keeps all cases in memory and trains for minutes; `stunet train` is for the rest.
#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    reason = "examples print; text from outside goes through `shown` or `{:?}`"
)]

mod common;

use anyhow::Context;
use clap::Parser;
use common::scores::mean;
use common::training::{Labelled, judge, model, phantoms, prepared, print_progress, short_run};
use common::{demo, pictures, shown};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::time::Instant;
use stunet::data::dataset::RawDataset;
use stunet::data::labels::LabelSet;
use stunet::data::plans::Plans;
use stunet::infer::{Model, OpenOptions, PredictOptions, predict};
use stunet::model::{Initialisation, StuNetConfig};
use stunet::pictures::preview::PreviewOptions;
use stunet::train::transfer::{TransferOptions, transfer};
use stunet::train::{FitCases, StateOptions, TrainingState, fit};
use stunet_phantom::{BodyPart, ScanOptions, label_set};

/// The phantom's structure that the demo model was not taught.
const NEW_STRUCTURES: [&str; 1] = ["pancreas"];
/// A handful of phantoms to learn from, and others to judge by.
const TRAINING_SEEDS: Range<u64> = 4_000..4_008;
const TEST_SEEDS: Range<u64> = 5_000..5_004;

/// Fine-tunes a network to new labels.
#[derive(Parser)]
struct Args {
    /// A dataset in nnU-Net's layout: dataset.json, imagesTr, labelsTr; without it, phantoms
    #[arg(long)]
    dataset: Option<PathBuf>,
    /// small_ep4k.model, base_ep4k.model, a model folder; without it, the demo model
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Updates of the weights
    #[arg(long, default_value_t = 120)]
    updates: usize,
    /// Learning rate of the first update
    #[arg(long, default_value_t = 1e-2)]
    lr: f64,
    /// Also train from random weights, to compare; phantoms always are
    #[arg(long)]
    scratch: bool,
    /// Where the fine-tuned model goes
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/finetuned"))]
    output: PathBuf,
    /// auto, cpu, cuda:0, …
    #[arg(long, default_value = "auto")]
    device: String,
}

/// What to learn, from what, and what to be judged by.
struct Task {
    labels: LabelSet,
    training: Vec<Labelled>,
    test: Vec<Labelled>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = stunet::device::parse(&args.device)?;
    let weights = args.weights.clone().unwrap_or_else(demo::folder);
    let pretrained = Model::open(&weights, &OpenOptions::new(&device))?;
    let Task { labels, training, test } = match &args.dataset {
        Some(folder) => from_dataset(folder)?,
        None => from_phantoms()?,
    };
    let names: Vec<_> = labels.labels()[1..].iter().map(|label| label.name.as_str()).collect();
    println!("{} cases to learn {} from", training.len(), shown(names.join(", ")));

    // The network keeps everything but its heads; the recipe is the one it was trained with.
    let plans = Plans { num_outputs: Some(labels.num_outputs()), ..pretrained.plans().clone() };
    let pretrained_config = pretrained.architecture().stunet();
    let pretrained_config = pretrained_config.context("--weights: expected an STU-Net")?;
    let config = StuNetConfig { num_classes: labels.num_outputs(), ..pretrained_config.clone() };
    let cases = prepared(training.into_iter().map(Ok), &plans)?;
    let cases = FitCases { training: cases, validation: None };
    let learn = Learn { args: &args, plans: &plans, labels: &labels, cases: &cases };

    let options = StateOptions::new(&device);
    let on = options.training_device();
    let (network, report) = transfer(&weights, &config, &TransferOptions::default(), &on)?;
    println!("{}", shown(format_args!("{}: {report}", weights.display())));
    let state = TrainingState::new(network, &options);
    let (before, _) = learn.judged(&state, &test)?;
    let (after, tuned) = learn.judged(&learn.train(state)?, &test)?;
    tuned.save_folder(&args.output)?;
    let picture = draw(&args.output, &tuned, &test[0])?;

    let mut columns = vec![("before", before), ("fine-tuned", after)];
    if args.scratch || args.dataset.is_none() {
        println!("from random weights");
        let network = config.init_seeded(Initialisation::NnUNetV1, 0, &on)?;
        let state = TrainingState::new(network, &options);
        let (scratch, _) = learn.judged(&learn.train(state)?, &test)?;
        columns.push(("from scratch", scratch));
    }
    print_table(&names, &columns, args.updates, test.len());
    println!("the fine-tuned model: {}", shown(args.output.display()));
    println!("a case held back: {}", shown(picture.display()));
    Ok(())
}

/// The first case held back, as the fine-tuned model segments it, beside its truth.
fn draw(folder: &Path, model: &Model, case: &Labelled) -> anyhow::Result<PathBuf> {
    let path = folder.join("preview.png");
    let options = PredictOptions { mirror: false, ..PredictOptions::default() };
    let found = predict(model, &case.image, &options, &mut |_| ControlFlow::Continue(()))?;
    let labels = (&found.labelmap.to_labelmap(), model.labels());
    pictures::write(&path, &case.image, labels, Some(&case.labels), &PreviewOptions::default())?;
    Ok(path)
}

/// A pancreas in every phantom.
fn from_phantoms() -> anyhow::Result<Task> {
    // Scans that show the upper abdomen, where the pancreas is.
    let scan = ScanOptions { region: Some(BodyPart::Abdomen), ..demo::training_scan() };
    let make = |seeds| phantoms(seeds, &scan, &NEW_STRUCTURES).collect::<Result<Vec<_>, _>>();
    Ok(Task {
        labels: label_set(&NEW_STRUCTURES)?,
        training: make(TRAINING_SEEDS)?,
        test: make(TEST_SEEDS)?,
    })
}

/// Every fifth case is held back.
fn from_dataset(folder: &Path) -> anyhow::Result<Task> {
    let dataset = RawDataset::open(folder)?;
    let info = dataset.info();
    let (mut training, mut test) = (Vec::new(), Vec::new());
    for (index, files) in dataset.cases().iter().enumerate() {
        let (image, labels) = files.read(info).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", lines.join("\n"))
        })?;
        let case = Labelled { name: files.name.clone(), image, labels };
        if index % 5 == 4 { test.push(case) } else { training.push(case) }
    }
    anyhow::ensure!(!test.is_empty(), "expected 5 cases or more: {}", folder.display());
    Ok(Task { labels: info.labels.clone(), training, test })
}

struct Learn<'a> {
    args: &'a Args,
    plans: &'a Plans,
    labels: &'a LabelSet,
    cases: &'a FitCases,
}

impl Learn<'_> {
    /// Trains for the updates asked for, in epochs of twenty.
    fn train(&self, state: TrainingState) -> anyhow::Result<TrainingState> {
        let begin = Instant::now();
        let updates = self.args.updates.max(1);
        let num_iterations = updates.min(20);
        let config =
            short_run(self.plans, updates.div_ceil(num_iterations), num_iterations, self.args.lr);
        let state = fit(state, self.cases, &config, None, &mut print_progress)?;
        println!("{updates} updates in {:.0} s", begin.elapsed().as_secs_f64());
        Ok(state)
    }

    /// Mean Dice of every label over the cases held back.
    fn judged(
        &self,
        state: &TrainingState,
        test: &[Labelled],
    ) -> anyhow::Result<(Vec<f64>, Model)> {
        let model = model(state.network_for_inference(), self.plans, self.labels)?;
        let scores = test.iter().map(|case| judge(&model, case)).collect::<Result<Vec<_>, _>>()?;
        let labels = 0..self.labels.num_outputs() - 1;
        let of = |label: usize| mean(scores.iter().map(|case| case[label]));
        Ok((labels.map(of).collect(), model))
    }
}

fn print_table(names: &[&str], columns: &[(&str, Vec<f64>)], updates: usize, num_cases: usize) {
    println!("\nDice of {num_cases} cases held back, after {updates} updates each:");
    let header: Vec<String> = columns.iter().map(|(name, _)| format!("{name:>14}")).collect();
    println!("{:24}{}", "", header.join(""));
    for (index, name) in names.iter().enumerate() {
        let row: Vec<String> =
            columns.iter().map(|(_, scores)| format!("{:14.3}", scores[index])).collect();
        println!("{:24}{}", shown(name), row.join(""));
    }
}
