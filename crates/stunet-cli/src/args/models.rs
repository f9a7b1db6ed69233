//! Options of the commands about models and devices: `info`, `convert`, `labels`, `devices`, `verify`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stunet::data::geometry::Orientation;

use super::orientation::letters;
use super::values::{Size, device_help};

/// Examples, below the options.
pub(super) const VERIFY_HELP: &str = "\
A built-in case is computed stage by stage: every operator forward and backward, a small network, losses,
the optimiser, sliding windows, the way from an image to labels on its grid and to a file. Every stage has
inputs of its own and is compared with values that are part of the program, so that the first one that
differs is where the fault is. The verdict is kept for the device, its driver and this version of the program
(in STUNET_CACHE, else in ~/.cache/stunet); `stunet predict` and `stunet train` do not use a device that
failed, unless told to by --unverified-device.

Examples:
  stunet verify
  stunet verify --device vulkan:1
  stunet verify --device cuda --precision bf16 --json";

/// `stunet info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// A model in any form that `stunet predict --model` accepts
    #[arg(value_name = "MODEL", required_unless_present = "size", conflicts_with = "size")]
    pub model: Option<PathBuf>,

    /// Describe one of the published sizes instead of a model
    #[arg(long, value_enum)]
    pub size: Option<Size>,

    /// Number of input channels, with --size
    #[arg(long, value_name = "N", default_value_t = 1, requires = "size")]
    pub channels: usize,

    /// Number of classes including background, with --size
    #[arg(long, value_name = "N", default_value_t = 105, requires = "size")]
    pub classes: usize,

    /// Input size in voxels (z y x) for which the cost is computed [default: the model's patch size,
    /// or 128 128 128]
    #[arg(long, num_args = 3, value_names = ["Z", "Y", "X"])]
    pub patch: Option<Vec<usize>>,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `stunet convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// A `.model` file, or an nnU-Net results folder (v1 or v2)
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// The model folder to create; it must be new or empty
    #[arg(value_name = "OUT")]
    pub output: PathBuf,

    /// The fold to convert
    #[arg(short, long, value_name = "FOLD")]
    pub fold: Option<String>,

    /// File name of the checkpoint within the fold
    #[arg(long, alias = "chk", value_name = "NAME")]
    pub checkpoint: Option<String>,

    /// Store the weights in half precision (rounded): half the file size
    #[arg(long)]
    pub half: bool,

    /// Note in the model folder how the axes of its training images ran, such as RAS, for a model that
    /// does not say it
    #[arg(long, value_name = "AXES", value_parser = letters)]
    pub orientation: Option<Orientation>,
}

/// `stunet labels`.
#[derive(Debug, Args)]
pub struct LabelsArgs {
    /// A model in any form that `stunet predict --model` accepts
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// Print JSON instead of text
    #[arg(long, conflicts_with_all = ["slicer", "itk_snap"])]
    pub json: bool,

    /// Print a colour table for 3-D Slicer (.ctbl) instead
    #[arg(long, conflicts_with = "itk_snap")]
    pub slicer: bool,

    /// Print label descriptions with colours for ITK-SNAP (.txt) instead
    #[arg(long)]
    pub itk_snap: bool,
}

/// `stunet devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `stunet verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Device to verify
    #[arg(long, value_name = "DEVICE", default_value = "auto", help = device_help())]
    pub device: String,

    /// Precision in which values are stored; in half precision only the operators are verified
    #[arg(long, value_enum, value_name = "PRECISION", default_value_t = StorageArg::F32)]
    pub precision: StorageArg,

    /// A stage whose inputs are to be wrong: for tests of what becomes of it
    #[arg(long, value_name = "STAGE", hide = true)]
    pub fault: Option<String>,

    /// Keep neither the verdict nor compiled kernels
    #[arg(long)]
    pub no_cache: bool,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,

    /// Print only stages that fail
    #[arg(short, long)]
    pub quiet: bool,
}

/// Precision of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageArg {
    /// Single precision
    F32,
    /// Half precision
    F16,
    /// bfloat16
    Bf16,
}

/// `stunet install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// A zip file of trained models, as `nnUNetv2_export_model_to_zip` or `stunet export` makes it, of
    /// nnU-Net 1 or 2
    #[arg(value_name = "ZIP")]
    pub archive: PathBuf,

    /// The folder of all results that receives them [default: the variable nnUNet_results; for models of
    /// nnU-Net 1 RESULTS_FOLDER]
    #[arg(short, long, value_name = "RESULTS")]
    pub output: Option<PathBuf>,

    /// Replace files of models that are there
    #[arg(long)]
    pub overwrite: bool,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}
