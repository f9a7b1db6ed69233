//! A model from its path, whichever of the three kinds it is.

use crate::error::InferError;
use burn::tensor::Device;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use stunet_data::labels::LabelSet;
use stunet_data::plans::{Plans, Reference};
use stunet_model::{StuNet, StuNetConfig};

/// What a path can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// nnU-Net 1.7: a `.model` file, with or without its `.model.pkl`, or a results folder.
    #[serde(rename = "nnunet-v1")]
    NnUNetV1,
    /// nnU-Net 2: a results folder with `plans.json`, `dataset.json` and `fold_X`.
    #[serde(rename = "nnunet-v2")]
    NnUNetV2,
    /// Our own folder: `network.json`, `plans.json`, `labels.json` and weights.
    Stunet,
}

/// Which folds are averaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Folds {
    /// Every fold there is; `fold_all` only where there is no other.
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
        let bad = InferError::Unsupported {
            option: "folds",
            reason: "expected `all` or numbers separated by commas, such as 0,1,2",
        };
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let numbers: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        numbers.map(Self::Numbers).map_err(|_| bad)
    }
}

/// How a model is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Where the network will run.
    pub device: Device,
    /// Which folds are averaged.
    pub folds: Folds,
    /// Name of the checkpoint without its ending, such as `checkpoint_best` or `base_ep4k`; by
    /// default the final one, else the best, else the latest.
    pub checkpoint: Option<String>,
    /// Whose arithmetic, if not that of whatever wrote the model.
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
    /// The file its weights come from.
    pub path: PathBuf,
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
}

impl Model {
    /// Opens the model at `path`:
    ///
    /// * nnU-Net v1: a `.model` file. With a `.model.pkl` beside it, that one's plans apply;
    ///   without, the published TotalSegmentator plan, if the weights have its 105 classes and one
    ///   input channel. Or a results folder with `plans.pkl` and `fold_X`.
    /// * nnU-Net v2: a results folder with `plans.json`, `dataset.json` and `fold_X`.
    /// * our own folder.
    ///
    /// # Errors
    /// When the path is none of these, or weights, plans and labels contradict each other.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, InferError> {
        let _ = options;
        Err(InferError::NotAModel {
            expected: "a model",
            found: "nothing".into(),
            path: path.into(),
        })
    }

    /// Reads what a model is, without loading its weights.
    ///
    /// # Errors
    /// As [`open`](Self::open), for everything that shows without the weights' values.
    pub fn describe(path: &Path, options: &OpenOptions) -> Result<Description, InferError> {
        Self::open(path, options).map(|model| model.description)
    }

    /// A model from its parts.
    ///
    /// # Panics
    /// When there is no network.
    pub fn from_parts(networks: Vec<StuNet>, plans: Plans, labels: LabelSet) -> Self {
        let config = networks[0].config();
        let description = Description {
            kind: ModelKind::Stunet,
            config,
            plans,
            labels,
            folds: Vec::new(),
            notes: Vec::new(),
        };
        Self { networks, description }
    }

    /// Writes our own model folder: `network.json`, `plans.json`, `labels.json` and the weights,
    /// with several folds in `fold_X`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save_folder(&self, folder: &Path) -> Result<(), InferError> {
        self.description.plans.save(&folder.join("plans.json"))?;
        self.description.labels.save(&folder.join("labels.json"))?;
        Ok(())
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

    /// What the model is and where it came from.
    pub fn description(&self) -> &Description {
        &self.description
    }
}
