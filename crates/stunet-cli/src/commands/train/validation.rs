//! The final validation: the fold's validation cases are predicted as whole volumes, as by `predict`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use stunet::data::compare::label_differences;
use stunet::data::dataset::{RawDataset, TrainingCaseFiles};
use stunet::data::files;
use stunet::data::geometry::Leniency;
use stunet::data::nifti;
use stunet::infer::evaluate::{Evaluation, EvaluationRules, Pair, evaluate};
use stunet::infer::{
    InferError, Model, OpenOptions, PredictOptions, ProbabilityFormat, Record, Standing,
    predict_prepared, prepare_scan,
};
use stunet::train::FoldFolder;
use stunet::train::export::ModelDescription;

use super::{say, settings::Settings};
use crate::args::TrainArgs;
use crate::failure::Interrupted;
use crate::folders;
use crate::interrupt;
use crate::machine;
use crate::places::{self, Output};
use crate::products::Product;
use crate::progress::CaseBar;
use crate::report::tell_passed_over;

/// Where predictions and scores go in the folder of a fold.
pub const FOLDER: &str = "validation";
const SUMMARY: &str = "summary.json";

/// Predicts and evaluates what is not there yet. A prediction is kept when it says that this model made
/// it of this input, and `summary.json` when all of them are.
pub fn run(
    args: &TrainArgs,
    settings: &Settings,
    about: &ModelDescription,
    model: &Path,
    out: &Path,
) -> anyhow::Result<()> {
    let summary = out.join(SUMMARY);
    let devices = stunet::device::choose_all(&args.device)?;
    let chosen = devices.first();
    let network = Model::open(model, &OpenOptions::new(&chosen.device))?;
    let record = Record::new(&network, &PredictOptions::default())?;
    let place = |case: &str| out.join(format!("{case}.nii.gz"));
    let Some(raw) = raw_dataset(args, about)? else {
        let made = |case: &String| is_made(&record, &place(case), None);
        if summary.is_file() && all(&settings.validation_cases, made)? {
            return say(args, &format!("already validated: {}", summary.display()));
        }
        let left_out = "final validation left out: no raw dataset (give --raw, or --no-validation)";
        return say(args, &format!("{left_out}: {}", raw_of(args).display()));
    };
    if !args.quiet {
        tell_passed_over(raw.folder(), raw.passed_over());
    }
    let cases = cases_of(&raw, &settings.validation_cases)?;
    let prediction_of = |case: &TrainingCaseFiles| place(&case.name);
    check_places(&raw, cases.iter().map(|case| prediction_of(case)), &summary)?;
    let made = |case: &&TrainingCaseFiles| -> anyhow::Result<bool> {
        let files = Some(&case.images[..]);
        let path = place(&case.name);
        let stored = args.npz.then(|| probabilities_of(&path));
        Ok(!args.val
            && is_made(&record, &path, files)?
            && stored.map_or(Ok(true), |path| is_made(&record, &path, files))?)
    };
    if summary.is_file() {
        if all(&cases, made)? {
            return say(args, &format!("already validated: {}", summary.display()));
        }
        // It is not that of the predictions to come, should the program be ended before they are.
        std::fs::remove_file(&summary)
            .with_context(|| format!("cannot remove {}", summary.display()))?;
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let predictions: Vec<PathBuf> = cases.iter().map(|case| prediction_of(case)).collect();
    let stored: Vec<_> = predictions.iter().map(|path| probabilities_of(path)).collect();
    files::sweep(predictions.iter().chain(&stored).map(PathBuf::as_path));
    let device_has_own_memory = chosen.backend.is_gpu();
    let predictor = Predictor { args, network: &network, record: &record, device_has_own_memory };
    predictor.predict_all(&cases, &predictions, made)?;
    let pairs: Vec<Pair> = cases.iter().zip(predictions).map(pair).collect();
    score(args, about, &pairs, &summary)
}

/// Evaluates the predictions, and writes and tells their scores.
fn score(
    args: &TrainArgs,
    about: &ModelDescription,
    pairs: &[Pair],
    summary: &Path,
) -> anyhow::Result<()> {
    let rules =
        EvaluationRules { reader: about.plans.reader, ..EvaluationRules::of(&about.labels) };
    let result = evaluate(pairs, &rules, &|_| match interrupt::asked() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })
    .map_err(interrupted)?;
    result.write_v2(summary)?;
    tell(args, about, &result)?;
    say(args, &format!("summary: {}", summary.display()))
}

/// nnU-Net's file of probabilities beside a labelmap.
fn probabilities_of(labelmap: &Path) -> PathBuf {
    Product::Probabilities(ProbabilityFormat::Npz).path(labelmap)
}

fn pair((case, prediction): (&&TrainingCaseFiles, PathBuf)) -> Pair {
    Pair { name: case.name.clone(), reference: case.labels.clone(), prediction }
}

/// Fails before the first epoch where the final validation could not be done.
pub fn check(
    args: &TrainArgs,
    settings: &Settings,
    about: &ModelDescription,
    fold: &FoldFolder,
) -> anyhow::Result<()> {
    if !fold.path.join(FOLDER).join(SUMMARY).is_file() {
        let hint = "final validation (it can be left out with --no-validation)";
        if let Some(raw) = raw_dataset(args, about).context(hint)? {
            cases_of(&raw, &settings.validation_cases)?;
        }
    }
    Ok(())
}

fn raw_of(args: &TrainArgs) -> PathBuf {
    args.raw.clone().unwrap_or_else(|| folders::raw_of(&args.dataset))
}

