//! What was typed. What it means is decided in [`crate::commands`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use stunet::device::SYNTAX as DEVICES;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "stunet",
    version,
    about = "Segments medical volumes with STU-Net: a CT in, labels out, the voxels of the reference",
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct LowArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LowCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum LowCommand {
    /// Segment one case, or every case of a folder
    #[command(after_help = PREDICT_HELP)]
    Predict(PredictArgs),
    /// Say what a network is and costs: parameters, multiply-adds, activation memory, stages
    Info(InfoArgs),
    /// Turn a PyTorch checkpoint or results folder into a model folder of this program
    Convert(ConvertArgs),
    /// List a model's label values and names
    Labels(LabelsArgs),
    /// List the devices: what this binary was built with, and what is usable here
    Devices(DevicesArgs),
    /// Train a network on a preprocessed dataset, from scratch or from pre-trained weights
    #[command(after_help = TRAIN_HELP)]
    Train(TrainArgs),
    /// Write a training run's weights for others: a model folder, nnU-Net's .model or .pth
    Export(ExportArgs),
}

const PREDICT_HELP: &str = "\
Examples:
  stunet predict -i ct.nii.gz -o labels.nii.gz -m base_ep4k.model
  stunet predict -i imagesTs -o labelsTs -m base_ep4k.model --disable-tta --mode fast
  stunet predict -i imagesTs -o labelsTs -m nnUNetTrainer__nnUNetPlans__3d_fullres -f all";

const TRAIN_HELP: &str = "\
Examples:
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres 0 --size B
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres all --pretrained base_ep4k.model
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres 0 --size B --continue

The run's files go to nnUNet_results/DATASET/TRAINER__PLANS__CONFIG/fold_FOLD.";

