//! Options of `stunet evaluate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stunet::data::components::Connectivity;

use super::headers::ForgiveArgs;
use super::values::{at_least_one, share};

/// Examples, below the options.
pub(super) const EVALUATE_HELP: &str = "\
The labels or regions to compare are those of a dataset.json (default: the one in PRED, or beside REF),
those given with --labels, or those of a label map. Undefined scores are written as NaN, as nnU-Net
writes and reads them.

Examples:
  stunet evaluate labelsTs predicted --dataset-json nnUNet_raw/Dataset501_Liver/dataset.json
  stunet evaluate labelsTs predicted --labels 1 2 3 1,2,3 --ignore-label 4 --chill
  stunet evaluate labelsTs/liver_001.nii.gz predicted/liver_001.nii.gz --labels 1 2 3
  stunet evaluate labelsTs predicted --report scores --tolerance 1 3
  stunet evaluate labelsTs predicted --report scores --compare predicted_by_another_model
  stunet evaluate BTCV/labelsTr predicted --label-map btcv";

const SURFACES: &str = "Surfaces";
const LESIONS: &str = "Lesions";
const REPORT: &str = "Report and comparison";

/// `stunet evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Folder of the reference labelmaps, or one labelmap
    #[arg(value_name = "REF")]
    pub reference: PathBuf,

    /// Folder of the predicted labelmaps, or one labelmap
    #[arg(value_name = "PRED")]
    pub prediction: PathBuf,

    /// The file to write [default: summary.json in PRED, if PRED is a folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// dataset.json with the labels or regions to compare (nnU-Net's -djfile)
    #[arg(long, alias = "djfile", value_name = "FILE", conflicts_with = "labels")]
    pub dataset_json: Option<PathBuf>,

    /// plans.json of the model (nnU-Net's -pfile); used only to check that the plans name nnU-Net's
    /// standard label manager
    #[arg(long, alias = "pfile", value_name = "FILE")]
    pub plans: Option<PathBuf>,

    /// Labels (such as 3) and regions (such as 1,2,3) to compare
    #[arg(short, long, value_name = "CLASS", num_args = 1..)]
    pub labels: Vec<String>,

    /// Exclude voxels that have this value in the reference
    #[arg(long, value_name = "VALUE", requires = "labels")]
    pub ignore_label: Option<u16>,

    #[command(flatten)]
    pub forgive: ForgiveArgs,

    /// Compare labels of different datasets: a file that says which mean the same, or the name of a
    /// published map, such as btcv
    #[arg(long, value_name = "MAP", conflicts_with_all = ["labels", "ignore_label"])]
    pub label_map: Option<String>,

    /// Measure the distances of surfaces: HD, HD95, ASSD, and NSD at each tolerance
    #[arg(help_heading = SURFACES, long)]
    pub surface: bool,

    /// Tolerances of the NSD in mm
    #[arg(help_heading = SURFACES, long, value_name = "MM", num_args = 1.., value_parser = length_mm, allow_negative_numbers = true, default_values_t = [1.0, 2.0])]
    pub tolerance: Vec<f64>,

    /// Where a surface is, for HD, HD95 and ASSD
    #[arg(help_heading = SURFACES, long, value_enum, value_name = "KIND", default_value_t = SurfaceArg::Voxels)]
    pub surface_points: SurfaceArg,

    /// Count lesions: connected parts of the reference that are found, and of the prediction that are
    /// right
    #[arg(help_heading = LESIONS, long)]
    pub lesions: bool,

    /// How many neighbours of a voxel belong to its lesion: 6, 18 or 26
    #[arg(help_heading = LESIONS, long, value_name = "COUNT", value_parser = connectivity, default_value = "26")]
    pub connectivity: Connectivity,

    /// Part of a lesion, from 0 to 1, that must be covered for it to be found [default: one voxel]
    #[arg(help_heading = LESIONS, long, value_name = "PART", value_parser = share, allow_negative_numbers = true, default_value_t = 0.0, hide_default_value = true)]
    pub lesion_overlap: f64,

    /// Write cases.csv, means.csv, metrics.json and report.html to this folder, with surfaces and
    /// lesions
    #[arg(help_heading = REPORT, long, value_name = "FOLDER")]
    pub report: Option<PathBuf>,

    /// Predictions of another model for the same references, to compare with
    #[arg(help_heading = REPORT, long, value_name = "PRED2")]
    pub compare: Option<PathBuf>,

    /// How often cases are drawn for the intervals of the means
    #[arg(help_heading = REPORT, long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub bootstrap: u32,

    /// Seed of those draws
    #[arg(help_heading = REPORT, long, value_name = "SEED", default_value_t = 0)]
    pub seed: u64,

    /// Skip references that have no prediction instead of stopping with an error
    #[arg(long)]
    pub chill: bool,

    /// The nnU-Net version whose summary.json layout is written
    #[arg(long, value_enum, value_name = "VERSION", default_value_t = Layout::V2)]
    pub layout: Layout,

    /// Number of cases read at the same time [default: one per processor]
    #[arg(short, long, alias = "np", value_name = "N", value_parser = at_least_one)]
    pub num_threads: Option<usize>,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// The layouts of summary.json.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// nnU-Net 1: thirteen scores
    V1,
    /// nnU-Net 2: eight scores and their mean over the foreground
    V2,
}

/// Where a surface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SurfaceArg {
    /// At the centres of the outermost voxels, as in MedPy
    Voxels,
    /// Between voxels, weighted by area, as in DeepMind's surface-distance
    Surfels,
}

fn length_mm(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|mm: &f64| mm.is_finite() && *mm >= 0.0);
    found.ok_or_else(|| "expected a length in mm of at least 0".to_owned())
}

fn connectivity(text: &str) -> Result<Connectivity, String> {
    let found = text.parse().ok().and_then(Connectivity::of_neighbours);
    found.ok_or_else(|| "expected 6, 18 or 26".to_owned())
}
