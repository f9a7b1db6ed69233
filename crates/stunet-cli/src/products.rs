//! The files that `predict` writes for a case: what each is, where it lies, and what made it.
//!
//! Whatever asks which files there are asks here: the checks before anything is written, the search for
//! outputs of earlier runs, the removal of what killed runs left, and the writer.

use std::path::{Path, PathBuf};

use stunet::data::dicom::SegmentationKind;
use stunet::data::formats;
use stunet::infer::{ConfidenceMeasure, ProbabilityFormat, Record};

use crate::args::{FormatArg, PredictArgs, ViewArgs, WindowArg};
use crate::commands::predict::settings::{format_of, measure_of};

/// Name of the table of the measurements of all cases in a folder.
pub const TABLE: &str = "statistics.csv";

/// What nnU-Net writes beside the labelmaps of a folder of cases: what labels mean, the plans, and what was
/// asked for.
pub const BESIDE: [&str; 3] = ["dataset.json", "plans.json", "predict_from_raw_data_args.json"];

/// One kind of output of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// The labels.
    Labelmap,
    /// Probabilities of every class, beside the labelmap.
    Probabilities(ProbabilityFormat),
    /// How sure the labels are, in a folder of its own.
    Confidence(ConfidenceMeasure),
    /// A picture, beside the labelmap.
    Preview(Shown),
    /// A file for each label, in a folder of the case. Which files that are only the model tells: what
    /// is looked at is their list, which is written last.
    PerClass,
    /// Measurements of the labels, also of their confidence where there is one.
    Statistics(Option<ConfidenceMeasure>),
    /// The labels as a DICOM segmentation, beside the labelmap.
    Segmentation(SegmentationKind),
    /// The labels as a DICOM RT structure set, beside the labelmap.
    StructureSet,
}

/// What a picture shows beside the labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    window: Option<WindowArg>,
    channel: u16,
    with_truth: bool,
}

impl Shown {
    /// What the options ask for.
    pub fn of(args: &ViewArgs) -> Self {
        Self { window: args.window, channel: args.channel, with_truth: args.truth.is_some() }
    }

    /// In words, for the record.
    fn text(self) -> String {
        let window = match self.window {
            None => "automatic".to_owned(),
            Some(WindowArg::Ct) => "ct".to_owned(),
            Some(WindowArg::Percentiles) => "percentiles".to_owned(),
            Some(WindowArg::Range([low, high])) => {
                format!("{},{}", low as f64 / 1000.0, high as f64 / 1000.0)
            }
        };
        let truth = if self.with_truth { ", truth" } else { "" };
        format!("window {window}, channel {}{truth}", self.channel)
    }
}

impl Product {
    /// Every kind, for what is looked for whether it was asked for or not.
    pub const ALL: [Self; 9] = [
        Self::Labelmap,
        Self::Probabilities(ProbabilityFormat::Npz),
        Self::Probabilities(ProbabilityFormat::Zarr),
        Self::Confidence(ConfidenceMeasure::Margin),
        Self::Preview(Shown { window: None, channel: 0, with_truth: false }),
        Self::PerClass,
        Self::Statistics(None),
        Self::Segmentation(SegmentationKind::Binary),
        Self::StructureSet,
    ];

    /// Those that the arguments ask for.
    pub fn wanted(args: &PredictArgs) -> Vec<Self> {
        let formats = &args.formats;
        let mut wanted = Vec::new();
        wanted.extend(formats.has(FormatArg::Nifti).then_some(Self::Labelmap));
        let segmentation = Self::Segmentation(formats.kind());
        wanted.extend(formats.has(FormatArg::DicomSeg).then_some(segmentation));
        wanted.extend(formats.has(FormatArg::Rtstruct).then_some(Self::StructureSet));
        wanted.extend(args.save_probabilities.map(|form| Self::Probabilities(format_of(form))));
        wanted.extend(args.confidence.map(|measure| Self::Confidence(measure_of(measure))));
        let pictures = &args.pictures;
        wanted.extend(pictures.preview.then(|| Self::Preview(Shown::of(&pictures.view))));
        wanted.extend(args.finish.per_class.then_some(Self::PerClass));
        wanted.extend(Self::statistics(args));
        wanted
    }

    /// The measurements, if they are wanted.
    pub fn statistics(args: &PredictArgs) -> Option<Self> {
        let measure = args.confidence.map(measure_of);
        args.finish.statistics.then_some(Self::Statistics(measure))
    }

    /// The one that stands for a case in messages: its labels, in the first format that is asked for.
    pub fn first(args: &PredictArgs) -> Self {
        Self::wanted(args).first().copied().unwrap_or(Self::Labelmap)
    }

    /// Whether it is an object of DICOM, which refers to a series.
    pub fn is_dicom(self) -> bool {
        matches!(self, Self::Segmentation(_) | Self::StructureSet)
    }

