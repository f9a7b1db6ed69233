//! The start of a run: from initial weights, from pre-trained weights, from its own checkpoint, or from one
//! of nnU-Net's.

use anyhow::bail;
use stunet::model::Initialisation;
use stunet::train::checkpoint::TrainingCheckpoint;
use stunet::train::nnunet_run::{self, NnUNetRun};
use stunet::train::transfer::{TransferOptions, check_labels, transfer};
use stunet::train::{FoldFolder, StateOptions, TrainingState};

use super::dataset::Dataset;
use super::pretrained::weights_of;
use super::results;
use super::run::Run;
use super::settings::Settings;
use crate::args::TrainArgs;

/// A state at the beginning of a run, and what was carried over.
fn fresh(
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

/// What a run begins from.
pub enum Beginning {
    /// Initial or pre-trained weights.
    New,
    /// One of its own checkpoints.
    Own(Box<TrainingCheckpoint>),
    /// A checkpoint of nnU-Net's, which began the run or went on with it.
    NnUNet(Box<NnUNetRun>),
}

impl Beginning {
    /// Epochs that are complete.
    pub fn epoch(&self) -> usize {
        match self {
            Self::New => 0,
            Self::Own(checkpoint) => checkpoint.state().progress.epoch,
            Self::NnUNet(run) => run.epoch(),
        }
    }

    /// Whether nothing is left to train.
    pub fn is_complete(&self, settings: &Settings) -> bool {
        !matches!(self, Self::New) && self.epoch() >= settings.epochs
    }

    /// The state to train from, and what to say of it.
    pub fn state(
        &self,
        args: &TrainArgs,
        run: &Run,
        options: &StateOptions,
    ) -> anyhow::Result<(TrainingState, Option<String>)> {
        match self {
            Self::New => fresh(args, run, options),
            Self::Own(checkpoint) => {
                Ok((TrainingState::from_checkpoint(checkpoint, options)?, None))
            }
            Self::NnUNet(theirs) => {
                let batches = run.settings.iterations * run.settings.accumulate;
                let state = theirs.state(options, batches as u64)?;
                let note = format!(
                    "going on with nnU-Net's run after {} epochs, its weights, momentum and history: {}",
                    theirs.epoch(),
                    theirs.path().display()
                );
                Ok((state, Some(note)))
            }
        }
    }
}

/// The run: a new one, or that of the folder with the checkpoint to go on from.
pub fn open(
    args: &TrainArgs,
    dataset: &Dataset,
    folder: &FoldFolder,
) -> anyhow::Result<(Run, Beginning)> {
    if args.go_on {
        return recorded(args, dataset, folder);
    }
    results::check_new(folder)?;
    Ok((Run::new(args, dataset)?, Beginning::New))
}

/// The run in a folder, which goes on: from our newest checkpoint or nnU-Net's, whichever is further.
fn recorded(
    args: &TrainArgs,
    dataset: &Dataset,
    folder: &FoldFolder,
) -> anyhow::Result<(Run, Beginning)> {
    let strides = dataset.plans().stunet_strides()?;
    let theirs = nnunet_run::newest_checkpoint(&folder.path);
    let theirs = theirs.map(|file| NnUNetRun::open(&file, strides));
    let Some(file) = folder.newest_checkpoint() else {
        let Some(theirs) = theirs.transpose()? else {
            bail!(
                "--continue: expected a checkpoint to go on from, found none: {}",
                folder.path.display()
            );
        };
        let run = Run::of_nnunet(args, dataset, &theirs)?;
        return Ok((run, Beginning::NnUNet(Box::new(theirs))));
    };
    let checkpoint = TrainingCheckpoint::open(&file)?;
    let run = Run::of(&checkpoint)?;
    run.check_plans(dataset, &file)?;
    let settings = Settings::of_run(run.settings, args, dataset)?;
    let run = Run { settings, ..run };
    // A file of nnU-Net's that is none of this run's network may be an export of another one.
    let further = theirs.and_then(Result::ok).filter(|theirs| {
        theirs.epoch() > checkpoint.state().progress.epoch
            && *theirs.config() == run.settings.network
    });
    let beginning = match further {
        Some(theirs) => Beginning::NnUNet(Box::new(theirs)),
        None => Beginning::Own(Box::new(checkpoint)),
    };
    Ok((run, beginning))
}
