//! Options of `stunet predict`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::finish::FinishArgs;
use super::formats::FormatArgs;
use super::headers::ScanArgs;
use super::orientation::OrientationArgs;
use super::pictures::PictureArgs;
use super::region::RegionArgs;
use super::values::{ReferenceArg, byte_count, device_help, seconds, step_size};

/// Examples, below the options.
pub(super) const PREDICT_HELP: &str = "\
Examples:
  stunet predict -i ct.nii.gz -o labels.nii.gz -m base_ep4k.model
  stunet predict -i dicom_folder -o labels.nii.gz -m base_ep4k.model --series 3
  stunet predict -i dicom_folder -o out -m base_ep4k.model --format nifti,dicom-seg,rtstruct
  stunet predict -i imagesTs -o predicted -m base_ep4k.model --disable-tta --mode fast
  stunet predict -i imagesTs -o drawn -m base_ep4k.model --preview --report drawn.html
  stunet predict -i imagesTs -o predicted_all -m nnUNetTrainer__nnUNetPlans__3d_fullres -f all";

const MODEL: &str = "Which networks";
const WINDOWS: &str = "Speed and accuracy";
const MORE: &str = "More outputs";
const DEVICE: &str = "Device and memory";
const PARTS: &str = "Parts of a cluster's job";

/// `stunet predict`.
#[derive(Clone, Debug, Args)]
pub struct PredictArgs {
    /// One file (NIfTI, MetaImage, NRRD), the channel files of one case, a folder of CASE_0000.nii.gz
    /// files, or DICOM: folders, zip archives, files of many frames
    #[arg(short, long, value_name = "IN", num_args = 1.., required = true)]
    pub input: Vec<PathBuf>,

    /// The labelmap to write (.nii.gz, .nii, .mha, .mhd, .nrrd, .nhdr), or a folder that receives one
    /// per case, in the format of its scan
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// A `.model` file, a results folder of nnU-Net v1, nnU-Net v2 or `stunet train`, one fold of
    /// such a folder, a model folder made by `stunet convert` or `stunet export`, or the name of
    /// weights from `stunet download`: small, base, large, huge
    #[arg(short, long, value_name = "MODEL")]
    pub model: PathBuf,

    #[command(flatten)]
    pub scan: ScanArgs,

    #[command(flatten)]
    pub axes: OrientationArgs,

    #[command(flatten)]
    pub formats: FormatArgs,

    /// Folds whose predictions are averaged: numbers, or `all` for the network trained on all cases
    /// [default: every numbered fold in the folder]
    #[arg(help_heading = MODEL, short, long, value_name = "FOLD", num_args = 1..)]
    pub folds: Vec<String>,

    /// File name of the checkpoint to load from every fold [default: the final one, else the best,
    /// else the latest that all folds have]
    #[arg(help_heading = MODEL, long, alias = "chk", value_name = "NAME")]
    pub checkpoint: Option<String>,

    /// How the prediction is resampled to the voxel grid of the input image
    #[arg(help_heading = WINDOWS, long, value_enum, default_value_t = ModeArg::Normal)]
    pub mode: ModeArg,

    /// Step between neighbouring sliding windows, as a fraction of the window size
    #[arg(help_heading = WINDOWS, long, value_name = "FRACTION", default_value_t = 0.5, value_parser = step_size)]
    pub step_size: f64,

    /// No test-time augmentation: predict each window once, not mirrored along all axes as well; up
    /// to eight times faster, slightly less accurate
    #[arg(help_heading = WINDOWS, long)]
    pub disable_tta: bool,

    /// Time for each case, such as 60s or 2min: the step between windows and the mirroring are chosen
    /// for it by the speed that is measured, from the settings above downwards
    #[arg(help_heading = WINDOWS, long, value_name = "TIME", value_parser = seconds)]
    pub time_budget: Option<f64>,

    /// With --time-budget: models of the same labels, the largest first. Where even the fastest
    /// settings of --model are too slow for the largest case, all cases are predicted with the first
    /// of these that is fast enough
    #[arg(help_heading = WINDOWS, long, value_name = "MODEL", value_delimiter = ',', num_args = 1.., requires = "time_budget", conflicts_with = "crop_to")]
    pub smaller_models: Vec<PathBuf>,

    /// Also write the class probabilities, as CASE.zarr.zip or as nnU-Net's CASE.npz
    #[arg(help_heading = MORE, long, value_enum, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "zarr")]
    pub save_probabilities: Option<Probabilities>,

    /// Also write a confidence map with values from 0 to 255 as confidence/CASE.nii.gz, from the
    /// margin between the two most probable classes or from the entropy of all classes
    #[arg(help_heading = MORE, long, value_enum, value_name = "MEASURE", num_args = 0..=1, default_missing_value = "margin")]
    pub confidence: Option<ConfidenceArg>,

