//! PyTorch's files: a pickle that describes tensors, and their storages beside it.
//!
//! Two containers exist. Since torch 1.6 a file is a zip archive whose records are stored
//! uncompressed, so that a storage is a plain range of the file. Before, it was a stream of five
//! pickles followed by the storages, which comes to the same. Opening reads the pickle only;
//! a tensor's bytes are read when it is asked for, at its position, and nothing is kept.

mod legacy;
mod zipped;

use super::pickle::{PickleError, Value};
use super::source::Source;
use super::tensor::{Dtype, StorageRef, TensorRef};
use crate::ModelError;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at a time where elements are converted.
const CHUNK: usize = 1 << 20;

/// An open torch file.
#[derive(Debug)]
pub struct TorchFile {
    path: PathBuf,
    source: Source,
    root: Value,
    storages: HashMap<String, Span>,
}

/// Where a storage lies in the file.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    bytes: u64,
    /// The checksum that a zip keeps of it.
    crc32: Option<u32>,
}

/// What the containers answer with; the path is added above.
#[derive(Debug)]
enum Broken {
    Pickle(PickleError),
    Io(std::io::Error),
    Format { expected: String, found: String },
}

impl From<PickleError> for Broken {
    fn from(e: PickleError) -> Self {
        Self::Pickle(e)
    }
}

impl From<std::io::Error> for Broken {
    fn from(e: std::io::Error) -> Self {
        Self::Io(e)
    }
}

fn broken(expected: impl Into<String>, found: impl Into<String>) -> Broken {
    Broken::Format { expected: expected.into(), found: found.into() }
}

