//! The final validation: whole volumes of the fold's validation cases, as `predict` would do them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use stunet::data::compare::label_differences;
use stunet::data::dataset::{RawDataset, TrainingCaseFiles};
use stunet::data::nifti;
use stunet::infer::evaluate::{Evaluation, Pair, Rules, evaluate};
use stunet::infer::{
    InferError, Model, OpenOptions, PredictOptions, predict_prepared, prepare_scan,
};
use stunet::train::FoldFolder;
use stunet::train::export::About;

use super::{say, settings::Settings};
use crate::args::TrainArgs;
use crate::failure::Interrupted;
use crate::folders;
use crate::interrupt;
use crate::progress::Progress;

/// Where predictions and scores go in the folder of a fold.
pub const FOLDER: &str = "validation";
const SUMMARY: &str = "summary.json";

/// Predicts and evaluates, unless `summary.json` is there; predictions that are there are kept.
pub fn run(
    args: &TrainArgs,
    settings: &Settings,
    about: &About,
    model: &Path,
    out: &Path,
) -> anyhow::Result<()> {
    let summary = out.join(SUMMARY);
    if summary.is_file() {
        return say(args, &format!("validated before: {}", summary.display()));
    }
    if settings.validation_cases.is_empty() {
        return say(args, "final validation left out: the fold has no cases to validate on");
    }
    let Some(cases) = cases(args, settings, about)? else {
        let raw = raw_of(args);
        return say(
            args,
            &format!(
                "final validation left out: no raw dataset (give --raw, or --no-validation): {}",
                raw.display()
            ),
        );
    };
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
    let result = evaluate(&pairs, &Rules::of(&about.labels), &|_| match interrupt::asked() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })
    .map_err(interrupted)?;
    result.write_v2(&summary)?;
    tell(args, about, &result)?;
    say(args, &format!("summary: {}", summary.display()))
}

/// Fails before the first epoch where the final validation could not be done.
pub fn check(
    args: &TrainArgs,
    settings: &Settings,
    about: &About,
    fold: &FoldFolder,
) -> anyhow::Result<()> {
    if !fold.path.join(FOLDER).join(SUMMARY).is_file() {
        let hint = "final validation (it can be left out with --no-validation)";
        cases(args, settings, about).context(hint)?;
    }
    Ok(())
}

fn raw_of(args: &TrainArgs) -> PathBuf {
    args.raw.clone().unwrap_or_else(|| folders::raw_of(&args.dataset))
}

/// The raw files of the fold's validation cases, held against the run; none where there is no raw
/// dataset and none was named.
fn cases(
    args: &TrainArgs,
    settings: &Settings,
    about: &About,
) -> anyhow::Result<Option<Vec<TrainingCaseFiles>>> {
    let folder = raw_of(args);
    if args.raw.is_none() && !folder.is_dir() {
        return Ok(None);
    }
    let raw = RawDataset::open(&folder)?;
    let found = label_differences(&raw.info().labels, &about.labels)?;
    ensure!(
        found.is_empty(),
        "expected the dataset of the run, found another: {}: {}",
        found.told("its dataset.json", "the run"),
        folder.display()
    );
    let mut cases = Vec::new();
    for name in &settings.validation_cases {
        let case = raw.cases().iter().find(|case| case.name == *name);
        cases.push(case.cloned().with_context(|| {
            let count = raw.cases().len();
            format!("expected case {name}, found {count} without it: {}", folder.display())
        })?);
    }
    Ok(Some(cases))
}

fn predict_case(
    model: &Model,
    case: &TrainingCaseFiles,
    out: &Path,
    progress: Progress,
) -> anyhow::Result<()> {
    // The scan is gone before the first window.
    let prepared = prepare_scan(model, &nifti::read_scan(&case.images)?)?;
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
