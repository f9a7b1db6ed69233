//! What labels are written as: options of `predict`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use stunet::data::dicom::SegmentationKind;

const FORMATS: &str = "What labels are written as";

/// What labels are written as.
#[derive(Clone, Debug, Default, Args)]
pub struct FormatArgs {
    /// Formats of the labels, several separated by commas [default: nifti]
    #[arg(help_heading = FORMATS, long, value_enum, value_name = "FORMAT", value_delimiter = ',')]
    pub format: Vec<FormatArg>,

    /// The kind of DICOM segmentation that `--format dicom-seg` writes
    #[arg(help_heading = FORMATS, long, value_enum, value_name = "KIND", default_value_t = SegArg::Binary)]
    pub seg: SegArg,

    /// The DICOM series that the files of a single case were converted from: its patient, study and
    /// images are those of the DICOM objects
    #[arg(help_heading = FORMATS, long, value_name = "SERIES")]
    pub dicom_source: Option<PathBuf>,
}

/// Formats of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// A labelmap in the format of --output or of the scan: NIfTI, MetaImage or NRRD
    Nifti,
    /// A DICOM segmentation, CASE.seg.dcm
    DicomSeg,
    /// A DICOM RT structure set, CASE.rtstruct.dcm
    Rtstruct,
}

/// Kinds of DICOM segmentations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SegArg {
    /// One bit per voxel and structure, which every reader knows
    #[default]
    Binary,
    /// One number per voxel (DICOM 2024d): smaller, for newer readers
    Labelmap,
}

impl FormatArgs {
    /// Whether labels are written in this format.
    pub fn has(&self, format: FormatArg) -> bool {
        match self.format.is_empty() {
            true => format == FormatArg::Nifti,
            false => self.format.contains(&format),
        }
    }

    /// The options that ask for DICOM objects, for messages.
    pub fn of_dicom(&self) -> Option<&'static str> {
        match (self.has(FormatArg::DicomSeg), self.has(FormatArg::Rtstruct)) {
            (true, _) => Some("--format dicom-seg"),
            (_, true) => Some("--format rtstruct"),
            _ => None,
        }
    }

    /// Whether a name is that of the only object that is written.
    pub fn names_object(&self, path: &Path) -> bool {
        let all = [FormatArg::Nifti, FormatArg::DicomSeg, FormatArg::Rtstruct];
        let wanted: Vec<_> = all.into_iter().filter(|format| self.has(*format)).collect();
        let dcm = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("dcm"));
        dcm && wanted.len() == 1 && wanted[0] != FormatArg::Nifti
    }

    /// The kind of segmentation.
    pub fn kind(&self) -> SegmentationKind {
        match self.seg {
            SegArg::Binary => SegmentationKind::Binary,
            SegArg::Labelmap => SegmentationKind::Labelmap,
        }
    }
}
