//! Which prediction belongs to which reference: the one of the same name.

use crate::InferError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use stunet_data::dataset::list_labelmaps;

/// A reference and its prediction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Name of the case.
    pub name: String,
    /// The labelmap that is right.
    pub reference: PathBuf,
    /// The labelmap that is judged.
    pub prediction: PathBuf,
}

/// What to do about references without a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An error.
    Refuse,
    /// Leave them out (nnU-Net's `--chill`).
    Skip,
}

/// Pairs the labelmaps (`.nii.gz`, `.nii`, `.mha`, `.nrrd`, …) of two folders by name, sorted.
///
/// # Errors
/// When a folder cannot be read, a case has two files, a labelmap is a link that leads nowhere, a
/// prediction has no reference, there is nothing to compare, or references have no prediction and
/// `missing` refuses that.
///
/// # Deviations
/// The two endings may be mixed; nnU-Net looks for the one that `dataset.json` names. Hidden files
/// are no labelmaps ([`list_labelmaps`] tells what else is none).
pub fn pairs(
    references: &Path,
    predictions: &Path,
    missing: Missing,
) -> Result<Vec<Pair>, InferError> {
    let mut expected = labelmaps(references)?;
    let found = labelmaps(predictions)?;
    if missing == Missing::Refuse {
        let absent: Vec<&String> = expected.keys().filter(|n| !found.contains_key(*n)).collect();
        refuse(&absent, "predictions", "one for every reference", predictions)?;
    }
    let unknown: Vec<&String> = found.keys().filter(|n| !expected.contains_key(*n)).collect();
    refuse(&unknown, "references", "one for every prediction", references)?;
    let pair = |(name, prediction): (String, PathBuf)| {
        let reference = expected.remove(&name)?;
        Some(Pair { name, reference, prediction })
    };
    let pairs: Vec<Pair> = found.into_iter().filter_map(pair).collect();
    if pairs.is_empty() {
        return Err(InferError::Evaluation {
            what: "predictions",
            expected: "files ending in .nii.gz or .nii".to_owned(),
            found: "none".to_owned(),
            path: predictions.to_owned(),
        });
    }
    Ok(pairs)
}

fn refuse(
    names: &[&String],
    what: &'static str,
    expected: &str,
    folder: &Path,
) -> Result<(), InferError> {
    let Some(first) = names.first() else {
        return Ok(());
    };
    let others = match names.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(InferError::Evaluation {
        what,
        expected: expected.to_owned(),
        found: format!("none for {first}{others}"),
        path: folder.to_owned(),
    })
}

/// Labelmaps by case; what is none is passed over.
fn labelmaps(folder: &Path) -> Result<BTreeMap<String, PathBuf>, InferError> {
    std::fs::read_dir(folder).map_err(InferError::io("cannot read", folder))?;
    let mut found = BTreeMap::new();
    for (case, path) in list_labelmaps(folder)?.files {
        if let Some(first) = found.insert(case, path.clone()) {
            let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
            return Err(InferError::Evaluation {
                what: "labelmaps of one case",
                expected: "one".to_owned(),
                found: format!("{} and {}", name(&first), name(&path)),
                path: folder.to_owned(),
            });
        }
    }
    Ok(found)
}
