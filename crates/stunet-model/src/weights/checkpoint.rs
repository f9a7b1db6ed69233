//! Checkpoints of nnU-Net: which tensors they hold, and loading them into a network.

use super::digest::Digesting;
use super::key_map::plain::{self, Key};
use super::key_map::{WITNESS, known_by, own_name};
use super::pickle::{self, Value};
use super::report::LoadReport;
use super::tensor::TensorRef;
use super::torch::TorchFile;
use crate::init::Initialiser;
use crate::parameter::{finest_head, first_weight, stage_path};
use crate::{
    Encoder, Initialisation, ModelError, NUM_STAGES, NUM_UPSAMPLINGS, ParameterSource,
    ParameterSpec, StuNet, StuNetConfig,
};
use burn::tensor::{Device, TensorData};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which program wrote a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointKind {
    /// nnU-Net v1: `*.model` with the weights under `state_dict`.
    NnUNetV1,
    /// nnU-Net v2: `checkpoint_*.pth` with the weights under `network_weights`.
    NnUNetV2,
}

impl CheckpointKind {
    const ALL: [Self; 2] = [Self::NnUNetV2, Self::NnUNetV1];

    fn weights_key(self) -> &'static str {
        match self {
            Self::NnUNetV1 => "state_dict",
            Self::NnUNetV2 => "network_weights",
        }
    }

    /// Entries that hold tensors: never read, and no part of the metadata.
    fn tensor_keys(self) -> [&'static str; 2] {
        match self {
            Self::NnUNetV1 => ["state_dict", "optimizer_state_dict"],
            Self::NnUNetV2 => ["network_weights", "optimizer_state"],
        }
    }

    /// The name used in provenance records: `nnunet-v1`, `nnunet-v2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NnUNetV1 => "nnunet-v1",
            Self::NnUNetV2 => "nnunet-v2",
        }
    }
}

/// Which network a checkpoint holds, by the names of its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// STU-Net.
    StuNet,
    /// The plain convolutional U-Net of nnU-Net 2's standard trainers.
    PlainConvUNet,
}

impl NetworkKind {
    /// The name, with its article.
    fn name(self) -> &'static str {
        match self {
            Self::StuNet => "an STU-Net",
            Self::PlainConvUNet => "a PlainConvUNet",
        }
    }
}

/// What loading tolerates. By default nothing: every tensor must find its place.
///
/// Parameters that are tolerated as missing or of another shape are initialised.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Parameters the checkpoint lacks are initialised instead of refused.
    pub allow_missing: bool,
    /// Tensors the network has no place for are ignored instead of refused.
    pub allow_unused: bool,
    /// Parameters of another shape are initialised instead of refused.
    pub allow_mismatched: bool,
    /// How parameters that the checkpoint does not supply begin.
    pub initialisation: Initialisation,
    /// Seed of that initialisation.
    pub seed: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            allow_missing: false,
            allow_unused: false,
            allow_mismatched: false,
            initialisation: Initialisation::NnUNetV1,
            seed: 0,
        }
    }
}

/// An open checkpoint: its tensors by our names, none of them read yet.
#[derive(Debug)]
pub struct Checkpoint {
    kind: CheckpointKind,
    network: NetworkKind,
    file: TorchFile,
    tensors: BTreeMap<String, TensorRef>,
    unknown: Vec<String>,
    plan_file: Option<Value>,
}

