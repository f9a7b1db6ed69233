//! The start of a run: from initial weights, from pre-trained weights, from its own checkpoint, or from one
//! of nnU-Net's.

use anyhow::bail;
use stunet::data::labels::LabelSet;
use stunet::model::cost::num_parameters;
use stunet::model::{Initialisation, ParameterSpec};
use stunet::train::checkpoint::TrainingCheckpoint;
use stunet::train::nnunet_run::{self, NnUNetRun};
use stunet::train::transfer::{
    TransferOptions, TransferReport, check_labels, heads_by_name, transfer,
};
use stunet::train::{FitConfig, FoldFolder, StateOptions, TrainingState};

use super::dataset::Dataset;
use super::learning::Learning;
use super::longer::{Longer, longer};
use super::pretrained::{plan_lines, weights_of};
use super::results;
use super::run::Run;
use super::settings::Settings;
use crate::args::{HeadsArg, TrainArgs};

/// A state at the beginning of a run, and what was carried over, line by line.
fn fresh(
    args: &TrainArgs,
    Run { settings, about, .. }: &Run,
    options: &StateOptions,
) -> anyhow::Result<(TrainingState, Vec<String>)> {
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
        return Ok((TrainingState::try_new(network, options)?, Vec::new()));
    };
    let (file, learning) = (weights_of(file)?, &settings.learning);
    let by_name = learning.heads == Some(HeadsArg::ByName);
    let how = TransferOptions {
        without_upsampling: conventions.transfer_without_upsampling,
        keep_heads: settings.keep_heads,
        head_rows: by_name.then(|| heads_by_name(&file, labels)).transpose()?,
        stem: learning.stem(),
        divide_stem: settings.stem_divide,
        initialisation,
        seed: settings.seed,
    };
    if how.keep_heads {
        check_labels(&file, labels)?;
    }
    let device = options.training_device();
    let (network, report) = transfer(&file, &settings.network, &how, &device)?;
    let mut lines = vec![report.to_string()];
    lines.extend(report.table(&settings.network).to_string().lines().map(str::to_owned));
    lines.extend(how.head_rows.as_ref().map(|rows| heads_line(labels, rows)));
    lines.extend(plan_lines(&file, &about.plans));
    let options = whole(options, &report, settings)?;
    Ok((TrainingState::try_new(network, &options)?, lines))
}

/// What was not carried over is trained as a whole: a random weight is none to stay at.
fn whole(
    options: &StateOptions,
    report: &TransferReport,
    settings: &Settings,
) -> anyhow::Result<StateOptions> {
    let mut options = options.clone();
    if let Some(low_rank) = &mut options.low_rank {
        low_rank.whole.extend(report.initialised.iter().cloned());
    }
    let random: Vec<_> = report.initialised.iter().chain(&report.heads).collect();
    let specs = settings.network.parameter_specs();
    let frozen =
        |spec: &&ParameterSpec| options.frozen.contains(spec) && random.contains(&&spec.name);
    if let Some(spec) = specs.iter().find(frozen) {
        bail!(
            "--freeze {}: expected parts that the pre-trained weights give, found {}, which begins with \
             random values",
            options.frozen,
            spec.name
        );
    }
    Ok(options)
}

