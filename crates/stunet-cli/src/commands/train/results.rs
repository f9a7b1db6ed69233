//! The files beside a run's weights that describe them for people, for nnU-Net and for `predict`.
//!
//! All folds of `TRAINER__PLANS__CONFIG` share one `plans.json` and one `dataset.json`. They are
//! written from what is trained; an existing file must have the same content.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;
use stunet::data::compare::{Differences, differences, label_differences};
use stunet::data::files;
use stunet::data::labels::LabelSet;
use stunet::data::plans::{Accumulation, Plans};
use stunet::model::weights::folder;
use stunet::train::FoldFolder;
use stunet::train::checkpoint::TrainingCheckpoint;
use stunet::train::export::{self, ModelDescription};

use super::run::Run;
use super::settings::Settings;
use super::validation;

/// Settings of one fold.
const SETTINGS: &str = "debug.json";
const PLANS: &str = "plans.json";
const DATASET: &str = "dataset.json";
/// The model folder in that of a fold.
pub const MODEL: &str = "model";

/// A new run needs a folder that no other run, of this program or of nnU-Net, has filled.
pub fn check_new(fold: &FoldFolder) -> anyhow::Result<()> {
    let shown = fold.path.display();
    ensure!(
        fold.newest_checkpoint().is_none(),
        "expected a new run, found one; go on with --continue, or remove it: {shown}"
    );
    let result = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        let ending = path.extension().unwrap_or_default();
        name == MODEL || name == validation::FOLDER || ending == "pth" || ending == "model"
    };
    if let Some(found) = entries(&fold.path).find(|path| result(path)) {
        let name = found.file_name().unwrap_or_default().display();
        anyhow::bail!(
            "expected a new run, found {name} of another one; remove it, or choose other results with \
             --output: {shown}"
        );
    }
    Ok(())
}

/// The files that all folds share, as they have to be written; none that are there and right.
pub struct Beside(Vec<(PathBuf, Value)>);

/// Compares a run with the files beside its folder. Nothing is written.
pub fn check(fold: &FoldFolder, run: &Run) -> anyhow::Result<Beside> {
    let (settings, about) = (&run.settings, &run.about);
    let Some(home) = fold.path.parent() else { return Ok(Beside(Vec::new())) };
    let others = other_folds(home, &fold.path);
    for other in &others {
        check_network(settings, &other.join(SETTINGS))?;
    }
    let plans = export::v2_plans(about, &settings.network);
    let dataset = export::v2_dataset(about);
    let [plans_file, dataset_file] = [PLANS, DATASET].map(|name| home.join(name));
    let needed = |file: &Path, value: Value| (file.to_owned(), value);
    // A file that is no JSON describes nothing: it was cut off, and is written anew.
    let there = |file: &Path| files::read_json::<Value>(file).ok();
    let (found_plans, found_dataset) = (there(&plans_file), there(&dataset_file));
    let Some(found) = found_plans else {
        let mut needs = vec![needed(&plans_file, plans)];
        needs.extend(found_dataset.is_none().then(|| needed(&dataset_file, dataset)));
        return Ok(Beside(needs));
    };
    let described = found_dataset.as_ref().unwrap_or(&dataset);
    let found = compare(&about.plans.configuration, (&plans, &dataset), (&found, described));
    let same = matches!(&found, Ok(found) if found.is_empty());
    if same {
        let missing = found_dataset.is_none().then(|| needed(&dataset_file, dataset));
        return Ok(Beside(missing.into_iter().collect()));
    }
    if let Some(other) = others.first() {
        let why = match found {
            Ok(found) => found.told("this run", "the plans.json or dataset.json beside it"),
            Err(error) => error.to_string(),
        };
        anyhow::bail!(
            "expected what {} beside it was trained with, as folds share one plans.json: {why}; choose \
             other results with --output, or remove the file if it is the wrong one: {}",
            other.file_name().unwrap_or_default().display(),
            plans_file.display()
        );
    }
    Ok(Beside(vec![needed(&plans_file, plans), needed(&dataset_file, dataset)]))
}

