//! `stunet train`: from prepared cases to a model.

mod dataset;
mod memory;
mod progress;
mod settings;
mod start;
mod validation;

pub use start::Run;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use stunet::data::files;
use stunet::device;
use stunet::train::checkpoint::{BEST, FINAL, LATEST, TrainingCheckpoint};
use stunet::train::export::{self, About};
use stunet::train::{FitCases, FoldFolder, TrainingState, fit};

use crate::args::TrainArgs;
use crate::failure::Interrupted;
use crate::folders;
use crate::interrupt;
use crate::output;
use crate::places::{self, MODEL_FOLDER, Output};
use dataset::Dataset;
use progress::TrainingProgress;
use settings::Settings;

/// Trains, validates on whole volumes, and leaves a model folder.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    interrupt::watch(args.quiet, "step")?;
    let loading = interrupt::at_once();
    let devices = device::choose_all(&args.device)?;
    let dataset = Dataset::open(args)?;
    let mut fold = FoldFolder::at(&fold_folder(args, &dataset)?);

    let (settings, checkpoint) = match args.go_on {
        true => {
            let (settings, checkpoint) = start::recorded(args, &dataset, &fold)?;
            (settings, Some(checkpoint))
        }
        false => {
            ensure!(
                fold.newest_checkpoint().is_none(),
                "expected a new run, found one; go on with --continue, or remove it: {}",
                fold.path.display()
            );
            // They would be taken for this run's at its end.
            for results in ["model", "validation"].map(|name| fold.path.join(name)) {
                ensure!(
                    !results.exists(),
                    "expected a new run, found results of another one; move them elsewhere: {}",
                    results.display()
                );
            }
            (Settings::new(args, &dataset)?, None)
        }
    };
    let about = about(&settings, &dataset)?;
    fold.run = serde_json::to_value(Run { settings: settings.clone(), about: about.clone() })?;
    let config = settings.fit_config(args, &dataset)?;
    config.check()?;
    let options = settings.state_options(&devices);
    let done = checkpoint.as_ref().is_some_and(|c| c.state().progress.epoch >= settings.epochs);
    let needed = match done {
        true => None,
        false => Some(memory::check(args, &settings, &config, &options)?),
    };
    let (state, note) = match &checkpoint {
        Some(checkpoint) => (TrainingState::from_checkpoint(checkpoint, &options)?, None),
        None => start::fresh(args, &settings, &options)?,
    };
    state.check(&config)?;
    say(args, &headline(&settings, &state, &devices.names()))?;
    // With fold all, every case is meant to be on both sides.
    let both = dataset.split.note().filter(|_| settings.fold != "all");
    for line in needed.into_iter().chain(note).chain(both) {
        say(args, &line)?;
    }

    drop(loading);
    check_places(args, &dataset, &fold)?;
    describe(&fold, &settings, &about)?;

    let cases = FitCases {
        training: Arc::new(dataset.store.subset(&settings.training_cases)?),
        validation: Some(Arc::new(dataset.store.subset(&settings.validation_cases)?)),
    };
    let mut progress = TrainingProgress::new(args.json, args.quiet);
    let mut told = Ok(());
    let state = fit(state, &cases, &config, Some(&fold), &mut |event| {
        if told.is_ok() {
            told = progress.hear(&event);
        }
        match interrupt::asked() || told.is_err() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    drop(progress);
    told?;
    if !state.is_complete(&config) {
        let at = fold.path.join(LATEST);
        say(args, &format!("stopped; go on with --continue: {}", at.display()))?;
        return Err(Interrupted.into());
    }
    drop(state);
    finish(args, &settings, &about, &fold)
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

/// Writes what nnU-Net keeps beside its checkpoints: `plans.json` and `dataset.json` for all folds,
/// and for people `debug.json` with the settings of this one. What a full disk once left of one of
/// them is replaced.
fn describe(fold: &FoldFolder, settings: &Settings, about: &About) -> anyhow::Result<()> {
    let path = &fold.path;
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    let write = |path: PathBuf, value: serde_json::Value| {
        if files::read_json::<serde_json::Value>(&path).is_ok() {
            return Ok(());
        }
        anyhow::Ok(files::save_json(&path, &value)?)
    };
    // Those of this run, whatever a run that came to nothing left.
    files::save_json(&path.join("debug.json"), settings)?;
    if let Some(model) = path.parent() {
        write(model.join("plans.json"), export::v2_plans(about, &settings.network))?;
        write(model.join("dataset.json"), export::v2_dataset(about))?;
    }
    Ok(())
}

/// The model folder, and the final validation, unless they are there.
fn finish(
    args: &TrainArgs,
    settings: &Settings,
    about: &About,
    fold: &FoldFolder,
) -> anyhow::Result<()> {
    let checkpoint = TrainingCheckpoint::open(&fold.path.join(FINAL))?;
    let model = fold.path.join("model");
    // The last file of a model folder to be written.
    if !model.join("labels.json").is_file() {
        export::model_folder(&checkpoint, about, true, Default::default(), &model)?;
    }
    say(args, &format!("model: {}", model.display()))?;
    drop(checkpoint);
    match args.no_validation {
        true => Ok(()),
        false => validation::run(args, settings, about, &model, &fold.path.join("validation")),
    }
}

/// `RESULTS/DATASET/TRAINER__PLANS__CONFIG/fold_FOLD`. A run that goes on need not be described
/// again if there is only one.
fn fold_folder(args: &TrainArgs, dataset: &Dataset) -> anyhow::Result<PathBuf> {
    let home = match &args.output {
        Some(results) => results.join(&dataset.name),
        None => folders::results_of(&args.dataset),
    };
    let fold = format!("fold_{}", args.fold);
    let named =
        |trainer: &str| format!("{trainer}__{}__{}", dataset.plans_name, args.configuration);
    if args.go_on && args.size.is_none() && args.width.is_none() && args.pretrained.is_none() {
        let entries = std::fs::read_dir(&home).into_iter().flatten().flatten();
        let ending = named("");
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(&ending))
            .map(|entry| entry.path().join(&fold))
            .filter(|path| FoldFolder::at(path).newest_checkpoint().is_some())
            .collect();
        found.sort();
        match &found[..] {
            [only] => return Ok(only.clone()),
            [] => {}
            [first, ..] => anyhow::bail!(
                "--continue: expected one run, found {} (say --size, --width or --pretrained), \
                 such as {}",
                found.len(),
                first.display()
            ),
        }
    }
    let network = settings::network(args, dataset)?;
    let trainer = settings::trainer(&network, args.pretrained.is_some());
    Ok(home.join(named(&trainer)).join(fold))
}

fn about(settings: &Settings, dataset: &Dataset) -> anyhow::Result<About> {
    Ok(About {
        plans: settings.plans(dataset)?,
        labels: dataset.labels().clone(),
        trainer: settings.trainer(),
        fold: settings.fold.clone(),
        batch_dice: settings.batch_dice,
        nnunet_plans: dataset.nnunet_plans.clone(),
        nnunet_dataset: dataset.nnunet_dataset.clone(),
    })
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
