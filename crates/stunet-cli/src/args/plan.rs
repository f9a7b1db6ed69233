//! Options of `stunet plan` and `stunet preprocess`.

use std::path::PathBuf;

use clap::Args;

use super::headers::ForgiveArgs;
use super::values::{ReferenceArg, above_zero, at_least_one};

/// Examples, below the options.
pub(super) const PLAN_HELP: &str = "\
DATASET is a folder in nnU-Net's layout: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz.
Every case is read and checked first. If a check fails, every problem is listed and nothing is written.

Examples:
  stunet plan nnUNet_raw/Dataset501_Liver
  stunet plan Dataset501_Liver -o preprocessed/Dataset501_Liver --rules v1 --memory 24";

/// Examples, below the options.
pub(super) const PREPROCESS_HELP: &str = "\
DATASET is the raw dataset, or the folder that `stunet plan` made for it. Every case is checked first.
Finished cases are kept as long as neither their files nor the plans change, so the same command
resumes an interrupted run. Cases are written to IDENTIFIER_stunet beside the plans; nnU-Net's own
folder, IDENTIFIER, is not touched.

Examples:
  stunet preprocess nnUNet_raw/Dataset501_Liver
  stunet preprocess nnUNet_preprocessed/Dataset501_Liver 3d_fullres --num-workers 4 --memory 16";

/// `stunet plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Folder of the raw dataset, or its name or number
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// Folder for the plans [default: nnUNet_preprocessed/DATASET beside nnUNet_raw, or beside the
    /// dataset]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,

    /// The nnU-Net version whose planning rules and file formats are used
    #[arg(long, value_enum, value_name = "VERSION", default_value_t = ReferenceArg::V28)]
    pub rules: ReferenceArg,

    /// GPU memory to plan for, by nnU-Net's own estimate for its plain U-Net
    #[arg(long, value_name = "GB", default_value_t = 8.0, value_parser = above_zero)]
    pub memory: f64,

    /// Target spacing in mm (z y x) instead of the planned one
    #[arg(long, num_args = 3, value_names = ["Z", "Y", "X"], value_parser = above_zero)]
    pub spacing: Option<Vec<f64>>,

    #[command(flatten)]
    pub forgive: ForgiveArgs,

    /// Name of the plans and of their file (nnU-Net 2)
    #[arg(long, value_name = "NAME", default_value = "nnUNetPlans")]
    pub plans_name: String,

    /// Use this dataset_fingerprint.json (nnU-Net 2) instead of reading the volumes
    #[arg(long, value_name = "FILE", conflicts_with = "leave_out_ignored")]
    pub fingerprint: Option<PathBuf>,

    /// Leave voxels of the ignore label out of the intensities of the foreground; nnU-Net counts them
    #[arg(long)]
    pub leave_out_ignored: bool,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,

    /// Print errors only
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// `stunet preprocess`.
#[derive(Debug, Args)]
pub struct PreprocessArgs {
    /// Folder of the raw dataset, or the folder with its plans; or the dataset's name or number
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// Configuration in the plans, such as 3d_fullres
    #[arg(value_name = "CONFIG", default_value = "3d_fullres")]
    pub configuration: String,

    /// Folder that holds the plans and receives the cases [default: nnUNet_preprocessed/DATASET
    /// beside nnUNet_raw, or beside the dataset]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,

    /// Folder of the raw dataset, if DATASET is the folder with the plans [default: the same name in
    /// nnUNet_raw beside nnUNet_preprocessed]
    #[arg(long, value_name = "FOLDER", conflicts_with = "output")]
    pub raw: Option<PathBuf>,

    #[command(flatten)]
    pub forgive: ForgiveArgs,

    /// Name of the plans and of their file [default: nnUNetPlans, else the plans of nnU-Net 1]
    #[arg(long, value_name = "NAME")]
    pub plans: Option<String>,

    /// Number of cases processed at the same time [default: one per processor]
    #[arg(short, long, alias = "np", value_name = "N", value_parser = at_least_one)]
    pub num_workers: Option<usize>,

    /// Memory for all cases processed at the same time [default: half of the free memory]
    #[arg(long, value_name = "GB", value_parser = above_zero)]
    pub memory: Option<f64>,

    /// Preprocess finished cases again
    #[arg(long)]
    pub redo: bool,

    /// Skip the check of the whole dataset at the beginning; each case is checked when it is read
    #[arg(long)]
    pub no_check: bool,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,

    /// Print errors only
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// Examples, below the options.
pub(super) const IMPORT_HELP: &str = "\
Files of several channels are split into one for each channel, voxels unchanged; what nnU-Net 1 has is
copied. dataset.json is written last: without it the folder is no dataset, and the same command goes on.

Example:
  stunet import Task09_Spleen -o nnUNet_raw/Dataset009_Spleen";

/// `stunet import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Folder of a dataset of the Medical Segmentation Decathlon or of nnU-Net 1, such as Task09_Spleen
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// The folder to write [default: DatasetNNN_NAME in the folder of the variable nnUNet_raw]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,

    /// Number of the new dataset [default: that of the folder's name]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=999))]
    pub number: Option<u32>,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}
