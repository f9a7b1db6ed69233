//! A model from its path, whichever of the three kinds it is.

mod agree;
mod digest;
mod locate;
mod own;
mod v1;
mod v2;

use crate::error::InferError;
use burn::tensor::Device;
use locate::{Located, Weights};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use stunet_data::labels::LabelSet;
use stunet_data::plans::{Accumulation, Plans, Reference};
use stunet_model::weights::folder::{self, Precision, Provenance};
use stunet_model::weights::{LoadOptions, LoadReport};
use stunet_model::{StuNet, StuNetConfig};

/// What a path can hold.
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
    /// Which of the three kinds.
    pub kind: ModelKind,
    /// The network.
    pub config: StuNetConfig,
    /// The recipe.
    pub plans: Plans,
    /// The meaning of its outputs.
    pub labels: LabelSet,
    /// Its folds.
    pub folds: Vec<FoldReport>,
    /// What had to be assumed, one sentence each.
    pub notes: Vec<String>,
}

/// A model ready to predict: networks of all folds, plans and labels, checked against each other.
#[derive(Debug)]
pub struct Model {
    networks: Vec<StuNet>,
    description: Description,
    digest: OnceLock<String>,
}

impl Model {
    /// Opens the model at `path`:
    ///
    /// * nnU-Net v1: a `.model` file. With a `.model.pkl` beside it, that one's plans apply;
    ///   without, the published TotalSegmentator plan, if the weights have its 105 classes and one
    ///   input channel. Or a results folder with `fold_X` and `plans.pkl`.
    /// * nnU-Net v2: a results folder with `plans.json`, `dataset.json` and `fold_X`, or one of its
    ///   `.pth` files.
    /// * our own folder, or the results folder of `stunet train`, or a fold of it.
    ///
    /// # Errors
    /// When the path is none of these, or weights, plans and labels contradict each other.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, InferError> {
        let located = Located::find(path, options)?;
        let mut description = located.describe(path)?;
        let mut networks = Vec::with_capacity(located.folds.len());
        for (fold, report) in located.folds.iter().zip(&mut description.folds) {
            let (network, load) = match &fold.weights {
                Weights::Checkpoint(checkpoint) => {
                    let strides = description.config.strides;
                    checkpoint.load(strides, &LoadOptions::default(), &options.device)?
                }
                Weights::Folder(folder, _) => folder.load(&options.device)?,
            };
            report.load = Some(load);
            networks.push(network);
        }
        Ok(Self::new(networks, description))
    }

    /// Reads what a model is, without loading its weights.
    ///
    /// # Errors
    /// As [`open`](Self::open), for everything that shows without the weights' values.
    pub fn describe(path: &Path, options: &OpenOptions) -> Result<Description, InferError> {
        Located::find(path, options)?.describe(path)
    }

    /// A model from its parts.
    ///
    /// # Errors
    /// When networks, plans and labels contradict each other.
    ///
    /// # Panics
    /// When there is no network.
    pub fn from_parts(
        networks: Vec<StuNet>,
        plans: Plans,
        labels: LabelSet,
    ) -> Result<Self, InferError> {
        let configs: Vec<_> = networks.iter().map(StuNet::config).collect();
        locate::check(&configs, &plans, &labels, Path::new("(in memory)"))?;
        let description = Description {
            kind: ModelKind::Stunet,
            config: configs.into_iter().next().expect("a model has a network"),
            plans,
            labels,
            folds: Vec::new(),
            notes: Vec::new(),
        };
        Ok(Self::new(networks, description))
    }

    fn new(networks: Vec<StuNet>, description: Description) -> Self {
        Self { networks, description, digest: OnceLock::new() }
    }

    /// Writes our own model folder: `network.json`, `plans.json`, `labels.json` and the weights;
    /// several folds go to `fold_X`.
    ///
    /// The plans keep whose arithmetic is followed, but sums are kept in f32 from then on.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save_folder(&self, folder: &Path) -> Result<(), InferError> {
        self.save_folder_as(folder, Precision::F32)
    }

    /// As [`save_folder`](Self::save_folder), with weights of a chosen precision.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save_folder_as(&self, folder: &Path, precision: Precision) -> Result<(), InferError> {
        let Description { config, plans, labels, .. } = &self.description;
        for (index, network) in self.networks.iter().enumerate() {
            let fold = self.description.folds.get(index);
            let name = fold.map_or_else(|| index.to_string(), |fold| fold.fold.clone());
            let folder = match self.networks.len() {
                1 => folder.to_owned(),
                _ => folder.join(format!("fold_{name}")),
            };
            let provenance = self.provenance(index);
            folder::save(&folder, config, &mut network.source(), precision, provenance)?;
        }
        let plans = Plans { accumulation: Accumulation::F32, ..plans.clone() };
        plans.save(&folder.join(own::PLANS_FILE))?;
        labels.save(&folder.join(own::LABELS_FILE))?;
        Ok(())
    }

    /// Where a fold's weights came from; no paths, which may name people.
    fn provenance(&self, index: usize) -> Provenance {
        let mut entries = Provenance::new();
        let mut put = |key: &str, value: serde_json::Value| entries.insert(key.into(), value);
        if let Ok(kind) = serde_json::to_value(self.description.kind) {
            put("kind", kind);
        }
        if let Some(fold) = self.description.folds.get(index) {
            if let Some(name) = fold.path.file_name().and_then(|n| n.to_str()) {
                put("source", name.into());
            }
            if !fold.fold.is_empty() {
                put("fold", fold.fold.as_str().into());
            }
            if let Some(epoch) = fold.epoch {
                put("epoch", epoch.into());
            }
            if let Some(trainer) = &fold.trainer {
                put("trainer", trainer.as_str().into());
            }
        }
        entries
    }

    /// One network per fold.
    pub fn networks(&self) -> &[StuNet] {
        &self.networks
    }

    /// The network's configuration.
    pub fn config(&self) -> &StuNetConfig {
        &self.description.config
    }

    /// The recipe.
    pub fn plans(&self) -> &Plans {
        &self.description.plans
    }

    /// The meaning of the outputs.
    pub fn labels(&self) -> &LabelSet {
        &self.description.labels
    }

    /// A digest of all that decides what the model predicts, whatever files it came from: weights of
    /// all folds, plans and values of the labels. Whose arithmetic is followed and the precision of the sums, which
    /// may be chosen anew for every prediction, are no part of it.
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| digest::of(&self.networks, &self.description))
    }

    /// What the model is and where it came from.
    pub fn description(&self) -> &Description {
        &self.description
    }
}

#[cfg(test)]
mod tests;
