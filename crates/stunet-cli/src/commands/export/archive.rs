//! A results folder as a zip file, laid out as `nnUNetv2_export_model_to_zip` does.

use std::fs::File;
use std::io::{self, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use stunet::data::{DataError, files};
use stunet::train::checkpoint::TrainingCheckpoint;
use stunet::train::export;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::Run;

/// Files of a fold and of the results folder that go along where they are there.
const OF_FOLD: [&str; 4] =
    ["debug.json", "progress.png", "network_architecture.pdf", "validation/summary.json"];
const OF_RESULTS: [&str; 3] = ["dataset_fingerprint.json", "dataset.json", "plans.json"];
const OF_CROSS_VALIDATION: [&str; 3] =
    ["summary.json", "postprocessing.pkl", "postprocessing.json"];
/// nnU-Net's name for the weights of a fold.
const WEIGHTS: &str = "checkpoint_final.pth";

/// A fold and its checkpoint.
pub struct FoldToExport {
    /// Its folder.
    pub folder: PathBuf,
    /// The weights.
    pub checkpoint: TrainingCheckpoint,
}

/// Writes the folds of one results folder to a zip file.
pub fn write(folds: &[FoldToExport], averaged: bool, out: &Path) -> anyhow::Result<()> {
    let home = folds[0].folder.parent().unwrap_or(Path::new("."));
    let name = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for file in ["dataset.json", "plans.json"] {
        let path = home.join(file);
        ensure!(path.is_file(), "expected {file} beside the folds, found none: {}", path.display());
    }
    // The weights as nnU-Net reads them, one fold at a time, beside the archive.
    let scratch = tempfile::Builder::new()
        .prefix(".export-")
        .tempdir_in(out.parent().filter(|folder| folder.is_dir()).unwrap_or(Path::new(".")))?;
    files::sweep([out]);
    let mut own = None;
    let written = files::write(out, |file| {
        fill(file, folds, (home, &name), averaged, scratch.path()).map_err(|error| {
            let source = io::Error::other(error.to_string());
            own = Some(error);
            DataError::Io { action: "write", source }
        })
    });
    written.map_err(|error| own.unwrap_or_else(|| error.into()))
}

fn fill<W: Write + Seek>(
    file: W,
    folds: &[FoldToExport],
    (home, name): (&Path, &str),
    averaged: bool,
    scratch: &Path,
) -> anyhow::Result<()> {
    let mut zip = ZipWriter::new(file);
    let mut dataset = String::new();
    for FoldToExport { folder, checkpoint } in folds {
        let run = Run::of(checkpoint)?;
        dataset = run.settings.dataset;
        let fold = folder.file_name().unwrap_or_default().to_string_lossy();
        let within = format!("{dataset}/{name}/{fold}");
        let weights = scratch.join(WEIGHTS);
        export::nnunet_v2(checkpoint, &run.about, averaged, &weights)?;
        add(&mut zip, &weights, &format!("{within}/{WEIGHTS}"))?;
        for file in OF_FOLD {
            add_if_there(&mut zip, &folder.join(file), &format!("{within}/{file}"))?;
        }
    }
    let within = format!("{dataset}/{name}");
    let entries = std::fs::read_dir(home).with_context(|| home.display().to_string())?;
    let mut gathered: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("crossval_results_folds_"))
        .collect();
    gathered.sort();
    for folder in gathered {
        for file in OF_CROSS_VALIDATION {
            let path = home.join(&folder).join(file);
            add_if_there(&mut zip, &path, &format!("{within}/{folder}/{file}"))?;
        }
    }
    for file in OF_RESULTS {
        add_if_there(&mut zip, &home.join(file), &format!("{within}/{file}"))?;
    }
    zip.finish()?.flush()?;
    Ok(())
}

fn add_if_there<W: Write + Seek>(
    zip: &mut ZipWriter<W>,
    from: &Path,
    name: &str,
) -> anyhow::Result<()> {
    if from.is_file() { add(zip, from, name) } else { Ok(()) }
}

fn add<W: Write + Seek>(zip: &mut ZipWriter<W>, from: &Path, name: &str) -> anyhow::Result<()> {
    let file = File::open(from).with_context(|| from.display().to_string())?;
    let bytes = file.metadata().with_context(|| from.display().to_string())?.len();
    // Weights do not shrink.
    let packed = match name.ends_with(".json") {
        true => zip::CompressionMethod::Deflated,
        false => zip::CompressionMethod::Stored,
    };
    let options =
        SimpleFileOptions::default().compression_method(packed).large_file(bytes > 4_000_000_000);
    zip.start_file(name, options)?;
    io::copy(&mut BufReader::new(file), zip)?;
    Ok(())
}
