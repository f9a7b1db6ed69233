//! A training run on disk: one file that holds everything the run needs to go on.
//!
//! The file is in the safetensors format: the network's parameters under `weights/`, SGD's momentum
//! under `momentum/` or another optimiser's state under `optimiser/`, averaged weights, if any, under
//! `ema/`, low-rank factors under `low_rank/`, each by its path in the network (`encoder.stages.0.0.conv1.weight`; in files of version 1 by
//! a shorter [name](stunet_model::weights::names)). The header's metadata holds the rest as JSON:
//! configuration, [`Progress`], the settings of whoever trains, and a checksum of all of it. A
//! checkpoint appears whole or not at all, so a run killed at any moment finds the previous one.

use crate::error::{Result, TrainError};
use crate::exact;
use crate::history::Progress;
use crate::identity::Identity;
use burn::tensor::{DType, Device, TensorData};
use safetensors::tensor::{Dtype, Metadata};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use stunet_model::weights::{LoadReport, atomic, names, safetensors_file};
use stunet_model::{
    Encoder, LowRankConfig, ModelError, NetworkPart, ParameterSource, ParameterSpec, StuNetConfig,
};

/// Written every few epochs and on interruption; what a run continues from.
pub const LATEST: &str = "checkpoint_latest.safetensors";
/// Written whenever the moving average of the pseudo-Dice has never been better.
pub const BEST: &str = "checkpoint_best.safetensors";
/// Written at the end.
pub const FINAL: &str = "checkpoint_final.safetensors";

const FORMAT: &str = "stunet-checkpoint";
const VERSION: &str = "2";
/// Had other names of parameters, and is read as well.
const FORMER_VERSION: &str = "1";
/// How every checkpoint begins, after eight bytes that give the header's length; the checksum is
/// next. It covers the header, with zeros in its own place, and the data.
const BEGINNING: &[u8] = br#"{"__metadata__":{"crc32":""#;
const NO_CRC: &[u8] = b"00000000";
/// Longest header that is read.
const MAX_HEADER: u64 = 1 << 28;

/// Tensors by name, of every kind a checkpoint holds.
pub(crate) type Groups = Vec<(Group, Vec<(String, TensorData)>)>;

/// Tensors of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The network's parameters.
    Weights,
    /// SGD's momentum; a parameter that never had a gradient has none.
    Momentum,
    /// The state of any other optimiser.
    Optimiser,
    /// Moving average of the parameters; of the weights with the product of their low-rank factors.
    Ema,
    /// Low-rank factors beside weights.
    LowRank,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Momentum => "momentum",
            Self::Optimiser => "optimiser",
            Self::Ema => "ema",
            Self::LowRank => "low_rank",
        }
    }
}

/// Scale of the loss under f16.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// What the loss is multiplied by.
    #[serde(with = "exact")]
    pub factor: f64,
    /// Steps since it last changed.
    pub num_good_steps: u32,
}

/// A number of an optimiser's state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scalar {
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// A floating-point number.
    Float(#[serde(with = "exact")] f64),
    /// A truth value.
    Bool(bool),
}

/// What is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The network.
    pub config: StuNetConfig,
    /// Where the run stands.
    pub progress: Progress,
    /// Scale of the loss under f16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// The optimiser's numbers that are no tensors, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub optimiser: BTreeMap<String, Scalar>,
    /// Names of the parameters that stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frozen: Vec<String>,
    /// Rank and scale of the low-rank factors, where there are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_rank: Option<LowRankConfig>,
    /// The parts of the run that a caller may replace; earlier versions did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Settings of whoever trains, returned as they were given.
    #[serde(default)]
    pub run: Value,
}

/// Writes a checkpoint, whole or not at all.
///
/// # Errors
/// When the file cannot be written, or a tensor is neither `f32` nor `f64`.
pub fn save(
    path: &Path,
    state: &State,
    groups: &[(Group, Vec<(String, TensorData)>)],
) -> Result<()> {
    check_types(groups)?;
    let json = serde_json::to_string(state)
        .map_err(|e| TrainError::checkpoint(path, "a state that JSON can hold", e.to_string()))?;
    let header = header(&json, groups);
    debug_assert!(header.starts_with(&[BEGINNING, NO_CRC].concat()));
    let io = |e| TrainError::io("write", path, e);
    atomic::write(path, io, |file| {
        let mut crc32 = crc32fast::Hasher::new();
        crc32.update(&header);
        safetensors_file::begin(file, &header).map_err(io)?;
        for (_, data) in groups.iter().flat_map(|(_, tensors)| tensors) {
            let bytes = little_endian(data);
            crc32.update(&bytes);
            file.write_all(&bytes).map_err(io)?;
        }
        // The checksum is known only now; its place was kept.
        file.seek(SeekFrom::Start(8 + BEGINNING.len() as u64)).map_err(io)?;
        file.write_all(format!("{:08x}", crc32.finalize()).as_bytes()).map_err(io)
    })
}

