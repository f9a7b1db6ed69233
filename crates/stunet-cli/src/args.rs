//! What was typed. What it means is decided in [`crate::commands`].

mod train;

pub use train::{ExportArgs, Recipe, TrainArgs, TrainPrecision};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
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
    /// Check a training dataset and plan for it: spacing, patch, batch, pooling, folds
    #[command(after_help = PLAN_HELP)]
    Plan(PlanArgs),
    /// Train a network on a preprocessed dataset, from scratch or from pre-trained weights
    #[command(after_help = train::TRAIN_HELP)]
    Train(Box<TrainArgs>),
    /// Write a training run's weights for others: a model folder, nnU-Net's .model or .pth
    Export(ExportArgs),
    /// Prepare the cases of a planned dataset for training
    #[command(after_help = PREPROCESS_HELP)]
    Preprocess(PreprocessArgs),
    /// Hold predicted labelmaps against their references, and write nnU-Net's summary.json
    #[command(after_help = EVALUATE_HELP)]
    Evaluate(EvaluateArgs),
}

const PLAN_HELP: &str = "\
DATASET is a folder in nnU-Net's layout: dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz.
Every case is read and checked first; what is wrong is told case by case, and nothing is written then.

Examples:
  stunet plan nnUNet_raw/Dataset501_Liver
  stunet plan Dataset501_Liver -o preprocessed/Dataset501_Liver --rules v1 --memory 24";

const PREDICT_HELP: &str = "\
Examples:
  stunet predict -i ct.nii.gz -o labels.nii.gz -m base_ep4k.model
  stunet predict -i imagesTs -o labelsTs -m base_ep4k.model --disable-tta --mode fast
  stunet predict -i imagesTs -o labelsTs -m nnUNetTrainer__nnUNetPlans__3d_fullres -f all";

const PREPROCESS_HELP: &str = "\
DATASET is the raw dataset, or the folder that `stunet plan` made for it. Every case is checked first.
Cases that are finished are kept, as long as neither their files nor the plans change: an interrupted
run is continued by the same command. They go to IDENTIFIER_stunet beside the plans: nnU-Net's own folder,
IDENTIFIER, is left alone.

Examples:
  stunet preprocess nnUNet_raw/Dataset501_Liver
  stunet preprocess nnUNet_preprocessed/Dataset501_Liver 3d_lowres --num-workers 4 --memory 16";

const EVALUATE_HELP: &str = "\
What is compared: the labels or regions of a dataset.json (default: the one in PRED, or beside REF), or
those of --labels. Scores that do not exist are written as NaN, as nnU-Net writes and reads them.

Examples:
  stunet evaluate labelsTs predicted --dataset-json nnUNet_raw/Dataset501_Liver/dataset.json
  stunet evaluate labelsTs predicted --labels 1 2 3 1,2,3 --ignore-label 4 --chill
  stunet evaluate labels.nii.gz predicted.nii.gz --labels 1 2 3";

/// `stunet predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// One NIfTI file, the channel files of one case, or a folder of CASE_0000.nii.gz files
    #[arg(short, long, value_name = "IN", num_args = 1.., required = true)]
    pub input: Vec<PathBuf>,

    /// The labelmap to write (.nii, .nii.gz), or a folder for CASE.nii.gz
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// A `.model` file, a results folder (of nnU-Net v1 or v2, or of `stunet train`) or one of its
    /// folds, or a model folder of this program
    #[arg(short, long, value_name = "MODEL")]
    pub model: PathBuf,

    /// Folds to average: numbers, or `all` for the fold trained on all cases; default: every
    /// numbered fold there is
    #[arg(short, long, value_name = "FOLD", num_args = 1..)]
    pub folds: Vec<String>,

    /// Checkpoint of every fold, by its file name; default: the final one, else the best, else the
    /// latest, if all folds have it
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

    /// Also write the class probabilities: CASE.zarr.zip, or nnU-Net's CASE.npz
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "zarr")]
    pub save_probabilities: Option<Probabilities>,

    /// Also write how sure each label is, 0 to 255, as confidence/CASE.nii.gz: the distance of the
    /// best class to the second, or the entropy of all
    #[arg(long, value_enum, value_name = "MEASURE", num_args = 0..=1, default_missing_value = "margin")]
    pub confidence: Option<Confidence>,

    /// Memory of the program: what does not fit is predicted in parts, or refused before it begins;
    /// a number with M or G (2G); default: what is free
    #[arg(long, value_name = "BYTES", value_parser = byte_count)]
    pub max_memory: Option<u64>,

    /// Memory of the device that sums of windows may take: within it, f32 sums stay there and only
    /// final rows are read back; a number with M or G (8G); default: they are on the host
    #[arg(long, value_name = "BYTES", value_parser = byte_count)]
    pub device_memory: Option<u64>,

    /// The implementation whose arithmetic to follow; default: the one that wrote the model
    #[arg(long, value_enum, value_name = "VERSION")]
    pub reference: Option<Reference>,

    /// Precision in which overlapping windows are summed; default: the reference's
    #[arg(long, value_enum, value_name = "PRECISION")]
    pub accumulation: Option<Accumulation>,

    /// Where to compute
    #[arg(long, value_name = "DEVICE", default_value = "auto", help = device_help())]
    pub device: String,

    /// Write outputs that exist already. Without it they are skipped if the same model, settings and
    /// input made them, and left alone otherwise
    #[arg(long)]
    pub overwrite: bool,

    /// Take part I of N of the sorted cases of a folder: the I-th and every N-th after it; default:
    /// what SLURM's array variables say, if there are any
    #[arg(long, value_name = "N")]
    pub num_parts: Option<usize>,

    /// Which part, from 0; default: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX
    #[arg(long, value_name = "I", requires = "num_parts")]
    pub part_id: Option<usize>,

    /// Write a report of every case and a summary: seconds by stage, memory, voxels of every label
    #[arg(long, value_name = "REPORT")]
    pub json: Option<PathBuf>,

    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// How probabilities are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probabilities {
    /// A Zarr array, written piece by piece
    Zarr,
    /// nnU-Net's array
    Npz,
}

