//! The final validation: whole volumes of the fold's validation cases, as `predict` would do them.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context;
use stunet::data::dataset::{RawDataset, TrainingCaseFiles};
use stunet::data::nifti;
use stunet::infer::evaluate::{Evaluation, Pair, Rules, evaluate};
use stunet::infer::{
    InferError, Model, OpenOptions, PredictOptions, predict_prepared, prepare_scan,
};
use stunet::train::export::About;

use super::{say, settings::Settings};
use crate::args::TrainArgs;
use crate::failure::Interrupted;
use crate::folders;
use crate::interrupt;
use crate::progress::Progress;

/// Predicts and evaluates, unless `summary.json` is there; predictions that are there are kept.
pub fn run(
    args: &TrainArgs,
    settings: &Settings,
    about: &About,
    model: &Path,
    out: &Path,
) -> anyhow::Result<()> {
    let summary = out.join("summary.json");
    if summary.is_file() {
        return say(args, &format!("validated before: {}", summary.display()));
    }
    let raw = args.raw.clone().unwrap_or_else(|| folders::raw_of(&args.dataset));
    if args.raw.is_none() && !raw.is_dir() {
        return say(
            args,
            &format!(
                "final validation left out: no raw dataset (give --raw, or --no-validation): {}",
                raw.display()
            ),
        );
    }
    let raw = RawDataset::open(&raw)?;
    let cases: Vec<_> =
        raw.cases().iter().filter(|c| settings.validation_cases.contains(&c.name)).collect();
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let device = stunet::device::choose_all(&args.device)?.first().device.clone();
    let network = Model::open(model, &OpenOptions::new(&device))?;
    let mut pairs = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let prediction = out.join(format!("{}.nii.gz", case.name));
        if !prediction.is_file() {
            let title = format!("validation {}/{} {}", index + 1, cases.len(), case.name);
            predict_case(&network, case, &prediction, Progress::new(title, args.quiet))?;
        }
        let (name, reference) = (case.name.clone(), case.labels.clone());
        pairs.push(Pair { name, reference, prediction });
    }
    let rules = Rules { reader: about.plans.reader, ..Rules::of(&about.labels) };
    let result = evaluate(&pairs, &rules, &|_| match interrupt::asked() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })
    .map_err(interrupted)?;
    result.write_v2(&summary)?;
    tell(args, about, &result)?;
    say(args, &format!("summary: {}", summary.display()))
}

fn predict_case(
    model: &Model,
    case: &TrainingCaseFiles,
    out: &Path,
    progress: Progress,
) -> anyhow::Result<()> {
    // The scan is gone before the first window.
    let prepared = prepare_scan(model, &model.plans().reader.read_scan(&case.images)?)?;
    let prediction = predict_prepared(model, prepared, &PredictOptions::default(), &mut |event| {
        progress.hear(event);
        match interrupt::asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
    .map_err(interrupted)?;
    nifti::write_compact_labelmap(out, &prediction.labelmap, model.labels().max_value())?;
    Ok(())
}

fn tell(args: &TrainArgs, about: &About, result: &Evaluation) -> anyhow::Result<()> {
    let names = about.labels.labels().iter().filter(|label| label.values != [0]);
    for (index, label) in names.enumerate() {
        say(args, &format!("  {:<24} Dice {:.4}", label.name, result.mean_dice(index)))?;
    }
    say(args, &format!("foreground Dice {:.4}", result.foreground_dice()))
}

fn interrupted(error: InferError) -> anyhow::Error {
    match error {
        InferError::Interrupted => Interrupted.into(),
        error => error.into(),
    }
}