    /// Leave out dataset.json, plans.json and predict_from_raw_data_args.json, which are written beside
    /// the labelmaps of a folder of cases as nnU-Net does, for its commands and `stunet evaluate`,
    /// `ensemble` and `postprocess`
    #[arg(help_heading = MORE, long)]
    pub no_plans: bool,

    #[command(flatten)]
    pub pictures: PictureArgs,

    #[command(flatten)]
    pub region: RegionArgs,

    #[command(flatten)]
    pub finish: FinishArgs,

    /// Memory limit of the program, such as 800M or 2G. A case that does not fit is predicted in
    /// tiles with the same labels, or rejected before the first window [default: free memory]
    #[arg(help_heading = DEVICE, long, value_name = "BYTES", value_parser = byte_count)]
    pub max_memory: Option<u64>,

    /// Device memory beside the network, such as 8G: for the accumulators of the sliding window and, where more is
    /// left, a second window at a time; 0 accumulates on the host. Accumulators in f32 stay on the device, as a whole or in
    /// tiles, and only labels or final rows are read back [default: what a GPU has beside the network, by what its driver tells]
    #[arg(help_heading = DEVICE, long, value_name = "BYTES", value_parser = byte_count)]
    pub device_memory: Option<u64>,

    /// The nnU-Net version whose arithmetic to reproduce [default: the version that made the model]
    #[arg(help_heading = MODEL, long, value_enum, value_name = "VERSION")]
    pub reference: Option<ReferenceArg>,

    /// Precision in which overlapping windows are summed [default: that of the nnU-Net version]
    #[arg(help_heading = WINDOWS, long, value_enum, value_name = "PRECISION")]
    pub accumulation: Option<AccumulationArg>,

    /// Precision of the network's convolutions. int8 is faster on processors with AVX-512 VNNI, most for STU-Net S, and an
    /// approximation: some voxels get other labels. For STU-Net on the processor
    #[arg(help_heading = WINDOWS, long, value_enum, value_name = "PRECISION", default_value = "f32")]
    pub precision: NetworkPrecisionArg,

    /// Compute the network's last layer for every window and every mirrored pass, as nnU-Net does, and not once
    /// from averaged feature maps. Only averages of logits in f32 on the processor are affected: slower, and
    /// the same logits but for rounding
    #[arg(help_heading = WINDOWS, long)]
    pub head_per_window: bool,

    /// Device to compute on
    #[arg(help_heading = DEVICE, long, value_name = "DEVICE", default_value = "auto", help = device_help())]
    pub device: String,

    /// Compute on a device that `stunet verify` found to compute something else
    #[arg(help_heading = DEVICE, long)]
    pub unverified_device: bool,

    /// Compile the kernels of a GPU anew, and do not keep them
    #[arg(help_heading = DEVICE, long)]
    pub no_cache: bool,

    /// Replace existing outputs. Without this option an existing output is skipped if the same
    /// program, model, settings and input made it; otherwise the case fails and the file is kept
    #[arg(long)]
    pub overwrite: bool,

    /// Divide the sorted cases of a folder into N parts and predict one of them: case I and every
    /// N-th case after it [default: read from SLURM's array variables, if set]
    #[arg(help_heading = PARTS, long, value_name = "N")]
    pub num_parts: Option<usize>,

    /// Index of the part to predict, from 0 [default: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX]
    #[arg(help_heading = PARTS, long, value_name = "I", requires = "num_parts")]
    pub part_id: Option<usize>,

    /// Write a JSON report with a summary and, per case, seconds by stage, memory, and voxels and
    /// millilitres of every label
    #[arg(help_heading = MORE, long, value_name = "REPORT")]
    pub json: Option<PathBuf>,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// How probabilities are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probabilities {
    /// A Zarr array in a zip archive, written in chunks
    Zarr,
    /// A NumPy array, as nnU-Net writes it
    Npz,
}

/// Measures of confidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfidenceArg {
    /// Probability of the most probable class minus that of the second
    Margin,
    /// One minus the entropy of all classes divided by its maximum
    Entropy,
}

/// nnU-Net's modes of export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Resample the probabilities, then take the most probable class
    Normal,
    /// Take the most probable class, then resample the labels by linear interpolation
    Fast,
    /// Take the most probable class, then resample the labels by nearest neighbour
    Fastest,
}

/// Precision of the network's convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkPrecisionArg {
    /// Single precision
    F32,
    /// Integers of eight bits
    Int8,
}

/// Precision of the sum over windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccumulationArg {
    /// Single precision
    F32,
    /// Half precision, as nnU-Net v2 does
    F16,
}
