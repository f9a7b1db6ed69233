//! nnU-Net 2: results folders.

use super::agree::{Import, agree};
use super::choose::{choose_checkpoints, choose_folds_noted, not_a_model};
use super::description::{ModelKind, OpenOptions};
use super::files::Files;
use super::located::{Fold, Located, Weights};
use crate::error::InferError;
use serde_json::Value;
use std::path::{Path, PathBuf};
use stunet_data::DataError;
use stunet_data::labels::LabelSet;
use stunet_data::plans::{Configuration, Plans};
use stunet_model::weights::{Checkpoint, CheckpointKind, NetworkKind};

/// Checkpoints of the trainer, most wanted first.
const USUAL: [&str; 3] = ["checkpoint_final", "checkpoint_best", "checkpoint_latest"];

/// The results folder of `RESULTS/fold_X/checkpoint.pth`, and the fold's name.
pub(super) fn results_folder_of(files: &Files, file: &Path) -> Option<(PathBuf, String)> {
    if file.extension().is_none_or(|e| e != "pth") {
        return None;
    }
    results_folder_of_fold(files, file.parent()?)
}

/// The results folder of `RESULTS/fold_X`, and the fold's name.
pub(super) fn results_folder_of_fold(files: &Files, fold: &Path) -> Option<(PathBuf, String)> {
    let name = fold.file_name()?.to_str()?.strip_prefix("fold_")?;
    let folder = fold.parent()?;
    // A relative path may end at the fold: its parent is then the current folder.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    files.is_file(&folder.join("plans.json")).then(|| (folder.to_owned(), name.to_owned()))
}

/// Opens one checkpoint within its results folder.
pub(super) fn open_file(files: &Files, file: &Path, folder: &Path) -> Result<Located, InferError> {
    let fold = file.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    let name = fold.unwrap_or_default().trim_start_matches("fold_").to_owned();
    let weights = Weights::Checkpoint(checkpoint(files, file)?);
    with_plans(files, folder, vec![Fold { name, weights }])
}

/// Opens a results folder.
pub(super) fn open(
    files: &Files,
    path: &Path,
    options: &OpenOptions,
) -> Result<Located, InferError> {
    let wanted = options.checkpoint.as_deref();
    let (chosen, note) = choose_folds_noted(files, path, &options.folds)?;
    let mut notes = vec![note];
    let ending = ("pth", &USUAL[..]);
    let checkpoints = choose_checkpoints(files, (path, &chosen), wanted, ending, &mut notes)?;
    let mut folds = Vec::new();
    for (fold, file) in chosen.into_iter().zip(checkpoints) {
        let weights = Weights::Checkpoint(checkpoint(files, &file)?);
        folds.push(Fold { name: fold.name, weights });
    }
    let mut located = with_plans(files, path, folds)?;
    located.notes.splice(..0, notes);
    Ok(located)
}

fn checkpoint(files: &Files, path: &Path) -> Result<Checkpoint, InferError> {
    let checkpoint = files.checkpoint(path)?;
    match checkpoint.kind() {
        CheckpointKind::NnUNetV2 => Ok(checkpoint),
        CheckpointKind::NnUNetV1 => {
            Err(not_a_model(path, "an nnU-Net v2 checkpoint", "one of nnU-Net v1"))
        }
    }
}

fn with_plans(files: &Files, folder: &Path, folds: Vec<Fold>) -> Result<Located, InferError> {
    let Weights::Checkpoint(first) = &folds[0].weights else {
        unreachable!("only checkpoints are put in here")
    };
    let metadata = first.metadata();
    let arguments = metadata.get("init_args").unwrap_or(&Value::Null);
    let plans_path = folder.join("plans.json");
    let dataset_path = folder.join("dataset.json");
    let plans = files.read_json(&plans_path)?;
    let has_dataset = files.is_file(&dataset_path);
    // The checkpoint carries the dataset, too, should the file have been left behind.
    let dataset = match (has_dataset, arguments.get("dataset_json")) {
        (false, Some(dataset)) if dataset.is_object() => dataset.clone(),
        _ => files.read_json(&dataset_path)?,
    };
    // What is wrong with the dataset is not wrong with the plans, and may stand in the checkpoint.
    let dataset_path = if has_dataset { &dataset_path } else { first.path() };
    let configuration = configuration(folder, arguments, &plans);
    let about = |e: DataError| e.at_if_about("dataset.json", dataset_path).at(&plans_path);
    let resolved = Configuration::of(&plans, &configuration).map_err(about)?;
    let resolved = resolved.entries().clone();
    let import = importer(first.network());
    let mut plans = import(&plans, &dataset, &configuration).map_err(about)?;
    let mut notes = Vec::new();
    for fold in &folds {
        if let Weights::Checkpoint(checkpoint) = &fold.weights {
            let metadata = checkpoint.metadata();
            let arguments = metadata.get("init_args").unwrap_or(&Value::Null);
            notes.extend(agree((&plans, &dataset), arguments, import, checkpoint.path())?);
        }
    }
    match mirror_axes(metadata.get("inference_allowed_mirroring_axes")) {
        Some(axes) => plans.mirror_axes = axes,
        None => {
            plans.mirror_axes = Vec::new();
            notes.push("the checkpoint allows no mirroring: windows are predicted once".to_owned());
        }
    }
    let labels = LabelSet::from_dataset_json(&dataset).map_err(|e| e.at(dataset_path))?;
    let kind = ModelKind::NnUNetV2;
    Ok(Located { kind, plans, labels, folds, notes, configuration: resolved })
}

/// How plans are read: STU-Net has five strides whatever they say, a plain U-Net has theirs.
fn importer(network: NetworkKind) -> Import {
    match network {
        NetworkKind::StuNet => Plans::from_v2_json,
        NetworkKind::PlainConvUNet => Plans::from_v2_json_as_planned,
    }
}

/// Which configuration: the checkpoint knows, else the folder's name `TRAINER__PLANS__CONFIG`, else
/// the only one there is, else the usual one.
fn configuration(folder: &Path, arguments: &Value, plans: &Value) -> String {
    let recorded = arguments.get("configuration").and_then(Value::as_str);
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named = name.split("__").nth(2);
    let known = plans.get("configurations").and_then(Value::as_object);
    let only = known.filter(|k| k.len() == 1).and_then(|k| k.keys().next()).map(String::as_str);
    let is_known = |name: &&str| known.is_some_and(|k| k.contains_key(*name));
    let found = recorded.or(named.filter(is_known)).or(only);
    found.unwrap_or("3d_fullres").to_owned()
}

/// As nnU-Net reads them: none recorded means no mirroring.
fn mirror_axes(recorded: Option<&Value>) -> Option<Vec<usize>> {
    let axes = recorded?.as_array()?;
    let mut axes: Vec<usize> =
        axes.iter().map(|a| a.as_u64().map(|a| a as usize)).collect::<Option<_>>()?;
    axes.sort_unstable();
    axes.dedup();
    Some(axes)
}
