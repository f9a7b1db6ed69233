//! Options of `stunet train` and `stunet export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use stunet::data::reference::{FileFormat, Reference};

use super::trainers::Trainer;
use super::tuning::{LearningArgs, TransferArgs, WEIGHTS};
use super::values::{Size, byte_count, devices_help, share};
use super::watching::WatchingArgs;

/// Examples, below the options.
pub(super) const TRAIN_HELP: &str = "\
Examples:
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres 0 --size B
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres all --pretrained base_ep4k.model
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres 0 --size B --continue
  stunet train nnUNet_preprocessed/Dataset001_Liver 3d_fullres 0 --pretrained huge_ep4k.model --lora 16

The files of a run are written to nnUNet_results/DATASET/TRAINER__PLANS__CONFIG/fold_FOLD. Patch size,
batch size and strides are read from the plans when the run starts. If spacing, normalisation, axes or
labels of the plans have changed, run `stunet preprocess` again first.";

const NETWORK: &str = "Network";
const TRAINING: &str = "Training";
const DEVICE: &str = "Device and memory";
const FILES: &str = "Files and validation";

/// `stunet train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The folder that `stunet plan` and `stunet preprocess`, or nnU-Net, made for the dataset; or the
    /// dataset's name or number, looked for in the folder of the variable nnUNet_preprocessed
    #[arg(value_name = "DATASET")]
    pub dataset: PathBuf,

    /// Configuration in the plans, such as 3d_fullres
    #[arg(value_name = "CONFIG")]
    pub configuration: String,

    /// The fold to train: an index into splits_final.json (0 to 4), or `all` to train on every case
    #[arg(value_name = "FOLD")]
    pub fold: String,

    /// Size of the network [default: the size of the pre-trained weights, else small]
    #[arg(help_heading = NETWORK, long, value_enum, conflicts_with_all = ["width", "depth"])]
    pub size: Option<Size>,

    /// nnU-Net's name of a trainer, such as STUNetTrainer_base_ft (nnU-Net's -tr): it names the folder of
    /// the results and says what --size, --lr, --epochs and so on are where they are not given
    #[arg(help_heading = NETWORK, long, value_name = "NAME", value_parser = trainer)]
    pub trainer: Option<Trainer>,

    /// Features of the six stages, instead of --size
    #[arg(help_heading = NETWORK, long, value_name = "N,N,N,N,N,N", value_delimiter = ',')]
    pub width: Option<Vec<usize>>,

    /// Blocks per stage, with --width: one number, or one per stage
    #[arg(help_heading = NETWORK, long, value_name = "N", value_delimiter = ',', requires = "width")]
    pub depth: Option<Vec<usize>>,

    /// Start from these weights, except for the output heads unless --keep-heads is given: a .model or
    /// .pth file, a model folder, the folder of a finished fold, or a checkpoint
    #[arg(help_heading = WEIGHTS, long, value_name = "FILE")]
    pub pretrained: Option<PathBuf>,

    /// Keep the segmentation heads of the pre-trained weights: for the same labels in the same order
    #[arg(help_heading = WEIGHTS, long, requires = "pretrained")]
    pub keep_heads: bool,

    /// If the weights of the first convolutions are repeated or averaged for several input channels,
    /// divide them by the number of channels
    #[arg(help_heading = WEIGHTS, long, requires = "pretrained")]
    pub stem_divide: bool,

    #[command(flatten)]
    pub transfer: TransferArgs,

    #[command(flatten)]
    pub learning: LearningArgs,

    /// Number of epochs [default: 1000; the published weights ep2k and ep4k were trained for 2000 and
    /// 4000]. With --continue a larger number than the run was planned for makes it longer
    #[arg(help_heading = TRAINING, long, value_name = "N")]
    pub epochs: Option<usize>,

    /// Optimiser steps per epoch [default: 250]
    #[arg(help_heading = TRAINING, long, value_name = "N")]
    pub iterations: Option<usize>,

    /// Validation batches per epoch [default: 50 with --recipe v2, 1 with --recipe v1]
    #[arg(help_heading = TRAINING, long, value_name = "N")]
    pub val_iterations: Option<usize>,

    /// Initial learning rate [default: 0.01, or 0.001 with --pretrained; 0.0003 with Adam and AdamW]
    #[arg(help_heading = TRAINING, long)]
    pub lr: Option<f64>,

    /// Patches per batch [default: from the plans]
    #[arg(help_heading = TRAINING, long, value_name = "N")]
    pub batch_size: Option<usize>,

    /// Patch size in voxels (z y x) [default: from the plans]
    #[arg(help_heading = TRAINING, long, num_args = 3, value_names = ["Z", "Y", "X"])]
    pub patch: Option<Vec<usize>>,

    /// Loss, augmentation and initialisation of this trainer [default: by the version of the plans]
    #[arg(help_heading = TRAINING, long, value_enum, value_name = "VERSION")]
    pub recipe: Option<RecipeArg>,

    /// Train without augmentation
    #[arg(help_heading = TRAINING, long)]
    pub no_augmentation: bool,

    /// Augment without mirroring; the model then predicts without mirroring, too
    #[arg(help_heading = TRAINING, long)]
    pub no_mirroring: bool,

    /// Share of the patches of a batch that must show foreground, from 0 to 1 [default: a third]
    #[arg(help_heading = TRAINING, long, value_name = "SHARE", value_parser = share)]
    pub foreground: Option<f64>,

    /// Number of batches whose gradients are accumulated for one optimiser step [default: 1]
    #[arg(help_heading = TRAINING, long, value_name = "N")]
    pub accumulate: Option<usize>,

    /// Also keep an exponential moving average of the weights with this decay, such as 0.999
    #[arg(help_heading = TRAINING, long, value_name = "DECAY")]
    pub ema: Option<f64>,

    /// Random seed of initial weights, patches and augmentation [default: 12345]
    #[arg(help_heading = TRAINING, long, value_name = "N")]
    pub seed: Option<u64>,

    /// Precision of the forward and backward pass; the weights are kept in f32
    #[arg(help_heading = DEVICE, long, value_enum, value_name = "PRECISION")]
    pub precision: Option<PrecisionArg>,

    /// Activation checkpointing: recompute activations in the backward pass; less memory, more time
    #[arg(help_heading = DEVICE, long)]
    pub checkpoint_activations: bool,

    /// Resume from the newest checkpoint, with the settings stored in it; also from nnU-Net's own, with the
    /// settings of this command line. --epochs makes the run longer: the learning rate becomes that of a
    /// run planned for as many epochs from the start, or with --lr begins anew there and falls to the new
    /// end
    #[arg(long = "continue")]
    pub go_on: bool,

    /// Number of epochs between two checkpoints
    #[arg(help_heading = FILES, long, value_name = "N", default_value_t = 1)]
    pub save_every: usize,

    /// Which preprocessed cases are read [default: those of stunet, else nnU-Net's]
    #[arg(help_heading = FILES, long, value_enum, value_name = "KIND")]
    pub cases: Option<CasesArg>,

    /// Folder for results [default: nnUNet_results beside nnUNet_preprocessed]
    #[arg(help_heading = FILES, short, long, value_name = "RESULTS")]
    pub output: Option<PathBuf>,

    /// Folder of the raw dataset for the final validation [default: the same name in nnUNet_raw
    /// beside nnUNet_preprocessed]
    #[arg(help_heading = FILES, long, value_name = "FOLDER")]
    pub raw: Option<PathBuf>,

    /// Also store the probabilities of the final validation, as `stunet find-best` needs them for
    /// ensembles: fold_X/validation/CASE.npz
    #[arg(help_heading = FILES, long)]
    pub npz: bool,

    /// Only predict and score the final validation of a finished fold, again
    #[arg(help_heading = FILES, long, conflicts_with = "no_validation")]
    pub val: bool,

    /// Skip the final validation on whole volumes
    #[arg(help_heading = FILES, long)]
    pub no_validation: bool,

    /// Name of the plans and of their file [default: nnUNetPlans, else the plans of nnU-Net 1]
    #[arg(help_heading = FILES, long, value_name = "NAME")]
    pub plans: Option<String>,

    /// Device to compute on, or several that divide every batch
    #[arg(help_heading = DEVICE,
        long,
        alias = "devices",
        value_name = "DEVICE",
        value_delimiter = ',',
        default_value = "auto",
        help = devices_help()
    )]
    pub device: Vec<String>,

    /// Compute on a device that `stunet verify` found to compute something else
    #[arg(help_heading = DEVICE, long)]
    pub unverified_device: bool,

    /// Compile the kernels of a GPU anew, and do not keep them
    #[arg(help_heading = DEVICE, long)]
    pub no_cache: bool,

    /// Memory limit of the program, such as 16G. A run that needs more is rejected before it starts
    /// [default: free memory]
    #[arg(help_heading = DEVICE, long, value_name = "BYTES", value_parser = byte_count)]
    pub max_memory: Option<u64>,

    /// Number of threads that extract and augment patches [default: one per core]
    #[arg(help_heading = DEVICE, long, value_name = "N")]
    pub threads: Option<usize>,

    #[command(flatten)]
    pub watching: WatchingArgs,

    /// Print one JSON object per epoch instead of text
    #[arg(long)]
    pub json: bool,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,
}