/// How sure a label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Confidence {
    /// Probability of the best class less that of the second
    Margin,
    /// One less the entropy over its largest value
    Entropy,
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

/// `stunet plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The raw dataset
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// The folder for the plan; default: nnUNet_preprocessed/DATASET beside nnUNet_raw, or beside
    /// the dataset
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,

    /// Whose rules, and whose files
    #[arg(long, value_enum, value_name = "VERSION", default_value_t = Reference::V28)]
    pub rules: Reference,

    /// Memory of the GPU to plan for, as the reference estimates it for its own networks
    #[arg(long, value_name = "GB", default_value_t = 8.0, value_parser = above_zero)]
    pub memory: f64,

    /// Spacing to work at instead of the rule's, z y x in mm
    #[arg(long, num_args = 3, value_names = ["Z", "Y", "X"], value_parser = above_zero)]
    pub spacing: Option<Vec<f64>>,

    /// Name of the plans and of their file (v2)
    #[arg(long, value_name = "NAME", default_value = "nnUNetPlans")]
    pub plans_name: String,

    /// Take this dataset_fingerprint.json (v2), and do not read the volumes
    #[arg(long, value_name = "FILE")]
    pub fingerprint: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Print nothing but errors
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// `stunet preprocess`.
#[derive(Debug, Args)]
pub struct PreprocessArgs {
    /// The raw dataset, or the folder with its plans
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// Configuration of the plans
    #[arg(value_name = "CONFIG", default_value = "3d_fullres")]
    pub configuration: String,

    /// The folder with the plans, and for the cases; default: nnUNet_preprocessed/DATASET beside
    /// nnUNet_raw, or beside the dataset
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,

    /// The raw dataset, where DATASET is the folder with the plans; default: the same name in
    /// nnUNet_raw beside nnUNet_preprocessed
    #[arg(long, value_name = "FOLDER", conflicts_with = "output")]
    pub raw: Option<PathBuf>,

    /// Name of the plans and of their file; default: nnUNetPlans, or else the plans of version 1
    #[arg(long, value_name = "NAME")]
    pub plans: Option<String>,

    /// Cases in work at a time; default: one per processor
    #[arg(short, long, alias = "np", value_name = "N", value_parser = at_least_one)]
    pub num_workers: Option<usize>,

    /// Memory for the cases in work together; default: half of what is free
    #[arg(long, value_name = "GB", value_parser = above_zero)]
    pub memory: Option<f64>,

    /// Prepare finished cases anew
    #[arg(long)]
    pub redo: bool,

    /// Do not read and check the whole dataset first; each case is checked when its turn comes
    #[arg(long)]
    pub no_check: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Print nothing but errors
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
}

/// `stunet evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Folder of the labelmaps that are right, or one of them
    #[arg(value_name = "REF")]
    pub reference: PathBuf,

    /// Folder of the labelmaps to judge, or one of them
    #[arg(value_name = "PRED")]
    pub prediction: PathBuf,

    /// The file to write; default: summary.json in PRED, where that is a folder
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// dataset.json with the labels or regions to compare (nnU-Net's -djfile)
    #[arg(long, alias = "djfile", value_name = "FILE", conflicts_with = "labels")]
    pub dataset_json: Option<PathBuf>,

    /// plans.json of the model (nnU-Net's -pfile); nothing is taken from it, but it is checked that
    /// its labels mean what they usually mean
    #[arg(long, alias = "pfile", value_name = "FILE")]
    pub plans: Option<PathBuf>,

    /// Labels (3) and regions (1,2,3) to compare
    #[arg(short, long, value_name = "CLASS", num_args = 1..)]
    pub labels: Vec<String>,

    /// Voxels of this value in the reference do not count
    #[arg(long, value_name = "VALUE", requires = "labels")]
    pub ignore_label: Option<u16>,

    /// References without a prediction are left out, not an error
    #[arg(long)]
    pub chill: bool,

    /// Whose layout to write
    #[arg(long, value_enum, value_name = "VERSION", default_value_t = Layout::V2)]
    pub layout: Layout,

    /// Cases read at a time; default: one per processor
    #[arg(short, long, alias = "np", value_name = "N", value_parser = at_least_one)]
    pub num_threads: Option<usize>,

    /// Print nothing but errors
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

fn devices_help() -> String {
    format!("{}; several GPUs, such as cuda:0,cuda:1, share every batch", device_help())
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

/// How nnU-Net spells some options; clap knows one-letter words and `--words` only.
const SPELLINGS: [(&str, &str); 5] = [
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
    }
}
