//! Options of the commands on labelmaps that exist.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::finish::CleanArgs;
use super::headers::ForgiveArgs;

pub(super) const STATISTICS_HELP: &str = "\
Writes CASE_statistics.json and CASE_statistics.csv for every labelmap, and for a folder also one table of
all cases, statistics.csv. Intensities are those of the image's file, places are in mm as in NIfTI
(x to the patient's right, y to the front, z to the head). Labels are checked against anatomy as well.

Examples:
  stunet statistics labels.nii.gz -i ct.nii.gz
  stunet statistics predicted -i imagesTs -m base_ep4k.model -o measured
  stunet statistics predicted --dataset-json dataset.json --labels liver,spleen";

pub(super) const CLEAN_HELP: &str = "\
First small parts are removed, then holes are filled, then labels that --labels does not name become
background. What nnU-Net's cross-validation has decided is applied by `stunet postprocess apply`.

Examples:
  stunet clean labels.nii.gz -o cleaned.nii.gz --largest-component --fill-holes
  stunet clean predicted -o cleaned --min-volume 0.2ml spleen --dataset-json dataset.json";

pub(super) const MAP_LABELS_HELP: &str = "\
MAP is a file as `stunet evaluate --label-map` reads it, or the name of a published map, such as btcv. The first
name of its section [reference] becomes label 1, the second 2, and so on; what no line names becomes
background. A folder also receives dataset.json with the new names.

Examples:
  stunet map-labels predicted -o predicted_btcv --label-map btcv
  stunet map-labels labelsTs -o references_btcv --label-map btcv --side reference
  stunet map-labels labels.nii.gz -o mapped.nii.gz --label-map my_map.labels -m base_ep4k.model";

const NAMES: &str = "Names of labels";

/// Where the names of labels are.
#[derive(Debug, Default, Args)]
pub struct NamesArgs {
    /// A model in any form that `stunet predict --model` accepts, for the names of its labels
    #[arg(help_heading = NAMES, short, long, value_name = "MODEL", conflicts_with = "dataset_json")]
    pub model: Option<PathBuf>,

    /// dataset.json with the names of the labels [default: the one beside the labelmaps, if there is
    /// one; else labels have numbers only]
    #[arg(help_heading = NAMES, long, value_name = "FILE")]
    pub dataset_json: Option<PathBuf>,
}

/// `stunet statistics`.
#[derive(Debug, Args)]
pub struct StatisticsArgs {
    /// A labelmap, or a folder of labelmaps
    #[arg(value_name = "LABELMAPS")]
    pub labelmaps: PathBuf,

    /// The image of the labelmap (several files for several channels), or the folder of the images;
    /// without it no intensities are measured
    #[arg(short, long, value_name = "IMAGE", num_args = 1..)]
    pub input: Vec<PathBuf>,

    /// Folder for the results [default: beside the labelmaps]
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,

    /// Measure these labels only, by name, number or group, such as liver,spleen,ribs
    #[arg(long, value_name = "LABELS", num_args = 1..)]
    pub labels: Vec<String>,

    #[command(flatten)]
    pub names: NamesArgs,

    #[command(flatten)]
    pub forgive: ForgiveArgs,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet clean`.
#[derive(Debug, Args)]
pub struct CleanUpArgs {
    /// A labelmap, or a folder of labelmaps
    #[arg(value_name = "LABELMAPS")]
    pub labelmaps: PathBuf,

    /// The labelmap to write, or the folder for the labelmaps
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// Write these labels only, by name, number or group, such as liver,spleen,ribs; all others become
    /// background
    #[arg(long, value_name = "LABELS", num_args = 1..)]
    pub labels: Vec<String>,

    #[command(flatten)]
    pub clean: CleanArgs,

    #[command(flatten)]
    pub names: NamesArgs,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet map-labels`.
#[derive(Debug, Args)]
pub struct MapLabelsArgs {
    /// A labelmap, or a folder of labelmaps
    #[arg(value_name = "LABELMAPS")]
    pub labelmaps: PathBuf,

    /// The labelmap to write, or the folder for the labelmaps
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// How labels correspond: a file, or the name of a published map, such as btcv
    #[arg(long, value_name = "MAP")]
    pub label_map: String,

    /// Which side of the map the labelmaps are on
    #[arg(long, value_enum, value_name = "SIDE", default_value_t = SideArg::Prediction)]
    pub side: SideArg,

    #[command(flatten)]
    pub names: NamesArgs,

    /// Replace existing files
    #[arg(long)]
    pub overwrite: bool,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// The sides of a label map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SideArg {
    /// Predictions, with the labels of the model
    Prediction,
    /// References, with the labels of their dataset
    Reference,
}