impl Checkpoint {
    /// Opens a v1 `.model` or a v2 `.pth` file, whichever it is, and the `.pkl` beside it.
    ///
    /// # Errors
    /// When the file is no torch file, is truncated or corrupt, holds no weights, or holds those of
    /// another network; when its pickle names what is not on the allow-list.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let mut checkpoint = Self::from_file(TorchFile::open(path)?)?;
        let pkl = plan_file_of(path).filter(|pkl| pkl.is_file());
        if let (CheckpointKind::NnUNetV1, Some(pkl)) = (checkpoint.kind, pkl) {
            checkpoint.plan_file = Some(pickle::read_file(&pkl)?);
        }
        Ok(checkpoint)
    }

    /// As [`open`](Self::open), of a file that is in memory, and of the `.pkl` beside it, if there is
    /// one; errors name `path`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(
        bytes: impl Into<Arc<Vec<u8>>>,
        pkl: Option<&[u8]>,
        path: &Path,
    ) -> Result<Self, ModelError> {
        let mut checkpoint = Self::from_file(TorchFile::from_bytes(bytes, path)?)?;
        if let (CheckpointKind::NnUNetV1, Some(pkl)) = (checkpoint.kind, pkl) {
            let at = plan_file_of(path).unwrap_or_default();
            checkpoint.plan_file = Some(pickle::read_bytes(pkl, &at)?);
        }
        Ok(checkpoint)
    }

    /// The checkpoint in an open torch file, without what may lie beside it.
    ///
    /// # Errors
    /// When the file holds no weights, or those of another network.
    pub fn from_file(file: TorchFile) -> Result<Self, ModelError> {
        let path = file.path();
        let kind = CheckpointKind::ALL
            .into_iter()
            .find(|kind| file.root().get(kind.weights_key()).is_some());
        let Some(kind) = kind else {
            let expected = "`state_dict` (nnU-Net v1) or `network_weights` (v2)";
            return Err(ModelError::checkpoint(path, expected, keys(file.root())));
        };
        let weights = file.root().get(kind.weights_key()).expect("it was found above");
        let Tensors { network, tensors, unknown } = tensors(path, weights)?;
        Ok(Self { kind, network, tensors, unknown, plan_file: None, file })
    }

    /// Which program wrote it.
    pub fn kind(&self) -> CheckpointKind {
        self.kind
    }

    /// Which network it holds.
    pub fn network(&self) -> NetworkKind {
        self.network
    }

    /// Fails where it holds another network.
    pub(super) fn expect(&self, network: NetworkKind) -> Result<(), ModelError> {
        match self.network == network {
            true => Ok(()),
            false => Err(ModelError::checkpoint(self.path(), network.name(), self.network.name())),
        }
    }

    /// The checkpoint's path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Epochs trained, if the checkpoint says so.
    pub fn epoch(&self) -> Option<i64> {
        let key = match self.kind {
            CheckpointKind::NnUNetV1 => "epoch",
            CheckpointKind::NnUNetV2 => "current_epoch",
        };
        self.file.root().get(key)?.as_i64()
    }

    /// The trainer's name, if it is recorded.
    pub fn trainer(&self) -> Option<&str> {
        match self.kind {
            CheckpointKind::NnUNetV1 => self.plan_file.as_ref()?.get("name")?.as_str(),
            CheckpointKind::NnUNetV2 => self.file.root().get("trainer_name")?.as_str(),
        }
    }

    /// What the checkpoint holds beside tensors, as JSON: epoch, losses, for v2 `init_args` with
    /// plans and dataset.
    pub fn metadata(&self) -> serde_json::Map<String, serde_json::Value> {
        let tensors = self.kind.tensor_keys();
        let entries = self.file.root().as_dict().into_iter().flat_map(|dict| dict.iter_str());
        entries
            .filter(|(key, _)| !tensors.contains(key))
            .map(|(key, value)| (key.to_owned(), value.to_json()))
            .collect()
    }

    /// The contents of the `.model.pkl` beside a v1 checkpoint, as JSON: `init`, `name`, `plans`.
    pub fn plan_file(&self) -> Option<serde_json::Value> {
        self.plan_file.as_ref().map(Value::to_json)
    }

    /// The tensors, by our parameter names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorRef)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Reads one tensor as `f32`.
    ///
    /// # Errors
    /// When there is none of that name, or it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        match self.tensors.get(name) {
            Some(tensor) => self.file.read_f32(tensor),
            None => Err(ModelError::checkpoint(self.path(), name, "no tensor of that name")),
        }
    }

    /// SGD's momentum buffers, by our parameter names; a parameter that never had a gradient has none.
    ///
    /// # Errors
    /// When there is no state of an optimiser, it is of another optimiser, or its tensors are not of the
    /// shapes of the parameters.
    ///
    /// # Source
    /// `torch.optim.SGD.state_dict`: buffers by number, numbers in the order of the parameters, which is
    /// that of the weights.
    pub fn momentum(&self) -> Result<BTreeMap<String, Vec<f32>>, ModelError> {
        let bad = |expected: &str, found: String| {
            Err(ModelError::checkpoint(self.path(), expected, found))
        };
        let [weights, optimiser] = self.kind.tensor_keys().map(|key| self.file.root().get(key));
        let names: Vec<Option<String>> = weights
            .and_then(Value::as_dict)
            .map(|dict| dict.iter_str().map(|(key, _)| own_name(key)).collect())
            .unwrap_or_default();
        let groups = optimiser.and_then(|o| o.get("param_groups"));
        let (Some(state), Some(Value::List(groups))) =
            (optimiser.and_then(|o| o.get("state")).and_then(Value::as_dict), groups)
        else {
            return bad("the state of an optimiser, to go on with", "none".to_owned());
        };
        let numbers: Vec<&Value> = groups
            .iter()
            .filter_map(|group| match group.get("params") {
                Some(Value::List(numbers)) => Some(numbers),
                _ => None,
            })
            .flatten()
            .collect();
        if numbers.len() != names.len() {
            let found = format!("{} of {}", numbers.len(), names.len());
            return bad("an optimiser of all parameters", found);
        }
        let mut found = BTreeMap::new();
        for (number, entry) in &state.entries {
            let place = numbers.iter().position(|known| *known == number);
            let Some(name) = place.and_then(|place| names[place].clone()) else {
                return bad("momentum of parameters that there are", format!("{number:?}"));
            };
            let buffer = match entry.get("momentum_buffer") {
                Some(Value::Tensor(buffer)) => buffer,
                Some(Value::None) => continue,
                _ => return bad("momentum of SGD", format!("another entry for {name}")),
            };
            let shape = self.tensors.get(&name).map(|weights| &weights.shape[..]);
            if shape != Some(&buffer.shape[..]) {
                let found = format!("{:?}", buffer.shape);
                return bad(&format!("momentum of {name} of shape {shape:?}"), found);
            }
            found.insert(name, self.file.read_f32(buffer)?);
        }
        Ok(found)
    }

    /// The configuration: channels, classes, width and depth are read off the shapes; strides leave
    /// no trace in a checkpoint and come from the plans.
    ///
    /// # Errors
    /// When a tensor that tells a size is missing, or the sizes describe no network.
    pub fn config(
        &self,
        strides: [[usize; 3]; NUM_UPSAMPLINGS],
    ) -> Result<StuNetConfig, ModelError> {
        self.expect(NetworkKind::StuNet)?;
        let mut width = [0; NUM_STAGES];
        let mut depth = [0; NUM_STAGES];
        for stage in 0..NUM_STAGES {
            width[stage] = self.length(&first_weight(stage), 0)?;
            depth[stage] = self.depth(stage);
        }
        let config = StuNetConfig {
            in_channels: self.length(&first_weight(0), 1)?,
            num_classes: self.length(&finest_head(), 0)?,
            width,
            depth,
            strides,
        };
        config.validate()?;
        Ok(config)
    }

    pub(super) fn length(&self, name: &str, axis: usize) -> Result<usize, ModelError> {
        let shape = self.tensors.get(name).map(|tensor| &tensor.shape[..]);
        match shape {
            Some(shape @ [_, _, _, _, _]) => Ok(shape[axis]),
            Some(shape) => {
                let expected = format!("{name} with five axes");
                Err(ModelError::checkpoint(self.path(), expected, format!("shape {shape:?}")))
            }
            None => {
                let expected = format!("tensor {name}");
                Err(ModelError::checkpoint(self.path(), expected, "a checkpoint without it"))
            }
        }
    }

    /// Blocks of a stage: one more than the highest index that occurs.
    fn depth(&self, stage: usize) -> usize {
        let prefix = format!("{}.", stage_path(stage));
        let blocks = self.tensors.range(prefix.clone()..).map_while(|(name, _)| {
            let (block, _) = name.strip_prefix(&prefix)?.split_once('.')?;
            block.parse::<usize>().ok()
        });
        blocks.max().map_or(0, |last| last.saturating_add(1))
    }

    /// What loading into a network of this configuration would apply; reads no tensor.
    pub fn compare(&self, config: &StuNetConfig) -> LoadReport {
        self.compare_specs(&config.parameter_specs())
    }

    pub(super) fn compare_specs(&self, specs: &[ParameterSpec]) -> LoadReport {
        let found = self.tensors.iter().map(|(name, tensor)| (&name[..], &tensor.shape[..]));
        let mut report = LoadReport::compare(specs, found);
        report.unused.splice(0..0, self.unknown.iter().cloned());
        report
    }

    /// Loads the network the checkpoint holds.
    ///
    /// # Errors
    /// As [`config`](Self::config) and [`load_into`](Self::load_into).
    pub fn load(
        &self,
        strides: [[usize; 3]; NUM_UPSAMPLINGS],
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(StuNet, LoadReport), ModelError> {
        self.load_into(&self.config(strides)?, options, device)
    }

    /// Loads into a network of a given configuration, for instance with other classes.
    ///
    /// # Errors
    /// When something is missing, unused or of another shape and `options` does not allow it; when
    /// a tensor cannot be read.
    pub fn load_into(
        &self,
        config: &StuNetConfig,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(StuNet, LoadReport), ModelError> {
        let (mut source, mut report) = self.source(config, options)?;
        let mut source = Digesting::new(&mut source);
        let network = StuNet::from_source(config, &mut source, device)?;
        report.digest = Some(source.finish());
        Ok((network, report))
    }

    /// Loads the encoder alone, such as that of [`config`](Self::config); the report names the
    /// decoder's parameters as left out.
    ///
    /// # Errors
    /// As [`load_into`](Self::load_into), of the encoder's parameters.
    pub fn load_encoder(
        &self,
        config: &StuNetConfig,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(Encoder, LoadReport), ModelError> {
        config.validate()?;
        let report = self.compare_specs(&config.encoder_specs()).of_encoder();
        let (mut source, report) = self.source_of(report, options)?;
        Ok((Encoder::from_source(config, &mut source, device)?, report))
    }

    /// The checkpoint as a source of parameters for a network of a given configuration.
    ///
    /// # Errors
    /// When something is missing, unused or of another shape and `options` does not allow it.
    pub fn source(
        &self,
        config: &StuNetConfig,
        options: &LoadOptions,
    ) -> Result<(CheckpointSource<'_>, LoadReport), ModelError> {
        self.expect(NetworkKind::StuNet)?;
        config.validate()?;
        self.source_of(self.compare(config), options)
    }

    fn source_of(
        &self,
        report: LoadReport,
        options: &LoadOptions,
    ) -> Result<(CheckpointSource<'_>, LoadReport), ModelError> {
        let refused = (!report.missing.is_empty() && !options.allow_missing)
            || (!report.unused.is_empty() && !options.allow_unused)
            || (!report.mismatched.is_empty() && !options.allow_mismatched);
        if refused {
            let path = self.path().to_owned();
            return Err(ModelError::Load { report: Box::new(report), path });
        }
        let initial = Initialiser::new(options.initialisation, options.seed);
        Ok((CheckpointSource { checkpoint: self, initial }, report))
    }
}

/// A checkpoint as a source of parameters: each is read when it is asked for.
pub struct CheckpointSource<'a> {
    checkpoint: &'a Checkpoint,
    initial: Initialiser,
}

impl ParameterSource for CheckpointSource<'_> {
    fn parameter(&mut self, spec: &ParameterSpec) -> Result<TensorData, ModelError> {
        match self.checkpoint.tensors.get(&spec.name) {
            Some(tensor) if tensor.shape == spec.shape => {
                let values = self.checkpoint.file.read_f32(tensor)?;
                Ok(TensorData::new(values, spec.shape.clone()))
            }
            _ => self.initial.parameter(spec),
        }
    }
}