/// Plans and `dataset.json` of this run, held against those that are there.
fn compare(
    configuration: &str,
    (plans, dataset): (&Value, &Value),
    (found_plans, found_dataset): (&Value, &Value),
) -> anyhow::Result<Differences> {
    let ours = Plans::from_v2_json(plans, dataset, configuration)?;
    let theirs = Plans::from_v2_json(found_plans, found_dataset, configuration)?;
    let labels = [dataset, found_dataset].map(LabelSet::from_dataset_json);
    let [our_labels, their_labels] = labels;
    let found = ours.differences(&theirs)?.without(&["notes"]);
    Ok(found.and(label_differences(&our_labels?, &their_labels?)?))
}

/// Networks of several folds can only be averaged when they are alike.
fn check_network(settings: &Settings, file: &Path) -> anyhow::Result<()> {
    let Ok(other) = files::read_json::<Value>(file) else { return Ok(()) };
    let Some(network) = other.get("network") else { return Ok(()) };
    let found = differences(&settings.network, network)?;
    ensure!(
        found.is_empty(),
        "expected the network of the other folds: {}; choose other results with --output: {}",
        found.told("this run", "another fold"),
        file.display()
    );
    Ok(())
}

/// The other folds of a results folder that have begun, of this program or of nnU-Net.
fn other_folds(home: &Path, this: &Path) -> Vec<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let begun = |path: &PathBuf| entries(path).any(|file| name(&file).starts_with("checkpoint_"));
    let folds = entries(home).filter(|path| name(path).starts_with("fold_") && path != this);
    let mut found: Vec<_> = folds.filter(begun).collect();
    found.sort();
    found
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Writes what nnU-Net keeps beside its checkpoints: `plans.json` and `dataset.json` for all folds,
/// and for people `debug.json` with the settings of this one.
pub fn describe(fold: &FoldFolder, settings: &Settings, beside: &Beside) -> anyhow::Result<()> {
    let path = &fold.path;
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    let settings_file = path.join(SETTINGS);
    // One that is left of a run that never came to a checkpoint says something else.
    let found: Option<Value> = files::read_json(&settings_file).ok();
    let settings = serde_json::to_value(settings)?;
    if found.as_ref() != Some(&settings) {
        files::save_json(&settings_file, &settings)?;
    }
    for (file, value) in &beside.0 {
        files::save_json(file, value)?;
    }
    Ok(())
}

/// Writes the model folder of a finished run; an existing one must belong to this run.
pub fn model_folder(
    checkpoint: &TrainingCheckpoint,
    about: &ModelDescription,
    model: &Path,
) -> anyhow::Result<()> {
    // The last file of a model folder to be written.
    if !model.join("labels.json").is_file() {
        export::model_folder(checkpoint, about, true, Default::default(), model)?;
        return Ok(());
    }
    let opened = folder::open(model)?;
    let plans = Plans { accumulation: Accumulation::F32, ..about.plans.clone() };
    let found = [
        differences(&checkpoint.state().config, opened.config())?,
        plans.differences(&Plans::load(&model.join(PLANS))?)?.without(&["notes"]),
        label_differences(&about.labels, &LabelSet::load(&model.join("labels.json"))?)?,
        differences(
            &serde_json::json!({
                "trainer": about.trainer, "fold": about.fold,
                "epoch": checkpoint.state().progress.epoch,
            }),
            &serde_json::json!({
                "trainer": opened.provenance().get("trainer"),
                "fold": opened.provenance().get("fold"),
                "epoch": opened.provenance().get("epoch"),
            }),
        )?,
    ];
    let found = found.into_iter().fold(Differences::default(), Differences::and);
    ensure!(
        found.is_empty(),
        "expected the model of this run, found another: {}; remove it to have it written anew: {}",
        found.told("the checkpoint", "the model folder"),
        model.display()
    );
    Ok(())
}
