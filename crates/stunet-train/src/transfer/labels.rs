//! Labels of pre-trained weights: heads mean something only together with them.

use crate::checkpoint::{TrainingCheckpoint, is_training_checkpoint};
use crate::error::{Result, TrainError};
use serde_json::Value;
use std::path::Path;
use stunet_data::files;
use stunet_data::labels::LabelSet;
use stunet_model::weights::{Checkpoint, folder};

/// The labels that the heads in a file were trained for, where that is known: from the `labels.json`
/// of a model folder, the settings in a checkpoint of `stunet train`, or the `dataset.json` in or near
/// a checkpoint of nnU-Net 2. Those of nnU-Net 1 do not name their labels.
///
/// # Errors
/// When the file cannot be read, or what it says of labels is malformed.
pub fn labels_of(file: &Path) -> Result<Option<LabelSet>> {
    Ok(Heads::of(file)?.labels)
}

/// Checks that the heads in a file were trained for these labels: as many, and, where the file says
/// so, the same names in the same order.
///
/// # Errors
/// When they were not, or the file cannot be read.
pub fn check_labels(file: &Path, expected: &LabelSet) -> Result<()> {
    let heads = Heads::of(file)?;
    let (same, found) = match &heads.labels {
        Some(found) => {
            let same = names(found) == names(expected)
                && found.has_regions() == expected.has_regions()
                && found.num_outputs() == expected.num_outputs();
            (same, listed(found))
        }
        None => {
            let same = heads.num_outputs == expected.num_outputs();
            (same, format!("{} outputs whose labels are not known", heads.num_outputs))
        }
    };
    match same {
        true => Ok(()),
        false => {
            let expected = listed(expected);
            Err(TrainError::Heads { expected, found, path: file.to_owned() })
        }
    }
}

/// For every output of a network for these labels the output of the file with the same name, or none
/// where it has no such: for [`TransferOptions::head_rows`](super::TransferOptions::head_rows).
///
/// # Errors
/// When the file cannot be read or does not name its labels, or one of both has regions and the other
/// labels, whose heads mean something else.
pub fn heads_by_name(file: &Path, expected: &LabelSet) -> Result<Vec<Option<usize>>> {
    let heads = Heads::of(file)?;
    let Some(found) = &heads.labels else {
        let found = format!("{} outputs whose labels are not known", heads.num_outputs);
        let expected =
            "heads with names, from a labels.json, a dataset.json or the run's own settings";
        return Err(TrainError::checkpoint(file, expected, found));
    };
    if found.has_regions() != expected.has_regions() {
        let kind = if expected.has_regions() { "regions" } else { "labels" };
        return Err(TrainError::checkpoint(file, format!("heads of {kind}"), listed(found)));
    }
    let [theirs, ours] = [found, expected].map(|labels| {
        // The background is no region.
        names(labels).split_off(usize::from(labels.has_regions()))
    });
    Ok(ours.iter().map(|name| theirs.iter().position(|other| other == name)).collect())
}

/// What a file says of its heads.
struct Heads {
    num_outputs: usize,
    labels: Option<LabelSet>,
}

impl Heads {
    fn of(file: &Path) -> Result<Self> {
        if file.is_dir() {
            let num_outputs = folder::open(file)?.config().num_classes;
            return Ok(Self { num_outputs, labels: of_folder(file)? });
        }
        if is_training_checkpoint(file) {
            let checkpoint = TrainingCheckpoint::open(file)?;
            let num_outputs = checkpoint.state().config.num_classes;
            return Ok(Self { num_outputs, labels: of_run(&checkpoint)? });
        }
        let checkpoint = Checkpoint::open(file)?;
        // Every head has as many outputs.
        let head = checkpoint.tensors().find(|(name, _)| name.contains("heads."));
        let num_outputs = head.and_then(|(_, tensor)| tensor.shape.first().copied());
        Ok(Self { num_outputs: num_outputs.unwrap_or(0), labels: of_nnunet(&checkpoint)? })
    }
}

/// Folders of several folds share one beside them.
fn of_folder(folder: &Path) -> Result<Option<LabelSet>> {
    let places = [Some(folder), folder.parent()].into_iter().flatten();
    let found = places.map(|place| place.join("labels.json")).find(|file| file.is_file());
    Ok(found.map(|file| LabelSet::load(&file)).transpose()?)
}

/// Kept by `stunet train`; a run of somebody else may have none.
fn of_run(checkpoint: &TrainingCheckpoint) -> Result<Option<LabelSet>> {
    let Some(labels) = checkpoint.state().run.pointer("/about/labels") else { return Ok(None) };
    let labels = serde_json::from_value(labels.clone()).map_err(|e| {
        TrainError::checkpoint(checkpoint.path(), "the labels of the run", e.to_string())
    })?;
    Ok(Some(labels))
}

/// In the checkpoint itself, or two folders up: `RESULTS/fold_0/checkpoint_final.pth`.
fn of_nnunet(checkpoint: &Checkpoint) -> Result<Option<LabelSet>> {
    let metadata = checkpoint.metadata();
    let inside = metadata.get("init_args").and_then(|arguments| arguments.get("dataset_json"));
    if let Some(dataset) = inside.filter(|dataset| dataset.is_object()) {
        return Ok(Some(LabelSet::from_dataset_json(dataset)?));
    }
    let results = checkpoint.path().parent().and_then(Path::parent);
    let near = results.map(|results| results.join("dataset.json")).filter(|file| file.is_file());
    let is_v2 = metadata.contains_key("init_args");
    match near.filter(|_| is_v2) {
        None => Ok(None),
        Some(file) => {
            let dataset: Value = files::read_json(&file)?;
            Ok(Some(LabelSet::from_dataset_json(&dataset).map_err(|e| e.at(&file))?))
        }
    }
}

/// In the order of the outputs, as far as it depends on the order of the list.
fn names(labels: &LabelSet) -> Vec<&str> {
    labels.labels().iter().map(|label| label.name.as_str()).collect()
}

fn listed(labels: &LabelSet) -> String {
    let kind = if labels.has_regions() { "regions" } else { "labels" };
    format!("{} {kind} ({})", labels.labels().len(), names(labels).join(", "))
}
