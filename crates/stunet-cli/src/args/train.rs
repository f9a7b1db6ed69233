//! What was typed after `stunet train` and `stunet export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Size, byte_count, devices_help};

/// Examples, below the options.
pub(super) const TRAIN_HELP: &str = "\
Examples:
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres 0 --size B
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres all --pretrained base_ep4k.model
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres 0 --size B --continue

The run's files go to nnUNet_results/DATASET/TRAINER__PLANS__CONFIG/fold_FOLD. Patch, batch and strides are
read from the plans as they are when the run begins; when spacing, normalisation, axes or labels have
changed, the cases have to be prepared anew first.";

/// `stunet train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The folder that `stunet plan` and `stunet preprocess` made for the dataset
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// Configuration of its plans, such as 3d_fullres
    #[arg(value_name = "CONFIG")]
    pub configuration: String,

    /// The fold to train: one of splits_final.json (0 to 4), or `all` to train on every case
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

    /// Begin with these weights, heads excepted unless --keep-heads says otherwise: a .model, a .pth, a model folder, the folder of a
    /// complete fold, or a checkpoint
    #[arg(long, value_name = "FILE")]
    pub pretrained: Option<PathBuf>,

    /// Keep the segmentation heads of the pre-trained weights: for the same labels in the same order
    #[arg(long, requires = "pretrained")]
    pub keep_heads: bool,

    /// Divide the repeated first convolutions by the number of input channels
    #[arg(long, requires = "pretrained")]
    pub stem_divide: bool,

    /// Epochs; default: 1000 (the published ep2k and ep4k are 2000 and 4000)
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

    /// Name of the plans and of their file; default: nnUNetPlans, or else the plans of version 1
    #[arg(long, value_name = "NAME")]
    pub plans: Option<String>,

    /// Where to compute; several devices, such as cuda:0,cuda:1, share every batch
    #[arg(
        long,
        alias = "devices",
        value_name = "DEVICE",
        value_delimiter = ',',
        default_value = "auto",
        help = devices_help()
    )]
    pub device: Vec<String>,

    /// Memory of the program: a run that needs more is refused before it begins; a number with M or
    /// G (16G); default: what is free
    #[arg(long, value_name = "BYTES", value_parser = byte_count)]
    pub max_memory: Option<u64>,

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
    /// A fold's folder, or one of its checkpoints; or a results folder with several folds, for one
    /// model folder that averages them
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
