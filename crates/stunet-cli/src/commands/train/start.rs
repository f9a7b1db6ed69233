//! The start of a run: from initial weights, from pre-trained weights, or from its own checkpoint.

use anyhow::bail;
use stunet::model::Initialisation;
use stunet::train::checkpoint::TrainingCheckpoint;
use stunet::train::transfer::{TransferOptions, check_labels, transfer};
use stunet::train::{FoldFolder, StateOptions, TrainingState};

use super::dataset::Dataset;
use super::pretrained::weights_of;
use super::results;
use super::run::Run;
use super::settings::Settings;
use crate::args::TrainArgs;

/// A state at the beginning of a run, and what was carried over.
pub fn fresh(
    args: &TrainArgs,
    Run { settings, about, .. }: &Run,
    options: &StateOptions,
) -> anyhow::Result<(TrainingState, Option<String>)> {
    let labels = &about.labels;
    let conventions = &settings.reference(&about.plans).conventions().training;
    let initialisation = match conventions.he_initialisation {
        true => Initialisation::NnUNetV1,
        false => Initialisation::PyTorchDefault,
    };
    let Some(file) = &args.pretrained else {
        let config = &settings.network;
        let network =
            config.init_seeded(initialisation, settings.seed, &options.training_device())?;
        return Ok((TrainingState::new(network, options), None));
    };
    let how = TransferOptions {
        without_upsampling: conventions.transfer_without_upsampling,
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
