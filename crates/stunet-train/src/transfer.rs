//! Pre-trained weights: what is carried over, what is not, and why.

mod labels;
mod stem;
mod table;

pub use labels::{check_labels, heads_by_name, labels_of};
pub use stem::StemAdaptation;
pub use table::{TransferRow, TransferTable};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferOptions {
    /// An upsampling that does not fit is initialised, as STU-Net's fine-tuning script for nnU-Net 1
    /// does; else every parameter except the heads' must fit, as in that for nnU-Net 2. The encoder's and
    /// the decoder's blocks must fit in any case.
    pub without_upsampling: bool,
    /// Carry the segmentation heads over as well: for the same labels in the same order, which
    /// [`check_labels`] holds against those of the file. The reference does not.
    pub keep_heads: bool,
    /// For every output of the network the output of the file whose head it begins with, or none for a
    /// new one: [`heads_by_name`] finds them for labels of other order and number. The reference
    /// has no such thing.
    pub head_rows: Option<Vec<Option<usize>>>,
    /// What becomes of the stem where the file has other input channels.
    pub stem: StemAdaptation,
    /// Divide the adapted stem by the number of channels that take the place of one, so that equal
    /// channels give what they gave. The reference does not.
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
            head_rows: None,
            stem: StemAdaptation::default(),
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
    /// The stem's, made of those for other input channels.
    pub repeated: Vec<String>,
    /// Input channels of the file and of the network.
    pub channels: [usize; 2],
    /// How the stem was adapted, where it was.
    pub stem: Option<StemAdaptation>,
    /// Whether the adapted stem was divided.
    pub divided: bool,
    /// The heads' that were initialised: all of them, or none where they were kept.
    pub heads: Vec<String>,
    /// The heads' of which some outputs were carried over, and the others initialised.
    pub heads_by_name: Vec<String>,
    /// Outputs that were carried over by name, and all there are.
    pub outputs: [usize; 2],
    /// Others that do not fit and were initialised.
    pub initialised: Vec<String>,
    /// Tensors of the file that the network has no place for.
    pub unused: Vec<String>,
}

impl fmt::Display for TransferReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_name = self.heads_by_name.len();
        write!(f, "{} parameters carried over", self.copied.len() + self.repeated.len() + by_name)?;
        if let Some(stem) = self.stem {
            let (count, told) = (self.repeated.len(), stem.told(self.channels, self.divided));
            write!(f, " ({count} of the stem {told})")?;
        }
        match (self.heads.len(), by_name) {
            (0, 0) => write!(f, ", the heads among them")?,
            (0, _) => {
                let [taken, all] = self.outputs;
                write!(f, ", the heads by name for {taken} of {all} outputs")?;
            }
            (count, _) => write!(f, ", {count} of the heads initialised")?,
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
/// Segmentation heads are carried over only with [`TransferOptions::keep_heads`], or output by output
/// with [`TransferOptions::head_rows`]: other labels mean other heads, and equal numbers of classes do not
/// mean equal classes. If the file has other input channels than the network, the stem's two convolutions
/// are adapted ([`StemAdaptation`]). Spacing, patch size and strides need no adaptation: no weight's shape
/// depends on them.
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
    let mut report = TransferReport::default();
    if let Some(channels) = plan.values().find_map(|fate| fate.channels()) {
        report.channels = [channels, config.in_channels];
        report.stem = Some(options.stem);
        report.divided = options.divide_stem && options.stem.divides();
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
            Fate::Stem { channels } => {
                report.repeated.push(name);
                let shape = [&spec.shape[..1], &[channels], &spec.shape[2..]].concat();
                let file = pretrained.read(&ParameterSpec { shape, ..spec.clone() })?;
                options.stem.adapt(&file, spec, channels, options.divide_stem)
            }
            Fate::Rows { outputs } => {
                report.heads_by_name.push(name);
                let rows = options.head_rows.as_deref().unwrap_or_default();
                report.outputs = [rows.iter().flatten().count(), rows.len()];
                let shape = [&[outputs], &spec.shape[1..]].concat();
                let file = pretrained.read(&ParameterSpec { shape, ..spec.clone() })?;
                Ok(with_rows(drawn, &file, rows))
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
    /// Made of a weight for so many channels.
    Stem {
        channels: usize,
    },
    /// Some outputs from a head of so many.
    Rows {
        outputs: usize,
    },
    Head,
    Initialise,
}

impl Fate {
    fn channels(self) -> Option<usize> {
        if let Self::Stem { channels } = self { Some(channels) } else { None }
    }
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
            Some(shape)
                if spec.part == NetworkPart::Head && options.takes_rows(shape, &spec.shape) =>
            {
                Fate::Rows { outputs: shape[0] }
            }
            _ if spec.part == NetworkPart::Head && !options.keep_heads => Fate::Head,
            Some(shape) if *shape == spec.shape => Fate::Copy,
            Some(_) if spec.sees_image && options.stem == StemAdaptation::New => Fate::Initialise,
            Some(shape) if spec.sees_image && other_channels(shape, &spec.shape) => {
                Fate::Stem { channels: shape[1] }
            }
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

impl TransferOptions {
    /// Whether outputs of a head of the file are carried over one by one.
    fn takes_rows(&self, found: &[usize], expected: &[usize]) -> bool {
        let Some(rows) = &self.head_rows else { return false };
        let inside = |row: &usize| found.first().is_some_and(|outputs| row < outputs);
        rows.len() == expected[0]
            && rows.iter().flatten().all(inside)
            && found[1..] == expected[1..]
    }
}

/// Other input channels, all else equal.
fn other_channels(found: &[usize], expected: &[usize]) -> bool {
    let [out, channels, rest @ ..] = found else { return false };
    *channels > 0 && *out == expected[0] && *rest == expected[2..]
}

/// Some rows of a drawn weight or bias replaced by rows of a file's.
fn with_rows(drawn: TensorData, file: &TensorData, rows: &[Option<usize>]) -> TensorData {
    let shape = drawn.shape().to_vec();
    let size = shape[1..].iter().product::<usize>();
    let mut values: Vec<f32> = drawn.iter::<f32>().collect();
    let file: Vec<f32> = file.iter::<f32>().collect();
    for (values, row) in values.chunks_exact_mut(size).zip(rows) {
        if let Some(row) = row {
            values.copy_from_slice(&file[row * size..(row + 1) * size]);
        }
    }
    TensorData::new(values, shape)
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
            Weights::Training(checkpoint) => checkpoint.merged(Group::Weights).parameter(spec),
            Weights::Folder(network) => network.source().parameter(spec),
        }
    }
}

#[cfg(test)]
mod tests;
