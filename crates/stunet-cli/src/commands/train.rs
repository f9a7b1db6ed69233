//! `stunet train`: from preprocessed cases to a model.

mod cases;
mod dataset;
mod learning;
mod longer;
mod memory;
mod pretrained;
mod progress;
mod results;
mod run;
mod settings;
mod start;
mod validation;
mod watched;

pub use progress::epoch_line;
pub use run::Run;
pub use watched::title_of;

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::ensure;
use stunet::device;
use stunet::train::checkpoint::{BEST, FINAL, LATEST, TrainingCheckpoint};
use stunet::train::export::ModelDescription;
use stunet::train::nnunet_run;
use stunet::train::{FitCases, FitConfig, FoldFolder, TrainingState, fit};
use stunet::verify::Storage;

use crate::args::TrainArgs;
use crate::failure::Interrupted;
use crate::folders;
use crate::interrupt;
use crate::kept;
use crate::output;
use crate::places::{self, MODEL_FOLDER, Output};
use dataset::Dataset;
use settings::Settings;
use watched::Listeners;

/// Trains, validates on whole volumes, and leaves a model folder.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    interrupt::watch(args.quiet, "step")?;
    let loading = interrupt::at_once();
    kept::keep_kernels(args.no_cache);
    let devices = device::choose_all(&args.device)?;
    let dataset = Dataset::open(args)?;
    let mut fold = FoldFolder::at(&fold_folder(args, &dataset)?);

    let opened = start::open(args, &dataset, &fold)?;
    let (run, longer) = (&opened.run, opened.longer);
    let beside = results::check(&fold, run)?;
    fold.run = serde_json::to_value(run)?;
    let Run { settings, about, .. } = run;
    let all = std::iter::once(devices.first()).chain(devices.others());
    kept::check(all, &[Storage::F32, settings.storage()], args.unverified_device)?;
    if !args.no_validation {
        validation::check(args, settings, about, &fold)?;
    }
    let config = settings.fit_config(args, &dataset)?;
    config.check()?;
    let options = settings.state_options(&devices);
    let done = opened.begin.is_complete(settings);
    check_finished(args, settings, done, (opened.begin.epoch(), &fold))?;
    let needed = match done {
        true => None,
        false => Some(memory::check(args, settings, &config, &options)?),
    };
    let (state, lines) = start::state(args, &opened, &config, &options)?;
    say(args, &headline(settings, &state, &devices.names()))?;
    let notes = dataset.notes.iter().map(|note| format!("note: {note}"));
    for line in notes.chain(needed).chain(lines) {
        say(args, &line)?;
    }
    drop(loading);
    check_places(args, &dataset, &fold)?;
    dataset.cases.make_ready(|line| say(args, line))?;
    dataset.save_splits()?;
    if let Some(kept) = longer.map(|longer| longer.put_away(&fold)).transpose()?.flatten() {
        say(args, &kept)?;
    }
    results::describe(&fold, settings, &beside)?;

    let cases = FitCases {
        training: dataset.cases.subset(&settings.training_cases)?,
        validation: Some(dataset.cases.subset(&settings.validation_cases)?),
    };
    if done && opened.begin.is_nnunets() {
        // Nothing is left to train, and what is there under this name may be an earlier one.
        state.save(&fold.path.join(FINAL), &fold.run)?;
    }
    let listeners = Listeners::new(args, &state, (run, &fold), &devices)?;
    let state = train(listeners, state, &cases, &config, &fold)?;
    if !state.is_complete(&config) {
        let at = fold.path.join(LATEST);
        say(args, &format!("stopped; resume with --continue: {}", at.display()))?;
        return Err(Interrupted.into());
    }
    drop(state);
    finish(args, settings, about, &fold)
}

/// `--val` is for folds that are trained to their end.
fn check_finished(
    args: &TrainArgs,
    settings: &Settings,
    done: bool,
    (epoch, fold): (usize, &FoldFolder),
) -> anyhow::Result<()> {
    ensure!(
        !args.val || done,
        "--val: expected a finished fold, found one of {} epochs in which {epoch} are done; train it to its \
         end with --continue: {}",
        settings.epochs,
        fold.path.display()
    );
    Ok(())
}

