//! `stunet export`: from a training run to a model folder or a checkpoint for nnU-Net.

mod archive;

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use stunet::model::weights::folder::{StoredPrecision, is_model_folder};
use stunet::train::FoldFolder;
use stunet::train::checkpoint::TrainingCheckpoint;
use stunet::train::export;

use super::train::Run;
use crate::args::ExportArgs;
use crate::folders;
use crate::new_folder::NewFolder;
use crate::output;
use crate::places::{self, MODEL_FOLDER, Output};

/// Writes what the ending of the output asks for.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let (out, averaged) = (&args.output, !args.no_ema);
    let ending = out.extension().and_then(|ending| ending.to_str());
    let folds = folds(args)?;
    if ending == Some("zip") {
        return export_archive(args, &folds);
    }
    if let [first, _, ..] = &folds[..] {
        ensure!(
            !matches!(ending, Some("model" | "pth")),
            "expected the folder of one fold, such as {}, for a checkpoint of one network, found \
             a results folder of {}: {}",
            first.display(),
            folds.len(),
            args.run.display()
        );
        return export_folds(args, &folds);
    }
    let run = folds.first().unwrap_or(&args.run);
    let file = file(args, run)?;
    check_places([file.clone()], out)?;
    let checkpoint = TrainingCheckpoint::open(&file)?;
    let Run { settings, about, .. } = Run::of(&checkpoint)?;
    ensure!(
        !args.half || !matches!(ending, Some("model" | "pth")),
        "--half: expected a model folder as output, found a checkpoint of nnU-Net: {}",
        out.display()
    );
    match ending {
        Some("model") => export::nnunet_v1(&checkpoint, &about, averaged, out)?,
        Some("pth") => export::nnunet_v2(&checkpoint, &about, averaged, out)?,
        _ => {
            let precision = if args.half { StoredPrecision::F16 } else { StoredPrecision::F32 };
            let folder = NewFolder::begin(out)?;
            export::model_folder(&checkpoint, &about, averaged, precision, out)?;
            folder.finish();
        }
    }
    output::line(&format!(
        "{} after {} of {} epochs: {}",
        about.trainer,
        checkpoint.state().progress.epoch,
        settings.epochs,
        out.display()
    ))
}

/// No checkpoint is what is written.
fn check_places(checkpoints: impl IntoIterator<Item = PathBuf>, out: &Path) -> anyhow::Result<()> {
    let outputs: Vec<_> = match out.extension().and_then(|ending| ending.to_str()) {
        Some("zip") => vec![Output::new("OUT", out)],
        Some("model" | "pth") => {
            let mut beside = out.as_os_str().to_owned();
            beside.push(".pkl");
            vec![Output::new("OUT", out), Output::new("OUT", beside)]
        }
        _ => Output::in_folder("OUT", out, MODEL_FOLDER).collect(),
    };
    places::check(checkpoints, outputs)
}

/// The folds of a results folder, or those that are asked for; none for the folder of a fold and for a
/// file.
fn folds(args: &ExportArgs) -> anyhow::Result<Vec<PathBuf>> {
    let all = match FoldFolder::at(&args.run).newest_checkpoint() {
        Some(_) => Vec::new(),
        None => folders::folds_of(&args.run),
    };
    if args.folds.is_empty() {
        return Ok(all);
    }
    let wanted = args.folds.iter().map(|fold| {
        let path = args.run.join(format!("fold_{fold}"));
        ensure!(
            all.contains(&path),
            "--folds: expected folders fold_X in a results folder, found no fold_{fold}: {}",
            args.run.display()
        );
        Ok(path)
    });
    wanted.collect()
}

