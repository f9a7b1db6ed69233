//! The weights that `--pretrained` names.

use std::path::{Path, PathBuf};

use anyhow::bail;
use stunet::data::plans::Plans;
use stunet::infer::{Model, OpenOptions};
use stunet::model::StuNetConfig;
use stunet::model::weights::folder::is_model_folder;
use stunet::model::weights::{Checkpoint, folder};
use stunet::train::FoldFolder;
use stunet::train::checkpoint::{TrainingCheckpoint, is_training_checkpoint};

use crate::folders;
use crate::orientation::of_images;

/// The weights that a path means: a file, a model folder, or the one of a fold's folder.
///
/// A results folder with one fold means that one; several are several networks, of which a run can
/// begin with one.
pub fn weights_of(path: &Path) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    if !path.is_dir() || is_model_folder(path) {
        return Ok(path.to_owned());
    }
    let places = [path.join("model"), path.join("checkpoint_final.pth")];
    if let Some(found) = places.into_iter().find(|at| is_model_folder(at) || at.is_file()) {
        return Ok(found);
    }
    if let Some(checkpoint) = FoldFolder::at(path).newest_checkpoint() {
        bail!(
            "--pretrained: expected a complete run, found one that is not; to begin with its \
             weights all the same, name its checkpoint {}: {shown}",
            checkpoint.file_name().unwrap_or_default().display()
        );
    }
    match &folders::folds_of(path)[..] {
        [] => bail!(
            "--pretrained: expected weights, a model folder or the folder of a fold, found a folder \
             without any of these: {shown}"
        ),
        [only] => weights_of(only),
        [first, ..] => bail!(
            "--pretrained: expected one network, found a results folder of several folds; name one, \
             such as {}: {shown}",
            first.display()
        ),
    }
}

/// A sentence on weights that were trained on images whose axes ran otherwise than the dataset's:
/// whoever looks for a liver on the right has to learn it anew. None where one of them does not say it.
pub fn orientation_note(path: &Path, dataset: &Plans) -> Option<String> {
    let options = OpenOptions::new(&stunet::device::parse("cpu").ok()?);
    // Weights alone say nothing, and what cannot be opened is told when it is.
    let weights = Model::describe(&weights_of(path).ok()?, &options).ok()?;
    let [theirs, ours] = [&weights.plans, dataset].map(Plans::trained_orientation);
    let (theirs, ours) = (theirs?, ours?);
    (theirs.majority != ours.majority).then(|| {
        format!(
            "the axes of the dataset's images run {}, those that the pre-trained weights saw {}: \
             fine-tuning gains more from images that run alike",
            of_images(ours),
            of_images(theirs)
        )
    })
}

/// Lines on what the weights were trained with and the run is not, of what no weight depends on. None
/// where nothing lies beside the weights that says so.
pub fn plan_lines(file: &Path, dataset: &Plans) -> Vec<String> {
    let Ok(device) = stunet::device::parse("cpu") else { return Vec::new() };
    let Ok(weights) = Model::describe(file, &OpenOptions::new(&device)) else { return Vec::new() };
    let theirs = &weights.plans;
    let by = |numbers: [String; 3]| numbers.join(" x ");
    let entries = [
        ("spacing", [theirs, dataset].map(|p| by(p.spacing_mm.map(|mm| mm.to_string())) + " mm")),
        ("patch", [theirs, dataset].map(|p| by(p.patch_size.map(|n| n.to_string())) + " voxels")),
    ];
    let differ = entries.into_iter().filter(|(_, [theirs, ours])| theirs != ours);
    differ
        .map(|(what, [theirs, ours])| {
            format!("{what}: {theirs} of the weights, {ours} here; no weight's shape depends on it")
        })
        .collect()
}

/// Shape of a network in a file, for whoever does not name a size.
pub fn shape_of(file: &Path, strides: [[usize; 3]; 5]) -> anyhow::Result<StuNetConfig> {
    let file = &weights_of(file)?;
    if file.is_dir() {
        return Ok(folder::open(file)?.config().clone());
    }
    if is_training_checkpoint(file) {
        return Ok(TrainingCheckpoint::open(file)?.state().config.clone());
    }
    Ok(Checkpoint::open(file)?.config(strides)?)
}