impl TorchFile {
    /// Opens a checkpoint of either container and reads its pickle.
    ///
    /// # Errors
    /// When the file is neither, is truncated or corrupt, or its pickle is refused
    /// (see [`pickle`](super::pickle)).
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::read(Source::open(path, "a torch checkpoint")?, path)
    }

    /// Opens a checkpoint that is in memory, as it would be in a file; errors name `path`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: impl Into<Arc<Vec<u8>>>, path: &Path) -> Result<Self, ModelError> {
        Self::read(Source::Memory(bytes.into()), path)
    }

    fn read(source: Source, path: &Path) -> Result<Self, ModelError> {
        let (root, storages) = Self::contents(&source).map_err(|e| match e {
            Broken::Pickle(e) => ModelError::pickle(path, e),
            Broken::Io(e) => ModelError::io("read", path, e),
            Broken::Format { expected, found } => ModelError::checkpoint(path, expected, found),
        })?;
        Ok(Self { path: path.to_owned(), source, root, storages })
    }

    fn contents(source: &Source) -> Result<(Value, HashMap<String, Span>), Broken> {
        let length = source.length()?;
        let mut start = [0; 4];
        if length < 4 {
            return Err(broken("a torch checkpoint", format!("a file of {length} bytes")));
        }
        source.read_exact_at(&mut start, 0)?;
        match start {
            [b'P', b'K', 3, 4] => zipped::contents(source, length),
            [0x80, 2..=5, ..] => legacy::contents(source, length),
            _ => Err(broken(
                "a torch checkpoint (a zip archive or a pickle stream)",
                beginning(&start),
            )),
        }
    }

    /// What the file holds, tensors as references.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The values of a tensor, row-major, as `f32`.
    ///
    /// Exact for every type but `float64`, which is rounded, and integers beyond 24 bits. Only the
    /// range of the file that the tensor spans is read.
    ///
    /// # Errors
    /// When the tensor reaches beyond its storage or the file, or the bytes do not match the
    /// archive's checksum.
    pub fn read_f32(&self, tensor: &TensorRef) -> Result<Vec<f32>, ModelError> {
        let (at, count) = self.locate(tensor)?;
        let dtype = tensor.storage.dtype;
        if !tensor.is_contiguous() {
            let mut out = Vec::new();
            dtype.to_f32(&self.gather(tensor, at, count)?, &mut out);
            return Ok(out);
        }
        let mut check = Checksum::new(self, tensor, count);
        let out = if dtype == Dtype::F32 && cfg!(target_endian = "little") {
            // The largest tensors take this way: one buffer, no second copy.
            let mut out = vec![0f32; count];
            let mut position = at;
            for chunk in bytemuck::cast_slice_mut::<f32, u8>(&mut out).chunks_mut(CHUNK) {
                self.read_at(chunk, position)?;
                check.update(chunk);
                position += chunk.len() as u64;
            }
            out
        } else {
            let mut out = Vec::with_capacity(count);
            let mut position = at;
            let mut left = count * dtype.size();
            let mut buffer = vec![0; left.min(CHUNK)];
            while left > 0 {
                let chunk = &mut buffer[..left.min(CHUNK)];
                self.read_at(chunk, position)?;
                check.update(chunk);
                dtype.to_f32(chunk, &mut out);
                position += chunk.len() as u64;
                left -= chunk.len();
            }
            out
        };
        check.finish()?;
        Ok(out)
    }

    /// The values of a tensor, row-major, as `f64`: exact for all but integers beyond 53 bits.
    ///
    /// # Errors
    /// As [`read_f32`](Self::read_f32).
    pub fn read_f64(&self, tensor: &TensorRef) -> Result<Vec<f64>, ModelError> {
        let (at, count) = self.locate(tensor)?;
        Ok(tensor.storage.dtype.to_f64(&self.gather(tensor, at, count)?))
    }

    /// A tensor's elements as bytes, row-major, whatever its strides.
    fn gather(&self, tensor: &TensorRef, at: u64, count: usize) -> Result<Vec<u8>, ModelError> {
        let size = tensor.storage.dtype.size();
        let span = tensor.end().unwrap_or(tensor.offset) - tensor.offset;
        let mut out = Vec::with_capacity(count * size);
        if span <= count.saturating_mul(4).max(CHUNK) {
            let mut bytes = vec![0; span * size];
            self.read_at(&mut bytes, at)?;
            tensor.walk(|i| out.extend_from_slice(&bytes[i * size..(i + 1) * size]));
        } else {
            // Few elements far apart: the range between them is not worth reading.
            let mut failed = Ok(());
            tensor.walk(|i| {
                let mut element = [0; 8];
                if failed.is_ok() {
                    failed = self.read_at(&mut element[..size], at + (i * size) as u64);
                }
                out.extend_from_slice(&element[..size]);
            });
            failed?;
        }
        Ok(out)
    }

    /// Position in the file of a tensor's first element, and its number of elements.
    fn locate(&self, tensor: &TensorRef) -> Result<(u64, usize), ModelError> {
        let storage = &tensor.storage;
        let span = self.span(storage)?;
        let bad = |expected: String| {
            let found = format!(
                "shape {:?}, stride {:?}, offset {}",
                tensor.shape, tensor.stride, tensor.offset
            );
            ModelError::checkpoint(&self.path, expected, found)
        };
        let inside = tensor.end().is_some_and(|end| end <= storage.numel);
        let count = tensor.numel().filter(|_| inside).ok_or_else(|| {
            bad(format!("a tensor within its storage `{}` of {}", storage.key, storage.numel))
        })?;
        // A stride of zero repeats elements without end; no checkpoint does.
        if count > storage.numel.max(CHUNK) {
            return Err(bad("a tensor no larger than its storage".to_owned()));
        }
        let first = (storage.start + tensor.offset) as u64 * storage.dtype.size() as u64;
        Ok((span.start + first, count))
    }

    /// The storage's place in the file, checked against its declared size.
    fn span(&self, storage: &StorageRef) -> Result<Span, ModelError> {
        let span = *self.storages.get(&storage.key).ok_or_else(|| {
            let expected = format!("storage `{:.40}` in the file", storage.key);
            ModelError::checkpoint(&self.path, expected, "none of that name")
        })?;
        let end = storage.start.checked_add(storage.numel);
        let end = end.and_then(|n| (n as u64).checked_mul(storage.dtype.size() as u64));
        if end.is_none_or(|end| end > span.bytes) {
            let expected = format!(
                "{} elements of {} in storage `{}`",
                storage.numel,
                storage.dtype.name(),
                storage.key
            );
            let found = format!("{} bytes", span.bytes);
            return Err(ModelError::checkpoint(&self.path, expected, found));
        }
        Ok(span)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<(), ModelError> {
        self.source.read_exact_at(buffer, at).map_err(|e| ModelError::io("read", &self.path, e))
    }
}

/// The checksum of a storage that one tensor covers wholly.
struct Checksum<'a> {
    file: &'a TorchFile,
    key: &'a str,
    expected: Option<u32>,
    found: crc32fast::Hasher,
}

impl<'a> Checksum<'a> {
    fn new(file: &'a TorchFile, tensor: &'a TensorRef, count: usize) -> Self {
        let storage = &tensor.storage;
        let span = file.storages.get(&storage.key);
        let whole = |span: &&Span| span.bytes == (count * storage.dtype.size()) as u64;
        let expected = span.filter(whole).and_then(|span| span.crc32);
        Self { file, key: &storage.key, expected, found: crc32fast::Hasher::new() }
    }

    fn update(&mut self, bytes: &[u8]) {
        if self.expected.is_some() {
            self.found.update(bytes);
        }
    }

    fn finish(self) -> Result<(), ModelError> {
        let found = self.found.finalize();
        match self.expected {
            Some(expected) if expected != found => Err(ModelError::checkpoint(
                &self.file.path,
                format!("storage `{}` with checksum {expected:08x}", self.key),
                format!("{found:08x}: the file is corrupt"),
            )),
            _ => Ok(()),
        }
    }
}
/// What a file is that is none of ours, as far as its first bytes can be shown.
fn beginning(start: &[u8]) -> String {
    match std::str::from_utf8(start) {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic() || c == ' ') => {
            format!("a file of another kind, which begins with {text:?}")
        }
        _ => "a file of another kind".to_owned(),
    }
}
