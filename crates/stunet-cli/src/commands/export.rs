//! `stunet export`: a training run's weights for others.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use stunet::model::weights::folder::Precision;
use stunet::train::FoldFolder;
use stunet::train::checkpoint::TrainingCheckpoint;
use stunet::train::export;

use super::train::Run;
use crate::args::ExportArgs;
use crate::new_folder::NewFolder;
use crate::output;
use crate::places::{self, MODEL_FOLDER, Output};

/// Writes what the ending of the output asks for.
pub fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let file = file(args)?;
    check_places(&file, &args.output)?;
    let checkpoint = TrainingCheckpoint::open(&file)?;
    let Run { settings, about, .. } = Run::of(&checkpoint)?;
    let (out, averaged) = (&args.output, !args.no_ema);
    let ending = out.extension().and_then(|ending| ending.to_str());
    ensure!(
        !args.half || !matches!(ending, Some("model" | "pth")),
        "--half: expected a model folder as output, found a checkpoint of nnU-Net: {}",
        out.display()
    );
    match ending {
        Some("model") => export::nnunet_v1(&checkpoint, &about, averaged, out)?,
        Some("pth") => export::nnunet_v2(&checkpoint, &about, averaged, out)?,
        _ => {
            let precision = if args.half { Precision::F16 } else { Precision::F32 };
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

/// The checkpoint is not what is written.
fn check_places(checkpoint: &Path, out: &Path) -> anyhow::Result<()> {
    let outputs: Vec<_> = match out.extension().and_then(|ending| ending.to_str()) {
        Some("model" | "pth") => {
            let mut beside = out.as_os_str().to_owned();
            beside.push(".pkl");
            vec![Output::new("OUT", out), Output::new("OUT", beside)]
        }
        _ => Output::in_folder("OUT", out, MODEL_FOLDER).collect(),
    };
    places::check([checkpoint.to_owned()], outputs)
}

/// The checkpoint that was named, or a folder's newest.
fn file(args: &ExportArgs) -> anyhow::Result<PathBuf> {
    let run = &args.run;
    if !run.is_dir() {
        return Ok(run.clone());
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