/// Writes nnU-Net's zip file of a results folder, or of the fold that was named.
fn export_archive(args: &ExportArgs, folds: &[PathBuf]) -> anyhow::Result<()> {
    ensure!(!args.half, "--half: expected a model folder as output, found a zip file for nnU-Net");
    let named = [args.run.clone()];
    let folds = if folds.is_empty() { &named[..] } else { folds };
    let (open, Run { about, .. }) = open_folds(args, folds)?;
    let exported: Vec<_> = open
        .into_iter()
        .map(|(folder, checkpoint)| archive::FoldToExport { folder, checkpoint })
        .collect();
    let inputs = exported.iter().map(|fold| fold.checkpoint.path().to_owned());
    check_places(inputs, &args.output)?;
    archive::write(&exported, !args.no_ema, &args.output)?;
    let shown = args.output.display();
    output::line(&format!("{}, {} folds: {shown}", about.trainer, exported.len()))
}

/// Writes a model folder with a network for every fold, which must mean the same.
fn export_folds(args: &ExportArgs, folds: &[PathBuf]) -> anyhow::Result<()> {
    let out = &args.output;
    let precision = if args.half { StoredPrecision::F16 } else { StoredPrecision::F32 };
    let (open, Run { about, .. }) = open_folds(args, folds)?;
    check_places(open.iter().map(|(_, checkpoint)| checkpoint.path().to_owned()), out)?;
    let folder = NewFolder::begin(out)?;
    for (fold, checkpoint) in &open {
        let (name, fold) = (fold.file_name().unwrap_or_default(), Run::of(checkpoint)?.about);
        export::model_folder(checkpoint, &fold, !args.no_ema, precision, &out.join(name))?;
    }
    // Last of all: what makes it a model.
    export::plans_and_labels(&about, out)?;
    folder.finish();
    output::line(&format!("{}, {} folds: {}", about.trainer, open.len(), out.display()))
}

/// The checkpoints of folds, and the run of the first; all of them are looked at before anything is
/// written.
fn open_folds(
    args: &ExportArgs,
    folds: &[PathBuf],
) -> anyhow::Result<(Vec<(PathBuf, TrainingCheckpoint)>, Run)> {
    let mut first: Option<(PathBuf, Run)> = None;
    let mut open = Vec::new();
    for fold in folds {
        let checkpoint = TrainingCheckpoint::open(&file(args, fold)?)?;
        let run = Run::of(&checkpoint)?;
        let progress = &checkpoint.state().progress;
        ensure!(
            args.checkpoint.is_some() || progress.epoch >= run.settings.epochs,
            "expected complete runs, found one after {} of {} epochs (go on with `stunet train \
             --continue`, or name a checkpoint with --checkpoint): {}",
            progress.epoch,
            run.settings.epochs,
            fold.display()
        );
        if let Some((path, first)) = &first {
            let same = first.about.plans == run.about.plans
                && first.about.labels == run.about.labels
                && first.settings.network == run.settings.network;
            ensure!(
                same,
                "expected folds of one network, plans and labels, found two that differ: {} and {}",
                path.display(),
                fold.display()
            );
        } else {
            first = Some((fold.clone(), run));
        }
        open.push((fold.clone(), checkpoint));
    }
    match first {
        Some((_, run)) => Ok((open, run)),
        None => bail!("expected a fold, found none"),
    }
}

/// The checkpoint that was named, or a folder's newest. The model folder within a fold means its
/// fold.
fn file(args: &ExportArgs, run: &Path) -> anyhow::Result<PathBuf> {
    let run = match run.parent() {
        Some(fold) if is_model_folder(run) && FoldFolder::at(fold).is_final() => fold,
        _ => run,
    };
    if !run.is_dir() {
        return Ok(run.to_owned());
    }
    if let Some(name) = &args.checkpoint {
        let name = name.trim_end_matches(".safetensors");
        return Ok(run.join(format!("{name}.safetensors")));
    }
    match FoldFolder::at(run).newest_checkpoint() {
        Some(file) => Ok(file),
        None => bail!("expected a fold's folder, found no checkpoint in it: {}", run.display()),
    }
}
