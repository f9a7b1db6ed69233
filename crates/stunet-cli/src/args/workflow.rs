//! Options of the commands around a cross-validation.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::evaluate::Layout;
use super::values::at_least_one;

pub(super) const ENSEMBLE_HELP: &str = "\
Every folder holds CASE.npz (nnU-Net's --save_probabilities, or stunet's --save-probabilities npz) or
CASE.zarr.zip (--save-probabilities) for the same cases.

Examples:
  stunet ensemble -i predicted_a predicted_b -o predicted
  stunet ensemble -i predicted_a predicted_b -o predicted --save-npz -np 4";

pub(super) const ACCUMULATE_HELP: &str = "\
RESULTS is TRAINER__PLANS__CONFIG in nnUNet_results/DATASET. The labelmaps of fold_X/validation go to
crossval_results_folds_0_1_2_3_4 there, with summary.json, dataset.json and plans.json.

Example:
  stunet accumulate nnUNet_results/Dataset501_Liver/STUNetTrainer_base__nnUNetPlans__3d_fullres";

pub(super) const FIND_BEST_HELP: &str = "\
DATASET is the folder of the dataset in nnUNet_results. Every model in it takes part, or those that -tr, -p
and -c name; and the ensembles of two, for which the validation of every fold has stored probabilities.
The best is the one with the highest mean Dice of the foreground; its postprocessing is determined, and
inference_instructions.txt says how to predict with it.

Examples:
  stunet find-best nnUNet_results/Dataset501_Liver
  stunet find-best nnUNet_results/Dataset501_Liver -tr nnUNetTrainer -c 3d_fullres 3d_lowres -f 0 1 2";

/// `stunet ensemble`.
#[derive(Debug, Args)]
pub struct EnsembleArgs {
    /// Folders of predictions with stored probabilities
    #[arg(short, long, value_name = "FOLDER", num_args = 1.., required = true)]
    pub input: Vec<PathBuf>,

    /// Folder of the labelmaps to write
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// Also store the mean of the probabilities, as CASE.npz
    #[arg(long)]
    pub save_npz: bool,

    /// dataset.json with the labels [default: the one in the first folder]
    #[arg(long, value_name = "FILE")]
    pub dataset_json: Option<PathBuf>,

    /// plans.json of a member [default: the one in the first folder, if there is one]
    #[arg(long, value_name = "FILE")]
    pub plans: Option<PathBuf>,

    /// Number of cases at the same time [default: one per processor]
    #[arg(short, long, alias = "np", value_name = "N", value_parser = at_least_one)]
    pub num_threads: Option<usize>,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet postprocess`.
#[derive(Debug, Subcommand)]
pub enum PostprocessCommand {
    /// Decide on predictions of cross-validation for which classes it helps; write the decision
    Determine(DetermineArgs),
    /// Do what was decided to the labelmaps of a folder
    Apply(ApplyArgs),
}

/// `stunet postprocess determine`.
#[derive(Debug, Args)]
pub struct DetermineArgs {
    /// Folder of predictions, such as what `stunet accumulate` gathered; results go there, too
    #[arg(short, long, value_name = "PRED")]
    pub input: PathBuf,

    /// Folder of the reference labelmaps
    #[arg(short, long, alias = "ref", value_name = "REF")]
    pub reference: PathBuf,

    /// plans.json of the model [default: the one in PRED, if there is one]
    #[arg(long, value_name = "FILE")]
    pub plans: Option<PathBuf>,

    /// dataset.json with the labels [default: the one in PRED]
    #[arg(long, value_name = "FILE")]
    pub dataset_json: Option<PathBuf>,

    /// Do not write the postprocessed labelmaps
    #[arg(long)]
    pub remove_postprocessed: bool,

    /// The nnU-Net version whose rule decides and whose files are written
    #[arg(long, value_enum, value_name = "VERSION", default_value_t = Layout::V2)]
    pub layout: Layout,

    /// Number of cases read at the same time [default: one per processor]
    #[arg(short, long, alias = "np", value_name = "N", value_parser = at_least_one)]
    pub num_threads: Option<usize>,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet postprocess apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Folder of labelmaps
    #[arg(short, long, value_name = "IN")]
    pub input: PathBuf,

    /// Folder of the labelmaps to write
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// postprocessing.pkl or postprocessing.json of nnU-Net 2, or postprocessing.json of nnU-Net 1
    /// (nnU-Net's -pp_pkl_file); nothing in it is executed
    #[arg(short, long, value_name = "FILE")]
    pub steps: PathBuf,

    /// Accepted as in nnU-Net; not needed here
    #[arg(long, value_name = "FILE", hide = true)]
    pub plans: Option<PathBuf>,

    /// Accepted as in nnU-Net; not needed here
    #[arg(long, value_name = "FILE", hide = true)]
    pub dataset_json: Option<PathBuf>,

    /// Number of cases at the same time [default: one per processor]
    #[arg(short, long, alias = "np", value_name = "N", value_parser = at_least_one)]
    pub num_threads: Option<usize>,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet accumulate`.
#[derive(Debug, Args)]
pub struct AccumulateArgs {
    /// Results folder of a model
    #[arg(value_name = "RESULTS")]
    pub results: PathBuf,

    /// Folds
    #[arg(short, long, value_name = "FOLD", num_args = 1.., default_values_t = [0, 1, 2, 3, 4])]
    pub folds: Vec<usize>,

    /// Folder to write, new or empty [default: crossval_results_folds_... in RESULTS]
    #[arg(short, long, value_name = "OUT")]
    pub output: Option<PathBuf>,

    /// Folder of the reference labelmaps [default: labelsTr of nnUNet_raw, or gt_segmentations of
    /// nnUNet_preprocessed, beside nnUNet_results]
    #[arg(short, long, alias = "ref", value_name = "REF")]
    pub reference: Option<PathBuf>,

    /// Number of cases read at the same time [default: one per processor]
    #[arg(short, long, alias = "np", value_name = "N", value_parser = at_least_one)]
    pub num_threads: Option<usize>,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `stunet find-best`.
#[derive(Debug, Args)]
pub struct FindBestArgs {
    /// Folder of the dataset in nnUNet_results, or its name or number
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// Trainers (nnU-Net's -tr) [default: all there are]
    #[arg(long, alias = "trainer", value_name = "NAME", num_args = 1..)]
    pub trainers: Vec<String>,

    /// Plans [default: all there are]
    #[arg(short, long, value_name = "NAME", num_args = 1..)]
    pub plans: Vec<String>,

    /// Configurations [default: all there are]
    #[arg(short, long, value_name = "NAME", num_args = 1..)]
    pub configurations: Vec<String>,

    /// Folds
    #[arg(short, long, value_name = "FOLD", num_args = 1.., default_values_t = [0, 1, 2, 3, 4])]
    pub folds: Vec<usize>,

    /// Leave out the ensembles of two models
    #[arg(long)]
    pub disable_ensembling: bool,

    /// Keep ensembled labelmaps that are there already
    #[arg(long)]
    pub no_overwrite: bool,

    /// Folder of the reference labelmaps [default: as for `stunet accumulate`]
    #[arg(short, long, alias = "ref", value_name = "REF")]
    pub reference: Option<PathBuf>,

    /// Number of cases at the same time [default: one per processor]
    #[arg(short, long, alias = "np", value_name = "N", value_parser = at_least_one)]
    pub num_threads: Option<usize>,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}