/// The raw dataset, held against the run; none where there is none and none was named.
fn raw_dataset(args: &TrainArgs, about: &ModelDescription) -> anyhow::Result<Option<RawDataset>> {
    let folder = raw_of(args);
    if args.raw.is_none() && !folder.is_dir() {
        return Ok(None);
    }
    // What preprocessing was told to forgive is forgiven here, too: its cases are there.
    let leniency = Leniency { tolerance_mm: Some(f64::INFINITY), sheared: true };
    let raw = RawDataset::open(&folder)?.forgiving(leniency);
    let found = label_differences(&raw.info().labels, &about.labels)?;
    ensure!(
        found.is_empty(),
        "expected the dataset of the run, found another: {}: {}",
        found.told("its dataset.json", "the run"),
        folder.display()
    );
    Ok(Some(raw))
}

/// The files of the validation cases: a mean over some of them would pass for one over all.
fn cases_of<'a>(
    raw: &'a RawDataset,
    names: &[String],
) -> anyhow::Result<Vec<&'a TrainingCaseFiles>> {
    let known = raw.case_names();
    let absent: Vec<_> = names.iter().filter(|name| !known.contains(name)).collect();
    if let Some(first) = absent.first() {
        bail!(
            "final validation: expected all {} validation cases in the raw dataset, found {} \
             missing, such as {first}; give the dataset with --raw and go on with --continue, or \
             leave it out with --no-validation: {}",
            names.len(),
            absent.len(),
            raw.folder().display()
        );
    }
    Ok(raw.cases().iter().filter(|case| names.contains(&case.name)).collect())
}

/// No prediction may be an image or a label of the dataset: it would be judged by itself.
fn check_places(
    raw: &RawDataset,
    predictions: impl Iterator<Item = PathBuf>,
    summary: &Path,
) -> anyhow::Result<()> {
    let what = "a prediction of the final validation";
    let products = [Product::Labelmap, Product::Probabilities(ProbabilityFormat::Npz)];
    let outputs = predictions
        .flat_map(move |path| products.into_iter().flat_map(move |product| product.files(&path)))
        .map(move |path| Output::new(what, path));
    let summary = Output::new("the summary of the final validation", summary);
    places::check(raw.files(), outputs.chain([summary]))
}

/// Whether a prediction is there, made by this model of these files.
fn is_made(record: &Record, path: &Path, files: Option<&[PathBuf]>) -> anyhow::Result<bool> {
    Ok(record.standing(path, files)? == Standing::Same)
}

fn all<T>(cases: &[T], made: impl Fn(&T) -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    for case in cases {
        if !made(case)? {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Predictor<'a> {
    args: &'a TrainArgs,
    network: &'a Model,
    record: &'a Record,
    device_has_own_memory: bool,
}

impl Predictor<'_> {
    fn predict_all(
        &self,
        cases: &[&TrainingCaseFiles],
        predictions: &[PathBuf],
        made: impl Fn(&&TrainingCaseFiles) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        for (index, (case, prediction)) in cases.iter().zip(predictions).enumerate() {
            if !made(case)? {
                let title = format!("validation {}/{} {}", index + 1, cases.len(), case.name);
                self.predict(case, prediction, title)?;
            }
        }
        Ok(())
    }

    fn predict(&self, case: &TrainingCaseFiles, out: &Path, title: String) -> anyhow::Result<()> {
        let progress = CaseBar::new(title, self.args.quiet);
        let record = self.record.with_input(&case.images)?;
        let options = PredictOptions {
            memory_bytes: machine::allowed(self.args.max_memory),
            device_has_own_memory: self.device_has_own_memory,
            save_probabilities: self.args.npz.then(|| probabilities_of(out)),
            probability_format: ProbabilityFormat::Npz,
            record: Some(record.text()),
            ..PredictOptions::default()
        };
        let model = self.network;
        let leniency = Leniency { tolerance_mm: Some(f64::INFINITY), sheared: true };
        let opener = model.plans().reader.leniently(leniency);
        // The scan is gone before the first window.
        let prepared = prepare_scan(model, &opener.read_scan(&case.images)?)?;
        let prediction = predict_prepared(model, prepared, &options, &mut |event| {
            progress.on_event(event);
            match interrupt::asked() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
        .map_err(interrupted)?;
        record.check_input()?;
        let most = model.labels().max_value();
        nifti::write_compact_labelmap(out, &prediction.labelmap, most, Some(&record.text()))?;
        Ok(())
    }
}

fn tell(args: &TrainArgs, about: &ModelDescription, result: &Evaluation) -> anyhow::Result<()> {
    let names = about.labels.labels().iter().filter(|label| label.values != [0]);
    for (index, label) in names.enumerate() {
        let dice = match result.mean_dice(index) {
            dice if dice.is_nan() => "- (in no case)".to_owned(),
            dice => format!("{dice:.4}"),
        };
        say(args, &format!("  {:<24} Dice {dice}", label.name))?;
    }
    let (dice, without) = result.dice_of_classes_there();
    let without = match without {
        0 => String::new(),
        count => format!(" ({count} classes that no case has are left out)"),
    };
    let dice = if dice.is_nan() { "-".to_owned() } else { format!("{dice:.4}") };
    say(args, &format!("foreground Dice {dice}{without}"))
}

fn interrupted(error: InferError) -> anyhow::Error {
    match error {
        InferError::Interrupted => Interrupted.into(),
        error => error.into(),
    }
}
