//! Options of `stunet demo` and `stunet phantom`.

use std::path::PathBuf;

use clap::Args;

use super::values::{at_least_one, device_help};

/// Examples, below the options.
pub(super) const DEMO_HELP: &str = "\
The CT is synthetic: no one has seen it before, and its true labels are known. The model is small and was
trained on such CTs only: it is of no use for patients.

Examples:
  stunet demo
  stunet demo first_try --seed 7";

/// Examples, below the options.
pub(super) const PHANTOM_HELP: &str = "\
Examples:
  stunet phantom nnUNet_raw/Dataset501_Phantoms --cases 6 --spacing 4mm
  stunet plan nnUNet_raw/Dataset501_Phantoms";

/// `stunet demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for the CT, its labels, its true labels and the picture
    #[arg(value_name = "DIR", default_value = "stunet_demo")]
    pub folder: PathBuf,

    /// Seed of the CT [default: one from the clock]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,

    /// Device to compute on
    #[arg(long, value_name = "DEVICE", default_value = "auto", help = device_help())]
    pub device: String,

    /// Replace existing files
    #[arg(long)]
    pub overwrite: bool,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet phantom`.
#[derive(Debug, Args)]
pub struct PhantomArgs {
    /// Folder of the dataset, new or empty, such as nnUNet_raw/Dataset501_Phantoms
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,

    /// Number of cases
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = at_least_one)]
    pub cases: usize,

    /// Seed of the first case; the others follow
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,

    /// Size of the voxels, at least 1mm
    #[arg(long, value_name = "LENGTH", default_value = "4mm", value_parser = super::headers::millimetres)]
    pub spacing: f64,

    /// Structures to label, such as liver,spleen [default: all fourteen]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub structures: Vec<String>,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}
