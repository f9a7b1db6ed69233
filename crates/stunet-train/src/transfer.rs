//! Pre-trained weights: what is carried over, what is not, and why.

mod labels;

pub use labels::{check_labels, labels_of};

use crate::checkpoint::{Group, TrainingCheckpoint, is_training_checkpoint};
use crate::error::{Result, TrainError};
use burn::tensor::{Device, TensorData};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use stunet_model::weights::{Checkpoint, folder};
use stunet_model::{
    Initialisation, ModelError, NetworkPart, ParameterSource, ParameterSpec, StuNet, StuNetConfig,
};

/// How weights are carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferOptions {
    /// An upsampling that does not fit is initialised, as STU-Net's fine-tuning script for nnU-Net 1
    /// does; else every parameter except the heads' must fit, as in that for nnU-Net 2. The encoder's and
    /// the decoder's blocks must fit in any case.
    pub without_upsampling: bool,
    /// Carry the segmentation heads over as well: for the same labels in the same order, which
    /// [`check_labels`] holds against those of the file. The reference does not.
    pub keep_heads: bool,
    /// Divide the repeated stem by the number of input channels, so that equal channels give what
    /// the one channel gave. The reference does not.
    pub divide_stem: bool,
    /// How parameters that are not carried over begin.
    pub initialisation: Initialisation,
    /// Seed of that.
    pub seed: u64,
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self {
            without_upsampling: true,
            keep_heads: false,
            divide_stem: false,
            initialisation: Initialisation::NnUNetV1,
            seed: 0,
        }
    }
}

/// What was done with every parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransferReport {
    /// Copied as they are.
    pub copied: Vec<String>,
    /// The stem's, repeated for every input channel.
    pub repeated: Vec<String>,
    /// By how many channels the repeated ones were divided; 1 for not.
    pub divided_by: usize,
    /// The heads' that were initialised: all of them, or none where they were kept.
    pub heads: Vec<String>,
    /// Others that do not fit and were initialised.
    pub initialised: Vec<String>,
    /// Tensors of the file that the network has no place for.
    pub unused: Vec<String>,
}

impl fmt::Display for TransferReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parameters carried over", self.copied.len() + self.repeated.len())?;
        if !self.repeated.is_empty() {
            let divided = match self.divided_by {
                1 => String::new(),
                n => format!(" and divided by {n}"),
            };
            let count = self.repeated.len();
            write!(f, " ({count} of the stem repeated for every channel{divided})")?;
        }
        match self.heads.len() {
            0 => write!(f, ", the heads among them")?,
            count => write!(f, ", {count} of the heads initialised")?,
        }
        let rest =
            [(&self.initialised, "others initialised"), (&self.unused, "of the file unused")];
        for (names, what) in rest {
            if !names.is_empty() {
                write!(f, ", {} {what} ({})", names.len(), names.join(", "))?;
            }
        }
        Ok(())
    }
}

/// A network of configuration `config` that begins with the weights of `file`: an nnU-Net
/// checkpoint (v1 or v2), a checkpoint of a training run, or a model folder.
///
/// Segmentation heads are carried over only with [`TransferOptions::keep_heads`]: other labels mean
/// other heads, and equal numbers of classes do not mean equal classes. If the file has one input channel and the network several,
/// the stem's two convolutions are repeated for each.
///
/// # Errors
/// When the file cannot be read, or does not fit by the rules chosen.
///
/// # Source
/// STU-Net `run_finetuning.py` (nnU-Net 1.7.1) and `run_finetuning_stunet.py` (nnU-Net 2.2).
///
/// # Deviations
/// The reference repeats the stem whenever the network has several channels, and so refuses a file
/// with as many; such a file is copied here.
pub fn transfer(
    file: &Path,
    config: &StuNetConfig,
    options: &TransferOptions,
    device: &Device,
) -> Result<(StuNet, TransferReport)> {
    let mut pretrained = Pretrained::open(file, device)?;
    let plan = plan(&pretrained, config, options)?;
    let mut report = TransferReport { divided_by: 1, ..TransferReport::default() };
    if options.divide_stem && plan.values().any(|fate| *fate == Fate::Repeat) {
        report.divided_by = config.in_channels;
    }
    let mut initial = options.initialisation.source(options.seed);
    let mut source = |spec: &ParameterSpec| -> Result<TensorData, ModelError> {
        let name = spec.name.clone();
        // The initial values are drawn even where they are not used: the others then do not depend
        // on what is carried over.
        let drawn = initial.parameter(spec)?;
        match plan[&name] {
            Fate::Copy => {
                report.copied.push(name);
                pretrained.read(spec)
            }
            Fate::Repeat => {
                report.repeated.push(name);
                let narrow = ParameterSpec {
                    shape: [&spec.shape[..1], &[1], &spec.shape[2..]].concat(),
                    ..spec.clone()
                };
                repeat(pretrained.read(&narrow)?, spec, report.divided_by as f32)
            }
            Fate::Head => {
                report.heads.push(name);
                Ok(drawn)
            }
            Fate::Initialise => {
                report.initialised.push(name);
                Ok(drawn)
            }
        }
    };
    let network = StuNet::from_source(config, &mut source, device)?;
    let names = pretrained.shapes.keys();
    report.unused = names.filter(|name| !plan.contains_key(*name)).cloned().collect();
    Ok((network, report))
}