/// `stunet predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// One NIfTI file, the channel files of one case, or a folder of CASE_0000.nii.gz files
    #[arg(short, long, value_name = "IN", num_args = 1.., required = true)]
    pub input: Vec<PathBuf>,

    /// The labelmap to write (.nii, .nii.gz), or a folder for CASE.nii.gz
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// A `.model` file, an nnU-Net results folder (v1 or v2), or a model folder of this program
    #[arg(short, long, value_name = "MODEL")]
    pub model: PathBuf,

    /// Folds to average: numbers, or `all` for the fold trained on all cases; default: every
    /// numbered fold there is
    #[arg(short, long, value_name = "FOLD", num_args = 1..)]
    pub folds: Vec<String>,

    /// Checkpoint of each fold, by its file name
    #[arg(long, alias = "chk", value_name = "NAME")]
    pub checkpoint: Option<String>,

    /// How the labels return to the image's own grid
    #[arg(long, value_enum, default_value_t = Mode::Normal)]
    pub mode: Mode,

    /// Distance of neighbouring windows, as a fraction of the window
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5, value_parser = step_size)]
    pub step_size: f64,

    /// Do not average over mirrored windows: eight times faster, a little less accurate
    #[arg(long)]
    pub disable_tta: bool,

    /// Also write the class probabilities, as CASE.npz
    #[arg(long)]
    pub save_probabilities: bool,

    /// The implementation whose arithmetic to follow; default: the one that wrote the model
    #[arg(long, value_enum, value_name = "VERSION")]
    pub reference: Option<Reference>,

    /// Precision in which overlapping windows are summed; default: the reference's
    #[arg(long, value_enum, value_name = "PRECISION")]
    pub accumulation: Option<Accumulation>,

    /// Where to compute
    #[arg(long, value_name = "DEVICE", default_value = "auto", help = device_help())]
    pub device: String,

    /// Write outputs that exist already, instead of skipping their cases
    #[arg(long)]
    pub overwrite: bool,

    /// Take part I of N of the sorted cases: the I-th and every N-th after it
    #[arg(long, value_name = "N", default_value_t = 1, requires = "part_id")]
    pub num_parts: usize,

    /// Which part, from 0
    #[arg(long, value_name = "I", default_value_t = 0, requires = "num_parts")]
    pub part_id: usize,

    /// Write a report of every case: seconds, windows, voxels and millilitres of every label
    #[arg(long, value_name = "REPORT")]
    pub json: Option<PathBuf>,

    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// A model in any of the forms that `predict` takes
    #[arg(value_name = "MODEL", required_unless_present = "size", conflicts_with = "size")]
    pub model: Option<PathBuf>,

    /// A published size instead of a model
    #[arg(long, value_enum)]
    pub size: Option<Size>,

    /// Input channels of that size
    #[arg(long, value_name = "N", default_value_t = 1, requires = "size")]
    pub channels: usize,

    /// Classes of that size, background included
    #[arg(long, value_name = "N", default_value_t = 105, requires = "size")]
    pub classes: usize,

    /// Input size to count for, z y x in voxels; default: the model's patch, or 128 128 128
    #[arg(long, num_args = 3, value_names = ["Z", "Y", "X"])]
    pub patch: Option<Vec<usize>>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `stunet convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// A `.model` file, or an nnU-Net results folder (v1 or v2)
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// The folder to make; it must not exist, or be empty
    #[arg(value_name = "OUT")]
    pub output: PathBuf,

    /// The fold to take
    #[arg(short, long, value_name = "FOLD")]
    pub fold: Option<String>,

    /// Its checkpoint, by its file name
    #[arg(long, alias = "chk", value_name = "NAME")]
    pub checkpoint: Option<String>,

    /// Store the weights in half precision: half the size, rounded once
    #[arg(long)]
    pub half: bool,
}

/// `stunet labels`.
#[derive(Debug, Args)]
pub struct LabelsArgs {
    /// A model in any of the forms that `predict` takes
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `stunet devices`.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `stunet train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The folder that `stunet plan` and `stunet preprocess` made for the dataset
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// Configuration of its plans, such as 3d_fullres
    #[arg(value_name = "CONFIG")]
    pub configuration: String,

    /// The fold to train: a number, or `all` to train on every case
    #[arg(value_name = "FOLD")]
    pub fold: String,

    /// Published size; default: that of the pre-trained weights, else small
    #[arg(long, value_enum, conflicts_with_all = ["width", "depth"])]
    pub size: Option<Size>,

    /// Features of the six stages instead of a published size
    #[arg(long, value_name = "N,N,N,N,N,N", value_delimiter = ',')]
    pub width: Option<Vec<usize>>,

    /// Blocks per stage, with --width: one number, or one for each of the six stages
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "width")]
    pub depth: Option<Vec<usize>>,

    /// Begin with these weights, heads excepted: a .model, a .pth, a model folder, or a checkpoint
    #[arg(long, value_name = "FILE")]
    pub pretrained: Option<PathBuf>,

    /// Divide the repeated first convolutions by the number of input channels
    #[arg(long, requires = "pretrained")]
    pub stem_divide: bool,

    /// Epochs; default: 1000
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,

    /// Updates per epoch; default: 250
    #[arg(long, value_name = "N")]
    pub iterations: Option<usize>,

    /// Validation batches per epoch; default: 50 with nnU-Net 2's recipe, 1 with STU-Net's of v1
    #[arg(long, value_name = "N")]
    pub val_iterations: Option<usize>,

    /// Learning rate of the first epoch; default: 0.01, with --pretrained 0.001
    #[arg(long)]
    pub lr: Option<f64>,

    /// Patches per batch; default: the plans'
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,

    /// Patch size, z y x in voxels; default: the plans'
    #[arg(long, num_args = 3, value_names = ["Z", "Y", "X"])]
    pub patch: Option<Vec<usize>>,

    /// Whose loss, augmentation and initial weights; default: of whatever wrote the plans
    #[arg(long, value_enum, value_name = "VERSION")]
    pub recipe: Option<Recipe>,

    /// Train without augmentation
    #[arg(long)]
    pub no_augmentation: bool,

    /// Batches whose gradients make up one update; default: 1
    #[arg(long, value_name = "N")]
    pub accumulate: Option<usize>,

    /// Keep a moving average of the weights with this decay, such as 0.999
    #[arg(long, value_name = "DECAY")]
    pub ema: Option<f64>,

    /// Seed of initial weights, patches and augmentation; default: 12345
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Precision of the network; the weights stay f32
    #[arg(long, value_enum, value_name = "PRECISION")]
    pub precision: Option<TrainPrecision>,

    /// Keep fewer activations and compute the others twice: less memory, more time
    #[arg(long)]
    pub checkpoint_activations: bool,

    /// Go on from the newest checkpoint; settings come from it
    #[arg(long = "continue")]
    pub go_on: bool,

    /// Epochs between two checkpoints
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub save_every: usize,

    /// Where results go; default: nnUNet_results beside nnUNet_preprocessed
    #[arg(short, long, value_name = "RESULTS")]
    pub output: Option<PathBuf>,

    /// The raw dataset for the final validation; default: the same name in nnUNet_raw beside
    /// nnUNet_preprocessed
    #[arg(long, value_name = "FOLDER")]
    pub raw: Option<PathBuf>,

    /// Leave out the final validation on whole volumes
    #[arg(long)]
    pub no_validation: bool,

    /// Identifier of the plans
    #[arg(long, value_name = "NAME", default_value = "nnUNetPlans")]
    pub plans: String,

    /// Where to compute
    #[arg(long, value_name = "DEVICE", default_value = "auto", help = device_help())]
    pub device: String,

    /// Threads that cut and augment patches; default: one per core
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Print one JSON object per epoch instead of words
    #[arg(long)]
    pub json: bool,

    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A fold's folder, or one of its checkpoints
    #[arg(value_name = "RUN")]
    pub run: PathBuf,

    /// FILE.model for nnU-Net 1, FILE.pth for nnU-Net 2, otherwise a model folder to make
    #[arg(value_name = "OUT")]
    pub output: PathBuf,

    /// The checkpoint of a fold's folder; default: the final one, else the newest
    #[arg(long, alias = "chk", value_name = "NAME")]
    pub checkpoint: Option<String>,

    /// The weights themselves, where their moving average was kept
    #[arg(long)]
    pub no_ema: bool,

    /// Store a model folder's weights in half precision
    #[arg(long)]
    pub half: bool,
}