/// An optimiser of one's own may keep whatever it likes.
fn check_types(groups: &[(Group, Vec<(String, TensorData)>)]) -> Result<()> {
    for (group, tensors) in groups {
        if let Some((name, data)) =
            tensors.iter().find(|(_, data)| !matches!(data.dtype(), DType::F32 | DType::F64))
        {
            let found = format!("{:?} in {}/{name}", data.dtype(), group.name());
            return Err(TrainError::setting("tensors of a checkpoint", "f32 or f64", found));
        }
    }
    Ok(())
}

/// Names, types, shapes and ranges; the checksum first, so that its place can be found.
fn header(state: &str, groups: &[(Group, Vec<(String, TensorData)>)]) -> Vec<u8> {
    let metadata = serde_json::json!({
        "crc32": str::from_utf8(NO_CRC).expect("zeros"), "format": FORMAT, "version": VERSION, "state": state
    });
    let tensors = groups.iter().flat_map(|(group, tensors)| {
        tensors.iter().map(move |(name, data)| {
            let name = format!("{}/{name}", group.name());
            (name, dtype(data.dtype()), data.shape().as_slice())
        })
    });
    safetensors_file::header(metadata, tensors)
}

fn dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        other => unreachable!("{other:?} was refused before"),
    }
}

fn little_endian(data: &TensorData) -> std::borrow::Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return data.as_bytes().into();
    }
    let width = if data.dtype() == DType::F64 { 8 } else { 4 };
    data.as_bytes().chunks(width).flat_map(|v| v.iter().rev().copied()).collect::<Vec<_>>().into()
}

/// An open checkpoint: its checksum was right, its tensors are read when they are asked for.
#[derive(Debug)]
pub struct TrainingCheckpoint {
    path: PathBuf,
    file: File,
    state: State,
    tensors: BTreeMap<String, Stored>,
}

#[derive(Debug)]
struct Stored {
    dtype: DType,
    shape: Vec<usize>,
    /// Bytes of the file.
    range: Range<u64>,
}

/// True when a file begins as one of our checkpoints does; nothing else of it is looked at.
pub fn is_training_checkpoint(path: &Path) -> bool {
    let mut start = [0; 64];
    let read = atomic::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start[8..].starts_with(BEGINNING)
}

