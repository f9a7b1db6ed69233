//! The start of a run: from initial weights, from pre-trained weights, or from its own checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use stunet::data::compare::differences;
use stunet::data::plans::Plans;
use stunet::model::weights::folder::is_model_folder;
use stunet::model::weights::{Checkpoint, folder};
use stunet::model::{Initialisation, StuNetConfig};
use stunet::train::checkpoint::{TrainingCheckpoint, is_training_checkpoint};
use stunet::train::export::About;
use stunet::train::transfer::{Rules, TransferOptions, check_labels, transfer};
use stunet::train::{FoldFolder, StateOptions, TrainingState};

use super::dataset::Dataset;
use super::results;
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
    /// The plans' file as it was when the run began, before options of the command line; earlier
    /// versions did not keep it.
    #[serde(default)]
    pub planned: Option<Plans>,
}

impl Run {
    /// A new run.
    pub fn new(args: &TrainArgs, dataset: &Dataset) -> anyhow::Result<Self> {
        let settings = Settings::new(args, dataset)?;
        let about = About {
            plans: settings.plans(dataset)?,
            labels: dataset.labels().clone(),
            trainer: settings.trainer(),
            fold: settings.fold.clone(),
            batch_dice: settings.batch_dice,
            nnunet_plans: dataset.nnunet_plans(),
            nnunet_dataset: dataset.nnunet_dataset.clone(),
        };
        Ok(Self { settings, about, planned: Some(dataset.plans().clone()) })
    }

    /// The run's, read back from one of its checkpoints.
    pub fn of(checkpoint: &TrainingCheckpoint) -> anyhow::Result<Self> {
        let (state, shown) = (checkpoint.state(), checkpoint.path().display());
        let run: Self = serde_json::from_value(state.run.clone()).with_context(|| {
            format!(
                "expected a checkpoint of `stunet train`, found one without its settings: {shown}"
            )
        })?;
        let found = differences(&run.settings.network, &state.config)?;
        ensure!(
            found.is_empty(),
            "expected one network in a checkpoint, found two: {}: {shown}",
            found.told("its settings", "its weights")
        );
        Ok(run)
    }

    /// Where a run that goes on meets the plans of today: they have to be those it was started with,
    /// as half a run at one patch and half at another is neither.
    fn check_plans(&self, dataset: &Dataset, checkpoint: &Path) -> anyhow::Result<()> {
        let found = match &self.planned {
            Some(planned) => differences(dataset.plans(), planned)?.without(&["notes"]),
            // Options of the command line may have replaced patch and batch; the run's count.
            None => differences(dataset.plans(), &self.about.plans)?.without(&[
                "notes",
                "patch_size",
                "batch_size",
            ]),
        };
        let file = dataset.planned.file_name();
        ensure!(
            found.is_empty(),
            "--continue: {file} has changed since the run was started: {}; undo the change to go on, or \
             start a run of its own with --output or under other plans: {}",
            found.told(&file, checkpoint.file_name().unwrap_or_default().display()),
            dataset.planned.file.display()
        );
        Ok(())
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
    Run { settings, about, .. }: &Run,
    options: &StateOptions,
) -> anyhow::Result<(TrainingState, Option<String>)> {
    let labels = &about.labels;
    let initialisation = match settings.recipe {
        Recipe::V1 => Initialisation::NnUNetV1,
        Recipe::V2 => Initialisation::PyTorchDefault,
    };
    let Some(file) = &args.pretrained else {
        let config = &settings.network;
        let network =
            config.init_seeded(initialisation, settings.seed, &options.training_device())?;
        return Ok((TrainingState::new(network, options), None));
    };
    let rules = match settings.recipe {
        Recipe::V1 => Rules::V1,
        Recipe::V2 => Rules::V2,
    };
    let how = TransferOptions {
        rules,
        keep_heads: settings.keep_heads,
        divide_stem: settings.stem_divide,
        initialisation,
        seed: settings.seed,
    };
    let (file, device) = (weights_of(file)?, options.training_device());
    if how.keep_heads {
        check_labels(&file, labels)?;
    }
    let (network, report) = transfer(&file, &settings.network, &how, &device)?;
    Ok((TrainingState::new(network, options), Some(report.to_string())))
}

/// The run: a new one, or that of the folder with the checkpoint to go on from.
pub fn open(
    args: &TrainArgs,
    dataset: &Dataset,
    folder: &FoldFolder,
) -> anyhow::Result<(Run, Option<TrainingCheckpoint>)> {
    if args.go_on {
        let (run, checkpoint) = recorded(args, dataset, folder)?;
        return Ok((run, Some(checkpoint)));
    }
    results::check_new(folder)?;
    Ok((Run::new(args, dataset)?, None))
}

/// The run in a folder, which goes on.
fn recorded(
    args: &TrainArgs,
    dataset: &Dataset,
    folder: &FoldFolder,
) -> anyhow::Result<(Run, TrainingCheckpoint)> {
    let Some(file) = folder.newest_checkpoint() else {
        bail!(
            "--continue: expected a checkpoint to go on from, found none: {}",
            folder.path.display()
        );
    };
    let checkpoint = TrainingCheckpoint::open(&file)?;
    let run = Run::of(&checkpoint)?;
    run.check_plans(dataset, &file)?;
    let settings = Settings::of_run(run.settings, args, dataset)?;
    Ok((Run { settings, ..run }, checkpoint))
}
