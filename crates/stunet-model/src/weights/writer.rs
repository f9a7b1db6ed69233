//! Checkpoints as nnU-Net writes them, for nnU-Net and PyTorch to load.
//!
//! A zip archive with a pickle of protocol 2 and one uncompressed record per tensor, each at a
//! multiple of 64 bytes. Tensors are asked for and written one at a time.

use super::muted::Muted;
use super::pickle::{self, Dict, Value};
use super::tensor::{Dtype, StorageRef, TensorRef};
use super::{atomic, key_map, values};
use crate::{ModelError, ParameterSource, ParameterSpec, StuNetConfig};
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A network to be written, and optionally the momentum of its optimiser.
pub struct Contents<'a> {
    /// The network's configuration.
    pub config: &'a StuNetConfig,
    /// Its parameters.
    pub parameters: &'a mut dyn ParameterSource,
    /// Momentum buffers of SGD, asked for under the same names.
    pub momentum: Option<&'a mut dyn ParameterSource>,
    /// Learning rate, momentum and weight decay recorded with the momentum buffers.
    pub optimiser: SgdRecord,
}

/// What a checkpoint records of SGD.
#[derive(Clone, Copy, Debug)]
pub struct SgdRecord {
    /// Learning rate.
    pub lr: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

impl Default for SgdRecord {
    /// nnU-Net's.
    fn default() -> Self {
        Self { lr: 0.01, momentum: 0.99, weight_decay: 3e-5 }
    }
}

/// What nnU-Net v1 keeps with a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct V1Metadata {
    /// Epochs trained.
    pub epoch: usize,
    /// Losses and the evaluation metric per epoch: training, validation, metric.
    pub history: [Vec<f64>; 3],
    /// Contents of the `.model.pkl`: `init`, `name` and `plans`; keys that are integers in JSON
    /// text become integers. Nothing is written beside the checkpoint if there are none.
    pub plan_file: Option<serde_json::Value>,
}

/// What nnU-Net v2 keeps with a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct V2Metadata {
    /// Epochs trained.
    pub epoch: usize,
    /// The trainer's name.
    pub trainer: String,
    /// Axes along which predictions may be mirrored.
    pub mirror_axes: Vec<usize>,
    /// Arguments of the trainer: `plans`, `configuration`, `fold`, `dataset_json`, ...
    pub init_args: serde_json::Value,
    /// Logged values by name, one per epoch; what is no number is null here and NaN there.
    pub logging: serde_json::Value,
    /// Best moving average of the pseudo-Dice so far.
    pub best_ema: Option<f64>,
}

/// Writes an nnU-Net v1 `.model`, and `.model.pkl` beside it if plans are given.
///
/// # Errors
/// When a source fails or a file cannot be written.
pub fn write_v1(
    path: &Path,
    contents: Contents<'_>,
    metadata: &V1Metadata,
) -> Result<(), ModelError> {
    let mut archive = Plan::new(contents);
    let floats = |v: &[f64]| Value::List(v.iter().map(|&v| Value::Float(v)).collect());
    let [training, validation, metric] = &metadata.history;
    let root = Value::dict([
        ("epoch", int(metadata.epoch)),
        ("state_dict", archive.state_dict()),
        ("optimizer_state_dict", archive.optimiser_state()),
        ("lr_scheduler_state_dict", Value::None),
        (
            "plot_stuff",
            Value::Tuple(vec![
                floats(training),
                floats(validation),
                Value::List(Vec::new()),
                floats(metric),
            ]),
        ),
        ("best_stuff", Value::Tuple(vec![Value::None, Value::None, Value::None])),
    ]);
    archive.write(path, "archive", &root, &[])?;
    match &metadata.plan_file {
        Some(plans) => {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".pkl");
            write_pickle(&path.with_file_name(name), &Value::from_json_int_keys(plans))
        }
        None => Ok(()),
    }
}

/// Writes an nnU-Net v2 `checkpoint_*.pth`.
///
/// # Errors
/// When a source fails or the file cannot be written.
pub fn write_v2(
    path: &Path,
    contents: Contents<'_>,
    metadata: &V2Metadata,
) -> Result<(), ModelError> {
    let mut archive = Plan::new(contents);
    let root = Value::dict([
        ("network_weights", archive.state_dict()),
        ("optimizer_state", archive.optimiser_state()),
        ("grad_scaler_state", Value::None),
        ("logging", numbers(Value::from_json(&metadata.logging))),
        ("_best_ema", metadata.best_ema.map_or(Value::None, Value::Float)),
        ("current_epoch", int(metadata.epoch)),
        ("init_args", Value::from_json(&metadata.init_args)),
        ("trainer_name", Value::Str(metadata.trainer.clone())),
        ("inference_allowed_mirroring_axes", mirroring(&metadata.mirror_axes)),
    ]);
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("archive").to_owned();
    archive.write(path, &stem, &root, &[("byteorder", b"little")])
}