impl TrainingCheckpoint {
    /// Opens a checkpoint and reads it through once, to check it against its checksum.
    ///
    /// # Errors
    /// When the file is missing, truncated, corrupt, of another format or of a later version.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |e| TrainError::io("open", path, e);
        let broken = |found: String| TrainError::checkpoint(path, "a complete checkpoint", found);
        let mut file = atomic::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| broken(format!("{length} bytes")))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || size > length - 8 {
            return Err(broken(format!("a header of {size} bytes in a file of {length}")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|e| broken(format!("a malformed header ({e})")))?;
        let data = 8 + size;
        if data + metadata.data_len() as u64 != length {
            let expected = data + metadata.data_len() as u64;
            return Err(broken(format!("{length} bytes where {expected} belong: truncated")));
        }
        let entry = |key: &str| {
            let entries = metadata.metadata().as_ref();
            entries.and_then(|m| m.get(key)).map_or("", String::as_str).to_owned()
        };
        let (format, version) = (entry("format"), entry("version"));
        if format != FORMAT || ![FORMER_VERSION, VERSION].contains(&version.as_str()) {
            let expected = format!("{FORMAT} version {FORMER_VERSION} or {VERSION}");
            let found = format!("{format:.40?} version {version:.10?}");
            return Err(TrainError::checkpoint(path, expected, found));
        }
        let found = checksum(&mut file, header).map_err(io)?;
        if found != entry("crc32") {
            return Err(broken(format!(
                "checksum {found} instead of {:.8}: corrupt",
                entry("crc32")
            )));
        }
        let state = serde_json::from_str(&entry("state"))
            .map_err(|e| broken(format!("a malformed state ({e})")))?;
        let name = if version == FORMER_VERSION { names::current } else { str::to_owned };
        let tensors = tensors(path, &metadata, data, name)?;
        Ok(Self { path: path.to_owned(), file, state, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that is no tensor.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Shape of a tensor, if there is one of that name.
    pub fn shape(&self, group: Group, name: &str) -> Option<&[usize]> {
        self.tensors.get(&format!("{}/{name}", group.name())).map(|stored| &stored.shape[..])
    }

    /// True when there is a tensor of the group.
    pub fn has(&self, group: Group) -> bool {
        self.names(group).next().is_some()
    }

    /// Names of a group's tensors.
    pub fn names(&self, group: Group) -> impl Iterator<Item = &str> {
        let keys = self.tensors.keys();
        keys.filter_map(move |key| key.strip_prefix(group.name())?.strip_prefix('/'))
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// When there is none of that name, or the file cannot be read.
    pub fn read(&self, group: Group, name: &str) -> Result<TensorData> {
        let key = format!("{}/{name}", group.name());
        let Some(stored) = self.tensors.get(&key) else {
            return Err(TrainError::checkpoint(&self.path, key, "no tensor of that name"));
        };
        let mut bytes = vec![0; (stored.range.end - stored.range.start) as usize];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(stored.range.start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| TrainError::io("read", &self.path, e))?;
        if cfg!(target_endian = "big") {
            let width = if stored.dtype == DType::F64 { 8 } else { 4 };
            bytes.chunks_mut(width).for_each(<[u8]>::reverse);
        }
        Ok(TensorData::from_bytes_vec(bytes, stored.shape.clone(), stored.dtype))
    }

    /// Reads a whole group, by name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_all(&self, group: Group) -> Result<Vec<(String, TensorData)>> {
        self.names(group).map(|name| Ok((name.to_owned(), self.read(group, name)?))).collect()
    }

    /// The encoder alone, of the run's weights or of their average, as a feature extractor; the
    /// report names the decoder's parameters as left out.
    ///
    /// # Errors
    /// When the group lacks a parameter, or the file cannot be read.
    pub fn load_encoder(&self, group: Group, device: &Device) -> Result<(Encoder, LoadReport)> {
        let config = &self.state.config;
        let encoder = Encoder::from_source(config, &mut self.merged(group), device)?;
        let specs = config.parameter_specs().into_iter();
        let (applied, left_out) =
            specs.partition::<Vec<_>, _>(|spec| spec.part == NetworkPart::Encoder);
        let names = |specs: Vec<ParameterSpec>| specs.into_iter().map(|spec| spec.name).collect();
        let (applied, left_out) = (names(applied), names(left_out));
        Ok((encoder, LoadReport { applied, left_out, ..LoadReport::default() }))
    }

    /// A group as a source of parameters.
    pub fn source(&self, group: Group) -> impl ParameterSource + '_ {
        move |spec: &ParameterSpec| {
            self.read(group, &spec.name).map_err(|error| match error {
                TrainError::Model(error) => error,
                error => ModelError::Checkpoint {
                    expected: format!("{}/{}", group.name(), spec.name),
                    found: error.to_string(),
                    path: self.path.clone(),
                },
            })
        }
    }
}

/// CRC-32 of the header and of everything from here to the file's end, in hexadecimal.
fn checksum(file: &mut File, mut header: Vec<u8>) -> std::io::Result<String> {
    let mut crc32 = crc32fast::Hasher::new();
    if let Some(place) = header.get_mut(BEGINNING.len()..BEGINNING.len() + NO_CRC.len()) {
        place.copy_from_slice(NO_CRC);
    }
    crc32.update(&header);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:08x}", crc32.finalize())),
            read => crc32.update(&buffer[..read]),
        }
    }
}

/// Tensors by `group/name`; `name_of` gives a parameter's name of today.
fn tensors(
    path: &Path,
    metadata: &Metadata,
    data: u64,
    name_of: fn(&str) -> String,
) -> Result<BTreeMap<String, Stored>> {
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            other => {
                let expected = format!("{name:.80} as F32 or F64");
                return Err(TrainError::checkpoint(path, expected, format!("{other:?}")));
            }
        };
        let (start, end) = info.data_offsets;
        let range = data + start as u64..data + end as u64;
        let name = match name.split_once('/') {
            Some((group, parameter)) => format!("{group}/{}", name_of(parameter)),
            None => name,
        };
        tensors.insert(name, Stored { dtype, shape: info.shape.clone(), range });
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests;
