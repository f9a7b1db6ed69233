//! Our own folders: a model folder, and what a training run of this program leaves behind.

use super::choose::{check_fold, choose_folds, choose_folds_noted, folds_in};
use super::description::{Folds, ModelKind, OpenOptions};
use super::files::Files;
use super::located::{Fold, Located, Weights};
use crate::error::InferError;
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use stunet_data::labels::LabelSet;
use stunet_data::plans::Plans;
use stunet_model::weights::folder::WEIGHTS_FILE;

pub(super) const PLANS_FILE: &str = "plans.json";
pub(super) const LABELS_FILE: &str = "labels.json";
/// What a complete run leaves in the folder of its fold.
const MODEL: &str = "model";
/// Ending of the checkpoints that a run goes on from.
const CHECKPOINTS: &str = "safetensors";
/// Names of the checkpoint that a model folder is made from.
const FINAL: [&str; 2] = ["checkpoint_final", "model_final_checkpoint"];

/// True for a model folder, for one with a model folder per fold, for the folder of a fold that was
/// trained here, and for the folder of several of those that are complete.
pub(super) fn looks_like(files: &Files, path: &Path, folds: &Folds) -> bool {
    files.is_model_folder(path)
        || files.is_model_folder(&path.join(MODEL))
        || folds_in(files, path).any(|fold| files.is_model_folder(&fold.path))
        || is_complete_run(files, path, folds)
        || (has_checkpoints(files, path)
            || folds_in(files, path).any(|fold| has_checkpoints(files, &fold.path)))
            && !folds_in(files, path).any(|fold| has_ending(files, &fold.path, "pth"))
            && !has_ending(files, path, "pth")
}

/// A results folder of this program whose wanted folds are complete. Where checkpoints were
/// exported for nnU-Net into all of them, the folder is nnU-Net's.
fn is_complete_run(files: &Files, path: &Path, folds: &Folds) -> bool {
    let Ok(chosen) = choose_folds(files, path, folds) else { return false };
    chosen.iter().all(|fold| files.is_model_folder(&fold.path.join(MODEL)))
        && !chosen.iter().all(|fold| has_ending(files, &fold.path, "pth"))
}

fn has_checkpoints(files: &Files, folder: &Path) -> bool {
    has_ending(files, folder, CHECKPOINTS) && !files.is_model_folder(folder)
}

fn has_ending(files: &Files, folder: &Path, ending: &str) -> bool {
    let entries = files.entries(folder);
    entries.iter().any(|entry| entry.extension().is_some_and(|e| e == ending))
}

/// Opens what [`looks_like`] one of ours.
pub(super) fn open(
    files: &Files,
    path: &Path,
    options: &OpenOptions,
) -> Result<Located, InferError> {
    let located = if files.is_model_folder(path) {
        with_plans_of(files, path, vec![fold(files, "", path)?], Vec::new())?
    } else if folds_in(files, path).any(|fold| files.is_model_folder(&fold.path)) {
        let (chosen, note) = choose_folds_noted(files, path, &options.folds)?;
        let folds =
            chosen.iter().map(|f| fold(files, &f.name, &f.path)).collect::<Result<_, _>>()?;
        with_plans_of(files, path, folds, vec![note])?
    } else if folds_in(files, path).next().is_none() {
        // The folder of a fold.
        let name = path.file_name().and_then(|name| name.to_str()?.strip_prefix("fold_"));
        let name = name.unwrap_or_default();
        if !name.is_empty() {
            check_fold(name, &options.folds, path)?;
        }
        let model = finished(files, &[(name.to_owned(), path.to_owned())], path)?.remove(0);
        with_plans_of(files, &model, vec![fold(files, name, &model)?], Vec::new())?
    } else {
        of_a_run(files, path, &options.folds)?
    };
    check_checkpoint(&located, options.checkpoint.as_deref(), path)?;
    Ok(located)
}

/// `TRAINER__PLANS__CONFIG`, as `stunet train` writes it.
fn of_a_run(files: &Files, path: &Path, folds: &Folds) -> Result<Located, InferError> {
    let (chosen, note) = choose_folds_noted(files, path, folds)?;
    let named: Vec<_> = chosen.into_iter().map(|fold| (fold.name, fold.path)).collect();
    let models = finished(files, &named, path)?;
    let opened = named.iter().zip(&models).map(|((name, _), model)| fold(files, name, model));
    let mut located =
        with_plans_of(files, &models[0], opened.collect::<Result<_, _>>()?, vec![note])?;
    for ((name, _), model) in named.iter().zip(&models).skip(1) {
        // Folds are averaged: they have to see the same, and to mean the same by every output.
        let (mut plans, labels) = plans_and_labels(files, model)?;
        // Folds of an earlier version do not say how the training images ran.
        plans.orientation = plans.orientation.or(located.plans.orientation);
        located.plans.orientation = located.plans.orientation.or(plans.orientation);
        let differing =
            differing(&located.plans, &plans).or_else(|| differing(&located.labels, &labels));
        if let Some((key, [first, other])) = differing {
            return Err(InferError::Mismatch {
                what: "plans and labels of the folds",
                expected: format!("the same, here {key} {first} as in fold_{}", named[0].0),
                found: format!("{other} in fold_{name}"),
                path: path.to_owned(),
            });
        }
    }
    Ok(located)
}

