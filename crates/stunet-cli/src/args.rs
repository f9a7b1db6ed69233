//! The command line as clap parses it. What each option does is decided in [`crate::commands`].

mod evaluate;
mod headers;
mod orientation;
#[cfg(test)]
mod reference;
mod train;
mod workflow;

pub use evaluate::{EvaluateArgs, Layout, SurfaceArg};
pub use headers::{ForgiveArgs, ScanArgs};
pub use orientation::OrientationArgs;
pub use train::{ExportArgs, PrecisionArg, RecipeArg, TrainArgs};
pub use workflow::{
    AccumulateArgs, ApplyArgs, DetermineArgs, EnsembleArgs, FindBestArgs, PostprocessCommand,
};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use stunet::data::geometry::Orientation;
use stunet::data::plans::Reference;
use stunet::device::SYNTAX as DEVICES;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "stunet",
    version,
    about = "Segments CT volumes with STU-Net; plans, trains and evaluates such networks as nnU-Net does",
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct LowArgs {
    /// The subcommand.
    #[command(subcommand)]
    pub command: LowCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum LowCommand {
    /// Segment one case, or every case in a folder
    #[command(after_help = PREDICT_HELP)]
    Predict(PredictArgs),
    /// Print the parameters, multiply-adds, activation memory and stages of a network
    Info(InfoArgs),
    /// Convert a PyTorch checkpoint or an nnU-Net results folder to a model folder
    Convert(ConvertArgs),
    /// List the label values and label names of a model
    Labels(LabelsArgs),
    /// List the backends in this binary and the devices that work on this machine
    Devices(DevicesArgs),
    /// Check a raw dataset and plan its training: spacing, patch size, batch size, strides, folds
    #[command(after_help = PLAN_HELP)]
    Plan(PlanArgs),
    /// Train a network on a preprocessed dataset, from scratch or from pre-trained weights
    #[command(after_help = train::TRAIN_HELP)]
    Train(Box<TrainArgs>),
    /// Export a training run as a model folder, or as a checkpoint for nnU-Net 1 or 2
    Export(ExportArgs),
    /// Preprocess the cases of a planned dataset for training
    #[command(after_help = PREPROCESS_HELP)]
    Preprocess(PreprocessArgs),
    /// Compare predicted labelmaps with reference labelmaps and write nnU-Net's summary.json
    #[command(after_help = evaluate::EVALUATE_HELP)]
    Evaluate(Box<EvaluateArgs>),
    /// Average the probabilities that several models stored, and write the labels they decide on
    #[command(after_help = workflow::ENSEMBLE_HELP)]
    Ensemble(EnsembleArgs),
    /// Determine or apply nnU-Net's postprocessing: all but the largest part of a class is removed
    #[command(subcommand)]
    Postprocess(PostprocessCommand),
    /// Gather the validation predictions of all folds in one folder and score them
    #[command(after_help = workflow::ACCUMULATE_HELP)]
    Accumulate(AccumulateArgs),
    /// Find the best of several trained models and their ensembles by cross-validation
    #[command(after_help = workflow::FIND_BEST_HELP)]
    FindBest(FindBestArgs),
}

const PLAN_HELP: &str = "\
DATASET is a folder in nnU-Net's layout: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz.
Every case is read and checked first. If a check fails, every problem is listed and nothing is written.

Examples:
  stunet plan nnUNet_raw/Dataset501_Liver
  stunet plan Dataset501_Liver -o preprocessed/Dataset501_Liver --rules v1 --memory 24";

const PREDICT_HELP: &str = "\
Examples:
  stunet predict -i ct.nii.gz -o labels.nii.gz -m base_ep4k.model
  stunet predict -i dicom_folder -o labels.nii.gz -m base_ep4k.model --series 3
  stunet predict -i imagesTs -o predicted -m base_ep4k.model --disable-tta --mode fast
  stunet predict -i imagesTs -o predicted_all -m nnUNetTrainer__nnUNetPlans__3d_fullres -f all";

const PREPROCESS_HELP: &str = "\
DATASET is the raw dataset, or the folder that `stunet plan` made for it. Every case is checked first.
Finished cases are kept as long as neither their files nor the plans change, so the same command
resumes an interrupted run. Cases are written to IDENTIFIER_stunet beside the plans; nnU-Net's own
folder, IDENTIFIER, is not touched.

Examples:
  stunet preprocess nnUNet_raw/Dataset501_Liver
  stunet preprocess nnUNet_preprocessed/Dataset501_Liver 3d_fullres --num-workers 4 --memory 16";

/// `stunet predict`.
#[derive(Debug, Args)]
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
    /// such a folder, or a model folder made by `stunet convert` or `stunet export`
    #[arg(short, long, value_name = "MODEL")]
    pub model: PathBuf,

    #[command(flatten)]
    pub scan: ScanArgs,

    #[command(flatten)]
    pub axes: OrientationArgs,

    /// Folds whose predictions are averaged: numbers, or `all` for the network trained on all cases
    /// [default: every numbered fold in the folder]
    #[arg(short, long, value_name = "FOLD", num_args = 1..)]
    pub folds: Vec<String>,

    /// File name of the checkpoint to load from every fold [default: the final one, else the best,
    /// else the latest that all folds have]
    #[arg(long, alias = "chk", value_name = "NAME")]
    pub checkpoint: Option<String>,

    /// How the prediction is resampled to the voxel grid of the input image
    #[arg(long, value_enum, default_value_t = ModeArg::Normal)]
    pub mode: ModeArg,

    /// Step between neighbouring sliding windows, as a fraction of the window size
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5, value_parser = step_size)]
    pub step_size: f64,

    /// No test-time augmentation: predict each window once, not mirrored along all axes as well; up
    /// to eight times faster, slightly less accurate
    #[arg(long)]
    pub disable_tta: bool,

    /// Also write the class probabilities, as CASE.zarr.zip or as nnU-Net's CASE.npz
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "zarr")]
    pub save_probabilities: Option<Probabilities>,

    /// Also write a confidence map with values from 0 to 255 as confidence/CASE.nii.gz, from the
    /// margin between the two most probable classes or from the entropy of all classes
    #[arg(long, value_enum, value_name = "MEASURE", num_args = 0..=1, default_missing_value = "margin")]
    pub confidence: Option<ConfidenceArg>,

    /// Memory limit of the program, such as 800M or 2G. A case that does not fit is predicted in
    /// tiles with the same labels, or rejected before the first window [default: free memory]
    #[arg(long, value_name = "BYTES", value_parser = byte_count)]
    pub max_memory: Option<u64>,

    /// Device memory for the accumulators of the sliding window, such as 8G. Accumulators in f32 that
    /// fit stay on the device, and only final rows are read back [default: accumulate on the host]
    #[arg(long, value_name = "BYTES", value_parser = byte_count)]
    pub device_memory: Option<u64>,

    /// The nnU-Net version whose arithmetic to reproduce [default: the version that made the model]
    #[arg(long, value_enum, value_name = "VERSION")]
    pub reference: Option<ReferenceArg>,

    /// Precision in which overlapping windows are summed [default: that of the nnU-Net version]
    #[arg(long, value_enum, value_name = "PRECISION")]
    pub accumulation: Option<AccumulationArg>,

    /// Device to compute on
    #[arg(long, value_name = "DEVICE", default_value = "auto", help = device_help())]
    pub device: String,

    /// Replace existing outputs. Without this option an existing output is skipped if the same
    /// program, model, settings and input made it; otherwise the case fails and the file is kept
    #[arg(long)]
    pub overwrite: bool,

    /// Divide the sorted cases of a folder into N parts and predict one of them: case I and every
    /// N-th case after it [default: read from SLURM's array variables, if set]
    #[arg(long, value_name = "N")]
    pub num_parts: Option<usize>,

    /// Index of the part to predict, from 0 [default: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX]
    #[arg(long, value_name = "I", requires = "num_parts")]
    pub part_id: Option<usize>,

    /// Write a JSON report with a summary and, per case, seconds by stage, memory, and voxels and
    /// millilitres of every label
    #[arg(long, value_name = "REPORT")]
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
    #[arg(long, value_name = "AXES", value_parser = orientation::letters)]
    pub orientation: Option<Orientation>,
}