    /// Whether it is made from the labels and the scan alone, without the network.
    pub fn comes_from_labels(self) -> bool {
        match self {
            Self::Preview(_) | Self::PerClass | Self::Statistics(None) => true,
            Self::Segmentation(_) | Self::StructureSet => true,
            Self::Labelmap | Self::Probabilities(_) | Self::Confidence(_) => false,
            Self::Statistics(Some(_)) => false,
        }
    }

    /// Its name in messages, without an article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labelmap => "labelmap",
            Self::Probabilities(_) => "probabilities",
            Self::Confidence(_) => "confidence",
            Self::Preview(_) => "preview",
            Self::PerClass => "files of the labels",
            Self::Statistics(_) => "statistics",
            Self::Segmentation(_) => "DICOM segmentation",
            Self::StructureSet => "RT structure set",
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
            Self::Preview(_) => beside(labelmap, "_preview.png"),
            Self::PerClass => folder_of_classes(labelmap).join("classes.json"),
            Self::Statistics(_) => beside(labelmap, "_statistics.json"),
            // The name was given for the only object.
            Self::Segmentation(_) | Self::StructureSet if is_object(labelmap) => {
                labelmap.to_owned()
            }
            Self::Segmentation(_) => beside(labelmap, ".seg.dcm"),
            Self::StructureSet => beside(labelmap, ".rtstruct.dcm"),
        }
    }

    /// Every file of it, for the case of a labelmap.
    pub fn files(self, labelmap: &Path) -> Vec<PathBuf> {
        let path = self.path(labelmap);
        match self {
            Self::Labelmap | Self::Confidence(_) => formats::files_written(&path),
            // Beside nnU-Net's probabilities go the properties that its ensembles need.
            Self::Probabilities(ProbabilityFormat::Npz) => vec![path, beside(labelmap, ".pkl")],
            Self::Probabilities(ProbabilityFormat::Zarr) | Self::PerClass | Self::Preview(_) => {
                vec![path]
            }
            Self::Segmentation(_) | Self::StructureSet => vec![path],
            Self::Statistics(_) => vec![path, beside(labelmap, "_statistics.csv")],
        }
    }

    /// The record that it carries, made of the labelmap's.
    pub fn record(self, record: &Record) -> Record {
        match self {
            Self::Labelmap | Self::Probabilities(_) | Self::PerClass | Self::Statistics(None) => {
                record.clone()
            }
            Self::Confidence(measure) | Self::Statistics(Some(measure)) => {
                record.with_confidence(measure)
            }
            Self::Preview(shown) => record.with_picture(&shown.text()),
            Self::Segmentation(SegmentationKind::Binary) => record.with_form("dicom-seg binary"),
            Self::Segmentation(SegmentationKind::Labelmap) => {
                record.with_form("dicom-seg labelmap")
            }
            Self::StructureSet => record.with_form("rtstruct"),
        }
    }
}

/// The folder for files of single labels: beside the labelmap, with its name without the ending.
pub fn folder_of_classes(labelmap: &Path) -> PathBuf {
    beside(labelmap, "")
}

/// Whether a name is that of a DICOM object.
fn is_object(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("dcm"))
}

/// A file beside the labelmap: its name with another ending.
fn beside(labelmap: &Path, ending: &str) -> PathBuf {
    let name = labelmap.file_name().unwrap_or_default().to_string_lossy();
    let own = formats::written_ending(labelmap);
    let own = own.or(is_object(labelmap).then(|| &name[name.len() - ".dcm".len()..]));
    let stem = own.and_then(|own| name.strip_suffix(own));
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
        let preview = Product::Preview(Shown::default());
        assert_eq!(preview.files(Path::new("x/a.nii.gz")), [Path::new("x/a_preview.png")]);
        assert_eq!(Product::Labelmap.files(Path::new("x/a.nii")), [Path::new("x/a.nii")]);
        let classes = Product::PerClass.path(Path::new("x/a.nii.gz"));
        assert_eq!(classes, Path::new("x/a/classes.json"));
        let statistics = Product::Statistics(None).files(Path::new("x/a.nii.gz"));
        assert_eq!(statistics, ["x/a_statistics.json", "x/a_statistics.csv"].map(Path::new));
        let segmentation = Product::Segmentation(SegmentationKind::Labelmap);
        assert_eq!(segmentation.path(Path::new("x/a.nii.gz")), Path::new("x/a.seg.dcm"));
        assert_eq!(segmentation.files(Path::new("x/b.dcm")), [Path::new("x/b.dcm")]);
        let structures = Product::StructureSet.path(Path::new("x/a.nrrd"));
        assert_eq!(structures, Path::new("x/a.rtstruct.dcm"));
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