/// The first entry that differs, and both values; notes are nobody's concern.
fn differing(first: &impl Serialize, other: &impl Serialize) -> Option<(String, [String; 2])> {
    let [first, other] = [serde_json::to_value(first).ok()?, serde_json::to_value(other).ok()?];
    let keys = first.as_object()?.keys().chain(other.as_object()?.keys());
    let key = keys.filter(|key| *key != "notes").find(|key| first.get(*key) != other.get(*key))?;
    let shown = |value: &Value| value.get(key).map_or_else(|| "none".to_owned(), Value::to_string);
    Some((key.clone(), [shown(&first), shown(&other)]))
}

/// The model folders of folds, all of which must be complete.
fn finished(
    files: &Files,
    folds: &[(String, PathBuf)],
    path: &Path,
) -> Result<Vec<PathBuf>, InferError> {
    let models: Vec<_> = folds.iter().map(|(_, at)| at.join(MODEL)).collect();
    let state = |((name, at), model): (&(String, PathBuf), &PathBuf)| {
        let fold = if name.is_empty() { String::new() } else { format!("fold_{name}: ") };
        let what = match (files.is_model_folder(model), has_checkpoints(files, at)) {
            (true, _) => "complete",
            _ if files.is_file(&at.join(WEIGHTS_FILE)) => "weights without their network.json",
            (false, true) => "training is not complete",
            (false, false) => "nothing trained",
        };
        format!("{fold}{what}")
    };
    if models.iter().all(|model| files.is_model_folder(model)) {
        return Ok(models);
    }
    Err(InferError::Mismatch {
        what: "training runs",
        expected: "complete ones (go on with `stunet train --continue`, choose folds with -f, or \
                   export a checkpoint with `stunet export`)"
            .to_owned(),
        found: folds.iter().zip(&models).map(state).collect::<Vec<_>>().join(", "),
        path: path.to_owned(),
    })
}

fn fold(files: &Files, name: &str, at: &Path) -> Result<Fold, InferError> {
    let weights = Weights::Folder(files.model_folder(at)?, at.to_owned());
    Ok(Fold { name: name.to_owned(), weights })
}

fn with_plans_of(
    files: &Files,
    at: &Path,
    folds: Vec<Fold>,
    notes: Vec<String>,
) -> Result<Located, InferError> {
    let (plans, labels) = plans_and_labels(files, at)?;
    let (kind, configuration) = (ModelKind::Stunet, Value::Null);
    Ok(Located { kind, plans, labels, folds, notes, configuration })
}

fn plans_and_labels(files: &Files, at: &Path) -> Result<(Plans, LabelSet), InferError> {
    Ok((files.read_json(&at.join(PLANS_FILE))?, files.read_json(&at.join(LABELS_FILE))?))
}

/// A model folder has one set of weights: those of the checkpoint it was made from.
fn check_checkpoint(
    located: &Located,
    wanted: Option<&str>,
    path: &Path,
) -> Result<(), InferError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let stem = |name: &str| {
        let endings = [".pth", ".model", ".safetensors"];
        let cut = endings.into_iter().find_map(|ending| name.strip_suffix(ending));
        cut.unwrap_or(name).to_owned()
    };
    for fold in &located.folds {
        let Weights::Folder(folder, _) = &fold.weights else { continue };
        let source = folder.provenance().get("source").and_then(|v| v.as_str()).map(stem);
        let is_final = source.is_none() && FINAL.contains(&stem(wanted).as_str());
        if !is_final && source.as_deref() != Some(&stem(wanted)) {
            let made_from = source.unwrap_or_else(|| FINAL[0].to_owned());
            return Err(InferError::Mismatch {
                what: "checkpoint",
                expected: format!(
                    "{made_from}, which the model folder was made from (other checkpoints of a run \
                     are exported first, with `stunet export`)"
                ),
                found: wanted.to_owned(),
                path: path.to_owned(),
            });
        }
    }
    Ok(())
}
