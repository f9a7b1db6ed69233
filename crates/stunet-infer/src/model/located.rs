//! A model whose files are open, held against each other, and loaded.

use super::description::{Description, FoldReport, ModelKind};
use crate::architecture::Architecture;
use crate::error::InferError;
use crate::network::Network;
use burn::tensor::Device;
use serde_json::Value;
use std::path::{Path, PathBuf};
use stunet_data::labels::LabelSet;
use stunet_data::plans::Plans;
use stunet_model::ModelError;
use stunet_model::weights::folder::ModelFolder;
use stunet_model::weights::{Checkpoint, LoadOptions, LoadReport, NetworkKind};

/// A model whose files are open and whose weights are not read yet.
pub(super) struct Located {
    pub kind: ModelKind,
    pub plans: Plans,
    pub labels: LabelSet,
    pub folds: Vec<Fold>,
    pub notes: Vec<String>,
    /// The configuration of nnU-Net 2's plans, which plain U-Nets are built by; null elsewhere.
    pub configuration: Value,
}

pub(super) struct Fold {
    /// Empty where there are no folds.
    pub name: String,
    pub weights: Weights,
}

pub(super) enum Weights {
    Checkpoint(Checkpoint),
    /// With its path.
    Folder(ModelFolder, PathBuf),
}

impl Weights {
    /// What kind of network it is, without its values.
    fn architecture(&self, located: &Located) -> Result<Architecture, InferError> {
        Ok(match self {
            Self::Checkpoint(checkpoint) => match checkpoint.network() {
                NetworkKind::StuNet => {
                    Architecture::StuNet(checkpoint.config(located.plans.stunet_strides()?)?)
                }
                NetworkKind::PlainConvUNet => {
                    let config = checkpoint.plain_config(&located.configuration)?;
                    let report = checkpoint.compare_plain(&config);
                    if !report.is_complete() {
                        let (report, path) = (Box::new(report), checkpoint.path().to_owned());
                        return Err(ModelError::Load { report, path }.into());
                    }
                    Architecture::PlainConvUNet(config)
                }
            },
            Self::Folder(folder, _) => Architecture::StuNet(folder.config().clone()),
        })
    }

    /// The network, and what loading applied.
    pub fn load(
        &self,
        architecture: &Architecture,
        device: &Device,
    ) -> Result<(Box<dyn Network>, LoadReport), InferError> {
        Ok(match (self, architecture) {
            (Self::Checkpoint(checkpoint), Architecture::PlainConvUNet(config)) => {
                let (network, report) = checkpoint.load_plain(config, device)?;
                (Box::new(network), report)
            }
            (Self::Checkpoint(checkpoint), _) => {
                let config = architecture.stunet().expect("checkpoints hold one of two networks");
                let (network, report) =
                    checkpoint.load_into(config, &LoadOptions::default(), device)?;
                (Box::new(network), report)
            }
            (Self::Folder(folder, _), _) => {
                let (network, report) = folder.load(device)?;
                (Box::new(network), report)
            }
        })
    }

    fn report(&self, name: &str) -> FoldReport {
        let (path, epoch, trainer) = match self {
            Self::Checkpoint(checkpoint) => {
                let trainer = checkpoint.trainer().map(str::to_owned);
                (checkpoint.path().to_owned(), checkpoint.epoch(), trainer)
            }
            Self::Folder(folder, at) => {
                let entry = |key: &str| folder.provenance().get(key);
                let trainer = entry("trainer").and_then(|v| v.as_str()).map(str::to_owned);
                let epoch = entry("epoch").and_then(Value::as_i64);
                (at.clone(), epoch, trainer)
            }
        };
        FoldReport { fold: name.to_owned(), path, epoch, trainer, load: None }
    }
}

impl Located {
    /// What was found, with weights, plans and labels held against each other.
    pub fn describe(&self, path: &Path) -> Result<Description, InferError> {
        let architectures = self.folds.iter().map(|fold| fold.weights.architecture(self));
        let mut architectures = architectures.collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<_> = architectures.iter().filter_map(Shape::described).collect();
        check(&shapes, &self.plans, &self.labels, path)?;
        let folds = self.folds.iter().map(|fold| fold.weights.report(&fold.name));
        Ok(Description {
            kind: self.kind,
            config: architectures.swap_remove(0),
            plans: self.plans.clone(),
            labels: self.labels.clone(),
            folds: folds.collect(),
            notes: self.plans.notes.iter().chain(&self.notes).cloned().collect(),
        })
    }
}

/// What of a network has to fit plans and labels.
pub(super) struct Shape {
    in_channels: usize,
    num_classes: usize,
    architecture: Architecture,
}

impl Shape {
    pub fn of(network: &dyn Network) -> Self {
        Self {
            in_channels: network.in_channels(),
            num_classes: network.num_classes(),
            architecture: network.architecture(),
        }
    }

    /// Of a network that is not there yet, if its kind says enough.
    fn described(architecture: &Architecture) -> Option<Self> {
        let [in_channels, num_classes] = match architecture {
            Architecture::StuNet(config) => [config.in_channels, config.num_classes],
            Architecture::PlainConvUNet(config) => [config.in_channels, config.num_classes],
            Architecture::Other { .. } => return None,
        };
        Some(Self { in_channels, num_classes, architecture: architecture.clone() })
    }
}

/// Holds the networks of all folds against each other, the plans and the labels.
pub(super) fn check(
    shapes: &[Shape],
    plans: &Plans,
    labels: &LabelSet,
    path: &Path,
) -> Result<(), InferError> {
    let first = shapes.first().expect("a model has a network");
    let differ = |what, expected: String, found: String| {
        Err(InferError::Mismatch { what, expected, found, path: path.to_owned() })
    };
    if let Some(other) = shapes.iter().find(|other| other.architecture != first.architecture) {
        let [first, other] = [first, other].map(|shape| format!("{:?}", shape.architecture));
        return differ("networks of the folds", first, other);
    }
    if first.num_classes != labels.num_outputs() {
        let expected = format!("{} (as the labels)", labels.num_outputs());
        return differ("classes of the weights", expected, first.num_classes.to_string());
    }
    if first.in_channels != plans.num_channels() {
        let expected = format!("{} (as the plans)", plans.num_channels());
        return differ("input channels of the weights", expected, first.in_channels.to_string());
    }
    if let Architecture::StuNet(config) = &first.architecture {
        if config.strides[..] != plans.strides[..] {
            let expected = format!("{:?} (as the plans)", plans.strides);
            return differ("strides of the network", expected, format!("{:?}", config.strides));
        }
        config.validate_patch(plans.patch_size)?;
    }
    if let Architecture::PlainConvUNet(config) = &first.architecture {
        config.validate_patch(plans.patch_size)?;
    }
    Ok(())
}