impl TrainArgs {
    /// Fills in what the name of the trainer says and no option does. A run that goes on has its settings:
    /// there it is the name of a folder.
    pub fn with_trainer(mut self) -> Self {
        self.go_on |= self.val;
        if let Some(trainer) = self.trainer.as_ref().filter(|_| !self.go_on) {
            let shaped = self.size.is_some() || self.width.is_some();
            self.size = self.size.or(trainer.size.filter(|_| !shaped));
            self.lr = self.lr.or(trainer.lr);
            self.epochs = self.epochs.or(trainer.epochs);
            self.no_mirroring |= trainer.no_mirroring;
            self.no_augmentation |= trainer.no_augmentation;
            let learning = &mut self.learning;
            learning.loss = learning.loss.or(trainer.loss);
            learning.optimizer = learning.optimizer.or(trainer.optimizer);
            learning.schedule = learning.schedule.or(trainer.schedule);
            learning.warmup = learning.warmup.or(trainer.warmup);
        }
        self
    }
}

fn trainer(text: &str) -> Result<Trainer, String> {
    text.parse()
}

/// `stunet export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The folder of a fold, one of its checkpoints, or a results folder with several folds (exported
    /// as one model folder whose predictions are averaged)
    #[arg(value_name = "RUN")]
    pub run: PathBuf,

    /// FILE.model for nnU-Net 1, FILE.pth for nnU-Net 2, FILE.zip as `nnUNetv2_export_model_to_zip` makes
    /// it, or the model folder to create
    #[arg(value_name = "OUT")]
    pub output: PathBuf,

    /// Folds of a results folder to export: numbers, or `all` for the network trained on all cases
    /// [default: all there are]
    #[arg(short, long, value_name = "FOLD", num_args = 1..)]
    pub folds: Vec<String>,

    /// Name of the checkpoint in the folder of the fold [default: the final one, else the newest]
    #[arg(long, alias = "chk", value_name = "NAME")]
    pub checkpoint: Option<String>,

    /// Export the trained weights rather than their moving average, if the run kept one
    #[arg(long)]
    pub no_ema: bool,

    /// Store the weights of a model folder in half precision
    #[arg(long)]
    pub half: bool,
}

/// The two trainers of STU-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipeArg {
    /// STU-Net's trainer for nnU-Net 1.7
    V1,
    /// STU-Net's trainer for nnU-Net 2
    V2,
}

impl RecipeArg {
    /// The trainer that belongs to plans.
    pub fn of(plans: Reference) -> Self {
        match plans.conventions().files {
            FileFormat::V1 => Self::V1,
            FileFormat::V2 => Self::V2,
        }
    }

    /// The version of nnU-Net that this trainer belongs to, with plans of `plans`.
    pub fn reference(self, plans: Reference) -> Reference {
        match (self, Self::of(plans)) {
            (Self::V1, _) => Reference::NnUNetV1,
            (Self::V2, Self::V1) => Reference::NnUNetV22,
            (Self::V2, Self::V2) => plans,
        }
    }
}

/// Who preprocessed the cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CasesArg {
    /// `stunet preprocess`
    Stunet,
    /// nnU-Net: `.b2nd` files, or `.npz` of its earlier versions
    Nnunet,
}

/// Precision of the network in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionArg {
    /// Single precision
    F32,
    /// bfloat16
    Bf16,
    /// Half precision, with loss scaling
    F16,
}
