//! What a model is, and how one is opened.

use crate::architecture::Architecture;
use crate::error::InferError;
use burn::tensor::Device;
use serde::Serialize;
use std::path::PathBuf;
use std::str::FromStr;
use stunet_data::labels::LabelSet;
use stunet_data::plans::{Plans, Reference};
use stunet_model::weights::LoadReport;

/// What a model was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum ModelKind {
    /// nnU-Net 1.7: a `.model` file, with or without its `.model.pkl`, or a results folder.
    #[serde(rename = "nnunet-v1")]
    NnUNetV1,
    /// nnU-Net 2: a results folder with `plans.json`, `dataset.json` and `fold_X`.
    #[serde(rename = "nnunet-v2")]
    NnUNetV2,
    /// Our own folder: `network.json`, `plans.json`, `labels.json` and weights; or a results folder
    /// of `stunet train` with one per fold.
    #[serde(rename = "stunet")]
    Stunet,
    /// Networks that were not read from files.
    #[serde(rename = "memory")]
    Memory,
}

/// Which folds are averaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Folds {
    /// Every numbered fold there is; `fold_all` only where there is none.
    #[default]
    Found,
    /// `fold_all`: trained on all cases.
    All,
    /// These.
    Numbers(Vec<usize>),
}

impl FromStr for Folds {
    type Err = InferError;

    /// Reads `all`, one number, or several with commas.
    fn from_str(text: &str) -> Result<Self, InferError> {
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let numbers: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        numbers.map(Self::Numbers).map_err(|_| InferError::Unsupported {
            option: "folds",
            reason: "expected `all` or numbers separated by commas, such as 0,1,2",
        })
    }
}

/// How a model is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Where the network will run.
    pub device: Device,
    /// Which folds are averaged.
    pub folds: Folds,
    /// Name of the checkpoint with or without its ending, such as `checkpoint_best` or
    /// `base_ep4k`; by default the final one, else the best, else the latest, and the same for
    /// every fold.
    pub checkpoint: Option<String>,
    /// Whose arithmetic, if not that of whatever wrote the model. For nnU-Net's files the precision
    /// of the sums changes with it; our own folders state theirs.
    pub reference: Option<Reference>,
}

impl OpenOptions {
    /// Every fold's final checkpoint on `device`.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), folds: Folds::Found, checkpoint: None, reference: None }
    }
}

/// One fold of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FoldReport {
    /// `0`, `1`, ..., `all`, or empty where there are no folds.
    pub fold: String,
    /// The file or folder its weights come from.
    pub path: PathBuf,
    /// Epochs trained, where the checkpoint says so.
    pub epoch: Option<i64>,
    /// The trainer's name, where the checkpoint says so.
    pub trainer: Option<String>,
    /// What loading applied; none before the weights are loaded.
    pub load: Option<LoadReport>,
}

/// What a model is, known without loading its weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Description {
    /// What it was read from.
    pub kind: ModelKind,
    /// The network.
    pub config: Architecture,
    /// The recipe.
    pub plans: Plans,
    /// The meaning of its outputs.
    pub labels: LabelSet,
    /// Its folds.
    pub folds: Vec<FoldReport>,
    /// What had to be assumed, one sentence each.
    pub notes: Vec<String>,
}