/// `stunet labels`.
#[derive(Debug, Args)]
pub struct LabelsArgs {
    /// A model in any form that `stunet predict --model` accepts
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `stunet devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `stunet plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Folder of the raw dataset
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
    #[arg(long, value_name = "FILE")]
    pub fingerprint: Option<PathBuf>,

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
    /// Folder of the raw dataset, or the folder with its plans
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

/// The reference implementations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReferenceArg {
    /// nnU-Net 1.7.1
    V1,
    /// nnU-Net 2.2
    #[value(name = "v2.2")]
    V22,
    /// nnU-Net 2.8
    #[value(name = "v2.8")]
    V28,
}

impl From<ReferenceArg> for Reference {
    fn from(version: ReferenceArg) -> Self {
        match version {
            ReferenceArg::V1 => Self::NnUNetV1,
            ReferenceArg::V22 => Self::NnUNetV22,
            ReferenceArg::V28 => Self::NnUNetV28,
        }
    }
}

/// Precision of the sum over windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccumulationArg {
    /// Single precision
    F32,
    /// Half precision, as nnU-Net v2 does
    F16,
}

/// The published sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// 14.6 million parameters
    #[value(aliases = ["S", "s"])]
    Small,
    /// 58 million parameters
    #[value(aliases = ["B", "b"])]
    Base,
    /// 440 million parameters
    #[value(aliases = ["L", "l"])]
    Large,
    /// 1457 million parameters
    #[value(aliases = ["H", "h"])]
    Huge,
}

