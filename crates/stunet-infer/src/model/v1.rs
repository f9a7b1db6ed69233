//! nnU-Net 1.7: `.model` files and results folders.

use super::choose::{
    choose_checkpoint, choose_checkpoints, choose_folds_noted, not_a_model, read_json,
};
use super::description::{ModelKind, OpenOptions};
use super::located::{Fold, Located, Weights};
use crate::error::InferError;
use serde_json::Value;
use std::path::Path;
use stunet_data::labels::LabelSet;
use stunet_data::plans::Plans;
use stunet_model::weights::{Checkpoint, CheckpointKind, pickle};

/// Classes of the published models, background included.
const PUBLISHED_CLASSES: usize = 105;
/// Checkpoints of the trainer, most wanted first.
const USUAL: [&str; 3] = ["model_final_checkpoint", "model_best", "model_latest"];

/// True for a folder with `.model` files, or with folds that have some.
pub(super) fn looks_like(folder: &Path) -> bool {
    let has_model = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.path().extension().is_some_and(|e| e == "model"))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_fold = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("fold_");
    folder.join("plans.pkl").is_file()
        || has_model(folder)
        || entries.into_iter().any(|e| is_fold(&e.file_name()) && has_model(&e.path()))
}

/// Opens a single `.model` file.
pub(super) fn open_file(path: &Path) -> Result<Located, InferError> {
    let fold = Fold { name: String::new(), weights: Weights::Checkpoint(checkpoint(path)?) };
    with_plans(path, path.parent().unwrap_or(Path::new("")), vec![fold])
}

/// Opens a results folder, or a folder that just holds a `.model` file.
pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Located, InferError> {
    let wanted = options.checkpoint.as_deref();
    let in_folds = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .any(|e| e.file_name().to_string_lossy().starts_with("fold_"));
    if !in_folds {
        let file = choose_checkpoint(path, wanted, "model", &USUAL)?;
        return open_file(&file);
    }
    let (chosen, note) = choose_folds_noted(path, &options.folds)?;
    let mut notes = vec![note];
    let files = choose_checkpoints(path, &chosen, wanted, ("model", &USUAL), &mut notes)?;
    let mut folds = Vec::new();
    for (fold, file) in chosen.into_iter().zip(files) {
        folds.push(Fold { name: fold.name, weights: Weights::Checkpoint(checkpoint(&file)?) });
    }
    let mut located = with_plans(path, path, folds)?;
    if path.join("postprocessing.json").is_file() {
        notes.push("postprocessing.json of nnU-Net is not applied: labels stay as they are".into());
    }
    located.notes.splice(..0, notes);
    Ok(located)
}

fn checkpoint(path: &Path) -> Result<Checkpoint, InferError> {
    let checkpoint = Checkpoint::open(path)?;
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
fn with_plans(path: &Path, folder: &Path, folds: Vec<Fold>) -> Result<Located, InferError> {
    let Weights::Checkpoint(first) = &folds[0].weights else {
        unreachable!("only checkpoints are put in here")
    };
    let config = first.config([[1; 3]; 5])?;
    let published = config.num_classes == PUBLISHED_CLASSES && config.in_channels == 1;
    let mut notes = Vec::new();
    let shared = folder.join("plans.pkl");
    let plans = if let Some(own) = first.plan_file() {
        let mut name = first.path().to_owned().into_os_string();
        name.push(".pkl");
        Plans::from_v1_json(&own).map_err(|e| e.at(Path::new(&name)))?
    } else if let Some(plans) = full_plans(&shared)? {
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
    let labels = labels(folder, config.num_classes, published, &mut notes)?;
    let (kind, configuration) = (ModelKind::NnUNetV1, Value::Null);
    Ok(Located { kind, plans, labels, folds, notes, configuration })
}

/// A results folder's `plans.pkl`; the published one lacks everything that matters.
fn full_plans(path: &Path) -> Result<Option<Plans>, InferError> {
    if !path.is_file() {
        return Ok(None);
    }
    let json = pickle::read_file(path)?.to_json();
    if json.get("plans_per_stage").is_none() {
        return Ok(None);
    }
    Ok(Some(Plans::from_v1_json(&json).map_err(|e| e.at(path))?))
}

/// nnU-Net v1 keeps no label names with a model: those of a `dataset.json` laid beside it, the
/// published ones, or numbers.
fn labels(
    folder: &Path,
    num_classes: usize,
    published: bool,
    notes: &mut Vec<String>,
) -> Result<LabelSet, InferError> {
    let dataset = folder.join("dataset.json");
    if dataset.is_file() {
        let json = read_json(&dataset)?;
        return Ok(LabelSet::from_dataset_json(&json).map_err(|e| e.at(&dataset))?);
    }
    if published {
        return Ok(LabelSet::totalsegmentator());
    }
    notes.push("no dataset.json beside the model: labels have numbers for names".to_owned());
    Ok(LabelSet::numbered(num_classes)?)
}
