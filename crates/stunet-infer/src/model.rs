//! A model from its path, whichever of the three kinds it is.

mod agree;
mod choose;
mod description;
mod digest;
mod files;
mod locate;
mod located;
mod own;
mod precision;
mod v1;
mod v2;

pub use description::{Description, FoldReport, Folds, ModelKind, OpenOptions};
pub use precision::NetworkPrecision;

use crate::architecture::Architecture;
use crate::error::InferError;
use crate::network::{Network, Outputs};
use files::Files;
use located::Located;
use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use stunet_data::labels::LabelSet;
use stunet_data::plans::{Accumulation, Plans, TrainedOrientation};
use stunet_model::StuNet;
use stunet_model::weights::folder::{self, Provenance, StoredPrecision};

/// A model ready to predict: networks of all folds, plans and labels, checked against each other.
///
/// Networks are whatever implements [`Network`]; [`open`](Self::open) makes them of the files of
/// nnU-Net and of our own.
pub struct Model {
    networks: Vec<Box<dyn Network>>,
    description: Description,
    digest: OnceLock<Option<String>>,
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
        Self::load(&locate::find(&Files::Disk, path, options)?, path, options)
    }

    /// Opens a model whose files are in memory, such as those of an archive, a database or a web
    /// page: each with the name that it would have in the model's folder, such as
    /// `weights.safetensors` or `fold_0/checkpoint_final.pth`.
    ///
    /// Folders that all names begin with do not matter, unless they are `fold_X`. The model, its digest
    /// included, is that of [`open`](Self::open) for the deepest folder that holds all files; paths
    /// begin with `(in memory)`. Contents that others still need may be given as an [`Arc`].
    ///
    /// ```no_run
    /// # fn load() -> Result<(), Box<dyn std::error::Error>> {
    /// use stunet_infer::{Model, OpenOptions};
    ///
    /// let names = ["network.json", "plans.json", "labels.json", "weights.safetensors"];
    /// let fetch = |name: &str| std::fs::read(format!("examples/demo-model/{name}"));
    /// let files = names.map(|name| Ok::<_, std::io::Error>((name, fetch(name)?)));
    /// let files = files.into_iter().collect::<Result<Vec<_>, _>>()?;
    /// let device = stunet_model::burn::tensor::Device::flex();
    /// let model = Model::from_files(files, &OpenOptions::new(&device))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open), and when a name is no name of a file within a folder, or occurs twice.
    pub fn from_files<N: AsRef<str>, B: Into<Arc<Vec<u8>>>>(
        files: impl IntoIterator<Item = (N, B)>,
        options: &OpenOptions,
    ) -> Result<Self, InferError> {
        let (files, folder) = Files::in_memory(files)?;
        let located = locate::find(&files, &folder, options)?;
        // What the model is not made of goes before its weights come.
        drop(files);
        Self::load(&located, &folder, options)
    }

    fn load(located: &Located, path: &Path, options: &OpenOptions) -> Result<Self, InferError> {
        let mut description = located.describe(path)?;
        let mut networks = Vec::with_capacity(located.folds.len());
        for (fold, report) in located.folds.iter().zip(&mut description.folds) {
            let (network, load) = fold.weights.load(&description.config, &options.device)?;
            report.load = Some(load);
            networks.push(network);
        }
        Ok(Self { networks, description, digest: OnceLock::new() })
    }

    /// Reads what a model is, without loading its weights.
    ///
    /// # Errors
    /// As [`open`](Self::open), for everything that shows without the weights' values.
    pub fn describe(path: &Path, options: &OpenOptions) -> Result<Description, InferError> {
        locate::find(&Files::Disk, path, options)?.describe(path)
    }

    /// A model from its parts: networks of one kind, one per fold.
    ///
    /// # Errors
    /// When networks, plans and labels contradict each other.
    ///
    /// # Panics
    /// When there is no network.
    pub fn from_parts<N: Network>(
        networks: Vec<N>,
        plans: Plans,
        labels: LabelSet,
    ) -> Result<Self, InferError> {
        let boxed = networks.into_iter().map(|network| Box::new(network) as Box<dyn Network>);
        Self::from_networks(boxed.collect(), plans, labels)
    }

    /// As [`from_parts`](Self::from_parts), where the kind of network is known only at run time.
    ///
    /// # Errors
    /// When networks, plans and labels contradict each other.
    ///
    /// # Panics
    /// When there is no network.
    pub fn from_networks(
        networks: Vec<Box<dyn Network>>,
        plans: Plans,
        labels: LabelSet,
    ) -> Result<Self, InferError> {
        let shapes: Vec<_> =
            networks.iter().map(|network| located::Shape::of(&**network)).collect();
        let path = Path::new(files::IN_MEMORY);
        located::check(&shapes, &plans, &labels, path)?;
        networks[0].cost(plans.patch_size)?;
        let config = networks[0].architecture();
        let kind = match config {
            Architecture::StuNet(_) => ModelKind::Stunet,
            _ => ModelKind::Memory,
        };
        let (folds, notes) = (Vec::new(), Vec::new());
        let description = Description { kind, config, plans, labels, folds, notes };
        Ok(Self { networks, description, digest: OnceLock::new() })
    }

    /// Writes our own model folder: `network.json`, `plans.json`, `labels.json` and the weights;
    /// several folds go to `fold_X`.
    ///
    /// The plans keep whose arithmetic is followed, but sums are kept in f32 from then on.
    ///
    /// # Errors
    /// When the folder cannot be written, or the networks are no STU-Nets.
    pub fn save_folder(&self, folder: &Path) -> Result<(), InferError> {
        self.save_folder_as(folder, StoredPrecision::F32)
    }

    /// As [`save_folder`](Self::save_folder), with weights of a chosen precision.
    ///
    /// # Errors
    /// When the folder cannot be written, or the networks are no STU-Nets.
    pub fn save_folder_as(
        &self,
        folder: &Path,
        precision: StoredPrecision,
    ) -> Result<(), InferError> {
        let Description { config, plans, labels, .. } = &self.description;
        let (Some(config), Some(networks)) = (config.stunet(), self.stunets()) else {
            return Err(InferError::Architecture {
                action: "save a model folder",
                found: config.to_string(),
                instead: "keep the files that it was read from",
            });
        };
        for (index, network) in networks.into_iter().enumerate() {
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

    /// States how the axes of the training images ran, for a model whose files do not say it: scans
    /// are opened accordingly from then on ([`Plans::opener`]), and a saved folder says it.
    pub fn set_trained_orientation(&mut self, orientation: TrainedOrientation) {
        self.description.plans.orientation = Some(orientation);
    }

    /// One network per fold.
    pub fn networks(&self) -> &[Box<dyn Network>] {
        &self.networks
    }

    /// The networks as STU-Nets, if that is what they are.
    pub fn stunets(&self) -> Option<Vec<&StuNet>> {
        fn cast(network: &dyn Any) -> Option<&StuNet> {
            network.downcast_ref()
        }
        self.networks.iter().map(|network| cast(&**network)).collect()
    }

    /// What kind of network it is.
    pub fn architecture(&self) -> &Architecture {
        &self.description.config
    }

    /// Outputs of the network.
    pub fn num_classes(&self) -> usize {
        self.networks[0].num_classes()
    }

    /// What the values of the network are.
    pub fn outputs(&self) -> Outputs {
        self.networks[0].outputs()
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
    /// all folds, plans and values of the labels. Whose arithmetic is followed and the precision of
    /// the sums, which may be chosen anew for every prediction, are no part of it.
    ///
    /// None where a network does not say [which one it is](Network::identity).
    pub fn digest(&self) -> Option<&str> {
        self.digest.get_or_init(|| digest::of(&self.networks, &self.description)).as_deref()
    }

    /// What the model is and where it came from.
    pub fn description(&self) -> &Description {
        &self.description
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("description", &self.description).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
