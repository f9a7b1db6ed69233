//! `stunet accumulate`: the validation of all folds in one folder, scored.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use stunet::data::dataset::list_labelmaps;
use stunet::infer::evaluate::{Evaluation, Missing, pairs};

use super::evaluate::count;
use super::postprocess::{JSON, PICKLE, POSTPROCESSED, tell_scores};
use crate::args::AccumulateArgs;
use crate::described::{Described, SUMMARY, copy, make_folder};
use crate::folders::{self, Home};
use crate::interrupt;
use crate::output;

/// Gathers and scores.
pub fn run(args: &AccumulateArgs) -> anyhow::Result<()> {
    let target = match &args.output {
        Some(output) => {
            let mut entries = std::fs::read_dir(output).into_iter().flatten();
            ensure!(
                entries.next().is_none(),
                "--output: expected a new or empty folder: {}",
                output.display()
            );
            output.clone()
        }
        None => args.results.join(folder_name(&args.folds)),
    };
    let reference = match &args.reference {
        Some(reference) => reference.clone(),
        None => reference_of(args.results.parent().unwrap_or(Path::new(".")))?,
    };
    interrupt::watch(args.quiet, "case")?;
    let gathered = Gathered {
        results: &args.results,
        folds: &args.folds,
        reference: &reference,
        how: (args.num_threads, args.quiet),
    };
    let result = gathered.gather(&target)?;
    if args.quiet {
        return Ok(());
    }
    let described = Described::of(&target, None, None)?;
    tell_scores(&result, &described.dataset.labels)?;
    output::line(&target.join(SUMMARY).display().to_string())
}

/// nnU-Net's name for the folder.
pub fn folder_name(folds: &[usize]) -> String {
    format!("crossval_results_folds_{}", joined(folds))
}

/// Folds with `_` between them.
pub fn joined(folds: &[usize]) -> String {
    folds.iter().map(usize::to_string).collect::<Vec<_>>().join("_")
}

/// References of a dataset, from its folder in `nnUNet_results`.
pub fn reference_of(dataset: &Path) -> anyhow::Result<PathBuf> {
    let places = [
        folders::beside_results(dataset, Home::Raw).join("labelsTr"),
        folders::beside_results(dataset, Home::Preprocessed).join("gt_segmentations"),
    ];
    match places.iter().find(|folder| folder.is_dir()) {
        Some(folder) => Ok(folder.clone()),
        None => bail!(
            "expected the reference labelmaps in {} or {}, found neither; say where they are with \
             --reference",
            places[0].display(),
            places[1].display()
        ),
    }
}

/// The validation of some folds of a model.
pub struct Gathered<'a> {
    /// `TRAINER__PLANS__CONFIG`.
    pub results: &'a Path,
    /// Its folds.
    pub folds: &'a [usize],
    /// References of all cases.
    pub reference: &'a Path,
    /// Threads, and whether nothing is printed.
    pub how: (Option<usize>, bool),
}

impl Gathered<'_> {
    /// The folder of a fold's validation.
    pub fn validation(&self, fold: usize) -> anyhow::Result<PathBuf> {
        let folder = self.results.join(format!("fold_{fold}")).join("validation");
        ensure!(
            folder.is_dir(),
            "expected the validation of fold {fold}, found none; train this fold to its end, or name the \
             folds with -f: {}",
            folder.display()
        );
        Ok(folder)
    }

    /// Copies labelmaps, `dataset.json` and `plans.json`, and writes `summary.json`. What an earlier run
    /// left in the folder is replaced.
    pub fn gather(&self, target: &Path) -> anyhow::Result<Evaluation> {
        let described = Described::of(self.results, None, None)?;
        let mut files: Vec<(PathBuf, PathBuf)> = Vec::new();
        for fold in self.folds {
            for (case, file) in list_labelmaps(&self.validation(*fold)?)?.files {
                let to = target.join(file.file_name().unwrap_or_default());
                if let Some((other, _)) = files.iter().find(|(_, place)| *place == to) {
                    bail!(
                        "expected every case in the validation of one fold, found {case} in two: {} and {}",
                        other.display(),
                        file.display()
                    );
                }
                files.push((file, to));
            }
        }
        ensure!(
            !files.is_empty(),
            "expected predictions in the validation of the folds: {}",
            self.results.display()
        );
        make_folder(target)?;
        clear(target, &files)?;
        described.copy_to(target)?;
        for (from, to) in &files {
            copy(from, to)?;
        }
        let pairs = pairs(self.reference, target, Missing::Skip)?;
        let (num_threads, quiet) = self.how;
        let result = count(num_threads, quiet, &pairs, &described.rules()?)?;
        result.write_v2(&target.join(SUMMARY))?;
        Ok(result)
    }
}

/// Removes labelmaps of cases that are not among the files, and what was made of the old ones.
fn clear(target: &Path, files: &[(PathBuf, PathBuf)]) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("cannot remove {}", path.display());
    let old = list_labelmaps(target)?.files.into_iter().map(|(_, path)| path);
    let old = old.filter(|path| !files.iter().any(|(_, to)| to == path));
    let made = [SUMMARY, PICKLE, JSON].map(|name| target.join(name));
    for path in old.chain(made).filter(|path| path.exists()) {
        std::fs::remove_file(&path).with_context(|| failed(&path))?;
    }
    let folder = target.join(POSTPROCESSED);
    match folder.is_dir() {
        true => std::fs::remove_dir_all(&folder).with_context(|| failed(&folder)),
        false => Ok(()),
    }
}