/// The tensors of a checkpoint.
struct Tensors {
    network: NetworkKind,
    /// By our names.
    tensors: BTreeMap<String, TensorRef>,
    /// Keys that are none of the network's.
    unknown: Vec<String>,
}

/// Finds out which network it is that has any of these tensors.
fn tensors(path: &Path, weights: &Value) -> Result<Tensors, ModelError> {
    let own = tensors_of(path, weights, NetworkKind::StuNet)?;
    if !own.tensors.is_empty() {
        return Ok(own);
    }
    let named = own.unknown.iter().find_map(|key| known_by(key));
    if named.is_none() {
        let plain = tensors_of(path, weights, NetworkKind::PlainConvUNet)?;
        if !plain.tensors.is_empty() {
            return Ok(plain);
        }
    }
    let unknown = own.unknown;
    let first = unknown.first().map_or("none", String::as_str);
    let found = match named {
        Some(name) => name.to_owned(),
        None => format!("{} tensors, such as `{first:.80}`", unknown.len()),
    };
    let expected = format!("an STU-Net (`{WITNESS}`) or a PlainConvUNet of nnU-Net 2");
    Err(ModelError::checkpoint(path, expected, found))
}

fn tensors_of(path: &Path, weights: &Value, network: NetworkKind) -> Result<Tensors, ModelError> {
    let Some(dict) = weights.as_dict() else {
        return Err(ModelError::checkpoint(path, "a dict of weights", "another value"));
    };
    let (mut tensors, mut unknown) = (BTreeMap::new(), Vec::new());
    for (key, value) in &dict.entries {
        let (Value::Str(key), Value::Tensor(tensor)) = (key, value) else {
            return Err(ModelError::checkpoint(path, "tensors by name", "another kind of entry"));
        };
        let found = match network {
            NetworkKind::StuNet => own_name(key).map_or(Key::Unknown, Key::Parameter),
            NetworkKind::PlainConvUNet => plain::own_name(key),
        };
        match found {
            Key::Parameter(name) => {
                if tensors.insert(name, tensor.clone()).is_some() {
                    let found = format!("`{key:.80}` with and without a prefix");
                    return Err(ModelError::checkpoint(path, "every tensor once", found));
                }
            }
            Key::Again => {}
            Key::Unknown => unknown.push(key.clone()),
        }
    }
    Ok(Tensors { network, tensors, unknown })
}

/// Where nnU-Net v1 keeps the plans of a checkpoint: `NAME.model.pkl` beside `NAME.model`.
pub fn plan_file_of(path: &Path) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(".pkl");
    Some(path.with_file_name(name))
}

/// The keys of a pickle's root, for an error message.
fn keys(root: &Value) -> String {
    match root.as_dict() {
        Some(dict) => {
            let keys: Vec<_> = dict.iter_str().map(|(k, _)| format!("`{k:.40}`")).take(6).collect();
            format!("a dict with {}", keys.join(", "))
        }
        None => "no dict".to_owned(),
    }
}