/// Trains, and says how it goes, to the end or until somebody interrupts.
fn train(
    mut listeners: Listeners<'_>,
    state: TrainingState,
    cases: &FitCases,
    config: &FitConfig,
    fold: &FoldFolder,
) -> anyhow::Result<TrainingState> {
    let mut told = Ok(());
    let state = fit(state, cases, config, Some(fold), &mut |event| {
        if told.is_ok() {
            told = listeners.on_event(&event);
        }
        match interrupt::asked() || told.is_err() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    // Of a run that was complete before, only the past is told.
    listeners.begin_events()?;
    let was_live = listeners.is_live();
    drop(listeners);
    told?;
    if let Some(record) = state.progress.history.last().filter(|_| was_live) {
        // The screen is gone with its last picture.
        output::line(&epoch_line(record, config.num_epochs))?;
    }
    Ok(state)
}

/// No file of the run may be one that it reads: of the dataset, or the weights it begins with.
fn check_places(args: &TrainArgs, dataset: &Dataset, fold: &FoldFolder) -> anyhow::Result<()> {
    let described = |file: &PathBuf| file.ends_with("plans.json") || file.ends_with("dataset.json");
    // Of a checkpoint only the weights are read, not what lies beside them.
    let pretrained = args.pretrained.iter().filter(|_| !args.go_on);
    let pretrained = pretrained.flat_map(|path| places::of_model(path));
    let inputs = dataset.files().into_iter().chain(pretrained.filter(|file| !described(file)));
    let (path, model) = (&fold.path, fold.path.join("model"));
    let home = path.parent().unwrap_or(path);
    let own = [BEST, FINAL, LATEST, "debug.json", "progress.png", "training_log.jsonl"];
    let outputs = [
        Output::in_folder("the run", path, own).collect::<Vec<_>>(),
        Output::in_folder("the run", home, ["dataset.json", "plans.json"]).collect(),
        Output::in_folder("the run's model", &model, MODEL_FOLDER).collect(),
    ];
    places::check(inputs, outputs.into_iter().flatten())
}

/// The model folder, and the final validation, unless they are there.
fn finish(
    args: &TrainArgs,
    settings: &Settings,
    about: &ModelDescription,
    fold: &FoldFolder,
) -> anyhow::Result<()> {
    let checkpoint = TrainingCheckpoint::open(&fold.path.join(FINAL))?;
    let model = fold.path.join("model");
    results::model_folder(&checkpoint, about, &model)?;
    say(args, &format!("model: {}", model.display()))?;
    drop(checkpoint);
    match args.no_validation {
        true => Ok(()),
        false => {
            validation::run(args, settings, about, &model, &fold.path.join(validation::FOLDER))
        }
    }
}

/// `RESULTS/DATASET/TRAINER__PLANS__CONFIG/fold_FOLD`. A run that goes on need not be described
/// again if there is only one.
fn fold_folder(args: &TrainArgs, dataset: &Dataset) -> anyhow::Result<PathBuf> {
    let home = match &args.output {
        Some(results) => results.join(&dataset.name),
        None => folders::results_of(&args.dataset),
    };
    let fold = format!("fold_{}", dataset.fold);
    let named =
        |trainer: &str| format!("{trainer}__{}__{}", dataset.planned.name, args.configuration);
    let named_by = args.size.is_some()
        || args.width.is_some()
        || args.pretrained.is_some()
        || args.trainer.is_some();
    if args.go_on && !named_by {
        let entries = std::fs::read_dir(&home).into_iter().flatten().flatten();
        let ending = named("");
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(&ending))
            .map(|entry| entry.path().join(&fold))
            .filter(|path| {
                FoldFolder::at(path).newest_checkpoint().is_some()
                    || nnunet_run::newest_checkpoint(path).is_some()
            })
            .collect();
        found.sort();
        match &found[..] {
            [only] => return Ok(only.clone()),
            [] => {}
            [first, ..] => anyhow::bail!(
                "--continue: expected one run, found {} (say --trainer, --size, --width or \
                 --pretrained), such as {}",
                found.len(),
                first.display()
            ),
        }
    }
    let network = settings::network(args, dataset)?;
    let given = args.trainer.as_ref().map(|trainer| trainer.name.as_str());
    let trainer = settings::trainer(given, &network, args.pretrained.is_some());
    Ok(home.join(named(&trainer)).join(fold))
}

fn headline(settings: &Settings, state: &TrainingState, device: &str) -> String {
    let size = settings.network.size().map_or("custom", |size| size.name());
    let begin = match state.progress.epoch + state.progress.iteration {
        0 => String::new(),
        _ if state.progress.epoch >= settings.epochs => ", complete".to_owned(),
        _ if state.progress.iteration >= settings.iterations => {
            format!(", from the validation of epoch {}", state.progress.epoch + 1)
        }
        _ => format!(
            ", from epoch {}, iteration {}",
            state.progress.epoch + 1,
            state.progress.iteration + 1
        ),
    };
    format!(
        "STU-Net {size}, {} classes, {} cases, {} for validation, {} epochs of {} iterations on \
         {device}{begin}",
        settings.network.num_classes,
        settings.training_cases.len(),
        settings.validation_cases.len(),
        settings.epochs,
        settings.iterations,
    )
}

fn say(args: &TrainArgs, line: &str) -> anyhow::Result<()> {
    if args.quiet || args.json { Ok(()) } else { output::line(line) }
}