/// What happens to a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Copy,
    Repeat,
    Head,
    Initialise,
}

/// Decides for every parameter before any is read.
fn plan(
    pretrained: &Pretrained,
    config: &StuNetConfig,
    options: &TransferOptions,
) -> Result<BTreeMap<String, Fate>> {
    let mut plan = BTreeMap::new();
    for spec in config.parameter_specs() {
        let found = pretrained.shapes.get(&spec.name);
        let fate = match found {
            _ if spec.part == NetworkPart::Head && !options.keep_heads => Fate::Head,
            Some(shape) if *shape == spec.shape => Fate::Copy,
            Some(shape) if spec.sees_image && repeats(shape, &spec.shape) => Fate::Repeat,
            _ if options.without_upsampling && spec.part == NetworkPart::Upsampling => {
                Fate::Initialise
            }
            _ => {
                return Err(TrainError::Transfer {
                    name: spec.name,
                    expected: format!("shape {:?}", spec.shape),
                    found: found.map_or_else(|| "none".to_owned(), |shape| format!("{shape:?}")),
                    path: pretrained.path.clone(),
                });
            }
        };
        plan.insert(spec.name, fate);
    }
    Ok(plan)
}

/// One input channel there, several here, all else equal.
fn repeats(found: &[usize], expected: &[usize]) -> bool {
    let [out, 1, rest @ ..] = found else { return false };
    *out == expected[0] && *rest == expected[2..]
}

fn repeat(
    data: TensorData,
    spec: &ParameterSpec,
    divisor: f32,
) -> std::result::Result<TensorData, ModelError> {
    let [out, channels, kernel @ ..] = &spec.shape[..] else {
        unreachable!("a convolution's weight has five axes")
    };
    let size: usize = kernel.iter().product();
    let values: Vec<f32> = data.iter::<f32>().collect();
    let mut repeated = Vec::with_capacity(out * channels * size);
    for filter in values.chunks(size) {
        for _ in 0..*channels {
            repeated.extend(filter.iter().map(|v| v / divisor));
        }
    }
    Ok(TensorData::new(repeated, spec.shape.clone()))
}

/// A file with weights: shapes by our names, and how to read them.
struct Pretrained {
    path: PathBuf,
    shapes: BTreeMap<String, Vec<usize>>,
    weights: Weights,
}

enum Weights {
    NnUNet(Checkpoint),
    Training(Box<TrainingCheckpoint>),
    /// Loaded as a whole, as its checksum covers the whole.
    Folder(StuNet),
}

impl Pretrained {
    fn open(path: &Path, device: &Device) -> Result<Self> {
        let (shapes, weights) = if path.is_dir() {
            let (network, _) = folder::open(path)?.load(device)?;
            let specs = network.config().parameter_specs();
            let shapes = specs.into_iter().map(|spec| (spec.name, spec.shape)).collect();
            (shapes, Weights::Folder(network))
        } else if is_training_checkpoint(path) {
            let checkpoint = TrainingCheckpoint::open(path)?;
            let shape = |name: &str| {
                let shape = checkpoint.shape(Group::Weights, name).unwrap_or_default();
                (name.to_owned(), shape.to_vec())
            };
            let shapes = checkpoint.names(Group::Weights).map(shape).collect();
            (shapes, Weights::Training(Box::new(checkpoint)))
        } else {
            let checkpoint = Checkpoint::open(path)?;
            let tensors = checkpoint.tensors();
            let shapes = tensors.map(|(name, t)| (name.to_owned(), t.shape.clone())).collect();
            (shapes, Weights::NnUNet(checkpoint))
        };
        Ok(Self { path: path.to_owned(), shapes, weights })
    }

    fn read(&mut self, spec: &ParameterSpec) -> std::result::Result<TensorData, ModelError> {
        match &self.weights {
            Weights::NnUNet(checkpoint) => {
                Ok(TensorData::new(checkpoint.read(&spec.name)?, spec.shape.clone()))
            }
            Weights::Training(checkpoint) => checkpoint.source(Group::Weights).parameter(spec),
            Weights::Folder(network) => network.source().parameter(spec),
        }
    }
}

#[cfg(test)]
mod tests;
