//! Our own model folder: `network.json` and `weights.safetensors`.
//!
//! `network.json` holds the configuration and where the weights came from; `weights.safetensors`
//! every parameter under its path in the network (`encoder.stages.0.0.conv1.weight`), in the network's
//! order, as `f32` or `f16`, and nothing else. Folders of version 1, whose [`names`] were
//! shorter, are read as well.
//! A parameter is read when it is asked for, straight into the memory it stays in. Both files appear
//! whole or not at all.

use super::digest::Digesting;
use super::source::Source;
use super::{atomic, names, safetensors_file, values};
use crate::weights::LoadReport;
use crate::{
    Encoder, ModelError, NetworkPart, ParameterSource, ParameterSpec, StuNet, StuNetConfig,
};
use burn::tensor::{Device, TensorData};
use safetensors::tensor::{Dtype, Metadata};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the description.
pub const NETWORK_FILE: &str = "network.json";
/// Name of the weights.
pub const WEIGHTS_FILE: &str = "weights.safetensors";

const FORMAT: &str = "stunet-network";
/// Version 1 had other names of parameters.
const VERSION: u32 = 2;
/// Longest description that is read.
const MAX_DESCRIPTION: u64 = 1 << 24;
/// Longest header of the weights: the format's own bound.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes read at a time where elements are converted.
const CHUNK: usize = 1 << 20;

/// How weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredPrecision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to half precision: half the size.
    F16,
}

impl StoredPrecision {
    fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
        }
    }
}

/// Where weights came from: free entries such as `source`, `kind`, `epoch`, `trainer`.
pub type Provenance = serde_json::Map<String, serde_json::Value>;

#[derive(Serialize, Deserialize)]
struct Description {
    format: String,
    version: u32,
    config: StuNetConfig,
    weights: Weights,
    #[serde(default)]
    provenance: Provenance,
}

#[derive(Serialize, Deserialize)]
struct Weights {
    file: String,
    precision: StoredPrecision,
    /// CRC-32 of the values, in hexadecimal.
    crc32: String,
}

/// Writes a network's description and weights into a folder, which is created if need be.
///
/// Parameters are asked for and written one at a time.
///
/// # Errors
/// When the source fails, or a file cannot be written.
pub fn save(
    folder: &Path,
    config: &StuNetConfig,
    source: &mut dyn ParameterSource,
    precision: StoredPrecision,
    provenance: Provenance,
) -> Result<(), ModelError> {
    config.validate()?;
    std::fs::create_dir_all(folder).map_err(|e| ModelError::io("create", folder, e))?;
    let crc32 = write_weights(&folder.join(WEIGHTS_FILE), config, source, precision)?;
    let description = Description {
        format: FORMAT.to_owned(),
        version: VERSION,
        config: config.clone(),
        weights: Weights {
            file: WEIGHTS_FILE.to_owned(),
            precision,
            crc32: format!("{crc32:08x}"),
        },
        provenance,
    };
    let path = folder.join(NETWORK_FILE);
    let io = |e: std::io::Error| ModelError::io("write", &path, e);
    atomic::write(&path, io, |out| {
        serde_json::to_writer_pretty(&mut *out, &description).map_err(|e| io(e.into()))?;
        out.write_all(b"\n").map_err(io)
    })
}

fn write_weights(
    path: &Path,
    config: &StuNetConfig,
    source: &mut dyn ParameterSource,
    precision: StoredPrecision,
) -> Result<u32, ModelError> {
    let specs = config.parameter_specs();
    let tensors = specs.iter().map(|s| (s.name.clone(), precision.dtype(), &s.shape[..]));
    let header = safetensors_file::header(serde_json::json!({ "format": FORMAT }), tensors);
    let io = |e| ModelError::io("write", path, e);
    atomic::write(path, io, |out| {
        safetensors_file::begin(out, &header).map_err(io)?;
        let mut crc32 = crc32fast::Hasher::new();
        let mut put = |bytes: &[u8]| {
            crc32.update(bytes);
            out.write_all(bytes).map_err(io)
        };
        for spec in &specs {
            let data = values(source, spec)?;
            let floats = data.as_slice::<f32>().expect("the values were converted to f32");
            match precision {
                StoredPrecision::F32 if cfg!(target_endian = "little") => {
                    put(bytemuck::cast_slice(floats))?;
                }
                StoredPrecision::F32 => floats.iter().try_for_each(|v| put(&v.to_le_bytes()))?,
                StoredPrecision::F16 => floats.chunks(1 << 16).try_for_each(|chunk| {
                    let half = chunk.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes());
                    put(&half.collect::<Vec<u8>>())
                })?,
            }
        }
        Ok(crc32.finalize())
    })
}

