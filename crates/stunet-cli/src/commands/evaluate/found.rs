//! Which predictions are compared with which references.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use stunet::data::dataset::stem;
use stunet::infer::evaluate::{Missing, Pair, pairs};

use crate::args::EvaluateArgs;
use crate::folders;

/// Predictions of the cases that a fold was not trained on.
pub const VALIDATION: &str = "validation";

/// Every reference with its prediction: two files, or what two folders have in common.
pub fn pairs_of(args: &EvaluateArgs, prediction: &Path) -> anyhow::Result<Vec<Pair>> {
    let reference = &args.reference;
    let validated = validations(prediction);
    if !validated.is_empty() {
        return pairs_of_folds(args, prediction, &validated);
    }
    if reference.is_dir() || prediction.is_dir() {
        let missing = if args.chill { Missing::Skip } else { Missing::Refuse };
        return Ok(pairs(reference, prediction, missing)?);
    }
    let name = stem(prediction).unwrap_or_default().to_owned();
    let (reference, prediction) = (reference.clone(), prediction.to_owned());
    Ok(vec![Pair { name, reference, prediction }])
}

/// The validation folders of what `stunet train` left behind: of a results folder or of one fold.
/// A folder with labelmaps in it is taken for what it is.
fn validations(results: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(results).into_iter().flatten().flatten();
    if entries.into_iter().any(|entry| stem(&entry.path()).is_some()) {
        return Vec::new();
    }
    let folds = numbered(results).into_iter().chain([results.to_owned()]);
    folds.map(|fold| fold.join(VALIDATION)).filter(|folder| folder.is_dir()).collect()
}

/// The folds of a results folder; the one of all cases only where there is no other.
fn numbered(results: &Path) -> Vec<PathBuf> {
    let mut folds = folders::folds_of(results);
    if folds.len() > 1 {
        folds.retain(|fold| !fold.ends_with("fold_all"));
    }
    folds
}

/// Every case as the fold predicted it that was not trained on it.
fn pairs_of_folds(
    args: &EvaluateArgs,
    results: &Path,
    folders: &[PathBuf],
) -> anyhow::Result<Vec<Pair>> {
    let reference = &args.reference;
    let mut found: Vec<Pair> = Vec::new();
    for folder in folders {
        for pair in pairs(reference, folder, Missing::Skip)? {
            if let Some(twice) = found.iter().find(|other| other.name == pair.name) {
                bail!(
                    "expected every case in the validation of one fold, found {} in two: {} and {}",
                    pair.name,
                    twice.prediction.display(),
                    pair.prediction.display()
                );
            }
            found.push(pair);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    // One fold has its own cases alone; all of them have every case.
    let unfinished: Vec<_> = numbered(results)
        .into_iter()
        .filter(|fold| !fold.join(VALIDATION).is_dir())
        .map(|fold| fold.file_name().unwrap_or_default().display().to_string())
        .collect();
    ensure!(
        args.chill || unfinished.is_empty(),
        "expected the validation of every fold, found none of {} (leave them out with --chill): {}",
        unfinished.join(", "),
        results.display()
    );
    Ok(found)
}