/// Which labels have heads of the weights, and which have new ones.
fn heads_line(labels: &LabelSet, rows: &[Option<usize>]) -> String {
    let outputs = &labels.labels()[usize::from(labels.has_regions())..];
    let names = |taken: bool| -> String {
        let of = outputs.iter().zip(rows).filter(|(_, row)| row.is_some() == taken);
        let names: Vec<_> = of.map(|(label, _)| label.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    format!("heads taken: {}; new: {}", names(true), names(false))
}

/// How many parameters are trained, where that is not all.
fn trained_line(state: &TrainingState, learning: &Learning) -> Option<String> {
    let (trained, all) = (state.num_trained(), num_parameters(&state.config()));
    let what = match (learning.lora, &learning.freeze) {
        (None, None) => return None,
        (None, Some(parts)) => format!("frozen: {parts}"),
        (Some(rank), parts) => {
            let alpha = learning.lora_alpha.unwrap_or(rank as f64);
            let frozen = parts.as_ref().map_or_else(String::new, |p| format!("; frozen: {p}"));
            format!("low-rank factors of rank {rank}, alpha {alpha}, heads and norms{frozen}")
        }
    };
    Some(format!("trained: {trained} parameters beside a network of {all} ({what})"))
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

    /// Whether nnU-Net has trained last.
    pub fn is_nnunets(&self) -> bool {
        matches!(self, Self::NnUNet(_))
    }

    /// Epochs that are complete, and iterations of the next.
    fn position(&self) -> (usize, usize) {
        match self {
            Self::Own(checkpoint) => {
                let progress = &checkpoint.state().progress;
                (progress.epoch, progress.iteration)
            }
            Self::New | Self::NnUNet(_) => (self.epoch(), 0),
        }
    }

    /// The state to train from, and what to say of it.
    fn state(
        &self,
        args: &TrainArgs,
        run: &Run,
        options: &StateOptions,
    ) -> anyhow::Result<(TrainingState, Vec<String>)> {
        match self {
            Self::New => fresh(args, run, options),
            Self::Own(checkpoint) => {
                Ok((TrainingState::from_checkpoint(checkpoint, options)?, Vec::new()))
            }
            Self::NnUNet(theirs) => {
                let batches = run.settings.iterations * run.settings.accumulate;
                let state = theirs.state(options, batches as u64)?;
                let note = format!(
                    "going on with nnU-Net's run after {} epochs, its weights, momentum and history: {}",
                    theirs.epoch(),
                    theirs.path().display()
                );
                Ok((state, vec![note]))
            }
        }
    }
}

/// What a command means.
pub struct Opened {
    /// The run, with settings for its new end where it becomes longer.
    pub run: Run,
    /// What it goes on from.
    pub begin: Beginning,
    /// How it becomes longer.
    pub longer: Option<Longer>,
}

/// The run: a new one, or that of the folder with the checkpoint to go on from.
pub fn open(args: &TrainArgs, dataset: &Dataset, folder: &FoldFolder) -> anyhow::Result<Opened> {
    if args.go_on {
        return recorded(args, dataset, folder);
    }
    results::check_new(folder)?;
    Ok(Opened { run: Run::new(args, dataset)?, begin: Beginning::New, longer: None })
}

/// The run in a folder, which goes on: from our newest checkpoint or nnU-Net's, whichever is further.
fn recorded(args: &TrainArgs, dataset: &Dataset, folder: &FoldFolder) -> anyhow::Result<Opened> {
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
        return Ok(Opened { run, begin: Beginning::NnUNet(Box::new(theirs)), longer: None });
    };
    let checkpoint = TrainingCheckpoint::open(&file)?;
    let run = Run::of(&checkpoint)?;
    run.check_plans(dataset, &file)?;
    let mut settings = Settings::of_run(run.settings, args, dataset)?;
    // A file of nnU-Net's that is none of this run's network may be an export of another one.
    let further = theirs.and_then(Result::ok).filter(|theirs| {
        theirs.epoch() > checkpoint.state().progress.epoch && *theirs.config() == settings.network
    });
    let begin = match further {
        Some(theirs) => Beginning::NnUNet(Box::new(theirs)),
        None => Beginning::Own(Box::new(checkpoint)),
    };
    let longer = longer(&mut settings, args, begin.position())?;
    Ok(Opened { run: Run { settings, ..run }, begin, longer })
}

/// The state that a run begins or goes on with, and what is to be said of it.
pub fn state(
    args: &TrainArgs,
    Opened { run, begin, longer }: &Opened,
    config: &FitConfig,
    options: &StateOptions,
) -> anyhow::Result<(TrainingState, Vec<String>)> {
    let (mut state, mut lines) = begin.state(args, run, options)?;
    lines.extend(trained_line(&state, &run.settings.learning));
    if let Some(longer) = longer {
        lines.push(longer.told(config, &state));
        if longer.is_anew() {
            // The schedule is another from here on, and so is the run.
            state.forget_identity();
        }
    }
    state.check(config)?;
    Ok((state, lines))
}