/// An open model folder: checked, no weight read yet.
#[derive(Debug)]
pub struct ModelFolder {
    path: PathBuf,
    config: StuNetConfig,
    precision: StoredPrecision,
    crc32: String,
    provenance: Provenance,
    source: Source,
    tensors: BTreeMap<String, Stored>,
}

/// Where a parameter lies within the file.
#[derive(Debug)]
struct Stored {
    shape: Vec<usize>,
    start: u64,
}

/// True when a folder holds a description: it is one of ours.
pub fn is_model_folder(folder: &Path) -> bool {
    folder.join(NETWORK_FILE).is_file()
}

/// Opens a model folder and checks that the weights are those of the described network.
///
/// # Errors
/// When a file is missing, truncated or malformed, of a later version, or when the weights differ
/// from the description in names, shapes or type.
pub fn open(folder: &Path) -> Result<ModelFolder, ModelError> {
    let path = folder.join(NETWORK_FILE);
    let description = read_description(&path, &Source::open(&path, "a network description")?)?;
    let path = folder.join(WEIGHTS_FILE);
    let source = Source::open(&path, "a safetensors file")?;
    with_weights(description, source, path)
}

/// As [`open`], of the two files in memory; errors name them as if they were in `folder`.
///
/// # Errors
/// As [`open`].
pub fn open_bytes(
    description: impl Into<Arc<Vec<u8>>>,
    weights: impl Into<Arc<Vec<u8>>>,
    folder: &Path,
) -> Result<ModelFolder, ModelError> {
    let source = Source::Memory(description.into());
    let description = read_description(&folder.join(NETWORK_FILE), &source)?;
    with_weights(description, Source::Memory(weights.into()), folder.join(WEIGHTS_FILE))
}

fn with_weights(
    description: Description,
    source: Source,
    path: PathBuf,
) -> Result<ModelFolder, ModelError> {
    let (data, metadata) = read_header(&path, &source)?;
    let precision = description.weights.precision;
    let name = if description.version == 1 { names::current } else { str::to_owned };
    let tensors = stored(&path, &metadata, data, precision, name)?;
    let opened = ModelFolder {
        path,
        config: description.config,
        precision,
        crc32: description.weights.crc32,
        provenance: description.provenance,
        source,
        tensors,
    };
    let report = opened.compare();
    if !report.is_complete() {
        return Err(ModelError::Load { report: Box::new(report), path: opened.path });
    }
    Ok(opened)
}

fn read_description(path: &Path, source: &Source) -> Result<Description, ModelError> {
    let mut text = String::new();
    let read = source
        .length()
        .and_then(|length| source.part(0, length.min(MAX_DESCRIPTION)).read_to_string(&mut text));
    read.map_err(|e| ModelError::io("read", path, e))?;
    let refuse = |expected: &str, found: String| ModelError::checkpoint(path, expected, found);
    // The tag is looked at first: another program's file deserves a clearer answer.
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|e| refuse("a network description in JSON", e.to_string()))?;
    if json["format"] != FORMAT {
        let found = format!("{:.60}", json["format"].to_string());
        return Err(refuse("format \"stunet-network\"", found));
    }
    if !(1..=VERSION).any(|version| json["version"] == version) {
        let found = format!("{:.60}", json["version"].to_string());
        return Err(refuse("version 1 or 2, which this program reads", found));
    }
    let description: Description =
        serde_json::from_value(json).map_err(|e| refuse("a network description", e.to_string()))?;
    if description.weights.file != WEIGHTS_FILE {
        let found = format!("`{:.60}`", description.weights.file);
        return Err(refuse("weights in `weights.safetensors`", found));
    }
    description.config.validate()?;
    Ok(description)
}

/// Where the values begin, and what the header says of them, checked against the file's length.
fn read_header(path: &Path, source: &Source) -> Result<(u64, Metadata), ModelError> {
    let io = |e| ModelError::io("read", path, e);
    let broken = |found: String| ModelError::checkpoint(path, "a complete safetensors file", found);
    let length = source.length().map_err(io)?;
    if length < 8 {
        return Err(broken(format!("{length} bytes")));
    }
    let mut size = [0; 8];
    source.read_exact_at(&mut size, 0).map_err(io)?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER.min(length - 8) {
        return Err(broken(format!("a header of {size} bytes in a file of {length}")));
    }
    let mut header = vec![0; size as usize];
    source.read_exact_at(&mut header, 8).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| broken(format!("a malformed header ({e})")))?;
    // Reading checked that every array lies behind the one before, in as many bytes as its shape.
    let end = (metadata.data_len() as u64).checked_add(8 + size);
    if end != Some(length) {
        let values = metadata.data_len();
        return Err(broken(format!("{values} bytes of values announced in a file of {length}")));
    }
    Ok((8 + size, metadata))
}

