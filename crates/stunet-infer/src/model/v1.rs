//! nnU-Net 1.7: `.model` files and results folders.

use super::choose::{choose_checkpoint, choose_checkpoints, choose_folds_noted, not_a_model};
use super::description::{ModelKind, OpenOptions};
use super::files::Files;
use super::located::{Fold, Located, Weights};
use crate::error::InferError;
use serde_json::Value;
use std::path::Path;
use stunet_data::labels::LabelSet;
use stunet_data::plans::Plans;
use stunet_model::weights::{Checkpoint, CheckpointKind};

/// Classes of the published models, background included.
const PUBLISHED_CLASSES: usize = 105;
/// Checkpoints of the trainer, most wanted first.
const USUAL: [&str; 3] = ["model_final_checkpoint", "model_best", "model_latest"];

/// True for a folder with `.model` files, or with folds that have some.
pub(super) fn looks_like(files: &Files, folder: &Path) -> bool {
    let has_model = |folder: &Path| {
        let entries = files.entries(folder);
        entries.iter().any(|entry| entry.extension().is_some_and(|e| e == "model"))
    };
    files.is_file(&folder.join("plans.pkl"))
        || has_model(folder)
        || files.entries(folder).iter().any(|entry| is_fold(entry) && has_model(entry))
}

fn is_fold(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("fold_"))
}

/// Opens a single `.model` file.
pub(super) fn open_file(files: &Files, path: &Path) -> Result<Located, InferError> {
    let fold = Fold { name: String::new(), weights: Weights::Checkpoint(checkpoint(files, path)?) };
    with_plans(files, path, path.parent().unwrap_or(Path::new("")), vec![fold])
}

/// Opens a results folder, or a folder that just holds a `.model` file.
pub(super) fn open(
    files: &Files,
    path: &Path,
    options: &OpenOptions,
) -> Result<Located, InferError> {
    let wanted = options.checkpoint.as_deref();
    if !files.entries(path).iter().any(|entry| is_fold(entry)) {
        let file = choose_checkpoint(files, path, wanted, "model", &USUAL)?;
        return open_file(files, &file);
    }
    let (chosen, note) = choose_folds_noted(files, path, &options.folds)?;
    let mut notes = vec![note];
    let ending = ("model", &USUAL[..]);
    let checkpoints = choose_checkpoints(files, (path, &chosen), wanted, ending, &mut notes)?;
    let mut folds = Vec::new();
    for (fold, file) in chosen.into_iter().zip(checkpoints) {
        let weights = Weights::Checkpoint(checkpoint(files, &file)?);
        folds.push(Fold { name: fold.name, weights });
    }
    let mut located = with_plans(files, path, path, folds)?;
    if files.is_file(&path.join("postprocessing.json")) {
        notes.push(
            "postprocessing.json of nnU-Net is not applied: labels stay as they are (`stunet \
             postprocess apply` applies it)"
                .into(),
        );
    }
    located.notes.splice(..0, notes);
    Ok(located)
}

fn checkpoint(files: &Files, path: &Path) -> Result<Checkpoint, InferError> {
    let checkpoint = files.checkpoint(path)?;
    match checkpoint.kind() {
        CheckpointKind::NnUNetV1 => Ok(checkpoint),
        CheckpointKind::NnUNetV2 => Err(not_a_model(
            path,
            "an nnU-Net v2 checkpoint within its results folder (plans.json, dataset.json, fold_X)",
            "the checkpoint alone",
        )),
    }
}

/// Finds the plans, most specific first: the checkpoint's own `.pkl`, the folder's `plans.pkl`, the
/// published plan.
fn with_plans(
    files: &Files,
    path: &Path,
    folder: &Path,
    folds: Vec<Fold>,
) -> Result<Located, InferError> {
    let Weights::Checkpoint(first) = &folds[0].weights else {
        unreachable!("only checkpoints are put in here")
    };
    let config = first.config([[1; 3]; 5])?;
    let published = config.num_classes == PUBLISHED_CLASSES && config.in_channels == 1;
    let mut notes = Vec::new();
    let shared = folder.join("plans.pkl");
    let mut plans = if let Some(own) = first.plan_file() {
        let mut name = first.path().to_owned().into_os_string();
        name.push(".pkl");
        Plans::from_v1_json(&own).map_err(|e| e.at(Path::new(&name)))?
    } else if let Some(plans) = full_plans(files, &shared)? {
        plans
    } else if published {
        let note = "no plans beside the weights: the published TotalSegmentator plan applies";
        notes.push(note.to_owned());
        Plans::totalsegmentator()
    } else {
        let (classes, channels) = (config.num_classes, config.in_channels);
        return Err(InferError::Mismatch {
            what: "weights without plans",
            expected: format!(
                "a .model.pkl beside them (only the published models, with {PUBLISHED_CLASSES} \
                 classes and 1 channel, need none)"
            ),
            found: format!("{classes} classes and {channels} channels"),
            path: path.to_owned(),
        });
    };
    let labels = labels(files, folder, config.num_classes, published, &mut notes)?;
    // What stands for the published labels stands for the published images, too.
    if published && labels == LabelSet::totalsegmentator() {
        plans.orientation = plans.orientation.or(Plans::totalsegmentator().orientation);
    }
    let (kind, configuration) = (ModelKind::NnUNetV1, Value::Null);
    Ok(Located { kind, plans, labels, folds, notes, configuration })
}

/// A results folder's `plans.pkl`; the published one lacks everything that matters.
fn full_plans(files: &Files, path: &Path) -> Result<Option<Plans>, InferError> {
    if !files.is_file(path) {
        return Ok(None);
    }
    let json = files.read_pickle(path)?.to_json();
    if json.get("plans_per_stage").is_none() {
        return Ok(None);
    }
    Ok(Some(Plans::from_v1_json(&json).map_err(|e| e.at(path))?))
}

/// nnU-Net v1 keeps no label names with a model: those of a `dataset.json` laid beside it, the
/// published ones, or numbers.
fn labels(
    files: &Files,
    folder: &Path,
    num_classes: usize,
    published: bool,
    notes: &mut Vec<String>,
) -> Result<LabelSet, InferError> {
    let dataset = folder.join("dataset.json");
    if files.is_file(&dataset) {
        let json: Value = files.read_json(&dataset)?;
        return Ok(LabelSet::from_dataset_json(&json).map_err(|e| e.at(&dataset))?);
    }
    if published {
        return Ok(LabelSet::totalsegmentator());
    }
    notes.push("no dataset.json beside the model: labels have numbers for names".to_owned());
    Ok(LabelSet::numbered(num_classes)?)
}
