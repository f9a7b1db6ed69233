//! Ensembles: the mean of the probabilities that several models stored, and the labels it decides on.
//!
//! Read are nnU-Net 2's `.npz` (array `probabilities`, class after class), nnU-Net 1's (array `softmax` of
//! the cropped image, with the `.pkl` beside it) and the `.zarr.zip` of `stunet predict`; memory does not
//! grow with the number of classes. All members of a case have the same form.

mod npy;
mod npz;
mod properties;
mod v1;
mod zarr;

pub use properties::geometry_of_properties;
pub use v1::outputs_of_v1;

use crate::InferError;
use crate::probabilities::ProbabilityFormat;
use ndarray::Array3;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use stunet_data::files;
use stunet_data::labels::LabelSet;
use zip::ZipArchive;

/// Averages the probabilities of one case over its members, in their order, and decides each voxel:
/// the class with the largest mean, the first of equal ones; of regions, every one above a half, painted
/// in their order. `merged` is where the mean is stored, as `.npz`; none leaves it out.
///
/// # Shapes
/// `[z, y, x]` of the image.
///
/// # Errors
/// When a file cannot be read or has another number of outputs than the labels, shapes differ, forms are
/// mixed, or `merged` is asked of another form than `.npz`.
///
/// # Source
/// nnU-Net 2.8.1, `ensemble.py`: `average_probabilities`, `merge_files`; sums are in single precision,
/// one member after the other, as there. nnU-Net 1.7.1, `ensemble_predictions.py`: `merge`; the mean of
/// values in half precision is rounded to half precision, as NumPy does.
pub fn ensemble(
    members: &[PathBuf],
    labels: &LabelSet,
    merged: Option<&Path>,
) -> Result<Array3<u16>, InferError> {
    let formats: Vec<Option<ProbabilityFormat>> = members.iter().map(|m| format_of(m)).collect();
    let odd =
        members.iter().zip(&formats).find(|(_, format)| format.is_none() || **format != formats[0]);
    match (odd, formats.first().copied().flatten()) {
        (Some((path, _)), _) => Err(differs(
            path,
            "members of one form, .npz or .zarr.zip",
            path.extension().unwrap_or_default().display().to_string(),
        )),
        (None, Some(ProbabilityFormat::Npz)) => npz::ensemble(members, labels, merged),
        (None, Some(ProbabilityFormat::Zarr)) => match merged {
            None => zarr::ensemble(members, labels),
            Some(path) => Err(differs(path, "members in .npz, to store their mean", ".zarr.zip")),
        },
        (None, None) => panic!("an ensemble of no members"),
    }
}

/// The form of a file of probabilities, by its name.
pub fn format_of(path: &Path) -> Option<ProbabilityFormat> {
    let name = path.file_name()?.to_str()?;
    [ProbabilityFormat::Npz, ProbabilityFormat::Zarr]
        .into_iter()
        .find(|format| name.strip_suffix(format.ending()).is_some_and(|stem| stem.ends_with('.')))
}

/// Decides voxels from probabilities that come class after class.
pub(crate) struct Vote<'a> {
    /// Of regions: the labels that they are painted with, in this order.
    regions: Option<&'a [u16]>,
    /// Largest probability so far; empty for regions, each of which is decided on its own.
    best: Vec<f32>,
    decided: Vec<u16>,
}

impl<'a> Vote<'a> {
    fn new(regions: Option<&'a [u16]>, num_voxels: usize) -> Self {
        let best = if regions.is_some() { 0 } else { num_voxels };
        Self { regions, best: vec![f32::NEG_INFINITY; best], decided: vec![0; num_voxels] }
    }

    /// Takes probabilities of an output for the voxels from `first` on.
    fn take(&mut self, output: usize, first: usize, probabilities: &[f32]) {
        let decided = &mut self.decided[first..][..probabilities.len()];
        if let Some(order) = self.regions {
            for (label, probability) in decided.iter_mut().zip(probabilities) {
                if *probability > 0.5 {
                    *label = order[output];
                }
            }
            return;
        }
        let best = &mut self.best[first..][..probabilities.len()];
        for ((label, best), probability) in decided.iter_mut().zip(best).zip(probabilities) {
            // NumPy takes NaN for the largest.
            if probability > best || probability.is_nan() && !best.is_nan() {
                *best = *probability;
                *label = output as u16;
            }
        }
    }
}

/// Adds a member's values to the sum, or begins it.
fn add(sum: &mut [f32], values: &[f64], is_first: bool) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum = if is_first { *value as f32 } else { (f64::from(*sum) + value) as f32 };
    }
}

/// An archive of NumPy.
fn open_archive(path: &Path) -> Result<ZipArchive<BufReader<File>>, InferError> {
    ZipArchive::new(BufReader::new(files::open(path)?))
        .map_err(|e| differs(path, "a zip archive", e.to_string()))
}

fn differs(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> InferError {
    InferError::Evaluation {
        what: "probabilities",
        expected: expected.into(),
        found: found.into(),
        path: path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
