//! Where a run begins: with initial weights, pre-trained ones, or its own checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use stunet::model::weights::folder::is_model_folder;
use stunet::model::weights::{Checkpoint, folder};
use stunet::model::{Initialisation, StuNet, StuNetConfig};
use stunet::train::checkpoint::{TrainingCheckpoint, is_training_checkpoint};
use stunet::train::export::About;
use stunet::train::transfer::{Rules, TransferOptions, transfer};
use stunet::train::{FoldFolder, StateOptions, TrainingState};

use super::dataset::Dataset;
use super::settings::Settings;
use crate::args::{Recipe, TrainArgs};
use crate::folders;

/// What a run's checkpoints carry for whoever continues or exports it.
#[derive(Serialize, Deserialize)]
pub struct Run {
    /// What decides its numbers.
    pub settings: Settings,
    /// What its exports need.
    pub about: About,
}

impl Run {
    /// The run's, read back from one of its checkpoints.
    pub fn of(checkpoint: &TrainingCheckpoint) -> anyhow::Result<Self> {
        serde_json::from_value(checkpoint.state().run.clone()).with_context(|| {
            format!(
                "expected a checkpoint of `stunet train`, found one without its settings: {}",
                checkpoint.path().display()
            )
        })
    }
}

/// The weights that a path means: a file, a model folder, or the one of a fold's folder.
///
/// A results folder with one fold means that one; several are several networks, of which a run can
/// begin with one.
fn weights_of(path: &Path) -> anyhow::Result<PathBuf> {
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

/// A state at the beginning of a run, and what was carried over.
pub fn fresh(
    args: &TrainArgs,
    settings: &Settings,
    options: &StateOptions,
) -> anyhow::Result<(TrainingState, Option<String>)> {
    let initialisation = match settings.recipe {
        Recipe::V1 => Initialisation::NnUNetV1,
        Recipe::V2 => Initialisation::PyTorchDefault,
    };
    let Some(file) = &args.pretrained else {
        let config = &settings.network;
        let network =
            StuNet::init(config, initialisation, settings.seed, &options.training_device())?;
        return Ok((TrainingState::new(network, options), None));
    };
    let rules = match settings.recipe {
        Recipe::V1 => Rules::V1,
        Recipe::V2 => Rules::V2,
    };
    let how = TransferOptions {
        rules,
        divide_stem: settings.stem_divide,
        initialisation,
        seed: settings.seed,
    };
    let (network, report) =
        transfer(&weights_of(file)?, &settings.network, &how, &options.training_device())?;
    Ok((TrainingState::new(network, options), Some(report.to_string())))
}

/// The settings of the run in a folder, which goes on.
pub fn recorded(
    args: &TrainArgs,
    dataset: &Dataset,
    folder: &FoldFolder,
) -> anyhow::Result<(Settings, TrainingCheckpoint)> {
    let Some(file) = folder.newest_checkpoint() else {
        bail!(
            "--continue: expected a checkpoint to go on from, found none: {}",
            folder.path.display()
        );
    };
    let checkpoint = TrainingCheckpoint::open(&file)?;
    let run = Run::of(&checkpoint)?;
    Ok((Settings::of_run(run.settings, args, dataset)?, checkpoint))
}