fn stored(
    path: &Path,
    metadata: &Metadata,
    data: u64,
    precision: StoredPrecision,
    name_of: fn(&str) -> String,
) -> Result<BTreeMap<String, Stored>, ModelError> {
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        if info.dtype != precision.dtype() {
            let expected = format!("{name:.80} as {:?}", precision.dtype());
            return Err(ModelError::checkpoint(path, expected, format!("{:?}", info.dtype)));
        }
        let start = data + info.data_offsets.0 as u64;
        tensors.insert(name_of(&name), Stored { shape: info.shape.clone(), start });
    }
    Ok(tensors)
}

impl ModelFolder {
    /// The network's configuration.
    pub fn config(&self) -> &StuNetConfig {
        &self.config
    }

    /// How the weights are stored.
    pub fn precision(&self) -> StoredPrecision {
        self.precision
    }

    /// Where the weights came from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Loads the network.
    ///
    /// # Errors
    /// When the values cannot be read or do not match their checksum.
    pub fn load(&self, device: &Device) -> Result<(StuNet, LoadReport), ModelError> {
        let mut source = FolderSource { folder: self, crc32: crc32fast::Hasher::new() };
        let mut digesting = Digesting::new(&mut source);
        let network = StuNet::from_source(&self.config, &mut digesting, device)?;
        let digest = digesting.finish();
        source.finish()?;
        Ok((network, LoadReport { digest: Some(digest), ..self.compare() }))
    }

    /// Loads the encoder alone; the report names the decoder's parameters as left out.
    ///
    /// Everything is read, one parameter at a time, since the checksum covers everything.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_encoder(&self, device: &Device) -> Result<(Encoder, LoadReport), ModelError> {
        let mut source = FolderSource { folder: self, crc32: crc32fast::Hasher::new() };
        let encoder = Encoder::from_source(&self.config, &mut source, device)?;
        let rest = self.config.parameter_specs().into_iter();
        for spec in rest.filter(|spec| spec.part != NetworkPart::Encoder) {
            source.parameter(&spec)?;
        }
        source.finish()?;
        Ok((encoder, self.compare_with(&self.config.encoder_specs()).of_encoder()))
    }

    fn compare(&self) -> LoadReport {
        self.compare_with(&self.config.parameter_specs())
    }

    fn compare_with(&self, specs: &[ParameterSpec]) -> LoadReport {
        let found = self.tensors.iter().map(|(name, stored)| (&name[..], &stored.shape[..]));
        LoadReport::compare(specs, found)
    }
}

/// Serves parameters in order and sums their checksum on the way.
struct FolderSource<'a> {
    folder: &'a ModelFolder,
    crc32: crc32fast::Hasher,
}

impl FolderSource<'_> {
    /// Compares the checksum, once every parameter was asked for.
    fn finish(self) -> Result<(), ModelError> {
        let found = format!("{:08x}", self.crc32.finalize());
        if found == self.folder.crc32 {
            return Ok(());
        }
        let expected = format!("weights with checksum {:.8}", self.folder.crc32);
        Err(ModelError::checkpoint(&self.folder.path, expected, found + ": corrupt"))
    }
}

impl ParameterSource for FolderSource<'_> {
    fn parameter(&mut self, spec: &ParameterSpec) -> Result<TensorData, ModelError> {
        let folder = self.folder;
        let stored = folder.tensors.get(&spec.name).expect("opening checked every name");
        let io = |e| ModelError::io("read", &folder.path, e);
        // Opening found this shape in the file, so that the count is no larger than the file.
        let count = spec.shape.iter().product();
        let mut at = stored.start;
        let mut read = |bytes: &mut [u8]| {
            folder.source.read_exact_at(bytes, at).map_err(io)?;
            self.crc32.update(bytes);
            at += bytes.len() as u64;
            Ok::<_, ModelError>(())
        };
        if folder.precision == StoredPrecision::F32 && cfg!(target_endian = "little") {
            // One buffer, which becomes the tensor; pieces stay in the cache for their checksum.
            let mut floats = vec![0f32; count];
            bytemuck::cast_slice_mut(&mut floats).chunks_mut(CHUNK).try_for_each(read)?;
            return Ok(TensorData::new(floats, stored.shape.clone()));
        }
        let mut floats: Vec<f32> = Vec::with_capacity(count);
        let size = folder.precision.size();
        let mut buffer = vec![0; CHUNK.min(count * size)];
        while floats.len() < count {
            let chunk = buffer.len().min((count - floats.len()) * size);
            read(&mut buffer[..chunk])?;
            match folder.precision {
                StoredPrecision::F32 => floats
                    .extend(buffer[..chunk].as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
                StoredPrecision::F16 => {
                    let halves = buffer[..chunk].as_chunks().0.iter();
                    floats.extend(halves.map(|&b| half::f16::from_le_bytes(b).to_f32()));
                }
            }
        }
        Ok(TensorData::new(floats, stored.shape.clone()))
    }
}