/// Writes a pickle that stands alone, such as nnU-Net v1's `plans.pkl`.
///
/// # Errors
/// When the file cannot be written.
pub fn write_pickle(path: &Path, value: &Value) -> Result<(), ModelError> {
    let io = |e| ModelError::io("write", path, e);
    atomic::write(path, io, |out| out.write_all(&pickle::write(value)).map_err(io))
}

/// The same value with NaN where there is nothing: nnU-Net computes with what it logged.
fn numbers(value: Value) -> Value {
    match value {
        Value::None => Value::Float(f64::NAN),
        Value::List(values) => Value::List(values.into_iter().map(numbers).collect()),
        Value::Dict(dict) => {
            let entries = dict.entries.into_iter().map(|(key, value)| (key, numbers(value)));
            Value::Dict(Dict { entries: entries.collect(), ..dict })
        }
        other => other,
    }
}

fn int(v: usize) -> Value {
    Value::Int(v as i128)
}

/// The tensors of an archive: parameters first, momentum buffers after them.
struct Plan<'a> {
    contents: Contents<'a>,
    specs: Vec<ParameterSpec>,
}

impl<'a> Plan<'a> {
    fn new(contents: Contents<'a>) -> Self {
        Self { specs: contents.config.parameter_specs(), contents }
    }

    /// The tensor of a parameter whose record is `data/{record}`.
    fn tensor(&self, index: usize, record: usize) -> Value {
        let shape = self.specs[index].shape.clone();
        let mut stride = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            stride[axis - 1] = stride[axis] * shape[axis];
        }
        let numel = shape.iter().product();
        let storage = StorageRef { key: record.to_string(), dtype: Dtype::F32, numel, start: 0 };
        Value::Tensor(TensorRef { storage: Arc::new(storage), offset: 0, shape, stride })
    }

    fn state_dict(&self) -> Value {
        let entry = |(index, spec): (usize, &ParameterSpec)| {
            let key = key_map::reference_key(&spec.name).expect("every parameter has a key");
            (Value::Str(key), self.tensor(index, index))
        };
        let entries = self.specs.iter().enumerate().map(entry).collect();
        Value::Dict(Dict { entries, ordered: true })
    }

    fn optimiser_state(&self) -> Value {
        if self.contents.momentum.is_none() {
            return Value::None;
        }
        let count = self.specs.len();
        let state = |index| {
            let buffer = self.tensor(index, count + index);
            (int(index), Value::dict([("momentum_buffer", buffer)]))
        };
        let optimiser = &self.contents.optimiser;
        let group = Value::dict([
            ("lr", Value::Float(optimiser.lr)),
            ("momentum", Value::Float(optimiser.momentum)),
            ("dampening", int(0)),
            ("weight_decay", Value::Float(optimiser.weight_decay)),
            ("nesterov", Value::Bool(true)),
            ("params", Value::List((0..count).map(int).collect())),
        ]);
        let state = Dict { entries: (0..count).map(state).collect(), ordered: false };
        Value::dict([("state", Value::Dict(state)), ("param_groups", Value::List(vec![group]))])
    }

    fn write(
        &mut self,
        path: &Path,
        prefix: &str,
        root: &Value,
        notes: &[(&str, &[u8])],
    ) -> Result<(), ModelError> {
        let io = |e| ModelError::io("write", path, e);
        atomic::write(path, io, |out| {
            let mut zip = ZipWriter::new(Muted::new(out));
            let mut record = |name: &str, bytes: &[u8]| {
                start(&mut zip, &format!("{prefix}/{name}"), bytes.len())?;
                zip.write_all(bytes)
            };
            record("data.pkl", &pickle::write(root)).map_err(io)?;
            for (name, bytes) in notes {
                record(name, bytes).map_err(io)?;
            }
            let Contents { parameters, momentum, .. } = &mut self.contents;
            let mut sources: Vec<&mut dyn ParameterSource> = vec![&mut **parameters];
            if let Some(momentum) = momentum {
                sources.push(&mut **momentum);
            }
            let mut index = 0;
            for source in sources {
                for spec in &self.specs {
                    let data = values(source, spec)?;
                    let floats = data.as_slice::<f32>().expect("the values were converted to f32");
                    record(&format!("data/{index}"), &little_endian(floats)).map_err(io)?;
                    index += 1;
                }
            }
            record("version", b"3\n").map_err(io)?;
            zip.finish().map_err(|e| io(e.into()))?.into_inner().map_err(io)?;
            Ok(())
        })
    }
}

fn start<W: Write + Seek>(zip: &mut ZipWriter<W>, name: &str, bytes: usize) -> std::io::Result<()> {
    // Readers of torch map storages: 64 bytes is what torch itself aligns them to.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(bytes as u64 >= u32::MAX.into())
        .with_alignment(64);
    zip.start_file(name, options).map_err(Into::into)
}

fn little_endian(floats: &[f32]) -> std::borrow::Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        bytemuck::cast_slice(floats).into()
    } else {
        floats.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>().into()
    }
}

/// As nnU-Net reads it: it fails at an empty tuple, and takes none for no mirroring.
fn mirroring(axes: &[usize]) -> Value {
    match axes {
        [] => Value::None,
        axes => Value::Tuple(axes.iter().map(|&axis| int(axis)).collect()),
    }
}