fn device_help() -> String {
    format!("Device to compute on: {DEVICES}")
}

fn devices_help() -> String {
    format!("{}; a list such as cuda:0,cuda:1 divides every batch among the devices", device_help())
}

/// A number of bytes: `2G`, `512M`, `1.5G`, `3000000000`; powers of 1000, as in `--memory`.
fn byte_count(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a number of bytes such as 2G or 512M, found {text:?}");
    let (number, unit) = match text.trim().trim_end_matches(['B', 'b']) {
        text if text.ends_with(['G', 'g']) => (&text[..text.len() - 1], 1e9),
        text if text.ends_with(['M', 'm']) => (&text[..text.len() - 1], 1e6),
        text => (text, 1.0),
    };
    let bytes = number.trim().parse::<f64>().map_err(|_| wrong())? * unit;
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

fn step_size(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(step) if step > 0.0 && step <= 1.0 => Ok(step),
        _ => Err("expected a number above 0 and at most 1".to_owned()),
    }
}

fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("expected a number above 0".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

/// nnU-Net's options of one dash and several letters, which clap does not support.
const SPELLINGS: [(&str, &str); 10] = [
    ("-ref", "--reference"),
    ("-plans_json", "--plans"),
    ("-dataset_json", "--dataset-json"),
    ("-pp_pkl_file", "--steps"),
    ("-tr", "--trainers"),
    ("-chk", "--checkpoint"),
    ("-djfile", "--dataset-json"),
    ("-pfile", "--plans"),
    ("-il", "--ignore-label"),
    ("-np", "--np"),
];

/// nnU-Net's spelling of an option as clap knows it.
pub fn spell_out(arg: std::ffi::OsString) -> std::ffi::OsString {
    match SPELLINGS.into_iter().find(|(short, _)| arg == *short) {
        Some((_, long)) => long.into(),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn check(line: &str, accepted: bool) {
        let words = line.split(' ').map(|word| spell_out(word.into()));
        assert_eq!(LowArgs::try_parse_from(words).is_ok(), accepted, "{line}");
    }

    #[test]
    fn grammar() {
        LowArgs::command().debug_assert();
        check("stunet predict -i a.nii.gz -o b.nii.gz -m c.model", true);
        check("stunet predict -i a.nii.gz b.nii.gz -o b -m c -f 0 1 -chk model_best", true);
        check("stunet predict -i a -o b -m c --num-parts 4 --part-id 3", true);
        check("stunet predict -i a -o b -m c --reference v2.2 --accumulation f16", true);
        check("stunet predict -i a -o b -m c --step-size 0", false);
        check("stunet predict -i a -o b -m c --step-size nan", false);
        check("stunet predict -i a -o b -m c --num-parts 4", true);
        check("stunet predict -i a -o b -m c --part-id 3", false);
        check("stunet predict -i a -o b -m c --max-memory 1.5G --confidence", true);
        check("stunet predict -i a -o b -m c --max-memory much", false);
        check("stunet predict -i a -o b -m c --save-probabilities npz", true);
        check("stunet predict -i a -o b", false);
        check("stunet predict -i a.zip -o b -m c --series 1.2.3 --allow uneven,sheared", true);
        check("stunet predict -i a b -o b -m c --each-file-is-a-case", true);
        check("stunet predict -i a -o b -m c --geometry-tolerance 0.3mm", true);
        check("stunet predict -i a -o b -m c --geometry-tolerance 0.3", false);
        check("stunet plan a --geometry-tolerance 0.3mm --allow sheared", true);
        check("stunet plan a --allow uneven", false);
        check("stunet preprocess a --geometry-tolerance 0.3mm --allow sheared", true);
        check("stunet evaluate ref pred -l 1 --geometry-tolerance 0.3mm --allow sheared", true);
        check("stunet info --size small --json", true);
        check("stunet info", false);
        check("stunet info a.model --size small", false);
        check("stunet devices", true);
        check("stunet plan raw/Dataset001_A", true);
        check("stunet plan a -o b --rules v1 --memory 24 --spacing 3 1 0.5 --json", true);
        check("stunet plan a --rules v3", false);
        check("stunet plan a --memory 0", false);
        check("stunet plan a --spacing 1 1", false);
        check("stunet plan a --json --quiet", false);
        check("stunet plan", false);
        check("stunet train D 3d_fullres 0 --size S --epochs 2 --continue", true);
        check("stunet train D 3d_fullres all --width 8,16,32,64,64,64 --depth 1", true);
        check("stunet train D 3d_fullres all --size S --width 8,16,32,64,64,64", false);
        check("stunet train D 3d_fullres 0 --depth 1", false);
        check("stunet train D 3d_fullres 0 --stem-divide", false);
        check("stunet train D 3d_fullres 0 --patch 32 32", false);
        check("stunet train D 3d_fullres", false);
        check("stunet export fold_0 model.pth", true);
        check("stunet preprocess raw/Dataset001_A", true);
        check("stunet preprocess pre/Dataset001_A 3d_lowres --raw a -np 3 --memory 4 --json", true);
        check("stunet preprocess a --num-workers 0", false);
        check("stunet preprocess a --raw b -o c", false);
        check("stunet preprocess a --json --quiet", false);
        check(
            "stunet evaluate ref pred -djfile d.json -pfile p.json -o s.json -np 8 --chill",
            true,
        );
        check("stunet evaluate ref pred -l 1 2 1,2 -il 3 --layout v1", true);
        check("stunet evaluate ref pred -il 3", false);
        check("stunet evaluate ref pred -l 1 -djfile d.json", false);
        check("stunet evaluate ref", false);
        check("stunet ensemble -i a b -o c -np 4 --save_npz", true);
        check("stunet ensemble -o c", false);
        check("stunet postprocess determine -i a -ref b -plans_json p -np 2 --layout v1", true);
        check("stunet postprocess apply -i a -o b -pp_pkl_file c -dataset_json d", true);
        check("stunet postprocess apply -i a -o b", false);
        check("stunet accumulate results -f 0 1 2 -o out", true);
        check("stunet find-best results -tr A B -p P -c 2d 3d_fullres -f 0 1", true);
    }
}