/// The two trainers of STU-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// For nnU-Net 1.7
    V1,
    /// For nnU-Net 2
    V2,
}

/// Precision of the network in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainPrecision {
    /// Single precision
    F32,
    /// bfloat16
    Bf16,
    /// Half precision, with a scaled loss
    F16,
}

/// nnU-Net's modes of export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Resample the probabilities, then take the largest
    Normal,
    /// Take the largest, then resample the labels smoothly
    Fast,
    /// Take the largest, then resample the labels to the nearest
    Fastest,
}

/// The reference implementations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reference {
    /// nnU-Net 1.7.1
    V1,
    /// nnU-Net 2.2
    #[value(name = "v2.2")]
    V22,
    /// nnU-Net 2.8
    #[value(name = "v2.8")]
    V28,
}

/// Precision of the sum over windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accumulation {
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
    /// 58 million
    #[value(aliases = ["B", "b"])]
    Base,
    /// 440 million
    #[value(aliases = ["L", "l"])]
    Large,
    /// 1457 million
    #[value(aliases = ["H", "h"])]
    Huge,
}

fn device_help() -> String {
    format!("Where to compute: {DEVICES}")
}

fn step_size(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(step) if step > 0.0 && step <= 1.0 => Ok(step),
        _ => Err("expected a number above 0 and at most 1".to_owned()),
    }
}

/// `-chk` is how nnU-Net spells it; clap knows one-letter words and `--words` only.
pub fn spell_out(arg: std::ffi::OsString) -> std::ffi::OsString {
    if arg == "-chk" { "--checkpoint".into() } else { arg }
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
        check("stunet predict -i a -o b -m c --num-parts 4", false);
        check("stunet predict -i a -o b", false);
        check("stunet info --size small --json", true);
        check("stunet info", false);
        check("stunet info a.model --size small", false);
        check("stunet devices", true);
        check("stunet train D 3d_fullres 0 --size S --epochs 2 --continue", true);
        check("stunet train D 3d_fullres all --width 8,16,32,64,64,64 --depth 1", true);
        check("stunet train D 3d_fullres all --size S --width 8,16,32,64,64,64", false);
        check("stunet train D 3d_fullres 0 --depth 1", false);
        check("stunet train D 3d_fullres 0 --stem-divide", false);
        check("stunet train D 3d_fullres 0 --patch 32 32", false);
        check("stunet train D 3d_fullres", false);
        check("stunet export fold_0 model.pth", true);
    }
}
