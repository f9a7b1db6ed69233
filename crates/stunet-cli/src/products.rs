//! The files that `predict` writes for a case: what each is, where it lies, and what made it.
//!
//! Whatever asks which files there are asks here: the checks before anything is written, the search for
//! outputs of earlier runs, the removal of what killed runs left, and the writer.

use std::path::{Path, PathBuf};

use stunet::data::formats;
use stunet::infer::{ConfidenceMeasure, ProbabilityFormat, Record};

use crate::args::PredictArgs;
use crate::commands::predict::settings::{format_of, measure_of};

/// One kind of output of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// The labels.
    Labelmap,
    /// Probabilities of every class, beside the labelmap.
    Probabilities(ProbabilityFormat),
    /// How sure the labels are, in a folder of its own.
    Confidence(ConfidenceMeasure),
}

impl Product {
    /// Every kind, for what is looked for whether it was asked for or not.
    pub const ALL: [Self; 4] = [
        Self::Labelmap,
        Self::Probabilities(ProbabilityFormat::Npz),
        Self::Probabilities(ProbabilityFormat::Zarr),
        Self::Confidence(ConfidenceMeasure::Margin),
    ];

    /// Those that the arguments ask for.
    pub fn wanted(args: &PredictArgs) -> Vec<Self> {
        let mut wanted = vec![Self::Labelmap];
        wanted.extend(args.save_probabilities.map(|form| Self::Probabilities(format_of(form))));
        wanted.extend(args.confidence.map(|measure| Self::Confidence(measure_of(measure))));
        wanted
    }

    /// Its name in messages, without an article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labelmap => "labelmap",
            Self::Probabilities(_) => "probabilities",
            Self::Confidence(_) => "confidence",
        }
    }

    /// The file that tells what made it, for the case of a labelmap.
    pub fn path(self, labelmap: &Path) -> PathBuf {
        match self {
            Self::Labelmap => labelmap.to_owned(),
            Self::Probabilities(form) => beside(labelmap, &format!(".{}", form.ending())),
            // In a folder beside the labelmap, where nobody takes it for another case.
            Self::Confidence(_) => {
                let folder = labelmap.parent().unwrap_or(Path::new(""));
                folder.join("confidence").join(labelmap.file_name().unwrap_or_default())
            }
        }
    }

    /// Every file of it, for the case of a labelmap.
    pub fn files(self, labelmap: &Path) -> Vec<PathBuf> {
        let path = self.path(labelmap);
        match self {
            Self::Labelmap | Self::Confidence(_) => formats::files_written(&path),
            // Beside nnU-Net's probabilities go the properties that its ensembles need.
            Self::Probabilities(ProbabilityFormat::Npz) => vec![path, beside(labelmap, ".pkl")],
            Self::Probabilities(ProbabilityFormat::Zarr) => vec![path],
        }
    }

    /// The record that it carries, made of the labelmap's.
    pub fn record(self, record: &Record) -> Record {
        match self {
            Self::Labelmap | Self::Probabilities(_) => record.clone(),
            Self::Confidence(measure) => record.with_confidence(measure),
        }
    }
}

/// A file beside the labelmap: its name with another ending.
fn beside(labelmap: &Path, ending: &str) -> PathBuf {
    let name = labelmap.file_name().unwrap_or_default().to_string_lossy();
    let stem = formats::written_ending(labelmap).and_then(|of| name.strip_suffix(of));
    labelmap.with_file_name(format!("{}{ending}", stem.unwrap_or(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_they_lie() {
        let npz = Product::Probabilities(ProbabilityFormat::Npz);
        assert_eq!(npz.path(Path::new("x/a.nii.gz")), Path::new("x/a.npz"));
        assert_eq!(npz.path(Path::new("a.b.nii")), Path::new("a.b.npz"));
        assert_eq!(npz.files(Path::new("x/a.nrrd")), [Path::new("x/a.npz"), Path::new("x/a.pkl")]);
        let zarr = Product::Probabilities(ProbabilityFormat::Zarr);
        assert_eq!(zarr.files(Path::new("x/a.nrrd")), [Path::new("x/a.zarr.zip")]);
        let confidence = Product::Confidence(ConfidenceMeasure::Entropy);
        assert_eq!(confidence.path(Path::new("x/a.nii")), Path::new("x/confidence/a.nii"));
        assert_eq!(Product::Labelmap.files(Path::new("x/a.nii")), [Path::new("x/a.nii")]);
    }

    /// No two of them are one file.
    #[test]
    fn all_differ() {
        let labelmap = Path::new("x/a.nii.gz");
        let mut files: Vec<_> =
            Product::ALL.into_iter().flat_map(|product| product.files(labelmap)).collect();
        let all = files.len();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), all);
    }
}
